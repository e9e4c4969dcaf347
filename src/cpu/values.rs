//! A pass as values: which nodes are computed, at which level, after how many stages.

use super::code::{Action, Along, Level};
use crate::expr::op::Kind;
use crate::expr::{Classes, Fold, Node, NodeId, Reduce};
use crate::lower::{Consumer, Look, LookKind, LookPlace, Pass, Placed, Poison, Program};
use crate::shape::Scope;
use std::collections::HashMap;

pub type ValueId = usize;

pub struct Val {
    pub action: Action<ValueId>,
    pub level: Level,
    pub kind: Kind,
    /// Stages before the value is known.
    pub depth: usize,
}

/// A scan, sort or permutation of a stage.
pub struct AlongRoot {
    pub along: Along,
    pub number: usize,
    pub operand: ValueId,
    pub decay: Option<ValueId>,
}

/// A fold over partners of a stage.
pub struct FoldRoot {
    pub fold: Fold,
    pub number: usize,
    pub operand: ValueId,
}

/// A reduction of a stage. `max_out` is the row's maximum, where an online softmax leaves it too.
pub struct Staged {
    pub reduce: Reduce,
    pub operand: ValueId,
    pub out: ValueId,
    pub max_out: Option<ValueId>,
}

pub struct SumRoot {
    pub node: usize,
    pub fold: Fold,
    pub value: ValueId,
    pub to: Scope,
}

pub struct OutputRoot {
    pub output: usize,
    pub value: ValueId,
    pub at_label: Option<(ValueId, ValueId)>,
    pub is_element: bool,
}

/// An output that is one number, and the values that it looks at, each with its condition.
pub struct TotalRoot {
    pub output: usize,
    pub value: ValueId,
    pub looks: Vec<(ValueId, Option<ValueId>)>,
}

/// A value that is checked for NaN.
pub struct LookRoot {
    pub poison: usize,
    pub place: LookPlace,
    pub value: ValueId,
    pub label: Option<ValueId>,
    pub conditions: [Option<ValueId>; 2],
}

/// A label whose range is checked, in the rows (elements, without rows) where all conditions hold.
#[derive(Clone, Copy)]
pub struct LabelRoot {
    pub label: ValueId,
    pub classes: Classes,
    pub conditions: [Option<ValueId>; 2],
}

/// The consumers of one poison, its conditions, and its labels.
pub struct PoisonRoot {
    pub row: Option<ValueId>,
    pub gate: Option<ValueId>,
    pub consumers: Vec<Consumer>,
    pub labels: Vec<LabelRoot>,
}

/// The values that a pass must compute, by use.
pub struct Roots {
    pub stages: Vec<Vec<Staged>>,
    pub along: Vec<Vec<AlongRoot>>,
    pub folds: Vec<Vec<FoldRoot>>,
    pub sums: Vec<SumRoot>,
    pub outputs: Vec<OutputRoot>,
    pub looks: Vec<LookRoot>,
    pub poisons: Vec<PoisonRoot>,
    /// Sums with their labels: a row whose label is out of range adds 0.
    pub lenient: Vec<(NodeId, LabelRoot)>,
}

impl Roots {
    /// All labels whose range is checked.
    pub fn labels(&self) -> impl Iterator<Item = LabelRoot> + '_ {
        let lenient = self.lenient.iter().map(|(_, label)| *label);
        self.poisons.iter().flat_map(|poison| poison.labels.iter().copied()).chain(lenient)
    }

    /// Values that looks and poisons read after the last stage.
    pub fn looked_at(&self) -> Vec<ValueId> {
        let looks = self
            .looks
            .iter()
            .flat_map(|look| [Some(look.value), look.label].into_iter().chain(look.conditions).flatten());
        let labels = self.labels().flat_map(|label| [Some(label.label)].into_iter().chain(label.conditions)).flatten();
        looks.chain(labels).chain(self.poisons.iter().flat_map(|poison| [poison.row, poison.gate]).flatten()).collect()
    }
}

pub struct Builder<'p> {
    pub program: &'p Program,
    pub pass: &'p Pass,
    /// Operands before their users.
    pub values: Vec<Val>,
    pub known: HashMap<Action<ValueId>, ValueId>,
    pub memo: HashMap<(NodeId, Option<ValueId>), ValueId>,
    /// By number: the operand of partners.
    pub partners: Vec<ValueId>,
}

