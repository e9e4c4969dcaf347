//! Sorts of a row, and elements moved by them, as hooks: keys and elements that lanes leave in `work`.

use super::{Row, Trip};
use crate::codegen::access::Frame;
use crate::expr::{Move, Node, NodeId, Order};
use crate::text::putln;

impl Row<'_, '_> {
    /// The elements that a sort or a permutation takes.
    pub(super) fn moved_operand(&self, id: NodeId) -> NodeId {
        self.frame.program.node(id).operands().next().expect("a sort and a permutation have an operand")
    }

    /// `NAME_lay`, which leaves what `word` says of each element of a window that is the row's.
    fn laid_text(&self, name: &str, frame: &Frame<'_>, id: NodeId, word: &dyn Fn(&str, &str) -> String) -> String {
        let x = self.moved_operand(id);
        let mut text =
            format!("fn {name}(r: RowValues, {}, col: u32) {{\n{}", self.argument(frame), self.unpack(frame));
        text.push_str(&self.element_lets(&self.element_nodes(&[x])));
        let f = if frame.width == 4 { "F4" } else { "F" };
        for (k, at) in self.components().iter().enumerate() {
            let (column, value) = (format!("(col + {k}u)"), format!("{f}({}){at}", self.element_value(x)));
            let laid = word(&column, &format!("bitcast<u32>({value})"));
            match frame.is_masked() {
                true => putln!(text, "    if ({column} < shape.cols) {{\n{laid}    }}"),
                false => text.push_str(&laid),
            }
        }
        text.push_str("}\n");
        text
    }

    /// Both ways to lay a window.
    fn lays_text(&self, name: &str, id: NodeId, word: &dyn Fn(&str, &str) -> String) -> String {
        let whole = self.laid_text(&format!("{name}_lay"), self.frame, id, word);
        let end = match self.ends.has_ends() {
            true => self.laid_text(&format!("{name}_end_lay"), self.ends, id, word),
            false => format!("fn {name}_end_lay(r: RowValues, f: Window, col: u32) {{}}\n"),
        };
        whole + &end
    }

    /// The hooks of a trip that sorts.
    pub(super) fn sort_text(&self, trip: &Trip) -> String {
        let (n, id) = (trip.index, trip.left()[0]);
        let Node::ArgSort(order, _) = *self.frame.program.node(id) else { unreachable!("the trip sorts") };
        let not = if order == Order::Descending { "~" } else { "" };
        let mut text = format!("fn sort{n}_first() -> u32 {{ return {}; }}\n", self.first_word(id, 0));
        text.push_str(&self.lays_text(&format!("sort{n}"), id, &|column, bits| {
            format!(
                "    work[{} + WIDTH + {column}] = {not}sort_key({bits});\n    work[{} + WIDTH + {column}] = {column};\n",
                self.first_word(id, 0),
                self.first_word(id, 1)
            )
        }));
        text.push_str(&self.along_finish_text(trip));
        text
    }

    /// The hooks of a trip that moves elements.
    pub(super) fn move_text(&self, trip: &Trip) -> String {
        let n = trip.index;
        let (mut lays, mut leaves) = (Vec::new(), String::new());
        for &id in trip.left() {
            let Node::Permute(way, [_, order]) = *self.frame.program.node(id) else { unreachable!("the trip moves") };
            let place = |column: &str| format!("work[{} + WIDTH + {column}]", self.first_word(order, 1));
            let word = |first: &str, column: &str| format!("work[{first} + WIDTH + {column}]");
            let (result, source) = (self.first_word(id, 0), self.first_word(id, 1));
            lays.push(self.lays_text(&format!("move{n}_{}", id.0), id, &|column, bits| match way {
                Move::Gather => format!("    {} = {bits};\n", word(&source, column)),
                Move::Scatter => format!("    {} = {bits};\n", word(&result, &place(column))),
            }));
            for k in (0..self.frame.width).filter(|_| way == Move::Gather) {
                let column = format!("(col + {k}u)");
                let moved = word(&source, &place(&column));
                putln!(leaves, "    if ({column} < shape.cols) {{ {} = {moved}; }}", word(&result, &column));
            }
        }
        let mut text = lays.concat();
        for (name, argument, window) in [("lay", self.argument(self.frame), "fetched"), ("end_lay", "f: Window", "f")] {
            putln!(text, "fn move{n}_{name}(r: RowValues, {argument}, col: u32) {{");
            for id in trip.left() {
                putln!(text, "    move{n}_{}_{name}(r, {window}, col);", id.0);
            }
            text.push_str("}\n");
        }
        putln!(text, "fn move{n}_leave(r: RowValues, col: u32) {{\n{leaves}}}");
        text.push_str(&self.along_finish_text(trip));
        text
    }
}
