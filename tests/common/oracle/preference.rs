//! Losses of preferences.

use super::{Case, Losses, elementwise, sigmoid, softplus};
use crate::common::real::Real;

/// The losses of that name; `None` for those of other families.
pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    Some(match name {
        "simpo" => {
            let h = |c: R, r: R| (c - r) * case.num("beta", 0.1) - case.num("gamma", 0.5);
            elementwise(case, ["chosen_logps", "rejected_logps"], |c, r| logistic(case, h(c, r)))
        }
        "orpo" => elementwise(case, ["chosen_logps", "rejected_logps"], |c, r| {
            let log_odds = |x: R| x - (-x.exp_m1()).ln();
            -c * case.num("nll_weight", 1.0) + softplus(log_odds(r) - log_odds(c)) * case.num("beta", 0.1)
        }),
        "cpo" => cpo(case),
        "kto" => kto(case),
        _ if name.starts_with("dpo") => pairs(name, case),
        _ => return None,
    })
}

/// `−(1 − ε)·ln σ(h) − ε·ln σ(−h)`
fn logistic<R: Real>(case: &Case<R>, h: R) -> R {
    let share = case.num("label_smoothing", 0.0);
    softplus(-h) * (1.0 - share) + softplus(h) * share
}

fn pairs<R: Real>(name: &str, case: &Case<R>) -> Losses<R> {
    let mut losses = elementwise(case, ["policy_chosen_logps", "policy_rejected_logps"], |x, _| x);
    let of = |input: &str| case.spread(input, &losses.shape);
    let (pc, pr) = (of("policy_chosen_logps"), of("policy_rejected_logps"));
    let (rc, rr) = (of("ref_chosen_logps"), of("ref_rejected_logps"));
    let (nc, nr) = (of("chosen_lengths"), of("rejected_lengths"));
    let delta = case.arrays.get("delta").map_or(0.0, |delta| delta.values[0].value());
    let each = |k: usize| {
        let lengths = [nc[k], nr[k]].map(|n| n.value().max(1.0));
        pair(name, case, [pc[k] - rc[k], pr[k] - rr[k]], lengths, delta)
    };
    losses.values = (0..pc.len()).map(each).collect();
    losses
}

/// The loss of a pair of log-ratios.
fn pair<R: Real>(name: &str, case: &Case<R>, [c, r]: [R; 2], [nc, nr]: [f64; 2], delta: f64) -> R {
    let beta = case.num("beta", 0.1);
    let (hc, hr, h) = (c * beta, r * beta, (c - r) * beta);
    let log_sigmoid = |x: R| -softplus(-x);
    match name {
        "dpo" => logistic(case, h),
        "dpo_hinge" => (R::ONE - h).at_least(0.0),
        "dpo_ipo" => (c / nc - r / nr - 1.0 / (2.0 * beta)).squared(),
        "dpo_exo_pair" => {
            let share = case.num("label_smoothing", 1e-3);
            sigmoid(h) * (log_sigmoid(h) - (1.0 - share).ln()) + sigmoid(-h) * (log_sigmoid(-h) - share.ln())
        }
        "dpo_nca_pair" => -log_sigmoid(hc) - log_sigmoid(-hc) / 2.0 - log_sigmoid(-hr) / 2.0,
        "dpo_robust" => {
            let rate = case.num("label_smoothing", 0.0);
            (log_sigmoid(-h) * rate - log_sigmoid(h) * (1.0 - rate)) / (1.0 - 2.0 * rate)
        }
        "dpo_bco_pair" => -log_sigmoid(hc - delta) - log_sigmoid(-hr + delta),
        "dpo_sppo_hard" => (c - 0.5 / beta).squared() + (r + 0.5 / beta).squared(),
        "dpo_apo_zero" => sigmoid(-hc) + sigmoid(hr),
        "dpo_apo_down" => sigmoid(hc) + sigmoid(-h),
        "dpo_discopop" => {
            let m = sigmoid(h / case.num("tau", 0.05));
            let rest = if m.value() == 0.0 { R::constant(0.0) } else { (-h).exp() * m };
            -log_sigmoid(h) * (R::ONE - m) + rest
        }
        other => panic!("no loss of pairs is called {other}"),
    }
}

/// The likelihood of the chosen answers counts once, however the pairs are reduced.
fn cpo<R: Real>(case: &Case<R>) -> Losses<R> {
    let beta = case.num("beta", 0.1);
    let mut losses = elementwise(case, ["chosen_logps", "rejected_logps"], |c, r| logistic(case, (c - r) * beta));
    let of = |input: &str| case.spread(input, &losses.shape);
    let (chosen, lengths, mask) = (of("chosen_logps"), of("chosen_lengths"), of("mask"));
    let kept = |k: &usize| mask[*k].value() != 0.0;
    let sum = |x: &[R]| (0..x.len()).filter(kept).map(|k| x[k]).sum::<R>();
    losses.of_batch = Some(-(sum(&chosen) / sum(&lengths)) * case.num("alpha", 1.0));
    losses
}

fn kto<R: Real>(case: &Case<R>) -> Losses<R> {
    let mut losses = elementwise(case, ["policy_logps", "ref_logps"], |x, t| x - t);
    let kl = case.arrays.get("kl").map_or(0.0, |kl| kl.values[0].value());
    let beta = case.num("beta", 0.1);
    let label: Vec<bool> = match &case.labels {
        Some((labels, _)) => labels.iter().map(|label| *label == 1).collect(),
        None => case.spread("label", &losses.shape).iter().map(|label| label.value() == 1.0).collect(),
    };
    let each = |(r, is_good): (&R, &bool)| match is_good {
        true => (R::ONE - sigmoid((*r - kl) * beta)) * case.num("desirable_weight", 1.0),
        false => (R::ONE - sigmoid(-(*r - kl) * beta)) * case.num("undesirable_weight", 1.0),
    };
    losses.values = losses.values.iter().zip(&label).map(each).collect();
    losses
}
