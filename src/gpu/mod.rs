//! The only part that names wgpu: contexts, tensors, plans.

mod context;
mod pipeline;
mod plan;
mod resolve;
mod run;
mod spec;
mod tensor;
mod trusted;
mod uniform;

pub use context::Context;
pub use plan::{Bound, Plan};
pub use run::Output;
pub use spec::{Bindings, GradMode, PlanSpec};
pub use tensor::Tensor;
