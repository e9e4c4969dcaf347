//! Direct preference optimisation: losses of a policy against a reference, of pairs of a chosen and a rejected answer.
//!
//! Each takes the log-probabilities of whole answers, summed over their tokens. The rewards of a pair are
//! `β·(policy − ref)` of its two answers, and its margin is the difference of the rewards.

use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use crate::expr::Expr;
use crate::loss::Value::Num;
use crate::loss::{Build, DefinitionBuilder, Domain, Loss};
use crate::shape::Scope;

const LOGPS: Ranges = &[
    ("policy_chosen_logps", Range::LogProbability),
    ("policy_rejected_logps", Range::LogProbability),
    ("ref_chosen_logps", Range::LogProbability),
    ("ref_rejected_logps", Range::LogProbability),
];
const LOGPS_AND_LENGTHS: Ranges = &[
    ("policy_chosen_logps", Range::LogProbability),
    ("policy_rejected_logps", Range::LogProbability),
    ("ref_chosen_logps", Range::LogProbability),
    ("ref_rejected_logps", Range::LogProbability),
    ("chosen_lengths", Range::Length),
    ("rejected_lengths", Range::Length),
];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("dpo", || dpo().into()).inputs(LOGPS).variants(&[&[("label_smoothing", Num(0.2)), ("beta", Num(0.5))]]),
    Entry::new("dpo_hinge", || dpo_hinge().into()).inputs(LOGPS),
    Entry::new("dpo_ipo", || dpo_ipo().into()).inputs(LOGPS_AND_LENGTHS),
    Entry::new("dpo_exo_pair", || dpo_exo_pair().into()).inputs(LOGPS).variants(&[&[("label_smoothing", Num(0.3))]]),
    Entry::new("dpo_nca_pair", || dpo_nca_pair().into()).inputs(LOGPS),
    Entry::new("dpo_robust", || dpo_robust().into()).inputs(LOGPS).variants(&[&[("label_smoothing", Num(0.1))]]),
    Entry::new("dpo_bco_pair", || dpo_bco_pair().into()).inputs(LOGPS),
    Entry::new("dpo_sppo_hard", || dpo_sppo_hard().into()).inputs(LOGPS),
    Entry::new("dpo_apo_zero", || dpo_apo_zero().into()).inputs(LOGPS),
    Entry::new("dpo_apo_down", || dpo_apo_down().into()).inputs(LOGPS),
    Entry::new("dpo_discopop", || dpo_discopop().into()).inputs(LOGPS).variants(&[&[("tau", Num(0.5))]]),
];

/// Begins a loss of pairs of answers, with the option `beta`.
fn of_pairs(name: &str) -> DefinitionBuilder {
    let inputs = ["policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps", "ref_rejected_logps"];
    let definition =
        inputs.iter().fold(Loss::define(name), |definition, input| definition.input(input, Scope::Element));
    definition.param("beta", 0.1, Domain::Positive)
}

/// `policy − ref` of the chosen and of the rejected answer.
fn log_ratios<'g>(b: &Build<'g>) -> [Expr<'g>; 2] {
    let ratio = |answer: &str| b.input(&format!("policy_{answer}_logps")) - b.input(&format!("ref_{answer}_logps"));
    [ratio("chosen"), ratio("rejected")]
}

/// The rewards of the chosen and of the rejected answer.
fn rewards<'g>(b: &Build<'g>) -> [Expr<'g>; 2] {
    let beta = b.param("beta");
    log_ratios(b).map(|ratio| beta * ratio)
}

/// The margin: how much larger the reward of the chosen answer is.
fn margin<'g>(b: &Build<'g>) -> Expr<'g> {
    let [chosen, rejected] = log_ratios(b);
    b.param("beta") * (chosen - rejected)
}

/// A log-ratio over the number of tokens, where that is given.
fn per_token<'g>(b: &Build<'g>, ratio: Expr<'g>, lengths: &str) -> Expr<'g> {
    b.optional(lengths).map_or(ratio, |lengths| ratio / lengths.to_float().maximum(1.0))
}

