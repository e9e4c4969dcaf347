//! Which loaded values poison which results: the one rule, for GPU and CPU.
//!
//! A result is poisoned (stored as NaN) where the *loss* depends on a NaN or on a label out of range, whichever passes
//! run: a gradient by itself is poisoned by all that the loss of its row (of its element, where there are no rows)
//! looks at. Gradients are also poisoned by what they alone look at, the upstream gradient above all.

use super::looks::{Consumer, Look, LookKind, LookPlace, Looks, Placed, Poison, looks};
use super::program::{Output, OutputKind, Pass, Program};
use crate::expr::condition::{and, or};
use crate::expr::{Graph, Node, NodeId};
use crate::shape::Scope;
use std::collections::{HashMap, HashSet};

impl Looks {
    /// The looks of these expressions, which are lowered already.
    pub(super) fn new(graph: &Graph, has_rows: bool, loss: NodeId, outputs: &[Output]) -> Looks {
        let of = |roots: &[NodeId]| looks(graph, has_rows, roots);
        let direct = of(&[loss]);
        // A label that is no class has no column at which the label's value is stored.
        let is_stored = |look: &Look, output: &Output| {
            let at = match graph.node(look.node) {
                Node::At(_, label) if look.kind == LookKind::Label => Some(label),
                _ => None,
            };
            at.is_none() || at != output.at_label.map(|(label, _)| label)
        };
        // The label at which another value is stored has lost the condition under which it was compared. What it is
        // computed from the loss looks at, where it does; the rest is looked at everywhere.
        let of_loss: HashSet<NodeId> = graph.reachable(&[loss]).into_iter().collect();
        let of_output = |output: &Output| {
            let label = output.at_label.map(|(label, _)| label);
            let values: Vec<NodeId> = output.roots().into_iter().filter(|root| Some(*root) != label).collect();
            let mut looks: Vec<Look> = of(&values).into_iter().filter(|look| is_stored(look, output)).collect();
            let of_label = label.map_or_else(Vec::new, |label| of(&[label]));
            looks.extend(of_label.into_iter().filter(|look| !of_loss.contains(&look.node)));
            looks
        };
        let output_looks: Vec<Vec<Look>> = outputs.iter().map(of_output).collect();
        // Sums below the loss and the outputs, each with its own.
        let mut sums: Vec<(NodeId, Vec<Look>)> = Vec::new();
        let mut open: Vec<NodeId> = sums_among(graph, direct.iter().chain(output_looks.iter().flatten()));
        while let Some(sum) = open.pop() {
            if sums.iter().any(|(known, _)| *known == sum) {
                continue;
            }
            let own = of(&graph.node(sum).operands().collect::<Vec<_>>());
            open.extend(sums_among(graph, own.iter()));
            sums.push((sum, own));
        }
        sums.sort_by_key(|(sum, _)| *sum);
        let mut all = Looks { sums, outputs: output_looks, ..Looks::default() };
        // Where the loss takes each sum, those first that others are made of.
        let mut taken: HashMap<NodeId, Option<NodeId>> = HashMap::new();
        note_taken(graph, has_rows, &direct, None, &mut taken);
        for (sum, own) in all.sums.iter().rev() {
            if let Some(&condition) = taken.get(sum) {
                note_taken(graph, has_rows, own, condition, &mut taken);
            }
        }
        let below_loss: HashSet<NodeId> = taken.keys().copied().collect();
        if graph.scope(loss) > Scope::Total {
            all.loss.extend(&direct);
        }
        let inner = (0..outputs.len()).filter(|&k| outputs[k].scope > Scope::Total);
        let readers = all.sums.iter().flat_map(|(_, looks)| looks).chain(inner.flat_map(|k| &all.outputs[k]));
        all.read = sums_among(graph, readers.chain(&all.loss));
        all.lenient = all.lenient_sums(&below_loss);
        for (sum, own) in all.sums.iter().filter(|(sum, _)| below_loss.contains(sum)) {
            // What a sum that nobody takes is made of is not looked at.
            let row = |look: &Look| match (taken[sum], look.row) {
                (Some(taken), Some(row)) => Some(and(graph, taken, row)),
                (taken, row) => taken.or(row),
            };
            all.loss.extend(own.iter().map(|look| Look { row: row(look), ..*look }));
            all.loss_sums.push(*sum);
        }
        all.of_values = if graph.scope(loss) > Scope::Total { direct.len() } else { all.loss.len() };
        all
    }

