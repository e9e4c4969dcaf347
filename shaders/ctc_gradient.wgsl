// Gradients of CTC with respect to classes: each class's probability less its occupancy, the probability that an alignment
// is in one of its states in that frame.
// Grid: one workgroup per row (strided past the grid limit). Reads the row's classes, alpha[row] and beta[row], and the
// sequence's head; writes the row's gradient. Sums over equal labels replace mantissas in alpha.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;
// import sequence_window
@group(0) @binding(1) var<uniform> window: Window;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
const LOGITS: bool = true;
const CELLS: u32 = 1u;
// Classes whose occupancies workgroup memory holds at a time: a multiple of 4.
const TILE: u32 = 1024u;
// Whether the gradient is added to what is there, so that zeros are not stored.
const ACCUMULATE: bool = false;
// hook end

// hook begin: access
@group(0) @binding(3) var<storage, read> classes: array<u32>;
@group(0) @binding(4) var<storage, read_write> d_classes: array<u32>;
fn class_bits4(base: u32, col: u32) -> vec4<u32> {
    let c = min(vec4<u32>(col) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(sequences.classes - 1u)) * window.strides.w;
    return vec4<u32>(classes[base + c.x], classes[base + c.y], classes[base + c.z], classes[base + c.w]);
}
fn store4(base: u32, col: u32, value: vec4<f32>, is_nan: vec4<bool>) {
    let bits = store_bits4(value, is_nan);
    for (var k = 0u; k < 4u && col + k < sequences.classes; k++) {
        d_classes[base + (col + k) * window.grad_strides.w] = bits[k];
    }
}
// hook end

var<workgroup> totals: array<Scaled, WG>;
var<workgroup> blanks: array<f32, WG>;
var<workgroup> occupancies: array<f32, TILE>;

fn alpha_at(row: u32, state: u32) -> u32 {
    return sequences.alpha + row * sequences.state_words + 2u * state;
}

fn beta_at(row: u32, state: u32) -> u32 {
    return sequences.beta + row * sequences.state_words + 2u * state;
}

// The probability that an alignment is in that state of the row, of all `total`.
fn occupancy(row: u32, state: u32, total: Scaled) -> f32 {
    return scaled_share(load_scaled(alpha_at(row, state)), load_scaled(beta_at(row, state)), total);
}

fn class_of(n: u32, k: u32) -> u32 {
    return work[sequences.labels_at + n * sequences.labels + k];
}

// Probabilities of four classes of a row.
fn probabilities(bits: vec4<u32>, row: u32) -> vec4<f32> {
    let x = bitcast<vec4<f32>>(bits);
    if (LOGITS) {
        let largest = bitcast<f32>(work[sequences.rows + 2u * row]);
        return math_exp_neg4(x - vec4<f32>(largest)) * bitcast<f32>(work[sequences.rows + 2u * row + 1u]);
    }
    return math_exp4(x);
}

// What all alignments of a row sum to, as its frame has it: rounding errors of frames before it cancel in quotients.
fn total_of(row: u32, states: u32, lane: u32) -> Scaled {
    var own = zero();
    for (var state = lane; state < states; state += WG) {
        own = plus(own, times(load_scaled(alpha_at(row, state)), load_scaled(beta_at(row, state))));
    }
    totals[lane] = own;
    for (var step = WG / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier(); // all lanes have written before any is read; halves are complete before they are halved
        if (lane < step) {
            totals[lane] = plus(totals[lane], totals[lane + step]);
        }
    }
    workgroupBarrier(); // the last half is written before it is read
    return totals[0];
}

