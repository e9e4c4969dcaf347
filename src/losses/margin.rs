//! Margin losses of one score per element: the sign of the score is the class.

use super::binary::logistic;
use super::entry::{Entry, Range, Ranges};
use super::of_input_and_target;
use super::options::loss_with_options;
use crate::expr::Expr;
use crate::loss::{Build, DefinitionBuilder, Loss};
use crate::shape::{RowAxis, Scope};

const SIGNS: Ranges = &[("targets", Range::Sign)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("soft_margin", soft_margin).inputs(&[("input", Range::Logits), ("target", Range::Sign)]),
    Entry::new("multilabel_soft_margin", || multilabel_soft_margin().into())
        .inputs(&[("input", Range::Logits), ("target", Range::Probability)]),
    Entry::new("perceptron", perceptron).inputs(SIGNS),
    Entry::new("optax_hinge", optax_hinge).inputs(SIGNS),
    Entry::new("sparsemax", sparsemax).inputs(&[("labels", Range::Binary)]),
];

/// Soft margin loss: the logistic loss of a score and a sign.
///
/// `L = ln(1 + exp(−t·x))`, with `x = input` and `t = target`, −1 or 1.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: nats; the mean divides by the number of elements.
/// Gradient: `−t·sigmoid(−t·x)` with respect to `input`. A `target` other than ±1 is a factor like any other.
/// Source: same as `torch.nn.functional.soft_margin_loss`, which overflows where `−t·x` is above 88 in f32; here the loss
/// is `−t·x` there. [`bce_with_logits`](super::bce_with_logits) takes targets of 0 and 1.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, 1e4], &[2]), HostTensor::f32(&[1.0, -1.0], &[2]));
/// let out = cpu::forward_backward(&losses::soft_margin(), &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - (2f64.ln() + 1e4) / 2.0).abs() < 1e-9);
/// assert_eq!(out.grad("input")?, [-0.25, 0.5]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn soft_margin() -> Loss {
    of_input_and_target("soft_margin").expr(|b| (-(b.input("target") * b.input("input"))).softplus())
}

/// Binary cross-entropy of several labels per row, averaged over them.
///
/// `L = meanⱼ wⱼ·(tⱼ·softplus(−xⱼ) + (1 − tⱼ)·softplus(xⱼ))` over the last axis, with `x = input` and `t = target` in
/// \[0, 1\].
///
/// Shapes: `input, target: [N, …, C]` (or `[C]`), an optional `weight: [C]` → loss `[N, …]`. Unit: nats; the mean divides
/// by the number of rows.
/// Gradient: `wⱼ·(sigmoid(xⱼ) − tⱼ)/C` with respect to `input`, `−wⱼ·xⱼ/C` with respect to `target`.
/// Options: `row_axis`, the axis of the labels (the last).
/// Source: same as `torch.nn.functional.multilabel_soft_margin_loss`;
/// [`bce_with_logits`](super::bce_with_logits) is the same before the mean over the labels.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::f32(&[1.0, 0.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::multilabel_soft_margin(), &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?, [-0.25, 0.25]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn multilabel_soft_margin() -> MultilabelSoftMargin {
    let definition = of_input_and_target("multilabel_soft_margin").row_axis(RowAxis::Last);
    let loss = definition.optional("weight", Scope::Column).expr(|b| {
        let (x, t) = (b.input("input"), b.input("target"));
        // Weighted before the logit comes in: a weight of 0 leaves out what is infinite as well.
        let [yes, no, both] = [t, 1.0 - t, x.graph().constant(1.0)].map(|share| super::weighted(b, share));
        logistic(x, [yes, no], both).mean()
    });
    MultilabelSoftMargin(loss)
}

loss_with_options! {
    /// The loss that [`multilabel_soft_margin`] makes.
    MultilabelSoftMargin {
        /// The axis of the labels: the last one by default.
        rows row_axis;
    }
}

