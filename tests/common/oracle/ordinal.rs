//! Losses of ordered classes.

use super::{Array, Case, Losses, class_axis, cumulative, labelled_rows, softplus};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    Some(match name {
        "coral" => labelled_rows(case, "input", class_axis, |row, y| {
            let weight = case.spread("weight", &[row.len()]);
            (0..row.len()).map(|k| weight[k] * threshold(row[k], y > k)).sum()
        }),
        "corn" => {
            let losses = labelled_rows(case, "input", class_axis, |row, y| {
                (0..row.len()).filter(|k| *k <= y).map(|k| threshold(row[k], y > k)).sum()
            });
            let thresholds = case.arrays["input"].values.len() / losses.values.len();
            let (labels, _) = case.labels.as_ref().expect("labels");
            let reached = |y: &i64| R::constant((*y as usize + 1).min(thresholds) as f64);
            Losses { mean_over: Some(labels.iter().map(reached).collect()), ..losses }
        }
        "ordinal_cumulative_link" => ordinal_cumulative_link(case),
        _ => return cumulative::losses(name, case),
    })
}

fn threshold<R: Real>(x: R, is_above: bool) -> R {
    if is_above { softplus(-x) } else { softplus(x) }
}

fn ordinal_cumulative_link<R: Real>(case: &Case<R>) -> Losses<R> {
    let (Array { shape, values: x }, thresholds) = (&case.arrays["input"], case.values("thresholds"));
    let (labels, _) = case.labels.as_ref().expect("labels");
    let one = |(x, y): (&R, &i64)| {
        let y = *y as usize;
        // −ln of the three factors of the difference of two sigmoids.
        let above = thresholds.get(y).map(|above| softplus(*x - *above));
        let below = y.checked_sub(1).map(|below| softplus(thresholds[below] - *x));
        let width = y.checked_sub(1).zip(thresholds.get(y));
        let width = width.map(|(below, above)| -(-(thresholds[below] - *above).exp_m1()).ln());
        [above, below, width].into_iter().flatten().sum::<R>()
    };
    let largest = thresholds.iter().map(|threshold| threshold.value().abs()).fold(0.0, f64::max);
    Losses {
        values: x.iter().zip(labels).map(one).collect(),
        shape: shape.clone(),
        taken_from: x.iter().map(|x| x.value().abs() + largest).collect(),
        mean_over: None,
        ignored: vec![],
        batch: shape.first().copied().unwrap_or(thresholds.len()),
        divisor: None,
        of_batch: None,
    }
}
