//! Sums and multiples of losses.

use super::declaration::{ParamValue, check_weight, refused_scalar};
use super::{Loss, Scale, Term};
use crate::error::Error;
use crate::shape::Scope;
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
        self.terms.iter_mut().for_each(|term| term.scales.push(Scale::Factor(input.to_owned())));
        self
    }

    /// The loss weighted by an uncertainty that is learned with it: `exp(−s)·L + s/2`, where `s`, the scalar on the GPU of
    /// that name, is the logarithm of the task's variance. Its gradient, `1/2 − exp(−s)·L`, balances the tasks of a sum.
    ///
    /// The likelihood of a Gaussian is that of `0.5 * mse()`, the mean squared error halved; cross-entropy goes as it is.
    /// The loss must be one number: with `Reduction::None` the plan is an [`Error::Expr`].
    ///
    /// Source: Kendall, Gal and Cipolla (2018), arXiv:1705.07115, with `s = ln σ²` as there.
    ///
    /// ```
    /// use wgloss::{HostTensor, cpu, losses};
    /// let depth = (0.5 * losses::mse()).with_uncertainty("s_depth");
    /// let pose = losses::huber(1.0).rename_input("input", "pose").rename_input("target", "true_pose");
    /// let loss = depth + pose.with_uncertainty("s_pose");
    /// assert!(loss.inputs().iter().any(|input| input.name == "s_pose"));
    ///
    /// let loss = losses::mse().with_uncertainty("s");
    /// let (x, t) = (HostTensor::f32(&[3.0], &[1]), HostTensor::f32(&[1.0], &[1]));
    /// let inputs = [("input", x), ("target", t), ("s", HostTensor::f32(&[0.0], &[]))];
    /// let out = cpu::forward_backward(&loss, &inputs, &["s", "input"])?;
    /// assert_eq!((out.loss()?, out.grad("s")?, out.grad("input")?), (4.0, &[-3.5][..], &[4.0][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    #[must_use]
    pub fn with_uncertainty(self, log_variance: &str) -> Loss {
        let mut loss = self;
        if let Some(allowed) = refused_scalar(log_variance) {
            let (name, param, found) = (loss.name(), "uncertainty".to_owned(), format!("the scalar `{log_variance}`"));
            loss.fault.get_or_insert(Error::Param { loss: name, param, found, allowed });
        }
        loss.terms.iter_mut().for_each(|term| term.scales.push(Scale::Precision(log_variance.to_owned())));
        let input = log_variance.to_owned();
        let half = Loss::define("uncertainty").input(log_variance, Scope::Scalar);
        loss + half.expr(move |b| 0.5 * b.input(&input))
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
