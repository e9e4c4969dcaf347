//! Elements at a class index: of columns beside classes at axis 1, and at indices that a row's own reductions find.

use crate::common::compare::{mismatch, random};
use crate::common::context;
use rayon::prelude::*;
use wgloss::{Bindings, Context, GradMode, HostTensor, Loss, PlanSpec, Reduction, RowAxis, Scope, Tensor, cpu, losses};
use wgloss::{Kernel, Pinned};

/// Loss and gradients agree with the CPU's f64 path; the first gradient in place where `in_place`.
fn check(ctx: &Context, loss: &Loss, inputs: &[(&str, HostTensor<'_>, Tensor)], grads: &[&str], spec: &PlanSpec) {
    let host: Vec<(&str, HostTensor<'_>)> = inputs.iter().map(|(name, host, _)| (*name, host.clone())).collect();
    let want = cpu::forward_backward(loss, &host, grads).unwrap();
    let tensors: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, _, tensor)| (*name, tensor)).collect();
    let shape = tensors[0].1.shape();
    let what = format!("{} {shape:?} {spec:?}", loss.name());
    let plan = ctx.plan(loss, &spec.clone().like(&tensors)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let bound = plan.bind(&Bindings::new().inputs(&tensors)).unwrap();
    bound.submit().unwrap();
    bound.read_loss().unwrap_or_else(|error| panic!("{what}: {error}"));
    let compare = |name: &str, got: Vec<f32>, want: &[f64]| {
        let got: Vec<f64> = got.into_iter().map(f64::from).collect();
        let most = want.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        if let Some(worst) = mismatch(&got, want, 3e-6, |_| 2e-6 * most + 1e-7) {
            panic!("{what}: {name}{worst}");
        }
    };
    compare("loss", bound.loss().unwrap().to_vec().unwrap(), want.loss_values().unwrap());
    for name in grads {
        compare(name, bound.grad(name).unwrap().to_vec().unwrap(), want.grad(name).unwrap());
    }
}

fn number<'a>(ctx: &Context, name: &'a str, values: &'a [f32], shape: &[usize]) -> (&'a str, HostTensor<'a>, Tensor) {
    (name, HostTensor::f32(values, shape), Tensor::from_slice(ctx, values, shape).unwrap())
}

fn label<'a>(ctx: &Context, values: &'a [i32], shape: &[usize]) -> (&'a str, HostTensor<'a>, Tensor) {
    ("target", HostTensor::i32(values, shape), Tensor::from_slice(ctx, values, shape).unwrap())
}

/// Cross-entropy of logits less a margin at the label: the softmax's operand depends on the label itself.
fn margin_softmax() -> Loss {
    let definition = Loss::define("margin_softmax").input("input", Scope::Element).label("target");
    definition.row_axis(RowAxis::Last).expr(|b| {
        let (x, y) = (b.input("input"), b.input("target"));
        let z = x - b.graph().col_index().equals(y).select(0.25, 0.0);
        z.logsumexp_shifted() - (z.at(y) - z.max().detach())
    })
}

#[test]
fn the_gradient_of_a_margin_softmax_keeps_the_digits_of_confident_rows() {
    let Some(ctx) = context() else { return };
    // The label is certain to 1e-9, 1e-6 and 1e-3: p − 1 is that small, and what f32 has of p is 1.
    let labels = [1, 0, 4];
    let lead = [21.0f32, 14.0, 7.0];
    let x: Vec<f32> = (0..15).map(|k| if k as i32 % 5 == labels[k / 5] { lead[k / 5] } else { 0.0 }).collect();
    let loss = margin_softmax().reduction(Reduction::None);
    let (host, y) = (HostTensor::f32(&x, &[3, 5]), HostTensor::i32(&labels, &[3]));
    let want = cpu::forward_backward(&loss, &[("input", host), ("target", y)], &["input"]).unwrap();
    let (x, y) = (Tensor::from_slice(ctx, &x, &[3, 5]).unwrap(), Tensor::from_slice(ctx, &labels, &[3]).unwrap());
    let got = loss.forward_backward(ctx, &[("input", &x), ("target", &y)]).unwrap();
    let got: Vec<f64> = got.grad("input").unwrap().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
    let want = want.grad("input").unwrap();
    for row in 0..3 {
        let label = row * 5 + labels[row] as usize;
        let others = 4.0 * (0.25 - f64::from(lead[row])).exp();
        assert!((want[label] * (1.0 + others) / -others - 1.0).abs() < 1e-12, "the f64 path, row {row}");
        let off = mismatch(&got[row * 5..][..5], &want[row * 5..][..5], 1e-6, |_| 2e-6 * want[label].abs());
        assert_eq!(off, None, "row {row}");
    }
}

