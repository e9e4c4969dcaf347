//! Every kernel, forced in turn, against the CPU's f64 path, around every boundary of a row.

use crate::common::compare::{assert_grads, random};
use crate::common::{context, is_in_share};
use rayon::prelude::*;
use wgloss::Wanted;
use wgloss::{Bindings, Context, DType, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, cpu, losses};
use wgloss::{Error, Exp2, Kernel, Pinned};

// 1, 3, 4, 5: around one vector; 255 to 257: around one workgroup; then streams: of vectors, but not of pairs of them;
// of pairs; of neither.
const COLS: [usize; 10] = [1, 3, 4, 5, 255, 256, 257, 1004, 32000, 50257];

const KERNELS: [Kernel; 4] =
    [Kernel::Row, Kernel::RowResident { trips: 0 }, Kernel::RowSplit { splits: 1 }, Kernel::RowSplit { splits: 5 }];

/// Two row reductions that depend on each other, and an argmax: more than one stage.
fn staged() -> Loss {
    Loss::define("staged").input("input", Scope::Element).label("target").row_axis(RowAxis::Class).expr(|b| {
        let (x, y) = (b.input("input"), b.input("target"));
        let r = x - x.mean();
        let hit = x.argmax().equals(y).to_float();
        (r * r).mean() + x.logsumexp() - x.at(y) + x.min() + hit
    })
}

/// Every kernel with rows of one lane, a few, a subgroup, a workgroup; vectors and scalars; subgroups and none.
fn forces(ctx: &Context) -> Vec<Pinned> {
    let most = ctx.limits().workgroup_invocations;
    let teams = [(8, 8), (8, 1), (64, 4), (64, 64), (64, 16), (128, 32), (256, 1), (256, 256)];
    let mut all = vec![Pinned::default()];
    for kernel in KERNELS {
        for (workgroup, lanes) in teams.into_iter().filter(|t| t.0 <= most) {
            if matches!(kernel, Kernel::RowSplit { .. }) && lanes < workgroup {
                continue;
            }
            for width in [None, Some(1), Some(4)] {
                // Only some adapters load more than vectors.
                if width == Some(4) && !(ctx.limits().wide && [16, 64].contains(&lanes) && workgroup == 64) {
                    continue;
                }
                // Without subgroups where there are any: every other one.
                let off = [None, Some(false)].into_iter().skip(usize::from(width.is_some() && lanes == 1));
                all.extend(off.map(|subgroups| Pinned {
                    kernel: Some(kernel),
                    workgroup: Some(workgroup),
                    width,
                    lanes: Some(lanes),
                    subgroups,
                    // The adapter's exponential with vectors, ours without.
                    exp2: Some(if width == Some(1) { Exp2::Nothing } else { Exp2::Functions }),
                    carries_nan: Some(width != Some(1)),
                }));
            }
        }
    }
    all
}

fn check_columns(ctx: &Context, loss: &Loss, rows: usize, cols: usize, all: &[Pinned]) {
    let x = random(rows * cols, cols as u32);
    let y: Vec<i32> = (0..rows).map(|row| if row == 1 { -100 } else { (row * 7919 % cols) as i32 }).collect();
    // `staged` knows no index to ignore.
    let y: Vec<i32> = if loss.name() == "staged" { y.iter().map(|y| (*y).max(0)).collect() } else { y };
    let host = [("input", HostTensor::f32(&x, &[rows, cols])), ("target", HostTensor::i32(&y, &[rows]))];
    let want = cpu::forward_backward(loss, &host, &["input"]).unwrap();
    let xs = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
    let ys = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
    let inputs = [("input", &xs), ("target", &ys)];
    for pinned in all {
        let spec = PlanSpec::new().like(&inputs).grad("input").pin(*pinned);
        let plan = match ctx.plan(loss, &spec) {
            Ok(plan) => plan,
            Err(error) => {
                let resident = matches!(pinned.kernel, Some(Kernel::RowResident { .. }));
                let long = pinned.lanes == Some(1) && cols > 25_000 && ctx.limits().software;
                assert!(resident || long, "only resident rows have a largest size: {error}");
                continue;
            }
        };
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        let what = format!("{} [{rows}, {cols}] {pinned:?}", loss.name());
        let got = f64::from(bound.read_loss().unwrap());
        let want_loss = want.loss().unwrap();
        assert!((got - want_loss).abs() <= 3e-6 * want_loss.abs() + 1e-6, "{what}: loss {got}, want {want_loss}");
        assert_grads(&what, &bound.grad("input").unwrap().to_vec().unwrap(), want.grad("input").unwrap(), cols);
    }
}

