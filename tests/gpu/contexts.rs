//! Tensors of another context, and buffers of another device, are refused: never taken for what lies at their place.

use crate::common::context;
use wgloss::{Bindings, Context, DType, Error, GradMode, PlanSpec, Tensor, losses};

/// A context with a device of an instance of its own: wgpu numbers the buffers of each instance from 0.
fn another() -> Context {
    Context::new().unwrap()
}

/// Two devices of one instance, the adapter being that of the other tests.
fn siblings(ctx: &Context) -> [Context; 2] {
    let info = ctx.adapter_info().unwrap();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::from(info.backend)));
    let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name == info.name).unwrap();
    [(); 2].map(|()| {
        let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
        Context::from_wgpu(device, queue, Some(&adapter)).unwrap()
    })
}

fn refused<T: std::fmt::Debug>(what: &str, result: wgloss::Result<T>) {
    let error = result.expect_err(what);
    assert!(matches!(&error, Error::Buffer { message, .. } if message.contains("another context")), "{what}: {error}");
}

#[test]
fn tensors_of_another_context_are_refused() {
    let Some(ctx) = context() else { return };
    let other = another();
    let of = |ctx: &Context, value: f32| Tensor::from_slice(ctx, &[value; 4], &[4]).unwrap();
    let [x, t] = [of(ctx, 1.0), of(ctx, 0.0)];
    let [their_x, their_t] = [of(&other, 5.0), of(&other, 2.0)];
    refused("forward", losses::mse().forward(ctx, &[("input", &their_x), ("target", &their_t)]).map(drop));
    refused("one of two", losses::mse().forward(ctx, &[("input", &x), ("target", &their_t)]).map(drop));
    refused("write", their_x.write(ctx, &[7.0f32; 4]));
    refused("a view", their_x.view(0, &[2], &[1]).unwrap().write(ctx, &[7.0f32; 2]));
    refused("read", pollster::block_on(their_x.read::<f32>(ctx)));

    let spec = PlanSpec::new().like(&[("input", &x), ("target", &t)]).extra("e").grad("input");
    let extra = wgloss::Loss::define("with_extra")
        .input("input", wgloss::Scope::Element)
        .input("target", wgloss::Scope::Element)
        .extra("e", |b| b.input("input").sum_over(wgloss::Scope::Total))
        .expr(|b| b.input("input") * b.input("target"));
    let plan = ctx.plan(&extra, &spec).unwrap();
    let inputs = Bindings::new().inputs(&[("input", &x), ("target", &t)]);
    let scalar = Tensor::zeros(&other, DType::F32, &[]).unwrap();
    refused("a gradient", plan.bind(&inputs.clone().grad("input", &their_x)).map(drop));
    refused("the loss", plan.bind(&inputs.clone().loss(&scalar)).map(drop));
    refused("an extra output", plan.bind(&inputs.clone().extra("e", &scalar)).map(drop));
    let over = PlanSpec::new().like(&[("input", &x), ("target", &t)]).grad_mode("input", GradMode::InPlace);
    let over = ctx.plan(&losses::mse(), &over).unwrap();
    refused("in place", over.bind(&Bindings::new().inputs(&[("input", &their_x), ("target", &t)])).map(drop));
    // Nothing was overwritten, and clones of a context are that context.
    assert_eq!(their_x.to_vec::<f32>().unwrap(), [5.0; 4]);
    assert_eq!(x.to_vec::<f32>().unwrap(), [1.0; 4]);
    let clone = ctx.clone();
    assert_eq!(losses::mse().forward(&clone, &[("input", &x), ("target", &t)]).unwrap().loss().unwrap(), 1.0);
}

#[test]
fn what_a_caller_vouches_for_is_read_without_naming_the_context() {
    let Some(ctx) = context() else { return };
    let owned = Tensor::from_slice(ctx, &[1.0f32, 2.0, 3.0, 4.0], &[4]).unwrap();
    let again = Tensor::from_buffer(ctx, owned.buffer().clone(), 1, DType::F32, &[3]).unwrap();
    assert_eq!(again.to_vec::<f32>().unwrap(), [2.0, 3.0, 4.0]);
    // Two contexts of one device: the caller says that it is one.
    let theirs = Context::from_wgpu(ctx.device().clone(), ctx.queue().clone(), None).unwrap();
    refused("not said", losses::l1_penalty(1.0).forward(&theirs, &[("w", &again)]).map(drop));
    let said = Tensor::from_buffer(&theirs, owned.buffer().clone(), 1, DType::F32, &[3]).unwrap();
    let out = losses::l1_penalty(1.0).forward(&theirs, &[("w", &said)]).unwrap();
    assert_eq!(out.loss().unwrap(), 9.0);
}

#[test]
fn buffers_of_another_device_of_the_instance_are_errors() {
    let Some(ctx) = context() else { return };
    let [ours, theirs] = siblings(ctx);
    let buffer = Tensor::from_slice(&theirs, &[1.0f32; 4], &[4]).unwrap().buffer().clone();
    // Vouched for, and wrongly so.
    let wrong = Tensor::from_buffer(&ours, buffer, 0, DType::F32, &[4]).unwrap();
    let x = Tensor::zeros(&ours, DType::F32, &[4]).unwrap();
    let failed = |what: &str, error: Option<Error>| {
        assert!(matches!(error, Some(Error::Device { .. } | Error::Buffer { .. })), "{what}: {error:?}");
    };
    failed("write", wrong.write(&ours, &[1.0f32; 4]).err());
    failed("read", wrong.to_vec::<f32>().err());
    failed("an input", losses::mse().forward(&ours, &[("input", &x), ("target", &wrong)]).err());
    let scalar = wrong.view(0, &[], &[]).unwrap();
    let weighted = losses::mse().scaled_by("task");
    let inputs = [("input", &x), ("target", &x), ("task", &scalar)];
    failed("a scalar, which is copied", weighted.forward(&ours, &inputs).err());
    let plan = ours.plan(&losses::mse(), &PlanSpec::new().like(&[("input", &x), ("target", &x)]).grad("input"));
    let bindings = Bindings::new().inputs(&[("input", &x), ("target", &x)]).grad("input", &wrong);
    failed("a gradient", plan.unwrap().bind(&bindings).err());
    // Both go on.
    for ctx in [&ours, &theirs] {
        let x = Tensor::from_slice(ctx, &[3.0f32; 4], &[4]).unwrap();
        assert_eq!(losses::l2_penalty(1.0).forward(ctx, &[("w", &x)]).unwrap().loss().unwrap(), 18.0);
    }
}
