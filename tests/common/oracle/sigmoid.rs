//! Losses of logits of two classes.

use super::{Case, Losses, elementwise, last_axis_mean, sigmoid, sigmoid_focal, softplus};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let logits = ["logits", "labels"];
    Some(match name {
        "sigmoid_cross_entropy" => elementwise(case, logits, |x, t| t * softplus(-x) + (R::ONE - t) * softplus(x)),
        "optax_sigmoid_focal" => elementwise(case, logits, |x, t| sigmoid_focal(case, -1.0, x, t)),
        "label_smoothing_bce" => label_smoothing_bce(case),
        "asymmetric" => asymmetric(case),
        "binary_focal" => last_axis_mean(case, false, |t, p| binary_focal(case, t, p)),
        _ => return None,
    })
}

/// `t(1 − ε) + ε·even`
pub fn smoothed<R: Real>(case: &Case<R>, default: f64, t: R, even: f64) -> R {
    let share = case.num("label_smoothing", default);
    t * (1.0 - share) + share * even
}

fn label_smoothing_bce<R: Real>(case: &Case<R>) -> Losses<R> {
    let mut losses = elementwise(case, ["input", "target"], |x, _| x);
    let [x, t, q] = ["input", "target", "pos_weight"].map(|name| case.spread(name, &losses.shape));
    let each = |k: usize| {
        let y = smoothed(case, 0.1, t[k], 0.5);
        q[k] * y * softplus(-x[k]) + (R::ONE - y) * softplus(x[k])
    };
    losses.values = (0..x.len()).map(each).collect();
    losses
}

/// xʸ, where 0⁰ is 1 and 0 has the derivative 0.
pub fn power<R: Real>(x: R, exponent: f64) -> R {
    match (x.value() == 0.0, exponent == 0.0) {
        (_, true) => R::ONE,
        (true, false) => R::constant(0.0),
        (false, false) => x.powf(exponent),
    }
}

fn asymmetric<R: Real>(case: &Case<R>) -> Losses<R> {
    let mut losses = elementwise(case, ["input", "input"], |x, _| x);
    let (x, (labels, _)) = (losses.values.clone(), case.labels.as_ref().expect("labels"));
    let held = |weight: R| if case.flag("detach_weights", false) { R::constant(weight.value()) } else { weight };
    let each = |k: usize| {
        let (p, miss) = (sigmoid(x[k]), sigmoid(-x[k]));
        if labels[k] == 1 {
            return held(power(miss, case.num("gamma_pos", 1.0))) * softplus(-x[k]);
        }
        let clip = case.num("clip", 0.05);
        let q = (p - clip).at_least(0.0);
        let negative = if clip == 0.0 { softplus(x[k]) } else { -(-q).ln_1p() };
        held(power(q, case.num("gamma_neg", 4.0))) * negative
    };
    losses.values = (0..x.len()).map(each).collect();
    losses
}

/// From the least to the largest probability of Keras.
pub fn clipped<R: Real>(p: R) -> R {
    -(-p.at_least(1e-7)).at_least(1e-7 - 1.0)
}

fn binary_focal<R: Real>(case: &Case<R>, t: R, p: R) -> R {
    let t = smoothed(case, 0.0, t, 0.5);
    let [p, other] = if case.flag("from_logits", false) { [sigmoid(p), sigmoid(-p)] } else { [p, R::ONE - p] };
    let bce = -(t * clipped(p).ln() + (R::ONE - t) * clipped(other).ln());
    let value = power(t * other + (R::ONE - t) * p, case.num("gamma", 2.0)) * bce;
    let alpha = case.num("alpha", 0.25);
    let balance = t * alpha + (R::ONE - t) * (1.0 - alpha);
    if case.flag("apply_class_balancing", false) { balance * value } else { value }
}
