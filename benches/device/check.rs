//! Compares a bound plan with the f64 CPU path on a sample of rows, and its loss with the sum of all rows' losses.

use crate::Fallible;
use crate::kernels::Kernels;
use measure::contract::{gradient_allowed, loss_allowed, units};
use wgloss::{Bindings, Bound, Context, DType, HostTensor, Loss, PlanSpec, Reduction, Tensor, cpu, widen_bf16};

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
    let losses = each.shape().iter().product::<usize>() as f64;
    let [sum, magnitude] = sums(each, input.shape()[0])?;
    within("the mean", 0, mean, sum / losses, loss_allowed(sum / losses, magnitude / losses))?;
    let rows = input.shape()[0];
    for row in (0..sample).map(|k| k * (rows - 1) / (sample - 1).max(1)) {
        check_row(problem, &unreduced, each, row)?;
    }
    Ok(())
}

/// Sum of the losses, and of their magnitudes.
fn sums(each: &Tensor, rows: usize) -> Fallible<[f64; 2]> {
    let row_losses = each.shape().iter().product::<usize>() / rows;
    let rows_at_once = (READ_BYTES / (4 * row_losses)).clamp(1, rows);
    let [mut sum, mut magnitude] = [0.0; 2];
    for first in (0..rows).step_by(rows_at_once) {
        let some = rows_at_once.min(rows - first);
        let values = each.view((first * row_losses) as u64, &[some * row_losses], &[1])?.to_vec::<f32>()?;
        sum += values.iter().map(|v| f64::from(*v)).sum::<f64>();
        magnitude += values.iter().map(|v| f64::from(v.abs())).sum::<f64>();
    }
    Ok([sum, magnitude])
}

/// Losses and gradients of a row beside those of the f64 path; `each` are all losses.
fn check_row(problem: &Problem<'_>, unreduced: &Loss, each: &Tensor, row: usize) -> Fallible<()> {
    let Problem { input, target, grad, .. } = *problem;
    let (rows, cols) = (input.shape()[0], input.shape()[1]);
    let losses = each.shape().iter().product::<usize>();
    let row_losses = losses / rows;
    let x = read_row(input, row, cols)?;
    let x = HostTensor::f32(&x, &[1, cols]);
    let want = if target.shape().len() == 1 {
        let y = target.view(row as u64, &[1], &[1])?.to_vec::<i32>()?;
        cpu::forward_backward(unreduced, &[("input", x), ("target", HostTensor::i32(&y, &[1]))], &["input"])?
    } else {
        let y = read_row(target, row, cols)?;
        cpu::forward_backward(unreduced, &[("input", x), ("target", HostTensor::f32(&y, &[1, cols]))], &["input"])?
    };
    let got = each.view((row * row_losses) as u64, &[row_losses], &[1])?.to_vec::<f32>()?;
    for (got, want) in got.iter().zip(want.loss_values()?) {
        // Logits of a loss cancel.
        within("a loss", row, f64::from(*got), *want, loss_allowed(*want, want.abs().max(1.0)))?;
    }
    let want: Vec<f64> = want.grad("input")?.iter().map(|g| g / losses as f64).collect();
    let largest = want.iter().fold(0.0f64, |m, g| m.max(g.abs()));
    for (got, want) in read_row(grad, row, cols)?.iter().zip(&want) {
        within("a gradient", row, f64::from(*got), *want, gradient_allowed(*want, largest, grad.dtype()))?;
    }
    Ok(())
}

/// NaN is never within.
fn within(what: &str, row: usize, got: f64, want: f64, allowed: f64) -> Fallible<()> {
    let units = units(got, want, allowed);
    if units <= 1.0 {
        return Ok(());
    }
    Err(format!("{what} of row {row}: got {got:e}, want {want:e}, {units:.2} times what is allowed").into())
}

fn read_row(tensor: &Tensor, row: usize, cols: usize) -> Fallible<Vec<f32>> {
    let view = tensor.view((row * cols) as u64, &[cols], &[1])?;
    Ok(match tensor.dtype() {
        DType::BF16 => widen_bf16(&view.to_vec()?),
        _ => view.to_vec()?,
    })
}
