//! Generated kernels without a device: every loss under every kernel is valid WGSL, and a few are kept as snapshots
//! so that a change of the generator shows.

use crate::common::is_in_share;
use naga::valid::Capabilities;
use wgloss::DType;
use wgloss::internals::codegen::{
    Access, Along, Mode, Pair, ReduceKind, Slot, Variant, edge_outputs, found, pass_kernel, ragged_sums, reduce,
    row_groups, stitch, tensors, total_outputs,
};
use wgloss::internals::lower::{GroupInput, Program, Wanted, lower};
use wgloss::internals::schedule::{PassSchedule, Shape, schedule, visited_inputs};
use wgloss::{Exp2, Kernel, Limits, Pinned};
use wgloss::{Loss, Scope, losses};

fn validate(source: &str) {
    validate_with(source, Capabilities::empty());
}

fn validate_with(source: &str, more: Capabilities) {
    let module = naga::front::wgsl::parse_str(source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(source)));
    let flags = naga::valid::ValidationFlags::all();
    let capabilities = Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16_IN_FLOAT32 | more;
    let mut validator = naga::valid::Validator::new(flags, capabilities);
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

/// A dense problem: every tensor with columns is reached by vectors, unless `masked` windows begin elsewhere in one.
/// Of pairs of vectors that begin elsewhere, windows may be whole: then they are aligned to an input, `early`.
fn variant(program: &Program, pass: usize, mode: Mode, stored: (DType, Pair), masked: bool, early: bool) -> Variant {
    let (dtype, pair) = stored;
    let pass = &program.passes[pass];
    let slots = tensors(program, pass);
    let visited = visited_inputs(program, pass);
    let is_visited = |slot: &Slot| matches!(slot, Slot::Input(place) if visited.contains(place));
    let access = |slot: &Slot| {
        let (scope, is_float) = match slot {
            Slot::Input(place) => (program.inputs[*place].scope, program.inputs[*place].kind == wgloss::Kind::Float),
            Slot::Output(output) => (program.outputs[*output].scope, program.outputs[*output].scope == Scope::Element),
            _ => unreachable!("a tensor"),
        };
        let has_columns = scope.has_columns();
        let along = if has_columns { Along::Unit } else { Along::Repeat };
        // Columns' values begin at a vector of their own.
        let vector = scope == Scope::Element || (scope == Scope::Column && !masked);
        let dtype = if is_float { dtype } else { DType::I32 };
        let is_pair = match pair {
            Pair::Words64 => is_visited(slot),
            _ => dtype == stored.0 && (is_visited(slot) || matches!(slot, Slot::Output(_))),
        };
        Access { along, dtype, vector, pair: if vector && is_pair { pair } else { Pair::Apart } }
    };
    let access: Vec<Access> = slots.iter().map(access).collect();
    let aligned_to = slots.iter().position(|s| matches!(s, Slot::Output(_))).filter(|k| masked && access[*k].vector);
    let aligned_to = if early { access.iter().position(|access| access.pair != Pair::Apart) } else { aligned_to };
    let modes = pass.outputs.iter().map(|_| mode).collect();
    let axes = [false, false, program.has_rows() || !masked, true];
    Variant {
        access,
        aligned_to,
        masked,
        axes,
        modes,
        pooled: false,
        column_range: false,
        exact: true,
        saved_before: 0,
    }
}

/// Elements that a lane takes at a time, stored as what, in masked windows or not.
const STORAGE: [(u32, DType, Pair, bool); 12] = [
    (1, DType::F32, Pair::Apart, false),
    (4, DType::F32, Pair::Apart, false),
    (4, DType::F32, Pair::Apart, true),
    (4, DType::F16, Pair::Apart, true),
    (4, DType::BF16, Pair::Apart, false),
    (8, DType::F32, Pair::Words64, false),
    (8, DType::F32, Pair::Words64, true),
    (8, DType::F16, Pair::Words64, true),
    (8, DType::BF16, Pair::Words64, false),
    (8, DType::BF16, Pair::Halves, false),
    (8, DType::BF16, Pair::Halves, true),
    (8, DType::F16, Pair::Halves, false),
];

