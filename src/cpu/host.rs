//! Tensors in host memory.

use crate::error::{Error, Result};
use crate::expr::op::Kind;
use crate::shape::{DType, Element, HostElement, Layout, widen_bf16, widen_f16};
use half::{bf16, f16};
use std::borrow::Cow;

/// A tensor in host memory: borrowed numbers with a shape and strides.
///
/// ```
/// use wgloss::HostTensor;
/// let data = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
/// let rows = HostTensor::f32(&data, &[2, 3]);
/// let transposed = HostTensor::f32(&data, &[3, 2]).with_strides(&[1, 3]);
/// assert_eq!(rows.shape(), [2, 3]);
/// assert_eq!(transposed.shape(), [3, 2]);
/// ```
#[derive(Clone, Debug)]
pub struct HostTensor<'a> {
    pub(super) data: Data<'a>,
    pub(super) layout: Layout,
}

#[derive(Clone, Debug)]
pub enum Data<'a> {
    F32(Cow<'a, [f32]>),
    F64(Cow<'a, [f64]>),
    I32(Cow<'a, [i32]>),
    U32(Cow<'a, [u32]>),
}

impl Data<'_> {
    pub fn len(&self) -> usize {
        match self {
            Data::F32(v) => v.len(),
            Data::F64(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::U32(v) => v.len(),
        }
    }

    pub fn is_float(&self) -> bool {
        matches!(self, Data::F32(_) | Data::F64(_))
    }

    /// The class index at an element.
    pub fn index(&self, at: usize) -> i64 {
        match self {
            Data::I32(values) => i64::from(values[at]),
            Data::U32(values) => i64::from(values[at]),
            _ => unreachable!("inputs of indices hold i32 or u32: the plan checked"),
        }
    }

    pub fn is_unsigned(&self) -> bool {
        matches!(self, Data::U32(_))
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Data::F32(_) => "f32",
            Data::F64(_) => "f64",
            Data::I32(_) => "i32",
            Data::U32(_) => "u32",
        }
    }
}

macro_rules! element_types {
    ($($(#[$doc:meta])* $name:ident $type:ty, $variant:ident;)*) => {
        impl<'a> HostTensor<'a> {$(
            $(#[$doc])*
            pub fn $name(data: &'a [$type], shape: &[usize]) -> HostTensor<'a> {
                HostTensor { data: Data::$variant(Cow::Borrowed(data)), layout: Layout::contiguous(shape) }
            }
        )*}
        $(
            /// Borrows a view in standard layout; any other is copied.
            impl<'a, D: ndarray::Dimension> From<ndarray::ArrayView<'a, $type, D>> for HostTensor<'a> {
                fn from(view: ndarray::ArrayView<'a, $type, D>) -> HostTensor<'a> {
                    let layout = Layout::contiguous(view.shape());
                    let data = match view.to_slice() {
                        Some(slice) => Cow::Borrowed(slice),
                        None => Cow::Owned(view.iter().copied().collect()),
                    };
                    HostTensor { data: Data::$variant(data), layout }
                }
            }
            /// Borrows an array in standard layout; any other is copied.
            impl<'a, D: ndarray::Dimension> From<&'a ndarray::Array<$type, D>> for HostTensor<'a> {
                fn from(array: &'a ndarray::Array<$type, D>) -> HostTensor<'a> {
                    array.view().into()
                }
            }
        )*
    };
}

element_types! {
    /// Numbers, row-major without gaps.
    f32 f32, F32;
    /// Numbers in double precision, row-major without gaps.
    f64 f64, F64;
    /// Class indices, row-major without gaps.
    i32 i32, I32;
    /// Unsigned class indices, row-major without gaps.
    u32 u32, U32;
}

impl<'a> HostTensor<'a> {
    /// Host values of any type that [`Tensor::from_slice`](crate::Tensor::from_slice) takes, row-major without gaps. Numbers
    /// in f32 and class indices in 32 bits are borrowed, others converted once.
    ///
    /// # Errors
    /// [`Error::Value`] for a class index that 32 bits do not hold; [`Error::Shape`] unless `shape` has `values.len()`
    /// elements.
    pub fn from_slice<T: HostElement>(values: &'a [T], shape: &[usize]) -> Result<HostTensor<'a>> {
        let layout = Layout::contiguous(shape);
        if layout.len() != values.len() {
            let expected = format!("a shape of {} elements", values.len());
            return Err(Error::Shape { input: "from_slice".to_owned(), expected, found: shape.to_vec() });
        }
        Ok(HostTensor { data: data(T::stored("from_slice", values)?), layout })
    }

    /// An array of any type that [`HostTensor::from_slice`] takes, in its logical order.
    ///
    /// ```
    /// use wgloss::HostTensor;
    /// let labels = ndarray::array![[0i64, 2], [1, -100]];
    /// assert_eq!(HostTensor::from_array(&labels)?.shape(), [2, 2]);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`HostTensor::from_slice`].
    pub fn from_array<T, S, D>(array: &'a ndarray::ArrayBase<S, D>) -> Result<HostTensor<'a>>
    where
        T: HostElement,
        S: ndarray::Data<Elem = T>,
        D: ndarray::Dimension,
    {
        let layout = Layout::contiguous(array.shape());
        let data = match array.as_slice() {
            Some(values) => data(T::stored("from_array", values)?),
            None => {
                let values: Vec<T> = array.iter().copied().collect();
                data::<T::Stored>(Cow::Owned(T::stored("from_array", &values)?.into_owned()))
            }
        };
        Ok(HostTensor { data, layout })
    }
}

/// Stored values as the CPU reads them: 16-bit numbers widened, exactly.
fn data<T: Element>(values: Cow<'_, [T]>) -> Data<'_> {
    fn cast<T: Element, U: Element>(values: Cow<'_, [T]>) -> Cow<'_, [U]> {
        match values {
            Cow::Borrowed(values) => Cow::Borrowed(bytemuck::cast_slice(values)),
            Cow::Owned(values) => Cow::Owned(bytemuck::cast_slice(&values).to_vec()),
        }
    }
    match T::DTYPE {
        DType::F32 => Data::F32(cast(values)),
        DType::F16 => Data::F32(Cow::Owned(widen_f16(bytemuck::cast_slice(&values)))),
        DType::BF16 => Data::F32(Cow::Owned(widen_bf16(bytemuck::cast_slice(&values)))),
        DType::I32 => Data::I32(cast(values)),
        DType::U32 => Data::U32(cast(values)),
    }
}

impl HostTensor<'_> {
    /// Half-precision numbers, row-major without gaps; widened once, exactly.
    pub fn f16(data: &[f16], shape: &[usize]) -> HostTensor<'static> {
        HostTensor { data: Data::F32(Cow::Owned(widen_f16(data))), layout: Layout::contiguous(shape) }
    }

    /// Brain floats, row-major without gaps; widened once, exactly.
    pub fn bf16(data: &[bf16], shape: &[usize]) -> HostTensor<'static> {
        HostTensor { data: Data::F32(Cow::Owned(widen_bf16(data))), layout: Layout::contiguous(shape) }
    }

    /// The same numbers with these strides, in elements; 0 repeats. They are checked when the tensor is used.
    #[must_use]
    pub fn with_strides(mut self, strides: &[usize]) -> Self {
        self.layout.strides = strides.to_vec();
        self
    }

    /// The same values in another layout.
    pub(crate) fn with_layout(self, layout: Layout) -> Self {
        HostTensor { layout, ..self }
    }

    /// The number at an element.
    pub(crate) fn number(&self, at: usize) -> f64 {
        match &self.data {
            Data::F32(values) => f64::from(values[at]),
            Data::F64(values) => values[at],
            Data::I32(values) => f64::from(values[at]),
            Data::U32(values) => f64::from(values[at]),
        }
    }

    /// The class index (offset, length) at an element.
    pub(crate) fn index(&self, at: usize) -> i64 {
        self.data.index(at)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// An error unless the input of that name holds numbers or indices, as `kind` says, and its layout lies within them.
    pub(crate) fn check(&self, name: &str, kind: Kind) -> Result<()> {
        let expected = match kind {
            Kind::Float if !self.data.is_float() => "f32 or f64",
            Kind::Int if self.data.is_float() => "i32 or u32",
            _ => "",
        };
        if !expected.is_empty() {
            return Err(self.dtype_error(name, expected));
        }
        let (Layout { shape, strides }, length) = (&self.layout, self.data.len());
        if self.layout.extent() > length as u64 {
            let needed = self.layout.extent();
            let message = format!("{length} elements; shape {shape:?} with strides {strides:?} needs {needed}");
            return Err(Error::Buffer { input: name.to_owned(), message });
        }
        Ok(())
    }

    pub(super) fn dtype_error(&self, input: &str, expected: &str) -> Error {
        let found = self.data.type_name().to_owned();
        Error::DType { input: input.to_owned(), expected: expected.to_owned(), found }
    }

    /// Size of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }
}

/// An empty vector with room for `count` values; an error if there is no memory for them.
pub(super) fn room<T>(what: &str, count: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    match values.try_reserve_exact(count) {
        Ok(()) => Ok(values),
        Err(_) => {
            let bytes = (count as u64).saturating_mul(size_of::<T>() as u64);
            Err(Error::OutOfMemory { what: what.to_owned(), bytes })
        }
    }
}

/// `count` zeros; an error if there is no memory for them.
pub(super) fn zeros<T: Clone + num_traits::Zero>(what: &str, count: usize) -> Result<Vec<T>> {
    let mut values = room(what, count)?;
    values.resize(count, T::zero());
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn views_keep_their_order_and_borrow_where_they_can() {
        let a = array![[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let whole = HostTensor::from(&a);
        assert!(matches!(whole.data, Data::F32(Cow::Borrowed(_))));
        let turned = HostTensor::from(a.t());
        assert_eq!(turned.shape(), [3, 2]);
        assert!(matches!(&turned.data, Data::F32(Cow::Owned(v)) if v[..] == [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    }
}
