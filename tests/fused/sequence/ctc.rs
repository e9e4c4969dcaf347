//! CTC by enumeration of all paths, by central differences, and by the recursions at lengths that matter.

use super::oracle::{CtcBatch, differences};
use crate::common::compare::{largest, mismatch};
use crate::common::context;
use crate::common::sequence::{Data, OnBoth, Sequence};
use wgloss::fused::{self, Ctc};
use wgloss::{Bindings, Context, DType, PlanSpec, Reduction, Tensor, TuneOptions};

fn ctc(logits: bool) -> (Ctc, &'static str) {
    if logits { (fused::ctc().from_logits(), "logits") } else { (fused::ctc(), "log_probs") }
}

/// Repeats, no labels, one label, a label per frame, more labels and blanks than frames.
fn small() -> CtcBatch {
    let labels: [&[i32]; 6] = [&[1, 1], &[], &[2], &[1, 2, 1, 2, 1], &[2, 2, 1], &[2, 1, 2]];
    CtcBatch::random(5, 3, &labels, &[5, 4, 3, 5, 5, 4], 0.5)
}

#[test]
fn losses_are_those_of_all_paths() {
    let batch = small();
    for logits in [false, true] {
        let (operator, name) = ctc(logits);
        let both = batch.on_both(Sequence::Ctc(operator.reduction(Reduction::None)), name);
        let want: Vec<f64> = (0..batch.sequences()).map(|n| batch.enumerated(n, logits)).collect();
        assert_eq!(mismatch(&both.on_cpu(&[]).unwrap().loss, &want, 1e-12, |_| 1e-12), None, "CPU, {name}");
        let Some(ctx) = context() else { continue };
        assert_eq!(mismatch(&both.on_gpu(ctx, &[]).unwrap().loss, &want, 1e-6, |_| 2e-7), None, "GPU, {name}");
        assert_eq!(mismatch(&both.on_gpu(ctx, &[name]).unwrap().loss, &want, 1e-6, |_| 2e-7), None, "GPU, {name}");
    }
}

#[test]
fn gradients_are_differences_of_all_paths() {
    let batch = small();
    let lengths: Vec<f64> = batch.labels.iter().map(|labels| labels.len().max(1) as f64).collect();
    for logits in [false, true] {
        for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean, Reduction::BatchMean] {
            let (operator, name) = ctc(logits);
            let both = batch.on_both(Sequence::Ctc(operator.reduction(reduction.clone())), name);
            let weight = |n: usize| match reduction {
                Reduction::Mean => 1.0 / (6.0 * lengths[n]),
                Reduction::BatchMean => 1.0 / 6.0,
                _ => 1.0,
            };
            let loss = |x: &[f64]| {
                let moved = CtcBatch { x: x.to_vec(), ..batch.clone() };
                (0..6).map(|n| moved.enumerated(n, logits) * weight(n)).sum::<f64>()
            };
            let mut want = differences(&batch.x, loss);
            // PyTorch's gradient is as if the log-probabilities came from logits.
            for (k, want) in want.iter_mut().enumerate().filter(|_| !logits) {
                let (n, t) = (k / batch.classes % 6, k / batch.classes / 6);
                *want += if t < batch.lengths[n] as usize { batch.x[k].exp() * weight(n) } else { 0.0 };
            }
            let out = both.on_cpu(&[name]).unwrap();
            assert_eq!(mismatch(&out.grads[name], &want, 1e-8, |_| 1e-8), None, "CPU, {name}, {reduction:?}");
            if reduction != Reduction::None {
                assert_eq!(mismatch(&out.loss, &[loss(&batch.x)], 1e-12, |_| 1e-12), None);
            }
            let Some(ctx) = context() else { continue };
            let got = both.on_gpu(ctx, &[name]).unwrap();
            let allowed = 1e-6 * largest(&want);
            assert_eq!(mismatch(&got.grads[name], &want, 1e-6, |_| allowed), None, "GPU, {name}, {reduction:?}");
            assert_eq!(mismatch(&got.loss, &out.loss, 1e-6, |_| 1e-7), None, "GPU, {reduction:?}");
        }
    }
}

