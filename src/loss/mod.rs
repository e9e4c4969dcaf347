//! A loss: named inputs, options with domains, an expression, and how it is reduced.
//!
//! A [`Loss`] is a weighted sum of terms. Each term is a [`Definition`] (shared, immutable) with the values of its
//! options and its reduction. `Loss::build` turns it into expressions for one problem.
//!
//! Each file uses those before it: `declaration`, `given`, `build`, `reduction`, `definition`; the losses themselves
//! are here, their terms in `term`, their shapes in `shapes`, their sums and multiples in `arithmetic`, other names for their inputs in
//! `rename`.

mod apart;
mod arithmetic;
mod build;
mod declaration;
mod definition;
mod given;
mod reduction;
mod rename;
mod shapes;
mod term;

pub use crate::shape::RowAxis;
pub use build::{Build, Denominator, Unreduced};
use declaration::kept;
pub use declaration::{ClassAxis, Domain, InputSpec, OptionDecl, ParamValue, Value};
pub(crate) use declaration::{check_option, check_weight};
pub use definition::{Definition, DefinitionBuilder};
pub use given::{MASK, SAMPLE_WEIGHT, UPSTREAM};
pub(crate) use given::{check_once, check_read};
pub use reduction::Reduction;

use crate::error::{Error, Result};
use crate::expr::op::Kind;
use crate::expr::{Expr, Graph, IntoExpr};
use crate::shape::Scope;
use given::Names;
use reduction::{PerLoss, check_of_batch, reduce};
use std::fmt;
use std::sync::Arc;
use term::{Scale, Term};

/// A loss function: one of the [catalogue](crate::losses), one of your own, or a weighted sum of losses.
///
/// A loss of the catalogue that has options is a type of its own ([`CrossEntropy`](crate::losses::CrossEntropy),
/// [`Huber`](crate::losses::Huber)), with a setter for each; it derefs to this one, and becomes it in a sum.
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

impl DefinitionBuilder {
    /// The expression, and with it the loss.
    pub fn expr<F>(self, build: F) -> Loss
    where
        F: for<'g> Fn(&Build<'g>) -> Expr<'g> + Send + Sync + 'static,
    {
        self.unreduced(move |b| build(b).into())
    }

    /// The expression together with the denominator of its mean.
    pub fn unreduced<F>(self, build: F) -> Loss
    where
        F: for<'g> Fn(&Build<'g>) -> Unreduced<'g> + Send + Sync + 'static,
    {
        let definition = self.finish(Box::new(build));
        let fault = definition.check().err();
        let values = definition.options.iter().map(|o| (o.name.clone(), o.default.clone())).collect();
        let term = Term {
            weight: 1.0,
            scales: Vec::new(),
            row_axis: definition.row_axis,
            definition: Arc::new(definition),
            names: Names::default(),
            hidden: Vec::new(),
            values,
            reduction: Reduction::Mean,
            broadcast: false,
        };
        Loss { terms: vec![term], fault }
    }
}

impl Loss {
    /// Begins a loss of your own.
    pub fn define(name: &str) -> DefinitionBuilder {
        DefinitionBuilder::new(name)
    }

    /// Its name; for a weighted sum, the sum of the names.
    pub fn name(&self) -> String {
        self.sum_of(|term| term.weight)
    }

    /// Its name without the weights of a sum.
    pub(crate) fn title(&self) -> String {
        self.sum_of(|_| 1.0)
    }

    fn sum_of(&self, weight: impl Fn(&Term) -> f64) -> String {
        let mut sum = String::new();
        for (index, term) in self.terms.iter().enumerate() {
            let (weight, is_first) = (weight(term), index == 0);
            sum += match (weight < 0.0, is_first) {
                (true, true) => "-",
                (true, false) => " - ",
                (false, true) => "",
                (false, false) => " + ",
            };
            if weight.abs() != 1.0 {
                sum += &format!("{}*", weight.abs());
            }
            for scale in &term.scales {
                sum += &match scale {
                    Scale::Factor(input) => format!("{input}*"),
                    Scale::Precision(input) => format!("exp(-{input})*"),
                };
            }
            sum += &term.definition.name;
        }
        sum
    }

