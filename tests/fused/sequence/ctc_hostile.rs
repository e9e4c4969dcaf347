//! Lengths and labels out of range lead nowhere outside the tensors, and are told; what CTC has not is refused.

use super::oracle::CtcBatch;
use crate::common::context;
use crate::common::sequence::{Data, Sequence};
use wgloss::{
    Bindings, Context, DType, Error, GradMode, HostTensor, Limits, Operator, PlanSpec, Reduction, Shard, Tensor,
    Upstream, fused,
};

const MARGIN: usize = 64;
const CANARY: f32 = 123.5;

/// What a length or a label out of range makes of the batch.
fn check(ctx: &Context, batch: &CtcBatch, input: usize, at: usize, value: i32) {
    let mut both = batch.on_both(Sequence::Ctc(fused::ctc().from_logits().reduction(Reduction::None)), "logits");
    let Data::Indices(indices) = &mut both.inputs[input].2 else { panic!("an input of indices") };
    indices[at] = value;
    let sequence = if input == 1 { at / both.inputs[1].1[1] } else { at };
    let what = format!("{}[{at}] = {value}", both.inputs[input].0);
    let told = |error: &Error| match *error {
        Error::LabelOutOfRange { row, label, classes } => {
            assert_eq!((input, row, label, classes), (1, sequence as u64, i64::from(value), 5), "{what}");
        }
        Error::LengthOutOfRange { ref input, row, value: found, most } => {
            let (name, room) = if what.starts_with('i') { ("input_lengths", 7) } else { ("target_lengths", 3) };
            assert_eq!((input.as_str(), row, found, most), (name, sequence as u64, Some(value.into()), room), "{what}");
        }
        ref other => panic!("{what}: {other}"),
    };
    let elements = batch.x.len();
    let around = |fill: &dyn Fn(usize) -> f32| {
        let mut all = vec![CANARY; elements + 2 * MARGIN];
        (0..elements).for_each(|k| all[MARGIN + k] = fill(k));
        let whole = Tensor::from_slice(ctx, &all, &[all.len()]).unwrap();
        let inner = whole.view(MARGIN as u64, &[7, 3, 5], &[15, 5, 1]).unwrap();
        (whole, inner)
    };
    let ((_, logits), (whole, d_logits)) = (around(&|k| batch.x[k] as f32), around(&|_| 0.25));
    // Behind the indices of each tensor lie others that are hostile too.
    let index = |k: usize| {
        let (name, shape, Data::Indices(indices)) = &both.inputs[k] else { panic!("an input of indices") };
        let mut all = indices.clone();
        all.extend([i32::MAX, i32::MIN, -1, 77]);
        (*name, Tensor::from_slice(ctx, &all, &[all.len()]).unwrap(), shape.clone())
    };
    let rest = [index(1), index(2), index(3)].map(|(name, tensor, shape)| {
        let strides = if shape.len() == 2 { vec![shape[1], 1] } else { vec![1] };
        (name, tensor.view(0, &shape, &strides).unwrap())
    });
    let mut inputs = vec![("logits", &logits)];
    inputs.extend(rest.iter().map(|(name, tensor)| (*name, tensor)));
    let spec = PlanSpec::new().like(&inputs).grad("logits");
    let plan = ctx.plan(both.operator.as_operator(), &spec).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs).grad("logits", &d_logits)).unwrap();
    bound.submit().unwrap();
    let own = 5 * 3;
    let frames = if input == 2 { 7 } else { batch.lengths[sequence] as usize };
    for (k, g) in whole.to_vec::<f32>().unwrap().into_iter().enumerate() {
        match k.checked_sub(MARGIN).filter(|k| *k < elements) {
            None => assert_eq!(g, CANARY, "{what}: canary {k}"),
            Some(k) => {
                let is_own = k / 5 % 3 == sequence && k / own < frames;
                assert_eq!(g.is_nan(), is_own, "{what}: element {k} is {g}");
            }
        }
    }
    told(&bound.read_loss().unwrap_err());
    let losses: Vec<f32> = bound.read(bound.loss().unwrap()).unwrap();
    (0..3).for_each(|n| assert_eq!(losses[n].is_nan(), n == sequence, "{what}: {losses:?}"));
    // The host says the same.
    let mut out =
        fused::cpu::forward_backward(&fused::ctc().from_logits().reduction(Reduction::None), &both.host(), &["logits"])
            .unwrap();
    told(&out.loss().unwrap_err());
    assert!(out.take_bad_length().is_some() || out.take_bad_label().is_some());
    let losses = out.loss_values().unwrap();
    (0..3).for_each(|n| assert_eq!(losses[n].is_nan(), n == sequence, "{what}: {losses:?}"));
}

