// Gradients with respect to transitions, starts or ends: weighted sums over the sequences, in a fixed order.
// Grid: one invocation per score. Reads sums and heads in work; writes or adds to gradient.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;

// Owner: src/fused/sequence/crf/dispatches.rs; a test compares the offsets.
struct Gradient {
    // Scores, of which each row of the tensor has some; the first of them among a sequence's sums; the tensor's first element.
    count: u32,
    cols: u32,
    sums: u32,
    first: u32,
    // Strides along rows and columns.
    row_stride: u32,
    col_stride: u32,
    reserved0: u32,
    reserved1: u32,
}
@group(0) @binding(1) var<uniform> gradient: Gradient;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;
@group(0) @binding(3) var<storage, read_write> d_scores: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
const ACCUMULATE: bool = false;
// hook end

const RUN: u32 = 32u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= gradient.count) {
        return;
    }
    let all = sequences.classes * (sequences.classes + 2u);
    let at = gradient.first + id.x / gradient.cols * gradient.row_stride + id.x % gradient.cols * gradient.col_stride;
    let old = select(0u, d_scores[at], ACCUMULATE);
    var bits = old & MAGNITUDE;
    var sum = 0.0;
    for (var begin = 0u; begin < sequences.all; begin += RUN) {
        var run = 0.0;
        for (var n = begin; n < min(begin + RUN, sequences.all); n++) {
            let own = work[sequences.scores + 2u * all + n * all + gradient.sums + id.x];
            let weight = bitcast<f32>(work[sequences.heads + HEAD * n + HEAD_WEIGHT]);
            bits = max(bits, own & MAGNITUDE);
            run += bitcast<f32>(own) * weight;
        }
        sum += run;
    }
    d_scores[at] = store_bits(bitcast<f32>(old) + sum, bits > INF_BITS);
}
