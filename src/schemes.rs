//! Weights of several losses over the course of training: schedules, dynamic weight averaging, stages.
//!
//! Numbers on the host, a few per step or epoch. They reach a plan as [`set_param`](crate::Bound::set_param) (the weights of
//! a sum are parameters) or as scalars on the GPU ([`Loss::scaled_by`](crate::Loss::scaled_by)). Weights that are learned
//! need nothing here: [`Loss::with_uncertainty`](crate::Loss::with_uncertainty) has a gradient for each.

use crate::error::{Error, Result};

/// How a number goes from one value to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Course {
    /// By the same amount per step.
    Linear,
    /// Along half a cosine: slowly at both ends.
    Cosine,
    /// By the same factor per step.
    Exponential,
}

/// A number that goes from one value to another over some steps, and stays there: a loss's weight, γ, a temperature.
///
/// `f(t) = a + (b − a)·t/n` (linear), `a + (b − a)·(1 − cos(π·t/n))/2` (cosine), or `a·(b/a)^(t/n)` (exponential), with
/// `t` the steps since the first, from 0 to `n`.
///
/// ```
/// use wgloss::schemes::{Course, Schedule};
/// let weight = Schedule::new(0.0, 1.0, 100, Course::Linear)?.after(50);
/// assert_eq!([0, 50, 75, 150, 9999].map(|step| weight.at(step)), [0.0, 0.0, 0.25, 1.0, 1.0]);
/// // Every step: bound.set_param("l1.weight", weight.at(step))?
/// # Ok::<(), wgloss::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    from: f64,
    to: f64,
    first: usize,
    steps: usize,
    course: Course,
}

impl Schedule {
    /// From one value to the other in so many steps.
    ///
    /// # Errors
    /// [`Error::Param`] unless both are finite, `steps` > 0, and for [`Course::Exponential`] both > 0.
    pub fn new(from: f64, to: f64, steps: usize, course: Course) -> Result<Schedule> {
        let is_positive = course == Course::Exponential;
        let allowed = if is_positive { "finite and > 0" } else { "finite" };
        for (name, value) in [("from", from), ("to", to)] {
            if !value.is_finite() || is_positive && value <= 0.0 {
                return Err(wrong("schedule", name, value, allowed));
            }
        }
        if steps == 0 {
            return Err(wrong("schedule", "steps", 0.0, "> 0"));
        }
        Ok(Schedule { from, to, first: 0, steps, course })
    }

    /// The same from step `first` on; before, it has its first value.
    #[must_use]
    pub fn after(self, first: usize) -> Schedule {
        Schedule { first, ..self }
    }

    /// The value at a step, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        let Schedule { from, to, first, steps, course } = *self;
        let share = step.saturating_sub(first).min(steps) as f64 / steps as f64;
        match course {
            _ if share == 1.0 => to,
            Course::Linear => from + (to - from) * share,
            Course::Cosine => from + (to - from) * (1.0 - (std::f64::consts::PI * share).cos()) / 2.0,
            Course::Exponential => from * (to / from).powf(share),
        }
    }
}

/// Dynamic weight averaging: tasks whose loss falls slowly get more weight.
///
/// `wₖ = K·exp(rₖ/T)/Σᵢ exp(rᵢ/T)`, with `rₖ = Lₖ(t − 1)/Lₖ(t − 2)` of the last two epochs; all weights are 1 in the first
/// two. They add up to `K`, the number of tasks.
///
/// Source: Liu, Johns and Davison (2019), MTAN, arXiv:1803.10704.
///
/// ```
/// use wgloss::schemes::DynamicWeightAverage;
/// let mut average = DynamicWeightAverage::new(2, 2.0)?;
/// assert_eq!(average.weights(), [1.0, 1.0]);
/// average.observe(&[1.0, 1.0])?;
/// average.observe(&[0.5, 1.0])?;      // the second task has not learned anything
/// let weights = average.weights();
/// assert!((weights[1] / weights[0] - 0.25f64.exp()).abs() < 1e-12 && (weights[0] + weights[1] - 2.0).abs() < 1e-12);
/// // bound.set_param("mse.weight", weights[0])?; bound.set_param("l1.weight", weights[1])?
/// # Ok::<(), wgloss::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicWeightAverage {
    tasks: usize,
    temperature: f64,
    /// The mean losses of the last two epochs, the last one first; empty before.
    epochs: [Vec<f64>; 2],
}

impl DynamicWeightAverage {
    /// Of so many tasks. A higher temperature makes the weights more even; the paper takes 2.
    ///
    /// # Errors
    /// [`Error::Param`] unless there is a task, and `temperature` is finite and > 0.
    pub fn new(tasks: usize, temperature: f64) -> Result<DynamicWeightAverage> {
        if tasks == 0 {
            return Err(wrong("dynamic weight averaging", "tasks", 0.0, "> 0"));
        }
        if !temperature.is_finite() || temperature <= 0.0 {
            return Err(wrong("dynamic weight averaging", "temperature", temperature, "finite and > 0"));
        }
        Ok(DynamicWeightAverage { tasks, temperature, epochs: [Vec::new(), Vec::new()] })
    }

    /// Takes the mean loss of each task over an epoch, before its weight.
    ///
    /// # Errors
    /// [`Error::Param`] unless there is one per task, each finite and > 0: a ratio of others says nothing.
    pub fn observe(&mut self, losses: &[f64]) -> Result<()> {
        if losses.len() != self.tasks {
            let allowed = format!("{}, one per task", self.tasks);
            return Err(wrong("dynamic weight averaging", "the number of losses", losses.len() as f64, &allowed));
        }
        if let Some(loss) = losses.iter().find(|loss| !loss.is_finite() || **loss <= 0.0) {
            return Err(wrong("dynamic weight averaging", "a loss", *loss, "finite and > 0"));
        }
        self.epochs.swap(0, 1);
        self.epochs[0] = losses.to_vec();
        Ok(())
    }

