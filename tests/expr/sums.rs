//! Sums and multiples of losses.

use crate::common::agree::agree;
use wgloss::{Error, HostTensor, Loss, Reduction, Scope, cpu, losses};

#[test]
fn losses_add_and_subtract_and_scale_like_numbers() {
    let (x, t) = ([3.0f32, -0.5, 1.0], [1.0f32, 0.0, 1.0]);
    let mean = |f: fn(f64) -> f64| x.iter().zip(&t).map(|(x, t)| f(f64::from(x - t))).sum::<f64>() / 3.0;
    let (mse, l1) = (mean(|r| r * r), mean(f64::abs));
    let delta = 0.75f32;
    let huber = mean(|r| if r.abs() <= 0.75 { 0.5 * r * r } else { 0.75 * (r.abs() - 0.375) });
    let inputs: [(&str, &[f32]); 2] = [("input", &x), ("target", &t)];
    let cases: [(Loss, f64, &str); 7] = [
        (-losses::mse(), -mse, "-mse"),
        (losses::mse() - losses::l1(), mse - l1, "mse - l1"),
        (losses::mse() / 4 - losses::huber(delta) * 2.0f32, mse / 4.0 - 2.0 * huber, "0.25*mse - 2*huber"),
        (2 * losses::huber(delta) - 0.5 * losses::mse(), 2.0 * huber - 0.5 * mse, "2*huber - 0.5*mse"),
        (-(losses::huber(delta) - losses::l1()), l1 - huber, "-huber + l1"),
        ([losses::mse(), losses::l1(), losses::mse()].into_iter().sum(), 2.0 * mse + l1, "mse + l1 + mse"),
        ([1.0, 3.0].map(|w| w * losses::huber(delta)).into_iter().sum(), 4.0 * huber, "huber + 3*huber"),
    ];
    for (loss, want, name) in cases {
        assert_eq!(loss.name(), name);
        agree(&loss, &inputs, &[("loss", vec![want])]);
    }
}

#[test]
fn a_sum_of_no_losses_and_a_division_by_zero_are_errors() {
    let none: Loss = Vec::<Loss>::new().into_iter().sum();
    assert!(matches!(none.check(), Err(Error::Expr { message, .. }) if message.contains("no losses")));
    let divided = losses::mse() / 0.0;
    assert!(matches!(divided.check(), Err(Error::Param { param, .. }) if param == "weight"));
}

/// `exp(−s)·r²`, with `s` a scalar, plus `s` itself: a likelihood whose variance is learned.
fn of_learned_variance() -> Loss {
    let residual = Loss::define("scaled_square").input("input", Scope::Element).input("target", Scope::Element);
    let residual = residual.input("s", Scope::Scalar).expr(|b| {
        let r = b.input("input") - b.input("target");
        (-b.input("s")).exp() * r.powi(2)
    });
    residual + Loss::define("log_variance").input("s", Scope::Scalar).expr(|b| b.input("s"))
}

#[test]
fn a_scalar_adds_to_a_total() {
    let (x, t, s) = ([3.0f32, -0.5, 1.5, 0.25], [1.0f32, 0.0, 1.0, 2.0], [0.75f32]);
    let value = |x: &[f64], s: f64| {
        let squares = x.iter().zip(&t).map(|(x, t)| (x - f64::from(*t)).powi(2)).sum::<f64>();
        (-s).exp() * squares / 4.0 + s
    };
    let (at, s_at) = (x.map(f64::from), f64::from(s[0]));
    let d_x = (0..4).map(|k| {
        let step = |h: f64| {
            let mut moved = at;
            moved[k] += h;
            value(&moved, s_at)
        };
        (step(1e-3) - step(-1e-3)) / 2e-3
    });
    // Of s with one step of Richardson.
    let slope = |h: f64| (value(&at, s_at + h) - value(&at, s_at - h)) / (2.0 * h);
    let d_s = (4.0 * slope(1e-3) - slope(2e-3)) / 3.0;
    let want = [("loss", vec![value(&at, s_at)]), ("input", d_x.collect()), ("s", vec![d_s])];
    agree(&of_learned_variance(), &[("input", &x), ("target", &t), ("s", &s)], &want);
    // A number that no input decides adds as well, first or last.
    let constant = || Loss::define("constant").param("k", 2.5, wgloss::Domain::Finite).expr(|b| b.param("k"));
    for loss in [constant() + of_learned_variance(), of_learned_variance() + constant()] {
        agree(&loss, &[("input", &x), ("target", &t), ("s", &s)], &[("loss", vec![value(&at, s_at) + 2.5])]);
    }
}

#[test]
fn a_scalar_does_not_add_to_losses_that_are_many() {
    let loss = of_learned_variance().reduction(Reduction::None);
    let inputs = [("input", HostTensor::f32(&[1.0], &[1])), ("target", HostTensor::f32(&[0.0], &[1]))];
    let inputs = [inputs[0].clone(), inputs[1].clone(), ("s", HostTensor::f32(&[1.0], &[]))];
    let error = cpu::forward_backward(&loss, &inputs, &[]).unwrap_err();
    let message = "expression of scaled_square + log_variance: terms of one sum must have one shape; Element and Scalar \
                   found (a reduction makes one number of each)";
    assert_eq!(error.to_string(), message);
}
