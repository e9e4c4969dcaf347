//! The shapes that a loss takes: the axes of its rows, and whether predictions and targets broadcast.

use super::declaration::{ClassAxis, InputSpec, SHAPE_OPTIONS, Value};
use super::{Loss, Term};
use crate::error::{Error, Result};
use crate::shape::RowAxis;

impl Term {
    /// The inputs of its definition, by the names declared there, with the shapes that they may have here.
    pub(super) fn shaped_inputs(&self) -> impl Iterator<Item = InputSpec> + '_ {
        self.definition.inputs.iter().cloned().map(|mut input| {
            if self.broadcast {
                input.shape_rule = input.shape_rule.broadcast();
            }
            input
        })
    }

    /// Sets an option that is no part of the definition; false if the term has none of that name.
    pub(super) fn set_shape_option(&mut self, name: &str, value: &Value) -> Result<bool> {
        let has_classes = self.definition.row_axis == RowAxis::Class;
        let has_rows = self.definition.row_axis != RowAxis::None;
        let is_last = self.definition.row_axis == RowAxis::Last;
        let allowed = match (name, value) {
            ("class_axis", Value::ClassAxis(axis)) if has_classes => {
                self.row_axis = axis.row_axis();
                return Ok(true);
            }
            ("row_axis", Value::RowAxis(axis)) if has_rows && *axis != RowAxis::None => {
                self.row_axis = *axis;
                return Ok(true);
            }
            ("axis", Value::Num(axis)) if is_last && *axis == -1.0 => {
                self.row_axis = RowAxis::Last;
                return Ok(true);
            }
            ("axis", Value::Num(axis)) if is_last && *axis >= 0.0 && axis.fract() == 0.0 => {
                self.row_axis = RowAxis::At(*axis as usize);
                return Ok(true);
            }
            ("axis", Value::Index(Some(axis))) if is_last && *axis >= -1 => {
                self.row_axis = usize::try_from(*axis).map_or(RowAxis::Last, RowAxis::At);
                return Ok(true);
            }
            ("broadcast", Value::Flag(yes)) => {
                self.broadcast = *yes;
                return Ok(true);
            }
            ("broadcast", _) => "true or false",
            ("class_axis", _) if has_classes => "ClassAxis::One, ClassAxis::Last or ClassAxis::At(axis)",
            ("axis", _) if is_last => "the index of an axis from 0, or -1, the last one",
            ("row_axis", _) if has_rows => "RowAxis::Last, RowAxis::Class, RowAxis::At(axis) or RowAxis::From(axis)",
            _ => return Ok(false),
        };
        let (loss, param, found) = (self.definition.name.clone(), name.to_owned(), format!("{value:?}"));
        Err(Error::Param { loss, param, found, allowed: allowed.to_owned() })
    }

    /// Names of the options that [`Term::set_shape_option`] sets.
    pub(super) fn shape_options(&self) -> &'static [&'static str] {
        match self.definition.row_axis {
            RowAxis::None => &SHAPE_OPTIONS[..1],
            RowAxis::Class => &SHAPE_OPTIONS[..3],
            RowAxis::Last => &["broadcast", "row_axis", "axis"],
            _ => &SHAPE_OPTIONS[..2],
        }
    }
}

impl Loss {
    /// Sets the axis of the classes, in every term over classes (defined with [`RowAxis::Class`]): by default axis 1, as in PyTorch.
    /// By name: `.option("class_axis", ClassAxis::Last)`.
    ///
    /// Where both readings fit, as `[B, T, T]` with labels `[B, T]`, this alone decides. A loss without such a term
    /// gives an [`Error::Name`] when it is planned: Keras's losses have their own axis.
    ///
    /// ```
    /// use wgloss::{ClassAxis, losses};
    /// let loss = losses::by_name("nll").expect("in the catalogue").class_axis(ClassAxis::Last);
    /// assert_eq!(loss.rows_along(), wgloss::RowAxis::Last);
    /// assert!(losses::mse().class_axis(ClassAxis::Last).check().is_err());
    /// ```
    #[must_use]
    pub fn class_axis(self, axis: ClassAxis) -> Loss {
        self.option("class_axis", axis)
    }

