// Runs the adapter's exp2, functions that are made of it and of its inverseSqrt, and sums of short rows.
// Grid: one value per invocation. Reads values[i] as x ≤ 0, ARGUMENTS for each function in turn; writes there e^x as softmax
// loops have it, e^x, e^−x, 1 / (1 + e^−x), log(1 + e^x), log(x), log(−x) or log(1 − x). From ROWS_FROM on, values are rows
// of 4, and the invocation of a row's first value writes there what the kernels would have of it:
// the sum of all exponentials but the largest's, relative to the largest so far; the same relative to the largest of
// all; the sum of the four; NaN where the sums of all functions are, else 0.

// hook begin: constants
const WG: u32 = 64u;
const ARGUMENTS: u32 = 64u;
const ROWS_FROM: u32 = 512u;
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

fn function(index: u32, x: f32) -> f32 {
    switch index {
        case 0u: { return math_exp2_neg(x); }
        case 1u: { return math_exp2_exp_neg(x); }
        case 2u: { return math_exp2_exp(-x); }
        case 3u: { return math_exp2_sigmoid(x); }
        case 4u: { return math_exp2_softplus(x); }
        case 5u: { return math_exp2_log(x); }
        case 6u: { return math_exp2_log(-x); }
        default: { return math_exp2_log1p(-x); }
    }
}

// The sums of functions of four values that carry NaN.
fn functions(row: array<f32, 4>) -> f32 {
    var x = row;
    var exp = 0.0;
    var sigmoid = 0.0;
    var softplus = 0.0;
    var log_sigmoid = 0.0;
    var log = 0.0;
    var number = 0.0;
    var first = 0.0;
    var second = 0.0;
    for (var k = 0u; k < 4u; k++) {
        exp += math_exp2_exp(x[k]);
        sigmoid += math_exp2_sigmoid(x[k]) + math_exp2_sigmoid_neg(-abs(x[k]));
        softplus += math_exp2_softplus(x[k]) + math_exp2_softplus_neg(-abs(x[k]));
        log_sigmoid += math_exp2_log_sigmoid(x[k]);
        log += math_exp2_log(abs(x[k])) + math_exp2_log1p(abs(x[k]));
        number += math_exp2_sign(x[k]) + math_exp2_max_number(x[k], -2.0) + math_exp2_min_number(x[k], 2.0);
        first += math_times(x[k], 0.5);
        second += math_times(0.5, x[k]);
    }
    let all = math_is_nan(number) & math_is_nan(exp) & math_is_nan(sigmoid) & math_is_nan(softplus) & math_is_nan(log_sigmoid);
    return bitcast<f32>(select(0u, NAN_BITS, all & math_is_nan(log) & math_is_nan(first) & math_is_nan(second)));
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if (i < min(ROWS_FROM, arrayLength(&values))) {
        values[i] = function(i / ARGUMENTS, values[i]);
    } else if (i % 4u == 0u && i + 3u < arrayLength(&values)) {
        let row = array<f32, 4>(values[i], values[i + 1u], values[i + 2u], values[i + 3u]);
        values[i] = online(row);
        values[i + 1u] = from_the_top(row);
        values[i + 2u] = (row[0] + row[1]) + (row[2] + row[3]);
        values[i + 3u] = functions(row);
    }
}
