//! Lovász softmax: every step by loops in f64 over what the step before left, and what it refuses.

use crate::common::compare::{assert_close, largest, mismatch, random};
use crate::common::{context, is_in_share, read};
use wgloss::fused::{self, LovaszSoftmax};
use wgloss::{Bindings, DType, Error, GradMode, HostTensor, PlanSpec, Reduction, Tensor, Upstream, Wanted};

/// The loss of a class and its gradient for the errors, which are sorted as f32, equal ones by their place.
fn of_class(errors: &[f32], truth: &[bool]) -> (f64, Vec<f64>) {
    let mut order: Vec<u32> = (0..errors.len() as u32).collect();
    // Errors are not below 0, so that their bits are in their order.
    order.sort_by_key(|k| std::cmp::Reverse(errors[*k as usize].to_bits()));
    let region = truth.iter().filter(|truth| **truth).count() as f64;
    let (mut loss, mut by_error, mut inside, mut before) = (0.0, vec![0.0; errors.len()], 0.0, 0.0);
    for (rank, k) in order.into_iter().enumerate() {
        let k = k as usize;
        inside += f64::from(u8::from(truth[k]));
        let jaccard = 1.0 - (region - inside) / (region + (rank as f64 + 1.0 - inside));
        by_error[k] = jaccard - before;
        loss += f64::from(errors[k]) * by_error[k];
        before = jaccard;
    }
    (loss, by_error)
}

/// Sizes of a problem: images, classes, voxels.
type Sizes = [usize; 3];

/// Of probabilities `[image][class][voxel]`, as they are stored: the loss, and its gradient for them.
fn of_probabilities(
    p: &[f32],
    labels: &[i32],
    [n, classes, voxels]: Sizes,
    [present, per_image]: [bool; 2],
) -> (f64, Vec<f64>) {
    let (images, each) = if per_image { (n, voxels) } else { (1, n * voxels) };
    let (mut loss, mut grad) = (0.0, vec![0.0; p.len()]);
    for image in 0..images {
        let labels = &labels[image * each..][..each];
        let mut counted = Vec::new();
        for class in 0..classes {
            let first = (image * classes + class) * each;
            let truth: Vec<bool> = labels.iter().map(|label| *label == class as i32).collect();
            let error = |k: usize| if truth[k] { 1.0 - p[first + k] } else { p[first + k] };
            let (of_class, by_error) = of_class(&(0..each).map(error).collect::<Vec<f32>>(), &truth);
            if !present || truth.contains(&true) {
                counted.push(of_class);
                let sign = |k: usize| if truth[k] { -by_error[k] } else { by_error[k] };
                (0..each).for_each(|k| grad[first + k] = sign(k));
            }
        }
        let weight = 1.0 / (counted.len() * images) as f64;
        loss += counted.iter().sum::<f64>() * weight;
        grad[image * classes * each..][..classes * each].iter_mut().for_each(|g| *g *= weight);
    }
    (loss, grad)
}

/// Index among the stored probabilities of that of an image, a class and a voxel.
fn stored([n, classes, voxels]: Sizes, per_image: bool, [image, class, voxel]: [usize; 3]) -> usize {
    if per_image { (image * classes + class) * voxels + voxel } else { (class * n + image) * voxels + voxel }
}

fn labels([n, classes, voxels]: Sizes) -> Vec<i32> {
    // The last class is nowhere.
    (0..n * voxels).map(|k| (k * 7919 % 65_537 % (classes - 1).max(1)) as i32).collect()
}

fn check(sizes: Sizes, [present, per_image]: [bool; 2]) {
    let [n, classes, voxels] = sizes;
    let what = format!("{sizes:?}, present {present}, per image {per_image}");
    let Some(ctx) = context() else { return };
    let (x, y) = (random(n * classes * voxels, 1), labels(sizes));
    let operator = fused::lovasz_softmax().per_image(per_image);
    let operator = operator.classes(if present { "present" } else { "all" }).unwrap();
    let input = Tensor::from_slice(ctx, &x, &[n, classes, voxels]).unwrap();
    let target = Tensor::from_slice(ctx, &y, &[n, voxels]).unwrap();
    let inputs = [("input", &input), ("target", &target)];
    let plan = ctx.plan(&operator, &PlanSpec::new().like(&inputs).grad("input")).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    let p: Vec<f32> = bound.read(bound.extra("probabilities").unwrap()).unwrap();
    let d_p = read(&bound, bound.extra("d_probabilities").unwrap());
    let (mut want_p, mut want_x) = (vec![0.0; p.len()], vec![0.0; p.len()]);
    for (image, voxel) in (0..n).flat_map(|image| (0..voxels).map(move |voxel| (image, voxel))) {
        let at = |class: usize| (image * classes + class) * voxels + voxel;
        let there = |class: usize| stored(sizes, per_image, [image, class, voxel]);
        let e: Vec<f64> = (0..classes).map(|class| f64::from(x[at(class)]).exp()).collect();
        let total: f64 = e.iter().sum();
        let along: f64 = (0..classes).map(|class| e[class] / total * d_p[there(class)]).sum();
        for class in 0..classes {
            want_p[there(class)] = e[class] / total;
            want_x[at(class)] = e[class] / total * (d_p[there(class)] - along);
        }
    }
    let wide: Vec<f64> = p.iter().map(|p| f64::from(*p)).collect();
    assert_close(&format!("{what}: probabilities"), &wide, &want_p, 2e-6);
    let (loss, want) = of_probabilities(&p, &y, sizes, [present, per_image]);
    assert_close(&format!("{what}: loss"), &[f64::from(bound.read_loss().unwrap())], &[loss], 4e-6);
    assert_close(&format!("{what}: gradient of the probabilities"), &d_p, &want, 4e-6);
    // A difference of gradients of probabilities, which may be larger.
    let (got, most) = (read(&bound, bound.grad("input").unwrap()), largest(&d_p));
    assert_eq!(mismatch(&got, &want_x, 4e-6, |_| 2e-6 * most), None, "{what}: gradient");
}

