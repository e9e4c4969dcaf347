// The CTC lattice of a sequence, frame by frame: alpha (the probability of all beginnings of alignments that end in a state)
// and beta (of all ends of alignments after it), over the states blank, label, blank, …, blank.
// Grid: one workgroup per sequence, times alpha and beta; one dispatch per segment of the frames. Reads gathered[row, 0..2·(labels + 1)]; writes alpha[row, states]
// and beta[row, states], and the sequence's loss in its head.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
// Whether alpha and beta are kept, for gradients.
const KEEP: bool = true;
const ZERO_INFINITY: bool = false;
// States that workgroup memory holds.
const STATES: u32 = 129u;
// Probability, as a mantissa and an exponent, of beginning at a state other than the first and of skipping the blank between
// equal labels.
const EPSILON_MANTISSA: f32 = 0.0;
const EPSILON_EXPONENT: f32 = 0.0;
// hook end

// import sequence_carry

// Frames and states of the sequence.
var<workgroup> bounds: vec2<u32>;
// The largest magnitude of the bits that a lane has read.
var<workgroup> seen: atomic<u32>;

fn epsilon() -> Scaled {
    return scaled(EPSILON_MANTISSA, EPSILON_EXPONENT);
}

// The probability of the state's class in a row.
fn emission(row: u32, state: u32) -> Scaled {
    return load_scaled(sequences.gathered + row * sequences.gathered_words + 2u * (state & 1u) * ((state + 1u) / 2u));
}

// What passes from the label two states before a label's state: all, unless they are equal.
fn skipping(n: u32, state: u32, before: Scaled) -> Scaled {
    let link = work[sequences.links + n * sequences.labels + state / 2u];
    if ((link & LINK_BEFORE) == 0u) {
        return before;
    }
    return times(before, epsilon());
}

fn is_padding(n: u32, t: u32) -> bool {
    return work[sequences.padding + n * sequences.frames + t] != 0u;
}

// Alpha of this dispatch's frames; the largest magnitude of the bits of the probabilities that reached states read.
fn alphas(n: u32, lane: u32, end: vec2<u32>) -> u32 {
    var half = 0u;
    var bits = 0u;
    for (var state = lane; state < end.y; state += WG) {
        if (sequences.segment > 0u) {
            carry(half, state, load_scaled(checkpoint_at(n, 0u, state)));
        } else if (state == 0u) {
            carry(half, state, one());
        } else {
            carry(half, state, epsilon());
        }
    }
    exchange();
    let first = sequences.segment * sequences.segment_frames;
    for (var t = first; t < min(first + sequences.segment_frames, end.x); t++) {
        let row = (n - sequences.first) * sequences.frames + t;
        let padding = is_padding(n, t);
        for (var state = lane; state < end.y; state += WG) {
            var a = carried_state(half, state);
            if (!padding) {
                if (state > 0u) {
                    a = plus(a, carried_state(half, state - 1u));
                }
                if (state > 2u && (state & 1u) == 1u) {
                    a = plus(a, skipping(n, state, carried_state(half, state - 2u)));
                }
                if (a.m > 0.0) {
                    let p = emission(row, state);
                    bits = max(bits, bitcast<u32>(p.m) & MAGNITUDE);
                    a = times(a, p);
                }
            }
            carry(1u - half, state, a);
            if (KEEP) {
                store_scaled(sequences.alpha + row * sequences.state_words + 2u * state, a);
            }
        }
        exchange();
        half = 1u - half;
    }
    save_checkpoint(n, 0u, half, lane, end.y);
    return bits;
}

// Beta of this dispatch's frames, from the last: without the probability of the frame's own class.
fn betas(n: u32, lane: u32, end: vec2<u32>) {
    var half = 0u;
    for (var state = lane; state < end.y; state += WG) {
        if (sequences.segment > 0u) {
            carry(half, state, load_scaled(checkpoint_at(n, 1u, state)));
        } else if (state + 1u == end.y) {
            carry(half, state, one());
        } else {
            carry(half, state, zero());
        }
    }
    exchange();
    let first = (sequences.segments - 1u - sequences.segment) * sequences.segment_frames;
    for (var after = min(first + sequences.segment_frames, end.x); after > first; after--) {
        let t = after - 1u;
        let row = (n - sequences.first) * sequences.frames + t;
        let padding = is_padding(n, t);
        for (var state = lane; state < end.y; state += WG) {
            var b = carried_state(half, state);
            if (!padding) {
                if (state + 1u < end.y) {
                    b = plus(b, carried_state(half, state + 1u));
                }
                if (state + 2u < end.y && (state & 1u) == 1u) {
                    b = plus(b, skipping(n, state + 2u, carried_state(half, state + 2u)));
                }
                store_scaled(sequences.beta + row * sequences.state_words + 2u * state, b);
                if (b.m > 0.0) {
                    b = times(b, emission(row, state));
                }
            }
            carry(1u - half, state, b);
        }
        exchange();
        half = 1u - half;
    }
    save_checkpoint(n, 1u, half, lane, end.y);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = sequences.first + group.x;
    let head = sequences.heads + HEAD * n;
    if (lane == 0u) {
        bounds = vec2<u32>(work[head + HEAD_FRAMES], 2u * work[head + HEAD_LABELS] + 1u);
        atomicStore(&seen, 0u);
    }
    let end = workgroupUniformLoad(&bounds);
    begin(group.x, group.y);
    if (group.y == 1u) {
        betas(n, lane, end);
        return;
    }
    let bits = alphas(n, lane, end);
    atomicMax(&seen, bits);
    workgroupBarrier(); // all lanes have told
    let is_nan = is_nan_bits(atomicLoad(&seen)) || is_nan_bits(work[head + HEAD_LOSS]);
    if (lane == 0u && sequences.segment + 1u < sequences.segments) {
        work[head + HEAD_LOSS] = store_bits(0.0, is_nan);
    } else if (lane == 0u) {
        // Where the last states are: frames change halves.
        let first = sequences.segment * sequences.segment_frames;
        let half = select(0u, end.x - first, end.x > first) & 1u;
        var p = carried_state(half, end.y - 1u);
        if (end.y > 1u) {
            p = plus(p, carried_state(half, end.y - 2u));
        }
        var loss = bitcast<u32>(0.0 - scaled_log(p));
        if (!(p.m > 0.0)) {
            loss = select(INF_BITS, 0u, ZERO_INFINITY);
        }
        work[head + HEAD_LOSS] = select(loss, NAN_BITS, is_nan);
        if (ZERO_INFINITY && !(p.m > 0.0)) {
            work[head + HEAD_WEIGHT] = 0u;
        }
    }
}
