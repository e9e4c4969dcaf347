//! Scans along a row as hooks: what a lane's window adds, how lanes are combined, what a window is filled with. The laws are
//! those of `expr/scan.rs`.

use super::{Row, Trip};
use crate::codegen::access::{COMPONENTS, Frame};
use crate::codegen::structure;
use crate::codegen::template::{LaneReduce, TripKind};
use crate::expr::{Direction, Node, NodeId, Scan};
use crate::lower::{Look, LookPlace};
use crate::shape::Scope;
use crate::text::{put, putln};

/// A scan of a trip.
struct Scanned {
    scan: Scan,
    id: NodeId,
    operand: NodeId,
    decay: NodeId,
}

impl Scanned {
    /// Fields of what it carries from column to column, each with its type and its value before the first column.
    fn fields(&self) -> Vec<(String, &'static str, &'static str)> {
        let of = |(name, ty, identity): (&str, &'static str, &'static str)| (self.field(name), ty, identity);
        let fields: &[(&str, &str, &str)] = match self.scan {
            Scan::Sum => &[("v", "f32", "0.0")],
            Scan::Linear => &[("d", "f32", "1.0"), ("v", "f32", "0.0")],
            Scan::Decay => &[("some", "u32", "0u"), ("l", "f32", "0.0"), ("v", "f32", "0.0")],
            Scan::Shift => &[("some", "u32", "0u"), ("v", "f32", "0.0")],
            Scan::LogSumExp => &[("m", "f32", "LOWEST"), ("v", "f32", "0.0")],
        };
        fields.iter().copied().map(of).collect()
    }

    /// Whether a field says that there is a column at all.
    fn marks_columns(&self) -> bool {
        matches!(self.scan, Scan::Shift | Scan::Decay)
    }

    fn field(&self, name: &str) -> String {
        format!("{name}{}", self.id.0)
    }

    /// The fields of one element; `at` is the component of the operands.
    fn element(&self, at: &str) -> Vec<String> {
        let n = self.id.0;
        let x = format!("x.x{n}{at}");
        match self.scan {
            Scan::Sum => vec![x],
            Scan::Linear => vec![format!("x.d{n}{at}"), x],
            Scan::Decay => vec![format!("x.some{n}{at}"), format!("x.d{n}{at}"), x],
            Scan::Shift => vec![format!("x.some{n}{at}"), x],
            // An element of −∞ counts nothing.
            Scan::LogSumExp => vec![format!("max({x}, LOWEST)"), format!("select(1.0, 0.0, {x} < LOWEST)")],
        }
    }

    /// The fields of two runs of columns as one.
    fn combine(&self) -> String {
        let n = self.id.0;
        match self.scan {
            Scan::Sum => format!("    s.v{n} = a.v{n} + b.v{n};\n"),
            // Nothing is left of 0, whatever the decay is.
            Scan::Linear => format!(
                "    s.d{n} = a.d{n} * b.d{n};\n    s.v{n} = b.v{n} + select(b.d{n} * a.v{n}, 0.0, a.v{n} == 0.0);\n"
            ),
            // Of no columns nothing is left, whatever its level is.
            Scan::Decay => format!(
                "    s.some{n} = a.some{n} | b.some{n};\n    s.l{n} = select(b.l{n}, a.l{n}, b.some{n} == 0u);\n    \
                 s.v{n} = b.v{n} + a.v{n} * select(math_exp_neg(min(b.l{n} - a.l{n}, 0.0)), 1.0, b.some{n} == 0u);\n"
            ),
            Scan::Shift => format!(
                "    s.some{n} = a.some{n} | b.some{n};\n    s.v{n} = select(b.v{n}, a.v{n}, b.some{n} == 0u);\n"
            ),
            Scan::LogSumExp => format!(
                "    s.m{n} = max(a.m{n}, b.m{n});\n    \
                 s.v{n} = a.v{n} * math_exp_neg(a.m{n} - s.m{n}) + b.v{n} * math_exp_neg(b.m{n} - s.m{n});\n"
            ),
        }
    }

    /// What it leaves at a column, given the states before and after its element.
    fn value(&self, before: &str, after: &str) -> String {
        let n = self.id.0;
        match self.scan {
            Scan::Sum | Scan::Linear | Scan::Decay => format!("{after}.v{n}"),
            Scan::Shift => format!("{before}.v{n}"),
            Scan::LogSumExp => format!("{after}.m{n} + math_log({after}.v{n})"),
        }
    }
}

