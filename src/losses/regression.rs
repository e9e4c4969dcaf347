//! Regression: losses of a residual, and of a count.

use super::entry::{Entry, Range};
use super::options::loss_with_options;
use super::{of_input_and_target, of_true_and_predicted, weighted};
use crate::expr::{Expr, Extent};
use crate::loss::Value::{Flag, Num};
use crate::loss::{Denominator, Domain, Loss, ParamValue, Unreduced};
use crate::shape::{Scope, ShapeRule};

pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("l1", l1),
    Entry::new("mse", mse),
    Entry::new("rmse", rmse),
    Entry::new("huber", || huber(1.0).into()).variants(&[&[("delta", Num(0.5))]]),
    Entry::new("smooth_l1", || smooth_l1(1.0).into()).variants(&[&[("beta", Num(0.5))], &[("beta", Num(0.0))]]),
    Entry::new("log_cosh", log_cosh),
    Entry::new("quantile", || quantile(0.5).into()).variants(&[&[("tau", Num(0.1))], &[("tau", Num(0.9))]]),
    Entry::new("poisson_nll", || poisson_nll().into())
        .inputs(&[("target", Range::Count)])
        .inputs_where(&[("log_input", Flag(false), &[("input", Range::Positive)])])
        .variants(&[
            &[("full", Flag(true))],
            &[("log_input", Flag(false)), ("eps", Num(0.001))],
            &[("log_input", Flag(false)), ("full", Flag(true))],
        ]),
    Entry::new("gaussian_nll", || gaussian_nll().into())
        .inputs(&[("var", Range::Positive)])
        .variants(&[&[("full", Flag(true))], &[("eps", Num(0.01))]]),
];

/// Absolute error. ([`mae`] is another name for it.)
///
/// `L = w·|r|`, with `r = input − target`.
///
/// Shapes: `input, target` of one shape, and an optional `weight` that broadcasts → loss of that shape.
/// Unit: that of `input`; the mean divides by `Σ w`.
/// Gradient: `w·sign(r)` with respect to `input`; 0 at `r = 0`. Where `r` is NaN the gradient is NaN (in PyTorch 0).
/// Source: Laplace (1774). Same as `torch.nn.functional.l1_loss`; [`mse`] squares, [`quantile`] weighs the sides.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[3.0, -2.0], &[2]), HostTensor::f32(&[1.0, 0.0], &[2]));
/// let out = cpu::forward_backward(&losses::l1(), &[("input", x), ("target", t)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (2.0, &[0.5, -0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn l1() -> Loss {
    of_input_and_target("l1").optional("weight", Scope::Element).unreduced(|b| {
        let r = b.input("input") - b.input("target");
        mean_by_weight(b.optional("weight"), r.abs())
    })
}

/// Mean absolute error: another name for [`l1`].
pub fn mae() -> Loss {
    l1()
}

/// Squared error.
///
/// `L = w·r²`, with `r = input − target`.
///
/// Shapes: `input, target` of one shape, and an optional `weight` that broadcasts → loss of that shape.
/// Unit: that of `input`²; the mean divides by `Σ w`.
/// Gradient: `2w·r` with respect to `input`.
/// Source: Legendre (1805). Same as `torch.nn.functional.mse_loss`; [`rmse`] takes the root of the mean.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[3.0, -2.0], &[2]), HostTensor::f32(&[1.0, 0.0], &[2]));
/// let out = cpu::forward_backward(&losses::mse(), &[("input", x), ("target", t)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (4.0, &[2.0, -2.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn mse() -> Loss {
    of_input_and_target("mse").optional("weight", Scope::Element).unreduced(|b| {
        let r = b.input("input") - b.input("target");
        mean_by_weight(b.optional("weight"), r * r)
    })
}

fn mean_by_weight<'g>(weight: Option<Expr<'g>>, value: Expr<'g>) -> Unreduced<'g> {
    match weight {
        Some(weight) => Unreduced { value: weight * value, denominator: Denominator::Sum(weight) },
        None => value.into(),
    }
}

