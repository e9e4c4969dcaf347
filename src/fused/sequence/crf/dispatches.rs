//! The dispatches of a linear chain: scores, alpha and beta, gradients and marginals of rows, sums over sequences. Pure.

use super::{AXES, Crf, EMISSIONS, MARGINALS, SCORES};
use crate::codegen::template::fill;
use crate::dispatch::{Dispatch, Mode, Note, OutputKind, Planned, Slot, Uniform};
use crate::error::{Error, Result};
use crate::fused::sequence::problem::{Problem, Wanted, region};
use crate::fused::sequence::rows::imported_with;
use crate::fused::sequence::setup::{SCALAR_WORDS, losses};
use crate::fused::sequence::space::{LatticeWords, Space};
use crate::fused::sequence::window::{self, Classes, Rows, access_text, windows};
use crate::plan::uniform::UniformType;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

const SCORE_FUNCTIONS: &str = include_str!("../../../../shaders/crf_scores.wgsl");
const WEIGHTS: &str = include_str!("../../../../shaders/crf_weights.wgsl");
const LATTICE: &str = include_str!("../../../../shaders/crf_lattice.wgsl");
const GRADIENT: &str = include_str!("../../../../shaders/crf_gradient.wgsl");
const SUMS: &str = include_str!("../../../../shaders/crf_sums.wgsl");
const SCORE_GRADIENT: &str = include_str!("../../../../shaders/crf_score_gradient.wgsl");

/// `Scores` of `crf_weights.wgsl`.
static OF_SCORES: UniformType = UniformType { words: 12, fields: &[("transitions", 0), ("starts", 4), ("ends", 8)] };

/// `Gradient` of `crf_score_gradient.wgsl`.
static OF_GRADIENT: UniformType = UniformType {
    words: 8,
    fields: &[
        ("count", 0),
        ("cols", 1),
        ("sums", 2),
        ("first", 3),
        ("row_stride", 4),
        ("col_stride", 5),
        ("reserved0", 6),
        ("reserved1", 7),
    ],
};

/// Workgroup memory beside the states of two frames: bounds, and a product per lane.
const OTHER_BYTES: u64 = 64 + 8 * 1024;

fn is_shared(problem: &Problem<'_>) -> bool {
    16 * problem.capacity.classes + OTHER_BYTES <= u64::from(problem.limits.workgroup_bytes)
}

/// Lanes of a lattice's workgroup.
fn lanes(problem: &Problem<'_>) -> Result<u32> {
    problem.workgroup(problem.capacity.classes, problem.capacity.classes.pow(2) + problem.capacity.frames)
}

/// Scores of a chain: transitions, starts and ends.
fn scores(problem: &Problem<'_>) -> u64 {
    problem.sizes.classes * (problem.sizes.classes + 2)
}

/// Whether a gradient of scores is asked for.
fn has_score_gradient(problem: &Problem<'_>) -> bool {
    SCORES.iter().any(|input| problem.grad(*input).is_some())
}

fn marginals<'a>(problem: &Problem<'a>) -> Option<Wanted<'a>> {
    problem.output(&OutputKind::Extra(MARGINALS.to_owned()))
}

/// Whether alpha and beta are kept.
fn keeps(problem: &Problem<'_>) -> bool {
    has_score_gradient(problem) || problem.grad(EMISSIONS).is_some() || marginals(problem).is_some()
}

fn space(problem: &Problem<'_>) -> Result<Space> {
    let (tags, frames) = (problem.sizes.classes, problem.sizes.frames);
    let sums = if has_score_gradient(problem) { problem.sizes.sequences * scores(problem) } else { 0 };
    let lattice = LatticeWords {
        gathered: 0,
        rows: frames.max(1),
        normalised: true,
        states: 2 * tags,
        kept_frames: if keeps(problem) { frames } else { 0 },
        shared: is_shared(problem),
        segment_frames: problem.segment_frames(tags.div_ceil(u64::from(lanes(problem)?)) * (tags + 1)),
        frames,
        scores: 2 * scores(problem) + sums,
    };
    Space::new(problem.sizes, 0, lattice, problem.limits)
}

