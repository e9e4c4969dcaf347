//! Losses of logits and class labels that bound what a wrong label costs.

use super::{Case, Losses, labelled, log_softmax};
use crate::common::real::Real;

pub fn losses<R: Real>(name: &str, case: &Case<R>) -> Option<Losses<R>> {
    let of_p = |f: &dyn Fn(R) -> R| labelled(case, "no weight", false, |row, y, _| f(log_softmax(row)[y].exp()));
    Some(match name {
        "generalized_ce" => {
            let q = case.num("q", 0.7);
            of_p(&|p| (R::ONE - if p.value() > 0.0 { p.powf(q) } else { p }) / q)
        }
        "symmetric_ce" => labelled(case, "no weight", false, |row, y, _| {
            let log_p = log_softmax(row)[y];
            let reverse = (R::ONE - log_p.exp()) * (case.num("beta", 1.0) * case.num("A", -4.0));
            -log_p * case.num("alpha", 0.1) - reverse
        }),
        "taylor_ce" => of_p(&|p| {
            let (mut power, mut sum) = (R::ONE, R::constant(0.0));
            for k in 1..=case.num("order", 2.0) as u32 {
                power = power * (R::ONE - p);
                sum = sum + power / f64::from(k);
            }
            sum
        }),
        _ => return None,
    })
}
