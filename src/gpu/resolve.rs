//! Program, geometry and places of tensors to the dispatches of a bound plan. Pure: no device.

use super::chunk::{Chunk, Cut};
use super::uniform::{AxesUniform, MAX_TENSORS, NarrowUniform, ShapeUniform, SpanUniform};
use crate::codegen::{
    Access, Along, Binding, KernelSource, Mode, ReduceKind, Slot, Variant, edge_outputs, group_slots, pass_kernel,
    reduce, state_words, stitch, sums_to, tensors, total_outputs,
};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::expr::Scope;
use crate::geometry::Geometry;
use crate::lower::Program;
use crate::schedule::{self, Force, Kernel, Limits, PassSchedule};
use crate::template::{Gather, Skeleton, fill_hooks};
use bytemuck::Zeroable;
use std::collections::BTreeMap;
use std::ops::Range;

/// Items above which a sum takes two steps.
const ONE_STEP: u64 = 1 << 14;
/// Segments of the first of two steps.
const SEGMENTS: u64 = 256;

/// Columns from which masked windows beat single elements.
const MASKED_COLS: u64 = 64;

/// Where a tensor lies: strides along the merged axes, its first element in its binding, its type, and whether the
/// last vector of four elements is whole in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub strides: [u64; 4],
    /// First element in its buffer.
    pub offset: u64,
    /// First element in a binding of all of it.
    pub first: u64,
    pub dtype: DType,
    pub whole_vectors: bool,
}

impl Place {
    /// A gradient kept in a buffer of its own until its pass is done: f32, row-major over the merged axes.
    fn kept(program: &Program, geometry: &Geometry, scope: Scope) -> Place {
        let [_, a1, a2, a3] = geometry.axes;
        let strides = match scope {
            Scope::Row if program.has_rows() => [a1 * a2, a2, 1, 0],
            _ => [a1 * a2 * a3, a2 * a3, a3, 1],
        };
        Place { strides, offset: 0, first: 0, dtype: DType::F32, whole_vectors: true }
    }
}

/// Everything that the dispatches depend on.
pub(super) struct Problem<'a> {
    pub program: &'a Program,
    pub geometry: &'a Geometry,
    pub inputs: Vec<Option<Place>>,
    /// Where each output is stored by its pass.
    pub outputs: Vec<Place>,
    /// Where a gradient goes in the end that its pass keeps in a buffer of its own: one that is summed over broadcast
    /// axes, or 16-bit elements that the pass cannot store two at a time.
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
    /// A pass over one chunk of its tensors, whose bytes are named, or one reduction of its sums.
    Kernel {
        source: KernelSource,
        grid: [u32; 2],
        shape: Box<ShapeUniform>,
        second: Second,
        bytes: Vec<(Slot, Range<u64>)>,
    },
    /// What becomes of a gradient that its pass kept: summed over the axes that its input broadcasts along, narrowed.
    Settle { output: usize, source: KernelSource, grid: [u32; 2], uniform: Vec<u8> },
}

/// Dispatches in order, the words of `work` they use, and what was chosen.
pub(super) struct Resolved {
    pub steps: Vec<Step>,
    pub work_words: u64,
    pub schedules: Vec<PassSchedule>,
    /// What must move: inputs once, outputs once.
    pub bytes: u64,
}

/// Whether a gradient of that scope has fewer values than the pass makes.
fn is_broadcast(program: &Program, geometry: &Geometry, scope: Scope, target: &Place) -> bool {
    let axes = if scope == Scope::Row && program.has_rows() { 0..3 } else { 0..4 };
    axes.into_iter().any(|axis| geometry.axes[axis] > 1 && target.strides[axis] == 0)
}

