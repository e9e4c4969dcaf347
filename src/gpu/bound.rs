//! Bound plans: buffers, bind groups, and the commands of a step.

use super::context::Context;
use super::explain::output_name;
use super::pipeline::Pipeline;
use super::plan::{BoundIo, Inner, Io, Plan};
use super::problem::{Exchange, Second, Step};
use super::resolve::Resolved;
use super::spec::Bindings;
use super::tensor::Tensor;
use crate::codegen::{KernelSource, Slot, scalar_slots};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::expr::{Node, Scope};
use crate::geometry::Geometry;
use crate::loss::{Value, check_option};
use crate::lower::Target;
use crate::op::Kind;
use std::sync::{Arc, Mutex};

/// Alignment of uniforms in their buffer: the largest that WebGPU lets a device ask for.
const UNIFORM_STRIDE: u64 = 256;
/// What the status word holds while no label was out of range.
const NO_BAD_ROW: u32 = u32::MAX;

pub(super) struct BoundStep {
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
    grid: [u32; 2],
}

/// States of one exchange: this shard's, and room for those of all shards.
pub(super) struct BoundExchange {
    pub states: Tensor,
    pub gathered: Tensor,
}

/// A plan with its buffers: records a step into any encoder of its device.
///
/// Bound plans of one [`Plan`] share a workspace, so steps run in the order in which they are recorded.
pub struct Bound {
    pub(super) plan: Plan,
    pub(super) steps: Vec<BoundStep>,
    /// Where the parts end that are encoded apart.
    pub(super) parts: Vec<usize>,
    pub(super) exchanges: Vec<BoundExchange>,
    /// Scalar inputs: buffer, offset there, offset in `scalars`.
    copies: Vec<(wgpu::Buffer, u64, u64)>,
    scalars: wgpu::Buffer,
    uniforms: wgpu::Buffer,
    params: Mutex<Vec<f64>>,
    labels: Option<Tensor>,
    classes: u64,
    pub(super) outputs: Vec<Tensor>,
    bytes: u64,
    explained: String,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("plan", &self.plan).field("steps", &self.steps.len()).finish_non_exhaustive()
    }
}

impl Plan {
    /// Checks tensors, makes outputs that were not named, and makes the bind groups: once for each set of buffers.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::DType`], [`Error::Shape`], [`Error::Buffer`], [`Error::Alias`], [`Error::Limit`],
    /// [`Error::OutOfMemory`]. Nothing has been encoded then.
    pub fn bind(&self, bindings: &Bindings) -> Result<Bound> {
        let inner = &self.inner;
        let inputs = self.bound_inputs(bindings)?;
        let input_io: Vec<Option<Io>> = inputs.iter().map(|t| t.as_ref().map(Io::of)).collect();
        let geometry = inner.geometry(&input_io, &[])?;
        let outputs = self.bound_outputs(bindings, &inputs, &geometry)?;
        let output_io: Vec<Io> = outputs.iter().map(Io::of).collect();
        inner.check_bytes(&input_io, &output_io)?;
        let pooled = self.check_aliases(&inputs, &outputs)?;
        let (geometry, resolved) = inner.resolve(&BoundIo { inputs: input_io, outputs: output_io }, pooled)?;
        Maker { inner, inputs: &inputs, outputs: &outputs, geometry: &geometry }.make(self, resolved)
    }
}

