//! [`Program`] to code: which value is computed at which level, in which phase, in which register.

use super::code::*;
use crate::expr::op::Kind;
use crate::expr::{Node, NodeId, Reduce};
use crate::lower::{Consumer, Look, LookKind, LookPlace, Pass, Placed, Poison, Program};
use crate::shape::Scope;
use std::collections::HashMap;

/// The code of a pass.
pub fn compile_pass(program: &Program, place: usize) -> PassCode {
    let pass = &program.passes[place];
    let mut b = Builder::new(program, pass);
    let stages = pass.stages.iter().map(|s| s.reduces.iter().map(|r| b.staged(*r)).collect()).collect();
    let sums = pass.totals.iter().map(|t| b.sum(*t)).collect();
    let outputs = pass.outputs.iter().map(|k| b.output(*k)).collect();
    let mut looks = Vec::new();
    for (poison, of) in pass.poison.iter().enumerate() {
        looks.extend(of.looks.iter().filter_map(|placed| b.look(poison, placed)));
    }
    let poisons = pass.poison.iter().map(|poison| b.poison(poison)).collect();
    let lenient: Vec<(NodeId, LabelRoot)> =
        pass.lenient.iter().map(|(sum, look)| (*sum, b.label(look, None))).collect();
    b.pass_code(&Roots { stages, sums, outputs, looks, poisons, lenient })
}

/// The code of the outputs of scope total.
pub fn compile_final(program: &Program) -> FinalCode {
    let pass = Pass::default();
    let mut b = Builder::new(program, &pass);
    let places = (0..program.outputs.len()).filter(|&k| program.outputs[k].scope <= Scope::Total);
    let values: Vec<TotalRoot> = places
        .map(|k| {
            let looks = program.looks.outputs[k].iter().filter(|look| look.kind == LookKind::Value);
            let looks = looks.map(|look| (b.value(look.node, None), look.row.map(|row| b.value(row, None)))).collect();
            TotalRoot { output: k, value: b.value(program.outputs[k].node, None), looks }
        })
        .collect();
    let mut homes = HashMap::new();
    let globals = b.globals(&mut homes);
    let outputs = values.into_iter().map(|TotalRoot { output, value, looks }| {
        let looks = looks.into_iter().map(|(value, row)| (homes[&value], row.map(|row| homes[&row]))).collect();
        TotalOutput { output, src: homes[&value], looks }
    });
    FinalCode { outputs: outputs.collect(), globals }
}

type ValueId = usize;
type Homes = HashMap<ValueId, Src>;

struct Val {
    action: Action<ValueId>,
    level: Level,
    kind: Kind,
    /// Stages that must be over before.
    depth: usize,
}

/// A reduction of a stage: its operand, its value, and the maximum's where it knows that as well.
struct Staged {
    reduce: Reduce,
    operand: ValueId,
    out: ValueId,
    max_out: Option<ValueId>,
}

struct SumRoot {
    node: usize,
    value: ValueId,
    to: Scope,
    per_group: bool,
}

struct OutputRoot {
    output: usize,
    value: ValueId,
    at_label: Option<(ValueId, ValueId)>,
    is_element: bool,
}

/// An output that is one number, and the sums that it looks at, each with its condition.
struct TotalRoot {
    output: usize,
    value: ValueId,
    looks: Vec<(ValueId, Option<ValueId>)>,
}

/// A value that is looked at.
struct LookRoot {
    poison: usize,
    place: LookPlace,
    value: ValueId,
    label: Option<ValueId>,
    conditions: [Option<ValueId>; 2],
}

/// A label whose range is checked, and where.
#[derive(Clone, Copy)]
struct LabelRoot {
    label: ValueId,
    row: Option<ValueId>,
}

/// What the looks of one poison poison.
struct PoisonRoot {
    row: Option<ValueId>,
    gate: Option<ValueId>,
    consumers: Vec<Consumer>,
    labels: Vec<LabelRoot>,
}

/// What a pass is for.
struct Roots {
    stages: Vec<Vec<Staged>>,
    sums: Vec<SumRoot>,
    outputs: Vec<OutputRoot>,
    looks: Vec<LookRoot>,
    poisons: Vec<PoisonRoot>,
    /// Labels at which a row adds nothing to that sum.
    lenient: Vec<(NodeId, LabelRoot)>,
}

