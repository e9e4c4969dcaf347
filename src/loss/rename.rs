//! Other names for the inputs of a loss.

use super::{InputSpec, Loss, MASK, Reduction, SAMPLE_WEIGHT, Scale, Term, UPSTREAM, Value};
use crate::error::{Error, Result};

impl Loss {
    /// Lets an input go by another name in every term that has it: two heads then stand in one sum, each with inputs of
    /// its own.
    ///
    /// The name is the one to bind, plan and ask gradients by from now on, in errors and exports too. Each term also has
    /// a `sample_weight` and a `mask`, which may be renamed as well (two heads, two masks), and the scalars that it was
    /// given: its options, its factors, its divisor ([`Reduction::By`]). `upstream` belongs to the plan, and keeps its name.
    ///
    /// An unknown name comes back as an [`Error::Name`] when the loss is planned; a name that makes two inputs of one
    /// term the same, or that is an input of another scope or kind in another term, as an [`Error::Expr`].
    ///
    /// ```
    /// use wgloss::{HostTensor, cpu, losses};
    /// let auxiliary = losses::cross_entropy().rename_input("input", "aux_input").rename_input("target", "aux_target");
    /// let loss = losses::cross_entropy() + 0.5 * auxiliary;
    /// let (logits, aux) = (HostTensor::f32(&[0.0, 0.0], &[1, 2]), HostTensor::f32(&[0.0, 0.0], &[1, 2]));
    /// let (labels, aux_labels) = (HostTensor::i32(&[0], &[1]), HostTensor::i32(&[1], &[1]));
    /// let inputs = [("input", logits), ("target", labels), ("aux_input", aux), ("aux_target", aux_labels)];
    /// let out = cpu::forward_backward(&loss, &inputs, &["input", "aux_input"])?;
    /// assert!((out.loss()? - 1.5 * 2f64.ln()).abs() < 1e-12);
    /// assert_eq!((out.grad("input")?, out.grad("aux_input")?), (&[-0.5, 0.5][..], &[0.25, -0.25][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    #[must_use]
    pub fn rename_input(mut self, from: &str, to: &str) -> Loss {
        match self.check_rename(from, to) {
            Ok(()) => self.terms.iter_mut().for_each(|term| term.rename(from, to)),
            Err(error) => {
                self.fault.get_or_insert(error);
            }
        }
        self
    }

    fn check_rename(&self, from: &str, to: &str) -> Result<()> {
        let renamed: Vec<&Term> = self.terms.iter().filter(|term| term.goes_by(from)).collect();
        if renamed.is_empty() {
            let known = self.inputs().into_iter().map(|input| input.name).chain(self.weights_and_masks());
            let known = known.collect::<Vec<String>>().join(", ");
            let what = format!("{} has no input to rename", self.name());
            return Err(Error::Name { what, name: from.to_owned(), known });
        }
        let fault = |loss: String, message: String| Err(Error::Expr { loss, message });
        if to == UPSTREAM || to.is_empty() {
            let message = format!("`{from}` may not be renamed to `{to}`, which is no name of an input");
            return fault(self.name(), message);
        }
        if let Some(term) = renamed.iter().find(|term| from != to && term.goes_by(to)) {
            let message = format!("`{from}` renamed to `{to}` would be two inputs in one; rename that `{to}` first");
            return fault(term.definition.name.clone(), message);
        }
        let of = |input: &InputSpec| (input.scope, input.kind);
        let inputs: Vec<InputSpec> = self.terms.iter().flat_map(Term::inputs).collect();
        let mut pairs = inputs.iter().filter(|input| input.name == from).flat_map(|from| {
            let to = inputs.iter().filter(|input| input.name == to);
            to.map(move |to| (from, to))
        });
        match pairs.find(|(from, to)| of(from) != of(to)) {
            None => Ok(()),
            Some((one, other)) => {
                let ((scope, kind), (other_scope, other_kind)) = (of(one), of(other));
                let message = format!(
                    "`{from}` (scope {scope:?}, {kind:?}) renamed to `{to}`, which is an input of scope {other_scope:?}, \
                     {other_kind:?}, in another term"
                );
                fault(self.name(), message)
            }
        }
    }
}

impl Term {
    /// Whether one of its inputs goes by that name.
    fn goes_by(&self, name: &str) -> bool {
        let beside = [SAMPLE_WEIGHT, MASK].map(|declared| self.names.given(declared));
        beside.contains(&name) || self.inputs().iter().any(|input| input.name == name)
    }

    /// Renames the input that goes by `from`, if it has one.
    fn rename(&mut self, from: &str, to: &str) {
        let definition = self.definition.clone();
        let declared = definition.inputs.iter().map(|input| input.name.as_str()).chain([SAMPLE_WEIGHT, MASK]);
        if let Some(declared) = declared.into_iter().find(|declared| self.names.given(declared) == from) {
            self.names.give(declared, to);
        }
        let divisor = if let Reduction::By(name) = &mut self.reduction { Some(name) } else { None };
        let options = self.values.values_mut().filter_map(|value| match value {
            Value::Scalar(name) => Some(name),
            _ => None,
        });
        for scalar in
            options.chain(self.scales.iter_mut().map(Scale::input_mut)).chain(divisor).filter(|scalar| *scalar == from)
        {
            to.clone_into(scalar);
        }
    }
}
