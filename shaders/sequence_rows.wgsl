// Probabilities of a lattice, gathered from rows of classes; of logits, each row's maximum and the inverse of its sum of
// exponentials too.
// Grid: one workgroup per row (strided past the grid limit). Reads the row's classes (of logits all, else those gathered);
// writes gathered[row], and of logits rows[row], to work.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;
// import sequence_window
@group(0) @binding(1) var<uniform> window: Window;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
// Whether the classes are logits, whose rows are normalised.
const LOGITS: bool = true;
// Cells of a frame: label positions of a transducer, else one.
const CELLS: u32 = 1u;
// hook end

// hook begin: access
@group(0) @binding(3) var<storage, read> classes: array<u32>;
fn class_bits(base: u32, col: u32) -> u32 {
    return classes[base + col * window.strides.w];
}
fn class_bits4(base: u32, col: u32) -> vec4<u32> {
    let cols = vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u);
    let last = vec4<u32>(sequences.classes - 1u);
    let c = min(cols, last);
    let bits = vec4<u32>(class_bits(base, c.x), class_bits(base, c.y), class_bits(base, c.z), class_bits(base, c.w));
    return select(bits, vec4<u32>(0xff800000u), cols > last);
}
// hook end

// hook begin: gathered
// Whether the lattice passes the row, the number of its classes that are gathered, and the class of each.
fn is_passed(n: u32, t: u32, u: u32) -> bool {
    return work[sequences.padding + n * sequences.frames + t] == 0u;
}
fn gathered_count(n: u32, u: u32) -> u32 {
    return 1u + work[sequences.heads + HEAD * n + HEAD_LABELS];
}
fn gathered_class(n: u32, u: u32, k: u32) -> u32 {
    if (k == 0u) {
        return sequences.blank;
    }
    return work[sequences.labels_at + n * sequences.labels + k - 1u];
}
// hook end

// The largest value of a lane, the sum of its exponentials, and the largest magnitude of its bits.
struct Lane { largest: f32, sum: f32, bits: u32 }
var<workgroup> lanes: array<Lane, WG>;

fn combine_lanes(lane: u32) -> Lane {
    for (var step = WG / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier(); // all lanes have written before any is read; halves are complete before they are halved again
        if (lane < step) {
            lanes[lane].largest = max(lanes[lane].largest, lanes[lane + step].largest);
            lanes[lane].bits = max(lanes[lane].bits, lanes[lane + step].bits);
            lanes[lane].sum += lanes[lane + step].sum;
        }
    }
    workgroupBarrier(); // the last half is written before it is read
    let all = lanes[0];
    workgroupBarrier(); // it is read before the next lanes are written
    return all;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var k = group.x; k < window.count.w; k += groups.x) {
        let cell = cell_of(k);
        let base = window.base.w + dot(cell - window.base.xyz, window.strides.xyz);
        let row = row_of(cell);
        let passed = is_passed(cell.x, cell.y, cell.z);
        // Rows outside the lattice take no trips.
        let end = select(0u, sequences.classes, passed);
        var inverse = 1.0;
        var largest = 0.0;
        var is_nan = false;
        if (LOGITS) {
            // Phase 1: the row's maximum.
            var own = Lane(LOWEST, 0.0, 0u);
            for (var col = 4u * lane; col < end; col += 4u * WG) {
                let bits = class_bits4(base, col);
                let x = bitcast<vec4<f32>>(bits);
                let seen = bits & vec4<u32>(MAGNITUDE);
                own.largest = max(own.largest, max(max(x.x, x.y), max(x.z, x.w)));
                own.bits = max(own.bits, max(max(seen.x, seen.y), max(seen.z, seen.w)));
            }
            lanes[lane] = own;
            let all = combine_lanes(lane);
            // Phase 2: the sum of exponentials below it.
            own = Lane(LOWEST, 0.0, 0u);
            for (var col = 4u * lane; col < end; col += 4u * WG) {
                let x = bitcast<vec4<f32>>(class_bits4(base, col));
                let p = math_exp_neg4(x - vec4<f32>(all.largest));
                own.sum += (p.x + p.y) + (p.z + p.w);
            }
            lanes[lane] = own;
            let sum = combine_lanes(lane).sum;
            // A NaN, +∞, or nothing but −∞ leaves no distribution.
            is_nan = all.bits > INF_BITS || all.largest > -LOWEST || sum == 0.0;
            largest = all.largest;
            inverse = 1.0 / select(sum, 1.0, sum == 0.0);
            if (lane == 0u && passed) {
                work[sequences.rows + 2u * row] = bitcast<u32>(largest);
                work[sequences.rows + 2u * row + 1u] = bitcast<u32>(inverse);
            }
        }
        // Phase 3: the gathered probabilities.
        let count = select(0u, gathered_count(cell.x, cell.z), passed);
        for (var j = lane; j < count; j += WG) {
            let bits = class_bits(base, gathered_class(cell.x, cell.z, j));
            let p = scaled_exp(bitcast<f32>(bits) - largest);
            let none = is_nan || is_nan_bits(bits) || bits == INF_BITS;
            let at = sequences.gathered + row * sequences.gathered_words + 2u * j;
            let share = scaled(p.m * inverse, p.e);
            work[at] = store_bits(share.m, none);
            work[at + 1u] = bitcast<u32>(share.e);
        }
    }
}
