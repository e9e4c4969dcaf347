//! Margin losses of one score per class.

use super::entry::Entry;
use super::of_true_and_predicted;
use super::options::loss_with_options;
use crate::expr::{Direction, Expr, Extent};
use crate::loss::Value::Num;
use crate::loss::{Build, DefinitionBuilder, Domain, Loss};
use crate::shape::{RowAxis, Scope};

pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("multi_margin", || multi_margin().into()).variants(&[&[("p", Num(2.0)), ("margin", Num(0.4))]]),
    Entry::new("multilabel_margin", multilabel_margin),
    Entry::new("categorical_hinge", || categorical_hinge().into()),
    Entry::new("multiclass_hinge", || multiclass_hinge().into()),
    Entry::new("multiclass_perceptron", || multiclass_perceptron().into()),
];

/// Multi-class margin loss: every other class should score `margin` less than the label.
///
/// `L = w_y/C · Σ_{j≠y} max(0, margin − x_y + xⱼ)^p`, with `x = input` and `y = target`.
///
/// Shapes: `input: [N, C, d1, …]` (or `[C]`), `target: [N, d1, …]` class indices, optional `weight: [C]`
/// → loss `[N, d1, …]`. Unit: that of the score to the power `p`; the mean divides by the number of rows.
/// Gradient: `w_y/C·p·max(0, …)^(p−1)` with respect to the classes inside the margin, minus their sum with respect to
/// the label's; 0 where a class is exactly `margin` below.
/// Options: `p` (1), `margin` (1).
/// Errors: `Error::Param` unless `p` is 1 or 2 and `margin` is finite; `Error::LabelOutOfRange` when a result with such a
/// label is read.
/// Source: same as `torch.nn.functional.multi_margin_loss`, which has no axes after the classes.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.5, 2.0, -2.0, 1.0], &[1, 4]), HostTensor::i32(&[1], &[1]));
/// let out = cpu::forward_backward(&losses::multi_margin().margin(2.0), &[("input", x), ("target", y)], &["input"])?;
/// assert_eq!(out.loss()?, (0.5 + 1.0) / 4.0);
/// assert_eq!(out.grad("input")?, [0.25, -0.5, 0.0, 0.25]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn multi_margin() -> MultiMargin {
    let definition = Loss::define("multi_margin").row_axis(RowAxis::Class).input("input", Scope::Element);
    let definition = definition.label("target").optional("weight", Scope::Column);
    let definition = definition.special_param("p", 1.0, Domain::OneOrTwo, &[1.0, 2.0]);
    let loss = definition.param("margin", 1.0, Domain::Finite).expr(|b| {
        let (x, y) = (b.input("input"), b.input("target"));
        let violation = (x - x.at(y) + b.param("margin")).relu().masked(!b.graph().col_index().equals(y));
        let value = to_the_power_p(b, violation).sum() / b.graph().count(Extent::Cols);
        b.optional("weight").map_or(value, |w| w.at(y).times(value))
    });
    MultiMargin(loss)
}

loss_with_options! {
    /// The loss that [`multi_margin`] makes.
    MultiMargin {
        /// `p`, the power of each violation of the margin; 1 or 2, else `Error::Param`; 1 by default.
        number p;
        /// `margin`, by which the label's score should be the largest; finite, else `Error::Param`; 1 by default.
        number margin;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// `xᵖ` of an `x` ≥ 0.
fn to_the_power_p<'g>(b: &Build<'g>, x: Expr<'g>) -> Expr<'g> {
    match b.value("p") {
        Some(1.0) => x,
        Some(2.0) => x * x,
        // At 0, ln x is infinite; the power and its derivatives go to 0 there.
        _ => x.gt(0.0).select(x, 1.0).pow(b.param("p")).masked(x.gt(0.0)),
    }
}

/// Multi-label margin loss: each of the labels should score 1 more than every other class.
///
/// `L = 1/C · Σ_{y∈T} Σ_{j∉T} max(0, 1 − x_y + xⱼ)`, with `x = input` and `T` the class indices in `target` up to the first −1.
///
/// Shapes: `input, target: [N, C]` (or `[C]`) → loss `[N]`. Unit: that of the score; the mean divides by the number of rows. An
/// index that is listed twice counts twice; of no label, or all of them, the loss is 0.
/// Gradient: `1/C` with respect to the other class and `−1/C` with respect to the label, for each pair inside the margin; 0 where
/// it is exactly met.
/// Cost: `C²` pairs per row (see [`Expr::partner`]).
/// Errors: `Error::LabelOutOfRange` when a result with such an index before the first −1 is read.
/// Source: same as `torch.nn.functional.multilabel_margin_loss`; [`multilabel_soft_margin`](super::multilabel_soft_margin) takes
/// a truth value per class.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.1, 0.2, 0.4, 0.8], &[1, 4]), HostTensor::i32(&[3, 0, -1, 1], &[1, 4]));
/// let out = cpu::forward_backward(&losses::multilabel_margin(), &[("input", x), ("target", y)], &["input"])?;
/// assert!((out.loss()? - 0.25 * (0.4 + 0.6 + 1.1 + 1.3)).abs() < 1e-6);
/// assert_eq!(out.grad("input")?, [-0.5, 0.5, 0.5, -0.5]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn multilabel_margin() -> Loss {
    let definition = Loss::define("multilabel_margin").row_axis(RowAxis::Last).input("input", Scope::Element);
    definition.labels("target", Scope::Element).expr(|b| {
        let (x, y, column) = (b.input("input"), b.input("target"), b.graph().col_index());
        let ends = y.equals(b.graph().index(-1)).to_float().scan_sum(Direction::Forward).gt(0.0);
        // An index beyond the columns is none of them.
        let listed = ends.select(b.graph().index(-1), y.in_columns());
        let labels = listed.partner().equals(column).to_float().sum_partners();
        let taken = labels.gt(0.0).and(labels.partner().equals(0.0));
        let violation = (1.0 - (x - x.partner())).relu();
        taken.select(labels * violation, 0.0).sum_partners().sum() / b.graph().count(Extent::Cols)
    })
}

/// Categorical hinge loss of scores and one-hot targets.
///
/// `L = max(0, 1 + maxⱼ (1 − tⱼ)·pⱼ − Σⱼ tⱼ·pⱼ)` over the last axis, with `t = y_true` and `p = y_pred`. The maximum
/// is over all classes: that of the target has 0 there.
///
/// Shapes: `y_true, y_pred: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1.
/// Unit: that of the score; the mean divides by the number of rows.
/// Gradient: `1 − tⱼ` with respect to the largest of the other classes (equal ones share it) and `−tⱼ` with respect to all,
/// inside the margin; half of both where the hinge is exactly 0.
/// Options: `row_axis`, the axis of the classes (the last); by name `axis` too.
/// Source: same as `keras.losses.CategoricalHinge`; [`multiclass_hinge`] takes class indices.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[0.0, 1.0, 0.0], &[1, 3]), HostTensor::f32(&[0.25, 0.5, -1.0], &[1, 3]));
/// let out = cpu::forward_backward(&losses::categorical_hinge(), &[("y_true", t), ("y_pred", p)], &["y_pred"])?;
/// assert_eq!((out.loss()?, out.grad("y_pred")?), (0.75, &[1.0, -1.0, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn categorical_hinge() -> CategoricalHinge {
    let loss = of_true_and_predicted("categorical_hinge").expr(|b| {
        let (t, p) = (b.input("y_true"), b.input("y_pred"));
        (((1.0 - t) * p).max() - (t * p).sum() + 1.0).maximum(0.0)
    });
    CategoricalHinge(loss)
}

