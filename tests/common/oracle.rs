//! Every loss again, as textbook loops in f64: too simple to be wrong, and nothing from the crate under test.
//!
//! Gradients are five-point central differences, so the data must keep clear of kinks and clamps.

use std::collections::BTreeMap;

/// An array in row-major order.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    pub fn new(shape: &[usize], values: Vec<f64>) -> Array {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?}");
        Array { shape: shape.to_vec(), values }
    }
}

/// Value of an option.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Opt {
    Num(f64),
    Flag(bool),
    Index(Option<i64>),
}

/// One problem: inputs by name, labels, options by name, and the reduction by its name in Python libraries.
#[derive(Clone, Debug, Default)]
pub struct Case {
    pub arrays: BTreeMap<String, Array>,
    pub labels: Option<(Vec<i64>, Vec<usize>)>,
    pub options: BTreeMap<String, Opt>,
    pub reduction: String,
}

impl Case {
    pub fn num(&self, name: &str, default: f64) -> f64 {
        match self.options.get(name) {
            Some(Opt::Num(value)) => *value,
            None => default,
            other => panic!("option {name} is {other:?}"),
        }
    }

    pub fn flag(&self, name: &str, default: bool) -> bool {
        match self.options.get(name) {
            Some(Opt::Flag(value)) => *value,
            None => default,
            other => panic!("option {name} is {other:?}"),
        }
    }

    pub fn index(&self, name: &str, default: Option<i64>) -> Option<i64> {
        match self.options.get(name) {
            Some(Opt::Index(value)) => *value,
            None => default,
            other => panic!("option {name} is {other:?}"),
        }
    }

    fn values(&self, name: &str) -> &[f64] {
        &self.arrays.get(name).unwrap_or_else(|| panic!("the case has no input {name}")).values
    }

    /// An input spread over `shape`, or ones where it is absent.
    fn spread(&self, name: &str, shape: &[usize]) -> Vec<f64> {
        match self.arrays.get(name) {
            Some(array) => broadcast(array, shape),
            None => vec![1.0; shape.iter().product()],
        }
    }

    /// The shape that these inputs (those that are there) broadcast to.
    fn common_shape(&self, names: &[&str]) -> Vec<usize> {
        let mut shape: Vec<usize> = Vec::new();
        for array in names.iter().filter_map(|name| self.arrays.get(*name)) {
            while shape.len() < array.shape.len() {
                shape.insert(0, 1);
            }
            let lead = shape.len() - array.shape.len();
            for (axis, &size) in array.shape.iter().enumerate() {
                shape[lead + axis] = shape[lead + axis].max(size);
            }
        }
        shape
    }
}

/// Every element of `array` repeated along the axes where `shape` is longer.
pub fn broadcast(array: &Array, shape: &[usize]) -> Vec<f64> {
    let lead = shape.len() - array.shape.len();
    let mut out = Vec::new();
    for flat in 0..shape.iter().product() {
        let mut rest = flat;
        let mut index = vec![0; shape.len()];
        for axis in (0..shape.len()).rev() {
            index[axis] = rest % shape[axis];
            rest /= shape[axis];
        }
        let mut at = 0;
        for (axis, &size) in array.shape.iter().enumerate() {
            at = at * size + if size == 1 { 0 } else { index[lead + axis] };
        }
        out.push(array.values[at]);
    }
    out
}

/// Places of the elements of each row of a tensor of that shape, rows in row-major order of the other axes.
pub fn rows_of(shape: &[usize], axis: usize) -> Vec<Vec<usize>> {
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let cols = shape[axis];
    let mut rows = Vec::new();
    for o in 0..outer {
        for i in 0..inner {
            rows.push((0..cols).map(|c| (o * cols + c) * inner + i).collect());
        }
    }
    rows
}

fn class_axis(shape: &[usize]) -> usize {
    if shape.len() == 1 { 0 } else { 1 }
}

fn without(shape: &[usize], axis: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape.remove(axis);
    shape
}

/// Losses before the reduction.
struct Losses {
    values: Vec<f64>,
    shape: Vec<usize>,
    /// What the mean divides by the sum of; None: their number.
    mean_over: Option<Vec<f64>>,
    /// Which of them are of ignored rows; empty: none.
    ignored: Vec<bool>,
    /// Size of the first axis.
    batch: usize,
}

