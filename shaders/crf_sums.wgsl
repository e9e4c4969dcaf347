// Of each sequence, sums over its frames: how often each transition (start, end) is expected, less how often its tags have it.
// Grid: sequences, times transitions, starts and ends by workgroups of lanes. Reads alpha, beta, emissions and scores; writes
// sums[sequence, K·K + 2·K] to work.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;
// import sequence_window
@group(0) @binding(1) var<uniform> window: Window;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;

// hook begin: constants
const WG: u32 = 64u;
const CELLS: u32 = 1u;
// hook end

// hook begin: access
@group(0) @binding(3) var<storage, read> classes: array<u32>;
fn class_bits(base: u32, col: u32) -> u32 {
    return classes[base + col * window.strides.w];
}
// hook end

// import crf_scores

// Terms that are added by themselves first: sums of long runs would lose digits.
const RUN: u32 = 32u;

// The expected number of transitions from one tag to another, less that of the sequence's tags.
fn of_transition(n: u32, frames: u32, before: u32, tag: u32) -> f32 {
    let total = total_of(n);
    let score = transition(before, tag);
    var sum = 0.0;
    for (var begin = 1u; begin < frames; begin += RUN) {
        var run = 0.0;
        for (var t = begin; t < min(begin + RUN, frames); t++) {
            let a = load_scaled(state_at(sequences.alpha, n, t - 1u, before));
            let b = load_scaled(state_at(sequences.beta, n, t, tag));
            if (a.m > 0.0 && b.m > 0.0) {
                run += scaled_share(times(a, score), times(emission(n, t, tag), b), total);
            }
            run -= select(0.0, 1.0, tag_of(n, t - 1u) == before && tag_of(n, t) == tag);
        }
        sum += run;
    }
    return sum;
}

// The probability of a tag in a frame, less whether the sequence has it.
fn of_frame(n: u32, t: u32, tag: u32) -> f32 {
    let a = load_scaled(state_at(sequences.alpha, n, t, tag));
    let share = scaled_share(a, load_scaled(state_at(sequences.beta, n, t, tag)), total_of(n));
    return share - select(0.0, 1.0, tag_of(n, t) == tag);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tags = sequences.classes;
    let n = sequences.first + group.x;
    let head = sequences.heads + HEAD * n;
    let frames = work[head + HEAD_FRAMES];
    let k = group.y * WG + lane;
    let all = tags * (tags + 2u);
    if (k >= all) {
        return;
    }
    var sum = 0.0;
    if (frames > 0u) {
        if (k < tags * tags) {
            sum = of_transition(n, frames, k / tags, k % tags);
        } else if (k < tags * tags + tags) {
            sum = of_frame(n, 0u, k - tags * tags);
        } else {
            sum = of_frame(n, frames - 1u, k - tags * tags - tags);
        }
    }
    let is_nan = is_nan_bits(work[head + HEAD_LOSS]);
    work[sequences.scores + 2u * all + n * all + k] = store_bits(sum, is_nan);
}
