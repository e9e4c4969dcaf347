//! The CPU path against textbook loops.

use super::*;
use crate::loss::{Denominator, Unreduced};
use crate::{Expr, Reduction, RowAxis, Upstream, losses};

/// Cross entropy with an ignored label, in the words of the expression language.
fn softmax_loss() -> Loss {
    Loss::define("ce").input("x", Scope::Element).label("y").row_axis(RowAxis::Class).unreduced(|b| {
        let (x, y) = (b.input("x"), b.input("y"));
        let nll = x.logsumexp_shifted() - (x.at(y) - x.max().detach());
        let valid = !b.label_is("y", -100);
        if valid.scope() < Scope::Row {
            return nll.into(); // an unsigned label is never −100
        }
        Unreduced { value: nll.masked(valid), denominator: Denominator::Sum(valid.to_float()) }
    })
}

/// Numbers without a pattern, in −range … range.
fn noise(count: usize, range: f64) -> Vec<f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..count).map(|_| range * (2.0 * next() - 1.0)).collect()
}

fn labels(count: usize, cols: usize) -> Vec<i32> {
    (0..count).map(|k| ((k * 7919 + 13) % cols) as i32).collect()
}

#[track_caller]
fn assert_close(got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(0.0f64, |all, x| all.max(x.abs())).max(1e-300);
    for (k, (got, want)) in got.iter().zip(want).enumerate() {
        let same = (got - want).abs() <= tolerance * scale || got.is_nan() && want.is_nan();
        assert!(same, "at {k}: got {got}, want {want}");
    }
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// Losses and gradients (of the sum of the losses) of logits `[outer, cols, inner]`.
fn cross_entropy_oracle(x: &[f64], y: &[i32], cols: usize, inner: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut losses, mut grad) = (vec![0.0; y.len()], vec![0.0; x.len()]);
    for (row, &label) in y.iter().enumerate() {
        let at = |col: usize| (row / inner) * cols * inner + col * inner + row % inner;
        let max = (0..cols).map(|c| x[at(c)]).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = (0..cols).map(|c| (x[at(c)] - max).exp()).sum();
        losses[row] = sum.ln() + max - x[at(label as usize)];
        for c in 0..cols {
            grad[at(c)] = (x[at(c)] - max).exp() / sum - f64::from(u8::from(c == label as usize));
        }
    }
    (losses, grad)
}

#[test]
fn mean_squared_error_is_as_defined() {
    // 1, 1023, 1024, 1025: around one block; 65537: around one task.
    for count in [1, 1023, 1024, 1025, 65537] {
        let (x, t) = (noise(count, 3.0), noise(2 * count, 3.0)[count..].to_vec());
        let inputs = [("input", HostTensor::f64(&x, &[count])), ("target", HostTensor::f64(&t, &[count]))];
        let out = forward_backward(&losses::mse(), &inputs, &["input", "target"]).unwrap();
        let n = count as f64;
        let want: f64 = x.iter().zip(&t).map(|(x, t)| (x - t) * (x - t)).sum::<f64>() / n;
        assert_close(&[out.loss().unwrap()], &[want], 1e-13);
        let want: Vec<f64> = x.iter().zip(&t).map(|(x, t)| 2.0 * (x - t) / n).collect();
        assert_close(out.grad("input").unwrap(), &want, 1e-14);
        let want: Vec<f64> = want.iter().map(|g| -g).collect();
        assert_close(out.grad("target").unwrap(), &want, 1e-14);
    }
}

