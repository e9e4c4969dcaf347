// Leaves the states of the last frame passed for the next dispatch.
fn save_checkpoint(n: u32, direction: u32, half: u32, lane: u32, states: u32) {
    if (sequences.segments > 1u) {
        for (var state = lane; state < states; state += WG) {
            store_scaled(checkpoint_at(n, direction, state), carried_state(half, state));
        }
    }
}
