//! Penalties on many tensors at once: the textbook's sums and gradients, by plain loops in f64.

use crate::common::compare::random;
use crate::common::context;
use wgloss::{
    Bindings, Context, DType, Error, GradMode, Limits, Operator, PlanSpec, Tensor, TuneOptions, Upstream, fused,
};

const NAN: f32 = f32::NAN;

/// Sizes around a workgroup's 64 lanes and 4,096 elements, some of several workgroups, one of none.
const SIZES: [usize; 12] = [1, 63, 64, 65, 0, 4095, 4096, 4097, 3, 100_003, 2, 8192];

struct Weights {
    names: Vec<String>,
    values: Vec<Vec<f32>>,
}

fn weights(count: usize) -> Weights {
    let size = |k: usize| SIZES[k % SIZES.len()];
    let values = (0..count).map(|k| random(size(k), k as u32 + 1)).collect();
    Weights { names: (0..count).map(|k| format!("w{k}")).collect(), values }
}

/// λ·Σ |w| or λ/2·Σ w², and the derivative at each element.
fn textbook(squares: bool, lambda: f64, values: &[Vec<f32>]) -> (f64, Vec<Vec<f64>>) {
    let (mut sum, mut grads) = (0.0, Vec::new());
    for tensor in values {
        let mut grad = Vec::new();
        for w in tensor {
            let w = f64::from(*w);
            sum += if squares { w * w / 2.0 } else { w.abs() };
            grad.push(lambda * if squares { w } else { f64::from(u8::from(w > 0.0)) - f64::from(u8::from(w < 0.0)) });
        }
        grads.push(grad);
    }
    (lambda * sum, grads)
}

fn smallest() -> Option<Context> {
    context().map(|_| Context::with_limits(wgpu::Limits::default()).unwrap())
}

#[test]
fn many_tensors_are_penalized_as_the_textbook_says() {
    let Some(ctx) = context() else { return };
    let Some(small) = smallest() else { return };
    for ctx in [ctx, &small] {
        for (squares, count) in [(false, 1), (true, 5), (false, 26), (true, 50)] {
            let Weights { names, values } = weights(count);
            let penalty = if squares { fused::l2_penalty(0.25) } else { fused::l1_penalty(0.25) };
            // Every third gradient is not asked for, every second is added to 1.5.
            let (mut spec, mut bindings, mut held) = (PlanSpec::new(), Bindings::new(), Vec::new());
            for (k, (name, w)) in names.iter().zip(&values).enumerate() {
                let tensor = Tensor::from_slice(ctx, w, &[w.len()]).unwrap();
                spec = spec.input(name, DType::F32, &[w.len()]);
                bindings = bindings.input(name, &tensor);
                if k % 3 != 2 {
                    let mode = if k % 2 == 0 { GradMode::Accumulate } else { GradMode::Write };
                    let grad = Tensor::from_slice(ctx, &vec![1.5f32; w.len()], &[w.len()]).unwrap();
                    spec = spec.grad_mode(name, mode);
                    bindings = bindings.grad(name, &grad);
                    held.push((k, grad));
                }
            }
            let bound = ctx.plan(&penalty, &spec).unwrap().bind(&bindings).unwrap();
            bound.submit().unwrap();
            let check = |lambda: f64, steps: f64| {
                let (want, grads) = textbook(squares, lambda, &values);
                let loss = f64::from(bound.read_loss().unwrap());
                assert!((loss - want).abs() <= 2e-6 * want, "{count}: {loss}, want {want}");
                for (k, grad) in &held {
                    let base = if k % 2 == 0 { 1.5 } else { 0.0 };
                    let times = if k % 2 == 0 { steps } else { 1.0 };
                    for (got, want) in grad.to_vec::<f32>().unwrap().iter().zip(&grads[*k]) {
                        let want = base + times * want;
                        assert!(
                            (f64::from(*got) - want).abs() <= 4e-7 * want.abs().max(1.0),
                            "w{k}: {got}, want {want}"
                        );
                    }
                }
            };
            check(0.25, 1.0);
            let first = bound.read_loss().unwrap();
            bound.submit().unwrap();
            assert_eq!(bound.read_loss().unwrap().to_bits(), first.to_bits(), "the same bits each time");
            check(0.25, 2.0);
        }
    }
}

