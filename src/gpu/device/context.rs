//! A device to compute on: one of our own, or the caller's.

use crate::error::{Error, Result};
use crate::gpu::device::pipeline::PipelineCache;
use crate::gpu::device::probe::Probed;
use crate::limits::{Exp2, LARGEST_BINDING, Limits};
use std::sync::Arc;

/// A wgpu device and queue with a cache of pipelines. Cheap to clone; clones share the cache.
///
/// ```no_run
/// # fn main() -> wgloss::Result<()> {
/// let ctx = wgloss::Context::new()?;
/// println!("{}", ctx.adapter_name());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    adapter: String,
    info: Option<wgpu::AdapterInfo>,
    limits: Limits,
    pipelines: PipelineCache,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("adapter", &self.inner.adapter).field("limits", &self.inner.limits).finish()
    }
}

impl Context {
    /// A context of that device whose exponential was not measured.
    pub(crate) fn unprobed(device: wgpu::Device, queue: wgpu::Queue, adapter: Option<&wgpu::Adapter>) -> Context {
        let info = adapter.map(wgpu::Adapter::get_info);
        let name =
            info.as_ref().map_or_else(String::new, |info| format!("{} {}", info.name, info.driver).to_lowercase());
        let is = |known: &[&str]| known.iter().any(|known| name.contains(known));
        let mesa = is(&["llvmpipe", "lavapipe"]);
        let software = mesa
            || is(&["swiftshader", "softpipe", "basic render"])
            || info.as_ref().is_some_and(|info| info.device_type == wgpu::DeviceType::Cpu);
        let limits = Limits {
            subgroup: subgroup(&device, info.as_ref()),
            // Measured there; on a GPU a vector of 16 bytes is one load.
            wide: mesa && device.features().contains(wgpu::Features::SHADER_INT64),
            lane_registers: info.as_ref().map_or(0, lane_registers),
            ..limits(&device.limits(), software)
        };
        let adapter = info.as_ref().map_or_else(
            || "adapter not given".to_owned(),
            |info| format!("{} ({:?}, {} {})", info.name, info.backend, info.driver, info.driver_info),
        );
        let inner = Inner { device, queue, adapter, info, limits, pipelines: PipelineCache::default() };
        Context { inner: Arc::new(inner) }
    }

