//! Many plans in one context: kernels are shared where only numbers differ, and memory stays bounded.

use crate::common::context;
use std::collections::BTreeSet;
use wgloss::{Bindings, Context, DType, Error, HostTensor, Loss, PlanSpec, Reduction, Scope, Tensor, cpu, losses};

/// A context of the test's own, whose kernels nobody else makes.
fn own() -> Option<Context> {
    context().map(|_| Context::new().unwrap())
}

fn spec(rows: usize, cols: usize) -> PlanSpec {
    PlanSpec::new().input("input", DType::F32, &[rows, cols]).input("target", DType::I32, &[rows]).grad("input")
}

fn pair_spec() -> PlanSpec {
    PlanSpec::new().input("input", DType::F32, &[8, 4]).input("target", DType::F32, &[8, 4]).grad("input")
}

#[test]
fn numbers_of_a_loss_are_no_part_of_its_kernels() {
    let Some(ctx) = own() else { return };
    let kernels = |loss: &Loss, spec: &PlanSpec| -> BTreeSet<String> {
        ctx.plan(loss, spec).unwrap().kernels().unwrap().into_iter().collect()
    };
    let labelled = spec(64, 10);
    let weighted = |a: f64, b: f64| a * losses::mse() + b * losses::l1();
    let bf16 = PlanSpec::new().input("input", DType::BF16, &[8, 5]).input("target", DType::BF16, &[8, 5]);
    fn two(one: impl Into<Loss>, other: impl Into<Loss>, spec: PlanSpec) -> (Loss, Loss, PlanSpec) {
        (one.into(), other.into(), spec)
    }
    let same = vec![
        two(losses::cross_entropy().ignore_index(-100), losses::cross_entropy().ignore_index(7), labelled.clone()),
        two(losses::nll().ignore_index(1), losses::nll().ignore_index(-1), labelled.clone()),
        two(losses::multiclass_focal().ignore_index(0), losses::multiclass_focal().ignore_index(3), labelled.clone()),
        two(
            losses::cross_entropy().label_smoothing(0.1),
            losses::cross_entropy().label_smoothing(0.2),
            labelled.clone(),
        ),
        two(losses::cross_entropy().temperature(2.0), losses::cross_entropy().temperature(0.3), labelled.clone()),
        two(0.25 * losses::cross_entropy(), 3.0 * losses::cross_entropy().ignore_index(5), labelled.clone()),
        two(weighted(0.7, 0.3), weighted(0.1, 17.0), pair_spec()),
        two(losses::huber(1.0), losses::huber(2.5), pair_spec()),
        two(losses::quantile(0.1), losses::quantile(0.9), pair_spec()),
        two(0.5 * losses::rmse(), 0.25 * losses::rmse(), pair_spec()),
        // What comes after the passes, and between them, has titles too.
        (weighted(0.7, 0.3), weighted(0.2, 0.4), bf16.grad("input").grad("target")),
        (weighted(0.7, 0.3).broadcast(true), weighted(0.2, 0.4).broadcast(true), {
            let broadcast = PlanSpec::new().input("input", DType::F32, &[64, 12]).input("target", DType::F32, &[12]);
            broadcast.grad("target")
        }),
        (
            0.5 * losses::cross_entropy(),
            0.7 * losses::cross_entropy(),
            PlanSpec::new().input("input", DType::BF16, &[2, 200_001]).input("target", DType::I32, &[2]).grad("input"),
        ),
    ];
    for (one, other, spec) in same {
        let first = kernels(&one, &spec);
        let before = ctx.pipelines();
        assert_eq!(kernels(&other, &spec), first, "{} and {}", one.name(), other.name());
        assert_eq!(ctx.pipelines(), before, "{}: another kernel was compiled", other.name());
    }
    // A literal of an expression stays one, and none is another expression.
    let picks = |class: i64| {
        Loss::define("picks")
            .input("input", Scope::Element)
            .label("target")
            .row_axis(wgloss::RowAxis::Class)
            .expr(move |b| b.input("input").at(b.input("target")).masked(!b.label_is("target", class)))
    };
    assert_ne!(kernels(&picks(1), &labelled), kernels(&picks(2), &labelled));
    let none = losses::cross_entropy().ignore_index(None);
    assert_ne!(kernels(&none, &labelled), kernels(&losses::cross_entropy(), &labelled));
}

#[test]
fn kernels_that_differ_in_their_titles_alone_are_one() {
    let Some(ctx) = own() else { return };
    let named = |name: &str| Loss::define(name).input("input", Scope::Element).input("target", Scope::Element);
    let loss = |name: &str| named(name).expr(|b| (b.input("input") - b.input("target")).tanh());
    let first = ctx.plan(&loss("one"), &pair_spec()).unwrap().kernels().unwrap();
    let before = ctx.pipelines();
    let second = ctx.plan(&loss("two"), &pair_spec()).unwrap().kernels().unwrap();
    assert_ne!(first, second, "titles have the name of the loss");
    assert_eq!(ctx.pipelines(), before);
    let other = |name: &str| named(name).expr(|b| (b.input("input") + b.input("target")).tanh());
    ctx.plan(&other("one"), &pair_spec()).unwrap();
    assert!(ctx.pipelines() > before, "the title alone makes no kernel the same");
}

