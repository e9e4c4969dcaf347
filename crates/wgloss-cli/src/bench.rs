//! `wgloss bench`

use crate::device::DeviceArgs;
use crate::options::loss_names;
use crate::text::{self, Align};
use crate::works::Suite;
use crate::{Fallible, Verdict};
use measure::clock::{Clock, Encode, Times};
use measure::contract::{Off, Reference, shown};
use measure::copy::Copy;
use measure::problem::{Problem, Storage};
use measure::record::{self, Adapter, Measurement, NotTimed, Record, Work};
use std::time::{Duration, Instant};
use wgloss::{Bound, Context, CpuOutput, CpuPlan, Error, HostTensor, Loss};

/// Interleaved runs of everything, at least and at most; in between, a budget of time decides.
const RUNS: [usize; 2] = [5, 101];

#[derive(clap::Args)]
pub struct Args {
    /// Losses to measure [default: the suite's]
    #[arg(value_name = "LOSS", value_parser = loss_names())]
    losses: Vec<String>,
    /// Which losses and shapes
    #[arg(long, value_enum, default_value_t = Suite::Quick)]
    suite: Suite,
    /// Rows, instead of the suite's shapes
    #[arg(long, requires = "cols", value_parser = clap::value_parser!(u32).range(1..))]
    rows: Option<u32>,
    /// Columns (classes, where there are labels), instead of the suite's shapes
    #[arg(long, requires = "rows", value_parser = clap::value_parser!(u32).range(1..))]
    cols: Option<u32>,
    /// How numbers are stored [default: f32; f32,bf16 in the full suite]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TYPE")]
    dtype: Vec<Storage>,
    /// What is computed [default: forward_backward; both in the full suite]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WORK")]
    work: Vec<Work>,
    /// Print JSON: the record that `wgloss report` reads
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values
    #[arg(long)]
    csv: bool,
}

impl Args {
    fn dtypes(&self) -> Vec<Storage> {
        match (self.dtype.is_empty(), self.suite) {
            (false, _) => self.dtype.clone(),
            (true, Suite::Quick) => vec![Storage::F32],
            (true, Suite::Full) => vec![Storage::F32, Storage::Bf16],
        }
    }

    fn works(&self) -> Vec<Work> {
        match (self.work.is_empty(), self.suite) {
            (false, _) => self.work.clone(),
            (true, Suite::Quick) => vec![Work::ForwardBackward],
            (true, Suite::Full) => vec![Work::Forward, Work::ForwardBackward],
        }
    }

    /// Time for the runs of one work.
    fn budget(&self) -> Duration {
        Duration::from_millis(if self.suite == Suite::Quick { 1000 } else { 2000 })
    }
}

/// Times of the interleaved runs.
#[derive(Default)]
struct Rounds {
    gpu: Times,
    wall: Times,
    cpu: Times,
    copy_gpu: Vec<Times>,
    /// The same kernels, and the device's own copy.
    copy_wall: Vec<Times>,
}

struct Bench<'a> {
    ctx: &'a Context,
    clock: Clock<'a>,
    budget: Duration,
}

/// The measurements of a work; the clock and GB/s of the fastest copy of the same number of bytes.
type Measured = (Vec<Measurement>, (record::Clock, f64));

/// A work that does not fit is left out; any other error is passed on.
fn too_large(error: Error) -> Fallible<Result<Measured, Missing>> {
    match error {
        Error::Limit { .. } | Error::OutOfMemory { .. } => Ok(Err(Missing::TooLarge(error))),
        other => Err(other.into()),
    }
}

/// Why a work has no numbers.
enum Missing {
    /// It was off by more than the contract allows.
    Wrong(String),
    /// It does not fit the device.
    TooLarge(Error),
}

