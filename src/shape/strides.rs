//! Strides of a tensor along the axes of a problem: broadcast, and merged where neighbouring axes lie as one.

use super::extents::{Extents, Operand};
use super::layout::Layout;
use super::row_axis::RowAxis;
use super::rule::{ShapeRule, fits_rows, of_rows, ranked, ways_out};
use super::scope::Scope;
use crate::error::{Error, Result};

/// An operand's strides along the outer axes and along the columns.
pub(super) fn strides_of(
    operand: &Operand<'_>,
    axis: RowAxis,
    extents: &Extents,
    rank: Option<usize>,
) -> Result<(Vec<u64>, u64)> {
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
pub(super) fn spread(layout: &Layout, target: &[usize]) -> Option<Vec<u64>> {
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
pub(super) type Merged = (Vec<u64>, Vec<Vec<u64>>);

/// Merges neighbouring axes wherever every tensor's strides allow, down to at most `keep`.
pub(super) fn merge(sizes: &[usize], strides: Vec<&[u64]>, keep: usize) -> Option<Merged> {
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
