//! The numerics contract: how far a result may be from what exact arithmetic gives.
//!
//! A reduced loss may be off by 2e-6 of itself plus 2e-7 of the mean (of a sum: the sum) of its terms' magnitudes; a
//! gradient by 2e-6 of the row's largest plus 1e-6 of itself, and by one rounding where it is stored in 16 bits.

use crate::shape::DType;

/// How far a reduced loss may be off. `terms` are the magnitudes of its terms, reduced as it is; of a loss that is not
/// reduced, what cancels in it (1 for most).
pub fn loss_allowed(want: f64, terms: f64) -> f64 {
    2e-6 * want.abs() + 2e-7 * terms + f64::from(f32::MIN_POSITIVE)
}

/// How far a gradient may be off that is stored as `dtype`; `largest` is the largest magnitude in its row.
pub fn gradient_allowed(want: f64, largest: f64, dtype: DType) -> f64 {
    // Half a unit in the last place of numbers near 1, and half the smallest step.
    let (rounding, least) = match dtype {
        DType::F16 => (1.0 / 2048.0, 1.0 / f64::from(1 << 25)),
        DType::BF16 => (1.0 / 256.0, f64::from(f32::MIN_POSITIVE)),
        _ => (0.0, f64::from(f32::MIN_POSITIVE)),
    };
    2e-6 * largest + (1e-6 + rounding) * want.abs() + least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rounding_is_allowed_to_16_bits_alone() {
        let half_step = |dtype: DType| gradient_allowed(1.0, 0.0, dtype);
        assert!(half_step(DType::F16) > 1.0 / 2048.0 && half_step(DType::F16) < 1.01 / 2048.0);
        assert!(half_step(DType::BF16) > 1.0 / 256.0 && half_step(DType::BF16) < 1.01 / 256.0);
        assert!(half_step(DType::F32) < 1.1e-6 && gradient_allowed(0.0, 1.0, DType::F32) < 2.1e-6);
        assert!(loss_allowed(0.0, 1.0) > 1.9e-7 && loss_allowed(0.0, 1.0) < 2.1e-7);
    }
}
