//! Losses of ranked lists and of sorted errors, by loops over pairs and the sort of the standard library.

use super::{Array, Case, Losses, of_last_axis, of_rows_along, range, rows_of, softplus};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let input = case.arrays.get("input")?;
    let sigma = case.num("sigma", 1.0);
    Some(match name {
        "ranknet" => {
            let mut losses =
                lists(case, |x, y| ordered(y).into_iter().map(|(i, j)| softplus((x[j] - x[i]) * sigma)).sum());
            let pairs: usize = items(case).iter().map(|items| ordered(&of(case, "labels", items)).len()).sum();
            losses.divisor = Some(R::constant(pairs.max(1) as f64));
            losses
        }
        "lambdarank" => lists(case, |x, y| {
            let (gain, rank) = (gains(y), ranks(&values(x)));
            let place = |i: usize| 1.0 / (rank[i] as f64 + 2.0).log2();
            let term = |(i, j): (usize, usize)| {
                softplus((x[j] - x[i]) * sigma) * ((gain[i] - gain[j]).abs() * (place(i) - place(j)).abs())
            };
            ordered(y).into_iter().map(term).sum()
        }),
        "approx_ndcg" => lists(case, |x, y| {
            let (gain, alpha) = (gains(y), case.num("alpha", 1.0));
            let sigmoid = |x: R| R::ONE / (-x).exp().plus_one();
            let rank = |i: usize| {
                let others = (0..x.len()).filter(|j| *j != i);
                others.map(|j| sigmoid((x[j] - x[i]) * alpha)).sum::<R>() + 1.0
            };
            (0..x.len()).map(|i| -(R::constant(gain[i] * std::f64::consts::LN_2) / (rank(i) + 1.0).ln())).sum()
        }),
        "list_mle" => lists(case, |x, y| {
            let order = descending(&values(y));
            let left = |k: usize| order[k..].iter().map(|&m| (x[m] - x[order[k]]).exp()).sum::<R>().ln();
            (0..order.len()).map(left).sum()
        }),
        "lovasz_hinge" => lovasz_hinge(case, input),
        "multilabel_margin" => multilabel_margin(case, input),
        _ => return None,
    })
}

trait PlusOne {
    fn plus_one(self) -> Self;
}

impl<R: Real> PlusOne for R {
    fn plus_one(self) -> R {
        self + 1.0
    }
}

fn values<R: Real>(x: &[R]) -> Vec<f64> {
    x.iter().map(|x| x.value()).collect()
}

/// Places of the items of each list.
fn items<R: Real>(case: &Case<R>) -> Vec<Vec<usize>> {
    let shape = &case.arrays["input"].shape;
    let mask = case.spread("mask", shape);
    let is_item = |k: &usize| mask[*k].value() != 0.0;
    rows_of(shape, shape.len() - 1).into_iter().map(|row| row.into_iter().filter(is_item).collect()).collect()
}

fn of<R: Real>(case: &Case<R>, name: &str, items: &[usize]) -> Vec<R> {
    items.iter().map(|&k| case.arrays[name].values[k]).collect()
}

/// A loss per list, of the scores and labels of its items.
fn lists<R: Real>(case: &Case<R>, f: impl Fn(&[R], &[R]) -> R) -> Losses<R> {
    let input = &case.arrays["input"];
    let mut losses = of_last_axis(&input.shape, &input.values, |_| R::constant(0.0));
    for (k, items) in items(case).iter().enumerate() {
        losses.values[k] = f(&of(case, "input", items), &of(case, "labels", items));
        losses.taken_from[k] = range(&input.values, items) * items.len() as f64;
    }
    losses
}

/// The pairs whose first has the larger label.
fn ordered<R: Real>(y: &[R]) -> Vec<(usize, usize)> {
    let all = (0..y.len()).flat_map(|i| (0..y.len()).map(move |j| (i, j)));
    all.filter(|&(i, j)| y[i].value() > y[j].value()).collect()
}

/// Indices from the largest value on, equal ones in order.
fn descending(x: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[b].partial_cmp(&x[a]).expect("no NaN is sorted"));
    order
}

/// The rank of each, from 0 for the largest.
fn ranks(x: &[f64]) -> Vec<usize> {
    let mut ranks = vec![0; x.len()];
    descending(x).into_iter().enumerate().for_each(|(rank, k)| ranks[k] = rank);
    ranks
}

/// Gains over the ideal DCG, 0 where that is 0.
fn gains<R: Real>(y: &[R]) -> Vec<f64> {
    let gain: Vec<f64> = y.iter().map(|y| y.value().exp2() - 1.0).collect();
    let order = descending(&values(y));
    let ideal: f64 = order.iter().enumerate().map(|(k, &i)| gain[i] / (k as f64 + 2.0).log2()).sum();
    gain.iter().map(|gain| if ideal > 0.0 { gain / ideal } else { 0.0 }).collect()
}

/// The Lovász extension of the Jaccard loss at these errors, of which `counted` makes what counts.
pub fn lovasz<R: Real>(errors: &[R], truth: &[f64], counted: impl Fn(R) -> R) -> R {
    let (region, mut missed, mut added, mut before): (f64, _, _, _) = (truth.iter().sum(), 0.0, 0.0, 0.0);
    let mut loss = R::constant(0.0);
    for k in descending(&values(errors)) {
        (missed, added) = (missed + truth[k], added + 1.0 - truth[k]);
        let jaccard = 1.0 - (region - missed) / (region + added);
        loss = loss + counted(errors[k]) * (jaccard - before);
        before = jaccard;
    }
    loss
}

fn lovasz_hinge<R: Real>(case: &Case<R>, input: &Array<R>) -> Losses<R> {
    let target = &case.arrays["target"].values;
    let images = if case.flag("per_image", true) && input.shape.len() > 1 { input.shape[0] } else { 1 };
    let each = input.values.len() / images.max(1);
    let rows = Array::new(&[images, each], input.values.clone());
    let mut losses = of_rows_along(&rows, 1, vec![], |_, places| {
        let error = |k: &usize| R::ONE - rows.values[*k] * (target[*k].value() * 2.0 - 1.0);
        let errors: Vec<R> = places.iter().map(error).collect();
        let truth: Vec<f64> = places.iter().map(|k| target[*k].value()).collect();
        lovasz(&errors, &truth, |e| e.at_least(0.0))
    });
    losses.batch = input.shape[0];
    losses
}

fn multilabel_margin<R: Real>(case: &Case<R>, input: &Array<R>) -> Losses<R> {
    let (labels, _) = case.labels.as_ref().expect("labels");
    of_last_axis(&input.shape, &input.values, |places| {
        let listed: Vec<i64> = places.iter().map(|k| labels[*k]).take_while(|label| *label >= 0).collect();
        let others = || (0..places.len()).filter(|j| !listed.contains(&(*j as i64)));
        let x = |j: usize| input.values[places[j]];
        let term = |y: usize| others().map(|j| (R::ONE - (x(y) - x(j))).at_least(0.0)).sum::<R>();
        listed.iter().map(|y| term(*y as usize)).sum::<R>() / places.len() as f64
    })
}
