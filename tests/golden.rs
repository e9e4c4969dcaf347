//! Runs every golden file in the folder `WGLOSS_GOLDEN` (default: the repository's) on the GPU and the CPU path.
//!
//! Prints one row a loss; the last line is `golden: N losses, M cases, K failed`. A file whose loss is unknown fails,
//! unless `WGLOSS_GOLDEN_ALLOW_MISSING=1`. An argument runs only files with that text in their name.

mod common;

use common::golden::{self, Deviation, GoldenCase, Tolerance};
use common::sequence::OnBoth;
use common::{Outcome, context, loss_of, on_cpu, on_gpu, sequence};
use rayon::prelude::*;
use std::path::Path;
use std::process::ExitCode;
use wgloss::{Context, Loss};

/// What became of one output of one case on one path.
#[derive(Default)]
struct Checked {
    /// Largest error in units of what is allowed.
    worst: f64,
    /// The first number that is off, in words.
    complaint: Option<String>,
}

/// What became of the cases of one file.
#[derive(Default)]
struct Row<'d> {
    name: String,
    cases: usize,
    /// Whether there is a loss or an operator of that name.
    is_known: bool,
    gpu: f64,
    cpu: f64,
    deviations: usize,
    failed: usize,
    complaints: Vec<String>,
    /// Deviations of whose kind there was a case.
    used: Vec<&'d Deviation>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        println!("golden: test");
        return ExitCode::SUCCESS;
    }
    let filter = args.iter().find(|arg| !arg.starts_with('-'));
    let folder = golden::folder();
    let deviations = golden::deviations(&folder);
    let files: Vec<_> = golden::files(&folder)
        .into_iter()
        .filter(|path| filter.is_none_or(|text| golden::stem(path).contains(text.as_str())))
        .collect();
    let allow_missing = std::env::var("WGLOSS_GOLDEN_ALLOW_MISSING").is_ok_and(|value| value == "1");
    let gpu = context().is_some();
    println!("{:<28} {:>5}  {:>9} {:>9}  {:>10}", "loss", "cases", "GPU error", "CPU error", "deviations");
    let (mut known, mut total, mut failed) = (0, 0, 0);
    let mut unused: Vec<&Deviation> = deviations.iter().collect();
    // Side by side: kernels are what this costs. A file is one thread's, whose device then has its loss's kernels.
    let rows: Vec<Row<'_>> = files.par_iter().with_max_len(1).map(|path| run_file(path, &deviations)).collect();
    for row in rows {
        let Row { name, cases, .. } = &row;
        row.complaints.iter().for_each(|complaint| println!("  {complaint}"));
        if !row.is_known {
            println!("{name:<28} {cases:>5}  missing");
            failed += usize::from(!allow_missing);
            continue;
        }
        let gpu_error = if gpu { format!("{:9.1e}", row.gpu) } else { format!("{:>9}", "-") };
        let verdict = if row.failed == 0 { "pass".to_owned() } else { format!("FAIL ({} cases)", row.failed) };
        println!("{name:<28} {cases:>5}  {gpu_error} {:9.1e}  {:>10}  {verdict}", row.cpu, row.deviations);
        known += 1;
        total += cases;
        failed += row.failed;
        unused.retain(|deviation| !row.used.iter().any(|used| std::ptr::eq(*used, *deviation)));
    }
    println!("errors are in units of what is allowed (tests/golden/README.md; CPU: 1e-9), 1 or less passes");
    if filter.is_none() {
        let loaded = |loss: &str| files.iter().any(|path| golden::stem(path) == loss);
        for deviation in unused.iter().filter(|d| loaded(&d.loss)) {
            println!("deviations.toml: no {} case is of kind {}", deviation.loss, deviation.kind);
            failed += 1;
        }
    }
    println!("golden: {known} losses, {total} cases, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All cases of a file.
fn run_file<'d>(path: &Path, deviations: &'d [Deviation]) -> Row<'d> {
    let cases = golden::load(path);
    let mut row = Row { name: golden::stem(path), cases: cases.len(), ..Row::default() };
    row.is_known = subject(&cases[0]).is_some();
    if row.is_known {
        cases.iter().for_each(|case| run(case, deviations, &mut row));
    }
    row
}

/// What a case is about: a loss of the catalogue, or an operator over sequences.
enum Subject {
    Loss(Box<Loss>),
    Sequence(OnBoth),
}

fn subject(case: &GoldenCase) -> Option<Subject> {
    let loss = || loss_of(&case.file, &case.to_oracle()).map(|loss| Subject::Loss(Box::new(loss)));
    sequence::of_golden(case).map(Subject::Sequence).or_else(loss)
}

