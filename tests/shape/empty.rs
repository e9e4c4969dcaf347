//! Batches of no rows: sums of nothing, gradients of nothing, on GPU and CPU. Want is what the formulas of the reductions
//! give for no values, written out.

use crate::common::context;
use half::f16;
use wgloss::cpu::CpuPlan;
use wgloss::{
    Bindings, Context, CpuOutput, DType, Error, GradMode, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Shard,
    Tensor, TuneOptions, Upstream, Wanted, cpu, fused, losses,
};

const NAN: f64 = f64::NAN;

fn assert_same(what: &str, got: &[f64], want: &[f64]) {
    let same = |(got, want): (&f64, &f64)| got == want || got.is_nan() && want.is_nan();
    assert!(got.len() == want.len() && got.iter().zip(want).all(same), "{what}: {got:?}, want {want:?}");
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// Classes of `shape`, at axis 1, and its rows.
fn of_rows(shape: &[usize]) -> Vec<usize> {
    let mut rows = shape.to_vec();
    rows.remove(1);
    rows
}

/// A plan of these f32 inputs (labels where the name is `target` and the shape that of rows), run once.
fn run(ctx: &Context, loss: &Loss, inputs: &[(&str, &Tensor)], spec: PlanSpec) -> wgloss::Bound {
    let bound = ctx.plan(loss, &spec.like(inputs)).unwrap().bind(&Bindings::new().inputs(inputs)).unwrap();
    bound.submit().unwrap();
    pollster::block_on(bound.status()).expect("no row has a bad label");
    bound
}

#[test]
fn every_reduction_of_no_rows_is_that_of_no_values() {
    // [0, 5]: no rows; [0, 5, 3], [4, 5, 0]: an axis of rows is empty, the first one or another.
    for shape in [&[0, 5][..], &[0, 5, 3], &[4, 5, 0]] {
        let batch = shape[0] as f64;
        let reductions = [
            (Reduction::Sum, 0.0),
            (Reduction::Mean, NAN),
            (Reduction::BatchMean, 0.0 / batch),
            (Reduction::MeanWithSampleWeight, NAN),
            (Reduction::MeanOverPositive, 0.0),
            (Reduction::By("n".to_owned()), 0.0),
        ];
        for (reduction, want) in reductions {
            let rows = of_rows(shape);
            for loss in [Loss::from(losses::cross_entropy()), losses::mse()] {
                let is_mse = loss.name() == "mse";
                let what = format!("{} {reduction:?} {shape:?}", loss.name());
                let loss = loss.reduction(reduction.clone());
                let weight = if is_mse { shape } else { &rows };
                let target = match is_mse {
                    true => HostTensor::f32(&[], shape),
                    false => HostTensor::i32(&[], &rows),
                };
                let mut host = vec![("input", HostTensor::f32(&[], shape)), ("target", target)];
                let takes_weight = reduction == Reduction::MeanWithSampleWeight;
                let takes_n = reduction == Reduction::By("n".to_owned());
                host.extend(takes_weight.then(|| ("sample_weight", HostTensor::f32(&[], weight))));
                host.extend(takes_n.then(|| ("n", HostTensor::f32(&[4.0], &[]))));
                let out = cpu::forward_backward(&loss, &host, &["input"]).unwrap();
                assert_same(&what, &[out.loss().unwrap()], &[want]);
                assert_same(&what, out.grad("input").unwrap(), &[]);
                let Some(ctx) = context() else { continue };
                let input = Tensor::zeros(ctx, DType::F32, shape).unwrap();
                let target = match is_mse {
                    true => Tensor::from_slice::<f32>(ctx, &[], shape).unwrap(),
                    false => Tensor::from_slice::<i32>(ctx, &[], &rows).unwrap(),
                };
                let (w, n) = (Tensor::zeros(ctx, DType::F32, weight), Tensor::from_slice(ctx, &[4.0f32], &[]));
                let (w, n) = (w.unwrap(), n.unwrap());
                let mut inputs = vec![("input", &input), ("target", &target)];
                inputs.extend(takes_weight.then_some(("sample_weight", &w)));
                inputs.extend(takes_n.then_some(("n", &n)));
                let out = loss.forward_backward(ctx, &inputs).unwrap();
                assert_same(&what, &[f64::from(out.loss().unwrap())], &[want]);
                assert_eq!(out.grad("input").unwrap().shape(), shape);
                assert!(out.grad("input").unwrap().to_vec::<f32>().unwrap().is_empty());
            }
        }
    }
}

#[test]
fn a_loss_that_is_not_reduced_is_an_empty_tensor() {
    let loss = losses::cross_entropy().reduction(Reduction::None);
    let host = [("input", HostTensor::f32(&[], &[0, 5, 3])), ("target", HostTensor::i32(&[], &[0, 3]))];
    let out = cpu::forward_backward(&loss, &host, &["input"]).unwrap();
    assert_eq!((out.loss_shape(), out.loss_values().unwrap().len()), (&[0, 3][..], 0));
    assert!(matches!(out.loss(), Err(Error::Shape { input, .. }) if input == "loss"));
    let Some(ctx) = context() else { return };
    let input = Tensor::zeros(ctx, DType::BF16, &[0, 5, 3]).unwrap();
    let target = Tensor::zeros(ctx, DType::I32, &[0, 3]).unwrap();
    let out = loss.forward_backward(ctx, &[("input", &input), ("target", &target)]).unwrap();
    assert_eq!(out.loss_tensor().unwrap().shape(), [0, 3]);
    assert!(out.loss_values().unwrap().is_empty());
    assert!(matches!(out.loss(), Err(Error::Shape { input, found, .. }) if input == "loss" && found == [0, 3]));
}

/// Gradients of a weighted cross-entropy of `[0, 3]`, divided by the scalar `n` and scaled by `s`.
fn weighted() -> Loss {
    let loss = losses::cross_entropy().reduction(Reduction::By("n".to_owned()));
    loss.scaled_by("s").into()
}

#[test]
fn gradients_of_no_rows_are_empty_or_zero() {
    let (w, n, s) = ([1.0f32, 2.0, 3.0], [0.0f32], [f32::INFINITY]);
    let host = [
        ("input", HostTensor::f32(&[], &[0, 3])),
        ("target", HostTensor::i32(&[], &[0])),
        ("weight", HostTensor::f32(&w, &[3])),
        ("n", HostTensor::f32(&n, &[])),
        ("s", HostTensor::f32(&s, &[])),
    ];
    // 0/0 and 0·∞: the loss is NaN, its gradients are not.
    let zeros = [("input", 0), ("weight", 3), ("n", 1), ("s", 1)];
    let names = zeros.map(|(name, _)| name);
    let out = cpu::forward_backward(&weighted(), &host, &names).unwrap();
    assert!(out.loss().unwrap().is_nan());
    for (name, count) in zeros {
        assert_same(name, out.grad(name).unwrap(), &vec![0.0; count]);
    }
    let Some(ctx) = context() else { return };
    let tensors = [
        ("input", Tensor::zeros(ctx, DType::F32, &[0, 3]).unwrap()),
        ("target", Tensor::zeros(ctx, DType::I32, &[0]).unwrap()),
        ("weight", Tensor::from_slice(ctx, &w, &[3]).unwrap()),
        ("n", Tensor::from_slice(ctx, &n, &[]).unwrap()),
        ("s", Tensor::from_slice(ctx, &s, &[]).unwrap()),
    ];
    let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    // Buffers that held something: written over, or left alone where gradients accumulate.
    for dtype in [DType::F32, DType::F16] {
        for mode in [GradMode::Write, GradMode::Accumulate] {
            let mut spec = PlanSpec::new().like(&inputs);
            let mut bindings = Bindings::new().inputs(&inputs);
            for (name, count) in zeros {
                let held: Vec<f16> = (0..count).map(|k| f16::from_f32(k as f32 + 1.5)).collect();
                let shape = inputs.iter().find(|input| input.0 == name).map_or(&[][..], |input| input.1.shape());
                let grad = match dtype {
                    DType::F16 => Tensor::from_slice(ctx, &held, shape),
                    _ => Tensor::from_slice(ctx, &held.iter().map(|x| x.to_f32()).collect::<Vec<f32>>(), shape),
                };
                bindings = bindings.grad(name, &grad.unwrap());
                spec = spec.grad_mode(name, mode).grad_dtype(name, dtype);
            }
            let bound = ctx.plan(&weighted(), &spec).unwrap().bind(&bindings).unwrap();
            bound.submit().unwrap();
            assert!(bound.read_loss().unwrap().is_nan());
            for (name, count) in zeros {
                let held = |k: usize| if mode == GradMode::Accumulate { k as f64 + 1.5 } else { 0.0 };
                let want: Vec<f64> = (0..count).map(held).collect();
                let grad = bound.grad(name).unwrap();
                let got: Vec<f64> = match dtype {
                    DType::F16 => grad.to_vec::<f16>().unwrap().iter().map(|x| x.to_f64()).collect(),
                    _ => wide(&grad.to_vec::<f32>().unwrap()),
                };
                assert_same(&format!("{name} {dtype} {mode:?}"), &got, &want);
            }
        }
    }
}

#[test]
fn broadcast_inputs_of_no_rows_get_zeros_in_their_own_layout() {
    let Some(ctx) = context() else { return };
    let mse = losses::mse().broadcast(true);
    let input = Tensor::zeros(ctx, DType::F32, &[0, 4]).unwrap();
    // One row for all of none, every second element.
    let target = Tensor::from_slice(ctx, &[1.0f32; 9], &[9]).unwrap().view(1, &[1, 4], &[8, 2]).unwrap();
    let held = Tensor::from_slice(ctx, &[7.0f32; 9], &[9]).unwrap();
    let grad = held.view(1, &[1, 4], &[8, 2]).unwrap();
    let inputs = [("input", &input), ("target", &target)];
    let spec = PlanSpec::new().like(&inputs).grad("target");
    let bindings = Bindings::new().inputs(&inputs).grad("target", &grad);
    ctx.plan(&mse, &spec).unwrap().bind(&bindings).unwrap().submit().unwrap();
    assert_eq!(held.to_vec::<f32>().unwrap(), [7.0, 0.0, 7.0, 0.0, 7.0, 0.0, 7.0, 0.0, 7.0]);
    let spec = PlanSpec::new().like(&inputs).grad_mode("target", GradMode::InPlace);
    let error = ctx.plan(&mse, &spec).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { message } if message.contains("broadcast")), "{error}");
    let spec = PlanSpec::new().like(&inputs).hessian_diagonal("target");
    assert!(matches!(ctx.plan(&mse, &spec), Err(Error::Unsupported { .. })));
}

