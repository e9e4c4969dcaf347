//! Tensors of a plan's shapes, made for tuning, and a clock for runs over them.

use crate::dispatch::{GroupStatus, Mode, OutputKind};
use crate::error::Result;
use crate::expr::op::Kind;
use crate::gpu::bind::Bindings;
use crate::gpu::bound::Bound;
use crate::gpu::device::context::Context;
use crate::gpu::plan::Inner;
use crate::gpu::tensor::Tensor;
use crate::gpu::tune::agree::{Measure, disagreement};
use crate::plan::operator::{Conditions, Placed};
use crate::plan::tuning::TuneClock;
use crate::shape::{DType, Layout, Ragged, RowAxis, Scope, widen_bf16, widen_f16};
use half::{bf16, f16};
use std::time::Instant;

/// Words after which input data repeats: a prime, so that rows differ.
const PERIOD: u64 = 262_139;
/// Bytes that are compared at the beginning and at the end of an output; a shorter one is compared whole.
const COMPARED: u64 = 32 << 20;
/// Milliseconds of one sample by wall clock: shorter runs are repeated.
const WALL_SAMPLE_MS: f64 = 5.0;

/// Tensors made for tuning alone: inputs that any loss is defined for (numbers between 0 and 1, labels in range), and
/// outputs that all candidates share.
pub(crate) struct Trial<'a> {
    inner: &'a Inner,
    cols: usize,
    pub bindings: Bindings,
    /// Inputs that a run overwrites, and one period of what they held.
    overwritten: Vec<(wgpu::Buffer, wgpu::Buffer)>,
    /// Outputs that a run adds to.
    accumulated: Vec<wgpu::Buffer>,
    stamps: Option<Stamps>,
}

struct Stamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

/// Offsets or ids of groups of nearly equal length, as the input lies in memory.
fn equal_groups(groups: &GroupStatus) -> Vec<u32> {
    let [rows, count] = groups.sizes;
    let values = if groups.by == Ragged::Offsets { count + 1 } else { rows };
    let value = |index: u64| match groups.by {
        Ragged::Offsets => index * rows / count.max(1),
        Ragged::Ids { .. } => index * count / rows.max(1),
    };
    let last = (0..values).map(|index| groups.element(index)).max().unwrap_or(0);
    let mut words = vec![0; last as usize + 1];
    (0..values).for_each(|index| words[groups.element(index) as usize] = value(index) as u32);
    words
}

