//! Reverse mode on the expression graph, one arm for each operation.
//!
//! Derivatives of operations are in `derivative.rs`. The branch that a selection or a mask does not take gets gradient 0 by selection, never by multiplication: below it each adjoint carries the conditions under which
//! it counts (`Taken`). Where contributions with different conditions are added, each is first set to 0 elsewhere.

mod rows;

use crate::expr::condition::{may_be_nan, not};
use crate::expr::derivative::vjp;
use crate::expr::op::{Kind, Op};
use crate::expr::{Expr, Extent, Fold, Graph, Node, NodeId};
use crate::shape::Scope;
use std::collections::HashMap;

/// Gradients of `root`, weighted by `upstream` (one value per value of `root`), with respect to each of `inputs`.
///
/// `None` where `root` does not depend on the input. The gradient of an input is summed to its scope; that of a column
/// input has one value per element, still to be summed over the rows, unless `root` itself sums over rows for each column.
pub fn gradients<'g>(root: Expr<'g>, upstream: Expr<'g>, inputs: &[NodeId]) -> Vec<Option<Expr<'g>>> {
    let graph = root.graph();
    let reverse = Reverse { graph, active: dependents(root, inputs), sums_columns: graph.sums_columns(&[root.id]) };
    let found = reverse.run(root, upstream);
    inputs.iter().map(|id| found.get(id).copied()).collect()
}

/// By node: whether it is below `root` and depends on one of the inputs through nodes that carry a gradient.
pub(super) fn dependents(root: Expr<'_>, inputs: &[NodeId]) -> Vec<bool> {
    let graph = root.graph();
    let mut active = vec![false; graph.len()];
    for id in graph.reachable(&[root.id]) {
        let on = |x: NodeId| active[x.index()];
        active[id.index()] = inputs.contains(&id)
            || match graph.node(id) {
                Node::Detach(_) | Node::FoldOver(Fold::Max, ..) | Node::FoldPartners(Fold::Max, _) => false,
                Node::StraightThrough(_, gradient_of) => on(gradient_of),
                Node::WithGradient(value, wrt, _) => {
                    on(wrt) || matches!(graph.node(value), Node::WithGradient(..)) && on(value)
                }
                Node::Masked(_, x) => on(x),
                _ if graph.kind(id) != Kind::Float => false,
                node => node.operands().any(on),
            };
    }
    active
}

/// The places where an adjoint counts.
#[derive(Clone, Debug, Default, PartialEq)]
struct Taken {
    /// The adjoint counts where all of these hold, each asked only where those before it hold. Elsewhere it has no
    /// meaning, and may be NaN.
    conditions: Vec<NodeId>,
    /// Whether it counts only where it is not 0: it is exactly 0 where no branch was taken.
    not_zero: bool,
    /// The condition, among these, that the column is the label of a gather: it holds for one column of each row, as a
    /// label out of range poisons its row.
    gathered: Option<NodeId>,
}

impl Taken {
    /// Only where `condition` holds, too. A condition that may be NaN is asked only where the adjoint is not 0.
    fn under(&self, condition: NodeId, adjoint: Expr<'_>) -> Taken {
        let mut taken = self.clone();
        if self.not_zero && self.conditions.is_empty() && may_be_nan(adjoint.graph(), condition) {
            taken.conditions.push(not(adjoint.graph(), adjoint.equals(0.0).id));
        }
        if !taken.conditions.contains(&condition) {
            taken.conditions.push(condition);
        }
        taken
    }

    /// Of an adjoint that was set to 0 where its conditions do not hold.
    fn zeroed() -> Taken {
        Taken { not_zero: true, ..Taken::default() }
    }

    /// As `under`, where the condition is that the column is the label of a gather.
    fn at_label(&self, here: NodeId, adjoint: Expr<'_>) -> Taken {
        Taken { gathered: Some(here), ..self.under(here, adjoint) }
    }
}

