//! Losses of logits of two classes beside PyTorch's: soft and smoothed labels, and what counts for less.

use super::KERAS_EPSILON;
use super::binary::logistic;
use super::entry::{Entry, Range, Ranges};
use super::focal::{FAST_POWERS, focal_of_logits, to_the_power, with_gamma};
use super::options::loss_with_options;
use super::{of_input_and_target, of_true_and_predicted};
use crate::expr::Expr;
use crate::loss::Value::{Flag, Num};
use crate::loss::{Build, Domain, Loss, ParamValue};
use crate::shape::Scope;

const LOGITS_AND_LABELS: Ranges = &[("logits", Range::Logits), ("labels", Range::Probability)];
const INPUT_AND_TARGET: Ranges = &[("input", Range::Logits), ("target", Range::Probability)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("sigmoid_cross_entropy", sigmoid_cross_entropy).inputs(LOGITS_AND_LABELS),
    Entry::new("optax_sigmoid_focal", || optax_sigmoid_focal().into())
        .inputs(LOGITS_AND_LABELS)
        .variants(&[&[("gamma", Num(0.5)), ("alpha", Num(0.75))], &[("gamma", Num(1.0)), ("alpha", Num(0.25))]]),
    Entry::new("label_smoothing_bce", || label_smoothing_bce(0.1).into())
        .inputs(INPUT_AND_TARGET)
        .variants(&[&[("label_smoothing", Num(0.0))]]),
    Entry::new("asymmetric", || asymmetric().into())
        .inputs(&[("input", Range::Logits), ("target", Range::Binary)])
        .variants(&[
            &[("clip", Num(0.0)), ("gamma_neg", Num(2.0)), ("gamma_pos", Num(0.0))],
            &[("gamma_neg", Num(2.5)), ("gamma_pos", Num(0.5))],
        ]),
    Entry::new("binary_focal", || binary_focal().into())
        .inputs(&[("y_true", Range::Probability), ("y_pred", Range::Probability)])
        .inputs_where(&[("from_logits", Flag(true), &[("y_pred", Range::Logits)])])
        .variants(&[
            &[("apply_class_balancing", Flag(true)), ("alpha", Num(0.4)), ("label_smoothing", Num(0.1))],
            &[("from_logits", Flag(true)), ("gamma", Num(3.0))],
            &[("from_logits", Flag(true)), ("gamma", Num(0.0)), ("label_smoothing", Num(0.2))],
        ]),
];

/// Binary cross-entropy of logits.
///
/// `L = t·softplus(−x) + (1 − t)·softplus(x)`, with `x = logits` and `t = labels` in \[0, 1\].
///
/// Shapes: `logits, labels` of one shape → loss of that shape. Unit: nats; the mean divides by the number of elements.
/// Gradient: `sigmoid(x) − t` with respect to `logits`, `−x` with respect to `labels`.
/// A logit of −∞ means probability zero, one of +∞ probability one, as for [`bce_with_logits`](super::bce_with_logits),
/// which has weights too.
/// Source: same as `optax.losses.sigmoid_binary_cross_entropy`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, 0.0], &[2]), HostTensor::f32(&[1.0, 0.25], &[2]));
/// let out = cpu::forward_backward(&losses::sigmoid_cross_entropy(), &[("logits", x), ("labels", t)], &["logits"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("logits")?, [-0.25, 0.125]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn sigmoid_cross_entropy() -> Loss {
    let definition = Loss::define("sigmoid_cross_entropy").input("logits", Scope::Element);
    definition.input("labels", Scope::Element).expr(|b| {
        let t = b.input("labels");
        logistic(b.input("logits"), [t, 1.0 - t], 1.0)
    })
}

