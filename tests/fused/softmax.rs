//! Promises of the softmax family alone: probability zero, capped and masked classes, digits of confident and of
//! near-equal rows, options that are off.

use crate::common::compare::{largest, mismatch};
use crate::common::oracle::{self, Case};
use crate::common::{context, on_cpu, on_gpu};
use wgloss::internals::lower::{Wanted, lower};
use wgloss::{HostTensor, Loss, Reduction, Tensor, cpu, losses};

#[test]
fn a_label_of_probability_zero_has_infinite_loss_with_smoothing_too() -> wgloss::Result<()> {
    let x = [f32::NEG_INFINITY, 0.0, 1.0];
    let inputs = [("input", HostTensor::f32(&x, &[1, 3])), ("target", HostTensor::i32(&[0], &[1]))];
    for loss in [losses::cross_entropy(), losses::cross_entropy().label_smoothing(0.1)] {
        let out = cpu::forward_backward(&loss, &inputs, &["input"])?;
        assert_eq!(out.loss()?, f64::INFINITY);
        assert!(out.grad("input")?.iter().all(|g| g.is_finite()), "{:?}", out.grad("input"));
    }
    Ok(())
}

#[test]
fn a_capped_logit_of_minus_infinity_is_still_probability_zero() -> wgloss::Result<()> {
    // Capped after the mask, the two masked classes would each weigh exp(−2) against the others' exp(2).
    let x = [f32::NEG_INFINITY, 50.0, 50.0, f32::NEG_INFINITY];
    let halved = losses::cross_entropy().softcap(2.0).logit_scale(0.5);
    for loss in [Loss::from(losses::softcap_cross_entropy(2.0)), halved.into()] {
        let shapes = (&[1, 4][..], &[1][..]);
        let inputs = [("input", HostTensor::f32(&x, shapes.0)), ("target", HostTensor::i32(&[1], shapes.1))];
        let out = cpu::forward_backward(&loss, &inputs, &["input"])?;
        assert!((out.loss()? - 2f64.ln()).abs() < 1e-12, "{}", out.loss()?);
        assert!(out.grad("input")?[0] == 0.0 && out.grad("input")?[3] == 0.0);
        let Some(ctx) = context() else { continue };
        let (x, y) = (Tensor::from_slice(ctx, &x, shapes.0)?, Tensor::from_slice(ctx, &[1i32], shapes.1)?);
        let out = loss.forward_backward(ctx, &[("input", &x), ("target", &y)])?;
        assert!((f64::from(out.loss()?) - 2f64.ln()).abs() < 1e-6, "{}", out.loss()?);
        let grad = out.grad("input")?.to_vec::<f32>()?;
        assert!(grad[0] == 0.0 && grad[3] == 0.0, "{grad:?}");
    }
    Ok(())
}

#[test]
fn masked_classes_add_nothing_to_the_entropy() -> wgloss::Result<()> {
    let x = [f32::NEG_INFINITY, 0.0, 0.0, -200.0];
    let inputs = [("input", HostTensor::f32(&x, &[1, 4])), ("target", HostTensor::i32(&[1], &[1]))];
    let loss = losses::cross_entropy().entropy_bonus(0.5);
    let out = cpu::forward_backward(&loss, &inputs, &["input"])?;
    assert!((out.loss()? - 0.5 * 2f64.ln()).abs() < 1e-12, "{}", out.loss()?);
    assert_eq!(out.grad("input")?[0], 0.0);
    let Some(ctx) = context() else { return Ok(()) };
    let (x, y) = (Tensor::from_slice(ctx, &x, &[1, 4])?, Tensor::from_slice(ctx, &[1i32], &[1])?);
    let out = loss.forward_backward(ctx, &[("input", &x), ("target", &y)])?;
    assert!((f64::from(out.loss()?) - 0.5 * 2f64.ln()).abs() < 1e-6, "{}", out.loss()?);
    assert_eq!(out.grad("input")?.to_vec::<f32>()?[0], 0.0);
    Ok(())
}

#[test]
fn options_that_are_off_leave_the_program_as_it_is() -> wgloss::Result<()> {
    let program = |loss: &Loss| {
        let wanted = Wanted { loss: true, grads: vec!["input".to_owned()], ..Wanted::default() };
        lower(loss, &wanted, &|name| ["input", "target"].contains(&name).then_some(false))
    };
    let plain = program(&losses::cross_entropy())?;
    let off = losses::cross_entropy().logit_scale(1.0).softcap(0.0).lse_square_scale(0.0).entropy_bonus(0.0);
    assert_eq!(program(&off)?, plain);
    assert_eq!(plain.passes.len(), 2, "one over the labels, one over the logits");
    assert_eq!(plain.passes[1].stages.len(), 1);
    Ok(())
}

