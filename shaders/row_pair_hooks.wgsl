// The hooks of pairs, sorts and permutations of a row, and stubs: the sum over the partners of each element, the elements in
// their order.

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