#[test]
fn every_generated_kernel_is_valid() {
    let kernels =
        [None, Some(Kernel::Row), Some(Kernel::RowResident { trips: 1 }), Some(Kernel::RowSplit { splits: 4 })];
    let mut count = 0;
    for entry in losses::CATALOGUE {
        let program = program(&(entry.make)());
        let noted = Program { found_inf: true, ..program.clone() };
        validate(&found(&noted).wgsl);
        for (p, pass) in program.passes.iter().enumerate() {
            for kernel in kernels {
                for (width, dtype, pair, masked) in STORAGE {
                    for mode in [Mode::Write, Mode::Accumulate] {
                        let shape = Shape { width, masked, ..Shape::of(64, 512) };
                        let pinned = Pinned { kernel, ..Pinned::default() };
                        let limits = Limits { subgroup: if width == 1 { 0 } else { 32 }, ..Limits::WEBGPU };
                        let Ok(chosen) = schedule(&program, pass, shape, &limits, pinned) else { continue };
                        count += 1;
                        let name = entry.name;
                        if !is_in_share(&format!("{name} {p} {kernel:?} {width} {dtype} {pair:?} {masked} {mode:?}")) {
                            continue;
                        }
                        // Where windows are whole, in every second mode.
                        let early = chosen.width == 8 && (masked || mode == Mode::Write);
                        let variant = variant(&program, p, mode, (dtype, pair), masked && chosen.width > 1, early);
                        let phases =
                            if let Kernel::RowSplit { .. } = chosen.kernel { pass.stages.len() as u32 } else { 0 };
                        // 64-bit integers are no part of WebGPU.
                        let more =
                            if pair == Pair::Words64 { Capabilities::SHADER_INT64 } else { Capabilities::empty() };
                        for phase in 0..=phases {
                            validate_with(&pass_kernel(&program, p, &chosen, &variant, phase).wgsl, more);
                            // Kernels that store gradients, where it is asked whether these are finite.
                            if phase == phases && noted.notes_any(&pass.outputs) {
                                validate_with(&pass_kernel(&noted, p, &chosen, &variant, phase).wgsl, more);
                            }
                        }
                        for output in edge_outputs(&program, pass, &variant, chosen.width) {
                            validate(&stitch(&program, p, &chosen, &variant, output, 64).wgsl);
                        }
                    }
                }
            }
            for kind in [ReduceKind::Segments, ReduceKind::Finish(vec![Mode::Write]), ReduceKind::Groups] {
                let is_finish = matches!(kind, ReduceKind::Finish(_)) && p == program.finishing_pass();
                let outputs = if is_finish { total_outputs(&program) } else { Vec::new() };
                validate(&reduce(&program, p, &kind, &outputs, 64).wgsl);
            }
        }
    }
    assert!(count > 1000, "only {count} schedules, of which a share is generated");
}

/// Each row's distance from the mean of its group, a group's weight and its target, in groups of unequal length.
fn ragged(groups: GroupInput) -> Program {
    let loss = Loss::define("ragged").input("x", Scope::Element).input("t", Scope::Group);
    let loss = loss.row_axis(wgloss::RowAxis::Last).expr(|b| {
        let sum = b.input("x").sum();
        let off = sum - sum.sum_over(Scope::Group) / b.graph().count(wgloss::Extent::GroupRows) - b.input("t");
        off * off
    });
    let wanted = Wanted { loss: true, grads: vec!["x".into(), "t".into()], groups: Some(groups), ..Wanted::default() };
    lower(&loss, &wanted, &|name| ["x", "t"].contains(&name).then_some(false)).unwrap()
}

#[test]
fn kernels_of_unequal_groups_are_valid() {
    for groups in [GroupInput::offsets("groups"), GroupInput::ids("groups", 9)] {
        let program = ragged(groups);
        validate(&row_groups(&program, program.ragged.unwrap(), 7, 64).wgsl);
        for (p, pass) in program.passes.iter().enumerate() {
            for (lanes, blocks) in [(8, false), (64, true)] {
                validate(&ragged_sums(&program, p, [64, lanes], blocks).wgsl);
            }
            validate(&reduce(&program, p, &ReduceKind::Blocks, &[], 64).wgsl);
            for kernel in [Kernel::Elementwise, Kernel::Row, Kernel::RowSplit { splits: 4 }] {
                let pinned = Pinned { kernel: Some(kernel), ..Pinned::default() };
                let shape = Shape { width: 4, ..Shape::of(64, 512) };
                let Ok(chosen) = schedule(&program, pass, shape, &Limits::WEBGPU, pinned) else { continue };
                let variant = variant(&program, p, Mode::Write, (DType::F32, Pair::Apart), false, false);
                validate(&pass_kernel(&program, p, &chosen, &variant, 0).wgsl);
            }
        }
    }
}

