//! `logsumexp_over` groups, rows by column, and everything: loss and gradient on GPU and CPU against plain loops in f64.

use crate::common::compare::{assert_close, mismatch, random};
use crate::common::context;
use wgloss::{
    Bindings, Context, Error, GroupInput, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, Wanted, cpu,
};

/// Which values are in one sum: `set(row, col)` numbers them.
struct Case {
    name: &'static str,
    scope: Scope,
    axis: RowAxis,
    sets: usize,
    set: Box<dyn Fn(usize, usize) -> usize>,
    /// Offsets of groups of unequal length.
    offsets: Option<Vec<i32>>,
}

/// `s·logsumexp(s·x)` over the scope, which reads a scalar on its way to the elements and back.
fn loss(case: &Case) -> Loss {
    let scope = case.scope;
    let definition = Loss::define(case.name).input("x", Scope::Element).input("s", Scope::Scalar);
    definition.row_axis(case.axis).expr(move |b| {
        let s = b.input("s");
        s * (s * b.input("x")).logsumexp_over(scope)
    })
}

/// Losses per set, the gradient of their sum for `x`, and for `s`.
fn expected(case: &Case, x: &[f32], s: f64, cols: usize) -> [Vec<f64>; 3] {
    let value = |k: usize| s * f64::from(x[k]);
    let set = |k: usize| (case.set)(k / cols, k % cols);
    let mut most = vec![f64::NEG_INFINITY; case.sets];
    (0..x.len()).for_each(|k| most[set(k)] = most[set(k)].max(value(k)));
    let shift: Vec<f64> = most.iter().map(|m| if m.is_finite() { *m } else { 0.0 }).collect();
    let mut sums = vec![0.0; case.sets];
    (0..x.len()).for_each(|k| sums[set(k)] += (value(k) - shift[set(k)]).exp());
    let share = |k: usize| (value(k) - shift[set(k)]).exp() / sums[set(k)];
    let losses: Vec<f64> = sums.iter().zip(&shift).map(|(sum, shift)| s * (sum.ln() + shift)).collect();
    let by_s: f64 = (0..x.len()).map(|k| s * share(k) * f64::from(x[k])).filter(|x| !x.is_nan()).sum::<f64>()
        + losses.iter().sum::<f64>() / s;
    [losses, (0..x.len()).map(|k| s * s * share(k)).collect(), vec![by_s]]
}

type Found = [Vec<f64>; 3];

fn on_cpu(case: &Case, x: &[f32], s: f32, shape: &[usize], reduction: &Reduction) -> Found {
    let offsets = case.offsets.clone().unwrap_or_default();
    let mut inputs = vec![("x", HostTensor::f32(x, shape)), ("s", HostTensor::f32(std::slice::from_ref(&s), &[]))];
    if case.offsets.is_some() {
        inputs.push(("groups", HostTensor::i32(&offsets, &[case.sets + 1])));
    }
    let groups = case.offsets.as_ref().map(|_| GroupInput::offsets("groups"));
    let grads = vec!["x".to_owned(), "s".to_owned()];
    let wanted = Wanted { loss: true, grads, groups, ..Wanted::default() };
    let out = cpu::run::<f64>(&loss(case).reduction(reduction.clone()), &inputs, &wanted).unwrap();
    [out.loss_values().unwrap(), out.grad("x").unwrap(), out.grad("s").unwrap()].map(<[f64]>::to_vec)
}

fn on_gpu(ctx: &Context, case: &Case, (x, s): (&[f32], f32), shape: &[usize], reduction: &Reduction) -> Found {
    found_on_gpu(ctx, case, (x, s), shape, reduction, false)
}

