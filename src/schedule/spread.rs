//! How the grid of a pass follows from its rows or elements.

use super::Kernel;
use crate::limits::Limits;
use crate::shape::Count;

/// Workgroups for items: rows, or elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spread {
    /// Workgroups that share a row, along x; then the rows lie along y.
    pub splits: Option<u32>,
    /// Items of a workgroup.
    pub each: u64,
    /// Workgroups, at most: those there are go over the items again.
    pub most: u64,
}

impl Spread {
    /// That of a kernel with so many invocations a workgroup, lanes a row and elements an access.
    pub fn new(kernel: Kernel, workgroup: u32, lanes: u32, width: u32, limits: &Limits) -> Spread {
        let most = u64::from(limits.workgroups);
        match kernel {
            Kernel::Elementwise => {
                // Several items an invocation, so that its sums and constants are shared.
                let (accesses, busy) = if limits.software { (64, 256) } else { (4, 4096) };
                Spread { splits: None, each: u64::from(workgroup) * u64::from(width) * accesses, most: most.min(busy) }
            }
            Kernel::RowSplit { splits } => Spread { splits: Some(splits), each: 1, most },
            Kernel::Row | Kernel::RowResident { .. } => {
                Spread { splits: None, each: u64::from(workgroup / lanes), most }
            }
        }
    }

    /// The grid for so many items.
    pub fn grid<N: Count>(&self, items: N) -> [N; 2] {
        let groups = items.div_ceil(N::of(self.each)).at_least(N::of(1)).at_most(N::of(self.most));
        match self.splits {
            Some(splits) => [N::of(u64::from(splits)), groups],
            None => [groups, N::of(1)],
        }
    }
}
