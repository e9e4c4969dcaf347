//! A loss: named inputs, options with domains, an expression, and how it is reduced.
//!
//! A [`Loss`] is a weighted sum of terms. Each term is a [`Definition`] (shared, immutable) with the values of its
//! options and its reduction. `Loss::build` turns it into expressions for one problem.

use crate::error::{Error, Result};
use crate::expr::{Expr, Extent, Graph, Node, Scope};
use crate::op::Kind;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// How per-sample losses become one number, and what `Mean` divides by.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reduction {
    /// Not at all: one loss an element, or a row.
    None,
    /// The sum.
    Sum,
    /// The sum divided by what the library whose name the loss carries divides by (elements, rows, Σ weight,
    /// Σ weight\[label\], valid rows); with a `mask`, over what it keeps.
    #[default]
    Mean,
    /// The sum divided by the size of the first axis.
    BatchMean,
    /// The sum divided by Σ `sample_weight`.
    MeanWithSampleWeight,
    /// The sum divided by the number of losses above zero. Needs the losses before the gradient: one more trip.
    MeanOverPositive,
    /// The sum divided by a scalar on the GPU, an input of this name (a global token count, say).
    By(String),
}

/// Which axis of the first input makes a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum RowAxis {
    /// There are no rows: elements stand alone.
    #[default]
    None,
    /// Axis 1 of `[N, C, d1, …]`; of `[C]`, axis 0.
    Class,
    /// The last axis.
    Last,
}

/// Values that a number may take. NaN and ∞ are in none of them.
#[derive(Clone, Copy, Debug, PartialEq)]
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number: a uniform of the kernel, changeable by `set_param`.
    Num(f64),
    /// A class index, or none.
    Index(Option<i64>),
    /// A switch; it selects the expression.
    Flag(bool),
}

/// An option of a loss.
#[derive(Clone, Debug, PartialEq)]
pub struct OptionDecl {
    /// Its name, as in the library that the loss comes from.
    pub name: String,
    /// Its value where none is given.
    pub default: Value,
    /// The numbers it may be.
    pub domain: Domain,
    /// Numbers at which the expression itself is another (smoothing 0, γ = 2): `set_param` may not cross them.
    pub structural: Vec<f64>,
}

/// An input of a loss.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    /// Its name, as in the library that the loss comes from.
    pub name: String,
    /// How many values it has.
    pub scope: Scope,
    /// Numbers or class indices.
    pub kind: Kind,
    /// Whether it may be absent.
    pub optional: bool,
}

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

type BuildFn = dyn for<'g> Fn(&Build<'g>) -> Unreduced<'g> + Send + Sync;

/// What a loss is, apart from the values of its options.
pub struct Definition {
    name: String,
    row_axis: RowAxis,
    inputs: Vec<InputSpec>,
    options: Vec<OptionDecl>,
    build: Box<BuildFn>,
}

/// Writes a [`Definition`]: see [`Loss::define`].
pub struct DefinitionBuilder {
    name: String,
    row_axis: RowAxis,
    inputs: Vec<InputSpec>,
    options: Vec<OptionDecl>,
}

impl DefinitionBuilder {
    fn with_input(mut self, name: &str, scope: Scope, kind: Kind, optional: bool) -> Self {
        self.inputs.push(InputSpec { name: name.to_owned(), scope, kind, optional });
        self
    }

    /// An input of numbers.
    pub fn input(self, name: &str, scope: Scope) -> Self {
        self.with_input(name, scope, Kind::Float, false)
    }

    /// An input of numbers that may be absent.
    pub fn optional(self, name: &str, scope: Scope) -> Self {
        self.with_input(name, scope, Kind::Float, true)
    }

    /// One class index a row.
    pub fn label(self, name: &str) -> Self {
        self.with_input(name, Scope::Row, Kind::Int, false)
    }

    /// Which axis makes a row. Needed for row reductions.
    pub fn row_axis(mut self, row_axis: RowAxis) -> Self {
        self.row_axis = row_axis;
        self
    }

    fn with_option(mut self, name: &str, default: Value, domain: Domain, structural: &[f64]) -> Self {
        self.options.push(OptionDecl { name: name.to_owned(), default, domain, structural: structural.to_vec() });
        self
    }

    /// A number: a uniform of the kernel.
    pub fn param(self, name: &str, default: f64, domain: Domain) -> Self {
        self.with_option(name, Value::Num(default), domain, &[])
    }

