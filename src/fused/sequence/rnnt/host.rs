//! The loss of a transducer on the CPU, in f64, by logarithms.

use super::{AXES, Rnnt};
use crate::cpu::{CpuOutput, HostTensor};
use crate::error::Result;
use crate::fused::sequence::host::{HostBatch, HostSequence, log_add, log_softmax, loss_output, times};
use crate::fused::sequence::operator::Sequence;
use crate::lower::{OutputKind, Wanted};

const NEVER: f64 = f64::NEG_INFINITY;

/// The lattice of a sequence.
struct Lattice<'a> {
    frames: usize,
    labels: &'a [usize],
    blank: usize,
    /// Log-probabilities of the classes of each cell, frame by frame.
    rows: Vec<Vec<f64>>,
}

/// The loss and, if asked for, gradients.
pub(super) fn run(rnnt: &Rnnt, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<f64>> {
    let batch = HostBatch::new(rnnt, inputs, wanted, Rnnt::lengths())?;
    let (weighting, layout) = (rnnt.weighting()?, batch.tensors[0].layout());
    let (classes, cells) = (batch.sizes.classes as usize, batch.sizes.labels as usize + 1);
    let blank = rnnt.blank_of(batch.sizes.classes) as usize;
    let strides = AXES.map(|axis| axis.map_or(0, |axis| layout.strides[axis]));
    let across = layout.strides[3];
    let (mut losses, mut factors) = (Vec::new(), Vec::new());
    let mut grad = vec![0.0; if wanted.grads.is_empty() { 0 } else { layout.len() }];
    for (n, sequence) in batch.sequences.iter().enumerate() {
        let HostSequence { frames, labels, is_bad, .. } = sequence;
        let row = |k: usize| -> Vec<f64> {
            let (t, u) = (k / (labels.len() + 1), k % (labels.len() + 1));
            let first = n * strides[0] + t * strides[1] + u * strides[2];
            let row: Vec<f64> = (0..classes).map(|c| batch.tensors[0].number(first + c * across)).collect();
            if rnnt.fused_log_softmax { log_softmax(&row) } else { row }
        };
        let rows = (0..frames.len() * (labels.len() + 1)).map(row).collect();
        let lattice = Lattice { frames: frames.len(), labels, blank, rows };
        let (alpha, beta) = (lattice.alpha(), lattice.beta());
        let loss = if *is_bad { f64::NAN } else { lattice.loss(&alpha) };
        let factor = batch.factor(weighting, sequence);
        if !grad.is_empty() {
            for k in 0..lattice.rows.len() {
                let (t, u) = (k / (labels.len() + 1), k % (labels.len() + 1));
                let first = ((n * batch.sizes.frames as usize + t) * cells + u) * classes;
                let own = &mut grad[first..first + classes];
                if loss.is_finite() {
                    lattice.gradient(rnnt, (t, u), [&alpha, &beta], own);
                    own.iter_mut().for_each(|g| *g *= factor);
                } else {
                    own.fill(f64::NAN);
                }
            }
        }
        losses.push(loss);
        factors.push(factor);
    }
    let mut outputs = Vec::new();
    if wanted.loss {
        let shape = rnnt.output_shape(&OutputKind::Loss, &[&layout.shape]);
        outputs.push(loss_output(weighting, shape, &losses, &factors));
    }
    if let Some(name) = wanted.grads.first() {
        outputs.push((OutputKind::Grad(0), name.clone(), layout.shape.clone(), grad));
    }
    Ok(batch.finish(outputs))
}

impl Lattice<'_> {
    fn at(&self, t: usize, u: usize) -> usize {
        t * (self.labels.len() + 1) + u
    }

    /// What leaves a cell by the blank, and by the next label, as logarithms.
    fn emissions(&self, t: usize, u: usize) -> [f64; 2] {
        let row = &self.rows[self.at(t, u)];
        // +∞ is no probability.
        let known = |p: f64| if p == f64::INFINITY { f64::NAN } else { p };
        [known(row[self.blank]), self.labels.get(u).map_or(NEVER, |label| known(row[*label]))]
    }

    fn alpha(&self) -> Vec<f64> {
        let mut alpha = vec![NEVER; self.rows.len()];
        for t in 0..self.frames {
            for u in 0..=self.labels.len() {
                let mut a = if (t, u) == (0, 0) { 0.0 } else { NEVER };
                if t > 0 {
                    a = log_add(a, times(alpha[self.at(t - 1, u)], self.emissions(t - 1, u)[0]));
                }
                if u > 0 {
                    a = log_add(a, times(alpha[self.at(t, u - 1)], self.emissions(t, u - 1)[1]));
                }
                alpha[self.at(t, u)] = a;
            }
        }
        alpha
    }

    fn beta(&self) -> Vec<f64> {
        let mut beta = vec![NEVER; self.rows.len()];
        for k in (0..self.rows.len()).rev() {
            let (t, u) = (k / (self.labels.len() + 1), k % (self.labels.len() + 1));
            let [blank, label] = self.emissions(t, u);
            let after = match t + 1 == self.frames {
                true if u == self.labels.len() => 0.0,
                true => NEVER,
                false => beta[self.at(t + 1, u)],
            };
            let later = if u < self.labels.len() { beta[self.at(t, u + 1)] } else { NEVER };
            beta[k] = log_add(times(after, blank), times(later, label));
        }
        beta
    }

    fn loss(&self, alpha: &[f64]) -> f64 {
        let Some(last) = self.frames.checked_sub(1) else { return f64::INFINITY };
        let u = self.labels.len();
        // A NaN that a beginning meets may lead to no end.
        let met = |t: usize, u: usize| {
            let [blank, label] = self.emissions(t, u);
            let is_taken = t < last || u == self.labels.len();
            alpha[self.at(t, u)] > NEVER && (blank.is_nan() && is_taken || label.is_nan())
        };
        let is_nan = (0..=last).any(|t| (0..=u).any(|u| met(t, u)));
        let total = times(alpha[self.at(last, u)], self.emissions(last, u)[0]);
        if is_nan || total.is_nan() { f64::NAN } else { 0.0 - total }
    }

    fn gradient(&self, rnnt: &Rnnt, (t, u): (usize, usize), [alpha, beta]: [&[f64]; 2], grad: &mut [f64]) {
        let ([blank, label], a) = (self.emissions(t, u), alpha[self.at(t, u)]);
        let after = match t + 1 == self.frames {
            true if u == self.labels.len() => 0.0,
            true => NEVER,
            false => beta[self.at(t + 1, u)],
        };
        let later = if u < self.labels.len() { beta[self.at(t, u + 1)] } else { NEVER };
        // What no beginning comes to, and what leads to no end, takes nothing in.
        let share = |later: f64, p: f64| times(times(a, later), p - beta[0]).exp();
        let leaves = [share(after, blank), share(later, label)];
        if rnnt.fused_log_softmax {
            let row = &self.rows[self.at(t, u)];
            grad.iter_mut().zip(row).for_each(|(g, p)| *g = p.exp() * (leaves[0] + leaves[1]));
        }
        grad[self.blank] -= leaves[0];
        if let Some(label) = self.labels.get(u) {
            grad[*label] -= leaves[1];
        }
        if rnnt.clamp > 0.0 {
            grad.iter_mut().for_each(|g| *g = g.clamp(-rnnt.clamp, rnnt.clamp));
        }
    }
}
