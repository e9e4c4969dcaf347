//! Losses of logits and class labels that bound what a wrong label costs.

use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use super::softmax::{label_nll, of_logits_and_labels, over_labels};
use crate::expr::Expr;
use crate::loss::Value::Num;
use crate::loss::{Domain, ParamValue};

const LOGITS: Ranges = &[("input", Range::Logits)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("generalized_ce", || generalized_ce().into()).inputs(LOGITS).variants(&[&[("q", Num(1.0))]]),
    Entry::new("symmetric_ce", || symmetric_ce().into()).inputs(LOGITS).variants(&[&[
        ("alpha", Num(6.0)),
        ("beta", Num(0.1)),
        ("A", Num(-9.25)),
    ]]),
    Entry::new("taylor_ce", || taylor_ce().into())
        .inputs(LOGITS)
        .variants(&[&[("order", Num(1.0))], &[("order", Num(6.0))]]),
];

/// Generalised cross-entropy: between cross-entropy (`q → 0`) and half the mean absolute error (`q = 1`).
///
/// `L = (1 − p_y^q)/q`, with `p = softmax(input)` and `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices → loss `[N, d1, …]`. Unit: none; the mean
/// divides by the number of rows that are not ignored.
/// Gradient: `p_y^q·(softmax − onehot(y))` with respect to `input`. Rows labelled `ignore_index` have loss and gradient
/// exactly 0. A logit of −∞ means probability zero: at the label the loss is `1/q`, with gradient 0.
/// Options: `q` (0.7), `ignore_index` (−100).
/// Errors: `Error::Param` unless `q` is finite and > 0; `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: Zhang and Sabuncu (2018), arXiv:1805.07836, without truncation.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::i32(&[1], &[1]));
/// let out = cpu::forward_backward(&losses::generalized_ce().q(1.0), &[("input", x), ("target", y)], &["input"])?;
/// assert!((out.loss()? - 0.5).abs() < 1e-12);
/// assert!((out.grad("input")?[0] - 0.25).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn generalized_ce() -> GeneralizedCe {
    let definition = of_logits_and_labels("generalized_ce").param("q", 0.7, Domain::Positive);
    let loss = definition.unreduced(|b| {
        let (y, q) = (b.input("target"), b.param("q"));
        // 1 − p^q without the difference, which cancels where p is near 1.
        let value = -(-(q * label_nll(b.input("input"), y))).expm1() / q;
        over_labels(b, value, None)
    });
    GeneralizedCe(loss)
}

