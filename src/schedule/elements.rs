//! Schedules of element-wise passes: over single elements, or over rows without their columns.

use super::{Kernel, PassSchedule, Pinned, Shape, Spread, carries_nan};
use crate::limits::Limits;
use crate::lower::Program;

/// Chooses the schedule of such a pass.
pub(super) fn choose(program: &Program, shape: &Shape, width: u32, limits: &Limits, pinned: Pinned) -> PassSchedule {
    let has_rows = program.has_rows();
    let width = if has_rows { 1 } else { width };
    let items = if has_rows { shape.rows } else { shape.cols };
    // Beside a pass over columns, the pinned workgroup is meant for that one.
    let beside = has_rows && program.passes.iter().any(|pass| pass.columns);
    let most = limits.invocations().min(256);
    let workgroup = pinned.workgroup.filter(|_| !beside);
    let workgroup = workgroup.unwrap_or(if limits.software { 8 } else { most });
    let grid = Spread::new(Kernel::Elementwise, workgroup, 1, width, limits).grid(items);
    PassSchedule {
        kernel: Kernel::Elementwise,
        workgroup,
        lanes: 1,
        subgroup: 0,
        exp2: false,
        carries_nan: carries_nan(limits, pinned),
        width,
        grid: grid.map(|groups| groups as u32),
        strided: true,
        why: if has_rows { "no element is read" } else { "no row reduction" },
    }
}
