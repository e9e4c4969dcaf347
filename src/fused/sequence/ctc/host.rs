//! CTC on the CPU, in f64, by logarithms.

use super::Ctc;
use crate::cpu::{CpuOutput, HostTensor};
use crate::error::Result;
use crate::fused::sequence::host::{HostBatch, HostSequence, log_add, log_softmax, loss_output, times};
use crate::fused::sequence::operator::Sequence;
use crate::lower::{OutputKind, Wanted};
use crate::shape::Layout;

/// Alpha and beta of a lattice, frame by frame.
struct Lattice<'a> {
    ctc: &'a Ctc,
    labels: &'a [usize],
    /// Log-probabilities of the classes of each frame.
    rows: Vec<Vec<f64>>,
    states: usize,
    /// Logarithms of the probabilities of beginnings, per frame and state.
    alpha: Vec<f64>,
    /// Of ends after the frame.
    beta: Vec<f64>,
    loss: f64,
}

/// The loss and, if asked for, gradients.
pub(super) fn run(ctc: &Ctc, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<f64>> {
    let batch = HostBatch::new(ctc, inputs, wanted, ctc.lengths())?;
    let weighting = ctc.weighting()?;
    let layout = batch.tensors[0].layout();
    let axes = ctc.axes(layout.shape.len());
    let classes = batch.sizes.classes as usize;
    // Gradients are contiguous in the input's shape.
    let strides = |strides: &[usize]| axes.map(|axis| axis.map_or(0, |axis| strides[axis]));
    let (own, of_grad) = (strides(&layout.strides), strides(&Layout::contiguous(&layout.shape).strides));
    let across = layout.strides[layout.strides.len() - 1];
    let (mut losses, mut factors) = (Vec::new(), Vec::new());
    let mut grad = vec![0.0; if wanted.grads.is_empty() { 0 } else { layout.len() }];
    for (n, sequence) in batch.sequences.iter().enumerate() {
        let row = |t: &usize| -> Vec<f64> {
            let first = n * own[0] + t * own[1];
            let row: Vec<f64> = (0..classes).map(|c| batch.tensors[0].number(first + c * across)).collect();
            if ctc.is_logits() { log_softmax(&row) } else { row }
        };
        let lattice = Lattice::new(ctc, sequence, sequence.frames.iter().map(row).collect());
        let is_zero = ctc.zero_infinity && lattice.loss == f64::INFINITY;
        let factor = batch.factor(weighting, sequence);
        if !grad.is_empty() && !is_zero {
            for (k, t) in sequence.frames.iter().enumerate() {
                let first = n * of_grad[0] + t * of_grad[1];
                lattice.gradient(k, factor, &mut grad[first..first + classes]);
            }
        }
        losses.push(if is_zero { 0.0 } else { lattice.loss });
        factors.push(factor);
    }
    let mut outputs = Vec::new();
    if wanted.loss {
        let shape = ctc.output_shape(&OutputKind::Loss, &[&layout.shape]);
        outputs.push(loss_output(weighting, shape, &losses, &factors));
    }
    if let Some(name) = wanted.grads.first() {
        outputs.push((OutputKind::Grad(0), name.clone(), layout.shape.clone(), grad));
    }
    Ok(batch.finish(outputs))
}

impl<'a> Lattice<'a> {
    fn new(ctc: &'a Ctc, sequence: &'a HostSequence, rows: Vec<Vec<f64>>) -> Lattice<'a> {
        let (labels, states) = (&sequence.labels[..], 2 * sequence.labels.len() + 1);
        let mut lattice = Lattice { ctc, labels, rows, states, alpha: Vec::new(), beta: Vec::new(), loss: f64::NAN };
        let loss = lattice.alphas();
        lattice.betas();
        lattice.loss = if sequence.is_bad { f64::NAN } else { loss };
        lattice
    }

    fn class(&self, state: usize) -> usize {
        if state.is_multiple_of(2) { self.ctc.blank as usize } else { self.labels[state / 2] }
    }

    /// What passes from the label two states before a label's state, as a logarithm.
    fn skip(&self, state: usize) -> Option<f64> {
        let is_label = state > 2 && !state.is_multiple_of(2);
        let repeats = || self.labels[state / 2] == self.labels[state / 2 - 1];
        is_label.then(|| if repeats() { self.ctc.log_epsilon } else { 0.0 })
    }

    /// Fills `alpha`; the loss, which is NaN if a state that a beginning comes to has a class without a probability.
    fn alphas(&mut self) -> f64 {
        let mut before = vec![self.ctc.log_epsilon; self.states];
        before[0] = 0.0;
        let mut is_nan = false;
        for row in &self.rows {
            let next = |state: usize| {
                let mut a = before[state];
                if state > 0 {
                    a = log_add(a, before[state - 1]);
                }
                self.skip(state).map_or(a, |skip| log_add(a, before[state - 2] + skip))
            };
            let reached: Vec<f64> = (0..self.states).map(next).collect();
            let is_none = |p: f64| p.is_nan() || p == f64::INFINITY;
            let mut states = (0..self.states).filter(|state| reached[*state] > f64::NEG_INFINITY);
            is_nan |= states.any(|state| is_none(row[self.class(state)]));
            before = (0..self.states).map(|state| times(reached[state], row[self.class(state)])).collect();
            self.alpha.extend_from_slice(&before);
        }
        let last = self.states - 1;
        let total = if last > 0 { log_add(before[last], before[last - 1]) } else { before[0] };
        if is_nan { f64::NAN } else { 0.0 - total }
    }

    fn betas(&mut self) {
        let mut after = vec![f64::NEG_INFINITY; self.states];
        after[self.states - 1] = 0.0;
        self.beta = vec![0.0; self.rows.len() * self.states];
        for (k, row) in self.rows.iter().enumerate().rev() {
            for state in 0..self.states {
                let mut b = after[state];
                if state + 1 < self.states {
                    b = log_add(b, after[state + 1]);
                }
                if let Some(skip) = (state + 2 < self.states).then(|| self.skip(state + 2)).flatten() {
                    b = log_add(b, after[state + 2] + skip);
                }
                self.beta[k * self.states + state] = b;
            }
            let own = &self.beta[k * self.states..(k + 1) * self.states];
            after = (0..self.states).map(|state| times(own[state], row[self.class(state)])).collect();
        }
    }

    /// The gradient of the `k`-th frame that is no padding.
    fn gradient(&self, k: usize, factor: f64, grad: &mut [f64]) {
        if !self.loss.is_finite() {
            grad.fill(f64::NAN);
            return;
        }
        // Beta may be NaN where no beginning comes to.
        let both = |state: usize| times(self.alpha[k * self.states + state], self.beta[k * self.states + state]);
        let both: Vec<f64> = (0..self.states).map(both).collect();
        let total = both.iter().copied().fold(f64::NEG_INFINITY, log_add);
        for (class, lp) in self.rows[k].iter().enumerate() {
            grad[class] = lp.exp() * factor;
        }
        for (state, both) in both.into_iter().enumerate().filter(|(_, both)| *both > f64::NEG_INFINITY) {
            grad[self.class(state)] -= (both - total).exp() * factor;
        }
    }
}
