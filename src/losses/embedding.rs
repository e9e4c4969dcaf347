//! Embeddings: losses of the distance or the angle between vectors.

use super::KERAS_EPSILON;
use super::entry::{Entry, Range, Ranges};
use super::of_true_and_predicted;
use super::options::loss_with_options;
use crate::expr::{Expr, Extent};
use crate::loss::Value::{Flag, Num};
use crate::loss::{Build, DefinitionBuilder, Domain, Loss};
use crate::shape::{RowAxis, Scope, ShapeRule};

/// `EPSILON` of PyTorch's losses, an f32 there.
const TORCH_EPSILON: f64 = 1e-12f32 as f64;
const INF: f64 = f64::INFINITY;
const VECTORS: Ranges =
    &[("anchor", Range::Coordinate), ("positive", Range::Coordinate), ("negative", Range::Coordinate)];
const SIGNS: Ranges = &[("target", Range::Sign)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("cosine_similarity", cosine_similarity),
    Entry::new("cosine_embedding", || cosine_embedding().into()).inputs(SIGNS).variants(&[&[("margin", Num(0.2))]]),
    Entry::new("hinge_embedding", || hinge_embedding().into()).inputs(SIGNS).variants(&[&[("margin", Num(0.5))]]),
    Entry::new("triplet_margin", || triplet_margin().into()).inputs(VECTORS).variants(&[
        &[("p", Num(1.0)), ("swap", Flag(true)), ("margin", Num(30.0))],
        &[("p", Num(INF))],
        &[("p", Num(3.0)), ("eps", Num(0.001)), ("margin", Num(5.0))],
    ]),
    Entry::new("triplet_margin_cosine", || triplet_margin_cosine().into()).variants(&[&[("swap", Flag(true))]]),
    Entry::new("byol", byol).inputs(&[("online_2", Range::Any), ("target_1", Range::Any)]),
];

/// Cosine similarity, negated: −1 for vectors of one direction.
///
/// `L = −Σⱼ t̂ⱼ·p̂ⱼ` over the last axis, with `t = y_true`, `p = y_pred` and `x̂ = x/max(‖x‖, 1e-7)`.
///
/// Shapes: `y_true, y_pred: [rows, cols]` → loss `[rows]`; as in Keras, one of them may lack a last axis of size 1, and another
/// axis is set by `row_axis`, or `.option("axis", 1)`. Unit: none.
/// Gradient: `−(t̂ − p̂·cos)/‖p‖` with respect to `y_pred`; of a norm below 1e-7 `−t̂/1e-7`, for the zero vector too (in Keras
/// NaN).
/// Squares are taken in f32: norms should lie below 1e19.
/// Source: same as `keras.losses.CosineSimilarity`; [`cosine_embedding`] has a label of the pair.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (t, p) = (HostTensor::f32(&[1.0, 0.0], &[1, 2]), HostTensor::f32(&[3.0, 4.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::cosine_similarity(), &[("y_true", t), ("y_pred", p)], &["y_pred"])?;
/// assert!((out.loss()? + 0.6).abs() < 1e-12);
/// let d = out.grad("y_pred")?;
/// assert!((d[0] + 0.128).abs() < 1e-12 && (d[1] - 0.096).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn cosine_similarity() -> Loss {
    of_true_and_predicted("cosine_similarity").expr(|b| -cosine(b.input("y_true"), b.input("y_pred"), KERAS_EPSILON))
}

/// The norm of a row as a cosine takes it.
#[derive(Clone, Copy)]
struct Norm<'g> {
    value: Expr<'g>,
    /// 1 where it changes as the row does, 0 where it does not.
    follows: Expr<'g>,
    /// The share of its square that is not the row's.
    rest: Expr<'g>,
}

/// The cosine of two rows; norms below `least` count as `least`.
fn cosine<'g>(x: Expr<'g>, y: Expr<'g>, least: f64) -> Expr<'g> {
    let norm = |x: Expr<'g>| {
        let square = (x * x).sum();
        let rest = square.lt(least * least).to_float();
        Norm { value: square.maximum(least * least).sqrt(), follows: 1.0 - rest, rest }
    };
    cosine_by([x, y], [norm(x), norm(y)])
}

