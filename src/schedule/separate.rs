//! Forward and backward apart: gradients in passes of their own, which find the states of the rows' stages.

use super::reads::check_bindings;
use super::saved::{run_stages_ahead, save_rows};
use crate::error::{Error, Result};
use crate::expr::{Node, NodeId};
use crate::limits::Limits;
use crate::lower::{LookPlace, OutputKind, Pass, Placed, Program, UPSTREAM, finish_pass};
use crate::shape::Scope;

/// Moves gradients to passes after all others, with the same stages. Returns the number of passes before these.
///
/// `last` names outputs that overwrite an input; they come after all others. `shared` says that states are exchanged
/// with other shards.
pub fn forward_and_backward(
    program: &Program,
    limits: &Limits,
    last: &[usize],
    shared: bool,
) -> Result<(Program, usize)> {
    check_separable(program)?;
    // Stages that reduce upstream gradients belong to the backward phase, which then computes all states itself.
    let own_stages = stages_hold_upstream(program);
    if own_stages && shared {
        let message = format!("a shard of {} with an upstream gradient: its rows' sums hold it", program.name);
        return Err(Error::Unsupported { message });
    }
    let mut forward = Vec::new();
    let mut backward: Vec<Pass> = Vec::new();
    for pass in &program.passes {
        let (mut grads, others): (Vec<usize>, Vec<usize>) = pass.outputs.iter().partition(|o| is_grad(program, **o));
        let part = |totals: &[NodeId], outputs: Vec<usize>| match own_stages {
            true => finish_pass(program, pass.over, totals.to_vec(), outputs),
            false => program.part_of(pass, totals, outputs),
        };
        let ahead = part(&pass.totals, others);
        check_bindings(program, &ahead, limits)?;
        forward.push(ahead);
        grads.sort_by_key(|output| last.contains(output));
        let mut open: Option<Pass> = None;
        for output in grads {
            let mut outputs = open.as_ref().map_or(Vec::new(), |pass| pass.outputs.clone());
            outputs.push(output);
            let mut wider = part(&[], outputs);
            if check_bindings(program, &wider, limits).is_err() {
                backward.extend(open.take());
                wider = part(&[], vec![output]);
            }
            check_bindings(program, &wider, limits)?;
            open = Some(wider);
        }
        backward.extend(open);
    }
    let ahead = forward.len();
    let passes = forward.into_iter().chain(backward).collect();
    Ok((Program { passes, ..program.clone() }, ahead))
}

/// Lets a program whose `forward` first passes are those of the loss sum by column: the stages of these passes run ahead,
/// as in a program of one phase, and what they leave is saved for both phases. Returns the passes before the gradients.
///
/// A pass of the loss that would make nothing but states goes: saved row values stand for them.
pub fn stages_ahead_of_columns(mut program: Program, forward: usize) -> (Program, usize) {
    let backward = program.passes.split_off(forward);
    program.passes.retain(|pass| !pass.totals.is_empty() || !pass.outputs.is_empty());
    program = run_stages_ahead(&program);
    let forward = program.passes.len();
    program.passes.extend(backward);
    (save_rows(&program, u64::MAX), forward)
}

fn is_grad(program: &Program, output: usize) -> bool {
    program.outputs[output].kind.is_gradient()
}

/// Refuses gradients that are sums of the forward phase, or need a sum over upstream gradients.
fn check_separable(program: &Program) -> Result<()> {
    let is_total = |o: &usize| is_grad(program, *o) && program.outputs[*o].scope == Scope::Total;
    if let Some(output) = (0..program.outputs.len()).find(is_total) {
        let OutputKind::Grad(input) = program.outputs[output].kind else { unreachable!("Hessians are of elements") };
        let name = &program.inputs[input].name;
        let message =
            format!("the gradient of the scalar `{name}` apart from the loss: it is a sum of the forward pass");
        return Err(Error::Unsupported { message });
    }
    if program.passes.iter().flat_map(|pass| &pass.totals).any(|id| holds_upstream(program, *id)) {
        let message =
            format!("gradients of {} apart from the loss: they hold a sum of upstream gradients", program.name);
        return Err(Error::Unsupported { message });
    }
    Ok(())
}

fn holds_upstream(program: &Program, id: NodeId) -> bool {
    let Some(upstream) = program.input(UPSTREAM) else { return false };
    program.below(&[id], |_| false).into_iter().any(|id| *program.node(id) == Node::Input(upstream as u32))
}

/// Whether a row stage, or a look during one, depends on the upstream gradient.
fn stages_hold_upstream(program: &Program) -> bool {
    program.passes.iter().any(|pass| {
        let in_stage = |placed: &&Placed| matches!(placed.place, LookPlace::Stage(_));
        let looks = pass.poison.iter().flat_map(|poison| &poison.looks).filter(in_stage);
        let reduces = pass.stages.iter().flat_map(|stage| stage.reduces.iter().copied().chain(stage.left()));
        reduces.chain(looks.flat_map(|placed| placed.look.nodes())).any(|id| holds_upstream(program, id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses;
    use crate::lower::{Wanted, lower};

    #[test]
    fn gradients_come_last_and_know_the_stages() {
        let wanted = Wanted { loss: true, grads: vec!["input".into()], ..Wanted::default() };
        let program =
            lower(&losses::cross_entropy(), &wanted, &|name| ["input", "target"].contains(&name).then_some(false));
        let (program, ahead) = forward_and_backward(&program.unwrap(), &Limits::WEBGPU, &[], false).unwrap();
        assert_eq!((program.passes.len(), ahead), (3, 2));
        assert!(program.passes[1].outputs.is_empty() && program.passes[2].totals.is_empty());
        assert_eq!(program.passes[1].stages, program.passes[2].stages);
        assert_eq!(program.finishing_pass(), 1, "the loss does not wait for its gradients");
    }
}
