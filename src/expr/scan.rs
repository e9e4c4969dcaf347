//! Scans: each element becomes a sum over the elements of its row up to it, in the order of a direction.
//!
//! A scan is one value per element. Its laws (identity, combination of what two runs of columns leave) are here for the
//! host; `codegen/row/scans.rs` spells the same laws in WGSL.

use super::handle::Expr;
use super::node::{Node, NodeId};
use super::op::Real;
use super::operand::IntoExpr;

/// The order in which a scan visits the columns of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From column 0 on.
    Forward,
    /// From the last column on.
    Reverse,
}

impl Direction {
    /// The other order.
    ///
    /// ```
    /// assert_eq!(wgloss::Direction::Forward.opposite(), wgloss::Direction::Reverse);
    /// ```
    pub fn opposite(self) -> Direction {
        match self {
            Direction::Forward => Direction::Reverse,
            Direction::Reverse => Direction::Forward,
        }
    }
}

/// What a scan leaves at each column. "Before" is in the order of its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scan {
    /// yⱼ = xⱼ + y of the column before.
    Sum,
    /// yⱼ = ln(exp xⱼ + exp y of the column before); −∞ of elements that are all −∞.
    LogSumExp,
    /// yⱼ = xⱼ + dⱼ · y of the column before, with a decay d; the first is x itself.
    Linear,
    /// yⱼ = xⱼ + exp(lⱼ − l of the column before) · y of the column before, with levels l that do not ascend: products of
    /// decays would gather the roundings of all columns, a difference of levels has one. Gradients alone hold it.
    Decay,
    /// yⱼ = x of the column before; 0 at the first.
    Shift,
}

impl Scan {
    /// Scans the elements of a row in place; sums are in f64. `decay` is asked for the decay, or the level, at a column.
    pub(crate) fn run<T: Real>(self, direction: Direction, x: &mut [T], decay: impl Fn(usize) -> T) {
        let mut before = State { most: f64::NEG_INFINITY, value: 0.0 };
        let columns = 0..x.len();
        let mut step = |column: usize| x[column] = T::of(before.add(self, x[column].to(), || decay(column).to()));
        match direction {
            Direction::Forward => columns.for_each(&mut step),
            Direction::Reverse => columns.rev().for_each(&mut step),
        }
    }
}

/// What a scan carries from column to column: of a `LogSumExp`, the largest element and the sum of exponentials relative
/// to it; of a `Decay`, the level of the column and a number; of the others, a number.
struct State {
    most: f64,
    value: f64,
}

impl State {
    /// Adds an element, and returns what the scan leaves at its column.
    fn add(&mut self, scan: Scan, x: f64, decay: impl Fn() -> f64) -> f64 {
        match scan {
            Scan::Sum => self.value += x,
            // Nothing is left of 0, whatever the decay is.
            Scan::Linear if self.value == 0.0 => self.value = x,
            Scan::Linear => self.value = x + decay() * self.value,
            Scan::Decay => {
                let level = decay();
                self.value = x + (level - self.most).min(0.0).exp() * self.value;
                self.most = level;
            }
            Scan::Shift => return std::mem::replace(&mut self.value, x),
            Scan::LogSumExp => {
                if x > self.most {
                    self.value = self.value * (self.most - x).exp() + 1.0;
                    self.most = x;
                } else if x != f64::NEG_INFINITY {
                    self.value += (x - self.most).exp();
                }
                return self.most + self.value.ln();
            }
        }
        self.value
    }
}