    /// A number at some values of which the expression is another one.
    pub fn structural_param(self, name: &str, default: f64, domain: Domain, at: &[f64]) -> Self {
        self.with_option(name, Value::Num(default), domain, at)
    }

    /// A class index, or none.
    pub fn index(self, name: &str, default: Option<i64>) -> Self {
        self.with_option(name, Value::Index(default), Domain::Finite, &[])
    }

    /// A switch.
    pub fn flag(self, name: &str, default: bool) -> Self {
        self.with_option(name, Value::Flag(default), Domain::Finite, &[])
    }

    /// The expression, and with it the loss.
    pub fn expr<F>(self, build: F) -> Loss
    where
        F: for<'g> Fn(&Build<'g>) -> Expr<'g> + Send + Sync + 'static,
    {
        self.unreduced(move |b| build(b).into())
    }

    /// The expression together with what its mean divides by.
    pub fn unreduced<F>(self, build: F) -> Loss
    where
        F: for<'g> Fn(&Build<'g>) -> Unreduced<'g> + Send + Sync + 'static,
    {
        let DefinitionBuilder { name, row_axis, inputs, options } = self;
        let values = options.iter().map(|o| (o.name.clone(), o.default)).collect();
        let definition = Definition { name, row_axis, inputs, options, build: Box::new(build) };
        let term =
            Term { weight: 1.0, scale: None, definition: Arc::new(definition), values, reduction: Reduction::Mean };
        Loss { terms: vec![term], fault: None }
    }
}

/// What the expression of a loss is made from.
pub struct Build<'g> {
    graph: &'g Graph,
    term: &'g Term,
    prefix: String,
    present: &'g dyn Fn(&str) -> Option<bool>,
}

impl<'g> Build<'g> {
    /// The graph, for constants, counts and `col_index`.
    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    fn spec(&self, name: &str) -> &'g InputSpec {
        let known = self.term.definition.inputs.iter().find(|i| i.name == name);
        known.unwrap_or_else(|| {
            panic!("loss {} asks for an input `{name}` that it does not declare", self.term.definition.name)
        })
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
        let found = self.term.values.get(name);
        *found.unwrap_or_else(|| {
            panic!("loss {} asks for an option `{name}` that it does not declare", self.term.definition.name)
        })
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

#[derive(Clone)]
struct Term {
    weight: f64,
    scale: Option<String>,
    definition: Arc<Definition>,
    values: BTreeMap<String, Value>,
    reduction: Reduction,
}

/// A loss function: a catalogue entry with its options, a loss of your own, or a weighted sum of such.
///
/// ```
/// use wgloss::{Loss, Scope, losses};
/// let composite = 0.7 * losses::mse() + 0.3 * losses::l1();        // one kernel
/// let mine = Loss::define("exp_square")
///     .input("input", Scope::Element)
///     .input("target", Scope::Element)
///     .expr(|b| {
///         let e = (b.input("target") - b.input("input")).expm1();
///         e * e
///     });
/// assert_eq!(mine.name(), "exp_square");
/// assert_eq!(composite.name(), "0.7*mse + 0.3*l1");
/// ```
#[derive(Clone)]
pub struct Loss {
    terms: Vec<Term>,
    fault: Option<Error>,
}

impl fmt::Debug for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loss").field("name", &self.name()).field("fault", &self.fault).finish_non_exhaustive()
    }
}

/// The expressions of a loss for one problem.
pub(crate) struct Built<'g> {
    /// The loss in the shape that the reduction gives.
    pub loss: Expr<'g>,
    /// The denominator of the first term, where it has one.
    pub denominator: Option<Expr<'g>>,
}

/// Names that every loss takes, loss-shaped: a weight for each loss, and a mask (0 leaves a loss out).
pub const SAMPLE_WEIGHT: &str = "sample_weight";
/// See [`SAMPLE_WEIGHT`].
pub const MASK: &str = "mask";

impl Loss {
    /// Begins a loss of your own.
    pub fn define(name: &str) -> DefinitionBuilder {
        DefinitionBuilder { name: name.to_owned(), row_axis: RowAxis::None, inputs: Vec::new(), options: Vec::new() }
    }

    /// Its name; of a weighted sum, the sum.
    pub fn name(&self) -> String {
        let term = |t: &Term| {
            let mut name = t.definition.name.clone();
            if let Some(scale) = &t.scale {
                name = format!("{scale}*{name}");
            }
            if t.weight == 1.0 { name } else { format!("{}*{name}", t.weight) }
        };
        self.terms.iter().map(term).collect::<Vec<_>>().join(" + ")
    }

