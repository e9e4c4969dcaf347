//! Losses of policies, of tokens.

use super::{Case, Losses, elementwise};
use crate::common::real::Real;

/// The losses of that name; `None` for those of other families.
pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    match name {
        "policy_gradient" => Some(policy_gradient(case)),
        "ppo_clip" => Some(ppo_clip(case)),
        "value_clip" => Some(value_clip(case)),
        "grpo" => Some(of_sequences(case, case.word("loss_type", "grpo"), grpo_token)),
        "cispo" => Some(of_sequences(case, "dapo", cispo_token)),
        _ => None,
    }
}

/// The number of losses that the mask keeps, at least 1.
fn kept<R: Real>(case: &Case<R>, shape: &[usize]) -> R {
    let mask = case.spread("mask", shape);
    R::constant(mask.iter().filter(|mask| mask.value() != 0.0).count().max(1) as f64)
}

fn policy_gradient<R: Real>(case: &Case<R>) -> Losses<R> {
    let mut losses = elementwise(case, ["log_probs", "advantages"], |x, a| -x * a.value());
    if case.arrays.contains_key("entropy") {
        let entropy = case.spread("entropy", &losses.shape);
        let coefficient = case.num("entropy_coef", 0.01);
        losses.values = losses.values.iter().zip(&entropy).map(|(loss, h)| *loss - *h * coefficient).collect();
    }
    losses.divisor = Some(kept(case, &losses.shape));
    losses
}

/// The value between two bounds.
fn clamp<R: Real>(x: R, low: f64, high: f64) -> R {
    if x.value() <= low {
        R::constant(low)
    } else if x.value() >= high {
        R::constant(high)
    } else {
        x
    }
}

fn clipped_gain<R: Real>(case: &Case<R>, ratio: R, advantage: R) -> R {
    let bound = clamp(ratio, 1.0 - case.num("clip_low", 0.2), 1.0 + case.num("clip_high", 0.2));
    let (whole, clipped) = (ratio * advantage, bound * advantage);
    if whole.value() <= clipped.value() { -whole } else { -clipped }
}

fn ppo_clip<R: Real>(case: &Case<R>) -> Losses<R> {
    let mut losses = elementwise(case, ["log_probs", "old_log_probs"], |x, old| (x - old).exp());
    let advantages = case.spread("advantages", &losses.shape);
    losses.values = losses.values.iter().zip(&advantages).map(|(r, a)| clipped_gain(case, *r, *a)).collect();
    losses.taken_from = losses.values.iter().map(|loss| loss.value().abs()).collect();
    losses
}

fn value_clip<R: Real>(case: &Case<R>) -> Losses<R> {
    let mut losses = elementwise(case, ["values", "old_values"], |x, _| x);
    let of = |input: &str| case.spread(input, &losses.shape);
    let (values, old, returns, clip) = (of("values"), of("old_values"), of("returns"), case.num("clip", 0.2));
    let each = |k: usize| {
        let near = old[k] + clamp(values[k] - old[k], -clip, clip);
        let (free, clipped) = ((values[k] - returns[k]).squared(), (near - returns[k]).squared());
        if free.value() >= clipped.value() { free / 2.0 } else { clipped / 2.0 }
    };
    losses.values = (0..values.len()).map(each).collect();
    losses.divisor = Some(kept(case, &losses.shape));
    losses
}

/// What a token's loss is made of.
struct Token<R> {
    log_prob: R,
    /// Difference of the log-probability from the old policy's, of the token and as a mean over the sequence.
    moved: R,
    moved_on_average: R,
    advantage: R,
}

fn grpo_token<R: Real>(case: &Case<R>, token: &Token<R>) -> R {
    let is_sequence = case.word("importance_level", "token") == "sequence";
    let ratio = if is_sequence { token.moved_on_average } else { token.moved };
    clipped_gain(case, ratio.exp(), token.advantage)
}

fn cispo_token<R: Real>(case: &Case<R>, token: &Token<R>) -> R {
    let weight = token.moved.value().exp().min(case.num("clip_high", 5.0));
    -token.log_prob * token.advantage * weight
}

/// Losses of tokens, whose mean is of that type.
fn of_sequences<R: Real>(case: &Case<R>, loss_type: &str, loss: impl Fn(&Case<R>, &Token<R>) -> R) -> Losses<R> {
    let by_length = if loss_type == "grpo" { 1 } else { 0 };
    let mut losses = elementwise(case, ["log_probs", "old_log_probs"], |x, old| x - old.value());
    let shape = losses.shape.clone();
    let cols = shape[shape.len() - 1];
    let rows = losses.values.len() / cols;
    let x = case.spread("log_probs", &shape);
    let mask: Vec<bool> = case.spread("mask", &shape).iter().map(|mask| mask.value() != 0.0).collect();
    let reference = case.arrays.contains_key("ref_log_probs").then(|| case.spread("ref_log_probs", &shape));
    let advantages = case.spread("advantages", &shape[..shape.len() - 1]);
    let moved = losses.values.clone();
    for (row, advantage) in advantages.into_iter().enumerate() {
        let tokens: Vec<usize> = (row * cols..(row + 1) * cols).filter(|k| mask[*k]).collect();
        let length = tokens.len().max(1) as f64;
        let moved_on_average = tokens.iter().map(|k| moved[*k]).sum::<R>() / length;
        for k in row * cols..(row + 1) * cols {
            let token = Token { log_prob: x[k], moved: moved[k], moved_on_average, advantage };
            let mut value = loss(case, &token);
            if let Some(reference) = &reference {
                let d = -x[k] + reference[k].value();
                value = value + (d.exp() - d - 1.0) * case.num("beta", 0.0);
            }
            losses.values[k] = if mask[k] { value / length.powi(by_length) } else { R::constant(0.0) };
        }
    }
    let num_tokens = case.num("num_tokens", 0.0).max(1.0);
    losses.divisor = Some(match loss_type {
        "grpo" => R::constant(rows as f64),
        "bnpo" => kept(case, &shape),
        "dr_grpo" => R::constant(rows as f64 * case.num("max_length", 256.0)),
        _ => R::constant(num_tokens),
    });
    losses
}
