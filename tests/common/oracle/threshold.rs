//! Losses that compare the elements of a row with a threshold of it, by sorted rows.

use super::{Case, Losses, labelled, labelled_rows, last_axis, of_last_axis, softplus};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    Some(match name {
        "multiclass_sparsemax" => labelled_rows(case, "scores", last_axis, sparsemax),
        "entmax15" => labelled(case, "no weight", false, |row, y, _| entmax15(row, y)),
        "top_k_bce_with_logits" => {
            let shape = case.common_shape(&["input", "target"]);
            let [x, t] = ["input", "target"].map(|name| case.spread(name, &shape));
            let each: Vec<R> =
                (0..x.len()).map(|k| t[k] * softplus(-x[k]) + (R::ONE - t[k]) * softplus(x[k])).collect();
            of_last_axis(&shape, &x, |row| {
                let k = case.num("k", 1.0);
                let hardest = sorted(row.iter().map(|&k| each[k])).into_iter().take(k as usize);
                hardest.sum::<R>() / k
            })
        }
        _ => return None,
    })
}

/// The largest first.
fn sorted<R: Real>(values: impl Iterator<Item = R>) -> Vec<R> {
    let mut values: Vec<R> = values.collect();
    values.sort_by(|a, b| b.value().total_cmp(&a.value()));
    values
}

/// `½·Σ_{j ≤ k} (sⱼ² − τ²) + ½ − s_y` over the `k` largest, whose threshold `τ = (Σ sⱼ − 1)/k` is below them.
fn sparsemax<R: Real>(row: &[R], y: usize) -> R {
    let s = sorted(row.iter().copied());
    let threshold = |k: usize| (s[..k].iter().copied().sum::<R>() - 1.0) / k as f64;
    let k = (1..=s.len()).rev().find(|&k| threshold(k).value() < s[k - 1].value()).expect("one class is enough");
    let squares: R = s[..k].iter().map(|x| x.squared() - threshold(k).squared()).sum();
    squares / 2.0 + 0.5 - row[y]
}

/// `Σ pⱼ·xⱼ − x_y + 4/3·(1 − Σ pⱼ^1.5)`, with `p = (x/2 − τ)²` of the `k` largest, whose threshold
/// `τ = M − √((1 − S)/k)` is below them: `M` is the mean of `x/2`, `S` the sum of squares around it.
fn entmax15<R: Real>(row: &[R], y: usize) -> R {
    let x = sorted(row.iter().copied());
    let threshold = |k: usize| {
        let mean = x[..k].iter().map(|x| *x / 2.0).sum::<R>() / k as f64;
        let spread: R = x[..k].iter().map(|x| (*x / 2.0 - mean).squared()).sum();
        (spread.value() <= 1.0).then(|| mean - ((R::ONE - spread) / k as f64).sqrt())
    };
    let of = |k: usize| threshold(k).filter(|t| t.value() < x[k - 1].value() / 2.0).map(|t| (k, t));
    let (k, threshold) = (1..=x.len()).rev().find_map(of).expect("one class is enough");
    let root = |x: &R| *x / 2.0 - threshold;
    let expected: R = x[..k].iter().map(|x| root(x).squared() * *x).sum();
    let cubes: R = x[..k].iter().map(|x| root(x).squared() * root(x)).sum();
    expected - row[y] + (R::ONE - cubes) * (4.0 / 3.0)
}
