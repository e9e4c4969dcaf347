//! The only part that names wgpu: contexts, tensors, plans.

mod bound;
mod chunk;
mod context;
mod explain;
mod pipeline;
mod plan;
mod problem;
mod resolve;
mod run;
mod settle;
mod spec;
mod tensor;
mod trusted;
mod uniform;
mod windows;

pub use bound::Bound;
pub use context::Context;
pub use plan::Plan;
pub use run::Output;
pub use spec::{Bindings, GradMode, PlanSpec};
pub use tensor::Tensor;
