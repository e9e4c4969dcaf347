//! wgloss inside a training loop that lives on the GPU: a perceptron learns to read digits.
//!
//! `cargo run --release --example train_mnist -- [--seed N] [--out FILE.svg]`
//!
//! The loop is the user's: its own device, encoder, buffers and kernels (`mlp.wgsl`). wgloss borrows the logits and
//! labels where they lie, and records smoothed cross entropy and its gradient into the loop's own encoder, between
//! the forward and the backward pass. Nothing comes back but the two losses, every 100 steps.

use std::error::Error;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use wgloss::{Bindings, Bound, Context, DType, PlanSpec, Tensor, losses};

use data::{Digits, Random};
use mlp::{BATCH, Batch, CLASSES, Dataset, Gpu, Step, Weights};
use plot::Reading;

mod data;
mod mlp;
mod plot;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Training digits put aside to decide which weights to keep: 16 batches of 64, which leaves 109 to train on.
const VALIDATION: usize = 1024;
const LABEL_SMOOTHING: f64 = 0.1;
// Chosen on the validation digits, as were 1,600 steps against 3,000 for the sake of time.
const STEPS: usize = 1600;
/// Falls to 0 linearly.
const LEARNING_RATE: f32 = 4e-3;
/// Pixels by which a training image is moved at random along either axis.
const MAX_SHIFT: u32 = 1;
/// Steps from one look at the losses to the next.
const LOOK_EVERY: usize = 100;
/// Looks without a lower validation loss after which training stops.
const PATIENCE: usize = 5;

fn main() -> Result<()> {
    let (seed, svg) = arguments()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/mnist");
    let train = Digits::read(&folder, "train")?;
    let test = Digits::read(&folder, "t10k")?;
    let (train_count, test_count) = (train.labels.len() - VALIDATION, test.labels.len());
    let digits = train.followed_by(test);

    // The order in which the steps take the digits: shuffled epochs, then the validation and the test digits.
    let mut random = Random(seed);
    let mut order = random.epochs(train_count, STEPS * BATCH);
    let evaluate_from = order.len();
    order.extend(train_count as u32..digits.labels.len() as u32);

    let (ctx, gpu) = Gpu::open()?;

    let dataset = Dataset::new(&gpu, &digits, &order);
    let weights = Weights::random(&gpu, &mut random);
    let validation = Batch::new(&gpu, &dataset, &weights, Step::evaluate(evaluate_from, VALIDATION));
    let testing = Batch::new(&gpu, &dataset, &weights, Step::evaluate(evaluate_from + VALIDATION, test_count));

    let (readings, best) = fit(&ctx, &gpu, &dataset, &weights, &validation, seed)?;

    plot::draw(&svg, &readings, &readings[best])?;
    println!("loss curve: {}", svg.display());
    let (validation_labels, test_labels) = digits.labels[train_count..].split_at(VALIDATION);
    println!("validation accuracy: {:.3}", accuracy(&ctx, &validation, validation_labels)?);
    println!("test accuracy: {:.3}", accuracy(&ctx, &testing, test_labels)?);
    Ok(())
}

