//! Shape and strides of one tensor, and whether two of its elements share an offset.

/// Shape and element strides of a tensor; stride 0 repeats.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Size of each axis.
    pub shape: Vec<usize>,
    /// Per axis, the distance in elements from one index to the next.
    pub strides: Vec<usize>,
}

impl Layout {
    /// Row-major, without gaps.
    pub fn contiguous(shape: &[usize]) -> Layout {
        let mut strides = vec![0; shape.len()];
        let mut step = 1usize;
        for (stride, &size) in strides.iter_mut().zip(shape).rev() {
            *stride = step;
            step = step.saturating_mul(size);
        }
        Layout { shape: shape.to_vec(), strides }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        // 0 if any size is 0, even where the product of the others would saturate.
        if self.is_empty() { 0 } else { self.shape.iter().fold(1, |n, &size| n.saturating_mul(size)) }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// One past the largest offset of an element.
    pub fn extent(&self) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let last = |(&size, &stride): (&usize, &usize)| (size as u64 - 1).saturating_mul(stride as u64);
        self.shape.iter().zip(&self.strides).map(last).fold(1, u64::saturating_add)
    }

    /// Whether two elements share an offset, so that one write would overwrite the other. True as well for a layout
    /// that no memory holds, and for one on which the search (three or more interleaved axes) exceeds its steps.
    pub fn overlaps_itself(&self) -> bool {
        if self.is_empty() {
            return false;
        }
        // Below this extent, no product overflows 128 bits.
        if self.extent() > i64::MAX as u64 {
            return true;
        }
        let axes = self.shape.iter().zip(&self.strides).filter(|(size, _)| **size > 1);
        let mut axes: Vec<Axis> =
            axes.map(|(&size, &stride)| Axis { most: size as i128 - 1, stride: stride as i128 }).collect();
        axes.sort_by_key(|axis| axis.stride);
        // An axis whose stride exceeds the reach of all shorter axes cannot cause an overlap.
        while let Some((last, shorter)) = axes.split_last() {
            if last.stride <= reach(shorter) {
                break;
            }
            axes.pop();
        }
        let mut steps = SEARCH_STEPS;
        !axes.is_empty() && meets(&axes, 0, true, &mut steps)
    }
}

/// Most steps of a search for two elements at one offset.
const SEARCH_STEPS: u32 = 1 << 16;

/// An axis: elements are `stride` apart, and indices differ by at most `most`.
#[derive(Clone, Copy, Debug)]
struct Axis {
    most: i128,
    stride: i128,
}

/// The largest difference of two offsets along these axes.
fn reach(axes: &[Axis]) -> i128 {
    axes.iter().fold(0, |sum: i128, axis| sum.saturating_add(axis.most.saturating_mul(axis.stride)))
}

/// Whether index differences, not all 0, make an offset difference of `want`. Axes are sorted by stride; `all_zero` is
/// whether the differences along larger axes, chosen before, are all 0. True if `steps` runs out.
fn meets(axes: &[Axis], want: i128, all_zero: bool, steps: &mut u32) -> bool {
    let Some(left) = steps.checked_sub(1) else { return true };
    *steps = left;
    match axes {
        [] => want == 0 && !all_zero,
        // A stride of 0 repeats.
        [first, ..] if first.stride == 0 => true,
        [one] => match want {
            0 => !all_zero,
            _ => want % one.stride == 0 && (want / one.stride).abs() <= one.most,
        },
        [low, high] => pair_meets(*low, *high, want, all_zero),
        [shorter @ .., last] => {
            let rest = reach(shorter);
            // A difference and its negative are the same pair of elements.
            let least = if all_zero { 0 } else { (want - rest).div_euclid(last.stride).max(-last.most) };
            let most = (want + rest).div_euclid(last.stride).min(last.most);
            let mut by = least;
            while by <= most {
                if meets(shorter, want - by * last.stride, all_zero && by == 0, steps) {
                    return true;
                }
                by += 1;
            }
            false
        }
    }
}

