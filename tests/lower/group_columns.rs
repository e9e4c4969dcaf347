//! Sums over the rows of each group for each column, GPU and CPU, against plain loops.

use crate::common::compare::{assert_close, is_nan, random};
use crate::common::{context, is_in_share};
use half::bf16;
use wgloss::cpu::CpuPlan;
use wgloss::export::Export;
use wgloss::{
    Bindings, Context, DType, Error, Expr, Extent, GroupInput, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope,
    Shard, Tensor, Upstream, Wanted,
};

fn dice_of<'g>(p: Expr<'g>, t: Expr<'g>) -> Expr<'g> {
    let both = (p * t).sum_over(Scope::GroupColumn);
    let each = p.sum_over(Scope::GroupColumn) + t.sum_over(Scope::GroupColumn);
    1.0 - (2.0 * both + 1.0) / (each + 1.0)
}

/// Dice loss per group (sample) and class after a softmax, times a scalar, a value per group, one per class, and one per both:
/// `L_gc = s·v_g·w_c·u_gc·D_gc`, `D_gc = 1 − (2·Σᵢ pᵢ_c·tᵢ_c + 1) / (Σᵢ pᵢ_c + Σᵢ tᵢ_c + 1)` over the rows of group g. Also
/// the mean of `D` over the classes of each group, over the groups for each class, and `D` itself.
fn dice(row_axis: RowAxis) -> Loss {
    let definition = Loss::define("dice").input("x", Scope::Element).label("y").input("s", Scope::Scalar);
    let definition = definition.input("v", Scope::Group).input("w", Scope::Column).input("u", Scope::GroupColumn);
    definition
        .row_axis(row_axis)
        .extra("of_groups", |b| {
            let t = b.graph().col_index().equals(b.input("y")).to_float();
            dice_of(b.input("x").softmax(), t).sum_over(Scope::Group) / b.graph().count(Extent::Cols)
        })
        .extra("of_classes", |b| {
            let t = b.graph().col_index().equals(b.input("y")).to_float();
            dice_of(b.input("x").softmax(), t).sum_over(Scope::Column) / b.graph().count(Extent::Groups)
        })
        .extra("dice", |b| {
            let t = b.graph().col_index().equals(b.input("y")).to_float();
            dice_of(b.input("x").softmax(), t)
        })
        .expr(|b| {
            let t = b.graph().col_index().equals(b.input("y")).to_float();
            let factor = b.input("s") * b.input("v") * b.input("w") * b.input("u");
            factor * dice_of(b.input("x").softmax(), t)
        })
}

/// A problem of `[samples, classes, inner]` logits, or of `[samples, inner, classes]`.
struct Data {
    shape: [usize; 3],
    is_last: bool,
    group_rows: usize,
    x: Vec<f32>,
    y: Vec<i32>,
    s: f32,
    v: Vec<f32>,
    w: Vec<f32>,
    u: Vec<f32>,
}

const GRADS: [&str; 5] = ["x", "s", "v", "w", "u"];
const EXTRAS: [&str; 3] = ["of_groups", "of_classes", "dice"];

impl Data {
    fn new(shape: [usize; 3], is_last: bool, group_rows: usize) -> Data {
        let [samples, classes, inner] = shape;
        let rows = samples * inner;
        let groups = rows / group_rows;
        let near_one = |count: usize, seed: u32| random(count, seed).iter().map(|x| 1.0 + x / 8.0).collect();
        Data {
            shape,
            is_last,
            group_rows,
            x: random(rows * classes, 11).iter().map(|x| bf16::from_f32(x / 2.0).to_f32()).collect(),
            y: (0..rows).map(|row| (row * 5 % classes) as i32).collect(),
            s: 1.25,
            v: near_one(groups, 12),
            w: near_one(classes, 13),
            u: near_one(groups * classes, 14),
        }
    }

    fn rows(&self) -> usize {
        self.shape[0] * self.shape[2]
    }

    fn groups(&self) -> usize {
        self.rows() / self.group_rows
    }

    fn row_axis(&self) -> RowAxis {
        if self.is_last { RowAxis::Last } else { RowAxis::Class }
    }