loss_with_options! {
    /// The loss that [`categorical_hinge`] makes.
    CategoricalHinge {
        /// The axis of the classes: the last one by default.
        rows row_axis;
    }
}

/// Hinge loss of scores and class labels: the largest of the other classes should score 1 less than the label.
///
/// `L = maxⱼ (sⱼ + [j ≠ y]) − s_y`, with `s = scores` and `y = labels`.
///
/// Shapes: `scores: [N, …, C]` (or `[C]`), `labels: [N, …]` class indices → loss `[N, …]`. Unit: that of the score; the
/// mean divides by the number of rows.
/// Gradient: 1 with respect to the class of the maximum (equal ones share it), −1 with respect to the label's.
/// Options: `row_axis`, the axis of the classes (the last).
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: Crammer and Singer (2001), JMLR 2. Same as `optax.losses.multiclass_hinge_loss`, in a form that keeps its digits
/// at large common offsets.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (s, y) = (HostTensor::f32(&[0.0, 0.75, 0.5], &[1, 3]), HostTensor::i32(&[1], &[1]));
/// let out = cpu::forward_backward(&losses::multiclass_hinge(), &[("scores", s), ("labels", y)], &["scores"])?;
/// assert_eq!((out.loss()?, out.grad("scores")?), (0.75, &[0.0, -1.0, 1.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn multiclass_hinge() -> MulticlassHinge {
    let loss = of_scores_and_labels("multiclass_hinge").expr(|b| {
        let is_other = !b.graph().col_index().equals(b.input("labels"));
        (lead(b) + is_other.to_float()).max()
    });
    MulticlassHinge(loss)
}

loss_with_options! {
    /// The loss that [`multiclass_hinge`] makes.
    MulticlassHinge {
        /// The axis of the classes: the last one by default.
        rows row_axis;
    }
}

/// Perceptron loss of scores and class labels: by how much another class scores more than the label.
///
/// `L = maxⱼ sⱼ − s_y`, with `s = scores` and `y = labels`.
///
/// Shapes: `scores: [N, …, C]` (or `[C]`), `labels: [N, …]` class indices → loss `[N, …]`. Unit: that of the score; the
/// mean divides by the number of rows.
/// Gradient: 1 with respect to the class of the maximum (equal ones share it), −1 with respect to the label's.
/// Options: `row_axis`, the axis of the classes (the last).
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: Collins (2002), EMNLP. Same as `optax.losses.multiclass_perceptron_loss`; [`multiclass_hinge`] asks for a margin.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (s, y) = (HostTensor::f32(&[2.0, 0.5, 1.0], &[1, 3]), HostTensor::i32(&[1], &[1]));
/// let out = cpu::forward_backward(&losses::multiclass_perceptron(), &[("scores", s), ("labels", y)], &["scores"])?;
/// assert_eq!((out.loss()?, out.grad("scores")?), (1.5, &[1.0, -1.0, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn multiclass_perceptron() -> MulticlassPerceptron {
    MulticlassPerceptron(of_scores_and_labels("multiclass_perceptron").expr(|b| lead(b).max()))
}

loss_with_options! {
    /// The loss that [`multiclass_perceptron`] makes.
    MulticlassPerceptron {
        /// The axis of the classes: the last one by default.
        rows row_axis;
    }
}

/// Begins a loss of optax's `scores` and class index `labels`.
fn of_scores_and_labels(name: &str) -> DefinitionBuilder {
    Loss::define(name).row_axis(RowAxis::Last).input("scores", Scope::Element).label("labels")
}

/// `sⱼ − s_y`: by how much each class scores more than the label.
fn lead<'g>(b: &Build<'g>) -> Expr<'g> {
    let s = b.input("scores");
    s - s.at(b.input("labels"))
}
