//! The hash-consed graph: every node once, with its scope and kind, over declared inputs and parameters.

use super::infer::infer;
use super::node::{InputDecl, Node, NodeId, ParamDecl, Scope};
use crate::error::Error;
use crate::op::Kind;
use std::cell::RefCell;
use std::collections::HashMap;

#[derive(Default)]
struct Inner {
    nodes: Vec<Node>,
    scopes: Vec<Scope>,
    kinds: Vec<Kind>,
    known: HashMap<Node, NodeId>,
    inputs: Vec<InputDecl>,
    params: Vec<ParamDecl>,
    fault: Option<String>,
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

    /// Place of the input of that name, declared on first use.
    pub(super) fn declare_input(&self, name: &str, scope: Scope, kind: Kind) -> u32 {
        let mut inner = self.inner.borrow_mut();
        let place = match inner.inputs.iter().position(|i| i.name == name) {
            Some(place) => {
                let known = (inner.inputs[place].scope, inner.inputs[place].kind);
                if known != (scope, kind) {
                    let message =
                        format!("input `{name}` is {known:?} in one place and {:?} in another", (scope, kind));
                    inner.fault.get_or_insert(message);
                }
                place
            }
            None => {
                inner.inputs.push(InputDecl { name: name.to_owned(), scope, kind });
                inner.inputs.len() - 1
            }
        };
        place as u32
    }

    /// Place of the parameter of that name, declared on first use.
    pub(super) fn declare_param(&self, name: &str, kind: Kind, value: f64) -> u32 {
        let mut inner = self.inner.borrow_mut();
        let place = match inner.params.iter().position(|p| p.name == name) {
            Some(place) => {
                let known = inner.params[place].kind;
                if known != kind {
                    let message = format!("parameter `{name}` is {known:?} in one place and {kind:?} in another");
                    inner.fault.get_or_insert(message);
                }
                place
            }
            None => {
                inner.params.push(ParamDecl { name: name.to_owned(), kind, value });
                inner.params.len() - 1
            }
        };
        place as u32
    }

    /// Adds a node, or finds it. Every node passes here, so scope and kind are inferred and checked here.
    pub(super) fn insert(&self, node: Node) -> NodeId {
        let mut inner = self.inner.borrow_mut();
        if let Some(&id) = inner.known.get(&node) {
            return id;
        }
        let scope = |id: NodeId| inner.scopes[id.index()];
        let kind = |id: NodeId| inner.kinds[id.index()];
        let (scope, kind, fault) = infer(&node, &inner.inputs, &inner.params, scope, kind);
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
            let operands: Vec<NodeId> = self.node(id).operands().collect();
            stack.extend(operands.into_iter().rev().map(|o| (o, false)));
        }
        order
    }
}
