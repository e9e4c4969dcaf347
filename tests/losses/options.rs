//! Options that are scalars on the GPU, and those that change between submits: to the limits of their formulas.

use crate::common::cases::{self, option_sets, tried};
use crate::common::oracle::{self, Case, Opt};
use crate::common::{context, is_in_share, label_of, loss_of};
use std::collections::BTreeMap;
use wgloss::{Bindings, Error, HostTensor, Loss, PlanSpec, Reduction, Scope, Tensor, Value, Wanted, cpu, losses};

const INF: f32 = f32::INFINITY;

/// What an input holds.
#[derive(Clone)]
enum Data {
    Numbers(Vec<f32>, Vec<usize>),
    Labels(Vec<i32>, Vec<usize>),
}

type Inputs<'n> = Vec<(&'n str, Data)>;
/// The values of each loss and gradient by name.
type Found = BTreeMap<String, Vec<f64>>;

fn numbers(values: &[f32], shape: &[usize]) -> Data {
    Data::Numbers(values.to_vec(), shape.to_vec())
}

/// One label per row.
fn labels(values: &[i32]) -> Data {
    Data::Labels(values.to_vec(), vec![values.len()])
}

fn hosts<'a>(inputs: &'a Inputs<'_>) -> Vec<(&'a str, HostTensor<'a>)> {
    let host = inputs.iter().map(|(name, data)| match data {
        Data::Numbers(values, shape) => (*name, HostTensor::f32(values, shape)),
        Data::Labels(labels, shape) => (*name, HostTensor::i32(labels, shape)),
    });
    host.collect()
}

fn on_cpu(loss: &Loss, inputs: &Inputs<'_>, grads: &[&str]) -> Found {
    let host = hosts(inputs);
    let wanted = Wanted { loss: true, grads: grads.iter().map(|g| (*g).to_owned()).collect(), ..Wanted::default() };
    let out = cpu::run::<f64>(loss, &host, &wanted).unwrap_or_else(|error| panic!("{}: {error}", loss.name()));
    let grads = grads.iter().map(|name| ((*name).to_owned(), out.grad(name).unwrap().to_vec()));
    grads.chain([("loss".to_owned(), out.loss_values().unwrap().to_vec())]).collect()
}

/// On the GPU, with parameters set between the plan and the submit.
fn on_gpu(loss: &Loss, inputs: &Inputs<'_>, grads: &[&str], set: Option<(&str, f64)>) -> Option<Found> {
    let ctx = context()?;
    let tensor = |data: &Data| match data {
        Data::Numbers(values, shape) => Tensor::from_slice(ctx, values, shape).unwrap(),
        Data::Labels(labels, shape) => Tensor::from_slice(ctx, labels, shape).unwrap(),
    };
    let tensors: Vec<(&str, Tensor)> = inputs.iter().map(|(name, data)| (*name, tensor(data))).collect();
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let spec = grads.iter().fold(PlanSpec::new().like(&tensors), |spec, name| spec.grad(name));
    let bound = ctx.plan(loss, &spec).unwrap().bind(&Bindings::new().inputs(&tensors)).unwrap();
    if let Some((option, value)) = set {
        bound.set_param(option, value).unwrap();
    }
    bound.submit().unwrap();
    let widened = |tensor: &Tensor| tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect::<Vec<f64>>();
    let grads = grads.iter().map(|name| ((*name).to_owned(), widened(bound.grad(name).unwrap())));
    Some(grads.chain([("loss".to_owned(), widened(bound.loss().unwrap()))]).collect())
}

fn same(what: &str, got: &Found, want: &Found, tolerance: f64) {
    for (name, want) in want {
        let largest = want.iter().filter(|x| x.is_finite()).fold(0.0, |most, x| x.abs().max(most));
        assert_eq!(got[name].len(), want.len(), "{what}: {name}");
        for (k, (got, want)) in got[name].iter().zip(want).enumerate() {
            let fits =
                got.is_nan() && want.is_nan() || got == want || (got - want).abs() <= tolerance * (largest + 0.01);
            assert!(fits, "{what}: {name}[{k}] is {got}, want {want}");
        }
    }
}

