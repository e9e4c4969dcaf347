//! Sequence transduction (RNN-T).

mod dispatches;
mod host;

use super::Weighting;
use super::host::HostOperator;
use super::operator::{Role, Sequence, prepare};
use super::problem::Problem;
use super::setup::LengthInputs;
use super::space::Sizes;
use crate::cpu::{CpuOutput, HostTensor};
use crate::dispatch::{OutputKind, Planned};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::loss::Reduction;
use crate::lower::Wanted;
use crate::plan::operator::{Operator, Prepared};
use crate::plan::spec::PlanSpec;
use std::sync::Arc;

/// The operator that [`rnnt`] makes.
#[derive(Clone, Debug)]
pub struct Rnnt {
    blank: i64,
    clamp: f64,
    fused_log_softmax: bool,
    reduction: Reduction,
}

/// The loss of a transducer (RNN-T): the probability of all alignments that emit the labels between frames.
///
/// `L = −ln Σ_π Π p(t, u, π)` over all paths through the cells of frame `t` and label position `u`, from `(0, 0)` to the blank
/// that ends the last frame after all labels: each step is the blank, to the next frame, or the next label, in the same one.
/// `p = softmax(logits)`, or `exp(logits)` without [`fused_log_softmax`](Rnnt::fused_log_softmax).
///
/// Shapes: `logits: [B, T, U + 1, V]` in f32, f16 or bf16 of any strides, `targets: [B, U]` (what is past a length is not looked
/// at), `logit_lengths, target_lengths: [B]`, indices in i32 or u32 → loss `[B]` with [`Reduction::None`], else one number.
/// `B`, `T` and `U` may be less than planned when bound. Unit: nats.
/// Gradient: with respect to `logits`; 0 outside a sequence's lengths; with [`clamp`](Rnnt::clamp), clamped before the
/// reduction's factor. Written, accumulated or in place.
/// A sequence of no frames, or of probability 0, has loss ∞ and NaN gradients. A NaN or +∞ that a path's beginning meets, of
/// logits anywhere in a row of one that it passes, makes the sequence NaN, as does a length or label out of range, which
/// is reported when the results are read.
/// Alpha and beta are f32 with an exponent per cell: workspace of 8 B each, and 16 B for its probabilities; where a binding does
/// not hold those of all sequences, these take turns. Cells of a diagonal are passed in parallel.
/// Errors: as [`ctc`](crate::fused::ctc); [`Error::Param`] for a blank that is no class and a `clamp` that is NaN.
/// Source: Graves (2012), Sequence Transduction with Recurrent Neural Networks. As `torchaudio.functional.rnnt_loss`.
///
/// ```
/// use wgloss::{HostTensor, fused};
/// // One frame, one label of two classes and the blank: emitted, then ended.
/// let logits = [0.0f32; 6];
/// let inputs = [
///     ("logits", HostTensor::f32(&logits, &[1, 1, 2, 3])),
///     ("targets", HostTensor::i32(&[1], &[1, 1])),
///     ("logit_lengths", HostTensor::i32(&[1], &[1])),
///     ("target_lengths", HostTensor::i32(&[1], &[1])),
/// ];
/// let out = fused::cpu::forward_backward(&fused::rnnt(), &inputs, &["logits"])?;
/// assert!((out.loss()? - 9f64.ln()).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn rnnt() -> Rnnt {
    Rnnt { blank: -1, clamp: -1.0, fused_log_softmax: true, reduction: Reduction::Mean }
}

impl Rnnt {
    /// The blank's class; a negative one counts from the end. Default −1.
    #[must_use]
    pub fn blank(mut self, class: i64) -> Rnnt {
        self.blank = class;
        self
    }

    /// Clamps gradients to ± this number, if it is positive. Default −1.
    #[must_use]
    pub fn clamp(mut self, clamp: f64) -> Rnnt {
        self.clamp = clamp;
        self
    }

