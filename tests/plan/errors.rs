//! Bad input: one test for each error, and nothing lost by it.

use crate::common::context;
use wgloss::Layout;
use wgloss::Wanted;
use wgloss::{
    Bindings, Context, CpuPlan, DType, Error, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor,
    TuneOptions, cpu, losses,
};

fn pair(ctx: &Context, shape: &[usize]) -> [Tensor; 2] {
    [Tensor::zeros(ctx, DType::F32, shape).unwrap(), Tensor::zeros(ctx, DType::F32, shape).unwrap()]
}

#[test]
fn shapes_that_do_not_fit() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[4, 3]).input("target", DType::F32, &[4, 5]);
    let error = ctx.plan(&losses::mse(), &spec).unwrap_err();
    assert!(matches!(&error, Error::Shape { input, .. } if input == "target"), "{error}");
    assert_eq!(error.to_string(), "shape of `target`: found [4, 5], expected [4, 3], that of `input`");
    let spec = PlanSpec::new().input("input", DType::F32, &[4, 3]).input("target", DType::I32, &[5]);
    assert!(matches!(ctx.plan(&losses::cross_entropy(), &spec), Err(Error::Shape { .. })));
    let spec = PlanSpec::new().input("input", DType::F32, &[4, 3]).input("target", DType::F32, &[4, 5]);
    let error = ctx.plan(&losses::mse().broadcast(true), &spec).unwrap_err();
    assert_eq!(error.to_string(), "shape of `target`: found [4, 5], expected a shape that broadcasts with [4, 3]");
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
    assert!(matches!(losses::mse().option("label_smoothing", 0.1).check(), Err(Error::Name { .. })));
    assert!(matches!(losses::cross_entropy().label_smoothing(1.5).check(), Err(Error::Param { .. })));
    assert!(matches!(Loss::from(losses::huber(1.0)).option("delta", true).check(), Err(Error::Param { .. })));
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
    // The states of its rows, and a gradient that is kept in f32 until it is narrowed (classes at axis 1, an odd number of
    // pixels), must fit a binding; the tensors themselves are cut between rows and between classes.
    let pixels = usize::try_from(ctx.limits().binding_bytes / 8 + 1001).unwrap();
    let holds_more = ctx.limits().buffer_bytes >= 2 * ctx.limits().binding_bytes;
    for (dtype, which) in [(DType::F32, "workspace"), (DType::BF16, "kept in f32")].into_iter().filter(|_| holds_more) {
        let spec = PlanSpec::new().input("input", dtype, &[1, 3, pixels]).input("target", DType::I32, &[1, pixels]);
        let error = ctx.plan(&losses::cross_entropy(), &spec.grad("input")).unwrap_err();
        assert!(matches!(&error, Error::Limit { what, .. } if what.contains(which)), "{error}");
    }
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
        .args(["--exact", "errors::no_adapter_says_how_to_get_one"])
        .env("WGLOSS_TEST_NO_ADAPTER", "1")
        .env("WGPU_BACKEND", "dx12,metal")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && told.contains("1 passed"), "{told}");
}

#[test]
fn sizes_and_strides_that_wrap_around_are_errors_before_anything_is_encoded() {
    let Some(ctx) = context() else { return };
    let layout = |shape: &[usize], strides: &[usize]| Layout { shape: shape.to_vec(), strides: strides.to_vec() };
    // 2⁶² elements times 4 bytes are 0; so are 2⁶³ of 2 bytes; sums of products of them wrap as well.
    for stride in [1usize << 60, 1 << 61, 1 << 62, 1 << 63, usize::MAX, (1 << 62) + 1] {
        for (shape, strides) in [([3, 4], [stride, 1]), ([4, 5], [1, stride]), ([2, 2], [stride, stride])] {
            for dtype in [DType::F32, DType::BF16] {
                let spec = PlanSpec::new().input_with("input", dtype, layout(&shape, &strides)).grad("input");
                let elements = spec.clone().input("target", DType::F32, &shape);
                let error = ctx.plan(&losses::mse(), &elements).unwrap_err();
                assert!(matches!(&error, Error::Limit { .. }), "{shape:?} {strides:?}: {error}");
                let rows = spec.input("target", DType::I32, &shape[..1]);
                for spec in [rows.clone(), rows.separate_backward()] {
                    let error = ctx.plan(&losses::cross_entropy(), &spec).unwrap_err();
                    assert!(matches!(&error, Error::Limit { .. }), "{shape:?} {strides:?}: {error}");
                }
            }
        }
        let data = [1.0f32; 4];
        let far = HostTensor::f32(&data, &[2, 2]).with_strides(&[stride, 1]);
        let near = HostTensor::f32(&data, &[2, 2]);
        let error = cpu::forward_backward(&losses::mse(), &[("input", far), ("target", near)], &["input"]);
        assert!(matches!(error, Err(Error::Buffer { .. })), "{error:?}");
    }
    // The step along an axis of one index counts for nothing.
    let spec = PlanSpec::new().input_with("input", DType::F32, layout(&[1, 4], &[usize::MAX, 1]));
    assert!(ctx.plan(&losses::mse(), &spec.input("target", DType::F32, &[1, 4])).is_ok());
}

