//! Powers of negative bases: integers are what users mean, on both paths, in both numbers of the CPU's.

mod common;

use common::context;
use wgloss::Wanted;
use wgloss::{HostTensor, Loss, Reduction, Scope, Tensor, cpu};

const X: [f32; 8] = [-3.0, -2.0, -1.5, -0.5, 0.5, 1.5, 2.0, 3.0];

/// Loss and gradients with respect to `x` and `y`, on three paths, each element by itself; NaN is NaN.
fn agree(loss: &Loss, inputs: &[(&str, &[f32])], want: &[(&str, Vec<f64>)]) {
    let shape = [inputs[0].1.len()];
    let host: Vec<(&str, HostTensor<'_>)> =
        inputs.iter().map(|(name, values)| (*name, HostTensor::f32(values, &shape))).collect();
    let grads: Vec<&str> = want.iter().map(|(name, _)| *name).filter(|name| *name != "loss").collect();
    let check = |path: &str, name: &str, got: Vec<f64>| {
        let (_, want) = want.iter().find(|known| known.0 == name).unwrap();
        for (k, (got, want)) in got.iter().zip(want).enumerate() {
            let same = got.is_nan() && want.is_nan() || got == want || (got - want).abs() <= 1e-6 * want.abs();
            assert!(same, "{} on {path}: {name}[{k}] of {inputs:?} is {got}, want {want}", loss.name());
        }
    };
    let wanted =
        Wanted { loss: true, grads: grads.iter().map(|name| (*name).to_owned()).collect(), ..Wanted::default() };
    let double = cpu::run::<f64>(loss, &host, &wanted).unwrap();
    let single = cpu::run::<f32>(loss, &host, &wanted).unwrap();
    let widened = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    check("the CPU in f64", "loss", double.loss_values().unwrap().to_vec());
    check("the CPU in f32", "loss", widened(single.loss_values().unwrap()));
    for name in &grads {
        check("the CPU in f64", name, double.grad(name).unwrap().to_vec());
        check("the CPU in f32", name, widened(single.grad(name).unwrap()));
    }
    let Some(ctx) = context() else { return };
    let tensors: Vec<(&str, Tensor)> =
        inputs.iter().map(|(name, values)| (*name, Tensor::from_slice(ctx, values, &shape).unwrap())).collect();
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let out = loss.forward_backward_of(ctx, &tensors, &grads).unwrap();
    check("the GPU", "loss", widened(&out.loss_values().unwrap()));
    for name in &grads {
        check("the GPU", name, widened(&out.grad(name).unwrap().to_vec::<f32>().unwrap()));
    }
}

#[test]
fn constant_integer_powers_take_negative_bases() {
    for y in [-3.0f64, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 7.0] {
        let loss = Loss::define("power").input("x", Scope::Element).expr(move |b| b.input("x").pow(y));
        let want = X.map(|x| f64::from(x).powf(y)).to_vec();
        let slope = X.map(|x| y * f64::from(x).powf(y - 1.0)).to_vec();
        agree(&loss.reduction(Reduction::None), &[("x", &X)], &[("loss", want), ("x", slope)]);
    }
}

#[test]
fn powers_that_are_no_integers_are_nan_below_zero() {
    let loss = Loss::define("power").input("x", Scope::Element).expr(|b| b.input("x").pow(2.5));
    let want = X.map(|x| f64::from(x).powf(2.5)).to_vec();
    let slope = X.map(|x| 2.5 * f64::from(x).powf(1.5)).to_vec();
    assert_eq!(want.iter().filter(|x| x.is_nan()).count(), 4);
    agree(&loss.reduction(Reduction::None), &[("x", &X)], &[("loss", want), ("x", slope)]);
}

#[test]
fn powers_of_two_inputs_agree() {
    let loss = Loss::define("power").input("x", Scope::Element).input("y", Scope::Element);
    let loss = loss.expr(|b| b.input("x").pow(b.input("y"))).reduction(Reduction::None);
    // Odd, even and no integers; bases 0 and ±∞; 2²⁴ − 1 is odd.
    let x = [-2.0f32, -2.0, -2.0, 2.0, -1.0, -1.0, -0.0, 0.0, 0.0, 0.0, f32::NEG_INFINITY, -5.0, 3.0];
    let y = [3.0f32, -2.0, 0.5, 0.5, 16_777_215.0, 16_777_214.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 0.0];
    let each = |f: fn(f64, f64) -> f64| x.iter().zip(&y).map(|(x, y)| f(f64::from(*x), f64::from(*y))).collect();
    let slope = |x: f64, y: f64| if y == 0.0 { 0.0 } else { y * x.powf(y - 1.0) };
    let want: Vec<(&str, Vec<f64>)> = vec![("loss", each(f64::powf)), ("x", each(slope))];
    agree(&loss, &[("x", &x), ("y", &y)], &want);
    // With respect to the power: xʸ·ln x, where there is one.
    let (x, y) = ([2.0f32, 0.5, 0.0, -2.0], [3.0f32, -1.5, 2.0, 2.0]);
    let want = vec![
        ("loss", vec![8.0, 0.5f64.powf(-1.5), 0.0, 4.0]),
        ("y", vec![8.0 * 2f64.ln(), 0.5f64.powf(-1.5) * 0.5f64.ln(), 0.0, f64::NAN]),
    ];
    agree(&loss, &[("x", &x), ("y", &y)], &want);
}
