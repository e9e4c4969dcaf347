//! Focal losses of detectors.

use super::{Case, Losses, elementwise, log_softmax, of_last_axis, sigmoid, softplus};
use crate::common::real::Real;

/// The losses of that name; `None` for those of other families.
pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let bce = |x: R, q: R| q * softplus(-x) + (R::ONE - q) * softplus(x);
    let mut losses = match name {
        "varifocal" => elementwise(case, ["input", "target"], |x, q| match q.value() > 0.0 {
            true => q * bce(x, q),
            false => sigmoid(x).powf(case.num("gamma", 2.0)) * softplus(x) * case.num("alpha", 0.75),
        }),
        "quality_focal" => elementwise(case, ["input", "target"], |x, q| {
            (sigmoid(x) - q).abs().powf(case.num("beta", 2.0)) * bce(x, q)
        }),
        "distribution_focal" => distribution_focal(case),
        _ => return None,
    };
    losses.divisor = Some(case.num("avg_factor", 0.0)).filter(|factor| *factor > 0.0).map(R::constant);
    Some(losses)
}

fn distribution_focal<R: Real>(case: &Case<R>) -> Losses<R> {
    let input = &case.arrays["input"];
    let cols = input.shape[input.shape.len() - 1];
    let targets = case.values("target");
    let weights = case.spread("weight", &input.shape[..input.shape.len() - 1]);
    of_last_axis(&input.shape, &input.values, |row| {
        let index = row[0] / cols;
        let (t, log_p) = (targets[index], log_softmax(&row.iter().map(|&k| input.values[k]).collect::<Vec<R>>()));
        let left = (t.value().floor() as usize).min(cols.saturating_sub(2));
        let share = t - left as f64;
        // Of one bin, nothing is left of it.
        let right = if cols > 1 { log_p[left + 1] * share } else { R::constant(0.0) };
        -((R::ONE - share) * log_p[left] + right) * weights[index]
    })
}
