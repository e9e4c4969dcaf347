//! The dispatches of a problem, from the schedules of its passes: with numbers, or with formulas for an export.

use super::chunk::{Chunk, Cut};
use super::groups::group_blocks;
use super::passes::PassChoice;
use super::problem::{Problem, most_partials};
use super::sizes::{Known, Sizes};
use super::uniform::{Filled, SHAPE, params_uniform};
use super::workspace::{Leaves, Span, Workspace};
use crate::codegen::{
    Binding, KernelSource, ReduceKind, Slot, column_slots, edge_outputs, group_column_slots, group_values, pass_kernel,
    reduce, stitch, sum_counts, tensors, total_outputs,
};
use crate::dispatch::{Dispatch, Exchange, Note, Planned, Region, Uniform};
use crate::error::Result;
use crate::lower::{Over, Program};
use crate::plan::labels::labels;
use crate::schedule::{Kernel, Spread};
use std::ops::Range;
use std::sync::Arc;

/// Makes the dispatches of one problem.
pub(crate) struct Builder<'p, 'a, N> {
    pub(crate) problem: &'p Problem<'a>,
    pub(crate) choices: &'p [PassChoice],
    pub(crate) sizes: Sizes<N>,
    pub(crate) workspace: Workspace<N>,
    params: Arc<Uniform<N>>,
    pub(crate) dispatches: Vec<Dispatch<N>>,
    pub(crate) phases: Vec<usize>,
    pub(crate) exchanges: Vec<Exchange>,
}

/// The dispatches of a problem, given the choice for each pass.
pub(crate) fn dispatches<N: Known>(
    problem: &Problem<'_>,
    choices: &[PassChoice],
    sizes: Sizes<N>,
    bytes: u64,
) -> Result<Planned<N>> {
    let mut builder = Builder::new(problem, choices, sizes)?;
    let groups = builder.group_status()?;
    builder.widen_scalars();
    let scalars = std::mem::take(&mut builder.dispatches);
    let passes = problem.program.passes.len();
    builder.row_groups(groups.as_ref());
    for pass in 0..passes {
        if problem.phasing.forward == Some(pass) {
            builder.end_phase();
        }
        builder.pass(pass);
    }
    if problem.phasing.forward == Some(passes) {
        builder.end_phase(); // nothing follows in the backward phase
    }
    let (workspace, kept) = builder.finish_gradients()?;
    builder.found_inf();
    builder.end_phase();
    let (scalar_words, scalar_copies) = builder.scalar_copies();
    let Builder { dispatches, phases, exchanges, .. } = builder;
    Ok(Planned {
        indices: Vec::new(),
        scalars,
        dispatches,
        phases,
        exchanges,
        workspace,
        keeps_states: problem.phasing.forward.is_some(),
        scalar_words,
        scalar_copies,
        kept,
        labels: labels(problem).into_iter().collect(),
        groups,
        bytes,
    })
}

impl<'p, 'a, N: Known> Builder<'p, 'a, N> {
    fn new(problem: &'p Problem<'a>, choices: &'p [PassChoice], sizes: Sizes<N>) -> Result<Builder<'p, 'a, N>> {
        let program = problem.program;
        let leaves = choices.iter().zip(&program.passes).enumerate().map(|(index, (choice, pass))| {
            let [totals, group_sums, column_sums, _] = sum_counts(program, index);
            let terms = match choice.over {
                Over::GroupColumns => {
                    let each = sizes.groups.clone().times(sizes.cols.clone());
                    N::of(group_sums + column_sums).times(each)
                }
                _ => N::of(group_sums).times(sizes.rows.clone().plus(group_blocks(problem, &sizes.rows))),
            };
            Leaves {
                totals,
                items: sum_items(problem, &sizes, choice),
                terms,
                columns: choice.column_partials().map_or(0, |partials| partials * pass.totals.len() as u64),
                states: choice.states.first + choice.states.words(program, index) + pass.saves.words(),
                edges: edge_outputs(program, pass, &choice.variant, choice.schedule.width).len() as u64,
                scans: scan_words(problem, &sizes, choice),
            }
        });
        let leaves: Vec<Leaves<N>> = leaves.collect();
        let by_column = column_slots(program).len() as u64;
        let of_groups = N::of(group_values(program)).times(sizes.groups.clone());
        let row_groups = if program.ragged.is_some() { sizes.rows.clone() } else { N::of(0) };
        let sums = of_groups.plus(N::of(by_column).times(sizes.cols.clone())).plus(row_groups);
        let by_both = N::of(group_column_slots(program).len() as u64);
        let sums = sums.plus(by_both.times(sizes.groups.clone()).times(sizes.cols.clone()));
        let workspace = Workspace::new(&leaves, [&sizes.rows, &sizes.cols], sums, sizes.groups.clone());
        problem.check_workspace(workspace.words.number())?;
        let params = params_uniform(program.params.len());
        let (dispatches, phases, exchanges) = Default::default();
        Ok(Builder { problem, choices, sizes, workspace, params, dispatches, phases, exchanges })
    }