#[test]
fn a_plan_of_rows_takes_a_batch_of_none() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[8, 3]).input("target", DType::I32, &[8]);
    let spec = spec.input("weight", DType::F32, &[3]).grad_mode("input", GradMode::InPlace).grad("weight");
    let plan = ctx.plan(&losses::cross_entropy(), &spec.denominator().extra("entropy").extra("correct")).unwrap();
    let weight = Tensor::from_slice(ctx, &[1.0f32, 2.0, 3.0], &[3]).unwrap();
    for rows in [0, 2, 0] {
        let x = Tensor::from_slice(ctx, &vec![0.5f32; rows * 3], &[rows, 3]).unwrap();
        let y = Tensor::from_slice(ctx, &vec![1i32; rows], &[rows]).unwrap();
        let held = Tensor::from_slice(ctx, &[9.0f32; 3], &[3]).unwrap();
        let bindings = Bindings::new().input("input", &x).input("target", &y).input("weight", &weight);
        let bound = plan.bind(&bindings.grad("weight", &held)).unwrap();
        bound.submit().unwrap();
        pollster::block_on(bound.status()).unwrap();
        assert_eq!(bound.extra("entropy").unwrap().shape(), [rows]);
        assert_eq!(bound.grad("input").unwrap().to_vec::<f32>().unwrap().len(), 3 * rows);
        let denominator = bound.denominator().unwrap().to_vec::<f32>().unwrap();
        assert_eq!(denominator, [2.0 * rows as f32]);
        let loss = bound.read_loss().unwrap();
        if rows == 0 {
            assert!(loss.is_nan());
            assert_eq!(bound.extra("correct").unwrap().to_vec::<f32>().unwrap(), [0.0]);
            assert_eq!(held.to_vec::<f32>().unwrap(), [0.0; 3]);
            assert!(bound.explain().contains("0 chunks, 0 dispatches, 1 dispatch for the sums"), "{}", bound.explain());
        } else {
            assert!((f64::from(loss) - 3f64.ln()).abs() < 1e-6, "{loss}");
        }
    }
    let more = Tensor::zeros(ctx, DType::F32, &[1, 3]).unwrap();
    let mse = losses::mse().broadcast(true);
    let none = ctx.plan(&mse, &PlanSpec::new().like(&[("input", &more), ("target", &more)])).unwrap();
    let empty = more.view(0, &[0, 3], &[3, 1]).unwrap();
    assert!(none.bind(&Bindings::new().input("input", &empty).input("target", &more)).is_ok(), "one row for none");
}

