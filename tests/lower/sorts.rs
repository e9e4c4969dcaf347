//! Sorts of a row: orders, elements moved by them and back, on GPU and CPU against a sort of the standard library.

use crate::common::compare::{assert_close, random};
use crate::common::{context, is_in_share};
use wgloss::{Context, Direction, HostTensor, Loss, Order, PlanSpec, Reduction, RowAxis, Scope, Tensor, cpu};

/// Σₖ wₖ (sorted x)ₖ² + Σⱼ vⱼ rankⱼ per row, with weights at the ranks.
fn loss(order: Order) -> Loss {
    let definition = Loss::define("sorted").input("x", Scope::Element).input("w", Scope::Element);
    let loss = definition.input("v", Scope::Element).row_axis(RowAxis::Last).expr(move |b| {
        let (x, w, v) = (b.input("x"), b.input("w"), b.input("v"));
        let ranking = x.argsort(order);
        let ranks = b.graph().col_index().to_float().back_from_order_of(ranking);
        (w * x.in_order_of(ranking).powi(2)).sum() + (v * ranks).sum()
    });
    loss.reduction(Reduction::None)
}

/// Columns in order, equal elements by column.
fn columns(x: &[f32], order: Order) -> Vec<usize> {
    let mut columns: Vec<usize> = (0..x.len()).collect();
    columns.sort_by(|&a, &b| {
        let by = x[a].partial_cmp(&x[b]).unwrap();
        if order == Order::Ascending { by } else { by.reverse() }
    });
    columns
}

/// Of each row: the loss, and the gradients of x, w and v.
fn expected(order: Order, [x, w, v]: [&[f32]; 3], cols: usize) -> [Vec<f64>; 4] {
    let mut all: [Vec<f64>; 4] = Default::default();
    for ((x, w), v) in x.chunks(cols).zip(w.chunks(cols)).zip(v.chunks(cols)) {
        let (mut loss, mut by_x, mut by_w, mut ranks) = (0.0, vec![0.0; cols], vec![0.0; cols], vec![0.0; cols]);
        for (rank, column) in columns(x, order).into_iter().enumerate() {
            let (x, w) = (f64::from(x[column]), f64::from(w[rank]));
            loss += w * x * x + f64::from(v[column]) * rank as f64;
            (by_x[column], by_w[rank], ranks[column]) = (2.0 * w * x, x * x, rank as f64);
        }
        all[0].push(loss);
        [by_x, by_w, ranks].into_iter().zip(&mut all[1..]).for_each(|(row, all)| all.extend(row));
    }
    all
}

fn check(what: &str, got: [Vec<f64>; 4], want: &[Vec<f64>; 4], cols: usize) {
    for ((got, want), name) in got.iter().zip(want).zip(["loss", "gradient of x", "gradient of w", "ranks"]) {
        // Sums of many terms of either sign.
        let rtol = if name == "loss" { 2e-5 } else { 2e-6 };
        for (row, (got, want)) in got.chunks(cols).zip(want.chunks(cols)).enumerate() {
            assert_close(&format!("{what}: {name}, row {row}"), got, want, rtol);
        }
    }
}

fn on_gpu(ctx: &Context, loss: &Loss, values: [&[f32]; 3], shape: &[usize]) -> [Vec<f64>; 4] {
    let tensors = values.map(|values| Tensor::from_slice(ctx, values, shape).unwrap());
    let inputs = [("x", &tensors[0]), ("w", &tensors[1]), ("v", &tensors[2])];
    let out = loss.run(ctx, &inputs, &PlanSpec::new().grad("x").grad("w").grad("v")).unwrap();
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<f64>>();
    let [x, w, v] = ["x", "w", "v"].map(|name| wide(out.grad(name).unwrap().to_vec::<f32>().unwrap()));
    [wide(out.loss_values().unwrap()), x, w, v]
}

