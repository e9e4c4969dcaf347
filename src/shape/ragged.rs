//! Groups of unequal length: the offsets or ids that say which rows share a group, and the rule that checks them.
//! `shaders/row_groups.wgsl` finds the groups of a problem by the same rule and the same searches.

use crate::error::Error;
use std::ops::{Range, RangeInclusive};

/// The form in which an input says which rows share a group, where groups have unequal lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ragged {
    /// `[groups + 1]`: the first row of each group, then the number of rows; ascending from 0 (`cu_seqlens`).
    Offsets,
    /// `[rows]`: the group of each row, ascending.
    Ids {
        /// Number of groups: ids are below it.
        groups: u64,
    },
}

impl Ragged {
    /// The values that one offset or id may have, given the one before it (`None` for the first).
    pub(crate) fn allowed(self, index: u64, before: Option<i64>, [rows, groups]: [u64; 2]) -> RangeInclusive<i64> {
        let (before, rows, groups) = (before.unwrap_or(0), rows as i64, groups as i64);
        match self {
            Ragged::Offsets if index == 0 => 0..=0,
            Ragged::Offsets if index == groups as u64 => before.max(rows)..=rows,
            Ragged::Offsets => before..=rows,
            Ragged::Ids { .. } => before..=groups - 1,
        }
    }

    /// The error of an offset or id that is not allowed. `value` is `None` where it could not be read.
    pub(crate) fn error(self, input: &str, index: u64, found: [Option<i64>; 2], sizes: [u64; 2]) -> Error {
        let [before, value] = found;
        let allowed = self.allowed(index, before, sizes);
        let range = match allowed.start() >= allowed.end() {
            true => allowed.end().to_string(),
            false => format!("{} to {}", allowed.start(), allowed.end()),
        };
        let why = match self {
            Ragged::Offsets if index == 0 => "the first row",
            Ragged::Offsets if index == sizes[1] => "the number of rows",
            Ragged::Offsets => "no less than the offset before it, no more than there are rows",
            Ragged::Ids { .. } => "no less than the id before it, less than there are groups",
        };
        Error::GroupOutOfRange { input: input.to_owned(), index, value, allowed: format!("{range} ({why})") }
    }
}

/// The rows of each group, and the group of each row, whatever the offsets or ids hold.
#[derive(Clone, Debug)]
pub(crate) struct RowGroups {
    by: Ragged,
    rows: Vec<Range<u64>>,
    /// By group: whether one of its two offsets is not allowed. It has no rows then.
    is_bad: Vec<bool>,
    /// By row: its group. `None` where its id is not allowed, and outside the groups that offsets give.
    group: Vec<Option<u64>>,
    /// The first offset or id that is not allowed: its index, it, and the one before it.
    pub first_bad: Option<(u64, [Option<i64>; 2])>,
}

impl RowGroups {
    /// `value` gives an offset or id by index.
    pub fn new(by: Ragged, sizes: [u64; 2], value: impl Fn(u64) -> i64) -> RowGroups {
        let [rows, groups] = sizes;
        // As kernels compare: negative values come last.
        let bits = |index: u64| u64::from(value(index) as u32);
        let is_allowed = |index: u64| {
            let before = index.checked_sub(1).map(|before| bits(before) as i64);
            by.allowed(index, before, sizes).contains(&(bits(index) as i64))
        };
        let of_group = |group: u64| match by {
            Ragged::Offsets if is_allowed(group) && is_allowed(group + 1) => (bits(group)..bits(group + 1), false),
            Ragged::Offsets => (0..0, true),
            Ragged::Ids { .. } => {
                let first = group.checked_sub(1).map_or(0, |before| leading(rows, before, bits));
                let end = if group + 1 == groups { rows } else { leading(rows, group, bits) };
                (first..end, false)
            }
        };
        let of_row = |row: u64| match by {
            Ragged::Offsets => leading(groups, row, bits).checked_sub(1).filter(|group| row < bits(group + 1)),
            Ragged::Ids { .. } => is_allowed(row).then(|| bits(row)),
        };
        let values = if by == Ragged::Offsets { groups + 1 } else { rows };
        let first_bad = (0..values).find(|index| !is_allowed(*index));
        let (rows_of, is_bad) = (0..groups).map(of_group).unzip();
        let first_bad = first_bad.map(|index| (index, [index.checked_sub(1).map(&value), Some(value(index))]));
        RowGroups { by, rows: rows_of, is_bad, group: (0..rows).map(of_row).collect(), first_bad }
    }

    /// The group of a row.
    pub fn of(&self, row: u64) -> Option<u64> {
        self.group[row as usize]
    }

    /// Number of rows of a group; NaN where one of its two offsets is not allowed.
    pub fn count(&self, group: u64) -> f64 {
        let rows = &self.rows[group as usize];
        if self.is_bad[group as usize] { f64::NAN } else { (rows.end - rows.start) as f64 }
    }

