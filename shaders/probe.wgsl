// Runs the adapter's exp2.
// Grid: one value per invocation. Reads values[i] as x ≤ 0; writes e^x there.

// hook begin: constants
const WG: u32 = 64u;
// hook end
@group(0) @binding(2) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&values)) {
        values[id.x] = math_exp2_neg(values[id.x]);
    }
}
