//! Placeholder docs.
#![deny(unsafe_code)]

pub mod autodiff;
mod error;
pub mod expr;
pub mod loss;
pub mod losses;
pub mod op;
pub mod simplify;

pub use error::{Error, Result};
pub use expr::{Expr, Extent, Graph, Scope};
pub use loss::{Domain, Loss, Reduction, RowAxis, Value};
pub use op::Kind;
