//! Values of small tensors.

/// Uniform in 0..1.
pub fn random(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| next()).collect()
}

/// Uniform in -3..3.
pub fn logits(count: usize) -> Vec<f32> {
    random(count, 1).iter().map(|v| v * 6.0 - 3.0).collect()
}

pub fn labels(rows: usize, cols: usize) -> Vec<i32> {
    (0..rows).map(|row| (row * 7919 % cols) as i32).collect()
}
