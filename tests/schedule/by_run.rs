//! Elements on an adapter with an accurate exp2 that carries NaN: NaN that is looked for once a run of elements, in its sums,
//! is found as by the bits of each element; functions of exponentials keep the contract.

use crate::common::compare::{assert_grads, random};
use crate::common::context;
use wgloss::{Context, Element, Exp2, HostTensor, Loss, Pinned, PlanSpec, Reduction, Scope, Tensor, cpu, losses};

/// NaN, quiet and signalling, of both signs: rounded as numbers, some become ∞ or 0.
const NANS: [u32; 4] = [0x7fc0_0000, 0xffff_ffff, 0x7f80_0001, 0xff81_0000];
const INFINITIES: [f32; 2] = [f32::INFINITY, f32::NEG_INFINITY];

/// A mask leaves elements out: what they hold counts nothing.
fn masked() -> Loss {
    let loss = Loss::define("masked").input("input", Scope::Element).input("target", Scope::Element);
    loss.expr(|b| {
        let (x, t) = (b.input("input"), b.input("target"));
        (x * 0.5).exp().masked(t.gt(0.5))
    })
}

fn losses() -> Vec<Loss> {
    let all = [losses::mse(), losses::l1(), losses::huber(0.7).into(), losses::bce_with_logits(), masked()];
    all.into_iter().chain([losses::kl_div().into()]).collect()
}

/// A value as its bits; NaN as one of them.
fn bits(value: f32) -> u32 {
    if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() }
}

/// Loss and gradient.
fn run<T: Element + Into<f32>>(
    ctx: &Context,
    loss: &Loss,
    [x, t]: [&Tensor; 2],
    spec: &PlanSpec,
    carries_nan: bool,
) -> [Vec<u32>; 2] {
    let pinned = Pinned { carries_nan: Some(carries_nan), exp2: Some(Exp2::Functions), ..Pinned::default() };
    let spec = spec.clone().grad("input").pin(pinned);
    let out = loss.run(ctx, &[("input", x), ("target", t)], &spec).unwrap();
    let grad = out.grad("input").unwrap().to_vec::<T>().unwrap();
    let loss = out.loss_values().unwrap().into_iter().map(bits).collect();
    [loss, grad.into_iter().map(|value| bits(value.into())).collect()]
}

/// Both ways over inputs with one hostile value, of the first element, inside a run, in the last run, or at the end.
fn check<T: Element + Into<f32>>(ctx: &Context, loss: &Loss, count: usize, of_bits: impl Fn(u32) -> T) {
    let (x, t) = (random(count, 3), random(count, 4));
    let t: Vec<f32> = t.iter().map(|t| t.abs().min(1.0)).collect();
    let stored = |values: &[f32]| values.iter().map(|v| of_bits(v.to_bits())).collect::<Vec<T>>();
    let hostile = NANS.into_iter().chain(INFINITIES.map(f32::to_bits));
    for (k, hostile) in hostile.enumerate() {
        let at = [0, 1234, count - 1][k % 3];
        for of_target in [false, true] {
            let mut both = [stored(&x), stored(&t)];
            both[usize::from(of_target)][at] = of_bits(hostile);
            let [x, t] = both.map(|values| Tensor::from_slice(ctx, &values, &[count]).unwrap());
            let ways = [false, true].map(|by_run| run::<T>(ctx, loss, [&x, &t], &PlanSpec::new(), by_run));
            let what = format!("{} of {count} {:?}, {hostile:#x} at {at}, {of_target}", loss.name(), T::DTYPE);
            for (by_bits, by_run) in ways[0].iter().zip(&ways[1]) {
                let differs = by_bits.iter().zip(by_run).position(|(a, b)| a != b);
                assert_eq!(differs.map(|k| (k, by_bits[k], by_run[k])), None, "{what}");
            }
            let is_seen = ways[0][1][at] == 0x7fc0_0000 || loss.name() == "masked" && !of_target;
            assert!(is_seen || !NANS.contains(&hostile), "{what}: NaN is swallowed");
        }
    }
}

