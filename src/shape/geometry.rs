//! Shapes and strides of one problem: the axis that makes a row, and each tensor's strides along the merged axes.
//!
//! Pure numbers, shared by the GPU and the CPU path. Axes are merged to at most four: three of rows, then the
//! columns; without rows, four of elements.

use super::layout::Layout;
use super::row_axis::{ColumnCount, RowAxis};
use super::rule::{ShapeRule, check, common_rank, fits_rows, of_rows, ranked, ways_out};
use super::scope::Scope;
use crate::error::{Error, Result};
use std::ops::Range;

/// How a loss sees its tensors: the axes that make a row, and the rows that make a group.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The axes that make a row.
    pub axis: RowAxis,
    /// The numbers of columns that the loss takes.
    pub cols: ColumnCount,
    /// The rows that make a group.
    pub grouping: Grouping,
    /// Name of the loss, for messages.
    pub loss: &'a str,
}

/// The rows that make a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// Equal numbers of consecutive rows. `None`: as many as give one group per value of a group input; without one, the
    /// rows per index of their first axis.
    Equal(Option<u64>),
    /// This number of groups of unequal length.
    Ragged(u64),
}

/// A broadcast input has no Hessian diagonal: its second derivative mixes the elements that it is broadcast to.
pub(crate) fn no_hessian_of_broadcast(input: &str) -> Error {
    Error::Unsupported { message: format!("the Hessian diagonal of the broadcast input `{input}`; expand it") }
}

/// A tensor of a problem: its name (for messages), its scope and its layout.
#[derive(Clone, Debug)]
pub struct Operand<'a> {
    /// Name of the input or output.
    pub name: &'a str,
    /// The axes along which its values vary.
    pub scope: Scope,
    /// The shapes that it may have beside the others'.
    pub rule: ShapeRule,
    /// Its shape and strides.
    pub layout: &'a Layout,
}

/// Sizes of a problem, from the shapes of its element inputs alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Rows; without rows, 1.
    pub rows: u64,
    /// Columns; without rows, all elements.
    pub cols: u64,
    /// Size of the first axis.
    pub batch: u64,
    /// Rows per group; of groups of unequal length, those of the longest that there may be.
    pub group_rows: u64,
    groups: u64,
    /// Shape of an element-wise value.
    pub domain: Vec<usize>,
    /// Shape of a row value.
    pub row_shape: Vec<usize>,
    /// The axes of `domain` that make a row; `None` without rows.
    columns: Option<Range<usize>>,
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

/// The most f64 that one allocation may hold.
const MOST_ELEMENTS: u64 = isize::MAX as u64 / 8;

