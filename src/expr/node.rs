//! Nodes of an expression, over other nodes.

use crate::expr::op::{Kind, Op};
use crate::expr::scan::{Direction, Scan};
use crate::expr::sort::{Move, Order};
use crate::expr::threshold::Threshold;
use crate::shape::{Layout, Operand, Scope, ShapeRule};
use std::fmt;

/// A size that is known when a plan is bound, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Extent {
    /// Columns (classes) of a row.
    Cols,
    /// Rows.
    Rows,
    /// Rows per group: one number, or where groups have unequal lengths, a value of scope
    /// [`Group`](crate::Scope::Group).
    GroupRows,
    /// Groups.
    Groups,
    /// Elements: rows × columns.
    Elements,
    /// Size of the first axis.
    Batch,
}

/// A reduction of the elements of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reduce {
    /// Σⱼ xⱼ
    Sum,
    /// maxⱼ xⱼ; ties share the gradient.
    Max,
    /// minⱼ xⱼ; ties share the gradient.
    Min,
    /// Lowest index of a maximum.
    ArgMax,
    /// Σ over j ≠ argmax of exp(xⱼ − max); `logsumexp_shifted` is its log1p.
    ExpSumRest,
    /// A number that the elements are compared with, found in steps.
    Threshold(Threshold),
    /// logsumexp − max. Its gradient is the softmax. Lowered to `log1p(ExpSumRest)`.
    LogSumExpShifted,
}

/// How a fold combines values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fold {
    /// Σ x
    Sum,
    /// max x, without a gradient; −∞ of nothing. Not for NaN alone: a sum of the same values shows that.
    Max,
}

impl Fold {
    /// The fold of no values.
    pub fn identity(self) -> f64 {
        match self {
            Fold::Sum => 0.0,
            Fold::Max => f64::NEG_INFINITY,
        }
    }

    /// Two folds as one; NaN if either is.
    pub fn combine(self, a: f64, b: f64) -> f64 {
        match self {
            Fold::Sum => a + b,
            Fold::Max if a.is_nan() || b.is_nan() => f64::NAN,
            Fold::Max => a.max(b),
        }
    }
}

/// Handle of a node in its graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    pub(crate) const NONE: NodeId = NodeId(u32::MAX);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// The classes that a checked index is one of, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Classes {
    /// This many.
    Exactly(u32),
    /// One per column.
    Columns,
    /// One more than columns: the columns are thresholds between them.
    Between,
}

impl Classes {
    /// Their number.
    pub fn count(self, columns: u64) -> u64 {
        match self {
            Classes::Exactly(classes) => classes.into(),
            Classes::Columns => columns,
            Classes::Between => columns + 1,
        }
    }
}

/// One node. Operands come before their users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// A number, by its f64 bits.
    Const(u64),
    /// A class index.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// A parameter, a number or a class index, by its index in the declarations.
    Param(u32),
    /// An input, by its index in the declarations.
    Input(u32),
    /// The element's column.
    ColIndex,
    /// The number of the row.
    RowIndex,
    /// A size, as a number.
    Count(Extent),
    /// Number of rows of the group, of groups of unequal length: it is known where their input is.
    GroupRows,
    /// A scalar operation; unused operands are `NONE`.
    Op(Op, [NodeId; 3]),
    /// A reduction of the elements of a row.
    Reduce(Reduce, NodeId),
    /// Values of rows (groups, columns) folded over those of a group, over all for each column, or over everything. Passes
    /// and kernels call them sums: a maximum is one in another arithmetic.
    FoldOver(Fold, Scope, NodeId),
    /// A scan of the elements of a row; the second operand is the decay of a linear one, else `NONE`.
    Scan(Scan, Direction, [NodeId; 2]),
    /// The value of another element of the row, its partner, one value per pair.
    Partner(NodeId),
    /// Values per pair folded over the partners of each element.
    FoldPartners(Fold, NodeId),
    /// The columns of the row in the order of its elements, equal elements by their column.
    ArgSort(Order, NodeId),
    /// The elements of the row at other columns, which the second operand, an `ArgSort`, says.
    Permute(Move, [NodeId; 2]),
    /// The element of the row at a class index.
    At(NodeId, NodeId),
    /// The class index itself, which must be one of these.
    InRange(NodeId, Classes),
    /// exp(xⱼ − logsumexp x)
    Softmax(NodeId),
    /// softmax − 1, which keeps its digits in a confident row.
    SoftmaxMinusOne(NodeId),
    /// The value; no gradient.
    Detach(NodeId),
    /// The value of the first, the gradient of the second.
    StraightThrough(NodeId, NodeId),
    /// The value of the first; its derivative with respect to the second is the third, all others are zero.
    WithGradient(NodeId, NodeId, NodeId),
    /// The second where the first holds; elsewhere exactly zero in value and gradient, whatever the second is.
    Masked(NodeId, NodeId),
}

