//! The grid of a pass, from its number of rows or elements.

use super::Kernel;
use crate::limits::Limits;
use crate::shape::Count;

/// How items (rows, or elements) spread over workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spread {
    /// Workgroups per row, along x, if rows are split; the rows then lie along y.
    pub splits: Option<u32>,
    /// Items per workgroup.
    pub each: u64,
    /// Most workgroups; past these, each takes further items.
    pub most: u64,
}

impl Spread {
    /// The spread of a kernel, given invocations per workgroup, lanes per row and elements per access.
    pub fn new(kernel: Kernel, workgroup: u32, lanes: u32, width: u32, limits: &Limits) -> Spread {
        let most = u64::from(limits.workgroups);
        match kernel {
            Kernel::Elementwise => {
                // Several items per invocation, so that they share its sums and constants.
                let (accesses, busy) = if limits.software { (64, 256) } else { (4, 4096) };
                Spread { splits: None, each: u64::from(workgroup) * u64::from(width) * accesses, most: most.min(busy) }
            }
            // Its tiles follow from the number of columns.
            Kernel::ColumnSums { splits, .. } => Spread { splits: None, each: 1, most: u64::from(splits) },
            Kernel::RowSplit { splits } => Spread { splits: Some(splits), each: 1, most },
            Kernel::RowPairs => Spread { splits: None, each: 2 * u64::from(workgroup), most },
            Kernel::Row | Kernel::RowResident { .. } => {
                Spread { splits: None, each: u64::from(workgroup / lanes), most }
            }
        }
    }

    /// The grid for `items`.
    pub fn grid<N: Count>(&self, items: N) -> [N; 2] {
        let groups = items.div_ceil(N::of(self.each)).at_least(N::of(1)).at_most(N::of(self.most));
        match self.splits {
            Some(splits) => [N::of(u64::from(splits)), groups],
            None => [groups, N::of(1)],
        }
    }
}
