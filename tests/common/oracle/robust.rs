//! Robust and asymmetric losses of a residual.

use super::{Case, Losses, elementwise, huber};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let number = |name: &str, default: f64| case.num(name, default);
    let of_residual = |f: &dyn Fn(R) -> R| elementwise(case, ["input", "target"], |x, t| f(x - t));
    let c = number("c", 1.0);
    Some(match name {
        "charbonnier" => of_residual(&|r| (r * r + number("eps", 1e-3).powi(2)).sqrt()),
        "welsch" => of_residual(&|r| -(-(r / c).squared() / 2.0).exp_m1()),
        "cauchy" => of_residual(&|r| ((r / c).squared() / 2.0).ln_1p()),
        "general_robust" => of_residual(&|r| general_robust((r / c).squared(), number("alpha", 1.0))),
        "expectile" => of_residual(&|r| side(-r, R::constant(number("tau", 0.5))) * r * r),
        "quantile_huber" => quantile_huber(case, number("delta", 1.0)),
        _ => return None,
    })
}

/// As Barron's paper has it.
fn general_robust<R: Real>(z: R, alpha: f64) -> R {
    let b = (alpha - 2.0).abs();
    match alpha {
        2.0 => z / 2.0,
        0.0 => (z / 2.0).ln_1p(),
        f64::NEG_INFINITY => -(-z / 2.0).exp_m1(),
        _ => ((z / b).ln_1p() * (alpha / 2.0)).exp_m1() * (b / alpha),
    }
}

/// |τ − [d < 0]|
fn side<R: Real>(d: R, tau: R) -> R {
    if d.value() < 0.0 { R::ONE - tau } else { tau }
}

fn quantile_huber<R: Real>(case: &Case<R>, delta: f64) -> Losses<R> {
    let mut losses = elementwise(case, ["input", "target"], |x, t| t - x);
    let tau = case.spread("tau", &losses.shape);
    losses.values = losses.values.iter().zip(tau).map(|(d, tau)| side(*d, tau) * huber(*d, delta) / delta).collect();
    losses
}
