//! Expressions to the nodes that a program may hold: outputs split at the label, softmax and its relatives expanded.

use super::looks::{Look, LookKind, looks};
use super::program::{Output, OutputKind};
use crate::expr::op::Op;
use crate::expr::simplify::{simplify, softmax_minus_label};
use crate::expr::{Expr, Fold, Graph, InputDecl, Node, NodeId, Reduce};
use crate::shape::Scope;
use std::collections::HashMap;

/// Rewrites the expressions of one graph.
pub(super) struct Lowered<'g> {
    pub(super) graph: &'g Graph,
    pub(super) has_rows: bool,
    /// Whether some value is one of columns alone: see [`Graph::sums_columns`].
    pub(super) sums_columns: bool,
}

impl<'g> Lowered<'g> {
    /// The outputs, rewritten.
    pub(super) fn outputs(&self, outputs: &[(OutputKind, NodeId)], inputs: &[InputDecl]) -> Vec<Output> {
        let roots: Vec<NodeId> = outputs.iter().map(|o| o.1).collect();
        let simple = simplify(self.graph, &roots);
        let mut all = Vec::new();
        for ((kind, whole), root) in outputs.iter().zip(simple) {
            let scope = match kind {
                OutputKind::Grad(input) | OutputKind::HessianDiagonal(input) => inputs[*input].scope,
                OutputKind::Loss | OutputKind::Extra(_) => self.graph.scope(*whole),
                OutputKind::Denominator | OutputKind::FoundInf => Scope::Total,
            };
            // The gradient of a column input is summed over the rows after the pass, from one value per element, unless
            // the expression itself sums over them.
            let is_gradient = matches!(kind, OutputKind::Grad(_) | OutputKind::HessianDiagonal(_));
            let scope = match scope {
                Scope::Column if is_gradient && !self.sums_columns => Scope::Element,
                Scope::Param | Scope::Scalar | Scope::Total => Scope::Total,
                other => other,
            };
            let split = if scope == Scope::Element { self.split_label(root) } else { None };
            let (node, at_label) = match split {
                Some((rest, label, there)) => (self.expand(rest), Some((label, self.expand(there)))),
                None if scope == Scope::Element => (self.expand(softmax_minus_label(self.graph, root)), None),
                None => (self.expand(root), None),
            };
            all.push(Output { kind: kind.clone(), node, at_label, scope });
        }
        all
    }

    /// `f(col == label)` as the value at all other columns, the label, and the value there as a row value.
    fn split_label(&self, root: NodeId) -> Option<(NodeId, NodeId, NodeId)> {
        let graph = self.graph;
        let mut labels = Vec::new();
        let mut tests = Vec::new();
        // What a scan, a fold or a sort reads was compared before it ran.
        let is_whole = |node: &Node| match node {
            Node::FoldOver(_, to, _) => to.has_columns(),
            node => node.runs_along_row(),
        };
        for id in graph.reachable_until(&[root], is_whole) {
            if let Node::Op(Op::Eq, [a, b, _]) = graph.node(id) {
                let label = match (graph.node(a), graph.node(b)) {
                    (Node::ColIndex, _) if graph.scope(b) <= Scope::Row => b,
                    (_, Node::ColIndex) if graph.scope(a) <= Scope::Row => a,
                    _ => continue,
                };
                tests.push(id);
                if !labels.contains(&label) {
                    labels.push(label);
                }
            }
        }
        let [label] = labels[..] else { return None };
        let set = |truth: bool| {
            let by = graph.truth(truth).id;
            self.replace(root, &|id| tests.contains(&id).then_some(by))
        };
        let (rest, there) = (set(false), set(true));
        // A label may be computed from the row: an argmax.
        let label = self.expand(label);
        Some((rest, label, self.at_label(self.expand(there), label, label)))
    }

    /// Replaces element nodes, then simplifies. Row values stay: they do not depend on the column.
    fn replace(&self, root: NodeId, by: &dyn Fn(NodeId) -> Option<NodeId>) -> NodeId {
        // The operands of softmaxes last: `a·p − a` is known by its softmax, which another operand would hide.
        let outside = self.replaced(root, by, true);
        self.replaced(outside, by, false)
    }

    /// The same once, also within the operands of softmaxes or not (`keeps_softmax`).
    fn replaced(&self, root: NodeId, by: &dyn Fn(NodeId) -> Option<NodeId>, keeps_softmax: bool) -> NodeId {
        let graph = self.graph;
        let mut done: HashMap<NodeId, NodeId> = HashMap::new();
        for id in graph.reachable(&[root]) {
            let new = match (by(id), graph.node(id)) {
                (Some(new), _) => new,
                (None, Node::Softmax(_) | Node::SoftmaxMinusOne(_)) if keeps_softmax => id,
                // The row's sums are over the operand as it was.
                (None, Node::Softmax(x)) if done[&x] != x => {
                    (exp_below(graph.expr(done[&x]), graph.expr(x)) * inverse_sum(graph.expr(x))).id
                }
                (None, Node::SoftmaxMinusOne(x)) if done[&x] != x => {
                    let (here, whole) = (graph.expr(done[&x]), graph.expr(x));
                    (((exp_below(here, whole) - 1.0) - exp_sum_rest(whole)) * inverse_sum(whole)).id
                }
                (None, node)
                    if !graph.scope(id).has_columns()
                        || matches!(node, Node::FoldOver(..))
                        || node.runs_along_row() =>
                {
                    id
                }
                (None, node) => graph.add(node.map(|operand| done[&operand])).id,
            };
            done.insert(id, new);
        }
        simplify(graph, &[done[&root]])[0]
    }

