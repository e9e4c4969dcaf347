//! Program, geometry and places of tensors to the dispatches of a bound plan. Pure: no device.

use super::uniform::{AxesUniform, MAX_TENSORS, ShapeUniform, SpanUniform};
use crate::codegen::{
    Along, Binding, KernelSource, Mode, ReduceKind, Slot, Variant, group_slots, pass_kernel, reduce, state_words,
    sums_to, tensors, total_outputs,
};
use crate::error::{Error, Result};
use crate::expr::Scope;
use crate::geometry::Geometry;
use crate::lower::Program;
use crate::schedule::{self, Force, Kernel, Limits, PassSchedule};
use crate::template::{Gather, Skeleton, fill_hooks};
use bytemuck::Zeroable;
use std::collections::BTreeMap;

/// Items above which a sum takes two steps.
const ONE_STEP: u64 = 1 << 14;
/// Segments of the first of two steps.
const SEGMENTS: u64 = 256;

/// Where a tensor lies: strides along the merged axes, and its first element in its binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub strides: [u64; 4],
    pub first: u64,
}

/// Everything that the dispatches depend on.
pub(super) struct Problem<'a> {
    pub program: &'a Program,
    pub geometry: &'a Geometry,
    pub inputs: Vec<Option<Place>>,
    /// Where each output is stored by its pass.
    pub outputs: Vec<Place>,
    /// Where a gradient that is summed over broadcast axes goes in the end.
    pub targets: Vec<Option<Place>>,
    pub modes: Vec<Mode>,
    pub pooled: bool,
    pub group_rows: u64,
    pub limits: &'a Limits,
    pub force: Force,
}

/// The second uniform of a dispatch.
pub(super) enum Second {
    Params,
    /// A span, with the parameters after the storage buffers.
    Span(SpanUniform),
}

/// What a dispatch is.
pub(super) enum Step {
    /// A pass, or one reduction of its sums.
    Kernel { source: KernelSource, grid: [u32; 2], shape: Box<ShapeUniform>, second: Second },
    /// The sum of an output's elements over the axes that its input broadcasts along.
    BroadcastSum { output: usize, source: KernelSource, grid: [u32; 2], axes: AxesUniform },
}

/// Dispatches in order, the words of `work` they use, and what was chosen.
pub(super) struct Resolved {
    pub steps: Vec<Step>,
    pub work_words: u64,
    pub schedules: Vec<PassSchedule>,
}

/// Strides of a gradient kept for a later sum: row-major over the merged axes.
pub(super) fn full_strides(program: &Program, geometry: &Geometry, scope: Scope) -> [u64; 4] {
    let [_, a1, a2, a3] = geometry.axes;
    match scope {
        Scope::Row if program.has_rows() => [a1 * a2, a2, 1, 0],
        _ => [a1 * a2 * a3, a2 * a3, a3, 1],
    }
}

/// Whether a gradient of that scope has fewer values than the pass makes.
pub(super) fn is_broadcast(program: &Program, geometry: &Geometry, scope: Scope, target: &Place) -> bool {
    let axes = if scope == Scope::Row && program.has_rows() { 0..3 } else { 0..4 };
    axes.into_iter().any(|axis| geometry.axes[axis] > 1 && target.strides[axis] == 0)
}

pub(super) fn resolve(problem: &Problem<'_>) -> Result<Resolved> {
    let Problem { program, geometry, limits, .. } = problem;
    schedule::check_sizes(geometry)?;
    let mut schedules = Vec::new();
    let mut variants = Vec::new();
    for pass in &program.passes {
        let places: Vec<Place> = tensors(program, pass).iter().map(|slot| problem.place(*slot)).collect();
        if places.len() > MAX_TENSORS {
            let (needed, allowed) = (places.len() as u64, MAX_TENSORS as u64);
            return Err(Error::Limit { what: "tensors of a pass".into(), needed, allowed, limit: "wgloss" });
        }
        let along: Vec<Along> = places.iter().map(|p| along(p.strides[3])).collect();
        let vectors = tensors(program, pass).iter().zip(&places).all(|(slot, p)| problem.allows_vectors(*slot, p));
        // A gradient that is summed afterwards is accumulated by that sum.
        let mode = |&o: &usize| if problem.targets[o].is_some() { Mode::Write } else { problem.modes[o] };
        let modes: Vec<Mode> = pass.outputs.iter().map(mode).collect();
        let gathered_in_place =
            modes.iter().any(|m| matches!(m, Mode::InPlace(place) if schedule::is_gathered(program, *place)));
        let rows_innermost = geometry.axes[2] > 1
            && tensors(program, pass)
                .iter()
                .zip(&places)
                .any(|(slot, place)| problem.has_columns(*slot) && place.strides[2] == 1 && place.strides[3] > 1);
        let shape =
            schedule::Shape { rows: geometry.rows, cols: geometry.cols, vectors, rows_innermost, gathered_in_place };
        schedules.push(schedule::schedule(program, pass, shape, limits, problem.force)?);
        let axes = geometry.axes.map(|size| size > 1);
        variants.push(Variant { along, axes, modes, pooled: problem.pooled });
    }
    let memory = problem.memory(&schedules)?;
    let mut steps = Vec::new();
    for (pass, (schedule, variant)) in schedules.iter().zip(&variants).enumerate() {
        let phases = match schedule.kernel {
            Kernel::RowSplit { .. } => program.passes[pass].stages.len() as u32,
            _ => 0,
        };
        for phase in 0..=phases {
            let source = pass_kernel(program, pass, schedule, variant, phase);
            let shape = problem.shape(pass, schedule, &memory);
            steps.push(Step::Kernel { source, grid: schedule.grid, shape, second: Second::Params });
        }
        problem.reductions(pass, schedule, &memory, &mut steps);
    }
    let mut work_words = memory.words;
    for (output, target) in problem.targets.iter().enumerate() {
        if let Some(target) = target {
            work_words = work_words.max(problem.broadcast_sum(output, target, &mut steps));
        }
    }
    Ok(Resolved { steps, work_words, schedules })
}