/// As [`on_gpu`]; `apart`, the gradient of `x` alone, in a phase of its own: that of a scalar belongs to the forward pass.
fn found_on_gpu(
    ctx: &Context,
    case: &Case,
    (x, s): (&[f32], f32),
    shape: &[usize],
    reduction: &Reduction,
    apart: bool,
) -> Found {
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(ctx, values, shape).unwrap();
    let (x, s) = (tensor(x, shape), tensor(&[s], &[]));
    let offsets = case.offsets.as_ref().map(|offsets| Tensor::from_slice(ctx, offsets, &[case.sets + 1]).unwrap());
    let mut inputs = vec![("x", &x), ("s", &s)];
    inputs.extend(offsets.iter().map(|offsets| ("groups", offsets)));
    let spec = PlanSpec::new().like(&inputs).grad("x");
    let spec = if apart { spec.separate_backward() } else { spec.grad("s") };
    let spec = if offsets.is_some() { spec.group_offsets("groups") } else { spec };
    let plan = ctx.plan(&loss(case).reduction(reduction.clone()), &spec).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    match apart {
        true => {
            let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            bound.encode_forward(&mut encoder).unwrap();
            bound.encode_backward(&mut encoder).unwrap();
            ctx.queue().submit([encoder.finish()]);
        }
        false => bound.submit().unwrap(),
    }
    let read = |tensor: &Tensor| -> Vec<f64> { tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect() };
    let by_s = bound.grad("s").map_or(Vec::new(), read);
    [read(bound.loss().unwrap()), read(bound.grad("x").unwrap()), by_s]
}

/// Every scope, of these rows and columns; groups are equal (rows of the first axis) and of unequal length.
fn cases(rows: usize, cols: usize) -> Vec<Case> {
    let (first, second) = (rows / 3, rows / 2);
    let case = |name, scope, axis, sets, set| Case { name, scope, axis, sets, set, offsets: None };
    let cuts = vec![0, first as i32, first as i32, second as i32, rows as i32];
    let of_cuts = move |row: usize, _| if row < first { 0 } else { 2 + usize::from(row >= second) };
    vec![
        case("by_column", Scope::Column, RowAxis::Last, cols, Box::new(|_, col| col)),
        case("by_row", Scope::Row, RowAxis::Last, rows, Box::new(|row, _| row)),
        case("of_rows", Scope::Total, RowAxis::Last, 1, Box::new(|_, _| 0)),
        case("of_elements", Scope::Total, RowAxis::None, 1, Box::new(|_, _| 0)),
        case("of_groups", Scope::Group, RowAxis::Last, rows, Box::new(|row, _| row)),
        Case { offsets: Some(cuts), ..case("of_unequal_groups", Scope::Group, RowAxis::Last, 4, Box::new(of_cuts)) },
    ]
}

