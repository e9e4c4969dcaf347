//! Tensors larger than a binding: for real on an adapter with 128 MiB bindings, and everywhere on a device whose
//! bindings are made small.

use crate::common::compare::{assert_grads, random};
use crate::common::context;
use half::bf16;
use std::sync::OnceLock;
use wgloss::{Bindings, Context, DType, Element, GradMode, HostTensor, Loss, PlanSpec, Reduction, Tensor, cpu, losses};

/// A device with bindings of 64 KiB; with 64-bit integers where the other tests have them, for kernels load otherwise then.
fn small() -> Option<&'static Context> {
    static SMALL: OnceLock<Context> = OnceLock::new();
    let whole = context()?;
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 16, ..wgpu::Limits::default() };
    Some(SMALL.get_or_init(|| match whole.adapter_info().filter(|_| whole.limits().wide) {
        Some(adapter) => wide_device(adapter, limits),
        None => Context::with_limits(limits).expect("a device with smaller limits"),
    }))
}

/// A device of that adapter with 64-bit integers.
fn wide_device(of: &wgpu::AdapterInfo, required_limits: wgpu::Limits) -> Context {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = of.backend.into();
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name == of.name);
    let adapter = adapter.expect("the adapter of the other tests");
    let required_features = wgpu::Features::SHADER_INT64;
    let descriptor = wgpu::DeviceDescriptor { required_limits, required_features, ..wgpu::DeviceDescriptor::default() };
    let device = pollster::block_on(adapter.request_device(&descriptor));
    let (device, queue) = device.expect("a device with smaller limits");
    let ctx = Context::from_wgpu(device, queue, Some(&adapter)).expect("a context of that device");
    assert!(ctx.limits().wide, "{:?}", ctx.limits());
    ctx
}

#[test]
fn rows_are_cut_between_bindings() {
    let Some(ctx) = small() else { return };
    // 1001, 1000: rows that begin anywhere in a vector, and at one; 7: many short rows; labels ignored and not.
    for (rows, cols) in [(100, 1001), (100, 1000), (9000, 7), (66, 3001)] {
        let x = random(rows * cols, 3);
        let y: Vec<i32> = (0..rows).map(|r| if r % 5 == 1 { -100 } else { (r * 7919 % cols) as i32 }).collect();
        let w: Vec<f32> = random(cols, 4).iter().map(|v| v.abs()).collect();
        let host = [
            ("input", HostTensor::f32(&x, &[rows, cols])),
            ("target", HostTensor::i32(&y, &[rows])),
            ("weight", HostTensor::f32(&w, &[cols])),
        ];
        let ys = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
        let ws = Tensor::from_slice(ctx, &w, &[cols]).unwrap();
        for loss in [losses::cross_entropy(), losses::cross_entropy().reduction(Reduction::None)] {
            let want = cpu::forward_backward(&loss, &host, &["input"]).unwrap();
            for mode in [GradMode::Write, GradMode::InPlace] {
                let xs = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
                let inputs = [("input", &xs), ("target", &ys), ("weight", &ws)];
                let out = loss.run(ctx, &inputs, &PlanSpec::new().grad_mode("input", mode)).unwrap();
                let what = format!("[{rows}, {cols}] {mode:?}");
                for (got, want) in out.loss_values().unwrap().iter().zip(want.loss_values().unwrap()) {
                    assert!((f64::from(*got) - want).abs() <= 3e-6 * want.abs() + 1e-6, "{what}: {got}, want {want}");
                }
                let got = out.grad("input").unwrap().to_vec().unwrap();
                assert_grads(&what, &got, want.grad("input").unwrap(), cols);
            }
        }
    }
}

