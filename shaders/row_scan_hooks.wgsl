// The hooks of scans, pairs and sorts along a row, and stubs: the cumulative sum of each row, the sum over the partners of each
// element, the elements in their order.
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

// repeat begin: pairs
// hook begin: pairs0
// What pairs read of a lane's own window.
struct Paired0 { e0: f32 }
// What they read of the partners in a block.
var<workgroup> pairs0_partners: array<u32, WG * WIDTH>;
struct Pairs0 { v: f32 }
fn pairs0_identity() -> Pairs0 { return Pairs0(0.0); }
fn pairs0_combine(a: Pairs0, b: Pairs0) -> Pairs0 { return Pairs0(a.v + b.v); }
fn pairs0_own(r: RowValues, fetched: Fetched, col: u32) -> Paired0 { return Paired0(bitcast<f32>(fetched.x0)); }
fn pairs0_end_own(r: RowValues, f: Window, col: u32) -> Paired0 { return Paired0(bitcast<f32>(f.x0)); }
// Lays a window out for the partners.
fn pairs0_lay(r: RowValues, fetched: Fetched, col: u32, thread: u32) { pairs0_partners[thread * WIDTH] = fetched.x0; }
fn pairs0_end_lay(r: RowValues, f: Window, col: u32, thread: u32) { pairs0_partners[thread * WIDTH] = f.x0; }
// Folds the pairs of a window with the partner at `at`.
fn pairs0_step(s: Pairs0, r: RowValues, own: Paired0, at: u32) -> Pairs0 {
    return Pairs0(s.v + own.e0 * bitcast<f32>(pairs0_partners[at]));
}
// Leaves the folds of a window in `work`, for later trips of the lane.
fn pairs0_leave(r: RowValues, s: Pairs0, col: u32) { work[r.base0 + col] = bitcast<u32>(s.v); }
fn pairs0_finish(r: RowValues) -> RowValues { return r; }
// hook end
// repeat end

// repeat begin: sort
// hook begin: sort0
// Index in `work` of the keys, before the window that may begin before the row.
fn sort0_first() -> u32 { return shape.scan_base; }
// Leaves the keys of a window, and its columns.
fn sort0_lay(r: RowValues, fetched: Fetched, col: u32) {
    work[sort0_first() + WIDTH + col] = sort_key(fetched.x0);
    work[sort0_first() + shape.cols + 3u * WIDTH + col] = col;
}
fn sort0_end_lay(r: RowValues, f: Window, col: u32) {}
fn sort0_finish(r: RowValues) -> RowValues { return r; }
// hook end
// repeat end

// repeat begin: move
// hook begin: move0
// Leaves the elements of a window where lanes find them, or at once at the columns where they belong.
fn move0_lay(r: RowValues, fetched: Fetched, col: u32) { work[shape.scan_base + col] = fetched.x0; }
fn move0_end_lay(r: RowValues, f: Window, col: u32) {}
// Leaves, at the columns of a window, the elements that belong there.
fn move0_leave(r: RowValues, col: u32) { work[r.base0 + col] = work[shape.scan_base + col]; }
fn move0_finish(r: RowValues) -> RowValues { return r; }
// hook end
// repeat end
