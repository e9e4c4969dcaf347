//! What is planned: losses, and operators beside them, through one trait.

use crate::dispatch::{Planned, Signature};
use crate::error::Result;
use crate::limits::Limits;
use crate::plan::spec::PlanSpec;
use crate::schedule::{PassSchedule, Pinned};
use crate::shape::{DType, Layout};
use std::sync::Arc;

/// What [`Context::plan`](crate::Context::plan) takes: a [`Loss`](crate::Loss), or an operator beside the losses.
pub trait Operator {
    /// Checks a specification, and does all that does not depend on where tensors lie.
    ///
    /// # Errors
    /// As [`Context::plan`](crate::Context::plan), of all but the device.
    #[doc(hidden)]
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>>;
}

/// Where a tensor lies: its layout, its type, its offset in its buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub layout: Layout,
    pub dtype: DType,
    /// First element in the buffer.
    pub offset: u64,
    /// Whether the buffer holds the last vector of four elements.
    pub whole_vectors: bool,
}

impl Placed {
    /// As a tensor that wgloss makes.
    pub fn planned(layout: Layout, dtype: DType) -> Placed {
        Placed { layout, dtype, offset: 0, whole_vectors: true }
    }
}

/// Tensors of an operator, in the order of its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensors {
    pub inputs: Vec<Option<Placed>>,
    pub outputs: Vec<Placed>,
}

/// What is asked of a plan beside its tensors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Whether some buffer is both read and written.
    pub pooled: bool,
    /// The schedule that tuning found, taken where the tensors allow it.
    pub tuned: Option<Pinned>,
}

/// What the outcome of tuning depends on, beside the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TuneFacts {
    pub rows: u64,
    pub cols: u64,
    /// Names, element types and modes of the tensors.
    pub tensors: Vec<String>,
    /// How each pass reaches its tensors.
    pub alignment: Vec<String>,
    /// WGSL of the passes under one fixed schedule.
    pub kernels: Vec<String>,
}

/// An operator prepared for shapes, for a device with some limits. Pure: no device.
pub trait Prepared: Send + Sync {
    /// Its inputs, outputs and parameters.
    fn signature(&self) -> &Signature;

    /// Names, element types and shapes of bound inputs: as planned, but for fewer along the first axis.
    fn check_inputs(&self, given: &[(&str, DType, &[usize])]) -> Result<()>;

    /// The tensors that the plan was made for, contiguous where nothing else was said.
    fn planned(&self) -> Result<Tensors>;

    /// Shapes of the outputs for these inputs.
    fn output_shapes(&self, inputs: &[Option<Placed>]) -> Result<Vec<Vec<usize>>>;

    /// The dispatches for these tensors.
    fn plan(&self, tensors: &Tensors, asked: Asked) -> Result<Planned>;

    /// What was chosen for these tensors and why.
    fn explain(&self, tensors: &Tensors, asked: Asked, adapter: &str) -> Result<String>;

    /// Whether a parameter may have that value from now on, without another kernel.
    fn check_param(&self, param: usize, value: f64, current: f64) -> Result<()>;

    /// What the caller pinned of the schedule.
    fn pinned(&self) -> Pinned;

    /// The same with a schedule pinned.
    fn pin(&self, pinned: Pinned) -> Arc<dyn Prepared>;

    /// The schedule of each pass for the planned shapes.
    fn schedules(&self) -> Result<Vec<PassSchedule>>;

    /// Schedules worth measuring, the default first; `Unsupported`, where it cannot run by itself.
    fn candidates(&self) -> Result<Vec<Pinned>>;

    /// What the outcome of tuning depends on.
    fn tune_facts(&self) -> Result<TuneFacts>;
}
