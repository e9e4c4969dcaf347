//! The model, 784-128-10, on the caller's device: its buffers and its kernels. Nothing here knows about wgloss.

use bytemuck::{Pod, Zeroable};
use wgloss::Context;
use wgpu::BufferUsages as Usage;
use wgpu::util::DeviceExt;

use crate::data::{Digits, PIXELS, Random};

/// Rows of a training batch; the kernels take rows in sixteens.
pub const BATCH: usize = 64;
pub const CLASSES: usize = 10;

const HIDDEN: usize = 128;
/// Values in a row of a layer's input, and of its weight: the features, the one that carries the bias, padding.
const IMAGE_ROW: usize = 800;
const HIDDEN_ROW: usize = 132;

/// What changes from step to step; `Step` in mlp.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Step {
    pub rows: u32,
    /// The step's first entry in the order of the digits.
    pub first: u32,
    /// Pixels by which an image may be moved along either axis.
    pub max_shift: u32,
    /// Of those moves.
    pub seed: u32,
    /// The learning rate, divided by Adam's 1 − β₁ᵗ.
    pub rate: f32,
    /// Adam's 1 / (1 − β₂ᵗ).
    pub v_scale: f32,
}

impl Step {
    /// Takes `rows` digits from entry `first` of the order as they are, to evaluate them.
    pub fn evaluate(first: usize, rows: usize) -> Step {
        Step { rows: rows as u32, first: first as u32, max_shift: 0, seed: 0, rate: 0.0, v_scale: 0.0 }
    }

    /// Training step `index`, which takes the order's next [`BATCH`] digits.
    pub fn train(index: usize, rate: f32, max_shift: u32, seed: u32) -> Step {
        let t = index as i32 + 1;
        Step {
            rows: BATCH as u32,
            first: (index * BATCH) as u32,
            max_shift,
            seed,
            rate: (f64::from(rate) / (1.0 - 0.9f64.powi(t))) as f32,
            v_scale: (1.0 / (1.0 - 0.999f64.powi(t))) as f32,
        }
    }
}

/// The device, and the kernels compiled for it.
pub struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    module: wgpu::ShaderModule,
}

/// A kernel with its buffers, ready to dispatch.
pub struct Call {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    workgroups: u32,
}

impl Gpu {
    /// The device that `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` choose, with WebGPU's default limits, for both.
    pub fn open() -> Result<(Context, Gpu), Box<dyn std::error::Error>> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = pollster::block_on(wgpu::util::initialize_adapter_from_env_or_default(&instance, None))
            .map_err(|error| format!("{error}; Mesa's software adapter: apt-get install mesa-vulkan-drivers"))?;
        let (device, queue) = pollster::block_on(adapter.request_device(&Default::default()))?;
        println!("adapter: {}", adapter.get_info().name);
        let ctx = Context::from_wgpu(device.clone(), queue.clone(), Some(&adapter))?;
        Ok((ctx, Gpu::new(device, queue)))
    }

    fn new(device: wgpu::Device, queue: wgpu::Queue) -> Gpu {
        let module = device.create_shader_module(wgpu::include_wgsl!("mlp.wgsl"));
        Gpu { device, queue, module }
    }

    pub fn buffer<T: Pod>(&self, contents: &[T], usage: Usage) -> wgpu::Buffer {
        let contents = bytemuck::cast_slice(contents);
        self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
    }

    /// Storage for `len` values of 4 bytes, which wgpu fills with zeros.
    pub fn zeros(&self, len: usize) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * len as u64,
            usage: Usage::STORAGE | Usage::UNIFORM | Usage::COPY_SRC | Usage::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// Kernel `name` of mlp.wgsl with its buffers by binding, in workgroups of `lanes`.
    fn call(&self, name: &str, buffers: &[(u32, &wgpu::Buffer)], invocations: usize, lanes: usize) -> Call {
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: None,
            module: &self.module,
            entry_point: Some(name),
            compilation_options: Default::default(),
            cache: None,
        });
        let entries: Vec<wgpu::BindGroupEntry> = buffers
            .iter()
            .map(|&(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(name),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Call { pipeline, group, workgroups: invocations.div_ceil(lanes) as u32 }
    }
}

/// Records the calls, one after the other.
pub fn encode(encoder: &mut wgpu::CommandEncoder, calls: &[Call]) {
    let mut pass = encoder.begin_compute_pass(&Default::default());
    for call in calls {
        pass.set_pipeline(&call.pipeline);
        pass.set_bind_group(0, &call.group, &[]);
        pass.dispatch_workgroups(call.workgroups, 1, 1);
    }
}

/// All digits, and the order in which the steps take them.
pub struct Dataset {
    pixels: wgpu::Buffer,
    labels: wgpu::Buffer,
    order: wgpu::Buffer,
}

