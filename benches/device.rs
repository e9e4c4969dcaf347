//! Loss and gradient on a device, for the record: checked, then timed beside a copy of the same bytes.
//!
//! `device [--quick | --full] [--wall] [--tune SECONDS] [--json PATH] [NAME…]`: NAMEs choose works; without, all. Bytes
//! are those that must move: inputs read once, gradient and loss written once. A software adapter gets the small sizes of
//! `--quick` unless `--full` is given. With `--tune`, each work's schedule is also tuned, for so long at most, and timed
//! beside the default; the record has every candidate. Exits with 1 where a result was wrong.

#[path = "device/check.rs"]
mod check;
#[path = "device/kernels.rs"]
mod kernels;
#[path = "device/rounds.rs"]
mod rounds;

use check::Problem;
use kernels::Kernels;
use measure::clock::{COMMAND_STAMPS, Times};
use measure::copy::Copy;
use measure::machine;
use rounds::{Contender, Rounds};
use serde_json::{Value, json};
use std::time::Duration;
use wgloss::{Bindings, Context, DType, Error, Loss, PlanSpec, Tensor, TuneOptions, losses};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

struct Options {
    quick: bool,
    full: bool,
    wall: bool,
    tune: Option<Duration>,
    json: Option<String>,
    names: Vec<String>,
}

struct Work {
    name: &'static str,
    dtype: DType,
    rows: usize,
    cols: usize,
}

fn works(quick: bool) -> Vec<Work> {
    const K: usize = 1024;
    let rows = |full: usize| if quick { full / 128 } else { full };
    let mut all = Vec::new();
    for dtype in [DType::BF16, DType::F32] {
        for (full, cols) in [(32 * K, 4 * K), (32 * K, 32 * K), (16 * K, 128 * K), (8 * K, 256 * K)] {
            all.push(Work { name: "cross_entropy", dtype, rows: rows(full), cols });
        }
        // Few classes; a thousand; vocabularies, of which an odd one.
        for (full, cols) in [(64 * K, 10), (128 * K, 1000), (4 * K, 32_000), (16 * K, 50_257), (2 * K, 128_256)] {
            all.push(Work { name: "cross_entropy", dtype, rows: rows(full), cols });
        }
        // 2²⁸ elements; rows are only what is read back at a time.
        for name in ["mse", "huber", "bce_with_logits"] {
            all.push(Work { name, dtype, rows: rows(64 * K), cols: 4 * K });
        }
    }
    all
}

fn loss_of(name: &str) -> Loss {
    match name {
        "cross_entropy" => losses::cross_entropy().into(),
        "mse" => losses::mse(),
        "bce_with_logits" => losses::bce_with_logits(),
        _ => losses::huber(1.0).into(),
    }
}

fn options() -> Fallible<Options> {
    let mut options = Options { quick: false, full: false, wall: false, tune: None, json: None, names: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--full" => options.full = true,
            "--wall" => options.wall = true,
            "--tune" => {
                let seconds = args.next().ok_or("--tune needs seconds")?;
                options.tune =
                    Some(Duration::from_secs_f64(seconds.parse().map_err(|e| format!("--tune {seconds}: {e}"))?));
            }
            "--json" => options.json = Some(args.next().ok_or("--json needs a path")?),
            // What cargo adds.
            "--bench" => {}
            flag if flag.starts_with('-') => {
                return Err(format!("{flag}: not one of --quick, --full, --wall, --tune SECONDS, --json PATH").into());
            }
            name => options.names.push(name.to_owned()),
        }
    }
    Ok(options)
}

/// A device with all that the adapter allows, and timestamps where it has them.
async fn open() -> Fallible<(Context, wgpu::AdapterInfo)> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::from_env().unwrap_or(wgpu::Backends::all());
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..wgpu::RequestAdapterOptions::default()
    };
    let adapter = wgpu::Instance::new(descriptor).request_adapter(&options).await?;
    let has_stamps = adapter.features().contains(COMMAND_STAMPS);
    let stamps = if has_stamps { COMMAND_STAMPS } else { wgpu::Features::empty() };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("wgloss device benchmark"),
        required_limits: adapter.limits(),
        required_features: stamps | (adapter.features() & wgpu::Features::SUBGROUP),
        ..wgpu::DeviceDescriptor::default()
    };
    let (device, queue) = adapter.request_device(&descriptor).await?;
    Ok((Context::from_wgpu(device, queue, Some(&adapter))?, adapter.get_info()))
}

struct Bench<'a> {
    ctx: &'a Context,
    kernels: &'a Kernels<'a>,
    rounds: Rounds<'a>,
    quick: bool,
    tune: Option<Duration>,
}