/// The cosine of two rows. Its derivative is what the one has across the other: of a single column exactly nothing, which
/// rounding would not leave.
fn cosine_by<'g>([x, y]: [Expr<'g>; 2], [of_x, of_y]: [Norm<'g>; 2]) -> Expr<'g> {
    let cos = (x * y).sum() / (of_x.value * of_y.value);
    let is_single = x.graph().count(Extent::Cols).equals(1.0);
    let slope = |x: Expr<'g>, norm: Norm<'g>, other: Expr<'g>| {
        let across = other - x / norm.value * (cos * norm.follows);
        is_single.select(other * norm.rest, across) / norm.value
    };
    let slopes = [slope(x, of_x, y / of_y.value), slope(y, of_y, x / of_x.value)];
    // Of what each element gives the derivative alone counts.
    cos.straight_through((x * y).with_gradient(x, slopes[0]).with_gradient(y, slopes[1]).sum())
}

/// Cosine embedding loss: pairs that belong together ought to have one direction, others not.
///
/// `L = 1 − cos` where `y = 1`, `max(cos − margin, 0)` where `y = −1`, else 0, with `y = target` and
/// `cos = Σⱼ x₁ⱼ·x₂ⱼ/√((‖x₁‖² + 1e-12)·(‖x₂‖² + 1e-12))`, `x₁ = input1`, `x₂ = input2`.
///
/// Shapes: `input1, input2: [N, D]` (or `[D]`), `target: [N]` → loss `[N]`. Unit: none.
/// Gradient: with respect to both inputs; 0 at `cos = margin`. Finite for zero vectors, though large (1e6).
/// Squares are taken in f32: norms should lie below 1e19.
/// Options: `margin` (0).
/// Errors: `Error::Param` unless `margin` is finite.
/// Source: same as `torch.nn.functional.cosine_embedding_loss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x1, x2) = (HostTensor::f32(&[1.0, 0.0, 1.0, 0.0], &[2, 2]), HostTensor::f32(&[3.0, 4.0, 3.0, 4.0], &[2, 2]));
/// let inputs = [("input1", x1), ("input2", x2), ("target", HostTensor::f32(&[1.0, -1.0], &[2]))];
/// let out = cpu::forward_backward(&losses::cosine_embedding().margin(0.5), &inputs, &[])?;
/// assert!((out.loss()? - (0.4 + 0.1) / 2.0).abs() < 1e-9);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn cosine_embedding() -> CosineEmbedding {
    let definition = Loss::define("cosine_embedding").row_axis(RowAxis::Last).input("input1", Scope::Element);
    let definition = definition.input("input2", Scope::Element).input("target", Scope::Row);
    let loss = definition.param("margin", 0.0, Domain::Finite).expr(|b| {
        let (x1, x2, y) = (b.input("input1"), b.input("input2"), b.input("target"));
        let norms = [x1, x2].map(|x| {
            let square = (x * x).sum() + TORCH_EPSILON;
            Norm { value: square.sqrt(), follows: b.graph().constant(1.0), rest: TORCH_EPSILON / square }
        });
        let cos = cosine_by([x1, x2], norms);
        let apart = (cos - b.param("margin")).relu();
        y.equals(1.0).select(1.0 - cos, y.equals(-1.0).select(apart, 0.0))
    });
    CosineEmbedding(loss)
}

loss_with_options! {
    /// The loss that [`cosine_embedding`] makes.
    CosineEmbedding {
        /// The cosine up to which pairs that do not belong together cost nothing; finite, else `Error::Param`; 0 by
        /// default.
        number margin;
    }
}

