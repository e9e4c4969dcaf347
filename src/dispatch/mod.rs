//! The work of a device as plain data: dispatches, their bindings, uniforms and grids.
//!
//! A count is a number for a plan of one shape, and a formula of rows and columns for an export.

mod signature;
mod uniform;

pub use crate::codegen::{Mode, Slot};
pub use crate::lower::OutputKind;
pub use signature::{
    Compared, GroupStatus, IndexRange, IndexStatus, LabelInput, Labels, OutputSignature, ParamSignature, Signature,
    output_name,
};
pub use uniform::{Field, FieldName, Uniform, Word};

use std::sync::Arc;

/// A storage buffer of a dispatch, or some bytes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The buffer.
    pub slot: Slot,
    /// Whether the kernel declares it `read_write`.
    pub writes: bool,
    /// First byte, and the byte after the last, for the planned shape; `None` binds the whole buffer or tensor.
    pub bytes: Option<[u64; 2]>,
}

/// The purpose of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// A scalar input of 16 bits is widened to its word.
    Widen,
    /// The rows of groups of unequal length are found.
    RowGroups,
    /// A pass, or one stage of it, over one chunk of its tensors.
    Pass(usize),
    /// Words that two rows share are stitched after that pass.
    Stitch(usize),
    /// Sums of that pass over groups are added up.
    Group(usize),
    /// Sums of that pass by column are added up.
    Columns(usize),
    /// Sums of that pass over everything are added up.
    Total(usize),
    /// States of rows are combined before or after an exchange, in that pass.
    States(usize),
    /// The kept gradient of that output is written to its destination.
    Finish(usize),
    /// Whether a stored gradient is not finite is written.
    Found,
    /// Work of an operator that has no passes.
    Whole,
}

/// One kernel over one grid.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch<N = u64> {
    /// WGSL with one entry point, `main`.
    pub wgsl: Arc<str>,
    /// Workgroups along x and y.
    pub grid: [N; 2],
    /// Uniform buffers, by binding number.
    pub uniforms: Vec<(u32, Arc<Uniform<N>>)>,
    /// Storage buffers, at the binding numbers from [`FIRST_STORAGE`] on.
    pub storage: Vec<Region>,
    /// Its purpose.
    pub note: Note,
}

/// Binding number of a dispatch's first storage buffer.
pub const FIRST_STORAGE: u32 = 2;

impl<N> Dispatch<N> {
    /// First line of its kernel: the loss, the kernel, and the shape class.
    pub fn title(&self) -> &str {
        self.wgsl.lines().next().unwrap_or_default()
    }

    /// Binding numbers of its uniforms, and whether each storage buffer is written.
    pub fn layout(&self) -> (Vec<u32>, Vec<bool>) {
        (self.uniforms.iter().map(|u| u.0).collect(), self.storage.iter().map(|region| region.writes).collect())
    }
}

/// An output whose values are kept in f32 until it is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Index of the output.
    pub output: usize,
    /// Bytes of its values.
    pub bytes: u64,
}

/// An exchange: this shard's states leave the device, the states of all shards come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Rows of the problem.
    pub rows: u64,
    /// Words of the state of one row.
    pub words: u64,
    /// Shards of the classes.
    pub shards: u64,
}

/// Everything that a device runs for one problem.
#[derive(Clone, Debug, Default)]
pub struct Planned<N = u64> {
    /// Dispatches before each phase, which widen 16-bit scalar inputs.
    pub scalars: Vec<Dispatch<N>>,
    /// All other dispatches, in order.
    pub dispatches: Vec<Dispatch<N>>,
    /// End of each phase, as a count of dispatches: one phase per exchange, then forward and backward, or one for all.
    pub phases: Vec<usize>,
    /// The exchanges, each after its phase.
    pub exchanges: Vec<Exchange>,
    /// Words of the workspace.
    pub workspace: N,
    /// Whether the workspace holds states between phases, so that no other bound plan may share it.
    pub keeps_states: bool,
    /// Words of the buffer of scalars, of each loss: the status word, then scalar inputs and totals, then the found word and
    /// the status word of groups where they are used.
    pub scalar_words: u64,
    /// Scalar inputs of 32 bits: index of the input, and the word that it is copied to before each phase.
    pub scalar_copies: Vec<(usize, u64)>,
    /// Outputs whose values are kept in f32.
    pub kept: Vec<Kept>,
    /// Labels that a status word reports, per word; none if no label indexes a row.
    pub labels: Vec<Labels>,
    /// Inputs of indices that are checked element by element, each with a status word of its own.
    pub indices: Vec<IndexStatus>,
    /// The input that gives groups of unequal length, whose status word follows the found word.
    pub groups: Option<GroupStatus>,
    /// Bytes that must move: inputs once, outputs once.
    pub bytes: u64,
}

impl<N> Planned<N> {
    /// All dispatches, those before each phase first.
    pub fn all(&self) -> impl Iterator<Item = &Dispatch<N>> {
        self.scalars.iter().chain(&self.dispatches)
    }

    /// WGSL of the kernels, each once, in the order of their first dispatch.
    pub fn kernels(&self) -> Vec<String> {
        let mut kernels: Vec<String> = Vec::new();
        for dispatch in self.all() {
            if !kernels.iter().any(|known| **known == *dispatch.wgsl) {
                kernels.push(dispatch.wgsl.to_string());
            }
        }
        kernels
    }
}
