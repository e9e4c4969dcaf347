//! Losses of language models from logits to the logits' gradient, and regions over a batch and per sample: against the same
//! in plain f64 loops.

use crate::common::context;
use wgloss::{Bindings, Context, HostTensor, Loss, PlanSpec, RowAxis, Scope, Tensor, Wanted, cpu, loss::Build, losses};
use wgloss::{Expr, GroupInput};

const VOCABULARY: usize = 37;

/// Numbers between −2 and 2 that look random.
fn noise(seed: usize, count: usize) -> Vec<f32> {
    (0..count)
        .map(|k| ((k + 7919 * seed) as u32).wrapping_mul(2_654_435_761) >> 8)
        .map(|z| z as f32 / (1 << 22) as f32 - 2.0)
        .collect()
}

/// Sequences of these lengths, packed: tokens and the first row of each, then the number of rows.
struct Packed {
    tokens: Vec<i32>,
    offsets: Vec<i32>,
}

impl Packed {
    fn new(lengths: &[usize]) -> Packed {
        let rows: usize = lengths.iter().sum();
        let tokens = (0..rows).map(|row| (row * 31 % VOCABULARY) as i32).collect();
        let mut offsets = vec![0];
        lengths.iter().for_each(|length| offsets.push(offsets[offsets.len() - 1] + *length as i32));
        Packed { tokens, offsets }
    }

    fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// ln p(token), and p, of a row of logits.
    fn log_prob(&self, logits: &[f32], row: usize) -> (f64, Vec<f64>) {
        let x: Vec<f64> = logits[row * VOCABULARY..][..VOCABULARY].iter().map(|x| f64::from(*x)).collect();
        let sum = x.iter().map(|x| x.exp()).sum::<f64>();
        (x[self.tokens[row] as usize] - sum.ln(), x.iter().map(|x| x.exp() / sum).collect())
    }

    /// d ln p(token)/d logit, times a factor per row.
    fn gradient(&self, logits: &[f32], factor: impl Fn(usize) -> f64) -> Vec<f64> {
        let of_row = |row: usize| {
            let (_, p) = self.log_prob(logits, row);
            let hit = move |j: usize| f64::from(u8::from(j == self.tokens[row] as usize));
            let factor = factor(row);
            p.into_iter().enumerate().map(move |(j, p)| factor * (hit(j) - p))
        };
        (0..self.rows()).flat_map(of_row).collect()
    }
}

fn close(what: &str, got: &[f64], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    for (k, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= tolerance * largest, "{what}[{k}] is {got}, want {want}");
    }
}

/// Loss and gradient of the first input, on the CPU in f64 and on the GPU, held against what is wanted.
fn check(loss: &Loss, inputs: &[(&str, HostTensor<'_>)], tensors: &[(&str, Tensor)], want: (f64, Vec<f64>)) {
    let (wrt, name) = (inputs[0].0, loss.name());
    let groups = inputs.iter().any(|(name, _)| *name == "sequences").then(|| GroupInput::offsets("sequences"));
    let wanted = Wanted { loss: true, grads: vec![wrt.to_owned()], groups, ..Wanted::default() };
    let host = cpu::run::<f64>(loss, inputs, &wanted).unwrap();
    close(&format!("{name} on the CPU"), &[host.loss().unwrap()], &[want.0], 1e-12);
    close(&format!("d_{wrt} of {name} on the CPU"), host.grad(wrt).unwrap(), &want.1, 1e-12);
    let Some(ctx) = context() else { return };
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let mut spec = PlanSpec::new().like(&tensors).grad(wrt);
    if wanted.groups.is_some() {
        spec = spec.group_offsets("sequences");
    }
    let bound = ctx.plan(loss, &spec).unwrap().bind(&Bindings::new().inputs(&tensors)).unwrap();
    bound.submit().unwrap();
    close(&format!("{name} on the GPU"), &[f64::from(bound.read_loss().unwrap())], &[want.0], 2e-6);
    let gradient: Vec<f64> = bound.read::<f32>(bound.grad(wrt).unwrap()).unwrap().into_iter().map(f64::from).collect();
    close(&format!("d_{wrt} of {name} on the GPU"), &gradient, &want.1, 3e-6);
}

fn numbers(ctx: Option<&Context>, values: &[f32], shape: &[usize]) -> Option<Tensor> {
    ctx.map(|ctx| Tensor::from_slice(ctx, values, shape).unwrap())
}

fn indices(ctx: Option<&Context>, values: &[i32]) -> Option<Tensor> {
    ctx.map(|ctx| Tensor::from_slice(ctx, values, &[values.len()]).unwrap())
}

/// The log-probability of each row's token: computed once for the loss and its gradient.
fn token_log_probs<'g>(b: &Build<'g>, logits: &str) -> Expr<'g> {
    b.input(logits).log_softmax().at(b.input("token"))
}

