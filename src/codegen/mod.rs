//! Program and schedule to WGSL hooks, and through [`crate::template`] to shader source.
//!
//! Hooks see valid elements only: masks, strides and tiles belong to the skeletons. Values outside the loop are fields
//! `nID` of one struct (`o` per dispatch, `r` per row), values of the loop are `let eID`. IDs are the program's nodes,
//! so that generated code reads like the program.

mod access;
mod by_run;
mod columns;
mod elementwise;
mod emit;
mod fold;
mod found;
mod groups;
mod poison;
mod reduce;
mod row;
mod state;
mod states;
mod stitch;
mod store;
pub mod template;
mod threshold;

use crate::expr::op::Kind;
use crate::expr::{Node, NodeId};
use crate::lower::{Pass, Program};
use crate::schedule::{Kernel, PassSchedule, tensor_inputs};
use crate::shape::DType;
use crate::shape::Scope;
pub use columns::column_finish;
pub use found::{found, note, note_declarations, scalar_values, see, seen_name};
pub use groups::{BLOCK, GROUP_WORDS, group_values, ragged_sums, row_groups};
pub use reduce::{ReduceKind, reduce, sum_counts, total_outputs};
pub use state::stage_words;
pub use states::states;
pub use stitch::stitch;
pub use store::edge_outputs;

/// How a tensor's address depends on the column (on the innermost index, without rows).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Along {
    /// Adjacent elements: vectors can be loaded.
    Unit,
    /// The same element for every column.
    Repeat,
    /// Some other stride.
    Strided,
}

/// How a pass reaches a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// How its address depends on the column.
    pub along: Along,
    /// Its element type.
    pub dtype: DType,
    /// Whether windows of four columns are loaded and stored as vectors of four.
    pub vector: bool,
    /// What two windows are together, in kernels in which a lane takes two per step.
    pub pair: Pair,
}

/// How the two windows of a step are loaded and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Pair {
    /// Each by itself.
    #[default]
    Apart,
    /// Loaded as one vector of 64-bit integers, stored each by itself.
    Words64,
    /// 16-bit elements: loaded and stored as one vector of four words.
    Halves,
}

/// How an output is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Written over what was there.
    #[default]
    Write,
    /// Added to what was there.
    Accumulate,
    /// Written over the input of this index.
    InPlace(usize),
}

/// A storage buffer of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// An input tensor.
    Input(usize),
    /// An output tensor.
    Output(usize),
    /// The f32 values of a gradient that is finished after its pass.
    Kept(usize),
    /// Row values, partial sums and states.
    Workspace,
    /// The status word, then scalar inputs and totals.
    Scalars,
    /// States of a stage that leave this device, by the index of their exchange.
    States(usize),
    /// States of all shards that came to this device, by the index of their exchange.
    AllStates(usize),
    /// The output that says whether a stored gradient is not finite.
    FoundInf,
}

/// One binding: uniforms are 0 (shape) and 1 (parameters, or the span of a reduction); these follow from 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// The buffer.
    pub slot: Slot,
    /// Whether the kernel declares it read_write.
    pub writes: bool,
}

/// A shader and what it binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSource {
    /// WGSL source with one entry point, `main`.
    pub wgsl: String,
    /// Storage bindings, numbered from 2.
    pub bindings: Vec<Binding>,
}

/// The properties of a problem that a pass kernel is specialised on, besides program and schedule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// Access per tensor of the pass: inputs, then outputs.
    pub access: Vec<Access>,
    /// Index in `access` of the tensor whose rows define vector alignment; `None` if every row is aligned.
    pub aligned_to: Option<usize>,
    /// Whether windows at the ends of a row may reach past them.
    pub masked: bool,
    /// Whether each axis is longer than 1, outermost first: three axes of rows, or four of elements.
    pub axes: [bool; 4],
    /// Mode per output of the pass, in order.
    pub modes: Vec<Mode>,
    /// Whether a dispatch reads a range of the columns: column indices start at `shape.first_col`.
    pub column_range: bool,
    /// Whether a row has as many columns as the kernel is made for: then all loads of a lane but the last lie within it.
    pub exact: bool,
    /// Whether inputs and outputs share buffers, so that all must be declared read_write.
    pub pooled: bool,
    /// Words per row of `work` between the row values that an earlier pass has saved and the states of this pass, which lie
    /// behind them.
    pub saved_before: u64,
}

