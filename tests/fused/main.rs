//! Operators beside losses, and losses beside each other.

mod beside;
#[path = "../common/mod.rs"]
mod common;
mod embedding;
mod fused;
mod penalties;
mod sequence;
mod softmax;
