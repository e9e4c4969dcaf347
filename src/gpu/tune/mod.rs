//! The fastest of a plan's schedules, found by measuring.

mod agree;
mod cache;
mod rig;

pub use cache::TuneCache;

use crate::error::Result;
use crate::gpu::bound::Bound;
use crate::gpu::plan::{Inner, Plan};
use crate::gpu::tune::cache::{Kept, Key, fnv};
use crate::gpu::tune::rig::Trial;
use crate::plan::operator::TuneFacts;
use crate::plan::tuning::{TuneCandidate, TuneClock, Tuning};
use crate::schedule::{PassSchedule, Pinned};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A candidate replaces the default if it takes less than this share of the default's time.
const FASTER: f64 = 0.97;
/// A candidate that takes more than this multiple of the fastest time is measured no further.
const SLOW: f64 = 2.0;
/// Fewest runs before a candidate counts as slow: on a busy machine one run may be disturbed.
const SURE: usize = 2;
/// Candidates that are measured again, beside the default, before one of them is chosen.
const FINALISTS: usize = 3;
/// Most bytes of kept gradients, for all candidates together.
const KEPT_BYTES: u64 = 1 << 30;

/// Longest budget: with it, every deadline is in the clock's range.
const LONGEST_BUDGET: Duration = Duration::from_secs(365 * 24 * 3600);

/// How [`Plan::tune`] measures.
#[derive(Clone, Debug)]
#[must_use]
pub struct TuneOptions {
    repetitions: usize,
    most: usize,
    budget: Duration,
    cache: Option<TuneCache>,
}

impl Default for TuneOptions {
    fn default() -> TuneOptions {
        TuneOptions { repetitions: 9, most: usize::MAX, budget: Duration::from_secs(30), cache: None }
    }
}

impl TuneOptions {
    /// All candidates, nine repetitions, at most 30 seconds, no cache.
    pub fn new() -> TuneOptions {
        TuneOptions::default()
    }

    /// Interleaved runs of each candidate; at least three.
    pub fn repetitions(mut self, repetitions: usize) -> TuneOptions {
        self.repetitions = repetitions.max(3);
        self
    }

    /// Most candidates beside the default; the nearest to it are taken.
    pub fn candidates(mut self, most: usize) -> TuneOptions {
        self.most = most;
        self
    }

    /// Time after which no further candidate is compiled, and repetitions stop at three.
    pub fn budget(mut self, budget: Duration) -> TuneOptions {
        self.budget = budget;
        self
    }

    /// Where the outcome is looked up first, and kept.
    pub fn cache(mut self, cache: TuneCache) -> TuneOptions {
        self.cache = Some(cache);
        self
    }
}

/// A candidate whose outputs agree with the default's, and its times.
struct Contender {
    /// Index of the candidate.
    index: usize,
    bound: Bound,
    samples: Vec<f64>,
}

impl Contender {
    fn quantile(&self, share: f64) -> f64 {
        quantile(&self.samples, share)
    }
}

