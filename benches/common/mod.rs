//! What the Criterion benchmarks share: the check that comes before every timing, and how it is timed.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use measure::contract::Reference;
use std::time::Duration;
use wgloss::{Bound, Context, DType, Tensor, widen_bf16, widen_f16};

/// The adapter, named; without one, why.
pub fn context() -> Option<Context> {
    match Context::new() {
        Ok(ctx) => {
            eprintln!("adapter: {}", ctx.adapter_name());
            Some(ctx)
        }
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// A tensor's values, widened.
pub fn read(tensor: &Tensor) -> Vec<f32> {
    match tensor.dtype() {
        DType::F16 => widen_f16(&tensor.to_vec().expect("f16 values")),
        DType::BF16 => widen_bf16(&tensor.to_vec().expect("bf16 values")),
        _ => tensor.to_vec().expect("f32 values"),
    }
}

/// Panics unless loss and gradient are right.
pub fn check(reference: &Reference, what: &str, loss: f64, grad: &[f32]) {
    if let Err(off) = reference.check(loss, grad) {
        panic!("{what}: {off}");
    }
}

/// Submits a step and compares what it gives.
pub fn check_bound(reference: &Reference, what: &str, bound: &Bound) {
    bound.submit().expect("submit");
    let loss = bound.read_loss().expect("loss");
    check(reference, what, f64::from(loss), &read(bound.grad("input").expect("gradient")));
}

/// A group of short measurements: a step takes milliseconds, and there are many.
pub fn group<'c>(criterion: &'c mut Criterion, name: &str, bytes: u64) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Bytes(bytes));
    group
}