impl<'g> Expr<'g> {
    /// The cumulative sum along the row: `yⱼ = Σ xₖ` over the columns up to `j` in this direction, `j` included. One value per
    /// element; a value further out counts at every column. The gradient is the cumulative sum of the adjoint in the other
    /// direction.
    ///
    /// A NaN that a scan reads poisons what is computed from the scan in its whole row, also at columns before it.
    ///
    /// Cost: rows that fit in registers are read and written once; longer ones are read once for each scan and once for what is
    /// stored, and leave 4 bytes per element and scan in a workspace that caches hold. Such a loss cannot be a shard of
    /// the classes, and a row must fit a binding: else [`Error::Unsupported`](crate::Error::Unsupported).
    ///
    /// ```
    /// use wgloss::{Direction, HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// // Squared distance of two cumulative distributions.
    /// let cramer = Loss::define("cramer").input("p", Scope::Element).input("q", Scope::Element).row_axis(RowAxis::Last);
    /// let cramer = cramer.expr(|b| (b.input("p") - b.input("q")).scan_sum(Direction::Forward).powi(2).sum());
    /// let (p, q) = ([0.5f32, 0.5, 0.0], [0.0f32, 0.5, 0.5]);
    /// let inputs = [("p", HostTensor::f32(&p, &[1, 3])), ("q", HostTensor::f32(&q, &[1, 3]))];
    /// let out = cpu::forward_backward(&cramer.reduction(Reduction::Sum), &inputs, &["p"])?;
    /// assert_eq!((out.loss()?, out.grad("p")?), (0.5, &[2.0, 1.0, 0.0][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn scan_sum(self, direction: Direction) -> Expr<'g> {
        self.scan(Scan::Sum, direction, None)
    }

    /// The logarithm of a cumulative sum of exponentials along the row: `yⱼ = ln Σ exp xₖ` over the columns up to `j` in this
    /// direction, `j` included. Exponentials are of differences from the largest value so far, so that none overflows. Of
    /// elements that are −∞ it is −∞, with gradient 0. Cost and NaN as [`Expr::scan_sum`].
    ///
    /// ```
    /// use wgloss::{Direction, HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// let last = Loss::define("last").input("x", Scope::Element).row_axis(RowAxis::Last);
    /// let last = last.expr(|b| b.input("x").scan_logsumexp(Direction::Reverse).column(0));
    /// let inputs = [("x", HostTensor::f32(&[0.0, 0.0, 0.0, 0.0], &[1, 4]))];
    /// let out = cpu::forward_backward(&last.reduction(Reduction::Sum), &inputs, &["x"])?;
    /// assert!((out.loss()? - 4f64.ln()).abs() < 1e-12 && (out.grad("x")?[3] - 0.25).abs() < 1e-12);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn scan_logsumexp(self, direction: Direction) -> Expr<'g> {
        self.scan(Scan::LogSumExp, direction, None)
    }

    /// The linear recurrence along the row: `yⱼ = xⱼ + dⱼ · y` of the column before in this direction, with a decay `d` of any
    /// scope; the first `y` is `x`. Where the `y` before is 0, so is its multiple. Cost and NaN as [`Expr::scan_sum`], which it
    /// is for `d = 1`.
    ///
    /// ```
    /// use wgloss::{Direction, HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// // Generalised advantages (GAE) of [episodes, steps]: A = δ + γλ·A of the step after, δ = r + γ·V of the step after − V;
    /// // after the last step V is 0.
    /// let (gamma, lambda) = (0.5, 0.5);
    /// let gae = Loss::define("gae").input("reward", Scope::Element).input("value", Scope::Element).row_axis(RowAxis::Last);
    /// let gae = gae.expr(move |b| {
    ///     let (reward, value) = (b.input("reward"), b.input("value"));
    ///     let delta = reward + gamma * value.shift(Direction::Reverse) - value;
    ///     delta.scan_linear(gamma * lambda, Direction::Reverse)
    /// });
    /// let of = |values: &'static [f32]| HostTensor::f32(values, &[1, 3]);
    /// let inputs = [("reward", of(&[0.0, 0.0, 8.0])), ("value", of(&[1.0, 2.0, 4.0]))];
    /// let out = cpu::forward_backward(&gae.reduction(Reduction::None), &inputs, &["reward"])?;
    /// assert_eq!((out.loss_values()?, out.grad("reward")?), (&[0.25, 1.0, 4.0][..], &[1.0, 1.25, 1.3125][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn scan_linear(self, decay: impl IntoExpr<'g>, direction: Direction) -> Expr<'g> {
        let decay = decay.into_expr(self.graph());
        self.scan(Scan::Linear, direction, Some(decay))
    }

    /// The value at the column before in this direction; 0 at the first. A scan less this is that scan without the element's
    /// own value. Cost and NaN as [`Expr::scan_sum`].
    ///
    /// ```
    /// use wgloss::{Direction, HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// // Total variation along a row, from 0 on.
    /// let variation = Loss::define("variation").input("x", Scope::Element).row_axis(RowAxis::Last);
    /// let variation = variation.expr(|b| (b.input("x") - b.input("x").shift(Direction::Forward)).abs().sum());
    /// let inputs = [("x", HostTensor::f32(&[1.0, 3.0, 2.0], &[1, 3]))];
    /// assert_eq!(cpu::forward_backward(&variation.reduction(Reduction::Sum), &inputs, &[])?.loss()?, 4.0);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn shift(self, direction: Direction) -> Expr<'g> {
        self.scan(Scan::Shift, direction, None)
    }

    /// The scan in which the level of a column decides what is left there of the columns before: see [`Scan::Decay`].
    pub(super) fn scan_decay(self, level: Expr<'g>, direction: Direction) -> Expr<'g> {
        self.scan(Scan::Decay, direction, Some(level))
    }

    fn scan(self, scan: Scan, direction: Direction, decay: Option<Expr<'g>>) -> Expr<'g> {
        let decay = decay.map_or(NodeId::NONE, |decay| decay.id);
        self.graph().add(Node::Scan(scan, direction, [self.id, decay]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(scan: Scan, direction: Direction, x: &[f64], decay: f64) -> Vec<f64> {
        let mut x = x.to_vec();
        scan.run(direction, &mut x, |_| decay);
        x
    }

    #[test]
    fn scans_follow_their_direction() {
        use Direction::{Forward, Reverse};
        assert_eq!(scanned(Scan::Sum, Forward, &[1.0, 2.0, 4.0], 0.0), [1.0, 3.0, 7.0]);
        assert_eq!(scanned(Scan::Sum, Reverse, &[1.0, 2.0, 4.0], 0.0), [7.0, 6.0, 4.0]);
        assert_eq!(scanned(Scan::Linear, Forward, &[1.0, 2.0, 4.0], 0.5), [1.0, 2.5, 5.25]);
        assert_eq!(scanned(Scan::Shift, Reverse, &[1.0, 2.0, 4.0], 0.0), [2.0, 4.0, 0.0]);
    }

    #[test]
    fn sums_of_exponentials_keep_large_and_missing_elements() {
        let none = f64::NEG_INFINITY;
        let found = scanned(Scan::LogSumExp, Direction::Forward, &[none, 1e4, none, 1e4], 0.0);
        assert_eq!(found, [none, 1e4, 1e4, 1e4 + 2f64.ln()]);
    }

    #[test]
    fn a_decay_of_nothing_does_not_count() {
        assert_eq!(scanned(Scan::Linear, Direction::Forward, &[0.0, 3.0], f64::INFINITY), [0.0, 3.0]);
    }
}
