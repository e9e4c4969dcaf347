//! Schedules of passes that sum over the rows for each column.

use super::{Kernel, PassSchedule, Shape};
use crate::limits::{Exp2, Limits};

/// Most columns that one lane adds up.
const MOST_EACH: u32 = 8;
/// Fewest rows per lane for which a range of rows of its own pays.
const LEAST_ROWS: u64 = 32;
/// Most ranges of rows: the partials of a column are added up one after another.
const MOST_SPLITS: u64 = 128;

/// Chooses the schedule of such a pass. Where there are more ranges of rows than a grid has workgroups along an axis, each
/// workgroup takes further ranges.
pub(super) fn choose(shape: &Shape, limits: &Limits) -> PassSchedule {
    let workgroup = if limits.software { 32 } else { limits.invocations().min(256) };
    // Neighbouring lanes read neighbouring elements: of one row, or of one column.
    let cols = u32::try_from(shape.cols).unwrap_or(u32::MAX);
    let across = if shape.rows_innermost { 1 } else { workgroup.min(cols.next_power_of_two()) };
    let each = cols.div_ceil(across).clamp(1, MOST_EACH);
    let tiles = shape.cols.div_ceil(u64::from(across * each));
    let busy = if limits.software { 16 } else { 2048 };
    // The ranges of a group are its own.
    let (groups, rows) = match shape.group_rows {
        0 => (1, shape.rows),
        each => ((shape.rows / each).max(1), shape.rows.min(each)),
    };
    let workgroups = u64::from(limits.workgroups);
    let most = (rows / (u64::from(workgroup / across) * LEAST_ROWS)).clamp(1, MOST_SPLITS);
    let splits = (groups * (busy / (tiles * groups)).clamp(1, most.min(workgroups / groups).max(1))) as u32;
    PassSchedule {
        kernel: Kernel::ColumnSums { across, each, splits },
        workgroup,
        lanes: 1,
        subgroup: 0,
        exp2: Exp2::Nothing,
        carries_nan: false,
        width: 1,
        grid: [tiles.min(workgroups) as u32, splits.min(limits.workgroups)],
        strided: true,
        alone: false,
        why: if shape.group_rows == 0 {
            "sums over the rows for each column"
        } else {
            "sums over groups for each column"
        },
    }
}