fn data_of<'c>(case: &'c Case, label: &'c str) -> Inputs<'c> {
    let narrow = |values: &[f64]| values.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    let whole = |values: &[f64]| values.iter().map(|x| *x as i32).collect::<Vec<i32>>();
    let arrays = case.arrays.iter().map(|(name, a)| match case.integers.contains(name) {
        true => (name.as_str(), Data::Labels(whole(&a.values), a.shape.clone())),
        false => (name.as_str(), numbers(&narrow(&a.values), &a.shape)),
    });
    let narrow = |y: &[i64]| y.iter().map(|y| *y as i32).collect();
    let labels = case.labels.iter().map(|(y, shape)| (label, Data::Labels(narrow(y), shape.clone())));
    arrays.chain(labels).collect()
}

/// Whether the loss, with its other options, does not read an option that is a scalar on the GPU.
fn is_unread(loss: &Loss, inputs: &Inputs<'_>) -> bool {
    let mut host = hosts(inputs);
    host.push(("knob", HostTensor::f32(&[1.0], &[])));
    let outcome = cpu::run::<f64>(loss, &host, &Wanted { loss: true, ..Wanted::default() });
    matches!(outcome, Err(Error::Expr { message, .. }) if message.contains("is not read with its other options"))
}

/// The derivative of the textbook loss with respect to an option: differences, with one step of Richardson.
fn slope(name: &str, case: &Case, option: &str, at: f64) -> f64 {
    let value = |x: f64| {
        let mut case = case.clone();
        case.options.insert(option.to_owned(), Opt::Num(x));
        oracle::oracle(name, &case).expect("the oracle knows the loss")[0]
    };
    let slope = |h: f64| (value(at + h) - value(at - h)) / (2.0 * h);
    // Near 0, where an option may be in a logarithm, the steps are shorter.
    let step = 1e-4 * (10.0 * at.abs()).clamp(0.01, 1.0);
    (4.0 * slope(step) - slope(2.0 * step)) / 3.0
}

/// Whether the loss reads that option, with the others as they are.
fn is_read(loss: &str, case: &Case, option: &str) -> bool {
    match (loss, option) {
        (_, "eps") => case.options.get("log_input") == Some(&Opt::Flag(false)),
        ("binary_focal", "alpha") => case.options.get("apply_class_balancing") == Some(&Opt::Flag(true)),
        _ => true,
    }
}

