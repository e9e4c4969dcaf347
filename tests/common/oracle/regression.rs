//! Residuals, and likelihoods of a rate and of a variance.

use super::{Case, Losses, elementwise};
use crate::common::real::Real;

pub(super) fn huber<R: Real>(r: R, delta: f64) -> R {
    if r.value().abs() <= delta { r * r / 2.0 } else { (r.abs() - delta / 2.0) * delta }
}

pub(super) fn smooth_l1<R: Real>(r: R, beta: f64) -> R {
    if r.value().abs() < beta { r * r / (2.0 * beta) } else { r.abs() - beta / 2.0 }
}

pub(super) fn quantile<R: Real>(d: R, tau: f64) -> R {
    if d.value() >= 0.0 { d * tau } else { d * (tau - 1.0) }
}

pub(super) fn rmse<R: Real>(case: &Case<R>) -> R {
    let shape = case.common_shape(&["input", "target"]);
    let (x, t) = (case.spread("input", &shape), case.spread("target", &shape));
    let squares: R = (0..x.len()).map(|k| (x[k] - t[k]).squared()).sum();
    (squares / x.len() as f64).sqrt()
}

/// A difference of rates.
pub(super) fn poisson_nll<R: Real>(case: &Case<R>) -> Losses<R> {
    let mut losses = elementwise(case, ["input", "target"], |x, t| {
        let is_log = case.flag("log_input", true);
        let value = if is_log { x.exp() - t * x } else { x - t * (x + case.num("eps", 1e-8)).ln() };
        // Stirling's approximation of ln t!
        let is_full = case.flag("full", false) && t.value() > 1.0;
        if is_full { value + t * t.ln() - t + (t * (2.0 * std::f64::consts::PI)).ln() * 0.5 } else { value }
    });
    let x = case.spread("input", &losses.shape);
    losses.taken_from = x.iter().map(|x| x.value().abs().max(x.value().exp())).collect();
    losses
}

/// A difference where the logarithm of the variance is negative.
pub(super) fn gaussian_nll<R: Real>(case: &Case<R>) -> Losses<R> {
    let mut losses = elementwise(case, ["input", "target"], |x, t| x - t);
    let mut case = case.clone();
    if let Some(var) = case.arrays.get_mut("var").filter(|var| var.shape.len() + 1 == losses.shape.len()) {
        var.shape.push(1); // one variance for the last axis
    }
    let v: Vec<R> = case.spread("var", &losses.shape).into_iter().map(|v| v.at_least(case.num("eps", 1e-6))).collect();
    let constant = if case.flag("full", false) { (2.0 * std::f64::consts::PI).ln() / 2.0 } else { 0.0 };
    let terms = |k: usize, r: R| [v[k].ln() * 0.5, r * r / v[k] * 0.5];
    losses.taken_from =
        (0..v.len()).map(|k| terms(k, losses.values[k]).map(|x| x.value().abs()).iter().sum()).collect();
    losses.values = (0..v.len()).map(|k| terms(k, losses.values[k]).into_iter().sum::<R>() + constant).collect();
    losses
}
