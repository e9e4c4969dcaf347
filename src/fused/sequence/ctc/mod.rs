//! Connectionist temporal classification.

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

/// The classes that the loss is computed from, and the inputs beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// PyTorch's: log-probabilities and lengths.
    LogProbs,
    /// The same of logits.
    Logits,
    /// optax's: logits and paddings.
    Optax,
}

/// The operator that [`ctc`] makes.
#[derive(Clone, Debug)]
pub struct Ctc {
    form: Form,
    blank: u32,
    zero_infinity: bool,
    /// Logarithm of the probability of what no alignment may do; −∞ for none.
    log_epsilon: f64,
    reduction: Reduction,
}

/// Connectionist temporal classification: the probability of all alignments of labels with frames.
///
/// `L = −ln Σ_π Πₜ p(t, πₜ)` over all paths `π` of classes, one per frame, that are the sequence's targets once equal
/// neighbours are merged and blanks left out. `p = exp(log_probs)`, or the softmax of `logits` after
/// [`from_logits`](Ctc::from_logits).
///
/// Shapes: `log_probs: [T, N, C]` in f32, f16 or bf16 of any strides, `targets: [N, S]` (what is past a length is not
/// looked at), `input_lengths, target_lengths: [N]`, indices in i32 or u32; or one sequence by itself: `[T, C]`, `[S]`,
/// `[]`, `[]` → loss `[N]` with [`Reduction::None`], else one number: the sum, the mean of losses divided by their target
/// lengths (at least 1), or the plain mean with [`Reduction::BatchMean`]. Each size but `C` may be less than planned when
/// bound. Unit: nats.
/// Gradient: with respect to the classes, `p(t, c) − occupancy(t, c)`: exactly that of the logits, and by PyTorch's
/// convention that of `log_probs` too, as if these came from a log-softmax; 0 past a sequence's length. Written,
/// accumulated or in place, in any of the float types.
/// A sequence without alignments has loss ∞ and NaN gradients, or 0 and 0 with [`zero_infinity`](Ctc::zero_infinity). A
/// NaN or +∞ that an alignment's beginning meets makes the sequence's loss and gradients NaN. A length or label out of
/// range makes them NaN and is reported when the results are read.
/// Lattices are summed in f32 with an exponent per state, so that a thousand frames neither underflow nor lose digits;
/// log-probabilities below −10³⁰ count as −10³⁰;
/// alpha and beta are workspace of 8 B per state and frame each (of `2·S + 1` states), if gradients are asked for; where a
/// binding does not hold those of all sequences, these take turns.
/// Errors: [`Error::Shape`], [`Error::DType`], [`Error::Name`] of inputs; [`Error::Param`] for a blank that is no class;
/// [`Error::Limit`] where one sequence's lattice exceeds a binding; [`Error::LengthOutOfRange`] and
/// [`Error::LabelOutOfRange`] on reading.
/// Source: Graves et al. (2006), ICML. As `torch.nn.functional.ctc_loss`; [`optax_ctc`] takes paddings.
///
/// ```no_run
/// use wgloss::{Bindings, Context, DType, PlanSpec, Tensor, fused};
/// # fn main() -> wgloss::Result<()> {
/// let ctx = Context::new()?;
/// let spec = PlanSpec::new()
///     .input("logits", DType::F32, &[100, 4, 29])
///     .input("targets", DType::I32, &[4, 20])
///     .input("input_lengths", DType::I32, &[4])
///     .input("target_lengths", DType::I32, &[4])
///     .grad("logits");
/// let plan = ctx.plan(&fused::ctc().from_logits().zero_infinity(true), &spec)?;
/// # let logits = Tensor::zeros(&ctx, DType::F32, &[100, 4, 29])?;
/// # let targets = Tensor::from_slice(&ctx, &[1i32; 80], &[4, 20])?;
/// # let input_lengths = Tensor::from_slice(&ctx, &[100i32; 4], &[4])?;
/// # let target_lengths = Tensor::from_slice(&ctx, &[20i32; 4], &[4])?;
/// let inputs = [("logits", &logits), ("targets", &targets), ("input_lengths", &input_lengths),
///     ("target_lengths", &target_lengths)];
/// let bound = plan.bind(&Bindings::new().inputs(&inputs))?;
/// bound.submit()?;
/// println!("{}", bound.read_loss()?);
/// # Ok(()) }
/// ```
pub fn ctc() -> Ctc {
    let (blank, zero_infinity, log_epsilon) = (0, false, f64::NEG_INFINITY);
    Ctc { form: Form::LogProbs, blank, zero_infinity, log_epsilon, reduction: Reduction::Mean }
}

