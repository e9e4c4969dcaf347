// The lattice of a linear chain, frame by frame: alpha (the sum over all taggings up to a frame that end in a tag) and beta (over
// all taggings after it).
// Grid: one workgroup per sequence, times alpha and beta; one dispatch per segment of the frames. Reads emissions and the
// exponentials of scores; writes alpha[frame, tags] and beta[frame, tags], the sum over all taggings to rows[first frame], and
// the sequence's loss in its head.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;
// import sequence_window
@group(0) @binding(1) var<uniform> window: Window;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
// Whether alpha and beta are kept, for gradients and marginals.
const KEEP: bool = true;
// States that workgroup memory holds: tags.
const STATES: u32 = 16u;
const CELLS: u32 = 1u;
// hook end

// hook begin: access
@group(0) @binding(3) var<storage, read> classes: array<u32>;
fn class_bits(base: u32, col: u32) -> u32 {
    return classes[base + col * window.strides.w];
}
// hook end

// import sequence_carry
// import crf_scores

// Frames of the sequence.
var<workgroup> bounds: u32;
// The largest magnitude of the bits that a lane has read.
var<workgroup> seen: atomic<u32>;
var<workgroup> products: array<Scaled, WG>;

// Alpha of this dispatch's frames; the largest magnitude of the bits of the scores that taggings meet.
fn alphas(n: u32, lane: u32, end: u32) -> u32 {
    let tags = sequences.classes;
    var half = 0u;
    var bits = 0u;
    for (var tag = lane; tag < tags && sequences.segment > 0u; tag += WG) {
        carry(half, tag, load_scaled(checkpoint_at(n, 0u, tag)));
    }
    exchange();
    let first = sequences.segment * sequences.segment_frames;
    for (var t = first; t < min(first + sequences.segment_frames, end); t++) {
        for (var tag = lane; tag < tags; tag += WG) {
            var a = zero();
            if (t == 0u) {
                a = start_score(tag);
            } else {
                for (var before = 0u; before < tags; before++) {
                    a = plus(a, times(carried_state(half, before), transition(before, tag)));
                }
            }
            if (a.m > 0.0) {
                let p = emission(n, t, tag);
                bits = max(bits, bitcast<u32>(p.m) & MAGNITUDE);
                a = times(a, p);
            }
            carry(1u - half, tag, a);
            if (KEEP) {
                store_scaled(state_at(sequences.alpha, n, t, tag), a);
            }
        }
        exchange();
        half = 1u - half;
    }
    save_checkpoint(n, 0u, half, lane, tags);
    return bits;
}

// Beta of this dispatch's frames, from the last: without the frame's own emission.
fn betas(n: u32, lane: u32, end: u32) {
    let tags = sequences.classes;
    var half = 0u;
    for (var tag = lane; tag < tags && sequences.segment > 0u; tag += WG) {
        carry(half, tag, load_scaled(checkpoint_at(n, 1u, tag)));
    }
    exchange();
    let first = (sequences.segments - 1u - sequences.segment) * sequences.segment_frames;
    for (var after = min(first + sequences.segment_frames, end); after > first; after--) {
        for (var tag = lane; tag < tags; tag += WG) {
            var b = zero();
            if (after == end) {
                b = end_score(tag);
            } else {
                for (var later = 0u; later < tags; later++) {
                    b = plus(b, times(transition(tag, later), carried_state(half, later)));
                }
            }
            store_scaled(state_at(sequences.beta, n, after - 1u, tag), b);
            if (b.m > 0.0) {
                b = times(b, emission(n, after - 1u, tag));
            }
            carry(1u - half, tag, b);
        }
        exchange();
        half = 1u - half;
    }
    save_checkpoint(n, 1u, half, lane, tags);
}

// The product of the scores of the sequence's own tags; right for lane 0.
fn own_tagging(n: u32, lane: u32, end: u32) -> Scaled {
    var own = one();
    for (var t = lane; t < end; t += WG) {
        own = times(own, emission(n, t, tag_of(n, t)));
        if (t == 0u) {
            own = times(own, start_score(tag_of(n, 0u)));
        } else {
            own = times(own, transition(tag_of(n, t - 1u), tag_of(n, t)));
        }
        if (t + 1u == end) {
            own = times(own, end_score(tag_of(n, t)));
        }
    }
    products[lane] = own;
    for (var step = WG / 2u; step > 0u; step >>= 1u) {
        workgroupBarrier(); // all lanes have written before any is read; halves are complete before they are halved again
        if (lane < step) {
            products[lane] = times(products[lane], products[lane + step]);
        }
    }
    workgroupBarrier(); // the last half is written before it is read
    return products[0];
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = sequences.first + group.x;
    let head = sequences.heads + HEAD * n;
    if (lane == 0u) {
        bounds = work[head + HEAD_FRAMES];
        atomicStore(&seen, 0u);
    }
    let end = workgroupUniformLoad(&bounds);
    begin(group.x, group.y);
    if (group.y == 1u) {
        betas(n, lane, end);
        return;
    }
    var bits = alphas(n, lane, end);
    // One frame has no transitions, none has no scores at all.
    let tags = sequences.classes;
    let first = select(0u, tags * tags, end < 2u);
    for (var k = first + lane; k < select(tags * tags + 2u * tags, 0u, end == 0u); k += WG) {
        bits = max(bits, work[sequences.scores + 2u * k] & MAGNITUDE);
    }
    atomicMax(&seen, bits);
    workgroupBarrier(); // all lanes have told
    let is_nan = is_nan_bits(atomicLoad(&seen)) || is_nan_bits(work[head + HEAD_LOSS]);
    workgroupBarrier(); // the head is read before it is written
    if (sequences.segment + 1u < sequences.segments) {
        if (lane == 0u) {
            work[head + HEAD_LOSS] = store_bits(0.0, is_nan);
        }
        return;
    }
    let own = own_tagging(n, lane, end);
    if (lane == 0u) {
        let begun = sequences.segment * sequences.segment_frames;
        let half = select(0u, end - begun, end > begun) & 1u;
        var total = zero();
        for (var tag = 0u; tag < tags && end > 0u; tag++) {
            total = plus(total, times(carried_state(half, tag), end_score(tag)));
        }
        store_scaled(sequences.rows + 2u * group.x * sequences.frames, total);
        var loss = select(INF_BITS, 0u, end == 0u);
        if (own.m > 0.0 && end > 0u) {
            loss = bitcast<u32>(scaled_log(scaled(total.m / own.m, total.e - own.e)));
        }
        let none = end > 0u && !(total.m > 0.0);
        work[head + HEAD_LOSS] = select(loss, NAN_BITS, is_nan || none);
    }
}
