//! Hooks of the row skeletons.

mod blocks;
mod fetch;
mod outputs;
mod pairs;
mod scans;
mod sorts;
mod stages;

use super::access::Frame;
use super::elementwise::gather;
use super::emit::{Emit, group_load, is_literal, is_outer, op_text, outer_code, outer_value, params, with_exp2};
use super::poison::{Label, bits, bits_of_value, is_bad, is_of_columns, labels, looking_at};
use super::state::{Part, State};
use super::{KernelSource, Mode, Slot, Variant, scalar_type, state_words, structure, title};
use crate::codegen::template::{LaneReduce, Skeleton, TripKind, fill_hooks};
use crate::expr::op::Kind;
use crate::expr::{Node, NodeId, Reduce};
use crate::lower::{Along, AlongTrip, Look, LookKind, LookPlace, Pass, Program, Stage};
use crate::schedule::{Kernel, PassSchedule, roots, visited_inputs};
use crate::shape::Scope;
use crate::text::{put, putln};
use std::collections::{BTreeMap, HashMap, HashSet};

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
    let (early, exact) = (frame.has_ends(), variant.exact);
    let ends = if early { 2 * width / frame.width } else { 0 };
    putln!(
        declarations,
        "const STRIDED: bool = {strided};\nconst EARLY: bool = {early};\nconst EXACT: bool = {exact};\nconst ENDS: u32 = {ends}u;\nconst AHEAD: u32 = {}u;",
        row.ahead()
    );
    let mut hooks = BTreeMap::from([
        ("bindings".to_owned(), declarations),
        ("row".to_owned(), row.begin_text()),
        ("outputs".to_owned(), row.outputs_text()),
        ("seen".to_owned(), frame.seen_text()),
    ]);
    if let (Kernel::RowScan { digit_bits, .. }, true) = (kernel, frame.pass.has_sorts()) {
        hooks.insert("digits".to_owned(), format!("const DIGIT_BITS: u32 = {digit_bits}u;\n"));
    }
    if frame.pass.runs_along_rows() {
        hooks.insert("scanned".to_owned(), row.with_scans_text());
    }
    for trip in &row.trips {
        let text = match trip.kind() {
            TripKind::Stage | TripKind::Repeat => row.stage_text(trip, combine),
            TripKind::Scan => row.scan_text(trip, combine),
            TripKind::Pairs => row.pairs_text(trip),
            TripKind::Sort => row.sort_text(trip),
            TripKind::Move => row.move_text(trip),
        };
        let name = format!("{}{}", trip.kind().name(), trip.index);
        if row.reads_apart {
            let own = format!("{name}_fetch");
            hooks.insert(own.clone(), row.own_fetch(trip, &own));
            hooks.insert(name, text.replace("fetch(r, col)", &format!("{own}(r, col)")));
        } else {
            hooks.insert(name, text);
        }
    }
    let stages = frame.pass.stages.len();
    let skeleton = match kernel {
        Kernel::RowResident { .. } if frame.pass.runs_along_rows() => Skeleton::RowScanResident,
        Kernel::RowResident { .. } => Skeleton::RowResident,
        Kernel::RowPairs => Skeleton::RowPairs,
        Kernel::RowScan { .. } => Skeleton::RowScan,
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
    hooks.values_mut().for_each(|hook| *hook = with_exp2(hook, schedule.exp2));
    let kinds: Vec<TripKind> = row.trips.iter().map(Trip::kind).collect();
    let wgsl = fill_hooks(&title(program, pass, schedule), skeleton, &kinds, combine, &hooks);
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
    /// What runs along the row, of a trip that is no stage.
    along: Option<AlongTrip>,
}

impl Trip {
    fn kind(&self) -> TripKind {
        match self.along.as_ref().map(|trip| trip.along) {
            None if self.part == Part::Repeated => TripKind::Repeat,
            None => TripKind::Stage,
            Some(Along::Scans(_)) => TripKind::Scan,
            Some(Along::Pairs) => TripKind::Pairs,
            Some(Along::Sort) => TripKind::Sort,
            Some(Along::Permutations(_)) => TripKind::Move,
        }
    }

    /// The values that it leaves along the row.
    fn left(&self) -> &[NodeId] {
        self.along.as_ref().map_or(&[], |trip| &trip.nodes)
    }
}

