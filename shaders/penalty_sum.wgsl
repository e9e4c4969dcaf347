// The penalty from its partial sums, in a fixed order.
// Grid: one workgroup. Reads work[0..count]; writes or adds to output[element].

struct Partials {
    count: u32,
    element: u32,
    reserved0: u32,
    reserved1: u32,
}
@group(0) @binding(0) var<uniform> partials: Partials;
@group(0) @binding(1) var<uniform> params: array<vec4<u32>, 1>;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
// Of the sum, beside the parameter.
const FACTOR: f32 = 1.0;
const ACCUMULATE: bool = false;
// hook end

// import sum

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lane: u32) {
    var s = Sum(0u, 0.0);
    for (var begin = lane; begin < partials.count; begin += RUN * WG) {
        var run = Sum(0u, 0.0);
        let stop = min(begin + RUN * WG, partials.count);
        for (var i = begin; i < stop; i += WG) {
            run = combine(run, Sum(work[i] & MAGNITUDE, bitcast<f32>(work[i])));
        }
        s = combine(s, run);
    }
    s = sum_of_lanes(s, lane);
    if (lane == 0u) {
        var penalty = bitcast<f32>(params[0].x) * (FACTOR * s.sum);
        var bits = s.bits;
        if (ACCUMULATE) {
            let old = output[partials.element];
            bits = max(bits, old & MAGNITUDE);
            penalty += bitcast<f32>(old);
        }
        output[partials.element] = store_bits(penalty, bits > INF_BITS);
    }
}
