//! The loss of a transducer by enumeration of all alignments, by central differences, and out of range.

use super::oracle::{differences, log_sum};
use crate::common::compare::{largest, mismatch, random};
use crate::common::sequence::{Data, OnBoth, Sequence};
use crate::common::{Outcome, context};
use half::{bf16, f16};
use wgloss::fused::{self, Rnnt};
use wgloss::{Context, DType, Element, Error, Limits, Operator, PlanSpec, Reduction};

/// A batch of logits `[B, T, U + 1, V]`.
#[derive(Clone, Debug)]
struct Batch {
    frames: usize,
    most: usize,
    classes: usize,
    blank: usize,
    x: Vec<f64>,
    labels: Vec<Vec<i32>>,
    lengths: Vec<i32>,
}

impl Batch {
    fn random(frames: usize, classes: usize, labels: &[&[i32]], lengths: &[i32], scale: f32) -> Batch {
        let most = labels.iter().map(|labels| labels.len()).max().unwrap_or(0);
        let x = random(labels.len() * frames * (most + 1) * classes, (frames * 7 + classes) as u32);
        let x = x.into_iter().map(|x| f64::from(x * scale)).collect();
        let (labels, lengths) = (labels.iter().map(|labels| labels.to_vec()).collect(), lengths.to_vec());
        Batch { frames, most, classes, blank: classes - 1, x, labels, lengths }
    }

    fn at(&self, n: usize, t: usize, u: usize) -> usize {
        ((n * self.frames + t) * (self.most + 1) + u) * self.classes
    }

    fn log_prob(&self, (n, t, u): (usize, usize, usize), class: usize, logits: bool) -> f64 {
        let row = &self.x[self.at(n, t, u)..self.at(n, t, u) + self.classes];
        if logits { row[class] - log_sum(row) } else { row[class] }
    }

    /// Logarithms of the probabilities of all paths from a cell to the end, one by one.
    fn paths(&self, (n, t, u): (usize, usize, usize), logits: bool) -> Vec<f64> {
        let (frames, labels) = (self.lengths[n] as usize, &self.labels[n]);
        let blank = self.log_prob((n, t, u), self.blank, logits);
        let mut all = Vec::new();
        if t + 1 < frames {
            all.extend(self.paths((n, t + 1, u), logits).into_iter().map(|p| p + blank));
        } else if u == labels.len() {
            all.push(blank);
        }
        if u < labels.len() {
            let label = self.log_prob((n, t, u), labels[u] as usize, logits);
            all.extend(self.paths((n, t, u + 1), logits).into_iter().map(|p| p + label));
        }
        all
    }

    fn enumerated(&self, n: usize, logits: bool) -> f64 {
        -log_sum(&self.paths((n, 0, 0), logits))
    }

    /// By the recursion of Graves (2012), in logarithms: for lattices with too many paths to visit.
    fn by_recursion(&self, n: usize, logits: bool) -> f64 {
        let (frames, labels) = (self.lengths[n] as usize, &self.labels[n]);
        let mut alpha = vec![vec![f64::NEG_INFINITY; labels.len() + 1]; frames];
        for t in 0..frames {
            for u in 0..=labels.len() {
                let mut ways = if t + u == 0 { vec![0.0] } else { vec![] };
                if t > 0 {
                    ways.push(alpha[t - 1][u] + self.log_prob((n, t - 1, u), self.blank, logits));
                }
                if u > 0 {
                    ways.push(alpha[t][u - 1] + self.log_prob((n, t, u - 1), labels[u - 1] as usize, logits));
                }
                alpha[t][u] = log_sum(&ways);
            }
        }
        -(alpha[frames - 1][labels.len()] + self.log_prob((n, frames - 1, labels.len()), self.blank, logits))
    }

    fn on_both(&self, operator: Rnnt) -> OnBoth {
        let n = self.labels.len();
        let mut targets = vec![-9; n * self.most];
        for (row, labels) in self.labels.iter().enumerate() {
            targets[row * self.most..row * self.most + labels.len()].copy_from_slice(labels);
        }
        let lengths = self.labels.iter().map(|labels| labels.len() as i32).collect();
        let x = self.x.iter().map(|x| *x as f32).collect();
        let inputs = vec![
            ("logits", vec![n, self.frames, self.most + 1, self.classes], Data::Numbers(x)),
            ("targets", vec![n, self.most], Data::Indices(targets)),
            ("logit_lengths", vec![n], Data::Indices(self.lengths.clone())),
            ("target_lengths", vec![n], Data::Indices(lengths)),
        ];
        OnBoth { operator: Sequence::Rnnt(operator.blank(self.blank as i64)), inputs }
    }
}