#[test]
fn an_accumulated_loss_of_no_rows_adds_its_identity() {
    let Some(ctx) = context() else { return };
    let x = Tensor::zeros(ctx, DType::F32, &[0, 3]).unwrap();
    for (reduction, want) in [(Reduction::Sum, 5.0), (Reduction::Mean, NAN), (Reduction::MeanOverPositive, 5.0)] {
        let held = Tensor::from_slice(ctx, &[5.0f32], &[]).unwrap();
        let inputs = [("input", &x), ("target", &x)];
        let spec = PlanSpec::new().like(&inputs).accumulate_loss();
        let plan = ctx.plan(&losses::mse().reduction(reduction), &spec).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs).loss(&held)).unwrap();
        bound.submit().unwrap();
        assert_same("accumulated loss", &wide(&held.to_vec::<f32>().unwrap()), &[want]);
    }
}

#[test]
fn groups_phases_and_shards_of_no_rows_have_nothing_to_do() {
    let loss = Loss::define("centred").input("x", Scope::Row).input("z", Scope::Element).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| {
        let (x, z) = (b.input("x"), b.input("z"));
        (x - x.sum_over(Scope::Group)) * z.sum() / x.sum_over(Scope::Total)
    });
    let loss = loss.reduction(Reduction::Sum);
    let host = [("x", HostTensor::f32(&[], &[0])), ("z", HostTensor::f32(&[], &[0, 2]))];
    let wanted = Wanted { loss: true, grads: vec!["x".to_owned(), "z".to_owned()], ..Wanted::default() };
    for group_rows in [1, 4] {
        let plan = CpuPlan::<f32>::new(&loss, &host, &wanted).unwrap().group_rows(group_rows).unwrap();
        let mut out: CpuOutput<f32> = plan.output();
        plan.run(&host, &mut out).unwrap();
        assert_eq!((out.loss().unwrap(), out.grad("x").unwrap().len()), (0.0, 0));
    }
    let Some(ctx) = context() else { return };
    let (x, z) = (Tensor::zeros(ctx, DType::F32, &[0]).unwrap(), Tensor::zeros(ctx, DType::F16, &[0, 2]).unwrap());
    for group_rows in [1, 4] {
        let spec = PlanSpec::new().grad("x").grad_mode("z", GradMode::InPlace).group_rows(group_rows);
        let bound = run(ctx, &loss, &[("x", &x), ("z", &z)], spec);
        assert_eq!(bound.read_loss().unwrap(), 0.0);
    }
    let logits = Tensor::zeros(ctx, DType::F32, &[0, 6]).unwrap();
    let (labels, up) = (Tensor::zeros(ctx, DType::I32, &[0]).unwrap(), Tensor::zeros(ctx, DType::F32, &[]).unwrap());
    let inputs = [("input", &logits), ("target", &labels), ("upstream", &up)];
    let spec = PlanSpec::new().like(&inputs).grad("input").upstream(Upstream::Scalar);
    let shard = Shard { first: 6, classes: 12, shards: 2 };
    for spec in [spec.clone().separate_backward(), spec.shard(shard)] {
        let plan = ctx.plan(&losses::cross_entropy().reduction(Reduction::Sum), &spec).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        assert_eq!(bound.exchanges(), 0, "no row has states");
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        bound.encode_forward(&mut encoder).unwrap();
        bound.encode_backward(&mut encoder).unwrap();
        ctx.queue().submit([encoder.finish()]);
        assert_eq!(bound.read_loss().unwrap(), 0.0);
    }
}

