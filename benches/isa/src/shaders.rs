//! WGSL to the languages that GPU compilers take, as wgpu writes it of a trusted module: no bounds checks, no loop
//! bounding, no zeroed workgroup memory.

use crate::Fallible;
use naga::back::{hlsl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage};

/// A storage or uniform buffer of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub binding: u32,
    pub is_uniform: bool,
}

/// A kernel for a Vulkan driver.
pub struct Spirv {
    pub words: Vec<u32>,
    /// The buffers that it binds in set 0.
    pub buffers: Vec<Buffer>,
    /// Invocations of a workgroup.
    pub workgroup: u32,
}

fn validated(wgsl: &str) -> Fallible<(Module, ModuleInfo)> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|error| error.emit_to_string(wgsl))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|error| error.emit_to_string(wgsl))?;
    Ok((module, info))
}

/// SPIR-V 1.3.
pub fn spirv(wgsl: &str) -> Fallible<Spirv> {
    let (module, info) = validated(wgsl)?;
    let unchecked = BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        ..spv::Options::default()
    };
    let entry = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".to_owned() };
    let words = spv::write_vec(&module, &info, &options, Some(&entry))?;
    let buffers = module.global_variables.iter().filter_map(|(_, variable)| {
        let binding = variable.binding.as_ref()?.binding;
        Some(Buffer { binding, is_uniform: variable.space == AddressSpace::Uniform })
    });
    let workgroup = module.entry_points[0].workgroup_size.iter().product();
    Ok(Spirv { words, buffers: buffers.collect(), workgroup })
}

/// HLSL of shader model 6.0.
pub fn hlsl(wgsl: &str) -> Fallible<String> {
    let (module, info) = validated(wgsl)?;
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_0,
        fake_missing_bindings: true,
        zero_initialize_workgroup_memory: false,
        restrict_indexing: false,
        force_loop_bounding: false,
        ..hlsl::Options::default()
    };
    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions::default();
    hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "
        @group(0) @binding(0) var<uniform> count: u32;
        @group(0) @binding(2) var<storage, read_write> values: array<f32>;
        @compute @workgroup_size(64)
        fn main(@builtin(global_invocation_id) id: vec3<u32>) {
            if (id.x < count) { values[id.x] = exp2(values[id.x]); }
        }";

    #[test]
    fn buffers_are_those_of_the_kernel() {
        let Spirv { words, buffers, workgroup } = spirv(KERNEL).unwrap();
        assert_eq!((words[0], workgroup), (0x0723_0203, 64), "SPIR-V's magic number, and the workgroup");
        let of = |binding, is_uniform| Buffer { binding, is_uniform };
        assert_eq!(buffers, [of(0, true), of(2, false)]);
        assert!(hlsl(KERNEL).unwrap().contains("numthreads(64, 1, 1)"));
    }

    #[test]
    fn an_invalid_kernel_is_an_error() {
        let error = spirv("fn main() -> u32 { return 1.5; }").err().unwrap().to_string();
        assert!(error.contains("return 1.5"), "{error}");
    }
}