/// The loss of that name, in the shape of its reduction; `None` where this oracle does not know it.
pub fn oracle(name: &str, case: &Case) -> Option<Vec<f64>> {
    match name {
        "rmse" => return Some(vec![rmse(case)]),
        "l1_penalty" => {
            return Some(vec![case.num("lambda", 1.0) * case.values("w").iter().map(|w| w.abs()).sum::<f64>()]);
        }
        "l2_penalty" => {
            return Some(vec![case.num("lambda", 1.0) / 2.0 * case.values("w").iter().map(|w| w * w).sum::<f64>()]);
        }
        _ => {}
    }
    let losses = match name {
        "l1" => weighted_mean(case, |x, t| (x - t).abs()),
        "mse" => weighted_mean(case, |x, t| (x - t) * (x - t)),
        "huber" => elementwise(case, ["input", "target"], |x, t| huber(x - t, case.num("delta", 1.0))),
        "smooth_l1" => elementwise(case, ["input", "target"], |x, t| smooth_l1(x - t, case.num("beta", 1.0))),
        "quantile" => elementwise(case, ["input", "target"], |x, t| quantile(t - x, case.num("tau", 0.5))),
        "poisson_nll" => elementwise(case, ["input", "target"], |x, t| poisson_nll(case, x, t)),
        "bce" => elementwise(case, ["input", "target"], |x, t| {
            -(t * x.ln().max(-100.0) + (1.0 - t) * (1.0 - x).ln().max(-100.0))
        }),
        "bce_with_logits" => bce_with_logits(case),
        "kl_div" => elementwise(case, ["input", "target"], |x, t| match case.flag("log_target", false) {
            true => t.exp() * (t - x),
            false if t == 0.0 => -t * x,
            false => t * (t.ln() - x),
        }),
        "tvd" => elementwise(case, ["input", "target"], |x, t| (x - t).abs() / 2.0),
        "jsd" => jsd(case),
        "distillation" => distillation(case),
        "sigmoid_focal" => elementwise(case, ["inputs", "targets"], |x, t| sigmoid_focal(case, x, t)),
        "exp_square" => elementwise(case, ["input", "target"], |x, t| ((t - x).exp_m1()).powi(2)),
        "composite" => elementwise(case, ["input", "target"], |x, t| {
            case.num("mse_weight", 0.7) * (x - t) * (x - t) + case.num("l1_weight", 0.3) * (x - t).abs()
        }),
        "log_cosh" => {
            last_axis_mean(case, false, |t, p| (p - t).abs() + (-2.0 * (p - t).abs()).exp().ln_1p() - 2f64.ln())
        }
        "hinge" => last_axis_mean(case, case.flag("convert_binary", true), |t, p| (1.0 - t * p).max(0.0)),
        "squared_hinge" => {
            last_axis_mean(case, case.flag("convert_binary", true), |t, p| (1.0 - t * p).max(0.0).powi(2))
        }
        "cross_entropy" => cross_entropy(case),
        "z_loss" => labelled(case, "weight", true, |row, y, _| {
            -log_softmax(row)[y] + case.num("z", 1e-4) * logsumexp(row).powi(2)
        }),
        "softcap_cross_entropy" => labelled(case, "weight", true, |row, y, _| {
            let row: Vec<f64> = row.iter().map(|x| softcap(*x, case.num("softcap", 30.0))).collect();
            -log_softmax(&row)[y]
        }),
        "cross_entropy_prob" => cross_entropy_prob(case),
        "nll" => labelled(case, "weight", true, |row, y, w| -w[y] * row[y]),
        "multiclass_focal" => labelled(case, "alpha", false, |row, y, alpha| {
            let log_p = log_softmax(row)[y];
            -alpha[y] * (1.0 - log_p.exp()).powf(case.num("gamma", 2.0)) * log_p
        }),
        _ => return None,
    };
    Some(reduce(case, losses))
}

fn reduce(case: &Case, losses: Losses) -> Vec<f64> {
    let Losses { values, shape, mean_over, ignored, batch } = losses;
    let sample_weight = case.spread("sample_weight", &shape);
    let mut mask = case.spread("mask", &shape);
    for place in 0..ignored.len() {
        mask[place] *= f64::from(!ignored[place]);
    }
    let each: Vec<f64> =
        (0..values.len()).map(|k| if mask[k] == 0.0 { 0.0 } else { values[k] * sample_weight[k] }).collect();
    let kept = |weights: &[f64]| (0..weights.len()).filter(|&k| mask[k] != 0.0).map(|k| weights[k]).sum::<f64>();
    let total: f64 = each.iter().sum();
    match case.reduction.as_str() {
        "none" => each,
        "sum" => vec![total],
        "mean" | "sum_over_batch_size" => vec![total / kept(&mean_over.unwrap_or(vec![1.0; each.len()]))],
        "batchmean" => vec![total / batch as f64],
        "mean_with_sample_weight" => vec![total / kept(&sample_weight)],
        "mean_over_positive" => vec![total / each.iter().filter(|value| **value > 0.0).count() as f64],
        other => panic!("reduction {other}"),
    }
}

