//! Other outputs of a cross-entropy's rows: textbook values, on both paths, beside the loss and its gradient.

use crate::common::context;
use wgloss::Wanted;
use wgloss::{Bindings, Error, HostTensor, PlanSpec, Tensor, cpu, losses};

const EXTRAS: [&str; 5] = ["logsumexp", "predicted", "correct", "label_probability", "entropy"];

fn logits(rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|k| ((k * 7919 + k / cols * 31) % 997) as f32 * 0.01 - 4.0).collect()
}

/// By the textbook: logsumexp, class, whether it is the label, the label's probability, entropy.
fn textbook(row: &[f32], label: i32) -> [f64; 5] {
    let x: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
    let lse = x.iter().map(|x| x.exp()).sum::<f64>().ln();
    let best = (0..x.len()).rev().max_by(|a, b| x[*a].total_cmp(&x[*b])).unwrap();
    let ignored = label == -100;
    let p = if ignored { 0.0 } else { (x[label as usize] - lse).exp() };
    let entropy = x.iter().map(|x| -(x - lse).exp() * (x - lse)).sum();
    [lse, best as f64, f64::from(u8::from(best as i32 == label)), p, entropy]
}

#[test]
fn extras_are_the_textbooks() {
    // 5: one lane a row; 40, 300: several; 1001: masked windows.
    for (rows, cols) in [(7, 5), (6, 40), (5, 300), (3, 1001)] {
        let x = logits(rows, cols);
        let mut labels: Vec<i32> = (0..rows).map(|r| (r * 3 % cols) as i32).collect();
        labels[1] = -100;
        labels[2] = textbook(&x[2 * cols..3 * cols], 0)[1] as i32;
        let want: Vec<[f64; 5]> = x.chunks(cols).zip(&labels).map(|(row, label)| textbook(row, *label)).collect();
        let correct: f64 = want.iter().map(|w| w[2]).sum();
        assert!(correct >= 1.0);
        let loss = losses::cross_entropy();
        assert_eq!(loss.extras(), EXTRAS);
        let host = [("input", HostTensor::f32(&x, &[rows, cols])), ("target", HostTensor::i32(&labels, &[rows]))];
        let extras: Vec<String> = EXTRAS.iter().map(|name| name.to_string()).collect();
        let grads = vec!["input".to_owned()];
        let wanted = Wanted { loss: true, grads, extras, ..Wanted::default() };
        let on_cpu = cpu::run::<f64>(&loss, &host, &wanted).unwrap();
        let expected = |k: usize| -> Vec<f64> {
            if EXTRAS[k] == "correct" { vec![correct] } else { want.iter().map(|w| w[k]).collect() }
        };
        let close = |what: &str, got: &[f64], want: &[f64], relative: f64| {
            assert_eq!(got.len(), want.len(), "{what} [{rows}, {cols}]");
            for (got, want) in got.iter().zip(want) {
                let allowed = relative * (want.abs() + 1.0);
                assert!((got - want).abs() <= allowed, "{what} [{rows}, {cols}]: {got}, want {want}");
            }
        };
        for (k, name) in EXTRAS.iter().enumerate() {
            close(name, on_cpu.extra(name).unwrap(), &expected(k), 1e-12);
        }
        let Some(ctx) = context() else { continue };
        let xs = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
        let ys = Tensor::from_slice(ctx, &labels, &[rows]).unwrap();
        let inputs = [("input", &xs), ("target", &ys)];
        let spec = EXTRAS.iter().fold(PlanSpec::new().like(&inputs).grad("input"), |spec, name| spec.extra(name));
        let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        for (k, name) in EXTRAS.iter().enumerate() {
            let got: Vec<f32> = bound.extra(name).unwrap().to_vec().unwrap();
            let got: Vec<f64> = got.into_iter().map(f64::from).collect();
            close(name, &got, &expected(k), 3e-6);
        }
        let got = f64::from(bound.read_loss().unwrap());
        assert!((got - on_cpu.loss().unwrap()).abs() < 3e-6 * got.abs());
        let grad: Vec<f32> = bound.grad("input").unwrap().to_vec().unwrap();
        let grad: Vec<f64> = grad.into_iter().map(f64::from).collect();
        close("gradient", &grad, on_cpu.grad("input").unwrap(), 1e-6);
    }
}

#[test]
fn an_extra_output_that_a_loss_does_not_have() {
    let host = [("input", HostTensor::f32(&[0.0, 1.0], &[1, 2])), ("target", HostTensor::i32(&[1], &[1]))];
    let wanted = Wanted { loss: true, extras: vec!["accuracy".to_owned()], ..Wanted::default() };
    let error = cpu::run::<f64>(&losses::cross_entropy(), &host, &wanted).unwrap_err();
    assert!(
        matches!(&error, Error::Name { name, known, .. } if name == "accuracy" && known.contains("correct")),
        "{error}"
    );
}
