//! Counts of rows, words and workgroups: as numbers, or as formulas of a shape that is not known yet.

use std::fmt;

/// A count: a number where the shape is known, a formula where it is not. Code over any `Count` gives both.
pub trait Count: Clone {
    /// A known number.
    fn of(value: u64) -> Self;
    /// The sum.
    fn plus(self, other: Self) -> Self;
    /// The product.
    fn times(self, other: Self) -> Self;
    /// The quotient, rounded up.
    fn div_ceil(self, other: Self) -> Self;
    /// The smaller of the two.
    fn at_most(self, other: Self) -> Self;
    /// The larger of the two.
    fn at_least(self, other: Self) -> Self;
}

impl Count for u64 {
    fn of(value: u64) -> u64 {
        value
    }

    // A saturated count is above every limit of a device, which refuses it.
    fn plus(self, other: u64) -> u64 {
        self.saturating_add(other)
    }

    fn times(self, other: u64) -> u64 {
        self.saturating_mul(other)
    }

    fn div_ceil(self, other: u64) -> u64 {
        u64::div_ceil(self, other)
    }

    fn at_most(self, other: u64) -> u64 {
        self.min(other)
    }

    fn at_least(self, other: u64) -> u64 {
        self.max(other)
    }
}

/// A count, or a condition, as a formula of a shape's rows and columns.
///
/// ```
/// use wgloss::export::{Count, Formula};
/// let groups = Formula::Rows.div_ceil(Formula::of(8)).at_most(Formula::of(65_535));
/// assert_eq!(groups.to_string(), "min(ceil(rows / 8), 65535)");
/// assert_eq!(groups.at(1000, 10), 125);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Formula {
    /// A number.
    Number(u64),
    /// The rows of the shape.
    Rows,
    /// Its columns.
    Cols,
    /// An operation on two formulas.
    Of(FormulaOp, Box<[Formula; 2]>),
}

/// Operation of a [`Formula`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FormulaOp {
    /// `a + b`
    Add,
    /// `a · b`
    Mul,
    /// `a / b`, rounded up.
    DivCeil,
    /// The remainder of `a / b`.
    Rem,
    /// The smaller.
    Min,
    /// The larger.
    Max,
    /// 1 where `a = b`, else 0.
    Equal,
    /// 1 where `a ≤ b`, else 0.
    AtMost,
}

impl FormulaOp {
    /// Its name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            FormulaOp::Add => "add",
            FormulaOp::Mul => "mul",
            FormulaOp::DivCeil => "div_ceil",
            FormulaOp::Rem => "rem",
            FormulaOp::Min => "min",
            FormulaOp::Max => "max",
            FormulaOp::Equal => "equal",
            FormulaOp::AtMost => "at_most",
        }
    }

    fn apply(self, a: u64, b: u64) -> u64 {
        match self {
            FormulaOp::Add => a.saturating_add(b),
            FormulaOp::Mul => a.saturating_mul(b),
            FormulaOp::DivCeil => u64::div_ceil(a, b),
            FormulaOp::Rem => a % b,
            FormulaOp::Min => a.min(b),
            FormulaOp::Max => a.max(b),
            FormulaOp::Equal => u64::from(a == b),
            FormulaOp::AtMost => u64::from(a <= b),
        }
    }
}

impl Formula {
    /// Its value for a shape. Sums and products saturate.
    ///
    /// # Panics
    /// On a divisor of 0.
    pub fn at(&self, rows: u64, cols: u64) -> u64 {
        match self {
            Formula::Number(value) => *value,
            Formula::Rows => rows,
            Formula::Cols => cols,
            Formula::Of(operator, both) => operator.apply(both[0].at(rows, cols), both[1].at(rows, cols)),
        }
    }

    /// The remainder.
    #[must_use]
    pub fn remainder(self, other: Formula) -> Formula {
        self.with(FormulaOp::Rem, other)
    }

    /// 1 where they are equal, else 0.
    #[must_use]
    pub fn equals(self, other: Formula) -> Formula {
        self.with(FormulaOp::Equal, other)
    }

    /// 1 where this is at most the other, else 0.
    #[must_use]
    pub fn is_at_most(self, other: Formula) -> Formula {
        self.with(FormulaOp::AtMost, other)
    }