    /// What was measured of the adapter's arithmetic. Nobody else has the context yet.
    pub(crate) fn set_probed(&mut self, probed: Probed) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.limits.exp2 = probed.exp2;
            inner.limits.carries_nan = probed.carries_nan;
        }
    }

    /// Whether the other is this context, or a clone of it.
    pub(crate) fn is(&self, other: &Context) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// Name, backend and driver of the adapter.
    pub fn adapter_name(&self) -> &str {
        &self.inner.adapter
    }

    /// The adapter's own description; `None` for a device that was given without its adapter.
    pub fn adapter_info(&self) -> Option<&wgpu::AdapterInfo> {
        self.inner.info.as_ref()
    }

    /// Identity of the adapter: name, backend, driver, version; `None` for a device that was given without its adapter.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn adapter_key(&self) -> Option<[String; 4]> {
        let info = self.inner.info.as_ref()?;
        Some([info.name.clone(), format!("{:?}", info.backend), info.driver.clone(), info.driver_info.clone()])
    }

    /// The device's limits, as plain numbers.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Number of compiled kernels that the context holds: all kernels of live plans, and at most
    /// [`Context::IDLE_PIPELINES`] others, the last used ones.
    pub fn pipelines(&self) -> usize {
        self.inner.pipelines.len()
    }

    /// Most compiled kernels without a live plan that a context keeps for later plans, unless
    /// [`Context::keep_idle_pipelines`] sets another number. A kernel takes up to some megabytes.
    pub const IDLE_PIPELINES: usize = crate::gpu::device::pipeline::IDLE;

    /// Keeps at most `most` compiled kernels that no live plan holds; the least recently used ones go first.
    pub fn keep_idle_pipelines(&self, most: usize) {
        self.inner.pipelines.keep(most);
    }

    pub(crate) fn pipeline_cache(&self) -> &PipelineCache {
        &self.inner.pipelines
    }

    /// Makes a buffer; running out of memory is an error that the context survives.
    pub(crate) fn create_buffer(&self, what: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let bytes = bytes.max(16).checked_next_multiple_of(4).unwrap_or(u64::MAX);
        let allowed = self.inner.limits.buffer_bytes;
        if bytes > allowed {
            let what = what.to_owned();
            return Err(Error::Limit { what, needed: bytes, allowed, limit: "max_buffer_size" });
        }
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size: bytes, usage, mapped_at_creation: false };
        let buffer = self.caught(what, bytes, || self.device().create_buffer(&descriptor))?;
        self.check_device()?;
        Ok(buffer)
    }

    /// Copies bytes to a buffer that has `COPY_DST`, before what is submitted next.
    pub(crate) fn write(&self, what: &str, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        if !buffer.usage().contains(wgpu::BufferUsages::COPY_DST) {
            let message = "cannot be written from the host: it was made without BufferUsages::COPY_DST".to_owned();
            return Err(Error::Buffer { input: what.to_owned(), message });
        }
        self.caught(what, bytes.len() as u64, || self.queue().write_buffer(buffer, offset, bytes))?;
        self.check_device()
    }

    /// Records commands and submits them.
    pub(crate) fn submit(&self, what: &str, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<()> {
        self.scoped(what, || {
            let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            record(&mut encoder);
            self.queue().submit([encoder.finish()]);
        })
    }

    /// Waits until the device is idle.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn wait(&self) -> Result<()> {
        let poll = || self.device().poll(wgpu::PollType::wait_indefinitely());
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll)) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error::Device { message: error.to_string() }),
            // wgpu panics if a driver loses the device during a poll; any other panic comes from a callback.
            Err(panic) => match panic.downcast_ref::<String>() {
                Some(message) if message.starts_with("Error in Device::poll") => {
                    Err(Error::Device { message: message.clone() })
                }
                _ => std::panic::resume_unwind(panic),
            },
        }
    }

    /// Copies bytes back from a buffer that has `COPY_SRC`.
    pub(crate) async fn read(&self, what: &str, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        if !buffer.usage().contains(wgpu::BufferUsages::COPY_SRC) {
            let message = "cannot be read back: it was made without BufferUsages::COPY_SRC".to_owned();
            return Err(Error::Buffer { input: what.to_owned(), message });
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let readback = self.create_buffer("readback", bytes, usage)?;
        self.submit(what, |encoder| encoder.copy_buffer_to_buffer(buffer, offset, &readback, 0, bytes))?;
        let (sender, receiver) = futures_intrusive::channel::shared::oneshot_channel();
        self.caught(what, bytes, || {
            readback.map_async(wgpu::MapMode::Read, .., move |result| {
                // The receiver is gone only if the caller dropped this future.
                let _ = sender.send(result);
            });
        })?;
        // In a browser the event loop does the work.
        #[cfg(not(target_arch = "wasm32"))]
        self.wait()?;
        let lost = |message: String| Error::Device { message: format!("{what}: {message}") };
        match receiver.receive().await {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(lost(error.to_string())),
            None => return Err(lost("the device was lost before it answered".to_owned())),
        }
        let view = readback.get_mapped_range(..bytes).map_err(|error| lost(error.to_string()))?;
        Ok(view.to_vec())
    }

    /// Makes wgpu calls in error scopes, then checks the device: unscoped, wgpu panics on a validation error, and is silent
    /// about a lost device. Every call with a buffer or a kernel goes through here.
    pub(crate) fn scoped<T>(&self, what: &str, calls: impl FnOnce() -> T) -> Result<T> {
        let value = self.caught(what, 0, calls)?;
        self.check_device()?;
        Ok(value)
    }

    /// As [`Context::scoped`], without the check of the device; `bytes` is for the error of running out of memory.
    pub(crate) fn caught<T>(&self, what: &str, bytes: u64, calls: impl FnOnce() -> T) -> Result<T> {
        let scope = |filter| self.device().push_error_scope(filter);
        let memory = scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = scope(wgpu::ErrorFilter::Internal);
        let validation = scope(wgpu::ErrorFilter::Validation);
        let value = calls();
        let (validation, internal) = (resolved(validation.pop()), resolved(internal.pop()));
        if resolved(memory.pop()).is_some() {
            return Err(Error::OutOfMemory { what: what.to_owned(), bytes });
        }
        match validation.or(internal) {
            Some(error) => Err(Error::Device { message: format!("{what}: {error}") }),
            None => Ok(value),
        }
    }

    /// Fails if the device was lost or destroyed. wgpu reports that to one callback only, which is the caller's; but on a
    /// lost device a buffer that is mapped at creation is not mapped.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn check_device(&self) -> Result<()> {
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let descriptor =
            wgpu::BufferDescriptor { label: Some("wgloss sign of life"), size: 4, usage, mapped_at_creation: true };
        let mapped = self.caught("sign of life", 4, || {
            let buffer = self.device().create_buffer(&descriptor);
            buffer.get_mapped_range(..).map(drop)
        })?;
        mapped.map_err(|_| Error::Device { message: "the device was lost or destroyed".to_owned() })
    }

    /// In a browser only the device's `lost` promise reports a lost device.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn check_device(&self) -> Result<()> {
        Ok(())
    }
}

