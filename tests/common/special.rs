//! Special functions in f64, by other formulas than the crate's.

/// ln Γ(x) for x ≥ 0, exactly 0 at its zeros: 50 steps of Γ(x) = Γ(x + 1)/x, then Stirling's series, good to 1e-15 there.
pub fn lgamma(x: f64) -> f64 {
    if x == 1.0 || x == 2.0 || x.is_infinite() {
        return if x.is_infinite() { x } else { 0.0 };
    }
    let below: f64 = (0..50).map(|k| (x + f64::from(k)).ln()).sum();
    let y = x + 50.0;
    let half_log_tau = 0.5 * std::f64::consts::TAU.ln();
    let series = 1.0 / (12.0 * y) - 1.0 / (360.0 * y.powi(3)) + 1.0 / (1260.0 * y.powi(5));
    (y - 0.5) * y.ln() - y + half_log_tau + series - below
}

/// The derivative of [`lgamma`]: 50 steps of ψ(x) = ψ(x + 1) − 1/x, then the series in x − ½, good to 1e-16 there.
pub fn digamma(x: f64) -> f64 {
    let below: f64 = (0..50).map(|k| 1.0 / (x + f64::from(k))).sum();
    let y = x + 49.5;
    y.ln() + 1.0 / (24.0 * y * y) - 7.0 / (960.0 * y.powi(4)) + 31.0 / (8064.0 * y.powi(6)) - below
}

/// The derivative of [`digamma`], likewise.
pub fn trigamma(x: f64) -> f64 {
    let below: f64 = (0..50).map(|k| (x + f64::from(k)).powi(-2)).sum();
    let y = x + 49.5;
    1.0 / y - 1.0 / (12.0 * y.powi(3)) + 7.0 / (240.0 * y.powi(5)) + below
}

/// The error function: 2/√π·exp(−x²)·Σ 2ⁿ·x²ⁿ⁺¹/(2n + 1)!!, of which no terms cancel; beyond 6 it is ±1, of NaN it is NaN.
pub fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut sum, mut term, mut n) = (0.0, x, 1.0);
    while sum + term != sum {
        sum += term;
        n += 2.0;
        term *= 2.0 * x * x / n;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}
