//! Whether a stored gradient is not finite: by every kernel that stores one. Want is read off the gradients themselves.

use crate::common::compare::random;
use crate::common::context;
use half::{bf16, f16};
use wgloss::export::Export;
use wgloss::{
    Bindings, Bound, Context, DType, Error, GradMode, HostTensor, Kernel, Loss, Operator, Pinned, PlanSpec, Reduction,
    Tensor, Upstream, Wanted, cpu, fused, losses,
};

fn values(tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DType::F16 => tensor.to_vec::<f16>().unwrap().iter().map(|x| x.to_f64()).collect(),
        DType::BF16 => tensor.to_vec::<bf16>().unwrap().iter().map(|x| x.to_f64()).collect(),
        _ => tensor.to_vec::<f32>().unwrap().iter().map(|x| f64::from(*x)).collect(),
    }
}

fn floats(ctx: &Context, dtype: DType, values: &[f32], shape: &[usize]) -> Tensor {
    match dtype {
        DType::F16 => Tensor::from_slice(ctx, &values.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>(), shape),
        DType::BF16 => Tensor::from_slice(ctx, &values.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>(), shape),
        _ => Tensor::from_slice(ctx, values, shape),
    }
    .unwrap()
}

/// Runs a step; what it says must be what its gradients are, and `want`.
fn is_found(what: &str, bound: &Bound, grads: &[&str], want: bool) {
    bound.submit().unwrap();
    let found = bound.found_inf().unwrap().to_vec::<f32>().unwrap();
    let stored = grads.iter().flat_map(|name| values(bound.grad(name).unwrap())).any(|x| !x.is_finite());
    assert_eq!((found, stored), (vec![f32::from(u8::from(want))], want), "{what}");
}

const ROWS: usize = 6;

fn labels(ctx: &Context, cols: usize) -> Tensor {
    let labels: Vec<i32> = (0..ROWS).map(|row| if row == 2 { -100 } else { (row * 7 % cols) as i32 }).collect();
    Tensor::from_slice(ctx, &labels, &[ROWS]).unwrap()
}

#[test]
fn every_kernel_tells_an_overflow_and_forgets_it() {
    let Some(ctx) = context() else { return };
    let kernels =
        [None, Some(Kernel::Row), Some(Kernel::RowResident { trips: 0 }), Some(Kernel::RowSplit { splits: 2 })];
    // 4: vectors; 5: halves are narrowed after the pass; 65, 257: masked windows, words that rows share.
    for (cols, dtype) in [(4, DType::F16), (5, DType::F16), (65, DType::F16), (257, DType::BF16), (257, DType::F32)] {
        for kernel in kernels {
            for mode in [GradMode::Write, GradMode::Accumulate, GradMode::InPlace] {
                let what = format!("[{ROWS}, {cols}] {dtype} {kernel:?} {mode:?}");
                let x = random(ROWS * cols, 3);
                let logits = floats(ctx, dtype, &x, &[ROWS, cols]);
                let up = Tensor::from_slice(ctx, &[1.0f32], &[]).unwrap();
                let labels = labels(ctx, cols);
                let inputs = [("input", &logits), ("target", &labels), ("upstream", &up)];
                let spec = PlanSpec::new().like(&inputs).grad_mode("input", mode).upstream(Upstream::Scalar);
                let spec = spec.pin(Pinned { kernel, ..Pinned::default() }).found_inf();
                // A pinned kernel that cannot run this is no matter here.
                let Ok(plan) = ctx.plan(&losses::cross_entropy(), &spec) else { continue };
                let grad = floats(ctx, dtype, &vec![0.25; ROWS * cols], &[ROWS, cols]);
                let mut bindings = Bindings::new().inputs(&inputs);
                if mode != GradMode::InPlace {
                    bindings = bindings.grad("input", &grad);
                }
                let bound = plan.bind(&bindings).unwrap();
                for (upstream, want) in [(1.0f32, false), (3e38, true), (1.0, false), (f32::NAN, true), (1.0, false)] {
                    up.write(ctx, &[upstream]).unwrap();
                    match dtype {
                        DType::F32 => grad.write(ctx, &vec![f32::MAX; ROWS * cols]).unwrap(),
                        DType::F16 => grad.write(ctx, &vec![f16::from_f32(0.25); ROWS * cols]).unwrap(),
                        _ => grad.write(ctx, &vec![bf16::MAX; ROWS * cols]).unwrap(),
                    }
                    if mode == GradMode::InPlace {
                        refill(ctx, &logits, &x);
                    }
                    // Of f32 and bf16 only the accumulated sum overflows.
                    let overflows = dtype == DType::F16 || mode == GradMode::Accumulate || upstream.is_nan();
                    is_found(&format!("{what}, upstream {upstream}"), &bound, &["input"], want && overflows);
                }
            }
        }
    }
}

