//! What a step costs the host: recording a bound plan beside recording the same passes by hand, in time and in
//! allocations; and what comes before it and after it: plan, bind, first call, readback.
//!
//! "By hand" is wgpu alone: as many dispatches, each with as many uniforms and storage buffers and the same grid, by
//! pipelines of one small kernel, set and dispatched in one compute pass. Both are checked, counted, then timed; the
//! benchmark fails where encoding a bound plan allocates once more than that, or takes more than twice its time.

#[path = "overhead/allocations.rs"]
mod allocations;
mod common;
#[path = "overhead/hand.rs"]
mod hand;
#[path = "common/values.rs"]
mod values;

use allocations::allocations;
use common::{check, check_bound, context, group};
use criterion::{Criterion, criterion_group, criterion_main};
use hand::{CROSS_ENTROPY, Dispatch, Hand, MSE};
use measure::contract::Reference;
use measure::problem::Storage;
use std::time::{Duration, Instant};
use values::{labels, logits, random};
use wgloss::{Bindings, Bound, Context, HostTensor, Loss, Plan, PlanSpec, Tensor, losses};

/// Steps recorded into one encoder, so that its own cost does not hide theirs.
const STEPS: u64 = 64;
/// Turns of one beside the other; their medians count.
const ROUNDS: usize = 201;
const SHAPE: [usize; 2] = [64, 10];

/// A loss over a matrix so small that the host's work is all there is.
struct Case {
    loss: Loss,
    plan: Plan,
    x: Tensor,
    y: Tensor,
    reference: Reference,
    /// Its passes on a software adapter.
    dispatches: &'static [Dispatch],
}

impl Case {
    fn new(ctx: &Context, loss: impl Into<Loss>) -> Case {
        let loss = loss.into();
        let (values, targets, classes) = (logits(640), random(640, 2), labels(64, 10));
        let x = Tensor::from_slice(ctx, &values, &SHAPE).expect("input");
        let is_mse = loss.name() == "mse";
        let (y, target, dispatches): (_, _, &[Dispatch]) = if is_mse {
            (Tensor::from_slice(ctx, &targets, &SHAPE), HostTensor::f32(&targets, &SHAPE), &MSE)
        } else {
            (Tensor::from_slice(ctx, &classes, &SHAPE[..1]), HostTensor::i32(&classes, &SHAPE[..1]), &CROSS_ENTROPY)
        };
        let y = y.expect("target");
        let host = [("input", HostTensor::f32(&values, &SHAPE)), ("target", target)];
        let reference = Reference::of(&loss, &host, Some(("input", &SHAPE)), Storage::F32).expect("the f64 path");
        let plan = plan(ctx, &loss, &x, &y);
        Case { loss, plan, x, y, reference, dispatches }
    }

    fn bind(&self) -> Bound {
        self.plan.bind(&Bindings::new().input("input", &self.x).input("target", &self.y)).expect("bind")
    }
}

fn plan(ctx: &Context, loss: &Loss, x: &Tensor, y: &Tensor) -> Plan {
    ctx.plan(loss, &PlanSpec::new().like(&[("input", x), ("target", y)]).grad("input")).expect("plan")
}

fn encoder(ctx: &Context) -> wgpu::CommandEncoder {
    ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
}

