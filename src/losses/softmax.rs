//! Cross-entropy of a softmax: labels of many classes.

use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use super::{of_input_and_target, weighted};
use crate::expr::{Expr, Extent};
use crate::loss::Value::{Index, Num};
use crate::loss::{Build, DefinitionBuilder, Denominator, Domain, Loss, ParamValue, Unreduced};
use crate::shape::RowAxis;
use crate::shape::Scope;

const LOGITS: Ranges = &[("input", Range::Logits)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("cross_entropy", || cross_entropy().into()).inputs(LOGITS).variants(&[
        &[("label_smoothing", Num(0.1))],
        &[("label_smoothing", Num(1.0))],
        &[("temperature", Num(0.7))],
        &[("temperature", Num(2.5)), ("label_smoothing", Num(0.3)), ("ignore_index", Index(Some(1)))],
        &[("ignore_index", Index(None))],
        &[("logit_scale", Num(1.7))],
        &[("softcap", Num(2.0))],
        &[("lse_square_scale", Num(0.1))],
        &[("entropy_bonus", Num(0.2))],
        &[
            ("logit_scale", Num(0.6)),
            ("temperature", Num(1.5)),
            ("lse_square_scale", Num(0.05)),
            ("entropy_bonus", Num(-0.1)),
        ],
        &[
            ("logit_scale", Num(1.3)),
            ("softcap", Num(4.0)),
            ("temperature", Num(0.8)),
            ("label_smoothing", Num(0.2)),
            ("lse_square_scale", Num(0.02)),
            ("entropy_bonus", Num(0.1)),
            ("ignore_index", Index(Some(1))),
        ],
    ]),
    Entry::new("z_loss", || z_loss(1e-4).into()).inputs(LOGITS).variants(&[&[("z", Num(0.1))], &[("z", Num(0.0))]]),
    Entry::new("softcap_cross_entropy", || softcap_cross_entropy(30.0).into())
        .inputs(LOGITS)
        .variants(&[&[("softcap", Num(3.0))]]),
    Entry::new("cross_entropy_prob", || cross_entropy_prob().into())
        .inputs(&[("input", Range::Logits), ("target", Range::Probability)])
        .variants(&[&[("label_smoothing", Num(0.1))]]),
    Entry::new("nll", || nll().into())
        .inputs(&[("input", Range::LogProbability)])
        .variants(&[&[("ignore_index", Index(None))], &[("ignore_index", Index(Some(1)))]]),
];