#[test]
fn words_that_rows_of_two_chunks_share() {
    let Some(ctx) = small() else { return };
    let (rows, cols) = (300, 1001);
    let x: Vec<bf16> = random(rows * cols, 5).iter().map(|v| bf16::from_f32(*v)).collect();
    let x32: Vec<f32> = x.iter().map(|v| v.to_f32()).collect();
    let y: Vec<i32> = (0..rows).map(|r| (r * 7919 % cols) as i32).collect();
    let host = [("input", HostTensor::f32(&x32, &[rows, cols])), ("target", HostTensor::i32(&y, &[rows]))];
    let want = cpu::forward_backward(&losses::cross_entropy(), &host, &["input"]).unwrap();
    let ys = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
    for mode in [GradMode::Write, GradMode::InPlace] {
        let xs = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
        let inputs = [("input", &xs), ("target", &ys)];
        let out = losses::cross_entropy().run(ctx, &inputs, &PlanSpec::new().grad_mode("input", mode)).unwrap();
        let got: Vec<bf16> = out.grad("input").unwrap().to_vec().unwrap();
        for (k, (got, want)) in got.iter().zip(want.grad("input").unwrap()).enumerate() {
            let off = (f64::from(got.to_f32()) - want).abs();
            assert!(off <= want.abs() / 255.0 + 1e-8, "{mode:?} element {k}: got {got}, want {want}");
        }
    }
}

#[test]
fn elements_and_other_axes_are_cut_as_well() {
    let Some(ctx) = small() else { return };
    let check = |loss: &Loss, shape: &[usize], target: &[usize]| {
        let (x, t) = (random(shape.iter().product(), 7), random(target.iter().product(), 8));
        let host = [("input", HostTensor::f32(&x, shape)), ("target", HostTensor::f32(&t, target))];
        let want = cpu::forward_backward(loss, &host, &["input"]).unwrap();
        let (xs, ts) = (Tensor::from_slice(ctx, &x, shape).unwrap(), Tensor::from_slice(ctx, &t, target).unwrap());
        let out = loss.forward_backward(ctx, &[("input", &xs), ("target", &ts)]).unwrap();
        let (got, expected) = (f64::from(out.loss().unwrap()), want.loss().unwrap());
        let what = format!("{} {shape:?}", loss.name());
        assert!((got - expected).abs() <= 2e-6 * expected.abs(), "{what}: {got}, want {expected}");
        assert_grads(&what, &out.grad("input").unwrap().to_vec().unwrap(), want.grad("input").unwrap(), x.len());
    };
    for loss in [losses::mse(), losses::rmse(), losses::huber(0.7).into()].map(|loss: Loss| loss.broadcast(true)) {
        check(&loss, &[100_003], &[100_003]);
        check(&loss, &[200, 12, 31], &[12, 1]);
    }
    // Classes at axis 1, cut between samples.
    let shape = [40, 21, 60];
    let x = random(40 * 21 * 60, 9);
    let y: Vec<i32> = (0..40 * 60).map(|k| k % 21).collect();
    let host = [("input", HostTensor::f32(&x, &shape)), ("target", HostTensor::i32(&y, &[40, 60]))];
    let want = cpu::forward_backward(&losses::cross_entropy(), &host, &["input"]).unwrap();
    let xs = Tensor::from_slice(ctx, &x, &shape).unwrap();
    let ys = Tensor::from_slice(ctx, &y, &[40, 60]).unwrap();
    let out = losses::cross_entropy().forward_backward(ctx, &[("input", &xs), ("target", &ys)]).unwrap();
    assert!((f64::from(out.loss().unwrap()) - want.loss().unwrap()).abs() < 1e-5);
    assert_grads("axis 1", &out.grad("input").unwrap().to_vec().unwrap(), want.grad("input").unwrap(), x.len());
}

#[test]
fn a_bad_label_of_a_later_chunk_names_its_row() {
    let Some(ctx) = small() else { return };
    let (rows, cols) = (100, 1001);
    let xs = Tensor::from_slice(ctx, &random(rows * cols, 3), &[rows, cols]).unwrap();
    let y: Vec<i32> = (0..rows).map(|r| if r == 77 { 5000 } else { r as i32 }).collect();
    let ys = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
    let out = losses::cross_entropy().forward_backward(ctx, &[("input", &xs), ("target", &ys)]).unwrap();
    assert_eq!(out.loss().unwrap_err(), wgloss::Error::LabelOutOfRange { row: 77, label: 5000, classes: 1001 });
}

