// Adds up the partial sums of each column, or of each group and column, in a fixed order.
// Grid: (workgroups along the groups with their columns, sums), strided past the grid limit. Reads
// work[items_base + (sum · partials + group · count + partial) · length + col], `partials` (`shape.sum_groups`) being those of all groups; writes
// work[results_base + (slot · segments + group) · length + col].

// Here a sum has `count` partials per group and column, `length` columns and `segments` groups: one, where all rows are summed.
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
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
) {
    let results = span.segments * span.length;
    for (var index = id.x; index < results; index += workgroups.x * WG) {
        let group = index / span.length;
        let col = index % span.length;
        var bits = shape.reserved0 & 0u;
        var sum = identity(workgroup.y);
        for (var partial = 0u; partial < span.count; partial++) {
            let first = workgroup.y * shape.sum_groups + group * span.count + partial;
            let term = work[span.items_base + first * span.length + col];
            bits = max(bits, term & MAGNITUDE);
            sum = combine(workgroup.y, sum, bitcast<f32>(term));
        }
        work[span.results_base + slot_of(workgroup.y) * results + index] = store_bits(sum, bits > INF_BITS);
    }
}
