//! Passes and stages: the trip over memory in which each value is summed or stored.

use super::looks::{Consumer, Look, LookKind, LookPlace, Looks, Placed, Poison};
use super::program::{Output, Over, Pass, Program};
use super::stage::{Along, Stage};
use crate::expr::{Graph, Node, NodeId, Reduce};
use crate::shape::{ColumnCount, RowAxis, Scope};
use std::collections::HashMap;

/// The program that computes `outputs`: nodes in order, passes and stages.
pub(super) fn assign(
    graph: &Graph,
    [name, title]: [String; 2],
    row_axis: RowAxis,
    outputs: Vec<Output>,
    looks: Looks,
) -> Program {
    // Only nodes that are read, operands first.
    let mut roots: Vec<NodeId> = outputs.iter().flat_map(Output::roots).collect();
    roots.extend(looks.nodes());
    let order = graph.reachable(&roots);
    let mut new: HashMap<NodeId, NodeId> = HashMap::new();
    let mut program = Program {
        name,
        title,
        row_axis,
        cols: ColumnCount::default(),
        nodes: Vec::new(),
        scopes: Vec::new(),
        kinds: Vec::new(),
        inputs: graph.inputs(),
        params: graph.params(),
        passes: Vec::new(),
        outputs,
        looks: Looks::default(),
        ragged: None,
        found_inf: false,
    };
    for id in order {
        program.nodes.push(graph.node(id).map(|operand| new[&operand]));
        program.scopes.push(graph.scope(id));
        program.kinds.push(graph.kind(id));
        new.insert(id, NodeId(program.nodes.len() as u32 - 1));
    }
    for output in &mut program.outputs {
        output.node = new[&output.node];
        output.at_label = output.at_label.map(|(label, value)| (new[&label], new[&value]));
    }
    program.looks = looks.map(&new);
    program.passes = passes(&program);
    program
}

/// The first slot of time from `level` on in which a pass over these items may run: they alternate.
fn slot_from(level: usize, over: Over) -> usize {
    level + (over as usize + KINDS - level % KINDS) % KINDS
}

/// The last slot before `slot` in which such a pass may run.
fn slot_before(slot: usize, over: Over) -> usize {
    let last = slot.saturating_sub(1);
    last.saturating_sub((last + KINDS - over as usize) % KINDS)
}

/// Slots of time that repeat.
const KINDS: usize = Over::ALL.len();

impl Program {
    /// The items of the pass that makes a sum.
    pub(super) fn summed_over(&self, sum: NodeId) -> Over {
        let Node::FoldOver(_, to, x) = *self.node(sum) else { unreachable!("sums are summed") };
        match self.scope(x) {
            Scope::Element if to.has_columns() => Over::RowsByColumn,
            inner => Over::of(inner),
        }
    }

    /// Outputs that passes over these items make, and the nodes that they and their looks read.
    fn outputs_over(&self, over: Over) -> (Vec<usize>, Vec<NodeId>) {
        let inner = (0..self.outputs.len()).filter(|&k| self.outputs[k].scope > Scope::Total);
        let outputs: Vec<usize> = inner.filter(|&k| Over::of(self.outputs[k].scope) == over).collect();
        let mut read: Vec<NodeId> = outputs.iter().flat_map(|&k| self.outputs[k].roots()).collect();
        read.extend(self.looks_of(&[], &outputs).iter().flat_map(|(look, _)| look.nodes()));
        (outputs, read)
    }
}

/// By node: the first slot of time in which its value is known. `reads` are the nodes that each sum reads: it may look at
/// nodes behind it.
fn levels(program: &Program, reads: &HashMap<NodeId, Vec<NodeId>>) -> Vec<usize> {
    let mut level = vec![0usize; program.nodes.len()];
    // Each round settles at least one more sum along every chain of sums.
    for _ in 0..=reads.len() {
        let before = level.clone();
        for index in 0..level.len() {
            let id = NodeId(index as u32);
            let known = |ids: &mut dyn Iterator<Item = NodeId>| ids.map(|id| level[id.index()]).max().unwrap_or(0);
            level[index] = match reads.get(&id) {
                Some(read) => slot_from(known(&mut read.iter().copied()), program.summed_over(id)) + 1,
                None => known(&mut program.nodes[index].operands()),
            };
        }
        if level == before {
            break;
        }
    }
    level
}

