//! Hooks of `elementwise.wgsl`: elements by themselves, or rows by themselves (with gathers, without their elements).

use super::access::Frame;
use super::emit::{Emit, group_load, is_literal, outer_code, outer_nodes, outer_value, params, valid_first};
use super::{KernelSource, Slot, Variant, is_read_later, scalar_type, structure, title};
use crate::expr::{Node, NodeId, Scope};
use crate::lower::Program;
use crate::op::Kind;
use crate::schedule::{PassSchedule, roots, visited_inputs};
use crate::template::{Gather, Skeleton, fill_hooks};
use crate::text::{put, putln};
use std::collections::BTreeMap;

pub(super) fn kernel(program: &Program, pass: usize, schedule: &PassSchedule, variant: &Variant) -> KernelSource {
    let frame = Frame::new(program, pass, variant, schedule.width);
    let lenient = is_read_later(program, pass);
    let (bindings, declarations) = frame.bindings(&params(program, 1));
    let sums = totals(&frame).len();
    let PassSchedule { workgroup, width, .. } = schedule;
    let ends = if frame.has_ends() { 2 * width / frame.width } else { 0 };
    let constants = format!(
        "const WG: u32 = {workgroup}u;\nconst WIDTH: u32 = {width}u;\nconst SUMS: u32 = {sums}u;\nconst ENDS: u32 = {ends}u;\n"
    );
    let hooks = BTreeMap::from([
        ("bindings".to_owned(), declarations + &constants),
        ("items".to_owned(), hook(&frame, lenient)),
    ]);
    let wgsl = fill_hooks(&title(program, pass, schedule), Skeleton::Elementwise, 0, Gather::Tree, &hooks);
    KernelSource { wgsl: wgsl.expect("the element-wise skeleton takes these hooks"), bindings }
}

/// The pass's sums over everything, which come first among its sums.
fn totals<'f>(frame: &'f Frame<'_>) -> &'f [NodeId] {
    let totals = &frame.pass.totals;
    &totals[..totals.partition_point(|id| frame.program.scope(*id) <= Scope::Total)]
}

fn hook(frame: &Frame<'_>, lenient: bool) -> String {
    let program = frame.program;
    let roots = roots(program, frame.pass);
    let outer = outer_nodes(program, &roots);
    let mut fields = vec![("bits".to_owned(), "u32".to_owned())];
    fields.extend(outer.iter().map(|id| (format!("n{}", id.0), scalar_type(program.kind(*id)).to_owned())));
    let mut code = outer_code(program, &outer, "o");
    for tensor in (0..frame.slots.len()).filter(|_| !program.has_rows()) {
        fields.push((format!("first{tensor}"), "u32".to_owned()));
        putln!(code, "    o.first{tensor} = shape.tensors[{}].x;", 2 * tensor + 1);
    }
    let mut text = structure("Outer", &fields);
    put!(text, "fn outer_begin() -> Outer {{\n    var o: Outer;\n    o.bits = 0u;\n{code}    return o;\n}}\n");
    let early = frame.variant.aligned_to.map_or("0u".to_owned(), |tensor| format!("o.first{tensor} % WIDTH"));
    putln!(text, "fn early(o: Outer) -> u32 {{ return {early}; }}");
    text.push_str(&sums_text(frame));
    if frame.is_paired() {
        let is_wide = |place: &usize| frame.is_wide(Slot::Input(*place));
        let fetched: Vec<usize> = visited_inputs(program, frame.pass).into_iter().filter(is_wide).collect();
        text.push_str(&item_text(frame, &roots, lenient, "window", &fetched));
        text.push_str(&pair_text(frame, &fetched));
    } else {
        text.push_str(&item_text(frame, &roots, lenient, "item", &[]));
    }
    text.push_str(&match frame.has_ends() {
        true => item_text(&frame.at_ends(), &roots, lenient, "item_end", &[]),
        false => "fn item_end(o: Outer, s: LaneSums, first: u32) -> LaneSums { return s; }\n".to_owned(),
    });
    text
}

/// Two windows, from one load of each wide input.
fn pair_text(frame: &Frame<'_>, fetched: &[usize]) -> String {
    let mut text = "fn item(o: Outer, sums: LaneSums, first: u32) -> LaneSums {\n".to_owned();
    text.push_str(&frame.coordinates("first"));
    let (mut low, mut high) = (String::new(), String::new());
    for &place in fetched {
        let slot = Slot::Input(place);
        let (before, [a, b]) = frame.load_pair(slot, &format!("({})", frame.base(slot)), frame.element_col());
        text.push_str(&before);
        put!(low, ", {a}");
        put!(high, ", {b}");
    }
    putln!(text, "    return window(o, window(o, sums, first{low}), first + 4u{high});\n}}");
    text
}

