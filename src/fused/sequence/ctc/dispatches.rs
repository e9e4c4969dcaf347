//! The dispatches of CTC: lengths and labels, probabilities of the lattice, alpha and beta, gradients, losses. Pure.

use super::Ctc;
use crate::dispatch::{Dispatch, Mode, Planned, Slot};
use crate::error::Result;
use crate::fused::sequence::problem::Problem;
use crate::fused::sequence::rows::{Gather, Kernel, gather, gradients, lattice};
use crate::fused::sequence::setup::{SCALAR_WORDS, losses};
use crate::fused::sequence::space::{LatticeWords, Space};
use crate::fused::sequence::window::Classes;
use std::ops::Range;

const LATTICE: &str = include_str!("../../../../shaders/ctc_lattice.wgsl");
const GRADIENT: &str = include_str!("../../../../shaders/ctc_gradient.wgsl");

/// Workgroup memory beside the states of two frames.
const OTHER_BYTES: u64 = 64;

/// Most classes whose occupancies workgroup memory holds at a time.
const MOST_TILE: u64 = 2048;

/// States per frame of a lattice over this number of labels.
fn states(labels: u64) -> u64 {
    2 * labels + 1
}

/// Whether workgroup memory holds the states of two frames, of the longest sequence that the plan was made for.
fn is_shared(problem: &Problem<'_>) -> bool {
    16 * states(problem.capacity.labels) + OTHER_BYTES <= u64::from(problem.limits.workgroup_bytes)
}

/// Lanes of a lattice's workgroup.
fn lanes(problem: &Problem<'_>) -> Result<u32> {
    problem.workgroup(states(problem.capacity.labels), 0)
}

fn space(ctc: &Ctc, problem: &Problem<'_>) -> Result<Space> {
    let (labels, frames) = (problem.sizes.labels, problem.sizes.frames);
    let lattice = LatticeWords {
        gathered: 2 * (labels + 1),
        rows: frames,
        normalised: ctc.is_logits(),
        states: 2 * states(labels),
        kept_frames: if problem.grad(0).is_some() { frames } else { 0 },
        shared: is_shared(problem),
        segment_frames: problem.segment_frames(states(labels).div_ceil(u64::from(lanes(problem)?))),
        frames,
        scores: 0,
    };
    Space::new(problem.sizes, u64::from(ctc.blank), lattice, problem.limits)
}

/// The dispatches of a problem.
pub(super) fn plan(ctc: &Ctc, problem: &Problem<'_>) -> Result<Planned> {
    let space = space(ctc, problem)?;
    let (weighting, lengths) = (ctc.weighting()?, ctc.lengths());
    let mut dispatches = Vec::new();
    if space.sizes.sequences > 0 {
        dispatches.push(lengths.setup(problem, &space, weighting)?);
    }
    let placed = problem.input(0);
    let [n, t] = ctc.axes(placed.layout.shape.len());
    let classes = Classes::new(Slot::Input(0), placed, [n, t, None]);
    for sequences in space.chunks() {
        let logits = Gather { logits: ctc.is_logits(), cells: 1, text: None };
        dispatches.extend(gather(problem, &space, &classes, logits, sequences.clone())?);
        dispatches.extend(lattice(problem, &space, lattice_kernel(ctc, problem)?, sequences.clone()));
        dispatches.extend(ctc_gradients(ctc, problem, &space, &classes, sequences)?);
    }
    dispatches.extend(losses(problem, &space, weighting)?);
    let indices = lengths.statuses(problem);
    Ok(Planned { dispatches, workspace: space.words, scalar_words: SCALAR_WORDS, indices, ..Planned::default() })
}

/// The kernel of alpha and, for gradients, beta.
fn lattice_kernel(ctc: &Ctc, problem: &Problem<'_>) -> Result<Kernel> {
    let (capacity, keep) = (states(problem.capacity.labels), problem.grad(0).is_some());
    let workgroup = lanes(problem)?;
    let exponent = (ctc.log_epsilon / std::f64::consts::LN_2).floor();
    let (mantissa, exponent) = match ctc.log_epsilon.is_finite() {
        true => ((ctc.log_epsilon - exponent * std::f64::consts::LN_2).exp(), exponent),
        false => (0.0, 0.0),
    };
    let constants = format!(
        "const WG: u32 = {workgroup}u;\nconst KEEP: bool = {keep};\nconst ZERO_INFINITY: bool = {};\n\
         const STATES: u32 = {capacity}u;\nconst EPSILON_MANTISSA: f32 = {mantissa:?};\nconst EPSILON_EXPONENT: f32 = {exponent:?};\n",
        ctc.zero_infinity
    );
    Ok(Kernel { shader: LATTICE, constants })
}

