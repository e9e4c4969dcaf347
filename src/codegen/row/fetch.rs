//! How a row kernel fetches what a lane reads in a step.

use super::Row;
use crate::codegen::access::Frame;
use crate::codegen::{Slot, structure};
use crate::expr::{Node, NodeId};
use crate::text::putln;

impl Row<'_, '_> {
    /// `Window`, the bits of the inputs in one window; `Fetched`, what a lane's step loads, of one window or two halves; and
    /// the function from this to that. 16-bit elements stay packed until they are used: rows are held so.
    pub(super) fn windows_text(&self) -> String {
        let frame = self.frame;
        let u = if frame.width == 4 { "U4" } else { "U" };
        let of = |ty: &dyn Fn(Slot) -> &'static str| {
            let none = [("none".to_owned(), "u32".to_owned())];
            let inputs = self.fetched.iter().map(|&input| (format!("x{input}"), ty(Slot::Input(input)).to_owned()));
            let left = self.left().into_iter().map(|id| (format!("s{}", id.0), u.to_owned()));
            none.into_iter().chain(inputs).chain(left).collect::<Vec<_>>()
        };
        let mut text = structure("Window", &of(&|_| u));
        let fetched = if frame.is_paired() { "Half" } else { "Fetched" };
        text.push_str(&structure(fetched, &of(&|slot| frame.raw_type(slot))));
        if frame.is_paired() {
            text.push_str("struct Fetched {\n    a: Half,\n    b: Half,\n}\n");
        }
        putln!(text, "fn window(fetched: {fetched}) -> Window {{\n    var f: Window;");
        for &input in &self.fetched {
            let bits = frame.widen_raw(Slot::Input(input), &format!("fetched.x{input}"));
            putln!(text, "    f.x{input} = {bits};");
        }
        for id in self.left() {
            putln!(text, "    f.s{0} = fetched.s{0};", id.0);
        }
        text.push_str("    return f;\n}\n");
        text
    }

    /// How a function of one window names its inputs: as they are fetched, or, at an end of a row, as a window.
    pub(super) fn argument(&self, frame: &Frame<'_>) -> &'static str {
        match (frame.at_end, frame.is_paired()) {
            (true, _) => "f: Window",
            (false, true) => "fetched: Half",
            (false, false) => "fetched: Fetched",
        }
    }

    /// The window of that argument, `f`.
    pub(super) fn unpack(&self, frame: &Frame<'_>) -> &'static str {
        if frame.at_end { "" } else { "    let f = window(fetched);\n" }
    }

    /// The inputs among these values.
    fn inputs_of(&self, read: &[NodeId]) -> impl Iterator<Item = usize> {
        let is_read = |input: &usize| {
            let is_input = |id: &NodeId| *self.frame.program.node(*id) == Node::Input(*input as u32);
            read.iter().any(is_input)
        };
        self.fetched.iter().copied().filter(is_read)
    }

    /// A function that fetches what of a window these values are.
    pub(super) fn fetch_window(&self, name: &str, read: &[NodeId]) -> String {
        let mut text = format!("fn {name}(r: RowValues, col: u32) -> Fetched {{\n    var f: Fetched;\n");
        for input in self.inputs_of(read) {
            let slot = Slot::Input(input);
            let raw = self.frame.load_raw(slot, &self.base_name(slot), "col");
            putln!(text, "    f.x{input} = {raw};");
        }
        text.push_str(&self.fetch_scans(read));
        text.push_str("    return f;\n}\n");
        text
    }

    /// The same of a window that reaches past an end of the row.
    pub(super) fn fetch_end(&self, name: &str, read: &[NodeId]) -> String {
        if !self.ends.has_ends() {
            return format!("fn {name}(r: RowValues, col: u32) -> Window {{ return Window(); }}\n");
        }
        let mut text = format!("fn {name}(r: RowValues, col: u32) -> Window {{\n    var f: Window;\n");
        for input in self.inputs_of(read) {
            let slot = Slot::Input(input);
            let bits = self.ends.load(slot, &self.base_name(slot), "col");
            putln!(text, "    f.x{input} = {bits};");
        }
        text.push_str(&self.fetch_scans(read));
        text.push_str("    return f;\n}\n");
        text
    }

    pub(super) fn fetch_pair(&self) -> String {
        let mut text = "fn fetch(r: RowValues, col: u32) -> Fetched {\n    var f: Fetched;\n".to_owned();
        for &input in &self.fetched {
            let slot = Slot::Input(input);
            let (before, [a, b]) = self.frame.load_pair(slot, &self.base_name(slot), "col");
            putln!(text, "{before}    f.a.x{input} = {a};\n    f.b.x{input} = {b};");
        }
        text.push_str("    return f;\n}\n");
        text
    }
}
