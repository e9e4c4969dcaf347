//! Bound plans: buffers, bind groups, and the commands of a step.

mod in_pass;
mod phases;
pub(crate) mod status;

use crate::dispatch::OutputKind;
#[cfg(not(target_arch = "wasm32"))]
use crate::error::no_first_value;
use crate::error::{Error, Result};
use crate::gpu::device::context::Context;
use crate::gpu::device::pipeline::Pipeline;
use crate::gpu::plan::Plan;
use crate::gpu::tensor::Tensor;
use crate::plan::operator::{Conditions, Tensors};
use crate::shape::Element;
use status::Status;
use std::sync::{Arc, Mutex, OnceLock};

/// Bytes between two uniforms in their buffer: the largest alignment that WebGPU lets a device ask for.
pub(crate) const UNIFORM_STRIDE: u64 = 256;

pub(crate) struct BoundDispatch {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) group: wgpu::BindGroup,
    pub(crate) grid: [u32; 2],
}

/// Tensors of one exchange: this shard's states, and the states of all shards.
pub(crate) struct BoundExchange {
    pub states: Tensor,
    pub all_states: Tensor,
}

/// A plan with its buffers: records a step into any encoder of its device.
///
/// Bound plans of one [`Plan`] share a workspace, so steps run in the order in which they are recorded.
pub struct Bound {
    /// Dispatches before each phase, which widen 16-bit scalar inputs.
    pub(crate) scalar_dispatches: Vec<BoundDispatch>,
    pub(crate) dispatches: Vec<BoundDispatch>,
    /// End of each phase, as a count of dispatches.
    pub(crate) phases: Vec<usize>,
    pub(crate) exchanges: Vec<BoundExchange>,
    /// Scalar inputs of 32 bits: buffer, offset there, offset in `scalars`.
    pub(crate) copies: Vec<(wgpu::Buffer, u64, u64)>,
    /// The same copies as dispatches, once a step was recorded into a caller's pass.
    pub(crate) copy_dispatches: OnceLock<Vec<BoundDispatch>>,
    pub(crate) scalars: wgpu::Buffer,
    pub(crate) uniforms: wgpu::Buffer,
    /// Byte offsets of each parameter in `uniforms`.
    pub(crate) param_offsets: Vec<Vec<u64>>,
    pub(crate) params: Arc<Mutex<Vec<f64>>>,
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) status: Option<Arc<Status>>,
    pub(crate) bytes: u64,
    /// The tensors, for explanations.
    pub(crate) tensors: Tensors,
    pub(crate) conditions: Conditions,
    /// Dropped last, when the pipelines above are free and its drop trims the cache.
    pub(crate) plan: Plan,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("plan", &self.plan)
            .field("dispatches", &self.dispatches.len())
            .finish_non_exhaustive()
    }
}

