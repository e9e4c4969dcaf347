//! The label inputs that index a row, and the classes they are compared with: the status word reports on these.

use crate::dispatch::{Compared, LabelInput, Labels};
use crate::expr::op::{Kind, Op};
use crate::expr::{Node, NodeId};
use crate::lower::Program;
use crate::plan::problem::Problem;

/// `None` if no label indexes a row.
pub(crate) fn labels(problem: &Problem<'_>) -> Option<Labels> {
    let (program, geometry) = (problem.program, &problem.geometry);
    let strides = |input: usize| problem.inputs[input].map_or([0; 4], |placed| placed.strides);
    let label = |input: usize| LabelInput { input, strides: strides(input), compared: compared(program, input) };
    let inputs: Vec<LabelInput> = indexing(program).into_iter().map(label).collect();
    let axes = geometry.axes[..if program.has_rows() { 3 } else { 4 }].to_vec();
    let classes = problem.phasing.shard.map_or(geometry.cols, |shard| shard.classes);
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

/// Indices of the label inputs that index a row.
fn indexing(program: &Program) -> Vec<usize> {
    let input = |id: NodeId| match *program.node(id) {
        Node::Input(input) if program.kind(id) == Kind::Int => Some(input as usize),
        _ => None,
    };
    indexing_nodes(program).into_iter().filter_map(input).collect()
}

/// Class indices and parameters that a label input is compared with.
fn compared(program: &Program, input: usize) -> Vec<Compared> {
    let is_label = |id: NodeId| *program.node(id) == Node::Input(input as u32);
    let index = |id: NodeId| match *program.node(id) {
        Node::Int(index) => Some(Compared::Index(index)),
        Node::Param(param) => Some(Compared::Param(param as usize)),
        _ => None,
    };
    let pairs = program.nodes.iter().filter_map(|node| match *node {
        Node::Op(Op::Eq, [a, b, _]) if is_label(a) => index(b),
        Node::Op(Op::Eq, [a, b, _]) if is_label(b) => index(a),
        _ => None,
    });
    pairs.collect()
}
