var<workgroup> stage0_parts: array<Stage0, max(WG / SUBGROUP, 1u)>;
// Combines the states of a row's lanes, in a fixed order: inside a subgroup by exchange, then, where a row has more
// lanes, through workgroup memory. Every lane gets the result.
fn stage0_gather(mine: Stage0, thread: u32) -> Stage0 {
    var all = mine;
    for (var step = 1u; step < min(LANES, SUBGROUP); step <<= 1u) {
        let other = stage0_exchange(all, step);
        // The lower lane's state comes first, so that all lanes get the same bits.
        if ((thread & step) == 0u) {
            all = stage0_combine(all, other);
        } else {
            all = stage0_combine(other, all);
        }
    }
    if (LANES > SUBGROUP) {
        if (thread % SUBGROUP == 0u) {
            stage0_parts[thread / SUBGROUP] = all;
        }
        workgroupBarrier(); // all subgroups have written before any is read
        let first = thread / LANES * (LANES / SUBGROUP);
        all = stage0_parts[first];
        for (var part = 1u; part < LANES / SUBGROUP; part++) {
            all = stage0_combine(all, stage0_parts[first + part]);
        }
        workgroupBarrier(); // every lane has read before the next row writes
    }
    return all;
}
