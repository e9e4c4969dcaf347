//! Passes and stages: what is summed and stored in which trip over memory.

use super::program::{Output, Pass, Program, Stage};
use crate::expr::{Graph, Node, NodeId, Scope};
use crate::loss::RowAxis;
use std::collections::HashMap;

/// The program of these outputs: nodes in order, passes and stages.
pub(super) fn assign(
    graph: &Graph,
    [name, title]: [String; 2],
    row_axis: RowAxis,
    outputs: Vec<Output>,
    valid: Option<NodeId>,
) -> Program {
    // Compact, operands first.
    let mut roots: Vec<NodeId> = Vec::new();
    for output in &outputs {
        roots.push(output.node);
        roots.extend(output.at_label.iter().flat_map(|(label, value)| [*label, *value]));
    }
    roots.extend(valid);
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
        valid: None,
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
    program.valid = valid.map(|v| new[&v]);
    program.passes = passes(&program);
    program
}

fn output_roots(output: &Output) -> Vec<NodeId> {
    let mut roots = vec![output.node];
    roots.extend(output.at_label.iter().flat_map(|(label, value)| [*label, *value]));
    roots
}

fn passes(program: &Program) -> Vec<Pass> {
    let count = program.nodes.len();
    // The first pass in which a node can be had.
    let mut level = vec![0usize; count];
    for place in 0..count {
        let operands = program.nodes[place].operands().map(|o| level[o.index()]).max().unwrap_or(0);
        level[place] = operands + usize::from(matches!(program.nodes[place], Node::SumOver(..)));
    }
    let inner: Vec<usize> = (0..program.outputs.len()).filter(|&k| program.outputs[k].scope > Scope::Total).collect();
    let sums: Vec<usize> = (0..count).filter(|&p| matches!(program.nodes[p], Node::SumOver(..))).collect();
    let last = inner
        .iter()
        .flat_map(|&k| output_roots(&program.outputs[k]))
        .map(|root| level[root.index()])
        .chain(sums.iter().map(|&p| level[p] - 1))
        .max()
        .unwrap_or(0);
    // Each sum as late as its readers allow, so that it shares their trip over memory.
    let mut pass_of = vec![last; count];
    let needs = |roots: &[NodeId], pass: usize, pass_of: &mut Vec<usize>| {
        for id in program.below(roots, |id| matches!(program.node(id), Node::SumOver(..))) {
            if matches!(program.node(id), Node::SumOver(..)) {
                pass_of[id.index()] = pass_of[id.index()].min(pass.saturating_sub(1));
            }
        }
    };
    for &k in &inner {
        needs(&output_roots(&program.outputs[k]), last, &mut pass_of);
    }
    for &sum in sums.iter().rev() {
        let operands: Vec<NodeId> = program.nodes[sum].operands().collect();
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

/// The stages that the totals and outputs of a pass need.
pub(crate) fn finish_pass(program: &Program, mut totals: Vec<NodeId>, outputs: Vec<usize>) -> Pass {
    // Sums over everything first, then those over groups: their places in memory.
    totals.sort_by_key(|id| program.scope(*id));
    let mut roots: Vec<NodeId> = totals.iter().flat_map(|t| program.node(*t).operands()).collect();
    for &k in &outputs {
        roots.extend(output_roots(&program.outputs[k]));
    }
    let needed = program.below(&roots, |id| matches!(program.node(id), Node::SumOver(..)));
    // Stage of a reduction: one later than the reductions below it.
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
            stages.resize(below + 1, Stage { reduces: Vec::new() });
        }
        let known = program.online_partner(id).is_some_and(|partner| needed.contains(&partner));
        if !known {
            stages[below].reduces.push(id);
        }
    }
    stages.retain(|stage| !stage.reduces.is_empty());
    let columns = !program.has_rows()
        || !stages.is_empty()
        || outputs.iter().any(|&k| program.outputs[k].scope == Scope::Element);
    Pass { stages, totals, outputs, columns }
}