impl Subject {
    fn on_cpu(&self, case: &GoldenCase, grads: &[&str]) -> wgloss::Result<Outcome> {
        match self {
            Subject::Loss(loss) => on_cpu(loss, &case.to_oracle(), grads),
            Subject::Sequence(both) => Ok(both.by_names_of_file(both.on_cpu(&both.classes())?, grads)),
        }
    }

    fn on_gpu(&self, ctx: &Context, case: &GoldenCase, grads: &[&str]) -> wgloss::Result<Outcome> {
        match self {
            Subject::Loss(loss) => on_gpu(ctx, loss, &case.to_oracle(), grads),
            Subject::Sequence(both) => Ok(both.by_names_of_file(both.on_gpu(ctx, &both.classes())?, grads)),
        }
    }
}

fn run<'d>(case: &GoldenCase, deviations: &'d [Deviation], row: &mut Row<'d>) {
    let subject = subject(case).expect("a known loss");
    let grads = case.grads();
    let mut promises = Vec::new();
    let mut departs = false;
    for output in case.outputs.keys() {
        let promised = promised(case, output, deviations, &mut row.used);
        departs |= promised.iter().any(Option::is_some);
        promises.push((output.as_str(), promised));
    }
    row.deviations += usize::from(departs);
    let mut complaints = Vec::new();
    let mut judge = |path: &str, outcome: wgloss::Result<Outcome>, flushed: Option<&Outcome>, worst: &mut f64| {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => return complaints.push(format!("{path}: {error}")),
        };
        if outcome.loss_shape != case.outputs["loss"].shape {
            let want = &case.outputs["loss"].shape;
            complaints.push(format!("{path}: shape of the loss is {:?}, want {want:?}", outcome.loss_shape));
        }
        for (output, promised) in &promises {
            let checked = check(case, output, promised, path, &outcome, flushed);
            *worst = worst.max(checked.worst);
            complaints.extend(checked.complaint);
        }
    };
    judge("CPU", subject.on_cpu(case, &grads), None, &mut row.cpu);
    if let Some(ctx) = context() {
        // A device may flush subnormal inputs to zero, one by one.
        let flushed = case.has_subnormals().then(|| subject.on_cpu(&case.flushed(), &grads));
        let flushed = flushed.and_then(Result::ok);
        judge("GPU", subject.on_gpu(ctx, case, &grads), flushed.as_ref(), &mut row.gpu);
    }
    row.failed += usize::from(!complaints.is_empty());
    row.complaints.extend(complaints.into_iter().map(|complaint| format!("{}/{}: {complaint}", case.file, case.name)));
}

/// What wgloss promises instead of the library's value, element by element.
fn promised<'d>(
    case: &GoldenCase,
    output: &str,
    deviations: &'d [Deviation],
    used: &mut Vec<&'d Deviation>,
) -> Vec<Option<f64>> {
    let want = case.outputs[output].to_f64();
    let mut promised = vec![None; want.len()];
    for deviation in deviations {
        if deviation.loss != case.file || !deviation.outputs.iter().any(|known| known == output) {
            continue;
        }
        for (place, promise) in deviation.promises(case, output).into_iter().enumerate() {
            if promise.is_some() {
                promised[place] = promise;
                used.push(deviation);
            }
        }
    }
    promised
}

fn check(
    case: &GoldenCase,
    output: &str,
    promised: &[Option<f64>],
    path: &str,
    outcome: &Outcome,
    flushed: Option<&Outcome>,
) -> Checked {
    let want = case.outputs[output].to_f64();
    let of = |outcome: &Outcome| match output.strip_prefix("grad_") {
        Some(input) => outcome.grads[input].clone(),
        None => outcome.loss.clone(),
    };
    let got = of(outcome);
    let flushed = flushed.map(of);
    if got.len() != want.len() {
        let complaint = format!("{path} {output}: {} numbers, want {}", got.len(), want.len());
        return Checked { worst: f64::INFINITY, complaint: Some(complaint) };
    }
    let tolerance = match path {
        "CPU" => Tolerance::double(&want),
        _ => Tolerance::single(case, output, &want),
    };
    let mut checked = Checked::default();
    for (place, &got) in got.iter().enumerate() {
        let want = promised[place].unwrap_or(want[place]);
        let mut units = tolerance.units(got, want);
        if let Some(flushed) = &flushed {
            units = units.min(tolerance.units(got, flushed[place]));
        }
        if units > 1.0 && checked.complaint.is_none() {
            let allowed = tolerance.atol + tolerance.rtol * want.abs();
            checked.complaint = Some(format!("{path} {output}[{place}] is {got}, want {want} ± {allowed:.1e}"));
        }
        checked.worst = checked.worst.max(units);
    }
    checked
}
