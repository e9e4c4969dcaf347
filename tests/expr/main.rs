//! The expression language: operations, sums, gradients, and the functions of `shaders/math.wgsl`.

#[path = "../common/mod.rs"]
mod common;
mod indices;
mod language;
mod math;
mod powers;
mod sums;
