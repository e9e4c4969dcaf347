//! Inputs, losses, weights and extra outputs with one value per group, on GPU and CPU, against plain loops.

use crate::common::compare::{assert_close, is_nan, mismatch, random};
use crate::common::context;
use wgloss::cpu::CpuPlan;
use wgloss::{
    Bindings, Context, DType, Error, GradMode, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, Upstream,
    Wanted,
};

const ROWS: usize = 12;
const COLS: usize = 5;

/// Squared distance of each group's mean score from its target, with one extra output per group and one per row.
///
/// `scoreᵢ = rᵢ·Σⱼ xᵢⱼ`, `L_g = (mean of scoreᵢ − t_g)²`.
fn distance() -> Loss {
    let definition = Loss::define("distance").input("x", Scope::Element).input("r", Scope::Row);
    let definition = definition.input("t", Scope::Group).row_axis(RowAxis::Last);
    definition
        .extra("spread", |b| {
            let score = b.input("r") * b.input("x").sum();
            (score * score).sum_over(Scope::Group) - b.input("t")
        })
        .extra("above", |b| b.input("r") - b.input("t"))
        .expr(|b| {
            let score = b.input("r") * b.input("x").sum();
            let rows = b.graph().count(wgloss::Extent::GroupRows);
            let off = score.sum_over(Scope::Group) / rows - b.input("t");
            off * off
        })
}

/// The data of one problem.
struct Data {
    x: Vec<f32>,
    r: Vec<f32>,
    t: Vec<f32>,
    weight: Vec<f32>,
    mask: Vec<f32>,
    upstream: Vec<f32>,
}

impl Data {
    fn new(groups: usize) -> Data {
        let mask = (0..groups).map(|g| f32::from(u8::from(g != 1))).collect();
        Data {
            x: random(ROWS * COLS, 1),
            r: random(ROWS, 2),
            t: random(groups, 3),
            weight: random(groups, 4).iter().map(|w| w.abs() + 0.5).collect(),
            mask,
            upstream: random(groups, 5),
        }
    }

    fn groups(&self) -> usize {
        self.t.len()
    }

    /// The inputs by name, with their shapes.
    fn inputs(&self) -> Vec<(&'static str, &[f32], Vec<usize>)> {
        let groups = vec![self.groups()];
        vec![
            ("x", &self.x, vec![ROWS, COLS]),
            ("r", &self.r, vec![ROWS]),
            ("t", &self.t, groups.clone()),
            ("sample_weight", &self.weight, groups.clone()),
            ("mask", &self.mask, groups),
        ]
    }
}

/// Losses per group, gradients for `x`, `r` and `t`, and the extra outputs.
struct Expected {
    losses: Vec<f64>,
    x: Vec<f64>,
    r: Vec<f64>,
    t: Vec<f64>,
    spread: Vec<f64>,
    above: Vec<f64>,
}

/// By the textbook; `factor(g)` is the derivative of the result with respect to the loss of group `g`.
fn expected(data: &Data, factor: &dyn Fn(usize) -> f64) -> Expected {
    let size = ROWS / data.groups();
    let sum = |row: usize| data.x[row * COLS..][..COLS].iter().map(|x| f64::from(*x)).sum::<f64>();
    let score = |row: usize| f64::from(data.r[row]) * sum(row);
    let rows = |g: usize| g * size..(g + 1) * size;
    let off = |g: usize| rows(g).map(score).sum::<f64>() / size as f64 - f64::from(data.t[g]);
    let groups = 0..data.groups();
    // Derivative of the result with respect to the score of a row.
    let by_score = |row: usize| factor(row / size) * 2.0 * off(row / size) / size as f64;
    Expected {
        losses: groups.clone().map(|g| off(g) * off(g)).collect(),
        x: (0..ROWS * COLS).map(|k| by_score(k / COLS) * f64::from(data.r[k / COLS])).collect(),
        r: (0..ROWS).map(|row| by_score(row) * sum(row)).collect(),
        t: groups.clone().map(|g| factor(g) * -2.0 * off(g)).collect(),
        spread: groups
            .map(|g| rows(g).map(|row| score(row) * score(row)).sum::<f64>() - f64::from(data.t[g]))
            .collect(),
        above: (0..ROWS).map(|row| f64::from(data.r[row]) - f64::from(data.t[row / size])).collect(),
    }
}

