//! Shapes and strides of one problem: the axis that makes a row, and each tensor's strides along the merged axes.
//!
//! Pure numbers, shared by the GPU and the CPU path. Axes are merged to at most four: three of rows, then the
//! columns; without rows, four of elements.

use super::extents::{Extents, Operand, Rows, wrong_domain};
use super::layout::Layout;
use super::rule::{ShapeRule, common_rank};
use super::scope::Scope;
use super::strides::{merge, spread, strides_of};
use crate::error::{Error, Result};

/// A broadcast input has no Hessian diagonal: its second derivative mixes the elements that it is broadcast to.
pub(crate) fn no_hessian_of_broadcast(input: &str) -> Error {
    Error::Unsupported { message: format!("the Hessian diagonal of the broadcast input `{input}`; expand it") }
}

/// Sizes of a problem, and each tensor's strides along the merged axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Sizes.
    pub extents: Extents,
    /// Merged axes, outermost first; with rows, the last one is the columns.
    pub axes: [u64; 4],
    /// Strides of each operand along the axes of its scope ([`Geometry::axes_of`]), in the order of the operands.
    pub strides: Vec<[u64; 4]>,
}

impl std::ops::Deref for Geometry {
    type Target = Extents;
    fn deref(&self) -> &Extents {
        &self.extents
    }
}

impl Geometry {
    /// Sizes from the element inputs among `operands`, and the strides of every operand.
    ///
    /// # Errors
    /// As [`Extents::new`]; [`Error::Shape`] for an operand that does not fit these sizes, and for strides that do not
    /// merge to four axes.
    pub fn new(by: Rows<'_>, operands: &[Operand<'_>]) -> Result<Geometry> {
        let extents = Extents::new(by, operands)?;
        let Extents { ref domain, ref row_shape, ref columns, cols, .. } = extents;
        // Strides along the axes of rows (of elements, without rows), then along the columns.
        let outer = if columns.is_some() { row_shape } else { domain };
        let rank = common_rank(operands);
        let mut along: Vec<(Vec<u64>, u64)> = Vec::new();
        for operand in operands {
            along.push(match operand.scope {
                Scope::Group | Scope::GroupColumn => (vec![0; outer.len()], 0),
                _ => strides_of(operand, by.axis, &extents, rank)?,
            });
        }
        let keep = if columns.is_some() { 3 } else { 4 };
        let merged = merge(outer, along.iter().map(|a| &a.0[..]).collect(), keep);
        let Some((sizes, merged)) = merged else {
            let expected = format!("strides that merge to at most {keep} axes; make a contiguous copy");
            return Err(wrong_domain(operands, expected, domain));
        };
        let mut axes = [1; 4];
        axes[keep - sizes.len()..keep].copy_from_slice(&sizes);
        let mut strides = Vec::new();
        for (operand, (outer, (_, along_cols))) in operands.iter().zip(merged.iter().zip(&along)) {
            let mut all = [0; 4];
            match operand.scope {
                Scope::Group => {
                    strides.push([0, 0, 0, group_stride(operand, extents.groups())?]);
                    continue;
                }
                Scope::GroupColumn => {
                    strides.push(group_column_strides(operand, &extents)?);
                    continue;
                }
                _ => {}
            }
            all[keep - sizes.len()..keep].copy_from_slice(outer);
            if columns.is_some() {
                all[3] = *along_cols;
            }
            strides.push(all);
        }
        if columns.is_some() {
            axes[3] = cols;
        }
        Ok(Geometry { extents, axes, strides })
    }

    /// The axes that values of a scope lie along: the merged axes, or for groups and columns (or both) these alone.
    pub fn axes_of(&self, scope: Scope) -> [u64; 4] {
        match scope {
            Scope::Group => [1, 1, 1, self.groups()],
            Scope::Column => [1, 1, 1, self.cols],
            Scope::GroupColumn => [1, 1, self.groups(), self.cols],
            _ => self.axes,
        }
    }
}

