//! Focal losses: cross-entropy that counts what is classified well for less.

use super::binary::logistic;
use super::entry::{Entry, Range};
use super::options::loss_with_options;
use super::softmax::{label_nll, over_labels};
use crate::expr::Expr;
use crate::loss::Value::Num;
use crate::loss::{Build, DefinitionBuilder, Domain, Loss};
use crate::shape::RowAxis;
use crate::shape::Scope;

pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("sigmoid_focal", || sigmoid_focal().into())
        .inputs(&[("inputs", Range::Logits), ("targets", Range::Probability)])
        .variants(&[
            &[("gamma", Num(0.0))],
            &[("gamma", Num(1.0)), ("alpha", Num(-1.0))],
            &[("gamma", Num(0.5)), ("alpha", Num(0.75))],
            &[("gamma", Num(3.5)), ("alpha", Num(-1.0))],
        ]),
    Entry::new("multiclass_focal", || multiclass_focal().into()).inputs(&[("input", Range::Logits)]).variants(&[
        &[("gamma", Num(0.0))],
        &[("gamma", Num(1.0))],
        &[("gamma", Num(0.5))],
        &[("gamma", Num(3.5))],
    ]),
];

/// Focal loss of logits of two classes.
///
/// `L = αₜ·(1 − pₜ)^γ·bce`, with `p = sigmoid(x)`, `pₜ = p·t + (1 − p)(1 − t)`, `αₜ = α·t + (1 − α)(1 − t)` and `bce`
/// the binary cross-entropy of the logit `x = inputs` and `t = targets` in \[0, 1\].
///
/// Shapes: `inputs, targets` of one shape → loss of that shape. Unit: nats; the mean divides by the number
/// of elements (torchvision's default is no reduction; here it is the mean).
/// Gradient: of the whole expression, with respect to `inputs` and `targets`.
/// Logits of ±∞ are certain: the loss and its gradient with respect to `inputs` are 0 where that is right (in torchvision
/// NaN), else the loss is +∞.
/// Options: `alpha` (0.25; −1 leaves `αₜ` out), `gamma` (2).
/// Errors: `Error::Param` unless `alpha` is −1 or in \[0, 1\] and `gamma` ≥ 0.
/// Source: Lin et al. (2017), arXiv:1708.02002. Same as `torchvision.ops.sigmoid_focal_loss`; [`multiclass_focal`]
/// takes a softmax.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0], &[1]), HostTensor::f32(&[1.0], &[1]));
/// let out = cpu::forward_backward(&losses::sigmoid_focal(), &[("inputs", x), ("targets", t)], &["inputs"])?;
/// assert!((out.loss()? - 0.0625 * 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn sigmoid_focal() -> SigmoidFocal {
    let definition = Loss::define("sigmoid_focal").input("inputs", Scope::Element).input("targets", Scope::Element);
    let definition = definition.structural_param("alpha", 0.25, Domain::UnitOrOff, &[-1.0]);
    let loss = with_gamma(definition).expr(|b| focal_of_logits(b, b.input("inputs"), b.input("targets")));
    SigmoidFocal(loss)
}

/// `αₜ·(1 − pₜ)^γ·bce` of the logit `x` and the target `t`, with the options `alpha` and `gamma`.
pub(super) fn focal_of_logits<'g>(b: &Build<'g>, x: Expr<'g>, t: Expr<'g>) -> Expr<'g> {
    // 1 − pₜ without the difference, which cancels where pₜ is near 1.
    let miss = (-x).sigmoid() * t + x.sigmoid() * (1.0 - t);
    if b.value("alpha") == Some(-1.0) {
        return focus(b, miss, logistic(x, [t, 1.0 - t], 1.0));
    }
    let alpha = b.param("alpha");
    // Balanced before the logit comes in: a share of 0 leaves out what is infinite as well.
    let balance = alpha * t + (1.0 - alpha) * (1.0 - t);
    focus(b, miss, logistic(x, [balance * t, balance * (1.0 - t)], balance))
}

loss_with_options! {
    /// The loss that [`sigmoid_focal`] makes.
    SigmoidFocal {
        /// `α`, the share of the positive class in `αₜ`; in \[0, 1\], or −1, which leaves `αₜ` out and needs a plan of its
        /// own, else `Error::Param`; 0.25 by default.
        number alpha;
        /// `γ`, the exponent of `1 − pₜ`; finite and ≥ 0, else `Error::Param`; 2 by default.
        number gamma;
    }
}

