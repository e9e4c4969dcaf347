//! Runs wgloss and what peers this machine has, in interleaved rounds; prints the ratios.
//!
//! `peers [--python PATH] [--rounds N] [--seconds S] [--record FOLDER] [--note TEXT] [WORK…]`, a WORK as in
//! `"cross_entropy 1024x32000 f32"`; without any, all. Peers are the programs beside this one, and those of peers.py.
//! Every peer makes the same numbers for itself. Loss and gradient are compared with f64 before anything is timed;
//! who is wrong is not timed, and where that is wgloss, the exit status is 1. `FOLDER/<date>-<adapter>.json` is what
//! `wgloss report` reads.

mod peer;

use measure::clock::Times;
use measure::contract::units;
use measure::record::{self, Adapter, Clock, Measurement, NotTimed, Record};

use peer::{Reply, Running};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wgloss_peers::{DType, Fallible, LossName, Summary, Work, reference};

const WORKS: [Work; 9] = [
    Work::new(LossName::CrossEntropy, 1024, 32000, DType::F32),
    Work::new(LossName::CrossEntropy, 8192, 1000, DType::F32),
    Work::new(LossName::CrossEntropy, 65536, 10, DType::F32),
    Work::new(LossName::Mse, 1, 1 << 24, DType::F32),
    Work::new(LossName::Huber, 1, 1 << 24, DType::F32),
    Work::new(LossName::CrossEntropy, 1024, 32000, DType::Bf16),
    Work::new(LossName::CrossEntropy, 8192, 1000, DType::Bf16),
    Work::new(LossName::CrossEntropy, 65536, 10, DType::Bf16),
    Work::new(LossName::Mse, 1, 1 << 24, DType::Bf16),
];
/// Of the copy: as large as the largest work's logits.
const COPY_BYTES: u64 = 4 * 1024 * 32000;
/// Rounds at least, whatever the time.
const LEAST_ROUNDS: usize = 5;

struct Options {
    python: String,
    rounds: usize,
    seconds: f64,
    record: Option<PathBuf>,
    note: Option<String>,
    works: Vec<Work>,
}

fn options() -> Fallible<Options> {
    let python = "python3".to_owned();
    let mut options = Options { python, rounds: 11, seconds: 60.0, record: None, note: None, works: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--python" => options.python = value()?,
            "--rounds" => options.rounds = value()?.parse()?,
            "--seconds" => options.seconds = value()?.parse()?,
            "--record" => options.record = Some(value()?.into()),
            "--note" => options.note = Some(value()?),
            flag if flag.starts_with('-') => {
                return Err(format!("{flag}: not one of --python, --rounds, --seconds, --record, --note").into());
            }
            work => options.works.push(work.parse()?),
        }
    }
    if options.works.is_empty() {
        options.works = WORKS.to_vec();
    }
    Ok(options)
}

/// Milliseconds of a peer over the rounds of a work.
struct Line {
    by: String,
    error: f64,
    ms: Times,
}

/// The larger error of loss and of gradient norm and projection (of which the gradient's norm is the measure), in units
/// of what peers are allowed; an error of its own where that is more than 1. Single values are not in the summary, so
/// that this is coarser than wgloss's own contract.
fn compare(work: &Work, got: Summary, want: Summary) -> Result<f64, String> {
    // In bf16 a peer may round its loss, and each gradient by 2^-9 of it, which the projection weighs by up to 4.
    let (loss_allowed, gradient_allowed) = if work.dtype == DType::F32 { (1e-4, 1e-4) } else { (1e-2, 2e-2) };
    let loss = units(got.loss, want.loss, loss_allowed * want.loss.abs());
    let of_norm = |got: f64, want_value: f64| units(got, want_value, gradient_allowed * want.norm);
    let gradient = of_norm(got.norm, want.norm).max(of_norm(got.projection, want.projection));
    if loss.max(gradient) <= 1.0 {
        return Ok(loss.max(gradient));
    }
    let off = gradient * gradient_allowed;
    Err(format!("wrong: loss {:.6} of {:.6}, gradient off by {off:.1e} of its norm", got.loss, want.loss))
}

