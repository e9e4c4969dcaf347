//! Scans along a row: values and adjoints on GPU and CPU against plain loops in f64.

use crate::common::compare::{assert_close, random};
use crate::common::{context, is_in_share};
use wgloss::cpu::HostFloat;
use wgloss::{
    Bindings, Context, DType, Direction, Error, Expr, GradMode, HostTensor, Kernel, Loss, Pinned, PlanSpec, Reduction,
    RowAxis, Scope, Tensor, Wanted, cpu,
};

/// From x, d and w of a row, in the order of the scan: y, and the gradients of Σ wⱼ yⱼ for x and d.
type OfRow = fn(&[f64], &[f64], &[f64]) -> [Vec<f64>; 3];

/// A scan, its loops in f64, and its adjoint as a sum over pairs of columns.
struct Law {
    name: &'static str,
    build: for<'g> fn(Expr<'g>, Expr<'g>, Direction) -> Expr<'g>,
    gradients: OfRow,
}

const LAWS: [Law; 4] = [
    Law { name: "sum", build: |x, _, along| x.scan_sum(along), gradients: of_sum },
    Law { name: "linear", build: |x, d, along| x.scan_linear(d, along), gradients: of_linear },
    Law { name: "logsumexp", build: |x, _, along| x.scan_logsumexp(along), gradients: of_logsumexp },
    Law { name: "shift", build: |x, _, along| x.shift(along), gradients: of_shift },
];

fn of_sum(x: &[f64], _: &[f64], w: &[f64]) -> [Vec<f64>; 3] {
    let [y, by_x, _] = of_linear(x, &vec![1.0; x.len()], w);
    [y, by_x, vec![0.0; x.len()]]
}

/// y, and the gradients of Σ wⱼ yⱼ for x and d.
fn of_linear(x: &[f64], d: &[f64], w: &[f64]) -> [Vec<f64>; 3] {
    let mut y = x.to_vec();
    for j in 1..x.len() {
        y[j] += d[j] * y[j - 1];
    }
    let mut by_x = w.to_vec();
    for j in (1..x.len()).rev() {
        by_x[j - 1] += d[j] * by_x[j];
    }
    let by_d = (0..x.len()).map(|j| if j == 0 { 0.0 } else { by_x[j] * y[j - 1] }).collect();
    [y, by_x, by_d]
}

fn of_logsumexp(x: &[f64], _: &[f64], w: &[f64]) -> [Vec<f64>; 3] {
    let y: Vec<f64> = (0..x.len())
        .map(|j| {
            let most = x[..=j].iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
            let shift = if most.is_finite() { most } else { 0.0 };
            x[..=j].iter().map(|x| (x - shift).exp()).sum::<f64>().ln() + shift
        })
        .collect();
    let term = |k: usize, j: usize| if y[j] == f64::NEG_INFINITY { 0.0 } else { w[j] * (x[k] - y[j]).exp() };
    let by_x = (0..x.len()).map(|k| (k..x.len()).map(|j| term(k, j)).sum()).collect();
    [y, by_x, vec![0.0; x.len()]]
}

fn of_shift(x: &[f64], _: &[f64], w: &[f64]) -> [Vec<f64>; 3] {
    let n = x.len();
    let y = (0..n).map(|j| if j == 0 { 0.0 } else { x[j - 1] }).collect();
    [y, (0..n).map(|k| if k + 1 == n { 0.0 } else { w[k + 1] }).collect(), vec![0.0; n]]
}

/// Σ w·y + d per row: the gradient of `w` is the scan itself, and every law reads `d`.
fn loss(law: &Law, along: Direction) -> Loss {
    let (build, scope) = (law.build, Scope::Element);
    let definition = Loss::define(law.name).input("x", scope).input("d", scope).input("w", scope);
    let loss = definition.row_axis(RowAxis::Last).expr(move |b| {
        let (x, d, w) = (b.input("x"), b.input("d"), b.input("w"));
        (w * build(x, d, along) + d).sum()
    });
    loss.reduction(Reduction::Sum)
}

