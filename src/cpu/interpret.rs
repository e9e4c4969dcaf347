//! A pass over all rows: tiles of rows on all threads, each tile phase by phase.

use super::code::{ElementStore, PassCode, Phase, Reduction, Src, Trip, Valid};
use super::host::room;
use super::lanes::{self, Online, Value};
use super::machine::{Bank, HostFloat, LANES, Machine, Shared, Spot};
use crate::error::{Error, Result};
use crate::expr::Reduce;

/// Rows shorter than this are visited column by column, with rows as lanes.
const SHORT_ROW: usize = 32;
/// Elements of a tile: it stays in the second-level cache from the first trip to the last.
const TILE: usize = 1 << 14;
/// Elements of a task: enough that handing it to a thread does not count.
const TASK: usize = 1 << 16;

/// Tasks of a pass, at most: of more elements than that, broadcast, nobody waits for the end.
const MOST_TASKS: usize = 1 << 26;

/// What a pass leaves besides its stores.
#[derive(Clone, Debug, Default)]
pub struct PassResult {
    /// In the order of [`PassCode::sums`].
    pub sums: Vec<f64>,
    /// The first row with a label out of range, and the label.
    pub bad_label: Option<(u64, i64)>,
}

/// Rows of one task, and the parts of the outputs that belong to them.
struct Task<'o, T> {
    first: u64,
    rows: usize,
    /// In the order of [`PassCode::stores`].
    stores: Vec<&'o mut [T]>,
    /// In the order of [`PassCode::element_stores`]: all rows, or each column's rows where rows are innermost.
    lines: Vec<Vec<&'o mut [T]>>,
}

/// How rows are dealt with.
#[derive(Clone, Copy, Debug)]
struct Tiling {
    /// Neighbouring rows that are innermost in memory (the class axis comes before them); else 1.
    inner: usize,
    /// Whether lanes are columns.
    along: bool,
    /// Rows of a tile and of a task.
    tile: usize,
    task: usize,
}

impl Tiling {
    fn new(cols: usize, inner: usize) -> Tiling {
        let along = inner == 1 && cols > SHORT_ROW;
        let tile = if along { TILE / cols } else { (4 * TILE / cols).max(SHORT_ROW) };
        let tile = tile.clamp(1, LANES);
        let task = if inner == 1 { tile * (TASK / (tile * cols)).max(1) } else { tile };
        Tiling { inner, along, tile, task }
    }
}

/// Runs a pass. `stores` and `elements` are whole outputs, in the order of the code's; `inner` is the number of
/// rows within the class axis.
pub fn run_pass<T: HostFloat>(
    shared: &Shared<'_, '_>,
    code: &PassCode,
    inner: usize,
    stores: Vec<&mut [T]>,
    elements: Vec<&mut [T]>,
) -> Result<PassResult> {
    let globals: Bank<'_, T> = Machine::globals(shared, &code.globals);
    let poisoned = code.global_reads.iter().any(|src| Machine::global(&globals, *src).is_nan());
    let tiling = Tiling::new(shared.cols(), inner);
    let tasks = tasks(shared, tiling, stores, elements)?;
    let worker = || Worker::new(shared, code, tiling, globals.clone(), poisoned);
    let parts = each_task(tasks, worker, |worker, task| worker.run(task));
    let mut all = PassResult { sums: vec![0.0; code.sums.len()], bad_label: None };
    for part in parts {
        all.sums.iter_mut().zip(part.sums).for_each(|(sum, part)| *sum += part);
        all.bad_label = all.bad_label.or(part.bad_label);
    }
    Ok(all)
}

#[cfg(not(target_arch = "wasm32"))]
fn each_task<I: Send, W, R: Send>(
    tasks: Vec<I>,
    worker: impl Fn() -> W + Sync + Send,
    run: impl Fn(&mut W, I) -> R + Sync + Send,
) -> Vec<R> {
    use rayon::prelude::*;
    tasks.into_par_iter().map_init(worker, run).collect()
}

#[cfg(target_arch = "wasm32")]
fn each_task<I, W, R>(tasks: Vec<I>, worker: impl Fn() -> W, run: impl Fn(&mut W, I) -> R) -> Vec<R> {
    let mut worker = worker();
    tasks.into_iter().map(|task| run(&mut worker, task)).collect()
}

