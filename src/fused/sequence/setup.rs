//! The dispatches at both ends of an operator over sequences: lengths and labels checked, losses reduced.

use super::problem::{Problem, region};
use super::space::{Sizes, Space};
use super::{SEQUENCE, Weighting};
use crate::codegen::template::fill;
use crate::dispatch::{Dispatch, IndexRange, IndexStatus, Mode, Note, OutputKind, Slot};
use crate::error::Result;
use crate::plan::uniform::UniformType;
use std::collections::BTreeMap;

const SETUP: &str = include_str!("../../../shaders/sequence_setup.wgsl");
const LOSSES: &str = include_str!("../../../shaders/sequence_losses.wgsl");
const PADDINGS: &str = include_str!("../../../shaders/sequence_paddings.wgsl");

/// `Tensors` of `sequence_setup.wgsl`.
pub(super) static TENSORS: UniformType =
    UniformType { words: 12, fields: &[("labels", 0), ("frame_lengths", 4), ("label_lengths", 8)] };

/// `Losses` of `sequence_losses.wgsl`.
pub(super) static OF_LOSSES: UniformType =
    UniformType { words: 4, fields: &[("first", 0), ("stride", 1), ("reserved0", 2), ("reserved1", 3)] };

/// The inputs that say how long sequences are: their labels, and of frames and of labels either lengths or paddings.
#[derive(Clone, Copy)]
pub(super) struct LengthInputs {
    pub labels: usize,
    pub frame_lengths: usize,
    /// The same as `frame_lengths` where each frame has a label.
    pub label_lengths: usize,
    /// Whether they are paddings: 1 past the end, else 0.
    pub paddings: bool,
    /// Whether equal labels of a sequence are linked.
    pub links: bool,
}

impl LengthInputs {
    /// The status words, and the elements that they report on.
    pub fn statuses(&self, problem: &Problem<'_>) -> Vec<IndexStatus> {
        let sizes = problem.sizes;
        let status = |word: u64, input: usize, inner: Option<u64>, range: IndexRange| {
            let [along, across] = strides(&problem.input(input).layout.strides, inner.is_some());
            IndexStatus { word, input, axes: [[sizes.sequences, along], [inner.unwrap_or(1), across]], range }
        };
        let length = |word: u64, input: usize, most: u64| status(word, input, None, IndexRange::Lengths(most));
        let labels = status(LABELS_WORD, self.labels, Some(sizes.labels), IndexRange::Labels(sizes.classes));
        let frames = length(FRAMES_WORD, self.frame_lengths, sizes.frames);
        match self.paddings {
            true => vec![labels],
            false if self.label_lengths == self.frame_lengths => vec![frames, labels],
            false => vec![frames, length(LENGTHS_WORD, self.label_lengths, sizes.labels), labels],
        }
    }

    /// The dispatch that checks lengths and labels.
    pub fn setup(&self, problem: &Problem<'_>, space: &Space, weighting: Weighting) -> Result<Dispatch> {
        let tensor = |input: usize, has_items: bool, word: u64| {
            let placed = problem.input(input);
            let [along, across] = strides(&placed.layout.strides, has_items);
            [along, across, problem.first(placed), word]
        };
        let uniform = TENSORS
            .fill()
            .vector("labels", tensor(self.labels, true, LABELS_WORD))
            .vector("frame_lengths", tensor(self.frame_lengths, self.paddings, FRAMES_WORD))
            .vector("label_lengths", tensor(self.label_lengths, self.paddings, LENGTHS_WORD));
        let text = self.setup_text(problem, weighting)?;
        let mut storage = vec![region(Slot::Scalars, true), region(Slot::Workspace, true), problem.read(self.labels)];
        storage.push(problem.read(self.frame_lengths));
        if self.label_lengths != self.frame_lengths {
            storage.push(problem.read(self.label_lengths));
        }
        let uniforms = vec![(0, space.uniform(0..space.sizes.sequences)), (1, uniform.done())];
        let grid = [problem.grid(space.sizes.sequences), 1];
        Ok(Dispatch { wgsl: text.into(), grid, uniforms, storage, note: Note::Whole })
    }