/// Tensors of a pass: inputs that it reads, then its outputs.
pub fn tensors(program: &Program, pass: &Pass) -> Vec<Slot> {
    let inputs = tensor_inputs(program, pass).into_iter().map(Slot::Input);
    inputs.chain(pass.outputs.iter().map(|&output| Slot::Output(output))).collect()
}

/// Slots of the scalars buffer: scalar inputs and sums over everything, by node.
pub fn scalar_slots(program: &Program) -> Vec<NodeId> {
    let is_scalar = |index: &usize| match program.nodes[*index] {
        Node::Input(_) => program.scopes[*index] == Scope::Scalar,
        Node::FoldOver(_, to, _) => to == Scope::Total,
        _ => false,
    };
    (0..program.nodes.len()).filter(is_scalar).map(|index| NodeId(index as u32)).collect()
}

/// Sums over groups, in the order of their regions in `work`.
pub fn group_slots(program: &Program) -> Vec<NodeId> {
    let is_group = |index: &usize| matches!(program.nodes[*index], Node::FoldOver(_, Scope::Group, _));
    (0..program.nodes.len()).filter(is_group).map(|index| NodeId(index as u32)).collect()
}

/// Sums over the rows for each column, in the order of their regions in `work`.
pub fn column_slots(program: &Program) -> Vec<NodeId> {
    let is_by_column = |index: &usize| matches!(program.nodes[*index], Node::FoldOver(_, Scope::Column, _));
    (0..program.nodes.len()).filter(is_by_column).map(|index| NodeId(index as u32)).collect()
}

/// Sums over the rows of each group for each column, in the order of their regions in `work`.
pub fn group_column_slots(program: &Program) -> Vec<NodeId> {
    let is_it = |index: &usize| matches!(program.nodes[*index], Node::FoldOver(_, Scope::GroupColumn, _));
    (0..program.nodes.len()).filter(is_it).map(|index| NodeId(index as u32)).collect()
}

/// Words of the largest state among a pass's stages.
pub fn state_words(program: &Program, pass: &Pass) -> u32 {
    (0..pass.stages.len()).map(|stage| stage_words(program, pass, stage)).max().unwrap_or(1)
}

/// The kernel of a pass. For split rows, `phase` is the index of the dispatch: one per stage, then the outputs.
pub fn pass_kernel(
    program: &Program,
    pass: usize,
    schedule: &PassSchedule,
    variant: &Variant,
    phase: u32,
) -> KernelSource {
    match schedule.kernel {
        Kernel::Elementwise => elementwise::kernel(program, pass, schedule, variant),
        Kernel::ColumnSums { .. } => columns::kernel(program, pass, schedule, variant),
        _ => row::kernel(program, pass, schedule, variant, phase),
    }
}

/// The first line of a kernel: the loss, the kernel, the shape class.
fn title(program: &Program, pass: usize, schedule: &PassSchedule) -> String {
    let PassSchedule { kernel, workgroup, width, .. } = schedule;
    format!("{}: pass {pass}, {kernel:?}, {workgroup} invocations, width {width}", program.title)
}

/// Text of a struct with these fields.
fn structure(name: &str, fields: &[(String, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, ty)| format!("    {name}: {ty},\n")).collect();
    format!("struct {name} {{\n{}}}\n", fields.concat())
}

fn scalar_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "f32",
        Kind::Int => "u32",
        Kind::Bool => "bool",
    }
}
