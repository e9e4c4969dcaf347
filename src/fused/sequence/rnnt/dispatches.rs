//! The dispatches of a transducer: lengths and labels, probabilities of cells, alpha and beta, gradients, losses. Pure.

use super::{AXES, Rnnt};
use crate::dispatch::{Dispatch, Mode, Planned, Slot};
use crate::error::Result;
use crate::fused::sequence::problem::Problem;
use crate::fused::sequence::rows::{Gather, Kernel, gather, gradients, lattice};
use crate::fused::sequence::setup::{SCALAR_WORDS, losses};
use crate::fused::sequence::space::{LatticeWords, Space};
use crate::fused::sequence::window::Classes;
use std::ops::Range;

const LATTICE: &str = include_str!("../../../../shaders/rnnt_lattice.wgsl");
const GRADIENT: &str = include_str!("../../../../shaders/rnnt_gradient.wgsl");
const GATHERED: &str = include_str!("../../../../shaders/rnnt_gathered.wgsl");

/// Workgroup memory beside the states of two diagonals.
const OTHER_BYTES: u64 = 64;

/// Whether workgroup memory holds the states of two diagonals, of the most labels that the plan was made for.
fn is_shared(problem: &Problem<'_>) -> bool {
    16 * (problem.capacity.labels + 1) + OTHER_BYTES <= u64::from(problem.limits.workgroup_bytes)
}

/// Lanes of a lattice's workgroup.
fn lanes(problem: &Problem<'_>) -> Result<u32> {
    problem.workgroup(problem.capacity.labels + 1, 0)
}

fn space(rnnt: &Rnnt, problem: &Problem<'_>) -> Result<Space> {
    let (cells, frames) = (problem.sizes.labels + 1, problem.sizes.frames);
    let lattice = LatticeWords {
        gathered: 4,
        rows: frames * cells,
        normalised: rnnt.fused_log_softmax,
        states: 2 * cells,
        kept_frames: if problem.grad(0).is_some() { frames } else { 0 },
        shared: is_shared(problem),
        segment_frames: problem.segment_frames(cells.div_ceil(u64::from(lanes(problem)?))),
        frames: frames + cells,
        scores: 0,
    };
    Space::new(problem.sizes, rnnt.blank_of(problem.sizes.classes), lattice, problem.limits)
}

/// The dispatches of a problem.
pub(super) fn plan(rnnt: &Rnnt, problem: &Problem<'_>) -> Result<Planned> {
    let space = space(rnnt, problem)?;
    let (weighting, lengths) = (rnnt.weighting()?, Rnnt::lengths());
    let mut dispatches = Vec::new();
    if space.sizes.sequences > 0 {
        dispatches.push(lengths.setup(problem, &space, weighting)?);
    }
    let classes = Classes::new(Slot::Input(0), problem.input(0), AXES);
    let cells = problem.sizes.labels + 1;
    for sequences in space.chunks() {
        let cells = Gather { logits: rnnt.fused_log_softmax, cells, text: Some(GATHERED) };
        dispatches.extend(gather(problem, &space, &classes, cells, sequences.clone())?);
        let constants = format!(
            "const WG: u32 = {}u;\nconst KEEP: bool = {};\nconst STATES: u32 = {}u;\n",
            lanes(problem)?,
            problem.grad(0).is_some(),
            problem.capacity.labels + 1
        );
        dispatches.extend(lattice(problem, &space, Kernel { shader: LATTICE, constants }, sequences.clone()));
        dispatches.extend(rnnt_gradients(rnnt, problem, &space, &classes, sequences)?);
    }
    dispatches.extend(losses(problem, &space, weighting)?);
    let indices = lengths.statuses(problem);
    Ok(Planned { dispatches, workspace: space.words, scalar_words: SCALAR_WORDS, indices, ..Planned::default() })
}

/// The gradient's dispatches, if it is asked for.
fn rnnt_gradients(
    rnnt: &Rnnt,
    problem: &Problem<'_>,
    space: &Space,
    classes: &Classes<'_>,
    sequences: Range<u64>,
) -> Result<Vec<Dispatch>> {
    let Some(wanted) = problem.grad(0) else { return Ok(Vec::new()) };
    let grad = Classes::new(Slot::Output(wanted.index), wanted.placed, AXES);
    let cells = problem.sizes.labels + 1;
    let rounds = problem.rounds(space.lattice.rows * problem.sizes.sequences);
    let constants = format!(
        "const WG: u32 = {}u;\nconst LOGITS: bool = {};\nconst CELLS: u32 = {cells}u;\nconst CLAMP: f32 = {:?};\n\
         const ACCUMULATE: bool = {};\n",
        problem.workgroup(problem.sizes.classes / 4, rounds * problem.sizes.classes.div_ceil(2))?,
        rnnt.fused_log_softmax,
        // Beyond f32 there is nothing to clamp.
        (rnnt.clamp as f32).clamp(-1.0, f32::MAX),
        wanted.mode == Mode::Accumulate
    );
    let kernel = Kernel { shader: GRADIENT, constants };
    gradients(problem, space, &kernel, (classes, &grad, wanted.mode), (sequences, cells))
}

/// The lattice and its share of the workspace, in words.
pub(super) fn explain(rnnt: &Rnnt, problem: &Problem<'_>) -> Result<String> {
    let space = space(rnnt, problem)?;
    let memory = if is_shared(problem) { "workgroup memory" } else { "the workspace" };
    let kept = match problem.grad(0) {
        Some(_) => format!("alpha and beta kept for the gradients: {} B", space.lattice_bytes()),
        None => "nothing kept of it".to_owned(),
    };
    Ok(format!(
        "lattice of {} cells per frame, {} lanes per sequence, diagonal by diagonal in {memory}; {kept}; {} chunks of at most \
         {} sequences\nthe workspace moves {} B",
        problem.sizes.labels + 1,
        lanes(problem)?,
        space.chunks().count(),
        space.chunk,
        space.moved()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shaders_are_valid_with_their_stubs() {
        for shader in [LATTICE, GRADIENT] {
            crate::fused::sequence::validate_stub(shader);
        }
    }
}