impl<'a> Trial<'a> {
    pub fn new(inner: &'a Inner) -> Result<Trial<'a>> {
        let ctx = &inner.ctx;
        let cols = inner.prepared.tune_facts()?.cols;
        let stamps = ctx.device().features().contains(wgpu::Features::TIMESTAMP_QUERY).then(|| Stamps::new(ctx));
        let mut trial = Trial {
            inner,
            cols: cols as usize,
            bindings: Bindings::new(),
            overwritten: Vec::new(),
            accumulated: Vec::new(),
            stamps: stamps.transpose()?,
        };
        let planned = inner.prepared.planned()?;
        let signature = inner.prepared.signature();
        let modes: Vec<Mode> = signature.outputs.iter().map(|output| output.mode).collect();
        let groups = inner.prepared.plan(&planned, Conditions::default())?.groups;
        let mut fills = Vec::new();
        for (input, decl) in signature.inputs.iter().enumerate() {
            let io = planned.inputs[input].as_ref().expect("every input of a plan is planned");
            let tensor = trial.tensor(io)?;
            if let Some(groups) = groups.as_ref().filter(|groups| groups.input == input) {
                ctx.write("wgloss tuning groups", tensor.buffer(), 0, bytemuck::cast_slice(&equal_groups(groups)))?;
                trial.bindings = std::mem::take(&mut trial.bindings).input(&decl.name, &tensor);
                continue;
            }
            let classes = decl.classes.map_or(cols, |classes| cols.min(classes.into()));
            let labels = (decl.kind == Kind::Int).then_some(classes.clamp(1, 1 << 31) as u32);
            let source = trial.source(io.dtype, labels, input as u32)?;
            fills.push((tensor.buffer().clone(), source));
            if modes.contains(&Mode::InPlace(input)) {
                trial.overwritten.extend(fills.last().cloned());
            }
            trial.bindings = std::mem::take(&mut trial.bindings).input(&decl.name, &tensor);
        }
        ctx.submit("tuning data", |encoder| fills.iter().for_each(|(buffer, source)| fill(encoder, source, buffer)))?;
        for (output, mode) in modes.into_iter().enumerate() {
            let kind = &signature.outputs[output].kind;
            let is_made = matches!(kind, OutputKind::Denominator | OutputKind::FoundInf);
            if matches!(mode, Mode::InPlace(_)) || is_made {
                continue;
            }
            let tensor = trial.tensor(&planned.outputs[output])?;
            if mode == Mode::Accumulate {
                trial.accumulated.push(tensor.buffer().clone());
            }
            let bindings = std::mem::take(&mut trial.bindings);
            let name = |input: usize| &signature.inputs[input].name;
            trial.bindings = match kind {
                OutputKind::Loss => bindings.loss(&tensor),
                OutputKind::Extra(extra) => bindings.extra(extra, &tensor),
                OutputKind::Grad(input) => bindings.grad(name(*input), &tensor),
                OutputKind::HessianDiagonal(input) => bindings.hessian_diagonal(name(*input), &tensor),
                OutputKind::Denominator | OutputKind::FoundInf => {
                    unreachable!("denominators and found_inf were passed over: the plan makes their tensors")
                }
            };
        }
        Ok(trial)
    }

    fn tensor(&self, io: &Placed) -> Result<Tensor> {
        let ctx = &self.inner.ctx;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        // As `Tensor::zeros`: to the end of the last vector.
        let bytes = io.layout.extent().saturating_mul(io.dtype.size()).checked_next_multiple_of(16).unwrap_or(u64::MAX);
        let buffer = ctx.create_buffer("wgloss tuning", bytes, usage)?;
        Tensor::from_buffer_strided(ctx, buffer, 0, io.dtype, io.layout.clone())
    }

    /// One period of an input's data.
    fn source(&self, dtype: DType, labels: Option<u32>, seed: u32) -> Result<wgpu::Buffer> {
        let word = |k: u32| {
            let random = mixed(k ^ (seed << 24));
            // 1/64 to 63/64: inside (0, 1) in all types.
            let unit = |bits: u32| (1.0 + f64::from(bits % 0x8000) / f64::from(0x8000) * 62.0) / 64.0;
            let (low, high) = (unit(random), unit(random >> 16));
            match (labels, dtype) {
                (Some(classes), _) => random % classes.max(1),
                (None, DType::F16) => pair(f16::from_f64(low).to_bits(), f16::from_f64(high).to_bits()),
                (None, DType::BF16) => pair(bf16::from_f64(low).to_bits(), bf16::from_f64(high).to_bits()),
                (None, _) => (low as f32).to_bits(),
            }
        };
        let words: Vec<u32> = (0..PERIOD as u32).map(word).collect();
        let ctx = &self.inner.ctx;
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = ctx.create_buffer("wgloss tuning data", 4 * PERIOD, usage)?;
        ctx.write("wgloss tuning data", &buffer, 0, bytemuck::cast_slice(&words))?;
        Ok(buffer)
    }

    pub fn clock(&self) -> TuneClock {
        if self.stamps.is_some() { TuneClock::Timestamps } else { TuneClock::Wall }
    }

    /// Undoes what the last run did to its own inputs, so that each run does the same work on the same numbers.
    fn restore(&self, encoder: &mut wgpu::CommandEncoder) {
        for (buffer, source) in &self.overwritten {
            fill(encoder, source, buffer);
        }
        for buffer in &self.accumulated {
            encoder.clear_buffer(buffer, 0, None);
        }
    }

    /// Runs once, and reads all outputs, or the ends of long ones.
    pub fn outputs(&self, bound: &Bound) -> Result<Vec<Vec<f32>>> {
        self.inner.ctx.submit("a step", |encoder| {
            self.restore(encoder);
            bound.encode_timed(encoder, &bound.dispatches, None);
        })?;
        bound.outputs.iter().map(|tensor| self.ends(tensor)).collect()
    }

    fn ends(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        let (size, elements) = (tensor.dtype().size(), tensor.layout().extent());
        // Whole rows, and whole words.
        let unit = if self.inner.prepared.signature().row_axis != RowAxis::None { 2 * self.cols as u64 } else { 2 };
        let part = (COMPARED / size).next_multiple_of(unit);
        let tail = elements.saturating_sub(part) / unit * unit;
        let pieces = match elements > 2 * part {
            true => vec![(0, part), (tail, elements - tail)],
            false => vec![(0, elements)],
        };
        let mut values = Vec::new();
        for (first, count) in pieces {
            let bytes = (count * size).next_multiple_of(4);
            let read = self.inner.ctx.read("tensor", tensor.buffer(), first * size, bytes);
            let bytes = pollster::block_on(read)?;
            let bytes = &bytes[..(count * size) as usize];
            match tensor.dtype() {
                DType::F16 => values.extend(widen_f16(&bytemuck::pod_collect_to_vec(bytes))),
                DType::BF16 => values.extend(widen_bf16(&bytemuck::pod_collect_to_vec(bytes))),
                _ => values.extend(bytemuck::pod_collect_to_vec::<u8, f32>(bytes)),
            }
        }
        Ok(values)
    }

    /// The first output of a candidate that disagrees with the default's, and its worst value.
    pub fn disagreement(&self, bound: &Bound, want: &[Vec<f32>], got: &[Vec<f32>]) -> Option<String> {
        let signature = self.inner.prepared.signature();
        (0..want.len()).find_map(|output| {
            let (kind, tensor) = (&signature.outputs[output].kind, &bound.outputs[output]);
            let is_gradient = kind.is_gradient();
            let shape = tensor.shape();
            let columns = signature.row_axis.columns(shape.len()).filter(|columns| columns.end == shape.len());
            let last = columns.is_some_and(|columns| shape[columns].iter().product::<usize>() == self.cols);
            let dense = *tensor.layout() == Layout::contiguous(shape);
            let in_rows = is_gradient && signature.outputs[output].scope == Scope::Element && last && dense;
            let row = if in_rows { self.cols } else { want[output].len() };
            let measure = Measure { dtype: tensor.dtype(), row, is_loss: !is_gradient };
            let what = disagreement(&want[output], &got[output], measure)?;
            Some(format!("{} {what}", signature.output_name(kind)))
        })
    }

    /// Milliseconds of one run. `None` if a timestamp is unreliable: later runs are timed by wall clock.
    pub fn time(&mut self, bound: &Bound, before: Option<f64>) -> Result<Option<f64>> {
        let ctx = &self.inner.ctx;
        let Some(Stamps { queries, resolved }) = &self.stamps else {
            ctx.submit("a step", |encoder| self.restore(encoder))?;
            ctx.wait()?;
            let changes = !self.overwritten.is_empty() || !self.accumulated.is_empty();
            let repeats =
                before.filter(|_| !changes).map_or(1, |ms| (WALL_SAMPLE_MS / ms).ceil().clamp(1.0, 64.0) as u32);
            let begin = Instant::now();
            ctx.submit("a step", |encoder| {
                (0..repeats).for_each(|_| bound.encode_timed(encoder, &bound.dispatches, None));
            })?;
            ctx.wait()?;
            return Ok(Some(begin.elapsed().as_secs_f64() * 1e3 / f64::from(repeats)));
        };
        let writes = wgpu::ComputePassTimestampWrites {
            query_set: queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        };
        let begin = Instant::now();
        ctx.submit("a step", |encoder| {
            self.restore(encoder);
            bound.encode_timed(encoder, &bound.dispatches, Some(writes));
            encoder.resolve_query_set(queries, 0..2, resolved, 0);
        })?;
        ctx.wait()?;
        let wall = begin.elapsed().as_secs_f64() * 1e3;
        let ticks = pollster::block_on(ctx.read("timestamps", resolved, 0, 16))?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&ticks);
        let ms = ticks[1].wrapping_sub(ticks[0]) as f64 * f64::from(ctx.queue().get_timestamp_period()) * 1e-6;
        // Reject a zero timestamp, or one above wall time: the clock is unreliable.
        let sensible = ms > 0.0 && ms <= 1.05 * wall + 0.1;
        if !sensible {
            self.stamps = None;
        }
        Ok(sensible.then_some(ms))
    }
}