#[test]
fn softmax_loss_is_as_defined_for_every_tiling() {
    // Columns: 1, 3, 32, 33: around short rows; 1023, 1024, 1025, 2500: around blocks. Inner 1: class axis last.
    for (outer, cols, inner) in [
        (1, 1, 1),
        (5000, 3, 1),
        (7, 32, 1),
        (70, 33, 1),
        (3, 1023, 1),
        (20, 1024, 1),
        (3, 1025, 1),
        (40, 2500, 1),
        (2, 3, 5),
        (2, 70, 1500),
        (1, 1200, 7),
    ] {
        let (x, y) = (noise(outer * cols * inner, 20.0), labels(outer * inner, cols));
        let shape = if inner == 1 { vec![outer, cols] } else { vec![outer, cols, inner] };
        let row_shape = if inner == 1 { vec![outer] } else { vec![outer, inner] };
        let inputs = [("x", HostTensor::f64(&x, &shape)), ("y", HostTensor::i32(&y, &row_shape))];
        let (want, want_grad) = cross_entropy_oracle(&x, &y, cols, inner);
        let out = forward_backward(&softmax_loss().reduction(Reduction::None), &inputs, &["x"]).unwrap();
        assert_eq!(out.loss_shape(), row_shape);
        assert_close(out.loss_values().unwrap(), &want, 1e-13);
        assert_close(out.grad("x").unwrap(), &want_grad, 1e-13);
        let n = want.len() as f64;
        let wanted = Wanted { loss: true, denominator: true, grads: vec!["x".to_owned()], ..Wanted::default() };
        let out = run::<f64>(&softmax_loss(), &inputs, &wanted).unwrap();
        assert_close(&[out.loss().unwrap()], &[want.iter().sum::<f64>() / n], 1e-13);
        assert_eq!(out.denominator(), Some(n));
        let want_grad: Vec<f64> = want_grad.iter().map(|g| g / n).collect();
        assert_close(out.grad("x").unwrap(), &want_grad, 1e-13);
    }
}

#[test]
fn confident_rows_keep_their_digits() {
    for cols in [4, 40] {
        let mut x = vec![0.0f64; cols];
        x[1] = 30.0;
        let inputs = [("x", HostTensor::f64(&x, &[1, cols])), ("y", HostTensor::i32(&[1], &[1]))];
        let out = forward_backward(&softmax_loss(), &inputs, &["x"]).unwrap();
        let rest = (cols - 1) as f64 * (-30.0f64).exp();
        assert!((out.loss().unwrap() / rest.ln_1p() - 1.0).abs() < 1e-14);
        assert!((out.grad("x").unwrap()[1] / (-rest / (1.0 + rest)) - 1.0).abs() < 1e-14);
    }
}

#[test]
fn ignored_rows_are_zero_whatever_they_hold() {
    for (cols, bad) in [(3, f64::NAN), (40, f64::NAN), (3, f64::INFINITY), (40, f64::NEG_INFINITY)] {
        let mut x = noise(3 * cols, 2.0);
        x[cols..2 * cols].fill(bad);
        let y = [1, -100, 2];
        let inputs = [("x", HostTensor::f64(&x, &[3, cols])), ("y", HostTensor::i32(&y, &[3]))];
        let out = forward_backward(&softmax_loss().reduction(Reduction::None), &inputs, &["x"]).unwrap();
        assert_eq!(out.loss_values().unwrap()[1], 0.0);
        assert!(out.grad("x").unwrap()[cols..2 * cols].iter().all(|g| *g == 0.0));
        let mean = forward_backward(&softmax_loss(), &inputs, &["x"]).unwrap();
        let kept = out.loss_values().unwrap();
        assert_close(&[mean.loss().unwrap()], &[(kept[0] + kept[2]) / 2.0], 1e-14);
        assert!(mean.grad("x").unwrap().iter().all(|g| g.is_finite()));
    }
}

#[test]
fn all_rows_ignored_is_nan_with_gradient_zero() {
    let inputs = [("x", HostTensor::f64(&[1.0; 6], &[2, 3])), ("y", HostTensor::i32(&[-100; 2], &[2]))];
    let out = forward_backward(&softmax_loss(), &inputs, &["x"]).unwrap();
    assert!(out.loss().unwrap().is_nan());
    assert_eq!(out.grad("x").unwrap(), [0.0; 6]);
}

#[test]
fn nan_poisons_its_row() {
    // Several tiles: what poisons a row of the first must not reach the others.
    for (cols, rows) in [(3, 13_000), (40, 1000), (2000, 20)] {
        for bad in [f64::NAN, f64::INFINITY] {
            let mut x = noise(rows * cols, 2.0);
            x[2 * cols + 1] = bad;
            let y = labels(rows, cols);
            let inputs = [("x", HostTensor::f64(&x, &[rows, cols])), ("y", HostTensor::i32(&y, &[rows]))];
            let out = forward_backward(&softmax_loss().reduction(Reduction::None), &inputs, &["x"]).unwrap();
            for row in 0..rows {
                assert_eq!(out.loss_values().unwrap()[row].is_nan(), row == 2);
                let grad = &out.grad("x").unwrap()[row * cols..(row + 1) * cols];
                assert!(grad.iter().all(|g| g.is_nan() == (row == 2)), "{cols} columns, row {row}");
            }
            assert!(forward_backward(&softmax_loss(), &inputs, &[]).unwrap().loss().unwrap().is_nan());
        }
    }
}