/// As [`meets`], for two axes, exactly: `a·x + b·y = want` with `|x|` and `|y|` within bounds.
fn pair_meets(low: Axis, high: Axis, want: i128, all_zero: bool) -> bool {
    let (a, b) = (low.stride, high.stride);
    let (divisor, inverse) = gcd_and_inverse(b, a);
    if want == 0 && all_zero {
        return b / divisor <= low.most && a / divisor <= high.most;
    }
    if want % divisor != 0 {
        return false;
    }
    // y solves b·y = want modulo a, so solutions lie a/gcd apart; x is within its bounds for y in between.
    let period = a / divisor;
    let first = ((want / divisor).rem_euclid(period) * inverse.rem_euclid(period)).rem_euclid(period);
    let ceil = |n: i128, d: i128| -(-n).div_euclid(d);
    let least = ceil(want - a * low.most, b).max(-high.most);
    let most = (want + a * low.most).div_euclid(b).min(high.most);
    // The lowest solution that is not below the least.
    let y = least + (first - least).rem_euclid(period);
    y <= most
}

/// The greatest common divisor `d` of `b` and `a`, and an inverse of `b/d` modulo `a/d`.
fn gcd_and_inverse(b: i128, a: i128) -> (i128, i128) {
    let ((mut r, mut next_r), (mut s, mut next_s)) = ((b, a), (1i128, 0i128));
    while next_r != 0 {
        let quotient = r / next_r;
        (r, next_r) = (next_r, r - quotient * next_r);
        (s, next_s) = (next_s, s - quotient * next_s);
    }
    (r, s)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Too simple to be wrong: visits every offset.
    fn overlaps(layout: &Layout) -> bool {
        let mut offsets = vec![0usize];
        for (&size, &stride) in layout.shape.iter().zip(&layout.strides) {
            offsets = offsets.iter().flat_map(|offset| (0..size).map(move |k| offset + k * stride)).collect();
        }
        let count = offsets.len();
        offsets.sort_unstable();
        offsets.dedup();
        offsets.len() < count
    }

    #[test]
    fn layouts_overlap_themselves_where_two_elements_share_a_place() {
        let of = |shape: &[usize], strides: &[usize]| Layout { shape: shape.to_vec(), strides: strides.to_vec() };
        // Sliding windows, repeats; then transposed, padded, sliced, interleaved without a shared offset.
        for (shape, strides) in
            [(&[4, 4][..], &[1, 1][..]), (&[3, 5], &[2, 1]), (&[4, 2], &[1, 0]), (&[2, 3, 4], &[6, 4, 1])]
        {
            assert!(of(shape, strides).overlaps_itself(), "{shape:?} {strides:?}");
        }
        for (shape, strides) in [
            (&[4, 3][..], &[1, 4][..]),
            (&[4, 3], &[8, 1]),
            (&[4, 3], &[20, 5]),
            (&[2, 3], &[3, 2]),
            (&[1, 4], &[0, 1]),
            (&[0, 4], &[0, 0]),
            (&[], &[]),
            (&[2, 1 << 40], &[1 << 40, 1]),
            (&[1 << 20, 1 << 20], &[1, 1 << 20]),
        ] {
            assert!(!of(shape, strides).overlaps_itself(), "{shape:?} {strides:?}");
        }
        // Decided without visiting 2⁶⁰ offsets, and without a product that wraps.
        assert!(!of(&[1 << 30, 1 << 30], &[(1 << 30) + 1, 1 << 30]).overlaps_itself());
        assert!(of(&[(1 << 30) + 1, (1 << 30) + 2], &[(1 << 30) + 1, 1 << 30]).overlaps_itself());
        assert!(!of(&[2, 2], &[1 << 62, (1 << 61) + 1]).overlaps_itself());
        assert!(of(&[2, 2], &[usize::MAX, 1 << 62]).overlaps_itself(), "no memory holds it");
    }

    proptest::proptest! {
        #[test]
        fn overlap_is_decided_as_by_looking_at_every_place(
            axes in proptest::collection::vec((1usize..6, 0usize..40), 0..5),
        ) {
            let layout = Layout { shape: axes.iter().map(|a| a.0).collect(), strides: axes.iter().map(|a| a.1).collect() };
            proptest::prop_assert_eq!(layout.overlaps_itself(), overlaps(&layout));
        }
    }
}
