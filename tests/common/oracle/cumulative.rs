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
        "cox_partial_likelihood_sorted" | "cox_partial_likelihood" => cox(case, name == "cox_partial_likelihood"),
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

fn cox<R: Real>(case: &Case<R>, is_of_no_event_zero: bool) -> Losses<R> {
    let input: &Array<R> = &case.arrays["input"];
    let (event, time) = (case.values("event"), case.values("time"));
    let losses = of_rows_along(input, last_axis(&input.shape), vec![], |_, places| {
        let one = |&i: &usize| {
            let at_risk = places.iter().filter(|&&j| time[j].value() >= time[i].value());
            // Differences first: at a large common offset the terms themselves have no digits left.
            let at_risk: Vec<usize> = at_risk.copied().collect();
            let gap = |j: usize| input.values[j] - input.values[i];
            let most = at_risk.iter().map(|j| gap(*j).value()).fold(f64::NEG_INFINITY, f64::max);
            let hazard = |&j: &usize| (gap(j) - most).exp();
            let mut sum = at_risk.iter().map(hazard).sum::<R>();
            if case.word("ties", "breslow") == "efron" {
                let is_tied = |j: &&usize| time[**j].value() == time[i].value() && event[**j].value() > 0.0;
                let tied: Vec<usize> = places.iter().filter(is_tied).copied().collect();
                let before = tied.iter().filter(|j| **j < i).count() as f64;
                sum = sum - tied.iter().map(hazard).sum::<R>() * (before / tied.len().max(1) as f64);
            }
            event[i] * (sum.ln() + most)
        };
        places.iter().map(one).sum()
    });
    let rows = losses.values.len();
    let events = event.chunks((event.len() / rows.max(1)).max(1));
    let mean_over: Vec<R> = events.map(|events| events.iter().copied().sum()).collect();
    let all: R = mean_over.iter().copied().sum();
    let divisor = is_of_no_event_zero.then(|| if all.value() < 1.0 { R::ONE } else { all });
    Losses { mean_over: Some(mean_over), divisor, ..losses }
}
