//! What `explain` says a plan moves, against what its kernels move, for plans of every kind.

use super::{Given, counted};
use crate::limits::Limits;
use crate::plan::operator::{Conditions, Operator};
use crate::plan::spec::{GradMode, PlanSpec};
use crate::schedule::{Kernel, Pinned};
use crate::{DType, Loss, Reduction, RowAxis, Scope, Shard, fused, losses};

/// A plan, and by how much its words may differ.
struct Case {
    name: &'static str,
    operator: Box<dyn Operator>,
    spec: PlanSpec,
    limits: Limits,
    /// Rows of 16-bit tensors that begin or end inside a word.
    odd_rows: u64,
    /// Bytes that are read again where the data say so: of a streamed row, its label, or the block of its largest value.
    by_data: u64,
}

fn case(name: &'static str, operator: impl Operator + 'static, spec: PlanSpec) -> Case {
    Case { name, operator: Box::new(operator), spec, limits: Limits::WEBGPU, odd_rows: 0, by_data: 0 }
}

/// The number after a word of the text.
fn said(text: &str, word: &str) -> u64 {
    let after = text.split(word).nth(1).unwrap_or_else(|| panic!("no `{word}` in\n{text}"));
    let digits = after.split_whitespace().next().unwrap_or_default().replace(',', "");
    digits.parse().unwrap_or_else(|_| panic!("no number after `{word}` in\n{text}"))
}

fn classes(shape: &[usize], dtype: DType) -> PlanSpec {
    let outer = [&shape[..1], &shape[2..]].concat();
    PlanSpec::new().input("input", dtype, shape).input("target", DType::I32, &outer)
}

fn pair(shape: &[usize], dtype: DType) -> PlanSpec {
    PlanSpec::new().input("input", dtype, shape).input("target", dtype, shape)
}

/// Rows of 600 classes, by that kernel.
fn by_kernel(kernel: Kernel) -> PlanSpec {
    of_classes(600, kernel)
}

fn of_classes(cols: usize, kernel: Kernel) -> PlanSpec {
    let pinned = Pinned { kernel: Some(kernel), ..Pinned::default() };
    classes(&[12, cols], DType::F32).grad("input").pin(pinned)
}

fn dice(to: Scope) -> Loss {
    Loss::define("dice").input("x", Scope::Element).label("y").row_axis(RowAxis::Class).expr(move |b| {
        let p = b.input("x").softmax();
        let t = b.graph().col_index().equals(b.input("y")).to_float();
        1.0 - 2.0 * (p * t).sum_over(to) / (p + t).sum_over(to)
    })
}

fn centred() -> Loss {
    let definition = Loss::define("centred").input("input", Scope::Element).input("r", Scope::Row);
    definition.row_axis(RowAxis::Last).expr(|b| {
        let s = b.input("input").sum() * b.input("r");
        let off = s - s.sum_over(Scope::Group);
        off * off
    })
}

fn element_wise() -> Vec<Case> {
    let small = || Limits { binding_bytes: 1 << 14, ..Limits::WEBGPU };
    let broadcast = PlanSpec::new().input("input", DType::F32, &[20, 50]).input("target", DType::F32, &[1, 50]);
    let long = PlanSpec::new().input("input", DType::F32, &[40_000, 1]).input("target", DType::F32, &[1, 1]);
    vec![
        case("element-wise", losses::mse(), pair(&[33, 40], DType::F32).grad("input")),
        case("element-wise, bf16", losses::mse(), pair(&[33, 40], DType::BF16).grad("input").grad("target")),
        Case { limits: small(), ..case("several chunks", losses::mse(), pair(&[64, 100], DType::F32).grad("input")) },
        case("a kept gradient", losses::mse().broadcast(true), broadcast.grad("target")),
        case("a kept gradient in segments", losses::mse().broadcast(true), long.grad("target")),
        case("a penalty", fused::l2_penalty(0.5), PlanSpec::new().input("w0", DType::F32, &[30, 20]).grad("w0")),
    ]
}