/// Softmax cross-entropy of logits and class labels.
///
/// `L = w_y·(ln Σⱼ exp zⱼ − z_y) + λ·(ln Σⱼ exp zⱼ)² − η·H`, with `y = target`, `z = cap(s·input)/temperature`,
/// `cap(x) = c·tanh(x/c)` and the entropy `H = −Σⱼ pⱼ ln pⱼ` of `p = softmax(z)`. With label smoothing ε the first term
/// is `(1 − ε)` of that plus `ε/C · Σⱼ wⱼ·(ln Σₖ exp zₖ − zⱼ)`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices, optional `weight: [C]`
/// → loss `[N, d1, …]`. Unit: nats; the mean divides by `Σ w_y` over the rows that are not ignored (the terms of λ and
/// η, which have no weight, too).
/// Gradient: `w_y·(softmax(z) − onehot(y))` with respect to `z` (ε, λ, η = 0). Rows labelled `ignore_index` have loss
/// and gradient exactly 0, whatever they hold; if all are, the mean is NaN and the gradient 0.
/// A logit of −∞ means probability zero, capped too: the loss is +∞ where such a class has a share of the target (all have,
/// smoothed), unless its weight is 0, which leaves it out (in PyTorch NaN).
/// Options: `ignore_index` (−100), `label_smoothing` ε (0), `temperature` (1), `logit_scale` `s` (1), `softcap` `c`
/// (0: none), `lse_square_scale` λ (0), `entropy_bonus` η (0).
/// Extra outputs, in the same trip: `logsumexp` of `z`, `predicted` (the class of the largest `z`, the lowest of equal
/// ones, as a number: exact below 2²⁴), `label_probability` (0 where ignored) and `entropy` in nats, all `[N, d1, …]`;
/// `correct`, the number of rows not ignored whose label is `predicted`.
/// Errors: `Error::Param` unless `label_smoothing` is in \[0, 1\], `temperature` and `logit_scale` are > 0, `softcap`
/// and `lse_square_scale` ≥ 0 and `entropy_bonus` is finite; `Error::LabelOutOfRange` when a result with such a label
/// is read.
/// Source: same as `torch.nn.functional.cross_entropy` with class indices; λ as in PaLM (arXiv:2204.02311), `c` as in
/// Gemma 2 (arXiv:2408.00118), η as in Pereyra et al. (2017), arXiv:1701.06548. [`cross_entropy_prob`] takes
/// probabilities, [`nll`] log-probabilities.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let logits = HostTensor::f32(&[0.0, 0.0, 1.0, 9.0], &[2, 2]);
/// let loss = losses::cross_entropy().ignore_index(-1);
/// let labels = HostTensor::i32(&[1, -1], &[2]);
/// let out = cpu::forward_backward(&loss, &[("input", logits), ("target", labels)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?, [0.5, -0.5, 0.0, 0.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn cross_entropy() -> CrossEntropy {
    let definition = of_logits_and_labels("cross_entropy").optional("weight", Scope::Column);
    let definition = definition.special_param("label_smoothing", 0.0, Domain::Unit, &[0.0]);
    let definition = definition.special_param("temperature", 1.0, Domain::Positive, &[1.0]);
    let definition = definition.special_param("logit_scale", 1.0, Domain::Positive, &[1.0]);
    let definition = definition.structural_param("softcap", 0.0, Domain::NonNegative, &[0.0]);
    let definition = definition.special_param("lse_square_scale", 0.0, Domain::NonNegative, &[0.0]);
    let definition = definition.special_param("entropy_bonus", 0.0, Domain::Finite, &[0.0]);
    let loss = with_extras(definition).unreduced(|b| {
        let (z, offset) = scaled_logits(b);
        let y = b.input("target");
        let weight = b.optional("weight");
        let label_weight = weight.map(|w| w.at(y));
        let mut value = label_nll(z, y);
        if let Some(w) = label_weight {
            value = w.times(value);
        }
        if b.value("label_smoothing") != Some(0.0) {
            let share = b.param("label_smoothing");
            let classes = b.graph().count(Extent::Cols);
            value = (1.0 - share).times(value) + (share / classes).times(nll_of_all(z, y, weight));
        }
        let lse = offset.map_or(z.logsumexp(), |offset| z.logsumexp() + offset);
        value = plus_lse_square(b, "lse_square_scale", value, lse);
        if b.value("entropy_bonus") != Some(0.0) {
            value = value - b.param("entropy_bonus") * entropy_of(z);
        }
        over_labels(b, value, label_weight)
    });
    CrossEntropy(loss)
}

loss_with_options! {
    /// The loss that [`cross_entropy`] makes.
    CrossEntropy {
        /// Labels of this value are left out: loss and gradient exactly 0, and not in the mean. None (no label is) or any
        /// index; −100 by default.
        index ignore_index;
        /// `ε`, the share of the target that is spread evenly over the classes; in \[0, 1\], else `Error::Param`; 0 by
        /// default.
        number label_smoothing;
        /// `temperature`, which divides the logits, once scaled and capped; finite and > 0, else `Error::Param`; 1 by
        /// default.
        number temperature;
        /// `s`, which multiplies the logits before a softcap; finite and > 0, else `Error::Param`; 1 by default.
        number logit_scale;
        /// `c`, which bounds the logits smoothly to ±c; finite and ≥ 0 (0: no bound, which needs a plan of its own), else
        /// `Error::Param`; 0 by default.
        number softcap;
        /// `λ`, the coefficient of the square of the logsumexp (z-loss); finite and ≥ 0, else `Error::Param`; 0 by
        /// default.
        number lse_square_scale;
        /// `η`, the coefficient of the entropy `H`, which is subtracted; finite, else `Error::Param`; 0 by default.
        number entropy_bonus;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// What a row's softmax knows besides its loss, of the logits as options scale and cap them.
fn with_extras(definition: DefinitionBuilder) -> DefinitionBuilder {
    definition
        .extra("logsumexp", |b| {
            let (z, offset) = scaled_logits(b);
            offset.map_or(z.logsumexp(), |offset| z.logsumexp() + offset)
        })
        .extra("predicted", |b| scaled_logits(b).0.argmax().to_float())
        .extra("correct", |b| {
            let y = b.input("target");
            kept(b, scaled_logits(b).0.argmax().equals(y).to_float()).sum_over(Scope::Total)
        })
        .extra("label_probability", |b| {
            let y = b.input("target");
            kept(b, (-label_nll(scaled_logits(b).0, y)).exp())
        })
        .extra("entropy", |b| entropy_of(scaled_logits(b).0))
}

/// The value in rows that are not ignored; 0 in the others.
fn kept<'g>(b: &Build<'g>, value: Expr<'g>) -> Expr<'g> {
    b.label_is_option("target", "ignore_index").map_or(value, |ignored| value.masked(!ignored))
}

/// Begins a loss of `input` and the class index `target`.
pub(super) fn of_logits_and_labels(name: &str) -> DefinitionBuilder {
    let definition = Loss::define(name).row_axis(RowAxis::Class).input("input", Scope::Element).label("target");
    definition.index("ignore_index", Some(-100))
}

/// The logits as the options scale and cap them, less an offset that the row has in common (none: 0).
fn scaled_logits<'g>(b: &Build<'g>) -> (Expr<'g>, Option<Expr<'g>>) {
    let given = |option: &str, off: f64| (b.value(option) != Some(off)).then(|| b.param(option));
    let (mut factor, divisor) = (given("logit_scale", 1.0), given("temperature", 1.0));
    let mut z = b.input("input");
    if let Some(bound) = given("softcap", 0.0) {
        z = capped(factor.take().map_or(z, |factor| factor * z), bound);
    }
    if factor.is_none() && divisor.is_none() {
        return (z, None);
    }
    // The row's maximum comes off first: scaled, a large common offset would round the differences away.
    let max = z.max().detach();
    (scaled(z - max, factor, divisor), Some(scaled(max, factor, divisor)))
}

/// `factor·x/divisor`. Where either is a scalar on the GPU, it may be learned: a logit of −∞ then adds nothing to its
/// gradient.
pub(super) fn scaled<'g>(x: Expr<'g>, factor: Option<Expr<'g>>, divisor: Option<Expr<'g>>) -> Expr<'g> {
    let is_number = |scale: Option<Expr<'g>>| scale.is_none_or(|scale| scale.scope() <= Scope::Param);
    if is_number(factor) && is_number(divisor) {
        let x = factor.map_or(x, |factor| factor * x);
        return divisor.map_or(x, |divisor| x / divisor);
    }
    let factor = factor.unwrap_or(x.graph().constant(1));
    divisor.map_or(factor, |divisor| factor / divisor).times(x)
}