fn passes(program: &Program) -> Vec<Pass> {
    let count = program.nodes.len();
    let is_sum = |id: NodeId| matches!(program.node(id), Node::FoldOver(..));
    let sums: Vec<NodeId> = (0..count).map(|index| NodeId(index as u32)).filter(|id| is_sum(*id)).collect();
    // Nodes that each sum is computed from, and that it looks at.
    let read_by = |sum: NodeId| {
        let looks = program.looks_of(&[sum], &[]);
        let looks = looks.iter().flat_map(|(look, _)| look.nodes());
        program.node(sum).operands().chain(looks).collect::<Vec<NodeId>>()
    };
    let reads: HashMap<NodeId, Vec<NodeId>> = sums.iter().map(|&sum| (sum, read_by(sum))).collect();
    let level = levels(program, &reads);
    let outputs = Over::ALL.map(|over| program.outputs_over(over));
    // The last slot with a pass over these items.
    let last = Over::ALL.map(|over| {
        let made = outputs[over as usize].1.iter().map(|root| slot_from(level[root.index()], over));
        let summed = sums.iter().filter(|sum| program.summed_over(**sum) == over).map(|sum| level[sum.index()] - 1);
        made.chain(summed).max()
    });
    // Each sum as late as its readers allow, so that it shares their trip over memory.
    let mut slot_of = vec![0; count];
    for &sum in &sums {
        slot_of[sum.index()] = last[program.summed_over(sum) as usize].expect("a sum over these items has a slot");
    }
    let needs = |roots: &[NodeId], slot: usize, slot_of: &mut Vec<usize>| {
        for id in program.below(roots, is_sum).into_iter().filter(|id| is_sum(*id)) {
            slot_of[id.index()] = slot_of[id.index()].min(slot_before(slot, program.summed_over(id)));
        }
    };
    for over in Over::ALL {
        needs(&outputs[over as usize].1, last[over as usize].unwrap_or(0), &mut slot_of);
    }
    for &sum in sums.iter().rev() {
        let slot = slot_of[sum.index()];
        needs(&reads[&sum], slot, &mut slot_of);
    }
    let pass = |slot: usize| {
        let over = Over::ALL[slot % KINDS];
        let totals = sums.iter().copied().filter(|sum| slot_of[sum.index()] == slot).collect();
        let made = if last[over as usize] == Some(slot) { outputs[over as usize].0.clone() } else { Vec::new() };
        finish_pass(program, over, totals, made)
    };
    let end = last.into_iter().flatten().max().unwrap_or(0);
    let is_empty = |pass: &Pass| pass.totals.is_empty() && pass.outputs.is_empty();
    let all: Vec<Pass> = (0..=end).map(pass).filter(|pass| !is_empty(pass)).collect();
    // Outputs that are one number already still have a pass to come after.
    if all.is_empty() { vec![finish_pass(program, Over::Rows, Vec::new(), Vec::new())] } else { all }
}

/// A pass with these sums and outputs: its stages, and the looks that it makes.
pub(crate) fn finish_pass(program: &Program, over: Over, mut totals: Vec<NodeId>, outputs: Vec<usize>) -> Pass {
    // Sums over everything first, then over groups, by column, by group and column: their order in memory.
    totals.sort_by_key(|id| program.scope(*id));
    let looks = program.looks_of(&totals, &outputs);
    let lenient = lenient_labels(program, &totals);
    let mut roots: Vec<NodeId> = totals.iter().flat_map(|t| program.node(*t).operands()).collect();
    roots.extend(outputs.iter().flat_map(|&k| program.outputs[k].roots()));
    roots.extend(looks.iter().flat_map(|(look, _)| look.nodes()));
    roots.extend(lenient.iter().flat_map(|(_, look)| look.nodes()));
    let (mut stages, depth) = stages(program, &roots);
    let writes = over == Over::RowsByColumn || outputs.iter().any(|&k| program.outputs[k].scope == Scope::Element);
    let visits = !stages.is_empty() || writes || looks.iter().any(|(look, _)| is_of_columns(program, look));
    let poison = place_looks(program, over, looks, &depth, &mut stages);
    let columns = !program.has_rows() || over.has_rows() && visits;
    Pass { over, stages, totals, outputs, columns, poison, lenient, ..Pass::default() }
}

/// Labels of the lenient sums among `totals`, each with its sum.
fn lenient_labels(program: &Program, totals: &[NodeId]) -> Vec<(NodeId, Look)> {
    totals
        .iter()
        .filter(|sum| program.looks.lenient.contains(sum))
        .flat_map(|sum| program.looks.of_sum(*sum).iter().map(|look| (*sum, *look)))
        .filter(|(_, look)| look.kind == LookKind::Label)
        .collect()
}

