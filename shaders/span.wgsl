// Items of a sum, items of a segment, segments, where items and results lie in `work`.
struct Span { count: u32, length: u32, segments: u32, items_base: u32, results_base: u32 }
