//! The number of the row, and indices compared by their order: GPU and CPU, against plain loops.

use crate::common::compare::{assert_close, random};
use crate::common::{context, read};
use wgloss::{Bindings, Context, Error, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, Wanted, cpu};

/// A problem of scores `[rows, cols]` and one index per row.
struct Data {
    rows: usize,
    cols: usize,
    x: Vec<f32>,
    y: Vec<i64>,
}

impl Data {
    fn new(rows: usize, cols: usize, y: impl Fn(usize) -> i64) -> Data {
        Data { rows, cols, x: random(rows * cols, 31), y: (0..rows).map(y).collect() }
    }

    /// Checks losses per row, and gradients of their sum, on both paths. `f` gives the loss of a row, `slope` its
    /// derivative with respect to a column.
    fn check(
        &self,
        ctx: &Context,
        loss: &Loss,
        unsigned: bool,
        f: impl Fn(usize, &[f32]) -> f64,
        slope: impl Fn(usize, usize) -> f64,
    ) {
        let what = format!("{} of {} rows of {}", loss.name(), self.rows, self.cols);
        let Data { rows, cols, ref x, ref y } = *self;
        let losses: Vec<f64> = (0..rows).map(|row| f(row, &x[row * cols..][..cols])).collect();
        let grad: Vec<f64> = (0..rows * cols).map(|k| slope(k / cols, k % cols)).collect();
        let loss = loss.clone().reduction(Reduction::None);
        let (signed, big): (Vec<i32>, Vec<u32>) =
            (y.iter().map(|y| *y as i32).collect(), y.iter().map(|y| *y as u32).collect());
        let labels = if unsigned { HostTensor::u32(&big, &[rows]) } else { HostTensor::i32(&signed, &[rows]) };
        let has_labels = loss.inputs().iter().any(|input| input.name == "y");
        let mut inputs = vec![("x", HostTensor::f32(x, &[rows, cols]))];
        inputs.extend(has_labels.then_some(("y", labels)));
        let wanted = Wanted { loss: true, grads: vec!["x".to_owned()], ..Wanted::default() };
        let out = cpu::run::<f64>(&loss, &inputs, &wanted).unwrap();
        assert_close(&what, out.loss_values().unwrap(), &losses, 1e-12);
        assert_close(&what, out.grad("x").unwrap(), &grad, 1e-12);

        let x = Tensor::from_slice(ctx, x, &[rows, cols]).unwrap();
        let y = match unsigned {
            true => Tensor::from_slice(ctx, &big, &[rows]).unwrap(),
            false => Tensor::from_slice(ctx, &signed, &[rows]).unwrap(),
        };
        let mut inputs = vec![("x", &x)];
        inputs.extend(has_labels.then_some(("y", &y)));
        let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("x")).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        assert_close(&what, &read(&bound, bound.loss().unwrap()), &losses, 4e-6);
        assert_close(&what, &read(&bound, bound.grad("x").unwrap()), &grad, 4e-6);
    }
}

fn define(name: &str) -> wgloss::loss::DefinitionBuilder {
    Loss::define(name).input("x", Scope::Element).row_axis(RowAxis::Last)
}

/// Σ of the columns before the row's length.
fn packed() -> Loss {
    define("packed").label("y").expr(|b| {
        let x = b.input("x");
        (x * x).masked(b.graph().col_index().lt(b.input("y"))).sum()
    })
}

// Around a vector and a workgroup; rows that are split.
const SHAPES: [[usize; 2]; 4] = [[5, 3], [3, 64], [70, 257], [2, 20_001]];

