//! A lowered loss as plain data: the outputs that are wanted, and the pass in which each value is computed.

use super::looks::Look;
use super::looks::{Looks, Poison};
use super::stage::{Along, AlongTrip, Stage};
use crate::error::{Error, Result};
use crate::expr::op::{Kind, Op};
use crate::expr::{Classes, Fold, InputDecl, Node, NodeId, ParamDecl, Reduce};
use crate::loss::check_once;
use crate::shape::{ColumnCount, Extents, Grouping, Layout, Ragged, RowAxis, Scope, ShapeRule};

/// The factor of every gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Upstream {
    /// 1.
    #[default]
    One,
    /// A scalar on the GPU, the input `upstream`.
    Scalar,
    /// One value per loss value (with `Reduction::None`), the input `upstream`.
    PerLoss,
}

/// The input that says which rows share a group, where groups have unequal lengths.
///
/// ```
/// use wgloss::{CpuPlan, Extent, GroupInput, HostTensor, Loss, Reduction, RowAxis, Scope, Wanted};
/// // The mean score of each sequence, over packed tokens.
/// let mean = Loss::define("sequence_mean").input("x", Scope::Element).row_axis(RowAxis::Last).expr(|b| {
///     b.input("x").sum().sum_over(Scope::Group) / b.graph().count(Extent::GroupRows)
/// });
/// let (x, cu_seqlens) = ([1.0f32, 2.0, 6.0, 4.0], [0, 1, 4]);
/// let inputs = [("x", HostTensor::f32(&x, &[4, 1])), ("cu_seqlens", HostTensor::i32(&cu_seqlens, &[3]))];
/// let wanted = Wanted { loss: true, groups: Some(GroupInput::offsets("cu_seqlens")), ..Wanted::default() };
/// let plan = CpuPlan::<f64>::new(&mean.reduction(Reduction::None), &inputs, &wanted)?;
/// let mut out = plan.output();
/// plan.run(&inputs, &mut out)?;
/// assert_eq!(out.loss_values()?, [1.0, 4.0]);
/// # Ok::<(), wgloss::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GroupInput {
    /// Name of the input.
    pub input: String,
    /// Its form.
    pub by: Ragged,
}

impl GroupInput {
    /// Offsets: see [`PlanSpec::group_offsets`](crate::PlanSpec::group_offsets).
    pub fn offsets(input: &str) -> GroupInput {
        GroupInput { input: input.to_owned(), by: Ragged::Offsets }
    }

    /// Ids of this number of groups: see [`PlanSpec::group_ids`](crate::PlanSpec::group_ids).
    pub fn ids(input: &str, groups: u64) -> GroupInput {
        GroupInput { input: input.to_owned(), by: Ragged::Ids { groups } }
    }
}

/// The outputs that a program computes. Fields may be added: finish a literal with `..Wanted::default()`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The loss itself.
    pub loss: bool,
    /// The denominator of the mean.
    pub denominator: bool,
    /// Gradients with respect to these inputs.
    pub grads: Vec<String>,
    /// Diagonals of the Hessian with respect to these inputs.
    pub hessian_diagonals: Vec<String>,
    /// The factor of the gradients.
    pub upstream: Upstream,
    /// Other outputs of the loss, by name.
    pub extras: Vec<String>,
    /// Whether a stored gradient is not finite.
    pub found_inf: bool,
    /// The input that gives groups of unequal length; `None` where groups are equal.
    pub groups: Option<GroupInput>,
}

impl Wanted {
    /// Whether an upstream gradient is an input.
    pub(crate) fn has_upstream(&self) -> bool {
        self.upstream != Upstream::One
    }

    /// An error if a name is wanted twice.
    pub(crate) fn check_once(&self) -> Result<()> {
        check_once("gradient", self.grads.iter().map(String::as_str))?;
        check_once("Hessian diagonal", self.hessian_diagonals.iter().map(String::as_str))?;
        check_once("extra output", self.extras.iter().map(String::as_str))
    }
}

