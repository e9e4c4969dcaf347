//! How a pass reaches its tensors: windows of four columns where vectors can be loaded. Pure.

use super::problem::Problem;
use crate::codegen::{Access, Along, Slot};
use crate::expr::Scope;

/// Columns from which masked windows beat single elements.
const MASKED_COLS: u64 = 64;

/// How the windows of a pass lie.
pub(super) struct Windows {
    pub width: u32,
    pub access: Vec<Access>,
    pub aligned_to: Option<usize>,
}

impl Windows {
    pub fn vector(&self, slots: &[Slot], slot: Slot) -> bool {
        slots.iter().zip(&self.access).any(|(s, access)| *s == slot && access.vector)
    }
}

fn along(stride: u64) -> Along {
    match stride {
        0 => Along::Repeat,
        1 => Along::Unit,
        _ => Along::Strided,
    }
}

impl Problem<'_> {
    /// Where in a vector each row of a tensor begins, as remainders; `None` where a vector is never loaded.
    fn remainders(&self, slot: Slot) -> Option<[u64; 4]> {
        let place = self.place(slot);
        let axes = self.geometry.axes;
        if !self.has_columns(slot) || along(place.strides[3]) != Along::Unit || !place.whole_vectors {
            return None;
        }
        let along = |axis: usize| if axes[axis] == 1 { 0 } else { place.strides[axis] % 4 };
        Some([along(0), along(1), along(2), place.first % 4])
    }

    /// Windows of four columns wherever some tensor can be reached by vectors. They are aligned to the vectors of a
    /// 16-bit output, else of any output, else of an input; rows that begin elsewhere in a vector each are masked.
    /// Rows by themselves, whose pass visits no columns, have none.
    pub(super) fn windows(&self, slots: &[Slot], columns: bool) -> Windows {
        let axes = self.geometry.axes;
        let single = |&slot: &Slot| {
            let place = self.place(slot);
            let along = if self.has_columns(slot) { along(place.strides[3]) } else { Along::Repeat };
            Access { along, dtype: place.dtype, vector: false }
        };
        let mut access: Vec<Access> = slots.iter().map(single).collect();
        let remainders: Vec<Option<[u64; 4]>> = slots.iter().map(|slot| self.remainders(*slot)).collect();
        let scalars = |access| Windows { width: 1, access, aligned_to: None };
        let packed = |k: &usize| matches!(slots[*k], Slot::Output(_)) && access[*k].dtype.is_packed();
        let rank = |k: &usize| match slots[*k] {
            Slot::Output(_) if access[*k].dtype.is_packed() => 0,
            Slot::Output(_) => 1,
            Slot::Input(place) if self.program.inputs[place].scope == Scope::Element => 2,
            _ => 3,
        };
        let visited = columns || !self.program.has_rows();
        let primary = (0..slots.len()).filter(|k| remainders[*k].is_some()).min_by_key(rank);
        let Some(primary) = primary.filter(|_| visited && self.force.width != Some(1)) else { return scalars(access) };
        let aligned = axes[3].is_multiple_of(4) && remainders[primary] == Some([0; 4]);
        let flat = self.program.has_rows() || axes[..3] == [1; 3];
        let worth = axes[3] >= MASKED_COLS || (0..slots.len()).any(|k| packed(&k) && remainders[k].is_some());
        if !(aligned || flat && worth) {
            return scalars(access);
        }
        for (access, remainder) in access.iter_mut().zip(&remainders) {
            access.vector = remainder.is_some() && *remainder == remainders[primary];
        }
        Windows { width: 4, access, aligned_to: (!aligned).then_some(primary) }
    }
}
