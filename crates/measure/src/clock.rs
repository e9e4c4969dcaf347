//! Times of commands: by GPU timestamps around kernels, or by wall clock around calls.

use std::time::{Duration, Instant};
use wgloss::{Context, DType, Error, Result, Tensor};

/// Written before each timed step on a GPU, so that no step finds in the cache what the one before left there.
const FLUSH_BYTES: u64 = 256 << 20;
/// Samples of repeated calls take at least this long.
const REPEATED_SAMPLE: Duration = Duration::from_millis(50);
/// Steps of one round, at most.
const MOST_STEPS: usize = 16;

/// Features for timestamps around whole commands; those of compute passes need `TIMESTAMP_QUERY` alone.
pub const COMMAND_STAMPS: wgpu::Features =
    wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);

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

    /// In the order in which they ran.
    pub fn samples(&self) -> &[f64] {
        &self.0
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

/// Times steps on one device.
pub struct Clock<'a> {
    ctx: &'a Context,
    /// Queries, and the buffer that they are resolved to.
    stamps: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    flush: Option<wgpu::Buffer>,
}

impl<'a> Clock<'a> {
    pub fn new(ctx: &'a Context) -> Clock<'a> {
        let device = ctx.device();
        let can = device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let stamps = can.then(|| {
            let (ty, count) = (wgpu::QueryType::Timestamp, 2 * MOST_STEPS as u32);
            let queries = device.create_query_set(&wgpu::QuerySetDescriptor { label: Some("stamps"), ty, count });
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            (queries, buffer(ctx, "stamps", 8 * u64::from(count), usage))
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

    /// Whether whole commands can be timed: see [`Clock::round_by_gpu`].
    pub fn has_command_stamps(&self) -> bool {
        self.has_stamps() && self.ctx.device().features().contains(COMMAND_STAMPS)
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

    /// Submits commands that write timestamps before and after each of `steps`. Milliseconds of each step, and of the
    /// wall clock from submit to done.
    fn timed(&self, mut encoder: wgpu::CommandEncoder, steps: usize) -> Result<(Vec<f64>, f64)> {
        let (queries, resolved) = self.stamps.as_ref().expect("asked for only where there are timestamps");
        encoder.resolve_query_set(queries, 0..2 * steps as u32, resolved, 0);
        let begin = Instant::now();
        self.ctx.queue().submit([encoder.finish()]);
        self.wait()?;
        let wall = begin.elapsed().as_secs_f64() * 1e3;
        let words = Tensor::from_buffer(self.ctx, resolved.clone(), 0, DType::U32, &[4 * steps])?;
        let words = pollster::block_on(words.read::<u32>(self.ctx))?;
        let ticks: Vec<u64> = words.chunks(2).map(|w| u64::from(w[0]) | u64::from(w[1]) << 32).collect();
        let ms = f64::from(self.ctx.queue().get_timestamp_period()) * 1e-6;
        Ok((ticks.chunks(2).map(|t| t[1].wrapping_sub(t[0]) as f64 * ms).collect(), wall))
    }

    /// Milliseconds of the kernels of a step; none where the device has no timestamps, or one makes no sense.
    pub fn by_gpu(&self, encode: &Encode<'_>) -> Result<Option<f64>> {
        let Some((queries, _)) = &self.stamps else { return Ok(None) };
        self.sweep()?;
        let mut encoder = self.encoder();
        let writes = wgpu::ComputePassTimestampWrites {
            query_set: queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        };
        encode(&mut encoder, Some(writes))?;
        let (times, wall) = self.timed(encoder, 1)?;
        Ok(is_reliable(&times, wall).then_some(times[0]))
    }

    /// Milliseconds of each step as the GPU takes them one after the other in a single submit, that of index `first`
    /// first; of whole commands, not of compute passes alone. Needs [`Clock::has_command_stamps`]. Inside, an error
    /// says how the timestamps make no sense.
    pub fn round_by_gpu(&self, steps: &[&Encode<'_>], first: usize) -> Result<std::result::Result<Vec<f64>, String>> {
        let (queries, _) = self.stamps.as_ref().expect("asked for only where there are timestamps");
        assert!(steps.len() <= MOST_STEPS, "{} steps, of at most {MOST_STEPS}", steps.len());
        let mut encoder = self.encoder();
        for turn in 0..steps.len() {
            let index = (turn + first) % steps.len();
            if let Some(flush) = &self.flush {
                encoder.clear_buffer(flush, 0, None);
            }
            encoder.write_timestamp(queries, 2 * index as u32);
            steps[index](&mut encoder, None)?;
            encoder.write_timestamp(queries, 2 * index as u32 + 1);
        }
        let (times, wall) = self.timed(encoder, steps.len())?;
        let sum: f64 = times.iter().sum();
        let fault = || format!("timestamps of {sum} ms in all, {wall} ms of wall clock");
        Ok(if is_reliable(&times, wall) { Ok(times) } else { Err(fault()) })
    }

    /// Milliseconds of a call: encoding, submitting, waiting.
    pub fn by_wall(&self, encode: &Encode<'_>) -> Result<f64> {
        self.sweep()?;
        let begin = Instant::now();
        self.submit(encode)?;
        self.wait()?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }

    /// Milliseconds of a step, of many that are submitted before the host waits: the device is not idle in between.
    pub fn by_repeated_wall(&self, encode: &Encode<'_>) -> Result<f64> {
        let mut steps = 1u32;
        loop {
            let begin = Instant::now();
            for _ in 0..steps {
                self.submit(encode)?;
            }
            self.wait()?;
            let took = begin.elapsed();
            if took >= REPEATED_SAMPLE || steps >= 1024 {
                return Ok(took.as_secs_f64() * 1e3 / f64::from(steps));
            }
            let short = REPEATED_SAMPLE.as_secs_f64() / took.as_secs_f64().max(1e-6);
            steps = ((f64::from(steps) * short * 1.2).ceil() as u32).clamp(steps + 1, 1024);
        }
    }

    fn submit(&self, encode: &Encode<'_>) -> Result<()> {
        let mut encoder = self.encoder();
        encode(&mut encoder, None)?;
        self.ctx.queue().submit([encoder.finish()]);
        Ok(())
    }
}

/// Rejects a time of 0, and a sum above the wall clock: then the timestamps are unreliable.
fn is_reliable(times: &[f64], wall: f64) -> bool {
    times.iter().all(|ms| *ms > 0.0) && times.iter().sum::<f64>() <= 1.05 * wall + 0.1
}

fn buffer(ctx: &Context, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
    ctx.device().create_buffer(&descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_runs() {
        let times = Times(vec![5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!([0.0, 0.5, 1.0].map(|share| times.quantile(share)), [1.0, 3.0, 5.0]);
    }

    #[test]
    fn timestamps_of_nothing_or_beyond_the_wall_clock_are_rejected() {
        assert!(is_reliable(&[1.0, 2.0], 3.0));
        assert!(!is_reliable(&[1.0, 0.0], 3.0));
        assert!(!is_reliable(&[1.0, f64::NAN], 3.0));
        assert!(!is_reliable(&[2.0, 2.0], 3.0));
    }
}
