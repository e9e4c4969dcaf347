//! Which shapes of inputs go together: the same, with a last axis that one of them lacks, or any that broadcast.

use super::extents::Operand;
use super::layout::Layout;
use super::scope::Scope;
use crate::error::{Error, Result};
use std::borrow::Cow;

/// The shapes that an input may have beside the others of its scope.
///
/// One value per row may always have a last axis of size 1 besides: labels `[N, 1]` of logits `[N, C]`, as Keras has
/// them.
///
/// ```
/// use wgloss::{HostTensor, Loss, Scope, ShapeRule, cpu};
/// let scaled = Loss::define("scaled")
///     .input("input", Scope::Element)
///     .input("target", Scope::Element)
///     .input("var", Scope::Element)
///     .shape_rule("var", ShapeRule::OptionalLastAxis)
///     .expr(|b| {
///         let r = b.input("input") - b.input("target");
///         r * r / b.input("var")
///     });
/// let (x, t) = (HostTensor::f32(&[1.0, 2.0, 3.0, 4.0], &[2, 2]), HostTensor::f32(&[0.0; 4], &[2, 2]));
/// let var = HostTensor::f32(&[1.0, 5.0], &[2]); // one per row of `input`
/// let out = cpu::forward_backward(&scaled, &[("input", x), ("target", t), ("var", var)], &[])?;
/// assert_eq!(out.loss()?, (1.0 + 4.0 + 9.0 / 5.0 + 16.0 / 5.0) / 4.0);
/// # Ok::<(), wgloss::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ShapeRule {
    /// One shape with all other inputs of this rule: predictions and targets. Of values per row, the shape of the rows.
    Same,
    /// As [`ShapeRule::Same`], but for a last axis of size 1 that some of them lack: Keras's `y_true` and `y_pred`.
    SameUpToLastOne,
    /// The shape of the inputs of those rules, or that without its last axis, or with size 1 there: PyTorch's `var`.
    OptionalLastAxis,
    /// As [`ShapeRule::Same`] in one kernel; of another shape than the others of this rule, the loss is the sum of a part
    /// per input, each over its own: a discriminator's real and generated samples. The expression is then built once per
    /// input, with the others absent: it takes them by [`Build::optional`](crate::loss::Build::optional).
    Apart,
    /// Any shape that broadcasts with the others: weights and masks.
    #[default]
    Broadcast,
    /// One value more than there are groups: the offsets of groups of unequal length.
    #[doc(hidden)]
    Offsets,
    /// One value per row, in the shape of the rows: the ids of groups of unequal length.
    #[doc(hidden)]
    GroupIds,
}

impl ShapeRule {
    /// The rule where predictions and targets broadcast.
    pub(crate) fn broadcast(self) -> ShapeRule {
        match self {
            ShapeRule::Same | ShapeRule::SameUpToLastOne | ShapeRule::Apart => ShapeRule::Broadcast,
            other => other,
        }
    }

    fn is_same(self) -> bool {
        matches!(self, ShapeRule::Same | ShapeRule::SameUpToLastOne | ShapeRule::Apart)
    }
}

fn elements<'o, 'a>(operands: &'o [Operand<'a>]) -> impl Iterator<Item = &'o Operand<'a>> {
    operands.iter().filter(|operand| operand.scope == Scope::Element)
}

fn rank(operand: &Operand<'_>) -> usize {
    operand.layout.shape.len()
}

/// Axes of the element inputs, once last axes are added or taken off as their rules say; `None` if none say so.
pub(super) fn common_rank(operands: &[Operand<'_>]) -> Option<usize> {
    let of = |rule: ShapeRule| elements(operands).filter(move |operand| operand.rule == rule).map(rank);
    of(ShapeRule::SameUpToLastOne).chain(of(ShapeRule::OptionalLastAxis)).next()?;
    let keras = || of(ShapeRule::SameUpToLastOne);
    // Keras expands one axis to two, and otherwise squeezes.
    let by_keras = keras().min().map(|least| if least == 1 { keras().max().unwrap_or(1).min(2) } else { least });
    of(ShapeRule::Same).next().or(by_keras).or_else(|| elements(operands).map(rank).max())
}

/// The layout of an element input with as many axes as its rule gives it.
pub(super) fn ranked<'a>(operand: &Operand<'a>, common: Option<usize>) -> Cow<'a, Layout> {
    let Layout { shape, strides } = operand.layout;
    let Some(common) = common.filter(|common| *common != shape.len()) else { return Cow::Borrowed(operand.layout) };
    let may_lack = matches!(operand.rule, ShapeRule::SameUpToLastOne | ShapeRule::OptionalLastAxis);
    let (lacks, exceeds) = (shape.len() + 1 == common, shape.len() == common + 1);
    if may_lack && lacks && shape.len() == strides.len() {
        let (shape, strides) = ([&shape[..], &[1]].concat(), [&strides[..], &[0]].concat());
        return Cow::Owned(Layout { shape, strides });
    }
    if operand.rule == ShapeRule::SameUpToLastOne && exceeds {
        return without_last_one(operand.layout).map_or(Cow::Borrowed(operand.layout), Cow::Owned);
    }
    Cow::Borrowed(operand.layout)
}

