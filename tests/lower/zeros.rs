//! An infinite logit is a probability of zero or one, and what has no share does not count (0·∞ = 0): on GPU and CPU, in
//! f32 and f64.

use crate::common::context;
use wgloss::Wanted;
use wgloss::{HostTensor, Loss, Reduction, Result, Tensor, cpu, losses};

const INF: f32 = f32::INFINITY;

/// Losses, one by one, and gradients of the first input, from every path there is. `labels` instead of numbers, where
/// an input has that name.
fn everywhere(loss: &Loss, inputs: &[(&str, &[f32], &[usize])], labels: &[i32]) -> Result<Vec<(Vec<f64>, Vec<f64>)>> {
    let loss = loss.clone().reduction(Reduction::None);
    let first = inputs[0].0;
    let mut host: Vec<(&str, HostTensor<'_>)> =
        inputs.iter().map(|(name, values, shape)| (*name, HostTensor::f32(values, shape))).collect();
    if !labels.is_empty() {
        host.push(("target", HostTensor::i32(labels, &[labels.len()])));
    }
    let wanted = Wanted { loss: true, grads: vec![first.to_owned()], ..Wanted::default() };
    let double = cpu::run::<f64>(&loss, &host, &wanted)?;
    let single = cpu::run::<f32>(&loss, &host, &wanted)?;
    let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let mut all = vec![
        (double.loss_values()?.to_vec(), double.grad(first)?.to_vec()),
        (wide(single.loss_values()?), wide(single.grad(first)?)),
    ];
    let Some(ctx) = context() else { return Ok(all) };
    let mut tensors: Vec<(&str, Tensor)> = Vec::new();
    for (name, values, shape) in inputs {
        tensors.push((name, Tensor::from_slice(ctx, values, shape)?));
    }
    if !labels.is_empty() {
        tensors.push(("target", Tensor::from_slice(ctx, labels, &[labels.len()])?));
    }
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let out = loss.forward_backward_of(ctx, &tensors, &[first])?;
    all.push((wide(&out.loss_values()?), wide(&out.grad(first)?.to_vec()?)));
    Ok(all)
}

fn assert_close(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (k, (got, want)) in got.iter().zip(want).enumerate() {
        let close = got == want || got.is_nan() && want.is_nan() || (got - want).abs() <= 1e-6 * want.abs().max(1.0);
        assert!(close, "{what}[{k}] is {got}, want {want}");
    }
}

fn check(
    what: &str,
    loss: &Loss,
    inputs: &[(&str, &[f32], &[usize])],
    labels: &[i32],
    want: &[f64],
    want_grad: &[f64],
) -> Result<()> {
    for (path, (losses, grad)) in everywhere(loss, inputs, labels)?.iter().enumerate() {
        let path = ["f64", "f32", "GPU"][path];
        assert_close(&format!("{what} on {path}: loss"), losses, want);
        assert_close(&format!("{what} on {path}: gradient"), grad, want_grad);
    }
    Ok(())
}

#[test]
fn infinite_logits_of_two_classes_are_certain() -> Result<()> {
    // Right, right, wrong, wrong, wrong by half, and two that weigh nothing.
    let x = [INF, -INF, INF, -INF, INF, -INF, INF];
    let t = [1.0, 0.0, 0.0, 1.0, 0.5, 1.0, 0.5];
    let w = [1.0, 2.0, 1.0, 3.0, 1.0, 0.0, 0.0];
    let shape: &[usize] = &[7];
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let inputs = [("input", &x[..], shape), ("target", &t, shape), ("weight", &w, shape)];
    let want = [0.0, 0.0, inf, inf, inf, 0.0, 0.0];
    check("bce", &losses::bce_with_logits(), &inputs, &[], &want, &[0.0, 0.0, 1.0, -3.0, 0.5, 0.0, 0.0])?;
    let q = [2.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0];
    let inputs = [("input", &x[..4], &[4][..]), ("target", &t[..4], &[4]), ("pos_weight", &q[..4], &[4])];
    check("pos_weight", &losses::bce_with_logits(), &inputs, &[], &[0.0, 0.0, inf, 0.0], &[0.0, 0.0, 1.0, 0.0])?;
    let inputs = [("inputs", &x[..2], &[2][..]), ("targets", &t[..2], &[2])];
    let focal = losses::sigmoid_focal();
    for loss in [focal.clone(), focal.clone().gamma(0.0), focal.clone().gamma(1.0), focal.clone().gamma(0.5)] {
        for loss in [loss.clone(), loss.clone().alpha(-1.0), loss.alpha(0.0)] {
            check("focal", &loss, &inputs, &[], &[0.0, 0.0], &[0.0, 0.0])?;
        }
    }
    // A balance of 0 leaves a positive out; without one it is wrong without bounds.
    let inputs = [("inputs", &[-INF][..], &[1][..]), ("targets", &[1.0], &[1])];
    check("balance", &focal.clone().alpha(0.0).gamma(0.0), &inputs, &[], &[0.0], &[0.0])?;
    check("no balance", &focal.gamma(0.0).alpha(-1.0), &inputs, &[], &[inf], &[-1.0])?;
    // NaN is neither.
    let inputs = [("input", &[f32::NAN][..], &[1][..]), ("target", &[0.0], &[1])];
    check("NaN", &losses::bce_with_logits(), &inputs, &[], &[nan], &[nan])
}

#[test]
fn log_probabilities_that_both_lack_add_nothing_to_a_divergence() -> Result<()> {
    let half = 0.5f32.ln();
    let (x, t) = ([-INF, half, -INF, half], [0.0, 0.5, 0.25, 0.0]);
    let inputs = [("input", &x[..], &[1, 4][..]), ("target", &t, &[1, 4])];
    check("kl_div", &losses::kl_div(), &inputs, &[], &[0.0, 0.0, f64::INFINITY, 0.0], &[0.0, -0.5, -0.25, 0.0])?;
    let t = [-INF, half, 0.25f32.ln(), -INF];
    let inputs = [("input", &x[..], &[1, 4][..]), ("target", &t, &[1, 4])];
    let log = losses::kl_div().log_target(true);
    check("log_target", &log, &inputs, &[], &[0.0, 0.0, f64::INFINITY, 0.0], &[0.0, -0.5, -0.25, 0.0])?;
    // The other way round: the gradient of the target, which is where the student lacks it.
    let inputs = [("target", &t[..2], &[2][..]), ("input", &x[..2], &[2])];
    check("of the target", &log, &inputs, &[], &[0.0, 0.0], &[0.0, 0.5])?;
    // A rate of zero that counts nothing.
    let inputs = [("input", &[-INF, -INF][..], &[2][..]), ("target", &[0.0, 1.0], &[2])];
    check("poisson", &losses::poisson_nll(), &inputs, &[], &[0.0, f64::INFINITY], &[0.0, -1.0])
}

#[test]
fn classes_of_probability_zero_count_where_they_have_a_share() -> Result<()> {
    // Two classes of three are left: their logits are equal.
    let ln2 = 2f64.ln();
    let (x, t) = ([0.0, -INF, 0.0], [0.25, 0.0, 0.75]);
    let soft = losses::cross_entropy_prob();
    let inputs = [("input", &x[..], &[1, 3][..]), ("target", &t, &[1, 3])];
    check("prob", &soft, &inputs, &[], &[ln2], &[0.25, 0.0, -0.25])?;
    let shared = [("input", &x[..], &[1, 3][..]), ("target", &[0.25, 0.25, 0.5], &[1, 3])];
    check("shared", &soft, &shared, &[], &[f64::INFINITY], &[0.25, -0.25, 0.0])?;
    let smooth = soft.clone().label_smoothing(0.3);
    check("smoothed", &smooth, &inputs, &[], &[f64::INFINITY], &[0.225, -0.1, -0.125])?;
    // A weight of 0 leaves the class out, whatever its share.
    let weighted = [shared[0], shared[1], ("weight", &[1.0, 0.0, 1.0], &[3])];
    check("weighted", &soft, &weighted, &[], &[0.75 * ln2], &[0.125, 0.0, -0.125])?;
    let weighted = [inputs[0], inputs[1], ("weight", &[1.0, 0.0, 1.0], &[3])];
    // (0.7·0.25 + 0.1)·ln 2 + (0.7·0.75 + 0.1)·ln 2.
    check("both", &smooth, &weighted, &[], &[0.9 * ln2], &[0.175, 0.0, -0.175])?;
    // Class labels: the smoothed share of the masked class, and its label, weigh nothing.
    let ce = losses::cross_entropy();
    let inputs = [("input", &x[..], &[1, 3][..]), ("weight", &[1.0, 0.0, 1.0], &[3])];
    check("label", &ce, &inputs, &[1], &[0.0], &[0.0, 0.0, 0.0])?;
    let smooth = ce.clone().label_smoothing(0.3);
    check("smoothed label", &smooth, &inputs, &[0], &[0.9 * ln2], &[-0.35, 0.0, 0.35])?;
    check("label", &ce, &inputs[..1], &[1], &[f64::INFINITY], &[0.5, -1.0, 0.5])?;
    check("nll", &losses::nll(), &inputs, &[1], &[0.0], &[0.0, 0.0, 0.0])?;
    let focal = [inputs[0], ("alpha", &[1.0, 0.0, 1.0], &[3])];
    check("focal", &losses::multiclass_focal(), &focal, &[1], &[0.0], &[0.0, 0.0, 0.0])
}

#[test]
fn probabilities_outside_their_interval_have_no_gradient() -> Result<()> {
    let (x, t) = ([-0.1, 1.5, -INF, 0.0, 1.0, 0.5], [0.0, 1.0, 0.5, 0.0, 1.0, 1.0]);
    let inputs = [("input", &x[..], &[6][..]), ("target", &t, &[6])];
    let nan = f64::NAN;
    check(
        "bce",
        &losses::bce(),
        &inputs,
        &[],
        &[nan, nan, nan, 0.0, 0.0, 2f64.ln()],
        &[nan, nan, nan, 0.0, 0.0, -2.0],
    )?;
    let inputs = [("target", &t[..3], &[3][..]), ("input", &x[..3], &[3])];
    check("of the target", &losses::bce(), &inputs, &[], &[nan; 3], &[nan; 3])
}

#[test]
fn a_mean_over_no_positive_loss_is_zero() -> Result<()> {
    // 0: no loss is positive; 2: two are; NaN is not hidden.
    for (x, want, want_grad) in [
        ([-1.0f32, -2.0, -3.0], 0.0, [0.0, 0.0, 0.0]),
        ([1.0, -2.0, 3.0], 2.0, [0.5, 0.0, 0.5]),
        ([-1.0, f32::NAN, -3.0], f64::NAN, [0.0, f64::NAN, 0.0]),
    ] {
        let relu = Loss::define("relu").input("x", wgloss::Scope::Element).expr(|b| b.input("x").relu());
        let loss = relu.reduction(Reduction::MeanOverPositive);
        let host = cpu::forward_backward(&loss, &[("x", HostTensor::f32(&x, &[3]))], &["x"])?;
        let mut all = vec![(host.loss()?, host.grad("x")?.to_vec())];
        if let Some(ctx) = context() {
            let x = Tensor::from_slice(ctx, &x, &[3])?;
            let out = loss.forward_backward(ctx, &[("x", &x)])?;
            let grad = out.grad("x")?.to_vec::<f32>()?;
            all.push((f64::from(out.loss()?), grad.into_iter().map(f64::from).collect()));
        }
        for (got, grad) in all {
            assert_close("loss", &[got], &[want]);
            // What a NaN does to the other gradients is no matter of this reduction.
            let places: &[usize] = if want.is_nan() { &[1] } else { &[0, 1, 2] };
            for &k in places {
                assert_close("gradient", &grad[k..=k], &want_grad[k..=k]);
            }
        }
    }
    Ok(())
}
