//! The wanted outputs as expressions: the loss, its denominator, gradients, diagonals of Hessians.

use super::program::{OutputKind, Upstream, Wanted};
use crate::error::{Error, Result};
use crate::expr::autodiff;
use crate::expr::hessian;
use crate::expr::op::Kind;
use crate::expr::{Expr, Graph, InputDecl, NodeId};
use crate::loss::{Built, Loss, UPSTREAM};
use crate::shape::Scope;

/// The wanted outputs without extras.
pub(super) fn differentiated(
    graph: &Graph,
    loss: &Loss,
    wanted: &Wanted,
    built: &Built<'_>,
    inputs: &[InputDecl],
) -> Result<Vec<(OutputKind, NodeId)>> {
    let name = || loss.name();
    let root = graph.expr(built.loss.id);
    let upstream = upstream(graph, loss, wanted, root)?;
    let index_of = |input: &String| {
        let known = inputs.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
        let index = inputs.iter().position(|i| i.name == *input && i.kind == Kind::Float);
        index.ok_or_else(|| Error::Name { what: format!("{} has no gradient for", name()), name: input.clone(), known })
    };
    let node_of = |index: usize| graph.input(&inputs[index].name, inputs[index].scope, inputs[index].kind).id;
    let mut outputs: Vec<(OutputKind, NodeId)> = Vec::new();
    if wanted.loss {
        outputs.push((OutputKind::Loss, root.id));
    }
    if wanted.denominator {
        let Some(denominator) = built.denominator else {
            let message = "its reduction has no denominator".to_owned();
            return Err(Error::Expr { loss: name(), message });
        };
        outputs.push((OutputKind::Denominator, denominator.id));
    }
    let indices = wanted.grads.iter().map(index_of).collect::<Result<Vec<_>>>()?;
    let nodes: Vec<NodeId> = indices.iter().map(|index| node_of(*index)).collect();
    for (index, grad) in indices.iter().zip(autodiff::gradients(root, upstream, &nodes)) {
        outputs.push((OutputKind::Grad(*index), grad.unwrap_or_else(|| graph.constant(0.0)).id));
    }
    for input in &wanted.hessian_diagonals {
        let index = index_of(input)?;
        if inputs[index].scope != Scope::Element {
            let scope = inputs[index].scope;
            let message = format!("the Hessian diagonal is for element inputs; `{input}` has scope {scope:?}");
            return Err(Error::Expr { loss: name(), message });
        }
        let grad = autodiff::gradients(root, upstream, &[node_of(index)])[0];
        if grad.is_some_and(|grad| hessian::is_coupled(grad, node_of(index))) {
            let message = format!(
                "the Hessian diagonal of {} with respect to `{input}`: rows share sums on which their gradient depends",
                name()
            );
            return Err(Error::Unsupported { message });
        }
        if grad.is_some_and(|grad| hessian::runs_along_row(grad, node_of(index))) {
            let message = format!(
                "the Hessian diagonal of {} with respect to `{input}`: its gradient goes through a scan, pairs or a sort of the row, or \
                 a threshold of it",
                name()
            );
            return Err(Error::Unsupported { message });
        }
        let diagonal = grad.and_then(|grad| hessian::diagonal(grad, node_of(index)));
        outputs.push((OutputKind::HessianDiagonal(index), diagonal.unwrap_or_else(|| graph.constant(0.0)).id));
    }
    Ok(outputs)
}

/// The factor of the gradients.
fn upstream<'g>(graph: &'g Graph, loss: &Loss, wanted: &Wanted, root: Expr<'g>) -> Result<Expr<'g>> {
    match wanted.upstream {
        Upstream::One => Ok(graph.constant(1.0)),
        Upstream::Scalar => Ok(graph.input(UPSTREAM, Scope::Scalar, Kind::Float)),
        Upstream::PerLoss if root.scope() > Scope::Total => Ok(graph.input(UPSTREAM, root.scope(), Kind::Float)),
        Upstream::PerLoss => {
            let message = "a reduced loss takes a scalar upstream; use Upstream::Scalar or Reduction::None".to_owned();
            Err(Error::Expr { loss: loss.name(), message })
        }
    }
}
