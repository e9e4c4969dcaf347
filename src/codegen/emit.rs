//! Nodes as WGSL text, at the level of a loop (`eID`) or further out (`o.nID`, `r.nID`).

use super::{Along, Binding, Mode, Slot, Variant, group_slots, index_bits, scalar_slots, tensors};
use crate::expr::{Extent, Node, NodeId, Reduce, Scope};
use crate::lower::{Pass, Program};
use crate::op::{Kind, Op};
use crate::schedule::{uses_scalars, uses_work};
use std::fmt::Write;

/// Bindings and address arithmetic of a pass kernel.
pub(super) struct Frame<'a> {
    pub program: &'a Program,
    pub pass: &'a Pass,
    pub variant: &'a Variant,
    pub width: u32,
    pub slots: Vec<Slot>,
}

impl<'a> Frame<'a> {
    pub fn new(program: &'a Program, pass: usize, variant: &'a Variant, width: u32) -> Frame<'a> {
        let pass = &program.passes[pass];
        Frame { program, pass, variant, width, slots: tensors(program, pass) }
    }

    /// Place in `shape.tensors` of a slot.
    pub fn tensor(&self, slot: Slot) -> usize {
        self.slots.iter().position(|s| *s == slot).expect("a tensor of the pass")
    }

    pub fn along(&self, slot: Slot) -> Along {
        self.variant.along[self.tensor(slot)]
    }

    /// Whether loads and stores of the tensor are vectors.
    pub fn is_vector(&self, slot: Slot) -> bool {
        self.width == 4 && self.along(slot) == Along::Unit && self.varies(slot)
    }

    /// Whether the tensor has one value a column.
    fn varies(&self, slot: Slot) -> bool {
        match slot {
            Slot::Input(place) => matches!(self.program.inputs[place].scope, Scope::Element | Scope::Column),
            Slot::Output(place) => self.program.outputs[place].scope == Scope::Element,
            _ => false,
        }
    }

    pub fn mode(&self, output: usize) -> Mode {
        let place = self.pass.outputs.iter().position(|o| *o == output).expect("an output of the pass");
        self.variant.modes[place]
    }

    /// The name of the buffer that holds a tensor.
    pub fn buffer(&self, slot: Slot) -> String {
        match slot {
            Slot::Input(place) => format!("input{place}"),
            Slot::Output(place) => match self.mode(place) {
                Mode::InPlace(input) if self.slots.contains(&Slot::Input(input)) => format!("input{input}"),
                _ => format!("output{place}"),
            },
            Slot::Work => "work".to_owned(),
            Slot::Scalars => "scalars".to_owned(),
        }
    }

    /// Storage bindings in order, and their declarations.
    pub fn bindings(&self, params: &str) -> (Vec<Binding>, String) {
        let mut all: Vec<Binding> = Vec::new();
        let mut text = String::from("@group(0) @binding(0) var<uniform> shape: Shape;\n");
        text.push_str(params);
        let overwritten = |place: usize| self.pass.outputs.iter().any(|&o| self.mode(o) == Mode::InPlace(place));
        for (tensor, &slot) in self.slots.iter().enumerate() {
            let writes = match slot {
                Slot::Input(place) => overwritten(place) || self.variant.pooled,
                _ => true,
            };
            let name = self.buffer(slot);
            if matches!(slot, Slot::Output(_)) && name.starts_with("input") {
                continue;
            }
            all.push(Binding { slot, writes, tensor: Some(tensor) });
            let element = if self.is_vector(slot) { "vec4<u32>" } else { "u32" };
            declare(&mut text, all.len() + 1, writes, &name, &format!("array<{element}>"));
        }
        let shared = [
            (uses_work(self.program, self.pass), Slot::Work, "work", "array<u32>"),
            (uses_scalars(self.program, self.pass), Slot::Scalars, "scalars", "Scalars"),
        ];
        for (_, slot, name, ty) in shared.into_iter().filter(|s| s.0) {
            all.push(Binding { slot, writes: true, tensor: None });
            declare(&mut text, all.len() + 1, true, name, ty);
        }
        (all, text)
    }

    /// Indices along the axes, `a0` to `a3`, from a row or element number.
    pub fn coordinates(&self, index: &str) -> String {
        let keep = if self.program.has_rows() { 3 } else { 4 };
        let used: Vec<usize> = (0..keep).filter(|&axis| self.variant.axes[axis]).collect();
        let mut text = String::new();
        let mut rest = index.to_owned();
        for (place, &axis) in used.iter().enumerate().rev() {
            if place == 0 {
                writeln!(text, "    let a{axis} = {rest};").expect("writing to a string");
            } else {
                writeln!(text, "    let a{axis} = {rest} % shape.axes[{axis}];").expect("writing to a string");
                writeln!(text, "    let rest{axis} = {rest} / shape.axes[{axis}];").expect("writing to a string");
                rest = format!("rest{axis}");
            }
        }
        text
    }

    /// The tensor's first element at those indices; without rows, the inner axis is left to the caller's vector, and
    /// where the tensor begins was read before the loop (a CPU reads uniforms lane by lane inside one).
    pub fn base(&self, slot: Slot) -> String {
        let tensor = self.tensor(slot);
        let keep = if self.program.has_rows() { 3 } else { 4 };
        let mut text = match self.program.has_rows() {
            true => format!("shape.tensors[{}].x", 2 * tensor + 1),
            false => format!("o.first{tensor}"),
        };
        for axis in (0..keep).filter(|&axis| self.variant.axes[axis]) {
            if axis == 3 {
                match self.along(slot) {
                    Along::Unit => text.push_str(" + a3"),
                    Along::Repeat => {}
                    Along::Strided => write!(text, " + a3 * shape.tensors[{}][3]", 2 * tensor).expect("writing"),
                }
            } else {
                write!(text, " + a{axis} * shape.tensors[{}][{axis}]", 2 * tensor).expect("writing to a string");
            }
        }
        text
    }

    /// Address of a column, given the row's base.
    pub fn at_col(&self, slot: Slot, base: &str, col: &str) -> String {
        match self.along(slot) {
            Along::Unit => format!("{base} + {col}"),
            Along::Repeat => base.to_owned(),
            Along::Strided => format!("{base} + {col} * shape.tensors[{}].w", 2 * self.tensor(slot)),
        }
    }

    /// Bits of the element (or vector of elements) at an address.
    pub fn load(&self, slot: Slot, address: &str) -> String {
        let name = self.buffer(slot);
        match (self.is_vector(slot), self.width) {
            (true, _) => format!("{name}[({address}) / 4u]"),
            (false, 4) => format!("U4({name}[{address}])"),
            _ => format!("{name}[{address}]"),
        }
    }

    /// Bits of one element at an address.
    pub fn load_one(&self, slot: Slot, address: &str) -> String {
        let name = self.buffer(slot);
        if self.is_vector(slot) {
            format!("{name}[({address}) / 4u][({address}) % 4u]")
        } else {
            format!("{name}[{address}]")
        }
    }

    /// Stores a value (or vector) at an address, added to what is there where the output accumulates.
    pub fn store(&self, output: usize, address: &str, value: &str, poison: &str) -> String {
        let slot = Slot::Output(output);
        let (f, place) = match self.is_vector(slot) {
            true => ("4", format!("{}[({address}) / 4u]", self.buffer(slot))),
            false => ("", format!("{}[{address}]", self.buffer(slot))),
        };
        let ty = if f.is_empty() { "f32" } else { "F4" };
        match self.mode(output) {
            Mode::Accumulate => format!("    {place} = store_bits{f}(bitcast<{ty}>({place}) + {value}, {poison});\n"),
            _ => format!("    {place} = store_bits{f}({value}, {poison});\n"),
        }
    }

    /// Nodes further out than a row that something below the roots reads, in order.
    pub fn outer_nodes(&self, roots: &[NodeId]) -> Vec<NodeId> {
        let below = self.program.below(roots, |id| matches!(self.program.node(id), Node::SumOver(..)));
        below.into_iter().filter(|&id| is_outer(self.program, id)).collect()
    }
}

