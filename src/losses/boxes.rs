//! Losses of boxes: one minus their overlap, and what moves boxes that do not overlap.

use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use crate::expr::Expr;
use crate::loss::Value::{Num, Word};
use crate::loss::{Build, DefinitionBuilder, Domain, Loss};
use crate::shape::{RowAxis, Scope};

const PAIRS: Ranges = &[("boxes1", Range::Box), ("boxes2", Range::Box)];
const TARGETS: Ranges = &[("input", Range::Box), ("target", Range::Box)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("iou", || iou().into()).inputs(PAIRS),
    Entry::new("iou_log", || iou_log().into()).inputs(PAIRS),
    Entry::new("giou", || giou().into()).inputs(PAIRS).variants(&[&[("fmt", Word("cxcywh")), ("eps", Num(0.1))]]),
    Entry::new("diou", || diou().into()).inputs(PAIRS).variants(&[&[("fmt", Word("xywh"))]]),
    Entry::new("ciou", || ciou().into()).inputs(PAIRS),
    Entry::new("eiou", || eiou().into()).inputs(TARGETS),
    Entry::new("siou", || siou().into()).inputs(TARGETS).variants(&[&[("theta", Num(2.5))]]),
];

/// Begins a loss of two boxes per row, with the option `fmt`.
fn of_boxes(name: &str, [one, other]: [&str; 2]) -> DefinitionBuilder {
    let definition = Loss::define(name).row_axis(RowAxis::Last).cols(4).input(one, Scope::Element);
    definition.input(other, Scope::Element).words("fmt", &["xyxy", "xywh", "cxcywh"])
}

/// Along one axis: where a box begins and ends.
#[derive(Clone, Copy)]
struct Side<'g> {
    low: Expr<'g>,
    high: Expr<'g>,
}

impl<'g> Side<'g> {
    fn length(self) -> Expr<'g> {
        self.high - self.low
    }

    fn centre(self) -> Expr<'g> {
        0.5 * (self.low + self.high)
    }
}

/// Along one axis: the sides of two boxes.
#[derive(Clone, Copy)]
struct Sides<'g>([Side<'g>; 2]);

impl<'g> Sides<'g> {
    /// How long both are together; below 0 how far they are apart.
    fn overlap(self) -> Expr<'g> {
        let [a, b] = self.0;
        a.high.minimum(b.high) - a.low.maximum(b.low)
    }

    /// The side of the smallest box around both.
    fn enclosing(self) -> Expr<'g> {
        let [a, b] = self.0;
        a.high.maximum(b.high) - a.low.minimum(b.low)
    }

    /// The distance between the centres.
    fn between_centres(self) -> Expr<'g> {
        let [a, b] = self.0;
        a.centre() - b.centre()
    }

    fn lengths(self) -> [Expr<'g>; 2] {
        self.0.map(Side::length)
    }
}

/// Two boxes: their sides along x and along y.
#[derive(Clone, Copy)]
struct Boxes<'g> {
    x: Sides<'g>,
    y: Sides<'g>,
}

impl<'g> Boxes<'g> {
    fn new(b: &Build<'g>, names: [&str; 2]) -> Boxes<'g> {
        let side = |name: &str, axis: usize| {
            let (first, second) = (b.input(name).column(axis), b.input(name).column(axis + 2));
            match b.word("fmt") {
                "xywh" => Side { low: first, high: first + second },
                "cxcywh" => Side { low: first - 0.5 * second, high: first + 0.5 * second },
                _ => Side { low: first, high: second },
            }
        };
        let sides = |axis: usize| Sides(names.map(|name| side(name, axis)));
        Boxes { x: sides(0), y: sides(1) }
    }

    /// The area that both have; 0, without a gradient, where they do not overlap.
    fn intersection(self) -> Expr<'g> {
        let (width, height) = (self.x.overlap(), self.y.overlap());
        width.gt(0.0).and(height.gt(0.0)).select(width * height, 0.0)
    }

