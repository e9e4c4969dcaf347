//! A plan as data, for any WebGPU host: WGSL, and sizes, grids and uniforms as formulas of the shape.
//!
//! A host makes the buffers, fills the uniforms, and dispatches the kernels in order, each after the one before:
//!
//! 1. Check the [`conditions`](Export::conditions) for its rows and columns.
//! 2. Make a buffer for each tensor, one of [`work_bytes`](Export::work_bytes), one of
//!    [`scalar_words`](Export::scalar_words) words, one for each uniform, and one for the parameters.
//! 3. Write `0xffffffff` to the first word of the scalars, and copy the [scalar inputs](Export::scalar_inputs) to theirs.
//! 4. Dispatch. Afterwards the first word of the scalars is the first row with a label out of range, if there is one.
//!
//! Where a formula gives 0 workgroups, there is nothing to dispatch. A host of no rows dispatches nothing: the conditions ask
//! for more, and a sum is 0, a mean NaN, every gradient 0.

mod make;
mod traced;

pub use crate::shape::{Count, Formula, FormulaOp};

use crate::expr::ParamDecl;
use crate::shape::DType;

/// Kernels, and the buffers, uniforms and dispatches to run them with. Made by [`Export::new`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Export {
    /// Name of the loss.
    pub loss: String,
    /// Rows and columns that the kernels were chosen for.
    pub made_for: [u64; 2],
    /// Conditions on the rows and columns.
    pub conditions: Vec<Condition>,
    /// Invocations of the largest workgroup.
    pub workgroup_invocations: u32,
    /// WGSL sources, each with one entry point, `main`. The first line of each says what it is.
    pub kernels: Vec<String>,
    /// Inputs, then outputs.
    pub tensors: Vec<ExportTensor>,
    /// Bytes of the workspace, whose initial content does not matter.
    pub work_bytes: Formula,
    /// Words of the buffer of scalars.
    pub scalar_words: u64,
    /// 32-bit inputs of one value, copied to the scalars before each step: name, and word there. (A dispatch widens 16-bit
    /// ones.)
    pub scalar_inputs: Vec<(String, u64)>,
    /// The parameters, whose [words](ParamDecl::word) come one after the other in a uniform of [`Export::params_bytes`].
    pub params: Vec<ParamDecl>,
    /// Bytes of the uniform with the parameters.
    pub params_bytes: u64,
    /// The other uniforms.
    pub uniforms: Vec<ExportUniform>,
    /// The dispatches, in order.
    pub dispatches: Vec<ExportDispatch>,
}

/// A condition on the shape: the kernels are right only where it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Condition {
    /// 1 where it holds.
    pub formula: Formula,
    /// The reason.
    pub why: &'static str,
}

/// An input or an output.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExportTensor {
    /// Name of the input; `loss`, `denominator` or the name of an extra output; `d_` and the input for a gradient.
    pub name: String,
    /// Whether it is written.
    pub is_output: bool,
    /// Element type; elements are stored row-major.
    pub dtype: DType,
    /// Its shape; empty for one value.
    pub shape: Vec<Formula>,
    /// Bytes of its buffer: its elements, and room up to a whole vector.
    pub bytes: Formula,
}

/// A uniform buffer; bytes that no field covers are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportUniform {
    /// Its size.
    pub bytes: u64,
    /// Its values.
    pub fields: Vec<ExportField>,
}

/// A value in a uniform buffer, four bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportField {
    /// Its name in the WGSL.
    pub name: String,
    /// Its byte offset in the buffer.
    pub offset: u64,
    /// Whether it is an f32; else it is a u32.
    pub is_float: bool,
    /// Its value.
    pub value: Formula,
}

impl ExportUniform {
    /// Its bytes for a shape.
    pub fn at(&self, rows: u64, cols: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes as usize];
        for field in &self.fields {
            let value = field.value.at(rows, cols);
            let word = if field.is_float { (value as f32).to_le_bytes() } else { (value as u32).to_le_bytes() };
            bytes[field.offset as usize..][..4].copy_from_slice(&word);
        }
        bytes
    }
}

/// One dispatch; its third dimension is 1.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExportDispatch {
    /// Index of its kernel.
    pub kernel: usize,
    /// Workgroups along x and y.
    pub grid: [Formula; 2],
    /// Its bindings in group 0: number, resource.
    pub bindings: Vec<(u32, ExportResource)>,
}

/// A resource of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportResource {
    /// The uniform of that index.
    Uniform(usize),
    /// The uniform with the parameters.
    Params,
    /// A storage buffer.
    Storage {
        /// The buffer.
        buffer: ExportBuffer,
        /// Whether the kernel declares it `read_write`.
        writes: bool,
    },
}

/// A storage buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportBuffer {
    /// The tensor of that index.
    Tensor(usize),
    /// The workspace.
    Work,
    /// The scalars.
    Scalars,
}