#[test]
fn minus_infinity_is_probability_zero() {
    for cols in [3, 40] {
        let mut x = vec![f64::NEG_INFINITY; 2 * cols];
        x[0] = 1.0;
        x[1] = 1.0;
        let inputs = [("x", HostTensor::f64(&x, &[2, cols])), ("y", HostTensor::i32(&[0, 0], &[2]))];
        let out = forward_backward(&softmax_loss().reduction(Reduction::None), &inputs, &["x"]).unwrap();
        assert_close(&out.loss_values().unwrap()[..1], &[2f64.ln()], 1e-15);
        assert_eq!(out.grad("x").unwrap()[2], 0.0);
        assert!(out.loss_values().unwrap()[1].is_nan(), "a row of nothing");
        assert!(out.grad("x").unwrap()[cols..].iter().all(|g| g.is_nan()));
    }
}

#[test]
fn nan_poisons_its_element_alone_where_there_are_no_rows() {
    let (mut x, t) = (noise(3000, 1.0), noise(3000, 1.0));
    x[1500] = f64::NAN;
    let inputs = [("input", HostTensor::f64(&x, &[3000])), ("target", HostTensor::f64(&t, &[3000]))];
    let out = forward_backward(&losses::l1().reduction(Reduction::None), &inputs, &["input"]).unwrap();
    for values in [out.loss_values().unwrap(), out.grad("input").unwrap()] {
        assert!((0..3000).all(|k| values[k].is_nan() == (k == 1500)));
    }
    assert!(forward_backward(&losses::l1(), &inputs, &["input"]).unwrap().loss().unwrap().is_nan());
}

#[test]
fn comparisons_cannot_swallow_nan() {
    let relu = Loss::define("relu").input("x", Scope::Element).expr(|b| b.input("x").gt(0.0).select(b.input("x"), 0.0));
    let inputs = [("x", HostTensor::f64(&[f64::NAN, 1.0], &[2]))];
    let out = forward_backward(&relu.reduction(Reduction::None), &inputs, &["x"]).unwrap();
    assert!(out.loss_values().unwrap()[0].is_nan() && out.grad("x").unwrap()[0].is_nan());
    assert_eq!((out.loss_values().unwrap()[1], out.grad("x").unwrap()[1]), (1.0, 1.0));
}

#[test]
fn masked_elements_are_zero_whatever_they_hold() {
    let inputs = [
        ("input", HostTensor::f64(&[f64::NAN, 1.0, 3.0], &[3])),
        ("target", HostTensor::f64(&[0.0; 3], &[3])),
        ("mask", HostTensor::f64(&[0.0, 1.0, 1.0], &[3])),
    ];
    let out = forward_backward(&losses::mse().reduction(Reduction::Sum), &inputs, &["input"]).unwrap();
    assert_eq!(out.loss().unwrap(), 10.0);
    assert_eq!(out.grad("input").unwrap(), [0.0, 2.0, 6.0]);
    // The mean counts what the mask keeps.
    let out = forward_backward(&losses::mse(), &inputs, &["input"]).unwrap();
    assert_eq!(out.loss().unwrap(), 5.0);
    assert_eq!(out.grad("input").unwrap(), [0.0, 1.0, 3.0]);
}

/// Element losses of a row program: the mask has a value an element, the stage reads all of them.
fn masked_log_softmax() -> Loss {
    Loss::define("log_softmax").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| b.input("x").log_softmax())
}

#[test]
fn element_masks_of_rows_hide_nan_that_no_kept_element_reads() {
    let (rows, cols) = (2, 3);
    let x = [f64::NAN, 1.0, 2.0, f64::NAN, 1.0, 2.0];
    let mask = [0.0, 1.0, 1.0, 0.0, 0.0, 0.0];
    let shape = [rows, cols];
    let inputs = [("x", HostTensor::f64(&x, &shape)), ("mask", HostTensor::f64(&mask, &shape))];
    let out = forward_backward(&masked_log_softmax().reduction(Reduction::None), &inputs, &[]).unwrap();
    let values = out.loss_values().unwrap();
    assert_eq!(values[0], 0.0);
    assert_eq!(values[3..], [0.0; 3]);
}