/// Both paths, or the one that there is.
fn outcomes(both: &OnBoth) -> Vec<(&'static str, Outcome)> {
    let mut all = vec![("CPU", both.on_cpu(&["logits"]).unwrap())];
    all.extend(context().map(|ctx| ("GPU", both.on_gpu(ctx, &["logits"]).unwrap())));
    all
}

/// Repeats, no labels, one frame, fewer labels and frames than there is room for.
fn small() -> Batch {
    Batch::random(4, 4, &[&[1, 1, 0], &[], &[2], &[0, 2]], &[4, 3, 1, 2], 0.6)
}

#[test]
fn losses_and_gradients_are_those_of_all_alignments() {
    for blank in [3, 0] {
        let batch = Batch { blank, labels: vec![vec![1, 1, 2], vec![], vec![2], vec![1, 2]], ..small() };
        for logits in [true, false] {
            for (reduction, weight) in [(Reduction::None, 1.0), (Reduction::Sum, 1.0), (Reduction::Mean, 0.25)] {
                let operator = fused::rnnt().fused_log_softmax(logits).reduction(reduction.clone());
                let losses: Vec<f64> = (0..4).map(|n| batch.enumerated(n, logits)).collect();
                let loss = |x: &[f64]| {
                    let moved = Batch { x: x.to_vec(), ..batch.clone() };
                    (0..4).map(|n| moved.enumerated(n, logits) * weight).sum::<f64>()
                };
                let want = differences(&batch.x, loss);
                for (path, out) in outcomes(&batch.on_both(operator)) {
                    let (rtol, what) = if path == "CPU" { (1e-9, 1e-9) } else { (1e-6, 1e-6) };
                    let sum = [losses.iter().sum::<f64>() * weight];
                    let expected = if reduction == Reduction::None { &losses[..] } else { &sum };
                    assert_eq!(mismatch(&out.loss, expected, rtol, |_| what), None, "{path}, {logits}, {reduction:?}");
                    let grads = &out.grads["logits"];
                    assert_eq!(mismatch(grads, &want, 1e-6, |_| 1e-6), None, "{path}, {logits}, {reduction:?}");
                }
            }
        }
    }
}

#[test]
fn gradients_are_clamped_before_they_are_weighed() {
    let batch = small();
    let free = batch.on_both(fused::rnnt().reduction(Reduction::Sum)).on_cpu(&["logits"]).unwrap();
    let clamped = fused::rnnt().clamp(0.1).reduction(Reduction::Mean);
    for (path, out) in outcomes(&batch.on_both(clamped)) {
        let want: Vec<f64> = free.grads["logits"].iter().map(|g| 0.25 * g.clamp(-0.1, 0.1)).collect();
        assert!(want.contains(&0.025) && want.contains(&-0.025));
        assert_eq!(mismatch(&out.grads["logits"], &want, 1e-6, |_| 1e-7), None, "{path}");
        assert_eq!(mismatch(&out.loss, &[0.25 * free.loss[0]], 1e-6, |_| 1e-7), None, "{path}");
    }
}

#[test]
fn long_lattices_keep_their_digits() {
    let labels: Vec<i32> = (0..40).map(|k| (k * 5 + k / 3) % 8).collect();
    for scale in [1.0, 5.0] {
        let batch = Batch::random(120, 9, &[&labels, &labels[..23]], &[120, 90], scale);
        let both = batch.on_both(fused::rnnt().reduction(Reduction::None));
        let want: Vec<f64> = (0..2).map(|n| batch.by_recursion(n, true)).collect();
        let out = both.on_cpu(&["logits"]).unwrap();
        assert_eq!(mismatch(&out.loss, &want, 1e-12, |_| 1e-9), None, "CPU");
        let Some(ctx) = context() else { continue };
        let got = both.on_gpu(ctx, &["logits"]).unwrap();
        assert_eq!(mismatch(&got.loss, &want, 2e-6, |_| 2e-7), None, "GPU");
        let (got, want) = (&got.grads["logits"], &out.grads["logits"]);
        let allowed = 2e-6 * largest(want);
        assert_eq!(mismatch(got, want, 1e-6, |_| allowed), None, "GPU");
    }
}

