//! The global arguments that say which adapter, and the context on it.

use clap::{Args, ValueEnum};
use wgloss::{Context, Result};

#[derive(Args)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    /// Take the first adapter with this in its name (case does not count) [default: the best one]
    #[arg(long, global = true, value_name = "NAME", env = "WGPU_ADAPTER_NAME", hide_env_values = true)]
    pub adapter: Option<String>,
    /// Look for adapters of this backend only [default: that of WGPU_BACKEND, else all]
    #[arg(long, global = true, value_enum, value_name = "BACKEND")]
    backend: Option<Backend>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    Vulkan,
    Metal,
    Dx12,
    Gl,
}

impl DeviceArgs {
    pub fn backends(&self) -> wgpu::Backends {
        match self.backend {
            Some(Backend::Vulkan) => wgpu::Backends::VULKAN,
            Some(Backend::Metal) => wgpu::Backends::METAL,
            Some(Backend::Dx12) => wgpu::Backends::DX12,
            Some(Backend::Gl) => wgpu::Backends::GL,
            None => wgpu::Backends::from_env().unwrap_or(wgpu::Backends::all()),
        }
    }

    /// A context on the adapter that was asked for.
    pub fn open(&self) -> Result<Context> {
        Context::choose(self.backends(), self.adapter.as_deref().filter(|name| !name.is_empty()))
    }
}
