//! What the interpreter runs: straight-line code at three levels, and the registers that it uses.
//!
//! *Global* values are computed once a pass. *Row* values have a lane for each row of a tile (group values too: each
//! row computes its group's again). *Element* values live for one block of a trip over the columns. A program
//! without rows has no trips: each of its elements is a row.

use crate::expr::op::{Kind, Op};
use crate::expr::{Extent, NodeId, Reduce};

/// How often a value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    Global,
    Row,
    Element,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Src {
    pub level: Level,
    pub kind: Kind,
    pub slot: usize,
}

/// How a value is computed, from operands `R`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action<R> {
    Float(u64),
    Int(i64),
    Bool(bool),
    Param(usize),
    Count(Extent),
    /// The sum over everything of an earlier pass, by node.
    Total(usize),
    /// The sum over the row's group of an earlier pass, by node.
    GroupSum(usize),
    /// An input, at the lane's place.
    Load(usize),
    /// An input at the row and the column of a label, clamped.
    LaneReduce(usize, R),
    ColIndex,
    Op(Op, [Option<R>; 3]),
    /// What a stage leaves of this operand: no step computes it.
    Reduced(NodeId, R),
}

impl<R: Copy> Action<R> {
    /// The operands that a step reads.
    pub fn operands(&self) -> impl Iterator<Item = R> + use<R> {
        let all = match *self {
            Action::LaneReduce(_, label) => [Some(label), None, None],
            Action::Op(_, operands) => operands,
            _ => [None; 3],
        };
        all.into_iter().flatten()
    }

    /// The same over other operands.
    pub fn map<S>(&self, f: impl Fn(R) -> S) -> Action<S> {
        match *self {
            Action::Float(bits) => Action::Float(bits),
            Action::Int(value) => Action::Int(value),
            Action::Bool(value) => Action::Bool(value),
            Action::Param(place) => Action::Param(place),
            Action::Count(extent) => Action::Count(extent),
            Action::Total(node) => Action::Total(node),
            Action::GroupSum(node) => Action::GroupSum(node),
            Action::Load(place) => Action::Load(place),
            Action::LaneReduce(place, label) => Action::LaneReduce(place, f(label)),
            Action::ColIndex => Action::ColIndex,
            Action::Op(op, operands) => Action::Op(op, operands.map(|o| o.map(&f))),
            Action::Reduced(node, x) => Action::Reduced(node, f(x)),
        }
    }
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Step {
    pub out: Src,
    pub action: Action<Src>,
}

/// A row reduction in a stage.
#[derive(Clone, Debug)]
pub struct Reduction {
    pub reduce: Reduce,
    pub operand: Src,
    pub out: Src,
    /// Where the maximum goes that an online softmax knows.
    pub max_out: Option<Src>,
}

/// A value that is looked at for NaN.
#[derive(Clone, Copy, Debug)]
pub struct LookCode {
    /// The poison that it belongs to, by place in [`PassCode::poison`].
    pub poison: usize,
    pub value: Src,
    /// The label that chose the value: one out of range chose nothing.
    pub label: Option<Src>,
    /// Where it is looked at; everywhere, without conditions.
    pub conditions: [Option<Src>; 2],
}

/// A label whose range is checked.
#[derive(Clone, Copy, Debug)]
pub struct LabelCode {
    pub label: Src,
    /// Where the label counts.
    pub row: Option<Src>,
}

/// What the looks of one poison poison, and where.
#[derive(Clone, Debug)]
pub struct PoisonCode {
    /// The row's condition.
    pub row: Option<Src>,
    /// The elements of the row that are poisoned, if not all.
    pub gate: Option<Src>,
    /// Sums, by place in [`PassCode::sums`], and row values, by place in [`PassCode::stores`].
    pub sums: Vec<usize>,
    pub stores: Vec<usize>,
    /// Element outputs, by place in [`PassCode::element_stores`].
    pub elements: Vec<usize>,
    /// Labels that poison the row where they are out of range.
    pub labels: Vec<LabelCode>,
}

/// A trip over the columns.
#[derive(Clone, Debug, Default)]
pub struct Trip {
    pub steps: Vec<Step>,
    pub reductions: Vec<Reduction>,
    pub looks: Vec<LookCode>,
}

/// A part of the work on a tile of rows.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Values of the rows.
    Rows(Vec<Step>),
    /// Row reductions, and what is looked at beside them.
    Stage(Trip),
}

/// A sum over everything.
#[derive(Clone, Debug)]
pub struct Sum {
    pub src: Src,
    /// Node of the total.
    pub node: usize,
    /// One value a group, not a row.
    pub per_group: bool,
    /// Labels at which a row adds nothing, where they are out of range.
    pub lenient: Vec<LabelCode>,
}

/// Where a row value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dest {
    /// An output.
    Output(usize),
    /// What a group sum, by node, sums.
    GroupTerm(usize),
}

/// A row value that is stored.
#[derive(Clone, Debug)]
pub struct Store {
    pub src: Src,
    pub dest: Dest,
    /// As those of a [`Sum`].
    pub lenient: Vec<LabelCode>,
}

/// An element value that is stored, and the row value that is stored at the row's label.
#[derive(Clone, Debug)]
pub struct ElementStore {
    pub src: Src,
    pub output: usize,
    pub at_label: Option<(Src, Src)>,
}

/// The code of one pass.
#[derive(Clone, Debug)]
pub struct PassCode {
    pub globals: Vec<Step>,
    pub phases: Vec<Phase>,
    /// Looks at values of the rows, made when all phases are done.
    pub looks: Vec<LookCode>,
    /// Labels that are reported where they are out of range.
    pub labels: Vec<LabelCode>,
    pub poison: Vec<PoisonCode>,
    pub sums: Vec<Sum>,
    pub stores: Vec<Store>,
    /// The last trip, with the element outputs.
    pub element_trip: Trip,
    pub element_stores: Vec<ElementStore>,
    /// Registers of row and of element values.
    pub row_slots: Vec<Kind>,
    pub element_slots: Vec<Kind>,
}

/// An output of one number.
#[derive(Clone, Debug)]
pub struct TotalOutput {
    pub output: usize,
    pub src: Src,
    /// Scalars and totals that it looks at, and where.
    pub looks: Vec<(Src, Option<Src>)>,
}

/// Outputs of one number, computed when all passes are summed.
#[derive(Clone, Debug)]
pub struct FinalCode {
    pub globals: Vec<Step>,
    pub outputs: Vec<TotalOutput>,
}
