//! Schedules of passes that sum over the rows for each column.

use super::{Kernel, PassSchedule, Shape};
use crate::limits::Limits;

/// Most columns that one lane adds up.
const MOST_EACH: u32 = 8;
/// Fewest rows per lane for which a range of rows of its own pays.
const LEAST_ROWS: u64 = 32;
/// Most ranges of rows: the partials of a column are added up one after another.
const MOST_SPLITS: u64 = 128;

/// Chooses the schedule of such a pass.
pub(super) fn choose(shape: &Shape, limits: &Limits) -> PassSchedule {
    let workgroup = if limits.software { 32 } else { limits.invocations().min(256) };
    // Neighbouring lanes read neighbouring elements: of one row, or of one column.
    let cols = u32::try_from(shape.cols).unwrap_or(u32::MAX);
    let across = if shape.rows_innermost { 1 } else { workgroup.min(cols.next_power_of_two()) };
    let each = cols.div_ceil(across).clamp(1, MOST_EACH);
    let tiles = shape.cols.div_ceil(u64::from(across * each));
    let busy = if limits.software { 16 } else { 2048 };
    let most = (shape.rows / (u64::from(workgroup / across) * LEAST_ROWS)).clamp(1, MOST_SPLITS);
    let splits = (busy / tiles).clamp(1, most.min(u64::from(limits.workgroups))) as u32;
    PassSchedule {
        kernel: Kernel::ColumnSums { across, each, splits },
        workgroup,
        lanes: 1,
        subgroup: 0,
        exp2: false,
        carries_nan: false,
        width: 1,
        grid: [tiles.min(u64::from(limits.workgroups)) as u32, splits],
        strided: true,
        alone: false,
        why: "sums over the rows for each column",
    }
}
