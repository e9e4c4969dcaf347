//! Semantic segmentation: per-pixel cross-entropy and per-class Dice of 150 classes at 512 × 512 pixels, loss and gradient
//! on the GPU, beside the same in f64 on the CPU.
//!
//! ```sh
//! cargo run --release --example segmentation
//! ```

use std::time::Instant;
use wgloss::{Bindings, Context, HostTensor, Loss, PlanSpec, RowAxis, Scope, Tensor, Wanted, cpu, losses};

/// One minus the mean Dice coefficient of the classes, of probabilities by softmax:
/// `1 − mean over c of (2·Σ p·t + s) / (Σ p + Σ t + s)`, sums over all pixels, `t` the one-hot label, `s = 1`.
fn dice() -> Loss {
    let definition = Loss::define("dice").input("input", Scope::Element).label("target").row_axis(RowAxis::Class);
    definition.expr(|b| {
        let p = b.input("input").softmax();
        let t = b.graph().col_index().equals(b.input("target")).to_float();
        let overlap = (p * t).sum_over(Scope::Column);
        1.0 - (2.0 * overlap + 1.0) / (p.sum_over(Scope::Column) + t.sum_over(Scope::Column) + 1.0)
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (samples, classes, side) = (2, 150, 512);
    let pixels = samples * side * side;
    // Any numbers: logits between −2 and 2, labels in stripes.
    let noise = |k: usize| (k as u32).wrapping_mul(2_654_435_761) >> 8;
    let logits: Vec<f32> = (0..pixels * classes).map(|k| noise(k) as f32 / (1 << 22) as f32 - 2.0).collect();
    let labels: Vec<i32> = (0..pixels).map(|k| (k / 97 % classes) as i32).collect();
    let (x, y) = ([samples, classes, side, side], [samples, side, side]);
    let loss = losses::cross_entropy() + dice();

    let ctx = Context::new()?;
    let (input, target) = (Tensor::from_slice(&ctx, &logits, &x)?, Tensor::from_slice(&ctx, &labels, &y)?);
    let inputs = [("input", &input), ("target", &target)];
    let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("input"))?;
    println!("{}", plan.explain());
    let bound = plan.bind(&Bindings::new().inputs(&inputs))?;
    bound.submit()?;
    let value = bound.read_loss()?;
    let start = Instant::now();
    bound.submit()?;
    bound.read_loss()?;
    println!("on {}: loss {value}, {:?} a step with its gradient", ctx.adapter_name(), start.elapsed());

    let host = [("input", HostTensor::f32(&logits, &x)), ("target", HostTensor::i32(&labels, &y))];
    let wanted = Wanted { loss: true, grads: vec!["input".to_owned()], ..Wanted::default() };
    let want = cpu::run::<f64>(&loss, &host, &wanted)?;
    let gradient = bound.grad("input")?.to_vec::<f32>()?;
    let gap = |(got, want): (&f32, &f64)| (f64::from(*got) - want).abs();
    let worst = gradient.iter().zip(want.grad("input")?).map(gap).fold(0.0, f64::max);
    let largest = want.grad("input")?.iter().fold(0.0, |most: f64, g| most.max(g.abs()));
    println!("in f64: loss {}; gradients up to {largest:.3e} are off by at most {worst:.1e}", want.loss()?);
    assert!((f64::from(value) - want.loss()?).abs() < 2e-6 * want.loss()? && worst < 2e-6 * largest);
    Ok(())
}