#[test]
fn groups_of_no_rows_are_none() {
    let loss = Loss::define("weighed").input("x", Scope::Element).input("g", Scope::Group).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| b.input("g") * b.input("x").sum().sum_over(Scope::Group));
    // One value for all groups, or one per group, of which there is none.
    for shape in [&[][..], &[1], &[0]] {
        let count = shape.iter().product::<usize>();
        let g = vec![2.0f32; count];
        for (reduction, want) in [(Reduction::None, None), (Reduction::Sum, Some(0.0)), (Reduction::Mean, Some(NAN))] {
            let loss = loss.clone().reduction(reduction.clone());
            let what = format!("{reduction:?} {shape:?}");
            let host = [("x", HostTensor::f32(&[], &[0, 3])), ("g", HostTensor::f32(&g, shape))];
            let out = cpu::forward_backward(&loss, &host, &["x", "g"]).unwrap();
            let want: Vec<f64> = want.into_iter().collect();
            assert_same(&what, out.loss_values().unwrap(), &want);
            assert_same(&what, out.grad("g").unwrap(), &vec![0.0; count]);
            let Some(ctx) = context() else { continue };
            let x = Tensor::zeros(ctx, DType::F32, &[0, 3]).unwrap();
            let weight = Tensor::from_slice(ctx, &g, shape).unwrap();
            let out = loss.forward_backward_of(ctx, &[("x", &x), ("g", &weight)], &["x", "g"]).unwrap();
            assert_same(&what, &wide(&out.loss_values().unwrap()), &want);
            assert_same(&what, &wide(&out.grad("g").unwrap().to_vec().unwrap()), &vec![0.0; count]);
        }
    }
}

