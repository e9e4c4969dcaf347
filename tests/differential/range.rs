//! Bounds of what a tree's value may be, and operations that carry them on.

use super::expression::Tree;
use crate::special::{digamma, lgamma};
use wgloss::internals::expr::op::Op;

/// Bounds of a value.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub low: f64,
    pub high: f64,
}

impl Range {
    pub fn new(low: f64, high: f64) -> Range {
        Range { low, high }
    }

    pub fn largest(self) -> f64 {
        self.low.abs().max(self.high.abs())
    }

    pub fn over(values: impl IntoIterator<Item = f64>) -> Range {
        let all = values.into_iter();
        all.fold(Range::new(f64::INFINITY, f64::NEG_INFINITY), |r, v| Range::new(r.low.min(v), r.high.max(v)))
    }

    pub fn map(self, f: impl Fn(f64) -> f64) -> Range {
        Range::over([f(self.low), f(self.high)])
    }

    pub fn joined(self, other: Range) -> Range {
        Range::new(self.low.min(other.low), self.high.max(other.high))
    }

    pub fn pairs(self, other: Range, f: impl Fn(f64, f64) -> f64) -> Range {
        let (a, b) = (self, other);
        Range::over([f(a.low, b.low), f(a.low, b.high), f(a.high, b.low), f(a.high, b.high)])
    }
}

/// A tree and its bounds.
pub type Grown = (Tree, Range);

/// The same value squashed or scaled where it may be larger than `bound`.
pub fn tame((x, range): Grown, bound: f64) -> Grown {
    let largest = range.largest();
    if largest <= bound {
        return (x, range);
    }
    if largest > 8.0 * bound && x.size() % 2 == 1 {
        let squashed = Tree::op(Op::Tanh, [Tree::op(Op::Mul, [Tree::Const(round(4.0 / largest)), x])]);
        return (squashed, Range::new(-1.0, 1.0));
    }
    let factor = round(bound / largest);
    (Tree::op(Op::Mul, [x, Tree::Const(factor)]), Range::new(range.low * factor, range.high * factor))
}

/// A power of two at or below it: exact in every type, and short to print.
fn round(x: f64) -> f64 {
    x.log2().floor().exp2()
}

/// An operation of one number.
pub fn unary(op: Op, (x, r): Grown) -> Grown {
    let range = match op {
        Op::Neg => r.map(|v| -v),
        Op::Abs => r.map(f64::abs).joined(Range::new(0.0, 0.0)),
        Op::Sign | Op::Tanh | Op::Erf => Range::new(-1.0, 1.0),
        Op::Atan => Range::new(-std::f64::consts::FRAC_PI_2, std::f64::consts::FRAC_PI_2),
        Op::Floor => r.map(f64::floor),
        // Least at 1.46.
        Op::Lgamma => r.map(lgamma).joined(Range::new(-0.13, -0.12)),
        Op::Digamma => r.map(digamma),
        Op::Sigmoid => Range::new(0.0, 1.0),
        Op::LogSigmoid => Range::new(-r.largest() - 0.7, 0.0),
        Op::Softplus | Op::LogCosh => Range::new(0.0, r.largest() + 0.7),
        Op::Exp => r.map(f64::exp),
        Op::Expm1 => r.map(f64::exp_m1),
        Op::Log => r.map(f64::ln),
        Op::Log1p => r.map(f64::ln_1p),
        Op::Sqrt => r.map(f64::sqrt),
        _ => r.map(|v| v.max(0.0)),
    };
    (Tree::op(op, [x]), range)
}

/// An operation of two.
pub fn binary(op: Op, (x, a): Grown, (y, b): Grown) -> Grown {
    let range = match op {
        Op::Add => a.pairs(b, |a, b| a + b),
        Op::Sub => a.pairs(b, |a, b| a - b),
        Op::Mul | Op::Times => a.pairs(b, |a, b| a * b),
        Op::Div => a.pairs(b, |a, b| a / b),
        Op::Pow => a.pairs(b, f64::powf).joined(Range::new(1.0, 1.0)),
        Op::Maximum | Op::Minimum => a.joined(b),
        _ => a.pairs(b, |a, b| a * b.ln()).joined(Range::new(0.0, 0.0)),
    };
    (Tree::op(op, [x, y]), range)
}
