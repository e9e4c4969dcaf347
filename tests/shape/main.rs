//! Shapes, layouts, groups and storage types of tensors.

#[path = "../common/mod.rs"]
mod common;
mod empty;
mod groups;
mod shapes;
mod storage;
