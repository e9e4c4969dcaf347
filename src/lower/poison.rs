//! Which loaded values poison which results: the one rule, for GPU and CPU.
//!
//! A result is poisoned (stored as NaN) where the *loss* depends on a NaN or on a label out of range, whichever passes
//! run: a gradient by itself is poisoned by all that the loss of its row (of its element, where there are no rows)
//! looks at. Gradients are also poisoned by what they alone look at, the upstream gradient above all.
//!
//! What is not taken is not looked at: below a selection, each branch is looked at where it is taken, and its condition
//! wherever the selection is. So each [`Look`] has a condition. It is kept in two parts, because that of the row is
//! asked once a row and that of the element at every element.

use super::program::{Output, Pass, Program, Target};
use crate::expr::{Graph, Node, NodeId, Reduce, Scope};
use crate::op::{Kind, Op};
use std::collections::{HashMap, HashSet};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LookKind {
    /// NaN in an input, in what a label chooses of one, or in a sum of an earlier pass.
    Value,
    /// Whether the label of an `At` is a class.
    Label,
    /// Whether an `ExpSumRest` is defined: not of nothing but −∞, and not with +∞.
    Softmax,
}

/// A value that is looked at, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// What is looked for.
    pub kind: LookKind,
    /// An input, an `At`, an `ExpSumRest` or a `SumOver`.
    pub node: NodeId,
    /// The condition of the row (or of all rows): everywhere, if there is none.
    pub row: Option<NodeId>,
    /// The condition of the element, besides.
    pub element: Option<NodeId>,
    /// Whether a row reduction depends on it: then it counts for the whole row.
    pub reduced: bool,
    /// The elements of the row for which it counts, if not for all.
    pub gate: Option<NodeId>,
}

impl Look {
    /// The nodes that it reads.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        [Some(self.node), self.row, self.element, self.gate].into_iter().flatten()
    }

    fn is_everywhere(&self) -> bool {
        self.row.is_none() && self.element.is_none() && self.gate.is_none()
    }

    /// Whether this look sees all that the other does.
    fn covers(&self, other: &Look) -> bool {
        let holds_too = |mine: Option<NodeId>, others: Option<NodeId>| mine.is_none() || mine == others;
        self != other
            && (self.kind, self.node) == (other.kind, other.node)
            && (self.reduced || !other.reduced)
            && holds_too(self.row, other.row)
            && holds_too(self.element, other.element)
            && (self.gate.is_none() || self.gate == other.gate || self.gate == other.element)
    }

    pub(super) fn map(self, f: impl Fn(NodeId) -> NodeId) -> Look {
        let [row, element, gate] = [self.row, self.element, self.gate].map(|id| id.map(&f));
        Look { node: f(self.node), row, element, gate, ..self }
    }
}

/// What is looked at by the loss, by each sum, and by each output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looks {
    /// Looks of the loss at a row (an element).
    pub loss: Vec<Look>,
    /// Sums that the loss is made of.
    pub loss_sums: Vec<NodeId>,
    /// Looks of each sum's operand.
    pub sums: Vec<(NodeId, Vec<Look>)>,
    /// Looks of each output, in order.
    pub outputs: Vec<Vec<Look>>,
    /// Sums that are read at rows or elements, not only by the outputs of one number.
    pub read: Vec<NodeId>,
    /// Sums among these, in which a row with a bad label counts as 0: it poisons its own row and the loss,
    /// but not the rows that are divided by the sum.
    pub lenient: Vec<NodeId>,
}

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
        let of_output = |output: &Output| {
            let looks = of(&output.roots()).into_iter();
            looks.filter(|look| is_stored(look, output)).collect()
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

/// What a pass's looks poison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Consumer {
    /// A sum of the pass.
    Sum(NodeId),
    /// An output, by place in [`Program::outputs`].
    Output(usize),
}

/// When a look is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookPlace {
    /// Once a row (once an item, where the pass visits no columns or there are no rows).
    Row,
    /// At every column of that stage.
    Stage(usize),
    /// At every column for which an output is written, and for that one alone.
    Element,
}