/// One item, or a window of them. Bits of the inputs that are `fetched` are given, those of others are loaded.
fn item_text(frame: &Frame<'_>, roots: &[NodeId], lenient: bool, name: &str, fetched: &[usize]) -> String {
    let (program, width) = (frame.program, frame.width);
    let mut text = String::new();
    let here = |id: NodeId| program.scope(id) > Scope::Total && !is_literal(program.node(id));
    let emit = Emit { frame, width, outer: "o", here: &here };
    let nodes = valid_first(program, roots);
    let given: String = fetched.iter().map(|place| format!(", x{place}: U4")).collect();
    putln!(text, "fn {name}(o: Outer, sums: LaneSums, first: u32{given}) -> LaneSums {{\n    var s = sums;");
    text.push_str(&frame.coordinates("first"));
    text.push_str(&frame.valid("first"));
    let u = if width == 4 { "U4" } else { "U" };
    putln!(text, "    var bits = {u}(0u);");
    let loads = emit.lets(&nodes, &|id| load(frame, id, "(shape.first_item + first)", lenient, fetched));
    text.push_str(&loads);
    // Where the loss is valid: NaN elsewhere is not looked at.
    let valid = program.valid.map(|v| emit.value(v));
    if let Some(valid) = &valid {
        putln!(text, "    bits = select({u}(0u), bits, {valid});");
    }
    if frame.is_masked() {
        text.push_str("    bits = select(U4(0u), bits, valid);\n");
    }
    text.push_str("    s.bits = max(s.bits, bits);\n");
    let totals = totals(frame);
    for (place, total) in totals.iter().enumerate() {
        let operand = program.node(*total).operands().next().expect("a sum has an operand");
        let mut value = emit.value(operand);
        if program.scope(operand) == Scope::Group {
            // A group counts once, at its first row.
            value = format!("select(0.0, {value}, (shape.first_item + first) % shape.group_rows == 0u)");
        }
        if frame.is_masked() {
            value = format!("select(F4(0.0), {value}, valid)");
        }
        putln!(text, "    s.sum{place} += {value};");
    }
    let mut seen = format!("max(bits, {u}(o.bits))");
    if let Some(valid) = &valid {
        seen = format!("select({u}(0u), {seen}, {valid})");
    }
    putln!(text, "    let poison = {seen} > {u}(INF_BITS);");
    // Of sums over groups the rows themselves, as row kernels leave them, behind the partials of all workgroups.
    for (place, sum) in frame.pass.totals[totals.len()..].iter().enumerate() {
        let operand = program.node(*sum).operands().next().expect("a sum has an operand");
        let first = format!("{}u * shape.sum_groups + {place}u * shape.rows", totals.len());
        let value = emit.value(operand);
        putln!(text, "    work[{first} + shape.first_item + first] = store_bits({value}, poison);");
    }
    for &output in &frame.pass.outputs {
        let slot = Slot::Output(output);
        putln!(text, "    let to{output} = {};", frame.base(slot));
        let value = emit.value(program.outputs[output].node);
        text.push_str(&frame.store(output, &format!("to{output}"), col_of(frame), &value, "poison"));
    }
    text.push_str("    return s;\n}\n");
    text
}

