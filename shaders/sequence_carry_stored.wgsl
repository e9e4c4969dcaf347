// States of the frame before, and those of this one, of a lattice that workgroup memory does not hold.
var<private> carry_first: u32;
fn begin(sequence: u32, direction: u32) {
    carry_first = sequences.carried + 2u * (2u * sequence + direction) * sequences.state_words;
}
fn carry(half: u32, state: u32, a: Scaled) {
    store_scaled(carry_first + half * sequences.state_words + 2u * state, a);
}
fn carried_state(half: u32, state: u32) -> Scaled {
    return load_scaled(carry_first + half * sequences.state_words + 2u * state);
}
fn exchange() {
    storageBarrier(); // all states of a frame are written before the next frame reads them
}
// import sequence_checkpoint
