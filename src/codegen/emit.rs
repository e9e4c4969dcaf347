//! Nodes as WGSL text: values of a loop (`eID`) and values outside it (`o.nID`, `r.nID`).

use super::access::Frame;
use super::groups::group_value;
use super::poison::bits;
use super::scalar_slots;
use crate::expr::op::{Kind, Op};
use crate::expr::{Extent, Node, NodeId, Reduce, index_bits};
use crate::limits::Exp2;
use crate::lower::Program;
use crate::shape::Scope;
use crate::text::putln;

/// Declaration of the parameters' uniform, which stands even without parameters.
pub(super) fn params(program: &Program, binding: usize) -> String {
    let vectors = program.params.len().div_ceil(4).max(1);
    format!("@group(0) @binding({binding}) var<uniform> params: array<vec4<u32>, {vectors}>;\n")
}

/// A parameter, loaded as bits: an f32 does not hold every class index.
pub(super) fn param(program: &Program, index: u32) -> String {
    let bits = format!("params[{}][{}]", index / 4, index % 4);
    if program.params[index as usize].kind == Kind::Int { bits } else { format!("bitcast<f32>({bits})") }
}

/// Nodes of a pass below the roots with one value per dispatch, in order.
pub(super) fn outer_nodes(frame: &Frame<'_>, roots: &[NodeId]) -> Vec<NodeId> {
    let nodes = frame.program.within(frame.pass, roots);
    nodes.into_iter().filter(|&id| is_outer(frame.program, id)).collect()
}

/// Whether a node has one value for the whole dispatch, and is not a literal.
pub(super) fn is_outer(program: &Program, id: NodeId) -> bool {
    program.scope(id) <= Scope::Total && !is_literal(program.node(id))
}

pub(super) fn is_literal(node: &Node) -> bool {
    matches!(node, Node::Const(_) | Node::Int(_) | Node::Bool(_))
}

/// A literal of the element type.
pub(super) fn literal(node: &Node, width: u32) -> String {
    let (text, ty) = match node {
        Node::Const(bits) => (float(f64::from_bits(*bits)), "F4"),
        Node::Int(value) => (format!("{}u", index_bits(*value)), "U4"),
        Node::Bool(value) => (format!("{value}"), "B4"),
        other => unreachable!("literals are spelled, not {other:?}"),
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
    } else if narrow.abs() == f32::MAX {
        // Its shortest decimal is a little larger, which Tint refuses.
        format!("({}3.40282346e38f)", if narrow < 0.0 { "-" } else { "" })
    } else {
        format!("({narrow:?}f)")
    }
}

