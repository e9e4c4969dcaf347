//! A plan for a device that need not be here: what it would run, in words and in WGSL. Pure.

use crate::error::Result;
use crate::limits::Limits;
use crate::loss::Loss;
use crate::plan::compiled::Compiled;
use crate::plan::spec::PlanSpec;

/// What a plan would run.
#[derive(Clone, Debug)]
pub struct Preview {
    /// As [`Plan::explain`](crate::Plan::explain).
    pub explanation: String,
    /// As [`Plan::kernels`](crate::Plan::kernels).
    pub kernels: Vec<String>,
}

/// Plans a loss for a device with these limits, which goes by the name `device`.
///
/// # Errors
/// As [`Context::plan`](crate::Context::plan).
pub fn preview(loss: &Loss, spec: &PlanSpec, limits: &Limits, device: &str) -> Result<Preview> {
    let compiled = Compiled::new(loss, spec, limits)?;
    let (geometry, resolved) = compiled.resolve(&compiled.planned()?, false, spec.force)?;
    let explanation = resolved.facts.explain(&compiled.program, &geometry, device, resolved.work_words);
    let mut kernels: Vec<String> = Vec::new();
    for step in resolved.scalars.iter().chain(&resolved.steps) {
        let wgsl = &step.source().wgsl;
        if !kernels.contains(wgsl) {
            kernels.push(wgsl.clone());
        }
    }
    Ok(Preview { explanation, kernels })
}
