//! Values of rows, groups and columns: how they are summed, saved and gathered, and what poisons them.

mod columns;
#[path = "../common/mod.rs"]
mod common;
mod gathers;
mod group_columns;
mod group_values;
mod hostile;
mod logsumexp_over;
mod pairs;
mod poison;
mod ragged;
mod saved;
mod scans;
mod sorts;
mod thresholds;
mod ties;
mod zeros;
