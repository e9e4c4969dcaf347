// Marginals of a linear chain, or gradients with respect to its emissions: each tag's marginal less whether it is the frame's.
// Grid: one workgroup per frame (strided past the grid limit). Reads alpha, beta and the sum over all taggings; writes a row.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;
// import sequence_window
@group(0) @binding(1) var<uniform> window: Window;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
const CELLS: u32 = 1u;
// Whether marginals are stored as they are.
const MARGINALS: bool = false;
// Whether the gradient is added to what is there, so that zeros are not stored.
const ACCUMULATE: bool = false;
// hook end

// hook begin: access
@group(0) @binding(3) var<storage, read> classes: array<u32>;
@group(0) @binding(4) var<storage, read_write> d_classes: array<u32>;
fn class_bits(base: u32, col: u32) -> u32 {
    return classes[base + col * window.strides.w];
}
fn store4(base: u32, col: u32, value: vec4<f32>, is_nan: vec4<bool>) {
    let bits = store_bits4(value, is_nan);
    for (var k = 0u; k < 4u && col + k < sequences.classes; k++) {
        d_classes[base + (col + k) * window.grad_strides.w] = bits[k];
    }
}
// hook end

// import crf_scores

fn marginal(n: u32, t: u32, tag: u32, total: Scaled) -> f32 {
    if (tag >= sequences.classes) {
        return 0.0;
    }
    let a = load_scaled(state_at(sequences.alpha, n, t, tag));
    return scaled_share(a, load_scaled(state_at(sequences.beta, n, t, tag)), total);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var k = group.x; k < window.count.w; k += groups.x) {
        let cell = cell_of(k);
        let head = sequences.heads + HEAD * cell.x;
        let is_passed = cell.y < work[head + HEAD_FRAMES];
        let is_nan = vec4<bool>(is_nan_bits(work[head + HEAD_LOSS]));
        let weight = bitcast<f32>(work[head + HEAD_WEIGHT]);
        let grad = window.grad_base.x + dot(cell - window.base.xyz, window.grad_strides.xyz);
        for (var tag = 4u * lane; tag < sequences.classes; tag += 4u * WG) {
            if (is_passed) {
                let total = total_of(cell.x);
                var value = vec4<f32>(
                    marginal(cell.x, cell.y, tag, total),
                    marginal(cell.x, cell.y, tag + 1u, total),
                    marginal(cell.x, cell.y, tag + 2u, total),
                    marginal(cell.x, cell.y, tag + 3u, total),
                );
                if (!MARGINALS) {
                    let tags = vec4<u32>(tag) + vec4<u32>(0u, 1u, 2u, 3u);
                    let own = tags == vec4<u32>(tag_of(cell.x, cell.y));
                    value = (value - select(vec4<f32>(0.0), vec4<f32>(1.0), own)) * weight;
                }
                store4(grad, tag, value, is_nan);
            } else if (!ACCUMULATE) {
                store4(grad, tag, vec4<f32>(0.0), vec4<bool>(false));
            }
        }
    }
}