#[test]
fn an_index_is_a_parameter() {
    let Some(ctx) = context() else { return };
    let x: Vec<f32> = (0..5 * 4).map(|k| (k * 7 % 11) as f32 / 3.0).collect();
    let labels = [0u32, 3, 1, 3, 2];
    let logits = Tensor::from_slice(ctx, &x, &[5, 4]).unwrap();
    // Labels of both types; indices beyond an i32 that only an unsigned label can have.
    for (dtype, extremes) in [(DType::I32, [-100i64, i64::from(i32::MIN)]), (DType::U32, [4_000_000_000, 0xffff_ffff])]
    {
        let want = |ignored: i64, labels: &[i64]| {
            let labels: Vec<i32> = labels.iter().map(|y| if *y == ignored { -100 } else { *y as i32 }).collect();
            let inputs = [("input", HostTensor::f32(&x, &[5, 4])), ("target", HostTensor::i32(&labels, &[5]))];
            let out = cpu::forward_backward(&losses::cross_entropy(), &inputs, &["input"]).unwrap();
            (out.loss().unwrap(), out.grad("input").unwrap().to_vec())
        };
        let y = Tensor::zeros(ctx, dtype, &[5]).unwrap();
        let inputs = [("input", &logits), ("target", &y)];
        let loss = losses::cross_entropy().ignore_index(1);
        let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("input")).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        let all = |extra: i64| labels.map(|y| if y == 2 { extra } else { i64::from(y) });
        for (ignored, labels) in
            [(1, all(2)), (3, all(2)), (extremes[0], all(extremes[0])), (extremes[1], all(extremes[1]))]
        {
            ctx.queue().write_buffer(y.buffer(), 0, bytemuck::cast_slice(&labels.map(|y| y as u32)));
            if ignored != 1 {
                bound.set_param("ignore_index", ignored as f64).unwrap();
            }
            bound.submit().unwrap();
            let (loss, grad) = want(ignored, &labels);
            let found = f64::from(bound.read_loss().unwrap());
            assert!((found - loss).abs() < 1e-5, "{dtype} {ignored}: {found}, want {loss}");
            let found = bound.grad("input").unwrap().to_vec::<f32>().unwrap();
            assert!(found.iter().zip(&grad).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6), "{dtype} {ignored}");
        }
        // What no such label can be, or no label at all.
        let beyond = if dtype == DType::I32 { 3e9 } else { -1.0 };
        for wrong in [beyond, 0.5, f64::NAN, f64::INFINITY, 1e12] {
            let error = bound.set_param("ignore_index", wrong).unwrap_err();
            assert!(matches!(&error, Error::Param { param, .. } if param == "ignore_index"), "{wrong}: {error}");
        }
    }
    let none = losses::cross_entropy().ignore_index(None);
    let y = Tensor::zeros(ctx, DType::I32, &[5]).unwrap();
    let out = none.forward(ctx, &[("input", &logits), ("target", &y)]).unwrap();
    assert!(matches!(out.bound().set_param("ignore_index", 1.0), Err(Error::Name { .. })), "another kernel");
}

#[test]
fn terms_with_their_own_index_keep_it() {
    let Some(ctx) = context() else { return };
    let x = [0.5f32, 1.5, -0.25, 2.0, 0.0, 1.0];
    let y = [0i32, 1];
    let loss = losses::cross_entropy().ignore_index(0).reduction(Reduction::Sum)
        + 0.5 * losses::nll().ignore_index(1).reduction(Reduction::Sum);
    let host = [("input", HostTensor::f32(&x, &[2, 3])), ("target", HostTensor::i32(&y, &[2]))];
    let want = cpu::forward_backward(&loss, &host, &["input"]).unwrap();
    let [x, y] = [Tensor::from_slice(ctx, &x, &[2, 3]).unwrap(), Tensor::from_slice(ctx, &y, &[2]).unwrap()];
    let out = loss.forward_backward(ctx, &[("input", &x), ("target", &y)]).unwrap();
    assert!((f64::from(out.loss().unwrap()) - want.loss().unwrap()).abs() < 1e-6);
    // Row 0 counts in the second term alone, row 1 in the first.
    let grad = out.grad("input").unwrap().to_vec::<f32>().unwrap();
    assert_eq!(grad[..3], [-0.5, 0.0, 0.0]);
    out.bound().set_param("cross_entropy.ignore_index", 1.0).unwrap();
    out.bound().set_param("nll.ignore_index", 0.0).unwrap();
    out.bound().submit().unwrap();
    assert_eq!(out.grad("input").unwrap().to_vec::<f32>().unwrap()[3..], [0.0, -0.5, 0.0]);
}

/// A loss whose kernels are its own: its literal is.
fn of_literal(k: usize) -> Loss {
    Loss::define("of_literal").input("input", Scope::Element).expr(move |b| b.input("input") * (1.5 + k as f64))
}