/// Root of the mean squared error over all elements.
///
/// `L = √(Σ r² / n)`, with `r = input − target`.
///
/// Shapes: `input, target` of one shape of `n` elements → one number, whatever the reduction.
/// Unit: that of `input`.
/// Gradient: `r / (n·L)` with respect to `input`; 0 where all elements are equal.
/// Squares are taken in f32: residuals should lie between 1e-19 and 1e19.
/// Takes two passes over the inputs where a gradient is wanted, since each element's needs the total.
/// Source: formula. Same as the root of `torch.nn.functional.mse_loss`, whose gradient is NaN where `L = 0`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[3.0, -2.0], &[2]), HostTensor::f32(&[1.0, 0.0], &[2]));
/// let out = cpu::forward_backward(&losses::rmse(), &[("input", x), ("target", t)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (2.0, &[0.5, -0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn rmse() -> Loss {
    of_input_and_target("rmse").expr(|b| {
        let r = b.input("input") - b.input("target");
        let mean = (r * r).sum_over(Scope::Total) / b.graph().count(Extent::Elements);
        // The root of 1 stands in for that of 0, whose derivative is infinite.
        let zero = mean.equals(0.0);
        zero.select(0.0, zero.select(1.0, mean).sqrt())
    })
}

/// Huber loss: quadratic near zero, linear beyond `delta`.
///
/// `L = w·r²/2` if `|r| ≤ δ`, else `w·δ(|r| − δ/2)`, with `r = input − target`.
///
/// Shapes: `input, target` of one shape, and an optional `weight` that broadcasts → loss of that shape.
/// Unit: that of `input`²; the mean divides by the number of elements.
/// Gradient: `w·clamp(r, −δ, δ)` with respect to `input`; continuous at `|r| = δ`.
/// Errors: `Error::Param` unless `delta` is finite and > 0.
/// Source: Huber (1964), Ann. Math. Statist. 35(1). Same as `torch.nn.functional.huber_loss`; [`smooth_l1`] divides
/// by `beta`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[3.0, -0.5], &[2]), HostTensor::f32(&[0.0, 0.0], &[2]));
/// let out = cpu::forward_backward(&losses::huber(1.0), &[("input", x), ("target", t)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (1.3125, &[0.5, -0.25][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn huber(delta: impl Into<ParamValue>) -> Huber {
    let definition = of_input_and_target("huber").optional("weight", Scope::Element);
    let loss = definition.param("delta", 1.0, Domain::Positive).expr(|b| {
        let (r, delta) = (b.input("input") - b.input("target"), b.param("delta"));
        weighted(b, r.abs().le(delta).select(0.5 * (r * r), delta * (r.abs() - 0.5 * delta)))
    });
    Huber(loss).delta(delta)
}

loss_with_options! {
    /// The loss that [`huber`] makes.
    Huber {
        /// `δ`, the residual beyond which the loss is linear; finite and > 0, else `Error::Param`. No default:
        /// [`huber`]'s argument.
        number delta;
    }
}

/// Smooth L1 loss: quadratic within `beta`, then the absolute error less a constant.
///
/// `L = r²/(2β)` if `|r| < β`, else `|r| − β/2`, with `r = input − target`; at `β = 0` it is `|r|`.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: that of `input`.
/// Gradient: `clamp(r/β, −1, 1)` with respect to `input`; continuous at `|r| = β`; at `β = 0`, 0 at `r = 0`.
/// Errors: `Error::Param` unless `beta` is finite and ≥ 0.
/// Source: Girshick (2015), Fast R-CNN, arXiv:1504.08083. Same as `torch.nn.functional.smooth_l1_loss`; [`huber`] is
/// `beta` times it.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[3.0, -1.0], &[2]), HostTensor::f32(&[0.0, 0.0], &[2]));
/// let out = cpu::forward_backward(&losses::smooth_l1(2.0), &[("input", x), ("target", t)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (1.125, &[0.5, -0.25][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn smooth_l1(beta: impl Into<ParamValue>) -> SmoothL1 {
    let definition = of_input_and_target("smooth_l1");
    let loss = definition.special_param("beta", 1.0, Domain::NonNegative, &[0.0]).expr(|b| {
        let r = b.input("input") - b.input("target");
        if b.value("beta") == Some(0.0) {
            return r.abs();
        }
        let beta = b.param("beta");
        r.abs().lt(beta).select(0.5 * r / beta * r, r.abs() - 0.5 * beta)
    });
    SmoothL1(loss).beta(beta)
}

