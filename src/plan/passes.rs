//! The choice for each pass of a problem: kept gradients, chunks, vectors, schedule. Pure: no device.

use crate::codegen::{Mode, Slot, Variant, state_words, tensors};
use crate::error::{Error, Result};
use crate::lower::{OutputKind, Over, Pass, Program};
use crate::plan::chunk::{Cut, Pieces};
use crate::plan::problem::{Phasing, Placement, Problem, is_broadcast};
use crate::plan::uniform::MAX_TENSORS;
use crate::plan::vectors::Windows;
use crate::schedule::{self, Kernel, PassSchedule, States, visited_inputs};
use crate::shape::{Scope, no_hessian_of_broadcast};

/// The row states that one pass shares between dispatches.
#[derive(Clone, Copy)]
pub(crate) struct RowStates {
    /// States in `work` per row and stage; 0 if all lanes of a row combine in one workgroup.
    pub slots: u32,
    /// Whether the previous pass has computed them.
    pub known: bool,
    /// Words per row before the first of them; if there are none, before the row values of an earlier pass.
    pub first: u64,
}

impl RowStates {
    /// Words per row of a pass's states.
    pub fn words(&self, program: &Program, pass: usize) -> u64 {
        let pass = &program.passes[pass];
        pass.stages.len() as u64 * u64::from(self.slots * state_words(program, pass))
    }
}

/// How one pass runs.
pub(crate) struct PassChoice {
    /// The items that it runs over.
    pub over: Over,
    /// The shape that its schedule was chosen for.
    pub shape: schedule::Shape,
    pub schedule: PassSchedule,
    /// How its kernel addresses its tensors.
    pub variant: Variant,
    /// Its chunks: one, unless a tensor is larger than a binding.
    pub pieces: Pieces,
    pub states: RowStates,
}

fn no_place_for_broadcast(input: &str) -> Error {
    Error::Unsupported { message: format!("an in-place gradient of `{input}`, which is broadcast") }
}

/// Chooses how each pass runs, after it is clear which gradients are kept.
pub(crate) fn choose(problem: &mut Problem<'_>) -> Result<Vec<PassChoice>> {
    schedule::check_sizes(&problem.geometry, problem.program.has_rows())?;
    problem.program.check_batch(&problem.geometry)?;
    if problem.geometry.is_empty() {
        problem.keep_gradients_of_no_rows()?;
    } else {
        problem.keep_gradients()?;
    }
    let mut all: Vec<PassChoice> = Vec::new();
    for (index, pass) in problem.program.passes.iter().enumerate() {
        let choice = problem.choose_pass(index, pass, all.last())?;
        all.push(choice);
    }
    problem.place_states(&mut all);
    Ok(all)
}

