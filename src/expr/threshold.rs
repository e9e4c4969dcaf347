//! Thresholds of a row: numbers that a row's elements are compared with, found step by step.
//!
//! A threshold is one value per row. Its steps are here for the host; `codegen/threshold.rs` spells the same steps in WGSL.

use super::handle::Expr;
use super::node::{Node, Reduce};
use super::op::Real;

/// A threshold of a row. That of a distribution is told relative to the row's largest element `top` so that it keeps its digits at
/// both ends: as a number from −1/2 to below 0 it is τ − top; as one from 0 to 1/2 it is τ − (top − 1), which is small where the
/// distribution is nearly all on one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Threshold {
    /// The τ with Σⱼ max(xⱼ − τ, 0) = 1.
    Sparsemax,
    /// The τ with Σⱼ max(xⱼ/2 − τ, 0)² = 1; relative to top/2.
    Entmax15,
    /// The element of that rank, from 1 on: the largest number that so many elements are at least.
    TopK(u32),
}

impl Threshold {
    /// Most steps of Newton's method. Of a convex piecewise linear function each step divides the product of value and slope by
    /// 4 or more: 64 steps take any row from 2³¹ elements, and a sum of as many, to a rounded 1.
    pub const MOST_STEPS: u32 = 64;

    /// Bits of a number that one step of a search for a rank settles.
    pub const BITS: u32 = 2;

    /// Most trips over the row: of Newton's method one more, which finds the largest element.
    pub fn steps(self) -> u32 {
        match self {
            Threshold::Sparsemax | Threshold::Entmax15 => 1 + Threshold::MOST_STEPS,
            Threshold::TopK(_) => 32 / Threshold::BITS,
        }
    }

    /// How far elements are above the threshold of a distribution (`found`); and that less 1.
    pub(crate) fn above<'g>(self, x: Expr<'g>, found: Expr<'g>) -> [Expr<'g>; 2] {
        let relative = x - x.max().detach();
        let relative = if self == Threshold::Entmax15 { 0.5 * relative } else { relative };
        let (base, gap) = (found.lt(0.0).select(0.0, 1.0), found.lt(0.0).select(1.0, 0.0));
        [(relative + base) - found, (relative - gap) - found]
    }

    /// Whether it is one of a distribution, which rows without a finite largest element have not.
    pub fn is_of_distribution(self) -> bool {
        !matches!(self, Threshold::TopK(_))
    }

    /// The threshold of a row, whose elements it may reorder; NaN if one of them is, or if the row has no distribution.
    pub(crate) fn of<T: Real>(self, x: &mut [T]) -> T {
        if x.iter().any(|x| x.is_nan()) {
            return T::nan();
        }
        let top = x.iter().fold(T::neg_infinity(), |top, &x| if x > top { x } else { top });
        let order = |a: &T, b: &T| b.partial_cmp(a).expect("NaN was looked for");
        match self {
            // Rows of fewer columns are refused before they come here, but those of none.
            Threshold::TopK(k) if (k as usize) > x.len() => T::nan(),
            Threshold::TopK(k) => *x.select_nth_unstable_by(k as usize - 1, order).1,
            _ if !top.is_finite() => T::nan(),
            Threshold::Sparsemax => sparsemax(x, top),
            Threshold::Entmax15 => entmax15(x, top),
        }
    }
}

/// A threshold on its way: `below − base`, relative to the largest element.
struct Newton<T> {
    below: T,
    base: T,
}

impl<T: Real> Newton<T> {
    /// From the left, where sums are 1 or more.
    fn new() -> Newton<T> {
        Newton { below: T::zero(), base: T::one() }
    }

    fn advance(&mut self, step: f64) {
        self.below = self.below + T::of(step);
        if self.base > T::zero() && self.below.to() > 0.5 {
            (self.below, self.base) = (self.below - T::one(), T::zero());
        }
    }

    /// What elements, relative to the largest one, have above the threshold: those below the largest by themselves, and how
    /// many are as large.
    fn above(&self, relative: impl Iterator<Item = T>, mut see: impl FnMut(f64)) -> f64 {
        let mut ties = 0.0;
        for x in relative {
            let rest = (x + self.base) - self.below;
            match x < T::zero() {
                false => ties += 1.0,
                true if rest > T::zero() => see(rest.to()),
                true => {}
            }
        }
        ties
    }
}

/// Newton's method: the elements above the threshold only get fewer.
fn sparsemax<T: Real>(x: &[T], top: T) -> T {
    let (mut at, mut before) = (Newton::new(), f64::INFINITY);
    for _ in 0..Threshold::MOST_STEPS {
        let (mut sum, mut count) = (0.0, 0.0);
        let ties = at.above(x.iter().map(|&x| x - top), |rest| (sum, count) = (sum + rest, count + 1.0));
        let (below, base) = (at.below.to(), at.base.to());
        at.advance((sum + ((ties * base - 1.0) - ties * below)) / (ties + count));
        if ties + count >= before {
            break;
        }
        before = ties + count;
    }
    at.below
}

