//! What is looked at, as WGSL: for each [`Poison`](crate::lower::Poison) of a pass the largest magnitude of bits seen,
//! above that of ∞ where there was a NaN or a bad label.

use crate::expr::{Node, NodeId};
use crate::lower::{Consumer, Look, LookKind, LookPlace, Pass, Program};
use crate::shape::Scope;

/// The name of the bits of one of the pass's poisons.
pub(super) fn bits(poison: usize) -> String {
    if poison == 0 { "bits".to_owned() } else { format!("bits_{poison}") }
}

/// The poisons that have looks at that place, by number.
pub(super) fn looked_at(pass: &Pass, place: LookPlace) -> Vec<usize> {
    (0..pass.poison.len()).filter(|&k| pass.poison[k].at(place).next().is_some()).collect()
}

/// The poisons of what a pass gives, by number.
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

/// What says that a value of an output with this set of poisons is NaN.
pub(super) fn poison_name(poisons: &[usize]) -> String {
    match poisons {
        [0] => "poison".to_owned(),
        _ => poisons.iter().fold("poison_of".to_owned(), |name, k| format!("{name}_{k}")),
    }
}

/// The largest of these; `none` where there are none.
pub(super) fn largest(all: impl IntoIterator<Item = String>, none: &str) -> String {
    let joined = all.into_iter().reduce(|a, b| format!("max({a}, {b})"));
    joined.unwrap_or_else(|| none.to_owned())
}

/// Whether a row, with its values in `s`, is poisoned for a consumer.
pub(super) fn is_poisoned(pass: &Pass, consumer: Consumer, s: &str) -> String {
    let all: Vec<String> = poisons_of(pass, consumer).into_iter().map(|k| format!("{s}.{}", bits(k))).collect();
    if all.is_empty() { "false".to_owned() } else { format!("{} > INF_BITS", largest(all, "0u")) }
}

/// The poisons that look at this value once a row, by number.
pub(super) fn looking_at(pass: &Pass, kind: LookKind, node: NodeId) -> Vec<usize> {
    let looks = |k: &usize| pass.poison[*k].at(LookPlace::Row).any(|look| (look.kind, look.node) == (kind, node));
    (0..pass.poison.len()).filter(looks).collect()
}

/// Labels whose range is checked, each with the condition under which a bad one is reported.
pub(super) fn labels(program: &Program, pass: &Pass) -> Vec<(NodeId, Option<NodeId>)> {
    let poisoning = pass.poison.iter().flat_map(|poison| {
        let looks = poison.looks.iter().filter(|placed| placed.look.kind == LookKind::Label);
        looks.map(|placed| (placed.look.node, poison.row.or(placed.look.row)))
    });
    let lenient = pass.lenient.iter().map(|(_, look)| (look.node, look.row));
    let mut all: Vec<(NodeId, Option<NodeId>)> = Vec::new();
    for (at, row) in poisoning.chain(lenient) {
        let Node::At(_, label) = *program.node(at) else { unreachable!("labels are looked at in gathers") };
        if !all.contains(&(label, row)) {
            all.push((label, row));
        }
    }
    all
}

/// Whether the label of an `At` is no class, `label` being how the label is spelled.
pub(super) fn is_bad(label: &str) -> String {
    format!("{label} >= shape.classes")
}

/// A value as a row with a bad label adds it to a sum: 0, if the sum leaves such rows out.
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
        Some(bad) => format!("select({value}, 0.0, {bad})"),
        None => value,
    }
}

/// The bits of a value further out than the element, as it is spelled.
pub(super) fn bits_of_value(value: &str) -> String {
    format!("bitcast<u32>({value}) & MAGNITUDE")
}

/// Whether a node is loaded column by column.
pub(super) fn is_of_columns(program: &Program, id: NodeId) -> bool {
    matches!(program.scope(id), Scope::Element | Scope::Column)
}
