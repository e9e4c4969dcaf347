//! The terms of a loss: definitions, each with the values of its options, its weight and its reduction.

use super::build::Build;
use super::declaration::{InputSpec, Value};
use super::definition::Definition;
use super::given::Names;
use super::reduction::Reduction;
use crate::expr::op::Kind;
use crate::expr::{Expr, Graph};
use crate::shape::{RowAxis, Scope};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A scalar on the GPU that multiplies a term.
#[derive(Clone, Debug)]
pub(super) enum Scale {
    /// The input of this name.
    Factor(String),
    /// exp(−s) of the input s of this name: a precision, of which s is the logarithm of the variance.
    Precision(String),
}

impl Scale {
    pub(super) fn input(&self) -> &String {
        let (Scale::Factor(input) | Scale::Precision(input)) = self;
        input
    }

    pub(super) fn input_mut(&mut self) -> &mut String {
        let (Scale::Factor(input) | Scale::Precision(input)) = self;
        input
    }

    pub(super) fn factor<'g>(&self, graph: &'g Graph) -> Expr<'g> {
        let input = graph.input(self.input(), Scope::Scalar, Kind::Float);
        match self {
            Scale::Factor(_) => input,
            Scale::Precision(_) => (-input).exp(),
        }
    }
}

/// One summand: a definition with the values of its options.
#[derive(Clone)]
pub(super) struct Term {
    pub(super) weight: f64,
    /// Scalars on the GPU that multiply it.
    pub(super) scales: Vec<Scale>,
    pub(super) definition: Arc<Definition>,
    pub(super) names: Names,
    /// Names of inputs that it has not, as part of a loss over several shapes.
    pub(super) hidden: Vec<String>,
    pub(super) values: BTreeMap<String, Value>,
    pub(super) reduction: Reduction,
    /// The axes that make a row: those of the definition, until others are set.
    pub(super) row_axis: RowAxis,
    /// Whether predictions and targets broadcast.
    pub(super) broadcast: bool,
}

impl Term {
    /// The inputs that its definition declares, and its scalars on the GPU.
    pub(super) fn inputs(&self) -> Vec<InputSpec> {
        let given = |input: InputSpec| InputSpec { name: self.names.given(&input.name).to_owned(), ..input };
        let scalar = |name: &String| InputSpec::required(name, Scope::Scalar, Kind::Float);
        let divisor = if let Reduction::By(name) = &self.reduction { Some(name) } else { None };
        let options = self.option_scalars().map(|(_, name)| name);
        let scalars = options.chain(self.scales.iter().map(Scale::input)).chain(divisor).map(scalar);
        let is_shown = |input: &InputSpec| !self.hidden.contains(&input.name);
        self.shaped_inputs().map(given).chain(scalars).filter(is_shown).collect()
    }

    /// Options that are scalars on the GPU: the name of each, and of the input.
    pub(super) fn option_scalars(&self) -> impl Iterator<Item = (&String, &String)> {
        self.values.iter().filter_map(|(option, value)| match value {
            Value::Scalar(input) => Some((option, input)),
            _ => None,
        })
    }

    /// The context of its expression.
    pub(super) fn build<'g>(
        &'g self,
        graph: &'g Graph,
        prefix: String,
        present: &'g dyn Fn(&str) -> Option<bool>,
    ) -> Build<'g> {
        let Definition { name: loss, inputs, .. } = &*self.definition;
        let Term { names, values, .. } = self;
        Build { graph, loss, inputs, names, values, prefix, present, fault: OnceCell::new() }
    }
}
