//! 16-bit storage: every kernel at odd and even column counts, in place, accumulating, in views, against the CPU's
//! f64 path on the widened inputs. What shares a word with a gradient keeps its bits.

use crate::common::compare;
use crate::common::golden::{self, Tolerance};
use crate::common::{context, context_for, is_in_share, loss_of, on_cpu, on_gpu_stored};
use half::{bf16, f16};
use wgloss::{Bindings, Context, DType, Element, GradMode, HostTensor, Loss, PlanSpec, Tensor, cpu, losses};
use wgloss::{Kernel, Pinned};

/// A 16-bit type of the host.
trait Half: Element + PartialEq + std::fmt::Debug {
    fn of(x: f32) -> Self;
    fn wide(self) -> f32;
    /// Half a unit in the last place of numbers near 1, and the half of the smallest step.
    const ROUNDING: (f64, f64);
}

impl Half for f16 {
    fn of(x: f32) -> f16 {
        f16::from_f32(x)
    }
    fn wide(self) -> f32 {
        self.to_f32()
    }
    const ROUNDING: (f64, f64) = (1.0 / 2048.0, 1.0 / (1 << 25) as f64);
}

impl Half for bf16 {
    fn of(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
    fn wide(self) -> f32 {
        self.to_f32()
    }
    const ROUNDING: (f64, f64) = (1.0 / 256.0, 1e-38);
}

fn random<T: Half>(count: usize, seed: u32) -> Vec<T> {
    compare::random(count, seed).into_iter().map(T::of).collect()
}

fn wide<T: Half>(values: &[T]) -> Vec<f32> {
    values.iter().map(|v| v.wide()).collect()
}

/// One rounding of the storage type, on top of the contract's 2e-6 of the row's largest gradient.
fn assert_rounded<T: Half>(what: &str, got: &[T], want: &[f64], cols: usize) {
    let (relative, least) = T::ROUNDING;
    for (row, (got, want)) in got.chunks(cols).zip(want.chunks(cols)).enumerate() {
        let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (col, (got, want)) in got.iter().zip(want).enumerate() {
            let allowed = relative * want.abs() * 1.0001 + 2e-6 * largest + least * 1.0001;
            let off = (f64::from(got.wide()) - want).abs();
            assert!(off <= allowed, "{what} row {row} col {col}: got {got:?}, want {want}, off {off:e} of {allowed:e}");
        }
    }
}

/// Every kernel for halves; for brain floats, which differ by the conversion alone, one of each sort.
fn kernels(ctx: &Context, dtype: DType) -> Vec<Pinned> {
    let pinned = |kernel, workgroup, lanes| Pinned {
        kernel: Some(kernel),
        workgroup: Some(workgroup),
        lanes: Some(lanes),
        ..Pinned::default()
    };
    let most = ctx.limits().workgroup_invocations;
    let mut all = vec![Pinned::default(), Pinned { width: Some(1), ..Pinned::default() }];
    let teams: &[(u32, u32)] = if dtype == DType::F16 { &[(8, 1), (8, 8), (64, 16), (128, 128)] } else { &[(64, 16)] };
    for &(workgroup, lanes) in teams.iter().filter(|t| t.0 <= most) {
        all.push(pinned(Kernel::Row, workgroup, lanes));
        all.push(pinned(Kernel::RowResident { trips: 0 }, workgroup, lanes));
    }
    all.push(pinned(Kernel::RowSplit { splits: 3 }, 8, 8));
    all
}

/// Every kernel, from a tensor that begins at `offset` of its buffer.
fn check_rows<T: Half>(ctx: &Context, loss: &Loss, rows: usize, cols: usize, offset: usize) {
    let count = rows * cols;
    let x = random::<T>(count, (rows * cols) as u32);
    let y: Vec<i32> = (0..rows).map(|row| if row == 1 { -100 } else { (row * 7919 % cols) as i32 }).collect();
    let x32 = wide(&x);
    let host = [("input", HostTensor::f32(&x32, &[rows, cols])), ("target", HostTensor::i32(&y, &[rows]))];
    let want = cpu::forward_backward(loss, &host, &["input"]).unwrap();
    let want_grad = want.grad("input").unwrap();
    // A buffer with something before and after the tensor.
    let canary = T::of(0.123);
    let mut padded = vec![canary; offset + count + 3];
    padded[offset..offset + count].copy_from_slice(&x);
    let ys = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
    for (k, pinned) in kernels(ctx, T::DTYPE).into_iter().enumerate() {
        // What is compiled for one kernel is in one share, whichever columns it runs over.
        let by_default = pinned == Pinned::default();
        if !by_default && !is_in_share(&format!("half rows of {} {} by {pinned:?}", loss.name(), T::DTYPE)) {
            continue;
        }
        // Gradients of their own, in place and added: one way after the other.
        let modes = [GradMode::InPlace, GradMode::Accumulate, GradMode::Write];
        for mode in [modes[k % 3], modes[(k + 1) % 3]] {
            let whole = Tensor::from_slice(ctx, &padded, &[padded.len()]).unwrap();
            let xs = whole.view(offset as u64, &[rows, cols], &[cols, 1]).unwrap();
            let inputs = [("input", &xs), ("target", &ys)];
            let spec = PlanSpec::new().like(&inputs).grad_mode("input", mode).pin(pinned);
            let what = format!("{} {} [{rows}, {cols}] at {offset}, {mode:?}, {pinned:?}", loss.name(), T::DTYPE);
            let plan = match ctx.plan(loss, &spec) {
                Ok(plan) => plan,
                Err(error) => {
                    let may = matches!(pinned.kernel, Some(Kernel::RowResident { .. } | Kernel::RowSplit { .. }));
                    assert!(may, "{what}: {error}");
                    continue;
                }
            };
            let into = Tensor::from_slice(ctx, &padded, &[padded.len()]).unwrap();
            let place = into.view(offset as u64, &[rows, cols], &[cols, 1]).unwrap();
            let bindings = Bindings::new().inputs(&inputs);
            let bound = match mode {
                GradMode::InPlace => plan.bind(&bindings).unwrap(),
                _ => plan.bind(&bindings.grad("input", &place)).unwrap(),
            };
            bound.submit().unwrap();
            let got = f64::from(bound.read_loss().unwrap());
            let expected = want.loss().unwrap();
            assert!((got - expected).abs() <= 3e-6 * expected.abs() + 1e-6, "{what}: loss {got}, want {expected}");
            let all: Vec<T> = if mode == GradMode::InPlace { &whole } else { &into }.to_vec().unwrap();
            let want_grad: Vec<f64> = match mode {
                GradMode::Accumulate => want_grad.iter().zip(&x32).map(|(g, x)| g + f64::from(*x)).collect(),
                _ => want_grad.to_vec(),
            };
            assert_rounded(&what, &all[offset..offset + count], &want_grad, cols);
            let around = all[..offset].iter().chain(&all[offset + count..]);
            for value in around {
                assert_eq!(*value, canary, "{what}: what lies around the gradient");
            }
        }
    }
}

#[test]
fn half_rows_agree_with_the_cpu_in_every_kernel() {
    let Some(ctx) = context() else { return };
    // 1 to 5: rows that share words, windows of one row and more; 257, 1001: odd rows of many windows.
    for (cols, offset) in
        [(1, 0), (1, 1), (2, 1), (3, 0), (4, 0), (4, 2), (5, 3), (8, 1), (257, 0), (1001, 1), (1004, 4)]
    {
        check_rows::<f16>(ctx, &losses::cross_entropy(), 6, cols, offset);
        check_rows::<bf16>(ctx, &losses::cross_entropy(), 6, cols, offset);
    }
    check_rows::<bf16>(ctx, &losses::cross_entropy().label_smoothing(0.1), 5, 131, 1);
    check_rows::<f16>(ctx, &losses::cross_entropy(), 2, 50257, 0);
}

#[test]
fn f32_rows_in_views_are_masked_and_agree() {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (5, 129);
    for offset in [1, 2, 3] {
        let values: Vec<f32> = wide(&random::<bf16>(rows * cols + 8, 3));
        let whole = Tensor::from_slice(ctx, &values, &[values.len()]).unwrap();
        let x = &values[offset..offset + rows * cols];
        let y: Vec<i32> = (0..rows as i32).collect();
        let host = [("input", HostTensor::f32(x, &[rows, cols])), ("target", HostTensor::i32(&y, &[rows]))];
        let want = cpu::forward_backward(&losses::cross_entropy(), &host, &["input"]).unwrap();
        let xs = whole.view(offset as u64, &[rows, cols], &[cols, 1]).unwrap();
        let ys = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
        let into = Tensor::from_slice(ctx, &vec![7.5f32; values.len()], &[values.len()]).unwrap();
        let place = into.view(2, &[rows, cols], &[cols, 1]).unwrap();
        let inputs = [("input", &xs), ("target", &ys)];
        let plan = ctx.plan(&losses::cross_entropy(), &PlanSpec::new().like(&inputs).grad("input")).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs).grad("input", &place)).unwrap();
        bound.submit().unwrap();
        let all: Vec<f32> = into.to_vec().unwrap();
        for (k, want) in want.grad("input").unwrap().iter().enumerate() {
            assert!((f64::from(all[k + 2]) - want).abs() < 1e-6, "offset {offset}, element {k}");
        }
        assert!(all[..2].iter().chain(&all[2 + rows * cols..]).all(|v| *v == 7.5), "around the gradient");
    }
}

