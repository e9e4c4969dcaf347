//! The uniform structs of the skeletons: names and word indices of their fields. Compared with naga's in the tests.

use super::sizes::Known;
use super::workspace::Span;
use crate::dispatch::{Field, FieldName, Uniform, Word};
use std::sync::Arc;

/// Most tensors of one dispatch.
pub(crate) const MAX_TENSORS: usize = 16;

/// A uniform struct of the WGSL.
pub(crate) struct UniformType {
    /// Its size in words.
    pub(crate) words: u32,
    /// Each field, and the index of its first word.
    pub(crate) fields: &'static [(&'static str, u32)],
}

/// `Shape` of `common.wgsl`.
pub(crate) static SHAPE: UniformType = UniformType {
    words: 28 + 8 * MAX_TENSORS as u32,
    fields: &[
        ("rows", 0),
        ("cols", 1),
        ("elements", 2),
        ("batch", 3),
        ("group_rows", 4),
        ("group_base", 5),
        ("groups", 6),
        ("splits", 7),
        ("state_base", 8),
        ("edge_base", 9),
        ("reserved0", 10),
        ("slots", 11),
        ("first_col", 12),
        ("classes", 13),
        ("first_split", 14),
        ("states", 15),
        ("items", 16),
        ("first_item", 17),
        ("first_group", 18),
        ("sum_groups", 19),
        ("scan_base", 20),
        ("reserved1", 21),
        ("reserved2", 22),
        ("reserved3", 23),
        ("axes", 24),
        ("tensors", 28),
    ],
};

/// `Span` of `reduce.wgsl`.
pub(crate) static SPAN: UniformType = UniformType {
    words: 8,
    fields: &[("count", 0), ("length", 1), ("segments", 2), ("items_base", 3), ("results_base", 4)],
};

/// `Axes` of `broadcast_sum.wgsl`.
pub(crate) static BROADCAST_SUM: UniformType = UniformType {
    words: 28,
    fields: &[
        ("kept", 0),
        ("summed", 4),
        ("kept_strides", 8),
        ("summed_strides", 12),
        ("target_strides", 16),
        ("values", 20),
        ("repeats", 21),
        ("elements_first", 22),
        ("target_first", 23),
        ("segments", 24),
        ("segment_stride", 25),
        ("reserved0", 26),
        ("reserved1", 27),
    ],
};

/// `Axes` of `narrow.wgsl`.
pub(crate) static NARROW: UniformType = UniformType {
    words: 16,
    fields: &[
        ("sizes", 0),
        ("strides", 4),
        ("target_strides", 8),
        ("values", 12),
        ("elements_first", 13),
        ("target_first", 14),
        ("reserved0", 15),
    ],
};

/// `Rows` of `row_states.wgsl`.
pub(crate) static ROW_STATES: UniformType = UniformType {
    words: 8,
    fields: &[
        ("rows", 0),
        ("count", 1),
        ("source_first", 2),
        ("source_row", 3),
        ("source_state", 4),
        ("result_first", 5),
        ("result_row", 6),
        ("reserved0", 7),
    ],
};

/// `Half` of `scalar.wgsl`.
pub(crate) static HALF: UniformType =
    UniformType { words: 4, fields: &[("element", 0), ("slot", 1), ("reserved0", 2), ("reserved1", 3)] };

/// `Place` of `found.wgsl`.
pub(crate) static PLACE: UniformType =
    UniformType { words: 4, fields: &[("element", 0), ("reserved0", 1), ("reserved1", 2), ("reserved2", 3)] };

/// A uniform buffer in the making. Words that are 0 for every shape are left out.
pub(crate) struct Filled<N> {
    ty: &'static UniformType,
    fields: Vec<Field<N>>,
}

impl UniformType {
    pub(crate) fn fill<N: Known>(&'static self) -> Filled<N> {
        Filled { ty: self, fields: Vec::with_capacity(self.fields.len()) }
    }

