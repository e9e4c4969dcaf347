//! Scalar inputs of 16 bits and their gradients: half a word each, wherever it lies in its buffer.

use crate::common::context;
use half::{bf16, f16};
use wgloss::Upstream;
use wgloss::{
    Bindings, Context, DType, Element, Error, GradMode, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, losses,
};

/// A buffer of canaries with one value among them.
fn among<T: Element>(ctx: &Context, canary: T, value: T, offset: usize) -> (Tensor, Tensor) {
    let mut all = vec![canary; 12];
    all[offset] = value;
    let whole = Tensor::from_slice(ctx, &all, &[12]).unwrap();
    let one = whole.view(offset as u64, &[], &[]).unwrap();
    (whole, one)
}

/// (x·s − s²)², over elements alone and over rows.
fn scaled(row_axis: RowAxis) -> Loss {
    let loss = Loss::define("scaled").input("x", Scope::Element).input("s", Scope::Scalar).row_axis(row_axis);
    let loss = loss.expr(move |b| {
        let (x, s) = (b.input("x"), b.input("s"));
        let x = if row_axis == RowAxis::None { x } else { x.mean() };
        let off = x * s - s * s;
        off * off
    });
    loss.reduction(Reduction::Sum)
}

/// Its gradient with respect to s.
fn slope(row_axis: RowAxis, x: &[f32], cols: usize, s: f64) -> f64 {
    let values: Vec<f64> = match row_axis {
        RowAxis::None => x.iter().map(|x| f64::from(*x)).collect(),
        _ => x.chunks(cols).map(|row| row.iter().map(|x| f64::from(*x)).sum::<f64>() / cols as f64).collect(),
    };
    values.iter().map(|x| 2.0 * (x * s - s * s) * (x - 2.0 * s)).sum()
}

