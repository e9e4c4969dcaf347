//! Linear-chain conditional random fields.

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

/// The operator that [`crf`] makes.
#[derive(Clone, Debug)]
pub struct Crf {
    reduction: Reduction,
    token_mean: bool,
}

/// Negative log-likelihood of a linear-chain conditional random field (CRF).
///
/// `L = ln Σ_z exp s(z) − s(y)` over all taggings `z`, with
/// `s(y) = start(y₀) + Σₜ emission(t, yₜ) + Σₜ transition(yₜ₋₁, yₜ) + end(y_last)`.
///
/// Shapes: `emissions: [B, T, K]` in f32, f16 or bf16 of any strides, `transitions: [K, K]` (from the tag of its row to that of
/// its column), `start_transitions, end_transitions: [K]` in f32, `tags: [B, T]` (what is past a length is not looked at),
/// `lengths: [B]`, indices in i32 or u32 → loss `[B]` with [`Reduction::None`], else one number: the sum (the default), the mean of
/// sequences, or of tokens by [`token_mean`](Crf::token_mean). `B` and `T` may be less than planned when bound. Unit: nats.
/// Gradient: with respect to emissions (the tags' marginals less the sequence's own tags; 0 past its length), transitions,
/// start_transitions and end_transitions, summed over sequences in a fixed order; written or accumulated.
/// Extra output: `marginals: [B, T, K]`, the probability of each tag in each frame; 0 past the length.
/// A sequence of length 0 has loss 0. A score of −∞ forbids: own tags that are forbidden have loss ∞, no tagging at all NaN. A NaN
/// or +∞ that a tagging's beginning meets makes the sequence NaN, as does a length or tag out of range, which is reported
/// when the results are read.
/// Alpha and beta are f32 with an exponent per tag, workspace of 8 B each per tag and frame; `K²` operations per frame.
/// Errors: as [`ctc`](crate::fused::ctc).
/// Source: Lafferty et al. (2001), ICML. As `pytorch-crf`'s `CRF`, negated, with lengths in place of a mask.
///
/// ```
/// use wgloss::{HostTensor, fused};
/// let (zeros, two) = ([0.0f32; 6], [0.0f32; 4]);
/// let inputs = [
///     ("emissions", HostTensor::f32(&zeros, &[1, 3, 2])),
///     ("transitions", HostTensor::f32(&two, &[2, 2])),
///     ("start_transitions", HostTensor::f32(&two[..2], &[2])),
///     ("end_transitions", HostTensor::f32(&two[..2], &[2])),
///     ("tags", HostTensor::i32(&[0, 1, 0], &[1, 3])),
///     ("lengths", HostTensor::i32(&[3], &[1])),
/// ];
/// let out = fused::cpu::forward_backward(&fused::crf(), &inputs, &["emissions"])?;
/// assert!((out.loss()? - 8f64.ln()).abs() < 1e-12);    // one of 2³ equal taggings
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn crf() -> Crf {
    Crf { reduction: Reduction::Sum, token_mean: false }
}

/// Indices of the inputs.
const EMISSIONS: usize = 0;
const SCORES: [usize; 3] = [1, 2, 3];
const TAGS: usize = 4;
const LENGTHS: usize = 5;

/// Name of the extra output.
const MARGINALS: &str = "marginals";

impl Crf {
    /// The reduction: `None`, `Sum` (the default), `Mean` or `BatchMean` (both of sequences).
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Crf {
        (self.reduction, self.token_mean) = (reduction, false);
        self
    }

    /// The sum divided by the number of tokens: of all lengths together.
    #[must_use]
    pub fn token_mean(mut self) -> Crf {
        (self.reduction, self.token_mean) = (Reduction::Mean, true);
        self
    }

    fn weighting(&self) -> Result<Weighting> {
        let mean = if self.token_mean { Weighting::ByTokens } else { Weighting::ByBatch };
        Weighting::new(self.name(), &self.reduction, mean)
    }

    fn lengths() -> LengthInputs {
        let paddings = false;
        LengthInputs { labels: TAGS, frame_lengths: LENGTHS, label_lengths: LENGTHS, paddings, links: false }
    }
}

/// Axes of sequences, frames and cells among those of the emissions.
const AXES: [Option<usize>; 3] = [Some(0), Some(1), None];

impl Sequence for Crf {
    fn name(&self) -> &'static str {
        "crf"
    }

    fn check(&self) -> Result<()> {
        self.weighting().map(|_| ())
    }

    fn inputs(&self) -> &'static [(&'static str, Role)] {
        &[
            ("emissions", Role::Classes),
            ("transitions", Role::Weights),
            ("start_transitions", Role::Weights),
            ("end_transitions", Role::Weights),
            ("tags", Role::Indices),
            ("lengths", Role::Indices),
        ]
    }

    fn extras(&self) -> &'static [&'static str] {
        &[MARGINALS]
    }

    fn sizes(&self, shapes: &[&[usize]]) -> Result<Sizes> {
        let error = |input: usize, expected: String| {
            let name = self.inputs()[input].0.to_owned();
            Err(Error::Shape { input: name, expected, found: shapes[input].to_vec() })
        };
        let &[n, t, tags] = shapes[EMISSIONS] else {
            return error(EMISSIONS, "[B, T, K]".to_owned());
        };
        if tags == 0 {
            return error(EMISSIONS, "[B, T, K] with K > 0".to_owned());
        }
        let expected = [vec![tags, tags], vec![tags], vec![tags], vec![n, t], vec![n]];
        for (input, expected) in (1..).zip(expected) {
            if shapes[input] != expected {
                return error(input, format!("{expected:?}, beside emissions of {:?}", shapes[EMISSIONS]));
            }
        }
        let [sequences, frames, classes] = [n, t, tags].map(|size| size as u64);
        Ok(Sizes { sequences, frames, labels: frames, classes })
    }

    fn output_shape(&self, kind: &OutputKind, shapes: &[&[usize]]) -> Vec<usize> {
        match kind {
            OutputKind::Extra(_) => shapes[EMISSIONS].to_vec(),
            _ if self.reduction == Reduction::None => vec![shapes[EMISSIONS][0]],
            _ => Vec::new(),
        }
    }

    fn dispatches(&self, problem: &Problem<'_>) -> Result<Planned> {
        dispatches::plan(self, problem)
    }

    fn explained(&self, problem: &Problem<'_>) -> Result<String> {
        dispatches::explain(problem)
    }
}

impl Operator for Crf {
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>> {
        prepare(self, spec, limits)
    }
}

impl HostOperator for Crf {
    fn on_host(&self, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<f64>> {
        host::run(self, inputs, wanted)
    }
}