/// Kind of an output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OutputKind {
    /// The loss, in the shape of its reduction.
    Loss,
    /// The denominator of the mean.
    Denominator,
    /// Another output of the loss, by name.
    Extra(String),
    /// Gradient with respect to the input of this index.
    Grad(usize),
    /// Diagonal of the Hessian with respect to the input of this index.
    HessianDiagonal(usize),
    /// 1 if a stored gradient is not finite, else 0. No output of a program: it looks at what is stored.
    FoundInf,
}

impl OutputKind {
    /// Whether it is a derivative: a gradient, or a diagonal of the Hessian.
    pub fn is_gradient(&self) -> bool {
        matches!(self, OutputKind::Grad(_) | OutputKind::HessianDiagonal(_))
    }
}

/// One output of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Its kind.
    pub kind: OutputKind,
    /// Its value: for elements, at every column but the label's.
    pub node: NodeId,
    /// If the value at the label's column differs: the label, and the value there. Both are row values.
    pub at_label: Option<(NodeId, NodeId)>,
    /// `Element`, `Row`, `GroupColumn`, `Column`, `Group` or `Total`.
    pub scope: Scope,
}

impl Output {
    /// The nodes that it is stored from.
    pub fn roots(&self) -> Vec<NodeId> {
        let mut roots = vec![self.node];
        roots.extend(self.at_label.iter().flat_map(|(label, value)| [*label, *value]));
        roots
    }
}

/// The items that a pass runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Over {
    /// Rows with their columns; without rows, elements.
    #[default]
    Rows,
    /// Elements, for their sums over the rows for each column.
    RowsByColumn,
    /// Groups: it reads group inputs and sums over groups, no rows.
    Groups,
    /// Columns: it reads column inputs and sums over the rows for each column, no rows.
    Columns,
    /// Groups with their columns: it reads group and column inputs and sums over the rows of groups, no rows.
    GroupColumns,
}

impl Over {
    /// All, in the order in which passes alternate.
    pub const ALL: [Over; 5] = [Over::Rows, Over::RowsByColumn, Over::Groups, Over::Columns, Over::GroupColumns];

    /// The items that a value of that scope is computed from.
    pub fn of(scope: Scope) -> Over {
        match scope {
            Scope::Group => Over::Groups,
            Scope::Column => Over::Columns,
            Scope::GroupColumn => Over::GroupColumns,
            _ => Over::Rows,
        }
    }

    /// Whether the pass sees values of that scope.
    pub fn sees(self, scope: Scope) -> bool {
        match self {
            Over::Rows | Over::RowsByColumn => true,
            Over::Groups => scope <= Scope::Group,
            Over::Columns => scope <= Scope::Total || scope == Scope::Column,
            Over::GroupColumns => scope.join(Scope::GroupColumn) == Scope::GroupColumn,
        }
    }

    /// Whether it runs over rows.
    pub fn has_rows(self) -> bool {
        matches!(self, Over::Rows | Over::RowsByColumn)
    }
}

/// Row values that a pass leaves in the workspace: one word per row and value, the reductions first.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Saves {
    /// Row reductions.
    pub nodes: Vec<NodeId>,
    /// Poisons of the pass, by index.
    pub poisons: Vec<usize>,
}

impl Saves {
    /// Words per row.
    pub fn words(&self) -> u64 {
        (self.nodes.len() + self.poisons.len()) as u64
    }
}

/// Row values of an earlier pass that a pass reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// The earlier pass, by index.
    pub pass: usize,
    /// Row reductions.
    pub nodes: Vec<NodeId>,
    /// Poisons: the index in this pass, and in the earlier one.
    pub poisons: Vec<(usize, usize)>,
}

/// One trip over the tensor (or over the rows, or the groups alone), with the row stages in it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Pass {
    /// Its items.
    pub over: Over,
    /// Row stages in order.
    pub stages: Vec<Stage>,
    /// `FoldOver` nodes summed here.
    pub totals: Vec<NodeId>,
    /// Element and row outputs (outputs of groups or columns, in a pass over these), by index in [`Program::outputs`].
    pub outputs: Vec<usize>,
    /// Whether columns are visited at all.
    pub columns: bool,
    /// Looks for NaN and for labels out of range, by the results that they poison.
    pub poison: Vec<Poison>,
    /// Results of its stages that it leaves for later passes.
    pub saves: Saves,
    /// Results of an earlier pass's stages that it reads, instead of running these stages itself.
    pub known: Option<Known>,
    /// Lenient sums with their labels: a label out of range is reported, its row counts as 0, and the sum is not
    /// poisoned.
    pub lenient: Vec<(NodeId, Look)>,
}