    /// The inputs it takes, without repetition, by the names that they go by.
    pub fn inputs(&self) -> Vec<InputSpec> {
        let mut all: Vec<InputSpec> = Vec::new();
        for input in self.terms.iter().flat_map(Term::inputs) {
            match all.iter_mut().find(|known| known.name == input.name) {
                Some(known) => known.optional &= input.optional,
                None => all.push(input),
            }
        }
        all
    }

    /// Names of the inputs that it takes beside: those that its terms' `sample_weight` and `mask` go by.
    pub(crate) fn weights_and_masks(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for name in self.terms.iter().flat_map(|term| [SAMPLE_WEIGHT, MASK].map(|name| term.names.given(name))) {
            if !all.iter().any(|known| known == name) {
                all.push(name.to_owned());
            }
        }
        all
    }

    /// The input with respect to which gradients are usually taken: the prediction. Keras's losses name the target
    /// first.
    pub fn differentiable(&self) -> Option<String> {
        let declared = || self.terms.iter().flat_map(|t| t.definition.inputs.iter().map(|input| (input, &t.names)));
        let predicted = declared().find(|(input, _)| input.name == "y_pred");
        let first = || declared().find(|(input, _)| input.kind == Kind::Float && input.scope == Scope::Element);
        let any = || declared().find(|(input, _)| input.kind == Kind::Float && !input.optional);
        predicted.or_else(first).or_else(any).map(|(input, names)| names.given(&input.name).to_owned())
    }

    /// The options of its first term.
    pub fn options(&self) -> &[OptionDecl] {
        &self.terms[0].definition.options
    }

    /// The value of an option, of the first term that has it.
    pub fn option_value(&self, name: &str) -> Option<&Value> {
        self.terms.iter().find_map(|term| term.values.get(name))
    }

    /// Scope of its values before the reduction, with the required inputs only: one per element, one per row, or one in
    /// all, which takes neither `sample_weight` nor `mask`.
    ///
    /// # Errors
    /// As for planning: mistakes of its options and of its expression.
    ///
    /// ```
    /// use wgloss::{Scope, losses};
    /// assert_eq!(losses::mse().scope()?, Scope::Element);
    /// assert_eq!(losses::cross_entropy().scope()?, Scope::Row);
    /// assert_eq!(losses::rmse().scope()?, Scope::Total);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    pub fn scope(&self) -> Result<Scope> {
        let unreduced = self.clone().reduction(Reduction::None);
        let inputs = self.inputs();
        let present = |name: &str| inputs.iter().any(|i| i.name == name && !i.optional).then_some(false);
        let graph = Graph::new();
        Ok(unreduced.build(&graph, &present)?.loss.scope())
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

    /// Multiplies by a number, or by a scalar on the GPU, an input of that name: a task weight that may change every step,
    /// or be learned. `loss * factor` does the same.
    ///
    /// ```
    /// use wgloss::losses;
    /// let loss = losses::mse().scaled_by("task") + 0.5 * losses::l1() * "annealing";
    /// assert_eq!(loss.name(), "task*mse + 0.5*annealing*l1");
    /// assert!(loss.inputs().iter().any(|input| input.name == "task"));
    /// ```
    #[must_use]
    pub fn scaled_by(self, factor: impl Into<ParamValue>) -> Loss {
        self * factor
    }

    /// Sets an option by name, in every term that has it. A prefix names one term: `huber.delta`, or `huber#2.delta`
    /// for the second huber of a sum. A name or value that does not fit comes back as an error when the loss is
    /// planned. Losses of the catalogue have setters, which the compiler checks.
    ///
    /// ```
    /// use wgloss::losses;
    /// let loss = losses::by_name("huber").expect("in the catalogue").option("delta", 0.5);
    /// let both = (loss + losses::smooth_l1(1.0)).option("huber.delta", 2.0).option("beta", 0.5);
    /// assert!(both.check().is_ok());
    /// assert!(losses::mse().option("delta", 0.5).check().is_err());
    /// ```
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Loss {
        if let Err(error) = self.set_option(name, &value.into()) {
            self.fault.get_or_insert(error);
        }
        self
    }

