//! The context in which the expression of a loss is built, and its result before the reduction.

use super::declaration::{InputSpec, Value};
use super::given::Names;
use crate::error::Error;
use crate::expr::op::Kind;
use crate::expr::{Expr, Graph, IntoExpr};
use crate::shape::Scope;
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// The denominator of `Mean`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Denominator<'g> {
    /// The number of loss values: elements, or rows. A loss that is one number already is not divided.
    Count,
    /// As `Count`, but 1 where a `mask` leaves out every value: the mean of no value is then 0, not 0/0.
    CountOrOne,
    /// The sum of this over everything (Σ weight, valid rows).
    Sum(Expr<'g>),
    /// This number itself: an option, a sum over everything.
    Total(Expr<'g>),
}

/// The expression of a loss before its reduction.
#[derive(Clone, Copy, Debug)]
pub struct Unreduced<'g> {
    /// One value per element, per row, or in all.
    pub value: Expr<'g>,
    /// The denominator of `Mean`.
    pub denominator: Denominator<'g>,
}

impl<'g> From<Expr<'g>> for Unreduced<'g> {
    fn from(value: Expr<'g>) -> Unreduced<'g> {
        Unreduced { value, denominator: Denominator::Count }
    }
}

impl<'g> Unreduced<'g> {
    /// The same as expressions of this graph; an expression of another graph is a mistake of the loss.
    pub(super) fn within(self, graph: &'g Graph) -> Unreduced<'g> {
        let denominator = match self.denominator {
            Denominator::Count => Denominator::Count,
            Denominator::CountOrOne => Denominator::CountOrOne,
            Denominator::Sum(x) => Denominator::Sum(x.into_expr(graph)),
            Denominator::Total(x) => Denominator::Total(x.into_expr(graph)),
        };
        Unreduced { value: self.value.into_expr(graph), denominator }
    }
}

/// The inputs and options from which the expression of a loss is built.
///
/// A name that the loss does not declare, or an option of another type, comes back as an error when the loss is
/// planned; until then an arbitrary value stands for it.
pub struct Build<'g> {
    pub(super) graph: &'g Graph,
    /// Name of the loss.
    pub(super) loss: &'g str,
    pub(super) inputs: &'g [InputSpec],
    /// Names that the inputs go by.
    pub(super) names: &'g Names,
    /// Options by name.
    pub(super) values: &'g BTreeMap<String, Value>,
    /// Prefix of parameter names.
    pub(super) prefix: String,
    /// `None` for an absent input, else whether it is an unsigned label.
    pub(super) present: &'g dyn Fn(&str) -> Option<bool>,
    /// The first mistake.
    pub(super) fault: OnceCell<Error>,
}

/// A numeric option.
enum Number<'g> {
    Known(f64),
    /// The name of the scalar on the GPU.
    Scalar(&'g str),
}

