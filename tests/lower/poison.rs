//! What is not taken is not looked at; what the loss depends on poisons its gradients, whichever passes run.

use crate::common::compare::is_nan;
use crate::common::{context, is_in_share};
use wgloss::Wanted;
use wgloss::{
    Bindings, Context, Error, Expr, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, cpu, losses,
};

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

/// An input by name: numbers, or class indices.
#[derive(Clone)]
enum Data {
    Numbers(Vec<f32>),
    Labels(Vec<i32>),
}

struct Problem {
    loss: Loss,
    inputs: Vec<(&'static str, Data, Vec<usize>)>,
    grad: &'static str,
}

/// What one way of running a problem gives: the loss where it was asked for, and the gradient; or the error, where a
/// label was out of range.
#[derive(Debug)]
struct Found {
    how: String,
    loss: Option<Vec<f32>>,
    grad: Vec<f32>,
    bad_label: Option<(u64, i64)>,
}

fn numbers(values: &[f32], shape: &[usize]) -> (Data, Vec<usize>) {
    (Data::Numbers(values.to_vec()), shape.to_vec())
}

fn labels(values: &[i32], shape: &[usize]) -> (Data, Vec<usize>) {
    (Data::Labels(values.to_vec()), shape.to_vec())
}

fn problem(loss: impl Into<Loss>, inputs: Vec<(&'static str, (Data, Vec<usize>))>, grad: &'static str) -> Problem {
    let inputs = inputs.into_iter().map(|(name, (data, shape))| (name, data, shape)).collect();
    Problem { loss: loss.into(), inputs, grad }
}

impl Problem {
    fn tensors(&self, ctx: &Context) -> Vec<(&'static str, Tensor)> {
        let tensor = |data: &Data, shape: &[usize]| match data {
            Data::Numbers(values) => Tensor::from_slice(ctx, values, shape).unwrap(),
            Data::Labels(values) => Tensor::from_slice(ctx, values, shape).unwrap(),
        };
        self.inputs.iter().map(|(name, data, shape)| (*name, tensor(data, shape))).collect()
    }

    fn on_cpu(&self, with_loss: bool, single: bool) -> Found {
        let inputs: Vec<(&str, HostTensor<'_>)> = self
            .inputs
            .iter()
            .map(|(name, data, shape)| match data {
                Data::Numbers(values) => (*name, HostTensor::f32(values, shape)),
                Data::Labels(values) => (*name, HostTensor::i32(values, shape)),
            })
            .collect();
        let wanted = Wanted { loss: with_loss, grads: vec![self.grad.to_owned()], ..Wanted::default() };
        let how = format!("CPU in {}, loss {with_loss}", if single { "f32" } else { "f64" });
        if single {
            let mut out = cpu::run::<f32>(&self.loss, &inputs, &wanted).unwrap();
            let bad_label = out.take_bad_label();
            let loss = with_loss.then(|| out.loss_values().unwrap().to_vec());
            return Found { how, loss, grad: out.grad(self.grad).unwrap().to_vec(), bad_label };
        }
        let mut out = cpu::run::<f64>(&self.loss, &inputs, &wanted).unwrap();
        let bad_label = out.take_bad_label();
        let narrow = |values: &[f64]| values.iter().map(|x| *x as f32).collect::<Vec<_>>();
        let loss = with_loss.then(|| narrow(out.loss_values().unwrap()));
        Found { how, loss, grad: narrow(out.grad(self.grad).unwrap()), bad_label }
    }

    fn on_gpu(&self, ctx: &Context, how: &str) -> Option<Found> {
        let tensors = self.tensors(ctx);
        let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let spec = PlanSpec::new().like(&inputs).grad(self.grad);
        let spec = match how {
            "without loss" => spec.without_loss(),
            "separate" => spec.separate_backward(),
            _ => spec,
        };
        let plan = match ctx.plan(&self.loss, &spec) {
            Err(Error::Unsupported { .. }) if how == "separate" => return None,
            plan => plan.unwrap(),
        };
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        if how == "separate" {
            let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            bound.encode_forward(&mut encoder).unwrap();
            bound.encode_backward(&mut encoder).unwrap();
            ctx.queue().submit([encoder.finish()]);
        } else {
            bound.submit().unwrap();
        }
        let bad_label = match pollster::block_on(bound.status()) {
            Err(Error::LabelOutOfRange { row, label, .. }) => Some((row, label)),
            other => {
                other.unwrap();
                None
            }
        };
        let loss = (how != "without loss").then(|| bound.loss().unwrap().to_vec().unwrap());
        let grad = bound.grad(self.grad).unwrap().to_vec().unwrap();
        Some(Found { how: format!("GPU {how}"), loss, grad, bad_label })
    }

    /// Every way to run it.
    fn all(&self) -> Vec<Found> {
        let mut all = Vec::new();
        for single in [false, true] {
            all.extend([true, false].map(|with_loss| self.on_cpu(with_loss, single)));
        }
        if let Some(ctx) = context() {
            all.extend(["fused", "without loss", "separate"].into_iter().filter_map(|how| self.on_gpu(ctx, how)));
        }
        all
    }

    /// Every way to run it gives this loss and this gradient.
    #[track_caller]
    fn gives(&self, loss: &[f32], grad: &[f32]) {
        for found in self.all() {
            if let Some(got) = &found.loss {
                same(got, loss, &format!("loss of {}, {}", self.loss.name(), found.how));
            }
            same(&found.grad, grad, &format!("gradient of {}, {}", self.loss.name(), found.how));
            assert_eq!(found.bad_label, None, "{}", found.how);
        }
    }

    /// Every way to run it poisons just these rows (elements) of the gradient.
    #[track_caller]
    fn poisons(&self, is_poisoned: impl Fn(usize) -> bool, bad_label: Option<(u64, i64)>) {
        for found in self.all() {
            let nan: Vec<bool> = found.grad.iter().map(|x| x.is_nan()).collect();
            let want: Vec<bool> = (0..nan.len()).map(&is_poisoned).collect();
            let off = (0..nan.len()).find(|&k| nan[k] != want[k]);
            assert_eq!(off, None, "gradient of {}, {}: {:?}", self.loss.name(), found.how, found.grad);
            assert_eq!(found.bad_label, bad_label, "{} {}", self.loss.name(), found.how);
            if let (Some(loss), true) = (&found.loss, want.contains(&true)) {
                assert!(loss.iter().any(|x| x.is_nan()), "loss of {}, {}: {loss:?}", self.loss.name(), found.how);
            }
        }
    }
}

#[track_caller]
fn same(got: &[f32], want: &[f32], what: &str) {
    let close = |(a, b): (&f32, &f32)| a == b || (a - b).abs() <= 2e-6 * b.abs() || a.is_nan() && b.is_nan();
    assert!(got.len() == want.len() && got.iter().zip(want).all(close), "{what}: {got:?}, want {want:?}");
}

/// A loss of the inputs `x` and `m` in rows, summed.
fn of_rows(build: impl for<'g> Fn(Expr<'g>, Expr<'g>) -> Expr<'g> + Send + Sync + 'static) -> Loss {
    let loss = Loss::define("mine").input("x", Scope::Element).input("m", Scope::Element).row_axis(RowAxis::Last);
    loss.expr(move |b| build(b.input("x"), b.input("m"))).reduction(Reduction::Sum)
}

/// A loss of the element input `x`, summed.
fn of_elements(build: impl for<'g> Fn(Expr<'g>) -> Expr<'g> + Send + Sync + 'static) -> Loss {
    Loss::define("mine").input("x", Scope::Element).expr(move |b| build(b.input("x"))).reduction(Reduction::Sum)
}

#[test]
fn a_masked_nan_beside_what_is_not_masked_is_not_looked_at() {
    let mean = of_rows(|x, m| x.masked(!m.equals(0.0)).sum() / m.sum());
    let rows = |x: &[f32], m: &[f32]| vec![("x", numbers(x, &[1, x.len()])), ("m", numbers(m, &[1, m.len()]))];
    problem(mean.clone(), rows(&[3.0, NAN], &[1.0, 0.0]), "x").gives(&[3.0], &[1.0, 0.0]);
    problem(mean.clone(), rows(&[3.0, NAN], &[1.0, NAN]), "x").gives(&[NAN], &[NAN, NAN]);
    // More columns than a vector, a subgroup and a workgroup have.
    let (mut x, mut m, mut want) = (vec![2.0f32; 300], vec![1.0f32; 300], vec![1.0 / 256.0; 300]);
    for k in (0..300).filter(|k| k % 7 == 3).take(43).chain([299]) {
        (x[k], m[k], want[k]) = (if k % 2 == 0 { NAN } else { INF }, 0.0, 0.0);
    }
    problem(mean, rows(&x, &m), "x").gives(&[2.0], &want);
    // The maximum that only masked elements ask for is not looked at either.
    let shifted = of_rows(|x, m| (x - x.max()).masked(!m.equals(0.0)).sum() + m.sum());
    problem(shifted, rows(&[NAN, 1.0, 5.0], &[0.0; 3]), "x").gives(&[0.0], &[0.0; 3]);
}

#[test]
fn elements_without_rows_hide_what_their_mask_leaves_out() {
    let loss = Loss::define("mine").input("x", Scope::Element).input("y", Scope::Element);
    let loss = loss.expr(|b| b.input("x").masked(!b.input("x").equals(7.0)) + b.input("y")).reduction(Reduction::None);
    let inputs = vec![("x", numbers(&[7.0, NAN, 2.0], &[3])), ("y", numbers(&[1.0, 1.0, 1.0], &[3]))];
    problem(loss, inputs, "x").gives(&[1.0, NAN, 3.0], &[0.0, NAN, 1.0]);
    let loss = Loss::define("mine").input("x", Scope::Element).input("m", Scope::Element).input("y", Scope::Element);
    let loss = loss.expr(|b| b.input("x").masked(!b.input("m").equals(0.0)) + b.input("y"));
    let inputs = vec![
        ("x", numbers(&[NAN, 1.0, NAN, 1.0], &[4])),
        ("m", numbers(&[0.0, 1.0, 1.0, NAN], &[4])),
        ("y", numbers(&[1.0; 4], &[4])),
    ];
    problem(loss.reduction(Reduction::None), inputs, "x").gives(&[1.0, 2.0, NAN, NAN], &[0.0, 1.0, NAN, NAN]);
}

#[test]
fn the_branch_that_is_not_taken_has_no_gradient() {
    let x = |values: &[f32]| vec![("x", numbers(values, &[values.len()]))];
    let root = of_elements(|x| x.equals(0.0).select(0.0, x.sqrt()));
    problem(root, x(&[0.0, 4.0]), "x").gives(&[2.0], &[0.0, 0.25]);
    let log = of_elements(|x| x.gt(0.0).select(x.log(), 0.0));
    problem(log, x(&[0.0, -1.0, 1.0]), "x").gives(&[0.0], &[0.0, 0.0, 1.0]);
    let capped = of_elements(|x| x.gt(50.0).select(1.0, x.exp()));
    problem(capped, x(&[100.0, 0.0, 3e38]), "x").gives(&[3.0], &[0.0, 1.0, 0.0]);
    // Further down the branch, and a branch of a branch.
    let nested = of_elements(|x| {
        let inner = x.gt(50.0).select(0.0, (x.exp() - 1.0).log());
        x.gt(0.0).select(inner * inner, 2.0 * x)
    });
    let want = (2.0 * (std::f64::consts::E - 1.0).ln() * std::f64::consts::E / (std::f64::consts::E - 1.0)) as f32;
    let loss = ((std::f64::consts::E - 1.0).ln().powi(2) - 2.0) as f32;
    problem(nested, x(&[-1.0, 0.0, 1.0, 100.0]), "x").gives(&[loss], &[2.0, 2.0, want, 0.0]);
    // Clamps, maxima and gathers choose as well.
    let clamped = of_elements(|x| x.log().maximum(-100.0) + x.exp().minimum(5.0));
    problem(clamped, x(&[0.0, 1.0, 200.0]), "x").gives(
        &[(-100.0 + 1.0 + 1f64.exp() + 200f64.ln() + 5.0) as f32],
        &[1.0, (1.0 + 1f64.exp()) as f32, 1.0 / 200.0],
    );
    let at = Loss::define("mine").input("x", Scope::Element).label("y").row_axis(RowAxis::Last);
    let at = at.expr(|b| b.input("x").log().at(b.input("y"))).reduction(Reduction::Sum);
    let inputs = vec![("x", numbers(&[0.0, 2.0, -1.0], &[1, 3])), ("y", labels(&[1], &[1]))];
    problem(at, inputs, "x").gives(&[2f64.ln() as f32], &[0.0, 0.5, 0.0]);
    let largest = Loss::define("mine").input("x", Scope::Element).row_axis(RowAxis::Last);
    let largest = largest.expr(|b| b.input("x").sqrt().max()).reduction(Reduction::Sum);
    problem(largest, vec![("x", numbers(&[0.0, 4.0, 1.0], &[1, 3]))], "x").gives(&[2.0], &[0.0, 0.25, 0.0]);
}

/// A row reduction of which no element is taken has no gradient; one that a single element takes has its whole one.
#[test]
fn a_row_of_which_nothing_is_taken_has_no_gradient() {
    type Of = for<'g> fn(Expr<'g>) -> Expr<'g>;
    let reductions: [Of; 6] = [
        |x| x.softmax(),
        |x| x.log_softmax(),
        |x| x.logsumexp() + x,
        |x| x.max() + x,
        |x| x.sum() + x,
        |x| x.mean() * x,
    ];
    for bad in [NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for of in reductions {
            let loss = of_rows(move |x, m| of(x).masked(m.equals(1.0)).sum());
            let (x, m) = ([1.0, bad, 0.5, bad], [1.0, 1.0, 0.0, 0.0]);
            let inputs = vec![("x", numbers(&x, &[2, 2])), ("m", numbers(&m, &[2, 2]))];
            for found in problem(loss, inputs, "x").all() {
                assert_eq!(found.grad[2..], [0.0, 0.0], "{bad}, {}", found.how);
                assert_eq!(found.grad[0].is_nan(), found.grad[1].is_nan(), "{bad}, {}", found.how);
                assert!(!bad.is_nan() || found.grad[0].is_nan(), "{bad}, {}", found.how);
            }
        }
    }
}

/// The condition of a scalar's mask, under one of rows that no row fulfils, is not asked.
#[test]
fn a_condition_under_a_branch_that_is_not_taken_is_not_asked() {
    for k in [NAN, 2.0] {
        let loss = Loss::define("mine").input("x", Scope::Element).input("s", Scope::Row).input("k", Scope::Scalar);
        let loss = loss.row_axis(RowAxis::Last).expr(|b| {
            let (x, s, k) = (b.input("x"), b.input("s"), b.input("k"));
            x * s.gt(0.0).select(k.masked(k.le(3.0)), 1.0)
        });
        let loss = loss.reduction(Reduction::Sum);
        let inputs = |s: &[f32]| {
            let x = numbers(&[1.0, 2.0, 3.0, 4.0], &[2, 2]);
            vec![("x", x), ("s", numbers(s, &[2])), ("k", numbers(&[k], &[]))]
        };
        problem(loss.clone(), inputs(&[-1.0, -1.0]), "k").gives(&[10.0], &[0.0]);
        let (loss_value, grad) = if k.is_nan() { (NAN, NAN) } else { (3.0 + 14.0, 7.0) };
        problem(loss, inputs(&[-1.0, 1.0]), "k").gives(&[loss_value], &[grad]);
    }
}

#[test]
fn a_nan_in_a_condition_poisons() {
    let x = |values: &[f32]| vec![("x", numbers(values, &[values.len()]))];
    let relu = of_elements(|x| x.gt(0.0).select(x, 0.0)).reduction(Reduction::None);
    problem(relu, x(&[NAN, 2.0, -1.0]), "x").gives(&[NAN, 2.0, 0.0], &[NAN, 1.0, 0.0]);
    let step = of_elements(|x| x.lt(0.0).to_float()).reduction(Reduction::None);
    let by = Loss::define("mine").input("x", Scope::Element).input("c", Scope::Element);
    let by = by.expr(|b| b.input("c").gt(0.0).and(b.input("x").gt(0.0)).select(b.input("x"), 0.0));
    let inputs = vec![("x", numbers(&[1.0, -1.0, 1.0], &[3])), ("c", numbers(&[NAN, NAN, 1.0], &[3]))];
    problem(by.reduction(Reduction::None), inputs, "x").gives(&[NAN, NAN, 1.0], &[NAN, NAN, 1.0]);
    problem(step, x(&[NAN, -2.0]), "x").gives(&[NAN, 1.0], &[NAN, 0.0]);
    // A literal beside it decides what the condition is, not whether it is known.
    let always = of_elements(|x| x.graph().truth(true).or(x.lt(0.0)).select(x.detach() * 0.0 + 2.0, 1.0));
    let never = of_elements(|x| x.graph().truth(false).and(x.lt(0.0)).select(1.0, 2.0));
    for loss in [always, never] {
        problem(loss.reduction(Reduction::None), x(&[NAN, -2.0]), "x").gives(&[NAN, 2.0], &[NAN, 0.0]);
    }
}

#[test]
fn validity_belongs_to_the_term() {
    let largest = || {
        let max = Loss::define("max").input("input", Scope::Element).row_axis(RowAxis::Class);
        max.expr(|b| b.input("input").max()).reduction(Reduction::Sum)
    };
    let sum = losses::cross_entropy().reduction(Reduction::Sum) + largest();
    let (x, y) = (numbers(&[0.0, 0.0, 1.0, 3.0], &[2, 2]), labels(&[0, -100], &[2]));
    problem(sum.clone(), vec![("input", x), ("target", y)], "input")
        .gives(&[2f64.ln() as f32 + 3.0], &[0.0, 1.0, 0.0, 1.0]);
    // A label that is out of range in another row is still one.
    let (x, y) = (numbers(&[0.0, 0.0, 1.0, 3.0, 1.0, 2.0], &[3, 2]), labels(&[-100, 5, 1], &[3]));
    problem(sum, vec![("input", x), ("target", y)], "input").poisons(|k| k / 2 == 1, Some((1, 5)));
    let focal = losses::multiclass_focal().ignore_index(3) + losses::nll().ignore_index(-1);
    let (x, y) = (numbers(&[-1.0, -2.0, NAN, NAN, -1.0, -1.0], &[3, 2]), labels(&[0, 3, 1], &[3]));
    problem(focal, vec![("input", x), ("target", y)], "input").poisons(|k| k / 2 == 1, Some((1, 3)));
}

#[test]
fn a_bad_label_poisons_the_backward_part_alone() {
    for cols in [4usize, 65, 300] {
        let x: Vec<f32> = (0..4 * cols).map(|k| (k % 7) as f32 * 0.25 - 2.0).collect();
        let y = [0, 99_999, 1, -100];
        let weight: Vec<f32> = (0..cols).map(|k| 1.0 + (k % 3) as f32).collect();
        for loss in [Loss::from(losses::nll()), losses::cross_entropy().into(), losses::multiclass_focal().into()] {
            for reduction in [Reduction::Mean, Reduction::Sum, Reduction::None, Reduction::MeanOverPositive] {
                if !is_in_share(&format!("bad label {} {cols} {reduction:?}", loss.name())) {
                    continue;
                }
                let loss = loss.clone().reduction(reduction.clone());
                let inputs = vec![("input", numbers(&x, &[4, cols])), ("target", labels(&y, &[4]))];
                if cols == 4 {
                    let mut weighted = inputs.clone();
                    weighted.push(("weight", numbers(&weight, &[cols])));
                    if loss.inputs().iter().any(|input| input.name == "weight") {
                        problem(loss.clone(), weighted, "input").poisons(|k| k / cols == 1, Some((1, 99_999)));
                    }
                }
                problem(loss, inputs, "input").poisons(|k| k / cols == 1, Some((1, 99_999)));
            }
        }
    }
}

#[test]
fn a_nan_poisons_its_row_or_element_whichever_passes_run() {
    for cols in [4usize, 65, 300] {
        let x: Vec<f32> = (0..3 * cols).map(|k| -0.25 - (k % 7) as f32 * 0.25).collect();
        let mut spoiled = x.clone();
        spoiled[cols + cols / 2] = NAN;
        let y = [0, 1, 2];
        // Targets as they are, so that one row's NaN is not the whole tensor's.
        let hinge = losses::hinge().convert_binary(false);
        let rows = [losses::log_cosh(), hinge.into(), losses::squared_hinge().convert_binary(false).into()];
        for loss in rows {
            for (first, second) in [(&x, &spoiled), (&spoiled, &x)] {
                let inputs = vec![("y_true", numbers(first, &[3, cols])), ("y_pred", numbers(second, &[3, cols]))];
                problem(loss.clone(), inputs, "y_pred").poisons(|k| k / cols == 1, None);
            }
        }
        for (first, second) in [(&x, &spoiled), (&spoiled, &x)] {
            let both = || vec![("input", numbers(first, &[3, cols])), ("target", numbers(second, &[3, cols]))];
            problem(losses::jsd(0.5), both(), "input").poisons(|k| k / cols == 1, None);
            let kl = losses::kl_div().log_target(true);
            problem(kl, both(), "input").poisons(|k| k == cols + cols / 2, None);
        }
        let labelled = || vec![("input", numbers(&spoiled, &[3, cols])), ("target", labels(&y, &[3]))];
        problem(losses::cross_entropy(), labelled(), "input").poisons(|k| k / cols == 1, None);
        // Only the label's element counts.
        problem(losses::nll(), labelled(), "input").poisons(|_| false, None);
        let mut at_label = x.clone();
        at_label[cols + 1] = NAN;
        let inputs = vec![("input", numbers(&at_label, &[3, cols])), ("target", labels(&y, &[3]))];
        problem(losses::nll(), inputs, "input").poisons(|k| k / cols == 1, None);
    }
}

/// A label that no column has is reported by whatever reads a column of that index, and poisons its row.
#[test]
fn every_reader_of_a_column_checks_its_label() {
    let classes =
        |y: &[i32]| vec![("x", numbers(&[-1.0, -2.0, -3.0, -1.0, -2.0, -1.0], &[2, 3])), ("y", labels(y, &[2]))];
    let of_label = |build: for<'g> fn(Expr<'g>, Expr<'g>, Expr<'g>) -> Expr<'g>| {
        let loss = Loss::define("mine").input("x", Scope::Element).label("y").row_axis(RowAxis::Last);
        loss.expr(move |b| build(b.input("x"), b.input("y"), b.graph().col_index())).reduction(Reduction::Sum)
    };
    let index = of_label(|x, y, col| col.to_float().at(y) * x.sum());
    problem(index.clone(), classes(&[2, 0]), "x").gives(&[-12.0], &[2.0, 2.0, 2.0, 0.0, 0.0, 0.0]);
    problem(index, classes(&[2, 3]), "x").poisons(|k| k / 3 == 1, Some((1, 3)));
    // Where no pass visits columns.
    let alone = of_label(|x, y, col| (x / (col.equals(y).to_float() + 1.0)).at(y));
    problem(alone.clone(), classes(&[2, 0]), "x").gives(&[-2.0], &[0.0, 0.0, 0.5, 0.5, 0.0, 0.0]);
    problem(alone, classes(&[2, 3]), "x").poisons(|k| k / 3 == 1, Some((1, 3)));
    // The label chooses among what holds no input there.
    let chosen = of_label(|x, y, _| (x.sum().gt(-5.0).select(x.graph().constant(1.0), x)).at(y) * x.sum());
    problem(chosen.clone(), classes(&[1, 2]), "x").gives(&[8.0], &[-2.0, -8.0, -2.0, 1.0, 1.0, 1.0]);
    for bad in [3, -1] {
        problem(chosen.clone(), classes(&[bad, 2]), "x").poisons(|k| k / 3 == 0, Some((0, i64::from(bad))));
        problem(chosen.clone(), classes(&[0, bad]), "x").poisons(|k| k / 3 == 1, Some((1, i64::from(bad))));
    }
    let known =
        of_label(|x, y, col| x.graph().truth(true).or(col.at(y).equals(x.graph().index(1))).select(x.sum(), 0.0));
    problem(known.clone(), classes(&[2, 0]), "x").gives(&[-10.0], &[1.0; 6]);
    problem(known, classes(&[2, 3]), "x").poisons(|k| k / 3 == 1, Some((1, 3)));
    // Not taken, it is not looked at.
    let untaken = of_label(|x, y, _| {
        let gathered = x.max().gt(0.0).select(x.graph().constant(1.0), x).at(y);
        x.sum().gt(-5.0).select(x.sum(), gathered * x.sum())
    });
    problem(untaken.clone(), classes(&[2, 9]), "x").gives(&[14.0], &[-3.0, -3.0, -9.0, 1.0, 1.0, 1.0]);
    problem(untaken, classes(&[9, 0]), "x").poisons(|k| k / 3 == 0, Some((0, 9)));
    // A softmax in which the label's own logit is another expression.
    let margin = of_label(|x, y, col| {
        let shifted = col.equals(y).select(x - 1.0, x);
        shifted.logsumexp() - x.at(y)
    });
    let (a, b) = ([-2f64, -2.0, -3.0], [-1f64, -2.0, -2.0]);
    let sum = |row: [f64; 3]| row.iter().map(|x| x.exp()).sum::<f64>();
    let loss = (sum(a).ln() + 1.0 + sum(b).ln() + 1.0) as f32;
    let mut grad: Vec<f32> = a.iter().map(|x| (x.exp() / sum(a)) as f32).collect();
    grad.extend(b.iter().map(|x| (x.exp() / sum(b)) as f32));
    (grad[0], grad[5]) = (((a[0].exp() / sum(a)) - 1.0) as f32, ((b[2].exp() / sum(b)) - 1.0) as f32);
    problem(margin.clone(), classes(&[0, 2]), "x").gives(&[loss], &grad);
    problem(margin, classes(&[0, 7]), "x").poisons(|k| k / 3 == 1, Some((1, 7)));
}

