//! Checks of the names that a caller gives: each once, and none that would be ignored.

use crate::error::{Error, Result};
use crate::expr::InputDecl;

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
