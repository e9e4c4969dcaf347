//! Every loss again, as textbook loops: too simple to be wrong, and nothing from the crate under test.
//!
//! The loops take any [`Real`]: f64 for the loss, dual numbers for its derivatives. At a kink or a clamp those are of one
//! side, so the data must keep clear of both.

mod adversarial;
mod boxes;
mod categorical;
mod cumulative;
mod detection;
mod divergence;
mod embedding;
mod likelihood;
mod lists;
mod margin;
mod margin_softmax;
mod noisy_labels;
mod ordinal;
mod overlap;
mod policy;
mod preference;
mod ranking;
mod regression;
mod robust;
mod segmentation;
mod sequence;
mod sigmoid;
mod softmax;
mod threshold;
mod value;

use regression::*;
use softmax::*;

use super::real::{Dual, Real};
use std::collections::{BTreeMap, BTreeSet};

/// An array in row-major order.
#[derive(Clone, Debug)]
pub struct Array<R = f64> {
    pub shape: Vec<usize>,
    pub values: Vec<R>,
}

impl<R> Array<R> {
    pub fn new(shape: &[usize], values: Vec<R>) -> Array<R> {
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
    Word(&'static str),
    /// All axes from this one on, as Keras's `axis`.
    AxesFrom(usize),
}

/// One problem: inputs by name, labels, options by name, and the reduction by its name in Python libraries.
#[derive(Clone, Debug)]
pub struct Case<R = f64> {
    pub arrays: BTreeMap<String, Array<R>>,
    pub labels: Option<(Vec<i64>, Vec<usize>)>,
    /// Which arrays hold integers: lengths, classes of elements.
    pub integers: BTreeSet<String>,
    pub options: BTreeMap<String, Opt>,
    pub reduction: String,
    /// Whether targets broadcast.
    pub broadcast: bool,
}

impl<R> Default for Case<R> {
    fn default() -> Case<R> {
        Case {
            arrays: BTreeMap::new(),
            labels: None,
            integers: BTreeSet::new(),
            options: BTreeMap::new(),
            reduction: String::new(),
            broadcast: false,
        }
    }
}

impl Case {
    /// The case in dual numbers, of which none moves yet.
    fn to_dual(&self) -> Case<Dual> {
        let dual = |array: &Array| Array::new(&array.shape, array.values.iter().map(|x| Dual::constant(*x)).collect());
        Case {
            arrays: self.arrays.iter().map(|(name, array)| (name.clone(), dual(array))).collect(),
            labels: self.labels.clone(),
            integers: self.integers.clone(),
            options: self.options.clone(),
            reduction: self.reduction.clone(),
            broadcast: self.broadcast,
        }
    }
}

impl<R: Real> Case<R> {
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

    pub fn word(&self, name: &str, default: &'static str) -> &'static str {
        match self.options.get(name) {
            Some(Opt::Word(value)) => value,
            None => default,
            other => panic!("option {name} is {other:?}"),
        }
    }

    fn values(&self, name: &str) -> &[R] {
        &self.arrays.get(name).unwrap_or_else(|| panic!("the case has no input {name}")).values
    }

    /// An input spread over `shape`, or ones where it is absent.
    fn spread(&self, name: &str, shape: &[usize]) -> Vec<R> {
        match self.arrays.get(name) {
            Some(array) => broadcast(array, shape),
            None => vec![R::ONE; shape.iter().product()],
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
pub fn broadcast<R: Copy>(array: &Array<R>, shape: &[usize]) -> Vec<R> {
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

fn last_axis(shape: &[usize]) -> usize {
    shape.len() - 1
}

fn without(shape: &[usize], axis: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape.remove(axis);
    shape
}

/// Losses before the reduction.
struct Losses<R> {
    values: Vec<R>,
    shape: Vec<usize>,
    /// For each loss the magnitude of what it is the difference of: all that f32 knows of it are those last bits.
    taken_from: Vec<f64>,
    /// What the mean divides by the sum of; None: their number.
    mean_over: Option<Vec<R>>,
    /// Which of them are of ignored rows; empty: none.
    ignored: Vec<bool>,
    /// Size of the first axis.
    batch: usize,
    /// What the mean divides by, where that is a number of its own.
    divisor: Option<R>,
    /// What is added to the reduced loss.
    of_batch: Option<R>,
}

/// The loss of that name, in the shape of its reduction; `None` where this oracle does not know it.
pub fn oracle<R: Real>(name: &str, case: &Case<R>) -> Option<Vec<R>> {
    match name {
        "rmse" => Some(vec![rmse(case)]),
        "moe_load_balancing" => Some(vec![value::moe_load_balancing(case)]),
        "l1_penalty" => Some(vec![penalty(case, |w| w.abs())]),
        "l2_penalty" => Some(vec![penalty(case, |w| w * w / 2.0)]),
        _ => {
            let whole = adversarial::total(name, case).or_else(|| overlap::oracle(name, case));
            if let Some(total) = whole {
                return Some(vec![total]);
            }
            let losses = losses(name, case)?;
            let of_batch = losses.of_batch.unwrap_or(R::constant(0.0));
            Some(reduce(case, losses).into_iter().map(|loss| loss + of_batch).collect())
        }
    }
}

/// For each loss before the reduction, the magnitude of what it is the difference of: |x|, or in a row from the largest
/// logit to the smallest. `None` for losses of a whole tensor.
pub fn magnitudes(name: &str, case: &Case) -> Option<Vec<f64>> {
    losses(name, case).map(|losses| losses.taken_from)
}

/// For each row the magnitude of what the gradient of the row's loss with respect to an input is the difference of,
/// where it may be larger than the gradient.
pub fn gradient_magnitudes(name: &str, case: &Case, input: &str) -> Option<Vec<f64>> {
    match (name, input) {
        // Of probabilities.
        ("distillation", "student_logits") => {
            let (student, temperature) = (&case.arrays[input], case.num("temperature", 2.0));
            let largest = |row: Vec<usize>| {
                let row: Vec<f64> = row.iter().map(|&k| student.values[k] / temperature).collect();
                temperature * log_softmax(&row).into_iter().fold(f64::MIN, f64::max).exp()
            };
            Some(rows_of(&student.shape, class_axis(&student.shape)).into_iter().map(largest).collect())
        }
        // Of p·ln p and p·H.
        ("entropy", "input") => {
            let x = &case.arrays[input];
            let largest = |row: Vec<usize>| {
                let log_p = log_softmax(&row.iter().map(|&k| x.values[k]).collect::<Vec<f64>>());
                log_p.into_iter().map(|log_p| log_p.exp() * -log_p).fold(0.0, f64::max)
            };
            Some(rows_of(&x.shape, class_axis(&x.shape)).into_iter().map(largest).collect())
        }
        // Of losses.
        ("distillation", "teacher_logits") => {
            let each = Case { reduction: "none".to_owned(), ..case.clone() };
            oracle(name, &each).map(|losses| losses.into_iter().map(f64::abs).collect())
        }
        _ => None,
    }
}

/// The losses of that name, of elements or of rows.
fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let number = |name: &str, default: f64| case.num(name, default);
    let of_residual = |f: &dyn Fn(R) -> R| elementwise(case, ["input", "target"], |x, t| f(x - t));
    Some(match name {
        "l1" => weighted_mean(case, |x, t| (x - t).abs()),
        "mse" => weighted_mean(case, |x, t| (x - t) * (x - t)),
        "huber" => of_residual(&|r| huber(r, number("delta", 1.0))),
        "smooth_l1" => of_residual(&|r| smooth_l1(r, number("beta", 1.0))),
        "quantile" => of_residual(&|r| quantile(-r, number("tau", 0.5))),
        "poisson_nll" => poisson_nll(case),
        "gaussian_nll" => gaussian_nll(case),
        "bce" => elementwise(case, ["input", "target"], |x, t| {
            -(t * x.ln().at_least(-100.0) + (R::ONE - t) * (R::ONE - x).ln().at_least(-100.0))
        }),
        "bce_with_logits" => bce_with_logits(case),
        "kl_div" => elementwise(case, ["input", "target"], |x, t| match case.flag("log_target", false) {
            true => t.exp() * (t - x),
            false if t.value() == 0.0 => -t * x,
            false => t * (t.ln() - x),
        }),
        "total_variation" => elementwise(case, ["input", "next"], |x, next| match case.num("p", 1.0) {
            1.0 => (next - x).abs(),
            _ => (next - x).squared(),
        }),
        "tvd" => of_residual(&|r| r.abs() / 2.0),
        "jsd" => jsd(case),
        "distillation" => distillation(case),
        "sigmoid_focal" => elementwise(case, ["inputs", "targets"], |x, t| sigmoid_focal(case, 0.25, x, t)),
        "exp_square" => of_residual(&|r| (-r).exp_m1().squared()),
        "composite" => of_residual(&|r| r * r * number("mse_weight", 0.7) + r.abs() * number("l1_weight", 0.3)),
        "log_cosh" => {
            last_axis_mean(case, false, |t, p| (p - t).abs() + ((p - t).abs() * -2.0).exp().ln_1p() - 2f64.ln())
        }
        "hinge" => last_axis_mean(case, case.flag("convert_binary", true), |t, p| (R::ONE - t * p).at_least(0.0)),
        "squared_hinge" => {
            last_axis_mean(case, case.flag("convert_binary", true), |t, p| (R::ONE - t * p).at_least(0.0).squared())
        }
        "cross_entropy" => cross_entropy(case),
        "z_loss" => labelled(case, "weight", true, |row, y, _| {
            logsumexp(row).squared() * number("z", 1e-4) - log_softmax(row)[y]
        }),
        "softcap_cross_entropy" => labelled(case, "weight", true, |row, y, _| {
            let row: Vec<R> = row.iter().map(|x| softcap(*x, number("softcap", 30.0))).collect();
            -log_softmax(&row)[y]
        }),
        "cross_entropy_prob" => cross_entropy_prob(case),
        "nll" => labelled(case, "weight", true, |row, y, w| -w[y] * row[y]),
        "multiclass_focal" => labelled(case, "alpha", false, |row, y, alpha| {
            let log_p = log_softmax(row)[y];
            -alpha[y] * (R::ONE - log_p.exp()).powf(number("gamma", 2.0)) * log_p
        }),
        _ => return of_families(name, case),
    })
}

/// The losses whose textbook form is in the file of a family.
fn of_families<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let families = [
        margin::losses(name, case),
        threshold::losses(name, case),
        sigmoid::losses(name, case),
        categorical::losses(name, case),
        noisy_labels::losses(name, case),
        margin_softmax::losses(name, case),
        adversarial::losses(name, case),
        robust::losses(name, case),
        likelihood::losses(name, case),
        lists::losses(name, case),
        divergence::losses(name, case),
        embedding::losses(name, case),
        ranking::losses(name, case),
        ordinal::losses(name, case),
        sequence::losses(name, case),
        preference::losses(name, case),
        policy::losses(name, case),
        boxes::losses(name, case),
        detection::losses(name, case),
    ];
    families
        .into_iter()
        .flatten()
        .next()
        .or_else(|| segmentation::losses(name, case))
        .or_else(|| value::losses(name, case))
}

fn reduce<R: Real>(case: &Case<R>, losses: Losses<R>) -> Vec<R> {
    let Losses { values, shape, mean_over, ignored, batch, divisor, .. } = losses;
    let sample_weight = case.spread("sample_weight", &shape);
    // A mask of elements of rows is the loss's own.
    let is_own = case.arrays.get("mask").is_some_and(|mask| mask.shape.len() > shape.len());
    let mask = if is_own { vec![R::ONE; values.len()] } else { case.spread("mask", &shape) };
    let mut mask: Vec<bool> = mask.iter().map(|mask| mask.value() != 0.0).collect();
    for place in 0..ignored.len() {
        mask[place] &= !ignored[place];
    }
    let zero = R::constant(0.0);
    let each: Vec<R> = (0..values.len()).map(|k| if mask[k] { values[k] * sample_weight[k] } else { zero }).collect();
    let kept = |weights: &[R]| (0..weights.len()).filter(|&k| mask[k]).map(|k| weights[k]).sum::<R>();
    let total: R = each.iter().copied().sum();
    if let ("mean" | "mean_or_zero" | "", Some(divisor)) = (case.reduction.as_str(), divisor) {
        return vec![total / divisor];
    }
    match case.reduction.as_str() {
        "none" => each,
        "sum" => vec![total],
        "" | "mean" | "sum_over_batch_size" => vec![total / kept(&mean_over.unwrap_or(vec![R::ONE; each.len()]))],
        "mean_or_zero" => {
            let counted = kept(&mean_over.unwrap_or(vec![R::ONE; each.len()]));
            vec![if counted.value() == 0.0 { zero } else { total / counted }]
        }
        "batchmean" => vec![total / batch as f64],
        "mean_with_sample_weight" => vec![total / kept(&sample_weight)],
        "mean_over_positive" => vec![total / each.iter().filter(|value| value.value() > 0.0).count() as f64],
        other => panic!("reduction {other}"),
    }
}

/// λ times the sum over all weights.
fn penalty<R: Real>(case: &Case<R>, f: impl Fn(R) -> R) -> R {
    case.values("w").iter().map(|w| f(*w)).sum::<R>() * case.num("lambda", 1.0)
}

/// A loss of two inputs an element, times the optional `weight`.
fn elementwise<R: Real>(case: &Case<R>, [a, b]: [&str; 2], f: impl Fn(R, R) -> R) -> Losses<R> {
    let shape = case.common_shape(&[a, b, "weight", "pos_weight"]);
    let (x, t, w) = (case.spread(a, &shape), case.spread(b, &shape), case.spread("weight", &shape));
    let values = (0..x.len()).map(|k| w[k] * f(x[k], t[k])).collect();
    let taken_from = x.iter().map(|x| x.value().abs()).collect();
    let batch = shape.first().copied().unwrap_or(1);
    Losses { values, shape, taken_from, mean_over: None, ignored: vec![], batch, divisor: None, of_batch: None }
}

/// The same; its mean divides by the sum of `weight`.
fn weighted_mean<R: Real>(case: &Case<R>, f: impl Fn(R, R) -> R) -> Losses<R> {
    let mut losses = elementwise(case, ["input", "target"], f);
    losses.mean_over = Some(case.spread("weight", &losses.shape));
    losses
}

fn sigmoid<R: Real>(x: R) -> R {
    R::ONE / ((-x).exp() + 1.0)
}

/// ln(1 + eˣ)
fn softplus<R: Real>(x: R) -> R {
    if x.value() > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

fn bce_with_logits<R: Real>(case: &Case<R>) -> Losses<R> {
    let mut losses = elementwise(case, ["input", "target"], |x, _| x);
    let spread = |name: &str| case.spread(name, &losses.shape);
    let (x, t, w, q) = (spread("input"), spread("target"), spread("weight"), spread("pos_weight"));
    // −ln sigmoid(x) = softplus(−x) and −ln(1 − sigmoid(x)) = softplus(x)
    let each = |k: usize| w[k] * (q[k] * t[k] * softplus(-x[k]) + (R::ONE - t[k]) * softplus(x[k]));
    losses.values = (0..x.len()).map(each).collect();
    losses
}

fn sigmoid_focal<R: Real>(case: &Case<R>, alpha: f64, x: R, t: R) -> R {
    let (alpha, gamma) = (case.num("alpha", alpha), case.num("gamma", 2.0));
    let p = sigmoid(x);
    let bce = t * softplus(-x) + (R::ONE - t) * softplus(x);
    let p_t = p * t + (R::ONE - p) * (R::ONE - t);
    let alpha_t = if alpha < 0.0 { R::ONE } else { t * alpha + (R::ONE - t) * (1.0 - alpha) };
    alpha_t * (R::ONE - p_t).powf(gamma) * bce
}

/// From the largest to the smallest of these elements.
fn range<R: Real>(values: &[R], places: &[usize]) -> f64 {
    let at = |&k: &usize| values[k].value();
    places.iter().map(at).fold(f64::MIN, f64::max) - places.iter().map(at).fold(f64::MAX, f64::min)
}

/// Keras: the mean over the last axis; `convert`: if all targets are 0 or 1, they become −1 and 1.
fn last_axis_mean<R: Real>(case: &Case<R>, convert: bool, f: impl Fn(R, R) -> R) -> Losses<R> {
    let shape = case.common_shape(&["y_true", "y_pred"]);
    let (mut t, p) = (case.spread("y_true", &shape), case.spread("y_pred", &shape));
    if convert && t.iter().all(|t| t.value() == 0.0 || t.value() == 1.0) {
        t.iter_mut().for_each(|t| *t = *t * 2.0 - 1.0);
    }
    of_last_axis(&shape, &p, |row| row.iter().map(|&k| f(t[k], p[k])).sum::<R>() / row.len() as f64)
}

/// One loss for the last axis, taken from what lies between the predictions there.
fn of_last_axis<R: Real>(shape: &[usize], predicted: &[R], loss: impl Fn(&[usize]) -> R) -> Losses<R> {
    let axis = shape.len() - 1;
    let rows = rows_of(shape, axis);
    Losses {
        values: rows.iter().map(|row| loss(row)).collect(),
        shape: without(shape, axis),
        taken_from: rows.iter().map(|row| range(predicted, row)).collect(),
        mean_over: None,
        ignored: vec![],
        batch: shape[0],
        divisor: None,
        of_batch: None,
    }
}

/// The last axis is a distribution; `input` is ln Q and `target` ln P.
fn jsd<R: Real>(case: &Case<R>) -> Losses<R> {
    let shape = case.common_shape(&["input", "target"]);
    let (x, y, beta) = (case.spread("input", &shape), case.spread("target", &shape), case.num("beta", 0.5));
    // P·ln(P/M), and 0 for P = 0
    let part = |p: R, m: R| if p.value() > 0.0 { p * (p / m).ln() } else { R::constant(0.0) };
    let one = |k: usize| {
        let (p, q) = (y[k].exp(), x[k].exp());
        let m = p * beta + q * (1.0 - beta);
        match beta {
            0.0 => part(p, q),
            1.0 => part(q, p),
            _ => part(p, m) * beta + part(q, m) * (1.0 - beta),
        }
    };
    of_last_axis(&shape, &x, |row| row.iter().map(|&k| one(k)).sum())
}

/// The largest value. To shift by it changes nothing, so it is a constant.
fn shift<R: Real>(row: &[R]) -> f64 {
    row.iter().map(|x| x.value()).fold(f64::NEG_INFINITY, f64::max)
}

/// xⱼ − ln Σ exp x
pub fn log_softmax<R: Real>(row: &[R]) -> Vec<R> {
    let max = shift(row);
    let sum: R = row.iter().map(|x| (*x - max).exp()).sum();
    row.iter().map(|x| (*x - max) - sum.ln()).collect()
}

/// Losses of rows along the class axis of `input`, each from the places of its row's elements; ignored rows are 0.
fn of_rows<R: Real>(input: &Array<R>, ignored: Vec<bool>, loss: impl Fn(usize, &[usize]) -> R) -> Losses<R> {
    of_rows_along(input, class_axis(&input.shape), ignored, loss)
}

/// The same along any axis.
fn of_rows_along<R: Real>(
    input: &Array<R>,
    axis: usize,
    ignored: Vec<bool>,
    loss: impl Fn(usize, &[usize]) -> R,
) -> Losses<R> {
    let rows = rows_of(&input.shape, axis);
    let is_ignored = |row: usize| ignored.get(row) == Some(&true);
    let each = |row: usize| if is_ignored(row) { R::constant(0.0) } else { loss(row, &rows[row]) };
    Losses {
        values: (0..rows.len()).map(each).collect(),
        shape: without(&input.shape, axis),
        taken_from: rows.iter().map(|row| range(&input.values, row)).collect(),
        mean_over: None,
        ignored,
        batch: input.shape[0],
        divisor: None,
        of_batch: None,
    }
}

/// The sum of the losses, with its derivatives, for each element of an input that moves.
fn moved<'c>(name: &'c str, case: &Case, wrt: &'c str) -> impl Iterator<Item = Dual> + 'c {
    let still = case.to_dual();
    let count = still.values(wrt).len();
    (0..count).map(move |place| {
        let mut case = still.clone();
        let moving = &mut case.arrays.get_mut(wrt).expect("an input of the case").values[place];
        *moving = Dual::variable(moving.value);
        oracle(name, &case).expect("a loss that the oracle knows").into_iter().sum()
    })
}

/// The derivative of the sum of the losses with respect to each element of an input.
pub fn gradient(name: &str, case: &Case, wrt: &str) -> Vec<f64> {
    moved(name, case, wrt).map(|sum| sum.first).collect()
}

/// The second derivative of the sum of the losses with respect to each element of an input.
pub fn hessian_diagonal(name: &str, case: &Case, wrt: &str) -> Vec<f64> {
    moved(name, case, wrt).map(|sum| sum.second).collect()
}
