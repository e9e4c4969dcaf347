// A stable sort of a row by its lanes: DIGIT_BITS of the keys per pass, least significant first, in an even number of passes.
// Each lane takes a run of neighbouring elements, counts their digits, and after a sum over digits and lanes moves each
// element to its place.

// hook begin: digits
const DIGIT_BITS: u32 = 4u;
// hook end
const DIGITS: u32 = 1u << DIGIT_BITS;
// The counts of a row, digit by digit, each lane by lane; then the places before them.
var<workgroup> sort_counts: array<u32, DIGITS * WG>;
// What lanes have counted.
var<workgroup> sort_sums: array<u32, WG>;

// A key whose order as an integer is that of numbers; −0 and 0 are equal.
fn sort_key(bits: u32) -> u32 {
    let plain = select(bits, 0u, (bits & MAGNITUDE) == 0u);
    return plain ^ select(0x80000000u, 0xffffffffu, (plain & 0x80000000u) != 0u);
}

// Sorts the row's keys, with their columns: `work` has four runs of `stride` words from `first` on, keys and columns, and
// again keys and columns, to which each second pass moves them.
fn sort_row(first: u32, stride: u32, thread: u32) {
    let lane = thread % LANES;
    let counts = (thread - lane) * DIGITS;
    let each = (shape.cols + LANES - 1u) / LANES;
    let begin = min(lane * each, shape.cols);
    let end = min(begin + each, shape.cols);
    for (var shift = 0u; shift < 32u; shift += DIGIT_BITS) {
        let is_second = (shift / DIGIT_BITS) % 2u != 0u;
        let source = first + select(0u, 2u * stride, is_second);
        let moved = first + select(2u * stride, 0u, is_second);
        for (var digit = 0u; digit < DIGITS; digit++) {
            sort_counts[counts + digit * LANES + lane] = 0u;
        }
        for (var k = begin; k < end; k++) {
            sort_counts[counts + ((work[source + k] >> shift) % DIGITS) * LANES + lane] += 1u;
        }
        workgroupBarrier(); // all lanes have counted
        // Each lane sums neighbouring counts.
        var sum = 0u;
        for (var k = 0u; k < DIGITS; k++) {
            sum += sort_counts[counts + lane * DIGITS + k];
        }
        var all = sum;
        for (var step = 1u; step < LANES; step <<= 1u) {
            sort_sums[thread] = all;
            workgroupBarrier(); // all lanes have written before any is read
            if (lane >= step) {
                all += sort_sums[thread - step];
            }
            workgroupBarrier(); // every lane has read before the next step is written
        }
        var before = all - sum;
        for (var k = 0u; k < DIGITS; k++) {
            let count = sort_counts[counts + lane * DIGITS + k];
            sort_counts[counts + lane * DIGITS + k] = before;
            before += count;
        }
        workgroupBarrier(); // all places are known
        for (var k = begin; k < end; k++) {
            let key = work[source + k];
            let cell = counts + ((key >> shift) % DIGITS) * LANES + lane;
            let place = sort_counts[cell];
            sort_counts[cell] = place + 1u;
            work[moved + place] = key;
            work[moved + stride + place] = work[source + stride + k];
        }
        storageBarrier(); // all elements are moved before any is read
    }
}