#[test]
fn every_kernel_agrees_with_the_cpu_at_every_boundary() {
    if context().is_none() {
        return;
    }
    // Side by side: kernels are what this costs.
    COLS.into_par_iter().with_max_len(1).for_each(|cols| {
        let Some(ctx) = context() else { return };
        let all = forces(ctx);
        // Each column count takes the default and every third kernel, long rows every ninth, so that over the
        // boundaries every kernel has its turn.
        let (rows, step) = if cols > 1000 { (2, 9) } else { (5, 3) };
        let all: Vec<Pinned> =
            all.iter().enumerate().filter(|(k, _)| *k == 0 || (k + cols) % step == 0).map(|(_, f)| *f).collect();
        let smoothed = losses::cross_entropy().label_smoothing(0.1);
        let tried: [(&str, Loss); 3] =
            [("plain", losses::cross_entropy().into()), ("smoothed", smoothed.into()), ("staged", staged())];
        for (name, loss) in tried.into_iter().filter(|(name, _)| cols <= 257 || *name != "staged") {
            // The default always; a kernel that is forced is in one share, whichever columns it runs over.
            let taken =
                |pinned: &Pinned| *pinned == Pinned::default() || is_in_share(&format!("{name} rows by {pinned:?}"));
            let all: Vec<Pinned> = all.iter().copied().filter(taken).collect();
            check_columns(ctx, &loss, rows, cols, &all);
        }
    });
}

#[test]
fn two_rows_of_ten_million_columns() {
    let Some(ctx) = context() else { return };
    check_columns(ctx, &losses::cross_entropy(), 2, 10_000_001, &[Pinned::default()]);
}

#[test]
fn more_rows_than_workgroups_in_a_grid() {
    let Some(ctx) = context() else { return };
    let rows = ctx.limits().workgroups as usize + 1000;
    check_columns(ctx, &losses::cross_entropy(), rows, 3, &[Pinned::default()]);
}

#[test]
fn element_kernels_agree_at_every_workgroup_and_width() {
    let Some(ctx) = context() else { return };
    for count in [1usize, 3, 4, 5, 255, 256, 257, 4096, 100_003, 1 << 20] {
        let (x, t) = (random(count, 1), random(count, 2));
        let host = [("input", HostTensor::f32(&x, &[count])), ("target", HostTensor::f32(&t, &[count]))];
        let (xs, ts) = (Tensor::from_slice(ctx, &x, &[count]).unwrap(), Tensor::from_slice(ctx, &t, &[count]).unwrap());
        let inputs = [("input", &xs), ("target", &ts)];
        for loss in [losses::mse(), losses::huber(0.7).into(), losses::rmse()] {
            let want = cpu::forward_backward(&loss, &host, &["input"]).unwrap();
            for workgroup in [None, Some(8), Some(256)] {
                for width in [None, Some(4), Some(1)].into_iter().skip(usize::from(workgroup == Some(256))) {
                    let pinned = Pinned { workgroup, width, ..Pinned::default() };
                    let spec = PlanSpec::new().grad("input").pin(pinned);
                    let out = loss.run(ctx, &inputs, &spec).unwrap();
                    let what = format!("{} {count} {pinned:?}", loss.name());
                    let (got, want_loss) = (f64::from(out.loss().unwrap()), want.loss().unwrap());
                    assert!((got - want_loss).abs() <= 2e-6 * want_loss, "{what}: {got}, want {want_loss}");
                    let got = out.grad("input").unwrap().to_vec::<f32>().unwrap();
                    assert_grads(&what, &got, want.grad("input").unwrap(), count);
                }
            }
        }
    }
}

