//! A lowered loss as plain data: what is asked for, and what is computed in which pass.

use super::looks::Look;
use super::looks::{Looks, Poison};
use crate::error::Result;
use crate::expr::op::Kind;
use crate::expr::{InputDecl, Node, NodeId, ParamDecl, Reduce};
use crate::loss::check_once;
use crate::shape::RowAxis;
use crate::shape::Scope;

/// Name of the upstream gradient as an input.
pub const UPSTREAM: &str = "upstream";

/// What multiplies every gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Upstream {
    /// 1.
    #[default]
    One,
    /// A scalar on the GPU, the input `upstream`.
    Scalar,
    /// One value for each loss (with `Reduction::None`), the input `upstream`.
    PerLoss,
}

/// What a program is to compute. Fields may be added: finish a literal with `..Wanted::default()`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The loss itself.
    pub loss: bool,
    /// What the mean divides by, as an output.
    pub denominator: bool,
    /// Gradients with respect to these inputs.
    pub grads: Vec<String>,
    /// Diagonals of the Hessian with respect to these inputs.
    pub hessian_diagonals: Vec<String>,
    /// What multiplies the gradients.
    pub upstream: Upstream,
    /// Other outputs of the loss, by name.
    pub extras: Vec<String>,
}

impl Wanted {
    /// Nothing is asked for twice.
    pub(crate) fn check_once(&self) -> Result<()> {
        check_once("gradient", self.grads.iter().map(String::as_str))?;
        check_once("Hessian diagonal", self.hessian_diagonals.iter().map(String::as_str))?;
        check_once("extra output", self.extras.iter().map(String::as_str))
    }
}

/// What an output is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OutputKind {
    /// The loss, in the shape of its reduction.
    Loss,
    /// What the mean divides by.
    Denominator,
    /// Another output of the loss, by name.
    Extra(String),
    /// Gradient with respect to the input of that place.
    Grad(usize),
    /// Diagonal of the Hessian with respect to the input of that place.
    HessianDiagonal(usize),
}

/// One output of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// What it is.
    pub kind: OutputKind,
    /// Its value: for elements, at every column but the label's.
    pub node: NodeId,
    /// Where the value at the label differs: the label, and the value there (both row values).
    pub at_label: Option<(NodeId, NodeId)>,
    /// How many values it has: `Element`, `Row` or `Total`.
    pub scope: Scope,
}

impl Output {
    /// What it is computed from.
    pub fn roots(&self) -> Vec<NodeId> {
        let mut roots = vec![self.node];
        roots.extend(self.at_label.iter().flat_map(|(label, value)| [*label, *value]));
        roots
    }
}

/// Row reductions that can run in one trip over the row. Without any, elements are only looked at.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Stage {
    /// The reductions. A maximum that `ExpSumRest` of the same operand knows is not listed.
    pub reduces: Vec<NodeId>,
}

/// One trip over the tensor (or over the rows alone), with the row stages in it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Pass {
    /// Row stages in order.
    pub stages: Vec<Stage>,
    /// `SumOver` nodes summed here.
    pub totals: Vec<NodeId>,
    /// Element and row outputs, by place in [`Program::outputs`].
    pub outputs: Vec<usize>,
    /// Whether columns are visited at all.
    pub columns: bool,
    /// What is looked at for NaN and for labels out of range, and what that poisons.
    pub poison: Vec<Poison>,
    /// Labels that only sums look at which leave out rows whose label is bad: they are reported, but poison nothing.
    pub lenient: Vec<(NodeId, Look)>,
}

/// A lowered loss: plain data that `schedule`, `codegen` and `cpu` read.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Name of the loss.
    pub name: String,
    /// What its kernels are called: the name without numbers, as losses that differ in those share kernels.
    pub title: String,
    /// Which axis makes a row; without one there are only elements.
    pub row_axis: RowAxis,
    /// Nodes, operands first. Only constants, inputs, counts, `ColIndex`, `Op`, `Reduce` (of `Sum`, `Max`, `Min`,
    /// `ArgMax`, `ExpSumRest`), `SumOver` and `At` are left.
    pub nodes: Vec<Node>,
    /// Scope of each node.
    pub scopes: Vec<Scope>,
    /// Kind of each node.
    pub kinds: Vec<Kind>,
    /// Inputs in the order of their places.
    pub inputs: Vec<InputDecl>,
    /// Parameters, with their values when the plan was made.
    pub params: Vec<ParamDecl>,
    /// Passes, in order.
    pub passes: Vec<Pass>,
    /// Outputs; those of scope `Total` are computed when the last pass has been summed.
    pub outputs: Vec<Output>,
    /// What is looked at for NaN and for labels out of range.
    pub looks: Looks,
}

impl Program {
    /// The node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Its scope.
    pub fn scope(&self, id: NodeId) -> Scope {
        self.scopes[id.index()]
    }

    /// Its kind.
    pub fn kind(&self, id: NodeId) -> Kind {
        self.kinds[id.index()]
    }

    /// Whether there are rows, or only elements.
    pub fn has_rows(&self) -> bool {
        self.row_axis != RowAxis::None
    }

    /// Nodes below the roots, operands first. `stop` keeps a node's operands out.
    pub fn below(&self, roots: &[NodeId], stop: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let mut wanted = vec![false; self.nodes.len()];
        for root in roots {
            wanted[root.index()] = true;
        }
        for place in (0..self.nodes.len()).rev() {
            let id = NodeId(place as u32);
            if wanted[place] && !stop(id) {
                for operand in self.nodes[place].operands() {
                    wanted[operand.index()] = true;
                }
            }
        }
        (0..self.nodes.len()).filter(|&place| wanted[place]).map(|place| NodeId(place as u32)).collect()
    }

    /// The pass after whose sums the outputs of scope `Total` are known: the first, if nothing is summed.
    pub fn finishing_pass(&self) -> usize {
        self.passes.iter().rposition(|pass| !pass.totals.is_empty()).unwrap_or(0)
    }

    /// Place of an input by name.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|i| i.name == name)
    }

    /// The stage's state that holds a maximum, where `ExpSumRest` of the same operand knows it.
    pub fn online_partner(&self, max: NodeId) -> Option<NodeId> {
        let Node::Reduce(Reduce::Max, x) = *self.node(max) else { return None };
        let partner = Node::Reduce(Reduce::ExpSumRest, x);
        self.nodes.iter().position(|n| *n == partner).map(|place| NodeId(place as u32))
    }
}