    /// Ends a phase: later dispatches are encoded apart.
    pub(crate) fn end_phase(&mut self) {
        self.phases.push(self.dispatches.len());
    }

    /// Adds a dispatch. A tensor named in `bytes` is bound by these bytes, any other whole.
    pub(crate) fn push(
        &mut self,
        source: KernelSource,
        grid: [N; 2],
        uniforms: Vec<(u32, Arc<Uniform<N>>)>,
        note: Note,
        bytes: &[(Slot, Range<u64>)],
    ) {
        let is_kept = |output: usize| self.problem.destinations[output].is_some();
        let region = |binding: &Binding| {
            let slot = match binding.slot {
                // A dispatch that finishes a gradient binds both the kept values and the output.
                Slot::Output(output) if is_kept(output) && !matches!(note, Note::Finish(_)) => Slot::Kept(output),
                slot => slot,
            };
            let named = bytes.iter().find(|(named, _)| *named == binding.slot);
            Region { slot, writes: binding.writes, bytes: named.map(|(_, bytes)| [bytes.start, bytes.end]) }
        };
        let storage = source.bindings.iter().map(region).collect();
        self.dispatches.push(Dispatch { wgsl: source.wgsl.into(), grid, uniforms, storage, note });
    }

    /// A pass: a dispatch per stage that leaves states, one for the outputs, each per chunk; then its sums.
    fn pass(&mut self, pass: usize) {
        let (problem, choice) = (self.problem, &self.choices[pass]);
        let program = problem.program;
        // Gradients of no rows are zeros, whatever a pass over columns would store.
        let unseen =
            (problem.geometry.is_empty() && program.found_inf).then(|| Program { found_inf: false, ..program.clone() });
        let noting = unseen.as_ref().unwrap_or(program);
        let stages = if choice.states.slots > 0 { program.passes[pass].stages.len() as u32 } else { 0 };
        for stage in if choice.states.known { stages } else { 0 }..=stages {
            for index in 0..choice.pieces.pieces.len() {
                let chunk = choice.pieces.pieces[index];
                let bytes = problem.chunk_bytes(pass, &choice.pieces.cut, chunk);
                let source = pass_kernel(noting, pass, &choice.schedule, &choice.variant, stage);
                let shape = self.shape_of_chunk(pass, index);
                let uniforms = vec![(0, shape.clone()), (1, self.params.clone())];
                self.push(source, self.grid(choice), uniforms.clone(), Note::Pass(pass), &bytes);
                if stage < stages {
                    continue;
                }
                for output in edge_outputs(program, &program.passes[pass], &choice.variant, choice.schedule.width) {
                    let workgroup = problem.reduce_lanes();
                    let source = stitch(program, pass, &choice.schedule, &choice.variant, output, workgroup);
                    let most = N::of(u64::from(problem.limits.workgroups));
                    let groups = self.items(choice, index).div_ceil(N::of(u64::from(workgroup))).at_most(most);
                    self.push(source, [groups, N::of(1)], uniforms.clone(), Note::Stitch(pass), &bytes);
                }
            }
            if stage < stages && problem.phasing.shard.is_some() {
                self.exchange(pass, stage as usize);
            }
        }
        self.reductions(pass);
    }

    /// The grid of every dispatch of a pass: that of its first chunk, the largest.
    fn grid(&self, choice: &PassChoice) -> [N; 2] {
        if let Kernel::ColumnSums { across, each, splits } = choice.schedule.kernel {
            let cols = choice.pieces.pieces[0].cols;
            let is_part = cols < choice.pieces.cut.axes[3];
            let cols = if is_part { N::of(cols) } else { self.sizes.cols.clone() };
            let most = N::of(u64::from(self.problem.limits.workgroups));
            let ranges = splits.min(self.problem.limits.workgroups);
            return [cols.div_ceil(N::of(u64::from(across * each))).at_most(most), N::of(u64::from(ranges))];
        }
        choice.spread(self.problem).grid(self.items(choice, 0), self.sizes.cols.clone())
    }

