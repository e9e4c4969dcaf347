//! Labels out of range: the right row and label are told, of whatever is read first, and told until somebody heard it.

use crate::common::context;
use wgloss::loss::RowAxis;
use wgloss::{
    Bindings, Context, DType, Error, HostTensor, Loss, Output, PlanSpec, Reduction, Scope, Tensor, cpu, losses,
};

fn status(out: &Output) -> Result<(), Error> {
    pollster::block_on(out.bound().status())
}

fn is(error: Result<(), Error>, row: u64, label: i64, classes: u64) {
    assert_eq!(error, Err(Error::LabelOutOfRange { row, label, classes }));
}

/// −x at the label, `name`: one loss a row.
fn gathers(name: &str, label: &str) -> Loss {
    let label = label.to_owned();
    Loss::define(name).input("input", Scope::Element).label(&label.clone()).row_axis(RowAxis::Class).expr(move |b| {
        let valid = !b.label_is(&label, -100);
        (-b.input("input").at(b.input(&label))).masked(valid)
    })
}

#[test]
fn the_label_of_a_broadcast_row_is_the_rows() {
    let Some(ctx) = context() else { return };
    let x: Vec<f32> = (0..7 * 3 * 2).map(|k| (k % 5) as f32).collect();
    let cpu_x = HostTensor::f32(&x, &[7, 3, 2]);
    let x = Tensor::from_slice(ctx, &x, &[7, 3, 2]).unwrap();
    // The fifth sample's label is bad: its rows are 8 and 9 of 14.
    let labels = [0i32, 1, 2, 0, 77, 1, 2];
    let y = Tensor::from_slice(ctx, &labels, &[7, 1]).unwrap();
    let out = losses::cross_entropy().broadcast(true).forward(ctx, &[("input", &x), ("target", &y)]).unwrap();
    is(status(&out), 8, 77, 3);
    let found = cpu::forward_backward(
        &losses::cross_entropy().broadcast(true),
        &[("input", cpu_x), ("target", HostTensor::i32(&labels, &[7, 1]))],
        &[],
    );
    assert_eq!(found.unwrap().loss().unwrap_err(), Error::LabelOutOfRange { row: 8, label: 77, classes: 3 });
    // One for all samples, by position; and strided, from an offset.
    let by_position = Tensor::from_slice(ctx, &[1i32, -5], &[1, 2]).unwrap();
    let out = losses::cross_entropy().broadcast(true).forward(ctx, &[("input", &x), ("target", &by_position)]).unwrap();
    is(status(&out), 1, -5, 3);
    let wide: Vec<i32> = (0..3 + 7 * 4).map(|k| if k == 3 + 5 * 4 { 9 } else { k % 3 }).collect();
    let wide = Tensor::from_slice(ctx, &wide, &[wide.len()]).unwrap();
    let strided = wide.view(3, &[7, 1], &[4, 1]).unwrap();
    let out = losses::cross_entropy().broadcast(true).forward(ctx, &[("input", &x), ("target", &strided)]).unwrap();
    is(status(&out), 10, 9, 3);
}

#[test]
fn a_label_that_cannot_be_read_is_reported_all_the_same() {
    let Some(ctx) = context() else { return };
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false };
    let buffer = ctx.device().create_buffer(&descriptor);
    let y = Tensor::from_buffer(ctx, buffer.clone(), 0, DType::I32, &[3]).unwrap();
    ctx.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(&[0i32, 1, 4, 0]));
    let x = Tensor::zeros(ctx, DType::F32, &[3, 4]).unwrap();
    let out = losses::cross_entropy().forward_backward(ctx, &[("input", &x), ("target", &y)]).unwrap();
    let error = out.loss().unwrap_err();
    assert_eq!(error, Error::LabelOutOfRange { row: 2, label: Error::UNKNOWN_LABEL, classes: 4 });
    assert!(error.to_string().starts_with("a label (not known which) in row 2"), "{error}");
    assert!(out.loss().unwrap().is_nan(), "it was reported");
    // Destroyed since, or overwritten with a label that is none the worse.
    out.bound().submit().unwrap();
    buffer.destroy();
    is(status(&out), 2, Error::UNKNOWN_LABEL, 4);
    let y = Tensor::from_slice(ctx, &[0i32, 9, 1], &[3]).unwrap();
    let out = losses::cross_entropy().forward(ctx, &[("input", &x), ("target", &y)]).unwrap();
    y.write(ctx, &[0i32, 2, 1]).unwrap();
    is(status(&out), 1, Error::UNKNOWN_LABEL, 4);
}

