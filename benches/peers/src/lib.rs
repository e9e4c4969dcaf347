//! Loss and gradient by wgloss and by its peers: the same numbers, the same bytes, in interleaved rounds.
//!
//! The driver (`main.rs`) starts each peer as a process of its own and asks it, line by line, to prepare a work and to
//! take one timed step; [`serve`] is the peer's side. What is compared is a call: the loss and the gradient of one
//! batch, from host to done, by wall clock.

mod serve;
mod work;

pub use serve::{Answer, Fallible, Peer, serve};
pub use work::{DType, LossName, Summary, Work, reference, summary};