/// `σ(h)·(ln σ(h) − ln p)`: what an answer of probability σ(h) adds to the divergence from the label `p`.
fn from_label<'g>(h: Expr<'g>, label: Expr<'g>) -> Expr<'g> {
    h.sigmoid() * (h.log_sigmoid() - label.log())
}

/// `−(1 − ε)·ln σ(h) − ε·ln σ(−h)`, with `ε = label_smoothing`.
pub(super) fn smoothed_logistic<'g>(b: &Build<'g>, h: Expr<'g>) -> Expr<'g> {
    if b.value("label_smoothing") == Some(0.0) {
        return -h.log_sigmoid();
    }
    let share = b.param("label_smoothing");
    -((1.0 - share) * h.log_sigmoid() + share * (-h).log_sigmoid())
}

/// Direct preference optimisation: the chosen answer shall gain more probability than the rejected one.
///
/// `L = −(1 − ε)·ln σ(h) − ε·ln σ(−h)`, with the margin `h = β·((policy_chosen − ref_chosen) − (policy_rejected −
/// ref_rejected))` of log-probabilities.
///
/// Shapes: all inputs of one shape, a value per pair → loss of that shape. Unit: nats; the mean divides by the number of
/// pairs.
/// Gradient: `β·(ε − σ(−h))` with respect to `policy_chosen_logps` and `ref_rejected_logps`, its negative
/// with respect to the other two.
/// Options: `beta` (0.1), `label_smoothing` ε (0), the share of labels taken as flipped (conservative DPO).
/// Errors: `Error::Param` unless `beta` is finite and > 0 and `label_smoothing` in \[0, 1\].
/// Source: Rafailov et al. (2023), arXiv:2305.18290; ε as in Mitchell (2023). Same as TRL's `sigmoid` and Liger's DPO loss;
/// [`dpo_robust`] corrects for flipped labels.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let policy = [("policy_chosen_logps", [-1.0f32]), ("policy_rejected_logps", [-2.0])];
/// let values = [policy, [("ref_chosen_logps", [-1.0]), ("ref_rejected_logps", [-2.0])]].concat();
/// let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, HostTensor::f32(value, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::dpo(), &inputs, &["policy_chosen_logps"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-7);
/// assert!((out.grad("policy_chosen_logps")?[0] - (-0.05)).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dpo() -> Dpo {
    let definition = of_pairs("dpo").special_param("label_smoothing", 0.0, Domain::Unit, &[0.0]);
    Dpo(definition.expr(|b| smoothed_logistic(b, margin(b))))
}

loss_with_options! {
    /// The loss that [`dpo`] makes.
    Dpo {
        /// `β`, by which log-ratios become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
        /// `ε`, the share of labels taken as flipped; in \[0, 1\], else `Error::Param`; 0 by default.
        number label_smoothing;
    }
}

/// Hinge loss of the margin of a pair of answers.
///
/// `L = max(1 − h, 0)`, with the margin `h` of [`dpo`].
///
/// Shapes: all inputs of one shape, a value per pair → loss of that shape. Unit: none; the mean divides by the number of
/// pairs.
/// Gradient: `−β` where `h < 1`, else 0, with respect to `policy_chosen_logps` and `ref_rejected_logps`; its negative with
/// respect to the other two; 0 at `h = 1`.
/// Options: `beta` (0.1).
/// Errors: `Error::Param` unless `beta` is finite and > 0.
/// Source: Zhao et al. (2023), SLiC-HF, arXiv:2305.10425; Liu et al. (2024), RSO, arXiv:2309.06657. Same as TRL's `hinge`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let policy = [("policy_chosen_logps", [-1.0f32]), ("policy_rejected_logps", [-2.0])];
/// let values = [policy, [("ref_chosen_logps", [-1.0]), ("ref_rejected_logps", [-2.0])]].concat();
/// let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, HostTensor::f32(value, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::dpo_hinge(), &inputs, &["policy_chosen_logps"])?;
/// assert!((out.loss()? - 1.0).abs() < 1e-7);
/// assert!((out.grad("policy_chosen_logps")?[0] - (-0.1)).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dpo_hinge() -> DpoHinge {
    DpoHinge(of_pairs("dpo_hinge").expr(|b| (1.0 - margin(b)).relu()))
}

