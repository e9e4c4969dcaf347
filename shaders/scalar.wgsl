// A scalar input of 16 bits, widened to its word among the scalars before a step.
// Grid: one workgroup. Reads half a word of input[element / 2]; writes scalars.values[slot].

struct Half {
    // The element, counted in halves, and its place among the scalars.
    element: u32,
    slot: u32,
    reserved0: u32,
    reserved1: u32,
}
@group(0) @binding(0) var<uniform> half: Half;
@group(0) @binding(2) var<storage, read> input: array<u32>;
@group(0) @binding(3) var<storage, read_write> scalars: Scalars;

// hook begin: constants
fn widen(word: u32, index: u32) -> u32 { return widen_f16(word, index); }
// hook end

@compute @workgroup_size(1)
fn main() {
    scalars.values[half.slot] = widen(input[half.element / 2u], half.element);
}