struct Reverse<'g> {
    graph: &'g Graph,
    active: Vec<bool>,
    /// Whether adjoints of column values have one value per column. If not, they have one per element, still to be summed
    /// over the rows.
    sums_columns: bool,
}

/// Terms of an adjoint, each with the places where it counts.
type Contributions<'g> = Vec<(Expr<'g>, Taken)>;

/// Contributions to the adjoints of nodes that are still to be visited.
type Open<'g> = HashMap<NodeId, Contributions<'g>>;

impl<'g> Reverse<'g> {
    /// Gradients of the inputs below `root`, whose adjoint is `upstream`.
    fn run(&self, root: Expr<'g>, upstream: Expr<'g>) -> HashMap<NodeId, Expr<'g>> {
        let graph = self.graph;
        let mut open: Open<'g> = HashMap::from([(root.id, vec![(upstream, Taken::default())])]);
        let mut found = HashMap::new();
        for id in graph.reachable(&[root.id]).into_iter().rev() {
            if !self.active[id.index()] {
                continue;
            }
            let Some(contributions) = open.remove(&id) else { continue };
            let (adjoint, taken) = self.meet(contributions);
            if let Node::Input(_) = graph.node(id) {
                found.insert(id, self.zero_unless(adjoint, &taken.conditions));
                continue;
            }
            Visit { reverse: self, out: graph.expr(id), adjoint, taken, open: &mut open }.propagate();
        }
        found
    }

    /// The sum of contributions, and where it counts: under the first conditions that all share. The others are
    /// applied.
    fn meet(&self, mut terms: Contributions<'g>) -> (Expr<'g>, Taken) {
        // Both branches of a selection meet again: one selection between them.
        while let Some((a, b)) = self.branches(&terms) {
            let (no, of_no) = terms.remove(b);
            let (yes, taken) = &mut terms[a];
            let condition = taken.conditions.pop().expect("branches have conditions");
            *yes = self.graph.expr(condition).select(*yes, no);
            taken.not_zero |= of_no.not_zero;
        }
        let mut shared = terms[0].1.conditions.clone();
        for (_, taken) in &terms[1..] {
            let common = shared.iter().zip(&taken.conditions).take_while(|(a, b)| a == b).count();
            shared.truncate(common);
        }
        let rest = |(term, taken): &(Expr<'g>, Taken)| self.zero_unless(*term, &taken.conditions[shared.len()..]);
        let sum = terms.iter().map(rest).reduce(|a, b| a + b).expect("a value with an adjoint has a contribution");
        let counts = |(_, taken): &(Expr<'g>, Taken)| !taken.not_zero && taken.conditions.len() == shared.len();
        let not_zero = !terms.iter().any(counts);
        let gathered = terms[0].1.gathered.filter(|here| shared.contains(here));
        (sum, Taken { conditions: shared, not_zero, gathered })
    }

    /// Indices of two contributions whose conditions are equal but for the last, which one negates.
    fn branches(&self, terms: &Contributions<'g>) -> Option<(usize, usize)> {
        let is_other =
            |a: usize, b: usize| match (terms[a].1.conditions.split_last(), terms[b].1.conditions.split_last()) {
                (Some((yes, before)), Some((no, other))) => before == other && *no == not(self.graph, *yes),
                _ => false,
            };
        (0..terms.len()).find_map(|a| (a + 1..terms.len()).find(|b| is_other(a, *b)).map(|b| (a, b)))
    }

    /// A value that is exactly 0 unless all of these hold.
    fn zero_unless(&self, value: Expr<'g>, conditions: &[NodeId]) -> Expr<'g> {
        conditions.iter().rev().fold(value, |value, condition| self.graph.expr(*condition).select(value, 0.0))
    }

    /// The scope whose values an adjoint of this scope has: of a column (and group) those of elements, where nothing is
    /// summed by column.
    fn multiplicity(&self, scope: Scope) -> Scope {
        match scope {
            Scope::Column | Scope::GroupColumn if !self.sums_columns => Scope::Element,
            _ => scope,
        }
    }

    /// Whether all conditions choose among values of that scope: see [`reaches`].
    fn reach(&self, taken: &Taken, scope: Scope) -> bool {
        let scope = self.multiplicity(scope);
        taken.conditions.iter().all(|id| reaches(self.graph.expr(*id), scope))
    }

    /// Sums a contribution, one value per value of scope `from`, to the scope `to` of its operand.
    fn sum_to(&self, to: Scope, contribution: Expr<'g>, from: Scope) -> Expr<'g> {
        let graph = self.graph;
        let (to, from) = (self.multiplicity(to), self.multiplicity(from));
        if to == from || to == Scope::Param {
            return contribution;
        }
        if from == Scope::Pair {
            let element = match contribution.scope() {
                Scope::Pair => contribution.sum_partners(),
                _ => contribution * graph.count(Extent::Cols),
            };
            return self.sum_to(to, element, Scope::Element);
        }
        if from == Scope::GroupColumn {
            return self.sum_group_columns(to, contribution);
        }
        if to == Scope::GroupColumn {
            return self.sum_to_group_columns(contribution);
        }
        if to == Scope::Column {
            return self.sum_to_columns(contribution);
        }
        if to >= from {
            return contribution;
        }
        if from == Scope::Column {
            return match contribution.scope() {
                Scope::Column => contribution.sum_over(Scope::Total),
                _ => contribution * graph.count(Extent::Cols),
            };
        }
        // One value per column (and group) is one per element here.
        let is_by_column = matches!(contribution.scope(), Scope::Column | Scope::GroupColumn);
        let inner = if is_by_column { Scope::Element } else { contribution.scope() };
        let count = |extent: Extent| graph.count(extent);
        // Elements to their row first, unless everything goes into one total.
        match (to, from) {
            (Scope::Row, _) => match inner {
                Scope::Element => contribution.sum(),
                _ => contribution * count(Extent::Cols),
            },
            (Scope::Group, Scope::Element) => {
                let rows = self.sum_to(Scope::Row, contribution, Scope::Element);
                self.sum_to(Scope::Group, rows, Scope::Row)
            }
            (Scope::Group, _) => match inner {
                Scope::Row => contribution.sum_over(Scope::Group),
                _ => contribution * count(Extent::GroupRows),
            },
            (_, Scope::Element) => match inner {
                // Counted in every row, not once per column.
                Scope::Element if is_by_column => contribution.sum().sum_over(Scope::Total),
                Scope::Element => contribution.sum_over(Scope::Total),
                Scope::Row | Scope::Group => {
                    let rows = contribution * count(Extent::Cols);
                    self.sum_to(to, rows, Scope::Row)
                }
                _ => contribution * count(Extent::Elements),
            },
            (_, Scope::Row) => match inner {
                Scope::Row => contribution.sum_over(Scope::Total),
                Scope::Group => (contribution * count(Extent::GroupRows)).sum_over(Scope::Total),
                _ => contribution * count(Extent::Rows),
            },
            (_, Scope::Group) => match inner {
                Scope::Group => contribution.sum_over(Scope::Total),
                _ => contribution * count(Extent::Groups),
            },
            _ => contribution,
        }
    }
}

impl<'g> Reverse<'g> {
    /// Sums a contribution, one value per element, over the rows.
    fn sum_to_columns(&self, contribution: Expr<'g>) -> Expr<'g> {
        let count = |extent: Extent| self.graph.count(extent);
        match contribution.scope() {
            Scope::Element => contribution.sum_over(Scope::Column),
            Scope::GroupColumn => (contribution * count(Extent::GroupRows)).sum_over(Scope::Column),
            Scope::Row => contribution.sum_over(Scope::Total),
            Scope::Group => (contribution * count(Extent::GroupRows)).sum_over(Scope::Total),
            _ => contribution * count(Extent::Rows),
        }
    }

    /// Sums a contribution, one value per element, over the rows of each group.
    fn sum_to_group_columns(&self, contribution: Expr<'g>) -> Expr<'g> {
        match contribution.scope() {
            Scope::Element => contribution.sum_over(Scope::GroupColumn),
            Scope::Row => contribution.sum_over(Scope::Group),
            _ => contribution * self.graph.count(Extent::GroupRows),
        }
    }

    /// Sums a contribution, one value per group and column, to a scope further out.
    fn sum_group_columns(&self, to: Scope, contribution: Expr<'g>) -> Expr<'g> {
        let times = |extent: Extent| contribution * self.graph.count(extent);
        match (to, contribution.scope()) {
            (_, Scope::GroupColumn) => contribution.sum_over(to.max(Scope::Total)),
            (Scope::Column, Scope::Group) | (Scope::Group, Scope::Column) => contribution.sum_over(Scope::Total),
            (Scope::Column, _) => times(Extent::Groups),
            (Scope::Group, _) => times(Extent::Cols),
            (_, Scope::Column) => times(Extent::Groups).sum_over(Scope::Total),
            (_, Scope::Group) => times(Extent::Cols).sum_over(Scope::Total),
            _ => times(Extent::Cols) * self.graph.count(Extent::Groups),
        }
    }
}

/// A node whose adjoint is complete, on its way to the operands.
struct Visit<'r, 'g> {
    reverse: &'r Reverse<'g>,
    out: Expr<'g>,
    adjoint: Expr<'g>,
    taken: Taken,
    open: &'r mut Open<'g>,
}

impl<'g> Visit<'_, 'g> {
    /// Adds a contribution to the adjoint of each operand.
    fn propagate(mut self) {
        let (graph, out, adjoint, taken) = (self.reverse.graph, self.out, self.adjoint, self.taken.clone());
        match graph.node(out.id) {
            Node::Op(Op::Select, [condition, yes, no]) => {
                for (operand, condition) in [(yes, condition), (no, not(graph, condition))] {
                    self.give(operand, adjoint, out.scope(), taken.under(condition, adjoint));
                }
            }
            Node::Masked(condition, x) => self.give(x, adjoint, out.scope(), taken.under(condition, adjoint)),
            Node::Op(op, operands) => self.op(op, operands),
            Node::Reduce(reduce, x) => self.reduce(reduce, x),
            Node::FoldOver(Fold::Sum, _, x) => self.give(x, adjoint, graph.scope(x), taken),
            Node::FoldOver(Fold::Max, ..) => {}
            Node::Scan(scan, direction, operands) => self.scan(scan, direction, operands),
            Node::Partner(x) => self.partner(x),
            Node::FoldPartners(Fold::Sum, x) => self.give(x, adjoint, Scope::Pair, taken),
            Node::FoldPartners(Fold::Max, _) | Node::ArgSort(..) => {}
            // What is read at one column is added there; an order has each column once.
            Node::Permute(way, [x, order]) => {
                let (adjoint, taken) = self.along_row();
                let back = graph.add(Node::Permute(way.opposite(), [adjoint.id, order]));
                self.give(x, back, Scope::Element, taken);
            }
            Node::At(x, label) => {
                let here = graph.col_index().equals(graph.expr(label));
                self.give(x, adjoint, Scope::Element, taken.at_label(here.id, adjoint));
            }
            Node::Softmax(x) | Node::SoftmaxMinusOne(x) => self.softmax(x),
            Node::StraightThrough(_, gradient_of) => self.give(gradient_of, adjoint, graph.scope(gradient_of), taken),
            Node::WithGradient(value, wrt, gradient) => {
                let contribution = nothing_of_zero(adjoint * graph.expr(gradient), adjoint, &taken);
                self.give(wrt, contribution, out.scope(), taken.clone());
                if let Node::WithGradient(..) = graph.node(value) {
                    self.give(value, adjoint, out.scope(), taken);
                }
            }
            Node::Const(_) | Node::Int(_) | Node::Bool(_) | Node::Param(_) | Node::Input(_) => {}
            Node::ColIndex | Node::RowIndex | Node::Count(_) | Node::GroupRows => {}
            Node::Detach(_) | Node::InRange(..) => {}
        }
    }

    /// Adds a contribution, one value per value of scope `from`, summed to the operand's scope.
    fn give(&mut self, operand: NodeId, contribution: Expr<'g>, from: Scope, taken: Taken) {
        let to = self.reverse.graph.scope(operand);
        let (taken, from) = self.of_one_column(contribution, taken, [to, from]);
        // Before it is summed with others, it is set to 0 where it does not count.
        let (contribution, taken) = self.within(contribution, taken, to);
        let contribution = self.reverse.sum_to(to, contribution, from);
        let taken = match self.reverse.graph.group_has_rows(to, from) {
            Some(condition) => taken.under(condition.id, contribution),
            None => taken,
        };
        if self.reverse.active[operand.index()] {
            self.open.entry(operand).or_default().push((contribution, taken));
        }
    }

    /// An adjoint of one column per row, on its way to the row or further out, is its own sum over the row.
    fn of_one_column(&self, adjoint: Expr<'g>, taken: Taken, [to, from]: [Scope; 2]) -> (Taken, Scope) {
        let Some(here) = taken.gathered.filter(|_| to <= Scope::Row && from == Scope::Element) else {
            return (taken, from);
        };
        let others: Vec<NodeId> = taken.conditions.iter().copied().filter(|condition| *condition != here).collect();
        let of_row = Taken { conditions: others, gathered: None, ..taken.clone() };
        if adjoint.scope() <= Scope::Row && self.reverse.reach(&of_row, Scope::Row) {
            (of_row, Scope::Row)
        } else {
            (taken, from)
        }
    }

    /// An adjoint whose conditions choose among values of `scope`: set to 0 where they do not hold, if they do not.
    fn within(&self, adjoint: Expr<'g>, taken: Taken, scope: Scope) -> (Expr<'g>, Taken) {
        if self.reverse.reach(&taken, scope) {
            (adjoint, taken)
        } else {
            (self.reverse.zero_unless(adjoint, &taken.conditions), Taken::zeroed())
        }
    }

    /// A contribution of an operation that itself chooses where the adjoint goes, and gives 0 elsewhere.
    fn chosen(&self, contribution: Expr<'g>) -> (Expr<'g>, Taken) {
        let taken = Taken { not_zero: true, ..self.taken.clone() };
        (nothing_of_zero(contribution, self.adjoint, &self.taken), taken)
    }

    fn op(&mut self, op: Op, operands: [NodeId; 3]) {
        for (index, operand) in operands.iter().enumerate().take(op.arity()) {
            if !self.reverse.active[operand.index()] {
                continue;
            }
            let Some(contribution) = vjp(op, index, &operands, self.out, self.adjoint) else { continue };
            let (contribution, taken) = match op {
                Op::Relu | Op::Maximum | Op::Minimum => self.chosen(contribution),
                _ if self.has_constant_derivative(op, index, &operands) => (contribution, self.taken.clone()),
                // The derivative may be infinite or NaN where the adjoint is 0.
                _ => (nothing_of_zero(contribution, self.adjoint, &self.taken), self.taken.clone()),
            };
            self.give(*operand, contribution, self.out.scope(), taken);
        }
    }

    /// Whether the derivative with respect to operand `index` depends on no value but parameters, or gives 0 where the
    /// adjoint is 0.
    fn has_constant_derivative(&self, op: Op, index: usize, operands: &[NodeId; 3]) -> bool {
        let is_param = |id: NodeId| self.reverse.graph.scope(id) <= Scope::Param;
        match op {
            Op::Neg | Op::Add | Op::Sub => true,
            // 0 where the adjoint is 0, by itself.
            Op::Times => true,
            Op::Mul => is_param(operands[1 - index]),
            Op::Div => is_param(operands[1]),
            _ => false,
        }
    }
}

/// A multiple of an adjoint, set to exactly 0 where the adjoint is 0: the factor may be infinite there.
fn nothing_of_zero<'g>(multiple: Expr<'g>, adjoint: Expr<'g>, taken: &Taken) -> Expr<'g> {
    if !taken.not_zero {
        return multiple;
    }
    let multiple = adjoint.equals(0.0).select(0.0, multiple);
    multiple.graph().mark_multiple(multiple.id);
    multiple
}

/// Whether a condition chooses among values of that scope. If not, the values are sums, and it applies to their terms.
fn reaches(mask: Expr<'_>, scope: Scope) -> bool {
    // Scalars and totals have one value each.
    let scope = scope.max(Scope::Total);
    mask.scope().join(scope) == scope
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(g: &Graph) -> Expr<'_> {
        g.input("x", Scope::Element, Kind::Float)
    }

    #[test]
    fn cross_entropy_gradient_is_softmax_minus_one_hot() {
        let g = Graph::new();
        let x = element(&g);
        let y = g.input("y", Scope::Row, Kind::Int);
        let loss = x.logsumexp_shifted() - (x.at(y) - x.max().detach());
        let grad = gradients(loss, g.constant(1.0), &[x.id])[0].unwrap();
        assert_eq!(g.print(grad.id), "(select(eq(col, y), -1, 0) + 1 * softmax(x))");
    }

    #[test]
    fn row_value_used_by_elements_is_summed_back() {
        let g = Graph::new();
        let x = element(&g);
        let s = g.input("s", Scope::Row, Kind::Float);
        let grads = gradients((x * s).sum(), g.constant(1.0), &[x.id, s.id]);
        assert_eq!(g.print(grads[0].unwrap().id), "1 * s");
        assert_eq!(g.print(grads[1].unwrap().id), "row_sum(1 * x)");
    }

    #[test]
    fn adjoint_of_a_broadcast_counts_the_columns() {
        let g = Graph::new();
        let x = element(&g);
        let s = g.input("s", Scope::Row, Kind::Float);
        let grads = gradients((x + s).sum(), g.constant(1.0), &[s.id]);
        assert_eq!(g.print(grads[0].unwrap().id), "1 * cols");
    }

    #[test]
    fn detached_and_masked_paths() {
        let g = Graph::new();
        let x = element(&g);
        let y = g.input("y", Scope::Row, Kind::Int);
        assert!(gradients(x.detach() * 2.0, g.constant(1.0), &[x.id])[0].is_none());
        let valid = !y.equals(g.index(-100));
        let masked = x.sum().masked(valid);
        let grad = gradients(masked, g.constant(1.0), &[x.id])[0].unwrap();
        assert_eq!(g.print(grad.id), "select(not(eq(y, -100)), 1, 0)");
    }

    #[test]
    fn derivative_of_tanh_keeps_its_digits_far_out() {
        let loss = crate::Loss::define("tanh").input("x", Scope::Element).expr(|b| b.input("x").tanh());
        let x = [0.0f32, 1.5, -18.0, 40.0];
        let inputs = [("x", crate::HostTensor::f32(&x, &[4]))];
        let out = crate::cpu::forward_backward(&loss.reduction(crate::Reduction::Sum), &inputs, &["x"]).unwrap();
        for (got, x) in out.grad("x").unwrap().iter().zip(x) {
            let want = f64::from(x).cosh().powi(-2);
            assert!((got / want - 1.0).abs() < 1e-14, "{x}: {got}, want {want}");
        }
    }

    #[test]
    fn a_mask_further_in_is_summed_with_what_it_keeps() {
        let g = Graph::new();
        let x = g.input("x", Scope::Element, Kind::Float);
        let w = g.input("w", Scope::Row, Kind::Float);
        let s = g.input("s", Scope::Scalar, Kind::Float);
        let keep = x.lt(0.0);
        for value in [(w * s).masked(keep), (x - w * s).masked(keep)] {
            let grads = gradients(value, g.constant(1.0), &[w.id, s.id]);
            let scopes: Vec<Scope> = grads.iter().flatten().map(|grad| grad.scope()).collect();
            assert_eq!(scopes, [Scope::Row, Scope::Total], "{:?}", grads);
        }
    }
}
