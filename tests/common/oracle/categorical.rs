//! Cross-entropies of class probabilities.

use super::sigmoid::{clipped, power, smoothed};
use super::{Array, Case, Losses, last_axis, log_softmax, of_rows, of_rows_along};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    Some(match name {
        "categorical_crossentropy" => keras(case, false, |log_p, _| -log_p),
        "categorical_focal" => {
            let alpha = case.arrays.get("alpha").map(|alpha| alpha.values.clone());
            let default = R::constant(case.num("alpha", 0.25));
            keras(case, true, |log_p, j| {
                let alpha = alpha.as_ref().map_or(default, |alpha| alpha[j]);
                -alpha * power(-log_p.exp_m1(), case.num("gamma", 2.0)) * log_p
            })
        }
        "poly_cross_entropy" => {
            let (x, t) = (&case.arrays["logits"], &case.arrays["labels"].values);
            of_rows_along(x, axis_of(case, &x.shape), vec![], |_, row| {
                let log_p = log_softmax(&row.iter().map(|&k| x.values[k]).collect::<Vec<R>>());
                let one = |(j, &k): (usize, &usize)| {
                    t[k] * (-log_p[j] + (R::ONE - log_p[j].exp()) * case.num("epsilon", 2.0))
                };
                row.iter().enumerate().map(one).sum()
            })
        }
        "entropy" => {
            let x = &case.arrays["input"];
            of_rows(x, vec![], |_, row| {
                let log_p = log_softmax(&row.iter().map(|&k| x.values[k]).collect::<Vec<R>>());
                log_p.into_iter().map(|log_p| -log_p.exp() * log_p).sum()
            })
        }
        _ => return None,
    })
}

/// Σⱼ tⱼ·f(ln pⱼ, j) along Keras's axis, with its smoothed t and clipped p. Keras clips no log-softmax that it takes the
/// cross-entropy of.
fn keras<R: Real>(case: &Case<R>, clips: bool, f: impl Fn(R, usize) -> R) -> Losses<R> {
    let shape = case.common_shape(&["y_true", "y_pred"]);
    let (t, x) = (case.spread("y_true", &shape), case.spread("y_pred", &shape));
    let each = |_: usize, row: &[usize]| {
        let logits: Vec<R> = row.iter().map(|&k| x[k]).collect();
        let p: Vec<R> = match case.flag("from_logits", false) {
            true => log_softmax(&logits).into_iter().map(|log_p| log_p.exp()).collect(),
            false => logits.iter().map(|x| *x / logits.iter().copied().sum::<R>()).collect(),
        };
        let log_p: Vec<R> = match case.flag("from_logits", false) && !clips {
            true => log_softmax(&logits),
            false => p.into_iter().map(|p| clipped(p).ln()).collect(),
        };
        let even = 1.0 / row.len() as f64;
        row.iter().enumerate().map(|(j, &k)| smoothed(case, 0.0, t[k], even) * f(log_p[j], j)).sum::<R>()
    };
    of_rows_along(&Array::new(&shape, x.clone()), axis_of(case, &shape), vec![], each)
}

/// The axis of a row, the last by default.
fn axis_of<R: Real>(case: &Case<R>, shape: &[usize]) -> usize {
    let axis = case.index("axis", Some(-1)).expect("an axis");
    usize::try_from(axis).unwrap_or_else(|_| last_axis(shape))
}