/// `count` labels of few classes: some repeat.
fn labels(count: usize, classes: usize, seed: usize) -> Vec<i32> {
    (0..count).map(|k| 1 + ((k / 2 * 7 + k * seed) % (classes - 1)) as i32).collect()
}

/// Both paths against the recursions; which losses are infinite.
fn check_long(ctx: Option<&Context>, batch: &CtcBatch, logits: bool) -> Vec<bool> {
    let (operator, name) = ctc(logits);
    let both = batch.on_both(Sequence::Ctc(operator.reduction(Reduction::None).zero_infinity(true)), name);
    let (losses, grad) = batch.expected(logits, &vec![1.0; batch.sequences()]);
    let impossible: Vec<bool> = losses.iter().map(|loss| *loss == f64::INFINITY).collect();
    let want: Vec<f64> = losses.iter().map(|loss| if loss.is_finite() { *loss } else { 0.0 }).collect();
    let row = |k: usize| k / batch.classes % batch.sequences();
    let grad: Vec<f64> = grad.iter().enumerate().map(|(k, g)| if impossible[row(k)] { 0.0 } else { *g }).collect();
    let out = both.on_cpu(&[name]).unwrap();
    assert_eq!(mismatch(&out.loss, &want, 1e-12, |_| 1e-10), None, "CPU, {name}");
    assert_eq!(mismatch(&out.grads[name], &grad, 1e-9, |_| 1e-9), None, "CPU, {name}");
    let Some(ctx) = ctx else { return impossible };
    let got = both.on_gpu(ctx, &[name]).unwrap();
    assert_eq!(mismatch(&got.loss, &want, 2e-6, |_| 2e-7), None, "GPU, {name}");
    let worst = got.grads[name].iter().zip(&grad).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max);
    assert!(worst <= 2e-6 * largest(&grad), "GPU, {name}: {worst:e}");
    impossible
}

#[test]
fn three_hundred_frames_and_sixty_labels_keep_their_digits() {
    let all: Vec<Vec<i32>> = vec![labels(60, 9, 3), labels(60, 9, 0), vec![3; 60], labels(17, 9, 1), vec![4; 60]];
    let all: Vec<&[i32]> = all.iter().map(Vec::as_slice).collect();
    // Of equal labels each needs a blank before it: 119 frames are just enough for the third, 118 too few for the last.
    let lengths = [300, 299, 119, 300, 118];
    for (scale, logits) in [(1.0, true), (6.0, true), (0.5, false)] {
        let batch = CtcBatch::random(300, 9, &all, &lengths, scale);
        let impossible = check_long(context(), &batch, logits);
        assert_eq!(impossible, [false, false, false, false, true], "{scale}");
    }
}

#[test]
fn an_alignment_that_each_frame_is_against_is_found() {
    // What frames say is e⁻⁶⁰ per label likely: its alignments are less than any f32 from the second label on.
    let (frames, classes) = (60, 5);
    let labels = labels(30, classes, 1);
    let mut batch = CtcBatch::random(frames, classes, &[&labels], &[frames as i32], 0.2);
    let in_f32 = |x: f64, offset: f32| f64::from(x as f32 + offset);
    batch.x.iter_mut().enumerate().for_each(|(k, x)| *x = in_f32(*x, if k % classes == 0 { 60.0 } else { 0.0 }));
    assert_eq!(check_long(context(), &batch, true), [false]);
    // Common offsets of logits say nothing.
    batch.x.iter_mut().for_each(|x| *x = in_f32(*x, 1e4));
    assert_eq!(check_long(context(), &batch, true), [false]);
}

