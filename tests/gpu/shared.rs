//! What is shared with a caller's own wgpu code: a device, buffers at any byte, a compute pass.

use crate::common::compare::mismatch;
use crate::common::context;
use half::f16;
use wgloss::{Bindings, Context, DType, Element, Error, PlanSpec, Reduction, Tensor, Upstream, losses, wgpu};

const ROWS: usize = 9;
const COLS: usize = 13;

/// Logits before the caller's own kernel doubles them.
fn halved() -> Vec<f32> {
    (0..ROWS * COLS).map(|k| ((k * 37 % 23) as f32 - 11.0) / 8.0).collect()
}

fn labels() -> Vec<i64> {
    (0..ROWS).map(|row| (row * 5 % COLS) as i64).collect()
}

/// Loss and gradient of the mean cross entropy of twice these logits, by the book.
fn by_the_book(halved: &[f32], labels: &[i64]) -> (f64, Vec<f64>) {
    let (mut loss, mut grad) = (0.0, Vec::new());
    for (x, y) in halved.chunks(COLS).zip(labels) {
        let x: Vec<f64> = x.iter().map(|x| 2.0 * f64::from(*x)).collect();
        let sum: f64 = x.iter().map(|x| x.exp()).sum();
        loss += (sum.ln() - x[*y as usize]) / labels.len() as f64;
        grad.extend(
            x.iter()
                .enumerate()
                .map(|(col, x)| (x.exp() / sum - f64::from(u8::from(col as i64 == *y))) / labels.len() as f64),
        );
    }
    (loss, grad)
}

#[track_caller]
fn assert_close(what: &str, got: &[f32], want: &[f64]) {
    let got: Vec<f64> = got.iter().map(|x| f64::from(*x)).collect();
    assert_eq!(mismatch(&got, want, 1e-5, |_| 1e-7), None, "{what}");
}

#[test]
fn a_device_with_exactly_what_is_required_runs_as_a_context_of_its_own() {
    let Some(own) = context() else { return };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let options = wgpu::RequestAdapterOptions::default();
    let adapter = pollster::block_on(instance.request_adapter(&options)).expect("an adapter, as `context` has");
    let descriptor = wgpu::DeviceDescriptor {
        required_features: Context::required_features(&adapter),
        required_limits: Context::required_limits(&adapter),
        ..wgpu::DeviceDescriptor::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    let ctx = &Context::from_wgpu(device, queue, Some(&adapter)).unwrap();
    if ctx.adapter_name() == own.adapter_name() && std::env::var_os("WGLOSS_TEST_LIMITS").is_none() {
        assert_eq!(ctx.limits(), own.limits());
    }
    let (want, grad) = by_the_book(&halved(), &labels());
    let x: Vec<f32> = halved().iter().map(|x| 2.0 * x).collect();
    let x = Tensor::from_slice(ctx, &x, &[ROWS, COLS]).unwrap();
    let y = Tensor::from_slice(ctx, &labels(), &[ROWS]).unwrap();
    let out = losses::cross_entropy().forward_backward(ctx, &[("input", &x), ("target", &y)]).unwrap();
    assert_close("loss", &[out.loss().unwrap()], &[want]);
    assert_close("gradient", &out.grad("input").unwrap().to_vec().unwrap(), &grad);
}

/// A buffer of bytes in which these values begin at that byte.
fn buffer_with<T: Element>(ctx: &Context, byte: usize, values: &[T]) -> wgpu::Buffer {
    let mut bytes = vec![0xa5u8; byte];
    bytes.extend_from_slice(bytemuck::cast_slice(values));
    bytes.resize(bytes.len().next_multiple_of(4), 0xa5);
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: None, size: bytes.len() as u64, usage, mapped_at_creation: false };
    let buffer = ctx.device().create_buffer(&descriptor);
    ctx.queue().write_buffer(&buffer, 0, &bytes);
    buffer
}

#[test]
fn a_tensor_begins_at_any_byte_at_which_an_element_does() {
    let Some(ctx) = context() else { return };
    let values = [1.5f32, -2.0, 0.25, 4.0, -0.5];
    let want: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
    let loss = || losses::mse().reduction(Reduction::Sum);
    let zeros = Tensor::zeros(ctx, DType::F32, &[5]).unwrap();
    for byte in [0usize, 4, 12, 260] {
        let x = buffer_with(ctx, byte, &values);
        let x = Tensor::from_buffer_at_byte(ctx, x, byte as u64, DType::F32, &[5]).unwrap();
        assert_eq!((x.offset(), x.byte_offset()), (byte as u64 / 4, byte as u64));
        assert_eq!(x.to_vec::<f32>().unwrap(), values);
        let got = loss().forward(ctx, &[("input", &x), ("target", &zeros)]).unwrap().loss().unwrap();
        assert_close("loss", &[got], &[want]);
    }
    for byte in [2usize, 6, 32] {
        let x = buffer_with(ctx, byte, &values.map(f16::from_f32));
        let x = Tensor::from_buffer_at_byte(ctx, x, byte as u64, DType::F16, &[5]).unwrap();
        assert_eq!(x.byte_offset(), byte as u64);
        let got = loss().forward(ctx, &[("input", &x), ("target", &zeros)]).unwrap().loss().unwrap();
        assert_close("loss", &[got], &[want]);
    }
    let buffer = buffer_with(ctx, 0, &values);
    let error = Tensor::from_buffer_at_byte(ctx, buffer.clone(), 6, DType::F32, &[2]).unwrap_err();
    let want = "buffer of `[2]`: no element begins at byte 6: f32 has 4 bytes; give a multiple of 4";
    assert_eq!(error.to_string(), want);
    let error = Tensor::from_buffer_at_byte(ctx, buffer.clone(), 1, DType::BF16, &[2]).unwrap_err();
    assert!(matches!(error, Error::Buffer { .. }));
    for byte in [8, u64::MAX - 3] {
        assert!(matches!(
            Tensor::from_buffer_at_byte(ctx, buffer.clone(), byte, DType::F32, &[5]),
            Err(Error::Buffer { .. })
        ));
    }
}

