//! A [`Program`] to straight-line code: for each pass, what is computed once, what for a tile of rows, and what in
//! each trip over the columns, with the registers that hold it.
//!
//! There are three levels. *Global* values are computed once a pass. *Row* values have a lane for each row of a
//! tile (group values too: each row computes its group's again). *Element* values live for one block of a trip.
//! A program without rows has no trips: each of its elements is a row.

use crate::expr::{Extent, Node, NodeId, Reduce, Scope};
use crate::lower::{Output, Pass, Program};
use crate::op::{Kind, Op};
use std::collections::HashMap;

/// How often a value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    Global,
    Row,
    Element,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Src {
    pub level: Level,
    pub kind: Kind,
    pub slot: usize,
}

/// How a value is computed, from operands `R`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action<R> {
    Float(u64),
    Int(i64),
    Bool(bool),
    Param(usize),
    Count(Extent),
    /// The sum over everything of an earlier pass, by node.
    Total(usize),
    /// The sum over the row's group of an earlier pass, by node.
    GroupSum(usize),
    /// An input, at the lane's place.
    Load(usize),
    /// An input at the row and the column of a label, clamped.
    Gather(usize, R),
    ColIndex,
    Op(Op, [Option<R>; 3]),
    /// What a stage leaves: node and operand.
    Reduced(NodeId, R),
}

impl<R: Copy> Action<R> {
    fn operands(&self) -> impl Iterator<Item = R> + use<R> {
        let all = match *self {
            Action::Gather(_, label) => [Some(label), None, None],
            Action::Op(_, operands) => operands,
            _ => [None; 3],
        };
        all.into_iter().flatten()
    }

    fn map<S>(&self, f: impl Fn(R) -> S) -> Action<S> {
        match *self {
            Action::Float(bits) => Action::Float(bits),
            Action::Int(value) => Action::Int(value),
            Action::Bool(value) => Action::Bool(value),
            Action::Param(place) => Action::Param(place),
            Action::Count(extent) => Action::Count(extent),
            Action::Total(node) => Action::Total(node),
            Action::GroupSum(node) => Action::GroupSum(node),
            Action::Load(place) => Action::Load(place),
            Action::Gather(place, label) => Action::Gather(place, f(label)),
            Action::ColIndex => Action::ColIndex,
            Action::Op(op, operands) => Action::Op(op, operands.map(|o| o.map(&f))),
            Action::Reduced(node, x) => Action::Reduced(node, f(x)),
        }
    }
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Step {
    pub out: Src,
    pub action: Action<Src>,
}

/// What a value depends on, a bit each, so that a NaN that was read reaches what it went into.
pub mod deps {
    /// A group sum.
    pub const GROUP: u64 = 1 << 62;
    /// A label out of range, or a softmax over +∞ or over nothing.
    pub const ROW: u64 = 1 << 63;
    /// The input of that place; those past the 31st share a bit.
    pub fn input(place: usize) -> u64 {
        1 << place.min(31)
    }
    /// The total of that node; likewise.
    pub fn total(node: usize) -> u64 {
        1 << (32 + node % 30)
    }
}

/// A row reduction in a stage.
#[derive(Clone, Debug)]
pub struct Reduction {
    pub reduce: Reduce,
    pub operand: Src,
    pub out: Src,
    /// Where the maximum goes that an online softmax knows.
    pub max_out: Option<Src>,
}

/// A trip over the columns.
#[derive(Clone, Debug, Default)]
pub struct Trip {
    pub steps: Vec<Step>,
    pub reductions: Vec<Reduction>,
    /// Whether each input's NaN is looked for here.
    pub checked: Vec<bool>,
}

/// A part of the work on a tile of rows.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Values of the rows.
    Rows(Vec<Step>),
    /// Row reductions.
    Stage(Trip),
    /// Which elements are valid, and NaN among those.
    Check(Trip, Src),
}

/// Where NaN and bad labels count.
#[derive(Clone, Copy, Debug)]
pub enum Valid {
    Always,
    /// The condition is not known yet in this pass.
    Never,
    Row(Src),
    /// Row by row as `Check` found; element by element in the last trip.
    Element(Src),
}

/// A sum over everything.
#[derive(Clone, Debug)]
pub struct Sum {
    pub src: Src,
    /// Node of the total.
    pub node: usize,
    pub deps: u64,
    /// One value a group, not a row.
    pub per_group: bool,
}

