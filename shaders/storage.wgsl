// 16-bit storage, two to a word, lower half first. f32 bits in and out; narrowing rounds to nearest, ties to even,
// in integers: what pack2x16float does with halves between, or with ∞, is the driver's choice.
fn widen_f16(word: u32, index: u32) -> u32 {
    return bitcast<u32>(unpack2x16float(word >> (16u * (index & 1u))).x);
}

fn widen4_f16(words: vec2<u32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)));
}

fn widen_bf16(word: u32, index: u32) -> u32 {
    return (word >> (16u * (index & 1u))) << 16u;
}

fn widen4_bf16(words: vec2<u32>) -> vec4<u32> {
    let high = vec2<u32>(0xffff0000u);
    return vec4<u32>(words << vec2<u32>(16u), words & high).xzyw;
}

fn narrow4_f16(bits: vec4<u32>) -> vec4<u32> {
    let a = bits & vec4<u32>(MAGNITUDE);
    let normal = (a - vec4<u32>(0x38000000u) + vec4<u32>(0xfffu) + ((a >> vec4<u32>(13u)) & vec4<u32>(1u))) >> vec4<u32>(13u);
    // Below 2⁻¹⁴: added to 0.5, whose last bit is the smallest half's.
    let small = bitcast<vec4<u32>>(bitcast<vec4<f32>>(a) + vec4<f32>(0.5)) - vec4<u32>(0x3f000000u);
    let finite = select(normal, small, a < vec4<u32>(0x38800000u));
    let large = select(vec4<u32>(0x7c00u), vec4<u32>(0x7e00u), a > vec4<u32>(INF_BITS));
    let half = select(finite, large, a >= vec4<u32>(0x477ff000u));
    return half | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}

fn narrow4_bf16(bits: vec4<u32>) -> vec4<u32> {
    let rounded = (bits + vec4<u32>(0x7fffu) + ((bits >> vec4<u32>(16u)) & vec4<u32>(1u))) >> vec4<u32>(16u);
    return select(rounded, vec4<u32>(0x7fc0u), (bits & vec4<u32>(MAGNITUDE)) > vec4<u32>(INF_BITS));
}

// Four values to two words.
fn pack4_f16(bits: vec4<u32>) -> vec2<u32> {
    let half = narrow4_f16(bits);
    return half.xz | (half.yw << vec2<u32>(16u));
}

fn pack4_bf16(bits: vec4<u32>) -> vec2<u32> {
    let half = narrow4_bf16(bits);
    return half.xz | (half.yw << vec2<u32>(16u));
}

// Four values, none of which is NaN: rounding alone would make some NaN a number.
fn pack4_bf16_numbers(bits: vec4<u32>) -> vec2<u32> {
    let rounded = bits + vec4<u32>(0x7fffu) + ((bits >> vec4<u32>(16u)) & vec4<u32>(1u));
    return (rounded.xz >> vec2<u32>(16u)) | (rounded.yw & vec2<u32>(0xffff0000u));
}

// Where NaN goes through sums: the sum of the four finds it.
fn pack4_bf16_by_sum(bits: vec4<u32>) -> vec2<u32> {
    let values = bitcast<vec4<f32>>(bits);
    let sum = (values.x + values.y) + (values.z + values.w);
    if ((bitcast<u32>(sum) & MAGNITUDE) >= INF_BITS) {
        return pack4_bf16(bits);
    }
    return pack4_bf16_numbers(bits);
}

fn narrow_f16(bits: u32) -> u32 { return narrow4_f16(vec4<u32>(bits)).x; }
fn narrow_bf16(bits: u32) -> u32 { return narrow4_bf16(vec4<u32>(bits)).x; }
