//! Bad input: one test for each error, and nothing lost by it.

mod common;

use common::context;
use wgloss::loss::Value;
use wgloss::{Bindings, Context, DType, Error, PlanSpec, Reduction, Tensor, losses};

fn pair(ctx: &Context, shape: &[usize]) -> [Tensor; 2] {
    [Tensor::zeros(ctx, DType::F32, shape).unwrap(), Tensor::zeros(ctx, DType::F32, shape).unwrap()]
}

#[test]
fn shapes_that_do_not_broadcast() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[4, 3]).input("target", DType::F32, &[4, 5]);
    let error = ctx.plan(&losses::mse(), &spec).unwrap_err();
    assert!(matches!(&error, Error::Shape { input, .. } if input == "target"), "{error}");
    assert_eq!(error.to_string(), "shape of `target`: found [4, 5], expected a shape that broadcasts with [4, 3]");
    let spec = PlanSpec::new().input("input", DType::F32, &[4, 3]).input("target", DType::I32, &[5]);
    assert!(matches!(ctx.plan(&losses::cross_entropy(), &spec), Err(Error::Shape { .. })));
    let spec = PlanSpec::new().input("input", DType::F32, &[0, 3]).input("target", DType::F32, &[0, 3]);
    assert!(matches!(ctx.plan(&losses::mse(), &spec), Err(Error::Shape { .. })));
}

#[test]
fn an_empty_tensor_that_no_array_can_have_the_shape_of() {
    let Some(ctx) = context() else { return };
    let tensor = Tensor::zeros(ctx, DType::F32, &[0, 1 << 63]).unwrap();
    assert!(tensor.to_vec::<f32>().unwrap().is_empty());
    assert!(matches!(tensor.to_array::<f32>(), Err(Error::Shape { input, .. }) if input == "to_array"));
}

#[test]
fn labels_that_are_numbers() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[4, 3]).input("target", DType::F32, &[4]);
    let error = ctx.plan(&losses::cross_entropy(), &spec).unwrap_err();
    assert!(matches!(&error, Error::DType { input, .. } if input == "target"), "{error}");
    let tensor = Tensor::zeros(ctx, DType::I32, &[3]).unwrap();
    assert!(matches!(tensor.to_vec::<f32>(), Err(Error::DType { .. })));
}

#[test]
fn parameters_outside_their_domain() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[4]).input("target", DType::F32, &[4]);
    for delta in [-1.0, 0.0, f64::NAN, f64::INFINITY] {
        let error = ctx.plan(&losses::huber(delta), &spec).unwrap_err();
        assert!(matches!(&error, Error::Param { param, .. } if param == "delta"), "{error}");
    }
    assert!(matches!(losses::mse().label_smoothing(0.1).check(), Err(Error::Name { .. })));
    assert!(matches!(losses::cross_entropy().label_smoothing(1.5).check(), Err(Error::Param { .. })));
    assert!(matches!(losses::huber(1.0).option("delta", Value::Flag(true)).check(), Err(Error::Param { .. })));
}

#[test]
fn names_that_nobody_knows() {
    let Some(ctx) = context() else { return };
    let [x, t] = pair(ctx, &[4]);
    let spec = PlanSpec::new().like(&[("input", &x), ("target", &t)]);
    let wrong = spec.clone().input("logits", DType::F32, &[4]);
    assert!(matches!(ctx.plan(&losses::mse(), &wrong), Err(Error::Name { name, .. }) if name == "logits"));
    assert!(matches!(ctx.plan(&losses::mse(), &spec.clone().grad("logits")), Err(Error::Name { .. })));
    assert!(matches!(ctx.plan(&losses::mse(), &PlanSpec::new().like(&[("input", &x)])), Err(Error::Name { .. })));
    let plan = ctx.plan(&losses::mse(), &spec).unwrap();
    assert!(
        matches!(plan.bind(&Bindings::new().input("input", &x)), Err(Error::Name { name, .. }) if name == "target")
    );
    let bound = plan.bind(&Bindings::new().inputs(&[("input", &x), ("target", &t)])).unwrap();
    assert!(matches!(bound.grad("input"), Err(Error::Name { .. })));
}

#[test]
fn a_label_out_of_range_poisons_its_row_alone_and_is_told_once() {
    let Some(ctx) = context() else { return };
    let x: Vec<f32> = (0..5 * 4).map(|k| k as f32 / 7.0).collect();
    let x = Tensor::from_slice(ctx, &x, &[5, 4]).unwrap();
    for (bad, dtype) in
        [(4i64, DType::I32), (-1, DType::I32), (i64::from(i32::MIN), DType::I32), (4_000_000_000, DType::U32)]
    {
        let labels: Vec<u32> = [0u32, 1, bad as u32, 3, bad as u32].to_vec();
        let y = Tensor::zeros(ctx, dtype, &[5]).unwrap();
        ctx.queue().write_buffer(y.buffer(), 0, bytemuck::cast_slice(&labels));
        let weight = Tensor::from_slice(ctx, &[1.0f32, 2.0, 0.5, 1.5], &[4]).unwrap();
        for weighted in [false, true] {
            let mut inputs = vec![("input", &x), ("target", &y)];
            if weighted {
                inputs.push(("weight", &weight));
            }
            let out = losses::cross_entropy().forward_backward(ctx, &inputs).unwrap();
            let error = out.loss().unwrap_err();
            assert_eq!(error, Error::LabelOutOfRange { row: 2, label: bad, classes: 4 });
            assert!(out.loss().unwrap().is_nan(), "the status was cleared; the loss is NaN, not 0");
            let grad = out.grad("input").unwrap().to_vec::<f32>().unwrap();
            for (k, g) in grad.iter().enumerate() {
                assert_eq!(
                    g.is_nan(),
                    k / 4 == 2 || k / 4 == 4,
                    "element {k} is {g}, label {bad}, weighted {weighted}"
                );
            }
        }
    }
}

