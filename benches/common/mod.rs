//! What the Criterion benchmarks share: numbers, and the check that comes before every timing.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use std::time::Duration;
use wgloss::{Bound, Context, DType, HostTensor, Loss, Tensor, cpu, widen_bf16, widen_f16};

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

/// Uniform in 0..1.
pub fn random(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| next()).collect()
}

/// Uniform in -3..3.
pub fn logits(count: usize) -> Vec<f32> {
    random(count, 1).iter().map(|v| v * 6.0 - 3.0).collect()
}

pub fn labels(rows: usize, cols: usize) -> Vec<i32> {
    (0..rows).map(|row| (row * 7919 % cols) as i32).collect()
}

/// A tensor's values, widened.
pub fn read(tensor: &Tensor) -> Vec<f32> {
    match tensor.dtype() {
        DType::F16 => widen_f16(&tensor.to_vec().expect("f16 values")),
        DType::BF16 => widen_bf16(&tensor.to_vec().expect("bf16 values")),
        _ => tensor.to_vec().expect("f32 values"),
    }
}

/// Loss and gradient of `input` by the f64 path.
pub struct Reference {
    loss: f64,
    grad: Vec<f64>,
    largest: f64,
}

impl Reference {
    pub fn new(loss: &Loss, host: &[(&str, HostTensor<'_>)]) -> Reference {
        let out = cpu::forward_backward(loss, host, &["input"]).expect("the f64 path");
        let grad = out.grad("input").expect("gradient").to_vec();
        let largest = grad.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        Reference { loss: out.loss().expect("loss"), grad, largest }
    }

    /// Panics unless loss and gradient are right.
    pub fn check(&self, what: &str, loss: f32, grad: &[f32], dtype: DType) {
        let (got, want) = (f64::from(loss), self.loss);
        assert!((got - want).abs() <= 3e-6 * want.abs(), "{what}: loss {got}, want {want}");
        assert_eq!(grad.len(), self.grad.len(), "{what}: values of the gradient");
        // Half a unit in the last place of 16 bits, and of a subnormal f16.
        let (rounding, subnormal) = match dtype {
            DType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
            DType::BF16 => (2f64.powi(-8), 0.0),
            _ => (0.0, 0.0),
        };
        for (place, (got, want)) in grad.iter().zip(&self.grad).enumerate() {
            let allowed = 3e-6 * self.largest + rounding * want.abs() + subnormal;
            // NaN is never within.
            let is_within = (f64::from(*got) - want).abs() <= allowed;
            assert!(is_within, "{what}: gradient [{place}] is {got}, want {want} within {allowed:e}");
        }
    }

    /// Submits a step and compares what it gives.
    pub fn check_bound(&self, what: &str, bound: &Bound) {
        bound.submit().expect("submit");
        let loss = bound.read_loss().expect("loss");
        let grad = bound.grad("input").expect("gradient");
        self.check(what, loss, &read(grad), grad.dtype());
    }
}

/// A group of short measurements: a step takes milliseconds, and there are many.
pub fn group<'c>(criterion: &'c mut Criterion, name: &str, bytes: u64) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Bytes(bytes));
    group
}
