//! Losses over different shapes in one plan and one number.

use crate::common::context;
use half::f16;
use wgloss::{
    Bindings, DType, Error, GradMode, HostTensor, Limits, Loss, Operator, PlanSpec, Reduction, Shard, Tensor, Upstream,
    losses,
};

const LOGITS: [f32; 6] = [1.0, -0.5, 2.0, 0.25, 0.0, -1.0];
const LABELS: [i32; 2] = [2, 0];
const WEIGHTS: [f32; 5] = [0.5, -1.0, 2.0, 0.0, 3.0];

/// Mean cross-entropy of logits over `t`, rows of `cols`, and its gradient, by the book.
fn cross_entropy(logits: &[f32], labels: &[i32], t: f64) -> (f64, Vec<f64>) {
    let (cols, n) = (logits.len() / labels.len(), labels.len() as f64);
    let (mut sum, mut grads) = (0.0, Vec::new());
    for (row, label) in logits.chunks(cols).zip(labels) {
        let z: Vec<f64> = row.iter().map(|x| f64::from(*x) / t).collect();
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        sum += total.ln() - z[*label as usize];
        let hot = |col: usize| f64::from(u8::from(col == *label as usize));
        grads.extend(z.iter().enumerate().map(|(col, z)| (z.exp() / total - hot(col)) / (n * t)));
    }
    (sum / n, grads)
}

/// `factor/2·Σ w²` and its gradient.
fn penalty(weights: &[f32], factor: f64) -> (f64, Vec<f64>) {
    let w: Vec<f64> = weights.iter().map(|w| f64::from(*w)).collect();
    (factor / 2.0 * w.iter().map(|w| w * w).sum::<f64>(), w.iter().map(|w| factor * w).collect())
}

fn near(what: &str, got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (k, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(*got) - want).abs();
        assert!(off <= 2e-6 * want.abs().max(0.1), "{what}[{k}] is {got}, want {want}");
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec().unwrap()
}

#[test]
fn a_penalty_stands_beside_a_cross_entropy() {
    let loss = losses::cross_entropy().beside(0.5 * losses::l2_penalty(0.1));
    let (ce, l2) = (cross_entropy(&LOGITS, &LABELS, 1.0), penalty(&WEIGHTS, 0.05));
    let host = [
        ("input", HostTensor::f32(&LOGITS, &[2, 3])),
        ("target", HostTensor::i32(&LABELS, &[2])),
        ("w", HostTensor::f32(&WEIGHTS, &[5])),
    ];
    let (value, grads) = loss.on_cpu(&host, &["w", "input"]).unwrap();
    assert!((value - ce.0 - l2.0).abs() < 1e-7, "{value}");
    let narrow = |values: &[f64]| values.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    near("d_w on the CPU", &narrow(&grads[0]), &l2.1);
    near("d_input on the CPU", &narrow(&grads[1]), &ce.1);
    let Some(ctx) = context() else { return };
    let x = Tensor::from_slice(ctx, &LOGITS, &[2, 3]).unwrap();
    let y = Tensor::from_slice(ctx, &LABELS, &[2]).unwrap();
    let w = Tensor::from_slice(ctx, &WEIGHTS, &[5]).unwrap();
    let up = Tensor::from_slice(ctx, &[2.0f32], &[]).unwrap();
    let inputs = [("input", &x), ("target", &y), ("w", &w), ("upstream", &up)];
    let spec = PlanSpec::new().like(&inputs).grad("input").grad_mode("w", GradMode::InPlace).accumulate_loss();
    let plan = ctx.plan(&loss, &spec.upstream(Upstream::Scalar).extra("entropy").denominator()).unwrap();
    let total = Tensor::from_slice(ctx, &[10.0f32], &[]).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs).loss(&total)).unwrap();
    bound.submit().unwrap();
    near("loss", &values(&total), &[10.0 + ce.0 + l2.0]);
    let doubled = |grads: &[f64]| grads.iter().map(|g| 2.0 * g).collect::<Vec<f64>>();
    near("d_input", &values(bound.grad("input").unwrap()), &doubled(&ce.1));
    near("d_w over w", &values(&w), &doubled(&l2.1));
    assert_eq!(values(bound.denominator().unwrap()), [2.0]);
    assert_eq!(bound.extra("entropy").unwrap().shape(), [2]);
    // Another step, with other options: the first loss keeps its own.
    w.write(ctx, &WEIGHTS).unwrap();
    total.write(ctx, &[0.0f32]).unwrap();
    bound.set_param("l2_penalty.lambda", 0.4).unwrap();
    bound.set_param("l2_penalty.weight", 1.0).unwrap();
    bound.set_param("cross_entropy.ignore_index", 2.0).unwrap();
    bound.submit().unwrap();
    let (ce, l2) = (cross_entropy(&LOGITS[3..], &LABELS[1..], 1.0), penalty(&WEIGHTS, 0.4));
    near("loss of other options", &values(&total), &[ce.0 + l2.0]);
    assert!(matches!(bound.set_param("lambda", 0.1), Err(Error::Name { .. })));
    let special = bound.set_param("cross_entropy.label_smoothing", 0.1).unwrap_err();
    assert!(special.to_string().contains("plan again"), "{special}");
    let explained = bound.explain();
    assert!(explained.contains("cross_entropy:") && explained.contains("l2_penalty:"), "{explained}");
}

