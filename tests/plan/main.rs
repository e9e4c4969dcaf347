//! Plans: what one may ask of them, what they refuse and explain, plans cut in chunks or between devices.

mod chunks;
#[path = "../common/mod.rs"]
mod common;
mod errors;
mod explain;
mod extras;
mod found_inf;
mod in_place;
mod plans;
mod shards;
