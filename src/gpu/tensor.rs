//! A view of a buffer: offset, shape, strides, element type.

use crate::error::{Error, Result};
use crate::gpu::bound::status::Status;
use crate::gpu::device::context::Context;
use crate::shape::Layout;
use crate::shape::{DType, Element, HostElement};
use ndarray::{ArrayBase, Data, Dimension};
use std::sync::Arc;

/// Usages of the buffers that wgloss makes for tensors.
const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// A tensor on the GPU. Clones share the buffer.
///
/// It belongs to one context and its clones, and is refused by any other: buffers of two instances cannot be told apart.
#[derive(Clone, Debug)]
pub struct Tensor {
    buffer: wgpu::Buffer,
    offset: u64,
    dtype: DType,
    layout: Layout,
    ctx: Context,
    /// Elements of the buffer that may belong to a tensor; in a buffer that wgloss made, padding follows.
    elements: u64,
    /// For tensors of an `Output`: the status, which reading them checks first.
    status: Option<Arc<Status>>,
}

impl Tensor {
    /// Copies host values to a new tensor: numbers in f32, f16 and bf16, class indices in any integer type (stored in
    /// 32 bits), truth values of a mask (stored as 0 and 1 in f32).
    ///
    /// ```no_run
    /// use wgloss::{Context, DType, Tensor};
    /// # fn main() -> wgloss::Result<()> {
    /// let ctx = Context::new()?;
    /// let labels = Tensor::from_slice(&ctx, &[0i64, 2, -100], &[3])?;
    /// let mask = Tensor::from_slice(&ctx, &[true, false, true], &[3])?;
    /// assert_eq!((labels.dtype(), mask.dtype()), (DType::I32, DType::F32));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] for a class index that 32 bits do not hold; [`Error::Shape`] unless `shape` has `values.len()` elements; [`Error::Limit`], [`Error::OutOfMemory`],
    /// [`Error::Device`].
    pub fn from_slice<T: HostElement>(ctx: &Context, values: &[T], shape: &[usize]) -> Result<Tensor> {
        if Layout::contiguous(shape).len() != values.len() {
            let expected = format!("a shape of {} elements", values.len());
            return Err(Error::Shape { input: "from_slice".to_owned(), expected, found: shape.to_vec() });
        }
        let stored = T::stored("from_slice", values)?;
        let tensor = Tensor::zeros(ctx, T::Stored::DTYPE, shape)?;
        tensor.write_stored(ctx, &stored)?;
        Ok(tensor)
    }

    /// Copies an ndarray, in its logical order, to a new contiguous tensor.
    ///
    /// # Errors
    /// As [`Tensor::from_slice`].
    pub fn from_array<T, S, D>(ctx: &Context, array: &ArrayBase<S, D>) -> Result<Tensor>
    where
        T: HostElement,
        S: Data<Elem = T>,
        D: Dimension,
    {
        let standard = array.as_standard_layout();
        let values = standard.as_slice().expect("an array in standard layout is one slice");
        Tensor::from_slice(ctx, values, array.shape())
    }

