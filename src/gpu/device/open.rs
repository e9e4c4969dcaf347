//! Opening a device: finding an adapter, or taking the caller's; measuring the accuracy of its exponential.

use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::device::adapter::find;
use crate::gpu::device::adapter::find_by_env;
use crate::gpu::device::context::Context;
use crate::gpu::device::probe::Probed;

impl Context {
    /// The best adapter there is, with its limits ([`Context::required_limits`]). `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` choose as elsewhere
    /// in wgpu. Blocks.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], which says how to get a software adapter; [`Error::Device`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new() -> Result<Context> {
        pollster::block_on(Context::new_async())
    }

    /// The best adapter of those backends, or the first one whose name contains `name` (case does not count), with its
    /// limits. Blocks.
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

    /// The features of that adapter that kernels make use of: request them, with your own, for a device that
    /// [`Context::from_wgpu`] shares. Kernels run without any of them, on most adapters slower.
    ///
    /// ```no_run
    /// use wgloss::{Context, wgpu};
    /// async fn shared(adapter: &wgpu::Adapter) -> Result<Context, Box<dyn std::error::Error>> {
    ///     let own = wgpu::Limits { max_bind_groups: 4, ..wgpu::Limits::default() };
    ///     let descriptor = wgpu::DeviceDescriptor {
    ///         required_features: Context::required_features(adapter) | wgpu::Features::empty(), // and your own
    ///         required_limits: Context::required_limits(adapter).or_better_values_from(&own),
    ///         ..wgpu::DeviceDescriptor::default()
    ///     };
    ///     let (device, queue) = adapter.request_device(&descriptor).await?;
    ///     Ok(Context::from_wgpu(device, queue, Some(adapter))?)
    /// }
    /// ```
    pub fn required_features(adapter: &wgpu::Adapter) -> wgpu::Features {
        // Timestamps are for tuning and benchmarks, 64-bit integers for Mesa's software driver.
        let used = wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SHADER_INT64;
        adapter.features() & used
    }

    /// The limits with which kernels get all that the adapter has: its own for storage buffers and workgroups, and
    /// otherwise WebGPU's defaults, or the adapter's where these are less. For a device that [`Context::from_wgpu`]
    /// shares; see [`Context::required_features`].
    pub fn required_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
        let all = adapter.limits();
        wgpu::Limits {
            max_storage_buffers_per_shader_stage: all.max_storage_buffers_per_shader_stage,
            max_storage_buffer_binding_size: all.max_storage_buffer_binding_size,
            max_buffer_size: all.max_buffer_size,
            min_storage_buffer_offset_alignment: all.min_storage_buffer_offset_alignment,
            max_compute_workgroup_storage_size: all.max_compute_workgroup_storage_size,
            max_compute_invocations_per_workgroup: all.max_compute_invocations_per_workgroup,
            max_compute_workgroup_size_x: all.max_compute_workgroup_size_x,
            max_compute_workgroups_per_dimension: all.max_compute_workgroups_per_dimension,
            ..wgpu::Limits::default().or_worse_values_from(&all)
        }
    }

    async fn request(adapter: wgpu::Adapter, limits: Option<wgpu::Limits>) -> Result<Context> {
        let used = Context::required_features(&adapter);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wgloss"),
            required_features: if limits.is_none() { used } else { wgpu::Features::empty() },
            required_limits: limits.unwrap_or_else(|| Context::required_limits(&adapter)),
            ..wgpu::DeviceDescriptor::default()
        };
        let device = adapter.request_device(&descriptor).await;
        let (device, queue) = device.map_err(|error| Error::Device { message: error.to_string() })?;
        Context::probed(device, queue, Some(&adapter)).await
    }

    /// Shares a device that the caller made. Give the adapter, where it is known, so that kernels suit it: then one
    /// small dispatch is submitted, and waited for, that measures the adapter's exponential, and what its arithmetic makes of
    /// NaN (not in a browser).
    ///
    /// No feature is needed. `SUBGROUP` is used where the device has it, on Mesa's software driver `SHADER_INT64`, and
    /// `TIMESTAMP_QUERY` to tune: [`Context::required_features`] and [`Context::required_limits`] say what to request.
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
        if adapter.is_some() && !ctx.limits().software {
            let probed = Probed::of(&ctx).await;
            ctx.set_probed(probed);
        }
        Ok(ctx)
    }
}
