// The gradient of a broadcast input: the sum of element gradients over the axes along which the input repeats.
// Grid: (values, segments), values strided past the grid limit. Reads every element gradient once, in a fixed order;
// writes target[value], or one partial sum per segment, which a second dispatch adds up.

struct Axes {
    // Sizes of the axes that the input has and of those it repeats along, outermost first, and the strides of the
    // element gradients along both; strides of the target; first elements of the gradients and of the target.
    kept: vec4<u32>,
    summed: vec4<u32>,
    kept_strides: vec4<u32>,
    summed_strides: vec4<u32>,
    target_strides: vec4<u32>,
    values: u32,
    repeats: u32,
    elements_first: u32,
    target_first: u32,
    // Segments of the sum, and the distance of their partial sums.
    segments: u32,
    segment_stride: u32,
    reserved0: u32,
    reserved1: u32,
}
@group(0) @binding(0) var<uniform> axes: Axes;
@group(0) @binding(2) var<storage, read_write> elements: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
const ACCUMULATE: bool = false;
// hook end

// import sum

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var value = group.x; value < axes.values; value += groups.x) {
        let first = axes.elements_first + offset(value, axes.kept, axes.kept_strides);
        var s = Sum(0u, 0.0);
        let length = (axes.repeats + axes.segments - 1u) / axes.segments;
        let end = min((group.y + 1u) * length, axes.repeats);
        for (var k = group.y * length + lane; k < end; k += WG) {
            let bits = elements[first + offset(k, axes.summed, axes.summed_strides)];
            s = combine(s, Sum(bits & MAGNITUDE, bitcast<f32>(bits)));
        }
        let all = sum_of_lanes(s, lane);
        if (lane == 0u) {
            let target_value = axes.target_first + offset(value, axes.kept, axes.target_strides);
            let place = target_value + group.y * axes.segment_stride;
            var sum = all.sum;
            if (ACCUMULATE) {
                sum += bitcast<f32>(output[place]);
            }
            // hook begin: store
            output[place] = store_bits(sum, all.bits > INF_BITS);
            // hook end
        }
        workgroupBarrier(); // the result is read before the next value writes
    }
}