/// What is stored at the label anew keeps no NaN of what would have been stored there.
#[test]
fn the_label_s_element_is_its_own() {
    for cols in [3usize, 40] {
        // The root, but for the label's element, which is negative, and for one that another value scales.
        let loss = Loss::define("mine").input("x", Scope::Element).input("s", Scope::Row).label("y");
        let loss = loss.row_axis(RowAxis::Last).expr(|b| {
            let (x, y) = (b.input("x"), b.input("y"));
            let rest = x.gt(5.0).select(b.input("s") * x, x.sqrt());
            b.graph().col_index().equals(y).select(x * x, rest)
        });
        let loss = loss.reduction(Reduction::None);
        let (mut x, mut value, mut want) = (vec![4.0f32; 2 * cols], vec![2.0; 2 * cols], vec![0.25; 2 * cols]);
        (x[1], x[2], x[cols]) = (-1.0, 6.0, -1.0);
        (value[1], value[2], value[cols]) = (1.0, 18.0, 1.0);
        (want[1], want[2], want[cols]) = (-2.0, 3.0, -2.0);
        let inputs = |s: f32| {
            let of_rows = numbers(&[s, 1.0], &[2]);
            vec![("x", numbers(&x, &[2, cols])), ("s", of_rows), ("y", labels(&[1, 0], &[2]))]
        };
        problem(loss.clone(), inputs(3.0), "x").gives(&value, &want);
        problem(loss, inputs(NAN), "x").poisons(|k| k == 2, None);
    }
}