    fn x_shape(&self) -> Vec<usize> {
        let [samples, classes, inner] = self.shape;
        if self.is_last { vec![samples, inner, classes] } else { vec![samples, classes, inner] }
    }

    /// Index in `x` of a row's column.
    fn at(&self, row: usize, col: usize) -> usize {
        let [_, classes, inner] = self.shape;
        if self.is_last { row * classes + col } else { (row / inner * classes + col) * inner + row % inner }
    }

    /// By the textbook: the losses, the gradients of [`GRADS`], and [`EXTRAS`]. `factor(k)` is the derivative of the result
    /// with respect to loss k.
    fn expected(&self, factor: &dyn Fn(usize) -> f64) -> Vec<Vec<f64>> {
        let (rows, groups, classes) = (self.rows(), self.groups(), self.shape[1]);
        let mut p = vec![0.0f64; rows * classes];
        for row in 0..rows {
            let e: Vec<f64> = (0..classes).map(|c| f64::from(self.x[self.at(row, c)]).exp()).collect();
            let sum: f64 = e.iter().sum();
            (0..classes).for_each(|c| p[row * classes + c] = e[c] / sum);
        }
        let hit = |row: usize, c: usize| if self.y[row] as usize == c { 1.0 } else { 0.0 };
        let over = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            let of = |k: usize| {
                let (group, c) = (k / classes, k % classes);
                (group * self.group_rows..(group + 1) * self.group_rows).map(|row| f(row, c)).sum()
            };
            (0..groups * classes).map(of).collect()
        };
        let both = over(&|row, c| p[row * classes + c] * hit(row, c));
        let each = over(&|row, c| p[row * classes + c] + hit(row, c));
        let (a, b) = (|k: usize| 2.0 * both[k] + 1.0, |k: usize| each[k] + 1.0);
        let d: Vec<f64> = (0..groups * classes).map(|k| 1.0 - a(k) / b(k)).collect();
        let (s, v) = (f64::from(self.s), |k: usize| f64::from(self.v[k / classes]));
        let (w, u) = (|k: usize| f64::from(self.w[k % classes]), |k: usize| f64::from(self.u[k]));
        let all = || 0..groups * classes;
        let mut d_x = vec![0.0; self.x.len()];
        for row in 0..rows {
            let first = row / self.group_rows * classes;
            // Derivative with respect to the probability, then through the softmax.
            let d_p = |c: usize| {
                let k = first + c;
                let slope = a(k) / (b(k) * b(k)) - 2.0 * hit(row, c) / b(k);
                factor(k) * s * v(k) * w(k) * u(k) * slope
            };
            let along: f64 = (0..classes).map(|c| p[row * classes + c] * d_p(c)).sum();
            (0..classes).for_each(|c| d_x[self.at(row, c)] = p[row * classes + c] * (d_p(c) - along));
        }
        let sum = |of: &dyn Fn(usize) -> bool, f: &dyn Fn(usize) -> f64| all().filter(|k| of(*k)).map(f).sum::<f64>();
        let by_s = |k: usize| factor(k) * v(k) * w(k) * u(k) * d[k];
        let by_v = |k: usize| factor(k) * s * w(k) * u(k) * d[k];
        let by_w = |k: usize| factor(k) * s * v(k) * u(k) * d[k];
        vec![
            all().map(|k| s * v(k) * w(k) * u(k) * d[k]).collect(),
            d_x,
            vec![sum(&|_| true, &by_s)],
            (0..groups).map(|g| sum(&|k| k / classes == g, &by_v)).collect(),
            (0..classes).map(|c| sum(&|k| k % classes == c, &by_w)).collect(),
            all().map(|k| factor(k) * s * v(k) * w(k) * d[k]).collect(),
            (0..groups).map(|g| sum(&|k| k / classes == g, &|k| d[k]) / classes as f64).collect(),
            (0..classes).map(|c| sum(&|k| k % classes == c, &|k| d[k]) / groups as f64).collect(),
            d.clone(),
        ]
    }

    fn shapes(&self) -> [Vec<usize>; 6] {
        let [samples, classes, inner] = self.shape;
        let groups = self.groups();
        [self.x_shape(), vec![samples, inner], vec![], vec![groups], vec![classes], vec![groups, classes]]
    }

    /// Both paths, with inputs `beside` of one value per group and class.
    fn check(&self, ctx: &Context, reduction: &Reduction, dtype: DType, beside: &[(&str, &[f32])]) {
        let what = format!("{:?}, last {}, {} rows, {reduction:?}, {dtype}", self.shape, self.is_last, self.group_rows);
        let count = self.groups() * self.shape[1];
        let own = |name: &str, k: usize| {
            let found = beside.iter().find(|(known, _)| *known == name);
            found.map_or(1.0, |(_, values)| f64::from(values[k]))
        };
        let kept: f64 = (0..count).map(|k| own("mask", k)).sum();
        let divided = if *reduction == Reduction::Mean { 1.0 / kept } else { 1.0 };
        let mut want = self.expected(&|k| own("upstream", k) * own("sample_weight", k) * own("mask", k) * divided);
        let weighted = want[0].iter().enumerate().map(|(k, loss)| loss * own("sample_weight", k) * own("mask", k));
        let weighted: Vec<f64> = weighted.collect();
        want[0] = match reduction {
            Reduction::None => weighted,
            _ => vec![weighted.iter().sum::<f64>() * divided],
        };
        let loss = dice(self.row_axis()).reduction(reduction.clone());
        let shapes = self.shapes();
        let numbers =
            [("s", std::slice::from_ref(&self.s)), ("v", &self.v[..]), ("w", &self.w[..]), ("u", &self.u[..])];
        let mut host = vec![("x", HostTensor::f32(&self.x, &shapes[0])), ("y", HostTensor::i32(&self.y, &shapes[1]))];
        host.extend(numbers.iter().zip(&shapes[2..]).map(|((name, all), shape)| (*name, HostTensor::f32(all, shape))));
        host.extend(beside.iter().map(|(name, all)| (*name, HostTensor::f32(all, &shapes[5]))));
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let has_upstream = beside.iter().any(|(name, _)| *name == "upstream");
        let upstream = if has_upstream { Upstream::PerLoss } else { Upstream::One };
        let wanted = Wanted { loss: true, grads: names(&GRADS), extras: names(&EXTRAS), upstream, ..Wanted::default() };
        let plan = CpuPlan::<f64>::new(&loss, &host, &wanted).unwrap().group_rows(self.group_rows).unwrap();
        let mut out = plan.output();
        plan.run(&host, &mut out).unwrap();
        let mut got = vec![out.loss_values().unwrap().to_vec()];
        got.extend(GRADS.iter().map(|name| out.grad(name).unwrap().to_vec()));
        got.extend(EXTRAS.iter().map(|name| out.extra(name).unwrap().to_vec()));
        close(&format!("{what}, CPU"), &got, &want);

        let x = match dtype {
            DType::BF16 => {
                let halves: Vec<bf16> = self.x.iter().map(|x| bf16::from_f32(*x)).collect();
                Tensor::from_slice(ctx, &halves, &shapes[0]).unwrap()
            }
            _ => Tensor::from_slice(ctx, &self.x, &shapes[0]).unwrap(),
        };
        let mut tensors = vec![("x", x), ("y", Tensor::from_slice(ctx, &self.y, &shapes[1]).unwrap())];
        let others = numbers.iter().zip(&shapes[2..]).map(|((name, all), shape)| (*name, *all, shape));
        let others = others.chain(beside.iter().map(|(name, all)| (*name, *all, &shapes[5])));
        tensors.extend(others.map(|(name, all, shape)| (name, Tensor::from_slice(ctx, all, shape).unwrap())));
        let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let spec = PlanSpec::new().like(&inputs).grad_dtype("x", DType::F32).group_rows(self.group_rows as u64);
        let spec = GRADS.iter().fold(spec.upstream(upstream), |spec, name| spec.grad(name));
        let spec = EXTRAS.iter().fold(spec, |spec, name| spec.extra(name));
        let plan = match ctx.plan(&loss, &spec) {
            Err(error) if !beside.is_empty() && holds_eight(ctx) => return is_one_buffer_too_many(&error),
            plan => plan.unwrap_or_else(|error| panic!("{what}: {error}")),
        };
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        let mut got = vec![read(bound.loss().unwrap())];
        got.extend(GRADS.iter().map(|name| read(bound.grad(name).unwrap())));
        got.extend(EXTRAS.iter().map(|name| read(bound.extra(name).unwrap())));
        close(&format!("{what}, GPU"), &got, &want);
    }

    fn check_all(&self, ctx: &Context) {
        let count = self.groups() * self.shape[1];
        let weight: Vec<f32> = random(count, 21).iter().map(|x| x.abs()).collect();
        let mask: Vec<f32> = (0..count).map(|k| if k % 3 == 1 { 0.0 } else { 1.0 }).collect();
        self.check(ctx, &Reduction::None, DType::F32, &[]);
        self.check(ctx, &Reduction::None, DType::F32, &[("upstream", &weight)]);
        self.check(ctx, &Reduction::Sum, DType::F32, &[("sample_weight", &weight)]);
        self.check(ctx, &Reduction::Mean, DType::BF16, &[("mask", &mask)]);
    }
}

