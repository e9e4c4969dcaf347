//! Kernels in the languages of all backends, each in the variant that the backend's limits get: naga writes them as wgpu
//! does, and validators take them where they are installed. Nothing is run.

use super::presets::spec;
use crate::common::is_in_share;
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};
use std::collections::BTreeSet;
use std::process::Command;
use wgloss::internals::plan::{Preview, preview};
use wgloss::{DType, Error, Exp2, Extent, Limits, Loss, Operator, PlanSpec, RowAxis, Scope, fused, losses};

/// A backend, and limits that its devices have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    /// Vulkan: SPIR-V, subgroups of 32 and of 64 lanes.
    Vulkan,
    /// Mesa's software driver, which loads words in pairs, as 64-bit integers.
    Lavapipe,
    /// Metal: MSL.
    Metal,
    /// Direct3D 12: HLSL.
    D3d12,
    /// OpenGL ES 3.1: GLSL, no subgroups.
    Gles,
    /// Browsers: WGSL as it is, in which loops are bounded and indices checked; no subgroups, no 64-bit integers.
    Browser,
}

impl Backend {
    const ALL: [Backend; 6] =
        [Backend::Vulkan, Backend::Lavapipe, Backend::Metal, Backend::D3d12, Backend::Gles, Backend::Browser];

    fn limits(self) -> Vec<Limits> {
        let lavapipe = Limits { software: true, wide: true, subgroup: 8, ..Limits::WEBGPU };
        match self {
            Backend::Vulkan => vec![Limits::H100, Limits::VEGA10, probed(&Limits::NAVI21)],
            Backend::Lavapipe => vec![lavapipe],
            Backend::Metal => vec![Limits::M2, probed(&Limits::M2)],
            // Group-shared memory of 32 KiB.
            Backend::D3d12 => vec![Limits { workgroup_bytes: 32 << 10, ..Limits::H100 }],
            Backend::Gles | Backend::Browser => vec![Limits::WEBGPU, probed(&Limits::WEBGPU)],
        }
    }

    /// What kernels may use there beyond WebGPU.
    fn capabilities(self) -> Capabilities {
        match self {
            Backend::Vulkan | Backend::Metal | Backend::D3d12 => Capabilities::SUBGROUP,
            Backend::Lavapipe => Capabilities::SUBGROUP | Capabilities::SHADER_INT64,
            Backend::Gles | Backend::Browser => Capabilities::empty(),
        }
    }

    /// The kernel in the backend's language, by way of naga.
    fn write(self, module: &Module, info: &ModuleInfo) -> Result<(), String> {
        match self {
            Backend::Vulkan | Backend::Lavapipe => spirv(module, info, false).map(drop),
            Backend::Browser => spirv(module, info, true).map(drop),
            Backend::Metal => metal(module, info),
            Backend::D3d12 => direct3d(module, info),
            Backend::Gles => opengl(module, info),
        }
    }
}

/// The same limits of an adapter whose exp2 and arithmetic with NaN were measured.
fn probed(limits: &Limits) -> Limits {
    Limits { exp2: Exp2::Functions, carries_nan: true, ..limits.clone() }
}

fn policies(checked: bool) -> BoundsCheckPolicies {
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    BoundsCheckPolicies { index: policy, buffer: policy, image_load: policy, binding_array: policy }
}

/// SPIR-V; with `checked`, as browsers have it: indices checked and loops bounded.
fn spirv(module: &Module, info: &ModuleInfo, checked: bool) -> Result<Vec<u32>, String> {
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        bounds_check_policies: policies(checked),
        force_loop_bounding: checked,
        ..spv::Options::default()
    };
    let entry = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".to_owned() };
    spv::write_vec(module, info, &options, Some(&entry)).map_err(|error| error.to_string())
}

fn metal(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let options = msl::Options {
        lang_version: (2, 4),
        fake_missing_bindings: true,
        bounds_check_policies: policies(false),
        force_loop_bounding: false,
        ..msl::Options::default()
    };
    let pipeline = msl::PipelineOptions::default();
    let (text, written) = msl::write_string(module, info, &options, &pipeline).map_err(|error| error.to_string())?;
    for entry in written.entry_point_names {
        entry.map_err(|error| error.to_string())?;
    }
    // Its tanh overflows: e^x / e^x is NaN from 44 up.
    if text.contains("metal::tanh") {
        return Err("it calls Metal's tanh, which is NaN where e^(2x) overflows".to_owned());
    }
    Ok(())
}

