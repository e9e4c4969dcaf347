//! What the dispatches of a bound plan depend on, and what they are. Plain data.

use crate::codegen::{KernelSource, Mode, Slot};
use crate::limits::Limits;
use crate::lower::Program;
use crate::plan::uniform::{HalfUniform, ShapeUniform, SpanUniform, StatesUniform};
use crate::schedule::Force;
use crate::shape::DType;
use crate::shape::Geometry;
use crate::shape::Scope;
use std::ops::Range;

/// Items above which a sum takes two steps.
pub(crate) const ONE_STEP: u64 = 1 << 14;
/// Segments of the first of two steps, at most.
pub(crate) const SEGMENTS: u64 = 256;

/// Where a tensor lies: strides along the merged axes, its first element in its binding, its type, and whether the
/// last vector of four elements is whole in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub strides: [u64; 4],
    /// First element in its buffer.
    pub offset: u64,
    /// First element in a binding of all of it.
    pub first: u64,
    pub dtype: DType,
    pub whole_vectors: bool,
}

impl Place {
    /// A gradient kept in a buffer of its own until its pass is done: f32, row-major over the merged axes.
    pub fn kept(program: &Program, geometry: &Geometry, scope: Scope) -> Place {
        let [_, a1, a2, a3] = geometry.axes;
        let strides = match scope {
            Scope::Row if program.has_rows() => [a1 * a2, a2, 1, 0],
            Scope::Total => [0; 4],
            _ => [a1 * a2 * a3, a2 * a3, a3, 1],
        };
        Place { strides, offset: 0, first: 0, dtype: DType::F32, whole_vectors: true }
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
    pub geometry: &'a Geometry,
    pub inputs: Vec<Option<Place>>,
    /// Where each output is stored by its pass.
    pub outputs: Vec<Place>,
    /// Where a gradient goes in the end that its pass keeps in a buffer of its own: one that is summed over broadcast
    /// axes, 16-bit elements that the pass cannot store two at a time, or one in place of what others still read.
    pub targets: Vec<Option<Place>>,
    pub modes: Vec<Mode>,
    pub pooled: bool,
    pub group_rows: u64,
    pub limits: &'a Limits,
    pub force: Force,
    pub staging: Staging,
}

/// What a kernel does for its pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is the pass, over one chunk of its tensors, or one phase of it.
    Pass,
    /// It puts the words that two rows share where they belong.
    Stitch,
    /// It adds up the pass's sums.
    Sums(Sums),
}

/// What a reduction adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sums {
    /// The rows of each group.
    Groups,
    /// Segments, the first of two steps.
    Segments,
    /// What is left.
    Finish,
}

/// What is bound at a number of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// The first uniform: the shape, or what the step's kernel has instead.
    Shape,
    /// The span of a reduction.
    Span,
    /// The loss's parameters.
    Params,
    /// A storage buffer, by its place among the kernel's bindings.
    Storage(usize),
}

/// What a dispatch is.
pub(crate) enum Step {
    /// A pass over one chunk of its tensors, whose bytes are named, or one reduction of its sums.
    Kernel {
        source: KernelSource,
        grid: [u32; 2],
        pass: usize,
        role: Role,
        shape: Box<ShapeUniform>,
        /// Of a reduction.
        span: Option<SpanUniform>,
        bytes: Vec<(Slot, Range<u64>)>,
    },
    /// What becomes of a gradient that its pass kept: summed over the axes that its input broadcasts along, narrowed.
    Settle { output: usize, source: KernelSource, grid: [u32; 2], uniform: Vec<u8> },
    /// States of rows brought together, before or after an exchange.
    States { source: KernelSource, grid: [u32; 2], uniform: StatesUniform },
    /// A scalar input of 16 bits widened to its word.
    Widen { source: KernelSource, uniform: HalfUniform },
}

impl Step {
    pub fn source(&self) -> &KernelSource {
        let (Step::Kernel { source, .. }
        | Step::Settle { source, .. }
        | Step::States { source, .. }
        | Step::Widen { source, .. }) = self;
        source
    }

    pub fn grid(&self) -> [u32; 2] {
        match self {
            Step::Kernel { grid, .. } | Step::Settle { grid, .. } | Step::States { grid, .. } => *grid,
            Step::Widen { .. } => [1, 1],
        }
    }

    /// Whether it is a reduction.
    pub fn has_span(&self) -> bool {
        matches!(self, Step::Kernel { span: Some(_), .. })
    }

    /// What it binds, by number.
    pub fn resources(&self) -> Vec<(u32, Resource)> {
        let (second, last) = match self {
            Step::Kernel { span: Some(_), .. } => (Resource::Span, Some(Resource::Params)),
            Step::Kernel { .. } => (Resource::Params, None),
            // Their layout has a second uniform, which they do not read.
            Step::Settle { .. } | Step::States { .. } | Step::Widen { .. } => (Resource::Shape, None),
        };
        let storage = (0..self.source().bindings.len()).map(Resource::Storage);
        let all = [Resource::Shape, second].into_iter().chain(storage).chain(last);
        (0..).zip(all).collect()
    }
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

/// States that leave the device and come back together with those of the other shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// Words of a row's state.
    pub words: u32,
}

/// How a plan's steps are parted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Staging {
    /// Passes before those of the gradients, where these come apart.
    pub forward: Option<usize>,
    /// The shard that the columns are.
    pub shard: Option<Shard>,
    /// Whether the program is one for a part of the columns.
    pub part: bool,
}

/// Invocations that add up sums, and that stitch rows, at most.
pub(crate) fn reduce_lanes(limits: &Limits) -> u32 {
    if limits.software { 32 } else { limits.invocations().min(256) }
}

/// Whether a gradient of that scope has fewer values than the pass makes.
pub(crate) fn is_broadcast(program: &Program, geometry: &Geometry, scope: Scope, target: &Place) -> bool {
    let axes = match scope {
        Scope::Total => return false,
        Scope::Row if program.has_rows() => 0..3,
        _ => 0..4,
    };
    axes.into_iter().any(|axis| geometry.axes[axis] > 1 && target.strides[axis] == 0)
}

impl Problem<'_> {
    pub(crate) fn place(&self, slot: Slot) -> Place {
        match slot {
            Slot::Input(place) => self.inputs[place].expect("an input that the program reads is bound"),
            Slot::Output(output) => self.outputs[output],
            Slot::Work | Slot::Scalars | Slot::States(_) | Slot::Gathered(_) => {
                unreachable!("only tensors have a place")
            }
        }
    }

    /// Whether a tensor has a value for every column.
    pub(crate) fn has_columns(&self, slot: Slot) -> bool {
        let scope = match slot {
            Slot::Input(input) => self.program.inputs[input].scope,
            Slot::Output(output) => self.program.outputs[output].scope,
            Slot::Work | Slot::Scalars | Slot::States(_) | Slot::Gathered(_) => return false,
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
