//! Operators over sequences and Lovász softmax on random problems, GPU against the f64 path: sizes of 0 and 1, lengths and
//! labels out of range, scores of −∞, +∞ and NaN, classes in 16 bits. `WGLOSS_FUZZ_OPERATORS=2000` takes so many seeds,
//! `WGLOSS_FUZZ_START=7` begins with that one.

use crate::common::compare::{largest, mismatch};
use crate::common::context;
use crate::common::sequence::{Data, OnBoth, Sequence};
use crate::random_numbers::Random;
use half::{bf16, f16};
use wgloss::{Context, DType, Element, Error, Reduction, Wanted, fused};

/// Seeds that are fixed.
const COUNT: u64 = 60;

/// A problem, and how classes are stored.
#[derive(Debug)]
struct Drawn {
    both: OnBoth,
    storage: DType,
    /// Frames of the longest sequence, whose terms a loss sums.
    frames: usize,
}

/// What one path makes of a problem: the losses and the gradient of the classes, and what it tells of indices; or an error.
type Made = Result<(Vec<f64>, Vec<f64>, Option<String>), Error>;

fn size(random: &mut Random, most: usize) -> usize {
    if random.one_in(12) { random.below(2) } else { 1 + random.below(most) }
}

fn numbers(random: &mut Random, count: usize) -> Vec<f32> {
    let scale = random.pick(&[0.1, 1.0, 1.0, 4.0, 30.0]);
    let special = random.pick(&[f32::NEG_INFINITY, f32::NEG_INFINITY, f32::INFINITY, f32::NAN, -1e4, -1e9, 60.0]);
    // In a third of the problems, once in so many numbers.
    let rare = 2 + random.below(count.max(1));
    let has_special = random.one_in(3);
    let mut number = || match has_special && random.one_in(rare) {
        true => special,
        false => random.between(-scale, scale) as f32,
    };
    (0..count).map(|_| number()).collect()
}

/// Lengths up to `most`, in a few problems one out of range.
fn lengths(random: &mut Random, count: usize, most: usize) -> Vec<i32> {
    let whole = random.one_in(2);
    let mut all: Vec<i32> = (0..count).map(|_| if whole { most } else { random.below(most + 1) } as i32).collect();
    if count > 0 && random.one_in(15) {
        all[random.below(count)] = random.pick(&[-1, most as i32 + 1, i32::MAX, i32::MIN]);
    }
    all
}

/// Labels of so many classes, often equal to the one before, in a few problems one out of range.
fn labels(random: &mut Random, count: usize, classes: usize) -> Vec<i32> {
    let mut last = 0;
    let mut all = Vec::new();
    for _ in 0..count {
        last = if random.one_in(3) { last } else { random.below(classes) };
        all.push(last as i32);
    }
    if count > 0 && random.one_in(15) {
        all[random.below(count)] = random.pick(&[-1, classes as i32, i32::MAX, i32::MIN, -100]);
    }
    all
}

/// Paddings of rows of so many items: their ends, anywhere in a few problems, or no padding at all.
fn paddings(random: &mut Random, [rows, items]: [usize; 2], anywhere: bool) -> Vec<f32> {
    let scattered = anywhere && random.one_in(4);
    let ends: Vec<usize> = (0..rows).map(|_| random.below(items + 1)).collect();
    let mut all = Vec::new();
    for end in ends {
        all.extend((0..items).map(|k| f32::from(u8::from(if scattered { random.one_in(3) } else { k >= end }))));
    }
    if !all.is_empty() && random.one_in(20) {
        let at = random.below(all.len());
        all[at] = random.pick(&[0.5, f32::NAN, -1.0, 2.0]);
    }
    all
}

