//! Row values that survive between passes: a pass whose stages an earlier pass ran already reads their results from
//! the workspace, and visits its elements once at most.

use super::reads::check_bindings;
use crate::expr::{Node, NodeId};
use crate::limits::Limits;
use crate::lower::{Known, LookKind, LookPlace, Over, Pass, Placed, Poison, Program, Stage};
use crate::shape::Scope;

/// Fewest columns of a row for which the words that are saved per row cost less than another trip over it.
pub const LEAST_COLS: u64 = 32;

/// Lets passes read the results of stages that an earlier pass has run, as far as these take at most `most` words per
/// row.
pub fn save_rows(program: &Program, most: u64) -> Program {
    let mut program = program.clone();
    for later in 1..program.passes.len() {
        let found = (0..later).find_map(|earlier| Sharing::new(&program, earlier, later).map(|it| (earlier, it)));
        let Some((earlier, sharing)) = found else { continue };
        let before = program.clone();
        sharing.apply(&mut program, earlier, later);
        if program.passes.iter().map(|pass| pass.saves.words()).sum::<u64>() > most {
            program = before;
        }
    }
    program
}

/// Lets the first stage of a pass run what the first stage of a later one adds to it, where that can be computed by then:
/// the later pass needs no trip of its own for it. In a range of the columns, gathers are such sums.
pub fn widen_stages(program: &Program, limits: &Limits) -> Program {
    let mut program = program.clone();
    for later in 1..program.passes.len() {
        let widened = (0..later).find_map(|earlier| Some((earlier, widened(&program, earlier, later)?)));
        if let Some((earlier, pass)) = widened.filter(|(_, pass)| check_bindings(&program, pass, limits).is_ok()) {
            program.passes[earlier] = pass;
        }
    }
    program
}

/// The earlier pass with the first stage of the later one; `None` unless it runs a part of it, or if the rest is not known
/// by then.
fn widened(program: &Program, earlier: usize, later: usize) -> Option<Pass> {
    let (first, second) = (&program.passes[earlier], &program.passes[later]);
    let (own, wanted) = (first.stages.first()?, second.stages.first()?);
    let is_wanted = |id: &NodeId| wanted.reduces.contains(id);
    let runs_a_part = own.reduces.iter().all(is_wanted) && own.reduces.len() < wanted.reduces.len();
    let of_rows = first.over == Over::Rows && second.over == Over::Rows;
    if !runs_a_part || !of_rows || !are_known_before(program, earlier, &wanted.reduces) {
        return None;
    }
    let mut pass = first.clone();
    pass.stages[0] = wanted.clone();
    Some(pass)
}

/// Puts a pass ahead that runs the stages of each pass by column: its kernel runs none itself.
pub fn run_stages_ahead(program: &Program) -> Program {
    let mut program = program.clone();
    let ahead = |pass: &Pass| {
        let poison = pass.poison.iter().filter(|poison| !during_stages(pass, poison, usize::MAX).is_empty());
        let poison = poison.map(|poison| Poison {
            row: poison.row,
            gate: None,
            consumers: Vec::new(),
            looks: during_stages(pass, poison, usize::MAX),
        });
        Pass { stages: pass.stages.clone(), columns: true, poison: poison.collect(), ..Pass::default() }
    };
    let passes = std::mem::take(&mut program.passes).into_iter().flat_map(|pass| {
        let first = (pass.over == Over::RowsByColumn && !pass.stages.is_empty()).then(|| ahead(&pass));
        first.into_iter().chain([pass])
    });
    program.passes = passes.collect();
    program
}

/// The results of an earlier pass that a later one reads.
struct Sharing {
    /// Number of stages that both run first.
    stages: usize,
    /// Row reductions.
    nodes: Vec<NodeId>,
    /// Per poison of the later pass that these stages look for: its index there, and in the earlier pass.
    poisons: Vec<(usize, usize)>,
    /// Poisons that the earlier pass does not have yet.
    added: Vec<Poison>,
}