/// The emissions of these sequences, which one binding must hold.
fn rows(problem: &Problem<'_>, tensors: &[Classes<'_>], sequences: Range<u64>) -> Result<Option<Rows>> {
    match &windows(problem, tensors, sequences, 1)?[..] {
        [] => Ok(None),
        [rows] => Ok(Some(*rows)),
        _ => {
            let needed = problem.input(EMISSIONS).layout.extent() * problem.input(EMISSIONS).dtype.size();
            let (what, limit) = ("emissions of crf".to_owned(), "max_storage_buffer_binding_size");
            Err(Error::Limit { what, needed, allowed: problem.limits.binding_bytes, limit })
        }
    }
}

/// A kernel of the chain: its title, its shader, and its constants.
struct Kernel {
    title: &'static str,
    shader: &'static str,
    constants: String,
}

impl Kernel {
    fn text(&self, access: Option<String>, shared: bool) -> Arc<str> {
        let text = imported_with(self.shader, shared).replace("// import crf_scores\n", SCORE_FUNCTIONS);
        let constants = ("constants".to_owned(), self.constants.clone());
        let hooks: BTreeMap<String, String> =
            [constants].into_iter().chain(access.map(|access| ("access".to_owned(), access))).collect();
        fill(&format!("crf: {}", self.title), &text, &hooks).expect("the shader takes these hooks").into()
    }
}

/// The dispatches of a problem.
pub(super) fn plan(crf: &Crf, problem: &Problem<'_>) -> Result<Planned> {
    let space = space(problem)?;
    let (weighting, lengths) = (crf.weighting()?, Crf::lengths());
    let mut dispatches = Vec::new();
    if space.sizes.sequences > 0 {
        dispatches.push(lengths.setup(problem, &space, weighting)?);
        dispatches.push(weights(problem, &space)?);
    }
    for sequences in space.chunks() {
        dispatches.extend(lattice(problem, &space, sequences.clone())?);
        dispatches.extend(sums(problem, &space, sequences.clone())?);
        // In place of the emissions, last.
        dispatches.extend(row_outputs(problem, &space, sequences)?);
    }
    for (k, input) in SCORES.into_iter().enumerate() {
        let Some(grad) = problem.grad(input) else { continue };
        dispatches.push(score_gradient(problem, &space, k, grad)?);
    }
    dispatches.extend(losses(problem, &space, weighting)?);
    let indices = lengths.statuses(problem);
    Ok(Planned { dispatches, workspace: space.words, scalar_words: SCALAR_WORDS, indices, ..Planned::default() })
}

/// Exponentials of the scores.
fn weights(problem: &Problem<'_>, space: &Space) -> Result<Dispatch> {
    let [transitions, starts, ends] = SCORES.map(|input| {
        let placed = problem.input(input);
        let stride = |axis: usize| placed.layout.strides.get(axis).map_or(0, |stride| *stride as u64);
        [stride(0), stride(1), problem.first(placed), 0]
    });
    let uniform = OF_SCORES.fill().vector("transitions", transitions).vector("starts", starts).vector("ends", ends);
    let workgroup = problem.workgroup(64, 0)?;
    let constants = format!("const WG: u32 = {workgroup}u;\n");
    let text = Kernel { title: "exponentials of scores", shader: WEIGHTS, constants }.text(None, true);
    let wgsl = text.replace("var<storage, read> ", &format!("var<storage, {}> ", problem.access())).into();
    let mut storage = vec![region(Slot::Workspace, true)];
    storage.extend(SCORES.map(|input| problem.read(input)));
    let uniforms = vec![(0, space.uniform(0..0)), (1, uniform.done())];
    let grid = [scores(problem).div_ceil(u64::from(workgroup)), 1];
    check_grid(problem, grid)?;
    Ok(Dispatch { wgsl, grid, uniforms, storage, note: Note::Whole })
}

/// An error for more workgroups than a grid has.
fn check_grid(problem: &Problem<'_>, grid: [u64; 2]) -> Result<()> {
    let (needed, allowed) = (grid[0].max(grid[1]), u64::from(problem.limits.workgroups));
    if needed <= allowed {
        return Ok(());
    }
    let what = format!("{} transitions of crf", problem.sizes.classes.pow(2));
    Err(Error::Limit { what, needed, allowed, limit: "max_compute_workgroups_per_dimension" })
}

fn emissions<'a>(problem: &Problem<'a>) -> Classes<'a> {
    Classes::new(Slot::Input(EMISSIONS), problem.input(EMISSIONS), AXES)
}

