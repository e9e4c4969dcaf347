//! The outcome of tuning, as data and in words.

use crate::plan::explain::schedule_text;
use crate::schedule::{PassSchedule, Pinned};
use std::fmt;

/// The outcome of [`Plan::tune`](crate::Plan::tune): the candidates and their times.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tuning {
    /// The clock that the times are by.
    pub clock: TuneClock,
    /// The schedules that were tried, the default first.
    pub candidates: Vec<TuneCandidate>,
    /// Index of the candidate that the plan runs.
    pub chosen: usize,
    /// Why the cache could not keep the outcome, if it could not.
    pub not_kept: Option<String>,
}

/// How candidates were timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TuneClock {
    /// By the GPU, around the compute pass alone.
    Timestamps,
    /// By the host, from submit until the device is idle: the device has no timestamps, or none that make sense.
    Wall,
    /// Not at all: the outcome was in the cache.
    Cache,
}

/// A schedule that was tried.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TuneCandidate {
    /// The fields that it pins.
    pub schedule: Pinned,
    /// Schedule of each pass; empty if the candidate was not planned.
    pub passes: Vec<PassSchedule>,
    /// Median of its runs, in milliseconds; `None` if it was dropped before it was timed.
    pub median_ms: Option<f64>,
    /// That median over the default's median of the same interleaved rounds.
    pub share: Option<f64>,
    /// Runs behind the median.
    pub runs: usize,
    /// Why it was dropped, if it was.
    pub dropped: Option<String>,
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = match self.clock {
            TuneClock::Timestamps => "medians by GPU timestamps",
            TuneClock::Wall => "medians by wall clock (no GPU timestamps here)",
            TuneClock::Cache => "found in the cache, not measured now",
        };
        writeln!(f, "tuned: {clock}; shares of the default's")?;
        for (index, candidate) in self.candidates.iter().enumerate() {
            let mark = if index == self.chosen { '>' } else { ' ' };
            let time = candidate.median_ms.map_or("-".to_owned(), |ms| format!("{ms:.3} ms"));
            let share = candidate.share.map_or(String::new(), |share| format!("{:.0}%", 100.0 * share));
            let runs = format!("{} {}", candidate.runs, if candidate.runs == 1 { "run" } else { "runs" });
            // The pass that takes the longest is most likely the last one.
            let schedule = candidate.passes.last().map_or_else(|| format!("{:?}", candidate.schedule), schedule_text);
            let what = if index == 0 { "default: " } else { "" };
            write!(f, "  {mark} {time:>12} {share:>5}  {runs:<8} {what}{schedule}")?;
            match &candidate.dropped {
                Some(why) => writeln!(f, " (dropped: {why})")?,
                None => writeln!(f)?,
            }
        }
        match &self.not_kept {
            Some(why) => writeln!(f, "  the outcome could not be kept: {why}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Kernel;

    #[test]
    fn the_words_name_clock_medians_and_the_chosen() {
        let pass = |kernel| PassSchedule {
            kernel,
            workgroup: 64,
            lanes: 32,
            subgroup: 0,
            exp2: crate::limits::Exp2::Nothing,
            carries_nan: false,
            width: 4,
            grid: [7, 1],
            alone: false,
            strided: false,
            why: "",
        };
        let candidate = |kernel, ms: Option<f64>, dropped: Option<&str>| TuneCandidate {
            schedule: Pinned { kernel: Some(kernel), ..Pinned::default() },
            passes: vec![pass(kernel)],
            median_ms: ms,
            share: ms.map(|ms| ms / 2.0),
            runs: if ms.is_some() { 9 } else { 0 },
            dropped: dropped.map(str::to_owned),
        };
        let tuning = Tuning {
            clock: TuneClock::Wall,
            candidates: vec![
                candidate(Kernel::Row, Some(2.0), None),
                candidate(Kernel::RowResident { trips: 8 }, Some(1.5), None),
                candidate(Kernel::RowSplit { splits: 4 }, None, Some("the loss is 3, the default's 2")),
            ],
            chosen: 1,
            not_kept: Some("disk full".to_owned()),
        };
        let want = "\
tuned: medians by wall clock (no GPU timestamps here); shares of the default's
        2.000 ms  100%  9 runs   default: streamed rows; workgroup 64, 32 lanes a row, width 4, no subgroups, grid 7 x 1
  >     1.500 ms   75%  9 runs   resident rows, 8 loads a lane; workgroup 64, 32 lanes a row, width 4, no subgroups, grid 7 x 1
               -        0 runs   rows split over 4 workgroups; workgroup 64, 32 lanes a row, width 4, no subgroups, grid 7 x 1 (dropped: the loss is 3, the default's 2)
  the outcome could not be kept: disk full
";
        assert_eq!(tuning.to_string(), want);
    }
}
