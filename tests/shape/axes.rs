//! Rows along any axis, or along several, GPU and CPU, against plain loops.

use crate::common::compare::{assert_close, random};
use crate::common::{context, read};
use wgloss::export::Export;
use wgloss::{
    Bindings, ClassAxis, Context, DType, Error, HostTensor, Layout, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor,
    Wanted, cpu, losses,
};

/// `L_r = w_r·Σ_c x_rc² / (1 + Σ_c |x_rc|)`: a value per row that looks at every column.
fn ratio(axis: RowAxis) -> Loss {
    Loss::define("ratio").input("x", Scope::Element).input("w", Scope::Row).row_axis(axis).expr(|b| {
        let x = b.input("x");
        b.input("w") * (x * x).sum() / (1.0 + x.abs().sum())
    })
}

/// A tensor of that shape, its rows and where they lie.
struct Rows {
    shape: Vec<usize>,
    /// Shape of the rows.
    outer: Vec<usize>,
    /// Indices of the elements of each row, in row-major order over the columns.
    rows: Vec<Vec<usize>>,
}

impl Rows {
    /// `is_column` says whether an axis is one of the row.
    fn new(shape: &[usize], is_column: impl Fn(usize) -> bool) -> Rows {
        let pick =
            |of_columns: bool| (0..shape.len()).filter(|axis| is_column(*axis) == of_columns).collect::<Vec<_>>();
        let (inner, outer) = (pick(true), pick(false));
        let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
        let offsets = |axes: &[usize]| {
            axes.iter().fold(vec![0], |all: Vec<usize>, &axis| {
                all.iter().flat_map(|at| (0..shape[axis]).map(move |k| at + k * stride(axis))).collect()
            })
        };
        let rows = offsets(&outer).iter().map(|row| offsets(&inner).iter().map(|col| row + col).collect()).collect();
        Rows { shape: shape.to_vec(), outer: outer.iter().map(|axis| shape[*axis]).collect(), rows }
    }

    /// Losses, and gradients of their sum.
    fn expected(&self, x: &[f32], w: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let (mut losses, mut grad) = (Vec::new(), vec![0.0; x.len()]);
        for (row, w) in self.rows.iter().zip(w) {
            let x = |k: &usize| f64::from(x[*k]);
            let (square, size): (f64, f64) = row.iter().fold((0.0, 1.0), |(a, b), k| (a + x(k) * x(k), b + x(k).abs()));
            losses.push(f64::from(*w) * square / size);
            for k in row {
                let slope = 2.0 * x(k) / size - square / (size * size) * x(k).signum();
                grad[*k] = f64::from(*w) * slope;
            }
        }
        (losses, grad)
    }

    fn check(&self, ctx: &Context, axis: RowAxis) {
        let what = format!("{:?} along {axis}", self.shape);
        let (x, w) = (random(self.shape.iter().product(), 3), random(self.rows.len(), 4));
        let (losses, grad) = self.expected(&x, &w);
        let inputs = [("x", HostTensor::f32(&x, &self.shape)), ("w", HostTensor::f32(&w, &self.outer))];
        let wanted = Wanted { loss: true, grads: vec!["x".to_owned()], ..Wanted::default() };
        let loss = ratio(axis).reduction(Reduction::Sum);
        let out = cpu::run::<f64>(&loss, &inputs, &wanted).unwrap();
        assert_close(&what, &[out.loss().unwrap()], &[losses.iter().sum()], 1e-12);
        assert_close(&what, out.grad("x").unwrap(), &grad, 1e-12);
        let none = cpu::run::<f64>(&ratio(axis).reduction(Reduction::None), &inputs, &wanted).unwrap();
        assert_close(&what, none.loss_values().unwrap(), &losses, 1e-12);

        let [x, w] = [Tensor::from_slice(ctx, &x, &self.shape), Tensor::from_slice(ctx, &w, &self.outer)];
        let inputs = [("x", x.as_ref().unwrap()), ("w", w.as_ref().unwrap())];
        let plan = ctx.plan(&ratio(axis).reduction(Reduction::None), &PlanSpec::new().like(&inputs).grad("x")).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        assert_close(&what, &read(&bound, bound.loss().unwrap()), &losses, 4e-6);
        assert_close(&what, &read(&bound, bound.grad("x").unwrap()), &grad, 4e-6);
        assert_eq!(bound.loss().unwrap().shape(), self.outer);
    }
}