/// Hinge embedding loss of distances: pairs that belong together ought to be near, others beyond a margin.
///
/// `L = x` where `y = 1`, `max(margin − x, 0)` where `y = −1`, else the sum of both, with `x = input`, a distance, and
/// `y = target`.
///
/// Shapes: `input, target` of one shape → loss of that shape. Unit: that of the distance.
/// Gradient: with respect to `input` 1 where `y = 1`, −1 within the margin where `y = −1`; 0 where it is just met.
/// Options: `margin` (1).
/// Errors: `Error::Param` unless `margin` is finite.
/// Source: same as `torch.nn.functional.hinge_embedding_loss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.5, 0.5, 2.0], &[3]), HostTensor::f32(&[1.0, -1.0, -1.0], &[3]));
/// let loss = losses::hinge_embedding().reduction(wgloss::Reduction::Sum);
/// let out = cpu::forward_backward(&loss, &[("input", x), ("target", y)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), (1.0, &[1.0, -1.0, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn hinge_embedding() -> HingeEmbedding {
    let definition = super::of_input_and_target("hinge_embedding");
    let loss = definition.param("margin", 1.0, Domain::Finite).expr(|b| {
        let (x, y) = (b.input("input"), b.input("target"));
        y.equals(-1.0).select(0.0, x) + y.equals(1.0).select(0.0, (b.param("margin") - x).relu())
    });
    HingeEmbedding(loss)
}

loss_with_options! {
    /// The loss that [`hinge_embedding`] makes.
    HingeEmbedding {
        /// The distance from which on pairs that do not belong together cost nothing; finite, else `Error::Param`; 1 by
        /// default.
        number margin;
    }
}

/// Triplet margin loss: an anchor ought to be nearer to the positive than to the negative, by a margin.
///
/// `L = max(d(a, p) − d(a, n) + margin, 0)`, with `a = anchor`, `p = positive`, `n = negative` and the distance
/// `d(x, y) = (Σⱼ |xⱼ − yⱼ + eps|^p)^(1/p)` over the last axis; with `swap`, `min(d(a, n), d(p, n))` in place of `d(a, n)`.
///
/// Shapes: `anchor, positive, negative: [..., D]` → loss `[...]`. Unit: that of the distance.
/// Gradient: with respect to all three; 0 where the margin is just met, where a distance is 0, and of `p ≥ 1` at the kinks of
/// `|x|`. Tied largest differences (`p = ∞`) share it equally, tied distances of `swap` by halves.
/// At `p = 2` squares are taken in f32: differences should lie below 1e19. Other powers are of shares of the largest difference.
/// Options: `margin` (1), `p` (2), `eps` (1e-6), `swap` (false).
/// Errors: `Error::Param` unless `margin` is finite and > 0, `p` > 0 or ∞, and `eps` finite and ≥ 0.
/// Source: Schroff et al. (2015), FaceNet, arXiv:1503.03832; `swap` from Balntas et al. (2016), BMVC. Same as
/// `torch.nn.functional.triplet_margin_loss`; [`triplet_margin_with_distance`] takes any distance.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (a, p, n) = ([0.0, 0.0], [3.0, 4.0], [0.0, 5.5]);
/// let inputs = [("anchor", &a), ("positive", &p), ("negative", &n)].map(|(name, x)| (name, HostTensor::f32(x, &[1, 2])));
/// let out = cpu::forward_backward(&losses::triplet_margin().eps(0.0), &inputs, &["anchor"])?;
/// assert_eq!(out.loss()?, 0.5);
/// let d = out.grad("anchor")?;
/// assert!((d[0] + 0.6).abs() < 1e-12 && (d[1] - 0.2).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn triplet_margin() -> TripletMargin {
    let definition = of_triplet("triplet_margin").param("eps", 1e-6, Domain::NonNegative);
    let definition = definition.structural_param("p", 2.0, Domain::PositiveOrInfinite, &[1.0, 2.0, INF]);
    TripletMargin(definition.expr(|b| triplet(b, |x, y| norm(b, x - y + b.param("eps")))))
}