loss_with_options! {
    /// The loss that [`dpo_hinge`] makes.
    DpoHinge {
        /// `β`, by which log-ratios become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
    }
}

/// Identity preference optimisation: the difference of log-ratios shall be `1/(2β)`.
///
/// `L = (r_c/n_c − r_r/n_r − 1/(2β))²`, with the log-ratios `r = policy − ref` of the chosen and of the rejected answer, and
/// their numbers of tokens `n = max(lengths, 1)`; 1 where these are absent.
///
/// Shapes: all inputs of one shape, a value per pair; optional `chosen_lengths`, `rejected_lengths` are integers → loss of
/// that shape. Unit: none; the mean divides by the number of pairs.
/// Gradient: `2·(r_c/n_c − r_r/n_r − 1/(2β))/n_c` with respect to `policy_chosen_logps`; of the other inputs likewise.
/// Options: `beta` (0.1).
/// Errors: `Error::Param` unless `beta` is finite and > 0.
/// Source: Azar et al. (2023), arXiv:2310.12036. Same as TRL's `ipo`, which from 1.0 on divides by lengths; without them, as
/// TRL's `CPOTrainer` and older releases.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let policy = [("policy_chosen_logps", [-1.0f32]), ("policy_rejected_logps", [-2.0])];
/// let values = [policy, [("ref_chosen_logps", [-1.0]), ("ref_rejected_logps", [-2.0])]].concat();
/// let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, HostTensor::f32(value, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::dpo_ipo(), &inputs, &["policy_chosen_logps"])?;
/// assert!((out.loss()? - 25.0).abs() < 1e-7);
/// assert!((out.grad("policy_chosen_logps")?[0] - (-10.0)).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dpo_ipo() -> DpoIpo {
    let definition = of_pairs("dpo_ipo").optional_labels("chosen_lengths", Scope::Element);
    let loss = definition.optional_labels("rejected_lengths", Scope::Element).expr(|b| {
        let [chosen, rejected] = log_ratios(b);
        let gap =
            per_token(b, chosen, "chosen_lengths") - per_token(b, rejected, "rejected_lengths") - 0.5 / b.param("beta");
        gap * gap
    });
    DpoIpo(loss)
}

loss_with_options! {
    /// The loss that [`dpo_ipo`] makes.
    DpoIpo {
        /// `β`, by which log-ratios become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
    }
}

/// Efficient exact optimisation of pairs: the reverse divergence from smoothed labels.
///
/// `L = σ(h)·(ln σ(h) − ln(1 − ε)) + σ(−h)·(ln σ(−h) − ln ε)`, with the margin `h` of [`dpo`] and `ε = label_smoothing`.
///
/// Shapes: all inputs of one shape, a value per pair → loss of that shape. Unit: nats; the mean divides by the number of
/// pairs.
/// Gradient: `β·σ(h)·σ(−h)·(h − ln((1 − ε)/ε))` with respect to `policy_chosen_logps` and `ref_rejected_logps`; its negative
/// with respect to the other two. At `ε = 0` the loss is +∞.
/// Options: `beta` (0.1), `label_smoothing` ε (1e-3).
/// Errors: `Error::Param` unless `beta` is finite and > 0 and `label_smoothing` in \[0, 1\].
/// Source: Ji et al. (2024), arXiv:2402.00856. Same as TRL's `exo_pair`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let policy = [("policy_chosen_logps", [-1.0f32]), ("policy_rejected_logps", [-2.0])];
/// let values = [policy, [("ref_chosen_logps", [-1.0]), ("ref_rejected_logps", [-2.0])]].concat();
/// let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, HostTensor::f32(value, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::dpo_exo_pair().label_smoothing(0.5), &inputs, &["policy_chosen_logps"])?;
/// assert!((out.loss()? - 0.0).abs() < 1e-7);
/// assert!((out.grad("policy_chosen_logps")?[0] - 0.0).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dpo_exo_pair() -> DpoExoPair {
    let definition = of_pairs("dpo_exo_pair").param("label_smoothing", 1e-3, Domain::Unit);
    let loss = definition.expr(|b| {
        let (h, share) = (margin(b), b.param("label_smoothing"));
        from_label(h, 1.0 - share) + from_label(-h, share)
    });
    DpoExoPair(loss)
}

