// A row a workgroup, held in registers: one trip over memory in, one out.
// Grid: one workgroup a row, strided past the grid limit. Reads inputs[row, 0..cols] once, cols ≤ WG·WIDTH·TRIPS;
// writes the element outputs there and the row's values at [row].

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
        // Phase 1: the row's own values, and its elements.
        var r = row_begin(outer, row);
        var held: array<Fetched, TRIPS>;
        for (var trip = 0u; trip < TRIPS; trip++) {
            let col = (trip * WG + lane) * WIDTH;
            if (col < cols) {
                held[trip] = fetch(r, col);
            }
        }
        storageBarrier(); // gathered before another lane stores a gradient in place
        // Phase 2: stages.
        // repeat begin: stage
        var stage0 = stage0_identity();
        for (var trip = 0u; trip < TRIPS; trip++) {
            let col = (trip * WG + lane) * WIDTH;
            if (col < cols) {
                stage0 = stage0_step(stage0, r, held[trip], col);
            }
        }
        r = stage0_finish(r, stage0_gather(stage0_narrow(stage0), lane));
        // repeat end
        // Phase 3: outputs.
        for (var trip = 0u; trip < TRIPS; trip++) {
            let col = (trip * WG + lane) * WIDTH;
            if (col < cols) {
                write_elements(r, held[trip], col);
            }
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
