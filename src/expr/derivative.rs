//! The partial derivative of each operation. Where a function has a kink, the subgradient is stated at its arm.

use crate::expr::op::Op;
use crate::expr::{Expr, Node, NodeId};
use crate::shape::Scope;

/// The adjoint of operand `index`: `adjoint` times the partial derivative.
pub(super) fn vjp<'g>(
    op: Op,
    index: usize,
    operands: &[NodeId; 3],
    out: Expr<'g>,
    adjoint: Expr<'g>,
) -> Option<Expr<'g>> {
    let graph = out.graph();
    let operand = |k: usize| graph.expr(operands[k]);
    let a = operand(0);
    Some(match op {
        Op::Neg => -adjoint,
        // sign(0) = 0: the subgradient of |a| at 0 is 0.
        Op::Abs => adjoint * a.sign(),
        Op::Exp => adjoint * out,
        Op::Expm1 => adjoint * a.exp(),
        Op::Log => adjoint / a,
        Op::Log1p => adjoint / (1.0 + a),
        Op::Sqrt => adjoint * 0.5 / out,
        // 1 − tanh² cancels where tanh is near ±1: 4e/(1 + e)² with e = exp(−2|a|) does not.
        Op::Tanh => {
            let e = (-2.0 * a.abs()).exp();
            adjoint * (4.0 * e / ((1.0 + e) * (1.0 + e)))
        }
        Op::Sigmoid => adjoint * (out * (-a).sigmoid()),
        Op::LogSigmoid => adjoint * (-a).sigmoid(),
        Op::Softplus => adjoint * a.sigmoid(),
        Op::LogCosh => adjoint * a.tanh(),
        Op::Erf => adjoint * (std::f64::consts::FRAC_2_SQRT_PI * (-(a * a)).exp()),
        Op::Atan => adjoint / (1.0 + a * a),
        Op::Lgamma => adjoint * a.digamma(),
        Op::Digamma => adjoint * trigamma(a),
        // 0 at the kink.
        Op::Relu => a.gt(0.0).select(adjoint, 0.0),
        Op::Add => adjoint,
        Op::Sub if index == 0 => adjoint,
        Op::Sub => -adjoint,
        Op::Mul => adjoint * operand(1 - index),
        Op::Times if is_fixed(adjoint) => adjoint * operand(1 - index),
        Op::Times => adjoint.times(operand(1 - index)),
        Op::Div if index == 0 => adjoint / operand(1),
        Op::Div => -(adjoint * out / operand(1)),
        // The derivative of x⁰ is 0, at x = 0 too, where x⁻¹ is infinite.
        Op::Pow if index == 0 => {
            let y = operand(1);
            adjoint * (y * a.pow(y.equals(0.0).select(0.0, y - 1.0)))
        }
        // Where x is 1, ln x is 0, however large the adjoint is.
        Op::Pow => out.xlogy(a).times(adjoint),
        // One half each at a tie.
        Op::Maximum | Op::Minimum => {
            let (this, that) = (operand(index), operand(1 - index));
            let (below, above) = if op == Op::Maximum { (this, that) } else { (that, this) };
            let tie_or_win = this.equals(that).select(adjoint * 0.5, adjoint);
            below.lt(above).select(0.0, tie_or_win)
        }
        Op::Xlogy if index == 0 => adjoint * operand(1).log(),
        Op::Xlogy => adjoint * (a / operand(1)),
        // Steps, flat between.
        Op::Sign | Op::Floor => return None,
        Op::Not | Op::ToFloat | Op::Lt | Op::Le | Op::Eq | Op::And | Op::Or | Op::Select => return None,
    })
}

/// Whether a value is made of literals and counts alone: it is not 0 now and then, and needs no selection.
pub(super) fn is_fixed(x: Expr<'_>) -> bool {
    let graph = x.graph();
    x.scope() <= Scope::Param && !graph.reachable(&[x.id]).iter().any(|id| matches!(graph.node(*id), Node::Param(_)))
}

/// The derivative of `digamma`: `ψ′(a) = 1/a² + ψ′(a + 1)`, from the asymptotic series at `a + 8`, of which the first term
/// left out is 5e-13. Only second derivatives have it, so it is no operation of its own.
fn trigamma<'g>(a: Expr<'g>) -> Expr<'g> {
    let inverse_square = |x: Expr<'g>| 1.0 / (x * x);
    let below = (1..8).fold(inverse_square(a), |sum, k| sum + inverse_square(a + f64::from(k)));
    let y = 1.0 / (a + 8.0);
    let w = y * y;
    let series = [-1.0 / 30.0, 1.0 / 42.0, -1.0 / 30.0, 1.0 / 6.0];
    let above = series.into_iter().fold(a.graph().constant(5.0 / 66.0), |sum, c| sum * w + c);
    a.lt(0.0).select(f64::NAN, below + (y + w * (0.5 + y * above)))
}
