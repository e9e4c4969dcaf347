//! `shaders/math.wgsl`: the error bounds and special values that its comments state, at width 1 and width 4, against
//! f64.

use crate::common::special::{digamma, lgamma};
use std::f32::consts::{FRAC_PI_2, FRAC_PI_4};
use std::f64::consts::LN_2;
use wgpu::util::DeviceExt;

const MATH: &str = include_str!("../../shaders/math.wgsl");
const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;
/// Negative, with a payload: what x86 makes of ∞ − ∞, and then some.
const ODD_NAN: f32 = f32::from_bits(0xffc0_1234);
const TINY: f32 = f32::MIN_POSITIVE;
const SUBNORMAL: f32 = 1e-40;
/// What WGSL allows a quotient, 2.5 ulp, where the stated bound has it exactly rounded.
const DIVISION: f64 = 2.4e-7;

/// A function of the file, called as the kernels do.
struct Case {
    call: &'static str,
    want: fn(f64, f64) -> f64,
    /// Largest relative error.
    bound: f64,
    /// Arguments of the sweep, from the first to the second.
    xs: (f32, f32),
    /// Second argument of the sweep, from x and a number in −1..1.
    y: fn(f64, f64) -> f64,
    /// x, y and the result.
    special: &'static [(f32, f32, f32)],
}

const ONE_ARGUMENT: fn(f64, f64) -> f64 = |_, u| u;

fn log_cosh(x: f64) -> f64 {
    let half = (x.abs().min(40.0) / 2.0).sinh();
    if x.abs() > 20.0 { x.abs() - LN_2 } else { (2.0 * half * half).ln_1p() }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn xlogy(x: f64, y: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x * y.ln() }
}