/// Where a row value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dest {
    /// An output.
    Output(usize),
    /// What a group sum, by node, sums.
    GroupTerm(usize),
}

/// A row value that is stored.
#[derive(Clone, Debug)]
pub struct Store {
    pub src: Src,
    pub dest: Dest,
    pub deps: u64,
}

/// An element value that is stored.
#[derive(Clone, Debug)]
pub struct ElementStore {
    pub src: Src,
    pub output: usize,
    pub at_label: Option<(Src, Src)>,
    pub deps: u64,
}

/// The code of one pass.
#[derive(Clone, Debug)]
pub struct PassCode {
    pub globals: Vec<Step>,
    pub phases: Vec<Phase>,
    pub labels: Vec<Src>,
    pub valid: Valid,
    pub sums: Vec<Sum>,
    pub stores: Vec<Store>,
    /// The last trip, with the element outputs.
    pub element_trip: Trip,
    pub element_stores: Vec<ElementStore>,
    /// Registers of row and of element values.
    pub row_slots: Vec<Kind>,
    pub element_slots: Vec<Kind>,
}

/// Outputs of one number, computed when all passes are summed.
#[derive(Clone, Debug)]
pub struct FinalCode {
    pub globals: Vec<Step>,
    /// Output, value, what it depends on.
    pub outputs: Vec<(usize, Src, u64)>,
}

type ValueId = usize;

struct Val {
    action: Action<ValueId>,
    level: Level,
    kind: Kind,
    deps: u64,
    /// Stages that must be over before.
    depth: usize,
}

struct Builder<'p> {
    program: &'p Program,
    pass: &'p Pass,
    values: Vec<Val>,
    known: HashMap<Action<ValueId>, ValueId>,
    memo: HashMap<(NodeId, Option<ValueId>), ValueId>,
    /// Labels that index the row.
    labels: Vec<ValueId>,
}

/// The code of pass `place`.
pub fn compile_pass(program: &Program, place: usize) -> PassCode {
    let pass = &program.passes[place];
    let mut b = Builder::new(program, pass);
    let stages: Vec<Vec<Staged>> = pass.stages.iter().map(|s| s.reduces.iter().map(|r| b.staged(*r)).collect()).collect();
    let sums: Vec<(usize, ValueId, Scope, bool)> = pass.totals.iter().map(|t| b.total(*t)).collect();
    let outputs: Vec<(usize, &Output)> = pass.outputs.iter().map(|&k| (k, &program.outputs[k])).collect();
    let mut values = Vec::new();
    for (_, output) in &outputs {
        let value = b.value(output.node, None);
        let at_label = output.at_label.map(|(label, value)| (b.label(label), b.value(value, None)));
        values.push((value, at_label));
    }
    let known = program.valid.is_none_or(|valid| computable(program, place, valid));
    let valid = program.valid.filter(|_| known).map(|v| b.value(v, None));
    b.finish(stages, sums, outputs, values, valid, known)
}

