// Combines states of rows: of the workgroups that split a row, or of the shards of its classes.
// Grid: any number of workgroups; one row per invocation, strided. Reads `count` states of each row from `source`, in a
// fixed order; writes one to `result`.

struct Rows {
    rows: u32,
    // States of a row.
    count: u32,
    // First word, and words from one row and from one state to the next.
    source_first: u32,
    source_row: u32,
    source_state: u32,
    result_first: u32,
    result_row: u32,
    reserved0: u32,
}
@group(0) @binding(0) var<uniform> rows: Rows;
@group(0) @binding(2) var<storage, read_write> source: array<u32>;
@group(0) @binding(3) var<storage, read_write> result: array<u32>;

// hook begin: state
const WG: u32 = 64u;
struct Stage0 { bits: u32, sum: f32 }
fn stage0_combine(a: Stage0, b: Stage0) -> Stage0 { return Stage0(max(a.bits, b.bits), a.sum + b.sum); }
fn stage0_load(first: u32) -> Stage0 { return Stage0(source[first], bitcast<f32>(source[first + 1u])); }
fn stage0_save(s: Stage0, first: u32) {
    result[first] = s.bits;
    result[first + 1u] = bitcast<u32>(s.sum);
}
// hook end

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var row = id.x; row < rows.rows; row += groups.x * WG) {
        let first = rows.source_first + row * rows.source_row;
        var s = stage0_load(first);
        for (var k = 1u; k < rows.count; k++) {
            s = stage0_combine(s, stage0_load(first + k * rows.source_state));
        }
        stage0_save(s, rows.result_first + row * rows.result_row);
    }
}
