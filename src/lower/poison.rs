//! The results that each loaded value poisons: the one rule, for GPU and CPU.
//!
//! A result is poisoned (stored as NaN) where the *loss* depends on a NaN or on a label out of range, even if the loss
//! is not an output: a gradient is poisoned by every look of the loss of its row (of its element, without rows), and by
//! its own looks, such as the upstream gradient.

use super::looks::{Consumer, Look, LookKind, LookPlace, Looks, Placed, Poison, looks};
use super::program::{Output, OutputKind, Over, Pass, Program};
use crate::expr::condition::{and, not, or};
use crate::expr::{Graph, Node, NodeId};
use crate::shape::Scope;
use std::collections::{HashMap, HashSet};

impl Looks {
    /// The looks of the lowered expressions of a loss and its outputs.
    pub(super) fn new(graph: &Graph, has_rows: bool, loss: NodeId, outputs: &[Output]) -> Looks {
        let direct = looks(graph, has_rows, &[loss]);
        // By node: below the loss.
        let of_loss: HashSet<NodeId> = graph.reachable(&[loss]).into_iter().collect();
        let of_output = |output: &Output| output_looks(graph, has_rows, &of_loss, output);
        let output_looks: Vec<Vec<Look>> = outputs.iter().map(of_output).collect();
        let sums = sums_below(graph, has_rows, direct.iter().chain(output_looks.iter().flatten()));
        let mut all = Looks { sums, outputs: output_looks, ..Looks::default() };
        // The conditions under which the loss takes each sum. A sum comes after the sums that it reads.
        let mut taken: HashMap<NodeId, Option<NodeId>> = HashMap::new();
        note_taken(graph, has_rows, &direct, None, &mut taken);
        for (sum, own) in all.sums.iter().rev() {
            if let Some(&condition) = taken.get(sum) {
                note_taken(graph, has_rows, own, condition, &mut taken);
            }
        }
        if graph.scope(loss) > Scope::Total {
            all.loss.extend(&direct);
        }
        // A gradient of a group or column input is made last, as that of a scalar: its sums are poisoned for it.
        let is_of_rows = |scope: Scope| scope > Scope::Total && Over::of(scope) == Over::Rows;
        let inner = (0..outputs.len()).filter(|&k| is_of_rows(outputs[k].scope));
        let of_rows = |sum: NodeId| graph.node(sum).operands().any(|x| is_of_rows(graph.scope(x)));
        let readers = |all_sums: bool| {
            let sums = all.sums.iter().filter(|(sum, _)| all_sums || of_rows(*sum));
            let outputs = inner.clone().flat_map(|k| &all.outputs[k]);
            sums_among(graph, sums.flat_map(|(_, looks)| looks).chain(outputs).chain(&all.loss))
        };
        let (read, read_by_rows) = (readers(true), readers(false));
        all.read = read;
        let below_loss: HashSet<NodeId> = taken.keys().copied().collect();
        all.lenient = all.lenient_sums(graph, &below_loss);
        all.read = read_by_rows;
        // The operand of a sum counts only where the sum is taken.
        for (sum, own) in all.sums.iter().filter(|(sum, _)| below_loss.contains(sum)) {
            all.loss.extend(own.iter().map(|look| look.where_taken(graph, has_rows, taken[sum])));
            all.loss_sums.push(*sum);
        }
        all.of_values = if graph.scope(loss) > Scope::Total { direct.len() } else { all.loss.len() };
        all
    }

    /// Looks of a sum's operand.
    pub fn of_sum(&self, sum: NodeId) -> &[Look] {
        self.sums.iter().find(|(known, _)| *known == sum).map_or(&[], |(_, looks)| looks)
    }

    /// Sums that rows or elements read, and whose labels the loss looks at elsewhere too. Called while `self.loss`
    /// holds the looks of the loss without its sums.
    fn lenient_sums(&self, graph: &Graph, below_loss: &HashSet<NodeId>) -> Vec<NodeId> {
        let labels = |looks: &mut dyn Iterator<Item = &Look>| -> HashSet<Look> {
            looks.filter(|look| look.kind == LookKind::Label).copied().collect()
        };
        let mut strict = labels(&mut self.loss.iter());
        for (_, looks) in self.sums.iter().filter(|(sum, _)| below_loss.contains(sum) && !self.read.contains(sum)) {
            strict.extend(labels(&mut looks.iter()));
        }
        // An index in range has no row that could count as 0.
        let of_gathers = |sum: NodeId| {
            let labels = self.of_sum(sum).iter().filter(|look| look.kind == LookKind::Label);
            labels.into_iter().all(|look| matches!(graph.node(look.node), Node::At(..)))
        };
        let is_lenient = |sum: &&NodeId| of_gathers(**sum) && labels(&mut self.of_sum(**sum).iter()).is_subset(&strict);
        self.sums.iter().map(|(sum, _)| sum).filter(|sum| self.read.contains(sum)).filter(is_lenient).copied().collect()
    }