/// Every numeric option of the catalogue, with each set of the others: as a scalar it is the number that it holds, and has
/// the derivative of the textbook formula.
#[test]
fn an_option_on_the_gpu_is_the_number_it_holds_and_may_be_learned() {
    let mut count = 0;
    for entry in tried() {
        for set in option_sets(entry.name) {
            for decl in (entry.make)().options() {
                let Value::Num(default) = decl.default else { continue };
                let given = set.iter().find(|(name, _)| *name == decl.name).map(|(_, value)| *value);
                let mut at = if let Some(Opt::Num(x)) = given { x } else { default };
                if decl.structural.contains(&at) {
                    at = 0.75;
                }
                let mut options = set.clone();
                options.retain(|(name, _)| *name != decl.name);
                let name: &'static str = decl.name.clone().leak();
                options.push((name, Opt::Num(at)));
                // An input of that name would stand for the option.
                let mut inputs = cases::optional_inputs(entry.name);
                inputs.retain(|input| *input != name);
                let case = cases::case(entry.name, &options, &[3, 5], &inputs, "mean", 2.0);
                let loss = loss_of(entry.name, &case).unwrap().option(name, "knob");
                if decl.domain.is_of_formula() {
                    let error = loss.check().unwrap_err();
                    assert!(matches!(&error, Error::Param { param, .. } if *param == decl.name), "{error}");
                    continue;
                }
                if !is_read(entry.name, &case, name) {
                    continue;
                }
                let label = case.labels.as_ref().map_or_else(String::new, |_| label_of(&loss));
                if is_unread(&loss, &data_of(&case, &label)) {
                    continue;
                }
                let (input, what) = (cases::names(entry.name).0, format!("{} {options:?}, {name}", entry.name));
                let mut inputs = data_of(&case, &label);
                inputs.push(("knob", numbers(&[at as f32], &[])));
                let mut want: Found = BTreeMap::new();
                let mut rounded = case.clone();
                rounded.options.insert(name.to_owned(), Opt::Num(f64::from(at as f32)));
                want.insert("loss".to_owned(), oracle::oracle(entry.name, &rounded).unwrap());
                want.insert(input.to_owned(), oracle::gradient(entry.name, &rounded, input));
                // Outside of its domain the formula may have no value, and no slope at its end.
                let is_inside = decl.domain.contains(at - 1e-3) && decl.domain.contains(at + 1e-3);
                if is_inside {
                    want.insert("knob".to_owned(), vec![slope(entry.name, &rounded, name, f64::from(at as f32))]);
                }
                let grads: Vec<&str> = if is_inside { vec![input, "knob"] } else { vec![input] };
                same(&format!("{what} on the CPU"), &on_cpu(&loss, &inputs, &grads), &want, 1e-7);
                let got = if is_in_share(&what) { on_gpu(&loss, &inputs, &grads, None) } else { None };
                if let Some(got) = got {
                    same(&format!("{what} on the GPU"), &got, &want, 4e-6);
                }
                count += 1;
            }
        }
    }
    assert!(count > 40 || std::env::var_os("WGLOSS_TEST_LOSSES").is_some(), "{count} options");
}

/// A limit of an option that has a formula, and a faster kernel, of its own.
struct Limit<'n> {
    loss: Loss,
    option: &'n str,
    at: f64,
    /// Another value of its domain.
    general: f64,
    inputs: Inputs<'n>,
    grads: &'n [&'n str],
}

impl Limit<'_> {
    /// The general formula at the limit, on the CPU and the GPU, by a scalar and by `set_param`, is the special one.
    fn check(&self) {
        let Limit { loss, option, at, general, inputs, grads } = self;
        let loss = loss.clone().reduction(Reduction::None);
        let what = format!("{} with {option} = {at}", loss.name());
        let want = on_cpu(&loss.clone().option(option, *at), inputs, grads);
        let (scalar, mut with_scalar) = (loss.clone().option(option, "knob"), inputs.clone());
        with_scalar.push(("knob", numbers(&[*at as f32], &[])));
        same(&format!("{what}, a scalar on the CPU"), &on_cpu(&scalar, &with_scalar, grads), &want, 1e-9);
        let Some(got) = on_gpu(&scalar, &with_scalar, grads, None) else { return };
        same(&format!("{what}, a scalar on the GPU"), &got, &want, 2e-6);
        let set = on_gpu(&loss.clone().option(option, *general), inputs, grads, Some((option, *at)));
        same(&format!("{what}, set"), &set.expect("a GPU"), &want, 2e-6);
    }
}

fn logits() -> Data {
    // No −∞, one where nothing is expected, one at the label; confident; ties.
    numbers(&[0.5, -1.0, 2.0, 1.0, -INF, 0.25, -INF, 3.0, 1.5, 40.0, -40.0, 0.0, 1.0, 1.0, 1.0], &[5, 3])
}

fn labelled() -> Inputs<'static> {
    vec![("input", logits()), ("target", labels(&[2, 0, 0, 0, 1])), ("weight", numbers(&[0.5, 0.0, 2.0], &[3]))]
}

