//! The one trait that losses and other operators are planned through.

use crate::dispatch::{Planned, Signature};
use crate::error::Result;
use crate::limits::Limits;
use crate::plan::spec::PlanSpec;
use crate::schedule::{PassSchedule, Pinned};
use crate::shape::{DType, Layout};
use std::sync::Arc;

/// Anything that [`Context::plan`](crate::Context::plan) takes: a [`Loss`](crate::Loss), a loss with options, or an
/// operator of [`fused`](crate::fused). wgloss alone implements it.
///
/// ```no_run
/// use wgloss::{Context, Operator, Plan, PlanSpec, Result};
/// fn planned(ctx: &Context, operator: &dyn Operator, spec: &PlanSpec) -> Result<Plan> {
///     ctx.plan(operator, spec)
/// }
/// ```
pub trait Operator {
    /// Checks a specification, and does all work that does not depend on tensors.
    ///
    /// # Errors
    /// As [`Context::plan`](crate::Context::plan), of all but the device.
    #[doc(hidden)]
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>>;
}

/// A tensor of an operator: layout, element type, offset in its buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub layout: Layout,
    pub dtype: DType,
    /// First element in the buffer.
    pub offset: u64,
    /// Bytes of the longest vector, of 4, 8 or 16, of which the buffer holds the last whole.
    pub whole_bytes: u64,
}

impl Placed {
    /// A tensor as wgloss makes it: at the start of a buffer that holds whole vectors.
    pub fn planned(layout: Layout, dtype: DType) -> Placed {
        Placed { layout, dtype, offset: 0, whole_bytes: 16 }
    }
}

/// Tensors of an operator, in the order of its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensors {
    pub inputs: Vec<Option<Placed>>,
    pub outputs: Vec<Placed>,
}

/// Conditions of a plan beside its tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Whether some buffer is both read and written.
    pub pooled: bool,
    /// The tuned schedule, used where the tensors allow it.
    pub tuned: Option<Pinned>,
}

/// Facts that the outcome of tuning depends on, beside the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TuneFacts {
    pub rows: u64,
    pub cols: u64,
    /// Names, element types and modes of the tensors.
    pub tensors: Vec<String>,
    /// Alignment of the tensors, per pass.
    pub alignment: Vec<String>,
    /// WGSL of the passes under one fixed schedule.
    pub kernels: Vec<String>,
}

/// An operator prepared for shapes, for a device with some limits. Pure: no device.
pub trait Prepared: Send + Sync {
    /// Its inputs, outputs and parameters.
    fn signature(&self) -> &Signature;

    /// Checks names, element types and shapes of bound inputs; the first axis may be shorter than planned.
    fn check_inputs(&self, given: &[(&str, DType, &[usize])]) -> Result<()>;

    /// The tensors that the plan was made for, contiguous where nothing else was said.
    fn planned(&self) -> Result<Tensors>;

    /// Shapes of the outputs for these inputs.
    fn output_shapes(&self, inputs: &[Option<Placed>]) -> Result<Vec<Vec<usize>>>;

    /// The dispatches for these tensors.
    fn plan(&self, tensors: &Tensors, conditions: Conditions) -> Result<Planned>;

    /// The schedules for these tensors, and the reasons, in words.
    fn explain(&self, tensors: &Tensors, conditions: Conditions, adapter: &str) -> Result<String>;

    /// Index of the parameter of that name; `None` where the kernels are made for that value alone. An error unless they
    /// take it.
    fn param(&self, name: &str, value: f64) -> Result<Option<usize>>;

    /// The part of the schedule that the caller pinned.
    fn pinned(&self) -> Pinned;

    /// The same operator with that schedule pinned.
    fn pin(&self, pinned: Pinned) -> Arc<dyn Prepared>;

    /// The schedule of each pass for the planned shapes.
    fn schedules(&self) -> Result<Vec<PassSchedule>>;

    /// Schedules worth measuring, the default first; `Unsupported` if the operator cannot run alone.
    fn candidates(&self) -> Result<Vec<Pinned>>;

    /// Facts for the key of the tuning cache.
    fn tune_facts(&self) -> Result<TuneFacts>;
}
