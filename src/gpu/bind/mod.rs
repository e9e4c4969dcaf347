//! Binds a plan to tensors: checks, buffers, uniforms, bind groups.

mod bindings;
mod tensors;

pub use bindings::Bindings;

use crate::dispatch::{Dispatch, Exchange, FIRST_STORAGE, OutputKind, Planned, Region, Slot, Uniform};
use crate::error::{Error, Result};
use crate::gpu::bound::status::{NONE_BAD, Status, Watched, WatchedGroups, WatchedIndices};
use crate::gpu::bound::{Bound, BoundDispatch, BoundExchange, UNIFORM_STRIDE};
use crate::gpu::device::pipeline::Pipeline;
use crate::gpu::plan::{Inner, Plan, Ready};
use crate::gpu::tensor::Tensor;
use crate::shape::DType;
use std::sync::{Arc, Mutex, OnceLock};
use tensors::BoundTensors;

impl Plan {
    /// Checks tensors, makes outputs that were not named, and makes the bind groups: once per set of buffers.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::DType`], [`Error::Shape`], [`Error::Buffer`], [`Error::Alias`], [`Error::Limit`],
    /// [`Error::OutOfMemory`]; [`Error::Device`] of a lost device, and of buffers that are another one's or were
    /// destroyed. Nothing has been encoded then.
    pub fn bind(&self, bindings: &Bindings) -> Result<Bound> {
        let inner = &self.inner;
        let tensors = self.tensors(bindings)?;
        let (placed, conditions) = (tensors.placed(), inner.conditions(tensors.pooled));
        let Ready { planned, pipelines, .. } = inner.ready(placed.clone(), conditions)?;
        tensors.check_tied(&planned)?;
        let buffers = Buffers::new(inner, &tensors, &planned)?;
        let uniforms = Uniforms::new(inner, &planned)?;
        let bound = planned.all().zip(pipelines.iter());
        let bound = bound.map(|(dispatch, pipeline)| buffers.bind(dispatch, pipeline, &uniforms));
        let mut scalar_dispatches = bound.collect::<Result<Vec<_>>>()?;
        let dispatches = scalar_dispatches.split_off(planned.scalars.len());
        let params = inner.prepared.signature().params.iter().map(|param| param.decl.value);
        let params = Arc::new(Mutex::new(params.collect()));
        let watched: Vec<Watched> =
            planned.labels.iter().map(|labels| Watched::new(labels, tensors.labels(labels))).collect();
        let name = |input: usize| inner.prepared.signature().inputs[input].name.clone();
        let indices = planned.indices.iter().map(|status| WatchedIndices {
            status: *status,
            name: name(status.input),
            buffer: tensors.index_buffer(status.input),
        });
        let groups = planned.groups.as_ref().map(|status| WatchedGroups {
            status: status.clone(),
            name: name(status.input),
            buffer: tensors.index_buffer(status.input),
        });
        let watched = (watched, indices.collect(), groups);
        let status = Status::new(&inner.ctx, watched, &buffers.scalars, &params).map(Arc::new);
        let Buffers { scalars, copies, exchanges, .. } = buffers;
        let bound = Bound {
            plan: self.clone(),
            scalar_dispatches,
            dispatches,
            phases: planned.phases.clone(),
            exchanges,
            copies,
            copy_dispatches: OnceLock::new(),
            scalars,
            param_offsets: uniforms.params,
            uniforms: uniforms.buffer,
            params,
            outputs: tensors.outputs,
            status,
            bytes: planned.bytes,
            tensors: placed,
            conditions,
        };
        // Scalar inputs are copied, not bound: one recording validates these copies.
        inner.ctx.scoped("a recorded step", || {
            let mut encoder = inner.ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            bound.encode_timed(&mut encoder, &bound.dispatches, None);
            drop(encoder.finish());
        })?;
        Ok(bound)
    }
}

