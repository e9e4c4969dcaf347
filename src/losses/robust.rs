//! Regression: losses that grow slower than squares, so that outliers count less, and asymmetric ones.

use super::entry::{Entry, Range};
use super::of_input_and_target;
use super::options::loss_with_options;
use crate::expr::Expr;
use crate::loss::Value::Num;
use crate::loss::{Build, Domain, ParamValue};
use crate::shape::{Scope, ShapeRule};

const INF: f64 = f64::INFINITY;
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("charbonnier", || charbonnier(1e-3).into()).variants(&[&[("eps", Num(0.5))]]),
    Entry::new("welsch", || welsch(1.0).into()).variants(&[&[("c", Num(2.0))]]),
    Entry::new("cauchy", || cauchy(1.0).into()).variants(&[&[("c", Num(2.0))]]),
    Entry::new("general_robust", || general_robust(1.0, 1.0).into()).variants(&[
        &[("alpha", Num(-2.0)), ("c", Num(0.5))],
        &[("alpha", Num(0.0))],
        &[("alpha", Num(2.0))],
        &[("alpha", Num(-INF))],
    ]),
    Entry::new("expectile", || expectile(0.5).into()).variants(&[&[("tau", Num(0.9))]]),
    Entry::new("quantile_huber", || quantile_huber(1.0).into())
        .inputs(&[("tau", Range::Probability)])
        .variants(&[&[("delta", Num(0.5))]]),
];

/// Charbonnier loss: the absolute error, rounded off near zero.
///
/// `L = √(r² + ε²)`, with `r = input − target`.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: that of `input`.
/// Gradient: `r/L` with respect to `input`; smooth, 0 at `r = 0`.
/// Squares are taken in f32: residuals and `ε` should lie between 1e-19 and 1e19.
/// Errors: `Error::Param` unless `eps` is finite and > 0.
/// Source: Charbonnier et al. (1994), ICIP; as in LapSRN, arXiv:1704.03915. BasicSR adds `eps` under the root, not
/// squared; kornia's `charbonnier_loss` is this with `ε = 1`, less 1; [`general_robust`] at `α = 1` is that too.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[3.0, -1.0], &[2]), HostTensor::f32(&[0.0, -1.0], &[2]));
/// let out = cpu::forward_backward(&losses::charbonnier(4.0), &[("input", x), ("target", t)], &["input"])?;
/// assert_eq!(out.loss()?, 4.5);
/// assert!((out.grad("input")?[0] - 0.3).abs() < 1e-12 && out.grad("input")?[1] == 0.0);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn charbonnier(eps: impl Into<ParamValue>) -> Charbonnier {
    let loss = of_input_and_target("charbonnier").param("eps", 1e-3, Domain::Positive).expr(|b| {
        let (r, eps) = (residual(b), b.param("eps"));
        (r * r + eps * eps).sqrt()
    });
    Charbonnier(loss).eps(eps)
}

loss_with_options! {
    /// The loss that [`charbonnier`] makes.
    Charbonnier {
        /// `ε`, the residual near which the loss bends; finite and > 0, else `Error::Param`. No default:
        /// [`charbonnier`]'s argument.
        number eps;
    }
}

fn residual<'g>(b: &Build<'g>) -> Expr<'g> {
    b.input("input") - b.input("target")
}

/// Welsch (Leclerc) loss: bounded, so that far outliers do not count at all.
///
/// `L = 1 − exp(−(r/c)²/2)`, with `r = input − target`.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: none.
/// Gradient: `r/c²·exp(−(r/c)²/2)` with respect to `input`.
/// Errors: `Error::Param` unless `c` is finite and > 0.
/// Source: Dennis and Welsch (1978), Comm. Statist. 7(4). Same as kornia's `welsch_loss` (`c = 1`), and as
/// [`general_robust`] at `α = −∞`; statistics texts multiply by `c²`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[2.0, 100.0], &[2]), HostTensor::f32(&[0.0, 0.0], &[2]));
/// let out = cpu::forward_backward(&losses::welsch(1.0), &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - (2.0 - (-2f64).exp()) / 2.0).abs() < 1e-12);
/// assert!((out.grad("input")?[0] - (-2f64).exp()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?[1], 0.0);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn welsch(c: impl Into<ParamValue>) -> Welsch {
    let loss = of_input_and_target("welsch").param("c", 1.0, Domain::Positive);
    Welsch(loss.expr(|b| welsch_of(scaled_square(b)))).c(c)
}

loss_with_options! {
    /// The loss that [`welsch`] makes.
    Welsch {
        /// `c`, the scale of residuals that are no outliers; finite and > 0, else `Error::Param`. No default:
        /// [`welsch`]'s argument.
        number c;
    }
}

