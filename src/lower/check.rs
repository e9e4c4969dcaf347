//! What must hold of an expression before it is rewritten, and where it looks at what it reads.

use super::program::Target;
use crate::error::{Error, Result};
use crate::expr::{Expr, Graph, Node, NodeId, Scope};
use crate::loss::RowAxis;
use crate::op::Kind;
use crate::simplify::simplify;
use std::collections::{HashMap, HashSet};

/// Row values where there are rows, and no sum over other rows where a mask would not reach.
pub(super) fn check_rows(graph: &Graph, name: &str, row_axis: RowAxis, outputs: &[(Target, NodeId)]) -> Result<()> {
    let roots: Vec<NodeId> = outputs.iter().map(|o| o.1).collect();
    let fault = |message: &str| Err(Error::Expr { loss: name.to_owned(), message: message.to_owned() });
    for id in graph.reachable(&roots) {
        let of_rows = matches!(graph.scope(id), Scope::Row | Scope::Column | Scope::Group)
            || matches!(graph.node(id), Node::Softmax(_) | Node::SoftmaxMinusOne(_));
        if row_axis == RowAxis::None && of_rows {
            return fault("row, column and group values need a row axis: say which with `row_axis`");
        }
        if let Node::Masked(_, x) = graph.node(id) {
            if holds_sum_over(graph, x) {
                return fault("a masked value may not contain sum_over: the mask would not reach the other rows");
            }
        }
    }
    Ok(())
}

/// Whether a value holds a sum over other rows that carries a gradient.
fn holds_sum_over(graph: &Graph, root: NodeId) -> bool {
    let (mut seen, mut open) = (HashSet::new(), vec![root]);
    while let Some(id) = open.pop() {
        match graph.node(id) {
            Node::SumOver(..) => return true,
            Node::Detach(_) => {}
            node if seen.insert(id) => open.extend(node.operands()),
            _ => {}
        }
    }
    false
}

/// Where the loss depends on what it reads: the union of the masks, or `None` where something is not masked.
pub(super) fn valid_where(graph: &Graph, root: NodeId) -> Option<NodeId> {
    // Operands first, and each node once: a node that is shared has many paths to it.
    let mut needs: HashMap<NodeId, Need<'_>> = HashMap::new();
    let mut open = vec![(root, false)];
    while let Some((id, ready)) = open.pop() {
        if ready {
            needs.insert(id, need(graph, id, &needs));
        } else if !needs.contains_key(&id) {
            open.push((id, true));
            open.extend(carries(graph, id).into_iter().rev().map(|operand| (operand, false)));
        }
    }
    match needs[&root] {
        Need::Where(condition) => Some(simplify(graph, &[condition.id])[0]),
        Need::Nothing | Need::Always => None,
    }
}

/// Where a value depends on numbers that are read.
#[derive(Clone, Copy)]
enum Need<'g> {
    Nothing,
    Where(Expr<'g>),
    Always,
}

/// The operands whose numbers a value carries on.
fn carries(graph: &Graph, id: NodeId) -> Vec<NodeId> {
    match graph.node(id) {
        // A comparison chooses; it does not carry a value on.
        _ if graph.kind(id) == Kind::Bool => Vec::new(),
        Node::Masked(_, x) => vec![x],
        node @ (Node::Op(..) | Node::SumOver(..) | Node::Reduce(..) | Node::Detach(_)) => node.operands().collect(),
        _ => Vec::new(),
    }
}

fn need<'g>(graph: &'g Graph, id: NodeId, of: &HashMap<NodeId, Need<'g>>) -> Need<'g> {
    match graph.node(id) {
        Node::Const(_) | Node::Int(_) | Node::Bool(_) | Node::Param(_) | Node::Count(_) => Need::Nothing,
        Node::Input(_) if graph.scope(id) <= Scope::Scalar || graph.kind(id) == Kind::Int => Need::Nothing,
        Node::ColIndex => Need::Nothing,
        _ if graph.kind(id) == Kind::Bool => Need::Nothing,
        Node::Masked(condition, x) => match of[&x] {
            Need::Nothing => Need::Nothing,
            Need::Where(inner) => Need::Where(graph.expr(condition).and(inner)),
            Need::Always => Need::Where(graph.expr(condition)),
        },
        Node::Op(..) | Node::SumOver(..) | Node::Reduce(..) | Node::Detach(_) => {
            carries(graph, id).iter().fold(Need::Nothing, |all, operand| match (all, of[operand]) {
                (Need::Nothing, other) | (other, Need::Nothing) => other,
                (Need::Where(a), Need::Where(b)) => Need::Where(a.or(b)),
                _ => Need::Always,
            })
        }
        _ => Need::Always,
    }
}
