//! Sums over the rows for each column, GPU and CPU, against plain loops.

use crate::common::compare::{assert_close, is_nan, random};
use crate::common::context;
use half::bf16;
use wgloss::cpu::CpuPlan;
use wgloss::{
    Bindings, Context, DType, Error, Extent, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Shard, Tensor,
    Upstream, Wanted, losses,
};

/// Dice loss per class after a softmax: `L_c = w_c·(1 − (2·Σᵢ pᵢ_c·tᵢ_c + 1) / (Σᵢ pᵢ_c + Σᵢ tᵢ_c + 1))`.
fn dice(row_axis: RowAxis) -> Loss {
    let definition = Loss::define("dice").input("x", Scope::Element).label("y").input("w", Scope::Column);
    definition.row_axis(row_axis).extra("probability", |b| b.input("x").softmax().sum_over(Scope::Column)).expr(|b| {
        let p = b.input("x").softmax();
        let t = b.graph().col_index().equals(b.input("y")).to_float();
        let both = (p * t).sum_over(Scope::Column);
        let each = p.sum_over(Scope::Column) + t.sum_over(Scope::Column);
        b.input("w") * (1.0 - (2.0 * both + 1.0) / (each + 1.0))
    })
}

/// A problem of `[samples, classes, inner]` logits (or `[samples, inner, classes]`).
struct Data {
    shape: [usize; 3],
    is_last: bool,
    x: Vec<f32>,
    y: Vec<i32>,
    w: Vec<f32>,
}

struct Expected {
    losses: Vec<f64>,
    x: Vec<f64>,
    w: Vec<f64>,
    probability: Vec<f64>,
}

impl Data {
    fn new([samples, classes, inner]: [usize; 3], is_last: bool) -> Data {
        let x = random(samples * classes * inner, 11).iter().map(|x| bf16::from_f32(3.0 * x).to_f32()).collect();
        let y = (0..samples * inner).map(|row| (row * 5 % classes) as i32).collect();
        let w = random(classes, 12).iter().map(|w| w.abs() + 0.5).collect();
        Data { shape: [samples, classes, inner], is_last, x, y, w }
    }

    fn row_axis(&self) -> RowAxis {
        if self.is_last { RowAxis::Last } else { RowAxis::Class }
    }

    fn x_shape(&self) -> Vec<usize> {
        let [samples, classes, inner] = self.shape;
        if self.is_last { vec![samples, inner, classes] } else { vec![samples, classes, inner] }
    }

    fn y_shape(&self) -> Vec<usize> {
        vec![self.shape[0], self.shape[2]]
    }

    /// Index in `x` of a row's column.
    fn at(&self, row: usize, col: usize) -> usize {
        let [_, classes, inner] = self.shape;
        if self.is_last { row * classes + col } else { (row / inner * classes + col) * inner + row % inner }
    }