#[test]
fn columns_before_a_rows_length_are_summed() {
    let Some(ctx) = context() else { return };
    for [rows, cols] in SHAPES {
        // None, some, all, more than all; negative lengths are before every column.
        let lengths = [0, cols as i64 / 2, cols as i64, i64::from(i32::MAX), -3];
        let data = Data::new(rows, cols, |row| lengths[row % 5]);
        let taken = |row: usize, col: usize| (col as i64) < data.y[row];
        let square = |row: usize, x: &[f32]| -> f64 {
            x.iter().enumerate().filter(|(col, _)| taken(row, *col)).map(|(_, x)| f64::from(*x).powi(2)).sum()
        };
        let slope =
            |row: usize, col: usize| if taken(row, col) { 2.0 * f64::from(data.x[row * cols + col]) } else { 0.0 };
        data.check(ctx, &packed(), false, square, slope);
    }
    // An unsigned length beyond all signed ones.
    let data = Data::new(3, 5, |row| [2, i64::from(u32::MAX), 0][row]);
    let taken = |row: usize, col: usize| (col as i64) < data.y[row];
    let square = |row: usize, x: &[f32]| -> f64 {
        x.iter().enumerate().filter(|(col, _)| taken(row, *col)).map(|(_, x)| f64::from(*x).powi(2)).sum()
    };
    data.check(ctx, &packed(), true, square, |row, col| {
        if taken(row, col) { 2.0 * f64::from(data.x[row * 5 + col]) } else { 0.0 }
    });
}

#[test]
fn the_own_column_is_that_of_the_rows_number() {
    let Some(ctx) = context() else { return };
    let own = define("own").expr(|b| {
        let own = b.graph().col_index().equals(b.graph().row_index());
        own.select(3.0 * b.input("x"), 0.0).sum() + b.graph().row_index().to_float()
    });
    let at = define("at").expr(|b| 3.0 * b.input("x").at(b.graph().row_index()) + b.graph().row_index().to_float());
    for [rows, cols] in [[3, 5], [64, 64], [70, 257], [2, 20_001]] {
        let data = Data::new(rows, cols, |_| 0);
        for loss in [&own, &at] {
            let value = |row: usize, x: &[f32]| 3.0 * f64::from(x[row]) + row as f64;
            data.check(ctx, loss, false, value, |row, col| if row == col { 3.0 } else { 0.0 });
        }
    }
    // More rows than columns: those have no own column.
    let data = Data::new(9, 4, |_| 0);
    let value = |row: usize, x: &[f32]| x.get(row).map_or(0.0, |x| 3.0 * f64::from(*x)) + row as f64;
    data.check(ctx, &own, false, value, |row, col| if row == col { 3.0 } else { 0.0 });
}

#[test]
fn a_row_without_a_column_of_its_number_is_reported() {
    let Some(ctx) = context() else { return };
    let loss = define("at").expr(|b| b.input("x").at(b.graph().row_index())).reduction(Reduction::None);
    let x = random(15, 4);
    let out =
        cpu::run::<f64>(&loss, &[("x", HostTensor::f32(&x, &[5, 3]))], &Wanted { loss: true, ..Wanted::default() });
    let want = Error::LabelOutOfRange { row: 3, label: 3, classes: 3 };
    assert_eq!(out.unwrap().loss_values().unwrap_err(), want);
    let x = Tensor::from_slice(ctx, &x, &[5, 3]).unwrap();
    let bound = ctx.plan(&loss, &PlanSpec::new().like(&[("x", &x)])).unwrap();
    let bound = bound.bind(&Bindings::new().input("x", &x)).unwrap();
    bound.submit().unwrap();
    assert_eq!(pollster::block_on(bound.status()).unwrap_err(), want);
    let losses: Vec<f32> = bound.read(bound.loss().unwrap()).unwrap();
    assert!(losses[..3].iter().all(|x| x.is_finite()) && losses[3..].iter().all(|x| x.is_nan()), "{losses:?}");
}

#[test]
fn rows_are_numbered_over_all_their_axes_and_over_chunks() {
    let Some(ctx) = context() else { return };
    // Along axis 1 of [2, 3, 4]: 8 rows.
    let loss = define("numbered").expr(|b| b.graph().row_index().to_float() + 0.0 * b.input("x").sum());
    let x = vec![1.0f32; 24];
    let want: Vec<f64> = (0..8).map(f64::from).collect();
    let loss = loss.row_axis(RowAxis::At(1)).reduction(Reduction::None);
    let out = cpu::forward_backward(&loss, &[("x", HostTensor::f32(&x, &[2, 3, 4]))], &[]).unwrap();
    assert_eq!(out.loss_values().unwrap(), want);
    let x = Tensor::from_slice(ctx, &x, &[2, 3, 4]).unwrap();
    let out = loss.forward(ctx, &[("x", &x)]).unwrap();
    assert_eq!(out.loss_values().unwrap().into_iter().map(f64::from).collect::<Vec<_>>(), want);
    // Bindings of 4 KiB: 300 rows of 40 columns are chunks of 25 rows.
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 4096, ..wgpu::Limits::default() };
    let small = Context::with_limits(limits).unwrap();
    let loss = define("numbered").expr(|b| b.graph().row_index().to_float() + 0.0 * b.input("x").sum());
    let x = Tensor::from_slice(&small, &vec![1.0f32; 300 * 40], &[300, 40]).unwrap();
    let out = loss.reduction(Reduction::None).forward(&small, &[("x", &x)]).unwrap();
    assert_eq!(out.loss_values().unwrap(), (0..300).map(|row| row as f32).collect::<Vec<_>>());
}