/// Cuts rows and outputs into tasks, in order.
fn tasks<'o, T>(
    shared: &Shared<'_, '_>,
    tiling: Tiling,
    stores: Vec<&'o mut [T]>,
    elements: Vec<&'o mut [T]>,
) -> Result<Vec<Task<'o, T>>> {
    let (rows, cols) = (shared.rows() as usize, shared.cols());
    let Tiling { inner, task, .. } = tiling;
    // No task crosses from one index of the outer axes to the next where rows are innermost.
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

/// A thread's state.
struct Worker<'r, 'a, T> {
    machine: Machine<'r, 'a, T>,
    code: &'r PassCode,
    tiling: Tiling,
    /// NaN in a scalar or a total.
    poisoned: bool,
    /// For each phase, the states of its reductions.
    states: Vec<Vec<State<T>>>,
    /// For each row of the tile: whether NaN is to be stored, and whether it is looked at.
    poison: Vec<bool>,
    valid: Vec<bool>,
    /// Whether there may be a row to poison; once that is settled, whether there is.
    any_poison: bool,
    scratch: Vec<T>,
}

/// Rows of a tile.
#[derive(Clone, Copy)]
struct Tile {
    first: u64,
    rows: usize,
}

impl Tile {
    fn spot(self) -> Spot {
        Spot { row: self.first, count: self.rows, col: 0, along: None }
    }
}

impl<'r, 'a, T: HostFloat> Worker<'r, 'a, T> {
    fn new(
        shared: &'r Shared<'r, 'a>,
        code: &'r PassCode,
        tiling: Tiling,
        globals: Bank<'a, T>,
        poisoned: bool,
    ) -> Worker<'r, 'a, T> {
        let machine = Machine::new(shared, globals, &code.row_slots, &code.element_slots);
        let states = code.phases.iter().map(|phase| match phase {
            Phase::Stage(trip) => trip.reductions.iter().map(|r| State::new(r.reduce)).collect(),
            _ => Vec::new(),
        });
        let states = states.collect();
        let (poison, valid) = (vec![poisoned; LANES], vec![matches!(code.valid, Valid::Always); LANES]);
        let scratch = vec![T::zero(); LANES];
        Worker { machine, code, tiling, poisoned, states, poison, valid, any_poison: poisoned, scratch }
    }

    fn run(&mut self, mut task: Task<'_, T>) -> PassResult {
        let mut result = PassResult { sums: vec![0.0; self.code.sums.len()], bad_label: None };
        for done in (0..task.rows).step_by(self.tiling.tile) {
            let tile = Tile { first: task.first + done as u64, rows: self.tiling.tile.min(task.rows - done) };
            self.run_phases(tile);
            let bad_label = self.settle(tile);
            result.bad_label = result.bad_label.or(bad_label);
            self.add_sums(tile, &mut result.sums);
            let code = self.code;
            for (store, out) in code.stores.iter().zip(&mut task.stores) {
                self.store_rows(store.src, tile, &mut out[done..done + tile.rows]);
            }
            if !code.element_stores.is_empty() {
                self.store_elements(tile, done, &mut task.lines);
            }
        }
        result
    }

