//! The label inputs whose range is checked, and the classes they are compared with: the status word reports on these.

use crate::dispatch::{Compared, LabelInput, Labels};
use crate::expr::op::Kind;
use crate::expr::{Node, NodeId};
use crate::lower::Program;
use crate::plan::problem::Problem;
use crate::shape::Scope;

/// `None` if no label has a range.
pub(crate) fn labels(problem: &Problem<'_>) -> Option<Labels> {
    let (program, geometry) = (problem.program, &problem.geometry);
    let strides = |input: usize| problem.inputs[input].map_or([0; 4], |placed| placed.strides);
    let axes = geometry.axes[..if program.has_rows() { 3 } else { 4 }].to_vec();
    let classes = problem.phasing.shard.map_or(geometry.cols, |shard| shard.classes);
    let label = |(input, classes): (usize, u64)| {
        let of_elements = program.has_rows() && program.inputs[input].scope == Scope::Element;
        let per_row = if of_elements { geometry.cols } else { 1 };
        LabelInput { input, strides: strides(input), per_row, classes, compared: compared(program, input) }
    };
    let inputs: Vec<LabelInput> = program.checked_labels(classes).into_iter().map(label).collect();
    let by_row = indexing_nodes(program).iter().any(|id| *program.node(*id) == Node::RowIndex);
    (by_row || !inputs.is_empty()).then_some(Labels { word: 0, axes, classes, inputs, by_row })
}

/// Nodes that rows are indexed by, and the indices below them.
fn indexing_nodes(program: &Program) -> Vec<NodeId> {
    let gathers =
        program.nodes.iter().filter_map(|node| if let Node::At(_, label) = node { Some(*label) } else { None });
    let stored = program.outputs.iter().filter_map(|output| output.at_label.map(|(label, _)| label));
    let roots: Vec<NodeId> = gathers.chain(stored).collect();
    program.below(&roots, |id| program.kind(id) != Kind::Int)
}

/// Class indices and parameters that a label input is compared with.
fn compared(program: &Program, input: usize) -> Vec<Compared> {
    let with = |node: Node| match node {
        Node::Int(index) => Some(Compared::Index(index)),
        Node::Param(param) => Some(Compared::Param(param as usize)),
        _ => None,
    };
    program.compared_with(input).into_iter().filter_map(with).collect()
}
