//! The hash-consed graph: every node once, with its scope and kind, over declared inputs and parameters.

use super::handle::Expr;
use super::infer::infer;
use super::node::{Extent, InputDecl, Node, NodeId, ParamDecl, Reduce};
use crate::error::Error;
use crate::expr::op::{Kind, Op};
use crate::shape::{KERNEL_NUMBERS, Scope, ShapeRule, kernels_see};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

#[derive(Default)]
struct Inner {
    nodes: Vec<Node>,
    scopes: Vec<Scope>,
    kinds: Vec<Kind>,
    known: HashMap<Node, NodeId>,
    inputs: Vec<InputDecl>,
    params: Vec<ParamDecl>,
    /// Labels of an unsigned type.
    unsigned: HashSet<String>,
    /// Whether groups have unequal lengths.
    ragged_groups: bool,
    /// Selections that autodiff made: 0 where an adjoint is 0, else a multiple of the adjoint.
    multiples: HashSet<NodeId>,
    fault: Option<String>,
}

/// Class indices that a label of either type may hold.
const LABELS: RangeInclusive<i64> = i32::MIN as i64..=u32::MAX as i64;

impl Inner {
    /// Class indices that a node may be.
    fn indices(&self, id: NodeId) -> RangeInclusive<i64> {
        match self.nodes[id.index()] {
            Node::Int(index) => index..=index,
            Node::Input(index) if self.unsigned.contains(&self.inputs[index as usize].name) => 0..=i64::from(u32::MAX),
            Node::Input(_) => i64::from(i32::MIN)..=i64::from(i32::MAX),
            Node::ColIndex | Node::RowIndex | Node::Reduce(Reduce::ArgMax, _) => 0..=i64::from(i32::MAX),
            Node::Detach(x) | Node::InRange(x, _) | Node::Partner(x) => self.indices(x),
            // The label itself, once it is known to be a class.
            Node::At(..) => 0..=i64::from(i32::MAX),
            Node::Op(Op::Select, [_, a, b]) => {
                let (a, b) = (self.indices(a), self.indices(b));
                *a.start().min(b.start())..=*a.end().max(b.end())
            }
            _ => LABELS,
        }
    }

    /// The operands of a comparison of two indices.
    fn compared_indices(&self, node: &Node) -> Option<(Op, NodeId, NodeId)> {
        let Node::Op(op @ (Op::Eq | Op::Lt | Op::Le), [a, b, _]) = *node else { return None };
        [a, b].iter().all(|id| self.kinds[id.index()] == Kind::Int).then_some((op, a, b))
    }

    /// The mistake of comparing a signed label with an unsigned one: the same bits are different indices.
    fn mixed_labels(&self, node: &Node) -> Option<String> {
        let (op, a, b) = self.compared_indices(node)?;
        // An option's index is checked against the type of the label that it is compared with.
        if [a, b].iter().any(|id| matches!(self.nodes[id.index()], Node::Param(_))) {
            return (op != Op::Eq)
                .then(|| "compares an index that is an option by its order; it may be equal, only".into());
        }
        let (a, b) = (self.indices(a), self.indices(b));
        let mixed = a.start().min(b.start()) < &0 && a.end().max(b.end()) > &i64::from(i32::MAX);
        mixed.then(|| "compares a signed label with an unsigned one; make them one type".to_owned())
    }

    /// The truth of a comparison of two indices that is the same for all that they may be. Kernels compare bits, in which
    /// −1 equals the largest u32; once such comparisons are gone, different indices have different bits.
    fn known_comparison(&self, node: &Node) -> Option<bool> {
        let (op, a, b) = self.compared_indices(node)?;
        let (a, b) = (self.indices(a), self.indices(b));
        match op {
            Op::Lt if a.end() < b.start() => Some(true),
            Op::Lt if a.start() >= b.end() => Some(false),
            Op::Le if a.end() <= b.start() => Some(true),
            Op::Le if a.start() > b.end() => Some(false),
            Op::Eq if a.end() < b.start() || b.end() < a.start() => Some(false),
            _ => None,
        }
    }
}

