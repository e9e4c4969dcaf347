//! Tensors larger than a binding: a pass runs once for each chunk of the outermost axis. Pure numbers.

use super::problem::Place;
use crate::error::{Error, Result};
use std::ops::Range;

/// Consecutive indices of the outermost axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub first: u64,
    pub len: u64,
}

/// What decides how a pass is cut.
pub(super) struct Cut {
    /// Sizes of the merged axes.
    pub axes: [u64; 4],
    /// The axis that is cut.
    pub axis: usize,
    /// Bytes of a binding, at most.
    pub binding_bytes: u64,
    /// Alignment of a binding's offset, in bytes.
    pub alignment: u64,
}

impl Cut {
    /// The outermost axis with more than one index, of the axes that items lie along.
    pub fn new(axes: [u64; 4], items: usize, binding_bytes: u64, alignment: u64) -> Cut {
        let axis = (0..items).find(|&axis| axes[axis] > 1).unwrap_or(items - 1);
        Cut { axes, axis, binding_bytes, alignment }
    }

    /// Elements from the first to the last of one index of the cut axis.
    fn inner(&self, place: &Place) -> u64 {
        let along = |axis: usize| (self.axes[axis] - 1) * place.strides[axis];
        1 + (0..4).filter(|&axis| axis != self.axis).map(along).sum::<u64>()
    }

    /// Bytes of a chunk in the tensor's buffer: from an aligned offset to the end of the last whole vector.
    pub fn bytes(&self, place: &Place, chunk: Chunk) -> Range<u64> {
        let size = place.dtype.size();
        let first = place.offset + chunk.first * place.strides[self.axis];
        let end = first + (chunk.len - 1) * place.strides[self.axis] + self.inner(place);
        let start = first * size;
        start - start % self.alignment..(end * size).next_multiple_of(16)
    }

    /// First element of a chunk in its binding.
    pub fn first(&self, place: &Place, chunk: Chunk) -> u64 {
        let first = place.offset + chunk.first * place.strides[self.axis];
        first % (self.alignment / place.dtype.size())
    }

    /// The fewest chunks of which each tensor's part fits a binding. All but the last are multiples of four where a
    /// tensor's rows begin anywhere in a vector, so that one kernel serves them all.
    pub fn chunks(&self, tensors: &[(&str, Place)]) -> Result<Vec<Chunk>> {
        let total = self.axes[self.axis];
        let mut len = total;
        let mut step = 1;
        for (name, place) in tensors {
            let whole = self.bytes(place, Chunk { first: 0, len: total });
            if whole.end - whole.start <= self.binding_bytes {
                continue;
            }
            let (size, stride) = (place.dtype.size(), place.strides[self.axis]);
            // What an aligned offset and a whole last vector may add.
            let spare = self.alignment + 16;
            let room = (self.binding_bytes.saturating_sub(spare) / size).checked_sub(self.inner(place));
            let fits = room.filter(|_| stride > 0).map_or(0, |room| room / stride + 1);
            if fits == 0 {
                let what = format!("one row of tensor `{name}`");
                let needed = size * self.inner(place);
                let (allowed, limit) = (self.binding_bytes, "max_storage_buffer_binding_size");
                return Err(Error::Limit { what, needed, allowed, limit });
            }
            len = len.min(fits);
        }
        if len < total && tensors.iter().any(|(_, place)| !place.strides[self.axis].is_multiple_of(4)) {
            step = 4;
        }
        if len < step {
            let what = "four rows of a tensor, whose rows begin anywhere in a vector,".to_owned();
            let needed = tensors.iter().map(|(_, place)| place.dtype.size() * self.inner(place)).max().unwrap_or(0);
            let (allowed, limit) = (self.binding_bytes, "max_storage_buffer_binding_size");
            return Err(Error::Limit { what, needed: 4 * needed, allowed, limit });
        }
        if len < total {
            len -= len % step;
        }
        let starts = (0..total).step_by(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(starts.map(|first| Chunk { first, len: len.min(total - first) }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use proptest::prelude::*;

    fn place(strides: [u64; 4], offset: u64, dtype: DType) -> Place {
        Place { strides, offset, first: 0, dtype, whole_vectors: true }
    }

    #[test]
    fn what_fits_is_one_chunk() {
        let cut = Cut::new([1, 1, 1024, 1000], 3, 128 << 20, 256);
        let x = place([0, 0, 1000, 1], 0, DType::F32);
        assert_eq!(cut.chunks(&[("input", x)]).unwrap(), [Chunk { first: 0, len: 1024 }]);
    }

    #[test]
    fn a_row_larger_than_a_binding_is_named() {
        let cut = Cut::new([1, 1, 2, 1 << 20], 3, 1 << 20, 256);
        let x = place([0, 0, 1 << 20, 1], 0, DType::F32);
        assert!(matches!(cut.chunks(&[("input", x)]), Err(Error::Limit { what, .. }) if what.contains("`input`")));
    }

    proptest! {
        /// Every index is in one chunk, every chunk's bytes fit the binding and begin at the phase of the first, also
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
            let x = place([0, 0, cols + pad, 1], offset, dtype);
            let label = place([0, 0, 1, 0], 0, DType::I32);
            let Ok(chunks) = cut.chunks(&[("input", x), ("target", label)]) else {
                prop_assert!(4 * (cols + pad) * dtype.size() + 512 > binding);
                return Ok(());
            };
            let mut next = 0;
            for chunk in &chunks {
                prop_assert_eq!(chunk.first, next);
                next += chunk.len;
                for tensor in [&x, &label] {
                    let bytes = cut.bytes(tensor, *chunk);
                    prop_assert!(bytes.end - bytes.start <= binding && bytes.start.is_multiple_of(256));
                    prop_assert_eq!(cut.first(tensor, *chunk) % 4, cut.first(tensor, chunks[0]) % 4);
                    // The chunk's first element lies where its binding says.
                    let first = tensor.offset + chunk.first * tensor.strides[2];
                    prop_assert_eq!(bytes.start / tensor.dtype.size() + cut.first(tensor, *chunk), first);
                }
            }
            prop_assert_eq!(next, rows);
        }
    }
}