    /// Looks of a sum's operand.
    pub fn of_sum(&self, sum: NodeId) -> &[Look] {
        self.sums.iter().find(|(known, _)| *known == sum).map_or(&[], |(_, looks)| looks)
    }

    /// Sums that are read at rows or elements, and whose labels the loss looks at elsewhere as well.
    /// `self.loss` has what the loss looks at besides its sums, so far.
    fn lenient_sums(&self, below_loss: &HashSet<NodeId>) -> Vec<NodeId> {
        let labels = |looks: &mut dyn Iterator<Item = &Look>| -> HashSet<Look> {
            looks.filter(|look| look.kind == LookKind::Label).copied().collect()
        };
        let mut strict = labels(&mut self.loss.iter());
        for (_, looks) in self.sums.iter().filter(|(sum, _)| below_loss.contains(sum) && !self.read.contains(sum)) {
            strict.extend(labels(&mut looks.iter()));
        }
        let is_lenient = |sum: &&NodeId| labels(&mut self.of_sum(**sum).iter()).is_subset(&strict);
        self.sums.iter().map(|(sum, _)| sum).filter(|sum| self.read.contains(sum)).filter(is_lenient).copied().collect()
    }

    /// Everything that these looks read.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        let looks = self.loss.iter().chain(self.sums.iter().flat_map(|(_, looks)| looks));
        looks.chain(self.outputs.iter().flatten()).flat_map(Look::nodes).collect()
    }

    /// The same over other nodes. Sums of the loss that the program does not make are dropped.
    pub(super) fn map(self, new: &HashMap<NodeId, NodeId>) -> Looks {
        let all = |looks: Vec<Look>| looks.into_iter().map(|look| look.map(|id| new[&id])).collect::<Vec<_>>();
        let known = |sums: Vec<NodeId>| sums.iter().filter_map(|sum| new.get(sum)).copied().collect();
        let sums = self.sums.into_iter().filter_map(|(sum, looks)| Some((*new.get(&sum)?, all(looks))));
        Looks {
            sums: sums.collect(),
            loss: all(self.loss),
            of_values: self.of_values,
            loss_sums: known(self.loss_sums),
            outputs: self.outputs.into_iter().map(all).collect(),
            read: known(self.read),
            lenient: known(self.lenient),
        }
    }
}

/// Notes under which conditions these looks take sums, of what is itself taken under `condition`: conditions of the
/// whole tensor, `None` where a sum is always taken.
fn note_taken(
    graph: &Graph,
    has_rows: bool,
    looks: &[Look],
    condition: Option<NodeId>,
    taken: &mut HashMap<NodeId, Option<NodeId>>,
) {
    let of_total = |mut id: NodeId| {
        if has_rows && matches!(graph.scope(id), Scope::Element | Scope::Column) {
            id = graph.expr(id).select(1.0, 0.0).max().gt(0.0).id;
        }
        if graph.scope(id) > Scope::Total {
            id = graph.expr(id).select(1.0, 0.0).sum_over(Scope::Total).gt(0.0).id;
        }
        id
    };
    for look in looks.iter().filter(|look| matches!(graph.node(look.node), Node::SumOver(..))) {
        let own = [look.row, look.element].into_iter().flatten().reduce(|a, b| and(graph, a, b)).map(of_total);
        let whole = match (condition, own) {
            (Some(a), Some(b)) => Some(and(graph, a, b)),
            (a, b) => a.or(b),
        };
        let joined = match taken.get(&look.node) {
            Some(before) => before.zip(whole).and_then(|(a, b)| or(graph, a, b)),
            None => whole,
        };
        taken.insert(look.node, joined);
    }
}

/// The sums that are among what is looked at.
fn sums_among<'l>(graph: &Graph, looks: impl Iterator<Item = &'l Look>) -> Vec<NodeId> {
    let nodes = looks.flat_map(Look::nodes).collect::<Vec<_>>();
    let is_sum = |id: &NodeId| matches!(graph.node(*id), Node::SumOver(..));
    // Conditions may hold sums that no look names: their operands are looked at, so all are named.
    nodes.into_iter().filter(is_sum).collect()
}

