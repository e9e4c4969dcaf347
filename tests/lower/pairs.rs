//! Pairs within a row: values and adjoints on GPU and CPU against plain loops in f64.

use crate::common::compare::{assert_close, random};
use crate::common::{context, is_in_share};
use wgloss::cpu::HostFloat;
use wgloss::{
    Bindings, Error, Expr, GradMode, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, Wanted, cpu,
};

/// From x and w of a row: the loss, and its gradients for x and w.
type OfRow = fn(&[f64], &[f64]) -> (f64, [Vec<f64>; 2]);

/// A loss of pairs, and the same by loops.
struct Law {
    name: &'static str,
    build: for<'g> fn(Expr<'g>, Expr<'g>) -> Expr<'g>,
    of_row: OfRow,
}

const LAWS: [Law; 4] = [
    Law {
        // Both roles, each with a weight: Σⱼ wⱼ xⱼ Σₖ tanh(xₖ) wₖ.
        name: "product",
        build: |x, w| (w * x * (x.tanh() * w).partner()).sum_partners().sum() / x.graph().count(wgloss::Extent::Cols),
        of_row: of_product,
    },
    Law {
        // Of ordered pairs alone: ln(1 + e^(xₖ − xⱼ)) where wⱼ > wₖ.
        name: "ordered",
        build: |x, w| w.gt(w.partner()).select((x.partner() - x).softplus(), 0.0).sum_partners().sum(),
        of_row: of_ordered,
    },
    Law {
        // Σⱼ wⱼ ln Σₖ exp(xₖ), over the partners k ≥ j.
        name: "logsumexp",
        build: |x, w| {
            let column = x.graph().col_index();
            let later = column.le(column.partner()).select(x.partner(), f64::NEG_INFINITY);
            (w * later.logsumexp_partners()).sum()
        },
        of_row: of_logsumexp,
    },
    Law {
        // Folds of folds: rⱼ = Σₖ sigmoid(xₖ − xⱼ), then Σⱼₖ wⱼ (rⱼ − rₖ)².
        name: "ranks",
        build: |x, w| {
            let ranks = (x.partner() - x).sigmoid().sum_partners() / x.graph().count(wgloss::Extent::Cols);
            (w * (ranks - ranks.partner()).powi(2)).sum_partners().mean()
        },
        of_row: of_ranks,
    },
];

fn of_product(x: &[f64], w: &[f64]) -> (f64, [Vec<f64>; 2]) {
    let n = x.len() as f64;
    let (a, b): (f64, f64) =
        (x.iter().zip(w).map(|(x, w)| w * x).sum::<f64>(), x.iter().zip(w).map(|(x, w)| x.tanh() * w).sum::<f64>());
    let by_x = x.iter().zip(w).map(|(x, w)| (w * b + a * w / x.cosh().powi(2)) / n).collect();
    (a * b / n, [by_x, x.iter().map(|x| (x * b + a * x.tanh()) / n).collect()])
}

fn of_ordered(x: &[f64], w: &[f64]) -> (f64, [Vec<f64>; 2]) {
    let (mut loss, mut by_x) = (0.0, vec![0.0; x.len()]);
    for j in 0..x.len() {
        for k in (0..x.len()).filter(|k| w[j] > w[*k]) {
            let d = x[k] - x[j];
            loss += d.max(0.0) + (-d.abs()).exp().ln_1p();
            let p = 1.0 / (1.0 + (-d).exp());
            by_x[k] += p;
            by_x[j] -= p;
        }
    }
    (loss, [by_x, vec![0.0; x.len()]])
}

fn of_logsumexp(x: &[f64], w: &[f64]) -> (f64, [Vec<f64>; 2]) {
    let lse = |j: usize| {
        let most = x[j..].iter().copied().fold(f64::NEG_INFINITY, f64::max);
        x[j..].iter().map(|x| (x - most).exp()).sum::<f64>().ln() + most
    };
    let y: Vec<f64> = (0..x.len()).map(lse).collect();
    let by_x = (0..x.len()).map(|k| (0..=k).map(|j| w[j] * (x[k] - y[j]).exp()).sum()).collect();
    (y.iter().zip(w).map(|(y, w)| y * w).sum(), [by_x, y])
}