#[test]
fn sorted_rows_their_ranks_and_gradients_are_the_standard_librarys() {
    let ctx = context();
    // One column; a vector and beside it; several rows per workgroup; several blocks of a row; a long row. A software adapter
    // takes 4, 6 and 8 bits at once.
    for (rows, cols) in [(3, 1), (2, 4), (70, 5), (9, 132), (3, 1000), (1, 3001), (1, 70_001)] {
        let mut x = random(rows * cols, 1);
        // Many ties, or all digits; both zeros, infinities.
        x.iter_mut().filter(|_| cols != 3001).for_each(|x| *x = (*x * 64.0).round() / 64.0);
        x.iter_mut().skip(1).step_by(7).for_each(|x| *x = -0.0);
        if cols == 132 {
            (x[5], x[77], x[78]) = (1e9, -1e9, 1e-38);
        }
        let (w, v) = (random(rows * cols, 2), random(rows * cols, 3));
        for order in [Order::Ascending, Order::Descending] {
            let want = expected(order, [&x, &w, &v], cols);
            let what = format!("{order:?} of {rows} × {cols}");
            let inputs = [("x", &x), ("w", &w), ("v", &v)];
            let inputs = inputs.map(|(name, values)| (name, HostTensor::f32(values, &[rows, cols])));
            let out = cpu::forward_backward(&loss(order), &inputs, &["x", "w", "v"]).unwrap();
            let grad = |name: &str| out.grad(name).unwrap().to_vec();
            let got = [out.loss_values().unwrap().to_vec(), grad("x"), grad("w"), grad("v")];
            check(&format!("{what} on the CPU"), got, &want, cols);
            let Some(ctx) = ctx.filter(|_| is_in_share(&format!("sort {order:?} {}", cols % 4))) else { continue };
            let got = on_gpu(ctx, &loss(order), [&x, &w, &v], &[rows, cols]);
            check(&format!("{what} on the GPU"), got, &want, cols);
        }
    }
}

#[test]
fn a_scan_of_a_sorted_row_comes_back_to_its_elements() {
    // Cumulative sums from the largest element on, at each element: of pairs, Σ of those that come before.
    let loss = Loss::define("before").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
        let ranking = b.input("x").argsort(Order::Descending);
        let sums = b.input("x").in_order_of(ranking).scan_sum(Direction::Forward);
        sums.back_from_order_of(ranking).powi(2).sum()
    });
    let loss = loss.reduction(Reduction::Sum);
    let cols = 77;
    let x = random(2 * cols, 4);
    let mut want = vec![0.0; 2 * cols];
    for row in 0..2 {
        let at = |column: usize| row * cols + column;
        let order = columns(&x[row * cols..][..cols], Order::Descending);
        let mut sums: Vec<f64> = order.iter().map(|column| f64::from(x[at(*column)])).collect();
        (1..cols).for_each(|k| sums[k] += sums[k - 1]);
        for k in 0..cols {
            want[at(order[k])] = 2.0 * sums[k..].iter().sum::<f64>();
        }
    }
    let host = cpu::forward_backward(&loss, &[("x", HostTensor::f32(&x, &[2, cols]))], &["x"]).unwrap();
    assert_close("on the CPU", host.grad("x").unwrap(), &want, 1e-9);
    let Some(ctx) = context() else { return };
    let tensor = Tensor::from_slice(ctx, &x, &[2, cols]).unwrap();
    let out = loss.run(ctx, &[("x", &tensor)], &PlanSpec::new().grad("x")).unwrap();
    let got: Vec<f64> = out.grad("x").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    assert_close("on the GPU", &got, &want, 4e-6);
}

#[test]
fn a_nan_poisons_the_row_that_is_sorted() {
    let nan = f32::NAN;
    let (x, ones) = ([2.0, nan, 1.0, 2.0, 1.0, 3.0], [1.0f32; 6]);
    let is_right = |losses: &[f64], grad: &[f64]| {
        assert!(losses[0].is_nan() && grad[..3].iter().all(|x| x.is_nan()), "{losses:?} {grad:?}");
        assert_eq!((losses[1], &grad[3..]), (14.0 + 3.0, &[4.0, 2.0, 6.0][..]));
    };
    let inputs = [("x", HostTensor::f32(&x, &[2, 3])), ("w", HostTensor::f32(&ones, &[2, 3]))];
    let inputs = [inputs[0].clone(), inputs[1].clone(), ("v", HostTensor::f32(&ones, &[2, 3]))];
    let out = cpu::forward_backward(&loss(Order::Ascending), &inputs, &["x"]).unwrap();
    is_right(out.loss_values().unwrap(), out.grad("x").unwrap());
    let Some(ctx) = context() else { return };
    let [losses, by_x, ..] = on_gpu(ctx, &loss(Order::Ascending), [&x, &ones, &ones], &[2, 3]);
    is_right(&losses, &by_x);
}