#[rustfmt::skip]
fn power(xs: (f32, f32), limit: f32) -> Case {
    // Of negative bases, integers.
    let y: fn(f64, f64) -> f64 = match (xs.0 < 0.0, limit == 10.0) {
        (false, true) => |x, u| 10.0 * u / x.ln(),
        (false, false) => |x, u| 80.0 * u / x.ln(),
        (true, true) => |x, u| (10.0 * u / x.abs().ln()).clamp(-3e7, 3e7).trunc(),
        (true, false) => |x, u| (80.0 * u / x.abs().ln()).clamp(-3e7, 3e7).trunc(),
    };
    let bound = if limit == 10.0 { 1.7e-7 } else { 3.5e-7 } + DIVISION;
    let special = &[
        (0., 0., 1.), (NAN, 0., NAN), (0., 2., 0.), (-0.0, 0.5, 0.), (0., -1., INF), (INF, 0., 1.), (INF, 0.5, INF),
        (INF, -0.5, 0.), (1., INF, 1.), (2., INF, INF), (2., -INF, 0.), (0.5, INF, 0.), (0.5, -INF, INF), (0., INF, 0.),
        (INF, -INF, 0.), (2., NAN, NAN), (1., ODD_NAN, NAN), (10., 40., INF),
        (10., -40., 0.), (2., 3e38, INF), (0., SUBNORMAL, 1.),
        // Negative bases, as IEEE 754 (C, annex F) has them. 16777215 is the largest odd f32, 8388607.5 no integer.
        (-3., 2., 9.), (-3., 3., -27.), (-2., -1., -0.5), (-2., -2., 0.25), (-5., 1., -5.), (-5., 0., 1.),
        (-5., SUBNORMAL, 1.), (-1., 2., 1.), (-1., 16_777_215., -1.), (-1., -16_777_215., -1.), (-1., 16_777_216., 1.),
        (-1., 3e38, 1.), (-1., INF, 1.), (-1., -INF, 1.), (-8., 0.5, NAN), (-1., 8_388_607.5, NAN), (-1., -0.5, NAN),
        (-2., 1e-30, NAN), (-10., 39., -INF), (-10., 40., INF), (-10., -41., 0.), (-2., INF, INF), (-0.5, INF, 0.),
        (-0.5, -INF, INF), (-2., -INF, 0.), (-INF, 2., INF), (-INF, 3., -INF), (-INF, 0.5, INF), (-INF, -3., 0.),
        (-INF, -0.5, 0.), (-0.0, 2., 0.), (-0.0, 3., 0.), (-0.0, -1., -INF), (-0.0, -2., INF), (-0.0, -0.5, INF),
        (-2., NAN, NAN), (ODD_NAN, 2., NAN), (NAN, -1., NAN),
    ];
    Case { call: "math_pow(x, y)", want: f64::powf, bound, xs, y, special }
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let y = ONE_ARGUMENT;
    vec![
        // Predicates, over nothing but special values.
        Case { call: "select(F(0.0), F(1.0), math_is_nan(x))", want: |_, _| 0.0, bound: 0.0, xs: (-1.0, 1.0), y,
               special: &[(NAN, 0., 1.), (ODD_NAN, 0., 1.), (INF, 0., 0.), (-INF, 0., 0.), (SUBNORMAL, 0., 0.)] },
        Case { call: "select(F(0.0), F(1.0), math_is_inf(x))", want: |_, _| 0.0, bound: 0.0, xs: (-1.0, 1.0), y,
               special: &[(NAN, 0., 0.), (ODD_NAN, 0., 0.), (INF, 0., 1.), (-INF, 0., 1.), (f32::MAX, 0., 0.)] },
        Case { call: "select(F(0.0), F(1.0), math_is_finite(x))", want: |_, _| 1.0, bound: 0.0, xs: (-1.0, 1.0), y,
               special: &[(NAN, 0., 0.), (ODD_NAN, 0., 0.), (INF, 0., 0.), (-INF, 0., 0.), (f32::MAX, 0., 1.)] },
        Case { call: "math_nan(x)", want: |_, _| f64::NAN, bound: 0.0, xs: (-1.0, 1.0), y,
               special: &[(INF, 0., NAN), (NAN, 0., NAN), (0., 0., NAN)] },
        Case { call: "math_inf(x)", want: |_, _| f64::INFINITY, bound: 0.0, xs: (-1.0, 1.0), y,
               special: &[(NAN, 0., INF), (-INF, 0., INF)] },
        Case { call: "math_sign(x)", want: |x, _| x.signum(), bound: 0.0, xs: (-3.0, 3.0), y,
               special: &[(0., 0., 0.), (NAN, 0., NAN), (ODD_NAN, 0., NAN), (INF, 0., 1.), (-INF, 0., -1.)] },
        Case { call: "math_exp2_sign(x)", want: |x, _| x.signum(), bound: 0.0, xs: (-3.0, 3.0), y,
               special: &[(0., 0., 0.), (-0.0, 0., 0.), (INF, 0., 1.), (-INF, 0., -1.)] },
        Case { call: "math_max_number(x, F(0.5))", want: |x, _| x.max(0.5), bound: 0.0, xs: (-3.0, 3.0), y,
               special: &[(NAN, 0., NAN), (ODD_NAN, 0., NAN), (INF, 0., INF), (-INF, 0., 0.5)] },
        Case { call: "math_min_number(x, F(0.5))", want: |x, _| x.min(0.5), bound: 0.0, xs: (-3.0, 3.0), y,
               special: &[(NAN, 0., NAN), (ODD_NAN, 0., NAN), (INF, 0., 0.5), (-INF, 0., -INF)] },
        Case { call: "math_exp2_max_number(x, F(0.5))", want: |x, _| x.max(0.5), bound: 0.0, xs: (-3.0, 3.0), y,
               special: &[(INF, 0., INF), (-INF, 0., 0.5)] },
        Case { call: "math_exp2_min_number(x, F(0.5))", want: |x, _| x.min(0.5), bound: 0.0, xs: (-3.0, 3.0), y,
               special: &[(INF, 0., 0.5), (-INF, 0., -INF)] },
        Case { call: "math_exp(x)", want: |x, _| x.exp(), bound: 1.3e-7, xs: (-87.33, 88.72), y,
               special: &[(0., 0., 1.), (-INF, 0., 0.), (INF, 0., INF), (NAN, 0., NAN), (ODD_NAN, 0., NAN),
                          (88.73, 0., INF), (3e38, 0., INF), (-88., 0., 0.), (-3e38, 0., 0.)] },
        Case { call: "math_exp_neg(x)", want: |x, _| x.exp(), bound: 2.2e-7, xs: (-87.3, 0.0), y,
               special: &[(0., 0., 1.), (-0.0, 0., 1.), (-INF, 0., 0.), (-87.7, 0., 0.), (-3e38, 0., 0.),
                          (NAN, 0., NAN), (ODD_NAN, 0., NAN)] },
        Case { call: "math_exp2_neg(x)", want: |x, _| x.exp(), bound: 3e-6, xs: (-40.0, 0.0), y,
               special: &[(0., 0., 1.), (-0.0, 0., 1.), (-INF, 0., 0.), (-151.0, 0., 0.), (-3e38, 0., 0.)] },
        Case { call: "math_exp2_exp(x)", want: |x, _| x.exp(), bound: 3.5e-7, xs: (-87.33, 88.72), y,
               special: &[(0., 0., 1.), (-INF, 0., 0.), (INF, 0., INF), (-3e38, 0., 0.), (3e38, 0., INF), (89., 0., INF)] },
        Case { call: "math_exp2_exp_neg(x)", want: |x, _| x.exp(), bound: 3.5e-7, xs: (-70.0, 0.0), y,
               special: &[(0., 0., 1.), (-0.0, 0., 1.), (-INF, 0., 0.), (-3e38, 0., 0.)] },
        Case { call: "math_expm1(x)", want: |x, _| x.exp_m1(), bound: 1.3e-7, xs: (-100.0, 88.72), y,
               special: &[(0., 0., 0.), (-INF, 0., -1.), (INF, 0., INF), (NAN, 0., NAN), (89., 0., INF)] },
        Case { call: "math_log(x)", want: |x, _| x.ln(), bound: 1.1e-7, xs: (TINY, f32::MAX), y,
               special: &[(1., 0., 0.), (0., 0., -INF), (-0.0, 0., -INF), (INF, 0., INF), (-INF, 0., NAN),
                          (-1., 0., NAN), (NAN, 0., NAN), (ODD_NAN, 0., NAN), (1e-45, 0., -103.278_93)] },
        Case { call: "math_log(x)", want: |x, _| x.ln(), bound: 1.1e-7, xs: (0.5, 2.0), y, special: &[] },
        Case { call: "math_log1p(x)", want: |x, _| x.ln_1p(), bound: 1.8e-7, xs: (-0.999_999_94, f32::MAX), y,
               special: &[(0., 0., 0.), (-1., 0., -INF), (-1.1, 0., NAN), (-INF, 0., NAN), (INF, 0., INF),
                          (NAN, 0., NAN)] },
        Case { call: "math_log1p_unit(x)", want: |x, _| x.ln_1p(), bound: 1.8e-7, xs: (0.0, 1.0), y,
               special: &[(0., 0., 0.), (NAN, 0., NAN)] },
        // Of 0, infinities, negative values and NaN they have what the adapter's log gives, which the probe of exp2 looks at.
        Case { call: "math_exp2_log(x)", want: |x, _| x.ln(), bound: 3e-7, xs: (TINY, f32::MAX), y,
               special: &[(1., 0., 0.), (1e-45, 0., -103.278_93)] },
        Case { call: "math_exp2_log(x)", want: |x, _| x.ln(), bound: 3e-7, xs: (0.5, 2.0), y, special: &[] },
        Case { call: "math_exp2_log1p(x)", want: |x, _| x.ln_1p(), bound: 3e-7, xs: (-0.999_999_94, f32::MAX), y,
               special: &[(0., 0., 0.)] },
        Case { call: "math_exp2_log1p_unit(x)", want: |x, _| x.ln_1p(), bound: 3e-7, xs: (0.0, 1.0), y,
               special: &[(0., 0., 0.)] },
        Case { call: "math_tanh(x)", want: |x, _| x.tanh(), bound: 1.8e-7 + DIVISION, xs: (-20.0, 20.0), y,
               special: &[(0., 0., 0.), (INF, 0., 1.), (-INF, 0., -1.), (NAN, 0., NAN)] },
        Case { call: "math_sigmoid(x)", want: |x, _| (-softplus(-x)).exp(), bound: 3e-7 + DIVISION, xs: (-87.3, 100.0), y,
               special: &[(0., 0., 0.5), (INF, 0., 1.), (-INF, 0., 0.), (NAN, 0., NAN)] },
        Case { call: "math_softplus(x)", want: |x, _| softplus(x), bound: 3e-7, xs: (-87.3, 1e30), y,
               special: &[(INF, 0., INF), (-INF, 0., 0.), (NAN, 0., NAN), (3e38, 0., 3e38)] },
        Case { call: "math_log_sigmoid(x)", want: |x, _| -softplus(-x), bound: 3e-7, xs: (-1e30, 87.3), y,
               special: &[(INF, 0., 0.), (-INF, 0., -INF), (NAN, 0., NAN), (-3e38, 0., -3e38)] },
        Case { call: "math_sigmoid_neg(x)", want: |x, _| (-softplus(-x)).exp(), bound: 3e-7 + DIVISION, xs: (-87.3, 0.0), y,
               special: &[(0., 0., 0.5), (-INF, 0., 0.), (NAN, 0., NAN)] },
        Case { call: "math_softplus_neg(x)", want: |x, _| softplus(x), bound: 3e-7, xs: (-87.3, 0.0), y,
               special: &[(-INF, 0., 0.), (NAN, 0., NAN)] },
        Case { call: "math_exp2_sigmoid(x)", want: |x, _| (-softplus(-x)).exp(), bound: 5e-7, xs: (-70.0, 100.0), y,
               special: &[(INF, 0., 1.), (-INF, 0., 0.)] },
        Case { call: "math_exp2_sigmoid_neg(x)", want: |x, _| (-softplus(-x)).exp(), bound: 5e-7, xs: (-70.0, 0.0), y,
               special: &[(-INF, 0., 0.)] },
        Case { call: "math_exp2_softplus(x)", want: |x, _| softplus(x), bound: 4e-7, xs: (-70.0, 1e30), y,
               special: &[(INF, 0., INF), (-INF, 0., 0.), (3e38, 0., 3e38)] },
        Case { call: "math_exp2_softplus_neg(x)", want: |x, _| softplus(x), bound: 4e-7, xs: (-70.0, 0.0), y,
               special: &[(-INF, 0., 0.)] },
        Case { call: "math_exp2_log_sigmoid(x)", want: |x, _| -softplus(-x), bound: 4e-7, xs: (-1e30, 70.0), y,
               special: &[(INF, 0., 0.), (-INF, 0., -INF)] },
        Case { call: "math_log_cosh(x)", want: |x, _| log_cosh(x), bound: 1.6e-7, xs: (-100.0, 100.0), y,
               special: &[(0., 0., 0.), (INF, 0., INF), (-INF, 0., INF), (NAN, 0., NAN), (3e38, 0., 3e38)] },
        Case { call: "math_erf(x)", want: |x, _| libm::erf(x), bound: 1.3e-7, xs: (-6.0, 6.0), y,
               special: &[(0., 0., 0.), (INF, 0., 1.), (-INF, 0., -1.), (NAN, 0., NAN)] },
        Case { call: "math_atan(x)", want: |x, _| x.atan(), bound: 1.6e-7 + DIVISION, xs: (-1e30, 1e30), y,
               special: &[(0., 0., 0.), (1., 0., FRAC_PI_4), (INF, 0., FRAC_PI_2), (-INF, 0., -FRAC_PI_2), (NAN, 0., NAN),
                          (ODD_NAN, 0., NAN)] },
        Case { call: "math_atan(x)", want: |x, _| x.atan(), bound: 1.6e-7 + DIVISION, xs: (-3.0, 3.0), y, special: &[] },
        Case { call: "math_lgamma(x)", want: |x, _| lgamma(x), bound: 4e-7 + DIVISION, xs: (TINY, 1e36), y,
               special: &[(1., 0., 0.), (2., 0., 0.), (0., 0., INF), (-0.0, 0., INF), (INF, 0., INF), (3e38, 0., INF),
                          (-1.5, 0., NAN), (-INF, 0., NAN), (NAN, 0., NAN), (ODD_NAN, 0., NAN)] },
        Case { call: "math_lgamma(x)", want: |x, _| lgamma(x), bound: 4e-7 + DIVISION, xs: (0.01, 12.0), y, special: &[] },
        Case { call: "math_lgamma(x)", want: |x, _| lgamma(x), bound: 4e-7 + DIVISION, xs: (0.99, 2.01), y, special: &[] },
        Case { call: "math_digamma(x)", want: |x, _| digamma(x), bound: 4e-7 + DIVISION, xs: (1e-30, 1e30), y,
               special: &[(0., 0., -INF), (-0.0, 0., -INF), (INF, 0., INF), (-1.5, 0., NAN), (-INF, 0., NAN),
                          (NAN, 0., NAN), (ODD_NAN, 0., NAN)] },
        Case { call: "math_digamma(x)", want: |x, _| digamma(x), bound: 4e-7 + DIVISION, xs: (0.01, 6.0), y, special: &[] },
        Case { call: "math_digamma(x)", want: |x, _| digamma(x), bound: 4e-7 + DIVISION, xs: (1.46, 1.464), y, special: &[] },
        Case { call: "math_sqrt(x)", want: |x, _| x.sqrt(), bound: DIVISION, xs: (TINY, f32::MAX), y,
               special: &[(0., 0., 0.), (INF, 0., INF), (-1., 0., NAN), (NAN, 0., NAN)] },
        Case { call: "math_div(x, y)", want: |x, y| x / y, bound: DIVISION, xs: (-1e15, 1e15), y: |_, u| (u * 30.).exp(),
               special: &[(1., INF, 0.), (6., 3., 2.), (NAN, 1., NAN), (1., NAN, NAN)] },
        Case { call: "math_xlogy(x, y)", want: xlogy, bound: 1.8e-7, xs: (0.0, 1e3), y: |_, u| (u * 30.).exp(),
               special: &[(0., 0., 0.), (-0.0, INF, 0.), (0., -1., 0.), (0., NAN, NAN), (NAN, 1., NAN), (2., 0., -INF),
                          (SUBNORMAL, 0., 0.), (1., -1., NAN)] },
        Case { call: "math_exp2_xlogy(x, y)", want: xlogy, bound: 3.5e-7, xs: (0.0, 1e3), y: |_, u| (u * 30.).exp(),
               special: &[(0., 0., 0.), (-0.0, INF, 0.), (0., -1., 0.), (SUBNORMAL, 0., 0.)] },
        Case { call: "math_times(x, y)", want: |x, y| x * y, bound: 6e-8, xs: (-1e15, 1e15), y: |_, u| (u * 30.).exp(),
               special: &[(0., INF, 0.), (-0.0, -INF, 0.), (-INF, 0., NAN), (3., INF, INF), (-2., INF, -INF),
                          (0., NAN, NAN), (ODD_NAN, 0., NAN), (NAN, INF, NAN), (INF, -INF, -INF), (0., 3e38, 0.)] },
        power((TINY, f32::MAX), 10.0), power((TINY, f32::MAX), 80.0), power((0.5, 2.0), 80.0), power((0.998, 1.001), 80.0),
        power((-1e6, -TINY), 10.0), power((-f32::MAX, -TINY), 80.0), power((-2.0, -0.5), 80.0),
    ]
}

