//! Penalties: on weights, and on what differs between neighbours.

use super::entry::Entry;
use super::options::loss_with_options;
use crate::loss::Value::Num;
use crate::loss::{Domain, Loss, ParamValue};
use crate::shape::Scope;

pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("l1_penalty", || l1_penalty(1.0).into()).variants(&[&[("lambda", Num(0.3))]]),
    Entry::new("l2_penalty", || l2_penalty(1.0).into()).variants(&[&[("lambda", Num(0.3))]]),
    Entry::new("total_variation", || total_variation().into()).variants(&[&[("p", Num(2.0))]]),
];

/// L1 (lasso) penalty.
///
/// `L = λ·Σ |w|` over all elements.
///
/// Shapes: `w` of any shape → one number, whatever the reduction. Unit: λ times that of `w`.
/// Gradient: `λ·sign(w)`; 0 at `w = 0`.
/// Errors: `Error::Param` unless `lambda` is finite and ≥ 0.
/// Source: Tibshirani (1996), J. R. Statist. Soc. B 58(1). [`l2_penalty`] squares;
/// [`fused::l1_penalty`](crate::fused::l1_penalty) takes many tensors.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let w = HostTensor::f32(&[3.0, -1.0, 0.0], &[3]);
/// let out = cpu::forward_backward(&losses::l1_penalty(0.5), &[("w", w)], &["w"])?;
/// assert_eq!((out.loss()?, out.grad("w")?), (2.0, &[0.5, -0.5, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn l1_penalty(lambda: impl Into<ParamValue>) -> L1Penalty {
    let definition = Loss::define("l1_penalty").input("w", Scope::Element).param("lambda", 1.0, Domain::NonNegative);
    L1Penalty(definition.expr(|b| b.param("lambda") * b.input("w").abs().sum_over(Scope::Total))).lambda(lambda)
}

loss_with_options! {
    /// The loss that [`l1_penalty`] makes.
    L1Penalty {
        /// `λ`, the factor of the sum; finite and ≥ 0, else `Error::Param`. No default: [`l1_penalty`]'s argument.
        number lambda;
    }
}

/// L2 (ridge, weight decay) penalty.
///
/// `L = λ/2 · Σ w²` over all elements.
///
/// Shapes: `w` of any shape → one number, whatever the reduction. Unit: λ times that of `w`².
/// Gradient: `λ·w`.
/// Errors: `Error::Param` unless `lambda` is finite and ≥ 0.
/// Source: Hoerl and Kennard (1970), Technometrics 12(1). [`l1_penalty`] takes absolute values;
/// [`fused::l2_penalty`](crate::fused::l2_penalty) takes many tensors.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let w = HostTensor::f32(&[3.0, -1.0], &[2]);
/// let out = cpu::forward_backward(&losses::l2_penalty(0.5), &[("w", w)], &["w"])?;
/// assert_eq!((out.loss()?, out.grad("w")?), (2.5, &[1.5, -0.5][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn l2_penalty(lambda: impl Into<ParamValue>) -> L2Penalty {
    let definition = Loss::define("l2_penalty").input("w", Scope::Element).param("lambda", 1.0, Domain::NonNegative);
    let loss = definition.expr(|b| {
        let w = b.input("w");
        0.5 * b.param("lambda") * (w * w).sum_over(Scope::Total)
    });
    L2Penalty(loss).lambda(lambda)
}

loss_with_options! {
    /// The loss that [`l2_penalty`] makes.
    L2Penalty {
        /// `λ`, twice the factor of the sum; finite and ≥ 0, else `Error::Param`. No default: [`l2_penalty`]'s argument.
        number lambda;
    }
}

/// Total variation: how much neighbours along an axis differ.
///
/// `L = |next − input|^p`, with `next` each value's next neighbour: `input` and `next` are views of one tensor, all but the last and
/// all but the first along the axis. The anisotropic total variation of an image is the sum over its two axes.
///
/// Shapes: `input, next` of one shape → loss of that shape. Unit: that of the values to the power `p`; the mean divides by the
/// number of differences.
/// Gradient: `∓sign(next − input)` with respect to `input` and `next`, 0 where they are equal; of `p = 2`, twice the difference. Of
/// one buffer they overlap: a plan for each accumulates them ([`GradMode::Accumulate`](crate::GradMode::Accumulate)) into
/// views of one gradient.
/// Options: `p` (1).
/// Errors: `Error::Param` unless `p` is 1 or 2.
/// Source: Rudin, Osher and Fatemi (1992), Physica D 60. Summed over both axes of an image, `tf.image.total_variation` and
/// kornia's `total_variation`.
///
/// ```
/// use wgloss::{HostTensor, Reduction, cpu, losses};
/// let row = [0.0f32, 1.0, 1.0, -1.0];
/// let (input, next) = (HostTensor::f32(&row[..3], &[3]), HostTensor::f32(&row[1..], &[3]));
/// let loss = losses::total_variation().reduction(Reduction::Sum);
/// let out = cpu::forward_backward(&loss, &[("input", input), ("next", next)], &["input", "next"])?;
/// assert_eq!(out.loss()?, 3.0);
/// assert_eq!((out.grad("input")?, out.grad("next")?), (&[-1.0, 0.0, 1.0][..], &[1.0, 0.0, -1.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn total_variation() -> TotalVariation {
    let definition = Loss::define("total_variation").input("input", Scope::Element).input("next", Scope::Element);
    let loss = definition.special_param("p", 1.0, Domain::OneOrTwo, &[1.0, 2.0]).expr(|b| {
        let difference = b.input("next") - b.input("input");
        match b.value("p") {
            Some(1.0) => difference.abs(),
            Some(2.0) => difference * difference,
            _ => b.param("p").equals(1.0).select(difference.abs(), difference * difference),
        }
    });
    TotalVariation(loss)
}

loss_with_options! {
    /// The loss that [`total_variation`] makes.
    TotalVariation {
        /// `p`, the power of each difference; 1 or 2, else `Error::Param`; 1 by default.
        number p;
    }
}
