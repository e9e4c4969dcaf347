// Elementary functions of the kernels. Each is written once, in terms of the aliases below; the template makes the
// vec4 instance by renaming F, U, I, B and every math_x to F4, U4, I4, B4 and math_x4. Hence literals are wrapped in
// the alias, choices are `select`, and nothing asks `any` or `all`.
//
// Errors are the largest relative ones found in dense sweeps against f64 on Mesa llvmpipe and on SwiftShader, rounded
// up; `/` was exactly rounded there, and WGSL allows it 2.5 ulp. `tests/expr/math.rs` asserts them. Ranges mean normal f32:
// an adapter may flush subnormal arguments and results to zero (SwiftShader does), and nothing here depends on it.
//
// NaN gives NaN. Most functions tell it by its bits or pass it on through arithmetic; exp_neg, expm1, erf, atan, lgamma, digamma and their
// callers pass it through an ordered comparison, which a driver with fast math (Metal) may turn into a minimum: kernels
// classify NaN on the bits they load.
//
// No `fma` but one: WGSL does not promise that it fuses, and Mesa folds fma(n, a, fma(n, b, x)) to n * (a + b) + x, which
// undoes the two steps of minus_n_ln2 (exp is then 4e-6 off at -72). Written with `+` and `*` they stay two there. Fast
// math may still join them, but then contracts the product as well, and the error left is |n| times 2e-9.
//
// Polynomials without another source are minimax in relative error, from a Remez exchange at 40 digits; the error given
// is that after rounding the coefficients to f32.
alias F = f32; alias U = u32; alias I = i32; alias B = bool;

// Whether x is NaN, by its bits: compilers that assume no NaN fold `x != x`.
fn math_is_nan(x: F) -> B {
    return (bitcast<U>(x) & U(0x7fffffffu)) > U(0x7f800000u);
}

// Whether x is +∞ or −∞.
fn math_is_inf(x: F) -> B {
    return (bitcast<U>(x) & U(0x7fffffffu)) == U(0x7f800000u);
}

// Whether x is neither NaN nor ±∞.
fn math_is_finite(x: F) -> B {
    return (bitcast<U>(x) & U(0x7fffffffu)) < U(0x7f800000u);
}

// A quiet NaN, whatever x; of a NaN the sign and payload. Made at run time: naga refuses a constant NaN.
fn math_nan(x: F) -> F {
    return bitcast<F>(bitcast<U>(x) | U(0x7fc00000u));
}

// +∞, whatever x. Made at run time: naga refuses a constant infinity.
fn math_inf(x: F) -> F {
    return bitcast<F>((bitcast<U>(x) & U(0u)) | U(0x7f800000u));
}

// x − n·ln 2 for integers |n| ≤ 128 (Cody and Waite, 1980): 0.693359375 = 355/512 has nine bits, so the first step is
// exact when n = round(x / ln 2); the second adds the remainder of the constant.
fn math_minus_n_ln2(x: F, n: F) -> F {
    return (x + n * F(-0.693359375)) + n * F(2.12194440e-4);
}

// e^r for |r| ≤ ln(2)/2; exactly 1 at 0. Polynomial error 4e-9.
fn math_exp_poly(r: F) -> F {
    let q = (((F(0.00138145674) * r + F(0.00836873148)) * r + F(0.041668389)) * r + F(0.166665211)) * r + F(0.49999994);
    return (q * (r * r) + r) + F(1.0);
}

// −1, 0 or 1. NaN gives NaN.
fn math_sign(x: F) -> F {
    return select(sign(x), x, math_is_nan(x));
}

// The larger of x and c, which is no NaN. NaN gives NaN.
fn math_max_number(x: F, c: F) -> F {
    return select(max(x, c), x, math_is_nan(x));
}

// The smaller of x and c, which is no NaN. NaN gives NaN.
fn math_min_number(x: F, c: F) -> F {
    return select(min(x, c), x, math_is_nan(x));
}

// The same by comparisons. Of NaN what the probe of NaN says.
fn math_exp2_sign(x: F) -> F {
    let one = bitcast<F>((bitcast<U>(x) & U(0x80000000u)) | U(0x3f800000u));
    return select(x, one, abs(x) > F(0.0));
}

fn math_exp2_max_number(x: F, c: F) -> F {
    return select(x, c, x < c);
}

fn math_exp2_min_number(x: F, c: F) -> F {
    return select(x, c, x > c);
}