/// All buffers that the dispatches of a bound plan may bind.
struct Buffers<'a> {
    inner: &'a Inner,
    tensors: &'a BoundTensors,
    workspace: wgpu::Buffer,
    scalars: wgpu::Buffer,
    /// The f32 values of outputs that are finished after their pass.
    kept: Vec<Option<wgpu::Buffer>>,
    exchanges: Vec<BoundExchange>,
    /// Scalar inputs of 32 bits: buffer, offset there, offset in `scalars`.
    copies: Vec<(wgpu::Buffer, u64, u64)>,
}

impl<'a> Buffers<'a> {
    fn new(inner: &'a Inner, tensors: &'a BoundTensors, planned: &Planned) -> Result<Buffers<'a>> {
        let ctx = &inner.ctx;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let scalars = ctx.create_buffer("wgloss scalars", 4 * planned.scalar_words, usage)?;
        let words = planned.labels.iter().map(|labels| labels.word);
        let words = words.chain(planned.indices.iter().map(|status| status.word));
        for word in words.chain(planned.groups.iter().map(|groups| groups.word)) {
            ctx.write("wgloss scalars", &scalars, 4 * word, &NONE_BAD.to_le_bytes())?;
        }
        let workspace = inner.workspace(planned)?;
        let mut copies = Vec::new();
        for &(input, word) in &planned.scalar_copies {
            let tensor = tensors.inputs[input].as_ref().expect("every input of the plan is bound");
            if !tensor.buffer().usage().contains(wgpu::BufferUsages::COPY_SRC) {
                let message = "a scalar needs BufferUsages::COPY_SRC".to_owned();
                let input = inner.prepared.signature().inputs[input].name.clone();
                return Err(Error::Buffer { input, message });
            }
            copies.push((tensor.buffer().clone(), tensor.offset() * 4, 4 * word));
        }
        let mut kept: Vec<Option<wgpu::Buffer>> = vec![None; tensors.outputs.len()];
        for each in &planned.kept {
            let usage = wgpu::BufferUsages::STORAGE;
            kept[each.output] = Some(ctx.create_buffer("wgloss kept gradient", each.bytes, usage)?);
        }
        let exchanges = planned.exchanges.iter().map(|exchange| bound_exchange(inner, exchange));
        let exchanges = exchanges.collect::<Result<_>>()?;
        Ok(Buffers { inner, tensors, workspace, scalars, kept, exchanges, copies })
    }

    fn bind(&self, dispatch: &Dispatch, pipeline: &Arc<Pipeline>, uniforms: &Uniforms) -> Result<BoundDispatch> {
        let ctx = &self.inner.ctx;
        let of_uniform = dispatch
            .uniforms
            .iter()
            .map(|(binding, uniform)| wgpu::BindGroupEntry { binding: *binding, resource: uniforms.resource(uniform) });
        let storage = (FIRST_STORAGE..).zip(&dispatch.storage);
        let storage = storage.map(|(binding, region)| wgpu::BindGroupEntry { binding, resource: self.region(region) });
        let entries: Vec<wgpu::BindGroupEntry<'_>> = of_uniform.chain(storage).collect();
        let label = Some(dispatch.title());
        let descriptor = wgpu::BindGroupDescriptor { label, layout: &pipeline.layout, entries: &entries };
        let group = ctx.caught("a bind group", 0, || ctx.device().create_bind_group(&descriptor))?;
        Ok(BoundDispatch { pipeline: pipeline.clone(), group, grid: dispatch.grid.map(|groups| groups as u32) })
    }

    /// The bytes that a region names, or else all of its buffer or tensor.
    fn region(&self, region: &Region) -> wgpu::BindingResource<'_> {
        let alignment = u64::from(self.inner.ctx.limits().offset_alignment);
        let tensor = |tensor: &'_ Tensor| {
            let whole = tensor.bound_range(alignment);
            [whole.start, whole.end]
        };
        let (buffer, whole) = match region.slot {
            Slot::Input(input) => {
                let bound = self.tensors.inputs[input].as_ref().expect("every input of the plan is bound");
                (bound.buffer(), Some(tensor(bound)))
            }
            Slot::Output(output) => {
                let bound = &self.tensors.outputs[output];
                (bound.buffer(), Some(tensor(bound)))
            }
            Slot::FoundInf => {
                let signature = self.inner.prepared.signature();
                let index = signature.outputs.iter().position(|output| output.kind == OutputKind::FoundInf);
                let bound = &self.tensors.outputs[index.expect("a plan with that slot has that output")];
                (bound.buffer(), Some(tensor(bound)))
            }
            Slot::Kept(output) => {
                (self.kept[output].as_ref().expect("an output that is finished after its pass is kept"), None)
            }
            Slot::Workspace => (&self.workspace, None),
            Slot::Scalars => (&self.scalars, None),
            Slot::States(exchange) => (self.exchanges[exchange].states.buffer(), None),
            Slot::AllStates(exchange) => (self.exchanges[exchange].all_states.buffer(), None),
        };
        let in_buffer = |[start, end]: [u64; 2]| [start, end.min(buffer.size() - buffer.size() % 4)];
        let Some([start, end]) = region.bytes.map(in_buffer).or(whole) else { return buffer.as_entire_binding() };
        let size = wgpu::BufferSize::new(end - start);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: start, size })
    }
}

