//! Losses of regions: the overlap of a predicted region with the true one, and distances from its border.

use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use crate::expr::{Expr, Extent};
use crate::loss::Value::{Flag, Num};
use crate::loss::{Build, DefinitionBuilder, Domain, Loss};
use crate::shape::{RowAxis, Scope};

const REGIONS: Ranges = &[("y_true", Range::Probability), ("y_pred", Range::Probability)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("dice", || dice().into()).inputs(REGIONS),
    Entry::new("tversky", || tversky().into()).inputs(REGIONS).variants(&[&[("alpha", Num(0.7)), ("beta", Num(0.2))]]),
    Entry::new("boundary", || boundary().into())
        .inputs(&[("input", Range::Logits)])
        .variants(&[&[("include_background", Flag(false))]]),
];

/// Keras's `epsilon()`, which it adds to what it divides by.
const EPSILON: f64 = 1e-7;

/// Begins a loss of regions given as probabilities: of the whole batch, as Keras's `axis=None`, unless rows are other axes.
fn of_regions(name: &str) -> DefinitionBuilder {
    Loss::define(name).row_axis(RowAxis::From(0)).input("y_true", Scope::Element).input("y_pred", Scope::Element)
}

/// The true and the predicted region.
fn regions<'g>(b: &Build<'g>) -> [Expr<'g>; 2] {
    ["y_true", "y_pred"].map(|region| b.input(region))
}

/// Dice loss of regions given as probabilities.
///
/// `L = 1 − 2·Σ t·p/(Σ t + Σ p + 1e-7)`, with `t = y_true` and `p = y_pred`.
///
/// Shapes: `y_true, y_pred` of one shape → one loss; with [`row_axis`](Dice::row_axis) `From(k)` (Keras's `axis=[k, …]`, all
/// axes from `k` on) one per sample. Unit: none; the mean divides by the number of losses.
/// Gradient: `−2·(t·S − I)/S²` with respect to `y_pred`, with the sums `I` and `S` of the formula; to `y_true` likewise. An empty
/// region that is predicted empty has loss 1.
/// Source: Milletari, Navab and Ahmadi (2016), arXiv:1606.04797. Same as `keras.losses.Dice`; [`tversky`] weighs errors.
///
/// ```
/// use wgloss::{HostTensor, RowAxis, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[1.0, 0.0], &[1, 2]), HostTensor::f32(&[0.5, 0.5], &[1, 2]));
/// let inputs = [("y_true", t), ("y_pred", p)];
/// let out = cpu::forward_backward(&losses::dice().row_axis(RowAxis::From(1)), &inputs, &["y_pred"])?;
/// assert!((out.loss()? - 0.5).abs() < 1e-6);
/// assert!((out.grad("y_pred")?[0] + 0.75).abs() < 1e-6);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dice() -> Dice {
    let loss = of_regions("dice").expr(|b| {
        let [t, p] = regions(b);
        1.0 - 2.0 * (t * p).sum() / (t.sum() + p.sum() + EPSILON)
    });
    Dice(loss)
}

loss_with_options! {
    /// The loss that [`dice`] makes.
    Dice {
        /// The axes of a region, Keras's `axis`: all of them by default.
        rows row_axis;
    }
}