loss_with_options! {
    /// The loss that [`dpo_exo_pair`] makes.
    DpoExoPair {
        /// `β`, by which log-ratios become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
        /// `ε`, the probability of the rejected answer that is aimed at; in \[0, 1\], else `Error::Param`; 1e-3 by default.
        number label_smoothing;
    }
}

/// Noise contrastive alignment of pairs: the chosen reward shall rise by itself, not only beside the rejected one.
///
/// `L = −ln σ(h_c) − ln σ(−h_c)/2 − ln σ(−h_r)/2`, with the rewards `h = β·(policy − ref)` of the chosen and of the
/// rejected answer.
///
/// Shapes: all inputs of one shape, a value per pair → loss of that shape. Unit: nats; the mean divides by the number of
/// pairs.
/// Gradient: `β·(σ(h_c)/2 − σ(−h_c))` with respect to `policy_chosen_logps`, `β·σ(h_r)/2` with respect to
/// `policy_rejected_logps`; their negatives with respect to the reference's.
/// Options: `beta` (0.1).
/// Errors: `Error::Param` unless `beta` is finite and > 0.
/// Source: Chen et al. (2024), arXiv:2402.05369. Same as TRL's `nca_pair`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let policy = [("policy_chosen_logps", [-1.0f32]), ("policy_rejected_logps", [-2.0])];
/// let values = [policy, [("ref_chosen_logps", [-1.0]), ("ref_rejected_logps", [-2.0])]].concat();
/// let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, HostTensor::f32(value, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::dpo_nca_pair(), &inputs, &["policy_chosen_logps"])?;
/// assert!((out.loss()? - 2.0 * 2f64.ln()).abs() < 1e-7);
/// assert!((out.grad("policy_chosen_logps")?[0] - (-0.025)).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dpo_nca_pair() -> DpoNcaPair {
    let loss = of_pairs("dpo_nca_pair").expr(|b| {
        let [chosen, rejected] = rewards(b);
        -(chosen.log_sigmoid() + 0.5 * (-chosen).log_sigmoid() + 0.5 * (-rejected).log_sigmoid())
    });
    DpoNcaPair(loss)
}

loss_with_options! {
    /// The loss that [`dpo_nca_pair`] makes.
    DpoNcaPair {
        /// `β`, by which log-ratios become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
    }
}

/// Direct preference optimisation whose expectation labels flipped at a known rate do not change.
///
/// `L = (−(1 − ε)·ln σ(h) + ε·ln σ(−h))/(1 − 2ε)`, with the margin `h` of [`dpo`]. It may be negative, and has no bound below.
///
/// Shapes: all inputs of one shape, a value per pair → loss of that shape. Unit: nats; the mean divides by the number of
/// pairs.
/// Gradient: `−β·((1 − ε)·σ(−h) + ε·σ(h))/(1 − 2ε)` with respect to `policy_chosen_logps` and `ref_rejected_logps`; its
/// negative with respect to the other two.
/// Options: `beta` (0.1), `label_smoothing` ε (0), the rate of flipped labels.
/// Errors: `Error::Param` unless `beta` is finite and > 0 and `label_smoothing` in \[0, 0.5).
/// Source: Chowdhury, Kini and Natarajan (2024), arXiv:2403.00409. Same as TRL's `robust`; the sign of the second term is not
/// that of [`dpo`].
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let policy = [("policy_chosen_logps", [-1.0f32]), ("policy_rejected_logps", [-2.0])];
/// let values = [policy, [("ref_chosen_logps", [-1.0]), ("ref_rejected_logps", [-2.0])]].concat();
/// let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, HostTensor::f32(value, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::dpo_robust().label_smoothing(0.25), &inputs, &["policy_chosen_logps"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-7);
/// assert!((out.grad("policy_chosen_logps")?[0] - (-0.1)).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dpo_robust() -> DpoRobust {
    let definition = of_pairs("dpo_robust").special_param("label_smoothing", 0.0, Domain::BelowHalf, &[0.0]);
    let loss = definition.expr(|b| {
        let h = margin(b);
        if b.value("label_smoothing") == Some(0.0) {
            return -h.log_sigmoid();
        }
        let rate = b.param("label_smoothing");
        (rate * (-h).log_sigmoid() - (1.0 - rate) * h.log_sigmoid()) / (1.0 - 2.0 * rate)
    });
    DpoRobust(loss)
}

