//! What a plan is for, and what a bound plan works on.

use super::context::Context;
use super::problem::Shard;
use super::tensor::Tensor;
use crate::dtype::DType;
use crate::error::Result;
use crate::geometry::Layout;
use crate::lower::{Upstream, Wanted};
use crate::schedule::Force;

/// Where a gradient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum GradMode {
    /// To a buffer of its own.
    #[default]
    Write,
    /// Over the input itself.
    InPlace,
    /// Added to what the buffer holds.
    Accumulate,
}

/// Shapes and outputs of a plan. The first axis is a capacity: fewer rows may be bound.
///
/// ```
/// use wgloss::{DType, PlanSpec};
/// let spec = PlanSpec::new()
///     .input("input", DType::F32, &[64, 10])
///     .input("target", DType::I32, &[64])
///     .grad("input");
/// ```
#[derive(Clone, Debug, Default)]
pub struct PlanSpec {
    pub(super) inputs: Vec<(String, DType, Layout)>,
    pub(super) modes: Vec<(String, GradMode)>,
    pub(super) grad_dtypes: Vec<(String, DType)>,
    pub(super) wanted: Wanted,
    pub(super) accumulate_loss: bool,
    pub(super) group_rows: Option<u64>,
    pub(super) force: Force,
    pub(super) shard: Option<Shard>,
    /// Whether forward and backward are encoded apart.
    pub(super) separate_backward: bool,
}

impl PlanSpec {
    /// The loss, and nothing else yet.
    #[must_use]
    pub fn new() -> PlanSpec {
        PlanSpec { wanted: Wanted { loss: true, ..Wanted::default() }, ..PlanSpec::default() }
    }

    /// A contiguous input.
    #[must_use]
    pub fn input(self, name: &str, dtype: DType, shape: &[usize]) -> PlanSpec {
        self.input_with(name, dtype, Layout::contiguous(shape))
    }

    /// An input with strides of its own.
    #[must_use]
    pub fn input_with(mut self, name: &str, dtype: DType, layout: Layout) -> PlanSpec {
        self.inputs.push((name.to_owned(), dtype, layout));
        self
    }

    /// Inputs shaped as these tensors are.
    #[must_use]
    pub fn like(mut self, inputs: &[(&str, &Tensor)]) -> PlanSpec {
        for (name, tensor) in inputs {
            self = self.input_with(name, tensor.dtype(), tensor.layout().clone());
        }
        self
    }

    /// The gradient with respect to an input, to a buffer of its own.
    #[must_use]
    pub fn grad(self, input: &str) -> PlanSpec {
        self.grad_mode(input, GradMode::Write)
    }

    /// The gradient with respect to an input, to where `mode` says; the last word on it counts.
    #[must_use]
    pub fn grad_mode(mut self, input: &str, mode: GradMode) -> PlanSpec {
        match self.modes.iter_mut().find(|known| known.0 == input) {
            Some(known) => known.1 = mode,
            None => {
                self.wanted.grads.push(input.to_owned());
                self.modes.push((input.to_owned(), mode));
            }
        }
        self
    }

    /// How the gradient with respect to an input is stored; as the input itself, where nothing is said.
    #[must_use]
    pub fn grad_dtype(mut self, input: &str, dtype: DType) -> PlanSpec {
        self.grad_dtypes.push((input.to_owned(), dtype));
        self
    }

    /// The diagonal of the Hessian with respect to an input.
    #[must_use]
    pub fn hessian_diagonal(mut self, input: &str) -> PlanSpec {
        self.wanted.hessian_diagonals.push(input.to_owned());
        self
    }

    /// What multiplies the gradients: with anything but [`Upstream::One`], bind the input `upstream`.
    #[must_use]
    pub fn upstream(mut self, upstream: Upstream) -> PlanSpec {
        self.wanted.upstream = upstream;
        self
    }

    /// What the mean divides by, as an output.
    #[must_use]
    pub fn denominator(mut self) -> PlanSpec {
        self.wanted.denominator = true;
        self
    }

    /// Another output of the loss, by name (see [`Loss::extras`](crate::Loss::extras)).
    #[must_use]
    pub fn extra(mut self, name: &str) -> PlanSpec {
        self.wanted.extras.push(name.to_owned());
        self
    }

