//! Random problems, GPU against CPU: see `differential/judge.rs` for what counts as agreement.
//!
//! - `cargo test --test differential` runs fixed seeds, of the catalogue and of random expressions; of these the share that
//!   `WGLOSS_TEST_SHARE` says.
//! - `WGLOSS_FUZZ_MINUTES=30` (`make fuzz MINUTES=30`) runs as long, from `WGLOSS_FUZZ_START`, or from a seed of the
//!   clock's, which is printed.
//! - `WGLOSS_FUZZ_SEED=7` runs that seed alone, and prints the problem as it is drawn and as it is shrunk.
//! - `WGLOSS_FUZZ_COUNT=500` runs as many of the fixed seeds.
//! - `WGLOSS_FUZZ_LOSSES=arcface,supcon` draws the losses of such names alone.
//!
//! At the end a table says what was covered, and what never was.

mod differential {
    pub mod arena;
    pub mod coverage;
    pub mod device;
    pub mod draw;
    pub mod dual;
    pub mod expression;
    pub mod grow;
    pub mod invariants;
    pub mod judge;
    pub mod oracle;
    pub mod problem;
    pub mod random;
    pub mod range;
    pub mod reference;
    pub mod run;
    pub mod shrink;
    pub mod tensors;
    pub mod values;
}

#[path = "common/share.rs"]
mod share;
#[path = "common/special.rs"]
mod special;

use differential::coverage::Coverage;
use differential::draw::{ONLY, draw};
use differential::judge::check_itself;
use differential::problem::Problem;
use differential::run::{Devices, Failure, Verdict, keep_panics};
use differential::shrink::shrink;
use share::Share;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Seeds that are fixed.
const COUNT: u64 = 500;
const THREADS: usize = 2;
/// Different failures after which a run ends.
const MOST_FAILURES: usize = 30;
/// Failures of one kind that are shrunk, since one kind may have several causes.
const SHRUNK: usize = 4;
/// What shrinking one failure may take.
const SHRINKING: Duration = Duration::from_secs(30);
/// What one problem may take before it counts as hung.
const HANGS: Duration = Duration::from_secs(180);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// What all threads share.
struct Shared {
    next: AtomicU64,
    /// The seeds that run.
    share: Share,
    coverage: Mutex<Coverage>,
    /// By kind: how many, and the first ones in words.
    failures: Mutex<BTreeMap<String, (usize, Vec<String>)>>,
    /// What each thread is at.
    running: Mutex<[Option<(u64, Instant)>; THREADS]>,
}

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--list") {
        println!("differential: test");
        return ExitCode::SUCCESS;
    }
    check_itself();
    match Devices::default().check() {
        Ok(name) => println!("differential on {name}"),
        Err(error) if std::env::var_os("WGLOSS_REQUIRE_ADAPTER").is_none() => {
            println!("differential skipped: {error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => panic!("WGLOSS_REQUIRE_ADAPTER is set, but {error}"),
    }
    keep_panics();
    if let Some(seed) = number("WGLOSS_FUZZ_SEED") {
        return one(seed);
    }
    let minutes = number("WGLOSS_FUZZ_MINUTES").filter(|minutes| *minutes > 0);
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs() << 20);
    let first = number("WGLOSS_FUZZ_START").unwrap_or_else(|| if minutes.is_some() { clock() } else { 0 });
    let count = if minutes.is_some() { u64::MAX } else { number("WGLOSS_FUZZ_COUNT").unwrap_or(COUNT) };
    let until = minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let share = if minutes.is_some() { Share::ALL } else { Share::from_env() };
    println!("seeds from {first}, {share:?}");
    many(first, first.saturating_add(count), until, share)
}

fn one(seed: u64) -> ExitCode {
    let problem = draw(seed);
    println!("seed {seed} draws\n{problem}");
    let mut devices = Devices::default();
    let mut coverage = Coverage::default();
    let verdict = devices.run(&problem, &mut coverage);
    println!("{coverage}");
    let Verdict::Failed(failure) = verdict else {
        println!("{verdict:?}");
        return ExitCode::SUCCESS;
    };
    println!("{}", report(seed, &problem, &failure, &mut devices));
    ExitCode::FAILURE
}

