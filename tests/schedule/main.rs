//! Kernels: each against the CPU, and their generated text.

mod backends;
mod browser;
mod by_run;
#[path = "../common/mod.rs"]
mod common;
mod kernels;
mod presets;
mod row_pairs;
mod schedules;
mod separate_backward;
mod written_in_stage;
