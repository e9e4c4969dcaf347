//! The linear chain by enumeration of all taggings, by central differences, and out of range.

use super::oracle::{differences, log_sum};
use crate::common::compare::{largest, mismatch, random};
use crate::common::sequence::{Data, OnBoth, Sequence};
use crate::common::{Outcome, context};
use half::{bf16, f16};
use wgloss::fused::{self, Crf};
use wgloss::{
    Bindings, Context, DType, Element, Error, GradMode, Limits, Operator, PlanSpec, Reduction, Tensor, Wanted,
};

const GRADS: [&str; 4] = ["emissions", "transitions", "start_transitions", "end_transitions"];

/// Sizes of emissions `[B, T, K]`, then emissions, transitions, starts and ends one after the other.
#[derive(Clone, Debug)]
struct Batch {
    sizes: [usize; 3],
    x: Vec<f64>,
    tags: Vec<i32>,
    lengths: Vec<i32>,
}

impl Batch {
    fn random(sizes: [usize; 3], lengths: &[i32], scale: f32) -> Batch {
        let [n, frames, tags] = sizes;
        let x = random(n * frames * tags + tags * (tags + 2), (frames * 13 + tags) as u32);
        let x = x.into_iter().map(|x| f64::from(x * scale)).collect();
        let own = (0..n * frames).map(|k| ((k * 7 + k / 3) % tags) as i32).collect();
        Batch { sizes, x, tags: own, lengths: lengths.to_vec() }
    }

    /// The four tensors of scores.
    fn split<'x>(&self, x: &'x [f64]) -> [&'x [f64]; 4] {
        let [n, frames, tags] = self.sizes;
        let (emissions, rest) = x.split_at(n * frames * tags);
        let (transitions, rest) = rest.split_at(tags * tags);
        let (starts, ends) = rest.split_at(tags);
        [emissions, transitions, starts, ends]
    }

    fn score(&self, x: &[f64], n: usize, tagging: &[usize]) -> f64 {
        let ([emissions, transitions, starts, ends], [_, frames, tags]) = (self.split(x), self.sizes);
        let mut sum = starts[tagging[0]] + ends[tagging[tagging.len() - 1]];
        for (t, tag) in tagging.iter().enumerate() {
            sum += emissions[(n * frames + t) * tags + tag];
        }
        sum + tagging.windows(2).map(|pair| transitions[pair[0] * tags + pair[1]]).sum::<f64>()
    }

    fn own(&self, n: usize) -> Vec<usize> {
        let first = n * self.sizes[1];
        self.tags[first..first + self.lengths[n] as usize].iter().map(|tag| *tag as usize).collect()
    }

    /// Every tagging of a sequence with its score.
    fn taggings(&self, x: &[f64], n: usize) -> Vec<(Vec<usize>, f64)> {
        let (frames, tags) = (self.lengths[n] as u32, self.sizes[2]);
        let tagging = |k: usize| (0..frames).map(|t| k / tags.pow(t) % tags).collect::<Vec<usize>>();
        (0..tags.pow(frames)).map(tagging).map(|tagging| (tagging.clone(), self.score(x, n, &tagging))).collect()
    }

    fn loss(&self, x: &[f64], n: usize) -> f64 {
        if self.lengths[n] == 0 {
            return 0.0;
        }
        let all: Vec<f64> = self.taggings(x, n).into_iter().map(|(_, score)| score).collect();
        log_sum(&all) - self.score(x, n, &self.own(n))
    }

    /// The probability of each tag in each frame.
    fn marginals(&self) -> Vec<f64> {
        let [sequences, frames, tags] = self.sizes;
        let mut all = vec![0.0; sequences * frames * tags];
        for n in (0..sequences).filter(|n| self.lengths[*n] > 0) {
            let taggings = self.taggings(&self.x, n);
            let total = log_sum(&taggings.iter().map(|(_, score)| *score).collect::<Vec<_>>());
            for (tagging, score) in taggings {
                for (t, tag) in tagging.into_iter().enumerate() {
                    all[(n * frames + t) * tags + tag] += (score - total).exp();
                }
            }
        }
        all
    }

    fn on_both(&self, operator: Crf) -> OnBoth {
        let [n, frames, tags] = self.sizes;
        let narrow = |x: &[f64]| Data::Numbers(x.iter().map(|x| *x as f32).collect());
        let [emissions, transitions, starts, ends] = self.split(&self.x);
        // What is past a length is out of range.
        let own = self.tags.iter().enumerate();
        let own = own.map(|(k, tag)| if (k % frames) < self.lengths[k / frames] as usize { *tag } else { -3 });
        let inputs = vec![
            (GRADS[0], vec![n, frames, tags], narrow(emissions)),
            (GRADS[1], vec![tags, tags], narrow(transitions)),
            (GRADS[2], vec![tags], narrow(starts)),
            (GRADS[3], vec![tags], narrow(ends)),
            ("tags", vec![n, frames], Data::Indices(own.collect())),
            ("lengths", vec![n], Data::Indices(self.lengths.clone())),
        ];
        OnBoth { operator: Sequence::Crf(operator), inputs }
    }
}

