//! Whether two schedules compute the same, within the accuracy that is promised. Pure.

use crate::contract::{gradient_allowed, loss_allowed};
use crate::shape::DType;

/// How the values of an output are judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    pub dtype: DType,
    /// Number of values that the largest among them judges: a row of a gradient; all values, if it has no rows.
    pub row: usize,
    /// A loss, or another value whose terms are of the order of 1: what cancels in it is allowed for.
    pub is_loss: bool,
}

/// The worst value that is off by more than twice the promised accuracy: each schedule may be off by it once.
pub(crate) fn disagreement(want: &[f32], got: &[f32], measure: Measure) -> Option<String> {
    if want.len() != got.len() {
        return Some(format!("{} values, want {}", got.len(), want.len()));
    }
    let row = measure.row.max(1);
    let mut worst: Option<(f64, usize)> = None;
    for (index, (want, got)) in want.chunks(row).zip(got.chunks(row)).enumerate() {
        let finite = want.iter().map(|x| f64::from(x.abs())).filter(|x| x.is_finite());
        let largest = finite.fold(0.0, f64::max);
        for (col, (want, got)) in want.iter().zip(got).enumerate() {
            if want == got || want.is_nan() && got.is_nan() {
                continue;
            }
            let (want, got) = (f64::from(*want), f64::from(*got));
            let promised = match measure.is_loss {
                true => loss_allowed(want, largest.max(1.0)),
                false => gradient_allowed(want, largest, measure.dtype),
            };
            let excess = (got - want).abs() / (2.0 * promised);
            // NaN is off by more than anything.
            let excess = if excess.is_nan() { f64::INFINITY } else { excess };
            if excess > worst.map_or(1.0, |(most, _)| most) {
                worst = Some((excess, index * row + col));
            }
        }
    }
    worst.map(|(_, k)| format!("[{k}] is {}, want {}", got[k], want[k]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRADIENT: Measure = Measure { dtype: DType::F32, row: 2, is_loss: false };

    #[test]
    fn each_row_is_judged_by_its_own_largest_value() {
        let want = [1.0, 1e-7, 1e-3, 1e-7];
        assert_eq!(disagreement(&want, &[1.0, 4e-6, 1e-3, 1e-7], GRADIENT), None);
        let said = disagreement(&want, &[1.0, 1e-7, 1e-3, 4e-6], GRADIENT);
        assert!(said.as_deref().is_some_and(|text| text.starts_with("[3]")), "{said:?}");
    }

    #[test]
    fn nan_agrees_with_nan_alone() {
        assert_eq!(disagreement(&[f32::NAN, 1.0], &[f32::NAN, 1.0], GRADIENT), None);
        assert!(disagreement(&[1.0, 1.0], &[f32::NAN, 1.0], GRADIENT).is_some());
        assert!(disagreement(&[f32::NAN, 1.0], &[1.0, 1.0], GRADIENT).is_some());
        assert!(disagreement(&[1.0, 1.0], &[f32::INFINITY, 1.0], GRADIENT).is_some());
        assert!(disagreement(&[1.0], &[1.0, 1.0], GRADIENT).is_some());
    }

    #[test]
    fn sixteen_bits_may_round_the_other_way() {
        let next = f32::from_bits(1.0f32.to_bits() + (1 << 16));
        assert_eq!(disagreement(&[1.0], &[next], Measure { dtype: DType::BF16, ..GRADIENT }), None);
        assert!(disagreement(&[1.0], &[next], GRADIENT).is_some());
    }

    #[test]
    fn small_losses_allow_for_their_terms() {
        let loss = Measure { is_loss: true, ..GRADIENT };
        assert_eq!(disagreement(&[1e-6], &[1.2e-6], loss), None);
        assert!(disagreement(&[1e-6], &[2e-6], loss).is_some());
        assert!(disagreement(&[10.0], &[10.001], loss).is_some());
    }
}