#[test]
fn comparisons_that_bits_do_not_carry_are_mistakes() {
    let message = |loss: Loss, unsigned: bool| {
        let x = HostTensor::f32(&[0.0; 4], &[1, 4]);
        let y = if unsigned { HostTensor::u32(&[1], &[1]) } else { HostTensor::i32(&[1], &[1]) };
        match cpu::forward_backward(&loss, &[("x", x), ("y", y.clone()), ("z", HostTensor::i32(&[1], &[1]))], &[]) {
            Err(Error::Expr { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    };
    let of = |two: bool| {
        let definition = define("own").label("y").label("z").index("k", Some(1));
        definition.expr(move |b| {
            let other = if two { b.input("z") } else { b.graph().index_param("k", 1) };
            let both = b.input("z").equals(b.graph().index(1)).to_float();
            b.input("x").sum().masked(b.input("y").lt(other)) * both
        })
    };
    assert!(message(of(true), true).contains("signed label with an unsigned one"));
    assert!(message(of(false), true).contains("by its order"));
}

#[test]
fn literals_beyond_a_labels_type_compare_as_they_are() {
    let Some(ctx) = context() else { return };
    // −1 < y for every unsigned y, and no signed y exceeds 2³¹ − 1.
    for (unsigned, bound, below) in [(true, -1, true), (false, i64::from(i32::MAX), false), (false, -7, true)] {
        let loss = define("bounded").label("y").expr(move |b| {
            let beyond = b.graph().index(bound).lt(b.input("y"));
            b.input("x").sum() * beyond.to_float()
        });
        let data = Data::new(3, 4, |row| [0, 3, 2][row]);
        let times = if below { 1.0 } else { 0.0 };
        let value = |_: usize, x: &[f32]| times * x.iter().map(|x| f64::from(*x)).sum::<f64>();
        data.check(ctx, &loss, unsigned, value, |_, _| times);
    }
}

#[test]
fn a_comparison_that_is_known_has_a_value_per_row() {
    // Whatever the type of the labels, the loss has one value per row.
    let loss = define("scoped")
        .label("y")
        .expr(|b| b.input("y").lt(b.graph().index(-9)).to_float() + 0.0 * b.input("x").at(b.graph().index(0)));
    let scoped = Loss::define("scoped").input("x", Scope::Element).label("y").row_axis(RowAxis::Last);
    let scoped =
        scoped.expr(|b| b.input("y").lt(b.graph().index(-9)).to_float() * b.input("x").sum_over(Scope::Column));
    let x = HostTensor::f32(&[1.0; 6], &[3, 2]);
    for labels in [HostTensor::u32(&[0, 1, 0], &[3]), HostTensor::i32(&[0, 1, 0], &[3])] {
        let inputs = [("x", x.clone()), ("y", labels)];
        let of = |loss: &Loss| {
            let out = cpu::forward_backward(&loss.clone().reduction(Reduction::None), &inputs, &[]).unwrap();
            out.loss_values().unwrap().to_vec()
        };
        assert_eq!((of(&loss), of(&scoped)), (vec![0.0; 3], vec![0.0; 6]));
    }
}

#[test]
fn an_unsigned_index_is_a_number_above_all_signed_ones() {
    let Some(ctx) = context() else { return };
    let loss = define("number").label("y").expr(|b| b.input("y").to_float() + b.input("x").sum());
    let data = Data::new(2, 4, |row| [3_000_000_000, 5][row]);
    let value = |row: usize, x: &[f32]| data.y[row] as f64 + x.iter().map(|x| f64::from(*x)).sum::<f64>();
    data.check(ctx, &loss, true, value, |_, _| 1.0);
}
