//! The dispatches of a lattice: its probabilities gathered from rows of classes, alpha and beta, gradients of rows.

use super::problem::{Problem, region};
use super::space::Space;
use super::window::{self, Classes, access_text, windows};
use super::{SEQUENCE, WINDOW_TEXT};
use crate::codegen::template::fill;
use crate::dispatch::{Dispatch, Mode, Note, Slot};
use crate::error::Result;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

const CARRY: &str = include_str!("../../../shaders/sequence_carry.wgsl");
const CARRY_STORED: &str = include_str!("../../../shaders/sequence_carry_stored.wgsl");
const CHECKPOINT: &str = include_str!("../../../shaders/sequence_checkpoint.wgsl");
const ROWS: &str = include_str!("../../../shaders/sequence_rows.wgsl");

/// What an operator gathers from each row.
#[derive(Clone, Copy)]
pub(super) struct Gather {
    /// Whether the classes are logits, whose rows are normalised.
    pub logits: bool,
    /// Cells per frame.
    pub cells: u64,
    /// Functions `is_passed`, `gathered_count` and `gathered_class`; the shader's own where `None`.
    pub text: Option<&'static str>,
}

/// A skeleton over sequences with its imports; the states of a frame are carried in workgroup memory.
pub(super) fn imported(shader: &str) -> String {
    imported_with(shader, true)
}

/// The same with states carried in workgroup memory, or in the workspace.
pub(super) fn imported_with(shader: &str, shared: bool) -> String {
    let carry = if shared { CARRY } else { CARRY_STORED };
    let text = shader.replace("// import sequence\n", SEQUENCE).replace("// import sequence_window\n", WINDOW_TEXT);
    text.replace("// import sequence_carry\n", carry).replace("// import sequence_checkpoint\n", CHECKPOINT)
}

/// One dispatch per window of these sequences' rows.
///
/// # Errors
/// As [`windows`].
pub(super) fn gather(
    problem: &Problem<'_>,
    space: &Space,
    classes: &Classes<'_>,
    gather: Gather,
    sequences: Range<u64>,
) -> Result<Vec<Dispatch>> {
    let Gather { logits, cells, text } = gather;
    let own = ROWS.split("// hook begin: gathered\n").nth(1).and_then(|rest| rest.split("// hook end").next());
    let gathered = text.or(own).expect("the shader has this hook");
    let items = if logits { problem.sizes.classes / 4 } else { space.lattice.gathered / 2 };
    let trips = if logits { problem.sizes.classes.div_ceil(2) } else { 0 };
    let rounds = problem.rounds(space.lattice.rows * problem.sizes.sequences);
    let workgroup = problem.workgroup(items, rounds * (trips + space.lattice.gathered / 2))?;
    let constants =
        format!("const WG: u32 = {workgroup}u;\nconst LOGITS: bool = {logits};\nconst CELLS: u32 = {cells}u;\n");
    let uniform = space.uniform(sequences.clone());
    let mut dispatches = Vec::new();
    for rows in windows(problem, std::slice::from_ref(classes), sequences, cells)? {
        let hooks = BTreeMap::from([
            ("constants".to_owned(), constants.clone()),
            ("access".to_owned(), access_text(problem, &rows, classes, None, 3)),
            ("gathered".to_owned(), gathered.to_owned()),
        ]);
        let title = format!("{}: probabilities of the lattice", problem.name);
        let wgsl = fill(&title, &imported(ROWS), &hooks).expect("the shader takes these hooks").into();
        let uniforms = vec![(0, uniform.clone()), (1, window::uniform(problem, &rows, classes, None))];
        let storage = vec![region(Slot::Workspace, true), window::region(problem, &rows, classes, problem.pooled)];
        dispatches.push(Dispatch { wgsl, grid: [problem.grid(rows.len()), 1], uniforms, storage, note: Note::Whole });
    }
    Ok(dispatches)
}

/// A kernel of an operator: its shader, and the text of its constants.
pub(super) struct Kernel {
    pub shader: &'static str,
    pub constants: String,
}

/// Alpha, and where it is kept beta beside it: one dispatch per segment of the frames.
pub(super) fn lattice(problem: &Problem<'_>, space: &Space, kernel: Kernel, sequences: Range<u64>) -> Vec<Dispatch> {
    let directions = if space.lattice.kept_frames > 0 { 2 } else { 1 };
    let hooks = BTreeMap::from([("constants".to_owned(), kernel.constants)]);
    let title = format!("{}: the lattice", problem.name);
    let text = imported_with(kernel.shader, space.lattice.shared);
    let wgsl: Arc<str> = fill(&title, &text, &hooks).expect("the shader takes these hooks").into();
    let dispatch = |segment: u64| Dispatch {
        wgsl: wgsl.clone(),
        grid: [sequences.end - sequences.start, directions],
        uniforms: vec![(0, space.segment_uniform(sequences.clone(), segment))],
        storage: vec![region(Slot::Workspace, true)],
        note: Note::Whole,
    };
    (0..space.lattice.segments()).map(dispatch).collect()
}

/// The gradient of classes: one dispatch per window of its rows.
///
/// # Errors
/// As [`windows`].
pub(super) fn gradients(
    problem: &Problem<'_>,
    space: &Space,
    kernel: &Kernel,
    (classes, grad, mode): (&Classes<'_>, &Classes<'_>, Mode),
    (sequences, cells): (Range<u64>, u64),
) -> Result<Vec<Dispatch>> {
    let uniform = space.uniform(sequences.clone());
    let mut dispatches = Vec::new();
    for rows in windows(problem, &[*classes, *grad], sequences, cells)? {
        let access = access_text(problem, &rows, classes, Some((grad, mode)), 3);
        let hooks = BTreeMap::from([("constants".to_owned(), kernel.constants.clone()), ("access".to_owned(), access)]);
        let title = format!("{}: gradients", problem.name);
        let wgsl = fill(&title, &imported(kernel.shader), &hooks).expect("the shader takes these hooks").into();
        let uniforms = vec![(0, uniform.clone()), (1, window::uniform(problem, &rows, classes, Some(grad)))];
        let mut storage = vec![region(Slot::Workspace, true)];
        if !matches!(mode, Mode::InPlace(_)) {
            storage.push(window::region(problem, &rows, classes, problem.pooled));
        }
        storage.push(window::region(problem, &rows, grad, true));
        dispatches.push(Dispatch { wgsl, grid: [problem.grid(rows.len()), 1], uniforms, storage, note: Note::Whole });
    }
    Ok(dispatches)
}
