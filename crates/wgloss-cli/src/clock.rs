//! Times of commands: by GPU timestamps around the kernels, or by wall clock around a whole call. And the copy that
//! they are held against.

use crate::Fallible;
use std::time::Instant;
use wgloss::{Context, DType, Error, Result, Tensor};

/// Written before each timed step on a GPU, so that no step finds in the cache what the one before left there.
const FLUSH_BYTES: u64 = 256 << 20;

/// Milliseconds of repeated runs.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<f64>);

impl Times {
    pub fn push(&mut self, ms: f64) {
        self.0.push(ms);
    }

    pub fn runs(&self) -> usize {
        self.0.len()
    }

    /// The time below which this share of the runs lies.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * share).round() as usize]
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Records a step, with timestamps where they are given.
pub type Encode<'a> =
    dyn Fn(&mut wgpu::CommandEncoder, Option<wgpu::ComputePassTimestampWrites<'_>>) -> Result<()> + 'a;

pub struct Clock<'a> {
    ctx: &'a Context,
    stamps: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    flush: Option<wgpu::Buffer>,
}

impl<'a> Clock<'a> {
    pub fn new(ctx: &'a Context) -> Clock<'a> {
        let device = ctx.device();
        let can = device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let stamps = can.then(|| {
            let (ty, count) = (wgpu::QueryType::Timestamp, 2);
            let queries = device.create_query_set(&wgpu::QuerySetDescriptor { label: Some("stamps"), ty, count });
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            (queries, buffer(ctx, "stamps", 16, usage))
        });
        // A CPU that runs kernels has nothing that a sweep would clear and the kernels' own data would not.
        let size = FLUSH_BYTES.min(ctx.limits().buffer_bytes);
        let flush = (!ctx.limits().software).then(|| buffer(ctx, "flush", size, wgpu::BufferUsages::COPY_DST));
        Clock { ctx, stamps, flush }
    }

    /// Whether kernels can be timed apart from calls.
    pub fn has_stamps(&self) -> bool {
        self.stamps.is_some()
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    fn wait(&self) -> Result<()> {
        let polled = self.ctx.device().poll(wgpu::PollType::wait_indefinitely());
        polled.map(|_| ()).map_err(|error| Error::Device { message: error.to_string() })
    }

    /// Clears the caches, and waits until the device is idle.
    fn sweep(&self) -> Result<()> {
        if let Some(flush) = &self.flush {
            let mut encoder = self.encoder();
            encoder.clear_buffer(flush, 0, None);
            self.ctx.queue().submit([encoder.finish()]);
        }
        self.wait()
    }

    /// Milliseconds of the kernels of a step; none where the device has no timestamps, or one makes no sense.
    pub fn by_gpu(&self, encode: &Encode<'_>) -> Fallible<Option<f64>> {
        let Some((queries, resolved)) = &self.stamps else { return Ok(None) };
        self.sweep()?;
        let mut encoder = self.encoder();
        let writes = wgpu::ComputePassTimestampWrites {
            query_set: queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        };
        encode(&mut encoder, Some(writes))?;
        encoder.resolve_query_set(queries, 0..2, resolved, 0);
        let begin = Instant::now();
        self.ctx.queue().submit([encoder.finish()]);
        self.wait()?;
        let wall = begin.elapsed().as_secs_f64() * 1e3;
        let words = Tensor::from_buffer(self.ctx, resolved.clone(), 0, DType::U32, &[4])?;
        let words = pollster::block_on(words.read::<u32>(self.ctx))?;
        let tick = |k: usize| u64::from(words[k]) | u64::from(words[k + 1]) << 32;
        let ms = tick(2).wrapping_sub(tick(0)) as f64 * f64::from(self.ctx.queue().get_timestamp_period()) * 1e-6;
        // What took no time, or longer than the host waited for it, was not timed.
        Ok((ms > 0.0 && ms <= 1.05 * wall + 0.1).then_some(ms))
    }

    /// Milliseconds of a call: encoding, submitting, waiting.
    pub fn by_wall(&self, encode: &Encode<'_>) -> Fallible<f64> {
        self.sweep()?;
        let begin = Instant::now();
        let mut encoder = self.encoder();
        encode(&mut encoder, None)?;
        self.ctx.queue().submit([encoder.finish()]);
        self.wait()?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }
}

/// A copy of as many bytes as a work moves, half of them read and half written; of fewer, where a binding holds fewer.
pub struct Copy {
    /// One vector an invocation, and four; of 64-bit integers too, where the losses' kernels load those.
    kernels: Vec<(wgpu::ComputePipeline, wgpu::BindGroup, [u32; 2])>,
    buffers: [wgpu::Buffer; 2],
    /// Bytes read and bytes written.
    pub bytes: u64,
}

impl Copy {
    pub fn new(ctx: &Context, bytes: u64) -> Copy {
        let (device, limits) = (ctx.device(), ctx.limits());
        let most = limits.binding_bytes.min(limits.buffer_bytes);
        let size = (bytes / 2).next_multiple_of(256).min(most - most % 256).max(256);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffers = [buffer(ctx, "copy source", size, usage), buffer(ctx, "copy sink", size, usage)];
        let source = include_str!("copy.wgsl");
        let kernel = |vectors: u32, wide: bool| {
            let source = if wide { source.replace("vec4<u32>", "vec4<u64>") } else { source.to_owned() };
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some("copy"),
                source: wgpu::ShaderSource::Wgsl(source.into()),
            });
            let vector_bytes = if wide { 32 } else { 16 };
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some("copy"),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[("VECTORS", f64::from(vectors))],
                    ..wgpu::PipelineCompilationOptions::default()
                },
                cache: None,
            });
            let entry = |k: usize| wgpu::BindGroupEntry { binding: k as u32, resource: buffers[k].as_entire_binding() };
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("copy"),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[entry(0), entry(1)],
            });
            let groups = (size / vector_bytes).div_ceil(256 * u64::from(vectors));
            let across = groups.min(1 << 15);
            (pipeline, group, [across as u32, groups.div_ceil(across) as u32])
        };
        let mut kernels = vec![kernel(1, false), kernel(4, false)];
        if limits.wide {
            kernels.extend([kernel(1, true), kernel(4, true)]);
        }
        Copy { kernels, buffers, bytes: 2 * size }
    }

    /// The device's own copy. It is no compute pass: only the wall clock can time it.
    pub fn command(&self) -> Box<Encode<'_>> {
        Box::new(|encoder, _| {
            encoder.copy_buffer_to_buffer(&self.buffers[0], 0, &self.buffers[1], 0, self.bytes / 2);
            Ok(())
        })
    }

    /// The kernels that copy, to be timed each.
    pub fn ways(&self) -> impl Iterator<Item = Box<Encode<'_>>> {
        self.kernels.iter().map(|(pipeline, group, [x, y])| -> Box<Encode<'_>> {
            Box::new(move |encoder, timestamp_writes| {
                let descriptor = wgpu::ComputePassDescriptor { label: Some("copy"), timestamp_writes };
                let mut pass = encoder.begin_compute_pass(&descriptor);
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(*x, *y, 1);
                Ok(())
            })
        })
    }
}

fn buffer(ctx: &Context, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
    ctx.device().create_buffer(&descriptor)
}

#[cfg(test)]
mod tests {
    use super::Times;

    #[test]
    fn quantiles_are_runs() {
        let times = Times(vec![5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!([0.0, 0.5, 1.0].map(|share| times.quantile(share)), [1.0, 3.0, 5.0]);
    }
}
