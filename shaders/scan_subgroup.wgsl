var<workgroup> scan0_parts: array<Scan0, max(WG / SUBGROUP, 1u)>;
// Combines what a row's lanes leave, in the order of the scan: inside a subgroup by exchange, then the subgroups' through
// workgroup memory.
fn scan0_lanes(mine: Scan0, thread: u32) -> Scan0Lanes {
    var before = scan0_identity();
    var all = mine;
    for (var step = 1u; step < min(LANES, SUBGROUP); step <<= 1u) {
        let other = scan0_exchange(all, step);
        if (((thread & step) != 0u) != SCAN0_REVERSE) {
            before = scan0_combine(other, before);
            all = scan0_combine(other, all);
        } else {
            all = scan0_combine(all, other);
        }
    }
    if (LANES > SUBGROUP) {
        if (thread % SUBGROUP == 0u) {
            scan0_parts[thread / SUBGROUP] = all;
        }
        workgroupBarrier(); // all subgroups have written before any is read
        let first = thread / LANES * (LANES / SUBGROUP);
        let own = thread / SUBGROUP - first;
        var earlier = scan0_identity();
        var whole = scan0_identity();
        for (var k = 0u; k < LANES / SUBGROUP; k++) {
            let part = select(k, LANES / SUBGROUP - 1u - k, SCAN0_REVERSE);
            if (part == own) {
                earlier = whole;
            }
            whole = scan0_combine(whole, scan0_parts[first + part]);
        }
        before = scan0_combine(earlier, before);
        all = whole;
        workgroupBarrier(); // every lane has read before the next step is written
    }
    return Scan0Lanes(before, all);
}
