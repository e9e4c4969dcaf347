//! Overlap of predicted and true classes of an image: losses of logits and labels, by sums over the voxels for each class.

use super::entry::{Entry, Range, Ranges};
use super::focal::focus;
use super::options::loss_with_options;
use super::softmax::label_nll;
use crate::expr::{Expr, Extent};
use crate::loss::Value::{Flag, Num, Word};
use crate::loss::{Build, DefinitionBuilder, Domain, Loss};
use crate::shape::{RowAxis, Scope};

const LOGITS: Ranges = &[("input", Range::Logits)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("dice_ce", || dice_ce().into())
        .inputs(LOGITS)
        .variants(&[&[("batch", Flag(true)), ("include_background", Flag(false))], &[("squared_pred", Flag(true))]]),
    Entry::new("dice_focal", || dice_focal().into())
        .inputs(LOGITS)
        .variants(&[&[("batch", Flag(true)), ("gamma", Num(1.5))]]),
    Entry::new("generalized_dice", || generalized_dice().into())
        .inputs(LOGITS)
        .variants(&[&[("batch", Flag(true)), ("weight_type", Word("simple"))], &[("weight_type", Word("uniform"))]]),
    Entry::new("focal_tversky", || focal_tversky().into())
        .inputs(LOGITS)
        .variants(&[&[("batch", Flag(true)), ("gamma", Num(1.0))]]),
    Entry::new("jaccard", || jaccard().into()).inputs(LOGITS).variants(&[&[("batch", Flag(true))]]),
    Entry::new("log_cosh_dice", || log_cosh_dice().into()).inputs(LOGITS).variants(&[&[("batch", Flag(true))]]),
];

/// Begins a loss of logits and labels of voxels, with the options that all of them have.
fn of_voxels(name: &str) -> DefinitionBuilder {
    let definition = Loss::define(name).row_axis(RowAxis::Class).input("input", Scope::Element).label("target");
    let definition = definition.flag("include_background", true).flag("batch", false);
    definition.param("smooth", 1e-5, Domain::Positive)
}

/// Of each class, over the voxels: what both regions have, what only the prediction has, and what only the label has.
struct Overlap<'g> {
    both: Expr<'g>,
    added: Expr<'g>,
    missed: Expr<'g>,
}

