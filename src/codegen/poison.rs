//! Looks as WGSL: per [`Poison`](crate::lower::Poison) of a pass, the largest magnitude of the bits seen. It is above
//! that of ∞ if there was a NaN or a bad label.

use super::fold::identity;
use crate::expr::{Classes, Node, NodeId};
use crate::lower::{Consumer, Look, LookKind, LookPlace, Pass, Program};
use crate::text::putln;

/// Name of the field or variable that holds the bits of a poison, given its index.
pub(super) fn bits(poison: usize) -> String {
    if poison == 0 { "bits".to_owned() } else { format!("bits_{poison}") }
}

/// Indices of the poisons that look at `place`.
pub(super) fn looked_at(pass: &Pass, place: LookPlace) -> Vec<usize> {
    (0..pass.poison.len()).filter(|&k| pass.poison[k].at(place).next().is_some()).collect()
}

/// Indices of the poisons of one result of a pass.
pub(super) fn poisons_of(pass: &Pass, consumer: Consumer) -> Vec<usize> {
    (0..pass.poison.len()).filter(|&k| pass.poison[k].consumers.contains(&consumer)).collect()
}

/// The sets of poisons that these outputs have, each once.
pub(super) fn poisons_of_outputs(pass: &Pass, outputs: &[usize]) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> = outputs.iter().map(|&output| poisons_of(pass, Consumer::Output(output))).collect();
    sets.sort();
    sets.dedup();
    sets
}

/// Name of the variable that is true where outputs with this set of poisons are NaN.
pub(super) fn poison_name(poisons: &[usize]) -> String {
    match poisons {
        [0] => "poison".to_owned(),
        _ => poisons.iter().fold("poison_of".to_owned(), |name, k| format!("{name}_{k}")),
    }
}

/// The largest of these; `none` if there are none.
pub(super) fn largest(all: impl IntoIterator<Item = String>, none: &str) -> String {
    let joined = all.into_iter().reduce(|a, b| format!("max({a}, {b})"));
    joined.unwrap_or_else(|| none.to_owned())
}

/// Whether a consumer is poisoned, the bits being fields of `s`.
pub(super) fn is_poisoned(pass: &Pass, consumer: Consumer, s: &str) -> String {
    let all: Vec<String> = poisons_of(pass, consumer).into_iter().map(|k| format!("{s}.{}", bits(k))).collect();
    if all.is_empty() { "false".to_owned() } else { format!("{} > INF_BITS", largest(all, "0u")) }
}

/// Indices of the poisons that look at this value once per row.
pub(super) fn looking_at(pass: &Pass, kind: LookKind, node: NodeId) -> Vec<usize> {
    let looks = |k: &usize| pass.poison[*k].at(LookPlace::Row).any(|look| (look.kind, look.node) == (kind, node));
    (0..pass.poison.len()).filter(looks).collect()
}

/// A label whose range is checked.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Label {
    pub label: NodeId,
    pub classes: Classes,
    /// The conditions of the row (of the element) under which one out of range is reported.
    pub conditions: [Option<NodeId>; 2],
}

impl Label {
    /// The label that a look is at.
    pub fn of(program: &Program, look: &Look) -> Label {
        let (label, classes) = match *program.node(look.node) {
            Node::At(_, label) => (label, Classes::Columns),
            Node::InRange(label, classes) => (label, classes),
            ref other => unreachable!("labels are looked at in gathers and ranges, not in {other:?}"),
        };
        Label { label, classes, conditions: [look.row, look.element] }
    }

    /// The value of an `InRange` of the row, and the bits that poisons see in it. The label is spelled `label`.
    pub fn range_text(&self, pass: &Pass, id: NodeId, label: &str) -> String {
        let mut text = format!("    r.n{} = {label};\n", id.0);
        for poison in looking_at(pass, LookKind::Label, id) {
            let (bits, bad) = (bits(poison), self.is_bad(label, 1));
            putln!(text, "    r.{bits} = max(r.{bits}, select(0u, NAN_BITS, {bad}));");
        }
        text
    }

    /// Whether it is out of range, spelled `label`, in vectors of four if `width` is 4.
    pub fn is_bad(&self, label: &str, width: u32) -> String {
        let classes = match self.classes {
            Classes::Exactly(classes) => format!("{classes}u"),
            Classes::Columns => "shape.classes".to_owned(),
            Classes::Between => "(shape.classes + 1u)".to_owned(),
        };
        if width == 4 { format!("{label} >= U4({classes})") } else { format!("{label} >= {classes}") }
    }
}

/// Labels whose range is checked.
pub(super) fn labels(program: &Program, pass: &Pass) -> Vec<Label> {
    let poisoning = pass.poison.iter().flat_map(|poison| {
        let looks = poison.looks.iter().filter(|placed| placed.look.kind == LookKind::Label);
        looks.map(|placed| Look { row: poison.row.or(placed.look.row), ..placed.look })
    });
    let mut all: Vec<Label> = Vec::new();
    for look in poisoning.chain(pass.lenient.iter().map(|(_, look)| *look)) {
        let label = Label::of(program, &look);
        if !all.contains(&label) {
            all.push(label);
        }
    }
    all
}

/// Whether a label, spelled `label`, is out of range.
pub(super) fn is_bad(label: &str) -> String {
    format!("{label} >= shape.classes")
}

/// The term that a row adds to a sum: `value`, or that of no row if the sum is lenient and the row's label is out of range.
pub(super) fn lenient_value(
    program: &Program,
    pass: &Pass,
    sum: NodeId,
    value: String,
    spelled: &dyn Fn(NodeId) -> String,
) -> String {
    let left_out = pass.lenient.iter().filter(|(of, _)| *of == sum).map(|(_, look): &(NodeId, Look)| {
        let Node::At(_, label) = *program.node(look.node) else { unreachable!("labels are looked at in gathers") };
        let bad = is_bad(&spelled(label));
        look.row.map_or(bad.clone(), |row| format!("{bad} && {}", spelled(row)))
    });
    match left_out.reduce(|a, b| format!("{a} || {b}")) {
        Some(bad) => format!("select({value}, {}, {bad})", identity(program.fold(sum), "f32", "0.0")),
        None => value,
    }
}

/// The magnitude bits of a value outside the loop, given its spelling.
pub(super) fn bits_of_value(value: &str) -> String {
    format!("bitcast<u32>({value}) & MAGNITUDE")
}

/// Whether a node has one value per element or per column.
pub(super) fn is_of_columns(program: &Program, id: NodeId) -> bool {
    program.scope(id).has_columns()
}