impl<'g> Build<'g> {
    /// The graph, for constants, counts and `col_index`.
    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// A required input, by the name that the loss declares: [`Loss::rename_input`](crate::Loss::rename_input) does not
    /// change it here.
    pub fn input(&self, name: &str) -> Expr<'g> {
        match self.inputs.iter().find(|i| i.name == name) {
            Some(spec) => self.graph.input(self.names.given(name), spec.scope, spec.kind),
            None => {
                let known = self.inputs.iter().map(|i| i.name.as_str());
                self.undeclared("input", name, known);
                self.graph.constant(f64::NAN)
            }
        }
    }

    /// An input that may be absent.
    pub fn optional(&self, name: &str) -> Option<Expr<'g>> {
        (self.present)(self.names.given(name)).map(|_| self.input(name))
    }

    /// Whether `label` is that class index. A negative index equals no unsigned label.
    pub fn label_is(&self, label: &str, index: i64) -> Expr<'g> {
        let input = self.input(label);
        if self.fits(label, index) { input.equals(self.graph.index(index)) } else { self.graph.truth(false) }
    }

    /// Whether `label` is the class index of that option, a uniform. `None` if the option is none, or the label's type
    /// cannot hold the index.
    ///
    /// ```
    /// use wgloss::{Loss, RowAxis, Scope};
    /// let loss = Loss::define("picked")
    ///     .input("input", Scope::Element)
    ///     .label("target")
    ///     .row_axis(RowAxis::Class)
    ///     .index("ignore_index", Some(-100))
    ///     .expr(|b| {
    ///         let picked = b.input("input").at(b.input("target"));
    ///         b.label_is_option("target", "ignore_index").map_or(picked, |ignored| picked.masked(!ignored))
    ///     });
    /// let loss = loss.option("ignore_index", 3);
    /// # loss.check().unwrap();
    /// ```
    pub fn label_is_option(&self, label: &str, option: &str) -> Option<Expr<'g>> {
        let index = self.index(option).filter(|index| self.fits(label, *index))?;
        Some(self.input(label).equals(self.graph.index_param(&format!("{}{option}", self.prefix), index)))
    }

    /// Whether the label's type can hold that index.
    fn fits(&self, label: &str, index: i64) -> bool {
        let unsigned = (self.present)(self.names.given(label)).unwrap_or(false);
        if unsigned { u32::try_from(index).is_ok() } else { i32::try_from(index).is_ok() }
    }

    /// A numeric option as a uniform, or as the scalar on the GPU that it was given as.
    pub fn param(&self, name: &str) -> Expr<'g> {
        match self.number(name) {
            Some(Number::Known(x)) => self.graph.param(&format!("{}{name}", self.prefix), x),
            Some(Number::Scalar(input)) => self.graph.input(input, Scope::Scalar, Kind::Float),
            None => self.graph.constant(f64::NAN),
        }
    }

    /// A number's value when the plan is made: to choose the expression with, not to compute with. `None` where it is a
    /// scalar on the GPU: the expression must then be right for every value.
    pub fn value(&self, name: &str) -> Option<f64> {
        match self.number(name)? {
            Number::Known(x) => Some(x),
            Number::Scalar(_) => None,
        }
    }

    fn number(&self, name: &str) -> Option<Number<'g>> {
        let number = |value: &'g Value| match value {
            Value::Num(x) => Some(Number::Known(*x)),
            Value::Scalar(input) => Some(Number::Scalar(input)),
            _ => None,
        };
        self.option(name, "a number", number)
    }

    /// A class index when the plan is made, as [`Build::value`]. To compare labels with it, use
    /// [`Build::label_is_option`].
    pub fn index(&self, name: &str) -> Option<i64> {
        let index = |value: &Value| if let Value::Index(index) = value { Some(*index) } else { None };
        self.option(name, "a class index", index).flatten()
    }

    /// A switch.
    pub fn flag(&self, name: &str) -> bool {
        let flag = |value: &Value| if let Value::Flag(yes) = value { Some(*yes) } else { None };
        self.option(name, "a switch", flag).unwrap_or(false)
    }

    /// One of the words that the option allows.
    pub fn word(&self, name: &str) -> &'static str {
        let word = |value: &Value| if let Value::Word(word) = value { Some(*word) } else { None };
        self.option(name, "a word", word).unwrap_or("")
    }

    /// The value of an option; a fault if the loss has no such option, or one of another type.
    fn option<T>(&self, name: &str, wanted: &str, get: impl Fn(&'g Value) -> Option<T>) -> Option<T> {
        let Some(value) = self.values.get(name) else {
            self.undeclared("option", name, self.values.keys().map(String::as_str));
            return None;
        };
        let found = get(value);
        if found.is_none() {
            let message = format!("asks for {wanted} of the option `{name}`, which is {value:?}");
            self.fault.get_or_init(|| Error::Expr { loss: self.loss.to_owned(), message });
        }
        found
    }

    fn undeclared<'n>(&self, what: &str, name: &str, known: impl Iterator<Item = &'n str>) {
        let known = known.collect::<Vec<_>>().join(", ");
        let what = format!("{} declares no {what}", self.loss);
        self.fault.get_or_init(|| Error::Name { what, name: name.to_owned(), known });
    }
}
