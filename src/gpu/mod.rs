//! The only part that names wgpu: contexts, tensors, plans.

mod adapter;
#[cfg(not(target_arch = "wasm32"))]
mod agree;
mod bind;
mod bound;
#[cfg(feature = "cli")]
mod broken;
mod check;
mod chunk;
mod compiled;
mod context;
mod explain;
pub mod export;
mod layout;
mod open;
mod parts;
mod pipeline;
mod plan;
mod probe;
mod problem;
mod resolve;
mod run;
mod scalars;
mod settle;
mod spec;
mod stages;
mod status;
mod tensor;
mod tensors;
#[cfg(not(target_arch = "wasm32"))]
mod trial;
mod trusted;
#[cfg(not(target_arch = "wasm32"))]
mod tune;
#[cfg(not(target_arch = "wasm32"))]
mod tune_cache;
mod tuning;
mod uniform;
mod windows;

pub use bound::Bound;
pub use context::Context;
pub use plan::Plan;
pub use problem::Shard;
pub use run::Output;
pub use spec::{Bindings, GradMode, PlanSpec};
pub use tensor::Tensor;
#[cfg(not(target_arch = "wasm32"))]
pub use tune::TuneOptions;
#[cfg(not(target_arch = "wasm32"))]
pub use tune_cache::TuneCache;
pub use tuning::{TuneCandidate, TuneClock, Tuning};
