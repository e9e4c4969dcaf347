//! Sums by column, and by group and column: the dispatches that add up what a pass leaves.

use super::dispatches::Builder;
use super::sizes::Known;
use super::workspace::Span;
use crate::codegen::{ReduceKind, column_finish, column_slots, group_values, sum_counts};
use crate::dispatch::Note;
use crate::shape::Scope;

impl<N: Known> Builder<'_, '_, N> {
    /// The first word of the sums by column; behind them lie those by group and column.
    fn column_base(&self) -> N {
        let groups = N::of(group_values(self.problem.program)).times(self.sizes.groups.clone());
        self.workspace.group_base.clone().plus(groups)
    }

    /// Adds up the partial sums of a pass by column, `partials` per column: first of its sums by column, then of those by
    /// group and column.
    pub(super) fn finish_columns(&mut self, pass: usize, partials: u64) {
        let [.., sums, by_both] = sum_counts(self.problem.program, pass);
        if sums > 0 {
            self.column_sums(pass, N::of(partials), N::of(0), sums);
        }
        let groups = self.problem.geometry.groups();
        if by_both == 0 || groups == 0 {
            return;
        }
        let choice = &self.choices[pass];
        // A chunk has whole groups, or a group whole chunks.
        let each = match choice.shape.rows < self.problem.geometry.group_rows {
            true => partials / groups,
            false => choice.splits(self.problem),
        };
        let cols = self.sizes.cols.clone();
        let slots = N::of(column_slots(self.problem.program).len() as u64).times(cols.clone());
        let span = Span {
            count: N::of(each),
            length: cols.clone(),
            segments: self.sizes.groups.clone(),
            items_base: N::of(sums * partials).times(cols),
            results_base: self.column_base().plus(slots),
        };
        self.add_columns(pass, Scope::GroupColumn, span, [N::of(partials), N::of(by_both)]);
    }

    /// Adds up the terms of a pass over groups with their columns, behind `before` words: to groups, then to columns.
    pub(super) fn finish_group_columns(&mut self, pass: usize, before: N, [to_groups, to_columns]: [u64; 2]) {
        let (cols, groups) = (self.sizes.cols.clone(), self.sizes.groups.clone());
        if to_groups > 0 && !self.problem.geometry.is_empty() {
            let span = Span::of_columns(before.clone(), cols.clone(), &self.workspace);
            self.reduction(pass, &ReduceKind::Groups, &span, &[]);
        }
        if to_columns > 0 {
            let before = before.plus(N::of(to_groups).times(groups.clone()).times(cols));
            self.column_sums(pass, groups, before, to_columns);
        }
    }

    /// Adds up `partials` per column of each sum by column, behind `before` words.
    fn column_sums(&mut self, pass: usize, partials: N, before: N, sums: u64) {
        let (length, results_base) = (self.sizes.cols.clone(), self.column_base());
        let span = Span { count: partials.clone(), length, segments: N::of(1), items_base: before, results_base };
        self.add_columns(pass, Scope::Column, span, [partials, N::of(sums)]);
    }

    /// Adds up partial sums by column, of each group or of all rows: `partials` of each of `sums`.
    fn add_columns(&mut self, pass: usize, to: Scope, span: Span<N>, [partials, sums]: [N; 2]) {
        let workgroup = self.problem.reduce_lanes();
        let most = N::of(u64::from(self.problem.limits.workgroups));
        let results = span.length.clone().times(span.segments.clone());
        let along = results.div_ceil(N::of(u64::from(workgroup))).at_most(most);
        let shape = self.shape(pass).count("sum_groups", partials);
        let source = column_finish(self.problem.program, pass, to, workgroup);
        self.push(source, [along, sums], vec![(0, shape.done()), (1, span.uniform())], Note::Columns(pass), &[]);
    }
}
