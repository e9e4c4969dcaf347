//! Hooks of `elementwise.wgsl`: passes over elements, or over rows of which only labels' elements are read.

use super::access::Frame;
use super::by_run::Watch;
use super::emit::{Emit, group_load, is_literal, outer_code, outer_nodes, params, with_exp2};
use super::fold::{added, combined, folds, identity};
use super::poison::{
    Label, bits, bits_of_value, is_poisoned, labels, largest, lenient_value, looking_at, poison_name, poisons_of,
    poisons_of_outputs,
};
use super::store::Stored;
use super::{KernelSource, Pair, Slot, Variant, scalar_slots, scalar_type, structure, title};
use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::expr::op::Kind;
use crate::expr::{Fold, Node, NodeId};
use crate::lower::{Consumer, Look, LookKind, LookPlace, Over, Poison, Program};
use crate::schedule::{PassSchedule, roots, visited_inputs};
use crate::shape::Scope;
use crate::text::{put, putln};
use std::collections::BTreeMap;

/// Index of an item in the whole problem, `first` being its index in the dispatch.
const ITEM: &str = "(shape.first_item + first)";

pub(super) fn kernel(program: &Program, pass: usize, schedule: &PassSchedule, variant: &Variant) -> KernelSource {
    let frame = Frame::scheduled(program, pass, variant, schedule);
    let (bindings, declarations) = frame.bindings(&params(program, 1));
    let sums = totals(&frame).len();
    let PassSchedule { workgroup, width, alone, .. } = schedule;
    let ends = if frame.has_ends() { 2 * width / frame.width } else { 0 };
    let constants = format!(
        "const WG: u32 = {workgroup}u;\nconst WIDTH: u32 = {width}u;\nconst SUMS: u32 = {sums}u;\nconst ENDS: u32 = {ends}u;\n\
         const AHEAD: u32 = {}u;\nconst BY_RUN: bool = {};\n",
        if *alone { 8 } else { 1 },
        Watch::of(&frame).is_some()
    );
    let mut hooks = BTreeMap::from([
        ("bindings".to_owned(), declarations + &constants),
        ("items".to_owned(), hook(&frame)),
        ("seen".to_owned(), frame.seen_text()),
    ]);
    hooks.values_mut().for_each(|hook| *hook = with_exp2(hook, schedule.exp2));
    let wgsl = fill_hooks(&title(program, pass, schedule), Skeleton::Elementwise, &[], LaneReduce::Tree, &hooks);
    KernelSource { wgsl: wgsl.expect("the element-wise skeleton takes these hooks"), bindings }
}

/// The pass's sums over everything; sums over groups follow them in `Pass::totals`.
pub(super) fn totals<'f>(frame: &'f Frame<'_>) -> &'f [NodeId] {
    let totals = &frame.pass.totals;
    &totals[..totals.partition_point(|id| frame.program.scope(*id) <= Scope::Total)]
}

