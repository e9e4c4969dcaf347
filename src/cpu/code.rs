//! Code of the interpreter: steps at three levels, and the registers that they use.
//!
//! *Global* values are computed once per pass. *Row* values have one lane per row of a tile; group values too, computed
//! again for each row. *Element* values live for one block of a trip over the columns. A program without rows has no
//! trips: each element counts as a row.

use crate::expr::op::{Kind, Op};
use crate::expr::{Classes, Direction, Extent, Fold, Move, NodeId, Order, Reduce, Scan};
use crate::lower::Over;

/// How often a value is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    Global,
    Row,
    Element,
    /// One partner of each element of a block at a time.
    Pair,
}

/// The register of a value.
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
    /// The number of rows of the row's group, of groups of unequal length.
    GroupRows,
    /// The sum over the rows for the lane's column, of an earlier pass, by node.
    ColumnSum(usize),
    /// That at the column of a label, clamped.
    GatherColumnSum(usize, R),
    /// The sum over the rows of the lane's group for the lane's column, of an earlier pass, by node.
    GroupColumnSum(usize),
    /// That at the column of a label, clamped.
    GatherGroupColumnSum(usize, R),
    /// An input, at the lane's row and column.
    Load(usize),
    /// An input at the row and the column of a label, clamped.
    Gather(usize, R),
    ColIndex,
    RowIndex,
    Op(Op, [Option<R>; 3]),
    /// The reduction of this operand, which a stage computes and no step.
    Reduced(NodeId, R),
    /// What the scan, fold over partners or permutation of that number has left at the lane's row and column.
    Left(usize),
    /// Operand of that number of the partners in hand, in the lane's row.
    Partner(usize, Kind),
}

impl<R: Copy> Action<R> {
    /// The operands that a step reads.
    pub fn operands(&self) -> impl Iterator<Item = R> + use<R> {
        let all = match *self {
            Action::Gather(_, label) | Action::GatherColumnSum(_, label) | Action::GatherGroupColumnSum(_, label) => {
                [Some(label), None, None]
            }
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
            Action::Param(index) => Action::Param(index),
            Action::Count(extent) => Action::Count(extent),
            Action::Total(node) => Action::Total(node),
            Action::GroupSum(node) => Action::GroupSum(node),
            Action::GroupRows => Action::GroupRows,
            Action::ColumnSum(node) => Action::ColumnSum(node),
            Action::GatherColumnSum(node, label) => Action::GatherColumnSum(node, f(label)),
            Action::GroupColumnSum(node) => Action::GroupColumnSum(node),
            Action::GatherGroupColumnSum(node, label) => Action::GatherGroupColumnSum(node, f(label)),
            Action::Load(input) => Action::Load(input),
            Action::Gather(input, label) => Action::Gather(input, f(label)),
            Action::ColIndex => Action::ColIndex,
            Action::RowIndex => Action::RowIndex,
            Action::Op(op, operands) => Action::Op(op, operands.map(|o| o.map(&f))),
            Action::Reduced(node, x) => Action::Reduced(node, f(x)),
            Action::Left(number) => Action::Left(number),
            Action::Partner(number, kind) => Action::Partner(number, kind),
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
    /// Register of the maximum, where an online softmax leaves it too.
    pub max_out: Option<Src>,
}

/// What runs along the rows of a tile, once a trip has taken its operands.
#[derive(Clone, Copy, Debug)]
pub enum Along {
    Scan(Scan, Direction),
    ArgSort(Order),
    /// By the columns that the `ArgSort` of this number has left.
    Permute(Move, usize),
}

/// A scan, sort or permutation of a stage.
#[derive(Clone, Copy, Debug)]
pub struct AlongCode {
    pub along: Along,
    /// Its number among what runs along the rows of the pass.
    pub number: usize,
    pub operand: Src,
    /// Of a linear scan.
    pub decay: Option<Src>,
}

/// The folds over partners of a stage.
#[derive(Clone, Debug, Default)]
pub struct PairCode {
    /// Number of each operand of the partners, and its register, in the trip that takes them before the pairs.
    pub partners: Vec<(usize, Src)>,
    /// That trip.
    pub before: Vec<Step>,
    /// Values per pair.
    pub steps: Vec<Step>,
    /// Each fold, with its number among what runs along the rows, and its operand.
    pub folds: Vec<(Fold, usize, Src)>,
}

/// A value that is looked at for NaN.
#[derive(Clone, Copy, Debug)]
pub struct LookCode {
    /// Index in [`PassCode::poison`].
    pub poison: usize,
    pub value: Src,
    /// The label that a gathered value was read at; a NaN does not count where the label is out of range.
    pub label: Option<Src>,
    /// Lanes count only where all conditions hold.
    pub conditions: [Option<Src>; 2],
}

/// A label whose range is checked.
#[derive(Clone, Copy, Debug)]
pub struct LabelCode {
    pub label: Src,
    pub classes: Classes,
    /// The label counts only where all conditions hold.
    pub conditions: [Option<Src>; 2],
}

/// The results that one poison reaches, and in which rows and elements.
#[derive(Clone, Debug)]
pub struct PoisonCode {
    /// The row's condition.
    pub row: Option<Src>,
    /// The elements of the row that are poisoned, if not all.
    pub gate: Option<Src>,
    /// Indices in [`PassCode::sums`].
    pub sums: Vec<usize>,
    /// Indices in [`PassCode::stores`].
    pub stores: Vec<usize>,
    /// Indices in [`PassCode::element_stores`].
    pub elements: Vec<usize>,
    /// Labels that poison the row where they are out of range.
    pub labels: Vec<LabelCode>,
}

/// A trip over the columns.
#[derive(Clone, Debug, Default)]
pub struct Trip {
    pub steps: Vec<Step>,
    pub reductions: Vec<Reduction>,
    pub along: Vec<AlongCode>,
    pub pairs: Option<PairCode>,
    pub looks: Vec<LookCode>,
}

/// One phase of the work on a tile of rows.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Values of the rows.
    Rows(Vec<Step>),
    /// Row reductions, and the element values checked for NaN in the same trip.
    Stage(Trip),
}

/// A sum over everything.
#[derive(Clone, Debug)]
pub struct Sum {
    pub src: Src,
    pub fold: Fold,
    /// Node of the total.
    pub node: usize,
    /// A row does not count where one of these labels is out of range.
    pub lenient: Vec<LabelCode>,
}

/// Where a row value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dest {
    /// An output.
    Output(usize),
    /// The row's term of the group sum of this node; of a pass over groups and columns, the item's term of this sum to
    /// groups or columns.
    GroupTerm(usize),
}