impl Pass {
    /// Whether something runs along its rows.
    pub fn runs_along_rows(&self) -> bool {
        self.along().next().is_some()
    }

    /// Whether it sorts its rows.
    pub fn has_sorts(&self) -> bool {
        self.trips_along().any(|trip| trip.along == Along::Sort)
    }

    /// What runs along its rows: the values that are left, in order.
    pub fn along(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.stages.iter().flat_map(Stage::left)
    }

    /// Trips along its rows.
    pub fn trips_along(&self) -> impl Iterator<Item = &AlongTrip> + '_ {
        self.stages.iter().flat_map(|stage| &stage.along)
    }

    /// Whether it finds thresholds of rows, trip after trip.
    pub fn has_thresholds(&self) -> bool {
        self.stages.iter().any(|stage| stage.steps > 0)
    }

    /// Whether it sums over the rows of each group for each column.
    pub fn sums_per_group(&self, program: &Program) -> bool {
        self.over == Over::RowsByColumn && self.totals.iter().any(|id| program.scope(*id) == Scope::GroupColumn)
    }
}

/// The input of a program that gives groups of unequal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaggedInput {
    /// Its index.
    pub index: usize,
    /// Its form.
    pub by: Ragged,
}

impl RaggedInput {
    /// The scope and the shape rule of such an input.
    pub(super) fn declared(by: Ragged) -> (Scope, ShapeRule) {
        match by {
            Ragged::Offsets => (Scope::Group, ShapeRule::Offsets),
            Ragged::Ids { .. } => (Scope::Row, ShapeRule::GroupIds),
        }
    }
}

/// The label that is reported of a row: the first out of range that the loss compares with nothing (an ignored index is
/// compared), else the first out of range; `None` if all are classes.
pub fn reported_label(labels: &[i64], classes: u64, is_compared: impl Fn(i64) -> bool) -> Option<i64> {
    let is_outside = |label: &&i64| u64::try_from(**label).map_or(true, |label| label >= classes);
    let mut outside = labels.iter().filter(is_outside).copied();
    let first = outside.next()?;
    Some(std::iter::once(first).chain(outside).find(|label| !is_compared(*label)).unwrap_or(first))
}

/// A lowered loss: plain data that `schedule`, `codegen` and `cpu` read.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Name of the loss.
    pub name: String,
    /// Title of its kernels: the name without weights, because losses that differ only in these share kernels.
    pub title: String,
    /// The axis that makes a row; with `RowAxis::None` there are only elements.
    pub row_axis: RowAxis,
    /// The numbers of columns that it takes.
    pub cols: ColumnCount,
    /// Nodes, operands first. Only constants, inputs, counts, `ColIndex`, `RowIndex`, `GroupRows`, `Op`, `InRange`,
    /// `Reduce` (of `Sum`, `Max`, `Min`, `ArgMax`, `ExpSumRest`, `Threshold`), `Scan`, `FoldOver` and `At` are left.
    pub nodes: Vec<Node>,
    /// Scope of each node.
    pub scopes: Vec<Scope>,
    /// Kind of each node.
    pub kinds: Vec<Kind>,
    /// Inputs, by index.
    pub inputs: Vec<InputDecl>,
    /// Parameters, with their values when the plan was made.
    pub params: Vec<ParamDecl>,
    /// Passes, in order.
    pub passes: Vec<Pass>,
    /// Outputs. Scope `Total` is computed after the sums of the last pass.
    pub outputs: Vec<Output>,
    /// Looks for NaN and for labels out of range.
    pub looks: Looks,
    /// The input that gives groups of unequal length; `None` where groups are equal.
    pub ragged: Option<RaggedInput>,
    /// Whether stored gradients are looked at, for [`OutputKind::FoundInf`].
    pub found_inf: bool,
}