fn check_elements<T: Half>(ctx: &Context, count: usize, offset: usize) {
    let (x, t) = (random::<T>(count, 5), random::<T>(count, 6));
    let (x32, t32) = (wide(&x), wide(&t));
    let host = [("input", HostTensor::f32(&x32, &[count])), ("target", HostTensor::f32(&t32, &[count]))];
    let want = cpu::forward_backward(&losses::huber(0.7), &host, &["input"]).unwrap();
    let canary = T::of(0.123);
    let mut padded = vec![canary; offset + count + 3];
    padded[offset..offset + count].copy_from_slice(&x);
    let ts = Tensor::from_slice(ctx, &t, &[count]).unwrap();
    for width in [None, Some(1)] {
        let whole = Tensor::from_slice(ctx, &padded, &[padded.len()]).unwrap();
        let xs = whole.view(offset as u64, &[count], &[1]).unwrap();
        let inputs = [("input", &xs), ("target", &ts)];
        let pinned = Pinned { width, ..Pinned::default() };
        let spec = PlanSpec::new().like(&inputs).grad_mode("input", GradMode::InPlace).pin(pinned);
        let plan = ctx.plan(&losses::huber(0.7), &spec).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        let what = format!("huber {} {count} at {offset}, width {width:?}", T::DTYPE);
        let (got, expected) = (f64::from(bound.read_loss().unwrap()), want.loss().unwrap());
        assert!((got - expected).abs() <= 2e-6 * expected, "{what}: loss {got}, want {expected}");
        let all: Vec<T> = whole.to_vec().unwrap();
        assert_rounded(&what, &all[offset..offset + count], want.grad("input").unwrap(), count);
        assert!(all[..offset].iter().chain(&all[offset + count..]).all(|v| *v == canary), "{what}: around it");
    }
}

