//! The catalogue.
mod regression;
pub use regression::*;
