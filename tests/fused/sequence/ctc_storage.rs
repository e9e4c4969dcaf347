//! How classes and gradients are stored: 16-bit types whose rows share words, views, in place, added to, in windows.

use super::oracle::CtcBatch;
use crate::common::compare::{largest, mismatch};
use crate::common::context;
use crate::common::sequence::Sequence;
use half::{bf16, f16};
use wgloss::{Bindings, Context, DType, Element, GradMode, Layout, PlanSpec, Reduction, Tensor, fused};

/// Repeats and several lengths.
fn batch(classes: usize) -> CtcBatch {
    CtcBatch::random(11, classes, &[&[1, 2, 2], &[3], &[], &[4, 4, 1]], &[11, 10, 4, 9], 1.0)
}

/// The same with classes that `narrow` keeps.
fn narrowed<T: Element>(classes: usize, narrow: fn(f32) -> T, widen: fn(T) -> f64) -> CtcBatch {
    let mut batch = batch(classes);
    batch.x.iter_mut().for_each(|x| *x = widen(narrow(*x as f32)));
    batch
}

fn check_stored<T: Element>(ctx: &Context, narrow: fn(f32) -> T, widen: fn(T) -> f64, half_step: f64) {
    // 5 and 7: rows begin anywhere in a word; 6: at one; 8: at a vector; 64 and 257: several lanes.
    for classes in [5, 6, 7, 8, 64, 257] {
        let batch = narrowed(classes, narrow, widen);
        for (logits, name) in [(true, "logits"), (false, "log_probs")] {
            let operator = if logits { fused::ctc().from_logits() } else { fused::ctc() };
            let both = batch.on_both(Sequence::Ctc(operator.reduction(Reduction::None)), name);
            let got = both.on_gpu_stored(ctx, &[name], narrow, widen).unwrap();
            let (losses, grad) = batch.expected(logits, &[1.0; 4]);
            assert_eq!(mismatch(&got.loss, &losses, 2e-6, |_| 2e-7), None, "{classes} classes");
            let allowed = 2e-6 * largest(&grad) + 6e-8;
            assert_eq!(mismatch(&got.grads[name], &grad, 1e-6 + half_step, |_| allowed), None, "{classes} classes");
        }
    }
}

#[test]
fn gradients_are_rounded_once_to_the_type_that_they_are_stored_in() {
    let Some(ctx) = context() else { return };
    check_stored::<f32>(ctx, |x| x, f64::from, 0.0);
    check_stored::<f16>(ctx, f16::from_f32, f64::from, 1.0 / 2048.0);
    check_stored::<bf16>(ctx, bf16::from_f32, f64::from, 1.0 / 256.0);
}

#[test]
fn gradients_take_the_place_of_classes_or_are_added_to_what_is_there() {
    let Some(ctx) = context() else { return };
    for classes in [7, 8] {
        let batch = narrowed(classes, bf16::from_f32, f64::from);
        let (_, grad) = batch.expected(true, &[0.25; 4]);
        let both = batch.on_both(Sequence::Ctc(fused::ctc().from_logits().reduction(Reduction::BatchMean)), "logits");
        for (dtype, mode) in [
            (DType::F32, GradMode::InPlace),
            (DType::BF16, GradMode::InPlace),
            (DType::F32, GradMode::Accumulate),
            (DType::BF16, GradMode::Accumulate),
        ] {
            let shape = [11, 4, classes];
            let stored = |values: &[f32]| match dtype {
                DType::F32 => Tensor::from_slice(ctx, values, &shape).unwrap(),
                _ => {
                    let narrow: Vec<bf16> = values.iter().map(|x| bf16::from_f32(*x)).collect();
                    Tensor::from_slice(ctx, &narrow, &shape).unwrap()
                }
            };
            let x: Vec<f32> = batch.x.iter().map(|x| *x as f32).collect();
            let (x, d_x) = (stored(&x), stored(&vec![0.5; x.len()]));
            let rest = both.tensors(ctx).split_off(1);
            let mut inputs = vec![("logits", &x)];
            inputs.extend(rest.iter().map(|(name, tensor)| (*name, tensor)));
            let plan = ctx.plan(both.operator.as_operator(), &PlanSpec::new().like(&inputs).grad_mode("logits", mode));
            let mut bindings = Bindings::new().inputs(&inputs);
            if mode == GradMode::Accumulate {
                bindings = bindings.grad("logits", &d_x);
            }
            let bound = plan.unwrap().bind(&bindings).unwrap();
            bound.submit().unwrap();
            let written = if mode == GradMode::Accumulate { &d_x } else { &x };
            let got: Vec<f64> = match dtype {
                DType::F32 => written.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
                _ => written.to_vec::<bf16>().unwrap().into_iter().map(f64::from).collect(),
            };
            let base = if mode == GradMode::Accumulate { 0.5 } else { 0.0 };
            let want: Vec<f64> = grad.iter().map(|g| g + base).collect();
            let step = if dtype == DType::F32 { 0.0 } else { 1.0 / 256.0 };
            assert_eq!(mismatch(&got, &want, 1e-6 + step, |_| 2e-6), None, "{classes} classes, {dtype} {mode:?}");
        }
    }
}

