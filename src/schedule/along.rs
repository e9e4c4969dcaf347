//! What trips along rows (scans, pairs, sorts) cost the lanes that share a row: workgroup memory, and iterations of loops,
//! of which software adapters allow so many.

use super::{PassSchedule, Shape, Spread};
use crate::limits::Limits;
use crate::lower::{Along, AlongTrip, Pass, Stage};

/// Loop iterations of one invocation after which Mesa's software drivers stop a shader (65,535), with a margin.
pub(crate) const SOFTWARE_ITERATIONS: u64 = 50_000;

/// Partners whose pairs are added by themselves first (`RUN` of the row skeletons).
const PARTNERS_PER_RUN: u64 = 32;

/// Most iterations of a loop that counts by ones, to a constant, of which Mesa makes none.
const UNROLLED: u64 = 32;

/// Fewest neighbouring rows that keep a device busy at one lane a row.
pub(super) const LANE_ROWS: u64 = 1024;

/// Bits of a key that each pass of a sort takes at least.
pub(crate) const LEAST_DIGIT_BITS: u32 = 4;

/// The lanes that share a row.
#[derive(Clone, Copy)]
pub(super) struct Team {
    /// Invocations per workgroup.
    pub workgroup: u32,
    /// Lanes per row.
    pub lanes: u32,
    /// Fewest lanes of a subgroup; 0 if they combine without subgroup operations.
    pub subgroup: u32,
    /// Elements per access of a lane.
    pub width: u32,
}

/// Whether a software adapter would stop a lane that makes so many trips over a row in each stage.
pub(super) fn stops(limits: &Limits, pass: &Pass, trips: u64, team: Team) -> bool {
    limits.software && iterations(limits, pass, trips, team) > SOFTWARE_ITERATIONS
}

/// Rows of one dispatch of a pass with trips along rows, beyond which a software adapter would stop its workgroups, which take
/// several rows one after the other.
pub(crate) fn rows_before_stop(pass: &Pass, schedule: &PassSchedule, shape: &Shape, limits: &Limits) -> u64 {
    if !limits.software || !pass.runs_along_rows() {
        return u64::MAX;
    }
    let &PassSchedule { kernel, workgroup, lanes, subgroup, width, .. } = schedule;
    let trips = (shape.cols + u64::from(width) - 1).div_ceil(u64::from(width) * u64::from(lanes));
    let of_one = iterations(limits, pass, trips, Team { workgroup, lanes, subgroup, width }).max(1);
    let spread = Spread::new(kernel, workgroup, lanes, width, limits);
    let [groups, _] = spread.grid(shape.rows, shape.cols);
    (SOFTWARE_ITERATIONS / of_one).max(1) * groups * spread.each
}

/// Whether rows of which neighbours lie next to each other, and columns apart, keep a device busy at one lane for two rows.
pub(crate) fn may_pair(pass: &Pass, [rows, cols]: [u64; 2], limits: &Limits) -> bool {
    let alone = Team { workgroup: 1, lanes: 1, subgroup: 0, width: 1 };
    rows >= LANE_ROWS && !stops(limits, pass, cols.saturating_mul(2), alone)
}

/// Iterations of all loops of a lane over one row.
fn iterations(limits: &Limits, pass: &Pass, trips: u64, team: Team) -> u64 {
    // All loops count together, those in which the lanes of a scan combine too.
    let Team { workgroup, lanes, width, .. } = team;
    let each = |trip: &AlongTrip| match trip.along {
        Along::Scans(_) => trips.saturating_mul(scan_steps(team)),
        Along::Pairs => {
            let partners = trips.saturating_mul(u64::from(lanes) * u64::from(width));
            trips.saturating_mul(partners + partners / PARTNERS_PER_RUN + 2 * trips)
        }
        Along::Sort => {
            let columns = trips.saturating_mul(width.into());
            let bits = digit_bits(limits, pass, columns, workgroup);
            sort_iterations(columns, bits).saturating_add(sort_passes(bits) * u64::from(lanes.max(1).ilog2()))
        }
        Along::Permutations(_) => trips,
    };
    let along = pass.trips_along().map(each).fold(0, u64::saturating_add);
    trips.saturating_mul(trips_over(pass) + 1).saturating_add(along)
}

