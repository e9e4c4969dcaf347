// Exponentials of the scores of a linear chain: transitions, starts, ends.
// Grid: one invocation per score. Reads transitions[K, K], starts[K], ends[K]; writes them to work, two words each.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;

// Owner: src/fused/sequence/crf/dispatches.rs; a test compares the offsets.
struct Scores {
    // Strides along the first and the second axis, and the first element.
    transitions: vec4<u32>,
    starts: vec4<u32>,
    ends: vec4<u32>,
}
@group(0) @binding(1) var<uniform> scores: Scores;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;
@group(0) @binding(3) var<storage, read> transitions: array<u32>;
@group(0) @binding(4) var<storage, read> starts: array<u32>;
@group(0) @binding(5) var<storage, read> ends: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
// hook end

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let tags = sequences.classes;
    let k = id.x;
    if (k >= tags * tags + 2u * tags) {
        return;
    }
    var bits = 0u;
    if (k < tags * tags) {
        bits = transitions[scores.transitions.z + k / tags * scores.transitions.x + k % tags * scores.transitions.y];
    } else if (k < tags * tags + tags) {
        bits = starts[scores.starts.z + (k - tags * tags) * scores.starts.x];
    } else {
        bits = ends[scores.ends.z + (k - tags * tags - tags) * scores.ends.x];
    }
    let p = scaled_exp(bitcast<f32>(bits));
    let at = sequences.scores + 2u * k;
    work[at] = store_bits(p.m, is_nan_bits(bits) || bits == INF_BITS);
    work[at + 1u] = bitcast<u32>(p.e);
}
