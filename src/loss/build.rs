//! What the expression of a loss is made from, and what it comes to.

use super::declaration::{InputSpec, Value};
use crate::expr::{Expr, Graph};
use std::collections::BTreeMap;

/// What `Mean` divides the sum of a loss by.
#[derive(Clone, Copy, Debug)]
pub enum Denominator<'g> {
    /// The number of losses: elements, or rows. A loss that is one number already is not divided.
    Count,
    /// The sum of this over everything (Σ weight, valid rows).
    Sum(Expr<'g>),
}

/// The expression of a loss before its reduction.
#[derive(Clone, Copy, Debug)]
pub struct Unreduced<'g> {
    /// One value an element, a row, or in all.
    pub value: Expr<'g>,
    /// What `Mean` divides by.
    pub denominator: Denominator<'g>,
}

impl<'g> From<Expr<'g>> for Unreduced<'g> {
    fn from(value: Expr<'g>) -> Unreduced<'g> {
        Unreduced { value, denominator: Denominator::Count }
    }
}

/// What the expression of a loss is made from.
pub struct Build<'g> {
    pub(super) graph: &'g Graph,
    /// Name of the loss.
    pub(super) loss: &'g str,
    pub(super) inputs: &'g [InputSpec],
    /// Options by name.
    pub(super) values: &'g BTreeMap<String, Value>,
    /// Stands before the names of parameters.
    pub(super) prefix: String,
    /// Which inputs are there and, for class indices, whether they are unsigned.
    pub(super) present: &'g dyn Fn(&str) -> Option<bool>,
}

impl<'g> Build<'g> {
    /// The graph, for constants, counts and `col_index`.
    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    fn spec(&self, name: &str) -> &'g InputSpec {
        let known = self.inputs.iter().find(|i| i.name == name);
        known.unwrap_or_else(|| panic!("loss {} asks for an input `{name}` that it does not declare", self.loss))
    }

    /// An input that is always there.
    pub fn input(&self, name: &str) -> Expr<'g> {
        let spec = self.spec(name);
        self.graph.input(name, spec.scope, spec.kind)
    }

    /// An input that may be absent.
    pub fn optional(&self, name: &str) -> Option<Expr<'g>> {
        (self.present)(name).map(|_| self.input(name))
    }

    /// Whether `label` is that class index. A negative index equals no unsigned label.
    pub fn label_is(&self, label: &str, index: i64) -> Expr<'g> {
        let unsigned = (self.present)(label).unwrap_or(false);
        let fits = if unsigned { u32::try_from(index).is_ok() } else { i32::try_from(index).is_ok() };
        if fits { self.input(label).equals(self.graph.index(index)) } else { self.graph.truth(false) }
    }

    fn value_of(&self, name: &str) -> Value {
        let found = self.values.get(name);
        *found.unwrap_or_else(|| panic!("loss {} asks for an option `{name}` that it does not declare", self.loss))
    }

    /// A number as a uniform.
    pub fn param(&self, name: &str) -> Expr<'g> {
        self.graph.param(&format!("{}{name}", self.prefix), self.value(name))
    }

    /// A number as it is when the plan is made: to select the expression by, not to compute with.
    pub fn value(&self, name: &str) -> f64 {
        match self.value_of(name) {
            Value::Num(value) => value,
            other => panic!("option `{name}` is {other:?}, not a number"),
        }
    }

    /// A class index.
    pub fn index(&self, name: &str) -> Option<i64> {
        match self.value_of(name) {
            Value::Index(value) => value,
            other => panic!("option `{name}` is {other:?}, not an index"),
        }
    }

    /// A switch.
    pub fn flag(&self, name: &str) -> bool {
        match self.value_of(name) {
            Value::Flag(value) => value,
            other => panic!("option `{name}` is {other:?}, not a switch"),
        }
    }
}
