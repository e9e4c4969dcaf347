//! The choice of an adapter.

use crate::error::{Error, Result};

/// The adapter that `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` choose; the best one if they are unset.
pub(crate) async fn find_by_env() -> Result<wgpu::Adapter> {
    let name = std::env::var("WGPU_ADAPTER_NAME").ok().filter(|name| !name.is_empty());
    find(wgpu::Backends::from_env().unwrap_or(wgpu::Backends::all()), name.as_deref()).await
}

/// The best adapter of those backends, or the first one whose name contains `name`.
pub(crate) async fn find(backends: wgpu::Backends, name: Option<&str>) -> Result<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    let instance = wgpu::Instance::new(descriptor);
    // A browser shows one adapter at most, and tells little of it.
    #[cfg(not(target_arch = "wasm32"))]
    if let Some(name) = name {
        return named(instance.enumerate_adapters(backends).await, backends, name);
    }
    #[cfg(target_arch = "wasm32")]
    let _ = name;
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..wgpu::RequestAdapterOptions::default()
    };
    instance.request_adapter(&options).await.map_err(|error| none(backends, &error.to_string()))
}

#[cfg(not(target_arch = "wasm32"))]
fn named(adapters: Vec<wgpu::Adapter>, backends: wgpu::Backends, name: &str) -> Result<wgpu::Adapter> {
    if adapters.is_empty() {
        return Err(none(backends, "there is none"));
    }
    let known: Vec<String> = adapters.iter().map(|adapter| format!("`{}`", adapter.get_info().name)).collect();
    let is_named = |adapter: &wgpu::Adapter| adapter.get_info().name.to_lowercase().contains(&name.to_lowercase());
    adapters.into_iter().find(is_named).ok_or_else(|| {
        let message = format!("none of {backends:?} has `{name}` in its name; there are {}", known.join(", "));
        Error::NoAdapter { message }
    })
}

fn none(backends: wgpu::Backends, why: &str) -> Error {
    let message = format!(
        "looked for {backends:?}: {why}. A software adapter will do: Mesa's llvmpipe \
         (`apt-get install mesa-vulkan-drivers` on Debian and Ubuntu)"
    );
    Error::NoAdapter { message }
}
