//! Operators beside losses, with kernels of their own. They are planned, bound, encoded and explained as losses are:
//! [`Context::plan`](crate::Context::plan) takes either.

mod lovasz;
mod penalty;
mod sequence;
mod softmax;

pub use crate::plan::Beside;
pub use lovasz::{LovaszSoftmax, lovasz_softmax};
pub use penalty::{Penalty, l1_penalty, l2_penalty};
pub use sequence::{Crf, Ctc, OptaxCtc, Rnnt, crf, ctc, optax_ctc, rnnt};
pub use softmax::{Softmax, softmax};

/// Operators on the CPU, as [`cpu`](crate::cpu) runs losses.
pub mod cpu {
    pub use super::sequence::{HostOperator, forward_backward, run};
}
