//! Program, geometry and places of tensors to the dispatches of a bound plan. Pure: no device.

use crate::codegen::{
    Mode, ReduceKind, Slot, Variant, edge_outputs, group_slots, pass_kernel, reduce, state_words, stitch, sum_counts,
    tensors, total_outputs,
};
use crate::error::{Error, Result};
use crate::lower::{Pass, Target};
use crate::plan::chunk::{Chunk, Cut, Pieces};
use crate::plan::exchange::{RowStates, Steps};
use crate::plan::explain::{Facts, PassFacts};
use crate::plan::problem::{Exchange, Place, Problem, Role, Staging, Step, Sums, is_broadcast};
use crate::plan::uniform::{MAX_TENSORS, ShapeUniform, SpanUniform};
use crate::plan::vectors::Windows;
use crate::plan::workspace::{Leaves, Memory, Span, takes_two_steps};
use crate::schedule::{self, Kernel, PassSchedule, States};
use crate::shape::Scope;
use crate::shape::no_hessian_of_broadcast;
use bytemuck::Zeroable;
use std::ops::Range;

/// Dispatches in order, the words of `work` they use, and what was chosen.
pub(crate) struct Resolved {
    /// What is dispatched before each part: scalar inputs of 16 bits are widened.
    pub scalars: Vec<Step>,
    pub steps: Vec<Step>,
    /// Where the parts end that are encoded apart: one for each exchange, then forward and backward, or all in one.
    pub parts: Vec<usize>,
    pub exchanges: Vec<Exchange>,
    pub work_words: u64,
    pub facts: Facts,
    /// How each pass reaches its tensors.
    pub variants: Vec<Variant>,
}