/// A total that no row takes is not looked at, by the loss or by the gradient.
/// A condition of the row is false for NaN, and leaves the row out: its elements are NaN all the same, not 0.
#[test]
fn a_nan_in_a_rows_condition_poisons_its_elements() {
    for cols in [3usize, 40] {
        let loss = Loss::define("mine").input("x", Scope::Element).input("s", Scope::Row);
        let loss = loss.row_axis(RowAxis::Last).expr(|b| {
            let x = b.input("x");
            b.input("s").gt(0.0).select(x * x, 1.0)
        });
        let loss = loss.reduction(Reduction::None);
        let inputs = vec![("x", numbers(&vec![2.0; 3 * cols], &[3, cols])), ("s", numbers(&[1.0, NAN, -1.0], &[3]))];
        problem(loss, inputs, "x").poisons(|k| k / cols == 1, None);
    }
}

#[test]
fn a_total_that_is_not_taken_poisons_nothing() {
    let loss = Loss::define("mine").input("x", Scope::Element).input("c", Scope::Row).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| b.input("c").gt(0.0).select(b.input("x").log().sum(), b.input("x").sum()));
    let inputs = |c: f32| vec![("x", numbers(&[0.0, -1.0, 2.0, 4.0], &[2, 2])), ("c", numbers(&[0.0, c], &[2]))];
    let loss = loss.reduction(Reduction::Sum);
    problem(loss.clone(), inputs(1.0), "x").gives(&[8f64.ln() as f32 - 1.0], &[1.0, 1.0, 0.5, 0.25]);
    problem(loss, inputs(NAN), "x").poisons(|k| k >= 2, None);
    // Nor is a maximum of what is computed, whose ties the gradient finds by their place.
    let loss = Loss::define("mine").input("x", Scope::Element).input("c", Scope::Row).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| (b.input("x") + 1.0).max().masked(b.input("c").gt(0.0))).reduction(Reduction::Sum);
    let inputs = |c: f32| vec![("x", numbers(&[NAN, 1.0, 2.0, 4.0], &[2, 2])), ("c", numbers(&[c, 1.0], &[2]))];
    problem(loss.clone(), inputs(0.0), "x").gives(&[5.0], &[0.0, 0.0, 0.0, 1.0]);
    problem(loss, inputs(1.0), "x").poisons(|k| k < 2, None);
    // A sum over all rows: the row whose number is in it does not take it.
    let loss = Loss::define("mine").input("x", Scope::Element).input("r", Scope::Row).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| b.input("x").lt(0.0).select(b.input("r").sum_over(Scope::Total), b.input("x")));
    let inputs = vec![("x", numbers(&[3.0, -1.0, 2.0], &[3, 1])), ("r", numbers(&[NAN, 1.0, 1.0], &[3]))];
    for found in problem(loss.reduction(Reduction::None), inputs, "x").all() {
        if let Some(loss) = &found.loss {
            same(loss, &[3.0, NAN, 2.0], &found.how);
        }
    }
}