#[test]
fn half_elements_agree_with_the_cpu() {
    let Some(ctx) = context() else { return };
    for (count, offset) in [(1, 0), (1, 1), (2, 3), (7, 0), (7, 2), (64, 1), (1023, 0), (100_003, 3)] {
        check_elements::<f16>(ctx, count, offset);
        check_elements::<bf16>(ctx, count, offset);
    }
}

/// The losses of rows: stored in every type. Of the others, every second one in each 16-bit type.
const SOFTMAX: [&str; 11] = [
    "cross_entropy",
    "cross_entropy_prob",
    "nll",
    "kl_div",
    "z_loss",
    "softcap_cross_entropy",
    "distillation",
    "jsd",
    "tvd",
    "multiclass_focal",
    "cross_entropy_temperature",
];

/// Golden cases with their numbers rounded to a 16-bit type: the GPU against the CPU's f64 path on the same.
fn check_golden<T: Half>() {
    let (relative, least) = T::ROUNDING;
    let mut cases = 0;
    for (place, path) in golden::files(&golden::folder()).into_iter().enumerate() {
        let turn = place % 2 == usize::from(T::DTYPE == DType::F16);
        if !turn && !SOFTMAX.contains(&golden::stem(&path).as_str()) {
            continue;
        }
        for case in golden::load(&path) {
            let mut problem = case.to_oracle();
            for array in problem.arrays.values_mut() {
                for x in &mut array.values {
                    *x = f64::from(T::of(*x as f32).wide());
                    // What f32 does not hold as a normal number a device may flush.
                    if x.abs() < f64::from(f32::MIN_POSITIVE) {
                        *x = 0.0;
                    }
                }
            }
            let Some(loss) = loss_of(&case.file, &problem) else { continue };
            let grads = case.grads();
            let what = format!("{}/{} in {}", case.file, case.name, T::DTYPE);
            cases += 1;
            let kernels = format!("{} {:?} {} in {}", case.file, case.options, case.reduction, T::DTYPE);
            let Some(ctx) = context_for(&kernels) else { continue };
            let want = on_cpu(&loss, &problem, &grads).unwrap_or_else(|e| panic!("{what}: {e}"));
            let got = on_gpu_stored::<T>(ctx, &loss, &problem, &grads, T::of, |x| f64::from(x.wide()));
            let got = got.unwrap_or_else(|e| panic!("{what}: {e}"));
            let tolerance = Tolerance::single(&case, "loss", &want.loss);
            for (got, want) in got.loss.iter().zip(&want.loss) {
                assert!(tolerance.units(*got, *want) <= 1.0, "{what}: loss {got}, want {want}");
            }
            for name in grads {
                let want = &want.grads[name];
                let single = Tolerance::single(&case, &format!("grad_{name}"), want);
                let tolerance = Tolerance { rtol: single.rtol + relative, atol: single.atol + least };
                for (place, (got, want)) in got.grads[name].iter().zip(want).enumerate() {
                    // Beyond the largest half there is only ∞.
                    let overflows = !T::of(*want as f32).wide().is_finite() && want.is_finite();
                    let fits = if overflows { got.is_infinite() } else { tolerance.units(*got, *want) <= 1.0 };
                    assert!(fits, "{what}: gradient of {name}[{place}] is {got}, want {want}");
                }
            }
        }
    }
    assert!(cases > 200, "only {cases} golden cases, of which a share runs");
}

