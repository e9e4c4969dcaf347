//! The schedules that a tuner measures. Pure.

use super::{Kernel, PassSchedule, Pinned, Shape, schedule};
use crate::limits::Limits;
use crate::lower::{Over, Pass, Program};

/// Most candidates on a GPU.
const MOST: usize = 24;
/// Most candidates on a software adapter, which takes seconds to compile long rows in registers.
const MOST_SOFTWARE: usize = 10;
/// Largest workgroup of a software adapter: larger ones are slower.
const MOST_LANES_SOFTWARE: u32 = 64;
/// Most workgroups of split rows, over all rows: each leaves states in memory.
const MOST_SPLITS: u64 = 1 << 16;

/// Schedules of a program that differ, the default first, at most 24: what a tuner measures.
///
/// `shapes` has one shape per pass. Candidates vary the kernel, invocations per workgroup, lanes per row, elements per
/// access and subgroups, where `pinned` leaves them open. A candidate that [`schedule`] refuses for any pass is left out.
/// The kernels take turns, candidates nearest to the default first.
pub fn candidates(program: &Program, shapes: &[Shape], limits: &Limits, pinned: Pinned) -> Vec<Pinned> {
    let chosen = |candidate: Pinned| -> Option<Vec<PassSchedule>> {
        let schedule = |pass, shape| schedule(program, pass, with_width(shape, candidate), limits, candidate).ok();
        program.passes.iter().zip(shapes).map(|(pass, shape)| schedule(pass, *shape)).collect()
    };
    let Some(default) = chosen(pinned) else { return vec![pinned] };
    let visits = |pass: &Pass| pass.columns && pass.over == Over::Rows;
    let columns = |(pass, shape): (&Pass, &Shape)| (program.has_rows() && visits(pass)).then_some(*shape);
    let shape = program.passes.iter().zip(shapes).filter_map(columns).next_back();
    let mut groups = match shape {
        Some(shape) => row_candidates(shape, limits),
        None => vec![element_candidates(limits)],
    };
    let narrower = [4, 1].map(|width| Pinned { width: Some(width), ..Pinned::default() });
    groups.push(narrower.into_iter().chain([Pinned { subgroups: Some(false), ..Pinned::default() }]).collect());
    let of = default.iter().zip(&program.passes).rev().find(|(_, pass)| visits(pass)).map_or(default[0], |(s, _)| *s);
    let (mut found, mut seen) = (vec![pinned], vec![without_reasons(&default)]);
    let mut turns: Vec<_> = groups
        .into_iter()
        .map(|mut group| {
            group.sort_by_key(|candidate| distance(candidate, &of));
            group.into_iter().map(|candidate| within(pinned, candidate))
        })
        .collect();
    let most = if limits.software { MOST_SOFTWARE } else { MOST };
    while found.len() < most && !turns.is_empty() {
        turns.retain_mut(|turn| {
            let next = turn.find_map(|candidate| {
                let schedules = without_reasons(&chosen(candidate)?);
                (!seen.contains(&schedules)).then_some((candidate, schedules))
            });
            if let (Some((candidate, schedules)), true) = (&next, found.len() < most) {
                found.push(*candidate);
                seen.push(schedules.clone());
            }
            next.is_some()
        });
    }
    found
}

/// Single accesses need no aligned windows.
fn with_width(shape: Shape, pinned: Pinned) -> Shape {
    Shape { masked: shape.masked && pinned.width != Some(1), ..shape }
}

/// A candidate, with the pinned fields as they are pinned.
fn within(pinned: Pinned, candidate: Pinned) -> Pinned {
    Pinned {
        kernel: pinned.kernel.or(candidate.kernel),
        workgroup: pinned.workgroup.or(candidate.workgroup),
        width: pinned.width.or(candidate.width),
        lanes: pinned.lanes.or(candidate.lanes),
        subgroups: pinned.subgroups.or(candidate.subgroups),
        exp2: pinned.exp2.or(candidate.exp2),
        carries_nan: pinned.carries_nan.or(candidate.carries_nan),
    }
}

/// Schedules without their reasons, to compare.
fn without_reasons(all: &[PassSchedule]) -> Vec<PassSchedule> {
    all.iter().map(|schedule| PassSchedule { why: "", ..*schedule }).collect()
}