/// A look of a pass, of those that go together.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// What is looked at; its row's condition is that of the [`Poison`].
    pub look: Look,
    /// When.
    pub place: LookPlace,
}

/// Looks of one pass that poison the same results under the same condition of the row.
#[derive(Clone, Debug, PartialEq)]
pub struct Poison {
    /// The condition of the row, asked when all stages are done.
    pub row: Option<NodeId>,
    /// The elements of the row that are poisoned, if not all.
    pub gate: Option<NodeId>,
    /// What is poisoned.
    pub consumers: Vec<Consumer>,
    /// The looks.
    pub looks: Vec<Placed>,
}

impl Poison {
    /// Looks that are made there.
    pub fn at(&self, place: LookPlace) -> impl Iterator<Item = &Look> {
        self.looks.iter().filter(move |placed| placed.place == place).map(|placed| &placed.look)
    }
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
            if self.is_gradient(output) {
                found.extend(own.iter().map(|look| (*look, consumer)));
            }
            let implied = self.implied(own);
            let loss = self.looks.loss.iter().copied().filter(|look| !implied.contains(look));
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

    /// Whether an output is poisoned by what it looks at besides the loss.
    fn is_gradient(&self, output: usize) -> bool {
        matches!(self.outputs[output].target, Target::Grad(_) | Target::HessianDiagonal(_))
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

/// Where something is looked at: both parts must hold, and one that is not there always does.
#[derive(Clone, Copy, PartialEq)]
struct Condition {
    row: Option<NodeId>,
    element: Option<NodeId>,
    /// The elements of an output that ask for a value of the row.
    gate: Option<NodeId>,
}

const EVERYWHERE: Condition = Condition { row: None, element: None, gate: None };

/// Conditions under which the values below a root are looked at.
struct Demands<'g> {
    graph: &'g Graph,
    has_rows: bool,
    /// By node: as itself, and through a row reduction.
    by: HashMap<NodeId, [Option<Condition>; 2]>,
}

/// What these roots look at. Sums are not looked into.
fn looks(graph: &Graph, has_rows: bool, roots: &[NodeId]) -> Vec<Look> {
    let mut demands = Demands { graph, has_rows, by: HashMap::new() };
    for &root in roots {
        demands.add(root, false, EVERYWHERE);
    }
    let mut found = Vec::new();
    for id in graph.reachable(roots).into_iter().rev() {
        let Some(&[direct, reduced]) = demands.by.get(&id) else { continue };
        for (condition, reduced) in [(direct, false), (reduced, true)] {
            let Some(condition) = condition else { continue };
            let look = |kind: LookKind, condition: Condition, reduced: bool| {
                let Condition { row, element, gate } = condition;
                Look { kind, node: id, row, element, reduced, gate }
            };
            match graph.node(id) {
                Node::Op(Op::Select, [c, yes, no]) => {
                    demands.add(c, reduced, condition);
                    demands.add(yes, reduced, demands.both(condition, c));
                    demands.add(no, reduced, demands.both(condition, not(graph, c)));
                }
                Node::Reduce(reduce, x) => {
                    // Whether any element of the row asks for it.
                    let condition = demands.of_row(condition, reduced);
                    demands.add(x, true, condition);
                    if reduce == Reduce::ExpSumRest {
                        found.push(look(LookKind::Softmax, condition, true));
                    }
                }
                Node::SumOver(..) => found.push(demands.placed(look(LookKind::Value, condition, reduced))),
                Node::At(x, label) => {
                    demands.add(label, reduced, condition);
                    found.push(look(LookKind::Label, demands.of_row(condition, reduced), true));
                    if graph.node(x) != Node::ColIndex && graph.kind(x) == Kind::Float {
                        found.push(demands.placed(look(LookKind::Value, condition, reduced)));
                    }
                }
                Node::Input(_) if graph.kind(id) == Kind::Float => {
                    found.push(demands.placed(look(LookKind::Value, condition, reduced)));
                }
                node => node.operands().for_each(|operand| demands.add(operand, reduced, condition)),
            }
        }
    }
    let mut distinct: Vec<Look> = Vec::new();
    for look in found {
        if !distinct.contains(&look) {
            distinct.push(look);
        }
    }
    distinct
}

impl Demands<'_> {
    fn add(&mut self, id: NodeId, reduced: bool, condition: Condition) {
        let before = self.by.get(&id).and_then(|known| known[usize::from(reduced)]);
        let joined = before.map_or(condition, |before| self.either(before, condition));
        self.by.entry(id).or_default()[usize::from(reduced)] = Some(joined);
    }