// e^x for x ≤ 0, as the softmax loops need it. Error 2.2e-7 on [−87.3, 0] (2.7 ulp; polynomial error 1.1e-7).
// 21 operations, 14 where multiply and add fuse; in a softmax loop on llvmpipe as fast as the builtin.
// exp_neg(±0) = 1 exactly; below −87.34 subnormal or 0, from −87.69 on 0; −∞ gives 0, NaN gives NaN.
// x > 88 is out of the domain.
fn math_exp_neg(x: F) -> F {
    let a = select(x, F(-88.0), x < F(-88.0));
    let n = round(a * F(1.44269502));
    let r = math_minus_n_ln2(a, n);
    let q = ((F(0.00831248704) * r + F(0.0418902412)) * r + F(0.166671157)) * r + F(0.499992311);
    // 1.5·2²³ + 127 leaves n + 127 in the low bits; shifted into the exponent they are 2^n, and 0 for n = −127.
    let scale = bitcast<F>(bitcast<U>(n + F(12583039.0)) << U(23u));
    return ((q * (r * r) + r) + F(1.0)) * scale;
}

// e^x for x ≤ 0 by the adapter's exp2: two operations. The softmax loops have it where a context has measured that it errs by
// 3e-7 + 1e-7·|x| of the result at most on [−40, 0] (the rounding of the exponent alone is 6e-8·|x|): where |x| is large,
// the term is small beside the row's e^0. exp2_neg(±0) = 1 exactly; from −150 on 0; −∞ gives 0. Of NaN only what the probe
// of NaN says.
fn math_exp2_neg(x: F) -> F {
    return exp2(x * F(1.44269502));
}

// e^x by the adapter's exp2. Error 1.3e-7 beside that of exp2 on [−87.33, 88.72]: h is x·log2(e) cut to 20 bits, so that its
// product with 11/16, the head of ln 2, is exact, and what it lacks comes back as the factor 1 + r. exp(0) = 1; −∞ gives
// 0, +∞ gives +∞. Of NaN only what the probe of NaN says.
fn math_exp2_exp(x: F) -> F {
    let h = bitcast<F>(bitcast<U>(x * F(1.44269502)) & U(0xfffffff0u));
    let e = exp2(h);
    // Where h is infinite, so is the difference, or NaN.
    let r = clamp((x - h * F(0.6875)) - h * F(0.00564718056), F(-0.5), F(0.5));
    return e * (F(1.0) + r);
}

// The same for x ≤ 0, in 7 operations. Below −70 the error may be 8e-5 where fma does not fuse: its product is flushed.
fn math_exp2_exp_neg(x: F) -> F {
    let h = bitcast<F>(bitcast<U>(x * F(1.44269502)) & U(0xfffffff0u));
    let e = exp2(h);
    let r = min((x - h * F(0.6875)) - h * F(0.00564718056), F(0.5));
    return fma(e, r, e);
}

// e^x. Error 1.3e-7 on [−87.33, 88.72] (1.3 ulp). exp(0) = 1; below −87.3365 (subnormal results) 0, above 88.7228 +∞;
// −∞ gives 0, +∞ gives +∞, NaN gives NaN.
fn math_exp(x: F) -> F {
    let n = round(x * F(1.44269502));
    let p = math_exp_poly(math_minus_n_ln2(x, n));
    // Adding n to the exponent of p reaches 2^128·p for p < 1, which no single factor 2^n does.
    let scaled = bitcast<F>(bitcast<U>(p) + (bitcast<U>(n + F(12582912.0)) << U(23u)));
    let above = select(scaled, F(0.0), x < F(-87.33654));
    let inside = select(above, math_inf(x), x > F(88.72283));
    return select(inside, math_nan(x), math_is_nan(x));
}

// e^x − 1. Error 1.3e-7 up to 88.72 (1.7 ulp; polynomial error 2e-8), also at tiny x. expm1(±0) = +0; −∞ gives −1,
// above 88.7228 +∞, NaN gives NaN.
fn math_expm1(x: F) -> F {
    let low = select(x, F(-20.0), x < F(-20.0));
    let a = select(low, F(89.0), low > F(89.0));
    let n = round(a * F(1.44269502));
    let r = math_minus_n_ln2(a, n);
    let q = (((F(0.0013882519) * r + F(0.00836653356)) * r + F(0.0416672006)) * r + F(0.166665435)) * r + F(0.49999997);
    // 2^(n−1), because 2^128 is no f32; 2^n·(e^r − 1) + (2^n − 1) has no cancellation.
    let half_scale = bitcast<F>(bitcast<U>(n + F(12583038.0)) << U(23u));
    return F(2.0) * (half_scale * (q * (r * r) + r) + (half_scale - F(0.5)));
}