fn outcomes(both: &OnBoth) -> Vec<(&'static str, Outcome)> {
    let mut all = vec![("CPU", both.on_cpu(&GRADS).unwrap())];
    all.extend(context().map(|ctx| ("GPU", both.on_gpu(ctx, &GRADS).unwrap())));
    all
}

#[test]
fn losses_and_gradients_are_those_of_all_taggings() {
    let batch = Batch::random([4, 5, 3], &[5, 1, 0, 4], 0.5);
    let losses: Vec<f64> = (0..4).map(|n| batch.loss(&batch.x, n)).collect();
    let cases = [
        (fused::crf().reduction(Reduction::None), 1.0, 4),
        (fused::crf(), 1.0, 1),
        (fused::crf().reduction(Reduction::Mean), 0.25, 1),
        (fused::crf().token_mean(), 0.1, 1),
    ];
    for (operator, weight, count) in cases {
        let want = differences(&batch.x, |x| (0..4).map(|n| batch.loss(x, n) * weight).sum());
        let sum = [losses.iter().sum::<f64>() * weight];
        let expected = if count == 4 { &losses[..] } else { &sum };
        for (path, out) in outcomes(&batch.on_both(operator.clone())) {
            assert_eq!(mismatch(&out.loss, expected, 1e-6, |_| 1e-6), None, "{path}, {operator:?}");
            for (name, want) in GRADS.iter().zip(batch.split(&want)) {
                let allowed = if path == "CPU" { 1e-8 } else { 1e-6 };
                assert_eq!(mismatch(&out.grads[*name], want, 1e-6, |_| allowed), None, "{path}, {name}, {operator:?}");
            }
        }
    }
}

#[test]
fn marginals_are_those_of_all_taggings() {
    let batch = Batch::random([4, 5, 3], &[5, 1, 0, 4], 0.5);
    let (both, want) = (batch.on_both(fused::crf()), batch.marginals());
    let wanted = Wanted { extras: vec!["marginals".to_owned()], ..Wanted::default() };
    let out = both.operator.on_cpu(&both.host(), &wanted).unwrap();
    assert_eq!(mismatch(out.extra("marginals").unwrap(), &want, 1e-12, |_| 1e-12), None, "CPU");
    let Some(ctx) = context() else { return };
    let tensors = both.tensors(ctx);
    let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let spec = PlanSpec::new().like(&inputs).extra("marginals").without_loss();
    let plan = ctx.plan(both.operator.as_operator(), &spec).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    let got: Vec<f32> = bound.read(bound.extra("marginals").unwrap()).unwrap();
    let got: Vec<f64> = got.into_iter().map(f64::from).collect();
    assert_eq!(mismatch(&got, &want, 1e-6, |_| 1e-7), None, "GPU");
}