#[test]
fn broadcast_elements_beyond_any_memory_are_errors() {
    let one = [1.0f32];
    let many = |shape: &[usize]| HostTensor::f32(&one, shape).with_strides(&vec![0; shape.len()]);
    // Elements by themselves; rows; rows of classes before them.
    for (loss, shape) in [
        (losses::mse(), vec![1 << 45]),
        (losses::mse(), vec![1 << 22, 1 << 23]),
        (losses::kl_div().into(), vec![1 << 59]),
        (losses::log_cosh(), vec![1 << 40, 32]),
    ] {
        let [first, second] = [0, 1].map(|place| loss.inputs()[place].name.clone());
        let inputs = [(first.as_str(), many(&shape)), (second.as_str(), many(&shape))];
        let wrt = loss.differentiable().unwrap();
        for reduction in [Reduction::Mean, Reduction::None] {
            for grads in [vec![], vec![wrt.clone()]] {
                let loss = loss.clone().reduction(reduction.clone());
                let wanted = Wanted { loss: true, grads, ..Wanted::default() };
                let error = cpu::run::<f64>(&loss, &inputs, &wanted).unwrap_err();
                assert!(matches!(&error, Error::OutOfMemory { .. }), "{shape:?}: {error}");
            }
        }
        let Some(ctx) = context() else { continue };
        let zeros = Layout { strides: vec![0; shape.len()], shape: shape.clone() };
        let spec = PlanSpec::new().input_with(&first, DType::F32, zeros.clone());
        let spec = spec.input_with(&second, DType::F32, zeros);
        let error = ctx.plan(&loss, &spec).unwrap_err();
        assert!(matches!(&error, Error::Limit { .. }), "{shape:?}: {error}");
        assert!(ctx.plan(&loss, &spec.grad(&wrt)).is_err());
    }
    // A gradient that is summed to one value takes as many on the way.
    let small = [0.5f32];
    let inputs = [("input", many(&[1 << 45])), ("target", HostTensor::f32(&small, &[1]))];
    let wanted = Wanted { grads: vec!["target".to_owned()], ..Wanted::default() };
    let plan = CpuPlan::<f32>::new(&losses::mse().broadcast(true), &inputs, &wanted).unwrap();
    assert!(matches!(plan.run(&inputs, &mut plan.output()), Err(Error::OutOfMemory { .. })));
}