/// Of rows of x, d and w: the values of the scan, and the gradients of x and d.
fn expected(law: &Law, along: Direction, [x, d, w]: [&[f32]; 3], cols: usize) -> [Vec<f64>; 3] {
    let ordered = |values: &[f32]| -> Vec<f64> {
        let values = values.iter().map(|x| f64::from(*x));
        if along == Direction::Reverse { values.rev().collect() } else { values.collect() }
    };
    let mut all = [Vec::new(), Vec::new(), Vec::new()];
    for ((x, d), w) in x.chunks(cols).zip(d.chunks(cols)).zip(w.chunks(cols)) {
        for (all, mut of_row) in all.iter_mut().zip((law.gradients)(&ordered(x), &ordered(d), &ordered(w))) {
            if along == Direction::Reverse {
                of_row.reverse();
            }
            all.extend(of_row);
        }
    }
    all[2].iter_mut().for_each(|by_d| *by_d += 1.0);
    all
}

fn operands(rows: usize, cols: usize) -> [Vec<f32>; 3] {
    let decay = random(rows * cols, 2).iter().map(|d| 0.2 * d).collect();
    [random(rows * cols, 1), decay, random(rows * cols, 3)]
}

fn on_cpu<T: HostFloat + Into<f64>>(
    law: &Law,
    along: Direction,
    values: [&[f32]; 3],
    shape: &[usize],
) -> [Vec<f64>; 3] {
    let inputs = [("x", values[0]), ("d", values[1]), ("w", values[2])];
    let inputs = inputs.map(|(name, values)| (name, HostTensor::f32(values, shape)));
    let grads = ["w", "x", "d"].map(str::to_owned).to_vec();
    let out = cpu::run::<T>(&loss(law, along), &inputs, &Wanted { loss: true, grads, ..Wanted::default() }).unwrap();
    ["w", "x", "d"].map(|name| out.grad(name).unwrap().iter().map(|x| (*x).into()).collect())
}

fn on_gpu(
    ctx: &Context,
    law: &Law,
    along: Direction,
    values: [&[f32]; 3],
    (shape, pinned): (&[usize], Pinned),
) -> [Vec<f64>; 3] {
    let tensors = values.map(|values| Tensor::from_slice(ctx, values, shape).unwrap());
    let inputs = [("x", &tensors[0]), ("d", &tensors[1]), ("w", &tensors[2])];
    let spec = PlanSpec::new().like(&inputs).grad("x").grad("d").grad("w").pin(pinned);
    let plan = ctx.plan(&loss(law, along), &spec).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    ["w", "x", "d"].map(|name| crate::common::read(&bound, bound.grad(name).unwrap()))
}

fn check(what: &str, got: [Vec<f64>; 3], want: &[Vec<f64>; 3], cols: usize) {
    for ((got, want), output) in got.iter().zip(want).zip(["scan", "gradient of x", "gradient of d"]) {
        for (row, (got, want)) in got.chunks(cols).zip(want.chunks(cols)).enumerate() {
            assert_close(&format!("{what}: {output}, row {row}"), got, want, 2e-6);
        }
    }
}

#[test]
fn scans_and_their_adjoints_are_the_textbooks() {
    let ctx = context();
    // One column; a vector and beside it; one lane's columns and beyond; several blocks of a streamed row.
    for (rows, cols) in [(3, 1), (2, 4), (5, 5), (9, 132), (2, 1000), (1, 3001)] {
        let values = operands(rows, cols);
        let values = [&values[0][..], &values[1][..], &values[2][..]];
        for (law, along) in LAWS.iter().flat_map(|law| [(law, Direction::Forward), (law, Direction::Reverse)]) {
            let what = format!("{} {along:?} of {rows} × {cols}", law.name);
            let want = expected(law, along, values, cols);
            check(&format!("{what} on the CPU"), on_cpu::<f64>(law, along, values, &[rows, cols]), &want, cols);
            check(&format!("{what} on the CPU, f32"), on_cpu::<f32>(law, along, values, &[rows, cols]), &want, cols);
            // A row held in registers, and a streamed one, of few columns too.
            let pinned = [Kernel::Row, Kernel::RowResident { trips: 0 }].map(Some);
            let kernels = if cols == 132 { &pinned[..] } else { &[None] };
            for kernel in kernels {
                let label = format!("{} {along:?} {kernel:?} {}", law.name, cols % 4);
                if let Some(ctx) = ctx.filter(|_| is_in_share(&label)) {
                    let pinned = Pinned { kernel: *kernel, ..Pinned::default() };
                    let got = on_gpu(ctx, law, along, values, (&[rows, cols], pinned));
                    check(&format!("{what} on the GPU, {kernel:?}"), got, &want, cols);
                }
            }
        }
    }
}

