//! Loss and gradient on a device, for the record: checked, then timed beside a copy of the same bytes.
//!
//! `device [--quick | --full] [--wall] [--json PATH] [NAME…]`: NAMEs choose works; without, all. Bytes are those that
//! must move: inputs read once, gradient and loss written once. A software adapter gets the small sizes of `--quick`
//! unless `--full` is given. Exits with 1 where a result was wrong.

#[path = "device/check.rs"]
mod check;
#[path = "device/clock.rs"]
mod clock;
#[path = "device/kernels.rs"]
mod kernels;

use check::Problem;
use clock::{Clock, Contender, Times};
use kernels::Kernels;
use serde_json::{Value, json};
use std::time::Duration;
use wgloss::{Bindings, Context, DType, Error, Loss, PlanSpec, Tensor, losses};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const STAMPS: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);

struct Options {
    quick: bool,
    full: bool,
    wall: bool,
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
        // 2²⁸ elements; rows are only what is read back at a time.
        for name in ["mse", "huber"] {
            all.push(Work { name, dtype, rows: rows(64 * K), cols: 4 * K });
        }
    }
    all
}

fn loss_of(name: &str) -> Loss {
    match name {
        "cross_entropy" => losses::cross_entropy().into(),
        "mse" => losses::mse(),
        _ => losses::huber(1.0).into(),
    }
}

fn options() -> Fallible<Options> {
    let mut options = Options { quick: false, full: false, wall: false, json: None, names: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--full" => options.full = true,
            "--wall" => options.wall = true,
            "--json" => options.json = Some(args.next().ok_or("--json needs a path")?),
            // What cargo adds.
            "--bench" => {}
            flag if flag.starts_with('-') => {
                return Err(format!("{flag}: not one of --quick, --full, --wall, --json PATH").into());
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
    let has_stamps = adapter.features().contains(STAMPS);
    let stamps = if has_stamps { STAMPS } else { wgpu::Features::empty() };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("wgloss device benchmark"),
        required_limits: adapter.limits(),
        required_features: stamps | (adapter.features() & wgpu::Features::SUBGROUP),
        ..wgpu::DeviceDescriptor::default()
    };
    let (device, queue) = adapter.request_device(&descriptor).await?;
    Ok((Context::from_wgpu(device, queue, Some(&adapter))?, adapter.get_info()))
}

/// What was built: `WGLOSS_COMMIT`, or what git says here.
fn commit() -> String {
    let git = || {
        let args = ["describe", "--always", "--dirty", "--abbrev=12"];
        let out = std::process::Command::new("git").args(args).output().ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        (out.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
    };
    let given = std::env::var("WGLOSS_COMMIT").ok().filter(|commit| !commit.is_empty());
    given.or_else(git).unwrap_or_else(|| "unknown".to_owned())
}

struct Bench<'a> {
    ctx: &'a Context,
    kernels: &'a Kernels<'a>,
    clock: Clock<'a>,
    quick: bool,
}

impl Bench<'_> {
    /// Checks and times one work; the JSON of its line.
    fn run(&mut self, work: &Work) -> Fallible<Value> {
        let Bench { ctx, kernels, clock, quick } = self;
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

        let sweeps = [kernels.copy("copy1", &input, &grad), kernels.copy("copy4", &input, &grad)];
        let contenders = [
            Contender {
                name: "wgloss",
                encode: Box::new(|encoder| bound.encode(encoder).expect("encoded before, in the check")),
            },
            Contender { name: "kernel, a vector an invocation", encode: Box::new(|e| sweeps[0].encode(e)) },
            Contender { name: "kernel, four vectors an invocation", encode: Box::new(|e| sweeps[1].encode(e)) },
            Contender {
                name: "copy_buffer_to_buffer",
                encode: Box::new(|e| {
                    e.copy_buffer_to_buffer(input.buffer(), 0, grad.buffer(), 0, grad.buffer().size())
                }),
            },
        ];
        let (warm_up, rounds) = if *quick { (50, 5) } else { (300, 31) };
        let times = clock.time(&contenders, Duration::from_millis(warm_up), rounds)?;
        let moved = |k: usize| if k == 0 { bound.bytes() } else { 2 * grad.buffer().size() };
        let all: Vec<(&str, Value)> =
            times.iter().enumerate().map(|(k, t)| (contenders[k].name, summary(t, moved(k)))).collect();
        let copies: serde_json::Map<String, Value> =
            all[1..].iter().map(|(name, v)| ((*name).to_owned(), v.clone())).collect();
        let rate = |k: usize| all[k].1["gb_per_s"].as_f64().expect("a rate is a number");
        let best = (1..all.len()).max_by(|a, b| rate(*a).total_cmp(&rate(*b))).expect("there are copies");
        let mut own = all[0].1.clone();
        own["share_of_copy"] = json!(rate(0) / rate(best));
        let explained = bound.explain();
        let passes: Vec<&str> = explained.lines().filter(|line| line.starts_with("pass")).collect();
        own["kernel"] = json!(passes);
        Ok(json!({
            "bytes": bound.bytes(),
            "copy": { "name": all[best].0, "gb_per_s": rate(best) },
            "copies": copies,
            "explain": bound.explain(),
            "runs": { "wgloss": own },
        }))
    }
}