/// `L_c = w_c·(2 − (2·Σᵢ xᵢ_c² + 1) / (Σᵢ xᵢ_c + 1))`: of no rows `w_c`.
fn by_column() -> Loss {
    let definition = Loss::define("by column").input("x", Scope::Element).input("w", Scope::Column);
    definition.row_axis(RowAxis::Last).extra("sum", |b| b.input("x").sum_over(Scope::Column)).expr(|b| {
        let x = b.input("x");
        let both = (x * x.softmax()).sum_over(Scope::Column);
        b.input("w") * (2.0 - (2.0 * both + 1.0) / (x.sum_over(Scope::Column) + 1.0))
    })
}

#[test]
fn sums_by_column_of_no_rows_are_zero() {
    let w = [3.0f32, 0.5, 2.5];
    let losses: Vec<f64> = w.iter().map(|w| f64::from(*w)).collect();
    for (reduction, want) in [
        (Reduction::None, losses.clone()),
        (Reduction::Sum, vec![losses.iter().sum()]),
        (Reduction::Mean, vec![losses.iter().sum::<f64>() / 3.0]),
    ] {
        let loss = by_column().reduction(reduction.clone());
        let what = format!("{reduction:?}");
        let host = [("x", HostTensor::f32(&[], &[0, 3])), ("w", HostTensor::f32(&w, &[3]))];
        let grads = vec!["x".to_owned(), "w".to_owned()];
        let wanted = Wanted { loss: true, grads, extras: vec!["sum".to_owned()], ..Wanted::default() };
        let out = cpu::run::<f64>(&loss, &host, &wanted).unwrap();
        assert_same(&what, out.loss_values().unwrap(), &want);
        assert_same(&what, out.extra("sum").unwrap(), &[0.0; 3]);
        assert_same(&what, out.grad("x").unwrap(), &[]);
        assert_same(&what, out.grad("w").unwrap(), &[0.0; 3]);
        let Some(ctx) = context() else { continue };
        let x = Tensor::zeros(ctx, DType::F32, &[0, 3]).unwrap();
        // Planned for rows, of which none are bound, and planned for none.
        for rows in [5, 0] {
            for mode in [GradMode::Write, GradMode::Accumulate, GradMode::InPlace] {
                let what = format!("{what}, {rows} rows planned, {mode:?}");
                let weight = Tensor::from_slice(ctx, &w, &[3]).unwrap();
                let spec = PlanSpec::new().input("x", DType::F32, &[rows, 3]).input("w", DType::F32, &[3]);
                // The gradient of `x` reads `w` again.
                let spec = if mode == GradMode::InPlace { spec } else { spec.grad("x") };
                let spec = spec.grad_mode("w", mode).extra("sum").found_inf();
                let grad = Tensor::from_slice(ctx, &[7.0f32, 8.0, 9.0], &[3]).unwrap();
                let bindings = Bindings::new().input("x", &x).input("w", &weight);
                let bindings = if mode == GradMode::Accumulate { bindings.grad("w", &grad) } else { bindings };
                let bound = ctx.plan(&loss, &spec).unwrap().bind(&bindings).unwrap();
                assert!(bound.explain().contains("0 rows of 3 columns"), "{}", bound.explain());
                bound.submit().unwrap();
                let read = |tensor: &Tensor| wide(&bound.read::<f32>(tensor).unwrap());
                assert_same(&what, &read(bound.loss().unwrap()), &want);
                assert_same(&what, &read(bound.extra("sum").unwrap()), &[0.0; 3]);
                assert_same(&what, &read(bound.found_inf().unwrap()), &[0.0]);
                let kept = if mode == GradMode::Accumulate { [7.0, 8.0, 9.0] } else { [0.0; 3] };
                assert_same(&what, &read(bound.grad("w").unwrap()), &kept);
            }
        }
    }
}

