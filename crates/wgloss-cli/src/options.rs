//! Losses by name, with their options, as they are written on the command line.

use crate::Fallible;
use wgloss::{ClassAxis, Loss, RowAxis, Value, losses};

/// The catalogue's names, for arguments.
pub fn loss_names() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(losses::CATALOGUE.iter().map(|entry| entry.name))
}

/// The loss of that name with those options, each as `NAME=VALUE`; the value `@INPUT` is a scalar on the GPU.
pub fn with_options(name: &str, options: &[String]) -> Fallible<Loss> {
    let loss = losses::by_name(name).ok_or("the parser knows the catalogue")?;
    options.iter().try_fold(loss, |loss, option| with_option(loss, option))
}

/// What may be written for a row axis.
const ROW_AXES: &str = "last, class, the index of an axis, or INDEX.. for all axes from there on";

/// A row axis as it is written on the command line.
fn row_axis(text: &str) -> Option<RowAxis> {
    match (text, text.strip_suffix("..")) {
        ("last" | "-1", _) => Some(RowAxis::Last),
        ("class", _) => Some(RowAxis::Class),
        (_, Some(first)) => first.parse().ok().map(RowAxis::From),
        (_, None) => text.parse().ok().map(RowAxis::At),
    }
}

/// Sets an option as it is written on the command line; what it may be depends on the loss.
fn with_option(loss: Loss, text: &str) -> Fallible<Loss> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("--option {text}: write NAME=VALUE"))?;
    let default = loss.options().iter().find(|option| option.name == name).map(|option| &option.default);
    let wrong = |what: &str| format!("--option {text}: {name} is {what}");
    let value = match default {
        None if name == "class_axis" => match value {
            "1" | "one" => Value::ClassAxis(ClassAxis::One),
            "-1" | "last" => Value::ClassAxis(ClassAxis::Last),
            _ => {
                Value::ClassAxis(ClassAxis::At(value.parse().map_err(|_| wrong("one, last, or the index of an axis"))?))
            }
        },
        None if name == "row_axis" => Value::RowAxis(row_axis(value).ok_or_else(|| wrong(ROW_AXES))?),
        None if name == "axis" => Value::Index(Some(value.parse().map_err(|_| wrong("-1, or the index of an axis"))?)),
        None if name == "broadcast" => Value::Flag(value.parse().map_err(|_| wrong("true or false"))?),
        Some(Value::Flag(_)) => Value::Flag(value.parse().map_err(|_| wrong("true or false"))?),
        Some(Value::Word(_)) => Value::from(value),
        Some(Value::Index(_)) if value == "none" => Value::Index(None),
        Some(Value::Index(_)) => Value::Index(Some(value.parse().map_err(|_| wrong("a class index, or none"))?)),
        _ if value.starts_with('@') => Value::Scalar(value[1..].to_owned()),
        // A name that is not known is complained of by the loss, which knows the others.
        _ => Value::Num(value.parse().map_err(|_| wrong("a number, or @NAME of a scalar input"))?),
    };
    let loss = loss.option(name, value);
    loss.check()?;
    Ok(loss)
}
