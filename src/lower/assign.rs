//! Passes and stages: the trip over memory in which each value is summed or stored.

use super::looks::{Consumer, Look, LookKind, LookPlace, Looks, Placed, Poison};
use super::program::{Output, Over, Pass, Program, Stage};
use crate::expr::{Graph, Node, NodeId};
use crate::shape::RowAxis;
use crate::shape::Scope;
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
        nodes: Vec::new(),
        scopes: Vec::new(),
        kinds: Vec::new(),
        inputs: graph.inputs(),
        params: graph.params(),
        passes: Vec::new(),
        outputs,
        looks: Looks::default(),
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

/// Slots of time in which passes run, in order: rows in even slots, groups in odd ones.
fn slot_from(level: usize, over: Over) -> usize {
    let parity = usize::from(over == Over::Groups);
    level + (level + parity) % 2
}

/// The last slot before `slot` in which a pass over these items may run.
fn slot_before(slot: usize, over: Over) -> usize {
    let parity = usize::from(over == Over::Groups);
    slot.saturating_sub(1 + (slot.saturating_sub(1) + parity) % 2)
}

/// The items that values of a scope are computed from.
pub(super) fn items_of(scope: Scope) -> Over {
    if scope == Scope::Group { Over::Groups } else { Over::Rows }
}

fn passes(program: &Program) -> Vec<Pass> {
    let count = program.nodes.len();
    let summed = |id: NodeId| {
        let operand = program.node(id).operands().next().expect("a sum has an operand");
        items_of(program.scope(operand))
    };
    // By node: the first slot of time in which its value is known.
    let mut level = vec![0usize; count];
    for index in 0..count {
        let operands = program.nodes[index].operands().map(|o| level[o.index()]).max().unwrap_or(0);
        level[index] = match program.nodes[index] {
            Node::SumOver(..) => slot_from(operands, summed(NodeId(index as u32))) + 1,
            _ => operands,
        };
    }
    let sums: Vec<usize> = (0..count).filter(|&p| matches!(program.nodes[p], Node::SumOver(..))).collect();
    let by_items = |over: Over| {
        let inner = (0..program.outputs.len()).filter(|&k| program.outputs[k].scope > Scope::Total);
        let outputs: Vec<usize> = inner.filter(|&k| items_of(program.outputs[k].scope) == over).collect();
        // Nodes that the outputs and their looks read.
        let mut read: Vec<NodeId> = outputs.iter().flat_map(|&k| program.outputs[k].roots()).collect();
        read.extend(program.looks_of(&[], &outputs).iter().flat_map(|(look, _)| look.nodes()));
        (outputs, read)
    };
    let [of_rows, of_groups] = [Over::Rows, Over::Groups].map(by_items);
    // The last slot with a pass over these items.
    let last = |over: Over, read: &[NodeId]| {
        let outputs = read.iter().map(|root| slot_from(level[root.index()], over));
        let sums = sums.iter().filter(|&&p| summed(NodeId(p as u32)) == over).map(|&p| level[p] - 1);
        outputs.chain(sums).max()
    };
    let last_of_groups = last(Over::Groups, &of_groups.1);
    let last_of_rows = last(Over::Rows, &of_rows.1).unwrap_or(0);
    let end = last_of_groups.unwrap_or(0).max(last_of_rows);
    // Each sum as late as its readers allow, so that it shares their trip over memory.
    let mut slot_of: Vec<usize> = vec![end; count];
    for &sum in &sums {
        slot_of[sum] = match summed(NodeId(sum as u32)) {
            Over::Rows => last_of_rows,
            Over::Groups => last_of_groups.expect("a sum of groups has a slot"),
        };
    }
    let needs = |roots: &[NodeId], slot: usize, slot_of: &mut Vec<usize>| {
        for id in program.below(roots, |id| matches!(program.node(id), Node::SumOver(..))) {
            if matches!(program.node(id), Node::SumOver(..)) {
                slot_of[id.index()] = slot_of[id.index()].min(slot_before(slot, summed(id)));
            }
        }
    };
    needs(&of_rows.1, last_of_rows, &mut slot_of);
    needs(&of_groups.1, last_of_groups.unwrap_or(0), &mut slot_of);
    for &sum in sums.iter().rev() {
        let id = NodeId(sum as u32);
        let mut operands: Vec<NodeId> = program.nodes[sum].operands().collect();
        operands.extend(program.looks_of(&[id], &[]).iter().flat_map(|(look, _)| look.nodes()));
        let slot = slot_of[sum];
        needs(&operands, slot, &mut slot_of);
    }
    let pass = |slot: usize| {
        let totals = sums.iter().filter(|&&s| slot_of[s] == slot).map(|&s| NodeId(s as u32)).collect();
        let outputs = match slot {
            _ if Some(slot) == last_of_groups => of_groups.0.clone(),
            _ if slot == last_of_rows => of_rows.0.clone(),
            _ => Vec::new(),
        };
        finish_pass(program, totals, outputs)
    };
    let all: Vec<Pass> = (0..=end).map(pass).collect();
    let is_empty = |pass: &Pass| pass.totals.is_empty() && pass.outputs.is_empty();
    match all.iter().all(is_empty) {
        // An output that is one number already still has a pass to come after.
        true => vec![all.into_iter().next().expect("there is a slot")],
        false => all.into_iter().filter(|pass| !is_empty(pass)).collect(),
    }
}

