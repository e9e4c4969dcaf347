//! RADV, Mesa's driver for AMD GPUs, on "null" hardware: it compiles for a GPU that need not be here, and runs nothing.
//!
//! The driver reads `RADV_FORCE_FAMILY` when it is loaded, so that a process compiles for one family.

#![allow(unsafe_code)]

use crate::Fallible;
use crate::shaders::Buffer;
use ash::vk;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::{Path, PathBuf};

/// Folders where Vulkan loaders look for drivers.
const DRIVERS: [&str; 3] = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// The file that describes the driver to a Vulkan loader, if it is installed.
pub fn installed() -> Option<PathBuf> {
    let entries = DRIVERS.iter().filter_map(|folder| std::fs::read_dir(Path::new(folder)).ok()).flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    let is_radv =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("radeon_icd"));
    paths.filter(is_radv).min()
}

/// The driver's statistics of a kernel, and its machine code.
pub struct Compiled {
    statistics: BTreeMap<String, u64>,
    /// Machine code as text.
    pub code: String,
}

impl Compiled {
    /// A statistic by the driver's name for it.
    pub fn statistic(&self, name: &str) -> Fallible<u64> {
        let known = || self.statistics.keys().cloned().collect::<Vec<_>>().join(", ");
        let value = self.statistics.get(name).copied();
        value.ok_or_else(|| format!("the driver counts no `{name}`; it counts {}", known()).into())
    }
}

/// A device of the null hardware.
pub struct Gpu {
    /// Keeps the Vulkan library loaded.
    _entry: ash::Entry,
    device: ash::Device,
    executables: ash::khr::pipeline_executable_properties::Device,
}

impl Gpu {
    /// The device of the family in `RADV_FORCE_FAMILY`.
    pub fn open() -> Fallible<Gpu> {
        // SAFETY: calls in the order that Vulkan asks for, with structures that outlive them; nothing is destroyed before
        // the process ends.
        unsafe {
            let entry = ash::Entry::load()?;
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let info = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&info, None)?;
            let physical = *instance.enumerate_physical_devices()?.first().ok_or("the driver has no null device")?;
            let priorities = [1.0];
            let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&priorities)];
            let features = vk::PhysicalDeviceFeatures::default().shader_int64(true);
            let extensions = [ash::khr::pipeline_executable_properties::NAME.as_ptr()];
            let mut wanted =
                vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
            let info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_features(&features)
                .enabled_extension_names(&extensions)
                .push_next(&mut wanted);
            let device = instance.create_device(physical, &info, None)?;
            let executables = ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
            Ok(Gpu { _entry: entry, device, executables })
        }
    }

    /// Compiles a kernel with one entry point, `main`.
    pub fn compile(&self, words: &[u32], buffers: &[Buffer]) -> Fallible<Compiled> {
        let pipeline = self.pipeline(words, buffers)?;
        let of = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(0);
        // SAFETY: the pipeline is of this device and was made with the flags that these calls need.
        let compiled = unsafe {
            let known = vk::PipelineInfoKHR::default().pipeline(pipeline);
            let executables = self.executables.get_pipeline_executable_properties(&known)?;
            if executables.len() != 1 {
                return Err(format!("a pipeline of {} executables; one was expected", executables.len()).into());
            }
            let mut statistics = BTreeMap::new();
            for statistic in self.executables.get_pipeline_executable_statistics(&of)? {
                let name = statistic.name_as_c_str()?.to_string_lossy().into_owned();
                statistics.insert(name, statistic.value.u64);
            }
            Compiled { statistics, code: self.code(&of)? }
        };
        // SAFETY: it is used no more.
        unsafe { self.device.destroy_pipeline(pipeline, None) };
        Ok(compiled)
    }

    fn pipeline(&self, words: &[u32], buffers: &[Buffer]) -> Fallible<vk::Pipeline> {
        let binding = |buffer: &Buffer| {
            let kind = match buffer.is_uniform {
                true => vk::DescriptorType::UNIFORM_BUFFER,
                false => vk::DescriptorType::STORAGE_BUFFER,
            };
            let binding = vk::DescriptorSetLayoutBinding::default().binding(buffer.binding).descriptor_type(kind);
            binding.descriptor_count(1).stage_flags(vk::ShaderStageFlags::COMPUTE)
        };
        let bindings: Vec<_> = buffers.iter().map(binding).collect();
        let flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
            | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
        // SAFETY: as in `open`; layouts and module are destroyed once the pipeline is made, which does not need them.
        unsafe {
            let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let sets = [self.device.create_descriptor_set_layout(&info, None)?];
            let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            let layout = self.device.create_pipeline_layout(&info, None)?;
            let module = self.device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(words), None)?;
            let main: &CStr = c"main";
            let stage = vk::PipelineShaderStageCreateInfo::default().stage(vk::ShaderStageFlags::COMPUTE);
            let stage = stage.module(module).name(main);
            let info = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout).flags(flags)];
            let made = self.device.create_compute_pipelines(vk::PipelineCache::null(), &info, None);
            self.device.destroy_shader_module(module, None);
            self.device.destroy_pipeline_layout(layout, None);
            self.device.destroy_descriptor_set_layout(sets[0], None);
            made.map_err(|(_, error)| error)?.pop().ok_or_else(|| "no pipeline came back".into())
        }
    }

    /// The last of the forms that the driver has of a pipeline: its machine code.
    ///
    /// # Safety
    /// The pipeline was made with `CAPTURE_INTERNAL_REPRESENTATIONS_KHR`.
    unsafe fn code(&self, of: &vk::PipelineExecutableInfoKHR<'_>) -> Fallible<String> {
        // SAFETY: each text has the bytes that the driver asked for in the first call.
        unsafe {
            let mut forms = self.executables.get_pipeline_executable_internal_representations(of)?;
            let mut texts: Vec<Vec<u8>> = forms.iter().map(|form| vec![0; form.data_size]).collect();
            for (form, text) in forms.iter_mut().zip(&mut texts) {
                form.p_data = text.as_mut_ptr().cast();
            }
            let get = self.executables.fp().get_pipeline_executable_internal_representations_khr;
            let mut count = forms.len() as u32;
            get(self.device.handle(), of, &mut count, forms.as_mut_ptr()).result()?;
            let last = texts.last().ok_or("the driver gives no machine code")?;
            Ok(String::from_utf8_lossy(last).replace('\0', ""))
        }
    }
}
