//! Schedules: kernel, workgroup size, vector width and grid of a pass. Pure: shapes and limits in, numbers out.

mod along;
mod candidates;
mod columns;
mod elements;
mod reads;
mod registers;
mod rows;
mod saved;
mod separate;
mod split;
mod spread;
mod traffic;

pub(crate) use along::{LEAST_DIGIT_BITS, SOFTWARE_ITERATIONS, may_pair, rows_before_stop, sort_passes};
pub use candidates::candidates;
pub(crate) use elements::alone;
pub use reads::{
    is_read_by_row, looked_at, reads_row_groups, roots, tensor_inputs, uses_scalars, uses_work, visited_inputs,
};
pub(crate) use saved::{LEAST_COLS, run_stages_ahead, save_rows, widen_stages};
pub use separate::{forward_and_backward, stages_ahead_of_columns};
pub use split::split_outputs;
pub use spread::Spread;
pub use traffic::{Footprint, Footprints, TensorId, Traffic, bytes_moved, traffic, trips_that_read};

use crate::error::{Error, Result};
use crate::limits::{Exp2, Limits};
use crate::lower::{Over, Pass, Program};
use crate::shape::Geometry;

/// The kernel that runs a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kernel {
    /// One element, or one row without its columns, at a time.
    Elementwise,
    /// Rows that one lane, several lanes, or a workgroup streams from memory, once per stage and once for outputs.
    Row,
    /// Pairs of neighbouring rows whose 16-bit elements share words, streamed by one lane each.
    RowPairs,
    /// Rows that are streamed, with scans, pairs or sorts along them: once per stage and per trip along the row, and once for
    /// outputs. It is chosen where a pass has such, in the place of [`Kernel::Row`], and cannot be pinned.
    RowScan {
        /// Words per column of a row in hand that trips along the row leave.
        words: u32,
        /// Bits of its keys that a sort takes in each of its passes.
        digit_bits: u32,
    },
    /// Rows held in registers.
    RowResident {
        /// Loads that each lane holds, of `width` elements; [`Pinned`] ignores the number.
        trips: u32,
    },
    /// Rows split over several workgroups.
    RowSplit {
        /// Workgroups per row.
        splits: u32,
    },
    /// Sums over the rows for each column. It is chosen where a pass makes such sums, and cannot be pinned.
    ColumnSums {
        /// Lanes of a workgroup that lie next to each other along the columns; the others lie along the rows.
        across: u32,
        /// Columns per lane.
        each: u32,
        /// Ranges of rows, each with a partial sum per column; of sums per group, ranges of all its groups.
        splits: u32,
    },
}

/// Fields of a schedule that the caller pins, or that tuning found; `None` leaves a field open. They hold for every pass
/// that visits columns, or for all passes if none does. Fields may be added: finish a literal with `..Pinned::default()`.
///
/// ```
/// use wgloss::{Kernel, Pinned};
/// let split = Pinned { kernel: Some(Kernel::RowSplit { splits: 4 }), workgroup: Some(256), ..Pinned::default() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Pinned {
    /// The kernel. One that cannot run the pass is an error: a row too long for registers, a row that cannot be split.
    pub kernel: Option<Kernel>,
    /// Invocations per workgroup, a power of two.
    pub workgroup: Option<u32>,
    /// Most elements per access: 1 for scalars, 4 for vectors, 8 for pairs of them: what a step of 16-bit rows takes only
    /// where it is asked for here, since held rows are faster by 4.
    pub width: Option<u32>,
    /// Lanes per row, a power of two.
    pub lanes: Option<u32>,
    /// Whether lanes combine by subgroup operations, if the device has them.
    pub subgroups: Option<bool>,
    /// What is made of the adapter's exp2, however accurate it is.
    pub exp2: Option<Exp2>,
    /// Whether sums find NaN, whatever the adapter's arithmetic makes of it; see [`Limits::carries_nan`].
    pub carries_nan: Option<bool>,
}

/// Whether a pass looks for NaN in sums.
fn carries_nan(limits: &Limits, pinned: Pinned) -> bool {
    pinned.carries_nan.unwrap_or(limits.carries_nan)
}

/// The schedule of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PassSchedule {
    /// The kernel.
    pub kernel: Kernel,
    /// Invocations per workgroup.
    pub workgroup: u32,
    /// Lanes per row.
    pub lanes: u32,
    /// Fewest lanes of a subgroup; 0 if lanes combine without subgroup operations.
    pub subgroup: u32,
    /// What is made of the adapter's exp2.
    pub exp2: Exp2,
    /// Whether sums find NaN.
    pub carries_nan: bool,
    /// Elements per access of a lane: 1, 4 (a vector), or 8 (two vectors in one load).
    pub width: u32,
    /// Workgroups along x and y.
    pub grid: [u32; 2],
    /// Whether a workgroup takes more than one row.
    pub strided: bool,
    /// Whether one workgroup takes all rows, without their columns, and writes the sums: no dispatch adds up partials.
    pub alone: bool,
    /// The reason, in words.
    pub why: &'static str,
}