fn direct3d(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_0,
        fake_missing_bindings: true,
        restrict_indexing: false,
        force_loop_bounding: false,
        ..hlsl::Options::default()
    };
    let (mut text, pipeline) = (String::new(), hlsl::PipelineOptions::default());
    let written = hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None);
    for entry in written.map_err(|error| error.to_string())?.entry_point_names {
        entry.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn opengl(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let options = glsl::Options {
        version: glsl::Version::Embedded { version: 310, is_webgl: false },
        ..glsl::Options::default()
    };
    let (shader_stage, entry_point) = (ShaderStage::Compute, "main".to_owned());
    let pipeline = glsl::PipelineOptions { shader_stage, entry_point, multiview: None };
    let mut text = String::new();
    let writer = glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies(false));
    writer.and_then(|mut writer| writer.write()).map_err(|error| error.to_string()).map(drop)
}

/// A kernel that a backend with these capabilities takes.
fn validated(kernel: &str, capabilities: Capabilities) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(kernel).map_err(|error| error.emit_to_string(kernel))?;
    let mut validator = Validator::new(ValidationFlags::all(), capabilities | Capabilities::SHADER_FLOAT16_IN_FLOAT32);
    let info = validator.validate(&module).map_err(|error| error.emit_to_string(kernel))?;
    Ok((module, info))
}

/// One problem of each kernel family: held rows, streamed rows, split rows, pairs of rows, elements, sums by column, labels
/// by element, boxes.
const FAMILIES: [(&str, &[usize], DType); 16] = [
    ("cross_entropy", &[65_536, 10], DType::F32),
    ("cross_entropy", &[8192, 1000], DType::BF16),
    ("cross_entropy", &[1024, 32_000], DType::F16),
    ("cross_entropy", &[256, 128_256], DType::BF16),
    ("cross_entropy", &[2, 1 << 20], DType::F32),
    ("cross_entropy", &[16, 21, 4096], DType::BF16),
    ("cross_entropy", &[64, 50_257], DType::BF16),
    ("softcap_cross_entropy", &[64, 1001], DType::F16),
    ("jsd", &[1024, 32_000], DType::BF16),
    ("mse", &[8192, 1000], DType::BF16),
    ("bce_with_logits", &[77, 13], DType::F16),
    ("log_cosh", &[8192, 1001], DType::F32),
    ("dice_ce", &[16, 21, 4096], DType::F32),
    ("giou", &[65_536, 4], DType::BF16),
    ("ranknet", &[512, 100], DType::F32),
    ("list_mle", &[16, 4096], DType::F16),
];

/// Row losses of groups of unequal length.
fn ragged() -> (Loss, PlanSpec) {
    let loss = Loss::define("ragged").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
        let sum = b.input("x").sum();
        let off = sum - sum.sum_over(Scope::Group) / b.graph().count(Extent::GroupRows);
        off * off
    });
    let spec = PlanSpec::new().input("x", DType::F32, &[640, 33]).input("offsets", DType::I32, &[9]);
    (loss, spec.group_offsets("offsets").grad("x"))
}

