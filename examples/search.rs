//! Random search over the settings of a loss: label smoothing, focal exponent and share, class weights, z-loss and learning
//! rate, by the validation accuracy of a perceptron that learns to read digits on the GPU.
//!
//! `cargo run --release --example search -- [--trials N] [--steps N] [--seed N] [--out FILE.svg]`
//!
//! All trials share one plan. The settings are uniforms and small tensors, so that a trial compiles nothing; the network is
//! that of `examples/train_mnist`.

use std::error::Error;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;
use wgloss::{Bindings, Bound, Context, DType, Loss, PlanSpec, Tensor, losses};

use data::{Digits, Random};
use mlp::{BATCH, Batch, CLASSES, Dataset, Gpu, Step, Weights};

#[path = "train_mnist/data.rs"]
mod data;
#[path = "train_mnist/mlp.rs"]
mod mlp;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Training digits put aside to compare the trials by.
const VALIDATION: usize = 1024;
/// Pixels by which a training image is moved at random along either axis.
const MAX_SHIFT: u32 = 1;

/// The settings of one trial.
#[derive(Clone, Copy)]
struct Settings {
    /// Falls to 0 linearly.
    learning_rate: f64,
    label_smoothing: f64,
    /// γ of the focal loss.
    gamma: f64,
    /// The share of the focal loss; the rest is cross-entropy.
    focal_share: f64,
    /// Classes are weighted by their counts to the power −this.
    balance: f64,
    /// λ, the coefficient of the squared logsumexp.
    lambda: f64,
}

impl Settings {
    fn draw(random: &mut Random) -> Settings {
        let mut uniform = || f64::from(random.signed() + 1.0) / 2.0;
        Settings {
            learning_rate: 10f64.powf(-3.5 + 1.5 * uniform()),
            label_smoothing: 0.25 * uniform(),
            gamma: 4.0 * uniform(),
            focal_share: uniform(),
            balance: uniform(),
            lambda: 10f64.powf(-5.0 + 3.0 * uniform()),
        }
    }

    fn row(&self) -> String {
        let Settings { learning_rate, label_smoothing, gamma, focal_share, balance, lambda } = self;
        format!("{learning_rate:9.1e} {label_smoothing:9.3} {gamma:6.2} {focal_share:6.2} {balance:8.2} {lambda:8.0e}")
    }
}

/// Cross-entropy and focal loss of the same logits, labels and class weights: one kernel. Its numbers are set per trial.
fn loss() -> Loss {
    // Made at numbers that no formula of its own is for, so that one kernel serves all.
    let certain = losses::cross_entropy().label_smoothing(0.1).lse_square_scale(1e-3);
    let hard = losses::multiclass_focal().gamma(1.5).rename_input("alpha", "weight");
    0.5 * certain + 0.5 * hard
}

/// The loss of a training batch, with the tensors that settings change.
struct Training {
    loss: Bound,
    weight: Tensor,
}

impl Training {
    fn new(ctx: &Context, batch: &Batch, d_logits: &wgpu::Buffer) -> Result<Training> {
        let shape = [batch.rows, CLASSES];
        let weight = Tensor::zeros(ctx, DType::F32, &[CLASSES])?;
        let logits = Tensor::from_buffer(ctx, batch.logits.clone(), 0, DType::F32, &shape)?;
        let labels = Tensor::from_buffer(ctx, batch.labels.clone(), 0, DType::I32, &shape[..1])?;
        let d_logits = Tensor::from_buffer(ctx, d_logits.clone(), 0, DType::F32, &shape)?;
        let inputs = [("input", &logits), ("target", &labels), ("weight", &weight)];
        let plan = ctx.plan(&loss(), &PlanSpec::new().like(&inputs).grad("input"))?;
        let loss = plan.bind(&Bindings::new().inputs(&inputs).grad("input", &d_logits))?;
        Ok(Training { loss, weight })
    }

