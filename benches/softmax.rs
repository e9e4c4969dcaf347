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

use common::{Reference, context, group, labels, logits};
use criterion::{Criterion, criterion_group, criterion_main};
use half::{bf16, f16};
use plain::Plain;
use step::{step, wait};
use wgloss::{
    Bindings, Bound, Context, DType, HostTensor, Loss, PlanSpec, Reduction, Tensor, losses, widen_bf16, widen_f16,
};
use wgloss::{Force, Kernel};

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

const KERNELS: [(&str, Option<Kernel>); 4] = [
    ("auto", None),
    ("row", Some(Kernel::Row)),
    ("resident", Some(Kernel::RowResident { trips: 0 })),
    ("split", Some(Kernel::RowSplit { splits: 4 })),
];

/// A mean; a sum in f16, where the gradients of a mean over many rows are subnormal and tell nothing.
fn cross_entropy(dtype: DType) -> Loss {
    let reduction = if dtype == DType::F16 { Reduction::Sum } else { Reduction::Mean };
    losses::cross_entropy().reduction(reduction).into()
}

/// Values rounded to how the device stores them, and the tensor that holds them.
fn stored(ctx: &Context, values: &[f32], shape: &[usize], dtype: DType) -> (Vec<f32>, Tensor) {
    let made = match dtype {
        DType::F16 => {
            let values: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
            (widen_f16(&values), Tensor::from_slice(ctx, &values, shape))
        }
        DType::BF16 => {
            let values: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
            (widen_bf16(&values), Tensor::from_slice(ctx, &values, shape))
        }
        _ => (values.to_vec(), Tensor::from_slice(ctx, values, shape)),
    };
    (made.0, made.1.expect("a tensor of these values"))
}

/// Logits and labels of one shape on the device, and what they must give. Classes are at axis 1.
struct Case {
    loss: Loss,
    x: Tensor,
    y: Tensor,
    reference: Reference,
}

impl Case {
    fn new(ctx: &Context, shape: &[usize], values: &[f32], labels: &[i32], dtype: DType) -> Case {
        let loss = cross_entropy(dtype);
        let rows: Vec<usize> = [&shape[..1], &shape[2..]].concat();
        let (values, x) = stored(ctx, values, shape, dtype);
        let host = [("input", HostTensor::f32(&values, shape)), ("target", HostTensor::i32(labels, &rows))];
        let reference = Reference::new(&loss, &host);
        let y = Tensor::from_slice(ctx, labels, &rows).expect("labels");
        Case { loss, x, y, reference }
    }

    fn matrix(ctx: &Context, rows: usize, cols: usize, dtype: DType) -> Case {
        Case::new(ctx, &[rows, cols], &logits(rows * cols), &labels(rows, cols), dtype)
    }

    /// Checked.
    fn bind(&self, ctx: &Context, what: &str, force: Force) -> wgloss::Result<Bound> {
        let inputs = [("input", &self.x), ("target", &self.y)];
        let plan = ctx.plan(&self.loss, &PlanSpec::new().like(&inputs).grad("input").force(force))?;
        let bound = plan.bind(&Bindings::new().inputs(&inputs))?;
        self.reference.check_bound(what, &bound);
        Ok(bound)
    }

    fn time(&self, criterion: &mut Criterion, ctx: &Context, name: &str, id: &str, force: Force) {
        let bound = match self.bind(ctx, &format!("{name}, {id}"), force) {
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
        for dtype in DTYPES {
            let case = Case::matrix(&ctx, rows, cols, dtype);
            for (kernel, force) in KERNELS {
                let force = Force { kernel: force, ..Force::default() };
                case.time(criterion, &ctx, "schedules", &format!("[{rows}, {cols}] {dtype} {kernel}"), force);
            }
        }
    }
}

/// Rows that begin anywhere in a vector, beside rows of the nearest multiple of 64: per byte, within 15%.
fn odd_columns(criterion: &mut Criterion) {
    let Some(ctx) = context() else { return };
    let rows = if ctx.limits().software { 128 } else { 1024 };
    for dtype in DTYPES {
        for cols in [50304, 50257] {
            let case = Case::matrix(&ctx, rows, cols, dtype);
            case.time(criterion, &ctx, "odd columns", &format!("[{rows}, {cols}] {dtype}"), Force::default());
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
    for dtype in [DType::F32, DType::BF16] {
        let axis_1 = Case::new(&ctx, &[images, classes, side, side], &first, &labels, dtype);
        let id = format!("[{images}, {classes}, {side}, {side}] {dtype}");
        axis_1.time(criterion, &ctx, "class axis", &id, Force::default());
        let axis_last = Case::new(&ctx, &[rows, classes], &last, &labels, dtype);
        axis_last.time(criterion, &ctx, "class axis", &format!("[{rows}, {classes}] {dtype}"), Force::default());
    }
}

/// Beside one invocation a row, as one would first write it.
fn short_rows(criterion: &mut Criterion) {
    let Some(ctx) = context() else { return };
    let (rows, cols) = (65536, 10);
    let case = Case::matrix(&ctx, rows, cols, DType::F32);
    let bound = case.bind(&ctx, "short rows", Force::default()).expect("a bound plan");
    let plain = Plain::new(&ctx, &case.x, &case.y);
    plain.submit(&ctx);
    let loss = plain.loss.to_vec::<f32>().expect("loss")[0];
    case.reference.check("the plain kernel", loss, &common::read(&plain.grad), DType::F32);
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
