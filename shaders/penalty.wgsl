// The penalty of several tensors, and its gradients: each element is read once, and its gradient written once.
// Grid: one workgroup per `chunk` elements of a tensor. Reads w0[0..length] (w1, …) and writes or adds to d0[0..length];
// writes one partial sum per workgroup: work[first_partial + group].

struct Tensors {
    // Elements per workgroup; partial sums of the dispatches before this one.
    chunk: u32,
    first_partial: u32,
    reserved0: u32,
    reserved1: u32,
    // Per tensor: its first workgroup, its elements, and the first elements of the tensor and of its gradient.
    parts: array<vec4<u32>, 16>,
}
@group(0) @binding(0) var<uniform> tensors: Tensors;
@group(0) @binding(1) var<uniform> params: array<vec4<u32>, 1>;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

struct Sum { bits: u32, sum: f32 }

fn combine(a: Sum, b: Sum) -> Sum {
    return Sum(max(a.bits, b.bits), a.sum + b.sum);
}

// Terms of a lane that are added by themselves first: sums of long runs would lose digits.
const RUN: u32 = 32u;

// hook begin: constants
const WG: u32 = 64u;
const PARTS: u32 = 1u;
fn term(w: f32) -> f32 { return abs(w); }
fn slope(w: f32) -> f32 { return sign(w); }
// hook end

// Bits of the gradient at an element, added to those that are there.
fn added(bits: u32, old: u32) -> u32 {
    let gradient = bitcast<f32>(params[0].x) * slope(bitcast<f32>(bits));
    let is_nan = max(bits & MAGNITUDE, old & MAGNITUDE) > INF_BITS;
    return store_bits(bitcast<f32>(old) + gradient, is_nan);
}

// hook begin: parts
@group(0) @binding(3) var<storage, read> w0: array<u32>;
@group(0) @binding(4) var<storage, read_write> d0: array<u32>;
// import part
fn sum(part: u32, first: u32, end: u32, lane: u32) -> Sum {
    switch part {
        default: { return sum0(first, end, lane); }
    }
}
// hook end

var<workgroup> lanes: array<Sum, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Phase 1: the tensor, and its elements.
    var part = 0u;
    for (var k = 1u; k < PARTS; k++) {
        part = select(part, k, tensors.parts[k].x <= group.x);
    }
    let first = (group.x - tensors.parts[part].x) * tensors.chunk;
    let end = min(first + tensors.chunk, tensors.parts[part].y);
    // Phase 2: this workgroup's partial sum, in a fixed order.
    lanes[lane] = sum(part, first, end, lane);
    workgroupBarrier(); // all lanes have written before any is read
    for (var step = WG / 2u; step > 0u; step >>= 1u) {
        if (lane < step) {
            lanes[lane] = combine(lanes[lane], lanes[lane + step]);
        }
        workgroupBarrier(); // this step is written before the next one reads it
    }
    if (lane == 0u) {
        work[tensors.first_partial + group.x] = store_bits(lanes[0].sum, lanes[0].bits > INF_BITS);
    }
}
