//! Held rows whose elements are written by the trip of their only stage: where the row turns out to hold NaN, or its sum is
//! not finite, they are written again.

use crate::common::compare::{assert_grads, is_nan, random};
use crate::common::context;
use wgloss::{Context, Element, Exp2, HostTensor, Kernel, Loss, Pinned, PlanSpec, Tensor, cpu, losses};

const ROWS: usize = 6;
/// A whole number of steps; and rows that may begin inside a vector.
const COLS: [usize; 2] = [1024, 1003];

/// Logarithms of probabilities, of which the rows 1 to 3 hold NaN, +∞ and −∞.
fn logs(seed: u32, cols: usize) -> Vec<f32> {
    let mut x: Vec<f32> = random(ROWS * cols, seed).iter().map(|x| -x.abs() - 4.0).collect();
    for (row, value) in [(1, f32::NAN), (2, f32::INFINITY), (3, f32::NEG_INFINITY)] {
        x[row * cols + 17 * row] = value;
    }
    x
}

fn check<T: Element + Into<f64>>(ctx: &Context, loss: &Loss, cols: usize, stored: impl Fn(f32) -> T) {
    let shape = [ROWS, cols];
    let [x, t] = [logs(1, cols), random(ROWS * cols, 2).iter().map(|t| -t.abs() - 4.0).collect()]
        .map(|values| values.into_iter().map(&stored).collect::<Vec<T>>());
    let wide = [&x, &t].map(|values| values.iter().map(|v| (*v).into() as f32).collect::<Vec<f32>>());
    let host = [("input", HostTensor::f32(&wide[0], &shape)), ("target", HostTensor::f32(&wide[1], &shape))];
    let want = cpu::forward_backward(loss, &host, &["input"]).unwrap();
    let [xs, ts] = [&x, &t].map(|values| Tensor::from_slice(ctx, values, &shape).unwrap());
    let pinned = Pinned {
        kernel: Some(Kernel::RowResident { trips: 0 }),
        workgroup: Some(64),
        lanes: Some(64),
        ..Pinned::default()
    };
    let spec =
        PlanSpec::new().grad("input").pin(Pinned { exp2: Some(Exp2::Functions), carries_nan: Some(true), ..pinned });
    let out = loss.run(ctx, &[("input", &xs), ("target", &ts)], &spec).unwrap();
    let got: Vec<f64> = out.grad("input").unwrap().to_vec::<T>().unwrap().into_iter().map(Into::into).collect();
    let want = want.grad("input").unwrap();
    let what = format!("{} {:?}, {cols} columns", loss.name(), T::DTYPE);
    assert_eq!(is_nan(&got), is_nan(want), "{what}");
    for row in [0, 4, 5] {
        let row = row * cols..(row + 1) * cols;
        let got: Vec<f32> = got[row.clone()].iter().map(|v| *v as f32).collect();
        match T::DTYPE {
            wgloss::DType::F32 => assert_grads(&what, &got, &want[row], cols),
            // One rounding to eight bits.
            _ => got.iter().zip(&want[row]).for_each(|(got, want)| {
                assert!((f64::from(*got) - want).abs() <= 2f64.powi(-8) * want.abs() + 1e-12, "{what}: {got}, {want}");
            }),
        }
    }
}

#[test]
fn rows_written_in_their_stage_are_written_again_where_they_are_poisoned() {
    let Some(ctx) = context() else { return };
    for cols in COLS {
        for loss in [losses::jsd(0.5).into(), losses::jsd(0.1).into()] {
            check::<f32>(ctx, &loss, cols, |v| v);
            check::<half::bf16>(ctx, &loss, cols, half::bf16::from_f32);
        }
    }
}