fn many(first: u64, end: u64, until: Option<Instant>, share: Share) -> ExitCode {
    let start = Instant::now();
    let (coverage, failures, running) = Default::default();
    let shared = Shared { next: AtomicU64::new(first), share, coverage, failures, running };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let shared = &shared;
                let name = format!("differential {thread}");
                let builder = std::thread::Builder::new().name(name).stack_size(16 << 20);
                builder.spawn_scoped(scope, move || work(shared, thread, end, until)).expect("a thread")
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::sleep(Duration::from_millis(200));
            let running = shared.running.lock().unwrap_or_else(|e| e.into_inner());
            if let Some((seed, _)) = running.iter().flatten().find(|(_, since)| since.elapsed() > HANGS) {
                println!("seed {seed} hangs: WGLOSS_FUZZ_SEED={seed} cargo test --test differential\n{}", draw(*seed));
                std::process::exit(1);
            }
        }
    });
    let coverage = shared.coverage.into_inner().unwrap_or_else(|e| e.into_inner());
    println!("{}", coverage.table());
    let failures = shared.failures.into_inner().unwrap_or_else(|e| e.into_inner());
    let seeds = (first..shared.next.into_inner().min(end)).filter(|seed| share.takes(&format!("seed {seed}"))).count();
    println!("{seeds} seeds in {:.0} s; {} kinds of failure", start.elapsed().as_secs_f64(), failures.len());
    for (kind, (times, texts)) in &failures {
        println!("\n{times} times {kind}");
        texts.iter().for_each(|text| println!("{text}"));
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(shared: &Shared, thread: usize, end: u64, until: Option<Instant>) {
    let mut devices = Devices::default();
    let mut coverage = Coverage::default();
    let at = |what: Option<(u64, Instant)>| {
        shared.running.lock().unwrap_or_else(|e| e.into_inner())[thread] = what;
    };
    while until.is_none_or(|until| Instant::now() < until) {
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || shared.failures.lock().unwrap_or_else(|e| e.into_inner()).len() >= MOST_FAILURES {
            break;
        }
        if !shared.share.takes(&format!("seed {seed}")) {
            continue;
        }
        at(Some((seed, Instant::now())));
        let problem = draw(seed);
        let verdict = devices.run(&problem, &mut coverage);
        coverage.count_verdict(&verdict);
        if let Verdict::Failed(failure) = verdict {
            let times = {
                let mut failures = shared.failures.lock().unwrap_or_else(|e| e.into_inner());
                let known = failures.entry(failure.kind.clone()).or_default();
                known.0 += 1;
                known.0
            };
            if times <= SHRUNK {
                let text = report(seed, &problem, &failure, &mut devices);
                println!("{text}\n");
                let mut failures = shared.failures.lock().unwrap_or_else(|e| e.into_inner());
                failures.entry(failure.kind).or_default().1.push(text);
            }
        }
    }
    at(None);
    shared.coverage.lock().unwrap_or_else(|e| e.into_inner()).merge(&coverage);
}

/// A failure shrunk, in a few lines.
fn report(seed: u64, problem: &Problem, failure: &Failure, devices: &mut Devices) -> String {
    let mut start = problem.clone();
    if let Some(data) = failure.data {
        start.data = vec![data];
    }
    let mut last = failure.clone();
    let mut ignored = Coverage::default();
    let mut fails = |candidate: &Problem| match devices.run(candidate, &mut ignored) {
        Verdict::Failed(found) if found.kind == failure.kind => {
            last = found;
            true
        }
        _ => false,
    };
    // Of one bound plan's data an earlier set may matter.
    let start = if fails(&start) { start } else { problem.clone() };
    let small = shrink(&start, SHRINKING, fails);
    let Failure { kind, message, .. } = last;
    let only = std::env::var(ONLY).map_or_else(|_| String::new(), |list| format!("{ONLY}={list} "));
    format!("seed {seed}: {kind}\n{small}\n  {message}\n  {only}WGLOSS_FUZZ_SEED={seed} cargo test --test differential")
}
