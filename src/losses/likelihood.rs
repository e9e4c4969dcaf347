//! Regression: negative log-likelihoods and scores of distributions with a parameter for each element.

use super::KERAS_EPSILON;
use super::entry::{Entry, Options, Range, Ranges};
use super::options::loss_with_options;
use super::{of_input_and_target, of_true_and_predicted};
use crate::expr::Expr;
use crate::loss::Value::{Flag, Num};
use crate::loss::{Domain, Loss, ParamValue};
use crate::shape::Scope;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, PI};

const OF_MEAN: &[(&str, crate::loss::Value, Ranges)] = &[("log_input", Flag(false), &[("input", Range::Positive)])];
const AS_MEAN: Options = &[("log_input", Flag(false))];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("poisson", poisson).inputs(&[("y_true", Range::Count), ("y_pred", Range::Positive)]),
    Entry::new("tweedie", || tweedie(1.5).into())
        .inputs(&[("target", Range::Count)])
        .inputs_where(OF_MEAN)
        .variants(&[AS_MEAN, &[("p", Num(1.2))]]),
    Entry::new("gamma_nll", || gamma_nll().into())
        .inputs(&[("target", Range::Positive), ("dispersion", Range::Positive)])
        .inputs_where(OF_MEAN)
        .variants(&[AS_MEAN, &[("full", Flag(true))]]),
    Entry::new("evidential", || evidential(0.01).into())
        .inputs(&[("nu", Range::Positive), ("alpha", Range::Positive), ("beta", Range::Positive)])
        .variants(&[&[("lambda", Num(0.5))]]),
    Entry::new("crps_gaussian", crps_gaussian).inputs(&[("scale", Range::Positive)]),
    Entry::new("gaussian_kl", gaussian_kl),
];

/// Negative log-likelihood of a Poisson count, without the factorial of the target, in Keras's form.
///
/// `L = meanⱼ pⱼ − tⱼ·ln(pⱼ + 1e-7)` over the last axis, with `t = y_true` and `p = y_pred`, the rate.
///
/// Shapes: `y_true, y_pred: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1.
/// Unit: nats.
/// Gradient: `(1 − t/(p + 1e-7))/cols` with respect to `y_pred`. A rate below −1e-7 gives NaN.
/// Source: same as `keras.losses.Poisson`; [`poisson_nll`](super::poisson_nll) is PyTorch's.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[3.0, 0.0], &[1, 2]), HostTensor::f32(&[1.0, 2.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::poisson(), &[("y_true", t), ("y_pred", p)], &["y_pred"])?;
/// assert!((out.loss()? - 1.5).abs() < 1e-6);
/// assert!((out.grad("y_pred")?[0] + 1.0).abs() < 1e-6 && out.grad("y_pred")?[1] == 0.5);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn poisson() -> Loss {
    of_true_and_predicted("poisson").expr(|b| {
        let (t, p) = (b.input("y_true"), b.input("y_pred"));
        (p - t * (p + KERAS_EPSILON).log()).mean()
    })
}

