//! Cross entropy and its gradient: every schedule and storage type, odd column counts, classes at axis 1, short rows
//! beside a plain kernel. Each is compared with the f64 path before it is timed, by wall clock from submit to done.
//!
//! Bytes are those that must move: logits and labels read once, gradient and loss written once. Software adapters get
//! fewer rows, printed in every name.

mod common;
#[path = "softmax/plain.rs"]
mod plain;
#[path = "common/step.rs"]
mod step;
#[path = "common/values.rs"]
mod values;

use common::{check, check_bound, context, group};
use criterion::{Criterion, criterion_group, criterion_main};
use measure::contract::Reference;
use measure::problem::Storage;
use plain::Plain;
use step::{step, wait};
use values::{labels, logits};
use wgloss::{Bindings, Bound, Context, HostTensor, Loss, PlanSpec, Reduction, Tensor, losses};
use wgloss::{Kernel, Pinned};

const KERNELS: [(&str, Option<Kernel>); 4] = [
    ("auto", None),
    ("row", Some(Kernel::Row)),
    ("resident", Some(Kernel::RowResident { trips: 0 })),
    ("split", Some(Kernel::RowSplit { splits: 4 })),
];

/// A mean; a sum in f16, where the gradients of a mean over many rows are subnormal and tell nothing.
fn cross_entropy(dtype: Storage) -> Loss {
    let reduction = if dtype == Storage::F16 { Reduction::Sum } else { Reduction::Mean };
    losses::cross_entropy().reduction(reduction).into()
}

/// Logits and labels of one shape on the device, and what they must give. Classes are at axis 1.
struct Case {
    loss: Loss,
    x: Tensor,
    y: Tensor,
    reference: Reference,
}

impl Case {
    fn new(ctx: &Context, shape: &[usize], values: &[f32], labels: &[i32], dtype: Storage) -> Case {
        let loss = cross_entropy(dtype);
        let rows: Vec<usize> = [&shape[..1], &shape[2..]].concat();
        let values: Vec<f32> = values.iter().map(|x| dtype.round(*x)).collect();
        let x = dtype.tensor(ctx, &values, shape).expect("logits");
        let host = [("input", HostTensor::f32(&values, shape)), ("target", HostTensor::i32(labels, &rows))];
        let reference = Reference::of(&loss, &host, Some(("input", shape)), dtype).expect("the f64 path");
        let y = Tensor::from_slice(ctx, labels, &rows).expect("labels");
        Case { loss, x, y, reference }
    }

    fn matrix(ctx: &Context, rows: usize, cols: usize, dtype: Storage) -> Case {
        Case::new(ctx, &[rows, cols], &logits(rows * cols), &labels(rows, cols), dtype)
    }

    /// Checked.
    fn bind(&self, ctx: &Context, what: &str, pinned: Pinned) -> wgloss::Result<Bound> {
        let inputs = [("input", &self.x), ("target", &self.y)];
        let plan = ctx.plan(&self.loss, &PlanSpec::new().like(&inputs).grad("input").pin(pinned))?;
        let bound = plan.bind(&Bindings::new().inputs(&inputs))?;
        check_bound(&self.reference, what, &bound);
        Ok(bound)
    }

    fn time(&self, criterion: &mut Criterion, ctx: &Context, name: &str, id: &str, pinned: Pinned) {
        let bound = match self.bind(ctx, &format!("{name}, {id}"), pinned) {
            Ok(bound) => bound,
            Err(error) => {
                eprintln!("{name}/{id}: skipped: {error}");
                return;
            }
        };
        let mut group = group(criterion, name, bound.bytes());
        group.bench_function(id, |b| b.iter(|| step(ctx, &bound)));
        group.finish();
    }
}

fn schedules(criterion: &mut Criterion) {
    let Some(ctx) = context() else { return };
    let shapes = if ctx.limits().software { [(256, 32000), (2048, 1000)] } else { [(1024, 32000), (8192, 1000)] };
    for (rows, cols) in shapes {
        for dtype in Storage::ALL {
            let case = Case::matrix(&ctx, rows, cols, dtype);
            for (kernel, pinned) in KERNELS {
                let pinned = Pinned { kernel: pinned, ..Pinned::default() };
                case.time(criterion, &ctx, "schedules", &format!("[{rows}, {cols}] {} {kernel}", dtype.name()), pinned);
            }
        }
    }
}

/// Rows that begin anywhere in a vector, beside rows of the nearest multiple of 64: per byte, within 15%.
fn odd_columns(criterion: &mut Criterion) {
    let Some(ctx) = context() else { return };
    let rows = if ctx.limits().software { 128 } else { 1024 };
    for dtype in Storage::ALL {
        for cols in [50304, 50257] {
            let case = Case::matrix(&ctx, rows, cols, dtype);
            case.time(criterion, &ctx, "odd columns", &format!("[{rows}, {cols}] {}", dtype.name()), Pinned::default());
        }
    }
}

/// Segmentation: classes at axis 1, and the same numbers with the classes last.
fn class_axis(criterion: &mut Criterion) {
    let Some(ctx) = context() else { return };
    let (images, side) = if ctx.limits().software { (2, 256) } else { (8, 512) };
    let (classes, pixels) = (21, side * side);
    let rows = images * pixels;
    let last = logits(rows * classes);
    let labels = labels(rows, classes);
    let mut first = vec![0.0; last.len()];
    for (row, values) in last.chunks(classes).enumerate() {
        for (class, value) in values.iter().enumerate() {
            first[(row / pixels * classes + class) * pixels + row % pixels] = *value;
        }
    }
    for dtype in [Storage::F32, Storage::Bf16] {
        let axis_1 = Case::new(&ctx, &[images, classes, side, side], &first, &labels, dtype);
        let id = format!("[{images}, {classes}, {side}, {side}] {}", dtype.name());
        axis_1.time(criterion, &ctx, "class axis", &id, Pinned::default());
        let axis_last = Case::new(&ctx, &[rows, classes], &last, &labels, dtype);
        axis_last.time(
            criterion,
            &ctx,
            "class axis",
            &format!("[{rows}, {classes}] {}", dtype.name()),
            Pinned::default(),
        );
    }
}

/// Beside one invocation a row, as one would first write it.
fn short_rows(criterion: &mut Criterion) {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (65536, 10);
    let case = Case::matrix(&ctx, rows, cols, Storage::F32);
    let bound = case.bind(&ctx, "short rows", Pinned::default()).expect("a bound plan");
    let plain = Plain::new(&ctx, &case.x, &case.y);
    plain.submit(&ctx);
    let loss = plain.loss.to_vec::<f32>().expect("loss")[0];
    check(&case.reference, "the plain kernel", f64::from(loss), &common::read(&plain.grad));
    let mut group = group(criterion, "short rows", bound.bytes());
    group.sample_size(50).bench_function(format!("[{rows}, {cols}] wgloss"), |b| b.iter(|| step(&ctx, &bound)));
    group.bench_function(format!("[{rows}, {cols}] plain kernel"), |b| {
        b.iter(|| {
            plain.submit(&ctx);
            wait(&ctx);
        });
    });
    group.finish();
}

criterion_group!(benches, short_rows, schedules, odd_columns, class_axis);
criterion_main!(benches);
