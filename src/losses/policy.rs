//! Policy gradients of token log-probabilities, and the value loss beside them.

use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use crate::expr::{Expr, Extent};
use crate::loss::Value::{Num, Word};
use crate::loss::{Build, DefinitionBuilder, Denominator, Domain, Loss, MASK, Unreduced};
use crate::shape::{RowAxis, Scope};

const LOG_PROBS_ALONE: Ranges = &[("log_probs", Range::LogProbability)];
const LOG_PROBS: Ranges = &[("log_probs", Range::LogProbability), ("old_log_probs", Range::LogProbability)];
const WITH_REFERENCE: Ranges = &[
    ("log_probs", Range::LogProbability),
    ("old_log_probs", Range::LogProbability),
    ("ref_log_probs", Range::LogProbability),
];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("policy_gradient", || policy_gradient().into()).inputs(LOG_PROBS_ALONE),
    Entry::new("ppo_clip", || ppo_clip().into()).inputs(LOG_PROBS),
    Entry::new("value_clip", || value_clip().into()),
    Entry::new("grpo", || grpo().into()).inputs(WITH_REFERENCE).variants(&[
        &[("loss_type", Word("bnpo"))],
        &[("loss_type", Word("dr_grpo"))],
        &[("loss_type", Word("dapo")), ("num_tokens", Num(17.0))],
        &[("importance_level", Word("sequence"))],
    ]),
    Entry::new("cispo", || cispo().into()).inputs(WITH_REFERENCE),
];

/// Policy gradient (REINFORCE) of log-probabilities, with a bonus for entropy.
///
/// `L = −log_probs·advantages − c·entropy`, with `c = entropy_coef`.
///
/// Shapes: `log_probs, advantages` of one shape, optional `entropy` → loss of that shape. Unit: that of the advantages; the
/// mean divides by the number of tokens that `mask` keeps, or by 1 if it keeps none.
/// Gradient: `−advantages` with respect to `log_probs`, `−c` with respect to `entropy`. `advantages` are constants.
/// Options: `entropy_coef` (0.01), which counts where `entropy` is given.
/// Errors: `Error::Param` unless `entropy_coef` is finite.
/// Source: Williams (1992), Mach. Learn. 8; formula.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, a) = (HostTensor::f32(&[-1.0, -2.0], &[2]), HostTensor::f32(&[1.0, -0.5], &[2]));
/// let out = cpu::forward_backward(&losses::policy_gradient(), &[("log_probs", x), ("advantages", a)], &["log_probs"])?;
/// assert_eq!((out.loss()?, out.grad("log_probs")?), (0.0, &[-0.5, 0.25][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn policy_gradient() -> PolicyGradient {
    let definition = Loss::define("policy_gradient").input("log_probs", Scope::Element);
    let definition = definition.input("advantages", Scope::Element).optional("entropy", Scope::Element);
    let loss = definition.param("entropy_coef", 0.01, Domain::Finite).unreduced(|b| {
        let gain = b.input("log_probs") * b.input("advantages").detach();
        let value = b.optional("entropy").map_or(-gain, |entropy| -gain - b.param("entropy_coef") * entropy);
        Unreduced { value, denominator: Denominator::CountOrOne }
    });
    PolicyGradient(loss)
}

loss_with_options! {
    /// The loss that [`policy_gradient`] makes.
    PolicyGradient {
        /// `c`, the weight of the entropy; finite, else `Error::Param`; 0.01 by default.
        number entropy_coef;
    }
}

