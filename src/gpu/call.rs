//! One call for one batch: plan, bind, submit, read.

use crate::dispatch::OutputKind;
use crate::error::Result;
use crate::gpu::bind::Bindings;
use crate::gpu::bound::Bound;
use crate::gpu::device::context::Context;
use crate::gpu::tensor::Tensor;
use crate::loss::Loss;
use crate::plan::spec::PlanSpec;

/// Loss and gradients of one call. Reading blocks until the GPU is done.
///
/// The first read, of the loss or of a tensor, reports a label out of range, once: see [`Bound::status`].
#[derive(Debug)]
pub struct Output {
    bound: Bound,
    /// Outputs of the bound plan; reading one checks the status.
    outputs: Vec<Tensor>,
}

impl Output {
    /// The first value of the loss: the only one of a reduced loss. Blocks.
    ///
    /// # Errors
    /// [`crate::Error::LabelOutOfRange`], [`crate::Error::GroupOutOfRange`], [`crate::Error::Device`];
    /// [`crate::Error::Shape`] of a loss without values: not reduced, of no rows.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn loss(&self) -> Result<f32> {
        self.bound.read_loss()
    }

    /// All values of the loss. Blocks.
    ///
    /// # Errors
    /// As [`Output::loss`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn loss_values(&self) -> Result<Vec<f32>> {
        pollster::block_on(self.bound.read_loss_async())
    }

    /// All values of the loss.
    ///
    /// # Errors
    /// As [`Output::loss`].
    pub async fn loss_async(&self) -> Result<Vec<f32>> {
        self.bound.read_loss_async().await
    }

    /// The loss on the GPU.
    ///
    /// # Errors
    /// None for outputs of [`Loss::forward`] and [`Loss::forward_backward`].
    pub fn loss_tensor(&self) -> Result<&Tensor> {
        self.output(&OutputKind::Loss)
    }

    /// The gradient with respect to an input, on the GPU.
    ///
    /// # Errors
    /// [`crate::Error::Name`] if it was not asked for.
    pub fn grad(&self, input: &str) -> Result<&Tensor> {
        self.output(&OutputKind::Grad(self.bound.input(input)?))
    }

    /// The diagonal of the Hessian with respect to an input, on the GPU.
    ///
    /// # Errors
    /// [`crate::Error::Name`] if it was not asked for.
    pub fn hessian_diagonal(&self, input: &str) -> Result<&Tensor> {
        self.output(&OutputKind::HessianDiagonal(self.bound.input(input)?))
    }

    /// 1 if a stored gradient is not finite, else 0, on the GPU.
    ///
    /// # Errors
    /// [`crate::Error::Name`] if it was not asked for.
    pub fn found_inf(&self) -> Result<&Tensor> {
        self.output(&OutputKind::FoundInf)
    }

    /// Another output of the loss, by name, on the GPU.
    ///
    /// # Errors
    /// [`crate::Error::Name`] if it was not asked for.
    pub fn extra(&self, name: &str) -> Result<&Tensor> {
        self.output(&OutputKind::Extra(name.to_owned()))
    }

    fn output(&self, kind: &OutputKind) -> Result<&Tensor> {
        Ok(&self.outputs[self.bound.output_index(kind)?])
    }

    /// The bound plan, to run again.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The context it ran on.
    pub fn context(&self) -> &Context {
        self.bound.context()
    }
}

impl Loss {
    /// The loss of a batch.
    ///
    /// # Errors
    /// As [`Context::plan`] and [`super::Plan::bind`].
    pub fn forward(&self, ctx: &Context, inputs: &[(&str, &Tensor)]) -> Result<Output> {
        self.run(ctx, inputs, &PlanSpec::new())
    }

    /// The loss of a batch and its gradient with respect to the first input.
    ///
    /// ```no_run
    /// use wgloss::{Context, Tensor, losses};
    /// # fn main() -> wgloss::Result<()> {
    /// let ctx = Context::new()?;
    /// let logits = Tensor::from_slice(&ctx, &[2.0f32, 0.5, -1.0, 0.0, 1.0, 3.0], &[2, 3])?;
    /// let labels = Tensor::from_slice(&ctx, &[0i32, 2], &[2])?;
    /// let out = losses::cross_entropy().forward_backward(&ctx, &[("input", &logits), ("target", &labels)])?;
    /// println!("{} {:?}", out.loss()?, out.grad("input")?.to_vec::<f32>()?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Context::plan`] and [`super::Plan::bind`].
    pub fn forward_backward(&self, ctx: &Context, inputs: &[(&str, &Tensor)]) -> Result<Output> {
        let first = self.differentiable().unwrap_or_default();
        self.forward_backward_of(ctx, inputs, &[&first])
    }

    /// The loss of a batch and its gradients with respect to those inputs.
    ///
    /// # Errors
    /// As [`Context::plan`] and [`super::Plan::bind`].
    pub fn forward_backward_of(&self, ctx: &Context, inputs: &[(&str, &Tensor)], grads: &[&str]) -> Result<Output> {
        self.run(ctx, inputs, &grads.iter().fold(PlanSpec::new(), |spec, grad| spec.grad(grad)))
    }

    /// The outputs that a specification asks for, of these tensors.
    ///
    /// # Errors
    /// As [`Context::plan`] and [`super::Plan::bind`].
    pub fn run(&self, ctx: &Context, inputs: &[(&str, &Tensor)], spec: &PlanSpec) -> Result<Output> {
        let bindings = Bindings::new().inputs(inputs);
        bindings.check_context(ctx)?;
        let plan = ctx.plan(self, &spec.clone().like(inputs))?;
        let bound = plan.bind(&bindings)?;
        bound.submit()?;
        let outputs = bound.outputs.iter().map(|tensor| tensor.watched(bound.status.as_ref())).collect();
        Ok(Output { bound, outputs })
    }
}
