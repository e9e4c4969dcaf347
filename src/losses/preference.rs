//! Preferences without a reference, of pairs of answers; and of single answers that are labelled good or bad.

use super::dpo::smoothed_logistic;
use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use crate::expr::{Expr, Extent};
use crate::loss::Value::Num;
use crate::loss::{Build, DefinitionBuilder, Domain, Loss, MASK};
use crate::shape::Scope;

const PAIRS: Ranges = &[("chosen_logps", Range::LogProbability), ("rejected_logps", Range::LogProbability)];
const PAIRS_AND_LENGTHS: Ranges = &[
    ("chosen_logps", Range::LogProbability),
    ("rejected_logps", Range::LogProbability),
    ("chosen_lengths", Range::Length),
];
const ANSWERS: Ranges =
    &[("policy_logps", Range::LogProbability), ("ref_logps", Range::LogProbability), ("label", Range::Binary)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("simpo", || simpo().into())
        .inputs(PAIRS)
        .variants(&[&[("label_smoothing", Num(0.1)), ("beta", Num(2.0))]]),
    Entry::new("orpo", || orpo().into()).inputs(PAIRS).variants(&[&[("nll_weight", Num(0.0))]]),
    Entry::new("cpo", || cpo().into()).inputs(PAIRS_AND_LENGTHS).variants(&[&[("label_smoothing", Num(0.2))]]),
    Entry::new("kto", || kto().into()).inputs(ANSWERS),
];

fn of_pairs(name: &str) -> DefinitionBuilder {
    Loss::define(name).input("chosen_logps", Scope::Element).input("rejected_logps", Scope::Element)
}

/// `ln(p/(1 − p))` of a log-probability `ln p`.
fn log_odds<'g>(log_p: Expr<'g>) -> Expr<'g> {
    let rest = log_p.expm1().abs();
    // Of a probability of 1 the derivative is +∞, where 1/(1 − p) as the chain rule has it may be −∞: 1 − p is −0 there.
    (log_p - rest.log()).with_gradient(log_p, 1.0 / rest)
}

fn chosen_and_rejected<'g>(b: &Build<'g>) -> [Expr<'g>; 2] {
    ["chosen_logps", "rejected_logps"].map(|answer| b.input(answer))
}

/// Simple preference optimisation: the chosen answer shall be more probable per token than the rejected one, by a margin.
///
/// `L = −(1 − ε)·ln σ(h) − ε·ln σ(−h)`, with `h = β·(chosen − rejected) − γ` of log-probabilities averaged over tokens.
///
/// Shapes: `chosen_logps, rejected_logps` of one shape, a value per pair → loss of that shape. Unit: nats; the mean divides
/// by the number of pairs.
/// Gradient: `β·(ε − σ(−h))` with respect to `chosen_logps`, its negative with respect to `rejected_logps`.
/// Options: `beta` (0.1), `gamma` γ (0.5), `label_smoothing` ε (0), the share of labels taken as flipped.
/// Errors: `Error::Param` unless `beta` is finite and > 0, `gamma` finite and `label_smoothing` in \[0, 1\].
/// Source: Meng, Xia and Chen (2024), arXiv:2405.14734. Same as TRL's `simpo` and Liger's, whose γ is not multiplied by β.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (c, r) = (HostTensor::f32(&[-1.0], &[1]), HostTensor::f32(&[-2.0], &[1]));
/// let loss = losses::simpo().beta(2.0).gamma(2.0);
/// let out = cpu::forward_backward(&loss, &[("chosen_logps", c), ("rejected_logps", r)], &["chosen_logps"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("chosen_logps")?, [-1.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn simpo() -> Simpo {
    let definition = of_pairs("simpo").param("beta", 0.1, Domain::Positive).param("gamma", 0.5, Domain::Finite);
    let loss = definition.special_param("label_smoothing", 0.0, Domain::Unit, &[0.0]).expr(|b| {
        let [chosen, rejected] = chosen_and_rejected(b);
        smoothed_logistic(b, b.param("beta") * (chosen - rejected) - b.param("gamma"))
    });
    Simpo(loss)
}

loss_with_options! {
    /// The loss that [`simpo`] makes.
    Simpo {
        /// `β`, by which log-probabilities become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
        /// `γ`, the margin that rewards shall keep; finite, else `Error::Param`; 0.5 by default.
        number gamma;
        /// `ε`, the share of labels taken as flipped; in \[0, 1\], else `Error::Param`; 0 by default.
        number label_smoothing;
    }
}

