//! The passes of a bound plan, recorded by hand: wgpu alone, and a kernel that counts.

use wgloss::{Context, DType, Tensor};

/// Buffers of a step, as a bound plan has them.
pub const INPUT: usize = 0;
pub const TARGET: usize = 1;
pub const GRAD: usize = 2;
pub const LOSS: usize = 3;
pub const WORK: usize = 4;
pub const SCALARS: usize = 5;

/// What one dispatch binds: uniforms, storage that it reads, storage that it writes; and its workgroups.
pub struct Dispatch {
    pub uniforms: u32,
    pub reads: &'static [usize],
    pub writes: &'static [usize],
    pub groups: u32,
}

/// Mean cross entropy of [64, 10] f32 and its gradient, on a software adapter: count the labels; loss and gradient;
/// sum the losses.
pub const CROSS_ENTROPY: [Dispatch; 3] = [
    Dispatch { uniforms: 2, reads: &[TARGET], writes: &[WORK, SCALARS], groups: 1 },
    Dispatch { uniforms: 2, reads: &[INPUT, TARGET], writes: &[GRAD, WORK, SCALARS], groups: 8 },
    Dispatch { uniforms: 3, reads: &[], writes: &[WORK, SCALARS, LOSS], groups: 1 },
];

/// Mean squared error of [64, 10] f32 and its gradient: the elements, then the sum of the losses.
pub const MSE: [Dispatch; 2] = [
    Dispatch { uniforms: 2, reads: &[INPUT, TARGET], writes: &[GRAD, WORK], groups: 1 },
    Dispatch { uniforms: 3, reads: &[], writes: &[WORK, SCALARS, LOSS], groups: 1 },
];

/// Pipelines and bind groups made once; recorded every step.
pub struct Hand {
    dispatches: &'static [Dispatch],
    passes: Vec<(wgpu::ComputePipeline, wgpu::BindGroup, u32)>,
    buffers: Vec<Tensor>,
}

impl Hand {
    pub fn new(ctx: &Context, dispatches: &'static [Dispatch]) -> Hand {
        let buffers = (0..=SCALARS).map(|_| Tensor::zeros(ctx, DType::U32, &[1024]).expect("a buffer")).collect();
        let mut hand = Hand { dispatches, passes: Vec::new(), buffers };
        hand.passes = dispatches.iter().map(|dispatch| hand.make(ctx.device(), dispatch)).collect();
        hand
    }

    /// As a user would: everything that does not change from step to step is made before.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for (pipeline, group, groups) in &self.passes {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(*groups, 1, 1);
        }
    }

    /// After one step: every buffer holds the number of dispatches that wrote it.
    pub fn check(&self, ctx: &Context) {
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.encode(&mut encoder);
        ctx.queue().submit([encoder.finish()]);
        for (place, buffer) in self.buffers.iter().enumerate() {
            let wrote = self.dispatches.iter().filter(|dispatch| dispatch.writes.contains(&place)).count();
            assert_eq!(buffer.to_vec::<u32>().expect("words")[0], wrote as u32, "by hand, buffer {place}");
        }
    }

    fn make(&self, device: &wgpu::Device, of: &Dispatch) -> (wgpu::ComputePipeline, wgpu::BindGroup, u32) {
        let uniform = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 256,
            usage: wgpu::BufferUsages::UNIFORM,
            mapped_at_creation: false,
        });
        let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
        let mut bound = vec![(wgpu::BufferBindingType::Uniform, &uniform); of.uniforms as usize];
        bound.extend(of.reads.iter().map(|place| (storage(true), self.buffers[*place].buffer())));
        bound.extend(of.writes.iter().map(|place| (storage(false), self.buffers[*place].buffer())));
        let (mut layout, mut entries, mut wgsl, mut body) = (Vec::new(), Vec::new(), String::new(), String::new());
        for (binding, (ty, buffer)) in bound.into_iter().enumerate() {
            layout.push(wgpu::BindGroupLayoutEntry {
                binding: binding as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            });
            entries.push(wgpu::BindGroupEntry { binding: binding as u32, resource: buffer.as_entire_binding() });
            let (space, ty) = match ty {
                wgpu::BufferBindingType::Uniform => ("uniform", "vec4<u32>"),
                wgpu::BufferBindingType::Storage { read_only: true } => ("storage, read", "array<u32>"),
                wgpu::BufferBindingType::Storage { read_only: false } => {
                    body += &format!("    b{binding}[0] += 1u;\n");
                    ("storage, read_write", "array<u32>")
                }
            };
            wgsl += &format!("@group(0) @binding({binding}) var<{space}> b{binding}: {ty};\n");
        }
        wgsl += &format!(
            "@compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{\n  \
             if id.x == 0u {{\n{body}  }}\n}}"
        );
        let layout =
            &device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &layout });
        let source = wgpu::ShaderSource::Wgsl(wgsl.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(layout)],
                immediate_size: 0,
            })),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries });
        (pipeline, group, of.groups)
    }
}
