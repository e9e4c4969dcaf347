//! A pass over all rows: tiles of rows on all threads, each tile phase by phase.

use super::code::{
    Along, AlongCode, ElementDest, ElementStore, LabelCode, LookCode, PairCode, PassCode, Phase, Src, Step,
};
use super::lanes::{self, Value};
use super::machine::{Bank, HostFloat, LANES, Machine, Shared, Spot};
use super::state::State;
use super::tasks::{Task, Tiling, each_task, tasks};
use crate::error::Result;
use crate::expr::{Classes, Fold};
use crate::lower::Over;

/// A label out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLabel {
    pub row: u64,
    pub label: i64,
    pub classes: u64,
}

/// The results of a pass besides its stores.
#[derive(Clone, Debug, Default)]
pub struct PassResult {
    /// In the order of [`PassCode::sums`].
    pub sums: Vec<f64>,
    /// Of a pass by column: per sum in the order of [`PassCode::element_stores`], one value per column (and group).
    pub columns: Vec<Vec<f64>>,
    /// That of the first row with one.
    pub bad_label: Option<BadLabel>,
}

impl PassResult {
    /// Sums of nothing.
    fn new(shared: &Shared<'_, '_>, code: &PassCode) -> PassResult {
        let by_column = if code.over == Over::RowsByColumn { code.element_stores.len() } else { 0 };
        let columns = code.element_stores[..by_column].iter().map(|store| {
            let groups = match store.dest {
                ElementDest::GroupColumnSum(_) => shared.geometry.groups() as usize,
                _ => 1,
            };
            vec![store.fold.identity(); groups * shared.cols()]
        });
        let sums = code.sums.iter().map(|sum| sum.fold.identity());
        PassResult { sums: sums.collect(), columns: columns.collect(), bad_label: None }
    }
}

/// Runs a pass. `stores` and `elements` are whole outputs, in the order of `code`; `inner` is the rows per class axis
/// that are adjacent in memory.
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
    let results = each_task(tasks, worker, |worker, task| worker.run(task));
    let mut all = PassResult::new(shared, code);
    for result in results {
        for ((columns, terms), store) in all.columns.iter_mut().zip(&result.columns).zip(&code.element_stores) {
            columns.iter_mut().zip(terms).for_each(|(sum, term)| *sum = store.fold.combine(*sum, *term));
        }
        for ((sum, term), code) in all.sums.iter_mut().zip(result.sums).zip(&code.sums) {
            *sum = code.fold.combine(*sum, term);
        }
        all.bad_label = all.bad_label.or(result.bad_label);
    }
    Ok(all)
}

