//! How a pass addresses its tensors: single elements, windows of four columns (one vector), or pairs of windows. Pure.

use crate::codegen::{Access, Along, Mode, Pair, Slot};
use crate::lower::{Over, Pass};
use crate::plan::chunk::Pieces;
use crate::plan::problem::{Placement, Problem};
use crate::schedule::{Kernel, may_pair, visited_inputs, width};
use crate::shape::Scope;

/// Fewest columns for which masked windows beat single elements.
const MASKED_COLS: u64 = 64;

/// Width, access and alignment of the windows of a pass.
pub(crate) struct Windows {
    /// Elements per access of a lane: 1, 4 or 8.
    pub width: u32,
    pub access: Vec<Access>,
    /// Index of the tensor whose rows define vector alignment; `None` if every row is aligned.
    pub aligned_to: Option<usize>,
    pub masked: bool,
    /// Whether one lane takes two neighbouring rows, whose elements of 16-bit outputs share words.
    pub row_pairs: bool,
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
    /// Strides of the outer axes and first element of a tensor, modulo `vector` elements (4, or 8 for pairs of windows):
    /// tensors with equal remainders are aligned alike in every row. `None` if no vector is ever loaded.
    fn remainders(&self, slot: Slot, vector: u64) -> Option<[u64; 4]> {
        let placement = self.placement(slot);
        let axes = self.geometry.axes;
        // The rows of a value per group and column are groups, which do not lie along the merged axes.
        if self.scope(slot) == Some(Scope::GroupColumn) {
            return None;
        }
        if !self.has_columns(slot) || along(placement.strides[3]) != Along::Unit {
            return None;
        }
        if placement.whole_bytes < 16.min(vector * placement.dtype.size()) {
            return None;
        }
        let along = |axis: usize| if axes[axis] == 1 { 0 } else { placement.strides[axis] % vector };
        Some([along(0), along(1), along(2), placement.first % vector])
    }

    /// Windows of four columns where vectors of some tensor can be loaded, else single elements. Windows are aligned to
    /// the vectors of a 16-bit output, else of any output, else of an input; if its rows may start inside a vector, the
    /// windows at their ends are masked. A pass that visits no columns has none.
    pub(crate) fn windows(&self, slots: &[Slot], pass: &Pass) -> Windows {
        let axes = self.geometry.axes;
        let single = |&slot: &Slot| {
            let placement = self.placement(slot);
            let along = if self.has_columns(slot) { along(placement.strides[3]) } else { Along::Repeat };
            Access { along, dtype: placement.dtype, vector: false, pair: Pair::Apart }
        };
        let mut access: Vec<Access> = slots.iter().map(single).collect();
        let remainders: Vec<Option<[u64; 4]>> = slots.iter().map(|slot| self.remainders(*slot, 4)).collect();
        let row_pairs = self.has_row_pairs(slots, pass);
        let scalars = |access| Windows { width: 1, access, aligned_to: None, masked: false, row_pairs };
        if row_pairs {
            return scalars(access);
        }
        let packed = |k: &usize| matches!(slots[*k], Slot::Output(_)) && access[*k].dtype.is_packed();
        let rank = |k: &usize| match slots[*k] {
            Slot::Output(_) if access[*k].dtype.is_packed() => 0,
            Slot::Output(_) => 1,
            Slot::Input(input) if self.program.inputs[input].scope == Scope::Element => 2,
            _ => 3,
        };
        let visited = pass.over == Over::Rows && (pass.columns || !self.program.has_rows());
        // Windows are never aligned to a tensor that is read at labels only.
        let fetched = visited_inputs(self.program, pass);
        let has_base = |k: &usize| match slots[*k] {
            Slot::Input(input) => fetched.contains(&input),
            _ => true,
        };
        let primary = (0..slots.len()).filter(|k| remainders[*k].is_some() && has_base(k)).min_by_key(rank);
        let Some(primary) = primary.filter(|_| visited && width(4, self.pinned) == 4) else { return scalars(access) };
        let aligned = axes[3].is_multiple_of(4) && remainders[primary] == Some([0; 4]);
        let flat = self.program.has_rows() || axes[..3] == [1; 3];
        let worth = axes[3] >= MASKED_COLS || (0..slots.len()).any(|k| packed(&k) && remainders[k].is_some());
        if !(aligned || flat && worth) {
            return scalars(access);
        }
        for (access, remainder) in access.iter_mut().zip(&remainders) {
            access.vector = remainder.is_some() && *remainder == remainders[primary];
        }
        let aligned_to = (!aligned).then_some(primary);
        self.paired(slots, pass, Windows { width: 4, access, aligned_to, masked: !aligned, row_pairs })
    }