#[test]
fn class_weights_at_axis_one_agree_with_the_cpu() {
    if context().is_none() {
        return;
    }
    // Around one vector and one workgroup, and odd: windows of the weights are masked where those of the input cannot be.
    [3usize, 64, 65, 127, 129, 255, 1001].into_par_iter().with_max_len(1).for_each(|classes| {
        let Some(ctx) = context() else { return };
        for inner in [6usize, 1].into_iter().take(if classes == 65 { 2 } else { 1 }) {
            let (n, shape) = (2, [2, classes, inner]);
            let x = random(n * classes * inner, classes as u32);
            let p: Vec<f32> = x.iter().map(|x| -x.abs() - 0.1).collect();
            let w: Vec<f32> = random(classes, 5).iter().map(|w| w.abs() + 0.1).collect();
            let y: Vec<i32> = (0..n * inner).map(|k| (k * 7919 % classes) as i32).collect();
            let y = label(ctx, &y, &[n, inner]);
            let weights = |name| number(ctx, name, &w, &[classes]);
            let ce = losses::cross_entropy;
            let cases: [(Loss, _, _, _); 5] = [
                (ce().into(), "weight", &x, &["input"][..]),
                (ce().into(), "weight", &x, &["input", "weight"]),
                (ce().label_smoothing(0.1).into(), "weight", &x, &["input"]),
                (losses::nll().into(), "weight", &p, &["input"]),
                (losses::multiclass_focal().into(), "alpha", &x, &["input"]),
            ];
            for (loss, name, values, grads) in cases {
                let each = loss.clone().reduction(Reduction::None);
                for loss in [loss, each].into_iter().take(if classes == 129 { 2 } else { 1 }) {
                    let spec = grads.iter().fold(PlanSpec::new(), |spec, grad| spec.grad(grad));
                    check(ctx, &loss, &[number(ctx, "input", values, &shape), y.clone(), weights(name)], grads, &spec);
                }
            }
        }
    });
}

/// Elements at the maximum of another input, of the same one, and of what an earlier gather found.
fn at_maxima() -> Vec<(Loss, &'static [&'static str])> {
    let of = |name: &str| {
        let loss = Loss::define(name).input("x", Scope::Element).input("z", Scope::Element);
        loss.row_axis(RowAxis::Class)
    };
    vec![
        (of("another").expr(|b| b.input("x").at(b.input("z").argmax()) * b.input("z").sum()), &["x", "z"]),
        (of("same").expr(|b| b.input("x").at(b.input("x").argmax()) + b.input("z").mean()), &["x", "z"]),
        (
            of("softmax").expr(|b| {
                let p = b.input("x").softmax();
                p.at(b.input("z").argmax()) * (b.input("x") - p.at(b.input("x").argmax()))
            }),
            &["x"],
        ),
        (
            of("later").expr(|b| {
                let (x, z) = (b.input("x"), b.input("z"));
                let first = x.at(z.argmax());
                let second = z.at((x - first).abs().argmax());
                x * second + first
            }),
            &["x", "z"],
        ),
    ]
}

#[test]
fn elements_at_maxima_agree_with_the_cpu_in_every_kernel() {
    let Some(ctx) = context() else { return };
    let row = |lanes| Pinned { workgroup: Some(8), lanes: Some(lanes), ..Pinned::default() };
    let forces = [
        Pinned::default(),
        Pinned { kernel: Some(Kernel::Row), ..row(1) },
        Pinned { kernel: Some(Kernel::Row), ..row(8) },
        Pinned { kernel: Some(Kernel::RowResident { trips: 0 }), ..row(8) },
        Pinned { kernel: Some(Kernel::RowSplit { splits: 3 }), ..row(8) },
    ];
    for (loss, grads) in at_maxima() {
        for shape in [vec![7, 5], vec![3, 257], vec![2, 65, 3]] {
            let count: usize = shape.iter().product();
            let (x, z) = (random(count, 11), random(count, 12));
            let inputs = [number(ctx, "x", &x, &shape), number(ctx, "z", &z, &shape)];
            for pinned in forces {
                let spec = grads.iter().fold(PlanSpec::new().pin(pinned), |spec, grad| spec.grad(grad));
                check(ctx, &loss, &inputs, grads, &spec);
            }
        }
    }
}