/// Rounding alone would make some NaN a number. Where a softmax is stored, the row's factor says that there is none; where it
/// is added to what was there, that may be NaN.
#[test]
fn halves_are_packed_without_a_look_for_nan_only_where_none_can_be() {
    let program = program(&losses::cross_entropy());
    let last = program.passes.len() - 1;
    let shape = Shape { width: 4, held_bits: 16, held_packed: true, ..Shape::of(64, 512) };
    for carries_nan in [false, true] {
        let pinned = Pinned { carries_nan: Some(carries_nan), ..Pinned::default() };
        let chosen = schedule(&program, &program.passes[last], shape, &Limits::WEBGPU, pinned).unwrap();
        for (mode, is_unchecked) in [(Mode::Write, true), (Mode::Accumulate, false)] {
            let variant = variant(&program, last, mode, (DType::BF16, Pair::Apart), false, false);
            let source = pass_kernel(&program, last, &chosen, &variant, 0).wgsl;
            assert_eq!(source.contains("= pack4_bf16_numbers("), is_unchecked, "{mode:?}, carries NaN {carries_nan}");
        }
    }
}

// Elsewhere they are compiled only where the benchmark runs.
#[test]
fn kernels_of_the_device_benchmark_are_valid() {
    validate(include_str!("../../benches/device/kernels.wgsl"));
}

/// The generated part: what is not skeleton, mathematics or helper.
fn generated(source: &str) -> String {
    let begin = source.find("@group(0)").unwrap();
    source[begin..].to_owned()
}

#[test]
fn generated_kernels_are_as_kept() {
    let snapshot = |name: &str, loss: &Loss, kernel: Kernel, width: u32, stored: (DType, Pair)| {
        let program = program(loss);
        let last = program.passes.len() - 1;
        let chosen = PassSchedule {
            kernel,
            workgroup: 64,
            width,
            lanes: 64,
            subgroup: 0,
            exp2: Exp2::Nothing,
            carries_nan: name.ends_with("_by_run"),
            grid: [64, 1],
            strided: true,
            alone: false,
            why: "",
        };
        let variant = variant(&program, last, Mode::Write, stored, false, false);
        let source = pass_kernel(&program, last, &chosen, &variant, 0).wgsl;
        insta::assert_snapshot!(name, generated(&source));
    };
    let (vectors, words) = ((DType::F32, Pair::Apart), (DType::F32, Pair::Words64));
    snapshot("mse_elementwise_vec4", &losses::mse(), Kernel::Elementwise, 4, vectors);
    snapshot("cross_entropy_row_vec4", &losses::cross_entropy(), Kernel::Row, 4, vectors);
    snapshot("mse_elementwise_pairs", &losses::mse(), Kernel::Elementwise, 8, words);
    snapshot("cross_entropy_row_pairs", &losses::cross_entropy(), Kernel::Row, 8, words);
    snapshot("cross_entropy_pairs_of_rows", &losses::cross_entropy(), Kernel::RowPairs, 1, (DType::BF16, Pair::Apart));
    let halves = (DType::BF16, Pair::Halves);
    snapshot("mse_elementwise_halves", &losses::mse(), Kernel::Elementwise, 8, halves);
    snapshot("mse_elementwise_by_run", &losses::mse(), Kernel::Elementwise, 8, halves);
    snapshot("cross_entropy_resident_halves", &losses::cross_entropy(), Kernel::RowResident { trips: 2 }, 8, halves);
    snapshot("cross_entropy_split_scalar", &losses::cross_entropy(), Kernel::RowSplit { splits: 4 }, 1, vectors);
    let ids = ragged(GroupInput::ids("groups", 9));
    insta::assert_snapshot!("unequal_groups_ids", generated(&row_groups(&ids, ids.ragged.unwrap(), 7, 64).wgsl));
    insta::assert_snapshot!("unequal_groups_sums", generated(&ragged_sums(&ids, 0, [64, 8], true).wgsl));
    let (program, kind) = (program(&losses::rmse()), ReduceKind::Finish(vec![Mode::Write]));
    let finish = reduce(&program, 1, &kind, &total_outputs(&program), 64).wgsl;
    insta::assert_snapshot!("rmse_finish", generated(&finish));
}