loss_with_options! {
    /// The loss that [`dpo_robust`] makes.
    DpoRobust {
        /// `β`, by which log-ratios become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
        /// `ε`, the rate of flipped labels; in \[0, 0.5), else `Error::Param`; 0 by default.
        number label_smoothing;
    }
}

/// Binary classifier optimisation of pairs: chosen rewards shall be above a shift, rejected ones below.
///
/// `L = −ln σ(h_c − δ) − ln σ(δ − h_r)`, with the rewards `h = β·(policy − ref)` of the chosen and of the rejected answer and
/// `δ = delta`; 0 where that is absent.
///
/// Shapes: all inputs of one shape, a value per pair; optional scalar `delta` → loss of that shape. Unit: nats; the mean
/// divides by the number of pairs.
/// Gradient: `−β·σ(δ − h_c)` with respect to `policy_chosen_logps`, `β·σ(h_r − δ)` with respect to `policy_rejected_logps`;
/// their negatives with respect to the reference's. `delta` is a constant.
/// Options: `beta` (0.1).
/// Errors: `Error::Param` unless `beta` is finite and > 0.
/// Source: Jung et al. (2024), arXiv:2404.04656, where δ is the running mean of the rewards. Same as TRL's `bco_pair`, which has
/// no δ.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let policy = [("policy_chosen_logps", [-1.0f32]), ("policy_rejected_logps", [-2.0])];
/// let values = [policy, [("ref_chosen_logps", [-1.0]), ("ref_rejected_logps", [-2.0])]].concat();
/// let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, HostTensor::f32(value, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::dpo_bco_pair(), &inputs, &["policy_chosen_logps"])?;
/// assert!((out.loss()? - 2.0 * 2f64.ln()).abs() < 1e-7);
/// assert!((out.grad("policy_chosen_logps")?[0] - (-0.05)).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dpo_bco_pair() -> DpoBcoPair {
    let loss = of_pairs("dpo_bco_pair").optional("delta", Scope::Scalar).expr(|b| {
        let [chosen, rejected] = rewards(b);
        let [above, below] = match b.optional("delta") {
            Some(delta) => [chosen - delta.detach(), delta.detach() - rejected],
            None => [chosen, -rejected],
        };
        -(above.log_sigmoid() + below.log_sigmoid())
    });
    DpoBcoPair(loss)
}

loss_with_options! {
    /// The loss that [`dpo_bco_pair`] makes.
    DpoBcoPair {
        /// `β`, by which log-ratios become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
    }
}

