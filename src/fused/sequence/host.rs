//! The operators over sequences on the CPU, and what they share there: lengths, labels, and rows of log-probabilities.

use super::operator::{Role, Sequence, in_order};
use super::setup::LengthInputs;
use super::space::Sizes;
use super::{Weighting, setup};
use crate::cpu::{BadLabel, CpuOutput, HostFloat, HostTensor, OperatorOutput};
use crate::dispatch::IndexRange;
use crate::error::{Error, Result};
use crate::lower::{OutputKind, Upstream, Wanted};

/// An operator beside losses that runs on the CPU too: of [`fused`](crate::fused), those over sequences.
pub trait HostOperator {
    #[doc(hidden)]
    fn on_host(&self, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<f64>>;
}

/// Runs an operator once on the CPU, as [`cpu::run`](crate::cpu::run) does a loss. Lattices are summed in f64 for either
/// type of outputs.
///
/// ```
/// use wgloss::{HostTensor, Wanted, fused};
/// # fn main() -> wgloss::Result<()> {
/// let log_probs = [0.5f32.ln(); 4];                     // two frames of one sequence, two classes
/// let inputs = [
///     ("log_probs", HostTensor::f32(&log_probs, &[2, 1, 2])),
///     ("targets", HostTensor::i32(&[1], &[1, 1])),
///     ("input_lengths", HostTensor::i32(&[2], &[1])),
///     ("target_lengths", HostTensor::i32(&[1], &[1])),
/// ];
/// let out = fused::cpu::run::<f32>(&fused::ctc(), &inputs, &Wanted { loss: true, ..Wanted::default() })?;
/// assert!((out.loss()? - -0.75f64.ln()).abs() < 1e-6);  // 3 of 4 paths: "a-", "-a", "aa"
/// # Ok(()) }
/// ```
///
/// # Errors
/// As planning it, of names, shapes and options; a label or a length out of range is reported by the accessors of the
/// output.
pub fn run<T: HostFloat>(
    operator: &impl HostOperator,
    inputs: &[(&str, HostTensor<'_>)],
    wanted: &Wanted,
) -> Result<CpuOutput<T>> {
    Ok(operator.on_host(inputs, wanted)?.converted())
}

/// The loss of an operator and its gradients with respect to the inputs named, in f64.
///
/// # Errors
/// As [`run`].
pub fn forward_backward(
    operator: &impl HostOperator,
    inputs: &[(&str, HostTensor<'_>)],
    grads: &[&str],
) -> Result<CpuOutput<f64>> {
    let grads = grads.iter().map(|grad| (*grad).to_owned()).collect();
    run(operator, inputs, &Wanted { loss: true, grads, ..Wanted::default() })
}

/// A sequence of a batch on the host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostSequence {
    /// Frames that are no padding.
    pub frames: Vec<usize>,
    pub labels: Vec<usize>,
    /// Whether a length, a padding or a label is out of range.
    pub is_bad: bool,
    /// Whether a length or a padding is: its labels are not told then.
    is_bad_length: bool,
}

/// A batch on the host: tensors in the order of the operator's inputs, lengths and labels clamped.
pub(super) struct HostBatch<'t, 'a> {
    pub tensors: Vec<&'t HostTensor<'a>>,
    pub sizes: Sizes,
    pub sequences: Vec<HostSequence>,
    bad_label: Option<BadLabel>,
    bad_length: Option<Error>,
}

/// Strides along sequences and items, as the kernels have them.
fn strides(tensor: &HostTensor<'_>, has_items: bool) -> [usize; 2] {
    setup::strides(&tensor.layout().strides, has_items).map(|stride| stride as usize)
}

impl<'t, 'a> HostBatch<'t, 'a> {
    /// # Errors
    /// Of names, element types and shapes, and of outputs that the operator has not.
    pub fn new<O: Sequence>(
        operator: &O,
        inputs: &'t [(&str, HostTensor<'a>)],
        wanted: &Wanted,
        lengths: LengthInputs,
    ) -> Result<HostBatch<'t, 'a>> {
        operator.check()?;
        check_wanted(operator, wanted)?;
        let names: Vec<&str> = inputs.iter().map(|input| input.0).collect();
        let tensors: Vec<&HostTensor<'a>> =
            in_order(operator, &names)?.into_iter().map(|index| &inputs[index].1).collect();
        for ((name, role), tensor) in operator.inputs().iter().zip(&tensors) {
            tensor.check(name, role.kind())?;
        }
        let shapes: Vec<&[usize]> = tensors.iter().map(|tensor| tensor.shape()).collect();
        let sizes = operator.sizes(&shapes)?;
        let mut batch = HostBatch { tensors, sizes, sequences: Vec::new(), bad_label: None, bad_length: None };
        batch.sequences = (0..sizes.sequences).map(|n| batch.sequence(n, lengths)).collect();
        let named = |input: usize| operator.inputs()[input].0;
        batch.find_bad(lengths, named);
        Ok(batch)
    }

    fn length(&self, input: usize, n: u64) -> i64 {
        let tensor = self.tensors[input];
        tensor.index(n as usize * strides(tensor, false)[0])
    }

    fn label(&self, input: usize, n: u64, k: usize) -> i64 {
        let [along, across] = strides(self.tensors[input], true);
        self.tensors[input].index(n as usize * along + k * across)
    }

    fn sequence(&self, n: u64, inputs: LengthInputs) -> HostSequence {
        let Sizes { frames, labels, classes, .. } = self.sizes;
        let mut is_bad = false;
        let (kept, count) = if inputs.paddings {
            let mut padding = |input: usize, k: u64| {
                let [along, across] = strides(self.tensors[input], true);
                let value = self.tensors[input].number(n as usize * along + k as usize * across);
                is_bad |= value != 0.0 && value != 1.0;
                value == 1.0
            };
            let kept = (0..frames).filter(|t| !padding(inputs.frame_lengths, *t)).map(|t| t as usize).collect();
            let count = (0..labels).filter(|k| !padding(inputs.label_lengths, *k)).count();
            (kept, count)
        } else {
            let mut length = |input: usize, most: u64| {
                let given = self.length(input, n);
                is_bad |= !(0..=most as i64).contains(&given);
                // Negative lengths are large ones to kernels.
                if given < 0 { most } else { most.min(given as u64) }
            };
            let kept = (0..length(inputs.frame_lengths, frames) as usize).collect();
            (kept, length(inputs.label_lengths, labels) as usize)
        };
        let given = (0..count).map(|k| self.label(inputs.labels, n, k));
        let known = |label: i64| (0..classes as i64).contains(&label);
        let is_bad_length = is_bad;
        is_bad |= given.clone().any(|label| !known(label));
        let labels = given.map(|label| if known(label) { label as usize } else { 0 }).collect();
        HostSequence { frames: kept, labels, is_bad, is_bad_length }
    }

    /// Finds the first length and the first label out of range.
    fn find_bad(&mut self, inputs: LengthInputs, named: impl Fn(usize) -> &'static str) {
        let Sizes { sequences, frames, labels, classes } = self.sizes;
        if !inputs.paddings {
            for (input, most) in [(inputs.frame_lengths, frames), (inputs.label_lengths, labels)] {
                let bad = (0..sequences).find(|n| !(0..=most as i64).contains(&self.length(input, *n)));
                let error = bad.map(|n| IndexRange::Lengths(most).error(named(input), n, Some(self.length(input, n))));
                self.bad_length = self.bad_length.take().or(error);
            }
        }
        for (n, sequence) in (0..).zip(&self.sequences).filter(|(_, sequence)| !sequence.is_bad_length) {
            let all = (0..sequence.labels.len()).map(|k| self.label(inputs.labels, n, k));
            if let Some(label) = all.into_iter().find(|label| !(0..classes as i64).contains(label)) {
                self.bad_label = Some(BadLabel { row: n, label, classes });
                return;
            }
        }
    }

    /// The factor of a sequence's loss.
    pub fn factor(&self, weighting: Weighting, sequence: &HostSequence) -> f64 {
        let tokens = self.sequences.iter().map(|sequence| sequence.labels.len()).sum();
        weighting.factor(self.sequences.len(), sequence.labels.len(), tokens)
    }

    /// The outputs of the batch, of which `grads` are in the order of `wanted`.
    pub fn finish(self, outputs: Vec<OperatorOutput<f64>>) -> CpuOutput<f64> {
        CpuOutput::of_operator(outputs, self.bad_label, self.bad_length)
    }
}

fn check_wanted<O: Sequence>(operator: &O, wanted: &Wanted) -> Result<()> {
    let Wanted { loss: _, grads, hessian_diagonals, extras, denominator, upstream, found_inf, groups } = wanted;
    wanted.check_once()?;
    let name = operator.name();
    let as_of_a_loss = !hessian_diagonals.is_empty() || *denominator || *found_inf || groups.is_some();
    if as_of_a_loss || *upstream != Upstream::One {
        let message = format!("Hessians, a denominator, found_inf, groups or an upstream of {name} on the host");
        return Err(Error::Unsupported { message });
    }
    let differentiable = |input: &(&'static str, Role)| input.1.is_differentiable();
    let has_grad = |name: &String| operator.inputs().iter().any(|input| input.0 == name && differentiable(input));
    if let Some(unknown) = grads.iter().find(|name| !has_grad(name)) {
        let known: Vec<&str> = operator.inputs().iter().filter(|i| differentiable(i)).map(|input| input.0).collect();
        let what = format!("{name} has no gradient with respect to");
        return Err(Error::Name { what, name: unknown.clone(), known: known.join(", ") });
    }
    match extras.iter().find(|extra| !operator.extras().contains(&extra.as_str())) {
        None => Ok(()),
        Some(unknown) => {
            let (what, known) = (format!("{name} has no extra output"), operator.extras().join(", "));
            Err(Error::Name { what, name: unknown.clone(), known })
        }
    }
}

/// The loss as an output.
pub(super) fn loss_output(
    weighting: Weighting,
    shape: Vec<usize>,
    losses: &[f64],
    factors: &[f64],
) -> OperatorOutput<f64> {
    (OutputKind::Loss, String::new(), shape, weighting.reduce(losses, factors))
}

/// ln(eᵃ + eᵇ).
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// ln(eᵃ·eᵇ), where what is zero takes nothing in: it is zero times NaN too.
pub(super) fn times(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY { a } else { a + b }
}

/// Log-probabilities of a row of logits; NaN if it holds NaN or +∞, or nothing but −∞.
pub(super) fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let is_nan = logits.iter().any(|x| x.is_nan()) || largest.is_infinite();
    let log_sum = logits.iter().map(|x| (x - largest).exp()).sum::<f64>().ln();
    logits.iter().map(|x| if is_nan { f64::NAN } else { x - largest - log_sum }).collect()
}