#[test]
fn dpo_goes_from_the_logits_of_two_models_to_the_gradient_of_one() {
    const BETA: f64 = 0.25;
    // A pair is a chosen answer and a rejected one behind it.
    let lengths = [[3, 5], [1, 9], [4, 2], [7, 7]];
    let packed = Packed::new(&lengths.map(|[chosen, rejected]| chosen + rejected));
    let side: Vec<f32> = lengths.iter().flat_map(|&[c, r]| [vec![1.0; c], vec![-1.0; r]].concat()).collect();
    let (policy, reference) = (noise(1, packed.rows() * VOCABULARY), noise(2, packed.rows() * VOCABULARY));
    let loss = Loss::define("dpo_from_logits").input("policy", Scope::Element).input("reference", Scope::Element);
    let loss = loss.input("side", Scope::Row).label("token").row_axis(RowAxis::Last).expr(|b| {
        let ratio = token_log_probs(b, "policy") - token_log_probs(b, "reference");
        -(BETA * (b.input("side") * ratio).sum_over(Scope::Group)).log_sigmoid()
    });

    let ratio = |row: usize| packed.log_prob(&policy, row).0 - packed.log_prob(&reference, row).0;
    let pair = |row: usize| packed.offsets.iter().filter(|first| **first as usize <= row).count() - 1;
    let mut margins = vec![0.0; lengths.len()];
    (0..packed.rows()).for_each(|row| margins[pair(row)] += BETA * f64::from(side[row]) * ratio(row));
    let pairs = lengths.len() as f64;
    let value = margins.iter().map(|h| (-h).exp().ln_1p()).sum::<f64>() / pairs;
    let slope = |row: usize| -BETA * f64::from(side[row]) / (1.0 + margins[pair(row)].exp()) / pairs;
    let want = (value, packed.gradient(&policy, slope));

    let (shape, ctx) = ([packed.rows(), VOCABULARY], context());
    let inputs = [
        ("policy", HostTensor::f32(&policy, &shape)),
        ("reference", HostTensor::f32(&reference, &shape)),
        ("side", HostTensor::f32(&side, &shape[..1])),
        ("token", HostTensor::i32(&packed.tokens, &shape[..1])),
        ("sequences", HostTensor::i32(&packed.offsets, &[lengths.len() + 1])),
    ];
    let all = [
        ("policy", numbers(ctx, &policy, &shape)),
        ("reference", numbers(ctx, &reference, &shape)),
        ("side", numbers(ctx, &side, &shape[..1])),
        ("token", indices(ctx, &packed.tokens)),
        ("sequences", indices(ctx, &packed.offsets)),
    ];
    let tensors: Vec<(&str, Tensor)> = all.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect();
    check(&loss, &inputs, &tensors, want);
}

