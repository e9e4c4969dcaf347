//! Thresholds of a row: values and derivatives on GPU and CPU against sorted rows in f64.

use crate::common::compare::{assert_close, random};
use crate::common::{context, is_in_share};
use half::{bf16, f16};
use wgloss::cpu::HostFloat;
use wgloss::{
    Bindings, Context, DType, Direction, Error, Expr, GradMode, HostTensor, Kernel, Loss, Pinned, PlanSpec, Reduction,
    RowAxis, Scope, Shard, Tensor, Wanted, cpu,
};

type Build = for<'g> fn(Expr<'g>) -> Expr<'g>;

/// A threshold, that of a sorted row (largest first), and its derivative at each element.
struct Law {
    name: &'static str,
    build: Build,
    sorted: fn(&[f64]) -> f64,
    slope: fn(&[f64], f64) -> Vec<f64>,
}

const LAWS: [Law; 4] = [
    Law { name: "sparsemax", build: |x| x.sparsemax_threshold(), sorted: sparsemax, slope: of_sparsemax },
    Law { name: "entmax15", build: |x| x.entmax15_threshold(), sorted: entmax15, slope: of_entmax15 },
    Law { name: "largest", build: |x| x.top_k_threshold(1), sorted: |x| x[0], slope: of_rank },
    Law { name: "third", build: |x| x.top_k_threshold(3), sorted: |x| x[2], slope: of_rank },
];

/// Martins and Astudillo (2016), algorithm 1.
fn sparsemax(sorted: &[f64]) -> f64 {
    let (mut sum, mut threshold) = (0.0, f64::NAN);
    for (k, x) in sorted.iter().enumerate() {
        sum += x - sorted[0];
        if 1.0 + (k as f64 + 1.0) * (x - sorted[0]) > sum {
            threshold = (sum - 1.0) / (k as f64 + 1.0);
        }
    }
    threshold + sorted[0]
}

fn of_sparsemax(x: &[f64], threshold: f64) -> Vec<f64> {
    let count = x.iter().filter(|x| **x > threshold).count() as f64;
    x.iter().map(|x| if *x > threshold { 1.0 / count } else { 0.0 }).collect()
}

/// Peters, Niculae and Martins (2019), algorithm 2.
fn entmax15(sorted: &[f64]) -> f64 {
    let half: Vec<f64> = sorted.iter().map(|x| (x - sorted[0]) / 2.0).collect();
    let (mut sum, mut squares, mut threshold) = (0.0, 0.0, f64::NAN);
    for (k, x) in half.iter().enumerate().filter(|(_, x)| x.is_finite()) {
        let n = k as f64 + 1.0;
        (sum, squares) = (sum + x, squares + x * x);
        let spread = squares - sum * sum / n;
        let candidate = sum / n - ((1.0 - spread) / n).max(0.0).sqrt();
        if candidate <= *x {
            threshold = candidate;
        }
    }
    threshold + sorted[0] / 2.0
}

fn of_entmax15(x: &[f64], threshold: f64) -> Vec<f64> {
    let rest: Vec<f64> = x.iter().map(|x| (x / 2.0 - threshold).max(0.0)).collect();
    let sum: f64 = rest.iter().sum();
    rest.iter().map(|rest| rest / (2.0 * sum)).collect()
}

fn of_rank(x: &[f64], threshold: f64) -> Vec<f64> {
    let ties = x.iter().filter(|x| **x == threshold).count() as f64;
    x.iter().map(|x| if *x == threshold { 1.0 / ties } else { 0.0 }).collect()
}

fn loss(build: Build) -> Loss {
    let loss = Loss::define("threshold").input("x", Scope::Element).row_axis(RowAxis::Last);
    loss.expr(move |b| build(b.input("x"))).reduction(Reduction::None)
}

/// Thresholds and derivatives of rows.
fn expected(law: &Law, x: &[f32], cols: usize) -> [Vec<f64>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    for row in x.chunks(cols) {
        let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        let mut sorted = row.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let threshold = (law.sorted)(&sorted);
        all[0].push(threshold);
        all[1].extend((law.slope)(&row, threshold));
    }
    all
}