    /// The inputs it takes, without repetition.
    pub fn inputs(&self) -> Vec<InputSpec> {
        let mut all: Vec<InputSpec> = Vec::new();
        for term in &self.terms {
            let scalars =
                [term.scale.as_ref(), if let Reduction::By(name) = &term.reduction { Some(name) } else { None }];
            let scalar = |name: &String| InputSpec {
                name: name.clone(),
                scope: Scope::Scalar,
                kind: Kind::Float,
                optional: false,
            };
            for input in term.definition.inputs.iter().cloned().chain(scalars.into_iter().flatten().map(scalar)) {
                if !all.iter().any(|known| known.name == input.name) {
                    all.push(input);
                }
            }
        }
        all
    }

    /// The input that gradients are usually taken of: the prediction. Keras's losses name the target first.
    pub fn differentiable(&self) -> Option<String> {
        let inputs = self.inputs();
        let predicted = inputs.iter().find(|i| i.name == "y_pred");
        let first = || inputs.iter().find(|i| i.kind == Kind::Float && i.scope == Scope::Element);
        predicted.or_else(first).map(|i| i.name.clone())
    }

    /// The options of its first term.
    pub fn options(&self) -> &[OptionDecl] {
        &self.terms[0].definition.options
    }

    /// The axis that makes a row.
    pub fn row_axis(&self) -> RowAxis {
        self.terms.iter().map(|t| t.definition.row_axis).find(|a| *a != RowAxis::None).unwrap_or_default()
    }

    /// The reduction of its first term.
    pub fn reduced_by(&self) -> &Reduction {
        &self.terms[0].reduction
    }

    /// Sets the reduction (of every term).
    #[must_use]
    pub fn reduction(mut self, reduction: Reduction) -> Loss {
        for term in &mut self.terms {
            term.reduction = reduction.clone();
        }
        self
    }

    /// Multiplies by a scalar on the GPU, an input of this name: a task weight that may change every step.
    #[must_use]
    pub fn scaled_by(mut self, input: &str) -> Loss {
        for term in &mut self.terms {
            if let Some(known) = &term.scale {
                let message = format!("scaled by `{known}` already; multiply the two scalars on the GPU");
                let loss = term.definition.name.clone();
                self.fault.get_or_insert(Error::Expr { loss, message });
            }
            term.scale = Some(input.to_owned());
        }
        self
    }

    /// Sets an option by name, in every term that has it. A name or value that does not fit comes back as an
    /// error when the loss is planned.
    #[must_use]
    pub fn option(mut self, name: &str, value: Value) -> Loss {
        if let Err(error) = self.set_option(name, value) {
            self.fault.get_or_insert(error);
        }
        self
    }

    fn set_option(&mut self, name: &str, value: Value) -> Result<()> {
        let mut found = false;
        for term in &mut self.terms {
            let Some(decl) = term.definition.options.iter().find(|o| o.name == name) else { continue };
            check_option(&term.definition.name, decl, value)?;
            term.values.insert(name.to_owned(), value);
            found = true;
        }
        if found {
            return Ok(());
        }
        let known = self.options().iter().map(|o| o.name.as_str()).collect::<Vec<_>>().join(", ");
        Err(Error::Name { what: format!("{} has no option", self.name()), name: name.to_owned(), known })
    }

