//! Finishes gradients that their pass kept in f32: summed over broadcast axes, narrowed to 16 bits. Pure.

use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::codegen::{Binding, KernelSource, Mode, Slot, note, note_declarations, see, seen_name};
use crate::dispatch::{Kept, Note};
use crate::error::{Error, Result};
use crate::plan::dispatches::Builder;
use crate::plan::problem::{ONE_STEP, Placement, SEGMENTS, is_broadcast};
use crate::plan::sizes::Known;
use crate::plan::uniform::{BROADCAST_SUM, NARROW};
use crate::shape::{DType, Scope};
use crate::text::putln;
use std::collections::BTreeMap;

/// Sizes and strides of a sum over the axes that an input broadcasts along; `Axes` of `broadcast_sum.wgsl`.
#[derive(Clone, Copy)]
struct BroadcastSum {
    kept: [u64; 4],
    summed: [u64; 4],
    kept_strides: [u64; 4],
    summed_strides: [u64; 4],
    target_strides: [u64; 4],
    values: u64,
    repeats: u64,
    elements_first: u64,
    target_first: u64,
    segments: u64,
    segment_stride: u64,
}

impl<N: Known> Builder<'_, '_, N> {
    /// Writes all kept gradients to their destinations. Returns the words of the workspace and the kept buffers.
    pub(crate) fn finish_gradients(&mut self) -> Result<(N, Vec<Kept>)> {
        let problem = self.problem;
        let mut words = self.workspace.words.clone();
        // Scratch lies behind the states, which a later backward phase reads again.
        let base = if problem.phasing.forward.is_some() { words.number() } else { 0 };
        let mut kept = Vec::new();
        for (output, destination) in problem.destinations.iter().enumerate() {
            let Some(destination) = destination else { continue };
            let geometry = &problem.geometry;
            let values = Placement::kept_values(geometry, problem.program.outputs[output].scope);
            // The finishing kernel binds the whole destination.
            let axes = geometry.axes_of(problem.program.outputs[output].scope);
            let last = (0..4).map(|axis| axes[axis].saturating_sub(1).saturating_mul(destination.strides[axis]));
            let elements = last.fold(1 + destination.first, u64::saturating_add);
            let stored = elements.saturating_mul(destination.dtype.size()).saturating_add(16);
            let (needed, allowed) = (values.saturating_mul(4).max(stored), problem.limits.binding_bytes);
            if needed > allowed {
                let what = "a gradient that is kept in f32 (broadcast, or 16 bits in an unusual layout)".to_owned();
                let limit = "max_storage_buffer_binding_size";
                return Err(Error::Limit { what, needed, allowed, limit });
            }
            kept.push(Kept { output, bytes: (4 * values).next_multiple_of(16) });
            words = words.at_least(N::of(base + self.finish(output, destination, base)));
        }
        problem.check_workspace(words.number())?;
        Ok((words, kept))
    }

    /// Writes a kept gradient to its destination. Returns the words of scratch, from word `base` of the workspace on.
    fn finish(&mut self, output: usize, destination: &Placement, base: u64) -> u64 {
        let problem = self.problem;
        let scope = problem.program.outputs[output].scope;
        let kept = problem.outputs[output];
        let geometry = &problem.geometry;
        let summed = geometry.is_empty() || is_broadcast(problem.program, geometry, scope, destination);
        if !destination.dtype.is_packed() {
            return self.broadcast_sum(output, destination, Slot::Output(output), base);
        }
        if !summed {
            self.narrow(output, Slot::Kept(output), &kept, destination);
            return 0;
        }
        // Summed into the workspace first, row-major from word `base` on.
        let mut values = 1;
        let mut summed = *destination;
        for axis in (0..4).rev().filter(|&axis| destination.strides[axis] != 0) {
            summed.strides[axis] = values;
            values *= problem.geometry.axes_of(scope)[axis];
        }
        summed.first = base;
        self.broadcast_sum(output, &summed, Slot::Workspace, base);
        self.narrow(output, Slot::Workspace, &summed, destination);
        values
    }

