//! What must hold of the f64 path's own results: faults of a formula show on both paths alike.

use super::draw::loss_scope;
use super::judge::row_groups;
use super::problem::{Data, Flavour, Form, Problem, Values};
use super::reference::{Key, Outcome, terms};
use super::values::{Host, ignored_index};
use wgloss::{Reduction, Scope};

/// Losses that are finite where what has probability zero has a logit, or a log-probability, of −∞.
pub const FINITE_AT_ZERO: [&str; 5] = ["cross_entropy_prob", "kl_div", "bce_with_logits", "sigmoid_focal", "jsd"];

/// The rule that a result breaks, and how.
pub fn check(problem: &Problem, data: Data, hosts: &[Host], want: &Outcome) -> Option<(&'static str, String)> {
    ignored_labels_are_good(problem, want)
        .or_else(|| a_nan_loss_has_no_finite_gradient(problem, data, hosts, want))
        .or_else(|| no_positive_loss_is_zero(problem, hosts, want))
        .or_else(|| probability_zero_is_finite(problem, data, want))
}

fn ignored_labels_are_good(problem: &Problem, want: &Outcome) -> Option<(&'static str, String)> {
    let (row, label) = want.bad_label?;
    let ignores = |form: &Form| match form {
        Form::Catalogue { .. } => ignored_index(form) == Some(label),
        Form::Expression { tree, .. } => {
            !tree.reads(super::expression::LABEL) && !tree.reads(super::expression::CLASSES)
        }
    };
    let all = problem.terms.iter().all(|term| ignores(&term.form));
    all.then(|| ("an ignored label is bad", format!("row {row} has the label {label}, which every term ignores")))
}

/// Of catalogue losses that are not reduced: what poisons a loss poisons its gradients.
fn a_nan_loss_has_no_finite_gradient(
    problem: &Problem,
    data: Data,
    hosts: &[Host],
    want: &Outcome,
) -> Option<(&'static str, String)> {
    // 0·∞ of a weight 0 and an infinite loss is no poison.
    if data.flavour == Flavour::MinusInfinity {
        return None;
    }
    let unreduced = problem.terms.iter().all(|term| term.reduction == Reduction::None) && problem.is_catalogue();
    let elsewhere = problem.inputs.iter().zip(hosts).any(|(input, host)| {
        let own = input.scope == Scope::Element && input.name != "upstream";
        !own && host.numbers().iter().any(|x| x.is_nan())
    });
    let loss = want.outputs.get(&Key::Loss).filter(|_| unreduced && !elsewhere)?;
    let scope = loss_scope(problem);
    for (key, grads) in &want.outputs {
        let Key::Grad(name) = key else { continue };
        let input = problem.input(name)?;
        let own = problem.loss_of(&problem.terms[0]).inputs().iter().any(|i| i.name == *name);
        if input.scope != Scope::Element || input.shape_beside(&problem.domain) != problem.domain || !own {
            continue;
        }
        let rows = match (scope, problem.columns()) {
            (Scope::Row, Some(columns)) => {
                row_groups(input.shape_beside(&problem.domain), problem.domain.len(), &columns)
            }
            (Scope::Element, _) => (0..grads.len()).collect(),
            _ => continue,
        };
        let finite = (0..grads.len()).find(|k| loss[rows[*k]].is_nan() && !grads[*k].is_nan());
        if let Some(k) = finite {
            let message = format!("loss {} is NaN, the gradient of {name}[{k}] is {:e}", rows[k], grads[k]);
            return Some(("a NaN loss with a finite gradient", message));
        }
    }
    None
}

fn no_positive_loss_is_zero(problem: &Problem, hosts: &[Host], want: &Outcome) -> Option<(&'static str, String)> {
    let [term] = &problem.terms[..] else { return None };
    if term.reduction != Reduction::MeanOverPositive || problem.outputs.accumulate_loss {
        return None;
    }
    let losses = terms(problem, hosts)?;
    let none = losses.iter().all(|x| *x == 0.0) && loss_scope(problem) > Scope::Total;
    // A scale of NaN is no matter of the reduction.
    let scale = problem.inputs.iter().zip(hosts).filter(|(input, _)| problem.scaled_by == Some(input.name.as_str()));
    let is_nan = scale.flat_map(|(_, host)| host.numbers()).any(|x| x.is_nan());
    let loss = *want.outputs.get(&Key::Loss)?.first().filter(|_| !is_nan)?;
    (none && loss != 0.0)
        .then(|| ("no positive loss", format!("all losses are 0, their mean over the positive is {loss}")))
}

fn probability_zero_is_finite(problem: &Problem, data: Data, want: &Outcome) -> Option<(&'static str, String)> {
    let [term] = &problem.terms[..] else { return None };
    let known = FINITE_AT_ZERO.contains(&term.form.name());
    if data.flavour != Flavour::MinusInfinity || !known || !has_pairs(problem) || term.reduction != Reduction::None {
        return None;
    }
    for (key, values) in &want.outputs {
        if let Some(k) = values.iter().position(|x| x.is_nan()).filter(|_| *key == Key::Loss || is_first(problem, key))
        {
            return Some(("probability zero at −∞", format!("{key}[{k}] is NaN")));
        }
    }
    None
}

/// Whether a key is the gradient of the logits.
fn is_first(problem: &Problem, key: &Key) -> bool {
    *key == Key::Grad(problem.inputs[0].name.clone())
}

/// Whether the first two inputs are logits and what they are compared with, one for one, and nothing else is there.
pub fn has_pairs(problem: &Problem) -> bool {
    let [a, b, rest @ ..] = &problem.inputs[..] else { return false };
    let whole = |input: &super::problem::Input| input.shape == problem.domain && !input.home.repeats.contains(&true);
    let logits = matches!(a.values, Values::Logits | Values::LogProbability);
    let pairs = logits && matches!(b.values, Values::Probability | Values::LogProbability);
    let plain =
        |form: &Form| matches!(form, Form::Catalogue { options, .. } if options.iter().all(|o| o.0 == "log_target"));
    pairs && whole(a) && whole(b) && rest.is_empty() && problem.terms.iter().all(|term| plain(&term.form))
}
