//! What a pass reads and binds.

use crate::expr::{Node, NodeId};
use crate::lower::{Look, Pass, Program};
use crate::shape::Scope;

/// Storage buffers that a pass binds: its inputs and outputs, and of `work` and `scalars` what it uses.
pub(super) fn bindings(program: &Program, pass: &Pass) -> usize {
    let shared = usize::from(uses_work(program, pass)) + usize::from(uses_scalars(program, pass));
    shared + tensor_inputs(program, pass).len() + pass.outputs.len()
}

fn reads(program: &Program, pass: &Pass, wanted: impl Fn(&Node, Scope) -> bool) -> bool {
    let below = program.below(&roots(program, pass), |id| matches!(program.node(id), Node::SumOver(..)));
    below.into_iter().any(|id| wanted(program.node(id), program.scope(id)))
}

/// Whether a pass leaves sums or states in `work`, or reads sums over groups there.
pub fn uses_work(program: &Program, pass: &Pass) -> bool {
    let groups = |node: &Node, _| matches!(node, Node::SumOver(Scope::Group, _));
    // A row's elements may share 16-bit words with the next row's.
    let edges = program.has_rows() && pass.outputs.iter().any(|&o| program.outputs[o].scope == Scope::Element);
    !pass.totals.is_empty() || !pass.stages.is_empty() || edges || reads(program, pass, groups)
}

/// Whether a pass reads scalars, or may have a label to report.
pub fn uses_scalars(program: &Program, pass: &Pass) -> bool {
    reads(program, pass, |node, scope| match node {
        Node::At(..) | Node::SumOver(Scope::Total, _) => true,
        Node::Input(_) => scope == Scope::Scalar,
        _ => false,
    })
}

/// Inputs that a pass reads from tensors of their own (scalars lie in one buffer together).
pub fn tensor_inputs(program: &Program, pass: &Pass) -> Vec<usize> {
    let mut places = Vec::new();
    for id in program.below(&roots(program, pass), |id| matches!(program.node(id), Node::SumOver(..))) {
        if let Node::Input(place) = *program.node(id) {
            if program.scope(id) > Scope::Total {
                places.push(place as usize);
            }
        }
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// Of these, those that are read at every column (at every element), not only at a label's.
pub fn visited_inputs(program: &Program, pass: &Pass) -> Vec<usize> {
    let nodes = program.below(&roots(program, pass), |id| matches!(program.node(id), Node::SumOver(..)));
    let is_visited = |place: &usize| {
        let is_input = |id: &NodeId| *program.node(*id) == Node::Input(*place as u32);
        let visits = |id: &NodeId| !matches!(program.node(*id), Node::At(..));
        nodes.iter().filter(|id| visits(id)).any(|id| program.node(*id).operands().any(|operand| is_input(&operand)))
            || roots(program, pass).iter().any(is_input)
    };
    let spans = |place: &usize| matches!(program.inputs[*place].scope, Scope::Element | Scope::Column);
    tensor_inputs(program, pass).into_iter().filter(|place| spans(place) && is_visited(place)).collect()
}

/// What a pass computes: operands of its sums, its stages, its outputs, and what it looks at.
pub fn roots(program: &Program, pass: &Pass) -> Vec<NodeId> {
    let mut roots: Vec<NodeId> = pass.totals.iter().flat_map(|t| program.node(*t).operands()).collect();
    roots.extend(pass.stages.iter().flat_map(|stage| stage.reduces.iter().copied()));
    for &output in &pass.outputs {
        let output = &program.outputs[output];
        roots.push(output.node);
        roots.extend(output.at_label.iter().flat_map(|(label, value)| [*label, *value]));
    }
    roots.extend(looked_at(pass));
    roots
}

/// What a pass looks at, and what that depends on.
pub fn looked_at(pass: &Pass) -> Vec<NodeId> {
    let looks = pass.poison.iter().flat_map(|poison| poison.looks.iter().map(|placed| &placed.look));
    let looks = looks.chain(pass.lenient.iter().map(|(_, look)| look));
    looks
        .flat_map(Look::nodes)
        .chain(pass.poison.iter().flat_map(|poison| [poison.row, poison.gate]).flatten())
        .collect()
}

/// Whether lanes of a row read values of this input that another lane of the row overwrites when the input's gradient
/// takes its place: the row's own value, or elements that labels choose.
pub fn is_read_by_row(program: &Program, place: usize) -> bool {
    let is_gathered = |node: &Node| match node {
        Node::At(x, _) => *program.node(*x) == Node::Input(place as u32),
        _ => false,
    };
    program.inputs[place].scope == Scope::Row || program.nodes.iter().any(is_gathered)
}
