//! A plan and tensors to a bound plan: checks, buffers, uniforms, bind groups.

mod bindings;
mod tensors;

pub use bindings::Bindings;

use crate::codegen::{KernelSource, Slot, scalar_slots};
use crate::error::{Error, Result};
use crate::expr::Node;
use crate::gpu::bound::status::{NO_BAD_ROW, Status};
use crate::gpu::bound::{Bound, BoundExchange, BoundStep};
use crate::gpu::device::pipeline::Pipeline;
use crate::gpu::plan::{Inner, Plan};
use crate::gpu::tensor::Tensor;
use crate::plan::compiled::{BoundIo, Io};
use crate::plan::passes::Resolved;
use crate::plan::problem::{Exchange, Place, Resource, Step};
use crate::shape::DType;
use crate::shape::Geometry;
use std::sync::{Arc, Mutex};

/// Alignment of uniforms in their buffer: the largest that WebGPU lets a device ask for.
const UNIFORM_STRIDE: u64 = 256;

impl Plan {
    /// Checks tensors, makes outputs that were not named, and makes the bind groups: once for each set of buffers.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::DType`], [`Error::Shape`], [`Error::Buffer`], [`Error::Alias`], [`Error::Limit`],
    /// [`Error::OutOfMemory`]; [`Error::Device`] of a lost device, and of buffers that are another one's or were
    /// destroyed. Nothing has been encoded then.
    pub fn bind(&self, bindings: &Bindings) -> Result<Bound> {
        let inner = &self.inner;
        let inputs = self.bound_inputs(bindings)?;
        let input_io: Vec<Option<Io>> = inputs.iter().map(|t| t.as_ref().map(Io::of)).collect();
        let geometry = inner.compiled.geometry(&input_io, &[])?;
        let outputs = self.bound_outputs(bindings, &inputs, &geometry)?;
        let output_io: Vec<Io> = outputs.iter().map(Io::of).collect();
        inner.compiled.check_bytes(&input_io, &output_io)?;
        let pooled = self.check_aliases(&inputs, &outputs)?;
        let (geometry, resolved) = inner.resolve(&BoundIo { inputs: input_io, outputs: output_io }, pooled)?;
        Maker { inner, inputs: &inputs, outputs: &outputs, geometry: &geometry }.make(self, resolved)
    }
}

/// Makes what a bound plan holds.
pub(crate) struct Maker<'a> {
    pub inner: &'a Inner,
    pub inputs: &'a [Option<Tensor>],
    pub outputs: &'a [Tensor],
    pub geometry: &'a Geometry,
}