fn of_ranks(x: &[f64], w: &[f64]) -> (f64, [Vec<f64>; 2]) {
    let n = x.len();
    let p = |j: usize, k: usize| 1.0 / (1.0 + (x[j] - x[k]).exp());
    let r: Vec<f64> = (0..n).map(|j| (0..n).map(|k| p(j, k)).sum::<f64>() / n as f64).collect();
    let (mut loss, mut by_w, mut by_r) = (0.0, vec![0.0; n], vec![0.0; n]);
    for j in 0..n {
        for k in 0..n {
            let d = r[j] - r[k];
            loss += w[j] * d * d / n as f64;
            by_w[j] += d * d / n as f64;
            by_r[j] += 2.0 * w[j] * d / n as f64;
            by_r[k] -= 2.0 * w[j] * d / n as f64;
        }
    }
    let mut by_x = vec![0.0; n];
    for j in 0..n {
        for k in 0..n {
            let step = p(j, k) * (1.0 - p(j, k)) / n as f64;
            by_x[k] += by_r[j] * step;
            by_x[j] -= by_r[j] * step;
        }
    }
    (loss, [by_x, by_w])
}

fn loss(law: &Law) -> Loss {
    let build = law.build;
    let definition = Loss::define(law.name).input("x", Scope::Element).input("w", Scope::Element);
    definition.row_axis(RowAxis::Last).expr(move |b| build(b.input("x"), b.input("w"))).reduction(Reduction::None)
}

fn check(what: &str, (losses, grads): (&[f64], [&[f64]; 2]), law: &Law, [x, w]: [&[f64]; 2], cols: usize) {
    for (row, (x, w)) in x.chunks(cols).zip(w.chunks(cols)).enumerate() {
        let (loss, want) = (law.of_row)(x, w);
        let scale = w.iter().map(|w| w.abs()).sum::<f64>().max(1.0);
        assert!(
            (losses[row] - loss).abs() <= 4e-6 * loss.abs().max(scale),
            "{what}, row {row}: {} for {loss}",
            losses[row]
        );
        for (got, (want, name)) in grads.iter().zip(want.iter().zip(["x", "w"])) {
            assert_close(&format!("{what}: gradient of {name}, row {row}"), &got[row * cols..][..cols], want, 4e-6);
        }
    }
}

fn on_cpu<T: HostFloat + Into<f64>>(law: &Law, [x, w]: [&[f32]; 2], shape: &[usize]) -> [Vec<f64>; 3] {
    let inputs = [("x", HostTensor::f32(x, shape)), ("w", HostTensor::f32(w, shape))];
    let grads = ["x", "w"].map(str::to_owned).to_vec();
    let out = cpu::run::<T>(&loss(law), &inputs, &Wanted { loss: true, grads, ..Wanted::default() }).unwrap();
    let wide = |values: &[T]| values.iter().map(|x| (*x).into()).collect();
    [wide(out.loss_values().unwrap()), wide(out.grad("x").unwrap()), wide(out.grad("w").unwrap())]
}

#[test]
fn folds_over_partners_and_their_adjoints_are_the_textbooks() {
    let ctx = context();
    // One column; a vector and beside it; several rows per workgroup; several blocks of a row.
    for (rows, cols) in [(3, 1), (2, 4), (70, 5), (9, 132), (2, 600), (1, 1501)] {
        let (x, w) = (random(rows * cols, 1), random(rows * cols, 2));
        let wide = [&x, &w].map(|values| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>());
        let wide = [&wide[0][..], &wide[1][..]];
        for law in LAWS.iter().filter(|law| cols < 1000 || law.name == "ordered") {
            let what = format!("{} of {rows} × {cols}", law.name);
            let [losses, by_x, by_w] = on_cpu::<f64>(law, [&x, &w], &[rows, cols]);
            check(&format!("{what} on the CPU"), (&losses, [&by_x, &by_w]), law, wide, cols);
            if cols < 600 {
                let [losses, by_x, by_w] = on_cpu::<f32>(law, [&x, &w], &[rows, cols]);
                check(&format!("{what} on the CPU, f32"), (&losses, [&by_x, &by_w]), law, wide, cols);
            }
            let Some(ctx) = ctx.filter(|_| is_in_share(&format!("{} pairs {}", law.name, cols % 4))) else { continue };
            let tensors = [&x, &w].map(|values| Tensor::from_slice(ctx, values, &[rows, cols]).unwrap());
            let spec = PlanSpec::new().grad("x").grad("w");
            let out = loss(law).run(ctx, &[("x", &tensors[0]), ("w", &tensors[1])], &spec).unwrap();
            let wide_of = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<f64>>();
            let losses = wide_of(out.loss_values().unwrap());
            let [by_x, by_w] = ["x", "w"].map(|name| wide_of(out.grad(name).unwrap().to_vec::<f32>().unwrap()));
            check(&format!("{what} on the GPU"), (&losses, [&by_x, &by_w]), law, wide, cols);
        }
    }
}

