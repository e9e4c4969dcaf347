//! Lost devices and unfit buffers: an error from every call, at once; no panic, no call that seems to work.

use crate::common::context;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use wgloss::{Bindings, Bound, Context, DType, Error, Plan, PlanSpec, Tensor, TuneOptions, losses};

/// What a training loop holds when its device goes.
struct Held {
    ctx: Context,
    x: Tensor,
    bindings: Bindings,
    plan: Plan,
    bound: Bound,
}

impl Held {
    fn new() -> Held {
        let ctx = Context::new().unwrap();
        let x = Tensor::from_slice(&ctx, &[1.0f32, 2.0, 3.0, 4.0], &[4]).unwrap();
        let t = Tensor::zeros(&ctx, DType::F32, &[4]).unwrap();
        let bindings = Bindings::new().inputs(&[("input", &x), ("target", &t)]);
        let spec = PlanSpec::new().like(&[("input", &x), ("target", &t)]).grad("input");
        let plan = ctx.plan(&losses::huber(1.0), &spec).unwrap();
        let bound = plan.bind(&bindings).unwrap();
        bound.submit().unwrap();
        Held { ctx, x, bindings, plan, bound }
    }
}

fn is_lost<T>(what: &str, result: wgloss::Result<T>) {
    match result {
        Err(Error::Device { .. }) => {}
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what} seems to work on a lost device"),
    }
}

/// Every call that reaches the device.
fn every_call_is_an_error(held: &Held) {
    let Held { ctx, x, bindings, plan, bound } = held;
    let spec = PlanSpec::new().input("input", DType::F32, &[4]).input("target", DType::F32, &[4]);
    let pair = [("input", x), ("target", x)];
    is_lost("submit", bound.submit());
    is_lost("read_loss", bound.read_loss());
    is_lost("status of a plan with labels is a read; a loss too", bound.loss().unwrap().to_vec::<f32>());
    is_lost("a gradient", bound.grad("input").unwrap().to_vec::<f32>());
    is_lost("set_param", bound.set_param("delta", 2.0));
    is_lost("bind", plan.bind(bindings));
    is_lost("tune", plan.tune(&TuneOptions::new().candidates(1)));
    is_lost("plan, its kernels known", ctx.plan(&losses::huber(1.0), &spec.clone().grad("input")));
    is_lost("plan, its kernels new", ctx.plan(&losses::quantile(0.5), &spec));
    is_lost("forward", losses::huber(1.0).forward(ctx, &pair));
    is_lost("forward_backward", losses::mse().forward_backward(ctx, &pair));
    is_lost("to_vec", x.to_vec::<f32>());
    is_lost("to_array", x.to_array::<f32>());
    is_lost("read", pollster::block_on(x.read::<f32>(ctx)));
    is_lost("write", x.write(ctx, &[0.0f32; 4]));
    is_lost("from_slice", Tensor::from_slice(ctx, &[0.0f32; 4], &[4]));
    is_lost("zeros", Tensor::zeros(ctx, DType::F32, &[4]));
    is_lost("from_wgpu", Context::from_wgpu(ctx.device().clone(), ctx.queue().clone(), None));
}

