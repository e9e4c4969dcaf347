//! The closed set of scalar operations: arity, kinds, evaluation on the host, WGSL spelling.
//!
//! Derivatives are in `autodiff`, one arm per operation.

use super::special;
use num_traits::Float;

/// Number, index or truth value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A real number.
    Float,
    /// A class index or a column index.
    Int,
    /// A truth value.
    Bool,
}

/// A scalar operation. Comparisons are false when an operand is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// −a
    Neg,
    /// |a|; subgradient 0 at 0.
    Abs,
    /// sign of a; 0 at 0.
    Sign,
    /// eᵃ
    Exp,
    /// eᵃ − 1, accurate near 0.
    Expm1,
    /// ln a
    Log,
    /// ln(1 + a), accurate near 0.
    Log1p,
    /// √a
    Sqrt,
    /// tanh a
    Tanh,
    /// 1 / (1 + e⁻ᵃ)
    Sigmoid,
    /// ln sigmoid(a), accurate on both sides.
    LogSigmoid,
    /// ln(1 + eᵃ), accurate on both sides.
    Softplus,
    /// ln cosh a, without overflow and accurate near 0.
    LogCosh,
    /// The error function.
    Erf,
    /// arctan a, within ±π/2.
    Atan,
    /// The largest integer ≤ a; gradient 0 everywhere.
    Floor,
    /// ln Γ(a) for a ≥ 0; NaN below 0.
    Lgamma,
    /// The derivative of ln Γ(a), for a ≥ 0; NaN below 0.
    Digamma,
    /// max(a, 0); subgradient 0 at 0.
    Relu,
    /// Truth negated.
    Not,
    /// A truth value as 0 or 1, or an index as a number.
    ToFloat,
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// aᵇ; 0⁰ = 1; a negative a takes integers b only.
    Pow,
    /// The larger; subgradient one half each at a tie.
    Maximum,
    /// The smaller; subgradient one half each at a tie.
    Minimum,
    /// a · ln b, and 0 where a = 0.
    Xlogy,
    /// a · b, and 0 where a = 0 and b is infinite.
    Times,
    /// a < b
    Lt,
    /// a ≤ b
    Le,
    /// a = b
    Eq,
    /// Both.
    And,
    /// Either.
    Or,
    /// b where a holds, else c.
    Select,
}

impl Op {
    /// Every operation, for tests that must miss none.
    pub const ALL: [Op; 36] = [
        Op::Neg,
        Op::Abs,
        Op::Sign,
        Op::Exp,
        Op::Expm1,
        Op::Log,
        Op::Log1p,
        Op::Sqrt,
        Op::Tanh,
        Op::Sigmoid,
        Op::LogSigmoid,
        Op::Softplus,
        Op::LogCosh,
        Op::Erf,
        Op::Atan,
        Op::Floor,
        Op::Lgamma,
        Op::Digamma,
        Op::Relu,
        Op::Not,
        Op::ToFloat,
        Op::Add,
        Op::Sub,
        Op::Mul,
        Op::Div,
        Op::Pow,
        Op::Maximum,
        Op::Minimum,
        Op::Xlogy,
        Op::Times,
        Op::Lt,
        Op::Le,
        Op::Eq,
        Op::And,
        Op::Or,
        Op::Select,
    ];

    /// Number of operands.
    pub fn arity(self) -> usize {
        match self {
            Op::Neg
            | Op::Abs
            | Op::Sign
            | Op::Exp
            | Op::Expm1
            | Op::Log
            | Op::Log1p
            | Op::Sqrt
            | Op::Tanh
            | Op::Sigmoid
            | Op::LogSigmoid
            | Op::Softplus
            | Op::LogCosh
            | Op::Erf
            | Op::Atan
            | Op::Floor
            | Op::Lgamma
            | Op::Digamma
            | Op::Relu
            | Op::Not
            | Op::ToFloat => 1,
            Op::Add
            | Op::Sub
            | Op::Mul
            | Op::Div
            | Op::Pow
            | Op::Maximum
            | Op::Minimum
            | Op::Xlogy
            | Op::Times
            | Op::Lt
            | Op::Le
            | Op::Eq
            | Op::And
            | Op::Or => 2,
            Op::Select => 3,
        }
    }