fn summary(times: &Times, bytes: u64) -> Value {
    let ms = times.median();
    json!({
        "ms": ms,
        "p10_ms": times.quantile(0.1),
        "p90_ms": times.quantile(0.9),
        "gb_per_s": bytes as f64 / ms / 1e6,
        "samples_ms": times.samples,
    })
}

fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::Limit { .. } | Error::OutOfMemory { .. }))
}

/// One line: work, dtype, rows x cols, ms, spread, GB/s, share of copy, copy, kernel.
fn print(work: &Work, line: &Value) {
    print!("{:<14} {:<5} {:>6} x {:<7}", work.name, work.dtype.to_string(), work.rows, work.cols);
    for key in ["wrong", "skipped"] {
        if let Some(reason) = line[key].as_str() {
            println!(" {key}: {reason}");
            return;
        }
    }
    let own = &line["runs"]["wgloss"];
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let ms = number(&own["ms"]);
    let spread = (number(&own["p90_ms"]) - number(&own["p10_ms"])) / ms;
    let (rate, share) = (number(&own["gb_per_s"]), number(&own["share_of_copy"]));
    let (copy, name) = (number(&line["copy"]["gb_per_s"]), line["copy"]["name"].as_str().unwrap_or("?"));
    print!(" {ms:>9.3} ms ±{:>3.0} % {rate:>7.1} GB/s {:>4.0} % of {copy:.1} ({name})", 50.0 * spread, 100.0 * share);
    let passes = own["kernel"].as_array().map_or(&[][..], Vec::as_slice);
    for pass in passes.iter().filter_map(Value::as_str) {
        print!("; {}", pass.split(", grid").next().unwrap_or(pass));
    }
    println!();
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
    let clock = Clock::new(&ctx, options.wall, !software);
    let mut bench = Bench { ctx: &ctx, kernels: &kernels, clock, quick };
    let commit = commit();
    println!("adapter: {}; commit {commit}; timed by {}", ctx.adapter_name(), bench.clock.name);
    let most = ctx.limits().buffer_bytes;
    let mut lines = Vec::new();
    let mut wrong = 0;
    for mut work in works(quick) {
        if !options.names.is_empty() && !options.names.iter().any(|name| work.name.contains(name.as_str())) {
            continue;
        }
        let asked = work.rows;
        let bytes = |work: &Work| work.dtype.size() * (work.rows * work.cols) as u64;
        while bytes(&work) > most && work.rows > asked / 4 {
            work.rows /= 2;
        }
        if work.rows < asked {
            println!("{} rows, not {asked}: a buffer holds {most} bytes (max_buffer_size)", work.rows);
        }
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
        // Gives the buffers back.
        ctx.device().poll(wgpu::PollType::wait_indefinitely())?;
    }
    let record = json!({
        "adapter": info.name,
        "backend": format!("{:?}", info.backend),
        "driver": format!("{} {}", info.driver, info.driver_info),
        "commit": commit,
        "timer": bench.clock.name,
        "quick": quick,
        "subgroup": ctx.limits().subgroup,
        "max_buffer_size": most,
        "max_storage_buffer_binding_size": ctx.limits().binding_bytes,
        "lines": lines,
    });
    if let Some(path) = options.json {
        std::fs::write(&path, serde_json::to_string_pretty(&record)? + "\n").map_err(|e| format!("{path}: {e}"))?;
    }
    if wrong > 0 { Err(format!("{wrong} works gave wrong results and were not timed").into()) } else { Ok(()) }
}