    fn with(self, operator: FormulaOp, other: Formula) -> Formula {
        use Formula::Number;
        match (operator, self, other) {
            (_, Number(a), Number(b)) => Number(operator.apply(a, b)),
            (FormulaOp::Add, Number(0), x) | (FormulaOp::Add | FormulaOp::Max, x, Number(0)) => x,
            (FormulaOp::Mul, Number(1), x) | (FormulaOp::Mul | FormulaOp::DivCeil, x, Number(1)) => x,
            (FormulaOp::Mul, Number(0), _) | (FormulaOp::Mul, _, Number(0)) => Number(0),
            (FormulaOp::Max, Number(0), x) => x,
            (FormulaOp::Min | FormulaOp::Max, a, b) if a == b => a,
            (_, a, b) => Formula::Of(operator, Box::new([a, b])),
        }
    }
}

impl Count for Formula {
    fn of(value: u64) -> Formula {
        Formula::Number(value)
    }

    fn plus(self, other: Formula) -> Formula {
        self.with(FormulaOp::Add, other)
    }

    fn times(self, other: Formula) -> Formula {
        self.with(FormulaOp::Mul, other)
    }

    fn div_ceil(self, other: Formula) -> Formula {
        self.with(FormulaOp::DivCeil, other)
    }

    fn at_most(self, other: Formula) -> Formula {
        self.with(FormulaOp::Min, other)
    }

    fn at_least(self, other: Formula) -> Formula {
        self.with(FormulaOp::Max, other)
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operator, [a, b]) = match self {
            Formula::Number(value) => return write!(f, "{value}"),
            Formula::Rows => return f.write_str("rows"),
            Formula::Cols => return f.write_str("cols"),
            Formula::Of(operator, both) => (operator, &**both),
        };
        // Operators that bind looser than a product need brackets inside it.
        let factor = |x: &Formula| match x {
            Formula::Of(FormulaOp::Add | FormulaOp::Rem | FormulaOp::Equal | FormulaOp::AtMost, _) => format!("({x})"),
            _ => x.to_string(),
        };
        match operator {
            FormulaOp::Add => write!(f, "{a} + {b}"),
            FormulaOp::Mul => write!(f, "{} * {}", factor(a), factor(b)),
            FormulaOp::DivCeil => write!(f, "ceil({} / {})", factor(a), factor(b)),
            FormulaOp::Rem => write!(f, "{} % {}", factor(a), factor(b)),
            FormulaOp::Min => write!(f, "min({a}, {b})"),
            FormulaOp::Max => write!(f, "max({a}, {b})"),
            FormulaOp::Equal => write!(f, "{a} == {b}"),
            FormulaOp::AtMost => write!(f, "{a} <= {b}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same steps over numbers and over formulas.
    fn steps<N: Count>(rows: N, cols: N, operations: &[(u8, u64)]) -> N {
        operations.iter().fold(rows, |so_far, (operation, number)| {
            let other = if number % 3 == 0 { cols.clone() } else { N::of(*number) };
            match operation % 5 {
                0 => so_far.plus(other),
                1 => so_far.at_most(N::of(1 << 20)).times(other),
                2 => so_far.div_ceil(other),
                3 => so_far.at_most(other),
                _ => so_far.at_least(other),
            }
        })
    }

    proptest! {
        #[test]
        fn a_formula_at_a_shape_is_what_numbers_give(
            rows in 1u64..100_000,
            cols in 1u64..1000,
            operations in proptest::collection::vec((0u8..5, 1u64..50), 0..8),
        ) {
            let formula = steps(Formula::Rows, Formula::Cols, &operations);
            prop_assert_eq!(formula.at(rows, cols), steps(rows, cols, &operations), "{}", formula);
        }
    }

    #[test]
    fn a_product_brackets_its_sums() {
        let sum = || Formula::Rows.plus(Formula::of(3));
        assert_eq!(sum().times(sum()).to_string(), "(rows + 3) * (rows + 3)");
        assert_eq!(sum().div_ceil(Formula::of(4)).to_string(), "ceil((rows + 3) / 4)");
        assert_eq!(Formula::Rows.times(Formula::Cols).remainder(Formula::of(4)).equals(Formula::of(0)).at(3, 4), 1);
    }
}
