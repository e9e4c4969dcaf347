//! Whether a stored gradient is not finite: a word of the scalars, and the checks of stored bits that set it. Kernels that
//! store no gradient of a plan that asks for it know nothing of this.

use super::template::{LaneReduce, Skeleton, fill_hooks};
use super::{Binding, KernelSource, Slot, scalar_slots};
use crate::lower::Program;
use crate::shape::DType;
use std::collections::BTreeMap;

const NOTE: &str = include_str!("../../shaders/note.wgsl");

/// Number of scalar inputs and totals in the buffer of scalars, between its status word and the found word.
pub fn scalar_values(program: &Program) -> usize {
    scalar_slots(program).len().max(1)
}

/// The scalars with the found word behind their values.
fn scalars(program: &Program) -> String {
    let values = scalar_values(program);
    format!(
        "struct FoundScalars {{\n    bad_row: atomic<u32>,\n    values: array<u32, {values}>,\n    found: atomic<u32>,\n}}\n"
    )
}

/// The variable of a lane that holds the largest magnitude of the bits that it stored of an output.
pub fn seen_name(output: usize) -> String {
    format!("seen{output}")
}

/// Magnitude bits of a type, and the bits of ∞.
fn magnitude_and_infinity(dtype: DType) -> [&'static str; 2] {
    match dtype {
        DType::F16 => ["0x7fffu", "0x7c00u"],
        DType::BF16 => ["0x7fffu", "0x7f80u"],
        _ => ["MAGNITUDE", "INF_BITS"],
    }
}

/// A statement that updates that variable by stored bits (of 16-bit types: halves, one per word), at width 4 by the valid
/// ones if some may not be.
pub fn see(output: usize, bits: &str, dtype: DType, width: u32, masked: bool) -> String {
    let seen = seen_name(output);
    let [magnitude, _] = magnitude_and_infinity(dtype);
    match (width, masked) {
        (1, _) => format!("{seen} = max({seen}, {bits} & {magnitude});"),
        (_, false) => format!("{seen} = max({seen}, {bits} & U4({magnitude}));"),
        (_, true) => format!("{seen} = max({seen}, select(U4(0u), {bits} & U4({magnitude}), valid));"),
    }
}

/// Type of the scalars in a kernel that notes what it stores, or does not.
pub(super) fn scalars_type(notes: bool) -> &'static str {
    if notes { "FoundScalars" } else { "Scalars" }
}

/// `FoundScalars` and the function `note`, for a kernel that notes what it stores.
pub fn note_declarations(program: &Program) -> String {
    scalars(program) + NOTE
}

/// A statement that notes whether magnitudes (any of four, at width 4) are of NaN or ∞.
pub fn note(magnitudes: &str, dtype: DType, width: u32) -> String {
    let [_, infinity] = magnitude_and_infinity(dtype);
    match width {
        1 => format!("note({magnitudes} >= {infinity});"),
        _ => format!("note(any({magnitudes} >= U4({infinity})));"),
    }
}

/// The kernel that writes whether a gradient of the step was not finite, and clears the word for the next step.
pub fn found(program: &Program) -> KernelSource {
    let hooks = BTreeMap::from([("scalars".to_owned(), scalars(program))]);
    let title = format!("{}: whether a stored gradient is not finite", program.title);
    let wgsl = fill_hooks(&title, Skeleton::Found, &[], LaneReduce::Tree, &hooks);
    let binding = |slot: Slot| Binding { slot, writes: true };
    let bindings = vec![binding(Slot::Scalars), binding(Slot::FoundInf)];
    KernelSource { wgsl: wgsl.expect("the skeleton takes the scalars"), bindings }
}
