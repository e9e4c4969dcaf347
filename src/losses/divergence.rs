//! Divergences between distributions.

use super::of_input_and_target;
use crate::loss::Loss;

/// Kullback–Leibler divergence, element by element, of log-probabilities `input` from `target`.
///
/// `L = t·ln t − t·x` (0·ln 0 is 0), or with `log_target` `exp(t)·(t − x)`; `x = input`, `t = target`.
///
/// Shapes: `input, target` broadcast to one shape → loss of that shape. Unit: nats; the mean divides by the number of
/// elements. `Reduction::BatchMean`, which divides by the size of the first axis, gives the divergence itself.
/// Gradient: `−t`, or `−exp(t)`, with respect to `input`; `ln t + 1 − x`, or `exp(t)·(t − x + 1)`, with respect to
/// `target` (NaN at `t = 0`, as in PyTorch).
/// Options: `log_target` (false).
/// An `input` of −∞ with `t = 0` gives NaN, as in PyTorch.
/// Source: Kullback and Leibler (1951), Ann. Math. Statist. 22(1). Same as `torch.nn.functional.kl_div`.
///
/// ```
/// use wgloss::{HostTensor, Reduction, cpu, losses};
/// let log_half = [0.5f32.ln(); 2];
/// let (x, t) = (HostTensor::f32(&log_half, &[1, 2]), HostTensor::f32(&[1.0, 0.0], &[1, 2]));
/// let loss = losses::kl_div().reduction(Reduction::BatchMean);
/// let out = cpu::forward_backward(&loss, &[("input", x), ("target", t)], &["input"])?;
/// assert!((out.loss()? - 2f64.ln()).abs() < 1e-7);
/// assert_eq!(out.grad("input")?, [-1.0, 0.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
pub fn kl_div() -> Loss {
    of_input_and_target("kl_div").flag("log_target", false).expr(|b| {
        let (x, t) = (b.input("input"), b.input("target"));
        if b.flag("log_target") { t.exp() * (t - x) } else { t.xlogy(t) - t * x }
    })
}