#[test]
fn a_row_lies_along_any_axis() {
    let Some(ctx) = context() else { return };
    // Columns around a vector and a subgroup, innermost and not.
    for shape in [&[3, 4, 5][..], &[65, 2, 7], &[2, 33, 1], &[7], &[2, 3, 5, 4]] {
        for axis in 0..shape.len() {
            Rows::new(shape, |k| k == axis).check(ctx, RowAxis::At(axis));
        }
        Rows::new(shape, |k| k + 1 == shape.len()).check(ctx, RowAxis::Last);
    }
}

#[test]
fn a_row_lies_along_all_axes_from_one_on() {
    let Some(ctx) = context() else { return };
    // 257 · 67 columns: rows that are split.
    for shape in [&[3, 1, 5, 7][..], &[2, 3, 4], &[5, 64], &[9], &[2, 1, 257, 67]] {
        for axis in 0..shape.len() {
            Rows::new(shape, |k| k >= axis).check(ctx, RowAxis::From(axis));
        }
    }
}

/// A view of an `[8, 6, 4]` buffer.
fn view(shape: &[usize], strides: &[usize]) -> Layout {
    Layout { shape: shape.to_vec(), strides: strides.to_vec() }
}

#[test]
fn strided_axes_of_a_row_merge_or_are_refused() {
    let Some(ctx) = context() else { return };
    let buffer = random(8 * 6 * 4, 9);
    let loss = ratio(RowAxis::From(1)).reduction(Reduction::Sum);
    let weights = |rows: usize| vec![1.0f32; rows];
    // Every second sample; rows in reverse order of the axes before them.
    for (layout, rows) in [(view(&[4, 6, 4], &[48, 4, 1]), 4), (view(&[8, 1, 4], &[24, 4, 1]), 8)] {
        let cols: usize = layout.shape[1..].iter().product();
        let elements: Vec<usize> = (0..rows)
            .flat_map(|row| (0..cols).map(move |col| (row, col)))
            .map(|(r, c)| r * layout.strides[0] + c)
            .collect();
        let x: Vec<f32> = elements.iter().map(|k| buffer[*k]).collect();
        let (losses, _) = Rows::new(&layout.shape, |k| k >= 1).expected(&x, &weights(rows));
        let whole = Tensor::from_slice(ctx, &buffer, &[buffer.len()]).unwrap();
        let x = whole.view(0, &layout.shape, &layout.strides).unwrap();
        let w = Tensor::from_slice(ctx, &weights(rows), &[rows]).unwrap();
        let got = loss.forward(ctx, &[("x", &x), ("w", &w)]).unwrap().loss().unwrap();
        assert_close(&format!("{layout:?}"), &[f64::from(got)], &[losses.iter().sum()], 4e-6);
    }
    // A crop, columns in reverse order of axes, and one that repeats.
    for layout in [view(&[8, 6, 2], &[24, 4, 1]), view(&[8, 4, 6], &[24, 1, 4]), view(&[8, 6, 4], &[24, 0, 1])] {
        let spec = PlanSpec::new().input_with("x", DType::F32, layout).input("w", DType::F32, &[8]);
        let error = ctx.plan(&loss, &spec).unwrap_err();
        let text = error.to_string();
        assert!(matches!(&error, Error::Shape { input, .. } if input == "x"), "{text}");
        assert!(text.contains("the axes from 1 on") && text.contains("contiguous copy"), "{text}");
    }
}

/// The error of the f64 path for inputs of these shapes; the GPU's plan says the same.
fn refused(loss: &Loss, shapes: &[(&str, &[usize])]) -> Error {
    let zeros = vec![0.0f32; 256];
    let labels = vec![0i32; 256];
    let is_label = |name: &str| name == "target";
    let tensor = |name: &str, shape: &[usize]| {
        let count = shape.iter().product();
        if is_label(name) { HostTensor::i32(&labels[..count], shape) } else { HostTensor::f32(&zeros[..count], shape) }
    };
    let inputs: Vec<_> = shapes.iter().map(|(name, shape)| (*name, tensor(name, shape))).collect();
    let error = cpu::forward_backward(loss, &inputs, &[]).expect_err("shapes that do not fit");
    if let Some(ctx) = context() {
        let dtype = |name: &str| if is_label(name) { DType::I32 } else { DType::F32 };
        let spec = shapes.iter().fold(PlanSpec::new(), |spec, (name, shape)| spec.input(name, dtype(name), shape));
        assert_eq!(ctx.plan(loss, &spec).unwrap_err(), error);
    }
    error
}