/// Focal loss of logits of many classes.
///
/// `L = −α_y·(1 − p_y)^γ·ln p_y`, with `p = softmax(input)` and `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices, optional `alpha: [C]`
/// → loss `[N, d1, …]`. Unit: nats; the mean divides by the number of rows that are not ignored.
/// Gradient: `α_y·(1 − p_y)^(γ−1)·((1 − p_y) − γ·p_y·ln p_y)·(softmax − onehot(y))` with respect to `input`; rows
/// labelled `ignore_index` have loss and gradient exactly 0. A logit of −∞ means probability zero: at the label the loss is
/// +∞, unless its `alpha` is 0.
/// Options: `gamma` (2), `ignore_index` (−100).
/// Errors: `Error::Param` unless `gamma` is finite and ≥ 0; `Error::LabelOutOfRange` when a result with such a label
/// is read.
/// Source: Lin et al. (2017), arXiv:1708.02002, with a softmax. At `γ = 0` it is [`cross_entropy`](super::cross_entropy)
/// but for the mean, which does not divide by `α`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::i32(&[1], &[1]));
/// let out = cpu::forward_backward(&losses::multiclass_focal(), &[("input", x), ("target", y)], &["input"])?;
/// assert!((out.loss()? - 0.25 * 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn multiclass_focal() -> MulticlassFocal {
    let definition = Loss::define("multiclass_focal").row_axis(RowAxis::Class).input("input", Scope::Element);
    let definition = definition.label("target").optional("alpha", Scope::Column).index("ignore_index", Some(-100));
    let loss = with_gamma(definition).unreduced(|b| {
        let y = b.input("target");
        let nll = label_nll(b.input("input"), y);
        let alpha = b.optional("alpha").map(|alpha| alpha.at(y));
        // A class that does not count has no loss where it is impossible either.
        let nll = alpha.map_or(nll, |alpha| alpha.equals(0.0).and(nll.gt(3.0e38)).select(0.0, nll));
        let value = focus(b, -(-nll).expm1(), nll);
        over_labels(b, alpha.map_or(value, |alpha| alpha * value), None)
    });
    MulticlassFocal(loss)
}

loss_with_options! {
    /// The loss that [`multiclass_focal`] makes.
    MulticlassFocal {
        /// `γ`, the exponent of `1 − p_y`; finite and ≥ 0, else `Error::Param`; 2 by default.
        number gamma;
        /// Labels of this value are left out: loss and gradient exactly 0, and not in the mean. None (no label is) or any
        /// index; −100 by default.
        index ignore_index;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

pub(super) fn with_gamma(definition: DefinitionBuilder) -> DefinitionBuilder {
    definition.special_param("gamma", 2.0, Domain::NonNegative, FAST_POWERS)
}

/// Exponents at which [`to_the_power`] multiplies.
pub(super) const FAST_POWERS: &[f64] = &[0.0, 1.0, 2.0, 4.0];

/// `miss^γ · value`, where `miss` is the probability of all but the target.
pub(super) fn focus<'g>(b: &Build<'g>, miss: Expr<'g>, value: Expr<'g>) -> Expr<'g> {
    to_the_power(b, "gamma", miss).map_or(value, |power| power * value)
}

/// `miss` ≥ 0 to the power of that option, whose special values are [`FAST_POWERS`]; `None` where that is 0, and the power 1.
pub(super) fn to_the_power<'g>(b: &Build<'g>, option: &str, miss: Expr<'g>) -> Option<Expr<'g>> {
    match b.value(option) {
        Some(0.0) => None,
        Some(1.0) => Some(miss),
        Some(2.0) => Some(miss * miss),
        Some(4.0) => Some(miss.powi(4)),
        _ => {
            let exponent = b.param(option);
            // The power 0 is 1 whatever the miss is, beside an infinite value as well.
            let is_off = exponent.equals(0.0);
            let power = is_off.select(miss.detach(), miss).pow(exponent);
            // At 0 the power's derivative is infinite for exponents < 1, though the loss and its gradient go to 0 there.
            Some(miss.equals(0.0).select(is_off.to_float(), power))
        }
    }
}