impl Bound {
    /// Records the step: compute work only, in a pass of its own. No submit, no poll, no readback, no allocation of ours.
    /// [`Bound::encode_in`] records into a pass of yours.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a shard of the classes: its states must be exchanged in between.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.check_whole()?;
        self.encode_timed(encoder, &self.dispatches, None);
        Ok(())
    }

    /// As [`Bound::encode`], with timestamps before the step's dispatches and after them: the GPU's own time. The
    /// device needs `Features::TIMESTAMP_QUERY`.
    ///
    /// # Errors
    /// As [`Bound::encode`].
    pub fn encode_with_timestamps(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        writes: wgpu::ComputePassTimestampWrites<'_>,
    ) -> Result<()> {
        self.check_whole()?;
        self.encode_timed(encoder, &self.dispatches, Some(writes));
        Ok(())
    }

    fn check_whole(&self) -> Result<()> {
        if self.exchanges.is_empty() {
            return Ok(());
        }
        let message = "encoding a shard in one go; exchange its states between its parts".to_owned();
        Err(Error::Unsupported { message })
    }

    /// Records these dispatches, with a timestamp before and one after, if conditions for.
    pub(crate) fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        dispatches: &[BoundDispatch],
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        for (buffer, from, to) in &self.copies {
            encoder.copy_buffer_to_buffer(buffer, *from, &self.scalars, *to, 4);
        }
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        in_pass::record(&mut pass, self.scalar_dispatches.iter().chain(dispatches));
    }

    /// Records and submits a step on its own.
    ///
    /// # Errors
    /// As [`Bound::encode`]; [`Error::Device`] of a lost device, and of buffers that were destroyed or are mapped.
    pub fn submit(&self) -> Result<()> {
        self.check_whole()?;
        self.context().submit("a step", |encoder| self.encode_timed(encoder, &self.dispatches, None))
    }

    /// Sets a parameter (a number, or a class index such as `ignore_index`); takes effect with the next submit.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Param`] outside its domain, or where it would need another kernel: a plan made at a
    /// value that has a faster kernel (smoothing 0) keeps it, and one that turns something off by another formula
    /// (softcap 0) needs a plan of its own; [`Error::Device`].
    pub fn set_param(&self, name: &str, value: f64) -> Result<()> {
        let inner = &self.plan.inner;
        let signature = inner.prepared.signature();
        let Some(index) = inner.prepared.param(name, value)? else { return Ok(()) };
        let mut params = self.params.lock().expect("parameters are only locked to be set, which does not panic");
        let word = signature.params[index].decl.word(value).to_le_bytes();
        for &byte in &self.param_offsets[index] {
            inner.ctx.write("parameters", &self.uniforms, byte, &word)?;
        }
        params[index] = value;
        Ok(())
    }

    /// The loss, in the shape of its reduction.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan was made without it.
    pub fn loss(&self) -> Result<&Tensor> {
        self.output(&OutputKind::Loss)
    }

    /// The denominator of the mean.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan was made without it.
    pub fn denominator(&self) -> Result<&Tensor> {
        self.output(&OutputKind::Denominator)
    }

    /// 1 if a gradient that the last step stored is not finite, else 0: one f32, written by every step.
    ///
    /// # Errors
    /// [`Error::Name`] unless the plan was made with [`PlanSpec::found_inf`](crate::PlanSpec::found_inf).
    pub fn found_inf(&self) -> Result<&Tensor> {
        self.output(&OutputKind::FoundInf)
    }

    /// Another output of the loss, by name.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan was made without it.
    pub fn extra(&self, name: &str) -> Result<&Tensor> {
        self.output(&OutputKind::Extra(name.to_owned()))
    }

    /// The gradient with respect to an input.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan makes none.
    pub fn grad(&self, input: &str) -> Result<&Tensor> {
        self.output(&OutputKind::Grad(self.input(input)?))
    }

    /// The diagonal of the Hessian with respect to an input.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan makes none.
    pub fn hessian_diagonal(&self, input: &str) -> Result<&Tensor> {
        self.output(&OutputKind::HessianDiagonal(self.input(input)?))
    }

    /// Index of an input in the signature.
    pub(crate) fn input(&self, name: &str) -> Result<usize> {
        let signature = self.plan.inner.prepared.signature();
        signature.input(name).ok_or_else(|| {
            let known: Vec<&str> = signature.inputs.iter().map(|i| i.name.as_str()).collect();
            Error::Name { what: "the plan has no input".into(), name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// Index of an output in the signature.
    pub(crate) fn output_index(&self, kind: &OutputKind) -> Result<usize> {
        let signature = self.plan.inner.prepared.signature();
        signature.outputs.iter().position(|output| output.kind == *kind).ok_or_else(|| {
            let (name, known) = (signature.output_name(kind), signature.output_names().join(", "));
            Error::Name { what: "the plan does not make the".into(), name, known }
        })
    }

    fn output(&self, kind: &OutputKind) -> Result<&Tensor> {
        Ok(&self.outputs[self.output_index(kind)?])
    }

    /// Bytes that a step must move: inputs once, outputs once.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The schedules for these tensors and the reasons, as in [`Plan::explain`].
    pub fn explain(&self) -> String {
        self.plan.inner.explain(&self.tensors, self.conditions).unwrap_or_else(|error| error.to_string())
    }

    /// Reads the status words: the first row with a label out of range, the first length of sequences out of range, the first
    /// offset or id of groups that is not
    /// allowed, since it was last reported. Reporting one clears it.
    ///
    /// [`Bound::read_loss`] and [`Bound::read`] look at it first, as reading any tensor of an [`Output`](crate::Output)
    /// does; afterwards the values can be read, NaN where the label went in. [`Tensor::to_vec`] of [`Bound::grad`] and its
    /// like gives the values alone.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`], [`Error::GroupOutOfRange`], [`Error::LengthOutOfRange`], [`Error::Device`].
    pub async fn status(&self) -> Result<()> {
        match &self.status {
            Some(status) => status.check().await,
            None => Ok(()),
        }
    }

    /// Reads the loss back, with the status.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`], [`Error::GroupOutOfRange`], [`Error::LengthOutOfRange`], [`Error::Device`]; [`Error::Name`] if the plan was made
    /// without it.
    pub async fn read_loss_async(&self) -> Result<Vec<f32>> {
        self.read_async(self.loss()?).await
    }

    /// Reads an output of this plan back (from [`Bound::grad`], [`Bound::extra`], [`Bound::loss`] and their like), after
    /// the status.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`], [`Error::GroupOutOfRange`], [`Error::LengthOutOfRange`]; as [`Tensor::to_vec`].
    pub async fn read_async<T: Element>(&self, output: &Tensor) -> Result<Vec<T>> {
        self.status().await?;
        output.read(&self.plan.inner.ctx).await
    }

    /// As [`Bound::read_async`]. Blocks.
    ///
    /// ```no_run
    /// # fn read(bound: &wgloss::Bound) -> wgloss::Result<()> {
    /// let d_input: Vec<f32> = bound.read(bound.grad("input")?)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Bound::read_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read<T: Element>(&self, output: &Tensor) -> Result<Vec<T>> {
        pollster::block_on(self.read_async(output))
    }

    /// The first value of the loss (the only one of a reduced loss). Blocks.
    ///
    /// # Errors
    /// As [`Bound::read_loss_async`]; [`Error::Shape`] of a loss without values: not reduced, of no rows.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_loss(&self) -> Result<f32> {
        let values = pollster::block_on(self.read_loss_async())?;
        values.first().copied().ok_or_else(|| self.loss().map_or_else(|e| e, |loss| no_first_value(loss.shape())))
    }

    pub(crate) fn context(&self) -> &Context {
        &self.plan.inner.ctx
    }
}
