// Pairs of neighbouring rows, streamed by one lane each. Where rows lie next to each other and columns apart, 16-bit
// elements of both rows share a word, which the lane stores once it has both. One trip over memory per stage, one for the
// element outputs.
// Grid: WG pairs per workgroup, strided past the grid limit. Reads inputs[row, 0..cols]; writes the element outputs there
// and the rows' values at [row]. There is an even number of rows, the first of each pair at an even element.

// import row_hooks

// A row before its element outputs.
fn row_stages(outer: RowValues, row: u32) -> RowValues {
    let last = i32(shape.cols) - 1;
    // Phase 1: the row's own values, unless the first stage can do without.
    var r = row_place(outer, row);
    if (!LATE) {
        r = row_values(r);
    }
    // Phase 2: stages.
    // repeat begin: stage
    // of repeat
    r = stage0_begin(r);
    loop {
    // of stage
    let stage0 = stage0_run(r, 0u, last);
    if (LATE && STAGE0_INDEX == 0u) {
        r = row_values(r);
    }
    let stage0_mine = stage0_narrow(stage0);
    r = stage0_finish(stage0_kept(r, stage0), stage0_mine, stage0_gather(stage0_mine, 0u));
    // of repeat
    if (!stage0_again(stage0_is_open(r), 0u)) {
        break;
    }
    }
    r = stage0_close(r);
    // repeat end
    return r;
}

fn write_col(r: RowValues, col: u32) {
    if (is_constant(r)) {
        write_constant(r, col);
    } else {
        write_elements(r, fetch(r, col), col);
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let outer = outer_begin();
    let rows = shape.items;
    for (var row = (group.x * WG + thread) * 2u; row < rows; row += groups.x * WG * 2u) {
        // In place, both rows gather at their labels before either is overwritten.
        let first = row_stages(outer, row);
        let second = row_stages(outer, row + 1u);
        // Phase 3: outputs. From the last column to the first: caches hold the rows' end still.
        for (var left = shape.cols; left > 0u; left--) {
            write_col(first, left - 1u);
            write_col(second, left - 1u);
        }
        write_row(first);
        write_row(second);
        if (!STRIDED) {
            break;
        }
    }
    // hook begin: seen
    // hook end
}