impl<'g> Overlap<'g> {
    /// Of each sample, or with `batch` of all.
    fn new(b: &Build<'g>) -> Overlap<'g> {
        let regions = Regions::new(b);
        let (both, added, missed) =
            (regions.of_label(regions.p), regions.of_others(regions.p), regions.of_label(regions.rest));
        let [both, added, missed] = [both, added, missed].map(|x| x.sum_over(regions.classes));
        Overlap { both, added, missed }
    }

    /// `1 − (2I + s)/(P + G + s)`
    fn dice(&self, smooth: Expr<'g>) -> Expr<'g> {
        share(self.added + self.missed, 2.0 * self.both + smooth)
    }
}

/// `wrong/(wrong + right)`: one minus the share of what is right keeps its digits so where little is wrong, and its derivatives
/// where little is wrong or right, which as differences would not.
fn share<'g>(wrong: Expr<'g>, right: Expr<'g>) -> Expr<'g> {
    let all = wrong + right;
    (wrong / all).with_gradient(wrong, right / all / all).with_gradient(right, -(wrong / all / all))
}

/// The predicted and the true regions of the classes.
struct Regions<'g> {
    /// The probabilities `p`.
    p: Expr<'g>,
    /// 1 − p.
    rest: Expr<'g>,
    is_label: Expr<'g>,
    /// Where sums over the voxels go: to the classes of each sample, or of the batch.
    classes: Scope,
}

impl<'g> Regions<'g> {
    /// The largest probability of a voxel is what the others leave, with a gradient that goes to these: of a confident voxel it
    /// would else be the difference of what nearly cancels.
    fn new(b: &Build<'g>) -> Regions<'g> {
        let (x, col) = (b.input("input"), b.graph().col_index());
        let (softmax, is_top) = (x.softmax(), col.equals(x.argmax()));
        let others = is_top.select(0.0, softmax).sum();
        let (p, rest) = (is_top.select(1.0 - others, softmax), is_top.select(others, 1.0 - softmax));
        let classes = if b.flag("batch") { Scope::Column } else { Scope::GroupColumn };
        Regions { p, rest, is_label: col.equals(b.input("target")), classes }
    }

    /// The value at the voxels of the class, else 0.
    fn of_label(&self, x: Expr<'g>) -> Expr<'g> {
        self.is_label.select(x, 0.0)
    }

    /// The value at the voxels of other classes, else 0.
    fn of_others(&self, x: Expr<'g>) -> Expr<'g> {
        self.is_label.select(0.0, x)
    }

    /// |p − g|, where `g` is 1 at the voxels of the class, else 0.
    fn wrong(&self) -> Expr<'g> {
        self.is_label.select(self.rest, self.p)
    }

    /// `g`
    fn truth(&self) -> Expr<'g> {
        self.is_label.to_float()
    }
}

/// The value of a class where the class counts, else 0.
fn counted<'g>(b: &Build<'g>, of_class: Expr<'g>) -> Expr<'g> {
    match b.flag("include_background") {
        true => of_class,
        false => b.graph().col_index().equals(b.graph().index(0)).select(0.0, of_class),
    }
}

/// The mean over the classes that count, and over the samples, unless the classes are of the batch.
fn class_mean<'g>(b: &Build<'g>, of_class: Expr<'g>) -> Expr<'g> {
    let all = b.graph().count(Extent::Cols);
    let classes = if b.flag("include_background") { all } else { (all - 1.0).maximum(1.0) };
    let sum = counted(b, of_class).sum_over(Scope::Total);
    if b.flag("batch") { sum / classes } else { sum / (classes * b.graph().count(Extent::Groups)) }
}

/// The mean Dice loss of the classes.
fn mean_dice<'g>(b: &Build<'g>) -> Expr<'g> {
    class_mean(b, Overlap::new(b).dice(b.param("smooth")))
}

/// Dice loss of the classes and cross-entropy of the voxels, of logits.
///
/// `L = λ_d·mean(1 − (2I + s)/(P + G + s)) + λ_c·mean(−w_y·ln p_y)`, with `p = softmax(input)`, `y = target`, and for each class
/// over the voxels of a sample the sums `I` of `p` at voxels of that class, `P` of `p` (of `p²` with `squared_pred`) and `G` of 1 at
/// these voxels. The first mean is over classes and samples; the second divides by `Σ w_y`.
///
/// Shapes: `input: [N, C, d1, …]`, `target: [N, d1, …]` class indices, optional `weight: [C]` → one loss. Unit: nats beside none.
/// Gradient: of the whole expression, with respect to `input` and `weight`. A logit of −∞ means probability zero.
/// Options: `include_background` (true; false leaves class 0 out of the Dice loss), `batch` (false; true sums over the voxels of
/// all samples), `smooth` s (1e-5), `squared_pred` (false), `lambda_dice` (1), `lambda_ce` (1).
/// Errors: `Error::Param` unless `smooth` is finite and > 0, and both λ finite and ≥ 0; `Error::LabelOutOfRange` when a result with
/// such a label is read.
/// Source: Isensee et al. (2021), nnU-Net, Nat. Methods 18, whose loss is this minus `λ_d`. Same as MONAI's `DiceCELoss` with
/// `softmax` and `to_onehot_y`; [`dice`](super::dice) takes probabilities.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0; 4], &[1, 2, 2]), HostTensor::i32(&[0, 1], &[1, 2]));
/// let out = cpu::forward_backward(&losses::dice_ce(), &[("input", x), ("target", y)], &[])?;
/// assert!((out.loss()? - (0.5 + 2f64.ln())).abs() < 1e-5);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dice_ce() -> DiceCe {
    let definition = of_voxels("dice_ce").optional("weight", Scope::Column).flag("squared_pred", false);
    let definition = definition.param("lambda_dice", 1.0, Domain::NonNegative);
    let loss = definition.param("lambda_ce", 1.0, Domain::NonNegative).expr(|b| {
        let y = b.input("target");
        let nll = label_nll(b.input("input"), y);
        let cross_entropy = match b.optional("weight").map(|weight| weight.at(y)) {
            Some(weight) => (weight * nll).sum_over(Scope::Total) / weight.sum_over(Scope::Total),
            None => nll.sum_over(Scope::Total) / b.graph().count(Extent::Rows),
        };
        let dice = if b.flag("squared_pred") { mean_squared_dice(b) } else { mean_dice(b) };
        b.param("lambda_dice") * dice + b.param("lambda_ce") * cross_entropy
    });
    DiceCe(loss)
}

