//! Shapes, layouts, groups and storage types of tensors.

mod axes;
#[path = "../common/mod.rs"]
mod common;
mod empty;
mod fixed_columns;
mod groups;
mod shapes;
mod storage;