fn close(what: &str, got: &[f64], want: &[f64]) {
    assert_close(what, got, want, 2e-6);
}

/// Compares both paths with the textbook, all outputs at once.
fn check(ctx: &Context, data: &Data, given: &[&str], loss: &Loss, upstream: Upstream, want: (&[f64], &Expected)) {
    let (losses, want) = want;
    let mut inputs = data.inputs();
    inputs.retain(|(name, ..)| ["x", "r", "t"].contains(name) || given.contains(name));
    if upstream == Upstream::PerLoss {
        inputs.push(("upstream", &data.upstream, vec![data.groups()]));
    }
    let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (grads, extras) = (["x", "r", "t"], ["spread", "above"]);
    let outputs = [&want.x, &want.r, &want.t];

    let host: Vec<(&str, HostTensor<'_>)> =
        inputs.iter().map(|(name, values, shape)| (*name, HostTensor::f32(values, shape))).collect();
    let wanted = Wanted { loss: true, grads: names(&grads), extras: names(&extras), upstream, ..Wanted::default() };
    let size = ROWS / data.groups();
    let plan = CpuPlan::<f64>::new(loss, &host, &wanted).unwrap().group_rows(size).unwrap();
    let mut out = plan.output();
    plan.run(&host, &mut out).unwrap();
    close("loss, CPU", out.loss_values().unwrap(), losses);
    for (name, want) in grads.iter().zip(outputs) {
        close(&format!("gradient of {name}, CPU"), out.grad(name).unwrap(), want);
    }
    close("spread, CPU", out.extra("spread").unwrap(), &want.spread);
    close("above, CPU", out.extra("above").unwrap(), &want.above);

    let tensors: Vec<(&str, Tensor)> =
        inputs.iter().map(|(name, values, shape)| (*name, Tensor::from_slice(ctx, values, shape).unwrap())).collect();
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let spec = grads.iter().fold(PlanSpec::new().like(&tensors), |spec, name| spec.grad(name));
    let spec = extras.iter().fold(spec.upstream(upstream), |spec, name| spec.extra(name));
    let plan = ctx.plan(loss, &spec.group_rows(size as u64)).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&tensors)).unwrap();
    bound.submit().unwrap();
    close("loss, GPU", &read(bound.loss().unwrap()), losses);
    for (name, want) in grads.iter().zip(outputs) {
        close(&format!("gradient of {name}, GPU"), &read(bound.grad(name).unwrap()), want);
    }
    close("spread, GPU", &read(bound.extra("spread").unwrap()), &want.spread);
    close("above, GPU", &read(bound.extra("above").unwrap()), &want.above);
}

#[test]
fn losses_and_gradients_of_groups_are_the_textbooks() {
    let Some(ctx) = context() else { return };
    for groups in [1, 2, 4, 12] {
        let data = Data::new(groups);
        let count = groups as f64;
        let [weight, mask, upstream] = [&data.weight, &data.mask, &data.upstream]
            .map(|values| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>());
        let at = |reduction: Reduction| distance().reduction(reduction);

        let want = expected(&data, &|_| 1.0);
        check(ctx, &data, &[], &at(Reduction::None), Upstream::One, (&want.losses, &want));
        let total: f64 = want.losses.iter().sum();
        check(ctx, &data, &[], &at(Reduction::Sum), Upstream::One, (&[total], &want));
        let want = expected(&data, &|_| 1.0 / count);
        check(ctx, &data, &[], &at(Reduction::Mean), Upstream::One, (&[total / count], &want));
        let want = expected(&data, &|g| upstream[g]);
        check(ctx, &data, &[], &at(Reduction::None), Upstream::PerLoss, (&want.losses, &want));

        // Weights and masks go by group as well; the mean divides by the groups that count.
        let kept: f64 = mask.iter().sum();
        let want = expected(&data, &|g| weight[g] * mask[g] / kept);
        let total: f64 = (0..groups).map(|g| want.losses[g] * weight[g] * mask[g]).sum();
        let given = ["sample_weight", "mask"];
        check(ctx, &data, &given, &at(Reduction::Mean), Upstream::One, (&[total / kept], &want));
    }
}

