// Lengths and labels of sequences, checked and clamped: nothing past a length is looked at.
// Grid: one workgroup per sequence (strided past the grid limit). Reads lengths or paddings, and labels; writes heads, labels,
// links and paddings of frames to work. Sets status words to the lowest element that is out of range.

// import sequence
@group(0) @binding(0) var<uniform> sequences: Sequences;

// Owner: src/fused/sequence/setup.rs; a test compares the offsets.
struct Tensors {
    // Strides along both axes, the first element, and the status word.
    labels: vec4<u32>,
    frame_lengths: vec4<u32>,
    label_lengths: vec4<u32>,
}
@group(0) @binding(1) var<uniform> tensors: Tensors;
@group(0) @binding(2) var<storage, read_write> scalars: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> work: array<u32>;
@group(0) @binding(4) var<storage, read> labels: array<u32>;
@group(0) @binding(5) var<storage, read> frame_lengths: array<u32>;

// hook begin: constants
const WG: u32 = 32u;
// Whether equal labels of a sequence are linked.
const LINKS: bool = true;
// hook end

// A length in range, and whether what the tensor says is out of range.
struct Length { value: u32, is_bad: bool }

// hook begin: lengths
@group(0) @binding(6) var<storage, read> label_lengths: array<u32>;
fn length_of(given: u32, most: u32, word: u32, n: u32) -> Length {
    if (given > most) {
        atomicMin(&scalars[word], n);
    }
    return Length(min(given, most), given > most);
}
fn frames_of(n: u32) -> Length {
    let t = tensors.frame_lengths;
    return length_of(frame_lengths[t.z + n * t.x], sequences.frames, t.w, n);
}
fn labels_of(n: u32) -> Length {
    let t = tensors.label_lengths;
    return length_of(label_lengths[t.z + n * t.x], sequences.labels, t.w, n);
}
fn is_padding(n: u32, frame: u32, frames: u32) -> bool {
    return frame >= frames;
}
// hook end

// hook begin: weight
fn weight(labels: u32) -> f32 { return 1.0; }
// hook end

fn label(n: u32, k: u32) -> u32 {
    return labels[tensors.labels.z + n * tensors.labels.x + k * tensors.labels.y];
}

// Links of a label to those that equal it.
fn link(n: u32, k: u32, count: u32) -> u32 {
    let own = label(n, k);
    var links = 0u;
    for (var j = 0u; j < k; j++) {
        if (label(n, j) == own) {
            links = select(LINK_EARLIER, LINK_EARLIER | LINK_BEFORE, j + 1u == k);
        }
    }
    for (var j = k + 1u; j < count; j++) {
        if (label(n, j) == own) {
            return links | (j + 1u);
        }
    }
    return links;
}

// Whether a lane found a length or a label out of range.
var<workgroup> bad: atomic<u32>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var n = group.x; n < sequences.all; n += groups.x) {
        atomicStore(&bad, 0u);
        workgroupBarrier(); // no lane adds to it before it is 0
        let frames = frames_of(n);
        let count = labels_of(n);
        let is_bad = frames.is_bad || count.is_bad;
        var is_wrong = is_bad;
        for (var k = lane; k < count.value; k += WG) {
            let own = label(n, k);
            if (own >= sequences.classes) {
                // Of a sequence whose length is wrong, the length is told.
                if (!is_bad) {
                    atomicMin(&scalars[tensors.labels.w], n * sequences.labels + k);
                }
                is_wrong = true;
            }
            work[sequences.labels_at + n * sequences.labels + k] = select(0u, own, own < sequences.classes);
            if (LINKS) {
                work[sequences.links + n * sequences.labels + k] = link(n, k, count.value);
            }
        }
        for (var frame = lane; frame < sequences.frames; frame += WG) {
            work[sequences.padding + n * sequences.frames + frame] = u32(is_padding(n, frame, frames.value));
        }
        if (is_wrong) {
            atomicMax(&bad, 1u);
        }
        workgroupBarrier(); // all lanes have told
        if (lane == 0u) {
            let head = sequences.heads + HEAD * n;
            work[head + HEAD_FRAMES] = frames.value;
            work[head + HEAD_LABELS] = count.value;
            work[head + HEAD_WEIGHT] = bitcast<u32>(weight(count.value));
            work[head + HEAD_LOSS] = store_bits(0.0, atomicLoad(&bad) != 0u);
        }
        workgroupBarrier(); // it is read before the next sequence clears it
    }
}
