//! Looks: the values of an expression that are checked for NaN and for labels out of range, each with its condition.
//!
//! A branch of a selection is looked at only where it is taken, and the selection's condition wherever the selection
//! is. So each [`Look`] has a condition. It has two terms, because the row's is asked once per row and the element's
//! once per element.

use crate::expr::condition::{and, not, or, terms};
use crate::expr::op::{Kind, Op};
use crate::expr::{Classes, Extent, Graph, Node, NodeId, Reduce};
use crate::shape::Scope;
use std::collections::HashMap;

/// Kind of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LookKind {
    /// NaN in an input, in an element gathered at a label, in a sum of an earlier pass, or in a group's number of rows.
    Value,
    /// A label out of range: that of an `At`, or an `InRange`.
    Label,
    /// An `ExpSumRest`, or the threshold of a distribution, that is not defined: a row of −∞ only, or with +∞ in it.
    Softmax,
}

/// A value that is checked, and the condition under which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    /// Kind of the check.
    pub kind: LookKind,
    /// An input, an `At`, an `ExpSumRest`, a `FoldOver` or a `GroupRows`.
    pub node: NodeId,
    /// The condition of the row (or of all rows); `None` for every row.
    pub row: Option<NodeId>,
    /// The condition of the element, in addition; `None` for every element.
    pub element: Option<NodeId>,
    /// Whether a row reduction depends on the value, so that NaN in one element poisons the whole row.
    pub reduced: bool,
    /// The elements of the row that are poisoned; `None` for all.
    pub gate: Option<NodeId>,
}

impl Look {
    /// The value and its conditions.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        [Some(self.node), self.row, self.element, self.gate].into_iter().flatten()
    }

    pub(super) fn is_everywhere(&self) -> bool {
        self.row.is_none() && self.element.is_none() && self.gate.is_none()
    }

    /// Whether every NaN or label that `other` sees, this look sees too.
    pub(super) fn covers(&self, other: &Look) -> bool {
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

/// The looks of the loss, of each sum, and of each output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looks {
    /// Looks of the loss at its own row (element), then looks of the operands of its sums.
    pub loss: Vec<Look>,
    /// Number of leading entries of `loss` that poison the values of that row. A loss per row (element) leaves out the
    /// looks of its sums: a sum is read only where it is taken.
    pub of_values: usize,
    /// Sums that the loss is computed from.
    pub loss_sums: Vec<NodeId>,
    /// Looks of each sum's operand.
    pub sums: Vec<(NodeId, Vec<Look>)>,
    /// Looks of each output, in order.
    pub outputs: Vec<Vec<Look>>,
    /// Sums that rows or elements read, not only groups and outputs of one number.
    pub read: Vec<NodeId>,
    /// Sums that rows, elements or groups read, in which a row whose label is out of range counts as 0: it poisons its own row and the loss, but
    /// not the other rows, which are divided by the sum.
    pub lenient: Vec<NodeId>,
}

/// A result that a pass's looks poison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Consumer {
    /// A sum of the pass.
    Sum(NodeId),
    /// An output, by index in `Program::outputs`.
    Output(usize),
}

/// When a look is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookPlace {
    /// Once per row (per item, if the pass visits no columns or there are no rows).
    Row,
    /// At every column of that stage.
    Stage(usize),
    /// At every column of an element output, for that element only.
    Element,
}

/// A look of a pass, and when it is made.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The look; its row condition has moved to the [`Poison`].
    pub look: Look,
    /// When.
    pub place: LookPlace,
}

/// Looks of one pass that poison the same results under the same condition of the row.
#[derive(Clone, Debug, PartialEq)]
pub struct Poison {
    /// The condition of the row, asked when all stages are done.
    pub row: Option<NodeId>,
    /// The elements of the row that are poisoned; `None` for all.
    pub gate: Option<NodeId>,
    /// The results that are poisoned.
    pub consumers: Vec<Consumer>,
    /// The looks.
    pub looks: Vec<Placed>,
}

impl Poison {
    /// Looks that are made at `place`.
    pub fn at(&self, place: LookPlace) -> impl Iterator<Item = &Look> {
        self.looks.iter().filter(move |placed| placed.place == place).map(|placed| &placed.look)
    }
}

/// The condition under which a value is looked at: both terms must hold; `None` always holds.
#[derive(Clone, Copy, PartialEq)]
struct Condition {
    row: Option<NodeId>,
    element: Option<NodeId>,
    /// The elements of the row that are poisoned; `None` for all.
    gate: Option<NodeId>,
}

const EVERYWHERE: Condition = Condition { row: None, element: None, gate: None };

/// Conditions under which the values below a root are looked at.
struct Demands<'g> {
    graph: &'g Graph,
    has_rows: bool,
    /// By node: the condition of the value itself, and of the value through a row reduction.
    by: HashMap<NodeId, [Option<Condition>; 2]>,
}