    /// Whether a lane takes two neighbouring rows: there is one lane a row, rows lie next to each other and columns apart, and
    /// every 16-bit output has the two rows of each pair in one word.
    fn has_row_pairs(&self, slots: &[Slot], pass: &Pass) -> bool {
        let axes = self.geometry.axes;
        let packed: Vec<Slot> = slots.iter().copied().filter(|slot| self.is_packed_of_elements(*slot)).collect();
        let is_even = |slot: &Slot| {
            let Placement { strides, first, .. } = self.placement(*slot);
            let outer = (0..4).filter(|axis| *axis != 2 && axes[*axis] > 1);
            strides[2] == 1 && strides[3] > 1 && first % 2 == 0 && outer.into_iter().all(|axis| strides[axis] % 2 == 0)
        };
        let is_open = self.pinned.kernel.is_none_or(|kernel| kernel == Kernel::RowPairs)
            && self.pinned.lanes.is_none_or(|lanes| lanes == 1);
        let is_whole = !self.phasing.column_range && self.phasing.forward.is_none();
        let rows = self.program.has_rows() && pass.over == Over::Rows && pass.columns;
        let is_plain = pass.known.is_none() && !pass.runs_along_rows();
        rows && is_plain
            && is_open
            && is_whole
            && !packed.is_empty()
            && axes[2].is_multiple_of(2)
            && packed.iter().all(is_even)
            && self.are_pairs_whole(slots, pass)
    }

    fn is_packed_of_elements(&self, slot: Slot) -> bool {
        matches!(slot, Slot::Output(_))
            && self.scope(slot) == Some(Scope::Element)
            && self.placement(slot).dtype.is_packed()
    }

    /// Whether all chunks of a pass begin with the first row of a pair, and have enough rows for one lane to take two.
    fn are_pairs_whole(&self, slots: &[Slot], pass: &Pass) -> bool {
        let Ok(Pieces { cut, pieces }) = self.chunks(pass, slots) else { return false };
        let rows = pieces.first().map_or(0, |chunk| self.items_of(&cut, *chunk));
        (cut.axis < 2 || pieces.len() == 1) && may_pair(pass, [rows, self.geometry.axes[3]], self.limits)
    }

    /// Pairs of windows, if the device loads them faster.
    fn paired(&self, slots: &[Slot], pass: &Pass, windows: Windows) -> Windows {
        let axes = self.geometry.axes;
        let flat = self.program.has_rows() || axes[..3] == [1; 3];
        // Held rows are faster by 8 bytes (H100, 4,096 halves: 89% of a copy, 85% by 16), elements by 16 (Huber: 92 and 88%).
        let by_default = self.limits.wide || !self.program.has_rows();
        let asked = if by_default { width(8, self.pinned) == 8 } else { self.pinned.width >= Some(8) };
        if !flat || axes[3] < MASKED_COLS || !asked || pass.runs_along_rows() {
            return windows;
        }
        let (pair, pairs) = match self.limits.wide {
            true => (Pair::Words64, self.loaded_by_words(slots, pass, &windows)),
            false => (Pair::Halves, self.halves(slots, pass, &windows)),
        };
        let Some(primary) = pairs.iter().position(|is_pair| *is_pair) else { return windows };
        let aligned = axes[3].is_multiple_of(8) && self.remainders(slots[primary], 8) == Some([0; 4]);
        let pairs = pairs.iter().map(|is_pair| if *is_pair { pair } else { Pair::Apart });
        let access = windows.access.iter().zip(pairs).map(|(access, pair)| Access { pair, ..*access }).collect();
        Windows { width: 8, access, aligned_to: (!aligned).then_some(primary), ..windows }
    }