    /// f32 values to 16-bit elements.
    fn narrow(&mut self, output: usize, from: Slot, source: &Placement, destination: &Placement) {
        let problem = self.problem;
        let axes = problem.geometry.axes_of(problem.program.outputs[output].scope);
        let (mut sizes, mut strides, mut target_strides) = ([1; 4], [0; 4], [0; 4]);
        for axis in (0..4).filter(|&axis| destination.strides[axis] != 0) {
            sizes[axis] = axes[axis];
            strides[axis] = source.strides[axis];
            target_strides[axis] = destination.strides[axis];
        }
        let values: u64 = sizes.iter().product();
        let workgroup = problem.reduce_lanes();
        let accumulate = problem.modes[output] == Mode::Accumulate;
        let dtype = destination.dtype;
        let (narrowed, seen) = match problem.program.notes(output) {
            true => {
                let see = see(output, "half", dtype, 1, false);
                let narrowed = format!("let half = narrow_{dtype}(bits); {see} return half;");
                (narrowed, format!("    {}\n", note(&seen_name(output), dtype, 1)))
            }
            false => (format!("return narrow_{dtype}(bits);"), String::new()),
        };
        let mut constants = format!(
            "const WG: u32 = {workgroup}u;\nconst ACCUMULATE: bool = {accumulate};\n\
             fn widen(word: u32, index: u32) -> u32 {{ return widen_{dtype}(word, index); }}\n\
             fn narrow(bits: u32) -> u32 {{ {narrowed} }}\n"
        );
        let title = format!("{}: gradient narrowed to {dtype}", problem.program.title);
        if !seen.is_empty() {
            putln!(constants, "var<private> {}: u32;", seen_name(output));
        }
        let hooks = BTreeMap::from([("constants".to_owned(), constants), ("seen".to_owned(), seen)]);
        let source_of = self.after(&title, Skeleton::Narrow, hooks, [from, Slot::Output(output)]);
        let uniform = NARROW
            .fill()
            .vector("sizes", sizes.map(N::of))
            .vector("strides", strides.map(N::of))
            .vector("target_strides", target_strides.map(N::of))
            .count("values", N::of(values))
            .count("elements_first", N::of(source.first))
            .count("target_first", N::of(destination.first));
        let grid = [N::of(u64::from(problem.groups_of(values, workgroup))), N::of(1)];
        self.push(source_of, grid, vec![(0, uniform.done())], Note::Finish(output), &[]);
    }

    /// Sums an output over its broadcast axes, in two dispatches where many elements make few values. Returns the words
    /// of scratch.
    fn broadcast_sum(&mut self, output: usize, destination: &Placement, to: Slot, base: u64) -> u64 {
        let problem = self.problem;
        let all = self.axes_of_sum(output, destination);
        let accumulate = problem.modes[output] == Mode::Accumulate && to != Slot::Workspace;
        // Workgroups per value: several where few values have many elements each.
        let segments = match to {
            // A second dispatch would bind the workspace as source and as result.
            Slot::Workspace => 1,
            _ => (all.repeats / ONE_STEP).min(SEGMENTS).min((1 << 16) / all.values),
        };
        if segments <= 1 {
            self.push_sum(output, all, [Slot::Kept(output), to], accumulate);
            return 0;
        }
        let (mut first, mut second) = (all, all);
        let mut stride = 1;
        for axis in (0..4).rev() {
            first.target_strides[axis] = stride;
            second.kept_strides[axis] = stride;
            stride *= all.kept[axis];
        }
        (first.segments, first.segment_stride, first.target_first) = (segments, all.values, base);
        self.push_sum(output, first, [Slot::Kept(output), Slot::Workspace], false);
        (second.summed, second.summed_strides) = ([1, 1, 1, segments], [0, 0, 0, all.values]);
        (second.repeats, second.elements_first) = (segments, base);
        self.push_sum(output, second, [Slot::Workspace, Slot::Output(output)], accumulate);
        all.values * segments
    }

