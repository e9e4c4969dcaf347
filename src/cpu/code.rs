//! What the interpreter runs: straight-line code at three levels, and the registers that it uses.
//!
//! *Global* values are computed once a pass. *Row* values have a lane for each row of a tile (group values too: each
//! row computes its group's again). *Element* values live for one block of a trip over the columns. A program
//! without rows has no trips: each of its elements is a row.

use crate::expr::{Extent, NodeId, Reduce};
use crate::op::{Kind, Op};

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
    Gather(usize, R),
    ColIndex,
    Op(Op, [Option<R>; 3]),
    /// What a stage leaves of this operand: no step computes it.
    Reduced(NodeId, R),
}

impl<R: Copy> Action<R> {
    /// The operands that a step reads.
    pub fn operands(&self) -> impl Iterator<Item = R> + use<R> {
        let all = match *self {
            Action::Gather(_, label) => [Some(label), None, None],
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
            Action::Gather(place, label) => Action::Gather(place, f(label)),
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

/// A trip over the columns.
#[derive(Clone, Debug, Default)]
pub struct Trip {
    pub steps: Vec<Step>,
    pub reductions: Vec<Reduction>,
    /// For each input, whether NaN in it is looked for here.
    pub checked: Vec<bool>,
}

/// A part of the work on a tile of rows.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Values of the rows.
    Rows(Vec<Step>),
    /// Row reductions.
    Stage(Trip),
    /// Which elements are valid, and NaN among those.
    Check(Trip, Src),
}

/// Where NaN and bad labels count.
#[derive(Clone, Copy, Debug)]
pub enum Valid {
    Always,
    /// The condition is not known yet in this pass.
    Never,
    Row(Src),
    /// Row by row as `Phase::Check` found; element by element in the last trip.
    Element(Src),
}

/// A sum over everything.
#[derive(Clone, Debug)]
pub struct Sum {
    pub src: Src,
    /// Node of the total.
    pub node: usize,
    /// One value a group, not a row.
    pub per_group: bool,
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
    /// Scalars and totals that are read: NaN in one is NaN in all that the pass gives.
    pub global_reads: Vec<Src>,
    pub phases: Vec<Phase>,
    /// Labels that index the row.
    pub labels: Vec<Src>,
    /// A later pass reads this one's sums: a label out of range gathers 0, so that it poisons its own row only.
    pub lenient: bool,
    pub valid: Valid,
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
    /// Scalars and totals that it depends on.
    pub reads: Vec<Src>,
}

/// Outputs of one number, computed when all passes are summed.
#[derive(Clone, Debug)]
pub struct FinalCode {
    pub globals: Vec<Step>,
    pub outputs: Vec<TotalOutput>,
}