impl Bench<'_> {
    /// Checks and times one work; the JSON of its line.
    fn run(&mut self, work: &Work) -> Fallible<Value> {
        let Bench { ctx, kernels, rounds, quick, tune } = self;
        let (ctx, kernels) = (*ctx, *kernels);
        let shape = [work.rows, work.cols];
        let loss = loss_of(work.name);
        let input = Tensor::zeros(ctx, work.dtype, &shape)?;
        let grad = Tensor::zeros(ctx, work.dtype, &shape)?;
        kernels.fill(&input, 1);
        let target = if work.name == "cross_entropy" {
            let label = |row: u64| (row.wrapping_mul(2_654_435_761) % work.cols as u64) as i32;
            Tensor::from_slice(ctx, &(0..work.rows as u64).map(label).collect::<Vec<i32>>(), &shape[..1])?
        } else {
            let target = Tensor::zeros(ctx, work.dtype, &shape)?;
            kernels.fill(&target, 2);
            target
        };
        let plan = ctx.plan(&loss, &PlanSpec::new().like(&[("input", &input), ("target", &target)]).grad("input"))?;
        let bindings = Bindings::new().input("input", &input).input("target", &target).grad("input", &grad);
        let bound = plan.bind(&bindings)?;
        let problem = Problem { ctx, kernels, loss: &loss, input: &input, target: &target, grad: &grad };
        if let Err(error) = check::check(&problem, &bound, if *quick { 4 } else { 16 }) {
            // The unreduced losses may be what does not fit.
            return if is_too_large(&*error) { Err(error) } else { Ok(json!({ "wrong": error.to_string() })) };
        }

        let tuned = match *tune {
            Some(budget) => Some(plan.tune(&TuneOptions::new().budget(budget))?),
            None => None,
        };
        let tuned_bound = tuned.as_ref().map(|plan| plan.bind(&bindings)).transpose()?;
        let copy = Copy::between(ctx, [input.buffer().clone(), grad.buffer().clone()]);
        let own = [("wgloss", Some(&bound)), ("wgloss tuned", tuned_bound.as_ref())];
        let own = own.into_iter().filter_map(|(name, bound)| {
            let bound = bound?;
            Some(Contender { name, encode: Box::new(move |encoder, _| bound.encode(encoder)) })
        });
        let own: Vec<Contender<'_>> = own.collect();
        let owns = own.len();
        let kernels = copy.ways().map(|(name, encode)| Contender { name, encode });
        let command = Contender { name: Copy::COMMAND, encode: copy.command() };
        let contenders: Vec<Contender<'_>> = own.into_iter().chain(kernels).chain([command]).collect();
        let (warm_up, turns) = if *quick { (50, 5) } else { (300, 31) };
        let times = rounds.time(&contenders, Duration::from_millis(warm_up), turns)?;
        let moved = |k: usize| if k < owns { bound.bytes() } else { copy.bytes };
        let all: Vec<(&str, Value)> =
            times.iter().enumerate().map(|(k, t)| (contenders[k].name, summary(t, moved(k)))).collect();
        let copies: serde_json::Map<String, Value> =
            all[owns..].iter().map(|(name, v)| ((*name).to_owned(), v.clone())).collect();
        let rate = |k: usize| all[k].1["gb_per_s"].as_f64().expect("a rate is a number");
        let best = (owns..all.len()).max_by(|a, b| rate(*a).total_cmp(&rate(*b))).expect("there are copies");
        let mut runs = serde_json::Map::new();
        for (k, bound) in std::iter::once(&bound).chain(&tuned_bound).enumerate() {
            let mut own = all[k].1.clone();
            own["share_of_copy"] = json!(rate(k) / rate(best));
            let explained = bound.explain();
            let passes: Vec<&str> = explained.lines().filter(|line| line.starts_with("pass")).collect();
            own["kernel"] = json!(passes);
            runs.insert(all[k].0.to_owned(), own);
        }
        Ok(json!({
            "bytes": bound.bytes(),
            "copy": { "name": all[best].0, "gb_per_s": rate(best) },
            "copies": copies,
            "explain": bound.explain(),
            "tuning": tuned.as_ref().and_then(|plan| plan.tuning()).map(ToString::to_string),
            "runs": runs,
        }))
    }
}

impl Bench<'_> {
    fn record(&self, info: &wgpu::AdapterInfo, commit: &str, lines: &[Value]) -> Value {
        let limits = self.ctx.limits();
        json!({
            "adapter": info.name,
            "backend": format!("{:?}", info.backend),
            "driver": format!("{} {}", info.driver, info.driver_info),
            "commit": commit,
            "timer": self.rounds.name,
            "quick": self.quick,
            "subgroup": limits.subgroup,
            "exp2": format!("{:?}", limits.exp2),
            "carries_nan": limits.carries_nan,
            "max_buffer_size": limits.buffer_bytes,
            "max_storage_buffer_binding_size": limits.binding_bytes,
            "lines": lines,
        })
    }
}