/// A thread's state.
struct Worker<'r, 'a, T> {
    machine: Machine<'r, 'a, T>,
    code: &'r PassCode,
    tiling: Tiling,
    /// States of each phase's reductions.
    states: Vec<Vec<State<T>>>,
    /// Per poison and row of the tile: whether the row is poisoned.
    poison: Vec<Vec<bool>>,
    /// Per poison: whether any row may be poisoned.
    any_poison: Vec<bool>,
    /// Per lane of a block: whether NaN is stored.
    nan: Vec<bool>,
    /// Per element output and row of the tile: whether NaN is stored at the row's label.
    nan_at_label: Vec<Vec<bool>>,
    scratch: Vec<T>,
    /// By number of a linear scan: the decays of a tile's elements.
    decays: Vec<Vec<T>>,
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
        let mut machine = Machine::new(shared, globals, &code.row_slots, &code.element_slots);
        machine.take_rows(code, tiling.tile * shared.cols());
        let states = code.phases.iter().map(|phase| match phase {
            Phase::Stage(trip) => trip.reductions.iter().map(|r| State::new(r.reduce)).collect(),
            Phase::Rows(_) => Vec::new(),
        });
        let states = states.collect();
        let poison = vec![vec![false; LANES]; code.poison.len()];
        let (any_poison, nan) = (vec![false; code.poison.len()], vec![false; LANES]);
        let scratch = vec![T::zero(); LANES];
        let nan_at_label = vec![vec![false; LANES]; code.element_stores.len()];
        let decays = vec![Vec::new(); code.along];
        Worker { machine, code, tiling, states, poison, any_poison, nan, nan_at_label, scratch, decays }
    }

    fn run(&mut self, mut task: Task<'_, T>) -> PassResult {
        let mut result = PassResult::new(self.machine.shared, self.code);
        for done in (0..task.rows).step_by(self.tiling.tile) {
            let tile = Tile { first: task.first + done as u64, rows: self.tiling.tile.min(task.rows - done) };
            self.run_phases(tile);
            let bad_label = self.poison_rows(tile);
            result.bad_label = result.bad_label.or(bad_label);
            self.add_sums(tile, &mut result.sums);
            for (store, out) in task.stores.iter_mut().enumerate() {
                self.store_rows(store, tile, &mut out[done..done + tile.rows]);
            }
            if self.code.over == Over::RowsByColumn {
                self.sum_columns(tile, &mut result.columns);
            } else if !self.code.element_stores.is_empty() {
                self.store_elements(tile, done, &mut task.lines);
            }
        }
        result
    }

    fn run_phases(&mut self, tile: Tile) {
        let code = self.code;
        // Most tiles poison nothing: their flags are clear already.
        for (poison, any) in self.poison.iter_mut().zip(&mut self.any_poison).filter(|(_, any)| **any) {
            poison.fill(false);
            *any = false;
        }
        for (index, phase) in code.phases.iter().enumerate() {
            match phase {
                Phase::Rows(steps) => self.machine.run(steps, tile.spot()),
                Phase::Stage(trip) => {
                    let mut states = std::mem::take(&mut self.states[index]);
                    states.iter_mut().for_each(|state| state.reset(tile.rows));
                    if let Some(pairs) = &trip.pairs {
                        self.visit(&pairs.before, tile, |worker, spot| worker.keep_partners(pairs, spot));
                    }
                    self.visit(&trip.steps, tile, |worker, spot| {
                        trip.looks.iter().for_each(|look| worker.look(look, spot));
                        for (reduction, state) in trip.reductions.iter().zip(&mut states) {
                            let value = worker.machine.floats(reduction.operand, spot);
                            state.add(spread(value, &mut worker.scratch, spot.count), spot);
                        }
                        trip.along.iter().for_each(|along| worker.take_along(along, spot));
                        trip.pairs.iter().for_each(|pairs| worker.fold_partners(pairs, spot));
                    });
                    for (reduction, state) in trip.reductions.iter().zip(&mut states) {
                        state.finish(reduction, tile.rows, &mut self.machine);
                    }
                    self.states[index] = states;
                    trip.along.iter().for_each(|along| self.run_along(along, tile));
                }
            }
        }
    }

    /// Takes what a scan, sort or permutation reads in a block.
    fn take_along(&mut self, code: &AlongCode, spot: Spot) {
        let Worker { machine, decays, scratch, .. } = self;
        let cols = machine.shared.cols();
        let (first, stride) = spot.in_tile(cols);
        let mut left = std::mem::take(&mut machine.left[code.number]);
        lanes::scatter(spread(machine.floats(code.operand, spot), scratch, spot.count), &mut left, first, stride);
        machine.left[code.number] = left;
        if let Some(decay) = code.decay {
            let decays = &mut decays[code.number];
            decays.resize(machine.left[code.number].len(), T::zero());
            lanes::scatter(spread(machine.floats(decay, spot), scratch, spot.count), decays, first, stride);
        }
    }

    /// Scans, sorts or permutes the rows of a tile.
    fn run_along(&mut self, code: &AlongCode, tile: Tile) {
        let Worker { machine, decays, .. } = self;
        let cols = machine.shared.cols();
        let decays = &decays[code.number];
        let mut left = std::mem::take(&mut machine.left[code.number]);
        let mut columns = std::mem::take(&mut machine.orders[code.number]);
        for (row, x) in left.chunks_mut(cols).take(tile.rows).enumerate() {
            let of_row = row * cols..(row + 1) * cols;
            match code.along {
                Along::Scan(scan, direction) => scan.run(direction, x, |col| decays[row * cols + col]),
                Along::ArgSort(order) => {
                    columns.resize(tile.rows * cols, 0);
                    order.argsort(x, &mut columns[of_row]);
                }
                Along::Permute(way, order) => {
                    let elements = x.to_vec();
                    way.run(&elements, &machine.orders[order][of_row], x);
                }
            }
        }
        machine.left[code.number] = left;
        machine.orders[code.number] = columns;
    }

    /// Keeps what pairs read of partners in a block.
    fn keep_partners(&mut self, pairs: &PairCode, spot: Spot) {
        let elements = self.tiling.tile * self.machine.shared.cols();
        pairs.partners.iter().for_each(|partner| self.machine.keep_partner(*partner, spot, elements));
    }

    /// Folds the values per pair of a block's elements over all their partners.
    fn fold_partners(&mut self, pairs: &PairCode, spot: Spot) {
        let machine = &mut self.machine;
        let cols = machine.shared.cols();
        // In f64, whatever the values are.
        let each = pairs.folds.iter().map(|(how, ..)| vec![how.identity(); spot.count]);
        let mut folds: Vec<Vec<f64>> = each.collect();
        for partner in 0..cols {
            machine.partner = partner;
            machine.run(&pairs.steps, spot);
            for (fold, (how, _, src)) in folds.iter_mut().zip(&pairs.folds) {
                let value = machine.floats(*src, spot);
                for (lane, fold) in fold.iter_mut().enumerate() {
                    *fold = how.combine(*fold, value.at(lane).to());
                }
            }
        }
        let (first, stride) = spot.in_tile(cols);
        for (fold, (_, number, _)) in folds.iter().zip(&pairs.folds) {
            let fold: Vec<T> = fold.iter().map(|value| T::of(*value)).collect();
            lanes::scatter(&fold, &mut machine.left[*number], first, stride);
        }
    }

    /// Runs a trip's steps on each block of the tile, and `f` after each.
    fn visit(&mut self, steps: &[Step], tile: Tile, mut f: impl FnMut(&mut Self, Spot)) {
        let cols = self.machine.shared.cols();
        let mut block = |worker: &mut Self, spot: Spot| {
            worker.machine.run(steps, spot);
            f(worker, spot);
        };
        if self.tiling.along {
            // Blocks of nearly equal length.
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

    /// Poisons the rows of lanes where the look sees NaN.
    fn look(&mut self, look: &LookCode, spot: Spot) {
        let Worker { machine, poison, any_poison, .. } = self;
        seen_nan(machine, look, spot, |lane| {
            poison[look.poison][spot.along.unwrap_or(lane)] = true;
            any_poison[look.poison] = true;
        });
    }

    /// Poisons rows by their own values and labels, then clears the poison of rows whose condition does not hold.
    /// Returns the label out of range of the first row with one.
    fn poison_rows(&mut self, tile: Tile) -> Option<BadLabel> {
        let (code, spot) = (self.code, tile.spot());
        code.looks.iter().for_each(|look| self.look(look, spot));
        let Worker { machine, poison, any_poison, .. } = self;
        for ((rule, poison), any) in code.poison.iter().zip(poison).zip(any_poison) {
            for label in &rule.labels {
                bad_labels(machine, label, tile, |lane, _| {
                    poison[lane] = true;
                    *any = true;
                });
            }
            if let (Some(row), true) = (rule.row, *any) {
                let holds = machine.bools(row, spot);
                (0..tile.rows).for_each(|lane| poison[lane] &= holds.at(lane));
                *any = poison[..tile.rows].iter().any(|poison| *poison);
            }
        }
        let mut first: Option<(usize, i64, Classes)> = None;
        for label in &code.labels {
            bad_labels(machine, label, tile, |lane, value| {
                if first.is_none_or(|(row, ..)| lane < row) {
                    first = Some((lane, value, label.classes));
                }
            });
        }
        let cols = self.machine.shared.cols() as u64;
        first.map(|(lane, label, classes)| BadLabel {
            row: tile.first + lane as u64,
            label,
            classes: classes.count(cols),
        })
    }

    fn add_sums(&mut self, tile: Tile, sums: &mut [f64]) {
        let code = self.code;
        for (index, (sum, total)) in code.sums.iter().zip(sums).enumerate() {
            let is_poisoned = |k: usize| self.any_poison[k] && code.poison[k].sums.contains(&index);
            let poisoned = (0..code.poison.len()).any(is_poisoned);
            let mut left_out = Vec::new();
            for label in &sum.lenient {
                bad_labels(&self.machine, label, tile, |lane, _| left_out.push(lane));
            }
            let value = self.machine.floats(sum.src, tile.spot());
            let counts = |lane: &usize| !left_out.contains(lane);
            let combine = |a: f64, b: f64| sum.fold.combine(a, b);
            let each = || (0..tile.rows).filter(counts).map(|lane| value.at(lane).to());
            let term = match value {
                _ if poisoned => f64::NAN,
                _ if !left_out.is_empty() || sum.fold == Fold::Max => each().fold(sum.fold.identity(), combine),
                Value::Uniform(x) => x.to() * tile.rows as f64,
                Value::Lanes(x) => lanes::sum(x),
            };
            *total = combine(*total, term);
        }
    }

    fn store_rows(&mut self, store_index: usize, tile: Tile, out: &mut [T]) {
        let (code, store) = (self.code, &self.code.stores[store_index]);
        let poisons = (0..code.poison.len()).filter(|&k| code.poison[k].stores.contains(&store_index));
        let any = self.rows_to_poison(poisons, tile.rows);
        let poison = any.then_some(&self.nan[..tile.rows]);
        write_block(self.machine.floats(store.src, tile.spot()), poison, out);
        for label in &store.lenient {
            bad_labels(&self.machine, label, tile, |lane, _| out[lane] = T::of(store.fold.identity()));
        }
    }

    /// Sets `nan` to the rows that any of these poisons reaches. Returns whether there are any; if not, `nan` is
    /// unchanged.
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

    /// The last trip, which stores elements. `done` is the tile's first row, counted in the task.
    fn store_elements(&mut self, tile: Tile, done: usize, lines: &mut [Vec<&mut [T]>]) {
        let code = self.code;
        let Tiling { inner, .. } = self.tiling;
        let cols = self.machine.shared.cols();
        self.nan_at_label.iter_mut().for_each(|nan| nan[..tile.rows].fill(false));
        self.visit(&code.element_trip.steps, tile, |worker, spot| {
            for (index, (store, lines)) in code.element_stores.iter().zip(&mut *lines).enumerate() {
                let any_poison = worker.lanes_to_poison(index, spot);
                if let Some((label, _)) = store.at_label.filter(|_| any_poison) {
                    worker.note_nan_at_label(index, label, tile, spot);
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
        for (index, lines) in lines.iter_mut().enumerate() {
            self.store_at_labels(index, tile, done, lines);
        }
    }

    /// Index of the sum for column 0 that a row adds to.
    fn first_column(&self, store: &ElementStore, row: u64) -> usize {
        let shared = self.machine.shared;
        match store.dest {
            ElementDest::GroupColumnSum(_) => (row / shared.geometry.group_rows) as usize * shared.cols(),
            _ => 0,
        }
    }

    /// The last trip, which adds elements to the sums over the rows for each column.
    fn sum_columns(&mut self, tile: Tile, columns: &mut [Vec<f64>]) {
        let code = self.code;
        // Per sum: rows of the tile that add 0, because a label is out of range.
        let left_out: Vec<Vec<usize>> =
            code.element_stores.iter().map(|store| self.left_out(&store.lenient, tile)).collect();
        self.visit(&code.element_trip.steps, tile, |worker, spot| {
            for (index, (store, columns)) in code.element_stores.iter().zip(&mut *columns).enumerate() {
                let any_poison = worker.lanes_to_poison(index, spot);
                let value = worker.machine.floats(store.src, spot);
                for lane in 0..spot.count {
                    let (row, col) = match spot.along {
                        Some(row) => (row, spot.col + lane),
                        None => (lane, spot.col),
                    };
                    let sum = &mut columns[worker.first_column(store, tile.first + row as u64) + col];
                    if any_poison && worker.nan[lane] {
                        *sum = f64::NAN;
                    } else if !left_out[index].contains(&row) {
                        *sum = store.fold.combine(*sum, value.at(lane).to());
                    }
                }
            }
        });
    }

    /// Rows of a tile in which one of these labels is out of range.
    fn left_out(&self, labels: &[LabelCode], tile: Tile) -> Vec<usize> {
        let mut rows = Vec::new();
        for label in labels {
            bad_labels(&self.machine, label, tile, |lane, _| rows.push(lane));
        }
        rows
    }

    /// Sets `nan` to the lanes of a block in which the element output is NaN. Returns whether there are any; if not,
    /// `nan` is unchanged.
    fn lanes_to_poison(&mut self, store: usize, spot: Spot) -> bool {
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
        let is_here = |k: &usize| code.poison[*k].elements.contains(&store);
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

    /// Notes rows whose label's column is in this block and NaN there.
    fn note_nan_at_label(&mut self, store: usize, label: Src, tile: Tile, spot: Spot) {
        let labels = self.machine.ints(label, tile.spot());
        let col_of = |lane: usize| usize::try_from(labels.at(lane)).ok();
        let noted = &mut self.nan_at_label[store];
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

    fn store_at_labels(&self, store: usize, tile: Tile, done: usize, lines: &mut [&mut [T]]) {
        let Some((label, there)) = self.code.element_stores[store].at_label else { return };
        let cols = self.machine.shared.cols();
        let (labels, there) = (self.machine.ints(label, tile.spot()), self.machine.floats(there, tile.spot()));
        for lane in 0..tile.rows {
            let Some(col) = usize::try_from(labels.at(lane)).ok().filter(|col| *col < cols) else { continue };
            let out = match self.tiling.inner > 1 {
                true => &mut lines[col][lane],
                false => &mut lines[0][(done + lane) * cols + col],
            };
            *out = if self.nan_at_label[store][lane] { T::nan() } else { there.at(lane) };
        }
    }
}

/// Calls `f` with each lane in which the value is NaN and the look's conditions hold.
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
        // A value gathered at a label out of range does not count.
        let is_gathered = labels.is_none_or(|labels| (0..cols).contains(&labels.at(lane)));
        if is_gathered && conditions.iter().flatten().all(|condition| condition.at(lane)) {
            f(lane);
        }
    }
}

/// Calls `f(lane, label)` for each row of a tile whose label counts and is out of range.
fn bad_labels<T: HostFloat>(machine: &Machine<'_, '_, T>, code: &LabelCode, tile: Tile, mut f: impl FnMut(usize, i64)) {
    let spot = tile.spot();
    let classes = code.classes.count(machine.shared.cols() as u64) as i64;
    let labels = machine.ints(code.label, spot);
    let conditions = code.conditions.map(|condition| condition.map(|src| machine.bools(src, spot)));
    for lane in 0..tile.rows {
        let label = labels.at(lane);
        if !(0..classes).contains(&label) && conditions.iter().flatten().all(|condition| condition.at(lane)) {
            f(lane, label);
        }
    }
}

/// The lanes of a value; a uniform is written to all lanes of `scratch`.
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
