//! Losses of groups of unequal length, their numbers, and both paths.

use crate::common::compare::{assert_close, random};
use wgloss::cpu::CpuPlan;
use wgloss::{
    Bindings, Context, Extent, GroupInput, HostTensor, Loss, PlanSpec, RowAxis, Scope, Tensor, Upstream, Wanted,
};

/// Squared distance of each group's score from its target: `scoreᵢ = rᵢ·Σⱼ xᵢⱼ`, `L_g = (Σ scoreᵢ / (1 + n) − t_g)²` over
/// the `n` rows of the group.
pub fn distance() -> Loss {
    let definition = Loss::define("distance").input("x", Scope::Element).input("r", Scope::Row);
    definition
        .input("t", Scope::Group)
        .row_axis(RowAxis::Last)
        .extra("mean", |b| b.input("r").sum_over(Scope::Group) / b.graph().count(Extent::GroupRows))
        .extra("above", |b| b.input("r") - b.input("t"))
        .expr(|b| {
            let score = b.input("r") * b.input("x").sum();
            let off = score.sum_over(Scope::Group) / (1.0 + b.graph().count(Extent::GroupRows)) - b.input("t");
            off * off
        })
}

/// Squared distance of each row's sum from the mean of its group: `L_i = (s_i − Σ s / n)²`, `s_i = Σⱼ xᵢⱼ`.
pub fn spread() -> Loss {
    Loss::define("spread").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
        let sum = b.input("x").sum();
        let off = sum - sum.sum_over(Scope::Group) / b.graph().count(Extent::GroupRows);
        off * off
    })
}

/// The form in which the groups are given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum By {
    Offsets,
    Ids,
}

/// Rows in groups of these lengths.
pub struct Rows {
    pub lengths: Vec<usize>,
    pub cols: usize,
}

impl Rows {
    pub fn count(&self) -> usize {
        self.lengths.iter().sum()
    }

    pub fn groups(&self) -> usize {
        self.lengths.len()
    }

    pub fn offsets(&self) -> Vec<i32> {
        let ends = self.lengths.iter().scan(0, |end, length| {
            *end += *length as i32;
            Some(*end)
        });
        [0].into_iter().chain(ends).collect()
    }

    pub fn ids(&self) -> Vec<i32> {
        (0..).zip(&self.lengths).flat_map(|(group, length)| vec![group; *length]).collect()
    }

    pub fn indices(&self, by: By) -> Vec<i32> {
        if by == By::Offsets { self.offsets() } else { self.ids() }
    }

    /// The rows of a group.
    pub fn of(&self, group: usize) -> std::ops::Range<usize> {
        let first = self.lengths[..group].iter().sum();
        first..first + self.lengths[group]
    }

    pub fn group_input(&self, by: By) -> GroupInput {
        match by {
            By::Offsets => GroupInput::offsets("groups"),
            By::Ids => GroupInput::ids("groups", self.groups() as u64),
        }
    }

    pub fn give(&self, spec: PlanSpec, by: By) -> PlanSpec {
        match by {
            By::Offsets => spec.group_offsets("groups"),
            By::Ids => spec.group_ids("groups", self.groups() as u64),
        }
    }
}

pub type Inputs<'a> = Vec<(&'static str, &'a [f32], Vec<usize>)>;

/// What is asked of a loss beside itself.
pub struct Asked {
    pub grads: &'static [&'static str],
    pub extras: &'static [&'static str],
    pub upstream: Upstream,
}

/// The loss, its gradients and its extra outputs on the GPU, then on the CPU.
pub fn both_paths(
    ctx: &Context,
    loss: &Loss,
    (rows, by): (&Rows, By),
    inputs: &Inputs<'_>,
    asked: &Asked,
) -> [Vec<Vec<f64>>; 2] {
    let Asked { grads, extras, upstream } = *asked;
    let indices = rows.indices(by);
    let shape = [indices.len()];
    let mut host: Vec<(&str, HostTensor<'_>)> =
        inputs.iter().map(|(name, values, shape)| (*name, HostTensor::f32(values, shape))).collect();
    host.push(("groups", HostTensor::i32(&indices, &shape)));
    let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let groups = Some(rows.group_input(by));
    let wanted =
        Wanted { loss: true, grads: names(grads), extras: names(extras), upstream, groups, ..Wanted::default() };
    let plan = CpuPlan::<f64>::new(loss, &host, &wanted).unwrap();
    let mut out = plan.output();
    plan.run(&host, &mut out).unwrap();
    let mut on_cpu = vec![out.loss_values().unwrap().to_vec()];
    on_cpu.extend(grads.iter().map(|name| out.grad(name).unwrap().to_vec()));
    on_cpu.extend(extras.iter().map(|name| out.extra(name).unwrap().to_vec()));

    let mut tensors: Vec<(&str, Tensor)> =
        inputs.iter().map(|(name, values, shape)| (*name, Tensor::from_slice(ctx, values, shape).unwrap())).collect();
    tensors.push(("groups", Tensor::from_slice(ctx, &indices, &shape).unwrap()));
    let tensors: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let spec = grads.iter().fold(PlanSpec::new().like(&tensors), |spec, name| spec.grad(name));
    let spec = extras.iter().fold(spec.upstream(upstream), |spec, name| spec.extra(name));
    let plan = ctx.plan(loss, &rows.give(spec, by)).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&tensors)).unwrap();
    bound.submit().unwrap();
    pollster::block_on(bound.status()).unwrap();
    let mut on_gpu = vec![read(bound.loss().unwrap())];
    on_gpu.extend(grads.iter().map(|name| read(bound.grad(name).unwrap())));
    on_gpu.extend(extras.iter().map(|name| read(bound.extra(name).unwrap())));
    [on_gpu, on_cpu]
}

