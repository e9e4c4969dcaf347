//! What a device allows and is, as plain numbers: plans are made from these alone.

mod presets;

use crate::error::{Error, Result};

/// What a device allows and is, as plain numbers. Fields may be added: finish a literal with `..Limits::WEBGPU`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Storage buffers of one dispatch.
    pub storage_buffers: u32,
    /// Invocations of a workgroup.
    pub workgroup_invocations: u32,
    /// Workgroups along an axis of the grid.
    pub workgroups: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Bytes of one storage binding.
    pub binding_bytes: u64,
    /// Bytes of one buffer.
    pub buffer_bytes: u64,
    /// Alignment of a storage binding's offset.
    pub offset_alignment: u32,
    /// Lanes of a subgroup, at least; 0 where there are no subgroup operations.
    pub subgroup: u32,
    /// What may be made of the adapter's exp2, as was measured.
    pub exp2: Exp2,
    /// Whether the adapter carries NaN through exp2, products and sums, as was measured: a row's sum of exponentials then
    /// finds it, the sums of a run of elements, and a sum of stored values. Elsewhere the bits of each element are looked at.
    pub carries_nan: bool,
    /// Whether a CPU runs the kernels: short workgroups then, since each invocation is a lane of one core.
    pub software: bool,
    /// Whether words are best loaded two at a time, as 64-bit integers: what the loads of Mesa's software drivers cost
    /// is counted in lanes, not in bytes.
    pub wide: bool,
    /// Vector registers of a lane in a workgroup of 1,024 invocations, where a kernel that needs more is slow: AMD's
    /// compilers spill to memory. 0 elsewhere: schedules do not count them.
    pub lane_registers: u32,
}

/// What is made of an adapter's exp2, in the place of functions of wgloss's own. A context measures it.
///
/// ```
/// use wgloss::{Exp2, Limits};
/// assert_eq!(Limits::NAVI21.exp2, Exp2::Nothing, "of a GPU that is not here nothing is known");
/// assert!(Exp2::Functions > Exp2::Sums);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exp2 {
    /// Nothing.
    #[default]
    Nothing,
    /// The terms of softmax rows: where they are small beside the largest, they may err more.
    Sums,
    /// Functions of elements, too, which also take its inverseSqrt, its log and comparisons with NaN.
    Functions,
}

/// Bytes of the largest binding that kernels get: Metal's of 4 GiB and more miscompute in silence, since wgpu tells kernels
/// their sizes in 32 bits (wgpu#10305).
pub(crate) const LARGEST_BINDING: u64 = (1 << 32) - 16;

impl Limits {
    /// Whether kernels run at all on a device with these limits: one without compute shaders has limits of 0.
    pub(crate) fn check(&self) -> Result<()> {
        const INVOCATIONS: &str = "max_compute_invocations_per_workgroup";
        let least = [
            ("a dispatch", 1, u64::from(self.workgroups), "max_compute_workgroups_per_dimension"),
            ("a workgroup that adds up sums", LEAST_INVOCATIONS, self.workgroup_invocations.into(), INVOCATIONS),
            ("a dispatch", 1, self.storage_buffers.into(), "max_storage_buffers_per_shader_stage"),
            ("a binding", 16, self.binding_bytes, "max_storage_buffer_binding_size"),
            ("a buffer", 16, self.buffer_bytes, "max_buffer_size"),
            ("a vector's alignment", 16, self.offset_alignment.into(), "min_storage_buffer_offset_alignment"),
        ];
        match least.into_iter().find(|(_, needed, allowed, _)| allowed < needed) {
            Some((what, needed, allowed, limit)) => Err(Error::Limit { what: what.to_owned(), needed, allowed, limit }),
            None => Ok(()),
        }
    }

    /// Invocations of a workgroup, as far as they are a power of two: sums are halved step by step.
    pub(crate) fn invocations(&self) -> u32 {
        self.workgroup_invocations.checked_ilog2().map_or(0, |log| 1 << log)
    }
}

/// Invocations that every device must allow: those that add up sums on a software adapter.
const LEAST_INVOCATIONS: u64 = 32;
