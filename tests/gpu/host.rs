//! Values of the host: labels in any integer type, masks of truth values, and what no tensor stores.

use crate::common::context;
use half::{bf16, f16};
use wgloss::{DType, Error, HostElement, HostTensor, Tensor, cpu, losses};

const LOGITS: [f32; 12] = [0.5, -1.0, 2.0, 0.0, 1.0, 3.0, -2.0, 0.25, 0.75, 1.5, -0.5, 1.0];
const LABELS: [i32; 4] = [2, 0, 1, 2];
const KEPT: [bool; 4] = [true, false, true, true];

/// The mean cross entropy of the rows that the mask keeps, by the book.
fn by_the_book() -> f64 {
    let of = |row: usize| {
        let x = LOGITS[3 * row..][..3].iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        x.iter().map(|x| x.exp()).sum::<f64>().ln() - x[LABELS[row] as usize]
    };
    (0..4).filter(|row| KEPT[*row]).map(of).sum::<f64>() / 3.0
}

fn check<T: HostElement>(labels: &[T], stored: DType) {
    let want = by_the_book();
    let host = [
        ("input", HostTensor::from_slice(&LOGITS, &[4, 3]).unwrap()),
        ("target", HostTensor::from_slice(labels, &[4]).unwrap()),
        ("mask", HostTensor::from_slice(&KEPT, &[4]).unwrap()),
    ];
    let got = cpu::forward_backward(&losses::cross_entropy(), &host, &[]).unwrap().loss().unwrap();
    assert!((got - want).abs() < 1e-12, "{got}, want {want}");
    let Some(ctx) = context() else { return };
    let x = Tensor::from_slice(ctx, &LOGITS, &[4, 3]).unwrap();
    let y = Tensor::from_slice(ctx, labels, &[4]).unwrap();
    let mask = Tensor::from_slice(ctx, &KEPT, &[4]).unwrap();
    assert_eq!((y.dtype(), mask.dtype()), (stored, DType::F32));
    let inputs = [("input", &x), ("target", &y), ("mask", &mask)];
    let got = f64::from(losses::cross_entropy().forward(ctx, &inputs).unwrap().loss().unwrap());
    assert!((got - want).abs() < 1e-6, "{got}, want {want}");
    // The next batch, into the same tensor.
    let reversed: Vec<T> = labels.iter().rev().copied().collect();
    y.write(ctx, &reversed).unwrap();
    let want: Vec<i32> = LABELS.iter().rev().copied().collect();
    let got: Vec<i32> = match stored {
        DType::U32 => y.to_vec::<u32>().unwrap().into_iter().map(|y| y as i32).collect(),
        _ => y.to_vec().unwrap(),
    };
    assert_eq!(got, want);
}

#[test]
fn labels_of_any_integer_type_and_masks_of_truth_values_count_as_those_of_i32_and_f32() {
    check(&LABELS, DType::I32);
    check(&LABELS.map(|y| y as u32), DType::U32);
    check(&LABELS.map(i64::from), DType::I32);
    check(&LABELS.map(|y| y as u64), DType::I32);
    check(&LABELS.map(|y| y as usize), DType::I32);
    check(&LABELS.map(|y| y as isize), DType::I32);
    check(&LABELS.map(|y| y as u8), DType::I32);
    check(&LABELS.map(|y| y as i8), DType::I32);
    check(&LABELS.map(|y| y as u16), DType::I32);
    check(&LABELS.map(|y| y as i16), DType::I32);
}

#[test]
fn a_label_that_32_bits_do_not_hold_is_named_and_nothing_is_written() {
    let labels = [0i64, 1, 1 << 35, 1 << 36];
    let is_named = |error: Error, call: &str| {
        let want = Error::Value {
            input: call.to_owned(),
            index: 2,
            found: "34359738368".to_owned(),
            allowed: "class indices have 32 bits, -2147483648 to 2147483647".to_owned(),
        };
        assert_eq!(error, want);
    };
    is_named(HostTensor::from_slice(&labels, &[4]).unwrap_err(), "from_slice");
    let array = ndarray::Array2::from_shape_vec((2, 2), labels.to_vec()).unwrap();
    is_named(HostTensor::from_array(&array).unwrap_err(), "from_array");
    assert!(matches!(HostTensor::from_slice(&labels[..1], &[2]), Err(Error::Shape { .. })));
    let Some(ctx) = context() else { return };
    is_named(Tensor::from_slice(ctx, &labels, &[4]).unwrap_err(), "from_slice");
    let tensor = Tensor::from_slice(ctx, &LABELS, &[4]).unwrap();
    is_named(tensor.write(ctx, &labels).unwrap_err(), "write");
    assert_eq!(tensor.to_vec::<i32>().unwrap(), LABELS);
    // Truth values are numbers, no class indices.
    assert!(matches!(tensor.write(ctx, &KEPT), Err(Error::DType { .. })));
}

#[test]
fn views_of_arrays_are_taken_in_their_logical_order() {
    let labels = ndarray::array![[0i64, 1, 2], [3, 4, 5]];
    let numbers = ndarray::array![[1.0f32, 2.0], [3.0, 4.0]];
    let turned = numbers.t();
    let turned = HostTensor::from_array(&turned).unwrap();
    let weights = [1.0f32, 10.0, 100.0, 1000.0];
    let loss = wgloss::Loss::define("weighed")
        .input("x", wgloss::Scope::Element)
        .input("w", wgloss::Scope::Element)
        .expr(|b| b.input("x") * b.input("w"))
        .reduction(wgloss::Reduction::Sum);
    let inputs = [("x", turned), ("w", HostTensor::from_slice(&weights, &[2, 2]).unwrap())];
    assert_eq!(cpu::forward_backward(&loss, &inputs, &[]).unwrap().loss().unwrap(), 1.0 + 30.0 + 200.0 + 4000.0);
    let Some(ctx) = context() else { return };
    let turned = Tensor::from_array(ctx, &labels.t()).unwrap();
    assert_eq!((turned.shape(), turned.to_vec::<i32>().unwrap()), (&[3, 2][..], vec![0, 3, 1, 4, 2, 5]));
    let mask = Tensor::from_array(ctx, &ndarray::array![true, false].view()).unwrap();
    assert_eq!(mask.to_vec::<f32>().unwrap(), [1.0, 0.0]);
}

#[test]
fn sixteen_bit_numbers_are_the_same_on_both_paths() {
    let (x, t) = ([1.5f32, -2.25], [0.5f32, 1.0]);
    let want = (1.0 + 3.25 * 3.25) / 2.0;
    let half = x.map(f16::from_f32);
    let brain = t.map(bf16::from_f32);
    let inputs = [
        ("input", HostTensor::from_slice(&half, &[2]).unwrap()),
        ("target", HostTensor::from_slice(&brain, &[2]).unwrap()),
    ];
    assert_eq!(cpu::forward_backward(&losses::mse(), &inputs, &[]).unwrap().loss().unwrap(), want);
    let Some(ctx) = context() else { return };
    let (x, t) = (Tensor::from_slice(ctx, &half, &[2]).unwrap(), Tensor::from_slice(ctx, &brain, &[2]).unwrap());
    assert_eq!((x.dtype(), t.dtype()), (DType::F16, DType::BF16));
    let got = losses::mse().forward(ctx, &[("input", &x), ("target", &t)]).unwrap().loss().unwrap();
    assert!((f64::from(got) - want).abs() < 1e-6);
}