/// `bound·tanh(x/bound)`, but −∞ stays −∞: with the cap as its logit, a masked class would have a probability.
fn capped<'g>(x: Expr<'g>, bound: Expr<'g>) -> Expr<'g> {
    x.gt(-3.0e38).select(bound * (x / bound).tanh(), x.detach())
}

/// The value plus the option's multiple of the square of the logsumexp; the same value where that option is 0.
fn plus_lse_square<'g>(b: &Build<'g>, option: &str, value: Expr<'g>, lse: Expr<'g>) -> Expr<'g> {
    if b.value(option) == Some(0.0) { value } else { value + b.param(option).times(lse * lse) }
}

/// `−Σⱼ pⱼ ln pⱼ` of the softmax `p`: no term is negative, and 0·ln 0 is 0.
pub(super) fn entropy_of(z: Expr<'_>) -> Expr<'_> {
    let p = z.softmax();
    let surprise = p.gt(0.0).select(z.logsumexp_shifted() - (z - z.max().detach()), 0.0);
    // What the derivative has through ln p adds up to Σ dp = 0; left to rounding, it would drown confident rows.
    (p * surprise).with_gradient(p, surprise).sum()
}

/// `ln Σⱼ exp zⱼ − z_y`, both counted from the row's maximum: their difference would cancel at large common offsets.
pub(super) fn label_nll<'g>(z: Expr<'g>, y: Expr<'g>) -> Expr<'g> {
    z.logsumexp_shifted() - (z.at(y) - z.max().detach())
}

/// `Σⱼ wⱼ·(ln Σₖ exp zₖ − zⱼ)`, both counted from the label's logit, which is known before the row has been read.
pub(super) fn nll_of_all<'g>(z: Expr<'g>, y: Expr<'g>, weight: Option<Expr<'g>>) -> Expr<'g> {
    // A label of probability zero has loss +∞ wherever the others are counted from.
    let origin = z.at(y).gt(-3.0e38).select(z.at(y), 0.0).detach();
    let lse = z.logsumexp_shifted() - (origin - z.max().detach());
    match weight {
        Some(w) => w.sum() * lse - w.times(z - origin).sum(),
        None => z.graph().count(Extent::Cols) * lse - (z - origin).sum(),
    }
}