#[test]
fn jsd_of_distributions_with_zeros_is_finite_where_it_is_defined() -> wgloss::Result<()> {
    let never = f32::NEG_INFINITY;
    let half = 0.5f32.ln();
    // Both lack the last class. The third lacks what the fourth has; −150 is 0 in f32.
    let q = [0.0, never, never, half, half, never, half, half, never, 0.0, -150.0, never];
    let p = [never, 0.0, never, half, half, never, 0.0, never, never, 0.0, never, never];
    let quarter = 0.5 * (4f64 / 3.0).ln();
    let of_0 = [f64::INFINITY, 0.0, 2f64.ln(), 0.0];
    let of_1 = [f64::INFINITY, 0.0, f64::INFINITY, f64::INFINITY];
    let of_half = [2f64.ln(), 0.0, quarter + 0.25 * 2f64.ln() - 0.25 * 1.5f64.ln(), 0.0];
    for (beta, want) in [(0.0, of_0), (1.0, of_1), (0.5, of_half)] {
        let loss = losses::jsd(beta).reduction(Reduction::None);
        let inputs = [("input", HostTensor::f32(&q, &[4, 3])), ("target", HostTensor::f32(&p, &[4, 3]))];
        let out = cpu::forward_backward(&loss, &inputs, &["input", "target"])?;
        assert_eq!(mismatch(out.loss_values()?, &want, 1e-7, |_| 1e-7), None, "CPU, β = {beta}");
        if beta == 0.5 {
            let finite = |name: &str| out.grad(name).is_ok_and(|grad| grad.iter().all(|g| g.is_finite()));
            assert!(finite("input") && finite("target"));
        }
        let Some(ctx) = context() else { continue };
        let (x, y) = (Tensor::from_slice(ctx, &q, &[4, 3])?, Tensor::from_slice(ctx, &p, &[4, 3])?);
        let got = loss.forward_backward_of(ctx, &[("input", &x), ("target", &y)], &["input", "target"])?;
        let values: Vec<f64> = got.loss_values()?.into_iter().map(f64::from).collect();
        // Where e⁻¹⁵⁰ is 0 its product with ln 0 is 0 too.
        let row = |k: usize| beta != 1.0 || k != 3;
        let (values, want): (Vec<f64>, Vec<f64>) = (0..4).filter(|k| row(*k)).map(|k| (values[k], want[k])).unzip();
        assert_eq!(mismatch(&values, &want, 2e-6, |_| 2e-7), None, "GPU, β = {beta}");
        if beta == 0.5 {
            for name in ["input", "target"] {
                assert!(got.grad(name)?.to_vec::<f32>()?.iter().all(|g| g.is_finite()), "{name}");
            }
        }
    }
    Ok(())
}

#[test]
fn gradient_of_jsd_keeps_its_digits_between_near_equal_distributions() -> wgloss::Result<()> {
    let Some(ctx) = context() else { return Ok(()) };
    // Logarithms 1e-4 and less apart: the gradient is that much smaller than what cancels in it.
    let x: Vec<f64> = (0..40).map(|k| f64::from((-3.0 - f64::from(k % 7) / 4.0) as f32)).collect();
    let near = |k: usize| f64::from((x[k] + 1e-4 * (k as f64).sin()) as f32);
    let y: Vec<f64> = (0..40).map(near).collect();
    for beta in [0.5, 0.1] {
        let arrays = [("input", x.clone()), ("target", y.clone())];
        let array = |(name, values): (&str, Vec<f64>)| (name.to_owned(), oracle::Array::new(&[2, 20], values));
        let options = [("beta".to_owned(), oracle::Opt::Num(beta))].into();
        let case = Case {
            arrays: arrays.map(array).into(),
            options,
            reduction: "none".to_owned(),
            labels: None,
            ..Case::default()
        };
        let loss = losses::jsd(beta).reduction(Reduction::None);
        let (got, want) = (on_gpu(ctx, &loss, &case, &["input"])?, on_cpu(&loss, &case, &["input"])?);
        let (got, want) = (&got.grads["input"], &want.grads["input"]);
        assert_eq!(mismatch(got, want, 1e-6, |_| 2e-6 * largest(want)), None, "β = {beta}");
    }
    Ok(())
}

