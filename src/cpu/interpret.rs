//! A pass over all rows: tiles of rows on all threads, each tile phase by phase.

use super::code::{LabelCode, LookCode, PassCode, Phase, Reduction, Src, Trip};
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
    let tiling = Tiling::new(shared.cols(), inner);
    let tasks = tasks(shared, tiling, stores, elements)?;
    let worker = || Worker::new(shared, code, tiling, globals.clone());
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
    /// For each phase, the states of its reductions.
    states: Vec<Vec<State<T>>>,
    /// For each of the code's poisons, the rows of the tile that it poisons, and whether there may be any.
    poison: Vec<Vec<bool>>,
    any_poison: Vec<bool>,
    /// Lanes of one output that are to be NaN.
    nan: Vec<bool>,
    /// For each element output that is stored at the label anew, the rows of the tile whose element there is to be NaN.
    nan_at_label: Vec<Vec<bool>>,
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
    fn new(shared: &'r Shared<'r, 'a>, code: &'r PassCode, tiling: Tiling, globals: Bank<'a, T>) -> Worker<'r, 'a, T> {
        let machine = Machine::new(shared, globals, &code.row_slots, &code.element_slots);
        let states = code.phases.iter().map(|phase| match phase {
            Phase::Stage(trip) => trip.reductions.iter().map(|r| State::new(r.reduce)).collect(),
            Phase::Rows(_) => Vec::new(),
        });
        let states = states.collect();
        let poison = vec![vec![false; LANES]; code.poison.len()];
        let (any_poison, nan) = (vec![false; code.poison.len()], vec![false; LANES]);
        let scratch = vec![T::zero(); LANES];
        let nan_at_label = vec![vec![false; LANES]; code.element_stores.len()];
        Worker { machine, code, tiling, states, poison, any_poison, nan, nan_at_label, scratch }
    }

    fn run(&mut self, mut task: Task<'_, T>) -> PassResult {
        let mut result = PassResult { sums: vec![0.0; self.code.sums.len()], bad_label: None };
        for done in (0..task.rows).step_by(self.tiling.tile) {
            let tile = Tile { first: task.first + done as u64, rows: self.tiling.tile.min(task.rows - done) };
            self.run_phases(tile);
            let bad_label = self.settle(tile);
            result.bad_label = result.bad_label.or(bad_label);
            self.add_sums(tile, &mut result.sums);
            for (store, out) in task.stores.iter_mut().enumerate() {
                self.store_rows(store, tile, &mut out[done..done + tile.rows]);
            }
            if !self.code.element_stores.is_empty() {
                self.store_elements(tile, done, &mut task.lines);
            }
        }
        result
    }

    fn run_phases(&mut self, tile: Tile) {
        let code = self.code;
        // Most tiles have nothing to poison and leave these as they are.
        for (poison, any) in self.poison.iter_mut().zip(&mut self.any_poison).filter(|(_, any)| **any) {
            poison.fill(false);
            *any = false;
        }
        for (place, phase) in code.phases.iter().enumerate() {
            match phase {
                Phase::Rows(steps) => self.machine.run(steps, tile.spot()),
                Phase::Stage(trip) => {
                    let mut states = std::mem::take(&mut self.states[place]);
                    states.iter_mut().for_each(|state| state.reset(tile.rows));
                    self.visit(trip, tile, |worker, spot| {
                        trip.looks.iter().for_each(|look| worker.look(look, spot));
                        for (reduction, state) in trip.reductions.iter().zip(&mut states) {
                            let value = worker.machine.floats(reduction.operand, spot);
                            state.add(spread(value, &mut worker.scratch, spot.count), spot);
                        }
                    });
                    for (reduction, state) in trip.reductions.iter().zip(&states) {
                        state.finish(reduction, tile.rows, &mut self.machine);
                    }
                    self.states[place] = states;
                }
            }
        }
    }

    /// Runs a trip's steps on each block of the tile, and `f` after each.
    fn visit(&mut self, trip: &Trip, tile: Tile, mut f: impl FnMut(&mut Self, Spot)) {
        let cols = self.machine.shared.cols();
        let mut block = |worker: &mut Self, spot: Spot| {
            worker.machine.run(&trip.steps, spot);
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

    /// NaN in a value poisons its row, where the value is looked at.
    fn look(&mut self, look: &LookCode, spot: Spot) {
        let Worker { machine, poison, any_poison, .. } = self;
        seen_nan(machine, look, spot, |lane| {
            poison[look.poison][spot.along.unwrap_or(lane)] = true;
            any_poison[look.poison] = true;
        });
    }

    /// What the rows' values poison, and their labels; rows whose condition does not hold are not poisoned. Gives the
    /// first label out of range.
    fn settle(&mut self, tile: Tile) -> Option<(u64, i64)> {
        let (code, spot) = (self.code, tile.spot());
        code.looks.iter().for_each(|look| self.look(look, spot));
        let Worker { machine, poison, any_poison, .. } = self;
        for ((of, poison), any) in code.poison.iter().zip(poison).zip(any_poison) {
            for label in &of.labels {
                bad_labels(machine, label, tile, |lane, _| {
                    poison[lane] = true;
                    *any = true;
                });
            }
            if let (Some(row), true) = (of.row, *any) {
                let holds = machine.bools(row, spot);
                (0..tile.rows).for_each(|lane| poison[lane] &= holds.at(lane));
                *any = poison[..tile.rows].iter().any(|poison| *poison);
            }
        }
        let mut first: Option<(usize, i64)> = None;
        for label in &code.labels {
            bad_labels(machine, label, tile, |lane, label| {
                if first.is_none_or(|(row, _)| lane < row) {
                    first = Some((lane, label));
                }
            });
        }
        first.map(|(lane, label)| (tile.first + lane as u64, label))
    }

    fn add_sums(&mut self, tile: Tile, sums: &mut [f64]) {
        let (code, group_rows) = (self.code, self.machine.shared.group_rows);
        for (place, (sum, total)) in code.sums.iter().zip(sums).enumerate() {
            let is_poisoned = |k: usize| self.any_poison[k] && code.poison[k].sums.contains(&place);
            let poisoned = (0..code.poison.len()).any(is_poisoned);
            let mut left_out = Vec::new();
            for label in &sum.lenient {
                bad_labels(&self.machine, label, tile, |lane, _| left_out.push(lane));
            }
            let value = self.machine.floats(sum.src, tile.spot());
            let counts = |lane: &usize| {
                let begins_group = (tile.first + *lane as u64).is_multiple_of(group_rows);
                (!sum.per_group || begins_group) && !left_out.contains(lane)
            };
            *total += match value {
                _ if poisoned => f64::NAN,
                _ if sum.per_group || !left_out.is_empty() => {
                    (0..tile.rows).filter(counts).map(|lane| value.at(lane).to()).sum()
                }
                Value::Uniform(x) => x.to() * tile.rows as f64,
                Value::Lanes(x) => lanes::sum(x),
            };
        }
    }

    fn store_rows(&mut self, place: usize, tile: Tile, out: &mut [T]) {
        let (code, store) = (self.code, &self.code.stores[place]);
        let poisons = (0..code.poison.len()).filter(|&k| code.poison[k].stores.contains(&place));
        let any = self.rows_to_poison(poisons, tile.rows);
        let poison = any.then_some(&self.nan[..tile.rows]);
        write_block(self.machine.floats(store.src, tile.spot()), poison, out);
        for label in &store.lenient {
            bad_labels(&self.machine, label, tile, |lane, _| out[lane] = T::zero());
        }
    }

    /// Rows of the tile that any of these poisons, left in `nan`; whether there are any.
    fn rows_to_poison(&mut self, poisons: impl Iterator<Item = usize>, rows: usize) -> bool {
        let mut any = false;
        for k in poisons.filter(|k| self.any_poison[*k]) {
            if !any {
                self.nan[..rows].fill(false);
                any = true;
            }
            self.nan.iter_mut().zip(&self.poison[k][..rows]).for_each(|(nan, poison)| *nan |= poison);
        }
        any
    }

    /// The last trip. `done` is the tile's first row in the task.
    fn store_elements(&mut self, tile: Tile, done: usize, lines: &mut [Vec<&mut [T]>]) {
        let code = self.code;
        let Tiling { inner, .. } = self.tiling;
        let cols = self.machine.shared.cols();
        self.nan_at_label.iter_mut().for_each(|nan| nan[..tile.rows].fill(false));
        self.visit(&code.element_trip, tile, |worker, spot| {
            for (place, (store, lines)) in code.element_stores.iter().zip(&mut *lines).enumerate() {
                let any_poison = worker.lanes_to_poison(place, spot);
                if let Some((label, _)) = store.at_label.filter(|_| any_poison) {
                    worker.note_nan_at_label(place, label, tile, spot);
                }
                let value = worker.machine.floats(store.src, spot);
                let poison = any_poison.then_some(&worker.nan[..spot.count]);
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
        });
        for (place, lines) in lines.iter_mut().enumerate() {
            self.store_at_labels(place, tile, done, lines);
        }
    }

    /// Lanes of a block of one element output that are to be NaN, left in `nan`; whether there are any.
    fn lanes_to_poison(&mut self, place: usize, spot: Spot) -> bool {
        let code = self.code;
        let Worker { machine, nan, poison, any_poison, .. } = self;
        let mut any = false;
        let mut set = |lane: usize| {
            if !any {
                nan[..spot.count].fill(false);
                any = true;
            }
            nan[lane] = true;
        };
        let is_here = |k: &usize| code.poison[*k].elements.contains(&place);
        for k in (0..code.poison.len()).filter(is_here).filter(|k| any_poison[*k]) {
            let gate = code.poison[k].gate.map(|gate| machine.bools(gate, spot));
            let is_poisoned = |lane: usize| poison[k][spot.along.unwrap_or(lane)];
            for lane in (0..spot.count).filter(|lane| is_poisoned(*lane)) {
                if gate.is_none_or(|gate| gate.at(lane)) {
                    set(lane);
                }
            }
        }
        for look in code.element_trip.looks.iter().filter(|look| is_here(&look.poison)) {
            seen_nan(machine, look, spot, &mut set);
        }
        any
    }

    /// Which of the lanes in `nan` are those of a label.
    fn note_nan_at_label(&mut self, place: usize, label: Src, tile: Tile, spot: Spot) {
        let labels = self.machine.ints(label, tile.spot());
        let col_of = |lane: usize| usize::try_from(labels.at(lane)).ok();
        let noted = &mut self.nan_at_label[place];
        match spot.along {
            Some(row) => {
                let lane = col_of(row).and_then(|col| col.checked_sub(spot.col)).filter(|lane| *lane < spot.count);
                noted[row] |= lane.is_some_and(|lane| self.nan[lane]);
            }
            None => {
                for lane in (0..spot.count).filter(|lane| col_of(*lane) == Some(spot.col)) {
                    noted[lane] |= self.nan[lane];
                }
            }
        }
    }

    fn store_at_labels(&self, place: usize, tile: Tile, done: usize, lines: &mut [&mut [T]]) {
        let Some((label, there)) = self.code.element_stores[place].at_label else { return };
        let cols = self.machine.shared.cols();
        let (labels, there) = (self.machine.ints(label, tile.spot()), self.machine.floats(there, tile.spot()));
        for lane in 0..tile.rows {
            let Some(col) = usize::try_from(labels.at(lane)).ok().filter(|col| *col < cols) else { continue };
            let out = match self.tiling.inner > 1 {
                true => &mut lines[col][lane],
                false => &mut lines[0][(done + lane) * cols + col],
            };
            *out = if self.nan_at_label[place][lane] { T::nan() } else { there.at(lane) };
        }
    }
}

/// Calls `f` for each lane in which a value is NaN and looked at.
fn seen_nan<T: HostFloat>(machine: &Machine<'_, '_, T>, look: &LookCode, spot: Spot, mut f: impl FnMut(usize)) {
    let value = machine.floats(look.value, spot);
    let any = match value {
        Value::Uniform(x) => x.is_nan(),
        Value::Lanes(lanes) => lanes::any_nan(lanes),
    };
    if !any {
        return;
    }
    let cols = machine.shared.cols() as i64;
    let labels = look.label.map(|label| machine.ints(label, spot));
    let conditions = look.conditions.map(|condition| condition.map(|src| machine.bools(src, spot)));
    for lane in (0..spot.count).filter(|lane| value.at(*lane).is_nan()) {
        // A label out of range chose nothing.
        let is_chosen = labels.is_none_or(|labels| (0..cols).contains(&labels.at(lane)));
        if is_chosen && conditions.iter().flatten().all(|condition| condition.at(lane)) {
            f(lane);
        }
    }
}

/// Calls `f` with each row of a tile whose label counts and is out of range, and the label.
fn bad_labels<T: HostFloat>(machine: &Machine<'_, '_, T>, code: &LabelCode, tile: Tile, mut f: impl FnMut(usize, i64)) {
    let (spot, cols) = (tile.spot(), machine.shared.cols() as i64);
    let (labels, counts) = (machine.ints(code.label, spot), code.row.map(|row| machine.bools(row, spot)));
    for lane in 0..tile.rows {
        let label = labels.at(lane);
        if !(0..cols).contains(&label) && counts.is_none_or(|counts| counts.at(lane)) {
            f(lane, label);
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

    /// Leaves the values in their registers: NaN where they are not defined.
    fn finish(&self, reduction: &Reduction, rows: usize, machine: &mut Machine<'_, '_, T>) {
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
            }
        }
    }
}
