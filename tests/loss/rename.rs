//! Inputs by other names: two heads in one sum.

use crate::common::context;
use wgloss::{DType, Error, GradMode, HostTensor, Loss, PlanSpec, Reduction, Scope, Tensor, Wanted, cpu, losses};

const LOGITS: [f32; 6] = [1.0, -0.5, 2.0, 0.25, 0.0, -1.0];
const AUX: [f32; 6] = [0.5, 1.5, -2.0, 3.0, 0.0, 1.0];
const LABELS: [i32; 2] = [2, 0];
const AUX_LABELS: [i32; 2] = [1, -100];

/// Mean cross-entropy of rows of three, and its gradient, by the book; rows labelled −100 do not count.
fn cross_entropy(logits: &[f32], labels: &[i32], keep: &[bool]) -> (f64, Vec<f64>) {
    let counts = |row: usize| labels[row] != -100 && keep[row];
    let n = (0..labels.len()).filter(|row| counts(*row)).count() as f64;
    let (mut sum, mut grads) = (0.0, vec![0.0; logits.len()]);
    for row in (0..labels.len()).filter(|row| counts(*row)) {
        let x: Vec<f64> = logits[3 * row..3 * row + 3].iter().map(|x| f64::from(*x)).collect();
        let total: f64 = x.iter().map(|x| x.exp()).sum();
        let label = labels[row] as usize;
        sum += total.ln() - x[label];
        for col in 0..3 {
            grads[3 * row + col] = (x[col].exp() / total - f64::from(u8::from(col == label))) / n;
        }
    }
    (sum / n, grads)
}

fn heads() -> Loss {
    let auxiliary = losses::cross_entropy().rename_input("input", "aux_input").rename_input("target", "aux_target");
    losses::cross_entropy() + 0.5 * auxiliary
}

fn near(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (k, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 1e-6 * want.abs().max(0.1), "{what}[{k}] is {got}, want {want}");
    }
}

/// The loss and gradients with respect to both logits on the CPU and the GPU.
fn check(loss: &Loss, extra: &[(&str, &[f32])], want: &(f64, Vec<f64>, Vec<f64>)) {
    let host = [
        ("input", HostTensor::f32(&LOGITS, &[2, 3])),
        ("target", HostTensor::i32(&LABELS, &[2])),
        ("aux_input", HostTensor::f32(&AUX, &[2, 3])),
        ("aux_target", HostTensor::i32(&AUX_LABELS, &[2])),
    ];
    let shape = |values: &[f32]| if values.len() == 1 { Vec::new() } else { vec![values.len()] };
    let more = extra.iter().map(|(name, values)| (*name, HostTensor::f32(values, &shape(values))));
    let host: Vec<(&str, HostTensor<'_>)> = host.into_iter().chain(more).collect();
    let out = cpu::forward_backward(loss, &host, &["input", "aux_input"]).unwrap();
    near("loss on the CPU", &[out.loss().unwrap()], &[want.0]);
    near("d_input on the CPU", out.grad("input").unwrap(), &want.1);
    near("d_aux_input on the CPU", out.grad("aux_input").unwrap(), &want.2);
    let Some(ctx) = context() else { return };
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(ctx, values, shape).unwrap();
    let labels = |values: &[i32]| Tensor::from_slice(ctx, values, &[2]).unwrap();
    let mut inputs = vec![
        ("input", tensor(&LOGITS, &[2, 3])),
        ("target", labels(&LABELS)),
        ("aux_input", tensor(&AUX, &[2, 3])),
        ("aux_target", labels(&AUX_LABELS)),
    ];
    inputs.extend(extra.iter().map(|(name, values)| (*name, tensor(values, &shape(values)))));
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let out = loss.forward_backward_of(ctx, &inputs, &["input", "aux_input"]).unwrap();
    let widened = |name: &str| -> Vec<f64> {
        out.grad(name).unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
    };
    near("loss on the GPU", &[f64::from(out.loss().unwrap())], &[want.0]);
    near("d_input on the GPU", &widened("input"), &want.1);
    near("d_aux_input on the GPU", &widened("aux_input"), &want.2);
}

fn scaled(factor: f64, values: &[f64]) -> Vec<f64> {
    values.iter().map(|x| factor * x).collect()
}

#[test]
fn two_heads_stand_in_one_sum() {
    let (main, aux) = (cross_entropy(&LOGITS, &LABELS, &[true; 2]), cross_entropy(&AUX, &AUX_LABELS, &[true; 2]));
    check(&heads(), &[], &(main.0 + 0.5 * aux.0, main.1, scaled(0.5, &aux.1)));
    let names: Vec<String> = heads().inputs().into_iter().map(|input| input.name).collect();
    assert_eq!(names, ["input", "target", "weight", "aux_input", "aux_target"]);
    assert_eq!(heads().differentiable().as_deref(), Some("input"));
    let keras = losses::log_cosh().rename_input("y_pred", "predicted");
    assert_eq!(keras.differentiable().as_deref(), Some("predicted"));
}

#[test]
fn each_head_has_a_mask_and_a_factor_of_its_own() {
    let auxiliary = losses::cross_entropy().scaled_by("factor").rename_input("factor", "aux_factor");
    let auxiliary = auxiliary.rename_input("input", "aux_input").rename_input("target", "aux_target");
    let loss = losses::cross_entropy() + auxiliary.rename_input("mask", "aux_mask");
    let main = cross_entropy(&LOGITS, &LABELS, &[false, true]);
    let aux = cross_entropy(&AUX, &AUX_LABELS, &[true; 2]);
    let extra: [(&str, &[f32]); 3] = [("mask", &[0.0, 1.0]), ("aux_mask", &[1.0, 1.0]), ("aux_factor", &[0.25])];
    check(&loss, &extra, &(main.0 + 0.25 * aux.0, main.1, scaled(0.25, &aux.1)));
}

#[test]
fn a_mask_that_was_renamed_away_leaves_a_scalar_term_alone() {
    let s = || Loss::define("log_variance").input("s", Scope::Scalar).expr(|b| b.input("s"));
    let inputs = |mask: &'static str| {
        let pair = [HostTensor::f32(&[3.0, 1.0], &[2]), HostTensor::f32(&[1.0, 0.0], &[2])];
        let [input, target] = pair;
        let mask = (mask, HostTensor::f32(&[1.0, 0.0], &[2]));
        [("input", input), ("target", target), mask, ("s", HostTensor::f32(&[0.5], &[]))]
    };
    let error = cpu::forward_backward(&(losses::mse() + s()), &inputs("mask"), &[]).unwrap_err();
    assert!(error.to_string().contains("rename_input"), "{error}");
    let renamed = losses::mse().rename_input("mask", "valid") + s();
    assert_eq!(cpu::forward_backward(&renamed, &inputs("valid"), &[]).unwrap().loss().unwrap(), 4.5);
}

