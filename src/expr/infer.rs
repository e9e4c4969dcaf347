//! Scope and kind of a node from those of its operands, and what is wrong with it.

use super::node::{InputDecl, Node, NodeId, ParamDecl, Reduce};
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
    let joined = node.operands().map(&scope).fold(Scope::Param, Scope::join);
    let no_int = |id: NodeId, what: &str| {
        (kind(id) != Kind::Float).then(|| format!("{what} takes numbers, found {:?}", kind(id)))
    };
    match *node {
        Node::Const(_) | Node::Count(_) => (Scope::Param, Kind::Float, None),
        Node::Param(place) => (Scope::Param, params[place as usize].kind, None),
        Node::Int(_) => (Scope::Param, Kind::Int, None),
        Node::Bool(_) => (Scope::Param, Kind::Bool, None),
        Node::Input(place) => {
            let decl = &inputs[place as usize];
            (decl.scope, decl.kind, None)
        }
        Node::ColIndex => (Scope::Column, Kind::Int, None),
        Node::Op(op, _) => {
            let kinds: Vec<Kind> = node.operands().map(&kind).collect();
            match op.kind(&kinds) {
                Ok(kind) => (joined, kind, None),
                Err(why) => (joined, Kind::Float, Some(format!("{op:?} {why}, found {kinds:?}"))),
            }
        }
        Node::Reduce(reduce, x) => {
            let mut fault = no_int(x, "a reduction");
            if !matches!(scope(x), Scope::Element | Scope::Column) {
                let found = scope(x);
                fault = Some(format!("{reduce:?} takes elements to their row, found a value of scope {found:?}"));
            }
            let kind = if reduce == Reduce::ArgMax { Kind::Int } else { Kind::Float };
            (Scope::Row, kind, fault)
        }
        Node::SumOver(to, x) => {
            let mut fault = no_int(x, "sum_over");
            if !matches!(to, Scope::Group | Scope::Total) || scope(x) <= to {
                let found = scope(x);
                fault = Some(format!(
                    "sum_over({to:?}) of a value of scope {found:?}; it goes to Group or Total, from further in"
                ));
            }
            (to, Kind::Float, fault)
        }
        Node::At(x, label) => {
            let fault = if kind(label) != Kind::Int || scope(label) > Scope::Row {
                Some("`at` takes one class index a row".to_owned())
            } else if !matches!(scope(x), Scope::Element | Scope::Column) {
                let found = scope(x);
                Some(format!("`at` takes an element of a row, found a value of scope {found:?}"))
            } else if (scope(x), kind(x)) == (Scope::Column, Kind::Int) {
                None // the column's own index at the label is the label
            } else {
                no_int(x, "`at`")
            };
            (Scope::Row, kind(x), fault)
        }
        Node::Softmax(x) | Node::SoftmaxMinusOne(x) => (Scope::Element, Kind::Float, no_int(x, "softmax")),
        Node::Detach(x) => (scope(x), kind(x), None),
        Node::StraightThrough(value, gradient) => {
            let fault = (scope(value) != scope(gradient))
                .then(|| "straight_through takes two values of one scope".to_owned())
                .or_else(|| no_int(value, "straight_through"))
                .or_else(|| no_int(gradient, "straight_through"));
            (scope(value), Kind::Float, fault)
        }
        Node::WithGradient(value, wrt, gradient) => {
            let fits = scope(value) == joined && scope(wrt) <= scope(value) && scope(gradient) <= scope(value);
            let fault = (!fits)
                .then(|| "with_gradient: the value must be as far in as its input and its derivative".to_owned())
                .or_else(|| node.operands().find_map(|id| no_int(id, "with_gradient")));
            (scope(value), Kind::Float, fault)
        }
        Node::Masked(condition, x) => {
            let fault = (kind(condition) != Kind::Bool).then(|| "masked takes a truth value".to_owned());
            (joined, Kind::Float, fault.or_else(|| no_int(x, "masked")))
        }
    }
}