impl Plan {
    /// The same plan with the fastest schedule for this device, found by measuring. Blocks, for a second or so on a
    /// GPU; longer on software adapters, which take seconds to compile a kernel.
    ///
    /// Up to 24 candidates (see [`schedule::candidates`](crate::schedule::candidates)) run on tensors of the planned
    /// shapes that are made for this and dropped afterwards, so the memory of the plan's tensors is needed once more;
    /// nothing of the caller's is touched. A candidate whose outputs differ from the default's by more than twice the
    /// promised accuracy is dropped. The others run in interleaved rounds, timed by GPU timestamps where the device has
    /// them (a device of the caller's needs `Features::TIMESTAMP_QUERY`; [`Context::new`](crate::Context::new) asks for
    /// it), else by wall clock from submit to idle. The three fastest and the default run again, and only these
    /// second runs count: the default is replaced by the one with the lowest median if that is more than 3% below the
    /// default's, and so are three of four of its runs. In-place and accumulating plans start each run from the same
    /// values.
    ///
    /// Bits may differ between schedules, within the promised accuracy. Pinned fields
    /// ([`PlanSpec::pin`](crate::PlanSpec::pin)) stay as they are; bound tensors whose alignment rules the tuned schedule
    /// out get the default. [`Plan::tuning`] and [`Plan::explain`] report the measurements. With a [`TuneCache`], a known
    /// outcome is used without measuring. A device that was given without its adapter is tuned each time; a file that
    /// cannot be written is no error: [`Tuning::not_kept`] says why.
    ///
    /// ```no_run
    /// use wgloss::{Context, DType, PlanSpec, TuneCache, TuneOptions, losses};
    /// # fn main() -> wgloss::Result<()> {
    /// let ctx = Context::new()?;
    /// let spec = PlanSpec::new().input("input", DType::F32, &[8192, 1000]).input("target", DType::I32, &[8192]);
    /// let mut options = TuneOptions::new();
    /// if let Some(cache) = TuneCache::open_default() {
    ///     options = options.cache(cache);
    /// }
    /// let plan = ctx.plan(&losses::cross_entropy(), &spec.grad("input"))?.tune(&options)?;
    /// println!("{}", plan.explain());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::Limit`](crate::Error::Limit) and
    /// [`Error::Device`](crate::Error::Device) of the default schedule; what goes wrong with another drops it.
    /// [`Error::Unsupported`](crate::Error::Unsupported) for a shard of the classes, which does not run by itself, and for a
    /// plan of no rows.
    pub fn tune(&self, options: &TuneOptions) -> Result<Plan> {
        let inner = &self.inner;
        let pinned = inner.prepared.pinned();
        let schedules = inner.prepared.candidates()?;
        // Without the outcome of an earlier tuning.
        let plain = Plan { inner: Arc::new(inner.scheduled(pinned, None)?) };
        let kept_in = options.cache.as_ref().zip(plain.key()?);
        if let Some(plan) = kept_in.as_ref().and_then(|(cache, key)| plain.known(cache, key)) {
            return Ok(plan);
        }
        let inner = &plain.inner;
        let ready = inner.ready(inner.prepared.planned()?, inner.conditions(false))?;
        let kept: u64 = ready.planned.kept.iter().map(|kept| kept.bytes).fold(0, u64::saturating_add);
        let most = (KEPT_BYTES / kept.max(1)).clamp(2, schedules.len().max(2) as u64);
        let schedules = &schedules[..schedules.len().min(most as usize).min(options.most.saturating_add(1))];
        let mut tuning = plain.measure(schedules, options)?;
        let chosen = tuning.candidates[tuning.chosen].schedule;
        if let Some((cache, key)) = kept_in {
            let ms =
                |index: usize| tuning.candidates[index].median_ms.expect("the default and the chosen are measured");
            let kept = Kept { schedule: chosen, default_ms: ms(0), ms: ms(tuning.chosen) };
            tuning.not_kept = cache.put(&key, &kept).err().map(|error| format!("{}: {error}", cache.path().display()));
        }
        Ok(Plan { inner: Arc::new(inner.scheduled(pinned, Some((chosen, tuning)))?) })
    }

    /// The plan with the schedule that the cache knows, if these shapes can take it.
    fn known(&self, cache: &TuneCache, key: &Key) -> Option<Plan> {
        let Kept { schedule, default_ms, ms } = cache.get(key)?;
        let inner = &self.inner;
        let pinned = inner.prepared.pinned();
        let mut all = vec![(pinned, default_ms)];
        all.extend((schedule != pinned).then_some((schedule, ms)));
        let candidate = |(schedule, ms): &(Pinned, f64)| {
            let passes =
                inner.scheduled(*schedule, None).and_then(|other| Plan { inner: Arc::new(other) }.schedules()).ok()?;
            Some(TuneCandidate {
                schedule: *schedule,
                passes,
                median_ms: Some(*ms),
                share: Some(ms / default_ms),
                runs: 0,
                dropped: None,
            })
        };
        let candidates: Vec<TuneCandidate> = all.iter().map(candidate).collect::<Option<_>>()?;
        let tuning = Tuning { clock: TuneClock::Cache, chosen: candidates.len() - 1, candidates, not_kept: None };
        let inner = inner.scheduled(pinned, Some((schedule, tuning))).ok()?;
        Some(Plan { inner: Arc::new(inner) })
    }

    fn schedules(&self) -> Result<Vec<PassSchedule>> {
        self.inner.prepared.schedules()
    }

    /// The cache's key for the outcome; `None` if the adapter is unknown.
    fn key(&self) -> Result<Option<Key>> {
        let Inner { ctx, prepared, .. } = &*self.inner;
        let Some(adapter) = ctx.adapter_key() else { return Ok(None) };
        let TuneFacts { rows, cols, tensors, alignment, kernels } = prepared.tune_facts()?;
        Ok(Some(Key {
            adapter,
            limits: ctx.limits().clone(),
            program: prepared.signature().name.clone(),
            kernels: fnv(kernels.iter().map(String::as_bytes)),
            rows,
            cols,
            tensors,
            alignment,
            pinned: prepared.pinned(),
        }))
    }

