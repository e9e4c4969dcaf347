//! A linear chain on the CPU, in f64, by logarithms.

use super::{Crf, EMISSIONS, SCORES};
use crate::cpu::{CpuOutput, HostTensor};
use crate::error::Result;
use crate::fused::sequence::host::{HostBatch, HostSequence, log_add, loss_output, times};
use crate::fused::sequence::operator::Sequence;
use crate::lower::{OutputKind, Wanted};

const NEVER: f64 = f64::NEG_INFINITY;

/// Scores of a chain: transitions, starts, ends.
struct Scores {
    tags: usize,
    transitions: Vec<f64>,
    starts: Vec<f64>,
    ends: Vec<f64>,
}

/// A sequence with its lattice.
struct Chain<'a> {
    scores: &'a Scores,
    tags: &'a [usize],
    /// Of each frame.
    emissions: Vec<Vec<f64>>,
    alpha: Vec<Vec<f64>>,
    /// Without the frame's own emission.
    beta: Vec<Vec<f64>>,
    total: f64,
    loss: f64,
}

/// What the chains of a batch add up to: gradients of emissions, transitions, starts and ends, and marginals.
struct Gathered {
    grads: [Vec<f64>; 4],
    marginals: Vec<f64>,
}

/// +∞ is no score.
fn known(score: f64) -> f64 {
    if score == f64::INFINITY { f64::NAN } else { score }
}