/// The code of the outputs of scope total.
pub fn compile_final(program: &Program) -> FinalCode {
    let pass = Pass::default();
    let mut b = Builder::new(program, &pass);
    let totals: Vec<usize> =
        (0..program.outputs.len()).filter(|&k| program.outputs[k].scope <= Scope::Total).collect();
    let values: Vec<ValueId> = totals.iter().map(|&k| b.value(program.outputs[k].node, None)).collect();
    let mut homes = HashMap::new();
    let globals = b.globals(&mut homes);
    let outputs = totals.iter().zip(&values).map(|(&k, v)| (k, homes[v], b.values[*v].deps)).collect();
    FinalCode { globals, outputs }
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

/// A reduction of a stage: its kind, its operand, its value, and the maximum's where it knows that as well.
struct Staged {
    reduce: Reduce,
    operand: ValueId,
    out: ValueId,
    max_out: Option<ValueId>,
}

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
                let label = self.label(label);
                self.value(x, Some(label))
            }
            other => unreachable!("lowering leaves no {other:?}"),
        };
        self.memo.insert((id, at), value);
        value
    }

    fn label(&mut self, id: NodeId) -> ValueId {
        let label = self.value(id, None);
        if !self.labels.contains(&label) {
            self.labels.push(label);
        }
        label
    }

    fn add(&mut self, action: Action<ValueId>) -> ValueId {
        if let Some(&known) = self.known.get(&action) {
            return known;
        }
        let operands = || action.operands().map(|o| &self.values[o]);
        let joined = operands().map(|v| v.level).max().unwrap_or(Level::Global);
        let below = operands().fold(0, |all, v| all | v.deps);
        let depth = operands().map(|v| v.depth).max().unwrap_or(0);
        let (level, kind, deps, depth) = match action {
            Action::Float(_) | Action::Param(_) | Action::Count(_) => (Level::Global, Kind::Float, 0, 0),
            Action::Int(_) => (Level::Global, Kind::Int, 0, 0),
            Action::Bool(_) => (Level::Global, Kind::Bool, 0, 0),
            Action::Total(node) => (Level::Global, Kind::Float, deps::total(node), 0),
            Action::GroupSum(_) => (Level::Row, Kind::Float, deps::GROUP, 0),
            Action::Load(place) => {
                let decl = &self.program.inputs[place];
                let level = match decl.scope {
                    Scope::Param | Scope::Scalar | Scope::Total => Level::Global,
                    Scope::Element | Scope::Column if self.program.has_rows() => Level::Element,
                    _ => Level::Row,
                };
                (level, decl.kind, deps::input(place), 0)
            }
            Action::Gather(place, _) => {
                (Level::Row, self.program.inputs[place].kind, below | deps::input(place) | deps::ROW, depth)
            }
            Action::ColIndex => (Level::Element, Kind::Int, 0, 0),
            Action::Op(op, _) => {
                let kinds: Vec<Kind> = operands().map(|v| v.kind).collect();
                (joined, op.kind(&kinds).expect("the graph was verified"), below, depth)
            }
            Action::Reduced(node, x) => {
                let infinite = if let Node::Reduce(Reduce::ExpSumRest, _) = self.program.node(node) { deps::ROW } else { 0 };
                let kind = self.program.kind(node);
                (Level::Row, kind, self.values[x].deps | infinite, self.stage_of(node) + 1)
            }
        };
        self.values.push(Val { action, level, kind, deps, depth });
        self.known.insert(action, self.values.len() - 1);
        self.values.len() - 1
    }

    /// The stage that leaves a reduction, by itself or with its partner.
    fn stage_of(&self, id: NodeId) -> usize {
        let of = |id: NodeId| self.pass.stages.iter().position(|s| s.reduces.contains(&id));
        of(id).or_else(|| of(self.program.online_partner(id)?)).expect("a stage for each reduction of a pass")
    }

    fn staged(&mut self, id: NodeId) -> Staged {
        let Node::Reduce(reduce, x) = *self.program.node(id) else { unreachable!("stages hold reductions") };
        let (operand, out) = (self.value(x, None), self.value(id, None));
        let listed = |id: NodeId| self.pass.stages.iter().any(|s| s.reduces.contains(&id));
        let max = self.program.nodes.iter().position(|n| *n == Node::Reduce(Reduce::Max, x));
        let max = max.map(|place| NodeId(place as u32)).filter(|id| reduce == Reduce::ExpSumRest && !listed(*id));
        Staged { reduce, operand, out, max_out: max.map(|id| self.value(id, None)) }
    }

    /// A sum: its node, its operand, where it goes, and whether the operand has one value a group.
    fn total(&mut self, id: NodeId) -> (usize, ValueId, Scope, bool) {
        let Node::SumOver(to, x) = *self.program.node(id) else { unreachable!("totals are sums") };
        let value = self.value(x, None);
        (id.index(), value, to, self.program.scope(x) == Scope::Group)
    }

    fn globals(&self, homes: &mut HashMap<ValueId, Src>) -> Vec<Step> {
        let mut steps = Vec::new();
        for (id, value) in self.values.iter().enumerate().filter(|(_, v)| v.level == Level::Global) {
            let out = Src { level: Level::Global, kind: value.kind, slot: steps.len() };
            homes.insert(id, out);
            steps.push(Step { out, action: value.action.map(|o| homes[&o]) });
        }
        steps
    }

    /// The element values below `roots`, operands first.
    fn elements(&self, roots: &[ValueId]) -> Vec<ValueId> {
        let mut wanted = vec![false; self.values.len()];
        roots.iter().for_each(|r| wanted[*r] = true);
        for id in (0..wanted.len()).rev() {
            if wanted[id] && self.values[id].level == Level::Element {
                self.values[id].action.operands().for_each(|o| wanted[o] = true);
            }
        }
        (0..wanted.len()).filter(|&id| wanted[id] && self.values[id].level == Level::Element).collect()
    }

    fn finish(
        &self,
        stages: Vec<Vec<Staged>>,
        sums: Vec<(usize, ValueId, Scope, bool)>,
        outputs: Vec<(usize, &Output)>,
        output_values: Vec<(ValueId, Option<(ValueId, ValueId)>)>,
        valid: Option<ValueId>,
        valid_known: bool,
    ) -> PassCode {
        let level = |id: ValueId| self.values[id].level;
        let element_valid = valid.filter(|v| level(*v) == Level::Element);
        let stage_elements: Vec<Vec<ValueId>> = stages
            .iter()
            .map(|stage| self.elements(&stage.iter().map(|s| s.operand).collect::<Vec<_>>()))
            .collect();
        let staged_inputs = self.float_loads(&stage_elements.concat());
        let mut check_elements = Vec::new();
        if let Some(valid) = element_valid {
            let loads = staged_inputs.iter().copied().chain([valid]);
            check_elements = self.elements(&loads.collect::<Vec<_>>());
        }
        let is_element = |k: &usize| outputs[*k].1.scope == Scope::Element && self.program.has_rows();
        let (element_outputs, row_outputs): (Vec<usize>, Vec<usize>) = (0..outputs.len()).partition(is_element);
        let mut last_roots: Vec<ValueId> = element_outputs.iter().map(|&k| output_values[k].0).collect();
        last_roots.extend(element_valid.filter(|_| !element_outputs.is_empty()));
        let last_elements = self.elements(&last_roots);

        // Row values, by the stage they wait for; then registers by when each value is last read.
        let mut rows: Vec<Vec<ValueId>> = vec![Vec::new(); stages.len() + 1];
        for (id, value) in self.values.iter().enumerate() {
            if value.level == Level::Row && !matches!(value.action, Action::Reduced(..)) {
                rows[value.depth].push(id);
            }
        }
        let mut events: Vec<Event> = Vec::new();
        let row_reads = |ids: &[ValueId]| -> Vec<ValueId> {
            ids.iter().flat_map(|id| self.values[*id].action.operands()).filter(|o| level(*o) == Level::Row).collect()
        };
        for (depth, ids) in rows.iter().enumerate() {
            events.extend(ids.iter().map(|id| Event { reads: row_reads(&[*id]), writes: vec![*id] }));
            if let Some(stage) = stages.get(depth) {
                let mut reads = row_reads(&stage_elements[depth]);
                reads.extend(stage.iter().map(|s| s.operand).filter(|o| level(*o) == Level::Row));
                let writes = stage.iter().flat_map(|s| [Some(s.out), s.max_out]).flatten().collect();
                events.push(Event { reads, writes });
            }
        }
        let mut kept: Vec<ValueId> = [row_reads(&check_elements), row_reads(&last_elements)].concat();
        kept.extend(sums.iter().map(|s| s.1).chain(self.labels.iter().copied()).chain(valid));
        kept.extend(output_values.iter().flat_map(|(v, at)| [Some(*v), at.map(|a| a.0), at.map(|a| a.1)]).flatten());
        kept.retain(|id| level(*id) == Level::Row);
        events.push(Event { reads: kept, writes: Vec::new() });

        let mut homes = HashMap::new();
        let globals = self.globals(&mut homes);
        let (mut row_slots, mut element_slots) = (Slots::default(), Slots::default());
        self.place(&events, Level::Row, &mut row_slots, &mut homes);
        let step = |id: ValueId, homes: &HashMap<ValueId, Src>| Step {
            out: homes[&id],
            action: self.values[id].action.map(|o| homes[&o]),
        };
        let mut trip = |elements: &[ValueId], roots: &[ValueId], homes: &mut HashMap<ValueId, Src>| {
            let mut events: Vec<Event> = elements
                .iter()
                .map(|id| Event { reads: self.values[*id].action.operands().collect(), writes: vec![*id] })
                .collect();
            events.push(Event { reads: roots.to_vec(), writes: Vec::new() });
            self.place(&events, Level::Element, &mut element_slots, homes);
            Trip { steps: elements.iter().map(|id| step(*id, homes)).collect(), ..Trip::default() }
        };
        let checks = |ids: &[ValueId]| -> Vec<bool> {
            let mut checked = vec![false; self.program.inputs.len()];
            for id in ids {
                if let Action::Load(place) = self.values[*id].action {
                    checked[place] = true;
                }
            }
            checked
        };
        let mut phases = Vec::new();
        for (depth, ids) in rows.iter().enumerate() {
            if !ids.is_empty() {
                phases.push(Phase::Rows(ids.iter().map(|id| step(*id, &homes)).collect()));
            }
            let Some(stage) = stages.get(depth) else { continue };
            let roots: Vec<ValueId> = stage.iter().map(|s| s.operand).collect();
            let mut code = trip(&stage_elements[depth], &roots, &mut homes);
            let reduction = |s: &Staged| Reduction {
                reduce: s.reduce,
                operand: homes[&s.operand],
                out: homes[&s.out],
                max_out: s.max_out.map(|m| homes[&m]),
            };
            code.reductions = stage.iter().map(reduction).collect();
            let loads = self.float_loads(&stage_elements[depth]);
            code.checked = checks(if element_valid.is_some() { &[] } else { &loads });
            phases.push(Phase::Stage(code));
        }
        if let Some(valid) = element_valid {
            let mut roots = staged_inputs.clone();
            roots.push(valid);
            let mut code = trip(&check_elements, &roots, &mut homes);
            code.checked = checks(&staged_inputs);
            phases.push(Phase::Check(code, homes[&valid]));
        }
        let mut element_trip = trip(&last_elements, &last_roots, &mut homes);
        let mut unchecked = self.float_loads(&last_elements);
        unchecked.retain(|load| !staged_inputs.contains(load));
        element_trip.checked = checks(&unchecked);

        let valid = match valid {
            None if valid_known => Valid::Always,
            None => Valid::Never,
            Some(v) if level(v) == Level::Element => Valid::Element(homes[&v]),
            Some(v) => Valid::Row(homes[&v]),
        };
        let deps = |id: ValueId| self.values[id].deps;
        let mut code = PassCode {
            globals,
            phases,
            labels: self.labels.iter().map(|l| homes[l]).collect(),
            valid,
            sums: Vec::new(),
            stores: Vec::new(),
            element_trip,
            element_stores: Vec::new(),
            row_slots: row_slots.kinds,
            element_slots: element_slots.kinds,
        };
        for (node, value, to, per_group) in sums {
            let (src, deps) = (homes[&value], deps(value));
            match to {
                Scope::Group => code.stores.push(Store { src, dest: Dest::GroupTerm(node), deps }),
                _ => code.sums.push(Sum { src, node, deps, per_group }),
            }
        }
        for k in row_outputs {
            let value = output_values[k].0;
            code.stores.push(Store { src: homes[&value], dest: Dest::Output(outputs[k].0), deps: deps(value) });
        }
        for k in element_outputs {
            let (value, at_label) = output_values[k];
            let all = deps(value) | at_label.map_or(0, |(_, there)| deps(there));
            let at_label = at_label.map(|(label, there)| (homes[&label], homes[&there]));
            code.element_stores.push(ElementStore { src: homes[&value], output: outputs[k].0, at_label, deps: all });
        }
        code
    }

    /// The loads of numbers among element values.
    fn float_loads(&self, ids: &[ValueId]) -> Vec<ValueId> {
        let is = |id: &ValueId| matches!(self.values[*id].action, Action::Load(_)) && self.values[*id].kind == Kind::Float;
        let mut loads: Vec<ValueId> = ids.iter().copied().filter(is).collect();
        loads.sort_unstable();
        loads.dedup();
        loads
    }

    /// Gives each value written a register, free again after its last read. All are free at the end.
    fn place(&self, events: &[Event], level: Level, slots: &mut Slots, homes: &mut HashMap<ValueId, Src>) {
        let mut last: HashMap<ValueId, usize> = HashMap::new();
        for (time, event) in events.iter().enumerate() {
            event.writes.iter().chain(&event.reads).for_each(|id| drop(last.insert(*id, time)));
        }
        for (time, event) in events.iter().enumerate() {
            for &id in &event.writes {
                let kind = self.values[id].kind;
                homes.insert(id, Src { level, kind, slot: slots.take(kind) });
            }
            let mut done: Vec<ValueId> = event.writes.iter().chain(&event.reads).copied().collect();
            done.sort_unstable();
            done.dedup();
            done.retain(|id| last[id] == time && self.values[*id].level == level);
            done.iter().for_each(|id| slots.free.push(homes[id].slot));
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
            return self.free.swap_remove(place);
        }
        self.kinds.push(kind);
        self.kinds.len() - 1
    }
}
