// A row a workgroup, streamed: one trip over memory for each stage, one for the element outputs.
// Grid: one workgroup a row, strided past the grid limit. Reads inputs[row, 0..cols]; writes the element outputs
// there and the row's values at [row].

// import row_hooks

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let outer = outer_begin();
    let cols = shape.cols;
    for (var row = group.x; row < shape.rows; row += groups.x) {
        // Phase 1: what the row knows before its elements, labels and gathers included.
        var r = row_begin(outer, row);
        storageBarrier(); // gathered before another lane stores a gradient in place
        // Phase 2: stages.
        // repeat begin: stage
        var stage0 = stage0_identity();
        for (var col = lane * WIDTH; col < cols; col += WG * WIDTH) {
            stage0 = stage0_step(stage0, r, fetch(r, col), col);
        }
        r = stage0_finish(r, stage0_gather(stage0_narrow(stage0), lane));
        // repeat end
        // Phase 3: outputs.
        for (var col = lane * WIDTH; col < cols; col += WG * WIDTH) {
            write_elements(r, fetch(r, col), col);
        }
        write_label(r, lane, 0u, cols);
        if (lane == 0u) {
            write_row(r, row);
        }
        if (!STRIDED) {
            break;
        }
    }
}