/// The loss and, if asked for, gradients and marginals.
pub(super) fn run(crf: &Crf, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<f64>> {
    let batch = HostBatch::new(crf, inputs, wanted, Crf::lengths())?;
    let (weighting, layout) = (crf.weighting()?, batch.tensors[EMISSIONS].layout());
    let (tags, frames) = (batch.sizes.classes as usize, batch.sizes.frames as usize);
    let scores = Scores::new(&batch, tags);
    let strides = &layout.strides;
    let zeros = |count: usize| vec![0.0; count];
    let grads = [zeros(layout.len()), zeros(tags * tags), zeros(tags), zeros(tags)];
    let mut gathered = Gathered { grads, marginals: zeros(layout.len()) };
    let (mut losses, mut factors) = (Vec::new(), Vec::new());
    for (n, sequence) in batch.sequences.iter().enumerate() {
        let number = |t: usize, k: usize| {
            known(batch.tensors[EMISSIONS].number(n * strides[0] + t * strides[1] + k * strides[2]))
        };
        let row = |t: &usize| (0..tags).map(|k| number(*t, k)).collect();
        let chain = Chain::new(&scores, sequence, sequence.frames.iter().map(row).collect());
        let factor = batch.factor(weighting, sequence);
        chain.gather(n * frames * tags, factor, &mut gathered);
        losses.push(chain.loss);
        factors.push(factor);
    }
    let mut outputs = Vec::new();
    if wanted.loss {
        let shape = crf.output_shape(&OutputKind::Loss, &[&layout.shape]);
        outputs.push(loss_output(weighting, shape, &losses, &factors));
    }
    let Gathered { grads, marginals } = gathered;
    for (input, grad) in grads.into_iter().enumerate() {
        let name = crf.inputs()[input].0;
        if wanted.grads.iter().any(|wanted| wanted == name) {
            outputs.push((OutputKind::Grad(input), name.to_owned(), batch.tensors[input].shape().to_vec(), grad));
        }
    }
    if let Some(name) = wanted.extras.first() {
        outputs.push((OutputKind::Extra(name.clone()), name.clone(), layout.shape.clone(), marginals));
    }
    Ok(batch.finish(outputs))
}

impl Scores {
    fn new(batch: &HostBatch<'_, '_>, tags: usize) -> Scores {
        let read = |input: usize, k: usize| {
            let strides = &batch.tensors[input].layout().strides;
            let at = if strides.len() == 2 { k / tags * strides[0] + k % tags * strides[1] } else { k * strides[0] };
            known(batch.tensors[input].number(at))
        };
        let all = |input: usize, count: usize| (0..count).map(|k| read(input, k)).collect();
        let [transitions, starts, ends] = SCORES;
        Scores { tags, transitions: all(transitions, tags * tags), starts: all(starts, tags), ends: all(ends, tags) }
    }

    fn transition(&self, before: usize, tag: usize) -> f64 {
        self.transitions[before * self.tags + tag]
    }
}

/// ln Σ exp.
fn log_sum(terms: impl Iterator<Item = f64>) -> f64 {
    terms.fold(NEVER, log_add)
}

impl<'a> Chain<'a> {
    fn new(scores: &'a Scores, sequence: &'a HostSequence, emissions: Vec<Vec<f64>>) -> Chain<'a> {
        let (alpha, beta) = (Vec::new(), Vec::new());
        let mut chain = Chain { scores, tags: &sequence.labels, emissions, alpha, beta, total: 0.0, loss: 0.0 };
        if chain.emissions.is_empty() {
            chain.loss = if sequence.is_bad { f64::NAN } else { 0.0 };
            return chain;
        }
        let is_nan = chain.alphas();
        chain.betas();
        let last = &chain.alpha[chain.alpha.len() - 1];
        chain.total = log_sum(last.iter().zip(&scores.ends).map(|(a, end)| times(*a, *end)));
        let own = chain.own();
        chain.loss = match is_nan || sequence.is_bad || chain.total == NEVER {
            true => f64::NAN,
            false if own == NEVER => f64::INFINITY,
            false => chain.total - own,
        };
        chain
    }

    /// Fills `alpha`; whether a score that a tagging's beginning meets is NaN.
    fn alphas(&mut self) -> bool {
        let Scores { tags, ref transitions, ref starts, ref ends } = *self.scores;
        let met = if self.emissions.len() > 1 { &transitions[..] } else { &[] };
        let mut is_nan = met.iter().chain(starts).chain(ends).any(|score| score.is_nan());
        let mut before: Vec<f64> = Vec::new();
        for (t, row) in self.emissions.iter().enumerate() {
            let reached = |tag: usize| match t {
                0 => starts[tag],
                _ => log_sum((0..tags).map(|k| times(before[k], self.scores.transition(k, tag)))),
            };
            let reached: Vec<f64> = (0..tags).map(reached).collect();
            is_nan |= reached.iter().zip(row).any(|(a, p)| *a != NEVER && p.is_nan());
            before = reached.iter().zip(row).map(|(a, p)| times(*a, *p)).collect();
            self.alpha.push(before.clone());
        }
        is_nan
    }

    fn betas(&mut self) {
        let mut beta = vec![self.scores.ends.clone()];
        for row in self.emissions.iter().skip(1).rev() {
            let later: Vec<f64> = beta[beta.len() - 1].iter().zip(row).map(|(b, p)| times(*b, *p)).collect();
            let of = |tag: usize| {
                log_sum((0..later.len()).map(|next| times(later[next], self.scores.transition(tag, next))))
            };
            beta.push((0..later.len()).map(of).collect());
        }
        beta.reverse();
        self.beta = beta;
    }

    /// The score of the sequence's own tags.
    fn own(&self) -> f64 {
        let last = self.tags.len() - 1;
        let emitted: f64 = self.tags.iter().zip(&self.emissions).map(|(tag, row)| row[*tag]).sum();
        let passed: f64 = self.tags.windows(2).map(|pair| self.scores.transition(pair[0], pair[1])).sum();
        self.scores.starts[self.tags[0]] + emitted + passed + self.scores.ends[self.tags[last]]
    }

    /// Adds this sequence's gradients and marginals, whose first element among those of the emissions is `first`.
    fn gather(&self, first: usize, factor: f64, into: &mut Gathered) {
        let tags = self.scores.tags;
        if self.emissions.is_empty() {
            if self.loss.is_nan() {
                into.grads[1..].iter_mut().flatten().for_each(|g| *g = f64::NAN);
            }
            return;
        }
        let share = |log: f64| if self.loss.is_nan() { f64::NAN } else { (log - self.total).exp() };
        let [d_emissions, d_transitions, d_starts, d_ends] = &mut into.grads;
        let last = self.emissions.len() - 1;
        for t in 0..=last {
            for tag in 0..tags {
                let marginal = share(times(self.alpha[t][tag], self.beta[t][tag]));
                let less_own = (marginal - f64::from(u8::from(self.tags[t] == tag))) * factor;
                into.marginals[first + t * tags + tag] = marginal;
                d_emissions[first + t * tags + tag] = less_own;
                d_starts[tag] += if t == 0 { less_own } else { 0.0 };
                d_ends[tag] += if t == last { less_own } else { 0.0 };
                for before in (0..tags).filter(|_| t > 0) {
                    let passed = times(self.alpha[t - 1][before], self.scores.transition(before, tag));
                    let both = share(times(times(passed, self.beta[t][tag]), self.emissions[t][tag]));
                    let own = self.tags[t - 1] == before && self.tags[t] == tag;
                    d_transitions[before * tags + tag] += (both - f64::from(u8::from(own))) * factor;
                }
            }
        }
    }
}