    /// The area that either has.
    fn union(self) -> Expr<'g> {
        let ([wa, wb], [ha, hb]) = (self.x.lengths(), self.y.lengths());
        wa * ha + wb * hb - self.intersection()
    }

    /// The intersection over the union and `eps`.
    fn iou(self, eps: impl Into<Option<Expr<'g>>>) -> Expr<'g> {
        match eps.into() {
            Some(eps) => self.intersection() / (self.union() + eps),
            // Boxes without an area have none in common.
            None => self.union().gt(0.0).select(self.intersection() / self.union(), 0.0),
        }
    }

    /// The squared distance of the centres.
    fn centres_squared(self) -> Expr<'g> {
        self.x.between_centres().powi(2) + self.y.between_centres().powi(2)
    }

    /// The squared diagonal of the smallest box around both.
    fn diagonal_squared(self) -> Expr<'g> {
        self.x.enclosing().powi(2) + self.y.enclosing().powi(2)
    }
}

/// One minus the intersection over union of two boxes.
///
/// `L = 1 − I/U`, with the area `I` that both boxes have and the area `U` that either has; `I/U` is 0 where `U` is.
///
/// Shapes: `boxes1, boxes2: [N, 4]` (or `[4]`, or more axes before the last) → loss `[N]`. Unit: none; the mean divides by the
/// number of pairs.
/// Gradient: with respect to both; 0 from the intersection where the boxes do not overlap; edges that coincide share theirs.
/// Options: `fmt`, the numbers of a box: `xyxy` (corners), `xywh` or `cxcywh` (a corner or the centre, then the sides).
/// Errors: `Error::Param` for another `fmt`; `Error::Shape` unless the last axis is 4.
/// Source: Jaccard (1901). Same as the diagonal of `torchvision.ops.box_iou`; [`giou`] has a gradient for boxes apart.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (a, b) = (HostTensor::f32(&[0.0, 0.0, 2.0, 1.0], &[1, 4]), HostTensor::f32(&[1.0, 0.0, 3.0, 1.0], &[1, 4]));
/// let out = cpu::forward_backward(&losses::iou(), &[("boxes1", a), ("boxes2", b)], &[])?;
/// assert!((out.loss()? - 2.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn iou() -> Iou {
    let names = ["boxes1", "boxes2"];
    Iou(of_boxes("iou", names).expr(move |b| 1.0 - Boxes::new(b, names).iou(None)))
}

loss_with_options! {
    /// The loss that [`iou`] makes.
    Iou {
        /// The numbers of a box: `xyxy` (the default), `xywh` or `cxcywh`, else `Error::Param`.
        word fmt;
    }
}

/// Logarithm of the intersection over union of two boxes.
///
/// `L = −ln(I/U)`, with the areas of [`iou`]; +∞ where the boxes do not overlap.
///
/// Shapes: `boxes1, boxes2: [N, 4]` (or `[4]`, or more axes before the last) → loss `[N]`. Unit: nats; the mean divides by the
/// number of pairs.
/// Gradient: with respect to both; 0 where the boxes do not overlap, as no step makes the loss finite (in PyTorch NaN); edges
/// that coincide share theirs.
/// Options: `fmt`, as of [`iou`].
/// Errors: `Error::Param` for another `fmt`; `Error::Shape` unless the last axis is 4.
/// Source: Yu et al. (2016), UnitBox, arXiv:1608.01471.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (a, b) = (HostTensor::f32(&[0.0, 0.0, 2.0, 1.0], &[1, 4]), HostTensor::f32(&[1.0, 0.0, 3.0, 1.0], &[1, 4]));
/// let out = cpu::forward_backward(&losses::iou_log(), &[("boxes1", a), ("boxes2", b)], &[])?;
/// assert!((out.loss()? - 3f64.ln()).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn iou_log() -> IouLog {
    let names = ["boxes1", "boxes2"];
    let loss = of_boxes("iou_log", names).expr(move |b| {
        let iou = Boxes::new(b, names).iou(None);
        iou.gt(0.0).select(-iou.log(), -iou.detach().log())
    });
    IouLog(loss)
}

loss_with_options! {
    /// The loss that [`iou_log`] makes.
    IouLog {
        /// The numbers of a box: `xyxy` (the default), `xywh` or `cxcywh`, else `Error::Param`.
        word fmt;
    }
}

