//! Losses of ranked lists: of all pairs of their items, and of their order.

use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use crate::expr::{Direction, Expr, Order};
use crate::loss::Value::Num;
use crate::loss::{Build, DefinitionBuilder, Denominator, Domain, Loss, MASK, Unreduced};
use crate::shape::{RowAxis, Scope};

const ITEMS: Ranges = &[("input", Range::Logits), ("labels", Range::Count), ("mask", Range::Binary)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("ranknet", || ranknet().into()).inputs(ITEMS).variants(&[&[("sigma", Num(0.5))]]),
    Entry::new("lambdarank", || lambdarank().into()).inputs(ITEMS).variants(&[&[("sigma", Num(0.5))]]),
    Entry::new("approx_ndcg", || approx_ndcg().into()).inputs(ITEMS).variants(&[&[("alpha", Num(4.0))]]),
    Entry::new("list_mle", list_mle).inputs(ITEMS),
];

/// A loss of lists: scores and relevance per item, and which items there are.
fn of_lists(name: &str) -> DefinitionBuilder {
    let definition = Loss::define(name).row_axis(RowAxis::Last).input("input", Scope::Element);
    definition.input("labels", Scope::Element).optional(MASK, Scope::Element)
}

/// The items of a list.
struct Items<'g> {
    /// Scores; 0 of what is no item.
    x: Expr<'g>,
    /// Relevance; 0 of what is no item.
    y: Expr<'g>,
    /// Whether it is an item; `None` if all are.
    keep: Option<Expr<'g>>,
}