/// Odds ratio preference optimisation: likelihood of the chosen answer, and its odds against those of the rejected one.
///
/// `L = −λ·chosen − β·ln σ(h)`, with the log odds ratio `h = (chosen − ln(1 − exp chosen)) − (rejected − ln(1 − exp
/// rejected))` of log-probabilities below 0, averaged over tokens, and `λ = nll_weight`.
///
/// Shapes: `chosen_logps, rejected_logps` of one shape, a value per pair → loss of that shape. Unit: nats; the mean divides
/// by the number of pairs.
/// Gradient: `−λ − β·σ(−h)/(1 − exp chosen)` with respect to `chosen_logps`, `β·σ(−h)/(1 − exp rejected)` with respect to
/// `rejected_logps`. A log-probability of 0 has infinite odds: of the rejected answer the loss and this gradient are +∞ (in
/// TRL the gradient is NaN), of the chosen one the loss is that of `λ` alone and the gradient NaN; of both, NaN.
/// Options: `beta` (0.1), `nll_weight` λ (1); 0 leaves the odds ratio alone.
/// Errors: `Error::Param` unless `beta` is finite and > 0 and `nll_weight` finite and ≥ 0.
/// Source: Hong, Lee and Thorne (2024), arXiv:2403.07691. The odds ratio is that of TRL's `ORPOTrainer` and of Liger's loss.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let half = HostTensor::f32(&[-1.0], &[1]);
/// let inputs = [("chosen_logps", half.clone()), ("rejected_logps", half)];
/// let out = cpu::forward_backward(&losses::orpo().beta(0.5), &inputs, &["chosen_logps"])?;
/// assert!((out.loss()? - (1.0 + 0.5 * 2f64.ln())).abs() < 1e-12);
/// assert!((out.grad("chosen_logps")?[0] + 1.0 + 0.25 / (1.0 - (-1f64).exp())).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn orpo() -> Orpo {
    let definition = of_pairs("orpo").param("beta", 0.1, Domain::Positive);
    let loss = definition.param("nll_weight", 1.0, Domain::NonNegative).expr(|b| {
        let [chosen, rejected] = chosen_and_rejected(b);
        let h = log_odds(chosen) - log_odds(rejected);
        -(b.param("nll_weight") * chosen + b.param("beta") * h.log_sigmoid())
    });
    Orpo(loss)
}

loss_with_options! {
    /// The loss that [`orpo`] makes.
    Orpo {
        /// `β`, the weight of the odds ratio; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
        /// `λ`, the weight of the chosen answer's negative log-likelihood; finite and ≥ 0, else `Error::Param`; 1 by default.
        number nll_weight;
    }
}

/// Contrastive preference optimisation: a margin between two answers, and the likelihood of the chosen ones.
///
/// `L = −(1 − ε)·ln σ(h) − ε·ln σ(−h)`, reduced, and to that is added `−α·Σ chosen/Σ n` over the batch: `h = β·(chosen −
/// rejected)` of log-probabilities summed over tokens, and the numbers of tokens `n = chosen_lengths`; 1 where absent.
///
/// Shapes: `chosen_logps, rejected_logps` of one shape, a value per pair; optional `chosen_lengths` are integers → loss of that
/// shape. Unit: nats; the mean divides by the number of pairs. With `Reduction::None` every loss has the second term, which no
/// `sample_weight` multiplies.
/// Gradient: `β·(ε − σ(−h)) − α/Σ n` with respect to `chosen_logps` (of the sum), `β·(σ(−h) − ε)` with respect to
/// `rejected_logps`. A pair that `mask` leaves out counts in neither term.
/// Options: `beta` (0.1), `alpha` α (1), `label_smoothing` ε (0), the share of labels taken as flipped.
/// Errors: `Error::Param` unless `beta` is finite and > 0, `alpha` finite and ≥ 0 and `label_smoothing` in \[0, 1\].
/// Source: Xu et al. (2024), arXiv:2401.08417. Same as TRL's `CPOTrainer` (`sigmoid`) and Liger's CPO loss.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (c, r, n) = (HostTensor::f32(&[-3.0], &[1]), HostTensor::f32(&[-3.0], &[1]), HostTensor::i32(&[6], &[1]));
/// let inputs = [("chosen_logps", c), ("rejected_logps", r), ("chosen_lengths", n)];
/// let out = cpu::forward_backward(&losses::cpo().beta(0.5), &inputs, &["chosen_logps"])?;
/// assert!((out.loss()? - (2f64.ln() + 0.5)).abs() < 1e-12);
/// assert!((out.grad("chosen_logps")?[0] + 0.25 + 1.0 / 6.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn cpo() -> Cpo {
    let definition = of_pairs("cpo").optional_labels("chosen_lengths", Scope::Element).optional(MASK, Scope::Element);
    let definition = definition.param("beta", 0.1, Domain::Positive).param("alpha", 1.0, Domain::NonNegative);
    let definition = definition.of_batch(|b| {
        let tokens = match b.optional("chosen_lengths") {
            Some(lengths) => total_kept(b, lengths.to_float()),
            None => number_kept(b),
        };
        -b.param("alpha").times(total_kept(b, b.input("chosen_logps")) / tokens.maximum(1.0))
    });
    let loss = definition.special_param("label_smoothing", 0.0, Domain::Unit, &[0.0]).expr(|b| {
        let [chosen, rejected] = chosen_and_rejected(b);
        smoothed_logistic(b, b.param("beta") * (chosen - rejected))
    });
    Cpo(loss)
}