loss_with_options! {
    /// The loss that [`smooth_l1`] makes.
    SmoothL1 {
        /// `β`, the residual beyond which the loss is linear; finite and ≥ 0 (0: the absolute error), else
        /// `Error::Param`. No default: [`smooth_l1`]'s argument.
        number beta;
    }
}

/// Logarithm of the hyperbolic cosine: quadratic near zero, the absolute error less ln 2 far out.
///
/// `L = meanⱼ ln cosh rⱼ` over the last axis, with `r = y_pred − y_true`.
///
/// Shapes: `y_pred, y_true: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1.
/// Unit: none (`r` counts as a number).
/// Gradient: `tanh(r)/cols` with respect to `y_pred`.
/// Source: `keras.losses.LogCosh`, which computes `r + softplus(−2r) − ln 2` and loses the digits of small `r`; this
/// keeps them.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (p, t) = (HostTensor::f32(&[100.0, 0.0], &[1, 2]), HostTensor::f32(&[0.0, 0.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::log_cosh(), &[("y_pred", p), ("y_true", t)], &["y_pred"])?;
/// assert!((out.loss()? - (100.0 - 2f64.ln()) / 2.0).abs() < 1e-12);
/// assert_eq!(out.grad("y_pred")?, [0.5, 0.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn log_cosh() -> Loss {
    of_true_and_predicted("log_cosh").expr(|b| (b.input("y_pred") - b.input("y_true")).log_cosh().mean())
}

/// Quantile (pinball) loss: its minimum is the `tau` quantile.
///
/// `L = τ·d` if `d ≥ 0`, else `(τ − 1)·d`, with `d = target − input`.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: that of `input`.
/// Gradient: `−τ` if `d ≥ 0`, else `1 − τ`, with respect to `input`; at the kink `d = 0` it is `−τ`.
/// Errors: `Error::Param` unless `tau` is in \[0, 1\].
/// Source: Koenker and Bassett (1978), Econometrica 46(1). At `τ = 0.5` it is half of [`l1`].
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, 2.0], &[2]), HostTensor::f32(&[2.0, 0.0], &[2]));
/// let out = cpu::forward_backward(&losses::quantile(0.75), &[("input", x), ("target", t)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (1.0, &[-0.375, 0.125][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn quantile(tau: impl Into<ParamValue>) -> Quantile {
    let loss = of_input_and_target("quantile").param("tau", 0.5, Domain::Unit).expr(|b| {
        let (d, tau) = (b.input("target") - b.input("input"), b.param("tau"));
        d.ge(0.0).select(tau * d, (tau - 1.0) * d)
    });
    Quantile(loss).tau(tau)
}

loss_with_options! {
    /// The loss that [`quantile`] makes.
    Quantile {
        /// `τ`, the quantile; in \[0, 1\], else `Error::Param`. No default: [`quantile`]'s argument.
        number tau;
    }
}