/// The text at width 1 or 4: the renaming that the template does.
fn at_width(width: usize, text: &str) -> String {
    if width == 1 {
        return text.to_owned();
    }
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::new();
    for piece in text.split_inclusive(|c| !in_word(c)) {
        let word = piece.trim_end_matches(|c| !in_word(c));
        let wide = matches!(word, "F" | "U" | "I" | "B") || word.starts_with("math_");
        out.extend([word, if wide { "4" } else { "" }, &piece[word.len()..]]);
    }
    ["f32", "u32", "i32", "bool"].iter().fold(out, |out, t| out.replace(&format!("= {t};"), &format!("= vec4<{t}>;")))
}

/// All x, then all y; the results take the place of x.
fn kernel(width: usize, call: &str) -> String {
    let main = format!(
        "@group(0) @binding(0) var<storage, read_write> values: array<F>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    let n = arrayLength(&values) / 2u;
    if id.x < n {{ let x = values[id.x]; let y = values[n + id.x]; values[id.x] = {call}; }}
}}"
    );
    at_width(width, &format!("{MATH}\n{main}\n"))
}

/// Arguments: evenly spaced values, and values of all magnitudes of both signs, within the range.
fn sweep(case: &Case) -> Vec<(f32, f32)> {
    const N: i32 = 1 << 14;
    let (low, high) = (case.xs.0 as f64, case.xs.1 as f64);
    let magnitude = |end: f64, t: f64| end.signum() * 1e-30 * (end.abs() * 1e30).powf(t);
    let mut pairs = Vec::new();
    for i in 0..N {
        let t = (i as f64 + 0.37) / N as f64;
        for (k, x) in [low + (high - low) * t, magnitude(low, t), magnitude(high, t)].into_iter().enumerate() {
            // A low-discrepancy sequence for y.
            let u = ((3 * i + k as i32) as f64 * 0.618_033_988_749_895).fract() * 2.0 - 1.0;
            let (x, y) = (x as f32, (case.y)(x, u) as f32);
            let want = (case.want)(x as f64, y as f64);
            // Infinite results are special, subnormal ones may be flushed.
            let normal = y.is_finite() && (TINY as f64..=f32::MAX as f64).contains(&want.abs());
            if (case.xs.0..=case.xs.1).contains(&x) && (normal || case.bound == 0.0) {
                pairs.push((x, y));
            }
        }
    }
    pairs
}

