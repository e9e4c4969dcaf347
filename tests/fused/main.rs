//! Operators beside losses, and losses beside each other.

mod beside;
#[path = "../common/mod.rs"]
mod common;
mod embedding;
mod fused;
mod lovasz;
mod penalties;
mod sequence;
mod softmax;