    /// Gradients only: the backward half of a vector-Jacobian product.
    #[must_use]
    pub fn without_loss(mut self) -> PlanSpec {
        self.wanted.loss = false;
        self
    }

    /// The loss is added to what its tensor holds: several losses into one scalar.
    #[must_use]
    pub fn accumulate_loss(mut self) -> PlanSpec {
        self.accumulate_loss = true;
        self
    }

    /// Consecutive rows that make a group; by default, the rows of one index of the first axis. They must divide the
    /// number of rows, planned or bound, else that is an [`Error::Param`](crate::Error::Param).
    #[must_use]
    pub fn group_rows(mut self, rows: u64) -> PlanSpec {
        self.group_rows = Some(rows);
        self
    }

    /// Forward and backward apart: [`Bound::encode_forward`](crate::Bound::encode_forward) writes the loss, and keeps
    /// what it learned of long rows (in a workspace of the bound plan's own) for
    /// [`Bound::encode_backward`](crate::Bound::encode_backward), whose upstream gradient may come from what was
    /// computed in between. Rows that registers hold are read again and cost no trip more.
    #[must_use]
    pub fn separate_backward(mut self) -> PlanSpec {
        self.separate_backward = true;
        self
    }

    /// The columns are one shard of the classes: see [`Bound::encode_states`](crate::Bound::encode_states).
    #[must_use]
    pub fn shard(mut self, shard: Shard) -> PlanSpec {
        self.shard = Some(shard);
        self
    }

    /// Insists on a kernel, for tests and tuning.
    #[must_use]
    pub fn force(mut self, force: Force) -> PlanSpec {
        self.force = force;
        self
    }
}

/// Tensors for a plan: inputs, and where outputs go. Outputs that are not named get new tensors.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    pub(super) inputs: Vec<(String, Tensor)>,
    pub(super) grads: Vec<(String, Tensor)>,
    pub(super) hessian_diagonals: Vec<(String, Tensor)>,
    pub(super) extras: Vec<(String, Tensor)>,
    pub(super) losses: Vec<Tensor>,
}

impl Bindings {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Bindings {
        Bindings::default()
    }

    /// An input.
    #[must_use]
    pub fn input(mut self, name: &str, tensor: &Tensor) -> Bindings {
        self.inputs.push((name.to_owned(), tensor.clone()));
        self
    }

    /// Several inputs.
    #[must_use]
    pub fn inputs(mut self, inputs: &[(&str, &Tensor)]) -> Bindings {
        for (name, tensor) in inputs {
            self = self.input(name, tensor);
        }
        self
    }

    /// Where the gradient with respect to an input goes.
    #[must_use]
    pub fn grad(mut self, input: &str, tensor: &Tensor) -> Bindings {
        self.grads.push((input.to_owned(), tensor.clone()));
        self
    }

    /// Where a Hessian diagonal goes.
    #[must_use]
    pub fn hessian_diagonal(mut self, input: &str, tensor: &Tensor) -> Bindings {
        self.hessian_diagonals.push((input.to_owned(), tensor.clone()));
        self
    }

    /// Where another output of the loss goes.
    #[must_use]
    pub fn extra(mut self, name: &str, tensor: &Tensor) -> Bindings {
        self.extras.push((name.to_owned(), tensor.clone()));
        self
    }

    /// All tensors must belong to that context.
    pub(super) fn check_context(&self, ctx: &Context) -> Result<()> {
        let inputs = self.inputs.iter().map(|(name, tensor)| (name.clone(), tensor));
        let grads = self.grads.iter().map(|(name, tensor)| (format!("gradient of {name}"), tensor));
        let diagonals = self.hessian_diagonals.iter();
        let diagonals = diagonals.map(|(name, tensor)| (format!("Hessian diagonal of {name}"), tensor));
        let extras = self.extras.iter().map(|(name, tensor)| (format!("extra output {name}"), tensor));
        let loss = self.losses.iter().map(|tensor| ("loss".to_owned(), tensor));
        let mut all = inputs.chain(grads).chain(diagonals).chain(extras).chain(loss);
        all.try_for_each(|(name, tensor)| tensor.check_context(&name, ctx))
    }

    /// Where the loss goes.
    #[must_use]
    pub fn loss(mut self, tensor: &Tensor) -> Bindings {
        self.losses.push(tensor.clone());
        self
    }
}
