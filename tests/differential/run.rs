//! A problem on every path, and what becomes of it.

use super::coverage::Coverage;
use super::device::Session;
use super::invariants;
use super::judge::{Judge, Mismatch};
use super::oracle;
use super::problem::{Data, Device, Problem, Values};
use super::reference::{Outcome, Reference};
use super::values::{Host, values};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use wgloss::Pinned;
use wgloss::{Context, Error, GradMode, Result};

/// What becomes of a problem.
#[derive(Clone, Debug)]
pub enum Verdict {
    Agreed,
    /// Every path refuses it, with this error.
    Refused(String),
    /// It is not comparable, for a documented reason.
    Skipped(String),
    Failed(Failure),
}

#[derive(Clone, Debug)]
pub struct Failure {
    /// What tells this kind of failure from others: what shrinking must keep.
    pub kind: String,
    pub data: Option<Data>,
    pub message: String,
}

impl Verdict {
    fn failed(kind: impl Into<String>, data: Option<Data>, message: impl Into<String>) -> Verdict {
        Verdict::Failed(Failure { kind: kind.into(), data, message: message.into() })
    }
}

/// Problems for which contexts are kept.
const USES: usize = 120;

/// Devices of one thread, renewed now and then so that memory stays bounded.
#[derive(Default)]
pub struct Devices {
    open: BTreeMap<Device, Opened>,
}

struct Opened {
    ctx: Context,
    uncaptured: Arc<Mutex<Vec<String>>>,
    uses: usize,
}

impl Opened {
    fn new(device: Device) -> Result<Opened> {
        let small = wgpu::Limits { max_storage_buffer_binding_size: 1 << 16, ..wgpu::Limits::default() };
        let ctx = match device {
            Device::Adapter => Context::new()?,
            Device::WebGpu => Context::with_limits(wgpu::Limits::default())?,
            Device::Small => Context::with_limits(small)?,
        };
        let uncaptured: Arc<Mutex<Vec<String>>> = Arc::default();
        let errors = Arc::clone(&uncaptured);
        ctx.device().on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            errors.lock().unwrap_or_else(|e| e.into_inner()).push(error.to_string());
        }));
        Ok(Opened { ctx, uncaptured, uses: 0 })
    }
}

impl Devices {
    fn open(&mut self, device: Device) -> Result<&mut Opened> {
        if self.open.get(&device).is_some_and(|opened| opened.uses >= USES) {
            self.open.remove(&device);
        }
        let opened = match self.open.entry(device) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Opened::new(device)?),
        };
        opened.uses += 1;
        Ok(opened)
    }

    /// Whether there is an adapter at all.
    pub fn check(&mut self) -> Result<String> {
        Ok(self.open(Device::Adapter)?.ctx.adapter_name().to_owned())
    }

    /// Runs a problem, whatever happens.
    pub fn run(&mut self, problem: &Problem, coverage: &mut Coverage) -> Verdict {
        let opened = match self.open(problem.device) {
            Ok(opened) => opened,
            Err(error) => return Verdict::Skipped(format!("no device: {}", variant(&error))),
        };
        let ctx = opened.ctx.clone();
        let uncaptured = Arc::clone(&opened.uncaptured);
        let result = catch_unwind(AssertUnwindSafe(|| compare(&ctx, problem, coverage)));
        let verdict = result.unwrap_or_else(|_| {
            let panic = PANIC.take().unwrap_or_default();
            let place = panic.split(": ").next().unwrap_or("").to_owned();
            Verdict::failed(format!("panic at {place}"), None, panic)
        });
        let errors = std::mem::take(&mut *uncaptured.lock().unwrap_or_else(|e| e.into_inner()));
        let broken = matches!(&verdict, Verdict::Failed(failure) if failure.kind.starts_with("panic"));
        if broken || !errors.is_empty() {
            self.open.remove(&problem.device);
        }
        match errors.first() {
            Some(error) if !broken => Verdict::failed("uncaptured error", None, error.clone()),
            _ => verdict,
        }
    }
}

