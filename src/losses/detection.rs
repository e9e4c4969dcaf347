//! Focal losses of detectors: of scores that say how good a box is, and of where its edges lie.

use super::binary::logistic;
use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use crate::expr::Expr;
use crate::loss::Value::Num;
use crate::loss::{Build, DefinitionBuilder, Denominator, Domain, Loss, Unreduced};
use crate::shape::{RowAxis, Scope};

const SCORES: Ranges = &[("input", Range::Logits), ("target", Range::Probability)];
const BINS: Ranges = &[("input", Range::Logits), ("target", Range::Bin)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("varifocal", || varifocal().into())
        .inputs(SCORES)
        .variants(&[&[("gamma", Num(1.5)), ("alpha", Num(0.25))]]),
    Entry::new("quality_focal", || quality_focal().into())
        .inputs(SCORES)
        .variants(&[&[("beta", Num(1.5))], &[("avg_factor", Num(7.0))]]),
    Entry::new("distribution_focal", || distribution_focal().into()).inputs(BINS),
];

/// Varifocal loss of logits against scores: positives count by their score, negatives by their probability.
///
/// `L = −q·(q·ln p + (1 − q)·ln(1 − p))` where `q > 0`, else `−α·p^γ·ln(1 − p)`, with `p = sigmoid(input)` and `q = target` in
/// \[0, 1\], the overlap of a box with its object.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: nats; the mean divides by the number of elements, or by
/// `avg_factor`.
/// Gradient: of the whole expression, with respect to `input` and `target`; the factors carry theirs.
/// Options: `alpha` (0.75), `gamma` (2), `avg_factor` (0: none).
/// Errors: `Error::Param` unless `alpha`, `gamma` and `avg_factor` are finite and ≥ 0.
/// Source: Zhang et al. (2021), VarifocalNet, arXiv:2008.13367. As mmdetection's and ultralytics' `VarifocalLoss` but for
/// what the mean divides by (ultralytics: the sum over rows of means over classes).
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, q) = (HostTensor::f32(&[0.0, 0.0], &[2]), HostTensor::f32(&[0.5, 0.0], &[2]));
/// let loss = losses::varifocal().alpha(1.0).avg_factor(1.0);
/// let out = cpu::forward_backward(&loss, &[("input", x), ("target", q)], &["input"])?;
/// assert!((out.loss()? - 0.75 * 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn varifocal() -> Varifocal {
    let definition = of_scores("varifocal").param("alpha", 0.75, Domain::NonNegative);
    let loss = definition.param("gamma", 2.0, Domain::NonNegative).unreduced(|b| {
        let (x, q) = (b.input("input"), b.input("target"));
        let positive = q * logistic(x, [q, 1.0 - q], 1.0);
        // p^γ by the logarithm of p: its slope is finite where p is 0, for γ < 1 too.
        let focus = (b.param("gamma") * x.log_sigmoid()).exp();
        let negative = b.param("alpha") * focus * x.softplus();
        averaged(b, q.gt(0.0).select(positive, negative))
    });
    Varifocal(loss)
}

loss_with_options! {
    /// The loss that [`varifocal`] makes.
    Varifocal {
        /// `α`, the weight of negatives; finite and ≥ 0, else `Error::Param`; 0.75 by default.
        number alpha;
        /// `γ`, the exponent of the probability of negatives; finite and ≥ 0, else `Error::Param`; 2 by default.
        number gamma;
        /// What the mean divides by; finite and ≥ 0, else `Error::Param`. At 0 (the default) the number of elements, which
        /// needs a plan of its own.
        number avg_factor;
    }
}

