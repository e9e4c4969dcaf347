//! [`Program`] to code: in which phase each value is computed, and in which register it is kept.

use super::code::*;
use super::values::*;
use crate::expr::op::Kind;
use crate::expr::{Fold, NodeId};
use crate::lower::{Consumer, LookKind, LookPlace, Over, Pass, Program};
use crate::shape::Scope;
use std::collections::HashMap;

/// The code of a pass.
pub fn compile_pass(program: &Program, index: usize) -> PassCode {
    let pass = &program.passes[index];
    let mut b = Builder::new(program, pass);
    let stages = pass.stages.iter().map(|s| s.reduces.iter().map(|r| b.staged(*r)).collect()).collect();
    let along = pass.stages.iter().map(|s| s.left().filter_map(|id| b.along_root(id)).collect()).collect();
    let folds = pass.stages.iter().map(|s| s.left().filter_map(|id| b.fold_root(id)).collect()).collect();
    let sums = pass.totals.iter().map(|t| b.sum(*t)).collect();
    let outputs = pass.outputs.iter().map(|k| b.output(*k)).collect();
    let mut looks = Vec::new();
    for (poison, of) in pass.poison.iter().enumerate() {
        looks.extend(of.looks.iter().filter_map(|placed| b.look(poison, placed)));
    }
    let poisons = pass.poison.iter().map(|poison| b.poison(poison)).collect();
    let lenient: Vec<(NodeId, LabelRoot)> =
        pass.lenient.iter().map(|(sum, look)| (*sum, b.label(look, None))).collect();
    b.pass_code(&Roots { stages, along, folds, sums, outputs, looks, poisons, lenient })
}