thread_local! {
    /// Message of the last panic of this thread.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Panics are kept for the report instead of being printed.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        PANIC.set(Some(format!("{place}: {text}")));
    }));
}

/// The name of an error's variant.
fn variant(error: &Error) -> String {
    format!("{error:?}").split([' ', '{', '(']).next().unwrap_or("").to_owned()
}

/// Why a difference in what is refused is documented, if it is.
fn documented(problem: &Problem, error: &Error) -> Option<String> {
    let forced = problem.pinned != Pinned::default();
    let in_place = |input: &super::problem::Input| input.grad.as_ref().is_some_and(|g| g.mode == GradMode::InPlace);
    match error {
        Error::Buffer { .. } if overlapping(problem) => Some("output whose elements overlap".to_owned()),
        Error::Unsupported { .. } if forced => Some("forced schedule that cannot be".to_owned()),
        Error::Limit { .. } if forced => Some("forced schedule beyond the limits".to_owned()),
        Error::Unsupported { message } if message.contains("in-place") && problem.inputs.iter().any(in_place) => {
            Some("in-place gradient of what is read again".to_owned())
        }
        Error::Unsupported { message } if problem.outputs.separate && message.contains("apart from the loss") => {
            Some("gradient that only the forward part has".to_owned())
        }
        Error::Limit { limit, .. } if problem.device != Device::Adapter => Some((*limit).to_owned()),
        Error::Shape { expected, .. } if expected.contains("strides that merge") => {
            Some("strides that do not merge".to_owned())
        }
        _ => None,
    }
}

/// Whether some output's elements overlap, which must be refused.
fn overlapping(problem: &Problem) -> bool {
    let overlaps = |input: &super::problem::Input| {
        let long = input.shape.iter().filter(|size| **size > 1).count();
        long > 1 && !input.shape.contains(&0) && input.grad.as_ref().is_some_and(|grad| grad.home.sliding)
    };
    problem.inputs.iter().any(overlaps)
}

/// Whether both report the same label. Of a row with two labels out of range, either may be.
fn agree_on_label(problem: &Problem, got: &Outcome, want: &Outcome) -> bool {
    let labels = problem.inputs.iter().filter(|input| input.values == Values::Label).count();
    let row = |outcome: &Outcome| outcome.bad_label.map(|(row, _)| row);
    got.bad_label == want.bad_label || labels > 1 && row(got) == row(want)
}

