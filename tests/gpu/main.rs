//! Devices, contexts and buffers: shared, lost, tuned for.

#[path = "../common/mod.rs"]
mod common;
mod contexts;
mod host;
mod lost;
mod shared;
mod tune;