impl<'g> Items<'g> {
    fn new(b: &Build<'g>) -> Items<'g> {
        let keep = b.optional(MASK).map(|mask| !mask.equals(0.0));
        let kept = |x: Expr<'g>| keep.map_or(x, |keep| keep.select(x, 0.0));
        Items { x: kept(b.input("input")), y: kept(b.input("labels").detach()), keep }
    }

    /// Where a condition of pairs holds of two items.
    fn both(&self, condition: Expr<'g>) -> Expr<'g> {
        self.keep.map_or(condition, |keep| keep.and(keep.partner()).and(condition))
    }

    /// The pairs whose first is more relevant.
    fn ordered(&self) -> Expr<'g> {
        self.both(self.y.gt(self.y.partner()))
    }

    /// How many items come before each by a value: larger ones, and equal ones of a lower column.
    fn before(&self, value: Expr<'g>) -> Expr<'g> {
        let (column, other) = (value.graph().col_index(), value.partner());
        let comes_first = other.gt(value).or(other.equals(value).and(column.partner().lt(column)));
        self.both(comes_first).select(1.0, 0.0).sum_partners()
    }

    /// `(2^y − 1)/idealDCG` of each item: what it gains at the first place, as a share of the best order's whole. 0 in a list
    /// without gain.
    fn gains(&self) -> Expr<'g> {
        let gain = (self.y * std::f64::consts::LN_2).expm1();
        let ideal = (gain * discount(self.before(self.y))).sum();
        ideal.gt(0.0).select(gain / ideal, 0.0)
    }
}

/// `1/log₂(2 + before)`: what an item counts after so many others.
fn discount(before: Expr<'_>) -> Expr<'_> {
    std::f64::consts::LN_2 / (before + 2.0).log()
}

/// RankNet: of each two items of a list, the more relevant ought to score higher.
///
/// `L = Σ ln(1 + exp(−σ·(xᵢ − xⱼ)))` over the pairs with `yᵢ > yⱼ`, with `x = input` and `y = labels`.
///
/// Shapes: `input, labels: [..., items]`, optional `mask` that broadcasts, 0 where there is no item → loss `[...]`, one per list.
/// Unit: nats; the mean divides by the number of pairs of all lists, or by 1 if there is none.
/// Gradient: `−σ·sigmoid(−σ·(xᵢ − xⱼ))` with respect to `xᵢ`, the opposite with respect to `xⱼ`, summed over the pairs; exactly 0
/// for what is no item, whatever it holds. None with respect to `labels`.
/// Cost: `items²` pairs per list (see [`Expr::partner`]).
/// Options: `sigma` (1).
/// Errors: `Error::Param` unless `sigma` is finite and > 0.
/// Source: Burges et al. (2005), ICML. Same as allRank's `rankNet`; [`bpr`](super::bpr) takes the pairs.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0, 1e4], &[1, 3]), HostTensor::f32(&[1.0, 0.0, 0.0], &[1, 3]));
/// let out = cpu::forward_backward(&losses::ranknet(), &[("input", x), ("labels", y)], &["input"])?;
/// assert_eq!((out.loss()?, out.grad("input")?), ((2f64.ln() + 1e4) / 2.0, &[-0.75, 0.25, 0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn ranknet() -> Ranknet {
    let loss = of_lists("ranknet").param("sigma", 1.0, Domain::Positive).unreduced(|b| {
        let items = Items::new(b);
        let ordered = items.ordered();
        let gap = b.param("sigma") * (items.x - items.x.partner());
        let pairs = ordered.select(1.0, 0.0).sum_partners().sum().sum_over(Scope::Total);
        Unreduced {
            value: ordered.select((-gap).softplus(), 0.0).sum_partners().sum(),
            denominator: Denominator::Total(pairs.maximum(1.0)),
        }
    });
    Ranknet(loss)
}

loss_with_options! {
    /// The loss that [`ranknet`] makes.
    Ranknet {
        /// `σ`, by which differences of scores are multiplied; finite and > 0, else `Error::Param`; 1 by default.
        number sigma;
    }
}

/// LambdaRank: RankNet whose pairs count by how much their exchange would change the NDCG.
///
/// `L = Σ |Gᵢ − Gⱼ|·|Dᵢ − Dⱼ|·ln(1 + exp(−σ·(xᵢ − xⱼ)))` over the pairs with `yᵢ > yⱼ`, with `x = input`, `y = labels`,
/// `G = (2^y − 1)/idealDCG` and `D = 1/log₂(1 + rank)`, where items are ranked by their scores from 1 on, equal ones by their column.
///
/// Shapes: as [`ranknet`] → loss `[...]`, one per list. Unit: nats; the mean divides by the number of lists. A list without gain
/// (all labels 0) is 0.
/// Gradient: that of [`ranknet`] with the weights, which are constants, with respect to `input`.
/// Cost: `items²` pairs per list, twice.
/// Options: `sigma` (1).
/// Errors: `Error::Param` unless `sigma` is finite and > 0.
/// Source: Burges (2010), MSR-TR-2010-82. Same as allRank's `lambdaLoss` with `lambdaRank_scheme` and `reduction_log="natural"`,
/// summed and divided by the lists.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::f32(&[1.0, 0.0], &[1, 2]));
/// let out = cpu::forward_backward(&losses::lambdarank(), &[("input", x), ("labels", y)], &["input"])?;
/// let weight = 1.0 - 1.0 / 3f64.log2();
/// assert!((out.loss()? - weight * 2f64.ln()).abs() < 1e-12 && (out.grad("input")?[0] + weight / 2.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn lambdarank() -> Lambdarank {
    let loss = of_lists("lambdarank").param("sigma", 1.0, Domain::Positive).expr(|b| {
        let items = Items::new(b);
        let (gain, place) = (items.gains().detach(), discount(items.before(items.x)).detach());
        let weight = (gain - gain.partner()).abs() * (place - place.partner()).abs();
        let gap = b.param("sigma") * (items.x - items.x.partner());
        items.ordered().select(weight * (-gap).softplus(), 0.0).sum_partners().sum()
    });
    Lambdarank(loss)
}

loss_with_options! {
    /// The loss that [`lambdarank`] makes.
    Lambdarank {
        /// `σ`, by which differences of scores are multiplied; finite and > 0, else `Error::Param`; 1 by default.
        number sigma;
    }
}