/// Distance of a candidate from the default, in doublings of workgroup and lanes.
fn distance(candidate: &Pinned, default: &PassSchedule) -> u32 {
    let doublings = |size: Option<u32>, own: u32| size.map_or(0, |size| size.ilog2().abs_diff(own.max(1).ilog2()));
    doublings(candidate.workgroup, default.workgroup) + doublings(candidate.lanes, default.lanes)
}

fn powers(from: u32, to: u32) -> impl Iterator<Item = u32> {
    (0..32).map(|power| 1 << power).filter(move |size| (from..=to).contains(size))
}

fn element_candidates(limits: &Limits) -> Vec<Pinned> {
    let (least, most) = if limits.software { (2, MOST_LANES_SOFTWARE) } else { (32, u32::MAX) };
    let sized = |workgroup| Pinned { workgroup: Some(workgroup), ..Pinned::default() };
    powers(least, limits.invocations().min(most)).map(sized).collect()
}

/// One group per kernel, over lanes and workgroups.
fn row_candidates(shape: Shape, limits: &Limits) -> Vec<Vec<Pinned>> {
    let most = limits.invocations().min(if limits.software { MOST_LANES_SOFTWARE } else { u32::MAX });
    // Smaller workgroups than these leave a core idle: a vector of a CPU, a few subgroups.
    let busy: &[u32] = if limits.software { &[8, 16] } else { &[64, 256] };
    let wide = shape.cols.min(u64::from(most)) as u32;
    let mut teams = Vec::new();
    for lanes in powers(1, wide.next_power_of_two().min(most)) {
        let sizes = busy.iter().map(|size| lanes.max(*size)).filter(|size| *size <= most);
        teams.extend(sizes.map(|workgroup| (workgroup, lanes)));
    }
    teams.dedup();
    let pinned = |kernel: Kernel, (workgroup, lanes): (u32, u32)| Pinned {
        kernel: Some(kernel),
        workgroup: Some(workgroup),
        lanes: Some(lanes),
        ..Pinned::default()
    };
    let resident = teams.iter().map(|team| pinned(Kernel::RowResident { trips: 0 }, *team)).collect();
    let streamed = teams.iter().map(|team| pinned(Kernel::Row, *team)).collect();
    let split = [4u32, 16, 64]
        .into_iter()
        .filter(|splits| {
            shape.rows.saturating_mul(u64::from(*splits)) <= MOST_SPLITS && shape.cols / u64::from(*splits) >= 256
        })
        .flat_map(|splits| {
            let sizes: &[u32] = if limits.software { &[8] } else { &[128, 256] };
            sizes.iter().map(move |size| (splits, *size))
        })
        .filter(|(_, size)| *size <= most)
        .map(|(splits, size)| pinned(Kernel::RowSplit { splits }, (size, size)))
        .collect();
    let sizes = busy.iter().filter(|size| shape.row_pairs && **size <= most);
    let pairs = sizes.map(|size| pinned(Kernel::RowPairs, (*size, 1))).collect();
    vec![pairs, resident, streamed, split]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses;
    use crate::lower::{Wanted, lower};
    use proptest::prelude::*;

    fn program(loss: &crate::Loss) -> Program {
        let wanted = Wanted { loss: true, grads: vec!["input".to_owned()], ..Wanted::default() };
        lower(loss, &wanted, &|name| ["input", "target"].contains(&name).then_some(false)).unwrap()
    }

    fn shapes(program: &Program, rows: u64, cols: u64, masked: bool) -> Vec<Shape> {
        let vectors = masked || cols.is_multiple_of(4);
        let shape = Shape { width: if vectors { 4 } else { 1 }, masked, ..Shape::of(rows, cols) };
        vec![shape; program.passes.len()]
    }

    const GPU: Limits = Limits { workgroup_invocations: 1024, subgroup: 32, ..Limits::WEBGPU };

    #[test]
    fn every_kernel_has_its_turn() {
        let program = program(&losses::cross_entropy());
        let all = candidates(&program, &shapes(&program, 512, 8000, false), &GPU, Pinned::default());
        let of = |is: fn(Kernel) -> bool| all.iter().filter(|pinned| pinned.kernel.is_some_and(is)).count();
        assert!(of(|k| matches!(k, Kernel::RowResident { .. })) >= 2, "{all:?}");
        assert!(of(|k| k == Kernel::Row) >= 4, "{all:?}");
        assert!(of(|k| matches!(k, Kernel::RowSplit { .. })) >= 2, "{all:?}");
        assert!(all.contains(&Pinned { width: Some(1), ..Pinned::default() }));
        assert!(all.contains(&Pinned { subgroups: Some(false), ..Pinned::default() }));
        let narrower = Pinned { width: Some(4), ..Pinned::default() };
        assert!(!all.contains(&narrower), "vectors are the default");
        let pairs: Vec<Shape> =
            shapes(&program, 512, 8000, false).into_iter().map(|shape| Shape { width: 8, ..shape }).collect();
        assert!(candidates(&program, &pairs, &GPU, Pinned::default()).contains(&narrower));
    }

    #[test]
    fn elements_by_themselves_vary_the_workgroup() {
        let program = program(&losses::mse());
        let all = candidates(&program, &shapes(&program, 1, 1 << 22, false), &Limits::WEBGPU, Pinned::default());
        let sizes: Vec<u32> = all.iter().filter_map(|pinned| pinned.workgroup).collect();
        assert_eq!(sizes, [128, 64, 32], "256 is the default");
    }

    #[test]
    fn pinned_fields_stay() {
        let program = program(&losses::cross_entropy());
        let pinned = Pinned { kernel: Some(Kernel::Row), width: Some(1), ..Pinned::default() };
        let all = candidates(&program, &shapes(&program, 512, 1000, false), &GPU, pinned);
        assert!(all.len() > 2 && all.iter().all(|f| (f.kernel, f.width) == (pinned.kernel, pinned.width)), "{all:?}");
        // A schedule that cannot run is the only candidate: planning it reports the error.
        let never = Pinned { kernel: Some(Kernel::RowSplit { splits: 0 }), ..Pinned::default() };
        assert_eq!(candidates(&program, &shapes(&program, 512, 1000, false), &GPU, never), [never]);
    }

    proptest! {
        /// Each candidate is valid for every pass and differs from all others; the default is the first; there are few.
        #[test]
        fn candidates_are_valid_and_distinct(
            rows in 1u64..10_000_000,
            cols in prop_oneof![1u64..2000, 1u64..2_000_000],
            masked in any::<bool>(),
            software in any::<bool>(),
            subgroup in prop_oneof![Just(0u32), Just(32), Just(64)],
            invocations in prop_oneof![Just(64u32), Just(256), Just(1024)],
            which in 0usize..4,
        ) {
            let loss = losses::by_name(["cross_entropy", "mse", "nll", "kl_div"][which]).expect("in the catalogue");
            let program = program(&loss);
            let shapes = shapes(&program, rows, cols, masked);
            let limits = Limits { software, subgroup, workgroup_invocations: invocations, ..Limits::WEBGPU };
            let all = candidates(&program, &shapes, &limits, Pinned::default());
            prop_assert_eq!(all[0], Pinned::default());
            let most = if software { MOST_SOFTWARE } else { MOST };
            prop_assert!(all.len() <= most);
            let mut seen: Vec<Vec<PassSchedule>> = Vec::new();
            for pinned in all {
                let mut each = Vec::new();
                for (pass, shape) in program.passes.iter().zip(&shapes) {
                    let chosen = schedule(&program, pass, with_width(*shape, pinned), &limits, pinned);
                    prop_assert!(chosen.is_ok(), "{:?}: {:?}", pinned, chosen);
                    let chosen = chosen.unwrap();
                    prop_assert!(chosen.workgroup <= invocations && chosen.workgroup.is_multiple_of(chosen.lanes));
                    prop_assert!(chosen.grid.iter().all(|g| (1..=limits.workgroups).contains(g)));
                    each.push(chosen);
                }
                let each = without_reasons(&each);
                prop_assert!(!seen.contains(&each), "{:?} twice", pinned);
                seen.push(each);
            }
        }
    }
}
