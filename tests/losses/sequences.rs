//! Cross-entropy per sequence: padding, packed sequences, and what a mask leaves out.

use crate::common::compare::{mismatch, random};
use crate::common::context;
use crate::common::oracle::log_softmax;
use wgloss::{Bindings, DType, HostTensor, PlanSpec, Reduction, Tensor, cpu, losses};

const VOCABULARY: usize = 7;

/// Losses per sequence, and the gradient of their mean over the sequences that have a token: plain loops.
fn want(x: &[f32], labels: &[i32], lengths: &[usize], padded: usize) -> (Vec<f64>, Vec<f64>) {
    let with_tokens = lengths.iter().filter(|length| **length > 0).count() as f64;
    let (mut losses, mut grads) = (Vec::new(), vec![0.0; x.len()]);
    for (sequence, &length) in lengths.iter().enumerate() {
        let mut sum = 0.0;
        for row in sequence * padded..sequence * padded + length {
            let logits: Vec<f64> = x[row * VOCABULARY..][..VOCABULARY].iter().map(|x| f64::from(*x)).collect();
            for (col, log_p) in log_softmax(&logits).into_iter().enumerate() {
                let one_hot = f64::from(col == labels[row] as usize);
                sum -= one_hot * log_p;
                grads[row * VOCABULARY + col] = (log_p.exp() - one_hot) / (length as f64 * with_tokens);
            }
        }
        losses.push(if length > 0 { sum / length as f64 } else { 0.0 });
    }
    (losses, grads)
}

fn same(what: &str, got: &[f64], want: &[f64], rtol: f64) {
    let largest = want.iter().fold(0.0, |most: f64, x| x.abs().max(most));
    assert_eq!(mismatch(got, want, rtol, |_| rtol * largest), None, "{what}");
}

#[test]
fn a_sequence_counts_once_however_much_of_it_is_padding() {
    let (lengths, padded) = ([5usize, 1, 0, 3], 5);
    let rows = lengths.len() * padded;
    let mut x = random(rows * VOCABULARY, 11);
    let is_padding = |row: usize| row % padded >= lengths[row / padded];
    let labels: Vec<i32> = (0..rows).map(|row| (row * 5 % VOCABULARY) as i32).collect();
    let (losses_want, grads_want) = want(&x, &labels, &lengths, padded);
    let mean = losses_want.iter().sum::<f64>() / 3.0;
    // Padding holds anything, by its label or by the mask.
    (0..rows).filter(|row| is_padding(*row)).for_each(|row| x[row * VOCABULARY] = f32::NAN);
    let ignored: Vec<i32> = (0..rows).map(|row| if is_padding(row) { -100 } else { labels[row] }).collect();
    let mask: Vec<f32> = (0..rows).map(|row| f32::from(u8::from(!is_padding(row)))).collect();
    let (shape, of_rows) = ([lengths.len(), padded, VOCABULARY], [lengths.len(), padded]);
    for (labels, mask) in [(&ignored, None), (&labels, Some(&mask))] {
        let mut host = vec![("input", HostTensor::f32(&x, &shape)), ("target", HostTensor::i32(labels, &of_rows))];
        host.extend(mask.map(|mask| ("attention_mask", HostTensor::f32(mask, &of_rows))));
        let loss = losses::sequence_cross_entropy();
        let out = cpu::forward_backward(&loss, &host, &["input"]).unwrap();
        same("CPU loss", &[out.loss().unwrap()], &[mean], 1e-12);
        same("CPU gradient", out.grad("input").unwrap(), &grads_want, 1e-12);
        let each = loss.clone().reduction(Reduction::None);
        same(
            "CPU losses",
            cpu::forward_backward(&each, &host, &[]).unwrap().loss_values().unwrap(),
            &losses_want,
            1e-12,
        );
        let Some(ctx) = context() else { continue };
        let mut tensors = vec![
            ("input", Tensor::from_slice(ctx, &x, &shape).unwrap()),
            ("target", Tensor::from_slice(ctx, labels, &of_rows).unwrap()),
        ];
        tensors.extend(mask.map(|mask| ("attention_mask", Tensor::from_slice(ctx, mask, &of_rows).unwrap())));
        let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let out = loss.forward_backward(ctx, &inputs).unwrap();
        same("GPU loss", &[f64::from(out.loss().unwrap())], &[mean], 2e-6);
        let got: Vec<f64> = out.grad("input").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
        same("GPU gradient", &got, &grads_want, 2e-6);
    }
}

#[test]
fn packed_sequences_are_groups_of_a_plan() {
    let Some(ctx) = context() else { return };
    let (lengths, offsets) = ([4usize, 1, 6], [0i32, 4, 5, 11]);
    let x = random(11 * VOCABULARY, 3);
    let labels: Vec<i32> = (0..11).map(|row| row * 3 % VOCABULARY as i32).collect();
    let (mut losses_want, mut grads_want) = (Vec::new(), Vec::new());
    for (sequence, length) in lengths.into_iter().enumerate() {
        let first = offsets[sequence] as usize;
        let part = &x[first * VOCABULARY..][..length * VOCABULARY];
        let (loss, grads) = want(part, &labels[first..], &[length], length);
        losses_want.extend(loss);
        grads_want.extend(grads.into_iter().map(|grad| grad / lengths.len() as f64));
    }
    let spec = PlanSpec::new().input("input", DType::F32, &[11, VOCABULARY]).input("target", DType::I32, &[11]);
    let spec = spec.input("offsets", DType::I32, &[4]).group_offsets("offsets").grad("input");
    let bound = ctx
        .plan(&losses::sequence_cross_entropy(), &spec)
        .unwrap()
        .bind(
            &Bindings::new()
                .input("input", &Tensor::from_slice(ctx, &x, &[11, VOCABULARY]).unwrap())
                .input("target", &Tensor::from_slice(ctx, &labels, &[11]).unwrap())
                .input("offsets", &Tensor::from_slice(ctx, &offsets, &[4]).unwrap()),
        )
        .unwrap();
    bound.submit().unwrap();
    same("loss", &[f64::from(bound.read_loss().unwrap())], &[losses_want.iter().sum::<f64>() / 3.0], 2e-6);
    let got: Vec<f64> = bound.grad("input").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    same("gradient", &got, &grads_want, 2e-6);
}
