// The hooks of scans along a row, and stubs that compute the cumulative sum of each row.
//
// A row's windows of WIDTH columns are numbered from the one that holds column 0, which may begin before the row, and belong
// to one lane in all trips. Those that reach past an end of the row are masked.

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

// repeat begin: scan
// hook begin: scan0
struct Scan0 { v: f32 }
// What a scan reads in a step.
struct Scanned0 { x: f32 }
const SCAN0_REVERSE: bool = false;
fn scan0_identity() -> Scan0 { return Scan0(0.0); }
// `a` comes before `b` in the order of the scan.
fn scan0_combine(a: Scan0, b: Scan0) -> Scan0 { return Scan0(a.v + b.v); }
// A state where it counts, else that of no columns.
fn scan0_where(counts: bool, s: Scan0) -> Scan0 { return Scan0(select(0.0, s.v, counts)); }
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
