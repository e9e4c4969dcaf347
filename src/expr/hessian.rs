//! The diagonal of the Hessian: forward mode along single elements, over a gradient from reverse mode.

use super::autodiff::{dependents, gradients};
use super::derivative::vjp;
use super::op::Op;
use super::{Expr, Node, NodeId, Reduce};
use crate::shape::Scope;
use std::collections::HashMap;

/// ∂gⱼ/∂xⱼ per element `j`, of the gradient `g` with respect to the element input `x`: the diagonal of the Hessian, row
/// reductions and totals included.
pub fn diagonal<'g>(g: Expr<'g>, input: NodeId) -> Option<Expr<'g>> {
    let graph = g.graph();
    let active = dependents(g, &[input]);
    let mut tangent: HashMap<NodeId, Expr<'g>> = HashMap::new();
    for id in graph.reachable(&[g.id]) {
        if !active[id.index()] {
            continue;
        }
        let out = graph.expr(id);
        let found = if id == input {
            Some(graph.constant(1.0))
        } else if !out.scope().has_columns() {
            gradients(out, graph.constant(1.0), &[input])[0]
        } else {
            element_tangent(out, &tangent, input)
        };
        if let Some(found) = found {
            tangent.insert(id, found);
        }
    }
    tangent.get(&g.id).copied()
}

/// The derivative of an element value along its own element of the input.
fn element_tangent<'g>(out: Expr<'g>, tangent: &HashMap<NodeId, Expr<'g>>, input: NodeId) -> Option<Expr<'g>> {
    let graph = out.graph();
    let sum = |a: Option<Expr<'g>>, b: Option<Expr<'g>>| match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    };
    match graph.node(out.id) {
        Node::Op(Op::Select, [condition, yes, no]) => {
            let of = |operand: NodeId| tangent.get(&operand).copied();
            let zero = graph.constant(0.0);
            if let (true, Node::Op(Op::Eq, [adjoint, ..])) = (graph.is_multiple(out.id), graph.node(condition)) {
                // Where the adjoint passes through 0, its multiple has a slope there too. Where it stays 0, the branch
                // was not taken.
                let stays = of(adjoint).map_or(graph.truth(true), |slope| slope.equals(0.0));
                return of(no).map(|slope| graph.expr(condition).and(stays).select(zero, slope));
            }
            let (yes, no) = (of(yes), of(no));
            (yes.or(no).is_some()).then(|| graph.expr(condition).select(yes.unwrap_or(zero), no.unwrap_or(zero)))
        }
        // Both modes multiply by the same partial derivative: `vjp` of the tangent is the tangent's contribution.
        Node::Op(op, operands) => {
            let mut total = None;
            for (index, operand) in operands.iter().enumerate().take(op.arity()) {
                if let Some(&t) = tangent.get(operand) {
                    total = sum(total, vjp(op, index, &operands, out, t));
                }
            }
            total
        }
        Node::Softmax(x) | Node::SoftmaxMinusOne(x) => {
            let t = *tangent.get(&x)?;
            let p = graph.expr(x).softmax();
            if through_rows(graph.expr(x), input) {
                let lse = gradients(graph.expr(x).logsumexp(), graph.constant(1.0), &[input])[0];
                Some(p * (t - lse?))
            } else {
                Some(-(t * p * graph.add(Node::SoftmaxMinusOne(x))))
            }
        }
        Node::Masked(condition, x) => {
            let t = *tangent.get(&x)?;
            Some(graph.expr(condition).select(t, 0.0))
        }
        Node::StraightThrough(_, gradient_of) => tangent.get(&gradient_of).copied(),
        Node::WithGradient(value, wrt, gradient) => {
            let outer = tangent.get(&wrt).map(|t| *t * graph.expr(gradient));
            let is_nested = matches!(graph.node(value), Node::WithGradient(..));
            sum(outer, tangent.get(&value).copied().filter(|_| is_nested))
        }
        _ => None,
    }
}

/// Whether a gradient depends on the input through a sum over the rows for each column, or through a value of a row that
/// depends on a sum over rows (of a group on one over everything): along one element then those of other rows change too, which
/// [`diagonal`] does not follow.
pub fn is_coupled(g: Expr<'_>, input: NodeId) -> bool {
    let graph = g.graph();
    let active = dependents(g, &[input]);
    let all: Vec<NodeId> = graph.reachable(&[g.id]).into_iter().filter(|id| active[id.index()]).collect();
    let folded_to = |id: &NodeId| match graph.node(*id) {
        Node::FoldOver(_, to, _) => Some(to),
        _ => None,
    };
    let below = |id: NodeId| graph.reachable(&[id]).into_iter().filter(move |other| *other != id);
    all.iter().any(|&id| match graph.scope(id) {
        _ if matches!(folded_to(&id), Some(Scope::Column | Scope::GroupColumn)) => true,
        Scope::Row => below(id).any(|id| active[id.index()] && folded_to(&id).is_some()),
        Scope::Group => below(id).any(|id| active[id.index()] && folded_to(&id) == Some(Scope::Total)),
        _ => false,
    })
}