#[test]
fn diagonals_are_passed_in_segments_and_large_lattices_in_storage() {
    let Some(_) = context() else { return };
    // 1,100 positions of labels exceed 16 KiB; with 40 frames, software drivers stop at some 350 diagonals.
    let labels: Vec<i32> = (0..1100).map(|k| k % 2).collect();
    let ctx = Context::with_limits(wgpu::Limits::default()).unwrap();
    let batch = Batch::random(40, 3, &[&labels], &[40], 1.0);
    let both = batch.on_both(fused::rnnt());
    let bound = both.bound::<f32>(&ctx, &["logits"], |x| x).unwrap();
    assert!(bound.explain().contains("in the workspace"), "{}", bound.explain());
    let out = both.on_cpu(&["logits"]).unwrap();
    assert_eq!(mismatch(&[f64::from(bound.read_loss().unwrap())], &out.loss, 2e-6, |_| 0.0), None);
    let got: Vec<f32> = bound.read(bound.grad("logits").unwrap()).unwrap();
    let got: Vec<f64> = got.into_iter().map(f64::from).collect();
    let want = &out.grads["logits"];
    let allowed = 2e-6 * largest(want);
    assert_eq!(mismatch(&got, want, 1e-6, |_| allowed), None);
}

fn check_stored<T: Element>(ctx: &Context, narrow: fn(f32) -> T, widen: fn(T) -> f64, half_step: f64) {
    for classes in [5, 8, 130] {
        let mut batch = Batch::random(4, classes, &[&[1, 1, 0], &[2]], &[4, 3], 1.0);
        batch.x.iter_mut().for_each(|x| *x = widen(narrow(*x as f32)));
        let both = batch.on_both(fused::rnnt().reduction(Reduction::Sum));
        let want = both.on_cpu(&["logits"]).unwrap();
        let got = both.on_gpu_stored(ctx, &["logits"], narrow, widen).unwrap();
        let (got, want) = (&got.grads["logits"], &want.grads["logits"]);
        let allowed = 2e-6 * largest(want) + 6e-8;
        assert_eq!(mismatch(got, want, 1e-6 + half_step, |_| allowed), None, "{classes} classes");
    }
}

#[test]
fn gradients_are_rounded_once_to_the_type_that_they_are_stored_in() {
    let Some(ctx) = context() else { return };
    check_stored::<f16>(ctx, f16::from_f32, f64::from, 1.0 / 2048.0);
    check_stored::<bf16>(ctx, bf16::from_f32, f64::from, 1.0 / 256.0);
}

#[test]
fn a_nan_poisons_the_sequence_that_meets_it() {
    let clean = small();
    // Met; past the labels; past the frames; the blank of a last frame before its last label.
    let blank_of = |t: usize, u: usize| clean.at(0, t, u) + 3;
    let places = [
        (blank_of(1, 1), 0, true),
        (clean.at(2, 0, 2), 2, false),
        (clean.at(1, 3, 0), 1, false),
        (blank_of(3, 1), 0, false),
    ];
    for (place, n, is_poisoned) in places {
        let mut batch = clean.clone();
        batch.x[place] = f64::NAN;
        // Of log-probabilities one class is met, of logits a whole row.
        let both = batch.on_both(fused::rnnt().fused_log_softmax(false).reduction(Reduction::None));
        for (path, out) in outcomes(&both) {
            for (k, loss) in out.loss.iter().enumerate() {
                assert_eq!(loss.is_nan(), is_poisoned && k == n, "{path} at {place}: {:?}", out.loss);
            }
            let per = out.grads["logits"].len() / 4;
            let own = &out.grads["logits"][n * per..(n + 1) * per];
            assert_eq!(own.iter().any(|g| g.is_nan()), is_poisoned, "{path} at {place}");
        }
    }
    let mut batch = clean.clone();
    batch.x[clean.at(3, 0, 1)] = f64::INFINITY;
    for (path, out) in outcomes(&batch.on_both(fused::rnnt().reduction(Reduction::None))) {
        let nan: Vec<bool> = out.loss.iter().map(|loss| loss.is_nan()).collect();
        assert_eq!(nan, [false, false, false, true], "{path}");
    }
}

