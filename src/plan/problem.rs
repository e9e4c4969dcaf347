//! A problem: a program and the tensors it runs on. Plain data.

use crate::codegen::{Mode, Slot};
use crate::limits::Limits;
use crate::lower::{Over, Program};
use crate::schedule::Pinned;
use crate::shape::{DType, Geometry, Scope};

/// Most items that one dispatch adds up; more take two.
pub(crate) const ONE_STEP: u64 = 1 << 14;
/// The same of partial sums on a GPU, where a dispatch costs as much as a workgroup's sum of so many.
pub(crate) const ONE_STEP_GPU: u64 = 1 << 16;
/// Most segments of the first of these two dispatches.
pub(crate) const SEGMENTS: u64 = 256;

/// Where a tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Strides along the merged axes.
    pub strides: [u64; 4],
    /// First element in its buffer.
    pub offset: u64,
    /// First element in a binding of the whole tensor.
    pub first: u64,
    pub dtype: DType,
    /// Bytes of the longest vector, of 4, 8 or 16, of which its buffer holds the last whole.
    pub whole_bytes: u64,
    /// Whether it has no elements.
    pub is_empty: bool,
}

impl Placement {
    /// A gradient kept in a buffer of its own until its pass is done: f32, row-major over the merged axes.
    pub fn kept(program: &Program, geometry: &Geometry, scope: Scope) -> Placement {
        let [_, a1, a2, a3] = geometry.axes;
        let strides = match scope {
            Scope::Row if program.has_rows() => [a1 * a2, a2, 1, 0],
            Scope::Group | Scope::Column => [0, 0, 0, 1],
            Scope::GroupColumn => [0, 0, geometry.cols, 1],
            Scope::Total => [0; 4],
            _ => [a1 * a2 * a3, a2 * a3, a3, 1],
        };
        let is_empty = Placement::kept_values(geometry, scope) == 0;
        Placement { strides, offset: 0, first: 0, dtype: DType::F32, whole_bytes: 16, is_empty }
    }

    /// Number of values of such a gradient.
    pub fn kept_values(geometry: &Geometry, scope: Scope) -> u64 {
        match scope {
            Scope::Total => 1,
            Scope::Row => geometry.rows,
            Scope::Group => geometry.groups(),
            Scope::Column => geometry.cols,
            Scope::GroupColumn => geometry.groups() * geometry.cols,
            _ => geometry.elements(),
        }
    }
}

/// All that the dispatches of a bound plan depend on.
pub(crate) struct Problem<'a> {
    pub program: &'a Program,
    pub geometry: Geometry,
    pub inputs: Vec<Option<Placement>>,
    /// Where each output is stored by its pass.
    pub outputs: Vec<Placement>,
    /// Destination of each kept gradient: one that is summed over broadcast axes, 16-bit elements that its pass cannot
    /// store in pairs, or one in place of an input that others still read.
    pub destinations: Vec<Option<Placement>>,
    pub modes: Vec<Mode>,
    pub pooled: bool,
    pub limits: &'a Limits,
    pub pinned: Pinned,
    pub phasing: Phasing,
    /// Element of the found_inf output in a binding of it, if the plan has one.
    pub found_inf: Option<u64>,
}

/// One shard of the classes, for vocabulary-parallel training: each device holds some columns of every row.
///
/// ```
/// use wgloss::Shard;
/// // The second of four shards of 32,000 classes.
/// let shard = Shard { first: 8_000, classes: 32_000, shards: 4 };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Class of this shard's first column.
    pub first: u64,
    /// Classes of all shards together.
    pub classes: u64,
    /// Number of shards.
    pub shards: u32,
}

/// The phases that a plan is encoded in, and the columns that it has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Phasing {
    /// Number of forward passes, if the gradients are a phase of their own.
    pub forward: Option<usize>,
    /// The shard that the columns belong to.
    pub shard: Option<Shard>,
    /// Whether the program works on a range of the columns.
    pub column_range: bool,
}

/// Largest workgroup of the kernels that add up sums and stitch rows.
pub(crate) fn reduce_lanes(limits: &Limits) -> u32 {
    if limits.software { 32 } else { limits.invocations().min(256) }
}

/// Most partial sums that one dispatch adds up.
pub(crate) fn most_partials(limits: &Limits) -> u64 {
    if limits.software { ONE_STEP } else { ONE_STEP_GPU }
}

/// Whether a gradient of that scope has fewer values than its pass computes.
pub(crate) fn is_broadcast(program: &Program, geometry: &Geometry, scope: Scope, destination: &Placement) -> bool {
    let along = match scope {
        Scope::Total => return false,
        Scope::Row if program.has_rows() => 0..3,
        _ => 0..4,
    };
    let axes = geometry.axes_of(scope);
    along.into_iter().any(|axis| axes[axis] > 1 && destination.strides[axis] == 0)
}

impl Problem<'_> {
    pub(crate) fn placement(&self, slot: Slot) -> Placement {
        match slot {
            Slot::Input(input) => self.inputs[input].expect("an input that the program reads is bound"),
            Slot::Output(output) => self.outputs[output],
            Slot::Workspace | Slot::Scalars | Slot::Kept(_) | Slot::States(_) | Slot::AllStates(_) | Slot::FoundInf => {
                unreachable!("only tensors have a placement")
            }
        }
    }

    /// Scope of a tensor's values; `None` for a slot that is no tensor.
    pub(crate) fn scope(&self, slot: Slot) -> Option<Scope> {
        match slot {
            Slot::Input(input) => Some(self.program.inputs[input].scope),
            Slot::Output(output) => Some(self.program.outputs[output].scope),
            _ => None,
        }
    }

    /// Whether a tensor has a value for every column.
    pub(crate) fn has_columns(&self, slot: Slot) -> bool {
        self.scope(slot).is_some_and(Scope::has_columns)
    }

    /// Whether dispatches of a pass over these items bind a tensor whole: one value per group (and column), or per column of
    /// a pass over the columns. What gives groups of unequal length is bound whole too, by the dispatch that reads it.
    pub(crate) fn is_whole(&self, over: Over, slot: Slot) -> bool {
        matches!(self.scope(slot), Some(Scope::Group | Scope::GroupColumn))
            || matches!(over, Over::Columns | Over::GroupColumns)
    }

    pub(crate) fn reduce_lanes(&self) -> u32 {
        reduce_lanes(self.limits)
    }

    /// Invocations of a workgroup that adds up `items` of each of so many sums: about eight items per lane; more on a GPU
    /// where one workgroup adds up what two steps would otherwise.
    pub(crate) fn reduce_workgroup(&self, items: u64, sums: u64) -> u32 {
        let is_long = items > ONE_STEP && !self.limits.software;
        let fitting = u64::from(self.limits.workgroup_bytes) / (4 * (1 + 2 * sums));
        let most = match is_long && fitting >= u64::from(self.limits.invocations()) {
            true => self.limits.invocations(),
            false => self.reduce_lanes(),
        };
        (items.div_ceil(8).next_power_of_two().min(1 << 20) as u32).clamp(8, most.max(8))
    }

    /// Workgroups for `items`, one item per invocation, within the grid limit.
    pub(crate) fn groups_of(&self, items: u64, workgroup: u32) -> u32 {
        items.div_ceil(u64::from(workgroup)).min(u64::from(self.limits.workgroups)) as u32
    }
}