    fn set_option(&mut self, name: &str, value: &Value) -> Result<()> {
        let mut found = false;
        for index in 0..self.terms.len() {
            let own = name.strip_prefix(&self.prefix(index)).unwrap_or(name);
            let term = &mut self.terms[index];
            let Some(decl) = term.definition.options.iter().find(|o| o.name == own) else {
                found |= term.set_shape_option(own, value)?;
                continue;
            };
            let value = kept(decl, value);
            check_option(&term.definition.name, decl, &value)?;
            if let (Some((by, axes)), Value::Flag(yes)) = (&term.definition.row_axes, &value) {
                term.row_axis = if by == own { axes[usize::from(*yes)] } else { term.row_axis };
            }
            term.values.insert(own.to_owned(), value);
            found = true;
        }
        if found {
            return Ok(());
        }
        let known = self.options().iter().map(|o| o.name.as_str());
        let known = known.chain(self.terms[0].shape_options().iter().copied()).collect::<Vec<_>>().join(", ");
        Err(Error::Name { what: format!("{} has no option", self.name()), name: name.to_owned(), known })
    }

    /// The first mistake in its options, if there is one.
    pub fn check(&self) -> Result<()> {
        match &self.fault {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// The loss, the declaration and the value of the option that is the parameter of this name.
    pub(crate) fn param_option(&self, name: &str) -> Option<(&str, &OptionDecl, &Value)> {
        self.terms.iter().enumerate().find_map(|(index, term)| {
            let own = name.strip_prefix(&self.prefix(index))?;
            let decl = term.definition.options.iter().find(|o| o.name == own)?;
            Some((term.definition.name.as_str(), decl, &term.values[own]))
        })
    }

    /// Prefix of a term's parameter names; empty for a loss of one term.
    fn prefix(&self, index: usize) -> String {
        if self.terms.len() == 1 {
            return String::new();
        }
        let name = &self.terms[index].definition.name;
        let before = self.terms[..index].iter().filter(|t| t.definition.name == *name).count();
        if before == 0 { format!("{name}.") } else { format!("{name}#{}.", before + 1) }
    }

    /// The expressions. `present(input)` is `None` for an absent input, else whether it is an unsigned label.
    pub(crate) fn build<'g>(
        &'g self,
        graph: &'g Graph,
        present: &'g dyn Fn(&str) -> Option<bool>,
    ) -> Result<Built<'g>> {
        self.check()?;
        self.check_row_axes()?;
        self.declare_unsigned(graph, present);
        let mut sum: Option<Expr<'g>> = None;
        let mut denominator = None;
        for (index, term) in self.terms.iter().enumerate() {
            let Definition { name, build, of_batch, .. } = &*term.definition;
            let b = term.build(graph, self.prefix(index), present);
            let unreduced = build(&b).within(graph);
            let of_batch = of_batch.as_ref().map(|build| build(&b).into_expr(graph));
            if let Some(error) = b.fault.into_inner() {
                return Err(error);
            }
            self.check_inputs_are_read(graph, index, present)?;
            let per_loss = PerLoss { loss: name, names: &term.names, present, mask: term.definition.mask() };
            let (mut loss, divided_by) = reduce(graph, &per_loss, &term.reduction, unreduced)?;
            if index == 0 {
                denominator = divided_by;
            }
            if let Some(own) = of_batch {
                check_of_batch(name, own)?;
                loss = loss + own;
            }
            if term.weight != 1.0 {
                loss = graph.param(&format!("{}weight", self.prefix(index)), term.weight) * loss;
            }
            for scale in &term.scales {
                loss = scale.factor(graph) * loss;
            }
            // One number is one number, reduced from many or given as one.
            let shape = |loss: Expr<'_>| loss.scope().max(Scope::Total);
            if let Some(before) = sum.filter(|before| shape(*before) != shape(loss)) {
                let (first, second) = (before.scope(), loss.scope());
                let message = format!(
                    "terms of one sum must have one shape; {first:?} and {second:?} found (a reduction makes one number \
                     of each)"
                );
                return Err(Error::Expr { loss: self.name(), message });
            }
            sum = Some(sum.map_or(loss, |before| before + loss));
        }
        graph.verify(&self.name())?;
        graph.verify_literals(&self.name())?;
        Ok(Built { loss: sum.expect("a loss has at least one term"), denominator })
    }

    /// Declares unsigned labels to the graph, which then compares them as such.
    fn declare_unsigned(&self, graph: &Graph, present: &dyn Fn(&str) -> Option<bool>) {
        for input in self.inputs().iter().filter(|input| input.kind == Kind::Int) {
            if present(&input.name) == Some(true) {
                graph.declare_unsigned(&input.name);
            }
        }
    }