/// Self-play preference optimisation with certain labels.
///
/// `L = (r_c − 1/(2β))² + (r_r + 1/(2β))²`, with the log-ratios `r = policy − ref` of the chosen and of the rejected answer.
///
/// Shapes: all inputs of one shape, a value per pair → loss of that shape. Unit: none; the mean divides by the number of
/// pairs.
/// Gradient: `2·(r_c − 1/(2β))` with respect to `policy_chosen_logps`, `2·(r_r + 1/(2β))` with respect to
/// `policy_rejected_logps`; their negatives with respect to the reference's.
/// Options: `beta` (0.1).
/// Errors: `Error::Param` unless `beta` is finite and > 0.
/// Source: Wu et al. (2024), arXiv:2405.00675. Same as TRL's `sppo_hard`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let policy = [("policy_chosen_logps", [-1.0f32]), ("policy_rejected_logps", [-2.0])];
/// let values = [policy, [("ref_chosen_logps", [-1.0]), ("ref_rejected_logps", [-2.0])]].concat();
/// let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, HostTensor::f32(value, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::dpo_sppo_hard(), &inputs, &["policy_chosen_logps"])?;
/// assert!((out.loss()? - 50.0).abs() < 1e-7);
/// assert!((out.grad("policy_chosen_logps")?[0] - (-10.0)).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dpo_sppo_hard() -> DpoSppoHard {
    let loss = of_pairs("dpo_sppo_hard").expr(|b| {
        let ([chosen, rejected], aim) = (log_ratios(b), 0.5 / b.param("beta"));
        (chosen - aim).powi(2) + (rejected + aim).powi(2)
    });
    DpoSppoHard(loss)
}

loss_with_options! {
    /// The loss that [`dpo_sppo_hard`] makes.
    DpoSppoHard {
        /// `β`, by which log-ratios become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
    }
}

/// Anchored preference optimisation: the chosen answer shall gain probability, the rejected one lose it.
///
/// `L = σ(−h_c) + σ(h_r)`, with the rewards `h = β·(policy − ref)` of the chosen and of the rejected answer.
///
/// Shapes: all inputs of one shape, a value per pair → loss of that shape. Unit: none; the mean divides by the number of
/// pairs.
/// Gradient: `−β·σ(h_c)·σ(−h_c)` with respect to `policy_chosen_logps`, `β·σ(h_r)·σ(−h_r)` with respect to
/// `policy_rejected_logps`; their negatives with respect to the reference's.
/// Options: `beta` (0.1).
/// Errors: `Error::Param` unless `beta` is finite and > 0.
/// Source: D'Oosterlinck et al. (2024), arXiv:2408.06266. Same as TRL's `apo_zero`; [`dpo_apo_down`] lets the chosen answer lose
/// probability too.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let policy = [("policy_chosen_logps", [-1.0f32]), ("policy_rejected_logps", [-2.0])];
/// let values = [policy, [("ref_chosen_logps", [-1.0]), ("ref_rejected_logps", [-2.0])]].concat();
/// let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, HostTensor::f32(value, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::dpo_apo_zero(), &inputs, &["policy_chosen_logps"])?;
/// assert!((out.loss()? - 1.0).abs() < 1e-7);
/// assert!((out.grad("policy_chosen_logps")?[0] - (-0.025)).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dpo_apo_zero() -> DpoApoZero {
    let loss = of_pairs("dpo_apo_zero").expr(|b| {
        let [chosen, rejected] = rewards(b);
        (-chosen).sigmoid() + rejected.sigmoid()
    });
    DpoApoZero(loss)
}

loss_with_options! {
    /// The loss that [`dpo_apo_zero`] makes.
    DpoApoZero {
        /// `β`, by which log-ratios become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
    }
}

