// Rows streamed by LANES lanes each: one trip over memory per stage, one for the element outputs.
// Grid: ROWS rows per workgroup, strided past the grid limit. Reads inputs[row, 0..cols]; writes the element outputs
// there and the row's values at [row].

// import row_hooks

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
        // Phase 1: the row's own values, unless the first stage can do without.
        var r = row_place(outer, row);
        if (!LATE) {
            r = row_values(r);
        }
        let begin = first_whole(r) + lane * WIDTH;
        // Phase 2: stages.
        // repeat begin: stage
        // of repeat
        r = stage0_begin(r);
        loop {
        // of stage
        var stage0 = stage0_run(r, begin, last);
        for (var end = lane; end < ENDS; end += LANES) {
            let col = end_col(r, end);
            if (i32(col) < cols) {
                stage0 = stage0_end(stage0, r, fetch_end(r, col), col);
            }
        }
        if (LATE && STAGE0_INDEX == 0u) {
            r = row_values(r);
        }
        let stage0_mine = stage0_narrow(stage0);
        r = stage0_finish(stage0_kept(r, stage0), stage0_mine, stage0_gather(stage0_mine, thread));
        // of repeat
        if (!stage0_again(stage0_is_open(r), thread)) {
            break;
        }
        }
        r = stage0_close(r);
        // repeat end
        if (IN_PLACE) {
            storageBarrier(); // gathered before another lane stores a gradient in place
        }
        // Phase 3: outputs.
        if (live) {
            if (is_constant(r)) {
                for (var col = begin; i32(col) <= last; col += LANES * WIDTH) {
                    write_constant(r, col);
                }
            } else {
                // From the last step to the first: caches hold the row's end still.
                let step = LANES * WIDTH;
                var left = 0u;
                if (i32(begin) <= last) {
                    left = u32(last - i32(begin)) / step + 1u;
                }
                let numbers = NUMBERS && has_numbers(r);
                for (; left % AHEAD != 0u; left--) {
                    let col = begin + (left - 1u) * step;
                    write_elements(r, fetch(r, col), col);
                }
                for (; numbers && left > 0u; left -= AHEAD) {
                    var held: array<Fetched, AHEAD>;
                    for (var k = 0u; k < AHEAD; k++) {
                        held[k] = fetch(r, begin + (left - AHEAD + k) * step);
                    }
                    for (var k = 0u; k < AHEAD; k++) {
                        write_numbers(r, held[k], begin + (left - AHEAD + k) * step);
                    }
                }
                for (; left > 0u; left -= AHEAD) {
                    var held: array<Fetched, AHEAD>;
                    for (var k = 0u; k < AHEAD; k++) {
                        held[k] = fetch(r, begin + (left - AHEAD + k) * step);
                    }
                    for (var k = 0u; k < AHEAD; k++) {
                        write_elements(r, held[k], begin + (left - AHEAD + k) * step);
                    }
                }
            }
            if (has_label(r, first_whole(r), lane, last) && !is_constant(r)) {
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
