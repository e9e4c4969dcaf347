//! Groups of unequal length, by offsets and by ids, on GPU and CPU, against plain loops in f64; and offsets and ids that
//! are not allowed.

mod hostile;
mod numbers;

use crate::common::compare::random;
use crate::common::context;
use numbers::{Asked, By, Factor, Inputs, Numbers, OF_DISTANCE, Rows, both_paths, close, distance, read, spread};
use wgloss::{
    Bindings, Bound, Context, DType, Extent, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, TuneOptions, Upstream,
};

/// Lengths of groups: one of one row; one of all rows; groups without rows first, last and between; more rows than one
/// dispatch adds up (16,384), in one group, in groups of three, and in groups that begin and end inside blocks of 1,024.
fn all_rows() -> Vec<Rows> {
    let rows = |lengths: Vec<usize>, cols| Rows { lengths, cols };
    vec![
        rows(vec![1], 3),
        rows(vec![7], 5),
        rows(vec![0, 2, 5, 0, 0, 1, 4, 0], 5),
        rows(vec![300, 1, 70], 65),
        rows(vec![20_000], 2),
        rows(vec![3; 6000], 1),
        rows(vec![1000, 24, 2048, 1, 0, 9000, 6000, 1023, 1025, 2], 2),
    ]
}

#[test]
fn groups_of_unequal_length_are_the_textbooks() {
    let Some(ctx) = context() else { return };
    for rows in all_rows() {
        let numbers = Numbers::new(&rows);
        let groups = rows.groups();
        let of = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let (weight, mask, upstream) = (of(&numbers.weight), of(&numbers.mask), of(&numbers.upstream));
        let kept: f64 = mask.iter().sum();
        let per_loss = Asked { upstream: Upstream::PerLoss, ..OF_DISTANCE };
        let each: [(Reduction, &[&str], &Asked, Factor<'_>); 5] = [
            (Reduction::None, &[], &OF_DISTANCE, &|_| 1.0),
            (Reduction::None, &["upstream"], &per_loss, &|g| upstream[g]),
            (Reduction::Sum, &["sample_weight"], &OF_DISTANCE, &|g| weight[g]),
            (Reduction::Mean, &[], &OF_DISTANCE, &|_| 1.0 / groups as f64),
            (Reduction::MeanOrZero, &["mask"], &OF_DISTANCE, &|g| mask[g] / kept.max(1.0)),
        ];
        for (reduction, beside, asked, factor) in each {
            let loss = distance().reduction(reduction.clone());
            let mut want = numbers.expected(&rows, factor);
            if reduction != Reduction::None {
                want[0] = vec![want[0].iter().enumerate().map(|(g, loss)| factor(g) * loss).sum()];
            }
            for by in [By::Offsets, By::Ids] {
                let paths = both_paths(ctx, &loss, (&rows, by), &numbers.inputs(&rows, beside), asked);
                for (path, got) in ["GPU", "CPU"].iter().zip(paths) {
                    for (k, name) in ["loss", "x", "r", "t", "mean", "above"].iter().enumerate() {
                        let what = format!("{name} of {groups} groups by {by:?}, {reduction:?}, {path}");
                        close(&what, &got[k], &want[k]);
                    }
                }
            }
        }
    }
}

#[test]
fn rows_read_the_sums_of_their_own_group() {
    let Some(ctx) = context() else { return };
    for rows in all_rows() {
        let (count, cols) = (rows.count(), rows.cols);
        let (x, upstream) = (random(count * cols, 1), random(count, 2));
        let sums: Vec<f64> = x.chunks(cols).map(|row| row.iter().map(|x| f64::from(*x)).sum()).collect();
        let (mut losses, mut by_x) = (Vec::new(), Vec::new());
        for g in 0..rows.groups() {
            let n = rows.of(g).len() as f64;
            let mean = rows.of(g).map(|row| sums[row]).sum::<f64>() / n;
            let off = |row: usize| 2.0 * f64::from(upstream[row]) * (sums[row] - mean);
            let shared = rows.of(g).map(off).sum::<f64>() / n;
            losses.extend(rows.of(g).map(|row| (sums[row] - mean).powi(2)));
            by_x.extend(rows.of(g).flat_map(|row| vec![off(row) - shared; cols]));
        }
        let inputs: Inputs<'_> = vec![("x", &x, vec![count, cols]), ("upstream", &upstream, vec![count])];
        let asked = Asked { grads: &["x"], extras: &[], upstream: Upstream::PerLoss };
        for by in [By::Offsets, By::Ids] {
            let paths = both_paths(ctx, &spread().reduction(Reduction::None), (&rows, by), &inputs, &asked);
            for (path, got) in ["GPU", "CPU"].iter().zip(paths) {
                close(&format!("loss by {by:?}, {path}"), &got[0], &losses);
                close(&format!("gradient by {by:?}, {path}"), &got[1], &by_x);
            }
        }
    }
}

#[test]
fn a_plan_serves_fewer_rows_and_fewer_groups() {
    let Some(ctx) = context() else { return };
    let planned = Rows { lengths: vec![6; 5], cols: 4 };
    let spec = PlanSpec::new()
        .input("x", DType::F32, &[30, 4])
        .input("r", DType::F32, &[30])
        .input("t", DType::F32, &[5])
        .input("groups", DType::U32, &[6])
        .grad("x");
    let plan = ctx.plan(&distance().reduction(Reduction::Mean), &planned.give(spec, By::Offsets)).unwrap();
    for lengths in [vec![4, 0, 9], vec![30], vec![6; 5]] {
        let rows = Rows { lengths, cols: 4 };
        let numbers = Numbers::new(&rows);
        let offsets: Vec<u32> = rows.offsets().into_iter().map(|offset| offset as u32).collect();
        // Every other element of a longer buffer.
        let spaced: Vec<u32> = offsets.iter().flat_map(|offset| [*offset, u32::MAX]).collect();
        let groups = Tensor::from_slice(ctx, &spaced, &[spaced.len()]).unwrap();
        let groups = groups.view(0, &[offsets.len()], &[2]).unwrap();
        let tensors: Vec<(&str, Tensor)> = numbers
            .inputs(&rows, &[])
            .into_iter()
            .map(|(name, values, shape)| (name, Tensor::from_slice(ctx, values, &shape).unwrap()))
            .collect();
        let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let bound = plan.bind(&Bindings::new().inputs(&inputs).input("groups", &groups)).unwrap();
        let want = numbers.expected(&rows, &|_| 1.0 / rows.groups() as f64);
        bound.submit().unwrap();
        let mean = want[0].iter().sum::<f64>() / rows.groups() as f64;
        close("loss", &[bound.read_loss().unwrap().into()], &[mean]);
        close("gradient", &read(bound.grad("x").unwrap()), &want[1]);
    }
}

#[test]
fn an_empty_group_has_a_mean_of_nan_that_a_mask_leaves_out() {
    let Some(ctx) = context() else { return };
    let mean = || {
        Loss::define("mean")
            .input("x", Scope::Element)
            .row_axis(RowAxis::Last)
            .expr(|b| b.input("x").sum().sum_over(Scope::Group) / b.graph().count(Extent::GroupRows))
    };
    let kept = || {
        Loss::define("kept").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
            let rows = b.graph().count(Extent::GroupRows);
            b.input("x").sum().sum_over(Scope::Group) / rows.maximum(1.0)
        })
    };
    let rows = Rows { lengths: vec![2, 0, 1], cols: 1 };
    let inputs: Inputs<'_> = vec![("x", &[1.0, 3.0, 5.0], vec![3, 1])];
    let mut masked = inputs.clone();
    masked.push(("mask", &[1.0, 0.0, 1.0], vec![3]));
    let asked = Asked { grads: &["x"], extras: &[], upstream: Upstream::One };
    let nan = f64::NAN;
    let third = 1.0 / 3.0;
    let cases: [(Loss, &Inputs<'_>, [&[f64]; 2]); 5] = [
        (mean().reduction(Reduction::None), &inputs, [&[2.0, nan, 5.0], &[0.5, 0.5, 1.0]]),
        (mean().reduction(Reduction::Mean), &inputs, [&[nan], &[third / 2.0, third / 2.0, third]]),
        (mean().reduction(Reduction::Mean), &masked, [&[3.5], &[0.25, 0.25, 0.5]]),
        (kept().reduction(Reduction::Sum), &inputs, [&[7.0], &[0.5, 0.5, 1.0]]),
        (kept().reduction(Reduction::MeanOrZero), &inputs, [&[7.0 / 3.0], &[third / 2.0, third / 2.0, third]]),
    ];
    for (loss, inputs, want) in cases {
        for by in [By::Offsets, By::Ids] {
            // Ids of [0, 0, 2] leave group 1 out alike.
            for (path, got) in ["GPU", "CPU"].iter().zip(both_paths(ctx, &loss, (&rows, by), inputs, &asked)) {
                let what = format!("{} {:?}, {by:?}, {path}", loss.name(), loss.reduced_by());
                close(&what, &got[0], want[0]);
                close(&what, &got[1], want[1]);
            }
        }
    }
}

