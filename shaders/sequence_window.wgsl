// Rows of classes of one dispatch: a box of sequences, frames and cells. It needs `CELLS`.
// Owner: src/fused/sequence/rows.rs; a test compares the offsets.
struct Window {
    // First sequence, frame and cell, whose row begins at element .w of the binding.
    base: vec4<u32>,
    // Sequences, frames and cells, and rows in all.
    count: vec4<u32>,
    // Strides along sequences, frames, cells and classes.
    strides: vec4<u32>,
    // The same of the gradient: the element of its binding at which the first row begins is .x of `grad_base`.
    grad_strides: vec4<u32>,
    grad_base: vec4<u32>,
}

// Sequence, frame and cell of a row of this dispatch.
fn cell_of(k: u32) -> vec3<u32> {
    let cell = k % window.count.z;
    let rest = k / window.count.z;
    return window.base.xyz + vec3<u32>(rest / window.count.y, rest % window.count.y, cell);
}

// The row's number in the workspace.
fn row_of(cell: vec3<u32>) -> u32 {
    return ((cell.x - sequences.first) * sequences.frames + cell.y) * CELLS + cell.z;
}
