//! Transcendental functions of f32 without branches or calls, so that loops over them become vector code.
//!
//! Polynomials and range reductions are from Cephes (Moshier 1989); f64 uses the standard library.
//! Bounds, measured by the tests below: 2e-7 relative for all but `softplus` and `log_sigmoid` (3e-7).
//!
//! `FMA` is whether the processor multiplies and adds with one rounding; without it, `mul_add` would be a call.

use crate::expr::op::{Op, Real};

/// A number that the CPU path computes in. f32 has functions that vectorise.
pub trait Math: Real {
    /// eᵃ
    fn exp_lane<const FMA: bool>(self) -> Self {
        self.exp()
    }
    /// ln a
    fn ln_lane<const FMA: bool>(self) -> Self {
        self.ln()
    }
    /// ln(1 + a)
    fn ln_1p_lane<const FMA: bool>(self) -> Self {
        self.ln_1p()
    }
    /// tanh a
    fn tanh_lane<const FMA: bool>(self) -> Self {
        self.tanh()
    }
    /// 1 / (1 + e⁻ᵃ)
    #[inline(always)]
    fn sigmoid_lane<const FMA: bool>(self) -> Self {
        let one = Self::one();
        let e = (-self.abs()).exp_lane::<FMA>();
        (if self < Self::zero() { e } else { one }) / (one + e)
    }
    /// ln(1 + eᵃ)
    #[inline(always)]
    fn softplus_lane<const FMA: bool>(self) -> Self {
        // Where a is NaN, so is the second term.
        let positive = if self > Self::zero() { self } else { Self::zero() };
        positive + (-self.abs()).exp_lane::<FMA>().ln_1p_lane::<FMA>()
    }
}

impl Math for f64 {
    fn sigmoid_lane<const FMA: bool>(self) -> f64 {
        Op::Sigmoid.eval(self, 0.0)
    }
    fn softplus_lane<const FMA: bool>(self) -> f64 {
        Op::Softplus.eval(self, 0.0)
    }
}

impl Math for f32 {
    #[inline(always)]
    fn exp_lane<const FMA: bool>(self) -> f32 {
        exp::<FMA>(self)
    }
    #[inline(always)]
    fn ln_lane<const FMA: bool>(self) -> f32 {
        ln::<FMA>(self)
    }
    #[inline(always)]
    fn ln_1p_lane<const FMA: bool>(self) -> f32 {
        ln_1p::<FMA>(self)
    }
    #[inline(always)]
    fn tanh_lane<const FMA: bool>(self) -> f32 {
        tanh::<FMA>(self)
    }
}

// ln 2 in two parts: a multiple of the first by a small integer is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// a·b + c
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Value of a polynomial, highest coefficient first.
#[inline(always)]
fn horner<const FMA: bool, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[0];
    for &c in &coefficients[1..] {
        sum = multiply_add::<FMA>(sum, x, c);
    }
    sum
}

/// 2ᵏ for −126 ≤ k ≤ 127.
#[inline(always)]
fn power_of_two(k: i32) -> f32 {
    f32::from_bits(((k + 127) as u32) << 23)
}

#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    // Below and above, the result is 0 and ∞. Written so that NaN stays.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    // Adding 1.5·2²³ rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = multiply_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let k = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let n = shifted - ROUND;
    let r = multiply_add::<FMA>(n, -LN_2_LOW, multiply_add::<FMA>(n, -LN_2_HIGH, x));
    let p = horner::<FMA, _>(r, [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5]);
    let e = multiply_add::<FMA>(p * r, r, r) + 1.0;
    // Two factors: 2¹²⁸ and 2⁻¹⁵⁰ are no numbers by themselves. Garbage where x is NaN, and so is e.
    let half = k >> 1;
    e * power_of_two(half) * power_of_two(k.wrapping_sub(half))
}

