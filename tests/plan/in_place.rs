//! Gradients in place of inputs that a whole row reads: its own value, or elements that labels choose.

use crate::common::compare::{mismatch, random};
use crate::common::context;
use half::bf16;
use wgloss::{Bindings, Context, GradMode, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, cpu, losses};
use wgloss::{Kernel, Pinned};

/// `(x·r + r)²` over the row, times what a second reduction finds: elements and the row both need `r`.
fn scaled() -> Loss {
    let loss = Loss::define("scaled").input("input", Scope::Element).input("r", Scope::Row).row_axis(RowAxis::Class);
    loss.expr(|b| {
        let (x, r) = (b.input("input"), b.input("r"));
        let scaled = x * r + r;
        (scaled * scaled).mean() * (x * 0.5).max()
    })
}

/// An input that is a number: name, values, shape, and where its gradient goes.
type Number<'a> = (&'a str, &'a [f32], &'a [usize], GradMode);

/// Loss and gradients of all numbers against the CPU's f64 path.
fn check(ctx: &Context, loss: &Loss, numbers: &[Number<'_>], labels: Option<(&[i32], &[usize])>, pinned: Pinned) {
    let mut host: Vec<(&str, HostTensor<'_>)> =
        numbers.iter().map(|(name, values, shape, _)| (*name, HostTensor::f32(values, shape))).collect();
    let mut tensors: Vec<(&str, Tensor)> = Vec::new();
    for (name, values, shape, _) in numbers {
        tensors.push((name, Tensor::from_slice(ctx, values, shape).unwrap()));
    }
    if let Some((labels, shape)) = labels {
        host.push(("target", HostTensor::i32(labels, shape)));
        tensors.push(("target", Tensor::from_slice(ctx, labels, shape).unwrap()));
    }
    let grads: Vec<&str> = numbers.iter().map(|number| number.0).collect();
    let want = cpu::forward_backward(loss, &host, &grads).unwrap();
    let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let spec = PlanSpec::new().pin(pinned).like(&inputs);
    let spec = numbers.iter().fold(spec, |spec, (name, _, _, mode)| spec.grad_mode(name, *mode));
    let what = format!("{} {:?} {pinned:?}", loss.name(), numbers[0].2);
    let plan = ctx.plan(loss, &spec).unwrap_or_else(|error| panic!("{what}: {error}"));
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    let (got, wanted) = (f64::from(bound.read_loss().unwrap()), want.loss_values().unwrap()[0]);
    assert!((got - wanted).abs() <= 3e-6 * wanted.abs() + 1e-6, "{what}: loss {got}, want {wanted}");
    for name in grads {
        let got = bound.grad(name).unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect::<Vec<_>>();
        let want = want.grad(name).unwrap();
        let most = want.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        if let Some(worst) = mismatch(&got, want, 3e-6, |_| 2e-6 * most) {
            panic!("{what}: {name}{worst}");
        }
    }
}

fn labels(rows: usize, cols: usize) -> Vec<i32> {
    (0..rows).map(|row| (row * 7919 % cols) as i32).collect()
}

fn weights(rows: usize, seed: u32) -> Vec<f32> {
    random(rows, seed).iter().map(|w| w.abs() + 0.5).collect()
}

/// Cross-entropy with the gradients of logits and sample weights, and `scaled`, of rows.
fn check_rows(ctx: &Context, [rows, cols]: [usize; 2], input: GradMode, pinned: Pinned) {
    let (x, w, y) = (random(rows * cols, 3), weights(rows, 4), labels(rows, cols));
    let shape = [rows, cols];
    let of = |name| [("input", &x[..], &shape[..], input), (name, &w[..], &shape[..1], GradMode::InPlace)];
    check(ctx, &losses::cross_entropy(), &of("sample_weight"), Some((&y, &[rows])), pinned);
    check(ctx, &scaled(), &of("r"), None, pinned);
}

#[test]
fn a_row_that_is_shared_reads_its_value_before_the_gradient_takes_its_place() {
    let Some(ctx) = context() else { return };
    // The issue's shape, and one whose windows begin anywhere: such a row is shared by default.
    check_rows(ctx, [1, 70_000], GradMode::Write, Pinned::default());
    check_rows(ctx, [1, 140_001], GradMode::Write, Pinned::default());
}

#[test]
fn every_kernel_reads_a_row_before_gradients_take_its_place() {
    let Some(ctx) = context() else { return };
    let kernels =
        [Kernel::Row, Kernel::RowResident { trips: 0 }, Kernel::RowSplit { splits: 1 }, Kernel::RowSplit { splits: 4 }];
    for kernel in kernels {
        for (lanes, width) in [(1, None), (8, Some(1)), (64, None)] {
            let is_split = matches!(kernel, Kernel::RowSplit { .. });
            let (workgroup, lanes) = (Some(64), Some(if is_split { 64 } else { lanes }));
            let pinned = Pinned { kernel: Some(kernel), workgroup, lanes, width, ..Pinned::default() };
            check_rows(ctx, [70, 97], GradMode::Write, pinned);
            if !is_split {
                check_rows(ctx, [70, 97], GradMode::InPlace, pinned);
            }
        }
    }
}

#[test]
fn the_only_row_reads_class_weights_before_their_gradients_take_their_place() {
    let Some(ctx) = context() else { return };
    let cols = 70_000;
    let (x, w) = (random(cols, 5), weights(cols, 6));
    let numbers =
        [("input", &x[..], &[1, cols][..], GradMode::Write), ("weight", &w[..], &[cols][..], GradMode::InPlace)];
    let loss = losses::cross_entropy().reduction(Reduction::Sum);
    check(ctx, &loss, &numbers, Some((&[69_998], &[1])), Pinned::default());
}

#[test]
fn rows_larger_than_a_binding_read_their_value_before_the_gradient_takes_its_place() {
    if context().is_none() {
        return;
    }
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 16, ..wgpu::Limits::default() };
    let ctx = Context::with_limits(limits).unwrap();
    for mode in [GradMode::Write, GradMode::InPlace] {
        check_rows(&ctx, [3, 40_001], mode, Pinned::default());
    }
}

#[test]
fn sixteen_bits_of_a_row_are_read_before_the_gradient_takes_their_place() {
    let Some(ctx) = context() else { return };
    for (rows, cols) in [(1, 70_000), (3, 257)] {
        let (x, y) = (random(rows * cols, 7), labels(rows, cols));
        let w: Vec<f32> = (0..rows).map(|row| 0.5 + row as f32).collect();
        let halves: Vec<bf16> = w.iter().map(|w| bf16::from_f32(*w)).collect();
        let host = [
            ("input", HostTensor::f32(&x, &[rows, cols])),
            ("target", HostTensor::i32(&y, &[rows])),
            ("sample_weight", HostTensor::f32(&w, &[rows])),
        ];
        let want = cpu::forward_backward(&losses::cross_entropy(), &host, &["input", "sample_weight"]).unwrap();
        let (xs, ys) = (Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap(), Tensor::from_slice(ctx, &y, &[rows]));
        let (ys, ws) = (ys.unwrap(), Tensor::from_slice(ctx, &halves, &[rows]).unwrap());
        let inputs = [("input", &xs), ("target", &ys), ("sample_weight", &ws)];
        let spec = PlanSpec::new().grad("input").grad_mode("sample_weight", GradMode::InPlace);
        let out = losses::cross_entropy().run(ctx, &inputs, &spec).unwrap();
        let got: Vec<f64> = out.grad("input").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
        let want_x = want.grad("input").unwrap();
        let most = want_x.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        assert_eq!(mismatch(&got, want_x, 1e-6, |_| 2e-6 * most), None, "[{rows}, {cols}]");
        let got = out.grad("sample_weight").unwrap().to_vec::<bf16>().unwrap();
        let got: Vec<f64> = got.into_iter().map(f64::from).collect();
        assert_eq!(mismatch(&got, want.grad("sample_weight").unwrap(), 4e-3, |_| 0.0), None, "[{rows}, {cols}]");
    }
}
