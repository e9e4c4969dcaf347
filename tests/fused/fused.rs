//! Operators beside losses go the way of a loss: planned, bound, encoded, explained.

use crate::common::context;
use wgloss::{Bindings, DType, Error, Kernel, Layout, Pinned, PlanSpec, Tensor, TuneOptions, Upstream, fused};

/// By the book, in f64.
fn softmax(row: &[f32]) -> Vec<f64> {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let of = |x: &f32| (f64::from(*x) - f64::from(largest)).exp();
    let sum: f64 = row.iter().map(of).sum();
    row.iter().map(|x| of(x) / sum).collect()
}

fn close(got: &[f32], want: &[f64]) {
    for (k, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() <= 2e-6 * want + 1e-30, "{k}: {got}, want {want}");
    }
}

#[test]
fn softmax_of_rows_is_that_of_the_book() {
    let Some(ctx) = context() else { return };
    // One column, a lane short of a workgroup, one more; more rows than a grid has groups is left to the loop.
    for (rows, cols) in [(3, 1), (5, 31), (4, 33), (2, 1000), (70_000, 3)] {
        let x: Vec<f32> = (0..rows * cols).map(|k| ((k * 37 % 101) as f32 - 50.0) * 0.7 + 1e4).collect();
        let tensor = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
        let plan = ctx.plan(&fused::softmax(), &PlanSpec::new().input("input", DType::F32, &[rows, cols])).unwrap();
        let bound = plan.bind(&Bindings::new().input("input", &tensor)).unwrap();
        bound.submit().unwrap();
        let got: Vec<f32> = bound.read(bound.extra("softmax").unwrap()).unwrap();
        let want: Vec<f64> = x.chunks(cols).flat_map(softmax).collect();
        close(&got, &want);
        assert_eq!(bound.bytes(), 8 * (rows * cols) as u64);
        assert!(plan.explain().contains(&format!("{rows} rows of {cols} columns")), "{}", plan.explain());
        assert_eq!(plan.kernels().unwrap().len(), 1);
    }
}

#[test]
fn rows_without_a_distribution_are_nan() {
    let Some(ctx) = context() else { return };
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let x = [0.0, -inf, nan, 0.0, inf, 0.0, -inf, -inf, 0.0, 0.0];
    let tensor = Tensor::from_slice(ctx, &x, &[5, 2]).unwrap();
    let plan = ctx.plan(&fused::softmax(), &PlanSpec::new().input("input", DType::F32, &[5, 2])).unwrap();
    let bound = plan.bind(&Bindings::new().input("input", &tensor)).unwrap();
    bound.submit().unwrap();
    let got: Vec<f32> = bound.read(bound.extra("softmax").unwrap()).unwrap();
    assert_eq!((&got[..2], &got[8..]), (&[1.0, 0.0][..], &[0.5, 0.5][..]));
    assert!(got[2..8].iter().all(|p| p.is_nan()), "{got:?}");
}

#[test]
fn views_fewer_rows_and_shared_buffers_are_taken() {
    let Some(ctx) = context() else { return };
    let x: Vec<f32> = (0..64).map(|k| (k * 7 % 13) as f32 * 0.3).collect();
    let buffer = Tensor::from_slice(ctx, &x, &[64]).unwrap();
    // Columns along the first axis of what is stored: [4, 6] of an [6, 4] from element 5; the result behind it.
    let layout = Layout { shape: vec![4, 6], strides: vec![1, 4] };
    let input = Tensor::from_buffer_strided(ctx, buffer.buffer().clone(), 5, DType::F32, layout.clone()).unwrap();
    let result = Tensor::from_buffer(ctx, buffer.buffer().clone(), 32, DType::F32, &[4, 6]).unwrap();
    let spec = PlanSpec::new().input_with("input", DType::F32, Layout { shape: vec![9, 6], strides: vec![1, 9] });
    let plan = ctx.plan(&fused::softmax(), &spec).unwrap().tune(&TuneOptions::new()).unwrap();
    let bound = plan.bind(&Bindings::new().input("input", &input).extra("softmax", &result)).unwrap();
    bound.submit().unwrap();
    let got: Vec<f32> = bound.read(bound.extra("softmax").unwrap()).unwrap();
    let want: Vec<f64> =
        (0..4).flat_map(|row| softmax(&(0..6).map(|col| x[5 + row + 4 * col]).collect::<Vec<f32>>())).collect();
    close(&got, &want);
}

#[test]
fn what_softmax_has_not_is_refused() {
    let Some(ctx) = context() else { return };
    let of = |spec: PlanSpec| ctx.plan(&fused::softmax(), &spec).unwrap_err();
    let spec = || PlanSpec::new().input("input", DType::F32, &[4, 6]);
    assert!(matches!(of(spec().grad("input")), Error::Unsupported { .. }));
    assert!(matches!(of(spec().extra("entropy")), Error::Unsupported { .. }));
    assert!(matches!(of(spec().input("weight", DType::F32, &[6])), Error::Name { .. }));
    assert!(matches!(of(PlanSpec::new()), Error::Name { .. }));
    for spec in
        [spec().denominator(), spec().upstream(Upstream::Scalar), spec().group_rows(2), spec().accumulate_loss()]
    {
        assert!(matches!(of(spec), Error::Unsupported { .. }));
    }
    let pinned = Pinned { kernel: Some(Kernel::Row), ..Pinned::default() };
    assert!(matches!(of(spec().pin(pinned)), Error::Unsupported { .. }));
    // A single value has no columns, or is a row of one; neither is a panic.
    if let Ok(plan) = ctx.plan(&fused::softmax(), &PlanSpec::new().input("input", DType::F32, &[])) {
        let one = Tensor::from_slice(ctx, &[3.0f32], &[]).unwrap();
        plan.bind(&Bindings::new().input("input", &one)).unwrap();
    }
    assert!(matches!(of(PlanSpec::new().input("input", DType::F16, &[4, 6])), Error::DType { .. }));
    assert!(matches!(of(PlanSpec::new().input("input", DType::F32, &[1 << 20, 1 << 12])), Error::Limit { .. }));
    let plan = ctx.plan(&fused::softmax(), &spec()).unwrap();
    let more = Tensor::zeros(ctx, DType::F32, &[5, 6]).unwrap();
    let error = plan.bind(&Bindings::new().input("input", &more)).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}
