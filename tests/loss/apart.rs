//! Losses over several shapes: the sum of a part per input, in one kernel where the shapes are the same.

use crate::common::compare::{mismatch, random};
use crate::common::context;
use wgloss::{Bindings, DType, Error, HostTensor, Loss, PlanSpec, Scope, ShapeRule, Tensor, cpu, losses};

/// `mean((real − r)²)/2 + mean((fake − f)²)/2`, and its gradients: real's, fake's, and that of r.
fn least_squares(real: &[f32], fake: &[f32], [r, f]: [f64; 2]) -> (f64, [Vec<f64>; 3]) {
    let off = |all: &[f32], label: f64| all.iter().map(|x| f64::from(*x) - label).collect::<Vec<f64>>();
    let (real, fake) = (off(real, r), off(fake, f));
    let half_mean = |all: &[f64]| all.iter().map(|x| x * x).sum::<f64>() / (2 * all.len()) as f64;
    let share = |all: &[f64]| all.iter().map(|x| x / all.len() as f64).collect::<Vec<f64>>();
    let d_label = -share(&real).iter().sum::<f64>();
    (half_mean(&real) + half_mean(&fake), [share(&real), share(&fake), vec![d_label]])
}

fn same(what: &str, got: &[f64], want: &[f64], rtol: f64) {
    let largest = want.iter().fold(0.0, |most: f64, x| x.abs().max(most));
    assert_eq!(mismatch(got, want, rtol, |_| rtol * largest), None, "{what}");
}

#[test]
fn each_input_has_a_mean_of_its_own_over_its_own_shape() {
    // One, around a workgroup, several axes; a label that is a scalar on the GPU, of one part alone.
    let shapes: [[&[usize]; 2]; 4] =
        [[&[1], &[3]], [&[255], &[257]], [&[2, 1, 5, 5], &[3, 1, 4, 4]], [&[6, 1], &[6, 1]]];
    for (seed, [a, b]) in (0u32..).zip(shapes) {
        let (real, fake) = (random(a.iter().product(), seed), random(b.iter().product(), seed + 100));
        let (value, grads) = least_squares(&real, &fake, [0.75, -1.0]);
        let loss: Loss = losses::gan_lsgan_d().real_label("r").fake_label(-1.0).into();
        let names = ["real", "fake", "r"];
        let host = [("real", HostTensor::f32(&real, a)), ("fake", HostTensor::f32(&fake, b))];
        let host = [&host[..], &[("r", HostTensor::f32(&[0.75], &[]))]].concat();
        let out = cpu::forward_backward(&loss, &host, &names).unwrap();
        same("CPU loss", &[out.loss().unwrap()], &[value], 1e-12);
        for (name, want) in names.iter().zip(&grads) {
            same(&format!("CPU {name}"), out.grad(name).unwrap(), want, 1e-12);
        }
        let Some(ctx) = context() else { continue };
        let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(ctx, values, shape).unwrap();
        let (real, fake, r) = (tensor(&real, a), tensor(&fake, b), tensor(&[0.75], &[]));
        let inputs = [("real", &real), ("fake", &fake), ("r", &r)];
        let out = loss.forward_backward_of(ctx, &inputs, &names).unwrap();
        same("GPU loss", &[f64::from(out.loss().unwrap())], &[value], 3e-6);
        for (name, want) in names.iter().zip(&grads) {
            let got: Vec<f64> = out.grad(name).unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
            same(&format!("GPU {name}"), &got, want, 3e-6);
        }
    }
}

#[test]
fn inputs_of_one_shape_are_one_kernel() {
    let Some(ctx) = context() else { return };
    let planned = |shapes: [&[usize]; 2]| {
        let spec = PlanSpec::new().input("real", DType::F32, shapes[0]).input("fake", DType::F32, shapes[1]);
        ctx.plan(&losses::gan_hinge_d(), &spec.grad("real").grad("fake")).unwrap().explain().to_string()
    };
    assert!(!planned([&[64], &[64]]).contains("\nbeside\n"));
    assert!(planned([&[64], &[32]]).contains("\nbeside\n"));
}

#[test]
fn each_input_may_be_bound_with_fewer_rows() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("real", DType::F32, &[64]).input("fake", DType::F32, &[32]).grad("real");
    let plan = ctx.plan(&losses::gan_wgan_d(), &spec).unwrap();
    let (real, fake) = (random(5, 1), random(9, 2));
    let tensor = |values: &[f32]| Tensor::from_slice(ctx, values, &[values.len()]).unwrap();
    let bound = plan.bind(&Bindings::new().input("real", &tensor(&real)).input("fake", &tensor(&fake))).unwrap();
    bound.submit().unwrap();
    let mean = |all: &[f32]| all.iter().map(|x| f64::from(*x)).sum::<f64>() / all.len() as f64;
    same("loss", &[f64::from(bound.read_loss().unwrap())], &[mean(&fake) - mean(&real)], 1e-5);
    assert_eq!(bound.grad("real").unwrap().to_vec::<f32>().unwrap(), [-0.2; 5]);
}

#[test]
fn mistakes_are_errors() {
    let (real, fake) = (HostTensor::f32(&[1.0, 2.0], &[2]), HostTensor::f32(&[1.0], &[1]));
    let error = cpu::forward_backward(&losses::gan_wgan_d(), &[("real", real.clone())], &[]).unwrap_err();
    assert!(matches!(&error, Error::Name { name, .. } if name == "fake"), "{error}");
    let inputs = [("real", real.clone()), ("fake", fake.clone()), ("other", fake.clone())];
    let error = cpu::forward_backward(&losses::gan_wgan_d(), &inputs, &[]).unwrap_err();
    assert!(matches!(&error, Error::Name { name, .. } if name == "other"), "{error}");
    let error = cpu::forward_backward(&losses::gan_wgan_d(), &inputs[..2], &["other"]).unwrap_err();
    assert!(matches!(&error, Error::Name { name, .. } if name == "other"), "{error}");
    // A part that asks for another's input is told so.
    let loss = Loss::define("both").input("a", Scope::Element).input("b", Scope::Element);
    let loss = loss.shape_rule("a", ShapeRule::Apart).shape_rule("b", ShapeRule::Apart);
    let loss = loss.expr(|b| (b.input("a") * b.input("b")).sum_over(Scope::Total));
    let error = cpu::forward_backward(&loss, &[("a", real), ("b", fake)], &[]).unwrap_err();
    assert!(matches!(&error, Error::Shape { .. } | Error::Expr { .. } | Error::Name { .. }), "{error}");
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("real", DType::F32, &[64]).input("fake", DType::F32, &[32]).grad("real");
    let error = ctx.plan(&losses::gan_wgan_d(), &spec.found_inf()).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { .. }), "{error}");
}