/// Trains the weights and leaves them as they were at the lowest validation loss; returns the losses seen on the way
/// and which of them that was.
fn fit(
    ctx: &Context,
    gpu: &Gpu,
    dataset: &Dataset,
    weights: &Weights,
    validation: &Batch,
    seed: u64,
) -> Result<(Vec<Reading>, usize)> {
    let steps: Vec<Step> = (0..STEPS)
        .map(|index| {
            let rate = LEARNING_RATE * (1.0 - index as f32 / STEPS as f32);
            Step::train(index, rate, MAX_SHIFT, seed as u32)
        })
        .collect();
    let training = Batch::new(gpu, dataset, weights, steps[0]);
    let steps = gpu.buffer(&steps, wgpu::BufferUsages::COPY_SRC);
    let step_size = size_of::<Step>() as u64;

    let d_logits = gpu.zeros(BATCH * CLASSES);
    let training_loss = bind_loss(ctx, &training, Some(&d_logits))?;
    let validation_loss = bind_loss(ctx, validation, None)?;
    let backward = training.backward(gpu, weights, &d_logits);
    let best_weights = Weights::zeros(gpu);

    let style = ProgressStyle::with_template("{bar:40} step {pos}/{len}, {elapsed} of {duration}: {msg}")?;
    let bar = ProgressBar::new(STEPS as u64).with_style(style);
    let mut readings: Vec<Reading> = Vec::new();
    let mut best = 0;
    for first in (0..STEPS).step_by(LOOK_EVERY) {
        let next = STEPS.min(first + LOOK_EVERY);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for index in first..next {
            encoder.copy_buffer_to_buffer(&steps, index as u64 * step_size, &training.step, 0, step_size);
            mlp::encode(&mut encoder, &training.forward);
            training_loss.encode(&mut encoder)?;
            mlp::encode(&mut encoder, &backward);
        }
        mlp::encode(&mut encoder, &validation.forward);
        validation_loss.encode(&mut encoder)?;
        gpu.queue.submit([encoder.finish()]);

        let reading =
            Reading { step: next, train: training_loss.read_loss()?, validation: validation_loss.read_loss()? };
        bar.set_position(next as u64);
        bar.set_message(format!("loss {:.4}, validation {:.4}", reading.train, reading.validation));
        readings.push(reading);
        let last = readings.len() - 1;
        if last == 0 || readings[last].validation < readings[best].validation {
            best = last;
            weights.copy_to(gpu, &best_weights);
        } else if last - best == PATIENCE {
            break;
        }
    }
    bar.abandon();
    best_weights.copy_to(gpu, weights);
    println!(
        "{} steps in {:.1?}; kept the weights of step {}, validation loss {:.4}",
        bar.position(),
        bar.elapsed(),
        readings[best].step,
        readings[best].validation
    );
    Ok((readings, best))
}

/// The batch's loss, and with `d_logits` its gradient too, on the batch's own buffers.
fn bind_loss(ctx: &Context, batch: &Batch, d_logits: Option<&wgpu::Buffer>) -> Result<Bound> {
    let shape = [batch.rows, CLASSES];
    let loss = losses::cross_entropy().label_smoothing(LABEL_SMOOTHING);
    let logits = Tensor::from_buffer(ctx, batch.logits.clone(), 0, DType::F32, &shape)?;
    let labels = Tensor::from_buffer(ctx, batch.labels.clone(), 0, DType::I32, &shape[..1])?;
    let spec = PlanSpec::new().input("input", DType::F32, &shape).input("target", DType::I32, &shape[..1]);
    let bindings = Bindings::new().input("input", &logits).input("target", &labels);
    Ok(match d_logits {
        None => ctx.plan(&loss, &spec)?.bind(&bindings)?,
        Some(buffer) => {
            let d_logits = Tensor::from_buffer(ctx, buffer.clone(), 0, DType::F32, &shape)?;
            ctx.plan(&loss, &spec.grad("input"))?.bind(&bindings.grad("input", &d_logits))?
        }
    })
}

/// The share of digits whose label has the highest logit.
fn accuracy(ctx: &Context, batch: &Batch, labels: &[i32]) -> Result<f64> {
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    mlp::encode(&mut encoder, &batch.forward);
    ctx.queue().submit([encoder.finish()]);
    let logits = Tensor::from_buffer(ctx, batch.logits.clone(), 0, DType::F32, &[batch.rows, CLASSES])?;
    let logits: Vec<f32> = pollster::block_on(logits.read(ctx))?;
    let correct = logits.chunks_exact(CLASSES).zip(labels).filter(|&(row, &label)| {
        let label = label as usize;
        (0..CLASSES).all(|class| class == label || row[class] < row[label])
    });
    Ok(correct.count() as f64 / labels.len() as f64)
}

/// The seed, and where the loss curve goes.
fn arguments() -> Result<(u64, PathBuf)> {
    let (mut seed, mut out) = (0, PathBuf::from("target/train_mnist.svg"));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{argument}: value missing"))?;
        match argument.as_str() {
            "--seed" => seed = value.parse().map_err(|error| format!("--seed {value}: {error}"))?,
            "--out" => out = value.into(),
            _ => return Err(format!("{argument}: unknown; known are --seed N and --out FILE.svg").into()),
        }
    }
    Ok((seed, out))
}
