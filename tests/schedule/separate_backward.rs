//! Forward and backward apart: a loss, then whatever the caller computes, then its gradient for that upstream.

use crate::common::compare::{assert_grads, mismatch, random};
use crate::common::context;
use half::bf16;
use wgloss::{Bindings, Bound, Context, Error, GradMode, HostTensor, Loss, PlanSpec, Reduction, Tensor, cpu, losses};
use wgloss::{Kernel, Pinned};
use wgloss::{Upstream, Wanted};

fn submit(ctx: &Context, record: impl FnOnce(&mut wgpu::CommandEncoder) -> wgloss::Result<()>) {
    let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    record(&mut encoder).unwrap();
    ctx.queue().submit([encoder.finish()]);
}

fn forward(ctx: &Context, bound: &Bound) {
    submit(ctx, |encoder| bound.encode_forward(encoder));
}

fn backward(ctx: &Context, bound: &Bound) {
    submit(ctx, |encoder| bound.encode_backward(encoder));
}

#[test]
fn the_upstream_may_be_made_of_the_loss() {
    let Some(ctx) = context() else { return };
    // 12: rows of one lane; 1000: resident; 5003: streamed by any kernel.
    for (rows, cols) in [(7, 12), (6, 1000), (5, 5003)] {
        let x = random(rows * cols, 3);
        let y: Vec<i32> = (0..rows).map(|r| if r == 2 { -100 } else { (r * 7919 % cols) as i32 }).collect();
        let up = random(rows, 9);
        let shapes = [&[rows, cols][..], &[rows]];
        let host = [
            ("input", HostTensor::f32(&x, shapes[0])),
            ("target", HostTensor::i32(&y, shapes[1])),
            ("upstream", HostTensor::f32(&up, shapes[1])),
        ];
        let loss = losses::cross_entropy().reduction(Reduction::None).label_smoothing(0.1);
        let grads = vec!["input".to_owned()];
        let wanted = Wanted { loss: true, grads, upstream: Upstream::PerLoss, ..Wanted::default() };
        let want = cpu::run::<f64>(&loss, &host, &wanted).unwrap();
        for kernel in
            [None, Some(Kernel::Row), Some(Kernel::RowSplit { splits: 1 }), Some(Kernel::RowSplit { splits: 3 })]
        {
            for mode in [GradMode::Write, GradMode::InPlace] {
                // A row cannot be shared while its gathered input is overwritten.
                if mode == GradMode::InPlace && matches!(kernel, Some(Kernel::RowSplit { .. })) {
                    continue;
                }
                let what = format!("[{rows}, {cols}] {kernel:?} {mode:?}");
                let (xs, ys) = (Tensor::from_slice(ctx, &x, shapes[0]), Tensor::from_slice(ctx, &y, shapes[1]));
                let (xs, ys) = (xs.unwrap(), ys.unwrap());
                let ups = Tensor::zeros(ctx, wgloss::DType::F32, shapes[1]).unwrap();
                let inputs = [("input", &xs), ("target", &ys), ("upstream", &ups)];
                let pinned = Pinned { kernel, ..Pinned::default() };
                let spec = PlanSpec::new().like(&inputs).grad_mode("input", mode).upstream(Upstream::PerLoss);
                let plan = ctx.plan(&loss, &spec.separate_backward().pin(pinned)).unwrap();
                let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
                forward(ctx, &bound);
                let got: Vec<f64> = bound.loss().unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
                assert_eq!(mismatch(&got, want.loss_values().unwrap(), 2e-6, |_| 1e-6), None, "{what}");
                assert_eq!(xs.to_vec::<f32>().unwrap(), x, "{what}: the forward part writes no gradient");
                ups.write(ctx, &up).unwrap();
                backward(ctx, &bound);
                let got = bound.grad("input").unwrap().to_vec().unwrap();
                assert_grads(&what, &got, want.grad("input").unwrap(), cols);
            }
        }
    }
}

