//! The logarithm of the gamma function, and its derivative, on the host.

/// ln Γ(x) for x ≥ 0, +∞ at 0; NaN below.
pub(super) fn lgamma(x: f64) -> f64 {
    if x < 0.0 { f64::NAN } else { libm::lgamma(x) }
}

/// The derivative of `lgamma`, for x ≥ 0, −∞ at 0; NaN below. Error 2e-15 of `max(1, |ψ(x)|)`.
pub(super) fn digamma(x: f64) -> f64 {
    if x < 0.0 {
        return f64::NAN;
    }
    let (mut x, mut below) = (x.abs(), 0.0);
    // ψ(x) = ψ(x + 1) − 1/x; from 10 on the first term that the asymptotic series leaves out is 1e-15.
    while x < 10.0 {
        below += 1.0 / x;
        x += 1.0;
    }
    let w = 1.0 / (x * x);
    let series = [691.0 / 32760.0, -1.0 / 132.0, 1.0 / 240.0, -1.0 / 252.0, 1.0 / 120.0, -1.0 / 12.0];
    x.ln() - 0.5 / x + series.iter().fold(0.0, |sum, c| (sum + c) * w) - below
}