/// The losses of the rows that are not ignored; their mean divides by the sum of the labels' weights.
pub(super) fn over_labels<'g>(b: &Build<'g>, value: Expr<'g>, label_weight: Option<Expr<'g>>) -> Unreduced<'g> {
    let valid = b.label_is_option("target", "ignore_index").map(|ignored| !ignored);
    let keep = |x: Expr<'g>| valid.map_or(x, |valid| x.masked(valid));
    let denominator = match (label_weight, valid) {
        (Some(weight), _) => Denominator::Sum(keep(weight)),
        (None, Some(valid)) => Denominator::Sum(valid.to_float()),
        (None, None) => Denominator::Count,
    };
    Unreduced { value: keep(value), denominator }
}

/// Softmax cross-entropy with z-loss, which keeps the softmax's normaliser near 1.
///
/// `L = ℓ − x_y + z·ℓ²`, with `ℓ = ln Σⱼ exp xⱼ`, `x = input` and `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices → loss `[N, d1, …]`.
/// Unit: nats; the mean divides by the number of rows that are not ignored.
/// Gradient: `(1 + 2zℓ)·softmax(x) − onehot(y)` with respect to `input`. Rows labelled `ignore_index` have loss and
/// gradient exactly 0.
/// Options: `z` (1e-4), `ignore_index` (−100).
/// Errors: `Error::Param` unless `z` is finite and ≥ 0; `Error::LabelOutOfRange` when a result with such a label is
/// read.
/// Source: Chowdhery et al. (2022), PaLM, arXiv:2204.02311. It is [`cross_entropy`] with `lse_square_scale`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::i32(&[1], &[1]));
/// let out = cpu::forward_backward(&losses::z_loss(0.5), &[("input", x), ("target", y)], &["input"])?;
/// let lse = 2f64.ln();
/// assert!((out.loss()? - (lse + 0.5 * lse * lse)).abs() < 1e-12);
/// assert!((out.grad("input")?[0] - (1.0 + lse) / 2.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn z_loss(z: impl Into<ParamValue>) -> ZLoss {
    let definition = of_logits_and_labels("z_loss");
    let loss = definition.special_param("z", 1e-4, Domain::NonNegative, &[0.0]).unreduced(|b| {
        let x = b.input("input");
        over_labels(b, plus_lse_square(b, "z", label_nll(x, b.input("target")), x.logsumexp()), None)
    });
    ZLoss(loss).z(z)
}