/// The dispatches of every kernel family, with a name.
pub fn families(limits: &Limits) -> Vec<(String, Preview)> {
    let plan = |name: String, operator: &dyn Operator, spec: &PlanSpec| {
        let planned = preview(operator, spec, limits, "a backend");
        (name.clone(), planned.unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    let mut all = Vec::new();
    for (name, shape, dtype) in FAMILIES {
        let loss = (losses::entry(name).expect("a loss of the catalogue").make)();
        all.push(plan(format!("{name} {shape:?} {dtype}"), &loss, &spec(&loss, shape, dtype)));
    }
    let (loss, groups) = ragged();
    all.push(plan("groups of unequal length".to_owned(), &loss, &groups));
    let softmax = PlanSpec::new().input("input", DType::F32, &[512, 1000]);
    all.push(plan("softmax".to_owned(), &fused::softmax(), &softmax));
    all
}

/// Every kernel once: the families', and those of the losses in this share of the grid.
fn kernels(backend: Backend, limits: &Limits) -> BTreeSet<String> {
    let mut kernels: BTreeSet<String> = BTreeSet::new();
    for (_, preview) in families(limits) {
        kernels.extend(preview.planned.kernels());
    }
    for entry in losses::CATALOGUE {
        for (shape, dtype) in [([256, 1000], DType::F32), ([64, 50_257], DType::BF16)] {
            if is_in_share(&format!("{} {shape:?} {dtype} for {backend:?} {limits:?}", entry.name)) {
                let loss = (entry.make)();
                let planned = preview(&loss, &spec(&loss, &shape, dtype), limits, "a backend");
                // So many pairs are more than a software adapter's loops.
                if matches!(planned, Err(Error::Unsupported { .. })) && limits.software {
                    continue;
                }
                let planned = planned.unwrap_or_else(|error| panic!("{} {shape:?} {dtype}: {error}", entry.name));
                kernels.extend(planned.planned.kernels());
            }
        }
    }
    kernels
}

#[test]
fn every_backend_takes_the_kernels_that_its_limits_get() {
    for backend in Backend::ALL {
        let mut count = 0;
        for limits in backend.limits() {
            for kernel in kernels(backend, &limits) {
                let written =
                    validated(&kernel, backend.capabilities()).and_then(|(module, info)| backend.write(&module, &info));
                let title = kernel.lines().next().unwrap_or_default();
                written.unwrap_or_else(|error| panic!("{backend:?}, {title}: {error}"));
                count += 1;
            }
        }
        assert!(count >= FAMILIES.len(), "{backend:?}: {count} kernels");
    }
}

#[test]
fn a_kernel_for_more_than_a_backend_has_is_refused() {
    let kernels = |limits: &Limits| -> String {
        let all = families(limits).into_iter().map(|(_, preview)| preview.planned.kernels());
        let refused = |kernel: &String| validated(kernel, Backend::Browser.capabilities()).is_err();
        all.flatten().find(refused).expect("a kernel that needs more than WebGPU has")
    };
    let subgroups = kernels(&Limits::H100);
    assert!(subgroups.contains("subgroup"), "{}", subgroups.lines().next().unwrap_or_default());
    assert!(validated(&subgroups, Backend::Vulkan.capabilities()).is_ok());
    let wide = kernels(&Limits { software: true, wide: true, ..Limits::WEBGPU });
    assert!(wide.contains("u64") && validated(&wide, Backend::Lavapipe.capabilities()).is_ok());
    let tanh = "@group(0) @binding(2) var<storage, read_write> x: array<f32>;\n\
                @compute @workgroup_size(1) fn main() { x[0] = tanh(x[0]); }";
    let (module, info) = validated(tanh, Capabilities::empty()).expect("WGSL");
    assert!(metal(&module, &info).is_err_and(|error| error.contains("tanh")));
}

#[test]
fn spirv_val_takes_the_kernels() {
    if Command::new("spirv-val").arg("--version").output().is_err() {
        println!("spirv-val is not installed (Debian's spirv-tools has it): SPIR-V is not validated by it");
        return;
    }
    let folder = std::env::temp_dir().join(format!("wgloss-spirv-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    for backend in [Backend::Vulkan, Backend::Lavapipe, Backend::Browser] {
        let modules = backend.limits().into_iter().flat_map(|limits| kernels(backend, &limits));
        for (index, kernel) in modules.collect::<BTreeSet<String>>().into_iter().enumerate() {
            let (module, info) = validated(&kernel, backend.capabilities()).expect("a valid kernel");
            let words = spirv(&module, &info, backend == Backend::Browser).expect("a valid module");
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            std::fs::write(folder.join(format!("{backend:?}-{index}.spv")), bytes).expect("a file can be written");
        }
    }
    for entry in std::fs::read_dir(&folder).expect("the folder").flatten() {
        let checked = Command::new("spirv-val").args(["--target-env", "vulkan1.1"]).arg(entry.path()).output();
        let checked = checked.expect("it ran before");
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success(), "{}: {said}", entry.path().display());
    }
    std::fs::remove_dir_all(&folder).expect("the folder was made here");
}

/// Of tensors that are larger than a binding, a dispatch sees a part at a time.
#[test]
fn no_dispatch_binds_more_than_its_backend_allows() {
    const SIGNED: u64 = i32::MAX as u64;
    let loss = losses::cross_entropy();
    // 4.2 GB of f32.
    let shape = [20_500, 50_257];
    for (name, limits) in Limits::PRESETS {
        let limits = Limits { buffer_bytes: 1 << 40, ..limits };
        let planned = preview(&loss, &spec(&loss, &shape, DType::F32), &limits, name);
        let planned = planned.unwrap_or_else(|error| panic!("{name}: {error}")).planned;
        let regions = planned.dispatches.iter().flat_map(|dispatch| &dispatch.storage);
        let bytes: Vec<u64> = regions.filter_map(|region| region.bytes).map(|[begin, end]| end - begin).collect();
        let most = bytes.iter().copied().max().expect("parts of a tensor");
        assert!(most <= limits.binding_bytes, "{name}: {most} bytes of {}", limits.binding_bytes);
        // Metal's bindings of 4 GiB miscompute in silence; Vulkan's have no more than a signed 32-bit length.
        assert!(limits.binding_bytes < 1 << 32, "{name}");
        assert!(name == "m2" || most <= SIGNED, "{name}: {most} bytes");
    }
}
