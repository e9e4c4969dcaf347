//! Scope and kind of a node from those of its operands, and its mistake if it has one.

use super::node::{InputDecl, Node, NodeId, ParamDecl, Reduce};
use super::threshold::Threshold;
use crate::expr::op::Kind;
use crate::shape::Scope;

/// Scope and kind of a node, and its mistake if it has one: a node with a mistake is kept, so that building goes on.
pub(super) fn infer(
    node: &Node,
    inputs: &[InputDecl],
    params: &[ParamDecl],
    scope: impl Fn(NodeId) -> Scope,
    kind: impl Fn(NodeId) -> Kind,
) -> (Scope, Kind, Option<String>) {
    let known = Known { scope: &scope, kind: &kind };
    let joined = node.operands().map(&scope).fold(Scope::Param, Scope::join);
    match *node {
        Node::Const(_) | Node::Count(_) => (Scope::Param, Kind::Float, None),
        Node::GroupRows => (Scope::Group, Kind::Float, None),
        Node::Param(index) => (Scope::Param, params[index as usize].kind, None),
        Node::Int(_) => (Scope::Param, Kind::Int, None),
        Node::Bool(_) => (Scope::Param, Kind::Bool, None),
        Node::Input(index) => {
            let decl = &inputs[index as usize];
            (decl.scope, decl.kind, None)
        }
        Node::ColIndex => (Scope::Column, Kind::Int, None),
        Node::RowIndex => (Scope::Row, Kind::Int, None),
        Node::Op(op, _) => {
            let kinds: Vec<Kind> = node.operands().map(&kind).collect();
            match op.kind(&kinds) {
                Ok(kind) => (joined, kind, None),
                Err(why) => (joined, Kind::Float, Some(format!("{op:?} {why}, found {kinds:?}"))),
            }
        }
        Node::Reduce(reduce, x) => {
            let kind = if reduce == Reduce::ArgMax { Kind::Int } else { Kind::Float };
            (Scope::Row, kind, known.fault_of_reduce(reduce, x))
        }
        Node::FoldOver(_, to, x) => (to, Kind::Float, known.fault_of_sum(to, x)),
        Node::Scan(..) => {
            let fault =
                node.operands().find_map(|id| known.no_number(id, "a scan").or_else(|| known.pair(id, "a scan")));
            (Scope::Element, Kind::Float, fault)
        }
        Node::Partner(x) => (Scope::Pair, kind(x), known.pair(x, "a partner")),
        Node::FoldPartners(_, x) => (Scope::Element, Kind::Float, known.no_number(x, "a fold over partners")),
        Node::ArgSort(_, x) => {
            (Scope::Element, Kind::Int, known.no_number(x, "a sort").or_else(|| known.pair(x, "a sort")))
        }
        Node::Permute(_, [x, _]) => (
            Scope::Element,
            Kind::Float,
            known.no_number(x, "a permutation").or_else(|| known.pair(x, "a permutation")),
        ),
        Node::At(x, label) => (Scope::Row, kind(x), known.fault_of_at(x, label)),
        Node::InRange(x, _) => {
            let is_index = kind(x) == Kind::Int && matches!(scope(x), Scope::Row | Scope::Element);
            let found = (scope(x), kind(x));
            let fault = (!is_index).then(|| format!("a class index per row or element has a range, found {found:?}"));
            (scope(x), Kind::Int, fault)
        }
        Node::Softmax(x) | Node::SoftmaxMinusOne(x) => {
            (Scope::Element, Kind::Float, known.no_number(x, "softmax").or_else(|| known.pair(x, "softmax")))
        }
        Node::Detach(x) => (scope(x), kind(x), None),
        Node::StraightThrough(value, gradient) => {
            let fault = (scope(value) != scope(gradient))
                .then(|| "straight_through takes two values of one scope".to_owned())
                .or_else(|| known.no_number(value, "straight_through"))
                .or_else(|| known.no_number(gradient, "straight_through"));
            (scope(value), Kind::Float, fault)
        }
        Node::WithGradient(value, wrt, gradient) => {
            let fits = scope(value) == joined && scope(wrt) <= scope(value) && scope(gradient) <= scope(value);
            let fault = (!fits)
                .then(|| "with_gradient: the value must be as far in as its input and its derivative".to_owned())
                .or_else(|| node.operands().find_map(|id| known.no_number(id, "with_gradient")));
            (scope(value), Kind::Float, fault)
        }
        Node::Masked(condition, x) => {
            let fault = (kind(condition) != Kind::Bool).then(|| "masked takes a truth value".to_owned());
            (joined, Kind::Float, fault.or_else(|| known.no_number(x, "masked")))
        }
    }
}

