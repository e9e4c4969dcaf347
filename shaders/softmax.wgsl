// Softmax of rows, one workgroup per row: the maximum and the sum of exponentials in two trips, the quotients in a third.
// Grid: one workgroup per row (strided past the grid limit). Reads input[row, 0..cols]; writes result[row, 0..cols].

struct Rows {
    // Merged axes, outermost first, of which the last is the columns; strides of the input and of the result.
    axes: vec4<u32>,
    strides: vec4<u32>,
    result_strides: vec4<u32>,
    rows: u32,
    // First elements of the input and of the result.
    first: u32,
    result_first: u32,
    reserved0: u32,
}
@group(0) @binding(0) var<uniform> rows: Rows;
// hook begin: input; read_write where a buffer is also written
@group(0) @binding(2) var<storage, read> input: array<u32>;
// hook end
@group(0) @binding(3) var<storage, read_write> result: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
// hook end

// The largest value of a lane, the sum of its exponentials, and the largest magnitude of its bits.
struct Lane { largest: f32, sum: f32, bits: u32 }
var<workgroup> lanes: array<Lane, WG>;

fn at(base: u32, col: u32) -> f32 {
    return bitcast<f32>(input[base + col * rows.strides.w]);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let axes = vec4<u32>(rows.axes.xyz, 1u);
    for (var row = group.x; row < rows.rows; row += groups.x) {
        let base = rows.first + offset(row, axes, rows.strides);
        // Phase 1: the row's maximum.
        var own = Lane(LOWEST, 0.0, 0u);
        for (var col = lane; col < rows.axes.w; col += WG) {
            own.largest = max(own.largest, at(base, col));
            own.bits = max(own.bits, bitcast<u32>(at(base, col)) & MAGNITUDE);
        }
        lanes[lane] = own;
        workgroupBarrier(); // all lanes have written before any is read
        for (var step = WG / 2u; step > 0u; step >>= 1u) {
            if (lane < step) {
                lanes[lane].largest = max(lanes[lane].largest, lanes[lane + step].largest);
                lanes[lane].bits = max(lanes[lane].bits, lanes[lane + step].bits);
            }
            workgroupBarrier(); // halves are complete before they are halved again
        }
        let whole = lanes[0];
        workgroupBarrier(); // the maximum is read before sums take its place
        // Phase 2: the sum of exponentials below it.
        var sum = 0.0;
        for (var col = lane; col < rows.axes.w; col += WG) {
            sum += math_exp_neg(at(base, col) - whole.largest);
        }
        lanes[lane].sum = sum;
        workgroupBarrier(); // all lanes have written before any is read
        for (var step = WG / 2u; step > 0u; step >>= 1u) {
            if (lane < step) {
                lanes[lane].sum += lanes[lane + step].sum;
            }
            workgroupBarrier(); // halves are complete before they are halved again
        }
        // Phase 3: quotients. A NaN, +∞, or nothing but −∞ leaves no distribution.
        let inverse = 1.0 / lanes[0].sum;
        let none = whole.bits > INF_BITS || whole.largest > -LOWEST || lanes[0].sum == 0.0;
        let to = rows.result_first + offset(row, axes, rows.result_strides);
        for (var col = lane; col < rows.axes.w; col += WG) {
            let p = math_exp_neg(at(base, col) - whole.largest) * inverse;
            result[to + col * rows.result_strides.w] = store_bits(p, none);
        }
        workgroupBarrier(); // the sum is read before the next row's lanes are written
    }
}