/// Focal loss of logits of two classes, as optax has it.
///
/// `L = αₜ·(1 − pₜ)^γ·bce`, as of [`sigmoid_focal`](super::sigmoid_focal), with `x = logits` and `t = labels`; by default
/// without `αₜ`.
///
/// Shapes: `logits, labels` of one shape → loss of that shape. Unit: nats; the mean divides by the number of elements.
/// Gradient: of the whole expression, with respect to `logits` and `labels`.
/// Options: `alpha` (−1, optax's None, leaves `αₜ` out), `gamma` (2).
/// Errors: `Error::Param` unless `alpha` is −1 or in \[0, 1\] and `gamma` ≥ 0.
/// Source: Lin et al. (2017), arXiv:1708.02002. Same as `optax.losses.sigmoid_focal_loss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0], &[1]), HostTensor::f32(&[1.0], &[1]));
/// let out = cpu::forward_backward(&losses::optax_sigmoid_focal(), &[("logits", x), ("labels", t)], &["logits"])?;
/// assert!((out.loss()? - 0.25 * 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn optax_sigmoid_focal() -> OptaxSigmoidFocal {
    let definition = Loss::define("optax_sigmoid_focal").input("logits", Scope::Element);
    let definition = definition.input("labels", Scope::Element);
    let definition = definition.structural_param("alpha", -1.0, Domain::UnitOrOff, &[-1.0]);
    let loss = with_gamma(definition).expr(|b| focal_of_logits(b, b.input("logits"), b.input("labels")));
    OptaxSigmoidFocal(loss)
}

loss_with_options! {
    /// The loss that [`optax_sigmoid_focal`] makes.
    OptaxSigmoidFocal {
        /// `α`, the share of the positive class in `αₜ`; in \[0, 1\], or −1, which leaves `αₜ` out and needs a plan of its
        /// own, else `Error::Param`; −1 by default.
        number alpha;
        /// `γ`, the exponent of `1 − pₜ`; finite and ≥ 0, else `Error::Param`; 2 by default.
        number gamma;
    }
}

/// Binary cross-entropy of logits with smoothed labels.
///
/// `L = q·y·softplus(−x) + (1 − y)·softplus(x)`, with `y = t·(1 − ε) + ε/2`, `x = input`, `t = target` in \[0, 1\],
/// `q = pos_weight` and `ε = label_smoothing`.
///
/// Shapes: `input, target` of one shape; an optional `pos_weight` that broadcasts → loss of that shape. Unit: nats; the
/// mean divides by the number of elements.
/// Gradient: `(1 − y)·sigmoid(x) − q·y·sigmoid(−x)` with respect to `input`.
/// Errors: `Error::Param` unless `label_smoothing` is in \[0, 1\].
/// Source: smoothing as in `keras.losses.BinaryCrossentropy`; timm's `BinaryCrossEntropy` smooths one-hot labels of `C`
/// classes by `ε/C` instead. [`bce_with_logits`](super::bce_with_logits) at `ε = 0`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0], &[1]), HostTensor::f32(&[1.0], &[1]));
/// let out = cpu::forward_backward(&losses::label_smoothing_bce(0.5), &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?, [-0.25]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn label_smoothing_bce(label_smoothing: impl Into<ParamValue>) -> LabelSmoothingBce {
    let definition = of_input_and_target("label_smoothing_bce").optional("pos_weight", Scope::Element);
    let loss = definition.special_param("label_smoothing", 0.1, Domain::Unit, &[0.0]).expr(|b| {
        let y = smoothed(b, b.input("target"), 0.5);
        match b.optional("pos_weight") {
            Some(q) => logistic(b.input("input"), [q * y, 1.0 - y], q * y + (1.0 - y)),
            None => logistic(b.input("input"), [y, 1.0 - y], 1.0),
        }
    });
    LabelSmoothingBce(loss).label_smoothing(label_smoothing)
}

loss_with_options! {
    /// The loss that [`label_smoothing_bce`] makes.
    LabelSmoothingBce {
        /// `ε`, the share of each label that both classes have in halves; in \[0, 1\], else `Error::Param`. No default:
        /// [`label_smoothing_bce`]'s argument.
        number label_smoothing;
    }
}

/// `t·(1 − ε) + ε·even`, where the option `label_smoothing` is `ε`: a share of the labels goes to all classes evenly.
pub(super) fn smoothed<'g>(b: &Build<'g>, t: Expr<'g>, even: impl crate::expr::IntoExpr<'g>) -> Expr<'g> {
    if b.value("label_smoothing") == Some(0.0) {
        return t;
    }
    let share = b.param("label_smoothing");
    (1.0 - share) * t + share * even
}