/// Stride between the values of a group operand; 0 where one value serves all groups.
fn group_stride(operand: &Operand<'_>, groups: u64) -> Result<u64> {
    let Layout { shape, strides } = operand.layout;
    match (&shape[..], &strides[..]) {
        ([size], [stride]) if operand.rule == ShapeRule::Offsets && *size as u64 == groups + 1 => Ok(*stride as u64),
        ([], []) | ([1], [_]) => Ok(0),
        ([size], [stride]) if *size as u64 == groups => Ok(*stride as u64),
        _ => {
            let expected = format!("[{groups}] (one value per group), or one value");
            Err(Error::Shape { input: operand.name.to_owned(), expected, found: shape.clone() })
        }
    }
}

/// Strides of a group-and-column operand, along the groups and along the columns last; 0 where one value serves all.
fn group_column_strides(operand: &Operand<'_>, extents: &Extents) -> Result<[u64; 4]> {
    let sizes = extents.shape_of(Scope::GroupColumn);
    match spread(operand.layout, &sizes) {
        Some(strides) => Ok([0, 0, strides[0], strides[1]]),
        None => {
            let expected = format!("{sizes:?} (one value per group and column), or a shape that broadcasts to it");
            Err(Error::Shape { input: operand.name.to_owned(), expected, found: operand.layout.shape.clone() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::extents::Grouping;
    use crate::shape::row_axis::{ColumnCount, RowAxis};

    fn rows(axis: RowAxis) -> Rows<'static> {
        Rows { axis, cols: ColumnCount::default(), grouping: Grouping::Equal(None), loss: "a loss" }
    }

    fn operand<'a>(name: &'a str, scope: Scope, layout: &'a Layout) -> Operand<'a> {
        Operand { name, scope, rule: ShapeRule::Broadcast, layout }
    }

    #[test]
    fn class_axis_at_one_needs_no_transpose() {
        let logits = Layout::contiguous(&[2, 3, 5, 7]);
        let labels = Layout::contiguous(&[2, 5, 7]);
        let weight = Layout::contiguous(&[3]);
        let operands = [
            operand("x", Scope::Element, &logits),
            operand("y", Scope::Row, &labels),
            operand("w", Scope::Column, &weight),
        ];
        let g = Geometry::new(rows(RowAxis::Class), &operands).unwrap();
        assert_eq!((g.rows, g.cols, g.batch), (70, 3, 2));
        assert_eq!(g.axes, [1, 2, 35, 3]);
        assert_eq!(g.strides, [[0, 105, 1, 35], [0, 35, 1, 0], [0, 0, 0, 1]]);
        assert_eq!(g.row_shape, [2, 5, 7]);
    }

    #[test]
    fn contiguous_elements_merge_to_one_axis_and_broadcasts_keep_theirs() {
        let input = Layout::contiguous(&[3, 4, 5]);
        let weight = Layout::contiguous(&[4, 1]);
        let g = Geometry::new(rows(RowAxis::None), &[operand("x", Scope::Element, &input)]).unwrap();
        assert_eq!((g.axes, g.strides[0]), ([1, 1, 1, 60], [0, 0, 0, 1]));
        let operands = [operand("x", Scope::Element, &input), operand("w", Scope::Element, &weight)];
        let g = Geometry::new(rows(RowAxis::None), &operands).unwrap();
        assert_eq!(g.axes, [1, 3, 4, 5]);
        assert_eq!(g.strides[1], [0, 0, 1, 0]);
    }

    #[test]
    fn unbatched_logits_are_one_row() {
        let logits = Layout::contiguous(&[11]);
        let label = Layout::contiguous(&[]);
        let operands = [operand("x", Scope::Element, &logits), operand("y", Scope::Row, &label)];
        let g = Geometry::new(rows(RowAxis::Class), &operands).unwrap();
        assert_eq!((g.rows, g.cols), (1, 11));
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let a = Layout::contiguous(&[3, 4]);
        let b = Layout::contiguous(&[3, 5]);
        let operands = [operand("input", Scope::Element, &a), operand("target", Scope::Element, &b)];
        assert!(
            matches!(Geometry::new(rows(RowAxis::None), &operands), Err(Error::Shape { input, .. }) if input == "target")
        );
        let operands = [operand("input", Scope::Element, &a), operand("labels", Scope::Row, &a)];
        assert!(
            matches!(Geometry::new(rows(RowAxis::Last), &operands), Err(Error::Shape { input, .. }) if input == "labels")
        );
    }

    #[test]
    fn axes_of_rows_may_be_empty_and_columns_may_not() {
        let of = |row_axis: RowAxis, shape: &[usize]| {
            let layout = Layout::contiguous(shape);
            Geometry::new(rows(row_axis), &[operand("input", Scope::Element, &layout)])
        };
        for shape in [&[0, 4][..], &[4, 3, 0], &[0, 3, 5, 0, 2], &[1 << 40, 3, 0]] {
            let g = of(RowAxis::Class, shape).unwrap();
            assert!(g.is_empty() && g.rows == 0 && g.cols == shape[1] as u64, "{shape:?}: {g:?}");
            assert_eq!((g.group_rows, g.groups()), (1, 0));
            assert!(of(RowAxis::None, shape).unwrap().is_empty());
        }
        for (row_axis, shape) in [(RowAxis::Class, &[4, 0][..]), (RowAxis::Last, &[0, 0]), (RowAxis::Last, &[0])] {
            let error = of(row_axis, shape).unwrap_err();
            assert!(matches!(&error, Error::Shape { expected, .. } if expected.contains("one column")), "{error}");
        }
        assert!(of(RowAxis::None, &[4, 0]).unwrap().is_empty());
    }

    #[test]
    fn sizes_that_no_memory_holds_are_errors() {
        // 2³² · 2³² wraps around to 0; strides of 0 need one element only.
        let wide = Layout { shape: vec![1, 1 << 32], strides: vec![0, 0] };
        let tall = Layout { shape: vec![1 << 32, 1], strides: vec![0, 0] };
        let operands = [operand("input", Scope::Element, &wide), operand("target", Scope::Element, &tall)];
        assert!(matches!(Geometry::new(rows(RowAxis::Last), &operands), Err(Error::Shape { .. })));
        let whole = Layout::contiguous(&[1 << 32, 1 << 32]);
        assert_eq!((whole.len(), whole.extent(), whole.is_empty()), (usize::MAX, u64::MAX, false));
        let apart = Layout { shape: vec![2, 3], strides: vec![usize::MAX, usize::MAX] };
        assert_eq!(apart.extent(), u64::MAX);
        assert!(Geometry::new(rows(RowAxis::None), &[operand("input", Scope::Element, &apart)]).is_ok());
    }

    #[test]
    fn a_loss_without_inputs_has_no_rows() {
        assert!(matches!(Geometry::new(rows(RowAxis::Last), &[]), Err(Error::Shape { .. })));
        assert_eq!(Geometry::new(rows(RowAxis::None), &[]).unwrap().elements(), 1);
    }

    #[test]
    fn group_inputs_say_how_many_groups_there_are() {
        let logits = Layout::contiguous(&[2, 6, 5]);
        let by_group = |groups: usize| Layout::contiguous(&[groups]);
        let geometry = |groups: usize, per_group: Option<u64>| {
            let (element, group) = (&logits, &by_group(groups));
            let operands = [operand("x", Scope::Element, element), operand("g", Scope::Group, group)];
            Geometry::new(Rows { grouping: Grouping::Equal(per_group), ..rows(RowAxis::Last) }, &operands)
        };
        let of = |groups: usize, per_group: Option<u64>| {
            geometry(groups, per_group).map(|g| (g.groups(), g.group_rows, g.strides[1][3]))
        };
        assert_eq!(of(1, None).unwrap(), (2, 6, 0), "one value serves the groups of the first axis");
        assert_eq!(of(4, None).unwrap(), (4, 3, 1));
        assert_eq!(of(4, Some(3)).unwrap(), (4, 3, 1));
        assert!(matches!(of(4, Some(2)), Err(Error::Shape { input, .. }) if input == "g"));
        assert!(matches!(of(5, None), Err(Error::Shape { input, .. }) if input == "g"));
        assert!(matches!(of(1, Some(5)), Err(Error::Param { .. })));
        assert_eq!(geometry(4, None).unwrap().axes_of(Scope::Group), [1, 1, 1, 4]);
    }
}