/// Negative log-likelihood of a Tweedie distribution of power `p` (a Poisson number of gamma-distributed amounts), without
/// what the mean `μ` does not change.
///
/// `L = −t·μ^(1−p)/(1 − p) + μ^(2−p)/(2 − p)`, with `t = target ≥ 0` and `μ = exp(input)`, or `input` itself.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: that of `target`, to the power `2 − p`.
/// Gradient: `−t·μ^(1−p) + μ^(2−p)` with respect to the logarithm of `μ`, over `μ` with respect to `μ`. A target of 0 beside a
/// mean of 0 has loss 0.
/// Options: `p`, `log_input` (true).
/// Errors: `Error::Param` unless `1 < p < 2`.
/// Source: Jørgensen (1987), J. R. Statist. Soc. B 49(2). Same as LightGBM's and XGBoost's `tweedie` objective (with
/// `log_input`); scikit-learn's deviance is twice this, plus a constant of each target. At `p = 1` it would be
/// [`poisson_nll`](super::poisson_nll), at 2 [`gamma_nll`].
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, 0.0], &[2]), HostTensor::f32(&[0.0, 3.0], &[2]));
/// let out = cpu::forward_backward(&losses::tweedie(1.5), &[("input", x), ("target", t)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (5.0, &[0.5, -1.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn tweedie(p: impl Into<ParamValue>) -> Tweedie {
    let definition = of_input_and_target("tweedie").flag("log_input", true);
    let loss = definition.param("p", 1.5, Domain::Between(1.0, 2.0)).expr(|b| {
        let (x, t, p) = (b.input("input"), b.input("target"), b.param("p"));
        let power = |exponent| if b.flag("log_input") { (x * exponent).exp() } else { x.pow(exponent) };
        let [first, second] = [1.0 - p, 2.0 - p].map(power);
        t.times(first) / (p - 1.0) + second / (2.0 - p)
    });
    Tweedie(loss).p(p)
}

loss_with_options! {
    /// The loss that [`tweedie`] makes.
    Tweedie {
        /// `p`, the power of the mean that the variance is proportional to; between 1 and 2, else `Error::Param`. No
        /// default: [`tweedie`]'s argument.
        number p;
        /// Whether `input` is the logarithm of the mean; true by default.
        flag log_input;
    }
}

/// Negative log-likelihood of a gamma distribution of mean `μ`.
///
/// `L = k·(t/μ + ln μ)`, with `μ = exp(input)`, or `input` itself, `t = target` and `k = 1/dispersion`, the shape; with `full`,
/// `ln Γ(k) − k·ln k − (k − 1)·ln t` is added.
///
/// Shapes: `input, target` of one shape, and an optional `dispersion` (1) that broadcasts → loss of that shape. Unit: nats.
/// Gradient: `k·(1 − t/μ)` with respect to the logarithm of `μ`, over `μ` with respect to `μ`; with respect to `dispersion`
/// `−k²·(t/μ + ln μ)`, with `full` and `ψ(k) − ln k − 1 − ln t` in the brackets too.
/// Options: `full` (false), `log_input` (true).
/// Source: McCullagh and Nelder (1989), ch. 8. Same as XGBoost's `reg:gamma` without a dispersion; with `full` as
/// `torch.distributions.Gamma(k, k/μ)`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0], &[1]), HostTensor::f32(&[3.0], &[1]));
/// let out = cpu::forward_backward(&losses::gamma_nll(), &[("input", x), ("target", t)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (3.0, &[-2.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gamma_nll() -> GammaNll {
    let definition = of_input_and_target("gamma_nll").optional("dispersion", Scope::Element);
    let loss = definition.flag("full", false).flag("log_input", true).expr(|b| {
        let (x, t) = (b.input("input"), b.input("target"));
        let value = if b.flag("log_input") { t.times((-x).exp()) + x } else { t / x + x.log() };
        // Of shape 1, what `full` adds is 0.
        let Some(dispersion) = b.optional("dispersion") else { return value };
        let k = 1.0 / dispersion;
        if b.flag("full") { k * (value - k.log()) + (k.lgamma() - (k - 1.0) * t.log()) } else { k * value }
    });
    GammaNll(loss)
}

loss_with_options! {
    /// The loss that [`gamma_nll`] makes.
    GammaNll {
        /// Whether what only `dispersion` and `target` change is added; false by default.
        flag full;
        /// Whether `input` is the logarithm of the mean; true by default.
        flag log_input;
    }
}

