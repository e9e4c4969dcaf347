//! Divergences in the forms of Keras and optax.

use super::{Case, Losses, of_last_axis, range, rows_of, without};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    Some(match name {
        "kl_divergence" => kl_divergence(case),
        "generalized_kl" => generalized_kl(case),
        _ => return None,
    })
}

/// Keras: both clipped, where a value at a bound has half of the derivative.
fn kl_divergence<R: Real>(case: &Case<R>) -> Losses<R> {
    let shape = case.common_shape(&["y_true", "y_pred"]);
    let (t, p) = (case.spread("y_true", &shape), case.spread("y_pred", &shape));
    let clipped = |x: R| {
        let (value, inside) = (x.value().clamp(1e-7, 1.0), (1e-7..=1.0).contains(&x.value()));
        let at_bound = value == 1e-7 || value == 1.0;
        x.chain(value, |_| {
            [
                if !inside {
                    0.0
                } else if at_bound {
                    0.5
                } else {
                    1.0
                },
                0.0,
            ]
        })
    };
    of_last_axis(&shape, &p, |row| row.iter().map(|&k| clipped(t[k]) * (clipped(t[k]) / clipped(p[k])).ln()).sum())
}

fn generalized_kl<R: Real>(case: &Case<R>) -> Losses<R> {
    let shape = case.common_shape(&["log_predictions", "targets"]);
    let (x, t) = (case.spread("log_predictions", &shape), case.spread("targets", &shape));
    let one = |k: usize| x[k].exp() + if t[k].value() == 0.0 { -t[k] } else { t[k] * (t[k].ln() - x[k]) - t[k] };
    let axis = case.index("axis", Some(-1)).expect("an axis");
    let axis = usize::try_from(axis).unwrap_or(shape.len() - 1);
    let rows = rows_of(&shape, axis);
    Losses {
        values: rows.iter().map(|row| row.iter().map(|&k| one(k)).sum()).collect(),
        taken_from: rows.iter().map(|row| range(&x, row)).collect(),
        mean_over: None,
        divisor: None,
        of_batch: None,
        ignored: vec![],
        batch: shape[0],
        shape: without(&shape, axis),
    }
}
