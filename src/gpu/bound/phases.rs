//! A step in phases: forward and backward apart, and shards of the classes that exchange states in between.

use crate::error::{Error, Result};
use crate::gpu::bound::{Bound, BoundDispatch, BoundExchange};
use crate::gpu::tensor::Tensor;

impl Bound {
    /// Number of exchanges per step: 1 for most losses, 2 for a mean over class weights, 0 for a plan without
    /// shards and for a batch of no rows, which has no states.
    pub fn exchanges(&self) -> usize {
        self.exchanges.len()
    }

    /// Records the work before an exchange, in order from 0: it leaves this shard's states in [`Bound::states`].
    ///
    /// Vocabulary-parallel training gives each device some classes of every row. The states
    /// of a row are its reductions: for cross-entropy the maximum, the sum of exponentials and the label's logit.
    /// Encode and submit; bring the states of all shards, in the order of the shards, to [`Bound::gathered`] on each
    /// (an all-gather of any collective library: words are moved as they are); go on with the next exchange, then
    /// with [`Bound::encode_forward`] and [`Bound::encode_backward`]. Every shard gets the whole loss, and the
    /// gradients of its own columns. Labels count over all classes; one of another shard is no error, one that no
    /// shard has is.
    ///
    /// ```no_run
    /// use wgloss::{Bindings, Context, DType, PlanSpec, Shard, Tensor, losses};
    /// # fn all_gather(states: &Tensor, gathered: &Tensor) {}
    /// # fn main() -> wgloss::Result<()> {
    /// let ctx = Context::new()?;
    /// let spec = PlanSpec::new()
    ///     .input("input", DType::BF16, &[4096, 8_000])
    ///     .input("target", DType::I32, &[4096])
    ///     .grad("input")
    ///     .shard(Shard { first: 8_000, classes: 32_000, shards: 4 });
    /// let plan = ctx.plan(&losses::cross_entropy(), &spec)?;
    /// # let logits = Tensor::zeros(&ctx, DType::BF16, &[4096, 8_000])?;
    /// # let labels = Tensor::zeros(&ctx, DType::I32, &[4096])?;
    /// let bound = plan.bind(&Bindings::new().input("input", &logits).input("target", &labels))?;
    /// for exchange in 0..bound.exchanges() {
    ///     let mut encoder = ctx.device().create_command_encoder(&Default::default());
    ///     bound.encode_states(exchange, &mut encoder)?;
    ///     ctx.queue().submit([encoder.finish()]);
    ///     all_gather(bound.states(exchange)?, bound.gathered(exchange)?);
    /// }
    /// let mut encoder = ctx.device().create_command_encoder(&Default::default());
    /// bound.encode_forward(&mut encoder)?;
    /// bound.encode_backward(&mut encoder)?;
    /// ctx.queue().submit([encoder.finish()]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there is no such exchange.
    pub fn encode_states(&self, exchange: usize, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.exchange(exchange)?;
        self.encode_phase(exchange, encoder)
    }

    /// This shard's states: `[rows, words]`, to be moved as they are.
    ///
    /// # Errors
    /// As [`Bound::encode_states`].
    pub fn states(&self, exchange: usize) -> Result<&Tensor> {
        Ok(&self.exchange(exchange)?.states)
    }

    /// Where the states of all shards are expected, in order: `[shards, rows, words]`.
    ///
    /// # Errors
    /// As [`Bound::encode_states`].
    pub fn gathered(&self, exchange: usize) -> Result<&Tensor> {
        Ok(&self.exchange(exchange)?.all_states)
    }

    /// Records the loss and all other outputs but the gradients; for a shard, after its last exchange.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless the plan was made with [`PlanSpec::separate_backward`](crate::PlanSpec::separate_backward) or
    /// [`PlanSpec::shard`](crate::PlanSpec::shard).
    pub fn encode_forward(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.encode_phase(self.exchanges.len(), encoder)
    }

    /// Records the gradients, from the inputs and the states that [`Bound::encode_forward`] kept. It may be recorded again,
    /// unless a gradient overwrites an input; an accumulated one is added each time. This phase reads the upstream
    /// gradient.
    ///
    /// # Errors
    /// As [`Bound::encode_forward`].
    pub fn encode_backward(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.encode_phase(self.exchanges.len() + 1, encoder)
    }

    fn encode_phase(&self, phase: usize, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.encode_timed(encoder, self.phase(phase)?, None);
        Ok(())
    }

    /// The dispatches of a phase.
    pub(super) fn phase(&self, phase: usize) -> Result<&[BoundDispatch]> {
        if self.phases.len() < 2 {
            let message =
                "a part of a plan that was made in one; see PlanSpec::separate_backward and PlanSpec::shard".to_owned();
            return Err(Error::Unsupported { message });
        }
        let first = if phase == 0 { 0 } else { self.phases[phase - 1] };
        Ok(&self.dispatches[first..self.phases[phase]])
    }

    fn exchange(&self, index: usize) -> Result<&BoundExchange> {
        self.exchanges.get(index).ok_or_else(|| {
            let message = format!("exchange {index} of a plan with {}", self.exchanges.len());
            Error::Unsupported { message }
        })
    }
}
