var<workgroup> scan0_parts: array<Scan0, WG>;
// What the lanes of runs of `step` lanes leave, of runs of twice as many, through workgroup memory.
fn scan0_double(s: Scan0Lanes, thread: u32, step: u32) -> Scan0Lanes {
    scan0_parts[thread] = s.all;
    workgroupBarrier(); // all lanes have written before any is read
    let other = scan0_parts[thread ^ step];
    workgroupBarrier(); // every lane has read before the next step is written
    if (((thread & step) != 0u) != SCAN0_REVERSE) {
        return Scan0Lanes(scan0_combine(other, s.before), scan0_combine(other, s.all));
    }
    return Scan0Lanes(s.before, scan0_combine(s.all, other));
}
// Combines what a row's lanes leave, in the order of the scan. No loop: a software adapter would count its iterations.
fn scan0_lanes(mine: Scan0, thread: u32) -> Scan0Lanes {
    var s = Scan0Lanes(scan0_identity(), mine);
    if (LANES > 1u) { s = scan0_double(s, thread, 1u); }
    if (LANES > 2u) { s = scan0_double(s, thread, 2u); }
    if (LANES > 4u) { s = scan0_double(s, thread, 4u); }
    if (LANES > 8u) { s = scan0_double(s, thread, 8u); }
    if (LANES > 16u) { s = scan0_double(s, thread, 16u); }
    if (LANES > 32u) { s = scan0_double(s, thread, 32u); }
    if (LANES > 64u) { s = scan0_double(s, thread, 64u); }
    if (LANES > 128u) { s = scan0_double(s, thread, 128u); }
    if (LANES > 256u) { s = scan0_double(s, thread, 256u); }
    if (LANES > 512u) { s = scan0_double(s, thread, 512u); }
    return s;
}
