//! Losses of cumulative distributions, and of subjects at risk: sums over pairs of columns, by the book.

use super::{Array, Case, Losses, class_axis, last_axis, log_softmax, of_rows_along};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let square = |x: R| x * x;
    Some(match name {
        "emd_squared" | "emd_squared_prob" => moved(case, true, |steps| steps.iter().map(|x| square(*x)).sum()),
        "wasserstein1" | "wasserstein1_prob" => moved(case, true, |steps| steps.iter().map(|x| x.abs()).sum()),
        "ranked_probability_score" => moved(case, false, |steps| {
            steps.iter().map(|x| square(*x)).sum::<R>() / R::constant(steps.len().max(1) as f64)
        }),
        "cox_partial_likelihood_sorted" => cox(case),
        _ => return None,
    })
}

/// A function of the differences of cumulative probabilities, one for each step between classes.
fn moved<R: Real>(case: &Case<R>, of_logits: bool, f: impl Fn(&[R]) -> R) -> Losses<R> {
    let input = &case.arrays["input"];
    of_rows_along(input, class_axis(&input.shape), vec![], |row, places| {
        let values: Vec<R> = places.iter().map(|&k| input.values[k]).collect();
        let p: Vec<R> = match of_logits {
            true => log_softmax(&values).into_iter().map(|log_p| log_p.exp()).collect(),
            false => values,
        };
        let q: Vec<R> = match &case.labels {
            Some((labels, _)) => {
                (0..p.len()).map(|j| R::constant(f64::from(u8::from(labels[row] == j as i64)))).collect()
            }
            None => places.iter().map(|&k| case.arrays["target"].values[k]).collect(),
        };
        let below = |k: usize| (0..=k).map(|j| p[j] - q[j]).sum::<R>();
        f(&(0..p.len().saturating_sub(1)).map(below).collect::<Vec<R>>())
    })
}

fn cox<R: Real>(case: &Case<R>) -> Losses<R> {
    let input: &Array<R> = &case.arrays["input"];
    let (event, time) = (case.values("event"), case.values("time"));
    let losses = of_rows_along(input, last_axis(&input.shape), vec![], |_, places| {
        let one = |&i: &usize| {
            let at_risk = places.iter().filter(|&&j| time[j].value() >= time[i].value());
            // Differences first: at a large common offset the terms themselves have no digits left.
            event[i] * at_risk.map(|&j| (input.values[j] - input.values[i]).exp()).sum::<R>().ln()
        };
        places.iter().map(one).sum()
    });
    let rows = losses.values.len();
    let events = event.chunks((event.len() / rows.max(1)).max(1));
    Losses { mean_over: Some(events.map(|events| events.iter().copied().sum()).collect()), ..losses }
}
