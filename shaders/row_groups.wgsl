// Groups of unequal length: the rows of each group and the group of each row, whatever the offsets or ids hold.
// Grid: any number of workgroups, strided; an invocation takes one index: of an offset or id, of a row, of a group. Reads
// `input`; writes per group its first row, the row after its last and its number of rows (NaN where one of its two offsets is
// not allowed), per row its group (`shape.groups` for none), and the lowest index that is not allowed.
// src/shape/ragged.rs has the same rule and the same searches for the CPU.

// hook begin: bindings
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(2) var<storage, read> input: array<u32>;
@group(0) @binding(3) var<storage, read_write> work: array<u32>;
@group(0) @binding(4) var<storage, read_write> status: array<atomic<u32>>;
const WG: u32 = 64u;
// Word of the lowest index that is not allowed.
const STATUS: u32 = 2u;
// Whether the input holds an id per row, not offsets.
const IDS: bool = false;
fn address(index: u32) -> u32 { return shape.tensors[1].x + index * shape.tensors[0].w; }
// Words of a group: 0, its first row; 1, the row after its last; 2, its number of rows.
fn group_word(word: u32, group: u32) -> u32 { return shape.group_base + word * shape.groups + group; }
fn row_word(row: u32) -> u32 { return shape.group_base + 3u * shape.groups + row; }
// hook end

// Negative values come last.
fn value_at(index: u32) -> u32 { return input[address(index)]; }

fn is_allowed(index: u32) -> bool {
    let value = value_at(index);
    let before = select(0u, value_at(max(index, 1u) - 1u), index > 0u);
    if (IDS) {
        return value >= before && value < shape.groups;
    }
    let first_is_0 = index > 0u || value == 0u;
    let last_is_rows = index < shape.groups || value == shape.rows;
    return value >= before && value <= shape.rows && first_is_0 && last_is_rows;
}

// Number of leading values up to `bound`, of `count` ascending ones; of any others, some number up to `count`.
fn leading(count: u32, bound: u32) -> u32 {
    var low = 0u;
    var high = count;
    while (low < high) {
        let middle = low + (high - low) / 2u;
        if (value_at(middle) <= bound) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}

fn group_of_row(row: u32) -> u32 {
    if (IDS) {
        return select(shape.groups, value_at(row), is_allowed(row));
    }
    // Its group is the last that begins at the row or before it.
    let begun = leading(shape.groups, row);
    let is_inside = begun > 0u && row < value_at(begun);
    return select(shape.groups, begun - 1u, is_inside);
}

fn write_group(group: u32) {
    var first = 0u;
    var end = 0u;
    var is_bad = false;
    if (IDS) {
        if (group > 0u) {
            first = leading(shape.rows, group - 1u);
        }
        end = shape.rows;
        if (group + 1u < shape.groups) {
            end = leading(shape.rows, group);
        }
    } else {
        is_bad = !(is_allowed(group) && is_allowed(group + 1u));
        if (!is_bad) {
            first = value_at(group);
            end = value_at(group + 1u);
        }
    }
    work[group_word(0u, group)] = first;
    work[group_word(1u, group)] = end;
    work[group_word(2u, group)] = store_bits(f32(end - first), is_bad);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let values = select(shape.groups + 1u, shape.rows, IDS);
    let count = max(max(shape.rows, shape.groups), values);
    for (var index = id.x; index < count; index += groups.x * WG) {
        if (index < values) {
            if (!is_allowed(index)) {
                atomicMin(&status[STATUS], index);
            }
        }
        if (index < shape.rows) {
            work[row_word(index)] = group_of_row(index);
        }
        if (index < shape.groups) {
            write_group(index);
        }
    }
}