#[test]
fn a_plan_for_any_value_is_right_at_the_limits_of_a_softmax() {
    let options = [
        ("label_smoothing", 0.0, 0.1),
        ("temperature", 1.0, 2.0),
        ("logit_scale", 1.0, 0.5),
        ("lse_square_scale", 0.0, 0.1),
        ("entropy_bonus", 0.0, -0.2),
    ];
    let of =
        |loss: Loss, option: &'static str, at: f64, general: f64, inputs: Inputs<'static>, grads: &'static [&str]| {
            Limit { loss, option, at, general, inputs, grads }.check();
        };
    for (option, at, general) in options {
        of(losses::cross_entropy().into(), option, at, general, labelled(), &["input", "weight"]);
    }
    let without_weight = || labelled()[..2].to_vec();
    of(losses::z_loss(0.0).into(), "z", 0.0, 0.1, without_weight(), &["input"]);
    for (at, general) in [(0.0, 0.5), (1.0, 0.5), (2.0, 3.5)] {
        of(losses::multiclass_focal().into(), "gamma", at, general, without_weight(), &["input"]);
    }
    let target = numbers(&[0.2, 0.3, 0.5, 1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0], &[5, 3]);
    let of_probabilities = vec![("input", logits()), ("target", target)];
    of(losses::cross_entropy_prob().into(), "label_smoothing", 0.0, 0.1, of_probabilities, &["input", "target"]);
}

#[test]
fn without_a_share_a_teacher_or_a_label_is_not_there() {
    let teacher = numbers(&[1.0, 0.5, 0.0, 0.0, 2.0, 1.0, 1.0, 0.0, -1.0, 3.0, 3.0, 2.0, 0.0, 0.0, 0.0], &[5, 3]);
    let inputs = |student: Data| {
        vec![("student_logits", student), ("teacher_logits", teacher.clone()), ("target", labels(&[2, 0, 1, 0, 1]))]
    };
    let grads: &[&str] = &["student_logits", "teacher_logits"];
    let of = |at: f64, student: Data, option: &'static str, general: f64| {
        let (loss, inputs) = (losses::distillation(0.5, 2.0).into(), inputs(student));
        Limit { loss, option, at, general, inputs, grads }.check();
    };
    // The student rules out classes that the teacher does not: the teacher's loss is infinite.
    of(0.0, logits(), "alpha", 0.5);
    let finite = numbers(&[0.5, -1.0, 2.0, 1.0, 0.0, 0.25, 0.5, 3.0, 1.5, 9.0, -9.0, 0.0, 1.0, 1.0, 1.0], &[5, 3]);
    of(1.0, finite.clone(), "alpha", 0.5);
    of(1.0, finite, "temperature", 2.0);
}

#[test]
fn a_plan_for_any_value_is_right_at_the_limits_of_elements() {
    let (x, t) = ([0.5f32, -2.0, 0.0, 3.0, -INF, 1e20], [0.0f32, 1.0, 0.0, 3.0, 0.0, 0.0]);
    let inputs = vec![("input", numbers(&x, &[6])), ("target", numbers(&t, &[6]))];
    let limit = |loss: Loss, option: &'static str, at: f64, general: f64, inputs: Inputs<'static>, grads| {
        Limit { loss, option, at, general, inputs, grads }.check();
    };
    limit(losses::smooth_l1(1.0).into(), "beta", 0.0, 1.0, inputs, &["input", "target"]);
    // Certain and right, certain and soft, in doubt.
    let (x, t) = ([INF, -INF, 200.0, 0.5, -1.0], [1.0f32, 0.0, 1.0, 0.25, 1.0]);
    for (at, general) in [(0.0, 0.5), (1.0, 0.5), (2.0, 3.5)] {
        let inputs = vec![("inputs", numbers(&x, &[5])), ("targets", numbers(&t, &[5]))];
        limit(losses::sigmoid_focal().into(), "gamma", at, general, inputs, &["inputs"]);
    }
}