    /// Sets the axes that make a row, in every term that has rows: by default those that its definition says. By name:
    /// `.option("row_axis", RowAxis::From(1))`, or, for one axis, as in Keras and optax, `.option("axis", -1)`, the last one.
    /// Values per row (labels, weights) have the other axes.
    ///
    /// A loss without rows gives an [`Error::Name`] when it is planned; a tensor that has not these axes an
    /// [`Error::Shape`].
    ///
    /// A loss whose rows are along the last axis by default, as Keras's and optax's are, has the option `axis` of these
    /// libraries too: `.option("axis", 1.0)` is `RowAxis::At(1)`, and `-1.0` the last axis.
    ///
    /// ```
    /// use wgloss::{HostTensor, RowAxis, cpu, losses};
    /// // Keras's hinge averages along the last axis; here along the first.
    /// let loss = losses::by_name("hinge").expect("in the catalogue").row_axis(RowAxis::At(0));
    /// assert_eq!(loss.rows_along(), loss.clone().option("axis", 0).rows_along());
    /// let (y, p) = (HostTensor::f32(&[1.0, 0.0], &[2, 1]), HostTensor::f32(&[2.0, -2.0], &[2, 1]));
    /// assert_eq!(cpu::forward_backward(&loss, &[("y_true", y), ("y_pred", p)], &[])?.loss()?, 0.0);
    /// assert!(losses::mse().row_axis(RowAxis::Last).check().is_err());
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    #[must_use]
    pub fn row_axis(self, axis: RowAxis) -> Loss {
        self.option("row_axis", axis)
    }

    /// Whether predictions and targets (labels too) of different shape broadcast; by default their shapes must be the
    /// same, since `[N]` beside `[N, 1]` would make `[N, N]` losses. Weights, masks and other optional inputs always
    /// broadcast. By name: `.option("broadcast", true)`.
    ///
    /// ```
    /// use wgloss::{Error, HostTensor, cpu, losses};
    /// let (x, t) = (HostTensor::f32(&[1.0, 2.0], &[2, 1]), HostTensor::f32(&[0.0, 4.0], &[2]));
    /// let inputs = [("input", x), ("target", t)];
    /// assert!(matches!(cpu::forward_backward(&losses::mse(), &inputs, &[]), Err(Error::Shape { .. })));
    /// let all_pairs = losses::mse().broadcast(true);
    /// assert_eq!(cpu::forward_backward(&all_pairs, &inputs, &[])?.loss()?, (1.0 + 9.0 + 4.0 + 4.0) / 4.0);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    #[must_use]
    pub fn broadcast(self, yes: bool) -> Loss {
        self.option("broadcast", yes)
    }

    /// The axes that make a row.
    pub fn rows_along(&self) -> RowAxis {
        self.terms.iter().map(|term| term.row_axis).find(|axis| *axis != RowAxis::None).unwrap_or_default()
    }

    /// The number of columns that its terms state; `None` for any.
    ///
    /// # Errors
    /// [`Error::Expr`] for terms that state different ones.
    pub fn cols(&self) -> Result<Option<u64>> {
        let mut stated = self.terms.iter().filter_map(|term| term.definition.cols);
        let Some(first) = stated.next() else { return Ok(None) };
        match stated.find(|other| *other != first) {
            None => Ok(Some(first)),
            Some(other) => {
                let message = format!("its terms state different numbers of columns, {first} and {other}");
                Err(Error::Expr { loss: self.name(), message })
            }
        }
    }

    /// An error unless the terms that have rows have them along one axis.
    pub(super) fn check_row_axes(&self) -> Result<()> {
        let row_axis = self.rows_along();
        let other = self.terms.iter().find(|term| ![row_axis, RowAxis::None].contains(&term.row_axis));
        let Some(other) = other else { return Ok(()) };
        let name = &other.definition.name;
        let message = format!(
            "its terms have rows along different axes ({row_axis:?}, and {:?} of {name}); `.class_axis(ClassAxis::Last)`, \
             or `ClassAxis::One`, of the sum gives all terms over classes one axis, `.row_axis(…)` all terms with rows",
            other.row_axis
        );
        Err(Error::Expr { loss: self.name(), message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses;

    #[test]
    fn an_axis_counts_from_the_first_and_minus_one_is_the_last() {
        for (axis, want) in [(-1i64, RowAxis::Last), (0, RowAxis::At(0)), (2, RowAxis::At(2))] {
            assert_eq!(losses::by_name("hinge").unwrap().option("axis", axis).rows_along(), want);
        }
        let refused = losses::by_name("hinge").unwrap().option("axis", -2i64).check().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "axis = Index(Some(-2)) for hinge; must be the index of an axis from 0, or -1, the last one"
        );
        assert!(matches!(losses::mse().option("axis", -1i64).check(), Err(Error::Name { .. })));
    }
}