impl Bound {
    /// Records the step: compute work only. No submit, no poll, no readback, no allocation of ours.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a shard of the classes: its states must be exchanged in between.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        if !self.exchanges.is_empty() {
            let message = "encoding a shard in one go; exchange its states between its parts".to_owned();
            return Err(Error::Unsupported { message });
        }
        self.encode_timed(encoder, &self.steps, None);
        Ok(())
    }

    /// Records those steps, with a timestamp before their dispatches and one after.
    pub(super) fn encode_timed(
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
        for step in steps {
            pass.set_pipeline(&step.pipeline.pipeline);
            pass.set_bind_group(0, &step.group, &[]);
            pass.dispatch_workgroups(step.grid[0], step.grid[1], 1);
        }
    }

    /// Records and submits a step on its own.
    ///
    /// # Errors
    /// As [`Bound::encode`].
    pub fn submit(&self) -> Result<()> {
        let ctx = &self.plan.inner.ctx;
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.encode(&mut encoder)?;
        ctx.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// Sets a numeric parameter; takes effect with the next submit.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Param`] outside its domain, or where it would need another kernel (then make a
    /// new plan).
    pub fn set_param(&self, name: &str, value: f64) -> Result<()> {
        let inner = &self.plan.inner;
        let program = &inner.program;
        let Some(place) = program.params.iter().position(|p| p.0 == name) else {
            let known: Vec<&str> = program.params.iter().map(|p| p.0.as_str()).collect();
            let what = format!("{} has no parameter", program.name);
            return Err(Error::Name { what, name: name.to_owned(), known: known.join(", ") });
        };
        let mut params = self.params.lock().expect("parameters are only locked to be set, which does not panic");
        if let Some((loss, decl)) = inner.loss.param_decl(name) {
            check_option(&loss, &decl, Value::Num(value))?;
            let class = |x: f64| decl.structural.iter().position(|s| *s == x);
            if class(value) != class(params[place]) {
                let allowed = format!("a value with the same kernel as {}; make a new plan", params[place]);
                return Err(Error::Param { loss, param: name.to_owned(), found: format!("{value}"), allowed });
            }
        } else if !value.is_finite() {
            let (loss, param) = (program.name.clone(), name.to_owned());
            return Err(Error::Param { loss, param, found: format!("{value}"), allowed: "finite".to_owned() });
        }
        params[place] = value;
        inner.ctx.queue().write_buffer(&self.uniforms, 4 * place as u64, &(value as f32).to_le_bytes());
        Ok(())
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

    fn place(&self, input: &str) -> Result<usize> {
        let program = &self.plan.inner.program;
        program.input(input).ok_or_else(|| {
            let known: Vec<&str> = program.inputs.iter().map(|i| i.name.as_str()).collect();
            Error::Name { what: "the plan has no input".into(), name: input.to_owned(), known: known.join(", ") }
        })
    }

    fn output(&self, target: &Target) -> Result<&Tensor> {
        let program = &self.plan.inner.program;
        let found = program.outputs.iter().position(|o| o.target == *target);
        found.map(|o| &self.outputs[o]).ok_or_else(|| {
            let known: Vec<String> = program.outputs.iter().map(|o| output_name(program, &o.target)).collect();
            let name = output_name(program, target);
            Error::Name { what: "the plan does not make the".into(), name, known: known.join(", ") }
        })
    }

    /// Bytes that a step must move: inputs once, outputs once.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was chosen for these tensors and why, as in [`Plan::explain`].
    pub fn explain(&self) -> &str {
        &self.explained
    }

    /// Reads and clears the status word: the first row with a label out of range, since it was last read.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`], [`Error::Device`].
    pub async fn status(&self) -> Result<()> {
        let Some(labels) = &self.labels else { return Ok(()) };
        let ctx = &self.plan.inner.ctx;
        let word = ctx.read("status", &self.scalars, 0, 4).await?;
        let row: u32 = bytemuck::pod_read_unaligned(&word);
        if row == NO_BAD_ROW {
            return Ok(());
        }
        ctx.queue().write_buffer(&self.scalars, 0, &NO_BAD_ROW.to_le_bytes());
        let row = u64::from(row);
        let mut rest = row as usize;
        let mut place = labels.offset();
        for (&size, &stride) in labels.shape().iter().zip(labels.strides()).rev() {
            place += (rest % size.max(1) * stride) as u64;
            rest /= size.max(1);
        }
        let bits = ctx.read("label", labels.buffer(), 4 * place, 4).await?;
        let label = match labels.dtype() {
            DType::U32 => i64::from(bytemuck::pod_read_unaligned::<u32>(&bits)),
            _ => i64::from(bytemuck::pod_read_unaligned::<i32>(&bits)),
        };
        Err(Error::LabelOutOfRange { row, label, classes: self.classes })
    }

    /// Reads the loss back, with the status.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`], [`Error::Device`]; [`Error::Name`] if the plan was made without it.
    pub async fn read_loss_async(&self) -> Result<Vec<f32>> {
        self.status().await?;
        self.loss()?.read::<f32>(&self.plan.inner.ctx).await
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

    pub(super) fn context(&self) -> &Context {
        &self.plan.inner.ctx
    }
}

/// Makes what a bound plan holds.
pub(super) struct Maker<'a> {
    pub inner: &'a Inner,
    pub inputs: &'a [Option<Tensor>],
    pub outputs: &'a [Tensor],
    pub geometry: &'a Geometry,
}

impl Maker<'_> {
    pub fn make(&self, plan: &Plan, resolved: Resolved) -> Result<Bound> {
        let Maker { inner, .. } = self;
        let ctx = &inner.ctx;
        let program = &inner.program;
        let slots = scalar_slots(program);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let scalars = ctx.create_buffer("wgloss scalars", 4 * (1 + slots.len().max(1) as u64), usage)?;
        ctx.queue().write_buffer(&scalars, 0, &NO_BAD_ROW.to_le_bytes());
        let work = inner.workspace(resolved.work_words)?;
        let mut copies = Vec::new();
        for (slot, id) in slots.iter().enumerate() {
            if let Node::Input(place) = *program.node(*id) {
                let tensor = self.inputs[place as usize].as_ref().expect("every input of the program is bound");
                if !tensor.buffer().usage().contains(wgpu::BufferUsages::COPY_SRC) {
                    let message = "a scalar needs BufferUsages::COPY_SRC".to_owned();
                    return Err(Error::Buffer { input: program.inputs[place as usize].name.clone(), message });
                }
                copies.push((tensor.buffer().clone(), tensor.offset() * 4, 4 * (1 + slot as u64)));
            }
        }
        // Gradients that are settled after the passes are kept in f32 until then.
        let mut kept: Vec<Option<wgpu::Buffer>> = vec![None; self.outputs.len()];
        for step in &resolved.steps {
            if let Step::Settle { output, .. } = step {
                let values = match program.outputs[*output].scope {
                    Scope::Row => self.geometry.rows,
                    _ => self.geometry.elements(),
                };
                let usage = wgpu::BufferUsages::STORAGE;
                let bytes = (4 * values).next_multiple_of(16);
                kept[*output] = Some(ctx.create_buffer("wgloss kept gradient", bytes, usage)?);
            }
        }
        let exchanges = self.exchanges(&resolved)?;
        let (uniforms, offsets) = self.uniforms(&resolved.steps)?;
        let mut steps = Vec::new();
        for (step, offset) in resolved.steps.iter().zip(offsets) {
            let pipeline = inner.pipeline(step)?;
            let (source, grid) = (step.source(), step.grid());
            // A chunk's own bytes, where the step names them.
            let part = |slot: Slot, buffer: &wgpu::Buffer| -> Option<(u64, u64)> {
                let Step::Kernel { bytes, .. } = step else { return None };
                let (_, bytes) = bytes.iter().find(|(named, _)| *named == slot)?;
                Some((bytes.start, bytes.end.min(buffer.size() - buffer.size() % 4)))
            };
            let storage = |place: usize, slot: Slot| match (step, slot) {
                (Step::Settle { output, .. }, Slot::Output(_)) if place == 0 => {
                    kept[*output].as_ref().expect("a gradient that is settled was kept").as_entire_binding()
                }
                (Step::Settle { .. }, Slot::Output(output)) => self.binding(&self.outputs[output], None),
                (_, Slot::Output(output)) => match &kept[output] {
                    Some(buffer) => bytes_of(buffer, part(slot, buffer)),
                    None => self.binding(&self.outputs[output], part(slot, self.outputs[output].buffer())),
                },
                (_, Slot::Input(input)) => {
                    let tensor = self.inputs[input].as_ref().expect("every input of the program is bound");
                    self.binding(tensor, part(slot, tensor.buffer()))
                }
                (_, Slot::States(place)) => exchanges[place].states.buffer().as_entire_binding(),
                (_, Slot::Gathered(place)) => exchanges[place].gathered.buffer().as_entire_binding(),
                (_, Slot::Work) => work.as_entire_binding(),
                (_, Slot::Scalars) => scalars.as_entire_binding(),
            };
            let uniform = |(offset, bytes): (u64, u64)| {
                wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &uniforms,
                    offset,
                    size: wgpu::BufferSize::new(bytes),
                })
            };
            let params = (0, self.params_bytes());
            let (second, trailing) = match step {
                Step::Kernel { second: Second::Span(_), .. } => (offset.second, Some(params)),
                Step::Kernel { .. } => (params, None),
                Step::Settle { .. } | Step::States { .. } => (offset.first, None),
            };
            let mut entries = vec![
                wgpu::BindGroupEntry { binding: 0, resource: uniform(offset.first) },
                wgpu::BindGroupEntry { binding: 1, resource: uniform(second) },
            ];
            for (place, binding) in source.bindings.iter().enumerate() {
                let resource = storage(place, binding.slot);
                entries.push(wgpu::BindGroupEntry { binding: place as u32 + 2, resource });
            }
            if let Some(params) = trailing {
                let binding = source.bindings.len() as u32 + 2;
                entries.push(wgpu::BindGroupEntry { binding, resource: uniform(params) });
            }
            let group = self.bind_group(source, &pipeline, &entries)?;
            steps.push(BoundStep { pipeline, group, grid });
        }
        let labels = program.inputs.iter().position(|decl| decl.kind == Kind::Int);
        Ok(Bound {
            plan: plan.clone(),
            steps,
            parts: resolved.parts.clone(),
            exchanges,
            copies,
            scalars,
            uniforms,
            params: Mutex::new(program.params.iter().map(|p| p.1).collect()),
            labels: labels.and_then(|place| self.inputs[place].clone()),
            classes: inner.staging.shard.map_or(self.geometry.cols, |shard| shard.classes),
            outputs: self.outputs.to_vec(),
            bytes: resolved.facts.bytes,
            explained: inner.explain(self.geometry, &resolved),
        })
    }

    fn exchanges(&self, resolved: &Resolved) -> Result<Vec<BoundExchange>> {
        let shards = self.inner.staging.shard.map_or(0, |shard| shard.shards) as usize;
        let rows = self.geometry.rows as usize;
        let make = |exchange: &Exchange| {
            let words = exchange.words as usize;
            let zeros = |shape: &[usize]| Tensor::zeros(&self.inner.ctx, DType::U32, shape);
            Ok(BoundExchange { states: zeros(&[rows, words])?, gathered: zeros(&[shards, rows, words])? })
        };
        resolved.exchanges.iter().map(make).collect()
    }

    fn bind_group(
        &self,
        source: &KernelSource,
        pipeline: &Pipeline,
        entries: &[wgpu::BindGroupEntry<'_>],
    ) -> Result<wgpu::BindGroup> {
        let device = self.inner.ctx.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: source.wgsl.lines().next(),
            layout: &pipeline.layout,
            entries,
        });
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::Device { message: error.to_string() });
        }
        #[cfg(target_arch = "wasm32")]
        drop(scope.pop());
        Ok(group)
    }

    /// The tensor's bytes, or a part of them, from an aligned offset.
    fn binding<'t>(&self, tensor: &'t Tensor, part: Option<(u64, u64)>) -> wgpu::BindingResource<'t> {
        let whole = tensor.bound_range(u64::from(self.inner.ctx.limits().offset_alignment));
        bytes_of(tensor.buffer(), part.or(Some((whole.start, whole.end))))
    }

    fn params_bytes(&self) -> u64 {
        16 * self.inner.program.params.len().div_ceil(4).max(1) as u64
    }

    /// One buffer with the parameters first, then each dispatch's uniforms.
    fn uniforms(&self, steps: &[Step]) -> Result<(wgpu::Buffer, Vec<Offsets>)> {
        let mut bytes: Vec<u8> = Vec::new();
        let mut push = |data: &[u8]| {
            let offset = bytes.len() as u64;
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(UNIFORM_STRIDE as usize), 0);
            (offset, data.len() as u64)
        };
        let mut params: Vec<f32> = self.inner.program.params.iter().map(|p| p.1 as f32).collect();
        params.resize(self.params_bytes() as usize / 4, 0.0);
        push(bytemuck::cast_slice(&params));
        let mut offsets = Vec::new();
        for step in steps {
            offsets.push(match step {
                Step::Kernel { shape, second, .. } => {
                    let first = push(bytemuck::bytes_of(&**shape));
                    let second = match second {
                        Second::Span(span) => push(bytemuck::bytes_of(span)),
                        Second::Params => first,
                    };
                    Offsets { first, second }
                }
                Step::Settle { uniform, .. } => Offsets::both(push(uniform)),
                Step::States { uniform, .. } => Offsets::both(push(bytemuck::bytes_of(uniform))),
            });
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.inner.ctx.create_buffer("wgloss uniforms", bytes.len() as u64, usage)?;
        self.inner.ctx.queue().write_buffer(&buffer, 0, &bytes);
        Ok((buffer, offsets))
    }
}

/// Those bytes of a buffer, or all of it.
fn bytes_of(buffer: &wgpu::Buffer, part: Option<(u64, u64)>) -> wgpu::BindingResource<'_> {
    let Some((start, end)) = part else { return buffer.as_entire_binding() };
    let size = wgpu::BufferSize::new(end - start);
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: start, size })
}

/// Offset and size of a dispatch's uniforms.
struct Offsets {
    first: (u64, u64),
    second: (u64, u64),
}

impl Offsets {
    /// Of a dispatch with one uniform.
    fn both(first: (u64, u64)) -> Offsets {
        Offsets { first, second: first }
    }
}