fn read(tensor: &Tensor) -> Vec<f64> {
    tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

/// The loss's pass over rows binds eight buffers, as many as every WebGPU device has for a stage, and a ninth for an upstream
/// gradient, a weight or a mask.
fn holds_eight(ctx: &Context) -> bool {
    ctx.device().limits().max_storage_buffers_per_shader_stage == 8
}

fn is_one_buffer_too_many(error: &Error) {
    let is_told = matches!(error, Error::Limit { needed: 9, allowed: 8, .. });
    assert!(is_told, "{error}");
}

fn close(what: &str, got: &[Vec<f64>], want: &[Vec<f64>]) {
    let names = ["loss"].iter().chain(&GRADS).chain(&EXTRAS);
    for (name, (got, want)) in names.zip(got.iter().zip(want)) {
        assert_close(&format!("{what}: {name}"), got, want, 4e-6);
    }
}

#[test]
fn dice_of_samples_and_classes_is_the_textbooks() {
    let Some(ctx) = context() else { return };
    // One class; a few; more than lanes take at once; many groups; several ranges of rows per group; groups that are parts of
    // a sample, or two samples.
    let cases = [
        ([1, 1, 3], 3),
        ([2, 3, 5], 5),
        ([3, 21, 40], 40),
        ([2, 150, 33], 33),
        ([300, 4, 2], 2),
        ([2, 5, 3000], 3000),
        ([2, 7, 60], 20),
        ([4, 3, 6], 12),
    ];
    for (shape, group_rows) in cases {
        for is_last in [false, true] {
            if is_in_share(&format!("group columns {shape:?} {is_last}")) {
                Data::new(shape, is_last, group_rows).check_all(ctx);
            }
        }
    }
}

#[test]
fn sums_by_group_and_column_survive_chunks() {
    let Some(_) = context() else { return };
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 17, ..wgpu::Limits::default() };
    let ctx = Context::with_limits(limits).unwrap();
    // Bindings of 128 KiB hold: several samples; one; a part of the classes of a sample; a part of the rows, with groups that
    // are smaller, and larger.
    let cases = [
        ([8, 6, 900], false, 900),
        ([3, 21, 1500], false, 1500),
        ([2, 150, 250], false, 250),
        ([5, 64, 300], true, 300),
        ([5, 64, 300], true, 100),
        ([2, 64, 800], true, 800),
    ];
    for (shape, is_last, group_rows) in cases {
        let data = Data::new(shape, is_last, group_rows);
        data.check(&ctx, &Reduction::None, DType::F32, &[]);
        data.check(&ctx, &Reduction::Mean, DType::BF16, &[]);
    }
}