    fn run_phases(&mut self, tile: Tile) {
        let code = self.code;
        // Most tiles have nothing to poison and leave these as they are.
        if self.poisoned || self.any_poison {
            self.poison.fill(self.poisoned);
            self.any_poison = self.poisoned;
        }
        if let Valid::Element(_) = code.valid {
            self.valid[..tile.rows].fill(false);
        }
        for (place, phase) in code.phases.iter().enumerate() {
            match phase {
                Phase::Rows(steps) => {
                    self.machine.run(steps, tile.spot(), None);
                    self.note_nan(tile.spot());
                }
                Phase::Stage(trip) => {
                    let mut states = std::mem::take(&mut self.states[place]);
                    states.iter_mut().for_each(|state| state.reset(tile.rows));
                    self.visit(trip, tile, |worker, spot| {
                        worker.note_nan(spot);
                        for (reduction, state) in trip.reductions.iter().zip(&mut states) {
                            let value = worker.machine.floats(reduction.operand, spot);
                            state.add(spread(value, &mut worker.scratch, spot.count), spot);
                        }
                    });
                    for (reduction, state) in trip.reductions.iter().zip(&states) {
                        self.any_poison |= state.finish(reduction, tile.rows, &mut self.machine, &mut self.poison);
                    }
                    self.states[place] = states;
                }
                Phase::Check(trip, valid) => self.visit(trip, tile, |worker, spot| {
                    let values = worker.machine.bools(*valid, spot);
                    for lane in 0..spot.count {
                        let row = spot.along.unwrap_or(lane);
                        worker.valid[row] |= values.at(lane);
                        worker.poison[row] |= values.at(lane) && worker.machine.nan[lane];
                    }
                    worker.any_poison |= worker.machine.any_nan;
                    worker.machine.clear_nan();
                }),
            }
        }
    }

    /// Runs a trip's steps on each block of the tile, and `f` after each.
    fn visit(&mut self, trip: &Trip, tile: Tile, mut f: impl FnMut(&mut Self, Spot)) {
        let cols = self.machine.shared.cols();
        let mut block = |worker: &mut Self, spot: Spot| {
            worker.machine.run(&trip.steps, spot, Some(&trip.checked));
            f(worker, spot);
        };
        if self.tiling.along {
            // Blocks of one size, as nearly as may be.
            let length = cols.div_ceil(cols.div_ceil(LANES));
            for lane in 0..tile.rows {
                for col in (0..cols).step_by(length) {
                    let row = tile.first + lane as u64;
                    block(self, Spot { row, count: length.min(cols - col), col, along: Some(lane) });
                }
            }
        } else {
            for col in 0..cols {
                block(self, Spot { col, ..tile.spot() });
            }
        }
    }

    /// NaN in what was loaded poisons its row.
    fn note_nan(&mut self, spot: Spot) {
        if !self.machine.any_nan {
            return;
        }
        match spot.along {
            Some(row) => self.poison[row] = true,
            None => self.poison.iter_mut().zip(&self.machine.nan).for_each(|(poison, nan)| *poison |= nan),
        }
        self.any_poison = true;
        self.machine.clear_nan();
    }

    /// Rows that are not valid are not poisoned; those with a label out of range are. Gives the first of these.
    fn settle(&mut self, tile: Tile) -> Option<(u64, i64)> {
        let spot = tile.spot();
        let (poison, valid) = (&mut self.poison[..tile.rows], &mut self.valid[..tile.rows]);
        if let Valid::Row(src) = self.code.valid {
            self.machine.bools(src, spot).copy_to(valid);
        }
        let mut first: Option<(usize, i64)> = None;
        let cols = self.machine.shared.cols() as i64;
        for label in &self.code.labels {
            let labels = self.machine.ints(*label, spot);
            for lane in 0..tile.rows {
                let label = labels.at(lane);
                if (0..cols).contains(&label) || !valid[lane] {
                    continue;
                }
                poison[lane] |= !self.code.lenient;
                self.any_poison |= !self.code.lenient;
                if first.is_none_or(|(row, _)| lane < row) {
                    first = Some((lane, label));
                }
            }
        }
        if self.any_poison {
            poison.iter_mut().zip(valid).for_each(|(poison, valid)| *poison &= *valid);
            self.any_poison = poison.iter().any(|poison| *poison);
        }
        first.map(|(lane, label)| (tile.first + lane as u64, label))
    }

    fn add_sums(&mut self, tile: Tile, sums: &mut [f64]) {
        let group_rows = self.machine.shared.group_rows;
        for (sum, total) in self.code.sums.iter().zip(sums) {
            let value = self.machine.floats(sum.src, tile.spot());
            *total += match value {
                _ if self.any_poison => f64::NAN,
                _ if sum.per_group => (0..tile.rows)
                    .filter(|lane| (tile.first + *lane as u64).is_multiple_of(group_rows))
                    .map(|lane| value.at(lane).to())
                    .sum(),
                Value::Uniform(x) => x.to() * tile.rows as f64,
                Value::Lanes(x) => lanes::sum(x),
            };
        }
    }