#[test]
fn parameters_that_no_kernel_sees_as_they_are() {
    let Some(ctx) = context() else { return };
    let labelled = PlanSpec::new().input("input", DType::F32, &[2, 3]).input("target", DType::I32, &[2]);
    let elements = PlanSpec::new().input("input", DType::F32, &[4]).input("target", DType::F32, &[4]);
    let ce = losses::cross_entropy;
    let refused: [(Loss, _); 13] = [
        (ce().temperature(1e-50).into(), &labelled),
        (ce().temperature(1e39).into(), &labelled),
        (ce().softcap(1e39).into(), &labelled),
        (ce().logit_scale(1e-42).into(), &labelled),
        (ce().label_smoothing(1e-40).into(), &labelled),
        (ce().entropy_bonus(-1e39).into(), &labelled),
        (losses::softcap_cross_entropy(1e300).into(), &labelled),
        (losses::smooth_l1(1e-42).into(), &elements),
        (losses::huber(1e-38).into(), &elements),
        (losses::quantile(1e-320).into(), &elements),
        (1e39 * losses::mse(), &elements),
        (losses::mse() * 1e-46, &elements),
        (1e25 * (1e25 * losses::mse()) + losses::l1(), &elements),
    ];
    for (loss, spec) in refused {
        let error = ctx.plan(&loss, spec).unwrap_err();
        assert!(matches!(&error, Error::Param { allowed, .. } if allowed.contains("e-38")), "{error}");
        let x = [0.5f32; 6];
        let inputs = [("input", HostTensor::f32(&x, &[2, 3])), ("target", HostTensor::i32(&[0, 1], &[2]))];
        assert_eq!(cpu::forward_backward(&loss, &inputs, &[]).unwrap_err(), error, "one rule");
    }
    let x = Tensor::from_slice(ctx, &[3.0f32, -0.5, 0.0, 1.0], &[4]).unwrap();
    let t = Tensor::zeros(ctx, DType::F32, &[4]).unwrap();
    let inputs = [("input", &x), ("target", &t)];
    let loss = 2.0 * losses::huber(1.0) + losses::smooth_l1(1.0);
    let bound = ctx.plan(&loss, &elements.grad("input")).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
    for (name, value) in [
        ("huber.delta", 1e39),
        ("huber.delta", 1e-45),
        ("smooth_l1.beta", 1e-42),
        ("huber.weight", 1e39),
        ("huber.weight", -1e-41),
        ("huber.weight", f64::INFINITY),
    ] {
        let error = bound.set_param(name, value).unwrap_err();
        assert!(matches!(&error, Error::Param { .. }), "{name} = {value:e}: {error}");
    }
    // The edges are inside.
    for value in [f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX)] {
        bound.set_param("huber.weight", value).unwrap();
        bound.set_param("huber.delta", value).unwrap();
    }
    bound.set_param("huber.weight", 0.0).unwrap();
    bound.submit().unwrap();
    assert!(bound.read_loss().unwrap().is_finite());
}

#[test]
fn literals_that_no_kernel_sees_as_they_are() {
    let spec = PlanSpec::new().input("x", DType::F32, &[2, 3]).input("y", DType::I32, &[2]);
    let labelled = |index: i64| {
        let definition = Loss::define("own").row_axis(RowAxis::Class).input("x", Scope::Element).label("y");
        definition.expr(move |b| b.input("x").sum().masked(b.input("y").equals(b.graph().index(index))))
    };
    let scaled = |factor: f64| {
        let definition = Loss::define("own").row_axis(RowAxis::Class).input("x", Scope::Element).label("y");
        definition.expr(move |b| b.input("x").at(b.input("y")) * factor)
    };
    let x = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let host = [("x", HostTensor::f32(&x, &[2, 3])), ("y", HostTensor::i32(&[0, 2], &[2]))];
    let wrong = |loss: &Loss| {
        let error = cpu::forward_backward(loss, &host, &[]).unwrap_err();
        assert!(matches!(&error, Error::Expr { .. }), "{error}");
        if let Some(ctx) = context() {
            assert_eq!(ctx.plan(loss, &spec).unwrap_err(), error);
        }
    };
    for index in [1i64 << 32, (1 << 32) + 2, i64::MAX, i64::MIN, i64::from(i32::MIN) - 1] {
        wrong(&labelled(index));
    }
    for factor in [1e39, -1e300, 1e-40, 5e-324] {
        wrong(&scaled(factor));
    }
    let right = [labelled(u32::MAX.into()), labelled(i32::MIN.into()), scaled(f64::INFINITY), scaled(0.0)];
    assert!(right.iter().all(|loss| cpu::forward_backward(loss, &host, &[]).is_ok()));
    // Whatever is ignored, no label is: an option is no literal.
    let ignored = losses::cross_entropy().ignore_index(1 << 32);
    let inputs = [("input", host[0].1.clone()), ("target", host[1].1.clone())];
    assert!(cpu::forward_backward(&ignored, &inputs, &[]).is_ok());
}

