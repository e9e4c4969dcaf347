//! What a plan says about itself: trips over memory, bytes, dispatches. Nothing is run.

use crate::common::context;
use wgloss::Layout;
use wgloss::{Context, DType, GradMode, Loss, Plan, PlanSpec, losses};
use wgloss::{Kernel, Pinned};

const ROWS: usize = 64;
const COLS: usize = 1000;
const TENSOR: usize = 4 * ROWS * COLS;

fn classes(pinned: Pinned) -> PlanSpec {
    PlanSpec::new().input("input", DType::F32, &[ROWS, COLS]).input("target", DType::I32, &[ROWS]).pin(pinned)
}

fn explained(ctx: &Context, loss: &Loss, spec: &PlanSpec) -> String {
    ctx.plan(loss, spec).as_ref().map(Plan::explain).expect("a plan").to_owned()
}

/// The words of the last line that begins with `name`, after it.
#[track_caller]
fn words(text: &str, name: &str) -> Vec<String> {
    let line = text.lines().rev().find(|line| line.trim_start().starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no line of `{name}` in\n{text}")).trim_start();
    line[name.len()..].split_whitespace().map(str::to_owned).collect()
}

fn number(word: &str) -> usize {
    word.replace(',', "").parse().expect("a count of bytes")
}

/// Type, visits and bytes of a tensor in the last pass that names it.
#[track_caller]
fn line(text: &str, name: &str) -> (String, usize) {
    let words = words(text, name);
    let (bytes, unit) = (&words[words.len() - 2], &words[words.len() - 1]);
    assert_eq!(unit, "B");
    (words[..words.len() - 2].join(" "), number(bytes))
}

#[track_caller]
fn total(text: &str, name: &str) -> usize {
    number(&words(text, name)[0])
}

/// Bytes that move, but for those in the workspace.
#[track_caller]
fn moved_in_tensors(text: &str) -> usize {
    let words = words(text, "does move");
    let of_workspace = words.windows(6).find(|words| words[1..] == ["B", "of", "it", "in", "the"]);
    total(text, "does move") - of_workspace.map_or(0, |words| number(&words[0]))
}

#[test]
fn streamed_rows_are_read_twice_and_resident_ones_once() {
    let Some(ctx) = context() else { return };
    // Labels are counted by a pass of their own, then read with the logits.
    let labels = 4 * ROWS;
    let must = 2 * TENSOR + labels + 4;
    for (kernel, reads) in [(Kernel::Row, 2), (Kernel::RowResident { trips: 0 }, 1)] {
        let (workgroup, lanes, width) = (Some(64), Some(64), Some(4));
        let pinned = Pinned { kernel: Some(kernel), workgroup, lanes, width, ..Pinned::default() };
        let text = explained(ctx, &losses::cross_entropy(), &classes(pinned).grad("input"));
        let trips = if reads == 1 { "f32 1 read" } else { "f32 2 reads" };
        assert_eq!(line(&text, "input"), (trips.to_owned(), reads * TENSOR), "{text}");
        assert_eq!(line(&text, "gradient of input"), ("f32 1 write".to_owned(), TENSOR), "{text}");
        assert_eq!(line(&text, "target"), ("i32 1 read".to_owned(), labels), "{text}");
        assert_eq!(line(&text, "loss"), ("f32 1 write".to_owned(), 4), "{text}");
        assert_eq!(total(&text, "must move"), must, "{text}");
        assert_eq!(moved_in_tensors(&text), (reads + 1) * TENSOR + 2 * labels + 4, "{text}");
        let again = format!("{} B of it are read again", "256,000");
        assert_eq!(text.contains(&again), reads == 2, "{text}");
        assert!(text.contains("workgroup 64, 64 lanes a row, width 4"), "{text}");
        assert!(text.contains("(asked for)") && text.contains("1 row stage, 1 sum, 1 chunk, 1 dispatch, "), "{text}");
    }
}

#[test]
fn elements_by_themselves_move_once() {
    let Some(ctx) = context() else { return };
    let shape = [ROWS, COLS];
    let spec = PlanSpec::new().input("input", DType::BF16, &shape).input("target", DType::F32, &shape);
    let text = explained(ctx, &losses::mse(), &spec.clone().grad("input"));
    assert_eq!(line(&text, "input"), ("bf16 1 read".to_owned(), TENSOR / 2), "{text}");
    assert_eq!(line(&text, "target"), ("f32 1 read".to_owned(), TENSOR), "{text}");
    assert_eq!(line(&text, "gradient of input"), ("bf16 1 write".to_owned(), TENSOR / 2), "{text}");
    assert_eq!(total(&text, "must move"), 2 * TENSOR + 4, "{text}");
    assert_eq!(moved_in_tensors(&text), 2 * TENSOR + 4, "{text}");
    // Added to what is there: read as well.
    let text = explained(ctx, &losses::mse(), &spec.grad_mode("target", GradMode::Accumulate));
    assert_eq!(line(&text, "gradient of target"), ("f32 1 read 1 write".to_owned(), 2 * TENSOR), "{text}");
}

#[test]
fn broadcast_values_count_once_and_their_gradient_is_kept_first() {
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new()
        .input("input", DType::F32, &[ROWS, COLS])
        .input("target", DType::F32, &[1, COLS])
        .grad("target");
    let text = explained(ctx, &losses::mse().broadcast(true), &spec);
    let small = 4 * COLS;
    assert_eq!(total(&text, "must move"), TENSOR + 2 * small + 4, "{text}");
    // Written whole by the pass, read back, summed.
    assert_eq!(moved_in_tensors(&text), TENSOR + small + 2 * TENSOR + small + 4, "{text}");
    assert_eq!(line(&text, "gradient of target"), ("f32 1 write".to_owned(), small), "{text}");
    assert!(text.contains("kept in f32"), "{text}");
    // The same where strides repeat a row.
    let repeated = Layout { shape: vec![ROWS, COLS], strides: vec![0, 1] };
    let spec = PlanSpec::new().input("input", DType::F32, &[ROWS, COLS]).input_with("target", DType::F32, repeated);
    assert_eq!(total(&explained(ctx, &losses::mse(), &spec), "must move"), TENSOR + small + 4);
}

#[test]
fn chunks_and_their_dispatches_are_counted() {
    let Some(_) = context() else { return };
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 16, ..wgpu::Limits::default() };
    let small = Context::with_limits(limits).expect("a device with smaller limits");
    let text = explained(&small, &losses::cross_entropy(), &classes(Pinned::default()).grad("input"));
    // 16 rows of 4,000 bytes fit a binding of 64 KiB.
    assert!(text.contains("4 chunks, 4 dispatches, 1 dispatch for the sums"), "{text}");
    assert_eq!(line(&text, "gradient of input"), ("f32 1 write".to_owned(), TENSOR), "{text}");
}
