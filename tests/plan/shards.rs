//! Vocabulary-parallel steps: one tensor cut by its classes, against the whole of it.

use crate::common::compare::{assert_grads, mismatch, random, report};
use crate::common::{context, is_in_share};
use half::bf16;
use wgloss::{
    Bindings, Bound, Context, CpuOutput, DType, Error, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Shard,
    Tensor, cpu, losses,
};
use wgloss::{Upstream, Wanted};

/// A problem: element inputs `[rows, cols]`, class weights, labels.
struct Problem {
    loss: Loss,
    rows: usize,
    cols: usize,
    elements: Vec<(&'static str, Vec<f32>)>,
    weight: Option<Vec<f32>>,
    labels: Option<Vec<i32>>,
    grads: Vec<&'static str>,
    dtype: DType,
}

impl Problem {
    fn new(loss: impl Into<Loss>, rows: usize, cols: usize) -> Problem {
        let loss = loss.into();
        let ignores = loss.name() == "cross_entropy";
        let label = |row: usize| if ignores && row % 5 == 3 { -100 } else { (row * 7919 % cols) as i32 };
        let logits = random(rows * cols, 7).iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
        Problem {
            loss,
            rows,
            cols,
            elements: vec![("input", logits)],
            weight: None,
            labels: Some((0..rows).map(label).collect()),
            grads: vec!["input"],
            dtype: DType::F32,
        }
    }

    /// A second tensor of elements, as logits or as probabilities' logarithms, in place of the labels or with them.
    fn with(mut self, name: &'static str, labels: bool) -> Problem {
        let values = random(self.rows * self.cols, 11).iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
        self.elements.push((name, values));
        self.labels = self.labels.filter(|_| labels);
        self
    }

    fn distilled(self) -> Problem {
        let mut problem = self.with("teacher_logits", true);
        problem.elements[0].0 = "student_logits";
        Problem { grads: vec!["student_logits"], ..problem }
    }

    fn log_probabilities(mut self) -> Problem {
        for (_, values) in &mut self.elements {
            for row in values.chunks_mut(self.cols) {
                let sum: f32 = row.iter().map(|x| x.exp()).sum();
                row.iter_mut().for_each(|x| *x = bf16::from_f32(*x - sum.ln()).to_f32());
            }
        }
        self
    }