fn hook(frame: &Frame<'_>) -> String {
    let program = frame.program;
    let roots = roots(program, frame.pass);
    let outer = outer_nodes(frame, &roots);
    let poisons = 0..frame.pass.poison.len();
    let mut fields: Vec<(String, String)> = poisons.clone().map(|k| (bits(k), "u32".to_owned())).collect();
    fields.extend(outer.iter().map(|id| (format!("n{}", id.0), scalar_type(program.kind(*id)).to_owned())));
    let looking = |id: NodeId| {
        let mut poisons = looking_at(frame.pass, LookKind::Value, id);
        poisons.retain(|k| outer_looks(frame, &frame.pass.poison[*k]).any(|look| look.node == id));
        poisons
    };
    let mut code = outer_code(program, &outer, "o", &looking);
    for tensor in (0..frame.slots.len()).filter(|_| !program.has_rows()) {
        fields.push((format!("first{tensor}"), "u32".to_owned()));
        putln!(code, "    o.first{tensor} = shape.tensors[{}].x;", 2 * tensor + 1);
    }
    if fields.is_empty() {
        fields.push(("none".to_owned(), "u32".to_owned()));
    }
    let mut text = structure("Outer", &fields);
    let unseen: String = poisons.map(|k| format!("    o.{} = 0u;\n", bits(k))).collect();
    put!(text, "fn outer_begin() -> Outer {{\n    var o: Outer;\n{unseen}{code}    return o;\n}}\n");
    let early = frame.variant.aligned_to.map_or("0u".to_owned(), |tensor| format!("o.first{tensor} % WIDTH"));
    putln!(text, "fn early(o: Outer) -> u32 {{ return {early}; }}");
    let watch = Watch::of(frame);
    text.push_str(&sums_text(frame, watch.as_ref()));
    text.push_str(&step_text(frame, &roots, ["item", "window"], watch.as_ref()));
    text.push_str(&match &watch {
        Some(watch) => step_text(frame, &roots, ["item_looked", "window_looked"], None) + &watch.text(frame),
        None => "fn item_looked(o: Outer, s: LaneSums, first: u32) -> LaneSums { return s; }\n\
                 fn needs_looks(o: Outer, s: LaneSums) -> bool { return false; }\n"
            .to_owned(),
    });
    text.push_str(&match frame.has_ends() {
        true => item_text(&frame.at_ends(), &roots, "item_end", &[], None),
        false => "fn item_end(o: Outer, s: LaneSums, first: u32) -> LaneSums { return s; }\n".to_owned(),
    });
    text
}

/// A step: one item (or a window of four), or two windows, of which each has the second name.
fn step_text(frame: &Frame<'_>, roots: &[NodeId], [name, window]: [&str; 2], watch: Option<&Watch>) -> String {
    if !frame.is_paired() {
        return item_text(frame, roots, name, &[], watch);
    }
    let is_paired = |input: &usize| frame.pair(Slot::Input(*input)) != Pair::Apart;
    let fetched: Vec<usize> = visited_inputs(frame.program, frame.pass).into_iter().filter(is_paired).collect();
    item_text(frame, roots, window, &fetched, watch) + &pair_text(frame, [name, window], &fetched)
}

/// A step as two windows of four items; inputs and outputs that are pairs are loaded and stored once for both.
fn pair_text(frame: &Frame<'_>, [name, window]: [&str; 2], fetched: &[usize]) -> String {
    let mut text = format!("fn {name}(o: Outer, sums: LaneSums, first: u32) -> LaneSums {{\n");
    text.push_str(&frame.coordinates("first"));
    let (mut low, mut high) = (String::new(), String::new());
    for &input in fetched {
        let slot = Slot::Input(input);
        let (before, [a, b]) = frame.load_pair(slot, &format!("({})", frame.base(slot)), frame.element_col());
        text.push_str(&before);
        put!(low, ", {}", frame.widen_raw(slot, &a));
        put!(high, ", {}", frame.widen_raw(slot, &b));
    }
    let windows = [
        format!("    let s = {window}(o, sums, first{low});\n"),
        format!("    let both = {window}(o, s, first + 4u{high});\n"),
    ];
    let base = |output| format!("({})", frame.base(Slot::Output(output)));
    text.push_str(&frame.both(windows, &base, frame.element_col()));
    text + "    return both;\n}\n"
}

/// Looks at values of the whole dispatch that count for every item: made once per lane, in `outer_begin`.
pub(super) fn outer_looks<'p>(frame: &'p Frame<'_>, poison: &'p Poison) -> impl Iterator<Item = &'p Look> {
    let is_outer = |look: &&Look| frame.program.scope(look.node) <= Scope::Total;
    let looks = poison.at(LookPlace::Row).filter(is_outer);
    looks.filter(|look| poison.row.is_none() && look.row.is_none() && look.element.is_none())
}