impl Bench<'_> {
    /// Measures, if the device takes the shapes and the host has room for the values.
    fn made_and_measured(
        &self,
        loss: &Loss,
        [rows, cols]: [usize; 2],
        dtype: Storage,
        work: Work,
    ) -> Fallible<Result<Measured, Missing>> {
        // Shapes first: the host makes no values for a size that the device refuses.
        let shaped = Problem::shaped(loss, rows, cols, dtype);
        let made = self.ctx.plan(&shaped.loss, &shaped.spec(work));
        match made.and_then(|_| Problem::new(loss, rows, cols, dtype)) {
            Ok(problem) => self.measure(&problem, work),
            Err(error) => too_large(error),
        }
    }

    /// Checks, then times.
    fn measure(&self, problem: &Problem, work: Work) -> Fallible<Result<Measured, Missing>> {
        let ctx = self.ctx;
        let made = ctx.plan(&problem.loss, &problem.spec(work)).and_then(|plan| {
            let tensors = problem.upload(ctx)?;
            let bound = tensors.bind(&plan, work)?;
            Ok((tensors, bound))
        });
        let (tensors, bound) = match made {
            Ok(made) => made,
            Err(error) => return too_large(error),
        };
        let reference = Reference::new(problem, work)?;
        let (loss, grad) = tensors.run(ctx, &bound, work)?;
        let off = reference.worst(loss, grad.as_deref());
        if off.units > 1.0 {
            return Ok(Err(Missing::Wrong(off.to_string())));
        }
        // The CPU path computes in f32: it is compared with f32 alone.
        let mut host = match problem.storage {
            Storage::F32 => match OnHost::checked(problem, work, &reference)? {
                Ok(host) => Some(host),
                Err(off) => return Ok(Err(Missing::Wrong(format!("on the CPU: {off}")))),
            },
            Storage::F16 | Storage::Bf16 => None,
        };
        drop((reference, grad));
        let copy = Copy::new(ctx, bound.bytes());
        let rounds = self.rounds(&bound, &copy, host.as_mut())?;
        let errors = [off.units, host.map_or(0.0, |host| host.error)];
        rounds.measured(problem, work, [bound.bytes(), copy.bytes], errors).map(Ok)
    }

    /// Everything takes turns, for as long as the budget says.
    fn rounds(&self, bound: &Bound, copy: &Copy, mut host: Option<&mut OnHost<'_>>) -> Fallible<Rounds> {
        let step: Box<Encode<'_>> = Box::new(|encoder, writes| match writes {
            Some(writes) => bound.encode_with_timestamps(encoder, writes),
            None => bound.encode(encoder),
        });
        let mut rounds = Rounds::default();
        // The first round warms everything up, and is forgotten.
        let mut begin = Instant::now();
        for round in 0..=RUNS[1] {
            if round > RUNS[0] && begin.elapsed() > self.budget {
                break;
            }
            self.round(&step, copy, &mut rounds)?;
            if let Some(host) = &mut host {
                rounds.cpu.push(host.run()?);
            }
            if round == 0 {
                (rounds, begin) = (Rounds::default(), Instant::now());
            }
        }
        Ok(rounds)
    }

    /// One run of the step and of each copy, by each clock.
    fn round(&self, step: &Encode<'_>, copy: &Copy, rounds: &mut Rounds) -> Fallible<()> {
        if let Some(ms) = self.clock.by_gpu(step)? {
            rounds.gpu.push(ms);
        }
        rounds.wall.push(self.clock.by_wall(step)?);
        let ways = copy.ways().count();
        rounds.copy_gpu.resize_with(ways, Times::default);
        rounds.copy_wall.resize_with(ways + 1, Times::default);
        for (index, (_, way)) in copy.ways().enumerate() {
            if let Some(ms) = self.clock.by_gpu(&*way)? {
                rounds.copy_gpu[index].push(ms);
            }
            rounds.copy_wall[index].push(self.clock.by_wall(&*way)?);
        }
        rounds.copy_wall[ways].push(self.clock.by_wall(&*copy.command())?);
        Ok(())
    }
}

/// The CPU path over a problem.
struct OnHost<'a> {
    inputs: Vec<(&'a str, HostTensor<'a>)>,
    plan: CpuPlan<f32>,
    out: CpuOutput<f32>,
    /// In units of what the contract allows.
    error: f64,
}