fn on_cpu<T: HostFloat + Into<f64>>(loss: &Loss, x: &[f32], shape: &[usize]) -> [Vec<f64>; 2] {
    let wanted = Wanted { loss: true, grads: vec!["x".to_owned()], ..Wanted::default() };
    let out = cpu::run::<T>(loss, &[("x", HostTensor::f32(x, shape))], &wanted).unwrap();
    [out.loss_values().unwrap(), out.grad("x").unwrap()].map(|all| all.iter().map(|x| (*x).into()).collect())
}

fn on_gpu(ctx: &Context, loss: &Loss, x: &Tensor, pinned: Pinned) -> [Vec<f64>; 2] {
    let spec = PlanSpec::new().like(&[("x", x)]).grad("x").grad_dtype("x", DType::F32).pin(pinned);
    let plan = ctx.plan(loss, &spec).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&[("x", x)])).unwrap();
    bound.submit().unwrap();
    [bound.loss().unwrap(), bound.grad("x").unwrap()].map(|all| crate::common::read(&bound, all))
}

fn check(what: &str, got: &[Vec<f64>; 2], want: &[Vec<f64>; 2]) {
    for ((got, want), output) in got.iter().zip(want).zip(["threshold", "gradient"]) {
        for (k, (got, want)) in got.iter().zip(want).enumerate() {
            let allowed = 2e-6 * want.abs().max(1.0);
            assert!((got - want).abs() <= allowed, "{what}: {output} {k}: {got}, want {want}");
        }
        assert_eq!(got.len(), want.len(), "{what}: {output}");
    }
}

/// Random rows, and rows with ties.
fn rows_of(cols: usize) -> Vec<(usize, Vec<f32>)> {
    let rows = if cols > 1000 { 2 } else { 5 };
    let steps = random(rows * cols, 3).iter().map(|x| (x * 4.0).round() / 4.0).collect();
    vec![(rows, random(rows * cols, 1)), (rows, steps)]
}

/// One column; less than a vector; around a workgroup; longer than registers hold.
const COLS: [usize; 6] = [1, 3, 255, 256, 257, 5000];

#[test]
fn thresholds_and_their_derivatives_are_those_of_sorted_rows() {
    let ctx = context();
    for cols in COLS {
        for (case, (rows, x)) in rows_of(cols).into_iter().enumerate() {
            for law in LAWS.iter().filter(|law| law.name != "third" || cols >= 3) {
                // Of multiples of 1/4 some may lie at a threshold of a distribution, where it has a kink.
                if case == 1 && ["sparsemax", "entmax15"].contains(&law.name) {
                    continue;
                }
                let (want, what) = (expected(law, &x, cols), format!("{} of {rows} × {cols}, case {case}", law.name));
                let (loss, shape) = (loss(law.build), [rows, cols]);
                check(&format!("{what} on the CPU"), &on_cpu::<f64>(&loss, &x, &shape), &want);
                check(&format!("{what} on the CPU, f32"), &on_cpu::<f32>(&loss, &x, &shape), &want);
                let Some(ctx) = ctx.filter(|_| is_in_share(&format!("threshold {} {cols}", law.name))) else {
                    continue;
                };
                let x = Tensor::from_slice(ctx, &x, &shape).unwrap();
                check(&format!("{what} on the GPU"), &on_gpu(ctx, &loss, &x, Pinned::default()), &want);
            }
        }
    }
}

