//! Losses of ordered classes that compare cumulative distributions: how far probability has to move, not only how much.

use super::entry::{Entry, Range, Ranges};
use super::of_input_and_target;
use super::options::loss_with_options;
use crate::expr::{Direction, Expr, Extent};
use crate::loss::{Build, Loss};
use crate::shape::{RowAxis, Scope};

const LOGITS: Ranges = &[("input", Range::Logits), ("target", Range::Label)];
const DISTRIBUTIONS: Ranges = &[("input", Range::Logits), ("target", Range::Probability)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("emd_squared", || emd_squared().into()).inputs(LOGITS),
    Entry::new("emd_squared_prob", || emd_squared_prob().into()).inputs(DISTRIBUTIONS),
    Entry::new("wasserstein1", || wasserstein1().into()).inputs(LOGITS),
    Entry::new("wasserstein1_prob", || wasserstein1_prob().into()).inputs(DISTRIBUTIONS),
    Entry::new("ranked_probability_score", || ranked_probability_score().into())
        .inputs(&[("input", Range::Probability), ("target", Range::Label)]),
];

/// Squared earth mover's distance of a softmax from a class, of classes that are one step apart.
///
/// `L = Σₖ (Pₖ − Qₖ)²` over `k < C − 1`, with `p = softmax(input)`, `Pₖ = Σ_{j≤k} pⱼ` and `Qₖ = [k ≥ y]`, `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices → loss `[N, d1, …]`. Unit: steps; the mean
/// divides by the number of rows.
/// Gradient: `pⱼ·(aⱼ − Σₖ pₖaₖ)` with `aⱼ = 2 Σ_{k≥j} (Pₖ − Qₖ)`, with respect to `input`. A logit of −∞ means probability zero.
/// Cost: two scans, see [`Expr::scan_sum`].
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: Hou, Yu and Samaras (2016), arXiv:1611.05916; NIMA takes the root of the mean over the classes. [`wasserstein1`] is
/// the distance itself, [`emd_squared_prob`] takes a distribution.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::i32(&[0], &[1]));
/// let out = cpu::forward_backward(&losses::emd_squared(), &[("input", x), ("target", y)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (0.25, &[-0.25, 0.25][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn emd_squared() -> EmdSquared {
    EmdSquared(of_logits_and_labels("emd_squared").expr(|b| sum_of_squares(moved_softmax(b, one_hot(b)))))
}

/// Squared earth mover's distance of a softmax from a distribution, of classes that are one step apart.
///
/// `L = Σₖ (Pₖ − Qₖ)²` over `k < C − 1`, with `p = softmax(input)`, `q = target`, `Pₖ = Σ_{j≤k} pⱼ` and `Qₖ` likewise.
///
/// Shapes: `input, target: [N, C, d1, …]` (or `[C]`) → loss `[N, d1, …]`. Unit: steps; the mean divides by the number of rows.
/// Gradient: of the whole expression, with respect to `input` and `target`.
/// Cost: two scans, see [`Expr::scan_sum`].
/// Source: as [`emd_squared`], which takes a class.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, q) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::f32(&[0.25, 0.75], &[1, 2]));
/// let out = cpu::forward_backward(&losses::emd_squared_prob(), &[("input", x), ("target", q)], &["target"])?;
/// assert_eq!((out.loss()?, out.grad("target")?), (0.0625, &[-0.5, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn emd_squared_prob() -> EmdSquaredProb {
    EmdSquaredProb(of_distributions("emd_squared_prob").expr(|b| sum_of_squares(moved_softmax(b, b.input("target")))))
}

/// Earth mover's distance (Wasserstein-1) of a softmax from a class, of classes that are one step apart.
///
/// `L = Σₖ |Pₖ − Qₖ|` over `k < C − 1`, with `p = softmax(input)`, `Pₖ = Σ_{j≤k} pⱼ` and `Qₖ = [k ≥ y]`, `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices → loss `[N, d1, …]`. Unit: steps; the mean
/// divides by the number of rows.
/// Gradient: of the whole expression, with respect to `input`; subgradient 0 where `Pₖ = Qₖ`.
/// Cost: two scans, see [`Expr::scan_sum`].
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: `scipy.stats.wasserstein_distance` of the classes' indices with these weights; [`emd_squared`] squares each term,
/// [`wasserstein1_prob`] takes a distribution.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::i32(&[0], &[1]));
/// let out = cpu::forward_backward(&losses::wasserstein1(), &[("input", x), ("target", y)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (0.5, &[-0.25, 0.25][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn wasserstein1() -> Wasserstein1 {
    Wasserstein1(of_logits_and_labels("wasserstein1").expr(|b| moved_softmax(b, one_hot(b)).abs().sum()))
}