    /// A new tensor of zeros. One without elements (a batch of no rows: `[0, 10]`) holds a buffer of 16 bytes that nothing
    /// reads or writes.
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::OutOfMemory`], [`Error::Device`].
    pub fn zeros(ctx: &Context, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let layout = Layout::contiguous(shape);
        // Whole vectors, so that the last one can be loaded and stored as one.
        let bytes = (layout.len() as u64).saturating_mul(dtype.size());
        let buffer = ctx.create_buffer("tensor", bytes.checked_next_multiple_of(16).unwrap_or(u64::MAX), USAGE)?;
        let elements = layout.len() as u64;
        Ok(Tensor { buffer, offset: 0, dtype, layout, ctx: ctx.clone(), elements, status: None })
    }

    /// A contiguous tensor in a buffer that somebody else made, beginning at that element.
    ///
    /// The buffer must be one of the context's device. wgpu tells apart devices of one instance, so that the first use of
    /// a buffer of another one is an [`Error::Device`], but not instances: for those the caller vouches.
    ///
    /// The buffer needs `STORAGE`; scalars and what is read back need `COPY_SRC` as well, what is written from the host
    /// `COPY_DST`.
    ///
    /// ```no_run
    /// use wgloss::{Context, DType, Tensor};
    /// # fn main() -> wgloss::Result<()> {
    /// let ctx = Context::new()?;
    /// let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    /// let descriptor = wgpu::BufferDescriptor { label: None, size: 64, usage, mapped_at_creation: false };
    /// let tensor = Tensor::from_buffer(&ctx, ctx.device().create_buffer(&descriptor), 0, DType::F32, &[4, 4])?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Buffer`] if the buffer is too small or lacks the usage.
    pub fn from_buffer(
        ctx: &Context,
        buffer: wgpu::Buffer,
        offset: u64,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Tensor> {
        Tensor::from_buffer_strided(ctx, buffer, offset, dtype, Layout::contiguous(shape))
    }

    /// As [`Tensor::from_buffer`], beginning at that byte, as buffers of other libraries count. For strides, take a
    /// [`Tensor::view`] of it.
    ///
    /// ```no_run
    /// use wgloss::{Context, DType, Tensor};
    /// # fn read(ctx: &Context, pool: wgpu::Buffer) -> wgloss::Result<()> {
    /// let logits = Tensor::from_buffer_at_byte(ctx, pool, 1024, DType::BF16, &[4, 4])?;
    /// assert_eq!((logits.offset(), logits.byte_offset()), (512, 1024));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Tensor::from_buffer`]; [`Error::Buffer`] unless an element begins at that byte.
    pub fn from_buffer_at_byte(
        ctx: &Context,
        buffer: wgpu::Buffer,
        byte: u64,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Tensor> {
        if !byte.is_multiple_of(dtype.size()) {
            let size = dtype.size();
            let message =
                format!("no element begins at byte {byte}: {dtype} has {size} bytes; give a multiple of {size}");
            return Err(Error::Buffer { input: format!("{shape:?}"), message });
        }
        Tensor::from_buffer(ctx, buffer, byte / dtype.size(), dtype, shape)
    }

    /// A tensor with any strides in a buffer that somebody else made, beginning at that element.
    ///
    /// # Errors
    /// As [`Tensor::from_buffer`].
    pub fn from_buffer_strided(
        ctx: &Context,
        buffer: wgpu::Buffer,
        offset: u64,
        dtype: DType,
        layout: Layout,
    ) -> Result<Tensor> {
        let elements = offset.saturating_add(layout.extent());
        let needed = elements.saturating_mul(dtype.size()).checked_next_multiple_of(4).unwrap_or(u64::MAX);
        let fault = |message: String| Err(Error::Buffer { input: format!("{:?}", layout.shape), message });
        if needed > buffer.size() {
            return fault(format!("holds {} bytes, the tensor needs {needed}", buffer.size()));
        }
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return fault("was made without BufferUsages::STORAGE".to_owned());
        }
        let elements = buffer.size() / dtype.size();
        Ok(Tensor { buffer, offset, dtype, layout, ctx: ctx.clone(), elements, status: None })
    }

    /// Another view of the same buffer: first element (counted from this one's), shape and strides.
    ///
    /// # Errors
    /// [`Error::Buffer`] if it reaches past the buffer's end, or what wgloss made that buffer for.
    pub fn view(&self, offset: u64, shape: &[usize], strides: &[usize]) -> Result<Tensor> {
        let layout = Layout { shape: shape.to_vec(), strides: strides.to_vec() };
        let end = self.offset.saturating_add(offset).saturating_add(layout.extent());
        if end > self.elements {
            let message = format!("holds {} elements, the view reaches element {end}", self.elements);
            return Err(Error::Buffer { input: format!("{shape:?}"), message });
        }
        let (buffer, offset) = (self.buffer.clone(), self.offset.saturating_add(offset));
        let view = Tensor::from_buffer_strided(&self.ctx, buffer, offset, self.dtype, layout)?;
        Ok(Tensor { status: self.status.clone(), elements: self.elements, ..view })
    }

    /// Size of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// Elements from one index to the next, for each axis.
    pub fn strides(&self) -> &[usize] {
        &self.layout.strides
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The buffer.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Index of the first element in the buffer.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The first byte in the buffer.
    pub fn byte_offset(&self) -> u64 {
        self.offset * self.dtype.size()
    }

    /// The same tensor, as one of an `Output`: reading it checks the status first.
    pub(crate) fn watched(&self, status: Option<&Arc<Status>>) -> Tensor {
        Tensor { status: status.cloned(), ..self.clone() }
    }

    /// Whether the tensor belongs to that context; `name` is what the message calls it.
    pub(crate) fn check_context(&self, name: &str, ctx: &Context) -> Result<()> {
        if self.ctx.is(ctx) {
            return Ok(());
        }
        let message = "belongs to another context; make it in this one (of a buffer of this one's device: \
                       `Tensor::from_buffer`)";
        Err(Error::Buffer { input: name.to_owned(), message: message.to_owned() })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// First and one-past-last byte.
    pub(crate) fn byte_range(&self) -> std::ops::Range<u64> {
        let first = self.byte_offset();
        first..first + self.layout.extent() * self.dtype.size()
    }

    /// Bytes to bind: from an aligned offset to the end of the last vector, or of the buffer.
    pub(crate) fn bound_range(&self, alignment: u64) -> std::ops::Range<u64> {
        let range = self.byte_range();
        let start = range.start - range.start % alignment;
        start..range.end.next_multiple_of(16).min(self.buffer.size() - self.buffer.size() % 4)
    }

    /// Bytes of the longest vector, of 4, 8 or 16, of which the last is whole in the buffer.
    pub(crate) fn whole_bytes(&self) -> u64 {
        let (end, size) = (self.byte_range().end, self.buffer.size());
        [16, 8].into_iter().find(|bytes| end.next_multiple_of(*bytes) <= size).unwrap_or(4)
    }

    /// Copies host values into the tensor, which must be contiguous and store them as [`Tensor::from_slice`] would. Takes
    /// effect with the next submit.
    ///
    /// # Errors
    /// [`Error::Value`], [`Error::DType`], [`Error::Shape`], or [`Error::Buffer`] for strided tensors, for 16-bit ones that share a
    /// 32-bit word with something else, for those of another context, and for buffers without `COPY_DST`;
    /// [`Error::Device`].
    pub fn write<T: HostElement>(&self, ctx: &Context, values: &[T]) -> Result<()> {
        self.write_stored(ctx, &T::stored("write", values)?)
    }

    fn write_stored<T: Element>(&self, ctx: &Context, values: &[T]) -> Result<()> {
        self.check_context("write", ctx)?;
        self.check_dtype::<T>()?;
        if values.len() != self.layout.len() {
            let expected = format!("{} elements, {} given", self.layout.len(), values.len());
            return Err(Error::Shape { input: "write".to_owned(), expected, found: self.layout.shape.clone() });
        }
        if self.layout != Layout::contiguous(&self.layout.shape) {
            let message = "a strided tensor cannot be written from the host".to_owned();
            return Err(Error::Buffer { input: "write".to_owned(), message });
        }
        let range = self.byte_range();
        let bytes: &[u8] = bytemuck::cast_slice(values);
        // In a buffer that wgloss made, padding follows the last element.
        let is_last = range.end == self.elements * self.dtype.size() && range.end < self.buffer.size();
        if range.start.is_multiple_of(4) && range.end.is_multiple_of(4) {
            ctx.write("tensor", &self.buffer, range.start, bytes)
        } else if range.start.is_multiple_of(4) && is_last {
            let mut padded = bytes.to_vec();
            padded.resize(bytes.len().next_multiple_of(4), 0);
            ctx.write("tensor", &self.buffer, range.start, &padded)
        } else {
            let message = "shares a 32-bit word with its neighbour, which a write would change".to_owned();
            Err(Error::Buffer { input: "write".to_owned(), message })
        }
    }

    /// Reads the tensor back, in row-major order. Blocks.
    ///
    /// # Errors
    /// [`Error::DType`]; [`Error::Buffer`] if the buffer lacks `COPY_SRC`; [`Error::Device`]; of a tensor of an
    /// [`Output`](crate::Output), [`Error::LabelOutOfRange`], [`Error::GroupOutOfRange`], told once for all of them.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        pollster::block_on(self.read(&self.ctx))
    }

    /// Reads the tensor back as an array. Blocks.
    ///
    /// # Errors
    /// As [`Tensor::to_vec`]; [`Error::Shape`] where an array cannot have that shape, empty as the tensor may be.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn to_array<T: Element>(&self) -> Result<ndarray::ArrayD<T>> {
        let values = self.to_vec::<T>()?;
        let shape = ndarray::IxDyn(self.shape());
        ndarray::ArrayD::from_shape_vec(shape, values).map_err(|_| {
            let expected = format!("axes whose product, zeros left out, is at most {}", isize::MAX);
            Error::Shape { input: "to_array".to_owned(), expected, found: self.shape().to_vec() }
        })
    }

    /// Reads the tensor back, in row-major order.
    ///
    /// # Errors
    /// As [`Tensor::to_vec`]; [`Error::Buffer`] for a tensor of another context.
    pub async fn read<T: Element>(&self, ctx: &Context) -> Result<Vec<T>> {
        self.check_context("read", ctx)?;
        self.check_dtype::<T>()?;
        if let Some(status) = &self.status {
            status.check().await?;
        }
        let range = self.byte_range();
        if range.is_empty() {
            return Ok(Vec::new());
        }
        // Copies are of whole words.
        let first = range.start - range.start % 4;
        let bytes = ctx.read("tensor", &self.buffer, first, range.end.next_multiple_of(4) - first).await?;
        let bytes = &bytes[(range.start - first) as usize..(range.end - first) as usize];
        let all: Vec<T> = bytemuck::pod_collect_to_vec(bytes);
        if self.layout == Layout::contiguous(&self.layout.shape) {
            return Ok(all);
        }
        let mut values = Vec::new();
        if values.try_reserve_exact(self.layout.len()).is_err() {
            let bytes = (self.layout.len() as u64).saturating_mul(self.dtype.size());
            return Err(Error::OutOfMemory { what: "a tensor read back to the host".to_owned(), bytes });
        }
        let mut index = vec![0usize; self.layout.shape.len()];
        for _ in 0..self.layout.len() {
            let element: usize = index.iter().zip(&self.layout.strides).map(|(i, s)| i * s).sum();
            values.push(all[element]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.layout.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(values)
    }

    fn check_dtype<T: Element>(&self) -> Result<()> {
        if T::DTYPE == self.dtype {
            return Ok(());
        }
        let (expected, found) = (T::DTYPE.to_string(), self.dtype.to_string());
        Err(Error::DType { input: "tensor".to_owned(), expected, found })
    }
}
