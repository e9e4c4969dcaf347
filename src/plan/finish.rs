//! What becomes of gradients that their pass kept in f32: summed over broadcast axes, narrowed to 16 bits. Pure.

use crate::codegen::template::{Gather, Skeleton, fill_hooks};
use crate::codegen::{Binding, KernelSource, Mode, Slot};
use crate::plan::problem::{ONE_STEP, Place, Problem, SEGMENTS, Step, is_broadcast};
use crate::plan::uniform::{AxesUniform, NarrowUniform};
use crate::shape::Scope;
use bytemuck::Zeroable;
use std::collections::BTreeMap;

impl Problem<'_> {
    /// Brings a kept gradient to its place, by words of `work` from `base` on; gives how many it takes.
    pub(crate) fn settle(&self, output: usize, target: &Place, base: u64, steps: &mut Vec<Step>) -> u64 {
        let scope = self.program.outputs[output].scope;
        let kept = self.outputs[output];
        let broadcast = is_broadcast(self.program, self.geometry, scope, target);
        if !target.dtype.is_packed() {
            return self.broadcast_sum(output, target, Slot::Output(output), base, steps);
        }
        if !broadcast {
            self.narrow(output, Slot::Output(output), &kept, target, steps);
            return 0;
        }
        // Summed to `work` first, values in order from the start; partial sums come after them.
        let mut values = 1;
        let mut summed = *target;
        for axis in (0..4).rev().filter(|&axis| target.strides[axis] != 0) {
            summed.strides[axis] = values;
            values *= self.geometry.axes[axis];
        }
        summed.first = base;
        let words = self.broadcast_sum(output, &summed, Slot::Work, base, steps);
        self.narrow(output, Slot::Work, &summed, target, steps);
        words.max(values)
    }

    /// f32 values to 16-bit elements.
    fn narrow(&self, output: usize, from: Slot, source: &Place, target: &Place, steps: &mut Vec<Step>) {
        let mut axes = NarrowUniform::zeroed();
        axes.sizes = [1; 4];
        let mut values = 1;
        for axis in (0..4).filter(|&axis| target.strides[axis] != 0) {
            axes.sizes[axis] = self.geometry.axes[axis] as u32;
            axes.strides[axis] = source.strides[axis] as u32;
            axes.target_strides[axis] = target.strides[axis] as u32;
            values *= self.geometry.axes[axis];
        }
        (axes.values, axes.elements_first, axes.target_first) =
            (values as u32, source.first as u32, target.first as u32);
        let workgroup = self.reduce_lanes();
        let accumulate = self.modes[output] == Mode::Accumulate;
        let dtype = target.dtype;
        let constants = format!(
            "const WG: u32 = {workgroup}u;\nconst ACCUMULATE: bool = {accumulate};\n\
             fn widen(word: u32, index: u32) -> u32 {{ return widen_{dtype}(word, index); }}\n\
             fn narrow(bits: u32) -> u32 {{ return narrow_{dtype}(bits); }}\n"
        );
        let title = format!("{}: gradient narrowed to {dtype}", self.program.title);
        let source = after(&title, Skeleton::Narrow, constants, [from, Slot::Output(output)]);
        let grid = [self.groups_of(values, workgroup), 1];
        steps.push(Step::Settle { output, source, grid, uniform: bytemuck::bytes_of(&axes).to_vec() });
    }

    /// Sums an output over its broadcast axes, in two steps where there is much to add; gives the words of `work`.
    fn broadcast_sum(&self, output: usize, target: &Place, to: Slot, base: u64, steps: &mut Vec<Step>) -> u64 {
        let geometry = self.geometry;
        let scope = self.program.outputs[output].scope;
        let full = self.outputs[output];
        let mut axes = AxesUniform::zeroed();
        (axes.kept, axes.summed) = ([1; 4], [1; 4]);
        let (mut values, mut repeats) = (1, 1);
        for axis in 0..4 {
            // A row value has no columns to sum over.
            let size =
                if axis == 3 && scope == Scope::Row && self.program.has_rows() { 1 } else { geometry.axes[axis] };
            let stride = full.strides[axis] as u32;
            if target.strides[axis] != 0 {
                (axes.kept[axis], axes.kept_strides[axis]) = (size as u32, stride);
                axes.target_strides[axis] = target.strides[axis] as u32;
                values *= size;
            } else {
                (axes.summed[axis], axes.summed_strides[axis]) = (size as u32, stride);
                repeats *= size;
            }
        }
        (axes.values, axes.repeats, axes.segments) = (values as u32, repeats as u32, 1);
        (axes.elements_first, axes.target_first) = (full.first as u32, target.first as u32);
        let mut push = |axes: AxesUniform, [from, to]: [Slot; 2], accumulate: bool| {
            let summed = u64::from(axes.repeats.div_ceil(axes.segments));
            let workgroup = (summed.div_ceil(8).next_power_of_two() as u32).clamp(8, self.reduce_lanes());
            let constants = format!("const WG: u32 = {workgroup}u;\nconst ACCUMULATE: bool = {accumulate};\n");
            let title = format!("{}: gradient summed over broadcast axes", self.program.title);
            let source = after(&title, Skeleton::BroadcastSum, constants, [from, to]);
            let grid = [axes.values.min(self.limits.workgroups), axes.segments];
            steps.push(Step::Settle { output, source, grid, uniform: bytemuck::bytes_of(&axes).to_vec() });
        };
        let accumulate = self.modes[output] == Mode::Accumulate && to != Slot::Work;
        // Few values of many elements: more workgroups than values.
        let segments = match to {
            // `work` cannot be bound twice in one dispatch: one step.
            Slot::Work => 1,
            _ => (repeats / ONE_STEP).min(SEGMENTS).min((1 << 16) / values),
        };
        if segments <= 1 {
            push(axes, [Slot::Output(output), to], accumulate);
            return 0;
        }
        let (mut first, mut second) = (axes, axes);
        let mut stride = 1;
        for axis in (0..4).rev() {
            first.target_strides[axis] = stride;
            second.kept_strides[axis] = stride;
            stride *= axes.kept[axis];
        }
        (first.segments, first.segment_stride, first.target_first) = (segments as u32, values as u32, base as u32);
        push(first, [Slot::Output(output), Slot::Work], false);
        (second.summed, second.summed_strides) = ([1, 1, 1, segments as u32], [0, 0, 0, values as u32]);
        (second.repeats, second.elements_first) = (segments as u32, base as u32);
        push(second, [Slot::Work, Slot::Output(output)], accumulate);
        values * segments
    }
}

/// A kernel that reads one buffer and writes another, after the passes.
fn after(title: &str, skeleton: Skeleton, constants: String, [from, to]: [Slot; 2]) -> KernelSource {
    let hooks = BTreeMap::from([("constants".to_owned(), constants)]);
    let wgsl = fill_hooks(title, skeleton, 0, Gather::Tree, &hooks);
    let binding = |slot: Slot| Binding { slot, writes: true, tensor: None };
    KernelSource {
        wgsl: wgsl.expect("the kernels after the passes take constants"),
        bindings: vec![binding(from), binding(to)],
    }
}