    fn axes_of_sum(&self, output: usize, destination: &Placement) -> BroadcastSum {
        let problem = self.problem;
        let scope = problem.program.outputs[output].scope;
        let full = problem.outputs[output];
        let mut all = BroadcastSum {
            kept: [1; 4],
            summed: [1; 4],
            kept_strides: [0; 4],
            summed_strides: [0; 4],
            target_strides: [0; 4],
            values: 1,
            repeats: 1,
            elements_first: full.first,
            target_first: destination.first,
            segments: 1,
            segment_stride: 0,
        };
        for axis in 0..4 {
            // A row value has no columns to sum over.
            let is_row = axis == 3 && scope == Scope::Row && problem.program.has_rows();
            let size = if is_row { 1 } else { problem.geometry.axes_of(scope)[axis] };
            if destination.strides[axis] != 0 {
                (all.kept[axis], all.kept_strides[axis]) = (size, full.strides[axis]);
                all.target_strides[axis] = destination.strides[axis];
                all.values *= size;
            } else {
                (all.summed[axis], all.summed_strides[axis]) = (size, full.strides[axis]);
                all.repeats *= size;
            }
        }
        // Of no rows a gradient is 0, that of a column too.
        all.repeats = if problem.geometry.is_empty() { 0 } else { all.repeats };
        all
    }

    fn push_sum(&mut self, output: usize, sum: BroadcastSum, slots: [Slot; 2], accumulate: bool) {
        let problem = self.problem;
        let summed = sum.repeats.div_ceil(sum.segments);
        let workgroup = problem.reduce_workgroup(summed, 1);
        let constants = format!("const WG: u32 = {workgroup}u;\nconst ACCUMULATE: bool = {accumulate};\n");
        let title = format!("{}: gradient summed over broadcast axes", problem.program.title);
        let stored = "store_bits(sum, all.bits > INF_BITS)";
        let store = match self.notes(slots) {
            true => {
                let note = note("(stored & MAGNITUDE)", DType::F32, 1);
                format!("            let stored = {stored};\n            output[place] = stored;\n            {note}\n")
            }
            false => format!("            output[place] = {stored};\n"),
        };
        let hooks = BTreeMap::from([("constants".to_owned(), constants), ("store".to_owned(), store)]);
        let source = self.after(&title, Skeleton::BroadcastSum, hooks, slots);
        let uniform = BROADCAST_SUM
            .fill()
            .vector("kept", sum.kept.map(N::of))
            .vector("summed", sum.summed.map(N::of))
            .vector("kept_strides", sum.kept_strides.map(N::of))
            .vector("summed_strides", sum.summed_strides.map(N::of))
            .vector("target_strides", sum.target_strides.map(N::of))
            .count("values", N::of(sum.values))
            .count("repeats", N::of(sum.repeats))
            .count("elements_first", N::of(sum.elements_first))
            .count("target_first", N::of(sum.target_first))
            .count("segments", N::of(sum.segments))
            .count("segment_stride", N::of(sum.segment_stride));
        let groups = sum.values.min(u64::from(problem.limits.workgroups));
        let grid = [N::of(groups), N::of(sum.segments)];
        self.push(source, grid, vec![(0, uniform.done())], Note::Finish(output), &[]);
    }

    /// Whether a dispatch between these buffers stores a gradient that is looked at.
    fn notes(&self, [_, to]: [Slot; 2]) -> bool {
        matches!(to, Slot::Output(output) if self.problem.program.notes(output))
    }

    /// A kernel that reads one buffer and writes another, after the passes.
    fn after(
        &self,
        title: &str,
        skeleton: Skeleton,
        mut hooks: BTreeMap<String, String>,
        [from, to]: [Slot; 2],
    ) -> KernelSource {
        let mut slots = vec![from, to];
        if self.notes([from, to]) {
            let constants = hooks.entry("constants".to_owned()).or_default();
            constants.push_str(&note_declarations(self.problem.program));
            putln!(constants, "@group(0) @binding(4) var<storage, read_write> scalars: FoundScalars;");
            slots.push(Slot::Scalars);
        }
        let wgsl = fill_hooks(title, skeleton, &[], LaneReduce::Tree, &hooks);
        let bindings = slots.into_iter().map(|slot| Binding { slot, writes: true });
        KernelSource {
            wgsl: wgsl.expect("the kernels after the passes take these hooks"),
            bindings: bindings.collect(),
        }
    }
}
