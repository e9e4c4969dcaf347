//! The shapes that losses take, and the errors of those that they do not: on GPU and CPU, against textbook loops.

use crate::common::cases::{case, names, option_sets};
use crate::common::compare::{largest, mismatch};
use crate::common::oracle::{self, Array, Case};
use crate::common::{context, loss_of, on_cpu, on_gpu};
use wgloss::export::Export;
use wgloss::losses::CATALOGUE;
use wgloss::{ClassAxis, Error, HostTensor, Loss, PlanSpec, RowAxis, Scope, ShapeRule, Tensor, cpu, losses};

/// The error of a loss for inputs of zeros in these shapes, the same on both paths and of an export.
fn refused(loss: &Loss, shapes: &[(&str, &[usize])]) -> Error {
    let (numbers, indices) = ([0.0f32; 256], [0i32; 256]);
    let is_label = |name: &str| loss.inputs().iter().any(|i| i.name == name && i.kind == wgloss::Kind::Int);
    let inputs: Vec<(&str, HostTensor<'_>)> = shapes
        .iter()
        .map(|(name, shape)| match is_label(name) {
            true => (*name, HostTensor::i32(&indices, shape)),
            false => (*name, HostTensor::f32(&numbers, shape)),
        })
        .collect();
    let error = cpu::forward_backward(loss, &inputs, &[]).expect_err("shapes that do not fit");
    let dtype = |name: &str| if is_label(name) { wgloss::DType::I32 } else { wgloss::DType::F32 };
    let spec = shapes.iter().fold(PlanSpec::new(), |spec, (name, shape)| spec.input(name, dtype(name), shape));
    assert_eq!(Export::new(loss, &spec).unwrap_err(), error, "one rule");
    if let Some(ctx) = context() {
        assert_eq!(ctx.plan(loss, &spec).unwrap_err(), error, "one rule");
    }
    error
}

/// A loss in one layout on both paths, against the oracle's numbers for another layout of the same memory.
fn assert_same(what: &str, loss: &Loss, laid_out: &Case, name: &str, plain: &Case) {
    let input = names(name).0;
    let (want, grad) = (oracle::oracle(name, plain).expect("an oracle"), oracle::gradient(name, plain, input));
    let cpu = on_cpu(loss, laid_out, &[input]);
    let gpu = context().map(|ctx| on_gpu(ctx, loss, laid_out, &[input]));
    for (path, outcome, rtol) in [("CPU", Some(cpu), 1e-11), ("GPU", gpu, 1e-5)] {
        let Some(outcome) = outcome else { continue };
        let outcome = outcome.unwrap_or_else(|error| panic!("{path} {what}: {error}"));
        let off = mismatch(&outcome.loss, &want, rtol, |_| rtol * 0.1 * (1.0 + largest(&want)));
        assert_eq!(off, None, "{path} {what}: loss");
        let off = mismatch(&outcome.grads[input], &grad, rtol, |_| rtol * 0.1 * (1.0 + largest(&grad)));
        assert_eq!(off, None, "{path} {what}: gradient");
    }
}

#[test]
fn classes_along_the_last_axis_are_rows_as_they_lie() {
    // V = 5 beside T = 3, and V = T.
    for classes in [5, 3] {
        // Losses of a batch sum over what a sample has, which another layout changes.
        let of_rows = |loss: &Loss| loss.rows_along() == RowAxis::Class && loss.option_value("batch").is_none();
        for entry in CATALOGUE.iter().filter(|entry| of_rows(&(entry.make)())) {
            for options in option_sets(entry.name).into_iter().take(2) {
                let plain = case(entry.name, &options, &[6, classes], &[], "none", 2.0);
                let mut laid_out = plain.clone();
                let batched = |shape: &[usize]| [&[2, 3], &shape[1..]].concat();
                for array in laid_out.arrays.values_mut().filter(|array| array.shape[0] == 6) {
                    *array = Array::new(&batched(&array.shape), array.values.clone());
                }
                laid_out.labels.iter_mut().for_each(|(_, shape)| *shape = batched(shape));
                let loss = loss_of(entry.name, &plain).unwrap().class_axis(ClassAxis::Last);
                let what = format!("{} {options:?} of [2, 3, {classes}]", entry.name);
                assert_same(&what, &loss, &laid_out, entry.name, &plain);
            }
        }
    }
}

#[test]
fn where_both_readings_fit_the_class_axis_alone_decides() {
    // One sample of 2 by 2: rows are columns of the matrix by default, rows of it with the last axis.
    let x = [0.0f32, 1.0, 3.0, -2.0];
    let y = [0i32, 1];
    let nll = |a: f32, b: f32| (f64::from(b - a).exp()).ln_1p();
    let default = nll(x[0], x[2]) + nll(x[3], x[1]);
    let last = nll(x[0], x[1]) + nll(x[3], x[2]);
    let sum = || losses::cross_entropy().reduction(wgloss::Reduction::Sum);
    for (loss, want) in [
        (sum(), default),
        (sum().class_axis(ClassAxis::One), default),
        (sum().class_axis(ClassAxis::Last), last),
        (sum().class_axis(ClassAxis::Last).class_axis(ClassAxis::One), default),
    ] {
        let inputs = [("input", HostTensor::f32(&x, &[1, 2, 2])), ("target", HostTensor::i32(&y, &[1, 2]))];
        let got = cpu::forward_backward(&loss, &inputs, &[]).unwrap().loss().unwrap();
        assert!((got - want).abs() < 1e-6, "{got}, want {want}");
        let Some(ctx) = context() else { continue };
        let [x, y] = [Tensor::from_slice(ctx, &x, &[1, 2, 2]).unwrap(), Tensor::from_slice(ctx, &y, &[1, 2]).unwrap()];
        let got = loss.forward(ctx, &[("input", &x), ("target", &y)]).unwrap().loss().unwrap();
        assert!((f64::from(got) - want).abs() < 1e-5, "{got}, want {want}");
    }
}

#[test]
fn labels_that_fit_the_other_class_axis_are_told_both_readings() {
    let error = refused(&losses::cross_entropy(), &[("input", &[2, 3, 5]), ("target", &[2, 3])]);
    let text = error.to_string();
    for part in ["`target`", "[2, 3]", "[2, 5]", "axis 1", "the last axis", ".class_axis(ClassAxis::Last)"] {
        assert!(text.contains(part), "{text}");
    }
    let last = losses::nll().class_axis(ClassAxis::Last);
    let text = refused(&last, &[("input", &[2, 3, 5]), ("target", &[2, 5])]).to_string();
    assert!(text.contains(".class_axis(ClassAxis::One)") && text.contains("[2, 3] (one value per row)"), "{text}");
    // Keras's losses have no other class axis.
    let shapes = [("y_true", &[2, 3, 5][..]), ("y_pred", &[2, 3, 5]), ("sample_weight", &[2, 5])];
    let text = refused(&losses::hinge(), &shapes).to_string();
    assert!(text.contains("`sample_weight`") && !text.contains("ClassAxis"), "{text}");
    // One token: as one label for all columns, these labels would broadcast.
    let text = refused(&losses::cross_entropy(), &[("input", &[4, 1, 5]), ("target", &[4, 1])]).to_string();
    assert!(text.ends_with(".class_axis(ClassAxis::Last)`"), "{text}");
    // Labels of neither reading.
    let text = refused(&losses::cross_entropy(), &[("input", &[2, 3, 5]), ("target", &[2, 4])]).to_string();
    assert!(!text.contains("class_axis"), "{text}");
}

#[test]
fn a_class_axis_is_set_by_name_and_only_where_there_are_classes() {
    let by_name = losses::by_name("cross_entropy").unwrap().option("class_axis", ClassAxis::Last);
    assert_eq!(by_name.rows_along(), RowAxis::Last);
    let error = losses::by_name("hinge").unwrap().class_axis(ClassAxis::Last).check().unwrap_err();
    assert!(matches!(&error, Error::Name { name, .. } if name == "class_axis"), "{error}");
    let error = losses::by_name("nll").unwrap().option("class_axis", true).check().unwrap_err();
    assert!(matches!(&error, Error::Param { allowed, .. } if allowed.contains("ClassAxis::Last")), "{error}");
    let error = losses::by_name("nll").unwrap().option("dim", 1i64).check().unwrap_err();
    assert!(matches!(&error, Error::Name { known, .. } if known.contains("class_axis")), "{error}");
    let sum = losses::cross_entropy().class_axis(ClassAxis::Last) + losses::z_loss(0.1);
    let error = refused(&sum, &[("input", &[2, 3, 3]), ("target", &[2, 3])]);
    assert!(matches!(&error, Error::Expr { message, .. } if message.contains("class_axis")), "{error}");
    assert_eq!(sum.class_axis(ClassAxis::Last).rows_along(), RowAxis::Last);
}

#[test]
fn predictions_and_targets_of_different_shape_are_an_error_that_names_both_and_the_ways_out() {
    let error = refused(&losses::mse(), &[("input", &[3]), ("target", &[3, 1])]);
    assert!(matches!(&error, Error::Shape { input, found, .. } if input == "target" && found == &[3, 1]), "{error}");
    let want = "shape of `target`: found [3, 1], expected [3], that of `input`; squeeze it, or let them broadcast: \
                `.broadcast(true)`";
    assert_eq!(error.to_string(), want);
    let text = refused(&losses::huber(1.0), &[("input", &[4, 3]), ("target", &[3])]).to_string();
    assert!(text.ends_with("expand one of them, or let them broadcast: `.broadcast(true)`"), "{text}");
    let text = refused(&losses::bce(), &[("input", &[1, 3]), ("target", &[3])]).to_string();
    assert!(text.contains("expected [1, 3], that of `input`; reshape it"), "{text}");
    // Shapes that do not even broadcast are not offered it.
    let text = refused(&losses::kl_div(), &[("input", &[4, 3]), ("target", &[4, 2])]).to_string();
    assert!(text.ends_with("expected [4, 3], that of `input`"), "{text}");
    let text = refused(&losses::cross_entropy(), &[("input", &[4, 3]), ("target", &[1])]).to_string();
    assert!(text.contains("expected [4] (one value per row); expand one of them"), "{text}");
    let text = refused(&losses::cross_entropy(), &[("input", &[4, 3]), ("target", &[5])]).to_string();
    assert!(text.ends_with("expected [4] (one value per row)"), "{text}");
}

#[test]
fn every_loss_of_two_required_inputs_refuses_different_shapes_unless_it_may_broadcast() {
    for entry in CATALOGUE {
        let loss = (entry.make)();
        let required: Vec<_> = loss.inputs().into_iter().filter(|input| !input.optional).collect();
        // Values per class, and inputs that broadcast, do so as they are; inputs apart have shapes of their own.
        let has_the_shape = |input: &&wgloss::loss::InputSpec| {
            let is_bound = !matches!(input.shape_rule, ShapeRule::Apart | ShapeRule::Broadcast);
            input.scope != Scope::Column && is_bound
        };
        for other in required.iter().skip(1).filter(has_the_shape) {
            let cols = loss.cols().expect("one number of columns").map_or(5, |cols| cols as usize);
            let shape = |input: &wgloss::loss::InputSpec| -> Vec<usize> {
                match (input.scope, input.name == other.name) {
                    (Scope::Row, true) => vec![1],
                    (Scope::Row, false) => vec![4],
                    (Scope::Column, _) => vec![cols],
                    (_, true) => vec![1, cols],
                    (_, false) => vec![4, cols],
                }
            };
            let shapes: Vec<(&str, Vec<usize>)> =
                required.iter().map(|input| (input.name.as_str(), shape(input))).collect();
            let shapes: Vec<(&str, &[usize])> = shapes.iter().map(|(name, shape)| (*name, &shape[..])).collect();
            let error = refused(&loss, &shapes);
            assert!(matches!(&error, Error::Shape { .. }), "{}: {error}", entry.name);
            // A row of several axes is contiguous.
            if matches!(loss.rows_along(), RowAxis::From(_)) {
                continue;
            }
            let loss = loss.clone().broadcast(true);
            let spec = shapes.iter().fold(PlanSpec::new(), |spec, (name, shape)| {
                let is_label = required.iter().any(|i| i.name == *name && i.kind == wgloss::Kind::Int);
                spec.input(name, if is_label { wgloss::DType::I32 } else { wgloss::DType::F32 }, shape)
            });
            let Some(ctx) = context() else { continue };
            ctx.plan(&loss, &spec).unwrap_or_else(|error| panic!("{}: {error}", entry.name));
        }
    }
}

#[test]
fn a_target_that_repeats_by_its_strides_has_the_shape() {
    let (x, t) = ([1.0f32, 2.0, 3.0, 4.0], [2.0f32, 0.0]);
    let expanded = HostTensor::f32(&t, &[2, 2]).with_strides(&[0, 1]);
    let inputs = [("input", HostTensor::f32(&x, &[2, 2])), ("target", expanded)];
    let want = (1.0 + 4.0 + 1.0 + 16.0) / 4.0;
    assert_eq!(cpu::forward_backward(&losses::mse(), &inputs, &[]).unwrap().loss().unwrap(), want);
    let Some(ctx) = context() else { return };
    let x = Tensor::from_slice(ctx, &x, &[2, 2]).unwrap();
    let t = Tensor::from_slice(ctx, &t, &[2]).unwrap().view(0, &[2, 2], &[0, 1]).unwrap();
    let out = losses::mse().forward(ctx, &[("input", &x), ("target", &t)]).unwrap();
    assert_eq!(f64::from(out.loss().unwrap()), want);
}

#[test]
fn weights_and_masks_broadcast_as_ever() {
    let x: Vec<f32> = (0..12).map(|k| k as f32 / 4.0).collect();
    let (w, mask) = ([1.0f32, 2.0, 0.5, 3.0], [1.0f32, 0.0, 1.0]);
    let zeros = [0.0f32; 12];
    let term = |k: usize| f64::from(mask[k / 4]) * f64::from(w[k % 4]) * f64::from(x[k]).powi(2);
    let want: f64 = (0..12).map(term).sum();
    let loss = losses::mse().reduction(wgloss::Reduction::Sum);
    let inputs = [
        ("input", HostTensor::f32(&x, &[3, 4])),
        ("target", HostTensor::f32(&zeros, &[3, 4])),
        ("weight", HostTensor::f32(&w, &[4])),
        ("mask", HostTensor::f32(&mask, &[3, 1])),
    ];
    let got = cpu::forward_backward(&loss, &inputs, &[]).unwrap().loss().unwrap();
    assert!((got - want).abs() < 1e-12, "{got}, want {want}");
}

#[test]
fn labels_and_values_per_row_may_have_a_last_axis_of_one() {
    for shape in [&[6, 4][..], &[2, 4, 3]] {
        let plain = case("cross_entropy", &vec![], shape, &["sample_weight"], "none", 2.0);
        let mut laid_out = plain.clone();
        laid_out.labels.iter_mut().for_each(|(_, shape)| shape.push(1));
        let weight = laid_out.arrays.get_mut("sample_weight").expect("it was asked for");
        weight.shape.push(1);
        let loss = loss_of("cross_entropy", &plain).unwrap();
        assert_same("labels [.., 1]", &loss, &laid_out, "cross_entropy", &plain);
    }
    // One row of classes has the label [] or [1]; [N, 2] has no reading.
    let (x, y) = (HostTensor::f32(&[0.0, 0.0], &[2]), HostTensor::i32(&[1], &[1]));
    let out = cpu::forward_backward(&losses::cross_entropy(), &[("input", x), ("target", y)], &[]).unwrap();
    assert!((out.loss().unwrap() - 2f64.ln()).abs() < 1e-12);
    refused(&losses::cross_entropy(), &[("input", &[4, 3]), ("target", &[4, 2])]);
    refused(&losses::cross_entropy(), &[("input", &[4, 3]), ("target", &[4, 1, 1])]);
}

#[test]
fn kerass_predictions_may_have_a_last_axis_of_one_more_than_the_targets_or_less() {
    for name in ["hinge", "squared_hinge", "log_cosh"] {
        // Of one axis Keras makes two; of more it squeezes.
        for (plain, true_shape, pred_shape) in [
            (&[5, 1][..], &[5][..], &[5, 1][..]),
            (&[5, 1], &[5, 1], &[5]),
            (&[4, 3], &[4, 3], &[4, 3, 1]),
            (&[4, 3], &[4, 3, 1], &[4, 3]),
        ] {
            let plain = case(name, &vec![], plain, &[], "none", 2.0);
            let mut laid_out = plain.clone();
            for (input, shape) in [("y_true", true_shape), ("y_pred", pred_shape)] {
                laid_out.arrays.get_mut(input).expect("an input").shape = shape.to_vec();
            }
            let loss = loss_of(name, &plain).unwrap();
            assert_same(&format!("{name} {true_shape:?} {pred_shape:?}"), &loss, &laid_out, name, &plain);
        }
        let loss = losses::by_name(name).unwrap();
        refused(&loss, &[("y_true", &[4]), ("y_pred", &[4, 3])]);
        refused(&loss, &[("y_true", &[4, 3]), ("y_pred", &[4, 3, 1, 1])]);
        // Keras's sample weights are one per value of the loss, which is a mean over the last axis.
        let weighted = case(name, &vec![], &[4, 3], &["sample_weight"], "none", 2.0);
        assert_eq!(weighted.arrays["sample_weight"].shape, [4]);
        assert_same(name, &loss_of(name, &weighted).unwrap(), &weighted, name, &weighted);
    }
    assert!(refused(&losses::mse(), &[("input", &[4, 1]), ("target", &[4])]).to_string().contains("[4, 1]"));
}

/// `r²/v` in f64, of `var` with or without its last axis, and its gradient with respect to `var`: summed over what one
/// value was read for.
fn scaled_squares(x: &[f32], var: &[f32]) -> (f64, Vec<f64>) {
    let per_value = x.len() / var.len();
    let (mut sum, mut grad) = (0.0, vec![0.0; var.len()]);
    for (k, x) in x.iter().enumerate() {
        let v = f64::from(var[k / per_value]);
        sum += f64::from(*x).powi(2) / v;
        grad[k / per_value] -= f64::from(*x).powi(2) / (v * v);
    }
    (sum, grad)
}

#[test]
fn an_input_may_lack_the_last_axis_where_its_loss_says_so() {
    let loss = |rule| {
        let loss = Loss::define("scaled").input("input", Scope::Element).input("var", Scope::Element);
        let loss = loss.shape_rule("var", rule).expr(|b| b.input("input") * b.input("input") / b.input("var"));
        loss.reduction(wgloss::Reduction::Sum)
    };
    let optional = loss(ShapeRule::OptionalLastAxis);
    let x: Vec<f32> = (0..18).map(|k| (k as f32 - 7.0) / 4.0).collect();
    let var: Vec<f32> = (0..18).map(|k| 0.5 + k as f32 / 8.0).collect();
    // N = C as well: [3] beside [3, 3] is one per row, which broadcasting would read as one per column.
    for (whole, shape) in
        [(&[6, 3][..], &[6][..]), (&[6, 3], &[6, 1]), (&[6, 3], &[6, 3]), (&[3, 3], &[3]), (&[2, 3, 3], &[2, 3])]
    {
        let x = &x[..whole.iter().product()];
        let var = &var[..shape.iter().product()];
        let (want, want_grad) = scaled_squares(x, var);
        let inputs = [("input", HostTensor::f32(x, whole)), ("var", HostTensor::f32(var, shape))];
        let out = cpu::forward_backward(&optional, &inputs, &["var"]).unwrap();
        assert!((out.loss().unwrap() - want).abs() < 1e-12 * want, "{whole:?} {shape:?}");
        assert_eq!(mismatch(out.grad("var").unwrap(), &want_grad, 1e-12, |_| 0.0), None, "{whole:?} {shape:?}");
        let Some(ctx) = context() else { continue };
        let (x, var) = (Tensor::from_slice(ctx, x, whole).unwrap(), Tensor::from_slice(ctx, var, shape).unwrap());
        let out = optional.forward_backward_of(ctx, &[("input", &x), ("var", &var)], &["var"]).unwrap();
        assert!((f64::from(out.loss().unwrap()) - want).abs() < 2e-6 * want, "{whole:?} {shape:?}");
        let grad = out.grad("var").unwrap();
        assert_eq!(grad.shape(), shape);
        let got: Vec<f64> = grad.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
        assert_eq!(mismatch(&got, &want_grad, 1e-5, |_| 1e-6), None, "{whole:?} {shape:?}");
    }
    let error = refused(&optional, &[("input", &[6, 3]), ("var", &[3])]);
    let want = "shape of `var`: found [3], expected that of `input`, [6, 3], with or without its last axis";
    assert_eq!(error.to_string(), want);
    refused(&optional, &[("input", &[6, 3]), ("var", &[1, 3])]);
    refused(&optional, &[("input", &[6, 3]), ("var", &[])]);
    // By default an input of a loss of your own has the shape of the others.
    let own = Loss::define("own").input("a", Scope::Element).input("b", Scope::Element);
    refused(&own.expr(|b| b.input("a") * b.input("b")), &[("a", &[6, 3]), ("b", &[6, 1])]);
    let mistaken = Loss::define("own").input("a", Scope::Element).shape_rule("b", ShapeRule::Broadcast);
    assert!(matches!(mistaken.expr(|b| b.input("a")).check(), Err(Error::Expr { .. })));
    let anything = loss(ShapeRule::Broadcast);
    let inputs = [("input", HostTensor::f32(&x[..9], &[3, 3])), ("var", HostTensor::f32(&var[..3], &[3]))];
    let by_column: f64 = (0..9).map(|k| f64::from(x[k]).powi(2) / f64::from(var[k % 3])).sum();
    assert!((cpu::forward_backward(&anything, &inputs, &[]).unwrap().loss().unwrap() - by_column).abs() < 1e-12);
}