#[test]
fn the_adjoint_of_a_scan_is_the_scan_the_other_way() {
    let (rows, cols) = (3, 70);
    let [x, d, w] = operands(rows, cols);
    let ones = vec![1.0; rows * cols];
    for (law, along) in LAWS.iter().flat_map(|law| [(law, Direction::Forward), (law, Direction::Reverse)]) {
        if law.name == "logsumexp" {
            continue; // not linear
        }
        // ⟨w, S x⟩ = ⟨Sᵀ w, x⟩, and of one decay for all columns Sᵀ is S of the other direction.
        let d = if law.name == "linear" { vec![0.75; rows * cols] } else { d.clone() };
        let dot = |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
        let [y, by_x, _] = on_cpu::<f64>(law, along, [&x, &d, &w], &[rows, cols]);
        assert!((dot(&y, &w) - dot(&by_x, &x)).abs() < 1e-9, "{} {along:?}", law.name);
        let [back, ..] = on_cpu::<f64>(law, along.opposite(), [&w, &d, &ones], &[rows, cols]);
        assert_close(law.name, &by_x, &back, 1e-12);
    }
}

/// Σⱼ |S x|ⱼ², with the scan of exponentials under a mask, in a form that plans may have anything beside.
fn squared() -> Loss {
    let loss = Loss::define("squared").input("x", Scope::Element).row_axis(RowAxis::Class);
    loss.expr(|b| (0.25 * b.input("x").scan_sum(Direction::Forward).powi(2)).sum())
}

/// Losses per row and gradients of their sum, of `x` [rows, cols] in row-major order.
fn of_squared(x: &[f64], cols: usize) -> [Vec<f64>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    for x in x.chunks(cols) {
        let y: Vec<f64> = (0..cols).map(|j| x[..=j].iter().sum()).collect();
        all[0].push(y.iter().map(|y| 0.25 * y * y).sum());
        all[1].extend((0..cols).map(|k| 0.5 * y[k..].iter().sum::<f64>()));
    }
    all
}

#[test]
fn scans_take_classes_at_axis_one() {
    let Some(ctx) = context() else { return };
    let (n, cols, d) = (3, 21, 10);
    let x = random(n * cols * d, 4);
    // Row (i, k) is x[i, :, k].
    let at = |row: usize, col: usize| (row / d * cols + col) * d + row % d;
    let rows: Vec<f64> =
        (0..n * d).flat_map(|row| (0..cols).map(move |col| (row, col))).map(|(r, c)| f64::from(x[at(r, c)])).collect();
    let [losses, by_row] = of_squared(&rows, cols);
    let tensor = Tensor::from_slice(ctx, &x, &[n, cols, d]).unwrap();
    let loss = squared().reduction(Reduction::None);
    let out = loss.run(ctx, &[("x", &tensor)], &PlanSpec::new().grad("x")).unwrap();
    let host = cpu::forward_backward(&loss, &[("x", HostTensor::f32(&x, &[n, cols, d]))], &["x"]).unwrap();
    let grad = out.grad("x").unwrap().to_vec::<f32>().unwrap();
    let of_rows = |grad: &dyn Fn(usize) -> f64| -> Vec<f64> {
        (0..n * d).flat_map(|row| (0..cols).map(move |col| (row, col))).map(|(r, c)| grad(at(r, c))).collect()
    };
    let loss_values: Vec<f64> = out.loss_values().unwrap().into_iter().map(f64::from).collect();
    assert_close("loss", &loss_values, &losses, 2e-6);
    assert_close("gradient", &of_rows(&|k| f64::from(grad[k])), &by_row, 2e-6);
    assert_close("gradient on the CPU", &of_rows(&|k| host.grad("x").unwrap()[k]), &by_row, 1e-12);
}

