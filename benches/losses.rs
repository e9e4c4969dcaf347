//! Loss and gradient on GPU and CPU side by side. Each is compared with the f64 reference before it is timed; bytes
//! are those that must move: inputs once, outputs once.

mod common;
#[path = "common/step.rs"]
mod step;

use common::{Reference, context, group, labels, logits, random};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use step::step;
use wgloss::Wanted;
use wgloss::{Bindings, CpuPlan, DType, HostTensor, Loss, PlanSpec, Tensor, losses};

struct Work {
    name: &'static str,
    loss: Loss,
    shape: Vec<usize>,
}

fn work(name: &'static str, loss: impl Into<Loss>, shape: &[usize]) -> Work {
    Work { name, loss: loss.into(), shape: shape.to_vec() }
}

fn works() -> Vec<Work> {
    vec![
        work("cross_entropy", losses::cross_entropy(), &[1024, 32000]),
        work("cross_entropy", losses::cross_entropy(), &[8192, 1000]),
        work("cross_entropy", losses::cross_entropy(), &[65536, 10]),
        work("mse", losses::mse(), &[1 << 24]),
        work("huber", losses::huber(1.0), &[1 << 24]),
        work("bce_with_logits", losses::bce_with_logits(), &[1 << 22]),
    ]
}

fn bench(criterion: &mut Criterion) {
    let Some(ctx) = context() else { return };
    for Work { name, loss, shape } in works() {
        let count: usize = shape.iter().product();
        let input = logits(count);
        let labels = labels(shape[0], shape[shape.len() - 1]);
        let targets = random(count, 2);
        let is_labels = name == "cross_entropy";
        let target = if is_labels { HostTensor::i32(&labels, &shape[..1]) } else { HostTensor::f32(&targets, &shape) };
        let host = [("input", HostTensor::f32(&input, &shape)), ("target", target)];
        let x = Tensor::from_slice(&ctx, &input, &shape).expect("input");
        let t = match is_labels {
            true => Tensor::from_slice(&ctx, &labels, &shape[..1]),
            false => Tensor::from_slice(&ctx, &targets, &shape),
        };
        let t = t.expect("target");
        let spec = PlanSpec::new().like(&[("input", &x), ("target", &t)]).grad("input");
        let plan = ctx.plan(&loss, &spec).expect("plan");
        let bound = plan.bind(&Bindings::new().input("input", &x).input("target", &t)).expect("bind");
        // Check, then time.
        let reference = Reference::new(&loss, &host);
        reference.check_bound(&format!("{name} {shape:?}"), &bound);
        let mut group = group(criterion, "loss and gradient", bound.bytes());
        let id = format!("{name} {shape:?}");
        group.bench_function(BenchmarkId::new("gpu", &id), |b| b.iter(|| step(&ctx, &bound)));
        let wanted = Wanted { loss: true, grads: vec!["input".to_owned()], ..Wanted::default() };
        let plan = CpuPlan::<f32>::new(&loss, &host, &wanted).expect("CPU plan");
        let mut out = plan.output();
        plan.run(&host, &mut out).expect("CPU run");
        let (got, grad) = (out.loss().expect("loss"), out.grad("input").expect("gradient"));
        reference.check(&format!("{name} {shape:?} on the CPU"), got as f32, grad, DType::F32);
        group.bench_function(BenchmarkId::new("cpu", &id), |b| {
            b.iter(|| plan.run(black_box(&host), &mut out).expect("CPU run"));
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
