//! Powers of negative bases: integers are what users mean, on both paths, in both numbers of the CPU's.

use crate::common::agree::agree;
use wgloss::{Loss, Reduction, Scope};

const X: [f32; 8] = [-3.0, -2.0, -1.5, -0.5, 0.5, 1.5, 2.0, 3.0];

#[test]
fn constant_integer_powers_take_negative_bases() {
    for y in [-3.0f64, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 7.0] {
        let loss = Loss::define("power").input("x", Scope::Element).expr(move |b| b.input("x").pow(y));
        let want = X.map(|x| f64::from(x).powf(y)).to_vec();
        let slope = X.map(|x| y * f64::from(x).powf(y - 1.0)).to_vec();
        agree(&loss.reduction(Reduction::None), &[("x", &X)], &[("loss", want), ("x", slope)]);
    }
}

#[test]
fn powers_that_are_no_integers_are_nan_below_zero() {
    let loss = Loss::define("power").input("x", Scope::Element).expr(|b| b.input("x").pow(2.5));
    let want = X.map(|x| f64::from(x).powf(2.5)).to_vec();
    let slope = X.map(|x| 2.5 * f64::from(x).powf(1.5)).to_vec();
    assert_eq!(want.iter().filter(|x| x.is_nan()).count(), 4);
    agree(&loss.reduction(Reduction::None), &[("x", &X)], &[("loss", want), ("x", slope)]);
}

#[test]
fn powers_of_two_inputs_agree() {
    let loss = Loss::define("power").input("x", Scope::Element).input("y", Scope::Element);
    let loss = loss.expr(|b| b.input("x").pow(b.input("y"))).reduction(Reduction::None);
    // Odd, even and no integers; bases 0 and ±∞; 2²⁴ − 1 is odd.
    let x = [-2.0f32, -2.0, -2.0, 2.0, -1.0, -1.0, -0.0, 0.0, 0.0, 0.0, f32::NEG_INFINITY, -5.0, 3.0];
    let y = [3.0f32, -2.0, 0.5, 0.5, 16_777_215.0, 16_777_214.0, 3.0, 0.0, 1.0, 2.0, 3.0, 0.0, 0.0];
    let each = |f: fn(f64, f64) -> f64| x.iter().zip(&y).map(|(x, y)| f(f64::from(*x), f64::from(*y))).collect();
    let slope = |x: f64, y: f64| if y == 0.0 { 0.0 } else { y * x.powf(y - 1.0) };
    let want: Vec<(&str, Vec<f64>)> = vec![("loss", each(f64::powf)), ("x", each(slope))];
    agree(&loss, &[("x", &x), ("y", &y)], &want);
    // With respect to the power: xʸ·ln x, where there is one.
    let (x, y) = ([2.0f32, 0.5, 0.0, -2.0], [3.0f32, -1.5, 2.0, 2.0]);
    let want = vec![
        ("loss", vec![8.0, 0.5f64.powf(-1.5), 0.0, 4.0]),
        ("y", vec![8.0 * 2f64.ln(), 0.5f64.powf(-1.5) * 0.5f64.ln(), 0.0, f64::NAN]),
    ];
    agree(&loss, &[("x", &x), ("y", &y)], &want);
}

#[test]
fn integer_powers_multiply() {
    // Around 0, where a power's derivative is 0 or infinite; −0, whose odd powers are negative.
    let x = [-3.0f32, -2.0, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.0];
    for n in [-5i32, -2, -1, 0, 1, 2, 3, 4, 5, 7, 16, 17] {
        let loss = Loss::define("power").input("x", Scope::Element).expr(move |b| b.input("x").powi(n));
        let each = |f: &dyn Fn(f64) -> f64| x.iter().map(|x| f(f64::from(*x))).collect::<Vec<f64>>();
        let coefficient = f64::from(n);
        let power = |x: f64, n: i32| (0..n.abs()).fold(1.0, |product, _| product * if n < 0 { 1.0 / x } else { x });
        let slope = |x: f64| if n == 0 { 0.0 } else { coefficient * power(x, n - 1) };
        let curve = |x: f64| if n == 0 || n == 1 { 0.0 } else { coefficient * (coefficient - 1.0) * power(x, n - 2) };
        let want = [("loss", each(&|x| power(x, n))), ("x", each(&slope)), ("x''", each(&curve))];
        agree(&loss.reduction(Reduction::None), &[("x", &x)], &want);
    }
}

#[test]
fn an_integer_power_of_nan_is_nan() {
    for n in [-3, 0, 2, 3] {
        let loss = Loss::define("power").input("x", Scope::Element).expr(move |b| b.input("x").powi(n));
        let want = [("loss", vec![f64::NAN, if n == 0 { 1.0 } else { 2f64.powi(n) }])];
        agree(&loss.reduction(Reduction::None), &[("x", &[f32::NAN, 2.0])], &want);
    }
}
