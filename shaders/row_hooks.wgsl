// The hooks of the row skeletons, and stubs that compute the sum of each row and write it over the row.

// hook begin: bindings
@group(0) @binding(0) var<uniform> shape: Shape;
@group(0) @binding(1) var<storage, read_write> work: array<u32>;
@group(0) @binding(2) var<storage, read_write> input0: array<u32>;
@group(0) @binding(3) var<storage, read_write> output0: array<u32>;
const WG: u32 = 64u;
// Lanes that share a row, and the lanes of a subgroup at least.
const LANES: u32 = 64u;
const SUBGROUP: u32 = 4u;
const WIDTH: u32 = 1u;
const TRIPS: u32 = 4u;
// Whether a workgroup takes more than one row: on a CPU the loop alone costs 8% of a cross-entropy.
const STRIDED: bool = true;
// Whether what a lane takes begins before the row, aligned to as much memory; then the windows of what is not wholly
// the row's, at its beginning and its end, have hooks of their own, that mask.
const EARLY: bool = false;
// Whether rows have as many columns as the kernel is made for.
const EXACT: bool = true;
const ENDS: u32 = 0u;
// Steps that a lane of a streamed row loads before it writes the first.
const AHEAD: u32 = 4u;
// hook end

// hook begin: row
struct RowValues { bits: u32, row: u32, base0: u32, early: u32, sum: f32 }
struct Window { x0: u32 }
// What is loaded at a time, perhaps packed.
struct Fetched { x0: u32 }
fn window(fetched: Fetched) -> Window { return Window(fetched.x0); }
fn outer_begin() -> RowValues { return RowValues(0u, 0u, 0u, 0u, 0.0); }
fn row_place(outer: RowValues, row: u32) -> RowValues {
    return RowValues(outer.bits, shape.first_item + row, row * shape.cols, 0u, 0.0);
}
// What the row knows before its elements, labels and gathers included.
fn row_values(r: RowValues) -> RowValues { return r; }
// Whether a gradient is stored over an input, and whether the first stage needs none of the row's values.
const IN_PLACE: bool = false;
const LATE: bool = false;
fn fetch(r: RowValues, col: u32) -> Fetched { return Fetched(input0[r.base0 + col]); }
fn fetch_end(r: RowValues, col: u32) -> Window { return window(fetch(r, col)); }
// hook end

// repeat begin: stage
// hook begin: stage0
struct Stage0 { bits: u32, sum: f32 }
struct LaneStage0 { bits: u32, sum: f32, run: f32 }
fn stage0_identity() -> LaneStage0 { return LaneStage0(0u, 0.0, 0.0); }
fn stage0_step(s: LaneStage0, r: RowValues, fetched: Fetched, col: u32) -> LaneStage0 {
    return stage0_end(s, r, window(fetched), col);
}
fn stage0_end(s: LaneStage0, r: RowValues, f: Window, col: u32) -> LaneStage0 {
    return LaneStage0(max(s.bits, f.x0 & MAGNITUDE), s.sum, s.run + bitcast<f32>(f.x0));
}
fn stage0_end_run(s: LaneStage0) -> LaneStage0 { return LaneStage0(s.bits, s.sum + s.run, 0.0); }
fn stage0_run(r: RowValues, begin: u32, last: i32) -> LaneStage0 {
    var s = stage0_identity();
    for (var col = begin; i32(col) <= last; col += LANES * WIDTH) {
        s = stage0_end_run(stage0_step(s, r, fetch(r, col), col));
    }
    return s;
}
fn stage0_kept(r: RowValues, s: LaneStage0) -> RowValues { return r; }
fn stage0_narrow(s: LaneStage0) -> Stage0 { return Stage0(s.bits, s.sum + s.run); }
fn stage0_exchange(s: Stage0, step: u32) -> Stage0 { return s; }
fn stage0_combine(a: Stage0, b: Stage0) -> Stage0 { return Stage0(max(a.bits, b.bits), a.sum + b.sum); }
fn stage0_finish(r: RowValues, mine: Stage0, s: Stage0) -> RowValues { return RowValues(max(r.bits, s.bits), r.row, r.base0, r.early, s.sum); }
fn stage0_save(s: Stage0, first: u32) {
    work[first] = s.bits;
    work[first + 1u] = bitcast<u32>(s.sum);
}
fn stage0_load(first: u32) -> Stage0 { return Stage0(work[first], bitcast<f32>(work[first + 1u])); }
const STAGE0_INDEX: u32 = 0u;
// Whether states combine to the same bits in either order.
const STAGE0_COMMUTES: bool = true;
// Whether a kernel that holds its rows writes the elements in this stage.
const STAGE0_WRITES: bool = false;
// of repeat
// Of a trip that runs again: before its first step, whether a step is left to do, and after the last one.
fn stage0_begin(r: RowValues) -> RowValues { return r; }
fn stage0_is_open(r: RowValues) -> bool { return false; }
fn stage0_close(r: RowValues) -> RowValues { return r; }
// of stage
// hook end
// import gather
// of repeat
// import again
// repeat end