#[test]
fn ten_million_rows_of_two_columns() {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (10_000_000, 2);
    let x = random(rows * cols, 17);
    let y: Vec<i32> = (0..rows).map(|r| (r % 2) as i32).collect();
    let host = [("input", HostTensor::f32(&x, &[rows, cols])), ("target", HostTensor::i32(&y, &[rows]))];
    let want = cpu::forward_backward(&losses::cross_entropy(), &host, &["input"]).unwrap();
    let xs = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
    let ys = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
    let out = losses::cross_entropy().forward_backward(ctx, &[("input", &xs), ("target", &ys)]).unwrap();
    let (got, expected) = (f64::from(out.loss().unwrap()), want.loss().unwrap());
    assert!((got - expected).abs() <= 2e-6 * expected, "{got}, want {expected}");
    assert_grads("10^7 rows", &out.grad("input").unwrap().to_vec().unwrap(), want.grad("input").unwrap(), cols);
}

#[test]
fn three_hundred_mebibytes_of_logits() {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (2400, 32768);
    let bytes = (rows * cols * 4) as u64;
    if bytes > ctx.limits().buffer_bytes {
        eprintln!("skipped: a buffer holds {} bytes here, {bytes} are needed", ctx.limits().buffer_bytes);
        return;
    }
    let x = random(rows * cols, 13);
    let y: Vec<i32> = (0..rows).map(|r| (r * 7919 % cols) as i32).collect();
    let host = [("input", HostTensor::f32(&x, &[rows, cols])), ("target", HostTensor::i32(&y, &[rows]))];
    let want = cpu::forward_backward(&losses::cross_entropy(), &host, &["input"]).unwrap();
    let xs = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
    let ys = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
    let spec = PlanSpec::new().input("input", DType::F32, &[rows, cols]).input("target", DType::I32, &[rows]);
    let plan = ctx.plan(&losses::cross_entropy(), &spec.grad_mode("input", GradMode::InPlace)).unwrap();
    let bound = plan.bind(&Bindings::new().input("input", &xs).input("target", &ys)).unwrap();
    bound.submit().unwrap();
    let (got, expected) = (f64::from(bound.read_loss().unwrap()), want.loss().unwrap());
    assert!((got - expected).abs() <= 2e-6 * expected, "{got}, want {expected}");
    assert_grads("300 MiB", &xs.to_vec().unwrap(), want.grad("input").unwrap(), cols);
}

/// One loss whose rows no binding holds, on a device with bindings of 64 KiB: 16,384 columns of 32 bits.
fn rows_in_parts<T: Element>(ctx: &Context, loss: &Loss, weighted: bool, narrow: fn(f32) -> T, widen: fn(T) -> f32) {
    // 50,257: no multiple of anything; 49,152: three bindings but for what alignment takes.
    for (rows, cols) in [(3, 50_257), (2, 49_152)] {
        let stored: Vec<T> = random(rows * cols, 3).into_iter().map(narrow).collect();
        let x: Vec<f32> = stored.iter().map(|v| widen(*v)).collect();
        let ignores = loss.name() == "cross_entropy";
        let y: Vec<i32> = (0..rows).map(|r| if r == 1 && ignores { -100 } else { (r * 20_011) as i32 }).collect();
        let w: Vec<f32> = random(cols, 4).iter().map(|v| v.abs()).collect();
        let mut host = vec![("input", HostTensor::f32(&x, &[rows, cols])), ("target", HostTensor::i32(&y, &[rows]))];
        host.extend(weighted.then(|| ("weight", HostTensor::f32(&w, &[cols]))));
        let want = cpu::forward_backward(loss, &host, &["input"]).unwrap();
        let ys = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
        let ws = Tensor::from_slice(ctx, &w, &[cols]).unwrap();
        for mode in [GradMode::Write, GradMode::InPlace] {
            let xs = Tensor::from_slice(ctx, &stored, &[rows, cols]).unwrap();
            let mut inputs = vec![("input", &xs), ("target", &ys)];
            inputs.extend(weighted.then_some(("weight", &ws)));
            let out = loss.run(ctx, &inputs, &PlanSpec::new().grad_mode("input", mode)).unwrap();
            let what = format!("{} {} [{rows}, {cols}] {mode:?}", loss.name(), T::DTYPE);
            for (got, want) in out.loss_values().unwrap().iter().zip(want.loss_values().unwrap()) {
                assert!((f64::from(*got) - want).abs() <= 3e-6 * want.abs() + 1e-6, "{what}: {got}, want {want}");
            }
            let got: Vec<f32> = out.grad("input").unwrap().to_vec::<T>().unwrap().into_iter().map(widen).collect();
            let want = want.grad("input").unwrap();
            if T::DTYPE == DType::F32 {
                assert_grads(&what, &got, want, cols);
                continue;
            }
            for (k, (got, want)) in got.iter().zip(want).enumerate() {
                let off = (f64::from(*got) - want).abs();
                assert!(off <= want.abs() / 255.0 + 1e-8, "{what} element {k}: got {got}, want {want}");
            }
        }
    }
}

