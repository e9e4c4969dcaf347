//! States of row reductions: their identities, how blocks and columns are added, and the values they give.

use super::code::Reduction;
use super::lanes::{self, Online};
use super::machine::{HostFloat, LANES, Machine, Spot};
use crate::expr::{Reduce, Threshold};

/// The states of one reduction, one per row of a tile.
pub enum State<T> {
    Sum(Vec<f64>),
    Max(Vec<T>),
    Min(Vec<T>),
    ArgMax(Vec<T>, Vec<i64>),
    ExpSumRest(Vec<T>, Vec<f64>),
    /// The elements so far.
    Threshold(Threshold, Vec<Vec<T>>),
}

impl<T: HostFloat> State<T> {
    pub fn new(reduce: Reduce) -> State<T> {
        let values = || vec![T::zero(); LANES];
        match reduce {
            Reduce::Sum => State::Sum(vec![0.0; LANES]),
            Reduce::Max => State::Max(values()),
            Reduce::Min => State::Min(values()),
            Reduce::ArgMax => State::ArgMax(values(), vec![0; LANES]),
            Reduce::ExpSumRest => State::ExpSumRest(values(), vec![0.0; LANES]),
            Reduce::Threshold(threshold) => State::Threshold(threshold, vec![Vec::new(); LANES]),
            Reduce::LogSumExpShifted => unreachable!("lowering leaves log1p(ExpSumRest) of it"),
        }
    }

    pub fn reset(&mut self, rows: usize) {
        match self {
            State::Sum(sum) => sum[..rows].fill(0.0),
            State::Max(max) => max[..rows].fill(T::neg_infinity()),
            State::Min(min) => min[..rows].fill(T::infinity()),
            State::ArgMax(max, at) => {
                max[..rows].fill(T::neg_infinity());
                at[..rows].fill(0);
            }
            State::ExpSumRest(max, rest) => {
                let empty = Online::empty();
                max[..rows].fill(empty.max);
                rest[..rows].fill(empty.rest);
            }
            State::Threshold(_, elements) => elements[..rows].iter_mut().for_each(Vec::clear),
        }
    }

    /// One block of a row, or one column of all rows.
    pub fn add(&mut self, values: &[T], spot: Spot) {
        match spot.along {
            Some(row) => self.add_block(row, values, spot.col),
            None => self.add_column(values, spot.col),
        }
    }

    fn add_block(&mut self, row: usize, values: &[T], col: usize) {
        match self {
            State::Sum(sum) => sum[row] += lanes::sum(values),
            State::Max(max) => max[row] = max[row].max(lanes::max(values)),
            State::Min(min) => min[row] = min[row].min(lanes::min(values)),
            State::ArgMax(max, at) => {
                let best = lanes::max(values);
                if best > max[row] {
                    max[row] = best;
                    let index = values
                        .iter()
                        .position(|x| *x == best)
                        .expect("a maximum above another number is one of the values");
                    at[row] = (col + index) as i64;
                }
            }
            State::ExpSumRest(max, rest) => {
                let so_far = Online { max: max[row], rest: rest[row] };
                Online { max: max[row], rest: rest[row] } = so_far.join(Online::of(values));
            }
            State::Threshold(_, elements) => elements[row].extend_from_slice(values),
        }
    }

    fn add_column(&mut self, values: &[T], col: usize) {
        match self {
            State::Sum(sum) => sum.iter_mut().zip(values).for_each(|(sum, x)| *sum += x.to()),
            State::Max(max) => max.iter_mut().zip(values).for_each(|(max, &x)| *max = if x > *max { x } else { *max }),
            State::Min(min) => min.iter_mut().zip(values).for_each(|(min, &x)| *min = if x < *min { x } else { *min }),
            State::ArgMax(max, at) => {
                for ((max, at), &x) in max.iter_mut().zip(at).zip(values) {
                    *at = if x > *max { col as i64 } else { *at };
                    *max = if x > *max { x } else { *max };
                }
            }
            State::ExpSumRest(max, rest) => lanes::online_step(values, max, rest),
            State::Threshold(_, elements) => elements.iter_mut().zip(values).for_each(|(all, &x)| all.push(x)),
        }
    }

    /// Writes the values to their registers; NaN where a softmax is not defined.
    pub fn finish(&mut self, reduction: &Reduction, rows: usize, machine: &mut Machine<'_, '_, T>) {
        let out = reduction.out;
        match self {
            State::Sum(sum) => machine.set_floats(out, sum[..rows].iter().map(|s| T::of(*s))),
            State::Max(best) | State::Min(best) => machine.set_floats(out, best[..rows].iter().copied()),
            State::ArgMax(_, at) => machine.set_ints(out, &at[..rows]),
            State::ExpSumRest(max, rest) => {
                let defined = |lane: usize| Online { max: max[lane], rest: rest[lane] }.is_defined();
                let value = |lane: usize, x: T| if defined(lane) { x } else { T::nan() };
                machine.set_floats(out, (0..rows).map(|lane| value(lane, T::of(rest[lane]))));
                if let Some(max_out) = reduction.max_out {
                    machine.set_floats(max_out, (0..rows).map(|lane| value(lane, max[lane])));
                }
            }
            State::Threshold(threshold, elements) => {
                machine.set_floats(out, elements[..rows].iter_mut().map(|row| threshold.of(row)));
            }
        }
    }
}