impl Roots {
    /// Labels whose range is checked.
    fn labels(&self) -> impl Iterator<Item = LabelRoot> + '_ {
        let lenient = self.lenient.iter().map(|(_, label)| *label);
        self.poisons.iter().flat_map(|poison| poison.labels.iter().copied()).chain(lenient)
    }

    /// What they read of the rows, when all stages are done.
    fn looked_at(&self) -> Vec<ValueId> {
        let looks = self
            .looks
            .iter()
            .flat_map(|look| [Some(look.value), look.label].into_iter().chain(look.conditions).flatten());
        let labels = self.labels().flat_map(|label| [Some(label.label), label.row]).flatten();
        looks.chain(labels).chain(self.poisons.iter().flat_map(|poison| [poison.row, poison.gate]).flatten()).collect()
    }
}

/// The element values of each trip, operands first, and what is read of them.
struct Elements {
    values: Vec<ValueId>,
    roots: Vec<ValueId>,
}

struct Builder<'p> {
    program: &'p Program,
    pass: &'p Pass,
    /// Operands before their users.
    values: Vec<Val>,
    known: HashMap<Action<ValueId>, ValueId>,
    memo: HashMap<(NodeId, Option<ValueId>), ValueId>,
}

/// From nodes to values.
impl<'p> Builder<'p> {
    fn new(program: &'p Program, pass: &'p Pass) -> Builder<'p> {
        let (values, known, memo) = Default::default();
        Builder { program, pass, values, known, memo }
    }

    /// The value of a node; of an element node, at the column of a label where one is given.
    fn value(&mut self, id: NodeId, at: Option<ValueId>) -> ValueId {
        let at = at.filter(|_| matches!(self.program.scope(id), Scope::Element | Scope::Column));
        if let Some(&known) = self.memo.get(&(id, at)) {
            return known;
        }
        let value = match *self.program.node(id) {
            Node::Const(bits) => self.add(Action::Float(bits)),
            Node::Int(value) => self.add(Action::Int(value)),
            Node::Bool(value) => self.add(Action::Bool(value)),
            Node::Param(place) => self.add(Action::Param(place as usize)),
            Node::Count(extent) => self.add(Action::Count(extent)),
            Node::Input(place) => match at {
                Some(label) => self.add(Action::LaneReduce(place as usize, label)),
                None => self.add(Action::Load(place as usize)),
            },
            Node::ColIndex => at.unwrap_or_else(|| self.add(Action::ColIndex)),
            Node::Op(op, operands) => {
                let operands = operands.map(|o| (o != NodeId::NONE).then(|| self.value(o, at)));
                self.add(Action::Op(op, operands))
            }
            Node::Reduce(_, x) => {
                let operand = self.value(x, None);
                self.add(Action::Reduced(id, operand))
            }
            Node::SumOver(Scope::Group, _) => self.add(Action::GroupSum(id.index())),
            Node::SumOver(..) => self.add(Action::Total(id.index())),
            Node::At(x, label) => {
                let label = self.value(label, None);
                self.value(x, Some(label))
            }
            other => unreachable!("lowering leaves no {other:?}"),
        };
        self.memo.insert((id, at), value);
        value
    }

    fn add(&mut self, action: Action<ValueId>) -> ValueId {
        if let Some(&known) = self.known.get(&action) {
            return known;
        }
        let operands = || action.operands().map(|o| &self.values[o]);
        let depth = operands().map(|v| v.depth).max().unwrap_or(0);
        let (level, kind, depth) = match action {
            Action::Float(_) | Action::Count(_) | Action::Total(_) => (Level::Global, Kind::Float, 0),
            Action::Param(place) => (Level::Global, self.program.params[place].kind, 0),
            Action::Int(_) => (Level::Global, Kind::Int, 0),
            Action::Bool(_) => (Level::Global, Kind::Bool, 0),
            Action::GroupSum(_) => (Level::Row, Kind::Float, 0),
            Action::Load(place) => {
                let decl = &self.program.inputs[place];
                let level = match decl.scope {
                    Scope::Param | Scope::Scalar | Scope::Total => Level::Global,
                    Scope::Element | Scope::Column if self.program.has_rows() => Level::Element,
                    _ => Level::Row,
                };
                (level, decl.kind, 0)
            }
            Action::LaneReduce(place, _) => (Level::Row, self.program.inputs[place].kind, depth),
            Action::ColIndex => (Level::Element, Kind::Int, 0),
            Action::Op(op, _) => {
                let level = operands().map(|v| v.level).max().expect("every operation has an operand");
                let kinds: Vec<Kind> = operands().map(|v| v.kind).collect();
                (level, op.kind(&kinds).expect("operations of a verified graph take these kinds"), depth)
            }
            Action::Reduced(node, _) => (Level::Row, self.program.kind(node), self.stage_of(node) + 1),
        };
        self.values.push(Val { action, level, kind, depth });
        self.known.insert(action, self.values.len() - 1);
        self.values.len() - 1
    }

    /// The stage that leaves a reduction, by itself or with its partner.
    fn stage_of(&self, id: NodeId) -> usize {
        let of = |id: NodeId| self.pass.stages.iter().position(|s| s.reduces.contains(&id));
        of(id).or_else(|| of(self.program.online_partner(id)?)).expect("a reduction of the pass has a stage")
    }

    fn staged(&mut self, id: NodeId) -> Staged {
        let Node::Reduce(reduce, x) = *self.program.node(id) else { unreachable!("stages hold reductions") };
        let (operand, out) = (self.value(x, None), self.value(id, None));
        let listed = |id: NodeId| self.pass.stages.iter().any(|s| s.reduces.contains(&id));
        let max = self.program.nodes.iter().position(|n| *n == Node::Reduce(Reduce::Max, x));
        let max = max.map(|place| NodeId(place as u32)).filter(|id| reduce == Reduce::ExpSumRest && !listed(*id));
        Staged { reduce, operand, out, max_out: max.map(|id| self.value(id, None)) }
    }

    /// A look at a value; one at a label is the row's.
    fn look(&mut self, poison: usize, placed: &Placed) -> Option<LookRoot> {
        let Placed { look, place } = *placed;
        let label = match (look.kind, *self.program.node(look.node)) {
            (LookKind::Label, _) => return None,
            (_, Node::At(_, label)) => Some(self.value(label, None)),
            _ => None,
        };
        let conditions = [look.row, look.element].map(|id| id.map(|id| self.value(id, None)));
        Some(LookRoot { poison, place, value: self.value(look.node, None), label, conditions })
    }

    fn label(&mut self, look: &Look, row: Option<NodeId>) -> LabelRoot {
        let Node::At(_, label) = *self.program.node(look.node) else { unreachable!("labels are looked at in gathers") };
        LabelRoot { label: self.value(label, None), row: row.or(look.row).map(|row| self.value(row, None)) }
    }

    fn poison(&mut self, poison: &Poison) -> PoisonRoot {
        let labels = poison.looks.iter().filter(|placed| placed.look.kind == LookKind::Label);
        let labels = labels.map(|placed| self.label(&placed.look, poison.row)).collect();
        let [row, gate] = [poison.row, poison.gate].map(|id| id.map(|id| self.value(id, None)));
        PoisonRoot { row, gate, consumers: poison.consumers.clone(), labels }
    }

    fn sum(&mut self, id: NodeId) -> SumRoot {
        let Node::SumOver(to, x) = *self.program.node(id) else { unreachable!("totals are sums") };
        let value = self.value(x, None);
        assert!(self.values[value].level != Level::Element, "lowering takes elements to their row first");
        SumRoot { node: id.index(), value, to, per_group: self.program.scope(x) == Scope::Group }
    }

    fn output(&mut self, place: usize) -> OutputRoot {
        let output = &self.program.outputs[place];
        let value = self.value(output.node, None);
        let at_label = output.at_label.map(|(label, there)| (self.value(label, None), self.value(there, None)));
        let is_element = output.scope == Scope::Element && self.program.has_rows();
        OutputRoot { output: place, value, at_label, is_element }
    }
}

