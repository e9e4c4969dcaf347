//! Sizes, element types, and where elements lie. Pure numbers.

mod count;
mod dtype;
mod extents;
mod geometry;
mod host;
mod layout;
mod ragged;
mod row_axis;
mod rule;
mod scope;
mod strides;

pub use count::{Count, Formula, FormulaOp};
pub use dtype::{DType, Element, widen_bf16, widen_f16};
pub(crate) use dtype::{KERNEL_NUMBERS, kernels_see};
pub use extents::{Extents, Grouping, Operand, Rows};
pub use geometry::Geometry;
pub(crate) use geometry::no_hessian_of_broadcast;
pub use host::HostElement;
pub use layout::Layout;
pub use ragged::Ragged;
pub(crate) use ragged::RowGroups;
pub use row_axis::{ColumnCount, RowAxis};
pub use rule::ShapeRule;
pub use scope::Scope;