#[test]
fn label_out_of_range_poisons_its_row_and_is_reported() {
    for cols in [3, 40] {
        let x = noise(4 * cols, 2.0);
        for bad in [cols as i32, -1, i32::MAX] {
            let y = [0, -100, bad, bad];
            let inputs = [("x", HostTensor::f64(&x, &[4, cols])), ("y", HostTensor::i32(&y, &[4]))];
            let mut out = forward_backward(&softmax_loss().reduction(Reduction::None), &inputs, &["x"]).unwrap();
            let error = Error::LabelOutOfRange { row: 2, label: i64::from(bad), classes: cols as u64 };
            assert_eq!(out.loss(), Err(error.clone()));
            assert_eq!(out.grad("x"), Err(error));
            assert_eq!(out.take_bad_label(), Some((2, i64::from(bad))));
            let is_nan: Vec<bool> = out.loss_values().unwrap().iter().map(|l| l.is_nan()).collect();
            assert_eq!(is_nan, [false, false, true, true]);
            let grad = out.grad("x").unwrap();
            assert!((0..4 * cols).all(|k| grad[k].is_nan() == (k >= 2 * cols)));
        }
        let y = [0u32, 1, u32::MAX, 2];
        let inputs = [("x", HostTensor::f64(&x, &[4, cols])), ("y", HostTensor::u32(&y, &[4]))];
        let out = forward_backward(&softmax_loss(), &inputs, &[]).unwrap();
        assert_eq!(out.bad_label(), Some((2, i64::from(u32::MAX))));
    }
}

#[test]
fn bad_label_leaves_the_gradients_of_other_rows() {
    let weighted = Loss::define("weighted")
        .input("x", Scope::Element)
        .input("w", Scope::Column)
        .label("y")
        .row_axis(RowAxis::Class)
        .unreduced(|b| {
            let (x, y) = (b.input("x"), b.input("y"));
            let w = b.input("w").at(y);
            let nll = x.logsumexp_shifted() - (x.at(y) - x.max().detach());
            Unreduced { value: w * nll, denominator: Denominator::Sum(w) }
        });
    let inputs = [
        ("x", HostTensor::f64(&[0.0; 6], &[2, 3])),
        ("w", HostTensor::f64(&[1.0, 2.0, 4.0], &[3])),
        ("y", HostTensor::i32(&[2, 3], &[2])),
    ];
    let mut out = forward_backward(&weighted, &inputs, &["x"]).unwrap();
    assert_eq!(out.take_bad_label(), Some((1, 3)));
    assert!(out.loss().unwrap().is_nan());
    let third = 1.0 / 3.0;
    assert_close(&out.grad("x").unwrap()[..3], &[third, third, -2.0 * third], 1e-15);
    assert!(out.grad("x").unwrap()[3..].iter().all(|g| g.is_nan()));
}

#[test]
fn hessian_diagonal_of_cross_entropy_is_p_times_one_minus_p() {
    for cols in [5, 50] {
        let (x, y) = (noise(6 * cols, 3.0), labels(6, cols));
        let inputs = [("x", HostTensor::f64(&x, &[6, cols])), ("y", HostTensor::i32(&y, &[6]))];
        let got = hessian_diagonal(&softmax_loss().reduction(Reduction::Sum), &inputs, "x").unwrap();
        let (_, grad) = cross_entropy_oracle(&x, &y, cols, 1);
        let p = |k: usize| grad[k] + f64::from(u8::from(k % cols == y[k / cols] as usize));
        let want: Vec<f64> = (0..6 * cols).map(|k| p(k) * (1.0 - p(k))).collect();
        assert_close(&got, &want, 1e-13);
    }
}

/// Each row's mean less the mean of its group's, squared.
fn group_loss() -> Loss {
    Loss::define("group").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
        let row = b.input("x").mean();
        let size = b.graph().count(crate::Extent::GroupRows);
        let mean: Expr<'_> = row.sum_over(Scope::Group) / size;
        let away = row - mean;
        away * away
    })
}

