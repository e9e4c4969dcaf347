//! Adversarial losses.

use super::{Case, Losses, elementwise, softplus};
use crate::common::real::Real;

/// The losses of a generator, each score's.
pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let of_fake = |f: &dyn Fn(R) -> R| Some(elementwise(case, ["fake", "fake"], |x, _| f(x)));
    match name {
        "gan_minimax_g" => of_fake(&|x| -softplus(x)),
        "gan_nonsaturating_g" => of_fake(&|x| softplus(-x)),
        "gan_lsgan_g" => of_fake(&|x| (x - case.num("real_label", 1.0)).squared() / 2.0),
        "gan_hinge_g" | "gan_wgan_g" => of_fake(&|x| -x),
        _ => None,
    }
}

/// The losses of a discriminator, one number each.
pub fn total<R: Real>(name: &str, case: &Case<R>) -> Option<R> {
    let sides: [&dyn Fn(R) -> R; 2] = match name {
        "gan_minimax_d" | "gan_nonsaturating_d" => [&|real| softplus(-real), &|fake| softplus(fake)],
        "gan_lsgan_d" => [&|real| (real - case.num("real_label", 1.0)).squared() / 2.0, &|fake| {
            (fake - case.num("fake_label", 0.0)).squared() / 2.0
        }],
        "gan_hinge_d" => [&|real| (R::ONE - real).at_least(0.0), &|fake| (fake + 1.0).at_least(0.0)],
        "gan_wgan_d" => [&|real| -real, &|fake| fake],
        _ => return None,
    };
    let mean = |input: &str, f: &dyn Fn(R) -> R| {
        let scores = case.values(input);
        scores.iter().map(|x| f(*x)).sum::<R>() / scores.len() as f64
    };
    Some(mean("real", sides[0]) + mean("fake", sides[1]))
}