fn bound_exchange(inner: &Inner, exchange: &Exchange) -> Result<BoundExchange> {
    let limits = inner.ctx.limits();
    let allowed = limits.binding_bytes.min(limits.buffer_bytes);
    let needed = (exchange.words * exchange.shards).saturating_mul(4).saturating_mul(exchange.rows);
    if needed > allowed {
        let (what, limit) = ("the states of all shards".to_owned(), "max_storage_buffer_binding_size");
        return Err(Error::Limit { what, needed, allowed, limit });
    }
    let [rows, words, shards] = [exchange.rows, exchange.words, exchange.shards].map(|count| count as usize);
    let zeros = |shape: &[usize]| Tensor::zeros(&inner.ctx, DType::U32, shape);
    Ok(BoundExchange { states: zeros(&[rows, words])?, all_states: zeros(&[shards, rows, words])? })
}

/// One buffer that holds every uniform once.
struct Uniforms {
    buffer: wgpu::Buffer,
    /// Each uniform, and its first byte.
    offsets: Vec<(Arc<Uniform>, u64)>,
    /// Byte offsets of each parameter.
    params: Vec<Vec<u64>>,
}

impl Uniforms {
    fn new(inner: &Inner, planned: &Planned) -> Result<Uniforms> {
        let params = &inner.prepared.signature().params;
        let values: Vec<u32> = params.iter().map(|param| param.decl.word(param.decl.value)).collect();
        let mut bytes: Vec<u8> = Vec::new();
        let mut offsets: Vec<(Arc<Uniform>, u64)> = Vec::new();
        let mut param_offsets = vec![Vec::new(); params.len()];
        for (_, uniform) in planned.all().flat_map(|dispatch| &dispatch.uniforms) {
            if offsets.iter().any(|(known, _)| Arc::ptr_eq(known, uniform)) {
                continue;
            }
            let offset = bytes.len() as u64;
            bytes.extend_from_slice(bytemuck::cast_slice(&uniform.words(&values)));
            bytes.resize(bytes.len().next_multiple_of(UNIFORM_STRIDE as usize), 0);
            for (param, known) in param_offsets.iter_mut().enumerate() {
                known.extend(uniform.param(param).map(|word| offset + 4 * u64::from(word)));
            }
            offsets.push((uniform.clone(), offset));
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = inner.ctx.create_buffer("wgloss uniforms", bytes.len() as u64, usage)?;
        inner.ctx.write("wgloss uniforms", &buffer, 0, &bytes)?;
        Ok(Uniforms { buffer, offsets, params: param_offsets })
    }

    fn resource(&self, uniform: &Arc<Uniform>) -> wgpu::BindingResource<'_> {
        let found = self.offsets.iter().find(|(known, _)| Arc::ptr_eq(known, uniform));
        let (_, offset) = found.expect("all uniforms of the dispatches are in the buffer");
        let size = wgpu::BufferSize::new(4 * u64::from(uniform.words));
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &self.buffer, offset: *offset, size })
    }
}
