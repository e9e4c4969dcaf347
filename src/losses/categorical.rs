//! Cross-entropies of class probabilities beside PyTorch's: Keras's, poly loss, and the entropy itself.

use super::entry::{Entry, Range, Ranges};
use super::focal::{to_the_power, with_gamma};
use super::of_true_and_predicted;
use super::options::loss_with_options;
use super::sigmoid::{clipped_as_in_keras, smoothed};
use super::softmax::{cross_entropy_of, entropy_of};
use crate::expr::{Expr, Extent};
use crate::loss::Value::{Flag, Num};
use crate::loss::{Build, Domain, Loss};
use crate::shape::{RowAxis, Scope};

const OF_PROBABILITIES: Ranges = &[("y_true", Range::Probability), ("y_pred", Range::Positive)];
const OF_LOGITS: &[(&str, crate::loss::Value, Ranges)] =
    &[("from_logits", Flag(true), &[("y_pred", Range::Logits), ("y_true", Range::Probability)])];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("categorical_crossentropy", || categorical_crossentropy().into())
        .inputs(OF_PROBABILITIES)
        .inputs_where(OF_LOGITS)
        .variants(&[
            &[("label_smoothing", Num(0.1))],
            &[("from_logits", Flag(true))],
            &[("from_logits", Flag(true)), ("label_smoothing", Num(0.2))],
        ]),
    Entry::new("categorical_focal", || categorical_focal().into())
        .inputs(OF_PROBABILITIES)
        .inputs_where(OF_LOGITS)
        .variants(&[
            &[("label_smoothing", Num(0.1)), ("gamma", Num(0.0))],
            &[("from_logits", Flag(true)), ("alpha", Num(0.6))],
            &[("from_logits", Flag(true)), ("gamma", Num(3.5))],
        ]),
    Entry::new("poly_cross_entropy", || poly_cross_entropy().into())
        .inputs(&[("logits", Range::Logits), ("labels", Range::Probability)])
        .variants(&[&[("epsilon", Num(0.0))], &[("epsilon", Num(-1.0))]]),
    Entry::new("entropy", || entropy().into()).inputs(&[("input", Range::Logits)]),
];

/// Cross-entropy of class probabilities, or of logits, as Keras has it.
///
/// `L = −Σⱼ tⱼ·ln pⱼ`, with `t = y_true·(1 − ε) + ε/C` and `p` the softmax of `y_pred`, or (not `from_logits`) `y_pred`
/// divided by its sum over the classes and clipped to \[1e-7, 1 − 1e-7\].
///
/// Shapes: `y_true, y_pred: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1. Unit:
/// nats; the mean divides by the number of rows.
/// Gradient: of the whole expression, with respect to `y_pred` and `y_true`; a clipped probability has none.
/// Options: `from_logits` (false), `label_smoothing` ε (0), `row_axis`, the axis of the classes (the last); by name `axis`
/// too.
/// Errors: `Error::Param` unless `label_smoothing` is in \[0, 1\].
/// Source: same as `keras.losses.CategoricalCrossentropy`; [`cross_entropy_prob`](super::cross_entropy_prob) is
/// PyTorch's.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[1.0, 0.0], &[1, 2]), HostTensor::f32(&[1.0, 3.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::categorical_crossentropy(), &[("y_true", t), ("y_pred", p)], &["y_pred"])?;
/// assert!((out.loss()? - 4f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("y_pred")?, [-0.75, 0.25]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn categorical_crossentropy() -> CategoricalCrossentropy {
    let definition = of_true_and_predicted("categorical_crossentropy").flag("from_logits", false);
    let loss = definition.special_param("label_smoothing", 0.0, Domain::Unit, &[0.0]).expr(|b| {
        let (x, t) = (b.input("y_pred"), smoothed_over_classes(b));
        if b.flag("from_logits") { cross_entropy_of(x, t) } else { (t * clipped_as_in_keras(nll_of_shares(x))).sum() }
    });
    CategoricalCrossentropy(loss)
}