/// Views of both inputs, each so many elements further than a pair of vectors begins.
#[test]
fn elements_that_begin_anywhere_agree_with_the_cpu() {
    let Some(ctx) = context() else { return };
    for count in [64usize, 65, 68, 71, 1000, 1003] {
        let (x, t) = (random(count, 1), random(count, 2));
        let host = [("input", HostTensor::f32(&x, &[count])), ("target", HostTensor::f32(&t, &[count]))];
        let want = cpu::forward_backward(&losses::mse(), &host, &["input"]).unwrap();
        let view = |values: &[f32], first: usize| {
            let mut all = vec![f32::NAN; first];
            all.extend(values.iter().copied().chain([f32::NAN; 9]));
            let whole = Tensor::from_slice(ctx, &all, &[all.len()]).unwrap();
            whole.view(first as u64, &[count], &[1]).unwrap()
        };
        for first in 0..9 {
            // Together; half a pair apart; a column apart.
            for apart in [0, 4, 1] {
                let (xs, ts) = (view(&x, first), view(&t, first + apart));
                let out = losses::mse().forward_backward(ctx, &[("input", &xs), ("target", &ts)]).unwrap();
                let what = format!("{count} elements from {first}, target from {}", first + apart);
                let (got, want_loss) = (f64::from(out.loss().unwrap()), want.loss().unwrap());
                assert!((got - want_loss).abs() <= 2e-6 * want_loss, "{what}: {got}, want {want_loss}");
                let got = out.grad("input").unwrap().to_vec::<f32>().unwrap();
                assert_grads(&what, &got, want.grad("input").unwrap(), count);
            }
        }
    }
}

/// Views whose rows lie apart, so that an address is a sum over axes; each row begins at a vector.
#[test]
fn elements_of_rows_apart_agree_with_the_cpu() {
    let Some(ctx) = context() else { return };
    // The first row begins at the second vector.
    let (rows, cols, stride, first) = (7, 12, 16, 4);
    let (x, t) = (random(rows * cols, 1), random(rows * cols, 2));
    let shape = [rows, cols];
    let host = [("input", HostTensor::f32(&x, &shape)), ("target", HostTensor::f32(&t, &shape))];
    let view = |values: &[f32]| {
        let mut all = vec![f32::NAN; first + rows * stride];
        let places = all[first..].chunks_mut(stride);
        values.chunks(cols).zip(places).for_each(|(row, to)| to[..cols].copy_from_slice(row));
        Tensor::from_slice(ctx, &all, &[all.len()]).unwrap().view(first as u64, &shape, &[stride, 1]).unwrap()
    };
    let (xs, ts) = (view(&x), view(&t));
    for loss in [losses::mse(), losses::l1().reduction(Reduction::None)] {
        let want = cpu::forward_backward(&loss, &host, &["input"]).unwrap();
        let out = loss.forward_backward(ctx, &[("input", &xs), ("target", &ts)]).unwrap();
        let got = out.grad("input").unwrap().to_vec::<f32>().unwrap();
        assert_grads(&format!("{} of rows apart", loss.name()), &got, want.grad("input").unwrap(), cols);
    }
}