#[test]
fn more_groups_than_a_grid_has_workgroups_along_an_axis_are_taken_in_turns() {
    let Some(_) = context() else { return };
    let limits = wgpu::Limits { max_compute_workgroups_per_dimension: 8, ..wgpu::Limits::default() };
    let ctx = Context::with_limits(limits.clone()).unwrap();
    // 8, 9 and 12 groups, and 301 of one row each; more tiles of columns than workgroups too.
    for (shape, group_rows) in [([8, 3, 5], 5), ([9, 3, 5], 5), ([6, 70, 6], 3), ([301, 4, 1], 1), ([9, 1100, 2], 2)] {
        for is_last in [false, true] {
            let data = Data::new(shape, is_last, group_rows);
            data.check(&ctx, &Reduction::Mean, if is_last { DType::BF16 } else { DType::F32 }, &[]);
        }
    }
    let max_storage_buffer_binding_size = 1 << 17;
    let limits = wgpu::Limits { max_compute_workgroups_per_dimension: 8, max_storage_buffer_binding_size, ..limits };
    let ctx = Context::with_limits(limits).unwrap();
    for (shape, is_last, group_rows) in
        [([8, 6, 900], false, 900), ([5, 64, 300], true, 100), ([2, 64, 800], true, 800)]
    {
        Data::new(shape, is_last, group_rows).check(&ctx, &Reduction::Sum, DType::F32, &[]);
    }
}