fn along(stride: u64) -> Along {
    match stride {
        0 => Along::Repeat,
        1 => Along::Unit,
        _ => Along::Strided,
    }
}

/// Regions of `work`, in words.
struct Memory {
    segments_base: u64,
    group_base: u64,
    groups: u64,
    state_base: u64,
    words: u64,
}

impl Problem<'_> {
    fn place(&self, slot: Slot) -> Place {
        match slot {
            Slot::Input(place) => self.inputs[place].expect("an input that the program reads is bound"),
            Slot::Output(output) => self.outputs[output],
            Slot::Work | Slot::Scalars => unreachable!("not a tensor"),
        }
    }

    /// Whether a tensor has a value for every column.
    fn has_columns(&self, slot: Slot) -> bool {
        let scope = match slot {
            Slot::Input(input) => self.program.inputs[input].scope,
            Slot::Output(output) => self.program.outputs[output].scope,
            Slot::Work | Slot::Scalars => return false,
        };
        matches!(scope, Scope::Element | Scope::Column)
    }

    /// Whether loads and stores of 16 bytes are aligned and inside a row.
    fn allows_vectors(&self, slot: Slot, place: &Place) -> bool {
        if !self.has_columns(slot) {
            return true;
        }
        let axes = self.geometry.axes;
        let outer_aligned = (0..3).all(|axis| axes[axis] == 1 || place.strides[axis].is_multiple_of(4));
        match along(place.strides[3]) {
            Along::Unit => axes[3].is_multiple_of(4) && outer_aligned && place.first.is_multiple_of(4),
            // One value for the whole vector: its row may begin anywhere.
            Along::Repeat => axes[3].is_multiple_of(4),
            Along::Strided => false,
        }
    }

    fn items(&self, schedule: &PassSchedule) -> u64 {
        match schedule.kernel {
            Kernel::Elementwise => u64::from(schedule.grid[0]),
            _ => self.geometry.rows,
        }
    }

    fn memory(&self, schedules: &[PassSchedule]) -> Result<Memory> {
        let (mut items, mut sums, mut states) = (0, 0, 0);
        for (pass, schedule) in self.program.passes.iter().zip(schedules) {
            let totals = pass.totals.len() as u64;
            items = items.max(totals * self.items(schedule));
            sums = sums.max(totals);
            if let Kernel::RowSplit { splits } = schedule.kernel {
                let words = u64::from(state_words(self.program, pass)) * u64::from(splits);
                states = states.max(pass.stages.len() as u64 * self.geometry.rows * words);
            }
        }
        let groups = self.geometry.rows.div_ceil(self.group_rows.max(1));
        let segments_base = items;
        let group_base = segments_base + sums * SEGMENTS;
        let state_base = group_base + group_slots(self.program).len() as u64 * groups;
        let words = state_base + states;
        let allowed = self.limits.binding_bytes.min(self.limits.buffer_bytes);
        if 4 * words > allowed {
            let limit = "max_storage_buffer_binding_size";
            return Err(Error::Limit { what: "workspace".into(), needed: 4 * words, allowed, limit });
        }
        Ok(Memory { segments_base, group_base, groups, state_base, words })
    }

    fn shape(&self, pass: usize, schedule: &PassSchedule, memory: &Memory) -> Box<ShapeUniform> {
        let mut shape = Box::new(ShapeUniform::zeroed());
        let geometry = self.geometry;
        shape.rows = geometry.rows as u32;
        shape.cols = geometry.cols as u32;
        shape.elements = geometry.elements() as u32;
        shape.batch = geometry.batch as u32;
        shape.group_rows = self.group_rows as u32;
        shape.group_base = memory.group_base as u32;
        shape.groups = memory.groups as u32;
        shape.splits = if let Kernel::RowSplit { splits } = schedule.kernel { splits } else { 1 };
        shape.state_base = memory.state_base as u32;
        shape.axes = geometry.axes.map(|size| size as u32);
        let mut set = |tensor: usize, place: Place| {
            shape.tensors[2 * tensor] = place.strides.map(|stride| stride as u32);
            shape.tensors[2 * tensor + 1][0] = place.first as u32;
        };
        // All tensors of the pass: one that shares another's binding still has its own strides.
        for (tensor, slot) in tensors(self.program, &self.program.passes[pass]).into_iter().enumerate() {
            set(tensor, self.place(slot));
        }
        shape
    }

    fn reductions(&self, pass: usize, schedule: &PassSchedule, memory: &Memory, steps: &mut Vec<Step>) {
        let program = self.program;
        let is_last = pass + 1 == program.passes.len();
        let outputs = if is_last { total_outputs(program) } else { Vec::new() };
        let totals = sums_to(program, pass, Scope::Total).len();
        let workgroup = |items: u64| (items.div_ceil(8).next_power_of_two() as u32).clamp(8, self.reduce_lanes());
        let items = self.items(schedule);
        let mut push = |kind: ReduceKind, span: SpanUniform, length: u64| {
            let source = reduce(program, pass, &kind, workgroup(length));
            let mut shape = self.shape(pass, schedule, memory);
            for (place, &output) in outputs.iter().enumerate().filter(|_| matches!(kind, ReduceKind::Finish(_))) {
                shape.tensors[2 * place + 1][0] = self.outputs[output].first as u32;
            }
            let grid = [span.segments.clamp(1, self.limits.workgroups), 1];
            steps.push(Step::Kernel { source, grid, shape, second: Second::Span(span) });
        };
        if !sums_to(program, pass, Scope::Group).is_empty() {
            let span = SpanUniform {
                count: items as u32,
                length: self.group_rows as u32,
                segments: memory.groups as u32,
                results_base: memory.group_base as u32,
                ..SpanUniform::default()
            };
            push(ReduceKind::Groups, span, self.group_rows);
        }
        if totals == 0 && outputs.is_empty() {
            return;
        }
        let (mut count, mut items_base) = (if totals == 0 { 0 } else { items }, 0);
        if count > ONE_STEP {
            let length = count.div_ceil(SEGMENTS);
            let segments = count.div_ceil(length);
            let span = SpanUniform {
                count: count as u32,
                length: length as u32,
                segments: segments as u32,
                results_base: memory.segments_base as u32,
                ..SpanUniform::default()
            };
            push(ReduceKind::Segments, span, length);
            (count, items_base) = (segments, memory.segments_base);
        }
        let modes = outputs.iter().map(|&o| self.modes[o]).collect();
        let span = SpanUniform {
            count: count as u32,
            length: count.max(1) as u32,
            segments: 1,
            items_base: items_base as u32,
            ..SpanUniform::default()
        };
        push(ReduceKind::Finish(modes), span, count);
    }

    fn reduce_lanes(&self) -> u32 {
        if self.limits.software { 32 } else { self.limits.workgroup_invocations.min(256) }
    }

    /// Sums an output over its broadcast axes, in two steps where there is much to add; gives the words of `work`.
    fn broadcast_sum(&self, output: usize, target: &Place, steps: &mut Vec<Step>) -> u64 {
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
            let hooks = BTreeMap::from([("constants".to_owned(), constants)]);
            let title = format!("{}: gradient summed over broadcast axes", self.program.name);
            let wgsl = fill_hooks(&title, Skeleton::BroadcastSum, 0, Gather::Tree, &hooks);
            let binding = |slot: Slot| Binding { slot, writes: true, tensor: None };
            let source = KernelSource {
                wgsl: wgsl.expect("the broadcast sum takes these hooks"),
                bindings: vec![binding(from), binding(to)],
            };
            let grid = [axes.values.min(self.limits.workgroups), axes.segments];
            steps.push(Step::BroadcastSum { output, source, grid, axes });
        };
        let accumulate = self.modes[output] == Mode::Accumulate;
        // Few values of many elements: more workgroups than values.
        let segments = (repeats / ONE_STEP).min(SEGMENTS).min((1 << 16) / values);
        if segments <= 1 {
            push(axes, [Slot::Output(output); 2], accumulate);
            return 0;
        }
        let (mut first, mut second) = (axes, axes);
        let mut stride = 1;
        for axis in (0..4).rev() {
            first.target_strides[axis] = stride;
            second.kept_strides[axis] = stride;
            stride *= axes.kept[axis];
        }
        (first.segments, first.segment_stride, first.target_first) = (segments as u32, values as u32, 0);
        push(first, [Slot::Output(output), Slot::Work], false);
        (second.summed, second.summed_strides) = ([1, 1, 1, segments as u32], [0, 0, 0, values as u32]);
        (second.repeats, second.elements_first) = (segments as u32, 0);
        push(second, [Slot::Work, Slot::Output(output)], accumulate);
        values * segments
    }
}
