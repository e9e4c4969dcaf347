//! The one audited use of `unsafe`: shader modules without the compiler's bounds checks and loop bounding.
//!
//! Sound because
//! - every size and stride is checked on the host before a bind group is made: `gpu/tensor.rs` checks that a tensor's
//!   last element lies in its buffer, `plan/chunk.rs` that a chunk fits its binding, `schedule::check_sizes` that indices
//!   fit 32 bits;
//! - a tensor's last vector is loaded only if its buffer holds all of it; at a row's end, a pair of vectors loads only the
//!   vectors that have a column, and no binding is shorter than a pair (`plan/chunk.rs`);
//! - every index that comes from data (labels) is clamped or range-checked in the generated code before use, which
//!   `tests/lower/hostile.rs` shows with a canary behind the buffer;
//! - every loop in the skeletons counts up to a bound from a uniform by a step that is at least one.

#![allow(unsafe_code)]

/// A shader module of our own making, without run-time checks.
pub(crate) fn shader_module(device: &wgpu::Device, label: &str, wgsl: &str) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    // SAFETY: see the module's documentation.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}