/// The loss first, then its gradients for an upstream that is written in between.
#[test]
fn gradients_come_apart_from_the_loss() {
    let Some(ctx) = context() else { return };
    for (shape, is_last) in [([2, 3, 5], false), ([2, 21, 40], true)] {
        let data = Data::new(shape, is_last, shape[2]);
        let shapes = data.shapes();
        let up = Tensor::zeros(ctx, DType::F32, &shapes[5]).unwrap();
        let numbers =
            [("s", std::slice::from_ref(&data.s)), ("v", &data.v[..]), ("w", &data.w[..]), ("u", &data.u[..])];
        let mut tensors = vec![
            ("x", Tensor::from_slice(ctx, &data.x, &shapes[0]).unwrap()),
            ("y", Tensor::from_slice(ctx, &data.y, &shapes[1]).unwrap()),
            ("upstream", up.clone()),
        ];
        let others = numbers.iter().zip(&shapes[2..]);
        tensors.extend(others.map(|((name, all), shape)| (*name, Tensor::from_slice(ctx, all, shape).unwrap())));
        let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let spec = PlanSpec::new().like(&inputs).upstream(Upstream::PerLoss).separate_backward();
        // Those of the scalar, of groups and of classes are sums of upstream gradients, which are refused.
        let grads = ["x", "u"].iter();
        let spec = grads.clone().fold(spec, |spec, name| spec.grad(name));
        let plan = match ctx.plan(&dice(data.row_axis()).reduction(Reduction::None), &spec) {
            Err(error) if holds_eight(ctx) => return is_one_buffer_too_many(&error),
            plan => plan.unwrap(),
        };
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        let encode = |phase: &dyn Fn(&mut wgpu::CommandEncoder) -> wgloss::Result<()>| {
            let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            phase(&mut encoder).unwrap();
            ctx.queue().submit([encoder.finish()]);
        };
        encode(&|encoder| bound.encode_forward(encoder));
        let ups = random(shapes[5].iter().product(), 5);
        up.write(ctx, &ups).unwrap();
        encode(&|encoder| bound.encode_backward(encoder));
        let want = data.expected(&|k| f64::from(ups[k]));
        assert_close("loss", &read(bound.loss().unwrap()), &want[0], 4e-6);
        for (name, want) in grads.zip([&want[1], &want[5]]) {
            assert_close(name, &read(bound.grad(name).unwrap()), want, 4e-6);
        }
    }
}

/// Losses and gradients of `x` (`[groups, rows, cols]`) on both paths.
fn both_paths(ctx: &Context, loss: &Loss, x: &[f32], y: &[i32], shape: [usize; 3]) -> [[Vec<f64>; 2]; 2] {
    let outer = &shape[..2];
    let host = [("x", HostTensor::f32(x, &shape)), ("y", HostTensor::i32(y, outer))];
    let out = wgloss::cpu::forward_backward(loss, &host, &["x"]).unwrap();
    let cpu = [out.loss_values().unwrap().to_vec(), out.grad("x").unwrap().to_vec()];
    let [x, y] = [Tensor::from_slice(ctx, x, &shape).unwrap(), Tensor::from_slice(ctx, y, outer).unwrap()];
    let inputs = [("x", &x), ("y", &y)];
    let plan = ctx.plan(loss, &PlanSpec::new().like(&inputs).grad("x")).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    [cpu, [read(bound.loss().unwrap()), read(bound.grad("x").unwrap())]]
}

