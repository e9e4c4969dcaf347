//! Tensors larger than a binding: a pass runs once per chunk of the outermost axis; rows that do not fit are cut
//! along the columns too. Pure numbers.

use crate::error::{Error, Result};
use crate::plan::problem::Placement;
use std::ops::Range;

/// Consecutive indices of the cut axis, and consecutive columns of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub first: u64,
    pub len: u64,
    pub first_col: u64,
    pub cols: u64,
}

/// The axis along which a pass is cut, and the limits that its chunks must meet.
pub(crate) struct Cut {
    /// Sizes of the merged axes.
    pub axes: [u64; 4],
    /// The axis that is cut.
    pub axis: usize,
    /// Largest bytes of a binding.
    pub binding_bytes: u64,
    /// Alignment of a binding's offset, in bytes.
    pub alignment: u64,
    /// Rows per group, where a chunk must have whole groups, or a group whole chunks; 0 where it need not.
    pub group_rows: u64,
}

/// Bytes of the longest vector that kernels load.
const LONGEST: u64 = 32;

/// Columns that a chunk of innermost columns is a multiple of.
const STEP: u64 = 64;

/// Most chunks of one pass: each is a dispatch of its own.
const MOST_CHUNKS: u64 = 1 << 16;

/// A cut, and the chunks that it makes.
pub(crate) struct Pieces {
    pub cut: Cut,
    pub pieces: Vec<Chunk>,
}

impl Cut {
    /// Cuts the outermost of the first `items` axes that has more than one index.
    pub fn new(axes: [u64; 4], items: usize, binding_bytes: u64, alignment: u64) -> Cut {
        let axis = (0..items).find(|&axis| axes[axis] > 1).unwrap_or(items - 1);
        Cut { axes, axis, binding_bytes, alignment, group_rows: 0 }
    }

    /// All columns of `len` indices from `first` on.
    pub fn all_columns(&self, first: u64, len: u64) -> Chunk {
        Chunk { first, len, first_col: 0, cols: self.axes[3] }
    }

    /// Elements from the first to the last of one index of the cut axis.
    fn inner(&self, placement: &Placement, cols: u64) -> u64 {
        let size = |axis: usize| if axis == 3 { cols } else { self.axes[axis] };
        let along = |axis: usize| (size(axis) - 1) * placement.strides[axis];
        1 + (0..4).filter(|&axis| axis != self.axis).map(along).sum::<u64>()
    }

    /// First element of a chunk in its buffer.
    fn start(&self, placement: &Placement, chunk: Chunk) -> u64 {
        // A cut along axis 3 is one of elements: `first` counts them.
        let columns = if self.axis == 3 { 0 } else { chunk.first_col * placement.strides[3] };
        placement.offset + chunk.first * placement.strides[self.axis] + columns
    }

    /// Bytes of a chunk in the tensor's buffer, from an aligned offset to the end of its last vector. A chunk shorter
    /// than the longest vector starts one alignment earlier, where the buffer has it.
    pub fn bytes(&self, placement: &Placement, chunk: Chunk) -> Range<u64> {
        let size = placement.dtype.size();
        let first = self.start(placement, chunk);
        let end = first + (chunk.len - 1) * placement.strides[self.axis] + self.inner(placement, chunk.cols);
        let (start, end) = (first * size, (end * size).next_multiple_of(16));
        let begin = start - start % self.alignment;
        if end - begin < LONGEST { begin.saturating_sub(self.alignment)..end } else { begin..end }
    }

    /// First element of a chunk in its binding.
    pub fn first(&self, placement: &Placement, chunk: Chunk) -> u64 {
        self.start(placement, chunk) - self.bytes(placement, chunk).start / placement.dtype.size()
    }

