//! How a pass kernel stores its outputs: whole windows, windows that reach past a row's ends, single elements, and the values
//! of rows; 16-bit types two to a word, of which two rows may share one.

use super::access::{COMPONENTS, Frame, WINDOW};
use super::found::{note, see, seen_name};
use super::{Mode, Pair, Slot, Variant, tensors};
use crate::lower::{Pass, Program};
use crate::shape::{DType, Scope};
use crate::text::{put, putln};

/// What is stored of an output: one element, or a window of four.
#[derive(Clone, Copy)]
pub(super) struct Stored<'t> {
    pub value: &'t str,
    /// Where NaN is stored in its place; `None` for nowhere.
    pub poison: Option<&'t str>,
    /// Whether the value is known to be no NaN.
    pub is_number: bool,
}

impl Frame<'_> {
    /// Stores a value (or a window of values) at a column; adds it to the old value if the output accumulates.
    pub fn store(&self, output: usize, base: &str, col: &str, stored: Stored<'_>) -> String {
        let Stored { value, poison, is_number } = stored;
        // What is added to may be NaN, whatever is added.
        let is_number = is_number && self.mode(output) != Mode::Accumulate;
        let slot = Slot::Output(output);
        let (w, ty) = if self.width == 4 { ("4", "F4") } else { ("", "f32") };
        let value = match self.mode(output) {
            Mode::Accumulate => format!("bitcast<{ty}>({}) + {value}", self.load(slot, base, col)),
            _ => value.to_owned(),
        };
        let bits = match (poison, self.width) {
            (Some(poison), _) => format!("store_bits{w}({value}, {poison})"),
            (None, WINDOW) => format!("bitcast<U4>({value})"),
            (None, _) => format!("bitcast<U>({value})"),
        };
        let dtype = self.access(slot).dtype;
        // Of 16-bit types, halves are looked at.
        let (mut text, bits) = match self.program.notes(output) && !dtype.is_packed() {
            true => seen_bits(output, &bits, self.width, self.is_masked()),
            false => (String::new(), bits),
        };
        let name = self.buffer(slot);
        if self.width == 1 {
            let address = self.at_col(slot, base, col);
            match dtype.is_packed() {
                true => text.push_str(&self.store_half(output, &address, &bits)),
                false => putln!(text, "    {name}[{address}] = {bits};"),
            }
            return text;
        }
        if !self.is_vector(slot) {
            putln!(text, "    let bits{output} = {bits};");
            for (k, c) in COMPONENTS.into_iter().enumerate() {
                let only = if self.is_masked() { format!("if (valid.{c}) ") } else { String::new() };
                let address = self.at_col(slot, base, &format!("({col} + {k}u)"));
                putln!(text, "    {only}{{ {name}[{address}] = bits{output}.{c}; }}");
            }
            return text;
        }
        let (address, index) = (format!("({base} + {col})"), self.vector_index(base, col, WINDOW));
        if dtype.is_packed() && !self.is_masked() && !self.program.notes(output) {
            text.push_str(&self.store_words(output, [&address, &index], &self.packed(dtype, &bits, is_number)));
            return text;
        }
        let at = format!("{name}[{index}]");
        match (dtype, self.is_masked()) {
            (DType::F16, _) => self.store_packed(output, [&address, &index], &format!("narrow4_f16({bits})")),
            (DType::BF16, _) => self.store_packed(output, [&address, &index], &format!("narrow4_bf16({bits})")),
            (_, false) => {
                putln!(text, "    {at} = {bits};");
                text
            }
            (_, true) => {
                // Storing a component writes its 4 bytes only: elements of other rows stay.
                put!(text, "    let bits{output} = {bits};\n    if (all(valid)) {{\n");
                put!(text, "        {at} = bits{output};\n    }} else {{\n");
                for c in COMPONENTS {
                    putln!(text, "        if (valid.{c}) {{ {at}.{c} = bits{output}.{c}; }}");
                }
                text.push_str("    }\n");
                text
            }
        }
    }

    /// A window's bits, packed to two words.
    fn packed(&self, dtype: DType, bits: &str, is_number: bool) -> String {
        match (dtype, is_number) {
            (DType::BF16, true) => format!("pack4_bf16_numbers({bits})"),
            (DType::BF16, false) if self.carries_nan => format!("pack4_bf16_by_sum({bits})"),
            (DType::BF16, false) => format!("pack4_bf16({bits})"),
            _ => format!("pack4_f16({bits})"),
        }
    }

    /// Stores one element at an address, by a lane that has stored its neighbours before.
    pub fn store_one(&self, output: usize, address: &str, value: &str) -> String {
        let slot = Slot::Output(output);
        let (word, dtype) = (self.word_of(slot, address), self.access(slot).dtype);
        let bits = format!("bitcast<u32>({value})");
        if !dtype.is_packed() {
            return format!("    {word} = {bits};\n");
        }
        format!(
            "    let shift = ({address}) % 2u * 16u;\n    \
             {word} = ({word} & ~(0xffffu << shift)) | (narrow_{dtype}({bits}) << shift);\n"
        )
    }

    /// Stores the row's value, an f32; adds it to the old value if the output accumulates.
    pub fn store_row(&self, output: usize, address: &str, value: &str, poison: &str) -> String {
        let name = self.buffer(Slot::Output(output));
        let value = match self.mode(output) {
            Mode::Accumulate => format!("bitcast<f32>({name}[{address}]) + {value}"),
            _ => value.to_owned(),
        };
        let bits = format!("store_bits({value}, {poison})");
        let (mut text, bits) = match self.program.notes(output) {
            true => seen_bits(output, &bits, 1, false),
            false => (String::new(), bits),
        };
        putln!(text, "    {name}[{address}] = {bits};");
        text
    }

    /// Outputs of the pass of which it is noted where stored values are not finite.
    pub(super) fn noted(&self) -> impl Iterator<Item = usize> {
        self.pass.outputs.iter().copied().filter(|&output| self.program.notes(output))
    }

    /// Components of what a lane has seen of an output.
    pub(super) fn seen_width(&self, output: usize) -> u32 {
        if self.program.outputs[output].scope == Scope::Element { self.width } else { 1 }
    }

    /// At the end of a lane: statements that note what it has seen.
    pub fn seen_text(&self) -> String {
        let note = |output: usize| {
            let dtype = self.access(Slot::Output(output)).dtype;
            format!("    {}\n", note(&seen_name(output), dtype, self.seen_width(output)))
        };
        self.noted().map(note).collect()
    }

    /// Outputs of which both windows of a step are stored at once, by [`Frame::both`].
    pub fn halves_outputs(&self) -> Vec<usize> {
        let is_halves = |output: &usize| self.pair(Slot::Output(*output)) == Pair::Halves;
        self.pass.outputs.iter().copied().filter(is_halves).collect()
    }

    /// Statements of the two windows of a step, and the stores of what they leave for both.
    pub fn both(&self, windows: [String; 2], base: &dyn Fn(usize) -> String, col: &str) -> String {
        let [mut text, second] = windows;
        for output in self.halves_outputs() {
            putln!(text, "    let first{output} = packed{output};");
        }
        text.push_str(&second);
        for output in self.halves_outputs() {
            let (name, base) = (self.buffer(Slot::Output(output)), base(output));
            let index = self.vector_index(&base, col, 2 * WINDOW);
            putln!(text, "    {name}[{index}] = vec4<u32>(first{output}, packed{output});");
        }
        text
    }

    /// Element outputs of 16-bit types in a kernel that takes pairs of rows.
    pub fn paired_outputs(&self) -> Vec<usize> {
        let is_packed = |output: &usize| self.access(Slot::Output(*output)).dtype.is_packed();
        let outputs = self.pass.outputs.iter().copied().filter(|_| self.row_pairs);
        outputs.filter(is_packed).collect()
    }

    /// Leaves the first row's half of a word for the second row, which stores both.
    fn store_half(&self, output: usize, address: &str, bits: &str) -> String {
        let dtype = self.access(Slot::Output(output)).dtype;
        let (name, half) = (self.buffer(Slot::Output(output)), format!("half{output}"));
        let mut text = format!("    let {half} = narrow_{dtype}({bits});\n    let address{output} = {address};\n");
        if self.program.notes(output) {
            putln!(text, "    {}", see(output, &half, dtype, 1, false));
        }
        put!(text, "    if (address{output} % 2u == 0u) {{\n        first_half{output} = {half};\n    }} else {{\n");
        putln!(text, "        {name}[address{output} / 2u] = first_half{output} | ({half} << 16u);\n    }}");
        text
    }

    /// Stores two words of 16-bit values at an address, whose vector has that index, or leaves them for [`Frame::both`].
    fn store_words(&self, output: usize, [address, index]: [&str; 2], words: &str) -> String {
        let slot = Slot::Output(output);
        match (self.pair(slot), self.at_end) {
            (Pair::Halves, false) => format!("    packed{output} = {words};\n"),
            (Pair::Halves, true) => {
                let [low, high] = [0, 2].map(|k| self.word_of(slot, &format!("{address} + {k}u")));
                format!(
                    "    let words{output} = {words};\n    {low} = words{output}.x;\n    {high} = words{output}.y;\n"
                )
            }
            _ => format!("    {}[{index}] = {words};\n", self.buffer(slot)),
        }
    }

    /// Stores four 16-bit values to two words. In a word that two rows share, the row's half goes to `work`, from where
    /// `stitch.wgsl` assembles the word. Without rows no other lane writes the other half.
    fn store_packed(&self, output: usize, [address, index]: [&str; 2], halves: &str) -> String {
        let mut text = format!("    let half{output} = {halves};\n");
        let masked = self.is_masked();
        if self.program.notes(output) {
            let dtype = self.access(Slot::Output(output)).dtype;
            putln!(text, "    {}", see(output, &format!("half{output}"), dtype, self.width, masked));
        }
        let h = |c: char| format!("half{output}.{c}");
        let word = |low: char, high: char| format!("{} | ({} << 16u)", h(low), h(high));
        let whole =
            self.store_words(output, [address, index], &format!("vec2<u32>({}, {})", word('x', 'y'), word('z', 'w')));
        if !masked {
            return text + &whole;
        }
        put!(text, "    if (all(valid)) {{\n    {whole}    }} else {{\n");
        for (first, low, high) in [(0, 'x', 'y'), (2, 'z', 'w')] {
            let (edges, both) = (self.edge_word(output, address, first), word(low, high));
            let (first, last) = if self.program.has_rows() {
                let edge = self.edge(output);
                let at = |side: u32| format!("work[shape.edge_base + ({edge}u * shape.rows + r.row) * 2u + {side}u]");
                (format!("{} = {};", at(0), h(high)), format!("{} = {};", at(1), h(low)))
            } else {
                (
                    format!("{edges} = ({edges} & 0xffffu) | ({} << 16u);", h(high)),
                    format!("{edges} = ({edges} & 0xffff0000u) | {};", h(low)),
                )
            };
            put!(
                text,
                "        if (valid.{low} && valid.{high}) {{ {edges} = {both}; }}\n        \
                 else if (valid.{high}) {{ {first} }}\n        else if (valid.{low}) {{ {last} }}\n"
            );
        }
        text.push_str("    }\n");
        text
    }

    /// The word of a window's elements `first` and `first + 1`.
    fn edge_word(&self, output: usize, address: &str, first: u32) -> String {
        let slot = Slot::Output(output);
        match self.pair(slot) {
            Pair::Halves => self.word_of(slot, &format!("{address} + {first}u")),
            _ => format!("{}[{address} / 4u].{}", self.buffer(slot), COMPONENTS[first as usize / 2]),
        }
    }

    /// Index of an output among [`Frame::edge_outputs`].
    pub fn edge(&self, output: usize) -> usize {
        let edges = self.edge_outputs();
        edges.iter().position(|o| *o == output).expect("only outputs that leave halves are stitched")
    }

    /// Outputs whose rows may share words: they leave halves in `work`.
    pub fn edge_outputs(&self) -> Vec<usize> {
        edge_outputs(self.program, self.pass, self.variant, self.width)
    }
}

/// Statements that name the f32 bits to store, and see them; and their name.
fn seen_bits(output: usize, bits: &str, width: u32, masked: bool) -> (String, String) {
    let name = format!("stored{output}");
    let see = see(output, &name, DType::F32, width, masked);
    (format!("    let {name} = {bits};\n    {see}\n"), name)
}

/// Element outputs of a pass over masked windows that store two elements per word.
pub fn edge_outputs(program: &Program, pass: &Pass, variant: &Variant, width: u32) -> Vec<usize> {
    if !variant.masked || !program.has_rows() || width == 1 {
        return Vec::new();
    }
    let slots = tensors(program, pass);
    let is_edge = |&output: &usize| {
        let tensor =
            slots.iter().position(|s| *s == Slot::Output(output)).expect("outputs of a pass are among its tensors");
        program.outputs[output].scope == Scope::Element && variant.access[tensor].dtype.is_packed()
    };
    pass.outputs.iter().copied().filter(is_edge).collect()
}
