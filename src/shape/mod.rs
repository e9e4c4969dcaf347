//! Sizes, element types, and where elements lie. Pure numbers.

mod count;
mod dtype;
mod geometry;
mod host;
mod layout;
mod ragged;
mod row_axis;
mod rule;
mod scope;

pub use count::{Count, Formula, FormulaOp};
pub use dtype::{DType, Element, widen_bf16, widen_f16};
pub(crate) use dtype::{KERNEL_NUMBERS, kernels_see};
pub(crate) use geometry::no_hessian_of_broadcast;
pub use geometry::{Extents, Geometry, Grouping, Operand, Rows};
pub use host::HostElement;
pub use layout::Layout;
pub use ragged::Ragged;
pub(crate) use ragged::RowGroups;
pub use row_axis::{ColumnCount, RowAxis};
pub use rule::ShapeRule;
pub use scope::Scope;
