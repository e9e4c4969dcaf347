//! What a loss of any formula has: inputs, labels, scalars, names, reductions.

mod apart;
#[path = "../common/mod.rs"]
mod common;
mod element_labels;
mod hard_examples;
mod labels;
mod mean_or_zero;
mod rename;
mod scalars;
mod thresholds;
mod uncertainty;
