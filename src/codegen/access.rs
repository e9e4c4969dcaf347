//! How a pass kernel reaches its tensors: bindings, addresses and loads; `store.rs` has the stores.
//!
//! A lane visits columns in *windows* of one or four elements, one or two windows per step (`WIDTH` elements). Where a
//! row may start inside a vector (odd column counts, views), steps are aligned to one tensor and start up to `WIDTH −
//! 1` columns early; windows at the ends of a row (of the elements) have their own hooks, which mask columns outside
//! it. Tensors whose rows have the same offset inside a vector are loaded and stored as vectors, the others element by
//! element. Two windows per step are for accesses of both at once (see [`Pair`]): of 16 bytes of 16-bit elements, or by
//! 64-bit integers.

use super::found::{note_declarations, scalars_type, seen_name};
use super::groups::{group_values, row_word};
use super::{
    Access, Along, Binding, Mode, Pair, Slot, Variant, column_slots, group_column_slots, state_words, tensors,
};
use crate::expr::NodeId;
use crate::expr::op::Kind;
use crate::limits::Exp2;
use crate::lower::{Known, Over, Pass, Program, Saves};
use crate::schedule::{Kernel, PassSchedule, reads_row_groups, uses_scalars, uses_work};
use crate::shape::DType;
use crate::shape::Scope;
use crate::text::{put, putln};

pub(super) const COMPONENTS: [char; 4] = ['x', 'y', 'z', 'w'];

/// Elements per window where vectors are loaded.
pub(super) const WINDOW: u32 = 4;

/// WGSL functions from 64-bit integers to their words, lower half first.
const WORDS: &str = "\
fn words2(pair: u64) -> vec2<u32> { return vec2<u32>(u32(pair), u32(pair >> 32u)); }
fn words4(a: u64, b: u64) -> vec4<u32> { return vec4<u32>(words2(a), words2(b)); }
";

/// The window at an address, of a vector of two.
const HALF_OF: &str = "\
fn half_of(words: vec4<u32>, address: u32) -> vec2<u32> { return select(words.xy, words.zw, (address & 4u) != 0u); }
";

/// Bindings and address arithmetic of a pass kernel.
pub(super) struct Frame<'a> {
    pub program: &'a Program,
    pub pass: &'a Pass,
    pub variant: &'a Variant,
    /// Elements per window.
    pub width: u32,
    /// Elements per step of a lane.
    pub step: u32,
    pub slots: Vec<Slot>,
    /// Whether a window may reach past the ends of its row (of the elements, without rows), and is masked.
    pub masked: bool,
    /// Whether windows lie at the ends of a row (of the elements), where they have hooks of their own.
    pub at_end: bool,
    /// Whether one workgroup takes all items, and writes the sums to the scalars.
    pub alone: bool,
    /// Whether a lane takes two neighbouring rows, whose 16-bit elements share words.
    pub row_pairs: bool,
    /// Whether sums find NaN: see [`Limits::carries_nan`](crate::limits::Limits::carries_nan).
    pub carries_nan: bool,
    /// What is made of the adapter's exp2.
    pub exp2: Exp2,
}