impl Sharing {
    /// `None` unless the earlier pass runs the stages of the later one, and can make their looks.
    fn new(program: &Program, earlier: usize, later: usize) -> Option<Sharing> {
        let (first, second) = (&program.passes[earlier], &program.passes[later]);
        let both = second.stages.iter().zip(&first.stages);
        let stages = both.take_while(|(wanted, stage)| runs(stage, wanted)).count();
        let needed = if second.over == Over::RowsByColumn { second.stages.len() } else { 1 };
        let is_known = first.known.is_some() || second.known.is_some();
        if second.stages.is_empty() || stages < needed || is_known || first.over != Over::Rows {
            return None;
        }
        let nodes = reductions(program, second, stages);
        let mut sharing = Sharing { stages, nodes, poisons: Vec::new(), added: Vec::new() };
        let mut known: Vec<Poison> = first.poison.clone();
        for (index, poison) in second.poison.iter().enumerate() {
            let looks = during_stages(second, poison, stages);
            if looks.is_empty() {
                continue;
            }
            // Its bits hold all that it looks at.
            let is_same = |other: &Poison| {
                let within = other.looks.iter().all(|look| poison.looks.contains(look));
                other.row == poison.row && within && during_stages(first, other, usize::MAX) == looks
            };
            let in_earlier = match known.iter().position(is_same) {
                Some(index) => index,
                None => {
                    let poison = Poison { row: poison.row, gate: None, consumers: Vec::new(), looks };
                    if !is_known_before(program, earlier, &poison) {
                        return None;
                    }
                    known.push(poison.clone());
                    sharing.added.push(poison);
                    known.len() - 1
                }
            };
            sharing.poisons.push((index, in_earlier));
        }
        Some(sharing)
    }

    fn apply(self, program: &mut Program, earlier: usize, later: usize) {
        let Sharing { stages, nodes, poisons, added } = self;
        let first = &mut program.passes[earlier];
        first.poison.extend(added);
        first.saves.nodes.extend(nodes.iter().filter(|node| !first.saves.nodes.contains(node)).collect::<Vec<_>>());
        for (_, in_earlier) in &poisons {
            if !first.saves.poisons.contains(in_earlier) {
                first.saves.poisons.push(*in_earlier);
            }
        }
        let second = &mut program.passes[later];
        let made: Vec<Vec<Placed>> = second.poison.iter().map(|poison| during_stages(second, poison, stages)).collect();
        second.stages.drain(..stages);
        for (poison, made) in second.poison.iter_mut().zip(&made) {
            poison.looks.retain(|placed| !made.contains(placed));
            for placed in &mut poison.looks {
                if let LookPlace::Stage(stage) = &mut placed.place {
                    *stage -= stages;
                }
            }
        }
        second.known = Some(Known { pass: earlier, nodes, poisons });
        let element = |id: &usize| program.outputs[*id].scope == Scope::Element;
        let visits = second.over == Over::RowsByColumn || second.outputs.iter().any(element);
        second.columns &= visits
            || !second.stages.is_empty()
            || second.poison.iter().any(|poison| poison.at(LookPlace::Element).next().is_some());
    }
}

/// Whether a stage computes the reductions of another: these, or these and more.
fn runs(stage: &Stage, wanted: &Stage) -> bool {
    let has_all = !wanted.reduces.is_empty() && wanted.reduces.iter().all(|id| stage.reduces.contains(id));
    // Values that trips along the row leave are not saved.
    wanted.along.is_empty() && (has_all || stage.reduces == wanted.reduces)
}

/// Looks of a poison that the first `stages` stages of its pass make: at elements, and at the states of a softmax.
fn during_stages(pass: &Pass, poison: &Poison, stages: usize) -> Vec<Placed> {
    let is_early = |placed: &&Placed| match placed.place {
        LookPlace::Stage(stage) => stage < stages,
        _ => placed.look.kind == LookKind::Softmax && is_listed(pass, placed.look.node, stages),
    };
    poison.looks.iter().filter(is_early).cloned().collect()
}

/// Whether one of the first `stages` stages computes a reduction.
fn is_listed(pass: &Pass, id: NodeId, stages: usize) -> bool {
    pass.stages.iter().take(stages).any(|stage| stage.reduces.contains(&id))
}

/// Row reductions that a pass reads, of its first `stages` stages.
fn reductions(program: &Program, pass: &Pass, stages: usize) -> Vec<NodeId> {
    let nodes = program.within(pass, &super::roots(program, pass));
    let listed = |id: NodeId| is_listed(pass, id, stages);
    let is_early = |id: NodeId| listed(id) || program.online_partner(id).is_some_and(listed);
    nodes.into_iter().filter(|id| matches!(program.node(*id), Node::Reduce(..)) && is_early(*id)).collect()
}

/// Whether all sums that a poison's looks and condition read are known before a pass.
fn is_known_before(program: &Program, pass: usize, poison: &Poison) -> bool {
    let mut roots: Vec<NodeId> = poison.looks.iter().flat_map(|placed| placed.look.nodes()).collect();
    roots.extend(poison.row);
    are_known_before(program, pass, &roots)
}

/// Whether all sums that these values read are known before a pass.
fn are_known_before(program: &Program, pass: usize, roots: &[NodeId]) -> bool {
    let before: Vec<NodeId> = program.passes[..pass].iter().flat_map(|pass| pass.totals.iter().copied()).collect();
    let sums = program.below(roots, |id| matches!(program.node(id), Node::FoldOver(..)));
    let mut sums = sums.into_iter().filter(|id| matches!(program.node(*id), Node::FoldOver(..)));
    sums.all(|sum| before.contains(&sum))
}
