// A row split over several workgroups, and perhaps several dispatches or devices: one dispatch per stage
// leaves partial states in `work`; the next one combines them, and the last one writes the outputs.
// Grid: (splits, rows), rows strided past the grid limit. Reads a chunk of inputs[row, 0..cols]; writes
// work[((stage · rows + row) · slots + split) · STATE_WORDS ..], and in the last dispatch the element outputs of
// the chunk and, by the first workgroup of the row, the row's values at [row].

// import row_hooks

// hook begin: phase
// Stages before this one are combined; this one runs. After the last stage, outputs are written.
const PHASE: u32 = 0u;
const STAGES: u32 = 1u;
const STATE_WORDS: u32 = 2u;
// Whether a value is written for every column.
const ELEMENTS: bool = true;
// hook end

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let outer = outer_begin();
    let cols = i32(shape.cols);
    // Where rows begin anywhere, their windows may be one more.
    let windows = (shape.cols + select(WIDTH - 1u, 2u * (WIDTH - 1u), EARLY)) / WIDTH;
    let chunk = (windows + shape.splits - 1u) / shape.splits * WIDTH;
    for (var row = group.y; row < shape.items; row += groups.y) {
        var r = row_begin(outer, row);
        let begin = first_col(r) + group.x * chunk;
        let stop = min(i32(begin + chunk), cols);
        let whole = u32(max(i32(begin), i32(first_whole(r)))) + thread * WIDTH;
        // repeat begin: stage
        let state0 = shape.state_base + (STAGE0_INDEX * shape.rows + r.row) * shape.slots * STATE_WORDS;
        if (PHASE == STAGE0_INDEX) {
            // Phase 1: this chunk's state.
            var stage0 = stage0_identity();
            for (var run = whole; i32(run + WIDTH) <= stop; run += RUN * WG * WIDTH) {
                let last = min(stop, i32(run + ((RUN - 1u) * WG + 1u) * WIDTH));
                for (var col = run; i32(col + WIDTH) <= last; col += WG * WIDTH) {
                    stage0 = stage0_step(stage0, r, fetch(r, col), col);
                }
                stage0 = stage0_end_run(stage0);
            }
            for (var end = thread; end < ENDS; end += WG) {
                let col = end_col(r, end);
                if (i32(col) >= i32(begin) && i32(col) < stop) {
                    stage0 = stage0_end(stage0, r, fetch_end(r, col), col);
                }
            }
            let all = stage0_gather(stage0_narrow(stage0), thread);
            if (thread == 0u) {
                stage0_save(all, state0 + (shape.first_split + group.x) * STATE_WORDS);
            }
        }
        if (PHASE > STAGE0_INDEX) {
            // Phase 2: the row's state from those of its parts, in a fixed order.
            var mine = stage0_narrow(stage0_identity());
            for (var split = thread; split < shape.states; split += WG) {
                mine = stage0_combine(mine, stage0_load(state0 + split * STATE_WORDS));
            }
            r = stage0_finish(r, mine, stage0_gather(mine, thread));
        }
        // repeat end
        // Phase 3: outputs of this chunk.
        if (PHASE == STAGES) {
            if (IN_PLACE) {
                storageBarrier(); // gathered before another lane stores a gradient in place
            }
            if (ELEMENTS) {
                if (is_constant(r)) {
                    for (var col = whole; i32(col + WIDTH) <= stop; col += WG * WIDTH) {
                        write_constant(r, col);
                    }
                } else {
                    for (var col = whole; i32(col + WIDTH) <= stop; col += WG * WIDTH) {
                        write_elements(r, fetch(r, col), col);
                    }
                }
                for (var end = thread; end < ENDS; end += WG) {
                    let col = end_col(r, end);
                    if (i32(col) >= i32(begin) && i32(col) < stop) {
                        write_end(r, fetch_end(r, col), col);
                    }
                }
            }
            if (thread == 0u && shape.first_split + group.x == 0u) {
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
