//! Shader modules are made without bounds checks, so hostile labels must not reach past their row: a canary lies
//! before and behind every buffer that a kernel touches.

use crate::common::context;
use wgloss::{Bindings, DType, GradMode, Loss, PlanSpec, Tensor, losses};
use wgloss::{Kernel, Pinned};

const ROWS: usize = 7;
// Enough for pairs of vectors to be loaded, and not a multiple of them.
const COLS: usize = 68;
const MARGIN: usize = 64;
const CANARY: f32 = 123.5;

#[test]
fn hostile_labels_change_nothing_but_their_row() {
    let Some(ctx) = context() else { return };
    let hostile = [COLS as i32, -1, i32::MAX, i32::MIN, 0x4000_0000, -2];
    let kernels = [Kernel::Row, Kernel::RowResident { trips: 1 }, Kernel::RowSplit { splits: 3 }];
    let all: [fn() -> Loss; 2] = [|| losses::cross_entropy().into(), || losses::multiclass_focal().into()];
    for loss in all {
        for kernel in kernels {
            for width in [1, 4, 8] {
                for mode in [GradMode::Write, GradMode::InPlace, GradMode::Accumulate] {
                    let split = matches!(kernel, Kernel::RowSplit { .. });
                    if split && mode == GradMode::InPlace {
                        continue; // refused: the gathered input would be overwritten by another workgroup
                    }
                    for label in hostile {
                        let pinned = Pinned { kernel: Some(kernel), width: Some(width), ..Pinned::default() };
                        check(ctx, &loss(), pinned, mode, label);
                    }
                }
            }
        }
    }
}

fn check(ctx: &wgloss::Context, loss: &Loss, pinned: Pinned, mode: GradMode, label: i32) {
    let padded = |fill: &dyn Fn(usize) -> f32| -> (Vec<f32>, Tensor) {
        let mut all = vec![CANARY; ROWS * COLS + 2 * MARGIN];
        for k in 0..ROWS * COLS {
            all[MARGIN + k] = fill(k);
        }
        let whole = Tensor::from_slice(ctx, &all, &[all.len()]).unwrap();
        (all, whole)
    };
    let (_, x) = padded(&|k| (k * 13 % 17) as f32 / 5.0);
    let (_, g) = padded(&|_| 0.25);
    let labels: Vec<i32> = (0..ROWS as i32).map(|row| if row == 3 { label } else { row }).collect();
    let y = Tensor::from_slice(ctx, &labels, &[ROWS]).unwrap();
    let inner = |t: &Tensor| t.view(MARGIN as u64, &[ROWS, COLS], &[COLS, 1]).unwrap();
    let spec = PlanSpec::new()
        .input("input", DType::F32, &[ROWS, COLS])
        .input("target", DType::I32, &[ROWS])
        .grad_mode("input", mode)
        .pin(pinned);
    let plan = ctx.plan(loss, &spec).unwrap();
    let mut bindings = Bindings::new().input("input", &inner(&x)).input("target", &y);
    if mode != GradMode::InPlace {
        bindings = bindings.grad("input", &inner(&g));
    }
    let bound = plan.bind(&bindings).unwrap();
    bound.submit().unwrap();
    let what = format!("{} {pinned:?} {mode:?} label {label}", loss.name());
    let written = if mode == GradMode::InPlace { &x } else { &g };
    let values = written.to_vec::<f32>().unwrap();
    for (k, v) in values.iter().enumerate() {
        match k.checked_sub(MARGIN).filter(|k| *k < ROWS * COLS) {
            None => assert_eq!(*v, CANARY, "{what}: canary {k}"),
            Some(k) => assert_eq!(v.is_nan(), k / COLS == 3, "{what}: element {k} is {v}"),
        }
    }
    if mode != GradMode::InPlace {
        assert!(x.to_vec::<f32>().unwrap().iter().all(|v| v.is_finite()), "{what}: the input was overwritten");
    }
    assert!(matches!(bound.read_loss(), Err(wgloss::Error::LabelOutOfRange { row: 3, .. })), "{what}");
}
