// Of a cell, the blank and the next label.
fn is_passed(n: u32, t: u32, u: u32) -> bool {
    return work[sequences.padding + n * sequences.frames + t] == 0u && u <= work[sequences.heads + HEAD * n + HEAD_LABELS];
}
fn gathered_count(n: u32, u: u32) -> u32 {
    return select(1u, 2u, u < work[sequences.heads + HEAD * n + HEAD_LABELS]);
}
fn gathered_class(n: u32, u: u32, k: u32) -> u32 {
    if (k == 0u) {
        return sequences.blank;
    }
    return work[sequences.labels_at + n * sequences.labels + u];
}