#[test]
fn group_sums_reach_the_rows_of_their_group() {
    let (rows, cols, group) = (12, 5, 3);
    let x = noise(rows * cols, 2.0);
    let row: Vec<f64> = x.chunks(cols).map(|r| r.iter().sum::<f64>() / cols as f64).collect();
    let away: Vec<f64> =
        (0..rows).map(|r| row[r] - row[r / group * group..][..group].iter().sum::<f64>() / group as f64).collect();
    let loss = group_loss().reduction(Reduction::Sum);
    let wanted = Wanted { loss: true, grads: vec!["x".to_owned()], ..Wanted::default() };
    let want: f64 = away.iter().map(|a| a * a).sum();
    let want_grad: Vec<f64> = (0..rows * cols).map(|k| 2.0 * away[k / cols] / cols as f64).collect();
    // Groups as an option, and as the first axis.
    for shape in [vec![rows, cols], vec![rows / group, group, cols]] {
        let inputs = [("x", HostTensor::f64(&x, &shape))];
        let plan = CpuPlan::<f64>::new(&loss, &inputs, &wanted).unwrap();
        let plan = if shape.len() == 2 { plan.group_rows(group).unwrap() } else { plan };
        let mut out = plan.output();
        plan.run(&inputs, &mut out).unwrap();
        assert_close(&[out.loss().unwrap()], &[want], 1e-13);
        assert_close(out.grad("x").unwrap(), &want_grad, 1e-13);
    }
    let inputs = [("x", HostTensor::f64(&x, &[rows, cols]))];
    let plan = CpuPlan::<f64>::new(&loss, &inputs, &wanted).unwrap();
    assert!(matches!(plan.group_rows(5), Err(Error::Param { .. })));
}

#[test]
fn sums_of_group_values_count_each_group_once() {
    let loss = Loss::define("groups").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
        let sum = b.input("x").sum().sum_over(Scope::Group);
        (sum * sum).sum_over(Scope::Total)
    });
    let inputs = [("x", HostTensor::f64(&[1.0, 2.0, 3.0, 4.0], &[2, 2, 1]))];
    let out = forward_backward(&loss, &inputs, &["x"]).unwrap();
    assert_eq!(out.loss().unwrap(), 9.0 + 49.0);
    assert_eq!(out.grad("x").unwrap(), [6.0, 6.0, 14.0, 14.0]);
}

#[test]
fn totals_inside_a_loss_take_another_pass() {
    let rmse = Loss::define("rmse").input("x", Scope::Element).expr(|b| {
        let x = b.input("x");
        ((x * x).sum_over(Scope::Total) / b.graph().count(crate::Extent::Elements)).sqrt()
    });
    let inputs = [("x", HostTensor::f64(&[3.0, 4.0], &[2]))];
    let out = forward_backward(&rmse, &inputs, &["x"]).unwrap();
    let rms = 12.5f64.sqrt();
    assert_close(&[out.loss().unwrap()], &[rms], 1e-15);
    assert_close(out.grad("x").unwrap(), &[1.5 / rms, 2.0 / rms], 1e-15);
}

#[test]
fn row_reductions_are_as_defined_for_short_and_long_rows() {
    let loss = Loss::define("all").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
        let x = b.input("x");
        x.sum() + 10.0 * x.max() + 100.0 * x.min() + 1000.0 * x.argmax().to_float()
    });
    for cols in [2, 5, 33, 2049] {
        let mut x = noise(3 * cols, 1.0);
        // Ties: the lowest index.
        x[cols - 2] = 2.0;
        x[cols - 1] = 2.0;
        let inputs = [("x", HostTensor::f64(&x, &[3, cols]))];
        let out = forward_backward(&loss.clone().reduction(Reduction::None), &inputs, &[]).unwrap();
        let want: Vec<f64> = x
            .chunks(cols)
            .map(|row| {
                let max = row.iter().copied().fold(f64::MIN, f64::max);
                let min = row.iter().copied().fold(f64::MAX, f64::min);
                let argmax = row.iter().position(|x| *x == max).unwrap() as f64;
                row.iter().sum::<f64>() + 10.0 * max + 100.0 * min + 1000.0 * argmax
            })
            .collect();
        assert_close(out.loss_values().unwrap(), &want, 1e-13);
    }
}