/// Each row's cross-entropy in the other direction, within its sample: `L_i = ln Σ_j exp x_j,y(i) − x_i,y(i)`, over the rows j
/// of the group of i.
#[test]
fn a_label_gathers_what_its_group_sums() {
    let Some(ctx) = context() else { return };
    let loss = Loss::define("within").input("x", Scope::Element).label("y").row_axis(RowAxis::Last);
    let loss =
        loss.expr(|b| b.input("x").logsumexp_over(Scope::GroupColumn).at(b.input("y")) - b.input("x").at(b.input("y")));
    for shape in [[1, 1, 1], [3, 4, 5], [2, 70, 33]] {
        let [groups, rows, cols] = shape;
        let x = random(groups * rows * cols, 3);
        let y: Vec<i32> = (0..groups * rows).map(|row| (row * 7 % cols) as i32).collect();
        let at = |row: usize, c: usize| f64::from(x[row * cols + c]).exp();
        let sum = |row: usize, c: usize| (row / rows * rows..(row / rows + 1) * rows).map(|j| at(j, c)).sum::<f64>();
        let (mut losses, mut d_x) = (Vec::new(), vec![0.0; x.len()]);
        for (row, label) in y.iter().enumerate() {
            let c = *label as usize;
            losses.push((sum(row, c) / at(row, c)).ln());
            d_x[row * cols + c] -= 1.0;
            (row / rows * rows..(row / rows + 1) * rows).for_each(|j| d_x[j * cols + c] += at(j, c) / sum(row, c));
        }
        for got in both_paths(ctx, &loss.clone().reduction(Reduction::None), &x, &y, shape) {
            assert_close(&format!("{shape:?}: losses"), &got[0], &losses, 4e-6);
            assert_close(&format!("{shape:?}: gradient"), &got[1], &d_x, 4e-6);
        }
    }
}

/// One value per group, per class, or in all, of an input that may have one for both.
#[test]
fn gradients_of_broadcast_values_are_sums() {
    let Some(ctx) = context() else { return };
    let loss = Loss::define("weighed").input("x", Scope::Element).input("u", Scope::GroupColumn);
    let loss = loss.row_axis(RowAxis::Last).expr(|b| b.input("u") * b.input("x").sum_over(Scope::GroupColumn));
    let loss = loss.reduction(Reduction::Sum);
    let (groups, rows, cols) = (3, 4, 5);
    let x = random(groups * rows * cols, 3);
    let shape = [groups, rows, cols];
    let sum = |g: usize, c: usize| (0..rows).map(|row| f64::from(x[(g * rows + row) * cols + c])).sum::<f64>();
    for own in [&[3, 5][..], &[3, 1], &[1, 5], &[5], &[1, 1], &[]] {
        let (over, along) = match own {
            [g, c] => (*g, *c),
            [c] => (1, *c),
            _ => (1, 1),
        };
        let (u, mut want) = (vec![1.5f32; over * along], vec![0.0; over * along]);
        for (g, c) in (0..groups).flat_map(|g| (0..cols).map(move |c| (g, c))) {
            want[g % over * along + c % along] += sum(g, c);
        }
        let host = [("x", HostTensor::f32(&x, &shape)), ("u", HostTensor::f32(&u, own))];
        let out = wgloss::cpu::forward_backward(&loss, &host, &["u"]).unwrap();
        assert_close(&format!("{own:?}, CPU"), out.grad("u").unwrap(), &want, 1e-12);
        let [x, u] = [Tensor::from_slice(ctx, &x, &shape).unwrap(), Tensor::from_slice(ctx, &u, own).unwrap()];
        let inputs = [("x", &x), ("u", &u)];
        let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("u")).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        assert_close(&format!("{own:?}, GPU"), &read(bound.grad("u").unwrap()), &want, 4e-6);
    }
}

