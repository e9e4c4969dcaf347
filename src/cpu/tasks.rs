//! Rows cut into tasks for the threads, and each task's rows into tiles.

use super::host::room;
use super::machine::{LANES, Shared};
use crate::error::{Error, Result};

/// Rows shorter than this are visited column by column, with rows as lanes.
const SHORT_ROW: usize = 32;
/// Elements of a tile: it stays in the second-level cache from the first trip to the last.
const TILE: usize = 1 << 14;
/// Elements of a task: large enough that handing it to a thread costs little beside its work.
const TASK: usize = 1 << 16;

/// Tasks per pass at most: a broadcast problem with more is refused.
const MOST_TASKS: usize = 1 << 26;

/// Rows of one task, and their ranges of the outputs.
pub struct Task<'o, T> {
    pub first: u64,
    pub rows: usize,
    /// The rows' range of each row output, in the order of `PassCode::stores`.
    pub stores: Vec<&'o mut [T]>,
    /// The rows' ranges of each element output, in the order of `PassCode::element_stores`: one range, or one per
    /// column where rows are innermost.
    pub lines: Vec<Vec<&'o mut [T]>>,
}

/// Sizes of tiles and tasks, and the axis that lanes run along.
#[derive(Clone, Copy, Debug)]
pub struct Tiling {
    /// Rows per class axis that are adjacent in memory; 1 where columns are innermost.
    pub inner: usize,
    /// Whether lanes are columns of one row; else they are rows.
    pub along: bool,
    /// Rows per tile.
    pub tile: usize,
    /// Rows per task.
    pub task: usize,
}

impl Tiling {
    pub fn new(cols: usize, inner: usize) -> Tiling {
        let along = inner == 1 && cols > SHORT_ROW;
        let tile = if along { TILE / cols } else { (4 * TILE / cols).max(SHORT_ROW) };
        let tile = tile.clamp(1, LANES);
        let task = if inner == 1 { tile * (TASK / (tile * cols)).max(1) } else { tile };
        Tiling { inner, along, tile, task }
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub fn each_task<I: Send, W, R: Send>(
    tasks: Vec<I>,
    worker: impl Fn() -> W + Sync + Send,
    run: impl Fn(&mut W, I) -> R + Sync + Send,
) -> Vec<R> {
    use rayon::prelude::*;
    tasks.into_par_iter().map_init(worker, run).collect()
}

#[cfg(target_arch = "wasm32")]
pub fn each_task<I, W, R>(tasks: Vec<I>, worker: impl Fn() -> W, run: impl Fn(&mut W, I) -> R) -> Vec<R> {
    let mut worker = worker();
    tasks.into_iter().map(|task| run(&mut worker, task)).collect()
}

/// Cuts rows and outputs into tasks, in order of the rows.
pub fn tasks<'o, T>(
    shared: &Shared<'_, '_>,
    tiling: Tiling,
    stores: Vec<&'o mut [T]>,
    elements: Vec<&'o mut [T]>,
) -> Result<Vec<Task<'o, T>>> {
    let (rows, cols) = (shared.rows() as usize, shared.cols());
    let Tiling { inner, task, .. } = tiling;
    // Where rows are innermost, a task stays inside one index of the outer axes.
    let unit = if inner == 1 { rows } else { inner };
    let needed = (rows / unit).saturating_mul(unit.div_ceil(task));
    if needed > MOST_TASKS {
        let bytes = (needed as u64).saturating_mul(size_of::<Task<'o, T>>() as u64);
        return Err(Error::OutOfMemory { what: format!("the tasks of {rows} rows on the host"), bytes });
    }
    let mut tasks: Vec<Task<'o, T>> = room("tasks on the host", needed)?;
    let all = (0..rows)
        .step_by(unit)
        .flat_map(|start| (0..unit).step_by(task).map(move |k| (start + k, task.min(unit - k))))
        .map(|(first, rows)| Task { first: first as u64, rows, stores: Vec::new(), lines: Vec::new() });
    tasks.extend(all);
    for mut rest in stores {
        for task in &mut tasks {
            let (own, others) = rest.split_at_mut(task.rows);
            task.stores.push(own);
            rest = others;
        }
    }
    for output in elements {
        tasks.iter_mut().for_each(|task| task.lines.push(Vec::new()));
        if inner == 1 {
            for (task, own) in tasks.iter_mut().zip(output.chunks_mut(task * cols)) {
                task.lines.last_mut().expect("every task has lines of this output").push(own);
            }
            continue;
        }
        let tasks_of_unit = unit.div_ceil(task);
        for (tasks, unit_values) in tasks.chunks_mut(tasks_of_unit).zip(output.chunks_mut(unit * cols)) {
            for column in unit_values.chunks_mut(unit) {
                for (task, own) in tasks.iter_mut().zip(column.chunks_mut(task)) {
                    task.lines.last_mut().expect("every task has lines of this output").push(own);
                }
            }
        }
    }
    Ok(tasks)
}
