//! Random expressions whose values stay in a range that f32 holds.
//!
//! Every subexpression has bounds that hold for finite inputs in [−4, 4] (scalars and parameters: [0.25, 2]), and
//! operations are given only operands for which value and derivative are moderate. So finite inputs must give finite
//! results on every path, and what is NaN or infinite comes from a NaN input, or is a fault. The exception is deliberate:
//! under a `select` or a `masked`, the branch that is *not* taken may overflow in f32 or be NaN ([`Grower::guarded`]).

use super::expression::{Fold, Index, Pairs, Test, Tree};
use super::random::Random;
use super::range::{Grown, Range, binary, tame, unary};
use wgloss::internals::expr::Scan;
use wgloss::internals::expr::op::Op;
use wgloss::{Direction, Order};
use wgloss::{Extent, Scope};

/// Most columns of rows whose pairs are folded: their number is the square.
const PAIRED_COLS: usize = 300;

/// Grows expressions for one problem.
pub struct Grower<'r> {
    pub random: &'r mut Random,
    pub has_rows: bool,
    pub cols: usize,
    pub rows: usize,
    pub group_rows: usize,
    /// Whether groups have unequal lengths.
    pub unequal: bool,
    /// Whether sums over other rows may be used: not inside of a mask.
    sums: bool,
    /// Whether scans may be used: not below a sum over the rows for each column.
    scans: bool,
}

/// Operations of one number that take anything.
const ANY: [Op; 10] =
    [Op::Neg, Op::Abs, Op::Sign, Op::Tanh, Op::Sigmoid, Op::LogSigmoid, Op::Softplus, Op::LogCosh, Op::Erf, Op::Atan];

