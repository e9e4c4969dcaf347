//! Textbook forms in f64, by enumeration and by plain loops, and derivatives by central differences.

use crate::common::compare::random;
use crate::common::sequence::{Data, OnBoth, Sequence};

/// A batch for CTC, `[T, N, C]`.
#[derive(Clone, Debug)]
pub struct CtcBatch {
    pub frames: usize,
    pub classes: usize,
    pub blank: usize,
    /// Logits, or log-probabilities that are not normalised.
    pub x: Vec<f64>,
    pub labels: Vec<Vec<i32>>,
    pub lengths: Vec<i32>,
}

impl CtcBatch {
    /// Random classes in f32, of which `scale` stretches the differences.
    pub fn random(frames: usize, classes: usize, labels: &[&[i32]], lengths: &[i32], scale: f32) -> CtcBatch {
        let x = random(frames * labels.len() * classes, (frames * 31 + classes) as u32);
        CtcBatch {
            frames,
            classes,
            blank: 0,
            x: x.iter().map(|x| f64::from(x * scale)).collect(),
            labels: labels.iter().map(|labels| labels.to_vec()).collect(),
            lengths: lengths.to_vec(),
        }
    }

    pub fn sequences(&self) -> usize {
        self.labels.len()
    }

    fn most(&self) -> usize {
        self.labels.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The inputs as the operator takes them; what is past a length is out of range.
    pub fn inputs(&self, classes: &'static str) -> Vec<(&'static str, Vec<usize>, Data)> {
        let (n, most) = (self.sequences(), self.most());
        let mut targets = vec![-7; n * most];
        for (row, labels) in self.labels.iter().enumerate() {
            targets[row * most..row * most + labels.len()].copy_from_slice(labels);
        }
        let x = self.x.iter().map(|x| *x as f32).collect();
        let target_lengths = self.labels.iter().map(|labels| labels.len() as i32).collect();
        vec![
            (classes, vec![self.frames, n, self.classes], Data::Numbers(x)),
            ("targets", vec![n, most], Data::Indices(targets)),
            ("input_lengths", vec![n], Data::Indices(self.lengths.clone())),
            ("target_lengths", vec![n], Data::Indices(target_lengths)),
        ]
    }

    pub fn on_both(&self, operator: Sequence, classes: &'static str) -> OnBoth {
        OnBoth { operator, inputs: self.inputs(classes) }
    }

    fn at(&self, n: usize, t: usize, c: usize) -> usize {
        (t * self.sequences() + n) * self.classes + c
    }

    /// Log-probabilities of a sequence, `[frames, classes]`, of logits or as they are.
    fn log_probs(&self, n: usize, logits: bool) -> Vec<Vec<f64>> {
        let row = |t: usize| {
            let row: Vec<f64> = (0..self.classes).map(|c| self.x[self.at(n, t, c)]).collect();
            let most = row.iter().fold(f64::MIN, |a, b| a.max(*b));
            let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
            row.iter().map(|x| if logits { x - most - sum.ln() } else { *x }).collect()
        };
        (0..self.lengths[n] as usize).map(row).collect()
    }

    /// The loss of a sequence: every path of classes that becomes its labels is visited.
    pub fn enumerated(&self, n: usize, logits: bool) -> f64 {
        let log_probs = self.log_probs(n, logits);
        let mut sum = 0.0;
        for path in 0..self.classes.pow(log_probs.len() as u32) {
            let class = |t: usize| path / self.classes.pow(t as u32) % self.classes;
            let mut merged: Vec<usize> = (0..log_probs.len()).map(class).collect();
            merged.dedup();
            merged.retain(|class| *class != self.blank);
            if merged.iter().map(|class| *class as i32).eq(self.labels[n].iter().copied()) {
                sum += (0..log_probs.len()).map(|t| log_probs[t][class(t)]).sum::<f64>().exp();
            }
        }
        -sum.ln()
    }

    /// The loss of a sequence and the occupancies of its classes, by the recursions of Graves et al. in logarithms.
    pub fn by_recursion(&self, n: usize, logits: bool) -> (f64, Vec<Vec<f64>>) {
        let lp = self.log_probs(n, logits);
        let mut states = vec![self.blank];
        for label in &self.labels[n] {
            states.extend([*label as usize, self.blank]);
        }
        let (frames, last, never) = (lp.len(), states.len() - 1, f64::NEG_INFINITY);
        let may_skip = |s: usize| s >= 2 && states[s] != self.blank && states[s] != states[s - 2];
        let mut alpha = vec![vec![never; states.len()]; frames];
        let mut beta = alpha.clone();
        for t in 0..frames {
            for s in 0..=last {
                let mut ways = vec![];
                if t == 0 {
                    ways.push(if s < 2 { 0.0 } else { never });
                } else {
                    ways.push(alpha[t - 1][s]);
                    ways.extend((s >= 1).then(|| alpha[t - 1][s - 1]));
                    ways.extend(may_skip(s).then(|| alpha[t - 1][s - 2]));
                }
                alpha[t][s] = log_sum(&ways) + lp[t][states[s]];
            }
        }
        for t in (0..frames).rev() {
            for s in 0..=last {
                let mut ways = vec![];
                if t == frames - 1 {
                    ways.push(if s + 2 > last { 0.0 } else { never });
                } else {
                    let mut after = |s: usize| ways.push(beta[t + 1][s] + lp[t + 1][states[s]]);
                    after(s);
                    (s < last).then(|| after(s + 1));
                    (s + 2 <= last && may_skip(s + 2)).then(|| after(s + 2));
                }
                beta[t][s] = log_sum(&ways);
            }
        }
        let ends = if frames == 0 {
            vec![if last == 0 { 0.0 } else { never }]
        } else {
            (last.saturating_sub(1)..=last).map(|s| alpha[frames - 1][s]).collect()
        };
        let total = log_sum(&ends);
        let mut occupancies = vec![vec![0.0; self.classes]; frames];
        for t in 0..frames {
            for s in 0..=last {
                occupancies[t][states[s]] += (alpha[t][s] + beta[t][s] - total).exp();
            }
        }
        (-total, occupancies)
    }

    /// Losses, and the gradient `p − occupancy` of their weighted sum, by the recursions.
    pub fn expected(&self, logits: bool, weights: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let mut grad = vec![0.0; self.x.len()];
        let mut losses = Vec::new();
        for (n, weight) in weights.iter().enumerate() {
            let lp = self.log_probs(n, logits);
            let (loss, occupancies) = self.by_recursion(n, logits);
            for t in 0..lp.len() {
                for c in 0..self.classes {
                    grad[self.at(n, t, c)] = (lp[t][c].exp() - occupancies[t][c]) * weight;
                }
            }
            losses.push(loss);
        }
        (losses, grad)
    }
}

/// ln Σ exp.
pub fn log_sum(terms: &[f64]) -> f64 {
    let most = terms.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
    if most == f64::NEG_INFINITY { most } else { most + terms.iter().map(|x| (x - most).exp()).sum::<f64>().ln() }
}

/// Central differences of a function at these numbers, each with an error of about 1e-9.
pub fn differences(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-4;
    let at = |k: usize, by: f64| {
        let mut moved = x.to_vec();
        moved[k] += by * step;
        f(&moved)
    };
    let derivative = |k| (8.0 * (at(k, 1.0) - at(k, -1.0)) - (at(k, 2.0) - at(k, -2.0))) / (12.0 * step);
    (0..x.len()).map(derivative).collect()
}
