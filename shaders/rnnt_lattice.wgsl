// The lattice of a transducer, diagonal by diagonal: alpha (the probability of all alignments' beginnings up to a frame and a
// number of labels) and beta (of all ends from there).
// Grid: one workgroup per sequence, times alpha and beta; one dispatch per segment of the diagonals. Reads gathered[row, 0..4]
// (blank, label); writes alpha[frame, labels + 1] and beta[frame, labels + 1], and the sequence's loss in its head.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
// Whether alpha and beta are kept, for gradients.
const KEEP: bool = true;
// States that workgroup memory holds: labels, and none.
const STATES: u32 = 65u;
// hook end

// import sequence_carry

// Frames and states (labels, and none) of the sequence.
var<workgroup> bounds: vec2<u32>;
// The largest magnitude of the bits that a lane has read.
var<workgroup> seen: atomic<u32>;

// The probability of the blank (0) or of the next label (1) of a cell: a frame and the number of labels emitted before.
fn emission(n: u32, t: u32, labels: u32, what: u32) -> Scaled {
    let row = ((n - sequences.first) * sequences.frames + t) * (sequences.labels + 1u) + labels;
    return load_scaled(sequences.gathered + row * sequences.gathered_words + 2u * what);
}

fn state_at(first: u32, n: u32, t: u32, labels: u32) -> u32 {
    return first + ((n - sequences.first) * sequences.frames + t) * sequences.state_words + 2u * labels;
}

// Alpha of this dispatch's diagonals; the largest magnitude of the bits of the probabilities that beginnings meet.
fn alphas(n: u32, lane: u32, end: vec2<u32>) -> u32 {
    var half = 0u;
    var bits = 0u;
    for (var labels = lane; labels < end.y && sequences.segment > 0u; labels += WG) {
        carry(half, labels, load_scaled(checkpoint_at(n, 0u, labels)));
    }
    exchange();
    let first = sequences.segment * sequences.segment_frames;
    for (var diagonal = first; diagonal < min(first + sequences.segment_frames, end.x + end.y - 1u); diagonal++) {
        for (var labels = lane; labels < end.y; labels += WG) {
            let t = diagonal - labels;
            var a = zero();
            if (labels <= diagonal && t < end.x) {
                if (diagonal == 0u) {
                    a = one();
                }
                if (t > 0u) {
                    let before = carried_state(half, labels);
                    if (before.m > 0.0) {
                        let p = emission(n, t - 1u, labels, 0u);
                        bits = max(bits, bitcast<u32>(p.m) & MAGNITUDE);
                        a = plus(a, times(before, p));
                    }
                }
                if (labels > 0u) {
                    let before = carried_state(half, labels - 1u);
                    if (before.m > 0.0) {
                        let p = emission(n, t, labels - 1u, 1u);
                        bits = max(bits, bitcast<u32>(p.m) & MAGNITUDE);
                        a = plus(a, times(before, p));
                    }
                }
                if (KEEP) {
                    store_scaled(state_at(sequences.alpha, n, t, labels), a);
                }
            }
            carry(1u - half, labels, a);
        }
        exchange();
        half = 1u - half;
    }
    save_checkpoint(n, 0u, half, lane, end.y);
    return bits;
}

// Beta of this dispatch's diagonals, from the last.
fn betas(n: u32, lane: u32, end: vec2<u32>) {
    var half = 0u;
    for (var labels = lane; labels < end.y; labels += WG) {
        if (sequences.segment > 0u) {
            carry(half, labels, load_scaled(checkpoint_at(n, 1u, labels)));
        } else {
            carry(half, labels, zero());
        }
    }
    exchange();
    let first = (sequences.segments - 1u - sequences.segment) * sequences.segment_frames;
    for (var after = min(first + sequences.segment_frames, end.x + end.y - 1u); after > first; after--) {
        let diagonal = after - 1u;
        for (var labels = lane; labels < end.y; labels += WG) {
            let t = diagonal - labels;
            var b = zero();
            if (labels <= diagonal && t < end.x) {
                var later = zero();
                if (t + 1u < end.x) {
                    later = carried_state(half, labels);
                } else if (labels + 1u == end.y) {
                    // The last blank ends the sequence.
                    later = one();
                }
                if (later.m > 0.0) {
                    b = times(later, emission(n, t, labels, 0u));
                }
                if (labels + 1u < end.y) {
                    later = carried_state(half, labels + 1u);
                    if (later.m > 0.0) {
                        b = plus(b, times(later, emission(n, t, labels, 1u)));
                    }
                }
                store_scaled(state_at(sequences.beta, n, t, labels), b);
            }
            carry(1u - half, labels, b);
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
        bounds = vec2<u32>(work[head + HEAD_FRAMES], work[head + HEAD_LABELS] + 1u);
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
    var is_nan = is_nan_bits(atomicLoad(&seen)) || is_nan_bits(work[head + HEAD_LOSS]);
    if (lane == 0u && sequences.segment + 1u < sequences.segments) {
        work[head + HEAD_LOSS] = store_bits(0.0, is_nan);
    } else if (lane == 0u) {
        // Diagonals change halves. Without frames there is no last blank.
        let first = sequences.segment * sequences.segment_frames;
        let half = select(0u, end.x + end.y - 1u - first, end.x + end.y - 1u > first) & 1u;
        var p = zero();
        if (end.x > 0u) {
            p = carried_state(half, end.y - 1u);
        }
        if (p.m > 0.0) {
            let last = emission(n, end.x - 1u, end.y - 1u, 0u);
            is_nan |= is_nan_bits(bitcast<u32>(last.m));
            p = times(p, last);
        }
        let loss = select(INF_BITS, bitcast<u32>(0.0 - scaled_log(p)), p.m > 0.0);
        work[head + HEAD_LOSS] = select(loss, NAN_BITS, is_nan);
    }
}
