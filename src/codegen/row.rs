//! Hooks of the row skeletons.

use super::access::Frame;
use super::elementwise::gather;
use super::emit::{Emit, group_load, is_literal, is_outer, op_text, outer_code, outer_value, params, valid_first};
use super::state::{State, combine_text, fields, load_text, save_text};
use super::{KernelSource, Mode, Slot, Variant, is_read_later, scalar_type, state_words, structure, title};
use crate::expr::{Node, NodeId, Scope};
use crate::lower::Program;
use crate::op::{Kind, Op};
use crate::schedule::{Kernel, PassSchedule, roots, visited_inputs};
use crate::template::{Gather, Skeleton, fill_hooks};
use crate::text::{put, putln};
use std::collections::{BTreeMap, HashMap};

pub(super) fn kernel(
    program: &Program,
    pass: usize,
    schedule: &PassSchedule,
    variant: &Variant,
    phase: u32,
) -> KernelSource {
    let frame = Frame::new(program, pass, variant, schedule.width);
    let ends = frame.at_ends();
    let row = Row::new(&frame, &ends, is_read_later(program, pass));
    let (bindings, mut declarations) = frame.bindings(&params(program, 1));
    let PassSchedule { workgroup, lanes, subgroup, width, kernel, strided, .. } = *schedule;
    let trips = if let Kernel::RowResident { trips } = kernel { trips } else { 1 };
    let gather = match (lanes, subgroup) {
        (1, _) => Gather::Lane,
        (_, 0) => Gather::Tree,
        _ => Gather::Subgroup,
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
    ]);
    let stages = frame.pass.stages.len();
    for stage in 0..stages {
        hooks.insert(format!("stage{stage}"), row.stage_text(stage, gather));
    }
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
    let wgsl = fill_hooks(&title(program, pass, schedule), skeleton, stages, gather, &hooks);
    KernelSource { wgsl: wgsl.expect("the row skeletons take these hooks"), bindings }
}

struct Row<'f, 'a> {
    frame: &'f Frame<'a>,
    /// For windows that are not wholly the row's.
    ends: &'f Frame<'a>,
    lenient: bool,
    /// Everything the pass needs, operands first.
    nodes: Vec<NodeId>,
    /// Stage after which a node is known.
    depth: HashMap<NodeId, usize>,
    /// Inputs that are read at every column, loaded in `fetch`.
    fetched: Vec<usize>,
}

impl<'f, 'a> Row<'f, 'a> {
    fn new(frame: &'f Frame<'a>, ends: &'f Frame<'a>, lenient: bool) -> Row<'f, 'a> {
        let program = frame.program;
        let nodes = valid_first(program, &roots(program, frame.pass));
        let mut depth: HashMap<NodeId, usize> = HashMap::new();
        for &id in &nodes {
            let node = program.node(id);
            let listed = |id: NodeId| frame.pass.stages.iter().position(|s| s.reduces.contains(&id));
            let known = match node {
                Node::SumOver(..) => 0,
                Node::Reduce(..) => {
                    let partner = program.online_partner(id).filter(|p| listed(*p).is_some());
                    1 + listed(partner.unwrap_or(id)).expect("a reduction of the pass has a stage")
                }
                _ => node.operands().map(|o| depth[&o]).max().unwrap_or(0),
            };
            depth.insert(id, known);
        }
        let fetched = visited_inputs(program, frame.pass);
        Row { frame, ends, lenient, nodes, depth, fetched }
    }

    fn is_row(&self, id: NodeId) -> bool {
        let program = self.frame.program;
        matches!(program.scope(id), Scope::Row | Scope::Group) && !is_literal(program.node(id))
    }

    fn is_element(&self, id: NodeId) -> bool {
        matches!(self.frame.program.scope(id), Scope::Element | Scope::Column)
    }

