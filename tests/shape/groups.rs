//! Sums over groups of rows, GPU against the CPU's f64 path: of what is known with the elements and without them.

use crate::common::compare::{mismatch, random};
use crate::common::context;
use wgloss::Wanted;
use wgloss::cpu::CpuPlan;
use wgloss::{Bindings, Context, DType, Error, Expr, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor};

/// Numbers that differ in every place, so that no two sums are taken for each other.
fn numbers(count: usize) -> Vec<f32> {
    random(count, 7).iter().zip(0..).map(|(x, k)| x + (k % 10) as f32).collect()
}

/// Loss and gradients of `x: [rows, cols]`, `r: [rows]` and `w: [rows]` (of this stride, both), for groups of so many
/// rows, on both paths.
fn check(ctx: &Context, loss: &Loss, [rows, cols]: [usize; 2], group: usize, stride: usize) {
    let (x, r, w) = (numbers(rows * cols), numbers(rows), random(rows, 3));
    let host = [
        ("x", HostTensor::f32(&x, &[rows, cols])),
        ("r", HostTensor::f32(&r, &[rows])),
        ("w", HostTensor::f32(&w, &[rows])),
    ];
    let grads = ["x", "r", "w"];
    let wanted = Wanted { loss: true, grads: grads.map(str::to_owned).to_vec(), ..Wanted::default() };
    let plan = CpuPlan::<f64>::new(loss, &host, &wanted).unwrap().group_rows(group).unwrap();
    let mut want = plan.output();
    plan.run(&host, &mut want).unwrap();
    let spaced = |values: &[f32]| {
        let all: Vec<f32> =
            values.iter().flat_map(|value| [vec![*value], vec![f32::NAN; stride - 1]].concat()).collect();
        Tensor::from_slice(ctx, &all, &[rows * stride]).unwrap().view(0, &[rows], &[stride]).unwrap()
    };
    let tensors = [("x", Tensor::from_slice(ctx, &x, &[rows, cols]).unwrap()), ("r", spaced(&r)), ("w", spaced(&w))];
    let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let spec = grads.iter().fold(PlanSpec::new().like(&inputs), |spec, name| spec.grad(name));
    let plan = ctx.plan(loss, &spec.group_rows(group as u64)).unwrap();
    let got = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    got.submit().unwrap();
    let what = format!("{} [{rows}, {cols}] in groups of {group}", loss.name());
    let compare = |name: &str, got: Vec<f32>, want: &[f64]| {
        let got: Vec<f64> = got.into_iter().map(f64::from).collect();
        let most = want.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        if let Some(worst) = mismatch(&got, want, 2e-6, |_| 2e-6 * most) {
            panic!("{what}: {name}{worst}");
        }
    };
    compare("loss", got.loss().unwrap().to_vec().unwrap(), want.loss_values().unwrap());
    for name in grads {
        compare(name, got.grad(name).unwrap().to_vec().unwrap(), want.grad(name).unwrap());
    }
}

fn loss(name: &str, expr: for<'g> fn(Expr<'g>, Expr<'g>, Expr<'g>) -> Expr<'g>) -> Loss {
    let inputs = Loss::define(name).input("x", Scope::Element).input("r", Scope::Row).input("w", Scope::Row);
    inputs.row_axis(RowAxis::Last).expr(move |b| expr(b.input("x"), b.input("r"), b.input("w")))
}

