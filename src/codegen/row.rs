//! Hooks of the row skeletons.

use super::access::Frame;
use super::elementwise::gather;
use super::emit::{Emit, group_load, is_literal, is_outer, is_shifted, op_text, outer_code, outer_value, params};
use super::poison::{
    bits, bits_of_value, is_bad, is_of_columns, is_poisoned, labels, largest, lenient_value, looking_at, poison_name,
    poisons_of, poisons_of_outputs,
};
use super::state::{Part, State, combine_text, end_run_text, fields, lane_fields, load_text, narrowed, save_text};
use super::{KernelSource, Mode, Slot, Variant, scalar_type, state_words, structure, title};
use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::expr::op::{Kind, Op};
use crate::expr::{Node, NodeId, Reduce};
use crate::lower::{Consumer, Look, LookKind, LookPlace, Pass, Program, Stage};
use crate::schedule::{Kernel, PassSchedule, roots, visited_inputs};
use crate::shape::Scope;
use crate::text::{put, putln};
use std::collections::{BTreeMap, HashMap};

pub(super) fn kernel(
    program: &Program,
    pass: usize,
    schedule: &PassSchedule,
    variant: &Variant,
    phase: u32,
) -> KernelSource {
    let frame = Frame::scheduled(program, pass, variant, schedule);
    let ends = frame.at_ends();
    let row = Row::new(&frame, &ends, schedule.kernel);
    let (bindings, mut declarations) = frame.bindings(&params(program, 1));
    let PassSchedule { workgroup, lanes, subgroup, width, kernel, strided, .. } = *schedule;
    let trips = if let Kernel::RowResident { trips } = kernel { trips } else { 1 };
    let combine = match (lanes, subgroup) {
        (1, _) => LaneReduce::Lane,
        (_, 0) => LaneReduce::Tree,
        _ => LaneReduce::Subgroup,
    };
    let constants = [("WG", workgroup), ("LANES", lanes), ("SUBGROUP", subgroup), ("WIDTH", width), ("TRIPS", trips)];
    for (name, value) in constants {
        putln!(declarations, "const {name}: u32 = {value}u;");
    }
    let early = frame.has_ends();
    let ends = if early { 2 * width / frame.width } else { 0 };
    putln!(declarations, "const STRIDED: bool = {strided};\nconst EARLY: bool = {early};\nconst ENDS: u32 = {ends}u;");
    let mut hooks = BTreeMap::from([
        ("bindings".to_owned(), declarations),
        ("row".to_owned(), row.begin_text()),
        ("outputs".to_owned(), row.outputs_text()),
        ("seen".to_owned(), frame.seen_text()),
    ]);
    for trip in &row.trips {
        hooks.insert(format!("stage{}", trip.index), row.stage_text(trip, combine));
    }
    let stages = frame.pass.stages.len();
    let skeleton = match kernel {
        Kernel::RowResident { .. } => Skeleton::RowResident,
        Kernel::RowSplit { .. } => {
            let words = state_words(program, frame.pass);
            let elements = frame.pass.outputs.iter().any(|&o| program.outputs[o].scope == Scope::Element);
            let phase = format!(
                "const PHASE: u32 = {phase}u;\nconst STAGES: u32 = {stages}u;\nconst STATE_WORDS: u32 = {words}u;\n\
                 const ELEMENTS: bool = {elements};\n"
            );
            hooks.insert("phase".to_owned(), phase);
            Skeleton::RowSplit
        }
        _ => Skeleton::Row,
    };
    if schedule.exp2 {
        hooks.values_mut().for_each(|hook| *hook = hook.replace("math_exp_neg", "math_exp2_neg"));
    }
    let wgsl = fill_hooks(&title(program, pass, schedule), skeleton, row.trips.len(), combine, &hooks);
    KernelSource { wgsl: wgsl.expect("the row skeletons take these hooks"), bindings }
}

/// One trip of a kernel over the elements of a row, and the states that it ends with.
struct Trip {
    /// The trip's number, by which the kernel names it.
    index: usize,
    /// The stage of the pass.
    stage: usize,
    part: Part,
    states: Vec<State>,
}

/// The trips of a kernel. Where a row is held, the largest value is found before anything is summed relative to it: one
/// exponential an element, and no rescaling.
fn trips(program: &Program, pass: &Pass, kernel: Kernel) -> Vec<Trip> {
    let is_held = matches!(kernel, Kernel::RowResident { .. });
    let mut all = Vec::new();
    for (stage, Stage { reduces }) in pass.stages.iter().enumerate() {
        let sums = |id: &NodeId| matches!(program.node(*id), Node::Reduce(Reduce::ExpSumRest, _));
        let parts: &[Part] = match is_held && reduces.iter().any(sums) {
            true => &[Part::Top, Part::Rest],
            false => &[Part::Whole],
        };
        for &part in parts {
            all.push(Trip { index: all.len(), stage, part, states: State::all(program, reduces, part) });
        }
    }
    all
}

/// Whether a NaN of `input` makes `id` NaN, by sums and products alone.
fn carries(program: &Program, id: NodeId, input: NodeId) -> bool {
    match *program.node(id) {
        _ if id == input => true,
        Node::Op(Op::Neg | Op::Add | Op::Sub | Op::Mul, _) => {
            program.node(id).operands().any(|operand| carries(program, operand, input))
        }
        _ => false,
    }
}

