@group(0) @binding(6) var<storage, read> label_lengths: array<u32>;
// A padding is 0, or 1.0 past the end.
fn is_bad_padding(bits: u32) -> bool {
    return (bits & MAGNITUDE) != 0u && bits != 0x3f800000u;
}
fn is_padding(n: u32, frame: u32, frames: u32) -> bool {
    let t = tensors.frame_lengths;
    return frame_lengths[t.z + n * t.x + frame * t.y] == 0x3f800000u;
}
// Frames up to the last that is no padding.
fn frames_of(n: u32) -> Length {
    let t = tensors.frame_lengths;
    var found = Length(0u, false);
    for (var frame = 0u; frame < sequences.frames; frame++) {
        found.is_bad |= is_bad_padding(frame_lengths[t.z + n * t.x + frame * t.y]);
        found.value = select(frame + 1u, found.value, is_padding(n, frame, 0u));
    }
    return found;
}
// Labels that are no padding.
fn labels_of(n: u32) -> Length {
    let t = tensors.label_lengths;
    var found = Length(0u, false);
    for (var k = 0u; k < sequences.labels; k++) {
        let bits = label_lengths[t.z + n * t.x + k * t.y];
        found.is_bad |= is_bad_padding(bits);
        found.value += select(1u, 0u, bits == 0x3f800000u);
    }
    return found;
}