#[test]
fn golden_cases_in_16_bits_are_one_rounding_away() {
    rayon::join(check_golden::<f16>, check_golden::<bf16>);
}

#[test]
fn half_gradients_of_any_layout_settle_afterwards() {
    let Some(ctx) = context() else { return };
    // Classes at axis 1: neighbouring columns are far apart, so that no window of a row can be stored.
    let (n, c, d) = (2, 5, 9);
    let x = random::<bf16>(n * c * d, 5);
    let x32 = wide(&x);
    let y: Vec<i32> = (0..n * d).map(|k| (k * 3 % c) as i32).collect();
    let host = [("input", HostTensor::f32(&x32, &[n, c, d])), ("target", HostTensor::i32(&y, &[n, d]))];
    let want = cpu::forward_backward(&losses::cross_entropy(), &host, &["input"]).unwrap();
    let xs = Tensor::from_slice(ctx, &x, &[n, c, d]).unwrap();
    let ys = Tensor::from_slice(ctx, &y, &[n, d]).unwrap();
    for mode in [GradMode::Write, GradMode::InPlace] {
        let inputs = [("input", &xs), ("target", &ys)];
        let out = losses::cross_entropy().run(ctx, &inputs, &PlanSpec::new().grad_mode("input", mode)).unwrap();
        let got: Vec<bf16> = out.grad("input").unwrap().to_vec().unwrap();
        assert_rounded("class axis 1", &got, want.grad("input").unwrap(), n * c * d);
    }
    // A target that is broadcast: its gradient is summed in f32, and rounded once.
    let loss = losses::mse().broadcast(true);
    let t = random::<f16>(11, 8);
    let (x, t32) = (random::<f16>(37 * 11, 7), wide(&t));
    let x32 = wide(&x);
    let host = [("input", HostTensor::f32(&x32, &[37, 11])), ("target", HostTensor::f32(&t32, &[1, 11]))];
    let want = cpu::forward_backward(&loss, &host, &["target"]).unwrap();
    let xs = Tensor::from_slice(ctx, &x, &[37, 11]).unwrap();
    let ts = Tensor::from_slice(ctx, &t, &[1, 11]).unwrap();
    let out = loss.forward_backward_of(ctx, &[("input", &xs), ("target", &ts)], &["target"]).unwrap();
    assert_rounded(
        "broadcast",
        &out.grad("target").unwrap().to_vec::<f16>().unwrap(),
        want.grad("target").unwrap(),
        11,
    );
}

