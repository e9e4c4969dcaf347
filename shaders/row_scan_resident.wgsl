// Rows held in registers by LANES lanes each, with scans along them: one trip over memory in, one out.
// Grid: ROWS rows per workgroup, strided past the grid limit. Reads inputs[row, 0..cols] once, (windows at the ends of a
// row, where they are masked, for each trip), cols ≤ LANES·WIDTH·TRIPS; writes the element outputs there and the row's values
// at [row].

// import row_hooks
// import row_scan_hooks

// Whether a lane's windows lie next to each other, so that a scan combines what the lanes leave once a row: of few lanes, and
// in workgroups so small that they are a CPU's. Else neighbouring lanes have neighbouring windows, whose loads coalesce, and a
// scan goes from block to block of these.
const TOGETHER: bool = LANES <= 8u || WG < 64u;

// Where a window of a lane begins.
fn own_col(r: RowValues, lane: u32, trip: u32) -> u32 {
    return first_col(r) + select(trip * LANES + lane, lane * TRIPS + trip, TOGETHER) * WIDTH;
}

// Whether the lane has the whole window that holds the label's column.
fn has_held_label(r: RowValues, lane: u32, last: i32) -> bool {
    let col = label_col(r);
    let number = (col - first_col(r)) / WIDTH;
    let owner = select(number % LANES, number / TRIPS, TOGETHER);
    return col < shape.cols && is_whole(first_col(r) + number * WIDTH, last) && owner == lane;
}

// repeat begin: scan
// What a scan reads in a window that is the row's, in whole or in part.
fn scan0_read(r: RowValues, held: Fetched, col: u32, last: i32) -> Scanned0 {
    if (is_end(col, last)) {
        return scan0_end_operands(r, with_scans(fetch_end(r, col), held), col);
    }
    return scan0_operands(r, held, col);
}
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
    for (var first = group.x * ROWS; first < rows; first += groups.x * ROWS) {
        let row = row_of(first, thread, rows);
        let live = is_live(first, thread, rows);
        // Phase 1: its elements, and the row's own values.
        var r = row_place(outer, row);
        var held: array<Fetched, TRIPS>;
        for (var trip = 0u; trip < TRIPS; trip++) {
            let col = own_col(r, lane, trip);
            // Branches cost a CPU's lanes more than loads that count nothing.
            if (!EARLY) {
                held[trip] = fetch(r, min(col, u32(last)));
            } else if (is_whole(col, last)) {
                held[trip] = fetch(r, col);
            }
        }
        r = row_values(r);
        if (IN_PLACE) {
            storageBarrier(); // gathered before another lane stores a gradient in place
        }
        // Phase 2: stages and scans.
        // repeat begin: trip
        // of repeat
        r = stage0_begin(r);
        loop {
        // of stage
        var stage0 = stage0_identity();
        for (var trip = 0u; trip < TRIPS; trip++) {
            let col = own_col(r, lane, trip);
            if (is_whole(col, last)) {
                stage0 = stage0_step(stage0, r, held[trip], col);
            }
            if (is_end(col, last)) {
                stage0 = stage0_end(stage0, r, with_scans(fetch_end(r, col), held[trip]), col);
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
        var scan0 = scan0_identity();
        if (TOGETHER) {
            for (var k = 0u; k < TRIPS; k++) {
                let trip = select(k, TRIPS - 1u - k, SCAN0_REVERSE);
                let col = own_col(r, lane, trip);
                let total = scan0_total(scan0_read(r, held[trip], col, last));
                scan0 = scan0_combine(scan0, scan0_where(is_whole(col, last) || is_end(col, last), total));
            }
            scan0 = scan0_lanes(scan0, thread).before;
        }
        for (var k = 0u; k < TRIPS; k++) {
            let trip = select(k, TRIPS - 1u - k, SCAN0_REVERSE);
            let col = own_col(r, lane, trip);
            let x = scan0_read(r, held[trip], col, last);
            let mine = scan0_where(is_whole(col, last) || is_end(col, last), scan0_total(x));
            var lanes = Scan0Lanes(scan0_identity(), mine);
            if (!TOGETHER) {
                lanes = scan0_lanes(mine, thread);
            }
            held[trip] = scan0_fill(held[trip], x, scan0_combine(scan0, lanes.before));
            scan0 = scan0_combine(scan0, lanes.all);
        }
        r = scan0_finish(r);
        // repeat end
        // Phase 3: outputs.
        if (live) {
            let constant = is_constant(r);
            for (var trip = 0u; trip < TRIPS; trip++) {
                let col = own_col(r, lane, trip);
                if (is_whole(col, last)) {
                    if (constant) {
                        write_constant(r, col);
                    } else {
                        write_elements(r, held[trip], col);
                    }
                }
                if (is_end(col, last)) {
                    write_end(r, with_scans(fetch_end(r, col), held[trip]), col);
                }
            }
            if (!constant && has_held_label(r, lane, last)) {
                write_label(r);
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