/// Generalised intersection over union: boxes apart are drawn together by the box around both.
///
/// `L = 1 − I/(U + ε) + (C − U)/(C + ε)`, with the areas of [`iou`], the area `C` of the smallest box around both and
/// `ε = eps`.
///
/// Shapes: `boxes1, boxes2: [N, 4]` (or `[4]`, or more axes before the last) → loss `[N]`. Unit: none; the mean divides by the
/// number of pairs (torchvision's default is no reduction).
/// Gradient: with respect to both; 0 from the intersection where the boxes do not overlap; edges that coincide share theirs.
/// Options: `eps` (1e-7), `fmt`, as of [`iou`].
/// Errors: `Error::Param` unless `eps` is finite and > 0 and `fmt` among the words; `Error::Shape` unless the last axis is 4.
/// Source: Rezatofighi et al. (2019), arXiv:1902.09630. Same as `torchvision.ops.generalized_box_iou_loss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (a, b) = (HostTensor::f32(&[0.0, 0.0, 1.0, 1.0], &[1, 4]), HostTensor::f32(&[3.0, 0.0, 4.0, 1.0], &[1, 4]));
/// let out = cpu::forward_backward(&losses::giou(), &[("boxes1", a), ("boxes2", b)], &["boxes1"])?;
/// assert!((out.loss()? - 1.5).abs() < 1e-6 && (out.grad("boxes1")?[2] + 0.25).abs() < 1e-6);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn giou() -> Giou {
    let names = ["boxes1", "boxes2"];
    let loss = of_boxes("giou", names).param("eps", 1e-7, Domain::Positive).expr(move |b| {
        let (boxes, eps) = (Boxes::new(b, names), b.param("eps"));
        let around = boxes.x.enclosing() * boxes.y.enclosing();
        1.0 - boxes.iou(eps) + (around - boxes.union()) / (around + eps)
    });
    Giou(loss)
}

loss_with_options! {
    /// The loss that [`giou`] makes.
    Giou {
        /// `ε`, which is added to the areas divided by; finite and > 0, else `Error::Param`; 1e-7 by default.
        number eps;
        /// The numbers of a box: `xyxy` (the default), `xywh` or `cxcywh`, else `Error::Param`.
        word fmt;
    }
}

/// Distance intersection over union: the centres of the boxes are drawn together.
///
/// `L = 1 − I/(U + ε) + ρ²/(d² + ε)`, with the areas of [`iou`], the distance `ρ` of the centres, the diagonal `d` of the
/// smallest box around both and `ε = eps`.
///
/// Shapes: `boxes1, boxes2: [N, 4]` (or `[4]`, or more axes before the last) → loss `[N]`. Unit: none; the mean divides by the
/// number of pairs (torchvision's default is no reduction).
/// Gradient: with respect to both; 0 from the intersection where the boxes do not overlap; edges that coincide share theirs.
/// Options: `eps` (1e-7), `fmt`, as of [`iou`].
/// Errors: `Error::Param` unless `eps` is finite and > 0 and `fmt` among the words; `Error::Shape` unless the last axis is 4.
/// Source: Zheng et al. (2020), arXiv:1911.08287. Same as `torchvision.ops.distance_box_iou_loss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (a, b) = (HostTensor::f32(&[0.0, 0.0, 1.0, 1.0], &[1, 4]), HostTensor::f32(&[3.0, 0.0, 4.0, 1.0], &[1, 4]));
/// let out = cpu::forward_backward(&losses::diou(), &[("boxes1", a), ("boxes2", b)], &[])?;
/// assert!((out.loss()? - (1.0 + 9.0 / 17.0)).abs() < 1e-6);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn diou() -> Diou {
    let names = ["boxes1", "boxes2"];
    let loss = of_boxes("diou", names).param("eps", 1e-7, Domain::Positive).expr(move |b| {
        let (boxes, eps) = (Boxes::new(b, names), b.param("eps"));
        distance_loss(boxes, eps)
    });
    Diou(loss)
}

loss_with_options! {
    /// The loss that [`diou`] makes.
    Diou {
        /// `ε`, which is added to what is divided by; finite and > 0, else `Error::Param`; 1e-7 by default.
        number eps;
        /// The numbers of a box: `xyxy` (the default), `xywh` or `cxcywh`, else `Error::Param`.
        word fmt;
    }
}

/// `1 − IoU + ρ²/d²`
fn distance_loss<'g>(boxes: Boxes<'g>, eps: Expr<'g>) -> Expr<'g> {
    1.0 - boxes.iou(eps) + boxes.centres_squared() / (boxes.diagonal_squared() + eps)
}

