//! Times contenders in interleaved rounds: by GPU timestamps, or by wall clock over many submits.

use crate::Fallible;
use std::time::{Duration, Instant};
use wgloss::{Context, DType, Tensor};

/// Written before each timed step, so that no step finds its data in the cache that the one before left.
const FLUSH_BYTES: u64 = 256 << 20;
/// Wall-clock samples take at least this long.
const WALL_SAMPLE: Duration = Duration::from_millis(50);

/// What is timed: commands of one step.
pub struct Contender<'a> {
    pub name: &'static str,
    pub encode: Box<dyn Fn(&mut wgpu::CommandEncoder) + 'a>,
}

pub struct Clock<'a> {
    ctx: &'a Context,
    /// Queries and where they are resolved to; without, wall clock.
    stamps: Option<(wgpu::QuerySet, wgpu::Buffer)>,
    flush: Option<wgpu::Buffer>,
    pub name: String,
}

/// Milliseconds of a contender.
pub struct Times {
    pub samples: Vec<f64>,
}

impl Times {
    /// The sample below which this share of them lies.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * share).round() as usize]
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

const MOST_CONTENDERS: u32 = 16;

impl<'a> Clock<'a> {
    /// `flush` is whether the caches are swept before each step; not worth it where a CPU runs the kernels.
    pub fn new(ctx: &'a Context, wall: bool, flush: bool) -> Clock<'a> {
        let device = ctx.device();
        let can = device.features().contains(crate::STAMPS) && !wall;
        let stamps = can.then(|| {
            let (ty, count) = (wgpu::QueryType::Timestamp, 2 * MOST_CONTENDERS);
            let queries = device.create_query_set(&wgpu::QuerySetDescriptor { label: Some("stamps"), ty, count });
            let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            (queries, buffer(ctx, "stamps", 8 * u64::from(count), usage))
        });
        let flush = flush.then(|| buffer(ctx, "flush", FLUSH_BYTES, wgpu::BufferUsages::COPY_DST));
        let name = if stamps.is_some() { "GPU timestamps" } else { "wall clock over many submits" };
        Clock { ctx, stamps, flush, name: name.to_owned() }
    }

    /// Warm-up for so long, then rounds in which each contender takes one turn.
    pub fn time(&mut self, contenders: &[Contender<'_>], warm_up: Duration, rounds: usize) -> Fallible<Vec<Times>> {
        let mut all: Vec<Times> = contenders.iter().map(|_| Times { samples: Vec::new() }).collect();
        let begin = Instant::now();
        self.round(contenders, 0)?;
        while begin.elapsed() < warm_up {
            self.round(contenders, 0)?;
        }
        for round in 0..rounds {
            for (times, ms) in all.iter_mut().zip(self.round(contenders, round)?) {
                times.samples.push(ms);
            }
        }
        Ok(all)
    }

    fn round(&mut self, contenders: &[Contender<'_>], round: usize) -> Fallible<Vec<f64>> {
        if self.stamps.is_some() {
            match self.round_by_stamps(contenders, round)? {
                Ok(times) => return Ok(times),
                Err(fault) => {
                    self.name = format!("wall clock over many submits ({fault})");
                    eprintln!("{}", self.name);
                    self.stamps = None;
                }
            }
        }
        contenders.iter().map(|contender| self.by_wall(contender)).collect()
    }

    /// Milliseconds of each contender, or what is wrong with the timestamps.
    fn round_by_stamps(&self, contenders: &[Contender<'_>], round: usize) -> Fallible<Result<Vec<f64>, String>> {
        let (queries, resolved) = self.stamps.as_ref().expect("asked for only where there are timestamps");
        let mut encoder = self.encoder();
        for turn in 0..contenders.len() {
            // Who begins rotates.
            let place = (turn + round) % contenders.len();
            if let Some(flush) = &self.flush {
                encoder.clear_buffer(flush, 0, None);
            }
            encoder.write_timestamp(queries, 2 * place as u32);
            (contenders[place].encode)(&mut encoder);
            encoder.write_timestamp(queries, 2 * place as u32 + 1);
        }
        encoder.resolve_query_set(queries, 0..2 * contenders.len() as u32, resolved, 0);
        let begin = Instant::now();
        self.ctx.queue().submit([encoder.finish()]);
        self.wait()?;
        let wall = begin.elapsed().as_secs_f64() * 1e3;
        let words = Tensor::from_buffer(self.ctx, resolved.clone(), 0, DType::U32, &[4 * contenders.len()])?;
        let words = pollster::block_on(words.read::<u32>(self.ctx))?;
        let ticks: Vec<u64> = words.chunks(2).map(|w| u64::from(w[0]) | u64::from(w[1]) << 32).collect();
        let ms = f64::from(self.ctx.queue().get_timestamp_period()) * 1e-6;
        let times: Vec<f64> = ticks.chunks(2).map(|t| t[1].wrapping_sub(t[0]) as f64 * ms).collect();
        let sum: f64 = times.iter().sum();
        // A step that took no time was not timed; one longer than the wall clock's was timed wrongly.
        if !times.iter().all(|t| *t > 0.0) || sum > 1.05 * wall + 0.1 {
            return Ok(Err(format!("timestamps of {sum} ms in all, {wall} ms of wall clock")));
        }
        Ok(Ok(times))
    }

    fn by_wall(&self, contender: &Contender<'_>) -> Fallible<f64> {
        let mut steps = 1u32;
        loop {
            let begin = Instant::now();
            for _ in 0..steps {
                let mut encoder = self.encoder();
                (contender.encode)(&mut encoder);
                self.ctx.queue().submit([encoder.finish()]);
            }
            self.wait()?;
            let took = begin.elapsed();
            if took >= WALL_SAMPLE || steps >= 1024 {
                return Ok(took.as_secs_f64() * 1e3 / f64::from(steps));
            }
            let short = WALL_SAMPLE.as_secs_f64() / took.as_secs_f64().max(1e-6);
            steps = ((f64::from(steps) * short * 1.2).ceil() as u32).clamp(steps + 1, 1024);
        }
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    fn wait(&self) -> Fallible<()> {
        self.ctx.device().poll(wgpu::PollType::wait_indefinitely())?;
        Ok(())
    }
}

fn buffer(ctx: &Context, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
    ctx.device().create_buffer(&descriptor)
}
