//! Labels of two classes.

use super::entry::{Entry, Range};
use super::{of_input_and_target, weighted};
use crate::expr::{Expr, IntoExpr};
use crate::loss::Loss;
use crate::shape::Scope;

pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("bce", bce).inputs(&[("input", Range::Probability), ("target", Range::Probability)]),
    Entry::new("bce_with_logits", bce_with_logits).inputs(&[("input", Range::Logits), ("target", Range::Probability)]),
];

/// Binary cross-entropy of probabilities.
///
/// `L = −w·(t·max(ln x, −100) + (1 − t)·max(ln(1 − x), −100))`, with `x = input`, `t = target`, both in \[0, 1\].
///
/// Shapes: `input, target` of one shape, and an optional `weight` that broadcasts → loss of that shape.
/// Unit: nats; the mean divides by the number of elements.
/// Gradient: PyTorch's: `w·(x − t)/max(x(1 − x), 1e-12)` with respect to `input`, that is up to 1e12 at `x = 0` and
/// `x = 1`; with respect to `target` the difference of the two clamped logarithms.
/// An `input` outside \[0, 1\] gives NaN, in the loss and in its gradients (PyTorch refuses it).
/// Source: same as `torch.nn.functional.binary_cross_entropy`. Prefer [`bce_with_logits`], which needs no clamp.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.5, 0.0], &[2]), HostTensor::f32(&[1.0, 1.0], &[2]));
/// let out = cpu::forward_backward(&losses::bce(), &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - (100.0 + 2f64.ln()) / 2.0).abs() < 1e-12);
/// let d_input = out.grad("input")?;
/// assert!(d_input[0] == -1.0 && (d_input[1] / -0.5e12 - 1.0).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn bce() -> Loss {
    of_input_and_target("bce").optional("weight", Scope::Element).expr(|b| {
        let (x, t) = (b.input("input"), b.input("target"));
        let log_yes = x.log().maximum(-100.0);
        let log_no = (-x).log1p().maximum(-100.0);
        let value = -(t * log_yes + (1.0 - t) * log_no);
        // The bound is PyTorch's: the f32 nearest 1e-12, in f64 too.
        let d_input = (x - t) / ((1.0 - x) * x).maximum(f64::from(1e-12f32));
        let d_input = x.ge(0.0).and(x.le(1.0)).select(d_input, f64::NAN);
        weighted(b, value.with_gradient(x, d_input).with_gradient(t, log_no - log_yes))
    })
}

/// Binary cross-entropy of logits.
///
/// `L = w·(q·t·softplus(−x) + (1 − t)·softplus(x))`, with `x = input`, `t = target` and `q = pos_weight`.
///
/// Shapes: `input, target` of one shape; an optional `weight` and `pos_weight` that broadcast → loss of that shape.
/// Unit: nats; the mean divides by the number of elements.
/// Gradient: `w·((1 − t)·sigmoid(x) − q·t·sigmoid(−x))` with respect to `input`.
/// A logit of −∞ means probability zero, one of +∞ probability one: where that is right, the loss and its gradient with
/// respect to `input` are 0, else the loss is +∞; with a weight of 0 it is 0.
/// Source: same as `torch.nn.functional.binary_cross_entropy_with_logits`, in a form that also keeps the digits of
/// confident negatives; for infinite logits PyTorch has a loss of NaN but for a negative at +∞.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, -80.0], &[2]), HostTensor::f32(&[1.0, 0.0], &[2]));
/// let out = cpu::forward_backward(&losses::bce_with_logits(), &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln() / 2.0).abs() < 1e-12);
/// assert_eq!(out.grad("input")?[0], -0.25);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn bce_with_logits() -> Loss {
    let definition = of_input_and_target("bce_with_logits").optional("weight", Scope::Element);
    definition.optional("pos_weight", Scope::Element).expr(|b| {
        let (x, t) = (b.input("input"), b.input("target"));
        let one = x.graph().constant(1.0);
        let positive = b.optional("pos_weight").map_or(t, |q| q * t);
        let both = if b.optional("pos_weight").is_some() { positive + (1.0 - t) } else { one };
        // Weighted before the logit comes in: a weight of 0 leaves out what is infinite as well.
        let [yes, no, both] = [positive, 1.0 - t, both].map(|share| weighted(b, share));
        logistic(x, [yes, no], both)
    })
}

/// `yes·softplus(−x) + no·softplus(x)` with one exponential: the larger softplus is the smaller one plus `|x|`. `both` is
/// `yes + no`. No term cancels another, so that confident rows keep their digits.
pub(super) fn logistic<'g>(x: Expr<'g>, [yes, no]: [Expr<'g>; 2], both: impl IntoExpr<'g>) -> Expr<'g> {
    let above = x.ge(0.0);
    let smaller = above.select(-x, x).softplus();
    above.select(no, -yes).times(x) + both.into_expr(x.graph()) * smaller
}
