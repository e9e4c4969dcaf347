//! Losses of values and of routing.

use super::{Case, Losses, elementwise, log_softmax, of_last_axis};
use crate::common::real::Real;

/// The losses of that name; `None` for those of other families.
pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    match name {
        "td_error" => Some(td_error(case)),
        "c51" => Some(c51(case)),
        _ => None,
    }
}

fn c51<R: Real>(case: &Case<R>) -> Losses<R> {
    let shape = case.common_shape(&["logits", "target"]);
    let (x, m) = (case.spread("logits", &shape), case.spread("target", &shape));
    of_last_axis(&shape, &x, |row| {
        let log_p = log_softmax(&row.iter().map(|&k| x[k]).collect::<Vec<R>>());
        // A share of 0 leaves out what is infinite.
        let shares = row.iter().zip(log_p).filter(|(k, _)| m[**k].value() != 0.0);
        shares.map(|(&k, log_p)| -log_p * m[k].value()).sum()
    })
}

fn td_error<R: Real>(case: &Case<R>) -> Losses<R> {
    let mut losses = elementwise(case, ["values", "rewards"], |v, r| -v + r.value());
    let next = case.spread("next_values", &losses.shape);
    let is_given = case.arrays.contains_key("dones");
    let dones = if is_given { case.spread("dones", &losses.shape) } else { vec![R::constant(0.0); next.len()] };
    let (gamma, delta) = (case.num("gamma", 0.99), case.num("delta", 0.0));
    let each = |k: usize| {
        let e = losses.values[k] + gamma * (1.0 - dones[k].value()) * next[k].value();
        let is_linear = delta > 0.0 && e.value().abs() > delta;
        if is_linear { (e.abs() - delta / 2.0) * delta } else { e * e / 2.0 }
    };
    losses.values = (0..next.len()).map(each).collect();
    losses
}

/// The loss of a router, one number.
pub fn moe_load_balancing<R: Real>(case: &Case<R>) -> R {
    let logits = &case.arrays["router_logits"];
    let experts = logits.shape[logits.shape.len() - 1];
    let tokens = logits.values.len() / experts;
    let given = case.arrays.get("expert_mask").map(|mask| super::broadcast(mask, &logits.shape));
    let (mut load, mut probability) = (vec![0.0; experts], vec![R::constant(0.0); experts]);
    for (token, row) in logits.values.chunks(experts).enumerate() {
        let best = (0..experts).rev().max_by(|a, b| row[*a].value().total_cmp(&row[*b].value())).expect("an expert");
        for (e, log_p) in log_softmax(row).into_iter().enumerate() {
            let chosen =
                given.as_ref().map_or(f64::from(u8::from(e == best)), |mask| mask[token * experts + e].value());
            load[e] += chosen / tokens as f64;
            probability[e] = probability[e] + log_p.exp() / tokens as f64;
        }
    }
    let sum: R = (0..experts).map(|e| probability[e] * load[e]).sum();
    sum * (case.num("alpha", 0.01) * experts as f64)
}