/// Anchored preference optimisation where the policy is better than its data: both answers shall lose probability, the
/// rejected one more.
///
/// `L = σ(h_c) + σ(−h)`, with the reward `h_c = β·(policy − ref)` of the chosen answer and the margin `h` of [`dpo`].
///
/// Shapes: all inputs of one shape, a value per pair → loss of that shape. Unit: none; the mean divides by the number of
/// pairs.
/// Gradient: `β·(σ(h_c)·σ(−h_c) − σ(h)·σ(−h))` with respect to `policy_chosen_logps`, `β·σ(h)·σ(−h)` with respect to
/// `policy_rejected_logps`; their negatives with respect to the reference's.
/// Options: `beta` (0.1).
/// Errors: `Error::Param` unless `beta` is finite and > 0.
/// Source: D'Oosterlinck et al. (2024), arXiv:2408.06266. Same as TRL's `apo_down`; [`dpo_apo_zero`] anchors the other way.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let policy = [("policy_chosen_logps", [-1.0f32]), ("policy_rejected_logps", [-2.0])];
/// let values = [policy, [("ref_chosen_logps", [-1.0]), ("ref_rejected_logps", [-2.0])]].concat();
/// let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, HostTensor::f32(value, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::dpo_apo_down(), &inputs, &["policy_rejected_logps"])?;
/// assert!((out.loss()? - 1.0).abs() < 1e-7);
/// assert!((out.grad("policy_rejected_logps")?[0] - 0.025).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dpo_apo_down() -> DpoApoDown {
    let loss = of_pairs("dpo_apo_down").expr(|b| {
        let ([chosen, rejected], h) = (rewards(b), margin(b));
        let ([up, down], [right, wrong]) = ([chosen, -chosen].map(Expr::sigmoid), [h, -h].map(Expr::sigmoid));
        // σ'(h_c) − σ'(h) as a product: as a difference it would lose its digits where the rejected reward is near 0.
        let tanhs = (0.5 * rejected).tanh() * (0.5 * (chosen + h)).tanh();
        let by_chosen = -tanhs * (up * wrong + down * right) * (up * right + down * wrong);
        (up + wrong).with_gradient(chosen, by_chosen).with_gradient(rejected, right * wrong)
    });
    DpoApoDown(loss)
}

loss_with_options! {
    /// The loss that [`dpo_apo_down`] makes.
    DpoApoDown {
        /// `β`, by which log-ratios become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
    }
}

/// Discovered preference optimisation: a logistic loss that turns into an exponential one.
///
/// `L = −(1 − m)·ln σ(h) + m·exp(−h)`, with the margin `h` of [`dpo`] and `m = σ(h/τ)`.
///
/// Shapes: all inputs of one shape, a value per pair → loss of that shape. Unit: nats; the mean divides by the number of
/// pairs.
/// Gradient: `β·((m − 1)·σ(−h) − m·exp(−h) + m·(1 − m)·(ln σ(h) + exp(−h))/τ)` with respect to `policy_chosen_logps` and
/// `ref_rejected_logps`; its negative with respect to the other two.
/// Options: `beta` (0.1), `tau` τ (0.05).
/// Errors: `Error::Param` unless `beta` and `tau` are finite and > 0.
/// Source: Lu et al. (2024), arXiv:2406.08414, its log-ratio modulated loss. Same as TRL's `discopop`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let policy = [("policy_chosen_logps", [-1.0f32]), ("policy_rejected_logps", [-2.0])];
/// let values = [policy, [("ref_chosen_logps", [-1.0]), ("ref_rejected_logps", [-2.0])]].concat();
/// let inputs: Vec<_> = values.iter().map(|(name, value)| (*name, HostTensor::f32(value, &[1]))).collect();
/// let out = cpu::forward_backward(&losses::dpo_discopop().tau(0.5), &inputs, &["policy_chosen_logps"])?;
/// assert!((out.loss()? - 0.5 * (2f64.ln() + 1.0)).abs() < 1e-7);
/// assert!((out.grad("policy_chosen_logps")?[0] - (-0.1 * (0.25 + 0.5 * 2f64.ln()))).abs() < 1e-7);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn dpo_discopop() -> DpoDiscopop {
    let loss = of_pairs("dpo_discopop").param("tau", 0.05, Domain::Positive).expr(|b| {
        let h = margin(b);
        let scaled = h / b.param("tau");
        // m·exp(−h) in one exponential: exp(−h) alone overflows where m is 0.
        (scaled.log_sigmoid() - h).exp() - (-scaled).sigmoid() * h.log_sigmoid()
    });
    DpoDiscopop(loss)
}

loss_with_options! {
    /// The loss that [`dpo_discopop`] makes.
    DpoDiscopop {
        /// `β`, by which log-ratios become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
        /// `τ`, the width in margins over which one loss turns into the other; finite and > 0, else `Error::Param`; 0.05 by
        /// default.
        number tau;
    }
}