/// Assignments of the outer nodes to `{s}.nID`. `looking` gives the poisons that look at a scalar: their bits are
/// updated where the scalar is loaded.
pub(super) fn outer_code(
    program: &Program,
    nodes: &[NodeId],
    s: &str,
    looking: &dyn Fn(NodeId) -> Vec<usize>,
) -> String {
    let slots = scalar_slots(program);
    let mut text = String::new();
    for &id in nodes {
        let name = format!("{s}.n{}", id.0);
        let value = match *program.node(id) {
            Node::Param(index) => param(program, index),
            Node::Count(extent) => count(extent),
            Node::Input(_) | Node::FoldOver(..) => {
                let slot = slots.iter().position(|n| *n == id).expect("every scalar has a slot");
                putln!(text, "    let b{} = scalars.values[{slot}];", id.0);
                for poison in looking(id) {
                    let bits = bits(poison);
                    putln!(text, "    {s}.{bits} = max({s}.{bits}, b{} & MAGNITUDE);", id.0);
                }
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
            ref other => unreachable!("no {other:?} is further out than a row"),
        };
        putln!(text, "    {name} = {value};");
    }
    text
}

pub(super) fn outer_value(program: &Program, id: NodeId, s: &str) -> String {
    if is_literal(program.node(id)) { literal(program.node(id), 1) } else { format!("{s}.n{}", id.0) }
}

/// A size, as a number.
pub(super) fn count(extent: Extent) -> String {
    match extent {
        Extent::Cols => "f32(shape.classes)".to_owned(),
        Extent::Rows => "f32(shape.rows)".to_owned(),
        Extent::Groups => "f32(shape.groups)".to_owned(),
        Extent::GroupRows => "f32(shape.group_rows)".to_owned(),
        Extent::Elements => "shape.elements".to_owned(),
        Extent::Batch => "f32(shape.batch)".to_owned(),
    }
}

/// A scalar operation over operands as `value` spells them.
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
    let is_number = |id: NodeId| matches!(*program.node(id), Node::Const(bits) if !f64::from_bits(bits).is_nan());
    // WGSL's max and min drop a NaN operand.
    let pick = |name: &str| match [operands[0], operands[1]].map(is_number) {
        [_, true] => format!("math_{name}_number{w}({a}, {b})"),
        [true, false] => format!("math_{name}_number{w}({b}, {a})"),
        _ => format!("select({name}({a}, {b}), {a} + {b}, math_is_nan{w}({a}) | math_is_nan{w}({b}))"),
    };
    match op {
        Op::Neg => format!("-({a})"),
        Op::Abs => format!("abs({a})"),
        Op::Sign => call("sign"),
        Op::Exp if is_shifted(program, operands[0]) => call("exp_neg"),
        Op::Exp => call("exp"),
        Op::Expm1 => call("expm1"),
        Op::Log => call("log"),
        Op::Log1p => call("log1p"),
        Op::Sqrt => call("sqrt"),
        Op::Tanh => call("tanh"),
        Op::Sigmoid if is_never_above_0(program, operands[0]) => call("sigmoid_neg"),
        Op::Sigmoid => call("sigmoid"),
        Op::LogSigmoid => call("log_sigmoid"),
        Op::Softplus if is_never_above_0(program, operands[0]) => call("softplus_neg"),
        Op::Softplus => call("softplus"),
        Op::LogCosh => call("log_cosh"),
        Op::Erf => call("erf"),
        Op::Atan => call("atan"),
        Op::Floor => format!("select(floor({a}), {a}, math_is_nan{w}({a}))"),
        Op::Lgamma => call("lgamma"),
        Op::Digamma => call("digamma"),
        Op::Relu => format!("math_max_number{w}({a}, {zero})"),
        Op::Not => format!("!({a})"),
        Op::ToFloat => match program.kind(operands[0]) {
            Kind::Bool => format!("select({zero}, {one}, {a})"),
            _ if program.exceeds_i32(operands[0]) => format!("F{w}({a})"),
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
        Op::Times => format!("math_times{w}({a}, {b})"),
        Op::Lt | Op::Le if is_of_signed(program, operands) => {
            format!("bitcast<I{w}>({a}) {} bitcast<I{w}>({b})", if op == Op::Lt { "<" } else { "<=" })
        }
        Op::Lt => format!("{a} < {b}"),
        Op::Le => format!("{a} <= {b}"),
        Op::Eq => format!("{a} == {b}"),
        Op::And => format!("{a} & {b}"),
        Op::Or => format!("{a} | {b}"),
        Op::Select => match magnitude(program, operands) {
            Some(x) => format!("-abs({})", value(x)),
            None => format!("select({}, {b}, {a})", value(operands[2])),
        },
    }
}

/// Whether indices are compared, none of which exceeds an i32: kernels hold them as u32.
fn is_of_signed(program: &Program, operands: &[NodeId]) -> bool {
    program.kind(operands[0]) == Kind::Int && !operands.iter().any(|operand| program.exceeds_i32(*operand))
}

/// x − max x: never above 0, so the cheaper exponential will do.
pub(super) fn is_shifted(program: &Program, id: NodeId) -> bool {
    match *program.node(id) {
        Node::Op(Op::Sub, [x, max, _]) => *program.node(max) == Node::Reduce(Reduce::Max, x),
        _ => false,
    }
}

/// x, of `select(0 ≤ x, −x, x)`: −|x|.
fn magnitude(program: &Program, operands: &[NodeId]) -> Option<NodeId> {
    let [condition, a, x] = *operands else { return None };
    let is_negated = matches!(*program.node(a), Node::Op(Op::Neg, [of, ..]) if of == x);
    let is_zero = |id: NodeId| matches!(*program.node(id), Node::Const(bits) if f64::from_bits(bits) == 0.0);
    let is_sign = matches!(*program.node(condition), Node::Op(Op::Le, [zero, of, _]) if of == x && is_zero(zero));
    (is_negated && is_sign).then_some(x)
}

/// −|x|: functions of it take the cheaper forms.
fn is_never_above_0(program: &Program, id: NodeId) -> bool {
    match *program.node(id) {
        Node::Op(Op::Neg, [x, ..]) => matches!(*program.node(x), Node::Op(Op::Abs, _)),
        Node::Op(Op::Select, operands) => magnitude(program, &operands).is_some(),
        _ => false,
    }
}

/// Text of hooks with functions that are made of the adapter's exp2.
pub(super) fn with_exp2(hook: &str, exp2: Exp2) -> String {
    const NAMES: [&str; 12] = [
        "exp",
        "log",
        "log1p",
        "xlogy",
        "sign",
        "max_number",
        "min_number",
        "sigmoid",
        "sigmoid_neg",
        "softplus",
        "softplus_neg",
        "log_sigmoid",
    ];
    let hook = match exp2 {
        Exp2::Nothing => hook.to_owned(),
        Exp2::Sums | Exp2::Functions => hook.replace("math_exp_neg", "math_exp2_neg"),
    };
    let names: &[&str] = if exp2 == Exp2::Functions { &NAMES } else { &[] };
    names
        .iter()
        .flat_map(|name| [(name, ""), (name, "4")])
        .fold(hook, |hook, (name, w)| hook.replace(&format!("math_{name}{w}("), &format!("math_exp2_{name}{w}(")))
}

/// Emits the values of one level (per element, or per item), each once, operands first.
pub(super) struct Emit<'f, 'a> {
    pub frame: &'f Frame<'a>,
    pub width: u32,
    /// Name of the struct that holds values outside this level: `o` or `r`.
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
                Node::InRange(x, _) => self.value(x),
                _ => {
                    text.push_str(&load(id));
                    continue;
                }
            };
            putln!(text, "    let e{} = {value};", id.0);
        }
        text
    }
}

/// The sum of the row's group, or its number of rows, loaded from `work`.
pub(super) fn group_load(frame: &Frame<'_>, id: NodeId, item: &str) -> String {
    let value = group_value(frame.program, id);
    frame.of_group(format!("work[shape.group_base + {value}u * shape.groups + {}]", frame.group(item)))
}