#[test]
fn offsets_are_read_anew_each_step_and_the_next_step_is_clean() {
    let Some(ctx) = context() else { return };
    let rows = Rows { lengths: vec![4, 3, 5], cols: 3 };
    let numbers = Numbers::new(&rows);
    let tensors: Vec<(&str, Tensor)> = numbers
        .inputs(&rows, &[])
        .into_iter()
        .map(|(name, values, shape)| (name, Tensor::from_slice(ctx, values, &shape).unwrap()))
        .collect();
    let offsets = Tensor::from_slice(ctx, &[0, 4, 7, 13], &[4]).unwrap();
    let mut inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    inputs.push(("groups", &offsets));
    // Forward and backward apart: the rows that the forward phase found are the backward phase's.
    let spec = PlanSpec::new().like(&inputs).grad("x").separate_backward();
    let plan = ctx.plan(&distance().reduction(Reduction::None), &rows.give(spec, By::Offsets)).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    let step = |bound: &Bound| {
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        bound.encode_forward(&mut encoder).unwrap();
        ctx.queue().submit([encoder.finish()]);
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        bound.encode_backward(&mut encoder).unwrap();
        ctx.queue().submit([encoder.finish()]);
        pollster::block_on(bound.status())
    };
    let want = "element 3 of `groups` is 13: must be 12 (the number of rows); the results of that group are NaN";
    assert_eq!(step(&bound).unwrap_err().to_string(), want);
    let loss = read(bound.loss().unwrap());
    assert_eq!(loss.iter().map(|x| x.is_nan()).collect::<Vec<_>>(), [false, false, true]);
    for lengths in [vec![4, 3, 5], vec![0, 12, 0]] {
        let rows = Rows { lengths, cols: 3 };
        ctx.queue().write_buffer(offsets.buffer(), 0, bytemuck::cast_slice(&rows.offsets()));
        assert_eq!(step(&bound), Ok(()));
        let want = numbers.expected(&rows, &|_| 1.0);
        close("loss", &read(bound.loss().unwrap()), &want[0]);
        close("gradient", &read(bound.grad("x").unwrap()), &want[1]);
    }
}

