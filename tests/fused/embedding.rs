//! A loss inside somebody else's loop: modes of gradients, upstreams, task weights, several steps in one submit.

use crate::common::context;
use wgloss::Upstream;
use wgloss::{Bindings, Context, DType, Error, GradMode, PlanSpec, Reduction, Tensor, losses};
use wgloss::{Kernel, Pinned};

const ROWS: usize = 6;
const COLS: usize = 12;

fn logits(rows: usize) -> Vec<f32> {
    (0..rows * COLS).map(|k| ((k * 37 % 23) as f32 - 11.0) / 4.0).collect()
}

fn labels(rows: usize) -> Vec<i32> {
    (0..rows).map(|row| (row * 5 % COLS) as i32).collect()
}

struct Batch {
    logits: Tensor,
    labels: Tensor,
}

fn batch(ctx: &Context, rows: usize) -> Batch {
    Batch {
        logits: Tensor::from_slice(ctx, &logits(rows), &[rows, COLS]).unwrap(),
        labels: Tensor::from_slice(ctx, &labels(rows), &[rows]).unwrap(),
    }
}

impl Batch {
    fn spec(&self) -> PlanSpec {
        PlanSpec::new().like(&self.inputs())
    }

    fn inputs(&self) -> [(&'static str, &Tensor); 2] {
        [("input", &self.logits), ("target", &self.labels)]
    }
}

/// Textbook gradient of the mean cross entropy.
fn expected_grad(rows: usize) -> Vec<f32> {
    let (x, y) = (logits(rows), labels(rows));
    let mut grad = Vec::new();
    for row in 0..rows {
        let x = &x[row * COLS..][..COLS];
        let max = x.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = x.iter().map(|v| f64::from(v - max).exp()).sum();
        for (col, v) in x.iter().enumerate() {
            let p = f64::from(v - max).exp() / sum;
            grad.push(((p - f64::from(u8::from(col as i32 == y[row]))) / rows as f64) as f32);
        }
    }
    grad
}

#[track_caller]
fn assert_close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (k, (got, want)) in got.iter().zip(want).enumerate() {
        let close = (got - want).abs() <= 1e-6 + 2e-6 * want.abs();
        assert!(close, "element {k}: got {got}, want {want}");
    }
}

fn scaled(values: &[f32], by: f32) -> Vec<f32> {
    values.iter().map(|v| v * by).collect()
}

#[test]
fn in_place_gradient_replaces_the_logits_under_every_kernel() {
    let Some(ctx) = context() else { return };
    for kernel in [Kernel::Row, Kernel::RowResident { trips: 1 }] {
        for width in [1, 4] {
            let b = batch(ctx, ROWS);
            let pinned = Pinned { kernel: Some(kernel), width: Some(width), ..Pinned::default() };
            let spec = b.spec().grad_mode("input", GradMode::InPlace).pin(pinned);
            let plan = ctx.plan(&losses::cross_entropy(), &spec).unwrap();
            let bound = plan.bind(&Bindings::new().inputs(&b.inputs())).unwrap();
            bound.submit().unwrap();
            assert_close(&b.logits.to_vec::<f32>().unwrap(), &expected_grad(ROWS));
        }
    }
}

#[test]
fn accumulated_gradient_is_added_to_what_was_there() {
    let Some(ctx) = context() else { return };
    let b = batch(ctx, ROWS);
    let before: Vec<f32> = (0..ROWS * COLS).map(|k| k as f32 / 64.0).collect();
    let grad = Tensor::from_slice(ctx, &before, &[ROWS, COLS]).unwrap();
    let plan = ctx.plan(&losses::cross_entropy(), &b.spec().grad_mode("input", GradMode::Accumulate)).unwrap();
    let bindings = Bindings::new().inputs(&b.inputs());
    assert!(matches!(plan.bind(&bindings), Err(Error::Name { .. })), "it must be bound");
    let bound = plan.bind(&bindings.grad("input", &grad)).unwrap();
    bound.submit().unwrap();
    bound.submit().unwrap();
    let want: Vec<f32> = before.iter().zip(expected_grad(ROWS)).map(|(b, g)| b + 2.0 * g).collect();
    assert_close(&grad.to_vec::<f32>().unwrap(), &want);
}