impl Row<'_, '_> {
    /// What runs along the row, in the order of its words in `work`: the values per element that later trips read.
    pub(super) fn left(&self) -> Vec<NodeId> {
        self.frame.pass.along().filter(|id| !matches!(self.frame.program.node(*id), Node::ArgSort(..))).collect()
    }

    fn scanned(&self, trip: &Trip) -> Vec<Scanned> {
        let of = |&id: &NodeId| {
            let Node::Scan(scan, _, [operand, decay]) = *self.frame.program.node(id) else {
                unreachable!("scans are listed")
            };
            Scanned { scan, id, operand, decay }
        };
        trip.left().iter().map(of).collect()
    }

    /// The hooks of a trip that scans.
    pub(super) fn scan_text(&self, trip: &Trip, combine: LaneReduce) -> String {
        let (n, scans) = (trip.index, self.scanned(trip));
        let fields: Vec<(String, &str, &str)> = scans.iter().flat_map(Scanned::fields).collect();
        let named: Vec<(String, String)> =
            fields.iter().map(|(name, ty, _)| (name.clone(), (*ty).to_owned())).collect();
        let mut text = structure(&format!("Scan{n}"), &named);
        putln!(text, "const SCAN{n}_REVERSE: bool = {};", self.direction(trip) == Direction::Reverse);
        let identity: Vec<&str> = fields.iter().map(|(.., identity)| *identity).collect();
        putln!(text, "fn scan{n}_identity() -> Scan{n} {{ return Scan{n}({}); }}", identity.join(", "));
        let counted = fields.iter().map(|(name, _, identity)| format!("select({identity}, s.{name}, counts)"));
        let counted = counted.collect::<Vec<String>>().join(", ");
        putln!(text, "fn scan{n}_where(counts: bool, s: Scan{n}) -> Scan{n} {{ return Scan{n}({counted}); }}");
        let both: String = scans.iter().map(Scanned::combine).collect();
        put!(
            text,
            "fn scan{n}_combine(a: Scan{n}, b: Scan{n}) -> Scan{n} {{\n    var s: Scan{n};\n{both}    return s;\n}}\n"
        );
        if combine == LaneReduce::Subgroup {
            let all: Vec<String> =
                fields.iter().map(|(name, ..)| format!("subgroupShuffleXor(s.{name}, step)")).collect();
            let all = all.join(", ");
            putln!(text, "fn scan{n}_exchange(s: Scan{n}, step: u32) -> Scan{n} {{ return Scan{n}({all}); }}");
        }
        text.push_str(&self.scanned_text(trip, &scans));
        text.push_str(&self.scan_operands_text(trip, self.frame, "operands", &scans));
        text.push_str(&match self.ends.has_ends() {
            true => self.scan_operands_text(trip, self.ends, "end_operands", &scans),
            false => format!(
                "fn scan{n}_end_operands(r: RowValues, f: Window, col: u32) -> Scanned{n} {{ return Scanned{n}(); }}\n"
            ),
        });
        text.push_str(&self.scan_window_text(trip, &scans));
        text.push_str(&self.leave_text(trip));
        text.push_str(&self.along_finish_text(trip));
        text
    }

    /// The row's values after a trip along the row, if it ends its stage.
    pub(super) fn along_finish_text(&self, trip: &Trip) -> String {
        let (name, n) = (trip.kind().name(), trip.index);
        let mut text = format!("fn {name}{n}_finish(before: RowValues) -> RowValues {{\n    var r = before;\n");
        if self.ends_stage(trip) {
            text.push_str(&self.row_lets(trip.stage + 1));
            text.push_str(&self.clear_text(trip.stage + 1));
        }
        text.push_str("    return r;\n}\n");
        text
    }

    /// How the elements of a window are spelled, in order.
    pub(super) fn components(&self) -> Vec<String> {
        match self.frame.width {
            4 => COMPONENTS.iter().map(|c| format!(".{c}")).collect(),
            _ => vec![String::new()],
        }
    }

    fn direction(&self, trip: &Trip) -> Direction {
        let Node::Scan(_, direction, _) = *self.frame.program.node(trip.left()[0]) else {
            unreachable!("scans are listed")
        };
        direction
    }

