//! Expressions as text.

use super::graph::Graph;
use super::node::{Classes, InputDecl, Node, NodeId, ParamDecl, Reduce};
use super::scan::Direction;
use crate::expr::op::Op;
use crate::text::putln;
use std::collections::HashMap;

impl Graph {
    /// The expression as text, each shared node once.
    pub fn print(&self, root: NodeId) -> String {
        let order: Vec<(NodeId, Node)> = self.reachable(&[root]).into_iter().map(|id| (id, self.node(id))).collect();
        print_nodes(&order, &self.params(), &self.inputs())
    }
}

/// Nodes as text, operands first, the root last; each shared node has a line of its own.
pub(crate) fn print_nodes(order: &[(NodeId, Node)], params: &[ParamDecl], inputs: &[InputDecl]) -> String {
    let mut uses: HashMap<NodeId, usize> = HashMap::new();
    for operand in order.iter().flat_map(|(_, node)| node.operands()) {
        *uses.entry(operand).or_default() += 1;
    }
    let mut text: HashMap<NodeId, String> = HashMap::new();
    let mut lines = String::new();
    let mut root = String::new();
    for (id, node) in order {
        let operands: Vec<&str> = node.operands().map(|id| text[&id].as_str()).collect();
        let mut line = node_text(node, &operands, params, inputs);
        let leaf = node.operands().next().is_none();
        if !leaf && uses.get(id).copied().unwrap_or(0) > 1 {
            putln!(lines, "{id:?} = {line}");
            line = format!("{id:?}");
        }
        root.clone_from(&line);
        text.insert(*id, line);
    }
    format!("{lines}{root}")
}

/// One node over the texts of its operands.
fn node_text(node: &Node, operands: &[&str], params: &[ParamDecl], inputs: &[InputDecl]) -> String {
    let list = operands.join(", ");
    match *node {
        Node::Const(bits) => format!("{}", f64::from_bits(bits)),
        Node::Int(value) => format!("{value}"),
        Node::Bool(value) => format!("{value}"),
        Node::Param(index) => params[index as usize].name.clone(),
        Node::Input(index) => inputs[index as usize].name.clone(),
        Node::ColIndex => "col".to_owned(),
        Node::GroupRows => "own_grouprows".to_owned(),
        Node::RowIndex => "row".to_owned(),
        Node::InRange(_, Classes::Columns) => format!("in_columns({list})"),
        Node::InRange(_, Classes::Between) => format!("in_thresholds({list})"),
        Node::InRange(_, Classes::Exactly(classes)) => format!("in_range({list}, {classes})"),
        Node::Count(extent) => format!("{extent:?}").to_lowercase(),
        Node::Op(Op::Add, _) => format!("({} + {})", operands[0], operands[1]),
        Node::Op(Op::Sub, _) => format!("({} - {})", operands[0], operands[1]),
        Node::Op(Op::Mul, _) => format!("{} * {}", operands[0], operands[1]),
        Node::Op(Op::Div, _) => format!("({} / {})", operands[0], operands[1]),
        Node::Op(Op::Neg, _) => format!("-{}", operands[0]),
        Node::Op(op, _) => format!("{}({list})", format!("{op:?}").to_lowercase()),
        Node::Reduce(Reduce::Threshold(threshold), _) => {
            format!("row_{}({list})", format!("{threshold:?}").to_lowercase())
        }
        Node::Reduce(reduce, _) => format!("row_{}({list})", format!("{reduce:?}").to_lowercase()),
        Node::FoldOver(fold, to, _) => format!("{}({list})", format!("{fold:?}_{to:?}").to_lowercase()),
        Node::Scan(scan, direction, _) => {
            let order = if direction == Direction::Forward { "" } else { "_reverse" };
            format!("scan_{}{order}({list})", format!("{scan:?}").to_lowercase())
        }
        Node::Partner(_) => format!("partner({list})"),
        Node::FoldPartners(fold, _) => format!("{}_partners({list})", format!("{fold:?}").to_lowercase()),
        Node::ArgSort(order, _) => format!("argsort_{}({list})", format!("{order:?}").to_lowercase()),
        Node::Permute(way, _) => format!("{}({list})", format!("{way:?}").to_lowercase()),
        Node::At(..) => format!("at({list})"),
        Node::Softmax(_) => format!("softmax({list})"),
        Node::SoftmaxMinusOne(_) => format!("softmax_minus_one({list})"),
        Node::Detach(_) => format!("detach({list})"),
        Node::StraightThrough(..) => format!("straight_through({list})"),
        Node::WithGradient(..) => format!("with_gradient({list})"),
        Node::Masked(..) => format!("masked({list})"),
    }
}