#[test]
fn every_kernel_of_whole_rows_finds_thresholds() {
    let Some(ctx) = context() else { return };
    let (rows, kernel, lanes) = (37, Some(Kernel::Row), Some(8));
    let resident = Some(Kernel::RowResident { trips: 0 });
    let pins = [
        Pinned { kernel, lanes: Some(1), workgroup: Some(64), ..Pinned::default() },
        Pinned { kernel, lanes, workgroup: Some(32), ..Pinned::default() },
        Pinned { kernel, lanes, workgroup: Some(32), subgroups: Some(false), ..Pinned::default() },
        Pinned { kernel: resident, lanes, workgroup: Some(32), ..Pinned::default() },
        Pinned { kernel: resident, lanes, workgroup: Some(32), subgroups: Some(false), ..Pinned::default() },
        Pinned { kernel: resident, lanes: Some(64), workgroup: Some(64), ..Pinned::default() },
    ];
    // Windows of one column, and of four.
    for (cols, pins) in [(67, &pins[..]), (132, &pins[1..2])] {
        let x = random(rows * cols, 5);
        let tensor = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
        for (law, pinned) in LAWS[..3].iter().flat_map(|law| pins.iter().map(move |pinned| (law, *pinned))) {
            let what = format!("{} of {cols} columns, {pinned:?}", law.name);
            if is_in_share(&what) {
                check(&what, &on_gpu(ctx, &loss(law.build), &tensor, pinned), &expected(law, &x, cols));
            }
        }
    }
}

#[test]
fn thresholds_take_halves() {
    let Some(ctx) = context() else { return };
    for cols in [64, 37, 1000] {
        let x = random(4 * cols, 6);
        let rounded = [
            x.iter().map(|x| f16::from_f32(*x).to_f32()).collect::<Vec<f32>>(),
            x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect(),
        ];
        let tensors = [
            Tensor::from_slice(ctx, &x.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>(), &[4, cols]).unwrap(),
            Tensor::from_slice(ctx, &x.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>(), &[4, cols]).unwrap(),
        ];
        for (tensor, x) in tensors.iter().zip(&rounded) {
            for law in LAWS.iter().filter(|law| is_in_share(&format!("halves {} {cols}", law.name))) {
                let what = format!("{} of {cols} {}", law.name, tensor.dtype());
                check(&what, &on_gpu(ctx, &loss(law.build), tensor, Pinned::default()), &expected(law, x, cols));
            }
        }
    }
}

#[test]
fn thresholds_take_classes_at_axis_one() {
    let Some(ctx) = context() else { return };
    // Pairs of rows share the words of 16-bit gradients.
    for (n, cols, d, dtype) in [(3, 21, 10, DType::F32), (2, 9, 1024, DType::F16)] {
        let x: Vec<f32> = random(n * cols * d, 4).iter().map(|x| f16::from_f32(*x).to_f32()).collect();
        let at = |row: usize, col: usize| (row / d * cols + col) * d + row % d;
        let rows: Vec<f32> = (0..n * d * cols).map(|k| x[at(k / cols, k % cols)]).collect();
        let tensor = match dtype {
            DType::F16 => {
                let x: Vec<f16> = x.iter().map(|x| f16::from_f32(*x)).collect();
                Tensor::from_slice(ctx, &x, &[n, cols, d]).unwrap()
            }
            _ => Tensor::from_slice(ctx, &x, &[n, cols, d]).unwrap(),
        };
        for law in &LAWS {
            let build = law.build;
            let loss = Loss::define("threshold").input("x", Scope::Element).row_axis(RowAxis::Class);
            let loss = loss.expr(move |b| build(b.input("x"))).reduction(Reduction::None);
            let out = loss.run(ctx, &[("x", &tensor)], &PlanSpec::new().grad("x")).unwrap();
            let want = expected(law, &rows, cols);
            let got: Vec<f64> = out.loss_values().unwrap().into_iter().map(f64::from).collect();
            assert_close(law.name, &got, &want[0], 2e-6);
            let grad: Vec<f64> = match dtype {
                DType::F16 => wgloss::widen_f16(&out.grad("x").unwrap().to_vec().unwrap()),
                _ => out.grad("x").unwrap().to_vec::<f32>().unwrap(),
            }
            .into_iter()
            .map(f64::from)
            .collect();
            let grad: Vec<f64> = (0..n * d * cols).map(|k| grad[at(k / cols, k % cols)]).collect();
            assert_close(law.name, &grad, &want[1], if dtype == DType::F16 { 1e-3 } else { 2e-6 });
        }
    }
}