/// Quality focal loss of logits against scores: counts by how far the probability is from the score.
///
/// `L = −|p − q|^β·(q·ln p + (1 − q)·ln(1 − p))`, with `p = sigmoid(input)` and `q = target` in \[0, 1\].
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: nats; the mean divides by the number of elements, or by
/// `avg_factor`.
/// Gradient: of the whole expression, with respect to `input` and `target`; the factor carries its own, 0 at `p = q`.
/// Options: `beta` (2), `avg_factor` (0: none).
/// Errors: `Error::Param` unless `beta` is finite and > 0 and `avg_factor` finite and ≥ 0.
/// Source: Li et al. (2020), Generalized focal loss, arXiv:2006.04388. mmdetection's takes a class index and a score per row:
/// a target with the score at that index is the same.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, q) = (HostTensor::f32(&[0.0], &[1]), HostTensor::f32(&[1.0], &[1]));
/// let out = cpu::forward_backward(&losses::quality_focal(), &[("input", x), ("target", q)], &["input"])?;
/// assert!((out.loss()? - 0.25 * 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn quality_focal() -> QualityFocal {
    let definition = of_scores("quality_focal");
    let loss = definition.special_param("beta", 2.0, Domain::Positive, &[2.0]).unreduced(|b| {
        let (x, q) = (b.input("input"), b.input("target"));
        // p − q without the difference, which cancels where p is near a score of 1.
        let gap = x.sigmoid() * (1.0 - q) - (-x).sigmoid() * q;
        let focus = match b.value("beta") {
            Some(2.0) => gap * gap,
            _ => gap.equals(0.0).select(0.0, gap.abs().pow(b.param("beta"))),
        };
        averaged(b, focus * logistic(x, [q, 1.0 - q], 1.0))
    });
    QualityFocal(loss)
}

loss_with_options! {
    /// The loss that [`quality_focal`] makes.
    QualityFocal {
        /// `β`, the exponent of the distance of probability and score; finite and > 0, else `Error::Param`; 2 by default.
        number beta;
        /// What the mean divides by; finite and ≥ 0, else `Error::Param`. At 0 (the default) the number of elements, which
        /// needs a plan of its own.
        number avg_factor;
    }
}

/// Distribution focal loss: cross-entropy with the two bins around a position, by how near they are.
///
/// `L = −w·((k + 1 − t)·ln p_k + (t − k)·ln p_{k+1})`, with `p = softmax(input)`, `t = target` in \[0, bins − 1\] and
/// `k = min(⌊t⌋, bins − 2)`.
///
/// Shapes: `input: [rows, bins]`, `target: [rows]` positions, optional `weight: [rows]` → loss `[rows]`. Unit: nats; the mean
/// divides by the number of rows, or by `avg_factor`.
/// Gradient: `w·(p − h)` with respect to `input`, with `h = max(0, 1 − |t − j|)`; with respect to `target`
/// `w·(ln p_k − ln p_{k+1})`, 0 at a bin. A logit of −∞ means probability zero: +∞ where its bin is near.
/// Options: `avg_factor` (0: none).
/// Errors: `Error::Param` unless `avg_factor` is finite and ≥ 0.
/// Source: Li et al. (2020), Generalized focal loss, arXiv:2006.04388. ultralytics clamps positions to bins − 1.01.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, 0.0, 0.0, 0.0], &[1, 4]), HostTensor::f32(&[1.75], &[1]));
/// let out = cpu::forward_backward(&losses::distribution_focal(), &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - 4f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?, [0.25, 0.0, -0.5, 0.25]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn distribution_focal() -> DistributionFocal {
    let definition = Loss::define("distribution_focal").row_axis(RowAxis::Last).input("input", Scope::Element);
    let definition = with_avg_factor(definition.input("target", Scope::Row).optional("weight", Scope::Row));
    let loss = definition.unreduced(|b| {
        let (x, t) = (b.input("input"), b.input("target"));
        // Both shares as one function of the bin: a hat of height 1 over the position.
        let share = (1.0 - (t - b.graph().col_index().to_float()).abs()).relu();
        let value = x.logsumexp_shifted() - share.times(x - x.max().detach()).sum();
        averaged(b, b.optional("weight").map_or(value, |weight| weight * value))
    });
    DistributionFocal(loss)
}

loss_with_options! {
    /// The loss that [`distribution_focal`] makes.
    DistributionFocal {
        /// What the mean divides by; finite and ≥ 0, else `Error::Param`. At 0 (the default) the number of rows, which needs a
        /// plan of its own.
        number avg_factor;
    }
}

fn of_scores(name: &str) -> DefinitionBuilder {
    with_avg_factor(Loss::define(name).input("input", Scope::Element).input("target", Scope::Element))
}

fn with_avg_factor(definition: DefinitionBuilder) -> DefinitionBuilder {
    definition.structural_param("avg_factor", 0.0, Domain::NonNegative, &[0.0])
}

/// The loss, whose mean divides by `avg_factor` where there is one.
fn averaged<'g>(b: &Build<'g>, value: Expr<'g>) -> Unreduced<'g> {
    let denominator = match b.value("avg_factor") {
        Some(0.0) => Denominator::Count,
        _ => Denominator::Total(b.param("avg_factor")),
    };
    Unreduced { value, denominator }
}