#[test]
fn each_step_is_the_textbooks() {
    for options in [[true, false], [true, true], [false, false], [false, true]] {
        // One voxel, one class, odd rows, several images.
        for sizes in [[1, 3, 1], [2, 1, 5], [3, 4, 37], [2, 5, 96]] {
            check(sizes, options);
        }
    }
}

#[test]
fn an_image_of_half_a_thousand_squared_is_sorted() {
    if is_in_share("lovasz of a whole image") {
        check([1, 21, 512 * 512], [true, false]);
    }
}

#[test]
fn the_host_says_the_same() {
    let sizes = [2, 4, 30];
    let Some(ctx) = context() else { return };
    let (x, y) = (random(2 * 4 * 30, 2), labels(sizes));
    let host = [("input", HostTensor::f32(&x, &[2, 4, 30])), ("target", HostTensor::i32(&y, &[2, 30]))];
    let input = Tensor::from_slice(ctx, &x, &[2, 4, 30]).unwrap();
    let target = Tensor::from_slice(ctx, &y, &[2, 30]).unwrap();
    let inputs = [("input", &input), ("target", &target)];
    for (per_image, reduction) in [(false, Reduction::Mean), (true, Reduction::Mean), (true, Reduction::Sum)] {
        let operator = fused::lovasz_softmax().per_image(per_image).reduction(reduction.clone());
        let want = fused::cpu::forward_backward(&operator, &host, &["input"]).unwrap();
        let plan = ctx.plan(&operator, &PlanSpec::new().like(&inputs).grad("input")).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        let what = format!("per image {per_image}, {reduction:?}");
        assert_close(&what, &[f64::from(bound.read_loss().unwrap())], &[want.loss().unwrap()], 4e-6);
        assert_close(&what, &read(&bound, bound.grad("input").unwrap()), want.grad("input").unwrap(), 1e-5);
    }
    let none = fused::lovasz_softmax().per_image(true).reduction(Reduction::None);
    let want = fused::cpu::forward_backward(&none, &host, &[]).unwrap();
    let bound =
        ctx.plan(&none, &PlanSpec::new().like(&inputs)).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    assert_eq!(want.loss_values().unwrap().len(), 2);
    assert_close("none", &read(&bound, bound.loss().unwrap()), want.loss_values().unwrap(), 4e-6);
}

