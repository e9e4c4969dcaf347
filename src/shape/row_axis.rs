//! The axes of the element inputs that make a row, and how many columns a loss takes.

use std::fmt;
use std::ops::Range;

/// The axes of the element inputs that make a row; the other axes count the rows.
///
/// ```
/// use wgloss::{HostTensor, Loss, Reduction, RowAxis, Scope, cpu};
/// // Dice of each sample of [N, 1, H, W]: every pixel of a sample is a column of its row.
/// let dice = Loss::define("dice")
///     .input("input", Scope::Element)
///     .input("target", Scope::Element)
///     .row_axis(RowAxis::From(1))
///     .expr(|b| {
///         let (p, t) = (b.input("input"), b.input("target"));
///         1.0 - 2.0 * (p * t).sum() / (p.sum() + t.sum())
///     });
/// let p = HostTensor::f32(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0], &[2, 1, 2, 2]);
/// let t = HostTensor::f32(&[1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0], &[2, 1, 2, 2]);
/// let out = cpu::forward_backward(&dice.reduction(Reduction::None), &[("input", p), ("target", t)], &[])?;
/// assert_eq!(out.loss_values()?, [0.0, 1.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum RowAxis {
    /// There are no rows: elements stand alone.
    #[default]
    None,
    /// Axis 1 of `[N, C, d1, …]`; of `[C]`, axis 0.
    Class,
    /// The last axis.
    Last,
    /// The axis of this index, from 0.
    At(usize),
    /// All axes from this index on: a row has their product of columns, in row-major order. In a strided tensor, these
    /// axes must lie as one axis does ([`Error::Shape`](crate::Error::Shape) otherwise).
    From(usize),
}

impl RowAxis {
    /// The axes that make a row, of a shape with `rank` axes. `None` where there are no rows, or not so many axes.
    ///
    /// ```
    /// use wgloss::RowAxis;
    /// assert_eq!(RowAxis::Class.columns(4), Some(1..2));
    /// assert_eq!(RowAxis::From(1).columns(4), Some(1..4));
    /// assert_eq!(RowAxis::At(2).columns(2), None);
    /// ```
    pub fn columns(self, rank: usize) -> Option<Range<usize>> {
        let first = match self {
            RowAxis::None => return None,
            RowAxis::Class if rank > 1 => 1,
            RowAxis::Class | RowAxis::Last => rank.checked_sub(1)?,
            RowAxis::At(axis) | RowAxis::From(axis) => axis,
        };
        let end = if let RowAxis::From(_) = self { rank } else { first + 1 };
        (first < rank && end <= rank).then_some(first..end)
    }

    /// Number of axes that a shape must have.
    pub(super) fn least_rank(self) -> usize {
        match self {
            RowAxis::None => 0,
            RowAxis::Class | RowAxis::Last => 1,
            RowAxis::At(axis) | RowAxis::From(axis) => axis + 1,
        }
    }
}

/// The numbers of columns that a loss takes: any, until its definition or an index in its formula says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ColumnCount {
    /// The number that its definition states; `None` for any.
    pub exactly: Option<u64>,
    /// One more than the largest fixed column that its formula reads; 0 if it reads none.
    pub least: u64,
}

impl ColumnCount {
    /// The number that is expected instead, in words; `None` if `cols` is taken.
    pub fn refused(self, cols: u64) -> Option<String> {
        let ColumnCount { exactly, least } = self;
        match exactly {
            Some(count) if count != cols => Some(format!("exactly {count} columns, which its formula tells apart")),
            _ if cols < least => Some(format!("at least {least} columns, as its formula reads column {}", least - 1)),
            _ => None,
        }
    }
}

/// The axes in words, for messages.
impl fmt::Display for RowAxis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowAxis::None => f.write_str("no axis"),
            RowAxis::Class => f.write_str("axis 1"),
            RowAxis::Last => f.write_str("the last axis"),
            RowAxis::At(axis) => write!(f, "axis {axis}"),
            RowAxis::From(axis) => write!(f, "the axes from {axis} on"),
        }
    }
}