/// The gradient's dispatches, if it is asked for.
fn ctc_gradients(
    ctc: &Ctc,
    problem: &Problem<'_>,
    space: &Space,
    classes: &Classes<'_>,
    sequences: Range<u64>,
) -> Result<Vec<Dispatch>> {
    let Some(wanted) = problem.grad(0) else { return Ok(Vec::new()) };
    let [n, t] = ctc.axes(wanted.placed.layout.shape.len());
    let grad = Classes::new(Slot::Output(wanted.index), wanted.placed, [n, t, None]);
    let (classes_count, states) = (problem.sizes.classes, states(problem.sizes.labels));
    let tile = classes_count.next_multiple_of(4).min(MOST_TILE);
    // Of a row: states twice, labels once and per tile, and each tile's classes cleared and stored.
    let rows = problem.rounds(problem.sizes.frames * problem.sizes.sequences);
    let iterations = rows * (3 * states + classes_count.div_ceil(tile) * (states + 2 * tile));
    let constants = format!(
        "const WG: u32 = {}u;\nconst LOGITS: bool = {};\nconst CELLS: u32 = 1u;\nconst TILE: u32 = {tile}u;\n\
         const ACCUMULATE: bool = {};\n",
        problem.workgroup((classes_count / 4).max(states), iterations)?,
        ctc.is_logits(),
        wanted.mode == Mode::Accumulate
    );
    let kernel = Kernel { shader: GRADIENT, constants };
    gradients(problem, space, &kernel, (classes, &grad, wanted.mode), (sequences, 1))
}

/// The lattice and its share of the workspace, in words.
pub(super) fn explain(ctc: &Ctc, problem: &Problem<'_>) -> Result<String> {
    let space = space(ctc, problem)?;
    let states = states(problem.sizes.labels);
    let memory = if is_shared(problem) { "workgroup memory" } else { "the workspace" };
    let kept = match problem.grad(0) {
        Some(_) => format!("alpha and beta kept for the gradients: {} B", space.lattice_bytes()),
        None => "nothing kept of it".to_owned(),
    };
    let turns = space.chunks().count();
    let trips = if ctc.is_logits() {
        "classes are read in two trips for their softmax, and again for gradients"
    } else {
        "classes are read for gradients, else those of labels alone"
    };
    Ok(format!(
        "lattice of {states} states per frame, {} lanes per sequence, frame by frame in {memory}; {kept}; {turns} chunks of \
         at most {} sequences\n{trips}; the workspace moves {} B",
        lanes(problem)?,
        space.chunk,
        space.moved()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::sequence::window;
    use crate::fused::{ctc, optax_ctc};
    use crate::limits::Limits;
    use crate::plan::operator::{Conditions, Operator};
    use crate::plan::spec::PlanSpec;
    use crate::shape::DType;

    fn spec() -> PlanSpec {
        PlanSpec::new()
            .input("logits", DType::F32, &[7, 3, 5])
            .input("targets", DType::I32, &[3, 2])
            .input("input_lengths", DType::I32, &[3])
            .input("target_lengths", DType::I32, &[3])
            .grad("logits")
    }

    #[test]
    fn word_indices_are_the_shader_compilers() {
        let prepared = ctc().from_logits().prepare(&spec(), &Limits::WEBGPU).unwrap();
        let planned = prepared.plan(&prepared.planned().unwrap(), Conditions::default()).unwrap();
        let [setup, rows, lattice, gradient, losses] = &planned.dispatches[..] else { panic!("five dispatches") };
        for dispatch in [setup, rows, lattice, gradient, losses] {
            crate::fused::sequence::space::SEQUENCES.check(&dispatch.wgsl, "Sequences");
        }
        window::WINDOW.check(&rows.wgsl, "Window");
        window::WINDOW.check(&gradient.wgsl, "Window");
        crate::fused::sequence::setup::TENSORS.check(&setup.wgsl, "Tensors");
        crate::fused::sequence::setup::OF_LOSSES.check(&losses.wgsl, "Losses");
    }

    #[test]
    fn shaders_are_valid_with_their_stubs() {
        for shader in [LATTICE, GRADIENT] {
            crate::fused::sequence::validate_stub(shader);
        }
    }

    #[test]
    fn sequences_take_turns_where_a_binding_does_not_hold_all_their_lattices() {
        let limits = Limits { binding_bytes: 1800, ..Limits::WEBGPU };
        let prepared = ctc().from_logits().prepare(&spec(), &limits).unwrap();
        let planned = prepared.plan(&prepared.planned().unwrap(), Conditions::default()).unwrap();
        assert_eq!(planned.dispatches.len(), 2 + 3 * 2);
        assert!(4 * planned.workspace <= 1800, "{}", planned.workspace);
        let text = prepared.explain(&prepared.planned().unwrap(), Conditions::default(), "x").unwrap();
        assert!(text.contains("2 chunks of at most 2 sequences"), "{text}");
    }

    #[test]
    fn a_padding_has_kernels_of_its_own() {
        let spec = PlanSpec::new()
            .input("logits", DType::F16, &[3, 7, 5])
            .input("logit_paddings", DType::F32, &[3, 7])
            .input("labels", DType::U32, &[3, 2])
            .input("label_paddings", DType::F32, &[3, 2]);
        let prepared = optax_ctc().prepare(&spec, &Limits::WEBGPU).unwrap();
        let planned = prepared.plan(&prepared.planned().unwrap(), Conditions::default()).unwrap();
        assert!(planned.dispatches[0].wgsl.contains("fn is_bad_padding"));
        assert_eq!(planned.dispatches[2].grid, [3, 1], "no beta without gradients");
    }
}