/// A row's sums may hold the upstream gradient itself, which is not known yet when the loss is computed.
#[test]
fn the_upstream_is_read_by_the_backward_part() {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (3, 5000);
    let (x, t) = (random(rows * cols, 3), random(rows * cols, 4));
    let t: Vec<f32> = t.iter().map(|t| t.abs() / cols as f32).collect();
    let y: Vec<i32> = (0..rows).map(|r| (r * 7919 % cols) as i32).collect();
    let up = [1.0f32, -2.0, 0.5];
    let losses: [(_, _, Loss); 3] = [
        ("input", None, losses::cross_entropy_prob().into()),
        ("input", Some("target"), losses::cross_entropy().entropy_bonus(0.1).into()),
        ("student_logits", Some("target"), losses::distillation(0.3, 2.0).into()),
    ];
    for (name, label, loss) in losses {
        let loss = loss.reduction(Reduction::None);
        let other = if name == "input" { "target" } else { "teacher_logits" };
        let shape = [rows, cols];
        let mut host = vec![(name, HostTensor::f32(&x, &shape)), ("upstream", HostTensor::f32(&up, &shape[..1]))];
        let elements = label.is_none() || other != "target";
        host.extend(elements.then(|| (other, HostTensor::f32(&t, &shape))));
        host.extend(label.map(|label| (label, HostTensor::i32(&y, &shape[..1]))));
        let grads = vec![name.to_owned()];
        let wanted = Wanted { loss: true, grads, upstream: Upstream::PerLoss, ..Wanted::default() };
        let want = cpu::run::<f64>(&loss, &host, &wanted).unwrap();
        let tensor = |values: &[f32]| Tensor::from_slice(ctx, values, &shape).unwrap();
        let (xs, ts, ys) = (tensor(&x), tensor(&t), Tensor::from_slice(ctx, &y, &shape[..1]).unwrap());
        let ups = Tensor::from_slice(ctx, &[7.0f32; 3], &shape[..1]).unwrap();
        let mut inputs = vec![(name, &xs), ("upstream", &ups)];
        inputs.extend(elements.then_some((other, &ts)));
        inputs.extend(label.map(|label| (label, &ys)));
        for kernel in [Kernel::Row, Kernel::RowSplit { splits: 2 }] {
            let spec = PlanSpec::new().like(&inputs).grad(name).upstream(Upstream::PerLoss).separate_backward();
            let pinned = Pinned { kernel: Some(kernel), ..Pinned::default() };
            let plan = ctx.plan(&loss, &spec.pin(pinned)).unwrap();
            let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
            ups.write(ctx, &[7.0f32; 3]).unwrap();
            forward(ctx, &bound);
            ups.write(ctx, &up).unwrap();
            backward(ctx, &bound);
            let got = bound.grad(name).unwrap().to_vec().unwrap();
            assert_grads(&format!("{} {kernel:?}", loss.name()), &got, want.grad(name).unwrap(), cols);
        }
    }
}