#[test]
fn long_chains_keep_their_digits() {
    // 300 frames of 7 tags; 130 tags, more than a workgroup's lanes; 700, more than 16 KiB hold, in segments.
    for (sizes, lengths, scale) in [
        ([2, 300, 7], &[300, 211][..], 1.0),
        ([2, 300, 7], &[300, 211], 5.0),
        ([1, 12, 130], &[12], 1.0),
        ([1, 3, 700], &[3], 0.5),
    ] {
        let both = Batch::random(sizes, lengths, scale).on_both(fused::crf().reduction(Reduction::None));
        let want = both.on_cpu(&GRADS).unwrap();
        let Some(ctx) = context() else { return };
        let got = both.on_gpu(ctx, &GRADS).unwrap();
        assert_eq!(mismatch(&got.loss, &want.loss, 2e-6, |_| 2e-7), None, "{sizes:?}");
        for name in GRADS {
            let allowed = 2e-6 * largest(&want.grads[name]);
            assert_eq!(mismatch(&got.grads[name], &want.grads[name], 1e-6, |_| allowed), None, "{sizes:?}, {name}");
        }
    }
}

#[test]
fn chains_of_long_batches_are_those_of_the_textbook() {
    // The recursion in plain loops, against the f64 path.
    let batch = Batch::random([1, 60, 5], &[60], 1.0);
    let ([emissions, transitions, starts, ends], own) = (batch.split(&batch.x), batch.own(0));
    let mut alpha: Vec<f64> = (0..5).map(|k| starts[k] + emissions[k]).collect();
    for t in 1..60 {
        let of = |k: usize| {
            log_sum(&(0..5).map(|j| alpha[j] + transitions[j * 5 + k]).collect::<Vec<_>>()) + emissions[t * 5 + k]
        };
        alpha = (0..5).map(of).collect();
    }
    let total = log_sum(&alpha.iter().zip(ends).map(|(a, end)| a + end).collect::<Vec<_>>());
    let want = [total - batch.score(&batch.x, 0, &own)];
    for (path, out) in outcomes(&batch.on_both(fused::crf())) {
        assert_eq!(mismatch(&out.loss, &want, 2e-6, |_| 1e-6), None, "{path}");
    }
}

#[test]
fn forbidden_taggings_have_no_share() {
    let mut batch = Batch::random([3, 4, 3], &[4, 4, 4], 0.5);
    batch.tags = vec![0, 1, 1, 0, 0, 2, 1, 0, 1, 1, 1, 1];
    let (at, never) = (3 * 4 * 3, f64::NEG_INFINITY);
    // From tag 0 to tag 2, which the second sequence does; no tag in the third's last frame.
    batch.x[at + 2] = never;
    (0..3).for_each(|k| batch.x[(2 * 4 + 3) * 3 + k] = never);
    let want = batch.loss(&batch.x, 0);
    for (path, out) in outcomes(&batch.on_both(fused::crf().reduction(Reduction::None))) {
        assert!((out.loss[0] - want).abs() < 1e-6, "{path}: {:?}", out.loss);
        assert!(out.loss[1] == f64::INFINITY && out.loss[2].is_nan(), "{path}: {:?}", out.loss);
        // Gradients of what is allowed are those of the sum over all taggings, less the own one.
        assert!(out.grads["emissions"][..24].iter().all(|g| g.is_finite()), "{path}");
        assert!(out.grads["emissions"][24..].iter().all(|g| g.is_nan()), "{path}");
        assert!(out.grads["transitions"].iter().all(|g| g.is_nan()), "{path}");
    }
    batch.lengths[2] = 0;
    for (path, out) in outcomes(&batch.on_both(fused::crf().reduction(Reduction::None))) {
        assert!(out.grads["transitions"].iter().all(|g| g.is_finite()), "{path}");
        assert_eq!(out.grads["transitions"][2], -1.0, "{path}: the second sequence's own");
    }
}