fn refill(ctx: &Context, tensor: &Tensor, x: &[f32]) {
    match tensor.dtype() {
        DType::F16 => tensor.write(ctx, &x.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>()),
        DType::BF16 => tensor.write(ctx, &x.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>()),
        _ => tensor.write(ctx, x),
    }
    .unwrap();
}

#[test]
fn one_bad_element_is_found_wherever_it_is() {
    let Some(ctx) = context() else { return };
    // 1 and 7: elements one by one; 1000: vectors; 1001: ends that are masked.
    for (count, dtype) in [(1, DType::F32), (7, DType::F32), (1000, DType::F32), (1001, DType::F32), (1001, DType::F16)]
    {
        let target = floats(ctx, dtype, &vec![0.0; count], &[count]);
        let input = floats(ctx, dtype, &vec![0.5; count], &[count]);
        let inputs = [("input", &input), ("target", &target)];
        let loss = losses::mse().reduction(Reduction::Sum);
        let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("input").found_inf()).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        for at in [0, count / 2, count - 1] {
            for held in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = vec![0.5; count];
                x[at] = held;
                refill(ctx, &input, &x);
                is_found(&format!("{held} at {at} of {count} {dtype}"), &bound, &["input"], true);
                refill(ctx, &input, &vec![0.5; count]);
                is_found(&format!("{count} {dtype} again"), &bound, &["input"], false);
            }
        }
    }
}

#[test]
fn what_the_buffer_holds_counts_where_it_is_added_to() {
    let Some(ctx) = context() else { return };
    let cols = 9;
    let logits = floats(ctx, DType::F32, &random(ROWS * cols, 5), &[ROWS, cols]);
    let weight = floats(ctx, DType::F32, &vec![1.0; cols], &[cols]);
    let scale = Tensor::from_slice(ctx, &[2.0f32], &[]).unwrap();
    let labels = labels(ctx, cols);
    let inputs = [("input", &logits), ("target", &labels), ("weight", &weight), ("s", &scale)];
    let loss: Loss = losses::cross_entropy().reduction(Reduction::Sum).scaled_by("s").into();
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for mode in [GradMode::Write, GradMode::Accumulate] {
            // An element gradient, one summed over the rows, one of a scalar.
            for (name, shape) in [("input", &[ROWS, cols][..]), ("weight", &[cols]), ("s", &[])] {
                let spec = PlanSpec::new().like(&inputs).grad_mode(name, mode).grad_dtype(name, dtype).found_inf();
                let count = shape.iter().product::<usize>();
                for (held, is_bad) in [(f32::INFINITY, true), (f32::NAN, true), (1.5, false)] {
                    let mut before = vec![0.0; count];
                    before[count - 1] = held;
                    let grad = floats(ctx, dtype, &before, shape);
                    let bindings = Bindings::new().inputs(&inputs).grad(name, &grad);
                    let bound = ctx.plan(&loss, &spec).unwrap().bind(&bindings).unwrap();
                    let want = is_bad && mode == GradMode::Accumulate;
                    is_found(&format!("{name} {dtype} {mode:?} onto {held}"), &bound, &[name], want);
                }
            }
        }
    }
}

#[test]
fn any_of_several_gradients_counts_after_it_is_narrowed() {
    let Some(ctx) = context() else { return };
    let (cols, names) = (8, ["input", "weight", "sample_weight", "s"]);
    let logits = floats(ctx, DType::F32, &random(ROWS * cols, 5), &[ROWS, cols]);
    let (weight, each) = (floats(ctx, DType::F32, &vec![1.0; cols], &[cols]), vec![1.0; ROWS]);
    let (each, scale) = (floats(ctx, DType::F32, &each, &[ROWS]), floats(ctx, DType::F32, &[1e6], &[]));
    let labels = labels(ctx, cols);
    let inputs =
        [("input", &logits), ("target", &labels), ("weight", &weight), ("sample_weight", &each), ("s", &scale)];
    let loss: Loss = losses::cross_entropy().reduction(Reduction::Sum).scaled_by("s").into();
    for narrow in names {
        let spec = names.iter().fold(PlanSpec::new().like(&inputs), |spec, name| spec.grad(name));
        // 1e6 times a loss: beyond f16, but for the gradient of the scale itself.
        let plan = ctx.plan(&loss, &spec.grad_dtype(narrow, DType::F16).found_inf()).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        is_found(&format!("{narrow} in f16"), &bound, &names, narrow != "s");
        scale.write(ctx, &[1.0f32]).unwrap();
        is_found(&format!("{narrow} in f16, of less"), &bound, &names, false);
        scale.write(ctx, &[1e6f32]).unwrap();
    }
    let plan = ctx.plan(&loss, &names.iter().fold(PlanSpec::new().like(&inputs), |s, n| s.grad(n)).found_inf());
    is_found("f32", &plan.unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap(), &names, false);
}