/// A loss of two inputs an element, times the optional `weight`.
fn elementwise(case: &Case, [a, b]: [&str; 2], f: impl Fn(f64, f64) -> f64) -> Losses {
    let shape = case.common_shape(&[a, b, "weight", "pos_weight"]);
    let (x, t, w) = (case.spread(a, &shape), case.spread(b, &shape), case.spread("weight", &shape));
    let values = (0..x.len()).map(|k| w[k] * f(x[k], t[k])).collect();
    let batch = shape.first().copied().unwrap_or(1);
    Losses { values, shape, mean_over: None, ignored: vec![], batch }
}

/// The same; its mean divides by the sum of `weight`.
fn weighted_mean(case: &Case, f: impl Fn(f64, f64) -> f64) -> Losses {
    let mut losses = elementwise(case, ["input", "target"], f);
    losses.mean_over = Some(case.spread("weight", &losses.shape));
    losses
}

fn huber(r: f64, delta: f64) -> f64 {
    if r.abs() <= delta { r * r / 2.0 } else { delta * (r.abs() - delta / 2.0) }
}

fn smooth_l1(r: f64, beta: f64) -> f64 {
    if r.abs() < beta { r * r / (2.0 * beta) } else { r.abs() - beta / 2.0 }
}

fn quantile(d: f64, tau: f64) -> f64 {
    if d >= 0.0 { tau * d } else { (tau - 1.0) * d }
}

fn rmse(case: &Case) -> f64 {
    let shape = case.common_shape(&["input", "target"]);
    let (x, t) = (case.spread("input", &shape), case.spread("target", &shape));
    let squares: f64 = (0..x.len()).map(|k| (x[k] - t[k]).powi(2)).sum();
    (squares / x.len() as f64).sqrt()
}

fn poisson_nll(case: &Case, x: f64, t: f64) -> f64 {
    let mut value =
        if case.flag("log_input", true) { x.exp() - t * x } else { x - t * (x + case.num("eps", 1e-8)).ln() };
    if case.flag("full", false) && t > 1.0 {
        value += t * t.ln() - t + 0.5 * (2.0 * std::f64::consts::PI * t).ln();
    }
    value
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + eˣ)
fn softplus(x: f64) -> f64 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

fn bce_with_logits(case: &Case) -> Losses {
    let shape = case.common_shape(&["input", "target", "weight", "pos_weight"]);
    let spread = |name: &str| case.spread(name, &shape);
    let (x, t, w, q) = (spread("input"), spread("target"), spread("weight"), spread("pos_weight"));
    // −ln sigmoid(x) = softplus(−x) and −ln(1 − sigmoid(x)) = softplus(x)
    let each = |k: usize| w[k] * (q[k] * t[k] * softplus(-x[k]) + (1.0 - t[k]) * softplus(x[k]));
    let batch = shape.first().copied().unwrap_or(1);
    Losses { values: (0..x.len()).map(each).collect(), shape, mean_over: None, ignored: vec![], batch }
}

fn sigmoid_focal(case: &Case, x: f64, t: f64) -> f64 {
    let (alpha, gamma) = (case.num("alpha", 0.25), case.num("gamma", 2.0));
    let p = sigmoid(x);
    let bce = t * softplus(-x) + (1.0 - t) * softplus(x);
    let p_t = p * t + (1.0 - p) * (1.0 - t);
    let alpha_t = if alpha < 0.0 { 1.0 } else { alpha * t + (1.0 - alpha) * (1.0 - t) };
    alpha_t * (1.0 - p_t).powf(gamma) * bce
}