    /// By the textbook; `factor(c)` is the derivative of the result with respect to the loss of class `c`.
    fn expected(&self, factor: &dyn Fn(usize) -> f64) -> Expected {
        let [samples, classes, inner] = self.shape;
        let rows = samples * inner;
        let mut p = vec![0.0f64; rows * classes];
        for row in 0..rows {
            let most = (0..classes).map(|c| f64::from(self.x[self.at(row, c)])).fold(f64::MIN, f64::max);
            let e: Vec<f64> = (0..classes).map(|c| (f64::from(self.x[self.at(row, c)]) - most).exp()).collect();
            let sum: f64 = e.iter().sum();
            (0..classes).for_each(|c| p[row * classes + c] = e[c] / sum);
        }
        let hit = |row: usize, c: usize| if self.y[row] as usize == c { 1.0 } else { 0.0 };
        let over = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            (0..classes).map(|c| (0..rows).map(|row| f(row, c)).sum()).collect()
        };
        let both = over(&|row, c| p[row * classes + c] * hit(row, c));
        let (sum_p, sum_t) = (over(&|row, c| p[row * classes + c]), over(&hit));
        let (a, b) = (|c: usize| 2.0 * both[c] + 1.0, |c: usize| sum_p[c] + sum_t[c] + 1.0);
        let plain: Vec<f64> = (0..classes).map(|c| 1.0 - a(c) / b(c)).collect();
        let w = |c: usize| f64::from(self.w[c]);
        let mut x = vec![0.0; self.x.len()];
        for row in 0..rows {
            // Derivative with respect to the probability, then through the softmax.
            let d = |c: usize| factor(c) * w(c) * (a(c) / (b(c) * b(c)) - 2.0 * hit(row, c) / b(c));
            let along: f64 = (0..classes).map(|c| p[row * classes + c] * d(c)).sum();
            (0..classes).for_each(|c| x[self.at(row, c)] = p[row * classes + c] * (d(c) - along));
        }
        Expected {
            losses: (0..classes).map(|c| w(c) * plain[c]).collect(),
            x,
            w: (0..classes).map(|c| factor(c) * plain[c]).collect(),
            probability: sum_p,
        }
    }

    fn check(&self, ctx: &Context, reduction: Reduction, dtype: DType) {
        let classes = self.shape[1];
        let what = format!("{:?}, last {}, {reduction:?}, {dtype}", self.shape, self.is_last);
        let factor = match reduction {
            Reduction::Mean => 1.0 / classes as f64,
            _ => 1.0,
        };
        let want = self.expected(&|_| factor);
        let losses = match reduction {
            Reduction::None => want.losses.clone(),
            _ => vec![want.losses.iter().sum::<f64>() * factor],
        };
        let loss = dice(self.row_axis()).reduction(reduction);
        let host = [
            ("x", HostTensor::f32(&self.x, &self.x_shape())),
            ("y", HostTensor::i32(&self.y, &self.y_shape())),
            ("w", HostTensor::f32(&self.w, &[classes])),
        ];
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let wanted =
            Wanted { loss: true, grads: names(&["x", "w"]), extras: names(&["probability"]), ..Wanted::default() };
        let plan = CpuPlan::<f64>::new(&loss, &host, &wanted).unwrap();
        let mut out = plan.output();
        plan.run(&host, &mut out).unwrap();
        close(&format!("{what}: loss, CPU"), out.loss_values().unwrap(), &losses);
        close(&format!("{what}: x, CPU"), out.grad("x").unwrap(), &want.x);
        close(&format!("{what}: w, CPU"), out.grad("w").unwrap(), &want.w);
        close(&format!("{what}: probability, CPU"), out.extra("probability").unwrap(), &want.probability);

        let x = match dtype {
            DType::BF16 => {
                let halves: Vec<bf16> = self.x.iter().map(|x| bf16::from_f32(*x)).collect();
                Tensor::from_slice(ctx, &halves, &self.x_shape()).unwrap()
            }
            _ => Tensor::from_slice(ctx, &self.x, &self.x_shape()).unwrap(),
        };
        let y = Tensor::from_slice(ctx, &self.y, &self.y_shape()).unwrap();
        let w = Tensor::from_slice(ctx, &self.w, &[classes]).unwrap();
        let inputs = [("x", &x), ("y", &y), ("w", &w)];
        let spec = PlanSpec::new().like(&inputs).grad("x").grad_dtype("x", DType::F32).grad("w").extra("probability");
        let plan = ctx.plan(&loss, &spec).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        bound.submit().unwrap();
        let read =
            |tensor: &Tensor| -> Vec<f64> { tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect() };
        close(&format!("{what}: loss, GPU"), &read(bound.loss().unwrap()), &losses);
        close(&format!("{what}: x, GPU"), &read(bound.grad("x").unwrap()), &want.x);
        close(&format!("{what}: w, GPU"), &read(bound.grad("w").unwrap()), &want.w);
        close(&format!("{what}: probability, GPU"), &read(bound.extra("probability").unwrap()), &want.probability);
    }

    /// The loss first, then its gradients for an upstream that is written in between: twice, as steps follow each other.
    fn check_apart(&self, ctx: &Context, reduction: Reduction) {
        let classes = self.shape[1];
        let what = format!("{:?}, last {}, {reduction:?}, apart", self.shape, self.is_last);
        let (upstream, per_class) = match reduction {
            Reduction::None => (Upstream::PerLoss, vec![classes]),
            _ => (Upstream::Scalar, vec![]),
        };
        let [x, y] = [&self.x_shape(), &self.y_shape()];
        let (x, y) = (Tensor::from_slice(ctx, &self.x, x).unwrap(), Tensor::from_slice(ctx, &self.y, y).unwrap());
        let w = Tensor::from_slice(ctx, &self.w, &[classes]).unwrap();
        let up = Tensor::zeros(ctx, DType::F32, &per_class).unwrap();
        let inputs = [("x", &x), ("y", &y), ("w", &w), ("upstream", &up)];
        let spec = PlanSpec::new().like(&inputs).grad("x").grad("w").upstream(upstream).separate_backward();
        let plan = ctx.plan(&dice(self.row_axis()).reduction(reduction.clone()), &spec).unwrap();
        let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
        let encode = |phase: &dyn Fn(&mut wgpu::CommandEncoder) -> wgloss::Result<()>| {
            let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            phase(&mut encoder).unwrap();
            ctx.queue().submit([encoder.finish()]);
        };
        let read =
            |tensor: &Tensor| -> Vec<f64> { tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect() };
        for seed in [1, 2] {
            let ups = random(up.shape().iter().product(), seed);
            encode(&|encoder| bound.encode_forward(encoder));
            let plain = self.expected(&|_| 1.0).losses;
            let whole = vec![plain.iter().sum::<f64>()];
            let losses = if reduction == Reduction::None { plain } else { whole };
            close(&format!("{what}: loss"), &read(bound.loss().unwrap()), &losses);
            up.write(ctx, &ups).unwrap();
            encode(&|encoder| bound.encode_backward(encoder));
            let want = self.expected(&|class| f64::from(ups[if ups.len() == 1 { 0 } else { class }]));
            close(&format!("{what}: x"), &read(bound.grad("x").unwrap()), &want.x);
            close(&format!("{what}: w"), &read(bound.grad("w").unwrap()), &want.w);
        }
    }
}

