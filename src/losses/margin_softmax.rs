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
    Entry::new("arcface", || arcface().into())
        .inputs(&[("input", Range::Cosine)])
        .variants(&[&[("margin", Num(0.9)), ("scale", Num(4.0))], &[("margin", Num(0.0)), ("scale", Num(2.0))]]),
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

/// ArcFace: cross-entropy of scaled cosines, the label's of an angle that is wider by a margin.
///
/// `L = ln Σⱼ exp zⱼ − z_y`, with `z_y = scale·cos(θ + margin)`, or `scale·(x_y − margin·sin(margin))` where
/// `θ > π − margin`, with `θ = arccos x_y`; the others `zⱼ = scale·xⱼ`, with `x = input` and `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`) cosines of an embedding with each class, `target: [N, d1, …]` class indices →
/// loss `[N, d1, …]`. Unit: nats, of a margin in radians; the mean divides by the number of rows.
/// Gradient: `scale·softmax(z)ⱼ` with respect to the other classes' cosines, `scale·(softmax(z)_y − 1)·sin(θ + margin)/sin θ` with
/// respect to the label's; past `π − margin` that quotient is 1. It grows without bound towards `θ = 0`; at cosines of ±1
/// and beyond, as rounding may give, the sine counts as 0 and has no gradient.
/// Options: `margin` (0.5), `scale` (64).
/// Errors: `Error::Param` unless `margin` is in \[0, 1\] and `scale` finite and > 0; `Error::LabelOutOfRange` when a result
/// with such a label is read.
/// Source: Deng et al. (2019), arXiv:1801.07698. Same as pytorch-metric-learning's `ArcFaceLoss`, which takes embeddings and a
/// margin in degrees, and as insightface with `easy_margin=False`; [`cosface`] takes the margin off the cosine.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::i32(&[1], &[1]));
/// let loss = losses::arcface().margin(0.5).scale(2.0);
/// let out = cpu::forward_backward(&loss, &[("input", x), ("target", y)], &["input"])?;
/// let lead = 2.0 * 0.5f64.sin();      // cos(π/2 + 0.5) = −sin 0.5
/// assert!((out.loss()? - lead.exp().ln_1p()).abs() < 1e-12);
/// assert!((out.grad("input")?[1] + 2.0 / (1.0 + (-lead).exp()) * 0.5f64.cos()).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn arcface() -> Arcface {
    let definition = of_cosines("arcface").param("margin", 0.5, Domain::Unit).param("scale", 64.0, Domain::Positive);
    let loss = definition.expr(|b| {
        let (cosine, margin) = (b.input("input"), b.param("margin"));
        let (sin_margin, versine) = (sine(margin), versine(margin));
        let is_inside = cosine.abs().lt(1.0);
        let sine = is_inside.select(((1.0 - cosine) * (1.0 + cosine)).sqrt(), 0.0);
        // cos θ − cos(θ + m) = cos θ·(1 − cos m) + sin θ·sin m; θ ≤ π − m where cos θ ≥ −cos m.
        let widened = cosine * versine + sine * sin_margin;
        nll_with_margin(b, (cosine + 1.0).ge(versine).select(widened, margin * sin_margin))
    });
    Arcface(loss)
}

loss_with_options! {
    /// The loss that [`arcface`] makes.
    Arcface {
        /// `margin`, which the label's angle is wider by, in radians; in \[0, 1\], else `Error::Param`; 0.5 by default.
        number margin;
        /// `scale`, which multiplies the cosines; finite and > 0, else `Error::Param`; 64 by default.
        number scale;
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// `sin x` for x in \[0, 1\], by its series: the first term left out is below 1e-17.
fn sine(x: Expr<'_>) -> Expr<'_> {
    x * alternating(x * x, 2)
}

/// `1 − cos x` for x in \[0, 1\], by its series: the first term left out is below 1e-17.
fn versine(x: Expr<'_>) -> Expr<'_> {
    0.5 * x * x * alternating(x * x, 3)
}

/// `1 − q/(n·(n + 1))·(1 − q/((n + 2)·(n + 3))·(1 − …))`, of nine terms.
fn alternating(q: Expr<'_>, n: u32) -> Expr<'_> {
    let products = (0..8).rev().map(|k| f64::from((n + 2 * k) * (n + 2 * k + 1)));
    products.fold(q.graph().constant(1.0), |rest, product| 1.0 - q / product * rest)
}

/// Begins a loss of a cosine per class and class labels.
fn of_cosines(name: &str) -> DefinitionBuilder {
    Loss::define(name).row_axis(RowAxis::Class).input("input", Scope::Element).label("target")
}

#[cfg(test)]
mod tests {
    use super::arcface;
    use crate::{HostTensor, Result, cpu};

    #[test]
    fn arcface_is_finite_where_rounding_leaves_a_cosine_at_one_or_beyond() -> Result<()> {
        for cosine in [1.0, 1.0 + f32::EPSILON, -1.0, -1.0 - f32::EPSILON] {
            let cosines = [0.5, cosine];
            let inputs = [("input", HostTensor::f32(&cosines, &[1, 2])), ("target", HostTensor::i32(&[1], &[1]))];
            let out = cpu::forward_backward(&arcface().scale(4.0), &inputs, &["input"])?;
            let label = f64::from(cosine);
            let widened = if cosine > 0.0 { label * 0.5f64.cos() } else { label - 0.5 * 0.5f64.sin() };
            let slope = if cosine > 0.0 { 0.5f64.cos() } else { 1.0 };
            let p = 1.0 / (1.0 + (4.0 * (0.5 - widened)).exp());
            assert!((out.loss()? + p.ln()).abs() < 1e-12, "{cosine}: {}", out.loss()?);
            assert!((out.grad("input")?[1] - 4.0 * (p - 1.0) * slope).abs() < 1e-12, "{cosine}");
        }
        Ok(())
    }
}