    /// Compares it with the struct of that name.
    #[cfg(test)]
    pub(crate) fn check(&self, wgsl: &str, name: &str) {
        let module = naga::front::wgsl::parse_str(wgsl).unwrap();
        let found = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name));
        let (_, found) = found.unwrap_or_else(|| panic!("no struct {name}"));
        let naga::TypeInner::Struct { members, span } = &found.inner else { panic!("{name} is no struct") };
        let theirs: Vec<(&str, u32)> = members.iter().map(|m| (m.name.as_deref().unwrap(), m.offset / 4)).collect();
        assert_eq!(theirs, self.fields, "{name}");
        assert!(4 * self.words >= *span && self.words.is_multiple_of(4), "{name}: {} words, {span} bytes", self.words);
    }

    fn index(&self, name: &str) -> u32 {
        let found = self.fields.iter().find(|field| field.0 == name);
        found.map(|field| field.1).expect("the uniform struct has a field of this name")
    }
}

impl<N: Known> Filled<N> {
    fn push(&mut self, name: FieldName, index: u32, word: Word<N>) {
        if !matches!(&word, Word::Count(count) | Word::Float(count) if count.is_zero()) {
            self.fields.push(Field { name, index, word });
        }
    }

    pub(crate) fn count(mut self, name: &'static str, count: N) -> Filled<N> {
        let index = self.ty.index(name);
        self.push(FieldName::Field(name), index, Word::Count(count));
        self
    }

    pub(crate) fn float(mut self, name: &'static str, count: N) -> Filled<N> {
        let index = self.ty.index(name);
        self.push(FieldName::Field(name), index, Word::Float(count));
        self
    }

    /// A vector of four words.
    pub(crate) fn vector(mut self, name: &'static str, counts: [N; 4]) -> Filled<N> {
        let index = self.ty.index(name);
        for (k, count) in (0..).zip(counts) {
            self.push(FieldName::Component(name, k as usize), index + k, Word::Count(count));
        }
        self
    }

    /// A component of an element of an array of vectors.
    pub(crate) fn element(&mut self, name: &'static str, element: usize, component: usize, count: N) {
        let index = self.ty.index(name) + (4 * element + component) as u32;
        self.fields.retain(|field| field.index != index);
        self.push(FieldName::Element(name, element, component), index, Word::Count(count));
    }

    pub(crate) fn done(self) -> Arc<Uniform<N>> {
        Arc::new(Uniform { words: self.ty.words, fields: self.fields })
    }
}

impl<N: Known> Span<N> {
    /// What a kernel that adds up partial sums reads.
    pub(crate) fn uniform(&self) -> Arc<Uniform<N>> {
        SPAN.fill()
            .count("count", self.count.clone())
            .count("length", self.length.clone())
            .count("segments", self.segments.clone())
            .count("items_base", self.items_base.clone())
            .count("results_base", self.results_base.clone())
            .done()
    }
}

/// The parameters, one after the other.
pub(crate) fn params_uniform<N>(params: usize) -> Arc<Uniform<N>> {
    let field = |k: usize| Field { name: FieldName::Param(k), index: k as u32, word: Word::Param(k) };
    let words = 4 * params.div_ceil(4).max(1) as u32;
    Arc::new(Uniform { words, fields: (0..params).map(field).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codegen::template::{LaneReduce, Skeleton, stub};

    #[test]
    fn word_indices_are_the_shader_compilers() {
        let check =
            |ty: &UniformType, skeleton: Skeleton, name: &str| ty.check(&stub(skeleton, LaneReduce::Tree), name);
        check(&SHAPE, Skeleton::Row, "Shape");
        check(&SPAN, Skeleton::Reduce, "Span");
        check(&SPAN, Skeleton::ColumnFinish, "Span");
        check(&BROADCAST_SUM, Skeleton::BroadcastSum, "Axes");
        check(&NARROW, Skeleton::Narrow, "Axes");
        check(&ROW_STATES, Skeleton::RowStates, "Rows");
        check(&HALF, Skeleton::Scalar, "Half");
        check(&PLACE, Skeleton::Found, "Place");
    }
}
