//! Regression.
use crate::expr::Scope;
use crate::loss::{Denominator, Loss, Unreduced};

/// MSE
pub fn mse() -> Loss {
    Loss::define("mse")
        .input("input", Scope::Element)
        .input("target", Scope::Element)
        .optional("weight", Scope::Element)
        .unreduced(|b| {
            let r = b.input("input") - b.input("target");
            let square = r * r;
            match b.optional("weight") {
                Some(w) => Unreduced { value: w * square, denominator: Denominator::Sum(w) },
                None => square.into(),
            }
        })
}
/// L1
pub fn l1() -> Loss {
    Loss::define("l1")
        .input("input", Scope::Element)
        .input("target", Scope::Element)
        .expr(|b| (b.input("input") - b.input("target")).abs())
}