    fn is_of_element(&self, id: NodeId) -> bool {
        matches!(self.graph.scope(id), Scope::Element | Scope::Column)
    }

    fn both(&self, condition: Condition, more: NodeId) -> Condition {
        let with = |known: Option<NodeId>| Some(known.map_or(more, |known| and(self.graph, known, more)));
        match self.is_of_element(more) {
            true => Condition { element: with(condition.element), ..condition },
            false => Condition { row: with(condition.row), ..condition },
        }
    }

    fn either(&self, a: Condition, b: Condition) -> Condition {
        let graph = self.graph;
        let join = |a: Option<NodeId>, b: Option<NodeId>| or(graph, a?, b?);
        if a == b {
            a
        } else if a == EVERYWHERE || b == EVERYWHERE {
            EVERYWHERE
        } else if a.gate != b.gate {
            let gate = join(a.gate, b.gate);
            let without = |condition: Condition| Condition { gate: None, ..condition };
            Condition { gate, ..self.either(without(a), without(b)) }
        } else if a.row == b.row {
            Condition { element: join(a.element, b.element), ..a }
        } else if a.element == b.element {
            Condition { row: join(a.row, b.row), ..a }
        } else {
            let whole = |c: Condition| match (c.row, c.element) {
                (Some(row), Some(element)) => Some(and(graph, row, element)),
                (row, element) => row.or(element),
            };
            let Some(joined) = join(whole(a), whole(b)) else { return Condition { row: None, element: None, ..a } };
            let none = Condition { row: None, element: None, ..a };
            parts(graph, joined).into_iter().fold(none, |condition, part| self.both(condition, part))
        }
    }

    /// A condition of the row: whether any of its elements fulfils that of the element. Elements of an output that do
    /// not are not poisoned by what the row holds.
    fn of_row(&self, condition: Condition, reduced: bool) -> Condition {
        let Some(element) = condition.element.filter(|_| self.has_rows) else { return condition };
        let any = self.graph.expr(element).select(1.0, 0.0).max().gt(0.0);
        let gate = if reduced { condition.gate } else { Some(element) };
        self.both(Condition { element: None, gate, ..condition }, any.id)
    }

    /// A value of the row that a reduction depends on is looked at once a row.
    fn placed(&self, look: Look) -> Look {
        if look.reduced && !self.is_of_element(look.node) {
            let Look { row, element, gate, .. } = look;
            let Condition { row, element, gate } = self.of_row(Condition { row, element, gate }, true);
            return Look { row, element, gate, ..look };
        }
        look
    }
}

/// Truth negated, without a double negation.
pub(crate) fn not(graph: &Graph, condition: NodeId) -> NodeId {
    match graph.node(condition) {
        Node::Op(Op::Not, [x, ..]) => x,
        Node::Bool(value) => graph.truth(!value).id,
        _ => (!graph.expr(condition)).id,
    }
}

/// Both, each said once.
fn and(graph: &Graph, a: NodeId, b: NodeId) -> NodeId {
    let holds = |x: NodeId| graph.node(x) == Node::Bool(true);
    match (a, b) {
        _ if a == b || holds(b) || parts(graph, a).contains(&b) => a,
        _ if holds(a) => b,
        _ => graph.expr(a).and(graph.expr(b)).id,
    }
}

