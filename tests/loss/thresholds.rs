//! Ordered classes, one more than the thresholds between them: their labels, and rows without element inputs.

use crate::common::context;
use wgloss::{Error, HostTensor, Loss, Reduction, Tensor, cpu, losses};

/// An input of numbers: its name, its values, its shape.
type Numbers = (&'static str, &'static [f32], &'static [usize]);

/// The error of a label on both paths; `None` where it is a class.
fn refused(loss: &Loss, numbers: &[Numbers], labels: &[i32]) -> Option<Error> {
    let mut host: Vec<(&str, HostTensor<'_>)> =
        numbers.iter().map(|(name, values, shape)| (*name, HostTensor::f32(values, shape))).collect();
    host.push(("target", HostTensor::i32(labels, &[labels.len()])));
    let want = cpu::forward_backward(loss, &host, &["input"]).unwrap().loss().err();
    if let Some(ctx) = context() {
        let mut tensors: Vec<(&str, Tensor)> = numbers
            .iter()
            .map(|(name, values, shape)| (*name, Tensor::from_slice(ctx, values, shape).unwrap()))
            .collect();
        tensors.push(("target", Tensor::from_slice(ctx, labels, &[labels.len()]).unwrap()));
        let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        assert_eq!(loss.forward_backward_of(ctx, &inputs, &["input"]).unwrap().loss().err(), want, "{}", loss.name());
    }
    want
}

#[test]
fn labels_are_of_one_class_more_than_there_are_thresholds() {
    let all: [(Loss, Vec<Numbers>); 3] = [
        (losses::coral().into(), vec![("input", &[0.5, -1.0, 2.0, 0.0], &[2, 2])]),
        (losses::corn().into(), vec![("input", &[0.5, -1.0, 2.0, 0.0], &[2, 2])]),
        (losses::ordinal_cumulative_link(), vec![("input", &[0.5, -1.0], &[2]), ("thresholds", &[-0.25, 1.0], &[2])]),
    ];
    for (loss, numbers) in all {
        for loss in [loss.clone(), loss.reduction(Reduction::Sum)] {
            for label in [0, 1, 2] {
                assert_eq!(refused(&loss, &numbers, &[1, label]), None, "{} of class {label}", loss.name());
            }
            for label in [3, -1, i32::MAX] {
                let error = Error::LabelOutOfRange { row: 1, label: label.into(), classes: 3 };
                assert_eq!(refused(&loss, &numbers, &[1, label]), Some(error), "{} of class {label}", loss.name());
            }
        }
    }
}

#[test]
fn rows_without_element_inputs_are_those_of_the_row_inputs() {
    let loss = losses::ordinal_cumulative_link().reduction(Reduction::None);
    let x = [0.5f32, -1.0, 2.0, 0.0, 1.0, -3.0];
    let inputs = |target: &[usize]| {
        [
            ("input", HostTensor::f32(&x, &[2, 3])),
            ("thresholds", HostTensor::f32(&[-1.0, 0.0, 0.5, 2.0], &[4])),
            ("target", HostTensor::i32(&[0, 4, 3, 2, 1, 0][..target.iter().product()], target)),
        ]
    };
    let out = cpu::forward_backward(&loss, &inputs(&[2, 3]), &["thresholds"]).unwrap();
    assert_eq!((out.loss_shape(), out.grad("thresholds").unwrap().len()), (&[2, 3][..], 4));
    let error = cpu::forward_backward(&loss, &inputs(&[3]), &[]).unwrap_err();
    assert!(matches!(&error, Error::Shape { input, .. } if input == "target"), "{error}");
}

#[test]
fn a_last_axis_of_size_one_is_no_difference_where_there_are_no_element_inputs() -> wgloss::Result<()> {
    let (x, thresholds, labels) = ([0.5f32, -1.0, 2.0], [-0.5f32, 1.0], [0, 2, 1]);
    for broadcast in [false, true] {
        let loss = losses::ordinal_cumulative_link().broadcast(broadcast);
        let mut wanted = None;
        for (shape, labelled) in [([3, 1], vec![3]), ([3, 1], vec![3, 1])]
            .iter()
            .flat_map(|(long, other)| [(long.to_vec(), other.clone()), (other.clone(), long.to_vec())])
        {
            let host = [
                ("input", HostTensor::f32(&x, &shape)),
                ("thresholds", HostTensor::f32(&thresholds, &[2])),
                ("target", HostTensor::i32(&labels, &labelled)),
            ];
            let want = cpu::forward_backward(&loss, &host, &["input"])?;
            assert_eq!(*wanted.get_or_insert(want.loss()?), want.loss()?, "input {shape:?}, target {labelled:?}");
            let Some(ctx) = context() else { continue };
            let input = Tensor::from_slice(ctx, &x, &shape)?;
            let thresholds = Tensor::from_slice(ctx, &thresholds, &[2])?;
            let target = Tensor::from_slice(ctx, &labels, &labelled)?;
            let inputs = [("input", &input), ("thresholds", &thresholds), ("target", &target)];
            let got = loss.forward_backward_of(ctx, &inputs, &["input"])?;
            assert!((f64::from(got.loss()?) - want.loss()?).abs() < 1e-6);
            assert_eq!(got.grad("input")?.shape(), shape);
        }
    }
    Ok(())
}

#[test]
fn the_gradient_of_a_threshold_weight_is_a_number_where_a_logit_is_minus_infinity() -> wgloss::Result<()> {
    // Below the second threshold, whose probability is 0: nothing is lost there.
    let (x, weight, label) = ([0.0f32, f32::NEG_INFINITY], [1.0f32, 2.0], [1]);
    let host = [
        ("input", HostTensor::f32(&x, &[1, 2])),
        ("target", HostTensor::i32(&label, &[1])),
        ("weight", HostTensor::f32(&weight, &[2])),
    ];
    let loss = losses::coral();
    let out = cpu::forward_backward(&loss, &host, &["weight", "input"])?;
    assert!((out.loss()? - 2f64.ln()).abs() < 1e-12);
    assert_eq!((out.grad("weight")?[1], out.grad("input")?), (0.0, &[-0.5, 0.0][..]));
    let Some(ctx) = context() else { return Ok(()) };
    let (x, weight) = (Tensor::from_slice(ctx, &x, &[1, 2])?, Tensor::from_slice(ctx, &weight, &[2])?);
    let target = Tensor::from_slice(ctx, &label, &[1])?;
    let inputs = [("input", &x), ("target", &target), ("weight", &weight)];
    let out = loss.forward_backward_of(ctx, &inputs, &["weight"])?;
    assert_eq!(out.grad("weight")?.to_vec::<f32>()?[1], 0.0);
    Ok(())
}
