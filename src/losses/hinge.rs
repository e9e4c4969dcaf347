//! Hinge losses: a margin of 1 between two classes.

use super::entry::{Entry, Options, Range, Ranges};
use super::of_true_and_predicted;
use super::options::loss_with_options;
use crate::expr::Expr;
use crate::loss::Value::Flag;
use crate::loss::{Build, DefinitionBuilder};
use crate::shape::Scope;

const SIGNS: Ranges = &[("y_true", Range::Sign)];
const AS_THEY_ARE: Options = &[("convert_binary", Flag(false))];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("hinge", || hinge().into()).inputs(SIGNS).variants(&[AS_THEY_ARE]),
    Entry::new("squared_hinge", || squared_hinge().into()).inputs(SIGNS).variants(&[AS_THEY_ARE]),
];

/// Hinge loss of a decision value.
///
/// `L = meanⱼ max(1 − yⱼ·pⱼ, 0)` over the last axis, with `y = y_true` in {−1, 1} and `p = y_pred`. If *all* targets
/// of the tensor are 0 or 1, they are taken as −1 and 1.
///
/// Shapes: `y_true, y_pred: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1.
/// Unit: none.
/// Gradient: `−y/cols` inside the margin with respect to `y_pred`, half of it at `y·p = 1`.
/// Options: `convert_binary` (true) looks for targets of only 0 and 1, which takes a pass over `y_true` first; false
/// takes the targets as they are.
/// Source: same as `keras.losses.Hinge`; [`squared_hinge`] squares the margin's violation.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[1.0, 0.0], &[1, 2]), HostTensor::f32(&[0.5, -2.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::hinge(), &[("y_true", t), ("y_pred", p)], &["y_pred"])?;
/// assert_eq!((out.loss()?, out.grad("y_pred")?), (0.25, &[-0.5, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn hinge() -> Hinge {
    Hinge(of_signs("hinge").expr(|b| violation(b).mean()))
}

loss_with_options! {
    /// The loss that [`hinge`] makes.
    Hinge {
        /// Whether targets that are all 0 or 1 are taken as −1 and 1, which costs a pass over `y_true`; true by default.
        flag convert_binary;
    }
}

/// Squared hinge loss of a decision value.
///
/// `L = meanⱼ max(1 − yⱼ·pⱼ, 0)²` over the last axis, with `y = y_true` in {−1, 1} and `p = y_pred`. If *all* targets
/// of the tensor are 0 or 1, they are taken as −1 and 1.
///
/// Shapes: `y_true, y_pred: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1.
/// Unit: none.
/// Gradient: `−2y·(1 − y·p)/cols` inside the margin with respect to `y_pred`; continuous.
/// Options: `convert_binary` (true), as for [`hinge`].
/// Source: same as `keras.losses.SquaredHinge`; [`hinge`] does not square.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[1.0, -1.0], &[1, 2]), HostTensor::f32(&[0.5, -2.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::squared_hinge(), &[("y_true", t), ("y_pred", p)], &["y_pred"])?;
/// assert_eq!((out.loss()?, out.grad("y_pred")?), (0.125, &[-0.5, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn squared_hinge() -> SquaredHinge {
    let loss = of_signs("squared_hinge").expr(|b| {
        let violation = violation(b);
        (violation * violation).mean()
    });
    SquaredHinge(loss)
}

loss_with_options! {
    /// The loss that [`squared_hinge`] makes.
    SquaredHinge {
        /// Whether targets that are all 0 or 1 are taken as −1 and 1, which costs a pass over `y_true`; true by default.
        flag convert_binary;
    }
}

fn of_signs(name: &str) -> DefinitionBuilder {
    of_true_and_predicted(name).flag("convert_binary", true)
}

/// max(1 − y·p, 0)
fn violation<'g>(b: &Build<'g>) -> Expr<'g> {
    let mut y = b.input("y_true");
    if b.flag("convert_binary") {
        let binary = y.equals(0.0).or(y.equals(1.0));
        let others = (!binary).to_float().sum_over(Scope::Total).detach();
        y = others.equals(0.0).select(2.0 * y - 1.0, y);
    }
    (1.0 - y * b.input("y_pred")).maximum(0.0)
}
