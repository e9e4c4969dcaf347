//! Losses of sequences: one mean per sequence over its tokens, however many are padding.

use super::entry::{Entry, Range};
use super::options::loss_with_options;
use super::softmax::{label_nll, nll_of_all};
use crate::expr::Extent;
use crate::loss::Value::Num;
use crate::loss::{Denominator, Domain, Loss, Unreduced};
use crate::shape::{RowAxis, Scope};

pub(super) const ENTRIES: &[Entry] = &[Entry::new("sequence_cross_entropy", || sequence_cross_entropy().into())
    .inputs(&[("input", Range::Logits)])
    .variants(&[&[("label_smoothing", Num(0.1))]])];

/// Cross-entropy of the tokens of a sequence, averaged per sequence: a long one counts no more than a short one.
///
/// `L = Σₜ ℓₜ/n` over the `n` tokens that count, with `ℓₜ = ln Σⱼ exp xₜⱼ − xₜ,yₜ`, `x = input` and `y = target`; with label
/// smoothing ε it is `(1 − ε)` of that plus `ε/V · Σⱼ (ln Σₖ exp xₜₖ − xₜⱼ)`. A token counts unless its label is
/// `ignore_index` or its `attention_mask` 0.
///
/// Shapes: `input: [B, T, V]`, `target: [B, T]` class indices, optional `attention_mask: [B, T]` → loss `[B]`. Packed
/// sequences of unequal length, `[tokens, V]`, are groups of a plan ([`PlanSpec::group_offsets`](crate::PlanSpec::group_offsets)).
/// Unit: nats; the mean divides by the number of sequences in which a token counts. (For the mean over all tokens, take
/// [`cross_entropy`](super::cross_entropy) with `class_axis`.)
/// Gradient: `(softmax(xₜ) − onehot(yₜ))/n` with respect to `input` (ε = 0), exactly 0 for tokens that do not count,
/// whatever they hold. A sequence without any has loss 0.
/// Options: `ignore_index` (−100), `label_smoothing` ε (0).
/// Errors: `Error::Param` unless `label_smoothing` is in \[0, 1\]; `Error::LabelOutOfRange` when a result with such a label
/// is read.
/// Source: formula; the per-sequence mean of TRL's and verl's `seq-mean-token-mean`.
///
/// ```
/// use wgloss::{HostTensor, cpu, losses};
/// // One sequence of two tokens, one of a single token and padding.
/// let x = HostTensor::f32(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0], &[2, 2, 2]);
/// let inputs = [("input", x), ("target", HostTensor::i32(&[0, 1, 1, -100], &[2, 2]))];
/// let out = cpu::forward_backward(&losses::sequence_cross_entropy(), &inputs, &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
/// assert_eq!(out.grad("input")?, [-0.125, 0.125, 0.125, -0.125, 0.25, -0.25, 0.0, 0.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn sequence_cross_entropy() -> SequenceCrossEntropy {
    let definition = Loss::define("sequence_cross_entropy").row_axis(RowAxis::Last).input("input", Scope::Element);
    let definition = definition.label("target").optional("attention_mask", Scope::Row);
    let definition = definition.index("ignore_index", Some(-100));
    let loss = definition.special_param("label_smoothing", 0.0, Domain::Unit, &[0.0]).unreduced(|b| {
        let (x, y) = (b.input("input"), b.input("target"));
        let mut nll = label_nll(x, y);
        if b.value("label_smoothing") != Some(0.0) {
            let share = b.param("label_smoothing");
            nll = (1.0 - share).times(nll) + (share / b.graph().count(Extent::Cols)).times(nll_of_all(x, y, None));
        }
        let is_token = b.optional("attention_mask").map(|mask| !mask.equals(0.0));
        let is_labelled = b.label_is_option("target", "ignore_index").map(|ignored| !ignored);
        let counts = [is_token, is_labelled].into_iter().flatten().reduce(|a, b| a.and(b));
        let counts = counts.unwrap_or(b.graph().truth(true));
        let tokens = counts.select(1.0, 0.0).sum_over(Scope::Group);
        let sum = nll.masked(counts).sum_over(Scope::Group);
        // Divided by 1 where there is no token: 0/0 would be NaN.
        let value = sum / tokens.maximum(1.0);
        Unreduced { value, denominator: Denominator::Sum(tokens.gt(0.0).to_float()) }
    });
    SequenceCrossEntropy(loss)
}

loss_with_options! {
    /// The loss that [`sequence_cross_entropy`] makes.
    SequenceCrossEntropy {
        /// Tokens with this label do not count. None (no label is ignored) or any index; −100 by default.
        index ignore_index;
        /// `ε`, the share of the target that is spread evenly over the vocabulary; in \[0, 1\], else `Error::Param`; 0 by
        /// default.
        number label_smoothing;
    }
}