#[test]
fn a_shape_without_the_axis_is_told_which_and_the_way_out() {
    for (axis, shape) in [(RowAxis::From(2), &[3, 4][..]), (RowAxis::At(2), &[3, 4]), (RowAxis::From(0), &[])] {
        let error = refused(&ratio(axis), &[("x", shape), ("w", &[3])]);
        let text = error.to_string();
        assert!(matches!(&error, Error::Shape { input, found, .. } if input == "x" && found == shape), "{text}");
        assert!(text.contains(&axis.to_string()) && text.contains(".row_axis("), "{text}");
    }
    // Labels that fit rows along another axis.
    let loss = losses::cross_entropy().row_axis(RowAxis::At(2));
    let text = refused(&loss, &[("input", &[2, 3, 4, 5]), ("target", &[2, 3, 4])]).to_string();
    for part in ["`target`", "[2, 3, 4]", "along axis 2", "ClassAxis::Last"] {
        assert!(text.contains(part), "{text}");
    }
    let text = refused(&losses::cross_entropy(), &[("input", &[2, 3, 4, 5]), ("target", &[2, 3, 5])]).to_string();
    assert!(text.contains("ClassAxis::At(2)"), "{text}");
}

#[test]
fn a_row_axis_is_set_by_name_and_only_where_there_are_rows() {
    let by_name = losses::by_name("cross_entropy").unwrap().option("row_axis", RowAxis::From(1));
    assert_eq!(by_name.rows_along(), RowAxis::From(1));
    assert_eq!(by_name.class_axis(ClassAxis::At(3)).rows_along(), RowAxis::At(3));
    let error = losses::mse().row_axis(RowAxis::Last).check().unwrap_err();
    assert!(matches!(&error, Error::Name { name, .. } if name == "row_axis"), "{error}");
    // Keras's and optax's name for it.
    for (axis, along) in [(-1.0, RowAxis::Last), (0.0, RowAxis::At(0)), (2.0, RowAxis::At(2))] {
        assert_eq!(losses::by_name("hinge").unwrap().option("axis", axis).rows_along(), along);
    }
    for axis in [-2.0, 0.5, f64::NAN] {
        let error = losses::by_name("hinge").unwrap().option("axis", axis).check().unwrap_err();
        assert!(matches!(&error, Error::Param { param, .. } if param == "axis"), "{error}");
    }
    let error = losses::by_name("hinge").unwrap().row_axis(RowAxis::None).check().unwrap_err();
    assert!(matches!(&error, Error::Param { allowed, .. } if allowed.contains("RowAxis::From")), "{error}");
    let sum = losses::cross_entropy() + ratio(RowAxis::Last);
    assert_eq!(sum.row_axis(RowAxis::At(1)).rows_along(), RowAxis::At(1));
}

#[test]
fn labels_lie_along_the_other_axes() {
    let Some(ctx) = context() else { return };
    // [N, H, C, W] logits, [N, H, W] labels.
    let (shape, outer) = ([2, 3, 4, 5], [2, 3, 5]);
    let x = random(120, 21);
    let y: Vec<i32> = (0..30).map(|row| row * 7 % 4).collect();
    let mut want = 0.0;
    for (row, label) in y.iter().enumerate() {
        let at = |c: usize| f64::from(x[(row / 5 * 4 + c) * 5 + row % 5]);
        want += ((0..4).map(|c| at(c).exp()).sum::<f64>().ln() - at(*label as usize)) / 30.0;
    }
    let loss = losses::cross_entropy().class_axis(ClassAxis::At(2));
    let inputs = [("input", HostTensor::f32(&x, &shape)), ("target", HostTensor::i32(&y, &outer))];
    let got = cpu::forward_backward(&loss, &inputs, &[]).unwrap().loss().unwrap();
    assert_close("CPU", &[got], &[want], 1e-12);
    let [x, y] = [Tensor::from_slice(ctx, &x, &shape).unwrap(), Tensor::from_slice(ctx, &y, &outer).unwrap()];
    let got = loss.forward(ctx, &[("input", &x), ("target", &y)]).unwrap().loss().unwrap();
    assert_close("GPU", &[f64::from(got)], &[want], 4e-6);
}

#[test]
fn exports_serve_rows_that_the_last_axis_makes() {
    let spec = PlanSpec::new().input("x", DType::F32, &[64, 12]).input("w", DType::F32, &[64]);
    for axis in [RowAxis::At(1), RowAxis::From(1)] {
        let export = Export::new(&ratio(axis), &spec).unwrap();
        assert!(export.conditions.iter().all(|condition| condition.formula.at(32, 12) == 1), "{axis}");
    }
    let spec = PlanSpec::new().input("x", DType::F32, &[64, 12]).input("w", DType::F32, &[12]);
    let error = Export::new(&ratio(RowAxis::At(0)), &spec).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { message } if message.contains("the first axis")), "{error}");
}
