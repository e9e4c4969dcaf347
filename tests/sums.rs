//! Sums and multiples of losses.

mod common;

use common::agree::agree;
use wgloss::{Error, Loss, losses};

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