#[test]
fn pairs_take_halves_classes_at_axis_one_and_gradients_anywhere() {
    let Some(ctx) = context() else { return };
    let law = &LAWS[1];
    // Rows that lie apart: x[i, :, k].
    let (n, cols, d) = (2, 9, 5);
    let (x, w) = (random(n * cols * d, 3), random(n * cols * d, 4));
    let loss = Loss::define("apart").input("x", Scope::Element).input("w", Scope::Element).row_axis(RowAxis::Class);
    let loss = loss.expr(|b| (LAWS[1].build)(b.input("x"), b.input("w"))).reduction(Reduction::Sum);
    let tensors = [&x, &w].map(|values| Tensor::from_slice(ctx, values, &[n, cols, d]).unwrap());
    let inputs = [("x", &tensors[0]), ("w", &tensors[1])];
    let host = [("x", HostTensor::f32(&x, &[n, cols, d])), ("w", HostTensor::f32(&w, &[n, cols, d]))];
    let want = cpu::forward_backward(&loss, &host, &["x"]).unwrap();
    for mode in [GradMode::Write, GradMode::Accumulate] {
        let plan = ctx.plan(&loss, &PlanSpec::new().like(&inputs).grad_mode("x", mode)).unwrap();
        let held = Tensor::from_slice(ctx, &vec![1.0f32; n * cols * d], &[n, cols, d]).unwrap();
        let bindings = Bindings::new().inputs(&inputs);
        let more = f64::from(u8::from(mode == GradMode::Accumulate));
        let bound = plan.bind(&if more > 0.0 { bindings.grad("x", &held) } else { bindings }).unwrap();
        bound.submit().unwrap();
        let got: Vec<f64> = crate::common::read(&bound, bound.grad("x").unwrap());
        let want: Vec<f64> = want.grad("x").unwrap().iter().map(|x| x + more).collect();
        assert_close(&format!("{mode:?}"), &got, &want, 4e-6);
    }
    // Halves, of odd and even rows; of a few columns less than a block of lanes, of which the windows are then one more.
    for cols in [28, 29, 30, 31, 32, 37, 61, 62, 63] {
        let x: Vec<f32> = random(3 * cols, 6).iter().map(|x| (x * 8.0).round() / 8.0).collect();
        let w: Vec<f32> = random(3 * cols, 7).iter().map(|x| (x * 8.0).round() / 8.0).collect();
        let halves = [&x, &w].map(|values| {
            let bits: Vec<half::f16> = values.iter().map(|x| half::f16::from_f32(*x)).collect();
            Tensor::from_slice(ctx, &bits, &[3, cols]).unwrap()
        });
        let out = self::loss(law).reduction(Reduction::Sum);
        let out = out.run(ctx, &[("x", &halves[0]), ("w", &halves[1])], &PlanSpec::new().grad("x")).unwrap();
        let got = out.grad("x").unwrap().to_vec::<half::f16>().unwrap();
        let got: Vec<f64> = got.iter().map(|x| f64::from(x.to_f32())).collect();
        let [losses, want, _] = on_cpu::<f64>(law, [&x, &w], &[3, cols]);
        let total = losses.iter().sum::<f64>();
        assert_close(&format!("{cols} columns of halves"), &[f64::from(out.loss().unwrap())], &[total], 2e-6);
        assert_close(&format!("halves of {cols} columns"), &got, &want, 6e-4);
    }
}