#[test]
fn strided_views_and_class_axis_one_agree_with_their_copies() {
    let Some(ctx) = context() else { return };
    let (n, c, d) = (3, 5, 7);
    let x = random(n * c * d, 5);
    let y: Vec<i32> = (0..n * d).map(|k| (k * 3 % c) as i32).collect();
    let host = [("input", HostTensor::f32(&x, &[n, c, d])), ("target", HostTensor::i32(&y, &[n, d]))];
    let want = cpu::forward_backward(&losses::cross_entropy(), &host, &["input"]).unwrap();
    // The same numbers with every axis padded, classes innermost.
    let mut padded = vec![0.0; n * (d + 1) * (c + 3)];
    for (k, value) in x.iter().enumerate() {
        let (i, j, l) = (k / (c * d), k / d % c, k % d);
        padded[i * (d + 1) * (c + 3) + l * (c + 3) + j] = *value;
    }
    let whole = Tensor::from_slice(ctx, &padded, &[padded.len()]).unwrap();
    let strided = whole.view(0, &[n, c, d], &[(d + 1) * (c + 3), 1, c + 3]).unwrap();
    let dense = Tensor::from_slice(ctx, &x, &[n, c, d]).unwrap();
    let ys = Tensor::from_slice(ctx, &y, &[n, d]).unwrap();
    for input in [&dense, &strided] {
        let inputs = [("input", input), ("target", &ys)];
        let out = losses::cross_entropy().forward_backward(ctx, &inputs).unwrap();
        assert!((f64::from(out.loss().unwrap()) - want.loss().unwrap()).abs() < 2e-6);
        assert_grads("strided", &out.grad("input").unwrap().to_vec().unwrap(), want.grad("input").unwrap(), n * c * d);
    }
}

#[test]
fn gradients_of_broadcast_and_scalar_inputs_are_summed() {
    let Some(ctx) = context() else { return };
    let (n, c) = (37, 11);
    let (x, t) = (random(n * c, 7), random(n * c, 8));
    let w: Vec<f32> = random(c, 9).iter().map(|v| v.abs()).collect();
    let host = [
        ("input", HostTensor::f32(&x, &[n, c])),
        ("target", HostTensor::f32(&t, &[n, c])),
        ("weight", HostTensor::f32(&w, &[c])),
    ];
    let want = cpu::forward_backward(&losses::mse(), &host, &["input", "weight"]).unwrap();
    let tensor = |v: &[f32], shape: &[usize]| Tensor::from_slice(ctx, v, shape).unwrap();
    let (xs, ts, ws) = (tensor(&x, &[n, c]), tensor(&t, &[n, c]), tensor(&w, &[c]));
    let inputs = [("input", &xs), ("target", &ts), ("weight", &ws)];
    let out = losses::mse().forward_backward_of(ctx, &inputs, &["input", "weight"]).unwrap();
    assert_grads("weight", &out.grad("weight").unwrap().to_vec().unwrap(), want.grad("weight").unwrap(), c);
    assert_grads("input", &out.grad("input").unwrap().to_vec().unwrap(), want.grad("input").unwrap(), n * c);
    // Class weights (one a column), and a task weight (one in all).
    let y: Vec<i32> = (0..n).map(|row| (row % c) as i32).collect();
    let scale = [1.5f32];
    let loss = losses::cross_entropy().scaled_by("task");
    let host = [
        ("input", HostTensor::f32(&x, &[n, c])),
        ("target", HostTensor::i32(&y, &[n])),
        ("weight", HostTensor::f32(&w, &[c])),
        ("task", HostTensor::f32(&scale, &[])),
    ];
    let want = cpu::forward_backward(&loss, &host, &["weight", "task"]).unwrap();
    let (ys, task) = (Tensor::from_slice(ctx, &y, &[n]).unwrap(), tensor(&scale, &[]));
    let inputs = [("input", &xs), ("target", &ys), ("weight", &ws), ("task", &task)];
    let out = loss.forward_backward_of(ctx, &inputs, &["weight", "task"]).unwrap();
    assert_grads("class weight", &out.grad("weight").unwrap().to_vec().unwrap(), want.grad("weight").unwrap(), c);
    assert_grads("task", &out.grad("task").unwrap().to_vec().unwrap(), want.grad("task").unwrap(), 1);
}

#[test]
fn a_scalar_gradient_of_many_elements_is_summed_in_two_steps() {
    let Some(ctx) = context() else { return };
    let loss = losses::mse().broadcast(true);
    // Four and one values, of 3 million elements: more trips than some drivers let one loop make.
    for cols in [4usize, 1] {
        let rows = 3_000_000 / cols;
        let (x, t) = (random(rows * cols, 17), random(cols, 18));
        let host = [("input", HostTensor::f32(&x, &[rows, cols])), ("target", HostTensor::f32(&t, &[1, cols]))];
        let want = cpu::forward_backward(&loss, &host, &["target"]).unwrap();
        let xs = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
        let ts = Tensor::from_slice(ctx, &t, &[1, cols]).unwrap();
        let out = loss.forward_backward_of(ctx, &[("input", &xs), ("target", &ts)], &["target"]).unwrap();
        assert_grads("target", &out.grad("target").unwrap().to_vec().unwrap(), want.grad("target").unwrap(), cols);
    }
}