/// Evidential regression: the negative log-likelihood of a Student t distribution whose parameters are those of a
/// normal-inverse-gamma, and a penalty of evidence where the prediction errs.
///
/// `L = ln(π/ν)/2 − α·ln w + (α + 1/2)·ln(ν·d² + w) + ln Γ(α) − ln Γ(α + 1/2) + λ·|d|·(2ν + α)`, with `w = 2β(1 + ν)` and
/// `d = target − gamma`.
///
/// Shapes: `gamma, nu, alpha, beta, target` of one shape → loss of that shape; `ν, β > 0`, `α > 0` (a variance needs
/// `α > 1`). Unit: nats, and of the penalty `λ` times that of `target`.
/// Gradient: with respect to all inputs; `|d|` has subgradient 0 at `d = 0`.
/// The difference of the two logarithms of Γ is computed as one function, which keeps its digits where `α` is large.
/// Errors: `Error::Param` unless `lambda` is finite and ≥ 0.
/// Source: Amini et al. (2020), NeurIPS, arXiv:1910.02600; without the penalty as `torch.distributions.StudentT`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let one = [1.0];
/// let inputs = ["gamma", "nu", "alpha", "beta", "target"].map(|name| (name, HostTensor::f32(&one, &[1])));
/// let out = cpu::forward_backward(&losses::evidential(0.01), &inputs, &["gamma"])?;
/// // Student's t of 2 degrees of freedom and scale √2 has density 1/4 at 0.
/// assert!((out.loss()? - 4f64.ln()).abs() < 1e-12 && out.grad("gamma")?[0] == 0.0);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn evidential(lambda: impl Into<ParamValue>) -> Evidential {
    let of_prior = ["gamma", "nu", "alpha", "beta", "target"];
    let inputs = of_prior.into_iter().fold(Loss::define("evidential"), |loss, name| loss.input(name, Scope::Element));
    let loss = inputs.param("lambda", 0.01, Domain::NonNegative).expr(move |b| {
        let [gamma, nu, alpha, beta, target] = of_prior.map(|name| b.input(name));
        let (d, w) = (target - gamma, 2.0 * beta * (1.0 + nu));
        let nll = 0.5 * (PI * w / nu).log() + (alpha + 0.5) * (nu * d * d / w).log1p() - half_step_of_lgamma(alpha);
        nll + b.param("lambda") * d.abs() * (2.0 * nu + alpha)
    });
    Evidential(loss).lambda(lambda)
}

/// `ln Γ(a + ½) − ln Γ(a)` for a > 0: the ratio of Γ(y + ½) to Γ(y) by its asymptotic series at `y = a + 8` (the first term
/// left out is 5e-13), and `Γ(a + k + ½)/Γ(a + k)` from one k to the next by their factors.
fn half_step_of_lgamma<'g>(a: Expr<'g>) -> Expr<'g> {
    let y = a + 8.0;
    let inverse = 1.0 / y;
    let w = inverse * inverse;
    let series = |coefficients: [f64; 5]| -> Expr<'g> {
        let terms = coefficients.into_iter();
        terms.fold(a.graph().constant(0.0), |sum, c| sum * w + c)
    };
    let terms = [-31.0 / 18432.0, 17.0 / 14336.0, -1.0 / 640.0, 1.0 / 192.0, -1.0 / 8.0];
    // Two factors at a time: more would overflow for large a.
    let at = |k: i32, half: f64| a + (f64::from(k) + half);
    let pair = |k: i32| at(k, 0.5) * at(k + 1, 0.5) / (at(k, 0.0) * at(k + 1, 0.0));
    let factors = pair(0) * pair(2) * (pair(4) * pair(6));
    let value = 0.5 * y.log() + inverse * series(terms) - factors.log();
    let odd = [9.0, 7.0, 5.0, 3.0, 1.0];
    let slopes: [f64; 5] = std::array::from_fn(|k| -terms[k] * odd[k]);
    let below = (0..8).map(|k| 0.5 / (at(k, 0.0) * at(k, 0.5))).reduce(|sum, x| sum + x).expect("eight terms");
    value.with_gradient(a, 0.5 * inverse + w * series(slopes) + below)
}

