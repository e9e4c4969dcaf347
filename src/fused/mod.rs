//! Operators beside losses: what no row program says by itself. Each makes its own dispatches, and is planned, bound,
//! encoded, tuned and explained as a loss is.

mod softmax;

pub use softmax::{Softmax, softmax};
