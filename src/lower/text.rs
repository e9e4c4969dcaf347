//! A loss and its gradients as text, and the row stages that they were lowered to.

use super::looks::{Look, Looks};
use super::program::{OutputKind, Program};
use super::stage::Along;
use crate::error::{Error, Result};
use crate::expr::autodiff;
use crate::expr::op::Kind;
use crate::expr::simplify::simplify;
use crate::expr::{Graph, Node, NodeId, print_nodes};
use crate::loss::Loss;
use crate::text::putln;

/// The expressions of a loss. A node that is used more than once has a line of its own, before the last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expressions {
    /// The loss with its reduction.
    pub loss: String,
    /// The name of each input, and the gradient with respect to it from reverse mode.
    pub grads: Vec<(String, String)>,
}

/// A loss and its gradients before lowering. `present` is as in [`lower`](super::lower).
///
/// ```
/// use wgloss::{internals::lower::expressions, losses};
/// let given = |name: &str| ["input", "target"].contains(&name).then_some(false);
/// let text = expressions(&losses::mse(), &["input"], &given)?;
/// assert!(text.loss.ends_with("/ elements)"), "{}", text.loss);
/// # Ok::<(), wgloss::Error>(())
/// ```
///
/// # Errors
/// [`Error::Name`] for an input that has no gradient, and errors of [`Loss::check`].
pub fn expressions(loss: &Loss, grads: &[&str], present: &dyn Fn(&str) -> Option<bool>) -> Result<Expressions> {
    let graph = Graph::new();
    let root = loss.build(&graph, present)?.loss;
    let inputs = graph.inputs();
    let of_input = |name: &&str| {
        let found = inputs.iter().find(|input| input.name == *name && input.kind == Kind::Float);
        let known = || inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ");
        let what = || format!("{} has no gradient for", loss.name());
        found.map(|input| graph.input(&input.name, input.scope, input.kind).id).ok_or_else(|| Error::Name {
            what: what(),
            name: (*name).to_owned(),
            known: known(),
        })
    };
    let wanted = grads.iter().map(of_input).collect::<Result<Vec<NodeId>>>()?;
    let found = autodiff::gradients(root, graph.constant(1.0), &wanted);
    let zero = graph.constant(0.0);
    let mut roots = vec![root.id];
    roots.extend(found.iter().map(|grad| grad.unwrap_or(zero).id));
    let texts: Vec<String> = simplify(&graph, &roots).into_iter().map(|root| graph.print(root)).collect();
    let grads = grads.iter().map(|name| (*name).to_owned()).zip(texts[1..].iter().cloned()).collect();
    Ok(Expressions { loss: texts[0].clone(), grads })
}

/// Outputs by kind: the value, and the value at the label where it differs.
pub(super) fn of_outputs<'a>(
    graph: &Graph,
    outputs: impl Iterator<Item = (&'a OutputKind, NodeId, Option<(NodeId, NodeId)>)>,
) -> String {
    let mut text = String::new();
    for (kind, node, at_label) in outputs {
        putln!(text, "{kind:?} = {}", graph.print(node));
        if let Some((label, there)) = at_label {
            putln!(text, "    at column {}: {}", graph.print(label), graph.print(there));
        }
    }
    text
}

/// The looks of the loss, and of each sum.
pub(super) fn of_looks(graph: &Graph, looks: &Looks) -> String {
    let mut text = String::new();
    let mut list = |whose: String, all: &[Look]| {
        putln!(text, "{whose} looks at");
        for look in all {
            let condition = [look.row, look.element].into_iter().flatten().map(|id| graph.print(id));
            let condition = condition.collect::<Vec<_>>().join(" and ");
            let place = if condition.is_empty() { String::new() } else { format!(" where {condition}") };
            putln!(text, "    {:?} {}{place}", look.kind, graph.print(look.node));
        }
    };
    list("the loss".to_owned(), &looks.loss);
    for (sum, own) in &looks.sums {
        list(graph.print(*sum), own);
    }
    text
}

impl Program {
    /// The passes: over every element or over rows alone, row reductions by stage, sums, outputs.
    pub fn print_passes(&self) -> String {
        let mut text = String::new();
        for (index, pass) in self.passes.iter().enumerate() {
            let over = if pass.columns { "every element" } else { "rows alone" };
            putln!(text, "pass {index}, over {over}");
            let reduces =
                pass.stages.iter().enumerate().flat_map(|(k, stage)| stage.reduces.iter().map(move |r| (k, r)));
            for (stage, reduce) in reduces {
                putln!(text, "    stage {stage}: {}", self.print(*reduce).replace('\n', "\n        "));
            }
            for (stage, of) in pass.stages.iter().enumerate() {
                for trip in &of.along {
                    let what = match trip.along {
                        Along::Scans(_) => "scan",
                        Along::Pairs => "pairs",
                        Along::Sort => "sort",
                        Along::Permutations(_) => "permutation",
                    };
                    for id in &trip.nodes {
                        let printed = self.print(*id).replace('\n', "\n        ");
                        putln!(text, "    stage {stage}, {what}: {printed}");
                    }
                }
            }
            for total in &pass.totals {
                putln!(text, "    sum: {}", self.print(*total).replace('\n', "\n        "));
            }
            for output in &pass.outputs {
                putln!(text, "    stores {:?}", self.outputs[*output].kind);
            }
        }
        text
    }

    /// A node as text; each shared node below it has a line of its own.
    pub fn print(&self, id: NodeId) -> String {
        let order: Vec<(NodeId, Node)> =
            self.below(&[id], |_| false).into_iter().map(|id| (id, *self.node(id))).collect();
        print_nodes(&order, &self.params, &self.inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses;
    use crate::lower::{Wanted, lower};

    fn present(name: &str) -> Option<bool> {
        ["input", "target"].contains(&name).then_some(false)
    }

    #[test]
    fn a_gradient_is_told_by_name() {
        let text = expressions(&losses::huber(1.0), &["input"], &present).unwrap();
        assert_eq!(text.grads.len(), 1);
        assert!(text.grads[0].1.contains("delta"), "{}", text.grads[0].1);
        assert!(matches!(expressions(&losses::mse(), &["q"], &present), Err(Error::Name { .. })));
    }

    #[test]
    fn stages_are_told_by_their_reductions() {
        let wanted = Wanted { loss: true, ..Wanted::default() };
        let program = lower(&losses::cross_entropy(), &wanted, &present).unwrap();
        let stage = &program.passes.last().unwrap().stages[0];
        assert_eq!(program.print(stage.reduces[0]), "row_expsumrest(input)");
    }
}
