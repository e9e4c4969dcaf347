//! How a pass runs: kernel, workgroup size, vector width, grid. Pure: shapes and limits in, numbers out.

mod candidates;
mod reads;
mod spread;
mod staged;
mod traffic;

pub use candidates::candidates;
use reads::bindings;
pub use reads::{is_read_by_row, looked_at, roots, tensor_inputs, uses_scalars, uses_work, visited_inputs};
pub use spread::Spread;
pub use staged::forward_and_backward;
pub use traffic::{Footprint, TensorId, Traffic, bytes_moved, traffic};

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::lower::{Pass, Program, finish_pass};
use crate::shape::Geometry;

/// Which kernel runs a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kernel {
    /// Elements by themselves, or rows by themselves.
    Elementwise,
    /// Streamed rows, of one lane, a few, or a workgroup.
    Row,
    /// Rows in registers, this many loads a lane.
    RowResident {
        /// Loads an invocation holds: elements, vectors, or pairs of them.
        trips: u32,
    },
    /// A row shared by this many workgroups.
    RowSplit {
        /// Workgroups of a row.
        splits: u32,
    },
}

/// The kernel that a caller insists on, for tests and tuning; it holds for every pass that visits columns, or for all
/// passes where none does. Fields may be added: finish a literal with `..Pinned::default()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Pinned {
    /// The kernel; a resident one that cannot hold the row, or a split that cannot be, is an error.
    pub kernel: Option<Kernel>,
    /// Invocations of a workgroup, a power of two.
    pub workgroup: Option<u32>,
    /// Elements of an access, at most: 1 for scalars, 4 for vectors without wide loads.
    pub width: Option<u32>,
    /// Lanes of a row, a power of two.
    pub lanes: Option<u32>,
    /// Whether lanes combine by subgroup operations, where there are any.
    pub subgroups: Option<bool>,
    /// Whether softmax loops use the adapter's exp2, whatever it is worth.
    pub exp2: Option<bool>,
}

/// How one pass runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PassSchedule {
    /// The kernel.
    pub kernel: Kernel,
    /// Invocations of a workgroup.
    pub workgroup: u32,
    /// Those that share a row.
    pub lanes: u32,
    /// Lanes of a subgroup that may exchange values; 0 for none.
    pub subgroup: u32,
    /// Whether exponentials of a softmax are the adapter's.
    pub exp2: bool,
    /// Elements that a lane takes at a time: 1, a vector of 4, or 8, two vectors that are loaded as one.
    pub width: u32,
    /// Workgroups.
    pub grid: [u32; 2],
    /// Whether a workgroup takes more than one row.
    pub strided: bool,
    /// Why this one.
    pub why: &'static str,
}

/// Where the states of a row's stages come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum States {
    /// In the pass that makes them.
    #[default]
    Inside,
    /// There, and kept for a later pass, where a row is read again anyway.
    Kept,
    /// With those of other shards, or of other chunks of the columns.
    Shared,
}

/// What the choice depends on besides program and limits.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub cols: u64,
    /// Elements that a lane may take at a time: 4 where some tensor is loaded or stored by vectors, 8 where some are
    /// loaded two at a time.
    pub width: u32,
    /// Whether rows begin anywhere in as many elements: up to so many less one, they are taken early.
    pub masked: bool,
    /// Whether neighbouring rows lie next to each other in memory, and neighbouring columns do not.
    pub rows_innermost: bool,
    /// Whether a gradient takes the place of an input that all lanes of a row read ([`is_read_by_row`]).
    pub overwritten: bool,
    /// Where a row's states come together.
    pub states: States,
}

/// Values a lane may hold in registers. A CPU spills them to its nearest cache, which is cheaper than Mesa's loads
/// (8,192 rows of 1,000 columns: 47 ms instead of 70).
fn resident_values(limits: &Limits) -> u32 {
    if limits.software { 128 } else { 32 }
}

/// Elements from which a software adapter holds long rows in registers.
const SOFTWARE_RESIDENT: u64 = 1 << 20;
/// Loop iterations of one invocation after which Mesa's software drivers stop a shader (65,535), with a margin.
const SOFTWARE_ITERATIONS: u64 = 50_000;
/// Windows of a resident row that compile soon.
const SHORT_WINDOWS: u64 = 16;
/// Rows from which a GPU is busy with a workgroup a row.
const BUSY_ROWS: u64 = 128;
/// Columns from which sharing a row pays.
const SPLIT_COLS: u64 = 1 << 16;

