//! How far a result is from the f64 reference, in units of what the numerics contract allows.
//!
//! A reduced loss may be off by 2e-6 of itself plus 2e-7 of the mean (of a sum: the sum) of its terms' magnitudes; a
//! gradient by 2e-6 of the row's largest plus 1e-6 of itself, and by one rounding where it is stored in 16 bits.

use crate::problem::{Problem, Storage};
use crate::record::Work;
pub use wgloss::internals::contract::{gradient_allowed, loss_allowed};
use wgloss::{DType, HostTensor, Loss, Reduction, Result, RowAxis, Wanted, cpu};

/// The error in units of what is allowed. NaN is as far off as can be, unless it is wanted.
pub fn units(got: f64, want: f64, allowed: f64) -> f64 {
    if got == want || (got.is_nan() && want.is_nan()) {
        return 0.0;
    }
    let units = (got - want).abs() / allowed;
    if units.is_nan() { f64::INFINITY } else { units }
}

/// The results of the f64 path for a problem.
pub struct Reference {
    loss: f64,
    /// Magnitudes of the loss's terms, reduced as the loss is.
    terms: f64,
    grad: Option<Grad>,
}

/// A gradient, and what each of its values is judged by.
struct Grad {
    wrt: String,
    values: Vec<f64>,
    dtype: DType,
    rows: Rows,
    /// The largest magnitude in each row.
    largest: Vec<f64>,
}

/// Rows of a contiguous tensor, as gradients are judged: all elements are one, where a loss has none.
struct Rows {
    /// Elements of a row.
    len: usize,
    /// Elements between two of a row: 1, unless axes follow that of the classes.
    stride: usize,
    /// Elements along the axis that positions are told by.
    cols: usize,
}

impl Rows {
    fn new(axis: RowAxis, shape: &[usize]) -> Rows {
        let last = shape.last().copied().unwrap_or(1);
        let (len, stride) = match axis.columns(shape.len()) {
            Some(columns) => (shape[columns.clone()].iter().product(), shape[columns.end..].iter().product()),
            None => (shape.iter().product(), 1),
        };
        Rows { len, stride, cols: if axis == RowAxis::None { last } else { len } }
    }

    fn of(&self, index: usize) -> usize {
        index / (self.len * self.stride) * self.stride + index % self.stride
    }

    /// Row and column in messages.
    fn position(&self, index: usize) -> [usize; 2] {
        let col = index / self.stride % self.cols;
        [index / (self.cols * self.stride) * self.stride + index % self.stride, col]
    }
}

impl Grad {
    fn new(wrt: &str, values: Vec<f64>, dtype: DType, rows: Rows) -> Grad {
        let mut largest = vec![0.0f64; values.len() / rows.len.max(1)];
        for (index, value) in values.iter().enumerate() {
            let row = &mut largest[rows.of(index)];
            *row = row.max(value.abs());
        }
        Grad { wrt: wrt.to_owned(), values, dtype, rows, largest }
    }
}

/// The value that is furthest off.
#[derive(Clone, Debug)]
pub struct Off {
    /// In units of what is allowed; infinite for NaN.
    pub units: f64,
    /// The output's name.
    pub output: String,
    /// Row and column, of a gradient.
    pub index: Option<[usize; 2]>,
    pub got: f64,
    pub want: f64,
}

impl Reference {
    pub fn new(problem: &Problem, work: Work) -> Result<Reference> {
        let wrt = (work == Work::ForwardBackward).then(|| (problem.wrt.as_str(), problem.shape_of(&problem.wrt)));
        Reference::of(&problem.loss, &problem.host(), wrt, problem.storage)
    }

    /// Of a loss at these inputs, and of the gradient of the input `wrt`, of that shape, as it is stored.
    pub fn of(
        loss: &Loss,
        host: &[(&str, HostTensor<'_>)],
        wrt: Option<(&str, &[usize])>,
        storage: Storage,
    ) -> Result<Reference> {
        let grads: Vec<String> = wrt.iter().map(|(name, _)| (*name).to_owned()).collect();
        let out = cpu::run::<f64>(loss, host, &Wanted { loss: true, grads, ..Wanted::default() })?;
        let each = loss.clone().reduction(Reduction::None);
        let each = cpu::run::<f64>(&each, host, &Wanted { loss: true, ..Wanted::default() })?;
        let (sum, magnitude) =
            each.loss_values()?.iter().fold((0.0, 0.0), |(sum, magnitude), x| (sum + x, magnitude + x.abs()));
        let value = out.loss()?;
        // The magnitudes are divided by the denominator of the sum.
        let terms = if sum == 0.0 { 0.0 } else { magnitude * (value / sum).abs() };
        let grad = match wrt {
            None => None,
            Some((name, shape)) => {
                let rows = Rows::new(loss.rows_along(), shape);
                Some(Grad::new(name, out.grad(name)?.to_vec(), storage.dtype(), rows))
            }
        };
        Ok(Reference { loss: value, terms, grad })
    }

    /// The worst of these values; of several that are as bad the first element of the gradient, which tells most.
    pub fn worst(&self, loss: f64, grad: Option<&[f32]>) -> Off {
        let units = units(loss, self.loss, loss_allowed(self.loss, self.terms));
        let mut worst = Off { units, output: "loss".to_owned(), index: None, got: loss, want: self.loss };
        let (Some(got), Some(grad)) = (grad, &self.grad) else { return worst };
        for (index, (&got, &want)) in got.iter().zip(&grad.values).enumerate() {
            let allowed = gradient_allowed(want, grad.largest[grad.rows.of(index)], grad.dtype);
            let units = self::units(f64::from(got), want, allowed);
            if units > worst.units || (units == worst.units && units > 0.0 && worst.index.is_none()) {
                let output = format!("gradient of {}", grad.wrt);
                worst = Off { units, output, index: Some(grad.rows.position(index)), got: f64::from(got), want };
            }
        }
        worst
    }

    /// The worst of these values as an error, where it is further off than is allowed.
    pub fn check(&self, loss: f64, grad: &[f32]) -> std::result::Result<(), Off> {
        let off = self.worst(loss, Some(grad));
        let is_whole = self.grad.as_ref().is_none_or(|want| want.values.len() == grad.len());
        if off.units <= 1.0 && is_whole { Ok(()) } else { Err(off) }
    }
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
        let mut grad: Vec<f32> = reference.grad.as_ref().unwrap().values.iter().map(|x| *x as f32).collect();
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
    fn classes_at_axis_1_are_judged_row_by_row() {
        // Two samples of three classes at two pixels.
        let rows = Rows::new(RowAxis::Class, &[2, 3, 2]);
        let all: Vec<usize> = (0..12).map(|index| rows.of(index)).collect();
        assert_eq!(all, [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3]);
        assert_eq!((rows.position(5), rows.position(6)), ([1, 2], [2, 0]));
        assert_eq!(Rows::new(RowAxis::None, &[4, 5]).position(7), [1, 2]);
    }

    #[test]
    fn what_is_allowed_is_one_unit() {
        assert_eq!(units(1.5, 1.0, 0.5), 1.0);
        assert_eq!(units(f64::NAN, 1.0, 0.5), f64::INFINITY);
        assert_eq!(units(f64::NAN, f64::NAN, 0.5), 0.0);
        assert_eq!(units(f64::INFINITY, 1.0, 0.5), f64::INFINITY);
    }
}
