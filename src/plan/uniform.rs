//! The uniform structs that kernels share, as bytes. Offsets are compared with naga's in the tests.

use crate::plan::workspace::Span;
use bytemuck::{Pod, Zeroable};

/// Tensors of one dispatch, at most.
pub(crate) const MAX_TENSORS: usize = 16;

/// `Shape` of `common.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct ShapeUniform {
    pub rows: u32,
    pub cols: u32,
    pub elements: f32,
    pub batch: u32,
    pub group_rows: u32,
    pub group_base: u32,
    pub groups: u32,
    pub splits: u32,
    pub state_base: u32,
    pub edge_base: u32,
    pub reserved: u32,
    pub slots: u32,
    pub first_col: u32,
    pub classes: u32,
    pub first_split: u32,
    pub states: u32,
    pub items: u32,
    pub first_item: u32,
    pub first_group: u32,
    pub sum_groups: u32,
    pub axes: [u32; 4],
    /// Strides, then (first element, 0, 0, 0), of each tensor.
    pub tensors: [[u32; 4]; 2 * MAX_TENSORS],
}

/// `Span` of `reduce.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(crate) struct SpanUniform {
    pub count: u32,
    pub length: u32,
    pub segments: u32,
    pub items_base: u32,
    pub results_base: u32,
    pub padding: [u32; 3],
}

impl From<&Span> for SpanUniform {
    fn from(span: &Span) -> SpanUniform {
        SpanUniform {
            count: span.count as u32,
            length: span.length as u32,
            segments: span.segments as u32,
            items_base: span.items_base as u32,
            results_base: span.results_base as u32,
            padding: [0; 3],
        }
    }
}

/// `Axes` of `broadcast_sum.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct AxesUniform {
    pub kept: [u32; 4],
    pub summed: [u32; 4],
    pub kept_strides: [u32; 4],
    pub summed_strides: [u32; 4],
    pub target_strides: [u32; 4],
    pub values: u32,
    pub repeats: u32,
    pub elements_first: u32,
    pub target_first: u32,
    pub segments: u32,
    pub segment_stride: u32,
    pub reserved: [u32; 2],
}

/// `Rows` of `row_states.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub(crate) struct StatesUniform {
    pub rows: u32,
    pub count: u32,
    pub source_first: u32,
    pub source_row: u32,
    pub source_state: u32,
    pub result_first: u32,
    pub result_row: u32,
    pub reserved: u32,
}

/// `Axes` of `narrow.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct NarrowUniform {
    pub sizes: [u32; 4],
    pub strides: [u32; 4],
    pub target_strides: [u32; 4],
    pub values: u32,
    pub elements_first: u32,
    pub target_first: u32,
    pub reserved: u32,
}

/// `Half` of `scalar.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(crate) struct HalfUniform {
    pub element: u32,
    pub slot: u32,
    pub reserved: [u32; 2],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codegen::template::{Gather, Skeleton, stub};
    use std::mem::{offset_of, size_of};

    fn naga_offsets(source: &str, name: &str) -> (Vec<(String, u32)>, u32) {
        let module = naga::front::wgsl::parse_str(source).unwrap();
        let found = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name));
        let (_, ty) = found.unwrap_or_else(|| panic!("no struct {name}"));
        let naga::TypeInner::Struct { members, span } = &ty.inner else { panic!("{name} is no struct") };
        (members.iter().map(|m| (m.name.clone().unwrap(), m.offset)).collect(), *span)
    }

    #[test]
    fn offsets_are_the_shader_compilers() {
        let (shape, span) = naga_offsets(&stub(Skeleton::Row, Gather::Tree), "Shape");
        let ours = [
            ("rows", offset_of!(ShapeUniform, rows)),
            ("batch", offset_of!(ShapeUniform, batch)),
            ("group_base", offset_of!(ShapeUniform, group_base)),
            ("splits", offset_of!(ShapeUniform, splits)),
            ("state_base", offset_of!(ShapeUniform, state_base)),
            ("edge_base", offset_of!(ShapeUniform, edge_base)),
            ("reserved0", offset_of!(ShapeUniform, reserved)),
            ("slots", offset_of!(ShapeUniform, slots)),
            ("first_col", offset_of!(ShapeUniform, first_col)),
            ("states", offset_of!(ShapeUniform, states)),
            ("items", offset_of!(ShapeUniform, items)),
            ("sum_groups", offset_of!(ShapeUniform, sum_groups)),
            ("axes", offset_of!(ShapeUniform, axes)),
            ("tensors", offset_of!(ShapeUniform, tensors)),
        ];
        for (name, offset) in ours {
            assert!(shape.contains(&(name.to_owned(), offset as u32)), "{name} at {offset}: {shape:?}");
        }
        assert_eq!(span as usize, size_of::<ShapeUniform>());
        let (axes, span) = naga_offsets(&stub(Skeleton::BroadcastSum, Gather::Tree), "Axes");
        assert!(axes.contains(&("values".to_owned(), offset_of!(AxesUniform, values) as u32)));
        assert!(axes.contains(&("segment_stride".to_owned(), offset_of!(AxesUniform, segment_stride) as u32)));
        assert_eq!(span as usize, size_of::<AxesUniform>());
        let (axes, span) = naga_offsets(&stub(Skeleton::Narrow, Gather::Tree), "Axes");
        assert!(axes.contains(&("target_first".to_owned(), offset_of!(NarrowUniform, target_first) as u32)));
        assert_eq!(span as usize, size_of::<NarrowUniform>());
        let (half, span) = naga_offsets(&stub(Skeleton::Scalar, Gather::Tree), "Half");
        assert!(half.contains(&("slot".to_owned(), offset_of!(HalfUniform, slot) as u32)));
        assert_eq!(span as usize, size_of::<HalfUniform>());
        let (rows, span) = naga_offsets(&stub(Skeleton::RowStates, Gather::Tree), "Rows");
        assert!(rows.contains(&("source_state".to_owned(), offset_of!(StatesUniform, source_state) as u32)));
        assert!(rows.contains(&("result_row".to_owned(), offset_of!(StatesUniform, result_row) as u32)));
        assert_eq!(span as usize, size_of::<StatesUniform>());
        let (members, _) = naga_offsets(&stub(Skeleton::Reduce, Gather::Tree), "Span");
        assert!(members.contains(&("results_base".to_owned(), offset_of!(SpanUniform, results_base) as u32)));
        let (scalars, _) = naga_offsets(&stub(Skeleton::Reduce, Gather::Tree), "Scalars");
        assert!(scalars.contains(&("values".to_owned(), 4)));
    }
}
