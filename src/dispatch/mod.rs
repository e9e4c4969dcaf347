//! What runs on a device, as plain data: dispatches, what each binds, and all that a device has to know to run them.
//!
//! A count is a number for a plan of one shape, and a formula of rows and columns for an export.

mod signature;
mod uniform;

pub use crate::codegen::{Mode, Slot};
pub use crate::lower::OutputKind;
pub use signature::{Compared, LabelInput, Labels, OutputSignature, ParamSignature, Signature};
pub use uniform::{Field, FieldName, Uniform, Word};

use std::sync::Arc;

/// A storage buffer of a dispatch, or some bytes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The buffer.
    pub slot: Slot,
    /// Whether the kernel declares it `read_write`.
    pub writes: bool,
    /// First byte, and the byte after the last, for the planned shape; the whole tensor, if none are named.
    pub bytes: Option<[u64; 2]>,
}

/// What a dispatch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// A scalar input of 16 bits is widened to its word.
    Widen,
    /// A pass, or one phase of it over one chunk of its tensors.
    Pass(usize),
    /// Words that two rows share are put together after that pass.
    Stitch(usize),
    /// Sums of that pass over groups are added up.
    Group(usize),
    /// Sums of that pass over everything are added up.
    Total(usize),
    /// States of rows are combined before or after an exchange, in that pass.
    States(usize),
    /// A kept gradient is brought to where it belongs.
    Finish(usize),
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
    /// What it is for.
    pub note: Note,
}

/// Binding number of a dispatch's first storage buffer.
pub const FIRST_STORAGE: u32 = 2;

impl<N> Dispatch<N> {
    /// Binding numbers of its uniforms, and whether each storage buffer is written.
    pub fn layout(&self) -> (Vec<u32>, Vec<bool>) {
        (self.uniforms.iter().map(|u| u.0).collect(), self.storage.iter().map(|region| region.writes).collect())
    }
}

/// An output whose values are kept in f32 until all passes are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Index of the output.
    pub output: usize,
    /// Bytes of its values.
    pub bytes: u64,
}

/// States that leave the device and come back together with those of the other shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Rows of the problem.
    pub rows: u64,
    /// Words of the state of one row.
    pub words: u64,
    /// Shards of the classes.
    pub shards: u64,
}

/// Everything that a device runs for one problem, and what it binds.
#[derive(Clone, Debug, Default)]
pub struct Planned<N = u64> {
    /// What is dispatched before each phase: scalar inputs of 16 bits are widened.
    pub scalars: Vec<Dispatch<N>>,
    /// What is dispatched, in order.
    pub dispatches: Vec<Dispatch<N>>,
    /// Ends of the phases that are encoded apart, as counts of dispatches: one for each exchange, then forward and
    /// backward, or all in one.
    pub phases: Vec<usize>,
    /// The exchanges, each after its phase.
    pub exchanges: Vec<Exchange>,
    /// Words of the workspace.
    pub workspace: N,
    /// Whether the workspace holds states from one phase to the next, so that no other plan may use it.
    pub keeps_states: bool,
    /// Words of the buffer of scalars: the status word, then scalar inputs and totals.
    pub scalar_words: u64,
    /// Scalar inputs of 32 bits: index of the input, and the word that it is copied to before each phase.
    pub scalar_copies: Vec<(usize, u64)>,
    /// Outputs whose values are kept in f32.
    pub kept: Vec<Kept>,
    /// Labels that a bad status is about; none, where no label chooses among elements.
    pub labels: Option<Labels>,
    /// Bytes that must move: inputs once, outputs once.
    pub bytes: u64,
}

impl<N> Planned<N> {
    /// All dispatches, those before each phase first.
    pub fn all(&self) -> impl Iterator<Item = &Dispatch<N>> {
        self.scalars.iter().chain(&self.dispatches)
    }
}