impl<'a> Frame<'a> {
    /// `step` is the schedule's width.
    pub fn new(program: &'a Program, pass: usize, variant: &'a Variant, step: u32) -> Frame<'a> {
        let pass = &program.passes[pass];
        let slots = tensors(program, pass);
        let (masked, at_end, alone, row_pairs, carries_nan) = (false, false, false, false, false);
        let (width, exp2) = (step.min(WINDOW), Exp2::Nothing);
        Frame { program, pass, variant, width, step, slots, masked, at_end, alone, row_pairs, carries_nan, exp2 }
    }

    /// The frame of a pass as it is scheduled.
    pub fn scheduled(program: &'a Program, pass: usize, variant: &'a Variant, schedule: &PassSchedule) -> Frame<'a> {
        let PassSchedule { alone, carries_nan, exp2, kernel, .. } = *schedule;
        let row_pairs = kernel == Kernel::RowPairs;
        Frame { alone, row_pairs, carries_nan, exp2, ..Frame::new(program, pass, variant, schedule.width) }
    }

    /// The same for windows that reach past the ends of a row (of the elements).
    pub fn at_ends(&self) -> Frame<'a> {
        Frame { slots: self.slots.clone(), masked: self.variant.masked, at_end: true, ..*self }
    }

    /// Index of a slot among the pass's tensors, as in `shape.tensors`.
    pub fn tensor(&self, slot: Slot) -> usize {
        self.slots.iter().position(|s| *s == slot).expect("a slot that the pass reaches is among its tensors")
    }

    pub(super) fn access(&self, slot: Slot) -> Access {
        self.variant.access[self.tensor(slot)]
    }

    /// Whether a lane takes two windows per step.
    pub fn is_paired(&self) -> bool {
        self.step > WINDOW
    }

    /// Whether a step may start before the row, so that windows at its ends are masked.
    pub fn has_ends(&self) -> bool {
        self.variant.aligned_to.is_some()
    }

    /// Whether columns outside the row are masked.
    pub fn is_masked(&self) -> bool {
        self.masked
    }

    /// Whether loads and stores of the tensor are vectors.
    pub fn is_vector(&self, slot: Slot) -> bool {
        self.width == WINDOW && self.access(slot).vector
    }

    /// What the two windows of a step are together.
    pub fn pair(&self, slot: Slot) -> Pair {
        if self.is_paired() { self.access(slot).pair } else { Pair::Apart }
    }

    pub fn mode(&self, output: usize) -> Mode {
        let index =
            self.pass.outputs.iter().position(|o| *o == output).expect("modes are asked of outputs of the pass");
        self.variant.modes[index]
    }

    /// The name of the buffer that holds a tensor.
    pub fn buffer(&self, slot: Slot) -> String {
        match slot {
            Slot::Input(index) => format!("input{index}"),
            Slot::Output(index) => match self.mode(index) {
                Mode::InPlace(input) if self.slots.contains(&Slot::Input(input)) => format!("input{input}"),
                _ => format!("output{index}"),
            },
            Slot::Workspace => "work".to_owned(),
            Slot::Scalars => "scalars".to_owned(),
            Slot::Kept(_) | Slot::States(_) | Slot::AllStates(_) | Slot::FoundInf => {
                unreachable!("states are no tensors of a pass")
            }
        }
    }

    /// Storage bindings in order, and their declarations.
    pub fn bindings(&self, params: &str) -> (Vec<Binding>, String) {
        let mut all: Vec<Binding> = Vec::new();
        let mut text = String::from("@group(0) @binding(0) var<uniform> shape: Shape;\n");
        text.push_str(params);
        let overwritten = |input: usize| self.pass.outputs.iter().any(|&o| self.mode(o) == Mode::InPlace(input));
        for &slot in &self.slots {
            let writes = match slot {
                Slot::Input(input) => overwritten(input) || self.variant.pooled,
                _ => true,
            };
            let name = self.buffer(slot);
            if matches!(slot, Slot::Output(_)) && name.starts_with("input") {
                continue;
            }
            all.push(Binding { slot, writes });
            let is_packed = self.access(slot).dtype.is_packed();
            let element = match (self.pair(slot), self.is_vector(slot), is_packed) {
                (Pair::Words64, _, true) => "vec2<u64>",
                (Pair::Words64, _, false) => "vec4<u64>",
                (Pair::Halves, ..) | (Pair::Apart, true, false) => "vec4<u32>",
                (Pair::Apart, true, true) => "vec2<u32>",
                _ => "u32",
            };
            declare(&mut text, all.len() + 1, writes, &name, &format!("array<{element}>"));
        }
        let notes = self.program.notes_any(&self.pass.outputs);
        if notes {
            text.push_str(&note_declarations(self.program));
            for output in self.noted() {
                let ty = if self.seen_width(output) == WINDOW { "U4" } else { "U" };
                putln!(text, "var<private> {}: {ty};", seen_name(output));
            }
        }
        let shared = [
            (uses_work(self.program, self.pass), Slot::Workspace, "work", "array<u32>"),
            (self.alone || uses_scalars(self.program, self.pass), Slot::Scalars, "scalars", scalars_type(notes)),
        ];
        for (_, slot, name, ty) in shared.into_iter().filter(|s| s.0) {
            all.push(Binding { slot, writes: true });
            declare(&mut text, all.len() + 1, true, name, ty);
        }
        for (pair, declarations) in [(Pair::Words64, WORDS), (Pair::Halves, HALF_OF)] {
            if self.slots.iter().any(|slot| self.pair(*slot) == pair) {
                text.push_str(declarations);
            }
        }
        for output in self.paired_outputs() {
            putln!(text, "var<private> first_half{output}: u32;");
        }
        for output in self.halves_outputs() {
            putln!(text, "var<private> packed{output}: vec2<u32>;");
        }
        if self.variant.masked {
            let cols = self.cols();
            putln!(
                text,
                "fn near(col: u32) -> u32 {{ return select(min(col, {cols} - 1u), 0u, col >= 0xfffffff8u); }}"
            );
        }
        (all, text)
    }

    /// Axes of rows (three), or of elements (four).
    fn outer_axes(&self) -> usize {
        if self.program.has_rows() { 3 } else { 4 }
    }

    /// The scope of a tensor.
    fn scope(&self, slot: Slot) -> Option<Scope> {
        match slot {
            Slot::Input(input) => Some(self.program.inputs[input].scope),
            Slot::Output(output) => Some(self.program.outputs[output].scope),
            _ => None,
        }
    }

    /// The variable that a tensor of groups, or of the columns in a pass over these, is indexed with.
    pub fn own_index(&self, slot: Slot) -> Option<&'static str> {
        match self.scope(slot)? {
            Scope::Group => Some("group"),
            Scope::Column if matches!(self.pass.over, Over::Columns | Over::GroupColumns) => Some("column"),
            _ => None,
        }
    }

    /// The word of a sum over the rows (of the group of `item`) for one column of the whole row: behind the sums over groups.
    pub fn column_sum(&self, id: NodeId, item: &str, col: &str) -> String {
        let groups = group_values(self.program);
        let columns = column_slots(self.program);
        if let Some(slot) = columns.iter().position(|n| *n == id) {
            return format!("work[shape.group_base + {groups}u * shape.groups + {slot}u * shape.classes + {col}]");
        }
        let slot = group_column_slots(self.program).iter().position(|n| *n == id);
        let slot = slot.expect("every sum by column, or by group and column, has a slot");
        let first = format!("shape.group_base + {groups}u * shape.groups + {}u * shape.classes", columns.len());
        let group = self.group(item);
        format!("work[{first} + ({slot}u * shape.groups + {group}) * shape.classes + {col}]")
    }

    /// The word of such a sum for the item of a pass over columns, or over groups with their columns.
    pub fn column_sum_of_item(&self, id: NodeId, item: &str) -> String {
        match self.pass.over {
            Over::GroupColumns => self.column_sum(id, item, &format!("{item} % shape.classes")),
            _ => self.column_sum(id, item, item),
        }
    }

    /// Indices along the axes, `a0` to `a3`, from the index of a row or element; `group` and `column`, where tensors are
    /// indexed by these.
    pub fn coordinates(&self, index: &str) -> String {
        let used: Vec<usize> = (0..self.outer_axes()).filter(|&axis| self.variant.axes[axis]).collect();
        let mut text = String::new();
        let is_by_both = |slot: &Slot| self.scope(*slot) == Some(Scope::GroupColumn);
        let by_both = self.slots.iter().any(is_by_both);
        let of_both = by_both && self.pass.over == Over::GroupColumns;
        let has = |own: &str| self.slots.iter().any(|slot| self.own_index(*slot) == Some(own));
        if reads_row_groups(self.program, self.pass) {
            let word = row_word(self.program, &format!("shape.first_item + {index}"));
            putln!(text, "    let own_group = work[{word}];\n    let group = min(own_group, shape.groups - 1u);");
        } else if has("group") || by_both {
            putln!(text, "    let group = {};", self.group(&format!("(shape.first_item + {index})")));
        }
        if has("column") || of_both {
            match self.pass.over {
                Over::GroupColumns => putln!(text, "    let column = (shape.first_item + {index}) % shape.classes;"),
                _ => putln!(text, "    let column = shape.first_item + {index};"),
            }
        }
        let mut rest = index.to_owned();
        for (k, &axis) in used.iter().enumerate().rev() {
            if k == 0 {
                putln!(text, "    let a{axis} = {rest};");
            } else {
                putln!(text, "    let a{axis} = {rest} % shape.axes[{axis}];");
                putln!(text, "    let rest{axis} = {rest} / shape.axes[{axis}];");
                rest = format!("rest{axis}");
            }
        }
        text
    }

    /// Address of the tensor's element at these indices, without the innermost.
    ///
    /// Without rows, the first address was read before the loop: a CPU adapter reads uniforms per lane inside a loop.
    pub fn base(&self, slot: Slot) -> String {
        let tensor = self.tensor(slot);
        let mut text = match self.program.has_rows() {
            true => format!("shape.tensors[{}].x", 2 * tensor + 1),
            false => format!("o.first{tensor}"),
        };
        if let Some(own) = self.own_index(slot) {
            put!(text, " + {own} * shape.tensors[{}].w", 2 * tensor);
            return text;
        }
        if self.scope(slot) == Some(Scope::GroupColumn) {
            // In a pass over rows, the column comes later: from the first of the dispatch on.
            let column = if self.pass.over == Over::GroupColumns { "column" } else { "shape.first_col" };
            put!(text, " + group * shape.tensors[{0}].z + {column} * shape.tensors[{0}].w", 2 * tensor);
            return text;
        }
        for axis in (0..3).filter(|&axis| self.variant.axes[axis]) {
            put!(text, " + a{axis} * shape.tensors[{}][{axis}]", 2 * tensor);
        }
        text
    }

    /// Without rows, the innermost index: the `col` of [`Frame::load`].
    pub fn element_col(&self) -> &'static str {
        if self.variant.axes[3] { "a3" } else { "0u" }
    }

    /// Address of a column, given the row's base.
    pub fn at_col(&self, slot: Slot, base: &str, col: &str) -> String {
        match self.access(slot).along {
            Along::Unit => format!("{base} + {col}"),
            Along::Repeat => base.to_owned(),
            Along::Strided => format!("{base} + {col} * shape.tensors[{}].w", 2 * self.tensor(slot)),
        }
    }

    /// Bits of a sum over the rows, at the columns of the window at `col`.
    pub fn load_column_sum(&self, id: NodeId) -> String {
        let first = if self.variant.column_range { "shape.first_col + " } else { "" };
        let each = |k: usize| {
            let col = if self.is_masked() { format!("near(col + {k}u)") } else { format!("(col + {k}u)") };
            self.column_sum(id, "r.row", &format!("{first}{col}"))
        };
        match self.width {
            WINDOW => format!("U4({}, {}, {}, {})", each(0), each(1), each(2), each(3)),
            _ => self.column_sum(id, "r.row", &format!("{first}col")),
        }
    }

    /// f32 (or index) bits of the element, or of the window's elements, at a column.
    pub fn load(&self, slot: Slot, base: &str, col: &str) -> String {
        if self.pair(slot) == Pair::Words64 {
            let (name, at) = (self.buffer(slot), format!("({base} + {col})"));
            let pair = self.vector_index(base, col, 2 * WINDOW);
            let half = |words: &str| format!("{name}[{pair}][{at} / 4u % 2u{words}]");
            return match self.access(slot).dtype.is_packed() {
                true => self.widened(slot, &format!("words2({})", half(""))),
                false => format!("words4({}, {})", half(" * 2u"), half(" * 2u + 1u")),
            };
        }
        if self.is_vector(slot) {
            return self.widened(slot, &self.load_vector(slot, base, col));
        }
        if self.width == 1 {
            return self.load_one(slot, &self.at_col(slot, base, col));
        }
        if self.access(slot).along == Along::Repeat {
            return format!("U4({})", self.load_one(slot, base));
        }
        let each = |k: usize| {
            let col = if self.is_masked() { format!("near({col} + {k}u)") } else { format!("({col} + {k}u)") };
            self.load_one(slot, &self.at_col(slot, base, &col))
        };
        format!("U4({}, {}, {}, {})", each(0), each(1), each(2), each(3))
    }

    /// A window that is a vector, or a half of one, as it is stored.
    fn load_vector(&self, slot: Slot, base: &str, col: &str) -> String {
        let name = self.buffer(slot);
        match self.pair(slot) {
            Pair::Halves => format!("half_of({name}[{}], ({base} + {col}))", self.vector_index(base, col, 2 * WINDOW)),
            _ => format!("{name}[{}]", self.vector_index(base, col, WINDOW)),
        }
    }

    /// Index of the vector of `elements` elements at a column. Where every row is aligned, the row's part of it is divided
    /// apart, so that it is computed once a row, not once a window.
    pub(super) fn vector_index(&self, base: &str, col: &str, elements: u32) -> String {
        let whole = |sum: &str| if sum.contains(' ') { format!("({sum})") } else { sum.to_owned() };
        match self.variant.aligned_to {
            None => format!("{} / {elements}u + {} / {elements}u", whole(base), whole(col)),
            Some(_) => format!("({base} + {col}) / {elements}u"),
        }
    }

    /// The type of what [`Frame::load_raw`] gives of a window (at a row's end too).
    pub fn raw_type(&self, slot: Slot) -> &'static str {
        match (self.is_held_packed(slot), self.width) {
            (true, _) => "vec2<u32>",
            (_, WINDOW) => "U4",
            _ => "U",
        }
    }

    /// Whether a window is held as loaded, two elements to a word.
    fn is_held_packed(&self, slot: Slot) -> bool {
        self.is_vector(slot) && self.pair(slot) != Pair::Words64 && self.access(slot).dtype.is_packed()
    }

    /// The window's elements as they are loaded: 16-bit types two to a word, others as [`Frame::load`] has them.
    pub fn load_raw(&self, slot: Slot, base: &str, col: &str) -> String {
        match self.is_held_packed(slot) {
            true => self.load_vector(slot, base, col),
            false => self.load(slot, base, col),
        }
    }

    /// The f32 bits of what [`Frame::load_raw`] gave.
    pub fn widen_raw(&self, slot: Slot, raw: &str) -> String {
        if self.is_held_packed(slot) { self.widened(slot, raw) } else { raw.to_owned() }
    }

    /// As [`Frame::load_raw`] for two windows, the first at `col`, where a pair starts. Returns a statement to write
    /// before, and both expressions.
    pub fn load_pair(&self, slot: Slot, base: &str, col: &str) -> (String, [String; 2]) {
        let pair = self.pair(slot);
        if pair == Pair::Apart {
            let second = format!("({col} + 4u)");
            return (String::new(), [col, &second].map(|col| self.load_raw(slot, base, col)));
        }
        let w = format!("w{}", self.tensor(slot));
        let before = format!("    let {w} = {}[{}];\n", self.buffer(slot), self.vector_index(base, col, 2 * WINDOW));
        let halves = match (pair, self.access(slot).dtype.is_packed()) {
            (Pair::Halves, _) => ["xy", "zw"].map(|c| format!("{w}.{c}")),
            (_, true) => ["x", "y"].map(|c| self.widened(slot, &format!("words2({w}.{c})"))),
            (_, false) => [("x", "y"), ("z", "w")].map(|(low, high)| format!("words4({w}.{low}, {w}.{high})")),
        };
        (before, halves)
    }

    /// A window's words widened to f32 (or index) bits.
    fn widened(&self, slot: Slot, words: &str) -> String {
        match self.access(slot).dtype {
            DType::F16 => format!("widen4_f16({words})"),
            DType::BF16 => format!("widen4_bf16({words})"),
            _ => words.to_owned(),
        }
    }

    /// The stored word that holds the element at an address, of tensors that are no 64-bit integers: to be read or written.
    pub fn word_of(&self, slot: Slot, address: &str) -> String {
        let name = self.buffer(slot);
        match (self.pair(slot), self.is_vector(slot), self.access(slot).dtype.is_packed()) {
            (Pair::Halves, ..) => format!("{name}[({address}) / 8u][({address}) / 2u % 4u]"),
            (_, true, true) => format!("{name}[({address}) / 4u][({address}) / 2u % 2u]"),
            (_, true, false) => format!("{name}[({address}) / 4u][({address}) % 4u]"),
            (_, false, true) => format!("{name}[({address}) / 2u]"),
            (_, false, false) => format!("{name}[{address}]"),
        }
    }

    /// f32 (or index) bits of one element at an address.
    pub fn load_one(&self, slot: Slot, address: &str) -> String {
        let name = self.buffer(slot);
        let dtype = self.access(slot).dtype;
        let word = match (self.pair(slot), dtype.is_packed()) {
            (Pair::Words64, true) => {
                format!("u32({name}[({address}) / 8u][({address}) / 4u % 2u] >> (({address}) / 2u % 2u * 32u))")
            }
            (Pair::Words64, false) => {
                format!("u32({name}[({address}) / 8u][({address}) / 2u % 4u] >> (({address}) % 2u * 32u))")
            }
            _ => self.word_of(slot, address),
        };
        match dtype {
            DType::F16 => format!("widen_f16({word}, {address})"),
            DType::BF16 => format!("widen_bf16({word}, {address})"),
            _ => word,
        }
    }

    /// The word of a row value that this pass leaves for later ones: behind the states of its stages.
    pub fn saved(&self, word: usize) -> String {
        let (stages, words) = (self.pass.stages.len(), state_words(self.program, self.pass));
        let behind = format!("{stages}u * shape.rows * shape.slots * {words}u");
        format!("work[shape.state_base + {behind} + {word}u * shape.rows + r.row]")
    }

    /// A word that an earlier pass has left for that row.
    fn known_word(&self, word: usize, row: &str) -> String {
        let before = match self.variant.saved_before {
            0 => String::new(),
            words => format!(" - {words}u * shape.rows"),
        };
        format!("work[shape.state_base{before} + {word}u * shape.rows + {row}]")
    }

    fn known(&self) -> Option<(&'a Known, &'a Saves)> {
        let known = self.pass.known.as_ref()?;
        Some((known, &self.program.passes[known.pass].saves))
    }

    /// A row reduction that an earlier pass has saved.
    pub fn known_value(&self, id: NodeId, row: &str) -> String {
        let index = |(_, saves): (_, &Saves)| saves.nodes.iter().position(|node| *node == id);
        let word = self.known_word(self.known().and_then(index).expect("a reduction without a stage is saved"), row);
        if self.program.kind(id) == Kind::Float { format!("bitcast<f32>({word})") } else { word }
    }

    /// The bits of a poison that an earlier pass has saved; `None` if it looks at no element during a stage.
    pub fn known_bits(&self, poison: usize, row: &str) -> Option<String> {
        let (known, saves) = self.known()?;
        let (_, earlier) = known.poisons.iter().find(|(own, _)| *own == poison)?;
        let index = saves.poisons.iter().position(|k| k == earlier).expect("a known poison is saved");
        Some(self.known_word(saves.nodes.len() + index, row))
    }

    /// Column indices of a window, in the whole row.
    pub fn col_index(&self) -> &'static str {
        match (self.variant.column_range, self.width) {
            (false, 4) => "U4(col) + U4(0u, 1u, 2u, 3u)",
            (false, _) => "col",
            (true, 4) => "U4(shape.first_col + col) + U4(0u, 1u, 2u, 3u)",
            (true, _) => "(shape.first_col + col)",
        }
    }

    /// Columns of a row; elements of the dispatch, without rows.
    fn cols(&self) -> &'static str {
        if self.program.has_rows() { "shape.cols" } else { "shape.items" }
    }

    /// The declaration of `valid` for a window at `col`, if windows are masked.
    pub fn valid(&self, col: &str) -> String {
        if self.is_masked() {
            format!("    let valid = (U4({col}) + U4(0u, 1u, 2u, 3u)) < U4({});\n", self.cols())
        } else {
            String::new()
        }
    }
}

fn declare(text: &mut String, binding: usize, writes: bool, name: &str, ty: &str) {
    let access = if writes { "read_write" } else { "read" };
    putln!(text, "@group(0) @binding({binding}) var<storage, {access}> {name}: {ty};");
}