    /// Rows (elements, without rows) of a chunk.
    fn items(&self, choice: &PassChoice, index: usize) -> N {
        items(self.problem, &self.sizes, choice, index)
    }

    /// The fields of `Shape` that all dispatches of a pass share.
    pub(super) fn shape(&self, pass: usize) -> Filled<N> {
        let (sizes, workspace) = (&self.sizes, &self.workspace);
        let first = self.choices[pass].states.first;
        SHAPE
            .fill()
            .count("rows", sizes.rows.clone())
            .float("elements", sizes.elements.clone())
            .count("batch", sizes.batch.clone())
            .count("group_rows", sizes.group_rows.clone())
            .count("group_base", workspace.group_base.clone())
            .count("groups", sizes.groups.clone())
            .count("splits", N::of(self.choices[pass].splits(self.problem)))
            .count("state_base", workspace.state_base.clone().plus(N::of(first).times(sizes.rows.clone())))
            .count("edge_base", workspace.edge_base.clone())
            .count("scan_base", workspace.scan_base.clone())
            .count("classes", sizes.classes.clone())
    }

    /// Strides and first elements of all tensors of a pass, also of tensors that share a binding.
    fn tensors(&self, shape: &mut Filled<N>, pass: usize, first: impl Fn(Slot) -> u64) {
        for (tensor, slot) in tensors(self.problem.program, &self.problem.program.passes[pass]).into_iter().enumerate()
        {
            let strides = match slot {
                Slot::Input(input) => self.sizes.inputs[input].clone(),
                Slot::Output(output) => Some(self.sizes.outputs[output].clone()),
                _ => None,
            };
            for (axis, stride) in strides.into_iter().flatten().enumerate() {
                shape.element("tensors", 2 * tensor, axis, stride);
            }
            shape.element("tensors", 2 * tensor + 1, 0, N::of(first(slot)));
        }
    }

    fn shape_of_chunk(&self, pass: usize, index: usize) -> Arc<Uniform<N>> {
        let (problem, choice, sizes) = (self.problem, &self.choices[pass], &self.sizes);
        let (cut, pieces) = (&choice.pieces.cut, &choice.pieces.pieces);
        let chunk = pieces[index];
        let per_index = problem.items_of(cut, cut.all_columns(0, 1));
        let is_part = chunk.cols < cut.axes[3];
        let mut axes = sizes.axes.clone();
        if pieces.len() > 1 {
            axes[cut.axis] = N::of(chunk.len);
        }
        let slots = u64::from(choice.states.slots);
        // Only rows are numbered across chunks.
        let first_item = if problem.program.has_rows() { chunk.first * per_index } else { 0 };
        let [groups, _] = self.grid(choice);
        let mut shape = self
            .shape(pass)
            .count("cols", if is_part { N::of(chunk.cols) } else { sizes.cols.clone() })
            .count("first_col", sizes.first_col.clone().plus(N::of(if is_part { chunk.first_col } else { 0 })))
            .count("first_split", N::of(choice.first_split(index)))
            .count("slots", N::of(slots))
            .count("states", N::of(if problem.phasing.shard.is_some() { 1 } else { slots }))
            .count("items", self.items(choice, index))
            .count("first_item", N::of(first_item))
            .count("first_group", N::of(index as u64).times(groups.clone()))
            .count("sum_groups", choice.column_partials().map_or(N::of(pieces.len() as u64).times(groups), N::of))
            .vector("axes", axes);
        self.tensors(&mut shape, pass, |slot| match problem.is_whole(choice.over, slot) {
            true => problem.placement(slot).first,
            false => cut.first(&problem.placement(slot), chunk),
        });
        shape.done()
    }

