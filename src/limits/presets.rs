//! Limits of GPUs that people have, to plan for without one.
//!
//! Each figure is what wgpu 30 makes of what the driver reports: offsets are aligned to 32 bytes at least; under Vulkan
//! a binding holds at most 2³¹ − 4 bytes, and a buffer, of drivers other than NVIDIA's on Linux and Android, at most
//! 2³¹ − 1 (`wgpu-hal`, `vulkan/adapter.rs` and `auxil/mod.rs`). Whether exp2 is accurate, and whether NaN goes through
//! arithmetic, is only known once measured.

use super::{Exp2, LARGEST_BINDING, Limits};

/// Storage buffers per dispatch, for drivers that allow more than any kernel binds.
const MORE_THAN_BOUND: u32 = 1000;
/// The largest binding under Vulkan, and the largest buffer of Mesa's drivers.
const VULKAN_BINDING: u64 = i32::MAX as u64 & !3;
const LARGEST_MESA_BUFFER: u64 = i32::MAX as u64;

/// A GPU under Vulkan; each preset states its differences.
const VULKAN: Limits = Limits {
    storage_buffers: MORE_THAN_BOUND,
    workgroup_invocations: 1024,
    workgroups: 65_535,
    workgroup_bytes: 64 << 10,
    binding_bytes: VULKAN_BINDING,
    buffer_bytes: LARGEST_MESA_BUFFER,
    offset_alignment: 32,
    subgroup: 0,
    exp2: Exp2::Nothing,
    carries_nan: false,
    software: false,
    wide: false,
    lane_registers: 0,
};

impl Limits {
    /// Limits of every WebGPU device: the default limits of the WebGPU specification (“Limits”), no optional feature.
    pub const WEBGPU: Limits = Limits {
        storage_buffers: 8,
        workgroup_invocations: 256,
        workgroups: 65_535,
        workgroup_bytes: 16 << 10,
        binding_bytes: 128 << 20,
        buffer_bytes: 256 << 20,
        offset_alignment: 256,
        subgroup: 0,
        exp2: Exp2::Nothing,
        carries_nan: false,
        software: false,
        wide: false,
        lane_registers: 0,
    };

    /// NVIDIA H100, NVIDIA's Vulkan driver. `maxComputeWorkGroupInvocations` 1024, `maxComputeSharedMemorySize` 48 KiB,
    /// `maxComputeWorkGroupCount` 65,535 along y and z, `maxStorageBufferRange` 2³² − 1, `maxMemoryAllocationSize`
    /// 0xffe00000, subgroups of 32: as that driver reports of data-centre and desktop GPUs since Turing. An H100
    /// and an H200 report all of these, and were probed to have an exp2 for softmax rows and to carry NaN (driver 580.159); for
    /// functions they were not probed.
    pub const H100: Limits = Limits {
        exp2: Exp2::Sums,
        carries_nan: true,
        workgroup_bytes: 48 << 10,
        buffer_bytes: 0xffe0_0000,
        subgroup: 32,
        ..VULKAN
    };

    /// AMD RDNA 2 (Radeon RX 6800 to 6950 XT), Mesa's RADV. `maxComputeWorkGroupInvocations` 1024,
    /// `maxComputeWorkGroupCount` 65,535 along y and z, `maxStorageBufferRange` 2³² − 1, `minSubgroupSize` 32 since
    /// GFX10 (Mesa, `radv_physical_device.c`); 64 KiB of LDS per workgroup (AMD, “RDNA 2 Instruction Set
    /// Architecture”); 1,024 registers of 32 lanes per SIMD, four of which run a workgroup: 128 per lane of 1,024.
    pub const NAVI21: Limits = Limits { subgroup: 32, lane_registers: 128, ..VULKAN };