/// A pass with these sums and outputs: its stages, and the looks that it makes.
pub(crate) fn finish_pass(program: &Program, mut totals: Vec<NodeId>, outputs: Vec<usize>) -> Pass {
    // Sums over everything first, then sums over groups: their order in memory.
    totals.sort_by_key(|id| program.scope(*id));
    let operands = totals.iter().flat_map(|id| program.node(*id).operands()).map(|id| program.scope(id));
    let scopes = operands.chain(outputs.iter().map(|&k| program.outputs[k].scope));
    let over = scopes.map(items_of).next().unwrap_or_default();
    let looks = program.looks_of(&totals, &outputs);
    let lenient = lenient_labels(program, &totals);
    let mut roots: Vec<NodeId> = totals.iter().flat_map(|t| program.node(*t).operands()).collect();
    roots.extend(outputs.iter().flat_map(|&k| program.outputs[k].roots()));
    roots.extend(looks.iter().flat_map(|(look, _)| look.nodes()));
    roots.extend(lenient.iter().flat_map(|(_, look)| look.nodes()));
    let (mut stages, depth) = stages(program, &roots);
    let writes = outputs.iter().any(|&k| program.outputs[k].scope == Scope::Element);
    let visits = !stages.is_empty() || writes || looks.iter().any(|(look, _)| is_of_columns(program, look));
    let poison = place_looks(program, looks, &depth, &mut stages);
    let columns = !program.has_rows() || visits;
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

/// The reductions below the roots by stage, each one stage later than the reductions below it; and, by node, the stages
/// before its value is known.
fn stages(program: &Program, roots: &[NodeId]) -> (Vec<Stage>, HashMap<NodeId, usize>) {
    let needed = program.below(roots, |id| matches!(program.node(id), Node::SumOver(..)));
    let mut depth: HashMap<NodeId, usize> = HashMap::new();
    let mut stages: Vec<Stage> = Vec::new();
    for &id in &needed {
        let node = program.node(id);
        if matches!(node, Node::SumOver(..)) {
            depth.insert(id, 0);
            continue;
        }
        let below = node.operands().filter_map(|o| depth.get(&o).copied()).max().unwrap_or(0);
        let Node::Reduce(..) = node else {
            depth.insert(id, below);
            continue;
        };
        depth.insert(id, below + 1);
        if stages.len() <= below {
            stages.resize(below + 1, Stage::default());
        }
        let known = program.online_partner(id).is_some_and(|partner| needed.contains(&partner));
        if !known {
            stages[below].reduces.push(id);
        }
    }
    (stages, depth)
}

/// The looks of a pass by the results that they poison, each with when it is made. May add a stage for a look.
fn place_looks(
    program: &Program,
    looks: Vec<(Look, Vec<Consumer>)>,
    depth: &HashMap<NodeId, usize>,
    stages: &mut Vec<Stage>,
) -> Vec<Poison> {
    let mut poison: Vec<Poison> = Vec::new();
    for (look, consumers) in looks {
        let place = match is_of_columns(program, &look) && program.has_rows() {
            false => LookPlace::Row,
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
        program.below(&operands, |id| !is_element(id)).contains(&look.node)
    };
    if let Some(stage) = (known..stages.len()).find(|&stage| visits(&stages[stage])) {
        return stage;
    }
    if stages.len() <= known {
        stages.resize(known + 1, Stage::default());
    }
    stages.len() - 1
}