#[test]
fn the_factor_may_change_and_the_loss_may_be_added_to() {
    let Some(ctx) = context() else { return };
    let (a, b) = ([3.0f32, -1.0], [2.0f32]);
    let (ta, tb) = (Tensor::from_slice(ctx, &a, &[2]).unwrap(), Tensor::from_slice(ctx, &b, &[1]).unwrap());
    let inputs = [("a", &ta), ("b", &tb)];
    let total = Tensor::from_slice(ctx, &[10.0f32], &[]).unwrap();
    let spec = PlanSpec::new().like(&inputs).grad("a").accumulate_loss();
    let plan = ctx.plan(&fused::l2_penalty(0.5), &spec).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs).loss(&total)).unwrap();
    bound.submit().unwrap();
    // 0.5/2 · (9 + 1 + 4)
    assert_eq!(total.to_vec::<f32>().unwrap(), [13.5]);
    bound.set_param("lambda", 2.0).unwrap();
    bound.submit().unwrap();
    assert_eq!(total.to_vec::<f32>().unwrap(), [27.5]);
    assert_eq!(bound.grad("a").unwrap().to_vec::<f32>().unwrap(), [6.0, -2.0]);
    let error = bound.set_param("lambda", -1.0).unwrap_err();
    assert!(matches!(&error, Error::Param { param, .. } if param == "lambda"), "{error}");
    let grads = ctx.plan(&fused::l1_penalty(2.0), &PlanSpec::new().like(&inputs).grad("b").without_loss()).unwrap();
    let bound = grads.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    assert_eq!(bound.grad("b").unwrap().to_vec::<f32>().unwrap(), [2.0]);
    assert!(matches!(bound.loss(), Err(Error::Name { .. })));
}

#[test]
fn a_nan_poisons_its_gradient_and_the_penalty() {
    let Some(ctx) = context() else { return };
    let (a, b) = ([1.0, NAN, -2.0], [0.5f32, 0.0]);
    let (ta, tb) = (Tensor::from_slice(ctx, &a, &[3]).unwrap(), Tensor::from_slice(ctx, &b, &[2]).unwrap());
    let inputs = [("a", &ta), ("b", &tb)];
    for (penalty, want) in [(fused::l1_penalty(1.0), [1.0, NAN, -1.0]), (fused::l2_penalty(1.0), [1.0, NAN, -2.0])] {
        let plan = ctx.plan(&penalty, &PlanSpec::new().like(&inputs).grad("a").grad_mode("b", GradMode::Accumulate));
        let held = Tensor::from_slice(ctx, &[NAN, 4.0], &[2]).unwrap();
        let bound = plan.unwrap().bind(&Bindings::new().inputs(&inputs).grad("b", &held)).unwrap();
        bound.submit().unwrap();
        assert!(bound.read_loss().unwrap().is_nan());
        let got = bound.grad("a").unwrap().to_vec::<f32>().unwrap();
        assert!(got.iter().zip(want).all(|(a, b)| *a == b || a.is_nan() && b.is_nan()), "{got:?}");
        let got = held.to_vec::<f32>().unwrap();
        assert!(got[0].is_nan() && got[1] == 4.0, "{got:?}");
    }
    ta.write(ctx, &[1.0f32, f32::NEG_INFINITY, 0.0]).unwrap();
    let plan = ctx.plan(&fused::l1_penalty(0.5), &PlanSpec::new().like(&inputs).grad("a")).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    assert_eq!(bound.read_loss().unwrap(), f32::INFINITY);
    assert_eq!(bound.grad("a").unwrap().to_vec::<f32>().unwrap(), [0.5, -0.5, 0.0]);
}

