//! Softmax cross-entropy with a margin on the label's logit.

use super::entry::{Entry, Range};
use super::options::loss_with_options;
use super::softmax::label_nll;
use crate::expr::Expr;
use crate::loss::Value::Num;
use crate::loss::{Build, DefinitionBuilder, Denominator, Domain, Loss, Unreduced};
use crate::shape::{RowAxis, Scope};

pub(super) const ENTRIES: &[Entry] = &[
    // Cosines, as in the paper: times 30, logits of other losses are beyond what f32 has digits for.
    Entry::new("ldam", || ldam().into())
        .inputs(&[("input", Range::Cosine), ("margins", Range::Probability)])
        .variants(&[&[("scale", Num(2.0))]]),
    Entry::new("cosface", || cosface().into())
        .inputs(&[("input", Range::Cosine)])
        .variants(&[&[("margin", Num(0.1)), ("scale", Num(4.0))]]),
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
        let nll = nll_with_margin(b, b.input("margins"));
        match b.optional("weight").map(|w| w.at(b.input("target"))) {
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

/// The label's negative log-likelihood of the logits times `scale`, the label's less the margin.
fn nll_with_margin<'g>(b: &Build<'g>, margin: Expr<'g>) -> Expr<'g> {
    let (x, y) = (b.input("input"), b.input("target"));
    let margin = b.graph().col_index().equals(y).select(margin, 0.0);
    // The row's maximum comes off first: beside a large common offset, margins would be rounded away.
    label_nll(b.param("scale") * ((x - x.max().detach()) - margin), y)
}

/// CosFace: cross-entropy of scaled cosines, the label's less a margin.
///
/// `L = ln Σⱼ exp zⱼ − z_y`, with `zⱼ = scale·(xⱼ − margin·[j = y])`, `x = input` and `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`) cosines of an embedding with each class, `target: [N, d1, …]` class indices →
/// loss `[N, d1, …]`. Unit: nats; the mean divides by the number of rows.
/// Gradient: `scale·(softmax(z) − onehot(y))` with respect to `input`.
/// Options: `margin` (0.35), `scale` (64).
/// Errors: `Error::Param` unless `margin` is finite and `scale` finite and > 0; `Error::LabelOutOfRange` when a result with
/// such a label is read.
/// Source: Wang et al. (2018), arXiv:1801.09414. Same as pytorch-metric-learning's `CosFaceLoss`, which takes embeddings and
/// has the cosines with its own class weights; [`ldam`] has a margin per class.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.25, 0.75], &[1, 2]), HostTensor::i32(&[1], &[1]));
/// let loss = losses::cosface().margin(0.5).scale(2.0);
/// let out = cpu::forward_backward(&loss, &[("input", x), ("target", y)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?, [1.0, -1.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn cosface() -> Cosface {
    let definition = of_cosines("cosface").param("margin", 0.35, Domain::Finite).param("scale", 64.0, Domain::Positive);
    Cosface(definition.expr(|b| nll_with_margin(b, b.param("margin"))))
}

loss_with_options! {
    /// The loss that [`cosface`] makes.
    Cosface {
        /// `margin`, which the label's cosine is less by; finite, else `Error::Param`; 0.35 by default.
        number margin;
        /// `scale`, which multiplies the cosines, once the margin is off; finite and > 0, else `Error::Param`; 64 by
        /// default.
        number scale;
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// Begins a loss of a cosine per class and class labels.
fn of_cosines(name: &str) -> DefinitionBuilder {
    Loss::define(name).row_axis(RowAxis::Class).input("input", Scope::Element).label("target")
}