/// The innermost index: of rows by themselves there is none.
fn col_of(frame: &Frame<'_>) -> &'static str {
    if frame.program.has_rows() { "0u" } else { frame.element_col() }
}

/// Loads of inputs and gathers of one item, their bits added to `bits`.
fn load(frame: &Frame<'_>, id: NodeId, item: &str, lenient: bool, fetched: &[usize]) -> String {
    let program = frame.program;
    let n = id.0;
    let f = if frame.width == 4 { "F4" } else { "F" };
    match *program.node(id) {
        Node::Input(place) => {
            let slot = Slot::Input(place as usize);
            let bits = match fetched.contains(&(place as usize)) {
                true => format!("x{place}"),
                false => frame.load(slot, &frame.base(slot), col_of(frame)),
            };
            match program.kind(id) {
                Kind::Int => format!("    let e{n} = {bits};\n"),
                _ => format!(
                    "    let b{n} = {bits};\n    bits = max(bits, b{n} & {}(MAGNITUDE));\n    let e{n} = bitcast<{f}>(b{n});\n",
                    if frame.width == 4 { "U4" } else { "U" }
                ),
            }
        }
        Node::At(x, label) => gather(frame, id, x, &format!("e{}", label.0), item, "bits", lenient),
        Node::SumOver(Scope::Group, _) => {
            let load = group_load(program, id, item);
            format!(
                "    let b{n} = {load};\n    bits = max(bits, b{n} & MAGNITUDE);\n    let e{n} = bitcast<f32>(b{n});\n"
            )
        }
        ref other => unreachable!("a pass that visits no columns holds no {other:?}"),
    }
}

/// `let eID` = the input (or the column's index) at the label's column, and what a label out of range does: report the
/// row and, in a pass whose sums nobody reads before the gradients, poison it.
pub(super) fn gather(
    frame: &Frame<'_>,
    id: NodeId,
    x: NodeId,
    label: &str,
    row: &str,
    bits: &str,
    lenient: bool,
) -> String {
    let program = frame.program;
    let n = id.0;
    let valid = program.valid.filter(|v| program.scope(*v) <= Scope::Row);
    let valid = valid
        .map_or("true".to_owned(), |v| if bits == "bits" { format!("e{}", v.0) } else { outer_value(program, v, "r") });
    let mut text = String::new();
    match *program.node(x) {
        Node::Input(place) => {
            let slot = Slot::Input(place as usize);
            let address = frame.at_col(slot, &format!("({})", frame.base(slot)), &format!("col{n}"));
            let here = frame.load_one(slot, &address);
            put!(text, "    let col{n} = min({label}, shape.cols - 1u);\n    let b{n} = {here};\n");
        }
        Node::ColIndex => {}
        ref other => unreachable!("gathers are of inputs or column indices after lowering, not of {other:?}"),
    }
    let bad = format!("{label} >= shape.classes && {valid}");
    putln!(text, "    let bad{n} = {bad};");
    putln!(text, "    if (bad{n}) {{ atomicMin(&scalars.bad_row, {row}); }}");
    if *program.node(x) == Node::ColIndex {
        // The label itself, which no column equals if it is out of range.
        putln!(text, "    let e{n} = {label};");
        if !lenient {
            putln!(text, "    {bits} = max({bits}, select(0u, NAN_BITS, bad{n}));");
        }
    } else if lenient {
        putln!(text, "    let e{n} = select(bitcast<f32>(b{n}), 0.0, bad{n});");
        putln!(text, "    {bits} = max({bits}, select(b{n} & MAGNITUDE, 0u, bad{n}));");
    } else {
        putln!(text, "    let e{n} = bitcast<f32>(b{n});");
        putln!(text, "    {bits} = max({bits}, select(b{n} & MAGNITUDE, NAN_BITS, bad{n}));");
    }
    text
}

fn sums_text(frame: &Frame<'_>) -> String {
    let count = totals(frame).len();
    let (u, f) = if frame.width == 4 { ("U4", "F4") } else { ("U", "F") };
    let fields = |bits: &str, sum: &str| -> Vec<(String, String)> {
        let sums = (0..count).map(|k| (format!("sum{k}"), sum.to_owned()));
        std::iter::once(("bits".to_owned(), bits.to_owned())).chain(sums).collect()
    };
    let list = |item: &dyn Fn(usize) -> String| (0..count).map(|k| format!(", {}", item(k))).collect::<String>();
    let mut text = structure("Sums", &fields("u32", "f32"));
    text.push_str(&structure("LaneSums", &fields(u, f)));
    let identity = list(&|_| format!("{f}(0.0)"));
    putln!(text, "fn sums_identity(o: Outer) -> LaneSums {{ return LaneSums({u}(o.bits){identity}); }}");
    let added = list(&|k| format!("a.sum{k} + b.sum{k}"));
    putln!(
        text,
        "fn sums_add(a: LaneSums, b: LaneSums) -> LaneSums {{ return LaneSums(max(a.bits, b.bits){added}); }}"
    );
    let narrow = |name: &str, combine: &dyn Fn(&str, &str) -> String| match frame.width {
        4 => combine(
            &combine(&format!("s.{name}.x"), &format!("s.{name}.y")),
            &combine(&format!("s.{name}.z"), &format!("s.{name}.w")),
        ),
        _ => format!("s.{name}"),
    };
    let larger = |a: &str, b: &str| format!("max({a}, {b})");
    let added = |a: &str, b: &str| format!("({a} + {b})");
    let narrowed = list(&|k| narrow(&format!("sum{k}"), &added));
    let bits = narrow("bits", &larger);
    putln!(text, "fn sums_narrow(s: LaneSums) -> Sums {{ return Sums({bits}{narrowed}); }}");
    let combined = list(&|k| format!("a.sum{k} + b.sum{k}"));
    putln!(text, "fn sums_combine(a: Sums, b: Sums) -> Sums {{ return Sums(max(a.bits, b.bits){combined}); }}");
    text.push_str("fn sums_store(s: Sums, group: u32, groups: u32) {\n");
    for k in 0..count {
        putln!(text, "    work[{k}u * groups + group] = store_bits(s.sum{k}, s.bits > INF_BITS);");
    }
    text.push_str("}\n");
    text
}