fn check_gradient<T: Element + PartialEq>(ctx: &Context, narrow: fn(f32) -> T, widen: fn(T) -> f64, ulp: f64) {
    let (rows, cols, s) = (5, 7, 0.75f32);
    let x: Vec<f32> = (0..rows * cols).map(|k| (k % 11) as f32 * 0.5 - 2.0).collect();
    let xs = Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap();
    let ss = Tensor::from_slice(ctx, &[s], &[]).unwrap();
    let inputs = [("x", &xs), ("s", &ss)];
    let (canary, old) = (narrow(-7.0), narrow(3.0));
    for row_axis in [RowAxis::None, RowAxis::Last] {
        let want = slope(row_axis, &x, cols, f64::from(s));
        for mode in [GradMode::Write, GradMode::Accumulate] {
            let want = if mode == GradMode::Accumulate { want + 3.0 } else { want };
            let spec = PlanSpec::new().like(&inputs).grad("x").grad_mode("s", mode).grad_dtype("s", T::DTYPE);
            let plan = ctx.plan(&scaled(row_axis), &spec).unwrap();
            for offset in 0..12 {
                let what = format!("{} {row_axis:?} {mode:?} at {offset}", T::DTYPE);
                let (whole, one) = among(ctx, canary, old, offset);
                let bound = plan.bind(&Bindings::new().inputs(&inputs).grad("s", &one)).unwrap();
                bound.submit().unwrap();
                let all: Vec<T> = whole.to_vec().unwrap();
                let got = widen(all[offset]);
                assert!((got - want).abs() <= ulp * want.abs(), "{what}: {got}, want {want}");
                let kept = all.iter().enumerate().all(|(k, value)| k == offset || *value == canary);
                assert!(kept, "{what}: neighbours changed, {:?}", all.iter().map(|x| widen(*x)).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn the_gradient_of_a_scalar_leaves_its_neighbours_alone() {
    let Some(ctx) = context() else { return };
    check_gradient(ctx, f16::from_f32, f64::from, 5e-4);
    check_gradient(ctx, bf16::from_f32, f64::from, 4e-3);
    check_gradient(ctx, |x| x, f64::from, 1e-6);
}

#[test]
fn the_gradient_of_a_scalar_of_sixteen_bits_has_its_type() {
    let Some(ctx) = context() else { return };
    let xs = Tensor::from_slice(ctx, &[1.0f32, 2.0, 3.0], &[3]).unwrap();
    let ss = Tensor::from_slice(ctx, &[f16::from_f32(0.5)], &[]).unwrap();
    let out = scaled(RowAxis::None).forward_backward_of(ctx, &[("x", &xs), ("s", &ss)], &["s"]).unwrap();
    let want = slope(RowAxis::None, &[1.0, 2.0, 3.0], 3, 0.5);
    let got = f64::from(out.grad("s").unwrap().to_vec::<f16>().unwrap()[0]);
    assert!((got - want).abs() <= 5e-4 * want.abs(), "{got}, want {want}");
}

/// `n`, `s` and the upstream gradient, of which `T` holds 2, 3 and 5, at every offset.
fn check_inputs<T: Element>(ctx: &Context, narrow: fn(f32) -> T) {
    let x: Vec<f32> = (0..40).map(|k| k as f32 * 0.25 - 3.0).collect();
    let xs = Tensor::from_slice(ctx, &x, &[8, 5]).unwrap();
    let zeros = Tensor::zeros(ctx, DType::F32, &[8, 5]).unwrap();
    let labels = Tensor::from_slice(ctx, &[0i32, 1, 2, 3, 4, 0, 1, 2], &[8]).unwrap();
    let plain = |loss: Loss, target: &Tensor| {
        let out = loss.reduction(Reduction::Sum).forward_backward(ctx, &[("input", &xs), ("target", target)]).unwrap();
        (out.loss().unwrap(), out.grad("input").unwrap().to_vec::<f32>().unwrap())
    };
    for (loss, target) in [(losses::mse as fn() -> Loss, &zeros), (|| losses::cross_entropy().into(), &labels)] {
        let (sum, grads) = plain(loss(), target);
        let loss = loss().reduction(Reduction::By("n".to_owned())).scaled_by("s");
        for offset in 0..6 {
            let one = |value: f32, at: usize| among(ctx, narrow(99.0), narrow(value), at).1;
            let (n, s, up) = (one(2.0, offset), one(3.0, offset + 1), one(5.0, offset + 5));
            let inputs = [("input", &xs), ("target", target), ("n", &n), ("s", &s), ("upstream", &up)];
            let spec = PlanSpec::new().grad("input").upstream(Upstream::Scalar);
            let out = loss.run(ctx, &inputs, &spec).unwrap();
            let what = format!("{} {} at {offset}", loss.name(), T::DTYPE);
            let close = |got: f32, want: f32| (got - want).abs() <= 2e-6 * want.abs().max(1e-3);
            assert!(close(out.loss().unwrap(), sum * 1.5), "{what}: {}, want {}", out.loss().unwrap(), sum * 1.5);
            for (got, want) in out.grad("input").unwrap().to_vec::<f32>().unwrap().iter().zip(&grads) {
                assert!(close(*got, want * 7.5), "{what}: {got}, want {}", want * 7.5);
            }
        }
    }
}

#[test]
fn scalars_are_read_wherever_they_lie() {
    let Some(ctx) = context() else { return };
    check_inputs(ctx, f16::from_f32);
    check_inputs(ctx, bf16::from_f32);
    check_inputs(ctx, |x| x);
}

#[test]
fn a_backward_part_reads_an_upstream_of_sixteen_bits_when_it_runs() {
    let Some(ctx) = context() else { return };
    let xs = Tensor::from_slice(ctx, &[1.0f32, -2.0, 0.5, 4.0], &[4]).unwrap();
    let zeros = Tensor::zeros(ctx, DType::F32, &[4]).unwrap();
    let up = Tensor::from_slice(ctx, &[bf16::from_f32(1.0); 2], &[2]).unwrap();
    let second = up.view(1, &[], &[]).unwrap();
    let inputs = [("input", &xs), ("target", &zeros), ("upstream", &second)];
    let spec = PlanSpec::new().like(&inputs).grad("input").upstream(Upstream::Scalar).separate_backward();
    let plan = ctx.plan(&losses::mse().reduction(Reduction::Sum), &spec).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    for (value, forward) in [(2.0, true), (-3.0, false)] {
        let run = |encode: &dyn Fn(&mut wgpu::CommandEncoder)| {
            let mut encoder = ctx.device().create_command_encoder(&Default::default());
            encode(&mut encoder);
            ctx.queue().submit([encoder.finish()]);
        };
        if forward {
            run(&|encoder| bound.encode_forward(encoder).unwrap());
        }
        up.write(ctx, &[bf16::from_f32(9.0), bf16::from_f32(value)]).unwrap();
        run(&|encoder| bound.encode_backward(encoder).unwrap());
        let want = [2.0, -4.0, 1.0, 8.0].map(|x| x * value);
        assert_eq!(bound.grad("input").unwrap().to_vec::<f32>().unwrap(), want);
    }
}

#[test]
fn losses_and_extras_are_single_precision() {
    let Some(ctx) = context() else { return };
    let logits = Tensor::zeros(ctx, DType::F16, &[2, 3]).unwrap();
    let labels = Tensor::zeros(ctx, DType::I32, &[2]).unwrap();
    let inputs = [("input", &logits), ("target", &labels)];
    let spec = PlanSpec::new().like(&inputs).extra("entropy");
    let plan = ctx.plan(&losses::cross_entropy(), &spec).unwrap();
    let halves = Tensor::zeros(ctx, DType::F16, &[2]).unwrap();
    let half = halves.view(1, &[], &[]).unwrap();
    let refused = |bindings: Bindings| matches!(plan.bind(&bindings.inputs(&inputs)), Err(Error::DType { .. }));
    assert!(refused(Bindings::new().loss(&half)) && refused(Bindings::new().extra("entropy", &halves)));
}