// hook begin: outputs
fn write_elements(r: RowValues, fetched: Fetched, col: u32) {
    output0[r.base0 + col] = bitcast<u32>(r.sum);
}
// Whether a stage has written them, as they are in a row of numbers.
const WRITTEN: bool = false;
// Whether rows that have no NaN among their element outputs are written in a way of their own, and whether a row is one.
const NUMBERS: bool = true;
fn has_numbers(r: RowValues) -> bool { return true; }
fn write_numbers(r: RowValues, fetched: Fetched, col: u32) { write_elements(r, fetched, col); }
fn write_end(r: RowValues, f: Window, col: u32) { write_elements(r, Fetched(f.x0), col); }
// A row whose elements are all NaN (or all 0), and a step of it.
fn is_constant(r: RowValues) -> bool { return r.bits > INF_BITS; }
fn write_constant(r: RowValues, first: u32) { output0[r.base0 + first] = NAN_BITS; }
// The column that the lane that has its step writes once more, after the row; beyond the row if there is none.
fn label_col(r: RowValues) -> u32 { return 0xffffffffu; }
fn write_label(r: RowValues) {}
fn write_row(r: RowValues) {
    work[r.row] = store_bits(r.sum, r.bits > INF_BITS);
}
// hook end

// A row before its elements.
fn row_begin(outer: RowValues, row: u32) -> RowValues {
    return row_values(row_place(outer, row));
}

// Steps of a lane whose terms are added by themselves first: sums of long runs would lose digits.
const RUN: u32 = 32u;

// Rows that a workgroup has in hand at a time.
const ROWS: u32 = WG / LANES;

// The row of a lane, when the workgroup's first is `first`. Past the last row a lane repeats it, and writes nothing.
// `rows` is `shape.items`, read before the loop.
fn row_of(first: u32, thread: u32, rows: u32) -> u32 {
    return min(first + thread / LANES, rows - 1u);
}

// Whether that lane has a row of its own, and writes.
fn is_live(first: u32, thread: u32, rows: u32) -> bool {
    return ROWS == 1u || first + thread / LANES < rows;
}

// Where the first step of a row begins: early, a column below 0 in two's complement.
fn first_col(r: RowValues) -> u32 {
    return select(0u, 0u - r.early, EARLY);
}

// Where its first whole step begins.
fn first_whole(r: RowValues) -> u32 {
    return select(0u, whole_from(r.early), EARLY);
}

// Where a window at one of its ends begins.
fn end_col(r: RowValues, end: u32) -> u32 {
    return window_at_end(r.early, shape.cols, end);
}

// Whether a lane has the whole step that holds the label's column, steps beginning at `begin`; `last` is the column where
// the last one may begin.
fn has_label(r: RowValues, begin: u32, lane: u32, last: i32) -> bool {
    let col = label_col(r);
    let step = (col - begin) / WIDTH;
    return col >= begin && col < shape.cols && i32(begin + step * WIDTH) <= last && step % LANES == lane;
}

// import ends