/// Keeps gradients apart that are summed afterwards, then those of 16 bits that their pass cannot store.
pub(super) fn resolve(problem: &mut Problem<'_>) -> Result<Resolved> {
    schedule::check_sizes(problem.geometry, problem.program.has_rows())?;
    for output in 0..problem.outputs.len() {
        let scope = problem.program.outputs[output].scope;
        if !matches!(scope, Scope::Element | Scope::Row) {
            continue;
        }
        let place = problem.outputs[output];
        let broadcast = is_broadcast(problem.program, problem.geometry, scope, &place);
        if let (true, Mode::InPlace(input)) = (broadcast, problem.modes[output]) {
            let name = &problem.program.inputs[input].name;
            let message = format!("an in-place gradient of `{name}`, which is broadcast");
            return Err(Error::Unsupported { message });
        }
        if broadcast || (scope == Scope::Row && place.dtype.is_packed()) {
            problem.keep(output);
        }
    }
    for pass in &problem.program.passes {
        let slots = tensors(problem.program, pass);
        let columns = pass.columns;
        // Keeping one output may change how the others are reached.
        while let Some(output) = {
            let windows = problem.windows(&slots, columns);
            let odd = |slot: &&Slot| problem.place(**slot).dtype.is_packed() && !windows.vector(&slots, **slot);
            slots.iter().find(|s| matches!(s, Slot::Output(_)) && odd(s)).copied()
        } {
            let Slot::Output(output) = output else { unreachable!("an output was looked for") };
            problem.keep(output);
        }
    }
    steps(problem)
}

fn steps(problem: &Problem<'_>) -> Result<Resolved> {
    let Problem { program, geometry, limits, .. } = problem;
    let mut schedules = Vec::new();
    let mut variants = Vec::new();
    let mut chunks = Vec::new();
    for pass in &program.passes {
        let slots = tensors(program, pass);
        if slots.len() > MAX_TENSORS {
            let (needed, allowed) = (slots.len() as u64, MAX_TENSORS as u64);
            return Err(Error::Limit { what: "tensors of a pass".into(), needed, allowed, limit: "wgloss" });
        }
        let windows = problem.windows(&slots, pass.columns);
        // A gradient that is kept is accumulated where it settles.
        let mode = |&o: &usize| if problem.targets[o].is_some() { Mode::Write } else { problem.modes[o] };
        let modes: Vec<Mode> = pass.outputs.iter().map(mode).collect();
        let gathered_in_place =
            modes.iter().any(|m| matches!(m, Mode::InPlace(place) if schedule::is_gathered(program, *place)));
        let rows_innermost = geometry.axes[2] > 1
            && slots.iter().any(|slot| {
                let place = problem.place(*slot);
                problem.has_columns(*slot) && place.strides[2] == 1 && place.strides[3] > 1
            });
        let (cut, pieces) = problem.chunks(&slots)?;
        let items = problem.items_of(&cut, pieces[0]);
        let shape = schedule::Shape {
            rows: if program.has_rows() { items } else { 1 },
            cols: if program.has_rows() { geometry.cols } else { items },
            vectors: windows.width == 4,
            masked: windows.aligned_to.is_some(),
            rows_innermost,
            gathered_in_place,
        };
        chunks.push((cut, pieces));
        schedules.push(schedule::schedule(program, pass, shape, limits, problem.force)?);
        let Windows { access, aligned_to, .. } = windows;
        let axes = geometry.axes.map(|size| size > 1);
        variants.push(Variant { access, aligned_to, axes, modes, pooled: problem.pooled });
    }
    let memory = problem.memory(&schedules, &variants, &chunks)?;
    let mut steps = Vec::new();
    for (pass, (schedule, variant)) in schedules.iter().zip(&variants).enumerate() {
        let phases = match schedule.kernel {
            Kernel::RowSplit { .. } => program.passes[pass].stages.len() as u32,
            _ => 0,
        };
        let (cut, pieces) = &chunks[pass];
        for (place, &chunk) in pieces.iter().enumerate() {
            let shape = || problem.chunk_shape(pass, schedule, &memory, cut, pieces, place);
            let bytes = problem.chunk_bytes(pass, cut, chunk);
            for phase in 0..=phases {
                let source = pass_kernel(program, pass, schedule, variant, phase);
                let (grid, second) = (schedule.grid, Second::Params);
                steps.push(Step::Kernel { source, grid, shape: shape(), second, bytes: bytes.clone() });
            }
            for output in edge_outputs(program, &program.passes[pass], variant, schedule.width) {
                let workgroup = problem.reduce_lanes();
                let source = stitch(program, pass, schedule, variant, output, workgroup);
                let grid = [problem.groups_of(problem.items_of(cut, chunk), workgroup), 1];
                steps.push(Step::Kernel { source, grid, shape: shape(), second: Second::Params, bytes: bytes.clone() });
            }
        }
        problem.reductions(pass, schedule, pieces.len() as u64, &memory, &mut steps);
    }
    let mut work_words = memory.words;
    for (output, target) in problem.targets.iter().enumerate() {
        if let Some(target) = target {
            let (needed, allowed) = (4 * geometry.elements(), limits.binding_bytes);
            if needed > allowed {
                let what = "a gradient that is kept in f32 (broadcast, or 16 bits in an unusual layout)".to_owned();
                let limit = "max_storage_buffer_binding_size";
                return Err(Error::Limit { what, needed, allowed, limit });
            }
            work_words = work_words.max(problem.settle(output, target, &mut steps));
        }
    }
    let input_size = |place: usize| problem.inputs[place].map_or(4, |p| p.dtype.size());
    let output_size = |o: usize| problem.targets[o].unwrap_or(problem.outputs[o]).dtype.size();
    let bytes = schedule::bytes_moved(program, geometry, &input_size, &output_size);
    Ok(Resolved { steps, work_words, schedules, bytes })
}

