//! Hooks of `reduce.wgsl`: partial sums of a pass reduced to segments, to groups, or to scalars and outputs of scope
//! total.

use super::emit::{count, is_literal, literal, op_text, param, params};
use super::fold::{added, combined, folds, identity};
use super::found::{note, note_declarations, scalars_type};
use super::groups::{bad_row, group_value};
use super::{Binding, KernelSource, Mode, Slot, scalar_slots};
use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::expr::op::Op;
use crate::expr::{Fold, Node, NodeId};
use crate::lower::{Look, LookKind, Program};
use crate::shape::{DType, Scope};
use crate::text::{put, putln};
use std::collections::BTreeMap;

/// The sums that a reduction takes, and the results that it writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReduceKind {
    /// Sums over everything, to one partial sum per segment.
    Segments,
    /// Sums over groups, one group per segment.
    Groups,
    /// Sums over groups of unequal length, to one partial sum per block of rows: one block per segment.
    Blocks,
    /// Sums over everything, to scalars; after the last pass also the outputs of scope `Total`, with these modes.
    Finish(Vec<Mode>),
}

/// Sums of a pass to scope `to`.
pub(super) fn sums_to(program: &Program, pass: usize, to: Scope) -> Vec<NodeId> {
    let totals = program.passes[pass].totals.iter().copied();
    totals.filter(|id| matches!(program.node(*id), Node::FoldOver(_, s, _) if *s == to)).collect()
}

/// Indices of the outputs of scope `Total`, which are computed after the last sums.
pub fn total_outputs(program: &Program) -> Vec<usize> {
    (0..program.outputs.len()).filter(|&o| program.outputs[o].scope == Scope::Total).collect()
}

/// Number of a pass's sums over everything, over groups, by column, and by group and column.
pub fn sum_counts(program: &Program, pass: usize) -> [u64; 4] {
    [Scope::Total, Scope::Group, Scope::Column, Scope::GroupColumn].map(|to| sums_to(program, pass, to).len() as u64)
}

/// The kernel that reduces the sums of a pass. `outputs` of scope `Total` are computed from them, by index; modes of
/// [`ReduceKind::Finish`] are in their order.
pub fn reduce(program: &Program, pass: usize, kind: &ReduceKind, outputs: &[usize], workgroup: u32) -> KernelSource {
    let over_groups = matches!(kind, ReduceKind::Groups | ReduceKind::Blocks);
    let to = if over_groups { Scope::Group } else { Scope::Total };
    let sums = sums_to(program, pass, to);
    let mut bindings =
        vec![Binding { slot: Slot::Workspace, writes: true }, Binding { slot: Slot::Scalars, writes: true }];
    let notes = program.notes_any(outputs);
    let mut declarations = format!(
        "@group(0) @binding(0) var<uniform> shape: Shape;\n\
         @group(0) @binding(1) var<uniform> span: Span;\n\
         @group(0) @binding(2) var<storage, read_write> work: array<u32>;\n\
         @group(0) @binding(3) var<storage, read_write> scalars: {};\n",
        scalars_type(notes)
    );
    if notes {
        declarations.push_str(&note_declarations(program));
    }
    for &output in outputs {
        bindings.push(Binding { slot: Slot::Output(output), writes: true });
        let binding = bindings.len() + 1;
        putln!(declarations, "@group(0) @binding({binding}) var<storage, read_write> output{output}: array<u32>;");
    }
    // Parameters come last: only finished losses read them.
    declarations.push_str(&params(program, bindings.len() + 2));
    putln!(declarations, "const WG: u32 = {workgroup}u;");
    let modes = if let ReduceKind::Finish(modes) = kind { &modes[..] } else { &[] };
    let hooks = BTreeMap::from([
        ("bindings".to_owned(), declarations),
        ("sums".to_owned(), hook(program, kind, &sums, outputs, modes)),
    ]);
    let title = format!("{}: sums of pass {pass}, {kind:?}, {workgroup} invocations", program.title);
    let wgsl = fill_hooks(&title, Skeleton::Reduce, &[], LaneReduce::Tree, &hooks)
        .expect("the reduce skeleton takes these hooks");
    KernelSource { wgsl, bindings }
}

fn hook(program: &Program, kind: &ReduceKind, sums: &[NodeId], outputs: &[usize], modes: &[Mode]) -> String {
    let n = sums.len();
    let folds = folds(program, sums);
    let mut text = struct_text(n) + &identity_text(&folds);
    // Partial sums lie sum by sum, `count` words each, whether passes or segments wrote them.
    let partial = |k: usize| format!("work[span.items_base + {k}u * span.count + i]");
    let bad = if *kind == ReduceKind::Blocks { bad_row(program, "i") } else { None };
    text.push_str(&step_text("sums_step", &folds, &partial, bad));
    text.push_str(&combine_text(&folds));
    text.push_str("fn sums_store(s: Sums, segment: u32) {\n");
    for (k, id) in sums.iter().enumerate() {
        let slot = if *kind == ReduceKind::Groups { group_value(program, *id) } else { k };
        putln!(
            text,
            "    work[span.results_base + {slot}u * span.segments + segment] = store_bits(s.sum{k}, s.bits{k} > INF_BITS);"
        );
    }
    text.push_str("}\nfn finish(s: Sums) {\n");
    let is_finish = matches!(kind, ReduceKind::Finish(_));
    if is_finish {
        text.push_str(&finish_text(program, sums, outputs, modes));
    }
    put!(text, "}}\nconst FINISH: bool = {is_finish};\n");
    text
}

