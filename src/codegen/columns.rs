//! Hooks of `column_sums.wgsl` and `column_finish.wgsl`: sums over the rows (of each group) for
//! each column.

use super::access::Frame;
use super::emit::{outer_value, params};
use super::fold::{added, combined, folds, identity};
use super::poison::{lenient_value, poisons_of};
use super::reduce::sums_to;
use super::row::Row;
use super::{Binding, KernelSource, Slot, Variant, column_slots, group_column_slots, structure, title};
use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::expr::{Fold, NodeId};
use crate::lower::{Consumer, Look, LookPlace, Program};
use crate::schedule::{Kernel, PassSchedule};
use crate::shape::Scope;
use crate::text::{put, putln};
use std::collections::BTreeMap;

/// The kernel that leaves partial sums: one per sum, range of rows and column.
pub(super) fn kernel(program: &Program, pass: usize, schedule: &PassSchedule, variant: &Variant) -> KernelSource {
    let Kernel::ColumnSums { across, each, splits } = schedule.kernel else { unreachable!("a kernel of column sums") };
    let frame = Frame::new(program, pass, variant, 1);
    let row = Row::new(&frame, &frame, schedule.kernel);
    let (bindings, mut declarations) = frame.bindings(&params(program, 1));
    // `row_begin` aligns lanes to WIDTH elements.
    for (name, value) in [("WG", schedule.workgroup), ("ACROSS", across), ("EACH", each), ("WIDTH", 1)] {
        putln!(declarations, "const {name}: u32 = {value}u;");
    }
    let mut hooks = BTreeMap::from([
        ("bindings".to_owned(), declarations),
        ("row".to_owned(), row.begin_text()),
        ("columns".to_owned(), columns_text(&frame, &row)),
    ]);
    let range = if frame.pass.sums_per_group(program) { RANGE_OF_GROUP } else { RANGE };
    let (begin, end) = if splits > schedule.grid[1] { (EACH_RANGE, "    }\n") } else { ("", "") };
    hooks.insert("range".to_owned(), format!("{begin}{range}"));
    hooks.insert("range_end".to_owned(), end.to_owned());
    let wgsl = fill_hooks(&title(program, pass, schedule), Skeleton::ColumnSums, &[], LaneReduce::Tree, &hooks);
    KernelSource { wgsl: wgsl.expect("the skeleton of column sums takes these hooks"), bindings }
}

/// The rows of a range: of all rows of the dispatch, as many for each range.
const RANGE: &str = "    let length = (shape.items + groups.y - 1u) / groups.y;
    let first = min(group.y * length, shape.items);
    let end = min(first + length, shape.items);
";

/// The rows of a range within one group, each of which has `shape.splits` ranges. A dispatch has whole groups, or rows of one
/// group alone; ranges behind its last row have no rows.
const RANGE_OF_GROUP: &str = "    let group_rows = min(shape.group_rows, shape.items);
    let length = (group_rows + shape.splits - 1u) / shape.splits;
    let part = group.y % shape.splits;
    let first_of_group = min(group.y / shape.splits * group_rows, shape.items);
    let first = first_of_group + min(part * length, group_rows);
    let end = min(first_of_group + min(part * length + length, group_rows), shape.items);
";