    /// Kind of the result, or what the operands should have been.
    pub fn kind(self, operands: &[Kind]) -> Result<Kind, &'static str> {
        use Kind::{Bool, Float, Int};
        match (self, operands) {
            (Op::Not, [Bool]) | (Op::And | Op::Or, [Bool, Bool]) => Ok(Bool),
            (Op::Not, _) | (Op::And | Op::Or, _) => Err("takes truth values"),
            (Op::ToFloat, [Int | Bool]) => Ok(Float),
            (Op::ToFloat, _) => Err("takes an index or a truth value"),
            (Op::Lt | Op::Le | Op::Eq, [Float, Float] | [Int, Int]) => Ok(Bool),
            (Op::Lt | Op::Le | Op::Eq, _) => Err("compares two numbers or two indices"),
            (Op::Select, [Bool, a, b]) if a == b => Ok(*a),
            (Op::Select, _) => Err("takes a truth value and two values of one kind"),
            (_, all) if all.iter().all(|k| *k == Float) => Ok(Float),
            _ => Err("takes numbers"),
        }
    }

    /// The value of a float operation (operands and result [`Kind::Float`]) on the host.
    ///
    /// NaN in, NaN out, for `Maximum`, `Minimum` and `Relu` too.
    pub(crate) fn eval<T: Real>(self, a: T, b: T) -> T {
        let zero = T::zero();
        let one = T::one();
        match self {
            Op::Neg => -a,
            Op::Abs => a.abs(),
            Op::Sign if a.is_nan() => a,
            Op::Sign if a == zero => zero,
            Op::Sign => a.signum(),
            Op::Exp => a.exp(),
            Op::Expm1 => a.exp_m1(),
            Op::Log => a.ln(),
            Op::Log1p => a.ln_1p(),
            Op::Sqrt => a.sqrt(),
            Op::Tanh => a.tanh(),
            Op::Sigmoid if a < zero => a.exp() / (one + a.exp()),
            Op::Sigmoid => one / (one + (-a).exp()),
            Op::LogSigmoid => -Op::Softplus.eval(-a, b),
            Op::Softplus if a.is_nan() => a,
            Op::Softplus => a.max(zero) + (-a.abs()).exp().ln_1p(),
            Op::LogCosh => log_cosh(a),
            Op::Erf => a.erf(),
            Op::Atan => a.atan(),
            Op::Floor => a.floor(),
            Op::Lgamma => T::of(special::lgamma(a.to())),
            Op::Digamma => T::of(special::digamma(a.to())),
            Op::Relu if a.is_nan() => a,
            Op::Relu => a.max(zero),
            Op::Add => a + b,
            Op::Sub => a - b,
            Op::Mul => a * b,
            Op::Div => a / b,
            // NaN⁰ and 1^NaN are 1 in C.
            Op::Pow if a.is_nan() || b.is_nan() => T::nan(),
            Op::Pow => a.powf(b),
            Op::Maximum | Op::Minimum if a.is_nan() || b.is_nan() => T::nan(),
            Op::Maximum => a.max(b),
            Op::Minimum => a.min(b),
            Op::Xlogy if a == zero && !b.is_nan() => zero,
            Op::Xlogy => a * b.ln(),
            Op::Times if a == zero && b.is_infinite() => zero,
            Op::Times => a * b,
            Op::Not | Op::ToFloat | Op::Lt | Op::Le | Op::Eq | Op::And | Op::Or | Op::Select => {
                unreachable!("callers evaluate float operations alone, not {self:?}")
            }
        }
    }
}

/// `|a| − ln 2 + log1p(e^{−2|a|})` for large `|a|`; near zero `log1p(2 sinh²(a/2))`, which keeps its digits.
fn log_cosh<T: Real>(a: T) -> T {
    let one = T::one();
    let two = one + one;
    let x = a.abs();
    if x < one {
        let s = (x / two).sinh();
        (two * s * s).ln_1p()
    } else {
        x + ((-two * x).exp()).ln_1p() - two.ln()
    }
}

/// Numbers that the CPU path computes in: f32 and f64.
pub trait Real: Float + std::fmt::Debug + Send + Sync + std::iter::Sum + 'static {
    /// The error function.
    fn erf(self) -> Self;
    /// From f64, rounded.
    fn of(value: f64) -> Self;
    /// To f64.
    fn to(self) -> f64;
}

impl Real for f32 {
    fn erf(self) -> f32 {
        libm::erff(self)
    }
    fn of(value: f64) -> f32 {
        value as f32
    }
    fn to(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn erf(self) -> f64 {
        libm::erf(self)
    }
    fn of(value: f64) -> f64 {
        value
    }
    fn to(self) -> f64 {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_operands_are_checked() {
        use Kind::{Bool, Float, Int};
        assert_eq!(Op::Add.kind(&[Float, Float]), Ok(Float));
        assert!(Op::Add.kind(&[Float, Int]).is_err());
        assert_eq!(Op::Eq.kind(&[Int, Int]), Ok(Bool));
        assert_eq!(Op::Lt.kind(&[Int, Int]), Ok(Bool));
        assert!(Op::Lt.kind(&[Int, Float]).is_err());
        assert_eq!(Op::Select.kind(&[Bool, Int, Int]), Ok(Int));
        assert!(Op::Select.kind(&[Float, Int, Int]).is_err());
    }

    #[test]
    fn nan_passes_through_every_float_operation() {
        for op in Op::ALL {
            if op.kind(&vec![Kind::Float; op.arity()]) != Ok(Kind::Float) {
                continue;
            }
            assert!(op.eval(f64::NAN, 1.0).is_nan(), "{op:?}");
            if op.arity() == 2 {
                assert!(op.eval(1.0, f64::NAN).is_nan(), "{op:?}");
            }
        }
    }

    #[test]
    fn log_cosh_keeps_its_digits_near_zero() {
        let x = 1e-5f32;
        assert!((log_cosh(x) - 5e-11).abs() < 1e-16);
        assert_eq!(log_cosh(1000.0f64), 1000.0 - 2f64.ln());
    }
}
