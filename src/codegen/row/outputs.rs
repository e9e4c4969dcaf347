//! What a row kernel writes: the element outputs of a window, rows that are all one value, the label's element, and the
//! values of the row.

use super::Row;
use crate::codegen::access::Frame;
use crate::codegen::by_run::{Carried, carries};
use crate::codegen::emit::{is_literal, is_shifted, outer_value};
use crate::codegen::poison::{
    bits, bits_of_value, is_poisoned, largest, lenient_value, poison_name, poisons_of, poisons_of_outputs,
};
use crate::codegen::state::Part;
use crate::codegen::store::Stored;
use crate::codegen::{Mode, Slot};
use crate::expr::op::{Kind, Op};
use crate::expr::{Node, NodeId, Reduce};
use crate::lower::{Consumer, Look, LookPlace};
use crate::shape::{DType, Scope};
use crate::text::putln;

/// What a row's bf16 outputs may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Halves {
    /// NaN too, which rounding must keep.
    Any,
    /// Numbers: the row's factors are finite.
    Numbers,
}

impl Row<'_, '_> {
    pub(super) fn outputs_text(&self) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let mut text = self.whole_step_of_elements(["write_elements", "write_window"], Halves::Any);
        putln!(text, "const WRITTEN: bool = {};", self.writes_in_stage());
        let factors = self.factors();
        if factors.is_empty() {
            text.push_str(
                "const NUMBERS: bool = false;\nfn has_numbers(r: RowValues) -> bool { return false; }\n\
                 fn write_numbers(r: RowValues, fetched: Fetched, col: u32) {}\n",
            );
        } else {
            let finite = |id: &NodeId| format!("({}) < INF_BITS", bits_of_value(&outer_value(program, *id, "r")));
            let all: Vec<String> = factors.iter().map(finite).collect();
            putln!(
                text,
                "const NUMBERS: bool = true;\nfn has_numbers(r: RowValues) -> bool {{ return {}; }}",
                all.join(" && ")
            );
            text.push_str(&self.whole_step_of_elements(["write_numbers", "write_number_window"], Halves::Numbers));
        }
        text.push_str(&match self.ends.has_ends() {
            true => self.elements_text(self.ends, "write_end", Halves::Any),
            false => "fn write_end(r: RowValues, f: Window, col: u32) {}\n".to_owned(),
        });
        text.push_str(&self.constant_text());
        text.push_str(&self.label_text());
        text.push_str("fn write_row(before: RowValues) {\n    var r = before;\n");
        text.push_str(&self.last_lets());
        for (k, total) in frame.pass.totals.iter().enumerate() {
            let operand = program.node(*total).operands().next().expect("a sum has an operand");
            let value = outer_value(program, operand, "r");
            let value = lenient_value(program, frame.pass, *total, value, &|id| outer_value(program, id, "r"));
            let poison = is_poisoned(frame.pass, Consumer::Sum(*total), "r");
            putln!(text, "    work[{k}u * shape.rows + r.row] = store_bits({value}, {poison});");
        }
        for &output in frame.pass.outputs.iter().filter(|&&o| program.outputs[o].scope == Scope::Row) {
            let slot = Slot::Output(output);
            let value = outer_value(program, program.outputs[output].node, "r");
            let poison = is_poisoned(frame.pass, Consumer::Output(output), "r");
            text.push_str(&frame.store_row(output, &self.base_name(slot), &value, &poison));
        }
        text.push_str(&self.save_text());
        text.push_str("}\n");
        text
    }

    /// A function that writes a step's element outputs, of one window, or of two, of which each has the second name.
    fn whole_step_of_elements(&self, [name, window]: [&str; 2], halves: Halves) -> String {
        let frame = self.frame;
        if !frame.is_paired() {
            return self.elements_text(frame, name, halves);
        }
        let windows = [("f.a", "col"), ("f.b", "col + 4u")].map(|(f, col)| format!("    {window}(r, {f}, {col});\n"));
        let base = |output| self.base_name(Slot::Output(output));
        let both = frame.both(windows, &base, "col");
        self.elements_text(frame, window, halves)
            + &format!("fn {name}(r: RowValues, f: Fetched, col: u32) {{\n{both}}}\n")
    }

    /// The row values whose finiteness makes bf16 outputs numbers.
    fn factors(&self) -> Vec<NodeId> {
        let (frame, program) = (self.frame, self.frame.program);
        let is_rounded = |output: &usize| {
            let is_bf16 = frame.access(Slot::Output(*output)).dtype == DType::BF16;
            is_bf16 && frame.is_vector(Slot::Output(*output)) && !program.notes(*output)
        };
        if !self.is_whole || self.is_poisoned_by_row().is_none() {
            return Vec::new();
        }
        let values = self.element_values();
        let rounded = values.into_iter().filter(|(output, _)| is_rounded(output));
        let factors = rounded.filter_map(|(output, value)| self.factor(output, value)).flatten();
        let mut all: Vec<NodeId> = Vec::new();
        factors.for_each(|id| {
            if !all.contains(&id) {
                all.push(id)
            }
        });
        all
    }

    /// Whether the elements of a held row are written by the trip of its only stage, which computes what they are made of: they
    /// depend on nothing of the row but whether it is poisoned, or left out, and then it is written again.
    pub(super) fn writes_in_stage(&self) -> bool {
        let (frame, program) = (self.frame, self.frame.program);
        let [trip] = &self.trips[..] else { return false };
        let is_early = |(output, value): &(usize, NodeId)| {
            let is_alone = frame.mode(*output) == Mode::Write && program.outputs[*output].at_label.is_none();
            is_alone && self.depth.get(value).is_none_or(|depth| *depth == 0) && !program.notes(*output)
        };
        let values = self.element_values();
        let is_held = self.is_whole && !self.streams && trip.part == Part::Whole && trip.along.is_none();
        is_held && self.is_poisoned_by_row().is_some() && values.iter().all(is_early)
    }

    /// Element outputs, and their values in a row that is not constant.
    fn element_values(&self) -> Vec<(usize, NodeId)> {
        let outputs = self.element_outputs();
        let values = match self.counted() {
            Some((_, values)) => values,
            None => outputs.iter().map(|&output| self.frame.program.outputs[output].node).collect(),
        };
        outputs.into_iter().zip(values).collect()
    }

    fn element_outputs(&self) -> Vec<usize> {
        let (program, pass) = (self.frame.program, self.frame.pass);
        pass.outputs.iter().filter(|&&o| program.outputs[o].scope == Scope::Element).copied().collect()
    }

    /// Whether rows are poisoned whole: all element outputs have the same poisons, and these look at nothing but the row.
    fn is_poisoned_by_row(&self) -> Option<Vec<usize>> {
        let pass = self.frame.pass;
        let sets = poisons_of_outputs(pass, &self.element_outputs());
        let [poisons] = &sets[..] else { return None };
        let of_row =
            |k: &usize| pass.poison[*k].gate.is_none() && pass.poison[*k].at(LookPlace::Element).next().is_none();
        (!poisons.is_empty() && poisons.iter().all(of_row)).then(|| poisons.clone())
    }

    /// The condition of the row under which all element outputs are other than 0, if they have one in common; and what
    /// each is where it holds.
    fn counted(&self) -> Option<(NodeId, Vec<NodeId>)> {
        let (program, pass) = (self.frame.program, self.frame.pass);
        // A poison is stronger than a condition, which may be false for NaN.
        let poisons = poisons_of_outputs(pass, &self.element_outputs());
        if self.is_poisoned_by_row().is_none() && poisons.iter().any(|set| !set.is_empty()) {
            return None;
        }
        // The condition under which a node is other than 0, and its value there.
        let gated = |id: NodeId| match *program.node(id) {
            Node::Op(Op::Select, [condition, value, other]) => {
                let is_zero = matches!(*program.node(other), Node::Const(bits) if f64::from_bits(bits) == 0.0);
                is_zero.then_some((condition, value))
            }
            _ => None,
        };
        let mut all = Vec::new();
        for output in self.element_outputs() {
            let output = &program.outputs[output];
            let (condition, value) = gated(output.node)?;
            if self.is_element(condition) || !self.is_element(value) {
                return None;
            }
            // Another term of a sum may count a row that this condition leaves out, at its label alone.
            if let Some((_, there)) = output.at_label {
                gated(there).filter(|(other, _)| *other == condition)?;
            }
            all.push((condition, value));
        }
        let (condition, _) = *all.first()?;
        let is_common = all.iter().all(|(other, _)| *other == condition) && !is_literal(program.node(condition));
        is_common.then(|| (condition, all.into_iter().map(|(_, value)| value).collect()))
    }

    /// `is_constant`, of a row whose elements are all NaN, or all 0, and `write_constant`, a step of such a row.
    fn constant_text(&self) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let poisoned = self.is_poisoned_by_row().map(|poisons| {
            let seen = largest(poisons.iter().map(|k| format!("r.{}", bits(*k))), "0u");
            format!("{seen} > INF_BITS")
        });
        let left_out = self.counted().map(|(condition, _)| format!("!{}", outer_value(program, condition, "r")));
        let both: Vec<String> = poisoned.iter().chain(&left_out).map(|text| format!("({text})")).collect();
        if both.is_empty() {
            return "fn is_constant(r: RowValues) -> bool { return false; }\n\
                    fn write_constant(r: RowValues, first: u32) {}\n"
                .to_owned();
        }
        let ty = if frame.width == 4 { "F4" } else { "F" };
        let bits = match &poisoned {
            Some(poisoned) => format!("shape.reserved0 | select(0u, NAN_BITS, {poisoned})"),
            None => "shape.reserved0".to_owned(),
        };
        let mut text = format!(
            "fn is_constant(r: RowValues) -> bool {{ return {}; }}\n\
             fn write_constant(r: RowValues, first: u32) {{\n    let constant = {ty}(bitcast<f32>({bits}));\n",
            both.join(" || ")
        );
        let base = |output| self.base_name(Slot::Output(output));
        let window = |step: u32| {
            let mut text = format!("    {{\n    let col = first + {}u;\n", 4 * step);
            for output in self.element_outputs() {
                let stored = Stored { value: "constant", poison: None, is_number: false };
                text.push_str(&frame.store(output, &base(output), "col", stored));
            }
            text + "    }\n"
        };
        text.push_str(&match frame.is_paired() {
            true => frame.both([0, 1].map(window), &base, "first"),
            false => window(0),
        });
        text.push_str("}\n");
        text
    }

    /// The output whose element at the row's label is written by itself, after its row; and that label.
    fn written_at_label(&self) -> Option<(usize, NodeId, NodeId)> {
        let (frame, program) = (self.frame, self.frame.program);
        let outputs = self.element_outputs();
        let mut labelled =
            outputs.iter().filter_map(|&o| program.outputs[o].at_label.map(|(label, there)| (o, label, there)));
        let (output, label, there) = labelled.next()?;
        let is_written = !matches!(frame.mode(output), Mode::Accumulate) && !program.notes(output);
        let by_row = self.is_poisoned_by_row().is_some() || poisons_of(frame.pass, Consumer::Output(output)).is_empty();
        let is_alone = labelled.next().is_none() && by_row && !self.is_element(label) && !self.is_element(there);
        let fits =
            self.is_whole && frame.width == 4 && !frame.variant.column_range && frame.is_vector(Slot::Output(output));
        (is_written && is_alone && fits).then_some((output, label, there))
    }

    /// Whether the element at the label is written after its row wherever it is.
    pub(super) fn is_written_at_label(&self) -> bool {
        self.written_at_label().is_some() && !self.ends.has_ends()
    }

    /// `label_col`, the column that is written by itself, and `write_label`, which writes it.
    fn label_text(&self) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let Some((output, label, there)) = self.written_at_label() else {
            return "fn label_col(r: RowValues) -> u32 { return 0xffffffffu; }\n\
                    fn write_label(r: RowValues) {}\n"
                .to_owned();
        };
        let (label, there) = (outer_value(program, label, "r"), outer_value(program, there, "r"));
        let address = format!("({} + {label})", self.base_name(Slot::Output(output)));
        format!(
            "fn label_col(r: RowValues) -> u32 {{ return {label}; }}\nfn write_label(before: RowValues) {{\n    \
             var r = before;\n{}{}}}\n",
            self.last_lets(),
            frame.store_one(output, &address, &there)
        )
    }

    /// Row values that make an output finite where they are: the factor of an exponential of a shifted value, or of a value
    /// that a sum of the row carries, and that sum.
    fn factor(&self, output: usize, value: NodeId) -> Option<Vec<NodeId>> {
        let (frame, program) = (self.frame, self.frame.program);
        // A value that is put at a label is no product; what is added to may be NaN, whatever is added.
        let by_itself = self.written_at_label().is_some_and(|(labelled, ..)| labelled == output);
        if program.outputs[output].at_label.is_some() && !by_itself || frame.mode(output) == Mode::Accumulate {
            return None;
        }
        let Node::Op(Op::Mul, [a, b, _]) = *program.node(value) else { return None };
        let (item, factor) = if self.is_element(a) { (a, b) } else { (b, a) };
        if self.is_element(factor) || !self.is_element(item) {
            return None;
        }
        if matches!(*program.node(item), Node::Op(Op::Exp, [x, ..]) if is_shifted(program, x)) {
            return Some(vec![factor]);
        }
        let carried = |sum: &&NodeId| match *program.node(**sum) {
            Node::Reduce(Reduce::Sum, x) => carries(program, Carried::NotFinite, x, item),
            _ => false,
        };
        let sum = frame.pass.stages.iter().flat_map(|stage| &stage.reduces).find(carried)?;
        Some(vec![factor, *sum])
    }

    /// The element outputs of one window, inside the row or at one of its ends.
    fn elements_text(&self, frame: &Frame<'_>, name: &str, halves: Halves) -> String {
        let (program, pass) = (frame.program, frame.pass);
        let u = if frame.width == 4 { "U4" } else { "U" };
        let elements = self.element_outputs();
        let mut text = format!("fn {name}(r: RowValues, {}, col: u32) {{\n", self.argument(frame));
        if elements.is_empty() {
            text.push_str("}\n");
            return text;
        }
        text.push_str(self.unpack(frame));
        // Inside the row, a row that is poisoned or left out whole never comes here.
        let at_end = frame.at_end;
        let is_checked = at_end || self.is_poisoned_by_row().is_none();
        let counted = self.counted().filter(|_| !at_end);
        let written_at_label = self.written_at_label().filter(|_| !at_end);
        let values: Vec<NodeId> = match &counted {
            Some((_, values)) => values.clone(),
            None => elements.iter().map(|&o| program.outputs[o].node).collect(),
        };
        let place = LookPlace::Element;
        let looked = pass.poison.iter().flat_map(|poison| poison.at(place)).flat_map(Look::nodes);
        let looked = looked.chain(pass.poison.iter().filter_map(|poison| poison.gate));
        let roots: Vec<NodeId> = values.iter().copied().chain(looked).collect();
        text.push_str(&self.element_lets(&self.element_nodes(&roots)));
        for poisons in poisons_of_outputs(pass, &elements).iter().filter(|_| is_checked) {
            let seen = self.element_poison(poisons);
            putln!(text, "    let {} = {seen} > {u}(INF_BITS);", poison_name(poisons));
        }
        text.push_str(&frame.valid("col"));
        for (&output, &node) in elements.iter().zip(&values) {
            let base = self.base_name(Slot::Output(output));
            let mut value = self.element_value(node);
            let by_itself = written_at_label.is_some_and(|(labelled, ..)| labelled == output);
            let at_label = program.outputs[output].at_label.filter(|_| !by_itself);
            if let Some((label, there)) = at_label {
                putln!(text, "    var v{output} = {value};");
                text.push_str(&self.at_label_text(frame, output, label, there));
                value = format!("v{output}");
            }
            let poison = poison_name(&poisons_of(pass, Consumer::Output(output)));
            let poison = is_checked.then_some(poison.as_str());
            let is_number = halves == Halves::Numbers && self.factor(output, node).is_some();
            let stored = Stored { value: &value, poison, is_number };
            text.push_str(&frame.store(output, &base, "col", stored));
        }
        text.push_str("}\n");
        text
    }

    /// Puts the value at the label's column. A label of the row is compared once a window.
    fn at_label_text(&self, frame: &Frame<'_>, output: usize, label: NodeId, there: NodeId) -> String {
        let v = format!("v{output}");
        let there = self.element_value(there);
        if frame.width == 1 || self.is_element(label) {
            let (here, label) = (frame.col_index(), self.element_value(label));
            return format!("    {v} = select({v}, {there}, {here} == {label});\n");
        }
        let first = if frame.variant.column_range { "(shape.first_col + col)" } else { "col" };
        let label = outer_value(frame.program, label, "r");
        format!(
            "    let to_label{output} = {label} - {first};\n    if (to_label{output} < 4u) {{\n        \
             {v} = select({v}, {there}, U4(0u, 1u, 2u, 3u) == U4(to_label{output}));\n    }}\n"
        )
    }

    /// Leaves row values for later passes.
    fn save_text(&self) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let saves = &frame.pass.saves;
        let values = saves.nodes.iter().map(|id| match program.kind(*id) {
            Kind::Float => format!("bitcast<u32>(r.n{})", id.0),
            _ => format!("r.n{}", id.0),
        });
        let words = values.chain(saves.poisons.iter().map(|k| format!("r.{}", bits(*k))));
        let mut text = String::new();
        for (word, value) in words.enumerate() {
            putln!(text, "    {} = {value};", frame.saved(word));
        }
        text
    }

    /// The largest bits that these poisons see in an element: of its row, where their gates let them, and of its own.
    pub fn element_poison(&self, poisons: &[usize]) -> String {
        let pass = self.frame.pass;
        let u = if self.frame.width == 4 { "U4" } else { "U" };
        let (gated, whole): (Vec<usize>, Vec<usize>) = poisons.iter().partition(|k| pass.poison[**k].gate.is_some());
        let rows = largest(whole.iter().map(|k| format!("r.{}", bits(*k))), "0u");
        let gated = gated.iter().map(|k| {
            let gate = pass.poison[*k].gate.expect("the poison is gated");
            format!("select({u}(0u), {u}(r.{}), {})", bits(*k), self.element_value(gate))
        });
        let looks = poisons.iter().flat_map(|k| pass.poison[*k].at(LookPlace::Element)).map(|look| self.look(look));
        largest(std::iter::once(format!("{u}({rows})")).chain(gated).chain(looks), "")
    }
}
