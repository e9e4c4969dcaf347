//! Softmax cross-entropy with a margin on the label's logit.

use super::entry::{Entry, Range};
use super::options::loss_with_options;
use super::softmax::label_nll;
use crate::loss::Value::Num;
use crate::loss::{Denominator, Domain, Loss, Unreduced};
use crate::shape::{RowAxis, Scope};

pub(super) const ENTRIES: &[Entry] = &[
    // Cosines, as in the paper: times 30, logits of other losses are beyond what f32 has digits for.
    Entry::new("ldam", || ldam().into())
        .inputs(&[("input", Range::Cosine), ("margins", Range::Probability)])
        .variants(&[&[("scale", Num(2.0))]]),
];

/// Label-distribution-aware margin loss: cross-entropy with a margin per class, larger for rare ones.
///
/// `L = w_y·(ln Σⱼ exp zⱼ − z_y)`, with `zⱼ = scale·(xⱼ − marginsⱼ·[j = y])`, `x = input` and `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `margins: [C]`, `target: [N, d1, …]` class indices, optional `weight: [C]`
/// → loss `[N, d1, …]`. Unit: nats; the mean divides by `Σ w_y`.
/// Gradient: `w_y·scale·(softmax(z) − onehot(y))` with respect to `input`; with respect to `margins` minus that of the
/// label's logit.
/// Options: `scale` (30).
/// Errors: `Error::Param` unless `scale` is finite and > 0; `Error::LabelOutOfRange` when a result with such a label is
/// read.
/// Source: Cao et al. (2019), arXiv:1906.07413, where `margins` are proportional to the classes' counts to the power −1/4,
/// the largest 0.5, and `input` are cosines.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, margins) = (HostTensor::f32(&[1.0, 1.5], &[1, 2]), HostTensor::f32(&[0.0, 0.5], &[2]));
/// let inputs = [("input", x), ("margins", margins), ("target", HostTensor::i32(&[1], &[1]))];
/// let out = cpu::forward_backward(&losses::ldam().scale(2.0), &inputs, &["input", "margins"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert!((out.grad("input")?[1] + 1.0).abs() < 1e-12 && (out.grad("margins")?[1] - 1.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn ldam() -> Ldam {
    let definition = Loss::define("ldam").row_axis(RowAxis::Class).input("input", Scope::Element);
    let definition = definition.input("margins", Scope::Column).label("target").optional("weight", Scope::Column);
    let loss = definition.param("scale", 30.0, Domain::Positive).unreduced(|b| {
        let (x, y) = (b.input("input"), b.input("target"));
        let margin = b.graph().col_index().equals(y).select(b.input("margins"), 0.0);
        // The row's maximum comes off first: beside a large common offset, margins would be rounded away.
        let nll = label_nll(b.param("scale") * ((x - x.max().detach()) - margin), y);
        match b.optional("weight").map(|w| w.at(y)) {
            Some(w) => Unreduced { value: w.times(nll), denominator: Denominator::Sum(w) },
            None => nll.into(),
        }
    });
    Ldam(loss)
}

loss_with_options! {
    /// The loss that [`ldam`] makes.
    Ldam {
        /// `scale`, which multiplies the logits, once the margins are off; finite and > 0, else `Error::Param`; 30 by
        /// default.
        number scale;
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}
