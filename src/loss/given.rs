//! What a caller names: each name once, and nothing that would be left aside.

use crate::error::{Error, Result};
use crate::expr::InputDecl;

/// No name twice: which of the two counts would be a guess.
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

/// Every input that is given is one that the loss reads, with the options that it has.
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