/// Three heads of different widths, two of which have scalars of 32 and 16 bits: no loss reads the scalars of another.
#[test]
fn heads_of_different_widths_have_scalars_and_labels_of_their_own() {
    let Some(ctx) = context() else { return };
    let head = |name: &str| {
        let own = |input: &str| format!("{name}_{input}");
        losses::cross_entropy().rename_input("input", &own("input")).rename_input("target", &own("target"))
    };
    let loss =
        losses::cross_entropy().temperature("t").beside(head("second").temperature("u") * "s").beside(head("third"));
    assert_eq!(loss.name(), "cross_entropy beside s*cross_entropy beside cross_entropy");
    let wide: Vec<f32> = (0..4 * 70).map(|k| ((k * 37) % 23) as f32 * 0.2 - 2.0).collect();
    let (wide_labels, third_labels) = ([3i32, 69, 0, 11], [1i32]);
    let third = [0.5f32, 1.5];
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(ctx, values, shape).unwrap();
    let labels = |labels: &[i32]| Tensor::from_slice(ctx, labels, &[labels.len()]).unwrap();
    let halves = |x: f32| Tensor::from_slice(ctx, &[f16::from_f32(x)], &[]).unwrap();
    let (x, y) = (tensor(&LOGITS, &[2, 3]), labels(&LABELS));
    let (x2, y2) = (tensor(&wide, &[4, 70]), labels(&wide_labels));
    let (x3, y3) = (tensor(&third, &[1, 2]), labels(&third_labels));
    let (t, u, s) = (tensor(&[2.0], &[]), halves(0.5), tensor(&[3.0], &[]));
    let inputs = [
        ("input", &x),
        ("target", &y),
        ("t", &t),
        ("second_input", &x2),
        ("second_target", &y2),
        ("u", &u),
        ("s", &s),
        ("third_input", &x3),
        ("third_target", &y3),
    ];
    let grads = ["input", "second_input", "third_input", "t", "u", "s"];
    let spec =
        grads.iter().fold(PlanSpec::new().like(&inputs), |spec, name| spec.grad(name)).grad_dtype("u", DType::F32);
    let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
    let check = |t: f64, s: f64| {
        bound.submit().unwrap();
        let first = cross_entropy(&LOGITS, &LABELS, t);
        let second = cross_entropy(&wide, &wide_labels, 0.5);
        let last = cross_entropy(&third, &third_labels, 1.0);
        near("loss", &[bound.read_loss().unwrap()], &[first.0 + s * second.0 + last.0]);
        let got = |name: &str| values(bound.grad(name).unwrap());
        near("d_input", &got("input"), &first.1);
        near("d_second_input", &got("second_input"), &second.1.iter().map(|g| s * g).collect::<Vec<f64>>());
        near("d_third_input", &got("third_input"), &last.1);
        near("d_s", &got("s"), &[second.0]);
        let slope = |of: &dyn Fn(f64) -> f64, at: f64| (of(at + 1e-5) - of(at - 1e-5)) / 2e-5;
        near("d_t", &got("t"), &[slope(&|t| cross_entropy(&LOGITS, &LABELS, t).0, t)]);
        near("d_u", &got("u"), &[s * slope(&|t| cross_entropy(&wide, &wide_labels, t).0, 0.5)]);
    };
    check(2.0, 3.0);
    t.write(ctx, &[0.75f32]).unwrap();
    s.write(ctx, &[-1.0f32]).unwrap();
    check(0.75, -1.0);
    // A label out of range in a later head is reported too, once, and poisons the sum.
    y3.write(ctx, &[7i32]).unwrap();
    bound.submit().unwrap();
    let bad = Error::LabelOutOfRange { row: 0, label: 7, classes: 2 };
    assert_eq!(bound.read_loss(), Err(bad));
    assert!(bound.read_loss().unwrap().is_nan());
    near("d_input beside it", &values(bound.grad("input").unwrap()), &cross_entropy(&LOGITS, &LABELS, 0.75).1);
}