/// Keras: the mean over the last axis; `convert`: if all targets are 0 or 1, they become −1 and 1.
fn last_axis_mean(case: &Case, convert: bool, f: impl Fn(f64, f64) -> f64) -> Losses {
    let shape = case.common_shape(&["y_true", "y_pred"]);
    let (mut t, p) = (case.spread("y_true", &shape), case.spread("y_pred", &shape));
    if convert && t.iter().all(|t| *t == 0.0 || *t == 1.0) {
        t.iter_mut().for_each(|t| *t = 2.0 * *t - 1.0);
    }
    let axis = shape.len() - 1;
    let mean = |row: Vec<usize>| row.iter().map(|&k| f(t[k], p[k])).sum::<f64>() / row.len() as f64;
    let values = rows_of(&shape, axis).into_iter().map(mean).collect();
    Losses { values, batch: shape[0], shape: without(&shape, axis), mean_over: None, ignored: vec![] }
}

/// The last axis is a distribution; `input` is ln Q and `target` ln P.
fn jsd(case: &Case) -> Losses {
    let shape = case.common_shape(&["input", "target"]);
    let (x, y, beta) = (case.spread("input", &shape), case.spread("target", &shape), case.num("beta", 0.5));
    // P·ln(P/M), and 0 for P = 0
    let part = |p: f64, m: f64| if p > 0.0 { p * (p / m).ln() } else { 0.0 };
    let one = |k: usize| {
        let (p, q) = (y[k].exp(), x[k].exp());
        let m = beta * p + (1.0 - beta) * q;
        match beta {
            0.0 => part(p, q),
            1.0 => part(q, p),
            _ => beta * part(p, m) + (1.0 - beta) * part(q, m),
        }
    };
    let axis = shape.len() - 1;
    let values = rows_of(&shape, axis).into_iter().map(|row| row.into_iter().map(one).sum()).collect();
    Losses { values, batch: shape[0], shape: without(&shape, axis), mean_over: None, ignored: vec![] }
}

/// xⱼ − ln Σ exp x
pub fn log_softmax(row: &[f64]) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
    row.iter().map(|x| (x - max) - sum.ln()).collect()
}

/// A loss `f(row, label, class weights)`; ignored rows are 0. The mean divides by the labels' weights, or (not
/// `by_weight`) by the number of rows that are not ignored.
fn labelled(case: &Case, weight: &str, by_weight: bool, f: impl Fn(&[f64], usize, &[f64]) -> f64) -> Losses {
    let input = &case.arrays["input"];
    let (labels, _) = case.labels.as_ref().expect("labels");
    let axis = class_axis(&input.shape);
    let weights = case.spread(weight, &[input.shape[axis]]);
    let ignore_index = case.index("ignore_index", Some(-100));
    let (mut values, mut mean_over) = (Vec::new(), Vec::new());
    let ignored: Vec<bool> = labels.iter().map(|label| Some(*label) == ignore_index).collect();
    for (row, (places, &label)) in rows_of(&input.shape, axis).iter().zip(labels).enumerate() {
        if ignored[row] {
            values.push(0.0);
            mean_over.push(0.0);
            continue;
        }
        let row: Vec<f64> = places.iter().map(|&k| input.values[k]).collect();
        values.push(f(&row, label as usize, &weights));
        mean_over.push(if by_weight { weights[label as usize] } else { 1.0 });
    }
    let (shape, batch) = (without(&input.shape, axis), input.shape[0]);
    Losses { values, shape, mean_over: Some(mean_over), ignored, batch }
}

fn cross_entropy(case: &Case) -> Losses {
    let (smoothing, temperature) = (case.num("label_smoothing", 0.0), case.num("temperature", 1.0));
    let (scale, cap) = (case.num("logit_scale", 1.0), case.num("softcap", 0.0));
    labelled(case, "weight", true, |row, y, w| {
        let row: Vec<f64> = row.iter().map(|x| softcap(scale * x, cap) / temperature).collect();
        let log_p = log_softmax(&row);
        let mut loss = -(1.0 - smoothing) * w[y] * log_p[y];
        if smoothing > 0.0 {
            for j in 0..row.len() {
                loss -= smoothing / row.len() as f64 * w[j] * log_p[j];
            }
        }
        loss += case.num("lse_square_scale", 0.0) * logsumexp(&row).powi(2);
        for log_p in log_p {
            // −p ln p, which is 0 for p = 0
            let entropy = if log_p > f64::NEG_INFINITY { -log_p.exp() * log_p } else { 0.0 };
            loss -= case.num("entropy_bonus", 0.0) * entropy;
        }
        loss
    })
}

