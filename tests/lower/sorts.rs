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
    // One column; a vector and beside it; several rows per workgroup; several blocks of a row; a long row.
    for (rows, cols) in [(3, 1), (2, 4), (70, 5), (9, 132), (3, 1000), (1, 3001), (1, 70_001)] {
        let mut x = random(rows * cols, 1);
        // Many ties, both zeros, infinities.
        x.iter_mut().for_each(|x| *x = (*x * 64.0).round() / 64.0);
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
