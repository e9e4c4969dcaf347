//! How far a result is from the f64 reference, in units of what the numerics contract allows.
//!
//! A reduced loss may be off by 2e-6 of itself plus 2e-7 of the mean (of a sum: the sum) of its terms' magnitudes; a
//! gradient by 2e-6 of the row's largest plus 1e-6 of itself, and by one rounding where it is stored in 16 bits.

use crate::problem::{Problem, Storage};
use crate::record::Work;
use wgloss::Wanted;
use wgloss::{Reduction, Result, cpu};

/// What the f64 path gives for a problem.
pub struct Reference {
    loss: f64,
    /// Magnitudes of the loss's terms, reduced as the loss is.
    terms: f64,
    grad: Option<Vec<f64>>,
    wrt: String,
    storage: Storage,
    cols: usize,
    /// Elements that are judged by the largest gradient among them: a row; all, where there are no rows.
    row: usize,
}

/// The value that is furthest off.
#[derive(Clone, Debug)]
pub struct Off {
    /// In units of what is allowed; infinite for NaN.
    pub units: f64,
    /// Which output.
    pub output: String,
    /// Row and column, of a gradient.
    pub index: Option<[usize; 2]>,
    pub got: f64,
    pub want: f64,
}

impl Reference {
    pub fn new(problem: &Problem, work: Work) -> Result<Reference> {
        let host = problem.host();
        let out = cpu::run::<f64>(&problem.loss, &host, &problem.wanted(work))?;
        let loss = out.loss()?;
        let each = problem.loss.clone().reduction(Reduction::None);
        let each = cpu::run::<f64>(&each, &host, &Wanted { loss: true, ..Wanted::default() })?;
        let (sum, magnitude) =
            each.loss_values()?.iter().fold((0.0, 0.0), |(sum, magnitude), x| (sum + x, magnitude + x.abs()));
        // Whatever the sum was divided by, the magnitudes are.
        let terms = if sum == 0.0 { 0.0 } else { magnitude * (loss / sum).abs() };
        let grad = match work {
            Work::Forward => None,
            Work::ForwardBackward => Some(out.grad(&problem.wrt)?.to_vec()),
        };
        let Problem { rows, cols, storage, .. } = *problem;
        let row = if problem.has_rows() { cols } else { rows * cols };
        Ok(Reference { loss, terms, grad, wrt: problem.wrt.clone(), storage, cols, row })
    }

    /// The worst of these values; of several that are as bad the first element of the gradient, which tells most.
    pub fn worst(&self, loss: f64, grad: Option<&[f32]>) -> Off {
        let allowed = 2e-6 * self.loss.abs() + 2e-7 * self.terms + f64::from(f32::MIN_POSITIVE);
        let units = units(loss, self.loss, allowed);
        let mut worst = Off { units, output: "loss".to_owned(), index: None, got: loss, want: self.loss };
        let (Some(got), Some(want)) = (grad, &self.grad) else { return worst };
        // Half a unit in the last place of numbers near 1, and half the smallest step.
        let (relative, least) = match self.storage {
            Storage::F32 => (0.0, f64::from(f32::MIN_POSITIVE)),
            Storage::F16 => (1.0 / 2048.0, 1.0 / f64::from(1 << 25)),
            Storage::Bf16 => (1.0 / 256.0, f64::from(f32::MIN_POSITIVE)),
        };
        for (row, (got, want)) in got.chunks(self.row).zip(want.chunks(self.row)).enumerate() {
            let largest = want.iter().fold(0.0f64, |most, x| x.abs().max(most));
            for (place, (&got, &want)) in got.iter().zip(want).enumerate() {
                let allowed = 2e-6 * largest + (1e-6 + relative) * want.abs() + least;
                let units = self::units(f64::from(got), want, allowed);
                if units > worst.units || (units == worst.units && units > 0.0 && worst.index.is_none()) {
                    let flat = row * self.row + place;
                    let index = Some([flat / self.cols, flat % self.cols]);
                    let output = format!("gradient of {}", self.wrt);
                    worst = Off { units, output, index, got: f64::from(got), want };
                }
            }
        }
        worst
    }
}

/// NaN is as far off as can be, unless it is wanted.
fn units(got: f64, want: f64, allowed: f64) -> f64 {
    if got == want || (got.is_nan() && want.is_nan()) {
        return 0.0;
    }
    let units = (got - want).abs() / allowed;
    if units.is_nan() { f64::INFINITY } else { units }
}

impl std::fmt::Display for Off {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Off { units, output, got, want, .. } = self;
        write!(f, "{output}")?;
        if let Some([row, col]) = self.index {
            write!(f, " at [{row}, {col}]")?;
        }
        write!(f, ": got {got:e}, want {want:e}, {} times what is allowed", shown(*units))
    }
}

/// Units for people.
pub fn shown(units: f64) -> String {
    match units {
        u if u.is_infinite() => "inf".to_owned(),
        u if u < 1000.0 => format!("{u:.2}"),
        u => format!("{u:.0e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgloss::losses;

    #[test]
    fn the_reference_is_no_way_off_itself_and_its_worst_value_is_found() {
        let problem = Problem::new(&losses::cross_entropy(), 5, 7, Storage::F32).unwrap();
        let reference = Reference::new(&problem, Work::ForwardBackward).unwrap();
        let mut grad: Vec<f32> = reference.grad.as_ref().unwrap().iter().map(|x| *x as f32).collect();
        assert!(reference.worst(reference.loss, Some(&grad)).units < 0.1);
        grad[2 * 7 + 6] += 1e-3;
        let off = reference.worst(reference.loss, Some(&grad));
        assert!(off.units > 100.0 && off.index == Some([2, 6]) && off.output == "gradient of input", "{off}");
        grad[4 * 7] = f32::NAN;
        assert_eq!(reference.worst(reference.loss, Some(&grad)).index, Some([4, 0]));
        let off = reference.worst(reference.loss * 1.001, None);
        assert!(off.units > 100.0 && off.output == "loss", "{off}");
    }

    #[test]
    fn what_is_allowed_is_one_unit() {
        assert_eq!(units(1.5, 1.0, 0.5), 1.0);
        assert_eq!(units(f64::NAN, 1.0, 0.5), f64::INFINITY);
        assert_eq!(units(f64::NAN, f64::NAN, 0.5), 0.0);
        assert_eq!(units(f64::INFINITY, 1.0, 0.5), f64::INFINITY);
    }
}