// log(1 + f) for |f| ≤ 1/3; ±0 at ±0. Polynomial error 1e-8.
fn math_log_poly(f: F) -> F {
    let a = ((F(-0.129489571) * f + F(0.14004758)) * f + F(-0.121671565)) * f + F(0.140011609);
    let b = (((a * f + F(-0.166823059)) * f + F(0.20010747)) * f + F(-0.249997169)) * f + F(0.333332092);
    return (b * f + F(-0.5)) * (f * f) + f;
}

// y where 0 < u < ∞; else log(u): −∞ at ±0, +∞ at +∞, NaN for negative u and NaN.
fn math_log_special(y: F, u: F) -> F {
    let bits = bitcast<U>(u);
    let finite = select(y, u, bits == U(0x7f800000u));
    let positive = select(finite, math_nan(u), bits > U(0x7f800000u));
    return select(positive, -math_inf(u), (bits << U(1u)) == U(0u));
}

// Natural logarithm. Error 1.1e-7 for all x > 0 (1.0 ulp), near 1 too; subnormal x are read as the integers they are,
// which flushing adapters do not disturb. log(1) = 0; log(±0) = −∞, +∞ gives +∞, negative x and NaN give NaN.
fn math_log(x: F) -> F {
    let bits = bitcast<U>(x);
    let tiny = bits < U(0x00800000u);
    let normal = select(bits, bitcast<U>(F(bits)), tiny);
    // 0x3f2aaaab is 2/3: x = 2^e·(1 + f) with 1 + f in [2/3, 4/3), so no cancellation between e·ln 2 and log(1 + f).
    let e = bitcast<I>(normal - U(0x3f2aaaabu)) >> U(23u);
    let f = bitcast<F>(normal - (bitcast<U>(e) << U(23u))) - F(1.0);
    let n = F(e) + select(F(0.0), F(-149.0), tiny);
    let y = (math_log_poly(f) + n * F(-2.12194440e-4)) + n * F(0.693359375);
    return math_log_special(y, x);
}

// log(1 + x). Error 1.8e-7 for all x > −1 (1.8 ulp), also at tiny x. log1p(±0) = +0; log1p(−1) = −∞, +∞ gives +∞,
// x < −1 and NaN give NaN.
fn math_log1p(x: F) -> F {
    let u = F(1.0) + x;
    let e = bitcast<I>(bitcast<U>(u) - U(0x3f2aaaabu)) >> U(23u);
    // The rounding of u costs nothing: it only picks e, and f = 2^−e·x + (2^−e − 1) rounds once. (The textbook
    // correction (x − (u − 1)) / u would be simplified to 0.) 2^−e is built as 2^(2−e) / 4 to stay normal.
    let shift = bitcast<U>(e) << U(23u);
    let f = bitcast<F>(bitcast<U>(x) - shift) + (F(0.25) * bitcast<F>(U(0x40800000u) - shift) - F(1.0));
    let n = F(e);
    let y = (math_log_poly(f) + n * F(-2.12194440e-4)) + n * F(0.693359375);
    return math_log_special(y, u);
}

// log(1 + f) for |f| ≤ 1/3 by the adapter's inverseSqrt, of m, which is 1 + f: 2·asinh(v/2), as in exp2_log1p_unit.
// Polynomial error 9e-8.
fn math_exp2_log_poly(f: F, m: F) -> F {
    let v = f * inverseSqrt(m);
    let z = v * v;
    return v * ((F(0.0045187967) * z + F(-0.04165625)) * z + F(0.99999988));
}

// y where 0 < u < ∞; else log(u) as the adapter has it, which the probe compares with what math_log_special gives.
fn math_exp2_log_special(y: F, u: F) -> F {
    return select(y, log(u), (bitcast<U>(u) - U(1u)) >= U(0x7f7fffffu));
}