loss_with_options! {
    /// The loss that [`categorical_crossentropy`] makes.
    CategoricalCrossentropy {
        /// Whether `y_pred` are logits; false by default.
        flag from_logits;
        /// `ε`, the share of the target that is spread evenly over the classes; in \[0, 1\], else `Error::Param`; 0 by
        /// default.
        number label_smoothing;
        /// The axis of the classes: the last one by default.
        rows row_axis;
    }
}

/// The targets of Keras, with a share spread evenly over the classes.
fn smoothed_over_classes<'g>(b: &Build<'g>) -> Expr<'g> {
    smoothed(b, b.input("y_true"), 1.0 / b.graph().count(Extent::Cols))
}

/// `−ln(xⱼ/Σₖ xₖ)`
fn nll_of_shares(x: Expr<'_>) -> Expr<'_> {
    -(x / x.sum()).log()
}

/// Focal loss of class probabilities, or of logits, as Keras has it.
///
/// `L = Σⱼ αⱼ·(1 − pⱼ)^γ·tⱼ·(−ln pⱼ)`, with `t = y_true·(1 − ε) + ε/C` and `p` the softmax of `y_pred`, or (not
/// `from_logits`) `y_pred` divided by its sum over the classes; both clipped to \[1e-7, 1 − 1e-7\].
///
/// Shapes: `y_true, y_pred: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1.
/// Optional `alpha: [cols]`, one factor per class instead of the option of that name. Unit: nats; the mean divides by the
/// number of rows.
/// Gradient: of the whole expression, with respect to `y_pred`, `y_true` and `alpha`; a clipped probability has none.
/// Options: `alpha` α (0.25), `gamma` γ (2), `from_logits` (false), `label_smoothing` ε (0), `row_axis`, the axis of the
/// classes (the last); by name `axis` too.
/// Errors: `Error::Param` unless `alpha` is finite, `gamma` is finite and ≥ 0 and `label_smoothing` is in \[0, 1\].
/// Source: Lin et al. (2017), arXiv:1708.02002, with a softmax. Same as `keras.losses.CategoricalFocalCrossentropy`;
/// [`multiclass_focal`](super::multiclass_focal) takes class indices.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[1.0, 0.0], &[1, 2]), HostTensor::f32(&[0.5, 0.5], &[1, 2]));
/// let out = cpu::forward_backward(&losses::categorical_focal(), &[("y_true", t), ("y_pred", p)], &["y_pred"])?;
/// assert!((out.loss()? - 0.25 * 0.25 * 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn categorical_focal() -> CategoricalFocal {
    let definition = of_true_and_predicted("categorical_focal").optional("alpha", Scope::Column);
    let definition = with_gamma(definition.param("alpha", 0.25, Domain::Finite)).flag("from_logits", false);
    let loss = definition.special_param("label_smoothing", 0.0, Domain::Unit, &[0.0]).expr(|b| {
        let (x, t) = (b.input("y_pred"), smoothed_over_classes(b));
        let nll = clipped_as_in_keras(if b.flag("from_logits") { -x.log_softmax() } else { nll_of_shares(x) });
        let power = to_the_power(b, "gamma", -(-nll).expm1());
        let value = t * power.map_or(nll, |power| power * nll);
        match b.optional("alpha") {
            Some(alpha) => (alpha * value).sum(),
            None => b.param("alpha") * value.sum(),
        }
    });
    CategoricalFocal(loss)
}

loss_with_options! {
    /// The loss that [`categorical_focal`] makes.
    CategoricalFocal {
        /// `α`, one factor for all classes; finite, else `Error::Param`; 0.25 by default. The input `alpha`, where it is
        /// given, has one per class instead.
        number alpha;
        /// `γ`, the exponent of `1 − pⱼ`; finite and ≥ 0, else `Error::Param`; 2 by default.
        number gamma;
        /// Whether `y_pred` are logits; false by default.
        flag from_logits;
        /// `ε`, the share of the target that is spread evenly over the classes; in \[0, 1\], else `Error::Param`; 0 by
        /// default.
        number label_smoothing;
        /// The axis of the classes: the last one by default.
        rows row_axis;
    }
}