#[test]
fn outputs_that_overlap_what_is_read() {
    let Some(ctx) = context() else { return };
    let [x, t] = pair(ctx, &[64]);
    let plan = ctx.plan(&losses::mse(), &PlanSpec::new().like(&[("input", &x), ("target", &t)]).grad("input")).unwrap();
    let bindings = Bindings::new().inputs(&[("input", &x), ("target", &t)]);
    let error = plan.bind(&bindings.clone().grad("input", &t)).unwrap_err();
    assert!(matches!(&error, Error::Alias { first, .. } if first == "target"), "{error}");
    let half = x.view(0, &[64], &[0]).unwrap();
    assert!(matches!(plan.bind(&bindings.grad("input", &half)), Err(Error::Buffer { .. })));
}

#[test]
fn tensors_larger_than_the_device_allows() {
    let Some(ctx) = context() else { return };
    // One sample that no binding holds, classes at axis 1; otherwise tensors are cut between rows, and rows in parts.
    let pixels = usize::try_from(ctx.limits().binding_bytes / 8 + 1000).unwrap();
    let spec = PlanSpec::new().input("input", DType::F32, &[1, 4, pixels]).input("target", DType::I32, &[1, pixels]);
    let spec = spec.grad("input");
    let error = ctx.plan(&losses::cross_entropy(), &spec).unwrap_err();
    assert!(matches!(&error, Error::Limit { what, .. } if what.contains("`input`")), "{error}");
    let bytes = ctx.limits().buffer_bytes;
    let too_large = Tensor::zeros(ctx, DType::F32, &[usize::try_from(bytes / 4 + 1).unwrap()]);
    assert!(matches!(too_large, Err(Error::Limit { .. } | Error::OutOfMemory { .. })));
    // Sizes that no 64-bit count holds.
    let shapes = [&[1usize << 62][..], &[usize::MAX], &[1 << 40, 1 << 40]];
    for shape in shapes {
        for dtype in [DType::F32, DType::BF16] {
            assert!(matches!(Tensor::zeros(ctx, dtype, shape), Err(Error::Limit { .. })), "{shape:?}");
        }
        assert!(matches!(Tensor::from_slice(ctx, &[1.0f32], shape), Err(Error::Shape { .. })), "{shape:?}");
    }
    let [x, _] = pair(ctx, &[4]);
    assert!(matches!(x.view(u64::MAX, &[1], &[1]), Err(Error::Buffer { .. })));
    assert!(matches!(x.view(1, &[2], &[usize::MAX]), Err(Error::Buffer { .. })));
    let repeated = x.view(0, &[1 << 61], &[0]).unwrap();
    assert!(matches!(repeated.to_vec::<f32>(), Err(Error::OutOfMemory { .. })));
    // The context goes on.
    let [x, t] = pair(ctx, &[4]);
    assert_eq!(losses::mse().forward(ctx, &[("input", &x), ("target", &t)]).unwrap().loss().unwrap(), 0.0);
}

#[test]
fn buffers_that_are_too_small_or_lack_a_usage() {
    let Some(ctx) = context() else { return };
    let buffer = |usage: wgpu::BufferUsages| {
        ctx.device().create_buffer(&wgpu::BufferDescriptor { label: None, size: 64, usage, mapped_at_creation: false })
    };
    let storage = buffer(wgpu::BufferUsages::STORAGE);
    assert!(matches!(Tensor::from_buffer(ctx, storage.clone(), 0, DType::F32, &[17]), Err(Error::Buffer { .. })));
    assert!(matches!(Tensor::from_buffer(ctx, storage.clone(), 10, DType::F32, &[8]), Err(Error::Buffer { .. })));
    let copy = buffer(wgpu::BufferUsages::COPY_DST);
    assert!(matches!(Tensor::from_buffer(ctx, copy, 0, DType::F32, &[4]), Err(Error::Buffer { .. })));
    let tensor = Tensor::from_buffer(ctx, storage, 0, DType::F32, &[4]).unwrap();
    assert!(matches!(pollster::block_on(tensor.read::<f32>(ctx)), Err(Error::Buffer { .. })));
    assert!(matches!(Tensor::from_slice(ctx, &[1.0f32; 5], &[2, 3]), Err(Error::Shape { .. })));
}

#[test]
fn reductions_without_what_they_divide_by() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[4]).input("target", DType::F32, &[4]);
    let loss = losses::mse().reduction(Reduction::MeanWithSampleWeight);
    assert!(matches!(ctx.plan(&loss, &spec), Err(Error::Name { name, .. }) if name == "sample_weight"));
}

#[test]
fn no_adapter_says_how_to_get_one() {
    // In a process of its own: the backends are read from the environment.
    if std::env::var_os("WGLOSS_TEST_NO_ADAPTER").is_some() {
        let error = Context::new().unwrap_err();
        assert!(matches!(&error, Error::NoAdapter { message } if message.contains("mesa-vulkan-drivers")), "{error}");
        return;
    }
    let test = std::env::current_exe().unwrap();
    let run = std::process::Command::new(test)
        .args(["--exact", "no_adapter_says_how_to_get_one"])
        .env("WGLOSS_TEST_NO_ADAPTER", "1")
        .env("WGPU_BACKEND", "dx12,metal")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}
