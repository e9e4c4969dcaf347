//! Opening a device: finding an adapter, or taking the caller's; measuring the accuracy of its exponential.

use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::device::adapter::find;
use crate::gpu::device::adapter::find_by_env;
use crate::gpu::device::context::Context;
use crate::gpu::device::probe::exp2_is_accurate;

impl Context {
    /// The best adapter there is, with all its limits. `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` choose as elsewhere
    /// in wgpu. Blocks.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], which says how to get a software adapter; [`Error::Device`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new() -> Result<Context> {
        pollster::block_on(Context::new_async())
    }

    /// The best adapter of those backends, or the first one whose name contains `name` (case does not count), with all
    /// its limits. Blocks.
    ///
    /// ```no_run
    /// let ctx = wgloss::Context::choose(wgpu::Backends::VULKAN, Some("llvmpipe"))?;
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Context::new`]; of a name that no adapter has, [`Error::NoAdapter`] lists the adapters there are.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn choose(backends: wgpu::Backends, name: Option<&str>) -> Result<Context> {
        pollster::block_on(async { Context::request(find(backends, name).await?, None).await })
    }

    /// As [`Context::new`], without blocking.
    pub async fn new_async() -> Result<Context> {
        Context::request(find_by_env().await?, None).await
    }

    /// A device with these limits only, and no features, to test as on a smaller one. Blocks.
    ///
    /// # Errors
    /// As [`Context::new`]; [`Error::Device`] where the adapter allows less.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn with_limits(limits: wgpu::Limits) -> Result<Context> {
        pollster::block_on(async { Context::request(find_by_env().await?, Some(limits)).await })
    }

    async fn request(adapter: wgpu::Adapter, limits: Option<wgpu::Limits>) -> Result<Context> {
        // Timestamps are for tuning and benchmarks, 64-bit integers for Mesa's software driver.
        let all = wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SHADER_INT64;
        let wanted = if limits.is_none() { all } else { wgpu::Features::empty() };
        let required_limits = limits.unwrap_or_else(|| adapter.limits());
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wgloss"),
            required_limits,
            required_features: adapter.features() & wanted,
            ..wgpu::DeviceDescriptor::default()
        };
        let device = adapter.request_device(&descriptor).await;
        let (device, queue) = device.map_err(|error| Error::Device { message: error.to_string() })?;
        Context::probed(device, queue, Some(&adapter)).await
    }

    /// Shares a device that the caller made. Give the adapter, where it is known, so that kernels suit it: then one
    /// small dispatch is submitted, and waited for, that measures the adapter's exponential (not in a browser).
    ///
    /// No feature is needed. `SUBGROUP` is used where the device has it, on Mesa's software driver `SHADER_INT64`, and
    /// `TIMESTAMP_QUERY` to tune.
    ///
    /// # Errors
    /// [`Error::Device`] for a device that is lost or destroyed (not in a browser).
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue, adapter: Option<&wgpu::Adapter>) -> Result<Context> {
        #[cfg(not(target_arch = "wasm32"))]
        return pollster::block_on(Context::probed(device, queue, adapter));
        #[cfg(target_arch = "wasm32")]
        Ok(Context::unprobed(device, queue, adapter))
    }

    async fn probed(device: wgpu::Device, queue: wgpu::Queue, adapter: Option<&wgpu::Adapter>) -> Result<Context> {
        let mut ctx = Context::unprobed(device, queue, adapter);
        ctx.check_device()?;
        // A CPU gains nothing from its exp2.
        let exp2 = adapter.is_some() && !ctx.limits().software && exp2_is_accurate(&ctx).await;
        if exp2 {
            ctx.allow_exp2();
        }
        Ok(ctx)
    }
}