/// Proximal policy optimisation: a policy gradient that stops where the policy has moved far from the old one.
///
/// `L = −min(r·A, clamp(r, 1 − c_l, 1 + c_h)·A)`, with the ratio `r = exp(log_probs − old_log_probs)`, `A = advantages`,
/// `c_l = clip_low` and `c_h = clip_high`.
///
/// Shapes: all inputs of one shape → loss of that shape. Unit: that of the advantages; the mean divides by the number of
/// tokens, of those that `mask` keeps.
/// Gradient: `−r·A` with respect to `log_probs` (its negative to `old_log_probs`) where the first product counts, else 0;
/// exactly at a bound half of it, as in PyTorch. With respect to `advantages` minus the ratio, or its bound.
/// Options: `clip_low` (0.2), `clip_high` (0.2).
/// Errors: `Error::Param` unless both are finite and ≥ 0.
/// Source: Schulman et al. (2017), arXiv:1707.06347; two bounds as in DAPO (arXiv:2503.14476). [`grpo`] has advantages per
/// sequence.
///
/// ```
/// use wgloss::{HostTensor, Reduction, cpu, losses};
/// let (x, old) = (HostTensor::f32(&[-1.0, 1.0], &[2]), HostTensor::f32(&[-1.0, 0.0], &[2]));
/// let inputs = [("log_probs", x), ("old_log_probs", old), ("advantages", HostTensor::f32(&[2.0, 1.0], &[2]))];
/// let out = cpu::forward_backward(&losses::ppo_clip().reduction(Reduction::Sum), &inputs, &["log_probs"])?;
/// assert!((out.loss()? + 2.0 + 1.2).abs() < 1e-6);
/// assert_eq!(out.grad("log_probs")?, [-2.0, 0.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn ppo_clip() -> PpoClip {
    let definition = Loss::define("ppo_clip").input("log_probs", Scope::Element).input("old_log_probs", Scope::Element);
    let loss = with_clips(definition.input("advantages", Scope::Element)).expr(|b| {
        let ratio = (b.input("log_probs") - b.input("old_log_probs")).exp();
        clipped_gain(b, ratio, b.input("advantages"))
    });
    PpoClip(loss)
}

loss_with_options! {
    /// The loss that [`ppo_clip`] makes.
    PpoClip {
        /// How far below 1 the ratio counts; finite and ≥ 0, else `Error::Param`; 0.2 by default.
        number clip_low;
        /// How far above 1 the ratio counts; finite and ≥ 0, else `Error::Param`; 0.2 by default.
        number clip_high;
    }
}

fn with_clips(definition: DefinitionBuilder) -> DefinitionBuilder {
    definition.param("clip_low", 0.2, Domain::NonNegative).param("clip_high", 0.2, Domain::NonNegative)
}

/// `−min(r·A, clamp(r, 1 − clip_low, 1 + clip_high)·A)`
fn clipped_gain<'g>(b: &Build<'g>, ratio: Expr<'g>, advantages: Expr<'g>) -> Expr<'g> {
    let bound = clamped(ratio, 1.0 - b.param("clip_low"), 1.0 + b.param("clip_high"));
    -(ratio * advantages).minimum(bound * advantages)
}

/// The value within the bounds; at a bound, as beyond it, it has no derivative.
fn clamped<'g>(x: Expr<'g>, low: Expr<'g>, high: Expr<'g>) -> Expr<'g> {
    low.lt(x).and(x.lt(high)).select(x, low.maximum(x.detach()).minimum(high))
}

