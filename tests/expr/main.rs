//! The expression language: operations, sums, gradients, and the functions of `shaders/math.wgsl`.

#[path = "../common/mod.rs"]
mod common;
mod language;
mod math;
mod powers;
mod sums;
