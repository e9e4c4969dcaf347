// Runs the adapter's exp2, and the sums of exponentials of short rows.
// Grid: one value per invocation. Reads values[i] as x ≤ 0; writes e^x there. From ROWS_FROM on, values are rows of 4, and
// the invocation of a row's first value writes there what the rows' kernels would have of it:
// the sum of all exponentials but the largest's, relative to the largest so far; the same relative to the largest of
// all; the sum of the four; 0.

// hook begin: constants
const WG: u32 = 64u;
const ROWS_FROM: u32 = 64u;
// hook end
@group(0) @binding(2) var<storage, read_write> values: array<f32>;

fn online(row: array<f32, 4>) -> f32 {
    var x = row;
    var top = LOWEST;
    var rest = -1.0;
    for (var k = 0u; k < 4u; k++) {
        let e = math_exp2_neg(-abs(x[k] - top));
        rest = select(rest + e, rest * e + e, x[k] > top);
        top = max(top, x[k]);
    }
    return rest;
}

fn from_the_top(row: array<f32, 4>) -> f32 {
    var x = row;
    let top = max(max(LOWEST, max(x[0], x[1])), max(x[2], x[3]));
    var rest = 0.0;
    var ties = 0.0;
    for (var k = 0u; k < 4u; k++) {
        let is_top = x[k] == top;
        ties += select(0.0, 1.0, is_top);
        rest += select(math_exp2_neg(x[k] - top), 0.0, is_top);
    }
    return rest + (ties - 1.0);
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if (i < min(ROWS_FROM, arrayLength(&values))) {
        values[i] = math_exp2_neg(values[i]);
    } else if (i % 4u == 0u && i + 3u < arrayLength(&values)) {
        let row = array<f32, 4>(values[i], values[i + 1u], values[i + 2u], values[i + 3u]);
        values[i] = online(row);
        values[i + 1u] = from_the_top(row);
        values[i + 2u] = (row[0] + row[1]) + (row[2] + row[3]);
        values[i + 3u] = 0.0;
    }
}
