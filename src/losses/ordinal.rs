//! Losses of ordered classes: `K − 1` thresholds part `K` classes.

use super::binary::logistic;
use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use crate::expr::{Expr, Extent};
use crate::loss::{Build, DefinitionBuilder, Denominator, Loss, Unreduced};
use crate::shape::{RowAxis, Scope};

const THRESHOLDS: Ranges = &[("input", Range::Logits), ("target", Range::LabelBetween)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("coral", || coral().into()).inputs(THRESHOLDS),
    Entry::new("corn", || corn().into()).inputs(THRESHOLDS),
    Entry::new("ordinal_cumulative_link", ordinal_cumulative_link)
        .inputs(&[("thresholds", Range::Ascending), ("target", Range::LabelBetween)]),
];

/// CORAL: binary cross-entropy of whether the class is above each threshold.
///
/// `L = Σₖ wₖ·(softplus(xₖ) − xₖ·[y > k])`, with `x = input`, `y = target` and `k` from 0 to `K − 2`.
///
/// Shapes: `input: [N, K − 1, d1, …]` (or `[K − 1]`), `target: [N, d1, …]` class indices of `K` classes, optional
/// `weight: [K − 1]` → loss `[N, d1, …]`. Unit: nats; the mean divides by the number of rows, not by that of thresholds.
/// Gradient: `wₖ·(sigmoid(xₖ) − [y > k])` with respect to `input`.
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: Cao, Mirjalili and Raschka (2020), arXiv:1901.07884. Same as coral-pytorch's `coral_loss` with the levels of the
/// labels; [`corn`] conditions each threshold on those before.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::i32(&[1], &[1]));
/// let out = cpu::forward_backward(&losses::coral(), &[("input", x), ("target", y)], &["input"])?;
/// assert!((out.loss()? - 2.0 * 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?, [-0.5, 0.5]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn coral() -> Coral {
    let loss = of_thresholds("coral").optional("weight", Scope::Column).expr(|b| {
        let x = b.input("input");
        // A label has one side alone: as a share of 0, the other's infinity would be NaN in the weight's gradient.
        let value = is_above(b).select((-x).softplus(), x.softplus());
        b.optional("weight").map_or(value, |weight| weight.times(value)).sum()
    });
    Coral(loss)
}

loss_with_options! {
    /// The loss that [`coral`] makes.
    Coral {
        /// The axis of the thresholds: 1 (the default), or the last one: `[N, d1, …, K − 1]`.
        axis class_axis;
    }
}

/// CORN: binary cross-entropy of whether the class is above each threshold, among the rows that reach it.
///
/// `L = Σ_{k≤y} softplus(xₖ) − xₖ·[y > k]`, with `x = input`, `y = target` and `k` from 0 to `K − 2`.
///
/// Shapes: `input: [N, K − 1, d1, …]` (or `[K − 1]`), `target: [N, d1, …]` class indices of `K` classes → loss
/// `[N, d1, …]`. Unit: nats; the mean divides by the number of pairs of a row and a threshold that it reaches,
/// `Σ min(y + 1, K − 1)`.
/// Gradient: `sigmoid(xₖ) − [y > k]` where `k ≤ y`, else exactly 0, with respect to `input`.
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: Shi, Cao and Raschka (2021), arXiv:2111.08851. Same as coral-pytorch's `corn_loss`; [`coral`] counts every
/// threshold.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 7.0], &[1, 2]), HostTensor::i32(&[0], &[1]));
/// let out = cpu::forward_backward(&losses::corn(), &[("input", x), ("target", y)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?, [0.5, 0.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn corn() -> Corn {
    let loss = of_thresholds("corn").unreduced(|b| {
        let (is_above, reaches) = (is_above(b).to_float(), b.graph().col_index().le(label(b)));
        let each = logistic(b.input("input"), [is_above, 1.0 - is_above], 1.0).masked(reaches);
        Unreduced { value: each.sum(), denominator: Denominator::Sum(reaches.to_float().sum()) }
    });
    Corn(loss)
}

loss_with_options! {
    /// The loss that [`corn`] makes.
    Corn {
        /// The axis of the thresholds: 1 (the default), or the last one: `[N, d1, …, K − 1]`.
        axis class_axis;
    }
}

/// Begins a loss of a score per threshold and class labels.
fn of_thresholds(name: &str) -> DefinitionBuilder {
    Loss::define(name).row_axis(RowAxis::Class).input("input", Scope::Element).label("target")
}

/// The label: one class more than there are thresholds.
fn label<'g>(b: &Build<'g>) -> Expr<'g> {
    b.input("target").in_thresholds()
}

/// Whether the label's class is above each threshold.
fn is_above<'g>(b: &Build<'g>) -> Expr<'g> {
    b.graph().col_index().lt(label(b))
}

/// Cumulative link loss: proportional odds of one score per row, with learned thresholds between the classes.
///
/// `L = −ln(sigmoid(θ_y − x) − sigmoid(θ_{y−1} − x))`, with `x = input`, `y = target` and `θ = thresholds`, ascending, and
/// −∞ before the first and +∞ behind the last.
///
/// Shapes: `input: [N, …]`, `thresholds: [K − 1]`, `target: [N, …]` class indices of `K` classes → loss `[N, …]`. Unit:
/// nats; the mean divides by the number of rows.
/// Gradient: of the whole expression, with respect to `input` and `thresholds`; it keeps its digits where the difference
/// of the sigmoids is 0 in floating point. Thresholds that do not ascend give NaN where a class has no width.
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: McCullagh (1980), J. R. Stat. Soc. B 42(2).
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, thresholds) = (HostTensor::f32(&[0.0], &[1]), HostTensor::f32(&[0.0, 1.0], &[2]));
/// let inputs = [("input", x), ("thresholds", thresholds), ("target", HostTensor::i32(&[0], &[1]))];
/// let out = cpu::forward_backward(&losses::ordinal_cumulative_link(), &inputs, &["input", "thresholds"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert_eq!((out.grad("input")?, out.grad("thresholds")?), (&[0.5][..], &[-0.5, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn ordinal_cumulative_link() -> Loss {
    let definition = Loss::define("ordinal_cumulative_link").row_axis(RowAxis::Last).input("input", Scope::Row);
    definition.input("thresholds", Scope::Column).label("target").expr(|b| {
        let (x, thresholds, y) = (b.input("input"), b.input("thresholds"), label(b).to_float());
        let column = b.graph().col_index().to_float();
        // The thresholds above and below the class, 0 where there is none.
        let above = column.equals(y).select(thresholds, 0.0).sum();
        let below = column.equals(y - 1.0).select(thresholds, 0.0).sum();
        let (is_first, is_last) = (y.equals(0.0), y.equals(b.graph().count(Extent::Cols)));
        // sigmoid(a) − sigmoid(b) = sigmoid(a)·sigmoid(−b)·(1 − exp(b − a)), of which nothing cancels.
        let under = is_last.select(0.0, (x - above).softplus());
        let over = is_first.select(0.0, (below - x).softplus());
        let width = is_first.or(is_last).select(0.0, -(-(below - above).expm1()).log());
        under + over + width
    })
}
