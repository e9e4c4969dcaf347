//! Groups of unequal length: where `work` holds their rows, and the hooks of `row_groups.wgsl` and `ragged_sums.wgsl`.

use super::access::Frame;
use super::fold::folds;
use super::reduce::{combine_text, identity_text, step_text, struct_text, sums_to};
use super::{Binding, KernelSource, Slot, column_slots, group_slots};
use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::expr::{Node, NodeId};
use crate::lower::{Over, Program, RaggedInput};
use crate::schedule::reads_row_groups;
use crate::shape::{Ragged, Scope};
use crate::text::{put, putln};
use std::collections::BTreeMap;

/// Words per group that `row_groups.wgsl` leaves: its first row, the row after its last, its number of rows as f32.
pub const GROUP_WORDS: u64 = 3;

/// Rows of a block: of more rows than one dispatch adds up, blocks are summed first.
pub const BLOCK: u64 = 1024;

/// Values per group in `work`: its sums, then of groups of unequal length the words of `row_groups.wgsl`.
pub fn group_values(program: &Program) -> u64 {
    group_slots(program).len() as u64 + if program.ragged.is_some() { GROUP_WORDS } else { 0 }
}

/// Index of a node among the values per group: of a sum over groups, or of the number of rows.
pub(super) fn group_value(program: &Program, id: NodeId) -> usize {
    let slots = group_slots(program);
    match program.node(id) {
        Node::GroupRows => slots.len() + 2,
        _ => slots.iter().position(|slot| *slot == id).expect("every sum over groups has a slot"),
    }
}

/// The word that holds the group of a row: behind the sums by column.
pub(super) fn row_word(program: &Program, row: &str) -> String {
    let (groups, columns) = (group_values(program), column_slots(program).len());
    format!("shape.group_base + {groups}u * shape.groups + {columns}u * shape.classes + {row}")
}

/// The function that gives the address of a word of a group.
fn group_word_text(program: &Program) -> String {
    let sums = group_slots(program).len();
    format!(
        "fn group_word(word: u32, group: u32) -> u32 {{ return shape.group_base + ({sums}u + word) * shape.groups + group; }}\n"
    )
}

/// An expression that is above the bits of ∞ where the row has an id that is not allowed; `None` for offsets, whose
/// groups say so themselves.
pub(super) fn bad_row(program: &Program, row: &str) -> Option<String> {
    let by = program.ragged.map(|ragged| ragged.by);
    let word = || format!("select(0u, NAN_BITS, work[{}] >= shape.groups)", row_word(program, row));
    matches!(by, Some(Ragged::Ids { .. })).then(word)
}

impl Frame<'_> {
    /// The group of an item of the pass.
    pub fn group(&self, item: &str) -> String {
        match self.pass.over {
            Over::Groups => item.to_owned(),
            Over::GroupColumns => format!("{item} / shape.classes"),
            _ if self.program.ragged.is_some() => "group".to_owned(),
            _ => format!("{item} / shape.group_rows"),
        }
    }

    /// Bits that a row takes from its group: NaN for a row that is in none.
    pub fn of_group(&self, bits: String) -> String {
        match reads_row_groups(self.program, self.pass) {
            true => format!("select({bits}, NAN_BITS, own_group >= shape.groups)"),
            false => bits,
        }
    }

    /// Loaded bits of a tensor: those of a group's tensor, as a row takes them.
    pub fn taken(&self, slot: Slot, bits: String) -> String {
        if self.own_index(slot) == Some("group") { self.of_group(bits) } else { bits }
    }
}