#[test]
fn a_learned_scale_takes_no_gradient_from_a_logit_that_rules_a_class_out() {
    // Of rows of three, the second rules out a class that is not its label.
    let (x, y) = ([0.5f32, -1.0, 2.0, 1.0, -INF, 0.25], [2i32, 0]);
    let value = |scale: f64| {
        let rows = x.chunks(3).zip(&y).map(|(row, y)| {
            let z: Vec<f64> = row.iter().map(|x| f64::from(*x) * scale).collect();
            z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[*y as usize]
        });
        rows.sum::<f64>() / 2.0
    };
    let slope = |of: &dyn Fn(f64) -> f64, at: f64| {
        let slope = |h: f64| (of(at + h) - of(at - h)) / (2.0 * h);
        (4.0 * slope(1e-4) - slope(2e-4)) / 3.0
    };
    let inputs =
        |knob: f32| vec![("input", numbers(&x, &[2, 3])), ("target", labels(&y)), ("knob", numbers(&[knob], &[]))];
    let by_scale: Found = [("loss".to_owned(), vec![value(1.5)]), ("knob".to_owned(), vec![slope(&value, 1.5)])].into();
    let of_temperature = |t: f64| value(1.0 / t);
    let d_temperature = vec![slope(&of_temperature, 1.5)];
    let by_temperature: Found =
        [("loss".to_owned(), vec![of_temperature(1.5)]), ("knob".to_owned(), d_temperature)].into();
    let cases: [(Loss, &Found); 2] = [
        (losses::cross_entropy().logit_scale("knob").into(), &by_scale),
        (losses::cross_entropy().temperature("knob").into(), &by_temperature),
    ];
    for (loss, want) in cases {
        same("on the CPU", &on_cpu(&loss, &inputs(1.5), &["knob"]), want, 1e-8);
        if let Some(got) = on_gpu(&loss, &inputs(1.5), &["knob"], None) {
            same("on the GPU", &got, want, 2e-6);
        }
    }
}

#[test]
fn one_scalar_may_be_several_options_and_factors() {
    let loss = losses::huber("s").scaled_by("s") + losses::l1() * "s" * 0.5;
    assert_eq!(loss.name(), "s*huber + 0.5*s*l1");
    let (x, t, s) = ([3.0f32, -0.25, 1.0], [0.5f32, 0.0, 1.25], 0.75);
    let r: Vec<f64> = x.iter().zip(&t).map(|(x, t)| f64::from(x - t)).collect();
    let mean = |f: &dyn Fn(f64) -> f64| r.iter().map(|r| f(*r)).sum::<f64>() / 3.0;
    let huber = mean(&|r| if r.abs() <= s { 0.5 * r * r } else { s * (r.abs() - 0.5 * s) });
    let d_delta = mean(&|r| if r.abs() <= s { 0.0 } else { r.abs() - s });
    let want: Found = [
        ("loss".to_owned(), vec![s * huber + 0.5 * s * mean(&f64::abs)]),
        ("s".to_owned(), vec![huber + s * d_delta + 0.5 * mean(&f64::abs)]),
    ]
    .into();
    let inputs = vec![("input", numbers(&x, &[3])), ("target", numbers(&t, &[3])), ("s", numbers(&[s as f32], &[]))];
    same("on the CPU", &on_cpu(&loss, &inputs, &["s"]), &want, 1e-9);
    if let Some(got) = on_gpu(&loss, &inputs, &["s"], None) {
        same("on the GPU", &got, &want, 2e-6);
    }
    let renamed = loss.rename_input("s", "width");
    let names: Vec<String> = renamed.inputs().into_iter().map(|input| input.name).collect();
    assert_eq!(names, ["input", "target", "weight", "width"]);
}