pub fn read(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// As `assert_close`, where NaN is as good as NaN.
pub fn close(what: &str, got: &[f64], want: &[f64]) {
    let number = |(got, want): (&f64, &f64)| if want.is_nan() { !got.is_nan() } else { got.is_nan() };
    assert!(got.len() == want.len() && !got.iter().zip(want).any(number), "{what}: {got:?}, want {want:?}");
    let [got, want] = [got, want].map(|all| all.iter().map(|x| if x.is_nan() { 0.0 } else { *x }).collect::<Vec<_>>());
    assert_close(what, &got, &want, 3e-6);
}

/// The numbers of a problem of `distance`.
pub struct Numbers {
    pub x: Vec<f32>,
    pub r: Vec<f32>,
    pub t: Vec<f32>,
    pub weight: Vec<f32>,
    pub mask: Vec<f32>,
    pub upstream: Vec<f32>,
}

impl Numbers {
    pub fn new(rows: &Rows) -> Numbers {
        let groups = rows.groups();
        Numbers {
            x: random(rows.count() * rows.cols, 1),
            r: random(rows.count(), 2).iter().map(|r| r * 0.25).collect(),
            t: random(groups, 3),
            weight: random(groups, 4).iter().map(|w| w.abs() + 0.5).collect(),
            mask: (0..groups).map(|g| f32::from(u8::from(g % 3 != 1))).collect(),
            upstream: random(groups, 5),
        }
    }

    pub fn inputs(&self, rows: &Rows, beside: &[&str]) -> Inputs<'_> {
        let (count, groups) = (rows.count(), vec![rows.groups()]);
        let mut all: Inputs<'_> = vec![
            ("x", &self.x, vec![count, rows.cols]),
            ("r", &self.r, vec![count]),
            ("t", &self.t, groups.clone()),
            ("sample_weight", &self.weight, groups.clone()),
            ("mask", &self.mask, groups.clone()),
            ("upstream", &self.upstream, groups),
        ];
        all.retain(|(name, ..)| ["x", "r", "t"].contains(name) || beside.contains(name));
        all
    }

    /// Losses per group; gradients of `x`, `r` and `t`; the extra outputs. `factor(g)` is the derivative of the result with
    /// respect to the loss of group `g`.
    pub fn expected(&self, rows: &Rows, factor: Factor<'_>) -> Vec<Vec<f64>> {
        let cols = rows.cols;
        let sum = |row: usize| self.x[row * cols..][..cols].iter().map(|x| f64::from(*x)).sum::<f64>();
        let r = |row: usize| f64::from(self.r[row]);
        let mut all = vec![Vec::new(); 6];
        for g in 0..rows.groups() {
            let (n, t) = (rows.of(g).len() as f64, f64::from(self.t[g]));
            let off = rows.of(g).map(|row| r(row) * sum(row)).sum::<f64>() / (1.0 + n) - t;
            let by_score = factor(g) * 2.0 * off / (1.0 + n);
            all[0].push(off * off);
            for row in rows.of(g) {
                all[1].extend(vec![by_score * r(row); cols]);
                all[2].push(by_score * sum(row));
                all[5].push(r(row) - t);
            }
            all[3].push(factor(g) * -2.0 * off);
            all[4].push(rows.of(g).map(r).sum::<f64>() / n);
        }
        all
    }
}

/// The derivative of the result with respect to the loss of a group.
pub type Factor<'f> = &'f dyn Fn(usize) -> f64;

pub const OF_DISTANCE: Asked = Asked { grads: &["x", "r", "t"], extras: &["mean", "above"], upstream: Upstream::One };