impl Program {
    /// How the values of a sum are combined.
    pub fn fold(&self, sum: NodeId) -> Fold {
        let Node::FoldOver(fold, ..) = *self.node(sum) else { unreachable!("a sum folds values") };
        fold
    }

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

    /// The input whose indices a node is, unchanged; `None` for any other.
    pub fn label_input(&self, id: NodeId) -> Option<usize> {
        match *self.node(id) {
            Node::Input(input) if self.kind(id) == Kind::Int => Some(input as usize),
            Node::InRange(x, _) => self.label_input(x),
            _ => None,
        }
    }

    /// An error for a batch of no rows in groups of unequal length: groups without rows have values all the same, which
    /// no pass would compute.
    pub fn check_batch(&self, extents: &Extents) -> Result<()> {
        if !extents.is_empty() || self.ragged.is_none() || extents.groups() == 0 {
            return Ok(());
        }
        let message = format!("a batch of no rows of {}, in groups that have none; leave the batch out", self.name);
        Err(Error::Unsupported { message })
    }

    /// The label inputs whose range is checked, each with the number of classes that it is checked against: of `columns`,
    /// where that is the number of columns.
    pub fn checked_labels(&self, columns: u64) -> Vec<(usize, u64)> {
        let mut all: Vec<(usize, u64)> = Vec::new();
        let mut note = |label: NodeId, classes: Classes| {
            for id in self.below(&[label], |id| self.kind(id) != Kind::Int) {
                let Some(input) = self.label_input(id) else { continue };
                let classes = classes.count(columns);
                match all.iter_mut().find(|known| known.0 == input) {
                    Some(known) => known.1 = known.1.min(classes),
                    None => all.push((input, classes)),
                }
            }
        };
        for node in &self.nodes {
            match *node {
                Node::At(_, label) => note(label, Classes::Columns),
                Node::InRange(label, classes) => note(label, classes),
                _ => {}
            }
        }
        let stored = self.outputs.iter().filter_map(|output| output.at_label);
        stored.for_each(|(label, _)| note(label, Classes::Columns));
        all.sort_unstable();
        all
    }

    /// Class indices and parameters that a label input is compared with.
    pub fn compared_with(&self, input: usize) -> Vec<Node> {
        let is_label = |id: NodeId| self.label_input(id) == Some(input);
        let other = |node: &Node| match *node {
            Node::Op(Op::Eq, [a, b, _]) if is_label(a) => Some(*self.node(b)),
            Node::Op(Op::Eq, [a, b, _]) if is_label(b) => Some(*self.node(a)),
            _ => None,
        };
        let is_index = |node: &Node| matches!(node, Node::Int(_) | Node::Param(_));
        self.nodes.iter().filter_map(other).filter(is_index).collect()
    }

    /// Notes at each label input the fewest classes that an expression states for it.
    pub(super) fn state_classes(&mut self) {
        for node in self.nodes.clone() {
            let Node::InRange(x, Classes::Exactly(classes)) = node else { continue };
            if let Some(input) = self.label_input(x) {
                let known = &mut self.inputs[input].classes;
                *known = Some(known.map_or(classes, |known| known.min(classes)));
            }
        }
    }

    /// Whether an index may exceed an i32: an unsigned label, or a literal. Such are compared with unsigned ones only, all
    /// others as signed.
    pub fn exceeds_i32(&self, id: NodeId) -> bool {
        match *self.node(id) {
            Node::Input(input) => self.inputs[input as usize].unsigned,
            Node::Int(value) => value > i64::from(i32::MAX),
            Node::InRange(x, _) => self.exceeds_i32(x),
            Node::Op(Op::Select, [_, a, b]) => self.exceeds_i32(a) || self.exceeds_i32(b),
            _ => false,
        }
    }

    /// Whether values per group and column are summed, or are tensors; not only what elements are computed from.
    pub fn has_group_columns(&self) -> bool {
        let is_it = |scope: Scope| scope == Scope::GroupColumn;
        let sums = |node: &Node| matches!(*node, Node::FoldOver(_, to, x) if is_it(to) || is_it(self.scope(x)));
        self.nodes.iter().any(sums)
            || self.inputs.iter().any(|input| is_it(input.scope))
            || self.outputs.iter().any(|output| is_it(output.scope))
    }