impl<'a> OnHost<'a> {
    /// Planned, run and compared.
    fn checked(problem: &'a Problem, work: Work, reference: &Reference) -> Fallible<Result<OnHost<'a>, Off>> {
        let inputs = problem.host();
        let plan = CpuPlan::<f32>::new(&problem.loss, &inputs, &problem.wanted(work))?;
        let mut host = OnHost { out: plan.output(), inputs, plan, error: 0.0 };
        host.run()?;
        let grad = if work == Work::Forward { None } else { Some(host.out.grad(&problem.wrt)?) };
        let off = reference.worst(host.out.loss()?, grad);
        host.error = off.units;
        Ok(if off.units > 1.0 { Err(off) } else { Ok(host) })
    }

    /// Milliseconds.
    fn run(&mut self) -> wgloss::Result<f64> {
        let begin = Instant::now();
        self.plan.run(&self.inputs, &mut self.out)?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }
}

fn gb_per_s(times: &Times, bytes: u64) -> f64 {
    bytes as f64 / times.median() / 1e6
}

impl Rounds {
    /// One line per clock. `bytes`: of the work, of a copy; `errors`: of the GPU, of the CPU.
    fn measured(&self, problem: &Problem, work: Work, bytes: [u64; 2], errors: [f64; 2]) -> Fallible<Measured> {
        let best = |copies: &[Times]| {
            copies.iter().filter(|times| times.runs() > 0).map(|times| gb_per_s(times, bytes[1])).reduce(f64::max)
        };
        let (copy_gpu, copy_wall) = (best(&self.copy_gpu), best(&self.copy_wall));
        let line = |by: &str, clock, times: &Times, copy: Option<f64>, error| Measurement {
            loss: problem.name.clone(),
            rows: problem.rows,
            cols: problem.cols,
            dtype: problem.storage.name(),
            work,
            by: by.to_owned(),
            clock,
            bytes: bytes[0],
            median_ms: times.median(),
            min_ms: times.quantile(0.0),
            max_ms: times.quantile(1.0),
            runs: times.runs(),
            gb_per_s: gb_per_s(times, bytes[0]),
            share_of_copy: copy.map(|copy| gb_per_s(times, bytes[0]) / copy),
            error: Some(error),
        };
        let mut lines = Vec::new();
        if self.gpu.runs() > 0 {
            lines.push(line("wgloss", record::Clock::Gpu, &self.gpu, copy_gpu, errors[0]));
        }
        lines.push(line("wgloss", record::Clock::Wall, &self.wall, copy_wall, errors[0]));
        if self.cpu.runs() > 0 {
            lines.push(line("wgloss-cpu", record::Clock::Wall, &self.cpu, None, errors[1]));
        }
        let copied = copy_gpu.map(|rate| (record::Clock::Gpu, rate));
        let copied = copied.or(copy_wall.map(|rate| (record::Clock::Wall, rate))).ok_or("no copy was timed")?;
        Ok((lines, copied))
    }
}

/// One line per result; a missing value is a dash.
fn table(record: &Record) -> String {
    let head = ["loss", "shape", "dtype", "work", "by", "clock", "median ms", "min", "max", "GB/s", "of copy", "error"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for m in &record.results {
        rows.push(vec![
            m.loss.clone(),
            format!("{}x{}", m.rows, m.cols),
            m.dtype.clone(),
            m.work.name().to_owned(),
            m.by.clone(),
            m.clock.name().to_owned(),
            format!("{:.3}", m.median_ms),
            format!("{:.3}", m.min_ms),
            format!("{:.3}", m.max_ms),
            format!("{:.1}", m.gb_per_s),
            m.share_of_copy.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
            m.error.map_or_else(|| "-".to_owned(), shown),
        ]);
    }
    let mut aligns = vec![Align::Left; 6];
    aligns.resize(head.len(), Align::Right);
    text::columns(&aligns, &rows)
}

/// A record in the format of the arguments.
fn text(args: &Args, record: &Record) -> Fallible<String> {
    if args.json {
        return Ok(serde_json::to_string_pretty(record)? + "\n");
    }
    if args.csv {
        return Ok(record.csv());
    }
    let copy = record.copy_gb_per_s.map_or_else(String::new, |copy| format!("; copy {copy:.1} GB/s"));
    let head = "gpu: kernels by GPU timestamps; wall: whole calls; error in units of the contract";
    let Record { adapter, cpu, threads, .. } = record;
    let adapter = format!("{} ({}, {})", adapter.name, adapter.backend, adapter.driver);
    Ok(format!("adapter: {adapter}{copy}\ncpu: {cpu}, {threads} threads\n\n{head}\n\n{}", table(record)))
}

/// Each loss with its shapes and element types.
fn problems(args: &Args) -> Vec<(Loss, [usize; 2], Storage)> {
    let mut problems = Vec::new();
    for loss in args.suite.losses(&args.losses) {
        let asked = args.rows.zip(args.cols).map(|(rows, cols)| [rows as usize, cols as usize]);
        let shapes = asked.map_or_else(|| args.suite.shapes(&loss).to_vec(), |shape| vec![shape]);
        for (shape, dtype) in
            shapes.iter().flat_map(|shape| args.dtypes().into_iter().map(move |dtype| (*shape, dtype)))
        {
            problems.push((loss.clone(), shape, dtype));
        }
    }
    problems
}

pub fn run(device: &DeviceArgs, args: &Args) -> Fallible<Verdict> {
    let ctx = device.open()?;
    let bench = Bench { ctx: &ctx, clock: Clock::new(&ctx), budget: args.budget() };
    if !bench.clock.has_stamps() {
        eprintln!("this adapter has no timestamps: calls are timed by wall clock, kernels are not");
    }
    if !args.dtypes().contains(&Storage::F32) {
        eprintln!("the CPU path computes in f32: with --dtype f32 it is measured as well");
    }
    let problems = problems(args);
    let works = args.works();
    let bar = text::progress(problems.len() * works.len());
    let mut record = Record::new(Adapter::of(&ctx), rayon::current_num_threads());
    let mut wrong = 0;
    for (loss, [rows, cols], dtype) in problems {
        let what = format!("{} {rows}x{cols} {}", loss.name(), dtype.name());
        bar.set_message(what.clone());
        for &work in &works {
            match bench.made_and_measured(&loss, [rows, cols], dtype, work)? {
                Ok((lines, (clock, copied))) => {
                    record.results.extend(lines);
                    record.copy_gb_per_s = Some(record.copy_gb_per_s.map_or(copied, |known| known.max(copied)));
                    record.copy_clock = Some(clock);
                }
                Err(missing) => {
                    let reason = match missing {
                        Missing::TooLarge(error) => format!("left out: {error}"),
                        Missing::Wrong(why) => {
                            wrong += 1;
                            format!("WRONG, and not timed: {why}")
                        }
                    };
                    let work = format!("{what} {}", work.name());
                    bar.suspend(|| eprintln!("{work}: {reason}"));
                    record.not_timed.push(NotTimed { work, by: "wgloss".to_owned(), reason });
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    text::print(&text(args, &record)?)?;
    // Of works that were all left out, nothing is right.
    Ok(if wrong == 0 && !record.results.is_empty() { Verdict::Right } else { Verdict::Wrong })
}
