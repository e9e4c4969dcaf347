// The hooks of scans along a row, and stubs that compute the cumulative sum of each row.
//
// A row's windows of WIDTH columns are numbered from the one that holds column 0, which may begin before the row; window
// k belongs to lane k % LANES in every trip. Those that reach past an end of the row are masked.

// hook begin: scanned
// A masked window with what the scans have left in it.
fn with_scans(window: Window, held: Fetched) -> Window { return Window(held.x0); }
// Whether a value is written for every column.
const ELEMENTS: bool = true;
// hook end

// Whether a window that begins at `col` lies in the row; `last` is the column where the last one may begin.
fn is_whole(col: u32, last: i32) -> bool {
    return i32(col) <= last && (!EARLY || i32(col) >= 0);
}

// Whether it is the row's in part.
fn is_end(col: u32, last: i32) -> bool {
    return EARLY && !is_whole(col, last) && i32(col) < last + i32(WIDTH);
}

// Where the lane's first (k = 0) or last (k = 1) window begins that is the row's in part; past the row if there is none.
fn own_end(r: RowValues, lane: u32, last: i32, k: u32) -> u32 {
    let number = select(0u, (shape.cols + r.early) / WIDTH, k == 1u);
    let col = first_col(r) + number * WIDTH;
    let is_own = number % LANES == lane && is_end(col, last) && (k == 0u || number > 0u);
    return select(shape.cols, col, is_own);
}

// Where the lane's first window begins that lies in the row.
fn own_first(r: RowValues, lane: u32) -> u32 {
    let col = first_col(r) + lane * WIDTH;
    return select(col, col + LANES * WIDTH, EARLY && i32(col) < 0);
}

// Whether the lane has the whole window that holds the label's column.
fn has_label_window(r: RowValues, lane: u32, last: i32) -> bool {
    let col = label_col(r);
    let number = (col - first_col(r)) / WIDTH;
    return col < shape.cols && is_whole(first_col(r) + number * WIDTH, last) && number % LANES == lane;
}

// repeat begin: scan
// hook begin: scan0
struct Scan0 { v: f32 }
// What a scan reads in a step.
struct Scanned0 { x: f32 }
const SCAN0_REVERSE: bool = false;
fn scan0_identity() -> Scan0 { return Scan0(0.0); }
// `a` comes before `b` in the order of the scan.
fn scan0_combine(a: Scan0, b: Scan0) -> Scan0 { return Scan0(a.v + b.v); }
fn scan0_exchange(s: Scan0, step: u32) -> Scan0 { return s; }
fn scan0_operands(r: RowValues, fetched: Fetched, col: u32) -> Scanned0 { return Scanned0(bitcast<f32>(fetched.x0)); }
// The same of a masked window: beyond the row, elements that count nothing.
fn scan0_end_operands(r: RowValues, f: Window, col: u32) -> Scanned0 { return Scanned0(bitcast<f32>(f.x0)); }
fn scan0_total(x: Scanned0) -> Scan0 { return Scan0(x.x); }
// A step with what the scan leaves at its columns, after `before`.
fn scan0_fill(fetched: Fetched, x: Scanned0, before: Scan0) -> Fetched {
    return Fetched(bitcast<u32>(before.v + x.x));
}
// Leaves these values in `work`, for later trips of the lane.
fn scan0_leave(r: RowValues, fetched: Fetched, col: u32) { work[r.base0 + col] = fetched.x0; }
// The row's values after the scan.
fn scan0_finish(r: RowValues) -> RowValues { return r; }
// hook end
// What the lanes before this one leave, and what all lanes do.
struct Scan0Lanes { before: Scan0, all: Scan0 }
// import scan
// repeat end