/// From values to code.
impl Builder<'_> {
    fn pass_code(&self, roots: &Roots) -> PassCode {
        let mut homes = Homes::new();
        let globals = self.globals(&mut homes);
        let looked = |place: LookPlace| {
            let looks = roots.looks.iter().filter(move |look| look.place == place);
            looks.flat_map(|look| std::iter::once(look.value).chain(look.conditions.into_iter().flatten()))
        };
        let of_stage = |(place, stage): (usize, &Vec<Staged>)| {
            self.elements(stage.iter().map(|s| s.operand).chain(looked(LookPlace::Stage(place))).collect())
        };
        let stages: Vec<Elements> = roots.stages.iter().enumerate().map(of_stage).collect();
        let last = roots.outputs.iter().filter(|o| o.is_element).map(|o| o.value);
        let gates = roots.poisons.iter().filter_map(|poison| poison.gate);
        let mut last: Vec<ValueId> = last.chain(looked(LookPlace::Element)).collect();
        if !last.is_empty() {
            last.extend(gates);
        }
        let last = self.elements(last);

        // Registers of the rows, by when each value is last read.
        let mut rows: Vec<Vec<ValueId>> = vec![Vec::new(); stages.len() + 1];
        for (id, value) in self.values.iter().enumerate() {
            if value.level == Level::Row && !matches!(value.action, Action::Reduced(..)) {
                rows[value.depth].push(id);
            }
        }
        let mut events = self.row_events(&rows, roots, &stages);
        events.push(Event { reads: self.row_reads_at_the_end(roots, &last), writes: Vec::new() });
        let (mut row_slots, mut element_slots) = (Slots::default(), Slots::default());
        self.place(&events, Level::Row, &mut row_slots, &mut homes);

        // Phases.
        let mut phases = Vec::new();
        for (depth, ids) in rows.iter().enumerate() {
            if !ids.is_empty() {
                phases.push(Phase::Rows(ids.iter().map(|id| self.step(*id, &homes)).collect()));
            }
            let Some(stage) = stages.get(depth) else { continue };
            let mut trip = self.trip(stage, &mut element_slots, &mut homes);
            trip.looks = look_codes(roots, LookPlace::Stage(depth), &homes);
            trip.reductions = roots.stages[depth]
                .iter()
                .map(|s| Reduction {
                    reduce: s.reduce,
                    operand: homes[&s.operand],
                    out: homes[&s.out],
                    max_out: s.max_out.map(|m| homes[&m]),
                })
                .collect();
            phases.push(Phase::Stage(trip));
        }
        let mut element_trip = self.trip(&last, &mut element_slots, &mut homes);
        element_trip.looks = look_codes(roots, LookPlace::Element, &homes);
        let label = |root: LabelRoot| LabelCode { label: homes[&root.label], row: root.row.map(|row| homes[&row]) };
        let lenient = |node: usize| {
            let of_sum = roots.lenient.iter().filter(|(sum, _)| sum.index() == node);
            of_sum.map(|(_, root)| label(*root)).collect::<Vec<_>>()
        };
        let mut code = PassCode {
            globals,
            phases,
            looks: look_codes(roots, LookPlace::Row, &homes),
            labels: roots.labels().map(label).collect(),
            poison: Vec::new(),
            sums: Vec::new(),
            stores: Vec::new(),
            element_trip,
            element_stores: Vec::new(),
            row_slots: row_slots.kinds,
            element_slots: element_slots.kinds,
        };
        // What poisons each sum, row value and element output.
        let (mut of_sums, mut of_stores, mut of_elements) = (Vec::new(), Vec::new(), Vec::new());
        for sum in &roots.sums {
            let (src, node) = (homes[&sum.value], sum.node);
            let consumer = Consumer::Sum(NodeId(node as u32));
            match sum.to {
                Scope::Group => {
                    code.stores.push(Store { src, dest: Dest::GroupTerm(node), lenient: lenient(node) });
                    of_stores.push(consumer);
                }
                _ => {
                    code.sums.push(Sum { src, node, per_group: sum.per_group, lenient: lenient(node) });
                    of_sums.push(consumer);
                }
            }
        }
        for root in &roots.outputs {
            let (src, output) = (homes[&root.value], root.output);
            let at_label = root.at_label.map(|(label, there)| (homes[&label], homes[&there]));
            let consumer = Consumer::Output(output);
            if root.is_element {
                code.element_stores.push(ElementStore { src, output, at_label });
                of_elements.push(consumer);
            } else {
                code.stores.push(Store { src, dest: Dest::Output(output), lenient: Vec::new() });
                of_stores.push(consumer);
            }
        }
        for root in &roots.poisons {
            let places = |all: &[Consumer]| (0..all.len()).filter(|&k| root.consumers.contains(&all[k])).collect();
            code.poison.push(PoisonCode {
                row: root.row.map(|row| homes[&row]),
                gate: root.gate.and_then(|gate| homes.get(&gate).copied()),
                sums: places(&of_sums),
                stores: places(&of_stores),
                elements: places(&of_elements),
                labels: root.labels.iter().copied().map(label).collect(),
            });
        }
        code
    }

    fn level(&self, id: ValueId) -> Level {
        self.values[id].level
    }

    fn globals(&self, homes: &mut Homes) -> Vec<Step> {
        let mut steps = Vec::new();
        for (id, value) in self.values.iter().enumerate().filter(|(_, v)| v.level == Level::Global) {
            let out = Src { level: Level::Global, kind: value.kind, slot: steps.len() };
            homes.insert(id, out);
            steps.push(Step { out, action: value.action.map(|o| homes[&o]) });
        }
        steps
    }

    /// The values below the roots for which `follow` holds all the way, operands first.
    fn below(&self, roots: &[ValueId], follow: impl Fn(ValueId) -> bool) -> Vec<ValueId> {
        let mut wanted = vec![false; self.values.len()];
        roots.iter().for_each(|r| wanted[*r] = true);
        for id in (0..wanted.len()).rev() {
            wanted[id] &= follow(id);
            if wanted[id] {
                self.values[id].action.operands().for_each(|o| wanted[o] = true);
            }
        }
        (0..wanted.len()).filter(|&id| wanted[id]).collect()
    }

    fn elements(&self, roots: Vec<ValueId>) -> Elements {
        Elements { values: self.below(&roots, |id| self.level(id) == Level::Element), roots }
    }

    /// Row values that element code reads.
    fn row_reads(&self, elements: &Elements) -> Vec<ValueId> {
        let operands = elements.values.iter().flat_map(|id| self.values[*id].action.operands());
        operands.chain(elements.roots.iter().copied()).filter(|o| self.level(*o) == Level::Row).collect()
    }

    fn row_events(&self, rows: &[Vec<ValueId>], roots: &Roots, stages: &[Elements]) -> Vec<Event> {
        let mut events = Vec::new();
        for (depth, ids) in rows.iter().enumerate() {
            events.extend(ids.iter().map(|id| self.event(*id)));
            if let Some(stage) = stages.get(depth) {
                let writes = roots.stages[depth].iter().flat_map(|s| [Some(s.out), s.max_out]).flatten().collect();
                events.push(Event { reads: self.row_reads(stage), writes });
            }
        }
        events
    }

    fn row_reads_at_the_end(&self, roots: &Roots, last: &Elements) -> Vec<ValueId> {
        let mut reads: Vec<ValueId> = self.row_reads(last);
        reads.extend(roots.sums.iter().map(|s| s.value));
        reads.extend(roots.looked_at().into_iter().filter(|id| self.level(*id) == Level::Row));
        for output in &roots.outputs {
            reads.push(output.value);
            reads.extend(output.at_label.iter().flat_map(|(label, there)| [*label, *there]));
        }
        reads
    }

    fn event(&self, id: ValueId) -> Event {
        Event { reads: self.values[id].action.operands().collect(), writes: vec![id] }
    }

    fn step(&self, id: ValueId, homes: &Homes) -> Step {
        Step { out: homes[&id], action: self.values[id].action.map(|o| homes[&o]) }
    }

    fn trip(&self, elements: &Elements, slots: &mut Slots, homes: &mut Homes) -> Trip {
        let mut events: Vec<Event> = elements.values.iter().map(|id| self.event(*id)).collect();
        events.push(Event { reads: elements.roots.clone(), writes: Vec::new() });
        self.place(&events, Level::Element, slots, homes);
        let steps = elements.values.iter().map(|id| self.step(*id, homes)).collect();
        Trip { steps, reductions: Vec::new(), looks: Vec::new() }
    }

    /// Gives each value of that level that is written a register, free again after its last read.
    fn place(&self, events: &[Event], level: Level, slots: &mut Slots, homes: &mut Homes) {
        let mut last: HashMap<ValueId, usize> = HashMap::new();
        for (time, event) in events.iter().enumerate() {
            for &id in event.writes.iter().chain(&event.reads).filter(|id| self.level(**id) == level) {
                last.insert(id, time);
            }
        }
        let mut ends: Vec<Vec<ValueId>> = vec![Vec::new(); events.len()];
        last.into_iter().for_each(|(id, time)| ends[time].push(id));
        for (event, ends) in events.iter().zip(&mut ends) {
            for &id in &event.writes {
                let kind = self.values[id].kind;
                homes.insert(id, Src { level, kind, slot: slots.take(kind) });
            }
            ends.sort_unstable();
            slots.free.extend(ends.iter().map(|id| homes[id].slot));
        }
    }
}

/// The looks that are made there.
fn look_codes(roots: &Roots, place: LookPlace, homes: &Homes) -> Vec<LookCode> {
    let code = |look: &LookRoot| LookCode {
        poison: look.poison,
        value: homes[&look.value],
        label: look.label.map(|label| homes[&label]),
        conditions: look.conditions.map(|id| id.map(|id| homes[&id])),
    };
    roots.looks.iter().filter(|look| look.place == place).map(code).collect()
}

/// Something that reads values and writes values.
struct Event {
    reads: Vec<ValueId>,
    writes: Vec<ValueId>,
}

#[derive(Default)]
struct Slots {
    kinds: Vec<Kind>,
    free: Vec<usize>,
}

impl Slots {
    fn take(&mut self, kind: Kind) -> usize {
        if let Some(place) = self.free.iter().rposition(|slot| self.kinds[*slot] == kind) {
            return self.free.remove(place);
        }
        self.kinds.push(kind);
        self.kinds.len() - 1
    }
}