    /// The inputs that are loaded by 64-bit integers: by vectors, at every column, aligned as the first such input, and
    /// not overwritten by their gradients.
    fn loaded_by_words(&self, slots: &[Slot], pass: &Pass, windows: &Windows) -> Vec<bool> {
        let visited = visited_inputs(self.program, pass);
        let is_loaded = |input: usize| visited.contains(&input) && !self.modes.contains(&Mode::InPlace(input));
        let is_wide = |k: usize| matches!(slots[k], Slot::Input(input) if windows.access[k].vector && is_loaded(input));
        let begin = |k: usize| self.remainders(slots[k], 8);
        let first = (0..slots.len()).find(|k| is_wide(*k)).map(begin);
        (0..slots.len()).map(|k| is_wide(k) && Some(begin(k)) == first).collect()
    }

    /// The inputs and outputs of 16-bit elements, if all tensors whose elements a lane visits are such, loaded and stored
    /// by vectors and aligned alike: then an access is 16 bytes.
    fn halves(&self, slots: &[Slot], pass: &Pass, windows: &Windows) -> Vec<bool> {
        let visited = visited_inputs(self.program, pass);
        let is_visited = |k: usize| match slots[k] {
            Slot::Input(input) => visited.contains(&input) && self.program.inputs[input].scope.has_columns(),
            Slot::Output(output) => self.program.outputs[output].scope.has_columns(),
            _ => false,
        };
        let begin = |k: usize| self.remainders(slots[k], 8);
        let first = (0..slots.len()).find(|k| is_visited(*k)).map(begin);
        let is_half = |k: usize| {
            let access = &windows.access[k];
            access.vector && access.dtype.is_packed() && begin(k).is_some() && Some(begin(k)) == first
        };
        let all = (0..slots.len()).filter(|k| is_visited(*k)).all(is_half);
        (0..slots.len()).map(|k| all && is_visited(k)).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::codegen::Pair;
    use crate::limits::Limits;
    use crate::plan::loss::PreparedLoss;
    use crate::plan::operator::{Conditions, Tensors};
    use crate::plan::spec::{GradMode, PlanSpec};
    use crate::schedule::Pinned;
    use crate::shape::DType;
    use crate::{Loss, losses};

    const WIDE: Limits = Limits { software: true, wide: true, ..Limits::WEBGPU };

    /// Of the last pass: elements at a time; whether they begin early, and are masked; what two windows of each tensor are.
    fn chosen(
        loss: &Loss,
        spec: &PlanSpec,
        limits: &Limits,
        pinned: Pinned,
        edit: fn(&mut Tensors),
    ) -> (u32, [bool; 2], Vec<Pair>) {
        let prepared = PreparedLoss::new(loss, &spec.clone().pin(pinned), limits).unwrap();
        let mut tensors = prepared.planned_tensors().unwrap();
        edit(&mut tensors);
        let (_, choices) = prepared.choose(&tensors, Conditions::default()).unwrap();
        let choice = choices.last().unwrap();
        let variant = &choice.variant;
        let pairs = variant.access.iter().map(|access| access.pair).collect();
        let ends = [variant.aligned_to.is_some(), variant.masked];
        (choice.schedule.width, ends, pairs)
    }

    fn logits(dtype: DType, cols: usize) -> PlanSpec {
        PlanSpec::new().input("input", dtype, &[6, cols]).input("target", DType::I32, &[6]).grad("input")
    }

    #[test]
    fn pairs_of_windows_are_loaded_where_that_is_faster() {
        let of = |spec: &PlanSpec, limits: &Limits, width| {
            let pinned = Pinned { width, ..Pinned::default() };
            let (step, ends, pairs) = chosen(&losses::cross_entropy(), spec, limits, pinned, |_| ());
            (step, ends, pairs.into_iter().find(|pair| *pair != Pair::Apart))
        };
        let words = Some(Pair::Words64);
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            assert_eq!(of(&logits(dtype, 1000), &WIDE, None), (8, [false, false], words));
            assert_eq!(of(&logits(dtype, 1004), &WIDE, None), (8, [true, false], words), "half a pair at an end");
            assert_eq!(of(&logits(dtype, 1001), &WIDE, None), (8, [true, true], words));
            assert_eq!(of(&logits(dtype, 1000), &WIDE, Some(4)), (4, [false, false], None));
            assert_eq!(of(&logits(dtype, 1000), &Limits::WEBGPU, None), (4, [false, false], None));
            let in_place = logits(dtype, 1000).grad_mode("input", GradMode::InPlace);
            assert_eq!(of(&in_place, &WIDE, None), (4, [false, false], None), "what is written over holds words");
        }
        assert_eq!(of(&logits(DType::F32, 60), &WIDE, None), (4, [false, false], None), "too short to gain");
        assert_eq!(of(&logits(DType::F32, 1001), &WIDE, Some(1)).0, 1);
    }