impl Extents {
    /// Rows and columns from the element inputs among `operands`.
    ///
    /// # Errors
    /// [`Error::Shape`] for shapes that break their rule or do not broadcast, for rows without columns, and for sizes that
    /// no memory holds; [`Error::Param`] for rows that do not make whole groups.
    pub fn new(by: Rows<'_>, operands: &[Operand<'_>]) -> Result<Extents> {
        let rank = common_rank(operands);
        check(operands, rank)?;
        let domain = domain(by.axis, operands, rank)?;
        // Sizes of 0 aside, so that no product of some axes overflows.
        let elements = domain.iter().try_fold(1u64, |n, &size| n.checked_mul(size.max(1) as u64));
        if elements.is_none_or(|n| n > MOST_ELEMENTS) {
            let expected = format!("at most {MOST_ELEMENTS} elements in all, broadcast");
            return Err(wrong_domain(operands, expected, &domain));
        }
        let columns = columns_of(by.axis, operands, &domain)?;
        let mut row_shape = domain.clone();
        row_shape.drain(columns.clone().unwrap_or(0..domain.len()));
        let batch = domain.first().copied().unwrap_or(1) as u64;
        let cols = domain[columns.clone().unwrap_or(0..domain.len())].iter().product::<usize>() as u64;
        let rows = row_shape.iter().product::<usize>() as u64;
        if let Some(expected) = by.cols.refused(cols) {
            let Rows { axis, loss, .. } = by;
            let expected = format!("along {axis} {expected} ({loss}); `.row_axis(…)` makes rows along other axes");
            return Err(wrong_domain(operands, expected, &domain));
        }
        let first_of_rows = row_shape.first().map_or(1, |size| *size as u64);
        let by_input = || groups_of(operands).filter(|groups| rows.is_multiple_of(*groups)).unwrap_or(first_of_rows);
        let (group_rows, groups) = match by.grouping {
            Grouping::Equal(per_group) => {
                let group_rows = per_group.unwrap_or_else(|| (rows / by_input().max(1)).max(1));
                check_equal(rows, group_rows, by.loss)?;
                (group_rows, rows / group_rows)
            }
            Grouping::Ragged(0) if rows > 0 => return Err(no_group(operands)),
            Grouping::Ragged(groups) => (rows.max(1), groups),
        };
        Ok(Extents { rows, cols, batch, group_rows, groups, domain, row_shape, columns })
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.rows * self.cols
    }

    /// Whether there are no elements: an axis of rows (any axis, without rows) has size 0.
    pub fn is_empty(&self) -> bool {
        self.elements() == 0
    }

    /// Number of groups.
    pub fn groups(&self) -> u64 {
        self.groups
    }

    /// Shape of a value of that scope.
    pub fn shape_of(&self, scope: Scope) -> Vec<usize> {
        match scope {
            Scope::Element => self.domain.clone(),
            Scope::Row => self.row_shape.clone(),
            Scope::Group => vec![self.groups() as usize],
            Scope::Column => vec![self.cols as usize],
            Scope::GroupColumn => vec![self.groups() as usize, self.cols as usize],
            _ => Vec::new(),
        }
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

/// An error unless the rows make whole groups of `group_rows` rows.
fn check_equal(rows: u64, group_rows: u64, loss: &str) -> Result<()> {
    if group_rows > 0 && rows.is_multiple_of(group_rows) {
        return Ok(());
    }
    let allowed = format!("a divisor of the number of rows, {rows}");
    let (loss, param, found) = (loss.to_owned(), "group_rows".to_owned(), group_rows.to_string());
    Err(Error::Param { loss, param, found, allowed })
}

/// The error of rows without any group.
fn no_group(operands: &[Operand<'_>]) -> Error {
    let offsets = operands.iter().find(|operand| operand.rule == ShapeRule::Offsets);
    let (name, found) = offsets.map_or(("groups", vec![0]), |operand| (operand.name, operand.layout.shape.clone()));
    Error::Shape { input: name.to_owned(), expected: "at least one group, as there are rows".to_owned(), found }
}

/// Number of groups that the group inputs have values for; `None` if there is none with more than one value.
fn groups_of(operands: &[Operand<'_>]) -> Option<u64> {
    let groups = operands.iter().filter_map(|operand| match (operand.scope, &operand.layout.shape[..]) {
        (Scope::Group, _) => Some(operand.layout.len() as u64),
        (Scope::GroupColumn, [groups, _]) => Some(*groups as u64),
        _ => None,
    });
    groups.filter(|groups| *groups > 1).max()
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

/// The error of a domain, which names the first operand.
fn wrong_domain(operands: &[Operand<'_>], expected: String, domain: &[usize]) -> Error {
    let input = operands.first().map_or("(no input)", |operand| operand.name);
    Error::Shape { input: input.to_owned(), expected, found: domain.to_vec() }
}

/// The shape of elements without element inputs: the rows of the row inputs by the columns of the column inputs.
fn rows_by_columns(axis: RowAxis, operands: &[Operand<'_>]) -> Option<Vec<usize>> {
    let of = |scope: Scope| operands.iter().filter(move |operand| operand.scope == scope);
    let largest = || of(Scope::Row).max_by_key(|operand| operand.layout.len());
    let rows = of(Scope::Row).find(|operand| operand.rule == ShapeRule::Same).or_else(largest)?;
    let cols = of(Scope::Column).map(|operand| operand.layout.len()).max()?;
    let mut domain = rows.layout.shape.clone();
    let place = axis.columns(domain.len() + 1).filter(|columns| columns.len() == 1)?.start;
    domain.insert(place, cols);
    Some(domain)
}

/// The shape that all element inputs, of that rank, broadcast to.
fn domain(axis: RowAxis, operands: &[Operand<'_>], rank: Option<usize>) -> Result<Vec<usize>> {
    let mut domain: Vec<usize> = Vec::new();
    let mut found = false;
    for operand in operands.iter().filter(|p| p.scope == Scope::Element) {
        found = true;
        let shape = &ranked(operand, rank).shape;
        let rank = domain.len().max(shape.len());
        let size = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |k| shape[k]);
        let mut joined = Vec::with_capacity(rank);
        for axis in 0..rank {
            match (size(&domain, axis), size(shape, axis)) {
                (a, b) if a == b => joined.push(a),
                (1, b) => joined.push(b),
                (a, 1) => joined.push(a),
                _ => {
                    return Err(Error::Shape {
                        input: operand.name.to_owned(),
                        expected: format!("a shape that broadcasts with {domain:?}"),
                        found: operand.layout.shape.clone(),
                    });
                }
            }
        }
        domain = joined;
    }
    if found || operands.is_empty() {
        return Ok(domain);
    }
    if let Some(domain) = rows_by_columns(axis, operands) {
        return Ok(domain);
    }
    Err(Error::Shape {
        input: operands[0].name.to_owned(),
        expected: "an input with one value per element".to_owned(),
        found: operands[0].layout.shape.clone(),
    })
}

/// The axes of the domain that make a row; `None` without rows.
fn columns_of(axis: RowAxis, operands: &[Operand<'_>], domain: &[usize]) -> Result<Option<Range<usize>>> {
    if axis == RowAxis::None {
        return Ok(None);
    }
    let Some(columns) = axis.columns(domain.len()) else {
        let expected = match axis {
            RowAxis::Class | RowAxis::Last => "at least one axis, that of the row".to_owned(),
            _ => format!(
                "at least {} axes, as rows are along {axis}; reshape it, or choose other axes with `.row_axis(…)`",
                axis.least_rank()
            ),
        };
        return Err(wrong_domain(operands, expected, domain));
    };
    if domain[columns.clone()].contains(&0) {
        return Err(wrong_domain(operands, "at least one column; only axes of rows may be 0".to_owned(), domain));
    }
    Ok(Some(columns))
}

/// An operand's strides along the outer axes and along the columns.
fn strides_of(operand: &Operand<'_>, axis: RowAxis, extents: &Extents, rank: Option<usize>) -> Result<(Vec<u64>, u64)> {
    let Extents { domain, row_shape, columns, cols, .. } = extents;
    let outer = if columns.is_some() { row_shape } else { domain };
    let Layout { shape, strides } = operand.layout;
    let wrong = |expected: String| Err(Error::Shape { input: operand.name.to_owned(), expected, found: shape.clone() });
    if shape.len() != strides.len() {
        return wrong(format!("one stride for each axis, {} given", strides.len()));
    }
    let other_reading = || other_reading(axis, extents, operand);
    match operand.scope {
        Scope::Element => match spread(&ranked(operand, rank), domain) {
            Some(mut all) => {
                let Some(columns) = columns.clone() else { return Ok((all, 0)) };
                let along: Vec<u64> = all.drain(columns.clone()).collect();
                let along_cols = one_stride(&domain[columns], &along);
                along_cols.map_or_else(
                    || {
                        wrong(format!(
                            "{axis} with strides that merge to one, as they are one row, not {along:?}; make a \
                             contiguous copy"
                        ))
                    },
                    |stride| Ok((all, stride)),
                )
            }
            None => wrong(format!("{domain:?}, or a shape that broadcasts to it")),
        },
        Scope::Row => match spread(&of_rows(operand.layout, outer), outer) {
            Some(_) if !fits_rows(operand, outer) => {
                let ways = other_reading().unwrap_or_else(|| ways_out(shape, outer));
                wrong(format!("{outer:?} (one value per row){ways}"))
            }
            Some(all) => Ok((all, 0)),
            None => {
                let other = other_reading().unwrap_or_default();
                let broadcast =
                    if operand.rule == ShapeRule::Broadcast { ", or a shape that broadcasts to it" } else { "" };
                wrong(format!("{outer:?} (one value per row){broadcast}{other}"))
            }
        },
        Scope::Column => match spread(operand.layout, &[*cols as usize]) {
            Some(all) => Ok((vec![0; outer.len()], all[0])),
            None => wrong(format!("[{cols}] (one value per column)")),
        },
        _ => match spread(operand.layout, &vec![1; shape.len()]) {
            Some(_) => Ok((vec![0; outer.len()], 0)),
            None => wrong("one value".to_owned()),
        },
    }
}

/// The stride from one column to the next of a row along several axes; `None` if they do not lie as one axis does.
fn one_stride(sizes: &[usize], strides: &[u64]) -> Option<u64> {
    let (sizes, strides) = merge(sizes, vec![strides], 1)?;
    Some(if sizes.is_empty() { 0 } else { strides[0][0] })
}

/// The strides of a layout along the axes of a shape that it broadcasts to; `None` if it does not.
fn spread(layout: &Layout, target: &[usize]) -> Option<Vec<u64>> {
    let Layout { shape, strides } = layout;
    let lead = target.len().checked_sub(shape.len())?;
    let mut all = vec![0; target.len()];
    for (axis, (&size, &stride)) in shape.iter().zip(strides).enumerate() {
        match target[lead + axis] {
            wanted if wanted == size => all[lead + axis] = if size == 1 { 0 } else { stride as u64 },
            _ if size == 1 => {}
            _ => return None,
        }
    }
    Some(all)
}

/// For a shape that has one value per row where rows are along another axis: both readings, and the way from one to the
/// other.
fn other_reading(axis: RowAxis, extents: &Extents, operand: &Operand<'_>) -> Option<String> {
    let Extents { domain, columns, .. } = extents;
    let last = domain.len().checked_sub(1).filter(|last| *last > 1)?;
    let own = columns.clone().filter(|columns| columns.len() == 1)?.start;
    // Weights of losses that have no classes, Keras's, have no other reading.
    if axis == RowAxis::Last && operand.rule != ShapeRule::Same {
        return None;
    }
    let shape = &operand.layout.shape;
    let fits = |other: &usize| [&domain[..*other], &domain[*other + 1..]].concat() == *shape;
    let other = [1, last].into_iter().chain(0..last).filter(|other| *other != own).find(fits)?;
    let way = match other {
        1 => "axis 1: `.class_axis(ClassAxis::One)`, or `RowAxis::Class` in a loss of your own".to_owned(),
        _ if other == last => "the last axis: `.class_axis(ClassAxis::Last)`".to_owned(),
        _ => format!(
            "axis {other}: `.class_axis(ClassAxis::At({other}))`, or `RowAxis::At({other})` in a loss of your own"
        ),
    };
    let own = format!("here the classes of {domain:?} are along {axis}");
    Some(format!(": {own}; {shape:?} has one value per row where they are along {way}"))
}

/// Sizes of the merged axes, and each tensor's strides along them.
type Merged = (Vec<u64>, Vec<Vec<u64>>);

/// Merges neighbouring axes wherever every tensor's strides allow, down to at most `keep`.
fn merge(sizes: &[usize], strides: Vec<&[u64]>, keep: usize) -> Option<Merged> {
    let mut merged: Vec<u64> = Vec::new();
    let mut along: Vec<Vec<u64>> = vec![Vec::new(); strides.len()];
    for (axis, &size) in sizes.iter().enumerate() {
        if size == 1 {
            continue;
        }
        let size = size as u64;
        let joins = !merged.is_empty()
            && strides.iter().zip(&along).all(|(s, done)| s[axis].checked_mul(size) == done.last().copied());
        if joins {
            *merged.last_mut().expect("axes join only to one merged before") *= size;
        } else {
            merged.push(size);
        }
        for (s, done) in strides.iter().zip(&mut along) {
            if joins {
                done.pop();
            }
            done.push(s[axis]);
        }
    }
    (merged.len() <= keep).then_some((merged, along))
}

#[cfg(test)]
mod tests {
    use super::*;

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
