//! Forward and backward apart: gradients in passes of their own, which find the states of the rows' stages.

use super::reads::bindings;
use crate::error::{Error, Result};
use crate::expr::{Node, NodeId};
use crate::limits::Limits;
use crate::lower::{LookPlace, OutputKind, Pass, Placed, Program, UPSTREAM, finish_pass};
use crate::shape::Scope;

/// Gradients move to passes after all others, with the same stages. Gives the number of passes before them.
///
/// `last` names outputs that overwrite an input; they come after all others. `shared` says that states are exchanged
/// with other shards.
pub fn forward_and_backward(
    program: &Program,
    limits: &Limits,
    last: &[usize],
    shared: bool,
) -> Result<(Program, usize)> {
    let is_grad =
        |&output: &usize| matches!(program.outputs[output].kind, OutputKind::Grad(_) | OutputKind::HessianDiagonal(_));
    if let Some(output) = (0..program.outputs.len()).find(|o| is_grad(o) && program.outputs[*o].scope == Scope::Total) {
        let OutputKind::Grad(place) = program.outputs[output].kind else { unreachable!("Hessians are of elements") };
        let name = &program.inputs[place].name;
        let message =
            format!("the gradient of the scalar `{name}` apart from the loss: it is a sum of the forward pass");
        return Err(Error::Unsupported { message });
    }
    let upstream = program.input(UPSTREAM).map(|place| Node::Input(place as u32));
    let holds_upstream = |id: &NodeId| {
        let below = program.below(&[*id], |_| false);
        upstream.is_some_and(|upstream| below.iter().any(|id| *program.node(*id) == upstream))
    };
    if program.passes.iter().flat_map(|pass| &pass.totals).any(holds_upstream) {
        let message =
            format!("gradients of {} apart from the loss: they hold a sum of upstream gradients", program.name);
        return Err(Error::Unsupported { message });
    }
    // Reductions of upstream gradients belong to the backward part, which then makes all of its states itself.
    let own_stages = program.passes.iter().any(|pass| {
        let in_stage = |placed: &&Placed| matches!(placed.place, LookPlace::Stage(_));
        let looks = pass.poison.iter().flat_map(|poison| &poison.looks).filter(in_stage);
        let reduces = pass.stages.iter().flat_map(|stage| stage.reduces.iter().copied());
        reduces.chain(looks.flat_map(|placed| placed.look.nodes())).any(|id| holds_upstream(&id))
    });
    if own_stages && shared {
        let message = format!("a shard of {} with an upstream gradient: its rows' sums hold it", program.name);
        return Err(Error::Unsupported { message });
    }
    let fits = |pass: &Pass| bindings(program, pass) <= limits.storage_buffers as usize;
    let fault = |pass: &Pass| {
        let (needed, allowed) = (bindings(program, pass) as u64, u64::from(limits.storage_buffers));
        let limit = "max_storage_buffers_per_shader_stage";
        Err(Error::Limit { what: format!("a pass of {}", program.name), needed, allowed, limit })
    };
    let mut forward = Vec::new();
    let mut backward: Vec<Pass> = Vec::new();
    for pass in &program.passes {
        let (mut grads, others): (Vec<usize>, Vec<usize>) = pass.outputs.iter().partition(|o| is_grad(o));
        let stages_of = |totals: &[NodeId], outputs: Vec<usize>| match own_stages {
            true => finish_pass(program, totals.to_vec(), outputs),
            false => program.part_of(pass, totals, outputs),
        };
        let ahead = stages_of(&pass.totals, others);
        if !fits(&ahead) {
            return fault(&ahead);
        }
        forward.push(ahead);
        grads.sort_by_key(|output| last.contains(output));
        let mut open: Option<Pass> = None;
        for output in grads {
            let mut outputs = open.as_ref().map_or(Vec::new(), |pass| pass.outputs.clone());
            outputs.push(output);
            let mut wider = stages_of(&[], outputs);
            if !fits(&wider) {
                backward.extend(open.take());
                wider = stages_of(&[], vec![output]);
            }
            if !fits(&wider) {
                return fault(&wider);
            }
            open = Some(wider);
        }
        backward.extend(open);
    }
    let ahead = forward.len();
    let passes = forward.into_iter().chain(backward).collect();
    Ok((Program { passes, ..program.clone() }, ahead))
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
