//! Plans: an operator prepared for shapes on a device, with its pipelines and its workspace.

use crate::dispatch::Planned;
use crate::error::Result;
use crate::gpu::device::context::Context;
use crate::gpu::device::pipeline::Pipeline;
use crate::plan::operator::{Conditions, Operator, Prepared, Tensors};
use crate::plan::spec::PlanSpec;
use crate::plan::tuning::Tuning;
use crate::schedule::Pinned;
use std::sync::{Arc, Mutex};

/// An operator prepared for shapes on a device, with its pipelines and its workspace. Made once by [`Context::plan`],
/// bound to any number of buffers.
#[derive(Clone)]
pub struct Plan {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub ctx: Context,
    pub prepared: Arc<dyn Prepared>,
    /// Shared with the plans that tuning made of this one.
    work: Arc<Mutex<Option<wgpu::Buffer>>>,
    /// The tuned schedule, used where the tensors allow it.
    tuned: Option<Pinned>,
    pub tuning: Option<Tuning>,
    /// The dispatches for the planned shapes; holding their pipelines keeps these in the cache.
    ready: Option<Ready>,
}

/// Dispatches for some tensors, with their pipelines.
#[derive(Clone)]
pub(crate) struct Ready {
    tensors: Tensors,
    conditions: Conditions,
    /// The dispatches; of each kernel only the title, because its text is the pipeline's by now.
    pub planned: Arc<Planned>,
    /// Pipelines of [`Planned::all`], in that order.
    pub pipelines: Arc<[Arc<Pipeline>]>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ready = None;
        self.ctx.pipeline_cache().trim();
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("loss", &self.inner.prepared.signature().name).finish_non_exhaustive()
    }
}

impl Context {
    /// Plans a loss, or an operator of [`fused`](crate::fused), for shapes: lowers it, schedules its passes, compiles its
    /// kernels. Plan once, then bind and run as often as needed.
    ///
    /// ```no_run
    /// use wgloss::{Bindings, Context, DType, PlanSpec, Tensor, losses};
    /// # fn main() -> wgloss::Result<()> {
    /// let ctx = Context::new()?;
    /// let spec = PlanSpec::new().input("input", DType::F32, &[64, 10]).input("target", DType::I32, &[64]);
    /// let plan = ctx.plan(&losses::cross_entropy(), &spec.grad("input"))?;
    /// let logits = Tensor::zeros(&ctx, DType::F32, &[64, 10])?;
    /// let labels = Tensor::zeros(&ctx, DType::I32, &[64])?;
    /// let bound = plan.bind(&Bindings::new().input("input", &logits).input("target", &labels))?;
    /// bound.submit()?;
    /// println!("{}", bound.read_loss()?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The [`Error`](crate::Error)s of names, shapes, element types, parameters and limits;
    /// [`Error::Device`](crate::Error::Device) of a lost device.
    pub fn plan(&self, operator: &(impl Operator + ?Sized), spec: &PlanSpec) -> Result<Plan> {
        let mut plan = Inner {
            ctx: self.clone(),
            prepared: operator.prepare(spec, self.limits())?,
            work: Arc::default(),
            tuned: None,
            tuning: None,
            ready: None,
        };
        plan.warm()?;
        Ok(Plan { inner: Arc::new(plan) })
    }
}

impl Inner {
    /// The same plan with another schedule: pinned, or tuned.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn scheduled(&self, pinned: Pinned, tuned: Option<(Pinned, Tuning)>) -> Result<Inner> {
        let (tuned, tuning) = tuned.unzip();
        let mut other = Inner {
            ctx: self.ctx.clone(),
            prepared: self.prepared.pin(pinned),
            work: self.work.clone(),
            tuned,
            tuning,
            ready: None,
        };
        other.warm()?;
        Ok(other)
    }

    /// Makes the dispatches and the pipelines for the planned shapes.
    fn warm(&mut self) -> Result<()> {
        self.ready = Some(self.ready(self.prepared.planned()?, self.conditions(false))?);
        // If all pipelines were cached, the device was not called yet.
        self.ctx.check_device()
    }

    /// The dispatches for these tensors: those that the plan holds, or else made now.
    pub fn ready(&self, tensors: Tensors, conditions: Conditions) -> Result<Ready> {
        let is_known = |ready: &&Ready| ready.conditions == conditions && ready.tensors == tensors;
        if let Some(known) = self.ready.as_ref().filter(is_known) {
            return Ok(known.clone());
        }
        let mut planned = self.prepared.plan(&tensors, conditions)?;
        let pipelines = planned.all().map(|dispatch| self.ctx.pipeline(dispatch)).collect::<Result<_>>()?;
        for dispatch in planned.scalars.iter_mut().chain(&mut planned.dispatches) {
            dispatch.wgsl = dispatch.title().into();
        }
        Ok(Ready { tensors, conditions, planned: Arc::new(planned), pipelines })
    }

    /// The plan's conditions beside its tensors.
    pub fn conditions(&self, pooled: bool) -> Conditions {
        Conditions { pooled, tuned: self.tuned }
    }

    /// The schedules for these tensors and the reasons, then the outcome of tuning.
    pub fn explain(&self, tensors: &Tensors, conditions: Conditions) -> Result<String> {
        let chosen = self.prepared.explain(tensors, conditions, self.ctx.adapter_name())?;
        Ok(self.tuning.as_ref().map_or(chosen.clone(), |tuning| format!("{chosen}{tuning}")))
    }

    /// The shared workspace, grown if needed; a new buffer if it holds states between submits.
    pub fn workspace(&self, planned: &Planned) -> Result<wgpu::Buffer> {
        let bytes = 4 * planned.workspace;
        if planned.keeps_states {
            return self.ctx.create_buffer("wgloss workspace", bytes, wgpu::BufferUsages::STORAGE);
        }
        let mut work = self.work.lock().expect("the workspace is only locked to be replaced, which does not panic");
        match &*work {
            Some(buffer) if buffer.size() >= bytes => Ok(buffer.clone()),
            _ => {
                let usage = wgpu::BufferUsages::STORAGE;
                let buffer = self.ctx.create_buffer("wgloss workspace", bytes, usage)?;
                Ok(work.insert(buffer).clone())
            }
        }
    }
}

impl Plan {
    /// The schedules for the planned shapes, and the reasons: per pass its kernel, its reads and writes per tensor, and its
    /// dispatches; for the whole plan the bytes that must move, and the bytes that do; for a tuned plan also the
    /// candidates and their medians. Computed by this call.
    pub fn explain(&self) -> String {
        let inner = &self.inner;
        let explained = inner.prepared.planned().and_then(|tensors| inner.explain(&tensors, inner.conditions(false)));
        explained.unwrap_or_else(|error| error.to_string())
    }

    /// WGSL of the kernels that run for the planned shapes, each once, in the order of their first dispatch. The first
    /// line of each says what it is.
    ///
    /// # Errors
    /// None for a plan that could be made.
    pub fn kernels(&self) -> Result<Vec<String>> {
        let inner = &self.inner;
        Ok(inner.prepared.plan(&inner.prepared.planned()?, inner.conditions(false))?.kernels())
    }

    /// The outcome of tuning, if the plan comes from [`Plan::tune`].
    pub fn tuning(&self) -> Option<&Tuning> {
        self.inner.tuning.as_ref()
    }
}