impl Inner {
    /// A comparison of indices whose truth is known, as a node of its scope: an order of the inner operand with itself. One
    /// of equality is a literal.
    fn settled(&self, node: &Node, truth: bool) -> Node {
        let Some((Op::Lt | Op::Le, a, b)) = self.compared_indices(node) else { return Node::Bool(truth) };
        let scope = |id: NodeId| self.scopes[id.index()];
        let inner = if scope(a) >= scope(b) { a } else { b };
        if scope(inner) != scope(a).join(scope(b)) || scope(inner) == Scope::Param {
            return Node::Bool(truth);
        }
        Node::Op(if truth { Op::Le } else { Op::Lt }, [inner, inner, NodeId::NONE])
    }
}

/// A graph of expressions over named inputs and parameters.
#[derive(Default)]
pub struct Graph {
    inner: RefCell<Inner>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// Declares that groups have unequal lengths: their numbers of rows are values of scope `Group`.
    pub(crate) fn declare_ragged_groups(&self) {
        self.inner.borrow_mut().ragged_groups = true;
    }

    /// Whether groups have unequal lengths.
    pub(super) fn has_ragged_groups(&self) -> bool {
        self.inner.borrow().ragged_groups
    }

    /// Where values of scope `to` that values of scope `from` read count: in a group that has rows, if these are groups of
    /// unequal length and rows read them. `None` where they count everywhere.
    pub(crate) fn group_has_rows(&self, to: Scope, from: Scope) -> Option<Expr<'_>> {
        let may_be_empty =
            self.has_ragged_groups() && to == Scope::Group && matches!(from, Scope::Row | Scope::Element | Scope::Pair);
        may_be_empty.then(|| self.count(Extent::GroupRows).gt(0.0))
    }

    /// The inputs declared so far.
    pub fn inputs(&self) -> Vec<InputDecl> {
        self.inner.borrow().inputs.clone()
    }

    /// The parameters declared so far, with their values.
    pub fn params(&self) -> Vec<ParamDecl> {
        self.inner.borrow().params.clone()
    }

    /// The node behind a handle.
    pub fn node(&self, id: NodeId) -> Node {
        self.inner.borrow().nodes[id.index()]
    }

    /// Marks a selection that autodiff made: 0 where an adjoint is 0, else a multiple of the adjoint.
    pub(crate) fn mark_multiple(&self, selection: NodeId) {
        self.inner.borrow_mut().multiples.insert(selection);
    }

    /// Whether [`Graph::mark_multiple`] marked this selection.
    pub(crate) fn is_multiple(&self, selection: NodeId) -> bool {
        self.inner.borrow().multiples.contains(&selection)
    }

    /// The scope of a node.
    pub fn scope(&self, id: NodeId) -> Scope {
        self.inner.borrow().scopes[id.index()]
    }

    /// The kind of a node.
    pub fn kind(&self, id: NodeId) -> Kind {
        self.inner.borrow().kinds[id.index()]
    }

    /// The first mistake made in building, as an error of that loss.
    pub fn verify(&self, loss: &str) -> Result<(), Error> {
        match &self.inner.borrow().fault {
            None => Ok(()),
            Some(message) => Err(Error::Expr { loss: loss.to_owned(), message: message.clone() }),
        }
    }

    /// The first literal that is not a normal f32 or a label's index, as an error of that loss. Called before autodiff
    /// and simplification, which make literals of their own.
    pub(crate) fn verify_literals(&self, loss: &str) -> Result<(), Error> {
        let wrong = |node: &Node| match *node {
            Node::Int(index) if !LABELS.contains(&index) => {
                Some(format!("the class index {index} is neither an i32 nor a u32"))
            }
            Node::Const(bits) if f64::from_bits(bits).is_finite() && !kernels_see(f64::from_bits(bits)) => {
                Some(format!("the number {:e} must be {KERNEL_NUMBERS}", f64::from_bits(bits)))
            }
            _ => None,
        };
        match self.inner.borrow().nodes.iter().find_map(wrong) {
            None => Ok(()),
            Some(message) => Err(Error::Expr { loss: loss.to_owned(), message }),
        }
    }

    /// Declares that the label of that name holds no negative index.
    pub(crate) fn declare_unsigned(&self, name: &str) {
        self.inner.borrow_mut().unsigned.insert(name.to_owned());
    }

    /// Keeps a mistake, if it is the first.
    pub(super) fn fault(&self, message: &str) {
        self.inner.borrow_mut().fault.get_or_insert_with(|| message.to_owned());
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.inner.borrow().nodes.len()
    }

    /// Whether there is no node yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Index of the input of that name, declared on first use.
    pub(super) fn declare_input(&self, name: &str, scope: Scope, kind: Kind) -> u32 {
        let mut inner = self.inner.borrow_mut();
        let index = match inner.inputs.iter().position(|i| i.name == name) {
            Some(index) => {
                let known = (inner.inputs[index].scope, inner.inputs[index].kind);
                if known != (scope, kind) {
                    let message =
                        format!("input `{name}` is {known:?} in one place and {:?} in another", (scope, kind));
                    inner.fault.get_or_insert(message);
                }
                index
            }
            None => {
                let (name, shape_rule) = (name.to_owned(), ShapeRule::Broadcast);
                let unsigned = inner.unsigned.contains(&name);
                inner.inputs.push(InputDecl { name, scope, kind, shape_rule, unsigned, classes: None });
                inner.inputs.len() - 1
            }
        };
        index as u32
    }

    /// Index of the parameter of that name, declared on first use.
    pub(super) fn declare_param(&self, name: &str, kind: Kind, value: f64) -> u32 {
        let mut inner = self.inner.borrow_mut();
        let index = match inner.params.iter().position(|p| p.name == name) {
            Some(index) => {
                let known = inner.params[index].kind;
                if known != kind {
                    let message = format!("parameter `{name}` is {known:?} in one place and {kind:?} in another");
                    inner.fault.get_or_insert(message);
                }
                index
            }
            None => {
                inner.params.push(ParamDecl { name: name.to_owned(), kind, value });
                inner.params.len() - 1
            }
        };
        index as u32
    }

    /// Adds a node, or finds it. Scope and kind of every node are inferred and checked here.
    pub(super) fn insert(&self, node: Node) -> NodeId {
        let mut inner = self.inner.borrow_mut();
        let node = inner.known_comparison(&node).map_or(node, |truth| inner.settled(&node, truth));
        if let Some(&id) = inner.known.get(&node) {
            return id;
        }
        let scope = |id: NodeId| inner.scopes[id.index()];
        let kind = |id: NodeId| inner.kinds[id.index()];
        let (scope, kind, fault) = infer(&node, &inner.inputs, &inner.params, scope, kind);
        let fault = fault.or_else(|| inner.mixed_labels(&node));
        if let Some(message) = fault {
            inner.fault.get_or_insert(message);
        }
        let id = NodeId(inner.nodes.len() as u32);
        inner.nodes.push(node);
        inner.scopes.push(scope);
        inner.kinds.push(kind);
        inner.known.insert(node, id);
        id
    }

    /// The nodes below the roots, operands first, roots in order.
    pub(crate) fn reachable(&self, roots: &[NodeId]) -> Vec<NodeId> {
        self.reachable_until(roots, |_| false)
    }

    /// Whether some value below the roots is one of columns alone (or of groups and columns): summed over the rows for each
    /// column, counted once per column, or an input of groups and columns, whose gradient is such a sum.
    pub(crate) fn sums_columns(&self, roots: &[NodeId]) -> bool {
        let is_by_column = |scope: Scope| matches!(scope, Scope::Column | Scope::GroupColumn);
        self.reachable(roots).into_iter().any(|id| match self.node(id) {
            Node::FoldOver(_, to, x) => [to, self.scope(x)].into_iter().any(is_by_column),
            Node::Input(_) if self.scope(id) == Scope::GroupColumn => true,
            _ => is_by_column(self.scope(id)) && roots.contains(&id),
        })
    }

    /// The nodes below the roots, operands first; the operands of nodes for which `stop` is true are left out.
    pub(crate) fn reachable_until(&self, roots: &[NodeId], stop: impl Fn(&Node) -> bool) -> Vec<NodeId> {
        let mut seen = vec![false; self.len()];
        let mut order = Vec::new();
        let mut stack: Vec<(NodeId, bool)> = roots.iter().rev().map(|r| (*r, false)).collect();
        while let Some((id, ready)) = stack.pop() {
            if ready {
                order.push(id);
                continue;
            }
            if seen[id.index()] {
                continue;
            }
            seen[id.index()] = true;
            stack.push((id, true));
            let node = self.node(id);
            let operands: Vec<NodeId> = if stop(&node) { Vec::new() } else { node.operands().collect() };
            stack.extend(operands.into_iter().rev().map(|o| (o, false)));
        }
        order
    }
}
