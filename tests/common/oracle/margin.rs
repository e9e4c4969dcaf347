//! Margin losses.

use super::{Case, Losses, class_axis, elementwise, labelled_rows, last_axis, of_last_axis, softplus};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let outputs = ["predictor_outputs", "targets"];
    Some(match name {
        "soft_margin" => elementwise(case, ["input", "target"], |x, t| softplus(-t * x)),
        "multilabel_soft_margin" => multilabel_soft_margin(case),
        "perceptron" => elementwise(case, outputs, |x, t| (-x * t).at_least(0.0)),
        "optax_hinge" => elementwise(case, outputs, |x, t| (R::ONE - x * t).at_least(0.0)),
        "sparsemax" => elementwise(case, ["logits", "labels"], |x, y| {
            let u = if y.value() == 1.0 { -x } else { x };
            if u.value() <= -1.0 {
                R::constant(0.0)
            } else if u.value() >= 1.0 {
                u
            } else {
                (u + 1.0).squared() / 4.0
            }
        }),
        "multi_margin" => labelled_rows(case, "input", class_axis, |row, y| {
            let (p, margin) = (case.num("p", 1.0), case.num("margin", 1.0));
            let weight = case.spread("weight", &[row.len()])[y];
            let others = (0..row.len()).filter(|&j| j != y);
            let violation = |j: usize| (row[j] - row[y] + margin).at_least(0.0);
            let powered = |x: R| if x.value() > 0.0 { x.powf(p) } else { R::constant(0.0) };
            weight * others.map(|j| powered(violation(j))).sum::<R>() / row.len() as f64
        }),
        "categorical_hinge" => categorical_hinge(case),
        "multiclass_hinge" => labelled_rows(case, "scores", last_axis, |row, y| {
            let each = (0..row.len()).map(|j| if j == y { row[j] } else { row[j] + 1.0 });
            largest(each) - row[y]
        }),
        "multiclass_perceptron" => {
            labelled_rows(case, "scores", last_axis, |row, y| largest(row.iter().copied()) - row[y])
        }
        _ => return None,
    })
}

/// The first of the largest.
fn largest<R: Real>(values: impl Iterator<Item = R>) -> R {
    values.reduce(|most, x| if x.value() > most.value() { x } else { most }).expect("a row has a column")
}

fn multilabel_soft_margin<R: Real>(case: &Case<R>) -> Losses<R> {
    let shape = case.common_shape(&["input", "target"]);
    let [x, t, w] = ["input", "target", "weight"].map(|name| case.spread(name, &shape));
    let one = |k: usize| w[k] * (t[k] * softplus(-x[k]) + (R::ONE - t[k]) * softplus(x[k]));
    of_last_axis(&shape, &x, |row| row.iter().map(|&k| one(k)).sum::<R>() / row.len() as f64)
}

fn categorical_hinge<R: Real>(case: &Case<R>) -> Losses<R> {
    let shape = case.common_shape(&["y_true", "y_pred"]);
    let (t, p) = (case.spread("y_true", &shape), case.spread("y_pred", &shape));
    of_last_axis(&shape, &p, |row| {
        let right: R = row.iter().map(|&k| t[k] * p[k]).sum();
        let wrong = largest(row.iter().map(|&k| (R::ONE - t[k]) * p[k]));
        (wrong - right + 1.0).at_least(0.0)
    })
}
