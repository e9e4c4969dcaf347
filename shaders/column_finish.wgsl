// Adds up the partial sums of each column, in a fixed order.
// Grid: (workgroups along the columns, sums), columns strided past the grid limit. Reads
// work[items_base + (sum · count + partial) · length + col]; writes work[results_base + slot · length + col].

// Here a sum has `count` partials per column, and `length` columns.
// import span
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<uniform> span: Span;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
// Region of a sum's results.
fn slot_of(sum: u32) -> u32 { return sum; }
fn identity(sum: u32) -> f32 { return 0.0; }
fn combine(sum: u32, a: f32, b: f32) -> f32 { return a + b; }
// hook end

@compute @workgroup_size(WG)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    for (var col = id.x; col < span.length; col += groups.x * WG) {
        var bits = shape.reserved0 & 0u;
        var sum = identity(group.y);
        for (var partial = 0u; partial < span.count; partial++) {
            let term = work[span.items_base + (group.y * span.count + partial) * span.length + col];
            bits = max(bits, term & MAGNITUDE);
            sum = combine(group.y, sum, bitcast<f32>(term));
        }
        work[span.results_base + slot_of(group.y) * span.length + col] = store_bits(sum, bits > INF_BITS);
    }
}