/// Of more ranges than a grid has workgroups: a loop over those of a workgroup, in which `group.y` is a range's number.
const EACH_RANGE: &str = "    let whole_group = min(shape.group_rows, shape.items);
    let ranges = (shape.items + whole_group - 1u) / whole_group * shape.splits;
    for (var range = group.y; range < ranges; range += groups.y) {
    let group = vec2<u32>(group.x, range);
";

fn columns_text(frame: &Frame<'_>, row: &Row<'_, '_>) -> String {
    let (program, pass) = (frame.program, frame.pass);
    let sums: Vec<NodeId> = pass.totals.clone();
    let count = sums.len();
    let both = |bits: &dyn Fn(usize) -> String, sum: &dyn Fn(usize) -> String| {
        (0..count).flat_map(|k| [bits(k), sum(k)]).collect::<Vec<_>>().join(", ")
    };
    let fields: Vec<(String, String)> = (0..count)
        .flat_map(|k| [(format!("bits{k}"), "u32".to_owned()), (format!("sum{k}"), "f32".to_owned())])
        .collect();
    let mut text = structure("ColumnSums", &fields);
    let folds = folds(program, &sums);
    let zeros = both(&|_| "0u".to_owned(), &|k| identity(folds[k], "f32", "0.0"));
    let sum = |k: usize| combined(folds[k], &format!("a.sum{k}"), &format!("b.sum{k}"));
    let both_added = both(&|k| format!("max(a.bits{k}, b.bits{k})"), &sum);
    put!(
        text,
        "fn columns_identity() -> ColumnSums {{ return ColumnSums({zeros}); }}\n\
         fn columns_add(a: ColumnSums, b: ColumnSums) -> ColumnSums {{ return ColumnSums({both_added}); }}\n\
         fn columns_step(before: ColumnSums, r: RowValues, fetched: Fetched, col: u32) -> ColumnSums {{\n    var s = before;\n    let f = window(fetched);\n"
    );
    let operand = |sum: NodeId| program.node(sum).operands().next().expect("a sum has an operand");
    let looked = pass.poison.iter().flat_map(|poison| poison.at(LookPlace::Element)).flat_map(Look::nodes);
    let gates = pass.poison.iter().filter_map(|poison| poison.gate);
    let roots: Vec<NodeId> = sums.iter().map(|sum| operand(*sum)).chain(looked).chain(gates).collect();
    text.push_str(&row.element_lets(&row.element_nodes(&roots)));
    for (k, &sum) in sums.iter().enumerate() {
        let seen = row.element_poison(&poisons_of(pass, Consumer::Sum(sum)));
        putln!(text, "    s.bits{k} = max(s.bits{k}, {seen});");
        let value = row.element_value(operand(sum));
        let value = lenient_value(program, pass, sum, value, &|id| outer_value(program, id, "r"));
        putln!(text, "    {}", added(folds[k], &format!("s.sum{k}"), &value));
    }
    text.push_str("    return s;\n}\nfn columns_store(s: ColumnSums, range: u32, col: u32) {\n");
    for k in 0..count {
        putln!(
            text,
            "    work[({k}u * shape.sum_groups + range) * shape.classes + col] = store_bits(s.sum{k}, s.bits{k} > INF_BITS);"
        );
    }
    text.push_str("}\n");
    text
}

/// What each sum of `column_finish.wgsl` begins with, and how it goes on.
fn fold_text(maxima: &[bool]) -> String {
    if !maxima.contains(&true) {
        return "fn identity(sum: u32) -> f32 { return 0.0; }\n\
                fn combine(sum: u32, a: f32, b: f32) -> f32 { return a + b; }\n"
            .to_owned();
    }
    let listed = maxima.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let lowest = identity(Fold::Max, "f32", "0.0");
    format!(
        "fn is_max(sum: u32) -> bool {{\n    var maxima = array<bool, {}>({listed});\n    return maxima[sum];\n}}\n\
         fn identity(sum: u32) -> f32 {{ return select(0.0, {lowest}, is_max(sum)); }}\n\
         fn combine(sum: u32, a: f32, b: f32) -> f32 {{ return select(a + b, max(a, b), is_max(sum)); }}\n",
        maxima.len()
    )
}

/// The kernel that adds up the partial sums of a pass: of its sums by column, or by group and column.
pub fn column_finish(program: &Program, pass: usize, to: Scope, workgroup: u32) -> KernelSource {
    let sums = &sums_to(program, pass, to);
    let (slots, by) = match to {
        Scope::GroupColumn => (group_column_slots(program), "by group and column"),
        _ => (column_slots(program), "by column"),
    };
    let slots: Vec<String> = sums
        .iter()
        .map(|sum| slots.iter().position(|slot| slot == sum).expect("every sum by column has a slot"))
        .map(|slot| format!("{slot}u"))
        .collect();
    let constants = format!(
        "const WG: u32 = {workgroup}u;\nfn slot_of(sum: u32) -> u32 {{\n    var slots = array<u32, {}>({});\n    \
         return slots[sum];\n}}\n",
        slots.len(),
        slots.join(", ")
    );
    let maxima: Vec<bool> = folds(program, sums).into_iter().map(|fold| fold == Fold::Max).collect();
    let hooks = BTreeMap::from([("constants".to_owned(), constants + &fold_text(&maxima))]);
    let title = format!("{}: sums of pass {pass} {by}, {workgroup} invocations", program.title);
    let wgsl = fill_hooks(&title, Skeleton::ColumnFinish, &[], LaneReduce::Tree, &hooks);
    KernelSource {
        wgsl: wgsl.expect("the kernel takes constants"),
        bindings: vec![Binding { slot: Slot::Workspace, writes: true }],
    }
}