/// Newton's method of the root of the sum of squares.
fn entmax15<T: Real>(x: &[T], top: T) -> T {
    let mut at = Newton::new();
    for _ in 0..Threshold::MOST_STEPS {
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        let ties = at.above(x.iter().map(|&x| (x - top) * T::of(0.5)), |rest| {
            (sum, squares, count) = (sum + rest, squares + rest * rest, count + 1.0);
        });
        let (below, base) = (at.below.to(), at.base.to());
        // (base − below)² as base − below·(2·base − below), since base is 0 or 1.
        let excess = squares + ((ties * base - 1.0) - ties * below * (2.0 * base - below));
        let (all, sum, root) = (excess + 1.0, sum + ties * (base - below), (excess + 1.0).sqrt());
        let step = root * excess / ((root + 1.0) * sum);
        at.advance(step);
        // After the step the threshold is off by (count − sum²/squares)·step²/(2·sum) at most.
        let off = step * step * ((ties + count) - sum * sum / all) / sum;
        if off <= T::epsilon().to() * at.below.to().abs() {
            break;
        }
    }
    at.below
}

impl<'g> Expr<'g> {
    /// The threshold of a sparsemax: the `τ` of each row with `Σⱼ max(xⱼ − τ, 0) = 1`, one value per row.
    ///
    /// [`sparsemax`](Expr::sparsemax) is what lies above it, and keeps its digits where all elements are large: write
    /// that, not the difference. Its derivative is 1/|S| at the elements `S` above it, 0 elsewhere. Elements of −∞ do not
    /// count; of rows that are all −∞, or hold +∞ or NaN, it is NaN.
    ///
    /// Cost: trips over the row until the elements above no longer get fewer, in practice fewer than ten, at most 65. Rows that
    /// fit in registers are read once all the same, longer ones once per trip. Such a loss cannot be a shard of the classes, and a
    /// row must fit a binding: else [`Error::Unsupported`](crate::Error::Unsupported).
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// let tau = Loss::define("tau").input("x", Scope::Element).row_axis(RowAxis::Last);
    /// let tau = tau.expr(|b| b.input("x").sparsemax_threshold()).reduction(Reduction::Sum);
    /// let out = cpu::forward_backward(&tau, &[("x", HostTensor::f32(&[1.0, 0.5, -2.0], &[1, 3]))], &["x"])?;
    /// assert_eq!((out.loss()?, out.grad("x")?), (0.25, &[0.5, 0.5, 0.0][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn sparsemax_threshold(self) -> Expr<'g> {
        self.max().detach() + relative_to_largest(self.threshold(Threshold::Sparsemax))
    }

    /// The sparsemax of each row: `pⱼ = max(xⱼ − τ, 0)` with `Σⱼ pⱼ = 1`, the distribution nearest to the row. Elements of −∞ have
    /// probability 0. Cost and NaN as [`sparsemax_threshold`](Expr::sparsemax_threshold).
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// let p = Loss::define("p").input("x", Scope::Element).row_axis(RowAxis::Last);
    /// let p = p.expr(|b| b.input("x").sparsemax()).reduction(Reduction::None);
    /// let out = cpu::forward_backward(&p, &[("x", HostTensor::f32(&[1e6, 1e6 - 0.5, 0.0], &[1, 3]))], &[])?;
    /// assert_eq!(out.loss_values()?, [0.75, 0.25, 0.0]);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn sparsemax(self) -> Expr<'g> {
        self.above(Threshold::Sparsemax)[0].relu()
    }

    /// The threshold of an entmax with α = 1.5: the `τ` of each row with `Σⱼ max(xⱼ/2 − τ, 0)² = 1`, one value per row.
    ///
    /// [`entmax15`](Expr::entmax15) is what lies above it, squared. Its derivative is `rⱼ/(2·Σₖ rₖ)` with `rⱼ = max(xⱼ/2 − τ, 0)`.
    /// Cost and NaN as [`sparsemax_threshold`](Expr::sparsemax_threshold).
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// let tau = Loss::define("tau").input("x", Scope::Element).row_axis(RowAxis::Last);
    /// let tau = tau.expr(|b| b.input("x").entmax15_threshold()).reduction(Reduction::Sum);
    /// let out = cpu::forward_backward(&tau, &[("x", HostTensor::f32(&[2.0; 4], &[1, 4]))], &["x"])?;
    /// assert_eq!((out.loss()?, out.grad("x")?), (0.5, &[0.125; 4][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn entmax15_threshold(self) -> Expr<'g> {
        0.5 * self.max().detach() + relative_to_largest(self.threshold(Threshold::Entmax15))
    }

    /// The entmax of each row with α = 1.5: `pⱼ = max(xⱼ/2 − τ, 0)²` with `Σⱼ pⱼ = 1`. Elements of −∞ have probability 0. Cost and
    /// NaN as [`sparsemax_threshold`](Expr::sparsemax_threshold).
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// let p = Loss::define("p").input("x", Scope::Element).row_axis(RowAxis::Last);
    /// let p = p.expr(|b| b.input("x").entmax15()).reduction(Reduction::None);
    /// let out = cpu::forward_backward(&p, &[("x", HostTensor::f32(&[3.0, 3.0, -1.0], &[1, 3]))], &[])?;
    /// assert!(out.loss_values()?.iter().zip([0.5, 0.5, 0.0]).all(|(p, want)| (p - want).abs() < 1e-12));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn entmax15(self) -> Expr<'g> {
        self.above(Threshold::Entmax15)[0].relu().powi(2)
    }

    /// The `k`-th largest element of each row, from 1 on, equal ones counted apart: one value per row. Its gradient goes to the
    /// elements that are equal to it, in equal shares, as that of a maximum does.
    ///
    /// The elements above the threshold `t`, `n` of them, and `(k − n)·t` add up to the `k` largest, whichever of equal elements
    /// these are. A comparison may find more or fewer than `k` at or above it: elements may be equal, and where `x` is computed,
    /// rounding may move them.
    ///
    /// Shapes: a `k` of 0 is an [`Error::Expr`](crate::Error::Expr), one beyond the columns an error of the plan. NaN in the row is
    /// NaN. Cost as [`sparsemax_threshold`](Expr::sparsemax_threshold), with 16 trips over the row.
    ///
    /// ```
    /// use wgloss::{HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
    /// let second = Loss::define("second").input("x", Scope::Element).row_axis(RowAxis::Last);
    /// let second = second.expr(|b| b.input("x").top_k_threshold(2)).reduction(Reduction::Sum);
    /// let out = cpu::forward_backward(&second, &[("x", HostTensor::f32(&[5.0, 7.0, 5.0, 1.0], &[1, 4]))], &["x"])?;
    /// assert_eq!((out.loss()?, out.grad("x")?), (5.0, &[0.5, 0.0, 0.5, 0.0][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn top_k_threshold(self, k: u32) -> Expr<'g> {
        self.threshold(Threshold::TopK(k))
    }

    /// How far elements are above the threshold of a distribution, and that less 1.
    pub(crate) fn above(self, threshold: Threshold) -> [Expr<'g>; 2] {
        threshold.above(self, self.threshold(threshold))
    }

    fn threshold(self, threshold: Threshold) -> Expr<'g> {
        self.graph().add(Node::Reduce(Reduce::Threshold(threshold), self.id))
    }
}