    /// The first mistake in its options, if there is one.
    pub fn check(&self) -> Result<()> {
        match &self.fault {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Declaration of the numeric parameter that the graph knows by this name.
    pub(crate) fn param_decl(&self, name: &str) -> Option<(String, OptionDecl)> {
        self.terms.iter().enumerate().find_map(|(place, term)| {
            let own = name.strip_prefix(&self.prefix(place))?;
            let decl = term.definition.options.iter().find(|o| o.name == own)?;
            Some((term.definition.name.clone(), decl.clone()))
        })
    }

    /// What stands before a term's parameter names: nothing where there is one term.
    fn prefix(&self, place: usize) -> String {
        if self.terms.len() == 1 {
            return String::new();
        }
        let name = &self.terms[place].definition.name;
        let before = self.terms[..place].iter().filter(|t| t.definition.name == *name).count();
        if before == 0 { format!("{name}.") } else { format!("{name}#{}.", before + 1) }
    }

    /// The expressions, given which inputs are there (and, for class indices, whether they are unsigned).
    pub(crate) fn build<'g>(
        &'g self,
        graph: &'g Graph,
        present: &'g dyn Fn(&str) -> Option<bool>,
    ) -> Result<Built<'g>> {
        self.check()?;
        let mut sum: Option<Expr<'g>> = None;
        let mut denominator = None;
        for (place, term) in self.terms.iter().enumerate() {
            let build = Build { graph, term, prefix: self.prefix(place), present };
            let Unreduced { value, denominator: over } = (term.definition.build)(&build);
            let (mut loss, divided_by) = reduce(graph, term, value, over, present)?;
            if place == 0 {
                denominator = divided_by;
            }
            if term.weight != 1.0 {
                loss = graph.param(&format!("{}weight", self.prefix(place)), term.weight) * loss;
            }
            if let Some(scale) = &term.scale {
                loss = graph.input(scale, Scope::Scalar, Kind::Float) * loss;
            }
            if let Some(before) = sum {
                if before.scope() != loss.scope() {
                    let message = format!(
                        "terms of one sum must have one shape; {:?} and {:?} found",
                        before.scope(),
                        loss.scope()
                    );
                    return Err(Error::Expr { loss: self.name(), message });
                }
            }
            sum = Some(sum.map_or(loss, |before| before + loss));
        }
        graph.verify(&self.name())?;
        Ok(Built { loss: sum.expect("a loss has at least one term"), denominator })
    }
}

fn reduce<'g>(
    graph: &'g Graph,
    term: &Term,
    value: Expr<'g>,
    over: Denominator<'g>,
    present: &dyn Fn(&str) -> Option<bool>,
) -> Result<(Expr<'g>, Option<Expr<'g>>)> {
    let scope = value.scope();
    let name = &term.definition.name;
    let optional = |what: &str| present(what).map(|_| graph.input(what, scope, Kind::Float));
    if scope <= Scope::Total {
        if present(SAMPLE_WEIGHT).or(present(MASK)).is_some() {
            let message = "it is one number already and takes neither sample_weight nor mask".to_owned();
            return Err(Error::Expr { loss: name.clone(), message });
        }
        return Ok((value, None));
    }
    if !matches!(scope, Scope::Element | Scope::Row) {
        let message = format!("a loss has one value an element, a row or in all; this one has scope {scope:?}");
        return Err(Error::Expr { loss: name.clone(), message });
    }
    let weight = optional(SAMPLE_WEIGHT);
    let keep = optional(MASK).map(|mask| !mask.equals(0.0));
    // What the loss itself leaves out is left out whatever its weight is, and its weight does not count.
    let own = match graph.node(value.id) {
        Node::Masked(own, x) => Some((graph.expr(own), graph.expr(x))),
        _ => None,
    };
    let mut value = value;
    if let Some(weight) = weight {
        value = own.map_or(value * weight, |(own, x)| (x * weight).masked(own));
    }
    if let Some(keep) = keep {
        value = value.masked(keep);
    }
    let kept = |x: Expr<'g>| keep.map_or(x, |keep| x.masked(keep)).sum_over(Scope::Total);
    let count = || graph.count(if scope == Scope::Element { Extent::Elements } else { Extent::Rows });
    let denominator = match &term.reduction {
        Reduction::None => return Ok((value, None)),
        Reduction::Sum => None,
        Reduction::Mean => Some(match over {
            Denominator::Sum(x) => kept(x),
            Denominator::Count => keep.map_or_else(count, |keep| keep.to_float().sum_over(Scope::Total)),
        }),
        Reduction::BatchMean => Some(graph.count(Extent::Batch)),
        Reduction::MeanWithSampleWeight => match weight {
            Some(weight) => Some(kept(own.map_or(weight, |(own, _)| weight.masked(own)))),
            None => {
                return Err(Error::Name {
                    what: "reduction needs the input".into(),
                    name: SAMPLE_WEIGHT.into(),
                    known: "none given".into(),
                });
            }
        },
        Reduction::MeanOverPositive => Some(value.detach().gt(0.0).to_float().sum_over(Scope::Total)),
        Reduction::By(input) => Some(graph.input(input, Scope::Scalar, Kind::Float)),
    };
    let total = value.sum_over(Scope::Total);
    Ok((denominator.map_or(total, |d| total / d), denominator))
}