/// The kernel that finds the groups. `status` is the word of the scalars that notes a wrong index.
pub fn row_groups(program: &Program, input: RaggedInput, status: u64, workgroup: u32) -> KernelSource {
    let is_ids = matches!(input.by, Ragged::Ids { .. });
    let address = match is_ids {
        true => "offset(index, vec4<u32>(shape.axes.xyz, 1u), shape.tensors[0])",
        false => "index * shape.tensors[0].w",
    };
    let mut text = String::from(
        "@group(0) @binding(0) var<uniform> shape: Shape;\n\
         @group(0) @binding(2) var<storage, read> input: array<u32>;\n\
         @group(0) @binding(3) var<storage, read_write> work: array<u32>;\n\
         @group(0) @binding(4) var<storage, read_write> status: array<atomic<u32>>;\n",
    );
    put!(text, "const WG: u32 = {workgroup}u;\nconst STATUS: u32 = {status}u;\nconst IDS: bool = {is_ids};\n");
    putln!(text, "fn address(index: u32) -> u32 {{ return shape.tensors[1].x + {address}; }}");
    text.push_str(&group_word_text(program));
    putln!(text, "fn row_word(row: u32) -> u32 {{ return {}; }}", row_word(program, "row"));
    let hooks = BTreeMap::from([("bindings".to_owned(), text)]);
    let form = if is_ids { "ids" } else { "offsets" };
    let title = format!("{}: rows of groups, from {form}, {workgroup} invocations", program.title);
    let wgsl = fill_hooks(&title, Skeleton::RowGroups, &[], LaneReduce::Tree, &hooks);
    let writes = |slot: Slot| Binding { slot, writes: true };
    let input = Binding { slot: Slot::Input(input.index), writes: false };
    KernelSource {
        wgsl: wgsl.expect("the skeleton of row groups takes these hooks"),
        bindings: vec![input, writes(Slot::Workspace), writes(Slot::Scalars)],
    }
}

/// The kernel that adds up the terms of the sums over groups of a pass, `lanes` invocations per group.
pub fn ragged_sums(program: &Program, pass: usize, [workgroup, lanes]: [u32; 2], blocks: bool) -> KernelSource {
    let sums = sums_to(program, pass, Scope::Group);
    let mut text = String::from(
        "@group(0) @binding(0) var<uniform> shape: Shape;\n\
         @group(0) @binding(1) var<uniform> span: Span;\n\
         @group(0) @binding(2) var<storage, read_write> work: array<u32>;\n",
    );
    put!(text, "const WG: u32 = {workgroup}u;\nconst LANES: u32 = {lanes}u;\n");
    put!(text, "const BLOCK: u32 = {BLOCK}u;\nconst BLOCKS: bool = {blocks};\n");
    text.push_str(&group_word_text(program));
    let hooks = BTreeMap::from([("bindings".to_owned(), text), ("sums".to_owned(), sums_text(program, &sums))]);
    let title = format!("{}: sums of pass {pass} over unequal groups, {lanes} lanes per group", program.title);
    let wgsl = fill_hooks(&title, Skeleton::RaggedSums, &[], LaneReduce::Tree, &hooks);
    KernelSource {
        wgsl: wgsl.expect("the skeleton of unequal groups takes these hooks"),
        bindings: vec![Binding { slot: Slot::Workspace, writes: true }],
    }
}

fn sums_text(program: &Program, sums: &[NodeId]) -> String {
    let n = sums.len();
    let folds = folds(program, sums);
    let mut text = struct_text(n) + &identity_text(&folds);
    let term = |k: usize| format!("work[span.items_base + {k}u * span.count + i]");
    text.push_str(&step_text("sums_step", &folds, &term, bad_row(program, "i")));
    let block = |k: usize| format!("work[span.items_base + {n}u * span.count + {k}u * span.length + i]");
    text.push_str(&step_text("blocks_step", &folds, &block, None));
    text.push_str(&combine_text(&folds));
    text.push_str("fn sums_store(s: Sums, group: u32, count_bits: u32) {\n");
    for (k, id) in sums.iter().enumerate() {
        let slot = group_value(program, *id);
        putln!(
            text,
            "    work[span.results_base + {slot}u * span.segments + group] = store_bits(s.sum{k}, max(s.bits{k}, count_bits) > INF_BITS);"
        );
    }
    text.push_str("}\n");
    text
}