/// A kernel of the caller's.
struct Own {
    pipeline: wgpu::ComputePipeline,
}

impl Own {
    /// Doubles every word of a buffer of f32, in place.
    fn doubling(ctx: &Context) -> Own {
        Own::new(ctx, "@group(0) @binding(0) var<storage, read_write> x: array<f32>;", "x[k] = 2.0 * x[k];")
    }

    /// Copies every word of a buffer to another of the same size.
    fn copying(ctx: &Context) -> Own {
        let declared = "@group(0) @binding(0) var<storage, read> source: array<f32>;
            @group(0) @binding(1) var<storage, read_write> x: array<f32>;";
        Own::new(ctx, declared, "x[k] = source[k];")
    }

    fn new(ctx: &Context, declared: &str, body: &str) -> Own {
        let wgsl = format!(
            "{declared}
            @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                let k = id.x;
                if k < arrayLength(&x) {{ {body} }}
            }}"
        );
        let source = wgpu::ShaderSource::Wgsl(wgsl.into());
        let module = ctx.device().create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let descriptor = wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        };
        Own { pipeline: ctx.device().create_compute_pipeline(&descriptor) }
    }

    /// Records it over whole buffers of these tensors, in the order of its bindings.
    fn encode(&self, ctx: &Context, pass: &mut wgpu::ComputePass<'_>, tensors: &[&Tensor]) {
        let resources = tensors.iter().map(|tensor| tensor.buffer().as_entire_binding());
        let entries = (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource });
        let entries: Vec<wgpu::BindGroupEntry<'_>> = entries.collect();
        let layout = &self.pipeline.get_bind_group_layout(0);
        let group =
            ctx.device().create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries });
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups((tensors[0].buffer().size() as u32 / 4).div_ceil(64), 1, 1);
    }
}

#[test]
fn a_step_in_a_callers_pass_reads_what_came_before_it_and_feeds_what_comes_after() {
    let Some(ctx) = context() else { return };
    let doubling = Own::doubling(ctx);
    let x = Tensor::from_slice(ctx, &halved(), &[ROWS, COLS]).unwrap();
    let y = Tensor::from_slice(ctx, &labels(), &[ROWS]).unwrap();
    // Scalars: an upstream gradient that the pass doubles as well, and two task weights, one of 16 bits.
    let upstream = Tensor::from_slice(ctx, &[0.0f32, 0.0, 0.75], &[3]).unwrap();
    let task = Tensor::from_slice(ctx, &[0.5f32], &[]).unwrap();
    let half = Tensor::from_slice(ctx, &[f16::from_f32(0.25)], &[]).unwrap();
    let factor = upstream.view(2, &[], &[]).unwrap();
    let loss = losses::cross_entropy().scaled_by("task") + losses::cross_entropy().scaled_by("half");
    let inputs = [("input", &x), ("target", &y), ("task", &task), ("half", &half)];
    let spec = PlanSpec::new().like(&inputs).grad("input").upstream(Upstream::Scalar);
    let bindings = Bindings::new().inputs(&inputs).input("upstream", &factor);
    let bound = ctx.plan(&loss, &spec).unwrap().bind(&bindings).unwrap();
    let (want, grad) = by_the_book(&halved(), &labels());
    let grad: Vec<f64> = grad.iter().map(|g| 0.75 * 2.0 * 1.5 * g * 2.0).collect();
    for step in 0..3 {
        x.write(ctx, &halved()).unwrap();
        upstream.write(ctx, &[0.0f32, 0.0, 1.5]).unwrap();
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            doubling.encode(ctx, &mut pass, &[&x]);
            doubling.encode(ctx, &mut pass, &[&upstream]);
            // The scalar is what the dispatch before it left, not what the buffer held when the step was encoded.
            bound.encode_in(&mut pass).unwrap();
            doubling.encode(ctx, &mut pass, &[bound.grad("input").unwrap()]);
            doubling.encode(ctx, &mut pass, &[bound.loss().unwrap()]);
        }
        ctx.queue().submit([encoder.finish()]);
        assert_close(&format!("loss of step {step}"), &[bound.read_loss().unwrap()], &[2.0 * 0.75 * want]);
        let got = bound.grad("input").unwrap().to_vec().unwrap();
        assert_close(&format!("gradient of step {step}"), &got[..ROWS * COLS], &grad);
    }
    // The same bound plan in passes of its own.
    x.write(ctx, &halved().iter().map(|x| 2.0 * x).collect::<Vec<f32>>()).unwrap();
    bound.submit().unwrap();
    assert_close("loss", &[bound.read_loss().unwrap()], &[0.75 * want]);
}

