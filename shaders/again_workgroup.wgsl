var<workgroup> stage0_open: atomic<u32>;
var<workgroup> stage0_verdict: u32;
// Whether any row of the workgroup has a step left to do: its lanes go on together, since they combine in each step.
fn stage0_again(mine: bool, thread: u32) -> bool {
    if (thread == 0u) {
        atomicStore(&stage0_open, 0u);
    }
    workgroupBarrier(); // it is 0 before a row says otherwise
    if (mine) {
        atomicStore(&stage0_open, 1u);
    }
    workgroupBarrier(); // all rows have spoken before it is read
    if (thread == 0u) {
        stage0_verdict = atomicLoad(&stage0_open);
    }
    return workgroupUniformLoad(&stage0_verdict) != 0u;
}