impl Node {
    /// The operands, in order.
    pub fn operands(&self) -> impl Iterator<Item = NodeId> + use<> {
        let none = NodeId::NONE;
        let all = match *self {
            Node::Const(_) | Node::Int(_) | Node::Bool(_) | Node::Param(_) | Node::Input(_) => [none; 3],
            Node::ColIndex | Node::RowIndex | Node::Count(_) | Node::GroupRows => [none; 3],
            Node::Op(_, operands) => operands,
            Node::Reduce(_, x) | Node::FoldOver(_, _, x) | Node::Softmax(x) => [x, none, none],
            Node::SoftmaxMinusOne(x) | Node::Detach(x) | Node::InRange(x, _) => [x, none, none],
            Node::At(a, b) | Node::StraightThrough(a, b) | Node::Masked(a, b) => [a, b, none],
            Node::Scan(_, _, [x, decay]) => [x, decay, none],
            Node::Partner(x) | Node::FoldPartners(_, x) | Node::ArgSort(_, x) => [x, none, none],
            Node::Permute(_, [x, order]) => [x, order, none],
            Node::WithGradient(a, b, c) => [a, b, c],
        };
        all.into_iter().filter(|id| *id != NodeId::NONE)
    }

    /// Whether each of its values, one per element, is made of other elements of the row than its own: a stage of its own
    /// leaves them for later stages and outputs.
    pub(crate) fn runs_along_row(&self) -> bool {
        matches!(self, Node::Scan(..) | Node::FoldPartners(..) | Node::ArgSort(..) | Node::Permute(..))
    }

    /// Words per column that it leaves for later stages where rows are streamed, those that it works in too: a sort moves keys
    /// and columns to and fro; a permutation reads elements where other lanes have left them.
    pub(crate) fn words_left(&self) -> u32 {
        match self {
            Node::ArgSort(..) => 4,
            Node::Permute(..) => 2,
            _ => u32::from(self.runs_along_row()),
        }
    }

    /// The same node over other operands.
    pub(crate) fn map(&self, mut f: impl FnMut(NodeId) -> NodeId) -> Node {
        let mut opt = |id: NodeId| if id == NodeId::NONE { id } else { f(id) };
        match *self {
            Node::Op(op, [a, b, c]) => Node::Op(op, [opt(a), opt(b), opt(c)]),
            Node::Reduce(r, x) => Node::Reduce(r, opt(x)),
            Node::FoldOver(fold, s, x) => Node::FoldOver(fold, s, opt(x)),
            Node::Scan(scan, direction, [x, decay]) => Node::Scan(scan, direction, [opt(x), opt(decay)]),
            Node::Partner(x) => Node::Partner(opt(x)),
            Node::FoldPartners(fold, x) => Node::FoldPartners(fold, opt(x)),
            Node::ArgSort(order, x) => Node::ArgSort(order, opt(x)),
            Node::Permute(way, [x, order]) => Node::Permute(way, [opt(x), opt(order)]),
            Node::At(x, label) => Node::At(opt(x), opt(label)),
            Node::InRange(x, classes) => Node::InRange(opt(x), classes),
            Node::Softmax(x) => Node::Softmax(opt(x)),
            Node::SoftmaxMinusOne(x) => Node::SoftmaxMinusOne(opt(x)),
            Node::Detach(x) => Node::Detach(opt(x)),
            Node::StraightThrough(v, g) => Node::StraightThrough(opt(v), opt(g)),
            Node::WithGradient(v, x, g) => Node::WithGradient(opt(v), opt(x), opt(g)),
            Node::Masked(c, x) => Node::Masked(opt(c), opt(x)),
            leaf => leaf,
        }
    }
}

/// An input that expressions may name.
#[derive(Clone, Debug, PartialEq)]
pub struct InputDecl {
    /// Its name.
    pub name: String,
    /// The axes along which its values vary.
    pub scope: Scope,
    /// Number or class index.
    pub kind: Kind,
    /// The shapes that it may have; any that broadcasts until a loss says otherwise.
    pub shape_rule: ShapeRule,
    /// Whether it holds class indices of an unsigned type.
    pub unsigned: bool,
    /// The number of classes that its indices are checked against, where the loss states it.
    pub classes: Option<u32>,
}

impl InputDecl {
    /// A tensor of this input, or of its gradient, as the geometry takes it.
    pub(crate) fn operand<'a>(&'a self, layout: &'a Layout) -> Operand<'a> {
        Operand { name: &self.name, scope: self.scope, rule: self.shape_rule, layout }
    }
}

/// A parameter: a value that kernels read from a uniform, so that one kernel serves all values.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamDecl {
    /// Its name.
    pub name: String,
    /// Number or class index.
    pub kind: Kind,
    /// Its value when the plan was made; class indices are whole.
    pub value: f64,
}

impl ParamDecl {
    /// The word of the uniform for a value of this parameter: an f32, or a class index as labels are stored.
    pub fn word(&self, value: f64) -> u32 {
        if self.kind == Kind::Int { index_bits(value as i64) } else { (value as f32).to_bits() }
    }
}

/// The 32 bits of a class index as a label stores it: kernels compare labels by their bits.
pub(crate) fn index_bits(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(value as i32 as u32)
}
