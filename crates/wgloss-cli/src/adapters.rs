//! `wgloss adapters`

use crate::device::DeviceArgs;
use crate::text::{self, Align};
use crate::{Fallible, Verdict};
use serde::Serialize;
use wgloss::Context;

#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The properties of an adapter that matter here.
#[derive(Serialize)]
struct Seen {
    name: String,
    backend: String,
    driver: String,
    r#type: String,
    picked: bool,
    max_storage_buffer_binding_size: u64,
    max_buffer_size: u64,
    max_storage_buffers_per_shader_stage: u32,
    max_compute_workgroups_per_dimension: u32,
    max_compute_workgroup_storage_size: u32,
    max_compute_invocations_per_workgroup: u32,
    min_storage_buffer_offset_alignment: u32,
    /// Lanes, at least and at most; none without subgroup operations.
    subgroup: Option<[u32; 2]>,
    timestamps: bool,
    f16: bool,
}

impl Seen {
    fn of(adapter: &wgpu::Adapter, picked: &wgpu::AdapterInfo) -> Seen {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let has = |feature: wgpu::Features| features.contains(feature);
        Seen {
            picked: info == *picked,
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            backend: format!("{:?}", info.backend),
            r#type: format!("{:?}", info.device_type),
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            max_buffer_size: limits.max_buffer_size,
            max_storage_buffers_per_shader_stage: limits.max_storage_buffers_per_shader_stage,
            max_compute_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
            max_compute_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
            min_storage_buffer_offset_alignment: limits.min_storage_buffer_offset_alignment,
            subgroup: has(wgpu::Features::SUBGROUP).then_some([info.subgroup_min_size, info.subgroup_max_size]),
            timestamps: has(wgpu::Features::TIMESTAMP_QUERY),
            f16: has(wgpu::Features::SHADER_F16),
            name: info.name,
        }
    }

    fn paragraph(&self) -> String {
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let subgroup = match self.subgroup {
            Some([least, most]) if least == most => format!("{least} lanes"),
            Some([least, most]) => format!("{least} to {most} lanes"),
            None => "no (workgroup memory is used)".to_owned(),
        };
        let rows = [
            ("backend", self.backend.clone()),
            ("type", self.r#type.clone()),
            ("driver", self.driver.clone()),
            (
                "largest binding",
                format!("{} (larger tensors run in chunks)", size(self.max_storage_buffer_binding_size)),
            ),
            ("largest buffer", size(self.max_buffer_size)),
            ("bindings a dispatch", self.max_storage_buffers_per_shader_stage.to_string()),
            ("workgroups along an axis", self.max_compute_workgroups_per_dimension.to_string()),
            ("invocations a workgroup", self.max_compute_invocations_per_workgroup.to_string()),
            ("workgroup memory", size(u64::from(self.max_compute_workgroup_storage_size))),
            ("offset alignment", format!("{} B", self.min_storage_buffer_offset_alignment)),
            ("subgroups", subgroup),
            ("timestamps", format!("{} (for bench and tune)", yes(self.timestamps))),
            ("f16 arithmetic", format!("{} (not needed: f16 and bf16 are storage types)", yes(self.f16))),
        ];
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, value)| vec![format!("  {what}"), value]).collect();
        let mark = if self.picked { "  <- picked" } else { "" };
        format!("{}{mark}\n{}", self.name, text::columns(&[Align::Left, Align::Left], &rows))
    }
}

/// Bytes in the largest binary unit that leaves a number of at least 1.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4) as usize;
    let number = format!("{:.2}", bytes as f64 / f64::from(1u32 << 10).powi(unit as i32));
    format!("{} {}", number.trim_end_matches('0').trim_end_matches('.'), units[unit])
}

pub fn run(device: &DeviceArgs, args: &Args) -> Fallible<Verdict> {
    let ctx: Context = device.open()?;
    let picked = ctx.adapter_info().ok_or("the context does not know its adapter")?;
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = device.backends();
    let adapters = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(device.backends()));
    let seen: Vec<Seen> = adapters.iter().map(|adapter| Seen::of(adapter, picked)).collect();
    if args.json {
        text::print(&(serde_json::to_string_pretty(&seen)? + "\n"))?;
        return Ok(Verdict::Right);
    }
    let all: Vec<String> = seen.iter().map(Seen::paragraph).collect();
    text::print(&all.join("\n"))?;
    Ok(Verdict::Right)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_in_the_largest_unit_that_fits() {
        let all = [0, 1023, 16 << 10, 128 << 20, (1 << 31) - 1, 3 << 29];
        assert_eq!(all.map(size), ["0 B", "1023 B", "16 KiB", "128 MiB", "2 GiB", "1.5 GiB"]);
    }
}
