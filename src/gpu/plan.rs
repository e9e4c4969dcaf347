//! Plans: an operator prepared for shapes on a device, with its pipelines and its workspace.

use crate::dispatch::{Dispatch, Planned};
use crate::error::Result;
use crate::gpu::device::context::Context;
use crate::gpu::device::pipeline::Pipeline;
use crate::limits::Limits;
use crate::plan::operator::{Asked, Operator, Prepared, Tensors};
use crate::plan::spec::PlanSpec;
use crate::plan::tuning::Tuning;
use crate::schedule::Pinned;
use std::sync::{Arc, Mutex};

/// An operator prepared for shapes on a device, with its pipelines and its workspace. Made once, bound to as many
/// buffers as you like.
#[derive(Clone)]
pub struct Plan {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub ctx: Context,
    pub prepared: Arc<dyn Prepared>,
    /// Shared with the plans that tuning made of this one.
    work: Arc<Mutex<Option<wgpu::Buffer>>>,
    /// What tuning chose, where the tensors allow it.
    tuned: Option<Pinned>,
    pub tuning: Option<Tuning>,
    /// Of the planned shapes: the cache keeps what a plan holds.
    pipelines: Vec<Arc<Pipeline>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.pipelines.clear();
        self.ctx.pipeline_cache().trim();
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("loss", &self.inner.prepared.signature().name).finish_non_exhaustive()
    }
}

impl Context {
    /// Plans a loss, or another operator, for shapes: lowers, schedules, makes the pipelines.
    ///
    /// # Errors
    /// Everything that [`Error`](crate::Error) names for shapes, element types, parameters and limits; nothing is encoded.
    pub fn plan(&self, operator: &(impl Operator + ?Sized), spec: &PlanSpec) -> Result<Plan> {
        let limits: &Limits = self.limits();
        let mut plan = Inner {
            ctx: self.clone(),
            prepared: operator.prepare(spec, limits)?,
            work: Arc::default(),
            tuned: None,
            tuning: None,
            pipelines: Vec::new(),
        };
        plan.warm()?;
        Ok(Plan { inner: Arc::new(plan) })
    }
}

impl Inner {
    /// The same for another schedule: one that is pinned, or what tuning found.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn scheduled(&self, pinned: Pinned, tuned: Option<(Pinned, Tuning)>) -> Result<Inner> {
        let (tuned, tuning) = tuned.unzip();
        let mut other = Inner {
            ctx: self.ctx.clone(),
            prepared: self.prepared.pin(pinned),
            work: self.work.clone(),
            tuned,
            tuning,
            pipelines: Vec::new(),
        };
        other.warm()?;
        Ok(other)
    }

    /// Pipelines of the shapes that the plan was made for.
    fn warm(&mut self) -> Result<()> {
        let planned = self.planned()?;
        self.pipelines = planned.all().map(|dispatch| self.pipeline(dispatch)).collect::<Result<_>>()?;
        // All pipelines may have been there already.
        self.ctx.check_device()
    }

    /// What is asked of the plan beside its tensors.
    pub fn asked(&self, pooled: bool) -> Asked {
        Asked { pooled, tuned: self.tuned }
    }

    /// The dispatches for the shapes that the plan was made for.
    pub fn planned(&self) -> Result<Planned> {
        self.prepared.plan(&self.prepared.planned()?, self.asked(false))
    }

    pub fn pipeline(&self, dispatch: &Dispatch) -> Result<Arc<Pipeline>> {
        self.ctx.pipeline(dispatch)
    }

    /// What was chosen for these tensors and why.
    pub fn explain(&self, tensors: &Tensors, asked: Asked) -> Result<String> {
        let chosen = self.prepared.explain(tensors, asked, self.ctx.adapter_name())?;
        Ok(self.tuning.as_ref().map_or(chosen.clone(), |tuning| format!("{chosen}{tuning}")))
    }

    /// The shared workspace, grown where needed; one's own where it holds states between submits.
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
    /// What was chosen for the planned shapes and why: for each pass the schedule, how often it reads and writes each
    /// tensor, and the dispatches; for the whole plan the bytes that must move, and those that do; of a tuned plan,
    /// the candidates and their medians.
    /// Made when it is asked for.
    pub fn explain(&self) -> String {
        let inner = &self.inner;
        let explained = inner.prepared.planned().and_then(|tensors| inner.explain(&tensors, inner.asked(false)));
        explained.unwrap_or_else(|error| error.to_string())
    }

    /// WGSL of the kernels that run for the planned shapes, each once, in the order of their first dispatch. The first
    /// line of each says what it is.
    ///
    /// # Errors
    /// None for a plan that could be made.
    pub fn kernels(&self) -> Result<Vec<String>> {
        Ok(self.inner.planned()?.kernels())
    }

    /// What tuning found, if the plan comes from [`Plan::tune`].
    pub fn tuning(&self) -> Option<&Tuning> {
        self.inner.tuning.as_ref()
    }
}