/// The looks of these roots, down to sums.
pub(super) fn looks(graph: &Graph, has_rows: bool, roots: &[NodeId]) -> Vec<Look> {
    let innermost = roots.iter().map(|root| graph.scope(*root)).max().unwrap_or(Scope::Total);
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
                    // A reduction is looked at if any element of the row reads it.
                    let condition = demands.of_row(condition, reduced);
                    demands.add(x, true, condition);
                    let is_of_distribution = match reduce {
                        Reduce::Threshold(threshold) => threshold.is_of_distribution(),
                        _ => reduce == Reduce::ExpSumRest,
                    };
                    if is_of_distribution {
                        found.push(look(LookKind::Softmax, condition, true));
                    }
                }
                Node::Scan(..) | Node::ArgSort(..) | Node::Permute(..) => {
                    // As a reduction: an element that it reads may reach every column of the row.
                    let condition = demands.of_row(condition, reduced);
                    graph.node(id).operands().for_each(|operand| demands.add(operand, true, condition));
                }
                Node::FoldPartners(_, x) => {
                    // As a reduction, of the pairs that elements ask for.
                    let gate = if reduced { condition.gate } else { condition.element };
                    demands.add(x, true, Condition { gate, ..condition });
                }
                Node::Partner(x) => {
                    let turned = |id: NodeId| graph.expr(id).other_way_round().id;
                    demands.add(x, reduced, Condition { element: condition.element.map(turned), ..condition });
                }
                Node::FoldOver(..) | Node::GroupRows => {
                    found.push(demands.placed(look(LookKind::Value, condition, reduced)));
                }
                Node::At(x, label) => {
                    demands.add(label, reduced, condition);
                    // A fixed column is checked when the plan is made: `check::column_count`.
                    if !matches!(graph.node(label), Node::Int(_)) {
                        found.push(look(LookKind::Label, demands.of_row(condition, reduced), true));
                    }
                    if graph.node(x) != Node::ColIndex && graph.kind(x) == Kind::Float {
                        found.push(demands.placed(look(LookKind::Value, condition, reduced)));
                    }
                }
                Node::InRange(x, classes) => {
                    demands.add(x, reduced, condition);
                    let (node, condition) = demands.of_label(id, x, classes, condition, reduced);
                    found.push(Look { node, ..look(LookKind::Label, condition, reduced || node != id) });
                }
                Node::Input(_) if graph.kind(id) == Kind::Float => {
                    // Of the values of groups, only those count whose group has rows that read it.
                    let condition = match graph.group_has_rows(graph.scope(id), innermost) {
                        Some(has) => demands.both(condition, has.id),
                        None => condition,
                    };
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
        let condition = self.of_element(id, condition);
        let before = self.by.get(&id).and_then(|known| known[usize::from(reduced)]);
        let joined = before.map_or(condition, |before| self.either(before, condition));
        self.by.entry(id).or_default()[usize::from(reduced)] = Some(joined);
    }

    /// The condition of a value per element, where it is one of pairs: whether it holds for any partner.
    fn of_element(&self, id: NodeId, condition: Condition) -> Condition {
        let is_pair = |id: NodeId| self.graph.scope(id) == Scope::Pair;
        let Some(element) = condition.element.filter(|element| is_pair(*element) && !is_pair(id)) else {
            return condition;
        };
        let any = self.graph.expr(element).select(1.0, 0.0).sum_partners().gt(0.0);
        Condition { element: Some(any.id), ..condition }
    }

    fn is_of_element(&self, id: NodeId) -> bool {
        self.graph.scope(id).has_columns()
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
            terms(graph, joined).into_iter().fold(none, |condition, term| self.both(condition, term))
        }
    }

    /// As a condition of the row: whether the element's condition holds at any element. The elements at which it does
    /// not hold are not poisoned by values of the row.
    fn of_row(&self, condition: Condition, reduced: bool) -> Condition {
        let Some(element) = condition.element.filter(|_| self.has_rows) else { return condition };
        let any = self.graph.expr(element).select(1.0, 0.0).max().gt(0.0);
        let gate = if reduced { condition.gate } else { Some(element) };
        self.both(Condition { element: None, gate, ..condition }, any.id)
    }

    /// What is looked at for an index in range, and when. Labels of elements are looked at once per row: an index that no
    /// class has stands for any that is out of range where the element's condition holds.
    fn of_label(
        &self,
        label: NodeId,
        x: NodeId,
        classes: Classes,
        condition: Condition,
        reduced: bool,
    ) -> (NodeId, Condition) {
        if !self.has_rows {
            return (label, condition);
        }
        if !self.is_of_element(x) {
            return (label, self.of_row(condition, reduced));
        }
        let (graph, x) = (self.graph, self.graph.expr(x));
        // Below 0 or beyond the last class.
        let beyond = match classes {
            Classes::Exactly(classes) => graph.index(i64::from(classes) - 1).lt(x),
            Classes::Columns => graph.count(Extent::Cols).le(x.to_float()),
            Classes::Between => graph.count(Extent::Cols).lt(x.to_float()),
        };
        let outside = x.lt(graph.index(0)).or(beyond);
        let outside = condition.element.map_or(outside, |element| graph.expr(element).and(outside));
        let any = outside.select(1.0, 0.0).max().gt(0.0);
        let none = graph.index(i64::from(i32::MIN));
        let row = any.select(none, graph.index(0));
        let gate = if reduced { condition.gate } else { condition.element };
        (graph.add(Node::InRange(row.id, classes)).id, Condition { element: None, gate, ..condition })
    }

    /// The look itself; at a row value that a reduction depends on, once per row.
    fn placed(&self, look: Look) -> Look {
        if look.reduced && !self.is_of_element(look.node) {
            let Look { row, element, gate, .. } = look;
            let Condition { row, element, gate } = self.of_row(Condition { row, element, gate }, true);
            return Look { row, element, gate, ..look };
        }
        look
    }
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
}
