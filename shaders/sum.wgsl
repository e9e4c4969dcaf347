// A sum of a workgroup: the largest magnitude of the bits seen, and the sum. It needs `WG`, its invocations.
struct Sum { bits: u32, sum: f32 }

fn combine(a: Sum, b: Sum) -> Sum {
    return Sum(max(a.bits, b.bits), a.sum + b.sum);
}

// Terms of a lane that are added by themselves first: sums of long runs would lose digits.
const RUN: u32 = 32u;

var<workgroup> lanes: array<Sum, WG>;

// The sum of all lanes, in a fixed order; right for lane 0.
fn sum_of_lanes(s: Sum, lane: u32) -> Sum {
    lanes[lane] = s;
    workgroupBarrier(); // all lanes have written before any is read
    for (var step = WG / 2u; step > 0u; step >>= 1u) {
        if (lane < step) {
            lanes[lane] = combine(lanes[lane], lanes[lane + step]);
        }
        workgroupBarrier(); // this step is written before the next one reads it
    }
    return lanes[0];
}