/// A row value that is stored.
#[derive(Clone, Debug)]
pub struct Store {
    pub src: Src,
    pub dest: Dest,
    /// Of terms of a sum.
    pub fold: Fold,
    /// As in [`Sum`].
    pub lenient: Vec<LabelCode>,
}

/// Where an element value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementDest {
    /// An output.
    Output(usize),
    /// The sum over the rows for each column, of this node.
    ColumnSum(usize),
    /// The sum over the rows of each group for each column, of this node.
    GroupColumnSum(usize),
}

/// An element value that is stored or summed, and the row value that is stored at the row's label.
#[derive(Clone, Debug)]
pub struct ElementStore {
    pub src: Src,
    pub dest: ElementDest,
    /// Of a sum.
    pub fold: Fold,
    pub at_label: Option<(Src, Src)>,
    /// As in [`Sum`], of a sum.
    pub lenient: Vec<LabelCode>,
}

/// The code of one pass.
#[derive(Clone, Debug)]
pub struct PassCode {
    /// Items of the pass.
    pub over: Over,
    pub globals: Vec<Step>,
    pub phases: Vec<Phase>,
    /// Row values checked for NaN, after all phases.
    pub looks: Vec<LookCode>,
    /// Labels that are reported where they are out of range.
    pub labels: Vec<LabelCode>,
    pub poison: Vec<PoisonCode>,
    pub sums: Vec<Sum>,
    pub stores: Vec<Store>,
    /// The last trip, with the element outputs.
    pub element_trip: Trip,
    pub element_stores: Vec<ElementStore>,
    /// Number of what runs along its rows.
    pub along: usize,
    /// Number of operands of partners.
    pub partners: usize,
    /// Registers of row, element and pair values.
    pub row_slots: Vec<Kind>,
    pub element_slots: Vec<Kind>,
    pub pair_slots: Vec<Kind>,
}

/// An output of one number.
#[derive(Clone, Debug)]
pub struct TotalOutput {
    pub output: usize,
    pub src: Src,
    /// Scalars and totals checked for NaN, each with its condition.
    pub looks: Vec<(Src, Option<Src>)>,
}

/// Outputs of one number, computed when all passes are summed.
#[derive(Clone, Debug)]
pub struct FinalCode {
    pub globals: Vec<Step>,
    pub outputs: Vec<TotalOutput>,
}
