// Rows held in registers by LANES lanes each, with scans along them: one trip over memory in, one out.
// Grid: ROWS rows per workgroup, strided past the grid limit. Reads inputs[row, 0..cols] once, (windows at the ends of a
// row, where they are masked, for each trip), cols ≤ LANES·WIDTH·TRIPS; writes the element outputs there and the row's values
// at [row].

// import row_hooks
// import row_scan_hooks

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
        let begin = first_col(r) + lane * WIDTH;
        var held: array<Fetched, TRIPS>;
        for (var trip = 0u; trip < TRIPS; trip++) {
            let col = begin + trip * LANES * WIDTH;
            if (is_whole(col, last)) {
                held[trip] = fetch(r, col);
            }
        }
        r = row_values(r);
        if (IN_PLACE) {
            storageBarrier(); // gathered before another lane stores a gradient in place
        }
        // Phase 2: stages and scans.
        // repeat begin: trip
        // of stage
        var stage0 = stage0_identity();
        for (var trip = 0u; trip < TRIPS; trip++) {
            let col = begin + trip * LANES * WIDTH;
            if (is_whole(col, last)) {
                stage0 = stage0_step(stage0, r, held[trip], col);
            }
            if (is_end(col, last)) {
                stage0 = stage0_end(stage0, r, with_scans(fetch_end(r, col), held[trip]), col);
            }
        }
        let stage0_mine = stage0_narrow(stage0);
        r = stage0_finish(r, stage0_mine, stage0_gather(stage0_mine, thread));
        // of scan
        var scan0 = scan0_identity();
        for (var k = 0u; k < TRIPS; k++) {
            let trip = select(k, TRIPS - 1u - k, SCAN0_REVERSE);
            let col = begin + trip * LANES * WIDTH;
            let is_own = is_whole(col, last) || is_end(col, last);
            var x: Scanned0;
            var mine = scan0_identity();
            if (is_whole(col, last)) {
                x = scan0_operands(r, held[trip], col);
            }
            if (is_end(col, last)) {
                x = scan0_end_operands(r, with_scans(fetch_end(r, col), held[trip]), col);
            }
            if (is_own) {
                mine = scan0_total(x);
            }
            let lanes = scan0_lanes(mine, thread);
            if (is_own) {
                held[trip] = scan0_fill(held[trip], x, scan0_combine(scan0, lanes.before));
            }
            scan0 = scan0_combine(scan0, lanes.all);
        }
        r = scan0_finish(r);
        // repeat end
        // Phase 3: outputs.
        if (live) {
            let constant = is_constant(r);
            for (var trip = 0u; trip < TRIPS; trip++) {
                let col = begin + trip * LANES * WIDTH;
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
            if (!constant && has_label_window(r, lane, last)) {
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