fn plan_of(ctx: &Context, k: usize) -> wgloss::Plan {
    ctx.plan(&of_literal(k), &PlanSpec::new().input("input", DType::F32, &[4]).grad("input")).unwrap()
}

#[test]
fn kernels_that_nobody_holds_go_those_used_longest_ago_first() {
    let Some(ctx) = own() else { return };
    assert_eq!(ctx.pipelines(), 0);
    let live = plan_of(&ctx, 0);
    let each = ctx.pipelines();
    ctx.keep_idle_pipelines(3 * each);
    // One plan is used again and again, one is live.
    for k in 1..10 {
        drop(plan_of(&ctx, k));
        drop(plan_of(&ctx, 1));
        assert!(ctx.pipelines() <= 4 * each, "{} after {k}", ctx.pipelines());
    }
    let before = ctx.pipelines();
    drop(plan_of(&ctx, 1));
    drop(plan_of(&ctx, 0));
    assert_eq!(ctx.pipelines(), before, "the last used and the live were there");
    // Many live ones stay, also of plans that are bound only, until they are let go.
    let x = Tensor::zeros(&ctx, DType::F32, &[4]).unwrap();
    let bind = |k: usize| plan_of(&ctx, k).bind(&Bindings::new().input("input", &x)).unwrap();
    let bound: Vec<wgloss::Bound> = (20..30).map(bind).collect();
    assert!(ctx.pipelines() >= 11 * each - 10, "{}", ctx.pipelines());
    bound.iter().for_each(|bound| bound.submit().unwrap());
    drop(bound);
    assert!(ctx.pipelines() <= 4 * each, "{}", ctx.pipelines());
    drop(live);
    ctx.keep_idle_pipelines(usize::MAX);
    assert!(ctx.pipelines() > 0);
    ctx.keep_idle_pipelines(0);
    assert_eq!(ctx.pipelines(), 0);
    assert_eq!(plan_of(&ctx, 0).kernels().unwrap().len(), each, "the context goes on");
}

#[test]
fn threads_that_want_one_kernel_share_it() {
    let Some(ctx) = own() else { return };
    ctx.keep_idle_pipelines(2);
    let plans: Vec<wgloss::Plan> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|k| {
                scope.spawn({
                    let ctx = &ctx;
                    move || plan_of(ctx, k / 4)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let kernels: BTreeSet<String> = plans.iter().flat_map(|plan| plan.kernels().unwrap()).collect();
    assert_eq!(ctx.pipelines(), kernels.len());
}

/// Kilobytes that the process has in memory.
fn resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(4 * pages.split_whitespace().nth(1)?.parse::<u64>().ok()?)
}

/// `WGLOSS_TEST_PLANS=5000`: so many plans of different shapes and options in one context, bound and run.
#[test]
fn many_plans_take_bounded_memory() {
    let Some(ctx) = own() else { return };
    let count = std::env::var("WGLOSS_TEST_PLANS").ok().and_then(|count| count.parse().ok()).unwrap_or(48);
    let begin = std::time::Instant::now();
    let mut half = None;
    for k in 0..count {
        let (rows, cols) = (1 + k * 7 % 61, 2 + k * 13 % 211);
        let share = 0.001 * (k % 997) as f64;
        let x = Tensor::zeros(&ctx, DType::F32, &[rows, cols]).unwrap();
        let y = Tensor::zeros(&ctx, DType::I32, &[rows]).unwrap();
        let t = Tensor::zeros(&ctx, DType::F32, &[rows, cols]).unwrap();
        let (loss, target) = match k % 6 {
            0 => (Loss::from(losses::cross_entropy().ignore_index(1 + k as i64)), &y),
            1 => (losses::cross_entropy().label_smoothing(0.001 + share).ignore_index(-(k as i64)).into(), &y),
            2 => ((1.5 + share) * losses::mse() + (2.5 + share) * losses::l1(), &t),
            3 => (losses::huber(0.5 + share).into(), &t),
            4 => (losses::multiclass_focal().gamma(2.1 + share).ignore_index(1_000 + k as i64).into(), &y),
            // Kernels of its own.
            _ => (of_literal(k), &x),
        };
        let all = [("input", &x), ("target", target)];
        let inputs = if k % 6 == 5 { &all[..1] } else { &all[..] };
        let out = loss.forward_backward(&ctx, inputs).unwrap();
        assert!(out.loss().unwrap().is_finite(), "{}", loss.name());
        drop(out);
        if (k + 1) % (count / 8).max(1) == 0 {
            let (made, kept) = (k + 1, ctx.pipelines());
            println!("{made} plans: {} kB resident, {kept} kernels, {:.1?}", resident().unwrap_or(0), begin.elapsed());
        }
        if k == count / 2 {
            half = resident();
        }
        assert!(ctx.pipelines() <= Context::IDLE_PIPELINES, "{}", ctx.pipelines());
    }
    // Of the second half, nothing is kept that the first had no room for. Few plans still fill the caches.
    if let (Some(before), Some(after), true) = (half, resident(), count >= 1000) {
        assert!(after < before + before / 4, "{before} kB after half of the plans, {after} kB after all");
    }
}
