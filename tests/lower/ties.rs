//! Equal maxima: the lowest column is the argmax, and all share the gradient, in every schedule, dtype and alignment.

use crate::common::context;
use half::{bf16, f16};
use wgloss::{Bindings, Context, Element, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, cpu};
use wgloss::{Kernel, Pinned};

/// The column of the maximum, and the maximum, whose gradient its ties share.
fn highest() -> Loss {
    let loss = Loss::define("highest").input("x", Scope::Element).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| b.input("x").argmax().to_float() + (b.input("x").max() - b.input("x").max().detach()));
    loss.reduction(Reduction::None)
}

/// Rows with maxima at several columns: everywhere, at the ends, at the last columns, at every third from the second on.
fn rows(cols: usize) -> Vec<f32> {
    let patterns: [&dyn Fn(usize) -> bool; 6] = [
        &|_| true,
        &|col| col == 0 || col == cols - 1,
        &|col| col + 3 >= cols,
        &|col| col % 3 == 1,
        &|col| col >= cols / 2,
        &|col| (1..4).contains(&col),
    ];
    let row = |pattern: &dyn Fn(usize) -> bool| (0..cols).map(|col| if pattern(col) { 1.5 } else { -2.0 }).collect();
    patterns.into_iter().flat_map(|pattern| -> Vec<f32> { row(pattern) }).collect()
}

/// The column, and the gradients, of rows in a buffer with as many elements before them.
fn run<T: Element>(ctx: &Context, x: &[T], cols: usize, offset: usize, pinned: Pinned) -> Option<(Vec<f32>, Vec<T>)> {
    let mut all = vec![x[0]; offset];
    all.extend(x);
    all.extend(vec![x[0]; 16 - offset % 16]);
    let whole = Tensor::from_slice(ctx, &all, &[all.len()]).unwrap();
    let xs = whole.view(offset as u64, &[x.len() / cols, cols], &[cols, 1]).unwrap();
    let plan = ctx.plan(&highest(), &PlanSpec::new().like(&[("x", &xs)]).grad("x").pin(pinned)).ok()?;
    let bound = plan.bind(&Bindings::new().input("x", &xs)).unwrap();
    bound.submit().unwrap();
    Some((bound.loss().unwrap().to_vec().unwrap(), bound.grad("x").unwrap().to_vec().unwrap()))
}

fn forces() -> Vec<Pinned> {
    let kernels =
        [Kernel::Row, Kernel::RowResident { trips: 0 }, Kernel::RowSplit { splits: 1 }, Kernel::RowSplit { splits: 3 }];
    let mut all = vec![Pinned::default(), Pinned { width: Some(4), ..Pinned::default() }];
    for kernel in kernels {
        for (lanes, subgroups) in [(1, None), (8, Some(false)), (8, None)] {
            let lanes = if matches!(kernel, Kernel::RowSplit { .. }) { 8 } else { lanes };
            let (workgroup, lanes) = (Some(8), Some(lanes));
            all.push(Pinned { kernel: Some(kernel), workgroup, lanes, subgroups, ..Pinned::default() });
        }
    }
    all
}

fn check<T: Element>(ctx: &Context, cols: usize, offset: usize, forces: &[Pinned], narrow: fn(f32) -> T) {
    let x = rows(cols);
    let host = [("x", HostTensor::f32(&x, &[x.len() / cols, cols]))];
    let want = cpu::forward_backward(&highest(), &host, &["x"]).unwrap();
    let stored: Vec<T> = x.iter().map(|x| narrow(*x)).collect();
    let grads: Vec<T> = want.grad("x").unwrap().iter().map(|x| narrow(*x as f32)).collect();
    for pinned in forces {
        let Some((columns, shared)) = run(ctx, &stored, cols, offset, *pinned) else {
            assert!(matches!(pinned.kernel, Some(Kernel::RowResident { .. })), "{cols}: {pinned:?}");
            continue;
        };
        let what = format!("{} {cols} columns, {offset} elements before, {pinned:?}", T::DTYPE);
        let columns: Vec<f64> = columns.into_iter().map(f64::from).collect();
        assert_eq!(columns, want.loss_values().unwrap(), "{what}");
        let shared: &[u8] = bytemuck::cast_slice(&shared);
        assert_eq!(shared, bytemuck::cast_slice::<T, u8>(&grads), "{what}");
    }
}

#[test]
fn the_lowest_column_of_a_tie_wins_in_every_schedule() {
    let Some(ctx) = context() else { return };
    // 65 and 1001: masked windows, also of pairs; 64: none; 5: single elements.
    for cols in [5, 64, 65, 1001] {
        check(ctx, cols, 0, &forces(), |x| x);
    }
    check(ctx, 65, 0, &forces(), f16::from_f32);
}

#[test]
fn the_lowest_column_of_a_tie_wins_at_every_alignment() {
    let Some(ctx) = context() else { return };
    for offset in 0..8 {
        check(ctx, 67, offset, &[Pinned::default()], |x| x);
        check(ctx, 67, offset, &[Pinned::default()], bf16::from_f32);
        check(ctx, 72, offset, &[Pinned::default()], f16::from_f32);
    }
    check(ctx, 50_257, 0, &[Pinned::default()], |x| x);
}

#[test]
fn equal_logits_predict_the_first_class() {
    let Some(ctx) = context() else { return };
    for [rows, cols] in [[4, 50_257], [3, 65], [4, 1001]] {
        let logits = Tensor::from_slice(ctx, &vec![0.25f32; rows * cols], &[rows, cols]).unwrap();
        let labels = Tensor::from_slice(ctx, &(0..rows as i32).collect::<Vec<_>>(), &[rows]).unwrap();
        let spec = PlanSpec::new().extra("predicted").extra("correct").grad("input");
        let inputs = [("input", &logits), ("target", &labels)];
        let out = wgloss::losses::cross_entropy().run(ctx, &inputs, &spec).unwrap();
        let extra = |name: &str| out.bound().extra(name).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(extra("predicted"), vec![0.0; rows], "[{rows}, {cols}]");
        let correct: f32 = extra("correct").iter().sum();
        assert_eq!(correct, 1.0, "[{rows}, {cols}]: the label 0 alone");
    }
}

#[test]
fn the_first_column_of_nothing_but_minus_infinity_is_its_maximum() {
    let loss = Loss::define("column").input("x", Scope::Element).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| b.input("x").argmax().to_float()).reduction(Reduction::None);
    for cols in [3, 65, 256] {
        // −∞ alone; −∞ but for one column.
        let mut x = vec![f32::NEG_INFINITY; 2 * cols];
        x[cols + cols / 2] = -1e38;
        let want = [0.0, (cols / 2) as f64];
        let host = [("x", HostTensor::f32(&x, &[2, cols]))];
        assert_eq!(cpu::forward_backward(&loss, &host, &[]).unwrap().loss_values().unwrap(), want);
        let Some(ctx) = context() else { continue };
        let xs = Tensor::from_slice(ctx, &x, &[2, cols]).unwrap();
        for pinned in forces() {
            let Ok(out) = loss.run(ctx, &[("x", &xs)], &PlanSpec::new().pin(pinned)) else { continue };
            assert_eq!(out.loss_values().unwrap(), want.map(|x| x as f32), "{cols}: {pinned:?}");
        }
    }
}