/// What lies above the thresholds.
fn distributions() -> [(&'static str, Build); 2] {
    [("sparsemax", |x| x.sparsemax()), ("entmax15", |x| x.entmax15())]
}

/// Σ w·p per row, so that the gradient goes through the threshold.
fn weighed(build: Build) -> Loss {
    let loss = Loss::define("weighed").input("x", Scope::Element).row_axis(RowAxis::Last);
    loss.expr(move |b| {
        let col = b.graph().col_index().to_float();
        (build(b.input("x")) * (0.25 * col * col - col)).sum()
    })
    .reduction(Reduction::None)
}

#[test]
fn distributions_keep_their_digits_at_a_common_offset() {
    let ctx = context();
    let cols = 130;
    // Multiples of 1/16 are exact beside 1e6.
    let near: Vec<f32> = random(2 * cols, 7).iter().map(|x| (x * 16.0).round() / 16.0).collect();
    let far: Vec<f32> = near.iter().map(|x| x + 1e6).collect();
    for (name, build) in distributions() {
        let (loss, shape) = (weighed(build), [2, cols]);
        let want = on_cpu::<f64>(&loss, &near, &shape);
        let sums = on_cpu::<f64>(&self::loss(build), &near, &shape);
        for row in sums[0].chunks(cols) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{name} {row:?}");
        }
        for (what, got) in [on_cpu::<f64>(&loss, &far, &shape), on_cpu::<f32>(&loss, &far, &shape)].iter().enumerate() {
            for (got, want) in got.iter().zip(&want) {
                assert_close(&format!("{name}, {what}"), got, want, 2e-6);
            }
        }
        let Some(ctx) = ctx else { continue };
        for pinned in [None, Some(Kernel::Row)].map(|kernel| Pinned { kernel, ..Pinned::default() }) {
            let got = on_gpu(ctx, &loss, &Tensor::from_slice(ctx, &far, &shape).unwrap(), pinned);
            for (got, want) in got.iter().zip(&want) {
                assert_close(&format!("{name} on the GPU, {pinned:?}"), got, want, 2e-6);
            }
        }
    }
}

#[test]
fn derivatives_are_central_differences() {
    let cols = 11;
    let x: Vec<f64> = random(cols, 9).iter().map(|x| f64::from(*x)).collect();
    let rank: [(&str, Build); 2] =
        [("computed", |x| (x * 0.7).exp().top_k_threshold(3)), ("squared", |x| (x * x).top_k_threshold(5).powi(2))];
    let losses = LAWS.iter().map(|law| (law.name, loss(law.build)));
    let losses = losses.chain(distributions().map(|(name, build)| (name, weighed(build))));
    for (name, loss) in losses.chain(rank.map(|(name, build)| (name, loss(build)))) {
        let of = |x: &[f64]| {
            let wanted = Wanted { loss: true, grads: vec!["x".to_owned()], ..Wanted::default() };
            let out = cpu::run::<f64>(&loss, &[("x", HostTensor::f64(x, &[1, cols]))], &wanted).unwrap();
            (out.loss_values().unwrap()[0], out.grad("x").unwrap().to_vec())
        };
        let (_, grad) = of(&x);
        for j in 0..cols {
            let moved = |by: f64| {
                let mut x = x.clone();
                x[j] += by;
                of(&x).0
            };
            let want = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((grad[j] - want).abs() < 1e-8, "{name} at {j}: {}, want {want}", grad[j]);
        }
    }
}