/// Earth mover's distance (Wasserstein-1) of a softmax from a distribution, of classes that are one step apart.
///
/// `L = Σₖ |Pₖ − Qₖ|` over `k < C − 1`, with `p = softmax(input)`, `q = target`, `Pₖ = Σ_{j≤k} pⱼ` and `Qₖ` likewise.
///
/// Shapes: `input, target: [N, C, d1, …]` (or `[C]`) → loss `[N, d1, …]`. Unit: steps; the mean divides by the number of rows.
/// Gradient: of the whole expression, with respect to `input` and `target`; subgradient 0 where `Pₖ = Qₖ`.
/// Cost: two scans, see [`Expr::scan_sum`].
/// Source: as [`wasserstein1`], which takes a class.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, q) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::f32(&[0.25, 0.75], &[1, 2]));
/// let out = cpu::forward_backward(&losses::wasserstein1_prob(), &[("input", x), ("target", q)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (0.25, &[0.25, -0.25][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn wasserstein1_prob() -> Wasserstein1Prob {
    Wasserstein1Prob(of_distributions("wasserstein1_prob").expr(|b| moved_softmax(b, b.input("target")).abs().sum()))
}

/// Ranked probability score of a forecast: the mean squared difference of cumulative probabilities.
///
/// `L = Σₖ (Pₖ − Qₖ)²/(C − 1)` over `k < C − 1`, with `Pₖ = Σ_{j≤k} pⱼ`, `p = input` and `Qₖ = [k ≥ y]`, `y = target`; 0 of one
/// class.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`) probabilities, `target: [N, d1, …]` class indices → loss `[N, d1, …]`. Unit: none,
/// 0 to 1; the mean divides by the number of rows.
/// Gradient: `2 Σ_{k≥j} (Pₖ − Qₖ)/(C − 1)` with respect to `input`.
/// Cost: two scans, see [`Expr::scan_sum`].
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: Epstein (1969), J. Appl. Meteor. 8(6), in the form of Murphy (1971), divided by `C − 1`. [`emd_squared`] is the sum,
/// of logits.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (p, y) = (HostTensor::f32(&[0.5, 0.25, 0.25], &[1, 3]), HostTensor::i32(&[0], &[1]));
/// let out = cpu::forward_backward(&losses::ranked_probability_score(), &[("input", p), ("target", y)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (0.15625, &[-0.75, -0.25, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn ranked_probability_score() -> RankedProbabilityScore {
    let loss = of_logits_and_labels("ranked_probability_score").expr(|b| {
        let steps = (b.graph().count(Extent::Cols) - 1.0).maximum(1.0);
        sum_of_squares(moved(b, b.input("input") - one_hot(b))) / steps
    });
    RankedProbabilityScore(loss)
}

fn of_logits_and_labels(name: &str) -> crate::loss::DefinitionBuilder {
    Loss::define(name).row_axis(RowAxis::Class).input("input", Scope::Element).label("target")
}

fn of_distributions(name: &str) -> crate::loss::DefinitionBuilder {
    of_input_and_target(name).row_axis(RowAxis::Class)
}

fn sum_of_squares(x: Expr<'_>) -> Expr<'_> {
    (x * x).sum()
}

/// 1 at the class that the label is, else 0.
fn one_hot<'g>(b: &Build<'g>) -> Expr<'g> {
    b.graph().col_index().equals(b.input("target").in_columns()).to_float()
}

/// `Pₖ − Qₖ`, what has to move over the step above class `k`, of the softmax of `input`.
///
/// The largest probability is what the others leave, with a gradient that goes to these: of a confident row it would else be
/// the difference of what nearly cancels.
fn moved_softmax<'g>(b: &Build<'g>, q: Expr<'g>) -> Expr<'g> {
    let (x, col) = (b.input("input"), b.graph().col_index());
    // Two comparisons: by one of equality the gradient would be taken apart at this column, with scans for either part.
    let first = x.argmax();
    let top = col.le(first).and(first.le(col)).to_float();
    let others = x.softmax() * (1.0 - top);
    moved(b, others + top * ((1.0 - q) - others.sum()) - (1.0 - top) * q)
}

/// The cumulative sum of differences, but for the last class, above which there is no step: there it is 0 up to rounding.
fn moved<'g>(b: &Build<'g>, difference: Expr<'g>) -> Expr<'g> {
    let graph = b.graph();
    let has_step = graph.col_index().to_float().lt(graph.count(Extent::Cols) - 1.0);
    difference.scan_sum(Direction::Forward) * has_step.to_float()
}

loss_with_options! {
    /// The loss that [`emd_squared`] makes.
    EmdSquared {
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

loss_with_options! {
    /// The loss that [`emd_squared_prob`] makes.
    EmdSquaredProb {
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

loss_with_options! {
    /// The loss that [`wasserstein1`] makes.
    Wasserstein1 {
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

loss_with_options! {
    /// The loss that [`wasserstein1_prob`] makes.
    Wasserstein1Prob {
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

loss_with_options! {
    /// The loss that [`ranked_probability_score`] makes.
    RankedProbabilityScore {
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}