    /// All nodes that looks read.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        let looks = self.loss.iter().chain(self.sums.iter().flat_map(|(_, looks)| looks));
        looks.chain(self.outputs.iter().flatten()).flat_map(Look::nodes).collect()
    }

    /// The same over other nodes. Sums that have no new node are dropped: the program does not compute them.
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

impl Look {
    /// A look of a sum's operand, where the sum is taken: a condition of the whole tensor, or of the group or column (or
    /// both) that the sum goes to.
    fn where_taken(self, graph: &Graph, has_rows: bool, taken: Option<NodeId>) -> Look {
        let Some(taken) = taken else { return self };
        let with = |own: Option<NodeId>, taken: NodeId| Some(own.map_or(taken, |own| and(graph, taken, own)));
        if !graph.scope(taken).has_columns() {
            return Look { row: with(self.row, taken), ..self };
        }
        // A single element counts in its own column, a value of the row in all of them.
        match !self.reduced && graph.scope(self.node).has_columns() {
            true => Look { element: with(self.element, taken), ..self },
            false => Look { row: with(self.row, of_total(graph, has_rows, taken)), ..self },
        }
    }
}

/// A condition of single values as one of the whole tensor: whether it holds for any.
fn of_total(graph: &Graph, has_rows: bool, mut id: NodeId) -> NodeId {
    if has_rows && graph.scope(id).has_columns() {
        id = graph.expr(id).select(1.0, 0.0).max().gt(0.0).id;
    }
    if graph.scope(id) > Scope::Total {
        id = graph.expr(id).select(1.0, 0.0).sum_over(Scope::Total).gt(0.0).id;
    }
    id
}

/// Looks of one output. `of_loss` are the nodes below the loss.
fn output_looks(graph: &Graph, has_rows: bool, of_loss: &HashSet<NodeId>, output: &Output) -> Vec<Look> {
    let label = output.at_label.map(|(label, _)| label);
    // A label out of range has no column at which the label's value is stored.
    let is_stored = |look: &Look| {
        let at = match graph.node(look.node) {
            Node::At(_, label) if look.kind == LookKind::Label => Some(label),
            _ => None,
        };
        at.is_none() || at != label
    };
    let mut all = looks(graph, has_rows, &[output.node]);
    if let Some((label, there)) = output.at_label {
        // The value of all other columns is not stored at the label's.
        let elsewhere = not(graph, graph.col_index().equals(graph.expr(label)).id);
        for look in all.iter_mut().filter(|look| !look.reduced && graph.scope(look.node).has_columns()) {
            look.element = Some(look.element.map_or(elsewhere, |element| and(graph, element, elsewhere)));
        }
        all.extend(looks(graph, has_rows, &[there]));
    }
    all.retain(is_stored);
    // The label has lost the condition under which it was compared with the column. Nodes below the loss are looked at
    // under the loss's condition; the others everywhere.
    let of_label = label.map_or_else(Vec::new, |label| looks(graph, has_rows, &[label]));
    all.extend(of_label.into_iter().filter(|look| !of_loss.contains(&look.node)));
    all
}

/// The sums that these looks read, directly or through other sums, in order; each with the looks of its operand.
fn sums_below<'l>(graph: &Graph, has_rows: bool, readers: impl Iterator<Item = &'l Look>) -> Vec<(NodeId, Vec<Look>)> {
    let mut sums: Vec<(NodeId, Vec<Look>)> = Vec::new();
    let mut open: Vec<NodeId> = sums_among(graph, readers);
    while let Some(sum) = open.pop() {
        if sums.iter().any(|(known, _)| *known == sum) {
            continue;
        }
        let own = looks(graph, has_rows, &graph.node(sum).operands().collect::<Vec<_>>());
        open.extend(sums_among(graph, own.iter()));
        sums.push((sum, own));
    }
    sums.sort_by_key(|(sum, _)| *sum);
    sums
}

