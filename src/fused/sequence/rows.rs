//! The dispatches that gather a lattice's probabilities from rows of classes.

use super::problem::{Problem, region};
use super::space::Space;
use super::window::{self, Classes, access_text, windows};
use super::{SEQUENCE, WINDOW_TEXT};
use crate::codegen::template::fill;
use crate::dispatch::{Dispatch, Note, Slot};
use crate::error::Result;
use std::collections::BTreeMap;
use std::ops::Range;

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

/// A skeleton over sequences with its imports.
pub(super) fn imported(shader: &str) -> String {
    shader.replace("// import sequence\n", SEQUENCE).replace("// import sequence_window\n", WINDOW_TEXT)
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