/// Complete intersection over union: the centres of the boxes are drawn together, and their shapes.
///
/// `L = 1 − I/U + ρ²/d² + α·v`, with the areas of [`iou`], the distance `ρ` and the diagonal `d` of [`diou`],
/// `v = 4/π²·(atan(w/h) − atan(w′/h′))²` of the sides of the boxes, and `α = v/(1 − I/U + v + ε)`, `ε = eps`; 1e-7 is added to
/// `U` and `d²`, whatever `ε` is.
///
/// Shapes: `boxes1, boxes2: [N, 4]` (or `[4]`, or more axes before the last) → loss `[N]`. Unit: none; the mean divides by the
/// number of pairs (torchvision's default is no reduction).
/// Gradient: with respect to both, with α held constant; 0 from the intersection where the boxes do not overlap; edges that
/// coincide share theirs.
/// Options: `eps` (1e-7), `fmt`, as of [`iou`].
/// Errors: `Error::Param` unless `eps` is finite and > 0 and `fmt` among the words; `Error::Shape` unless the last axis is 4.
/// Source: Zheng et al. (2020), arXiv:1911.08287. Same as `torchvision.ops.complete_box_iou_loss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (a, b) = (HostTensor::f32(&[0.0, 0.0, 1.0, 1.0], &[1, 4]), HostTensor::f32(&[3.0, 0.0, 4.0, 1.0], &[1, 4]));
/// let out = cpu::forward_backward(&losses::ciou(), &[("boxes1", a), ("boxes2", b)], &[])?;
/// assert!((out.loss()? - (1.0 + 9.0 / 17.0)).abs() < 1e-6, "boxes of one shape: as diou");
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn ciou() -> Ciou {
    let names = ["boxes1", "boxes2"];
    let loss = of_boxes("ciou", names).param("eps", 1e-7, Domain::Positive).expr(move |b| {
        let (boxes, least) = (Boxes::new(b, names), b.graph().constant(1e-7));
        let [w, h] = [boxes.x, boxes.y].map(Sides::lengths);
        let unlike = (w[0] / h[0]).atan() - (w[1] / h[1]).atan();
        let v = (4.0 / std::f64::consts::PI.powi(2)) * unlike.powi(2);
        let alpha = v / (1.0 - boxes.iou(least) + v + b.param("eps"));
        distance_loss(boxes, least) + alpha.detach() * v
    });
    Ciou(loss)
}

loss_with_options! {
    /// The loss that [`ciou`] makes.
    Ciou {
        /// `ε` of the weight `α`; finite and > 0, else `Error::Param`; 1e-7 by default.
        number eps;
        /// The numbers of a box: `xyxy` (the default), `xywh` or `cxcywh`, else `Error::Param`.
        word fmt;
    }
}

/// Efficient intersection over union: the centres, widths and heights of the boxes are drawn together.
///
/// `L = 1 − I/(U + ε) + ρ²/(c_w² + c_h² + ε) + (w − w′)²/(c_w² + ε) + (h − h′)²/(c_h² + ε)`, with the areas of [`iou`], the
/// distance `ρ` of the centres, the sides `w, h` of the boxes and `c_w, c_h` of the smallest box around both, and `ε = eps`.
///
/// Shapes: `input, target: [N, 4]` (or `[4]`, or more axes before the last) → loss `[N]`. Unit: none; the mean divides by the
/// number of pairs.
/// Gradient: with respect to both; 0 from the intersection where the boxes do not overlap; edges that coincide share theirs.
/// Options: `eps` (1e-7), `fmt`, as of [`iou`].
/// Errors: `Error::Param` unless `eps` is finite and > 0 and `fmt` among the words; `Error::Shape` unless the last axis is 4.
/// Source: Zhang et al. (2021), arXiv:2101.08158. mmdetection's `EIoULoss` is another loss.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (a, b) = (HostTensor::f32(&[0.0, 0.0, 1.0, 1.0], &[1, 4]), HostTensor::f32(&[0.0, 0.0, 2.0, 1.0], &[1, 4]));
/// let out = cpu::forward_backward(&losses::eiou(), &[("input", a), ("target", b)], &[])?;
/// assert!((out.loss()? - (0.5 + 0.25 / 5.0 + 0.25)).abs() < 1e-6);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn eiou() -> Eiou {
    let names = ["input", "target"];
    let loss = of_boxes("eiou", names).param("eps", 1e-7, Domain::Positive).expr(move |b| {
        let (boxes, eps) = (Boxes::new(b, names), b.param("eps"));
        let unequal = [boxes.x, boxes.y].map(|sides| {
            let [a, b] = sides.lengths();
            (a - b).powi(2) / (sides.enclosing().powi(2) + eps)
        });
        distance_loss(boxes, eps) + unequal[0] + unequal[1]
    });
    Eiou(loss)
}