#[test]
fn unequal_groups_survive_chunks_and_other_layouts() {
    let Some(_) = context() else { return };
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 17, ..wgpu::Limits::default() };
    let ctx = Context::with_limits(limits).unwrap();
    // x needs three bindings of 128 KiB; groups begin and end in the middle of chunks.
    let rows = Rows { lengths: vec![700, 0, 801, 1, 548], cols: 40 };
    let numbers = Numbers::new(&rows);
    let want = numbers.expected(&rows, &|_| 1.0);
    for by in [By::Offsets, By::Ids] {
        let loss = distance().reduction(Reduction::None);
        let [on_gpu, _] = both_paths(&ctx, &loss, (&rows, by), &numbers.inputs(&rows, &[]), &OF_DISTANCE);
        for (got, want) in on_gpu.iter().zip(&want) {
            close(&format!("chunks by {by:?}"), got, want);
        }
    }
    // Rows of two axes, and ids in the shape of the rows, transposed in memory.
    let ids: Vec<i32> = (0..12).map(|row| row / 5).collect();
    let x = random(36, 1);
    let at = |row: usize| (row % 4 * 3 + row / 4) as i32;
    let transposed: Vec<i32> = (0..12).map(|k| ids[(0..12).find(|row| at(*row) == k).unwrap()]).collect();
    let groups = Tensor::from_slice(&ctx, &transposed, &[12]).unwrap().view(0, &[3, 4], &[1, 3]).unwrap();
    let inputs = [("x", &Tensor::from_slice(&ctx, &x, &[3, 4, 3]).unwrap()), ("groups", &groups)];
    let sums = Loss::define("sums").input("x", Scope::Element).row_axis(RowAxis::Last);
    let sums = sums.expr(|b| b.input("x").sum().sum_over(Scope::Group)).reduction(Reduction::None);
    let plan = ctx.plan(&sums, &PlanSpec::new().like(&inputs).group_ids("groups", 3)).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    let of = |group: usize| x[group * 15..(group * 15 + 15).min(36)].iter().map(|x| f64::from(*x)).sum::<f64>();
    close("ids of two axes", &read(bound.loss().unwrap()), &[0, 1, 2].map(of));
}

