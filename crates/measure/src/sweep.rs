//! One kernel over whole buffers, piece by piece where a buffer is larger than a binding.

use std::num::NonZeroU64;
use std::ops::Range;
use wgloss::Context;

/// Invocations of a workgroup: the kernels' own constant.
pub const WORKGROUP: u64 = 256;
/// Workgroups along x; more continue along y.
const GRID_X: u64 = 1 << 15;

/// A kernel whose workgroups take vectors in the order of y, then x. Invocations past the end do nothing.
pub struct Kernel<'a> {
    pub module: &'a wgpu::ShaderModule,
    pub entry_point: &'a str,
    /// Bytes of a vector.
    pub vector_bytes: u64,
    /// Vectors of an invocation.
    pub vectors: u64,
}

/// A dispatch over one piece.
struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    grid: [u32; 2],
}

/// One kernel over all of some buffers of one size.
pub struct Sweep(Vec<Dispatch>);

impl Sweep {
    /// Binds each piece of `buffers`, by number; `whole` is bound as it is to every dispatch. `constants` are the
    /// overrides of a piece, by its index.
    pub fn new(
        ctx: &Context,
        kernel: &Kernel<'_>,
        buffers: &[(u32, &wgpu::Buffer)],
        whole: Option<(u32, &wgpu::Buffer)>,
        constants: impl Fn(usize) -> Vec<(&'static str, f64)>,
    ) -> Sweep {
        let device = ctx.device();
        let dispatch = |(index, piece): (usize, Range<u64>)| {
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.entry_point),
                layout: None,
                module: kernel.module,
                entry_point: Some(kernel.entry_point),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &constants(index),
                    ..wgpu::PipelineCompilationOptions::default()
                },
                cache: None,
            });
            let mut entries: Vec<wgpu::BindGroupEntry<'_>> =
                buffers.iter().map(|&(binding, buffer)| part(binding, buffer, &piece)).collect();
            entries.extend(whole.map(|(binding, buffer)| {
                let resource = buffer.as_entire_binding();
                wgpu::BindGroupEntry { binding, resource }
            }));
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(kernel.entry_point),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            let vectors = (piece.end - piece.start) / kernel.vector_bytes;
            let groups = vectors.div_ceil(WORKGROUP * kernel.vectors);
            let grid = [groups.min(GRID_X) as u32, groups.div_ceil(GRID_X) as u32];
            Dispatch { pipeline, group, grid }
        };
        let bytes = buffers[0].1.size();
        Sweep(pieces(bytes, ctx.limits().binding_bytes).into_iter().enumerate().map(dispatch).collect())
    }

    /// Records it as one compute pass.
    pub fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        let mut pass =
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("sweep"), timestamp_writes });
        for Dispatch { pipeline, group, grid } in &self.0 {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(grid[0], grid[1], 1);
        }
    }
}

fn part<'b>(binding: u32, buffer: &'b wgpu::Buffer, piece: &Range<u64>) -> wgpu::BindGroupEntry<'b> {
    let size = NonZeroU64::new(piece.end - piece.start);
    let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: piece.start, size });
    wgpu::BindGroupEntry { binding, resource }
}

/// The fewest pieces that fit a binding; each begins where a binding may.
fn pieces(bytes: u64, binding: u64) -> Vec<Range<u64>> {
    let most = binding - binding % (1 << 16);
    (0..bytes).step_by(most as usize).map(|start| start..bytes.min(start + most)).collect()
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn pieces_cover_a_buffer_and_begin_at_aligned_offsets() {
        assert_eq!(pieces(100, 1 << 20), std::slice::from_ref(&(0..100)));
        assert_eq!(pieces(5 << 16, (2 << 16) + 7), [0..2 << 16, 2 << 16..4 << 16, 4 << 16..5 << 16]);
    }
}
