//! Losses that compare the elements of a row with a threshold of it: sparse distributions of classes, and the hardest elements.

use super::binary::logistic;
use super::entry::{Entry, Range};
use super::of_input_and_target;
use super::options::loss_with_options;
use super::softmax::{of_logits_and_labels, over_labels};
use crate::expr::{Expr, Threshold};
use crate::loss::Value::Index;
use crate::loss::{Domain, Loss};
use crate::shape::{RowAxis, Scope};

pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("multiclass_sparsemax", || multiclass_sparsemax().into()).inputs(&[("scores", Range::Logits)]),
    Entry::new("entmax15", || entmax15().into())
        .inputs(&[("input", Range::Logits)])
        .variants(&[&[("ignore_index", Index(None))]]),
    Entry::new("top_k_bce_with_logits", || top_k_bce_with_logits(1).into())
        .inputs(&[("input", Range::Logits), ("target", Range::Probability)]),
];

/// Sparsemax loss of scores and class labels: 0 where the label scores 1 or more above all others.
///
/// `L = ½·Σⱼ (pⱼ − [j = y])² + max(τ − s_y, 0)`, with `p = sparsemax(s)`, `τ` its threshold, `s = scores` and `y = labels`: the
/// Fenchel-Young loss `½·Σ_{j: pⱼ > 0} (sⱼ² − τ²) + ½ − s_y`, in terms that are 0 or more.
///
/// Shapes: `scores: [N, …, C]` (or `[C]`), `labels: [N, …]` class indices → loss `[N, …]`. Unit: that of the score, squared; the
/// mean divides by the number of rows.
/// Gradient: `p − onehot(y)` with respect to `scores`. A score of −∞ means probability zero.
/// Options: `row_axis`, the axis of the classes (the last).
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read; `Error::Unsupported` for shards of the classes and
/// rows larger than a binding.
/// Source: Martins and Astudillo (2016), ICML. Same as `optax.losses.multiclass_sparsemax_loss`; [`sparsemax`](super::sparsemax)
/// is that of two classes, [`entmax15`] lies between it and [`cross_entropy`](super::cross_entropy).
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (s, y) = (HostTensor::f32(&[0.5, 0.0, -2.0], &[1, 3]), HostTensor::i32(&[1], &[1]));
/// let out = cpu::forward_backward(&losses::multiclass_sparsemax(), &[("scores", s), ("labels", y)], &["scores"])?;
/// assert_eq!((out.loss()?, out.grad("scores")?), (0.5625, &[0.75, -0.75, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn multiclass_sparsemax() -> MulticlassSparsemax {
    let definition = Loss::define("multiclass_sparsemax").row_axis(RowAxis::Last).input("scores", Scope::Element);
    let loss = definition.label("labels").expr(|b| {
        let (s, y) = (b.input("scores"), b.input("labels"));
        let [above, less_one] = s.above(Threshold::Sparsemax);
        // p − onehot(y), whose digits a difference would lose where p is near 1.
        let off = b.graph().col_index().equals(y).select(less_one.maximum(-1.0), above.relu());
        fenchel_young(s, off, 0.5 * (off * off).sum() + (-above.at(y)).relu())
    });
    MulticlassSparsemax(loss)
}

loss_with_options! {
    /// The loss that [`multiclass_sparsemax`] makes.
    MulticlassSparsemax {
        /// The axis of the classes: the last one by default.
        rows row_axis;
    }
}

