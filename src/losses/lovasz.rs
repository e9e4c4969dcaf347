//! The Lovász extension of the Jaccard loss: errors in descending order, each weighed by what it adds to the loss of a region.

use super::entry::{Entry, Range};
use super::options::loss_with_options;
use crate::expr::{Direction, Expr, Order};
use crate::loss::Loss;
use crate::loss::Value::Flag;
use crate::shape::{RowAxis, Scope};

pub(super) const ENTRIES: &[Entry] = &[Entry::new("lovasz_hinge", || lovasz_hinge().into())
    .inputs(&[("input", Range::Logits), ("target", Range::Binary)])
    .variants(&[&[("per_image", Flag(false))]])];

/// `Σₖ eₖ·(Jₖ − Jₖ₋₁)` per row, with the errors `e` in descending order and `Jₖ` the Jaccard loss of a region (`truth` 1 inside, else
/// 0) of which the `k` largest errors are wrong. An error counts as `counted` says.
pub(crate) fn lovasz<'g>(errors: Expr<'g>, truth: Expr<'g>, counted: impl FnOnce(Expr<'g>) -> Expr<'g>) -> Expr<'g> {
    let ranking = errors.detach().argsort(Order::Descending);
    let (sorted, truth) = (errors.in_order_of(ranking), truth.in_order_of(ranking));
    // Of the errors before this one: how many are inside and outside of the region, and the union.
    let [inside, outside] = [truth, 1.0 - truth].map(|x| x.scan_sum(Direction::Forward) - x);
    let before = truth.sum() + outside;
    // Jₖ − Jₖ₋₁ = (G − inside + t·(inside + outside))/(union·union before), of counts: the difference itself would lose its digits.
    let gain = (truth.sum() - inside) + truth * (inside + outside);
    let step = gain / before / (before + (1.0 - truth));
    (counted(sorted) * before.gt(0.0).select(step, 1.0)).sum()
}

/// Lovász hinge: a convex surrogate of the Jaccard loss (one minus the intersection over union) of a binary segmentation.
///
/// `L = Σₖ max(eₖ, 0)·(Jₖ − Jₖ₋₁)` with `e = 1 − x·(2t − 1)` in descending order, equal ones by their place, `x = input`, `t = target`,
/// and `Jₖ = 1 − (G − Σ_{m≤k} tₘ)/(G + Σ_{m≤k} (1 − tₘ))`, where `G = Σ t`.
///
/// Shapes: `input, target: [N, d1, …]` → loss `[N]`, one per image, or with `per_image(false)` one of the batch. Unit: none; the
/// mean divides by the number of images.
/// Gradient: `−(2t − 1)·(Jₖ − Jₖ₋₁)` where `eₖ > 0`, else 0, with respect to `input`; none with respect to `target`.
/// Cost: a sort and two scans of each row (see [`Expr::argsort`]).
/// Options: `per_image` (true).
/// Source: Berman, Triki and Blaschko (2018), CVPR, arXiv:1705.08790. Same as kornia's `lovasz_hinge_loss`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, t) = (HostTensor::f32(&[2.0, -1.0, 0.5], &[1, 3]), HostTensor::f32(&[1.0, 1.0, 0.0], &[1, 3]));
/// let out = cpu::forward_backward(&losses::lovasz_hinge(), &[("input", x), ("target", t)], &["input"])?;
/// // Errors 2 (inside), 1.5 (outside), −1 (inside): J is 1/2, 2/3, 1.
/// assert!((out.loss()? - (2.0 / 2.0 + 1.5 / 6.0)).abs() < 1e-12);
/// assert_eq!(out.grad("input")?[..2], [0.0, -0.5]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn lovasz_hinge() -> LovaszHinge {
    let definition = Loss::define("lovasz_hinge").input("input", Scope::Element).input("target", Scope::Element);
    let definition = definition.row_axis_by("per_image", true, [RowAxis::From(0), RowAxis::From(1)]);
    LovaszHinge(definition.expr(|b| {
        let truth = b.input("target").detach();
        lovasz(1.0 - b.input("input") * (2.0 * truth - 1.0), truth, Expr::relu)
    }))
}

loss_with_options! {
    /// The loss that [`lovasz_hinge`] makes.
    LovaszHinge {
        /// Whether each image has a loss of its own (the default), or the batch one.
        flag per_image;
    }
}