// Natural logarithm by the adapter's inverseSqrt. Error 3e-7 where that is exactly rounded; else as math_log.
fn math_exp2_log(x: F) -> F {
    let bits = bitcast<U>(x);
    let tiny = bits < U(0x00800000u);
    let normal = select(bits, bitcast<U>(F(bits)), tiny);
    let e = bitcast<I>(normal - U(0x3f2aaaabu)) >> U(23u);
    let m = bitcast<F>(normal - (bitcast<U>(e) << U(23u)));
    let n = F(e) + select(F(0.0), F(-149.0), tiny);
    let y = (math_exp2_log_poly(m - F(1.0), m) + n * F(-2.12194440e-4)) + n * F(0.693359375);
    return math_exp2_log_special(y, x);
}

// log(1 + x) by the adapter's inverseSqrt. Error 3e-7 where that is exactly rounded; else as math_log1p.
fn math_exp2_log1p(x: F) -> F {
    let u = F(1.0) + x;
    let e = bitcast<I>(bitcast<U>(u) - U(0x3f2aaaabu)) >> U(23u);
    let shift = bitcast<U>(e) << U(23u);
    let f = bitcast<F>(bitcast<U>(x) - shift) + (F(0.25) * bitcast<F>(U(0x40800000u) - shift) - F(1.0));
    let n = F(e);
    let y = (math_exp2_log_poly(f, F(1.0) + f) + n * F(-2.12194440e-4)) + n * F(0.693359375);
    return math_exp2_log_special(y, u);
}

// log(1 + t) for 0 ≤ t ≤ 1, cheaper than log1p. Error 1.8e-7. log1p_unit(0) = 0; NaN gives NaN.
fn math_log1p_unit(t: F) -> F {
    let big = t > F(0.333333333);
    let f = select(t, t * F(0.5) - F(0.5), big);
    return math_log_poly(f) + select(F(0.0), F(0.693147182), big);
}

// log(1 + t) for 0 ≤ t ≤ 1 by the adapter's inverseSqrt: with v = t/√(1 + t) it is 2·asinh(v/2), of which the polynomial has
// error 5e-8. Error 2.5e-7 where inverseSqrt is exactly rounded. 8 operations.
fn math_exp2_log1p_unit(t: F) -> F {
    let v = t * inverseSqrt(F(1.0) + t);
    let z = v * v;
    return v * (((F(-0.0005927335) * z + F(0.00465615885)) * z + F(-0.0416636057)) * z + F(0.99999994));
}

// Hyperbolic tangent. Error 1.8e-7 (2.5 ulp), also at tiny x; has a `/`. tanh(±0) = ±0, ±∞ give ±1,
// NaN gives NaN.
fn math_tanh(x: F) -> F {
    let m = math_expm1(F(-2.0) * abs(x));
    let y = m / (F(2.0) + m);
    return bitcast<F>((bitcast<U>(y) & U(0x7fffffffu)) | (bitcast<U>(x) & U(0x80000000u)));
}

// 1 / (1 + e^−x). Error 3e-7 from −87.3 up (3.7 ulp), subnormal or 0 below; has a `/`. −∞ gives 0, +∞ gives 1, NaN
// gives NaN.
fn math_sigmoid(x: F) -> F {
    let t = math_exp_neg(-abs(x));
    return select(t, F(1.0), x >= F(0.0)) / (F(1.0) + t);
}

// The same for x ≤ 0.
fn math_sigmoid_neg(x: F) -> F {
    let t = math_exp_neg(x);
    return t / (F(1.0) + t);
}

// 1 / (1 + e^−x) by the adapter's exp2 and inverseSqrt. Error 5e-7 from −70 up where theirs are 2e-7 and 6e-8.
fn math_exp2_sigmoid(x: F) -> F {
    let t = math_exp2_exp_neg(-abs(x));
    let s = inverseSqrt(F(1.0) + t);
    return (select(t, F(1.0), x >= F(0.0)) * s) * s;
}

// The same for x ≤ 0; t·s is in softplus_neg(x) too.
fn math_exp2_sigmoid_neg(x: F) -> F {
    let t = math_exp2_exp_neg(x);
    let s = inverseSqrt(F(1.0) + t);
    return (t * s) * s;
}

// log(1 + e^x). Error 3e-7 from −87.3 up (3.0 ulp), subnormal or 0 below. −∞ gives 0, +∞ gives +∞, NaN gives NaN.
fn math_softplus(x: F) -> F {
    return max(x, F(0.0)) + math_log1p_unit(math_exp_neg(-abs(x)));
}