/// Keeps gradients apart that are summed afterwards, then those of 16 bits that their pass cannot store.
pub(crate) fn resolve(problem: &mut Problem<'_>) -> Result<Resolved> {
    schedule::check_sizes(problem.geometry, problem.program.has_rows())?;
    for output in 0..problem.outputs.len() {
        let scope = problem.program.outputs[output].scope;
        let place = problem.outputs[output];
        let broadcast = is_broadcast(problem.program, problem.geometry, scope, &place);
        if let (true, &Target::HessianDiagonal(input)) = (broadcast, &problem.program.outputs[output].target) {
            return Err(no_hessian_of_broadcast(&problem.program.inputs[input].name));
        }
        if let (true, Mode::InPlace(input)) = (broadcast, problem.modes[output]) {
            let name = &problem.program.inputs[input].name;
            let message = format!("an in-place gradient of `{name}`, which is broadcast");
            return Err(Error::Unsupported { message });
        }
        // One value has half a word.
        if broadcast || (scope != Scope::Element && place.dtype.is_packed()) {
            problem.keep(output);
        }
    }
    for pass in 0..problem.program.passes.len() {
        problem.keep_overwritten(pass)?;
    }
    for pass in &problem.program.passes {
        let slots = tensors(problem.program, pass);
        // Keeping one output may change how the others are reached.
        while let Some(output) = {
            let windows = problem.windows(&slots, pass);
            let odd = |slot: &&Slot| problem.place(**slot).dtype.is_packed() && !windows.vector(&slots, **slot);
            slots.iter().find(|s| matches!(s, Slot::Output(_)) && odd(s)).copied()
        } {
            let Slot::Output(output) = output else { unreachable!("only outputs were looked for") };
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
    let mut shapes = Vec::new();
    for pass in &program.passes {
        let slots = tensors(program, pass);
        if slots.len() > MAX_TENSORS {
            let (needed, allowed) = (slots.len() as u64, MAX_TENSORS as u64);
            return Err(Error::Limit { what: "tensors of a pass".into(), needed, allowed, limit: "wgloss" });
        }
        let windows = problem.windows(&slots, pass);
        let cuts = problem.chunks(&slots)?;
        let items = problem.items_of(&cuts.cut, cuts.pieces[0]);
        if items > u64::from(u32::MAX) {
            let (what, needed, allowed) = ("values of one dispatch".to_owned(), items, u64::from(u32::MAX));
            return Err(Error::Limit { what, needed, allowed, limit: "32-bit indices" });
        }
        let shape = problem.pass_shape(pass, &slots, &windows, &cuts);
        chunks.push(cuts);
        shapes.push(shape);
        schedules.push(schedule::schedule(program, pass, shape, limits, problem.force)?);
        let modes = pass.outputs.iter().map(|&output| problem.mode(output)).collect();
        let Windows { access, aligned_to, masked, .. } = windows;
        let axes = geometry.axes.map(|size| size > 1);
        let (pooled, part) = (problem.pooled, problem.staging.part);
        variants.push(Variant { access, aligned_to, masked, axes, modes, pooled, part });
    }
    let rows: Vec<RowStates> = problem.row_states(&schedules, &chunks);
    let memory = problem.memory(&schedules, &variants, &chunks, &rows)?;
    let mut plan = Steps::default();
    let mut facts = Vec::new();
    for (pass, (schedule, variant)) in schedules.iter().zip(&variants).enumerate() {
        if problem.staging.forward == Some(pass) {
            plan.end_part();
        }
        let Pieces { cut, pieces } = &chunks[pass];
        let before = plan.steps.len();
        let stages = if rows[pass].slots > 0 { program.passes[pass].stages.len() as u32 } else { 0 };
        for phase in if rows[pass].known { stages } else { 0 }..=stages {
            for (place, &chunk) in pieces.iter().enumerate() {
                let shape = || problem.chunk_shape(pass, schedule, &memory, &chunks[pass], place, &rows[pass]);
                let bytes = problem.chunk_bytes(pass, cut, chunk);
                let source = pass_kernel(program, pass, schedule, variant, phase);
                let step = |source, grid, role| Step::Kernel {
                    source,
                    grid,
                    pass,
                    role,
                    shape: shape(),
                    span: None,
                    bytes: bytes.clone(),
                };
                plan.steps.push(step(source, schedule.grid, Role::Pass));
                if phase < stages {
                    continue;
                }
                for output in edge_outputs(program, &program.passes[pass], variant, schedule.width) {
                    let workgroup = problem.reduce_lanes();
                    let source = stitch(program, pass, schedule, variant, output, workgroup);
                    let grid = [problem.groups_of(problem.items_of(cut, chunk), workgroup), 1];
                    plan.steps.push(step(source, grid, Role::Stitch));
                }
            }
            if phase < stages && problem.staging.shard.is_some() {
                problem.exchange(pass, phase as usize, &memory, &rows[pass], &mut plan);
            }
        }
        let own = plan.steps.len() - before;
        problem.reductions(pass, schedule, pieces.len() as u64, &memory, &mut plan.steps);
        facts.push(PassFacts {
            shape: shapes[pass],
            schedule: *schedule,
            tensors: problem.traffic(pass, schedule.kernel, rows[pass].known),
            chunks: pieces.len(),
            dispatches: [own, plan.steps.len() - before - own],
        });
    }
    if problem.staging.forward == Some(program.passes.len()) {
        plan.end_part(); // nothing follows in the backward part
    }
    let mut work_words = memory.words;
    // States that are kept for another backward part are not written over.
    let base = if problem.staging.forward.is_some() { memory.words } else { 0 };
    for (output, target) in problem.targets.iter().enumerate() {
        if let Some(target) = target {
            let values = Place::kept_values(geometry, program.outputs[output].scope);
            // The kernel that stores it binds all of the tensor.
            let last = (0..4).map(|axis| (geometry.axes[axis] - 1).saturating_mul(target.strides[axis]));
            let elements = last.fold(1 + target.first, u64::saturating_add);
            let stored = elements.saturating_mul(target.dtype.size()).saturating_add(16);
            let (needed, allowed) = (values.saturating_mul(4).max(stored), limits.binding_bytes);
            if needed > allowed {
                let what = "a gradient that is kept in f32 (broadcast, or 16 bits in an unusual layout)".to_owned();
                let limit = "max_storage_buffer_binding_size";
                return Err(Error::Limit { what, needed, allowed, limit });
            }
            work_words = work_words.max(base + problem.settle(output, target, base, &mut plan.steps));
        }
    }
    problem.check_workspace(work_words)?;
    plan.end_part();
    let Steps { steps, parts, exchanges } = plan;
    let scalars = problem.widened_scalars();
    let facts = problem.facts(facts, scalars.len(), &steps);
    Ok(Resolved { scalars, steps, parts, exchanges, work_words, facts, variants })
}

impl Problem<'_> {
    /// The gradient goes to a buffer of its own first.
    fn keep(&mut self, output: usize) {
        let scope = self.program.outputs[output].scope;
        let kept = Place::kept(self.program, self.geometry, scope);
        self.targets[output] = Some(std::mem::replace(&mut self.outputs[output], kept));
    }

    /// What becomes of an output in its pass: a gradient that is kept is accumulated where it settles.
    fn mode(&self, output: usize) -> Mode {
        if self.targets[output].is_some() { Mode::Write } else { self.modes[output] }
    }

    /// Whether a gradient takes the place of an input that other lanes of the row read.
    fn overwrites(&self, output: usize) -> bool {
        matches!(self.mode(output), Mode::InPlace(place) if schedule::is_read_by_row(self.program, place))
    }

    /// Keeps gradients that take the place of an input which workgroups of the same row read, where several of them, or
    /// several dispatches, write the row: their values are moved when all have read. Elements are kept where rows cannot
    /// but be shared; else the kernels of whole rows take them, which wait for their lanes.
    fn keep_overwritten(&mut self, pass: usize) -> Result<()> {
        let pass = &self.program.passes[pass];
        let early: Vec<usize> = pass.outputs.iter().copied().filter(|&output| self.overwrites(output)).collect();
        if early.is_empty() {
            return Ok(());
        }
        let slots = tensors(self.program, pass);
        let shape = self.pass_shape(pass, &slots, &self.windows(&slots, pass), &self.chunks(&slots)?);
        let chosen = |overwritten: bool| {
            let shape = schedule::Shape { overwritten, ..shape };
            schedule::schedule(self.program, pass, shape, self.limits, self.force)
        };
        let is_split = |chosen: Result<PassSchedule>| {
            chosen.is_ok_and(|schedule| matches!(schedule.kernel, Kernel::RowSplit { .. }))
        };
        let has_elements = early.iter().any(|&output| self.program.outputs[output].scope == Scope::Element);
        let is_forced = matches!(self.force.kernel, Some(Kernel::RowSplit { .. }));
        let must_split = if has_elements { chosen(true).is_err() && !is_forced } else { true };
        if must_split && is_split(chosen(false)) {
            early.into_iter().for_each(|output| self.keep(output));
        }
        Ok(())
    }

    fn pass_shape(
        &self,
        pass: &Pass,
        slots: &[Slot],
        windows: &Windows,
        Pieces { cut, pieces }: &Pieces,
    ) -> schedule::Shape {
        let (program, geometry) = (self.program, self.geometry);
        let rows_innermost = geometry.axes[2] > 1
            && slots.iter().any(|slot| {
                let place = self.place(*slot);
                self.has_columns(*slot) && place.strides[2] == 1 && place.strides[3] > 1
            });
        let items = self.items_of(cut, pieces[0]);
        schedule::Shape {
            rows: if program.has_rows() { items } else { 1 },
            cols: if program.has_rows() { pieces[0].cols } else { items },
            width: windows.width,
            masked: windows.aligned_to.is_some(),
            rows_innermost,
            overwritten: pass.outputs.iter().any(|&output| self.overwrites(output)),
            states: match self.staging {
                Staging { part: true, .. } => States::Shared,
                Staging { forward: Some(_), .. } => States::Kept,
                _ => States::Inside,
            },
        }
    }

    /// Axes that items lie along: of rows, or of elements.
    fn item_axes(&self) -> usize {
        if self.program.has_rows() { 3 } else { 4 }
    }

    /// How a pass is cut where a tensor is larger than a binding.
    fn chunks(&self, slots: &[Slot]) -> Result<Pieces> {
        let alignment = u64::from(self.limits.offset_alignment);
        let cut = Cut::new(self.geometry.axes, self.item_axes(), self.limits.binding_bytes, alignment);
        let named = |slot: &Slot| match *slot {
            Slot::Input(place) => (self.program.inputs[place].name.as_str(), self.place(*slot)),
            _ => ("an output", self.place(*slot)),
        };
        let pieces = cut.chunks(&slots.iter().map(named).collect::<Vec<_>>(), self.staging.part)?;
        Ok(Pieces { cut, pieces })
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
        Pieces { cut, pieces }: &Pieces,
        place: usize,
        rows: &RowStates,
    ) -> Box<ShapeUniform> {
        let mut shape = self.shape(pass, schedule, memory);
        let chunk = pieces[place];
        let per_index = self.items_of(cut, cut.all_columns(0, 1));
        if chunk.cols < cut.axes[3] {
            shape.cols = chunk.cols as u32;
            shape.first_col += chunk.first_col as u32;
            shape.first_split = (chunk.first_col / pieces[0].cols) as u32 * shape.splits;
        }
        shape.slots = rows.slots;
        shape.states = if self.staging.shard.is_some() { 1 } else { rows.slots };
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

    /// Partial sums that a pass over so many chunks leaves of each of its sums over everything.
    fn items(&self, schedule: &PassSchedule, chunks: u64) -> u64 {
        match schedule.kernel {
            Kernel::Elementwise => u64::from(schedule.grid[0]) * chunks,
            _ => self.geometry.rows,
        }
    }

    fn memory(
        &self,
        schedules: &[PassSchedule],
        variants: &[Variant],
        chunks: &[Pieces],
        rows: &[RowStates],
    ) -> Result<Memory> {
        let leaves = self.program.passes.iter().enumerate().map(|(place, pass)| {
            let (schedule, variant) = (&schedules[place], &variants[place]);
            let slots = u64::from(rows[place].slots);
            let [totals, group_sums] = sum_counts(self.program, place);
            Leaves {
                totals,
                items: self.items(schedule, chunks[place].pieces.len() as u64),
                group_sums,
                states: pass.stages.len() as u64 * slots * u64::from(state_words(self.program, pass)),
                edges: edge_outputs(self.program, pass, variant, schedule.width).len() as u64,
            }
        });
        let leaves: Vec<Leaves> = leaves.collect();
        let groups = self.geometry.rows / self.group_rows;
        let memory = Memory::new(&leaves, &self.geometry.rows, group_slots(self.program).len() as u64, groups);
        self.check_workspace(memory.words)?;
        Ok(memory)
    }

    fn check_workspace(&self, words: u64) -> Result<()> {
        let allowed = self.limits.binding_bytes.min(self.limits.buffer_bytes);
        let needed = words.saturating_mul(4);
        if needed > allowed {
            let limit = "max_storage_buffer_binding_size";
            return Err(Error::Limit { what: "workspace".into(), needed, allowed, limit });
        }
        Ok(())
    }

    fn shape(&self, pass: usize, schedule: &PassSchedule, memory: &Memory) -> Box<ShapeUniform> {
        let mut shape = Box::new(ShapeUniform::zeroed());
        let geometry = self.geometry;
        shape.rows = geometry.rows as u32;
        shape.cols = u32::try_from(geometry.cols).unwrap_or(u32::MAX);
        let classes = self.staging.shard.map_or(geometry.cols, |shard| shard.classes);
        shape.classes = u32::try_from(classes).unwrap_or(u32::MAX);
        shape.first_col = self.staging.shard.map_or(0, |shard| shard.first) as u32;
        let elements = if self.staging.shard.is_some() { geometry.rows * classes } else { geometry.elements() };
        shape.elements = elements as f32;
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
        let is_last = pass == program.finishing_pass();
        let outputs = if is_last { total_outputs(program) } else { Vec::new() };
        let [totals, group_sums] = sum_counts(program, pass);
        let workgroup = |items: u64| (items.div_ceil(8).next_power_of_two() as u32).clamp(8, self.reduce_lanes());
        let items = self.items(schedule, chunks);
        let mut push = |kind: ReduceKind, span: &Span| {
            let source = reduce(program, pass, &kind, workgroup(span.length));
            let mut shape = self.shape(pass, schedule, memory);
            let sums = match kind {
                ReduceKind::Groups => Sums::Groups,
                ReduceKind::Segments => Sums::Segments,
                ReduceKind::Finish(_) => Sums::Finish,
            };
            for (place, &output) in outputs.iter().enumerate().filter(|_| sums == Sums::Finish) {
                shape.tensors[2 * place + 1][0] = self.outputs[output].first as u32;
            }
            let grid = [span.workgroups(self.limits.workgroups) as u32, 1];
            let (role, span) = (Role::Sums(sums), Some(SpanUniform::from(span)));
            steps.push(Step::Kernel { source, grid, pass, role, shape, span, bytes: Vec::new() });
        };
        if group_sums > 0 {
            let span = Span::groups(totals * items, self.geometry.rows, self.group_rows, memory);
            push(ReduceKind::Groups, &span);
        }
        if totals == 0 && outputs.is_empty() {
            return;
        }
        let items = if totals == 0 { 0 } else { items };
        let segments = takes_two_steps(items).then(|| Span::segments(items, memory));
        if let Some(first) = &segments {
            push(ReduceKind::Segments, first);
        }
        let modes = outputs.iter().map(|&output| self.mode(output)).collect();
        push(ReduceKind::Finish(modes), &Span::finish(items, segments.as_ref()));
    }
}

#[cfg(test)]
mod tests {
    use crate::limits::Limits;
    use crate::plan::compiled::Compiled;
    use crate::plan::spec::{GradMode, PlanSpec};
    use crate::schedule::{Force, Kernel};
    use crate::{DType, losses};

    #[test]
    fn gradients_in_place_are_kept_where_workgroups_share_a_row() {
        // Few long rows: a device that is no CPU shares them.
        let chosen = |input: GradMode, weight: GradMode| {
            let shape = [64, 70_000];
            let spec = PlanSpec::new().input("input", DType::F32, &shape).input("target", DType::I32, &shape[..1]);
            let spec = spec.input("sample_weight", DType::F32, &shape[..1]);
            let spec = spec.grad_mode("input", input).grad_mode("sample_weight", weight);
            let compiled = Compiled::new(&losses::cross_entropy(), &spec, &Limits::WEBGPU).unwrap();
            let (_, resolved) = compiled.resolve(&compiled.planned().unwrap(), false, Force::default()).unwrap();
            let kernel = resolved.facts.passes.last().unwrap().schedule.kernel;
            (matches!(kernel, Kernel::RowSplit { .. }), resolved.facts.settles)
        };
        assert_eq!(chosen(GradMode::Write, GradMode::Write), (true, 0));
        assert_eq!(chosen(GradMode::Write, GradMode::InPlace), (true, 1), "a value a row is moved afterwards");
        assert_eq!(chosen(GradMode::InPlace, GradMode::InPlace), (false, 0), "one workgroup takes the row");
    }
}