loss_with_options! {
    /// The loss that [`generalized_ce`] makes.
    GeneralizedCe {
        /// `q`, the exponent of the label's probability; finite and > 0, else `Error::Param`; 0.7 by default.
        number q;
        /// Labels of this value are left out: loss and gradient exactly 0, and not in the mean. None (no label is) or any
        /// index; −100 by default.
        index ignore_index;
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// Symmetric cross-entropy: cross-entropy, and the reverse one, which a wrong label adds little to.
///
/// `L = −α·ln p_y − β·A·(1 − p_y)`, with `p = softmax(input)` and `y = target`; `A` stands for ln 0 in the reverse
/// cross-entropy `−Σⱼ pⱼ·ln onehot(y)ⱼ`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices → loss `[N, d1, …]`. Unit: nats; the mean
/// divides by the number of rows that are not ignored.
/// Gradient: `(α − β·A·p_y)·(softmax − onehot(y))` with respect to `input`. Rows labelled `ignore_index` have loss and
/// gradient exactly 0. A logit of −∞ means probability zero: at the label the loss is +∞.
/// Options: `alpha` (0.1), `beta` (1), `A` (−4), `ignore_index` (−100).
/// Errors: `Error::Param` unless `alpha`, `beta` and `A` are finite; `Error::LabelOutOfRange` when a result with such a
/// label is read.
/// Source: Wang et al. (2019), arXiv:1908.06112, whose code has `A = ln 1e-4` and clamps the prediction at 1e-7.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::i32(&[1], &[1]));
/// let out = cpu::forward_backward(&losses::symmetric_ce(), &[("input", x), ("target", y)], &["input"])?;
/// assert!((out.loss()? - (0.1 * 2f64.ln() + 2.0)).abs() < 1e-12);
/// assert!((out.grad("input")?[0] - (0.1 + 2.0) / 2.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn symmetric_ce() -> SymmetricCe {
    let definition = of_logits_and_labels("symmetric_ce").param("alpha", 0.1, Domain::Finite);
    let definition = definition.param("beta", 1.0, Domain::Finite).param("A", -4.0, Domain::Finite);
    let loss = definition.unreduced(|b| {
        let nll = label_nll(b.input("input"), b.input("target"));
        let value = b.param("alpha").times(nll) - b.param("beta") * b.param("A") * miss(nll);
        over_labels(b, value, None)
    });
    SymmetricCe(loss)
}

loss_with_options! {
    /// The loss that [`symmetric_ce`] makes.
    SymmetricCe {
        /// `α`, the coefficient of the cross-entropy; finite, else `Error::Param`; 0.1 by default.
        number alpha;
        /// `β`, the coefficient of the reverse cross-entropy; finite, else `Error::Param`; 1 by default.
        number beta;
        /// Labels of this value are left out: loss and gradient exactly 0, and not in the mean. None (no label is) or any
        /// index; −100 by default.
        index ignore_index;
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

impl SymmetricCe {
    /// The option `A`, which stands for ln 0; finite, else `Error::Param`; −4 by default.
    #[must_use]
    pub fn log_zero(self, value: impl Into<ParamValue>) -> Self {
        SymmetricCe(self.0.option("A", value.into()))
    }
}

/// `1 − p` of `−ln p`, without the difference, which cancels where p is near 1.
fn miss(nll: Expr<'_>) -> Expr<'_> {
    -(-nll).expm1()
}

/// Taylor cross-entropy: the first terms of the series of `−ln p` in `1 − p`.
///
/// `L = Σ_{k=1}^{order} (1 − p_y)^k/k`, with `p = softmax(input)` and `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices → loss `[N, d1, …]`. Unit: none; the mean
/// divides by the number of rows that are not ignored.
/// Gradient: `(1 − (1 − p_y)^order)·(softmax − onehot(y))` with respect to `input`. Rows labelled `ignore_index` have loss
/// and gradient exactly 0.
/// Options: `order` (2), `ignore_index` (−100).
/// Errors: `Error::Param` unless `order` is a whole number from 1 to 64; `Error::LabelOutOfRange` when a result with such a
/// label is read.
/// Source: Feng et al. (2020), IJCAI. At `order = 1` it is half the mean absolute error, and with `order → ∞`
/// [`cross_entropy`](super::cross_entropy).
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::i32(&[1], &[1]));
/// let out = cpu::forward_backward(&losses::taylor_ce(), &[("input", x), ("target", y)], &["input"])?;
/// assert!((out.loss()? - (0.5 + 0.125)).abs() < 1e-12);
/// assert!((out.grad("input")?[0] - 0.75 / 2.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn taylor_ce() -> TaylorCe {
    let definition = of_logits_and_labels("taylor_ce").param("order", 2.0, Domain::Order);
    let loss = definition.unreduced(|b| {
        let miss = miss(label_nll(b.input("input"), b.input("target")));
        let order = b.value("order").unwrap_or(f64::NAN) as u32;
        // Horner's rule: m·(1 + m·(1/2 + m·(1/3 + …))).
        let series = (1..order).rev().fold(miss / f64::from(order), |sum, k| miss * (sum + 1.0 / f64::from(k)));
        over_labels(b, series, None)
    });
    TaylorCe(loss)
}

loss_with_options! {
    /// The loss that [`taylor_ce`] makes.
    TaylorCe {
        /// `order`, the number of terms, each its own formula; a whole number from 1 to 64, else `Error::Param`; 2 by
        /// default.
        number order;
        /// Labels of this value are left out: loss and gradient exactly 0, and not in the mean. None (no label is) or any
        /// index; −100 by default.
        index ignore_index;
        /// The axis of the classes: 1 (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}