/// Tversky loss of regions given as probabilities: Dice that weighs what is missed and what is added.
///
/// `L = 1 − I/(I + α·Σ t·(1 − p) + β·Σ p·(1 − t) + 1e-7)`, with `I = Σ t·p`, `t = y_true` and `p = y_pred`.
///
/// Shapes: `y_true, y_pred` of one shape → one loss; with [`row_axis`](Tversky::row_axis) `From(k)` (Keras's `axis=[k, …]`, all
/// axes from `k` on) one per sample. Unit: none; the mean divides by the number of losses.
/// Gradient: of the whole expression, with respect to both.
/// Options: `alpha` (0.5) of the positives that are missed (Keras calls them false positives), `beta` (0.5) of what is added.
/// Errors: `Error::Param` unless both are finite and ≥ 0.
/// Source: Salehi, Erdogmus and Gholipour (2017), arXiv:1706.05721. Same as `keras.losses.Tversky`; with 0.5 and 0.5 it is
/// [`dice`] but for the 1e-7.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[1.0, 0.0], &[1, 2]), HostTensor::f32(&[0.5, 0.5], &[1, 2]));
/// let loss = losses::tversky().alpha(1.0).beta(0.0);
/// let out = cpu::forward_backward(&loss, &[("y_true", t), ("y_pred", p)], &[])?;
/// assert!((out.loss()? - 0.5).abs() < 1e-6);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn tversky() -> Tversky {
    let definition = of_regions("tversky").param("alpha", 0.5, Domain::NonNegative);
    let loss = definition.param("beta", 0.5, Domain::NonNegative).expr(|b| {
        let [t, p] = regions(b);
        let (both, missed, added) = ((t * p).sum(), (t * (1.0 - p)).sum(), (p * (1.0 - t)).sum());
        1.0 - both / (both + b.param("alpha") * missed + b.param("beta") * added + EPSILON)
    });
    Tversky(loss)
}

loss_with_options! {
    /// The loss that [`tversky`] makes.
    Tversky {
        /// `α`, the weight of positives that are missed; finite and ≥ 0, else `Error::Param`; 0.5 by default.
        number alpha;
        /// `β`, the weight of what is added; finite and ≥ 0, else `Error::Param`; 0.5 by default.
        number beta;
        /// The axes of a region, Keras's `axis`: all of them by default.
        rows row_axis;
    }
}

/// `Σ softmax(x)·d`. Its gradient counts distances from that of the most probable class: in a confident row it is then made of
/// what the other classes add, not of a difference in which that is lost.
fn expected<'g>(x: Expr<'g>, d: Expr<'g>) -> Expr<'g> {
    let (p, top) = (x.softmax(), d.at(x.argmax()).detach());
    (p * d).sum().straight_through((p * (d - top)).sum())
}

/// Boundary loss: how far from the true border the predicted region reaches.
///
/// `L = Σⱼ pⱼ·dⱼ/C`, with `p = softmax(input)`, `d = dist` and `C` the number of classes; without the background, class 0 counts
/// neither in the sum nor in `C`.
///
/// Shapes: `input, dist: [N, C, d1, …]` → loss `[N, d1, …]`, per voxel. Unit: that of the distances; the mean divides by the
/// number of voxels.
/// Gradient: `pⱼ·(dⱼ − Σₖ pₖ·dₖ)/C` with respect to `input`, `p/C` with respect to `dist`; class 0 as one of distance 0 where it
/// is left out. A logit of −∞ means probability zero.
/// Options: `include_background` (true).
/// `dist` is the signed distance of each voxel from the border of each class's true region, negative inside.
/// Source: Kervadec et al. (2019), arXiv:1812.07032.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, d) = (HostTensor::f32(&[0.0, 0.0], &[1, 2, 1]), HostTensor::f32(&[-1.0, 3.0], &[1, 2, 1]));
/// let out = cpu::forward_backward(&losses::boundary(), &[("input", x), ("dist", d)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (0.5, &[-0.5, 0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn boundary() -> Boundary {
    let definition = Loss::define("boundary").row_axis(RowAxis::Class).input("input", Scope::Element);
    let loss = definition.input("dist", Scope::Element).flag("include_background", true).expr(|b| {
        let (x, classes) = (b.input("input"), b.graph().count(Extent::Cols));
        if b.flag("include_background") {
            return expected(x, b.input("dist")) / classes;
        }
        let is_background = b.graph().col_index().equals(b.graph().index(0));
        expected(x, is_background.select(0.0, b.input("dist"))) / (classes - 1.0).maximum(1.0)
    });
    Boundary(loss)
}

loss_with_options! {
    /// The loss that [`boundary`] makes.
    Boundary {
        /// Whether class 0 counts; true by default.
        flag include_background;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}
