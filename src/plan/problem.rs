//! What the dispatches of a bound plan depend on, and what they are. Plain data.

use crate::codegen::{Mode, Slot};
use crate::limits::Limits;
use crate::lower::Program;
use crate::schedule::Pinned;
use crate::shape::DType;
use crate::shape::Geometry;
use crate::shape::Scope;

/// Items above which a sum takes two steps.
pub(crate) const ONE_STEP: u64 = 1 << 14;
/// Segments of the first of two steps, at most.
pub(crate) const SEGMENTS: u64 = 256;

/// Where a tensor lies: strides along the merged axes, its first element in its binding, its type, and whether the
/// last vector of four elements is whole in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub strides: [u64; 4],
    /// First element in its buffer.
    pub offset: u64,
    /// First element in a binding of all of it.
    pub first: u64,
    pub dtype: DType,
    pub whole_vectors: bool,
}

impl Placement {
    /// A gradient kept in a buffer of its own until its pass is done: f32, row-major over the merged axes.
    pub fn kept(program: &Program, geometry: &Geometry, scope: Scope) -> Placement {
        let [_, a1, a2, a3] = geometry.axes;
        let strides = match scope {
            Scope::Row if program.has_rows() => [a1 * a2, a2, 1, 0],
            Scope::Total => [0; 4],
            _ => [a1 * a2 * a3, a2 * a3, a3, 1],
        };
        Placement { strides, offset: 0, first: 0, dtype: DType::F32, whole_vectors: true }
    }

    /// How many values those are.
    pub fn kept_values(geometry: &Geometry, scope: Scope) -> u64 {
        match scope {
            Scope::Total => 1,
            Scope::Row => geometry.rows,
            _ => geometry.elements(),
        }
    }
}

/// Everything that the dispatches depend on.
pub(crate) struct Problem<'a> {
    pub program: &'a Program,
    pub geometry: Geometry,
    pub inputs: Vec<Option<Placement>>,
    /// Where each output is stored by its pass.
    pub outputs: Vec<Placement>,
    /// Where a gradient goes in the end that its pass keeps in a buffer of its own: one that is summed over broadcast
    /// axes, 16-bit elements that the pass cannot store two at a time, or one in place of what others still read.
    pub destinations: Vec<Option<Placement>>,
    pub modes: Vec<Mode>,
    pub pooled: bool,
    pub group_rows: u64,
    pub limits: &'a Limits,
    pub pinned: Pinned,
    pub phasing: Phasing,
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

/// Which phases a plan is encoded in, and which columns it has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Phasing {
    /// Passes before those of the gradients, where these come apart.
    pub forward: Option<usize>,
    /// The shard that the columns are.
    pub shard: Option<Shard>,
    /// Whether the program is one for a part of the columns.
    pub column_range: bool,
}

/// Invocations that add up sums, and that stitch rows, at most.
pub(crate) fn reduce_lanes(limits: &Limits) -> u32 {
    if limits.software { 32 } else { limits.invocations().min(256) }
}

/// Whether a gradient of that scope has fewer values than the pass makes.
pub(crate) fn is_broadcast(program: &Program, geometry: &Geometry, scope: Scope, target: &Placement) -> bool {
    let axes = match scope {
        Scope::Total => return false,
        Scope::Row if program.has_rows() => 0..3,
        _ => 0..4,
    };
    axes.into_iter().any(|axis| geometry.axes[axis] > 1 && target.strides[axis] == 0)
}

impl Problem<'_> {
    pub(crate) fn placement(&self, slot: Slot) -> Placement {
        match slot {
            Slot::Input(place) => self.inputs[place].expect("an input that the program reads is bound"),
            Slot::Output(output) => self.outputs[output],
            Slot::Workspace | Slot::Scalars | Slot::Kept(_) | Slot::States(_) | Slot::AllStates(_) => {
                unreachable!("only tensors have a place")
            }
        }
    }

    /// Whether a tensor has a value for every column.
    pub(crate) fn has_columns(&self, slot: Slot) -> bool {
        let scope = match slot {
            Slot::Input(input) => self.program.inputs[input].scope,
            Slot::Output(output) => self.program.outputs[output].scope,
            Slot::Workspace | Slot::Scalars | Slot::Kept(_) | Slot::States(_) | Slot::AllStates(_) => return false,
        };
        matches!(scope, Scope::Element | Scope::Column)
    }

    pub(crate) fn reduce_lanes(&self) -> u32 {
        reduce_lanes(self.limits)
    }

    /// Workgroups for so many items, one an invocation, inside the grid limit.
    pub(crate) fn groups_of(&self, items: u64, workgroup: u32) -> u32 {
        items.div_ceil(u64::from(workgroup)).min(u64::from(self.limits.workgroups)) as u32
    }
}
