//! Schedules of element-wise passes: over single elements, or over rows without their columns.

use super::{Kernel, PassSchedule, Pinned, Shape, Spread, carries_nan};
use crate::expr::NodeId;
use crate::limits::Limits;
use crate::lower::{Over, Program};
use crate::shape::Scope;

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
    let grid = Spread::new(Kernel::Elementwise, workgroup, 1, width, limits).grid(items, 1);
    PassSchedule {
        kernel: Kernel::Elementwise,
        workgroup,
        lanes: 1,
        subgroup: 0,
        exp2: pinned.exp2.unwrap_or(limits.exp2),
        carries_nan: carries_nan(limits, pinned),
        width,
        grid: grid.map(|groups| groups as u32),
        strided: true,
        alone: false,
        why: if has_rows { "no element is read" } else { "no row reduction" },
    }
}

/// Most rows whose sums one workgroup makes by itself: on a GPU a dispatch more costs as much (H100: 4 µs).
fn alone_rows(limits: &Limits) -> u64 {
    if limits.software { 1 << 12 } else { 1 << 16 }
}

/// The schedule of one workgroup for a pass that only sums over rows, without their columns, what later passes need (how
/// many labels count, for one); `None` for other passes, and where several workgroups are faster.
pub(crate) fn alone(program: &Program, pass: usize, rows: u64, limits: &Limits) -> Option<u32> {
    let is_before = pass < program.finishing_pass();
    let pass = &program.passes[pass];
    let is_total = |id: &NodeId| program.scope(*id) <= Scope::Total;
    let sums = !pass.totals.is_empty() && pass.totals.iter().all(is_total) && pass.outputs.is_empty();
    let of_rows = program.has_rows() && !pass.columns && pass.over == Over::Rows;
    if !(of_rows && sums && is_before && (1..=alone_rows(limits)).contains(&rows)) {
        return None;
    }
    // A sum and the bits of its poison, of each.
    let bytes = 8 * pass.totals.len() as u64;
    let fitting = (u64::from(limits.workgroup_bytes) / bytes).checked_ilog2().map_or(0, |log| 1 << log.min(10));
    let workgroup = limits.invocations().min(if limits.software { 32 } else { fitting });
    (workgroup > 0).then_some(workgroup)
}
