//! Loss and gradient of a batch, on the GPU and, in f64, on the CPU.
//!
//! `cargo run --release --example quickstart`

use wgloss::{Context, HostTensor, Result, Tensor, cpu, losses};

fn main() -> Result<()> {
    let (logits, labels) = ([2.0f32, 0.5, -1.0, 0.0, 1.0, 3.0], [0i32, 1]);
    let loss = losses::cross_entropy().label_smoothing(0.1);

    let ctx = Context::new()?;
    let input = Tensor::from_slice(&ctx, &logits, &[2, 3])?;
    let target = Tensor::from_slice(&ctx, &labels, &[2])?;
    let gpu = loss.forward_backward(&ctx, &[("input", &input), ("target", &target)])?;
    println!("GPU: loss {:.6}, gradient {:+.6?}", gpu.loss()?, gpu.grad("input")?.to_vec::<f32>()?);

    let inputs = [("input", HostTensor::f32(&logits, &[2, 3])), ("target", HostTensor::i32(&labels, &[2]))];
    let cpu = cpu::forward_backward(&loss, &inputs, &["input"])?;
    println!("CPU: loss {:.6}, gradient {:+.6?}", cpu.loss()?, cpu.grad("input")?);
    Ok(())
}