fn along(stride: u64) -> Along {
    match stride {
        0 => Along::Repeat,
        1 => Along::Unit,
        _ => Along::Strided,
    }
}

/// How the windows of a pass lie.
struct Windows {
    width: u32,
    access: Vec<Access>,
    aligned_to: Option<usize>,
}

impl Windows {
    fn vector(&self, slots: &[Slot], slot: Slot) -> bool {
        slots.iter().zip(&self.access).any(|(s, access)| *s == slot && access.vector)
    }
}

/// Regions of `work`, in words.
struct Memory {
    edge_base: u64,
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

    /// The gradient goes to a buffer of its own first.
    fn keep(&mut self, output: usize) {
        let scope = self.program.outputs[output].scope;
        let kept = Place::kept(self.program, self.geometry, scope);
        self.targets[output] = Some(std::mem::replace(&mut self.outputs[output], kept));
    }

    /// Where in a vector each row of a tensor begins, as remainders; `None` where a vector is never loaded.
    fn remainders(&self, slot: Slot) -> Option<[u64; 4]> {
        let place = self.place(slot);
        let axes = self.geometry.axes;
        if !self.has_columns(slot) || along(place.strides[3]) != Along::Unit || !place.whole_vectors {
            return None;
        }
        let along = |axis: usize| if axes[axis] == 1 { 0 } else { place.strides[axis] % 4 };
        Some([along(0), along(1), along(2), place.first % 4])
    }

    /// Windows of four columns wherever some tensor can be reached by vectors. They are aligned to the vectors of a
    /// 16-bit output, else of any output, else of an input; rows that begin elsewhere in a vector each are masked.
    /// Rows by themselves, whose pass visits no columns, have none.
    fn windows(&self, slots: &[Slot], columns: bool) -> Windows {
        let axes = self.geometry.axes;
        let single = |&slot: &Slot| {
            let place = self.place(slot);
            let along = if self.has_columns(slot) { along(place.strides[3]) } else { Along::Repeat };
            Access { along, dtype: place.dtype, vector: false }
        };
        let mut access: Vec<Access> = slots.iter().map(single).collect();
        let remainders: Vec<Option<[u64; 4]>> = slots.iter().map(|slot| self.remainders(*slot)).collect();
        let scalars = |access| Windows { width: 1, access, aligned_to: None };
        let packed = |k: &usize| matches!(slots[*k], Slot::Output(_)) && access[*k].dtype.is_packed();
        let rank = |k: &usize| match slots[*k] {
            Slot::Output(_) if access[*k].dtype.is_packed() => 0,
            Slot::Output(_) => 1,
            Slot::Input(place) if self.program.inputs[place].scope == Scope::Element => 2,
            _ => 3,
        };
        let visited = columns || !self.program.has_rows();
        let primary = (0..slots.len()).filter(|k| remainders[*k].is_some()).min_by_key(rank);
        let Some(primary) = primary.filter(|_| visited && self.force.width != Some(1)) else { return scalars(access) };
        let aligned = axes[3].is_multiple_of(4) && remainders[primary] == Some([0; 4]);
        let flat = self.program.has_rows() || axes[..3] == [1; 3];
        let worth = axes[3] >= MASKED_COLS || (0..slots.len()).any(|k| packed(&k) && remainders[k].is_some());
        if !(aligned || flat && worth) {
            return scalars(access);
        }
        for (access, remainder) in access.iter_mut().zip(&remainders) {
            access.vector = remainder.is_some() && *remainder == remainders[primary];
        }
        Windows { width: 4, access, aligned_to: (!aligned).then_some(primary) }
    }