    /// The weight of each task.
    pub fn weights(&self) -> Vec<f64> {
        let [last, before] = &self.epochs;
        if before.is_empty() {
            return vec![1.0; self.tasks];
        }
        let rates: Vec<f64> = last.iter().zip(before).map(|(last, before)| last / before / self.temperature).collect();
        let largest = rates.iter().copied().fold(f64::MIN, f64::max);
        let shares: Vec<f64> = rates.iter().map(|rate| (rate - largest).exp()).collect();
        let sum: f64 = shares.iter().sum();
        shares.into_iter().map(|share| self.tasks as f64 * share / sum).collect()
    }
}

/// Staged (cascaded) training: one thing after another, each for some steps, the last one for good. What a stage holds is
/// the caller's: a bound plan, a set of weights.
///
/// A loss with weight 0 still reads its inputs, and 0·∞ is NaN; a plan per stage does neither.
///
/// ```
/// use wgloss::{losses, schemes::Stages};
/// // Coarse first, then fine: in a training loop, plans bound to the same buffers.
/// let stages = Stages::new(losses::mse()).then(1000, losses::l1()).then(500, 0.5 * losses::mse() + losses::l1());
/// assert_eq!([0, 999, 1000, 1499, 1500].map(|step| stages.at(step).name()), ["mse", "mse", "l1", "l1", "0.5*mse + l1"]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Stages<T> {
    first: T,
    /// The step that each later stage begins at.
    later: Vec<(usize, T)>,
}

impl<T> Stages<T> {
    /// Begins with this stage.
    pub fn new(first: T) -> Stages<T> {
        Stages { first, later: Vec::new() }
    }

    /// After so many steps of the stage before, this one.
    #[must_use]
    pub fn then(mut self, after: usize, stage: T) -> Stages<T> {
        let begun = self.later.last().map_or(0, |(begins, _)| *begins);
        self.later.push((begun.saturating_add(after), stage));
        self
    }

    /// The stage of a step, counted from 0.
    pub fn at(&self, step: usize) -> &T {
        let begun = self.later.partition_point(|(begins, _)| *begins <= step);
        begun.checked_sub(1).map_or(&self.first, |last| &self.later[last].1)
    }
}

fn wrong(scheme: &str, param: &str, found: f64, allowed: &str) -> Error {
    let (loss, param, found) = (scheme.to_owned(), param.to_owned(), found.to_string());
    Error::Param { loss, param, found, allowed: allowed.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_begin_and_end_where_they_say() {
        for course in [Course::Linear, Course::Cosine, Course::Exponential] {
            let schedule = Schedule::new(0.1, 0.7, 7, course).unwrap().after(3);
            assert_eq!([0, 3, 10, 11].map(|step| schedule.at(step)), [0.1, 0.1, 0.7, 0.7], "{course:?}");
            let all: Vec<f64> = (3..11).map(|step| schedule.at(step)).collect();
            assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{course:?}: {all:?}");
        }
        let half = |course| Schedule::new(1.0, 4.0, 2, course).unwrap().at(1);
        assert_eq!([Course::Linear, Course::Exponential].map(half), [2.5, 2.0]);
        assert!((half(Course::Cosine) - 2.5).abs() < 1e-15);
    }

    #[test]
    fn what_makes_no_scheme_is_an_error() {
        let refused = |error: Error, name: &str| assert!(matches!(&error, Error::Param { param, .. } if param == name));
        refused(Schedule::new(f64::NAN, 1.0, 1, Course::Linear).unwrap_err(), "from");
        refused(Schedule::new(0.0, f64::INFINITY, 1, Course::Cosine).unwrap_err(), "to");
        refused(Schedule::new(0.0, 1.0, 1, Course::Exponential).unwrap_err(), "from");
        refused(Schedule::new(0.0, 1.0, 0, Course::Linear).unwrap_err(), "steps");
        refused(DynamicWeightAverage::new(0, 2.0).unwrap_err(), "tasks");
        refused(DynamicWeightAverage::new(2, 0.0).unwrap_err(), "temperature");
        let mut average = DynamicWeightAverage::new(2, 2.0).unwrap();
        refused(average.observe(&[1.0]).unwrap_err(), "the number of losses");
        refused(average.observe(&[1.0, 0.0]).unwrap_err(), "a loss");
        refused(average.observe(&[f64::NAN, 1.0]).unwrap_err(), "a loss");
        assert_eq!(average, DynamicWeightAverage::new(2, 2.0).unwrap(), "nothing is taken of what was refused");
    }

    #[test]
    fn dynamic_weights_are_of_the_last_two_epochs() {
        let mut average = DynamicWeightAverage::new(3, 0.5).unwrap();
        average.observe(&[9.0, 9.0, 9.0]).unwrap();
        assert_eq!(average.weights(), [1.0; 3]);
        average.observe(&[1.0, 2.0, 4.0]).unwrap();
        average.observe(&[1.0, 1.0, 1.0]).unwrap();
        let shares = [1.0, 0.5, 0.25].map(|ratio: f64| (ratio / 0.5).exp());
        let sum: f64 = shares.iter().sum();
        for (weight, share) in average.weights().into_iter().zip(shares) {
            assert!((weight - 3.0 * share / sum).abs() < 1e-14);
        }
        // Ratios of thousands: no exponential overflows.
        average.observe(&[1e6, 1.0, 1.0]).unwrap();
        assert_eq!(average.weights(), [3.0, 0.0, 0.0]);
    }
}