fn close(what: &str, got: &[f64], want: &[f64]) {
    assert_close(what, got, want, 4e-6);
}

#[test]
fn dice_of_classes_is_the_textbooks() {
    let Some(ctx) = context() else { return };
    // One class; a few; more than lanes take at once; more rows than one range; columns innermost and rows innermost.
    for shape in [[1, 1, 3], [2, 3, 5], [2, 21, 40], [3, 150, 33], [1, 300, 7], [2, 5, 3000]] {
        for is_last in [false, true] {
            let data = Data::new(shape, is_last);
            for reduction in [Reduction::None, Reduction::Sum, Reduction::Mean] {
                data.check(ctx, reduction, DType::F32);
            }
            data.check(ctx, Reduction::Mean, DType::BF16);
        }
    }
}

/// Beside a cross-entropy whose rows are larger than a binding: the gradient's trip finds what the first one left.
#[test]
fn logits_beyond_a_binding_are_read_twice_for_the_gradient() {
    let Some(_) = context() else { return };
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 17, ..wgpu::Limits::default() };
    let ctx = Context::with_limits(limits).unwrap();
    let data = Data::new([2, 150, 250], false);
    let (rows, classes) = (500, 150);
    let mut want = data.expected(&|_| 1.0 / classes as f64);
    let mut loss = want.losses.iter().sum::<f64>() / classes as f64;
    for row in 0..rows {
        let e: Vec<f64> = (0..classes).map(|c| f64::from(data.x[data.at(row, c)]).exp()).collect();
        let (sum, label) = (e.iter().sum::<f64>(), data.y[row] as usize);
        loss -= (e[label] / sum).ln() / rows as f64;
        for (c, e) in e.iter().enumerate() {
            want.x[data.at(row, c)] += (e / sum - if c == label { 1.0 } else { 0.0 }) / rows as f64;
        }
    }
    let x = Tensor::from_slice(&ctx, &data.x, &data.x_shape()).unwrap();
    let y = Tensor::from_slice(&ctx, &data.y, &data.y_shape()).unwrap();
    let w = Tensor::from_slice(&ctx, &data.w, &[classes]).unwrap();
    let both = losses::cross_entropy().rename_input("input", "x").rename_input("target", "y") + dice(RowAxis::Class);
    let inputs = [("x", &x), ("y", &y), ("w", &w)];
    let plan = ctx.plan(&both, &PlanSpec::new().like(&inputs).grad("x")).unwrap();
    let bound = plan.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    close("loss", &[f64::from(bound.read_loss().unwrap())], &[loss]);
    let grad = bound.grad("x").unwrap().to_vec::<f32>().unwrap();
    close("gradient", &grad.into_iter().map(f64::from).collect::<Vec<_>>(), &want.x);
    let text = bound.explain();
    let reads: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with("x ")).collect();
    let counts: Vec<bool> = reads.iter().map(|line| line.contains("2 reads")).collect();
    assert_eq!(counts, [false, false, true], "{text}");
    assert!(!text.contains("3 reads"), "{text}");
}

#[test]
fn gradients_come_apart_from_the_loss() {
    let Some(ctx) = context() else { return };
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 17, ..wgpu::Limits::default() };
    let small = Context::with_limits(limits).unwrap();
    for shape in [[1, 1, 3], [2, 3, 5], [2, 21, 40], [1, 300, 7], [2, 5, 3000], [1, 5000, 2]] {
        for is_last in [false, true] {
            for reduction in [Reduction::None, Reduction::Sum] {
                Data::new(shape, is_last).check_apart(ctx, reduction);
            }
        }
    }
    // Several samples per binding; samples that are larger than a binding.
    for shape in [[9, 6, 1000], [2, 150, 250]] {
        Data::new(shape, false).check_apart(&small, Reduction::Sum);
    }
}

#[test]
fn a_shard_does_not_sum_by_column() {
    let Some(ctx) = context() else { return };
    let spec =
        PlanSpec::new().input("x", DType::F32, &[4, 3]).input("y", DType::I32, &[4]).input("w", DType::F32, &[3]);
    let spec = spec.shard(Shard { first: 0, classes: 6, shards: 2 });
    let error = ctx.plan(&dice(RowAxis::Last), &spec).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { message } if message.contains("for each column")), "{error}");
}

