//! A loss beside mse: both checked against the f64 path, then timed in turns.

use crate::step::step;
use measure::contract::Reference;
use measure::problem::{OnDevice, Problem, Storage};
use measure::record::Work;
use std::time::{Duration, Instant};
use wgloss::{Bound, Context, Loss, Pinned};

pub const WORK: Work = Work::ForwardBackward;

/// A loss with its gradient, ready to run.
pub struct Step {
    pub bound: Bound,
    /// Bytes that a run is taken to move.
    pub bytes: u64,
    _tensors: OnDevice,
}

impl Step {
    /// Plans, binds and checks. Its bytes are those that must move: inputs once, outputs once.
    pub fn new(ctx: &Context, loss: &Loss, [rows, cols]: [usize; 2], pinned: Pinned) -> Step {
        let problem = Problem::new(loss, rows, cols, Storage::F32).expect("room for the values");
        let plan = ctx.plan(loss, &problem.spec(WORK).pin(pinned)).expect("plan");
        let tensors = problem.upload(ctx).expect("tensors");
        let bound = tensors.bind(&plan, WORK).expect("bind");
        let reference = Reference::new(&problem, WORK).expect("the f64 path");
        let (got, grad) = tensors.run(ctx, &bound, WORK).expect("a run");
        let grad = grad.expect("a gradient");
        if let Err(off) = reference.check(got, &grad) {
            panic!("{}: {off}", problem.name);
        }
        Step { bytes: bound.bytes(), bound, _tensors: tensors }
    }

    /// GB/s of one step: by the clock, and by the time that processors spent on it, on a software adapter.
    fn speeds(&self, ctx: &Context) -> [f64; 2] {
        let (begin, busy) = (Instant::now(), processor_time());
        step(ctx, &self.bound);
        let spent = processor_time() - busy;
        [begin.elapsed(), spent].map(|time| self.bytes as f64 * 1e-9 / time.as_secs_f64())
    }
}

/// The time that processors have spent on this process's threads; 0 where the system does not say.
fn processor_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of_thread = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    threads.filter_map(of_thread).sum()
}

/// The speeds of the fastest runs of two steps, which take turns: what else the machine does makes runs slower, never
/// faster.
pub fn fastest(ctx: &Context, steps: [&Step; 2], rounds: usize) -> [[f64; 2]; 2] {
    let mut most = [[0.0f64; 2]; 2];
    for _ in 0..rounds {
        for (most, step) in most.iter_mut().zip(steps) {
            let speeds = step.speeds(ctx);
            *most = [0, 1].map(|k| most[k].max(speeds[k]));
        }
    }
    most
}