    fn setup_text(&self, problem: &Problem<'_>, weighting: Weighting) -> Result<String> {
        let Sizes { sequences, frames, labels, .. } = problem.capacity;
        let links = if self.links { labels } else { 1 };
        // Each lane counts all paddings of a sequence.
        let by_each = if self.paddings { frames + labels } else { 0 };
        problem.workgroup(1, by_each * u64::from(problem.limits.invocations()))?;
        let workgroup = problem.workgroup(64, problem.rounds(sequences) * (labels * links + frames))?;
        let constants = format!("const WG: u32 = {workgroup}u;\nconst LINKS: bool = {};\n", self.links);
        let hooks = BTreeMap::from([
            ("constants".to_owned(), constants),
            ("lengths".to_owned(), self.lengths_text(problem.access())),
            ("weight".to_owned(), weighting.text()),
        ]);
        let access = format!("var<storage, {}> ", problem.access());
        let shader = SETUP.replace("var<storage, read> ", &access).replace("// import sequence\n", SEQUENCE);
        let title = format!("{}: lengths and labels", problem.name);
        Ok(fill(&title, &shader, &hooks).expect("the shader takes these hooks"))
    }

    fn lengths_text(&self, access: &str) -> String {
        let begin = SETUP.split("// hook begin: lengths\n").nth(1).expect("the shader has this hook");
        let own = begin.split("// hook end").next().expect("the hook has an end");
        let text = if self.paddings { PADDINGS } else { own };
        let text = match self.label_lengths == self.frame_lengths {
            true => text.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>(),
            false => text.to_owned(),
        };
        let one = ["label_lengths[t.z", "frame_lengths[t.z"];
        let text = if self.label_lengths == self.frame_lengths { text.replace(one[0], one[1]) } else { text };
        text.replace("var<storage, read> ", &format!("var<storage, {access}> "))
    }
}

/// Words of the buffer of scalars: one status word each for frames' lengths, labels' lengths, and labels.
pub(super) const SCALAR_WORDS: u64 = 3;
const FRAMES_WORD: u64 = 0;
const LENGTHS_WORD: u64 = 1;
const LABELS_WORD: u64 = 2;

/// Strides along sequences and along their items; of one sequence by itself the only axis is that of its items, if it has any.
pub(super) fn strides(strides: &[usize], has_items: bool) -> [u64; 2] {
    match (strides, has_items) {
        ([along, across], _) => [*along as u64, *across as u64],
        ([across], true) => [0, *across as u64],
        ([along], false) => [*along as u64, 0],
        _ => [0, 0],
    }
}

/// The dispatch that reduces the losses; none for gradients alone.
///
/// # Errors
/// As [`Problem::workgroup`].
pub(super) fn losses(problem: &Problem<'_>, space: &Space, weighting: Weighting) -> Result<Option<Dispatch>> {
    let Some(wanted) = problem.output(&OutputKind::Loss) else { return Ok(None) };
    let (accumulate, reduce) = (wanted.mode == Mode::Accumulate, weighting != Weighting::None);
    let constants = format!(
        "const WG: u32 = {}u;\nconst ACCUMULATE: bool = {accumulate};\nconst REDUCE: bool = {reduce};\nconst MEAN: bool = {};\n",
        problem.workgroup(64, 2 * problem.sizes.sequences)?,
        reduce && weighting != Weighting::Sum
    );
    let hooks = BTreeMap::from([("constants".to_owned(), constants)]);
    let shader = LOSSES.replace("// import sequence\n", SEQUENCE);
    let title = format!("{}: losses of sequences", problem.name);
    let wgsl = fill(&title, &shader, &hooks).expect("the shader takes these hooks").into();
    let stride = wanted.placed.layout.strides.first().map_or(0, |stride| *stride as u64);
    let uniform = OF_LOSSES.fill().count("first", problem.first(wanted.placed)).count("stride", stride).done();
    let uniforms = vec![(0, space.uniform(0..space.sizes.sequences)), (1, uniform)];
    let storage = vec![region(Slot::Workspace, true), region(Slot::Output(wanted.index), true)];
    Ok(Some(Dispatch { wgsl, grid: [1, 1], uniforms, storage, note: Note::Whole }))
}
