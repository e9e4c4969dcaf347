//! Conditions combined, without repetition.

use super::op::{Kind, Op};
use super::{Graph, Node, NodeId};

/// Truth negated, without a double negation.
pub(crate) fn not(graph: &Graph, condition: NodeId) -> NodeId {
    match graph.node(condition) {
        Node::Op(Op::Not, [x, ..]) => x,
        Node::Bool(value) => graph.truth(!value).id,
        _ => (!graph.expr(condition)).id,
    }
}

/// Whether a condition may have no truth value: it reads a number, which may be NaN, or a label that may be out of
/// range.
pub(crate) fn may_be_nan(graph: &Graph, condition: NodeId) -> bool {
    graph.reachable(&[condition]).into_iter().any(|id| match graph.node(id) {
        Node::Input(_) => graph.kind(id) == Kind::Float,
        Node::At(..) | Node::InRange(..) => true,
        _ => false,
    })
}

/// Both conditions; a term that both have stands once.
pub(crate) fn and(graph: &Graph, a: NodeId, b: NodeId) -> NodeId {
    let holds = |x: NodeId| graph.node(x) == Node::Bool(true);
    match (a, b) {
        _ if a == b || holds(b) || terms(graph, a).contains(&b) => a,
        _ if holds(a) => b,
        _ => graph.expr(a).and(graph.expr(b)).id,
    }
}

/// Either condition; `None` if one of the two always holds.
pub(crate) fn or(graph: &Graph, a: NodeId, b: NodeId) -> Option<NodeId> {
    if a == b {
        return Some(a);
    }
    if a == not(graph, b) {
        return None;
    }
    let (of_a, of_b) = (terms(graph, a), terms(graph, b));
    // (x and c) or (x and not c) -> x
    let common: Vec<NodeId> = of_a.iter().copied().filter(|x| of_b.contains(x)).collect();
    let rest = |all: &[NodeId]| {
        let own = all.iter().copied().filter(|x| !common.contains(x));
        own.reduce(|a, b| and(graph, a, b))
    };
    let shared = common.iter().copied().reduce(|a, b| and(graph, a, b));
    match (shared, rest(&of_a), rest(&of_b)) {
        (Some(shared), None, _) | (Some(shared), _, None) => Some(shared),
        (Some(shared), Some(a), Some(b)) => Some(or(graph, a, b).map_or(shared, |either| and(graph, shared, either))),
        (None, ..) => Some(graph.expr(a).or(graph.expr(b)).id),
    }
}

/// The terms of a conjunction.
pub(crate) fn terms(graph: &Graph, condition: NodeId) -> Vec<NodeId> {
    let (mut terms, mut open) = (Vec::new(), vec![condition]);
    while let Some(id) = open.pop() {
        match graph.node(id) {
            Node::Op(Op::And, [a, b, _]) => open.extend([b, a]),
            _ => terms.push(id),
        }
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Scope;

    #[test]
    fn conditions_are_not_repeated() {
        let g = Graph::new();
        let of = |name: &str| g.input(name, Scope::Element, Kind::Float).gt(0.0).id;
        let (a, b) = (of("x"), of("m"));
        assert_eq!(and(&g, and(&g, a, b), b), and(&g, a, b));
        assert_eq!(or(&g, and(&g, a, b), and(&g, a, not(&g, b))), Some(a));
        assert_eq!(or(&g, a, not(&g, a)), None);
        assert_eq!(or(&g, a, and(&g, a, b)), Some(a));
        assert_eq!(not(&g, not(&g, a)), a);
    }
}
