//! A plan for a device that need not be here: what it would run, in words and in WGSL. Pure.

use crate::error::Result;
use crate::limits::Limits;
use crate::plan::operator::{Conditions, Operator};
use crate::plan::spec::PlanSpec;

/// The schedules and kernels of a plan, as text.
#[derive(Clone, Debug)]
pub struct Preview {
    /// As [`Plan::explain`](crate::Plan::explain).
    pub explanation: String,
    /// As [`Plan::kernels`](crate::Plan::kernels).
    pub kernels: Vec<String>,
}

/// Plans a loss, or another operator, for a device with these limits, which goes by the name `device`.
///
/// # Errors
/// As [`Context::plan`](crate::Context::plan).
pub fn preview(operator: &impl Operator, spec: &PlanSpec, limits: &Limits, device: &str) -> Result<Preview> {
    let prepared = operator.prepare(spec, limits)?;
    let (tensors, conditions) = (prepared.planned()?, Conditions::default());
    let explanation = prepared.explain(&tensors, conditions, device)?;
    Ok(Preview { explanation, kernels: prepared.plan(&tensors, conditions)?.kernels() })
}
