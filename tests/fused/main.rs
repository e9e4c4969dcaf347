//! Operators beside losses, and losses beside each other.

mod beside;
#[path = "../common/mod.rs"]
mod common;
mod embedding;
mod fused;
mod lovasz;
mod penalties;
mod random;
#[path = "../differential/random.rs"]
mod random_numbers;
mod sequence;
mod softmax;