// The same for x ≤ 0.
fn math_softplus_neg(x: F) -> F {
    return math_log1p_unit(math_exp_neg(x));
}

// log(1 + e^x) by the adapter's exp2 and inverseSqrt. Error 4e-7 from −70 up where theirs are so.
fn math_exp2_softplus(x: F) -> F {
    return max(x, F(0.0)) + math_exp2_log1p_unit(math_exp2_exp_neg(-abs(x)));
}

// The same for x ≤ 0.
fn math_exp2_softplus_neg(x: F) -> F {
    return math_exp2_log1p_unit(math_exp2_exp_neg(x));
}

// log(sigmoid(x)) = −softplus(−x). Error 3e-7 up to 87.3 (3.0 ulp), subnormal or 0 above. −∞ gives −∞, +∞ gives 0,
// NaN gives NaN.
fn math_log_sigmoid(x: F) -> F {
    return min(x, F(0.0)) - math_log1p_unit(math_exp_neg(-abs(x)));
}

// log(sigmoid(x)) by the adapter's exp2 and inverseSqrt. Error 4e-7 up to 70 where theirs are so.
fn math_exp2_log_sigmoid(x: F) -> F {
    return min(x, F(0.0)) - math_exp2_log1p_unit(math_exp2_exp_neg(-abs(x)));
}

// log(cosh(x)). Error 1.6e-7 (2.0 ulp) wherever x²/2 is normal: below 1 from a polynomial in x², error 1.4e-8, since
// |x| − ln 2 + … cancels there. log_cosh(±0) = 0, ±∞ give +∞, NaN gives NaN; no overflow.
fn math_log_cosh(x: F) -> F {
    let a = abs(x);
    let z = a * a;
    let c = ((F(8.65712282e-5) * z + F(-5.56226471e-4)) * z + F(0.00207734783)) * z + F(-0.00671043852);
    let small = z * (((c * z + F(0.0222165752)) * z + F(-0.0833329931)) * z + F(0.5));
    let large = (a - F(0.693359375)) + (math_log1p_unit(math_exp_neg(F(-2.0) * a)) + F(2.12194440e-4));
    return select(large, small, a < F(1.0));
}

// Error function. Error 1.3e-7 (1.7 ulp), also at tiny x. Two polynomials: erf(x)/x − 1 in x² below 0.93, log(erfc(x))
// up to 4, each with error 3.2e-8 in erf. erf(±0) = ±0, ±∞ give ±1, NaN gives NaN.
fn math_erf(x: F) -> F {
    let a = abs(x);
    let z = x * x;
    let b = ((F(-5.95374207e-4) * z + F(0.00498594064)) * z + F(-0.02676172)) * z + F(0.112816826);
    let p = (b * z + F(-0.376124799)) * z + F(0.128379151);
    let t = select(a, F(4.0), a > F(4.0));
    let c = ((F(-0.00122956955) * t + F(0.0154064707)) * t + F(-0.0905812755)) * t + F(-0.651542604);
    let tail = F(1.0) - math_exp_neg((c * t + F(-1.11961782)) * t + F(-0.00204057386));
    let signed_tail = bitcast<F>(bitcast<U>(tail) | (bitcast<U>(x) & U(0x80000000u)));
    return select(signed_tail, p * x + x, a < F(0.93));
}

// Arc tangent. Error 1.6e-7 (2 ulp), also at tiny x; has a `/`. atan(1/t) = π/2 − atan(t) takes |x| > 1 to t below 1,
// where the polynomial, in t², has error 2e-8. atan(±0) = ±0, ±∞ give ±π/2, NaN gives NaN.
fn math_atan(x: F) -> F {
    let a = abs(x);
    let above = a > F(1.0);
    let t = select(a, F(1.0) / a, above);
    let z = t * t;
    let b = ((F(-0.00179361494) * z + F(0.0109145744)) * z + F(-0.0311777834)) * z + F(0.0579575263);
    let c = ((b * z + F(-0.0840344653)) * z + F(0.109521843)) * z + F(-0.142642409);
    let below = ((c * z + F(0.199985489)) * z + F(-0.333332986)) * (z * t) + t;
    // 1.57079637 is 4.4e-8 more than π/2.
    let y = select(below, F(1.57079637) - (below + F(4.37113883e-8)), above);
    return bitcast<F>((bitcast<U>(y) & U(0x7fffffffu)) | (bitcast<U>(x) & U(0x80000000u)));
}