loss_with_options! {
    /// The loss that [`evidential`] makes.
    Evidential {
        /// `λ`, the weight of the penalty; finite and ≥ 0, else `Error::Param`. No default: [`evidential`]'s argument.
        number lambda;
    }
}

/// Continuous ranked probability score of a normal distribution.
///
/// `L = s·(z·erf(z/√2) + 2φ(z) − 1/√π)`, with `z = (target − input)/s`, `s = scale`, the standard deviation, and `φ` the
/// standard normal density.
///
/// Shapes: `input, scale, target` of one shape → loss of that shape; `scale > 0`. Unit: that of `target`.
/// Gradient: `−erf(z/√2)` with respect to `input`, `2φ(z) − 1/√π` with respect to `scale`.
/// Source: Gneiting and Raftery (2007), J. Am. Statist. Assoc. 102(477), eq. 21. For `scale` 0 it would be
/// [`l1`](super::l1); [`gaussian_nll`](super::gaussian_nll) is the logarithmic score.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (zero, one) = ([0.0], [1.0]);
/// let inputs = [("input", &zero), ("scale", &one), ("target", &zero)];
/// let inputs = inputs.map(|(name, x)| (name, HostTensor::f32(x, &[1])));
/// let out = cpu::forward_backward(&losses::crps_gaussian(), &inputs, &["input"])?;
/// assert!((out.loss()? - (2f64.sqrt() - 1.0) / std::f64::consts::PI.sqrt()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?, [0.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn crps_gaussian() -> Loss {
    let definition = Loss::define("crps_gaussian").input("input", Scope::Element).input("scale", Scope::Element);
    definition.input("target", Scope::Element).expr(|b| {
        let (x, scale, t) = (b.input("input"), b.input("scale"), b.input("target"));
        let z = (t - x) / scale;
        let erf = (z * FRAC_1_SQRT_2).erf();
        let at_scale = FRAC_2_SQRT_PI * (FRAC_1_SQRT_2 * (-0.5 * z * z).exp() - 0.5);
        // z·φ cancels in the derivatives by itself; rounded, it would drown what is left far out.
        let value = (t - x) * erf + scale * at_scale;
        value.with_gradient(x, -erf).with_gradient(t, erf).with_gradient(scale, at_scale)
    })
}

/// Kullback–Leibler divergence of a normal distribution from the standard one: the regulariser of a variational
/// autoencoder.
///
/// `L = (μ² + exp(v) − 1 − v)/2`, with `μ = mu` and `v = log_var`, the logarithm of the variance.
///
/// Shapes: `mu, log_var` of one shape → loss of that shape; their sum over the latent axis is the divergence of a sample.
/// Unit: nats.
/// Gradient: `μ` with respect to `mu`, `(exp(v) − 1)/2` with respect to `log_var`.
/// Source: Kingma and Welling (2014), arXiv:1312.6114, app. B.
///
/// ```
/// use wgloss::{HostTensor, Reduction, cpu, losses};
/// let (mu, log_var) = (HostTensor::f32(&[2.0, 0.0], &[1, 2]), HostTensor::f32(&[0.0, 0.0], &[1, 2]));
/// let loss = losses::gaussian_kl().reduction(Reduction::BatchMean);
/// let out = cpu::forward_backward(&loss, &[("mu", mu), ("log_var", log_var)], &["mu", "log_var"])?;
/// assert_eq!((out.loss()?, out.grad("mu")?, out.grad("log_var")?), (2.0, &[2.0, 0.0][..], &[0.0, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn gaussian_kl() -> Loss {
    Loss::define("gaussian_kl").input("mu", Scope::Element).input("log_var", Scope::Element).expr(|b| {
        let (mu, v) = (b.input("mu"), b.input("log_var"));
        let excess = v.expm1();
        0.5 * (mu * mu + (excess - v).with_gradient(v, excess))
    })
}