/// Where the states of a row are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum States {
    /// In the pass that computes them.
    #[default]
    Inside,
    /// In that pass, and kept for a later one if the row is longer than registers hold.
    Kept,
    /// With the states of other shards, or of other chunks of columns.
    Shared,
}

/// The shape of a pass, which its schedule depends on besides program and limits.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub cols: u64,
    /// Most elements per access: 4 if some tensor is loaded or stored by vectors, 8 if some are loaded in pairs of them.
    pub width: u32,
    /// Bits that a lane holds of a column, of all inputs that are read at every column: 16 of a packed element, else 32.
    pub held_bits: u32,
    /// Whether some of these inputs are packed.
    pub held_packed: bool,
    /// Whether a row may start inside a vector. If so, lanes start up to `width − 1` columns early and mask them.
    pub masked: bool,
    /// Whether neighbouring rows lie next to each other in memory, and neighbouring columns do not.
    pub rows_innermost: bool,
    /// Whether two neighbouring rows share the words of a 16-bit output, so that one lane takes both.
    pub row_pairs: bool,
    /// Whether a gradient overwrites an input that other lanes of the row read ([`is_read_by_row`]).
    pub overwritten: bool,
    /// Where the row's states are combined.
    pub states: States,
    /// Rows per group, of a pass that sums over the rows of each group for each column; 0 for others.
    pub group_rows: u64,
}

impl Shape {
    /// Rows that lie one behind the other, visited element by element: all else is set by name.
    pub fn of(rows: u64, cols: u64) -> Shape {
        Shape {
            rows,
            cols,
            width: 1,
            held_bits: 32,
            held_packed: false,
            masked: false,
            rows_innermost: false,
            row_pairs: false,
            overwritten: false,
            states: States::Inside,
            group_rows: 0,
        }
    }
}

/// Chooses the schedule of a pass.
pub fn schedule(program: &Program, pass: &Pass, shape: Shape, limits: &Limits, pinned: Pinned) -> Result<PassSchedule> {
    limits.check()?;
    if let Some(workgroup) = pinned.workgroup {
        if !workgroup.is_power_of_two() || workgroup > limits.workgroup_invocations {
            let allowed = limits.workgroup_invocations;
            let message = format!("a workgroup of {workgroup} invocations; a power of two up to {allowed}");
            return Err(Error::Unsupported { message });
        }
    }
    if pinned.width == Some(0) {
        return Err(Error::Unsupported { message: "accesses of 0 elements; 1, 4 or 8".to_owned() });
    }
    if let Some(Kernel::RowScan { .. }) = pinned.kernel {
        let message = "a pinned kernel of trips along streamed rows, which is chosen where a pass has such; pin `Kernel::Row`, or none";
        return Err(Error::Unsupported { message: message.to_owned() });
    }
    if let Some(Kernel::ColumnSums { .. }) = pinned.kernel {
        let message =
            "a pinned kernel of column sums, which is chosen where a pass makes such sums; pin another kernel, or none";
        return Err(Error::Unsupported { message: message.to_owned() });
    }
    if pass.over == Over::RowsByColumn {
        return Ok(columns::choose(&shape, limits));
    }
    // A scan takes one window of a lane after the other.
    let most = if pass.runs_along_rows() { shape.width.min(4) } else { shape.width };
    let width = width(most, pinned);
    match program.has_rows() && pass.columns {
        true => rows::choose((program, pass), &shape, width, limits, pinned),
        false => Ok(elements::choose(program, &shape, width, limits, pinned)),
    }
}

/// Elements per access: 8, 4 or 1, at most `most` and at most the pinned width.
pub fn width(most: u32, pinned: Pinned) -> u32 {
    let most = most.min(pinned.width.unwrap_or(u32::MAX));
    [8, 4].into_iter().find(|width| *width <= most).unwrap_or(1)
}