/// One item, or a window of four. The bits of `fetched` inputs are arguments; other inputs are loaded here. What is watched
/// by runs is not looked at, but added up.
fn item_text(frame: &Frame<'_>, roots: &[NodeId], name: &str, fetched: &[usize], watch: Option<&Watch>) -> String {
    let (program, pass) = (frame.program, frame.pass);
    let here = |id: NodeId| program.scope(id) > Scope::Total && !is_literal(program.node(id));
    let emit = Emit { frame, width: frame.width, outer: "o", here: &here };
    let given: String = fetched.iter().map(|input| format!(", x{input}: U4")).collect();
    let mut text = String::new();
    putln!(text, "fn {name}(o: Outer, sums: LaneSums, first: u32{given}) -> LaneSums {{\n    var s = sums;");
    text.push_str(&frame.coordinates("first"));
    text.push_str(&frame.valid("first"));
    let lets = emit.lets(&program.within(pass, roots), &|id| load(frame, id, fetched, &|id| emit.value(id)));
    text.push_str(&lets);
    for label in labels(program, pass) {
        text.push_str(&report(&emit, label));
    }
    if watch.is_none() {
        text.push_str(&poison_text(&emit));
    }
    text.push_str(&totals_text(&emit));
    for value in watch.iter().flat_map(|watch| &watch.values) {
        putln!(text, "    s.watched += {};", emit.value(*value));
    }
    let u = if frame.width == 4 { "U4" } else { "U" };
    for poisons in poisons_of_outputs(pass, &pass.outputs).into_iter().filter(|_| watch.is_none()) {
        let all = poisons.iter().map(|k| format!("max({}, {u}(o.{}))", bits(*k), bits(*k)));
        let seen = largest(all, &format!("{u}(0u)"));
        putln!(text, "    let {} = {seen} > {u}(INF_BITS);", poison_name(&poisons));
    }
    text.push_str(&group_terms_text(&emit));
    for &output in &pass.outputs {
        let slot = Slot::Output(output);
        putln!(text, "    let to{output} = {};", frame.base(slot));
        let value = emit.value(program.outputs[output].node);
        let poison = poison_name(&poisons_of(pass, Consumer::Output(output)));
        let stored = Stored { value: &value, poison: watch.is_none().then_some(&poison), is_number: watch.is_some() };
        text.push_str(&frame.store(output, &format!("to{output}"), col_of(frame), stored));
    }
    text.push_str("    return s;\n}\n");
    text
}

/// Reports the first item with that label out of range.
fn report(emit: &Emit<'_, '_>, label: Label) -> String {
    let spelled = label.is_bad(&emit.value(label.label), emit.width);
    let conditions = label.conditions.into_iter().flatten().map(|id| emit.value(id));
    if emit.width == 1 {
        let bad = conditions.fold(spelled, |bad, condition| format!("{bad} && {condition}"));
        return format!("    if ({bad}) {{ atomicMin(&scalars.bad_row, {ITEM}); }}\n");
    }
    let valid = emit.frame.is_masked().then(|| "valid".to_owned());
    let bad = conditions.chain(valid).fold(format!("({spelled})"), |bad, condition| format!("{bad} & {condition}"));
    let mut text = format!("    {{\n        let bad = {bad};\n        if (any(bad)) {{\n");
    for (k, component) in ["x", "y", "z", "w"].into_iter().enumerate() {
        putln!(text, "            if (bad.{component}) {{ atomicMin(&scalars.bad_row, {ITEM} + {k}u); }}");
    }
    text + "        }\n    }\n"
}

/// The bits that each poison sees in an item, and their maximum in `s` where a sum is poisoned.
fn poison_text(emit: &Emit<'_, '_>) -> String {
    let frame = emit.frame;
    let u = if frame.width == 4 { "U4" } else { "U" };
    let mut text = String::new();
    for (k, poison) in frame.pass.poison.iter().enumerate() {
        let outer: Vec<&Look> = outer_looks(frame, poison).collect();
        let looks = poison.at(LookPlace::Row).filter(|look| !outer.contains(look)).map(|look| seen(emit, look));
        let mut all = largest(looks, &format!("{u}(0u)"));
        if let Some(saved) = frame.known_bits(k, ITEM) {
            all = format!("max({all}, {saved})");
        }
        // NaN counts only where the condition of the row or element holds.
        if let Some(row) = poison.row {
            all = format!("select({u}(0u), {all}, {})", emit.value(row));
        }
        if frame.is_masked() {
            all = format!("select(U4(0u), {all}, valid)");
        }
        putln!(text, "    let {} = {all};", bits(k));
    }
    for k in summed_poisons(frame) {
        let bits = bits(k);
        putln!(text, "    s.{bits} = max(s.{bits}, {bits});");
    }
    text
}

