//! [`Program`] to code: which value is computed at which level, in which phase, in which register.

use super::code::*;
use crate::expr::{Node, NodeId, Reduce, Scope};
use crate::lower::{Pass, Program};
use crate::op::Kind;
use std::collections::HashMap;

/// The code of a pass.
pub fn compile_pass(program: &Program, place: usize) -> PassCode {
    let pass = &program.passes[place];
    let mut b = Builder::new(program, pass);
    let roots = Roots {
        stages: pass.stages.iter().map(|s| s.reduces.iter().map(|r| b.staged(*r)).collect()).collect(),
        sums: pass.totals.iter().map(|t| b.sum(*t)).collect(),
        outputs: pass.outputs.iter().map(|k| b.output(*k)).collect(),
        valid: program.valid.filter(|v| computable(program, place, *v)).map(|v| b.value(v, None)),
    };
    let mut code = b.pass_code(&roots);
    code.lenient = is_read_later(program, place);
    code
}

/// The code of the outputs of scope total.
pub fn compile_final(program: &Program) -> FinalCode {
    let pass = Pass::default();
    let mut b = Builder::new(program, &pass);
    let places = (0..program.outputs.len()).filter(|&k| program.outputs[k].scope <= Scope::Total);
    let values: Vec<(usize, ValueId)> = places.map(|k| (k, b.value(program.outputs[k].node, None))).collect();
    let mut homes = HashMap::new();
    let globals = b.globals(&mut homes);
    let outputs = values.into_iter().map(|(output, value)| {
        let reads = b.global_reads(&b.below(&[value], |_| true)).iter().map(|r| homes[r]).collect();
        TotalOutput { output, src: homes[&value], reads }
    });
    FinalCode { outputs: outputs.collect(), globals }
}

/// Whether a value can be had in a pass: its reductions are among the stages, its sums are of earlier passes.
fn computable(program: &Program, place: usize, id: NodeId) -> bool {
    let staged = |id: NodeId| program.passes[place].stages.iter().any(|s| s.reduces.contains(&id));
    let summed = |id: NodeId| program.passes[..place].iter().any(|p| p.totals.contains(&id));
    let below = program.below(&[id], |id| matches!(program.node(id), Node::SumOver(..)));
    below.into_iter().all(|id| match program.node(id) {
        Node::SumOver(..) => summed(id),
        Node::Reduce(..) => staged(id) || program.online_partner(id).is_some_and(staged),
        _ => true,
    })
}

