//! Loss and gradient on GPU and CPU side by side. Each is compared with the f64 reference before it is timed; bytes
//! are those that must move: inputs once, outputs once.

mod common;
#[path = "common/step.rs"]
mod step;

use common::{context, group};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use measure::contract::Reference;
use measure::problem::{Problem, Storage};
use measure::record::Work;
use std::hint::black_box;
use step::step;
use wgloss::{CpuPlan, Loss, losses};

/// Losses and shapes; those of elements are one matrix as well.
fn works() -> [(Loss, [usize; 2]); 6] {
    [
        (losses::cross_entropy().into(), [1024, 32000]),
        (losses::cross_entropy().into(), [8192, 1000]),
        (losses::cross_entropy().into(), [65536, 10]),
        (losses::mse(), [4096, 4096]),
        (losses::huber(1.0).into(), [4096, 4096]),
        (losses::bce_with_logits(), [2048, 2048]),
    ]
}

fn bench(criterion: &mut Criterion) {
    let Some(ctx) = context() else { return };
    let work = Work::ForwardBackward;
    for (loss, [rows, cols]) in works() {
        let problem = Problem::new(&loss, rows, cols, Storage::F32).expect("room for the values");
        let id = format!("{} [{rows}, {cols}]", problem.name);
        let plan = ctx.plan(&loss, &problem.spec(work)).expect("plan");
        let tensors = problem.upload(&ctx).expect("tensors");
        let bound = tensors.bind(&plan, work).expect("bind");
        // Check, then time.
        let reference = Reference::new(&problem, work).expect("the f64 path");
        common::check_bound(&reference, &id, &bound);
        let mut group = group(criterion, "loss and gradient", bound.bytes());
        group.bench_function(BenchmarkId::new("gpu", &id), |b| b.iter(|| step(&ctx, &bound)));
        let host = problem.host();
        let plan = CpuPlan::<f32>::new(&loss, &host, &problem.wanted(work)).expect("CPU plan");
        let mut out = plan.output();
        plan.run(&host, &mut out).expect("CPU run");
        let (got, grad) = (out.loss().expect("loss"), out.grad(&problem.wrt).expect("gradient"));
        common::check(&reference, &format!("{id} on the CPU"), got, grad);
        group.bench_function(BenchmarkId::new("cpu", &id), |b| {
            b.iter(|| plan.run(black_box(&host), &mut out).expect("CPU run"));
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