#[test]
fn nan_poisons_its_group_and_column() {
    let Some(ctx) = context() else { return };
    let loss = Loss::define("squares").input("x", Scope::Element).label("y").row_axis(RowAxis::Last);
    let loss = loss.expr(|b| {
        let x = b.input("x").masked(b.input("y").equals(b.graph().index(1)));
        (x * x).sum_over(Scope::GroupColumn)
    });
    let (mut x, mut y) = (random(2 * 5 * 4, 3), vec![1; 10]);
    // One that counts: row 6, of group 1, in column 2. One that is masked.
    (x[6 * 4 + 2], x[3 * 4 + 1], y[3]) = (f32::NAN, f32::NAN, 0);
    let losses = [false, false, false, false, false, false, true, false];
    let gradient: Vec<bool> = (0..40).map(|k| k / 20 == 1 && k % 4 == 2).collect();
    for got in both_paths(ctx, &loss.reduction(Reduction::None), &x, &y, [2, 5, 4]) {
        assert_eq!(is_nan(&got[0]), losses);
        assert_eq!(is_nan(&got[1]), gradient);
    }
}

#[test]
fn of_no_rows_there_are_no_groups() {
    let Some(ctx) = context() else { return };
    let loss = Loss::define("sums").input("x", Scope::Element).label("y").input("w", Scope::Column);
    let loss = loss.row_axis(RowAxis::Last).extra("of_columns", |b| {
        (b.input("x") + 0.0 * b.input("y").equals(b.graph().index(0)).to_float())
            .sum_over(Scope::GroupColumn)
            .sum_over(Scope::Column)
    });
    let loss = loss.expr(|b| b.input("w") * (b.input("x") * b.input("y").to_float()).sum_over(Scope::GroupColumn));
    let host = |w| [("x", HostTensor::f32(&[], &[0, 5, 3])), ("y", HostTensor::i32(&[], &[0, 5])), ("w", w)];
    let w = [1.0f32, 2.0, 3.0];
    for (reduction, losses) in [(Reduction::None, vec![]), (Reduction::Sum, vec![0.0])] {
        let loss = loss.clone().reduction(reduction);
        let host = host(HostTensor::f32(&w, &[3]));
        let wanted = Wanted {
            loss: true,
            grads: vec!["x".to_owned(), "w".to_owned()],
            extras: vec!["of_columns".to_owned()],
            ..Wanted::default()
        };
        let out = wgloss::cpu::run::<f64>(&loss, &host, &wanted).unwrap();
        assert_eq!(out.loss_values().unwrap(), losses);
        assert_eq!((out.grad("x").unwrap(), out.grad("w").unwrap()), (&[][..], &[0.0; 3][..]));
        assert_eq!(out.extra("of_columns").unwrap(), [0.0; 3]);
        let x = Tensor::zeros(ctx, DType::F32, &[0, 5, 3]).unwrap();
        let y = Tensor::zeros(ctx, DType::I32, &[0, 5]).unwrap();
        let w = Tensor::from_slice(ctx, &w, &[3]).unwrap();
        let inputs = [("x", &x), ("y", &y), ("w", &w)];
        let spec = PlanSpec::new().like(&inputs).grad("x").grad("w").extra("of_columns");
        let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        assert_eq!(read(bound.loss().unwrap()), losses);
        assert_eq!(read(bound.grad("w").unwrap()), [0.0; 3]);
        assert_eq!(read(bound.extra("of_columns").unwrap()), [0.0; 3]);
    }
}