#[test]
fn values_of_groups_are_summed_once_per_group() {
    // rmse of the groups' means: a total of group values, and a gradient through it.
    let Some(ctx) = context() else { return };
    let loss = Loss::define("of groups").input("x", Scope::Element).input("t", Scope::Group).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| {
        let off = b.input("x").mean().sum_over(Scope::Group) - b.input("t");
        ((off * off).sum_over(Scope::Total) / b.graph().count(wgloss::Extent::Groups)).sqrt()
    });
    let (groups, data) = (4, Data::new(4));
    let size = ROWS / groups;
    let off = |g: usize| {
        let all = data.x[g * size * COLS..(g + 1) * size * COLS].iter().map(|x| f64::from(*x)).sum::<f64>();
        all / COLS as f64 - f64::from(data.t[g])
    };
    let want = ((0..groups).map(|g| off(g) * off(g)).sum::<f64>() / groups as f64).sqrt();
    let by_t: Vec<f64> = (0..groups).map(|g| -off(g) / (groups as f64 * want)).collect();
    let by_x: Vec<f64> = (0..ROWS * COLS).map(|k| -by_t[k / COLS / size] / COLS as f64).collect();
    let x = Tensor::from_slice(ctx, &data.x, &[ROWS, COLS]).unwrap();
    let t = Tensor::from_slice(ctx, &data.t, &[groups]).unwrap();
    let inputs = [("x", &x), ("t", &t)];
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let spec = PlanSpec::new().like(&inputs).grad("x").grad("t").grad_dtype("t", dtype);
        let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        close("loss", &[bound.read_loss().unwrap().into()], &[want]);
        close("x", &read(bound.grad("x").unwrap()), &by_x);
        let rounded: Vec<f64> = by_t.iter().map(|x| round(dtype, *x as f32)).collect();
        let got = read(bound.grad("t").unwrap());
        // A last bit of f32 may round to the next 16-bit number.
        let step = match dtype {
            DType::F16 => 1.0 / 1024.0,
            DType::BF16 => 1.0 / 128.0,
            _ => 4e-6,
        };
        assert!(mismatch(&got, &rounded, step, |_| 0.0).is_none(), "{dtype}: {got:?}, want {rounded:?}");
    }
    // Added to what is there, and one value for all groups.
    let ones = Tensor::from_slice(ctx, &[1.0f32; 4], &[groups]).unwrap();
    let spec = PlanSpec::new().like(&inputs).grad_mode("t", GradMode::Accumulate);
    let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&inputs).grad("t", &ones)).unwrap();
    bound.submit().unwrap();
    close("t, added", &read(&ones), &by_t.iter().map(|x| 1.0 + x).collect::<Vec<_>>());
    let one = t.view(0, &[groups], &[0]).unwrap();
    let inputs = [("x", &x), ("t", &one)];
    let spec = PlanSpec::new().like(&inputs).grad("t").grad_dtype("t", DType::F16).group_rows(3);
    let bound = ctx.plan(&loss, &spec).map(|_| ());
    assert_eq!(bound, Ok(()));
}

fn read(tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        DType::F16 => tensor.to_vec::<half::f16>().unwrap().into_iter().map(f64::from).collect(),
        DType::BF16 => tensor.to_vec::<half::bf16>().unwrap().into_iter().map(f64::from).collect(),
        _ => tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect(),
    }
}

fn round(dtype: DType, x: f32) -> f64 {
    match dtype {
        DType::F16 => half::f16::from_f32(x).into(),
        DType::BF16 => half::bf16::from_f32(x).into(),
        _ => x.into(),
    }
}

#[test]
fn what_groups_do_not_have_is_an_error() {
    let Some(ctx) = context() else { return };
    let plan = |groups: usize, rows: Option<u64>| {
        let spec = PlanSpec::new().input("x", DType::F32, &[ROWS, COLS]).input("r", DType::F32, &[ROWS]);
        let spec = spec.input("t", DType::F32, &[groups]);
        let spec = if let Some(rows) = rows { spec.group_rows(rows) } else { spec };
        ctx.plan(&distance(), &spec).map(|_| ())
    };
    assert_eq!(plan(4, None), Ok(()));
    assert_eq!(plan(4, Some(3)), Ok(()));
    assert_eq!(plan(1, Some(3)), Ok(()), "one value serves all groups");
    assert!(matches!(plan(5, None), Err(Error::Shape { input, .. }) if input == "t"));
    assert!(matches!(plan(4, Some(2)), Err(Error::Shape { input, .. }) if input == "t"));
}

