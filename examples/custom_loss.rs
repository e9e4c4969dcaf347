//! A loss of your own: written once as an expression, differentiated, fused and run on the GPU.
//!
//! `cargo run --release --example custom_loss`

use wgloss::{Context, HostTensor, Loss, Result, Scope, Tensor, cpu};

fn main() -> Result<()> {
    // mean((exp(target − prediction) − 1)²); expm1 keeps the digits where the two are close.
    let loss = Loss::define("exp_square").input("prediction", Scope::Element).input("target", Scope::Element);
    let loss = loss.expr(|b| {
        let e = (b.input("target") - b.input("prediction")).expm1();
        e * e
    });

    let shape = [4, 3];
    let prediction: Vec<f32> = (0..12).map(|k| (k as f32 * 0.7).sin()).collect();
    let target: Vec<f32> = (0..12).map(|k| (k as f32 * 0.7).sin() + 0.1 * (k as f32).cos()).collect();

    // Planned, compiled and run; nothing waits for the GPU until a result is read.
    let ctx = Context::new()?;
    let on_gpu = [
        ("prediction", &Tensor::from_slice(&ctx, &prediction, &shape)?),
        ("target", &Tensor::from_slice(&ctx, &target, &shape)?),
    ];
    let out = loss.forward_backward_of(&ctx, &on_gpu, &["prediction"])?;
    let gpu_loss = out.loss()?;
    let gpu_gradient = out.grad("prediction")?.to_vec::<f32>()?;

    // The same expression on the CPU, in f64.
    let on_cpu = [("prediction", HostTensor::f32(&prediction, &shape)), ("target", HostTensor::f32(&target, &shape))];
    let reference = cpu::forward_backward(&loss, &on_cpu, &["prediction"])?;
    let (cpu_loss, cpu_gradient) = (reference.loss()?, reference.grad("prediction")?);

    println!("loss      GPU {gpu_loss:+.7}  CPU {cpu_loss:+.7}");
    for (k, (gpu, cpu)) in gpu_gradient.iter().zip(cpu_gradient).enumerate() {
        println!("d/d[{},{}]  GPU {gpu:+.7}  CPU {cpu:+.7}", k / shape[1], k % shape[1]);
    }
    let errors = gpu_gradient.iter().zip(cpu_gradient).map(|(gpu, cpu)| (f64::from(*gpu) - cpu).abs());
    let worst = errors.fold((f64::from(gpu_loss) - cpu_loss).abs(), f64::max);
    println!("largest difference {worst:.1e}");
    Ok(())
}