#[test]
fn an_index_that_no_label_can_be_equals_none() {
    let loss = |index: i64| {
        let definition = Loss::define("own").row_axis(RowAxis::Class).input("x", Scope::Element).label("y");
        let loss = definition.expr(move |b| {
            let found = b.input("y").equals(b.graph().index(index));
            found.select(b.input("x").sum(), 0.0)
        });
        loss.reduction(Reduction::Sum)
    };
    let x = [1.0f32, 2.0, 4.0];
    // In bits, -1 is the largest u32, and 2³² - 2 is -2.
    let signed = [-1i32, -2, 2];
    let unsigned = [u32::MAX, u32::MAX - 1, 2];
    for index in [-1i64, -2, 2, i64::from(u32::MAX), i64::from(u32::MAX) - 1, 7] {
        let want = |labels: &[i64]| -> f64 {
            labels.iter().zip(x).filter(|(label, _)| **label == index).map(|(_, x)| f64::from(x)).sum()
        };
        let wanted = [want(&signed.map(i64::from)), want(&unsigned.map(i64::from))];
        let xs = HostTensor::f32(&x, &[3, 1]);
        for (labels, want) in [HostTensor::i32(&signed, &[3]), HostTensor::u32(&unsigned, &[3])].into_iter().zip(wanted)
        {
            let out = cpu::forward_backward(&loss(index), &[("x", xs.clone()), ("y", labels)], &["x"]).unwrap();
            assert_eq!(out.loss().unwrap(), want, "{index} on the CPU");
        }
        let Some(ctx) = context() else { continue };
        let xs = Tensor::from_slice(ctx, &x, &[3, 1]).unwrap();
        let ys = [Tensor::from_slice(ctx, &signed, &[3]).unwrap(), Tensor::from_slice(ctx, &unsigned, &[3]).unwrap()];
        for (labels, want) in ys.iter().zip(wanted) {
            let out = loss(index).forward_backward(ctx, &[("x", &xs), ("y", labels)]).unwrap();
            assert_eq!(f64::from(out.loss().unwrap()), want, "{index} on the GPU");
        }
    }
    // A signed label and an unsigned one are not compared by their bits.
    let two = Loss::define("two").row_axis(RowAxis::Class).input("x", Scope::Element).label("y").label("z");
    let two = two.expr(|b| b.input("x").sum().masked(b.input("y").equals(b.input("z"))));
    let (y, z) = (HostTensor::i32(&signed, &[3]), HostTensor::u32(&unsigned, &[3]));
    let xs = HostTensor::f32(&x, &[3, 1]);
    let same = [("x", xs.clone()), ("y", y.clone()), ("z", y.clone())];
    assert_eq!(cpu::forward_backward(&two, &same, &[]).unwrap().loss().unwrap(), 7.0 / 3.0);
    assert!(matches!(cpu::forward_backward(&two, &[("x", xs), ("y", y), ("z", z)], &[]), Err(Error::Expr { .. })));
}

#[test]
fn a_budget_without_end_tunes() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[64]).input("target", DType::F32, &[64]);
    let plan = ctx.plan(&losses::mse(), &spec).unwrap();
    for budget in [std::time::Duration::MAX, std::time::Duration::ZERO] {
        plan.tune(&TuneOptions::new().candidates(1).repetitions(3).budget(budget)).unwrap();
    }
}

#[test]
fn a_device_without_compute_shaders_is_told_of() {
    let Some(_) = context() else { return };
    let base = wgpu::Limits::default();
    let none = [
        wgpu::Limits { max_compute_workgroups_per_dimension: 0, ..base.clone() },
        wgpu::Limits { max_compute_invocations_per_workgroup: 0, ..base.clone() },
        wgpu::Limits { max_compute_workgroup_size_x: 0, ..base.clone() },
        wgpu::Limits { max_storage_buffers_per_shader_stage: 0, ..base },
        wgpu::Limits::downlevel_webgl2_defaults(),
    ];
    for limits in none {
        let made = Context::with_limits(limits).and_then(|ctx| {
            let spec = PlanSpec::new().input("input", DType::F32, &[64, 9]).input("target", DType::I32, &[64]);
            ctx.plan(&losses::cross_entropy(), &spec.grad("input"))
        });
        assert!(matches!(&made, Err(Error::Limit { .. } | Error::Device { .. })), "{made:?}");
    }
}