#[test]
fn logsumexp_over_every_scope_is_the_textbooks() {
    let Some(ctx) = context() else { return };
    // Short and odd rows, one workgroup and more, and more rows than one dispatch adds up.
    for (rows, cols) in [(3, 1), (7, 5), (60, 65), (300, 32), (20_000, 2)] {
        for offset in [0.0f32, 1e4, -1e4] {
            let x: Vec<f32> = random(rows * cols, 1).iter().map(|x| 2.0 * x + offset).collect();
            for case in cases(rows, cols) {
                let s = 0.5;
                let want = expected(&case, &x, s, cols);
                let shape = [rows, cols];
                let reduction = if case.scope == Scope::Total { Reduction::Sum } else { Reduction::None };
                let paths = [
                    on_gpu(ctx, &case, (&x, s as f32), &shape, &reduction),
                    on_cpu(&case, &x, s as f32, &shape, &reduction),
                ];
                for (path, [losses, by_x, by_s]) in ["GPU", "CPU"].iter().zip(paths) {
                    let what = format!("{} of [{rows}, {cols}] at {offset}, {path}", case.name);
                    // What is shifted by the offset keeps an ulp of it.
                    let ulp = 1e-7 * f64::from(offset.abs());
                    let worst = mismatch(&losses, &want[0], 2e-6, |_| 1e-6 + ulp);
                    assert!(worst.is_none(), "{what}: {worst:?}");
                    let worst = mismatch(&by_x, &want[1], 3e-6 + ulp, |_| 1e-9);
                    assert!(worst.is_none(), "{what}: gradient of x {worst:?}");
                    if want[2][0].is_finite() {
                        assert_close(&format!("{what}: gradient of s"), &by_s, &want[2], 1e-5);
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_may_be_apart() {
    let Some(ctx) = context() else { return };
    for (rows, cols) in [(7, 5), (60, 65), (300, 32)] {
        let x: Vec<f32> = random(rows * cols, 2).iter().map(|x| 2.0 * x + 1e4).collect();
        for case in cases(rows, cols) {
            let reduction = if case.scope == Scope::Total { Reduction::Sum } else { Reduction::None };
            let what = format!("{} of [{rows}, {cols}]", case.name);
            let want = expected(&case, &x, 0.5, cols);
            let [losses, by_x, _] = found_on_gpu(ctx, &case, (&x, 0.5), &[rows, cols], &reduction, true);
            let worst = mismatch(&losses, &want[0], 2e-6, |_| 2e-3);
            assert!(worst.is_none(), "{what}: {worst:?}");
            let worst = mismatch(&by_x, &want[1], 2e-3, |_| 1e-9);
            assert!(worst.is_none(), "{what}: gradient of x {worst:?}");
        }
    }
}

#[test]
fn of_no_rows_it_is_minus_infinity() {
    let nothing = |sets: usize, by_s: Vec<f64>| [vec![f64::NEG_INFINITY; sets], Vec::new(), by_s];
    for case in cases(6, 3).into_iter().filter(|case| matches!(case.scope, Scope::Column | Scope::Total)) {
        let reduction = if case.scope == Scope::Total { Reduction::Sum } else { Reduction::None };
        let want = nothing(case.sets, vec![0.0]);
        assert_eq!(on_cpu(&case, &[], 0.5, &[0, 3], &reduction), want, "{}, CPU", case.name);
        let Some(ctx) = context() else { continue };
        for apart in [false, true] {
            let found = found_on_gpu(ctx, &case, (&[], 0.5), &[0, 3], &reduction, apart);
            let want = nothing(case.sets, if apart { Vec::new() } else { vec![0.0] });
            assert_eq!(found, want, "{}, GPU, apart {apart}", case.name);
        }
    }
}

#[test]
fn infinities_are_those_of_the_sum_and_nan_shows() {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (6, 4);
    let low = f32::NEG_INFINITY;
    for (place, value) in [(9, low), (9, f32::NAN)] {
        let mut x = random(rows * cols, 2);
        x[place] = value;
        for case in cases(rows, cols) {
            let want = expected(&case, &x, 1.0, cols);
            let reduction = if case.scope == Scope::Total { Reduction::Sum } else { Reduction::None };
            let paths = [
                on_gpu(ctx, &case, (&x, 1.0), &[rows, cols], &reduction),
                on_cpu(&case, &x, 1.0, &[rows, cols], &reduction),
            ];
            for (path, [losses, by_x, _]) in ["GPU", "CPU"].iter().zip(paths) {
                let what = format!("{} with {value}, {path}", case.name);
                let set = (case.set)(place / cols, place % cols);
                for (k, loss) in losses.iter().enumerate() {
                    let is_poisoned = value.is_nan() && k == set;
                    assert_eq!(loss.is_nan(), is_poisoned, "{what}: {losses:?}");
                    let fits = is_poisoned || *loss == want[0][k] || (loss - want[0][k]).abs() < 1e-5;
                    assert!(fits, "{what}: {losses:?}, want {:?}", want[0]);
                }
                assert_eq!(by_x[place].is_nan(), value.is_nan(), "{what}: {by_x:?}");
                assert!(value.is_nan() || by_x[place] == 0.0, "{what}: probability zero has gradient zero");
            }
        }
    }
    // A column of −∞ alone.
    let x: Vec<f32> = (0..rows * cols).map(|k| if k % cols == 1 { low } else { 1.0 }).collect();
    let case = &cases(rows, cols)[0];
    for losses in [
        &on_gpu(ctx, case, (&x, 1.0), &[rows, cols], &Reduction::None)[0],
        &on_cpu(case, &x, 1.0, &[rows, cols], &Reduction::None)[0],
    ] {
        assert_eq!(losses[1], f64::NEG_INFINITY, "{losses:?}");
        assert!(losses.iter().enumerate().all(|(k, x)| k == 1 || (x - (1.0 + 6f64.ln())).abs() < 1e-5), "{losses:?}");
    }
}

#[test]
fn logsumexp_goes_outward() {
    let inward = Loss::define("inward").input("x", Scope::Element).row_axis(RowAxis::Last);
    let inward = inward.expr(|b| b.input("x").sum().logsumexp_over(Scope::Column));
    let error = cpu::forward_backward(&inward, &[("x", HostTensor::f32(&[1.0; 4], &[2, 2]))], &["x"]).unwrap_err();
    assert!(matches!(error, Error::Expr { .. }), "{error}");
}