#[test]
fn logits_of_16_bits_may_have_gradients_of_32() {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (4, 77);
    let x = random::<bf16>(rows * cols, 5);
    let x32 = wide(&x);
    let y: Vec<i32> = (0..rows as i32).collect();
    let host = [("input", HostTensor::f32(&x32, &[rows, cols])), ("target", HostTensor::i32(&y, &[rows]))];
    let want = cpu::forward_backward(&losses::cross_entropy(), &host, &["input"]).unwrap();
    let xs = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
    let ys = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
    let inputs = [("input", &xs), ("target", &ys)];
    let spec = PlanSpec::new().grad("input").grad_dtype("input", DType::F32);
    let out = losses::cross_entropy().run(ctx, &inputs, &spec).unwrap();
    let got: Vec<f32> = out.grad("input").unwrap().to_vec().unwrap();
    for (got, want) in got.iter().zip(want.grad("input").unwrap()) {
        assert!((f64::from(*got) - want).abs() < 1e-6, "{got}, want {want}");
    }
    // Logits once at 2 bytes, the gradient once at 4, labels once; the loss.
    assert_eq!(out.bound().bytes(), (rows * cols) as u64 * 6 + 4 * rows as u64 + 4);
    let wrong = PlanSpec::new().like(&inputs).grad_mode("input", GradMode::InPlace).grad_dtype("input", DType::F32);
    assert!(matches!(ctx.plan(&losses::cross_entropy(), &wrong), Err(wgloss::Error::DType { .. })));
}

#[test]
fn special_halves_are_what_they_are() {
    let Some(ctx) = context() else { return };
    // −∞ is probability zero, NaN poisons its row only; subnormal halves count.
    let inf = f16::NEG_INFINITY;
    let x =
        [f16::of(1.0), inf, f16::of(0.5), f16::NAN, f16::of(0.0), f16::of(1.0), f16::from_bits(1), f16::of(0.0), inf];
    let xs = Tensor::from_slice(ctx, &x, &[3, 3]).unwrap();
    let ys = Tensor::from_slice(ctx, &[0i32, 1, 0], &[3]).unwrap();
    let loss = losses::cross_entropy().reduction(wgloss::Reduction::None);
    let out = loss.forward_backward(ctx, &[("input", &xs), ("target", &ys)]).unwrap();
    let values = out.loss_values().unwrap();
    assert!((values[0] - 0.474_077).abs() < 1e-5 && values[1].is_nan() && (values[2] - 2f32.ln()).abs() < 1e-6);
    let grad: Vec<f16> = out.grad("input").unwrap().to_vec().unwrap();
    assert!(grad[3..6].iter().all(|g| g.is_nan()), "{grad:?}");
    assert_eq!((grad[1], grad[8]), (f16::of(0.0), f16::of(0.0)), "{grad:?}");
}

