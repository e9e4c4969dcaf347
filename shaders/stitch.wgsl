// Stitches words of a 16-bit output that two rows share (odd column counts, odd offsets), from halves in `work`.
// Grid: any number of workgroups; one row per invocation, strided. Reads work[edge_base ..]; writes the row's half of
// its first word, if it begins in the middle of one, and of its last word, if it ends there.

// hook begin: rows
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<atomic<u32>>;
const WG: u32 = 64u;
// Which of the pass's outputs this is.
const EDGE: u32 = 0u;
fn row_base(row: u32) -> u32 { return row * shape.cols; }
// hook end

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var row = id.x; row < shape.items; row += groups.x * WG) {
        let first = row_base(row);
        let end = first + shape.cols;
        let edges = shape.edge_base + (EDGE * shape.rows + shape.first_item + row) * 2u;
        // Each half has one writer; the atomics keep the other half, whoever's it is.
        if (first % 2u == 1u) {
            atomicAnd(&output[first / 2u], 0xffffu);
            atomicOr(&output[first / 2u], work[edges] << 16u);
        }
        if (end % 2u == 1u) {
            atomicAnd(&output[end / 2u], 0xffff0000u);
            atomicOr(&output[end / 2u], work[edges + 1u]);
        }
    }
}