/// The result of an error scope, which wgpu has at once on native; in a browser, errors go to the device's handler.
fn resolved(future: impl Future<Output = Option<wgpu::Error>>) -> Option<wgpu::Error> {
    #[cfg(not(target_arch = "wasm32"))]
    return pollster::block_on(future);
    #[cfg(target_arch = "wasm32")]
    {
        drop(future);
        None
    }
}

fn limits(of: &wgpu::Limits, software: bool) -> Limits {
    Limits {
        storage_buffers: of.max_storage_buffers_per_shader_stage,
        workgroup_invocations: of.max_compute_invocations_per_workgroup.min(of.max_compute_workgroup_size_x),
        workgroups: of.max_compute_workgroups_per_dimension,
        workgroup_bytes: of.max_compute_workgroup_storage_size,
        binding_bytes: of.max_storage_buffer_binding_size.min(LARGEST_BINDING),
        buffer_bytes: of.max_buffer_size,
        offset_alignment: of.min_storage_buffer_offset_alignment.max(32),
        subgroup: 0,
        exp2: Exp2::Nothing,
        carries_nan: false,
        software,
        wide: false,
        lane_registers: 0,
    }
}

/// See [`Limits::lane_registers`]: those of AMD's RDNA, whose subgroups have 32 lanes, and of its other GPUs.
fn lane_registers(info: &wgpu::AdapterInfo) -> u32 {
    const AMD: u32 = 0x1002;
    match (info.vendor, info.subgroup_min_size) {
        (AMD, 32) => Limits::NAVI21.lane_registers,
        (AMD, _) => Limits::VEGA10.lane_registers,
        _ => 0,
    }
}

/// Lanes of a subgroup at least, where the device has subgroup operations and its adapter is known.
fn subgroup(device: &wgpu::Device, info: Option<&wgpu::AdapterInfo>) -> u32 {
    match info {
        Some(info) if device.features().contains(wgpu::Features::SUBGROUP) => info.subgroup_min_size,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_has_fewer_bytes_than_32_bits_count() {
        let of = |bytes| {
            limits(&wgpu::Limits { max_storage_buffer_binding_size: bytes, ..wgpu::Limits::default() }, false)
                .binding_bytes
        };
        assert_eq!((of(1 << 32), of(1 << 40)), (LARGEST_BINDING, LARGEST_BINDING));
        assert_eq!(of(1 << 27), 1 << 27);
        assert!(u32::try_from(LARGEST_BINDING).is_ok());
    }

    #[test]
    fn registers_are_counted_of_amd_alone() {
        let info = |vendor, lanes| wgpu::AdapterInfo { vendor, subgroup_min_size: lanes, ..info() };
        let of = |vendor, lanes| lane_registers(&info(vendor, lanes));
        assert_eq!([of(0x1002, 32), of(0x1002, 64), of(0x10de, 32), of(0, 0)], [128, 64, 0, 0]);
    }

    fn info() -> wgpu::AdapterInfo {
        wgpu::AdapterInfo::new(wgpu::DeviceType::DiscreteGpu, wgpu::Backend::Vulkan)
    }
}
