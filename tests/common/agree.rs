//! One small problem on three paths against numbers computed by hand.

use super::context;
use wgloss::{HostTensor, Loss, PlanSpec, Tensor, Wanted, cpu};

/// Relative difference allowed between a path and the wanted number.
const TOLERANCE: f64 = 1e-6;

/// The loss values (`loss`), gradients (by input) and diagonals of the Hessian (by input, with two primes: `x''`) on the
/// CPU in f64 and in f32 and on the GPU, each element by itself. NaN is NaN, and infinities have signs. Inputs are
/// vectors of one length; those of one element are scalars.
pub fn agree(loss: &Loss, inputs: &[(&str, &[f32])], want: &[(&str, Vec<f64>)]) {
    let shape_of = |values: &[f32]| if values.len() == 1 { Vec::new() } else { vec![values.len()] };
    let check = |path: &str, name: &str, got: Vec<f64>| {
        let (_, want) = want.iter().find(|known| known.0 == name).expect("a wanted output");
        assert_eq!(got.len(), want.len(), "{} on {path}: values of {name}", loss.name());
        for (k, (got, want)) in got.iter().zip(want).enumerate() {
            let same = got.is_nan() && want.is_nan() || got == want || (got - want).abs() <= TOLERANCE * want.abs();
            assert!(same, "{} on {path}: {name}[{k}] of {inputs:?} is {got}, want {want}", loss.name());
        }
    };
    let curved = || want.iter().filter_map(|(name, _)| name.strip_suffix("''"));
    let sloped = || want.iter().map(|(name, _)| *name).filter(|name| *name != "loss" && !name.ends_with("''"));
    let wanted = Wanted {
        loss: true,
        grads: sloped().map(str::to_owned).collect(),
        hessian_diagonals: curved().map(str::to_owned).collect(),
        ..Wanted::default()
    };
    let host: Vec<(&str, HostTensor<'_>)> =
        inputs.iter().map(|(name, values)| (*name, HostTensor::f32(values, &shape_of(values)))).collect();
    let double = cpu::run::<f64>(loss, &host, &wanted).unwrap();
    let single = cpu::run::<f32>(loss, &host, &wanted).unwrap();
    let widened = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    check("the CPU in f64", "loss", double.loss_values().unwrap().to_vec());
    check("the CPU in f32", "loss", widened(single.loss_values().unwrap()));
    for name in sloped() {
        check("the CPU in f64", name, double.grad(name).unwrap().to_vec());
        check("the CPU in f32", name, widened(single.grad(name).unwrap()));
    }
    for name in curved() {
        let primed = format!("{name}''");
        check("the CPU in f64", &primed, double.hessian_diagonal(name).unwrap().to_vec());
        check("the CPU in f32", &primed, widened(single.hessian_diagonal(name).unwrap()));
    }
    let Some(ctx) = context() else { return };
    let tensors: Vec<(&str, Tensor)> = inputs
        .iter()
        .map(|(name, values)| (*name, Tensor::from_slice(ctx, values, &shape_of(values)).unwrap()))
        .collect();
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let spec = sloped().fold(PlanSpec::new(), |spec, name| spec.grad(name));
    let spec = curved().fold(spec, |spec, name| spec.hessian_diagonal(name));
    let out = loss.run(ctx, &tensors, &spec).unwrap();
    check("the GPU", "loss", widened(&out.loss_values().unwrap()));
    for name in sloped() {
        check("the GPU", name, widened(&out.grad(name).unwrap().to_vec::<f32>().unwrap()));
    }
    for name in curved() {
        let got = out.hessian_diagonal(name).unwrap().to_vec::<f32>().unwrap();
        check("the GPU", &format!("{name}''"), widened(&got));
    }
}
