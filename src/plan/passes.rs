//! How each pass of a problem runs: which gradients are kept apart, chunks, vectors, schedule. Pure: no device.

use crate::codegen::{Mode, Slot, Variant, tensors};
use crate::error::{Error, Result};
use crate::lower::{OutputKind, Pass};
use crate::plan::chunk::{Cut, Pieces};
use crate::plan::problem::{Phasing, Placement, Problem, is_broadcast};
use crate::plan::uniform::MAX_TENSORS;
use crate::plan::vectors::Windows;
use crate::schedule::{self, Kernel, PassSchedule, States};
use crate::shape::{Scope, no_hessian_of_broadcast};

/// What becomes of the states of one pass.
#[derive(Clone, Copy)]
pub(crate) struct RowStates {
    /// States of a row and a stage that lie in `work` for all dispatches to see; 0 where there are none.
    pub slots: u32,
    /// Whether the pass before has made them.
    pub known: bool,
}

/// How one pass runs.
pub(crate) struct PassChoice {
    /// What its schedule was chosen for.
    pub shape: schedule::Shape,
    pub schedule: PassSchedule,
    /// How it reaches its tensors.
    pub variant: Variant,
    /// Its chunks, where a tensor is larger than a binding.
    pub pieces: Pieces,
    pub states: RowStates,
}

/// Keeps gradients apart that are summed afterwards, then those of 16 bits that their pass cannot store; then chooses how
/// each pass runs.
pub(crate) fn choose(problem: &mut Problem<'_>) -> Result<Vec<PassChoice>> {
    schedule::check_sizes(&problem.geometry, problem.program.has_rows())?;
    for output in 0..problem.outputs.len() {
        let scope = problem.program.outputs[output].scope;
        let place = problem.outputs[output];
        let broadcast = is_broadcast(problem.program, &problem.geometry, scope, &place);
        if let (true, &OutputKind::HessianDiagonal(input)) = (broadcast, &problem.program.outputs[output].kind) {
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
            let odd = |slot: &&Slot| problem.placement(**slot).dtype.is_packed() && !windows.vector(&slots, **slot);
            slots.iter().find(|s| matches!(s, Slot::Output(_)) && odd(s)).copied()
        } {
            let Slot::Output(output) = output else { unreachable!("only outputs were looked for") };
            problem.keep(output);
        }
    }
    let mut all: Vec<PassChoice> = Vec::new();
    for (index, pass) in problem.program.passes.iter().enumerate() {
        let choice = problem.choose_pass(index, pass, all.last())?;
        all.push(choice);
    }
    Ok(all)
}

