//! The benchmark's own kernels: they fill, poison and count over whole buffers.

use crate::Fallible;
use measure::sweep::{Kernel, Sweep};
use wgloss::{Context, DType, Tensor};

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
        self.run("fill", seed, (1, tensor), None);
    }

    /// Fills a tensor with a NaN that no kernel writes.
    pub fn poison(&self, tensor: &Tensor) {
        self.run("poison", 0, (1, tensor), None);
    }

    /// Vectors of a tensor that hold poison still.
    pub fn count_poison(&self, tensor: &Tensor) -> Fallible<u32> {
        let count = Tensor::zeros(self.ctx, DType::U32, &[1])?;
        self.run("count_poison", 0, (0, tensor), Some((2, count.buffer())));
        Ok(count.to_vec::<u32>()?[0])
    }

    fn run(&self, entry_point: &str, seed: u32, (at, tensor): (u32, &Tensor), whole: Option<(u32, &wgpu::Buffer)>) {
        let kernel = Kernel { module: &self.module, entry_point, vector_bytes: 16, vectors: 1 };
        // Numbers of a tensor's pieces differ. Only `fill` and `count_poison` look at these.
        let seed = |piece: usize| f64::from(seed.wrapping_mul(1009).wrapping_add(piece as u32) & 0xffff);
        let is_bf16 = f64::from(u8::from(tensor.dtype() == DType::BF16));
        let constants = |piece| vec![("SEED", seed(piece)), ("IS_BF16", is_bf16)];
        let sweep = Sweep::new(self.ctx, &kernel, &[(at, tensor.buffer())], whole, constants);
        let mut encoder = self.ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        sweep.encode(&mut encoder, None);
        self.ctx.queue().submit([encoder.finish()]);
    }
}