/// Entmax loss of logits and class labels with α = 1.5: classes far below the largest have probability 0.
///
/// `L = ⅔·(Σ_{j≠y} rⱼ³ + (1 − r_y)²·(2 + r_y)) + 2·max(τ − x_y/2, 0)`, with `r = max(x/2 − τ, 0)`, `p = r² = entmax15(x)`, `τ` its
/// threshold, `x = input` and `y = target`: the Fenchel-Young loss `Σⱼ pⱼ·xⱼ − x_y + 4/3·(1 − Σⱼ pⱼ^1.5)`, in terms that are 0
/// or more.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices → loss `[N, d1, …]`. Unit: that of the logits;
/// the mean divides by the number of rows that are not ignored.
/// Gradient: `p − onehot(y)` with respect to `input`. Rows labelled `ignore_index` have loss and gradient exactly 0. A logit of −∞
/// means probability zero.
/// Options: `ignore_index` (−100).
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read; `Error::Unsupported` for shards of the classes and
/// rows larger than a binding.
/// Source: Peters, Niculae and Martins (2019), ACL. Same as `entmax15_loss` of the package `entmax`, which sums; it lies between
/// [`multiclass_sparsemax`] (α = 2) and [`cross_entropy`](super::cross_entropy) (α = 1).
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0, -9.0], &[1, 3]), HostTensor::i32(&[0], &[1]));
/// let out = cpu::forward_backward(&losses::entmax15(), &[("input", x), ("target", y)], &["input"])?;
/// assert!((out.loss()? - 4.0 / 3.0 * (1.0 - 0.5f64.sqrt())).abs() < 1e-12);
/// assert!(out.grad("input")?.iter().zip([-0.5, 0.5, 0.0]).all(|(got, want)| (got - want).abs() < 1e-12));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn entmax15() -> Entmax15 {
    let loss = of_logits_and_labels("entmax15").unreduced(|b| {
        let (x, y) = (b.input("input"), b.input("target"));
        let [above, less_one] = x.above(Threshold::Entmax15);
        let (r, less_one, is_label) = (above.relu(), less_one.maximum(-1.0), b.graph().col_index().equals(y));
        let off = is_label.select(less_one * (1.0 + r), r * r);
        let terms = is_label.select(less_one * less_one * (2.0 + r), r * r * r);
        let value = 2.0 / 3.0 * terms.sum() + 2.0 * (-above.at(y)).relu();
        over_labels(b, fenchel_young(x, off, value), None)
    });
    Entmax15(loss)
}

loss_with_options! {
    /// The loss that [`entmax15`] makes.
    Entmax15 {
        /// Labels of this value are left out: loss and gradient exactly 0, and not in the mean. None (no label is) or any
        /// index; −100 by default.
        index ignore_index;
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// A Fenchel-Young loss by its value, with the gradient `off`, which is `p − onehot(y)` at every kink too.
fn fenchel_young<'g>(x: Expr<'g>, off: Expr<'g>, value: Expr<'g>) -> Expr<'g> {
    value.straight_through((off.detach() * x).sum())
}

/// Binary cross-entropy of the `k` hardest elements of each row: hard-example mining.
///
/// `L = 1/k · Σ` of the `k` largest `ℓⱼ` of a row, with `ℓ = t·softplus(−x) + (1 − t)·softplus(x)`, `x = input` and `t = target` in
/// \[0, 1\]. With [`row_axis`](TopKBceWithLogits::row_axis) `From(1)` a row is a sample, with all its pixels.
///
/// Shapes: `input, target: [rows, cols]` → loss `[rows]`. Unit: nats; the mean divides by the number of rows.
/// Gradient: `(sigmoid(x) − t)/k` with respect to `input` and `−x/k` with respect to `target` at the `k` hardest, 0 elsewhere;
/// elements that are as hard as the `k`-th share what is left of `k` equally.
/// Options: `row_axis`, the axis along which elements compete (the last).
/// Errors: `Error::Param` unless `k` is a whole number from 1 to 2³¹ − 1; an error of the plan for rows of fewer columns.
/// Source: online hard example mining (Shrivastava et al. 2016, CVPR) of pixels, "bootstrapped" or "top-k" cross-entropy (Wu et al.
/// 2016; nnU-Net's `TopKLoss`, which takes a share of the pixels of a whole batch). With `k` all columns it is the mean of
/// [`bce_with_logits`](super::bce_with_logits).
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, -80.0, 0.0, 3.0], &[1, 4]), HostTensor::f32(&[1.0, 0.0, 0.0, 1.0], &[1, 4]));
/// let loss = losses::top_k_bce_with_logits(2);
/// let out = cpu::forward_backward(&loss, &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?, [-0.25, 0.0, 0.25, 0.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn top_k_bce_with_logits(k: u32) -> TopKBceWithLogits {
    let definition = of_input_and_target("top_k_bce_with_logits").row_axis(RowAxis::Last);
    let loss = definition.param("k", f64::from(k), Domain::Rank).expr(|b| {
        let (x, t) = (b.input("input"), b.input("target"));
        let (each, k) = (logistic(x, [t, 1.0 - t], 1.0), b.value("k").unwrap_or(f64::NAN));
        let hard = each.top_k_threshold(k as u32);
        // Those above it, and as many of it as are missing: whichever of equal ones are the k largest.
        let is_above = each.gt(hard);
        let count = is_above.to_float().sum();
        (is_above.select(each, 0.0).sum() + (k - count) * hard) / k
    });
    TopKBceWithLogits(loss)
}

loss_with_options! {
    /// The loss that [`top_k_bce_with_logits`] makes.
    TopKBceWithLogits {
        /// `k`, how many elements of a row count, each its own formula; a whole number from 1 to 2³¹ − 1, else
        /// `Error::Param`.
        number k;
        /// The axis along which elements compete: the last one by default.
        rows row_axis;
    }
}
