// Narrows a gradient that its pass kept in f32 to 16-bit elements in any layout.
// Grid: any number of workgroups; one value per invocation, strided. Reads elements[…] once; writes half a word of
// output[…], added to what was there where the gradient accumulates.

struct Axes {
    // Sizes of the axes, outermost first; strides of the f32 values and of the output; first elements of both.
    sizes: vec4<u32>,
    strides: vec4<u32>,
    target_strides: vec4<u32>,
    values: u32,
    elements_first: u32,
    target_first: u32,
    reserved0: u32,
}
@group(0) @binding(0) var<uniform> axes: Axes;
@group(0) @binding(2) var<storage, read_write> elements: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<atomic<u32>>;

// hook begin: constants
const WG: u32 = 64u;
const ACCUMULATE: bool = false;
fn widen(word: u32, index: u32) -> u32 { return widen_f16(word, index); }
fn narrow(bits: u32) -> u32 { return narrow_f16(bits); }
// hook end

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var value = id.x; value < axes.values; value += groups.x * WG) {
        var bits = elements[axes.elements_first + offset(value, axes.sizes, axes.strides)];
        let place = axes.target_first + offset(value, axes.sizes, axes.target_strides);
        let shift = 16u * (place % 2u);
        if (ACCUMULATE) {
            let old = widen(atomicLoad(&output[place / 2u]), place);
            let is_nan = max(old & MAGNITUDE, bits & MAGNITUDE) > INF_BITS;
            bits = store_bits(bitcast<f32>(old) + bitcast<f32>(bits), is_nan);
        }
        // Each half has one writer; the atomics keep the other half.
        atomicAnd(&output[place / 2u], 0xffff0000u >> shift);
        atomicOr(&output[place / 2u], narrow(bits) << shift);
    }
    // hook begin: seen
    // hook end
}
