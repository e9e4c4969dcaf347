// States of the frame before, and those of this one: `half` is 0 or 1. They need `WG` and `STATES`.
var<workgroup> carried: array<Scaled, 2u * STATES>;
fn begin(sequence: u32, direction: u32) {}
fn carry(half: u32, state: u32, a: Scaled) {
    carried[half * STATES + state] = a;
}
fn carried_state(half: u32, state: u32) -> Scaled {
    return carried[half * STATES + state];
}
fn exchange() {
    workgroupBarrier(); // all states of a frame are written before the next frame reads them
}
// import sequence_checkpoint