/// The mean Dice loss of the classes with the sum of squares for `P`: `Σ (p − g)²/(Σ p² + Σ g + s)`.
fn mean_squared_dice<'g>(b: &Build<'g>) -> Expr<'g> {
    let regions = Regions::new(b);
    let (wrong, all) = (regions.wrong().powi(2), regions.p.powi(2) + regions.truth());
    let [wrong, all] = [wrong, all].map(|x| x.sum_over(regions.classes));
    class_mean(b, wrong / (all + b.param("smooth")))
}

loss_with_options! {
    /// The loss that [`dice_ce`] makes.
    DiceCe {
        /// Whether class 0 counts in the Dice loss; true by default.
        flag include_background;
        /// Whether classes are summed over the voxels of all samples, not of each; false by default.
        flag batch;
        /// `s`, which is added to both sides of the quotient; finite and > 0, else `Error::Param`; 1e-5 by default.
        number smooth;
        /// Whether `P` is the sum of squares; false by default.
        flag squared_pred;
        /// `λ_d`, the weight of the Dice loss; finite and ≥ 0, else `Error::Param`; 1 by default.
        number lambda_dice;
        /// `λ_c`, the weight of the cross-entropy; finite and ≥ 0, else `Error::Param`; 1 by default.
        number lambda_ce;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// Dice loss of the classes and focal loss of the voxels, of logits.
///
/// `L = λ_d·mean(1 − (2I + s)/(P + G + s)) + λ_f·Σ (1 − p_y)^γ·(−ln p_y)/(N·C·V)`, with the sums and the first mean of [`dice_ce`]
/// and `V` voxels per sample: the focal term divides by the number of logits.
///
/// Shapes: `input: [N, C, d1, …]`, `target: [N, d1, …]` class indices → one loss. Unit: nats beside none.
/// Gradient: of the whole expression, with respect to `input`. A logit of −∞ means probability zero.
/// Options: `include_background` (true; false leaves class 0 out of the Dice loss), `batch` (false; true sums over the voxels of
/// all samples), `smooth` s (1e-5), `gamma` γ (2), `lambda_dice` (1), `lambda_focal` (1).
/// Errors: `Error::Param` unless `smooth` is finite and > 0, and `gamma` and both λ finite and ≥ 0; `Error::LabelOutOfRange` when a
/// result with such a label is read.
/// Source: MONAI's `DiceFocalLoss` with `softmax` and `to_onehot_y`, which without background drops class 0 before the softmax of
/// its focal term.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0; 4], &[1, 2, 2]), HostTensor::i32(&[0, 1], &[1, 2]));
/// let out = cpu::forward_backward(&losses::dice_focal(), &[("input", x), ("target", y)], &[])?;
/// assert!((out.loss()? - (0.5 + 0.125 * 2f64.ln())).abs() < 1e-5);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dice_focal() -> DiceFocal {
    let definition = of_voxels("dice_focal").special_param("gamma", 2.0, Domain::NonNegative, &[0.0, 1.0, 2.0]);
    let definition = definition.param("lambda_dice", 1.0, Domain::NonNegative);
    let loss = definition.param("lambda_focal", 1.0, Domain::NonNegative).expr(|b| {
        let nll = label_nll(b.input("input"), b.input("target"));
        let focal = focus(b, -(-nll).expm1(), nll).sum_over(Scope::Total) / b.graph().count(Extent::Elements);
        b.param("lambda_dice") * mean_dice(b) + b.param("lambda_focal") * focal
    });
    DiceFocal(loss)
}

loss_with_options! {
    /// The loss that [`dice_focal`] makes.
    DiceFocal {
        /// Whether class 0 counts in the Dice loss; true by default.
        flag include_background;
        /// Whether classes are summed over the voxels of all samples, not of each; false by default.
        flag batch;
        /// `s`, which is added to both sides of the quotient; finite and > 0, else `Error::Param`; 1e-5 by default.
        number smooth;
        /// `γ`, the exponent of `1 − p_y`; finite and ≥ 0, else `Error::Param`; 2 by default.
        number gamma;
        /// `λ_d`, the weight of the Dice loss; finite and ≥ 0, else `Error::Param`; 1 by default.
        number lambda_dice;
        /// `λ_f`, the weight of the focal loss; finite and ≥ 0, else `Error::Param`; 1 by default.
        number lambda_focal;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// Generalised Dice loss: one quotient over all classes, of which small ones weigh more.
///
/// `L = 1 − (2·Σ_c w·I + s)/(Σ_c w·(P + G) + s)` per sample, with the sums of [`dice_ce`] and `w = 1/G²` (`weight_type` `square`),
/// `1/G` (`simple`) or 1 (`uniform`); a class without voxels has the largest weight of the sample's other classes, 0 if there is none.
///
/// Shapes: `input: [N, C, d1, …]`, `target: [N, d1, …]` class indices → loss `[N]`, with `batch` one. Unit: none; the mean divides by
/// the number of samples.
/// Gradient: of the quotient, with respect to `input`; weights are constants. A logit of −∞ means probability zero.
/// Options: `include_background` (true; false leaves class 0 out), `batch` (false; true sums over the voxels of all samples),
/// `smooth` s (1e-5), `weight_type` (`square`).
/// Errors: `Error::Param` unless `smooth` is finite and > 0 and `weight_type` among the words; `Error::LabelOutOfRange` when a result
/// with such a label is read.
/// Source: Sudre et al. (2017), arXiv:1707.03237. Same as MONAI's `GeneralizedDiceLoss` with `softmax` and `to_onehot_y`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0; 4], &[1, 2, 2]), HostTensor::i32(&[0, 1], &[1, 2]));
/// let out = cpu::forward_backward(&losses::generalized_dice(), &[("input", x), ("target", y)], &[])?;
/// assert!((out.loss()? - 0.5).abs() < 1e-5);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn generalized_dice() -> GeneralizedDice {
    let definition = of_voxels("generalized_dice").words("weight_type", &["square", "simple", "uniform"]);
    let loss = definition.expr(|b| {
        let regions = Regions::new(b);
        let weight = class_weight(b, regions.truth().sum_over(regions.classes));
        let to = if b.flag("batch") { Scope::Total } else { Scope::Group };
        let all = regions.p + regions.truth();
        let [wrong, all] = [regions.wrong(), all].map(|x| counted(b, weight * x).sum_over(to));
        wrong / (all + b.param("smooth"))
    });
    GeneralizedDice(loss)
}

/// The weight of each class by its number of voxels, a constant.
fn class_weight<'g>(b: &Build<'g>, voxels: Expr<'g>) -> Expr<'g> {
    let voxels = voxels.detach();
    let weight = match b.word("weight_type") {
        "uniform" => return b.graph().constant(1.0),
        "simple" => 1.0 / voxels,
        _ => 1.0 / (voxels * voxels),
    };
    let is_there = voxels.gt(0.0);
    let largest = counted(b, is_there.select(weight, 0.0)).max().detach();
    is_there.select(weight, largest)
}

loss_with_options! {
    /// The loss that [`generalized_dice`] makes.
    GeneralizedDice {
        /// Whether class 0 counts; true by default.
        flag include_background;
        /// Whether classes are summed over the voxels of all samples, not of each; false by default.
        flag batch;
        /// `s`, which is added to both sides of the quotient; finite and > 0, else `Error::Param`; 1e-5 by default.
        number smooth;
        /// How a class weighs by its voxels: `square` (the default), `simple` or `uniform`, else `Error::Param`.
        word weight_type;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// Focal Tversky loss of the classes: a power of what is wrong.
///
/// `L = mean((1 − (I + s)/(I + α·(P − I) + β·(G − I) + s))^γ)`, with the sums and the mean of [`dice_ce`]: `P − I` is what is added,
/// `G − I` what is missed.
///
/// Shapes: `input: [N, C, d1, …]`, `target: [N, d1, …]` class indices → one loss. Unit: none.
/// Gradient: of the whole expression, with respect to `input`; 0 from a class where nothing is wrong, for γ < 1 too (in PyTorch NaN).
/// A logit of −∞ means probability zero.
/// Options: `include_background` (true; false leaves class 0 out), `batch` (false; true sums over the voxels of all samples),
/// `smooth` s (1e-5), `alpha` (0.3), `beta` (0.7), `gamma` γ (0.75).
/// Errors: `Error::Param` unless `smooth` and `gamma` are finite and > 0, and `alpha` and `beta` finite and ≥ 0;
/// `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: Abraham and Khan (2018), arXiv:1810.07842, whose α and β are the other way round and whose exponent is 1/γ. MONAI's
/// `TverskyLoss` to the power γ; [`tversky`](super::tversky) takes probabilities.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0; 4], &[1, 2, 2]), HostTensor::i32(&[0, 1], &[1, 2]));
/// let out = cpu::forward_backward(&losses::focal_tversky(), &[("input", x), ("target", y)], &[])?;
/// assert!((out.loss()? - 0.5f64.powf(0.75)).abs() < 1e-5);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn focal_tversky() -> FocalTversky {
    let definition = of_voxels("focal_tversky").param("alpha", 0.3, Domain::NonNegative);
    let definition = definition.param("beta", 0.7, Domain::NonNegative);
    let loss = definition.special_param("gamma", 0.75, Domain::Positive, &[1.0]).expr(|b| {
        let overlap = Overlap::new(b);
        let wrong = b.param("alpha") * overlap.added + b.param("beta") * overlap.missed;
        let share = share(wrong, overlap.both + b.param("smooth"));
        if b.value("gamma") == Some(1.0) {
            return class_mean(b, share);
        }
        let power = share.equals(0.0).select(0.0, share.pow(b.param("gamma")));
        class_mean(b, power)
    });
    FocalTversky(loss)
}

loss_with_options! {
    /// The loss that [`focal_tversky`] makes.
    FocalTversky {
        /// Whether class 0 counts; true by default.
        flag include_background;
        /// Whether classes are summed over the voxels of all samples, not of each; false by default.
        flag batch;
        /// `s`, which is added to both sides of the quotient; finite and > 0, else `Error::Param`; 1e-5 by default.
        number smooth;
        /// `α`, the weight of what is added; finite and ≥ 0, else `Error::Param`; 0.3 by default.
        number alpha;
        /// `β`, the weight of what is missed; finite and ≥ 0, else `Error::Param`; 0.7 by default.
        number beta;
        /// `γ`, the power of what is wrong; finite and > 0, else `Error::Param`; 0.75 by default.
        number gamma;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// Jaccard loss of the classes: one minus intersection over union.
///
/// `L = mean(1 − (I + s)/(P + G − I + s))`, with the sums and the mean of [`dice_ce`].
///
/// Shapes: `input: [N, C, d1, …]`, `target: [N, d1, …]` class indices → one loss. Unit: none.
/// Gradient: of the whole expression, with respect to `input`. A logit of −∞ means probability zero.
/// Options: `include_background` (true; false leaves class 0 out), `batch` (false; true sums over the voxels of all samples),
/// `smooth` s (1e-5).
/// Errors: `Error::Param` unless `smooth` is finite and > 0; `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: MONAI's `DiceLoss` with `jaccard`, whose smooth is twice this; segmentation_models_pytorch's `JaccardLoss` with `batch`,
/// but for classes without voxels.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0; 4], &[1, 2, 2]), HostTensor::i32(&[0, 1], &[1, 2]));
/// let out = cpu::forward_backward(&losses::jaccard(), &[("input", x), ("target", y)], &[])?;
/// assert!((out.loss()? - 2.0 / 3.0).abs() < 1e-5);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn jaccard() -> Jaccard {
    let loss = of_voxels("jaccard").expr(|b| {
        let overlap = Overlap::new(b);
        let wrong = overlap.added + overlap.missed;
        class_mean(b, share(wrong, overlap.both + b.param("smooth")))
    });
    Jaccard(loss)
}

loss_with_options! {
    /// The loss that [`jaccard`] makes.
    Jaccard {
        /// Whether class 0 counts; true by default.
        flag include_background;
        /// Whether classes are summed over the voxels of all samples, not of each; false by default.
        flag batch;
        /// `s`, which is added to both sides of the quotient; finite and > 0, else `Error::Param`; 1e-5 by default.
        number smooth;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}

/// Log-cosh Dice loss: smooth near 0, where the Dice loss is steep.
///
/// `L = ln cosh(mean(1 − (2I + s)/(P + G + s)))`, with the sums and the mean of [`dice_ce`].
///
/// Shapes: `input: [N, C, d1, …]`, `target: [N, d1, …]` class indices → one loss. Unit: none.
/// Gradient: `tanh` of the mean times that of the mean, with respect to `input`. A logit of −∞ means probability zero.
/// Options: `include_background` (true; false leaves class 0 out), `batch` (false; true sums over the voxels of all samples),
/// `smooth` s (1e-5).
/// Errors: `Error::Param` unless `smooth` is finite and > 0; `Error::LabelOutOfRange` when a result with such a label is read.
/// Source: Jadon (2020), arXiv:2006.14822; of MONAI's `DiceLoss` with `softmax` and `to_onehot_y`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0; 4], &[1, 2, 2]), HostTensor::i32(&[0, 1], &[1, 2]));
/// let out = cpu::forward_backward(&losses::log_cosh_dice(), &[("input", x), ("target", y)], &[])?;
/// assert!((out.loss()? - 0.5f64.cosh().ln()).abs() < 1e-5);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn log_cosh_dice() -> LogCoshDice {
    LogCoshDice(of_voxels("log_cosh_dice").expr(|b| mean_dice(b).log_cosh()))
}

loss_with_options! {
    /// The loss that [`log_cosh_dice`] makes.
    LogCoshDice {
        /// Whether class 0 counts; true by default.
        flag include_background;
        /// Whether classes are summed over the voxels of all samples, not of each; false by default.
        flag batch;
        /// `s`, which is added to both sides of the quotient; finite and > 0, else `Error::Param`; 1e-5 by default.
        number smooth;
        /// The axis of the classes: 1, as in PyTorch (the default), or the last one: `[N, d1, …, C]`.
        axis class_axis;
    }
}