#[test]
fn more_states_than_workgroup_memory_holds_are_carried_in_storage() {
    let Some(_) = context() else { return };
    let limits = wgpu::Limits { max_compute_workgroup_storage_size: 16384, ..wgpu::Limits::default() };
    let ctx = Context::with_limits(limits).unwrap();
    // 511 labels: the last whose 1023 states of two frames fit into 16 KiB less what else is there; then in storage.
    for (count, frames) in [(509, 560), (513, 560)] {
        let labels = labels(count, 4, 1);
        let batch = CtcBatch::random(frames, 4, &[&labels], &[frames as i32], 1.0);
        let both = batch.on_both(Sequence::Ctc(fused::ctc().from_logits()), "logits");
        let bound = both.bound::<f32>(&ctx, &["logits"], |x| x).unwrap();
        let memory = if count == 509 { "in workgroup memory" } else { "in the workspace" };
        assert!(bound.explain().contains(memory), "{}", bound.explain());
        check_long(Some(&ctx), &batch, true);
    }
}

#[test]
fn no_frames_no_labels_and_no_sequences_are_taken() {
    let Some(ctx) = context() else { return };
    // Without frames nothing but no labels can be aligned, and is certain.
    let mut batch = CtcBatch::random(0, 3, &[&[], &[1]], &[0, 0], 1.0);
    let operator = |reduction: Reduction| Sequence::Ctc(fused::ctc().reduction(reduction));
    let both = batch.on_both(operator(Reduction::None), "log_probs");
    for out in [both.on_cpu(&["log_probs"]).unwrap(), both.on_gpu(ctx, &["log_probs"]).unwrap()] {
        assert_eq!((out.loss, out.grads["log_probs"].len()), (vec![0.0, f64::INFINITY], 0));
    }
    // A length of 0 among others.
    batch = CtcBatch::random(3, 3, &[&[], &[1]], &[0, 3], 1.0);
    let both = batch.on_both(operator(Reduction::None), "log_probs");
    let want = batch.enumerated(1, false);
    for out in [both.on_cpu(&["log_probs"]).unwrap(), both.on_gpu(ctx, &["log_probs"]).unwrap()] {
        assert!(out.loss[0] == 0.0 && (out.loss[1] - want).abs() < 1e-6, "{:?}", out.loss);
        let first = (0..9).filter(|k| k / 3 % 2 == 0).map(|k| out.grads["log_probs"][k]);
        assert!(first.into_iter().take(3).all(|g| g == 0.0));
    }
    // Of no sequences the sum is 0, the mean NaN.
    batch = CtcBatch::random(3, 3, &[], &[], 1.0);
    for (reduction, is_nan) in [(Reduction::Sum, false), (Reduction::Mean, true)] {
        let both = batch.on_both(operator(reduction), "log_probs");
        for out in [both.on_cpu(&[]).unwrap(), both.on_gpu(ctx, &[]).unwrap()] {
            assert!(if is_nan { out.loss[0].is_nan() } else { out.loss == [0.0] }, "{:?}", out.loss);
        }
    }
}

#[test]
fn a_nan_poisons_the_sequence_that_looks_at_it() {
    let clean = CtcBatch::random(5, 4, &[&[1, 2], &[3, 3], &[1]], &[5, 5, 3], 0.5);
    let at = |n: usize, t: usize, c: usize| (t * 3 + n) * 4 + c;
    for bad in [f64::NAN, f64::INFINITY] {
        // On the lattice; beside it; past the length; a label that no beginning comes to in the first frame.
        for (place, is_poisoned) in
            [(at(0, 2, 1), true), (at(0, 2, 3), false), (at(2, 3, 1), false), (at(0, 0, 2), false)]
        {
            let mut batch = clean.clone();
            batch.x[place] = bad;
            let both = batch.on_both(Sequence::Ctc(fused::ctc().reduction(Reduction::None)), "log_probs");
            let mut all = vec![both.on_cpu(&["log_probs"]).unwrap()];
            all.extend(context().map(|ctx| both.on_gpu(ctx, &["log_probs"]).unwrap()));
            for out in all {
                assert_eq!(out.loss[place / 4 % 3].is_nan(), is_poisoned, "{bad} at {place}: {:?}", out.loss);
                let others = (0..3).filter(|n| *n != place / 4 % 3).all(|n| out.loss[n].is_finite());
                assert!(others, "{bad} at {place}: {:?}", out.loss);
                for (k, g) in out.grads["log_probs"].iter().enumerate() {
                    let (n, t) = (k / 4 % 3, k / 12);
                    let own = is_poisoned && n == place / 4 % 3 && t < clean.lengths[n] as usize;
                    // An element beside the lattice has the gradient e^x.
                    let beside = k == place && t < clean.lengths[n] as usize;
                    assert_eq!(!g.is_finite(), own || beside, "{bad} at {place}: [{k}] is {g}");
                }
            }
        }
        // Of logits, any of a row.
        let mut batch = clean.clone();
        batch.x[at(0, 2, 3)] = bad;
        let both = batch.on_both(Sequence::Ctc(fused::ctc().from_logits().reduction(Reduction::None)), "logits");
        let mut all = vec![both.on_cpu(&["logits"]).unwrap()];
        all.extend(context().map(|ctx| both.on_gpu(ctx, &["logits"]).unwrap()));
        for out in all {
            assert_eq!(out.loss.iter().map(|loss| loss.is_nan()).collect::<Vec<_>>(), [true, false, false]);
            assert!(out.grads["logits"][at(0, 4, 0)].is_nan() && out.grads["logits"][at(1, 4, 0)].is_finite());
        }
    }
}