    /// The rows' terms, folded from `identity` on, one result per group; NaN where one of the group's two offsets, or the id
    /// of one of its rows, is not allowed. Offsets alone say which rows a group has: among offsets that descend, the search
    /// from a row may miss the group that holds it, and the row's term counts in that group all the same.
    pub fn folds(&self, identity: f64, combine: impl Fn(f64, f64) -> f64, term: impl Fn(usize) -> f64) -> Vec<f64> {
        let is_known = |row: u64| self.by == Ragged::Offsets || self.group[row as usize].is_some();
        let of_row = |row: u64| if is_known(row) { term(row as usize) } else { f64::NAN };
        let of_group = |(rows, is_bad): (&Range<u64>, &bool)| match is_bad {
            true => f64::NAN,
            false => rows.clone().map(of_row).fold(identity, &combine),
        };
        self.rows.iter().zip(&self.is_bad).map(of_group).collect()
    }
}

/// Number of leading values up to `bound`, of `count` ascending ones. Of any others, some number up to `count`, the larger
/// the larger `bound` is.
fn leading(count: u64, bound: u64, value: impl Fn(u64) -> u64) -> u64 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = (low + high) / 2;
        if value(middle) <= bound {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(by: Ragged, sizes: [u64; 2], values: &[i64]) -> RowGroups {
        RowGroups::new(by, sizes, |index| values[index as usize])
    }

    fn sums(groups: &RowGroups, term: impl Fn(usize) -> f64) -> Vec<f64> {
        groups.folds(0.0, |a, b| a + b, term)
    }

    #[test]
    fn offsets_and_ids_of_the_same_groups_agree() {
        let offsets = groups(Ragged::Offsets, [6, 4], &[0, 2, 2, 5, 6]);
        let ids = groups(Ragged::Ids { groups: 4 }, [6, 4], &[0, 0, 2, 2, 2, 3]);
        for found in [offsets, ids] {
            assert_eq!(found.rows, [0..2, 2..2, 2..5, 5..6]);
            assert_eq!(found.group, [0, 0, 2, 2, 2, 3].map(Some));
            assert_eq!(sums(&found, |row| row as f64), [1.0, 0.0, 9.0, 5.0]);
            assert_eq!((0..4).map(|group| found.count(group)).collect::<Vec<_>>(), [2.0, 0.0, 3.0, 1.0]);
            assert_eq!(found.first_bad, None);
        }
    }

    #[test]
    fn bad_offsets_and_ids_are_found_and_lead_nowhere_outside() {
        let by = Ragged::Offsets;
        let cases: [(&[i64], u64); 6] = [
            (&[1, 2, 4], 0),
            (&[0, 5, 4], 1),
            (&[0, -1, 4], 1),
            (&[0, 3, 2], 2),
            (&[0, 2, 5], 2),
            (&[0, i64::from(i32::MAX), i64::from(u32::MAX)], 1),
        ];
        for (values, index) in cases {
            let found = groups(by, [4, 2], values);
            assert_eq!(found.first_bad.map(|bad| bad.0), Some(index), "{values:?}");
            assert!(found.rows.iter().all(|rows| rows.start <= rows.end && rows.end <= 4), "{values:?}");
            assert!(found.group.iter().flatten().all(|group| *group < 2), "{values:?}");
            assert!(sums(&found, |_| 1.0).iter().any(|sum| sum.is_nan()), "{values:?}");
        }
        let by = Ragged::Ids { groups: 3 };
        for (values, index) in [([0, 1, 0, 2], 2), ([0, 3, 3, 3], 1), ([-1, 0, 1, 2], 0), ([2, 1, 0, -1], 1)] {
            let found = groups(by, [4, 3], &values);
            assert_eq!(found.first_bad.map(|bad| bad.0), Some(index), "{values:?}");
            assert_eq!((found.rows[0].start, found.rows[2].end), (0, 4), "{values:?}");
            assert!(found.rows.windows(2).all(|pair| pair[0].end == pair[1].start), "{values:?}");
            assert!(sums(&found, |_| 1.0).iter().any(|sum| sum.is_nan()), "{values:?}");
        }
    }

    #[test]
    fn the_error_says_what_would_be_allowed() {
        let text = |by: Ragged, index, found| by.error("cu_seqlens", index, found, [8, 3]).to_string();
        let offsets = Ragged::Offsets;
        let want = "element 1 of `cu_seqlens` is 9: must be 0 to 8 (no less than the offset before it, no more than there \
                    are rows); the results of that group are NaN";
        assert_eq!(text(offsets, 1, [Some(0), Some(9)]), want);
        assert!(text(offsets, 0, [None, Some(1)]).contains("is 1: must be 0 (the first row)"));
        assert!(text(offsets, 3, [Some(4), Some(7)]).contains("is 7: must be 8 (the number of rows)"));
        assert!(text(Ragged::Ids { groups: 3 }, 5, [Some(1), None]).contains("not known): must be 1 to 2 (no less"));
    }
}
