//! Losses over several shapes: the sum of a part per input that has a shape of its own.

use super::Loss;
use crate::error::Result;
use crate::expr::Graph;
use crate::shape::{Scope, ShapeRule};

impl Loss {
    /// The parts that it is the sum of, one per input of [`ShapeRule::Apart`], where these have different shapes; else none.
    ///
    /// # Errors
    /// As for planning: mistakes of its expression.
    pub(crate) fn parts<'s>(&self, shape_of: impl Fn(&str) -> Option<&'s [usize]>) -> Result<Vec<Loss>> {
        let elements: Vec<_> = self.inputs().into_iter().filter(|input| input.scope == Scope::Element).collect();
        let are_apart = elements.iter().all(|input| input.shape_rule == ShapeRule::Apart);
        let mut shapes = elements.iter().filter_map(|input| shape_of(&input.name));
        let first = shapes.next();
        if !are_apart || shapes.all(|shape| Some(shape) == first) {
            return Ok(Vec::new());
        }
        let others = |own: &str| elements.iter().map(|input| input.name.clone()).filter(|name| name != own).collect();
        elements.iter().map(|own| self.part(others(&own.name))).collect()
    }

    /// The loss without these inputs, and without the scalars that only what they are in reads.
    fn part(&self, others: Vec<String>) -> Result<Loss> {
        let mut part = self.clone();
        part.terms.iter_mut().for_each(|term| term.hidden.clone_from(&others));
        let (inputs, graph) = (part.inputs(), Graph::new());
        let present = |name: &str| inputs.iter().any(|input| input.name == name).then_some(false);
        // Scalars of options are hidden while it is built, so that one that is not read is no mistake.
        let scalars = |input: &&super::InputSpec| input.scope == Scope::Scalar;
        let scalars: Vec<String> = inputs.iter().filter(scalars).map(|input| input.name.clone()).collect();
        part.terms.iter_mut().for_each(|term| term.hidden.extend(scalars.iter().cloned()));
        part.build(&graph, &present)?;
        let read = graph.inputs();
        let is_read = |name: &String| read.iter().any(|input| input.name == *name);
        part.terms.iter_mut().for_each(|term| term.hidden.retain(|name| others.contains(name) || !is_read(name)));
        Ok(part)
    }
}
