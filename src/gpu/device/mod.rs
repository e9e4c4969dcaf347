//! Contexts: a device, its limits, and the pipelines that it keeps.

mod adapter;
mod compile;
pub(crate) mod context;
mod open;
pub(crate) mod pipeline;
mod probe;
mod trusted;