    /// An error for a required input that neither the expression nor an extra output reads.
    fn check_inputs_are_read(&self, graph: &Graph, index: usize, present: &dyn Fn(&str) -> Option<bool>) -> Result<()> {
        let term = &self.terms[index];
        let Definition { name: loss, inputs, extras, .. } = &*term.definition;
        let reads = |graph: &Graph, name: &str| graph.inputs().iter().any(|read| read.name == name);
        let is_shown = |name: &str| !term.hidden.iter().any(|hidden| hidden == name);
        let mut scalars = term.option_scalars().filter(|(_, input)| is_shown(input));
        if let Some((option, input)) = scalars.find(|(_, input)| !reads(graph, input)) {
            let message =
                format!("its option `{option}` is the scalar `{input}`, and is not read with its other options");
            return Err(Error::Expr { loss: loss.clone(), message });
        }
        let is_read = |graph: &Graph, input: &InputSpec| reads(graph, term.names.given(&input.name));
        let declared = inputs.iter().filter(|input| !input.optional && is_shown(term.names.given(&input.name)));
        let mut unread = declared.filter(|input| !is_read(graph, input)).peekable();
        if unread.peek().is_none() {
            return Ok(());
        }
        let scratch = Graph::new();
        let b = term.build(&scratch, String::new(), present);
        for (_, extra) in extras {
            let _ = extra(&b);
        }
        match unread.find(|input| !is_read(&scratch, input)) {
            None => Ok(()),
            Some(input) => {
                let message = format!("declares the input `{}` and never reads it", input.name);
                Err(Error::Expr { loss: loss.clone(), message })
            }
        }
    }

    /// Names of the extra outputs that a plan may ask for.
    pub fn extras(&self) -> Vec<&str> {
        self.terms.iter().flat_map(|t| &t.definition.extras).map(|(name, _)| name.as_str()).collect()
    }