    fn row_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().copied().filter(|&id| self.is_row(id))
    }

    /// Tensors with an address in the row: fetched inputs, and outputs.
    fn based(&self) -> Vec<Slot> {
        let inputs = self.fetched.iter().map(|&place| Slot::Input(place));
        inputs.chain(self.frame.pass.outputs.iter().map(|&output| Slot::Output(output))).collect()
    }

    fn base_name(&self, slot: Slot) -> String {
        format!("r.base{}", self.frame.tensor(slot))
    }

    fn begin_text(&self) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let outer: Vec<NodeId> = self.nodes.iter().copied().filter(|&id| is_outer(program, id)).collect();
        let mut fields = vec![("bits".to_owned(), "u32".to_owned())];
        let value = |id: NodeId| (format!("n{}", id.0), scalar_type(program.kind(id)).to_owned());
        fields.extend(outer.iter().copied().map(value));
        fields.extend(self.row_nodes().map(value));
        fields.extend(self.based().into_iter().map(|slot| (format!("base{}", frame.tensor(slot)), "u32".to_owned())));
        fields.extend(["row", "early"].map(|name| (name.to_owned(), "u32".to_owned())));
        let mut text = structure("RowValues", &fields);
        let u = if frame.width == 4 { "U4" } else { "U" };
        let mut loads = vec![("none".to_owned(), "u32".to_owned())];
        loads.extend(self.fetched.iter().map(|place| (format!("x{place}"), u.to_owned())));
        text.push_str(&structure(self.window(), &loads));
        if frame.is_paired() {
            text.push_str("struct Fetched {\n    a: Window,\n    b: Window,\n}\n");
        }
        let code = outer_code(program, &outer, "r");
        put!(
            text,
            "fn outer_begin() -> RowValues {{\n    var r: RowValues;\n    r.bits = 0u;\n{code}    return r;\n}}\n"
        );
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
        text.push_str(&self.settle_text(0));
        text.push_str("    return r;\n}\n");
        text.push_str(&if frame.is_paired() { self.fetch_pair() } else { self.fetch_window(frame, "fetch") });
        text.push_str(&match self.ends.has_ends() {
            true => self.fetch_window(self.ends, "fetch_end"),
            false => "fn fetch_end(r: RowValues, col: u32) -> Fetched { return fetch(r, col); }\n".to_owned(),
        });
        text
    }

    /// What the inputs of a window are kept in; what a lane takes at a time is `Fetched`.
    fn window(&self) -> &'static str {
        if self.frame.is_paired() { "Window" } else { "Fetched" }
    }

    fn fetch_window(&self, frame: &Frame<'_>, name: &str) -> String {
        let window = self.window();
        let mut text = format!("fn {name}(r: RowValues, col: u32) -> {window} {{\n    var f: {window};\n");
        for &place in &self.fetched {
            let slot = Slot::Input(place);
            let bits = frame.load(slot, &self.base_name(slot), "col");
            putln!(text, "    f.x{place} = {bits};");
        }
        text.push_str("    return f;\n}\n");
        text
    }

    fn fetch_pair(&self) -> String {
        let mut text = "fn fetch(r: RowValues, col: u32) -> Fetched {\n    var f: Fetched;\n".to_owned();
        for &place in &self.fetched {
            let slot = Slot::Input(place);
            let (before, [a, b]) = self.frame.load_pair(slot, &self.base_name(slot), "col");
            putln!(text, "{before}    f.a.x{place} = {a};\n    f.b.x{place} = {b};");
        }
        text.push_str("    return f;\n}\n");
        text
    }

    /// Row values that are known after so many stages.
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
                Node::Input(place) => {
                    let slot = Slot::Input(place as usize);
                    let bits = self.frame.load_one(slot, &self.frame.base(slot));
                    match program.kind(id) {
                        Kind::Int => putln!(text, "    r.n{n} = {bits};"),
                        _ => self.row_float(&mut text, id, &bits),
                    }
                }
                Node::SumOver(..) => self.row_float(&mut text, id, &group_load(program, id, "r.row")),
                Node::At(x, label) => {
                    let label = outer_value(program, label, "r");
                    text.push_str(&gather(self.frame, id, x, &label, "r.row", "r.bits", self.lenient));
                    putln!(text, "    r.n{n} = e{n};");
                }
                Node::Reduce(..) => {} // set where its stage ends
                ref other => unreachable!("row values hold no {other:?}"),
            }
        }
        text
    }

    /// Whether so many stages find labels at which elements are gathered.
    fn gathers_after(&self, stages: usize) -> bool {
        let program = self.frame.program;
        let gathers = |id: NodeId| match *program.node(id) {
            Node::At(x, _) => *program.node(x) != Node::ColIndex,
            _ => false,
        };
        self.row_nodes().any(|id| self.depth[&id] == stages && gathers(id))
    }

    fn row_float(&self, text: &mut String, id: NodeId, bits: &str) {
        let n = id.0;
        put!(
            text,
            "    let b{n} = {bits};\n    r.bits = max(r.bits, b{n} & MAGNITUDE);\n    r.n{n} = bitcast<f32>(b{n});\n"
        );
    }

    /// After the last stage: where the row is not valid, what it holds is not looked at.
    fn settle_text(&self, stages_done: usize) -> String {
        let program = self.frame.program;
        match program.valid {
            Some(valid) if stages_done == self.frame.pass.stages.len() && !self.is_element(valid) => {
                format!("    r.bits = select(0u, r.bits, {});\n", outer_value(program, valid, "r"))
            }
            _ => String::new(),
        }
    }

    /// Element nodes needed for the roots, operands first.
    fn element_nodes(&self, roots: &[NodeId]) -> Vec<NodeId> {
        let below = self.frame.program.below(roots, |id| !self.is_element(id));
        below.into_iter().filter(|&id| self.is_element(id)).collect()
    }

    /// Whether the stages before have looked at the bits of every input among these element nodes, all over the row.
    fn is_seen(&self, nodes: &[NodeId], stages: usize) -> bool {
        let (pass, program) = (self.frame.pass, self.frame.program);
        if program.valid.is_some_and(|valid| self.is_element(valid)) {
            return false; // they looked where the loss is valid
        }
        let reduces = pass.stages[..stages].iter().flat_map(|stage| &stage.reduces);
        let operands: Vec<NodeId> = reduces.flat_map(|id| program.node(*id).operands()).collect();
        let operands: Vec<NodeId> = operands.into_iter().filter(|id| self.pick(*id).is_none()).collect();
        let seen = self.element_nodes(&operands);
        let is_input = |id: &&NodeId| matches!(program.node(**id), Node::Input(_));
        nodes.iter().filter(is_input).all(|id| seen.contains(id))
    }

    /// An input at one column, 0 at all others: where it counts, and the input. What it holds elsewhere is not looked at.
    fn pick(&self, operand: NodeId) -> Option<(NodeId, NodeId)> {
        let program = self.frame.program;
        let Node::Op(Op::Select, [here, x, zero]) = *program.node(operand) else { return None };
        let is_label =
            matches!(program.node(here), Node::Op(Op::Eq, [col, ..]) if *program.node(*col) == Node::ColIndex);
        let is_pick = is_label && matches!(program.node(x), Node::Input(_)) && *program.node(zero) == Node::Const(0);
        is_pick.then_some((here, x))
    }

    /// `let`s of element nodes; bits of the fetched inputs among them go to `bits`, unless they are `seen` already.
    fn element_lets(&self, nodes: &[NodeId], bits: &str, seen: bool) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let (f, u) = if frame.width == 4 { ("F4", "U4") } else { ("F", "U") };
        let here = |id: NodeId| self.is_element(id);
        let emit = Emit { frame, width: frame.width, outer: "r", here: &here };
        emit.lets(nodes, &|id| match *program.node(id) {
            Node::Input(place) if seen => format!("    let e{} = bitcast<{f}>(f.x{place});\n", id.0),
            Node::Input(place) => format!(
                "    let e{n} = bitcast<{f}>(f.x{place});\n    {bits} = max({bits}, f.x{place} & {u}(MAGNITUDE));\n",
                n = id.0
            ),
            Node::ColIndex => format!("    let e{} = {};\n", id.0, frame.col_index()),
            ref other => unreachable!("element values hold no {other:?}"),
        })
    }

    fn element_value(&self, id: NodeId) -> String {
        let here = |id: NodeId| self.is_element(id);
        Emit { frame: self.frame, width: self.frame.width, outer: "r", here: &here }.value(id)
    }

    fn stage_text(&self, stage: usize, gather: Gather) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let states: Vec<State> = frame.pass.stages[stage].reduces.iter().map(|&id| State::new(program, id)).collect();
        let w = frame.width;
        let (f, u) = if w == 4 { ("F4", "U4") } else { ("F", "U") };
        let names = fields(&states, "f32", "u32");
        let mut text = structure(&format!("Stage{stage}"), &names);
        text.push_str(&structure(&format!("LaneStage{stage}"), &fields(&states, f, u)));
        let identity: String = states.iter().map(|s| s.identity(f, u)).collect();
        put!(
            text,
            "fn stage{stage}_identity() -> LaneStage{stage} {{\n    var s: LaneStage{stage};\n    s.bits = {u}(0u);\n{identity}    return s;\n}}\n"
        );
        let lane = format!("LaneStage{stage}");
        if frame.is_paired() {
            text.push_str(&self.step_text(stage, &states, self.frame, "window"));
            let window = |s: &str, half: &str, col: &str| format!("stage{stage}_window({s}, r, f.{half}, {col})");
            putln!(
                text,
                "fn stage{stage}_step(s: {lane}, r: RowValues, f: Fetched, col: u32) -> {lane} {{ return {}; }}",
                window(&window("s", "a", "col"), "b", "col + 4u")
            );
        } else {
            text.push_str(&self.step_text(stage, &states, self.frame, "step"));
        }
        text.push_str(&match self.ends.has_ends() {
            true => self.step_text(stage, &states, self.ends, "end"),
            false => {
                format!(
                    "fn stage{stage}_end(s: {lane}, r: RowValues, f: Fetched, col: u32) -> {lane} {{ return s; }}\n"
                )
            }
        });
        // Lanes of a vector, then lanes of a workgroup.
        let component = |c: &str| {
            let all: Vec<String> = names.iter().map(|(name, _)| format!("s.{name}.{c}")).collect();
            format!("Stage{stage}({})", all.join(", "))
        };
        let narrow = if w == 4 {
            let pair = |a: &str, b: &str| format!("stage{stage}_combine({a}, {b})");
            pair(&pair(&component("x"), &component("y")), &pair(&component("z"), &component("w")))
        } else {
            let all: Vec<String> = names.iter().map(|(name, _)| format!("s.{name}")).collect();
            format!("Stage{stage}({})", all.join(", "))
        };
        putln!(text, "fn stage{stage}_narrow(s: LaneStage{stage}) -> Stage{stage} {{ return {narrow}; }}");
        text.push_str(&combine_text(stage, &states));
        if gather == Gather::Subgroup {
            let fields: Vec<String> =
                names.iter().map(|(name, _)| format!("subgroupShuffleXor(s.{name}, step)")).collect();
            let all = fields.join(", ");
            putln!(
                text,
                "fn stage{stage}_exchange(s: Stage{stage}, step: u32) -> Stage{stage} {{ return Stage{stage}({all}); }}"
            );
        }
        // The row's values.
        put!(
            text,
            "fn stage{stage}_finish(before: RowValues, s: Stage{stage}) -> RowValues {{\n    var r = before;\n    r.bits = max(r.bits, s.bits);\n"
        );
        for state in &states {
            text.push_str(&state.finish(program, &|id| self.nodes.contains(&id)));
        }
        let gathers = self.gathers_after(stage + 1);
        if gathers {
            text.push_str(&frame.coordinates("(r.row - shape.first_item)"));
        }
        text.push_str(&self.row_lets(stage + 1));
        if gathers && frame.variant.modes.iter().any(|mode| matches!(mode, Mode::InPlace(_))) {
            text.push_str("    storageBarrier(); // gathered before another lane stores a gradient in place\n");
        }
        text.push_str(&self.settle_text(stage + 1));
        text.push_str("    return r;\n}\n");
        // To `work` and back, for split rows.
        text.push_str(&save_text(stage, &names, "work"));
        text.push_str(&load_text(stage, &names, "work"));
        putln!(text, "const STAGE{stage}_INDEX: u32 = {stage}u;");
        text
    }

    /// One window of a stage: a whole one, or one at an end of the row.
    fn step_text(&self, stage: usize, states: &[State], frame: &Frame<'_>, name: &str) -> String {
        let program = frame.program;
        let w = frame.width;
        let (f, u) = if w == 4 { ("F4", "U4") } else { ("F", "U") };
        let valid = program.valid.filter(|v| self.is_element(*v));
        let roots: Vec<NodeId> = states.iter().map(|s| s.operand).chain(valid).collect();
        let nodes = self.element_nodes(&roots);
        let seen = self.is_seen(&nodes, stage);
        let mut text = format!(
            "fn stage{stage}_{name}(before: LaneStage{stage}, r: RowValues, f: {}, col: u32) -> LaneStage{stage} {{\n    var s = before;\n",
            self.window()
        );
        if !seen {
            putln!(text, "    var bits = {u}(0u);");
        }
        let (picks, others): (Vec<NodeId>, Vec<NodeId>) =
            states.iter().map(|s| s.operand).partition(|operand| self.pick(*operand).is_some());
        let looked_at = self.element_nodes(&others.into_iter().chain(valid).collect::<Vec<_>>());
        let (open, picked): (Vec<NodeId>, Vec<NodeId>) =
            nodes.iter().partition(|id| !matches!(program.node(**id), Node::Input(_)) || looked_at.contains(id));
        text.push_str(&self.element_lets(&picked, "bits", true));
        text.push_str(&self.element_lets(&open, "bits", seen));
        if !seen {
            for (here, x) in picks.iter().filter_map(|operand| self.pick(*operand)).filter(|(_, x)| picked.contains(x))
            {
                let Node::Input(place) = *program.node(x) else { unreachable!("a pick is of an input") };
                let here = self.element_value(here);
                putln!(text, "    bits = max(bits, select({u}(0u), f.x{place} & {u}(MAGNITUDE), {here}));");
            }
        }
        if let Some(valid) = valid {
            putln!(text, "    bits = select({u}(0u), bits, {});", self.element_value(valid));
        }
        if !seen {
            text.push_str("    s.bits = max(s.bits, bits);\n");
        }
        for state in states {
            text.push_str(&state.step(&self.element_value(state.operand), frame.col_index(), f, w));
        }
        if frame.is_masked() {
            text.push_str(&frame.valid("col"));
            for (name, _) in fields(states, f, u) {
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
            false => "fn write_end(r: RowValues, f: Fetched, col: u32) {}\n".to_owned(),
        });
        text.push_str("fn write_row(r: RowValues) {\n");
        for (place, total) in frame.pass.totals.iter().enumerate() {
            let operand = program.node(*total).operands().next().expect("a sum has an operand");
            let mut value = outer_value(program, operand, "r");
            if program.scope(operand) == Scope::Group {
                // A group counts once, at its first row.
                value = format!("select(0.0, {value}, r.row % shape.group_rows == 0u)");
            }
            putln!(text, "    work[{place}u * shape.rows + r.row] = store_bits({value}, r.bits > INF_BITS);");
        }
        for &output in frame.pass.outputs.iter().filter(|&&o| program.outputs[o].scope == Scope::Row) {
            let slot = Slot::Output(output);
            let value = outer_value(program, program.outputs[output].node, "r");
            text.push_str(&frame.store_row(output, &self.base_name(slot), &value));
        }
        text.push_str("}\n");
        text
    }

    /// The element outputs of one window: a whole one, or one at an end of the row.
    fn elements_text(&self, frame: &Frame<'_>, name: &str) -> String {
        let program = frame.program;
        let u = if frame.width == 4 { "U4" } else { "U" };
        let is_element_output = |&&o: &&usize| program.outputs[o].scope == Scope::Element;
        let elements: Vec<usize> = frame.pass.outputs.iter().filter(is_element_output).copied().collect();
        let valid = program.valid;
        let mut text = format!("fn {name}(r: RowValues, f: {}, col: u32) {{\n", self.window());
        if !elements.is_empty() {
            let roots: Vec<NodeId> = elements.iter().map(|&o| program.outputs[o].node).chain(valid).collect();
            let nodes = self.element_nodes(&roots);
            let in_stages = self.is_seen(&nodes, frame.pass.stages.len());
            let mut seen = format!("{u}(r.bits)");
            if !in_stages {
                putln!(text, "    var bits = {u}(0u);");
                seen = "bits".to_owned();
            }
            text.push_str(&self.element_lets(&nodes, "bits", in_stages));
            if let (false, Some(valid)) = (in_stages, valid.filter(|v| !self.is_element(*v))) {
                seen = format!("select({u}(0u), {seen}, {})", self.element_value(valid));
            }
            if !in_stages {
                seen = format!("max({seen}, {u}(r.bits))");
            }
            if let Some(valid) = valid.filter(|v| self.is_element(*v)) {
                seen = format!("select({u}(0u), {seen}, {})", self.element_value(valid));
            }
            putln!(text, "    let poison = {seen} > {u}(INF_BITS);");
            text.push_str(&frame.valid("col"));
            if elements.iter().any(|&o| program.outputs[o].at_label.is_some()) {
                putln!(text, "    let here = {};", frame.col_index());
            }
            for &output in &elements {
                let base = self.base_name(Slot::Output(output));
                let mut value = self.element_value(program.outputs[output].node);
                if let Some((label, there)) = program.outputs[output].at_label {
                    let (label, there) = (self.element_value(label), self.element_value(there));
                    value = format!("select({value}, {there}, here == {label})");
                }
                text.push_str(&frame.store(output, &base, "col", &value, "poison"));
            }
        }
        text.push_str("}\n");
        text
    }
}
