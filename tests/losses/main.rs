//! The catalogue: every loss against its textbook form, its options, its row in README.md.

#[path = "../common/mod.rs"]
mod common;
mod end_to_end;
mod losses;
mod options;
mod random;
mod readme;
mod sequences;
mod views;
