// What the lanes of runs of `step` lanes leave, of runs of twice as many.
fn scan0_double(s: Scan0Lanes, thread: u32, step: u32) -> Scan0Lanes {
    let other = scan0_partner(s.all, thread, step);
    if (((thread & step) != 0u) != SCAN0_REVERSE) {
        return Scan0Lanes(scan0_combine(other, s.before), scan0_combine(other, s.all));
    }
    return Scan0Lanes(s.before, scan0_combine(s.all, other));
}
// Combines what SCAN0_DOUBLED lanes leave, in the order of the scan. No loop: a software adapter would count its iterations.
fn scan0_doubled(mine: Scan0, thread: u32) -> Scan0Lanes {
    var s = Scan0Lanes(scan0_identity(), mine);
    if (SCAN0_DOUBLED > 1u) { s = scan0_double(s, thread, 1u); }
    if (SCAN0_DOUBLED > 2u) { s = scan0_double(s, thread, 2u); }
    if (SCAN0_DOUBLED > 4u) { s = scan0_double(s, thread, 4u); }
    if (SCAN0_DOUBLED > 8u) { s = scan0_double(s, thread, 8u); }
    if (SCAN0_DOUBLED > 16u) { s = scan0_double(s, thread, 16u); }
    if (SCAN0_DOUBLED > 32u) { s = scan0_double(s, thread, 32u); }
    if (SCAN0_DOUBLED > 64u) { s = scan0_double(s, thread, 64u); }
    if (SCAN0_DOUBLED > 128u) { s = scan0_double(s, thread, 128u); }
    if (SCAN0_DOUBLED > 256u) { s = scan0_double(s, thread, 256u); }
    if (SCAN0_DOUBLED > 512u) { s = scan0_double(s, thread, 512u); }
    return s;
}