#[test]
fn single_precision_agrees_with_double() {
    for (rows, cols, range) in [(3000, 10, 10.0), (50, 3000, 10.0), (3, 50_000, 80.0), (4, 1000, 1e-3)] {
        let (x, y) = (noise(rows * cols, range), labels(rows, cols));
        let narrow: Vec<f32> = x.iter().map(|x| *x as f32).collect();
        let inputs = [("x", HostTensor::f32(&narrow, &[rows, cols])), ("y", HostTensor::i32(&y, &[rows]))];
        let wanted = Wanted { loss: true, grads: vec!["x".to_owned()], ..Wanted::default() };
        let single = run::<f32>(&softmax_loss(), &inputs, &wanted).unwrap();
        let double = run::<f64>(&softmax_loss(), &inputs, &wanted).unwrap();
        assert_close(&[single.loss().unwrap()], &[double.loss().unwrap()], 2e-6);
        assert_close(&widen(single.grad("x").unwrap()), double.grad("x").unwrap(), 2e-6);
    }
    let count = 3_000_000;
    let narrow: Vec<f32> = noise(2 * count, 1.0).iter().map(|x| *x as f32).collect();
    let inputs = [
        ("input", HostTensor::f32(&narrow[..count], &[count])),
        ("target", HostTensor::f32(&narrow[count..], &[count])),
    ];
    let wanted = Wanted { loss: true, ..Wanted::default() };
    let single = run::<f32>(&losses::mse(), &inputs, &wanted).unwrap().loss().unwrap();
    let double = run::<f64>(&losses::mse(), &inputs, &wanted).unwrap().loss().unwrap();
    assert_close(&[single], &[double], 2e-7);
}

#[test]
fn strided_inputs_need_no_copy() {
    let x: Vec<f64> = noise(6, 2.0);
    let turned = [x[0], x[2], x[4], x[1], x[3], x[5]];
    let y = labels(2, 3);
    let plain = [("x", HostTensor::f64(&turned, &[2, 3])), ("y", HostTensor::i32(&y, &[2]))];
    let strided = [("x", HostTensor::f64(&x, &[2, 3]).with_strides(&[1, 2])), ("y", HostTensor::i32(&y, &[2]))];
    let want = forward_backward(&softmax_loss(), &plain, &["x"]).unwrap();
    let got = forward_backward(&softmax_loss(), &strided, &["x"]).unwrap();
    assert_eq!(got.loss(), want.loss());
    assert_eq!(got.grad("x"), want.grad("x"));
}

#[test]
fn gradients_of_broadcast_inputs_are_summed() {
    let x = noise(24, 2.0);
    let t = noise(4, 1.0);
    let inputs = [("input", HostTensor::f64(&x, &[2, 3, 4])), ("target", HostTensor::f64(&t, &[4]))];
    let out = forward_backward(&losses::mse().broadcast(true).reduction(Reduction::Sum), &inputs, &["input", "target"])
        .unwrap();
    let want: Vec<f64> = (0..4).map(|c| (0..6).map(|r| -2.0 * (x[4 * r + c] - t[c])).sum()).collect();
    assert_close(out.grad("target").unwrap(), &want, 1e-14);
    // Broadcast along the middle axis.
    let t = noise(8, 1.0);
    let inputs = [("input", HostTensor::f64(&x, &[2, 3, 4])), ("target", HostTensor::f64(&t, &[2, 1, 4]))];
    let out = forward_backward(&losses::mse().broadcast(true).reduction(Reduction::Sum), &inputs, &["target"]).unwrap();
    let at = |k: usize, m: usize| x[12 * (k / 4) + 4 * m + k % 4];
    let want: Vec<f64> = (0..8).map(|k| (0..3).map(|m| -2.0 * (at(k, m) - t[k])).sum()).collect();
    assert_close(out.grad("target").unwrap(), &want, 1e-14);
}