    /// An element expression at the label's column: a row value. `column` replaces the column index.
    fn at_label(&self, root: NodeId, label: NodeId, column: NodeId) -> NodeId {
        let graph = self.graph;
        self.replace(root, &|id| match graph.node(id) {
            Node::ColIndex => Some(column),
            node if node.runs_along_row() => Some(self.left_at(id, label)),
            Node::Input(_) | Node::FoldOver(..) if graph.scope(id).has_columns() => {
                Some(graph.expr(id).at(graph.expr(label)).id)
            }
            _ => None,
        })
    }

    /// The value at the label's column of what runs along the row: the sum of what it leaves there and 0 elsewhere.
    fn left_at(&self, along: NodeId, label: NodeId) -> NodeId {
        let (graph, column) = (self.graph, self.graph.col_index());
        let is_fixed = matches!(graph.node(label), Node::Int(_));
        let here = column.equals(if is_fixed { graph.expr(label) } else { column.at(graph.expr(label)) });
        here.select(graph.expr(along), 0.0).sum().id
    }

    /// Replaces nodes that a program may not hold.
    pub(super) fn expand(&self, root: NodeId) -> NodeId {
        let graph = self.graph;
        let mut done: HashMap<NodeId, NodeId> = HashMap::new();
        for id in graph.reachable(&[root]) {
            let node = graph.node(id);
            let new = |x: NodeId| graph.expr(done[&x]);
            let expanded = match node {
                Node::Detach(x) | Node::StraightThrough(x, _) | Node::WithGradient(x, ..) => new(x),
                Node::Masked(condition, x) => new(condition).select(new(x), 0.0),
                Node::Reduce(Reduce::LogSumExpShifted, x) => exp_sum_rest(new(x)).log1p(),
                // Gathers reach down to inputs and sums.
                Node::At(x, label) if !matches!(graph.node(done[&x]), Node::Input(_) | Node::FoldOver(..)) => {
                    self.gathered(done[&x], done[&label])
                }
                Node::Softmax(x) => exp_shifted(new(x)) * inverse_sum(new(x)),
                Node::SoftmaxMinusOne(x) => minus_sum(new(x)) * inverse_sum(new(x)),
                // Outer factors first: one multiplication per element.
                Node::Op(Op::Mul, [a, b, _]) => {
                    let (outer, inner) = if graph.scope(a) <= graph.scope(b) { (a, b) } else { (b, a) };
                    match graph.node(inner) {
                        _ if graph.scope(outer) == graph.scope(inner) => new(a) * new(b),
                        Node::Softmax(x) => exp_shifted(new(x)) * (new(outer) * inverse_sum(new(x))),
                        Node::SoftmaxMinusOne(x) => minus_sum(new(x)) * (new(outer) * inverse_sum(new(x))),
                        _ => self.hoist(new(outer), new(inner)),
                    }
                }
                // Elements go to their row first.
                Node::FoldOver(fold, to @ (Scope::Group | Scope::Total), x)
                    if self.has_rows && graph.scope(x) == Scope::Element =>
                {
                    let row = if fold == Fold::Sum { new(x).sum() } else { new(x).max() };
                    graph.add(Node::FoldOver(fold, to, row.id))
                }
                other => graph.add(other.map(|operand| done[&operand])),
            };
            done.insert(id, expanded.id);
        }
        simplify(graph, &[done[&root]])[0]
    }

    /// An element expression gathered at a label. The label is checked wherever the gather is, even if the value at the
    /// label no longer reads it.
    fn gathered(&self, x: NodeId, label: NodeId) -> Expr<'g> {
        let graph = self.graph;
        // The label itself, but checked as every label is.
        let column = graph.col_index().at(graph.expr(label));
        let value = self.at_label(x, label, column.id);
        let is_check = |look: &Look| {
            let of_label = matches!(graph.node(look.node), Node::At(_, of) if of == label);
            look.kind == LookKind::Label && of_label && look.is_everywhere()
        };
        let is_fixed = matches!(graph.node(label), Node::Int(_));
        if is_fixed || looks(graph, self.has_rows, &[value]).iter().any(is_check) {
            return graph.expr(value);
        }
        column.equals(graph.expr(label)).select(graph.expr(value), 0.0)
    }

    /// outer·(middle·inner) as (outer·middle)·inner, if the middle has fewer values than the inner.
    fn hoist(&self, mut outer: Expr<'g>, mut inner: Expr<'g>) -> Expr<'g> {
        while let Node::Op(Op::Mul, [a, b, _]) = self.graph.node(inner.id) {
            let (middle, rest) = if self.graph.scope(a) <= self.graph.scope(b) { (a, b) } else { (b, a) };
            if self.graph.scope(middle) >= inner.scope() {
                break;
            }
            (outer, inner) = (outer * self.graph.expr(middle), self.graph.expr(rest));
        }
        outer * inner
    }
}

fn exp_sum_rest(x: Expr<'_>) -> Expr<'_> {
    x.graph().add(Node::Reduce(Reduce::ExpSumRest, x.id))
}

fn exp_shifted(x: Expr<'_>) -> Expr<'_> {
    exp_below(x, x)
}

/// exp(here − max row)
fn exp_below<'g>(here: Expr<'g>, row: Expr<'g>) -> Expr<'g> {
    (here - row.max()).exp()
}

fn inverse_sum(x: Expr<'_>) -> Expr<'_> {
    1.0 / (1.0 + exp_sum_rest(x))
}

/// e − S = (e − 1) − rest: exact where e = 1, that is at the maximum.
fn minus_sum(x: Expr<'_>) -> Expr<'_> {
    (exp_shifted(x) - 1.0) - exp_sum_rest(x)
}