    #[test]
    fn halves_are_accessed_by_sixteen_bytes_where_all_of_a_pass_are_halves() {
        let of = |spec: &PlanSpec, edit| {
            let pinned = Pinned { width: Some(8), ..Pinned::default() };
            let chosen = chosen(&losses::cross_entropy(), spec, &Limits::WEBGPU, pinned, edit);
            let halves = chosen.2.iter().filter(|pair| **pair == Pair::Halves).count();
            (chosen.0, chosen.1, halves)
        };
        assert_eq!(of(&logits(DType::F32, 1000), |_| ()), (4, [false, false], 0), "a vector is 16 bytes already");
        for dtype in [DType::F16, DType::BF16] {
            assert_eq!(of(&logits(dtype, 1000), |_| ()), (8, [false, false], 2), "logits and their gradient");
            assert_eq!(of(&logits(dtype, 1004), |_| ()), (8, [true, false], 2), "half a pair at an end");
            assert_eq!(of(&logits(dtype, 1001), |_| ()), (8, [true, true], 2));
            let in_place = logits(dtype, 1000).grad_mode("input", GradMode::InPlace);
            assert_eq!(of(&in_place, |_| ()).0, 8, "loaded and stored alike");
            let cut = of(&logits(dtype, 1004), |io| io.inputs[0].as_mut().unwrap().whole_bytes = 8);
            assert_eq!(cut, (4, [false, false], 0), "the buffer ends inside the last 16 bytes");
            let shifted = of(&logits(dtype, 1000), |io| io.inputs[0].as_mut().unwrap().offset = 4);
            assert_eq!(shifted, (4, [false, false], 0), "the logits begin elsewhere than their gradient");
        }
    }

    #[test]
    fn tensors_that_begin_elsewhere_in_a_pair_are_loaded_by_vectors() {
        let spec = PlanSpec::new().input("input", DType::F32, &[6, 1000]);
        let spec = spec.input("target", DType::F32, &[6, 1000]).grad("input");
        let pairs = |of: [bool; 2]| {
            let of = of.map(|is_pair| if is_pair { Pair::Words64 } else { Pair::Apart });
            of.into_iter().chain([Pair::Apart]).collect::<Vec<_>>()
        };
        let of = |edit| chosen(&losses::mse(), &spec, &WIDE, Pinned::default(), edit);
        assert_eq!(of(|_| ()), (8, [false, false], pairs([true, true])));
        let shifted = of(|io| io.inputs[1].as_mut().unwrap().offset = 4);
        assert_eq!(shifted, (8, [false, false], pairs([true, false])), "4 elements further: a vector, no pair");
        let first = of(|io| io.inputs[0].as_mut().unwrap().offset = 4);
        assert_eq!(first, (8, [true, false], pairs([true, false])), "aligned to the first of them");
    }
}
