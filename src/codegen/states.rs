//! Hooks of `row_states.wgsl`: states of a stage combined.

use super::state::state_text;
use super::{Binding, KernelSource, Slot};
use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::lower::Program;
use std::collections::BTreeMap;

/// The kernel that combines states of one stage of a pass, from one buffer to another.
pub fn states(program: &Program, pass: usize, stage: usize, [from, to]: [Slot; 2], workgroup: u32) -> KernelSource {
    let mut text = format!("const WG: u32 = {workgroup}u;\n");
    text.push_str(&state_text(program, &program.passes[pass], stage));
    let hooks = BTreeMap::from([("state".to_owned(), text)]);
    let title = format!("{}: states of stage {stage} of pass {pass}", program.title);
    let wgsl = fill_hooks(&title, Skeleton::RowStates, &[], LaneReduce::Tree, &hooks);
    let binding = |slot: Slot| Binding { slot, writes: true };
    KernelSource { wgsl: wgsl.expect("the skeleton takes a state"), bindings: vec![binding(from), binding(to)] }
}
