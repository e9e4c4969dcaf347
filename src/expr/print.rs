//! Expressions as text.

use super::graph::Graph;
use super::node::{Node, NodeId};
use crate::op::Op;
use crate::text::putln;
use std::collections::HashMap;

impl Graph {
    /// The expression as text, each shared node once.
    pub fn print(&self, root: NodeId) -> String {
        let mut uses: HashMap<NodeId, usize> = HashMap::new();
        let order = self.reachable(&[root]);
        for id in &order {
            for operand in self.node(*id).operands() {
                *uses.entry(operand).or_default() += 1;
            }
        }
        let mut text: HashMap<NodeId, String> = HashMap::new();
        let mut lines = String::new();
        for &id in &order {
            let node = self.node(id);
            let mut line = self.print_node(&node, &text);
            let leaf = node.operands().next().is_none();
            if !leaf && uses.get(&id).copied().unwrap_or(0) > 1 {
                putln!(lines, "{id:?} = {line}");
                line = format!("{id:?}");
            }
            text.insert(id, line);
        }
        format!("{lines}{}", text[&root])
    }

    fn print_node(&self, node: &Node, text: &HashMap<NodeId, String>) -> String {
        let operands: Vec<&str> = node.operands().map(|id| text[&id].as_str()).collect();
        let list = operands.join(", ");
        match *node {
            Node::Const(bits) => format!("{}", f64::from_bits(bits)),
            Node::Int(value) => format!("{value}"),
            Node::Bool(value) => format!("{value}"),
            Node::Param(place) => self.params()[place as usize].0.clone(),
            Node::Input(place) => self.inputs()[place as usize].name.clone(),
            Node::ColIndex => "col".to_owned(),
            Node::Count(extent) => format!("{extent:?}").to_lowercase(),
            Node::Op(Op::Add, _) => format!("({} + {})", operands[0], operands[1]),
            Node::Op(Op::Sub, _) => format!("({} - {})", operands[0], operands[1]),
            Node::Op(Op::Mul, _) => format!("{} * {}", operands[0], operands[1]),
            Node::Op(Op::Div, _) => format!("({} / {})", operands[0], operands[1]),
            Node::Op(Op::Neg, _) => format!("-{}", operands[0]),
            Node::Op(op, _) => format!("{}({list})", format!("{op:?}").to_lowercase()),
            Node::Reduce(reduce, _) => format!("row_{}({list})", format!("{reduce:?}").to_lowercase()),
            Node::SumOver(to, _) => format!("sum_{}({list})", format!("{to:?}").to_lowercase()),
            Node::At(..) => format!("at({list})"),
            Node::Softmax(_) => format!("softmax({list})"),
            Node::SoftmaxMinusOne(_) => format!("softmax_minus_one({list})"),
            Node::Detach(_) => format!("detach({list})"),
            Node::StraightThrough(..) => format!("straight_through({list})"),
            Node::WithGradient(..) => format!("with_gradient({list})"),
            Node::Masked(..) => format!("masked({list})"),
        }
    }
}