/// Cox's loss of subjects with tied times, and its gradient, in f64: from the last time to the first.
fn cox(x: &[f32], event: &[f32], time: &[f32], efron: bool) -> (f64, Vec<f64>) {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| time[a].partial_cmp(&time[b]).unwrap());
    let most = x.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let hazard = |k: usize| f64::from(x[k] - most).exp();
    let mut tied: Vec<&[usize]> = order.chunk_by(|a, b| time[*a] == time[*b]).collect();
    tied.reverse();
    let (mut loss, mut grad, mut at_risk) = (0.0, vec![0.0; x.len()], 0.0);
    // By time, from the last on: what each hazard at risk is multiplied by, and each of the events at that time less.
    let mut rates = Vec::new();
    for subjects in &tied {
        at_risk += subjects.iter().map(|k| hazard(*k)).sum::<f64>();
        let events: Vec<usize> = subjects.iter().copied().filter(|k| event[*k] > 0.0).collect();
        let (count, sum) = (events.len() as f64, events.iter().map(|k| hazard(*k)).sum::<f64>());
        let (mut rate, mut less) = (0.0, 0.0);
        for (l, &k) in events.iter().enumerate() {
            let share = if efron { l as f64 / count } else { 0.0 };
            let left = at_risk - share * sum;
            loss += left.ln() + f64::from(most) - f64::from(x[k]);
            (rate, less) = (rate + 1.0 / left, less + share / left);
            grad[k] -= 1.0;
        }
        events.iter().for_each(|k| grad[*k] -= less * hazard(*k));
        rates.push(rate);
    }
    let mut rate = 0.0;
    for (subjects, own) in tied.iter().zip(&rates).rev() {
        rate += own;
        subjects.iter().for_each(|k| grad[*k] += rate * hazard(*k));
    }
    (loss, grad)
}

#[test]
fn a_hundred_thousand_subjects_with_ties_are_sorted() {
    let n = 100_000;
    let x = random(n, 8);
    let event: Vec<f32> = (0..n).map(|k| f32::from(u8::from(k * 31 % 10 < 6))).collect();
    let time: Vec<f32> = random(n, 9).iter().map(|t| (t * 4000.0).round()).collect();
    for ties in ["breslow", "efron"] {
        let (loss, grad) = cox(&x, &event, &time, ties == "efron");
        let cox = wgloss::losses::cox_partial_likelihood().ties(ties).reduction(Reduction::Sum);
        let host = [("input", &x), ("event", &event), ("time", &time)];
        let host = host.map(|(name, values)| (name, HostTensor::f32(values, &[n])));
        let out = cpu::forward_backward(&cox, &host, &["input"]).unwrap();
        assert_close(&format!("{ties} on the CPU"), &[out.loss().unwrap()], &[loss], 1e-11);
        assert_close(&format!("{ties}, gradient on the CPU"), out.grad("input").unwrap(), &grad, 1e-10);
        let Some(ctx) = context().filter(|_| is_in_share(&format!("cox {ties}"))) else { continue };
        let tensors = [&x, &event, &time].map(|values| Tensor::from_slice(ctx, values, &[n]).unwrap());
        let inputs = [("input", &tensors[0]), ("event", &tensors[1]), ("time", &tensors[2])];
        let out = cox.run(ctx, &inputs, &PlanSpec::new().grad("input")).unwrap();
        assert_close(ties, &[f64::from(out.loss().unwrap())], &[loss], 2e-6);
        let got: Vec<f64> = out.grad("input").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
        assert_close(&format!("{ties}, gradient"), &got, &grad, 4e-6);
    }
}

#[test]
fn the_gradient_of_a_long_list_keeps_its_digits() {
    // Each of its decays is rounded once: their product would gather what 60,000 roundings leave.
    let n = 60_000;
    let (x, labels): (Vec<f32>, Vec<f32>) = (random(n, 10), (0..n).map(|k| (n - k) as f32).collect());
    let mut left = vec![0.0f64; n + 1];
    (0..n).rev().for_each(|k| left[k] = left[k + 1] + f64::from(x[k]).exp());
    let (mut rate, mut want) = (0.0, Vec::new());
    for k in 0..n {
        rate += 1.0 / left[k];
        want.push(f64::from(x[k]).exp() * rate - 1.0);
    }
    let list_mle = wgloss::losses::list_mle();
    let inputs = [("input", HostTensor::f32(&x, &[1, n])), ("labels", HostTensor::f32(&labels, &[1, n]))];
    let out = cpu::forward_backward(&list_mle, &inputs, &["input"]).unwrap();
    assert_close("on the CPU", out.grad("input").unwrap(), &want, 1e-10);
    let Some(ctx) = context() else { return };
    let tensors = [&x, &labels].map(|values| Tensor::from_slice(ctx, values, &[1, n]).unwrap());
    let inputs = [("input", &tensors[0]), ("labels", &tensors[1])];
    let out = list_mle.run(ctx, &inputs, &PlanSpec::new().grad("input")).unwrap();
    let got: Vec<f64> = out.grad("input").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    assert_close("on the GPU", &got, &want, 2e-6);
}
