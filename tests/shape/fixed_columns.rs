//! Losses whose formulas tell columns apart: `column(k)`, and the number of columns that they state. GPU and CPU,
//! against plain loops.

use crate::common::compare::{assert_close, random};
use crate::common::{context, read};
use half::bf16;
use wgloss::export::Export;
use wgloss::{
    Bindings, Context, DType, Error, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, Wanted, cpu,
};

/// `L_r = x_r0·x_r3 − x_r1² / (1 + x_r2²)`.
fn crossed() -> Loss {
    Loss::define("crossed").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
        let x = b.input("x");
        x.column(0) * x.column(3) - x.column(1) * x.column(1) / (1.0 + x.column(2) * x.column(2))
    })
}

/// The same of four columns alone.
fn crossed_of_four() -> Loss {
    Loss::define("crossed").input("x", Scope::Element).row_axis(RowAxis::Last).cols(4).expr(|b| {
        let x = b.input("x");
        x.column(0) * x.column(3) - x.column(1) * x.column(1) / (1.0 + x.column(2) * x.column(2))
    })
}

/// Losses and the gradient of their sum.
fn expected(x: &[f32], cols: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut losses, mut grad) = (Vec::new(), vec![0.0; x.len()]);
    for (row, grad) in x.chunks(cols).zip(grad.chunks_mut(cols)) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|k| f64::from(row[k]));
        let below = 1.0 + c * c;
        losses.push(a * d - b * b / below);
        grad[..4].copy_from_slice(&[d, -2.0 * b / below, 2.0 * b * b * c / (below * below), a]);
    }
    (losses, grad)
}

fn check(ctx: &Context, loss: &Loss, [rows, cols]: [usize; 2], dtype: DType) {
    let what = format!("{rows} rows of {cols}, {dtype}");
    let x: Vec<f32> = random(rows * cols, 5).iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
    let (losses, grad) = expected(&x, cols);
    let loss = loss.clone().reduction(Reduction::None);
    let wanted = Wanted { loss: true, grads: vec!["x".to_owned()], ..Wanted::default() };
    let out = cpu::run::<f64>(&loss, &[("x", HostTensor::f32(&x, &[rows, cols]))], &wanted).unwrap();
    assert_close(&what, out.loss_values().unwrap(), &losses, 1e-12);
    assert_close(&what, out.grad("x").unwrap(), &grad, 1e-12);

    let halves: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
    let x = match dtype {
        DType::BF16 => Tensor::from_slice(ctx, &halves, &[rows, cols]).unwrap(),
        _ => Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap(),
    };
    let spec = PlanSpec::new().like(&[("x", &x)]).grad("x").grad_dtype("x", DType::F32);
    let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&[("x", &x)])).unwrap();
    bound.submit().unwrap();
    assert_close(&what, &read(&bound, bound.loss().unwrap()), &losses, 4e-6);
    assert_close(&what, &read(&bound, bound.grad("x").unwrap()), &grad, 4e-6);
}

#[test]
fn a_formula_tells_columns_apart() {
    let Some(ctx) = context() else { return };
    for dtype in [DType::F32, DType::BF16] {
        check(ctx, &crossed_of_four(), [67, 4], dtype);
        // Windows of four and odd rows; rows that are split.
        for shape in [[3, 5], [33, 64], [2, 20_001]] {
            check(ctx, &crossed(), shape, dtype);
        }
    }
}

#[test]
fn a_fixed_column_is_not_checked_on_the_gpu() {
    let spec = PlanSpec::new().input("x", DType::F32, &[64, 4]).grad("x");
    let export = Export::new(&crossed_of_four(), &spec).unwrap();
    assert!(export.kernels.iter().all(|kernel| !kernel.contains("atomicMin(&scalars.bad_row")));
    let labelled = Loss::define("labelled").input("x", Scope::Element).label("y").row_axis(RowAxis::Last);
    let labelled = labelled.expr(|b| b.input("x").at(b.input("y")));
    let export = Export::new(&labelled, &spec.input("y", DType::I32, &[64])).unwrap();
    assert!(export.kernels.iter().any(|kernel| kernel.contains("atomicMin(&scalars.bad_row")));
}

#[test]
fn exports_say_which_columns_they_serve() {
    let serves = |loss: &Loss, made_for: usize, cols: u64| {
        let export = Export::new(loss, &PlanSpec::new().input("x", DType::F32, &[64, made_for])).unwrap();
        export.conditions.iter().all(|condition| condition.formula.at(64, cols) == 1)
    };
    assert!(serves(&crossed_of_four(), 4, 4) && !serves(&crossed_of_four(), 4, 8) && !serves(&crossed_of_four(), 4, 3));
    assert!(serves(&crossed(), 5, 4) && !serves(&crossed(), 5, 3));
}

#[test]
fn other_column_counts_are_shape_errors_of_the_plan_and_of_the_call() {
    for (loss, cols, part) in [
        (crossed_of_four(), 5, "exactly 4 columns"),
        (crossed_of_four(), 3, "exactly 4 columns"),
        (crossed(), 3, "at least 4 columns, as its formula reads column 3"),
    ] {
        let x = vec![0.0f32; 2 * cols];
        let error = cpu::forward_backward(&loss, &[("x", HostTensor::f32(&x, &[2, cols]))], &[]).unwrap_err();
        let text = error.to_string();
        assert!(matches!(&error, Error::Shape { input, found, .. } if input == "x" && *found == [2, cols]), "{text}");
        for part in [part, "the last axis", "crossed", ".row_axis("] {
            assert!(text.contains(part), "{text}");
        }
        let spec = PlanSpec::new().input("x", DType::F32, &[2, cols]);
        assert_eq!(Export::new(&loss, &spec).unwrap_err(), error);
        let Some(ctx) = context() else { continue };
        assert_eq!(ctx.plan(&loss, &spec).unwrap_err(), error);
    }
    // Fewer columns bound than planned, along the first axis.
    let Some(ctx) = context() else { return };
    let loss = crossed().row_axis(RowAxis::At(0));
    let plan = ctx.plan(&loss, &PlanSpec::new().input("x", DType::F32, &[6, 3])).unwrap();
    let bind = |cols: usize| {
        let x = Tensor::from_slice(ctx, &random(cols * 3, 6), &[cols, 3]).unwrap();
        plan.bind(&Bindings::new().input("x", &x)).map(|_| ())
    };
    assert_eq!(bind(4), Ok(()));
    assert!(matches!(bind(3), Err(Error::Shape { expected, .. }) if expected.contains("at least 4 columns")));
}

#[test]
fn a_statement_that_cannot_hold_is_a_mistake_of_the_loss() {
    let define = || Loss::define("own").input("x", Scope::Element);
    let message = |loss: Loss| match cpu::forward_backward(&loss, &[("x", HostTensor::f32(&[0.0; 4], &[1, 4]))], &[]) {
        Err(Error::Expr { message, .. }) => message,
        other => panic!("{other:?}"),
    };
    let rows = || define().row_axis(RowAxis::Last);
    assert!(message(define().cols(4).expr(|b| b.input("x"))).contains("row_axis"));
    assert!(message(rows().cols(0).expr(|b| b.input("x").sum())).contains("0 columns"));
    assert!(message(rows().cols(4).expr(|b| b.input("x").column(4))).contains("column 4, which is none of its 4"));
    assert!(message(rows().expr(|b| b.input("x").at(b.graph().index(-1)))).contains("column -1"));
    let two = rows().cols(4).expr(|b| b.input("x").sum()) + rows().cols(5).expr(|b| b.input("x").sum());
    assert!(message(two).contains("4 and 5"));
}