#[test]
fn gradients_go_wherever_gradients_go() {
    let Some(ctx) = context() else { return };
    let (x, y) = (random(3 * 40, 3), labels([1, 3, 40]));
    let host = [("input", HostTensor::f32(&x, &[1, 3, 40])), ("target", HostTensor::i32(&y, &[1, 40]))];
    let want = fused::cpu::forward_backward(&fused::lovasz_softmax(), &host, &["input"]).unwrap();
    let want = want.grad("input").unwrap();
    let target = Tensor::from_slice(ctx, &y, &[1, 40]).unwrap();
    for mode in [GradMode::Write, GradMode::InPlace, GradMode::Accumulate] {
        let input = Tensor::from_slice(ctx, &x, &[1, 3, 40]).unwrap();
        let upstream = Tensor::from_slice(ctx, &[3.0f32], &[]).unwrap();
        let inputs = [("input", &input), ("target", &target), ("upstream", &upstream)];
        let spec = PlanSpec::new().like(&inputs).grad_mode("input", mode).upstream(Upstream::Scalar);
        let plan = ctx.plan(&fused::lovasz_softmax(), &spec).unwrap();
        let held = Tensor::from_slice(ctx, &[1.0f32; 120], &[1, 3, 40]).unwrap();
        let bindings = Bindings::new().inputs(&inputs);
        let more = f64::from(u8::from(mode == GradMode::Accumulate));
        let bound = plan.bind(&if more > 0.0 { bindings.grad("input", &held) } else { bindings }).unwrap();
        bound.submit().unwrap();
        let want: Vec<f64> = want.iter().map(|g| 3.0 * g + more).collect();
        assert_close(&format!("{mode:?}"), &read(&bound, bound.grad("input").unwrap()), &want, 1e-5);
    }
    // Halves: one rounding.
    let bits: Vec<half::f16> = x.iter().map(|x| half::f16::from_f32(*x)).collect();
    let x: Vec<f32> = bits.iter().map(|x| x.to_f32()).collect();
    let host = [("input", HostTensor::f32(&x, &[1, 3, 40])), ("target", HostTensor::i32(&y, &[1, 40]))];
    let want = fused::cpu::forward_backward(&fused::lovasz_softmax(), &host, &["input"]).unwrap();
    let input = Tensor::from_slice(ctx, &bits, &[1, 3, 40]).unwrap();
    let inputs = [("input", &input), ("target", &target)];
    let plan = ctx.plan(&fused::lovasz_softmax(), &PlanSpec::new().like(&inputs).grad("input")).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    let got: Vec<half::f16> = bound.read(bound.grad("input").unwrap()).unwrap();
    let got: Vec<f64> = got.iter().map(|x| f64::from(x.to_f32())).collect();
    assert_close("halves", &got, want.grad("input").unwrap(), 6e-4);
}

#[test]
fn a_label_out_of_range_and_nan_are_told() {
    let Some(ctx) = context() else { return };
    let (x, mut y) = (random(3 * 8, 4), vec![0, 1, 2, 0, 1, 2, 0, 1]);
    y[5] = 3;
    let host = [("input", HostTensor::f32(&x, &[1, 3, 8])), ("target", HostTensor::i32(&y, &[1, 8]))];
    let want = Error::LabelOutOfRange { row: 5, label: 3, classes: 3 };
    let out = fused::cpu::forward_backward(&fused::lovasz_softmax(), &host, &["input"]).unwrap();
    assert_eq!(out.loss().unwrap_err(), want);
    let run = |x: &[f32], y: &[i32]| {
        let input = Tensor::from_slice(ctx, x, &[1, 3, 8]).unwrap();
        let target = Tensor::from_slice(ctx, y, &[1, 8]).unwrap();
        let inputs = [("input", &input), ("target", &target)];
        let plan = ctx.plan(&fused::lovasz_softmax(), &PlanSpec::new().like(&inputs).grad("input")).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        bound
    };
    assert_eq!(run(&x, &y).read_loss().unwrap_err(), want);
    let (mut bad, good) = (x.clone(), [0, 1, 2, 0, 1, 2, 0, 1]);
    bad[9] = f32::NAN;
    let bound = run(&bad, &good);
    assert!(bound.read_loss().unwrap().is_nan());
    assert!(read(&bound, bound.grad("input").unwrap()).iter().all(|g| g.is_nan()));
}

#[test]
fn what_it_has_not_is_refused() {
    let Some(ctx) = context() else { return };
    let spec = || PlanSpec::new().input("input", DType::F32, &[2, 3, 8]).input("target", DType::I32, &[2, 8]);
    let of = |operator: &LovaszSoftmax, spec: PlanSpec| ctx.plan(operator, &spec).map(|_| ()).unwrap_err();
    let lovasz = fused::lovasz_softmax();
    assert!(matches!(lovasz.clone().classes("some"), Err(Error::Param { .. })));
    assert!(matches!(of(&lovasz, spec().grad("target")), Error::Name { .. }));
    assert!(matches!(of(&lovasz, spec().extra("entropy")), Error::Name { .. }));
    assert!(matches!(of(&lovasz, spec().grad("input").separate_backward()), Error::Unsupported { .. }));
    assert!(matches!(of(&lovasz, spec().denominator()), Error::Unsupported { .. }));
    assert!(matches!(of(&lovasz, PlanSpec::new().input("input", DType::F32, &[2, 3, 8])), Error::Name { .. }));
    let flat = PlanSpec::new().input("input", DType::F32, &[3]).input("target", DType::I32, &[]);
    assert!(matches!(of(&lovasz, flat), Error::Shape { .. }));
    let found = Wanted { found_inf: true, ..Wanted::default() };
    let inputs = [("input", HostTensor::f32(&[0.0; 3], &[1, 3, 1])), ("target", HostTensor::i32(&[0], &[1, 1]))];
    assert!(matches!(fused::cpu::run::<f64>(&lovasz, &inputs, &found), Err(Error::Unsupported { .. })));
}
