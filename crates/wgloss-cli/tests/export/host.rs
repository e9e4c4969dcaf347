//! A WebGPU host that knows the manifest, and nothing else of wgloss: wgpu and a JSON parser.

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

pub struct Host {
    device: wgpu::Device,
    queue: wgpu::Queue,
}

/// A manifest with its kernels compiled.
pub struct Program<'h> {
    host: &'h Host,
    manifest: Value,
    modules: Vec<wgpu::ShaderModule>,
}

/// The buffers that were written: every output, and the status word.
pub struct Written {
    pub outputs: BTreeMap<String, Vec<u8>>,
    pub status: u32,
}

impl Host {
    /// A device with the limits that every WebGPU device has.
    pub fn new() -> Option<Host> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).ok()?;
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).ok()?;
        Some(Host { device, queue })
    }

    fn buffer(&self, bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let usage = usage | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage,
            mapped_at_creation: false,
        })
    }

    fn read(&self, buffer: &wgpu::Buffer) -> Vec<u8> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: buffer.size(),
            usage,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("the buffer can be mapped"));
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device is there");
        let bytes = staging.get_mapped_range(..).expect("the buffer is mapped");
        bytes.to_vec()
    }

    pub fn load(&self, folder: &Path) -> Program<'_> {
        let text = std::fs::read_to_string(folder.join("manifest.json")).expect("a manifest");
        let manifest: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(manifest["format"], "wgloss manifest 1");
        let module = |kernel: &Value| {
            let wgsl = std::fs::read_to_string(folder.join(text_of(&kernel["file"]))).expect("a kernel");
            // With all the checks that wgpu makes of a stranger's shader.
            self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: kernel["title"].as_str(),
                source: wgpu::ShaderSource::Wgsl(wgsl.into()),
            })
        };
        let modules = list(&manifest["kernels"]).iter().map(module).collect();
        Program { host: self, manifest, modules }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or_else(|| panic!("a list, not {value}"), Vec::as_slice)
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}"))
}

fn formula(formula: &Value, rows: u64, cols: u64) -> u64 {
    if let Some(number) = formula.as_u64() {
        return number;
    }
    match formula.as_str() {
        Some("rows") => return rows,
        Some("cols") => return cols,
        _ => {}
    }
    let [operator, a, b] = list(formula) else { panic!("no formula: {formula}") };
    let (a, b) = (self::formula(a, rows, cols), self::formula(b, rows, cols));
    match text_of(operator) {
        "add" => a + b,
        "mul" => a * b,
        "div_ceil" => a.div_ceil(b),
        "rem" => a % b,
        "min" => a.min(b),
        "max" => a.max(b),
        "equal" => u64::from(a == b),
        "at_most" => u64::from(a <= b),
        other => panic!("no operator {other}"),
    }
}

