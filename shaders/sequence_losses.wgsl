// Losses of sequences: as they are, or their weighted sum in a fixed order.
// Grid: one workgroup. Reads heads in work; writes or adds to output, one element per sequence or one in all.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;

// Owner: src/fused/sequence/setup.rs; a test compares the offsets.
struct Losses {
    // First element of the output, and its stride along the sequences.
    first: u32,
    stride: u32,
    reserved0: u32,
    reserved1: u32,
}
@group(0) @binding(1) var<uniform> losses: Losses;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
const ACCUMULATE: bool = false;
// Whether the losses are added up; and whether there is a mean, which of no sequences is NaN.
const REDUCE: bool = true;
const MEAN: bool = true;
// hook end

// import sum

fn put(at: u32, value: f32, is_nan: bool) {
    let old = select(0u, output[at], ACCUMULATE);
    output[at] = store_bits(bitcast<f32>(old) + value, is_nan || is_nan_bits(old));
}

fn loss(n: u32) -> u32 {
    return work[sequences.heads + HEAD * n + HEAD_LOSS];
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    if (!REDUCE) {
        for (var n = lane; n < sequences.all; n += WG) {
            put(losses.first + n * losses.stride, bitcast<f32>(loss(n)), is_nan_bits(loss(n)));
        }
        return;
    }
    var s = Sum(0u, 0.0);
    for (var begin = lane; begin < sequences.all; begin += RUN * WG) {
        var run = Sum(0u, 0.0);
        let stop = min(begin + RUN * WG, sequences.all);
        for (var n = begin; n < stop; n += WG) {
            let weight = bitcast<f32>(work[sequences.heads + HEAD * n + HEAD_WEIGHT]);
            run = combine(run, Sum(loss(n) & MAGNITUDE, bitcast<f32>(loss(n)) * weight));
        }
        s = combine(s, run);
    }
    s = sum_of_lanes(s, lane);
    if (lane == 0u) {
        put(losses.first, s.sum, s.bits > INF_BITS || (MEAN && sequences.all == 0u));
    }
}