    /// Whether no trip before this one has ended its stage: it has no reductions and no looks.
    fn ends_stage(&self, trip: &Trip) -> bool {
        self.trips.iter().find(|other| other.stage == trip.stage).is_some_and(|first| first.index == trip.index)
    }

    /// What the scans read in a window: by field, the value and what it is beyond the row.
    fn reads(&self, scans: &[Scanned]) -> Vec<(String, NodeId, &'static str)> {
        let of = |s: &Scanned| {
            let nothing = if s.scan == Scan::LogSumExp { "bitcast<f32>(shape.reserved0 | 0xff800000u)" } else { "0.0" };
            let outside = if s.scan == Scan::Decay { "0.0" } else { "1.0" };
            let decay = (s.decay != NodeId::NONE).then(|| (s.field("d"), s.decay, outside));
            [(s.field("x"), s.operand, nothing)].into_iter().chain(decay).collect::<Vec<_>>()
        };
        scans.iter().flat_map(of).collect()
    }

    /// `ScannedN`, what the scans read in a window.
    fn scanned_text(&self, trip: &Trip, scans: &[Scanned]) -> String {
        let (f, u) = if self.frame.width == 4 { ("F4", "U4") } else { ("F", "U") };
        let numbers = self.reads(scans).into_iter().map(|(name, ..)| (name, f.to_owned()));
        let shifted = scans.iter().filter(|s| s.marks_columns());
        let fields: Vec<(String, String)> = numbers.chain(shifted.map(|s| (s.field("some"), u.to_owned()))).collect();
        structure(&format!("Scanned{}", trip.index), &fields)
    }

    /// The function that computes it.
    fn scan_operands_text(&self, trip: &Trip, frame: &Frame<'_>, name: &str, scans: &[Scanned]) -> String {
        let (n, f, u) = if frame.width == 4 { (trip.index, "F4", "U4") } else { (trip.index, "F", "U") };
        let mut text = format!(
            "fn scan{n}_{name}(r: RowValues, {}, col: u32) -> Scanned{n} {{\n{}",
            self.argument(frame),
            self.unpack(frame)
        );
        let reads = self.reads(scans);
        let roots: Vec<NodeId> = reads.iter().map(|(_, id, _)| *id).collect();
        text.push_str(&self.element_lets(&self.element_nodes(&roots)));
        text.push_str(&frame.valid("col"));
        let value = |id: NodeId, nothing: &str| match frame.is_masked() {
            true => format!("select({f}({nothing}), {}, valid)", self.element_value(id)),
            false => self.element_value(id),
        };
        let numbers = reads.iter().map(|(_, id, nothing)| value(*id, nothing));
        let some = if frame.is_masked() { format!("select({u}(0u), {u}(1u), valid)") } else { format!("{u}(1u)") };
        let shifted = scans.iter().filter(|s| s.marks_columns()).map(|_| some.clone());
        let values: Vec<String> = numbers.chain(shifted).collect();
        putln!(text, "    return Scanned{n}({});\n}}", values.join(", "));
        text
    }

    /// `scanN_total`, what a window's elements leave together, and `scanN_fill`, a window with what the scans leave at its
    /// columns.
    fn scan_window_text(&self, trip: &Trip, scans: &[Scanned]) -> String {
        let n = trip.index;
        let mut components = self.components();
        if self.direction(trip) == Direction::Reverse {
            components.reverse();
        }
        let element = |at: &String| {
            let fields: Vec<String> = scans.iter().flat_map(|s| s.element(at)).collect();
            format!("Scan{n}({})", fields.join(", "))
        };
        let all = components.iter().map(element).reduce(|a, b| format!("scan{n}_combine({a}, {b})"));
        let all = all.expect("a window has an element");
        let mut text = format!("fn scan{n}_total(x: Scanned{n}) -> Scan{n} {{ return {all}; }}\n");
        put!(
            text,
            "fn scan{n}_fill(fetched: Fetched, x: Scanned{n}, before: Scan{n}) -> Fetched {{\n    var f = fetched;\n    \
             let s0 = before;\n"
        );
        for (k, at) in components.iter().enumerate() {
            putln!(text, "    let s{} = scan{n}_combine(s{k}, {});", k + 1, element(at));
            for s in scans {
                let value = s.value(&format!("s{k}"), &format!("s{}", k + 1));
                putln!(text, "    f.s{}{at} = bitcast<u32>({value});", s.id.0);
            }
        }
        text.push_str("    return f;\n}\n");
        text
    }