#[test]
fn a_shared_input_has_the_sum_of_the_gradients() {
    let loss = losses::mse().beside(losses::l2_penalty(0.5).rename_input("w", "input"));
    let (x, t) = ([3.0f32, -1.0, 0.5], [1.0f32, 0.0, 0.5]);
    let l2 = penalty(&x, 0.5);
    let r: Vec<f64> = x.iter().zip(&t).map(|(x, t)| f64::from(x - t)).collect();
    let value = r.iter().map(|r| r * r).sum::<f64>() / 3.0 + l2.0;
    let d_x: Vec<f64> = r.iter().zip(&l2.1).map(|(r, l2)| 2.0 * r / 3.0 + l2).collect();
    let host = [("input", HostTensor::f32(&x, &[3])), ("target", HostTensor::f32(&t, &[3]))];
    let (on_cpu, grads) = loss.on_cpu(&host, &["input"]).unwrap();
    assert!((on_cpu - value).abs() < 1e-9);
    assert!(grads[0].iter().zip(&d_x).all(|(got, want)| (got - want).abs() < 1e-9));
    let Some(ctx) = context() else { return };
    let [x, t] = [x, t].map(|values| Tensor::from_slice(ctx, &values, &[3]).unwrap());
    let inputs = [("input", &x), ("target", &t)];
    for (mode, before) in [(GradMode::Write, 0.0), (GradMode::Accumulate, 7.0)] {
        let grad = Tensor::from_slice(ctx, &[7.0f32; 3], &[3]).unwrap();
        let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad_mode("input", mode)).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs).grad("input", &grad)).unwrap();
        bound.submit().unwrap();
        near("loss", &[bound.read_loss().unwrap()], &[value]);
        near("d_input", &values(&grad), &d_x.iter().map(|d| d + before).collect::<Vec<f64>>());
    }
    // Without the loss, and of one loss alone.
    let spec = PlanSpec::new().like(&inputs).grad("target").without_loss();
    let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    near("d_target", &values(bound.grad("target").unwrap()), &r.iter().map(|r| -2.0 * r / 3.0).collect::<Vec<f64>>());
}