loss_with_options! {
    /// The loss that [`eiou`] makes.
    Eiou {
        /// `ε`, which is added to what is divided by; finite and > 0, else `Error::Param`; 1e-7 by default.
        number eps;
        /// The numbers of a box: `xyxy` (the default), `xywh` or `cxcywh`, else `Error::Param`.
        word fmt;
    }
}

/// Intersection over union with a cost of the angle, the distance and the shape.
///
/// `L = 1 − I/(U + ε) + (Δ + Ω)/2`, with `Δ = Σ 1 − exp(−(2 − a)·(d/(c + ε))²)` and `Ω = Σ (1 − exp(−|l − l′|/(max(l, l′) +
/// ε)))^θ` over both axes: `d` the distance of the centres along the axis, `c` the side of the smallest box around both, `l` the
/// sides of the boxes, and the angle's cost `a = 2·|d_x·d_y|/(d_x² + d_y² + ε)`.
///
/// Shapes: `input, target: [N, 4]` (or `[4]`, or more axes before the last) → loss `[N]`. Unit: none; the mean divides by the
/// number of pairs.
/// Gradient: with respect to both; 0 from the intersection where the boxes do not overlap; edges that coincide share theirs.
/// Options: `eps` (1e-7), `theta` θ (4), `fmt`, as of [`iou`].
/// Errors: `Error::Param` unless `eps` and `theta` are finite and > 0 and `fmt` among the words; `Error::Shape` unless the last
/// axis is 4.
/// Source: Gevorgyan (2022), arXiv:2205.12740, whose angle `1 − 2·sin²(arcsin(|d_y|/d) − π/4)` is this one.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (a, b) = (HostTensor::f32(&[0.0, 0.0, 1.0, 1.0], &[1, 4]), HostTensor::f32(&[1.0, 0.0, 2.0, 1.0], &[1, 4]));
/// let out = cpu::forward_backward(&losses::siou(), &[("input", a), ("target", b)], &[])?;
/// assert!((out.loss()? - (1.0 + 0.5 * (1.0 - (-0.5f64).exp()))).abs() < 1e-6);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn siou() -> Siou {
    let names = ["input", "target"];
    let definition = of_boxes("siou", names).param("eps", 1e-7, Domain::Positive);
    let loss = definition.special_param("theta", 4.0, Domain::Positive, &[4.0]).expr(move |b| {
        let (boxes, eps) = (Boxes::new(b, names), b.param("eps"));
        let (dx, dy) = (boxes.x.between_centres(), boxes.y.between_centres());
        let angle = 2.0 * (dx * dy).abs() / (dx.powi(2) + dy.powi(2) + eps);
        let distances = [boxes.x, boxes.y].map(|sides| {
            let share = sides.between_centres() / (sides.enclosing() + eps);
            -((angle - 2.0) * share.powi(2)).expm1()
        });
        let shapes = [boxes.x, boxes.y].map(|sides| {
            let [a, b] = sides.lengths();
            -(-(a - b).abs() / (a.maximum(b) + eps)).expm1()
        });
        let is_fourth = b.value("theta") == Some(4.0);
        let shapes = shapes.map(|shape| if is_fourth { shape.powi(4) } else { shape.pow(b.param("theta")) });
        1.0 - boxes.iou(eps) + 0.5 * (distances[0] + distances[1] + shapes[0] + shapes[1])
    });
    Siou(loss)
}

loss_with_options! {
    /// The loss that [`siou`] makes.
    Siou {
        /// `ε`, which is added to what is divided by; finite and > 0, else `Error::Param`; 1e-7 by default.
        number eps;
        /// `θ`, the power of the shape's cost; finite and > 0, else `Error::Param`; 4 by default.
        number theta;
        /// The numbers of a box: `xyxy` (the default), `xywh` or `cxcywh`, else `Error::Param`.
        word fmt;
    }
}