// The occupancy of the blank's states; those of each label, with the labels that equal it, are left at the first of these.
fn occupy(n: u32, row: u32, labels: u32, states: u32, lane: u32) -> f32 {
    let total = total_of(row, states, lane);
    let links = sequences.links + n * sequences.labels;
    var blank = 0.0;
    for (var state = 2u * lane; state < states; state += 2u * WG) {
        blank += occupancy(row, state, total);
    }
    for (var j = lane; j < labels; j += WG) {
        if (class_of(n, j) == sequences.blank) {
            blank += occupancy(row, 2u * j + 1u, total);
        } else if ((work[links + j] & LINK_EARLIER) == 0u) {
            var sum = 0.0;
            for (var next = j + 1u; next != 0u; next = work[links + next - 1u] & LINK_NEXT) {
                sum += occupancy(row, 2u * next - 1u, total);
            }
            // Other lanes read neither this state's alpha again, nor its beta.
            work[alpha_at(row, 2u * j + 1u)] = bitcast<u32>(sum);
        }
    }
    blanks[lane] = blank;
    for (var step = WG / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier(); // as of the totals
        if (lane < step) {
            blanks[lane] += blanks[lane + step];
        }
    }
    workgroupBarrier(); // the last half is written before it is read
    return blanks[0];
}

// Occupancies of the classes from `first` on: probabilities, of rounded exponents too.
fn fill_tile(n: u32, row: u32, labels: u32, first: u32, blank: f32, lane: u32) {
    for (var c = lane; c < TILE; c += WG) {
        occupancies[c] = 0.0;
    }
    workgroupBarrier(); // all are 0 before some are written
    for (var j = lane; j < labels; j += WG) {
        let own = class_of(n, j);
        let link = work[sequences.links + n * sequences.labels + j];
        if (own - first < TILE && own != sequences.blank && (link & LINK_EARLIER) == 0u) {
            occupancies[own - first] = min(bitcast<f32>(work[alpha_at(row, 2u * j + 1u)]), 1.0);
        }
    }
    if (lane == 0u && sequences.blank - first < TILE) {
        occupancies[sequences.blank - first] = min(blank, 1.0);
    }
    workgroupBarrier(); // all are written before they are read
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var k = group.x; k < window.count.w; k += groups.x) {
        // Phase 1: occupancies of labels and of the blank.
        let cell = cell_of(k);
        let n = cell.x;
        let head = sequences.heads + HEAD * n;
        let padding = work[sequences.padding + n * sequences.frames + cell.y] != 0u;
        let labels = select(work[head + HEAD_LABELS], 0u, padding);
        let states = select(2u * labels + 1u, 0u, padding);
        let row = row_of(cell);
        let blank = occupy(n, row, labels, states, lane);
        // Phase 2: gradients, tile by tile of the classes whose occupancies workgroup memory holds.
        let weight = bitcast<f32>(work[head + HEAD_WEIGHT]);
        // An alignment that cannot be has no distribution.
        let is_poisoned = (work[head + HEAD_LOSS] & MAGNITUDE) >= INF_BITS;
        // A sequence whose infinite loss is taken for zero has no weight.
        let is_zero = padding || (weight == 0.0 && !is_poisoned);
        let base = window.base.w + dot(cell - window.base.xyz, window.strides.xyz);
        let grad = window.grad_base.x + dot(cell - window.base.xyz, window.grad_strides.xyz);
        for (var first = 0u; first < sequences.classes; first += TILE) {
            fill_tile(n, row, labels, first, blank, lane);
            let end = min(TILE, sequences.classes - first);
            for (var c = 4u * lane; c < end; c += 4u * WG) {
                if (!is_zero) {
                    let bits = class_bits4(base, first + c);
                    let own = vec4<f32>(occupancies[c], occupancies[c + 1u], occupancies[c + 2u], occupancies[c + 3u]);
                    let is_nan = vec4<bool>(is_poisoned) | ((bits & vec4<u32>(MAGNITUDE)) > vec4<u32>(INF_BITS));
                    store4(grad, first + c, (probabilities(bits, row) - own) * weight, is_nan);
                } else if (!ACCUMULATE) {
                    store4(grad, first + c, vec4<f32>(0.0), vec4<bool>(false));
                }
            }
            workgroupBarrier(); // they are read before they are 0 again, as are totals and blanks
        }
    }
}
