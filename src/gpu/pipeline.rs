//! Compute pipelines, made once for each source.

use super::context::Context;
use super::trusted;
use crate::codegen::KernelSource;
use crate::error::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// A pipeline and the layout of its bindings.
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

#[derive(Default)]
pub(super) struct PipelineCache {
    known: Mutex<HashMap<String, Arc<Pipeline>>>,
    /// Kernels to break, by their titles.
    #[cfg(feature = "cli")]
    broken: std::sync::OnceLock<String>,
}

/// Uniforms of a kernel: binding 0 and 1, and for reductions one after the storage buffers.
fn uniforms(source: &KernelSource, trailing: bool) -> Vec<u32> {
    let mut all = vec![0, 1];
    if trailing {
        all.push(source.bindings.len() as u32 + 2);
    }
    all
}

impl PipelineCache {
    /// The pipeline of a source; `trailing` says that a uniform follows the storage buffers.
    pub fn get(&self, ctx: &Context, source: &KernelSource, trailing: bool) -> Result<Arc<Pipeline>> {
        let poisoned = "the pipeline cache is only locked for map operations, which do not panic";
        let key = &source.wgsl;
        if let Some(found) = self.known.lock().expect(poisoned).get(key) {
            return Ok(found.clone());
        }
        #[cfg(feature = "cli")]
        let source = &self.broken(source);
        let made = Arc::new(create(ctx, source, &uniforms(source, trailing))?);
        self.known.lock().expect(poisoned).insert(key.clone(), made.clone());
        Ok(made)
    }

    #[cfg(feature = "cli")]
    pub fn break_titled(&self, title: &str) {
        self.broken.get_or_init(|| title.to_owned());
    }

    #[cfg(feature = "cli")]
    fn broken(&self, source: &KernelSource) -> KernelSource {
        let title = source.wgsl.lines().next().unwrap_or_default();
        match self.broken.get() {
            Some(part) if title.contains(part.as_str()) => {
                KernelSource { wgsl: super::broken::without_last_column(&source.wgsl), ..source.clone() }
            }
            _ => source.clone(),
        }
    }
}

fn create(ctx: &Context, source: &KernelSource, uniforms: &[u32]) -> Result<Pipeline> {
    let device = ctx.device();
    let label = source.wgsl.lines().next().unwrap_or_default().trim_start_matches("// ");
    let entry = |binding: u32, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let mut entries: Vec<wgpu::BindGroupLayoutEntry> =
        uniforms.iter().map(|&binding| entry(binding, wgpu::BufferBindingType::Uniform)).collect();
    for (place, binding) in source.bindings.iter().enumerate() {
        let ty = wgpu::BufferBindingType::Storage { read_only: !binding.writes };
        entries.push(entry(place as u32 + 2, ty));
    }
    ctx.scoped(&format!("kernel `{label}`"), || {
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let module = trusted::shader_module(device, label, &source.wgsl);
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every lane writes its slot before any is read.
                zero_initialize_workgroup_memory: false,
                ..wgpu::PipelineCompilationOptions::default()
            },
            cache: None,
        });
        Pipeline { pipeline, layout }
    })
}