#[test]
fn rows_larger_than_a_binding_are_cut_as_well() {
    let Some(ctx) = small() else { return };
    let ce = losses::cross_entropy;
    for loss in [ce(), ce().reduction(Reduction::None), ce().label_smoothing(0.1).entropy_bonus(0.1)] {
        rows_in_parts::<f32>(ctx, &loss, false, |x| x, |x| x);
        rows_in_parts::<bf16>(ctx, &loss, false, bf16::from_f32, bf16::to_f32);
    }
    rows_in_parts::<f32>(ctx, &ce(), true, |x| x, |x| x);
    rows_in_parts::<f32>(ctx, &losses::multiclass_focal(), false, |x| x, |x| x);
}

#[test]
fn classes_at_axis_1_are_cut_between_classes() {
    let Some(ctx) = small() else { return };
    // One sample of 150 classes, of which a binding holds 64 and some more.
    let (classes, pixels) = (150, 200);
    let shape = [1, classes, pixels];
    let x = random(classes * pixels, 3);
    let y: Vec<i32> = (0..pixels).map(|p| (p * 7 % classes) as i32).collect();
    let host = [("input", HostTensor::f32(&x, &shape)), ("target", HostTensor::i32(&y, &[1, pixels]))];
    let want = cpu::forward_backward(&losses::cross_entropy(), &host, &["input"]).unwrap();
    let xs = Tensor::from_slice(ctx, &x, &shape).unwrap();
    let ys = Tensor::from_slice(ctx, &y, &[1, pixels]).unwrap();
    let out = losses::cross_entropy().forward_backward(ctx, &[("input", &xs), ("target", &ys)]).unwrap();
    assert!((f64::from(out.loss().unwrap()) - want.loss().unwrap()).abs() < 1e-5);
    assert_grads("axis 1", &out.grad("input").unwrap().to_vec().unwrap(), want.grad("input").unwrap(), x.len());
    let dispatches = out.bound().explain().lines().filter(|line| line.contains("chunks")).count();
    assert!(dispatches > 0, "{}", out.bound().explain());
}

#[test]
fn a_column_of_more_rows_than_a_binding_holds_is_an_error() {
    let Some(ctx) = small() else { return };
    // One sample of 30,000 pixels, classes at axis 1: not even one class of them fits beside another.
    let xs = Tensor::zeros(ctx, DType::F32, &[1, 4, 30_000]).unwrap();
    let ys = Tensor::zeros(ctx, DType::I32, &[1, 30_000]).unwrap();
    let result = losses::cross_entropy().forward_backward(ctx, &[("input", &xs), ("target", &ys)]);
    assert!(matches!(result, Err(wgloss::Error::Limit { .. })), "{result:?}");
}