impl Problem<'_> {
    fn choose_pass(&self, index: usize, pass: &Pass, before: Option<&PassChoice>) -> Result<PassChoice> {
        let slots = tensors(self.program, pass);
        if slots.len() > MAX_TENSORS {
            let (needed, allowed) = (slots.len() as u64, MAX_TENSORS as u64);
            return Err(Error::Limit { what: "tensors of a pass".into(), needed, allowed, limit: "wgloss" });
        }
        let windows = self.windows(&slots, pass);
        let pieces = self.chunks(&slots)?;
        let items = self.items_of(&pieces.cut, pieces.pieces[0]);
        if items > u64::from(u32::MAX) {
            let (what, needed, allowed) = ("values of one dispatch".to_owned(), items, u64::from(u32::MAX));
            return Err(Error::Limit { what, needed, allowed, limit: "32-bit indices" });
        }
        let shape = self.pass_shape(pass, &slots, &windows, &pieces);
        let schedule = schedule::schedule(self.program, pass, shape, self.limits, self.pinned)?;
        let modes = pass.outputs.iter().map(|&output| self.mode(output)).collect();
        let Windows { access, aligned_to, masked, .. } = windows;
        let axes = self.geometry.axes.map(|size| size > 1);
        let (pooled, part) = (self.pooled, self.phasing.column_range);
        let variant = Variant { access, aligned_to, masked, axes, modes, pooled, part };
        let states = self.row_states(index, &schedule, &pieces, before.map(|choice| choice.states));
        Ok(PassChoice { shape, schedule, variant, pieces, states })
    }

    /// What becomes of the states of a pass, after that of the pass before.
    pub(crate) fn row_states(
        &self,
        pass: usize,
        schedule: &PassSchedule,
        Pieces { pieces, .. }: &Pieces,
        before: Option<RowStates>,
    ) -> RowStates {
        let Kernel::RowSplit { splits } = schedule.kernel else { return RowStates { slots: 0, known: false } };
        let parts = pieces.iter().filter(|chunk| chunk.first == 0).count() as u32;
        let stages = |pass: usize| &self.program.passes[pass].stages;
        let backward = self.phasing.forward.is_some_and(|forward| pass >= forward);
        match before.filter(|before| backward && before.slots > 0 && stages(pass - 1) == stages(pass)) {
            Some(before) => RowStates { slots: before.slots, known: true },
            None => RowStates { slots: splits * parts, known: false },
        }
    }

    /// The gradient goes to a buffer of its own first.
    fn keep(&mut self, output: usize) {
        let scope = self.program.outputs[output].scope;
        let kept = Placement::kept(self.program, &self.geometry, scope);
        self.destinations[output] = Some(std::mem::replace(&mut self.outputs[output], kept));
    }

    /// What becomes of an output in its pass: a gradient that is kept is accumulated where it settles.
    pub(crate) fn mode(&self, output: usize) -> Mode {
        if self.destinations[output].is_some() { Mode::Write } else { self.modes[output] }
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
            schedule::schedule(self.program, pass, shape, self.limits, self.pinned)
        };
        let is_split = |chosen: Result<PassSchedule>| {
            chosen.is_ok_and(|schedule| matches!(schedule.kernel, Kernel::RowSplit { .. }))
        };
        let has_elements = early.iter().any(|&output| self.program.outputs[output].scope == Scope::Element);
        let is_forced = matches!(self.pinned.kernel, Some(Kernel::RowSplit { .. }));
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
        let (program, geometry) = (self.program, &self.geometry);
        let rows_innermost = geometry.axes[2] > 1
            && slots.iter().any(|slot| {
                let place = self.placement(*slot);
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
            states: match self.phasing {
                Phasing { column_range: true, .. } => States::Shared,
                Phasing { forward: Some(_), .. } => States::Kept,
                _ => States::Inside,
            },
        }
    }

    /// Axes that items lie along: of rows, or of elements.
    pub(crate) fn item_axes(&self) -> usize {
        if self.program.has_rows() { 3 } else { 4 }
    }

    /// How a pass is cut where a tensor is larger than a binding.
    fn chunks(&self, slots: &[Slot]) -> Result<Pieces> {
        let alignment = u64::from(self.limits.offset_alignment);
        let cut = Cut::new(self.geometry.axes, self.item_axes(), self.limits.binding_bytes, alignment);
        let named = |slot: &Slot| match *slot {
            Slot::Input(place) => (self.program.inputs[place].name.as_str(), self.placement(*slot)),
            _ => ("an output", self.placement(*slot)),
        };
        let pieces = cut.chunks(&slots.iter().map(named).collect::<Vec<_>>(), self.phasing.column_range)?;
        Ok(Pieces { cut, pieces })
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
    use crate::plan::operator::Asked;
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
            let (problem, choices) = prepared.choose(&tensors, Asked::default()).unwrap();
            let kernel = choices.last().unwrap().schedule.kernel;
            let kept = problem.destinations.iter().filter(|target| target.is_some()).count();
            (matches!(kernel, Kernel::RowSplit { .. }), kept)
        };
        assert_eq!(chosen(GradMode::Write, GradMode::Write), (true, 0));
        assert_eq!(chosen(GradMode::Write, GradMode::InPlace), (true, 1), "a value a row is moved afterwards");
        assert_eq!(chosen(GradMode::InPlace, GradMode::InPlace), (false, 0), "one workgroup takes the row");
    }
}
