//! Numbers that the oracle computes in: f64, and f64 with two derivatives along one direction, by the chain rule.

use super::special;
use std::cmp::Ordering;
use std::iter::Sum;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A real number as the textbook's formulas take it. Comparisons look at the value alone, so that a branch has its own
/// derivatives; at a kink that says nothing.
pub trait Real:
    Copy
    + PartialOrd
    + Sum
    + Neg<Output = Self>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Add<f64, Output = Self>
    + Sub<f64, Output = Self>
    + Mul<f64, Output = Self>
    + Div<f64, Output = Self>
{
    const ONE: Self;

    fn constant(value: f64) -> Self;
    fn value(self) -> f64;

    /// f of this number, given f(x), and f′(x) and f″(x).
    fn chain(self, value: f64, derivatives: impl FnOnce(f64) -> [f64; 2]) -> Self;

    fn exp(self) -> Self {
        self.chain(self.value().exp(), |x| [x.exp(); 2])
    }

    fn exp_m1(self) -> Self {
        self.chain(self.value().exp_m1(), |x| [x.exp(); 2])
    }

    fn ln(self) -> Self {
        self.chain(self.value().ln(), |x| [1.0 / x, -1.0 / (x * x)])
    }

    fn ln_1p(self) -> Self {
        self.chain(self.value().ln_1p(), |x| [1.0 / (1.0 + x), -1.0 / ((1.0 + x) * (1.0 + x))])
    }

    fn sqrt(self) -> Self {
        self.chain(self.value().sqrt(), |x| [0.5 / x.sqrt(), -0.25 / (x * x.sqrt())])
    }

    fn tanh(self) -> Self {
        self.chain(self.value().tanh(), |x| {
            let slope = 1.0 / (x.cosh() * x.cosh());
            [slope, -2.0 * x.tanh() * slope]
        })
    }

    fn abs(self) -> Self {
        self.chain(self.value().abs(), |x| [x.signum(), 0.0])
    }

    /// To a constant power. A factor of 0 is no derivative, whatever it is a factor of.
    fn powf(self, power: f64) -> Self {
        let times = |factor: f64, x: f64, power: f64| if factor == 0.0 { 0.0 } else { factor * x.powf(power) };
        self.chain(self.value().powf(power), |x| {
            [times(power, x, power - 1.0), times(power * (power - 1.0), x, power - 2.0)]
        })
    }

    fn atan(self) -> Self {
        self.chain(self.value().atan(), |x| {
            let slope = 1.0 / (1.0 + x * x);
            [slope, -2.0 * x * slope * slope]
        })
    }

    fn lgamma(self) -> Self {
        self.chain(special::lgamma(self.value()), |x| [special::digamma(x), special::trigamma(x)])
    }

    fn erf(self) -> Self {
        self.chain(special::erf(self.value()), |x| {
            let slope = std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp();
            [slope, -2.0 * x * slope]
        })
    }

    fn squared(self) -> Self {
        self * self
    }

    /// The larger of this number and a constant.
    fn at_least(self, least: f64) -> Self {
        if self.value() < least { Self::constant(least) } else { self }
    }
}

impl Real for f64 {
    const ONE: f64 = 1.0;

    fn constant(value: f64) -> f64 {
        value
    }

    fn value(self) -> f64 {
        self
    }

    fn chain(self, value: f64, _: impl FnOnce(f64) -> [f64; 2]) -> f64 {
        value
    }
}

/// A value, and its first and second derivative along the direction: a dual number of second order.
#[derive(Clone, Copy, Debug)]
pub struct Dual {
    pub value: f64,
    pub first: f64,
    pub second: f64,
}

impl Dual {
    /// The variable that the direction moves.
    pub fn variable(value: f64) -> Dual {
        Dual { value, first: 1.0, second: 0.0 }
    }
}

impl Real for Dual {
    const ONE: Dual = Dual { value: 1.0, first: 0.0, second: 0.0 };

    fn constant(value: f64) -> Dual {
        Dual { value, first: 0.0, second: 0.0 }
    }

    fn value(self) -> f64 {
        self.value
    }

    fn chain(self, value: f64, derivatives: impl FnOnce(f64) -> [f64; 2]) -> Dual {
        if self.first == 0.0 && self.second == 0.0 {
            return Dual::constant(value);
        }
        let [slope, curvature] = derivatives(self.value);
        Dual { value, first: slope * self.first, second: slope * self.second + curvature * self.first * self.first }
    }
}

impl PartialEq for Dual {
    fn eq(&self, other: &Dual) -> bool {
        self.value == other.value
    }
}

impl PartialOrd for Dual {
    fn partial_cmp(&self, other: &Dual) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl Neg for Dual {
    type Output = Dual;
    fn neg(self) -> Dual {
        Dual { value: -self.value, first: -self.first, second: -self.second }
    }
}

impl Add for Dual {
    type Output = Dual;
    fn add(self, other: Dual) -> Dual {
        Dual { value: self.value + other.value, first: self.first + other.first, second: self.second + other.second }
    }
}

impl Sub for Dual {
    type Output = Dual;
    fn sub(self, other: Dual) -> Dual {
        self + -other
    }
}

impl Mul for Dual {
    type Output = Dual;
    fn mul(self, other: Dual) -> Dual {
        let (a, b) = (self, other);
        Dual {
            value: a.value * b.value,
            first: a.first * b.value + a.value * b.first,
            second: a.second * b.value + 2.0 * a.first * b.first + a.value * b.second,
        }
    }
}

impl Div for Dual {
    type Output = Dual;
    fn div(self, other: Dual) -> Dual {
        // q·b = a, differentiated twice.
        let (a, b) = (self, other);
        let value = a.value / b.value;
        let first = (a.first - value * b.first) / b.value;
        Dual { value, first, second: (a.second - 2.0 * first * b.first - value * b.second) / b.value }
    }
}

impl Add<f64> for Dual {
    type Output = Dual;
    fn add(self, other: f64) -> Dual {
        self + Dual::constant(other)
    }
}

impl Sub<f64> for Dual {
    type Output = Dual;
    fn sub(self, other: f64) -> Dual {
        self - Dual::constant(other)
    }
}

impl Mul<f64> for Dual {
    type Output = Dual;
    fn mul(self, other: f64) -> Dual {
        Dual { value: self.value * other, first: self.first * other, second: self.second * other }
    }
}

impl Div<f64> for Dual {
    type Output = Dual;
    fn div(self, other: f64) -> Dual {
        Dual { value: self.value / other, first: self.first / other, second: self.second / other }
    }
}

impl Sum for Dual {
    fn sum<I: Iterator<Item = Dual>>(all: I) -> Dual {
        all.fold(Dual::constant(0.0), Add::add)
    }
}