#[test]
fn gradients_of_scans_go_wherever_gradients_go() {
    let Some(ctx) = context() else { return };
    // Resident rows, streamed ones, and ones of odd length.
    for (rows, cols, kernel) in [(4, 64, None), (3, 96, Some(Kernel::Row)), (5, 37, None)] {
        let x = random(rows * cols, 5);
        let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let [_, want] = of_squared(&wide, cols);
        let pinned = Pinned { kernel, ..Pinned::default() };
        for mode in [GradMode::InPlace, GradMode::Accumulate, GradMode::Write] {
            let tensor = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
            let spec = PlanSpec::new().like(&[("x", &tensor)]).grad_mode("x", mode).pin(pinned);
            let spec = if mode == GradMode::Write { spec.separate_backward() } else { spec };
            let plan = ctx.plan(&squared().reduction(Reduction::Sum), &spec).unwrap();
            let mut bindings = Bindings::new().inputs(&[("x", &tensor)]);
            let held = Tensor::from_slice(ctx, &vec![1.0f32; rows * cols], &[rows, cols]).unwrap();
            if mode == GradMode::Accumulate {
                bindings = bindings.grad("x", &held);
            }
            let bound = plan.bind(&bindings).unwrap();
            if mode == GradMode::Write {
                let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                bound.encode_forward(&mut encoder).unwrap();
                bound.encode_backward(&mut encoder).unwrap();
                ctx.queue().submit([encoder.finish()]);
            } else {
                bound.submit().unwrap();
            }
            let got: Vec<f64> = crate::common::read(&bound, bound.grad("x").unwrap());
            let more = if mode == GradMode::Accumulate { 1.0 } else { 0.0 };
            let want: Vec<f64> = want.iter().map(|x| x + more).collect();
            assert_close(&format!("{mode:?} of {rows} × {cols}"), &got, &want, 2e-6);
        }
    }
}

#[test]
fn scans_read_and_write_halves() {
    let Some(ctx) = context() else { return };
    for cols in [64, 37] {
        let rows = 3;
        // Multiples of 1/8: halves hold them, and what the gradient is of.
        let x: Vec<f32> = random(rows * cols, 6).iter().map(|x| (x * 8.0).round() / 8.0).collect();
        let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let [_, want] = of_squared(&wide, cols);
        let bits: Vec<half::f16> = x.iter().map(|x| half::f16::from_f32(*x)).collect();
        let tensor = Tensor::from_slice(ctx, &bits, &[rows, cols]).unwrap();
        let spec = PlanSpec::new().grad("x");
        let out = squared().reduction(Reduction::Sum).run(ctx, &[("x", &tensor)], &spec).unwrap();
        let got = out.grad("x").unwrap().to_vec::<half::f16>().unwrap();
        let got: Vec<f64> = got.iter().map(|x| f64::from(x.to_f32())).collect();
        assert_close(&format!("halves of {cols} columns"), &got, &want, 5e-4);
    }
}

#[test]
fn what_a_scan_reads_poisons_its_row_and_what_is_masked_does_not() {
    let masked = Loss::define("masked").input("x", Scope::Element).input("m", Scope::Element).row_axis(RowAxis::Last);
    let masked = masked.expr(|b| {
        let kept = b.input("x").masked(b.input("m").gt(0.0));
        kept.scan_sum(Direction::Reverse).powi(2).sum()
    });
    let nan = f32::NAN;
    // The first row reads a NaN; the second masks one; the third has none.
    let x = [1.0, nan, 2.0, 1.0, nan, 2.0, 1.0, 1.0, 2.0];
    let m = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0];
    let is_right = |losses: &[f64], grad: &[f64]| {
        assert!(losses[0].is_nan() && grad[..3].iter().all(|x| x.is_nan()), "{losses:?} {grad:?}");
        assert_eq!((&losses[1..], &grad[3..]), (&[17.0, 5.0][..], &[6.0, 0.0, 14.0, 4.0, 6.0, 0.0][..]));
    };
    let loss = masked.reduction(Reduction::None);
    let inputs = [("x", HostTensor::f32(&x, &[3, 3])), ("m", HostTensor::f32(&m, &[3, 3]))];
    let out = cpu::forward_backward(&loss, &inputs, &["x"]).unwrap();
    is_right(out.loss_values().unwrap(), out.grad("x").unwrap());
    let Some(ctx) = context() else { return };
    let tensors = [&x, &m].map(|values| Tensor::from_slice(ctx, values, &[3, 3]).unwrap());
    let out = loss.run(ctx, &[("x", &tensors[0]), ("m", &tensors[1])], &PlanSpec::new().grad("x")).unwrap();
    let wide = |values: Vec<f32>| -> Vec<f64> { values.into_iter().map(f64::from).collect() };
    is_right(&wide(out.loss_values().unwrap()), &wide(out.grad("x").unwrap().to_vec::<f32>().unwrap()));
}

