//! The hardest elements of a row: all pixels of a sample, on GPU and CPU against sorted losses.

use crate::common::compare::{assert_close, random};
use crate::common::context;
use wgloss::{DType, Error, HostTensor, PlanSpec, Reduction, RowAxis, Tensor, cpu, losses};

/// Losses per sample and the gradient of their sum, of the `k` hardest of `cols` pixels.
fn expected(x: &[f32], t: &[f32], cols: usize, k: usize) -> [Vec<f64>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    for (x, t) in x.chunks(cols).zip(t.chunks(cols)) {
        let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let (x, t) = (wide(x), wide(t));
        let loss = |j: usize| t[j] * (-x[j]).exp().ln_1p() + (1.0 - t[j]) * x[j].exp().ln_1p();
        let mut order: Vec<usize> = (0..cols).collect();
        order.sort_by(|a, b| loss(*b).total_cmp(&loss(*a)));
        all[0].push(order[..k].iter().map(|j| loss(*j)).sum::<f64>() / k as f64);
        let slope = |j: usize| (1.0 / (1.0 + (-x[j]).exp()) - t[j]) / k as f64;
        all[1].extend((0..cols).map(|j| if order[..k].contains(&j) { slope(j) } else { 0.0 }));
    }
    all
}

#[test]
fn the_hardest_pixels_of_each_sample_count() {
    // Held rows, and rows longer than registers hold.
    for (shape, k) in [([3, 5, 7], 1), ([3, 5, 7], 9), ([3, 5, 7], 35), ([2, 70, 71], 100)] {
        let count = shape.iter().product();
        let (x, cols) = (random(count, 31), shape[1] * shape[2]);
        let t: Vec<f32> = random(count, 32).iter().map(|t| if *t > 0.0 { 1.0 } else { 0.0 }).collect();
        let want = expected(&x, &t, cols, k);
        let loss = losses::top_k_bce_with_logits(k as u32).row_axis(RowAxis::From(1)).reduction(Reduction::None);
        let inputs = [("input", HostTensor::f32(&x, &shape)), ("target", HostTensor::f32(&t, &shape))];
        let out = cpu::forward_backward(&loss, &inputs, &["input"]).unwrap();
        assert_close("loss on the CPU", out.loss_values().unwrap(), &want[0], 1e-12);
        assert_close("gradient on the CPU", out.grad("input").unwrap(), &want[1], 1e-12);
        let Some(ctx) = context() else { continue };
        let [x, t] = [&x, &t].map(|values| Tensor::from_slice(ctx, values, &shape).unwrap());
        let out = loss.run(ctx, &[("input", &x), ("target", &t)], &PlanSpec::new().grad("input")).unwrap();
        let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<f64>>();
        assert_close("loss", &wide(out.loss_values().unwrap()), &want[0], 2e-6);
        assert_close("gradient", &wide(out.grad("input").unwrap().to_vec().unwrap()), &want[1], 2e-6);
    }
}

#[test]
fn more_hard_elements_than_a_row_has_are_refused() {
    let (x, t) = (HostTensor::f32(&[0.0; 4], &[2, 2]), HostTensor::f32(&[1.0; 4], &[2, 2]));
    let of = |k: u32| {
        cpu::forward_backward(&losses::top_k_bce_with_logits(k), &[("input", x.clone()), ("target", t.clone())], &[])
    };
    assert!(matches!(of(0), Err(Error::Param { param, .. }) if param == "k"));
    assert!(of(3).unwrap_err().to_string().contains('3'));
    assert!(of(2).is_ok());
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[2, 2]).input("target", DType::F32, &[2, 2]);
    let error = ctx.plan(&losses::top_k_bce_with_logits(3), &spec).err().unwrap();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    // Each k is another formula.
    let plan = ctx.plan(&losses::top_k_bce_with_logits(2), &spec).unwrap();
    assert!(plan.explain().contains("thresholds: at most 16 trips over held rows"), "{}", plan.explain());
}
