// Sums over the rows for each column, one partial per range of rows: lanes lie ACROSS columns and WG / ACROSS rows, each
// adds up EACH columns of its rows.
// Grid: (tiles of ACROSS·EACH columns, ranges of rows), both strided past the grid limit. Reads inputs[row, 0..cols] once, and
// the row's values; writes work[(sum · sum_groups + range) · classes + col].

// hook begin: bindings
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read_write> work: array<u32>;
@group(0) @binding(2) var<storage, read_write> input0: array<u32>;
const WG: u32 = 64u;
const ACROSS: u32 = 16u;
const EACH: u32 = 2u;
const WIDTH: u32 = 1u;
// hook end

// hook begin: row
struct RowValues { bits: u32, row: u32, base0: u32 }
struct Fetched { x0: u32 }
fn outer_begin() -> RowValues { return RowValues(0u, 0u, 0u); }
fn row_place(outer: RowValues, row: u32) -> RowValues {
    return RowValues(outer.bits, shape.first_item + row, row * shape.cols);
}
fn row_values(r: RowValues) -> RowValues { return r; }
fn fetch(r: RowValues, col: u32) -> Fetched { return Fetched(input0[r.base0 + col]); }
// hook end

// hook begin: columns
struct ColumnSums { bits0: u32, sum0: f32 }
fn columns_identity() -> ColumnSums { return ColumnSums(0u, 0.0); }
fn columns_add(a: ColumnSums, b: ColumnSums) -> ColumnSums {
    return ColumnSums(max(a.bits0, b.bits0), a.sum0 + b.sum0);
}
fn columns_step(s: ColumnSums, r: RowValues, f: Fetched, col: u32) -> ColumnSums {
    return ColumnSums(max(s.bits0, f.x0 & MAGNITUDE), s.sum0 + bitcast<f32>(f.x0));
}
fn columns_store(s: ColumnSums, range: u32, col: u32) {
    work[range * shape.classes + col] = store_bits(s.sum0, s.bits0 > INF_BITS);
}
// hook end

// Rows of a lane whose terms are added by themselves first: sums of long runs would lose digits.
const RUN: u32 = 32u;
const DOWN: u32 = WG / ACROSS;
var<workgroup> lanes: array<ColumnSums, WG>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let outer = outer_begin();
    let across = thread % ACROSS;
    let down = thread / ACROSS;
    // hook begin: range
    let length = (shape.items + groups.y - 1u) / groups.y;
    let first = min(group.y * length, shape.items);
    let end = min(first + length, shape.items);
    // hook end
    let tiles = (shape.cols + ACROSS * EACH - 1u) / (ACROSS * EACH);
    for (var tile = group.x; tile < tiles; tile += groups.x) {
        let begin = tile * ACROSS * EACH + across;
        // Phase 1: each lane's rows.
        var sums: array<ColumnSums, EACH>;
        for (var k = 0u; k < EACH; k++) {
            sums[k] = columns_identity();
        }
        for (var run = first + down; run < end; run += RUN * DOWN) {
            var terms: array<ColumnSums, EACH>;
            for (var k = 0u; k < EACH; k++) {
                terms[k] = columns_identity();
            }
            let stop = min(end, run + RUN * DOWN);
            for (var row = run; row < stop; row += DOWN) {
                let r = row_values(row_place(outer, row));
                for (var k = 0u; k < EACH; k++) {
                    let col = begin + k * ACROSS;
                    if (col < shape.cols) {
                        terms[k] = columns_step(terms[k], r, fetch(r, col), col);
                    }
                }
            }
            for (var k = 0u; k < EACH; k++) {
                sums[k] = columns_add(sums[k], terms[k]);
            }
        }
        // Phase 2: lanes of one column, in a fixed order.
        for (var k = 0u; k < EACH; k++) {
            lanes[thread] = sums[k];
            workgroupBarrier(); // all lanes have written before any is read
            for (var step = DOWN / 2u; step > 0u; step >>= 1u) {
                if (down < step) {
                    lanes[thread] = columns_add(lanes[thread], lanes[thread + step * ACROSS]);
                }
                workgroupBarrier(); // this step is written before the next one reads it
            }
            let col = begin + k * ACROSS;
            if (down == 0u && col < shape.cols) {
                columns_store(lanes[thread], shape.first_split + group.y, shape.first_col + col);
            }
            workgroupBarrier(); // the sum is read before the next column writes
        }
    }
    // hook begin: range_end
    // hook end
}