#[test]
fn twenty_lost_devices_give_errors_only() {
    let Some(_) = context() else { return };
    let begin = std::time::Instant::now();
    for k in 0..20 {
        let held = Held::new();
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        held.ctx.device().set_device_lost_callback(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        // With work in flight, and without; seen by a poll already, and not yet.
        if k % 2 == 0 {
            held.bound.submit().unwrap();
        }
        held.ctx.device().destroy();
        if k % 4 > 1 {
            let _ = held.ctx.device().poll(wgpu::PollType::Poll);
        }
        every_call_is_an_error(&held);
        let _ = held.ctx.device().poll(wgpu::PollType::wait_indefinitely());
        assert_eq!(calls.load(Ordering::SeqCst), 1, "the caller's device-lost callback is the caller's");
    }
    assert!(begin.elapsed().as_secs() < 120, "{:?}", begin.elapsed());
}

#[test]
fn status_of_a_lost_device_is_an_error() {
    let Some(_) = context() else { return };
    let ctx = Context::new().unwrap();
    let x = Tensor::zeros(&ctx, DType::F32, &[2, 3]).unwrap();
    let y = Tensor::zeros(&ctx, DType::I32, &[2]).unwrap();
    let out = losses::cross_entropy().forward(&ctx, &[("input", &x), ("target", &y)]).unwrap();
    ctx.device().destroy();
    is_lost("status", pollster::block_on(out.bound().status()));
    is_lost("loss", out.loss());
}

#[test]
fn a_device_that_goes_while_others_work() {
    let Some(_) = context() else { return };
    let held = Held::new();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // Whatever the moment: a value, then errors.
                let fault = std::iter::repeat_with(|| {
                    held.bound.submit()?;
                    held.bound.read_loss()?;
                    held.x.write(&held.ctx, &[1.0f32; 4])
                });
                let error = fault.take(100_000).find_map(Result::err).expect("the device goes");
                assert!(matches!(error, Error::Device { .. }), "{error}");
            });
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        held.ctx.device().destroy();
    });
}

#[test]
fn destroyed_and_mapped_buffers_are_errors() {
    let Some(ctx) = context() else { return };
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let buffer = |mapped_at_creation: bool| {
        let descriptor = wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation };
        ctx.device().create_buffer(&descriptor)
    };
    let of = |buffer: &wgpu::Buffer| Tensor::from_buffer(ctx, buffer.clone(), 0, DType::F32, &[4]).unwrap();
    let x = Tensor::from_slice(ctx, &[1.0f32; 4], &[4]).unwrap();
    let spec = PlanSpec::new().like(&[("input", &x), ("target", &x)]).grad("input");
    let plan = ctx.plan(&losses::mse(), &spec).unwrap();
    let bind = |t: &Tensor, grad: &Tensor| {
        plan.bind(&Bindings::new().inputs(&[("input", &x), ("target", t)]).grad("input", grad))
    };

    // Destroyed before it is bound, and after.
    let [gone, later, grad, mapped] = [buffer(false), buffer(false), buffer(false), buffer(true)];
    let bound = bind(&of(&later), &of(&grad)).unwrap();
    bound.submit().unwrap();
    gone.destroy();
    is_lost("write to a destroyed buffer", of(&gone).write(ctx, &[0.0f32; 4]));
    is_lost("read of a destroyed buffer", of(&gone).to_vec::<f32>());
    is_lost("a destroyed input", bind(&of(&gone), &of(&grad)));
    is_lost("a destroyed gradient", bind(&x, &of(&gone)));
    later.destroy();
    is_lost("a step of what was destroyed", bound.submit());

    // Mapped: bound it may be, but neither used nor written nor read.
    is_lost("write to a mapped buffer", of(&mapped).write(ctx, &[0.0f32; 4]));
    is_lost("read of a mapped buffer", of(&mapped).to_vec::<f32>());
    let bound = bind(&of(&mapped), &of(&grad)).unwrap();
    is_lost("a step over a mapped buffer", bound.submit());
    mapped.unmap();
    bound.submit().unwrap();
    assert_eq!(bound.read_loss().unwrap(), 1.0);

    // A scalar input is copied, not bound.
    let task = buffer(false);
    let weighted = losses::mse().scaled_by("task");
    let scalar = Tensor::from_buffer(ctx, task.clone(), 0, DType::F32, &[]).unwrap();
    let inputs = [("input", &x), ("target", &x), ("task", &scalar)];
    assert_eq!(weighted.forward(ctx, &inputs).unwrap().loss().unwrap(), 0.0);
    task.destroy();
    is_lost("a destroyed scalar", weighted.forward(ctx, &inputs));

    // Lacking a usage.
    let descriptor =
        wgpu::BufferDescriptor { label: None, size: 16, usage: wgpu::BufferUsages::STORAGE, mapped_at_creation: false };
    let bare = of(&ctx.device().create_buffer(&descriptor));
    assert!(matches!(bare.write(ctx, &[0.0f32; 4]), Err(Error::Buffer { .. })));
    assert!(matches!(bare.to_vec::<f32>(), Err(Error::Buffer { .. })));
}
