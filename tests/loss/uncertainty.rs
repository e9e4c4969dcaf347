//! Losses weighted by learned uncertainties, on GPU and CPU, against the formula.

use crate::common::context;
use wgloss::{Error, HostTensor, Loss, Reduction, Tensor, cpu, losses};

/// exp(−s)·L of two tasks over the same predictions, plus s/2 each.
fn two_tasks() -> Loss {
    (0.5 * losses::mse()).with_uncertainty("s_mse") + losses::l1().with_uncertainty("s_l1")
}

#[test]
fn each_task_is_divided_by_its_variance_and_both_variances_are_learned() {
    let (x, t, s) = ([0.5f32, -1.0, 2.0, 4.0], [0.0f32, 1.0, 2.5, 0.0], [0.75f32, -0.5]);
    let r: Vec<f64> = x.iter().zip(&t).map(|(x, t)| f64::from(x - t)).collect();
    let (mse, l1) = (r.iter().map(|r| r * r).sum::<f64>() / 8.0, r.iter().map(|r| r.abs()).sum::<f64>() / 4.0);
    let precision = s.map(|s| (-f64::from(s)).exp());
    let want = [
        vec![precision[0] * mse + precision[1] * l1 + f64::from(s[0] + s[1]) / 2.0],
        r.iter().map(|r| (precision[0] * r + precision[1] * r.signum()) / 4.0).collect(),
        vec![0.5 - precision[0] * mse],
        vec![0.5 - precision[1] * l1],
    ];
    let same = |path: &str, got: [Vec<f64>; 4], tolerance: f64| {
        for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
            assert!((got - want).abs() <= tolerance * (1.0 + want.abs()), "{path}: {got}, want {want}");
        }
    };
    let (loss, names) = (two_tasks(), ["input", "s_mse", "s_l1"]);
    let host = [
        ("input", HostTensor::f32(&x, &[4])),
        ("target", HostTensor::f32(&t, &[4])),
        ("s_mse", HostTensor::f32(&s[..1], &[])),
        ("s_l1", HostTensor::f32(&s[1..], &[])),
    ];
    let out = cpu::forward_backward(&loss, &host, &names).unwrap();
    let grad = |name: &str| out.grad(name).unwrap().to_vec();
    same("CPU", [vec![out.loss().unwrap()], grad("input"), grad("s_mse"), grad("s_l1")], 1e-12);
    let Some(ctx) = context() else { return };
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(ctx, values, shape).unwrap();
    let (x, t, s_mse, s_l1) = (tensor(&x, &[4]), tensor(&t, &[4]), tensor(&s[..1], &[]), tensor(&s[1..], &[]));
    let inputs = [("input", &x), ("target", &t), ("s_mse", &s_mse), ("s_l1", &s_l1)];
    let out = loss.forward_backward_of(ctx, &inputs, &names).unwrap();
    let widened = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<f64>>();
    let grad = |name: &str| widened(out.grad(name).unwrap().to_vec().unwrap());
    same("GPU", [widened(out.loss_values().unwrap()), grad("input"), grad("s_mse"), grad("s_l1")], 2e-6);
}

#[test]
fn names_and_mistakes_of_uncertainties_are_told() {
    assert_eq!(losses::mse().with_uncertainty("s").name(), "exp(-s)*mse + uncertainty");
    let renamed = losses::mse().with_uncertainty("s").rename_input("s", "log_variance");
    assert!(renamed.inputs().iter().all(|input| input.name != "s"));
    for taken in ["", "mask"] {
        let error = losses::mse().with_uncertainty(taken).check().unwrap_err();
        assert!(matches!(&error, Error::Param { param, .. } if param == "uncertainty"), "{error}");
    }
    let (x, t) = (HostTensor::f32(&[1.0], &[1]), HostTensor::f32(&[2.0], &[1]));
    let inputs = [("input", x), ("target", t), ("s", HostTensor::f32(&[0.0], &[]))];
    let each = losses::mse().with_uncertainty("s").reduction(Reduction::None);
    assert!(matches!(cpu::forward_backward(&each, &inputs, &[]), Err(Error::Expr { .. })));
}
