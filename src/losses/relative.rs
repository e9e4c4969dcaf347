//! Regression: errors relative to the target.

use super::entry::{Entry, Range, Ranges};
use super::{KERAS_EPSILON, of_true_and_predicted};
use crate::expr::Expr;
use crate::loss::Loss;

const POSITIVE: Ranges = &[("y_true", Range::Positive), ("y_pred", Range::Positive)];
pub(super) const ENTRIES: &[Entry] =
    &[Entry::new("mape", mape).inputs(&[("y_true", Range::Positive)]), Entry::new("msle", msle).inputs(POSITIVE)];

/// Mean absolute percentage error.
///
/// `L = 100·meanⱼ |tⱼ − pⱼ|/max(|tⱼ|, 1e-7)` over the last axis, with `t = y_true` and `p = y_pred`.
///
/// Shapes: `y_true, y_pred: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1.
/// Unit: percent.
/// Gradient: `100/cols·sign(p − t)/max(|t|, 1e-7)` with respect to `y_pred`; 0 at `p = t`. The gradient with respect to
/// `y_true` takes half of the clamp's at `|t| = 1e-7`.
/// Source: same as `keras.losses.MeanAbsolutePercentageError`; [`msle`] compares logarithms.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[2.0, -4.0], &[1, 2]), HostTensor::f32(&[3.0, -4.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::mape(), &[("y_true", t), ("y_pred", p)], &["y_pred"])?;
/// assert_eq!((out.loss()?, out.grad("y_pred")?), (25.0, &[25.0, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn mape() -> Loss {
    of_true_and_predicted("mape").expr(|b| {
        let (t, p) = (b.input("y_true"), b.input("y_pred"));
        100.0 * ((t - p).abs() / t.abs().maximum(KERAS_EPSILON)).mean()
    })
}

/// Mean squared logarithmic error.
///
/// `L = meanⱼ (ln(1 + max(pⱼ, 1e-7)) − ln(1 + max(tⱼ, 1e-7)))²` over the last axis, with `t = y_true` and `p = y_pred`.
///
/// Shapes: `y_true, y_pred: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1.
/// Unit: none.
/// Gradient: `2/cols·(ln(1 + p) − ln(1 + t))/(1 + p)` with respect to `y_pred`, where `p` is below 1e-7 0, at it half.
/// Source: same as `keras.losses.MeanSquaredLogarithmicError`; [`mape`] divides by the target.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[1.0, 5.0], &[1, 2]), HostTensor::f32(&[3.0, 5.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::msle(), &[("y_true", t), ("y_pred", p)], &["y_pred"])?;
/// assert!((out.loss()? - 2f64.ln().powi(2) / 2.0).abs() < 1e-12);
/// assert!((out.grad("y_pred")?[0] - 2f64.ln() / 4.0).abs() < 1e-12 && out.grad("y_pred")?[1] == 0.0);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn msle() -> Loss {
    of_true_and_predicted("msle").expr(|b| {
        let d = log_of_one_more(b.input("y_pred")) - log_of_one_more(b.input("y_true"));
        (d * d).mean()
    })
}

/// ln(1 + max(x, 1e-7))
fn log_of_one_more(x: Expr<'_>) -> Expr<'_> {
    x.maximum(KERAS_EPSILON).log1p()
}
