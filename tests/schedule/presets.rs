//! Plans for GPUs that are not here. Nothing is run; kernels are parsed and validated.

use crate::common::is_in_share;
use wgloss::internals::plan::preview;
use wgloss::{DType, Kind, Limits, Loss, PlanSpec, Scope, losses};

/// Loss and gradient of a loss over `[rows, cols, …]`, with the inputs that it must have.
pub fn spec(loss: &Loss, shape: &[usize], dtype: DType) -> PlanSpec {
    let cols = loss.cols().expect("one number of columns").map_or(shape[1], |stated| stated as usize);
    let (mut elements, mut rows) = (shape.to_vec(), shape.to_vec());
    elements[1] = cols;
    rows.remove(1);
    let mut spec = PlanSpec::new();
    for input in loss.inputs().into_iter().filter(|input| !input.optional) {
        let shape: &[usize] = match input.scope {
            Scope::Element => &elements,
            Scope::Row => &rows,
            Scope::Column => &[cols],
            _ => &[],
        };
        spec = spec.input(&input.name, if input.kind == Kind::Int { DType::I32 } else { dtype }, shape);
    }
    spec.grad(&loss.differentiable().expect("an input to differentiate by"))
}

#[test]
fn every_preset_plans_every_loss() {
    // One lane per row, resident rows, streamed or split rows of an odd length.
    for shape in [[65_536, 10], [8192, 1000], [64, 50_257]] {
        for losses::Entry { name, make, .. } in losses::CATALOGUE {
            let mut loss = make();
            // One sum a sample and class is of fewer samples.
            if shape[0] > 64 && loss.option_value("batch").is_some() {
                loss = loss.option("batch", true);
            }
            for (preset, limits) in Limits::PRESETS {
                for dtype in [DType::F32, DType::BF16] {
                    if !is_in_share(&format!("{name} {shape:?} {dtype} as {preset}")) {
                        continue;
                    }
                    let found = preview(&loss, &spec(&loss, &shape, dtype), &limits, preset);
                    let found = found.unwrap_or_else(|error| panic!("{name} {shape:?} {dtype} as {preset}: {error}"));
                    assert!(
                        !found.planned.dispatches.is_empty() && found.explanation.contains(preset),
                        "{name} as {preset}"
                    );
                }
            }
        }
    }
}

#[test]
fn kernels_of_a_preset_keep_its_limits() {
    let loss = losses::cross_entropy();
    for (preset, limits) in Limits::PRESETS {
        for kernel in
            preview(&loss, &spec(&loss, &[4096, 32_000], DType::BF16), &limits, preset).unwrap().planned.kernels()
        {
            let module = naga::front::wgsl::parse_str(&kernel).unwrap_or_else(|error| panic!("{preset}: {error}"));
            let buffers = module.global_variables.iter();
            let buffers = buffers.filter(|(_, var)| matches!(var.space, naga::AddressSpace::Storage { .. })).count();
            assert!(buffers <= limits.storage_buffers as usize, "{preset}: {buffers} storage buffers");
            let [x, y, z] = module.entry_points[0].workgroup_size;
            assert!(x * y * z <= limits.workgroup_invocations, "{preset}: workgroups of {x} x {y} x {z}");
            assert!(limits.subgroup > 0 || !kernel.contains("subgroup_invocation_id"), "{preset}: no subgroups there");
        }
    }
}
