//! Groups of unequal length: the dispatch that finds their rows, and the sums over them.

use super::dispatches::Builder;
use super::problem::{ONE_STEP, Problem};
use super::sizes::Known;
use super::workspace::Span;
use crate::codegen::{BLOCK, ReduceKind, ragged_sums, row_groups};
use crate::dispatch::{GroupStatus, Note, Slot};
use crate::error::{Error, Result};
use crate::lower::RaggedInput;
use crate::shape::Ragged;

/// Fewest lanes per group.
const LEAST_LANES: u64 = 8;
/// Terms per lane of a group of average length.
const TERMS: u64 = 8;

/// Blocks of rows that are summed before groups of unequal length are; 0 where one dispatch adds up all.
pub(super) fn group_blocks<N: Known>(problem: &Problem<'_>, rows: &N) -> N {
    match problem.program.ragged.is_some() && rows.number() > ONE_STEP {
        true => rows.clone().div_ceil(N::of(BLOCK)),
        false => N::of(0),
    }
}

impl<N: Known> Builder<'_, '_, N> {
    /// The input that gives groups of unequal length, as its status is read; an error if it exceeds a binding.
    pub(super) fn group_status(&self) -> Result<Option<GroupStatus>> {
        let problem = self.problem;
        let Some(RaggedInput { index, by }) = problem.program.ragged else { return Ok(None) };
        let (placed, geometry) = (problem.placement(Slot::Input(index)), &problem.geometry);
        let [a0, a1, a2, _] = geometry.axes.map(|size| size.max(1));
        let sizes = match by {
            Ragged::Offsets => [1, 1, 1, geometry.groups() + 1],
            Ragged::Ids { .. } => [a0, a1, a2, 1],
        };
        let axes = [0, 1, 2, 3].map(|axis| [sizes[axis], placed.strides[axis]]);
        let last =
            axes.iter().fold(placed.first, |at, [size, stride]| at.saturating_add((size - 1).saturating_mul(*stride)));
        let (needed, allowed) = (last.saturating_add(1).saturating_mul(4), problem.limits.binding_bytes);
        if needed > allowed {
            let (what, limit) = ("what gives the groups".to_owned(), "max_storage_buffer_binding_size");
            return Err(Error::Limit { what, needed, allowed, limit });
        }
        let sizes = [geometry.rows, geometry.groups()];
        Ok(Some(GroupStatus { word: self.group_status_word(), input: index, by, axes, sizes }))
    }

    /// The dispatch that finds the rows of groups of unequal length, before all passes.
    pub(super) fn row_groups(&mut self, groups: Option<&GroupStatus>) {
        let problem = self.problem;
        let (Some(ragged), Some(groups)) = (problem.program.ragged, groups) else { return };
        if problem.geometry.is_empty() {
            return;
        }
        let workgroup = problem.reduce_lanes();
        let source = row_groups(problem.program, ragged, groups.word, workgroup);
        let mut shape = self.shape(0).vector("axes", self.sizes.axes.clone());
        for (axis, [_, stride]) in groups.axes.iter().enumerate() {
            shape.element("tensors", 0, axis, N::of(*stride));
        }
        shape.element("tensors", 1, 0, N::of(problem.placement(Slot::Input(ragged.index)).first));
        let indices = groups.sizes[0].max(groups.sizes[1] + 1);
        let grid = [N::of(u64::from(problem.groups_of(indices, workgroup))), N::of(1)];
        self.push(source, grid, vec![(0, shape.done())], Note::RowGroups, &[]);
    }

    /// The sums of a pass over groups of unequal length, whose terms lie behind `partials` words.
    pub(super) fn ragged_sums(&mut self, pass: usize, partials: N, sums: u64) {
        let problem = self.problem;
        let (rows, groups) = (self.sizes.rows.clone(), self.sizes.groups.clone());
        let blocks = group_blocks(problem, &rows);
        if !blocks.is_zero() {
            let results_base = partials.clone().plus(N::of(sums).times(rows.clone()));
            let (count, length, segments) = (rows.clone(), N::of(BLOCK), blocks.clone());
            let span = Span { count, length, segments, items_base: partials.clone(), results_base };
            self.reduction(pass, &ReduceKind::Blocks, &span, &[]);
        }
        let workgroup = problem.reduce_lanes();
        let average = problem.geometry.rows.div_ceil(problem.geometry.groups());
        let lanes = average.div_ceil(TERMS).next_power_of_two().clamp(LEAST_LANES, u64::from(workgroup));
        let source = ragged_sums(problem.program, pass, [workgroup, lanes as u32], !blocks.is_zero());
        let results_base = self.workspace.group_base.clone();
        let span = Span { count: rows, length: blocks, segments: groups.clone(), items_base: partials, results_base };
        let most = N::of(u64::from(problem.limits.workgroups));
        let grid = [groups.div_ceil(N::of(u64::from(workgroup) / lanes)).at_most(most), N::of(1)];
        let uniforms = vec![(0, self.shape(pass).done()), (1, span.uniform())];
        self.push(source, grid, uniforms, Note::Group(pass), &[]);
    }
}