/// Records steps into encoders of their own; `finish` turns them into command buffers, which validates them.
fn record(ctx: &Context, steps: u64, finish: bool, encode: &dyn Fn(&mut wgpu::CommandEncoder)) -> Duration {
    let (mut left, mut spent) = (steps, Duration::ZERO);
    while left > 0 {
        let mut encoder = encoder(ctx);
        let begin = Instant::now();
        for _ in 0..left.min(STEPS) {
            encode(&mut encoder);
        }
        if finish {
            let commands = encoder.finish();
            spent += begin.elapsed();
            drop(commands);
        } else {
            spent += begin.elapsed();
        }
        left = left.saturating_sub(STEPS);
    }
    spent
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn encode(criterion: &mut Criterion) {
    let Some(ctx) = context() else { return };
    for loss in [losses::cross_entropy().into(), losses::mse()] {
        let name = loss.name();
        let case = Case::new(&ctx, loss);
        let bound = case.bind();
        check_bound(&case.reference, &name, &bound);
        let hand = Hand::new(&ctx, case.dispatches);
        hand.check(&ctx);
        let explained = bound.explain();
        let planned = explained.lines().find_map(|line| line.split_once("; ")?.1.strip_suffix(" dispatches"));
        if planned != Some(case.dispatches.len().to_string().as_str()) {
            // The table is that of software adapters.
            eprintln!("encode/{name}: {planned:?} dispatches, {} by hand: not compared", case.dispatches.len());
            continue;
        }
        let by_plan = |encoder: &mut wgpu::CommandEncoder| bound.encode(encoder).expect("encode");
        let in_pass = |encoder: &mut wgpu::CommandEncoder| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            bound.encode_in(&mut pass).expect("encode in a pass");
        };
        let by_hand = |encoder: &mut wgpu::CommandEncoder| hand.encode(encoder);
        let names = ["bound plan", "bound plan in a pass", "by hand"];
        let ways: [&dyn Fn(&mut wgpu::CommandEncoder); 3] = [&by_plan, &in_pass, &by_hand];
        for (what, finish) in [("recorded", false), ("recorded and finished", true)] {
            // The fewest: what a driver allocates now and then belongs to neither.
            let count = |encode| (0..32).map(|_| allocations(|| _ = record(&ctx, 1, finish, encode))).min();
            let counts = ways.map(|way| count(way).expect("32 counts"));
            let mut times = [const { Vec::new() }; 3];
            for round in 0..ways.len() * ROUNDS {
                let way = round % ways.len();
                times[way].push(record(&ctx, STEPS, finish, ways[way]).as_secs_f64() * 1e6 / STEPS as f64);
            }
            let times = times.map(median);
            let (hand, most) = (times[2], counts[2]);
            for ((who, time), count) in names.iter().zip(times).zip(counts) {
                let ratio = time / hand;
                eprintln!(
                    "encode/{name}, {who}, a step {what}: {time:.2} us, {count} allocations, {ratio:.2} times by hand"
                );
                assert!(count <= most, "{name} {who} {what}: {count} allocations, {most} by hand");
                assert!(ratio <= 2.0, "{name} {who} {what}: {time} us, {hand} by hand");
            }
        }
        let mut group = group(criterion, "encode", bound.bytes());
        for (who, encode) in names.into_iter().zip(ways) {
            group.bench_function(format!("{name} {who}"), |b| b.iter_custom(|n| record(&ctx, n, true, encode)));
        }
        group.finish();
    }
}

/// What comes before the first step, and a call that does it all.
fn start(criterion: &mut Criterion) {
    let Some(ctx) = context() else { return };
    let case = Case::new(&ctx, losses::cross_entropy());
    let bound = case.bind();
    check_bound(&case.reference, "start", &bound);
    let mut group = group(criterion, "start", bound.bytes());
    let (loss, x, y) = (&case.loss, &case.x, &case.y);
    group.bench_function("plan, its kernels known", |b| b.iter(|| plan(&ctx, loss, x, y)));
    group.bench_function("bind", |b| b.iter(|| case.bind()));
    group.bench_function("a call with everything, its kernels known", |b| {
        b.iter(|| loss.forward_backward(&ctx, &[("input", x), ("target", y)]).expect("a call").loss().expect("loss"));
    });
    let (values, classes) = (logits(640), labels(64, 10));
    // In a context of its own: nothing is compiled yet. Drivers may cache kernels on disk.
    let fresh = |n: u64, with_context: bool| {
        let mut spent = Duration::ZERO;
        for _ in 0..n {
            let begin = Instant::now();
            let ctx = Context::new().expect("a context");
            let begin = if with_context { begin } else { Instant::now() };
            let x = Tensor::from_slice(&ctx, &values, &SHAPE).expect("input");
            let y = Tensor::from_slice(&ctx, &classes, &SHAPE[..1]).expect("target");
            let out = loss.forward_backward(&ctx, &[("input", &x), ("target", &y)]).expect("a call");
            let value = out.loss().expect("loss");
            spent += begin.elapsed();
            let grad = out.grad("input").expect("gradient");
            check(&case.reference, "first call", f64::from(value), &common::read(grad));
        }
        spent
    };
    group.bench_function("first call", |b| b.iter_custom(|n| fresh(n, false)));
    group.bench_function("first call, context included", |b| b.iter_custom(|n| fresh(n, true)));
    group.finish();
}

/// What comes after: one number, or a gradient of 16 MiB, brought back to the host.
fn readback(criterion: &mut Criterion) {
    let Some(ctx) = context() else { return };
    let case = Case::new(&ctx, losses::cross_entropy());
    let bound = case.bind();
    check_bound(&case.reference, "readback", &bound);
    // The loss, and the status word with it.
    let mut group = group(criterion, "readback", 8);
    group.bench_function("loss", |b| b.iter(|| bound.read_loss().expect("loss")));
    let values = random(1 << 22, 1);
    let tensor = Tensor::from_slice(&ctx, &values, &[1 << 22]).expect("a tensor");
    assert_eq!(tensor.to_vec::<f32>().expect("values"), values);
    group.throughput(criterion::Throughput::Bytes(4 << 22));
    group.bench_function("16 MiB", |b| b.iter(|| tensor.to_vec::<f32>().expect("values")));
    group.finish();
}

criterion_group!(benches, encode, start, readback);
criterion_main!(benches);
