//! Passes and stages: the trip over memory in which each value is summed or stored.

use super::looks::{Consumer, Look, LookKind, LookPlace, Looks, Placed, Poison};
use super::program::{Output, Pass, Program, Stage};
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

fn passes(program: &Program) -> Vec<Pass> {
    let count = program.nodes.len();
    // By node: passes before its value is known.
    let mut level = vec![0usize; count];
    for index in 0..count {
        let operands = program.nodes[index].operands().map(|o| level[o.index()]).max().unwrap_or(0);
        level[index] = operands + usize::from(matches!(program.nodes[index], Node::SumOver(..)));
    }
    let inner: Vec<usize> = (0..program.outputs.len()).filter(|&k| program.outputs[k].scope > Scope::Total).collect();
    let sums: Vec<usize> = (0..count).filter(|&p| matches!(program.nodes[p], Node::SumOver(..))).collect();
    // Nodes that the outputs and their looks read.
    let mut read: Vec<NodeId> = inner.iter().flat_map(|&k| program.outputs[k].roots()).collect();
    read.extend(program.looks_of(&[], &inner).iter().flat_map(|(look, _)| look.nodes()));
    let last = read.iter().map(|root| level[root.index()]).chain(sums.iter().map(|&p| level[p] - 1)).max().unwrap_or(0);
    // Each sum as late as its readers allow, so that it shares their trip over memory.
    let mut pass_of = vec![last; count];
    let needs = |roots: &[NodeId], pass: usize, pass_of: &mut Vec<usize>| {
        for id in program.below(roots, |id| matches!(program.node(id), Node::SumOver(..))) {
            if matches!(program.node(id), Node::SumOver(..)) {
                pass_of[id.index()] = pass_of[id.index()].min(pass.saturating_sub(1));
            }
        }
    };
    needs(&read, last, &mut pass_of);
    for &sum in sums.iter().rev() {
        let id = NodeId(sum as u32);
        let mut operands: Vec<NodeId> = program.nodes[sum].operands().collect();
        operands.extend(program.looks_of(&[id], &[]).iter().flat_map(|(look, _)| look.nodes()));
        let pass = pass_of[sum];
        needs(&operands, pass, &mut pass_of);
    }
    (0..=last)
        .map(|p| {
            let totals: Vec<NodeId> = sums.iter().filter(|&&s| pass_of[s] == p).map(|&s| NodeId(s as u32)).collect();
            let outputs = if p == last { inner.clone() } else { Vec::new() };
            finish_pass(program, totals, outputs)
        })
        .collect()
}

/// A pass with these sums and outputs: its stages, and the looks that it makes.
pub(crate) fn finish_pass(program: &Program, mut totals: Vec<NodeId>, outputs: Vec<usize>) -> Pass {
    // Sums over everything first, then sums over groups: their order in memory.
    totals.sort_by_key(|id| program.scope(*id));
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
    Pass { stages, totals, outputs, columns, poison, lenient }
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