/// Checks that row and column numbers fit 32 bits; there may be more elements.
pub fn check_sizes(geometry: &Geometry, has_rows: bool) -> Result<()> {
    // A loop over columns may count past the end by one run of its steps.
    let (rows, cols) = (u64::from(u32::MAX), i32::MAX as u64 - (1 << 20));
    let limit = "32-bit indices";
    if geometry.rows > rows {
        return Err(Error::Limit { what: "rows".into(), needed: geometry.rows, allowed: rows, limit });
    }
    if has_rows && geometry.cols > cols {
        return Err(Error::Limit { what: "columns".into(), needed: geometry.cols, allowed: cols, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::along::combine_bytes;
    use super::*;
    use crate::losses;
    use crate::lower::{Wanted, lower};

    fn program(loss: &crate::Loss, grads: &[&str]) -> Program {
        let wanted = Wanted { loss: true, grads: grads.iter().map(|g| g.to_string()).collect(), ..Wanted::default() };
        lower(loss, &wanted, &|name| ["input", "target"].contains(&name).then_some(false)).unwrap()
    }

    fn choose(rows: u64, cols: u64, limits: &Limits) -> PassSchedule {
        let program = program(&losses::cross_entropy(), &["input"]);
        let shape = Shape { width: if cols.is_multiple_of(4) { 4 } else { 1 }, ..Shape::of(rows, cols) };
        schedule(&program, program.passes.last().unwrap(), shape, limits, Pinned::default()).unwrap()
    }

    #[test]
    fn inputs_that_all_lanes_of_a_row_read_are_known() {
        let program = program(&losses::nll(), &[]);
        assert!(is_read_by_row(&program, program.input("input").unwrap()), "labels choose among its elements");
        assert!(is_read_by_row(&program, program.input("target").unwrap()), "of row scope");
        let wanted = Wanted { loss: true, ..Wanted::default() };
        let program = lower(&losses::kl_div(), &wanted, &|_| Some(false)).unwrap();
        assert!(!is_read_by_row(&program, program.input("target").unwrap()), "each lane its columns");
    }

    #[test]
    fn rows_go_to_the_kernel_that_suits_them() {
        let gpu = Limits::WEBGPU;
        assert_eq!(choose(8192, 1000, &gpu).kernel, Kernel::RowResident { trips: 8 });
        assert_eq!((choose(8192, 1000, &gpu).lanes, choose(8192, 1000, &gpu).grid), (32, [4096, 1]));
        assert_eq!((choose(8192, 10, &gpu).lanes, choose(8192, 12, &gpu).lanes), (1, 1));
        assert_eq!(choose(8192, 32000, &gpu).kernel, Kernel::Row);
        let large = Limits { workgroup_invocations: 1024, ..gpu.clone() };
        assert_eq!(choose(8192, 32000, &large).kernel, Kernel::RowResident { trips: 8 });
        assert!(matches!(choose(4, 1 << 20, &gpu).kernel, Kernel::RowSplit { .. }));
        assert_eq!(choose(8192, 1001, &gpu).width, 1);
        let cpu = Limits { software: true, ..Limits::WEBGPU };
        assert_eq!(choose(1024, 32000, &cpu).workgroup, 8);
        assert_eq!(choose(1024, 32000, &cpu).kernel, Kernel::Row);
        assert_eq!((choose(65536, 10, &cpu).lanes, choose(65536, 10, &cpu).workgroup), (1, 8));
    }

    #[test]
    fn an_access_is_no_wider_than_pinned() {
        let of = |most, pinned| width(most, Pinned { width: pinned, ..Pinned::default() });
        assert_eq!(
            [None, Some(9), Some(8), Some(7), Some(4), Some(3), Some(1)].map(|pinned| of(8, pinned)),
            [8, 8, 8, 4, 4, 1, 1]
        );
        assert_eq!((of(4, None), of(4, Some(8)), of(1, Some(4))), (4, 4, 1));
        let program = program(&losses::mse(), &["input"]);
        let shape = Shape { width: 4, masked: true, ..Shape::of(1, 64) };
        let pinned = Pinned { width: Some(0), ..Pinned::default() };
        let chosen = schedule(&program, &program.passes[0], shape, &Limits::WEBGPU, pinned);
        assert!(matches!(chosen, Err(Error::Unsupported { message }) if message.contains("0 elements")));
    }

    #[test]
    fn long_rows_of_many_states_stay_inside_workgroup_memory() {
        let loss = losses::cross_entropy().label_smoothing(0.1).entropy_bonus(0.1);
        let program = program(&loss, &["input"]);
        let large = Limits { workgroup_invocations: 1024, ..Limits::WEBGPU };
        let shape = Shape { width: 4, ..Shape::of(8192, 1 << 20) };
        let pass = program.passes.last().unwrap();
        let chosen = schedule(&program, pass, shape, &large, Pinned::default()).unwrap();
        assert!(chosen.workgroup < 1024, "{chosen:?}");
        assert!(combine_bytes(pass, chosen.workgroup, LEAST_DIGIT_BITS) <= u64::from(large.workgroup_bytes));
        let pinned = Pinned { workgroup: Some(1024), ..Pinned::default() };
        assert!(matches!(schedule(&program, pass, shape, &large, pinned), Err(Error::Limit { .. })));
    }

    #[test]
    fn grids_stay_inside_the_limits() {
        for rows in [1, 65_535, 65_536, 10_000_000] {
            for cols in [1, 2, 257, 50_257, 1 << 20] {
                let s = choose(rows, cols, &Limits::WEBGPU);
                assert!(s.grid.iter().all(|&g| (1..=65_535).contains(&g)), "{rows}x{cols}: {s:?}");
                assert!(s.workgroup <= 256 && s.workgroup.is_power_of_two() && s.workgroup.is_multiple_of(s.lanes));
            }
        }
    }

    #[test]
    fn too_many_bindings_split_the_outputs() {
        let program = program(&losses::mse(), &["input", "target"]);
        let tight = Limits { storage_buffers: 4, ..Limits::WEBGPU };
        let split = split_outputs(&program, &tight, &[]).unwrap();
        assert_eq!(split.passes.len(), 2);
        assert_eq!(split.passes.iter().map(|p| p.outputs.len()).sum::<usize>(), 2);
        assert!(matches!(
            split_outputs(&program, &Limits { storage_buffers: 2, ..tight }, &[]),
            Err(Error::Limit { .. })
        ));
    }
}