/// Alpha, and where it is kept beta beside it: one dispatch per segment of the frames.
fn lattice(problem: &Problem<'_>, space: &Space, sequences: Range<u64>) -> Result<Vec<Dispatch>> {
    let own = emissions(problem);
    // Without frames there is one row for the uniform, which no kernel reads.
    let none = Rows { first: [0; 3], count: [1; 3], classes: problem.sizes.classes };
    let rows = rows(problem, &[own], sequences.clone())?.unwrap_or(none);
    let keep = keeps(problem);
    let constants = format!(
        "const WG: u32 = {}u;\nconst KEEP: bool = {keep};\nconst STATES: u32 = {}u;\nconst CELLS: u32 = 1u;\n",
        lanes(problem)?,
        problem.capacity.classes
    );
    let access = access_text(problem, &rows, &own, None, 3);
    let kernel = Kernel { title: "the lattice", shader: LATTICE, constants };
    let wgsl = kernel.text(Some(access), space.lattice.shared);
    let of_rows = window::uniform(problem, &rows, &own, None);
    let dispatch = |segment: u64| Dispatch {
        wgsl: wgsl.clone(),
        grid: [sequences.end - sequences.start, if keep { 2 } else { 1 }],
        uniforms: vec![(0, space.segment_uniform(sequences.clone(), segment)), (1, of_rows.clone())],
        storage: vec![region(Slot::Workspace, true), window::region(problem, &rows, &own, problem.pooled)],
        note: Note::Whole,
    };
    Ok((0..space.lattice.segments()).map(dispatch).collect())
}

/// The gradient of the emissions and the marginals, where they are asked for.
fn row_outputs(problem: &Problem<'_>, space: &Space, sequences: Range<u64>) -> Result<Vec<Dispatch>> {
    let own = emissions(problem);
    let mut dispatches = Vec::new();
    for (wanted, is_marginals) in [(problem.grad(EMISSIONS), false), (marginals(problem), true)] {
        let Some(wanted) = wanted else { continue };
        let out = Classes::new(Slot::Output(wanted.index), wanted.placed, AXES);
        let Some(rows) = rows(problem, &[own, out], sequences.clone())? else { continue };
        let rounds = problem.rounds(problem.sizes.frames * problem.sizes.sequences);
        let constants = format!(
            "const WG: u32 = {}u;\nconst CELLS: u32 = 1u;\nconst MARGINALS: bool = {is_marginals};\nconst ACCUMULATE: bool = {};\n",
            problem.workgroup(problem.sizes.classes / 4, rounds * problem.sizes.classes)?,
            wanted.mode == Mode::Accumulate
        );
        let access = access_text(problem, &rows, &own, Some((&out, wanted.mode)), 3);
        let kernel = Kernel { title: "gradients of emissions", shader: GRADIENT, constants };
        let mut storage = vec![region(Slot::Workspace, true)];
        if !matches!(wanted.mode, Mode::InPlace(_)) {
            storage.push(window::region(problem, &rows, &own, problem.pooled));
        }
        storage.push(window::region(problem, &rows, &out, true));
        let of_rows = window::uniform(problem, &rows, &own, Some(&out));
        let uniforms = vec![(0, space.uniform(sequences.clone())), (1, of_rows)];
        let (wgsl, grid) = (kernel.text(Some(access), true), [problem.grid(rows.len()), 1]);
        dispatches.push(Dispatch { wgsl, grid, uniforms, storage, note: Note::Whole });
    }
    Ok(dispatches)
}

/// Sums of scores over the frames of each sequence, if a gradient of scores is asked for.
fn sums(problem: &Problem<'_>, space: &Space, sequences: Range<u64>) -> Result<Option<Dispatch>> {
    let own = emissions(problem);
    if !has_score_gradient(problem) {
        return Ok(None);
    }
    let none = Rows { first: [0; 3], count: [1; 3], classes: problem.sizes.classes };
    let rows = rows(problem, &[own], sequences.clone())?.unwrap_or(none);
    // Each lane visits all frames.
    problem.workgroup(1, 2 * problem.sizes.frames * u64::from(problem.limits.invocations()))?;
    let workgroup = problem.workgroup(scores(problem), 0)?;
    let constants = format!("const WG: u32 = {workgroup}u;\nconst CELLS: u32 = 1u;\n");
    let access = access_text(problem, &rows, &own, None, 3);
    let wgsl = Kernel { title: "sums of scores", shader: SUMS, constants }.text(Some(access), true);
    let grid = [sequences.end - sequences.start, scores(problem).div_ceil(u64::from(workgroup))];
    check_grid(problem, grid)?;
    let of_rows = window::uniform(problem, &rows, &own, None);
    let uniforms = vec![(0, space.uniform(sequences)), (1, of_rows)];
    let storage = vec![region(Slot::Workspace, true), window::region(problem, &rows, &own, problem.pooled)];
    Ok(Some(Dispatch { wgsl, grid, uniforms, storage, note: Note::Whole }))
}