#[test]
fn a_gradient_may_have_another_type_than_its_classes() {
    let Some(ctx) = context() else { return };
    for classes in [7, 8] {
        let batch = narrowed(classes, f16::from_f32, f64::from);
        let (_, want) = batch.expected(true, &[1.0; 4]);
        let both = batch.on_both(Sequence::Ctc(fused::ctc().from_logits().reduction(Reduction::Sum)), "logits");
        let rest = both.tensors(ctx).split_off(1);
        let x: Vec<f16> = batch.x.iter().map(|x| f16::from_f64(*x)).collect();
        let logits = Tensor::from_slice(ctx, &x, &[11, 4, classes]).unwrap();
        let mut inputs = vec![("logits", &logits)];
        inputs.extend(rest.iter().map(|(name, tensor)| (*name, tensor)));
        let spec = PlanSpec::new().like(&inputs).grad("logits").grad_dtype("logits", DType::F32);
        let plan = ctx.plan(both.operator.as_operator(), &spec).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        let got: Vec<f32> = bound.read(bound.grad("logits").unwrap()).unwrap();
        let got: Vec<f64> = got.into_iter().map(f64::from).collect();
        assert_eq!(mismatch(&got, &want, 1e-6, |_| 2e-6), None, "{classes} classes");
    }
}

#[test]
fn views_of_other_orders_are_taken() {
    let Some(ctx) = context() else { return };
    let batch = batch(6);
    let both = batch.on_both(Sequence::Ctc(fused::ctc().from_logits()), "logits");
    let want = both.on_cpu(&["logits"]).unwrap();
    // Sequences outermost, and classes outermost, from the third element on.
    for (n, t, c) in [(66, 6, 1), (1, 4, 44)] {
        let mut x = vec![0.0f32; 3 + 264];
        for (k, value) in batch.x.iter().enumerate() {
            x[3 + k / 24 * t + k / 6 % 4 * n + k % 6 * c] = *value as f32;
        }
        let buffer = Tensor::from_slice(ctx, &x, &[x.len()]).unwrap();
        let layout = Layout { shape: vec![11, 4, 6], strides: vec![t, n, c] };
        let logits = Tensor::from_buffer_strided(ctx, buffer.buffer().clone(), 3, DType::F32, layout).unwrap();
        let rest = both.tensors(ctx).split_off(1);
        let mut inputs = vec![("logits", &logits)];
        inputs.extend(rest.iter().map(|(name, tensor)| (*name, tensor)));
        let plan = ctx.plan(both.operator.as_operator(), &PlanSpec::new().like(&inputs).grad("logits")).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        let got: Vec<f32> = bound.read(bound.grad("logits").unwrap()).unwrap();
        let got: Vec<f64> = got.into_iter().map(f64::from).collect();
        assert_eq!(mismatch(&got, &want.grads["logits"], 1e-6, |_| 1e-6), None, "strides {t}, {n}, {c}");
    }
}

#[test]
fn classes_larger_than_a_binding_are_read_in_windows() {
    let Some(_) = context() else { return };
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 14, ..wgpu::Limits::default() };
    let ctx = Context::with_limits(limits).unwrap();
    // 11 frames of 4 sequences: bindings of 16 KiB hold 4 frames of 256 classes, 3 of 257.
    for (classes, dispatches) in [(256, 9), (257, 11)] {
        let batch = batch(classes);
        let both = batch.on_both(Sequence::Ctc(fused::ctc().from_logits()), "logits");
        let bound = both.bound::<f32>(&ctx, &["logits"], |x| x).unwrap();
        assert!(bound.explain().contains(&format!("{dispatches} dispatches")), "{}", bound.explain());
        let want = both.on_cpu(&["logits"]).unwrap();
        let got: Vec<f32> = bound.read(bound.grad("logits").unwrap()).unwrap();
        let got: Vec<f64> = got.into_iter().map(f64::from).collect();
        assert_eq!(mismatch(&got, &want.grads["logits"], 1e-6, |_| 1e-6), None, "{classes} classes");
    }
    // Long targets: lattices of some sequences at a time.
    let labels: Vec<i32> = (0..40).map(|k| 1 + k % 3).collect();
    let batch = CtcBatch::random(44, 4, &[&labels, &labels[..7], &labels[1..], &[], &[3, 3]], &[44; 5], 1.0);
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 17, ..wgpu::Limits::default() };
    let ctx = Context::with_limits(limits).unwrap();
    let both = batch.on_both(Sequence::Ctc(fused::ctc().from_logits()), "logits");
    let bound = both.bound::<f32>(&ctx, &["logits"], |x| x).unwrap();
    assert!(bound.explain().contains("5 chunks of at most 1 sequences"), "{}", bound.explain());
    let want = both.on_cpu(&["logits"]).unwrap();
    let got: Vec<f32> = bound.read(bound.grad("logits").unwrap()).unwrap();
    let got: Vec<f64> = got.into_iter().map(f64::from).collect();
    assert_eq!(mismatch(&got, &want.grads["logits"], 1e-6, |_| 1e-6), None);
    assert!((f64::from(bound.read_loss().unwrap()) - want.loss[0]).abs() <= 2e-6 * want.loss[0]);
}
