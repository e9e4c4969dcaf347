// Sequences of a batch in the workspace, and numbers with an exponent of their own.

// Owner: src/fused/sequence/space.rs; a test compares the offsets.
struct Sequences {
    // Sequences of the batch; of this dispatch, the first and the number.
    all: u32,
    first: u32,
    count: u32,
    // Frames, labels and classes that the tensors have room for, and the blank's class.
    frames: u32,
    labels: u32,
    classes: u32,
    blank: u32,
    // Words of one frame's states in `alpha` and in `beta`, and of one row's probabilities in `gathered`.
    state_words: u32,
    gathered_words: u32,
    // First words in `work`: per sequence its head, labels, and links between equal labels; per frame whether it is padding;
    // per row of this dispatch its gathered probabilities and its maximum with the inverse of its sum; states.
    heads: u32,
    labels_at: u32,
    links: u32,
    padding: u32,
    gathered: u32,
    rows: u32,
    alpha: u32,
    beta: u32,
    // States of the frame before, where workgroup memory does not hold them, and their checkpoint between dispatches.
    carried: u32,
    checkpoint: u32,
    // Of the dispatches that pass a lattice one after the other, the number and this one's index; frames of each.
    segments: u32,
    segment: u32,
    segment_frames: u32,
    // Scores that all sequences have in common, and sums of them per sequence.
    scores: u32,
    reserved0: u32,
}

// Words of a head: the sequence's frames and labels, the weight of its loss, and its loss.
const HEAD: u32 = 4u;
const HEAD_FRAMES: u32 = 0u;
const HEAD_LABELS: u32 = 1u;
const HEAD_WEIGHT: u32 = 2u;
const HEAD_LOSS: u32 = 3u;

// A link of a label: the index of the next equal label plus 1 (0: none), and whether an earlier label, and whether the label
// before it, is equal.
const LINK_NEXT: u32 = 0x3fffffffu;
const LINK_BEFORE: u32 = 0x40000000u;
const LINK_EARLIER: u32 = 0x80000000u;

// m·2^e, where m = 0 or 1 ≤ m < 2 and e is an integer: products of thousands of probabilities neither underflow nor lose
// digits, as their logarithms would in f32.
struct Scaled { m: f32, e: f32 }

fn zero() -> Scaled { return Scaled(0.0, LOWEST); }
fn one() -> Scaled { return Scaled(1.0, 0.0); }

// 2^d for an integer d ≤ 127; 0 below −126. A compiler may add 127.0 to a term of d first, which loses it beyond 2²⁴.
fn power_of_two(d: f32) -> f32 {
    return bitcast<f32>(u32(max(i32(d), -127) + 127) << 23u);
}

// m·2^e for a normal m > 0, or 0.
fn scaled(m: f32, e: f32) -> Scaled {
    let bits = bitcast<u32>(m);
    let exponent = f32(i32((bits >> 23u) & 0xffu) - 127);
    let mantissa = bitcast<f32>((bits & 0x7fffffu) | 0x3f800000u);
    let is_zero = bits << 1u == 0u;
    return Scaled(select(mantissa, 0.0, is_zero), select(e + exponent, LOWEST, is_zero));
}

fn times(a: Scaled, b: Scaled) -> Scaled {
    return scaled(a.m * b.m, max(a.e + b.e, -1e38));
}

fn plus(a: Scaled, b: Scaled) -> Scaled {
    let e = max(a.e, b.e);
    return scaled(a.m * power_of_two(a.e - e) + b.m * power_of_two(b.e - e), e);
}

// e^x for x < ∞. Beyond 2²², whose neighbours in f32 are half a unit apart, the power of two nearest to it.
fn scaled_exp(x: f32) -> Scaled {
    let a = max(x, -1e30);
    let n = round(a * 1.44269502);
    let m = select(math_exp_poly(math_minus_n_ln2(a, n)), 1.0, abs(a) > 4194304.0);
    return scaled(select(m, 0.0, (bitcast<u32>(x) & MAGNITUDE) == INF_BITS), n);
}

// ln(m·2^e) for m > 0.
fn scaled_log(a: Scaled) -> f32 {
    // 355/512 has nine bits: its product with an exponent below 2¹⁵ is exact.
    return a.e * 0.693359375 + (a.e * -2.12194440e-4 + math_log(a.m));
}

// a·b/c where that is a probability; 0 where c is. Of exponents beyond 2²⁴, which are rounded, it is one too.
fn scaled_share(a: Scaled, b: Scaled, c: Scaled) -> f32 {
    let share = a.m * b.m / c.m * power_of_two(min(a.e + b.e - c.e, 127.0));
    return select(min(share, 1.0), 0.0, a.m == 0.0 || b.m == 0.0 || c.m == 0.0);
}

// Where a state of alpha (0) or beta (1) of a sequence rests between dispatches.
fn checkpoint_at(n: u32, direction: u32, state: u32) -> u32 {
    return sequences.checkpoint + (2u * (n - sequences.first) + direction) * sequences.state_words + 2u * state;
}

fn is_nan_bits(bits: u32) -> bool {
    return (bits & MAGNITUDE) > INF_BITS;
}

fn load_scaled(at: u32) -> Scaled {
    return Scaled(bitcast<f32>(work[at]), bitcast<f32>(work[at + 1u]));
}

fn store_scaled(at: u32, a: Scaled) {
    work[at] = bitcast<u32>(a.m);
    work[at + 1u] = bitcast<u32>(a.e);
}