/// Who was not timed, and why.
struct Left {
    by: String,
    reason: String,
    wrong: bool,
}

/// One work by every peer that can, checked, then in rounds.
fn run(work: &Work, peers: &mut [Running], options: &Options) -> Fallible<(Vec<Line>, Vec<Left>)> {
    let want = reference(work);
    let (mut ready, mut left) = (Vec::new(), Vec::new());
    for (place, peer) in peers.iter_mut().enumerate() {
        match peer.ask(&format!("work {work}"))? {
            Reply::Skip(reason) => left.push(Left { by: peer.name.clone(), reason, wrong: false }),
            Reply::Ready(got) => match compare(work, got, want) {
                Ok(error) => ready.push((place, Line { by: peer.name.clone(), error, ms: Times::default() })),
                Err(reason) => left.push(Left { by: peer.name.clone(), reason, wrong: true }),
            },
            Reply::Ms(_) => return Err(format!("{}: a time where a result was due", peer.name).into()),
        }
    }
    let begin = Instant::now();
    for round in 0..=options.rounds {
        if round > LEAST_ROUNDS && begin.elapsed().as_secs_f64() > options.seconds {
            break;
        }
        // Who begins rotates; the first round warms up.
        let count = ready.len();
        let mut ended = Vec::new();
        for turn in 0..count {
            let (place, line) = &mut ready[(turn + round) % count];
            // The threads of the one before go to sleep first.
            std::thread::sleep(Duration::from_millis(20));
            match peers[*place].ask("time")? {
                Reply::Ms(ms) if round > 0 => line.ms.push(ms),
                Reply::Ms(_) => {}
                Reply::Skip(reason) => ended.push((*place, reason)),
                Reply::Ready(_) => return Err(format!("{}: no time where one was due", line.by).into()),
            }
        }
        for (place, reason) in ended {
            ready.retain(|(other, _)| *other != place);
            left.push(Left { by: peers[place].name.clone(), reason, wrong: false });
        }
    }
    for Left { by, reason, .. } in &left {
        println!("skip {work} {by}: {reason}");
    }
    Ok((ready.into_iter().map(|(_, line)| line).collect(), left))
}

/// Read and written bytes a second of the adapter's own copy, median of the rounds.
fn copy_rate(wgloss: &mut Running, rounds: usize) -> Fallible<Option<f64>> {
    if let Reply::Skip(reason) = wgloss.ask(&format!("copy {COPY_BYTES}"))? {
        println!("skip copy: {reason}");
        return Ok(None);
    }
    let mut line = Line { by: "copy".to_owned(), error: 0.0, ms: Times::default() };
    for _ in 0..=rounds {
        if let Reply::Ms(ms) = wgloss.ask("time")? {
            line.ms.push(ms);
        }
    }
    Ok(Some(2.0 * COPY_BYTES as f64 / line.ms.median() / 1e6))
}

fn measurement(work: &Work, line: &Line, copy: Option<f64>) -> Measurement {
    let rate = work.bytes() as f64 / line.ms.median() / 1e6;
    // Only what runs on the adapter shares its copy.
    let copy = copy.filter(|_| line.by == "wgloss" || line.by == "burn");
    Measurement {
        loss: work.loss.to_string(),
        rows: work.rows,
        cols: work.cols,
        dtype: work.dtype.to_string(),
        work: record::Work::ForwardBackward,
        by: line.by.clone(),
        clock: Clock::Wall,
        bytes: work.bytes(),
        median_ms: line.ms.median(),
        min_ms: line.ms.quantile(0.0),
        max_ms: line.ms.quantile(1.0),
        runs: line.ms.runs(),
        gb_per_s: rate,
        share_of_copy: copy.map(|copy| rate / copy),
        error: Some(line.error),
    }
}