#[test]
fn a_scan_is_gathered_at_labels_and_its_gradient_comes_back() {
    let at = Loss::define("at").input("x", Scope::Element).label("y").row_axis(RowAxis::Last);
    let at = at.expr(|b| b.input("x").scan_sum(Direction::Forward).at(b.input("y"))).reduction(Reduction::None);
    let (x, y) = ([1.0f32, 2.0, 4.0, 8.0, 16.0, 32.0], [1, 0]);
    let inputs = [("x", HostTensor::f32(&x, &[2, 3])), ("y", HostTensor::i32(&y, &[2]))];
    let want = ([3.0, 8.0], [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    let out = cpu::forward_backward(&at, &inputs, &["x"]).unwrap();
    assert_eq!((out.loss_values().unwrap(), out.grad("x").unwrap()), (&want.0[..], &want.1[..]));
    let Some(ctx) = context() else { return };
    let (x, y) = (Tensor::from_slice(ctx, &x, &[2, 3]).unwrap(), Tensor::from_slice(ctx, &y, &[2]).unwrap());
    let out = at.run(ctx, &[("x", &x), ("y", &y)], &PlanSpec::new().grad("x")).unwrap();
    assert_eq!(out.loss_values().unwrap(), want.0.map(|x| x as f32));
    assert_eq!(out.grad("x").unwrap().to_vec::<f32>().unwrap(), want.1.map(|x| x as f32));
}

#[test]
fn what_scans_cannot_do_is_refused() {
    let of = |loss: Loss, wanted: Wanted| {
        cpu::run::<f64>(&loss, &[("x", HostTensor::f32(&[1.0, 2.0], &[1, 2]))], &wanted).map(|_| ())
    };
    let loss = |axis: RowAxis, build: for<'g> fn(Expr<'g>) -> Expr<'g>| {
        Loss::define("mine").input("x", Scope::Element).row_axis(axis).expr(move |b| build(b.input("x")))
    };
    let value = Wanted { loss: true, ..Wanted::default() };
    let curved = Wanted { hessian_diagonals: vec!["x".to_owned()], ..value.clone() };
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    fn scanned(x: Expr<'_>) -> Expr<'_> {
        x.scan_sum(Direction::Forward).powi(2)
    }
    let no_axis = message(of(loss(RowAxis::None, |x| x.scan_sum(Direction::Forward)), value.clone()));
    assert!(no_axis.contains("scans, pairs and sorts of a row, need a row axis"), "{no_axis}");
    let by_column = message(of(loss(RowAxis::Last, |x| x.scan_sum(Direction::Forward).sum_over(Scope::Column)), value));
    assert!(by_column.contains("for each column") && by_column.contains("column(k)"), "{by_column}");
    let hessian = message(of(loss(RowAxis::Last, scanned), curved));
    assert!(hessian.contains("a scan, pairs or a sort of the row"), "{hessian}");
    let Some(ctx) = context() else { return };
    let spec = || PlanSpec::new().input("x", DType::F32, &[2, 64]);
    let shard = spec().shard(wgloss::Shard { first: 0, classes: 128, shards: 2 });
    let shard = ctx.plan(&loss(RowAxis::Last, scanned), &shard).err().unwrap().to_string();
    assert!(shard.contains("give whole rows that fit a binding"), "{shard}");
    let split = Pinned { kernel: Some(Kernel::RowSplit { splits: 2 }), ..Pinned::default() };
    let split = ctx.plan(&loss(RowAxis::Last, scanned), &spec().pin(split)).err().unwrap().to_string();
    assert!(split.contains("with scans along it"), "{split}");
    let pinned = Pinned { kernel: Some(Kernel::RowScan { words: 1, digit_bits: 4 }), ..Pinned::default() };
    let pinned = ctx.plan(&loss(RowAxis::Last, scanned), &spec().pin(pinned)).err().unwrap().to_string();
    assert!(pinned.contains("pin `Kernel::Row`"), "{pinned}");
}

#[test]
fn a_row_of_a_million_columns_is_scanned() {
    let Some(ctx) = context() else { return };
    let cols = 1_000_000;
    let x = random(cols, 7);
    let p: Vec<f64> = x.iter().map(|x| f64::from(*x).exp()).collect();
    let total: f64 = p.iter().sum();
    let label = 123_456;
    // Differences of cumulative probabilities, their sums from the end, and the gradient through the softmax.
    let (mut below, mut loss) = (0.0, 0.0);
    let mut steps = vec![0.0; cols];
    for k in 0..cols - 1 {
        below += p[k] / total - f64::from(u8::from(k == label));
        loss += below * below;
        steps[k] = 2.0 * below;
    }
    for k in (1..cols).rev() {
        steps[k - 1] += steps[k];
    }
    let mean: f64 = steps.iter().zip(&p).map(|(a, p)| a * p / total).sum();
    let want: Vec<f64> = steps.iter().zip(&p).map(|(a, p)| p / total * (a - mean)).collect();
    let (x, y) =
        (Tensor::from_slice(ctx, &x, &[1, cols]).unwrap(), Tensor::from_slice(ctx, &[label as i32], &[1]).unwrap());
    let out = wgloss::losses::emd_squared().run(ctx, &[("input", &x), ("target", &y)], &PlanSpec::new().grad("input"));
    let out = out.unwrap();
    assert_close("loss", &[f64::from(out.loss().unwrap())], &[loss], 2e-6);
    let got: Vec<f64> = out.grad("input").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    assert_close("gradient", &got, &want, 2e-6);
}

#[test]
fn rows_as_long_as_a_software_adapter_takes_are_scanned_whole() {
    // Loops in which lanes combine what they have scanned do not count among those of its limit.
    let Some(ctx) = context() else { return };
    let definition = Loss::define("scanned").input("x", Scope::Element).input("w", Scope::Element);
    let loss = definition.row_axis(RowAxis::Last).expr(|b| {
        let (x, w) = (b.input("x"), b.input("w"));
        (w * (x.scan_sum(Direction::Forward) * 1e-3 + x.scan_logsumexp(Direction::Reverse))).sum()
    });
    for (lanes, subgroups) in [(8, false), (64, false), (64, true)] {
        let pinned = Pinned { kernel: Some(Kernel::Row), lanes: Some(lanes), ..Pinned::default() };
        let pinned = Pinned { subgroups: Some(subgroups), ..pinned };
        let spec = PlanSpec::new().grad("w").pin(pinned);
        let fits = |cols: &usize| {
            let spec = spec.clone().input("x", DType::F32, &[1, *cols]).input("w", DType::F32, &[1, *cols]);
            ctx.plan(&loss, &spec).is_ok()
        };
        let cols = (1..=6).rev().map(|k| k * 50_000 * lanes as usize / 8).find(fits).unwrap();
        let x = random(cols, 5);
        let host = [("x", HostTensor::f32(&x, &[1, cols])), ("w", HostTensor::f32(&x, &[1, cols]))];
        let want = cpu::forward_backward(&loss, &host, &["w"]).unwrap();
        let x = Tensor::from_slice(ctx, &x, &[1, cols]).unwrap();
        let out = loss.run(ctx, &[("x", &x), ("w", &x)], &spec).unwrap();
        let got: Vec<f64> = out.grad("w").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
        assert_close(&format!("{cols} columns, {lanes} lanes"), &got, want.grad("w").unwrap(), 4e-6);
    }
}

#[test]
fn sums_of_many_blocks_keep_their_digits() {
    let Some(ctx) = context() else { return };
    let cols = 300_000;
    let x: Vec<f32> = random(cols, 11).iter().map(|x| x + 4.0).collect();
    let definition = Loss::define("sums").input("x", Scope::Element).input("w", Scope::Element);
    let loss =
        definition.row_axis(RowAxis::Last).expr(|b| (b.input("x").scan_sum(Direction::Forward) * b.input("w")).sum());
    let mut sum = 0.0;
    let want: Vec<f64> = x.iter().map(|x| (sum += f64::from(*x), sum).1).collect();
    let x = Tensor::from_slice(ctx, &x, &[1, cols]).unwrap();
    let pinned = Pinned { kernel: Some(Kernel::Row), lanes: Some(8), ..Pinned::default() };
    let out = loss.run(ctx, &[("x", &x), ("w", &x)], &PlanSpec::new().grad("w").pin(pinned)).unwrap();
    let got: Vec<f64> = out.grad("w").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    let worst = got.iter().zip(&want).map(|(got, want)| (got / want - 1.0).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-6, "{worst:e}");
}