#[test]
fn probability_zero_is_no_mistake() {
    let mut batch = CtcBatch::random(4, 3, &[&[1], &[2]], &[4, 4], 0.5);
    // No blank in the first sequence; label 2 nowhere in the second.
    for t in 0..4 {
        batch.x[t * 6] = f64::NEG_INFINITY;
        batch.x[t * 6 + 5] = f64::NEG_INFINITY;
    }
    let both = batch.on_both(Sequence::Ctc(fused::ctc().from_logits().reduction(Reduction::None)), "logits");
    let (losses, grad) = batch.expected(true, &[1.0, 1.0]);
    assert_eq!(losses[1], f64::INFINITY);
    let mut all = vec![both.on_cpu(&["logits"]).unwrap()];
    all.extend(context().map(|ctx| both.on_gpu(ctx, &["logits"]).unwrap()));
    for out in all {
        assert!((out.loss[0] - losses[0]).abs() < 1e-6 && out.loss[1] == f64::INFINITY, "{:?}", out.loss);
        for (k, g) in out.grads["logits"].iter().enumerate() {
            let is_first = k / 3 % 2 == 0;
            assert!(if is_first { (g - grad[k]).abs() < 1e-6 } else { g.is_nan() }, "[{k}] {g}, want {}", grad[k]);
        }
    }
}

fn optax(batch: &CtcBatch, padded: &[(usize, usize)]) -> OnBoth {
    let (n, frames, classes) = (batch.sequences(), batch.frames, batch.classes);
    let most = batch.labels.iter().map(Vec::len).max().unwrap();
    let mut x = vec![0.0; batch.x.len()];
    let mut paddings = vec![0.0; n * frames];
    let (mut labels, mut label_paddings) = (vec![-1; n * most], vec![1.0; n * most]);
    for row in 0..n {
        for t in 0..frames {
            let from = (t * n + row) * classes;
            let to = (row * frames + t) * classes;
            (0..classes).for_each(|c| x[to + c] = batch.x[from + c] as f32);
            paddings[row * frames + t] = f32::from(u8::from(t >= batch.lengths[row] as usize));
        }
        for (k, label) in batch.labels[row].iter().enumerate() {
            (labels[row * most + k], label_paddings[row * most + k]) = (*label, 0.0);
        }
    }
    padded.iter().for_each(|(row, t)| paddings[row * frames + t] = 1.0);
    let inputs = vec![
        ("logits", vec![n, frames, classes], Data::Numbers(x)),
        ("logit_paddings", vec![n, frames], Data::Numbers(paddings)),
        ("labels", vec![n, most], Data::Indices(labels)),
        ("label_paddings", vec![n, most], Data::Numbers(label_paddings)),
    ];
    OnBoth { operator: Sequence::OptaxCtc(fused::optax_ctc().reduction(Reduction::None)), inputs }
}