#[test]
fn distillation_with_zeros_is_finite_where_it_is_defined() -> wgloss::Result<()> {
    let never = f32::NEG_INFINITY;
    // The teacher's zeros are the student's, the teacher's alone, the student's alone; the last teacher is certain.
    let student = [0.0, 0.0, never, 0.0, 0.0, 0.0, 0.0, 0.0, never, 1e6, 1e6, 1e6];
    let teacher = [0.0, 0.0, never, 0.0, 0.0, never, 0.0, 0.0, 0.0, 1e4, -1e4, -1e4];
    let (two, three) = (2f64.ln(), 3f64.ln());
    let labels = [0i32; 4];
    for temperature in [1.0, 2.0] {
        let soft = [0.0, 1.5f64.ln(), f64::INFINITY, three].map(|kl| 0.5 * temperature * temperature * kl);
        let want: Vec<f64> = soft.iter().zip([two, three, two, three]).map(|(soft, hard)| soft + 0.5 * hard).collect();
        let loss = losses::distillation(0.5, temperature).reduction(Reduction::None);
        let inputs = [
            ("student_logits", HostTensor::f32(&student, &[4, 3])),
            ("teacher_logits", HostTensor::f32(&teacher, &[4, 3])),
            ("target", HostTensor::i32(&labels, &[4])),
        ];
        let both = ["student_logits", "teacher_logits"];
        let out = cpu::forward_backward(&loss, &inputs, &both)?;
        assert_eq!(mismatch(out.loss_values()?, &want, 1e-12, |_| 1e-12), None, "CPU, T = {temperature}");
        assert!(out.grad("student_logits")?.iter().all(|g| g.is_finite()));
        assert!(out.grad("teacher_logits")?[..6].iter().all(|g| g.is_finite()));
        let Some(ctx) = context() else { continue };
        let tensor = |x: &[f32]| Tensor::from_slice(ctx, x, &[4, 3]);
        let (x, t, y) = (tensor(&student)?, tensor(&teacher)?, Tensor::from_slice(ctx, &labels, &[4])?);
        let inputs = [("student_logits", &x), ("teacher_logits", &t), ("target", &y)];
        let out = loss.forward_backward_of(ctx, &inputs, &both)?;
        let values: Vec<f64> = out.loss_values()?.into_iter().map(f64::from).collect();
        assert_eq!(mismatch(&values, &want, 2e-6, |_| 2e-7), None, "GPU, T = {temperature}");
        assert!(out.grad("student_logits")?.to_vec::<f32>()?.iter().all(|g| g.is_finite()));
        assert!(out.grad("teacher_logits")?.to_vec::<f32>()?[..6].iter().all(|g| g.is_finite()));
    }
    Ok(())
}

#[test]
fn distillation_at_alpha_0_and_1_is_its_parts() -> wgloss::Result<()> {
    let (x, t) = ([0.5f32, -1.0, 2.0, 0.0, 1.0, 3.0], [0.0f32, 1.0, 0.5, -2.0, 0.25, 1.0]);
    let inputs =
        |main: &'static str| [(main, HostTensor::f32(&x, &[2, 3])), ("target", HostTensor::i32(&[2, 0], &[2]))];
    let hard = cpu::forward_backward(&losses::cross_entropy(), &inputs("input"), &["input"])?;
    let [student, labels] = inputs("student_logits");
    let all = [student, ("teacher_logits", HostTensor::f32(&t, &[2, 3])), labels];
    let both = ["student_logits", "teacher_logits"];
    let out = cpu::forward_backward(&losses::distillation(0.0, 2.0), &all, &both)?;
    assert_eq!(out.loss()?, hard.loss()?);
    assert_eq!(out.grad("student_logits")?, hard.grad("input")?);
    assert_eq!(out.grad("teacher_logits")?, [0.0; 6]);
    // A student that has become its teacher.
    let same = [all[0].clone(), ("teacher_logits", HostTensor::f32(&x, &[2, 3])), all[2].clone()];
    let out = cpu::forward_backward(&losses::distillation(1.0, 3.0), &same, &both)?;
    assert_eq!(
        (out.loss()?, out.grad("student_logits")?, out.grad("teacher_logits")?),
        (0.0, &[0.0; 6][..], &[0.0; 6][..])
    );
    Ok(())
}
