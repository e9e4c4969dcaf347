//! The schedules that are verified: each kernel, with rows of one lane, a few, a workgroup; vectors and scalars.

use wgloss::{Kernel, Limits, Pinned};

/// A schedule to pin, and its name in the report.
pub struct Named {
    pub name: &'static str,
    pub pinned: Pinned,
    /// Whether a quick run includes it.
    quick: bool,
}

impl Named {
    /// Whether a shape is worth its time. A CPU takes half a minute for many short rows with mostly idle lanes. One lane
    /// never takes a long row: its sum, term by term, would lose digits.
    pub fn is_worth(&self, [rows, cols]: [usize; 2], limits: &Limits) -> bool {
        let lanes = self.pinned.lanes.unwrap_or(0) as usize;
        (!limits.software || rows * lanes <= 1 << 21) && (lanes != 1 || cols <= LONG)
    }
}

/// Most columns per row of one lane.
const LONG: usize = 4096;

/// Name of the default schedule.
pub const CHOSEN: &str = "as chosen";

/// The schedules for losses with or without rows; planning leaves out any that a shape rules out.
pub fn schedules(has_rows: bool, limits: &Limits, quick: bool) -> Vec<Named> {
    let mut all = vec![Named { name: CHOSEN, pinned: Pinned::default(), quick: true }];
    let mut add = |name, quick, pinned: Pinned| {
        let fits = pinned.workgroup.is_none_or(|workgroup| workgroup <= limits.workgroup_invocations);
        let differs = (pinned.subgroups.is_none() || limits.subgroup > 0) && (pinned.width != Some(4) || limits.wide);
        all.extend((fits && differs).then_some(Named { name, pinned, quick }));
    };
    let plain = Pinned::default();
    if !has_rows {
        add("elements, width 1", true, Pinned { width: Some(1), ..plain });
        add("elements, width 4", false, Pinned { width: Some(4), ..plain });
        add("elements, workgroup of 8", false, Pinned { workgroup: Some(8), ..plain });
        add("elements, workgroup of 256", false, Pinned { workgroup: Some(256), ..plain });
    } else {
        let team = |kernel, workgroup, lanes| Pinned {
            kernel: Some(kernel),
            workgroup: Some(workgroup),
            lanes: Some(lanes),
            ..plain
        };
        let scalar = |pinned| Pinned { width: Some(1), ..pinned };
        let alone = |pinned| Pinned { subgroups: Some(false), ..pinned };
        let (row, resident, split) = (Kernel::Row, Kernel::RowResident { trips: 0 }, Kernel::RowSplit { splits: 3 });
        add("row, 1 lane", false, team(row, 8, 1));
        add("row, 8 lanes", true, team(row, 8, 8));
        add("row, 8 lanes, width 4", false, Pinned { width: Some(4), ..team(row, 8, 8) });
        add("row, 64 lanes, width 1", false, scalar(team(row, 64, 64)));
        add("row, 256 lanes", false, team(row, 256, 256));
        add("row, 64 lanes, no subgroups", false, alone(team(row, 64, 64)));
        add("resident, 1 lane", false, team(resident, 8, 1));
        add("resident, 16 lanes", true, team(resident, 64, 16));
        add("resident, 16 lanes, width 4", false, Pinned { width: Some(4), ..team(resident, 64, 16) });
        add("resident, 64 lanes, width 1", false, scalar(team(resident, 64, 64)));
        add("resident, 256 lanes", false, team(resident, 256, 256));
        add("resident, 64 lanes, no subgroups", false, alone(team(resident, 64, 64)));
        add("split in 3", true, team(split, 64, 64));
        add("split in 3, width 1", true, scalar(team(split, 64, 64)));
        add("split in 3, width 4", false, Pinned { width: Some(4), ..team(split, 64, 64) });
        add("split in 3, no subgroups", false, alone(team(split, 64, 64)));
    }
    all.retain(|named| named.quick || !quick);
    all
}