#[test]
fn a_plan_of_unequal_groups_tunes_and_explains() {
    let Some(ctx) = context() else { return };
    for by in [By::Offsets, By::Ids] {
        let rows = Rows { lengths: vec![100, 0, 400], cols: 64 };
        let spec = PlanSpec::new().input("x", DType::F32, &[500, 64]).input("r", DType::F32, &[500]);
        let spec = spec.input("t", DType::F32, &[3]).input("groups", DType::I32, &[rows.indices(by).len()]).grad("x");
        let plan = ctx.plan(&distance().reduction(Reduction::Mean), &rows.give(spec, by)).unwrap();
        let options = TuneOptions::new().budget(std::time::Duration::from_secs(2));
        plan.tune(&options).unwrap();
        let text = plan.explain();
        assert!(text.contains("groups of unequal length"), "{text}");
    }
}

/// `L_i = s_i · log(v_g)·k`, `s_i = Σⱼ xᵢⱼ`: a group that has no rows does not count, whatever its value is.
#[test]
fn the_value_of_a_group_without_rows_is_not_looked_at() {
    let Some(ctx) = context() else { return };
    let rows = Rows { lengths: vec![0, 2, 5, 0, 1, 0], cols: 3 };
    let (count, groups, k) = (rows.count(), rows.groups(), 1.5_f32);
    let x = random(count * rows.cols, 1);
    let sums: Vec<f64> = x.chunks(rows.cols).map(|row| row.iter().map(|x| f64::from(*x)).sum()).collect();
    let loss = Loss::define("scaled").input("x", Scope::Element).input("v", Scope::Group).input("k", Scope::Scalar);
    let loss = loss.row_axis(RowAxis::Last).expr(|b| b.input("x").sum() * (b.input("v").log() * b.input("k")));
    let asked = Asked { grads: &["x", "v", "k"], extras: &[], upstream: Upstream::One };
    for empty in [f32::NAN, 0.0, -1.0] {
        let v: Vec<f32> = rows.lengths.iter().map(|length| if *length == 0 { empty } else { 2.0 }).collect();
        for reduction in [Reduction::None, Reduction::Sum] {
            let of_group = |g: usize| rows.of(g).map(|row| sums[row]).sum::<f64>();
            let log = 2.0_f64.ln();
            let mut losses: Vec<f64> = sums.iter().map(|sum| sum * log * 1.5).collect();
            if reduction == Reduction::Sum {
                losses = vec![losses.iter().sum()];
            }
            let want = [
                losses,
                vec![log * 1.5; count * rows.cols],
                (0..groups).map(|g| of_group(g) * 1.5 / 2.0).collect(),
                vec![sums.iter().sum::<f64>() * log],
            ];
            let inputs = vec![
                ("x", &x[..], vec![count, rows.cols]),
                ("v", &v[..], vec![groups]),
                ("k", std::slice::from_ref(&k), vec![]),
            ];
            for by in [By::Offsets, By::Ids] {
                let paths = both_paths(ctx, &loss.clone().reduction(reduction.clone()), (&rows, by), &inputs, &asked);
                for (path, got) in ["GPU", "CPU"].iter().zip(paths) {
                    for (k, name) in ["loss", "x", "v", "k"].iter().enumerate() {
                        close(&format!("{name}, {empty} in empty groups, {reduction:?}, {path}"), &got[k], &want[k]);
                    }
                }
            }
        }
    }
}

/// A loss that counts each group, with rows or without, looks at each.
#[test]
fn a_group_without_rows_that_counts_itself_is_looked_at() {
    let Some(ctx) = context() else { return };
    let rows = Rows { lengths: vec![2, 0, 1], cols: 2 };
    let x = random(rows.count() * rows.cols, 1);
    let v = [1.0, f32::NAN, 3.0];
    let loss = Loss::define("counted").input("x", Scope::Element).input("v", Scope::Group).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| b.input("x").sum().sum_over(Scope::Group) * b.input("v")).reduction(Reduction::None);
    let inputs = vec![("x", &x[..], vec![rows.count(), rows.cols]), ("v", &v[..], vec![rows.groups()])];
    let asked = Asked { grads: &["v"], extras: &[], upstream: Upstream::One };
    for got in both_paths(ctx, &loss, (&rows, By::Offsets), &inputs, &asked) {
        for output in got {
            let is_nan: Vec<bool> = output.iter().map(|value| value.is_nan()).collect();
            assert_eq!(is_nan, [false, true, false]);
        }
    }
}