fn summary(times: &Times, bytes: u64) -> Value {
    let ms = times.median();
    json!({
        "ms": ms,
        "p10_ms": times.quantile(0.1),
        "p90_ms": times.quantile(0.9),
        "gb_per_s": bytes as f64 / ms / 1e6,
        "samples_ms": times.samples(),
    })
}

fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::Limit { .. } | Error::OutOfMemory { .. }))
}

/// A line each for the default and the tuned schedule: work, dtype, rows x cols, ms, spread, GB/s, share of copy, copy, kernel.
fn print(work: &Work, line: &Value) {
    print!("{:<14} {:<5} {:>6} x {:<7}", work.name, work.dtype.to_string(), work.rows, work.cols);
    for key in ["wrong", "skipped"] {
        if let Some(reason) = line[key].as_str() {
            println!(" {key}: {reason}");
            return;
        }
    }
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    for own in ["wgloss", "wgloss tuned"].iter().filter_map(|name| line["runs"].get(name)) {
        let ms = number(&own["ms"]);
        let spread = (number(&own["p90_ms"]) - number(&own["p10_ms"])) / ms;
        let (rate, share) = (number(&own["gb_per_s"]), number(&own["share_of_copy"]));
        let (copy, name) = (number(&line["copy"]["gb_per_s"]), line["copy"]["name"].as_str().unwrap_or("?"));
        print!(
            " {ms:>9.3} ms ±{:>3.0} % {rate:>7.1} GB/s {:>4.0} % of {copy:.1} ({name})",
            50.0 * spread,
            100.0 * share
        );
        let passes = own["kernel"].as_array().map_or(&[][..], Vec::as_slice);
        for pass in passes.iter().filter_map(Value::as_str) {
            print!("; {}", pass.split(", grid").next().unwrap_or(pass));
        }
        println!();
    }
}

/// Halves the rows, down to a quarter, until a tensor fits a buffer.
fn fit(work: &mut Work, buffer_bytes: u64) {
    let asked = work.rows;
    let bytes = |work: &Work| work.dtype.size() * (work.rows * work.cols) as u64;
    while bytes(work) > buffer_bytes && work.rows > asked / 4 {
        work.rows /= 2;
    }
    if work.rows < asked {
        println!("{} rows, not {asked}: a buffer holds {buffer_bytes} bytes (max_buffer_size)", work.rows);
    }
}

fn main() -> Fallible<()> {
    let options = options()?;
    let (ctx, info) = pollster::block_on(open())?;
    let software = ctx.limits().software;
    let quick = options.quick || (software && !options.full);
    if quick && !options.quick {
        println!("a software adapter: the sizes of --quick (--full for all)");
    }
    let kernels = Kernels::new(&ctx);
    let rounds = Rounds::new(&ctx, options.wall);
    let mut bench = Bench { ctx: &ctx, kernels: &kernels, rounds, quick, tune: options.tune };
    let commit = machine::commit().unwrap_or_else(|| "unknown".to_owned());
    println!("adapter: {}; commit {commit}; timed by {}", ctx.adapter_name(), bench.rounds.name);
    let most = ctx.limits().buffer_bytes;
    let mut lines = Vec::new();
    let mut wrong = 0;
    for mut work in works(quick) {
        if !options.names.is_empty() && !options.names.iter().any(|name| work.name.contains(name.as_str())) {
            continue;
        }
        let asked = work.rows;
        fit(&mut work, most);
        let mut line = match bench.run(&work) {
            Ok(line) => line,
            Err(error) if is_too_large(&*error) => json!({ "skipped": error.to_string() }),
            Err(error) => return Err(error),
        };
        wrong += usize::from(line["wrong"].is_string());
        print(&work, &line);
        line["work"] = json!(work.name);
        line["dtype"] = json!(work.dtype.to_string());
        line["rows"] = json!(work.rows);
        line["asked_rows"] = json!(asked);
        line["cols"] = json!(work.cols);
        lines.push(line);
        // After each work, so that what was measured is kept where time runs out.
        if let Some(path) = &options.json {
            let record = bench.record(&info, &commit, &lines);
            std::fs::write(path, serde_json::to_string_pretty(&record)? + "\n").map_err(|e| format!("{path}: {e}"))?;
        }
        // Gives the buffers back.
        ctx.device().poll(wgpu::PollType::wait_indefinitely())?;
    }
    if wrong > 0 { Err(format!("{wrong} works gave wrong results and were not timed").into()) } else { Ok(()) }
}