#[test]
fn tied_tensors_gather_both_gradients() {
    let Some(ctx) = context() else { return };
    // One matrix is two inputs: an embedding and a head, say.
    let loss = losses::l2_penalty(0.5).beside(losses::l1_penalty(2.0).rename_input("w", "v"));
    let w = Tensor::from_slice(ctx, &WEIGHTS, &[5]).unwrap();
    let grad = Tensor::from_slice(ctx, &[1.0f32; 5], &[5]).unwrap();
    let inputs = [("w", &w), ("v", &w)];
    let plan = |modes: [GradMode; 2]| {
        let spec = PlanSpec::new().like(&inputs).grad_mode("w", modes[0]).grad_mode("v", modes[1]);
        ctx.plan(&loss, &spec).unwrap()
    };
    let bindings = Bindings::new().inputs(&inputs).grad("w", &grad).grad("v", &grad);
    let bound = plan([GradMode::Accumulate; 2]).bind(&bindings).unwrap();
    bound.submit().unwrap();
    let want = WEIGHTS.map(|w| 1.0 + 0.5 * f64::from(w) + 2.0 * if w == 0.0 { 0.0 } else { f64::from(w.signum()) });
    near("d_w + d_v", &values(&grad), &want);
    for modes in [[GradMode::Write, GradMode::Accumulate], [GradMode::Accumulate, GradMode::Write]] {
        let refused = plan(modes).bind(&bindings).unwrap_err();
        assert!(matches!(&refused, Error::Alias { first, .. } if first == "gradient of w"), "{refused}");
    }
    // Both in one dispatch: what it adds to one, it would not see in the other.
    let [x, t] = [[1.0f32, 2.0], [0.5, 0.0]].map(|values| Tensor::from_slice(ctx, &values, &[2]).unwrap());
    let inputs = [("input", &x), ("target", &t)];
    let spec = PlanSpec::new().like(&inputs).grad_mode("input", GradMode::Accumulate);
    let plan = ctx.plan(&losses::mse(), &spec.grad_mode("target", GradMode::Accumulate)).unwrap();
    let grad = Tensor::zeros(ctx, DType::F32, &[2]).unwrap();
    let bindings = Bindings::new().inputs(&inputs).grad("input", &grad).grad("target", &grad);
    assert!(matches!(plan.bind(&bindings), Err(Error::Alias { .. })));
}

#[test]
fn what_does_not_stand_beside_is_an_error() {
    let limits = Limits::preset("webgpu").unwrap();
    let spec = || {
        let spec = PlanSpec::new().input("input", DType::F32, &[2, 3]).input("target", DType::I32, &[2]);
        spec.input("w", DType::F32, &[5])
    };
    let beside = || losses::cross_entropy().beside(losses::l2_penalty(0.1));
    let error = |loss: &dyn Operator, spec: PlanSpec| loss.prepare(&spec, &limits).err().expect("an error");
    let many = Loss::from(losses::cross_entropy()).reduction(Reduction::None).beside(losses::l2_penalty(0.1));
    let message =
        "expression of cross_entropy: beside another loss it must be one number; give it a reduction other than None";
    assert_eq!(error(&many, spec()).to_string(), message);
    let unknown = |spec: PlanSpec, what: &str| {
        let error = error(&beside(), spec);
        assert!(matches!(&error, Error::Name { name, .. } if name == what), "{error}");
    };
    unknown(spec().input("v", DType::F32, &[5]), "v");
    unknown(spec().grad("v"), "v");
    unknown(spec().extra("v"), "v");
    unknown(PlanSpec::new().input("w", DType::F32, &[5]), "input");
    let unsupported = |loss: &dyn Operator, spec: PlanSpec| {
        let error = error(loss, spec);
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    };
    unsupported(&beside(), spec().separate_backward());
    unsupported(&beside(), spec().shard(Shard { first: 0, classes: 3, shards: 1 }));
    let shared = losses::cross_entropy().beside(losses::l2_penalty(0.1).rename_input("w", "input"));
    let two = || PlanSpec::new().input("input", DType::F32, &[2, 3]).input("target", DType::I32, &[2]);
    unsupported(&shared, two().grad_mode("input", GradMode::InPlace));
    unsupported(&shared, two().hessian_diagonal("input"));
    // A scalar here, elements there.
    let kinds = losses::mse().beside(losses::huber("w")).beside(losses::l2_penalty(0.1));
    let spec = PlanSpec::new().input("input", DType::F32, &[3]).input("target", DType::F32, &[3]);
    let mixed = error(&kinds, spec.input("w", DType::F32, &[]));
    assert!(matches!(&mixed, Error::Expr { message, .. } if message.contains("rename_input")), "{mixed}");
}