/// The gradient of a weight that two losses share: what one leaves out, the other still counts.
#[test]
fn a_weight_of_two_terms_has_both_gradients() {
    let loss = losses::cross_entropy().reduction(Reduction::Sum) + losses::multiclass_focal().reduction(Reduction::Sum);
    let weighted = vec![
        ("input", numbers(&[0.0, 0.0, 0.0, 0.0], &[2, 2])),
        ("target", labels(&[0, -100], &[2])),
        ("sample_weight", numbers(&[2.0, 3.0], &[2])),
    ];
    let (nll, focal) = (2f64.ln(), 0.25 * 2f64.ln());
    let sum = ((nll + focal) * 2.0) as f32;
    problem(loss, weighted, "sample_weight").gives(&[sum], &[(nll + focal) as f32, 0.0]);
}

/// An extra of a row that the loss leaves out is still what its own values make it.
#[test]
fn an_extra_looks_at_what_it_is_made_of() {
    let Some(ctx) = context() else { return };
    for x in [[-INF, -INF], [NAN, 0.0]] {
        let names = ["logsumexp", "entropy", "predicted"];
        let loss = losses::cross_entropy().reduction(Reduction::None);
        let hosts = [("input", HostTensor::f32(&x, &[1, 2])), ("target", HostTensor::i32(&[-100], &[1]))];
        let extras = names.map(str::to_owned).to_vec();
        let on_cpu = cpu::run::<f64>(&loss, &hosts, &Wanted { loss: true, extras, ..Wanted::default() }).unwrap();
        let input = Tensor::from_slice(ctx, &x, &[1, 2]).unwrap();
        let target = Tensor::from_slice(ctx, &[-100i32], &[1]).unwrap();
        let inputs = [("input", &input), ("target", &target)];
        let spec = names.iter().fold(PlanSpec::new().like(&inputs), |spec, name| spec.extra(name));
        let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        assert_eq!(bound.loss().unwrap().to_vec::<f32>().unwrap(), [0.0]);
        for name in names {
            let (want, got) = (on_cpu.extra(name).unwrap()[0], bound.extra(name).unwrap().to_vec::<f32>().unwrap()[0]);
            assert_eq!(got.is_nan(), want.is_nan(), "{name} of {x:?}: {got} on the GPU, {want} on the CPU");
            assert!(want.is_nan() || name == "predicted" && x[0] == -INF, "{name} of {x:?} is {want}");
        }
    }
}