pub(super) struct Row<'f, 'a> {
    frame: &'f Frame<'a>,
    /// For windows that reach past an end of the row.
    ends: &'f Frame<'a>,
    /// All nodes of the pass, operands first.
    nodes: Vec<NodeId>,
    /// Stages before a node's value is known.
    depth: HashMap<NodeId, usize>,
    /// Indices of the inputs that are read at every column, loaded in `fetch`.
    fetched: Vec<usize>,
    trips: Vec<Trip>,
    /// Whether the kernel takes whole rows.
    is_whole: bool,
    /// Whether sums of exponentials find NaN. States that leave the kernel hold the bits that were seen, always.
    carries_nan: bool,
}

impl<'f, 'a> Row<'f, 'a> {
    pub fn new(frame: &'f Frame<'a>, ends: &'f Frame<'a>, kernel: Kernel) -> Row<'f, 'a> {
        let program = frame.program;
        let nodes = program.within(frame.pass, &roots(program, frame.pass));
        let mut depth: HashMap<NodeId, usize> = HashMap::new();
        for &id in &nodes {
            let node = program.node(id);
            let listed = |id: NodeId| frame.pass.stages.iter().position(|s| s.reduces.contains(&id));
            let saved = frame.pass.known.as_ref().is_some_and(|known| known.nodes.contains(&id));
            let known = match node {
                Node::SumOver(..) => 0,
                Node::Reduce(..) if saved => 0,
                Node::Reduce(..) => {
                    let partner = program.online_partner(id).filter(|p| listed(*p).is_some());
                    1 + listed(partner.unwrap_or(id)).expect("a reduction of the pass has a stage")
                }
                _ => node.operands().map(|o| depth[&o]).max().unwrap_or(0),
            };
            depth.insert(id, known);
        }
        let fetched = visited_inputs(program, frame.pass);
        let trips = trips(program, frame.pass, kernel);
        let is_whole = matches!(kernel, Kernel::Row | Kernel::RowResident { .. });
        let carries_nan = frame.carries_nan && is_whole;
        Row { frame, ends, nodes, depth, fetched, trips, is_whole, carries_nan }
    }

    fn is_row(&self, id: NodeId) -> bool {
        let program = self.frame.program;
        matches!(program.scope(id), Scope::Row | Scope::Group) && !is_literal(program.node(id))
    }

    fn is_element(&self, id: NodeId) -> bool {
        self.frame.program.scope(id).has_columns()
    }