#[test]
fn gradients_of_column_and_row_inputs_are_summed() {
    let loss = Loss::define("affine")
        .input("x", Scope::Element)
        .input("w", Scope::Column)
        .input("s", Scope::Row)
        .row_axis(RowAxis::Class)
        .expr(|b| (b.input("x") * b.input("w")).sum() * b.input("s"))
        .reduction(Reduction::Sum)
        .broadcast(true);
    // Class axis last, and at 1 of three.
    for (outer, cols, inner) in [(5, 40, 1), (4, 3, 2)] {
        let (x, w, s) = (noise(outer * cols * inner, 1.0), noise(cols, 1.0), noise(outer * inner, 1.0));
        let (shape, row_shape, few_shape) = match inner {
            1 => (vec![outer, cols], vec![outer], vec![1]),
            _ => (vec![outer, cols, inner], vec![outer, inner], vec![inner]),
        };
        let at = |row: usize, col: usize| row / inner * cols * inner + col * inner + row % inner;
        let rows = outer * inner;
        let dot = |row: usize| (0..cols).map(|c| x[at(row, c)] * w[c]).sum::<f64>();
        for (count, row_shape) in [(rows, row_shape), (inner, few_shape)] {
            let s = &s[..count];
            let inputs = [
                ("x", HostTensor::f64(&x, &shape)),
                ("w", HostTensor::f64(&w, &[cols])),
                ("s", HostTensor::f64(s, &row_shape)),
            ];
            let out = forward_backward(&loss, &inputs, &["w", "s", "x"]).unwrap();
            let want: Vec<f64> = (0..cols).map(|c| (0..rows).map(|r| x[at(r, c)] * s[r % count]).sum()).collect();
            assert_close(out.grad("w").unwrap(), &want, 1e-13);
            let want: Vec<f64> = (0..count).map(|k| (k..rows).step_by(count).map(dot).sum()).collect();
            assert_close(out.grad("s").unwrap(), &want, 1e-13);
            let mut want = vec![0.0; x.len()];
            (0..rows).for_each(|r| (0..cols).for_each(|c| want[at(r, c)] = w[c] * s[r % count]));
            assert_close(out.grad("x").unwrap(), &want, 1e-15);
        }
    }
}

#[test]
fn upstream_multiplies_the_gradient_and_its_nan_poisons_it() {
    let x = [1.0, 2.0];
    let mut wanted = Wanted { grads: vec!["input".to_owned()], upstream: Upstream::Scalar, ..Wanted::default() };
    let with = |up: &'static [f64]| {
        [
            ("input", HostTensor::f64(&x, &[2])),
            ("target", HostTensor::f64(&[0.0, 0.0], &[2])),
            ("upstream", HostTensor::f64(up, if up.len() == 1 { &[] } else { &[2] })),
        ]
    };
    let out = run::<f64>(&losses::mse(), &with(&[3.0]), &wanted).unwrap();
    assert_eq!(out.grad("input").unwrap(), [3.0, 6.0]);
    let out = run::<f64>(&losses::mse(), &with(&[f64::NAN]), &wanted).unwrap();
    assert!(out.grad("input").unwrap().iter().all(|g| g.is_nan()));
    wanted.upstream = Upstream::PerLoss;
    let loss = losses::mse().reduction(Reduction::None);
    let out = run::<f64>(&loss, &with(&[1.0, -1.0]), &wanted).unwrap();
    assert_eq!(out.grad("input").unwrap(), [2.0, -4.0]);
}