/// Adds an item's terms to the lane's sums over everything.
fn totals_text(emit: &Emit<'_, '_>) -> String {
    let (frame, program) = (emit.frame, emit.frame.program);
    let mut text = String::new();
    for (k, total) in totals(frame).iter().enumerate() {
        let operand = program.node(*total).operands().next().expect("a sum has an operand");
        let mut value = emit.value(operand);
        value = lenient_value(program, frame.pass, *total, value, &|id| emit.value(id));
        if frame.is_masked() {
            value = format!("select({}, {value}, valid)", identity(program.fold(*total), "F4", "F4(0.0)"));
        }
        putln!(text, "    {}", added(program.fold(*total), &format!("s.sum{k}"), &value));
    }
    text
}

/// Stores the row's term of each sum over groups (of a pass over groups and columns, the item's term of each sum to groups
/// or columns), one word per item, behind the partial sums of all workgroups: as row kernels do.
fn group_terms_text(emit: &Emit<'_, '_>) -> String {
    let (frame, program) = (emit.frame, emit.frame.program);
    let totals = totals(frame).len();
    let mut text = String::new();
    for (k, sum) in frame.pass.totals[totals..].iter().enumerate() {
        let operand = program.node(*sum).operands().next().expect("a sum has an operand");
        let items = if frame.pass.over == Over::GroupColumns { "items" } else { "rows" };
        let first = format!("{totals}u * shape.sum_groups + {k}u * shape.{items}");
        let value = lenient_value(program, frame.pass, *sum, emit.value(operand), &|id| emit.value(id));
        let seen = poisons_of(frame.pass, Consumer::Sum(*sum)).into_iter();
        let seen = seen.map(|k| format!("max({}, o.{})", bits(k), bits(k)));
        let poison = format!("{} > INF_BITS", largest(seen, "0u"));
        putln!(text, "    work[{first} + shape.first_item + first] = store_bits({value}, {poison});");
    }
    text
}

/// Indices of the poisons of the pass's sums over everything.
fn summed_poisons(frame: &Frame<'_>) -> Vec<usize> {
    let is_summed = |k: &usize| {
        let consumers = &frame.pass.poison[*k].consumers;
        totals(frame).iter().any(|sum| consumers.contains(&Consumer::Sum(*sum)))
    };
    (0..frame.pass.poison.len()).filter(is_summed).collect()
}

/// The bits that a look sees in an item; 0 where its condition does not hold.
fn seen(emit: &Emit<'_, '_>, look: &Look) -> String {
    let (frame, program) = (emit.frame, emit.frame.program);
    let (u, b) = if frame.width == 4 { ("U4", "B4") } else { ("U", "B") };
    let id = look.node;
    let is_loaded = (emit.here)(id);
    let seen = match (look.kind, program.node(id)) {
        (LookKind::Label, _) => {
            let label = Label::of(program, look);
            let bad = label.is_bad(&emit.value(label.label), frame.width);
            if frame.width == 4 {
                format!("select(U4(0u), U4(NAN_BITS), {bad})")
            } else {
                format!("select(0u, NAN_BITS, {bad})")
            }
        }
        (_, Node::At(..)) => {
            let label = Label::of(program, look);
            format!("select(b{} & MAGNITUDE, 0u, {})", id.0, label.is_bad(&emit.value(label.label), 1))
        }
        _ if is_loaded => format!("b{} & {u}(MAGNITUDE)", id.0),
        _ => format!("{u}({})", bits_of_value(&format!("o.n{}", id.0))),
    };
    let conditions = [look.row, look.element].into_iter().flatten().map(|id| emit.value(id));
    match conditions.reduce(|a, b| format!("({a} & {b})")) {
        Some(condition) => format!("select({u}(0u), {seen}, {b}({condition}))"),
        None => seen,
    }
}