struct Gpu(wgpu::Device, wgpu::Queue);

/// The default adapter; `None` (said aloud) where there is none, unless `WGLOSS_REQUIRE_ADAPTER` is set.
fn gpu() -> Option<Gpu> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = match pollster::block_on(instance.request_adapter(&Default::default())) {
        Ok(adapter) => adapter,
        Err(error) if std::env::var_os("WGLOSS_REQUIRE_ADAPTER").is_none() => {
            eprintln!("skipped, no adapter: {error}");
            return None;
        }
        Err(error) => panic!("WGLOSS_REQUIRE_ADAPTER is set, but {error}"),
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).expect("a default device");
    Some(Gpu(device, queue))
}

impl Gpu {
    fn run(&self, source: &str, pairs: &[(f32, f32)], width: usize) -> Vec<f32> {
        let Gpu(device, queue) = self;
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let values: Vec<f32> = pairs.iter().map(|p| p.0).chain(pairs.iter().map(|p| p.1)).collect();
        let values = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: bytemuck::cast_slice(&values),
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: values.as_entire_binding() }],
        });
        let read = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: values.size() / 2,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups((pairs.len() / width).div_ceil(64) as u32, 1, 1);
        drop(pass);
        encoder.copy_buffer_to_buffer(&values, 0, &read, 0, read.size());
        queue.submit([encoder.finish()]);
        read.slice(..).map_async(wgpu::MapMode::Read, |result| result.expect("mapping"));
        device.poll(wgpu::PollType::wait_indefinitely()).expect("waiting");
        let view = read.slice(..).get_mapped_range().expect("mapped");
        bytemuck::cast_slice(&view).to_vec()
    }
}