fn draw(seed: u64) -> Drawn {
    let mut random = Random::new(seed);
    let random = &mut random;
    let (n, frames) = (size(random, 5), if random.one_in(6) { size(random, 90) } else { size(random, 20) });
    let (count, classes) = (size(random, 9), 1 + size(random, 9));
    let reduction = random.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean, Reduction::BatchMean]);
    let indices = |name, shape: &[usize], indices| (name, shape.to_vec(), Data::Indices(indices));
    let (operator, inputs) = match random.below(6) {
        kind @ (0 | 1) => {
            let operator = fused::ctc().blank(random.below(classes) as u32).zero_infinity(random.one_in(2));
            let (operator, name) = if kind == 0 { (operator, "log_probs") } else { (operator.from_logits(), "logits") };
            let mut x = numbers(random, frames * n * classes);
            if kind == 0 {
                // What are log-probabilities, nearly.
                x.iter_mut().for_each(|x| *x = x.min(0.0));
            }
            let inputs = vec![
                (name, vec![frames, n, classes], Data::Numbers(x)),
                indices("targets", &[n, count], labels(random, n * count, classes)),
                indices("input_lengths", &[n], lengths(random, n, frames)),
                indices("target_lengths", &[n], lengths(random, n, count)),
            ];
            (Sequence::Ctc(operator.reduction(reduction)), inputs)
        }
        2 => {
            let operator = fused::optax_ctc().blank_id(random.below(classes) as u32).reduction(reduction);
            let inputs = vec![
                ("logits", vec![n, frames, classes], Data::Numbers(numbers(random, n * frames * classes))),
                ("logit_paddings", vec![n, frames], Data::Numbers(paddings(random, [n, frames], true))),
                indices("labels", &[n, count], labels(random, n * count, classes)),
                ("label_paddings", vec![n, count], Data::Numbers(paddings(random, [n, count], false))),
            ];
            (Sequence::OptaxCtc(operator), inputs)
        }
        3 => {
            let operator = fused::rnnt().blank(random.below(classes) as i64).reduction(reduction);
            let operator = operator.fused_log_softmax(!random.one_in(4));
            let operator = if random.one_in(4) { operator.clamp(random.between(0.01, 0.5)) } else { operator };
            let shape = vec![n, frames, count + 1, classes];
            let mut x = numbers(random, shape.iter().product());
            if random.one_in(4) {
                x.iter_mut().for_each(|x| *x = x.min(0.0));
            }
            let inputs = vec![
                ("logits", shape, Data::Numbers(x)),
                indices("targets", &[n, count], labels(random, n * count, classes)),
                indices("logit_lengths", &[n], lengths(random, n, frames)),
                indices("target_lengths", &[n], lengths(random, n, count)),
            ];
            (Sequence::Rnnt(operator), inputs)
        }
        4 => {
            let operator = fused::crf().reduction(reduction);
            let operator = if random.one_in(4) { operator.token_mean() } else { operator };
            let inputs = vec![
                ("emissions", vec![n, frames, classes], Data::Numbers(numbers(random, n * frames * classes))),
                ("transitions", vec![classes, classes], Data::Numbers(numbers(random, classes * classes))),
                ("start_transitions", vec![classes], Data::Numbers(numbers(random, classes))),
                ("end_transitions", vec![classes], Data::Numbers(numbers(random, classes))),
                indices("tags", &[n, frames], labels(random, n * frames, classes)),
                indices("lengths", &[n], lengths(random, n, frames)),
            ];
            (Sequence::Crf(operator), inputs)
        }
        _ => {
            let operator = fused::lovasz_softmax().per_image(random.one_in(2)).reduction(reduction);
            let operator = operator.classes(random.pick(&["present", "all"])).expect("these are its words");
            let inputs = vec![
                ("input", vec![n, classes, frames], Data::Numbers(numbers(random, n * classes * frames))),
                indices("target", &[n, frames], labels(random, n * frames, classes)),
            ];
            (Sequence::Lovasz(operator), inputs)
        }
    };
    let mut both = OnBoth { operator, inputs };
    let storage = random.pick(&[DType::F32, DType::F32, DType::F16, DType::BF16]);
    let Data::Numbers(x) = &mut both.inputs[0].2 else { unreachable!("the first input has the classes") };
    x.iter_mut().for_each(|x| {
        *x = match storage {
            DType::F16 => f16::from_f32(*x).to_f32(),
            DType::BF16 => bf16::from_f32(*x).to_f32(),
            _ => *x,
        };
    });
    Drawn { both, storage, frames }
}