fn rows() -> Vec<Case> {
    let ce = losses::cross_entropy;
    let of_columns = Limits { binding_bytes: 1 << 12, ..Limits::WEBGPU };
    let of_rows = Limits { binding_bytes: 1 << 14, ..Limits::WEBGPU };
    // One dispatch adds up fewer partial sums there.
    let of_cpu = Limits { software: true, ..Limits::WEBGPU };
    let wide = || classes(&[12, 600], DType::F32);
    let accumulated = wide().grad_mode("input", GradMode::Accumulate);
    let odd = classes(&[12, 301], DType::BF16).grad("input");
    vec![
        case("resident", ce(), by_kernel(Kernel::RowResident { trips: 0 })),
        Case { by_data: 12 * 64, ..case("streamed", ce(), by_kernel(Kernel::Row)) },
        case("streamed, smoothed", ce().label_smoothing(0.1), by_kernel(Kernel::Row)),
        case("split", ce(), by_kernel(Kernel::RowSplit { splits: 3 })),
        case("narrow", ce(), classes(&[50, 5], DType::F32).grad("input")),
        Case { limits: of_cpu, ..case("sums in two steps", ce(), classes(&[17_000, 7], DType::F32)) },
        case("class axis 1", ce(), classes(&[2, 7, 30], DType::F32).grad("input")),
        Case {
            by_data: 4 * 1200,
            ..case("class axis 1, pairs of rows", ce(), classes(&[2, 7, 600], DType::BF16).grad("input"))
        },
        case("forward alone", ce(), wide()),
        Case { odd_rows: 12, ..case("odd columns, bf16", ce(), odd) },
        case("accumulated", ce(), accumulated),
        case("in place", ce(), wide().grad_mode("input", GradMode::InPlace)),
        case("class weights", ce(), wide().input("weight", DType::F32, &[600]).grad("input")),
        case("found_inf", ce(), wide().grad("input").found_inf()),
        Case { limits: of_rows, ..case("chunks of rows", ce(), classes(&[32, 400], DType::F32).grad("input")) },
        Case { limits: of_columns, ..case("chunks of columns", ce(), classes(&[4, 1200], DType::F32).grad("input")) },
        case("separate backward", ce().reduction(Reduction::Sum), wide().grad("input").separate_backward()),
        case("a shard", ce(), wide().grad("input").shard(Shard { first: 0, classes: 600, shards: 1 })),
        case("scans, resident", losses::emd_squared(), of_classes(300, Kernel::RowResident { trips: 0 })),
        case("scans, streamed", losses::emd_squared(), of_classes(300, Kernel::Row)),
        case("softmax", fused::softmax(), PlanSpec::new().input("input", DType::F32, &[10, 64])),
    ]
}

fn sums() -> Vec<Case> {
    let of_groups = PlanSpec::new().input("input", DType::F32, &[24, 16]).input("r", DType::F32, &[24]).grad("input");
    let ragged = of_groups.clone().input("groups", DType::U32, &[4]).group_offsets("groups");
    let voxels = |shape: [usize; 3]| {
        PlanSpec::new().input("x", DType::F32, &shape).input("y", DType::I32, &[shape[0], shape[2]]).grad("x")
    };
    vec![
        case("groups", centred(), of_groups.group_rows(4)),
        case("ragged groups", centred(), ragged),
        case("column sums", dice(Scope::Column), voxels([2, 7, 30])),
        case("sums by group and column", dice(Scope::GroupColumn), voxels([3, 7, 30])),
    ]
}

fn check(cases: Vec<Case>) {
    for Case { name, operator, spec, limits, odd_rows, by_data } in cases {
        let prepared = operator.prepare(&spec, &limits).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tensors = prepared.planned().unwrap();
        let planned = prepared.plan(&tensors, Conditions::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let text = prepared.explain(&tensors, Conditions::default(), "no adapter").unwrap();
        // Labels stay below the fewest classes, and are all different where there are as many.
        let classes = if name == "narrow" { 5 } else { 7 };
        let classes = if name == "class weights" { 600 } else { classes };
        let found = counted(&*prepared, &planned, &Given { classes, offsets: &[0, 9, 15, 24] });
        let (says, moves) = (said(&text, "does move"), found.tensors + found.workspace);
        println!("{name}: says {says}, moves {moves}, of it {} in the workspace; loss {}", found.workspace, found.loss);
        assert!(found.loss.is_finite() && found.loss != 0.0, "{name}: {}", found.loss);
        let allowed = by_data + 4 * odd_rows * found.trips_to_halves;
        assert!(moves >= says && moves - says <= allowed, "{name}: says {says}, moves {moves}, {found:?}\n{text}");
    }
}

#[test]
fn explain_says_the_bytes_that_element_wise_plans_move() {
    check(element_wise());
}

#[test]
fn explain_says_the_bytes_that_plans_of_rows_move() {
    check(rows());
}

#[test]
fn explain_says_the_bytes_that_sums_over_rows_move() {
    check(sums());
}
