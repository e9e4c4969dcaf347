//! Declarations of a loss: its inputs, its options and their domains.

use crate::error::{Error, Result};
use crate::expr::op::Kind;
use crate::shape::{KERNEL_NUMBERS, RowAxis, Scope, ShapeRule, kernels_see};
use std::fmt;

/// Domain of a number. NaN and ∞ are in none.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Domain {
    /// Any finite number.
    Finite,
    /// Finite and > 0.
    Positive,
    /// Finite and ≥ 0.
    NonNegative,
    /// 0 ≤ x ≤ 1.
    Unit,
    /// In the unit interval, or −1 (which turns it off).
    UnitOrOff,
}

impl Domain {
    /// Whether a number is inside.
    pub fn contains(self, x: f64) -> bool {
        x.is_finite()
            && match self {
                Domain::Finite => true,
                Domain::Positive => x > 0.0,
                Domain::NonNegative => x >= 0.0,
                Domain::Unit => (0.0..=1.0).contains(&x),
                Domain::UnitOrOff => x == -1.0 || (0.0..=1.0).contains(&x),
            }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Domain::Finite => "finite",
            Domain::Positive => "finite and > 0",
            Domain::NonNegative => "finite and >= 0",
            Domain::Unit => "in [0, 1]",
            Domain::UnitOrOff => "in [0, 1], or -1 for none",
        })
    }
}

/// Value of an option.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A number: a uniform of the kernel, changeable by `set_param`.
    Num(f64),
    /// A class index, or none. An index is a uniform of the kernel, changeable by `set_param`; none is another kernel.
    Index(Option<i64>),
    /// A switch; it selects the expression.
    Flag(bool),
    /// The value of `class_axis`, which every loss over classes has.
    ClassAxis(ClassAxis),
}

impl From<ClassAxis> for Value {
    fn from(axis: ClassAxis) -> Value {
        Value::ClassAxis(axis)
    }
}

impl From<ParamValue> for Value {
    fn from(value: ParamValue) -> Value {
        match value {
            ParamValue::Number(x) => Value::Num(x),
        }
    }
}

impl From<f64> for Value {
    fn from(x: f64) -> Value {
        Value::Num(x)
    }
}

impl From<i64> for Value {
    fn from(index: i64) -> Value {
        Value::Index(Some(index))
    }
}

impl From<Option<i64>> for Value {
    fn from(index: Option<i64>) -> Value {
        Value::Index(index)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Value {
        Value::Flag(yes)
    }
}

/// Value of a numeric option, as the setters of the catalogue's losses take it.
///
/// ```
/// use wgloss::{ParamValue, losses};
/// assert_eq!(ParamValue::from(0.5f32), ParamValue::Number(0.5));
/// let loss = losses::huber(0.5);      // a number becomes one by itself
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ParamValue {
    /// A number: a uniform of the kernel, changeable by `set_param`.
    Number(f64),
}

impl From<f64> for ParamValue {
    fn from(x: f64) -> ParamValue {
        ParamValue::Number(x)
    }
}

impl From<f32> for ParamValue {
    fn from(x: f32) -> ParamValue {
        ParamValue::Number(x.into())
    }
}

impl From<i32> for ParamValue {
    fn from(x: i32) -> ParamValue {
        ParamValue::Number(x.into())
    }
}

/// The axis of the scores that holds the classes: `[N, C, d1, …]` or `[N, d1, …, C]`. Labels have the other axes.
///
/// ```
/// use wgloss::{ClassAxis, HostTensor, cpu, losses};
/// // Logits [B, T, V] with labels [B, T]: B = 1, T = 3, V = 2.
/// let logits = HostTensor::f32(&[0.0, 9.0, 9.0, 0.0, 0.0, 9.0], &[1, 3, 2]);
/// let inputs = [("input", logits), ("target", HostTensor::i32(&[1, 0, 1], &[1, 3]))];
/// let loss = losses::cross_entropy().class_axis(ClassAxis::Last);
/// assert!(cpu::forward_backward(&loss, &inputs, &[])?.loss()? < 1e-3);
/// let error = cpu::forward_backward(&losses::cross_entropy(), &inputs, &[]).unwrap_err();
/// assert!(error.to_string().contains("ClassAxis::Last"));
/// # Ok::<(), wgloss::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ClassAxis {
    /// Axis 1, as in PyTorch; of `[C]`, axis 0.
    #[default]
    One,
    /// The last axis, as in JAX, Keras and language models.
    Last,
}

