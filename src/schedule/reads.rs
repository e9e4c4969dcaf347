//! The tensors that a pass reads, and its number of bindings.

use crate::error::{Error, Result};
use crate::expr::{Node, NodeId};
use crate::limits::Limits;
use crate::lower::{Look, Pass, Program};
use crate::shape::Scope;

/// Storage buffers that a pass binds: inputs, outputs, and `work` and `scalars` if it uses them.
pub(super) fn bindings(program: &Program, pass: &Pass) -> usize {
    let shared = usize::from(uses_work(program, pass)) + usize::from(uses_scalars(program, pass));
    shared + tensor_inputs(program, pass).len() + pass.outputs.len()
}

/// Refuses a pass that binds more storage buffers than the device allows.
pub(super) fn check_bindings(program: &Program, pass: &Pass, limits: &Limits) -> Result<()> {
    let (needed, allowed) = (bindings(program, pass) as u64, u64::from(limits.storage_buffers));
    if needed <= allowed {
        return Ok(());
    }
    let what = format!("a pass of {}", program.name);
    Err(Error::Limit { what, needed, allowed, limit: "max_storage_buffers_per_shader_stage" })
}

fn reads(program: &Program, pass: &Pass, wanted: impl Fn(&Node, Scope) -> bool) -> bool {
    program.within(pass, &roots(program, pass)).into_iter().any(|id| wanted(program.node(id), program.scope(id)))
}

/// Whether a pass leaves sums or states in `work`, or reads sums over groups, sums by column or saved row values there.
pub fn uses_work(program: &Program, pass: &Pass) -> bool {
    let sums = |node: &Node, _| match node {
        Node::FoldOver(_, to, _) => *to > Scope::Total,
        node => *node == Node::GroupRows,
    };
    // Two rows may share a word of a 16-bit output.
    let edges = program.has_rows() && pass.outputs.iter().any(|&o| program.outputs[o].scope == Scope::Element);
    let leaves = !pass.totals.is_empty() || !pass.stages.is_empty() || edges;
    leaves || pass.known.is_some() || reads(program, pass, sums) || reads_row_groups(program, pass)
}

/// Whether rows of a pass read values of their groups, where groups have unequal lengths and `work` says which is a row's.
pub fn reads_row_groups(program: &Program, pass: &Pass) -> bool {
    let is_of_group = |_: &Node, scope| scope == Scope::Group;
    program.ragged.is_some() && pass.over.has_rows() && reads(program, pass, is_of_group)
}

/// Whether a pass reads scalars, may report a label in the status word, or notes gradients in the found word.
pub fn uses_scalars(program: &Program, pass: &Pass) -> bool {
    let is_scalar = |node: &Node, scope| match node {
        Node::At(..) | Node::InRange(..) | Node::FoldOver(_, Scope::Total, _) => true,
        Node::Input(_) => scope == Scope::Scalar,
        _ => false,
    };
    program.notes_any(&pass.outputs) || reads(program, pass, is_scalar)
}

/// Inputs that a pass reads from tensors of their own; scalars share one buffer.
pub fn tensor_inputs(program: &Program, pass: &Pass) -> Vec<usize> {
    let mut inputs = Vec::new();
    for id in program.within(pass, &roots(program, pass)) {
        if let Node::Input(input) = *program.node(id) {
            if program.scope(id) > Scope::Total {
                inputs.push(input as usize);
            }
        }
    }
    inputs.sort_unstable();
    inputs.dedup();
    inputs
}

/// The [`tensor_inputs`] that are read at every column (or element), not only at labels.
pub fn visited_inputs(program: &Program, pass: &Pass) -> Vec<usize> {
    let nodes = program.within(pass, &roots(program, pass));
    let is_visited = |input: &usize| {
        let is_input = |id: &NodeId| *program.node(*id) == Node::Input(*input as u32);
        let visits = |id: &NodeId| !matches!(program.node(*id), Node::At(..));
        nodes.iter().filter(|id| visits(id)).any(|id| program.node(*id).operands().any(|operand| is_input(&operand)))
            || roots(program, pass).iter().any(is_input)
    };
    let spans = |input: &usize| program.inputs[*input].scope.has_columns();
    tensor_inputs(program, pass).into_iter().filter(|input| spans(input) && is_visited(input)).collect()
}

/// Roots of a pass: operands of its sums, its stages, its outputs, and its looks.
pub fn roots(program: &Program, pass: &Pass) -> Vec<NodeId> {
    let mut roots: Vec<NodeId> = pass.totals.iter().flat_map(|t| program.node(*t).operands()).collect();
    roots.extend(pass.stages.iter().flat_map(|stage| stage.reduces.iter().copied().chain(stage.left())));
    for &output in &pass.outputs {
        let output = &program.outputs[output];
        roots.push(output.node);
        roots.extend(output.at_label.iter().flat_map(|(label, value)| [*label, *value]));
    }
    roots.extend(looked_at(pass));
    roots.extend(&pass.saves.nodes);
    roots
}

/// Nodes of a pass's looks, with the row values and gates of its poison.
pub fn looked_at(pass: &Pass) -> Vec<NodeId> {
    let looks = pass.poison.iter().flat_map(|poison| poison.looks.iter().map(|placed| &placed.look));
    let looks = looks.chain(pass.lenient.iter().map(|(_, look)| look));
    looks
        .flat_map(Look::nodes)
        .chain(pass.poison.iter().flat_map(|poison| [poison.row, poison.gate]).flatten())
        .collect()
}

/// Whether an in-input gradient of this input overwrites values that other lanes of the row read: the row's own value,
/// or elements at labels.
pub fn is_read_by_row(program: &Program, input: usize) -> bool {
    let is_gathered = |node: &Node| match node {
        Node::At(x, _) => *program.node(*x) == Node::Input(input as u32),
        _ => false,
    };
    program.inputs[input].scope == Scope::Row || program.nodes.iter().any(is_gathered)
}
