//! Sums and maxima as WGSL: what they begin with, and how two are combined.

use crate::expr::{Fold, NodeId};
use crate::lower::Program;

/// The folds of these sums.
pub(super) fn folds(program: &Program, sums: &[NodeId]) -> Vec<Fold> {
    sums.iter().map(|sum| program.fold(*sum)).collect()
}

/// The fold of no values, of type `f` (`f32`, `F` or `F4`); `zero` spells 0.
pub(super) fn identity(fold: Fold, f: &str, zero: &str) -> String {
    let u = match f {
        "F4" => "U4",
        _ => "u32",
    };
    match fold {
        Fold::Sum => zero.to_owned(),
        // A constant ∞ is a WGSL error; a run-time one is not.
        Fold::Max => format!("bitcast<{f}>({u}(shape.reserved0 | 0xff800000u))"),
    }
}

/// Two folds as one.
pub(super) fn combined(fold: Fold, a: &str, b: &str) -> String {
    match fold {
        Fold::Sum => format!("{a} + {b}"),
        Fold::Max => format!("max({a}, {b})"),
    }
}

/// A statement that adds a value to a fold.
pub(super) fn added(fold: Fold, to: &str, value: &str) -> String {
    match fold {
        Fold::Sum => format!("{to} += {value};"),
        Fold::Max => format!("{to} = {};", combined(fold, to, value)),
    }
}