    /// Axes that items lie along: of rows, or of elements.
    fn item_axes(&self) -> usize {
        if self.program.has_rows() { 3 } else { 4 }
    }

    /// How a pass is cut where a tensor is larger than a binding.
    fn chunks(&self, slots: &[Slot]) -> Result<(Cut, Vec<Chunk>)> {
        let alignment = u64::from(self.limits.offset_alignment);
        let cut = Cut::new(self.geometry.axes, self.item_axes(), self.limits.binding_bytes, alignment);
        let named = |slot: &Slot| match *slot {
            Slot::Input(place) => (self.program.inputs[place].name.as_str(), self.place(*slot)),
            _ => ("gradient", self.place(*slot)),
        };
        let pieces = cut.chunks(&slots.iter().map(named).collect::<Vec<_>>())?;
        Ok((cut, pieces))
    }

    /// Rows (elements, without rows) of a chunk.
    fn items_of(&self, cut: &Cut, chunk: Chunk) -> u64 {
        chunk.len * self.geometry.axes[cut.axis + 1..self.item_axes()].iter().product::<u64>()
    }

    /// Where each tensor of a pass lies in its buffer, for one chunk.
    fn chunk_bytes(&self, pass: usize, cut: &Cut, chunk: Chunk) -> Vec<(Slot, Range<u64>)> {
        let slots = tensors(self.program, &self.program.passes[pass]);
        slots.into_iter().map(|slot| (slot, cut.bytes(&self.place(slot), chunk))).collect()
    }

    fn chunk_shape(
        &self,
        pass: usize,
        schedule: &PassSchedule,
        memory: &Memory,
        cut: &Cut,
        pieces: &[Chunk],
        place: usize,
    ) -> Box<ShapeUniform> {
        let mut shape = self.shape(pass, schedule, memory);
        let chunk = pieces[place];
        let per_index = self.items_of(cut, Chunk { first: 0, len: 1 });
        shape.axes[cut.axis] = chunk.len as u32;
        shape.items = (chunk.len * per_index) as u32;
        // Elements by themselves are not counted across chunks.
        shape.first_item = if self.program.has_rows() { (chunk.first * per_index) as u32 } else { 0 };
        shape.first_group = place as u32 * schedule.grid[0];
        shape.sum_groups = pieces.len() as u32 * schedule.grid[0];
        for (tensor, slot) in tensors(self.program, &self.program.passes[pass]).into_iter().enumerate() {
            shape.tensors[2 * tensor + 1][0] = cut.first(&self.place(slot), chunk) as u32;
        }
        shape
    }

    /// Partial sums that a pass over so many chunks leaves.
    fn items(&self, schedule: &PassSchedule, chunks: u64) -> u64 {
        match schedule.kernel {
            Kernel::Elementwise => u64::from(schedule.grid[0]) * chunks,
            _ => self.geometry.rows,
        }
    }