/// Chooses how a pass runs.
pub fn schedule(program: &Program, pass: &Pass, shape: Shape, limits: &Limits, pinned: Pinned) -> Result<PassSchedule> {
    limits.check()?;
    let most = limits.invocations().min(256);
    let fault = |message: String| Err(Error::Unsupported { message });
    if let Some(workgroup) = pinned.workgroup {
        if !workgroup.is_power_of_two() || workgroup > limits.workgroup_invocations {
            let allowed = limits.workgroup_invocations;
            return fault(format!("a workgroup of {workgroup} invocations; a power of two up to {allowed}"));
        }
    }
    if pinned.width == Some(0) {
        return fault("accesses of 0 elements; 1, 4 or 8".to_owned());
    }
    let width = width(shape.width, pinned);
    if !program.has_rows() || !pass.columns {
        let width = if program.has_rows() { 1 } else { width };
        let items = if program.has_rows() { shape.rows } else { shape.cols };
        // A pass over labels beside one over columns keeps its own.
        let beside = program.has_rows() && program.passes.iter().any(|pass| pass.columns);
        let asked = pinned.workgroup.filter(|_| !beside);
        let workgroup = asked.unwrap_or(if limits.software { 8 } else { most });
        let grid = Spread::new(Kernel::Elementwise, workgroup, 1, width, limits).grid(items);
        let why = if program.has_rows() { "no element is read" } else { "no row reduction" };
        return Ok(PassSchedule {
            kernel: Kernel::Elementwise,
            workgroup,
            lanes: 1,
            subgroup: 0,
            exp2: false,
            width,
            grid: grid.map(|groups| groups as u32),
            strided: true,
            why,
        });
    }
    let early = if shape.masked { u64::from(width) - 1 } else { 0 };
    let vectors = (shape.cols + early).div_ceil(u64::from(width));
    let (workgroup, lanes) = row_lanes(vectors, width, &shape, pass, limits, pinned);
    let gathered = gathered_bytes(pass, workgroup);
    if lanes > 1 && gathered > u64::from(limits.workgroup_bytes) {
        return Err(Error::Limit {
            what: format!("the row states of {workgroup} invocations"),
            needed: gathered,
            allowed: u64::from(limits.workgroup_bytes),
            limit: "max_compute_workgroup_storage_size",
        });
    }
    if lanes == 0 || !lanes.is_power_of_two() || lanes > workgroup {
        return fault(format!("{lanes} lanes a row in a workgroup of {workgroup}"));
    }
    let subgroup = if pinned.subgroups == Some(false) { 0 } else { limits.subgroup };
    let trips = vectors.div_ceil(u64::from(lanes));
    let windows = trips * u64::from(width.div_ceil(4));
    let stages = pass.stages.len() as u64;
    let stops = limits.software && trips * (stages + 1) > SOFTWARE_ITERATIONS;
    let fits = trips * u64::from(width) <= u64::from(resident_values(limits));
    let shared = shape.states == States::Shared;
    let can_split = (stages > 0 || shared) && !shape.overwritten;
    let splits = limits.workgroups.min(64).min((shape.cols / 4096).max(1) as u32);
    let few = shape.rows < busy_rows(limits) && shape.cols >= SPLIT_COLS;
    let (kernel, why) = match pinned.kernel {
        Some(Kernel::Row | Kernel::RowResident { .. }) if shared => {
            return fault("a kernel of whole rows for a part of their columns".to_owned());
        }
        Some(Kernel::RowResident { .. }) if !fits => {
            return fault(format!("a resident row of {} columns over {lanes} lanes", shape.cols));
        }
        Some(Kernel::RowResident { .. }) => (Kernel::RowResident { trips: trips as u32 }, "asked for"),
        Some(Kernel::RowSplit { .. }) if !can_split => {
            return fault(
                "sharing a row without row reductions, or while an input that all of it reads is overwritten"
                    .to_owned(),
            );
        }
        Some(Kernel::RowSplit { splits }) if splits == 0 || splits > limits.workgroups => {
            return fault(format!("{splits} workgroups a row; 1 to {}", limits.workgroups));
        }
        Some(Kernel::Row) if stops => {
            return fault(format!(
                "{} columns over {lanes} lanes of a software adapter, which stops long loops",
                shape.cols
            ));
        }
        Some(Kernel::Elementwise) => return fault("the element-wise kernel for a pass with rows".to_owned()),
        Some(kernel) => (kernel, "asked for"),
        None if shared => {
            let splits = if few || stops { splits } else { 1 };
            (Kernel::RowSplit { splits }, "other parts of the rows lie elsewhere")
        }
        None if can_split && splits > 1 && few => {
            (Kernel::RowSplit { splits }, "fewer long rows than the device has cores")
        }
        None if stops && can_split => (Kernel::RowSplit { splits }, "a software adapter stops long loops"),
        None if stops => {
            return fault(format!("{} columns on a software adapter, which stops long loops", shape.cols));
        }
        // Mesa takes seconds to compile long unrolled rows: large tensors repay them.
        None if fits
            && !(limits.software
                && shape.rows.saturating_mul(shape.cols) < SOFTWARE_RESIDENT
                && windows > SHORT_WINDOWS) =>
        {
            (Kernel::RowResident { trips: trips as u32 }, "the row fits in registers")
        }
        None if shape.states == States::Kept && can_split => {
            (Kernel::RowSplit { splits: 1 }, "longer than registers hold, and its states are kept")
        }
        None => {
            (Kernel::Row, if limits.software { "streamed from the CPU's caches" } else { "longer than registers hold" })
        }
    };
    // A split row takes the whole workgroup.
    let lanes = if matches!(kernel, Kernel::RowSplit { .. }) { workgroup } else { lanes };
    let spread = Spread::new(kernel, workgroup, lanes, width, limits);
    let grid = spread.grid(shape.rows).map(|groups| groups as u32);
    let strided = shape.rows.div_ceil(spread.each) > spread.most;
    let exp2 = pinned.exp2.unwrap_or(limits.exp2);
    Ok(PassSchedule { kernel, workgroup, lanes, subgroup, exp2, width, grid, strided, why })
}

