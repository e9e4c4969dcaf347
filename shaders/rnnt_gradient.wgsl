// Gradients of a transducer's loss with respect to classes: what passes a cell, shared out by its probabilities, less what
// leaves it by the blank and by the next label.
// Grid: one workgroup per row (strided past the grid limit). Reads the row's classes (of logits), its gathered probabilities,
// alpha and beta, and the sequence's head; writes the row's gradient.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;
// import sequence_window
@group(0) @binding(1) var<uniform> window: Window;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
const LOGITS: bool = true;
const CELLS: u32 = 1u;
// Largest magnitude of a gradient before its weight; negative for none.
const CLAMP: f32 = -1.0;
// Whether the gradient is added to what is there, so that zeros are not stored.
const ACCUMULATE: bool = false;
// hook end

// hook begin: access
@group(0) @binding(3) var<storage, read> classes: array<u32>;
@group(0) @binding(4) var<storage, read_write> d_classes: array<u32>;
fn class_bits4(base: u32, col: u32) -> vec4<u32> {
    let c = min(vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(sequences.classes - 1u)) * window.strides.w;
    return vec4<u32>(classes[base + c.x], classes[base + c.y], classes[base + c.z], classes[base + c.w]);
}
fn store4(base: u32, col: u32, value: vec4<f32>, is_nan: vec4<bool>) {
    let bits = store_bits4(value, is_nan);
    for (var k = 0u; k < 4u && col + k < sequences.classes; k++) {
        d_classes[base + (col + k) * window.grad_strides.w] = bits[k];
    }
}
// hook end

fn load_state(first: u32, n: u32, t: u32, labels: u32) -> Scaled {
    return load_scaled(first + ((n - sequences.first) * sequences.frames + t) * sequences.state_words + 2u * labels);
}

// The probability that an alignment leaves the cell by the blank, and by the next label; `end` is the sequence's frames and
// labels.
fn leaving(cell: vec3<u32>, end: vec2<u32>) -> vec2<f32> {
    let n = cell.x;
    let at = sequences.gathered + row_of(cell) * sequences.gathered_words;
    let a = load_state(sequences.alpha, n, cell.y, cell.z);
    let total = load_state(sequences.beta, n, 0u, 0u);
    var leaves = vec2<f32>(0.0);
    if (cell.y + 1u < end.x) {
        leaves.x = scaled_share(times(a, load_scaled(at)), load_state(sequences.beta, n, cell.y + 1u, cell.z), total);
    } else if (cell.z == end.y) {
        leaves.x = scaled_share(times(a, load_scaled(at)), one(), total);
    }
    if (cell.z < end.y) {
        let later = load_state(sequences.beta, n, cell.y, cell.z + 1u);
        leaves.y = scaled_share(times(a, load_scaled(at + 2u)), later, total);
    }
    return leaves;
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
        let end = vec2<u32>(work[head + HEAD_FRAMES], work[head + HEAD_LABELS]);
        let is_passed = cell.y < end.x && cell.z <= end.y;
        let base = window.base.w + dot(cell - window.base.xyz, window.strides.xyz);
        let grad = window.grad_base.x + dot(cell - window.base.xyz, window.grad_strides.xyz);
        let weight = bitcast<f32>(work[head + HEAD_WEIGHT]);
        // Alignments that cannot be have no distribution.
        let is_nan = vec4<bool>((work[head + HEAD_LOSS] & MAGNITUDE) >= INF_BITS);
        var leaves = vec2<f32>(0.0);
        var label = sequences.classes;
        var largest = 0.0;
        var inverse = 0.0;
        if (is_passed) {
            leaves = leaving(cell, end);
            if (cell.z < end.y) {
                label = work[sequences.labels_at + cell.x * sequences.labels + cell.z];
            }
            if (LOGITS) {
                largest = bitcast<f32>(work[sequences.rows + 2u * row_of(cell)]);
                inverse = bitcast<f32>(work[sequences.rows + 2u * row_of(cell) + 1u]) * (leaves.x + leaves.y);
            }
        }
        for (var col = 4u * lane; col < sequences.classes; col += 4u * WG) {
            if (is_passed) {
                let cols = vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u);
                var value = vec4<f32>(0.0);
                if (LOGITS) {
                    let x = bitcast<vec4<f32>>(class_bits4(base, col));
                    value = math_exp_neg4(x - vec4<f32>(largest)) * inverse;
                }
                value -= select(vec4<f32>(0.0), vec4<f32>(leaves.x), cols == vec4<u32>(sequences.blank));
                value -= select(vec4<f32>(0.0), vec4<f32>(leaves.y), cols == vec4<u32>(label));
                if (CLAMP > 0.0) {
                    value = clamp(value, vec4<f32>(-CLAMP), vec4<f32>(CLAMP));
                }
                store4(grad, col, value * weight, is_nan);
            } else if (!ACCUMULATE) {
                store4(grad, col, vec4<f32>(0.0), vec4<bool>(false));
            }
        }
    }
}