/// Notes the condition under which each sum among these looks is read, as a condition of the whole tensor (of a group
/// or column, if the sum goes there and the condition is one of these); `None` for always. The looks themselves count under
/// `condition`.
fn note_taken(
    graph: &Graph,
    has_rows: bool,
    looks: &[Look],
    condition: Option<NodeId>,
    taken: &mut HashMap<NodeId, Option<NodeId>>,
) {
    for look in looks {
        let Node::FoldOver(_, to, _) = graph.node(look.node) else { continue };
        let reaching = |id: NodeId| if graph.scope(id).join(to) == to { id } else { of_total(graph, has_rows, id) };
        let own = [look.row, look.element].into_iter().flatten().reduce(|a, b| and(graph, a, b)).map(reaching);
        let whole = match (condition.map(reaching), own) {
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

/// The sums that these looks read.
fn sums_among<'l>(graph: &Graph, looks: impl Iterator<Item = &'l Look>) -> Vec<NodeId> {
    let nodes = looks.flat_map(Look::nodes).collect::<Vec<_>>();
    let is_sum = |id: &NodeId| matches!(graph.node(*id), Node::FoldOver(..));
    // Conditions count too: they may read sums that no look is of.
    nodes.into_iter().filter(is_sum).collect()
}

impl Program {
    /// The looks of a pass with these sums and outputs, each with the results that it poisons.
    pub(super) fn looks_of(&self, totals: &[NodeId], outputs: &[usize]) -> Vec<(Look, Vec<Consumer>)> {
        let mut found: Vec<(Look, Consumer)> = Vec::new();
        for &sum in totals {
            let own = self.looks.of_sum(sum).iter().copied();
            found.extend(own.map(|look| (look, Consumer::Sum(sum))));
            let items = self.summed_over(sum);
            // A sum that gradients alone read is poisoned as gradients are: by the looks of the loss.
            let is_made_last = !self.looks.loss_sums.contains(&sum) && !self.looks.read.contains(&sum);
            if is_made_last && self.is_of_gradient(sum) {
                let implied = self.implied(self.looks.of_sum(sum));
                let seen = |look: &Look| !implied.contains(look) && self.is_seen(items, look);
                let loss = self.looks.loss.iter().copied().filter(seen);
                found.extend(loss.map(|look| (look, Consumer::Sum(sum))));
            }
        }
        for &output in outputs {
            let (consumer, own) = (Consumer::Output(output), &self.looks.outputs[output]);
            // The loss's own looks are among `looks.loss`, added below.
            if self.outputs[output].kind != OutputKind::Loss {
                found.extend(own.iter().map(|look| (*look, consumer)));
            }
            let count = if self.is_gradient(output) { self.looks.loss.len() } else { self.looks.of_values };
            let implied = self.implied(own);
            let items = Over::of(self.outputs[output].scope);
            let seen = |look: &Look| !implied.contains(look) && self.is_seen(items, look);
            let loss = self.looks.loss[..count].iter().copied().filter(seen);
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

    /// A pass with some of another's sums and outputs. Stages stay the same, so that both passes' states have one form.
    pub(crate) fn part_of(&self, pass: &Pass, totals: &[NodeId], outputs: Vec<usize>) -> Pass {
        let is_there = |consumer: &Consumer| match consumer {
            Consumer::Sum(sum) => totals.contains(sum),
            Consumer::Output(output) => outputs.contains(output),
        };
        let kept = |poison: &Poison| {
            let is_used = poison.consumers.iter().any(is_there);
            let is_kept = |placed: &&Placed| is_used || matches!(placed.place, LookPlace::Stage(_));
            let looks: Vec<Placed> = poison.looks.iter().filter(is_kept).cloned().collect();
            (!looks.is_empty()).then(|| Poison { looks, ..poison.clone() })
        };
        Pass {
            over: pass.over,
            stages: pass.stages.clone(),
            totals: totals.to_vec(),
            outputs: outputs.clone(),
            columns: pass.columns,
            poison: pass.poison.iter().filter_map(kept).collect(),
            lenient: pass.lenient.iter().filter(|(sum, _)| totals.contains(sum)).copied().collect(),
            ..Pass::default()
        }
    }

    /// Whether a pass over these items can make a look: one over groups or columns sees no rows.
    fn is_seen(&self, items: Over, look: &Look) -> bool {
        look.nodes().into_iter().all(|id| items.sees(self.scope(id)))
    }

    /// Whether an output is poisoned by all looks of the loss, its sums over other rows included.
    fn is_gradient(&self, output: usize) -> bool {
        self.outputs[output].kind.is_gradient()
    }

    /// Whether a gradient is computed from this sum.
    fn is_of_gradient(&self, sum: NodeId) -> bool {
        let mut gradients = (0..self.outputs.len()).filter(|&output| self.is_gradient(output));
        gradients.any(|output| self.below(&self.outputs[output].roots(), |_| false).contains(&sum))
    }

    /// Looks that need not be made again: they have poisoned sums that `reads` look at everywhere.
    fn implied(&self, reads: &[Look]) -> HashSet<Look> {
        let is_sum = |look: &&Look| look.is_everywhere() && matches!(self.node(look.node), Node::FoldOver(..));
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