    /// The expression of an extra output, from the first term that has it.
    pub(crate) fn extra<'g>(
        &'g self,
        graph: &'g Graph,
        present: &'g dyn Fn(&str) -> Option<bool>,
        name: &str,
    ) -> Result<Expr<'g>> {
        for (index, term) in self.terms.iter().enumerate() {
            let Definition { name: loss, extras, .. } = &*term.definition;
            let Some((_, build)) = extras.iter().find(|(known, _)| known == name) else { continue };
            let b = term.build(graph, self.prefix(index), present);
            let extra = build(&b);
            if let Some(error) = b.fault.into_inner() {
                return Err(error);
            }
            if extra.kind() != Kind::Float || extra.scope() == Scope::Element {
                let message =
                    format!("the extra output `{name}` is not one number per row, group or column, or in all");
                return Err(Error::Expr { loss: loss.clone(), message });
            }
            graph.verify_literals(loss)?;
            return Ok(extra);
        }
        let what = format!("{} has no extra output", self.name());
        Err(Error::Name { what, name: name.to_owned(), known: self.extras().join(", ") })
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
        let names: Vec<String> = graph.params().into_iter().map(|p| p.name).collect();
        assert_eq!(names, ["a.k", "a.weight", "a#2.k"]);
        assert_eq!(built.loss.scope(), Scope::Total);
        assert_eq!(sum.param_option("a#2.k").unwrap().1.name, "k");
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
    fn numbers_are_what_a_kernel_sees() {
        for (found, is_right) in [(1e-38, false), (1e-50, false), (1e39, false), (1.2e-38, true), (3.4e38, true)] {
            let option = square("a").option("k", Value::Num(found)).check();
            assert_eq!(option.is_ok(), is_right, "{found:e}: {option:?}");
            for loss in [found * square("a"), square("a") * -found, found * (square("b") + square("a"))] {
                assert_eq!(loss.check().is_ok(), is_right, "{found:e}");
            }
        }
        // Each factor is a normal f32, their product is not.
        let product = 1e30 * (1e30 * square("a"));
        let error = product.check().unwrap_err();
        assert!(
            matches!(&error, Error::Param { param, allowed, .. } if param == "weight" && allowed.contains("e38")),
            "{error}"
        );
        assert!((1e-30 * (square("a") * 1e-30)).check().is_err());
        assert_eq!((0.0 * square("a")).check(), Ok(()));
        let default =
            |k| Loss::define("own").input("x", Scope::Element).param("k", k, Domain::Finite).expr(|b| b.input("x"));
        assert!(default(1e-40).check().is_err() && default(-1e39).check().is_err() && default(0.0).check().is_ok());
    }

    #[test]
    fn terms_of_different_shape_do_not_add() {
        let mixed = square("a").reduction(Reduction::None) + square("b");
        let graph = Graph::new();
        assert!(matches!(mixed.build(&graph, &|_| None), Err(Error::Expr { .. })));
    }

    #[test]
    fn a_word_is_one_of_those_that_the_option_allows() {
        let loss = || {
            let loss = Loss::define("w").input("x", Scope::Element).words("norm", &["l1", "l2"]);
            loss.expr(|b| if b.word("norm") == "l1" { b.input("x").abs() } else { b.input("x").powi(2) })
        };
        assert_eq!(loss().option_value("norm"), Some(&Value::Word("l1")));
        assert_eq!(loss().option("norm", "l2".to_owned()).option_value("norm"), Some(&Value::Word("l2")));
        assert_eq!(loss().option("norm", Value::Word("l2")).check(), Ok(()));
        for wrong in [Value::from("l3"), Value::Word("l3"), Value::Num(1.0), Value::Flag(true)] {
            let error = loss().option("norm", wrong).check().unwrap_err();
            assert!(error.to_string().ends_with("must be one of l1, l2"), "{error}");
        }
    }

    fn mistake(build: impl for<'g> Fn(&Build<'g>) -> Expr<'g> + Send + Sync + 'static) -> Error {
        let loss = Loss::define("mine").input("x", Scope::Element).param("k", 2.0, Domain::Positive).flag("f", true);
        let loss = loss.expr(build).reduction(Reduction::None);
        loss.build(&Graph::new(), &|name| (name == "x").then_some(false)).err().expect("a mistake")
    }

    #[test]
    fn names_and_types_that_a_loss_does_not_declare_are_errors() {
        let unknown = |error: Error| assert!(matches!(&error, Error::Name { name, .. } if name == "q"), "{error}");
        unknown(mistake(|b| b.input("q")));
        unknown(mistake(|b| b.input("x").masked(b.label_is("q", 1))));
        unknown(mistake(|b| b.input("x") * b.param("q")));
        unknown(mistake(|b| if b.flag("q") { b.input("x") } else { -b.input("x") }));
        let wrong = |error: Error| assert!(matches!(error, Error::Expr { .. }), "{error}");
        wrong(mistake(|b| b.input("x") * b.param("f")));
        wrong(mistake(|b| b.input("x") * b.index("k").unwrap_or(1) as f64));
        wrong(mistake(|b| if b.flag("k") { b.input("x") } else { -b.input("x") }));
        wrong(mistake(|b| b.input("x").lt(0.0)));
        wrong(mistake(|b| if b.word("k") == "a" { b.input("x") } else { -b.input("x") }));
    }

    #[test]
    fn a_term_of_the_batch_is_one_number() {
        let loss = Loss::define("own").input("x", Scope::Element).of_batch(|b| b.input("x")).expr(|b| b.input("x"));
        let error = loss.build(&Graph::new(), &|_| Some(false)).err().expect("a mistake");
        assert!(matches!(&error, Error::Expr { message, .. } if message.contains("one number")), "{error}");
    }

    #[test]
    fn a_definition_is_checked_as_well() {
        let done = |d: DefinitionBuilder| d.expr(|b| b.input("x")).check();
        let x = || Loss::define("mine").input("x", Scope::Element);
        assert_eq!(done(x()), Ok(()));
        assert!(matches!(done(x().label("x")), Err(Error::Expr { .. })));
        assert!(matches!(done(x().input("s", Scope::Param)), Err(Error::Expr { .. })));
        assert!(matches!(done(x().flag("k", true).param("k", 1.0, Domain::Unit)), Err(Error::Expr { .. })));
        assert!(matches!(done(x().param("k", f64::NAN, Domain::Finite)), Err(Error::Param { .. })));
        assert!(matches!(done(x().flag("broadcast", true)), Err(Error::Expr { .. })));
        assert!(matches!(done(x().index("class_axis", Some(1))), Err(Error::Expr { .. })));
    }
}