#[inline(always)]
fn ln<const FMA: bool>(x: f32) -> f32 {
    let subnormal = x < f32::MIN_POSITIVE;
    let bits = (if subnormal { x * 8_388_608.0 } else { x }).to_bits();
    // Mantissa in [√½, √2).
    let k = (bits.wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits()) as i32) >> 23;
    let f = f32::from_bits(bits.wrapping_sub((k as u32) << 23)) - 1.0;
    let k = k as f32 - if subnormal { 23.0 } else { 0.0 };
    let p = horner::<FMA, _>(
        f,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let square = f * f;
    let low = multiply_add::<FMA>(p * f, square, multiply_add::<FMA>(k, LN_2_LOW, -0.5 * square));
    let finite = multiply_add::<FMA>(k, LN_2_HIGH, f + low);
    let finite = if x > 0.0 { finite } else { f32::NAN };
    let finite = if x == 0.0 { f32::NEG_INFINITY } else { finite };
    if x == f32::INFINITY { x } else { finite }
}

#[inline(always)]
fn ln_1p<const FMA: bool>(x: f32) -> f32 {
    let u = 1.0 + x;
    // The rounding error of 1 + x.
    let lost = (x - (u - 1.0)) / u;
    let log = ln::<FMA>(u);
    if lost.abs() < 1.0 { log + lost } else { log }
}

#[inline(always)]
fn tanh<const FMA: bool>(x: f32) -> f32 {
    let z = x * x;
    let p = horner::<FMA, _>(z, [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let small = multiply_add::<FMA>(p * z, x, x);
    let large = (1.0 - 2.0 / (exp::<FMA>(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { small } else { large }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worst relative error over f32 numbers of both signs and all magnitudes.
    fn worst(f: impl Fn(f32) -> f32, reference: impl Fn(f64) -> f64) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        for bits in (0..=u32::MAX).step_by(4099) {
            let x = f32::from_bits(bits);
            let want = reference(f64::from(x));
            // Subnormal results lose relative accuracy by nature.
            if !x.is_finite() || !want.is_finite() || want.abs() < 1.2e-38 || want.abs() > 3.4e38 {
                continue;
            }
            let error = ((f64::from(f(x)) - want) / want).abs();
            assert!(!error.is_nan(), "at {x:e}: {} for {want}", f(x));
            if error > worst.0 {
                worst = (error, x);
            }
        }
        worst
    }

    fn check_errors<const FMA: bool>() {
        let cases: [(&str, f64, (f64, f32)); 6] = [
            ("exp", 2e-7, worst(exp::<FMA>, f64::exp)),
            ("ln", 2e-7, worst(ln::<FMA>, f64::ln)),
            ("ln_1p", 2e-7, worst(ln_1p::<FMA>, f64::ln_1p)),
            ("tanh", 2e-7, worst(tanh::<FMA>, f64::tanh)),
            ("sigmoid", 2e-7, worst(f32::sigmoid_lane::<FMA>, |x| Op::Sigmoid.eval(x, 0.0))),
            ("softplus", 3e-7, worst(f32::softplus_lane::<FMA>, |x| Op::Softplus.eval(x, 0.0))),
        ];
        for (name, bound, (error, x)) in cases {
            assert!(error <= bound, "{name} at {x:e}, fma {FMA}: {error:e}");
        }
    }

    #[test]
    fn relative_errors_are_as_stated() {
        check_errors::<false>();
        check_errors::<true>();
    }

    fn check_limits<const FMA: bool>() {
        let points = [0.0, -0.0, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, 1e-45];
        type Pair = (&'static str, fn(f32) -> f32, fn(f32) -> f32);
        let pairs: [Pair; 6] = [
            ("exp", exp::<FMA>, f32::exp),
            ("ln", ln::<FMA>, f32::ln),
            ("ln_1p", ln_1p::<FMA>, f32::ln_1p),
            ("tanh", tanh::<FMA>, f32::tanh),
            ("sigmoid", f32::sigmoid_lane::<FMA>, |x| Op::Sigmoid.eval(x, 0.0)),
            ("softplus", f32::softplus_lane::<FMA>, |x| Op::Softplus.eval(x, 0.0)),
        ];
        for (name, f, reference) in pairs {
            for x in points {
                let (got, want) = (f(x), reference(x));
                let close = got == want || (got - want).abs() <= 2e-7 * want.abs() || got.is_nan() && want.is_nan();
                assert!(close, "{name}({x}) = {got}, want {want}");
            }
        }
    }

    #[test]
    fn limits_and_nan_are_those_of_the_standard_library() {
        check_limits::<false>();
        check_limits::<true>();
    }
}