    /// The fewest chunks whose bytes of each tensor fit a binding. `parts` says whether a row may be cut.
    pub fn chunks(&self, tensors: &[(&str, Placement)], parts: bool) -> Result<Vec<Chunk>> {
        let total = self.axes[self.axis];
        let mut len = total;
        for (name, placement) in tensors {
            let whole = self.bytes(placement, self.all_columns(0, total));
            if whole.end - whole.start <= self.binding_bytes {
                continue;
            }
            let stride = placement.strides[self.axis];
            let room = self.room(placement).checked_sub(self.inner(placement, self.axes[3]));
            let fits = room.filter(|_| stride > 0 || total == 1).map_or(0, |room| room / stride.max(1) + 1);
            if fits == 0 && parts && self.axis < 3 {
                return self.column_chunks(tensors);
            }
            if fits == 0 {
                return Err(self.too_large(name, placement, self.axes[3]));
            }
            len = len.min(fits);
        }
        if len < total && self.axis == 3 {
            // Elements are cut at pairs of vectors, so that one kernel serves all chunks.
            len -= len % 8;
        }
        len = self.whole_groups(len)?;
        check_count(total.div_ceil(len))?;
        let starts = (0..total).step_by(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(starts.map(|first| self.all_columns(first, len.min(total - first))).collect())
    }

    /// Chunks of at most so many whole rows, for a software adapter that stops workgroups which take many.
    pub fn chunks_of_rows(&self, rows: u64) -> Result<Vec<Chunk>> {
        let (total, inner) = (self.axes[self.axis], self.axes[self.axis + 1..3].iter().product::<u64>());
        let len = rows / inner.max(1);
        if len == 0 {
            let message =
                format!("{inner} rows of one dispatch on a software adapter, which stops long loops after {rows}");
            return Err(Error::Unsupported { message });
        }
        check_count(total.div_ceil(len))?;
        let starts = (0..total).step_by(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(starts.map(|first| self.all_columns(first, len.min(total - first))).collect())
    }

    /// The most indices of the cut axis, up to `len`, of which a chunk has whole groups, or a group whole chunks.
    fn whole_groups(&self, len: u64) -> Result<u64> {
        if self.group_rows == 0 || len == self.axes[self.axis] {
            return Ok(len);
        }
        let inner: u64 = self.axes[self.axis + 1..3].iter().product();
        let (mut divisor, mut rest) = (self.group_rows, inner);
        while rest > 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        let unit = self.group_rows / divisor;
        if len >= unit {
            return Ok(len - len % unit);
        }
        let divides = |len: &u64| self.group_rows.is_multiple_of(len * inner);
        (1..=len).rev().find(divides).ok_or_else(|| {
            let (rows, chunk) = (self.group_rows, len * inner);
            let message = format!(
                "sums over groups of {rows} rows for each column, of a tensor of which a binding holds {chunk} rows, neither \
                 whole groups nor a divisor of one; choose other group_rows, or bind fewer rows at a time"
            );
            Error::Unsupported { message }
        })
    }

    /// Elements that fit a binding at any offset.
    fn room(&self, placement: &Placement) -> u64 {
        // Up to `alignment` bytes precede the first element, and 16 follow the last one.
        self.binding_bytes.saturating_sub(self.alignment + 16) / placement.dtype.size()
    }

    fn too_large(&self, name: &str, placement: &Placement, cols: u64) -> Error {
        let (what, needed) =
            (format!("one row of tensor `{name}`"), placement.dtype.size() * self.inner(placement, cols));
        Error::Limit { what, needed, allowed: self.binding_bytes, limit: "max_storage_buffer_binding_size" }
    }

    /// The fewest column ranges that fit a binding (where columns are innermost, all but the last with a multiple of `STEP`
    /// columns): of all rows, where classes lie at axis 1, or of one row per chunk.
    fn column_chunks(&self, tensors: &[(&str, Placement)]) -> Result<Vec<Chunk>> {
        // Where columns are innermost, chunks start at whole vectors.
        let is_innermost = tensors.iter().any(|(_, placement)| placement.strides[3] == 1 && placement.strides[2] != 0);
        let unit = if is_innermost { STEP } else { 1 };
        let (total, cols) = (self.axes[self.axis], self.axes[3]);
        // Columns of a tensor that fit a binding in a chunk of `rows` rows.
        let fits = |placement: &Placement, rows: u64| {
            let one = self.inner(placement, 1).saturating_add((rows - 1).saturating_mul(placement.strides[self.axis]));
            match self.room(placement).checked_sub(one) {
                Some(room) => room.checked_div(placement.strides[3]).map_or(cols, |more| more + 1),
                None => 0,
            }
        };
        let most = |rows: u64| tensors.iter().map(|(_, placement)| fits(placement, rows)).min().unwrap_or(0).min(cols);
        let least = cols.min(unit);
        // Rows of which the fewest columns fit: all of them, or as many as there is room for.
        let rows_of = |placement: &Placement| {
            let room = self.room(placement).saturating_sub(self.inner(placement, least));
            room.checked_div(placement.strides[self.axis]).map_or(total, |more| more + 1)
        };
        let widest = tensors.iter().map(|(_, placement)| rows_of(placement)).min().unwrap_or(total).clamp(1, total);
        let chunks = |rows: u64| total.div_ceil(rows).saturating_mul(cols.div_ceil(most(rows).max(1)));
        let rows = if most(widest) >= least && chunks(widest) <= chunks(1) { widest } else { 1 };
        let rows = self.whole_groups(rows)?;
        let most = most(rows);
        if most < least {
            let worst = tensors.iter().find(|(_, placement)| fits(placement, rows) < least);
            let (name, placement) = worst.expect("most is the least that fits of any tensor");
            return Err(self.too_large(name, placement, least));
        }
        let step = if most < cols { most - most % unit } else { cols };
        let needed = total.div_ceil(rows).saturating_mul(cols.div_ceil(step));
        check_count(needed)?;
        let chunk = |row: u64, first_col: u64| Chunk {
            first: row,
            len: rows.min(total - row),
            first_col,
            cols: step.min(cols - first_col),
        };
        let by = |step: u64| usize::try_from(step).unwrap_or(usize::MAX);
        let starts = (0..total).step_by(by(rows));
        Ok(starts.flat_map(|row| (0..cols).step_by(by(step)).map(move |col| chunk(row, col))).collect())
    }
}

fn check_count(needed: u64) -> Result<()> {
    if needed <= MOST_CHUNKS {
        return Ok(());
    }
    let what = "dispatches over parts of a tensor that no binding holds".to_owned();
    Err(Error::Limit { what, needed, allowed: MOST_CHUNKS, limit: "wgloss" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::DType;
    use proptest::prelude::*;

    fn placement(strides: [u64; 4], offset: u64, dtype: DType) -> Placement {
        Placement { strides, offset, first: 0, dtype, whole_bytes: 16, is_empty: false }
    }

    #[test]
    fn what_fits_is_one_chunk() {
        let cut = Cut::new([1, 1, 1024, 1000], 3, 128 << 20, 256);
        let x = placement([0, 0, 1000, 1], 0, DType::F32);
        assert_eq!(cut.chunks(&[("input", x)], true).unwrap(), [cut.all_columns(0, 1024)]);
    }

    #[test]
    fn chunks_have_whole_groups_or_groups_whole_chunks() {
        let len = |inner: u64, group_rows: u64, most: u64| {
            let cut = Cut { group_rows, ..Cut::new([1, 96, inner, 10], 3, 1 << 20, 256) };
            cut.whole_groups(most).map_err(|error| error.to_string())
        };
        // Samples that are groups; groups of two samples, of half a sample, of six in inner rows of four.
        assert_eq!([len(4, 4, 7), len(4, 8, 7), len(4, 2, 7), len(4, 6, 7)], [7, 6, 7, 6].map(Ok));
        // Larger than a chunk: 24 samples in chunks of 8; 96 in chunks of 6.
        assert_eq!([len(4, 96, 8), len(1, 96, 7), len(4, 96 * 4, 96)], [8, 6, 96].map(Ok));
        assert!(len(4, 6, 2).unwrap_err().contains("group_rows"));
    }

    #[test]
    fn a_row_larger_than_a_binding_is_named() {
        let cut = Cut::new([1, 1, 2, 1 << 20], 3, 1 << 20, 256);
        let x = placement([0, 0, 1 << 20, 1], 0, DType::F32);
        assert!(
            matches!(cut.chunks(&[("input", x)], false), Err(Error::Limit { what, .. }) if what.contains("`input`"))
        );
    }

    #[test]
    fn a_row_larger_than_a_binding_is_cut_where_it_may_be() {
        let cut = Cut::new([1, 1, 2, 1_000_003], 3, 1 << 20, 256);
        let x = placement([0, 0, 1_000_003, 1], 5, DType::F32);
        let label = placement([0, 0, 1, 0], 0, DType::I32);
        let chunks = cut.chunks(&[("input", x), ("target", label)], true).unwrap();
        let mut next = [0, 0];
        for chunk in &chunks {
            assert_eq!([chunk.first, chunk.first_col], next, "rows in order, columns without gaps");
            assert_eq!(chunk.first_col % 4, 0, "vectors stay whole");
            let bytes = cut.bytes(&x, *chunk);
            assert!(bytes.end - bytes.start <= 1 << 20 && bytes.start.is_multiple_of(256));
            assert_eq!(bytes.start / 4 + cut.first(&x, *chunk), 5 + chunk.first * 1_000_003 + chunk.first_col);
            next = [chunk.first, chunk.first_col + chunk.cols];
            if next[1] == 1_000_003 {
                next = [chunk.first + 1, 0];
            }
        }
        assert_eq!(next, [2, 0]);
        assert_eq!(chunks.len(), 8, "four parts a row");
    }

    #[test]
    fn a_last_chunk_of_one_element_is_bound_with_what_lies_before() {
        let len = 262_072;
        let cut = Cut::new([1, 1, 1, 8 * len + 1], 4, 1 << 20, 256);
        let x = placement([0, 0, 0, 1], 0, DType::F32);
        let chunks = cut.chunks(&[("input", x)], true).unwrap();
        assert_eq!(
            (chunks.len(), chunks[0].len, chunks[8].len),
            (9, len, 1),
            "the last one begins at an aligned offset"
        );
        assert_eq!(cut.bytes(&x, chunks[8]), 4 * 8 * len - 256..4 * 8 * len + 16);
        assert_eq!(cut.first(&x, chunks[8]), 64);
    }

    proptest! {
        /// Every index is in one chunk, every chunk's bytes fit the binding, also
        /// beyond 2³² elements.
        #[test]
        fn chunks_cover_and_fit(
            rows in 1u64..5_000_000,
            cols in 1u64..200_000,
            pad in 0u64..7,
            offset in 0u64..1000,
            binding in (1u64 << 20)..(1 << 31),
            half in any::<bool>(),
        ) {
            let dtype = if half { DType::BF16 } else { DType::F32 };
            let cut = Cut::new([1, 1, rows, cols], 3, binding, 256);
            let x = placement([0, 0, cols + pad, 1], offset, dtype);
            let label = placement([0, 0, 1, 0], 0, DType::I32);
            let Ok(chunks) = cut.chunks(&[("input", x), ("target", label)], false) else {
                // Not even a row fits, or so few that there would be too many chunks.
                let a_chunk = (binding - 512) / ((cols + pad) * dtype.size());
                prop_assert!(cols * dtype.size() + 512 > binding || rows.div_ceil(a_chunk.max(1)) > MOST_CHUNKS / 2);
                return Ok(());
            };
            let mut next = 0;
            for chunk in &chunks {
                prop_assert_eq!(chunk.first, next);
                next += chunk.len;
                for tensor in [&x, &label] {
                    let bytes = cut.bytes(tensor, *chunk);
                    prop_assert!(bytes.end - bytes.start <= binding && bytes.start.is_multiple_of(256));
                    // The chunk's first element lies where its binding says.
                    let first = tensor.offset + chunk.first * tensor.strides[2];
                    prop_assert_eq!(bytes.start / tensor.dtype.size() + cut.first(tensor, *chunk), first);
                }
            }
            prop_assert_eq!(next, rows);
        }
    }
}