#[test]
fn a_gradient_that_settles_leaves_the_states_to_the_next_backward() {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (4, 5000);
    let xs = Tensor::from_slice(ctx, &random(rows * cols, 5), &[rows, cols]).unwrap();
    let ys = Tensor::from_slice(ctx, &[1i32, 2, 3, 4], &[rows]).unwrap();
    let w: Vec<bf16> = random(cols, 6).iter().map(|w| bf16::from_f32(w.abs() + 0.1)).collect();
    let ws = Tensor::from_slice(ctx, &w, &[cols]).unwrap();
    let inputs = [("input", &xs), ("target", &ys), ("weight", &ws)];
    let pinned = Pinned { kernel: Some(Kernel::RowSplit { splits: 2 }), ..Pinned::default() };
    let spec = PlanSpec::new().like(&inputs).grad("input").grad("weight").separate_backward().pin(pinned);
    let bound = ctx.plan(&losses::cross_entropy(), &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
    forward(ctx, &bound);
    let both = || {
        backward(ctx, &bound);
        let d_weight: Vec<bf16> = bound.grad("weight").unwrap().to_vec().unwrap();
        (bound.grad("input").unwrap().to_vec::<f32>().unwrap(), d_weight)
    };
    let first = both();
    assert!(first.0.iter().any(|g| *g != 0.0) && first.1.iter().any(|g| g.to_f32() != 0.0));
    assert!(both() == first, "the second backward finds what the first one found");
}

#[test]
fn the_backward_part_finds_the_states_of_long_rows() {
    let Some(ctx) = context() else { return };
    // Logits that grow by ln 2 in between: with the states kept, every probability doubles.
    let (rows, cols) = (4, 5000);
    let x = random(rows * cols, 5);
    let y = [1i32, 2, 3, 4];
    let (xs, ys) = (Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap(), Tensor::from_slice(ctx, &y, &[rows]).unwrap());
    let inputs = [("input", &xs), ("target", &ys)];
    let pinned = Pinned { kernel: Some(Kernel::RowSplit { splits: 2 }), ..Pinned::default() };
    let loss = losses::cross_entropy().reduction(Reduction::Sum);
    let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("input").separate_backward().pin(pinned)).unwrap();
    // Two bound plans of one plan keep their own states.
    let other = Tensor::from_slice(ctx, &random(rows * cols, 6), &[rows, cols]).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    let second = plan.bind(&Bindings::new().input("input", &other).input("target", &ys)).unwrap();
    forward(ctx, &bound);
    forward(ctx, &second);
    backward(ctx, &bound);
    let before = bound.grad("input").unwrap().to_vec::<f32>().unwrap();
    let grown: Vec<f32> = x.iter().map(|x| x + std::f32::consts::LN_2).collect();
    xs.write(ctx, &grown).unwrap();
    backward(ctx, &bound);
    let after = bound.grad("input").unwrap().to_vec::<f32>().unwrap();
    for (k, (before, after)) in before.iter().zip(&after).enumerate() {
        if k % cols != y[k / cols] as usize {
            assert!((after - 2.0 * before).abs() <= 4e-6 * before.abs(), "{k}: {before} and {after}");
        }
    }
}

#[test]
fn other_losses_come_apart_as_well() {
    let Some(ctx) = context() else { return };
    let check = |loss: Loss, names: [&str; 2], shape: &[usize]| {
        let count = shape.iter().product();
        let (a, b) = (random(count, 1), random(count, 2));
        let host = [(names[0], HostTensor::f32(&a, shape)), (names[1], HostTensor::f32(&b, shape))];
        let want = cpu::forward_backward(&loss, &host, &names).unwrap();
        let (a, b) = (Tensor::from_slice(ctx, &a, shape).unwrap(), Tensor::from_slice(ctx, &b, shape).unwrap());
        let inputs = [(names[0], &a), (names[1], &b)];
        let spec = names.iter().fold(PlanSpec::new().like(&inputs), |spec, name| spec.grad(name));
        let bound = ctx.plan(&loss, &spec.separate_backward()).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
        forward(ctx, &bound);
        let got = f64::from(bound.read_loss().unwrap());
        assert!((got - want.loss().unwrap()).abs() <= 2e-6 * got.abs(), "{}", loss.name());
        for name in names {
            let untouched = bound.grad(name).unwrap().to_vec::<f32>().unwrap();
            assert!(untouched.iter().all(|g| *g == 0.0), "{}: the forward part writes no gradient", loss.name());
        }
        backward(ctx, &bound);
        for name in names {
            let got = bound.grad(name).unwrap().to_vec().unwrap();
            assert_grads(&format!("{} {name}", loss.name()), &got, want.grad(name).unwrap(), got.len());
        }
    };
    check(losses::mse(), ["input", "target"], &[1000]);
    check(losses::rmse(), ["input", "target"], &[33, 5]);
    check(losses::cross_entropy_prob().into(), ["input", "target"], &[5, 300]);
}

#[test]
fn a_plan_made_in_one_has_no_parts() {
    let Some(ctx) = context() else { return };
    let x = Tensor::from_slice(ctx, &[1.0f32, 2.0], &[2]).unwrap();
    let inputs = [("input", &x), ("target", &x)];
    let bound = ctx.plan(&losses::mse(), &PlanSpec::new().like(&inputs)).unwrap();
    let bound = bound.bind(&Bindings::new().inputs(&inputs)).unwrap();
    let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    assert!(matches!(bound.encode_forward(&mut encoder), Err(Error::Unsupported { .. })));
    assert!(matches!(bound.encode_backward(&mut encoder), Err(Error::Unsupported { .. })));
    assert_eq!(bound.exchanges(), 0);
}