/// The trips of a kernel. Where a row is held, the largest value is found before anything is summed relative to it: one
/// exponential an element, and no rescaling. Where it is streamed, sums are rescaled once a block.
fn trips(program: &Program, pass: &Pass, kernel: Kernel) -> Vec<Trip> {
    let mut all = Vec::new();
    for (stage, Stage { reduces, along, steps }) in pass.stages.iter().enumerate() {
        let sums = |id: &NodeId| matches!(program.node(*id), Node::Reduce(Reduce::ExpSumRest, _));
        let is_threshold = |id: &NodeId| matches!(program.node(*id), Node::Reduce(Reduce::Threshold(_), _));
        let (thresholds, reduces): (Vec<NodeId>, Vec<NodeId>) = reduces.iter().partition(|id| is_threshold(id));
        let only_looks = along.is_empty() && *steps == 0;
        let parts: &[Part] = match kernel {
            Kernel::RowResident { .. } if reduces.iter().any(sums) => &[Part::Top, Part::Rest],
            Kernel::Row | Kernel::RowPairs if !reduces.is_empty() && reduces.iter().all(sums) => {
                &[Part::Blocks, Part::Refined]
            }
            _ => &[Part::Whole],
        };
        let is_looked_at = pass.poison.iter().any(|poison| poison.at(LookPlace::Stage(stage)).next().is_some());
        for &part in parts.iter().filter(|_| !reduces.is_empty() || is_looked_at || only_looks) {
            let states = State::all(program, &reduces, part);
            all.push(Trip { index: all.len(), stage, part, states, along: None });
        }
        if *steps > 0 {
            let states = State::all(program, &thresholds, Part::Repeated);
            all.push(Trip { index: all.len(), stage, part: Part::Repeated, states, along: None });
        }
        for trip in along {
            let along = Some(trip.clone());
            all.push(Trip { index: all.len(), stage, part: Part::Whole, states: Vec::new(), along });
        }
    }
    all
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
    /// Operations on row values that only what is written once a row needs: the lane that writes it makes them.
    last: HashSet<NodeId>,
    /// Whether the kernel takes whole rows.
    is_whole: bool,
    /// Whether rows are streamed.
    streams: bool,
    /// Whether each trip fetches by a function of its own: those of streamed scans, which leave words for later trips.
    reads_apart: bool,
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
            let listed = |id: NodeId| {
                frame.pass.stages.iter().position(|s| s.reduces.contains(&id) || s.left().any(|left| left == id))
            };
            let saved = frame.pass.known.as_ref().is_some_and(|known| known.nodes.contains(&id));
            let known = match node {
                Node::FoldOver(..) => 0,
                Node::Reduce(..) if saved => 0,
                node if node.runs_along_row() => 1 + listed(id).expect("what runs along a row has a stage"),
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
        let is_whole =
            matches!(kernel, Kernel::Row | Kernel::RowPairs | Kernel::RowScan { .. } | Kernel::RowResident { .. });
        let carries_nan = frame.carries_nan && is_whole;
        let reads_apart = matches!(kernel, Kernel::RowScan { .. });
        let streams = matches!(kernel, Kernel::Row | Kernel::RowPairs) || reads_apart;
        let last = HashSet::new();
        let mut row =
            Row { frame, ends, nodes, depth, fetched, trips, last, is_whole, streams, reads_apart, carries_nan };
        // Sums by column take their terms from the row's values.
        if !matches!(kernel, Kernel::ColumnSums { .. }) {
            row.last = row.last_values();
        }
        row
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
        text.push_str("fn row_place(outer: RowValues, row: u32) -> RowValues {\n    var r = outer;\n");
        text.push_str(&frame.coordinates("row"));
        for slot in self.based() {
            putln!(text, "    {} = {};", self.base_name(slot), frame.base(slot));
        }
        text.push_str("    r.row = shape.first_item + row;\n");
        if let Some(tensor) = frame.variant.aligned_to {
            putln!(text, "    r.early = r.base{tensor} % WIDTH;");
        }
        text.push_str("    return r;\n}\nfn row_values(before: RowValues) -> RowValues {\n    var r = before;\n");
        text.push_str(&frame.coordinates("(r.row - shape.first_item)"));
        text.push_str(&self.row_lets(0));
        for (k, saved) in (0..frame.pass.poison.len()).filter_map(|k| Some((k, frame.known_bits(k, "r.row")?))) {
            putln!(text, "    r.{0} = max(r.{0}, {saved});", bits(k));
        }
        text.push_str(&self.clear_text(0));
        text.push_str("    return r;\n}\n");
        let in_place = frame.variant.modes.iter().any(|mode| matches!(mode, Mode::InPlace(_)));
        putln!(text, "const IN_PLACE: bool = {in_place};\nconst LATE: bool = {};", self.is_late());
        let read = if self.reads_apart { self.read_by_outputs() } else { self.nodes.clone() };
        text.push_str(&if frame.is_paired() { self.fetch_pair() } else { self.fetch_window("fetch", &read) });
        text.push_str(&self.fetch_end("fetch_end", &read));
        text
    }

    /// Row values that are known after `depth` stages.
    fn row_lets(&self, depth: usize) -> String {
        let program = self.frame.program;
        let mut text = String::new();
        for id in self.row_nodes().filter(|id| self.depth[id] == depth && !self.last.contains(id)) {
            let n = id.0;
            match *program.node(id) {
                Node::Op(op, _) => {
                    let operands: Vec<NodeId> = program.node(id).operands().collect();
                    let value = op_text(program, op, &operands, 1, &|id| outer_value(program, id, "r"));
                    putln!(text, "    r.n{n} = {value};");
                }
                Node::Input(input) => {
                    let slot = Slot::Input(input as usize);
                    let bits = self.frame.taken(slot, self.frame.load_one(slot, &self.frame.base(slot)));
                    match program.kind(id) {
                        Kind::Int => putln!(text, "    r.n{n} = {bits};"),
                        _ => self.row_float(&mut text, id, &bits),
                    }
                }
                Node::RowIndex => putln!(text, "    r.n{n} = r.row;"),
                Node::InRange(label, classes) => {
                    let label = Label { label, classes, conditions: [None; 2] };
                    text.push_str(&label.range_text(self.frame.pass, id, &outer_value(program, label.label, "r")));
                }
                Node::FoldOver(..) | Node::GroupRows => {
                    self.row_float(&mut text, id, &group_load(self.frame, id, "r.row"))
                }
                Node::At(x, label) => {
                    let label = outer_value(program, label, "r");
                    text.push_str(&gather(self.frame, id, x, [&label, "r.row"]));
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
        for label in labels(program, self.frame.pass) {
            let known = |id: NodeId| self.depth.get(&id).copied().unwrap_or(0);
            let [row, _] = label.conditions;
            if row.map_or(0, known).max(known(label.label)) == depth {
                let counts = row.map_or(String::new(), |row| format!(" && {}", outer_value(program, row, "r")));
                let bad = label.is_bad(&outer_value(program, label.label, "r"), 1);
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

    /// The operations on row values that elements, stages, conditions and labels do without.
    fn last_values(&self) -> HashSet<NodeId> {
        let (program, pass) = (self.frame.program, self.frame.pass);
        let is_op = |id: &NodeId| matches!(program.node(*id), Node::Op(..));
        let mut roots: Vec<NodeId> = self.nodes.iter().copied().filter(|id| !is_op(id)).collect();
        // Gathers and reductions come with their operands.
        let elements = pass.outputs.iter().map(|&output| &program.outputs[output]);
        let elements = elements.filter(|output| output.scope == Scope::Element);
        let by_itself = self.is_written_at_label();
        let at_label = |at: Option<(NodeId, NodeId)>| {
            at.map_or([None; 2], |(label, there)| [Some(label), (!by_itself).then_some(there)])
        };
        roots.extend(elements.flat_map(|o| [Some(o.node)].into_iter().chain(at_label(o.at_label))).flatten());
        roots.extend(pass.poison.iter().flat_map(|poison| [poison.row, poison.gate]).flatten());
        roots.extend(pass.poison.iter().flat_map(|poison| &poison.looks).flat_map(|placed| placed.look.nodes()));
        roots.extend(
            labels(program, pass).into_iter().flat_map(|label| [Some(label.label), label.conditions[0]]).flatten(),
        );
        roots.extend(pass.stages.iter().flat_map(|stage| stage.reduces.iter().copied().chain(stage.left())));
        let needed: HashSet<NodeId> = program.within(pass, &roots).into_iter().collect();
        self.row_nodes().filter(|id| is_op(id) && !needed.contains(id)).collect()
    }

    /// These operations, for what is written once a row.
    fn last_lets(&self) -> String {
        let program = self.frame.program;
        let mut text = String::new();
        for id in self.row_nodes().filter(|id| self.last.contains(id)) {
            let Node::Op(op, _) = *program.node(id) else { unreachable!("only operations come last") };
            let operands: Vec<NodeId> = program.node(id).operands().collect();
            let value = op_text(program, op, &operands, 1, &|id| outer_value(program, id, "r"));
            putln!(text, "    r.n{} = {value};", id.0);
        }
        text
    }

    /// Whether the first trip over the elements needs none of the row's values: then its loads need not wait for those of
    /// labels and gathers.
    fn is_late(&self) -> bool {
        let Some(first) = self.trips.first().filter(|trip| trip.part != Part::Repeated) else { return false };
        let poison = self.frame.pass.poison.iter();
        let looked = poison.flat_map(|poison| poison.at(LookPlace::Stage(first.stage))).flat_map(Look::nodes);
        let roots: Vec<NodeId> = first.states.iter().map(|state| state.operand).chain(looked).collect();
        self.streams && !self.frame.program.within(self.frame.pass, &roots).into_iter().any(|id| self.is_row(id))
    }

    /// Element nodes needed for the roots, operands first.
    pub fn element_nodes(&self, roots: &[NodeId]) -> Vec<NodeId> {
        let program = self.frame.program;
        let stop = |id: NodeId| {
            // What runs along the row reads its own operands where it runs.
            !self.is_element(id) || program.is_left(id)
        };
        let below = program.below(roots, stop);
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
            ref node if node.runs_along_row() => format!("    let e{0} = bitcast<{f}>(f.s{0});\n", id.0),
            Node::FoldOver(_, Scope::Column | Scope::GroupColumn, _) => {
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
            Node::FoldOver(_, Scope::Column | Scope::GroupColumn, _) => format!("b{} & {u}(MAGNITUDE)", look.node.0),
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
}