impl Ctc {
    /// The blank's class. Default 0.
    #[must_use]
    pub fn blank(mut self, class: u32) -> Ctc {
        self.blank = class;
        self
    }

    /// Takes `logits` in place of `log_probs`, normalised inside: each is read twice, and its gradient written once.
    #[must_use]
    pub fn from_logits(mut self) -> Ctc {
        self.form = Form::Logits;
        self
    }

    /// Whether infinite losses and their gradients count as 0. Default false.
    #[must_use]
    pub fn zero_infinity(mut self, zero: bool) -> Ctc {
        self.zero_infinity = zero;
        self
    }

    /// The reduction: `None`, `Sum`, `Mean` (the default; of losses divided by their target lengths) or `BatchMean`.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Ctc {
        self.reduction = reduction;
        self
    }
}

/// The operator that [`optax_ctc`] makes.
#[derive(Clone, Debug)]
pub struct OptaxCtc(Ctc);

/// Connectionist temporal classification with paddings in place of lengths, as optax has it.
///
/// `L = −ln Σ_π Πₜ p(t, πₜ)` as [`ctc`]'s, with `p = softmax(logits)`, over the frames that are no padding.
///
/// Shapes: `logits: [B, T, K]` in f32, f16 or bf16 of any strides, `logit_paddings: [B, T]` in f32, `labels: [B, N]` in i32 or
/// u32, `label_paddings: [B, N]` in f32; paddings are 0, or 1 where padded, and labels end at their padding → loss `[B]`
/// with [`Reduction::None`], else one number. Unit: nats.
/// Gradient: with respect to `logits`, `p − occupancy`; 0 in padded frames.
/// A sequence without alignments has, as in optax, the loss of one that breaks their rules as rarely as can be, each time
/// with probability `exp(log_epsilon)`. A padding that is neither 0 nor 1 makes the sequence NaN.
/// NaN, workspace and errors: as [`ctc`]; [`Error::Param`] unless `log_epsilon` is finite and < 0.
/// Source: `optax.losses.ctc_loss`, which leaves the reduction to the caller.
///
/// ```
/// use wgloss::{HostTensor, fused};
/// let (logits, none) = ([0.0f32; 4], [0.0f32; 2]);
/// let inputs = [
///     ("logits", HostTensor::f32(&logits, &[1, 2, 2])),
///     ("logit_paddings", HostTensor::f32(&none, &[1, 2])),
///     ("labels", HostTensor::i32(&[1], &[1, 1])),
///     ("label_paddings", HostTensor::f32(&none[..1], &[1, 1])),
/// ];
/// let out = fused::cpu::forward_backward(&fused::optax_ctc(), &inputs, &["logits"])?;
/// assert!((out.loss()? - -0.75f64.ln()).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn optax_ctc() -> OptaxCtc {
    OptaxCtc(Ctc { form: Form::Optax, log_epsilon: -1e5, ..ctc() })
}

impl OptaxCtc {
    /// The blank's class. Default 0.
    #[must_use]
    pub fn blank_id(mut self, class: u32) -> OptaxCtc {
        self.0.blank = class;
        self
    }

    /// Logarithm of the probability of what no alignment may do. Default −1e5.
    #[must_use]
    pub fn log_epsilon(mut self, log_epsilon: f64) -> OptaxCtc {
        self.0.log_epsilon = log_epsilon;
        self
    }

    /// The reduction: `None`, `Sum`, `Mean` (the default; of sequences) or `BatchMean`, which is the same.
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> OptaxCtc {
        self.0.reduction = reduction;
        self
    }
}

impl Ctc {
    fn weighting(&self) -> Result<Weighting> {
        let mean = if self.form == Form::Optax { Weighting::ByBatch } else { Weighting::ByLabels };
        Weighting::new(self.name(), &self.reduction, mean)
    }

    fn lengths(&self) -> LengthInputs {
        match self.form {
            Form::Optax => LengthInputs { labels: 2, frame_lengths: 1, label_lengths: 3, paddings: true, links: true },
            _ => LengthInputs { labels: 1, frame_lengths: 2, label_lengths: 3, paddings: false, links: true },
        }
    }

    fn is_logits(&self) -> bool {
        self.form != Form::LogProbs
    }

    /// Axes of the sequences and of the frames among those of a tensor of classes of this rank.
    fn axes(&self, rank: usize) -> [Option<usize>; 2] {
        match (self.form, rank) {
            (Form::Optax, _) => [Some(0), Some(1)],
            (_, 2) => [None, Some(0)],
            _ => [Some(1), Some(0)],
        }
    }

    fn check_blank(&self, classes: usize) -> Result<()> {
        if (self.blank as usize) < classes {
            return Ok(());
        }
        let param = if self.form == Form::Optax { "blank_id" } else { "blank" };
        let (loss, found) = (self.name().to_owned(), self.blank.to_string());
        let allowed = format!("a class, less than {classes}");
        Err(Error::Param { loss, param: param.to_owned(), found, allowed })
    }
}

