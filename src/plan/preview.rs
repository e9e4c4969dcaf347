//! A plan for a device that need not be here: the dispatches, in words and as data. Pure.

use crate::dispatch::Planned;
use crate::error::Result;
use crate::limits::Limits;
use crate::plan::operator::{Conditions, Operator};
use crate::plan::spec::PlanSpec;
use crate::schedule::PassSchedule;

/// A plan in words and as data.
#[derive(Clone, Debug)]
pub struct Preview {
    /// As [`Plan::explain`](crate::Plan::explain).
    pub explanation: String,
    /// Schedule of each pass.
    pub schedules: Vec<PassSchedule>,
    /// The dispatches.
    pub planned: Planned,
}

/// Plans a loss, or another operator, for a device with these limits, which goes by the name `device`.
///
/// # Errors
/// As [`Context::plan`](crate::Context::plan).
pub fn preview(operator: &dyn Operator, spec: &PlanSpec, limits: &Limits, device: &str) -> Result<Preview> {
    let prepared = operator.prepare(spec, limits)?;
    let (tensors, conditions) = (prepared.planned()?, Conditions::default());
    let explanation = prepared.explain(&tensors, conditions, device)?;
    Ok(Preview { explanation, schedules: prepared.schedules()?, planned: prepared.plan(&tensors, conditions)? })
}