#[test]
fn a_gradient_that_is_summed_in_two_steps_is_looked_at_once_it_is_whole() {
    let Some(ctx) = context() else { return };
    // 40,000 rows and 2 columns: several workgroups per value of the gradient of one row for all.
    let (rows, cols) = (40_000, 2);
    let input = floats(ctx, DType::F32, &vec![1e34; rows * cols], &[rows, cols]);
    let target = floats(ctx, DType::F32, &[0.0, 0.0], &[1, 2]);
    let inputs = [("input", &input), ("target", &target)];
    let loss = losses::mse().broadcast(true).reduction(Reduction::Sum);
    let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("target").found_inf()).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    is_found("a sum beyond f32 of finite terms", &bound, &["target"], true);
    input.write(ctx, &vec![1.0f32; rows * cols]).unwrap();
    is_found("a finite sum", &bound, &["target"], false);
}

#[test]
fn it_goes_where_the_caller_wants_it() {
    let Some(ctx) = context() else { return };
    let input = floats(ctx, DType::F32, &[f32::NAN, 1.0, 2.0, 3.0], &[2, 2]);
    let inputs = [("input", &input), ("target", &input)];
    let pool = Tensor::from_slice(ctx, &[7.0f32; 80], &[80]).unwrap();
    for at in [0, 3, 66, 79] {
        let found = pool.view(at, &[], &[]).unwrap();
        let plan = ctx.plan(&losses::mse(), &PlanSpec::new().like(&inputs).grad("input").found_inf()).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs).found_inf(&found)).unwrap();
        is_found(&format!("at {at}"), &bound, &["input"], true);
        let all = pool.to_vec::<f32>().unwrap();
        assert!(all.iter().enumerate().all(|(k, x)| *x == if k as u64 == at { 1.0 } else { 7.0 }), "at {at}: {all:?}");
        pool.write(ctx, &[7.0f32; 80]).unwrap();
    }
    let plan = ctx.plan(&losses::mse(), &PlanSpec::new().like(&inputs).grad("input").found_inf()).unwrap();
    let bind = |tensor: &Tensor| plan.bind(&Bindings::new().inputs(&inputs).found_inf(tensor)).unwrap_err();
    assert!(matches!(bind(&pool), Error::Shape { input, .. } if input == "found_inf"));
    assert!(matches!(bind(&Tensor::zeros(ctx, DType::F16, &[]).unwrap()), Error::DType { .. }));
    assert!(matches!(bind(&input.view(1, &[], &[]).unwrap()), Error::Alias { .. }));
    let plain = ctx.plan(&losses::mse(), &PlanSpec::new().like(&inputs).grad("input")).unwrap();
    let error = plain.bind(&Bindings::new().inputs(&inputs).found_inf(&pool)).unwrap_err();
    assert!(matches!(&error, Error::Name { name, .. } if name == "found_inf"), "{error}");
    assert!(matches!(plain.bind(&Bindings::new().inputs(&inputs)).unwrap().found_inf(), Err(Error::Name { .. })));
}