/// Passes of a sort over the keys of a row, at so many bits of them each.
pub(crate) fn sort_passes(bits: u32) -> u64 {
    u64::from(32 / bits + u32::from(32 % bits > 0))
}

/// Iterations of a lane that sorts a row of which it has so many columns: in each pass it counts their digits and moves them,
/// and clears and sums counts.
fn sort_iterations(columns: u64, bits: u32) -> u64 {
    sort_passes(bits).saturating_mul(columns.saturating_mul(2).saturating_add(3 << bits))
}

/// Bits of a key that each pass of a sort takes, where a lane has so many columns of a row. Counts of all digits lie in
/// workgroup memory for each lane, of which a GPU has many; a CPU's few lanes take more bits, if columns outnumber digits.
pub(super) fn digit_bits(limits: &Limits, pass: &Pass, columns: u64, workgroup: u32) -> u32 {
    let room = u64::from(limits.workgroup_bytes);
    // An even number of passes, after which the keys lie where they began.
    let more = [6, 8].into_iter().filter(|&bits| limits.software && combine_bytes(pass, workgroup, bits) <= room);
    more.fold(LEAST_DIGIT_BITS, |least, bits| {
        if sort_iterations(columns, bits) < sort_iterations(columns, least) { bits } else { least }
    })
}

/// Whether the pass streams its rows: pairs and sorts leave their values in memory.
pub(super) fn streams(pass: &Pass) -> bool {
    pass.trips_along().any(|trip| !matches!(trip.along, Along::Scans(_)))
}

/// Iterations in which the lanes of a row combine what each has scanned, once a block of columns: `scan_tree.wgsl`,
/// `scan_subgroup.wgsl`.
fn scan_steps(team: Team) -> u64 {
    let counted = u64::from(team.lanes / team.subgroup.max(1));
    if team.subgroup > 0 && counted > UNROLLED { counted } else { 0 }
}

/// Trips over a row's columns that its stages and thresholds take at most, and those along the row.
pub(super) fn trips_over(pass: &Pass) -> u64 {
    pass.stages.iter().map(|stage| 1 + u64::from(stage.steps) + stage.along.len() as u64).sum()
}

/// Bytes of workgroup memory in which lanes combine the states of all stages (without subgroups), and count so many bits of the
/// keys of sorts.
pub(super) fn combine_bytes(pass: &Pass, workgroup: u32, digit_bits: u32) -> u64 {
    // Thresholds have states of up to five words.
    let each = |stage: &Stage| if stage.steps > 0 { 5 } else { 2 };
    let along = |stage: &Stage| stage.along.iter().map(|trip| trip.lane_words(digit_bits)).sum::<usize>();
    let words: usize = pass.stages.iter().map(|stage| 1 + each(stage) * stage.reduces.len() + along(stage)).sum();
    4 * words as u64 * u64::from(workgroup)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses;
    use crate::lower::{Wanted, lower};

    #[test]
    fn few_lanes_of_a_cpu_take_more_bits_of_long_rows() {
        let wanted = Wanted { loss: true, ..Wanted::default() };
        let program = lower(&losses::list_mle(), &wanted, &|name| (name != "mask").then_some(false)).unwrap();
        let pass = program.passes.iter().find(|pass| pass.has_sorts()).unwrap();
        let cpu = Limits { software: true, ..Limits::WEBGPU };
        assert_eq!([32, 400, 2000].map(|columns| digit_bits(&cpu, pass, columns, 8)), [4, 6, 8]);
        // Counts of 64 lanes have room for 4 bits beside the scans.
        assert_eq!(digit_bits(&cpu, pass, 2000, 64), 4);
        assert_eq!(digit_bits(&Limits::WEBGPU, pass, 2000, 8), 4, "not measured on a GPU");
        for bits in [4, 6, 8] {
            assert!(sort_passes(bits).is_multiple_of(2), "the keys lie where they began");
            assert!(sort_passes(bits) * u64::from(bits) >= 32);
        }
        assert!(combine_bytes(pass, 8, 8) <= u64::from(cpu.workgroup_bytes));
    }
}
