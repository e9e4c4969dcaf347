//! Losses of values and of routing in reinforcement learning and mixtures of experts, by formula.

use super::entry::{Entry, Range, Ranges};
use super::options::loss_with_options;
use super::softmax::cross_entropy_of;
use crate::expr::Extent;
use crate::loss::Value::Num;
use crate::loss::{Domain, Loss};
use crate::shape::{RowAxis, Scope};

const DONES: Ranges = &[("dones", Range::Binary)];
pub(super) const ENTRIES: &[Entry] = &[
    Entry::new("td_error", || td_error().into()).inputs(DONES).variants(&[&[("delta", Num(1.5))]]),
    Entry::new("moe_load_balancing", || moe_load_balancing().into())
        .inputs(&[("router_logits", Range::Logits), ("expert_mask", Range::Binary)]),
    Entry::new("c51", c51).inputs(&[("logits", Range::Logits), ("target", Range::Probability)]),
];

/// Temporal difference: half the squared error of a value against the reward and the discounted next value.
///
/// `L = e²/2`, or with `delta` δ > 0 where `|e| > δ` `δ·(|e| − δ/2)`, with `e = r + γ·(1 − done)·v′ − v`, `v = values`,
/// `r = rewards`, `v′ = next_values` and `done` 1 where the episode ends.
///
/// Shapes: `values, rewards, next_values` of one shape, optional `dones` → loss of that shape. Unit: that of the rewards squared;
/// the mean divides by the number of values.
/// Gradient: `clamp(−e, −δ, δ)` with respect to `values`. `rewards`, `next_values` and `dones` are constants (the semi-gradient).
/// Where `done` is 1, `next_values` may hold anything but NaN.
/// Options: `gamma` γ (0.99), `delta` (0: none, the square everywhere).
/// Errors: `Error::Param` unless `gamma` is in \[0, 1\] and `delta` finite and ≥ 0.
/// Source: Sutton (1988), Mach. Learn. 3; with δ = 1 as in Mnih et al. (2015), Nature 518.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let column = |x: &'static [f32]| HostTensor::f32(x, &[2]);
/// let inputs = [
///     ("values", column(&[1.0, 1.0])), ("rewards", column(&[1.0, 1.0])), ("next_values", column(&[2.0, 2.0])),
///     ("dones", column(&[0.0, 1.0])),
/// ];
/// let out = cpu::forward_backward(&losses::td_error().gamma(0.5), &inputs, &["values"])?;
/// assert_eq!((out.loss()?, out.grad("values")?), (0.25, &[-0.5, 0.0][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn td_error() -> TdError {
    let inputs = ["values", "rewards", "next_values"];
    let definition =
        inputs.iter().fold(Loss::define("td_error"), |definition, input| definition.input(input, Scope::Element));
    let definition = definition.optional("dones", Scope::Element).param("gamma", 0.99, Domain::Unit);
    let loss = definition.structural_param("delta", 0.0, Domain::NonNegative, &[0.0]).expr(|b| {
        let next = b.param("gamma") * b.input("next_values").detach();
        let next = b.optional("dones").map_or(next, |done| (1.0 - done.detach()).times(next));
        let e = b.input("rewards").detach() + next - b.input("values");
        let square = 0.5 * (e * e);
        if b.value("delta") == Some(0.0) {
            return square;
        }
        let delta = b.param("delta");
        e.abs().le(delta).select(square, delta * (e.abs() - 0.5 * delta))
    });
    TdError(loss)
}

loss_with_options! {
    /// The loss that [`td_error`] makes.
    TdError {
        /// `γ`, the discount of the next value; in \[0, 1\], else `Error::Param`; 0.99 by default.
        number gamma;
        /// `δ`, beyond which the loss is linear; finite and ≥ 0, else `Error::Param`. At 0 (the default) it never is, which
        /// needs a plan of its own.
        number delta;
    }
}

