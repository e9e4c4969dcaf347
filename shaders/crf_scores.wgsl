// Exponentials of the scores of a linear chain.
fn transition(before: u32, tag: u32) -> Scaled {
    return load_scaled(sequences.scores + 2u * (before * sequences.classes + tag));
}

fn start_score(tag: u32) -> Scaled {
    return load_scaled(sequences.scores + 2u * (sequences.classes * sequences.classes + tag));
}

fn end_score(tag: u32) -> Scaled {
    return load_scaled(sequences.scores + 2u * (sequences.classes * (sequences.classes + 1u) + tag));
}

// Of a NaN or +∞ the mantissa is NaN.
fn emission(n: u32, t: u32, tag: u32) -> Scaled {
    let base = window.base.w + dot(vec3<u32>(n, t, 0u) - window.base.xyz, window.strides.xyz);
    let bits = class_bits(base, tag);
    let p = scaled_exp(bitcast<f32>(bits));
    return Scaled(bitcast<f32>(store_bits(p.m, is_nan_bits(bits) || bits == INF_BITS)), p.e);
}

fn tag_of(n: u32, t: u32) -> u32 {
    return work[sequences.labels_at + n * sequences.labels + t];
}

fn state_at(first: u32, n: u32, t: u32, tag: u32) -> u32 {
    return first + ((n - sequences.first) * sequences.frames + t) * sequences.state_words + 2u * tag;
}

// The sum over all taggings of a sequence.
fn total_of(n: u32) -> Scaled {
    return load_scaled(sequences.rows + 2u * (n - sequences.first) * sequences.frames);
}
