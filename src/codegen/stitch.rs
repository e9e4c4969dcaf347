//! Hooks of `stitch.wgsl`: words that two rows of a 16-bit output share, assembled after the pass.

use super::access::Frame;
use super::{Binding, KernelSource, Slot, Variant};
use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::lower::Program;
use crate::schedule::PassSchedule;
use crate::text::put;
use std::collections::BTreeMap;

/// The kernel that stitches one output of a pass. It reads the pass's uniform.
pub fn stitch(
    program: &Program,
    pass: usize,
    schedule: &PassSchedule,
    variant: &Variant,
    output: usize,
    workgroup: u32,
) -> KernelSource {
    let frame = Frame::scheduled(program, pass, variant, schedule);
    let mut text = String::new();
    put!(
        text,
        "@group(0) @binding(0) var<uniform> shape: Shape;\n\
         @group(0) @binding(2) var<storage, read_write> work: array<u32>;\n\
         @group(0) @binding(3) var<storage, read_write> output: array<atomic<u32>>;\n\
         const WG: u32 = {workgroup}u;\nconst EDGE: u32 = {}u;\n\
         fn row_base(row: u32) -> u32 {{\n{}    return {};\n}}\n",
        frame.edge(output),
        frame.coordinates("row"),
        frame.base(Slot::Output(output))
    );
    let hooks = BTreeMap::from([("rows".to_owned(), text)]);
    let title = format!("{}: words that rows share, of output {output} of pass {pass}", program.title);
    let wgsl = fill_hooks(&title, Skeleton::Stitch, &[], LaneReduce::Tree, &hooks);
    let binding = |slot: Slot| Binding { slot, writes: true };
    KernelSource {
        wgsl: wgsl.expect("the stitch skeleton takes these hooks"),
        bindings: vec![binding(Slot::Workspace), binding(Slot::Output(output))],
    }
}