    /// AMD GCN 5 (Radeon RX Vega, Instinct MI25), Mesa's RADV. As [`Limits::NAVI21`], but `minSubgroupSize` 64 before
    /// GFX10 (Mesa, `radv_physical_device.c`); 64 KiB of LDS per workgroup (AMD, “Vega Instruction Set Architecture”); 256
    /// registers of 64 lanes per SIMD, four of which run a workgroup: 64 per lane of 1,024.
    pub const VEGA10: Limits = Limits { subgroup: 64, lane_registers: 64, ..VULKAN };

    /// Apple M2 with 8 GB, Metal. 1,024 threads and 32 KiB of memory per threadgroup (Apple, “Metal Feature Set
    /// Tables”); 29 of 31 buffers, offsets of 32 bytes and subgroups of 4 at least: `wgpu-hal`, `metal/adapter.rs` and
    /// `metal/mod.rs` (the hardware's have 32 lanes, which Metal does not promise). `maxBufferLength` depends on the
    /// memory: half of 8 GB is taken here, an assumption on the safe side.
    pub const M2: Limits = Limits {
        storage_buffers: 29,
        workgroup_bytes: 32 << 10,
        binding_bytes: LARGEST_BINDING,
        buffer_bytes: 4 << 30,
        subgroup: 4,
        ..VULKAN
    };

    /// Intel Arc (Xe-HPG: A310 to A770), Mesa's ANV. `maxComputeWorkGroupInvocations` 1024, `maxComputeWorkGroupCount`
    /// 65,535, `minSubgroupSize` 8 before Xe2, `maxComputeSharedMemorySize` 64 KiB (Mesa, `anv_physical_device.c`).
    pub const ARC: Limits = Limits { subgroup: 8, ..VULKAN };

    /// Qualcomm Adreno 6xx and 7xx, Mesa's Turnip. `maxStorageBufferRange` 128 MiB (Mesa, `tu_common.h`, which matches
    /// Qualcomm's driver), workgroups of 1,024 along x, `maxComputeWorkGroupCount` 65,535, `minSubgroupSize` 64 (Mesa,
    /// `tu_device.cc`), `maxComputeSharedMemorySize` 32 KiB (`cs_shared_mem_size` in Mesa's device table; not yet
    /// compared).
    pub const ADRENO: Limits = Limits { workgroup_bytes: 32 << 10, binding_bytes: 128 << 20, subgroup: 64, ..VULKAN };

    /// The presets, by the names that [`Limits::preset`] knows.
    pub const PRESETS: [(&'static str, Limits); 7] = [
        ("webgpu", Limits::WEBGPU),
        ("h100", Limits::H100),
        ("navi21", Limits::NAVI21),
        ("vega10", Limits::VEGA10),
        ("m2", Limits::M2),
        ("arc", Limits::ARC),
        ("adreno", Limits::ADRENO),
    ];

    /// The limits of a GPU that need not be here.
    ///
    /// ```
    /// use wgloss::Limits;
    /// assert_eq!(Limits::preset("navi21"), Some(Limits::NAVI21));
    /// assert_eq!(Limits::preset("no such GPU"), None);
    /// ```
    pub fn preset(name: &str) -> Option<Limits> {
        Limits::PRESETS.into_iter().find(|(known, _)| *known == name).map(|(_, limits)| limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_allow_what_every_webgpu_device_does() {
        for (name, limits) in Limits::PRESETS {
            let least = Limits::WEBGPU;
            assert!(limits.check().is_ok(), "{name}");
            let pairs = [
                (u64::from(limits.storage_buffers), u64::from(least.storage_buffers)),
                (limits.workgroup_invocations.into(), least.workgroup_invocations.into()),
                (limits.workgroups.into(), least.workgroups.into()),
                (limits.workgroup_bytes.into(), least.workgroup_bytes.into()),
                (limits.binding_bytes, least.binding_bytes),
                (limits.buffer_bytes, least.buffer_bytes),
                (least.offset_alignment.into(), limits.offset_alignment.into()),
            ];
            assert!(pairs.iter().all(|(has, least)| has >= least), "{name}: {limits:?}");
            assert!(limits.binding_bytes <= limits.buffer_bytes && !limits.software, "{name}");
        }
    }
}