/// Either; `None` where one of the two always holds.
fn or(graph: &Graph, a: NodeId, b: NodeId) -> Option<NodeId> {
    if a == b {
        return Some(a);
    }
    if a == not(graph, b) {
        return None;
    }
    let (of_a, of_b) = (parts(graph, a), parts(graph, b));
    // x and c, or x and not c: x.
    let common: Vec<NodeId> = of_a.iter().copied().filter(|x| of_b.contains(x)).collect();
    let rest = |all: &[NodeId]| {
        let own = all.iter().copied().filter(|x| !common.contains(x));
        own.reduce(|a, b| and(graph, a, b))
    };
    let shared = common.iter().copied().reduce(|a, b| and(graph, a, b));
    match (shared, rest(&of_a), rest(&of_b)) {
        (Some(shared), None, _) | (Some(shared), _, None) => Some(shared),
        (Some(shared), Some(a), Some(b)) => Some(or(graph, a, b).map_or(shared, |either| and(graph, shared, either))),
        (None, ..) => Some(graph.expr(a).or(graph.expr(b)).id),
    }
}

/// What a condition is the conjunction of.
fn parts(graph: &Graph, condition: NodeId) -> Vec<NodeId> {
    let (mut parts, mut open) = (Vec::new(), vec![condition]);
    while let Some(id) = open.pop() {
        match graph.node(id) {
            Node::Op(Op::And, [a, b, _]) => open.extend([b, a]),
            _ => parts.push(id),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::Expr;

    fn printed(build: impl for<'g> Fn(&'g Graph) -> Expr<'g>) -> Vec<String> {
        let graph = Graph::new();
        let root = build(&graph).id;
        let text = |id: Option<NodeId>| id.map_or("-".to_owned(), |id| graph.print(id));
        let mut all: Vec<String> = looks(&graph, true, &[root])
            .into_iter()
            .map(|l| format!("{:?} {} where {}, {}", l.kind, graph.print(l.node), text(l.row), text(l.element)))
            .collect();
        all.sort();
        all
    }

    fn x(g: &Graph) -> Expr<'_> {
        g.input("x", Scope::Element, Kind::Float)
    }

    fn m(g: &Graph) -> Expr<'_> {
        g.input("m", Scope::Element, Kind::Float)
    }

    #[test]
    fn a_branch_is_looked_at_where_it_is_taken_and_its_condition_everywhere() {
        let found = printed(|g| m(g).gt(0.0).select(x(g), 0.0).sum());
        assert_eq!(found, ["Value m where -, -", "Value x where -, lt(0, m)"]);
        let found = printed(|g| x(g).gt(0.0).select(x(g).log(), 0.0).sum());
        assert_eq!(found, ["Value x where -, -"]);
        let found = printed(|g| m(g).gt(0.0).select(x(g).log(), x(g)).sum());
        assert_eq!(found, ["Value m where -, -", "Value x where -, -"], "one branch or the other");
    }

    #[test]
    fn a_condition_of_the_row_is_asked_once_a_row() {
        let found = printed(|g| {
            let y = g.input("y", Scope::Row, Kind::Int);
            (!y.equals(g.index(-100))).select(x(g).sum() + x(g).at(y), 0.0)
        });
        let valid = "not(eq(y, -100))";
        let want = [
            format!("Label at(x, y) where {valid}, -"),
            format!("Value at(x, y) where {valid}, -"),
            format!("Value x where {valid}, -"),
        ];
        assert_eq!(found, want);
    }

    #[test]
    fn a_reduction_is_looked_at_where_any_element_asks_for_it() {
        let found = printed(|g| m(g).gt(0.0).select(x(g) - x(g).max(), 0.0).sum());
        let any = "lt(0, row_max(select(lt(0, m), 1, 0)))";
        let want = ["Value m where -, -".to_owned(), format!("Value x where {any}, -")];
        assert_eq!(found[0], want[0]);
        assert!(found[1..].contains(&want[1]) || found.len() == 2, "{found:?}");
    }

    #[test]
    fn conditions_are_not_repeated() {
        let g = Graph::new();
        let (a, b) = (x(&g).gt(0.0).id, m(&g).gt(0.0).id);
        assert_eq!(and(&g, and(&g, a, b), b), and(&g, a, b));
        assert_eq!(or(&g, and(&g, a, b), and(&g, a, not(&g, b))), Some(a));
        assert_eq!(or(&g, a, not(&g, a)), None);
        assert_eq!(or(&g, a, and(&g, a, b)), Some(a));
        assert_eq!(not(&g, not(&g, a)), a);
    }
}
