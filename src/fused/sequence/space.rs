//! The workspace of a batch of sequences: heads, labels, rows, and states of lattices. Pure numbers.

use crate::dispatch::Uniform;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::plan::uniform::UniformType;
use std::ops::Range;
use std::sync::Arc;

/// `Sequences` of `sequence.wgsl`.
pub(super) static SEQUENCES: UniformType = UniformType {
    words: 24,
    fields: &[
        ("all", 0),
        ("first", 1),
        ("count", 2),
        ("frames", 3),
        ("labels", 4),
        ("classes", 5),
        ("blank", 6),
        ("state_words", 7),
        ("gathered_words", 8),
        ("heads", 9),
        ("labels_at", 10),
        ("links", 11),
        ("padding", 12),
        ("gathered", 13),
        ("rows", 14),
        ("alpha", 15),
        ("beta", 16),
        ("carried", 17),
        ("checkpoint", 18),
        ("segments", 19),
        ("segment", 20),
        ("segment_frames", 21),
        ("scores", 22),
        ("reserved0", 23),
    ],
};

/// Words of a sequence's head.
const HEAD_WORDS: u64 = 4;

/// Sizes of a batch of sequences: those that its tensors have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub sequences: u64,
    pub frames: u64,
    pub labels: u64,
    pub classes: u64,
}

/// Words that a lattice needs per sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LatticeWords {
    /// Of one row of gathered probabilities.
    pub gathered: u64,
    /// Rows of a sequence.
    pub rows: u64,
    /// Whether rows keep a maximum and the inverse of a sum.
    pub normalised: bool,
    /// Of alpha, and again of beta, in one frame.
    pub states: u64,
    /// Frames of alpha, and of beta, that are kept.
    pub kept_frames: u64,
    /// Whether workgroup memory holds the states that one frame hands to the next.
    pub shared: bool,
    /// Frames (or diagonals) that one dispatch passes, and all.
    pub segment_frames: u64,
    pub frames: u64,
    /// Words of scores that all sequences have in common, and of their sums per sequence.
    pub scores: u64,
}

impl LatticeWords {
    fn per_sequence(&self) -> u64 {
        let rows = self.rows * (self.gathered + if self.normalised { 2 } else { 0 });
        rows + self.carried() + self.checkpoint() + 2 * self.kept_frames * self.states
    }

    /// Dispatches that pass the lattice one after the other.
    pub fn segments(&self) -> u64 {
        self.frames.div_ceil(self.segment_frames.max(1)).max(1)
    }

    /// Words of two frames of alpha, and of beta.
    fn carried(&self) -> u64 {
        if self.shared { 0 } else { 4 * self.states }
    }

    /// Words of the states that one dispatch leaves for the next.
    fn checkpoint(&self) -> u64 {
        if self.segments() > 1 { 2 * self.states } else { 0 }
    }
}

/// Where everything lies in the workspace, and the sequences whose lattices are in it at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub sizes: Sizes,
    pub blank: u64,
    pub lattice: LatticeWords,
    /// Sequences per chunk.
    pub chunk: u64,
    /// First words of heads, labels, links and paddings, then of what each chunk has.
    heads: [u64; 4],
    gathered: u64,
    /// Words in all.
    pub words: u64,
}

impl Space {
    /// As many sequences per chunk as a binding holds the lattices of.
    ///
    /// # Errors
    /// [`Error::Limit`] if it does not hold one.
    pub fn new(sizes: Sizes, blank: u64, lattice: LatticeWords, limits: &Limits) -> Result<Space> {
        let Sizes { sequences, frames, labels, .. } = sizes;
        let lengths = [HEAD_WORDS, labels, labels, frames].map(|words| words.saturating_mul(sequences));
        let mut heads = [0; 4];
        for k in 1..4 {
            heads[k] = heads[k - 1] + lengths[k - 1];
        }
        let gathered = heads[3] + lengths[3] + lattice.scores;
        let each = lattice.per_sequence();
        let allowed = limits.binding_bytes.min(limits.buffer_bytes).min(u64::from(u32::MAX)) / 4;
        let chunk = allowed.saturating_sub(gathered).checked_div(each).unwrap_or(sequences).min(sequences);
        if chunk == 0 && sequences > 0 {
            let what = format!("the workspace of one sequence of {frames} frames and {labels} labels");
            let (needed, allowed) = (gathered.saturating_add(each).saturating_mul(4), 4 * allowed);
            return Err(Error::Limit { what, needed, allowed, limit: "max_storage_buffer_binding_size" });
        }
        let words = (gathered + chunk * each).max(1);
        Ok(Space { sizes, blank, lattice, chunk: chunk.max(1), heads, gathered, words })
    }

    /// The sequences of each chunk.
    pub fn chunks(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let all = self.sizes.sequences;
        (0..all.div_ceil(self.chunk)).map(move |k| k * self.chunk..((k + 1) * self.chunk).min(all))
    }

    /// The uniform of dispatches over these sequences.
    pub fn uniform(&self, sequences: Range<u64>) -> Arc<Uniform> {
        self.segment_uniform(sequences, 0)
    }

    /// That of the dispatch that passes this segment of their lattices.
    pub fn segment_uniform(&self, sequences: Range<u64>, segment: u64) -> Arc<Uniform> {
        let Space { sizes, blank, lattice, chunk, heads: [heads, labels_at, links, padding], gathered, .. } = *self;
        let rows = gathered + chunk * lattice.rows * lattice.gathered;
        let alpha = rows + if lattice.normalised { 2 * chunk * lattice.rows } else { 0 };
        let beta = alpha + chunk * lattice.kept_frames * lattice.states;
        let carried = beta + chunk * lattice.kept_frames * lattice.states;
        let checkpoint = carried + chunk * lattice.carried();
        SEQUENCES
            .fill()
            .count("all", sizes.sequences)
            .count("first", sequences.start)
            .count("count", sequences.end - sequences.start)
            .count("frames", sizes.frames)
            .count("labels", sizes.labels)
            .count("classes", sizes.classes)
            .count("blank", blank)
            .count("state_words", lattice.states)
            .count("gathered_words", lattice.gathered)
            .count("heads", heads)
            .count("labels_at", labels_at)
            .count("links", links)
            .count("padding", padding)
            .count("gathered", gathered)
            .count("rows", rows)
            .count("alpha", alpha)
            .count("beta", beta)
            .count("carried", carried)
            .count("checkpoint", checkpoint)
            .count("segments", lattice.segments())
            .count("segment", segment)
            .count("segment_frames", lattice.segment_frames)
            .count("scores", gathered - lattice.scores)
            .done()
    }

    /// Bytes of alpha and of beta together, of one chunk.
    pub fn lattice_bytes(&self) -> u64 {
        8 * self.chunk * self.lattice.kept_frames * self.lattice.states
    }

    /// Bytes that a step moves in the workspace: each word of a lattice is written, and read.
    pub fn moved(&self) -> u64 {
        8 * self.sizes.sequences * self.lattice.per_sequence() + 8 * self.gathered
    }
}