fn compare(ctx: &Context, problem: &Problem, coverage: &mut Coverage) -> Verdict {
    let all: Vec<(Data, Vec<Host>)> = problem.data.iter().map(|data| (*data, values(problem, *data))).collect();
    let Some((_, first)) = all.first() else { return Verdict::Agreed };
    let references = Reference::<f64>::new(problem, first).and_then(|double| {
        let single = Reference::<f32>::new(problem, first)?;
        Ok((double, single))
    });
    let session = Session::new(ctx, problem);
    let ((double, single), mut session) = match (references, session) {
        (Ok(references), Ok(session)) => (references, session),
        (Err(cpu), Err(gpu)) if variant(&cpu) == variant(&gpu) => return Verdict::Refused(variant(&cpu)),
        (Ok(_), Err(gpu)) => {
            return match documented(problem, &gpu) {
                Some(why) => Verdict::Skipped(why),
                None => {
                    let message = gpu.to_string();
                    // Of a kernel that does not compile, what the compiler says.
                    let said = message.split("error: ").last().unwrap_or("");
                    let start: String = said.split(['\n', '`', '=']).next().unwrap_or("").chars().take(60).collect();
                    Verdict::failed(format!("the GPU refuses with {} ({start})", variant(&gpu)), None, message)
                }
            };
        }
        (Err(cpu), Ok(_)) => {
            return Verdict::failed(format!("the CPU alone refuses with {}", variant(&cpu)), None, cpu.to_string());
        }
        (Err(cpu), Err(gpu)) => {
            // Two mistakes, of which each path names one.
            if let Some(why) = documented(problem, &gpu) {
                return Verdict::Skipped(why);
            }
            let kind = format!("refused differently: CPU {}, GPU {}", variant(&cpu), variant(&gpu));
            return Verdict::failed(kind, None, format!("CPU: {cpu}\n  GPU: {gpu}"));
        }
    };
    if overlapping(problem) {
        return Verdict::failed("overlapping output accepted", None, "an output whose elements overlap is taken");
    }
    coverage.count_session(problem, &session.explain(), &session.kernels);
    for (data, hosts) in &all {
        let failed = |kind: String, message: String| Verdict::failed(kind, Some(*data), message);
        let (want, cpu) = match (double.run(hosts), single.run(hosts)) {
            (Ok(want), Ok(cpu)) => (want, cpu),
            (Err(error), _) | (_, Err(error)) => return failed("the CPU fails to run".to_owned(), error.to_string()),
        };
        let bases = session.bases(*data);
        let (got, changed) = match session.run(hosts, &bases) {
            Ok(outcome) => outcome,
            Err(error) => return failed(format!("the GPU fails with {}", variant(&error)), error.to_string()),
        };
        if let Some(changed) = changed {
            return failed("canary".to_owned(), changed);
        }
        match session.found_inf_error(&got) {
            Ok(None) => {}
            Ok(Some(message)) => return failed("found_inf".to_owned(), message),
            Err(error) => return failed(format!("found_inf fails with {}", variant(&error)), error.to_string()),
        }
        if !agree_on_label(problem, &got, &want) || !agree_on_label(problem, &cpu, &want) {
            let text = |outcome: &Outcome| format!("{:?}", outcome.bad_label);
            let kind = if got.bad_label.is_some() == want.bad_label.is_some() { "which label" } else { "label status" };
            let message = format!("(row, label): GPU {}, CPU f64 {}, f32 {}", text(&got), text(&want), text(&cpu));
            return failed(format!("{kind} is bad"), message);
        }
        if got.bad_group != want.bad_group || cpu.bad_group != want.bad_group {
            let text = |outcome: &Outcome| format!("{:?}", outcome.bad_group);
            let message = format!("GPU {}, CPU f64 {}, f32 {}", text(&got), text(&want), text(&cpu));
            return failed("which offset or id is bad".to_owned(), message);
        }
        let mut judge = Judge::new(problem, &double, &single, hosts, &want, &bases);
        // The GPU first: what it shares with the CPU's f32 path is a fault of the GPU's.
        let mismatch = judge.gpu(&got).or_else(|| judge.cpu(&cpu));
        if let Some(mismatch) = mismatch {
            return failed(kind(&mismatch), describe(&mismatch, problem, &got, &cpu));
        }
        coverage.count_data(*data, judge.beyond_contract, &want);
        // Then what both paths may have wrong.
        if let Some((rule, message)) = invariants::check(problem, *data, hosts, &want) {
            return failed(format!("f64 path: {rule}"), message);
        }
        match oracle::check(problem, data.flavour, hosts, data.seed) {
            Some(Err(wrong)) => return failed(format!("f64 path by the book: {}", wrong.what), wrong.message),
            Some(Ok(())) => coverage.count_oracle(),
            None => {}
        }
    }
    Verdict::Agreed
}

fn kind(mismatch: &Mismatch) -> String {
    let key = mismatch.key.to_string();
    let key = key.split(' ').next().unwrap_or("").to_owned();
    format!("{}: {} in {key}", mismatch.path, mismatch.class)
}

fn describe(mismatch: &Mismatch, problem: &Problem, gpu: &Outcome, cpu: &Outcome) -> String {
    let Mismatch { path, key, class, index, count, off, got, want, allowed } = mismatch;
    let other = if *path == "GPU" { cpu } else { gpu };
    let beside = other.outputs.get(key).and_then(|values| values.get(*index)).copied().unwrap_or(f64::NAN);
    let name = if *path == "GPU" { "CPU f32" } else { "GPU" };
    let (rows, cols) = problem.rows_cols();
    format!(
        "{path}, {class}: {key}[{index}] is {got:e}, want {want:e} ± {allowed:.1e} ({name} has {beside:e}); \
         {off} of {count} are off; {rows} rows of {cols}"
    )
}