loss_with_options! {
    /// The loss that [`triplet_margin`] makes.
    TripletMargin {
        /// By how much the negative ought to be farther; finite and > 0, else `Error::Param`; 1 by default.
        number margin;
        /// The power of the distance; > 0 or ∞, of which 1, 2 and ∞ need plans of their own, else `Error::Param`; 2 by
        /// default.
        number p;
        /// Added to each difference, so that the distance of equal vectors has a gradient; finite and ≥ 0, else
        /// `Error::Param`; 1e-6 by default.
        number eps;
        /// Whether the nearer of anchor and positive is what the negative is compared with; false by default.
        flag swap;
    }
}

fn of_triplet(name: &str) -> DefinitionBuilder {
    let vectors = ["anchor", "positive", "negative"];
    let rows = Loss::define(name).row_axis(RowAxis::Last);
    let definition = vectors.into_iter().fold(rows, |loss, vector| loss.input(vector, Scope::Element));
    definition.param("margin", 1.0, Domain::Positive).flag("swap", false)
}

fn triplet<'g>(b: &Build<'g>, distance: impl Fn(Expr<'g>, Expr<'g>) -> Expr<'g>) -> Expr<'g> {
    let [anchor, positive, negative] = ["anchor", "positive", "negative"].map(|name| b.input(name));
    let mut apart = distance(anchor, negative);
    if b.flag("swap") {
        apart = apart.minimum(distance(positive, negative));
    }
    (distance(anchor, positive) - apart + b.param("margin")).relu()
}

/// The `p`-norm of a row; the gradient of a norm of 0 is 0.
fn norm<'g>(b: &Build<'g>, x: Expr<'g>) -> Expr<'g> {
    let size = x.abs();
    let norm = match b.value("p") {
        Some(1.0) => size.sum(),
        Some(2.0) => {
            let square = (x * x).sum();
            let zero = square.equals(0.0);
            zero.select(0.0, zero.select(1.0, square).sqrt())
        }
        Some(p) if p == INF => size.max(),
        _ => {
            // Of shares of the largest, no power overflows; the shares' gradients are those of the norm.
            let (p, most) = (b.param("p"), size.max().detach());
            let none = most.equals(0.0);
            let share = size / none.select(1.0, most);
            let power = share.equals(0.0).select(0.0, share.pow(p));
            let sum = none.select(1.0, power.sum());
            none.select(0.0, most * sum.pow(1.0 / p))
        }
    };
    // Of a single column it is |x|, whose gradients of 1 cancel exactly.
    let is_single = b.graph().count(Extent::Cols).equals(1.0);
    is_single.select(size.sum(), norm)
}

/// Triplet margin loss of any distance between vectors: `max(d(a, p) − d(a, n) + margin, 0)`, as [`triplet_margin`].
///
/// `distance(x, y)` is an expression of two element inputs: one number per row.
///
/// Shapes, options (but `p` and `eps`) and errors: those of [`triplet_margin`]; `Error::Expr` where the distance has one value
/// per element.
/// Source: same as `torch.nn.functional.triplet_margin_with_distance_loss`; [`triplet_margin_cosine`] is one.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let squared = losses::triplet_margin_with_distance(|x, y| ((x - y) * (x - y)).sum());
/// let (a, p, n) = ([0.0, 0.0], [1.0, 1.0], [0.0, 1.5]);
/// let inputs = [("anchor", &a), ("positive", &p), ("negative", &n)].map(|(name, x)| (name, HostTensor::f32(x, &[1, 2])));
/// let out = cpu::forward_backward(&squared, &inputs, &["anchor"])?;
/// assert_eq!((out.loss()?, out.grad("anchor")?), (0.75, &[-2.0, 1.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn triplet_margin_with_distance<D>(distance: D) -> TripletMarginWithDistance
where
    D: for<'g> Fn(Expr<'g>, Expr<'g>) -> Expr<'g> + Send + Sync + 'static,
{
    of_distance("triplet_margin_with_distance", distance)
}