/// Scopes and kinds of the operands, and the mistakes that they make.
struct Known<'a> {
    scope: &'a dyn Fn(NodeId) -> Scope,
    kind: &'a dyn Fn(NodeId) -> Kind,
}

impl Known<'_> {
    fn scope(&self, id: NodeId) -> Scope {
        (self.scope)(id)
    }

    fn kind(&self, id: NodeId) -> Kind {
        (self.kind)(id)
    }

    fn is_element(&self, id: NodeId) -> bool {
        self.scope(id).has_columns()
    }

    fn no_number(&self, id: NodeId, what: &str) -> Option<String> {
        let found = self.kind(id);
        (found != Kind::Float).then(|| format!("{what} takes numbers, found {found:?}"))
    }

    /// The mistake of taking a value per pair where one per element is taken.
    fn pair(&self, id: NodeId, what: &str) -> Option<String> {
        let message = || format!("{what} of a value per pair; fold it over the partners first (`sum_partners`)");
        (self.scope(id) == Scope::Pair).then(message)
    }

    fn fault_of_reduce(&self, reduce: Reduce, x: NodeId) -> Option<String> {
        if !self.is_element(x) {
            let found = self.scope(x);
            return Some(format!("{reduce:?} takes elements to their row, found a value of scope {found:?}"));
        }
        if reduce == Reduce::Threshold(Threshold::TopK(0)) {
            return Some("top_k_threshold(0): elements are ranked from 1 on".to_owned());
        }
        self.no_number(x, "a reduction").or_else(|| self.pair(x, "a reduction"))
    }

    fn fault_of_sum(&self, to: Scope, x: NodeId) -> Option<String> {
        let found = self.scope(x);
        let fits = match to {
            _ if found == Scope::Pair => false,
            Scope::Total => found > to,
            Scope::Group => matches!(found, Scope::Row | Scope::GroupColumn | Scope::Element),
            Scope::Column => matches!(found, Scope::GroupColumn | Scope::Element),
            Scope::GroupColumn => found == Scope::Element,
            _ => false,
        };
        if !fits {
            return Some(format!(
                "sum_over({to:?}), or logsumexp_over, of a value of scope {found:?}; it goes to Group from rows, \
                 elements and values per group and column, to Column from elements and values per group and column, to \
                 GroupColumn from elements, to Total from further in"
            ));
        }
        self.no_number(x, "sum_over")
    }

    fn fault_of_at(&self, x: NodeId, label: NodeId) -> Option<String> {
        if self.kind(label) != Kind::Int || self.scope(label) > Scope::Row {
            let way = "y.equals(graph.index(k)).select(x.column(k), …)";
            return Some(format!(
                "`at` takes one class index per row; for an index per element, choose among fixed columns: {way}"
            ));
        }
        let found = self.scope(x);
        if !self.is_element(x) {
            return Some(format!("`at` takes an element of a row, found a value of scope {found:?}"));
        }
        if let Some(fault) = self.pair(x, "`at`") {
            return Some(fault);
        }
        // The column's own index at the label is the label.
        if self.kind(x) == Kind::Int { None } else { self.no_number(x, "`at`") }
    }
}
