//! Compares a bound plan with the f64 CPU path on a sample of rows, and its loss with the sum of all rows' losses.

use crate::Fallible;
use crate::kernels::Kernels;
use wgloss::{Bindings, Bound, Context, DType, HostTensor, Loss, PlanSpec, Reduction, Tensor, cpu, widen_bf16};

/// Relative to the loss, or to the largest gradient of a row.
const TOLERANCE: f64 = 3e-6;
/// Bytes read back at a time.
const READ_BYTES: usize = 64 << 20;

pub struct Problem<'a> {
    pub ctx: &'a Context,
    pub kernels: &'a Kernels<'a>,
    pub loss: &'a Loss,
    pub input: &'a Tensor,
    pub target: &'a Tensor,
    pub grad: &'a Tensor,
}

/// Errors where a loss, a gradient or the mean is off, or where something was left unwritten.
pub fn check(problem: &Problem<'_>, bound: &Bound, sample: usize) -> Fallible<()> {
    let Problem { ctx, kernels, loss, input, target, grad } = *problem;
    kernels.poison(grad);
    bound.submit()?;
    let mean = f64::from(bound.read_loss()?);
    let left = kernels.count_poison(grad)?;
    if left > 0 {
        return Err(format!("{left} vectors of the gradient were not written").into());
    }
    // Losses of all rows (or elements), unreduced.
    let unreduced = loss.clone().reduction(Reduction::None);
    let plan = ctx.plan(&unreduced, &PlanSpec::new().like(&[("input", input), ("target", target)]))?;
    let each = plan.bind(&Bindings::new().input("input", input).input("target", target))?;
    each.submit()?;
    pollster::block_on(each.status())?;
    let each = each.loss()?;

    let (rows, cols) = (input.shape()[0], input.shape()[1]);
    let a_row = each.shape().iter().product::<usize>() / rows;
    let mut sum = 0.0;
    let at_once = (READ_BYTES / (4 * a_row)).clamp(1, rows);
    for first in (0..rows).step_by(at_once) {
        let some = at_once.min(rows - first);
        let values = each.view((first * a_row) as u64, &[some * a_row], &[1])?.to_vec::<f32>()?;
        sum += values.iter().map(|v| f64::from(*v)).sum::<f64>();
    }
    let losses = (rows * a_row) as f64;
    within("the mean", 0, mean, sum / losses, TOLERANCE * (sum / losses).abs())?;

    for row in (0..sample).map(|k| k * (rows - 1) / (sample - 1).max(1)) {
        let x = read_row(input, row, cols)?;
        let x = HostTensor::f32(&x, &[1, cols]);
        let want = if target.shape().len() == 1 {
            let y = target.view(row as u64, &[1], &[1])?.to_vec::<i32>()?;
            cpu::forward_backward(&unreduced, &[("input", x), ("target", HostTensor::i32(&y, &[1]))], &["input"])?
        } else {
            let y = read_row(target, row, cols)?;
            cpu::forward_backward(&unreduced, &[("input", x), ("target", HostTensor::f32(&y, &[1, cols]))], &["input"])?
        };
        let got = each.view((row * a_row) as u64, &[a_row], &[1])?.to_vec::<f32>()?;
        for (got, want) in got.iter().zip(want.loss_values()?) {
            within("a loss", row, f64::from(*got), *want, TOLERANCE * want.abs() + 1e-6)?;
        }
        let want: Vec<f64> = want.grad("input")?.iter().map(|g| g / losses).collect();
        let largest = want.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        // A brain float's unit in the last place.
        let rounding = if grad.dtype() == DType::BF16 { 1.0 / 256.0 } else { 0.0 };
        for (got, want) in read_row(grad, row, cols)?.iter().zip(&want) {
            let allowed = rounding * want.abs() + TOLERANCE * largest;
            within("a gradient", row, f64::from(*got), *want, allowed)?;
        }
    }
    Ok(())
}

/// NaN is never within.
fn within(what: &str, row: usize, got: f64, want: f64, allowed: f64) -> Fallible<()> {
    let off = (got - want).abs();
    if off <= allowed {
        return Ok(());
    }
    Err(format!("{what} of row {row}: got {got:e}, want {want:e}, off {off:e} of {allowed:e}").into())
}

fn read_row(tensor: &Tensor, row: usize, cols: usize) -> Fallible<Vec<f32>> {
    let view = tensor.view((row * cols) as u64, &[cols], &[1])?;
    Ok(match tensor.dtype() {
        DType::BF16 => widen_bf16(&view.to_vec()?),
        _ => view.to_vec()?,
    })
}