    /// Whether `logits` are normalised inside (the default); else they are log-probabilities, and the gradient is theirs.
    #[must_use]
    pub fn fused_log_softmax(mut self, fused: bool) -> Rnnt {
        self.fused_log_softmax = fused;
        self
    }

    /// The reduction: `None`, `Sum`, `Mean` (the default; of sequences) or `BatchMean`, which is the same.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Rnnt {
        self.reduction = reduction;
        self
    }

    fn weighting(&self) -> Result<Weighting> {
        Weighting::new(self.name(), &self.reduction, Weighting::ByBatch)
    }

    /// The class of the blank, counted from 0.
    fn blank_of(&self, classes: u64) -> u64 {
        (if self.blank < 0 { self.blank + classes as i64 } else { self.blank }) as u64
    }

    fn lengths() -> LengthInputs {
        LengthInputs { labels: 1, frame_lengths: 2, label_lengths: 3, paddings: false, links: false }
    }
}

/// Axes of sequences, frames and cells among those of the logits.
const AXES: [Option<usize>; 3] = [Some(0), Some(1), Some(2)];

impl Sequence for Rnnt {
    fn name(&self) -> &'static str {
        "rnnt"
    }

    fn check(&self) -> Result<()> {
        self.weighting()?;
        if !self.clamp.is_nan() {
            return Ok(());
        }
        let (loss, param) = (self.name().to_owned(), "clamp".to_owned());
        Err(Error::Param {
            loss,
            param,
            found: "NaN".to_owned(),
            allowed: "a number; none if it is not > 0".to_owned(),
        })
    }

    fn inputs(&self) -> &'static [(&'static str, Role)] {
        &[
            ("logits", Role::Classes),
            ("targets", Role::Indices),
            ("logit_lengths", Role::Indices),
            ("target_lengths", Role::Indices),
        ]
    }

    fn sizes(&self, shapes: &[&[usize]]) -> Result<Sizes> {
        let error = |input: usize, expected: String| {
            let input_name = self.inputs()[input].0.to_owned();
            Err(Error::Shape { input: input_name, expected, found: shapes[input].to_vec() })
        };
        let &[n, t, cells, classes] = shapes[0] else {
            return error(0, "[B, T, U + 1, V]".to_owned());
        };
        if cells == 0 || classes == 0 {
            return error(0, "[B, T, U + 1, V] with V > 0".to_owned());
        }
        if shapes[1] != [n, cells - 1] {
            return error(
                1,
                format!("[{n}, {}], as the logits' sequences and one less than their positions", cells - 1),
            );
        }
        if let Some(input) = [2, 3].into_iter().find(|input| shapes[*input] != [n]) {
            return error(input, format!("[{n}]"));
        }
        if self.blank >= classes as i64 || self.blank < -(classes as i64) {
            let (loss, param, found) = (self.name().to_owned(), "blank".to_owned(), self.blank.to_string());
            return Err(Error::Param {
                loss,
                param,
                found,
                allowed: format!("a class, -{classes} to {}", classes - 1),
            });
        }
        let [sequences, frames, labels, classes] = [n, t, cells - 1, classes].map(|size| size as u64);
        Ok(Sizes { sequences, frames, labels, classes })
    }

    fn output_shape(&self, _: &OutputKind, shapes: &[&[usize]]) -> Vec<usize> {
        if self.reduction == Reduction::None { vec![shapes[0][0]] } else { Vec::new() }
    }

    fn dispatches(&self, problem: &Problem<'_>) -> Result<Planned> {
        dispatches::plan(self, problem)
    }

    fn explained(&self, problem: &Problem<'_>) -> Result<String> {
        dispatches::explain(self, problem)
    }
}

impl Operator for Rnnt {
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>> {
        prepare(self, spec, limits)
    }
}

impl HostOperator for Rnnt {
    fn on_host(&self, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<f64>> {
        host::run(self, inputs, wanted)
    }
}