loss_with_options! {
    /// The loss that [`z_loss`] makes.
    ZLoss {
        /// `z`, the coefficient of the square of the logsumexp; finite and ≥ 0, else `Error::Param`. No default:
        /// [`z_loss`]'s argument.
        number z;
        /// Labels of this value are left out: loss and gradient exactly 0, and not in the mean. None (no label is) or any
        /// index; −100 by default.
        index ignore_index;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// Softmax cross-entropy of logits that are bounded smoothly.
///
/// `L = ln Σⱼ exp zⱼ − z_y`, with `z = c·tanh(input/c)`, `c = softcap` and `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices → loss `[N, d1, …]`.
/// Unit: nats; the mean divides by the number of rows that are not ignored.
/// Gradient: `(softmax(z) − onehot(y))·(1 − tanh²(input/c))` with respect to `input`. Rows labelled `ignore_index`
/// have loss and gradient exactly 0. A logit of −∞ means probability zero and is not capped.
/// Options: `softcap` (30), `ignore_index` (−100).
/// Errors: `Error::Param` unless `softcap` is finite and > 0; `Error::LabelOutOfRange` when a result with such a label
/// is read.
/// Source: Gemma Team (2024), Gemma 2, arXiv:2408.00118. It is [`cross_entropy`] with `softcap`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[f32::NEG_INFINITY, 1e4, -1e4], &[1, 3]), HostTensor::i32(&[2], &[1]));
/// let out = cpu::forward_backward(&losses::softcap_cross_entropy(5.0), &[("input", x), ("target", y)], &["input"])?;
/// assert!((out.loss()? - (10.0 + (-10f64).exp().ln_1p())).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn softcap_cross_entropy(softcap: impl Into<ParamValue>) -> SoftcapCrossEntropy {
    let definition = of_logits_and_labels("softcap_cross_entropy").param("softcap", 30.0, Domain::Positive);
    let loss = definition.unreduced(|b| {
        let z = capped(b.input("input"), b.param("softcap"));
        over_labels(b, label_nll(z, b.input("target")), None)
    });
    SoftcapCrossEntropy(loss).softcap(softcap)
}

loss_with_options! {
    /// The loss that [`softcap_cross_entropy`] makes.
    SoftcapCrossEntropy {
        /// `c`, which bounds the logits smoothly to ±c; finite and > 0, else `Error::Param`. No default:
        /// [`softcap_cross_entropy`]'s argument.
        number softcap;
        /// Labels of this value are left out: loss and gradient exactly 0, and not in the mean. None (no label is) or any
        /// index; −100 by default.
        index ignore_index;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// Softmax cross-entropy of logits and class probabilities.
///
/// `L = Σⱼ wⱼ·tⱼ·(ln Σₖ exp xₖ − xⱼ)`, with `x = input` and `t = (1 − ε)·target + ε/C`.
///
/// Shapes: `input, target: [N, C, d1, …]` (or `[C]`), optional `weight: [C]` → loss `[N, d1, …]`.
/// Unit: nats; the mean divides by the number of rows.
/// Gradient: `softmax(x)·Σₖ wₖtₖ − wt` with respect to `input`; rows of `target` need not sum to 1. With respect to
/// `target` it is `(1 − ε)·w·(ln Σₖ exp xₖ − x)`. A logit of −∞ means probability zero: with `wt = 0` it adds 0 to the loss (in
/// PyTorch NaN), else +∞.
/// Options: `label_smoothing` ε (0).
/// Errors: `Error::Param` unless `label_smoothing` is in \[0, 1\].
/// Source: same as `torch.nn.functional.cross_entropy` with class probabilities; [`cross_entropy`] takes labels.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::f32(&[0.25, 0.75], &[1, 2]));
/// let out = cpu::forward_backward(&losses::cross_entropy_prob(), &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?, [0.25, -0.25]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn cross_entropy_prob() -> CrossEntropyProb {
    let definition = of_input_and_target("cross_entropy_prob").row_axis(RowAxis::Class);
    let definition = definition.optional("weight", Scope::Column);
    let loss = definition.special_param("label_smoothing", 0.0, Domain::Unit, &[0.0]).expr(|b| {
        let mut t = b.input("target");
        if b.value("label_smoothing") != Some(0.0) {
            let share = b.param("label_smoothing");
            t = (1.0 - share).times(t) + share / b.graph().count(Extent::Cols);
        }
        cross_entropy_of(b.input("input"), weighted(b, t))
    });
    CrossEntropyProb(loss)
}

/// `−Σⱼ qⱼ·ln pⱼ` of the softmax `p` of `x`.
pub(super) fn cross_entropy_of<'g>(x: Expr<'g>, q: Expr<'g>) -> Expr<'g> {
    // What a probability of 0 is to have counts for nothing, whatever its logit is.
    let (log_p, total) = (x.log_softmax(), q.sum());
    let value = -q.times(log_p);
    // `p·Σq − q` cancels where p is near 1, as p − 1 does not.
    let p = x.softmax();
    let d_x = p.gt(0.5).select(total * (p - 1.0) + (total - q), total * p - q);
    value.with_gradient(q, -log_p).with_gradient(x, d_x).sum()
}

loss_with_options! {
    /// The loss that [`cross_entropy_prob`] makes.
    CrossEntropyProb {
        /// `ε`, the share of the target that is spread evenly over the classes; in \[0, 1\], else `Error::Param`; 0 by
        /// default.
        number label_smoothing;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// Negative log-likelihood of log-probabilities and class labels.
///
/// `L = −w_y·x_y`, with `x = input` and `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices, optional `weight: [C]`
/// → loss `[N, d1, …]`. Unit: nats; the mean divides by `Σ w_y` over the rows that are not ignored.
/// A log-probability of −∞ at the label has loss +∞, or 0 where `w_y` is 0 (in PyTorch NaN).
/// Gradient: `−w_y` at the label, 0 elsewhere. Rows labelled `ignore_index` have loss and gradient exactly 0; if all
/// are, the mean is NaN and the gradient 0.
/// Options: `ignore_index` (−100).
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: same as `torch.nn.functional.nll_loss`; [`cross_entropy`] takes logits.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[-0.5, -1.0], &[1, 2]), HostTensor::i32(&[1], &[1]));
/// let out = cpu::forward_backward(&losses::nll(), &[("input", x), ("target", y)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (1.0, &[0.0, -1.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn nll() -> Nll {
    let loss = of_logits_and_labels("nll").optional("weight", Scope::Column).unreduced(|b| {
        let y = b.input("target");
        let label_weight = b.optional("weight").map(|w| w.at(y));
        let log_likelihood = b.input("input").at(y);
        let value = -label_weight.map_or(log_likelihood, |w| w.times(log_likelihood));
        over_labels(b, value, label_weight)
    });
    Nll(loss)
}

loss_with_options! {
    /// The loss that [`nll`] makes.
    Nll {
        /// Labels of this value are left out: loss and gradient exactly 0, and not in the mean. None (no label is) or any
        /// index; −100 by default.
        index ignore_index;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}
