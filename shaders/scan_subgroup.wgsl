var<workgroup> scan0_parts: array<Scan0, max(WG / SUBGROUP, 1u)>;
// What the lanes of runs of `step` lanes leave, of runs of twice as many, by exchange inside a subgroup.
fn scan0_double(s: Scan0Lanes, thread: u32, step: u32) -> Scan0Lanes {
    let other = scan0_exchange(s.all, step);
    if (((thread & step) != 0u) != SCAN0_REVERSE) {
        return Scan0Lanes(scan0_combine(other, s.before), scan0_combine(other, s.all));
    }
    return Scan0Lanes(s.before, scan0_combine(s.all, other));
}
// Combines what a row's lanes leave, in the order of the scan: inside a subgroup by exchange, then the subgroups' through
// workgroup memory. No loop for the first: a software adapter would count its iterations.
fn scan0_lanes(mine: Scan0, thread: u32) -> Scan0Lanes {
    var s = Scan0Lanes(scan0_identity(), mine);
    let lanes = min(LANES, SUBGROUP);
    if (lanes > 1u) { s = scan0_double(s, thread, 1u); }
    if (lanes > 2u) { s = scan0_double(s, thread, 2u); }
    if (lanes > 4u) { s = scan0_double(s, thread, 4u); }
    if (lanes > 8u) { s = scan0_double(s, thread, 8u); }
    if (lanes > 16u) { s = scan0_double(s, thread, 16u); }
    if (lanes > 32u) { s = scan0_double(s, thread, 32u); }
    if (lanes > 64u) { s = scan0_double(s, thread, 64u); }
    var before = s.before;
    var all = s.all;
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