#[test]
fn hostile_lengths_and_labels_change_nothing_but_their_sequence() {
    let Some(ctx) = context() else { return };
    let batch = CtcBatch::random(7, 5, &[&[1, 2, 3], &[4, 4], &[1]], &[7, 6, 5], 1.0);
    for hostile in [i32::MAX, i32::MIN, -1, 0x4000_0000, 8] {
        check(ctx, &batch, 1, 1, hostile);
        check(ctx, &batch, 1, 4, hostile);
        (0..3).for_each(|n| check(ctx, &batch, 2, n, hostile));
        (0..3).for_each(|n| check(ctx, &batch, 3, n, hostile));
    }
    check(ctx, &batch, 1, 0, 5);
    check(ctx, &batch, 3, 0, 4);
}

#[test]
fn a_padding_that_is_none_poisons_its_sequence() {
    let labels = [1i32, 2, 1, 2];
    let (logits, zeros) = ([0.25f32; 2 * 3 * 4], [0.0f32; 6]);
    for bad in [0.5, f32::NAN, -1.0, 2.0] {
        let mut frames = zeros;
        frames[4] = bad;
        let mut of_labels = [0.0f32; 4];
        of_labels[1] = if bad == 0.5 { 0.5 } else { 0.0 };
        let is_nan = [bad == 0.5, true];
        let shapes: [(&str, &[f32], &[usize]); 3] = [
            ("logits", &logits, &[2, 3, 4]),
            ("logit_paddings", &frames, &[2, 3]),
            ("label_paddings", &of_labels, &[2, 2]),
        ];
        let mut inputs = shapes.map(|(name, values, shape)| (name, HostTensor::f32(values, shape))).to_vec();
        inputs.push(("labels", HostTensor::i32(&labels, &[2, 2])));
        let operator = fused::optax_ctc().reduction(Reduction::None);
        let out = fused::cpu::forward_backward(&operator, &inputs, &[]).unwrap();
        assert_eq!(out.loss_values().unwrap().iter().map(|l| l.is_nan()).collect::<Vec<_>>(), is_nan, "CPU, {bad}");
        let Some(ctx) = context() else { continue };
        let mut tensors =
            shapes.map(|(name, values, shape)| (name, Tensor::from_slice(ctx, values, shape).unwrap())).to_vec();
        tensors.push(("labels", Tensor::from_slice(ctx, &labels, &[2, 2]).unwrap()));
        let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let plan = ctx.plan(&operator, &PlanSpec::new().like(&inputs)).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        let losses: Vec<f32> = bound.read(bound.loss().unwrap()).unwrap();
        assert_eq!(losses.iter().map(|l| l.is_nan()).collect::<Vec<_>>(), is_nan, "GPU, {bad}: {losses:?}");
    }
}

/// A specification of which one input has another type or shape.
fn spec(other: Option<(&str, DType, &[usize])>) -> PlanSpec {
    let inputs: [(&str, DType, &[usize]); 4] = [
        ("log_probs", DType::F32, &[7, 3, 5]),
        ("targets", DType::I32, &[3, 2]),
        ("input_lengths", DType::I32, &[3]),
        ("target_lengths", DType::U32, &[3]),
    ];
    inputs.into_iter().fold(PlanSpec::new(), |spec, own| {
        let (name, dtype, shape) = other.filter(|other| other.0 == own.0).unwrap_or(own);
        spec.input(name, dtype, shape)
    })
}

