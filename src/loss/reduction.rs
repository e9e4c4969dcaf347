//! How the losses become one number: weights and masks, sums, and denominators.

use super::build::{Denominator, Unreduced};
use super::given::{MASK, Names, SAMPLE_WEIGHT};
use crate::error::{Error, Result};
use crate::expr::op::Kind;
use crate::expr::{Expr, Extent, Graph, Node};
use crate::shape::Scope;

/// How losses per element or per row become one number.
///
/// Of no rows (a batch of `[0, C]`) the sum is 0, and so is what divides it by a number that is not 0; a mean is 0/0, NaN,
/// as in PyTorch. All gradients are 0 then, those of scalars too; accumulated ones stay as they are. A loss that sums over
/// the rows for each column is an `Error::Unsupported` of no rows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reduction {
    /// Not at all: one loss per element, row, group, or column.
    None,
    /// The sum.
    Sum,
    /// The sum divided by the loss's own denominator: elements, rows, groups, columns, Σ weight, Σ weight\[label\] or valid rows, as in
    /// the library that the loss is named after. A `mask` applies to the denominator too.
    #[default]
    Mean,
    /// As `Mean`, but where its denominator is 0 the loss is exactly 0, and so are its gradients, whatever the rows hold:
    /// all labels of a micro-batch ignored, all weights or masks 0, no rows. `Mean` is NaN there, as in PyTorch since 1.11
    /// (pytorch#70348), and training frameworks catch that by hand (OpenRLHF#583, cosmos-rl#155); TensorFlow's
    /// `tf.compat.v1.losses` are 0. A label out of range has no weight: where the denominator is a sum of class weights,
    /// and nothing else counts, the status alone tells it.
    ///
    /// ```
    /// use wgloss::{HostTensor, Reduction, cpu, losses};
    /// let (logits, labels) = ([f32::NAN; 6], [-100; 2]);
    /// let inputs = [("input", HostTensor::f32(&logits, &[2, 3])), ("target", HostTensor::i32(&labels, &[2]))];
    /// let loss = losses::cross_entropy();
    /// assert!(cpu::forward_backward(&loss, &inputs, &["input"])?.loss()?.is_nan());
    /// let out = cpu::forward_backward(&loss.reduction(Reduction::MeanOrZero), &inputs, &["input"])?;
    /// assert_eq!((out.loss()?, out.grad("input")?), (0.0, &[0.0; 6][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    MeanOrZero,
    /// The sum divided by the size of the first axis.
    BatchMean,
    /// The sum divided by Σ `sample_weight`.
    MeanWithSampleWeight,
    /// The sum divided by the number of losses above zero, or by 1 if there is none: the loss and its gradients are 0
    /// then. The gradient needs that number first: one more pass.
    MeanOverPositive,
    /// The sum divided by a scalar on the GPU, an input of this name (a global token count, say).
    By(String),
}

/// The inputs of a term that no definition need declare: one weight and one mask per loss value.
pub(super) struct PerLoss<'a> {
    /// Name of the loss.
    pub loss: &'a str,
    /// Names that the inputs of the term go by.
    pub names: &'a Names,
    /// Scope of a mask that the definition declares itself.
    pub mask: Option<Scope>,
    /// `None` for an absent input.
    pub present: &'a dyn Fn(&str) -> Option<bool>,
}

impl PerLoss<'_> {
    /// The input, where it is present.
    fn input<'g>(&self, graph: &'g Graph, name: &str, scope: Scope) -> Option<Expr<'g>> {
        let given = self.names.given(name);
        (self.present)(given).map(|_| graph.input(given, scope, Kind::Float))
    }
}

