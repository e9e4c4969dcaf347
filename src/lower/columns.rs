//! Programs for a range of the columns: a shard of the classes, or a range that fits a binding.

use crate::expr::simplify::simplify;
use crate::expr::{Graph, Node, NodeId};
use crate::shape::Scope;
use std::collections::HashMap;

/// Gathers as sums over the columns, which add up over ranges: the label's column is in one range only.
///
/// `x.at(label)` becomes the sum of `x` where the column is the label, else 0. A sum over the rows for each column is known
/// at all columns, and is gathered as ever. The label itself stays a gather, `col_index().at(label)`, so that it is
/// checked as any label is; a fixed column needs no check.
pub(super) fn spread_gathers(graph: &Graph, root: NodeId) -> NodeId {
    let mut done: HashMap<NodeId, NodeId> = HashMap::new();
    for id in graph.reachable(&[root]) {
        let new = match graph.node(id) {
            Node::At(x, label) if !is_whole(graph, x) => {
                let column = graph.col_index();
                let label = graph.expr(done[&label]);
                let is_fixed = matches!(graph.node(label.id), Node::Int(_));
                let here = column.equals(if is_fixed { label } else { column.at(label) });
                here.select(graph.expr(done[&x]), 0.0).sum()
            }
            other => graph.add(other.map(|operand| done[&operand])),
        };
        done.insert(id, new.id);
    }
    debug_assert!(graph.scope(done[&root]) <= Scope::Element);
    simplify(graph, &[done[&root]])[0]
}

/// Whether a dispatch that sees a range of the columns has a value at all of them.
fn is_whole(graph: &Graph, x: NodeId) -> bool {
    match graph.node(x) {
        Node::ColIndex => true,
        Node::FoldOver(_, to, _) => to.has_columns(),
        _ => false,
    }
}