loss_with_options! {
    /// The loss that [`cpo`] makes.
    Cpo {
        /// `β`, by which log-probabilities become rewards; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
        /// `α`, the weight of the chosen answers' negative log-likelihood; finite and ≥ 0, else `Error::Param`; 1 by default.
        number alpha;
        /// `ε`, the share of labels taken as flipped; in \[0, 1\], else `Error::Param`; 0 by default.
        number label_smoothing;
    }
}

/// The sum over all values that the mask does not leave out.
fn total_kept<'g>(b: &Build<'g>, x: Expr<'g>) -> Expr<'g> {
    b.optional(MASK).map_or(x, |mask| x.masked(!mask.equals(0.0))).sum_over(Scope::Total)
}

/// The number of values that the mask does not leave out.
fn number_kept<'g>(b: &Build<'g>) -> Expr<'g> {
    match b.optional(MASK) {
        Some(mask) => (!mask.equals(0.0)).to_float().sum_over(Scope::Total),
        None => b.graph().count(Extent::Elements),
    }
}

/// Kahneman–Tversky optimisation: single answers labelled good or bad, valued against a reference point.
///
/// `L = w_d·σ(β·(z − r))` where `label` is 1, else `w_u·σ(β·(r − z))`, with the log-ratio `r = policy_logps − ref_logps` and
/// the reference point `z = kl`; 0 where that is absent.
///
/// Shapes: `policy_logps, ref_logps` of one shape, a value per answer, `label` integers of that shape; optional scalar `kl`
/// → loss of that shape. Unit: none; the mean divides by the number of answers.
/// Gradient: `−w_d·β·s·(1 − s)` where `label` is 1, else `w_u·β·s·(1 − s)`, with the sigmoid `s` of the formula, with respect
/// to `policy_logps`; its negative with respect to `ref_logps`. `kl` is a constant.
/// Options: `beta` (0.1), `desirable_weight` w_d (1), `undesirable_weight` w_u (1).
/// Errors: `Error::Param` unless `beta` is finite and > 0 and both weights finite and ≥ 0.
/// Source: Ethayarajh et al. (2024), arXiv:2402.01306. Same as TRL's `KTOTrainer`, and with weights of 1 as Liger's KTO loss.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (policy, reference) = (HostTensor::f32(&[-1.0, -1.0], &[2]), HostTensor::f32(&[-1.0, -1.0], &[2]));
/// let inputs = [("policy_logps", policy), ("ref_logps", reference), ("label", HostTensor::i32(&[1, 0], &[2]))];
/// let loss = losses::kto().beta(1.0).undesirable_weight(2.0);
/// let out = cpu::forward_backward(&loss, &inputs, &["policy_logps"])?;
/// assert_eq!((out.loss()?, out.grad("policy_logps")?), (0.75, &[-0.125, 0.25][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn kto() -> Kto {
    let definition = Loss::define("kto").input("policy_logps", Scope::Element).input("ref_logps", Scope::Element);
    let definition = definition.labels("label", Scope::Element).optional("kl", Scope::Scalar);
    let definition = definition.param("beta", 0.1, Domain::Positive);
    let definition = definition.param("desirable_weight", 1.0, Domain::NonNegative);
    let loss = definition.param("undesirable_weight", 1.0, Domain::NonNegative).expr(|b| {
        let ratio = b.input("policy_logps") - b.input("ref_logps");
        let gain = b.param("beta") * b.optional("kl").map_or(ratio, |kl| ratio - kl.detach());
        let is_good = b.label_is("label", 1);
        let weight = is_good.select(b.param("desirable_weight"), b.param("undesirable_weight"));
        weight * is_good.select(-gain, gain).sigmoid()
    });
    Kto(loss)
}

loss_with_options! {
    /// The loss that [`kto`] makes.
    Kto {
        /// `β`, by which log-ratios become values; finite and > 0, else `Error::Param`; 0.1 by default.
        number beta;
        /// `w_d`, the weight of good answers; finite and ≥ 0, else `Error::Param`; 1 by default.
        number desirable_weight;
        /// `w_u`, the weight of bad answers; finite and ≥ 0, else `Error::Param`; 1 by default.
        number undesirable_weight;
    }
}
