// Rows held in registers by LANES lanes each: one trip over memory in, one out.
// Grid: ROWS rows per workgroup, strided past the grid limit. Reads inputs[row, 0..cols] once (windows at the ends of a
// row, where they are masked, for each stage), cols ≤ LANES·WIDTH·TRIPS (if EXACT, above LANES·WIDTH·(TRIPS − 1)); writes
// the element outputs there and the row's values at [row].

// import row_hooks

// Trips in which every lane has a whole step: all but the last, or some less where a row may begin early.
const FULL: u32 = select(0u, select(TRIPS - 1u, max(TRIPS, 3u) - 3u, EARLY), EXACT);

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let outer = outer_begin();
    let cols = i32(shape.cols);
    let last = cols - i32(WIDTH);
    let rows = shape.items;
    let lane = thread % LANES;
    for (var first = group.x * ROWS; first < rows; first += groups.x * ROWS) {
        let row = row_of(first, thread, rows);
        let live = is_live(first, thread, rows);
        // Phase 1: its elements, and, while these are loaded, the row's own values.
        var r = row_place(outer, row);
        let begin = first_whole(r);
        var held: array<Fetched, TRIPS>;
        for (var trip = 0u; trip < TRIPS; trip++) {
            let col = begin + (trip * LANES + lane) * WIDTH;
            if (trip < FULL || i32(col) <= last) {
                held[trip] = fetch(r, col);
            }
        }
        r = row_values(r);
        if (IN_PLACE) {
            storageBarrier(); // gathered before another lane stores a gradient in place
        }
        // Phase 2: stages.
        // repeat begin: stage
        // of repeat
        r = stage0_begin(r);
        loop {
        // of stage
        var stage0 = stage0_identity();
        for (var trip = 0u; trip < TRIPS; trip++) {
            let col = begin + (trip * LANES + lane) * WIDTH;
            if (trip < FULL || i32(col) <= last) {
                stage0 = stage0_step(stage0, r, held[trip], col);
                if (STAGE0_WRITES && live) {
                    if (NUMBERS) {
                        write_numbers(r, held[trip], col);
                    } else {
                        write_elements(r, held[trip], col);
                    }
                }
            }
        }
        for (var end = lane; end < ENDS; end += LANES) {
            let col = end_col(r, end);
            if (i32(col) < cols) {
                stage0 = stage0_end(stage0, r, fetch_end(r, col), col);
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
        // repeat end
        // Phase 3: outputs.
        if (live) {
            if (is_constant(r)) {
                for (var col = begin + lane * WIDTH; i32(col) <= last; col += LANES * WIDTH) {
                    write_constant(r, col);
                }
            } else if (NUMBERS && has_numbers(r)) {
                for (var trip = 0u; trip < TRIPS && !WRITTEN; trip++) {
                    let col = begin + (trip * LANES + lane) * WIDTH;
                    if (trip < FULL || i32(col) <= last) {
                        write_numbers(r, held[trip], col);
                    }
                }
            } else if (!NUMBERS) {
                for (var trip = 0u; trip < TRIPS && !WRITTEN; trip++) {
                    let col = begin + (trip * LANES + lane) * WIDTH;
                    if (trip < FULL || i32(col) <= last) {
                        write_elements(r, held[trip], col);
                    }
                }
            } else {
                // So rare a row is loaded again, by a loop that costs no registers.
                for (var col = begin + lane * WIDTH; i32(col) <= last; col += LANES * WIDTH) {
                    write_elements(r, fetch(r, col), col);
                }
            }
            if (has_label(r, begin, lane, last) && !is_constant(r)) {
                write_label(r);
            }
            for (var end = lane; end < ENDS; end += LANES) {
                let col = end_col(r, end);
                if (i32(col) < cols) {
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
