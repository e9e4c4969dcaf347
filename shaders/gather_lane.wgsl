// A row has one lane.
fn stage0_gather(mine: Stage0, thread: u32) -> Stage0 { return mine; }
