//! Forward and backward apart: gradients in passes of their own, which find the states of the rows' stages.

use super::bindings;
use crate::error::{Error, Result};
use crate::expr::Scope;
use crate::lower::{Pass, Program, Target};
use crate::schedule::Limits;

/// Gradients move to passes after all others, with the same stages. Gives the number of passes before them.
///
/// `last` names outputs that overwrite an input; they come after all others.
pub fn forward_and_backward(program: &Program, limits: &Limits, last: &[usize]) -> Result<(Program, usize)> {
    let is_grad =
        |&output: &usize| matches!(program.outputs[output].target, Target::Grad(_) | Target::HessianDiagonal(_));
    if let Some(output) = (0..program.outputs.len()).find(|o| is_grad(o) && program.outputs[*o].scope == Scope::Total) {
        let Target::Grad(place) = program.outputs[output].target else { unreachable!("Hessians are of elements") };
        let name = &program.inputs[place].name;
        let message =
            format!("the gradient of the scalar `{name}` apart from the loss: it is a sum of the forward pass");
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
        let ahead = Pass { outputs: others, ..pass.clone() };
        if !fits(&ahead) {
            return fault(&ahead);
        }
        forward.push(ahead);
        grads.sort_by_key(|output| last.contains(output));
        let alone = |output: usize| Pass { totals: Vec::new(), outputs: vec![output], ..pass.clone() };
        let mut open: Option<Pass> = None;
        for output in grads {
            let mut wider = open.clone().unwrap_or_else(|| Pass { outputs: Vec::new(), ..alone(output) });
            wider.outputs.push(output);
            if !fits(&wider) {
                backward.extend(open.take());
                wider = alone(output);
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
        let (program, ahead) = forward_and_backward(&program.unwrap(), &Limits::WEBGPU, &[]).unwrap();
        assert_eq!((program.passes.len(), ahead), (3, 2));
        assert!(program.passes[1].outputs.is_empty() && program.passes[2].totals.is_empty());
        assert_eq!(program.passes[1].stages, program.passes[2].stages);
        assert_eq!(program.finishing_pass(), 1, "the loss does not wait for its gradients");
    }
}