/// Perceptron loss: what a score on the wrong side is off by.
///
/// `L = max(0, −t·x)`, with `x = predictor_outputs` and `t = targets`, −1 or 1.
///
/// Shapes: `predictor_outputs, targets` of one shape → loss of that shape. Unit: that of the score; the mean divides by
/// the number of elements.
/// Gradient: `−t` on the wrong side with respect to `predictor_outputs`, half of it at `x = 0`.
/// Source: Rosenblatt (1958). Same as `optax.losses.perceptron_loss`; [`optax_hinge`] asks for a margin of 1.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[-3.0, 0.0], &[2]), HostTensor::f32(&[1.0, 1.0], &[2]));
/// let inputs = [("predictor_outputs", x), ("targets", t)];
/// let out = cpu::forward_backward(&losses::perceptron(), &inputs, &["predictor_outputs"])?;
/// assert_eq!((out.loss()?, out.grad("predictor_outputs")?), (1.5, &[-0.5, -0.25][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn perceptron() -> Loss {
    of_outputs_and_targets("perceptron").expr(|b| (-agreement(b)).maximum(0.0))
}

/// Hinge loss of each element: a margin of 1 between two classes.
///
/// `L = max(0, 1 − t·x)`, with `x = predictor_outputs` and `t = targets`, −1 or 1.
///
/// Shapes: `predictor_outputs, targets` of one shape → loss of that shape. Unit: none; the mean divides by the number of
/// elements.
/// Gradient: `−t` inside the margin with respect to `predictor_outputs`, half of it at `t·x = 1`.
/// Source: same as `optax.losses.hinge_loss`. [`hinge`](super::hinge) is Keras's: the mean over the last axis, and
/// targets of 0 and 1 are converted.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[0.5, -2.0], &[2]), HostTensor::f32(&[1.0, -1.0], &[2]));
/// let inputs = [("predictor_outputs", x), ("targets", t)];
/// let out = cpu::forward_backward(&losses::optax_hinge(), &inputs, &["predictor_outputs"])?;
/// assert_eq!((out.loss()?, out.grad("predictor_outputs")?), (0.25, &[-0.5, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn optax_hinge() -> Loss {
    of_outputs_and_targets("optax_hinge").expr(|b| (1.0 - agreement(b)).maximum(0.0))
}

/// Sparsemax loss of two classes: a hinge with a quadratic knee, whose gradient is 0 beyond the margin.
///
/// `L = f(−x)` for a label of 1, else `f(x)`, with `x = logits` and `f(u) = 0` for `u ≤ −1`, `u` for `u ≥ 1`, and
/// `(u + 1)²/4` between.
///
/// Shapes: `logits, labels` of one shape → loss of that shape. Unit: none; the mean divides by the number of elements.
/// Gradient: `f′(u) = clamp((u + 1)/2, 0, 1)`, negated for a label of 1; with respect to `logits`; continuous. Labels,
/// of which all but 0 are 1, have none.
/// Source: Martins and Astudillo (2016), arXiv:1602.02068, for two classes. Same as `optax.losses.sparsemax_loss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 3.0], &[2]), HostTensor::f32(&[1.0, 0.0], &[2]));
/// let out = cpu::forward_backward(&losses::sparsemax(), &[("logits", x), ("labels", y)], &["logits"])?;
/// assert_eq!((out.loss()?, out.grad("logits")?), (1.625, &[-0.25, 0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn sparsemax() -> Loss {
    Loss::define("sparsemax").input("logits", Scope::Element).input("labels", Scope::Element).expr(|b| {
        let (x, y) = (b.input("logits"), b.input("labels"));
        let u = y.equals(0.0).select(x, -x);
        let root = 0.5 * (u + 1.0);
        let knee = u.le(-1.0).select(0.0, root * root);
        u.ge(1.0).select(u, knee)
    })
}

/// Begins an element-wise loss of optax's `predictor_outputs` and `targets`.
fn of_outputs_and_targets(name: &str) -> DefinitionBuilder {
    Loss::define(name).input("predictor_outputs", Scope::Element).input("targets", Scope::Element)
}

/// `t·x`: positive on the right side.
fn agreement<'g>(b: &Build<'g>) -> Expr<'g> {
    b.input("targets") * b.input("predictor_outputs")
}
