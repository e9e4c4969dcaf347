//! Declarations of a loss: its inputs, its options and their domains.

use super::given::{MASK, SAMPLE_WEIGHT, UPSTREAM};
use crate::error::{Error, Result};
use crate::expr::op::Kind;
use crate::shape::{KERNEL_NUMBERS, RowAxis, Scope, ShapeRule, kernels_see};
use std::fmt;

/// Domain of a number. NaN is in none, ∞ only where it says so.
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
    /// 0 ≤ x < 1/2: a rate of errors that can be corrected.
    BelowHalf,
    /// In the unit interval, or −1 (which turns it off).
    UnitOrOff,
    /// 1 or 2: the power of a norm.
    OneOrTwo,
    /// A whole number from 1 to 64, the number of terms of a series: each is another formula, so that it is a number and
    /// no scalar on the GPU, and a plan keeps it.
    Order,
    /// A whole number from 1 to 2³¹ − 1, the rank of an element among those of a row: a formula of its own as [`Domain::Order`]
    /// is.
    Rank,
    /// Between the two, neither of which is inside.
    Between(f64, f64),
    /// Above 0, +∞ too. Where the option is +∞ the formula is another: it is
    /// [structural](crate::loss::DefinitionBuilder::structural_param) there.
    PositiveOrInfinite,
    /// Finite, or −∞, where it is structural.
    FiniteOrMinusInfinite,
}

impl Domain {
    /// Whether each number is another formula.
    pub fn is_of_formula(self) -> bool {
        matches!(self, Domain::Order | Domain::Rank)
    }