/// Declaration of the parameters' uniform; without parameters, one that nobody reads.
pub(super) fn params(program: &Program, binding: usize) -> String {
    let vectors = program.params.len().div_ceil(4).max(1);
    format!("@group(0) @binding({binding}) var<uniform> params: array<vec4<f32>, {vectors}>;\n")
}

/// Nodes below the roots, operands first, and first of all those that say where the loss is valid: gathers ask.
pub(super) fn valid_first(program: &Program, roots: &[NodeId]) -> Vec<NodeId> {
    let is_sum = |id: NodeId| matches!(program.node(id), Node::SumOver(..));
    let mut nodes = program.below(roots, is_sum);
    if let Some(valid) = program.valid {
        let early = program.below(&[valid], is_sum);
        nodes.sort_by_key(|id| (!early.contains(id), *id));
    }
    nodes
}

/// Whether a node has one value for the whole dispatch, and is not a literal.
pub(super) fn is_outer(program: &Program, id: NodeId) -> bool {
    program.scope(id) <= Scope::Total && !is_literal(program.node(id))
}

pub(super) fn is_literal(node: &Node) -> bool {
    matches!(node, Node::Const(_) | Node::Int(_) | Node::Bool(_))
}

fn declare(text: &mut String, binding: usize, writes: bool, name: &str, ty: &str) {
    let access = if writes { "read_write" } else { "read" };
    writeln!(text, "@group(0) @binding({binding}) var<storage, {access}> {name}: {ty};").expect("writing to a string");
}

