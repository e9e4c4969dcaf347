//! Losses of boxes.

use super::{Case, Losses, of_last_axis};
use crate::common::real::Real;

/// The losses of that name; `None` for those of other families.
pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let names = match name {
        "iou" | "iou_log" | "giou" | "diou" | "ciou" => ["boxes1", "boxes2"],
        "eiou" | "siou" => ["input", "target"],
        _ => return None,
    };
    let shape = case.common_shape(&names);
    let [a, b] = names.map(|name| case.spread(name, &shape));
    let mut losses = of_last_axis(&shape, &a, |row| {
        let corners = |all: &[R]| corners(case.word("fmt", "xyxy"), [0, 1, 2, 3].map(|k| all[row[k]]));
        loss(name, case, corners(&a), corners(&b))
    });
    losses.taken_from.iter_mut().for_each(|from| *from = from.max(1.0));
    Some(losses)
}

/// Left, top, right and bottom.
fn corners<R: Real>(format: &str, [a, b, c, d]: [R; 4]) -> [R; 4] {
    match format {
        "xywh" => [a, b, a + c, b + d],
        "cxcywh" => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        _ => [a, b, c, d],
    }
}

fn larger<R: Real>(a: R, b: R) -> R {
    if a.value() >= b.value() { a } else { b }
}

fn smaller<R: Real>(a: R, b: R) -> R {
    if a.value() <= b.value() { a } else { b }
}

fn loss<R: Real>(name: &str, case: &Case<R>, a: [R; 4], b: [R; 4]) -> R {
    let (width, height) = (smaller(a[2], b[2]) - larger(a[0], b[0]), smaller(a[3], b[3]) - larger(a[1], b[1]));
    let apart = width.value() <= 0.0 || height.value() <= 0.0;
    let intersection = if apart { R::constant(0.0) } else { width * height };
    let ([w, h], [v, g]) = ([a[2] - a[0], a[3] - a[1]], [b[2] - b[0], b[3] - b[1]]);
    let union = w * h + v * g - intersection;
    let eps = case.num("eps", 1e-7);
    let iou_eps = intersection / (union + if name == "ciou" { 1e-7 } else { eps });
    let (cw, ch) = (larger(a[2], b[2]) - smaller(a[0], b[0]), larger(a[3], b[3]) - smaller(a[1], b[1]));
    let (dx, dy) = ((a[0] + a[2] - b[0] - b[2]) / 2.0, (a[1] + a[3] - b[1] - b[3]) / 2.0);
    let diagonal = cw.squared() + ch.squared();
    let distance = |eps: f64| R::ONE - iou_eps + (dx.squared() + dy.squared()) / (diagonal + eps);
    match name {
        "iou" => R::ONE - intersection / union,
        "iou_log" => -(intersection / union).ln(),
        "giou" => R::ONE - iou_eps + (cw * ch - union) / (cw * ch + eps),
        "diou" => distance(eps),
        "ciou" => {
            let v = ((w / h).atan() - (v / g).atan()).squared() * (4.0 / std::f64::consts::PI.powi(2));
            let alpha = v.value() / (1.0 - iou_eps.value() + v.value() + eps);
            distance(1e-7) + v * alpha
        }
        "eiou" => distance(eps) + (w - v).squared() / (cw.squared() + eps) + (h - g).squared() / (ch.squared() + eps),
        "siou" => {
            let angle = (dx * dy).abs() * 2.0 / (dx.squared() + dy.squared() + eps);
            let moved = |d: R, c: R| R::ONE - ((angle - 2.0) * (d / (c + eps)).squared()).exp();
            let shape = |a: R, b: R| {
                let unequal = (a - b).abs() / (larger(a, b) + eps);
                (R::ONE - (-unequal).exp()).powf(case.num("theta", 4.0))
            };
            R::ONE - iou_eps + (moved(dx, cw) + moved(dy, ch) + shape(w, v) + shape(h, g)) / 2.0
        }
        other => panic!("no loss of boxes is called {other}"),
    }
}