    /// The reductions of a pass: sums over groups, then over everything in one step or two.
    fn reductions(&mut self, pass: usize) {
        let problem = self.problem;
        let program = problem.program;
        let is_last = pass == program.finishing_pass();
        // Gradients of no rows are zeros, whatever their formula gives for sums of nothing.
        let is_computed =
            |&output: &usize| !(problem.geometry.is_empty() && program.outputs[output].kind.is_gradient());
        let outputs = if is_last { total_outputs(program) } else { Vec::new() };
        let outputs: Vec<usize> = outputs.into_iter().filter(is_computed).collect();
        let [totals, group_sums, column_sums, _] = sum_counts(program, pass);
        let items = sum_items(problem, &self.sizes, &self.choices[pass]);
        if let Some(partials) = self.choices[pass].column_partials() {
            self.finish_columns(pass, partials);
        }
        if self.choices[pass].over == Over::GroupColumns {
            self.finish_group_columns(pass, N::of(totals).times(items.clone()), [group_sums, column_sums]);
        } else if group_sums > 0 && program.ragged.is_some() && !problem.geometry.is_empty() {
            self.ragged_sums(pass, N::of(totals).times(items.clone()), group_sums);
        } else if group_sums > 0 && !problem.geometry.is_empty() {
            let partials = N::of(totals).times(items.clone());
            let (rows, group_rows) = (self.sizes.rows.clone(), self.sizes.group_rows.clone());
            let span = Span::groups(partials, rows, group_rows, &self.workspace);
            self.reduction(pass, &ReduceKind::Groups, &span, &[]);
        }
        let is_written = self.choices[pass].schedule.alone;
        if outputs.is_empty() && (totals == 0 || is_written) {
            return;
        }
        let items = if totals == 0 { N::of(0) } else { items };
        let segments =
            (items.number() > most_partials(problem.limits)).then(|| Span::segments(items.clone(), &self.workspace));
        if let Some(first) = &segments {
            self.reduction(pass, &ReduceKind::Segments, first, &[]);
        }
        let modes = outputs.iter().map(|&output| problem.mode(output)).collect();
        self.reduction(pass, &ReduceKind::Finish(modes), &Span::finish(items, segments.as_ref()), &outputs);
    }

    pub(super) fn reduction(&mut self, pass: usize, kind: &ReduceKind, span: &Span<N>, outputs: &[usize]) {
        let problem = self.problem;
        let sums: u64 = sum_counts(problem.program, pass).into_iter().sum();
        let workgroup = problem.reduce_workgroup(span.length.number(), sums);
        let source = reduce(problem.program, pass, kind, outputs, workgroup);
        let sizes = &self.sizes;
        let items = if problem.program.has_rows() { sizes.rows.clone() } else { sizes.cols.clone() };
        let mut shape = self.shape(pass).count("cols", sizes.cols.clone()).count("items", items);
        shape = shape.count("first_col", sizes.first_col.clone()).vector("axes", sizes.axes.clone());
        self.tensors(&mut shape, pass, |slot| problem.placement(slot).first);
        for (index, &output) in outputs.iter().enumerate() {
            shape.element("tensors", 2 * index + 1, 0, N::of(problem.outputs[output].first));
        }
        let last = 2 + source.bindings.len() as u32;
        let uniforms = vec![(0, shape.done()), (1, span.uniform()), (last, self.params.clone())];
        let grid = [span.workgroups(problem.limits.workgroups), N::of(1)];
        let over_groups = matches!(kind, ReduceKind::Groups | ReduceKind::Blocks);
        let note = if over_groups { Note::Group(pass) } else { Note::Total(pass) };
        self.push(source, grid, uniforms, note, &[]);
    }
}

/// Rows (elements, without rows) of a chunk of a pass.
fn items<N: Known>(problem: &Problem<'_>, sizes: &Sizes<N>, choice: &PassChoice, index: usize) -> N {
    let pieces = &choice.pieces.pieces;
    match pieces.len() {
        1 if choice.over == Over::Groups => sizes.groups.clone(),
        1 if choice.over == Over::Columns => sizes.cols.clone(),
        1 if choice.over == Over::GroupColumns => sizes.groups.clone().times(sizes.cols.clone()),
        1 if problem.program.has_rows() => sizes.rows.clone(),
        1 => sizes.cols.clone(),
        _ => N::of(problem.items_of(&choice.pieces.cut, pieces[index])),
    }
}