/// Whether a later pass reads this pass's sums.
fn is_read_later(program: &Program, place: usize) -> bool {
    let totals = &program.passes[place].totals;
    program.passes[place + 1..].iter().any(|later| {
        let sums = later.totals.iter().flat_map(|t| program.node(*t).operands());
        let outputs = later.outputs.iter().flat_map(|&k| {
            let output = &program.outputs[k];
            [Some(output.node), output.at_label.map(|a| a.0), output.at_label.map(|a| a.1)].into_iter().flatten()
        });
        let roots: Vec<NodeId> = sums.chain(outputs).collect();
        program.below(&roots, |_| false).iter().any(|id| totals.contains(id))
    })
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

/// What a pass is for.
struct Roots {
    stages: Vec<Vec<Staged>>,
    sums: Vec<SumRoot>,
    outputs: Vec<OutputRoot>,
    valid: Option<ValueId>,
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
    labels: Vec<ValueId>,
}

/// From nodes to values.
impl<'p> Builder<'p> {
    fn new(program: &'p Program, pass: &'p Pass) -> Builder<'p> {
        let (values, known, memo, labels) = Default::default();
        Builder { program, pass, values, known, memo, labels }
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
                Some(label) => self.add(Action::Gather(place as usize, label)),
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
                if !self.labels.contains(&label) {
                    self.labels.push(label);
                }
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
            Action::Gather(place, _) => (Level::Row, self.program.inputs[place].kind, depth),
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
        let element_valid = roots.valid.filter(|v| self.level(*v) == Level::Element);
        let stages: Vec<Elements> =
            roots.stages.iter().map(|stage| self.elements(stage.iter().map(|s| s.operand).collect())).collect();
        let mut staged_loads: Vec<ValueId> = stages.iter().flat_map(|e| self.float_loads(e)).collect();
        staged_loads.sort_unstable();
        staged_loads.dedup();
        let check = element_valid.map(|v| self.elements(staged_loads.iter().copied().chain([v]).collect()));
        let mut last: Vec<ValueId> = roots.outputs.iter().filter(|o| o.is_element).map(|o| o.value).collect();
        if !last.is_empty() {
            last.extend(element_valid);
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
        events.push(Event { reads: self.row_reads_at_the_end(roots, &[&last], check.as_ref()), writes: Vec::new() });
        let (mut row_slots, mut element_slots) = (Slots::default(), Slots::default());
        self.place(&events, Level::Row, &mut row_slots, &mut homes);

        // Phases.
        let mut phases = Vec::new();
        for (depth, ids) in rows.iter().enumerate() {
            if !ids.is_empty() {
                phases.push(Phase::Rows(ids.iter().map(|id| self.step(*id, &homes)).collect()));
            }
            let Some(stage) = stages.get(depth) else { continue };
            let checked = if check.is_some() { Vec::new() } else { self.float_loads(stage) };
            let mut trip = self.trip(stage, &checked, &mut element_slots, &mut homes);
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
        if let (Some(check), Some(valid)) = (&check, element_valid) {
            let trip = self.trip(check, &staged_loads, &mut element_slots, &mut homes);
            phases.push(Phase::Check(trip, homes[&valid]));
        }
        // What a stage looked at has poisoned its row already.
        let unchecked: Vec<ValueId> =
            self.float_loads(&last).into_iter().filter(|load| !staged_loads.contains(load)).collect();
        let element_trip = self.trip(&last, &unchecked, &mut element_slots, &mut homes);

        let valid = match roots.valid {
            None if self.program.valid.is_none() => Valid::Always,
            None => Valid::Never,
            Some(v) if self.level(v) == Level::Element => Valid::Element(homes[&v]),
            Some(v) => Valid::Row(homes[&v]),
        };
        let all: Vec<ValueId> = (0..self.values.len()).collect();
        let mut code = PassCode {
            globals,
            global_reads: self.global_reads(&all).iter().map(|r| homes[r]).collect(),
            phases,
            labels: self.labels.iter().map(|l| homes[l]).collect(),
            lenient: false,
            valid,
            sums: Vec::new(),
            stores: Vec::new(),
            element_trip,
            element_stores: Vec::new(),
            row_slots: row_slots.kinds,
            element_slots: element_slots.kinds,
        };
        for sum in &roots.sums {
            let (src, node) = (homes[&sum.value], sum.node);
            match sum.to {
                Scope::Group => code.stores.push(Store { src, dest: Dest::GroupTerm(node) }),
                _ => code.sums.push(Sum { src, node, per_group: sum.per_group }),
            }
        }
        for root in &roots.outputs {
            let (src, output) = (homes[&root.value], root.output);
            let at_label = root.at_label.map(|(label, there)| (homes[&label], homes[&there]));
            if root.is_element {
                code.element_stores.push(ElementStore { src, output, at_label });
            } else {
                code.stores.push(Store { src, dest: Dest::Output(output) });
            }
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

    /// Scalars and totals among the values.
    fn global_reads(&self, ids: &[ValueId]) -> Vec<ValueId> {
        let is_read = |id: &&ValueId| match self.values[**id].action {
            Action::Total(_) => true,
            Action::Load(_) => self.level(**id) == Level::Global && self.values[**id].kind == Kind::Float,
            _ => false,
        };
        ids.iter().filter(is_read).copied().collect()
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

    fn float_loads(&self, elements: &Elements) -> Vec<ValueId> {
        let is_load =
            |id: &ValueId| matches!(self.values[*id].action, Action::Load(_)) && self.values[*id].kind == Kind::Float;
        elements.values.iter().copied().filter(is_load).collect()
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

    fn row_reads_at_the_end(&self, roots: &Roots, trips: &[&Elements], check: Option<&Elements>) -> Vec<ValueId> {
        let mut reads: Vec<ValueId> = trips.iter().copied().chain(check).flat_map(|e| self.row_reads(e)).collect();
        reads.extend(roots.sums.iter().map(|s| s.value).chain(self.labels.iter().copied()).chain(roots.valid));
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

    fn trip(&self, elements: &Elements, checked: &[ValueId], slots: &mut Slots, homes: &mut Homes) -> Trip {
        let mut events: Vec<Event> = elements.values.iter().map(|id| self.event(*id)).collect();
        events.push(Event { reads: elements.roots.clone(), writes: Vec::new() });
        self.place(&events, Level::Element, slots, homes);
        let is_checked = |place: usize| checked.iter().any(|id| self.values[*id].action == Action::Load(place));
        Trip {
            steps: elements.values.iter().map(|id| self.step(*id, homes)).collect(),
            reductions: Vec::new(),
            checked: (0..self.program.inputs.len()).map(is_checked).collect(),
        }
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