/// The most elements of an access that are not more than can be, nor than were asked for.
pub fn width(most: u32, pinned: Pinned) -> u32 {
    let most = most.min(pinned.width.unwrap_or(u32::MAX));
    [8, 4].into_iter().find(|width| *width <= most).unwrap_or(1)
}

fn busy_rows(limits: &Limits) -> u64 {
    if limits.software { 2 } else { BUSY_ROWS }
}

/// Workgroup memory in which invocations combine the states of all stages, at most (without subgroups).
fn gathered_bytes(pass: &Pass, workgroup: u32) -> u64 {
    let words: usize = pass.stages.iter().map(|stage| 1 + 2 * stage.reduces.len()).sum();
    4 * words as u64 * u64::from(workgroup)
}

/// Invocations of a workgroup, and those that share a row.
fn row_lanes(vectors: u64, width: u32, shape: &Shape, pass: &Pass, limits: &Limits, pinned: Pinned) -> (u32, u32) {
    let stages = pass.stages.len() as u64;
    let mut most = limits.invocations().min(1024);
    while most > 1 && gathered_bytes(pass, most) > u64::from(limits.workgroup_bytes) {
        most /= 2;
    }
    let lanes = pinned.lanes.or(pinned.workgroup);
    // Enough invocations for a busy workgroup: a vector of one core, or a few subgroups.
    let least = if limits.software && !shape.rows_innermost { 8 } else { 64.min(most) };
    let lanes = lanes.unwrap_or_else(|| {
        let shared = u64::from(resident_values(limits) / width);
        if shape.rows_innermost && shape.rows >= 1024 {
            // Neighbouring lanes read neighbouring rows.
            1
        } else if limits.software {
            let needed = (vectors * (stages + 1)).div_ceil(SOFTWARE_ITERATIONS).next_power_of_two();
            let resident = vectors.div_ceil(shared).next_power_of_two();
            let lanes = if resident <= 64 { resident.max(8) } else { needed.max(8) };
            if vectors <= shared { 1 } else { (lanes as u32).min(most) }
        } else if vectors <= 4 {
            1
        } else if vectors <= 32 * shared {
            // Half the registers for short rows, so that a load is wide; one subgroup's exchange at most.
            (vectors.div_ceil(shared / 2).next_power_of_two() as u32).min(32)
        } else {
            // Long rows: few of them at a time, so that what was read once is still near when it is read again.
            (vectors.div_ceil(shared).next_power_of_two()).min(u64::from(most)) as u32
        }
    });
    (pinned.workgroup.unwrap_or(lanes.max(least)), lanes)
}