impl<'r> Grower<'r> {
    pub fn new(random: &'r mut Random, has_rows: bool, [rows, cols]: [usize; 2], group_rows: usize) -> Grower<'r> {
        Grower { random, has_rows, cols, rows, group_rows, unequal: false, sums: true, scans: true }
    }

    /// The expression of a loss: one value an element, a row, or in all, that reads `input`.
    pub fn loss(&mut self) -> Tree {
        let scope = match self.random.below(20) {
            0..=7 => Scope::Element,
            8..=14 if self.has_rows => Scope::Row,
            15 | 16 if self.has_rows => Scope::Group,
            17 if self.has_rows => Scope::Column,
            18 if self.has_rows && !self.unequal => Scope::GroupColumn,
            _ => Scope::Total,
        };
        let depth = 1 + self.random.below(4);
        let (mut tree, _) = self.grow(scope, depth);
        if !tree.reads("input") {
            let (input, _) = self.reading_input(scope);
            tree = Tree::op(self.random.pick(&[Op::Add, Op::Sub, Op::Mul]), [input, tree]);
        }
        tree
    }

    fn reading_input(&mut self, scope: Scope) -> Grown {
        let input = (Tree::input("input"), Range::new(-4.0, 4.0));
        match scope {
            Scope::Element => input,
            Scope::Column | Scope::GroupColumn => self.sum_over(scope, input),
            Scope::Row if self.has_rows => self.fold(input),
            Scope::Group => self.sum_over(Scope::Group, input),
            _ => self.sum_over(Scope::Total, input),
        }
    }

    /// A value of that scope, or one further out.
    pub fn grow(&mut self, scope: Scope, depth: usize) -> Grown {
        if depth == 0 {
            return self.leaf(scope);
        }
        let d = depth - 1;
        match self.random.below(34) {
            0..=2 => {
                let (op, x) = (self.random.pick(&ANY), self.grow(scope, d));
                // Beyond 3, erf is 1 in f32: maxima of it would be ties that the f64 path does not see.
                unary(op, tame(x, if op == Op::Erf { 2.5 } else { 1e3 }))
            }
            3 => {
                let x = self.grow(scope, d);
                let op = self.random.pick(&[Op::Exp, Op::Expm1]);
                unary(op, tame(x, 6.0))
            }
            4 => {
                let x = self.positive(scope, d);
                let op = self.random.pick(&[Op::Log, Op::Log, Op::Log1p, Op::Sqrt, Op::Sqrt, Op::Lgamma, Op::Digamma]);
                unary(op, x)
            }
            5..=8 => {
                let (a, b) = (self.grow(scope, d), self.grow(scope, d));
                let op = self.random.pick(&[Op::Add, Op::Sub, Op::Mul, Op::Times, Op::Maximum, Op::Minimum]);
                binary(op, tame(a, 100.0), tame(b, 100.0))
            }
            9 => {
                let (a, b) = (self.grow(scope, d), self.positive(scope, d));
                binary(Op::Div, tame(a, 1e3), b)
            }
            10 => {
                let x = self.grow(scope, d);
                let exponent = self.random.pick(&[2.0, 2.0, 3.0]);
                let (tree, range) = tame(x, 10.0);
                let powers = Range::over([range.low.powf(exponent), range.high.powf(exponent), 0.0]);
                (Tree::op(Op::Pow, [tree, Tree::Const(exponent)]), powers)
            }
            11 => {
                let (a, b) = (self.positive(scope, d), self.grow(scope, d));
                binary(Op::Pow, tame(a, 10.0), tame(b, 2.0))
            }
            12 => {
                let (a, b) = (self.grow(scope, d), self.positive(scope, d));
                binary(Op::Xlogy, unary(Op::Relu, tame(a, 100.0)), b)
            }
            13 => {
                let (test, a, b) = (self.test(scope, d), self.grow(scope, d), self.grow(scope, d));
                (Tree::Select(test.into(), a.0.into(), b.0.into()), a.1.joined(b.1))
            }
            14 => {
                let test = self.test(scope, d);
                let (x, range) = self.without_sums(|g| g.grow(scope, d));
                (Tree::Masked(test.into(), x.into()), range.joined(Range::new(0.0, 0.0)))
            }
            15 | 16 => self.guarded(scope, d),
            17 => (Tree::Truth(self.test(scope, d).into()), Range::new(0.0, 1.0)),
            18 => {
                let (x, range) = self.grow(scope, d);
                (Tree::Detach(x.into()), range)
            }
            19 => {
                let (a, b) = (self.grow(scope, d), self.grow(scope, d));
                if a.0.scope() == Scope::Element && b.0.scope() == Scope::Element && self.random.one_in(2) {
                    return (Tree::WithGradient(a.0.into(), "input", b.0.into()), a.1);
                }
                if a.0.scope() == b.0.scope() {
                    return (Tree::StraightThrough(a.0.into(), b.0.into()), a.1);
                }
                binary(Op::Add, tame(a, 100.0), tame(b, 100.0))
            }
            20 | 21 => {
                let x = self.grow(scope, d);
                let (low, high) = self.random.pick(&[(-1.0, 1.0), (0.0, 2.0), (-0.5, 0.0), (1.0, -1.0)]);
                let (low, high) =
                    ((Tree::Const(low), Range::new(low, low)), (Tree::Const(high), Range::new(high, high)));
                // Now and then a bound that has a gradient.
                let low = if self.random.one_in(3) { self.leaf(scope) } else { low };
                let range = Range::new(low.1.low.min(high.1.low), high.1.high);
                (Tree::Clamp(x.0.into(), low.0.into(), high.0.into()), range)
            }
            22 => {
                let n = self.random.pick(&[-2, -1, 0, 1, 2, 3, 4, 5, 17]);
                let (tree, range) = if n < 0 { self.positive(scope, d) } else { self.grow(scope, d) };
                let (tree, range) = tame((tree, range), if n > 5 { 1.25 } else { 6.0 });
                if n < 0 && range.low < 0.04 {
                    return (tree, range);
                }
                let powers =
                    Range::over([range.low.powi(n), range.high.powi(n), if n < 0 { range.high.powi(n) } else { 0.0 }]);
                (Tree::Powi(tree.into(), n), if n == 0 { Range::new(1.0, 1.0) } else { powers })
            }
            23 => {
                // Of numbers without rounding: next to a step, what is rounded may be on either side.
                let (x, factor) = (self.leaf(scope), self.random.pick(&[0.5, 1.0, 2.0]));
                unary(Op::Floor, binary(Op::Mul, x, (Tree::Const(factor), Range::new(factor, factor))))
            }
            _ => self.inward(scope, d),
        }
    }

    /// What a scope has that others have not: reductions, softmax, sums over rows.
    fn inward(&mut self, scope: Scope, depth: usize) -> Grown {
        match scope {
            Scope::Element if self.has_rows && self.scans && self.random.one_in(3) => match self.random.below(4) {
                0 if self.cols <= PAIRED_COLS => self.pairs(depth),
                1 => self.sorted(depth),
                _ => self.scan(depth),
            },
            Scope::Element if self.has_rows => match self.random.below(8) {
                0 | 1 => {
                    let (x, _) = self.element(depth);
                    if self.random.one_in(2) {
                        return (Tree::Softmax(x.into()), Range::new(0.0, 1.0));
                    }
                    (Tree::LogSoftmax(x.into()), Range::new(-60.0 - (self.cols as f64).ln(), 0.0))
                }
                2 => {
                    let value = Tree::op(Op::Div, [Tree::Col, Tree::Count(Extent::Cols)]);
                    (value, Range::new(0.0, 1.0))
                }
                3 => (Tree::Truth(Test::ColIs(self.index(depth)).into()), Range::new(0.0, 1.0)),
                4 | 5 => self.grow(Scope::Row, depth.max(1)),
                6 if self.random.one_in(2) => self.grow(Scope::Group, depth.max(1)),
                6 if !self.unequal && self.random.one_in(2) => self.grow(Scope::GroupColumn, depth.max(1)),
                6 => self.grow(Scope::Column, depth.max(1)),
                _ => self.grow(Scope::Total, depth.max(1)),
            },
            Scope::Column | Scope::Group if self.sums && !self.unequal && self.random.one_in(4) => {
                let x = self.of_groups_and_columns(depth);
                self.sum_over(scope, x)
            }
            Scope::Column | Scope::GroupColumn if self.sums => {
                let before = std::mem::replace(&mut self.scans, false);
                let x = self.of_elements(depth);
                self.scans = before;
                self.sum_over(scope, x)
            }
            Scope::Element if self.sums => self.grow(Scope::Total, depth.max(1)),
            Scope::Row => match self.random.below(7) {
                6 => (Tree::op(Op::Div, [Tree::Row, Tree::Count(Extent::Rows)]), Range::new(0.0, 1.0)),
                0..=2 => {
                    let x = self.element(depth);
                    self.fold(x)
                }
                3 | 4 => {
                    let x = self.element(depth);
                    (Tree::At(self.index(depth), x.0.into()), x.1)
                }
                _ => self.grow(Scope::Group, depth.max(1)),
            },
            Scope::Group if self.sums => {
                let scope = self.random.pick(&[Scope::Row, Scope::Element]);
                let x = if scope == Scope::Row { self.row(depth) } else { self.of_elements(depth) };
                self.sum_over(Scope::Group, x)
            }
            Scope::Total if self.sums && self.has_rows && !self.unequal && self.random.one_in(6) => {
                let x = self.of_groups_and_columns(depth);
                self.sum_over(Scope::Total, x)
            }
            Scope::Total if self.sums && self.has_rows && self.random.one_in(4) => {
                let x = self.grow(Scope::Group, depth);
                let x = if x.0.scope() == Scope::Group { x } else { (Tree::input("g"), Range::new(-4.0, 4.0)) };
                self.sum_over(Scope::Total, x)
            }
            Scope::Total if self.sums => {
                let x = if self.has_rows && self.random.one_in(2) { self.row(depth) } else { self.element(depth) };
                self.sum_over(Scope::Total, x)
            }
            _ => self.leaf(scope),
        }
    }

    /// A scan along the row.
    fn scan(&mut self, depth: usize) -> Grown {
        let (scan, n) = (self.random.pick(&[Scan::Sum, Scan::LogSumExp, Scan::Linear, Scan::Shift]), self.cols as f64);
        let along = self.random.pick(&[Direction::Forward, Direction::Reverse]);
        let (x, range) = self.grow(Scope::Element, depth);
        let (x, range) = tame((x, range), if scan == Scan::LogSumExp { 30.0 } else { 8.0 });
        let sums = Range::new((n * range.low).min(range.low), (n * range.high).max(range.high));
        let (operands, range) = match scan {
            Scan::Sum => (vec![x], sums),
            Scan::LogSumExp => (vec![x], Range::new(range.low, range.high + n.ln())),
            Scan::Shift => (vec![x], range.joined(Range::new(0.0, 0.0))),
            Scan::Decay => unreachable!("gradients alone hold it"),
            Scan::Linear => {
                let decay = self.grow(Scope::Element, depth);
                let largest = n * range.largest();
                (vec![x, tame(decay, 1.0).0], Range::new(-largest, largest))
            }
        };
        (Tree::Scan(scan, along, operands), range)
    }

    /// A fold over partners.
    fn pairs(&mut self, depth: usize) -> Grown {
        let (pairs, n) = (self.random.pick(&[Pairs::Product, Pairs::Above, Pairs::LogSumExp]), self.cols as f64);
        let [(a, _), (b, _)] = [(); 2].map(|()| {
            let x = self.grow(Scope::Element, depth);
            tame(x, if pairs == Pairs::LogSumExp { 12.0 } else { 3.0 })
        });
        let (m, _) = self.leaf(Scope::Element);
        let range = match pairs {
            Pairs::Product => Range::new(-9.0 * n, 9.0 * n),
            Pairs::Above => Range::new(-n, n),
            Pairs::LogSumExp => Range::new(-24.0, 24.0 + n.ln()),
        };
        (Tree::Pairs(pairs, vec![a, b, m]), range)
    }

    /// An element value in the order of another, or back from it.
    fn sorted(&mut self, depth: usize) -> Grown {
        let order = self.random.pick(&[Order::Ascending, Order::Descending]);
        let ((x, range), (key, _)) = (self.grow(Scope::Element, depth), self.leaf(Scope::Element));
        (Tree::Sorted(order, self.random.one_in(3), x.into(), key.into()), range)
    }

    /// An element or column value between −30 and 30.
    fn element(&mut self, depth: usize) -> Grown {
        let (x, range) = self.grow(Scope::Element, depth);
        if x.scope().has_columns() {
            return tame((x, range), 30.0);
        }
        let sum = Tree::op(Op::Add, [x, Tree::input("input")]);
        tame((sum, Range::new(range.low - 4.0, range.high + 4.0)), 30.0)
    }

    /// An element value between −30 and 30, not one of columns alone.
    fn of_elements(&mut self, depth: usize) -> Grown {
        let (x, range) = self.element(depth);
        if x.scope() == Scope::Element {
            return (x, range);
        }
        let sum = Tree::op(Op::Add, [x, Tree::input("input")]);
        tame((sum, Range::new(range.low - 4.0, range.high + 4.0)), 30.0)
    }

    /// A value per group and column between −30 and 30.
    fn of_groups_and_columns(&mut self, depth: usize) -> Grown {
        let (x, range) = self.grow(Scope::GroupColumn, depth);
        if x.scope() == Scope::GroupColumn {
            return tame((x, range), 30.0);
        }
        (Tree::input("h"), Range::new(-4.0, 4.0))
    }

    /// A row value.
    fn row(&mut self, depth: usize) -> Grown {
        let (x, range) = self.grow(Scope::Row, depth);
        if x.scope() == Scope::Row {
            return (x, range);
        }
        (Tree::input("r"), Range::new(-4.0, 4.0))
    }

    fn fold(&mut self, (x, range): Grown) -> Grown {
        use Fold::{ArgMax, Entmax15, LogSumExp, LogSumExpShifted, Max, Mean, Min, Sparsemax, Sum, TopK};
        let n = self.cols as f64;
        let rank = TopK(1 + self.random.below(self.cols.clamp(1, 3)) as u32);
        let folds = [Sum, Sum, Mean, Max, Min, ArgMax, LogSumExp, LogSumExpShifted, Sparsemax, Entmax15, rank];
        let fold = self.random.pick(&folds);
        let range = match fold {
            Sum => Range::new((n * range.low).min(range.low), (n * range.high).max(range.high)),
            Mean | Max | Min | TopK(_) => range,
            Sparsemax => Range::new(range.low - 1.0, range.high),
            Entmax15 => Range::new(0.5 * range.low - 1.0, 0.5 * range.high),
            ArgMax => Range::new(0.0, n),
            LogSumExp => Range::new(range.low, range.high + n.ln()),
            LogSumExpShifted => Range::new(0.0, n.ln()),
        };
        (Tree::Fold(fold, x.into()), range)
    }

    fn sum_over(&mut self, to: Scope, x: Grown) -> Grown {
        let rows = if matches!(to, Scope::Group | Scope::GroupColumn) { self.group_rows } else { self.rows };
        let terms = match (x.0.scope(), to) {
            (Scope::Element, Scope::Group | Scope::Total) => rows * self.cols,
            (Scope::Column, _) | (Scope::GroupColumn, Scope::Group) => self.cols,
            (Scope::GroupColumn, Scope::Column) => self.rows / self.group_rows,
            (Scope::GroupColumn, _) => self.rows / self.group_rows * self.cols,
            _ => rows,
        };
        let n = terms as f64;
        // Of a group without rows it is −∞.
        let often = if to.has_columns() { 2 } else { 3 };
        if self.random.one_in(often) && !(self.unequal && to == Scope::Group) {
            let (x, range) = tame(x, 30.0);
            return (Tree::LogSumExpOver(to, x.into()), Range::new(range.low, range.high + n.ln()));
        }
        let range = Range::new((n * x.1.low).min(0.0), (n * x.1.high).max(0.0));
        // Sums of thousands are means as a rule, so that what is made of them is neither flat nor steep.
        tame((Tree::SumOver(to, x.0.into()), range), 100.0)
    }

    fn index(&mut self, depth: usize) -> Index {
        match self.random.below(6) {
            // No label is 2³²; as one of 32 bits it would be 0.
            0 if self.random.one_in(4) => Index::Fixed(1 << 32),
            0 => Index::Fixed(self.random.below(self.cols) as i64),
            1 | 2 => Index::ArgMax(self.element(depth.min(1)).0.into()),
            3 if self.rows <= self.cols => Index::Row,
            _ => Index::Label,
        }
    }

    /// A truth value of that scope, or one further out.
    fn test(&mut self, scope: Scope, depth: usize) -> Test {
        let d = depth.min(1);
        match self.random.below(12) {
            0 if self.has_rows && scope == Scope::Element => match self.random.one_in(2) {
                true => Test::ColIs(self.index(d)),
                false => Test::ColBelow(self.index(d)),
            },
            1 if self.has_rows && scope >= Scope::Row => {
                let index = self.random.pick(&[0, 1, -100]);
                if self.random.one_in(3) { Test::LabelBelow(index + 2) } else { Test::LabelIs(index) }
            }
            2 => Test::Not(self.test(scope, d).into()),
            3 if scope == Scope::Element && self.random.one_in(2) => {
                Test::ClassIs(self.random.below(3) as i64, !self.random.one_in(3))
            }
            3 => Test::And(self.test(scope, 0).into(), self.test(scope, 0).into()),
            4 => Test::Or(self.test(scope, 0).into(), self.test(scope, 0).into()),
            5 if self.has_rows && scope == Scope::Element => {
                let (x, _) = self.element(d);
                let most = Tree::Fold(Fold::Max, x.clone().into());
                Test::Compare(Op::Le, most, x)
            }
            6..=8 => {
                let (x, _) = self.grow(scope, d);
                let bound = Tree::Const(self.random.pick(&[0.0, 0.0, 1.0, -1.0, 0.5]));
                let op = self.random.pick(&[Op::Lt, Op::Le, Op::Eq]);
                if self.random.one_in(2) { Test::Compare(op, x, bound) } else { Test::Compare(op, bound, x) }
            }
            _ => {
                let (a, b) = (self.grow(scope, d), self.grow(scope, d));
                Test::Compare(self.random.pick(&[Op::Lt, Op::Le]), a.0, b.0)
            }
        }
    }

    /// A selection or a mask whose other branch is NaN, infinite, or beyond f32 where it is not taken.
    fn guarded(&mut self, scope: Scope, depth: usize) -> Grown {
        let (other, range) = self.grow(scope, depth.min(1));
        let other = |value: Tree, taken: Range, test: Test, swap: bool| {
            let branches = if swap { (other, value) } else { (value, other) };
            (Tree::Select(test.into(), branches.0.into(), branches.1.into()), taken.joined(range))
        };
        let masked = |test: Test, x: Tree, taken: Range| {
            (Tree::Masked(test.into(), x.into()), taken.joined(Range::new(0.0, 0.0)))
        };
        let above = |x: &Tree, bound: f64| Test::Compare(Op::Lt, Tree::Const(bound), x.clone());
        let variant = self.random.below(8);
        let inner = if variant < 3 { self.without_sums(|g| g.grow(scope, depth)) } else { self.grow(scope, depth) };
        let (x, bounds) = tame(inner, 4.0);
        // Beyond 88, where exp overflows in f32; not below −80, where devices flush it to 0 and a condition would see that.
        let floored = Tree::op(Op::Maximum, [x.clone(), Tree::Const(-2.0)]);
        let steep = Tree::op(Op::Mul, [Tree::Const(40.0), floored]);
        let exp = |x: &Tree| Tree::op(Op::Exp, [x.clone()]);
        let high = bounds.largest().max(1.0);
        match variant {
            0 => masked(above(&x, 0.05), Tree::op(Op::Log, [x]), Range::new(-3.0, high)),
            1 => masked(Test::Not(above(&steep, 3.0).into()), exp(&steep), Range::new(0.0, 21.0)),
            2 => {
                let inverse = Tree::op(Op::Div, [Tree::Const(1.0), x.clone()]);
                masked(above(&Tree::op(Op::Abs, [x]), 0.1), inverse, Range::new(-10.0, 10.0))
            }
            3 => other(exp(&steep), Range::new(0.0, 21.0), above(&steep, 3.0), true),
            4 => other(Tree::op(Op::Log, [x.clone()]), Range::new(-3.0, high), above(&x, 0.05), false),
            5 => other(Tree::op(Op::Sqrt, [x.clone()]), Range::new(0.0, high), above(&x, 0.05), false),
            6 => {
                let inverse = Tree::op(Op::Div, [Tree::Const(1.0), x.clone()]);
                let test = Test::Compare(Op::Le, Tree::op(Op::Abs, [x]), Tree::Const(0.1));
                other(inverse, Range::new(-10.0, 10.0), test, true)
            }
            _ => {
                // The logarithm of 0, exactly there.
                let relu = Tree::op(Op::Relu, [x]);
                let sum = Tree::op(Op::Maximum, [relu.clone(), Tree::Const(0.05)]);
                let value = Tree::op(Op::Log, [Tree::op(Op::Mul, [relu.clone(), sum])]);
                let test = Test::Compare(Op::Le, relu, Tree::Const(0.0));
                other(value, Range::new(-30.0, 2.0 * high), test, true)
            }
        }
    }

    fn without_sums<T>(&mut self, grow: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.sums, false);
        let grown = grow(self);
        self.sums = before;
        grown
    }