#[test]
fn nothing_is_named_twice() {
    let Some(ctx) = context() else { return };
    let [x, t] = pair(ctx, &[4, 3]);
    let twice = |error: Error| assert!(matches!(&error, Error::Name { what, .. } if what.contains("twice")), "{error}");
    let spec = PlanSpec::new().like(&[("input", &x), ("target", &t)]);
    let mse = losses::mse();
    twice(ctx.plan(&mse, &spec.clone().input("input", DType::F32, &[4, 3])).unwrap_err());
    twice(ctx.plan(&mse, &spec.clone().hessian_diagonal("input").hessian_diagonal("input")).unwrap_err());
    let typed = spec.clone().grad("input").grad_dtype("input", DType::F32).grad_dtype("input", DType::BF16);
    twice(ctx.plan(&mse, &typed).unwrap_err());
    let labels = Tensor::zeros(ctx, DType::I32, &[4]).unwrap();
    let rows = PlanSpec::new().like(&[("input", &x), ("target", &labels)]);
    twice(ctx.plan(&losses::cross_entropy(), &rows.extra("entropy").extra("entropy")).unwrap_err());
    // The last word on a gradient's mode counts, as it says.
    let plan = ctx.plan(&mse, &spec.grad("input").grad("input").hessian_diagonal("input")).unwrap();
    let given = Bindings::new().inputs(&[("input", &x), ("target", &t)]);
    twice(plan.bind(&given.clone().input("target", &t)).unwrap_err());
    let [a, b] = pair(ctx, &[4, 3]);
    twice(plan.bind(&given.clone().grad("input", &a).grad("input", &b)).unwrap_err());
    twice(plan.bind(&given.clone().hessian_diagonal("input", &a).hessian_diagonal("input", &b)).unwrap_err());
    let [a, b] = pair(ctx, &[]);
    twice(plan.bind(&given.loss(&a).loss(&b)).unwrap_err());
    let v = [1.0f32; 3];
    let [x, t] = [HostTensor::f32(&v, &[3]), HostTensor::f32(&v, &[3])];
    let inputs = [("input", x.clone()), ("target", t.clone())];
    twice(cpu::forward_backward(&mse, &[inputs[0].clone(), inputs[1].clone(), ("input", x)], &[]).unwrap_err());
    twice(cpu::forward_backward(&mse, &inputs, &["input", "input"]).unwrap_err());
    let wanted = Wanted { hessian_diagonals: vec!["input".into(), "input".into()], ..Wanted::default() };
    twice(cpu::run::<f32>(&mse, &inputs, &wanted).unwrap_err());
}

#[test]
fn nothing_that_is_given_is_left_aside() {
    let Some(ctx) = context() else { return };
    let [x, t] = pair(ctx, &[4, 3]);
    let name = |error: Error, wanted: &str| {
        assert!(matches!(&error, Error::Name { name, .. } if name == wanted), "{error}");
    };
    let spec = PlanSpec::new().like(&[("input", &x), ("target", &t)]);
    let mse = losses::mse();
    // Outputs that the plan does not make, one kind for another as well.
    let given = Bindings::new().inputs(&[("input", &x), ("target", &t)]);
    let [g, _] = pair(ctx, &[4, 3]);
    let plan = ctx.plan(&mse, &spec.clone().grad("input")).unwrap();
    name(plan.bind(&given.clone().grad("target", &g)).unwrap_err(), "target");
    name(plan.bind(&given.clone().hessian_diagonal("input", &g)).unwrap_err(), "input");
    name(plan.bind(&given.clone().extra("entropy", &g)).unwrap_err(), "entropy");
    let curved = ctx.plan(&mse, &spec.clone().hessian_diagonal("input")).unwrap();
    name(curved.bind(&given.clone().grad("input", &g)).unwrap_err(), "input");
    let silent = ctx.plan(&mse, &spec.clone().grad("input").without_loss()).unwrap();
    let one = Tensor::zeros(ctx, DType::F32, &[]).unwrap();
    name(silent.bind(&given.loss(&one)).unwrap_err(), "loss");
    // An element type of a gradient that nobody asked for.
    name(ctx.plan(&mse, &spec.clone().grad_dtype("input", DType::F32)).unwrap_err(), "input");
    name(ctx.plan(&mse, &spec.clone().grad("input").grad_dtype("target", DType::F32)).unwrap_err(), "target");
    // Inputs that are not read: an upstream gradient of a plan without one, an optional input that options leave out.
    name(ctx.plan(&mse, &spec.clone().input("upstream", DType::F32, &[])).unwrap_err(), "upstream");
    let own = || Loss::define("own").input("x", Scope::Element).optional("w", Scope::Element).flag("weighted", true);
    let own = own().expr(|b| match b.flag("weighted") {
        true => b.optional("w").map_or(b.input("x"), |w| w * b.input("x")),
        false => b.input("x"),
    });
    let pair = [("x", &x), ("w", &t)];
    assert!(own.forward(ctx, &pair).is_ok());
    name(own.clone().option("weighted", false).forward(ctx, &pair).unwrap_err(), "w");
    let v = [1.0f32; 3];
    let host = [("x", HostTensor::f32(&v, &[3])), ("w", HostTensor::f32(&v, &[3]))];
    name(cpu::forward_backward(&own.option("weighted", false), &host, &[]).unwrap_err(), "w");
}