/// Splits passes until none binds more storage buffers than the device allows: outputs move to passes of their own.
///
/// `last` names outputs that overwrite an input; they come after all others.
pub fn split_outputs(program: &Program, limits: &Limits, last: &[usize]) -> Result<Program> {
    let mut program = program.clone();
    let mut passes = Vec::new();
    for pass in std::mem::take(&mut program.passes) {
        let mut open = pass.outputs.clone();
        open.sort_by_key(|output| last.contains(output));
        let mut current = finish_pass(&program, pass.totals.clone(), Vec::new());
        loop {
            let needed = bindings(&program, &current);
            if needed > limits.storage_buffers as usize {
                return Err(Error::Limit {
                    what: format!("a pass of {}", program.name),
                    needed: needed as u64,
                    allowed: u64::from(limits.storage_buffers),
                    limit: "max_storage_buffers_per_shader_stage",
                });
            }
            let Some(&next) = open.first() else { break };
            let mut outputs = current.outputs.clone();
            outputs.push(next);
            let wider = finish_pass(&program, current.totals.clone(), outputs);
            if bindings(&program, &wider) <= limits.storage_buffers as usize {
                current = wider;
                open.remove(0);
            } else if current.outputs.is_empty() && current.totals.is_empty() {
                current = wider;
            } else {
                passes.push(current);
                current = finish_pass(&program, Vec::new(), Vec::new());
            }
        }
        passes.push(current);
    }
    program.passes = passes;
    Ok(program)
}

/// Checks that row and column numbers fit 32 bits; there may be more elements.
pub fn check_sizes(geometry: &Geometry, has_rows: bool) -> Result<()> {
    // A loop over columns may count a run of its steps further.
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
    use super::*;
    use crate::losses;
    use crate::lower::{Wanted, lower};

    fn program(loss: &crate::Loss, grads: &[&str]) -> Program {
        let wanted = Wanted { loss: true, grads: grads.iter().map(|g| g.to_string()).collect(), ..Wanted::default() };
        lower(loss, &wanted, &|name| ["input", "target"].contains(&name).then_some(false)).unwrap()
    }

    fn choose(rows: u64, cols: u64, limits: &Limits) -> PassSchedule {
        let program = program(&losses::cross_entropy(), &["input"]);
        let shape = Shape {
            rows,
            cols,
            width: if cols.is_multiple_of(4) { 4 } else { 1 },
            masked: false,
            rows_innermost: false,
            overwritten: false,
            states: States::Inside,
        };
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
    fn an_access_is_no_wider_than_asked_for() {
        let of = |most, asked| width(most, Pinned { width: asked, ..Pinned::default() });
        assert_eq!(
            [None, Some(9), Some(8), Some(7), Some(4), Some(3), Some(1)].map(|asked| of(8, asked)),
            [8, 8, 8, 4, 4, 1, 1]
        );
        assert_eq!((of(4, None), of(4, Some(8)), of(1, Some(4))), (4, 4, 1));
        let program = program(&losses::mse(), &["input"]);
        let shape = Shape {
            rows: 1,
            cols: 64,
            width: 4,
            masked: true,
            rows_innermost: false,
            overwritten: false,
            states: States::Inside,
        };
        let pinned = Pinned { width: Some(0), ..Pinned::default() };
        let chosen = schedule(&program, &program.passes[0], shape, &Limits::WEBGPU, pinned);
        assert!(matches!(chosen, Err(Error::Unsupported { message }) if message.contains("0 elements")));
    }

    #[test]
    fn long_rows_of_many_states_stay_inside_workgroup_memory() {
        let loss = losses::cross_entropy().label_smoothing(0.1).entropy_bonus(0.1);
        let program = program(&loss, &["input"]);
        let large = Limits { workgroup_invocations: 1024, ..Limits::WEBGPU };
        let shape = Shape {
            rows: 8192,
            cols: 1 << 20,
            width: 4,
            masked: false,
            rows_innermost: false,
            overwritten: false,
            states: States::Inside,
        };
        let pass = program.passes.last().unwrap();
        let chosen = schedule(&program, pass, shape, &large, Pinned::default()).unwrap();
        assert!(chosen.workgroup < 1024, "{chosen:?}");
        assert!(gathered_bytes(pass, chosen.workgroup) <= u64::from(large.workgroup_bytes));
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