#[test]
fn rows_without_a_distribution_are_nan_and_missing_elements_have_no_probability() {
    let (none, inf, nan) = (f32::NEG_INFINITY, f32::INFINITY, f32::NAN);
    let x = [0.5, none, 0.25, none, none, none, 1.0, inf, 0.0, 0.0, nan, 1.0];
    let is_right = |name: &str, p: &[f64], grad: &[f64]| {
        assert!(p[0] > p[2] && p[1] == 0.0 && (p[0] + p[2] - 1.0).abs() < 1e-6, "{name}: {p:?}");
        assert!(grad[..3].iter().all(|x| x.is_finite()) && grad[1] == 0.0, "{name}: {grad:?}");
        assert!(p[3..].iter().chain(&grad[3..]).all(|x| x.is_nan()), "{name}: {p:?} {grad:?}");
    };
    for (name, build) in distributions() {
        let (p, shape) = (loss(build), [4, 3]);
        let [values, grad] = on_cpu::<f64>(&p, &x, &shape);
        is_right(name, &values, &grad);
        let [values, grad] = on_cpu::<f32>(&p, &x, &shape);
        is_right(name, &values, &grad);
        let Some(ctx) = context() else { continue };
        let tensor = Tensor::from_slice(ctx, &x, &shape).unwrap();
        for kernel in [None, Some(Kernel::Row)] {
            let [values, grad] = on_gpu(ctx, &p, &tensor, Pinned { kernel, ..Pinned::default() });
            is_right(name, &values, &grad);
        }
    }
    // Of a rank only NaN is one.
    let want = [none, none, 0.0, nan];
    let rank = loss(|x| x.top_k_threshold(3));
    let mut all = vec![on_cpu::<f64>(&rank, &x, &[4, 3]), on_cpu::<f32>(&rank, &x, &[4, 3])];
    all.extend(
        context().map(|ctx| on_gpu(ctx, &rank, &Tensor::from_slice(ctx, &x, &[4, 3]).unwrap(), Pinned::default())),
    );
    for [values, _] in all {
        assert_eq!(format!("{values:?}"), format!("{:?}", want.map(f64::from)));
    }
}

#[test]
fn an_infinite_element_has_the_whole_gradient_of_its_rank() {
    let loss = loss(|x| (x * 2.0).top_k_threshold(1));
    let (x, want) = ([0.5, f32::INFINITY, 0.25], [0.0, 2.0, 0.0]);
    assert_eq!(on_cpu::<f64>(&loss, &x, &[1, 3])[1], want);
    let Some(ctx) = context() else { return };
    assert_eq!(on_gpu(ctx, &loss, &Tensor::from_slice(ctx, &x, &[1, 3]).unwrap(), Pinned::default())[1], want);
}

#[test]
fn the_k_largest_add_up_whatever_is_equal() {
    let sum: Build = |x| {
        let y = x * x - 1.0;
        let threshold = y.top_k_threshold(4);
        let is_above = y.gt(threshold);
        is_above.select(y, 0.0).sum() + (4.0 - is_above.to_float().sum()) * threshold
    };
    let (rows, cols) = (5, 40);
    let x: Vec<f32> = random(rows * cols, 8).iter().map(|x| (x * 2.0).round() / 2.0).collect();
    let mut want = [Vec::new(), Vec::new()];
    for row in x.chunks(cols) {
        let y: Vec<f64> = row.iter().map(|x| f64::from(*x).powi(2) - 1.0).collect();
        let mut sorted = y.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        want[0].push(sorted[..4].iter().sum::<f64>());
        let above = y.iter().filter(|y| **y > sorted[3]).count() as f64;
        let ties = y.iter().filter(|y| **y == sorted[3]).count() as f64;
        let share = |y: f64| match y {
            y if y > sorted[3] => 1.0,
            y if y == sorted[3] => (4.0 - above) / ties,
            _ => 0.0,
        };
        want[1].extend(row.iter().zip(&y).map(|(x, y)| 2.0 * f64::from(*x) * share(*y)));
    }
    check("on the CPU", &on_cpu::<f64>(&loss(sum), &x, &[rows, cols]), &want);
    let Some(ctx) = context() else { return };
    let x = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
    check("on the GPU", &on_gpu(ctx, &loss(sum), &x, Pinned::default()), &want);
}

