//! Operators beside losses, with kernels of their own. They are planned, bound, encoded and explained as losses are:
//! [`Context::plan`](crate::Context::plan) takes either.

mod beside;
mod penalty;
mod softmax;

pub use beside::Beside;
pub use penalty::{Penalty, l1_penalty, l2_penalty};
pub use softmax::{Softmax, softmax};
