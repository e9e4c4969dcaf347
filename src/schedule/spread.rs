//! The grid of a pass, from its number of rows or elements.

use super::Kernel;
use crate::limits::Limits;
use crate::shape::Count;

/// Most words that trips along rows leave of all rows in hand, unless a single workgroup leaves more: 64 MiB, which some GPUs' caches
/// hold.
const SCANNED_WORDS: u64 = 1 << 24;

/// How items (rows, or elements) spread over workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spread {
    /// Workgroups per row, along x, if rows are split; the rows then lie along y.
    pub splits: Option<u32>,
    /// Items per workgroup.
    pub each: u64,
    /// Most workgroups; past these, each takes further items.
    pub most: u64,
    /// Words per workgroup and column that trips along rows leave in the workspace; 0 of other kernels.
    pub held: u64,
    /// Most words of that kind, of all workgroups.
    pub most_held: u64,
}

impl Spread {
    /// The spread of a kernel, given invocations per workgroup, lanes per row and elements per access.
    pub fn new(kernel: Kernel, workgroup: u32, lanes: u32, width: u32, limits: &Limits) -> Spread {
        let most = u64::from(limits.workgroups);
        let of = |each: u64, most: u64| Spread { splits: None, each, most, held: 0, most_held: 0 };
        match kernel {
            Kernel::Elementwise => {
                // Several items per invocation, so that they share its sums and constants.
                let (accesses, busy) = if limits.software { (64, 256) } else { (4, 4096) };
                of(u64::from(workgroup) * u64::from(width) * accesses, most.min(busy))
            }
            // Its tiles follow from the number of columns.
            Kernel::ColumnSums { splits, .. } => of(1, u64::from(splits)),
            Kernel::RowSplit { splits } => Spread { splits: Some(splits), ..of(1, most) },
            Kernel::RowPairs => of(2 * u64::from(workgroup), most),
            Kernel::RowScan { words, .. } => {
                // A software adapter stops workgroups that take many rows.
                let (each, busy) = (u64::from(workgroup / lanes), if limits.software { most } else { 1024 });
                let most_held = SCANNED_WORDS.min(limits.binding_bytes / 16);
                Spread { held: each * u64::from(words), most_held, ..of(each, most.min(busy)) }
            }
            Kernel::Row | Kernel::RowResident { .. } => of(u64::from(workgroup / lanes), most),
        }
    }

    /// The grid for `items` of `cols` columns.
    pub fn grid<N: Count>(&self, items: N, cols: N) -> [N; 2] {
        let groups = items.div_ceil(N::of(self.each)).at_least(N::of(1)).at_most(N::of(self.most));
        let groups = match self.held {
            0 => groups,
            held => groups.at_most(N::of(self.most_held).div_ceil(N::of(held).times(cols.at_least(N::of(1))))),
        };
        match self.splits {
            Some(splits) => [N::of(u64::from(splits)), groups],
            None => [groups, N::of(1)],
        }
    }
}
