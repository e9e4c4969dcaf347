//! A mean that is 0 where nothing is counted: the loss and every gradient, whatever the rows hold, on every path.

use crate::common::compare::random;
use crate::common::context;
use wgloss::{
    Bindings, Context, Error, HostTensor, Loss, PlanSpec, Reduction, Scope, Tensor, Upstream, Wanted, cpu, losses,
};

const ROWS: usize = 3;

/// An input: its name, and numbers with a shape. Labels are numbers of the name `target`, which are `[ROWS]`.
type Input<'a> = (&'a str, &'a [f32], Vec<usize>);

fn is_labels(loss: &Loss, name: &str) -> bool {
    loss.inputs().iter().any(|input| input.name == name && input.kind == wgloss::Kind::Int)
}

/// Loss and gradients of `grads` on the CPU in f64 and f32, and on the GPU: forward alone, fused, and backward apart.
fn everywhere(loss: &Loss, inputs: &[Input<'_>], grads: &[&str]) -> Vec<(&'static str, f64, Vec<Vec<f64>>)> {
    let labels: Vec<Vec<i32>> = inputs.iter().map(|(_, x, _)| x.iter().map(|x| *x as i32).collect()).collect();
    let host: Vec<(&str, HostTensor<'_>)> = inputs
        .iter()
        .zip(&labels)
        .map(|((name, values, shape), labels)| match is_labels(loss, name) {
            true => (*name, HostTensor::i32(labels, shape)),
            false => (*name, HostTensor::f32(values, shape)),
        })
        .collect();
    let upstream = if inputs.iter().any(|input| input.0 == "upstream") { Upstream::Scalar } else { Upstream::One };
    let names: Vec<String> = grads.iter().map(|name| (*name).to_owned()).collect();
    let wanted = Wanted { loss: true, grads: names, upstream, ..Wanted::default() };
    let double = cpu::run::<f64>(loss, &host, &wanted).unwrap();
    let single = cpu::run::<f32>(loss, &host, &wanted).unwrap();
    let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let mut all = vec![
        ("f64", double.loss().unwrap(), grads.iter().map(|name| double.grad(name).unwrap().to_vec()).collect()),
        ("f32", single.loss().unwrap(), grads.iter().map(|name| wide(single.grad(name).unwrap())).collect()),
    ];
    let Some(ctx) = context() else { return all };
    let tensors: Vec<(&str, Tensor)> = inputs
        .iter()
        .zip(&labels)
        .map(|((name, values, shape), labels)| match is_labels(loss, name) {
            true => (*name, Tensor::from_slice(ctx, labels, shape).unwrap()),
            false => (*name, Tensor::from_slice(ctx, values, shape).unwrap()),
        })
        .collect();
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let alone: Vec<(&str, &Tensor)> = tensors.iter().copied().filter(|input| input.0 != "upstream").collect();
    let out = loss.forward(ctx, &alone).unwrap();
    all.push(("forward alone", f64::from(out.loss().unwrap()), Vec::new()));
    let spec = grads.iter().fold(PlanSpec::new().like(&tensors).upstream(upstream), |spec, name| spec.grad(name));
    for (path, spec) in [("fused", spec.clone()), ("backward apart", spec.separate_backward())] {
        let Ok(plan) = ctx.plan(loss, &spec) else {
            // A gradient that is a sum of the forward pass has no backward apart.
            assert_eq!(path, "backward apart");
            continue;
        };
        let bound = plan.bind(&Bindings::new().inputs(&tensors)).unwrap();
        run(ctx, &bound, path == "fused");
        let found = grads.iter().map(|name| wide(&bound.grad(name).unwrap().to_vec().unwrap())).collect();
        all.push((path, f64::from(bound.read_loss().unwrap()), found));
    }
    all
}

fn run(ctx: &Context, bound: &wgloss::Bound, fused: bool) {
    let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    if fused {
        bound.encode(&mut encoder).unwrap();
    } else {
        bound.encode_forward(&mut encoder).unwrap();
        bound.encode_backward(&mut encoder).unwrap();
    }
    ctx.queue().submit([encoder.finish()]);
}

fn is_zero(loss: &Loss, inputs: &[Input<'_>], grads: &[&str]) {
    for (path, value, found) in everywhere(loss, inputs, grads) {
        assert_eq!(value, 0.0, "{} on {path}", loss.name());
        for (name, grad) in grads.iter().zip(found) {
            assert!(grad.iter().all(|x| *x == 0.0), "{} on {path}: gradient of {name}: {grad:?}", loss.name());
        }
    }
}

fn cross_entropy() -> Loss {
    losses::cross_entropy().reduction(Reduction::MeanOrZero).into()
}

#[test]
fn a_mean_of_nothing_is_zero_whatever_the_rows_hold() {
    // 4: one lane per row; 65, 300: several, with windows that are masked.
    for cols in [4usize, 65, 300] {
        for held in [0.5, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = random(ROWS * cols, 5);
            x[cols + 1] = held;
            x[0] = held;
            let (zeros, weight) = (vec![0.0; ROWS * cols], vec![0.0; cols]);
            let logits = ("input", &x[..], vec![ROWS, cols]);
            let labels = |labels: &'static [f32; ROWS]| ("target", &labels[..], vec![ROWS]);
            is_zero(&cross_entropy(), &[logits.clone(), labels(&[-100.0; ROWS])], &["input"]);
            let class_weight = ("weight", &weight[..], vec![cols]);
            // Σ weight[label] = 0, of labels that count.
            let weighted = [logits.clone(), labels(&[0.0, 1.0, 0.0]), class_weight];
            is_zero(&cross_entropy(), &weighted, &["input", "weight"]);
            let mask = ("mask", &zeros[..ROWS], vec![ROWS]);
            is_zero(&cross_entropy(), &[logits.clone(), labels(&[0.0, 1.0, 0.0]), mask], &["input"]);
            let smooth = losses::cross_entropy().label_smoothing(0.1).reduction(Reduction::MeanOrZero);
            let up = ("upstream", &[f32::NAN][..], vec![]);
            is_zero(&smooth.into(), &[logits.clone(), labels(&[-100.0; ROWS]), up], &["input"]);
            let both = 0.7 * losses::cross_entropy() + 0.3 * losses::z_loss(1e-2);
            is_zero(&both.reduction(Reduction::MeanOrZero), &[logits.clone(), labels(&[-100.0; ROWS])], &["input"]);
            // Element by element.
            let mask = ("mask", &zeros[..], vec![ROWS, cols]);
            let target = ("target", &x[..], vec![ROWS, cols]);
            let mse = losses::mse().reduction(Reduction::MeanOrZero);
            is_zero(&mse, &[logits.clone(), target, mask], &["input", "target"]);
        }
    }
}

#[test]
fn a_mean_of_something_is_the_mean() {
    // Textbook loops: Σ wᵧ (lse − xᵧ) / Σ wᵧ over the labels that count.
    for cols in [4usize, 300] {
        let x = random(ROWS * cols, 5);
        let weight: Vec<f32> = (0..cols).map(|k| if k == 1 { 0.0 } else { 1.0 + (k % 3) as f32 }).collect();
        let labels = [2usize, 1, 3];
        let (mut sum, mut divisor) = (0.0, 0.0);
        let mut grad = vec![0.0; ROWS * cols];
        for (row, &label) in labels.iter().enumerate() {
            let row_of = |k: usize| f64::from(x[row * cols + k]);
            let lse = (0..cols).map(|k| row_of(k).exp()).sum::<f64>().ln();
            let w = f64::from(weight[label]);
            (sum, divisor) = (sum + w * (lse - row_of(label)), divisor + w);
            for k in 0..cols {
                grad[row * cols + k] = w * ((row_of(k) - lse).exp() - f64::from(u8::from(k == label)));
            }
        }
        let inputs = [
            ("input", &x[..], vec![ROWS, cols]),
            ("target", &[2.0, 1.0, 3.0][..], vec![ROWS]),
            ("weight", &weight[..], vec![cols]),
        ];
        for (path, value, found) in everywhere(&cross_entropy(), &inputs, &["input"]) {
            assert!((value - sum / divisor).abs() < 2e-6 * (sum / divisor), "{path}: {value}, want {}", sum / divisor);
            for (got, want) in found.iter().flatten().zip(&grad) {
                assert!((got - want / divisor).abs() < 4e-6, "{path}: {got}, want {}", want / divisor);
            }
        }
    }
}

#[test]
fn what_counts_still_poisons() {
    let x = [f32::NAN, 0.0, 1.0, 2.0];
    let inputs = [("input", &x[..], vec![2, 2]), ("target", &[0.0, -100.0][..], vec![2])];
    for (path, value, _) in everywhere(&cross_entropy(), &inputs, &["input"]) {
        assert!(value.is_nan(), "{path}: {value}");
    }
    // A weight of NaN is no weight of 0.
    let weight = [f32::NAN, 0.0];
    let inputs = [
        ("input", &[0.0, 0.5, 1.0, 2.0][..], vec![2, 2]),
        ("target", &[0.0, 1.0][..], vec![2]),
        ("weight", &weight[..], vec![2]),
    ];
    for (path, value, _) in everywhere(&cross_entropy(), &inputs, &["input"]) {
        assert!(value.is_nan(), "{path}: {value}");
    }
}

#[test]
fn a_bad_label_is_told_where_nothing_else_counts() {
    let (x, y, weight) = ([0.0f32, 0.5, 1.0, 2.0], [7i32, -100], [1.0f32, 2.0]);
    let host = [
        ("input", HostTensor::f32(&x, &[2, 2])),
        ("target", HostTensor::i32(&y, &[2])),
        ("weight", HostTensor::f32(&weight, &[2])),
    ];
    // By the count of labels it counts, and its row is NaN; it has no class whose weight would count.
    let is_told = |loss: f64, inputs: usize| assert!(if inputs == 2 { loss.is_nan() } else { loss == 0.0 }, "{loss}");
    for inputs in [&host[..2], &host] {
        let mut out = cpu::forward_backward(&cross_entropy(), inputs, &["input"]).unwrap();
        assert!(matches!(out.loss(), Err(Error::LabelOutOfRange { row: 0, label: 7, .. })));
        out.take_bad_label();
        is_told(out.loss().unwrap(), inputs.len());
    }
    let Some(ctx) = context() else { return };
    let tensors = [
        ("input", Tensor::from_slice(ctx, &x, &[2, 2]).unwrap()),
        ("target", Tensor::from_slice(ctx, &y, &[2]).unwrap()),
        ("weight", Tensor::from_slice(ctx, &weight, &[2]).unwrap()),
    ];
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    for inputs in [&tensors[..2], &tensors] {
        let out = cross_entropy().forward_backward(ctx, inputs).unwrap();
        assert!(matches!(out.loss(), Err(Error::LabelOutOfRange { row: 0, label: 7, .. })));
        is_told(f64::from(out.loss().unwrap()), inputs.len());
    }
}

#[test]
fn a_mean_of_no_rows_is_zero() {
    let loss = Loss::define("square").input("x", Scope::Element).expr(|b| b.input("x") * b.input("x"));
    is_zero(&loss.reduction(Reduction::MeanOrZero), &[("x", &[], vec![0, 4])], &["x"]);
    is_zero(&cross_entropy(), &[("input", &[], vec![0, 4]), ("target", &[], vec![0])], &["input"]);
}
