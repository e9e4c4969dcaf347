//! Words of the workspace that a plan moves besides its tensors: partial sums, states, saved row values, halves at the ends
//! of rows. Counted as `explain` counts tensors: each word once per trip over it.

use super::dispatches::sum_items;
use super::groups::group_blocks;
use super::passes::PassChoice;
use super::problem::{Problem, SEGMENTS, most_partials};
use super::sizes::Sizes;
use crate::codegen::{GROUP_WORDS, edge_outputs, stage_words, sum_counts};
use crate::dispatch::{FieldName, Note, Planned, Slot, Word};
use crate::expr::{Move, Node, NodeId};
use crate::lower::{Over, Pass};
use crate::schedule::{Kernel, reads_row_groups, roots, sort_passes, trips_that_read};
use crate::shape::Scope;

impl Problem<'_> {
    /// Bytes of the workspace that a pass, and the dispatches that add up its sums, read and write.
    pub(super) fn workspace_bytes(&self, pass: usize, choice: &PassChoice) -> u64 {
        if choice.pieces.pieces.is_empty() {
            return 0;
        }
        let words = self.sum_words(pass, choice)
            + self.summed_words(pass, choice)
            + self.state_words(pass, choice)
            + self.row_words(pass, choice)
            + self.along_words(pass, choice);
        4 * words
    }

    /// Partial sums and terms that the pass leaves, read back, and the sums made of them.
    fn sum_words(&self, pass: usize, choice: &PassChoice) -> u64 {
        let [totals, to_groups, to_columns, to_both] = sum_counts(self.program, pass);
        let (rows, cols, groups) = (self.geometry.rows, self.geometry.cols, self.geometry.groups());
        // A workgroup that is alone writes its sums as totals.
        let items = if choice.schedule.alone { 0 } else { sum_items(self, &Sizes::of(self), choice) };
        let (partials, length) = (totals * items, items.div_ceil(SEGMENTS).max(1));
        let segments = if items > most_partials(self.limits) { totals * items.div_ceil(length) } else { 0 };
        let by_column = match choice.column_partials() {
            Some(partials) => 2 * partials * cols * (to_columns + to_both) + cols * (to_columns + groups * to_both),
            None => 0,
        };
        let terms = match choice.over {
            Over::GroupColumns => 2 * (to_groups + to_columns) * groups * cols + to_groups * groups + to_columns * cols,
            Over::RowsByColumn => 0,
            _ => to_groups * (2 * rows + groups),
        };
        let of_unequal = if self.program.ragged.is_some() && to_groups > 0 {
            // The rows of each group; of many rows, blocks are summed first.
            let blocks = group_blocks(self, &rows);
            GROUP_WORDS * groups + to_groups * if blocks > 0 { rows + 2 * blocks } else { 0 }
        } else {
            0
        };
        2 * (partials + segments) + by_column + terms + of_unequal
    }

    /// Sums of earlier passes that the pass reads.
    fn summed_words(&self, pass: usize, choice: &PassChoice) -> u64 {
        let (program, own) = (self.program, &self.program.passes[pass]);
        let (cols, groups) = (self.geometry.cols, self.geometry.groups());
        let times = dispatches_of_rows(own, choice);
        let chunks = choice.pieces.pieces.iter().filter(|chunk| chunk.first_col == 0).count() as u64;
        let read = program.within(own, &roots(program, own));
        let words = read.iter().map(|id| match *program.node(*id) {
            Node::GroupRows => groups * times,
            Node::FoldOver(_, Scope::Group, _) => groups * times,
            Node::FoldOver(_, to @ (Scope::Column | Scope::GroupColumn), _) => {
                let values = if to == Scope::Column { cols } else { groups * cols };
                let trips = if own.over.has_rows() { u64::from(trips_that_read(program, own, *id)) } else { 1 };
                let chunks = if to == Scope::Column { chunks } else { 1 };
                values * trips * chunks
            }
            _ => 0,
        });
        let row_groups = if reads_row_groups(program, own) { self.geometry.rows * times } else { 0 };
        words.sum::<u64>() + row_groups
    }

    /// States of split rows.
    fn state_words(&self, pass: usize, choice: &PassChoice) -> u64 {
        let Kernel::RowSplit { .. } = choice.schedule.kernel else { return 0 };
        let (own, rows) = (&self.program.passes[pass], self.geometry.rows);
        let slots = u64::from(choice.states.slots);
        let stages = own.stages.len();
        let each: Vec<u64> = (0..stages).map(|k| u64::from(stage_words(self.program, own, k))).collect();
        let written: u64 = if choice.states.known { 0 } else { rows * slots * each.iter().sum::<u64>() };
        let first = if choice.states.known { stages } else { 0 };
        let shards = self.phasing.shard.map(|shard| u64::from(shard.shards));
        let read_by = |phase: usize| {
            let slots = if shards.is_some() { 1 } else { slots };
            rows * slots * each[..phase].iter().sum::<u64>() * column_chunks(choice)
        };
        // Combined before they leave, and those of all shards once they have come.
        let exchanged = shards.filter(|_| !choice.states.known);
        let exchanged = exchanged.map_or(0, |shards| rows * (slots + 2 + shards) * each.iter().sum::<u64>());
        written + (first..=stages).map(read_by).sum::<u64>() + exchanged
    }

    /// Row values that are saved for later passes, and those that were saved, with the halves at the ends of rows.
    fn row_words(&self, pass: usize, choice: &PassChoice) -> u64 {
        let (own, rows) = (&self.program.passes[pass], self.geometry.rows);
        let known = own.known.as_ref().map_or(0, |known| (known.nodes.len() + known.poisons.len()) as u64);
        let outputs = edge_outputs(self.program, own, &choice.variant, choice.schedule.width);
        // Of an odd number of columns, a row shares one word with another; of an even one that begins inside a word, two.
        let edges = if self.geometry.cols % 2 == 1 { 1 } else { 2 };
        let edges = 2 * edges * outputs.len() as u64;
        rows * (own.saves.words() + known * dispatches_of_rows(own, choice) + edges)
    }

    /// What trips along streamed rows leave, the trips that read it, and what they read and write themselves.
    fn along_words(&self, pass: usize, choice: &PassChoice) -> u64 {
        let (program, own) = (self.program, &self.program.passes[pass]);
        let Kernel::RowScan { digit_bits, .. } = choice.schedule.kernel else { return 0 };
        let each = |id: NodeId| match program.node(id) {
            // Keys and columns; in each of its passes the keys twice and the columns once are read, and both written.
            Node::ArgSort(..) => 2 + 5 * sort_passes(digit_bits),
            // Left where any lane finds it, read from there, left where it belongs.
            Node::Permute(Move::Gather, _) => 3,
            _ => 1,
        };
        let words = own.along().map(|id| each(id) + u64::from(trips_that_read(program, own, id)));
        self.geometry.rows * self.geometry.cols * words.sum::<u64>()
    }

    /// Bytes of the workspace that dispatches beside the passes move: to find the rows of groups, and to sum kept gradients.
    pub(super) fn workspace_bytes_besides(&self, planned: &Planned) -> u64 {
        let found = match self.program.ragged {
            Some(_) if !self.geometry.is_empty() => self.geometry.rows + GROUP_WORDS * self.geometry.groups(),
            _ => 0,
        };
        let finished = planned.dispatches.iter().filter(|dispatch| matches!(dispatch.note, Note::Finish(_)));
        let of_workspace = finished.filter(|dispatch| dispatch.storage.iter().any(|r| r.slot == Slot::Workspace));
        let words = of_workspace.map(|dispatch| {
            let count = |name: &'static str| {
                let fields = dispatch.uniforms.iter().flat_map(|(_, uniform)| &uniform.fields);
                let field = fields.into_iter().find(|field| field.name == FieldName::Field(name));
                field.map_or(0, |field| if let Word::Count(count) = field.word { count } else { 0 })
            };
            // Written: a value per segment. Read: the segments of a value are summed; or values are narrowed.
            let is_written = dispatch.storage.last().is_some_and(|region| region.slot == Slot::Workspace);
            count("values") * if is_written { count("segments") } else { count("repeats").max(1) }
        });
        4 * (found + words.sum::<u64>())
    }
}

/// Dispatches of a pass that load a row's values: one per stage and one for the outputs of split rows, for each chunk of
/// columns.
fn dispatches_of_rows(pass: &Pass, choice: &PassChoice) -> u64 {
    match choice.schedule.kernel {
        Kernel::RowSplit { .. } if choice.states.known => column_chunks(choice),
        Kernel::RowSplit { .. } => (pass.stages.len() as u64 + 1) * column_chunks(choice),
        _ => column_chunks(choice),
    }
}

/// Chunks that a row is cut into.
pub(super) fn column_chunks(choice: &PassChoice) -> u64 {
    choice.pieces.pieces.iter().filter(|chunk| chunk.first == 0).count() as u64
}