impl Program<'_> {
    /// The conditions that a shape does not meet.
    pub fn unmet(&self, rows: u64, cols: u64) -> Vec<String> {
        let conditions = list(&self.manifest["conditions"]).iter();
        let unmet = conditions.filter(|condition| formula(&condition["formula"], rows, cols) != 1);
        unmet.map(|condition| text_of(&condition["text"]).to_owned()).collect()
    }

    /// Buffers for one shape. Outputs start as NaN, so that an element left unwritten shows.
    fn buffers(&self, inputs: &[(&str, Vec<u8>)], rows: u64, cols: u64) -> HashMap<String, wgpu::Buffer> {
        let mut buffers = HashMap::new();
        for what in list(&self.manifest["buffers"]) {
            let (name, kind) = (text_of(&what["name"]), text_of(&what["kind"]));
            let bytes = formula(&what["bytes"], rows, cols);
            let usage = if kind == "uniform" { wgpu::BufferUsages::UNIFORM } else { wgpu::BufferUsages::STORAGE };
            let buffer = self.host.buffer(bytes, usage);
            let mut data = vec![if kind == "uniform" { 0 } else { 0xff }; bytes as usize];
            if kind == "input" {
                let (_, given) = inputs.iter().find(|(input, _)| *input == name).expect("every input is given");
                let title = text_of(&self.manifest["loss"]);
                assert!(given.len() <= data.len(), "{title}: {} B of {name} for {} B", given.len(), data.len());
                data[..given.len()].copy_from_slice(given);
            }
            for (index, word) in what["initial"].as_array().into_iter().flatten().enumerate() {
                let word = word.as_u64().expect("a word") as u32;
                data[4 * index..][..4].copy_from_slice(&word.to_le_bytes());
            }
            for field in what["fields"].as_array().into_iter().flatten() {
                let word = match (text_of(&field["type"]), &field["value"]) {
                    ("f32", value) if value.is_f64() => (value.as_f64().expect("a number") as f32).to_le_bytes(),
                    ("f32", value) => (formula(value, rows, cols) as f32).to_le_bytes(),
                    (_, value) => (formula(value, rows, cols) as u32).to_le_bytes(),
                };
                let offset = field["offset"].as_u64().expect("an offset") as usize;
                data[offset..][..4].copy_from_slice(&word);
            }
            self.host.queue.write_buffer(&buffer, 0, &data);
            buffers.insert(name.to_owned(), buffer);
        }
        buffers
    }

    /// Pipeline and bind group of a dispatch.
    fn bind(
        &self,
        dispatch: &Value,
        buffers: &HashMap<String, wgpu::Buffer>,
    ) -> (wgpu::ComputePipeline, wgpu::BindGroup) {
        let device = &self.host.device;
        let mut layout = Vec::new();
        let mut entries = Vec::new();
        for bound in list(&dispatch["bindings"]) {
            let binding = bound["binding"].as_u64().expect("a number") as u32;
            let ty = match text_of(&bound["type"]) {
                "uniform" => wgpu::BufferBindingType::Uniform,
                "storage" => wgpu::BufferBindingType::Storage { read_only: false },
                "read-only-storage" => wgpu::BufferBindingType::Storage { read_only: true },
                other => panic!("no binding type {other}"),
            };
            layout.push(wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            });
            let resource = buffers[text_of(&bound["buffer"])].as_entire_binding();
            entries.push(wgpu::BindGroupEntry { binding, resource });
        }
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &layout });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let kernel = dispatch["kernel"].as_u64().expect("an index") as usize;
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&pipeline_layout),
            module: &self.modules[kernel],
            entry_point: self.manifest["kernels"][kernel]["entry_point"].as_str(),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
        (pipeline, device.create_bind_group(&descriptor))
    }

    pub fn run(&self, inputs: &[(&str, Vec<u8>)], rows: u64, cols: u64) -> Written {
        assert_eq!(self.unmet(rows, cols), Vec::<String>::new());
        let Host { device, queue } = self.host;
        let buffers = self.buffers(inputs, rows, cols);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for copy in list(&self.manifest["copies"]) {
            let number = |name: &str| copy[name].as_u64().expect("a number");
            let (from, to) = (&buffers[text_of(&copy["from"])], &buffers[text_of(&copy["to"])]);
            encoder.copy_buffer_to_buffer(from, number("from_offset"), to, number("to_offset"), number("bytes"));
        }
        for dispatch in list(&self.manifest["dispatches"]) {
            let (pipeline, group) = self.bind(dispatch, &buffers);
            let [x, y, z] = list(&dispatch["grid"]) else { panic!("a grid of three") };
            let [x, y, z] = [x, y, z].map(|size| formula(size, rows, cols) as u32);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
        queue.submit([encoder.finish()]);
        let outputs = list(&self.manifest["buffers"]).iter().filter(|what| what["kind"] == "output");
        let outputs = outputs.map(|what| {
            let name = text_of(&what["name"]).to_owned();
            let bytes = self.host.read(&buffers[&name]);
            (name, bytes)
        });
        let status = &self.manifest["status"];
        let words = self.host.read(&buffers[text_of(&status["buffer"])]);
        let offset = status["offset"].as_u64().expect("an offset") as usize;
        let word = u32::from_le_bytes(words[offset..][..4].try_into().expect("four bytes"));
        Written { outputs: outputs.collect(), status: word }
    }
}
