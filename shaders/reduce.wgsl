// Adds up the partials of each sum (or of each segment of it), in a fixed order.
// Grid: one workgroup per segment, strided past the grid limit. Reads work[from + sum·count + i] for i in the
// segment; writes work[to + sum·segments + segment], or finishes: scalars and outputs of the whole loss.

// import span

// hook begin: bindings
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<uniform> span: Span;
@group(0) @binding(2) var<storage, read_write> work: array<u32>;
@group(0) @binding(3) var<storage, read_write> scalars: Scalars;
const WG: u32 = 64u;
// hook end

// hook begin: sums
struct Sums { bits0: u32, sum0: f32 }
fn sums_identity() -> Sums { return Sums(0u, 0.0); }
fn sums_step(s: Sums, i: u32) -> Sums {
    let bits = work[span.items_base + i];
    return Sums(max(s.bits0, bits & MAGNITUDE), s.sum0 + bitcast<f32>(bits));
}
fn sums_combine(a: Sums, b: Sums) -> Sums { return Sums(max(a.bits0, b.bits0), a.sum0 + b.sum0); }
fn sums_store(s: Sums, segment: u32) {
    work[span.results_base + segment] = store_bits(s.sum0, s.bits0 > INF_BITS);
}
// Called by one invocation of the last dispatch.
fn finish(s: Sums) {
    scalars.values[0] = store_bits(s.sum0, s.bits0 > INF_BITS);
}
const FINISH: bool = false;
// hook end

// Items that a lane loads at once.
const AHEAD: u32 = 8u;
var<workgroup> lanes: array<Sums, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    for (var segment = group.x; segment < span.segments; segment += groups.x) {
        // Phase 1: each lane's items.
        let end = min((segment + 1u) * span.length, span.count);
        var s = sums_identity();
        var i = segment * span.length + lane;
        for (; i + (AHEAD - 1u) * WG < end; i += AHEAD * WG) {
            for (var k = 0u; k < AHEAD; k++) {
                s = sums_step(s, i + k * WG);
            }
        }
        for (; i < end; i += WG) {
            s = sums_step(s, i);
        }
        // Phase 2: lanes.
        lanes[lane] = s;
        workgroupBarrier(); // all lanes have written before any is read
        for (var step = WG / 2u; step > 0u; step >>= 1u) {
            if (lane < step) {
                lanes[lane] = sums_combine(lanes[lane], lanes[lane + step]);
            }
            workgroupBarrier(); // this step is written before the next one reads it
        }
        // Phase 3: the result.
        if (lane == 0u) {
            if (FINISH) {
                finish(lanes[0]);
            } else {
                sums_store(lanes[0], segment);
            }
        }
        workgroupBarrier(); // the result is read before the next segment writes
    }
}