/// Each with another mixture of passes over rows and over columns.
fn losses() -> Vec<Loss> {
    vec![
        // The issue's: known without the elements.
        loss("known", |x, r, w| (x + r.sum_over(Scope::Group)) * w),
        // A mask's count, and a mean over it.
        loss("counted", |x, r, w| {
            let mask = r.gt(2.0).to_float();
            x * w * (mask * w).sum_over(Scope::Group) / (1.0 + mask.sum_over(Scope::Group))
        }),
        // The adjoint is known without the elements.
        loss("adjoint", |x, r, w| {
            let off = x.sum().sum_over(Scope::Group) - r;
            off * off * w
        }),
        // A sum over groups and one over everything from the same rows.
        loss("mixed", |x, r, w| {
            let share = r.sum_over(Scope::Group) / (1.0 + (r * r).sum_over(Scope::Total));
            x * share + (w * w).sum_over(Scope::Group) * x.mean()
        }),
        // Two sums over groups of one pass, and one of them.
        loss("nested", |x, r, w| {
            let (a, b) = (r.sum_over(Scope::Group), (r * w).sum_over(Scope::Group));
            let off = r - a * 0.25;
            x * b + (off * off).sum_over(Scope::Group) * w
        }),
        // Values of groups, each once, to the total; from rows alone, and from elements.
        loss("once", |x, r, w| {
            let of_rows = r.sum_over(Scope::Group);
            let of_elements = x.mean().sum_over(Scope::Group);
            let total = (of_rows * of_rows).sum_over(Scope::Total) + (of_elements * of_rows).sum_over(Scope::Total);
            x * w + total
        }),
    ]
}

#[test]
fn sums_over_groups_of_rows_agree_with_the_cpu() {
    let Some(ctx) = context() else { return };
    for loss in losses() {
        for loss in [loss.clone().reduction(Reduction::None), loss.reduction(Reduction::Mean)] {
            // One row a group, as the issue has it; a workgroup's rows and more; all rows in one group.
            for (shape, group) in [([4, 3], 1), ([4, 3], 2), ([300, 5], 20), ([1024, 2], 256), ([96, 70], 96)] {
                check(ctx, &loss, shape, group, 1);
            }
        }
    }
}

#[test]
fn sums_over_groups_survive_chunks() {
    let Some(ctx) = small_bindings() else { return };
    // x needs five bindings of 128 KiB, and rows alone three: they are 72 bytes apart.
    for loss in losses() {
        check(&ctx, &loss.reduction(Reduction::Mean), [4098, 40], 3, 18);
    }
}

/// A device whose bindings hold little.
fn small_bindings() -> Option<Context> {
    context()?;
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 17, ..wgpu::Limits::default() };
    Some(Context::with_limits(limits).unwrap())
}

#[test]
fn groups_that_do_not_divide_the_rows_are_refused_alike() {
    let x = [1.0f32; 12];
    let host = [("x", HostTensor::f32(&x, &[4, 3])), ("r", HostTensor::f32(&x[..4], &[4]))];
    let loss = Loss::define("known").input("x", Scope::Element).input("r", Scope::Row).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| b.input("x") + b.input("r").sum_over(Scope::Group));
    let wanted = Wanted { loss: true, ..Wanted::default() };
    let is_refused = |error: Error| matches!(error, Error::Param { param, .. } if param == "group_rows");
    let allowed = [1u64, 2, 4];
    for rows in [0, 1, 2, 3, 4, 5, 8, 1 << 32, (1 << 32) + 2, u64::MAX] {
        let plan = CpuPlan::<f64>::new(&loss, &host, &wanted).unwrap().group_rows(rows as usize);
        assert_eq!(plan.is_ok(), allowed.contains(&rows), "{rows} on the CPU");
        assert!(plan.err().is_none_or(is_refused), "{rows} on the CPU");
        let Some(ctx) = context() else { continue };
        let spec = PlanSpec::new().input("x", DType::F32, &[4, 3]).input("r", DType::F32, &[4]).group_rows(rows);
        let plan = ctx.plan(&loss, &spec);
        assert_eq!(plan.is_ok(), allowed.contains(&rows), "{rows} on the GPU");
        assert!(plan.err().is_none_or(is_refused), "{rows} on the GPU");
    }
    // Fewer rows bound than planned: no longer a whole group.
    let Some(ctx) = context() else { return };
    let spec = PlanSpec::new().input("x", DType::F32, &[4, 3]).input("r", DType::F32, &[4]).group_rows(2);
    let plan = ctx.plan(&loss, &spec).unwrap();
    let (xs, rs) = (Tensor::from_slice(ctx, &x[..9], &[3, 3]).unwrap(), Tensor::zeros(ctx, DType::F32, &[3]).unwrap());
    let bound = plan.bind(&Bindings::new().input("x", &xs).input("r", &rs));
    assert!(bound.is_err_and(is_refused));
}
