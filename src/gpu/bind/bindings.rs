//! The tensors that a plan is bound to.

use crate::error::Result;
use crate::gpu::device::context::Context;
use crate::gpu::tensor::Tensor;
use crate::plan::spec::PlanSpec;

impl PlanSpec {
    /// Inputs shaped as these tensors are.
    #[must_use]
    pub fn like(mut self, inputs: &[(&str, &Tensor)]) -> PlanSpec {
        for (name, tensor) in inputs {
            self = self.input_with(name, tensor.dtype(), tensor.layout().clone());
        }
        self
    }
}

/// Tensors for a plan: inputs, and where outputs go. Outputs that are not named get new tensors.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    pub(crate) inputs: Vec<(String, Tensor)>,
    pub(crate) grads: Vec<(String, Tensor)>,
    pub(crate) hessian_diagonals: Vec<(String, Tensor)>,
    pub(crate) extras: Vec<(String, Tensor)>,
    pub(crate) losses: Vec<Tensor>,
    pub(crate) found_inf: Vec<Tensor>,
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
    pub(crate) fn check_context(&self, ctx: &Context) -> Result<()> {
        let inputs = self.inputs.iter().map(|(name, tensor)| (name.clone(), tensor));
        let grads = self.grads.iter().map(|(name, tensor)| (format!("gradient of {name}"), tensor));
        let diagonals = self.hessian_diagonals.iter();
        let diagonals = diagonals.map(|(name, tensor)| (format!("Hessian diagonal of {name}"), tensor));
        let extras = self.extras.iter().map(|(name, tensor)| (format!("extra output {name}"), tensor));
        let loss = self.losses.iter().map(|tensor| ("loss".to_owned(), tensor));
        let found_inf = self.found_inf.iter().map(|tensor| ("found_inf".to_owned(), tensor));
        let mut all = inputs.chain(grads).chain(diagonals).chain(extras).chain(loss).chain(found_inf);
        all.try_for_each(|(name, tensor)| tensor.check_context(&name, ctx))
    }

    /// Where it goes whether a stored gradient is not finite: one f32 (see [`PlanSpec::found_inf`]).
    #[must_use]
    pub fn found_inf(mut self, tensor: &Tensor) -> Bindings {
        self.found_inf.push(tensor.clone());
        self
    }

    /// Where the loss goes.
    #[must_use]
    pub fn loss(mut self, tensor: &Tensor) -> Bindings {
        self.losses.push(tensor.clone());
        self
    }
}