#[test]
fn nan_is_found_in_the_sums_of_a_run_as_by_the_bits_of_each_element() {
    let Some(ctx) = context() else { return };
    // Whole runs and a part of one; with ends that are no whole vector.
    for (count, reduction) in [(5000, Reduction::Mean), (5003, Reduction::None)] {
        for loss in losses().into_iter().map(|loss| loss.reduction(reduction.clone())) {
            check::<f32>(ctx, &loss, count, f32::from_bits);
            check::<half::bf16>(ctx, &loss, count, |bits| {
                half::bf16::from_bits((bits >> 16) as u16 | u16::from(bits == 0x7f80_0001))
            });
            check::<half::f16>(ctx, &loss, count, |bits| half::f16::from_f32(f32::from_bits(bits)));
        }
    }
}

/// Loss and gradient with functions by the adapter's exp2, against the CPU; gradients within the contract for rows of `cols`.
fn agrees_with_the_cpu(ctx: &Context, loss: &Loss, [x, t]: [&[f32]; 2], cols: usize, what: &str) {
    let pinned = Pinned { exp2: Some(Exp2::Functions), ..Pinned::default() };
    let names: Vec<String> = loss.inputs().into_iter().filter(|i| !i.optional).map(|i| i.name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let host = [x, t].map(|values| HostTensor::f32(values, &[x.len()]));
    let host: Vec<_> = names.iter().copied().zip(host).collect();
    let want = cpu::forward_backward(loss, &host, &[names[0]]).unwrap();
    let tensors = [x, t].map(|values| Tensor::from_slice(ctx, values, &[x.len()]).unwrap());
    let inputs: Vec<_> = names.iter().copied().zip(&tensors).collect();
    let out = loss.run(ctx, &inputs, &PlanSpec::new().grad(names[0]).pin(pinned)).unwrap();
    let (got, want_loss) = (f64::from(out.loss().unwrap()), want.loss().unwrap());
    let what = format!("{} of {what}", loss.name());
    assert!((got - want_loss).abs() <= 2e-6 * want_loss.abs(), "{what}: {got}, want {want_loss}");
    let got = out.grad(names[0]).unwrap().to_vec::<f32>().unwrap();
    assert_grads(&what, &got, want.grad(names[0]).unwrap(), cols);
}

#[test]
fn functions_of_exponentials_by_the_adapters_exp2_agree_with_the_cpu() {
    let Some(ctx) = context() else { return };
    let count = 5000;
    let shares: Vec<f32> = random(count, 6).iter().map(|t| t.abs().min(1.0)).collect();
    // Around 0; confident; as confident as a loss in f32 has digits for.
    for scale in [1.0, 10.0, 60.0] {
        let x: Vec<f32> = random(count, 5).iter().map(|x| (scale * x).clamp(-85.0, 85.0)).collect();
        let labels: Vec<f32> = x.iter().map(|x| f32::from(*x > 0.0)).collect();
        let what = format!("logits times {scale}");
        for loss in [losses::bce_with_logits(), losses::sigmoid_cross_entropy(), losses::kl_div().into()] {
            agrees_with_the_cpu(ctx, &loss, [&x, &shares], count, &what);
        }
        // Of labels no gradient is the difference of two: each by itself.
        for loss in [losses::bce_with_logits(), losses::sigmoid_focal().into()] {
            agrees_with_the_cpu(ctx, &loss, [&x, &labels], 1, &what);
        }
    }
    let probabilities: Vec<f32> = random(count, 7).iter().map(|p| (p.abs() / 4.0).clamp(1e-6, 1.0)).collect();
    for loss in [losses::bce(), losses::msle()] {
        agrees_with_the_cpu(ctx, &loss, [&probabilities, &shares], count, "probabilities");
    }
}