    fn store_rows(&self, src: Src, tile: Tile, out: &mut [T]) {
        let poison = self.any_poison.then_some(&self.poison[..tile.rows]);
        write_block(self.machine.floats(src, tile.spot()), poison, out);
    }

    /// The last trip. `done` is the tile's first row in the task.
    fn store_elements(&mut self, tile: Tile, done: usize, lines: &mut [Vec<&mut [T]>]) {
        let code = self.code;
        let Tiling { inner, .. } = self.tiling;
        let cols = self.machine.shared.cols();
        self.visit(&code.element_trip, tile, |worker, spot| {
            let any_poison = worker.poison_lanes(spot);
            for (store, lines) in code.element_stores.iter().zip(&mut *lines) {
                let value = worker.machine.floats(store.src, spot);
                let poison = any_poison.then_some(&worker.machine.nan[..spot.count]);
                match spot.along {
                    Some(row) => {
                        let first = (done + row) * cols + spot.col;
                        write_block(value, poison, &mut lines[0][first..first + spot.count]);
                    }
                    None if inner > 1 => write_block(value, poison, &mut lines[spot.col][..spot.count]),
                    None => {
                        let block = &mut worker.scratch[..spot.count];
                        write_block(value, poison, block);
                        lanes::scatter(block, lines[0], done * cols + spot.col, cols);
                    }
                }
            }
            worker.machine.any_nan |= any_poison;
            worker.machine.clear_nan();
        });
        for (store, lines) in code.element_stores.iter().zip(lines) {
            self.store_at_labels(store, tile, done, lines);
        }
    }

    /// Lanes of a block that are to be NaN, left in `machine.nan`; whether there are any.
    fn poison_lanes(&mut self, spot: Spot) -> bool {
        if !self.machine.any_nan && !self.any_poison {
            return false;
        }
        let mut nan = std::mem::take(&mut self.machine.nan);
        for (lane, nan) in nan[..spot.count].iter_mut().enumerate() {
            let row = spot.along.unwrap_or(lane);
            let is_valid = match self.code.valid {
                Valid::Element(src) => self.machine.bools(src, spot).at(lane),
                _ => self.valid[row],
            };
            *nan = is_valid && (*nan || self.poison[row]);
        }
        self.machine.nan = nan;
        true
    }

    fn store_at_labels(&self, store: &ElementStore, tile: Tile, done: usize, lines: &mut [&mut [T]]) {
        let Some((label, there)) = store.at_label else { return };
        let cols = self.machine.shared.cols();
        let (labels, there) = (self.machine.ints(label, tile.spot()), self.machine.floats(there, tile.spot()));
        for lane in 0..tile.rows {
            let Some(col) = usize::try_from(labels.at(lane)).ok().filter(|col| *col < cols) else { continue };
            let value = if self.poison[lane] { T::nan() } else { there.at(lane) };
            if self.tiling.inner > 1 {
                lines[col][lane] = value;
            } else {
                lines[0][(done + lane) * cols + col] = value;
            }
        }
    }
}

/// A value as lanes.
fn spread<'s, T: HostFloat>(value: Value<'s, T>, scratch: &'s mut [T], count: usize) -> &'s [T] {
    match value {
        Value::Lanes(lanes) => lanes,
        Value::Uniform(x) => {
            scratch[..count].fill(x);
            &scratch[..count]
        }
    }
}

fn write_block<T: HostFloat>(value: Value<'_, T>, poison: Option<&[bool]>, out: &mut [T]) {
    value.copy_to(out);
    if let Some(poison) = poison {
        out.iter_mut().zip(poison).filter(|(_, poison)| **poison).for_each(|(o, _)| *o = T::nan());
    }
}

/// States of one reduction, for each row of a tile.
enum State<T> {
    Sum(Vec<f64>),
    Max(Vec<T>),
    Min(Vec<T>),
    ArgMax(Vec<T>, Vec<i64>),
    ExpSumRest(Vec<T>, Vec<f64>),
}

