//! Operators beside losses, with kernels of their own. They are planned, bound, encoded and explained as losses are:
//! [`Context::plan`](crate::Context::plan) takes either.

mod penalty;
mod softmax;

pub use crate::plan::Beside;
pub use penalty::{Penalty, l1_penalty, l2_penalty};
pub use softmax::{Softmax, softmax};