#[test]
fn no_word_is_torn_in_fifty_repetitions() {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (300, 67);
    let x = random::<bf16>(rows * cols, 11);
    let y: Vec<i32> = (0..rows).map(|row| (row % cols) as i32).collect();
    let ys = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
    for mode in [GradMode::InPlace, GradMode::Accumulate] {
        let mut first: Option<Vec<bf16>> = None;
        for lanes in [1, 8] {
            let pinned = Pinned { workgroup: Some(8), lanes: Some(lanes), ..Pinned::default() };
            let spec = PlanSpec::new().input("input", DType::BF16, &[rows, cols]).input("target", DType::I32, &[rows]);
            let plan = ctx.plan(&losses::cross_entropy(), &spec.grad_mode("input", mode).pin(pinned)).unwrap();
            for repetition in 0..25 {
                let xs = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
                let into = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
                let bindings = Bindings::new().input("input", &xs).input("target", &ys);
                let bindings = if mode == GradMode::InPlace { bindings } else { bindings.grad("input", &into) };
                let bound = plan.bind(&bindings).unwrap();
                bound.submit().unwrap();
                let got: Vec<bf16> = bound.grad("input").unwrap().to_vec().unwrap();
                let want = first.get_or_insert_with(|| got.clone());
                let torn = got.iter().zip(&*want).filter(|(a, b)| (a.to_f32() - b.to_f32()).abs() > 0.01).count();
                assert_eq!(torn, 0, "{mode:?}, {lanes} lanes, repetition {repetition}");
            }
        }
    }
}

#[test]
fn an_output_whose_own_elements_overlap_is_refused_in_every_mode() {
    let Some(ctx) = context() else { return };
    let whole = Tensor::zeros(ctx, DType::F32, &[64]).unwrap();
    // Every layout twice: windows that slide, one repeated, several axes that meet; then those that only look like it.
    let meet = [[1, 1], [2, 1], [0, 1], [3, 2], [2, 3]];
    for strides in meet {
        let view = whole.view(0, &[4, 5], &strides).unwrap();
        let plain = Tensor::zeros(ctx, DType::F32, &[4, 5]).unwrap();
        for mode in [GradMode::Write, GradMode::Accumulate] {
            let spec = PlanSpec::new().like(&[("input", &plain), ("target", &plain)]).grad_mode("input", mode);
            let plan = ctx.plan(&losses::mse(), &spec).unwrap();
            let bindings = Bindings::new().inputs(&[("input", &plain), ("target", &plain)]).grad("input", &view);
            let error = plan.bind(&bindings).unwrap_err();
            assert!(matches!(&error, wgloss::Error::Buffer { message, .. } if message.contains("share")), "{error}");
        }
        // In place, the plan says so already.
        let inputs = [("input", &view), ("target", &plain)];
        let spec = PlanSpec::new().like(&inputs).grad_mode("input", GradMode::InPlace);
        let error = ctx.plan(&losses::mse(), &spec).unwrap_err();
        assert!(matches!(&error, wgloss::Error::Buffer { .. }), "{strides:?}: {error}");
        // Read only, it is an input like any other.
        losses::mse().forward_backward(ctx, &inputs).unwrap();
        // A plan for another layout does not let it pass.
        let spec = PlanSpec::new().like(&[("input", &plain), ("target", &plain)]).grad_mode("input", GradMode::InPlace);
        let plan = ctx.plan(&losses::mse(), &spec).unwrap();
        assert!(matches!(plan.bind(&Bindings::new().inputs(&inputs)), Err(wgloss::Error::Buffer { .. })));
    }
    // The loss, not reduced, is an output as well; so are losses of rows.
    let plain = Tensor::zeros(ctx, DType::F32, &[4, 5]).unwrap();
    let loss = losses::mse().reduction(wgloss::Reduction::None);
    let plan = ctx.plan(&loss, &PlanSpec::new().like(&[("input", &plain), ("target", &plain)])).unwrap();
    let bindings = Bindings::new().inputs(&[("input", &plain), ("target", &plain)]);
    let slid = whole.view(0, &[4, 5], &[1, 1]).unwrap();
    assert!(matches!(plan.bind(&bindings.loss(&slid)), Err(wgloss::Error::Buffer { input, .. }) if input == "loss"));
}