    /// A value of at least 0.05.
    fn positive(&mut self, scope: Scope, depth: usize) -> Grown {
        let x = self.grow(scope, depth);
        let plus = |x: Grown, least: f64| binary(Op::Add, x, (Tree::Const(least), Range::new(least, least)));
        match self.random.below(4) {
            0 => plus(unary(Op::Softplus, tame(x, 50.0)), 0.1),
            1 => plus(unary(Op::Abs, tame(x, 50.0)), 0.25),
            2 => unary(Op::Exp, tame(x, 2.0)),
            _ => plus(unary(Op::Sigmoid, x), 0.1),
        }
    }

    fn leaf(&mut self, scope: Scope) -> Grown {
        let name = match (scope, self.random.below(10)) {
            (_, 0) => {
                let value = self.random.pick(&[0.0, 1.0, -1.0, 0.5, 2.0]);
                return (Tree::Const(value), Range::new(value, value));
            }
            (_, 1) => return (Tree::Param(self.random.pick(&super::expression::PARAMS)), Range::new(0.25, 2.0)),
            (Scope::Group, 7) if self.unequal => {
                return tame((Tree::GroupRows, Range::new(0.0, self.rows as f64)), 100.0);
            }
            (Scope::Group, 3..=7) if self.has_rows => "g",
            (_, 2) | (Scope::Group | Scope::Total | Scope::Scalar | Scope::Param, _) => {
                return (Tree::input("k"), Range::new(0.25, 2.0));
            }
            (Scope::Row, n) if self.has_rows => ["r", "s"][n % 2],
            (Scope::Element, 3) if self.has_rows => "r",
            (Scope::Element | Scope::Column, 4) if self.has_rows => "c",
            (Scope::Column, _) => "c",
            (Scope::GroupColumn, 3 | 4) => ["c", "g"][self.random.below(2)],
            (Scope::GroupColumn, _) => "h",
            (_, 5 | 6) => "other",
            _ => "input",
        };
        (Tree::input(name), Range::new(-4.0, 4.0))
    }
}
