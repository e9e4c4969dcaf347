//! Bound plans: buffers, bind groups, and the commands of a step.

mod phases;
pub(crate) mod status;

use crate::error::{Error, Result};
use crate::expr::op::{Kind, Op};
use crate::expr::{Node, NodeId};
use crate::gpu::bound::status::Status;
use crate::gpu::device::context::Context;
use crate::gpu::device::pipeline::Pipeline;
use crate::gpu::plan::Plan;
use crate::gpu::tensor::Tensor;
use crate::loss::{Value, check_option, check_weight};
use crate::lower::Target;
use crate::plan::explain::output_name;
use crate::shape::{DType, Element};
use std::sync::{Arc, Mutex};

pub(crate) struct BoundStep {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) group: wgpu::BindGroup,
    pub(crate) grid: [u32; 2],
}

/// States of one exchange: this shard's, and room for those of all shards.
pub(crate) struct BoundExchange {
    pub states: Tensor,
    pub gathered: Tensor,
}

/// A plan with its buffers: records a step into any encoder of its device.
///
/// Bound plans of one [`Plan`] share a workspace, so steps run in the order in which they are recorded.
pub struct Bound {
    /// Before each part, scalar inputs of 16 bits are widened.
    pub(crate) scalar_steps: Vec<BoundStep>,
    pub(crate) steps: Vec<BoundStep>,
    /// Where the parts end that are encoded apart.
    pub(crate) parts: Vec<usize>,
    pub(crate) exchanges: Vec<BoundExchange>,
    /// Scalar inputs of 32 bits: buffer, offset there, offset in `scalars`.
    pub(crate) copies: Vec<(wgpu::Buffer, u64, u64)>,
    pub(crate) scalars: wgpu::Buffer,
    pub(crate) uniforms: wgpu::Buffer,
    pub(crate) params: Arc<Mutex<Vec<f64>>>,
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) status: Option<Arc<Status>>,
    pub(crate) bytes: u64,
    pub(crate) explained: String,
    /// Dropped last: then the context sees which kernels are let go.
    pub(crate) plan: Plan,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("plan", &self.plan).field("steps", &self.steps.len()).finish_non_exhaustive()
    }
}