    /// Whether there are rows, or only elements.
    pub fn has_rows(&self) -> bool {
        self.row_axis != RowAxis::None
    }

    /// The rows that make a group: `group_rows` rows, or those that the input of unequal groups says. `layout` gives that
    /// of an input.
    pub fn grouping<'l>(
        &self,
        group_rows: Option<u64>,
        layout: impl Fn(usize) -> Option<&'l Layout>,
    ) -> Result<Grouping> {
        let Some(RaggedInput { index, by }) = self.ragged else { return Ok(Grouping::Equal(group_rows)) };
        let input = || self.inputs[index].name.clone();
        if let Some(rows) = group_rows {
            let allowed = format!("left out: `{}` gives the groups", input());
            let (loss, param, found) = (self.name.clone(), "group_rows".to_owned(), rows.to_string());
            return Err(Error::Param { loss, param, found, allowed });
        }
        let shape = layout(index).map_or(&[][..], |layout| &layout.shape);
        match (by, shape) {
            (Ragged::Ids { groups }, _) => Ok(Grouping::Ragged(groups)),
            (Ragged::Offsets, [offsets]) if *offsets > 0 => Ok(Grouping::Ragged(*offsets as u64 - 1)),
            (Ragged::Offsets, found) => {
                let expected = "[groups + 1]: the first row of each group, then the number of rows".to_owned();
                Err(Error::Shape { input: input(), expected, found: found.to_vec() })
            }
        }
    }

    /// Whether it is noted where stored values of an output are not finite.
    pub fn notes(&self, output: usize) -> bool {
        self.found_inf && matches!(self.outputs[output].kind, OutputKind::Grad(_))
    }

    /// Whether it is noted of any of these outputs.
    pub fn notes_any(&self, outputs: &[usize]) -> bool {
        outputs.iter().any(|&output| self.notes(output))
    }

    /// The roots and the nodes below them, operands first. The operands of a node for which `stop` is true are left
    /// out.
    pub fn below(&self, roots: &[NodeId], stop: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
        let mut wanted = vec![false; self.nodes.len()];
        for root in roots {
            wanted[root.index()] = true;
        }
        for index in (0..self.nodes.len()).rev() {
            let id = NodeId(index as u32);
            if wanted[index] && !stop(id) {
                for operand in self.nodes[index].operands() {
                    wanted[operand.index()] = true;
                }
            }
        }
        (0..self.nodes.len()).filter(|&index| wanted[index]).map(|index| NodeId(index as u32)).collect()
    }

    /// The roots and the nodes below them that a pass computes: the operands of sums, and of reductions that an earlier
    /// pass has saved, are left out.
    pub fn within(&self, pass: &Pass, roots: &[NodeId]) -> Vec<NodeId> {
        let is_known = |id: NodeId| pass.known.as_ref().is_some_and(|known| known.nodes.contains(&id));
        self.below(roots, |id| matches!(self.node(id), Node::FoldOver(..)) || is_known(id))
    }

    /// Index of the pass after whose sums the outputs of scope `Total` are known; 0 if nothing is summed.
    pub fn finishing_pass(&self) -> usize {
        self.passes.iter().rposition(|pass| !pass.totals.is_empty()).unwrap_or(0)
    }

    /// Index of an input by name.
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|i| i.name == name)
    }

    /// Whether an earlier pass or stage leaves the value: a sum, or what runs along the row.
    pub(crate) fn is_left(&self, id: NodeId) -> bool {
        matches!(self.node(id), Node::FoldOver(..)) || self.node(id).runs_along_row()
    }

    /// The `ExpSumRest` of the same operand, which leaves this maximum too; `None` if there is none.
    pub fn online_partner(&self, max: NodeId) -> Option<NodeId> {
        let Node::Reduce(Reduce::Max, x) = *self.node(max) else { return None };
        let partner = Node::Reduce(Reduce::ExpSumRest, x);
        self.nodes.iter().position(|n| *n == partner).map(|index| NodeId(index as u32))
    }
}