    fn memory(&self, schedules: &[PassSchedule], variants: &[Variant], chunks: &[(Cut, Vec<Chunk>)]) -> Result<Memory> {
        let (mut items, mut sums, mut states, mut edges) = (0, 0, 0, 0);
        for (place, pass) in self.program.passes.iter().enumerate() {
            let (schedule, variant) = (&schedules[place], &variants[place]);
            edges = edges.max(edge_outputs(self.program, pass, variant, schedule.width).len() as u64);
            let totals = pass.totals.len() as u64;
            items = items.max(totals * self.items(schedule, chunks[place].1.len() as u64));
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
        let edge_base = state_base + states;
        let words = edge_base + edges * 2 * self.geometry.rows;
        let allowed = self.limits.binding_bytes.min(self.limits.buffer_bytes);
        if 4 * words > allowed {
            let limit = "max_storage_buffer_binding_size";
            return Err(Error::Limit { what: "workspace".into(), needed: 4 * words, allowed, limit });
        }
        Ok(Memory { segments_base, group_base, groups, state_base, edge_base, words })
    }

    fn shape(&self, pass: usize, schedule: &PassSchedule, memory: &Memory) -> Box<ShapeUniform> {
        let mut shape = Box::new(ShapeUniform::zeroed());
        let geometry = self.geometry;
        shape.rows = geometry.rows as u32;
        shape.cols = u32::try_from(geometry.cols).unwrap_or(u32::MAX);
        shape.elements = geometry.elements() as f32;
        shape.items = if self.program.has_rows() { geometry.rows } else { geometry.cols } as u32;
        shape.batch = geometry.batch as u32;
        shape.group_rows = self.group_rows as u32;
        shape.group_base = memory.group_base as u32;
        shape.groups = memory.groups as u32;
        shape.splits = if let Kernel::RowSplit { splits } = schedule.kernel { splits } else { 1 };
        shape.state_base = memory.state_base as u32;
        shape.edge_base = memory.edge_base as u32;
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

    fn reductions(&self, pass: usize, schedule: &PassSchedule, chunks: u64, memory: &Memory, steps: &mut Vec<Step>) {
        let program = self.program;
        let is_last = pass + 1 == program.passes.len();
        let outputs = if is_last { total_outputs(program) } else { Vec::new() };
        let totals = sums_to(program, pass, Scope::Total).len();
        let workgroup = |items: u64| (items.div_ceil(8).next_power_of_two() as u32).clamp(8, self.reduce_lanes());
        let items = self.items(schedule, chunks);
        let mut push = |kind: ReduceKind, span: SpanUniform, length: u64| {
            let source = reduce(program, pass, &kind, workgroup(length));
            let mut shape = self.shape(pass, schedule, memory);
            for (place, &output) in outputs.iter().enumerate().filter(|_| matches!(kind, ReduceKind::Finish(_))) {
                shape.tensors[2 * place + 1][0] = self.outputs[output].first as u32;
            }
            let grid = [span.segments.clamp(1, self.limits.workgroups), 1];
            steps.push(Step::Kernel { source, grid, shape, second: Second::Span(span), bytes: Vec::new() });
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

    /// Workgroups for so many items, one an invocation, inside the grid limit.
    fn groups_of(&self, items: u64, workgroup: u32) -> u32 {
        items.div_ceil(u64::from(workgroup)).min(u64::from(self.limits.workgroups)) as u32
    }

    /// Brings a kept gradient to its place; gives the words of `work` that it takes.
    fn settle(&self, output: usize, target: &Place, steps: &mut Vec<Step>) -> u64 {
        let scope = self.program.outputs[output].scope;
        let kept = self.outputs[output];
        let broadcast = is_broadcast(self.program, self.geometry, scope, target);
        if !target.dtype.is_packed() {
            return self.broadcast_sum(output, target, Slot::Output(output), steps);
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
        summed.first = 0;
        let words = self.broadcast_sum(output, &summed, Slot::Work, steps);
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
        let title = format!("{}: gradient narrowed to {dtype}", self.program.name);
        let source = after(&title, Skeleton::Narrow, constants, [from, Slot::Output(output)]);
        let grid = [self.groups_of(values, workgroup), 1];
        steps.push(Step::Settle { output, source, grid, uniform: bytemuck::bytes_of(&axes).to_vec() });
    }

    /// Sums an output over its broadcast axes, in two steps where there is much to add; gives the words of `work`.
    fn broadcast_sum(&self, output: usize, target: &Place, to: Slot, steps: &mut Vec<Step>) -> u64 {
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
            let title = format!("{}: gradient summed over broadcast axes", self.program.name);
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
        (first.segments, first.segment_stride, first.target_first) = (segments as u32, values as u32, 0);
        push(first, [Slot::Output(output), Slot::Work], false);
        (second.summed, second.summed_strides) = ([1, 1, 1, segments as u32], [0, 0, 0, values as u32]);
        (second.repeats, second.elements_first) = (segments as u32, 0);
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
