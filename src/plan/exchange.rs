//! Exchanges of row states with other shards. Pure.

use crate::codegen::{Slot, stage_words, state_words, states};
use crate::dispatch::{Exchange, Note};
use crate::plan::dispatches::Builder;
use crate::plan::sizes::Known;
use crate::plan::uniform::ROW_STATES;

impl<N: Known> Builder<'_, '_, N> {
    /// Ends a phase with this shard's states of a stage in `States`; the next one first combines `AllStates`.
    pub(crate) fn exchange(&mut self, pass: usize, stage: usize) {
        let Some(shard) = self.problem.phasing.shard else { return };
        let states = &self.choices[pass].states;
        let exchanged = &self.problem.program.passes[pass];
        let index = self.exchanges.len();
        let rows = self.problem.geometry.rows;
        let words = u64::from(stage_words(self.problem.program, exchanged, stage));
        let slot = u64::from(state_words(self.problem.program, exchanged));
        let slots = u64::from(states.slots);
        let first = self.workspace.state_base.number() + stage as u64 * rows * slots * slot;
        // States per row; first word, words per row and per state of the source; first word, words per row of the result.
        let leaving = [slots, first, slots * slot, slot, 0, words];
        self.combine_states(pass, stage, [Slot::Workspace, Slot::States(index)], leaving);
        self.exchanges.push(Exchange { rows, words, shards: u64::from(shard.shards) });
        self.end_phase();
        let coming = [u64::from(shard.shards), 0, words, rows * words, first, slots * slot];
        self.combine_states(pass, stage, [Slot::AllStates(index), Slot::Workspace], coming);
    }

    fn combine_states(&mut self, pass: usize, stage: usize, slots: [Slot; 2], counts: [u64; 6]) {
        let problem = self.problem;
        let workgroup = problem.reduce_lanes();
        let rows = problem.geometry.rows;
        let [count, source_first, source_row, source_state, result_first, result_row] = counts.map(N::of);
        let uniform = ROW_STATES
            .fill()
            .count("rows", N::of(rows))
            .count("count", count)
            .count("source_first", source_first)
            .count("source_row", source_row)
            .count("source_state", source_state)
            .count("result_first", result_first)
            .count("result_row", result_row);
        let source = states(problem.program, pass, stage, slots, workgroup);
        let grid = [N::of(u64::from(problem.groups_of(rows, workgroup))), N::of(1)];
        self.push(source, grid, vec![(0, uniform.done())], Note::States(pass), &[]);
    }
}
