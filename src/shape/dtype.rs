//! Storage types of tensors.

use super::host::HostElement;
use half::{bf16, f16};

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float.
    F32,
    /// IEEE 754 half precision, two to a 32-bit word.
    F16,
    /// The upper half of a 32-bit float, two to a 32-bit word.
    BF16,
    /// 32-bit signed class index.
    I32,
    /// 32-bit unsigned class index.
    U32,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> u64 {
        match self {
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }

    /// Whether elements are numbers, not class indices.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// Whether two elements share a 32-bit word.
    pub const fn is_packed(self) -> bool {
        self.size() == 2
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::U32 => "u32",
        })
    }
}

/// Host types as the GPU stores them: what a tensor can be read back to.
#[diagnostic::on_unimplemented(
    message = "no tensor is stored as `{Self}`",
    label = "stored are f32, f16, bf16, and class indices in i32 and u32",
    note = "read the type that the tensor has, and convert: `let wide = f64::from(narrow)`"
)]
pub trait Element: bytemuck::Pod + Send + Sync + HostElement<Stored = Self> {
    /// How the GPU stores it.
    const DTYPE: DType;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
}

impl Element for f16 {
    const DTYPE: DType = DType::F16;
}

impl Element for bf16 {
    const DTYPE: DType = DType::BF16;
}

impl Element for i32 {
    const DTYPE: DType = DType::I32;
}

impl Element for u32 {
    const DTYPE: DType = DType::U32;
}

/// Half-precision numbers widened to f32, exactly.
pub fn widen_f16(values: &[f16]) -> Vec<f32> {
    values.iter().map(|v| v.to_f32()).collect()
}

/// Brain floats widened to f32, exactly.
pub fn widen_bf16(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|v| v.to_f32()).collect()
}

/// The numbers that kernels compute with, for error messages.
pub(crate) const KERNEL_NUMBERS: &str = "0 or from 1.1754944e-38 to 3.4028235e38 in magnitude: a normal f32";

/// Whether a finite number is 0 or a normal f32: not infinite as f32, nor subnormal, which a device may flush to 0.
pub(crate) fn kernels_see(x: f64) -> bool {
    let narrow = x as f32;
    x == 0.0 || narrow.is_normal()
}
