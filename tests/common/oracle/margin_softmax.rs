//! Losses of logits and class labels with a margin on the label's logit.

use super::{Case, Losses, labelled, log_softmax};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    Some(match name {
        "ldam" => {
            let (margins, scale) = (&case.arrays["margins"].values, case.num("scale", 30.0));
            let mut losses = labelled(case, "weight", true, |row, y, w| {
                let margin = |j: usize| if j == y { margins[j] } else { R::constant(0.0) };
                let z: Vec<R> = (0..row.len()).map(|j| (row[j] - margin(j)) * scale).collect();
                -w[y] * log_softmax(&z)[y]
            });
            losses.taken_from.iter_mut().for_each(|from| *from *= scale);
            losses
        }
        "cosface" => {
            let (margin, scale) = (case.num("margin", 0.35), case.num("scale", 64.0));
            of_scaled(case, scale, |cosine| cosine - margin)
        }
        "arcface" => {
            let (margin, scale) = (case.num("margin", 0.5), case.num("scale", 64.0));
            of_scaled(case, scale, |cosine| widened(cosine, margin))
        }
        _ => return None,
    })
}

/// Cross-entropy of cosines times `scale`, of which the label's is another.
fn of_scaled<R: Real>(case: &Case<R>, scale: f64, of_label: impl Fn(R) -> R) -> Losses<R> {
    let mut losses = labelled(case, "no weight", false, |row, y, _| {
        let z = (0..row.len()).map(|j| if j == y { of_label(row[j]) * scale } else { row[j] * scale });
        -log_softmax(&z.collect::<Vec<R>>())[y]
    });
    losses.taken_from.iter_mut().for_each(|from| *from *= scale);
    losses
}

/// The cosine of an angle wider by the margin, given its cosine; linear past π less the margin.
fn widened<R: Real>(cosine: R, margin: f64) -> R {
    if cosine.value().acos() > std::f64::consts::PI - margin {
        return cosine - margin * margin.sin();
    }
    cosine.chain((cosine.value().acos() + margin).cos(), |cosine| {
        let angle = cosine.acos();
        [(angle + margin).sin() / angle.sin(), margin.sin() / angle.sin().powi(3)]
    })
}