    fn on_cpu(&self) -> CpuOutput<f64> {
        let shape = [self.rows, self.cols];
        let mut inputs: Vec<(&str, HostTensor<'_>)> =
            self.elements.iter().map(|(name, values)| (*name, HostTensor::f32(values, &shape))).collect();
        let (weight_shape, label_shape) = ([self.cols], [self.rows]);
        inputs.extend(self.weight.iter().map(|w| ("weight", HostTensor::f32(w, &weight_shape))));
        inputs.extend(self.labels.iter().map(|y| ("target", HostTensor::i32(y, &label_shape))));
        let grads = self.grads.iter().map(|g| (*g).to_owned()).collect();
        let extras = self.extras().map(|e| (*e).to_owned()).collect();
        let wanted = Wanted { loss: true, grads, extras, ..Wanted::default() };
        cpu::run::<f64>(&self.loss, &inputs, &wanted).unwrap()
    }

    fn extras(&self) -> impl Iterator<Item = &'static &'static str> {
        let known = self.loss.extras();
        ["predicted", "correct", "entropy", "logsumexp"].iter().filter(move |name| known.contains(name))
    }

    fn tensor(&self, ctx: &Context, values: &[f32], shape: &[usize]) -> Tensor {
        match self.dtype {
            DType::BF16 => {
                let values: Vec<bf16> = values.iter().map(|x| bf16::from_f32(*x)).collect();
                Tensor::from_slice(ctx, &values, shape).unwrap()
            }
            _ => Tensor::from_slice(ctx, values, shape).unwrap(),
        }
    }

    /// The shard of these columns.
    fn shard(&self, ctx: &Context, columns: std::ops::Range<usize>, shards: u32) -> wgloss::Result<Bound> {
        let width = columns.len();
        let mut tensors: Vec<(&str, Tensor)> = Vec::new();
        for (name, values) in &self.elements {
            let part: Vec<f32> = values.chunks(self.cols).flat_map(|row| row[columns.clone()].to_vec()).collect();
            tensors.push((name, self.tensor(ctx, &part, &[self.rows, width])));
        }
        if let Some(weight) = &self.weight {
            tensors.push(("weight", Tensor::from_slice(ctx, &weight[columns.clone()], &[width])?));
        }
        if let Some(labels) = &self.labels {
            tensors.push(("target", Tensor::from_slice(ctx, labels, &[self.rows])?));
        }
        let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let spec = self.grads.iter().fold(PlanSpec::new().like(&inputs), |spec, grad| spec.grad(grad));
        let spec = self.extras().fold(spec, |spec, extra| spec.extra(extra));
        let shard = Shard { first: columns.start as u64, classes: self.cols as u64, shards };
        ctx.plan(&self.loss, &spec.shard(shard))?.bind(&Bindings::new().inputs(&inputs))
    }
}

fn submit(ctx: &Context, record: impl FnOnce(&mut wgpu::CommandEncoder)) {
    let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    record(&mut encoder);
    ctx.queue().submit([encoder.finish()]);
}

/// One step of all shards, whose states are copied to each.
fn step(ctx: &Context, shards: &[Bound]) {
    for exchange in 0..shards[0].exchanges() {
        for shard in shards {
            submit(ctx, |encoder| shard.encode_states(exchange, encoder).unwrap());
        }
        submit(ctx, |encoder| {
            for to in shards {
                let gathered = to.gathered(exchange).unwrap();
                for (place, from) in shards.iter().enumerate() {
                    let states = from.states(exchange).unwrap();
                    let bytes = 4 * states.shape().iter().product::<usize>() as u64;
                    let offset = bytes * place as u64;
                    encoder.copy_buffer_to_buffer(states.buffer(), 0, gathered.buffer(), offset, bytes);
                }
            }
        });
    }
    for shard in shards {
        submit(ctx, |encoder| {
            shard.encode_forward(encoder).unwrap();
            shard.encode_backward(encoder).unwrap();
        });
    }
}

fn grad_of(bound: &Bound, name: &str) -> Vec<f32> {
    let grad = bound.grad(name).unwrap();
    match grad.dtype() {
        DType::BF16 => grad.to_vec::<bf16>().unwrap().into_iter().map(bf16::to_f32).collect(),
        _ => grad.to_vec().unwrap(),
    }
}

fn check(problem: &Problem, cuts: &[usize], complaints: &mut Vec<String>) {
    let Some(ctx) = context() else { return };
    let Problem { rows, cols, .. } = *problem;
    let what = format!("{} {:?} [{rows}, {cols}] cut at {cuts:?}", problem.loss.name(), problem.dtype);
    let want = problem.on_cpu();
    let ends: Vec<usize> = cuts.iter().copied().chain([cols]).collect();
    let starts: Vec<usize> = [0].into_iter().chain(cuts.iter().copied()).collect();
    let ranges: Vec<std::ops::Range<usize>> = starts.iter().zip(&ends).map(|(a, b)| *a..*b).collect();
    let shards: Vec<Bound> =
        ranges.iter().map(|r| problem.shard(ctx, r.clone(), ranges.len() as u32).unwrap()).collect();
    assert!(shards[0].exchanges() > 0, "{what}");
    // Twice: the second step finds what the first one left.
    for _ in 0..2 {
        step(ctx, &shards);
        for (place, shard) in shards.iter().enumerate() {
            let got: Vec<f64> = shard.loss().unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
            let off = mismatch(&got, want.loss_values().unwrap(), 2e-6, |_| 1e-6);
            complaints.extend(off.map(|off| format!("{what}: loss of shard {place}: {off}")));
            for extra in problem.extras() {
                let got: Vec<f32> = shard.extra(extra).unwrap().to_vec().unwrap();
                let got: Vec<f64> = got.into_iter().map(f64::from).collect();
                let off = mismatch(&got, want.extra(extra).unwrap(), 3e-6, |_| 3e-6);
                complaints.extend(off.map(|off| format!("{what}: {extra} of shard {place}: {off}")));
            }
        }
        for name in &problem.grads {
            let parts: Vec<Vec<f32>> = shards.iter().map(|shard| grad_of(shard, name)).collect();
            let row = |row: usize| {
                let part = |(part, range): (&Vec<f32>, &std::ops::Range<usize>)| {
                    part[row * range.len()..][..range.len()].to_vec()
                };
                parts.iter().zip(&ranges).flat_map(part).collect::<Vec<f32>>()
            };
            let got: Vec<f32> = (0..rows).flat_map(row).collect();
            let want = want.grad(name).unwrap();
            if problem.dtype == DType::F32 {
                assert_grads(&what, &got, want, cols);
            } else {
                let got: Vec<f64> = got.into_iter().map(f64::from).collect();
                let largest = crate::common::compare::largest(want);
                let off = mismatch(&got, want, 1.0 / 256.0, |_| 2e-6 * largest);
                complaints.extend(off.map(|off| format!("{what}: gradient of {name}: {off}")));
            }
        }
    }
}

#[test]
fn shards_give_the_loss_and_gradient_of_the_whole() {
    let (rows, cols) = (9, 211);
    let weight: Vec<f32> = (0..cols).map(|c| 0.5 + (c % 7) as f32 / 4.0).collect();
    let weighted =
        |loss: losses::CrossEntropy| Problem { weight: Some(weight.clone()), ..Problem::new(loss, rows, cols) };
    let ce = losses::cross_entropy;
    let problems = || {
        vec![
            Problem::new(ce(), rows, cols),
            Problem::new(ce().reduction(Reduction::None), rows, cols),
            Problem::new(ce().label_smoothing(0.1).reduction(Reduction::Sum), rows, cols),
            Problem::new(ce().logit_scale(0.5).softcap(2.0).lse_square_scale(1e-2), rows, cols),
            Problem::new(ce().entropy_bonus(0.1), rows, cols),
            weighted(ce()),
            weighted(ce().label_smoothing(0.2)),
            Problem::new(losses::multiclass_focal(), rows, cols),
            Problem::new(losses::distillation(0.3, 2.0), rows, cols).distilled(),
            Problem::new(losses::jsd(0.5), rows, cols).with("target", false).log_probabilities(),
            Problem::new(losses::cross_entropy_prob().label_smoothing(0.1), rows, cols).with("target", false),
        ]
    };
    let mut complaints = Vec::new();
    let mut count = 0;
    // Two, three and eight shards, of even and of odd widths.
    for cuts in [&[100][..], &[64, 128], &[1, 2, 32, 63, 100, 144, 210]] {
        let dtypes = if cuts.len() == 2 { &[DType::F32, DType::BF16][..] } else { &[DType::F32] };
        let all = dtypes.iter().flat_map(|dtype| problems().into_iter().enumerate().map(|p| (*dtype, p)));
        for (dtype, (k, problem)) in all {
            // What is compiled for one problem is in one share, however it is cut.
            if !is_in_share(&format!("shards of problem {k}, {dtype}")) {
                continue;
            }
            check(&Problem { dtype, ..problem }, cuts, &mut complaints);
            count += 1;
        }
    }
    report(complaints, count);
}

#[test]
fn long_rows_are_shared_by_workgroups_of_a_shard() {
    let mut complaints = Vec::new();
    check(&Problem::new(losses::cross_entropy(), 1, 200_003), &[70_001], &mut complaints);
    report(complaints, 1);
}

#[test]
fn a_class_that_only_one_shard_allows() {
    // Everything but one class is −∞ in one shard, and all of the other: empty states are no NaN.
    let mut problem = Problem::new(losses::cross_entropy(), 2, 6);
    problem.elements[0].1 = vec![f32::NEG_INFINITY; 12];
    (problem.elements[0].1[1], problem.elements[0].1[7], problem.elements[0].1[8]) = (3.0, 1.0, 0.5);
    problem.labels = Some(vec![1, 2]);
    let mut complaints = Vec::new();
    check(&problem, &[3], &mut complaints);
    check(&problem, &[2], &mut complaints);
    report(complaints, 2);
}

#[test]
fn a_label_that_no_shard_has_is_reported_and_poisons_its_row() {
    let Some(ctx) = context() else { return };
    let mut problem = Problem::new(losses::cross_entropy().reduction(Reduction::None), 3, 10);
    problem.labels = Some(vec![9, 10, 0]);
    let shards = [problem.shard(ctx, 0..5, 2).unwrap(), problem.shard(ctx, 5..10, 2).unwrap()];
    step(ctx, &shards);
    for shard in &shards {
        let loss = shard.loss().unwrap().to_vec::<f32>().unwrap();
        assert!(loss[0].is_finite() && loss[1].is_nan() && loss[2].is_finite(), "{loss:?}");
        let error = pollster::block_on(shard.status()).unwrap_err();
        assert!(matches!(error, Error::LabelOutOfRange { row: 1, label: 10, classes: 10 }), "{error}");
    }
}

#[test]
fn nan_in_one_shard_is_nan_in_all() {
    let Some(ctx) = context() else { return };
    let mut problem = Problem::new(losses::cross_entropy().reduction(Reduction::None), 2, 10);
    problem.elements[0].1[17] = f32::NAN;
    let shards = [problem.shard(ctx, 0..5, 2).unwrap(), problem.shard(ctx, 5..10, 2).unwrap()];
    step(ctx, &shards);
    for shard in &shards {
        let loss = shard.loss().unwrap().to_vec::<f32>().unwrap();
        assert!(loss[0].is_finite() && loss[1].is_nan(), "{loss:?}");
        let grad = grad_of(shard, "input");
        assert!(grad[..5].iter().all(|g| g.is_finite()) && grad[5..].iter().all(|g| g.is_nan()), "{grad:?}");
    }
}

#[test]
fn nan_that_the_loss_does_not_depend_on_is_not_looked_at() {
    let Some(ctx) = context() else { return };
    let mut problem = Problem::new(losses::nll().reduction(Reduction::None), 2, 10);
    problem.labels = Some(vec![1, 7]);
    (problem.elements[0].1[3], problem.elements[0].1[17]) = (f32::NAN, f32::NAN);
    let shards = [problem.shard(ctx, 0..5, 2).unwrap(), problem.shard(ctx, 5..10, 2).unwrap()];
    step(ctx, &shards);
    for shard in &shards {
        let loss = shard.loss().unwrap().to_vec::<f32>().unwrap();
        assert!(loss[0].is_finite() && loss[1].is_nan(), "{loss:?}");
    }
}

#[test]
fn a_shard_whose_sums_hold_the_upstream_gradient() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[4, 6]).input("target", DType::I32, &[4]).grad("input");
    let spec = spec.upstream(Upstream::Scalar).shard(Shard { first: 0, classes: 12, shards: 2 });
    assert!(ctx.plan(&losses::cross_entropy(), &spec).is_ok());
    let error = ctx.plan(&losses::cross_entropy().entropy_bonus(0.1), &spec).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn shards_that_do_not_fit_their_classes() {
    let Some(ctx) = context() else { return };
    let spec = |shard: Shard| {
        let spec = PlanSpec::new().input("input", DType::F32, &[4, 6]).input("target", DType::I32, &[4]);
        ctx.plan(&losses::cross_entropy(), &spec.shard(shard))
    };
    for shard in [
        Shard { first: 5, classes: 10, shards: 2 },
        Shard { first: 0, classes: 10, shards: 0 },
        Shard { first: u64::MAX, classes: 10, shards: 2 },
        Shard { first: 0, classes: 1 << 31, shards: 2 },
    ] {
        let error = spec(shard).unwrap_err();
        assert!(matches!(&error, Error::Param { param, .. } if param == "shard"), "{error}");
    }
    let elementwise = PlanSpec::new().input("input", DType::F32, &[4]).input("target", DType::F32, &[4]);
    let shard = Shard { first: 0, classes: 4, shards: 1 };
    let error = ctx.plan(&losses::mse(), &elementwise.shard(shard)).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    // A shard's step cannot be encoded in one go, nor an exchange that there is not.
    let bound = Problem::new(losses::cross_entropy(), 4, 6).shard(ctx, 0..3, 2).unwrap();
    assert!(matches!(bound.submit(), Err(Error::Unsupported { .. })));
    assert!(matches!(bound.states(bound.exchanges()), Err(Error::Unsupported { .. })));
}

/// `L = x_0·x_k − x_1²` of each row.
fn crossed(k: usize, stated: Option<usize>) -> Loss {
    let definition = Loss::define("crossed").input("input", Scope::Element).row_axis(RowAxis::Last);
    let definition = stated.into_iter().fold(definition, |definition, cols| definition.cols(cols));
    definition.expr(move |b| {
        let x = b.input("input");
        x.column(0) * x.column(k) - x.column(1) * x.column(1)
    })
}

#[test]
fn a_fixed_column_may_be_of_another_shard() {
    let Some(ctx) = context() else { return };
    let problem = Problem { labels: None, ..Problem::new(crossed(7, None).reduction(Reduction::None), 3, 10) };
    let shards = [problem.shard(ctx, 0..2, 2).unwrap(), problem.shard(ctx, 2..10, 2).unwrap()];
    step(ctx, &shards);
    for (shard, columns) in shards.iter().zip([0..2usize, 2..10]) {
        let (loss, grad) = (shard.loss().unwrap().to_vec::<f32>().unwrap(), grad_of(shard, "input"));
        for (row, x) in problem.elements[0].1.chunks(10).enumerate() {
            let want = f64::from(x[0]) * f64::from(x[7]) - f64::from(x[1]) * f64::from(x[1]);
            assert!((f64::from(loss[row]) - want).abs() < 1e-5, "{loss:?}");
            let slope = |col: usize| match col {
                0 => x[7],
                1 => -2.0 * x[1],
                7 => x[0],
                _ => 0.0,
            };
            let want: Vec<f32> = columns.clone().map(slope).collect();
            assert_eq!(grad[row * want.len()..][..want.len()], want, "row {row}");
        }
    }
    // All classes count, not the shard's columns.
    let plan = |loss: &Loss, classes: u64| {
        let shard = Shard { first: 0, classes, shards: 2 };
        ctx.plan(loss, &PlanSpec::new().input("input", DType::F32, &[3, 2]).shard(shard)).map(|_| ())
    };
    for (loss, classes) in [(crossed(7, None), 7), (crossed(3, Some(4)), 5)] {
        assert!(matches!(plan(&loss, classes), Err(Error::Param { param, .. }) if param == "shard"));
    }
    assert_eq!((plan(&crossed(7, None), 8), plan(&crossed(3, Some(4)), 4)), (Ok(()), Ok(())));
}