/// A literal of the element type.
pub(super) fn literal(node: &Node, width: u32) -> String {
    let (text, ty) = match node {
        Node::Const(bits) => (float(f64::from_bits(*bits)), "F4"),
        Node::Int(value) => (format!("{}u", index_bits(*value)), "U4"),
        Node::Bool(value) => (format!("{value}"), "B4"),
        other => unreachable!("{other:?} is not a literal"),
    };
    if width == 4 { format!("{ty}({text})") } else { text }
}

fn float(value: f64) -> String {
    let narrow = value as f32;
    if narrow.is_nan() {
        "bitcast<f32>(shape.reserved0 | NAN_BITS)".to_owned()
    } else if narrow.is_infinite() {
        // A constant ∞ is a WGSL error; a run-time one is not.
        let bits = narrow.to_bits();
        format!("bitcast<f32>(shape.reserved0 | {bits}u)")
    } else {
        format!("({narrow:?}f)")
    }
}

/// Assignments of the outer nodes to `{s}.nID`, and the bits of the scalars that they load to `{s}.bits`.
pub(super) fn outer_code(program: &Program, nodes: &[NodeId], s: &str) -> String {
    let slots = scalar_slots(program);
    let mut text = String::new();
    for &id in nodes {
        let name = format!("{s}.n{}", id.0);
        let value = match *program.node(id) {
            Node::Param(place) => format!("params[{}][{}]", place / 4, place % 4),
            Node::Count(extent) => count(extent),
            Node::Input(_) | Node::SumOver(..) => {
                let slot = slots.iter().position(|n| *n == id).expect("a scalar's slot");
                writeln!(text, "    let b{} = scalars.values[{slot}];", id.0).expect("writing to a string");
                writeln!(text, "    {s}.bits = max({s}.bits, b{} & MAGNITUDE);", id.0).expect("writing to a string");
                format!("bitcast<f32>(b{})", id.0)
            }
            Node::Op(op, _) => {
                let operands: Vec<NodeId> = program.node(id).operands().collect();
                let value = |id: NodeId| outer_value(program, id, s);
                match op {
                    // 0/0 must be NaN on every driver: all rows ignored.
                    Op::Div => format!("ratio({}, {})", value(operands[0]), value(operands[1])),
                    _ => op_text(program, op, &operands, 1, &value),
                }
            }
            ref other => unreachable!("{other:?} is not further out than a row"),
        };
        writeln!(text, "    {name} = {value};").expect("writing to a string");
    }
    text
}

pub(super) fn outer_value(program: &Program, id: NodeId, s: &str) -> String {
    if is_literal(program.node(id)) { literal(program.node(id), 1) } else { format!("{s}.n{}", id.0) }
}

fn count(extent: Extent) -> String {
    match extent {
        Extent::Cols => "f32(shape.cols)".to_owned(),
        Extent::Rows => "f32(shape.rows)".to_owned(),
        Extent::GroupRows => "f32(shape.group_rows)".to_owned(),
        Extent::Elements => "f32(shape.elements)".to_owned(),
        Extent::Batch => "f32(shape.batch)".to_owned(),
    }
}