    /// Takes over settings; `counts` are the digits of each class.
    fn set(&self, ctx: &Context, settings: &Settings, counts: &[usize; CLASSES]) -> Result<()> {
        let Settings { label_smoothing, gamma, focal_share, balance, lambda, .. } = *settings;
        self.loss.set_param("cross_entropy.weight", 1.0 - focal_share)?;
        self.loss.set_param("cross_entropy.label_smoothing", label_smoothing)?;
        self.loss.set_param("cross_entropy.lse_square_scale", lambda)?;
        self.loss.set_param("multiclass_focal.weight", focal_share)?;
        self.loss.set_param("multiclass_focal.gamma", gamma)?;
        let even = counts.iter().sum::<usize>() as f64 / CLASSES as f64;
        let weight = counts.map(|count| (even / count as f64).powf(balance) as f32);
        self.weight.write(ctx, &weight)?;
        Ok(())
    }
}

fn main() -> Result<()> {
    let Arguments { trials, steps, seed, svg } = Arguments::read()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/mnist");
    let digits = Digits::read(&folder, "train")?;
    let train_count = digits.labels.len() - VALIDATION;
    let test = Digits::read(&folder, "t10k")?;
    let test_count = test.labels.len();
    let digits = digits.followed_by(test);
    let mut counts = [0; CLASSES];
    digits.labels[..train_count].iter().for_each(|label| counts[*label as usize] += 1);

    // Shuffled epochs, the same for all trials, then the validation and the test digits.
    let mut random = Random(seed);
    let mut order = random.epochs(train_count, steps * BATCH);
    let evaluate_from = order.len();
    order.extend(train_count as u32..digits.labels.len() as u32);

    let (ctx, gpu) = Gpu::open()?;

    let dataset = Dataset::new(&gpu, &digits, &order);
    let (first, weights, best_weights) =
        (Weights::random(&gpu, &mut random), Weights::zeros(&gpu), Weights::zeros(&gpu));
    let batch = Batch::new(&gpu, &dataset, &weights, Step::train(0, 0.0, 0, 0));
    let validation = Batch::new(&gpu, &dataset, &weights, Step::evaluate(evaluate_from, VALIDATION));
    let testing = Batch::new(&gpu, &dataset, &weights, Step::evaluate(evaluate_from + VALIDATION, test_count));
    let d_logits = gpu.zeros(BATCH * CLASSES);
    let training = Training::new(&ctx, &batch, &d_logits)?;

    let style = ProgressStyle::with_template("{bar:40} trial {pos}/{len}, {elapsed} of {duration}: {msg}")?;
    let bar = ProgressBar::new(trials as u64).with_style(style);
    let mut done: Vec<(f64, Settings)> = Vec::new();
    let mut best = 0.0;
    for _ in 0..trials {
        let settings = Settings::draw(&mut random);
        training.set(&ctx, &settings, &counts)?;
        first.copy_to(&gpu, &weights);
        let backward = batch.backward(&gpu, &weights, &d_logits);
        train(&gpu, &batch, &training.loss, &backward, &schedule(&settings, steps, seed))?;
        let accuracy = accuracy(&ctx, &validation)?;
        if accuracy > best {
            best = accuracy;
            weights.copy_to(&gpu, &best_weights);
        }
        done.push((accuracy, settings));
        bar.inc(1);
        bar.set_message(format!("accuracy {accuracy:.3}, best {best:.3}"));
    }
    bar.abandon();

    done.sort_by(|a, b| b.0.total_cmp(&a.0));
    println!("validation      rate smoothing  gamma  focal  balance   lambda");
    done.iter().for_each(|(accuracy, settings)| println!("{accuracy:10.3} {}", settings.row()));
    draw(&svg, &done)?;
    println!("plot: {}", svg.display());
    best_weights.copy_to(&gpu, &weights);
    println!("test accuracy of the best: {:.3}", accuracy(&ctx, &testing)?);
    Ok(())
}

/// What changes from step to step of a trial.
fn schedule(settings: &Settings, steps: usize, seed: u64) -> Vec<Step> {
    let rate = |index: usize| settings.learning_rate as f32 * (1.0 - index as f32 / steps as f32);
    (0..steps).map(|index| Step::train(index, rate(index), MAX_SHIFT, seed as u32)).collect()
}