/// c·tanh(x/c), or x where the cap is 0; −∞ stays −∞.
fn softcap(x: f64, cap: f64) -> f64 {
    if cap == 0.0 || x == f64::NEG_INFINITY { x } else { cap * (x / cap).tanh() }
}

/// ln Σ exp x
fn logsumexp(row: &[f64]) -> f64 {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + row.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

fn distillation(case: &Case) -> Losses {
    let (alpha, temperature) = (case.num("alpha", 0.5), case.num("temperature", 2.0));
    let (student, teacher) = (&case.arrays["student_logits"], &case.arrays["teacher_logits"]);
    let (labels, _) = case.labels.as_ref().expect("labels");
    let axis = class_axis(&student.shape);
    let ignore_index = case.index("ignore_index", None);
    let ignored: Vec<bool> = labels.iter().map(|label| Some(*label) == ignore_index).collect();
    let mut values = Vec::new();
    for (row, places) in rows_of(&student.shape, axis).iter().enumerate() {
        if ignored[row] {
            values.push(0.0);
            continue;
        }
        let of = |array: &Array, by: f64| -> Vec<f64> {
            log_softmax(&places.iter().map(|&k| array.values[k] / by).collect::<Vec<f64>>())
        };
        let (log_p, log_q) = (of(teacher, temperature), of(student, temperature));
        let mut soft = 0.0;
        for j in 0..log_p.len() {
            // p·ln(p/q), which is 0 for p = 0
            if log_p[j].exp() > 0.0 {
                soft += log_p[j].exp() * (log_p[j] - log_q[j]);
            }
        }
        let hard = -of(student, 1.0)[labels[row] as usize];
        values.push(match alpha {
            0.0 => hard,
            1.0 => temperature * temperature * soft,
            _ => alpha * temperature * temperature * soft + (1.0 - alpha) * hard,
        });
    }
    let valid = ignored.iter().map(|ignored| f64::from(!ignored)).collect();
    Losses { values, batch: student.shape[0], shape: without(&student.shape, axis), mean_over: Some(valid), ignored }
}

fn cross_entropy_prob(case: &Case) -> Losses {
    let (input, target) = (&case.arrays["input"], &case.arrays["target"]);
    let axis = class_axis(&input.shape);
    let smoothing = case.num("label_smoothing", 0.0);
    let weights = case.spread("weight", &[input.shape[axis]]);
    let mut values = Vec::new();
    for places in rows_of(&input.shape, axis) {
        let row: Vec<f64> = places.iter().map(|&k| input.values[k]).collect();
        let log_p = log_softmax(&row);
        let mut loss = 0.0;
        for (j, &k) in places.iter().enumerate() {
            let t = (1.0 - smoothing) * target.values[k] + smoothing / row.len() as f64;
            loss -= weights[j] * t * log_p[j];
        }
        values.push(loss);
    }
    Losses { values, shape: without(&input.shape, axis), mean_over: None, ignored: vec![], batch: input.shape[0] }
}

/// Step of the differences. Truncation is about h⁴, rounding 1e-16/h of the loss.
const STEP: f64 = 2e-3;

/// The sum of the losses, with one element of one input moved.
fn moved(name: &str, case: &Case, wrt: &str, place: usize, by: f64) -> f64 {
    let mut case = case.clone();
    case.arrays.get_mut(wrt).expect("an input of the case").values[place] += by;
    oracle(name, &case).expect("a loss that the oracle knows").iter().sum()
}

/// The derivative of the sum of the losses with respect to each element of an input.
pub fn gradient(name: &str, case: &Case, wrt: &str) -> Vec<f64> {
    let each = |place: usize| {
        let f = |steps: f64| moved(name, case, wrt, place, steps * STEP);
        (8.0 * (f(1.0) - f(-1.0)) - (f(2.0) - f(-2.0))) / (12.0 * STEP)
    };
    (0..case.arrays[wrt].values.len()).map(each).collect()
}

/// The second derivative of the sum of the losses with respect to each element of an input.
pub fn hessian_diagonal(name: &str, case: &Case, wrt: &str) -> Vec<f64> {
    let each = |place: usize| {
        let f = |steps: f64| moved(name, case, wrt, place, steps * 2.0 * STEP);
        (16.0 * (f(1.0) + f(-1.0)) - (f(2.0) + f(-2.0)) - 30.0 * f(0.0)) / (48.0 * STEP * STEP)
    };
    (0..case.arrays[wrt].values.len()).map(each).collect()
}