    /// Compiles, checks and times the candidates; the first is the default.
    fn measure(&self, schedules: &[Pinned], options: &TuneOptions) -> Result<Tuning> {
        let budget = options.budget.min(LONGEST_BUDGET);
        let deadline = Instant::now() + budget;
        let mut trial = Trial::new(&self.inner)?;
        let mut all: Vec<TuneCandidate> = Vec::new();
        let mut contenders: Vec<Contender> = Vec::new();
        let mut want = None;
        for (index, &schedule) in schedules.iter().enumerate() {
            let mut candidate =
                TuneCandidate { schedule, passes: Vec::new(), median_ms: None, share: None, runs: 0, dropped: None };
            // Half of the time is left for measuring.
            if index > 0 && Instant::now() + budget / 2 > deadline {
                candidate.dropped = Some("no time was left to try it".to_owned());
                all.push(candidate);
                continue;
            }
            let made = || -> Result<(Vec<PassSchedule>, Bound, Vec<Vec<f32>>)> {
                let plan = Plan { inner: Arc::new(self.inner.scheduled(schedule, None)?) };
                let bound = plan.bind(&trial.bindings)?;
                let outputs = trial.outputs(&bound)?;
                Ok((plan.schedules()?, bound, outputs))
            };
            match made() {
                Ok((passes, bound, outputs)) => {
                    candidate.passes = passes;
                    let want = want.get_or_insert_with(|| outputs.clone());
                    candidate.dropped = trial.disagreement(&bound, want, &outputs);
                    if candidate.dropped.is_none() {
                        contenders.push(Contender { index, bound, samples: Vec::new() });
                    }
                }
                Err(error) if index == 0 => return Err(error),
                Err(error) => candidate.dropped = Some(error.to_string()),
            }
            all.push(candidate);
        }
        drop(want);
        // Half of the remaining time is for the finalists.
        let now = Instant::now();
        let halfway = now + deadline.saturating_duration_since(now) / 2;
        rounds(&mut trial, &mut contenders, options.repetitions, halfway)?;
        note(&contenders, &mut all);
        // The fastest of many was partly lucky: finalists are measured anew.
        contenders[1..].sort_by(|a, b| a.quantile(0.5).total_cmp(&b.quantile(0.5)));
        contenders.truncate(1 + FINALISTS);
        let mut chosen = 0;
        if contenders.len() > 1 {
            rounds(&mut trial, &mut contenders, options.repetitions, deadline)?;
            note(&contenders, &mut all);
            let enough = FASTER * contenders[0].quantile(0.5);
            let faster = contenders[1..].iter().filter(|contender| contender.quantile(0.75) < enough);
            let best = faster.min_by(|a, b| a.quantile(0.5).total_cmp(&b.quantile(0.5)));
            chosen = best.map_or(0, |contender| contender.index);
        }
        Ok(Tuning { clock: trial.clock(), candidates: all, chosen, not_kept: None })
    }
}

/// Interleaved runs, without earlier samples: each round gives every contender one turn, and starts with another one.
fn rounds(trial: &mut Trial<'_>, contenders: &mut [Contender], repetitions: usize, deadline: Instant) -> Result<()> {
    'again: loop {
        contenders.iter_mut().for_each(|contender| contender.samples.clear());
        for round in 0..repetitions {
            if round >= 3 && Instant::now() > deadline {
                break;
            }
            let least = |c: &Contender| c.samples.iter().copied().reduce(f64::min);
            let fastest = contenders.iter().filter_map(least).reduce(f64::min).unwrap_or(0.0);
            for turn in 0..contenders.len() {
                let index = (turn + round) % contenders.len();
                let contender = &mut contenders[index];
                let before = least(contender);
                // The default is never skipped: all shares are relative to it.
                if index > 0 && contender.samples.len() >= SURE && before.is_some_and(|ms| ms > SLOW * fastest) {
                    continue;
                }
                let Some(ms) = trial.time(&contender.bound, before)? else { continue 'again };
                contender.samples.push(ms);
            }
        }
        return Ok(());
    }
}

/// Notes the median of each contender, and its share of the default's, the first contender's.
fn note(contenders: &[Contender], all: &mut [TuneCandidate]) {
    let default = contenders[0].quantile(0.5);
    for contender in contenders {
        let (candidate, median) = (&mut all[contender.index], contender.quantile(0.5));
        (candidate.median_ms, candidate.share, candidate.runs) =
            (Some(median), Some(median / default), contender.samples.len());
    }
}

/// The sample below which this share of the samples lies.
fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let samples = [3.0, 1.0, 2.0, 5.0, 4.0];
        assert_eq!([0.0, 0.5, 0.75, 1.0].map(|share| quantile(&samples, share)), [1.0, 3.0, 4.0, 5.0]);
        assert_eq!(quantile(&[7.0], 0.75), 7.0);
    }
}
