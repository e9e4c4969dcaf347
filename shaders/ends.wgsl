// Steps that begin `early`, in two's complement below 0, over `size` columns (or elements): the first one, and windows of
// steps that are not whole. Uses WIDTH, of a step, and ENDS, how many windows there may be; a window has 4.

// Where the first whole step begins.
fn whole_from(early: u32) -> u32 {
    return (0u - early) % WIDTH;
}

// Where the window at an end begins, of the first step and then of the last; `size` where that step is whole, or the
// only one, or where the window has no column.
fn window_at_end(early: u32, size: u32, end: u32) -> u32 {
    let windows = max(ENDS / 2u, 1u);
    let first = 0u - early;
    let last = (size + early) / WIDTH * WIDTH - early;
    let is_last = end >= windows;
    let is_done = select(early == 0u, early > 0u && last == first, is_last);
    let col = select(first, last, is_last) + end % windows * 4u;
    // From -3 on, in two's complement.
    return select(size, col, !is_done && col + 3u < size + 3u);
}
