//! The plain kernel: what a user would write by hand, recorded with wgpu alone.

use wgloss::{Context, DType, Tensor};
use wgpu::util::DeviceExt;

pub struct Plain {
    passes: [(wgpu::ComputePipeline, wgpu::BindGroup, u32); 2],
    pub loss: Tensor,
    pub grad: Tensor,
}

impl Plain {
    pub fn new(ctx: &Context, logits: &Tensor, labels: &Tensor) -> Plain {
        let device = ctx.device();
        let (rows, cols) = (logits.shape()[0], logits.shape()[1]);
        let zeros = |shape: &[usize]| Tensor::zeros(ctx, DType::F32, shape).expect("a tensor of zeros");
        let (grad, row_losses, loss) = (zeros(&[rows, cols]), zeros(&[rows]), zeros(&[]));
        let shape = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("shape"),
            contents: bytemuck::cast_slice(&[rows as u32, cols as u32]),
            usage: wgpu::BufferUsages::UNIFORM,
        });
        let module = device.create_shader_module(wgpu::include_wgsl!("plain.wgsl"));
        let pass = |entry: &str, bindings: &[u32], groups: u32| {
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            let buffers = [&shape, logits.buffer(), labels.buffer(), grad.buffer(), row_losses.buffer(), loss.buffer()];
            let entry = |binding: &u32| wgpu::BindGroupEntry {
                binding: *binding,
                resource: buffers[*binding as usize].as_entire_binding(),
            };
            let entries: Vec<wgpu::BindGroupEntry<'_>> = bindings.iter().map(entry).collect();
            let layout = pipeline.get_bind_group_layout(0);
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &layout,
                entries: &entries,
            });
            (pipeline, group, groups)
        };
        let passes = [pass("rows", &[0, 1, 2, 3, 4], rows.div_ceil(64) as u32), pass("mean", &[0, 4, 5], 1)];
        Plain { passes, loss, grad }
    }

    pub fn submit(&self, ctx: &Context) {
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for (pipeline, group, groups) in &self.passes {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(*groups, 1, 1);
        }
        drop(pass);
        ctx.queue().submit([encoder.finish()]);
    }
}