/// Runs the steps, a hundred per submission.
fn train(gpu: &Gpu, batch: &Batch, loss: &Bound, backward: &[mlp::Call], steps: &[Step]) -> Result<()> {
    let (count, step_size) = (steps.len(), size_of::<Step>() as u64);
    let steps = gpu.buffer(steps, wgpu::BufferUsages::COPY_SRC);
    for first in (0..count).step_by(100) {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for index in first..count.min(first + 100) {
            encoder.copy_buffer_to_buffer(&steps, index as u64 * step_size, &batch.step, 0, step_size);
            mlp::encode(&mut encoder, &batch.forward);
            loss.encode(&mut encoder)?;
            mlp::encode(&mut encoder, backward);
        }
        gpu.queue.submit([encoder.finish()]);
    }
    Ok(())
}

/// The share of digits whose label has the highest logit: an extra output of the cross-entropy.
fn accuracy(ctx: &Context, batch: &Batch) -> Result<f64> {
    let mut encoder = ctx.device().create_command_encoder(&Default::default());
    mlp::encode(&mut encoder, &batch.forward);
    ctx.queue().submit([encoder.finish()]);
    let shape = [batch.rows, CLASSES];
    let logits = Tensor::from_buffer(ctx, batch.logits.clone(), 0, DType::F32, &shape)?;
    let labels = Tensor::from_buffer(ctx, batch.labels.clone(), 0, DType::I32, &shape[..1])?;
    let inputs = [("input", &logits), ("target", &labels)];
    let plan = ctx.plan(&losses::cross_entropy(), &PlanSpec::new().like(&inputs).extra("correct"))?;
    let bound = plan.bind(&Bindings::new().inputs(&inputs))?;
    bound.submit()?;
    let correct: Vec<f32> = bound.read(bound.extra("correct")?)?;
    Ok(f64::from(correct[0]) / batch.rows as f64)
}

/// Validation accuracy against learning rate, a dot per trial, darker with more focal loss; the best has a ring.
fn draw(path: &Path, done: &[(f64, Settings)]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let accuracies = || done.iter().map(|(accuracy, _)| *accuracy);
    let (low, high) = (accuracies().fold(1.0, f64::min), accuracies().fold(0.0, f64::max));
    let margin = 0.1 * (high - low) + 1e-3;
    let area = SVGBackend::new(path, (800, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Random search over loss settings", ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(-3.6..-1.9, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .x_desc("learning rate, log10")
        .y_desc("validation accuracy (darker: more focal loss)")
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .draw()?;
    let place = |(accuracy, settings): &(f64, Settings)| (settings.learning_rate.log10(), *accuracy);
    let dot = |trial: &(f64, Settings)| {
        Circle::new(place(trial), 5, RGBColor(200, 70, 40).mix(0.2 + 0.8 * trial.1.focal_share).filled())
    };
    chart.draw_series(done.iter().map(dot))?;
    chart.draw_series(done.first().map(|best| Circle::new(place(best), 9, BLACK.stroke_width(2))))?;
    area.present()?;
    Ok(())
}

struct Arguments {
    trials: usize,
    steps: usize,
    seed: u64,
    svg: PathBuf,
}

impl Arguments {
    fn read() -> Result<Arguments> {
        let mut read = Arguments { trials: 16, steps: 300, seed: 0, svg: PathBuf::from("target/search.svg") };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{argument}: value missing"))?;
            let wrong = |error: std::num::ParseIntError| format!("{argument} {value}: {error}");
            match argument.as_str() {
                "--trials" => read.trials = value.parse().map_err(wrong)?,
                "--steps" => read.steps = value.parse().map_err(wrong)?,
                "--seed" => read.seed = value.parse().map_err(wrong)?,
                "--out" => read.svg = value.into(),
                _ => return Err(format!("{argument}: unknown; known are --trials, --steps, --seed and --out").into()),
            }
        }
        Ok(read)
    }
}
