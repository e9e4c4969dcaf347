// Single elements (or rows without their columns): read once, write once, no reduction inside a row.
// Grid: any number of workgroups; each takes a run of steps of WIDTH items, the first one also what is left at the ends.
// Reads the inputs at each item, writes the outputs there, and per workgroup one partial of each sum over everything:
// work[sum * sum_groups + first_group + group]; behind them each row's value of each sum over groups.

// hook begin: bindings
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read_write> work: array<u32>;
@group(0) @binding(2) var<storage, read_write> output0: array<u32>;
const WG: u32 = 64u;
const WIDTH: u32 = 1u;
const SUMS: u32 = 1u;
// Windows of steps that may not be wholly inside: of the first one, which then begins early, and of the last one.
const ENDS: u32 = 0u;
// Items that a lane may load at once.
const AHEAD: u32 = 1u;
// Whether NaN is looked for once a run, in its sums: a run that may have one is taken again, with a look at each item.
const BY_RUN: bool = false;
// hook end

// hook begin: items
struct Outer { one: f32 }
struct Sums { bits: u32, sum0: f32 }
struct LaneSums { bits: u32, sum0: f32 }
fn outer_begin() -> Outer { return Outer(1.0); }
fn early(o: Outer) -> u32 { return 0u; }
fn sums_identity(o: Outer) -> LaneSums { return LaneSums(0u, 0.0); }
fn item(o: Outer, s: LaneSums, first: u32) -> LaneSums {
    output0[first] = bitcast<u32>(o.one);
    return LaneSums(s.bits, s.sum0 + o.one);
}
fn item_looked(o: Outer, s: LaneSums, first: u32) -> LaneSums { return item(o, s, first); }
fn needs_looks(o: Outer, s: LaneSums) -> bool { return false; }
fn item_end(o: Outer, s: LaneSums, first: u32) -> LaneSums { return item(o, s, first); }
fn sums_add(a: LaneSums, b: LaneSums) -> LaneSums { return LaneSums(max(a.bits, b.bits), a.sum0 + b.sum0); }
fn sums_narrow(s: LaneSums) -> Sums { return Sums(s.bits, s.sum0); }
fn sums_combine(a: Sums, b: Sums) -> Sums { return Sums(max(a.bits, b.bits), a.sum0 + b.sum0); }
fn sums_store(s: Sums, group: u32, groups: u32) {
    work[group] = store_bits(s.sum0, s.bits > INF_BITS);
}
// hook end

// import ends

const BLOCK: u32 = 32u;
var<workgroup> lanes: array<Sums, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Phase 1: items.
    let o = outer_begin();
    // What is not whole steps comes last.
    let ahead = early(o);
    let begin = min(whole_from(ahead), shape.items);
    let count = (shape.items - begin) / WIDTH;
    var s = sums_identity(o);
    // Each workgroup has a run of its own, so that neighbouring accesses follow each other.
    let length = (count + groups.x - 1u) / groups.x;
    let end = min((group.x + 1u) * length, count);
    for (var first = group.x * length + lane; first < end; first += BLOCK * WG) {
        // Sums of short runs are added to each other: long runs would lose digits.
        var run = sums_identity(o);
        let stop = min(first + BLOCK * WG, end);
        for (var i = first; i < stop; i += AHEAD * WG) {
            for (var k = 0u; k < AHEAD; k++) {
                if (k == 0u || i + k * WG < stop) {
                    run = item(o, run, begin + (i + k * WG) * WIDTH);
                }
            }
        }
        if (BY_RUN && needs_looks(o, run)) {
            run = sums_identity(o);
            for (var i = first; i < stop; i += WG) {
                run = item_looked(o, run, begin + i * WIDTH);
            }
        }
        s = sums_add(s, run);
    }
    if (group.x == 0u) {
        for (var k = lane; k < ENDS; k += WG) {
            let first = window_at_end(ahead, shape.items, k);
            if (first != shape.items) {
                s = item_end(o, s, first);
            }
        }
    }
    // hook begin: seen
    // hook end
    // Phase 2: this workgroup's partial sums, in a fixed order.
    if (SUMS > 0u) {
        lanes[lane] = sums_narrow(s);
        workgroupBarrier(); // all lanes have written before any is read
        for (var half = WG / 2u; half > 0u; half >>= 1u) {
            if (lane < half) {
                lanes[lane] = sums_combine(lanes[lane], lanes[lane + half]);
            }
            workgroupBarrier(); // this step is written before the next one reads it
        }
        if (lane == 0u) {
            sums_store(lanes[0], shape.first_group + group.x, shape.sum_groups);
        }
    }
}