#[test]
fn a_nan_poisons_the_sequence_that_meets_it() {
    let clean = Batch::random([2, 4, 3], &[3, 1], 0.5);
    // An emission; one past the length; a transition, which one frame has none of; a start.
    for (place, is_nan) in
        [(4, [true, false]), (9, [false, false]), (24 + 5, [true, false]), (24 + 9 + 1, [true, true])]
    {
        let mut batch = clean.clone();
        batch.x[place] = f64::NAN;
        for (path, out) in outcomes(&batch.on_both(fused::crf().reduction(Reduction::None))) {
            let found: Vec<bool> = out.loss.iter().map(|loss| loss.is_nan()).collect();
            assert_eq!(found, is_nan, "{path} at {place}: {:?}", out.loss);
            for (n, is_nan) in is_nan.into_iter().enumerate() {
                let own = &out.grads["emissions"][12 * n..12 * n + 3];
                assert!(own.iter().all(|g| g.is_nan() == is_nan), "{path} at {place}: {own:?}");
            }
            assert_eq!(out.grads["end_transitions"][0].is_nan(), is_nan[0], "{path} at {place}");
        }
    }
}

fn check_stored<T: Element>(ctx: &Context, narrow: fn(f32) -> T, widen: fn(T) -> f64, half_step: f64) {
    for tags in [3, 4, 33] {
        let mut batch = Batch::random([2, 5, tags], &[5, 3], 1.0);
        batch.x.iter_mut().for_each(|x| *x = widen(narrow(*x as f32)));
        let both = batch.on_both(fused::crf());
        let want = both.on_cpu(&["emissions"]).unwrap();
        let got = both.on_gpu_stored(ctx, &["emissions"], narrow, widen).unwrap();
        let (got, want) = (&got.grads["emissions"], &want.grads["emissions"]);
        let allowed = 2e-6 * largest(want) + 6e-8;
        assert_eq!(mismatch(got, want, 1e-6 + half_step, |_| allowed), None, "{tags} tags");
    }
}

#[test]
fn gradients_are_rounded_once_to_the_type_that_they_are_stored_in() {
    let Some(ctx) = context() else { return };
    check_stored::<f16>(ctx, f16::from_f32, f64::from, 1.0 / 2048.0);
    check_stored::<bf16>(ctx, bf16::from_f32, f64::from, 1.0 / 256.0);
}

#[test]
fn gradients_are_added_to_what_is_there_or_take_the_emissions_place() {
    let Some(ctx) = context() else { return };
    let both = Batch::random([2, 5, 3], &[5, 3], 0.5).on_both(fused::crf());
    let want = both.on_cpu(&GRADS).unwrap();
    let tensors = both.tensors(ctx);
    let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let sums = GRADS[1..].iter().map(|name| (*name, Tensor::from_slice(ctx, &[0.5f32; 9], &[9]).unwrap()));
    let sums: Vec<(&str, Tensor)> = sums.collect();
    let shaped = |k: usize| {
        let (shape, strides): (&[usize], &[usize]) = if k == 0 { (&[3, 3], &[3, 1]) } else { (&[3], &[1]) };
        sums[k].1.view(0, shape, strides).unwrap()
    };
    let spec = GRADS[1..].iter().fold(PlanSpec::new().like(&inputs), |s, name| s.grad_mode(name, GradMode::Accumulate));
    let plan = ctx.plan(&fused::crf(), &spec.grad_mode("emissions", GradMode::InPlace)).unwrap();
    let bindings = (0..3).fold(Bindings::new().inputs(&inputs), |b, k| b.grad(GRADS[1 + k], &shaped(k)));
    let bound = plan.bind(&bindings).unwrap();
    bound.submit().unwrap();
    let read = |tensor: &Tensor| tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect::<Vec<f64>>();
    assert_eq!(mismatch(&read(&tensors[0].1), &want.grads["emissions"], 1e-6, |_| 1e-6), None);
    for k in 0..3 {
        let want: Vec<f64> = want.grads[GRADS[1 + k]].iter().map(|g| g + 0.5).collect();
        assert_eq!(mismatch(&read(&shaped(k)), &want, 1e-6, |_| 1e-6), None, "{}", GRADS[1 + k]);
    }
}