#[test]
fn an_input_that_a_loss_declares_it_reads() {
    let unread = Loss::define("own").input("x", Scope::Element).input("y", Scope::Element).expr(|b| b.input("x"));
    let v = [1.0f32, 2.0];
    let host = [("x", HostTensor::f32(&v, &[2])), ("y", HostTensor::f32(&v, &[2]))];
    let error = cpu::forward_backward(&unread, &host, &["x"]).unwrap_err();
    assert!(matches!(&error, Error::Expr { message, .. } if message.contains("`y`")), "{error}");
    if let Some(ctx) = context() {
        let spec = PlanSpec::new().input("x", DType::F32, &[2]).input("y", DType::F32, &[2]);
        assert_eq!(ctx.plan(&unread, &spec).unwrap_err(), error);
        // In a sum, another term's reading is enough.
        let both = 0.5 * losses::mse() + losses::l1();
        let spec = PlanSpec::new().input("input", DType::F32, &[2]).input("target", DType::F32, &[2]);
        assert!(ctx.plan(&both, &spec).is_ok());
    }
    // Read by an extra output alone, or where an option wants it.
    let rows = || Loss::define("own").row_axis(RowAxis::Class).input("x", Scope::Element).label("y");
    let extra = rows().extra("there", |b| b.input("x").at(b.input("y"))).expr(|b| b.input("x").sum());
    let labels = [("x", HostTensor::f32(&v, &[1, 2])), ("y", HostTensor::i32(&[1], &[1]))];
    let wanted = Wanted { loss: true, extras: vec!["there".to_owned()], ..Wanted::default() };
    let out = cpu::run::<f64>(&extra, &labels, &wanted).unwrap();
    assert_eq!((out.loss().unwrap(), out.extra("there").unwrap()), (3.0, &[2.0][..]));
    let alone = losses::distillation(0.0, 2.0);
    let teach = [
        ("student_logits", labels[0].1.clone()),
        ("teacher_logits", labels[0].1.clone()),
        ("target", labels[1].1.clone()),
    ];
    assert!(cpu::forward_backward(&alone, &teach, &["student_logits"]).is_ok());
}

#[test]
fn the_hessian_diagonal_of_a_broadcast_input_is_refused_on_both_paths() {
    let (x, t) = ([1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], [0.5f32, 1.5, 2.5]);
    let wanted = Wanted { hessian_diagonals: vec!["target".to_owned()], ..Wanted::default() };
    let loss = losses::mse().broadcast(true);
    // Along the rows, along the columns, everywhere.
    for (shape, count) in [(&[1, 3][..], 3), (&[3], 3), (&[2, 1], 2), (&[1, 1], 1), (&[1], 1), (&[], 1)] {
        let host = [("input", HostTensor::f32(&x, &[2, 3])), ("target", HostTensor::f32(&t[..count], shape))];
        let error = cpu::run::<f64>(&loss, &host, &wanted).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { message } if message.contains("expand it")), "{error}");
        let Some(ctx) = context() else { continue };
        let spec = PlanSpec::new().input("input", DType::F32, &[2, 3]).input("target", DType::F32, shape);
        assert_eq!(ctx.plan(&loss, &spec.clone().hessian_diagonal("target")).unwrap_err(), error);
        assert!(ctx.plan(&loss, &spec.hessian_diagonal("input")).is_ok());
    }
}