#[test]
fn whatever_is_read_first_reports_it_once() {
    let Some(ctx) = context() else { return };
    let x = Tensor::from_slice(ctx, &[0.5f32; 12], &[3, 4]).unwrap();
    let y = Tensor::from_slice(ctx, &[0i32, 4, 1], &[3]).unwrap();
    let inputs = [("input", &x), ("target", &y)];
    let want = Error::LabelOutOfRange { row: 1, label: 4, classes: 4 };
    let loss = losses::cross_entropy();
    let out = loss.forward_backward(ctx, &inputs).unwrap();
    assert_eq!(out.grad("input").unwrap().to_vec::<f32>().unwrap_err(), want);
    let grad = out.grad("input").unwrap().to_vec::<f32>().unwrap();
    assert!(grad[4..8].iter().all(|g| g.is_nan()) && grad[..4].iter().all(|g| g.is_finite()), "{grad:?}");
    // A view of it, an array of it, an extra output, a gradient without the loss: of one step each.
    let spec = PlanSpec::new().grad("input").extra("logsumexp").extra("predicted");
    let out = loss.run(ctx, &inputs, &spec).unwrap();
    let step = |read: &dyn Fn() -> Option<Error>| {
        out.bound().submit().unwrap();
        assert_eq!(read(), Some(want.clone()));
        assert_eq!(status(&out), Ok(()));
    };
    step(&|| out.grad("input").unwrap().view(0, &[2], &[1]).unwrap().to_vec::<f32>().err());
    step(&|| out.grad("input").unwrap().to_array::<f32>().err());
    step(&|| out.extra("predicted").unwrap().to_vec::<f32>().err());
    step(&|| out.bound().read::<f32>(out.bound().extra("logsumexp").unwrap()).err());
    step(&|| out.bound().read::<f32>(out.bound().grad("input").unwrap()).err());
    step(&|| pollster::block_on(out.loss_tensor().unwrap().read::<f32>(ctx)).err());
    step(&|| pollster::block_on(out.bound().read_loss_async()).err());
    // The tensor that the caller bound is the caller's: it knows of no step. A bound plan reads with its status.
    let d_x = Tensor::zeros(ctx, DType::F32, &[3, 4]).unwrap();
    let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("input")).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs).grad("input", &d_x)).unwrap();
    bound.submit().unwrap();
    assert!(d_x.to_vec::<f32>().unwrap()[4].is_nan());
    assert!(bound.grad("input").unwrap().to_vec::<f32>().unwrap()[4].is_nan());
    assert_eq!(bound.read::<f32>(&d_x).unwrap_err(), want);
    assert!(bound.read::<f32>(&d_x).unwrap()[4].is_nan());
}

#[test]
fn of_several_labels_the_bad_one_is_named() {
    let Some(ctx) = context() else { return };
    let x = Tensor::from_slice(ctx, &[0.5f32; 12], &[3, 4]).unwrap();
    let run = |ctx: &Context, first: [i32; 3], second: [i32; 3]| {
        let sum = gathers("first", "a").reduction(Reduction::Sum) + gathers("second", "b").reduction(Reduction::Sum);
        let [a, b] = [first, second].map(|labels| Tensor::from_slice(ctx, &labels, &[3]).unwrap());
        let out = sum.forward(ctx, &[("input", &x), ("a", &a), ("b", &b)]).unwrap();
        status(&out)
    };
    is(run(ctx, [0, 1, 2], [0, 55, 2]), 1, 55, 4);
    is(run(ctx, [0, 1, 66], [0, 1, 2]), 2, 66, 4);
    // Ignored by the one, bad in the other.
    is(run(ctx, [-100, 1, 2], [77, 1, 2]), 0, 77, 4);
    // One label is compared only: it may be anything.
    let compared = Loss::define("compared")
        .input("input", Scope::Element)
        .label("kind")
        .label("target")
        .row_axis(RowAxis::Class)
        .expr(|b| b.input("input").at(b.input("target")).masked(!b.label_is("kind", 3)));
    let kind = Tensor::from_slice(ctx, &[1000i32, 1001, 1002], &[3]).unwrap();
    let target = Tensor::from_slice(ctx, &[0i32, 1, 88], &[3]).unwrap();
    let out = compared.forward(ctx, &[("input", &x), ("kind", &kind), ("target", &target)]).unwrap();
    is(status(&out), 2, 88, 4);
}
