// Adds up the rows' terms of each sum over groups of unequal length, in a fixed order: of a long group the sums of its
// whole blocks of rows, and the terms at both ends.
// Grid: LANES invocations per group, groups strided past the grid limit. Reads the terms work[items_base + sum·count + row]
// and behind them the sums of blocks, `length` per sum; writes work[results_base + slot·segments + group].

// Here `count` are the rows, `length` the blocks, `segments` the groups.
// import span

// hook begin: bindings
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<uniform> span: Span;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;
const WG: u32 = 64u;
const LANES: u32 = 8u;
// Rows of a block, and whether there are sums of blocks.
const BLOCK: u32 = 1024u;
const BLOCKS: bool = true;
fn group_word(word: u32, group: u32) -> u32 { return shape.group_base + word * shape.groups + group; }
// hook end

// hook begin: sums
struct Sums { none: u32, bits0: u32, sum0: f32 }
fn sums_identity() -> Sums { return Sums(0u, 0u, 0.0); }
fn sums_step(s: Sums, row: u32) -> Sums {
    let bits = work[span.items_base + row];
    return Sums(0u, max(s.bits0, bits & MAGNITUDE), s.sum0 + bitcast<f32>(bits));
}
fn blocks_step(s: Sums, block: u32) -> Sums {
    let bits = work[span.items_base + span.count + block];
    return Sums(0u, max(s.bits0, bits & MAGNITUDE), s.sum0 + bitcast<f32>(bits));
}
fn sums_combine(a: Sums, b: Sums) -> Sums { return Sums(0u, max(a.bits0, b.bits0), a.sum0 + b.sum0); }
fn sums_store(s: Sums, group: u32, count_bits: u32) {
    work[span.results_base + group] = store_bits(s.sum0, max(s.bits0, count_bits) > INF_BITS);
}
// hook end

const GROUPS: u32 = WG / LANES;
// Steps of a lane whose terms are added by themselves first: sums of long runs would lose digits.
const RUN: u32 = 32u;
var<workgroup> lanes: array<Sums, WG>;

// Adds the terms of the rows (of blocks, their sums) from `first` to `end`, one in LANES.
fn add(before: Sums, first: u32, end: u32, are_blocks: bool) -> Sums {
    var s = before;
    for (var start = first; start < end; start += RUN * LANES) {
        var run = sums_identity();
        let stop = min(end, start + RUN * LANES);
        for (var k = start; k < stop; k += LANES) {
            if (are_blocks) {
                run = blocks_step(run, k);
            } else {
                run = sums_step(run, k);
            }
        }
        s = sums_combine(s, run);
    }
    return s;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let lane = thread % LANES;
    for (var first_group = workgroup.x * GROUPS; first_group < span.segments; first_group += workgroups.x * GROUPS) {
        // Phase 1: each lane's terms. Past the last group a lane repeats it, and writes nothing.
        let own = first_group + thread / LANES;
        let group = min(own, span.segments - 1u);
        let first = work[group_word(0u, group)];
        let end = work[group_word(1u, group)];
        var s = sums_identity();
        let first_block = (first + BLOCK - 1u) / BLOCK;
        let end_block = end / BLOCK;
        if (BLOCKS && first_block < end_block) {
            s = add(s, first + lane, first_block * BLOCK, false);
            s = add(s, first_block + lane, end_block, true);
            s = add(s, end_block * BLOCK + lane, end, false);
        } else {
            s = add(s, first + lane, end, false);
        }
        // Phase 2: lanes of one group, in a fixed order.
        lanes[thread] = s;
        workgroupBarrier(); // all lanes have written before any is read
        for (var step = LANES / 2u; step > 0u; step >>= 1u) {
            if (lane < step) {
                lanes[thread] = sums_combine(lanes[thread], lanes[thread + step]);
            }
            workgroupBarrier(); // this step is written before the next one reads it
        }
        // Phase 3: the result.
        if (lane == 0u && own < span.segments) {
            sums_store(lanes[thread], group, work[group_word(2u, group)] & MAGNITUDE);
        }
        workgroupBarrier(); // the result is read before the next group writes
    }
}
