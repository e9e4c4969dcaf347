//! Cross-entropy of a softmax: labels of many classes.

use super::{of_input_and_target, weighted};
use crate::expr::{Expr, Extent, Scope};
use crate::loss::{Build, Denominator, Domain, Loss, RowAxis, Unreduced};

/// Softmax cross-entropy of logits and class labels.
///
/// `L = w_y·(ln Σⱼ exp zⱼ − z_y)`, with `z = input/temperature` and `y = target`. With label smoothing ε it is
/// `(1 − ε)` of that plus `ε/C · Σⱼ wⱼ·(ln Σₖ exp zₖ − zⱼ)`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices, optional `weight: [C]`
/// → loss `[N, d1, …]`. Unit: nats; the mean divides by `Σ w_y` over the rows that are not ignored.
/// Gradient: `w_y·(softmax(z) − onehot(y))/temperature` with respect to `input` (ε = 0). Rows labelled
/// `ignore_index` have loss and gradient exactly 0, whatever they hold; if all are, the mean is NaN and the gradient 0.
/// A logit of −∞ means probability zero.
/// Options: `ignore_index` (−100), `label_smoothing` (0), `temperature` (1).
/// Errors: `Error::Param` unless `label_smoothing` is in \[0, 1\] and `temperature` > 0; `Error::LabelOutOfRange` when
/// a result with such a label is read.
/// Source: same as `torch.nn.functional.cross_entropy` with class indices; [`cross_entropy_prob`] takes
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
pub fn cross_entropy() -> Loss {
    let definition = Loss::define("cross_entropy").row_axis(RowAxis::Class).input("input", Scope::Element);
    let definition = definition.label("target").optional("weight", Scope::Column);
    let definition = definition.index("ignore_index", Some(-100));
    let definition = definition.structural_param("label_smoothing", 0.0, Domain::Unit, &[0.0]);
    definition.structural_param("temperature", 1.0, Domain::Positive, &[1.0]).unreduced(|b| {
        let mut z = b.input("input");
        if b.value("temperature") != 1.0 {
            // The row's maximum comes off first: divided, a large common offset would round the differences away.
            z = (z - z.max().detach()) / b.param("temperature");
        }
        let y = b.input("target");
        let weight = b.optional("weight");
        let label_weight = weight.map(|w| w.at(y));
        let mut value = label_nll(z, y);
        if let Some(w) = label_weight {
            value = w * value;
        }
        if b.value("label_smoothing") != 0.0 {
            let share = b.param("label_smoothing");
            let classes = b.graph().count(Extent::Cols);
            value = (1.0 - share) * value + share / classes * nll_of_all(z, y, weight);
        }
        over_labels(b, value, label_weight)
    })
}

/// `ln Σⱼ exp zⱼ − z_y`, both counted from the row's maximum: their difference would cancel at large common offsets.
pub(super) fn label_nll<'g>(z: Expr<'g>, y: Expr<'g>) -> Expr<'g> {
    z.logsumexp_shifted() - (z.at(y) - z.max().detach())
}

/// `Σⱼ wⱼ·(ln Σₖ exp zₖ − zⱼ)`, both counted from the label's logit, which is known before the row has been read.
fn nll_of_all<'g>(z: Expr<'g>, y: Expr<'g>, weight: Option<Expr<'g>>) -> Expr<'g> {
    // A label of probability zero has loss +∞ wherever the others are counted from.
    let origin = z.at(y).gt(-3.0e38).select(z.at(y), 0.0).detach();
    let lse = z.logsumexp_shifted() - (origin - z.max().detach());
    match weight {
        Some(w) => w.sum() * lse - (w * (z - origin)).sum(),
        None => z.graph().count(Extent::Cols) * lse - (z - origin).sum(),
    }
}

/// The losses of the rows that are not ignored; their mean divides by the sum of the labels' weights.
pub(super) fn over_labels<'g>(b: &Build<'g>, value: Expr<'g>, label_weight: Option<Expr<'g>>) -> Unreduced<'g> {
    let valid = b.index("ignore_index").map(|index| !b.label_is("target", index));
    // An index that no label of this type can have ignores nothing.
    let valid = valid.filter(|valid| valid.scope() == Scope::Row);
    let keep = |x: Expr<'g>| valid.map_or(x, |valid| x.masked(valid));
    let denominator = match (label_weight, valid) {
        (Some(weight), _) => Denominator::Sum(keep(weight)),
        (None, Some(valid)) => Denominator::Sum(valid.to_float()),
        (None, None) => Denominator::Count,
    };
    Unreduced { value: keep(value), denominator }
}

/// Softmax cross-entropy of logits and class probabilities.
///
/// `L = Σⱼ wⱼ·tⱼ·(ln Σₖ exp xₖ − xⱼ)`, with `x = input` and `t = (1 − ε)·target + ε/C`.
///
/// Shapes: `input, target: [N, C, d1, …]` (or `[C]`), optional `weight: [C]` → loss `[N, d1, …]`.
/// Unit: nats; the mean divides by the number of rows.
/// Gradient: `softmax(x)·Σₖ wₖtₖ − wt` with respect to `input`; rows of `target` need not sum to 1. With respect to
/// `target` it is `(1 − ε)·w·(ln Σₖ exp xₖ − x)`. A logit of −∞ with `target` 0 gives NaN, as in PyTorch.
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
pub fn cross_entropy_prob() -> Loss {
    let definition = of_input_and_target("cross_entropy_prob").row_axis(RowAxis::Class);
    let definition = definition.optional("weight", Scope::Column);
    definition.structural_param("label_smoothing", 0.0, Domain::Unit, &[0.0]).expr(|b| {
        let mut t = b.input("target");
        if b.value("label_smoothing") != 0.0 {
            let share = b.param("label_smoothing");
            t = (1.0 - share) * t + share / b.graph().count(Extent::Cols);
        }
        -(weighted(b, t) * b.input("input").log_softmax()).sum()
    })
}

/// Negative log-likelihood of log-probabilities and class labels.
///
/// `L = −w_y·x_y`, with `x = input` and `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices, optional `weight: [C]`
/// → loss `[N, d1, …]`. Unit: nats; the mean divides by `Σ w_y` over the rows that are not ignored.
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
pub fn nll() -> Loss {
    let definition = Loss::define("nll").row_axis(RowAxis::Class).input("input", Scope::Element).label("target");
    definition.optional("weight", Scope::Column).index("ignore_index", Some(-100)).unreduced(|b| {
        let y = b.input("target");
        let label_weight = b.optional("weight").map(|w| w.at(y));
        let log_likelihood = b.input("input").at(y);
        let value = -label_weight.map_or(log_likelihood, |w| w * log_likelihood);
        over_labels(b, value, label_weight)
    })
}