// ln Γ(x) for x ≥ 0. Error 4e-7 (6 ulp); has a `/`. On [1, 2] the polynomial (error 4e-9, 4e-8 rounded) times the zeros at
// both ends; Γ(x) = Γ(x + 1)/x below and (x − 1)·Γ(x − 1) up to 3; then Stirling's series in 1/x², error 2e-9.
// lgamma(±0) = +∞, +∞ gives +∞, negative x and NaN give NaN.
fn math_lgamma(x: F) -> F {
    let below = x < F(1.0);
    let above = x >= F(2.0);
    let far = x >= F(3.0);
    let last = x - F(1.0);
    let log_x = math_log(select(x, last, above & !far));
    let z = select(select(last, x, below), x - F(2.0), above);
    let b = (((F(-0.00152644305) * z + F(0.00931734964)) * z + F(-0.0266472977)) * z + F(0.0493969359)) * z + F(-0.0709296986);
    let c = (((b * z + F(0.090722844)) * z + F(-0.114932723)) * z + F(0.15541862)) * z + F(-0.245250911);
    let base = (c * z + F(0.577215672)) * (z * (z - F(1.0)));
    let near = base + select(select(F(0.0), -log_x, below), log_x, above);
    let inv = F(1.0) / x;
    let w = inv * inv;
    let series = ((F(0.00067897694) * w + F(-0.00276988745)) * w + F(0.0833331645)) * inv;
    let stirling = (x - F(0.5)) * (log_x - F(1.0)) + (series + F(0.418938533));
    return select(near, stirling, far);
}

// The derivative of ln Γ(x), for x ≥ 0. Error 4e-7 (6 ulp), also near its zero at 1.46; has a `/`. On [1, 2] the
// polynomial (error 2e-8, 6e-8 rounded) times the distance from that zero: what 0.461632133 lacks of it comes off as a
// product, since Mesa joins constants that are subtracted in turn. ψ(x) = ψ(x + 1) − 1/x below; above the asymptotic
// series in 1/x², error 6e-9. digamma(±0) = −∞, +∞ gives +∞, negative x and NaN give NaN.
fn math_digamma(x: F) -> F {
    let below = x < F(1.0);
    let inv = F(1.0) / abs(x);
    let z = select(x - F(1.0), x, below);
    let b = (((F(-0.0162212774) * z + F(0.0969200954)) * z + F(-0.267561316)) * z + F(0.467709094)) * z + F(-0.611168563);
    let c = (((b * z + F(0.679556251)) * z + F(-0.711893201)) * z + F(0.752274036)) * z + F(-0.85468775);
    let base = (z - F(0.461632133)) * (c * z + F(1.25038016)) - F(1.20360525e-8);
    let near = select(base, base - inv, below);
    let w = inv * inv;
    let series = ((F(-0.00182888401) * w + F(0.00356146484)) * w + F(-0.00830013398)) * w + F(0.0833323896);
    let far = math_log(x) - (series * w + F(0.5) * inv);
    let inside = select(near, far, x >= F(2.0));
    return select(inside, math_nan(x), x < F(0.0));
}

// Square root: the builtin, exactly rounded on both adapters (WGSL allows about 2.5 ulp). ±0 give ±0, +∞ gives +∞,
// x < 0 and NaN give NaN.
fn math_sqrt(x: F) -> F {
    return sqrt(x);
}

// Quotient: the builtin, exactly rounded on both adapters (WGSL allows 2.5 ulp for |b| in [2^−126, 2^126]).
fn math_div(a: F, b: F) -> F {
    return a / b;
}

// x·log(y), and 0 where x = 0 and y is not NaN, whatever y is. Error 1.8e-7 (2 ulp). A subnormal x counts as 0, so that
// adapters that flush it and those that do not agree at y = 0. NaN gives NaN.
fn math_xlogy(x: F, y: F) -> F {
    let zero = ((bitcast<U>(x) << U(1u)) < U(0x01000000u)) & !math_is_nan(y);
    return select(x * math_log(y), F(0.0), zero);
}

// The same with the logarithm by the adapter's inverseSqrt. Error 3.5e-7.
fn math_exp2_xlogy(x: F, y: F) -> F {
    let zero = ((bitcast<U>(x) << U(1u)) < U(0x01000000u)) & !math_is_nan(y);
    return select(x * math_exp2_log(y), F(0.0), zero);
}

