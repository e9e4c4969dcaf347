// The penalty of several tensors, and its gradients: each element is read once, and its gradient written once.
// Grid: one workgroup per `chunk` elements of a tensor. Reads w0[0..length] (w1, …) and writes or adds to d0[0..length];
// writes one partial sum per workgroup: work[first_partial + group].

struct Penalized {
    // Elements per workgroup; partial sums of the dispatches before this one.
    chunk: u32,
    first_partial: u32,
    reserved0: u32,
    reserved1: u32,
    // Per tensor: its first workgroup, its elements, and the first elements of the tensor and of its gradient.
    tensors: array<vec4<u32>, 16>,
}
@group(0) @binding(0) var<uniform> penalized: Penalized;
@group(0) @binding(1) var<uniform> params: array<vec4<u32>, 1>;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
const TENSORS: u32 = 1u;
fn term(w: f32) -> f32 { return abs(w); }
fn slope(w: f32) -> f32 { return sign(w); }
// hook end

// Bits of the gradient at an element, added to those that are there.
fn added(bits: u32, old: u32) -> u32 {
    let gradient = bitcast<f32>(params[0].x) * slope(bitcast<f32>(bits));
    let is_nan = max(bits & MAGNITUDE, old & MAGNITUDE) > INF_BITS;
    return store_bits(bitcast<f32>(old) + gradient, is_nan);
}

// hook begin: tensors
@group(0) @binding(3) var<storage, read> w0: array<u32>;
@group(0) @binding(4) var<storage, read_write> d0: array<u32>;
// import tensor
fn sum(tensor: u32, first: u32, end: u32, lane: u32) -> Sum {
    switch tensor {
        default: { return sum0(first, end, lane); }
    }
}
// hook end

// import sum

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Phase 1: the tensor, and its elements.
    var tensor = 0u;
    for (var k = 1u; k < TENSORS; k++) {
        tensor = select(tensor, k, penalized.tensors[k].x <= group.x);
    }
    let first = (group.x - penalized.tensors[tensor].x) * penalized.chunk;
    let end = min(first + penalized.chunk, penalized.tensors[tensor].y);
    // Phase 2: this workgroup's partial sum, in a fixed order.
    let s = sum_of_lanes(sum(tensor, first, end, lane), lane);
    if (lane == 0u) {
        work[penalized.first_partial + group.x] = store_bits(s.sum, s.bits > INF_BITS);
    }
}
