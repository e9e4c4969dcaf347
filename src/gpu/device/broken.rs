//! Kernels broken on purpose, so that a test can see them caught: only the binary's hidden option asks for them.

/// Where kernels count their columns, or their items, and what leaves the last ones out. Loops only get shorter, so that
/// what makes trusted modules sound (`super::trusted`) still holds.
const EDITS: [(&str, &str); 2] = [
    ("let cols = i32(shape.cols);", "let cols = i32(shape.cols) - i32(WIDTH);"),
    ("let count = (shape.items - begin) / WIDTH;", "let count = max((shape.items - begin) / WIDTH, 1u) - 1u;"),
];

/// The kernel without its last column.
pub(crate) fn without_last_column(wgsl: &str) -> String {
    EDITS.iter().fold(wgsl.to_owned(), |wgsl, (from, to)| wgsl.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codegen::template::{LaneReduce, Skeleton, stub};

    #[test]
    fn every_skeleton_over_columns_can_be_broken() {
        for skeleton in [Skeleton::Row, Skeleton::RowResident, Skeleton::RowSplit, Skeleton::Elementwise] {
            let whole = stub(skeleton, LaneReduce::Tree);
            let broken = without_last_column(&whole);
            assert_ne!(broken, whole, "{skeleton:?}");
            naga::front::wgsl::parse_str(&broken).unwrap();
        }
    }
}
