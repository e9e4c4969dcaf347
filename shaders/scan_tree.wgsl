var<workgroup> scan0_parts: array<Scan0, WG>;
// Lanes that are combined by doubling.
const SCAN0_DOUBLED: u32 = LANES;
// What the lane `step` lanes away leaves, through workgroup memory.
fn scan0_partner(all: Scan0, thread: u32, step: u32) -> Scan0 {
    scan0_parts[thread] = all;
    workgroupBarrier(); // all lanes have written before any is read
    let other = scan0_parts[thread ^ step];
    workgroupBarrier(); // every lane has read before the next step is written
    return other;
}
// import scan_doubling
// Combines what a row's lanes leave, in the order of the scan, through workgroup memory.
fn scan0_lanes(mine: Scan0, thread: u32) -> Scan0Lanes { return scan0_doubled(mine, thread); }