/// How many times faster wgloss is, a line for each peer.
fn ratios(work: &Work, lines: &[Line]) -> Vec<String> {
    let own = |by: &str| lines.iter().find(|line| line.by == by).map(|line| line.ms.median());
    let mut ratios = Vec::new();
    for line in lines.iter().filter(|line| line.by != "wgloss") {
        if let Some(own) = own("wgloss") {
            ratios.push(format!("ratio {work} wgloss/{} {:.1}", line.by, line.ms.median() / own));
        }
        // On the same cores, by the same clock.
        if let Some(own) = own("wgloss-cpu").filter(|_| line.by.ends_with("-cpu") && line.by != "wgloss-cpu") {
            ratios.push(format!("ratio {work} wgloss-cpu/{} {:.1}", line.by, line.ms.median() / own));
        }
    }
    ratios
}

/// A record of these peers without results.
fn record(peers: &[Running], note: Option<String>) -> Record {
    let adapter: Vec<&str> = peers[0].device.split("; ").collect();
    let part = |k: usize| adapter.get(k).copied().unwrap_or("unknown").to_owned();
    let adapter = Adapter { name: part(0), backend: part(1), driver: part(2), r#type: part(3) };
    let peer = |p: &Running| record::Peer { by: p.name.clone(), version: p.version.clone(), device: p.device.clone() };
    Record {
        copy_clock: Some(Clock::Wall),
        notes: note,
        peers: peers.iter().map(peer).collect(),
        ..Record::new(adapter, std::thread::available_parallelism().map_or(1, usize::from))
    }
}

fn write(record: &Record, folder: &Path) -> Fallible<()> {
    let path = folder.join(format!("{}-{}.json", record.date, slug(&record.adapter.name)));
    std::fs::write(&path, serde_json::to_string_pretty(record)? + "\n")
        .map_err(|error| format!("{}: {error}", path.display()))?;
    println!("\nrecord: {}", path.display());
    Ok(())
}

/// An adapter's name as part of a file's, without what its driver adds in parentheses.
fn slug(name: &str) -> String {
    let name = name.split('(').next().unwrap_or(name).trim().to_lowercase();
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn main() -> Fallible<()> {
    let options = options()?;
    let mut peers = peer::start(&options.python)?;
    let mut record = record(&peers, options.note.clone());
    let wgloss = &mut peers[0];
    println!("adapter: {}", wgloss.device);
    record.copy_gb_per_s = copy_rate(wgloss, options.rounds)?;
    if let Some(copy) = record.copy_gb_per_s {
        println!("copy on the adapter: {copy:.1} GB/s");
    }
    let (mut all_ratios, mut wrong) = (Vec::new(), 0);
    for work in &options.works {
        let (lines, left) = run(work, &mut peers, &options)?;
        wrong += left.iter().filter(|left| left.wrong && left.by.starts_with("wgloss")).count();
        let not_timed = |left: Left| NotTimed { work: work.to_string(), by: left.by, reason: left.reason };
        record.not_timed.extend(left.into_iter().map(not_timed));
        for line in &lines {
            let m = measurement(work, line, record.copy_gb_per_s);
            let Measurement { by, median_ms, min_ms, max_ms, runs, gb_per_s, .. } = &m;
            println!("{work} {by}: {median_ms:.2} ms ({min_ms:.2} to {max_ms:.2}, {runs}), {gb_per_s:.2} GB/s");
            record.results.push(m);
        }
        all_ratios.extend(ratios(work, &lines));
    }
    println!("\nhow many times faster wgloss is:");
    for ratio in &all_ratios {
        println!("{ratio}");
    }
    if let Some(folder) = &options.record {
        write(&record, folder)?;
    }
    if wrong > 0 { Err(format!("{wrong} results of wgloss were wrong and were not timed").into()) } else { Ok(()) }
}