// x·y, and 0 where x = 0 and y is infinite. Error as that of the product. NaN gives NaN.
fn math_times(x: F, y: F) -> F {
    return select(x * y, F(0.0), (x == F(0.0)) & (abs(y) > F(3.0e38)));
}

// x cut to its twelve leading bits, so that the product of two heads is exact.
fn math_head(x: F) -> F {
    return bitcast<F>(bitcast<U>(x) & U(0xfffff000u));
}

// x^y. Error 3.5e-7 for |y·log |x|| ≤ 80 (4.6 ulp), 1.7e-7 for |y·log |x|| ≤ 10; has a `/`. log2(|x|) and its
// product with y are kept in two pieces, as in FreeBSD's e_powf.c; the polynomial is the tail of atanh and adds 1e-9
// of log2(|x|). x^0 = 1 (a subnormal y counts as 0), 0^y = 0 and ∞^y = ∞ for y > 0, the reverse for y < 0; x^±∞ is the
// limit, (±1)^±∞ = 1; overflow gives ±∞, a subnormal result 0. A negative x (−0 and −∞ too) gives |x|^y, negated for
// odd y, and a finite one NaN unless y is an integer. NaN in either gives NaN (C: NaN^0 = 1^NaN = 1).
fn math_pow(x: F, y: F) -> F {
    let bits = bitcast<U>(x) & U(0x7fffffffu);
    let is_negative = bitcast<U>(x) > U(0x7fffffffu);
    let y_zero = (bitcast<U>(y) << U(1u)) < U(0x01000000u);
    // From 2²⁴ on, and at ±∞, every y is even.
    let half_y = y * F(0.5);
    let is_integer = y == trunc(y);
    let is_odd = is_integer & (half_y != trunc(half_y));
    let tiny = bits < U(0x00800000u);
    let normal = select(bits, bitcast<U>(F(bits)), tiny);
    // 0x3f3504f3 is √½: x = 2^k·(1 + f), |log2(1 + f)| ≤ 1/2.
    let e = bitcast<I>(normal - U(0x3f3504f3u)) >> U(23u);
    let f = bitcast<F>(normal - (bitcast<U>(e) << U(23u))) - F(1.0);
    let k = e + select(I(0), I(-149), tiny);
    // s = f / (2 + f), head and tail; log2(1 + f) = (2 / ln 2)·atanh(s).
    let inv = F(1.0) / (F(2.0) + f);
    let s_head = math_head(f * inv);
    let f_head = math_head(f);
    let s_tail = (((f - F(2.0) * s_head) - s_head * f_head) - s_head * (f - f_head)) * inv;
    let s = s_head + s_tail;
    let z = s_head * s_head + s_tail * (s_head + s);
    let series = (F(0.430996776) * z + F(0.576752663)) * z + F(0.96179831);
    let head = s_head * F(2.884765625);
    let tail = (s_head * F(6.24456778e-4) + s_tail * F(2.88539008)) + (s * z) * series;
    // −k is converted apart from k, so that no compiler cancels the two and takes the rounding of k + head with them.
    let log2_head = math_head(F(k) + head);
    let log2_tail = (head - (log2_head + F(-k))) + tail;
    let c = clamp(y, F(-1e30), F(1e30));
    let c_head = math_head(c);
    let product = c_head * log2_head;
    let rest = (c - c_head) * log2_head + c * log2_tail;
    let power = product + rest;
    let n = round(power);
    let p = math_exp_poly(((product - n) + rest) * F(0.693147182));
    let scaled = bitcast<F>(bitcast<U>(p) + (bitcast<U>(n + F(12582912.0)) << U(23u)));
    let above = select(scaled, F(0.0), power < F(-126.0));
    let inside = select(above, math_inf(x), power >= F(128.0));
    let x_edge = (bits == U(0u)) | (bits == U(0x7f800000u));
    let up = select(F(0.0), math_inf(x), (y > F(0.0)) == (bits != U(0u)));
    let edge = select(inside, up, x_edge);
    let one = select(edge, F(1.0), y_zero);
    let signed_one = bitcast<F>(bitcast<U>(one) | select(U(0u), U(0x80000000u), is_negative & is_odd));
    let is_nan = math_is_nan(x) | math_is_nan(y);
    let invalid = is_nan | (is_negative & !(x_edge | is_integer | y_zero));
    return select(signed_one, math_nan(select(x, y, math_is_nan(y))), invalid);
}
