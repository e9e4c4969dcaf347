//! Losses of sequences.

use super::{Case, Losses, last_axis, log_softmax, rows_of};
use crate::common::real::Real;

/// The tokens of a sequence are the rows of one index of the first axis.
pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    if name != "sequence_cross_entropy" {
        return None;
    }
    let input = &case.arrays["input"];
    let (labels, shape) = case.labels.as_ref().expect("labels");
    let mask = case.spread("attention_mask", shape);
    let rows = rows_of(&input.shape, last_axis(&input.shape));
    let sequences = shape.first().copied().unwrap_or(1);
    let per_sequence = rows.len() / sequences;
    let (smoothing, ignored) = (case.num("label_smoothing", 0.0), case.index("ignore_index", Some(-100)));
    let (mut values, mut has_tokens) = (Vec::new(), Vec::new());
    for sequence in 0..sequences {
        let (mut sum, mut tokens) = (R::constant(0.0), 0.0);
        for row in sequence * per_sequence..(sequence + 1) * per_sequence {
            if Some(labels[row]) == ignored || mask[row].value() == 0.0 {
                continue;
            }
            let log_p = log_softmax(&rows[row].iter().map(|&k| input.values[k]).collect::<Vec<R>>());
            let even = log_p.iter().copied().sum::<R>() / log_p.len() as f64;
            sum = sum - log_p[labels[row] as usize] * (1.0 - smoothing) - even * smoothing;
            tokens += 1.0;
        }
        values.push(if tokens > 0.0 { sum / tokens } else { R::constant(0.0) });
        has_tokens.push(R::constant(f64::from(tokens > 0.0)));
    }
    Some(Losses {
        taken_from: vec![0.0; values.len()],
        values,
        shape: vec![sequences],
        mean_over: Some(has_tokens),
        ignored: vec![],
        batch: sequences,
        divisor: None,
        of_batch: None,
    })
}