#[test]
fn gradients_of_thresholds_go_wherever_gradients_go() {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (3, 64);
    let x = random(rows * cols, 5);
    let loss = weighed(|x| x.sparsemax()).reduction(Reduction::Sum);
    let want = {
        let wanted = Wanted { loss: true, grads: vec!["x".to_owned()], ..Wanted::default() };
        let out = cpu::run::<f64>(&loss, &[("x", HostTensor::f32(&x, &[rows, cols]))], &wanted).unwrap();
        out.grad("x").unwrap().to_vec()
    };
    for kernel in [None, Some(Kernel::Row)] {
        for mode in [GradMode::InPlace, GradMode::Write] {
            let tensor = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
            let pinned = Pinned { kernel, ..Pinned::default() };
            let spec = PlanSpec::new().like(&[("x", &tensor)]).grad_mode("x", mode).pin(pinned);
            let spec = if mode == GradMode::Write { spec.separate_backward() } else { spec };
            let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&[("x", &tensor)])).unwrap();
            if mode == GradMode::Write {
                let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                bound.encode_forward(&mut encoder).unwrap();
                bound.encode_backward(&mut encoder).unwrap();
                ctx.queue().submit([encoder.finish()]);
            } else {
                bound.submit().unwrap();
            }
            let got: Vec<f64> = crate::common::read(&bound, bound.grad("x").unwrap());
            assert_close(&format!("{mode:?}, {kernel:?}"), &got, &want, 2e-6);
        }
    }
}

#[test]
fn thresholds_stand_beside_scans() {
    let both: Build = |x| {
        x.sparsemax().scan_sum(Direction::Forward).powi(2).sum() + x.scan_sum(Direction::Reverse).entmax15_threshold()
    };
    let (rows, cols) = (3, 70);
    let x = random(rows * cols, 12);
    let want = on_cpu::<f64>(&loss(both), &x, &[rows, cols]);
    let Some(ctx) = context() else { return };
    let x = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
    for kernel in [None, Some(Kernel::Row)] {
        let got = on_gpu(ctx, &loss(both), &x, Pinned { kernel, ..Pinned::default() });
        for (got, want) in got.iter().zip(&want) {
            assert_close(&format!("{kernel:?}"), got, want, 4e-6);
        }
    }
}

#[test]
fn what_thresholds_cannot_do_is_refused() {
    let x = [1.0, 2.0];
    let of = |loss: &Loss, wanted: Wanted| {
        cpu::run::<f64>(loss, &[("x", HostTensor::f32(&x, &[1, 2]))], &wanted).map(|_| ()).unwrap_err()
    };
    let value = Wanted { loss: true, ..Wanted::default() };
    let none = of(&loss(|x| x.top_k_threshold(0)), value.clone());
    assert!(matches!(&none, Error::Expr { message, .. } if message.contains("from 1 on")), "{none}");
    let many = of(&loss(|x| x.top_k_threshold(3)), value.clone());
    assert!(many.to_string().contains('3'), "{many}");
    let fixed = Loss::define("fixed").input("x", Scope::Element).row_axis(RowAxis::Last).cols(2);
    let fixed = of(&fixed.expr(|b| b.input("x").top_k_threshold(3)), value.clone());
    assert!(matches!(&fixed, Error::Expr { message, .. } if message.contains("2 columns")), "{fixed}");
    let curved = Wanted { hessian_diagonals: vec!["x".to_owned()], ..value };
    let curved = of(&loss(|x| x.sparsemax_threshold().powi(2)), curved);
    assert!(curved.to_string().contains("threshold"), "{curved}");
    let Some(ctx) = context() else { return };
    let spec = || PlanSpec::new().input("x", DType::F32, &[2, 64]);
    let refused = |spec: PlanSpec| match ctx.plan(&loss(|x| x.sparsemax_threshold()).reduction(Reduction::Sum), &spec) {
        Err(Error::Unsupported { message }) => message,
        other => panic!("{:?}", other.err()),
    };
    let shard = refused(spec().shard(Shard { first: 0, classes: 128, shards: 2 }));
    assert!(shard.contains("give whole rows"), "{shard}");
    let split = Pinned { kernel: Some(Kernel::RowSplit { splits: 2 }), ..Pinned::default() };
    let split = refused(spec().pin(split));
    assert!(split.contains("thresholds"), "{split}");
}