#[test]
fn names_that_do_not_fit_are_errors() {
    let unknown = losses::mse().rename_input("inputs", "aux").check().unwrap_err();
    let message = "mse has no input to rename `inputs`; known here: input, target, weight, sample_weight, mask";
    assert_eq!(unknown.to_string(), message);
    let equal = losses::mse().rename_input("input", "target").check().unwrap_err();
    let message =
        "expression of mse: `input` renamed to `target` would be two inputs in one; rename that `target` first";
    assert_eq!(equal.to_string(), message);
    let expr = |loss: &Loss| assert!(matches!(loss.check(), Err(Error::Expr { .. })), "{:?}", loss.check());
    expr(&losses::mse().rename_input("input", "mask"));
    expr(&losses::mse().rename_input("input", "upstream"));
    expr(&losses::mse().rename_input("input", ""));
    // A label here, numbers there.
    let kinds = losses::cross_entropy().rename_input("target", "labels") + losses::mse();
    expr(&kinds.rename_input("labels", "weight"));
    // A later term finds it as well.
    let mixed = losses::cross_entropy().rename_input("target", "x") + losses::mse().rename_input("input", "x");
    let none = |_: &str| -> HostTensor<'static> { HostTensor::f32(&[0.0], &[1]) };
    let inputs = ["input", "x", "target"].map(|name| (name, none(name)));
    assert!(matches!(
        cpu::run::<f64>(&mixed, &inputs, &Wanted { loss: true, ..Wanted::default() }),
        Err(Error::Expr { .. })
    ));
    // And back again: nothing is left of the other name.
    let back = losses::mse().rename_input("input", "x").rename_input("x", "input");
    assert_eq!(back.check(), Ok(()));
    assert_eq!(back.inputs(), losses::mse().inputs());
}

#[test]
fn errors_of_plans_use_the_new_names() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("input", DType::F32, &[2, 3]).input("target", DType::I32, &[2]);
    let missing = ctx.plan(&heads(), &spec).unwrap_err();
    assert!(matches!(&missing, Error::Name { name, .. } if name == "aux_input"), "{missing}");
    let spec = spec.input("aux_input", DType::F32, &[2, 3]).input("aux_target", DType::F32, &[2]);
    let wrong = ctx.plan(&heads(), &spec).unwrap_err();
    assert!(matches!(&wrong, Error::DType { input, .. } if input == "aux_target"), "{wrong}");
    let old = losses::mse().rename_input("input", "x").reduction(Reduction::Sum);
    let spec = PlanSpec::new().input("x", DType::F32, &[3]).input("target", DType::F32, &[3]);
    let gradient = ctx.plan(&old, &spec.clone().grad_mode("input", GradMode::Write)).unwrap_err();
    assert!(matches!(&gradient, Error::Name { name, .. } if name == "input"), "{gradient}");
    let explained = ctx.plan(&old, &spec.grad("x")).unwrap().explain();
    assert!(explained.contains("gradient of x") && !explained.contains("input  "), "{explained}");
}
