//! Runs wgloss and what peers this machine has, in interleaved rounds; prints the ratios.
//!
//! `peers [--python PATH] [--rounds N] [--seconds S] [--record FOLDER] [--note TEXT] [WORK…]`, a WORK as in
//! `"cross_entropy 1024x32000 f32"`; without any, all. Peers are the programs beside this one, and those of peers.py.
//! Every peer makes the same numbers for itself. Loss and gradient are compared with f64 before anything is timed;
//! who is wrong is not timed, and where that is wgloss, the exit status is 1. `FOLDER/<date>-<adapter>.json` is what
//! `wgloss report` reads.

// The same for every record.
#[path = "../../../crates/wgloss-cli/src/machine.rs"]
mod machine;
mod peer;

use peer::{Reply, Running};
use serde_json::{Value, json};
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
    ms: Vec<f64>,
}

impl Line {
    fn median(&self) -> f64 {
        let mut sorted = self.ms.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

/// The larger error of loss and of gradient norm and projection (of which the gradient's norm is the measure), as a part
/// of what is allowed; an error of its own where that is too much. NaN is.
fn compare(work: &Work, got: Summary, want: Summary) -> Result<f64, String> {
    let loss = (got.loss - want.loss).abs() / want.loss.abs();
    let gradient = (got.norm - want.norm).abs().max((got.projection - want.projection).abs()) / want.norm;
    // In bf16 a peer may round its loss, and each gradient by 2^-9 of it, which the projection weighs by up to 4.
    let (loss_allowed, gradient_allowed) = if work.dtype == DType::F32 { (1e-4, 1e-4) } else { (1e-2, 2e-2) };
    if loss <= loss_allowed && gradient <= gradient_allowed {
        return Ok((loss / loss_allowed).max(gradient / gradient_allowed));
    }
    Err(format!("wrong: loss {:.6} of {:.6}, gradient off by {gradient:.1e} of its norm", got.loss, want.loss))
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
                Ok(error) => ready.push((place, Line { by: peer.name.clone(), error, ms: Vec::new() })),
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
    let mut line = Line { by: "copy".to_owned(), error: 0.0, ms: Vec::new() };
    for _ in 0..=rounds {
        if let Reply::Ms(ms) = wgloss.ask("time")? {
            line.ms.push(ms);
        }
    }
    Ok(Some(2.0 * COPY_BYTES as f64 / line.median() / 1e6))
}

fn result(work: &Work, line: &Line, copy: Option<f64>) -> Value {
    let ms = line.median();
    let rate = work.bytes() as f64 / ms / 1e6;
    // Only what runs on the adapter shares its copy.
    let copy = copy.filter(|_| line.by == "wgloss" || line.by == "burn");
    json!({
        "loss": work.loss.to_string(),
        "rows": work.rows,
        "cols": work.cols,
        "dtype": work.dtype.to_string(),
        "work": "forward_backward",
        "by": line.by,
        "clock": "wall",
        "bytes": work.bytes(),
        "median_ms": ms,
        "min_ms": line.ms.iter().copied().fold(f64::INFINITY, f64::min),
        "max_ms": line.ms.iter().copied().fold(0.0, f64::max),
        "runs": line.ms.len(),
        "gb_per_s": rate,
        "share_of_copy": copy.map(|copy| rate / copy),
        "error": line.error,
    })
}

/// An adapter's name as part of a file's, without what its driver adds in parentheses.
fn slug(name: &str) -> String {
    let name = name.split('(').next().unwrap_or(name).trim().to_lowercase();
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn main() -> Fallible<()> {
    let options = options()?;
    let mut peers = peer::start(&options.python)?;
    let wgloss = &mut peers[0];
    let adapter: Vec<String> = wgloss.device.split("; ").map(str::to_owned).collect();
    let part = |k: usize| adapter.get(k).map_or("unknown", String::as_str).to_owned();
    println!("adapter: {}", wgloss.device);
    let copy = copy_rate(wgloss, options.rounds)?;
    if let Some(copy) = copy {
        println!("copy on the adapter: {copy:.1} GB/s");
    }
    let (mut results, mut ratios, mut left_out, mut wrong) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for work in &options.works {
        let (lines, left) = run(work, &mut peers, &options)?;
        wrong += left.iter().filter(|left| left.wrong && left.by.starts_with("wgloss")).count();
        let reason = |left: &Left| json!({ "work": work.to_string(), "by": left.by, "reason": left.reason });
        left_out.extend(left.iter().map(reason));
        for line in &lines {
            let ms = line.median();
            let (low, high) = line.ms.iter().fold((f64::INFINITY, 0.0f64), |(l, h), ms| (l.min(*ms), h.max(*ms)));
            let rate = work.bytes() as f64 / ms / 1e6;
            println!("{work} {}: {ms:.2} ms ({low:.2} to {high:.2}, {}), {rate:.2} GB/s", line.by, line.ms.len());
            results.push(result(work, line, copy));
        }
        let own = |by: &str| lines.iter().find(|line| line.by == by).map(Line::median);
        for line in lines.iter().filter(|line| line.by != "wgloss") {
            if let Some(own) = own("wgloss") {
                ratios.push(format!("ratio {work} wgloss/{} {:.1}", line.by, line.median() / own));
            }
            // On the same cores, by the same clock.
            if let Some(own) = own("wgloss-cpu").filter(|_| line.by.ends_with("-cpu") && line.by != "wgloss-cpu") {
                ratios.push(format!("ratio {work} wgloss-cpu/{} {:.1}", line.by, line.median() / own));
            }
        }
    }
    println!("\nhow many times faster wgloss is:");
    for ratio in &ratios {
        println!("{ratio}");
    }
    if let Some(folder) = &options.record {
        let name = format!("{}-{}.json", machine::date(), slug(&part(0)));
        let path = folder.join(name);
        let version = |p: &Running| json!({ "by": p.name, "version": p.version, "device": p.device });
        let versions: Vec<Value> = peers.iter().map(version).collect();
        let record = json!({
            "format": 1,
            "wgloss": peers[0].version,
            "commit": machine::commit(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))),
            "date": machine::date(),
            "adapter": { "name": part(0), "backend": part(1), "driver": part(2), "type": part(3) },
            "cpu": machine::cpu(),
            "threads": std::thread::available_parallelism().map_or(1, usize::from),
            "copy_gb_per_s": copy,
            "copy_clock": "wall",
            "notes": options.note,
            "peers": versions,
            "results": results,
            "not_timed": left_out,
        });
        std::fs::write(&path, serde_json::to_string_pretty(&record)? + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
        println!("\nrecord: {}", path.display());
    }
    if wrong > 0 { Err(format!("{wrong} results of wgloss were wrong and were not timed").into()) } else { Ok(()) }
}