/// Poly-1 loss: cross-entropy of logits and class probabilities, with the first term of its series weighted anew.
///
/// `L = −Σⱼ tⱼ·ln pⱼ + ε·Σⱼ tⱼ·(1 − pⱼ)`, with `p = softmax(logits)`, `t = labels` and `ε = epsilon`.
///
/// Shapes: `logits, labels: [N, …, C]` (or `[C]`) → loss `[N, …]`. Unit: nats; the mean divides by the number of rows.
/// Gradient: of the whole expression, with respect to `logits` and `labels`.
/// Options: `epsilon` (2), `row_axis`, the axis of the classes (the last); by name `axis` too.
/// Errors: `Error::Param` unless `epsilon` is finite.
/// Source: Leng et al. (2022), PolyLoss, arXiv:2204.12511. Same as `optax.losses.poly_loss_cross_entropy`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::f32(&[1.0, 0.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::poly_cross_entropy(), &[("logits", x), ("labels", t)], &["logits"])?;
/// assert!((out.loss()? - (2f64.ln() + 1.0)).abs() < 1e-12);
/// assert_eq!(out.grad("logits")?, [-1.0, 1.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn poly_cross_entropy() -> PolyCrossEntropy {
    let definition = Loss::define("poly_cross_entropy").row_axis(RowAxis::Last).input("logits", Scope::Element);
    let definition = definition.input("labels", Scope::Element);
    let loss = definition.special_param("epsilon", 2.0, Domain::Finite, &[0.0]).expr(|b| {
        let (x, t) = (b.input("logits"), b.input("labels"));
        let value = cross_entropy_of(x, t);
        // 1 − p without the difference, which cancels where p is near 1.
        let missed = || (t * -x.log_softmax().expm1()).sum();
        if b.value("epsilon") == Some(0.0) { value } else { value + b.param("epsilon") * missed() }
    });
    PolyCrossEntropy(loss)
}

loss_with_options! {
    /// The loss that [`poly_cross_entropy`] makes.
    PolyCrossEntropy {
        /// `ε`, the coefficient of `Σⱼ tⱼ·(1 − pⱼ)`; finite, else `Error::Param`; 2 by default.
        number epsilon;
        /// The axis of the classes: the last one by default.
        rows row_axis;
    }
}

/// Entropy of a softmax: to be lowered where predictions should be certain, or, with a negative weight, a bonus.
///
/// `L = −Σⱼ pⱼ·ln pⱼ`, with `p = softmax(input)`; 0·ln 0 is 0.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`) → loss `[N, d1, …]`. Unit: nats; the mean divides by the number of rows.
/// Gradient: `−pⱼ·(ln pⱼ + L)` with respect to `input`. A logit of −∞ means probability zero.
/// Source: Shannon (1948); as a loss Grandvalet and Bengio (2004), NeurIPS.
/// [`cross_entropy`](super::cross_entropy) has it as `entropy_bonus`, in the same trip.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let x = HostTensor::f32(&[1.0, 1.0, f32::NEG_INFINITY], &[1, 3]);
/// let out = cpu::forward_backward(&losses::entropy(), &[("input", x)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert!(out.grad("input")?.iter().all(|g| g.abs() < 1e-12));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn entropy() -> Entropy {
    let definition = Loss::define("entropy").row_axis(RowAxis::Class).input("input", Scope::Element);
    Entropy(definition.expr(|b| entropy_of(b.input("input"))))
}

loss_with_options! {
    /// The loss that [`entropy`] makes.
    Entropy {
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}