impl Drawn {
    fn name(&self) -> &'static str {
        self.both.inputs[0].0
    }

    fn on_cpu(&self) -> Made {
        let wanted = Wanted { loss: true, grads: vec![self.name().to_owned()], ..Wanted::default() };
        let mut out = self.both.operator.on_cpu(&self.both.host(), &wanted)?;
        let told = out.loss_values().err().map(|error| error.to_string());
        out.take_bad_length();
        out.take_bad_label();
        Ok((out.loss_values()?.to_vec(), out.grad(self.name())?.to_vec(), told))
    }

    fn on_gpu(&self, ctx: &Context) -> Made {
        match self.storage {
            DType::F16 => self.stored(ctx, f16::from_f32, |x| x.to_f64()),
            DType::BF16 => self.stored(ctx, bf16::from_f32, |x| x.to_f64()),
            _ => self.stored(ctx, |x| x, f64::from),
        }
    }

    fn stored<T: Element>(&self, ctx: &Context, narrow: fn(f32) -> T, widen: fn(T) -> f64) -> Made {
        let bound = self.both.bound(ctx, &[self.name()], narrow)?;
        // Each read tells of an index out of range, and clears it.
        let told = bound.read::<f32>(bound.loss()?).err().map(|error| error.to_string());
        if told.is_some() {
            let more = (0..4).find(|_| bound.read::<f32>(bound.loss().expect("it was wanted")).is_ok());
            assert!(more.is_some(), "the same is told again and again");
        }
        let losses: Vec<f32> = bound.read(bound.loss()?)?;
        let grad: Vec<T> = bound.read(bound.grad(self.name())?)?;
        Ok((losses.into_iter().map(f64::from).collect(), grad.into_iter().map(widen).collect(), told))
    }

    /// What is wrong with what a GPU made of it.
    fn complaint(&self, got: Made, want: Made) -> Option<String> {
        let ((losses, grad, told), (want_losses, want_grad, want_told)) = match (got, want) {
            (Ok(got), Ok(want)) => (got, want),
            (Err(got), Err(want)) => {
                let same = got.to_string() == want.to_string();
                return (!same).then(|| format!("GPU says \"{got}\", CPU \"{want}\""));
            }
            (got, want) => return Some(format!("GPU {got:?}, CPU {want:?}")),
        };
        if told != want_told {
            return Some(format!("GPU tells {told:?}, CPU {want_told:?}"));
        }
        // Of a chain, the difference of two sums of scores is the loss, masked ones among them.
        let least = if matches!(self.both.operator, Sequence::Crf(_)) { f32::MIN } else { -5e3 };
        // Scores are rounded before they are summed, frame by frame.
        let largest_of = |data: &Data| match data {
            Data::Numbers(x) => {
                x.iter().filter(|x| x.is_finite() && **x > least).fold(0.0f32, |most, x| most.max(x.abs()))
            }
            Data::Indices(_) => 0.0,
        };
        let most = self.both.inputs.iter().map(|(_, _, data)| largest_of(data)).fold(1.0, f32::max);
        let rounded = 1.2e-7 * f64::from(most) * (self.frames + 10) as f64;
        let (rtol, tiny) = match self.storage {
            DType::F16 => (6e-4, 6e-8),
            DType::BF16 => (4.5e-3, 1e-40),
            _ => (1e-6, 1e-37),
        };
        let scale = 1.0 + largest(&want_losses).min(1e30);
        let compare = |what: &str, got: &[f64], want: &[f64], rtol: f64, atol: f64| {
            let nan = (0..want.len()).find(|&k| got.get(k).is_some_and(|got| got.is_nan() != want[k].is_nan()));
            let numbers = |all: &[f64]| all.iter().map(|x| if x.is_nan() { 0.0 } else { *x }).collect::<Vec<f64>>();
            let nan = nan.map(|k| format!("{what}[{k}] is {}, want {}", got[k], want[k]));
            nan.or_else(|| Some(format!("{what}{}", mismatch(&numbers(got), &numbers(want), rtol, |_| atol)?)))
        };
        let losses_off = compare("loss", &losses, &want_losses, 2e-6, rounded.min(2e-6 * scale + rounded));
        if losses_off.is_some() || self.has_ties() {
            return losses_off;
        }
        // Of alignments that pass masked scores, f32 holds no more digits than say that probabilities are some.
        let finite: Vec<f64> = want_grad.iter().copied().filter(|x| x.is_finite()).collect();
        let masks = |data: &Data| matches!(data, Data::Numbers(x) if x.iter().any(|x| (-1e10..-1e8).contains(x)));
        let is_masked = self.both.inputs.iter().any(|(_, _, data)| masks(data));
        let all = if is_masked { 1.0 } else { (4e-6 + rounded) * largest(&finite) };
        // Gradients are differences of probabilities, which may be 1 each.
        compare("gradient", &grad, &want_grad, rtol, all + 5e-7 + tiny)
    }

    /// Whether Lovász softmax sorts errors that are equal but for their rounding: either order has a gradient of its own.
    fn has_ties(&self) -> bool {
        let (Sequence::Lovasz(_), (_, shape, Data::Numbers(x))) = (&self.both.operator, &self.both.inputs[0]) else {
            return false;
        };
        let Data::Indices(target) = &self.both.inputs[1].2 else { return false };
        let [images, classes, voxels] = [shape[0], shape[1], shape[2]];
        let score = |n: usize, c: usize, v: usize| f64::from(x[(n * classes + c) * voxels + v]);
        (0..classes).any(|c| {
            let error = |k: usize| {
                let (n, v) = (k / voxels, k % voxels);
                let total: f64 = (0..classes).map(|other| (score(n, other, v) - score(n, c, v)).exp()).sum();
                (f64::from(u8::from(target[k] == c as i32)) - 1.0 / total).abs()
            };
            let mut errors: Vec<f64> = (0..images * voxels).map(error).collect();
            errors.sort_by(f64::total_cmp);
            errors.windows(2).any(|pair| pair[1] - pair[0] < 1e-6)
        })
    }
}

#[test]
fn operators_agree_on_random_problems() {
    let Some(ctx) = context() else { return };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("WGLOSS_FUZZ_START").unwrap_or(0);
    let count = number("WGLOSS_FUZZ_OPERATORS").unwrap_or(COUNT);
    let mut complaints = Vec::new();
    for seed in first..first + count {
        let drawn = draw(seed);
        if count == 1 {
            println!("{drawn:?}\nGPU {:?}\nCPU {:?}", drawn.on_gpu(ctx), drawn.on_cpu());
        }
        if let Some(complaint) = drawn.complaint(drawn.on_gpu(ctx), drawn.on_cpu()) {
            let shapes: Vec<_> = drawn.both.inputs.iter().map(|(name, shape, _)| format!("{name} {shape:?}")).collect();
            complaints.push(format!(
                "seed {seed}: {:?} in {}, {}: {complaint}",
                drawn.both.operator,
                drawn.storage,
                shapes.join(", ")
            ));
        }
    }
    crate::common::compare::report(complaints, count as usize);
}