#[test]
fn hostile_lengths_and_tags_poison_their_sequence_and_are_told() {
    let Some(ctx) = context() else { return };
    for (input, at) in [(4, 1), (5, 0)] {
        for hostile in [i32::MAX, i32::MIN, -1, 100] {
            let mut both = Batch::random([3, 4, 3], &[3, 4, 2], 0.5).on_both(fused::crf().reduction(Reduction::None));
            let Data::Indices(indices) = &mut both.inputs[input].2 else { panic!("an input of indices") };
            indices[at] = hostile;
            let bound = both.bound::<f32>(ctx, &["emissions"], |x| x).unwrap();
            let told = bound.read_loss().unwrap_err();
            assert_eq!(told, both.on_cpu(&["emissions"]).unwrap_err());
            match told {
                Error::LabelOutOfRange { row: 0, label, classes: 3 } => assert_eq!(label, i64::from(hostile)),
                Error::LengthOutOfRange { row: 0, value, most: 4, .. } => assert_eq!(value, Some(hostile.into())),
                other => panic!("{other}"),
            }
            let losses: Vec<f32> = bound.read(bound.loss().unwrap()).unwrap();
            assert_eq!(losses.iter().map(|l| l.is_nan()).collect::<Vec<_>>(), [true, false, false]);
            let grads: Vec<f32> = bound.read(bound.grad("emissions").unwrap()).unwrap();
            assert!(grads[12..].iter().all(|g| g.is_finite()) && grads[0].is_nan());
        }
    }
}

#[test]
fn inputs_that_do_not_go_together_are_refused() {
    let of = |operator: &Crf, other: (usize, DType, &[usize]), grad: Option<GradMode>| {
        let shapes: [(&str, DType, &[usize]); 6] = [
            ("emissions", DType::F16, &[2, 4, 3]),
            ("transitions", DType::F32, &[3, 3]),
            ("start_transitions", DType::F32, &[3]),
            ("end_transitions", DType::F32, &[3]),
            ("tags", DType::I32, &[2, 4]),
            ("lengths", DType::U32, &[2]),
        ];
        let spec = shapes.into_iter().enumerate().fold(PlanSpec::new(), |spec, (k, (name, dtype, shape))| {
            let (dtype, shape) = if k == other.0 { (other.1, other.2) } else { (dtype, shape) };
            spec.input(name, dtype, shape)
        });
        let spec = grad.map_or(spec.clone(), |mode| spec.grad_mode("transitions", mode));
        operator.prepare(&spec, &Limits::WEBGPU).err()
    };
    let fits = (9, DType::F32, &[][..]);
    assert!(of(&fused::crf(), fits, Some(GradMode::Accumulate)).is_none());
    let shapes = [(0, &[2, 4][..]), (0, &[2, 4, 0]), (1, &[3, 4]), (2, &[4]), (3, &[]), (4, &[2, 5]), (5, &[3])];
    for (input, shape) in shapes {
        let dtype = if input < 4 { DType::F32 } else { DType::I32 };
        let error = of(&fused::crf(), (input, dtype, shape), None);
        assert!(matches!(error, Some(Error::Shape { .. })), "{input} {shape:?}: {error:?}");
    }
    let error = of(&fused::crf(), (1, DType::F16, &[3, 3]), None);
    assert!(matches!(error, Some(Error::DType { .. })), "{error:?}");
    let error = of(&fused::crf(), fits, Some(GradMode::InPlace));
    assert!(matches!(error, Some(Error::Unsupported { .. })), "{error:?}");
    let by = fused::crf().reduction(Reduction::MeanOverPositive);
    assert!(matches!(of(&by, fits, None), Some(Error::Unsupported { .. })));
}
