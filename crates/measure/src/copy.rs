//! The copy that times are held against: kernels that copy, and the device's own command.

use crate::clock::Encode;
use crate::sweep::{Kernel, Sweep};
use wgloss::Context;

/// A copy from one buffer to another, half of its bytes read and half written.
pub struct Copy {
    /// One vector per invocation, and four; of 64-bit integers too, where the losses' kernels load those.
    kernels: Vec<(&'static str, Sweep)>,
    buffers: [wgpu::Buffer; 2],
    /// Bytes read and bytes written.
    pub bytes: u64,
}

impl Copy {
    /// Name of [`Copy::command`].
    pub const COMMAND: &'static str = "copy_buffer_to_buffer";

    /// As many bytes as a work moves, between buffers of its own; fewer, where a binding holds fewer.
    pub fn new(ctx: &Context, bytes: u64) -> Copy {
        let limits = ctx.limits();
        let most = limits.binding_bytes.min(limits.buffer_bytes);
        let size = (bytes / 2).next_multiple_of(256).min(most - most % 256).max(256);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = |label| {
            let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
            ctx.device().create_buffer(&descriptor)
        };
        Copy::between(ctx, [buffer("copy source"), buffer("copy sink")])
    }

    /// All of one buffer to another of the same size.
    pub fn between(ctx: &Context, buffers: [wgpu::Buffer; 2]) -> Copy {
        let source = include_str!("copy.wgsl");
        let kernel = |entry_point, vectors, is_wide: bool| {
            let source = if is_wide { source.replace("vec4<u32>", "vec4<u64>") } else { source.to_owned() };
            let module = &ctx.device().create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some("copy"),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
            let kernel = Kernel { module, entry_point, vector_bytes: if is_wide { 32 } else { 16 }, vectors };
            Sweep::new(ctx, &kernel, &[(0, &buffers[0]), (1, &buffers[1])], None, |_| Vec::new())
        };
        let mut kernels = vec![
            ("kernel, a vector an invocation", kernel("copy1", 1, false)),
            ("kernel, four vectors an invocation", kernel("copy4", 4, false)),
        ];
        if ctx.limits().wide {
            kernels.push(("kernel, a wide vector an invocation", kernel("copy1", 1, true)));
            kernels.push(("kernel, four wide vectors an invocation", kernel("copy4", 4, true)));
        }
        let bytes = 2 * buffers[0].size();
        Copy { kernels, buffers, bytes }
    }

    /// The device's own copy. It is no compute pass: only timestamps of whole commands or the wall clock can time it.
    pub fn command(&self) -> Box<Encode<'_>> {
        Box::new(|encoder, _| {
            encoder.copy_buffer_to_buffer(&self.buffers[0], 0, &self.buffers[1], 0, self.bytes / 2);
            Ok(())
        })
    }

    /// The kernels that copy, named, to be timed each.
    pub fn ways(&self) -> impl Iterator<Item = (&'static str, Box<Encode<'_>>)> {
        self.kernels.iter().map(|(name, sweep)| -> (&'static str, Box<Encode<'_>>) {
            let encode =
                Box::new(|encoder: &mut wgpu::CommandEncoder, writes: Option<wgpu::ComputePassTimestampWrites<'_>>| {
                    sweep.encode(encoder, writes);
                    Ok(())
                });
            (name, encode)
        })
    }
}
