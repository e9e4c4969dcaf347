//! Loss and gradient on GPU and CPU side by side. Each is compared with the f64 reference before it is timed; bytes
//! are those that must move: inputs once, outputs once.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wgloss::lower::Wanted;
use wgloss::{Bindings, Context, CpuPlan, HostTensor, Loss, PlanSpec, Tensor, cpu, losses};

struct Work {
    name: &'static str,
    loss: Loss,
    shape: Vec<usize>,
}

fn works() -> Vec<Work> {
    let work = |name, loss, shape: &[usize]| Work { name, loss, shape: shape.to_vec() };
    vec![
        work("cross_entropy", losses::cross_entropy(), &[1024, 32000]),
        work("cross_entropy", losses::cross_entropy(), &[8192, 1000]),
        work("cross_entropy", losses::cross_entropy(), &[65536, 10]),
        work("mse", losses::mse(), &[1 << 24]),
        work("huber", losses::huber(1.0), &[1 << 24]),
        work("bce_with_logits", losses::bce_with_logits(), &[1 << 22]),
    ]
}

fn random(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| next()).collect()
}

fn bench(criterion: &mut Criterion) {
    let ctx = match Context::new() {
        Ok(ctx) => ctx,
        Err(error) => {
            eprintln!("{error}");
            return;
        }
    };
    eprintln!("adapter: {}", ctx.adapter_name());
    for Work { name, loss, shape } in works() {
        let count: usize = shape.iter().product();
        let input: Vec<f32> = random(count, 1).iter().map(|v| v * 6.0 - 3.0).collect();
        let rows = shape[0];
        let labels: Vec<i32> = (0..rows).map(|row| (row * 7919 % shape[shape.len() - 1]) as i32).collect();
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
        bound.submit().expect("submit");
        let reference = cpu::forward_backward(&loss, &host, &["input"]).expect("reference");
        let (got, want) = (f64::from(bound.read_loss().expect("loss")), reference.loss().expect("loss"));
        assert!((got - want).abs() <= 3e-6 * want.abs(), "{name} {shape:?}: {got}, want {want}");
        let gpu_grad = bound.grad("input").expect("grad").to_vec::<f32>().expect("grad");
        let want_grad = reference.grad("input").expect("grad");
        let largest = want_grad.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        let worst = gpu_grad.iter().zip(want_grad).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max);
        assert!(worst <= 3e-6 * largest, "{name} {shape:?}: gradient off by {worst}, largest {largest}");

        let mut group = criterion.benchmark_group("loss and gradient");
        group.sample_size(10).throughput(Throughput::Bytes(bound.bytes()));
        let id = format!("{name} {shape:?}");
        group.bench_function(BenchmarkId::new("gpu", &id), |b| {
            b.iter(|| {
                bound.submit().expect("submit");
                ctx.device().poll(wgpu::PollType::wait_indefinitely()).expect("poll");
            });
        });
        let wanted = Wanted { loss: true, grads: vec!["input".to_owned()], ..Wanted::default() };
        let plan = CpuPlan::<f32>::new(&loss, &host, &wanted).expect("CPU plan");
        let mut out = plan.output();
        group.bench_function(BenchmarkId::new("cpu", &id), |b| {
            b.iter(|| plan.run(black_box(&host), &mut out).expect("CPU run"));
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