#[test]
fn file_is_valid_at_both_widths() {
    for width in [1, 4] {
        let source = at_width(width, MATH);
        let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&source)));
        let flags = naga::valid::ValidationFlags::all();
        let mut validator = naga::valid::Validator::new(flags, naga::valid::Capabilities::empty());
        validator.validate(&module).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&source)));
    }
}

#[test]
fn every_function_is_tested() {
    // Parts of others, with no contract of their own.
    let parts = [
        "math_minus_n_ln2",
        "math_exp_poly",
        "math_log_poly",
        "math_log_special",
        "math_head",
        "math_exp2_log_poly",
        "math_exp2_log_special",
    ];
    for name in MATH.lines().filter_map(|line| line.strip_prefix("fn ")?.split('(').next()) {
        let tested = cases().iter().any(|case| case.call.contains(&format!("{name}(")));
        assert!(tested || parts.contains(&name), "no case calls {name}");
    }
}

#[test]
fn errors_and_special_values_are_as_stated() {
    let Some(gpu) = gpu() else { return };
    for width in [1, 4] {
        for case in cases() {
            let mut pairs = sweep(&case);
            let swept = pairs.len();
            pairs.extend(case.special.iter().map(|s| (s.0, s.1)));
            pairs.resize(pairs.len().next_multiple_of(4), (1.0, 1.0));
            let got = gpu.run(&kernel(width, case.call), &pairs, width);
            let at = |i: usize| {
                format!("{} at x = {:e}, y = {:e}, width {width}: {:e}", case.call, pairs[i].0, pairs[i].1, got[i])
            };
            let wants = pairs[..swept].iter().map(|&(x, y)| (case.want)(x as f64, y as f64));
            for (i, want) in wants.chain(case.special.iter().map(|s| s.2 as f64)).enumerate() {
                let got_i = got[i] as f64;
                let same = want == got_i || (want.is_nan() && got_i.is_nan());
                let close = (got_i - want).abs() <= case.bound * want.abs() && want.is_finite();
                assert!(same || close, "{}, not {want:e} within {:e}", at(i), case.bound);
            }
        }
    }
}