/// Sum of the labels' values in each group, less a target.
fn picked() -> Loss {
    let definition = Loss::define("picked").input("x", Scope::Element).label("y").input("t", Scope::Group);
    definition.row_axis(RowAxis::Last).expr(|b| {
        let off = b.input("x").at(b.input("y")).sum_over(Scope::Group) - b.input("t");
        off * off
    })
}

/// Losses and gradients of `x` and `t`, GPU and CPU, with the row that either reports.
fn both_paths(ctx: &Context, x: &[f32], y: &[i32], mask: &[f32]) -> [(Vec<Vec<f64>>, Option<u64>); 2] {
    let t = [0.5f32, -0.5, 1.0, 2.0];
    let host = [
        ("x", HostTensor::f32(x, &[ROWS, COLS])),
        ("y", HostTensor::i32(y, &[ROWS])),
        ("t", HostTensor::f32(&t, &[4])),
        ("mask", HostTensor::f32(mask, &[4])),
    ];
    let loss = picked().reduction(Reduction::None);
    let grads = vec!["x".to_owned(), "t".to_owned()];
    let mut out = wgloss::cpu::run::<f64>(&loss, &host, &Wanted { loss: true, grads, ..Wanted::default() }).unwrap();
    let bad = out.take_bad_label().map(|(row, _)| row);
    let all = [out.loss_values().unwrap(), out.grad("x").unwrap(), out.grad("t").unwrap()].map(<[f64]>::to_vec);
    let on_cpu = (all.to_vec(), bad);

    let x = Tensor::from_slice(ctx, x, &[ROWS, COLS]).unwrap();
    let y = Tensor::from_slice(ctx, y, &[ROWS]).unwrap();
    let [t, mask] = [&t, mask].map(|values| Tensor::from_slice(ctx, values, &[4]).unwrap());
    let inputs = [("x", &x), ("y", &y), ("t", &t), ("mask", &mask)];
    let spec = PlanSpec::new().like(&inputs).grad("x").grad("t");
    let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    let all = [bound.loss().unwrap(), bound.grad("x").unwrap(), bound.grad("t").unwrap()].map(read);
    let bad = match pollster::block_on(bound.status()) {
        Err(Error::LabelOutOfRange { row, .. }) => Some(row),
        other => other.map(|()| None).unwrap(),
    };
    [on_cpu, (all.to_vec(), bad)]
}

#[test]
fn a_bad_row_poisons_its_group_and_no_other() {
    let Some(ctx) = context() else { return };
    let (x, y) = (random(ROWS * COLS, 6), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]);
    let ones = [1.0; 4];
    let of_group =
        |group: usize, per_group: usize| (0..4 * per_group).map(|k| k / per_group == group).collect::<Vec<bool>>();
    let mut bad_label = y;
    bad_label[4] = 5;
    let mut nan = x.clone();
    nan[7 * COLS + 2] = f32::NAN; // row 7, of group 2, at its label
    for (x, y, group, row) in [(&x, &bad_label, 1, Some(4)), (&nan, &y, 2, None)] {
        for (values, bad) in both_paths(ctx, x, y, &ones) {
            assert_eq!(bad, row);
            let found: Vec<Vec<bool>> = values.iter().map(|values| is_nan(values)).collect();
            assert_eq!(found, [of_group(group, 1), of_group(group, 3 * COLS), of_group(group, 1)]);
        }
        // A group that is masked contributes exactly nothing, whatever its rows hold.
        let mut mask = ones;
        mask[group] = 0.0;
        for (values, bad) in both_paths(ctx, x, y, &mask) {
            assert_eq!(bad, row, "a label is checked where its row is summed");
            assert!(values.iter().flatten().all(|x| !x.is_nan()), "{values:?}");
            assert_eq!((values[0][group], values[2][group]), (0.0, 0.0));
            assert!(values[1][group * 3 * COLS..][..3 * COLS].iter().all(|x| *x == 0.0));
        }
    }
}