impl Program {
    /// What a pass with these sums and outputs looks at, and what that poisons.
    pub(super) fn looks_of(&self, totals: &[NodeId], outputs: &[usize]) -> Vec<(Look, Vec<Consumer>)> {
        let mut found: Vec<(Look, Consumer)> = Vec::new();
        for &sum in totals {
            let own = self.looks.of_sum(sum).iter().copied();
            found.extend(own.map(|look| (look, Consumer::Sum(sum))));
            // A sum that is a gradient is poisoned by what the loss looks at, as any gradient is.
            let is_made_last = !self.looks.loss_sums.contains(&sum) && !self.looks.read.contains(&sum);
            if is_made_last && self.is_of_gradient(sum) {
                let implied = self.implied(self.looks.of_sum(sum));
                let loss = self.looks.loss.iter().copied().filter(|look| !implied.contains(look));
                found.extend(loss.map(|look| (look, Consumer::Sum(sum))));
            }
        }
        for &output in outputs {
            let (consumer, own) = (Consumer::Output(output), &self.looks.outputs[output]);
            // The loss's own are among what the loss looks at.
            if self.outputs[output].kind != OutputKind::Loss {
                found.extend(own.iter().map(|look| (*look, consumer)));
            }
            let count = if self.is_gradient(output) { self.looks.loss.len() } else { self.looks.of_values };
            let implied = self.implied(own);
            let loss = self.looks.loss[..count].iter().copied().filter(|look| !implied.contains(look));
            found.extend(loss.map(|look| (look, consumer)));
        }
        let lenient = |look: &Look, consumer: &Consumer| {
            look.kind == LookKind::Label && matches!(consumer, Consumer::Sum(sum) if self.looks.lenient.contains(sum))
        };
        found.retain(|(look, consumer)| !lenient(look, consumer));
        let all = found.clone();
        let is_covered =
            |(look, consumer): &(Look, Consumer)| all.iter().any(|(other, to)| to == consumer && other.covers(look));
        found.retain(|one| !is_covered(one));
        let mut merged: Vec<(Look, Vec<Consumer>)> = Vec::new();
        for (look, consumer) in found {
            match merged.iter_mut().find(|(known, _)| *known == look) {
                Some((_, consumers)) if consumers.contains(&consumer) => {}
                Some((_, consumers)) => consumers.push(consumer),
                None => merged.push((look, vec![consumer])),
            }
        }
        merged.iter_mut().for_each(|(_, consumers)| consumers.sort_unstable());
        merged
    }

    /// A pass with some of another's sums and outputs, and the same stages: their states fit each other.
    pub(crate) fn part_of(&self, pass: &Pass, totals: &[NodeId], outputs: Vec<usize>) -> Pass {
        let is_there = |consumer: &Consumer| match consumer {
            Consumer::Sum(sum) => totals.contains(sum),
            Consumer::Output(output) => outputs.contains(output),
        };
        let part = |poison: &Poison| {
            let is_used = poison.consumers.iter().any(is_there);
            let is_kept = |placed: &&Placed| is_used || matches!(placed.place, LookPlace::Stage(_));
            let looks: Vec<Placed> = poison.looks.iter().filter(is_kept).cloned().collect();
            (!looks.is_empty()).then(|| Poison { looks, ..poison.clone() })
        };
        Pass {
            stages: pass.stages.clone(),
            totals: totals.to_vec(),
            outputs: outputs.clone(),
            columns: pass.columns,
            poison: pass.poison.iter().filter_map(part).collect(),
            lenient: pass.lenient.iter().filter(|(sum, _)| totals.contains(sum)).copied().collect(),
        }
    }

    /// Whether an output is poisoned by all that the loss is made of, in other rows as well.
    fn is_gradient(&self, output: usize) -> bool {
        matches!(self.outputs[output].kind, OutputKind::Grad(_) | OutputKind::HessianDiagonal(_))
    }

    /// Whether a gradient is made of a sum.
    fn is_of_gradient(&self, sum: NodeId) -> bool {
        let mut gradients = (0..self.outputs.len()).filter(|&output| self.is_gradient(output));
        gradients.any(|output| self.below(&self.outputs[output].roots(), |_| false).contains(&sum))
    }

    /// Looks that a value has made already, if it reads sums that were poisoned by them.
    fn implied(&self, reads: &[Look]) -> HashSet<Look> {
        let is_sum = |look: &&Look| look.is_everywhere() && matches!(self.node(look.node), Node::SumOver(..));
        let mut open: Vec<NodeId> = reads.iter().filter(is_sum).map(|look| look.node).collect();
        let (mut seen, mut implied) = (HashSet::new(), HashSet::new());
        while let Some(sum) = open.pop() {
            if !seen.insert(sum) {
                continue;
            }
            let lenient = self.looks.lenient.contains(&sum);
            let own = self.looks.of_sum(sum);
            open.extend(own.iter().filter(is_sum).map(|look| look.node));
            implied.extend(own.iter().filter(|look| !lenient || look.kind != LookKind::Label).copied());
        }
        implied
    }
}