/// The threshold of a distribution less the largest element.
fn relative_to_largest(found: Expr<'_>) -> Expr<'_> {
    found.lt(0.0).select(found, found - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is above a threshold that is told relative to `top`.
    fn total(threshold: Threshold, x: &[f64]) -> f64 {
        let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let found = threshold.of(&mut x.to_vec());
        let base = if found < 0.0 { 0.0 } else { 1.0 };
        let above = |x: &f64| match threshold {
            Threshold::Sparsemax => ((x - top) + base - found).max(0.0),
            _ => (0.5 * (x - top) + base - found).max(0.0).powi(2),
        };
        x.iter().map(above).sum()
    }

    #[test]
    fn rows_that_lose_one_element_a_step_are_done_within_the_bound() {
        // Elements that get ever rarer, and ever denser, towards the largest one.
        let powers = (0..300).map(|k| -(0.9f64.powi(k)));
        let roots = (0..20_000).map(|k| -f64::from(k).sqrt() / 50.0);
        let harmonic = (1..20_000).map(|k| 1.0 / f64::from(k));
        let doubled = (0..60).flat_map(|k| vec![-1.0 + 2f64.powi(-k); 1 << (k / 6)]);
        for x in [powers.collect::<Vec<f64>>(), roots.collect(), harmonic.collect(), doubled.collect()] {
            for threshold in [Threshold::Sparsemax, Threshold::Entmax15] {
                let total = total(threshold, &x);
                assert!((total - 1.0).abs() < 1e-9, "{threshold:?} of {} elements: {total}", x.len());
            }
        }
    }

    #[test]
    fn a_threshold_keeps_its_digits_at_both_ends() {
        // Nearly all on one element: (x₁ + 1)/2 of it is missing.
        let gap = 1e-9f32;
        let found = Threshold::Sparsemax.of(&mut [0.0, -1.0 + 2f32.powi(-20)]);
        assert_eq!(found, 2f32.powi(-21));
        assert!(Threshold::Sparsemax.of(&mut vec![gap; 3000]) == -1.0 / 3000.0);
        assert!((Threshold::Entmax15.of(&mut vec![gap; 4096]) + 1.0 / 64.0).abs() < 1e-8);
        assert!(Threshold::Sparsemax.of(&mut [f32::NEG_INFINITY; 2]).is_nan());
        assert!(Threshold::Entmax15.of(&mut [1.0, f32::NAN]).is_nan());
        assert_eq!(Threshold::TopK(2).of(&mut [1.0, 3.0, 3.0]), 3.0);
    }
}
