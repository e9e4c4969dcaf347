//! The names that a caller gives: to the inputs of a term, each once, and none that would be ignored.

use crate::error::{Error, Result};
use crate::expr::InputDecl;
use std::collections::BTreeMap;

/// Name of the upstream gradient as an input: of a plan, not of a term.
pub const UPSTREAM: &str = "upstream";
/// An input that every loss takes: one weight per loss value.
pub const SAMPLE_WEIGHT: &str = "sample_weight";
/// An input that every loss takes: one value per loss value; 0 leaves the loss out.
pub const MASK: &str = "mask";

/// Names that the inputs of a term go by, for those that were renamed: from the name that its definition declares.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    /// The name that the declared input goes by.
    pub fn given<'a>(&'a self, declared: &'a str) -> &'a str {
        self.0.get(declared).map_or(declared, String::as_str)
    }

    /// The declared input goes by `name` from now on.
    pub fn give(&mut self, declared: &str, name: &str) {
        self.0.insert(declared.to_owned(), name.to_owned());
    }
}

/// An error for a name that is given twice.
pub(crate) fn check_once<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if seen.contains(&name) {
            let what = format!("twice named: {what}");
            return Err(Error::Name { what, name: name.to_owned(), known: seen.join(", ") });
        }
        seen.push(name);
    }
    Ok(())
}

/// An error for an input that the loss, with its options, does not read.
pub(crate) fn check_read<'a>(
    loss: &str,
    declared: &[InputDecl],
    mut given: impl Iterator<Item = &'a str>,
) -> Result<()> {
    match given.find(|name| !declared.iter().any(|input| input.name == *name)) {
        None => Ok(()),
        Some(name) => {
            let known = declared.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ");
            let what = format!("{loss}, as it is wanted here, does not read the input");
            Err(Error::Name { what, name: name.to_owned(), known })
        }
    }
}