/// `softplus(−x)` and `softplus(x)`, that is `−ln p` and `−ln(1 − p)`, with one exponential: they differ by the logit.
fn nll_of_both(x: Expr<'_>) -> [Expr<'_>; 2] {
    let above = x.ge(0.0);
    let smaller = above.select(-x, x).softplus();
    [above.select(smaller, smaller - x), above.select(smaller + x, smaller)]
}

/// Asymmetric loss of several labels per row: easy negatives count for less, very easy ones for nothing.
///
/// `L = −(1 − p)^γ₊·ln p` for a label of 1, else `−q^γ₋·ln(1 − q)`, with `p = sigmoid(input)` and
/// `q = max(p − clip, 0)`.
///
/// Shapes: `input` of any shape, `target` of that shape, class indices 0 and 1 → loss of that shape. Unit: nats; the mean
/// divides by the number of elements. `Reduction::BatchMean`, which divides by the size of the first axis, is timm's.
/// Gradient: of the whole expression with respect to `input`, 0 at `p = clip`; with `detach_weights` the powers are
/// constants in it.
/// Options: `gamma_neg` γ₋ (4), `gamma_pos` γ₊ (1), `clip` (0.05; 0 leaves the shift out), `detach_weights` (false).
/// Errors: `Error::Param` unless the exponents are finite and ≥ 0 and `clip` is in \[0, 1\]; `Error::LabelOutOfRange` when a
/// result with another label is read.
/// Source: Ben-Baruch et al. (2020), arXiv:2009.14119. Same as timm's `AsymmetricLossMultiLabel`, which also clamps the
/// probabilities in its logarithms at 1e-8.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, -9.0], &[1, 2]), HostTensor::i32(&[1, 0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::asymmetric(), &[("input", x), ("target", y)], &["input"])?;
/// assert!((out.loss()? - 0.5 * 2f64.ln() / 2.0).abs() < 1e-12);
/// assert_eq!(out.grad("input")?[1], 0.0);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn asymmetric() -> Asymmetric {
    let definition = Loss::define("asymmetric").input("input", Scope::Element).labels("target", Scope::Element);
    let definition = definition.special_param("gamma_neg", 4.0, Domain::NonNegative, FAST_POWERS);
    let definition = definition.special_param("gamma_pos", 1.0, Domain::NonNegative, FAST_POWERS);
    let definition = definition.structural_param("clip", 0.05, Domain::Unit, &[0.0]).flag("detach_weights", false);
    let loss = definition.expr(|b| {
        let (x, y) = (b.input("input"), b.input("target").in_range(2));
        let (p, miss) = (x.sigmoid(), (-x).sigmoid());
        let [positive, negative] = nll_of_both(x);
        let (q, negative) = match b.value("clip") {
            Some(0.0) => (p, negative),
            _ => {
                let q = (p - b.param("clip")).relu();
                (q, -(-q).log1p())
            }
        };
        let (positive, negative) = (weighed(b, "gamma_pos", miss, positive), weighed(b, "gamma_neg", q, negative));
        y.equals(b.graph().index(1)).select(positive, negative)
    });
    Asymmetric(loss)
}

/// The value times a power of `base`, the option's, which is a constant with `detach_weights`.
fn weighed<'g>(b: &Build<'g>, option: &str, base: Expr<'g>, value: Expr<'g>) -> Expr<'g> {
    let Some(power) = to_the_power(b, option, base) else { return value };
    if b.flag("detach_weights") { power.detach() * value } else { power * value }
}

loss_with_options! {
    /// The loss that [`asymmetric`] makes.
    Asymmetric {
        /// `γ₋`, the exponent of `q` for labels of 0; finite and ≥ 0, else `Error::Param`; 4 by default.
        number gamma_neg;
        /// `γ₊`, the exponent of `1 − p` for labels of 1; finite and ≥ 0, else `Error::Param`; 1 by default.
        number gamma_pos;
        /// `clip`, by which the probability of a label of 0 is lowered; in \[0, 1\] (0: not at all, which needs a plan of
        /// its own), else `Error::Param`; 0.05 by default.
        number clip;
        /// Whether the powers are constants in the gradient; false by default.
        flag detach_weights;
    }
}