impl Maker<'_> {
    pub fn make(&self, plan: &Plan, resolved: Resolved) -> Result<Bound> {
        let Maker { inner, .. } = self;
        let ctx = &inner.ctx;
        let program = &inner.compiled.program;
        let slots = scalar_slots(program);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let scalars = ctx.create_buffer("wgloss scalars", 4 * (1 + slots.len().max(1) as u64), usage)?;
        ctx.write("wgloss scalars", &scalars, 0, &NO_BAD_ROW.to_le_bytes())?;
        let work = inner.workspace(resolved.work_words)?;
        let mut copies = Vec::new();
        for (slot, id) in slots.iter().enumerate() {
            if let Node::Input(place) = *program.node(*id) {
                let tensor = self.inputs[place as usize].as_ref().expect("every input of the program is bound");
                if tensor.dtype().is_packed() {
                    continue; // widened by a dispatch
                }
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
                let values = Place::kept_values(self.geometry, program.outputs[*output].scope);
                let usage = wgpu::BufferUsages::STORAGE;
                let bytes = (4 * values).next_multiple_of(16);
                kept[*output] = Some(ctx.create_buffer("wgloss kept gradient", bytes, usage)?);
            }
        }
        let exchanges = self.exchanges(&resolved)?;
        let all: Vec<&Step> = resolved.scalars.iter().chain(&resolved.steps).collect();
        let (uniforms, offsets) = self.uniforms(&all)?;
        let mut steps = Vec::new();
        for (step, offset) in all.into_iter().zip(offsets) {
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
            let resource = |what: Resource| match what {
                Resource::Shape => uniform(offset.first),
                Resource::Span => uniform(offset.span.unwrap_or(offset.first)),
                Resource::Params => uniform((0, self.inner.compiled.params_bytes())),
                Resource::Storage(place) => storage(place, source.bindings[place].slot),
            };
            let entry = |(binding, what)| wgpu::BindGroupEntry { binding, resource: resource(what) };
            let entries: Vec<wgpu::BindGroupEntry<'_>> = step.resources().into_iter().map(entry).collect();
            let group = self.bind_group(source, &pipeline, &entries)?;
            steps.push(BoundStep { pipeline, group, grid });
        }
        let after_scalars = steps.split_off(resolved.scalars.len());
        let params = Arc::new(Mutex::new(program.params.iter().map(|p| p.value).collect()));
        let status = Status::new(self, &scalars, &params);
        let bound = Bound {
            plan: plan.clone(),
            scalar_steps: steps,
            steps: after_scalars,
            parts: resolved.parts.clone(),
            exchanges,
            copies,
            scalars,
            uniforms,
            params,
            outputs: self.outputs.to_vec(),
            status,
            bytes: resolved.facts.bytes,
            explained: inner.explain(self.geometry, &resolved),
        };
        // Scalars are copied and bound nowhere: one recording shows whether their buffers can be.
        ctx.scoped("a recorded step", || {
            let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            bound.encode_timed(&mut encoder, &bound.steps, None);
            drop(encoder.finish());
        })?;
        Ok(bound)
    }

    fn exchanges(&self, resolved: &Resolved) -> Result<Vec<BoundExchange>> {
        let shards = self.inner.compiled.staging.shard.map_or(0, |shard| shard.shards) as usize;
        let rows = self.geometry.rows as usize;
        let limits = self.inner.ctx.limits();
        let allowed = limits.binding_bytes.min(limits.buffer_bytes);
        let make = |exchange: &Exchange| {
            let words = exchange.words as usize;
            let needed = ((words * shards) as u64).saturating_mul(4).saturating_mul(self.geometry.rows);
            if needed > allowed {
                let (what, limit) = ("the states of all shards".to_owned(), "max_storage_buffer_binding_size");
                return Err(Error::Limit { what, needed, allowed, limit });
            }
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
        let label = source.wgsl.lines().next();
        let descriptor = wgpu::BindGroupDescriptor { label, layout: &pipeline.layout, entries };
        let ctx = &self.inner.ctx;
        ctx.caught("a bind group", 0, || ctx.device().create_bind_group(&descriptor))
    }

    /// The tensor's bytes, or a part of them, from an aligned offset.
    fn binding<'t>(&self, tensor: &'t Tensor, part: Option<(u64, u64)>) -> wgpu::BindingResource<'t> {
        let whole = tensor.bound_range(u64::from(self.inner.ctx.limits().offset_alignment));
        bytes_of(tensor.buffer(), part.or(Some((whole.start, whole.end))))
    }

    /// One buffer with the parameters first, then each dispatch's uniforms.
    fn uniforms(&self, steps: &[&Step]) -> Result<(wgpu::Buffer, Vec<Offsets>)> {
        let mut bytes: Vec<u8> = Vec::new();
        let mut push = |data: &[u8]| {
            let offset = bytes.len() as u64;
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(UNIFORM_STRIDE as usize), 0);
            (offset, data.len() as u64)
        };
        let mut params: Vec<u32> = self.inner.compiled.program.params.iter().map(|p| p.word(p.value)).collect();
        params.resize(self.inner.compiled.params_bytes() as usize / 4, 0);
        push(bytemuck::cast_slice(&params));
        let mut offsets = Vec::new();
        for step in steps {
            offsets.push(match *step {
                Step::Kernel { shape, span, .. } => {
                    let first = push(bytemuck::bytes_of(&**shape));
                    Offsets { first, span: span.as_ref().map(|span| push(bytemuck::bytes_of(span))) }
                }
                Step::Settle { uniform, .. } => Offsets { first: push(uniform), span: None },
                Step::States { uniform, .. } => Offsets { first: push(bytemuck::bytes_of(uniform)), span: None },
                Step::Widen { uniform, .. } => Offsets { first: push(bytemuck::bytes_of(uniform)), span: None },
            });
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.inner.ctx.create_buffer("wgloss uniforms", bytes.len() as u64, usage)?;
        self.inner.ctx.write("wgloss uniforms", &buffer, 0, &bytes)?;
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
    span: Option<(u64, u64)>,
}
