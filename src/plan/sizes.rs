//! Sizes of a problem, as numbers or as formulas; grids, uniforms and the workspace follow from them.

use super::problem::Problem;
use crate::shape::Count;

/// A count whose number is known for the planned shape.
pub(crate) trait Known: Count {
    /// That number.
    fn number(&self) -> u64;
    /// Whether it is 0 for every shape.
    fn is_zero(&self) -> bool;
}

impl Known for u64 {
    fn number(&self) -> u64 {
        *self
    }

    fn is_zero(&self) -> bool {
        *self == 0
    }
}

/// Sizes of one problem.
pub(crate) struct Sizes<N = u64> {
    /// Rows; 1 for a problem without rows.
    pub rows: N,
    /// Columns; elements for a problem without rows.
    pub cols: N,
    /// Elements of all shards together.
    pub elements: N,
    /// Classes of all shards together.
    pub classes: N,
    /// Columns of the shards before this one.
    pub first_col: N,
    /// Size of the first axis.
    pub batch: N,
    /// Rows per group.
    pub group_rows: N,
    pub groups: N,
    /// The merged axes, outermost first.
    pub axes: [N; 4],
    /// Strides of each input along these, if it is bound.
    pub inputs: Vec<Option<[N; 4]>>,
    /// Strides of each output, where its pass stores it.
    pub outputs: Vec<[N; 4]>,
}

impl Sizes<u64> {
    pub(crate) fn of(problem: &Problem<'_>) -> Sizes<u64> {
        let geometry = &problem.geometry;
        let shard = problem.phasing.shard;
        let classes = shard.map_or(geometry.cols, |shard| shard.classes);
        Sizes {
            rows: geometry.rows,
            cols: geometry.cols,
            elements: if shard.is_some() { geometry.rows * classes } else { geometry.elements() },
            classes,
            first_col: shard.map_or(0, |shard| shard.first),
            batch: geometry.batch,
            group_rows: geometry.group_rows,
            groups: geometry.groups(),
            axes: geometry.axes,
            inputs: problem.inputs.iter().map(|input| input.map(|placement| placement.strides)).collect(),
            outputs: problem.outputs.iter().map(|placement| placement.strides).collect(),
        }
    }
}