/// Clipped value loss: half the squared error of a value that may move only so far from the old one, or of the value
/// itself, whichever is larger.
///
/// `L = max((v − R)², (c − R)²)/2`, with `v = values`, `R = returns` and `c = old_values + clamp(v − old_values, −clip, clip)`.
///
/// Shapes: all inputs of one shape → loss of that shape. Unit: that of the returns squared; the mean divides by the number of
/// values that `mask` keeps, or by 1 if it keeps none.
/// Gradient: `v − R` with respect to `values` within the clip range and where the first square is larger, else 0; half of it
/// exactly at the range's ends, as in PyTorch. With respect to the other inputs that of the formula.
/// Options: `clip` (0.2).
/// Errors: `Error::Param` unless `clip` is finite and ≥ 0.
/// Source: Schulman et al., the baselines of PPO; CleanRL's and TRL's value loss without its coefficient.
///
/// ```
/// use wgloss::{HostTensor, Reduction, cpu, losses};
/// let (v, old) = (HostTensor::f32(&[1.0, 3.0], &[2]), HostTensor::f32(&[1.0, 1.0], &[2]));
/// let inputs = [("values", v), ("old_values", old), ("returns", HostTensor::f32(&[2.0, 3.0], &[2]))];
/// let out = cpu::forward_backward(&losses::value_clip().clip(0.5).reduction(Reduction::Sum), &inputs, &["values"])?;
/// assert_eq!((out.loss()?, out.grad("values")?), (0.5 + 1.125, &[-1.0, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn value_clip() -> ValueClip {
    let definition = Loss::define("value_clip").input("values", Scope::Element).input("old_values", Scope::Element);
    let definition = definition.input("returns", Scope::Element);
    let loss = definition.param("clip", 0.2, Domain::NonNegative).unreduced(|b| {
        let (values, old, returns, clip) =
            (b.input("values"), b.input("old_values"), b.input("returns"), b.param("clip"));
        let near = old + clamped(values - old, -clip, clip);
        let value = 0.5 * (values - returns).powi(2).maximum((near - returns).powi(2));
        Unreduced { value, denominator: Denominator::CountOrOne }
    });
    ValueClip(loss)
}

loss_with_options! {
    /// The loss that [`value_clip`] makes.
    ValueClip {
        /// How far from the old value the value counts; finite and ≥ 0, else `Error::Param`; 0.2 by default.
        number clip;
    }
}

/// Group relative policy optimisation: [`ppo_clip`] of sequences with an advantage each, and a divergence from a reference.
///
/// `L = −min(r·A, clamp(r, 1 − c_l, 1 + c_h)·A) + β·(exp d − d − 1)` per token, with `d = ref_log_probs − log_probs` and the
/// ratio `r = exp(log_probs − old_log_probs)` of the token, or with `importance_level` `sequence` the exponential of the mean
/// of that difference over the sequence (GSPO).
///
/// Shapes: `log_probs, old_log_probs: [B, T]`, `advantages: [B]`, optional `ref_log_probs, mask: [B, T]` → loss `[B, T]`. Unit:
/// that of the advantages. The mean is by `loss_type`: `grpo` the mean over tokens, then over sequences, those without tokens
/// too; `bnpo` over the tokens of the batch; `dr_grpo` divides by `B·max_length`; `dapo` by `num_tokens`. With another
/// reduction, `grpo` has each token divided by the number of its sequence's tokens.
/// Gradient: with respect to `log_probs`; exactly at a bound half of the ratio's, as in PyTorch. `old_log_probs` and
/// `ref_log_probs` are constants. A token that `mask` leaves out counts nowhere.
/// Options: `beta` (0), `clip_low` (0.2), `clip_high` (0.2), `loss_type` (`grpo`), `importance_level` (`token`), `max_length`
/// (256), `num_tokens` (0; below 1 it counts as 1): tokens of the global batch, or a scalar on the GPU that holds them.
/// Errors: `Error::Param` unless `beta`, `clip_low`, `clip_high` and `num_tokens` are finite and ≥ 0, `max_length` > 0, and the
/// words are among these; `Error::Name` for `beta` other than 0 without `ref_log_probs`.
/// Source: Shao et al. (2024), arXiv:2402.03300; Liu et al. (2025), arXiv:2503.20783 (`dr_grpo`); Yu et al. (2025),
/// arXiv:2503.14476 (`dapo`); Zheng et al. (2025), arXiv:2507.18071 (GSPO). Same as TRL's `GRPOTrainer` and Liger's GRPO loss.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, old) = (HostTensor::f32(&[-1.0; 4], &[2, 2]), HostTensor::f32(&[-1.0; 4], &[2, 2]));
/// let mask = HostTensor::f32(&[1.0, 1.0, 1.0, 0.0], &[2, 2]);
/// let inputs = [
///     ("log_probs", x), ("old_log_probs", old), ("advantages", HostTensor::f32(&[1.0, -1.0], &[2])), ("mask", mask),
/// ];
/// let out = cpu::forward_backward(&losses::grpo(), &inputs, &["log_probs"])?;
/// assert_eq!((out.loss()?, out.grad("log_probs")?), (0.0, &[-0.25, -0.25, 0.5, 0.0][..]));
/// let out = cpu::forward_backward(&losses::grpo().loss_type("bnpo"), &inputs, &[])?;
/// assert!((out.loss()? + 1.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn grpo() -> Grpo {
    let definition = with_clips(of_sequences("grpo")).words("loss_type", &["grpo", "bnpo", "dr_grpo", "dapo"]);
    let definition = definition.words("importance_level", &["token", "sequence"]);
    let definition = definition.param("max_length", 256.0, Domain::Positive);
    let loss = definition.param("num_tokens", 0.0, Domain::NonNegative).unreduced(|b| {
        let log_ratio = b.input("log_probs") - b.input("old_log_probs").detach();
        let ratio = match b.word("importance_level") {
            "sequence" => (log_ratio.masked(is_token(b)).sum() / tokens(b)).exp(),
            _ => log_ratio.exp(),
        };
        let loss = plus_divergence(b, clipped_gain(b, ratio, b.input("advantages"))).masked(is_token(b));
        let rows = b.graph().count(Extent::Rows);
        match b.word("loss_type") {
            "grpo" => Unreduced { value: loss / tokens(b), denominator: Denominator::Total(rows) },
            "dr_grpo" => Unreduced { value: loss, denominator: Denominator::Total(rows * b.param("max_length")) },
            "dapo" => of_tokens(b, loss),
            _ => Unreduced { value: loss, denominator: Denominator::CountOrOne },
        }
    });
    Grpo(loss)
}