    fn row_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied().filter(|&id| self.is_row(id))
    }

    /// Tensors whose address at the row's first column is kept: fetched inputs, outputs, and the tensor that defines
    /// vector alignment.
    fn based(&self) -> Vec<Slot> {
        let inputs = self.fetched.iter().map(|&input| Slot::Input(input));
        let outputs = self.frame.pass.outputs.iter().map(|&output| Slot::Output(output));
        let mut based: Vec<Slot> = inputs.chain(outputs).collect();
        // That tensor may be an input that only gathers read.
        let aligned = self.frame.variant.aligned_to.map(|tensor| self.frame.slots[tensor]);
        based.extend(aligned.filter(|slot| !based.contains(slot)));
        based
    }

    fn base_name(&self, slot: Slot) -> String {
        format!("r.base{}", self.frame.tensor(slot))
    }

    pub fn begin_text(&self) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let outer: Vec<NodeId> = self.nodes.iter().copied().filter(|&id| is_outer(program, id)).collect();
        let poisons = 0..frame.pass.poison.len();
        let mut fields: Vec<(String, String)> = poisons.clone().map(|k| (bits(k), "u32".to_owned())).collect();
        let value = |id: NodeId| (format!("n{}", id.0), scalar_type(program.kind(id)).to_owned());
        fields.extend(outer.iter().copied().map(value));
        fields.extend(self.row_nodes().map(value));
        fields.extend(self.trips.iter().flat_map(|trip| trip.states.iter().flat_map(State::row_fields)));
        fields.extend(self.based().into_iter().map(|slot| (format!("base{}", frame.tensor(slot)), "u32".to_owned())));
        fields.extend(["row", "early"].map(|name| (name.to_owned(), "u32".to_owned())));
        let mut text = structure("RowValues", &fields);
        text.push_str(&self.windows_text());
        let unseen: String = poisons.map(|k| format!("    r.{} = 0u;\n", bits(k))).collect();
        let code = outer_code(program, &outer, "r", &|id| looking_at(frame.pass, LookKind::Value, id));
        put!(text, "fn outer_begin() -> RowValues {{\n    var r: RowValues;\n{unseen}{code}    return r;\n}}\n");
        text.push_str("fn row_begin(outer: RowValues, row: u32) -> RowValues {\n    var r = outer;\n");
        text.push_str(&frame.coordinates("row"));
        for slot in self.based() {
            putln!(text, "    {} = {};", self.base_name(slot), frame.base(slot));
        }
        text.push_str("    r.row = shape.first_item + row;\n");
        if let Some(tensor) = frame.variant.aligned_to {
            putln!(text, "    r.early = r.base{tensor} % WIDTH;");
        }
        text.push_str(&self.row_lets(0));
        for (k, saved) in (0..frame.pass.poison.len()).filter_map(|k| Some((k, frame.known_bits(k, "r.row")?))) {
            putln!(text, "    r.{0} = max(r.{0}, {saved});", bits(k));
        }
        text.push_str(&self.clear_text(0));
        text.push_str("    return r;\n}\n");
        text.push_str(&if frame.is_paired() { self.fetch_pair() } else { self.fetch_window() });
        text.push_str(&self.fetch_end());
        text
    }

    /// `Window`, the bits of the inputs in one window; `Fetched`, what a lane's step loads, of one window or two; and the
    /// function from this to that. 16-bit elements stay packed until they are used: rows are held so.
    fn windows_text(&self) -> String {
        let frame = self.frame;
        let u = if frame.width == 4 { "U4" } else { "U" };
        let of = |ty: &dyn Fn(Slot) -> &'static str| {
            let none = [("none".to_owned(), "u32".to_owned())];
            let inputs = self.fetched.iter().map(|&input| (format!("x{input}"), ty(Slot::Input(input)).to_owned()));
            none.into_iter().chain(inputs).collect::<Vec<_>>()
        };
        let mut text = structure("Window", &of(&|_| u));
        if frame.is_paired() {
            text.push_str("struct Fetched {\n    a: Window,\n    b: Window,\n}\n");
            return text;
        }
        text.push_str(&structure("Fetched", &of(&|slot| frame.raw_type(slot))));
        text.push_str("fn window(fetched: Fetched) -> Window {\n    var f: Window;\n");
        for &input in &self.fetched {
            let bits = frame.widen_raw(Slot::Input(input), &format!("fetched.x{input}"));
            putln!(text, "    f.x{input} = {bits};");
        }
        text.push_str("    return f;\n}\n");
        text
    }

    /// How a function of one window names its inputs: as they are fetched, if a step has one window, or as a window.
    fn argument(&self, frame: &Frame<'_>) -> &'static str {
        if self.takes_window(frame) { "f: Window" } else { "fetched: Fetched" }
    }

    /// The window of that argument, `f`.
    fn unpack(&self, frame: &Frame<'_>) -> &'static str {
        if self.takes_window(frame) { "" } else { "    let f = window(fetched);\n" }
    }

    /// Whether a function is called with a window: one of two, or one at an end of a row.
    fn takes_window(&self, frame: &Frame<'_>) -> bool {
        frame.is_paired() || std::ptr::eq(frame, self.ends)
    }

    fn fetch_window(&self) -> String {
        let mut text = "fn fetch(r: RowValues, col: u32) -> Fetched {\n    var f: Fetched;\n".to_owned();
        for &input in &self.fetched {
            let slot = Slot::Input(input);
            let raw = self.frame.load_raw(slot, &self.base_name(slot), "col");
            putln!(text, "    f.x{input} = {raw};");
        }
        text.push_str("    return f;\n}\n");
        text
    }

    fn fetch_end(&self) -> String {
        if !self.ends.has_ends() {
            return "fn fetch_end(r: RowValues, col: u32) -> Window { return Window(); }\n".to_owned();
        }
        let mut text = "fn fetch_end(r: RowValues, col: u32) -> Window {\n    var f: Window;\n".to_owned();
        for &input in &self.fetched {
            let slot = Slot::Input(input);
            let bits = self.ends.load(slot, &self.base_name(slot), "col");
            putln!(text, "    f.x{input} = {bits};");
        }
        text.push_str("    return f;\n}\n");
        text
    }

    fn fetch_pair(&self) -> String {
        let mut text = "fn fetch(r: RowValues, col: u32) -> Fetched {\n    var f: Fetched;\n".to_owned();
        for &input in &self.fetched {
            let slot = Slot::Input(input);
            let (before, [a, b]) = self.frame.load_pair(slot, &self.base_name(slot), "col");
            putln!(text, "{before}    f.a.x{input} = {a};\n    f.b.x{input} = {b};");
        }
        text.push_str("    return f;\n}\n");
        text
    }

    /// Row values that are known after `depth` stages.
    fn row_lets(&self, depth: usize) -> String {
        let program = self.frame.program;
        let mut text = String::new();
        for id in self.row_nodes().filter(|id| self.depth[id] == depth) {
            let n = id.0;
            match *program.node(id) {
                Node::Op(op, _) => {
                    let operands: Vec<NodeId> = program.node(id).operands().collect();
                    let value = op_text(program, op, &operands, 1, &|id| outer_value(program, id, "r"));
                    putln!(text, "    r.n{n} = {value};");
                }
                Node::Input(input) => {
                    let slot = Slot::Input(input as usize);
                    let bits = self.frame.load_one(slot, &self.frame.base(slot));
                    match program.kind(id) {
                        Kind::Int => putln!(text, "    r.n{n} = {bits};"),
                        _ => self.row_float(&mut text, id, &bits),
                    }
                }
                Node::SumOver(..) => self.row_float(&mut text, id, &group_load(self.frame, id, "r.row")),
                Node::At(x, label) => {
                    let label = outer_value(program, label, "r");
                    text.push_str(&gather(self.frame, id, x, &label));
                    putln!(text, "    r.n{n} = e{n};");
                    self.look_at_gather(&mut text, id, x, &label);
                }
                Node::Reduce(..) if depth == 0 => putln!(text, "    r.n{n} = {};", self.frame.known_value(id, "r.row")),
                Node::Reduce(..) => {} // set where its stage ends
                ref other => unreachable!("row values hold no {other:?}"),
            }
        }
        text.push_str(&self.reports(depth));
        text
    }

    /// Whether elements are gathered at labels that are known after `stages` stages.
    fn gathers_after(&self, stages: usize) -> bool {
        let program = self.frame.program;
        let gathers = |id: NodeId| match *program.node(id) {
            Node::At(x, _) => *program.node(x) != Node::ColIndex,
            _ => false,
        };
        self.row_nodes().any(|id| self.depth[&id] == stages && gathers(id))
    }

    fn row_float(&self, text: &mut String, id: NodeId, loaded: &str) {
        let n = id.0;
        putln!(text, "    let b{n} = {loaded};");
        for poison in looking_at(self.frame.pass, LookKind::Value, id) {
            let bits = bits(poison);
            putln!(text, "    r.{bits} = max(r.{bits}, b{n} & MAGNITUDE);");
        }
        putln!(text, "    r.n{n} = bitcast<f32>(b{n});");
    }

    /// Looks at a gathered value where its label is in range, and at the label itself.
    fn look_at_gather(&self, text: &mut String, id: NodeId, x: NodeId, label: &str) {
        let (program, pass) = (self.frame.program, self.frame.pass);
        let n = id.0;
        let is_value = matches!(program.node(x), Node::Input(_)) && program.kind(x) == Kind::Float;
        for k in 0..pass.poison.len() {
            let of = |kind: LookKind| looking_at(pass, kind, id).contains(&k);
            let (value, checked) = (is_value && of(LookKind::Value), of(LookKind::Label));
            let seen = if value { format!("b{n} & MAGNITUDE") } else { "0u".to_owned() };
            let bad = if checked { "NAN_BITS" } else { "0u" };
            if value || checked {
                let bits = bits(k);
                putln!(text, "    r.{bits} = max(r.{bits}, select({seen}, {bad}, {}));", is_bad(label));
            }
        }
    }

    /// Reports labels out of range. `depth` is the stages before both the label and its condition are known.
    fn reports(&self, depth: usize) -> String {
        let program = self.frame.program;
        let mut text = String::new();
        for (label, row) in labels(program, self.frame.pass) {
            let known = |id: NodeId| self.depth.get(&id).copied().unwrap_or(0);
            if row.map_or(0, known).max(known(label)) == depth {
                let counts = row.map_or(String::new(), |row| format!(" && {}", outer_value(program, row, "r")));
                let bad = is_bad(&outer_value(program, label, "r"));
                putln!(text, "    if ({bad}{counts}) {{ atomicMin(&scalars.bad_row, r.row); }}");
            }
        }
        text
    }

    /// After the last stage: clears each poison whose row condition does not hold.
    fn clear_text(&self, stages_done: usize) -> String {
        let (program, pass) = (self.frame.program, self.frame.pass);
        let mut text = String::new();
        for (k, poison) in pass.poison.iter().enumerate().filter(|_| stages_done == pass.stages.len()) {
            if let Some(row) = poison.row {
                let bits = bits(k);
                putln!(text, "    r.{bits} = select(0u, r.{bits}, {});", outer_value(program, row, "r"));
            }
        }
        text
    }

    /// The looks of a poison at elements of this trip: not those that the row's sum of exponentials makes, where it
    /// carries NaN. That sum is looked at for the same poison.
    fn looks<'p>(&'p self, trip: &'p Trip, poison: usize) -> impl Iterator<Item = &'p Look> + 'p {
        let (program, pass) = (self.frame.program, self.frame.pass);
        let carried = move |look: &&Look| {
            let reduces = &pass.stages[trip.stage].reduces;
            let sums = reduces.iter().filter(|&&id| looking_at(pass, LookKind::Softmax, id).contains(&poison));
            let mut operands = sums.flat_map(|&id| program.node(id).operands());
            let is_plain = look.kind == LookKind::Value && look.row.is_none() && look.element.is_none();
            is_plain && self.carries_nan && operands.any(|operand| carries(program, operand, look.node))
        };
        let at = (trip.part != Part::Rest).then(|| pass.poison[poison].at(LookPlace::Stage(trip.stage)));
        at.into_iter().flatten().filter(move |look| !carried(look))
    }

    /// The poisons that look at elements in this trip.
    fn poisons(&self, trip: &Trip) -> Vec<usize> {
        (0..self.frame.pass.poison.len()).filter(|&k| self.looks(trip, k).next().is_some()).collect()
    }

    /// Element nodes needed for the roots, operands first.
    pub fn element_nodes(&self, roots: &[NodeId]) -> Vec<NodeId> {
        let program = self.frame.program;
        let below = program.below(roots, |id| !self.is_element(id) || matches!(program.node(id), Node::SumOver(..)));
        below.into_iter().filter(|&id| self.is_element(id)).collect()
    }

    /// `let`s of element nodes.
    pub fn element_lets(&self, nodes: &[NodeId]) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let f = if frame.width == 4 { "F4" } else { "F" };
        let here = |id: NodeId| self.is_element(id);
        let emit = Emit { frame, width: frame.width, outer: "r", here: &here };
        emit.lets(nodes, &|id| match *program.node(id) {
            Node::Input(input) if program.kind(id) == Kind::Float => {
                format!("    let e{} = bitcast<{f}>(f.x{input});\n", id.0)
            }
            Node::Input(input) => format!("    let e{} = f.x{input};\n", id.0),
            Node::ColIndex => format!("    let e{} = {};\n", id.0, frame.col_index()),
            Node::SumOver(Scope::Column, _) => {
                let bits = frame.load_column_sum(id);
                format!("    let b{0} = {bits};\n    let e{0} = bitcast<{f}>(b{0});\n", id.0)
            }
            ref other => unreachable!("element values hold no {other:?}"),
        })
    }

    /// The bits that a look sees in an element; 0 where its condition does not hold.
    pub fn look(&self, look: &Look) -> String {
        let program = self.frame.program;
        let u = if self.frame.width == 4 { "U4" } else { "U" };
        let seen = match *program.node(look.node) {
            Node::Input(input) if is_of_columns(program, look.node) => format!("f.x{input} & {u}(MAGNITUDE)"),
            Node::SumOver(Scope::Column, _) => format!("b{} & {u}(MAGNITUDE)", look.node.0),
            _ => format!("{u}({})", bits_of_value(&outer_value(program, look.node, "r"))),
        };
        let conditions = [look.row, look.element].into_iter().flatten().map(|id| self.element_value(id));
        match conditions.reduce(|a, b| format!("({a} & {b})")) {
            Some(condition) => format!("select({u}(0u), {seen}, {condition})"),
            None => seen,
        }
    }

    pub fn element_value(&self, id: NodeId) -> String {
        let here = |id: NodeId| self.is_element(id);
        Emit { frame: self.frame, width: self.frame.width, outer: "r", here: &here }.value(id)
    }

    fn stage_text(&self, trip: &Trip, combine: LaneReduce) -> String {
        let frame = self.frame;
        let Trip { index: stage, states, .. } = trip;
        let (f, u) = if frame.width == 4 { ("F4", "U4") } else { ("F", "U") };
        let poisons = self.poisons(trip);
        let names = fields(&poisons, states, "f32", "u32");
        let mut text = structure(&format!("Stage{stage}"), &names);
        text.push_str(&structure(&format!("LaneStage{stage}"), &lane_fields(&poisons, states, f, u)));
        let unseen = poisons.iter().map(|k| format!("    s.{} = {u}(0u);\n", bits(*k)));
        let identity: String = unseen.chain(states.iter().map(|s| s.identity(f, u))).collect();
        put!(
            text,
            "fn stage{stage}_identity() -> LaneStage{stage} {{\n    var s: LaneStage{stage};\n{identity}    return s;\n}}\n"
        );
        text.push_str(&self.steps_text(trip));
        text.push_str(&end_run_text(*stage, states, f));
        text.push_str(&self.narrow_text(*stage, states, &names));
        text.push_str(&combine_text(*stage, &poisons, states));
        if combine == LaneReduce::Subgroup {
            let shuffled: Vec<String> =
                names.iter().map(|(name, _)| format!("subgroupShuffleXor(s.{name}, step)")).collect();
            let all = shuffled.join(", ");
            putln!(
                text,
                "fn stage{stage}_exchange(s: Stage{stage}, step: u32) -> Stage{stage} {{ return Stage{stage}({all}); }}"
            );
        }
        text.push_str(&self.finish_text(trip, &poisons));
        // To `work` and back, for split rows.
        text.push_str(&save_text(*stage, &names, "work"));
        text.push_str(&load_text(*stage, &names, "work"));
        putln!(text, "const STAGE{stage}_INDEX: u32 = {stage}u;");
        text
    }

    /// `stageN_step` and `stageN_end`: one step of a lane, inside the row and at its ends.
    fn steps_text(&self, trip: &Trip) -> String {
        let stage = trip.index;
        let mut text = String::new();
        let lane = format!("LaneStage{stage}");
        if self.frame.is_paired() {
            text.push_str(&self.step_text(trip, self.frame, "window"));
            let window = |s: &str, half: &str, col: &str| format!("stage{stage}_window({s}, r, f.{half}, {col})");
            putln!(
                text,
                "fn stage{stage}_step(s: {lane}, r: RowValues, f: Fetched, col: u32) -> {lane} {{ return {}; }}",
                window(&window("s", "a", "col"), "b", "col + 4u")
            );
        } else {
            text.push_str(&self.step_text(trip, self.frame, "step"));
        }
        if self.ends.has_ends() {
            text.push_str(&self.step_text(trip, self.ends, "end"));
        } else {
            putln!(text, "fn stage{stage}_end(s: {lane}, r: RowValues, f: Window, col: u32) -> {lane} {{ return s; }}");
        }
        text
    }

    /// `stageN_narrow`: the components of a lane's vector combined.
    fn narrow_text(&self, stage: usize, states: &[State], names: &[(String, String)]) -> String {
        let component = |suffix: &str| {
            let all: Vec<String> = names.iter().map(|(name, _)| narrowed(states, name, suffix)).collect();
            format!("Stage{stage}({})", all.join(", "))
        };
        let narrow = if self.frame.width == 4 {
            let pair = |a: &str, b: &str| format!("stage{stage}_combine({a}, {b})");
            pair(&pair(&component(".x"), &component(".y")), &pair(&component(".z"), &component(".w")))
        } else {
            component("")
        };
        format!("fn stage{stage}_narrow(s: LaneStage{stage}) -> Stage{stage} {{ return {narrow}; }}\n")
    }

    /// `stageN_finish`: the row values that are known after the stage.
    fn finish_text(&self, trip: &Trip, poisons: &[usize]) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let &Trip { index, stage, part, ref states } = trip;
        let mut text = format!(
            "fn stage{index}_finish(before: RowValues, mine: Stage{index}, s: Stage{index}) -> RowValues {{\n    \
             var r = before;\n"
        );
        for bits in poisons.iter().map(|k| bits(*k)) {
            putln!(text, "    r.{bits} = max(r.{bits}, s.{bits});");
        }
        for state in states {
            text.push_str(&state.finish(program, frame.pass, &|id| self.nodes.contains(&id)));
        }
        if part == Part::Top {
            text.push_str("    return r;\n}\n");
            return text;
        }
        let gathers = self.gathers_after(stage + 1);
        if gathers {
            text.push_str(&frame.coordinates("(r.row - shape.first_item)"));
        }
        text.push_str(&self.row_lets(stage + 1));
        if gathers && frame.variant.modes.iter().any(|mode| matches!(mode, Mode::InPlace(_))) {
            text.push_str("    storageBarrier(); // gathered before another lane stores a gradient in place\n");
        }
        text.push_str(&self.clear_text(stage + 1));
        text.push_str("    return r;\n}\n");
        text
    }

    /// One window of a stage, inside the row or at one of its ends.
    fn step_text(&self, trip: &Trip, frame: &Frame<'_>, name: &str) -> String {
        let &Trip { index, ref states, .. } = trip;
        let w = frame.width;
        let (f, u) = if w == 4 { ("F4", "U4") } else { ("F", "U") };
        let poisons = self.poisons(trip);
        let looked = poisons.iter().flat_map(|&k| self.looks(trip, k)).flat_map(Look::nodes);
        let roots: Vec<NodeId> = states.iter().map(|s| s.operand).chain(looked).collect();
        let mut text = format!(
            "fn stage{index}_{name}(before: LaneStage{index}, r: RowValues, {}, col: u32) -> LaneStage{index} {{\n    \
             var s = before;\n{}",
            self.argument(frame),
            self.unpack(frame)
        );
        text.push_str(&self.element_lets(&self.element_nodes(&roots)));
        for &k in &poisons {
            let bits = bits(k);
            let seen = largest(self.looks(trip, k).map(|look| self.look(look)), "");
            putln!(text, "    s.{bits} = max(s.{bits}, {seen});");
        }
        for state in states {
            text.push_str(&state.step(&self.element_value(state.operand), frame.col_index(), f, w));
        }
        if frame.is_masked() {
            text.push_str(&frame.valid("col"));
            for (name, _) in lane_fields(&poisons, states, f, u) {
                putln!(text, "    s.{name} = select(before.{name}, s.{name}, valid);");
            }
        }
        text.push_str("    return s;\n}\n");
        text
    }

    fn outputs_text(&self) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let mut text = match frame.is_paired() {
            true => {
                let pair = "fn write_elements(r: RowValues, f: Fetched, col: u32) {\n    write_window(r, f.a, col);\n    \
                            write_window(r, f.b, col + 4u);\n}\n";
                self.elements_text(self.frame, "write_window") + pair
            }
            false => self.elements_text(self.frame, "write_elements"),
        };
        text.push_str(&match self.ends.has_ends() {
            true => self.elements_text(self.ends, "write_end"),
            false => "fn write_end(r: RowValues, f: Window, col: u32) {}\n".to_owned(),
        });
        text.push_str(&self.constant_text());
        text.push_str(&self.label_text());
        text.push_str("fn write_row(r: RowValues) {\n");
        for (k, total) in frame.pass.totals.iter().enumerate() {
            let operand = program.node(*total).operands().next().expect("a sum has an operand");
            let value = outer_value(program, operand, "r");
            let value = lenient_value(program, frame.pass, *total, value, &|id| outer_value(program, id, "r"));
            let poison = is_poisoned(frame.pass, Consumer::Sum(*total), "r");
            putln!(text, "    work[{k}u * shape.rows + r.row] = store_bits({value}, {poison});");
        }
        for &output in frame.pass.outputs.iter().filter(|&&o| program.outputs[o].scope == Scope::Row) {
            let slot = Slot::Output(output);
            let value = outer_value(program, program.outputs[output].node, "r");
            let poison = is_poisoned(frame.pass, Consumer::Output(output), "r");
            text.push_str(&frame.store_row(output, &self.base_name(slot), &value, &poison));
        }
        text.push_str(&self.save_text());
        text.push_str("}\n");
        text
    }

    /// Leaves row values for later passes.
    fn save_text(&self) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let saves = &frame.pass.saves;
        let values = saves.nodes.iter().map(|id| match program.kind(*id) {
            Kind::Float => format!("bitcast<u32>(r.n{})", id.0),
            _ => format!("r.n{}", id.0),
        });
        let words = values.chain(saves.poisons.iter().map(|k| format!("r.{}", bits(*k))));
        let mut text = String::new();
        for (word, value) in words.enumerate() {
            putln!(text, "    {} = {value};", frame.saved(word));
        }
        text
    }

    /// The largest bits that these poisons see in an element: of its row, where their gates let them, and of its own.
    pub fn element_poison(&self, poisons: &[usize]) -> String {
        let pass = self.frame.pass;
        let u = if self.frame.width == 4 { "U4" } else { "U" };
        let (gated, whole): (Vec<usize>, Vec<usize>) = poisons.iter().partition(|k| pass.poison[**k].gate.is_some());
        let rows = largest(whole.iter().map(|k| format!("r.{}", bits(*k))), "0u");
        let gated = gated.iter().map(|k| {
            let gate = pass.poison[*k].gate.expect("the poison is gated");
            format!("select({u}(0u), {u}(r.{}), {})", bits(*k), self.element_value(gate))
        });
        let looks = poisons.iter().flat_map(|k| pass.poison[*k].at(LookPlace::Element)).map(|look| self.look(look));
        largest(std::iter::once(format!("{u}({rows})")).chain(gated).chain(looks), "")
    }

    fn element_outputs(&self) -> Vec<usize> {
        let (program, pass) = (self.frame.program, self.frame.pass);
        pass.outputs.iter().filter(|&&o| program.outputs[o].scope == Scope::Element).copied().collect()
    }

    /// Whether rows are poisoned whole: all element outputs have the same poisons, and these look at nothing but the row.
    fn is_poisoned_by_row(&self) -> Option<Vec<usize>> {
        let pass = self.frame.pass;
        let sets = poisons_of_outputs(pass, &self.element_outputs());
        let [poisons] = &sets[..] else { return None };
        let of_row =
            |k: &usize| pass.poison[*k].gate.is_none() && pass.poison[*k].at(LookPlace::Element).next().is_none();
        (!poisons.is_empty() && poisons.iter().all(of_row)).then(|| poisons.clone())
    }

    /// The condition of the row under which all element outputs are other than 0, if they have one in common; and what
    /// each is where it holds.
    fn counted(&self) -> Option<(NodeId, Vec<NodeId>)> {
        let program = self.frame.program;
        let mut all = Vec::new();
        for output in self.element_outputs() {
            let Node::Op(Op::Select, [condition, value, other]) = *program.node(program.outputs[output].node) else {
                return None;
            };
            let is_zero = matches!(*program.node(other), Node::Const(bits) if f64::from_bits(bits) == 0.0);
            if !is_zero || self.is_element(condition) || !self.is_element(value) {
                return None;
            }
            all.push((condition, value));
        }
        let (condition, _) = *all.first()?;
        let is_common = all.iter().all(|(other, _)| *other == condition) && !is_literal(program.node(condition));
        is_common.then(|| (condition, all.into_iter().map(|(_, value)| value).collect()))
    }

    /// `is_constant`, of a row whose elements are all NaN, or all 0, and `write_constant`, a step of such a row.
    fn constant_text(&self) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let poisoned = self.is_poisoned_by_row().map(|poisons| {
            let seen = largest(poisons.iter().map(|k| format!("r.{}", bits(*k))), "0u");
            format!("{seen} > INF_BITS")
        });
        let left_out = self.counted().map(|(condition, _)| format!("!{}", outer_value(program, condition, "r")));
        let both: Vec<String> = poisoned.iter().chain(&left_out).map(|text| format!("({text})")).collect();
        if both.is_empty() {
            return "fn is_constant(r: RowValues) -> bool { return false; }\n\
                    fn write_constant(r: RowValues, first: u32) {}\n"
                .to_owned();
        }
        let ty = if frame.width == 4 { "F4" } else { "F" };
        let bits = match &poisoned {
            Some(poisoned) => format!("shape.reserved0 | select(0u, NAN_BITS, {poisoned})"),
            None => "shape.reserved0".to_owned(),
        };
        let mut text = format!(
            "fn is_constant(r: RowValues) -> bool {{ return {}; }}\n\
             fn write_constant(r: RowValues, first: u32) {{\n    let constant = {ty}(bitcast<f32>({bits}));\n",
            both.join(" || ")
        );
        for step in 0..if frame.is_paired() { 2 } else { 1 } {
            putln!(text, "    {{\n    let col = first + {}u;", 4 * step);
            for output in self.element_outputs() {
                let base = self.base_name(Slot::Output(output));
                text.push_str(&frame.store(output, &base, "col", "constant", None));
            }
            text.push_str("    }\n");
        }
        text.push_str("}\n");
        text
    }

    /// The output whose element at the row's label is written by itself, after its row; and that label.
    fn written_at_label(&self) -> Option<(usize, NodeId, NodeId)> {
        let (frame, program) = (self.frame, self.frame.program);
        let outputs = self.element_outputs();
        let mut labelled =
            outputs.iter().filter_map(|&o| program.outputs[o].at_label.map(|(label, there)| (o, label, there)));
        let (output, label, there) = labelled.next()?;
        let is_written = !matches!(frame.mode(output), Mode::Accumulate) && !program.notes(output);
        let by_row = self.is_poisoned_by_row().is_some() || poisons_of(frame.pass, Consumer::Output(output)).is_empty();
        let is_alone = labelled.next().is_none() && by_row && !self.is_element(label) && !self.is_element(there);
        let fits =
            self.is_whole && frame.width == 4 && !frame.variant.column_range && frame.is_vector(Slot::Output(output));
        (is_written && is_alone && fits).then_some((output, label, there))
    }

    /// `label_col`, the column that is written by itself, and `write_label`, which writes it.
    fn label_text(&self) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let Some((output, label, there)) = self.written_at_label() else {
            return "fn label_col(r: RowValues) -> u32 { return 0xffffffffu; }\n\
                    fn write_label(r: RowValues) {}\n"
                .to_owned();
        };
        let (label, there) = (outer_value(program, label, "r"), outer_value(program, there, "r"));
        let address = format!("({} + {label})", self.base_name(Slot::Output(output)));
        format!(
            "fn label_col(r: RowValues) -> u32 {{ return {label}; }}\nfn write_label(r: RowValues) {{\n{}}}\n",
            frame.store_one(output, &address, &there)
        )
    }

    /// The row value by which an exponential of a shifted value is multiplied to give an output: where it is finite, so is
    /// the output.
    fn factor(&self, value: NodeId) -> Option<NodeId> {
        let program = self.frame.program;
        let Node::Op(Op::Mul, [a, b, _]) = *program.node(value) else { return None };
        let (exp, factor) = if self.is_element(a) { (a, b) } else { (b, a) };
        let is_exp = matches!(*program.node(exp), Node::Op(Op::Exp, [x, ..]) if is_shifted(program, x));
        (is_exp && !self.is_element(factor)).then_some(factor)
    }

    /// The element outputs of one window, inside the row or at one of its ends.
    fn elements_text(&self, frame: &Frame<'_>, name: &str) -> String {
        let (program, pass) = (frame.program, frame.pass);
        let u = if frame.width == 4 { "U4" } else { "U" };
        let elements = self.element_outputs();
        let mut text = format!("fn {name}(r: RowValues, {}, col: u32) {{\n", self.argument(frame));
        if elements.is_empty() {
            text.push_str("}\n");
            return text;
        }
        text.push_str(self.unpack(frame));
        // Inside the row, a row that is poisoned or left out whole never comes here.
        let at_end = std::ptr::eq(frame, self.ends);
        let is_checked = at_end || self.is_poisoned_by_row().is_none();
        let counted = self.counted().filter(|_| !at_end);
        let written_at_label = self.written_at_label().filter(|_| !at_end);
        let values: Vec<NodeId> = match &counted {
            Some((_, values)) => values.clone(),
            None => elements.iter().map(|&o| program.outputs[o].node).collect(),
        };
        let place = LookPlace::Element;
        let looked = pass.poison.iter().flat_map(|poison| poison.at(place)).flat_map(Look::nodes);
        let looked = looked.chain(pass.poison.iter().filter_map(|poison| poison.gate));
        let roots: Vec<NodeId> = values.iter().copied().chain(looked).collect();
        text.push_str(&self.element_lets(&self.element_nodes(&roots)));
        for poisons in poisons_of_outputs(pass, &elements).iter().filter(|_| is_checked) {
            let seen = self.element_poison(poisons);
            putln!(text, "    let {} = {seen} > {u}(INF_BITS);", poison_name(poisons));
        }
        text.push_str(&frame.valid("col"));
        for (&output, &node) in elements.iter().zip(&values) {
            let base = self.base_name(Slot::Output(output));
            let mut value = self.element_value(node);
            let by_itself = written_at_label.is_some_and(|(labelled, ..)| labelled == output);
            let at_label = program.outputs[output].at_label.filter(|_| !by_itself);
            if let Some((label, there)) = at_label {
                putln!(text, "    var v{output} = {value};");
                text.push_str(&self.at_label_text(frame, output, label, there));
                value = format!("v{output}");
            }
            let poison = poison_name(&poisons_of(pass, Consumer::Output(output)));
            let poison = is_checked.then_some(poison.as_str());
            // A value that is put at a label is no product.
            let factor = self.factor(node).filter(|_| poison.is_none() && at_label.is_none());
            let is_number =
                factor.map(|factor| format!("({}) < INF_BITS", bits_of_value(&outer_value(program, factor, "r"))));
            text.push_str(&frame.store_number(output, &base, "col", (&value, poison), is_number.as_deref()));
        }
        text.push_str("}\n");
        text
    }

    /// Puts the value at the label's column. A label of the row is compared once a window.
    fn at_label_text(&self, frame: &Frame<'_>, output: usize, label: NodeId, there: NodeId) -> String {
        let v = format!("v{output}");
        let there = self.element_value(there);
        if frame.width == 1 || self.is_element(label) {
            let (here, label) = (frame.col_index(), self.element_value(label));
            return format!("    {v} = select({v}, {there}, {here} == {label});\n");
        }
        let first = if frame.variant.column_range { "(shape.first_col + col)" } else { "col" };
        let label = outer_value(frame.program, label, "r");
        format!(
            "    let to_label{output} = {label} - {first};\n    if (to_label{output} < 4u) {{\n        \
             {v} = select({v}, {there}, U4(0u, 1u, 2u, 3u) == U4(to_label{output}));\n    }}\n"
        )
    }
}