/// `(r/c)²`
fn scaled_square<'g>(b: &Build<'g>) -> Expr<'g> {
    let scaled = residual(b) / b.param("c");
    scaled * scaled
}

/// `1 − exp(−z/2)`
fn welsch_of(z: Expr<'_>) -> Expr<'_> {
    -(-0.5 * z).expm1()
}

/// Cauchy (Lorentzian) loss: logarithmic far out.
///
/// `L = ln(1 + (r/c)²/2)`, with `r = input − target`.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: none.
/// Gradient: `r/(c² + r²/2)` with respect to `input`.
/// Errors: `Error::Param` unless `c` is finite and > 0.
/// Source: Black and Anandan (1996), CVIU 63(1). Same as kornia's `cauchy_loss` (`c = 1`), and as [`general_robust`]
/// at `α = 0`; others take `c²/2·ln(1 + (r/c)²)`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[2.0], &[1]), HostTensor::f32(&[0.0], &[1]));
/// let out = cpu::forward_backward(&losses::cauchy(1.0), &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - 3f64.ln()).abs() < 1e-12 && (out.grad("input")?[0] - 2.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn cauchy(c: impl Into<ParamValue>) -> Cauchy {
    let loss = of_input_and_target("cauchy").param("c", 1.0, Domain::Positive);
    Cauchy(loss.expr(|b| (0.5 * scaled_square(b)).log1p())).c(c)
}

loss_with_options! {
    /// The loss that [`cauchy`] makes.
    Cauchy {
        /// `c`, the scale of residuals that are no outliers; finite and > 0, else `Error::Param`. No default:
        /// [`cauchy`]'s argument.
        number c;
    }
}

/// Barron's general robust loss, which is many others by its shape `alpha`.
///
/// `L = b/α·((z/b + 1)^(α/2) − 1)`, with `z = (r/c)²`, `b = |α − 2|` and `r = input − target`. Its limits: at `α = 2` `z/2`
/// ([`mse`](super::mse)), at 1 `√(z + 1) − 1` ([`charbonnier`]), at 0 `ln(1 + z/2)` ([`cauchy`]), at −2 `2z/(z + 4)`
/// (Geman–McClure), at −∞ `1 − exp(−z/2)` ([`welsch`]).
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: none.
/// Gradient: `r/c²·(z/b + 1)^(α/2 − 1)` with respect to `input`, of which the limits are those of the formulas above.
/// As a scalar on the GPU, `alpha` counts as 1e-8 nearer to 0, and as 1e-8 from 2 nearer to 2, where its own gradient is 0.
/// Errors: `Error::Param` unless `alpha` is finite or −∞ and `c` finite and > 0.
/// Source: Barron (2019), CVPR, arXiv:1701.03077, with a fixed shape.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// // Geman–McClure.
/// let (x, t) = (HostTensor::f32(&[2.0], &[1]), HostTensor::f32(&[0.0], &[1]));
/// let out = cpu::forward_backward(&losses::general_robust(-2.0, 1.0), &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - 1.0).abs() < 1e-12 && (out.grad("input")?[0] - 0.5).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn general_robust(alpha: impl Into<ParamValue>, c: impl Into<ParamValue>) -> GeneralRobust {
    let definition = of_input_and_target("general_robust").param("c", 1.0, Domain::Positive);
    let of_any_shape = Domain::FiniteOrMinusInfinite;
    let loss = definition.structural_param("alpha", 1.0, of_any_shape, &[-INF, 0.0, 2.0]).expr(|b| {
        let z = scaled_square(b);
        match b.value("alpha") {
            Some(alpha) if alpha == -INF => welsch_of(z),
            Some(0.0) => (0.5 * z).log1p(),
            Some(2.0) => 0.5 * z,
            _ => robust_of(z, b.param("alpha")),
        }
    });
    GeneralRobust(loss).alpha(alpha).c(c)
}

/// Of any shape `α`; where it or `|α − 2|` would be 0, 1e-8 stands in for it, near which the loss hardly changes.
fn robust_of<'g>(z: Expr<'g>, alpha: Expr<'g>) -> Expr<'g> {
    let away_from_zero = |x: Expr<'g>| x.abs().lt(1e-8).select(1e-8, x);
    let (alpha, beta) = (away_from_zero(alpha), away_from_zero(alpha - 2.0).abs());
    // As a power less 1, small residuals and small α would lose their digits.
    beta / alpha * (0.5 * alpha * (z / beta).log1p()).expm1()
}