#[test]
fn upstream_scalar_multiplies_the_gradient_and_may_change_every_step() {
    let Some(ctx) = context() else { return };
    let b = batch(ctx, ROWS);
    let plan = ctx.plan(&losses::cross_entropy(), &b.spec().grad("input").upstream(Upstream::Scalar)).unwrap();
    let upstream = Tensor::from_slice(ctx, &[0.0f32], &[]).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&b.inputs()).input("upstream", &upstream)).unwrap();
    for value in [0.0f32, 1.0, 3.7] {
        upstream.write(ctx, &[value]).unwrap();
        bound.submit().unwrap();
        let got = bound.grad("input").unwrap().to_vec::<f32>().unwrap();
        assert_close(&got, &scaled(&expected_grad(ROWS), value));
    }
}

#[test]
fn upstream_per_row_weights_each_row() {
    let Some(ctx) = context() else { return };
    let b = batch(ctx, ROWS);
    let loss = losses::cross_entropy().reduction(Reduction::None);
    let spec = b.spec().grad("input").without_loss().upstream(Upstream::PerLoss);
    let plan = ctx.plan(&loss, &spec).unwrap();
    let weights: Vec<f32> = (0..ROWS).map(|row| row as f32 - 2.5).collect();
    let upstream = Tensor::from_slice(ctx, &weights, &[ROWS]).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&b.inputs()).input("upstream", &upstream)).unwrap();
    bound.submit().unwrap();
    let mean = expected_grad(ROWS);
    let want: Vec<f32> = (0..ROWS * COLS).map(|k| mean[k] * ROWS as f32 * weights[k / COLS]).collect();
    assert_close(&bound.grad("input").unwrap().to_vec::<f32>().unwrap(), &want);
    let mean = losses::cross_entropy();
    assert!(matches!(ctx.plan(&mean, &b.spec().grad("input").upstream(Upstream::PerLoss)), Err(Error::Expr { .. })));
}

#[test]
fn tasks_add_into_one_scalar_with_weights_on_the_gpu() {
    let Some(ctx) = context() else { return };
    let b = batch(ctx, ROWS);
    let x = Tensor::from_slice(ctx, &[1.0f32, 2.0, 4.0], &[3]).unwrap();
    let t = Tensor::from_slice(ctx, &[0.0f32, 2.0, 1.0], &[3]).unwrap();
    let total = Tensor::zeros(ctx, DType::F32, &[]).unwrap();
    let weight = Tensor::from_slice(ctx, &[1.0f32], &[]).unwrap();
    let ce = ctx.plan(&losses::cross_entropy(), &b.spec()).unwrap();
    let ce = ce.bind(&Bindings::new().inputs(&b.inputs()).loss(&total)).unwrap();
    let regression = [("input", &x), ("target", &t), ("task", &weight)];
    let mse = losses::mse().scaled_by("task");
    let mse = ctx.plan(&mse, &PlanSpec::new().like(&regression).grad("input").accumulate_loss()).unwrap();
    let mse = mse.bind(&Bindings::new().inputs(&regression).loss(&total)).unwrap();
    let alone = {
        ce.submit().unwrap();
        total.to_vec::<f32>().unwrap()[0]
    };
    for task in [1.0f32, 0.25, 0.0] {
        weight.write(ctx, &[task]).unwrap();
        let mut encoder = ctx.device().create_command_encoder(&Default::default());
        ce.encode(&mut encoder).unwrap();
        mse.encode(&mut encoder).unwrap();
        ctx.queue().submit([encoder.finish()]);
        let want = alone + task * (1.0 + 0.0 + 9.0) / 3.0;
        assert_close(&total.to_vec::<f32>().unwrap(), &[want]);
        let grad = mse.grad("input").unwrap().to_vec::<f32>().unwrap();
        assert_close(&grad, &scaled(&[2.0 / 3.0, 0.0, 2.0], task));
    }
}

#[test]
fn two_steps_in_one_submit_and_fewer_rows_than_planned() {
    let Some(ctx) = context() else { return };
    let plan_for = batch(ctx, ROWS);
    let plan = ctx.plan(&losses::cross_entropy(), &plan_for.spec().grad("input")).unwrap();
    let (full, part) = (batch(ctx, ROWS), batch(ctx, 4));
    let full = plan.bind(&Bindings::new().inputs(&full.inputs())).unwrap();
    let part = plan.bind(&Bindings::new().inputs(&part.inputs())).unwrap();
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    full.encode(&mut encoder).unwrap();
    part.encode(&mut encoder).unwrap();
    ctx.queue().submit([encoder.finish()]);
    assert_close(&full.grad("input").unwrap().to_vec::<f32>().unwrap(), &expected_grad(ROWS));
    assert_close(&part.grad("input").unwrap().to_vec::<f32>().unwrap(), &expected_grad(4));
    let more = batch(ctx, ROWS + 1);
    assert!(matches!(plan.bind(&Bindings::new().inputs(&more.inputs())), Err(Error::Shape { .. })));
}