/// Load balancing of a mixture of experts: tokens shall be spread evenly over the experts.
///
/// `L = α·E·Σₑ fₑ·Pₑ` over the `E` experts, with `fₑ` the mean over tokens of 1 where expert `e` has the largest logit (the lowest
/// of equal ones), or of `expert_mask` where that is given, and `Pₑ` the mean over tokens of `softmax(router_logits)ₑ`.
///
/// Shapes: `router_logits: [T, E]` (or more axes before the last), optional `expert_mask` of that shape, 1 at the experts that a
/// token goes to (of top-k routing, k per token) → one loss. Unit: none; 1·α where both are even.
/// Gradient: `α·E/T·pₑ·(fₑ − Σ p·f)` with respect to `router_logits`; the choice of experts is a constant.
/// Options: `alpha` (0.01).
/// Errors: `Error::Param` unless `alpha` is finite.
/// Source: Fedus, Zoph and Shazeer (2022), Switch Transformers, arXiv:2101.03961.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// let x = HostTensor::f32(&[0.0, 0.0, 0.0, 0.0], &[2, 2]);
/// let loss = losses::moe_load_balancing().alpha(1.0);
/// let out = cpu::forward_backward(&loss, &[("router_logits", x)], &["router_logits"])?;
/// assert_eq!((out.loss()?, out.grad("router_logits")?), (1.0, &[0.25, -0.25, 0.25, -0.25][..]));
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn moe_load_balancing() -> MoeLoadBalancing {
    let definition = Loss::define("moe_load_balancing").row_axis(RowAxis::Last).input("router_logits", Scope::Element);
    let definition = definition.optional("expert_mask", Scope::Element);
    let loss = definition.param("alpha", 0.01, Domain::Finite).expr(|b| {
        let (x, graph) = (b.input("router_logits"), b.graph());
        let (rows, experts) = (graph.count(Extent::Rows), graph.count(Extent::Cols));
        let chosen = match b.optional("expert_mask") {
            Some(mask) => mask.detach(),
            None => graph.col_index().equals(x.argmax()).to_float(),
        };
        let load = chosen.sum_over(Scope::Column) / rows;
        let probability = x.softmax().sum_over(Scope::Column) / rows;
        b.param("alpha") * experts * (load * probability).sum_over(Scope::Total)
    });
    MoeLoadBalancing(loss)
}

loss_with_options! {
    /// The loss that [`moe_load_balancing`] makes.
    MoeLoadBalancing {
        /// `α`, which multiplies the loss; finite, else `Error::Param`; 0.01 by default.
        number alpha;
    }
}

/// C51: cross-entropy of a distribution over atoms of return with that of the Bellman target, projected onto the atoms.
///
/// `L = −Σᵢ mᵢ·ln softmax(logits)ᵢ` over the last axis, with `m = target`. The projection is the caller's, once per batch: of
/// atoms `zᵢ` that are `Δz` apart and the next state's probabilities `p`,
/// `mᵢ = Σⱼ pⱼ·max(0, 1 − |clamp(r + γ·(1 − done)·zⱼ, z₀, z_last) − zᵢ|/Δz)`. Each `mᵢ` needs all `pⱼ`, which a row here does not.
///
/// Shapes: `logits, target: [N, …, atoms]`, the logits of the action that was taken → loss `[N, …]`. Unit: nats; the mean divides
/// by the number of rows. Unreduced, it is the priority of a replay buffer, as in Rainbow.
/// Gradient: `softmax(logits)·Σm − m` with respect to `logits`; `target` is a constant (the semi-gradient).
/// Source: Bellemare, Dabney and Munos (2017), arXiv:1707.06887, algorithm 1. As
/// [`cross_entropy_prob`](super::cross_entropy_prob) over the last axis; [`quantile_huber`](super::quantile_huber) is QR-DQN's,
/// [`td_error`] a mean's.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// // Atoms −1, 0 and 1, reward 0.25, discount 0.5, and a next state that is worth 1.
/// let (atoms, next, reward, gamma) = ([-1.0f32, 0.0, 1.0], [0.0f32, 0.0, 1.0], 0.25, 0.5);
/// let share = |to: f32, j: usize| (1.0 - ((reward + gamma * atoms[j]).clamp(-1.0, 1.0) - to).abs()).max(0.0);
/// let target = atoms.map(|to| (0..3).map(|j| next[j] * share(to, j)).sum::<f32>());
/// assert_eq!(target, [0.0, 0.25, 0.75]);
/// let inputs = [("logits", HostTensor::f32(&[0.0; 3], &[1, 3])), ("target", HostTensor::f32(&target, &[1, 3]))];
/// let out = cpu::forward_backward(&losses::c51(), &inputs, &["logits"])?;
/// assert!((out.loss()? - 3f64.ln()).abs() < 1e-12);
/// assert!((out.grad("logits")?[2] - (1.0 / 3.0 - 0.75)).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn c51() -> Loss {
    let definition = Loss::define("c51").row_axis(RowAxis::Last).input("logits", Scope::Element);
    let definition = definition.input("target", Scope::Element);
    definition.expr(|b| cross_entropy_of(b.input("logits"), b.input("target").detach()))
}