#[test]
fn tensors_and_gradients_may_be_ranges_of_one_buffer() {
    let Some(ctx) = context() else { return };
    let pool = Tensor::from_slice(ctx, &random(400, 9), &[400]).unwrap();
    let before = pool.to_vec::<f32>().unwrap();
    let ranges = [(0u64, 7usize), (7, 50), (100, 33)];
    let (mut spec, mut bindings) = (PlanSpec::new(), Bindings::new());
    let names = ["a", "b", "c"];
    for (name, (first, size)) in names.iter().zip(ranges) {
        // Planned for more than is bound.
        spec = spec.input(name, DType::F32, &[size + 3]).grad(name);
        let view = |at: u64| pool.view(at, &[size], &[1]).unwrap();
        bindings = bindings.input(name, &view(first)).grad(name, &view(200 + first));
    }
    let plan = ctx.plan(&fused::l2_penalty(2.0), &spec).unwrap().tune(&TuneOptions::new()).unwrap();
    let bound = plan.bind(&bindings).unwrap();
    bound.submit().unwrap();
    let (mut want, mut sum) = (before.clone(), 0.0);
    for (first, size) in ranges {
        for k in first as usize..first as usize + size {
            want[200 + k] = 2.0 * before[k];
            sum += f64::from(before[k]).powi(2);
        }
    }
    assert_eq!(pool.to_vec::<f32>().unwrap(), want, "and nothing beside the gradients");
    assert!((f64::from(bound.read_loss().unwrap()) - sum).abs() < 2e-6 * sum);
    assert_eq!(bound.bytes(), 4 + 8 * 90);
    assert!(bound.explain().contains("l2_penalty: 3 tensors"), "{}", bound.explain());
}

#[test]
fn what_a_penalty_has_not_is_refused() {
    let limits = Limits::WEBGPU;
    let of = |spec: PlanSpec| fused::l2_penalty(1.0).prepare(&spec, &limits).err().expect("an error");
    let spec = || PlanSpec::new().input("w", DType::F32, &[4, 6]);
    for spec in [
        spec().grad_mode("w", GradMode::InPlace),
        spec().hessian_diagonal("w"),
        spec().denominator(),
        spec().extra("entropy"),
        spec().grad("w").found_inf(),
        spec().grad("w").upstream(Upstream::Scalar),
        spec().grad("w").separate_backward(),
        spec().group_rows(2),
        PlanSpec::new().input_with("w", DType::F32, wgloss::Layout { shape: vec![4, 6], strides: vec![1, 4] }),
    ] {
        let error = of(spec);
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    assert!(matches!(of(PlanSpec::new()), Error::Name { .. }));
    assert!(matches!(of(spec().grad("v")), Error::Name { .. }));
    assert!(matches!(of(spec().input("w", DType::F32, &[2])), Error::Name { .. }));
    assert!(matches!(of(spec().without_loss()), Error::Expr { .. }));
    assert!(matches!(of(PlanSpec::new().input("w", DType::F16, &[4])), Error::DType { .. }));
    assert!(matches!(of(spec().grad("w").grad_dtype("w", DType::F16)), Error::DType { .. }));
    assert!(matches!(of(PlanSpec::new().input("w", DType::F32, &[1 << 25])), Error::Limit { .. }));
    let tight = Limits { storage_buffers: 2, ..limits.clone() };
    let error = fused::l1_penalty(1.0).prepare(&spec().grad("w"), &tight).err().expect("an error");
    assert!(matches!(error, Error::Limit { needed: 3, allowed: 2, .. }), "{error}");
    for lambda in [-1.0, f64::NAN, f64::INFINITY] {
        let error = fused::l1_penalty(lambda).prepare(&spec(), &limits).err().expect("an error");
        assert!(matches!(error, Error::Param { .. }), "{error}");
    }
    let Some(ctx) = context() else { return };
    let plan = ctx.plan(&fused::l2_penalty(1.0), &spec()).unwrap();
    let (w, more) =
        (Tensor::zeros(ctx, DType::F32, &[4, 6]).unwrap(), Tensor::zeros(ctx, DType::F32, &[5, 6]).unwrap());
    assert!(matches!(plan.bind(&Bindings::new().input("w", &more)), Err(Error::Shape { .. })));
    assert!(matches!(plan.bind(&Bindings::new().input("v", &w)), Err(Error::Name { .. })));
    assert!(matches!(plan.bind(&Bindings::new()), Err(Error::Name { .. })));
    let turned = w.view(0, &[4, 6], &[1, 4]).unwrap();
    assert!(matches!(plan.bind(&Bindings::new().input("w", &turned)), Err(Error::Unsupported { .. })));
}