loss_with_options! {
    /// The loss that [`general_robust`] makes.
    GeneralRobust {
        /// `α`, the shape: the smaller, the less outliers count; finite or −∞, of which 0, 2 and −∞ need
        /// plans of their own, else `Error::Param`. No default: [`general_robust`]'s argument.
        number alpha;
        /// `c`, the scale of residuals that are no outliers; finite and > 0, else `Error::Param`. No default:
        /// [`general_robust`]'s argument.
        number c;
    }
}

/// Expectile loss: squares with a weight for each side. Its minimum is the `tau` expectile.
///
/// `L = τ·d²` if `d ≥ 0`, else `(1 − τ)·d²`, with `d = target − input`.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: that of `input`².
/// Gradient: `−2τ·d` if `d ≥ 0`, else `−2(1 − τ)·d`, with respect to `input`; continuous at `d = 0`.
/// Errors: `Error::Param` unless `tau` is in \[0, 1\].
/// Source: Newey and Powell (1987), Econometrica 55(4); as in implicit Q-learning, arXiv:2110.06169. At `τ = 0.5` it is half
/// of [`mse`](super::mse); [`quantile`](super::quantile) does not square.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, 2.0], &[2]), HostTensor::f32(&[2.0, 0.0], &[2]));
/// let out = cpu::forward_backward(&losses::expectile(0.75), &[("input", x), ("target", t)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (2.0, &[-1.5, 0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn expectile(tau: impl Into<ParamValue>) -> Expectile {
    let loss = of_input_and_target("expectile").param("tau", 0.5, Domain::Unit).expr(|b| {
        let (d, tau) = (b.input("target") - b.input("input"), b.param("tau"));
        d.ge(0.0).select(tau, 1.0 - tau) * (d * d)
    });
    Expectile(loss).tau(tau)
}

loss_with_options! {
    /// The loss that [`expectile`] makes.
    Expectile {
        /// `τ`, the weight of targets above the input; in \[0, 1\], else `Error::Param`. No default: [`expectile`]'s
        /// argument.
        number tau;
    }
}

/// Quantile Huber loss: the quantile loss, quadratic near zero. Each element has a quantile of its own.
///
/// `L = |τ − [d < 0]|·h(d)/δ`, with `d = target − input` and Huber's `h(d) = d²/2` if `|d| ≤ δ`, else `δ(|d| − δ/2)`.
///
/// Shapes: `input, target` of one shape, `tau` of any that broadcasts (`[N]` beside quantiles `[B, N]`) → loss of that
/// shape. Unit: that of `input`.
/// Gradient: `−|τ − [d < 0]|·clamp(d/δ, −1, 1)` with respect to `input`; continuous. With respect to `tau`, `±h(d)/δ`.
/// Errors: `Error::Param` unless `delta` is finite and > 0. `tau` outside \[0, 1\] is no quantile, and not refused.
/// Source: Dabney et al. (2018), QR-DQN, arXiv:1710.10044, with `κ = delta`; there the losses of a sample are summed over
/// `input`'s quantiles and averaged over `target`'s (`[B, N, 1]` beside `[B, 1, N]`, with
/// [`broadcast`](crate::Loss::broadcast)). [`quantile`](super::quantile) is its limit for small `delta`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, 2.0], &[2]), HostTensor::f32(&[2.0, 1.5], &[2]));
/// let inputs = [("input", x), ("target", t), ("tau", HostTensor::f32(&[0.75], &[1]))];
/// let out = cpu::forward_backward(&losses::quantile_huber(1.0), &inputs, &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), ((0.75 * 1.5 + 0.25 * 0.125) / 2.0, &[-0.375, 0.0625][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn quantile_huber(delta: impl Into<ParamValue>) -> QuantileHuber {
    let definition = of_input_and_target("quantile_huber").input("tau", Scope::Element);
    let definition = definition.shape_rule("tau", ShapeRule::Broadcast).param("delta", 1.0, Domain::Positive);
    let loss = definition.expr(|b| {
        let (d, tau, delta) = (b.input("target") - b.input("input"), b.input("tau"), b.param("delta"));
        let clamped = d.maximum(-delta).minimum(delta);
        d.ge(0.0).select(tau, 1.0 - tau) * (clamped * (d - 0.5 * clamped) / delta)
    });
    QuantileHuber(loss).delta(delta)
}

loss_with_options! {
    /// The loss that [`quantile_huber`] makes.
    QuantileHuber {
        /// `δ`, the residual beyond which the loss is linear; finite and > 0, else `Error::Param`. No default:
        /// [`quantile_huber`]'s argument.
        number delta;
    }
}