loss_with_options! {
    /// The loss that [`grpo`] makes.
    Grpo {
        /// `β`, the weight of the divergence from the reference; finite and ≥ 0, else `Error::Param`; 0 by default.
        number beta;
        /// How far below 1 the ratio counts; finite and ≥ 0, else `Error::Param`; 0.2 by default.
        number clip_low;
        /// How far above 1 the ratio counts; finite and ≥ 0, else `Error::Param`; 0.2 by default.
        number clip_high;
        /// What the mean divides by: `grpo` (the default), `bnpo`, `dr_grpo` or `dapo`, else `Error::Param`.
        word loss_type;
        /// What has a ratio: each `token` (the default) or the `sequence`, else `Error::Param`.
        word importance_level;
        /// Tokens per sequence by which `dr_grpo` divides; finite and > 0, else `Error::Param`; 256 by default.
        number max_length;
        /// Tokens by which `dapo` divides, at least 1; finite and ≥ 0, else `Error::Param`; 0 by default.
        number num_tokens;
    }
}

/// Clipped importance sampling: a policy gradient whose weight per token is the ratio to the old policy, up to a bound.
///
/// `L = −w·A·log_probs + β·(exp d − d − 1)` per token, with `w = min(exp(log_probs − old_log_probs), clip_high)` held constant,
/// `A = advantages` and `d = ref_log_probs − log_probs`.
///
/// Shapes: `log_probs, old_log_probs: [B, T]`, `advantages: [B]`, optional `ref_log_probs, mask: [B, T]` → loss `[B, T]`. Unit:
/// that of the advantages; the mean divides by `max(num_tokens, 1)`.
/// Gradient: `−w·A + β·(1 − exp d)` with respect to `log_probs`. `old_log_probs` and `ref_log_probs` are constants. A token
/// that `mask` leaves out counts nowhere.
/// Options: `beta` (0), `clip_high` (5), the bound itself (in [`grpo`] it is added to 1), `num_tokens` (0).
/// Errors: `Error::Param` unless `beta` and `num_tokens` are finite and ≥ 0 and `clip_high` > 0; `Error::Name` for `beta` other
/// than 0 without `ref_log_probs`.
/// Source: MiniMax (2025), arXiv:2506.13585. Same as TRL's and Liger's `cispo`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let (x, old) = (HostTensor::f32(&[-1.0, -1.0], &[1, 2]), HostTensor::f32(&[-1.0, -9.0], &[1, 2]));
/// let inputs = [("log_probs", x), ("old_log_probs", old), ("advantages", HostTensor::f32(&[1.0], &[1]))];
/// let loss = losses::cispo().clip_high(2.0).num_tokens(2.0);
/// let out = cpu::forward_backward(&loss, &inputs, &["log_probs"])?;
/// assert_eq!((out.loss()?, out.grad("log_probs")?), (1.5, &[-0.5, -1.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn cispo() -> Cispo {
    let definition = of_sequences("cispo").param("clip_high", 5.0, Domain::Positive);
    let loss = definition.param("num_tokens", 0.0, Domain::NonNegative).unreduced(|b| {
        let log_probs = b.input("log_probs");
        let weight = (log_probs - b.input("old_log_probs")).exp().detach().minimum(b.param("clip_high"));
        let gain = weight * b.input("advantages") * log_probs;
        of_tokens(b, plus_divergence(b, -gain).masked(is_token(b)))
    });
    Cispo(loss)
}