fn of_distance<D>(name: &str, distance: D) -> TripletMarginWithDistance
where
    D: for<'g> Fn(Expr<'g>, Expr<'g>) -> Expr<'g> + Send + Sync + 'static,
{
    TripletMarginWithDistance(of_triplet(name).expr(move |b| triplet(b, &distance)))
}

loss_with_options! {
    /// The loss that [`triplet_margin_with_distance`] and [`triplet_margin_cosine`] make.
    TripletMarginWithDistance {
        /// By how much the negative ought to be farther; finite and > 0, else `Error::Param`; 1 by default.
        number margin;
        /// Whether the nearer of anchor and positive is what the negative is compared with; false by default.
        flag swap;
    }
}

/// Triplet margin loss of angles: the distance is 1 less the cosine.
///
/// `L = max(d(a, p) − d(a, n) + margin, 0)`, with `d(x, y) = 1 − Σⱼ xⱼ·yⱼ/(‖x‖·‖y‖)`; with `swap` as [`triplet_margin`]. Norms
/// below 1e-8 count as 1e-8.
///
/// Shapes: `anchor, positive, negative: [..., D]` → loss `[...]`. Unit: none.
/// Gradient: with respect to all three; 0 where the margin is just met; tied distances of `swap` share it by halves.
/// Squares are taken in f32: norms should lie below 1e19.
/// Options: `margin` (1), `swap` (false).
/// Errors: `Error::Param` unless `margin` is finite and > 0.
/// Source: same as `torch.nn.functional.triplet_margin_with_distance_loss` of `1 - cosine_similarity`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (a, p, n) = ([1.0, 0.0], [0.0, 2.0], [3.0, 4.0]);
/// let inputs = [("anchor", &a), ("positive", &p), ("negative", &n)].map(|(name, x)| (name, HostTensor::f32(x, &[1, 2])));
/// let out = cpu::forward_backward(&losses::triplet_margin_cosine(), &inputs, &[])?;
/// assert!((out.loss()? - 1.6).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn triplet_margin_cosine() -> TripletMarginWithDistance {
    of_distance("triplet_margin_cosine", |x, y| 1.0 - cosine(x, y, 1e-8))
}

/// BYOL's loss: an online network's predictions ought to have the direction of a target network's projections.
///
/// `L = 2 − 2·cos(q, z)`, with `q = online_1` and `z = target_2`; with `online_2` and `target_1`, the other pair of views, the
/// same of these is added. Norms below 1e-8 count as 1e-8.
///
/// Shapes: all inputs `[rows, D]`; `online_2` and `target_1` are given both or not at all → loss `[rows]`. Unit: none.
/// Gradient: `−2(ẑ − q̂·cos)/‖q‖` with respect to `q`, and likewise with respect to the targets, which training takes none
/// of.
/// Squares are taken in f32: norms should lie below 1e19.
/// Source: Grill et al. (2020), arXiv:2006.07733. SimSiam's loss is `L/2 − 1` of each pair: [`cosine_similarity`].
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (q, z) = (HostTensor::f32(&[1.0, 0.0], &[1, 2]), HostTensor::f32(&[0.0, 3.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::byol(), &[("online_1", q), ("target_2", z)], &["online_1"])?;
/// assert_eq!((out.loss()?, out.grad("online_1")?), (2.0, &[0.0, -2.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn byol() -> Loss {
    let definition = Loss::define("byol").row_axis(RowAxis::Last).input("online_1", Scope::Element);
    let definition = definition.input("target_2", Scope::Element).optional("online_2", Scope::Element);
    let definition = definition.optional("target_1", Scope::Element);
    let definition = definition.shape_rule("online_2", ShapeRule::Same).shape_rule("target_1", ShapeRule::Same);
    definition.expr(|b| {
        let of = |online: &str, target: &str| 2.0 - 2.0 * cosine(b.input(online), b.input(target), 1e-8);
        let first = of("online_1", "target_2");
        let has_second = b.optional("online_2").or(b.optional("target_1")).is_some();
        if has_second { first + of("online_2", "target_1") } else { first }
    })
}