#[test]
fn a_gradient_of_no_rows_is_zero_where_its_formula_has_no_value() {
    // Σᵢ x / Σᵢ x² is 0/0.
    let loss = Loss::define("ratio").input("x", Scope::Element).input("w", Scope::Column).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| {
        let x = b.input("x");
        b.input("w") * x.sum_over(Scope::Column) / (x * x).sum_over(Scope::Column)
    });
    let loss = loss.reduction(Reduction::Sum);
    let host = [("x", HostTensor::f32(&[], &[0, 2])), ("w", HostTensor::f32(&[1.0, 2.0], &[2]))];
    let out = cpu::forward_backward(&loss, &host, &["w"]).unwrap();
    assert!(out.loss().unwrap().is_nan());
    assert_same("CPU", out.grad("w").unwrap(), &[0.0; 2]);
    let Some(ctx) = context() else { return };
    let x = Tensor::zeros(ctx, DType::F32, &[0, 2]).unwrap();
    let w = Tensor::from_slice(ctx, &[1.0f32, 2.0], &[2]).unwrap();
    let inputs = [("x", &x), ("w", &w)];
    let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("w").found_inf()).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    assert!(bound.read_loss().unwrap().is_nan());
    assert_same("GPU", &wide(&bound.read::<f32>(bound.grad("w").unwrap()).unwrap()), &[0.0; 2]);
    assert_same("found_inf", &wide(&bound.read::<f32>(bound.found_inf().unwrap()).unwrap()), &[0.0]);
}

