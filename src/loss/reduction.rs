//! How the losses become one number: weights and masks, sums, and what they are divided by.

use super::build::Denominator;
use crate::error::{Error, Result};
use crate::expr::op::Kind;
use crate::expr::{Expr, Extent, Graph, Node};
use crate::shape::Scope;

/// How per-sample losses become one number, and what `Mean` divides by.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reduction {
    /// Not at all: one loss an element, or a row.
    None,
    /// The sum.
    Sum,
    /// The sum divided by what the library whose name the loss carries divides by (elements, rows, Σ weight,
    /// Σ weight\[label\], valid rows); with a `mask`, over what it keeps.
    #[default]
    Mean,
    /// The sum divided by the size of the first axis.
    BatchMean,
    /// The sum divided by Σ `sample_weight`.
    MeanWithSampleWeight,
    /// The sum divided by the number of losses above zero; by 1 where there is none, so that the loss and its gradients
    /// are 0 then. Needs the losses before the gradient: one more trip.
    MeanOverPositive,
    /// The sum divided by a scalar on the GPU, an input of this name (a global token count, say).
    By(String),
}

/// Names that every loss takes, loss-shaped: a weight for each loss, and a mask (0 leaves a loss out).
pub const SAMPLE_WEIGHT: &str = "sample_weight";
/// See [`SAMPLE_WEIGHT`].
pub const MASK: &str = "mask";

/// The losses of `value` reduced, and what their sum was divided by.
pub(super) fn reduce<'g>(
    graph: &'g Graph,
    name: &str,
    reduction: &Reduction,
    value: Expr<'g>,
    over: Denominator<'g>,
    present: &dyn Fn(&str) -> Option<bool>,
) -> Result<(Expr<'g>, Option<Expr<'g>>)> {
    let scope = value.scope();
    if value.kind() != Kind::Float {
        let message = format!("a loss is a number; this one is {:?} (`to_float` makes it one)", value.kind());
        return Err(Error::Expr { loss: name.to_owned(), message });
    }
    let optional = |what: &str| present(what).map(|_| graph.input(what, scope, Kind::Float));
    if scope <= Scope::Total {
        if present(SAMPLE_WEIGHT).or(present(MASK)).is_some() {
            let message = "it is one number already and takes neither sample_weight nor mask".to_owned();
            return Err(Error::Expr { loss: name.to_owned(), message });
        }
        return Ok((value, None));
    }
    if !matches!(scope, Scope::Element | Scope::Row) {
        let message = format!("a loss has one value an element, a row or in all; this one has scope {scope:?}");
        return Err(Error::Expr { loss: name.to_owned(), message });
    }
    let weight = optional(SAMPLE_WEIGHT);
    let keep = optional(MASK).map(|mask| !mask.equals(0.0));
    // What the loss itself leaves out is left out whatever its weight is, and its weight does not count.
    let own = match graph.node(value.id) {
        Node::Masked(own, x) => Some((graph.expr(own), graph.expr(x))),
        _ => None,
    };
    let mut value = value;
    if let Some(weight) = weight {
        value = own.map_or(value * weight, |(own, x)| (x * weight).masked(own));
    }
    if let Some(keep) = keep {
        value = value.masked(keep);
    }
    let kept = |x: Expr<'g>| keep.map_or(x, |keep| x.masked(keep)).sum_over(Scope::Total);
    let count = || graph.count(if scope == Scope::Element { Extent::Elements } else { Extent::Rows });
    let denominator = match reduction {
        Reduction::None => return Ok((value, None)),
        Reduction::Sum => None,
        Reduction::Mean => Some(match over {
            Denominator::Sum(x) => kept(x),
            Denominator::Count => keep.map_or_else(count, |keep| keep.to_float().sum_over(Scope::Total)),
        }),
        Reduction::BatchMean => Some(graph.count(Extent::Batch)),
        Reduction::MeanWithSampleWeight => match weight {
            Some(weight) => Some(kept(own.map_or(weight, |(own, _)| weight.masked(own)))),
            None => {
                return Err(Error::Name {
                    what: "reduction needs the input".into(),
                    name: SAMPLE_WEIGHT.into(),
                    known: "none given".into(),
                });
            }
        },
        Reduction::MeanOverPositive => Some(value.detach().gt(0.0).to_float().sum_over(Scope::Total).maximum(1.0)),
        Reduction::By(input) => Some(graph.input(input, Scope::Scalar, Kind::Float)),
    };
    let total = value.sum_over(Scope::Total);
    Ok((denominator.map_or(total, |d| total / d), denominator))
}