#[test]
fn an_upstream_gradient_made_of_the_loss_in_the_same_pass_is_read_by_the_backward_phase() {
    let Some(ctx) = context() else { return };
    let doubling = Own::doubling(ctx);
    let x: Vec<f32> = halved().iter().map(|x| 2.0 * x).collect();
    let x = Tensor::from_slice(ctx, &x, &[ROWS, COLS]).unwrap();
    let y = Tensor::from_slice(ctx, &labels(), &[ROWS]).unwrap();
    let loss = Tensor::zeros(ctx, DType::F32, &[]).unwrap();
    let inputs = [("input", &x), ("target", &y)];
    let spec = PlanSpec::new().like(&inputs).grad("input").upstream(Upstream::Scalar).separate_backward();
    // The upstream gradient is twice the loss, as of its square.
    let bindings = Bindings::new().inputs(&inputs).input("upstream", &loss).loss(&loss);
    let error = ctx.plan(&losses::cross_entropy(), &spec).unwrap().bind(&bindings).unwrap_err();
    assert!(matches!(error, Error::Alias { .. }), "{error}");
    let upstream = Tensor::zeros(ctx, DType::F32, &[4]).unwrap();
    let copying = Own::copying(ctx);
    let bindings = Bindings::new().inputs(&inputs).input("upstream", &upstream.view(0, &[], &[]).unwrap()).loss(&loss);
    let bound = ctx.plan(&losses::cross_entropy(), &spec).unwrap().bind(&bindings).unwrap();
    let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        bound.encode_forward_in(&mut pass).unwrap();
        copying.encode(ctx, &mut pass, &[&loss, &upstream]);
        doubling.encode(ctx, &mut pass, &[&upstream]);
        bound.encode_backward_in(&mut pass).unwrap();
    }
    ctx.queue().submit([encoder.finish()]);
    let (want, grad) = by_the_book(&halved(), &labels());
    assert_close("loss", &[bound.read_loss().unwrap()], &[want]);
    let grad: Vec<f64> = grad.iter().map(|g| 2.0 * want * g).collect();
    assert_close("gradient", &bound.grad("input").unwrap().to_vec().unwrap(), &grad);
    // A plan that is not made in two phases has none.
    let whole = PlanSpec::new().like(&inputs).grad("input");
    let bound = ctx.plan(&losses::cross_entropy(), &whole).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
    let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    assert!(matches!(bound.encode_forward_in(&mut pass), Err(Error::Unsupported { .. })));
    assert!(matches!(bound.encode_backward_in(&mut pass), Err(Error::Unsupported { .. })));
}

#[test]
fn several_steps_share_one_pass() {
    let Some(ctx) = context() else { return };
    let y = Tensor::from_slice(ctx, &labels(), &[ROWS]).unwrap();
    let total = Tensor::zeros(ctx, DType::F32, &[]).unwrap();
    let (want, _) = by_the_book(&halved(), &labels());
    let x: Vec<f32> = halved().iter().map(|x| 2.0 * x).collect();
    let x = Tensor::from_slice(ctx, &x, &[ROWS, COLS]).unwrap();
    let inputs = [("input", &x), ("target", &y)];
    let plan = ctx.plan(&losses::cross_entropy(), &PlanSpec::new().like(&inputs).grad("input").accumulate_loss());
    let plan = plan.unwrap();
    let bound: Vec<_> = (0..3).map(|_| plan.bind(&Bindings::new().inputs(&inputs).loss(&total)).unwrap()).collect();
    let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        bound.iter().for_each(|bound| bound.encode_in(&mut pass).unwrap());
    }
    ctx.queue().submit([encoder.finish()]);
    assert_close("sum of three", &total.to_vec().unwrap(), &[3.0 * want]);
}

#[test]
fn a_shard_is_not_encoded_in_one_pass() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[4, 8]).input("target", DType::I32, &[4]).grad("input");
    let spec = spec.shard(wgloss::Shard { first: 0, classes: 16, shards: 2 });
    let x = Tensor::zeros(ctx, DType::F32, &[4, 8]).unwrap();
    let y = Tensor::zeros(ctx, DType::I32, &[4]).unwrap();
    let plan = ctx.plan(&losses::cross_entropy(), &spec).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&[("input", &x), ("target", &y)])).unwrap();
    let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    assert!(matches!(bound.encode_in(&mut pass), Err(Error::Unsupported { .. })));
}
