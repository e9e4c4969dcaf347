var<workgroup> stage0_lanes: array<Stage0, WG>;
// Combines the states of a row's lanes, in a fixed order, through workgroup memory; every lane gets the result.
fn stage0_gather(mine: Stage0, thread: u32) -> Stage0 {
    stage0_lanes[thread] = mine;
    workgroupBarrier(); // all lanes have written before any is read
    let lane = thread % LANES;
    for (var step = LANES / 2u; step > 0u; step >>= 1u) {
        if (lane < step) {
            stage0_lanes[thread] = stage0_combine(stage0_lanes[thread], stage0_lanes[thread + step]);
        }
        workgroupBarrier(); // this step is written before the next one reads it
    }
    let all = stage0_lanes[thread - lane];
    workgroupBarrier(); // every lane has read before the next row writes
    return all;
}