/// Whether a gradient depends on the input through a scan, pairs, a sort or a threshold of the row, which [`diagonal`] does not
/// follow.
pub fn runs_along_row(g: Expr<'_>, input: NodeId) -> bool {
    let graph = g.graph();
    let active = dependents(g, &[input]);
    let is_it = |node: Node| node.runs_along_row() || matches!(node, Node::Reduce(Reduce::Threshold(_), _));
    graph.reachable(&[g.id]).iter().any(|id| is_it(graph.node(*id)) && active[id.index()])
}

/// Whether an element value depends on other elements of the input too, through a reduction.
fn through_rows(x: Expr<'_>, input: NodeId) -> bool {
    let graph = x.graph();
    let active = dependents(x, &[input]);
    graph.reachable(&[x.id]).into_iter().any(|id| active[id.index()] && graph.scope(id) != Scope::Element)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::Graph;
    use crate::expr::op::Kind;
    use crate::{HostTensor, Loss, Reduction, Wanted, cpu};

    #[test]
    fn hessian_diagonal_of_cross_entropy_is_p_times_one_minus_p() {
        let g = Graph::new();
        let x = g.input("x", Scope::Element, Kind::Float);
        let y = g.input("y", Scope::Row, Kind::Int);
        let loss = x.logsumexp_shifted() - (x.at(y) - x.max().detach());
        let grad = gradients(loss, g.constant(1.0), &[x.id])[0].unwrap();
        let diag = diagonal(grad, x.id).unwrap();
        assert!(g.print(diag.id).contains("softmax_minus_one(x)"), "{diag:?}");
    }

    #[test]
    fn a_curvature_through_sums_that_rows_share_is_refused() {
        let of =
            |loss: Loss| cpu::hessian_diagonal(&loss, &[("x", HostTensor::f32(&[1.0, 2.0, 3.0, 4.0], &[2, 2]))], "x");
        let loss = |build: for<'g> fn(Expr<'g>) -> Expr<'g>| {
            let loss = Loss::define("mine").input("x", Scope::Element).row_axis(crate::RowAxis::Last);
            loss.expr(move |b| build(b.input("x").powi(2).sum_over(Scope::Column)).sum_over(Scope::Total))
        };
        assert_eq!(of(loss(|sum| 3.0 * sum)), Ok(vec![6.0; 4]));
        assert!(matches!(of(loss(|sum| sum * sum)), Err(crate::Error::Unsupported { .. })));
        // A power of a row's sum times that of all rows.
        let shared = Loss::define("mine").input("x", Scope::Element).row_axis(crate::RowAxis::Last).expr(|b| {
            let row = b.input("x").powi(2).sum();
            (row * row.sum_over(Scope::Total)).powi(2)
        });
        assert!(matches!(of(shared), Err(crate::Error::Unsupported { .. })));
    }

    #[test]
    fn a_curvature_does_not_vanish_where_its_gradient_does() {
        let numbers = HostTensor::f32(&[1.0, 2.0, -1.0, 0.5], &[4]);
        // (relu(relu(x)) - 1)²: curved where x > 0, at the minimum x = 1 too.
        let of = |loss: Loss| {
            let wanted = Wanted { loss: true, hessian_diagonals: vec!["x".to_owned()], ..Wanted::default() };
            let out = cpu::run::<f64>(&loss.reduction(Reduction::Sum), &[("x", numbers.clone())], &wanted).unwrap();
            out.hessian_diagonal("x").unwrap().to_vec()
        };
        let element = |build: for<'g> fn(Expr<'g>) -> Expr<'g>| {
            of(Loss::define("mine").input("x", Scope::Element).expr(move |b| build(b.input("x"))))
        };
        assert_eq!(element(|x| (x.relu().relu() - 1.0) * (x.relu().relu() - 1.0)), [2.0, 2.0, 0.0, 2.0]);
        assert_eq!(element(|x| (x.maximum(-5.0).minimum(5.0) - 2.0).pow(2.0)), [2.0; 4]);
        // Not taken, it has none, whatever the derivative would be there.
        assert_eq!(element(|x| x.relu().maximum(1.0).log().relu())[2..], [0.0, 0.0]);
    }
}