#[test]
fn paddings_leave_frames_out_wherever_they_are() {
    let batch = CtcBatch::random(6, 3, &[&[1, 1], &[2, 1]], &[6, 5], 0.5);
    // The same without the frames in between.
    let mut left = batch.clone();
    left.lengths = vec![4, 5];
    for (t, from) in [0, 2, 4, 5].into_iter().enumerate() {
        (0..3).for_each(|c| left.x[t * 6 + c] = batch.x[from * 6 + c]);
    }
    let want: Vec<f64> = (0..2).map(|n| left.enumerated(n, true)).collect();
    let (_, grad) = left.expected(true, &[1.0, 1.0]);
    let both = optax(&batch, &[(0, 1), (0, 3)]);
    let mut all = vec![both.on_cpu(&["logits"]).unwrap()];
    all.extend(context().map(|ctx| both.on_gpu(ctx, &["logits"]).unwrap()));
    for out in all {
        assert_eq!(mismatch(&out.loss, &want, 1e-6, |_| 1e-7), None);
        let of = |t: usize| &out.grads["logits"][3 * t..3 * t + 3];
        for (t, from) in [0, 2, 4, 5].into_iter().enumerate() {
            assert_eq!(mismatch(of(from), &grad[t * 6..t * 6 + 3], 1e-6, |_| 1e-6), None);
        }
        assert_eq!((of(1), of(3)), (&[0.0; 3][..], &[0.0; 3][..]));
    }
}

#[test]
fn without_alignments_optax_counts_what_breaks_the_rules() {
    // Two frames for three labels, and one frame for a label twice: losses and gradients of optax 0.2.8 in f64.
    let mut batch = CtcBatch::random(2, 3, &[&[1, 2, 1], &[1, 1]], &[2, 1], 0.0);
    batch.x = vec![0.0, 0.5, -0.25, 0.5, -0.5, 0.0, 0.25, 0.0, 0.75, 0.0, 0.0, 0.0];
    let want = [99999.81216469, 99999.6738608];
    let first = [0.04078646, -0.13964388, 0.09885742, -0.19825824, -0.28276602, 0.48102426];
    let second = [-0.22457819, -0.0826177, 0.30719589, 0.0, 0.0, 0.0];
    let both = optax(&batch, &[]);
    let out = both.on_cpu(&["logits"]).unwrap();
    assert_eq!(mismatch(&out.loss, &want, 1e-12, |_| 1e-8), None, "CPU");
    assert_eq!(mismatch(&out.grads["logits"], &[first, second].concat(), 0.0, |_| 1e-8), None, "CPU");
    let Some(ctx) = context() else { return };
    let out = both.on_gpu(ctx, &["logits"]).unwrap();
    assert_eq!(mismatch(&out.loss, &want, 1e-7, |_| 0.0), None, "GPU");
    assert_eq!(mismatch(&out.grads["logits"], &[first, second].concat(), 1e-6, |_| 1e-6), None, "GPU");
}

#[test]
fn same_bits_each_time_and_fewer_of_everything_than_planned() {
    let Some(ctx) = context() else { return };
    let batch = CtcBatch::random(20, 7, &[&[1, 2, 2], &[3], &[6, 6, 6]], &[20, 10, 15], 1.0);
    let both = batch.on_both(Sequence::Ctc(fused::ctc().from_logits()), "logits");
    let first = both.on_gpu(ctx, &["logits"]).unwrap();
    let again = both.on_gpu(ctx, &["logits"]).unwrap();
    assert_eq!((&first.loss, &first.grads), (&again.loss, &again.grads));
    let spec = PlanSpec::new()
        .input("logits", DType::F32, &[50, 8, 7])
        .input("targets", DType::I32, &[8, 9])
        .input("input_lengths", DType::I32, &[8])
        .input("target_lengths", DType::I32, &[8])
        .grad("logits");
    let plan = ctx.plan(&fused::ctc().from_logits(), &spec).unwrap().tune(&TuneOptions::new()).unwrap();
    let tensors = both.tensors(ctx);
    let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    assert!((f64::from(bound.read_loss().unwrap()) - first.loss[0]).abs() <= 1e-6 * first.loss[0]);
    assert_eq!(bound.grad("logits").unwrap().shape(), [20, 3, 7]);
}