/// The innermost index; 0 where items are rows.
fn col_of(frame: &Frame<'_>) -> &'static str {
    if frame.program.has_rows() { "0u" } else { frame.element_col() }
}

/// Loads of inputs and gathers of one item: their bits as `bID`, their values as `eID`.
fn load(frame: &Frame<'_>, id: NodeId, fetched: &[usize], spelled: &dyn Fn(NodeId) -> String) -> String {
    let program = frame.program;
    let n = id.0;
    let f = if frame.width == 4 { "F4" } else { "F" };
    match *program.node(id) {
        Node::Input(input) => {
            let slot = Slot::Input(input as usize);
            let bits = match fetched.contains(&(input as usize)) {
                true => format!("x{input}"),
                false => frame.taken(slot, frame.load(slot, &frame.base(slot), col_of(frame))),
            };
            match program.kind(id) {
                Kind::Int => format!("    let e{n} = {bits};\n"),
                _ => format!("    let b{n} = {bits};\n    let e{n} = bitcast<{f}>(b{n});\n"),
            }
        }
        Node::At(x, label) => gather(frame, id, x, [&spelled(label), ITEM]),
        Node::FoldOver(_, Scope::Group, _) | Node::GroupRows => {
            let load = group_load(frame, id, ITEM);
            format!("    let b{n} = {load};\n    let e{n} = bitcast<f32>(b{n});\n")
        }
        Node::FoldOver(_, Scope::Column | Scope::GroupColumn, _) => {
            let load = frame.column_sum_of_item(id, ITEM);
            format!("    let b{n} = {load};\n    let e{n} = bitcast<f32>(b{n});\n")
        }
        Node::ColIndex if frame.pass.over == Over::Columns => format!("    let e{n} = {ITEM};\n"),
        Node::ColIndex if frame.pass.over == Over::GroupColumns => {
            format!("    let e{n} = {ITEM} % shape.classes;\n")
        }
        // Only gathers read it here, and their value is the label itself.
        Node::ColIndex => String::new(),
        Node::RowIndex => format!("    let e{n} = {ITEM};\n"),
        Node::Reduce(..) => format!("    let e{n} = {};\n", frame.known_value(id, ITEM)),
        ref other => unreachable!("a pass that visits no columns holds no {other:?}"),
    }
}

/// `let eID` = the input at the label's column (the last column if the label is out of range), and `bID` its bits. A
/// gather of the column index gives the label itself. `item` is the row.
pub(super) fn gather(frame: &Frame<'_>, id: NodeId, x: NodeId, [label, item]: [&str; 2]) -> String {
    let program = frame.program;
    let n = id.0;
    match *program.node(x) {
        Node::Input(input) => {
            let slot = Slot::Input(input as usize);
            let address = frame.at_col(slot, &format!("({})", frame.base(slot)), &format!("col{n}"));
            let here = frame.load_one(slot, &address);
            let col = format!("    let col{n} = min({label}, shape.cols - 1u);\n");
            match program.kind(id) {
                Kind::Int => format!("{col}    let e{n} = {here};\n"),
                _ => format!("{col}    let b{n} = {here};\n    let e{n} = bitcast<f32>(b{n});\n"),
            }
        }
        Node::FoldOver(_, Scope::Column | Scope::GroupColumn, _) => {
            let here = frame.column_sum(x, item, &format!("col{n}"));
            format!(
                "    let col{n} = min({label}, shape.classes - 1u);\n    let b{n} = {here};\n    \
                 let e{n} = bitcast<f32>(b{n});\n"
            )
        }
        // No column equals a label that is out of range.
        Node::ColIndex => format!("    let e{n} = {label};\n"),
        ref other => unreachable!("gathers are of inputs or column indices after lowering, not of {other:?}"),
    }
}

fn sums_text(frame: &Frame<'_>, watch: Option<&Watch>) -> String {
    let count = totals(frame).len();
    let (u, f) = if frame.width == 4 { ("U4", "F4") } else { ("U", "F") };
    let poisons = summed_poisons(frame);
    // WGSL has no empty structs.
    let unused = (poisons.is_empty() && count == 0).then(|| "none".to_owned());
    let seen: Vec<String> = poisons.iter().map(|k| bits(*k)).chain(unused).collect();
    let fields = |bits: &str, sum: &str| -> Vec<(String, String)> {
        let sums = (0..count).map(|k| (format!("sum{k}"), sum.to_owned()));
        seen.iter().map(|name| (name.clone(), bits.to_owned())).chain(sums).collect()
    };
    let folds = folds(frame.program, totals(frame));
    let list = |seen_as: &dyn Fn(&str) -> String, sum_as: &dyn Fn(&str, Fold) -> String| {
        let sums = (0..count).map(|k| sum_as(&format!("sum{k}"), folds[k]));
        seen.iter().map(|name| seen_as(name)).chain(sums).collect::<Vec<_>>().join(", ")
    };
    let mut text = structure("Sums", &fields("u32", "f32"));
    let watched = watch.is_some_and(|watch| !watch.values.is_empty());
    let with_watched = |list: String, value: &str| if watched { format!("{list}, {value}") } else { list };
    let field = watched.then(|| ("watched".to_owned(), f.to_owned()));
    text.push_str(&structure("LaneSums", &fields(u, f).into_iter().chain(field).collect::<Vec<_>>()));
    let first = |name: &str| if name == "none" { format!("{u}(0u)") } else { format!("{u}(o.{name})") };
    let none = list(&first, &|_, fold| identity(fold, f, &format!("{f}(0.0)")));
    let none = with_watched(none, &format!("{f}(0.0)"));
    putln!(text, "fn sums_identity(o: Outer) -> LaneSums {{ return LaneSums({none}); }}");
    let larger = |a: &str, b: &str| format!("max({a}, {b})");
    let added = |fold: Fold| {
        move |a: &str, b: &str| match fold {
            Fold::Sum => format!("({a} + {b})"),
            Fold::Max => combined(fold, a, b),
        }
    };
    let sum_of_both = |n: &str, fold: Fold| combined(fold, &format!("a.{n}"), &format!("b.{n}"));
    let both = list(&|n| larger(&format!("a.{n}"), &format!("b.{n}")), &sum_of_both);
    let added_both = with_watched(both.clone(), "b.watched");
    putln!(text, "fn sums_add(a: LaneSums, b: LaneSums) -> LaneSums {{ return LaneSums({added_both}); }}");
    let narrow = |name: &str, combine: &dyn Fn(&str, &str) -> String| match frame.width {
        4 => combine(
            &combine(&format!("s.{name}.x"), &format!("s.{name}.y")),
            &combine(&format!("s.{name}.z"), &format!("s.{name}.w")),
        ),
        _ => format!("s.{name}"),
    };
    let narrowed = list(&|name| narrow(name, &larger), &|name, fold| narrow(name, &added(fold)));
    putln!(text, "fn sums_narrow(s: LaneSums) -> Sums {{ return Sums({narrowed}); }}");
    putln!(text, "fn sums_combine(a: Sums, b: Sums) -> Sums {{ return Sums({both}); }}");
    text + &sums_store_text(frame)
}

/// `sums_store`: a workgroup's partial sums, or, where it takes all items, the sums.
fn sums_store_text(frame: &Frame<'_>) -> String {
    let mut text = "fn sums_store(s: Sums, group: u32, groups: u32) {\n".to_owned();
    for (k, total) in totals(frame).iter().enumerate() {
        let poison = is_poisoned(frame.pass, Consumer::Sum(*total), "s");
        let place = match frame.alone {
            true => {
                let slot = scalar_slots(frame.program).iter().position(|id| id == total);
                format!("scalars.values[{}]", slot.expect("every sum over everything has a slot"))
            }
            false => format!("work[{k}u * groups + group]"),
        };
        putln!(text, "    {place} = store_bits(s.sum{k}, {poison});");
    }
    text.push_str("}\n");
    text
}
