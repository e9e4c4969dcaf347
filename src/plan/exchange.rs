//! States of the rows' stages between dispatches: kept for the gradients, or exchanged with other shards. Pure.

use crate::codegen::{Slot, stage_words, state_words, states};
use crate::plan::chunk::Pieces;
use crate::plan::problem::{Exchange, Problem, Step};
use crate::plan::uniform::StatesUniform;
use crate::plan::workspace::Memory;
use crate::schedule::{Kernel, PassSchedule};

/// What becomes of the states of one pass.
pub(crate) struct RowStates {
    /// States of a row and a stage that lie in `work` for all dispatches to see; 0 where there are none.
    pub slots: u32,
    /// Whether the pass before has made them.
    pub known: bool,
}

/// Dispatches in order, and the parts they make.
#[derive(Default)]
pub(crate) struct Steps {
    pub steps: Vec<Step>,
    pub parts: Vec<usize>,
    pub exchanges: Vec<Exchange>,
}

impl Steps {
    /// What follows is encoded apart.
    pub fn end_part(&mut self) {
        self.parts.push(self.steps.len());
    }
}

impl Problem<'_> {
    pub(crate) fn row_states(&self, schedules: &[PassSchedule], chunks: &[Pieces]) -> Vec<RowStates> {
        let mut all: Vec<RowStates> = Vec::new();
        for (pass, (schedule, Pieces { pieces, .. })) in schedules.iter().zip(chunks).enumerate() {
            let Kernel::RowSplit { splits } = schedule.kernel else {
                all.push(RowStates { slots: 0, known: false });
                continue;
            };
            let parts = pieces.iter().filter(|chunk| chunk.first == 0).count() as u32;
            let stages = &self.program.passes[pass].stages;
            let backward = self.staging.forward.is_some_and(|forward| pass >= forward);
            let known =
                backward && pass > 0 && all[pass - 1].slots > 0 && self.program.passes[pass - 1].stages == *stages;
            let slots = if known { all[pass - 1].slots } else { splits * parts };
            all.push(RowStates { slots, known });
        }
        all
    }

    /// This shard's states of a stage leave; what follows begins with those of all shards.
    pub(crate) fn exchange(&self, pass: usize, stage: usize, memory: &Memory, rows: &RowStates, plan: &mut Steps) {
        let Some(shard) = self.staging.shard else { return };
        let what = &self.program.passes[pass];
        let place = plan.exchanges.len();
        let count = self.geometry.rows as u32;
        let words = stage_words(self.program, what, stage);
        let slot = state_words(self.program, what);
        let first = memory.state_base as u32 + stage as u32 * count * rows.slots * slot;
        let workgroup = self.reduce_lanes();
        let push = |plan: &mut Steps, slots: [Slot; 2], uniform: StatesUniform| {
            let source = states(self.program, pass, stage, slots, workgroup);
            let grid = [self.groups_of(self.geometry.rows, workgroup), 1];
            plan.steps.push(Step::States { source, grid, uniform });
        };
        let leaving = StatesUniform {
            rows: count,
            count: rows.slots,
            source_first: first,
            source_row: rows.slots * slot,
            source_state: slot,
            result_first: 0,
            result_row: words,
            reserved: 0,
        };
        push(plan, [Slot::Work, Slot::States(place)], leaving);
        plan.exchanges.push(Exchange { words });
        plan.end_part();
        let coming = StatesUniform {
            rows: count,
            count: shard.shards,
            source_first: 0,
            source_row: words,
            source_state: count * words,
            result_first: first,
            result_row: rows.slots * slot,
            reserved: 0,
        };
        push(plan, [Slot::Gathered(place), Slot::Work], coming);
    }
}
