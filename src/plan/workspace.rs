//! The regions of `work` (partials, group sums, row states, edges), and the reductions of partials: with numbers, or with
//! formulas.

use crate::plan::problem::SEGMENTS;
use crate::shape::Count;

/// Where the regions of `work` begin, in words.
pub(crate) struct Workspace<N = u64> {
    pub edge_base: N,
    pub segments_base: N,
    pub group_base: N,
    pub groups: N,
    pub state_base: N,
    /// First word that trips along the rows in hand leave.
    pub scan_base: N,
    pub words: N,
}

/// The words that one pass leaves in `work`.
pub(crate) struct Leaves<N = u64> {
    /// Number of sums over everything, and partials per sum.
    pub totals: u64,
    pub items: N,
    /// Terms of sums over groups, one per row and sum, and one per block of rows where blocks are summed first; of a pass over
    /// groups with their columns, terms of sums to groups or columns.
    pub terms: N,
    /// Partials per column, of all sums by column, and by group and column.
    pub columns: u64,
    /// Words of states per row.
    pub states: u64,
    /// Number of outputs whose rows may share a word.
    pub edges: u64,
    /// Words that trips along the rows leave of rows in hand.
    pub left: N,
}

impl<N: Count> Workspace<N> {
    /// Sized for the largest pass. `sums` are the words of all sums over groups and by column, and of the groups' rows.
    pub fn new(passes: &[Leaves<N>], [rows, cols]: [&N; 2], sums: N, groups: N) -> Workspace<N> {
        let most = |words: fn(&Leaves<N>) -> u64| passes.iter().map(words).max().unwrap_or(0);
        let items = |pass: &Leaves<N>| {
            let totals = N::of(pass.totals).times(pass.items.clone());
            totals.plus(pass.terms.clone()).plus(N::of(pass.columns).times(cols.clone()))
        };
        let segments_base = passes.iter().map(items).fold(N::of(0), N::at_least);
        let group_base = segments_base.clone().plus(N::of(most(|pass| pass.totals) * SEGMENTS));
        let state_base = group_base.clone().plus(sums);
        let edge_base = state_base.clone().plus(N::of(most(|pass| pass.states)).times(rows.clone()));
        let scan_base = edge_base.clone().plus(N::of(2 * most(|pass| pass.edges)).times(rows.clone()));
        let scans = passes.iter().map(|pass| pass.left.clone()).fold(N::of(0), N::at_least);
        let words = scan_base.clone().plus(scans);
        Workspace { edge_base, segments_base, group_base, groups, state_base, scan_base, words }
    }
}

/// `Span` of `reduce.wgsl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span<N = u64> {
    pub count: N,
    pub length: N,
    pub segments: N,
    pub items_base: N,
    pub results_base: N,
}

impl<N: Count> Span<N> {
    /// Sums of each group's rows, whose values lie behind `partials` words.
    pub fn groups(partials: N, rows: N, group_rows: N, workspace: &Workspace<N>) -> Span<N> {
        let (segments, results_base) = (workspace.groups.clone(), workspace.group_base.clone());
        Span { count: rows, length: group_rows, segments, items_base: partials, results_base }
    }

    /// Sums of each group's columns, whose values lie behind `partials` words.
    pub fn of_columns(partials: N, cols: N, workspace: &Workspace<N>) -> Span<N> {
        let (segments, results_base) = (workspace.groups.clone(), workspace.group_base.clone());
        Span { count: cols.clone().times(segments.clone()), length: cols, segments, items_base: partials, results_base }
    }

    /// The first of two dispatches: one sum per segment.
    pub fn segments(items: N, workspace: &Workspace<N>) -> Span<N> {
        let length = items.clone().div_ceil(N::of(SEGMENTS));
        let segments = items.clone().div_ceil(length.clone());
        Span { count: items, length, segments, items_base: N::of(0), results_base: workspace.segments_base.clone() }
    }

    /// The last dispatch: adds up segments if there are any, else the items.
    pub fn finish(items: N, segments: Option<&Span<N>>) -> Span<N> {
        let (count, items_base) = match segments {
            Some(first) => (first.segments.clone(), first.results_base.clone()),
            None => (items, N::of(0)),
        };
        Span { length: count.clone().at_least(N::of(1)), count, segments: N::of(1), items_base, results_base: N::of(0) }
    }

    /// Workgroups: one per segment, at most `most`.
    pub fn workgroups(&self, most: u32) -> N {
        self.segments.clone().at_least(N::of(1)).at_most(N::of(u64::from(most)))
    }
}