impl Stamps {
    fn new(ctx: &Context) -> Result<Stamps> {
        let (ty, count) = (wgpu::QueryType::Timestamp, 2);
        let descriptor = wgpu::QuerySetDescriptor { label: Some("wgloss tuning"), ty, count };
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = ctx.create_buffer("wgloss timestamps", 16, usage)?;
        let queries = ctx.scoped("timestamps", || ctx.device().create_query_set(&descriptor))?;
        Ok(Stamps { queries, resolved })
    }
}

/// Copies one period of data to a buffer, again and again.
fn fill(encoder: &mut wgpu::CommandEncoder, source: &wgpu::Buffer, buffer: &wgpu::Buffer) {
    let mut first = 0;
    while first < buffer.size() {
        let bytes = source.size().min(buffer.size() - first);
        encoder.copy_buffer_to_buffer(source, 0, buffer, first, bytes);
        first += bytes;
    }
}

fn pair(low: u16, high: u16) -> u32 {
    u32::from(low) | u32::from(high) << 16
}

/// Bits that look random: the finaliser of MurmurHash3.
fn mixed(key: u32) -> u32 {
    let key = (key ^ key >> 16).wrapping_mul(0x85eb_ca6b);
    let key = (key ^ key >> 13).wrapping_mul(0xc2b2_ae35);
    key ^ key >> 16
}