impl Dataset {
    pub fn new(gpu: &Gpu, digits: &Digits, order: &[u32]) -> Dataset {
        Dataset {
            pixels: gpu.buffer(&digits.pixels, Usage::STORAGE),
            labels: gpu.buffer(&digits.labels, Usage::STORAGE),
            order: gpu.buffer(order, Usage::STORAGE),
        }
    }
}

/// The weights of both layers, biases included.
pub struct Weights([wgpu::Buffer; 2]);

impl Weights {
    /// He et al. (2015), uniform: a variance of 2 / inputs. The biases are 0.
    pub fn random(gpu: &Gpu, random: &mut Random) -> Weights {
        let mut layer = |outputs: usize, inputs: usize, row: usize| {
            let bound = (6.0 / inputs as f32).sqrt();
            let value = |at| if at % row < inputs { bound * random.signed() } else { 0.0 };
            let values: Vec<f32> = (0..outputs * row).map(value).collect();
            gpu.buffer(&values, Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST)
        };
        Weights([layer(HIDDEN, PIXELS, IMAGE_ROW), layer(CLASSES, HIDDEN, HIDDEN_ROW)])
    }

    /// A copy that shares nothing, to keep the best in.
    pub fn zeros(gpu: &Gpu) -> Weights {
        Weights([gpu.zeros(HIDDEN * IMAGE_ROW), gpu.zeros(CLASSES * HIDDEN_ROW)])
    }

    pub fn copy_to(&self, gpu: &Gpu, target: &Weights) {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for (from, to) in self.0.iter().zip(&target.0) {
            encoder.copy_buffer_to_buffer(from, 0, to, 0, from.size());
        }
        gpu.queue.submit([encoder.finish()]);
    }
}

/// Buffers for `rows` digits on their way through the network, and the calls that compute their logits.
pub struct Batch {
    pub rows: usize,
    pub step: wgpu::Buffer,
    /// `[rows]`, i32.
    pub labels: wgpu::Buffer,
    /// `[rows, CLASSES]`, f32.
    pub logits: wgpu::Buffer,
    pub forward: Vec<Call>,
    images: wgpu::Buffer,
    hidden: wgpu::Buffer,
}

impl Batch {
    pub fn new(gpu: &Gpu, dataset: &Dataset, weights: &Weights, step: Step) -> Batch {
        let rows = step.rows as usize;
        let step = gpu.buffer(&[step], Usage::UNIFORM | Usage::COPY_DST);
        // Both inputs start as zeros with a one behind every row's features; the kernels leave those alone.
        let one_image: Vec<u8> = (0..IMAGE_ROW).map(|at| if at == PIXELS { 255 } else { 0 }).collect();
        let images = gpu.buffer(&one_image.repeat(rows), Usage::STORAGE | Usage::UNIFORM);
        let one_hidden: Vec<f32> = (0..HIDDEN_ROW).map(|at| if at == HIDDEN { 1.0 } else { 0.0 }).collect();
        let hidden = gpu.buffer(&one_hidden.repeat(rows), Usage::STORAGE);
        let labels = gpu.zeros(rows);
        let logits = gpu.zeros(rows * CLASSES);

        let Dataset { pixels, labels: all_labels, order } = dataset;
        let [w1, w2] = &weights.0;
        let gather = [(0, &step), (1, pixels), (2, all_labels), (3, order), (4, &images), (5, &labels)];
        let forward = vec![
            gpu.call("gather", &gather, rows * PIXELS / 4, 32),
            gpu.call("forward_hidden", &[(0, &step), (1, &images), (2, w1), (3, &hidden)], rows / 16 * HIDDEN / 8, 8),
            gpu.call("forward_logits", &[(0, &step), (1, &hidden), (2, w2), (3, &logits)], rows / 4 * CLASSES, 32),
        ];
        Batch { rows, step, labels, logits, forward, images, hidden }
    }

    /// The calls that take `d_logits` back through the network and step the weights.
    pub fn backward(&self, gpu: &Gpu, weights: &Weights, d_logits: &wgpu::Buffer) -> Vec<Call> {
        let [w1, w2] = &weights.0;
        let [moments1, moments2] = weights.0.each_ref().map(|weight| gpu.zeros(2 * weight.size() as usize / 4));
        let d_hidden = gpu.zeros(BATCH * HIDDEN);
        let Batch { step, images, hidden, .. } = self;
        let update_hidden = [(0, step), (4, w1), (5, &moments1), (6, images), (7, &d_hidden)];
        let update_output = [(0, step), (1, hidden), (3, d_logits), (4, w2), (5, &moments2)];
        vec![
            gpu.call("backward_hidden", &[(1, hidden), (2, w2), (3, d_logits), (4, &d_hidden)], BATCH * HIDDEN / 4, 32),
            gpu.call("update_output", &update_output, CLASSES * HIDDEN_ROW / 4, 32),
            gpu.call("update_hidden", &update_hidden, HIDDEN / 8 * IMAGE_ROW / 16, 8),
        ]
    }
}