#[test]
fn inputs_that_do_not_go_together_are_refused() {
    let of = |spec: PlanSpec| fused::ctc().prepare(&spec, &Limits::WEBGPU).err().unwrap();
    for (name, shape) in [
        ("log_probs", &[7, 3][..]),
        ("log_probs", &[7, 3, 0]),
        ("log_probs", &[7, 3, 5, 1]),
        ("targets", &[4, 2]),
        ("targets", &[6]),
        ("input_lengths", &[4]),
        ("input_lengths", &[]),
        ("target_lengths", &[3, 1]),
    ] {
        let dtype = if name == "log_probs" { DType::F32 } else { DType::I32 };
        let error = of(spec(Some((name, dtype, shape))));
        assert!(matches!(error, Error::Shape { .. }), "{name} {shape:?}: {error}");
    }
    for (name, dtype, shape) in [
        ("log_probs", DType::I32, &[7, 3, 5][..]),
        ("targets", DType::F32, &[3, 2]),
        ("input_lengths", DType::F32, &[3]),
    ] {
        assert!(matches!(of(spec(Some((name, dtype, shape)))), Error::DType { input, .. } if input == name));
    }
    assert!(matches!(of(spec(None).input("weight", DType::F32, &[5])), Error::Name { .. }));
    assert!(matches!(of(PlanSpec::new().input("log_probs", DType::F32, &[7, 3, 5])), Error::Name { .. }));
    assert!(matches!(of(spec(None).grad("targets")), Error::Name { .. }));
    assert!(matches!(of(spec(None).extra("entropy")), Error::Name { .. }));
    assert!(matches!(of(spec(None).without_loss()), Error::Expr { .. }));
    assert!(matches!(of(spec(None).grad("log_probs").grad_dtype("log_probs", DType::I32)), Error::DType { .. }));
    for spec in [
        spec(None).denominator(),
        spec(None).upstream(Upstream::Scalar),
        spec(None).hessian_diagonal("log_probs"),
        spec(None).group_rows(3),
        spec(None).grad("log_probs").found_inf(),
        spec(None).separate_backward(),
        spec(None).shard(Shard { first: 0, classes: 10, shards: 2 }),
    ] {
        assert!(matches!(of(spec), Error::Unsupported { .. }));
    }
}

#[test]
fn options_out_of_range_and_lattices_too_large_are_refused() {
    let of = |operator: &dyn Operator, spec: PlanSpec| operator.prepare(&spec, &Limits::WEBGPU).err().unwrap();
    assert!(matches!(of(&fused::ctc().blank(5), spec(None)), Error::Param { param, .. } if param == "blank"));
    let by = fused::ctc().reduction(Reduction::MeanOverPositive);
    assert!(matches!(of(&by, spec(None)), Error::Unsupported { .. }));
    let optax = |batch: usize| {
        PlanSpec::new()
            .input("logits", DType::F32, &[batch, 4, 5])
            .input("logit_paddings", DType::F32, &[batch, 4])
            .input("labels", DType::I32, &[batch, 2])
            .input("label_paddings", DType::F32, &[batch, 2])
    };
    for bad in [0.0, f64::NAN, f64::NEG_INFINITY, 1.0] {
        let error = of(&fused::optax_ctc().log_epsilon(bad), optax(2));
        assert!(matches!(error, Error::Param { ref param, .. } if param == "log_epsilon"), "{bad}: {error}");
    }
    assert!(matches!(of(&fused::optax_ctc().blank_id(9), optax(2)), Error::Param { param, .. } if param == "blank_id"));
    // 100,000 frames of 2,001 states, kept: 3.2 GB for one sequence.
    let large = PlanSpec::new()
        .input("log_probs", DType::F32, &[100_000, 1, 5])
        .input("targets", DType::I32, &[1, 1000])
        .input("input_lengths", DType::I32, &[1])
        .input("target_lengths", DType::I32, &[1])
        .grad("log_probs");
    let error = of(&fused::ctc(), large);
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    assert!(error.to_string().contains("one sequence of 100000 frames and 1000 labels"), "{error}");
}

#[test]
fn bound_tensors_are_as_planned_or_fewer() {
    let Some(ctx) = context() else { return };
    let plan = ctx.plan(&fused::ctc(), &spec(None).grad_mode("log_probs", GradMode::Accumulate)).unwrap();
    let zeros = |dtype: DType, shape: &[usize]| Tensor::zeros(ctx, dtype, shape).unwrap();
    let bind = |log_probs: Tensor, targets: Tensor| {
        let (frames, labels) = (zeros(DType::I32, &[3]), zeros(DType::U32, &[3]));
        let inputs =
            [("log_probs", &log_probs), ("targets", &targets), ("input_lengths", &frames), ("target_lengths", &labels)];
        plan.bind(&Bindings::new().inputs(&inputs).grad("log_probs", &zeros(DType::F32, log_probs.shape()))).err()
    };
    assert!(bind(zeros(DType::F32, &[5, 3, 5]), zeros(DType::I32, &[3, 1])).is_none());
    for shape in [[8, 3, 5], [7, 3, 4], [7, 2, 5]] {
        let error = bind(zeros(DType::F32, &shape), zeros(DType::I32, &[3, 2])).unwrap();
        assert!(matches!(error, Error::Shape { .. }), "{shape:?}: {error}");
    }
    let error = bind(zeros(DType::F16, &[7, 3, 5]), zeros(DType::I32, &[3, 2])).unwrap();
    assert!(matches!(error, Error::DType { .. }), "{error}");
}