/// An upstream gradient that is NaN poisons gradients, and no loss.
#[test]
fn an_upstream_nan_poisons_gradients_alone() {
    use wgloss::Upstream;
    let Some(ctx) = context() else { return };
    let x = Tensor::from_slice(ctx, &[1.0f32, 2.0, 3.0, 4.0], &[2, 2]).unwrap();
    let y = Tensor::from_slice(ctx, &[0i32, 1], &[2]).unwrap();
    let upstream = Tensor::from_slice(ctx, &[NAN, 1.0], &[2]).unwrap();
    let inputs = [("input", &x), ("target", &y), ("upstream", &upstream)];
    let spec = PlanSpec::new().like(&inputs).grad("input").upstream(Upstream::PerLoss);
    let loss = losses::cross_entropy().reduction(Reduction::None);
    let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    let got: Vec<f32> = bound.loss().unwrap().to_vec().unwrap();
    assert!(got.iter().all(|x| x.is_finite()), "{got:?}");
    let grad: Vec<f32> = bound.grad("input").unwrap().to_vec().unwrap();
    assert_eq!(grad.iter().map(|x| x.is_nan()).collect::<Vec<_>>(), [true, true, false, false]);
}

#[test]
fn at_the_labels_column_the_value_of_other_columns_is_not_looked_at() {
    // The gradient is that of `x` at every column but the label's, where it is 0 whatever `x` holds.
    let loss = Loss::define("elsewhere").input("x", Scope::Element).label("y").row_axis(RowAxis::Last).expr(|b| {
        let here = b.graph().col_index().equals(b.input("y"));
        (!here).select(b.input("x"), 1.0).logsumexp_shifted()
    });
    let loss = loss.reduction(Reduction::None);
    for (x, y, want) in [([f32::NAN, 0.5], [0], [false, false]), ([f32::NAN, 0.5], [1], [true, true])] {
        let host = [("x", HostTensor::f32(&x, &[1, 2])), ("y", HostTensor::i32(&y, &[1]))];
        let out = cpu::forward_backward(&loss, &host, &["x"]).unwrap();
        assert_eq!(is_nan(out.grad("x").unwrap()), want, "label {y:?}, CPU");
        let Some(ctx) = context() else { return };
        let (x, y) = (Tensor::from_slice(ctx, &x, &[1, 2]).unwrap(), Tensor::from_slice(ctx, &y, &[1]).unwrap());
        let inputs = [("x", &x), ("y", &y)];
        let spec = PlanSpec::new().like(&inputs).grad("x");
        let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        let got: Vec<f64> = bound.grad("x").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
        assert_eq!(is_nan(&got), want, "label, GPU");
    }
}
