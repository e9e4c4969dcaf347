//! The shapes that losses take, and the errors of those that they do not: on GPU and CPU, against textbook loops.

mod common;

use common::cases::{case, names, option_sets};
use common::compare::{largest, mismatch};
use common::oracle::{self, Array, Case};
use common::{context, loss_of, on_cpu, on_gpu};
use wgloss::losses::CATALOGUE;
use wgloss::{ClassAxis, Error, HostTensor, Loss, PlanSpec, RowAxis, Tensor, cpu, losses};

/// The error of a loss for inputs of zeros in these shapes, the same on both paths.
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
    if let Some(ctx) = context() {
        let dtype = |name: &str| if is_label(name) { wgloss::DType::I32 } else { wgloss::DType::F32 };
        let spec = shapes.iter().fold(PlanSpec::new(), |spec, (name, shape)| spec.input(name, dtype(name), shape));
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
        for entry in CATALOGUE.iter().filter(|entry| (entry.make)().row_axis() == RowAxis::Class) {
            for options in option_sets(entry.name).into_iter().take(2) {
                let plain = case(entry.name, &options, &[6, classes], &[], "none", 2.0);
                let mut laid_out = plain.clone();
                let batched = |shape: &[usize]| [&[2, 3], &shape[1..]].concat();
                for array in laid_out.arrays.values_mut() {
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
    // Labels of neither reading.
    let text = refused(&losses::cross_entropy(), &[("input", &[2, 3, 5]), ("target", &[2, 4])]).to_string();
    assert!(!text.contains("class_axis"), "{text}");
}

#[test]
fn a_class_axis_is_set_by_name_and_only_where_there_are_classes() {
    let by_name = losses::by_name("cross_entropy").unwrap().option("class_axis", ClassAxis::Last);
    assert_eq!(by_name.row_axis(), RowAxis::Last);
    let error = losses::by_name("hinge").unwrap().class_axis(ClassAxis::Last).check().unwrap_err();
    assert!(matches!(&error, Error::Name { name, .. } if name == "class_axis"), "{error}");
    let error = losses::by_name("nll").unwrap().option("class_axis", true).check().unwrap_err();
    assert!(matches!(&error, Error::Param { allowed, .. } if allowed.contains("ClassAxis::Last")), "{error}");
    let error = losses::by_name("nll").unwrap().option("axis", 1i64).check().unwrap_err();
    assert!(matches!(&error, Error::Name { known, .. } if known.contains("class_axis")), "{error}");
    let sum = losses::cross_entropy().class_axis(ClassAxis::Last) + losses::z_loss(0.1);
    let error = refused(&sum, &[("input", &[2, 3, 3]), ("target", &[2, 3])]);
    assert!(matches!(&error, Error::Expr { message, .. } if message.contains("class_axis")), "{error}");
    assert_eq!(sum.class_axis(ClassAxis::Last).row_axis(), RowAxis::Last);
}