#[test]
fn sums_by_column_survive_chunks() {
    let Some(_) = context() else { return };
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 1 << 17, ..wgpu::Limits::default() };
    let ctx = Context::with_limits(limits).unwrap();
    // Several samples per binding; a sample per binding; samples that are larger than a binding (128 KiB).
    for (shape, is_last) in
        [([9, 6, 1000], false), ([3, 21, 1500], false), ([2, 150, 250], false), ([40, 64, 60], true)]
    {
        let data = Data::new(shape, is_last);
        data.check(&ctx, Reduction::Mean, DType::F32);
        data.check(&ctx, Reduction::None, DType::BF16);
    }
}

#[test]
fn a_bad_row_poisons_the_columns_that_it_is_summed_in() {
    let Some(ctx) = context() else { return };
    // Without a softmax a NaN stays in its column.
    let loss = Loss::define("by column").input("x", Scope::Element).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| (b.input("x") * b.input("x")).sum_over(Scope::Column)).reduction(Reduction::None);
    let mut x = random(12 * 5, 3);
    x[7 * 5 + 2] = f32::NAN;
    let want = [false, false, true, false, false];
    let host = [("x", HostTensor::f32(&x, &[12, 5]))];
    let out = wgloss::cpu::forward_backward(&loss, &host, &["x"]).unwrap();
    assert_eq!(is_nan(out.loss_values().unwrap()), want);
    let tensor = Tensor::from_slice(ctx, &x, &[12, 5]).unwrap();
    let inputs = [("x", &tensor)];
    let bound = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad("x")).unwrap();
    let bound = bound.bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    let losses: Vec<f64> = bound.loss().unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    assert_eq!(is_nan(&losses), want);
    // A label out of range poisons its row, and so every column's share of it.
    let mut data = Data::new([2, 4, 6], false);
    data.y[3] = 4;
    let (x, y) = (Tensor::from_slice(ctx, &data.x, &data.x_shape()), Tensor::from_slice(ctx, &data.y, &data.y_shape()));
    let (x, y, w) = (x.unwrap(), y.unwrap(), Tensor::from_slice(ctx, &data.w, &[4]).unwrap());
    let picked = Loss::define("picked").input("x", Scope::Element).label("y").input("w", Scope::Column);
    let picked = picked
        .row_axis(RowAxis::Class)
        .expr(|b| b.input("w") * (b.input("x") * b.input("x").at(b.input("y"))).sum_over(Scope::Column));
    let inputs = [("x", &x), ("y", &y), ("w", &w)];
    let spec = PlanSpec::new().like(&inputs).grad("x");
    let bound = ctx.plan(&picked, &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    assert!(matches!(bound.read_loss(), Err(Error::LabelOutOfRange { row: 3, label: 4, classes: 4 })));
    assert!(bound.read_loss().unwrap().is_nan());
}

#[test]
fn columns_count_once_in_a_total() {
    // Σ_c w_c² over the classes, whatever the number of rows; beside a mean of rows.
    let Some(ctx) = context() else { return };
    let loss = Loss::define("beside").input("x", Scope::Element).input("w", Scope::Column).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| {
        let w = b.input("w");
        let rows = b.graph().count(Extent::Rows);
        (w * w).sum_over(Scope::Total) + (b.input("x").sum() / rows).sum_over(Scope::Total)
    });
    let (x, w) = (random(6 * 4, 1), random(4, 2));
    let want =
        w.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() + x.iter().map(|x| f64::from(*x)).sum::<f64>() / 6.0;
    let by_w: Vec<f64> = w.iter().map(|w| 2.0 * f64::from(*w)).collect();
    let host = [("x", HostTensor::f32(&x, &[6, 4])), ("w", HostTensor::f32(&w, &[4]))];
    let out = wgloss::cpu::forward_backward(&loss, &host, &["w"]).unwrap();
    close("loss, CPU", &[out.loss().unwrap()], &[want]);
    close("w, CPU", out.grad("w").unwrap(), &by_w);
    let (x, w) = (Tensor::from_slice(ctx, &x, &[6, 4]).unwrap(), Tensor::from_slice(ctx, &w, &[4]).unwrap());
    let inputs = [("x", &x), ("w", &w)];
    let spec = PlanSpec::new().like(&inputs).grad("w");
    let bound = ctx.plan(&loss, &spec).unwrap().bind(&Bindings::new().inputs(&inputs)).unwrap();
    bound.submit().unwrap();
    close("loss, GPU", &[bound.read_loss().unwrap().into()], &[want]);
    let got: Vec<f64> = bound.grad("w").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    close("w, GPU", &got, &by_w);
}