#[test]
fn a_shared_device_and_pooled_buffers_work() {
    let Some(ctx) = context() else { return };
    let theirs = Context::from_wgpu(ctx.device().clone(), ctx.queue().clone(), None).unwrap();
    // Logits, gradient and loss in one buffer, at offsets that no device aligns to.
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 4096, usage, mapped_at_creation: false };
    let pool = theirs.device().create_buffer(&descriptor);
    let at =
        |first: u64, shape: &[usize]| Tensor::from_buffer(&theirs, pool.clone(), first, DType::F32, shape).unwrap();
    let (x, grad, loss) = (at(3, &[ROWS, COLS]), at(101, &[ROWS, COLS]), at(200, &[]));
    x.write(&theirs, &logits(ROWS)).unwrap();
    let y = Tensor::from_slice(&theirs, &labels(ROWS), &[ROWS]).unwrap();
    let inputs = [("input", &x), ("target", &y)];
    let plan = theirs.plan(&losses::cross_entropy(), &PlanSpec::new().like(&inputs).grad("input")).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs).grad("input", &grad).loss(&loss)).unwrap();
    bound.submit().unwrap();
    assert_close(&pollster::block_on(grad.read::<f32>(&theirs)).unwrap(), &expected_grad(ROWS));
    assert_close(&pollster::block_on(x.read::<f32>(&theirs)).unwrap(), &logits(ROWS));
    let overlapping = at(60, &[ROWS, COLS]);
    let bindings = Bindings::new().inputs(&inputs).grad("input", &overlapping);
    assert!(matches!(plan.bind(&bindings), Err(Error::Alias { .. })));
}

#[test]
fn the_same_plan_gives_the_same_bits() {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (37, 1003);
    let x: Vec<f32> = (0..rows * cols).map(|k| ((k * 7919 % 1000) as f32) / 97.0).collect();
    let y: Vec<i32> = (0..rows).map(|row| (row * 31 % cols) as i32).collect();
    let x = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
    let y = Tensor::from_slice(ctx, &y, &[rows]).unwrap();
    let inputs = [("input", &x), ("target", &y)];
    let run = || {
        let out = losses::cross_entropy().label_smoothing(0.1).forward_backward(ctx, &inputs).unwrap();
        let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        (bits(out.loss_values().unwrap()), bits(out.grad("input").unwrap().to_vec().unwrap()))
    };
    let first = run();
    for _ in 0..3 {
        assert_eq!(first, run());
    }
}

#[test]
fn set_param_takes_effect_with_the_next_submit() {
    let Some(ctx) = context() else { return };
    let x = Tensor::from_slice(ctx, &[3.0f32], &[1]).unwrap();
    let t = Tensor::from_slice(ctx, &[0.0f32], &[1]).unwrap();
    let inputs = [("input", &x), ("target", &t)];
    let plan = ctx.plan(&losses::huber(1.0), &PlanSpec::new().like(&inputs).grad("input")).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    for (delta, want) in [(1.0, 2.5), (2.0, 4.0), (5.0, 4.5)] {
        bound.set_param("delta", delta).unwrap();
        bound.submit().unwrap();
        assert_close(&[bound.read_loss().unwrap()], &[want]);
    }
    assert!(matches!(bound.set_param("delta", -1.0), Err(Error::Param { .. })));
    assert!(matches!(bound.set_param("gamma", 1.0), Err(Error::Name { .. })));
    // Special values: from a plan for any value, not from theirs.
    let smooth = |beta: f64| {
        let plan = ctx.plan(&losses::smooth_l1(beta), &PlanSpec::new().like(&inputs)).unwrap();
        plan.bind(&Bindings::new().inputs(&inputs)).unwrap()
    };
    let any = smooth(1.0);
    any.set_param("beta", 0.0).unwrap();
    any.submit().unwrap();
    assert_close(&[any.read_loss().unwrap()], &[3.0]);
    assert!(matches!(smooth(0.0).set_param("beta", 1.0), Err(Error::Param { .. })), "beta = 0 is another kernel");
}