#[test]
fn an_output_whose_elements_interleave_without_overlap_is_right() {
    let Some(ctx) = context() else { return };
    let (x, t) = ([1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0f32; 6]);
    let xs = Tensor::from_slice(ctx, &x, &[2, 3]).unwrap();
    let ts = Tensor::from_slice(ctx, &t, &[2, 3]).unwrap();
    let loss = losses::mse().reduction(wgloss::Reduction::Sum);
    // Interleaved (offsets 0, 2, 4, 3, 5, 7), transposed, padded, sliced.
    for strides in [[3, 2], [1, 2], [5, 1], [12, 4]] {
        for mode in [GradMode::Write, GradMode::Accumulate] {
            let whole = Tensor::from_slice(ctx, &[0.5f32; 32], &[32]).unwrap();
            let view = whole.view(3, &[2, 3], &strides).unwrap();
            let spec = PlanSpec::new().like(&[("input", &xs), ("target", &ts)]).grad_mode("input", mode);
            let bindings = Bindings::new().inputs(&[("input", &xs), ("target", &ts)]).grad("input", &view);
            let bound = ctx.plan(&loss, &spec).unwrap().bind(&bindings).unwrap();
            bound.submit().unwrap();
            let before = if mode == GradMode::Write { 0.0 } else { 0.5 };
            let mut want = [0.5f32; 32];
            for (k, x) in x.iter().enumerate() {
                want[3 + k / 3 * strides[0] + k % 3 * strides[1]] = 2.0 * x + before;
            }
            assert_eq!(whole.to_vec::<f32>().unwrap(), want, "{strides:?} {mode:?}");
        }
    }
}

#[test]
fn a_host_write_never_changes_a_neighbour() {
    let Some(ctx) = context() else { return };
    // 5: ends inside the last word of a buffer that is padded to 16 bytes; 8: fills it.
    for count in [5usize, 8, 9] {
        let all: Vec<f16> = (0..count).map(|k| f16::of(k as f32 + 1.0)).collect();
        for first in 0..count {
            for len in 1..=count - first {
                let whole = Tensor::from_slice(ctx, &all, &[count]).unwrap();
                let view = whole.view(first as u64, &[len], &[1]).unwrap();
                let mut want = all.clone();
                match view.write(ctx, &vec![f16::of(-1.0); len]) {
                    Ok(()) => want[first..first + len].fill(f16::of(-1.0)),
                    Err(error) => assert!(matches!(error, wgloss::Error::Buffer { .. }), "{error}"),
                }
                assert_eq!(whole.to_vec::<f16>().unwrap(), want, "{len} from {first} of {count}");
            }
        }
        let whole = Tensor::from_slice(ctx, &all, &[count]).unwrap();
        whole.write(ctx, &all).unwrap();
        assert!(whole.view(count as u64, &[1], &[1]).is_err(), "what pads the buffer is nobody's");
        let shared = Tensor::from_buffer(ctx, whole.buffer().clone(), 0, DType::F16, &[5]).unwrap();
        assert!(matches!(shared.write(ctx, &all[..5]), Err(wgloss::Error::Buffer { .. })), "somebody else's buffer");
    }
}