#[test]
fn the_backward_part_and_a_batch_of_no_rows_tell_as_well() {
    let Some(ctx) = context() else { return };
    let logits = floats(ctx, DType::F16, &random(ROWS * 10, 5), &[ROWS, 10]);
    let (up, labels) = (Tensor::from_slice(ctx, &[1e7f32], &[]).unwrap(), labels(ctx, 10));
    let inputs = [("input", &logits), ("target", &labels), ("upstream", &up)];
    let spec = PlanSpec::new().like(&inputs).grad("input").upstream(Upstream::Scalar).found_inf();
    let plan = ctx.plan(&losses::cross_entropy(), &spec.separate_backward()).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    let found = || bound.found_inf().unwrap().to_vec::<f32>().unwrap();
    let step = |record: &dyn Fn(&mut wgpu::CommandEncoder)| {
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        record(&mut encoder);
        ctx.queue().submit([encoder.finish()]);
    };
    step(&|encoder| bound.encode_forward(encoder).unwrap());
    assert_eq!(found(), [0.0]);
    step(&|encoder| bound.encode_backward(encoder).unwrap());
    assert_eq!(found(), [1.0]);
    up.write(ctx, &[1.0f32]).unwrap();
    step(&|encoder| bound.encode_backward(encoder).unwrap());
    assert_eq!(found(), [0.0], "again");
    let empty = Tensor::zeros(ctx, DType::F16, &[0, 10]).unwrap();
    let none = Tensor::zeros(ctx, DType::I32, &[0]).unwrap();
    let inputs = [("input", &empty), ("target", &none)];
    let spec = PlanSpec::new().like(&inputs).grad("input").found_inf();
    let bound = ctx.plan(&losses::cross_entropy(), &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.found_inf().unwrap().write(ctx, &[9.0f32]).unwrap();
    is_found("no rows", &bound, &["input"], false);
}

#[test]
fn the_cpu_says_the_same() {
    let target = [0.0f32; 4];
    for (x, want) in
        [([1.0, 2.0, 3.0, 4.0], 0.0), ([1.0, f32::NAN, 3.0, 4.0], 1.0), ([1.0, 2.0, 3.0, f32::INFINITY], 1.0)]
    {
        let inputs = [("input", HostTensor::f32(&x, &[4])), ("target", HostTensor::f32(&target, &[4]))];
        let grads = vec!["input".to_owned()];
        let wanted = Wanted { loss: true, grads, found_inf: true, ..Wanted::default() };
        let out = cpu::run::<f32>(&losses::mse(), &inputs, &wanted).unwrap();
        assert_eq!(out.found_inf(), Some(want), "{x:?}");
        let out = cpu::run::<f32>(&losses::mse(), &inputs, &Wanted { found_inf: false, ..wanted }).unwrap();
        assert_eq!(out.found_inf(), None);
    }
    // What is ignored is not looked at.
    let (x, y) = ([f32::NAN, 1.0, 0.5, 0.5], [-100, 1]);
    let inputs = [("input", HostTensor::f32(&x, &[2, 2])), ("target", HostTensor::i32(&y, &[2]))];
    let wanted = Wanted { loss: true, grads: vec!["input".to_owned()], found_inf: true, ..Wanted::default() };
    assert_eq!(cpu::run::<f64>(&losses::cross_entropy(), &inputs, &wanted).unwrap().found_inf(), Some(0.0));
    let wanted = Wanted { grads: Vec::new(), ..wanted };
    assert!(matches!(cpu::run::<f64>(&losses::cross_entropy(), &inputs, &wanted), Err(Error::Expr { .. })));
}

#[test]
fn plans_that_cannot_tell_say_so_and_others_know_nothing_of_it() {
    let spec = PlanSpec::new().input("input", DType::F32, &[64, 10]).input("target", DType::I32, &[64]);
    let limits = wgloss::Limits::WEBGPU;
    let error = losses::cross_entropy().prepare(&spec.clone().found_inf(), &limits).err().expect("no gradients");
    assert!(matches!(&error, Error::Expr { message, .. } if message.contains("found_inf")), "{error}");
    let error = Export::new(&losses::cross_entropy(), &spec.clone().grad("input").found_inf()).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { message } if message.contains("found_inf")), "{error}");
    let softmax = PlanSpec::new().input("input", DType::F32, &[2, 3]).found_inf();
    assert!(matches!(fused::softmax().prepare(&softmax, &limits), Err(Error::Unsupported { .. })));
    let kernels = |spec: PlanSpec| {
        wgloss::internals::plan::preview(&losses::cross_entropy(), &spec, &limits, "none").unwrap().planned.kernels()
    };
    let (plain, asked) = (kernels(spec.clone().grad("input")), kernels(spec.grad("input").found_inf()));
    assert!(plain.iter().all(|kernel| !kernel.contains("note(") && !kernel.contains("found")));
    assert_eq!(asked.len(), plain.len() + 1, "one kernel more, which says what was found");
    assert_eq!(asked.iter().filter(|kernel| kernel.contains("note(")).count(), 1, "one of them stores the gradient");
}
