var<workgroup> scan0_parts: array<Scan0, max(WG / SUBGROUP, 1u)>;
// Lanes that are combined by doubling.
const SCAN0_DOUBLED: u32 = min(LANES, SUBGROUP);
// What the lane `step` lanes away leaves, by exchange inside a subgroup.
fn scan0_partner(all: Scan0, thread: u32, step: u32) -> Scan0 { return scan0_exchange(all, step); }
// import scan_doubling
// Combines what a row's lanes leave, in the order of the scan: inside a subgroup by exchange, then the subgroups' through
// workgroup memory.
fn scan0_lanes(mine: Scan0, thread: u32) -> Scan0Lanes {
    let s = scan0_doubled(mine, thread);
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
