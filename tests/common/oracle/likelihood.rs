//! Likelihoods and scores of distributions, as sums of the terms that their formulas have.

use super::{Case, Losses, last_axis_mean};
use crate::common::real::Real;
use std::f64::consts::PI;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let of_mean = ["input", "target"];
    Some(match name {
        "mape" => last_axis_mean(case, false, |t, p| (t - p).abs() / t.abs().at_least(1e-7) * 100.0),
        "msle" => last_axis_mean(case, false, |t, p| {
            ((p.at_least(1e-7) + 1.0).ln() - (t.at_least(1e-7) + 1.0).ln()).squared()
        }),
        "poisson" => last_axis_mean(case, false, |t, p| p - t * (p + 1e-7).ln()),
        "tweedie" => of_terms(case, of_mean, |[x, t]| {
            let (p, mu) = (case.num("p", 1.5), mean(case, x));
            let first = if t.value() == 0.0 { R::constant(0.0) } else { -t * mu.powf(1.0 - p) / (1.0 - p) };
            vec![first, mu.powf(2.0 - p) / (2.0 - p)]
        }),
        "gamma_nll" => of_terms(case, ["input", "target", "dispersion"], |[x, t, dispersion]| {
            let (mu, k) = (mean(case, x), R::ONE / dispersion);
            let mut terms = vec![k * t / mu, k * mu.ln()];
            if case.flag("full", false) {
                terms.extend([-k * k.ln(), -(k - 1.0) * t.ln(), k.lgamma()]);
            }
            terms
        }),
        "evidential" => of_terms(case, ["gamma", "nu", "alpha", "beta", "target"], |[gamma, nu, alpha, beta, t]| {
            let (d, w) = (t - gamma, beta * (nu + 1.0) * 2.0);
            vec![
                (R::constant(PI) / nu).ln() / 2.0,
                -alpha * w.ln(),
                (alpha + 0.5) * (nu * d * d + w).ln(),
                alpha.lgamma(),
                -(alpha + 0.5).lgamma(),
                d.abs() * (nu * 2.0 + alpha) * case.num("lambda", 0.01),
            ]
        }),
        "crps_gaussian" => of_terms(case, ["input", "scale", "target"], |[x, scale, t]| {
            let z = (t - x) / scale;
            let density = (-z * z / 2.0).exp() / (2.0 * PI).sqrt();
            vec![scale * z * (z / 2f64.sqrt()).erf(), scale * density * 2.0, -scale / PI.sqrt()]
        }),
        "gaussian_kl" => {
            of_terms(case, ["mu", "log_var"], |[mu, v]| vec![mu * mu / 2.0, v.exp() / 2.0, R::constant(-0.5), -v / 2.0])
        }
        _ => return None,
    })
}

/// exp(x), or x itself.
fn mean<R: Real>(case: &Case<R>, x: R) -> R {
    if case.flag("log_input", true) { x.exp() } else { x }
}

/// Losses of elements, each the sum of terms. An input that is absent is 1.
fn of_terms<R: Real, const N: usize>(case: &Case<R>, inputs: [&str; N], terms: impl Fn([R; N]) -> Vec<R>) -> Losses<R> {
    let shape = case.common_shape(&inputs);
    let spread = inputs.map(|name| case.spread(name, &shape));
    let each: Vec<Vec<R>> =
        (0..shape.iter().product()).map(|k| terms(std::array::from_fn(|input| spread[input][k]))).collect();
    Losses {
        values: each.iter().map(|terms| terms.iter().copied().sum()).collect(),
        taken_from: each.iter().map(|terms| terms.iter().map(|x| x.value().abs()).sum()).collect(),
        mean_over: None,
        divisor: None,
        of_batch: None,
        ignored: vec![],
        batch: shape.first().copied().unwrap_or(1),
        shape,
    }
}