#[test]
fn a_plan_made_at_a_special_value_keeps_it() {
    let Some(ctx) = context() else { return };
    let [logits, labels] = [vec![0.5f32, 1.5, -0.25], vec![0.0]];
    let logits = Tensor::from_slice(ctx, &logits, &[1, 3]).unwrap();
    let labels = Tensor::from_slice(ctx, &[labels[0] as i32], &[1]).unwrap();
    let refused = |loss: Loss, option: &str, value: f64| {
        let out = loss.forward(ctx, &[("input", &logits), ("target", &labels)]).unwrap();
        out.bound().set_param(option, value).unwrap_err().to_string()
    };
    let message = "label_smoothing = 0.1 for cross_entropy; must be 0, for which this plan has a kernel of its own; plan \
                   again with label_smoothing = 0.1";
    assert_eq!(refused(losses::cross_entropy().into(), "label_smoothing", 0.1), message);
    let message = "label_smoothing = 1.5 for cross_entropy; must be in [0, 1]";
    assert_eq!(refused(losses::cross_entropy().into(), "label_smoothing", 1.5), message);
    let out = losses::cross_entropy().forward(ctx, &[("input", &logits), ("target", &labels)]).unwrap();
    assert_eq!(out.bound().set_param("label_smoothing", 0.0), Ok(()));
    assert!(matches!(out.bound().set_param("smoothing", 0.0), Err(Error::Name { .. })));
    let t = Tensor::from_slice(ctx, &[1.0f32], &[]).unwrap();
    let inputs = [("input", &logits), ("target", &labels), ("t", &t)];
    let learned = losses::cross_entropy().temperature("t").forward(ctx, &inputs).unwrap();
    let message = "temperature = 2 for cross_entropy; must be written to the scalar input `t`, which the plan reads";
    assert_eq!(learned.bound().set_param("temperature", 2.0).unwrap_err().to_string(), message);
    let z = losses::z_loss(0.5);
    assert_eq!(refused(z.into(), "z", -1.0), "z = -1 for z_loss; must be finite and >= 0");
    let capped = losses::cross_entropy().softcap(5.0);
    let message =
        "softcap = 0 for cross_entropy; must be other than 0, which is another formula; plan again with softcap = 0";
    assert_eq!(refused(capped.into(), "softcap", 0.0), message);
}

#[test]
fn scalars_that_do_not_fit_are_errors() {
    for name in ["", "mask", "sample_weight", "upstream"] {
        let option = losses::cross_entropy().temperature(name);
        assert!(matches!(option.check(), Err(Error::Param { param, .. }) if param == "temperature"), "{name}");
        let factor = losses::mse() * name;
        assert!(matches!(factor.check(), Err(Error::Param { param, .. }) if param == "weight"), "{name}");
    }
    let flag = losses::by_name("hinge").unwrap().option("convert_binary", "s");
    assert!(matches!(flag.check(), Err(Error::Param { .. })));
    let run = |loss: &Loss, inputs: &[(&str, HostTensor<'_>)]| cpu::forward_backward(loss, inputs, &[]).unwrap_err();
    let pair = || [("input", HostTensor::f32(&[1.0], &[1])), ("target", HostTensor::f32(&[2.0], &[1]))];
    let missing = run(&losses::huber("delta"), &pair());
    assert!(matches!(&missing, Error::Name { name, .. } if name == "delta"), "{missing}");
    // A scalar and an input of elements by one name.
    let both = run(&losses::huber("input"), &pair());
    assert!(matches!(&both, Error::Expr { message, .. } if message.contains("`input`")), "{both}");
    let [x, t] = pair();
    let unread = run(&losses::poisson_nll().eps("eps"), &[x, t, ("eps", HostTensor::f32(&[0.1], &[]))]);
    let message =
        "expression of poisson_nll: its option `eps` is the scalar `eps`, and is not read with its other options";
    assert_eq!(unread.to_string(), message);
    // An own loss may ask for the number, and must do without.
    let own =
        Loss::define("own").input("input", Scope::Element).special_param("p", 2.0, wgloss::Domain::Finite, &[2.0]);
    let own = own.expr(|b| if b.value("p") == Some(2.0) { b.input("input") } else { b.input("input") * b.param("p") });
    let given = [("input", HostTensor::f32(&[3.0], &[1])), ("q", HostTensor::f32(&[2.0], &[]))];
    assert_eq!(cpu::forward_backward(&own.option("p", "q"), &given, &[]).unwrap().loss().unwrap(), 6.0);
}
