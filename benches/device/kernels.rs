//! The benchmark's own kernels: they fill, poison, count and copy whole buffers, piece by piece where a buffer is
//! larger than a binding.

use crate::Fallible;
use std::ops::Range;
use wgloss::{Context, DType, Tensor};

const WORKGROUP: u64 = 256;
const GRID_X: u64 = 1 << 15;
const VECTOR: u64 = 16;

/// A dispatch of one of the kernels.
struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    grid: [u32; 2],
}

/// One kernel over all of a buffer.
pub struct Sweep(Vec<Dispatch>);

impl Sweep {
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for Dispatch { pipeline, group, grid } in &self.0 {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(grid[0], grid[1], 1);
        }
    }
}

pub struct Kernels<'a> {
    ctx: &'a Context,
    module: wgpu::ShaderModule,
}

impl<'a> Kernels<'a> {
    pub fn new(ctx: &'a Context) -> Kernels<'a> {
        let module = ctx.device().create_shader_module(wgpu::include_wgsl!("kernels.wgsl"));
        Kernels { ctx, module }
    }

    /// Fills a tensor with numbers of its type.
    pub fn fill(&self, tensor: &Tensor, seed: u32) {
        self.submit(&self.sweep("fill", seed, tensor.dtype(), &[(1, tensor.buffer())], None));
    }

    /// Fills a tensor with what no kernel writes.
    pub fn poison(&self, tensor: &Tensor) {
        self.submit(&self.sweep("poison", 0, tensor.dtype(), &[(1, tensor.buffer())], None));
    }

    /// How many vectors of a tensor hold poison still.
    pub fn count_poison(&self, tensor: &Tensor) -> Fallible<u32> {
        let count = Tensor::zeros(self.ctx, DType::U32, &[1])?;
        self.submit(&self.sweep("count_poison", 0, tensor.dtype(), &[(0, tensor.buffer())], Some(count.buffer())));
        Ok(count.to_vec::<u32>()?[0])
    }

    /// `copy1` or `copy4`, from buffer to buffer of one size.
    pub fn copy(&self, kernel: &str, source: &Tensor, sink: &Tensor) -> Sweep {
        self.sweep(kernel, 0, DType::U32, &[(0, source.buffer()), (1, sink.buffer())], None)
    }

    fn submit(&self, sweep: &Sweep) {
        let mut encoder = self.ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        sweep.encode(&mut encoder);
        self.ctx.queue().submit([encoder.finish()]);
    }

    fn sweep(
        &self,
        kernel: &str,
        seed: u32,
        dtype: DType,
        buffers: &[(u32, &wgpu::Buffer)],
        count: Option<&wgpu::Buffer>,
    ) -> Sweep {
        let device = self.ctx.device();
        let vectors = if kernel == "copy4" { 4 * WORKGROUP } else { WORKGROUP };
        let dispatch = |(k, piece): (usize, Range<u64>)| {
            // Only `fill` and `count_poison` look at these.
            let seed = f64::from(seed.wrapping_mul(1009).wrapping_add(k as u32) & 0xffff);
            let is_bf16 = f64::from(u8::from(dtype == DType::BF16));
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel),
                layout: None,
                module: &self.module,
                entry_point: Some(kernel),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[("SEED", seed), ("IS_BF16", is_bf16)],
                    ..wgpu::PipelineCompilationOptions::default()
                },
                cache: None,
            });
            let mut entries: Vec<wgpu::BindGroupEntry<'_>> =
                buffers.iter().map(|&(binding, buffer)| part(binding, buffer, &piece)).collect();
            if let Some(count) = count {
                entries.push(wgpu::BindGroupEntry { binding: 2, resource: count.as_entire_binding() });
            }
            let layout = pipeline.get_bind_group_layout(0);
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(kernel),
                layout: &layout,
                entries: &entries,
            });
            let groups = ((piece.end - piece.start) / VECTOR).div_ceil(vectors);
            let grid = [groups.min(GRID_X) as u32, groups.div_ceil(GRID_X) as u32];
            Dispatch { pipeline, group, grid }
        };
        let bytes = buffers[0].1.size();
        Sweep(pieces(bytes, self.ctx.limits().binding_bytes).into_iter().enumerate().map(dispatch).collect())
    }
}

fn part<'b>(binding: u32, buffer: &'b wgpu::Buffer, piece: &Range<u64>) -> wgpu::BindGroupEntry<'b> {
    let size = std::num::NonZeroU64::new(piece.end - piece.start);
    wgpu::BindGroupEntry {
        binding,
        resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: piece.start, size }),
    }
}

/// The fewest pieces that fit a binding; each begins where a binding may.
fn pieces(bytes: u64, binding: u64) -> Vec<Range<u64>> {
    let most = binding - binding % (1 << 16);
    (0..bytes).step_by(most as usize).map(|start| start..bytes.min(start + most)).collect()
}
