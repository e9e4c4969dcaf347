//! Splits passes that bind more storage buffers than a device allows.

use super::reads::check_bindings;
use crate::error::Result;
use crate::limits::Limits;
use crate::lower::{Program, finish_pass};

/// Splits passes until none binds more storage buffers than the device allows: outputs move to passes of their own.
///
/// `last` names outputs that overwrite an input; they come after all others.
pub fn split_outputs(program: &Program, limits: &Limits, last: &[usize]) -> Result<Program> {
    let mut program = program.clone();
    let mut passes = Vec::new();
    for pass in std::mem::take(&mut program.passes) {
        let mut open = pass.outputs.clone();
        open.sort_by_key(|output| last.contains(output));
        let mut current = finish_pass(&program, pass.over, pass.totals.clone(), Vec::new());
        loop {
            check_bindings(&program, &current, limits)?;
            let Some(&next) = open.first() else { break };
            let mut outputs = current.outputs.clone();
            outputs.push(next);
            let wider = finish_pass(&program, pass.over, current.totals.clone(), outputs);
            if check_bindings(&program, &wider, limits).is_ok() {
                current = wider;
                open.remove(0);
            } else if current.outputs.is_empty() && current.totals.is_empty() {
                current = wider;
            } else {
                passes.push(current);
                current = finish_pass(&program, pass.over, Vec::new(), Vec::new());
            }
        }
        passes.push(current);
    }
    program.passes = passes;
    Ok(program)
}
