// A row has one lane.
fn scan0_lanes(mine: Scan0, thread: u32) -> Scan0Lanes { return Scan0Lanes(scan0_identity(), mine); }