impl<'p> Builder<'p> {
    pub fn new(program: &'p Program, pass: &'p Pass) -> Builder<'p> {
        let (values, known, memo, partners) = Default::default();
        Builder { program, pass, values, known, memo, partners }
    }

    /// The value of a node. With a label `at`, an element node's value at the label's column.
    pub fn value(&mut self, id: NodeId, at: Option<ValueId>) -> ValueId {
        let at = at.filter(|_| self.program.scope(id).has_columns());
        if let Some(&known) = self.memo.get(&(id, at)) {
            return known;
        }
        let value = match *self.program.node(id) {
            Node::Const(bits) => self.add(Action::Float(bits)),
            Node::Int(value) => self.add(Action::Int(value)),
            Node::Bool(value) => self.add(Action::Bool(value)),
            Node::GroupRows => self.add(Action::GroupRows),
            Node::Param(index) => self.add(Action::Param(index as usize)),
            Node::Count(extent) => self.add(Action::Count(extent)),
            Node::Input(input) => match at {
                Some(label) => self.add(Action::Gather(input as usize, label)),
                None => self.add(Action::Load(input as usize)),
            },
            Node::ColIndex => at.unwrap_or_else(|| self.add(Action::ColIndex)),
            Node::RowIndex => self.add(Action::RowIndex),
            Node::Op(op, operands) => {
                let operands = operands.map(|o| (o != NodeId::NONE).then(|| self.value(o, at)));
                self.add(Action::Op(op, operands))
            }
            Node::Reduce(_, x) => {
                let operand = self.value(x, None);
                self.add(Action::Reduced(id, operand))
            }
            ref node if node.runs_along_row() => {
                assert!(at.is_none(), "lowering sums what runs along a row at a label");
                self.add(Action::Left(self.number_along(id)))
            }
            Node::Partner(x) => {
                let operand = self.value(x, None);
                let number = self.partners.iter().position(|known| *known == operand).unwrap_or_else(|| {
                    self.partners.push(operand);
                    self.partners.len() - 1
                });
                self.add(Action::Partner(number, self.program.kind(x)))
            }
            Node::FoldOver(_, Scope::Group, _) => self.add(Action::GroupSum(id.index())),
            Node::FoldOver(_, Scope::Column, _) => match at {
                Some(label) => self.add(Action::GatherColumnSum(id.index(), label)),
                None => self.add(Action::ColumnSum(id.index())),
            },
            Node::FoldOver(_, Scope::GroupColumn, _) => match at {
                Some(label) => self.add(Action::GatherGroupColumnSum(id.index(), label)),
                None => self.add(Action::GroupColumnSum(id.index())),
            },
            Node::FoldOver(..) => self.add(Action::Total(id.index())),
            Node::InRange(x, _) => self.value(x, at),
            Node::At(x, label) => {
                let label = self.value(label, None);
                self.value(x, Some(label))
            }
            other => unreachable!("lowering leaves no {other:?}"),
        };
        self.memo.insert((id, at), value);
        value
    }

    fn add(&mut self, action: Action<ValueId>) -> ValueId {
        if let Some(&known) = self.known.get(&action) {
            return known;
        }
        let operands = || action.operands().map(|o| &self.values[o]);
        let depth = operands().map(|v| v.depth).max().unwrap_or(0);
        // A pass over columns (of groups) has one item per column.
        let of_columns = if self.pass.over.has_rows() { Level::Element } else { Level::Row };
        let (level, kind, depth) = match action {
            Action::Float(_) | Action::Count(_) | Action::Total(_) => (Level::Global, Kind::Float, 0),
            Action::Param(index) => (Level::Global, self.program.params[index].kind, 0),
            Action::Int(_) => (Level::Global, Kind::Int, 0),
            Action::Bool(_) => (Level::Global, Kind::Bool, 0),
            Action::GroupSum(_) | Action::GroupRows => (Level::Row, Kind::Float, 0),
            Action::ColumnSum(_) | Action::GroupColumnSum(_) => (of_columns, Kind::Float, 0),
            Action::GatherColumnSum(..) | Action::GatherGroupColumnSum(..) => (Level::Row, Kind::Float, depth),
            Action::Load(input) => {
                let decl = &self.program.inputs[input];
                let level = match decl.scope {
                    Scope::Param | Scope::Scalar | Scope::Total => Level::Global,
                    scope if scope.has_columns() && self.program.has_rows() => of_columns,
                    _ => Level::Row,
                };
                (level, decl.kind, 0)
            }
            Action::Gather(input, _) => (Level::Row, self.program.inputs[input].kind, depth),
            Action::ColIndex => (of_columns, Kind::Int, 0),
            Action::RowIndex => (Level::Row, Kind::Int, 0),
            Action::Op(op, _) => {
                let level = operands().map(|v| v.level).max().expect("every operation has an operand");
                let kinds: Vec<Kind> = operands().map(|v| v.kind).collect();
                (level, op.kind(&kinds).expect("operations of a verified graph take these kinds"), depth)
            }
            Action::Left(number) => (Level::Element, Kind::Float, self.stage_along(number) + 1),
            Action::Partner(number, kind) => (Level::Pair, kind, self.values[self.partners[number]].depth),
            Action::Reduced(node, _) => (Level::Row, self.program.kind(node), self.stage_of(node) + 1),
        };
        self.values.push(Val { action, level, kind, depth });
        self.known.insert(action, self.values.len() - 1);
        self.values.len() - 1
    }

    /// Index of the stage that computes a reduction, or the online softmax that leaves it too.
    fn stage_of(&self, id: NodeId) -> usize {
        let of = |id: NodeId| self.pass.stages.iter().position(|s| s.reduces.contains(&id));
        of(id).or_else(|| of(self.program.online_partner(id)?)).expect("a reduction of the pass has a stage")
    }

    /// What runs along the rows of the pass, each with its stage.
    fn along(&self) -> impl Iterator<Item = (usize, NodeId)> + use<'p> {
        let stages = self.pass.stages.iter().enumerate();
        stages.flat_map(|(index, stage)| stage.left().map(move |id| (index, id)))
    }

    fn number_along(&self, id: NodeId) -> usize {
        self.along().position(|(_, node)| node == id).expect("what runs along the rows of the pass has a stage")
    }

    fn stage_along(&self, number: usize) -> usize {
        self.along().nth(number).expect("what runs along the rows is numbered in order").0
    }

    /// A scan, sort or permutation; `None` for a fold over partners.
    pub fn along_root(&mut self, id: NodeId) -> Option<AlongRoot> {
        let (along, x, decay) = match *self.program.node(id) {
            Node::Scan(scan, direction, [x, decay]) => (Along::Scan(scan, direction), x, decay),
            Node::ArgSort(order, x) => (Along::ArgSort(order), x, NodeId::NONE),
            Node::Permute(way, [x, order]) => (Along::Permute(way, self.number_along(order)), x, NodeId::NONE),
            _ => return None,
        };
        let decay = (decay != NodeId::NONE).then(|| self.value(decay, None));
        Some(AlongRoot { along, number: self.number_along(id), operand: self.value(x, None), decay })
    }

    /// A fold over partners; `None` for what else runs along a row.
    pub fn fold_root(&mut self, id: NodeId) -> Option<FoldRoot> {
        let Node::FoldPartners(fold, x) = *self.program.node(id) else { return None };
        Some(FoldRoot { fold, number: self.number_along(id), operand: self.value(x, None) })
    }

    pub fn staged(&mut self, id: NodeId) -> Staged {
        let Node::Reduce(reduce, x) = *self.program.node(id) else { unreachable!("stages hold reductions") };
        let (operand, out) = (self.value(x, None), self.value(id, None));
        let listed = |id: NodeId| self.pass.stages.iter().any(|s| s.reduces.contains(&id));
        let max = self.program.nodes.iter().position(|n| *n == Node::Reduce(Reduce::Max, x));
        let max = max.map(|index| NodeId(index as u32)).filter(|id| reduce == Reduce::ExpSumRest && !listed(*id));
        Staged { reduce, operand, out, max_out: max.map(|id| self.value(id, None)) }
    }

    /// A check for NaN; `None` for a look at a label, which is one of the poison's `labels`.
    pub fn look(&mut self, poison: usize, placed: &Placed) -> Option<LookRoot> {
        let Placed { look, place } = *placed;
        let label = match (look.kind, *self.program.node(look.node)) {
            (LookKind::Label, _) => return None,
            (_, Node::At(_, label)) => Some(self.value(label, None)),
            _ => None,
        };
        let conditions = [look.row, look.element].map(|id| id.map(|id| self.value(id, None)));
        Some(LookRoot { poison, place, value: self.value(look.node, None), label, conditions })
    }

    pub fn label(&mut self, look: &Look, row: Option<NodeId>) -> LabelRoot {
        let (label, classes) = match *self.program.node(look.node) {
            Node::At(_, label) => (label, Classes::Columns),
            Node::InRange(label, classes) => (label, classes),
            ref other => unreachable!("labels are looked at in gathers and ranges, not in {other:?}"),
        };
        let conditions = [row.or(look.row), look.element].map(|id| id.map(|id| self.value(id, None)));
        LabelRoot { label: self.value(label, None), classes, conditions }
    }

    pub fn poison(&mut self, poison: &Poison) -> PoisonRoot {
        let labels = poison.looks.iter().filter(|placed| placed.look.kind == LookKind::Label);
        let labels = labels.map(|placed| self.label(&placed.look, poison.row)).collect();
        let [row, gate] = [poison.row, poison.gate].map(|id| id.map(|id| self.value(id, None)));
        PoisonRoot { row, gate, consumers: poison.consumers.clone(), labels }
    }

    pub fn sum(&mut self, id: NodeId) -> SumRoot {
        let Node::FoldOver(fold, to, x) = *self.program.node(id) else { unreachable!("totals are sums") };
        let value = self.value(x, None);
        let is_element = self.values[value].level == Level::Element;
        assert!(!is_element || to.has_columns(), "lowering takes elements to their row first");
        SumRoot { node: id.index(), fold, value, to }
    }

    pub fn output(&mut self, index: usize) -> OutputRoot {
        let output = &self.program.outputs[index];
        let value = self.value(output.node, None);
        let at_label = output.at_label.map(|(label, there)| (self.value(label, None), self.value(there, None)));
        let is_element = output.scope == Scope::Element && self.program.has_rows();
        OutputRoot { output: index, value, at_label, is_element }
    }
}
