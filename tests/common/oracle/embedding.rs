//! Distances and angles between rows along the last axis.

use super::{Case, Losses, elementwise, of_last_axis};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let margin = |default: f64| case.num("margin", default);
    Some(match name {
        "cosine_similarity" => of_vectors(case, ["y_true", "y_pred"], |[t, p], _| -cosine(t, p, 1e-7)),
        "cosine_embedding" => {
            let target = case.values("target").to_vec();
            of_vectors(case, ["input1", "input2"], |[x1, x2], row| {
                let norm = |x: &[R]| (dot(x, x) + f64::from(1e-12f32)).sqrt();
                let cos = dot(x1, x2) / (norm(x1) * norm(x2));
                match target[row].value() {
                    1.0 => -cos + 1.0,
                    -1.0 => (cos - margin(0.0)).at_least(0.0),
                    _ => R::constant(0.0),
                }
            })
        }
        "hinge_embedding" => elementwise(case, ["input", "target"], |x, y| match y.value() {
            1.0 => x,
            -1.0 => (-x + margin(1.0)).at_least(0.0),
            _ => x + (-x + margin(1.0)).at_least(0.0),
        }),
        "triplet_margin" => {
            let (p, eps) = (case.num("p", 2.0), case.num("eps", 1e-6));
            triplet(case, |x, y| norm(&x.iter().zip(y).map(|(x, y)| *x - *y + eps).collect::<Vec<R>>(), p))
        }
        "triplet_margin_cosine" => triplet(case, |x, y| -cosine(x, y, 1e-8) + 1.0),
        "byol" => {
            let term = |q: &[R], z: &[R]| -cosine(q, z, 1e-8) * 2.0 + 2.0;
            match case.arrays.contains_key("online_2") {
                true => of_vectors(case, ["online_1", "target_2", "online_2", "target_1"], |[q1, z2, q2, z1], _| {
                    term(q1, z2) + term(q2, z1)
                }),
                false => of_vectors(case, ["online_1", "target_2"], |[q, z], _| term(q, z)),
            }
        }
        _ => return None,
    })
}

/// Losses of the vectors that these inputs have in a row, and of the row's number.
fn of_vectors<R: Real, const N: usize>(
    case: &Case<R>,
    inputs: [&str; N],
    loss: impl Fn([&[R]; N], usize) -> R,
) -> Losses<R> {
    let shape = case.common_shape(&inputs);
    let spread = inputs.map(|name| case.spread(name, &shape));
    // The axis as the case says, taken last.
    let axis = case.index("axis", Some(-1)).expect("an axis");
    let axis = usize::try_from(axis).unwrap_or(shape.len() - 1);
    let rows = super::rows_of(&shape, axis);
    let of = |places: &[usize], input: usize| places.iter().map(|&k| spread[input][k]).collect::<Vec<R>>();
    let each = rows.iter().enumerate().map(|(row, places)| {
        let vectors: [Vec<R>; N] = std::array::from_fn(|input| of(places, input));
        loss(std::array::from_fn(|input| &vectors[input][..]), row)
    });
    let values: Vec<R> = each.collect();
    let mut losses = of_last_axis(&shape, &spread[0], |_| R::constant(0.0));
    losses.taken_from = vec![1.0; values.len()];
    losses.shape = super::without(&shape, axis);
    losses.values = values;
    losses
}

fn dot<R: Real>(x: &[R], y: &[R]) -> R {
    x.iter().zip(y).map(|(x, y)| *x * *y).sum()
}

fn cosine<R: Real>(x: &[R], y: &[R], least: f64) -> R {
    let norm = |x: &[R]| match dot(x, x) {
        square if square.value() < least * least => R::constant(least),
        square => square.sqrt(),
    };
    dot(x, y) / (norm(x) * norm(y))
}

fn norm<R: Real>(x: &[R], p: f64) -> R {
    if p == f64::INFINITY {
        let larger = |a: R, b: R| if b.value() > a.value() { b } else { a };
        return x.iter().map(|x| x.abs()).fold(R::constant(0.0), larger);
    }
    x.iter().map(|x| x.abs().powf(p)).sum::<R>().powf(1.0 / p)
}

fn triplet<R: Real>(case: &Case<R>, distance: impl Fn(&[R], &[R]) -> R) -> Losses<R> {
    of_vectors(case, ["anchor", "positive", "negative"], |[a, p, n], _| {
        let (near, mut far) = (distance(a, p), distance(a, n));
        if case.flag("swap", false) && distance(p, n).value() < far.value() {
            far = distance(p, n);
        }
        (near - far + case.num("margin", 1.0)).at_least(0.0)
    })
}