#[test]
fn without_frames_or_probability_losses_are_infinite() {
    let mut batch = small();
    batch.lengths[1] = 0;
    (0..4).for_each(|u| (0..4).for_each(|t| batch.x[small().at(3, t, u) + 2] = f64::NEG_INFINITY));
    for (path, out) in outcomes(&batch.on_both(fused::rnnt().reduction(Reduction::None))) {
        assert!(out.loss[1] == f64::INFINITY && out.loss[3] == f64::INFINITY, "{path}: {:?}", out.loss);
        assert!(out.loss[0].is_finite() && out.loss[2].is_finite(), "{path}: {:?}", out.loss);
        assert!(out.grads["logits"][small().at(3, 0, 0)].is_nan(), "{path}");
        assert_eq!(out.grads["logits"][small().at(1, 0, 0)], 0.0, "{path}");
    }
}

#[test]
fn hostile_lengths_and_labels_poison_their_sequence_and_are_told() {
    let Some(ctx) = context() else { return };
    for (input, at, room) in [(1, 1, 4), (2, 0, 4), (3, 0, 3)] {
        for hostile in [i32::MAX, i32::MIN, -1, 100] {
            let mut both = small().on_both(fused::rnnt().reduction(Reduction::None));
            let Data::Indices(indices) = &mut both.inputs[input].2 else { panic!("an input of indices") };
            indices[at] = hostile;
            let bound = both.bound::<f32>(ctx, &["logits"], |x| x).unwrap();
            let on_cpu = both.on_cpu(&["logits"]).unwrap_err();
            let told = bound.read_loss().unwrap_err();
            assert_eq!(told, on_cpu);
            match told {
                Error::LabelOutOfRange { row: 0, label, classes: 4 } => assert_eq!(label, i64::from(hostile)),
                Error::LengthOutOfRange { row: 0, value, most, .. } => {
                    assert_eq!((value, most), (Some(hostile.into()), room));
                }
                other => panic!("{other}"),
            }
            let losses: Vec<f32> = bound.read(bound.loss().unwrap()).unwrap();
            assert_eq!(losses.iter().map(|l| l.is_nan()).collect::<Vec<_>>(), [true, false, false, false]);
            let grads: Vec<f32> = bound.read(bound.grad("logits").unwrap()).unwrap();
            assert!(grads[64..].iter().all(|g| g.is_finite()) && grads[0].is_nan());
        }
    }
}

#[test]
fn inputs_that_do_not_go_together_are_refused() {
    let of = |operator: Rnnt, other: (usize, &[usize])| {
        let shapes: [(&str, DType, &[usize]); 4] = [
            ("logits", DType::F32, &[2, 4, 4, 5]),
            ("targets", DType::I32, &[2, 3]),
            ("logit_lengths", DType::I32, &[2]),
            ("target_lengths", DType::I32, &[2]),
        ];
        let spec = shapes.into_iter().enumerate().fold(PlanSpec::new(), |spec, (k, (name, dtype, shape))| {
            spec.input(name, dtype, if k == other.0 { other.1 } else { shape })
        });
        operator.prepare(&spec, &Limits::WEBGPU).err()
    };
    assert!(of(fused::rnnt(), (9, &[])).is_none());
    for other in
        [(0, &[2, 4, 4][..]), (0, &[2, 4, 0, 5]), (0, &[2, 4, 4, 0]), (1, &[2, 4]), (1, &[6]), (2, &[3]), (3, &[])]
    {
        assert!(matches!(of(fused::rnnt(), other), Some(Error::Shape { .. })), "{other:?}");
    }
    for blank in [5, -6] {
        let error = of(fused::rnnt().blank(blank), (9, &[]));
        assert!(matches!(error, Some(Error::Param { ref param, .. }) if param == "blank"), "{error:?}");
    }
    assert!(matches!(of(fused::rnnt().clamp(f64::NAN), (9, &[])), Some(Error::Param { .. })));
    let by = fused::rnnt().reduction(Reduction::MeanWithSampleWeight);
    assert!(matches!(of(by, (9, &[])), Some(Error::Unsupported { .. })));
}