#[test]
fn empty_tensors_overlap_nothing() {
    let Some(ctx) = context() else { return };
    let pool = Tensor::from_slice(ctx, &[1.0f32; 64], &[64]).unwrap();
    let input = pool.view(8, &[0, 3], &[3, 1]).unwrap();
    let target = pool.view(0, &[16], &[1]).unwrap().view(0, &[1, 3], &[3, 1]).unwrap();
    let grad = pool.view(1, &[0, 3], &[3, 1]).unwrap();
    let spec = PlanSpec::new().like(&[("input", &input), ("target", &target)]).grad("input");
    let bindings = Bindings::new().input("input", &input).input("target", &target).grad("input", &grad);
    let bound =
        ctx.plan(&losses::mse().broadcast(true).reduction(Reduction::Sum), &spec).unwrap().bind(&bindings).unwrap();
    bound.submit().unwrap();
    assert_eq!(bound.read_loss().unwrap(), 0.0);
    assert_eq!(pool.to_vec::<f32>().unwrap(), [1.0; 64]);
}

#[test]
fn rows_without_columns_are_an_error() {
    let host = [("input", HostTensor::f32(&[], &[4, 0])), ("target", HostTensor::i32(&[0; 4], &[4]))];
    let is_told = |error: &Error| matches!(error, Error::Shape { input, expected, found } if input == "input" && expected.contains("one column") && *found == [4, 0]);
    let error = cpu::forward_backward(&losses::cross_entropy(), &host, &["input"]).unwrap_err();
    assert!(is_told(&error), "{error}");
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[4, 0]).input("target", DType::I32, &[4]);
    let error = ctx.plan(&losses::cross_entropy(), &spec).unwrap_err();
    assert!(is_told(&error), "{error}");
    let spec = PlanSpec::new().input("input", DType::F32, &[0, 4]).input("target", DType::I32, &[0]);
    let plan = ctx.plan(&losses::cross_entropy(), &spec).unwrap();
    let error = plan.tune(&TuneOptions::new()).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { message } if message.contains("no rows")), "{error}");
}

#[test]
fn an_empty_tensor_reads_back_as_nothing() {
    let Some(ctx) = context() else { return };
    let made = [
        Tensor::zeros(ctx, DType::F32, &[0, 10]).unwrap(),
        Tensor::from_slice::<f32>(ctx, &[], &[3, 0]).unwrap(),
        Tensor::from_array(ctx, &ndarray::Array2::<f32>::zeros((0, 7))).unwrap(),
    ];
    for tensor in made {
        tensor.write::<f32>(ctx, &[]).unwrap();
        assert!(tensor.to_vec::<f32>().unwrap().is_empty());
        assert_eq!(tensor.to_array::<f32>().unwrap().shape(), tensor.shape());
    }
    let input = Tensor::zeros(ctx, DType::F32, &[0, 3]).unwrap();
    let plan = ctx.plan(&fused::softmax(), &PlanSpec::new().input("input", DType::F32, &[4, 3])).unwrap();
    let bound = plan.bind(&Bindings::new().input("input", &input)).unwrap();
    bound.submit().unwrap();
    assert_eq!(bound.extra("softmax").unwrap().shape(), [0, 3]);
}