impl Bound {
    /// Records the step: compute work only. No submit, no poll, no readback, no allocation of ours.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a shard of the classes: its states must be exchanged in between.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.check_whole()?;
        self.encode_timed(encoder, &self.steps, None);
        Ok(())
    }

    /// As [`Bound::encode`], with timestamps before the step's dispatches and after them: what the GPU took, where the
    /// device has `Features::TIMESTAMP_QUERY`.
    ///
    /// # Errors
    /// As [`Bound::encode`].
    pub fn encode_with_timestamps(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        writes: wgpu::ComputePassTimestampWrites<'_>,
    ) -> Result<()> {
        self.check_whole()?;
        self.encode_timed(encoder, &self.steps, Some(writes));
        Ok(())
    }

    fn check_whole(&self) -> Result<()> {
        if self.exchanges.is_empty() {
            return Ok(());
        }
        let message = "encoding a shard in one go; exchange its states between its parts".to_owned();
        Err(Error::Unsupported { message })
    }

    /// Records those steps, with a timestamp before their dispatches and one after.
    pub(crate) fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        steps: &[BoundStep],
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        for (buffer, from, to) in &self.copies {
            encoder.copy_buffer_to_buffer(buffer, *from, &self.scalars, *to, 4);
        }
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        for step in self.scalar_steps.iter().chain(steps) {
            pass.set_pipeline(&step.pipeline.pipeline);
            pass.set_bind_group(0, &step.group, &[]);
            pass.dispatch_workgroups(step.grid[0], step.grid[1], 1);
        }
    }

    /// Records and submits a step on its own.
    ///
    /// # Errors
    /// As [`Bound::encode`]; [`Error::Device`] of a lost device, and of buffers that were destroyed or are mapped.
    pub fn submit(&self) -> Result<()> {
        self.check_whole()?;
        self.context().submit("a step", |encoder| self.encode_timed(encoder, &self.steps, None))
    }

    /// Sets a parameter (a number, or a class index such as `ignore_index`); takes effect with the next submit.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Param`] outside its domain, or where it would need another kernel (then make a
    /// new plan); [`Error::Device`].
    pub fn set_param(&self, name: &str, value: f64) -> Result<()> {
        let inner = &self.plan.inner;
        let program = &inner.compiled.program;
        let Some(place) = program.params.iter().position(|p| p.name == name) else {
            let known: Vec<&str> = program.params.iter().map(|p| p.name.as_str()).collect();
            let what = format!("{} has no parameter", program.name);
            return Err(Error::Name { what, name: name.to_owned(), known: known.join(", ") });
        };
        let param = &program.params[place];
        let wrong = |loss: &str, allowed: String| {
            let (loss, param) = (loss.to_owned(), name.to_owned());
            Err(Error::Param { loss, param, found: format!("{value}"), allowed })
        };
        let mut params = self.params.lock().expect("parameters are only locked to be set, which does not panic");
        if param.kind == Kind::Int {
            let range = self.class_indices(place as u32);
            if value.fract() != 0.0 || !range.contains(&value) {
                let allowed = format!("a class index, {} to {}, as the labels are stored", range.start(), range.end());
                return wrong(&program.name, allowed);
            }
        } else if let Some((loss, decl)) = inner.compiled.loss.param_decl(name) {
            check_option(&loss, &decl, &Value::Num(value))?;
            let class = |x: f64| decl.structural.iter().position(|s| *s == x);
            if class(value) != class(params[place]) {
                return wrong(&loss, format!("a value with the same kernel as {}; make a new plan", params[place]));
            }
        } else {
            check_weight(&program.name, value)?;
        }
        inner.ctx.write("parameters", &self.uniforms, 4 * place as u64, &param.word(value).to_le_bytes())?;
        params[place] = value;
        Ok(())
    }

    /// Values that labels which are compared with a parameter can have.
    fn class_indices(&self, param: u32) -> std::ops::RangeInclusive<f64> {
        let program = &self.plan.inner.compiled.program;
        let is_param = |id: NodeId| id != NodeId::NONE && *program.node(id) == Node::Param(param);
        let beside = program.nodes.iter().filter_map(|node| match *node {
            Node::Op(Op::Eq, [a, b, _]) if is_param(a) => Some(b),
            Node::Op(Op::Eq, [a, b, _]) if is_param(b) => Some(a),
            _ => None,
        });
        let is_unsigned = |id: NodeId| {
            let Node::Input(place) = *program.node(id) else { return false };
            let name = &program.inputs[place as usize].name;
            self.plan.inner.compiled.spec.inputs.iter().any(|(input, dtype, _)| input == name && *dtype == DType::U32)
        };
        let all = f64::from(i32::MIN)..=f64::from(u32::MAX);
        beside.fold(all, |range, label| match is_unsigned(label) {
            true => range.start().max(0.0)..=*range.end(),
            false => *range.start()..=range.end().min(f64::from(i32::MAX)),
        })
    }

    /// The loss, in the shape of its reduction.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan was made without it.
    pub fn loss(&self) -> Result<&Tensor> {
        self.output(&Target::Loss)
    }

    /// What the mean divides by.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan was made without it.
    pub fn denominator(&self) -> Result<&Tensor> {
        self.output(&Target::Denominator)
    }

    /// Another output of the loss, by name.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan was made without it.
    pub fn extra(&self, name: &str) -> Result<&Tensor> {
        self.output(&Target::Extra(name.to_owned()))
    }

    /// The gradient with respect to an input.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan makes none.
    pub fn grad(&self, input: &str) -> Result<&Tensor> {
        self.output(&Target::Grad(self.place(input)?))
    }

    /// The diagonal of the Hessian with respect to an input.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan makes none.
    pub fn hessian_diagonal(&self, input: &str) -> Result<&Tensor> {
        self.output(&Target::HessianDiagonal(self.place(input)?))
    }

    /// The place of an input among the program's.
    pub(crate) fn place(&self, input: &str) -> Result<usize> {
        let program = &self.plan.inner.compiled.program;
        program.input(input).ok_or_else(|| {
            let known: Vec<&str> = program.inputs.iter().map(|i| i.name.as_str()).collect();
            Error::Name { what: "the plan has no input".into(), name: input.to_owned(), known: known.join(", ") }
        })
    }

    /// The place of an output among the program's.
    pub(crate) fn output_place(&self, target: &Target) -> Result<usize> {
        let program = &self.plan.inner.compiled.program;
        program.outputs.iter().position(|o| o.target == *target).ok_or_else(|| {
            let known: Vec<String> = program.outputs.iter().map(|o| output_name(program, &o.target)).collect();
            let name = output_name(program, target);
            Error::Name { what: "the plan does not make the".into(), name, known: known.join(", ") }
        })
    }

    fn output(&self, target: &Target) -> Result<&Tensor> {
        Ok(&self.outputs[self.output_place(target)?])
    }

    /// Bytes that a step must move: inputs once, outputs once.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was chosen for these tensors and why, as in [`Plan::explain`].
    pub fn explain(&self) -> &str {
        &self.explained
    }

    /// Reads the status word: the first row with a label out of range, since it was last reported. Reporting it clears
    /// it.
    ///
    /// [`Bound::read_loss`] and [`Bound::read`] look at it first, as reading any tensor of an [`Output`](crate::Output)
    /// does; afterwards the values can be read, NaN where the label went in. [`Tensor::to_vec`] of [`Bound::grad`] and its
    /// like gives the values alone.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`], [`Error::Device`].
    pub async fn status(&self) -> Result<()> {
        match &self.status {
            Some(status) => status.check().await,
            None => Ok(()),
        }
    }

    /// Reads the loss back, with the status.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`], [`Error::Device`]; [`Error::Name`] if the plan was made without it.
    pub async fn read_loss_async(&self) -> Result<Vec<f32>> {
        self.read_async(self.loss()?).await
    }

    /// Reads an output of this plan back (what [`Bound::grad`], [`Bound::extra`], [`Bound::loss`] and their like give),
    /// with the status.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`]; as [`Tensor::to_vec`].
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
    /// As [`Bound::read_loss_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_loss(&self) -> Result<f32> {
        let values = pollster::block_on(self.read_loss_async())?;
        Ok(values[0])
    }

    pub(crate) fn context(&self) -> &Context {
        &self.plan.inner.ctx
    }
}