/// The losses of `unreduced` reduced, and the denominator of their sum, if any.
pub(super) fn reduce<'g>(
    graph: &'g Graph,
    per_loss: &PerLoss<'_>,
    reduction: &Reduction,
    unreduced: Unreduced<'g>,
) -> Result<(Expr<'g>, Option<Expr<'g>>)> {
    let value = unreduced.value;
    check_value(per_loss, value)?;
    let scope = value.scope();
    if scope <= Scope::Total {
        return Ok((value, None));
    }
    let optional = |name: &str| per_loss.input(graph, name, scope);
    let weight = optional(SAMPLE_WEIGHT);
    // A definition whose mask is further in leaves out itself what that leaves out.
    let is_own = per_loss.mask.is_some_and(|mask| mask > scope);
    let keep = (!is_own).then(|| optional(MASK)).flatten().map(|mask| !mask.equals(0.0));
    // A loss that masks itself is masked whatever its weight is, and its weight does not count.
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
    let count = || number_of(graph, scope);
    let denominator = match reduction {
        Reduction::None => return Ok((value, None)),
        Reduction::Sum => None,
        Reduction::Mean | Reduction::MeanOrZero => Some(match unreduced.denominator {
            Denominator::Sum(x) => kept(x),
            Denominator::Total(x) => x,
            Denominator::Count => keep.map_or_else(count, |keep| keep.to_float().sum_over(Scope::Total)),
            Denominator::CountOrOne => match keep {
                Some(keep) => keep.to_float().sum_over(Scope::Total).maximum(1.0),
                None => count(),
            },
        }),
        Reduction::BatchMean => Some(graph.count(Extent::Batch)),
        Reduction::MeanWithSampleWeight => {
            let weight = weight.ok_or_else(|| Error::Name {
                what: "reduction needs the input".into(),
                name: per_loss.names.given(SAMPLE_WEIGHT).into(),
                known: "none given".into(),
            })?;
            Some(kept(own.map_or(weight, |(own, _)| weight.masked(own))))
        }
        Reduction::MeanOverPositive => Some(value.detach().gt(0.0).to_float().sum_over(Scope::Total).maximum(1.0)),
        Reduction::By(input) => Some(graph.input(input, Scope::Scalar, Kind::Float)),
    };
    let total = value.sum_over(Scope::Total);
    let reduced = match denominator {
        // A selection, not a product: rows that hold NaN are not looked at where nothing is counted.
        Some(d) if *reduction == Reduction::MeanOrZero => d.equals(0.0).select(0.0, total / d),
        Some(d) => total / d,
        None => total,
    };
    Ok((reduced, denominator))
}

/// Number of loss values of a scope.
fn number_of(graph: &Graph, scope: Scope) -> Expr<'_> {
    match scope {
        Scope::Element => graph.count(Extent::Elements),
        Scope::Group => graph.count(Extent::Groups),
        Scope::Column => graph.count(Extent::Cols),
        Scope::GroupColumn => graph.count(Extent::Groups) * graph.count(Extent::Cols),
        _ => graph.count(Extent::Rows),
    }
}

/// A term of the batch is one number.
pub(super) fn check_of_batch(loss: &str, term: Expr<'_>) -> Result<()> {
    let (scope, kind) = (term.scope(), term.kind());
    if scope <= Scope::Total && kind == Kind::Float {
        return Ok(());
    }
    let message = format!("its term of the batch is one number; found {kind:?} of scope {scope:?}");
    Err(Error::Expr { loss: loss.to_owned(), message })
}

/// A loss is a number per element, row, group or column (or group and column), which take a weight and a mask, or one in
/// all, which takes neither.
fn check_value(per_loss: &PerLoss<'_>, value: Expr<'_>) -> Result<()> {
    let fault = |message: String| Err(Error::Expr { loss: per_loss.loss.to_owned(), message });
    let (scope, kind) = (value.scope(), value.kind());
    if kind != Kind::Float {
        return fault(format!("a loss is a number; this one is {kind:?} (`to_float` makes it one)"));
    }
    let is_given = |name: &&str| (per_loss.present)(per_loss.names.given(name)).is_some();
    if let Some(name) = [SAMPLE_WEIGHT, MASK].iter().find(|name| scope <= Scope::Total && is_given(name)) {
        let given = per_loss.names.given(name);
        return fault(format!(
            "it is one number already and takes no {name} (`{given}`); in a sum, rename_input gives that of the other \
             terms a name of its own"
        ));
    }
    let has_values = matches!(scope, Scope::Element | Scope::Row | Scope::Group | Scope::Column | Scope::GroupColumn);
    if scope > Scope::Total && !has_values {
        let message = "a loss has one value per element, row, group or column, or one in all; this one has scope";
        return fault(format!("{message} {scope:?}"));
    }
    Ok(())
}