/// The code of the outputs of scope total.
pub fn compile_final(program: &Program) -> FinalCode {
    let pass = Pass::default();
    let mut b = Builder::new(program, &pass);
    let totals = (0..program.outputs.len()).filter(|&k| program.outputs[k].scope <= Scope::Total);
    let values: Vec<TotalRoot> = totals
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

type Homes = HashMap<ValueId, Src>;

/// The element values of one trip, operands first, and the values that are read of them.
struct Elements {
    values: Vec<ValueId>,
    roots: Vec<ValueId>,
}

/// The element values of a stage that folds over partners, and its values per pair.
struct Pairs {
    /// The trip that takes what is read of partners.
    before: Elements,
    /// Numbers of the operands of partners.
    partners: Vec<usize>,
    /// Values per pair, operands first.
    values: Vec<ValueId>,
    roots: Vec<ValueId>,
}

/// The trips of a pass: one per stage, then the trip that writes element outputs.
struct Trips {
    stages: Vec<Elements>,
    /// By stage.
    pairs: Vec<Option<Pairs>>,
    last: Elements,
}

impl Builder<'_> {
    fn pass_code(&self, roots: &Roots) -> PassCode {
        let mut homes = Homes::new();
        let globals = self.globals(&mut homes);
        let trips = self.trips(roots);
        let rows = self.rows_by_depth(trips.stages.len());
        let row_slots = self.row_registers(&rows, roots, &trips, &mut homes);
        let [mut element_slots, mut pair_slots] = <[Slots; 2]>::default();
        let slots = [&mut element_slots, &mut pair_slots];
        let phases = self.phases(&rows, roots, &trips, slots, &mut homes);
        let mut element_trip = self.trip(&trips.last, &mut element_slots, &mut homes);
        element_trip.looks = look_codes(roots, LookPlace::Element, &homes);
        let mut code = PassCode {
            over: self.pass.over,
            globals,
            phases,
            looks: look_codes(roots, LookPlace::Row, &homes),
            labels: roots.labels().map(|root| label_code(root, &homes)).collect(),
            poison: Vec::new(),
            sums: Vec::new(),
            stores: Vec::new(),
            element_trip,
            element_stores: Vec::new(),
            along: self.pass.along().count(),
            partners: self.partners.len(),
            row_slots: row_slots.kinds,
            element_slots: element_slots.kinds,
            pair_slots: pair_slots.kinds,
        };
        let consumers = add_results(&mut code, roots, &homes);
        code.poison = roots.poisons.iter().map(|root| poison_code(root, &consumers, &homes)).collect();
        code
    }

    /// The element values of each trip, with the values that it checks for NaN.
    fn trips(&self, roots: &Roots) -> Trips {
        let pairs: Vec<Option<Pairs>> = roots.folds.iter().map(|folds| self.pairs(folds)).collect();
        let looked = |place: LookPlace| {
            let looks = roots.looks.iter().filter(move |look| look.place == place);
            looks.flat_map(|look| std::iter::once(look.value).chain(look.conditions.into_iter().flatten()))
        };
        let of_stage = |(index, stage): (usize, &Vec<Staged>)| {
            let along = roots.along[index].iter().flat_map(|along| [Some(along.operand), along.decay]).flatten();
            let paired = pairs[index].iter().flat_map(|pairs| self.read_by_pairs(pairs));
            let looked = looked(LookPlace::Stage(index));
            self.elements(stage.iter().map(|s| s.operand).chain(along).chain(paired).chain(looked).collect())
        };
        let stages = roots.stages.iter().enumerate().map(of_stage).collect();
        let outputs = roots.outputs.iter().filter(|o| o.is_element).map(|o| o.value);
        let by_column = self.pass.over == Over::RowsByColumn;
        let sums = roots.sums.iter().filter(|_| by_column).map(|sum| sum.value);
        let mut last: Vec<ValueId> = outputs.chain(sums).chain(looked(LookPlace::Element)).collect();
        if !last.is_empty() {
            last.extend(roots.poisons.iter().filter_map(|poison| poison.gate));
        }
        Trips { stages, pairs, last: self.elements(last) }
    }

    /// The values that these folds over partners need; `None` without folds.
    fn pairs(&self, folds: &[FoldRoot]) -> Option<Pairs> {
        let roots: Vec<ValueId> = folds.iter().map(|fold| fold.operand).collect();
        let values = self.below(&roots, |id| self.level(id) == Level::Pair);
        let partner = |id: &ValueId| match self.values[*id].action {
            Action::Partner(number, _) => Some(number),
            _ => None,
        };
        let partners: Vec<usize> = values.iter().filter_map(partner).collect();
        let before = self.elements(partners.iter().map(|number| self.partners[*number]).collect());
        (!folds.is_empty()).then_some(Pairs { before, partners, values, roots })
    }

    /// The values further out that pairs read.
    fn read_by_pairs<'a>(&'a self, pairs: &'a Pairs) -> impl Iterator<Item = ValueId> + 'a {
        let operands = pairs.values.iter().flat_map(|id| self.values[*id].action.operands());
        operands.chain(pairs.roots.iter().copied()).filter(|id| self.level(*id) != Level::Pair)
    }

    /// Row values that steps compute, by the number of stages before them.
    fn rows_by_depth(&self, stages: usize) -> Vec<Vec<ValueId>> {
        let mut rows: Vec<Vec<ValueId>> = vec![Vec::new(); stages + 1];
        for (id, value) in self.values.iter().enumerate() {
            if value.level == Level::Row && !matches!(value.action, Action::Reduced(..)) {
                rows[value.depth].push(id);
            }
        }
        rows
    }

    /// Registers of the row values.
    fn row_registers(&self, rows: &[Vec<ValueId>], roots: &Roots, trips: &Trips, homes: &mut Homes) -> Slots {
        let mut events = self.row_events(rows, roots, trips);
        events.push(Event { reads: self.row_reads_at_the_end(roots, &trips.last), writes: Vec::new() });
        let mut slots = Slots::default();
        self.assign_registers(&events, Level::Row, &mut slots, homes);
        slots
    }

    /// Row values and stages, in turn.
    fn phases(
        &self,
        rows: &[Vec<ValueId>],
        roots: &Roots,
        trips: &Trips,
        [slots, pair_slots]: [&mut Slots; 2],
        homes: &mut Homes,
    ) -> Vec<Phase> {
        let mut phases = Vec::new();
        for (depth, ids) in rows.iter().enumerate() {
            if !ids.is_empty() {
                phases.push(Phase::Rows(ids.iter().map(|id| self.step(*id, homes)).collect()));
            }
            let Some(stage) = trips.stages.get(depth) else { continue };
            let before = trips.pairs[depth].as_ref().map(|pairs| (pairs, self.taken_code(pairs, slots, homes)));
            let mut trip = self.trip(stage, slots, homes);
            trip.pairs =
                before.map(|(pairs, taken)| self.pair_code(pairs, taken, &roots.folds[depth], pair_slots, homes));
            trip.looks = look_codes(roots, LookPlace::Stage(depth), homes);
            let reduction = |s: &Staged| Reduction {
                reduce: s.reduce,
                operand: homes[&s.operand],
                out: homes[&s.out],
                max_out: s.max_out.map(|max| homes[&max]),
            };
            trip.reductions = roots.stages[depth].iter().map(reduction).collect();
            let along = |root: &AlongRoot| AlongCode {
                along: root.along,
                number: root.number,
                operand: homes[&root.operand],
                decay: root.decay.map(|decay| homes[&decay]),
            };
            trip.along = roots.along[depth].iter().map(along).collect();
            phases.push(Phase::Stage(trip));
        }
        phases
    }

    /// The trip that takes what pairs read of partners.
    fn taken_code(&self, pairs: &Pairs, slots: &mut Slots, homes: &mut Homes) -> PairCode {
        let Trip { steps, .. } = self.trip(&pairs.before, slots, homes);
        let partners = pairs.partners.iter().map(|&number| (number, homes[&self.partners[number]])).collect();
        PairCode { partners, before: steps, ..PairCode::default() }
    }

    /// The folds over partners, once the values further out have registers.
    fn pair_code(
        &self,
        pairs: &Pairs,
        taken: PairCode,
        folds: &[FoldRoot],
        slots: &mut Slots,
        homes: &mut Homes,
    ) -> PairCode {
        let mut events: Vec<Event> = pairs.values.iter().map(|id| self.event(*id)).collect();
        events.push(Event { reads: pairs.roots.clone(), writes: Vec::new() });
        self.assign_registers(&events, Level::Pair, slots, homes);
        let steps = pairs.values.iter().map(|id| self.step(*id, homes)).collect();
        let folds = folds.iter().map(|fold| (fold.fold, fold.number, homes[&fold.operand])).collect();
        PairCode { steps, folds, ..taken }
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

    /// The roots and values below them, operands first; values for which `follow` is false are left out, and operands
    /// that only they read.
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

    fn row_events(&self, rows: &[Vec<ValueId>], roots: &Roots, trips: &Trips) -> Vec<Event> {
        let mut events = Vec::new();
        for (depth, ids) in rows.iter().enumerate() {
            events.extend(ids.iter().map(|id| self.event(*id)));
            if let Some(stage) = trips.stages.get(depth) {
                let before = trips.pairs[depth].iter().flat_map(|pairs| self.row_reads(&pairs.before));
                let reads = self.row_reads(stage).into_iter().chain(before).collect();
                let writes = roots.stages[depth].iter().flat_map(|s| [Some(s.out), s.max_out]).flatten().collect();
                events.push(Event { reads, writes });
            }
        }
        events
    }

    fn row_reads_at_the_end(&self, roots: &Roots, last: &Elements) -> Vec<ValueId> {
        let mut reads: Vec<ValueId> = self.row_reads(last);
        reads.extend(roots.sums.iter().map(|s| s.value).filter(|id| self.level(*id) == Level::Row));
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
        self.assign_registers(&events, Level::Element, slots, homes);
        let steps = elements.values.iter().map(|id| self.step(*id, homes)).collect();
        Trip { steps, ..Trip::default() }
    }

    /// Gives each value of `level` that an event writes a register, free again after its last read.
    fn assign_registers(&self, events: &[Event], level: Level, slots: &mut Slots, homes: &mut Homes) {
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

/// The looks of `place`, as code.
fn look_codes(roots: &Roots, place: LookPlace, homes: &Homes) -> Vec<LookCode> {
    let code = |look: &LookRoot| LookCode {
        poison: look.poison,
        value: homes[&look.value],
        label: look.label.map(|label| homes[&label]),
        conditions: look.conditions.map(|id| id.map(|id| homes[&id])),
    };
    roots.looks.iter().filter(|look| look.place == place).map(code).collect()
}

fn label_code(root: LabelRoot, homes: &Homes) -> LabelCode {
    let conditions = root.conditions.map(|condition| condition.map(|id| homes[&id]));
    LabelCode { label: homes[&root.label], classes: root.classes, conditions }
}

/// The results that poisons may reach, each in the order of its list in [`PassCode`].
#[derive(Default)]
struct Consumers {
    sums: Vec<Consumer>,
    stores: Vec<Consumer>,
    elements: Vec<Consumer>,
}

/// Adds the sums and stores of a pass.
fn add_results(code: &mut PassCode, roots: &Roots, homes: &Homes) -> Consumers {
    let mut consumers = Consumers::default();
    for sum in &roots.sums {
        let (src, node, fold) = (homes[&sum.value], sum.node, sum.fold);
        let of_sum = roots.lenient.iter().filter(|(sum, _)| sum.index() == node);
        let lenient = of_sum.map(|(_, root)| label_code(*root, homes)).collect();
        let consumer = Consumer::Sum(NodeId(node as u32));
        match sum.to {
            Scope::Group | Scope::Column if code.over != Over::RowsByColumn => {
                code.stores.push(Store { src, dest: Dest::GroupTerm(node), fold, lenient });
                consumers.stores.push(consumer);
            }
            Scope::Column | Scope::GroupColumn => {
                let dest = match sum.to {
                    Scope::Column => ElementDest::ColumnSum(node),
                    _ => ElementDest::GroupColumnSum(node),
                };
                code.element_stores.push(ElementStore { src, dest, fold, at_label: None, lenient });
                consumers.elements.push(consumer);
            }
            _ => {
                code.sums.push(Sum { src, fold, node, lenient });
                consumers.sums.push(consumer);
            }
        }
    }
    for root in &roots.outputs {
        let (src, output) = (homes[&root.value], root.output);
        let at_label = root.at_label.map(|(label, there)| (homes[&label], homes[&there]));
        let consumer = Consumer::Output(output);
        if root.is_element {
            let dest = ElementDest::Output(output);
            let lenient = Vec::new();
            code.element_stores.push(ElementStore { src, dest, fold: Fold::Sum, at_label, lenient });
            consumers.elements.push(consumer);
        } else {
            let (dest, lenient) = (Dest::Output(output), Vec::new());
            code.stores.push(Store { src, dest, fold: Fold::Sum, lenient });
            consumers.stores.push(consumer);
        }
    }
    consumers
}

fn poison_code(root: &PoisonRoot, consumers: &Consumers, homes: &Homes) -> PoisonCode {
    let indices = |all: &[Consumer]| (0..all.len()).filter(|&k| root.consumers.contains(&all[k])).collect();
    PoisonCode {
        row: root.row.map(|row| homes[&row]),
        gate: root.gate.and_then(|gate| homes.get(&gate).copied()),
        sums: indices(&consumers.sums),
        stores: indices(&consumers.stores),
        elements: indices(&consumers.elements),
        labels: root.labels.iter().map(|label| label_code(*label, homes)).collect(),
    }
}

/// Values that a step or a trip reads and writes.
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
        if let Some(index) = self.free.iter().rposition(|slot| self.kinds[*slot] == kind) {
            return self.free.remove(index);
        }
        self.kinds.push(kind);
        self.kinds.len() - 1
    }
}
