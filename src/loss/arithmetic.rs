//! Sums and multiples of losses.

use super::declaration::{ParamValue, check_weight, refused_scalar};
use super::{Loss, Term};
use crate::error::Error;
use std::iter::Sum;
use std::ops::{Add, Div, Mul, Neg, Sub};

impl Loss {
    /// Every term times that number. Each factor is checked, and each product of factors.
    fn times(mut self, factor: f64) -> Loss {
        let mut checked = check_weight(&self.name(), factor);
        for Term { weight, definition, .. } in &mut self.terms {
            *weight *= factor;
            checked = checked.and_then(|()| check_weight(&definition.name, *weight));
        }
        if let Err(error) = checked {
            self.fault.get_or_insert(error);
        }
        self
    }

    /// Every term times a scalar on the GPU.
    fn times_scalar(mut self, input: &str) -> Loss {
        if let Some(allowed) = refused_scalar(input) {
            let (loss, param, found) = (self.name(), "weight".to_owned(), format!("the scalar `{input}`"));
            self.fault.get_or_insert(Error::Param { loss, param, found, allowed });
        }
        self.terms.iter_mut().for_each(|term| term.scales.push(input.to_owned()));
        self
    }
}

impl<R: Into<Loss>> Add<R> for Loss {
    type Output = Loss;
    fn add(mut self, other: R) -> Loss {
        let other = other.into();
        self.terms.extend(other.terms);
        self.fault = self.fault.or(other.fault);
        self
    }
}

impl<R: Into<Loss>> Sub<R> for Loss {
    type Output = Loss;
    fn sub(self, other: R) -> Loss {
        self + -other.into()
    }
}

impl Neg for Loss {
    type Output = Loss;
    fn neg(self) -> Loss {
        self.times(-1.0)
    }
}

impl<W: Into<ParamValue>> Mul<W> for Loss {
    type Output = Loss;
    fn mul(self, weight: W) -> Loss {
        match weight.into() {
            ParamValue::Number(weight) => self.times(weight),
            ParamValue::Scalar(input) => self.times_scalar(&input),
        }
    }
}

impl<D: Into<f64>> Div<D> for Loss {
    type Output = Loss;
    fn div(self, divisor: D) -> Loss {
        self.times(1.0 / divisor.into())
    }
}

/// The sum of losses; of none, a loss whose plan is an [`Error::Expr`].
impl<L: Into<Loss>> Sum<L> for Loss {
    fn sum<I: Iterator<Item = L>>(losses: I) -> Loss {
        losses.map(Into::into).reduce(|sum, loss| sum + loss).unwrap_or_else(|| {
            let mut none = Loss::define("sum").expr(|b| b.graph().constant(0));
            let message = "a sum of no losses; give it one at least".to_owned();
            none.fault = Some(Error::Expr { loss: none.name(), message });
            none
        })
    }
}

/// Numbers that may stand on the left of a loss. An f32 may not: `0.5` would then no longer be known to be an f64, nor
/// `0.5 * loss` to be a loss that has methods.
macro_rules! factors_on_the_left {
    ($($number:ty)*) => {$(
        impl Mul<Loss> for $number {
            type Output = Loss;
            fn mul(self, loss: Loss) -> Loss {
                loss * self
            }
        }
    )*};
}

factors_on_the_left! { f64 i32 }
