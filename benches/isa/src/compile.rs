//! Compiles the kernels of all cases for one family of GPUs: the work of one process.

use crate::Fallible;
use crate::cases::{Case, Family};
use crate::code;
use crate::radv::{self, Gpu};
use crate::record::{Counts, Kernel, Nan, Planned, Told};
use crate::shaders;
use std::collections::HashMap;
use wgloss::Kernel as RowKernel;
use wgloss::internals::dispatch::{Dispatch, Note};
use wgloss::internals::schedule::PassSchedule;

/// Compiles the kernels of all cases, each once, but not the first `known` ones. `tell` receives each, `text` the machine
/// code.
pub fn compile(
    (family, nan): (&Family, Nan),
    cases: &[Case],
    known: usize,
    tell: &mut dyn FnMut(&Told) -> Fallible<()>,
    text: &mut dyn FnMut(&str),
) -> Fallible<()> {
    let gpu = Gpu::open()?;
    let limits = family.limits(nan);
    let mut indices: HashMap<String, usize> = HashMap::new();
    let mut all = Vec::new();
    for case in cases {
        let preview = case.preview(&limits).map_err(|error| format!("{}: {error}", case.name()))?;
        let mut dispatches = Vec::new();
        for dispatch in preview.planned.all() {
            let next = indices.len();
            let index = *indices.entry(untitled(&dispatch.wgsl).to_owned()).or_insert(next);
            dispatches.push(index);
            if index < next || index < known {
                continue;
            }
            let spirv = shaders::spirv(&dispatch.wgsl)?;
            tell(&Told::Next(index, kernel(dispatch, &preview.schedules, spirv.workgroup)))?;
            let compiled = gpu.compile(&spirv.words, &spirv.buffers)?;
            text(&format!("{}\n{}", dispatch.title(), compiled.code));
            tell(&Told::Done(index, counts(&compiled)?))?;
        }
        all.push(Planned { case: case.clone(), dispatches });
    }
    tell(&Told::Cases(all))
}

/// A kernel without its first line, which names the loss and the shape.
fn untitled(wgsl: &str) -> &str {
    wgsl.split_once('\n').map_or(wgsl, |(_, body)| body)
}

fn kernel(dispatch: &Dispatch, schedules: &[PassSchedule], workgroup: u32) -> Kernel {
    let title = dispatch.title().trim_start_matches("// ").to_owned();
    let (is_pass, held) = (matches!(dispatch.note, Note::Pass(_)), held(dispatch, schedules));
    Kernel { title, workgroup, is_pass, held, counts: None }
}

/// Elements of one tensor that a lane holds of a row, of a dispatch that holds rows.
pub fn held(dispatch: &Dispatch, schedules: &[PassSchedule]) -> Option<u32> {
    let Note::Pass(pass) = dispatch.note else { return None };
    let schedule = schedules.get(pass)?;
    match schedule.kernel {
        RowKernel::RowResident { trips } => Some(trips * schedule.width),
        _ => None,
    }
}

fn counts(compiled: &radv::Compiled) -> Fallible<Counts> {
    let (outside, loops) = code::parts(&compiled.code);
    Ok(Counts {
        instructions: compiled.statistic("Instructions")?,
        registers: compiled.statistic("VGPRs")?,
        spilled: compiled.statistic("Spilled VGPRs")?,
        spilled_scalars: compiled.statistic("Spilled SGPRs")?,
        subgroups_per_simd: compiled.statistic("Subgroups per SIMD")?,
        outside,
        loops,
    })
}