/// ApproxNDCG: the negative NDCG of ranks that are smooth in the scores.
///
/// `L = −Σᵢ Gᵢ/log₂(1 + rᵢ)`, with `rᵢ = 1 + Σ_{j≠i} sigmoid(α·(xⱼ − xᵢ))`, `x = input`, `y = labels` and
/// `G = (2^y − 1)/idealDCG`.
///
/// Shapes: as [`ranknet`] → loss `[...]`, one per list, −1 to 0. Unit: none; the mean divides by the number of lists. A list
/// without gain (all labels 0) is 0.
/// Gradient: of the whole expression with respect to `input`; exactly 0 for what is no item, whatever it holds. None with respect
/// to `labels`.
/// Cost: `items²` pairs per list, and as many for the gradient.
/// Options: `alpha` (1), one over TF-Ranking's temperature.
/// Errors: `Error::Param` unless `alpha` is finite and > 0.
/// Source: Qin, Liu and Li (2010), Inf. Retr. 13(4); Bruch et al. (2019), SIGIR. Same as allRank's `approxNDCGLoss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[9.0, 0.0, -9.0], &[1, 3]), HostTensor::f32(&[2.0, 1.0, 0.0], &[1, 3]));
/// let out = cpu::forward_backward(&losses::approx_ndcg().alpha(10.0), &[("input", x), ("labels", y)], &[])?;
/// assert!((out.loss()? + 1.0).abs() < 1e-9);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn approx_ndcg() -> ApproxNdcg {
    let loss = of_lists("approx_ndcg").param("alpha", 1.0, Domain::Positive).expr(|b| {
        let (items, column) = (Items::new(b), b.graph().col_index());
        let others = items.both(!column.equals(column.partner()));
        let above = (b.param("alpha") * (items.x.partner() - items.x)).sigmoid();
        let before = others.select(above, 0.0).sum_partners();
        -(items.gains() * discount(before)).sum()
    });
    ApproxNdcg(loss)
}

loss_with_options! {
    /// The loss that [`approx_ndcg`] makes.
    ApproxNdcg {
        /// `α`, by which differences of scores are multiplied; finite and > 0, else `Error::Param`; 1 by default.
        number alpha;
    }
}

/// ListMLE: the likelihood of the true order, each item drawn by a softmax over those that are left.
///
/// `L = Σₖ (ln Σ_{m≥k} exp xₘ − xₖ)` over the items in descending order of `labels` (equal ones by their column), with `x = input`.
///
/// Shapes: as [`ranknet`] → loss `[...]`, one per list. Unit: nats; the mean divides by the number of lists.
/// Gradient: `Σ_{k≤j} exp(xⱼ − ln Σ_{m≥k} exp xₘ) − 1` at the `j`-th of the order, with respect to `input`; exactly 0 for what is
/// no item, whatever it holds.
/// Cost: a sort and two scans (see [`Expr::argsort`]).
/// Source: Xia et al. (2008), ICML (Plackett-Luce). Same as allRank's `listMLE` but for its 1e-10.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, y) = (HostTensor::f32(&[0.0, 0.0, 0.0], &[1, 3]), HostTensor::f32(&[0.0, 2.0, 1.0], &[1, 3]));
/// let out = cpu::forward_backward(&losses::list_mle(), &[("input", x), ("labels", y)], &["input"])?;
/// assert!((out.loss()? - 6f64.ln()).abs() < 1e-12);
/// assert!((out.grad("input")?[1] + 2.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn list_mle() -> Loss {
    of_lists("list_mle").expr(|b| {
        let Items { x, y, keep } = Items::new(b);
        // What is no item comes last, and counts nothing there.
        let last = |x| keep.map_or(x, |keep| keep.select(x, f64::NEG_INFINITY));
        let ranking = last(y).argsort(Order::Descending);
        // Shifts of all scores cancel: this one leaves digits for the differences.
        let sorted = (x - last(x).max().detach()).in_order_of(ranking);
        let is_item = keep.map(|keep| keep.to_float().in_order_of(ranking).gt(0.5));
        let left = is_item.map_or(sorted, |is_item| is_item.select(sorted, f64::NEG_INFINITY));
        let each = left.scan_logsumexp(Direction::Reverse) - sorted;
        is_item.map_or(each, |is_item| is_item.select(each, 0.0)).sum()
    })
}