#[test]
fn grpo_takes_sequences_of_unequal_length_from_logits() {
    let (low, high) = (0.2, 0.3);
    // The last sequence has no token, and counts among the sequences.
    let lengths = [4, 1, 9, 6, 0];
    let packed = Packed::new(&lengths);
    let policy = noise(3, packed.rows() * VOCABULARY);
    let advantages = [0.7f32, -1.1, 0.4, -0.3, 1.0];
    let old: Vec<f32> = noise(4, packed.rows())
        .iter()
        .enumerate()
        .map(|(row, shift)| (packed.log_prob(&policy, row).0 + 0.3 * f64::from(*shift)) as f32)
        .collect();
    let loss = Loss::define("grpo_from_logits").input("policy", Scope::Element).input("old_log_probs", Scope::Row);
    let loss = loss.input("advantages", Scope::Group).label("token").row_axis(RowAxis::Last).expr(move |b| {
        let ratio = (token_log_probs(b, "policy") - b.input("old_log_probs")).exp();
        let gain = (ratio * b.input("advantages")).minimum(ratio.clamp(1.0 - low, 1.0 + high) * b.input("advantages"));
        -gain.sum_over(Scope::Group) / b.graph().count(wgloss::Extent::GroupRows).maximum(1.0)
    });

    let sequence = |row: usize| packed.offsets[1..].iter().filter(|end| **end as usize <= row).count();
    let (mut value, mut slopes) = (0.0, vec![0.0; packed.rows()]);
    for row in 0..packed.rows() {
        let advantage = f64::from(advantages[sequence(row)]);
        let share = 1.0 / (lengths[sequence(row)] as f64 * lengths.len() as f64);
        let ratio = (packed.log_prob(&policy, row).0 - f64::from(old[row])).exp();
        let bound = ratio.clamp(1.0 - low, 1.0 + high);
        value -= share * (ratio * advantage).min(bound * advantage);
        if ratio * advantage <= bound * advantage {
            slopes[row] = -share * ratio * advantage;
        }
    }
    let want = (value, packed.gradient(&policy, |row| slopes[row]));

    let (shape, ctx) = ([packed.rows(), VOCABULARY], context());
    let inputs = [
        ("policy", HostTensor::f32(&policy, &shape)),
        ("old_log_probs", HostTensor::f32(&old, &shape[..1])),
        ("advantages", HostTensor::f32(&advantages, &[lengths.len()])),
        ("token", HostTensor::i32(&packed.tokens, &shape[..1])),
        ("sequences", HostTensor::i32(&packed.offsets, &[lengths.len() + 1])),
    ];
    let all = [
        ("policy", numbers(ctx, &policy, &shape)),
        ("old_log_probs", numbers(ctx, &old, &shape[..1])),
        ("advantages", numbers(ctx, &advantages, &[lengths.len()])),
        ("token", indices(ctx, &packed.tokens)),
        ("sequences", indices(ctx, &packed.offsets)),
    ];
    let tensors: Vec<(&str, Tensor)> = all.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect();
    check(&loss, &inputs, &tensors, want);
}

#[test]
fn dice_is_of_the_batch_or_of_each_sample() {
    let (shape, size) = ([3usize, 5, 7], 35);
    let p: Vec<f32> = noise(5, 3 * size).iter().map(|x| x / 4.0 + 0.5).collect();
    let t: Vec<f32> = noise(6, 3 * size).iter().map(|x| f32::from(u8::from(*x > 0.5))).collect();
    for (axis, length) in [(0, 3 * size), (1, size)] {
        let samples = 3 * size / length;
        let (mut value, mut gradient) = (0.0, Vec::new());
        for sample in 0..samples {
            let range = sample * length..(sample + 1) * length;
            let sum = |f: &dyn Fn(usize) -> f64| range.clone().map(f).sum::<f64>();
            let both = sum(&|k| f64::from(p[k]) * f64::from(t[k]));
            let all = sum(&|k| f64::from(p[k]) + f64::from(t[k])) + 1e-7;
            value += (1.0 - 2.0 * both / all) / samples as f64;
            let slope = |k: usize| -2.0 * (f64::from(t[k]) * all - both) / (all * all) / samples as f64;
            gradient.extend(range.clone().map(slope));
        }
        let loss = losses::dice().row_axis(RowAxis::From(axis));
        let inputs = [("y_pred", HostTensor::f32(&p, &shape)), ("y_true", HostTensor::f32(&t, &shape))];
        let all = [("y_pred", numbers(context(), &p, &shape)), ("y_true", numbers(context(), &t, &shape))];
        let tensors: Vec<(&str, Tensor)> = all.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect();
        check(&loss, &inputs, &tensors, (value, gradient));
    }
}