impl Sequence for Ctc {
    fn name(&self) -> &'static str {
        if self.form == Form::Optax { "optax_ctc" } else { "ctc" }
    }

    fn check(&self) -> Result<()> {
        self.weighting()?;
        if self.form != Form::Optax || (self.log_epsilon.is_finite() && self.log_epsilon < 0.0) {
            return Ok(());
        }
        let (loss, param) = (self.name().to_owned(), "log_epsilon".to_owned());
        Err(Error::Param { loss, param, found: self.log_epsilon.to_string(), allowed: "finite and < 0".to_owned() })
    }

    fn inputs(&self) -> &'static [(&'static str, Role)] {
        const LENGTHS: [(&str, Role); 3] =
            [("targets", Role::Indices), ("input_lengths", Role::Indices), ("target_lengths", Role::Indices)];
        const LOG_PROBS: [(&str, Role); 4] = [("log_probs", Role::Classes), LENGTHS[0], LENGTHS[1], LENGTHS[2]];
        const LOGITS: [(&str, Role); 4] = [("logits", Role::Classes), LENGTHS[0], LENGTHS[1], LENGTHS[2]];
        const OPTAX: [(&str, Role); 4] = [
            ("logits", Role::Classes),
            ("logit_paddings", Role::Padding),
            ("labels", Role::Indices),
            ("label_paddings", Role::Padding),
        ];
        match self.form {
            Form::LogProbs => &LOG_PROBS,
            Form::Logits => &LOGITS,
            Form::Optax => &OPTAX,
        }
    }

    fn sizes(&self, shapes: &[&[usize]]) -> Result<Sizes> {
        let inputs = self.inputs();
        let error = |input: usize, expected: String| {
            Err(Error::Shape { input: inputs[input].0.to_owned(), expected, found: shapes[input].to_vec() })
        };
        let is_optax = self.form == Form::Optax;
        let [n, t, classes] = match (shapes[0], is_optax) {
            (&[t, n, c], false) | (&[n, t, c], true) if c > 0 => [Some(n), Some(t), Some(c)],
            (&[t, c], false) if c > 0 => [None, Some(t), Some(c)],
            _ if is_optax => return error(0, "[B, T, K] with K > 0".to_owned()),
            _ => return error(0, "[T, N, C], or [T, C] of one sequence, with C > 0".to_owned()),
        };
        let (t, classes) = (t.unwrap_or(0), classes.unwrap_or(0));
        let of_labels = if is_optax { 2 } else { 1 };
        let labels = match (shapes[of_labels], n) {
            (&[rows, labels], Some(n)) if rows == n => labels,
            (&[labels], None) => labels,
            (_, Some(n)) => return error(of_labels, format!("[{n}, labels], a row per sequence")),
            (_, None) => return error(of_labels, "[labels] of one sequence".to_owned()),
        };
        for (input, items) in if is_optax { [(1, t), (3, labels)] } else { [(2, 0), (3, 0)] } {
            let expected = match n {
                Some(n) if is_optax => vec![n, items],
                Some(n) => vec![n],
                None => vec![],
            };
            if shapes[input] != expected && !(n.is_none() && shapes[input] == [1]) {
                return error(input, format!("{expected:?}"));
            }
        }
        self.check_blank(classes)?;
        let [sequences, frames, labels, classes] = [n.unwrap_or(1), t, labels, classes].map(|size| size as u64);
        Ok(Sizes { sequences, frames, labels, classes })
    }

    fn output_shape(&self, _: &OutputKind, shapes: &[&[usize]]) -> Vec<usize> {
        let [sequences, _] = self.axes(shapes[0].len());
        match (&self.reduction, sequences) {
            (Reduction::None, Some(axis)) => vec![shapes[0][axis]],
            _ => Vec::new(),
        }
    }

    fn dispatches(&self, problem: &Problem<'_>) -> Result<Planned> {
        dispatches::plan(self, problem)
    }

    fn explained(&self, problem: &Problem<'_>) -> Result<String> {
        dispatches::explain(self, problem)
    }
}

impl Operator for Ctc {
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>> {
        prepare(self, spec, limits)
    }
}

impl Operator for OptaxCtc {
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>> {
        prepare(&self.0, spec, limits)
    }
}

impl HostOperator for Ctc {
    fn on_host(&self, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<f64>> {
        host::run(self, inputs, wanted)
    }
}

impl HostOperator for OptaxCtc {
    fn on_host(&self, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<f64>> {
        host::run(&self.0, inputs, wanted)
    }
}