impl Problem<'_> {
    /// Keeps broadcast gradients, in-place ones whose input is still read, and 16-bit ones that their pass cannot store in
    /// pairs.
    fn keep_gradients(&mut self) -> Result<()> {
        for output in 0..self.outputs.len() {
            let scope = self.program.outputs[output].scope;
            let placement = self.outputs[output];
            let broadcast = is_broadcast(self.program, &self.geometry, scope, &placement);
            if let (true, &OutputKind::HessianDiagonal(input)) = (broadcast, &self.program.outputs[output].kind) {
                return Err(no_hessian_of_broadcast(&self.program.inputs[input].name));
            }
            if let (true, Mode::InPlace(input)) = (broadcast, self.modes[output]) {
                return Err(no_place_for_broadcast(&self.program.inputs[input].name));
            }
            // One 16-bit value per row or column is half a word, which its pass cannot write alone.
            if broadcast || (scope != Scope::Element && placement.dtype.is_packed()) {
                self.keep(output);
            }
        }
        for pass in 0..self.program.passes.len() {
            self.keep_overwritten(pass)?;
        }
        for pass in &self.program.passes {
            let slots = tensors(self.program, pass);
            // Keeping one output may change the alignment of the others.
            while let Some(output) = {
                let windows = self.windows(&slots, pass);
                let odd = |slot: &&Slot| {
                    self.placement(**slot).dtype.is_packed() && !windows.row_pairs && !windows.vector(&slots, **slot)
                };
                slots.iter().find(|s| matches!(s, Slot::Output(_)) && odd(s)).copied()
            } {
                let Slot::Output(output) = output else { unreachable!("only outputs were looked for") };
                self.keep(output);
            }
        }
        Ok(())
    }

    /// Of no rows, passes write nothing. A gradient that has values all the same (of a scalar, of a column, of a broadcast
    /// input) is zeros, written as a sum over no rows; one that accumulates stays as it is. Passes over columns run, so that
    /// a gradient of theirs is kept whatever its mode.
    fn keep_gradients_of_no_rows(&mut self) -> Result<()> {
        for output in 0..self.outputs.len() {
            let name = |input: usize| &self.program.inputs[input].name;
            match (&self.program.outputs[output].kind, self.modes[output]) {
                _ if self.outputs[output].is_empty => {}
                (&OutputKind::HessianDiagonal(input), _) => return Err(no_hessian_of_broadcast(name(input))),
                (OutputKind::Grad(_), _) if self.program.outputs[output].scope == Scope::Column => self.keep(output),
                (&OutputKind::Grad(input), Mode::InPlace(_)) => return Err(no_place_for_broadcast(name(input))),
                (OutputKind::Grad(_), Mode::Write) => self.keep(output),

                _ => {}
            }
        }
        Ok(())
    }

    fn choose_pass(&self, index: usize, pass: &Pass, before: Option<&PassChoice>) -> Result<PassChoice> {
        let slots = tensors(self.program, pass);
        if slots.len() > MAX_TENSORS {
            let (needed, allowed) = (slots.len() as u64, MAX_TENSORS as u64);
            return Err(Error::Limit { what: "tensors of a pass".into(), needed, allowed, limit: "wgloss" });
        }
        let windows = self.windows(&slots, pass);
        let mut pieces = self.chunks(pass, &slots)?;
        let mut items = self.items_of_first(&pieces);
        if items > u64::from(u32::MAX) {
            let (what, needed, allowed) = ("values of one dispatch".to_owned(), items, u64::from(u32::MAX));
            return Err(Error::Limit { what, needed, allowed, limit: "32-bit indices" });
        }
        let mut shape = self.pass_shape(pass, &slots, &windows, &pieces);
        let mut schedule = schedule::schedule(self.program, pass, shape, self.limits, self.pinned)?;
        let most = schedule::rows_before_stop(pass, &schedule, &shape, self.limits);
        if items > most {
            pieces.pieces = pieces.cut.chunks_of_rows(most)?;
            items = self.items_of_first(&pieces);
            shape = self.pass_shape(pass, &slots, &windows, &pieces);
            schedule = schedule::schedule(self.program, pass, shape, self.limits, self.pinned)?;
        }
        let (is_whole, is_open) = (pieces.pieces.len() == 1, self.pinned.workgroup.is_none());
        if let Some(workgroup) =
            schedule::alone(self.program, index, items, self.limits).filter(|_| is_whole && is_open && items > 0)
        {
            let why = "few rows, of which no element is read";
            schedule = PassSchedule { workgroup, grid: [1, 1], alone: true, why, ..schedule };
        }
        let modes = pass.outputs.iter().map(|&output| self.mode(output)).collect();
        let Windows { access, aligned_to, masked, .. } = windows;
        let axes = self.geometry.axes.map(|size| size > 1);
        let (pooled, column_range) = (self.pooled, self.phasing.column_range);
        let variant =
            Variant { access, aligned_to, masked, axes, modes, pooled, column_range, exact: true, saved_before: 0 };
        let states = self.row_states(index, &schedule, &pieces, before.map(|choice| choice.states));
        Ok(PassChoice { over: pass.over, shape, schedule, variant, pieces, states })
    }

    /// The row states of a pass, given those of the previous one.
    pub(crate) fn row_states(
        &self,
        pass: usize,
        schedule: &PassSchedule,
        Pieces { pieces, .. }: &Pieces,
        before: Option<RowStates>,
    ) -> RowStates {
        let Kernel::RowSplit { splits } = schedule.kernel else {
            return RowStates { slots: 0, known: false, first: 0 };
        };
        let parts = pieces.iter().filter(|chunk| chunk.first == 0).count() as u32;
        let stages = |pass: usize| &self.program.passes[pass].stages;
        let backward = self.phasing.forward.is_some_and(|forward| pass >= forward);
        match before.filter(|before| backward && before.slots > 0 && stages(pass - 1) == stages(pass)) {
            Some(before) => RowStates { slots: before.slots, known: true, first: 0 },
            None => RowStates { slots: splits * parts, known: false, first: 0 },
        }
    }

    /// Places the states and saved row values of passes that save any behind each other, and behind them the states of all
    /// other passes, which share their words.
    fn place_states(&self, choices: &mut [PassChoice]) {
        let passes = &self.program.passes;
        let mut shared = 0;
        for pass in (0..passes.len()).filter(|&pass| passes[pass].saves.words() > 0) {
            choices[pass].states.first = shared;
            shared += choices[pass].states.words(self.program, pass) + passes[pass].saves.words();
        }
        for pass in (0..passes.len()).filter(|&pass| passes[pass].saves.words() == 0) {
            let saved = passes[pass].known.as_ref().map(|known| {
                let earlier = &choices[known.pass].states;
                earlier.first + earlier.words(self.program, known.pass)
            });
            let own = choices[pass].states.words(self.program, pass);
            choices[pass].states.first = saved.filter(|_| own == 0).unwrap_or(shared);
            choices[pass].variant.saved_before = saved.filter(|_| own > 0).map_or(0, |saved| shared - saved);
        }
    }

    /// Keeps a gradient: its pass writes a buffer of its own, and its placement becomes the destination.
    fn keep(&mut self, output: usize) {
        let scope = self.program.outputs[output].scope;
        let kept = Placement::kept(self.program, &self.geometry, scope);
        self.destinations[output] = Some(std::mem::replace(&mut self.outputs[output], kept));
    }

    /// How a pass stores an output. A kept gradient is written; it is accumulated at its destination.
    pub(crate) fn mode(&self, output: usize) -> Mode {
        if self.destinations[output].is_some() { Mode::Write } else { self.modes[output] }
    }

    /// Whether a gradient overwrites an input that other lanes of the row read.
    fn overwrites(&self, output: usize) -> bool {
        matches!(self.mode(output), Mode::InPlace(input) if schedule::is_read_by_row(self.program, input))
    }

    /// Keeps gradients that overwrite an input while other workgroups of a split row read it. Element gradients are
    /// kept only if rows must be split: otherwise one workgroup takes the row, and its lanes wait for each other.
    fn keep_overwritten(&mut self, pass: usize) -> Result<()> {
        let pass = &self.program.passes[pass];
        let overwriting: Vec<usize> = pass.outputs.iter().copied().filter(|&output| self.overwrites(output)).collect();
        if overwriting.is_empty() {
            return Ok(());
        }
        let slots = tensors(self.program, pass);
        let shape = self.pass_shape(pass, &slots, &self.windows(&slots, pass), &self.chunks(pass, &slots)?);
        let chosen = |overwritten: bool| {
            let shape = schedule::Shape { overwritten, ..shape };
            schedule::schedule(self.program, pass, shape, self.limits, self.pinned)
        };
        let is_split = |chosen: Result<PassSchedule>| {
            chosen.is_ok_and(|schedule| matches!(schedule.kernel, Kernel::RowSplit { .. }))
        };
        let has_elements = overwriting.iter().any(|&output| self.program.outputs[output].scope == Scope::Element);
        let is_pinned = matches!(self.pinned.kernel, Some(Kernel::RowSplit { .. }));
        let must_split = if has_elements { chosen(true).is_err() && !is_pinned } else { true };
        if must_split && is_split(chosen(false)) {
            overwriting.into_iter().for_each(|output| self.keep(output));
        }
        Ok(())
    }

    fn pass_shape(&self, pass: &Pass, slots: &[Slot], windows: &Windows, pieces: &Pieces) -> schedule::Shape {
        let (program, geometry) = (self.program, &self.geometry);
        let rows_innermost = geometry.axes[2] > 1
            && slots.iter().any(|slot| {
                let placement = self.placement(*slot);
                self.has_columns(*slot) && placement.strides[2] == 1 && placement.strides[3] > 1
            });
        let fetched = visited_inputs(program, pass);
        let is_fetched = |slot: &Slot| matches!(slot, Slot::Input(input) if fetched.contains(input));
        let of_fetched = slots.iter().zip(&windows.access).filter(|(slot, _)| is_fetched(slot));
        let packed: Vec<bool> = of_fetched.map(|(_, access)| access.vector && access.dtype.is_packed()).collect();
        let held_bits: u32 = packed.iter().map(|packed| if *packed { 16 } else { 32 }).sum();
        // Values that trips along the row leave are held too.
        let held_bits = held_bits + 32 * pass.along().count() as u32;
        let items = self.items_of_first(pieces);
        let cols = pieces.pieces.first().map_or(geometry.cols, |chunk| chunk.cols);
        schedule::Shape {
            rows: if program.has_rows() { items } else { 1 },
            cols: if program.has_rows() { cols } else { items },
            width: windows.width,
            held_bits,
            held_packed: packed.contains(&true),
            masked: windows.aligned_to.is_some(),
            rows_innermost,
            row_pairs: windows.row_pairs,
            overwritten: pass.outputs.iter().any(|&output| self.overwrites(output)),
            states: match self.phasing {
                Phasing { column_range: true, .. } => States::Shared,
                Phasing { forward: Some(_), .. } => States::Kept,
                _ => States::Inside,
            },
            group_rows: self.summed_group_rows(pass),
        }
    }

    /// Rows per group, of a pass that sums over the rows of each group for each column; 0 for others.
    fn summed_group_rows(&self, pass: &Pass) -> u64 {
        if pass.sums_per_group(self.program) { self.geometry.group_rows } else { 0 }
    }

    /// Number of axes that items lie along: 3 for rows, 4 for elements.
    pub(crate) fn item_axes(&self) -> usize {
        if self.program.has_rows() { 3 } else { 4 }
    }

    /// Rows (elements, without rows) of the first chunk, the largest; 0 if there is none.
    fn items_of_first(&self, Pieces { cut, pieces }: &Pieces) -> u64 {
        pieces.first().map_or(0, |chunk| self.items_of(cut, *chunk))
    }

    /// The chunks of a pass, each tensor of which fits a binding, but for those that are bound whole; none if there are
    /// no rows (columns there are nevertheless).
    pub(super) fn chunks(&self, pass: &Pass, slots: &[Slot]) -> Result<Pieces> {
        let over = pass.over;
        let alignment = u64::from(self.limits.offset_alignment);
        let axes = match over {
            Over::Rows | Over::RowsByColumn => self.geometry.axes,
            Over::Groups => [1, 1, self.geometry.groups(), 1],
            Over::Columns => [1, 1, self.geometry.cols, 1],
            Over::GroupColumns => [1, 1, self.geometry.groups().saturating_mul(self.geometry.cols), 1],
        };
        let mut cut = Cut::new(axes, self.item_axes(), self.limits.binding_bytes, alignment);
        cut.group_rows = self.summed_group_rows(pass);
        let (whole, slots): (Vec<Slot>, Vec<Slot>) = slots.iter().partition(|slot| self.is_whole(over, **slot));
        for slot in whole {
            self.check_whole(slot)?;
        }
        let named = |slot: &Slot| match *slot {
            Slot::Input(input) => (self.program.inputs[input].name.as_str(), self.placement(*slot)),
            _ => ("an output", self.placement(*slot)),
        };
        let pieces = match self.geometry.is_empty() && over != Over::Columns {
            true => Vec::new(),
            false => cut.chunks(&slots.iter().map(named).collect::<Vec<_>>(), self.phasing.column_range)?,
        };
        Ok(Pieces { cut, pieces })
    }

    /// An error if a tensor of groups or columns exceeds a binding.
    fn check_whole(&self, slot: Slot) -> Result<()> {
        let Placement { first, strides, dtype, .. } = self.placement(slot);
        let sizes = self.geometry.axes_of(self.scope(slot).unwrap_or(Scope::Total));
        let along = |axis: usize| sizes[axis].saturating_sub(1).saturating_mul(strides[axis]);
        let elements = along(2).saturating_add(along(3)).saturating_add(1 + first);
        let (needed, allowed) = (elements.saturating_mul(dtype.size()), self.limits.binding_bytes);
        if needed <= allowed {
            return Ok(());
        }
        let limit = "max_storage_buffer_binding_size";
        Err(Error::Limit { what: "a tensor with one value per group or column".to_owned(), needed, allowed, limit })
    }

    pub(crate) fn check_workspace(&self, words: u64) -> Result<()> {
        let allowed = self.limits.binding_bytes.min(self.limits.buffer_bytes);
        let needed = words.saturating_mul(4);
        if needed > allowed {
            let limit = "max_storage_buffer_binding_size";
            return Err(Error::Limit { what: "workspace".into(), needed, allowed, limit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::limits::Limits;
    use crate::plan::loss::PreparedLoss;
    use crate::plan::operator::Conditions;
    use crate::plan::spec::{GradMode, PlanSpec};
    use crate::schedule::Kernel;
    use crate::{DType, losses};

    #[test]
    fn gradients_in_place_are_kept_where_workgroups_share_a_row() {
        // Few long rows: a device that is no CPU shares them.
        let chosen = |input: GradMode, weight: GradMode| {
            let shape = [64, 70_000];
            let spec = PlanSpec::new().input("input", DType::F32, &shape).input("target", DType::I32, &shape[..1]);
            let spec = spec.input("sample_weight", DType::F32, &shape[..1]);
            let spec = spec.grad_mode("input", input).grad_mode("sample_weight", weight);
            let prepared = PreparedLoss::new(&losses::cross_entropy(), &spec, &Limits::WEBGPU).unwrap();
            let tensors = prepared.planned_tensors().unwrap();
            let (problem, choices) = prepared.choose(&tensors, Conditions::default()).unwrap();
            let kernel = choices.last().unwrap().schedule.kernel;
            let kept = problem.destinations.iter().filter(|destination| destination.is_some()).count();
            (matches!(kernel, Kernel::RowSplit { .. }), kept)
        };
        assert_eq!(chosen(GradMode::Write, GradMode::Write), (true, 0));
        assert_eq!(chosen(GradMode::Write, GradMode::InPlace), (true, 1), "one value per row is finished afterwards");
        assert_eq!(chosen(GradMode::InPlace, GradMode::InPlace), (false, 0), "one workgroup takes the row");
    }
}
