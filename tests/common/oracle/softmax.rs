//! Losses of logits and class labels.

use super::*;

/// A loss `f(row, label, class weights)`. The mean divides by the labels' weights, or (not `by_weight`) by the number of
/// rows that are not ignored.
pub(super) fn labelled<R: Real>(
    case: &Case<R>,
    weight: &str,
    by_weight: bool,
    f: impl Fn(&[R], usize, &[R]) -> R,
) -> Losses<R> {
    let input = &case.arrays["input"];
    let (labels, _) = case.labels.as_ref().expect("labels");
    let weights = case.spread(weight, &[input.shape[class_axis(&input.shape)]]);
    let ignore_index = case.index("ignore_index", Some(-100));
    let ignored: Vec<bool> = labels.iter().map(|label| Some(*label) == ignore_index).collect();
    let share = |(label, ignored): (&i64, &bool)| match (ignored, by_weight) {
        (true, _) => R::constant(0.0),
        (false, true) => weights[*label as usize],
        (false, false) => R::ONE,
    };
    let mean_over = Some(labels.iter().zip(&ignored).map(share).collect());
    let losses = of_rows(input, ignored, |row, places| {
        let logits: Vec<R> = places.iter().map(|&k| input.values[k]).collect();
        f(&logits, labels[row] as usize, &weights)
    });
    Losses { mean_over, ..losses }
}

/// A loss `f(row, label)` of rows along an axis of that input; no label is ignored.
pub(super) fn labelled_rows<R: Real>(
    case: &Case<R>,
    input: &str,
    axis: fn(&[usize]) -> usize,
    f: impl Fn(&[R], usize) -> R,
) -> Losses<R> {
    let input = &case.arrays[input];
    let (labels, _) = case.labels.as_ref().expect("labels");
    of_rows_along(input, axis(&input.shape), vec![], |row, places| {
        let row_values: Vec<R> = places.iter().map(|&k| input.values[k]).collect();
        f(&row_values, labels[row] as usize)
    })
}

pub(super) fn cross_entropy<R: Real>(case: &Case<R>) -> Losses<R> {
    let (smoothing, temperature) = (case.num("label_smoothing", 0.0), case.num("temperature", 1.0));
    let (scale, cap) = (case.num("logit_scale", 1.0), case.num("softcap", 0.0));
    labelled(case, "weight", true, |row, y, w| {
        let row: Vec<R> = row.iter().map(|x| softcap(*x * scale, cap) / temperature).collect();
        let log_p = log_softmax(&row);
        let mut loss = w[y] * log_p[y] * (smoothing - 1.0);
        if smoothing > 0.0 {
            for j in 0..row.len() {
                loss = loss - w[j] * log_p[j] * (smoothing / row.len() as f64);
            }
        }
        loss = loss + logsumexp(&row).squared() * case.num("lse_square_scale", 0.0);
        // −p ln p, which is 0 for p = 0
        let present = log_p.into_iter().filter(|log_p| log_p.value() > f64::NEG_INFINITY);
        let entropy: R = present.map(|log_p| -log_p.exp() * log_p).sum();
        loss - entropy * case.num("entropy_bonus", 0.0)
    })
}

/// c·tanh(x/c), or x where the cap is 0; −∞ stays −∞.
pub(super) fn softcap<R: Real>(x: R, cap: f64) -> R {
    if cap == 0.0 || x.value() == f64::NEG_INFINITY { x } else { (x / cap).tanh() * cap }
}

/// ln Σ exp x
pub(super) fn logsumexp<R: Real>(row: &[R]) -> R {
    let max = shift(row);
    row.iter().map(|x| (*x - max).exp()).sum::<R>().ln() + max
}

pub(super) fn distillation<R: Real>(case: &Case<R>) -> Losses<R> {
    let (alpha, temperature) = (case.num("alpha", 0.5), case.num("temperature", 2.0));
    let (student, teacher) = (&case.arrays["student_logits"], &case.arrays["teacher_logits"]);
    let (labels, _) = case.labels.as_ref().expect("labels");
    let ignore_index = case.index("ignore_index", None);
    let ignored: Vec<bool> = labels.iter().map(|label| Some(*label) == ignore_index).collect();
    let valid = ignored.iter().map(|ignored| R::constant(f64::from(u8::from(!ignored)))).collect();
    let losses = of_rows(student, ignored, |row, places| {
        let of = |array: &Array<R>, by: f64| -> Vec<R> {
            log_softmax(&places.iter().map(|&k| array.values[k] / by).collect::<Vec<R>>())
        };
        let (log_p, log_q) = (of(teacher, temperature), of(student, temperature));
        // p·ln(p/q), which is 0 for p = 0
        let share = |j: usize| log_p[j].exp() * (log_p[j] - log_q[j]);
        let soft: R = (0..log_p.len()).filter(|&j| log_p[j].exp().value() > 0.0).map(share).sum();
        let soft = soft * (temperature * temperature);
        let hard = -of(student, 1.0)[labels[row] as usize];
        match alpha {
            0.0 => hard,
            1.0 => soft,
            _ => soft * alpha + hard * (1.0 - alpha),
        }
    });
    Losses { mean_over: Some(valid), ..losses }
}

pub(super) fn cross_entropy_prob<R: Real>(case: &Case<R>) -> Losses<R> {
    let (input, target) = (&case.arrays["input"], &case.arrays["target"]);
    let smoothing = case.num("label_smoothing", 0.0);
    let weights = case.spread("weight", &[input.shape[class_axis(&input.shape)]]);
    of_rows(input, vec![], |_, places| {
        let row: Vec<R> = places.iter().map(|&k| input.values[k]).collect();
        let log_p = log_softmax(&row);
        let share = |(j, &k): (usize, &usize)| {
            let t = target.values[k] * (1.0 - smoothing) + smoothing / row.len() as f64;
            weights[j] * t * log_p[j]
        };
        -places.iter().enumerate().map(share).sum::<R>()
    })
}
