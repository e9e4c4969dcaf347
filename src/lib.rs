//! Placeholder docs.
#![deny(unsafe_code)]

pub mod autodiff;
pub mod codegen;
pub mod cpu;
mod dtype;
mod error;
pub mod expr;
pub mod geometry;
mod gpu;
pub mod loss;
pub mod losses;
pub mod lower;
pub mod op;
pub mod schedule;
pub mod simplify;
pub mod template;

pub use cpu::{CpuOutput, CpuPlan, HostTensor};
pub use dtype::{DType, Element, narrow_labels, widen_bf16, widen_f16};
pub use error::{Error, Result};
pub use expr::{Expr, Extent, Graph, Scope};
pub use gpu::{Bindings, Bound, Context, GradMode, Output, Plan, PlanSpec, Tensor};
pub use loss::{Domain, Loss, Reduction, RowAxis, Value};
pub use op::Kind;
