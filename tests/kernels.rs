//! Generated kernels without a device: every loss under every kernel is valid WGSL, and a few are kept as snapshots
//! so that a change of the generator shows.

use wgloss::codegen::{Along, Mode, ReduceKind, Slot, Variant, pass_kernel, reduce, tensors};
use wgloss::lower::{Program, Wanted, lower};
use wgloss::schedule::{Force, Kernel, Limits, PassSchedule, Shape, schedule};
use wgloss::{Loss, Scope, losses};

fn validate(source: &str) {
    let module = naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(source)));
    let flags = naga::valid::ValidationFlags::all();
    let mut validator = naga::valid::Validator::new(flags, naga::valid::Capabilities::empty());
    validator.validate(&module).unwrap_or_else(|e| panic!("{}", e.emit_to_string(source)));
    assert!(!source.contains("hook begin"), "an unfilled hook");
}

/// Every input of the loss, optional ones too.
fn program(loss: &Loss) -> Program {
    let names: Vec<String> = loss.inputs().into_iter().map(|i| i.name).collect();
    let grad = loss.differentiable().unwrap();
    let wanted = Wanted { loss: true, grads: vec![grad], ..Wanted::default() };
    lower(loss, &wanted, &|name| names.iter().any(|n| n == name).then_some(false)).unwrap()
}

fn variant(program: &Program, pass: usize, mode: Mode) -> Variant {
    let pass = &program.passes[pass];
    let along = |slot: &Slot| {
        let scope = match slot {
            Slot::Input(place) => program.inputs[*place].scope,
            Slot::Output(output) => program.outputs[*output].scope,
            _ => unreachable!("a tensor"),
        };
        if matches!(scope, Scope::Element | Scope::Column) { Along::Unit } else { Along::Repeat }
    };
    let along = tensors(program, pass).iter().map(along).collect();
    let modes = pass.outputs.iter().map(|_| mode).collect();
    Variant { along, axes: [false, false, true, true], modes, pooled: false }
}

#[test]
fn every_generated_kernel_is_valid() {
    let kernels =
        [None, Some(Kernel::Row), Some(Kernel::RowResident { trips: 1 }), Some(Kernel::RowSplit { splits: 4 })];
    let mut count = 0;
    for (_, make) in losses::CATALOGUE {
        let program = program(&make());
        for (p, pass) in program.passes.iter().enumerate() {
            for kernel in kernels {
                for vectors in [false, true] {
                    for mode in [Mode::Write, Mode::Accumulate] {
                        let shape =
                            Shape { rows: 64, cols: 512, vectors, rows_innermost: false, gathered_in_place: false };
                        let force = Force { kernel, ..Force::default() };
                        let Ok(chosen) = schedule(&program, pass, shape, &Limits::WEBGPU, force) else { continue };
                        let phases =
                            if let Kernel::RowSplit { .. } = chosen.kernel { pass.stages.len() as u32 } else { 0 };
                        for phase in 0..=phases {
                            validate(&pass_kernel(&program, p, &chosen, &variant(&program, p, mode), phase).wgsl);
                            count += 1;
                        }
                    }
                }
            }
            for kind in [ReduceKind::Segments, ReduceKind::Finish(vec![Mode::Write]), ReduceKind::Groups] {
                validate(&reduce(&program, p, &kind, 64).wgsl);
            }
        }
    }
    assert!(count > 300, "{count} kernels");
}

/// The generated part: what is not skeleton, mathematics or helper.
fn generated(source: &str) -> String {
    let begin = source.find("@group(0)").unwrap();
    source[begin..].to_owned()
}

#[test]
fn generated_kernels_are_as_kept() {
    let snapshot = |name: &str, loss: &Loss, kernel: Kernel, width: u32| {
        let program = program(loss);
        let last = program.passes.len() - 1;
        let chosen = PassSchedule {
            kernel,
            workgroup: 64,
            width,
            lanes: 64,
            subgroup: 0,
            grid: [64, 1],
            strided: true,
            why: "",
        };
        let source = pass_kernel(&program, last, &chosen, &variant(&program, last, Mode::Write), 0).wgsl;
        insta::assert_snapshot!(name, generated(&source));
    };
    snapshot("mse_elementwise_vec4", &losses::mse(), Kernel::Elementwise, 4);
    snapshot("cross_entropy_row_vec4", &losses::cross_entropy(), Kernel::Row, 4);
    snapshot("cross_entropy_split_scalar", &losses::cross_entropy(), Kernel::RowSplit { splits: 4 }, 1);
    let finish = reduce(&program(&losses::rmse()), 1, &ReduceKind::Finish(vec![Mode::Write]), 64).wgsl;
    insta::assert_snapshot!("rmse_finish", generated(&finish));
}
