var<workgroup> scan0_parts: array<Scan0, WG>;
// Combines what a row's lanes leave, in the order of the scan, through workgroup memory.
fn scan0_lanes(mine: Scan0, thread: u32) -> Scan0Lanes {
    var before = scan0_identity();
    var all = mine;
    for (var step = 1u; step < LANES; step <<= 1u) {
        scan0_parts[thread] = all;
        workgroupBarrier(); // all lanes have written before any is read
        let other = scan0_parts[thread ^ step];
        workgroupBarrier(); // every lane has read before the next step is written
        if (((thread & step) != 0u) != SCAN0_REVERSE) {
            before = scan0_combine(other, before);
            all = scan0_combine(other, all);
        } else {
            all = scan0_combine(all, other);
        }
    }
    return Scan0Lanes(before, all);
}