/// A scalar operation over values already spelled.
pub(super) fn op_text(
    program: &Program,
    op: Op,
    operands: &[NodeId],
    width: u32,
    value: &dyn Fn(NodeId) -> String,
) -> String {
    let w = if width == 4 { "4" } else { "" };
    let zero = if width == 4 { "F4(0.0)" } else { "0.0" };
    let one = if width == 4 { "F4(1.0)" } else { "1.0" };
    let a = value(operands[0]);
    let b = operands.get(1).map(|b| value(*b)).unwrap_or_default();
    let call = |name: &str| format!("math_{name}{w}({a})");
    // WGSL's max and min drop a NaN operand; ∞ − ∞ makes one from inputs that are none.
    let pick = |name: &str| format!("select({name}({a}, {b}), {a} + {b}, math_is_nan{w}({a}) | math_is_nan{w}({b}))");
    match op {
        Op::Neg => format!("-({a})"),
        Op::Abs => format!("abs({a})"),
        Op::Sign => format!("select(sign({a}), {a}, math_is_nan{w}({a}))"),
        Op::Exp if is_shifted(program, operands[0]) => call("exp_neg"),
        Op::Exp => call("exp"),
        Op::Expm1 => call("expm1"),
        Op::Log => call("log"),
        Op::Log1p => call("log1p"),
        Op::Sqrt => call("sqrt"),
        Op::Tanh => call("tanh"),
        Op::Sigmoid => call("sigmoid"),
        Op::LogSigmoid => call("log_sigmoid"),
        Op::Softplus => call("softplus"),
        Op::LogCosh => call("log_cosh"),
        Op::Erf => call("erf"),
        Op::Relu => format!("select(max({a}, {zero}), {a}, math_is_nan{w}({a}))"),
        Op::Not => format!("!({a})"),
        Op::ToFloat => match program.kind(operands[0]) {
            Kind::Bool => format!("select({zero}, {one}, {a})"),
            _ => format!("F{w}(bitcast<I{w}>({a}))"),
        },
        Op::Add => format!("{a} + {b}"),
        Op::Sub => format!("{a} - {b}"),
        Op::Mul => format!("{a} * {b}"),
        Op::Div => format!("math_div{w}({a}, {b})"),
        Op::Pow => format!("math_pow{w}({a}, {b})"),
        Op::Maximum => pick("max"),
        Op::Minimum => pick("min"),
        Op::Xlogy => format!("math_xlogy{w}({a}, {b})"),
        Op::Lt => format!("{a} < {b}"),
        Op::Le => format!("{a} <= {b}"),
        Op::Eq => format!("{a} == {b}"),
        Op::And => format!("{a} & {b}"),
        Op::Or => format!("{a} | {b}"),
        Op::Select => format!("select({}, {b}, {a})", value(operands[2])),
    }
}

/// x − max x: never above 0, so the cheaper exponential will do.
fn is_shifted(program: &Program, id: NodeId) -> bool {
    match *program.node(id) {
        Node::Op(Op::Sub, [x, max, _]) => *program.node(max) == Node::Reduce(Reduce::Max, x),
        _ => false,
    }
}

/// Emits the values of one level, each once, operands first.
pub(super) struct Emit<'f, 'a> {
    pub frame: &'f Frame<'a>,
    pub width: u32,
    /// Name of the struct that holds values further out: `o` or `r`.
    pub outer: &'static str,
    /// Whether a node belongs to this level.
    pub here: &'f dyn Fn(NodeId) -> bool,
}

impl Emit<'_, '_> {
    /// How a node is spelled at this level.
    pub fn value(&self, id: NodeId) -> String {
        let program = self.frame.program;
        if is_literal(program.node(id)) {
            return literal(program.node(id), self.width);
        }
        if (self.here)(id) {
            return format!("e{}", id.0);
        }
        let name = format!("{}.n{}", self.outer, id.0);
        match (self.width, program.kind(id)) {
            (4, Kind::Float) => format!("F4({name})"),
            (4, Kind::Int) => format!("U4({name})"),
            (4, Kind::Bool) => format!("B4({name})"),
            _ => name,
        }
    }

    /// `let eID = …;` for the operations of this level among `nodes`; inputs and gathers come from `load`.
    pub fn lets(&self, nodes: &[NodeId], load: &dyn Fn(NodeId) -> String) -> String {
        let program = self.frame.program;
        let mut text = String::new();
        for &id in nodes.iter().filter(|&&id| (self.here)(id) && !is_literal(program.node(id))) {
            let value = match *program.node(id) {
                Node::Op(op, _) => {
                    let operands: Vec<NodeId> = program.node(id).operands().collect();
                    op_text(program, op, &operands, self.width, &|id| self.value(id))
                }
                _ => {
                    text.push_str(&load(id));
                    continue;
                }
            };
            writeln!(text, "    let e{} = {value};", id.0).expect("writing to a string");
        }
        text
    }
}

/// Adds group sums to the values that a row can load.
pub(super) fn group_load(program: &Program, id: NodeId, row: &str) -> String {
    let slot = group_slots(program).iter().position(|n| *n == id).expect("a group sum's slot");
    format!("work[shape.group_base + {slot}u * shape.groups + {row} / shape.group_rows]")
}