#[test]
fn elements_at_maxima_are_read_before_gradients_take_their_place() {
    let Some(ctx) = context() else { return };
    for (loss, grads) in at_maxima() {
        for (kernel, cols) in [(Kernel::Row, 257), (Kernel::RowResident { trips: 0 }, 257), (Kernel::Row, 1004)] {
            let pinned = Pinned { kernel: Some(kernel), workgroup: Some(64), lanes: Some(64), ..Pinned::default() };
            let (x, z) = (random(9 * cols, 13), random(9 * cols, 14));
            let inputs = [number(ctx, "x", &x, &[9, cols]), number(ctx, "z", &z, &[9, cols])];
            let spec = grads.iter().fold(PlanSpec::new().pin(pinned), |spec, g| spec.grad_mode(g, GradMode::InPlace));
            check(ctx, &loss, &inputs, grads, &spec);
        }
    }
}

/// `L_ij = u_ij·x_{i, y_ij}²` by a choice among fixed columns; `∂L/∂x_ic = Σ_j [y_ij = c]·2·u_ij·x_ic`.
#[test]
fn an_index_per_element_chooses_among_fixed_columns() {
    let Some(ctx) = context() else { return };
    let loss = |classes: usize| {
        let definition = Loss::define("named").input("x", Scope::Element).input("u", Scope::Element);
        definition.labels("y", Scope::Element).cols(classes).row_axis(RowAxis::Last).expr(move |b| {
            let (x, y) = (b.input("x"), b.input("y").in_range(classes as u32));
            let none = b.graph().constant(0.0);
            let choose = |rest, k: usize| y.equals(b.graph().index(k as i64)).select(x.column(k), rest);
            let named = (0..classes).fold(none, choose);
            b.input("u") * named * named
        })
    };
    for [rows, cols] in [[1, 1], [7, 3], [300, 5]] {
        let (x, u) = (random(rows * cols, 3), random(rows * cols, 4));
        let y: Vec<i32> = (0..rows * cols).map(|k| (k * 7 / 3 % cols) as i32).collect();
        let (mut losses, mut d_x) = (Vec::new(), vec![0.0f64; rows * cols]);
        for (k, label) in y.iter().enumerate() {
            let place = k / cols * cols + *label as usize;
            let named = f64::from(x[place]);
            losses.push(f64::from(u[k]) * named * named);
            d_x[place] += 2.0 * f64::from(u[k]) * named;
        }
        let loss = loss(cols).reduction(Reduction::None);
        let shape = [rows, cols];
        let host = [
            ("x", HostTensor::f32(&x, &shape)),
            ("u", HostTensor::f32(&u, &shape)),
            ("y", HostTensor::i32(&y, &shape)),
        ];
        let out = cpu::forward_backward(&loss, &host, &["x"]).unwrap();
        let close = |what: &str, got: &[f64], want: &[f64]| {
            let worst = mismatch(got, want, 3e-6, |_| 1e-5);
            assert_eq!(worst, None, "{shape:?}: {what}");
        };
        close("losses, CPU", out.loss_values().unwrap(), &losses);
        close("gradient, CPU", out.grad("x").unwrap(), &d_x);
        let tensors = [
            ("x", &Tensor::from_slice(ctx, &x, &shape).unwrap()),
            ("u", &Tensor::from_slice(ctx, &u, &shape).unwrap()),
            ("y", &Tensor::from_slice(ctx, &y, &shape).unwrap()),
        ];
        let bound = ctx.plan(&loss, &PlanSpec::new().like(&tensors).grad("x")).unwrap();
        let bound = bound.bind(&Bindings::new().inputs(&tensors)).unwrap();
        bound.submit().unwrap();
        let read = |tensor: &Tensor| tensor.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect::<Vec<f64>>();
        close("losses, GPU", &read(bound.loss().unwrap()), &losses);
        close("gradient, GPU", &read(bound.grad("x").unwrap()), &d_x);
    }
    let each = Loss::define("each").input("x", Scope::Element).labels("y", Scope::Element).row_axis(RowAxis::Last);
    let each = each.expr(|b| b.input("x").at(b.input("y").in_columns()));
    let host = [("x", HostTensor::f32(&[1.0], &[1, 1])), ("y", HostTensor::i32(&[0], &[1, 1]))];
    let error = cpu::forward_backward(&each, &host, &[]).unwrap_err().to_string();
    assert!(error.contains("x.column(k)"), "{error}");
}
