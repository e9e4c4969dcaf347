//! Tuned plans: the same results, told with their medians, found again in a cache. No test depends on what is faster.

use crate::common::compare::{assert_grads, random};
use crate::common::context;
use std::path::PathBuf;
use std::time::Duration;
use wgloss::{
    Bindings, Context, DType, GradMode, HostTensor, Loss, Plan, PlanSpec, Reduction, Tensor, TuneCache, TuneClock,
    TuneOptions, cpu, losses,
};
use wgloss::{Kernel, Pinned};

const ROWS: usize = 33;
const COLS: usize = 300;

fn spec() -> PlanSpec {
    PlanSpec::new().input("input", DType::F32, &[ROWS, COLS]).input("target", DType::I32, &[ROWS])
}

fn quick() -> TuneOptions {
    TuneOptions::new().repetitions(3).candidates(2)
}

/// A file of its own in the folder for temporary files, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        Scratch(std::env::temp_dir().join(format!("wgloss-tune-{}-{name}.txt", std::process::id())))
    }

    fn cache(&self) -> TuneCache {
        TuneCache::open(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The plan on its own data against the CPU; the logits may lie anywhere in their buffer.
#[track_caller]
fn assert_right(ctx: &Context, plan: &Plan, cols: usize, offset: usize) {
    let x = random(ROWS * cols, 3);
    let y: Vec<i32> = (0..ROWS).map(|row| (row * 7919 % cols) as i32).collect();
    let host = [("input", HostTensor::f32(&x, &[ROWS, cols])), ("target", HostTensor::i32(&y, &[ROWS]))];
    let want = cpu::forward_backward(&losses::cross_entropy(), &host, &["input"]).unwrap();
    let mut padded = vec![0.0; offset];
    padded.extend(&x);
    let whole = Tensor::from_slice(ctx, &padded, &[padded.len()]).unwrap();
    let xs = whole.view(offset as u64, &[ROWS, cols], &[cols, 1]).unwrap();
    let ys = Tensor::from_slice(ctx, &y, &[ROWS]).unwrap();
    let bound = plan.bind(&Bindings::new().input("input", &xs).input("target", &ys)).unwrap();
    bound.submit().unwrap();
    let (got, expected) = (f64::from(bound.read_loss().unwrap()), want.loss().unwrap());
    assert!((got - expected).abs() <= 3e-6 * expected.abs() + 1e-6, "{got}, want {expected}");
    assert_grads("tuned", &bound.grad("input").unwrap().to_vec().unwrap(), want.grad("input").unwrap(), cols);
}

#[test]
fn a_tuned_plan_computes_the_same_and_says_what_was_measured() {
    let Some(ctx) = context() else { return };
    let plan = ctx.plan(&losses::cross_entropy(), &spec().grad("input")).unwrap();
    assert!(plan.tuning().is_none() && !plan.explain().contains("tuned"));
    let tuned = plan.tune(&quick()).unwrap();
    let tuning = tuned.tuning().unwrap();
    assert!(tuning.candidates.len() == 3 && tuning.candidates[0].schedule == Pinned::default(), "{tuning}");
    assert_ne!(tuning.clock, TuneClock::Cache);
    for candidate in &tuning.candidates {
        assert_eq!(candidate.dropped, None, "{tuning}");
        assert!(candidate.median_ms.unwrap() > 0.0 && candidate.runs >= 1 && !candidate.passes.is_empty(), "{tuning}");
    }
    let chosen = &tuning.candidates[tuning.chosen];
    assert!(tuning.chosen == 0 || chosen.share.unwrap() < 0.97, "{tuning}");
    let text = tuned.explain();
    assert!(text.contains("tuned: medians by") && text.contains("default: "), "{text}");
    assert_eq!(text.matches(" ms ").count(), tuning.candidates.len(), "{text}");
    assert_right(ctx, &tuned, COLS, 0);
    assert_right(ctx, &plan, COLS, 0);
}

#[test]
fn every_candidate_of_every_mode_and_type_agrees_with_the_default() {
    let Some(ctx) = context() else { return };
    let classes =
        |dtype, cols| PlanSpec::new().input("input", dtype, &[ROWS, cols]).input("target", DType::I32, &[ROWS]);
    let elements = |dtype| PlanSpec::new().input("input", dtype, &[ROWS, 41]).input("target", dtype, &[ROWS, 41]);
    let ce = || Loss::from(losses::cross_entropy());
    let none = ce().reduction(Reduction::None);
    let sum = losses::mse().reduction(Reduction::Sum);
    let cases: [(&str, Loss, PlanSpec); 7] = [
        ("in place", ce(), classes(DType::F32, 77).grad_mode("input", GradMode::InPlace)),
        ("added", ce(), classes(DType::F32, 64).grad_mode("input", GradMode::Accumulate).accumulate_loss()),
        ("bf16, odd columns", ce(), classes(DType::BF16, 77).grad("input")),
        (
            "class weights",
            ce(),
            classes(DType::F32, 12).input("weight", DType::F32, &[12]).grad("weight").denominator(),
        ),
        ("each row", none, classes(DType::F16, 128).grad("input").extra("predicted")),
        ("elements", sum, elements(DType::BF16).grad("input").grad_mode("target", GradMode::Accumulate)),
        // exp(input), over itself again and again, would be infinite soon.
        (
            "growing",
            losses::poisson_nll().reduction(Reduction::Sum).into(),
            elements(DType::F32).grad_mode("input", GradMode::InPlace),
        ),
    ];
    for (what, loss, spec) in cases {
        let tuned = ctx.plan(&loss, &spec).unwrap().tune(&TuneOptions::new().repetitions(3)).unwrap();
        let tuning = tuned.tuning().unwrap();
        assert!(tuning.candidates.len() > 1, "{what}: {tuning}");
        let dropped = tuning.candidates.iter().find_map(|candidate| candidate.dropped.as_ref());
        assert_eq!(dropped, None, "{what}: {tuning}");
    }
}

#[test]
fn a_second_tune_with_a_cache_measures_nothing() {
    let Some(ctx) = context() else { return };
    let scratch = Scratch::new("second");
    let options = quick().cache(scratch.cache());
    let tune = || ctx.plan(&losses::cross_entropy(), &spec().grad("input")).unwrap().tune(&options).unwrap();
    let first = tune();
    let chosen = |plan: &Plan| plan.tuning().map(|t| t.candidates[t.chosen].schedule);
    let clock = |plan: &Plan| plan.tuning().map(|t| t.clock);
    assert_ne!(clock(&first), Some(TuneClock::Cache));
    assert_eq!(first.tuning().unwrap().not_kept, None);
    let second = tune();
    assert_eq!((clock(&second), chosen(&second)), (Some(TuneClock::Cache), chosen(&first)));
    assert!(second.tuning().unwrap().candidates.iter().all(|candidate| candidate.runs == 0));
    assert!(second.explain().contains("found in the cache"), "{}", second.explain());
    assert_right(ctx, &second, COLS, 0);
    // As many rows as round up to the same power of two; then another loss, other rows.
    let same = PlanSpec::new().input("input", DType::F32, &[60, COLS]).input("target", DType::I32, &[60]).grad("input");
    let same = ctx.plan(&losses::cross_entropy(), &same).unwrap().tune(&options).unwrap();
    assert_eq!(clock(&same), Some(TuneClock::Cache));
    let smooth = losses::cross_entropy().label_smoothing(0.1);
    let other = ctx.plan(&smooth, &spec().grad("input")).unwrap().tune(&options).unwrap();
    assert_ne!(clock(&other), Some(TuneClock::Cache));
    // A damaged file is measured around, and written anew.
    std::fs::write(&scratch.0, b"not a cache").unwrap();
    assert_ne!(clock(&tune()), Some(TuneClock::Cache));
    assert_eq!(clock(&tune()), Some(TuneClock::Cache));
}

#[test]
fn what_cannot_be_kept_is_still_tuned() {
    let Some(ctx) = context() else { return };
    let plan = ctx.plan(&losses::cross_entropy(), &spec().grad("input")).unwrap();
    // A folder is no file.
    let tuned = plan.tune(&quick().cache(TuneCache::open(std::env::temp_dir()))).unwrap();
    assert!(tuned.tuning().unwrap().not_kept.is_some() && tuned.explain().contains("could not be kept"));
    // Without an adapter nobody knows whose outcome it is.
    let scratch = Scratch::new("nobody");
    let theirs = Context::from_wgpu(ctx.device().clone(), ctx.queue().clone(), None).unwrap();
    let options = quick().cache(scratch.cache());
    let tuned = theirs.plan(&losses::cross_entropy(), &spec().grad("input")).unwrap().tune(&options).unwrap();
    assert!(tuned.tuning().is_some() && !scratch.0.exists());
    assert_right(&theirs, &tuned, COLS, 0);
}

#[test]
fn without_timestamps_the_wall_clock_tells_and_says_so() {
    let Some(_) = context() else { return };
    let plain = Context::with_limits(wgpu::Limits::default()).expect("a device without features");
    let plan = plain
        .plan(&losses::mse(), &PlanSpec::new().input("input", DType::F32, &[999]).input("target", DType::F32, &[999]));
    let tuned = plan.unwrap().tune(&quick()).unwrap();
    assert_eq!(tuned.tuning().unwrap().clock, TuneClock::Wall);
    assert!(tuned.explain().contains("by wall clock"), "{}", tuned.explain());
}

#[test]
fn without_time_only_the_default_is_measured() {
    let Some(ctx) = context() else { return };
    let plan = ctx.plan(&losses::cross_entropy(), &spec().grad("input")).unwrap();
    let tuned = plan.tune(&quick().budget(Duration::ZERO)).unwrap();
    let tuning = tuned.tuning().unwrap();
    assert!(tuning.chosen == 0 && tuning.candidates[0].median_ms.is_some(), "{tuning}");
    assert!(tuning.candidates[1..].iter().all(|candidate| candidate.dropped.is_some()), "{tuning}");
}

#[test]
fn tensors_that_the_tuned_schedule_cannot_take_get_the_default() {
    let Some(ctx) = context() else { return };
    // Rows that just fit in registers, unless they begin anywhere in a vector.
    let (cols, lanes) = if ctx.limits().software { (1024, 8) } else { (1024, 32) };
    let spec = PlanSpec::new().input("input", DType::F32, &[ROWS, cols]).input("target", DType::I32, &[ROWS]);
    let scratch = Scratch::new("fallback");
    let asked = || ctx.plan(&losses::cross_entropy(), &spec.clone().grad("input")).unwrap();
    let options = quick().budget(Duration::ZERO).cache(scratch.cache());
    asked().tune(&options).unwrap();
    let text = std::fs::read_to_string(&scratch.0).unwrap();
    let resident = text.replace("\tdefault\t", &format!("\tresident workgroup=64 lanes={lanes}\t"));
    assert_ne!(text, resident, "only the default was measured:\n{text}");
    std::fs::write(&scratch.0, resident).unwrap();
    let tuned = asked().tune(&options).unwrap();
    let tuning = tuned.tuning().unwrap();
    let kernel = tuning.candidates[tuning.chosen].schedule.kernel;
    assert!(matches!(kernel, Some(Kernel::RowResident { .. })), "{tuning}");
    assert!(tuned.explain().contains("resident rows, "), "{}", tuned.explain());
    assert_right(ctx, &tuned, cols, 0);
    assert_right(ctx, &tuned, cols, 1);
}