    /// Whether a number is inside.
    pub fn contains(self, x: f64) -> bool {
        let has_limit = match self {
            Domain::PositiveOrInfinite => x == f64::INFINITY,
            Domain::FiniteOrMinusInfinite => x == f64::NEG_INFINITY,
            _ => false,
        };
        has_limit
            || x.is_finite()
                && match self {
                    Domain::Finite | Domain::FiniteOrMinusInfinite => true,
                    Domain::PositiveOrInfinite => x > 0.0,
                    Domain::Between(low, high) => low < x && x < high,
                    Domain::Positive => x > 0.0,
                    Domain::Order => x.fract() == 0.0 && (1.0..=64.0).contains(&x),
                    Domain::Rank => x.fract() == 0.0 && (1.0..=f64::from(i32::MAX)).contains(&x),
                    Domain::OneOrTwo => x == 1.0 || x == 2.0,
                    Domain::BelowHalf => (0.0..0.5).contains(&x),
                    Domain::NonNegative => x >= 0.0,
                    Domain::Unit => (0.0..=1.0).contains(&x),
                    Domain::UnitOrOff => x == -1.0 || (0.0..=1.0).contains(&x),
                }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Domain::Between(low, high) => return write!(f, "between {low} and {high}, neither included"),
            Domain::PositiveOrInfinite => "> 0, or inf",
            Domain::FiniteOrMinusInfinite => "finite, or -inf",
            Domain::Finite => "finite",
            Domain::Positive => "finite and > 0",
            Domain::NonNegative => "finite and >= 0",
            Domain::Unit => "in [0, 1]",
            Domain::OneOrTwo => "1 or 2",
            Domain::Order => "a whole number from 1 to 64",
            Domain::Rank => "a whole number from 1 to 2147483647",
            Domain::BelowHalf => "in [0, 0.5)",
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
    /// Instead of a number, a scalar on the GPU: the input of this name. See [`ParamValue::Scalar`].
    Scalar(String),
    /// A class index, or none. An index is a uniform of the kernel, changeable by `set_param`; none is another kernel.
    Index(Option<i64>),
    /// A switch; it selects the expression.
    Flag(bool),
    /// One of the words that the option allows; it selects the expression. Any text sets it: `.option("loss_type", "dapo")`.
    Word(&'static str),
    /// The value of `class_axis`, which every loss over classes has.
    ClassAxis(ClassAxis),
    /// The value of `row_axis`, which every loss with rows has.
    RowAxis(RowAxis),
}

impl From<ClassAxis> for Value {
    fn from(axis: ClassAxis) -> Value {
        Value::ClassAxis(axis)
    }
}

impl From<RowAxis> for Value {
    fn from(axis: RowAxis) -> Value {
        Value::RowAxis(axis)
    }
}

impl From<ParamValue> for Value {
    fn from(value: ParamValue) -> Value {
        match value {
            ParamValue::Number(x) => Value::Num(x),
            ParamValue::Scalar(input) => Value::Scalar(input),
        }
    }
}

impl From<f64> for Value {
    fn from(x: f64) -> Value {
        Value::Num(x)
    }
}

impl From<&str> for Value {
    fn from(input: &str) -> Value {
        Value::Scalar(input.to_owned())
    }
}

impl From<String> for Value {
    fn from(input: String) -> Value {
        Value::Scalar(input)
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

/// Value of a numeric option, as the setters of the catalogue's losses take it, or of a factor of a loss: a number, or
/// the name of a scalar on the GPU.
///
/// ```
/// use wgloss::{HostTensor, ParamValue, cpu, losses};
/// assert_eq!(ParamValue::from(0.5f32), ParamValue::Number(0.5));
/// let loss = losses::huber(0.5);      // a number becomes one by itself
///
/// // A learned temperature: an input that may change every step, and has a gradient.
/// let loss = losses::cross_entropy().temperature("t");
/// let (x, y) = (HostTensor::f32(&[2.0, 0.0], &[1, 2]), HostTensor::i32(&[0], &[1]));
/// let inputs = [("input", x), ("target", y), ("t", HostTensor::f32(&[2.0], &[]))];
/// let out = cpu::forward_backward(&loss, &inputs, &["input", "t"])?;
/// let q = 1.0 / (1.0 + 1f64.exp());       // probability of the other class
/// assert!((out.loss()? + (1.0 - q).ln()).abs() < 1e-12);
/// assert!((out.grad("t")?[0] - q / 2.0).abs() < 1e-12);
/// # Ok::<(), wgloss::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ParamValue {
    /// A number: a uniform of the kernel, changeable by `set_param`.
    Number(f64),
    /// A scalar on the GPU, the input of this name: bound like any other, so that it may change every step without host
    /// work, and with a gradient that may be asked for. What it holds is not checked: outside the option's domain, the
    /// formula says what comes of it.
    ///
    /// The plan is made for any value. A value that turns something off by another formula (a `softcap` of 0, a focal
    /// `alpha` of −1, `jsd`'s β of 0 and 1) cannot be given so: it needs a plan of its own, with the number.
    Scalar(String),
}

impl From<&str> for ParamValue {
    fn from(input: &str) -> ParamValue {
        ParamValue::Scalar(input.to_owned())
    }
}

impl From<String> for ParamValue {
    fn from(input: String) -> ParamValue {
        ParamValue::Scalar(input)
    }
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

/// The axis of the scores that holds the classes: `[N, C, d1, …]`, `[N, d1, …, C]`, or any. Labels have the other axes.
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
    /// The axis of this index, from 0: Keras's `axis`.
    At(usize),
}

impl ClassAxis {
    /// The axis that makes a row of a loss over classes.
    pub(super) fn row_axis(self) -> RowAxis {
        match self {
            ClassAxis::One => RowAxis::Class,
            ClassAxis::Last => RowAxis::Last,
            ClassAxis::At(axis) => RowAxis::At(axis),
        }
    }
}

/// Names of options that a definition does not declare: every loss has the first, every loss with rows the second too,
/// every loss over classes the third, every loss with rows along the last axis the fourth.
pub(super) const SHAPE_OPTIONS: [&str; 4] = ["broadcast", "row_axis", "class_axis", "axis"];

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
    /// Numbers at which the formula is another (softcap 0: none): only a plan made at one has it, and no other value.
    pub structural: Vec<f64>,
    /// Numbers at which the formula is simpler (smoothing 0, γ = 2): a plan made at one has a faster kernel, and no
    /// other value; `set_param` may take any other plan there.
    pub special: Vec<f64>,
    /// The words it may be, where its values are words.
    pub words: &'static [&'static str],
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

/// Why the scalar on the GPU may not go by that name; `None` if it may.
pub(super) fn refused_scalar(name: &str) -> Option<String> {
    let reserved = [SAMPLE_WEIGHT, MASK, UPSTREAM];
    let is_taken = name.is_empty() || reserved.contains(&name);
    is_taken.then(|| format!("a number, or the name of a scalar input other than {}", reserved.join(", ")))
}

impl OptionDecl {
    /// The values that a plan made with `made` may have instead of `value`; `None` if it may have that one.
    pub(crate) fn refused_change(&self, made: &Value, value: f64) -> Option<String> {
        let again = format!("plan again with {} = {value}", self.name);
        match made {
            Value::Scalar(input) => Some(format!("written to the scalar input `{input}`, which the plan reads")),
            Value::Num(made) if *made == value => None,
            Value::Num(made) if self.domain.is_of_formula() => {
                Some(format!("{made}, of which it is the formula; plan again with {} = {value}", self.name))
            }
            Value::Num(made) if self.structural.contains(made) || self.special.contains(made) => {
                Some(format!("{made}, for which this plan has a kernel of its own; {again}"))
            }
            _ if self.structural.contains(&value) => {
                Some(format!("other than {value}, which is another formula; {again}"))
            }
            _ => None,
        }
    }
}

/// The value as the option keeps it: text that is one of its words is that word, not the name of a scalar.
pub(super) fn kept(decl: &OptionDecl, value: &Value) -> Value {
    match value {
        Value::Scalar(text) => match decl.words.iter().find(|word| *word == text) {
            Some(word) => Value::Word(word),
            None => value.clone(),
        },
        _ => value.clone(),
    }
}

/// An error unless the option takes this value.
pub(crate) fn check_option(loss: &str, decl: &OptionDecl, value: &Value) -> Result<()> {
    let wrong = |found: String, allowed: String| {
        Err(Error::Param { loss: loss.to_owned(), param: decl.name.clone(), found, allowed })
    };
    match (&decl.default, value) {
        (Value::Num(_), Value::Num(x)) if !decl.domain.contains(*x) => wrong(format!("{x}"), decl.domain.to_string()),
        (Value::Num(_), Value::Num(x)) => match kernels_see(*x) || x.is_infinite() {
            true => Ok(()),
            false => wrong(format!("{x:e}"), format!("{}, and {KERNEL_NUMBERS}", decl.domain)),
        },
        (Value::Num(_), Value::Scalar(name)) if decl.domain.is_of_formula() => {
            wrong(format!("the scalar `{name}`"), decl.domain.to_string())
        }
        (Value::Num(_), Value::Scalar(name)) => match refused_scalar(name) {
            None => Ok(()),
            Some(allowed) => wrong(format!("the scalar `{name}`"), allowed),
        },
        (Value::Index(_), Value::Index(_)) | (Value::Flag(_), Value::Flag(_)) => Ok(()),
        (Value::Word(_), Value::Word(word)) if decl.words.contains(word) => Ok(()),
        (Value::Word(_), other) => {
            let found = match other {
                Value::Word(text) => (*text).to_owned(),
                Value::Scalar(text) => text.clone(),
                other => format!("{other:?}"),
            };
            wrong(found, format!("one of {}", decl.words.join(", ")))
        }
        (_, other) if matches!(decl.default, Value::Num(_) | Value::Scalar(_)) => {
            wrong(format!("{other:?}"), "a number, or the name of a scalar".to_owned())
        }
        (Value::Index(_), other) => wrong(format!("{other:?}"), "a class index, or none".to_owned()),
        (Value::ClassAxis(_) | Value::RowAxis(_), _) => {
            wrong(format!("{value:?}"), "no option of a definition".to_owned())
        }
        (_, other) => wrong(format!("{other:?}"), "true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_infinity_is_in_the_domains_that_say_so_alone() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        let unlimited =
            [Domain::PositiveOrInfinite, Domain::FiniteOrMinusInfinite].map(|d| [d.contains(inf), d.contains(-inf)]);
        assert_eq!(unlimited, [[true, false], [false, true]]);
        for domain in [Domain::Finite, Domain::Positive, Domain::NonNegative, Domain::Unit, Domain::Between(1.0, 2.0)] {
            assert!(![inf, -inf, nan].into_iter().any(|x| domain.contains(x)), "{domain}");
        }
        assert_eq!([1.0, 1.5, 2.0].map(|x| Domain::Between(1.0, 2.0).contains(x)), [false, true, false]);
        let of = |domain: Domain, value: f64| {
            let decl = OptionDecl {
                name: "p".into(),
                default: Value::Num(1.5),
                domain,
                structural: vec![inf],
                special: vec![],
                words: &[],
            };
            check_option("mine", &decl, &Value::Num(value)).map_err(|error| error.to_string())
        };
        assert_eq!(of(Domain::PositiveOrInfinite, inf), Ok(()));
        assert_eq!(of(Domain::PositiveOrInfinite, 0.0).unwrap_err(), "p = 0 for mine; must be > 0, or inf");
        assert_eq!(
            of(Domain::Between(1.0, 2.0), 2.0).unwrap_err(),
            "p = 2 for mine; must be between 1 and 2, neither included"
        );
        assert_eq!(of(Domain::FiniteOrMinusInfinite, inf).unwrap_err(), "p = inf for mine; must be finite, or -inf");
        assert!(of(Domain::PositiveOrInfinite, 1e-50).is_err(), "kernels would see 0");
    }
}