/// Words that the scans of streamed rows leave, of the rows that all workgroups have in hand.
fn scan_words<N: Known>(problem: &Problem<'_>, sizes: &Sizes<N>, choice: &PassChoice) -> N {
    let spread = choice.spread(problem);
    if spread.held == 0 || choice.pieces.pieces.is_empty() {
        return N::of(0);
    }
    let [groups, _] = spread.grid(items(problem, sizes, choice, 0), sizes.cols.clone());
    // A window at an end of the row may begin before it, or end behind it.
    let cols = sizes.cols.clone().plus(N::of(2 * u64::from(choice.schedule.width)));
    groups.times(N::of(spread.held)).times(cols)
}

/// Partials per sum over everything that a pass leaves; 0 if it has no chunks.
pub(super) fn sum_items<N: Known>(problem: &Problem<'_>, sizes: &Sizes<N>, choice: &PassChoice) -> N {
    match choice.schedule.kernel {
        _ if choice.pieces.pieces.is_empty() => N::of(0),
        Kernel::Elementwise => {
            let [groups, _] = choice.spread(problem).grid(items(problem, sizes, choice, 0), sizes.cols.clone());
            groups.times(N::of(choice.pieces.pieces.len() as u64))
        }
        Kernel::ColumnSums { .. } => N::of(0),
        _ => sizes.rows.clone(),
    }
}

impl PassChoice {
    /// Partial sums per column that a pass by column leaves: one per chunk of rows and range of rows in it.
    pub(crate) fn column_partials(&self) -> Option<u64> {
        let Kernel::ColumnSums { splits, .. } = self.schedule.kernel else { return None };
        let of_rows = self.pieces.pieces.iter().filter(|chunk| chunk.first_col == 0).count();
        Some(of_rows as u64 * u64::from(splits))
    }

    /// States of a row, or partial sums of a column, that the dispatches before that of a chunk leave.
    fn first_split(&self, index: usize) -> u64 {
        let (pieces, chunk) = (&self.pieces.pieces, self.pieces.pieces[index]);
        match self.schedule.kernel {
            Kernel::ColumnSums { splits, .. } => chunk.first / pieces[0].len * u64::from(splits),
            Kernel::RowSplit { splits } if chunk.cols < self.pieces.cut.axes[3] => {
                chunk.first_col / pieces[0].cols * u64::from(splits)
            }
            _ if chunk.cols < self.pieces.cut.axes[3] => chunk.first_col / pieces[0].cols,
            _ => 0,
        }
    }

    /// Workgroups per row and chunk of columns; of sums by column, ranges of rows per group and chunk.
    pub(super) fn splits(&self, problem: &Problem<'_>) -> u64 {
        match self.schedule.kernel {
            Kernel::RowSplit { splits } => u64::from(splits),
            Kernel::ColumnSums { splits, .. } if self.shape.group_rows > 0 => {
                u64::from(splits) / (self.shape.rows / problem.geometry.group_rows).max(1)
            }
            _ => 1,
        }
    }

    /// How its items spread over workgroups.
    pub(crate) fn spread(&self, problem: &Problem<'_>) -> Spread {
        let schedule = &self.schedule;
        if schedule.alone {
            return Spread { splits: None, each: u64::from(u32::MAX), most: 1, held: 0, most_held: 0 };
        }
        Spread::new(schedule.kernel, schedule.workgroup, schedule.lanes, schedule.width, problem.limits)
    }
}

impl Problem<'_> {
    /// Most invocations of the dispatches that add up a pass's partial sums.
    pub(crate) fn sums_workgroup(&self, choice: &PassChoice) -> u32 {
        let rows = match choice.schedule.kernel {
            Kernel::Elementwise => 0,
            _ => self.geometry.rows.min(most_partials(self.limits)),
        };
        self.reduce_workgroup(rows, 1).max(self.reduce_lanes())
    }

    /// Rows (elements, without rows) of a chunk.
    pub(crate) fn items_of(&self, cut: &Cut, chunk: Chunk) -> u64 {
        chunk.len * cut.axes[cut.axis + 1..self.item_axes()].iter().product::<u64>()
    }

    /// Bytes of each tensor of a pass in one chunk, but for those that are bound whole.
    fn chunk_bytes(&self, pass: usize, cut: &Cut, chunk: Chunk) -> Vec<(Slot, Range<u64>)> {
        let slots = tensors(self.program, &self.program.passes[pass]);
        slots
            .into_iter()
            .filter(|slot| !self.is_whole(self.program.passes[pass].over, *slot))
            .map(|slot| (slot, cut.bytes(&self.placement(slot), chunk)))
            .collect()
    }
}