#[test]
fn what_is_not_summed_by_group_and_column_is_refused_with_a_way_out() {
    let Some(ctx) = context() else { return };
    let loss = Loss::define("sums").input("x", Scope::Element).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| b.input("x").sum_over(Scope::GroupColumn)).reduction(Reduction::None);
    let refused = |spec: &PlanSpec| match ctx.plan(&loss, spec) {
        Err(Error::Unsupported { message }) => message,
        other => panic!("{:?}", other.err()),
    };
    let spec = PlanSpec::new().input("x", DType::F32, &[6, 4]);
    let ragged = spec.clone().input("groups", DType::I32, &[3]).group_offsets("groups");
    assert!(refused(&ragged).contains("group_rows"));
    let shard = spec.clone().shard(Shard { first: 0, classes: 8, shards: 2 });
    assert!(refused(&shard).contains("for each column"));
    let x = [0.0f32; 24];
    let host = [("x", HostTensor::f32(&x, &[6, 4])), ("groups", HostTensor::i32(&[0, 2, 6], &[3]))];
    let wanted = Wanted { loss: true, groups: Some(GroupInput::offsets("groups")), ..Wanted::default() };
    assert!(matches!(wgloss::cpu::run::<f64>(&loss, &host, &wanted), Err(Error::Unsupported { .. })));
    let error = Export::new(&loss, &spec).err();
    assert!(matches!(&error, Some(Error::Unsupported { message }) if message.contains("group")), "{error:?}");
}

/// A loss per element that multiplies a value per group and column, and sums nothing by column: `L = x·u_gc`, of which the
/// gradient with respect to `u` is `Σᵢ x_ic` over the rows of group g.
#[test]
fn the_gradient_of_a_value_per_group_and_column_needs_no_other_sum() {
    let Some(ctx) = context() else { return };
    let (rows, group_rows, cols) = (12, 3, 5);
    let groups = rows / group_rows;
    let loss = Loss::define("scaled").input("x", Scope::Element).input("u", Scope::GroupColumn);
    let loss = loss.row_axis(RowAxis::Last).expr(|b| b.input("x") * b.input("u")).reduction(Reduction::Sum);
    let (x, u) = (random(rows * cols, 21), random(groups * cols, 22));
    let shapes = [vec![rows, cols], vec![groups, cols]];
    let mut want = vec![0.0; groups * cols];
    (0..rows * cols).for_each(|k| want[k / cols / group_rows * cols + k % cols] += f64::from(x[k]));

    let host = [("x", HostTensor::f32(&x, &shapes[0])), ("u", HostTensor::f32(&u, &shapes[1]))];
    let wanted = Wanted { loss: true, grads: vec!["u".to_owned()], ..Wanted::default() };
    let plan = CpuPlan::<f64>::new(&loss, &host, &wanted).unwrap().group_rows(group_rows).unwrap();
    let mut out = plan.output();
    plan.run(&host, &mut out).unwrap();
    assert_close("CPU", out.grad("u").unwrap(), &want, 1e-12);

    let tensors = [Tensor::from_slice(ctx, &x, &shapes[0]).unwrap(), Tensor::from_slice(ctx, &u, &shapes[1]).unwrap()];
    let inputs = [("x", &tensors[0]), ("u", &tensors[1])];
    let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("u").group_rows(group_rows as u64)).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    let got = crate::common::read(&bound, bound.grad("u").unwrap());
    assert_close("GPU", &got, &want, 1e-5);
}

/// Of a voxel that is confident, the cross-entropy's gradient is `p − 1`, of which a difference in f32 has no digits, beside a
/// Dice loss that tells the most probable class apart too.
#[test]
fn a_confident_label_keeps_its_digits_beside_a_sum_by_class() {
    let Some(ctx) = context() else { return };
    let (x, y) = ([14.0f32, 0.0, -1.0, 0.5, 1.5, 0.25], [0i32, 1]);
    let loss = wgloss::losses::dice_ce().lambda_dice(0.0).class_axis(wgloss::ClassAxis::Last);
    let out = loss
        .forward_backward(
            ctx,
            &[
                ("input", &Tensor::from_slice(ctx, &x, &[2, 3]).unwrap()),
                ("target", &Tensor::from_slice(ctx, &y, &[2]).unwrap()),
            ],
        )
        .unwrap();
    let got = out.grad("input").unwrap().to_vec::<f32>().unwrap();
    let rest = (-14f64).exp() + (-15f64).exp();
    let want = -rest / (1.0 + rest) / 2.0;
    assert!((f64::from(got[0]) / want - 1.0).abs() < 1e-6, "{} {want}", got[0]);
}