/// The reductions and scans below the roots by stage, each one stage later than those below it; and, by node, the stages
/// before its value is known.
fn stages(program: &Program, roots: &[NodeId]) -> (Vec<Stage>, HashMap<NodeId, usize>) {
    let needed = program.below(roots, |id| matches!(program.node(id), Node::FoldOver(..)));
    let mut depth: HashMap<NodeId, usize> = HashMap::new();
    let mut stages: Vec<Stage> = Vec::new();
    for &id in &needed {
        let node = program.node(id);
        if matches!(node, Node::FoldOver(..)) {
            depth.insert(id, 0);
            continue;
        }
        let below = node.operands().filter_map(|o| depth.get(&o).copied()).max().unwrap_or(0);
        if !matches!(node, Node::Reduce(..)) && !node.runs_along_row() {
            depth.insert(id, below);
            continue;
        }
        depth.insert(id, below + 1);
        if stages.len() <= below {
            stages.resize(below + 1, Stage::default());
        }
        if node.runs_along_row() {
            stages[below].add_along(id, node);
            continue;
        }
        let known = program.online_partner(id).is_some_and(|partner| needed.contains(&partner));
        if !known {
            stages[below].reduces.push(id);
        }
        if let Node::Reduce(Reduce::Threshold(threshold), _) = node {
            stages[below].steps = stages[below].steps.max(threshold.steps());
        }
    }
    for trip in stages.iter_mut().flat_map(|stage| &mut stage.along).filter(|trip| trip.along == Along::Pairs) {
        let folded: Vec<NodeId> = trip.nodes.iter().flat_map(|id| program.node(*id).operands()).collect();
        let is_partner = |id: NodeId| matches!(program.node(id), Node::Partner(_));
        let stop = |id: NodeId| is_partner(id) || program.scope(id) != Scope::Pair;
        trip.partners = program.below(&folded, stop).into_iter().filter(|id| is_partner(*id)).count();
    }
    (stages, depth)
}

/// The looks of a pass by the results that they poison, each with when it is made. May add a stage for a look.
fn place_looks(
    program: &Program,
    over: Over,
    looks: Vec<(Look, Vec<Consumer>)>,
    depth: &HashMap<NodeId, usize>,
    stages: &mut Vec<Stage>,
) -> Vec<Poison> {
    let mut poison: Vec<Poison> = Vec::new();
    for (look, consumers) in looks {
        let place = match is_of_columns(program, &look) && program.has_rows() {
            false => LookPlace::Row,
            true if !over.has_rows() => LookPlace::Row,
            true if !look.reduced => LookPlace::Element,
            true => {
                let known =
                    [Some(look.node), look.element].into_iter().flatten().map(|id| depth[&id]).max().unwrap_or(0);
                LookPlace::Stage(stage_of(program, stages, &look, known))
            }
        };
        // A look at single elements asks the row's condition at each element.
        let by_row = program.has_rows() && place != LookPlace::Element;
        let (row, look) = if by_row { (look.row, Look { row: None, ..look }) } else { (None, look) };
        let placed = Placed { look, place };
        match poison.iter_mut().find(|p| (p.row, p.gate) == (row, look.gate) && p.consumers == consumers) {
            Some(known) => known.looks.push(placed),
            None => poison.push(Poison { row, gate: look.gate, consumers, looks: vec![placed] }),
        }
    }
    poison
}

/// Whether a look reads elements. A gate does not count: it is asked when the row is known.
fn is_of_columns(program: &Program, look: &Look) -> bool {
    [Some(look.node), look.element].into_iter().flatten().any(|id| program.scope(id).has_columns())
}

/// The stage of a look at elements whose condition is known after `known` stages: the first that reads the elements
/// anyway, else the last one. Adds a stage if there are only `known`.
fn stage_of(program: &Program, stages: &mut Vec<Stage>, look: &Look, known: usize) -> usize {
    let is_element = |id: NodeId| program.scope(id).has_columns();
    let visits = |stage: &Stage| {
        let operands: Vec<NodeId> = stage.reduces.iter().flat_map(|id| program.node(*id).operands()).collect();
        let stop = |id: NodeId| !is_element(id) || program.is_left(id);
        program.below(&operands, stop).contains(&look.node)
    };
    if let Some(stage) = (known..stages.len()).find(|&stage| visits(&stages[stage])) {
        return stage;
    }
    if stages.len() <= known {
        stages.resize(known + 1, Stage::default());
    }
    stages.len() - 1
}
