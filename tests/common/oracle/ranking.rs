//! Pairs of scores, and lists.

use super::{Case, Losses, elementwise, log_softmax, of_last_axis, range, rows_of, softplus};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let margin = |default: f64| case.num("margin", default);
    Some(match name {
        "margin_ranking" => {
            let mut losses = elementwise(case, ["input1", "input2"], |x1, x2| x1 - x2);
            let y = case.spread("target", &losses.shape);
            losses.values = (0..y.len()).map(|k| (-y[k] * losses.values[k] + margin(0.0)).at_least(0.0)).collect();
            losses
        }
        "bpr" => elementwise(case, ["positive", "negative"], |p, n| softplus(n - p)),
        "margin_mse" => {
            let mut losses = elementwise(case, ["positive", "negative"], |p, n| p - n);
            let [p, n] = ["teacher_positive", "teacher_negative"].map(|name| case.spread(name, &losses.shape));
            losses.values = (0..p.len()).map(|k| (losses.values[k] - (p[k] - n[k])).squared()).collect();
            losses
        }
        "ranking_softmax" => ranking_softmax(case),
        "supcon" => supcon(case),
        _ => return None,
    })
}

fn ranking_softmax<R: Real>(case: &Case<R>) -> Losses<R> {
    let shape = case.arrays["logits"].shape.clone();
    let [x, y, keep, w] = ["logits", "labels", "where", "weights"].map(|name| case.spread(name, &shape));
    let kept = |row: &[usize]| -> Vec<usize> { row.iter().copied().filter(|&k| keep[k].value() != 0.0).collect() };
    let mut losses = of_last_axis(&shape, &x, |row| {
        let row = kept(row);
        let log_p = log_softmax(&row.iter().map(|&k| x[k]).collect::<Vec<R>>());
        row.iter().zip(log_p).map(|(&k, log_p)| -w[k] * y[k] * log_p).sum()
    });
    let rows = rows_of(&shape, shape.len() - 1);
    let relevance = |row: &Vec<usize>| row.iter().map(|&k| (w[k] * y[k]).value().abs()).sum::<f64>();
    losses.taken_from = rows.iter().map(|row| relevance(row) * range(&x, row)).collect();
    losses.ignored = rows.iter().map(|row| kept(row).is_empty()).collect();
    losses
}

fn supcon<R: Real>(case: &Case<R>) -> Losses<R> {
    let shape = case.arrays["scores"].shape.clone();
    let [x, is_positive, keep] = ["scores", "positives", "where"].map(|name| case.spread(name, &shape));
    let temperature = case.num("temperature", 0.1);
    let mut losses = of_last_axis(&shape, &x, |_| R::constant(0.0));
    let rows = rows_of(&shape, shape.len() - 1);
    losses.ignored = vec![false; rows.len()];
    for (number, row) in rows.iter().enumerate() {
        let kept: Vec<usize> = row.iter().copied().filter(|&k| keep[k].value() != 0.0).collect();
        let log_p = log_softmax(&kept.iter().map(|&k| x[k] / temperature).collect::<Vec<R>>());
        let positives: Vec<usize> = (0..kept.len()).filter(|&j| is_positive[kept[j]].value() != 0.0).collect();
        losses.taken_from[number] /= temperature;
        losses.ignored[number] = positives.is_empty();
        if !positives.is_empty() {
            losses.values[number] = -positives.iter().map(|&j| log_p[j]).sum::<R>() / positives.len() as f64;
        }
    }
    losses
}