/// The layout of values per row without a last axis of size 1 that rows of this shape do not have.
pub(super) fn of_rows<'a>(layout: &'a Layout, rows: &[usize]) -> Cow<'a, Layout> {
    match without_last_one(layout).filter(|squeezed| squeezed.shape.len() == rows.len()) {
        Some(squeezed) => Cow::Owned(squeezed),
        None => Cow::Borrowed(layout),
    }
}

/// Whether values per row have the shape of the rows, as far as their rule asks for it.
pub(super) fn fits_rows(operand: &Operand<'_>, rows: &[usize]) -> bool {
    operand.rule == ShapeRule::Broadcast || of_rows(operand.layout, rows).shape == rows
}

/// The layout without a last axis of size 1.
fn without_last_one(layout: &Layout) -> Option<Layout> {
    let (Some((1, shape)), Some((_, strides))) = (layout.shape.split_last(), layout.strides.split_last()) else {
        return None;
    };
    Some(Layout { shape: shape.to_vec(), strides: strides.to_vec() })
}

/// An error unless the element inputs have the shapes that their rules ask for.
pub(super) fn check(operands: &[Operand<'_>], common: Option<usize>) -> Result<()> {
    let Some(first) = elements(operands).find(|operand| operand.rule.is_same()) else { return Ok(()) };
    let want = ranked(first, common);
    for operand in elements(operands) {
        let found = ranked(operand, common);
        let fits = match operand.rule {
            ShapeRule::Same | ShapeRule::SameUpToLastOne | ShapeRule::Apart => found.shape == want.shape,
            ShapeRule::OptionalLastAxis => found.shape == want.shape || is_but_for_last(&found.shape, &want.shape),
            ShapeRule::Broadcast | ShapeRule::Offsets | ShapeRule::GroupIds => true,
        };
        if !fits {
            let (want, found) = (&first.layout.shape, &operand.layout.shape);
            let expected = match operand.rule {
                ShapeRule::OptionalLastAxis => {
                    format!("that of `{}`, {want:?}, with or without its last axis", first.name)
                }
                _ => format!("{want:?}, that of `{}`{}", first.name, ways_out(found, want)),
            };
            return Err(Error::Shape { input: operand.name.to_owned(), expected, found: found.clone() });
        }
    }
    Ok(())
}

/// Whether a shape is the other with size 1 along the last axis.
fn is_but_for_last(shape: &[usize], want: &[usize]) -> bool {
    shape.split_last().zip(want.split_last()).is_some_and(|((last, lead), (_, all))| *last == 1 && lead == all)
}

/// What a caller can do about a shape that differs; empty where it does not even broadcast.
pub(super) fn ways_out(found: &[usize], want: &[usize]) -> String {
    let sizes = |shape: &[usize]| shape.iter().copied().filter(|size| *size != 1).collect::<Vec<_>>();
    let rank = found.len().max(want.len());
    let size = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |k| shape[k]);
    let broadcasts = (0..rank).all(|axis| {
        let (a, b) = (size(found, axis), size(want, axis));
        a == b || a == 1 || b == 1
    });
    let way = match (sizes(found) == sizes(want), found.len() > want.len()) {
        (true, true) => "squeeze it",
        (true, false) => "reshape it",
        (false, _) => "expand one of them",
    };
    match broadcasts {
        true => format!("; {way}, or let them broadcast: `.broadcast(true)`"),
        false => String::new(),
    }
}
