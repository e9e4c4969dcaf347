// Whether a gradient that the step stored is not finite, as f32: 1 or 0. The word is 0 again for the next step.
// Grid: one workgroup. Reads and clears scalars.found; writes output[element].

// hook begin: scalars
struct FoundScalars {
    bad_row: atomic<u32>,
    values: array<u32, 1>,
    found: atomic<u32>,
}
// hook end

struct Place {
    element: u32,
    reserved0: u32,
    reserved1: u32,
    reserved2: u32,
}
@group(0) @binding(0) var<uniform> place: Place;
@group(0) @binding(2) var<storage, read_write> scalars: FoundScalars;
@group(0) @binding(3) var<storage, read_write> output: array<u32>;

@compute @workgroup_size(1)
fn main() {
    output[place.element] = select(0u, bitcast<u32>(1.0), atomicExchange(&scalars.found, 0u) != 0u);
}