#[test]
fn group_sums_and_hessian_diagonals_agree_with_the_cpu() {
    let Some(ctx) = context() else { return };
    // Each row against the mean of its sample's rows: rows of one index of the first axis are a group.
    let centred = Loss::define("centred").input("input", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
        let mean = b.input("input").mean();
        let group = mean.sum_over(Scope::Group) / b.graph().count(wgloss::Extent::GroupRows);
        let off = mean - group;
        off * off
    });
    let shape = [5, 6, 9];
    let x = random(5 * 6 * 9, 3);
    let host = [("input", HostTensor::f32(&x, &shape))];
    let want = cpu::forward_backward(&centred, &host, &["input"]).unwrap();
    let xs = Tensor::from_slice(ctx, &x, &shape).unwrap();
    let out = centred.forward_backward(ctx, &[("input", &xs)]).unwrap();
    assert!((f64::from(out.loss().unwrap()) - want.loss().unwrap()).abs() < 2e-6);
    assert_grads("group", &out.grad("input").unwrap().to_vec().unwrap(), want.grad("input").unwrap(), x.len());

    let y: Vec<i32> = (0..30).map(|row| row % 9).collect();
    let (shape, rows) = ([30, 9], [30]);
    let host = [("input", HostTensor::f32(&x, &shape)), ("target", HostTensor::i32(&y, &rows))];
    let want = cpu::hessian_diagonal(&losses::cross_entropy(), &host, "input").unwrap();
    let xs = Tensor::from_slice(ctx, &x, &shape).unwrap();
    let ys = Tensor::from_slice(ctx, &y, &rows).unwrap();
    let spec = PlanSpec::new().hessian_diagonal("input");
    let out = losses::cross_entropy().run(ctx, &[("input", &xs), ("target", &ys)], &spec).unwrap();
    assert_grads("Hessian", &out.hessian_diagonal("input").unwrap().to_vec().unwrap(), &want, 9);
}

#[test]
fn denominator_and_wanted_outputs() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[4, 3]).input("target", DType::I32, &[4]).denominator();
    let plan = ctx.plan(&losses::cross_entropy(), &spec).unwrap();
    let x = Tensor::zeros(ctx, DType::F32, &[4, 3]).unwrap();
    let y = Tensor::from_slice(ctx, &[0i32, -100, 2, 1], &[4]).unwrap();
    let bound = plan.bind(&Bindings::new().input("input", &x).input("target", &y)).unwrap();
    bound.submit().unwrap();
    assert_eq!(bound.denominator().unwrap().to_vec::<f32>().unwrap(), [3.0]);
    assert!((bound.read_loss().unwrap() - 3f32.ln()).abs() < 1e-6);
    assert!(ctx.plan(&losses::cross_entropy().reduction(Reduction::Sum), &spec).is_err(), "a sum divides by nothing");
    assert_eq!(Wanted::default().grads.len(), 0);
}

#[test]
fn the_kernel_of_column_sums_cannot_be_pinned() {
    let Some(ctx) = context() else { return };
    let kernel = Some(Kernel::ColumnSums { across: 1, each: 1, splits: 1 });
    for loss in [losses::mse(), losses::kl_div().into()] {
        let spec = PlanSpec::new().input("input", DType::F32, &[4, 4]).input("target", DType::F32, &[4, 4]);
        let plan = ctx.plan(&loss, &spec.pin(Pinned { kernel, ..Pinned::default() }));
        assert!(matches!(plan.map(|_| ()), Err(Error::Unsupported { message }) if message.contains("column sums")));
    }
}
