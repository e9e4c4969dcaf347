//! Compiles dispatches to compute pipelines.

use crate::dispatch::{Dispatch, FIRST_STORAGE};
use crate::error::Result;
use crate::gpu::device::context::Context;
use crate::gpu::device::pipeline::Pipeline;
use crate::gpu::device::trusted;
use std::sync::Arc;

impl Context {
    /// The pipeline of a dispatch, from the cache or compiled.
    pub(crate) fn pipeline(&self, dispatch: &Dispatch) -> Result<Arc<Pipeline>> {
        self.pipeline_cache().get(&dispatch.wgsl, || create(self, dispatch))
    }
}

fn create(ctx: &Context, dispatch: &Dispatch) -> Result<Pipeline> {
    let device = ctx.device();
    let label = dispatch.wgsl.lines().next().unwrap_or_default().trim_start_matches("// ");
    let entry = |binding: u32, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let mut entries: Vec<wgpu::BindGroupLayoutEntry> =
        dispatch.uniforms.iter().map(|(binding, _)| entry(*binding, wgpu::BufferBindingType::Uniform)).collect();
    for (binding, region) in (FIRST_STORAGE..).zip(&dispatch.storage) {
        let ty = wgpu::BufferBindingType::Storage { read_only: !region.writes };
        entries.push(entry(binding, ty));
    }
    ctx.scoped(&format!("kernel `{label}`"), || {
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let module = trusted::shader_module(device, label, &dispatch.wgsl);
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every lane writes its slot before any slot is read.
                zero_initialize_workgroup_memory: false,
                ..wgpu::PipelineCompilationOptions::default()
            },
            cache: None,
        });
        Pipeline { pipeline, layout }
    })
}
