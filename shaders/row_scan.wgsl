// Rows streamed by LANES lanes each, with scans, pairs and sorts along them: one trip over memory per stage and per trip along
// the row, one for the element outputs. A scan takes blocks of LANES·WIDTH columns in its order. Of pairs, a block lies in
// workgroup memory while all lanes meet its elements. Each leaves its values in `work`, in words of its own for each row in
// hand: there, later trips of the same lane read them.
// Grid: ROWS rows per workgroup, strided. Reads inputs[row, 0..cols]; writes the element outputs there, the row's values at
// [row], and work[scan_base + row in hand · words · (cols + 2·WIDTH) ..].

// import row_hooks
// import row_scan_hooks
// import row_sort
// import row_pair_hooks

// The number of the lane's row among those that all workgroups have in hand.
var<private> row_in_hand: u32;

// Window k belongs to lane k % LANES.

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

// What each trip fetches.
// repeat begin: trip
// of stage
// hook begin: stage0_fetch
fn stage0_fetch_end(r: RowValues, col: u32) -> Window { return fetch_end(r, col); }
// hook end
// of scan
// hook begin: scan0_fetch
fn scan0_fetch(r: RowValues, col: u32) -> Fetched { return fetch(r, col); }
fn scan0_fetch_end(r: RowValues, col: u32) -> Window { return fetch_end(r, col); }
// hook end
// of pairs
// hook begin: pairs0_fetch
fn pairs0_fetch(r: RowValues, col: u32) -> Fetched { return fetch(r, col); }
fn pairs0_fetch_end(r: RowValues, col: u32) -> Window { return fetch_end(r, col); }
// hook end
// of sort
// hook begin: sort0_fetch
fn sort0_fetch(r: RowValues, col: u32) -> Fetched { return fetch(r, col); }
fn sort0_fetch_end(r: RowValues, col: u32) -> Window { return fetch_end(r, col); }
// hook end
// of move
// hook begin: move0_fetch
fn move0_fetch(r: RowValues, col: u32) -> Fetched { return fetch(r, col); }
fn move0_fetch_end(r: RowValues, col: u32) -> Window { return fetch_end(r, col); }
// hook end
// repeat end

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let outer = outer_begin();
    let last = i32(shape.cols) - i32(WIDTH);
    let rows = shape.items;
    let lane = thread % LANES;
    row_in_hand = group.x * ROWS + thread / LANES;
    for (var first = group.x * ROWS; first < rows; first += groups.x * ROWS) {
        let row = row_of(first, thread, rows);
        let live = is_live(first, thread, rows);
        // Phase 1: the row's own values.
        var r = row_values(row_place(outer, row));
        let begin = first_col(r) + lane * WIDTH;
        let blocks = (shape.cols + select(0u, WIDTH, EARLY) + LANES * WIDTH - 1u) / (LANES * WIDTH);
        if (IN_PLACE) {
            storageBarrier(); // gathered before another lane stores a gradient in place
        }
        // Phase 2: stages and scans.
        // repeat begin: trip
        // of repeat
        r = stage0_begin(r);
        loop {
        // of stage
        var stage0 = stage0_run(r, own_first(r, lane), last);
        for (var k = 0u; EARLY && k < 2u; k++) {
            let col = own_end(r, lane, last, k);
            if (is_end(col, last)) {
                stage0 = stage0_end(stage0, r, stage0_fetch_end(r, col), col);
            }
        }
        let stage0_mine = stage0_narrow(stage0);
        r = stage0_finish(r, stage0_mine, stage0_gather(stage0_mine, thread));
        // of repeat
        if (!stage0_again(stage0_is_open(r), thread)) {
            break;
        }
        }
        r = stage0_close(r);
        // of scan
        // Runs of blocks are combined by themselves first: sums of many blocks would lose digits.
        var scan0 = scan0_identity();
        var scan0_run = scan0_identity();
        for (var k = 0u; k < blocks; k++) {
            if (k % RUN == 0u) {
                scan0 = scan0_combine(scan0, scan0_run);
                scan0_run = scan0_identity();
            }
            let before = scan0_combine(scan0, scan0_run);
            let col = begin + select(k, blocks - 1u - k, SCAN0_REVERSE) * LANES * WIDTH;
            let is_own = is_whole(col, last) || is_end(col, last);
            var x: Scanned0;
            var mine = scan0_identity();
            if (is_whole(col, last)) {
                x = scan0_operands(r, scan0_fetch(r, col), col);
            }
            if (is_end(col, last)) {
                x = scan0_end_operands(r, scan0_fetch_end(r, col), col);
            }
            if (is_own) {
                mine = scan0_total(x);
            }
            let lanes = scan0_lanes(mine, thread);
            if (is_own) {
                var held: Fetched;
                scan0_leave(r, scan0_fill(held, x, scan0_combine(before, lanes.before)), col);
            }
            scan0_run = scan0_combine(scan0_run, lanes.all);
        }
        r = scan0_finish(r);
        // of pairs
        for (var k = 0u; k < blocks; k++) {
            let col = begin + k * LANES * WIDTH;
            var own: Paired0;
            if (is_whole(col, last)) {
                own = pairs0_own(r, pairs0_fetch(r, col), col);
            }
            if (is_end(col, last)) {
                own = pairs0_end_own(r, pairs0_fetch_end(r, col), col);
            }
            var pairs0 = pairs0_identity();
            for (var block = 0u; block < blocks; block++) {
                let there = begin + block * LANES * WIDTH;
                workgroupBarrier(); // the partners of the block before have been met
                if (is_whole(there, last)) {
                    pairs0_lay(r, pairs0_fetch(r, there), there, thread);
                }
                if (is_end(there, last)) {
                    pairs0_end_lay(r, pairs0_fetch_end(r, there), there, thread);
                }
                workgroupBarrier(); // those of this block lie there
                // Where the row's part of the block begins and ends; the last block may have none.
                let early = 0u - first_col(r);
                let skipped = select(0u, early, block == 0u);
                let before = min(block * LANES * WIDTH, shape.cols + early);
                let count = min(LANES * WIDTH, shape.cols + early - before);
                for (var run = skipped; run < count; run += RUN) {
                    var part = pairs0_identity();
                    let stop = min(run + RUN, count);
                    for (var partner = run; partner < stop; partner++) {
                        part = pairs0_step(part, r, own, (thread - lane) * WIDTH + partner);
                    }
                    pairs0 = pairs0_combine(pairs0, part);
                }
            }
            if (is_whole(col, last) || is_end(col, last)) {
                pairs0_leave(r, pairs0, col);
            }
        }
        r = pairs0_finish(r);
        // of sort
        storageBarrier(); // what was left of another row has been read
        for (var k = 0u; k < blocks; k++) {
            let col = begin + k * LANES * WIDTH;
            if (is_whole(col, last)) {
                sort0_lay(r, sort0_fetch(r, col), col);
            }
            if (is_end(col, last)) {
                sort0_end_lay(r, sort0_fetch_end(r, col), col);
            }
        }
        storageBarrier(); // all keys lie there
        sort_row(sort0_first() + WIDTH, shape.cols + 2u * WIDTH, thread);
        r = sort0_finish(r);
        // of move
        storageBarrier(); // what was left of another row has been read
        for (var k = 0u; k < blocks; k++) {
            let col = begin + k * LANES * WIDTH;
            if (is_whole(col, last)) {
                move0_lay(r, move0_fetch(r, col), col);
            }
            if (is_end(col, last)) {
                move0_end_lay(r, move0_fetch_end(r, col), col);
            }
        }
        storageBarrier(); // all elements lie there
        for (var k = 0u; k < blocks; k++) {
            let col = begin + k * LANES * WIDTH;
            if (is_whole(col, last) || is_end(col, last)) {
                move0_leave(r, col);
            }
        }
        r = move0_finish(r);
        // repeat end
        // Phase 3: outputs.
        if (live) {
            if (!ELEMENTS) {
                // Nothing is written by column.
            } else if (is_constant(r)) {
                for (var col = own_first(r, lane); i32(col) <= last; col += LANES * WIDTH) {
                    write_constant(r, col);
                }
            } else {
                for (var col = own_first(r, lane); i32(col) <= last; col += LANES * WIDTH) {
                    write_elements(r, fetch(r, col), col);
                }
                if (has_label_window(r, lane, last)) {
                    write_label(r);
                }
            }
            for (var k = 0u; ELEMENTS && EARLY && k < 2u; k++) {
                let col = own_end(r, lane, last, k);
                if (is_end(col, last)) {
                    write_end(r, fetch_end(r, col), col);
                }
            }
            if (lane == 0u) {
                write_row(r);
            }
        }
        if (!STRIDED) {
            break;
        }
    }
    // hook begin: seen
    // hook end
}