/// The gradient of transitions (0), starts (1) or ends (2).
fn score_gradient(problem: &Problem<'_>, space: &Space, which: usize, grad: Wanted<'_>) -> Result<Dispatch> {
    let tags = problem.sizes.classes;
    let (count, first_sum) = ([tags * tags, tags, tags][which], [0, tags * tags, tags * tags + tags][which]);
    let workgroup = problem.workgroup(64, 2 * problem.sizes.sequences)?;
    let accumulate = grad.mode == Mode::Accumulate;
    let constants = format!("const WG: u32 = {workgroup}u;\nconst ACCUMULATE: bool = {accumulate};\n");
    let wgsl = Kernel { title: "gradients of scores", shader: SCORE_GRADIENT, constants }.text(None, true);
    let strides = &grad.placed.layout.strides;
    let (row_stride, col_stride) = if which == 0 { (strides[0], strides[1]) } else { (0, strides[0]) };
    let uniform: Arc<Uniform> = OF_GRADIENT
        .fill()
        .count("count", count)
        .count("cols", tags)
        .count("sums", first_sum)
        .count("first", problem.first(grad.placed))
        .count("row_stride", row_stride as u64)
        .count("col_stride", col_stride as u64)
        .done();
    let grid = [count.div_ceil(u64::from(workgroup)), 1];
    check_grid(problem, grid)?;
    let uniforms = vec![(0, space.uniform(0..problem.sizes.sequences)), (1, uniform)];
    let storage = vec![region(Slot::Workspace, true), region(Slot::Output(grad.index), true)];
    Ok(Dispatch { wgsl, grid, uniforms, storage, note: Note::Whole })
}

/// The lattice and its share of the workspace, in words.
pub(super) fn explain(problem: &Problem<'_>) -> Result<String> {
    let space = space(problem)?;
    let memory = if is_shared(problem) { "workgroup memory" } else { "the workspace" };
    let kept = if keeps(problem) {
        format!("alpha and beta kept: {} B", space.lattice_bytes())
    } else {
        "nothing kept of it".to_owned()
    };
    let tags = problem.sizes.classes;
    Ok(format!(
        "lattice of {tags} tags per frame, {} transitions each, {} lanes per sequence, frame by frame in {memory}; {kept}; {} \
         chunks of at most {} sequences\nthe workspace moves {} B",
        tags * tags,
        lanes(problem)?,
        space.chunks().count(),
        space.chunk,
        space.moved()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::crf;
    use crate::limits::Limits;
    use crate::plan::operator::{Conditions, Operator};
    use crate::plan::spec::PlanSpec;
    use crate::shape::DType;

    #[test]
    fn word_indices_are_the_shader_compilers() {
        let spec = PlanSpec::new()
            .input("emissions", DType::F32, &[3, 7, 5])
            .input("transitions", DType::F32, &[5, 5])
            .input("start_transitions", DType::F32, &[5])
            .input("end_transitions", DType::F32, &[5])
            .input("tags", DType::I32, &[3, 7])
            .input("lengths", DType::I32, &[3])
            .grad("start_transitions");
        let prepared = crf().prepare(&spec, &Limits::WEBGPU).unwrap();
        let planned = prepared.plan(&prepared.planned().unwrap(), Conditions::default()).unwrap();
        let [_, weights, _, _, gradient, _] = &planned.dispatches[..] else { panic!("six dispatches") };
        OF_SCORES.check(&weights.wgsl, "Scores");
        OF_GRADIENT.check(&gradient.wgsl, "Gradient");
    }

    #[test]
    fn shaders_are_valid_with_their_stubs() {
        for shader in [WEIGHTS, LATTICE, GRADIENT, SUMS, SCORE_GRADIENT] {
            let shader = shader.replace("// import crf_scores\n", SCORE_FUNCTIONS);
            crate::fused::sequence::validate_stub(&shader);
        }
    }
}