/// Negative log-likelihood of a Poisson count, without the factorial of the target.
///
/// `L = exp(x) − t·x` if `log_input`, else `x − t·ln(x + eps)`; with `full`, the Stirling approximation
/// `t·ln t − t + ln(2πt)/2` of `ln t!` is added where `t > 1`. `x = input`, `t = target`.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: nats.
/// Gradient: `exp(x) − t`, or `1 − t/(x + eps)`, with respect to `input`.
/// A rate of 0 (`x = −∞`, or `x + eps = 0`) with a count of 0 has loss 0 (in PyTorch NaN), with any other +∞.
/// Options: `log_input` (true), `full` (false), `eps` (1e-8).
/// Errors: `Error::Param` unless `eps` is finite and ≥ 0.
/// Source: same as `torch.nn.functional.poisson_nll_loss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0], &[1]), HostTensor::f32(&[3.0], &[1]));
/// let out = cpu::forward_backward(&losses::poisson_nll(), &[("input", x), ("target", t)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (1.0, &[-2.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn poisson_nll() -> PoissonNll {
    let definition = of_input_and_target("poisson_nll").flag("log_input", true).flag("full", false);
    let loss = definition.param("eps", 1e-8, Domain::NonNegative).expr(|b| {
        let (x, t) = (b.input("input"), b.input("target"));
        let value = if b.flag("log_input") { x.exp() - t.times(x) } else { x - t.times((x + b.param("eps")).log()) };
        if !b.flag("full") {
            return value;
        }
        let stirling = t * t.log() - t + 0.5 * (std::f64::consts::TAU * t).log();
        value + stirling.masked(!t.le(1.0))
    });
    PoissonNll(loss)
}

loss_with_options! {
    /// The loss that [`poisson_nll`] makes.
    PoissonNll {
        /// Whether `input` is the logarithm of the rate, the first of the two formulas; true by default.
        flag log_input;
        /// Whether the Stirling approximation of `ln t!` is added; false by default.
        flag full;
        /// `eps`, added to the rate before its logarithm where `log_input` is false; finite and ≥ 0, else
        /// `Error::Param`; 1e-8 by default.
        number eps;
    }
}

/// Negative log-likelihood of a normal distribution with a variance of its own for each element.
///
/// `L = (ln v + r²/v)/2`, with `v = max(var, eps)` and `r = input − target`; with `full`, `ln(2π)/2` is added.
///
/// Shapes: `input, target: [..., D]`; `var` the same, `[..., 1]`, or without the last axis → loss `[..., D]`. Unit: nats.
/// Gradient: `r/v` with respect to `input`, `(1 − r²/v)/(2v)` with respect to `var`, also where `var < eps`: the clamp
/// carries no gradient, as in PyTorch. A `var` below 0 counts as `eps` (PyTorch raises an error).
/// Options: `full` (false), `eps` (1e-6).
/// Errors: `Error::Param` unless `eps` is finite and > 0.
/// Source: Nix and Weigend (1994), ICNN. Same as `torch.nn.functional.gaussian_nll_loss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t, v) = ([2.0], [0.0], [1.0]);
/// let inputs = [("input", &x), ("target", &t), ("var", &v)].map(|(name, x)| (name, HostTensor::f32(x, &[1])));
/// let out = cpu::forward_backward(&losses::gaussian_nll(), &inputs, &["input", "var"])?;
/// assert_eq!((out.loss()?, out.grad("input")?, out.grad("var")?), (2.0, &[2.0][..], &[-1.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gaussian_nll() -> GaussianNll {
    let definition = of_input_and_target("gaussian_nll").input("var", Scope::Element).flag("full", false);
    let definition = definition.shape_rule("var", ShapeRule::OptionalLastAxis);
    let loss = definition.param("eps", 1e-6, Domain::Positive).expr(|b| {
        let (r, var) = (b.input("input") - b.input("target"), b.input("var"));
        let v = var.maximum(b.param("eps")).straight_through(var);
        let value = 0.5 * (v.log() + r * r / v);
        if b.flag("full") { value + 0.5 * std::f64::consts::TAU.ln() } else { value }
    });
    GaussianNll(loss)
}

loss_with_options! {
    /// The loss that [`gaussian_nll`] makes.
    GaussianNll {
        /// Whether the constant `ln(2π)/2` is added; false by default.
        flag full;
        /// `eps`, below which variances count as `eps`; finite and > 0, else `Error::Param`; 1e-6 by default.
        number eps;
    }
}