#[test]
fn bad_input_comes_back_as_errors() {
    let (x, y) = ([0.0f32; 6], [0i32; 2]);
    let good = [("x", HostTensor::f32(&x, &[2, 3])), ("y", HostTensor::i32(&y, &[2]))];
    let error = |inputs: &[(&str, HostTensor<'_>)]| forward_backward(&softmax_loss(), inputs, &["x"]).unwrap_err();
    assert!(forward_backward(&softmax_loss(), &good, &["x"]).is_ok());
    assert!(matches!(error(&good[..1]), Error::Name { name, .. } if name == "y"));
    let extra = [good[0].clone(), good[1].clone(), ("z", good[0].1.clone())];
    assert!(matches!(error(&extra), Error::Name { name, .. } if name == "z"));
    let numbers = [good[0].clone(), ("y", HostTensor::f32(&x[..2], &[2]))];
    assert!(matches!(error(&numbers), Error::DType { input, .. } if input == "y"));
    let indices = [("x", HostTensor::i32(&y, &[2, 1])), good[1].clone()];
    assert!(matches!(error(&indices), Error::DType { input, .. } if input == "x"));
    let short = [("x", HostTensor::f32(&x, &[2, 4])), good[1].clone()];
    assert!(matches!(error(&short), Error::Buffer { input, .. } if input == "x"));
    let shape = [good[0].clone(), ("y", HostTensor::i32(&[0; 3], &[3]))];
    assert!(matches!(error(&shape), Error::Shape { input, .. } if input == "y"));
    let plan = CpuPlan::<f32>::new(&softmax_loss(), &good, &Wanted { loss: true, ..Wanted::default() }).unwrap();
    let mut out = plan.output();
    let other = [("x", HostTensor::f32(&x, &[2, 2])), good[1].clone()];
    assert!(matches!(plan.run(&other, &mut out), Err(Error::Shape { .. })));
    assert!(matches!(out.grad("x"), Err(Error::Name { .. })));
}

#[test]
fn hessian_diagonal_of_a_broadcast_input_is_refused() {
    let inputs = [("input", HostTensor::f64(&[0.0; 6], &[2, 3])), ("target", HostTensor::f64(&[0.0; 3], &[3]))];
    assert!(matches!(
        hessian_diagonal(&losses::mse().broadcast(true), &inputs, "target"),
        Err(Error::Unsupported { .. })
    ));
}

#[test]
fn a_mask_of_elements_reaches_the_gradients_of_rows_and_scalars() {
    let (x, w, s) = ([0.5, -1.0, 2.0, -0.25, -1.0, 0.5], [1.0, 2.0], [3.0]);
    let loss = Loss::define("masked").input("x", Scope::Element).input("w", Scope::Row).input("s", Scope::Scalar);
    let loss = loss.row_axis(RowAxis::Last).expr(|b| {
        let keep = b.input("x").lt(0.0);
        (b.input("x") - b.input("w") * b.input("s")).masked(keep) + b.input("w").masked(keep)
    });
    let inputs =
        [("x", HostTensor::f64(&x, &[2, 3])), ("w", HostTensor::f64(&w, &[2])), ("s", HostTensor::f64(&s, &[]))];
    let out = forward_backward(&loss.reduction(Reduction::Sum), &inputs, &["x", "w", "s"]).unwrap();
    assert_eq!(out.loss().unwrap(), -2.25 - (3.0 + 2.0 * 6.0) + (1.0 + 2.0 * 2.0));
    assert_eq!(out.grad("x").unwrap(), [0.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
    assert_eq!(out.grad("w").unwrap(), [1.0 - 3.0, 2.0 * (1.0 - 3.0)]);
    assert_eq!(out.grad("s").unwrap(), [-(1.0 + 2.0 * 2.0)]);
}

#[test]
fn a_shape_that_wraps_around_is_not_taken_for_an_empty_one() {
    let x = [0.0];
    let huge = |strides: &[usize]| HostTensor::f64(&x, &[1 << 32, 1 << 32]).with_strides(strides);
    for strides in [[1 << 32, 1], [0, 0]] {
        let inputs = [("input", huge(&strides)), ("target", huge(&strides))];
        let error = forward_backward(&losses::mse(), &inputs, &[]).unwrap_err();
        assert!(matches!(error, Error::Buffer { .. } | Error::Shape { .. }), "{error}");
    }
}

#[test]
fn an_output_of_another_plan_is_refused() {
    let (x, y) = ([1.0; 6], [1.0; 3]);
    let whole = [("input", HostTensor::f64(&x, &[2, 3])), ("target", HostTensor::f64(&y, &[3]))];
    let small = [("input", HostTensor::f64(&y, &[3])), ("target", HostTensor::f64(&y, &[3]))];
    let wanted = Wanted { grads: vec!["target".to_owned()], ..Wanted::default() };
    let plan = |inputs: &[_]| CpuPlan::<f64>::new(&losses::mse().broadcast(true), inputs, &wanted).unwrap();
    // Both gradients have three values; one of them is summed from six.
    let mut out = plan(&small).output();
    assert!(plan(&small).run(&small, &mut out).is_ok());
    assert!(matches!(plan(&whole).run(&whole, &mut out), Err(Error::Buffer { .. })));
}

#[test]
fn a_loss_that_is_the_same_everywhere_still_counts_its_elements() {
    let (x, w) = ([0.0; 6], [1.0, 2.0]);
    let inputs = [("x", HostTensor::f64(&x, &[2, 3])), ("w", HostTensor::f64(&w, &[2]))];
    let loss = Loss::define("rows").input("x", Scope::Element).input("w", Scope::Row).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| b.graph().truth(true).select(b.input("w"), b.input("x")));
    let mean = forward_backward(&loss, &inputs, &["w"]).unwrap();
    assert_eq!((mean.loss().unwrap(), mean.grad("w").unwrap()), (1.5, &[0.5, 0.5][..]));
    let each = forward_backward(&loss.reduction(Reduction::None), &inputs, &[]).unwrap();
    assert_eq!((each.loss_shape(), each.loss_values().unwrap()), (&[2, 3][..], &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0][..]));
}