loss_with_options! {
    /// The loss that [`cispo`] makes.
    Cispo {
        /// `β`, the weight of the divergence from the reference; finite and ≥ 0, else `Error::Param`; 0 by default.
        number beta;
        /// The largest weight of a token; finite and > 0, else `Error::Param`; 5 by default.
        number clip_high;
        /// Tokens by which the mean divides, at least 1; finite and ≥ 0, else `Error::Param`; 0 by default.
        number num_tokens;
    }
}

/// Begins a loss of tokens in sequences, each with one advantage, and the option `beta`.
fn of_sequences(name: &str) -> DefinitionBuilder {
    let definition = Loss::define(name).row_axis(RowAxis::Last).input("log_probs", Scope::Element);
    let definition = definition.input("old_log_probs", Scope::Element).input("advantages", Scope::Row);
    let definition = definition.optional("ref_log_probs", Scope::Element).optional(MASK, Scope::Element);
    definition.special_param("beta", 0.0, Domain::NonNegative, &[0.0])
}

/// Whether there is a token: all are, where no mask is given.
fn is_token<'g>(b: &Build<'g>) -> Expr<'g> {
    match b.optional(MASK) {
        Some(mask) => !mask.equals(0.0),
        None => b.graph().index(0).le(b.graph().col_index()),
    }
}

/// The number of tokens of the sequence, or 1 if there is none.
fn tokens<'g>(b: &Build<'g>) -> Expr<'g> {
    match b.optional(MASK) {
        Some(_) => is_token(b).to_float().sum().maximum(1.0),
        None => b.graph().count(Extent::Cols),
    }
}

/// The loss, whose mean divides by `num_tokens`.
fn of_tokens<'g>(b: &Build<'g>, value: Expr<'g>) -> Unreduced<'g> {
    Unreduced { value, denominator: Denominator::Total(b.param("num_tokens").maximum(1.0)) }
}

/// The loss plus `β·(exp d − d − 1)`, an estimate of the divergence from the reference that is never negative.
fn plus_divergence<'g>(b: &Build<'g>, loss: Expr<'g>) -> Expr<'g> {
    if b.value("beta") == Some(0.0) && b.optional("ref_log_probs").is_none() {
        return loss;
    }
    let d = b.input("ref_log_probs").detach() - b.input("log_probs");
    loss + b.param("beta").times(d.expm1() - d)
}