impl<T: HostFloat> State<T> {
    fn new(reduce: Reduce) -> State<T> {
        let values = || vec![T::zero(); LANES];
        match reduce {
            Reduce::Sum => State::Sum(vec![0.0; LANES]),
            Reduce::Max => State::Max(values()),
            Reduce::Min => State::Min(values()),
            Reduce::ArgMax => State::ArgMax(values(), vec![0; LANES]),
            Reduce::ExpSumRest => State::ExpSumRest(values(), vec![0.0; LANES]),
            Reduce::LogSumExpShifted => unreachable!("lowering leaves log1p(ExpSumRest) of it"),
        }
    }

    fn reset(&mut self, rows: usize) {
        match self {
            State::Sum(sum) => sum[..rows].fill(0.0),
            State::Max(max) => max[..rows].fill(T::neg_infinity()),
            State::Min(min) => min[..rows].fill(T::infinity()),
            State::ArgMax(max, at) => {
                max[..rows].fill(T::neg_infinity());
                at[..rows].fill(0);
            }
            State::ExpSumRest(max, rest) => {
                let empty = Online::empty();
                max[..rows].fill(empty.max);
                rest[..rows].fill(empty.rest);
            }
        }
    }

    /// One block of a row, or one column of all rows.
    fn add(&mut self, values: &[T], spot: Spot) {
        match spot.along {
            Some(row) => self.add_block(row, values, spot.col),
            None => self.add_column(values, spot.col),
        }
    }

    fn add_block(&mut self, row: usize, values: &[T], col: usize) {
        match self {
            State::Sum(sum) => sum[row] += lanes::sum(values),
            State::Max(max) => max[row] = max[row].max(lanes::max(values)),
            State::Min(min) => min[row] = min[row].min(lanes::min(values)),
            State::ArgMax(max, at) => {
                let best = lanes::max(values);
                if best > max[row] {
                    max[row] = best;
                    let place = values
                        .iter()
                        .position(|x| *x == best)
                        .expect("a maximum above another number is one of the values");
                    at[row] = (col + place) as i64;
                }
            }
            State::ExpSumRest(max, rest) => {
                let so_far = Online { max: max[row], rest: rest[row] };
                Online { max: max[row], rest: rest[row] } = so_far.join(Online::of(values));
            }
        }
    }

    fn add_column(&mut self, values: &[T], col: usize) {
        match self {
            State::Sum(sum) => sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += x.to()),
            State::Max(max) => max.iter_mut().zip(values).for_each(|(max, &x)| *max = if x > *max { x } else { *max }),
            State::Min(min) => min.iter_mut().zip(values).for_each(|(min, &x)| *min = if x < *min { x } else { *min }),
            State::ArgMax(max, at) => {
                for ((max, at), &x) in max.iter_mut().zip(at).zip(values) {
                    *at = if x > *max { col as i64 } else { *at };
                    *max = if x > *max { x } else { *max };
                }
            }
            State::ExpSumRest(max, rest) => lanes::online_step(values, max, rest),
        }
    }

    /// Leaves the values in their registers; whether a row has none and is poisoned.
    fn finish(
        &self,
        reduction: &Reduction,
        rows: usize,
        machine: &mut Machine<'_, '_, T>,
        poison: &mut [bool],
    ) -> bool {
        let out = reduction.out;
        match self {
            State::Sum(sum) => machine.set_floats(out, sum[..rows].iter().map(|s| T::of(*s))),
            State::Max(best) | State::Min(best) => machine.set_floats(out, best[..rows].iter().copied()),
            State::ArgMax(_, at) => machine.set_ints(out, &at[..rows]),
            State::ExpSumRest(max, rest) => {
                let defined = |lane: usize| Online { max: max[lane], rest: rest[lane] }.is_defined();
                let value = |lane: usize, x: T| if defined(lane) { x } else { T::nan() };
                machine.set_floats(out, (0..rows).map(|lane| value(lane, T::of(rest[lane]))));
                if let Some(max_out) = reduction.max_out {
                    machine.set_floats(max_out, (0..rows).map(|lane| value(lane, max[lane])));
                }
                poison[..rows].iter_mut().enumerate().for_each(|(lane, poison)| *poison |= !defined(lane));
                return (0..rows).any(|lane| !defined(lane));
            }
        }
        false
    }
}