    /// `scanN_leave`, of a streamed row: a window of what the scans leave goes to `work`.
    fn leave_text(&self, trip: &Trip) -> String {
        if !self.streams {
            return String::new();
        }
        let mut text = format!("fn scan{}_leave(r: RowValues, f: Fetched, col: u32) {{\n", trip.index);
        for &id in trip.left() {
            for (k, at) in self.components().iter().enumerate() {
                putln!(text, "    {} = f.s{}{at};", self.left_word(id, k), id.0);
            }
        }
        text.push_str("}\n");
        text
    }

    /// Index in `work` of the words of what runs along the row, of the row in hand; `more` of them come before.
    pub(super) fn first_word(&self, id: NodeId, more: u32) -> String {
        let words = |id: NodeId| self.frame.program.node(id).words_left();
        let all = || self.frame.pass.along();
        let before: u32 = all().take_while(|other| *other != id).map(words).sum();
        let (slot, each) = (before + more, all().map(words).sum::<u32>());
        format!("shape.scan_base + (row_in_hand * {each}u + {slot}u) * (shape.cols + 2u * WIDTH)")
    }

    /// The word that is left at element `k` of the window at `col`.
    pub(super) fn left_word(&self, id: NodeId, k: usize) -> String {
        // The first window may begin before the row.
        format!("work[{} + (col + WIDTH) + {k}u]", self.first_word(id, 0))
    }

    /// `with_scans`, a masked window with what the scans have left in it, of rows that are held.
    pub(super) fn with_scans_text(&self) -> String {
        let mut text = "fn with_scans(window: Window, held: Fetched) -> Window {\n    var f = window;\n".to_owned();
        for id in self.left().into_iter().filter(|_| !self.streams) {
            putln!(text, "    f.s{0} = held.s{0};", id.0);
        }
        let outputs = self.frame.pass.outputs.iter();
        let has_elements =
            outputs.map(|&output| &self.frame.program.outputs[output]).any(|o| o.scope == Scope::Element);
        putln!(text, "    return f;\n}}\nconst ELEMENTS: bool = {has_elements};");
        text
    }

    /// The functions by which a trip over a streamed row fetches what it reads, and no more.
    pub(super) fn own_fetch(&self, trip: &Trip, name: &str) -> String {
        let roots: Vec<NodeId> = match trip.kind() {
            TripKind::Scan => self.reads(&self.scanned(trip)).into_iter().map(|(_, id, _)| id).collect(),
            TripKind::Stage | TripKind::Repeat => self.stage_roots(trip),
            TripKind::Pairs => self.pair_roots(trip),
            TripKind::Sort | TripKind::Move => trip.left().iter().map(|id| self.moved_operand(*id)).collect(),
        };
        let read = self.element_nodes(&roots);
        [self.fetch_window(name, &read), self.fetch_end(&format!("{name}_end"), &read)].concat()
    }

    /// Element values that outputs read: what their trip over a streamed row fetches.
    pub(super) fn read_by_outputs(&self) -> Vec<NodeId> {
        let pass = self.frame.pass;
        let looked = pass.poison.iter().flat_map(|poison| poison.at(LookPlace::Element)).flat_map(Look::nodes);
        let gates = pass.poison.iter().filter_map(|poison| poison.gate);
        let outputs = pass.outputs.iter().map(|&output| &self.frame.program.outputs[output]);
        let outputs = outputs.filter(|output| output.scope == Scope::Element).flat_map(|output| output.roots());
        let roots: Vec<NodeId> = outputs.chain(looked).chain(gates).collect();
        self.element_nodes(&roots)
    }

    /// Statements that fetch what the scans of a streamed row have left, of these values.
    pub(super) fn fetch_scans(&self, read: &[NodeId]) -> String {
        let mut text = String::new();
        for id in self.left().into_iter().filter(|id| self.streams && read.contains(id)) {
            let words: Vec<String> = (0..self.frame.width as usize).map(|k| self.left_word(id, k)).collect();
            let words = if self.frame.width == 4 { format!("U4({})", words.join(", ")) } else { words.concat() };
            putln!(text, "    f.s{} = {words};", id.0);
        }
        text
    }
}
