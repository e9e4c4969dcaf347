//! A loss planned for one problem: its dispatches, what they bind, and what was chosen. Pure: no device.

mod beside;
pub(crate) mod check;
mod chunk;
mod columns;
pub(crate) mod dispatches;
mod exchange;
pub(crate) mod explain;
mod finish;
mod groups;
mod labels;
pub(crate) mod loss;
pub(crate) mod merge;
mod moved;
pub(crate) mod operator;
pub(crate) mod passes;
pub(crate) mod preview;
pub(crate) mod problem;
pub(crate) mod scalars;
pub(crate) mod sizes;
pub(crate) mod spec;
pub(crate) mod tuning;
pub(crate) mod uniform;
mod vectors;
pub(crate) mod workspace;

pub use beside::Beside;
pub use operator::Operator;
pub use problem::Shard;
pub use spec::{GradMode, PlanSpec};
pub use tuning::{TuneCandidate, TuneClock, Tuning};
