//! Plans: a loss compiled for shapes on a device, with its pipelines and its workspace.

use crate::error::Result;
use crate::gpu::device::context::Context;
use crate::gpu::device::pipeline::Pipeline;
use crate::loss::Loss;
use crate::plan::compiled::{BoundIo, Compiled};
use crate::plan::passes::Resolved;
use crate::plan::problem::Step;
use crate::plan::spec::PlanSpec;
use crate::plan::tuning::Tuning;
use crate::schedule::Force;
use crate::shape::Geometry;
use std::sync::{Arc, Mutex};

/// A loss compiled for shapes: program, pipelines, workspace. Made once, bound to as many buffers as you like.
#[derive(Clone)]
pub struct Plan {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub ctx: Context,
    pub compiled: Compiled,
    /// Shared with the plans that tuning made of this one.
    work: Arc<Mutex<Option<wgpu::Buffer>>>,
    /// What tuning chose, where the tensors allow it.
    preferred: Option<Force>,
    pub tuning: Option<Tuning>,
    explained: String,
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
        f.debug_struct("Plan").field("loss", &self.inner.compiled.loss.name()).finish_non_exhaustive()
    }
}

impl Context {
    /// Compiles a loss for shapes: lowers, schedules, makes the pipelines.
    ///
    /// # Errors
    /// Everything that [`Error`](crate::Error) names for shapes, element types, parameters and limits; nothing is encoded.
    pub fn plan(&self, loss: &Loss, spec: &PlanSpec) -> Result<Plan> {
        let mut plan = Inner {
            ctx: self.clone(),
            compiled: Compiled::new(loss, spec, self.limits())?,
            work: Arc::default(),
            preferred: None,
            tuning: None,
            explained: String::new(),
            pipelines: Vec::new(),
        };
        plan.warm()?;
        Ok(Plan { inner: Arc::new(plan) })
    }
}

impl Inner {
    /// The same for another schedule: one that is insisted on, or what tuning found.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn scheduled(&self, insisted: Force, tuned: Option<(Force, Tuning)>) -> Result<Inner> {
        let (preferred, tuning) = tuned.unzip();
        let mut other = Inner {
            ctx: self.ctx.clone(),
            compiled: Compiled { spec: self.compiled.spec.clone().force(insisted), ..self.compiled.clone() },
            work: self.work.clone(),
            preferred,
            tuning,
            explained: String::new(),
            pipelines: Vec::new(),
        };
        other.warm()?;
        Ok(other)
    }

    /// Pipelines of the shapes that the plan was made for.
    fn warm(&mut self) -> Result<()> {
        let (geometry, resolved) = self.resolve(&self.compiled.planned()?, false)?;
        let steps = resolved.scalars.iter().chain(&resolved.steps);
        self.pipelines = steps.map(|step| self.pipeline(step)).collect::<Result<_>>()?;
        self.explained = self.explain(&geometry, &resolved);
        // All pipelines may have been there already.
        self.ctx.check_device()
    }

    /// The dispatches for these tensors. Those that the tuned schedule cannot take get the default.
    pub fn resolve(&self, io: &BoundIo, pooled: bool) -> Result<(Geometry, Resolved)> {
        let tuned = self.preferred.and_then(|force| self.compiled.resolve(io, pooled, force).ok());
        tuned.map_or_else(|| self.compiled.resolve(io, pooled, self.compiled.spec.force), Ok)
    }

    pub fn pipeline(&self, step: &Step) -> Result<Arc<Pipeline>> {
        self.ctx.pipeline_cache().get(&self.ctx, step.source(), step.has_span())
    }

    pub fn explain(&self, geometry: &Geometry, resolved: &Resolved) -> String {
        let (program, adapter) = (&self.compiled.program, self.ctx.adapter_name());
        let chosen = resolved.facts.explain(program, geometry, adapter, resolved.work_words);
        self.tuning.as_ref().map_or(chosen.clone(), |tuning| format!("{chosen}{tuning}"))
    }

    /// The shared workspace, grown where needed; one's own where it holds states between submits.
    pub fn workspace(&self, words: u64) -> Result<wgpu::Buffer> {
        let bytes = 4 * words;
        if self.compiled.staging.forward.is_some() {
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
    pub fn explain(&self) -> &str {
        &self.inner.explained
    }

    /// WGSL of the kernels that run for the planned shapes, each once, in the order of their first dispatch. The first
    /// line of each says what it is.
    ///
    /// # Errors
    /// None for a plan that could be made.
    pub fn kernels(&self) -> Result<Vec<String>> {
        let (_, resolved) = self.inner.resolve(&self.inner.compiled.planned()?, false)?;
        let mut kernels: Vec<String> = Vec::new();
        for step in resolved.scalars.iter().chain(&resolved.steps) {
            let wgsl = &step.source().wgsl;
            if !kernels.contains(wgsl) {
                kernels.push(wgsl.clone());
            }
        }
        Ok(kernels)
    }

    /// What tuning found, if the plan comes from [`Plan::tune`].
    pub fn tuning(&self) -> Option<&Tuning> {
        self.inner.tuning.as_ref()
    }
}