/// `−ln p` of a probability that Keras clips to \[1e-7, 1 − 1e-7\], from `−ln p` before; beyond, the gradient is 0.
pub(super) fn clipped_as_in_keras(nll: Expr<'_>) -> Expr<'_> {
    nll.clamp(-(-KERAS_EPSILON).ln_1p(), -KERAS_EPSILON.ln())
}

/// Focal loss of two classes, of probabilities or logits, averaged over the last axis, as Keras has it.
///
/// `L = meanⱼ αₜ·(1 − pₜ)^γ·bce(t, p)`, with `p = y_pred` (or its sigmoid), `pₜ = t·p + (1 − t)(1 − p)`,
/// `αₜ = t·α + (1 − t)(1 − α)` and `t = y_true·(1 − ε) + ε/2`; the logarithms of `bce` are of `p` and `1 − p` clipped to
/// \[1e-7, 1 − 1e-7\]. Without `apply_class_balancing`, `αₜ` is 1.
///
/// Shapes: `y_true, y_pred: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1. Unit:
/// nats; the mean divides by the number of rows.
/// Gradient: of the whole expression, with respect to `y_pred` and `y_true`; a clipped logarithm has none.
/// Options: `apply_class_balancing` (false), `alpha` α (0.25), `gamma` γ (2), `from_logits` (false), `label_smoothing` ε
/// (0), `row_axis`, the axis of the mean (the last); by name `axis` too.
/// Errors: `Error::Param` unless `alpha` and `label_smoothing` are in \[0, 1\] and `gamma` is finite and ≥ 0.
/// Source: Lin et al. (2017), arXiv:1708.02002. Same as `keras.losses.BinaryFocalCrossentropy`, whose clipped `1 − 1e-7`
/// is coarse in f32; here `1 − p` is exact of both.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[1.0, 0.0], &[1, 2]), HostTensor::f32(&[0.5, 0.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::binary_focal(), &[("y_true", t), ("y_pred", p)], &["y_pred"])?;
/// assert!((out.loss()? - 0.25 * 2f64.ln() / 2.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn binary_focal() -> BinaryFocal {
    let definition = of_true_and_predicted("binary_focal").flag("apply_class_balancing", false);
    let definition = with_gamma(definition.param("alpha", 0.25, Domain::Unit)).flag("from_logits", false);
    let loss = definition.special_param("label_smoothing", 0.0, Domain::Unit, &[0.0]).expr(|b| {
        let (x, t) = (b.input("y_pred"), smoothed(b, b.input("y_true"), 0.5));
        let (p, other, nll, nll_other) = match b.flag("from_logits") {
            true => {
                let [nll, nll_other] = nll_of_both(x);
                (x.sigmoid(), (-x).sigmoid(), nll, nll_other)
            }
            false => (x, 1.0 - x, -x.log(), -(-x).log1p()),
        };
        let bce = t * clipped_as_in_keras(nll) + (1.0 - t) * clipped_as_in_keras(nll_other);
        let power = to_the_power(b, "gamma", t * other + (1.0 - t) * p);
        let value = power.map_or(bce, |power| power * bce);
        if !b.flag("apply_class_balancing") {
            return value.mean();
        }
        let alpha = b.param("alpha");
        ((t * alpha + (1.0 - t) * (1.0 - alpha)) * value).mean()
    });
    BinaryFocal(loss)
}

loss_with_options! {
    /// The loss that [`binary_focal`] makes.
    BinaryFocal {
        /// Whether `αₜ` multiplies the loss; false by default.
        flag apply_class_balancing;
        /// `α`, the share of the positive class in `αₜ`; in \[0, 1\], else `Error::Param`; 0.25 by default. It counts with
        /// `apply_class_balancing` only.
        number alpha;
        /// `γ`, the exponent of `1 − pₜ`; finite and ≥ 0, else `Error::Param`; 2 by default.
        number gamma;
        /// Whether `y_pred` are logits; false by default.
        flag from_logits;
        /// `ε`, the share of each label that both classes have in halves; in \[0, 1\], else `Error::Param`; 0 by default.
        number label_smoothing;
        /// The axis of the mean: the last one by default.
        rows row_axis;
    }
}