/// The bits and the value of each of `n` sums.
pub(super) fn struct_text(n: usize) -> String {
    let mut text = String::from("struct Sums {\n    none: u32,\n");
    for k in 0..n {
        put!(text, "    bits{k}: u32,\n    sum{k}: f32,\n");
    }
    text.push_str("}\n");
    text
}

pub(super) fn identity_text(folds: &[Fold]) -> String {
    let first: String = folds.iter().map(|fold| format!(", 0u, {}", identity(*fold, "f32", "0.0"))).collect();
    format!("fn sums_identity() -> Sums {{ return Sums(0u{first}); }}\n")
}

/// A function that adds item `i` of each sum, at the word that `item` gives. `bad` are bits above those of ∞ where the item
/// poisons its sums.
pub(super) fn step_text(name: &str, folds: &[Fold], item: &dyn Fn(usize) -> String, bad: Option<String>) -> String {
    let mut text = format!("fn {name}(before: Sums, i: u32) -> Sums {{\n    var s = before;\n");
    if let Some(bad) = &bad {
        putln!(text, "    let bad = {bad};");
    }
    for (k, fold) in folds.iter().enumerate() {
        let magnitude = format!("b{k} & MAGNITUDE");
        let seen = if bad.is_some() { format!("max({magnitude}, bad)") } else { magnitude };
        put!(
            text,
            "    let b{k} = {};\n    s.bits{k} = max(s.bits{k}, {seen});\n    {}\n",
            item(k),
            added(*fold, &format!("s.sum{k}"), &format!("bitcast<f32>(b{k})"))
        );
    }
    text.push_str("    return s;\n}\n");
    text
}

pub(super) fn combine_text(folds: &[Fold]) -> String {
    let mut text = String::from("fn sums_combine(a: Sums, b: Sums) -> Sums {\n    return Sums(0u");
    for (k, fold) in folds.iter().enumerate() {
        let sum = combined(*fold, &format!("a.sum{k}"), &format!("b.sum{k}"));
        put!(text, ", max(a.bits{k}, b.bits{k}), {sum}");
    }
    text.push_str(");\n}\n");
    text
}

fn finish_text(program: &Program, sums: &[NodeId], outputs: &[usize], modes: &[Mode]) -> String {
    let slots = scalar_slots(program);
    let slot = |id: NodeId| slots.iter().position(|s| *s == id).expect("every scalar has a slot");
    let mut text = String::new();
    for (k, id) in sums.iter().enumerate() {
        putln!(text, "    scalars.values[{}] = store_bits(s.sum{k}, s.bits{k} > INF_BITS);", slot(*id));
    }
    let roots: Vec<NodeId> = outputs.iter().map(|&o| program.outputs[o].node).collect();
    let looked = outputs.iter().flat_map(|&o| &program.looks.outputs[o]).flat_map(Look::nodes);
    let read: Vec<NodeId> = roots.iter().copied().chain(looked).collect();
    let value =
        |id: NodeId| if is_literal(program.node(id)) { literal(program.node(id), 1) } else { format!("n{}", id.0) };
    for id in program.below(&read, |id| matches!(program.node(id), Node::FoldOver(..))) {
        let n = id.0;
        if is_literal(program.node(id)) {
            continue;
        }
        let line = match *program.node(id) {
            Node::Param(index) => param(program, index),
            Node::Count(extent) => count(extent),
            Node::Input(_) | Node::FoldOver(..) => {
                putln!(text, "    let b{n} = scalars.values[{}];", slot(id));
                format!("bitcast<f32>(b{n})")
            }
            Node::Op(op, _) => {
                let operands: Vec<NodeId> = program.node(id).operands().collect();
                match op {
                    Op::Div => format!("ratio({}, {})", value(operands[0]), value(operands[1])),
                    _ => op_text(program, op, &operands, 1, &value),
                }
            }
            ref other => unreachable!("the value of a whole loss holds no {other:?}"),
        };
        putln!(text, "    let n{n} = {line};");
    }
    for (k, &output) in outputs.iter().enumerate() {
        text.push_str(&store_text(program, k, output, modes.get(k), &value));
    }
    text
}

/// Stores an output of scope total, the `k`-th that the kernel writes. `value` spells a node.
fn store_text(
    program: &Program,
    k: usize,
    output: usize,
    mode: Option<&Mode>,
    value: &dyn Fn(NodeId) -> String,
) -> String {
    let mut text = String::new();
    let root = program.outputs[output].node;
    // Bits of the scalars that this output looks at, where its condition holds.
    let looks = program.looks.outputs[output].iter().filter(|look| look.kind == LookKind::Value);
    let bits = looks.fold("0u".to_owned(), |all, look| {
        let seen = format!("b{} & MAGNITUDE", look.node.0);
        let seen = look.row.map_or(seen.clone(), |row| format!("select(0u, {seen}, {})", value(row)));
        format!("max({all}, {seen})")
    });
    let value = value(root);
    let address = format!("shape.tensors[{}].x", 2 * k + 1);
    let added = match mode {
        Some(Mode::Accumulate) => format!("bitcast<f32>(output{output}[{address}]) + {value}"),
        _ => value,
    };
    let stored = format!("store_bits({added}, {bits} > INF_BITS)");
    if program.notes(output) {
        let note = note(&format!("(stored{output} & MAGNITUDE)"), DType::F32, 1);
        putln!(text, "    let stored{output} = {stored};\n    output{output}[{address}] = stored{output};\n    {note}");
    } else {
        putln!(text, "    output{output}[{address}] = {stored};");
    }
    text
}
