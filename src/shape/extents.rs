//! Sizes of one problem: rows, columns and groups, from the shapes of its element inputs.

use super::layout::Layout;
use super::row_axis::{ColumnCount, RowAxis};
use super::rule::{ShapeRule, check, common_rank, ranked};
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
    pub(super) columns: Option<Range<usize>>,
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

/// The error of a domain, which names the first operand.
pub(super) fn wrong_domain(operands: &[Operand<'_>], expected: String, domain: &[usize]) -> Error {
    let input = operands.first().map_or("(no input)", |operand| operand.name);
    Error::Shape { input: input.to_owned(), expected, found: domain.to_vec() }
}

/// The shape of elements without element inputs: the rows of the row inputs by the columns of the column inputs. A last axis of
/// size 1 that another row input lacks is none of the rows'.
fn rows_by_columns(axis: RowAxis, operands: &[Operand<'_>]) -> Option<Vec<usize>> {
    let of = |scope: Scope| operands.iter().filter(move |operand| operand.scope == scope);
    let largest = || of(Scope::Row).max_by_key(|operand| operand.layout.len());
    let rows = of(Scope::Row).find(|operand| operand.rule == ShapeRule::Same).or_else(largest)?;
    let cols = of(Scope::Column).map(|operand| operand.layout.len()).max()?;
    let shape = &rows.layout.shape[..];
    let squeezed = shape.strip_suffix(&[1]).filter(|lead| of(Scope::Row).any(|other| other.layout.shape == *lead));
    let mut domain = squeezed.unwrap_or(shape).to_vec();
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