#[test]
fn an_element_poisons_its_row_if_a_pair_takes_it() {
    // Pairs that m orders; elements in no such pair are not looked at.
    let loss = Loss::define("taken").input("x", Scope::Element).input("m", Scope::Element).row_axis(RowAxis::Last);
    let loss = loss.expr(|b| {
        let (x, m) = (b.input("x"), b.input("m"));
        m.gt(m.partner()).select(2.0 * x * x.partner(), 0.0).sum_partners().sum()
    });
    let loss = loss.reduction(Reduction::None);
    let nan = f32::NAN;
    // Taken as an element; as a partner; in no pair, since no other value of its row differs; m itself is NaN.
    let x = [nan, 1.0, 2.0, 1.0, nan, 2.0, nan, 3.0, 2.0, 1.0, 1.0, 2.0];
    let m = [2.0, 1.0, 1.0, 2.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, nan, 1.0];
    let is_right = |losses: &[f64], grad: &[f64]| {
        for row in [0, 1, 3] {
            let grad = &grad[3 * row..][..3];
            assert!(losses[row].is_nan() && grad.iter().all(|x| x.is_nan()), "row {row}: {losses:?} {grad:?}");
        }
        assert_eq!((losses[2], &grad[6..9]), (0.0, &[0.0; 3][..]));
    };
    let inputs = [("x", HostTensor::f32(&x, &[4, 3])), ("m", HostTensor::f32(&m, &[4, 3]))];
    let out = cpu::forward_backward(&loss, &inputs, &["x"]).unwrap();
    is_right(out.loss_values().unwrap(), out.grad("x").unwrap());
    let Some(ctx) = context() else { return };
    let tensors = [&x, &m].map(|values| Tensor::from_slice(ctx, values, &[4, 3]).unwrap());
    let out = loss.run(ctx, &[("x", &tensors[0]), ("m", &tensors[1])], &PlanSpec::new().grad("x")).unwrap();
    let wide = |values: Vec<f32>| -> Vec<f64> { values.into_iter().map(f64::from).collect() };
    is_right(&wide(out.loss_values().unwrap()), &wide(out.grad("x").unwrap().to_vec::<f32>().unwrap()));
}

#[test]
fn what_pairs_cannot_do_is_refused() {
    let of = |build: for<'g> fn(Expr<'g>) -> Expr<'g>, wanted: Wanted| {
        let loss = Loss::define("mine").input("x", Scope::Element).row_axis(RowAxis::Last);
        let inputs = [("x", HostTensor::f32(&[1.0, 2.0], &[1, 2]))];
        cpu::run::<f64>(&loss.expr(move |b| build(b.input("x"))), &inputs, &wanted).map(|_| ())
    };
    let value = || Wanted { loss: true, ..Wanted::default() };
    let message = |result: Result<(), Error>| result.unwrap_err().to_string();
    for build in [
        (|x| x * x.partner()) as for<'g> fn(Expr<'g>) -> Expr<'g>,
        |x| (x * x.partner()).sum(),
        |x| x.partner().partner().sum_partners(),
        |x| (x * x.partner()).softmax().sum(),
        |x| (x * x.partner()).sum_over(Scope::Total),
        |x| (x * x.partner()).scan_sum(wgloss::Direction::Forward),
    ] {
        let message = message(of(build, value()));
        assert!(message.contains("per pair") || message.contains("scope Pair"), "{message}");
    }
    let curved = Wanted { hessian_diagonals: vec!["x".to_owned()], ..value() };
    let hessian = message(of(|x| (x * x.partner()).sum_partners().sum(), curved));
    assert!(hessian.contains("pairs or a sort"), "{hessian}");
}

#[test]
fn explain_says_how_many_pairs_and_sorts_there_are() {
    let explained = |loss: Loss| {
        let given = loss.inputs().into_iter().filter(|input| !input.optional);
        let spec = given.fold(PlanSpec::new(), |spec, input| spec.input(&input.name, wgloss::DType::F32, &[8, 1000]));
        let preview = wgloss::internals::plan::preview(&loss, &spec.grad("input"), &wgloss::Limits::H100, "an H100");
        preview.unwrap().explanation
    };
    let pairs = explained(wgloss::losses::lambdarank().into());
    assert!(pairs.contains("3 trips of 1,000,000 pairs per row"), "{pairs}");
    let sorts = explained(wgloss::losses::list_mle());
    assert!(sorts.contains("2 scans, 1 sort"), "{sorts}");
}
