var<workgroup> stage0_parts: array<Stage0, max(WG / SUBGROUP, 1u)>;
// Combines the states of lanes that are powers of two below `lanes` apart, by exchange. The lower lane's state comes first
// where the order matters, so that all lanes get the same bits.
fn stage0_exchanged(mine: Stage0, thread: u32, lanes: u32) -> Stage0 {
    var all = mine;
    for (var step = 1u; step < lanes; step <<= 1u) {
        let other = stage0_exchange(all, step);
        if (STAGE0_COMMUTES || (thread & step) == 0u) {
            all = stage0_combine(all, other);
        } else {
            all = stage0_combine(other, all);
        }
    }
    return all;
}
// Combines the states of a row's lanes, in a fixed order: inside a subgroup by exchange; then, where a row has more lanes,
// each subgroup takes all subgroups' states from workgroup memory, one a lane, and exchanges once more. Every lane gets the
// result.
fn stage0_gather(mine: Stage0, thread: u32) -> Stage0 {
    var all = stage0_exchanged(mine, thread, min(LANES, SUBGROUP));
    if (LANES > SUBGROUP) {
        if (thread % SUBGROUP == 0u) {
            stage0_parts[thread / SUBGROUP] = all;
        }
        workgroupBarrier(); // all subgroups have written before any is read
        let first = thread / LANES * (LANES / SUBGROUP);
        let parts = clamp(LANES / SUBGROUP, 1u, SUBGROUP);
        all = stage0_parts[first + thread % parts];
        for (var part = parts; part < LANES / SUBGROUP; part += parts) {
            all = stage0_combine(all, stage0_parts[first + part + thread % parts]);
        }
        all = stage0_exchanged(all, thread, parts);
        if (STRIDED) {
            workgroupBarrier(); // every lane has read before the next row writes
        }
    }
    return all;
}
