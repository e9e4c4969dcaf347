//! What formulas are written in: numbers of three types, and bounds.

use crate::common::agree::agree;
use crate::common::special::{digamma, lgamma, trigamma};
use wgloss::{Loss, Reduction, Scope};

/// `x` by itself: not reduced.
fn of_x(build: impl for<'g> Fn(wgloss::Expr<'g>) -> wgloss::Expr<'g> + Send + Sync + 'static) -> Loss {
    Loss::define("of_x").input("x", Scope::Element).expr(move |b| build(b.input("x"))).reduction(Reduction::None)
}

#[test]
fn numbers_of_three_types_are_one_number() {
    let half = 0.5f32;
    let written = of_x(move |x| (1.0 - x).powi(2) * half + 2 * x - (1 - x) / 4.0f32 + x.pow(3).maximum(half));
    let x = [-1.5f32, 0.25, 1.5];
    let want = x.map(|x| {
        let x = f64::from(x);
        (1.0 - x) * (1.0 - x) * 0.5 + 2.0 * x - (1.0 - x) / 4.0 + (x * x * x).max(0.5)
    });
    agree(&written, &[("x", &x)], &[("loss", want.to_vec())]);
}

#[test]
fn a_clamp_passes_the_gradient_between_its_bounds_and_at_both() {
    let x = [-2.0f32, -1.0, -0.5, 0.0, 2.0, 2.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let want = vec![
        ("loss", vec![-1.0, -1.0, -0.5, 0.0, 2.0, 2.0, 2.0, -1.0, f64::NAN]),
        ("x", vec![0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, f64::NAN]),
    ];
    agree(&of_x(|x| x.clamp(-1, 2.0f32)), &[("x", &x)], &want);
}

#[test]
fn a_clamp_is_its_difference_away_from_the_bounds() {
    let value = |x: f64| {
        let clamped = (2.0 * x).clamp(-1.0, 1.5);
        clamped * clamped * clamped + x
    };
    let x = [-3.0f32, -0.75, -0.25, 0.125, 0.5, 1.0, 2.0];
    let each = |f: &dyn Fn(f64) -> f64| x.iter().map(|x| f(f64::from(*x))).collect::<Vec<f64>>();
    let h = 1e-4;
    let want = vec![
        ("loss", each(&value)),
        // Cubes: central differences are off by h², and are exact to 1e-7 with one step of Richardson.
        (
            "x",
            each(&|x| {
                let slope = |h: f64| (value(x + h) - value(x - h)) / (2.0 * h);
                (4.0 * slope(h) - slope(2.0 * h)) / 3.0
            }),
        ),
    ];
    agree(&of_x(|x| (2.0 * x).clamp(-1.0, 1.5).powi(3) + x), &[("x", &x)], &want);
}

#[test]
fn bounds_of_a_clamp_take_the_gradient_of_what_is_beyond_them() {
    let names = ["x", "low", "high"];
    let loss = names.iter().fold(Loss::define("bounded"), |loss, name| loss.input(name, Scope::Element));
    let loss = loss.expr(|b| b.input("x").clamp(b.input("low"), b.input("high"))).reduction(Reduction::None);
    // Below, at the lower bound, within, at the upper bound, above; bounds in the wrong order: the upper one counts.
    let x = [-2.0f32, -1.0, 0.0, 1.0, 2.0, 0.0, -2.0, 5.0];
    let low = [-1.0f32, -1.0, -1.0, -1.0, -1.0, 2.0, 2.0, 2.0];
    let high = [1.0f32, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    let want = vec![
        ("loss", vec![-1.0, -1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("x", vec![0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
        ("low", vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
        ("high", vec![0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
    ];
    agree(&loss, &[("x", &x), ("low", &low), ("high", &high)], &want);
    for nan in ["x", "low", "high"] {
        let values = names.map(|name| if name == nan { f32::NAN } else { 0.5 });
        let inputs: Vec<(&str, [f32; 2])> = names.into_iter().zip(values.map(|value| [value; 2])).collect();
        let inputs: Vec<(&str, &[f32])> = inputs.iter().map(|(name, values)| (*name, &values[..])).collect();
        agree(&loss, &inputs, &[("loss", vec![f64::NAN; 2])]);
    }
}

#[test]
fn an_arc_tangent_has_the_slope_of_a_right_angle_far_out() {
    let x = [f32::NEG_INFINITY, -3.0, -1.0, -1e-4, 0.0, 0.5, 1.0, 40.0, f32::INFINITY, f32::NAN];
    let each = |f: fn(f64) -> f64| x.iter().map(|x| f(f64::from(*x))).collect::<Vec<f64>>();
    let slope: fn(f64) -> f64 = |x| 1.0 / (1.0 + x * x);
    agree(&of_x(|x| x.atan()), &[("x", &x)], &[("loss", each(f64::atan)), ("x", each(slope))]);
    let x = [-2.0f32, -0.25, 0.5, 3.0];
    let curve = x.map(|x| -2.0 * f64::from(x) / (1.0 + f64::from(x * x)).powi(2)).to_vec();
    agree(&of_x(|x| x.atan()), &[("x", &x)], &[("loss", x.map(|x| f64::from(x).atan()).to_vec()), ("x''", curve)]);
}

#[test]
fn the_gamma_function_has_three_derivatives() {
    // Below 1, at the zeros 1 and 2, around 10, large.
    let x = [0.03125f32, 0.75, 1.0, 1.25, 2.0, 2.5, 9.75, 10.0, 50.0, 1e6];
    let each = |f: fn(f64) -> f64| x.iter().map(|x| f(f64::from(*x))).collect::<Vec<f64>>();
    let (slope, curve) = (("x", each(digamma)), ("x''", each(trigamma)));
    agree(&of_x(|x| x.lgamma()), &[("x", &x)], &[("loss", each(lgamma)), slope, curve]);
    agree(&of_x(|x| x.digamma()), &[("x", &x)], &[("loss", each(digamma)), ("x", each(trigamma))]);
    let edges = [0.0f32, -0.0, f32::INFINITY, -1.5, f32::NAN];
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let want = [("loss", vec![inf, inf, inf, nan, nan]), ("x", vec![-inf, -inf, inf, nan, nan])];
    agree(&of_x(|x| x.lgamma()), &[("x", &edges)], &want);
    let want = [("loss", vec![-inf, -inf, inf, nan, nan]), ("x", vec![inf, inf, 0.0, nan, nan])];
    agree(&of_x(|x| x.digamma()), &[("x", &edges)], &want);
}

#[test]
fn a_floor_has_no_slope_and_leaves_that_of_the_rest() {
    let x = [-1.5f32, -1.0, -0.25, -0.0, 0.75, 2.0, 8_388_609.0, f32::INFINITY, f32::NAN];
    let floor = vec![-2.0, -1.0, -1.0, 0.0, 0.0, 2.0, 8_388_609.0, f64::INFINITY, f64::NAN];
    agree(&of_x(|x| x.floor()), &[("x", &x)], &[("loss", floor)]);
    let share = vec![0.5, 0.0, 0.75, 0.0, 0.75, 0.0];
    agree(&of_x(|x| x - x.floor()), &[("x", &x[..6])], &[("loss", share), ("x", vec![1.0; 6])]);
}

#[test]
fn a_clamp_bends_nowhere() {
    let curved = of_x(|x| x.clamp(-1.0, 1.0).powi(2));
    let want = [("loss", vec![1.0, 0.25, 1.0]), ("x", vec![0.0, 1.0, 0.0]), ("x''", vec![0.0, 2.0, 0.0])];
    agree(&curved, &[("x", &[-2.0, 0.5, 3.0])], &want);
}