pub(crate) fn check_option(loss: &str, decl: &OptionDecl, value: Value) -> Result<()> {
    let wrong = |found: String, allowed: String| {
        Err(Error::Param { loss: loss.to_owned(), param: decl.name.clone(), found, allowed })
    };
    match (decl.default, value) {
        (Value::Num(_), Value::Num(x)) if decl.domain.contains(x) => Ok(()),
        (Value::Num(_), Value::Num(x)) => wrong(format!("{x}"), decl.domain.to_string()),
        (Value::Index(_), Value::Index(_)) | (Value::Flag(_), Value::Flag(_)) => Ok(()),
        (Value::Num(_), other) => wrong(format!("{other:?}"), "a number".to_owned()),
        (Value::Index(_), other) => wrong(format!("{other:?}"), "a class index, or none".to_owned()),
        (Value::Flag(_), other) => wrong(format!("{other:?}"), "true or false".to_owned()),
    }
}

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident($value:ident: $type:ty) $make:expr;)*) => {
        /// Options by name. A loss without that option, or a value outside its domain, comes back as an error
        /// when the loss is planned.
        impl Loss {$(
            $(#[$doc])*
            #[must_use]
            pub fn $name(self, $value: $type) -> Loss {
                self.option(stringify!($name), $make)
            }
        )*}
    };
}

options! {
    /// Share of the target spread evenly over the classes, in \[0, 1\].
    label_smoothing(share: f64) Value::Num(share);
    /// Labels of this value are left out: loss and gradient exactly 0. None: no label is.
    ignore_index(index: impl Into<Option<i64>>) Value::Index(index.into());
    /// Divides the logits before the softmax, > 0.
    temperature(divisor: f64) Value::Num(divisor);
    /// Class balance of a focal loss, in \[0, 1\]; −1 for none.
    alpha(share: f64) Value::Num(share);
    /// Focusing exponent of a focal loss, ≥ 0.
    gamma(exponent: f64) Value::Num(exponent);
    /// The target is given as logarithms.
    log_target(yes: bool) Value::Flag(yes);
    /// The input is the logarithm of the rate.
    log_input(yes: bool) Value::Flag(yes);
    /// Adds the Stirling approximation of the target's factorial.
    full(yes: bool) Value::Flag(yes);
    /// Added to the rate before its logarithm, ≥ 0.
    eps(value: f64) Value::Num(value);
}

impl std::ops::Add for Loss {
    type Output = Loss;
    fn add(mut self, other: Loss) -> Loss {
        self.terms.extend(other.terms);
        self.fault = self.fault.or(other.fault);
        self
    }
}

impl std::ops::Mul<Loss> for f64 {
    type Output = Loss;
    fn mul(self, mut loss: Loss) -> Loss {
        if !self.is_finite() {
            let (name, found) = (loss.name(), format!("{self}"));
            loss.fault.get_or_insert(Error::Param {
                loss: name,
                param: "weight".into(),
                found,
                allowed: "finite".into(),
            });
        }
        for term in &mut loss.terms {
            term.weight *= self;
        }
        loss
    }
}

impl std::ops::Mul<f64> for Loss {
    type Output = Loss;
    fn mul(self, weight: f64) -> Loss {
        weight * self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(name: &str) -> Loss {
        Loss::define(name).input("x", Scope::Element).param("k", 2.0, Domain::Positive).expr(|b| {
            let x = b.input("x");
            b.param("k") * x * x
        })
    }

    #[test]
    fn parameters_of_a_sum_keep_apart() {
        let sum = 0.5 * square("a") + square("a").reduction(Reduction::Sum);
        let graph = Graph::new();
        let built = sum.build(&graph, &|name| (name == "x").then_some(false)).unwrap();
        let names: Vec<String> = graph.params().into_iter().map(|p| p.0).collect();
        assert_eq!(names, ["a.k", "a.weight", "a#2.k"]);
        assert_eq!(built.loss.scope(), Scope::Total);
        assert_eq!(sum.param_decl("a#2.k").unwrap().1.name, "k");
    }

    #[test]
    fn options_are_checked_against_their_domain() {
        let bad = square("a").option("k", Value::Num(-1.0));
        assert_eq!(bad.check().unwrap_err().to_string(), "k = -1 for a; must be finite and > 0");
        assert!(matches!(square("a").option("q", Value::Num(1.0)).check(), Err(Error::Name { .. })));
        assert!(matches!(square("a").option("k", Value::Flag(true)).check(), Err(Error::Param { .. })));
        assert!((f64::NAN * square("a")).check().is_err());
    }

    #[test]
    fn terms_of_different_shape_do_not_add() {
        let mixed = square("a").reduction(Reduction::None) + square("b");
        let graph = Graph::new();
        assert!(matches!(mixed.build(&graph, &|_| None), Err(Error::Expr { .. })));
    }
}