impl ClassAxis {
    /// The axis that makes a row of a loss over classes.
    pub(super) fn row_axis(self) -> RowAxis {
        match self {
            ClassAxis::One => RowAxis::Class,
            ClassAxis::Last => RowAxis::Last,
        }
    }
}

/// Names of options that a definition does not declare: every loss has the one, every loss over classes the other.
pub(super) const SHAPE_OPTIONS: [&str; 2] = ["broadcast", "class_axis"];

/// An option of a loss.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OptionDecl {
    /// Its name, as in the library that the loss comes from.
    pub name: String,
    /// Its value if none is given.
    pub default: Value,
    /// The numbers it may be.
    pub domain: Domain,
    /// Numbers at which the expression changes (smoothing 0, γ = 2): `set_param` may not cross them.
    pub structural: Vec<f64>,
}

/// An input of a loss.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct InputSpec {
    /// Its name, as in the library that the loss comes from.
    pub name: String,
    /// The axes along which its values vary.
    pub scope: Scope,
    /// Numbers or class indices.
    pub kind: Kind,
    /// Whether it may be absent.
    pub optional: bool,
    /// The shapes that it may have beside the others.
    pub shape_rule: ShapeRule,
}

impl InputSpec {
    /// An input that must be there: its shape is that of its scope, or of the other inputs of the same scope.
    pub(super) fn required(name: &str, scope: Scope, kind: Kind) -> InputSpec {
        let shape_rule = if scope >= Scope::Row { ShapeRule::Same } else { ShapeRule::Broadcast };
        InputSpec { name: name.to_owned(), scope, kind, optional: false, shape_rule }
    }

    /// An input of numbers that may be absent, and that broadcasts.
    pub fn optional(name: &str, scope: Scope) -> InputSpec {
        let shape_rule = ShapeRule::Broadcast;
        InputSpec { name: name.to_owned(), scope, kind: Kind::Float, optional: true, shape_rule }
    }
}

/// An error unless the number may be the weight of a term.
pub(crate) fn check_weight(loss: &str, weight: f64) -> Result<()> {
    if kernels_see(weight) {
        return Ok(());
    }
    let (loss, param, found) = (loss.to_owned(), "weight".to_owned(), format!("{weight:e}"));
    Err(Error::Param { loss, param, found, allowed: format!("finite, and {KERNEL_NUMBERS}") })
}

/// An error unless the option takes this value.
pub(crate) fn check_option(loss: &str, decl: &OptionDecl, value: &Value) -> Result<()> {
    let wrong = |found: String, allowed: String| {
        Err(Error::Param { loss: loss.to_owned(), param: decl.name.clone(), found, allowed })
    };
    match (&decl.default, value) {
        (Value::Num(_), Value::Num(x)) if !decl.domain.contains(*x) => wrong(format!("{x}"), decl.domain.to_string()),
        (Value::Num(_), Value::Num(x)) => match kernels_see(*x) {
            true => Ok(()),
            false => wrong(format!("{x:e}"), format!("{}, and {KERNEL_NUMBERS}", decl.domain)),
        },
        (Value::Index(_), Value::Index(_)) | (Value::Flag(_), Value::Flag(_)) => Ok(()),
        (Value::Num(_), other) => wrong(format!("{other:?}"), "a number".to_owned()),
        (Value::Index(_), other) => wrong(format!("{other:?}"), "a class index, or none".to_owned()),
        (Value::Flag(_), other) => wrong(format!("{other:?}"), "true or false".to_owned()),
        (Value::ClassAxis(_), _) => wrong(format!("{value:?}"), "no option of a definition".to_owned()),
    }
}
