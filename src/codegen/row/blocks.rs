//! Softmax states of streamed rows, block by block: a lane loads several steps at once, finds their largest value, and sums
//! exponentials relative to it; what it has so far is rescaled once a block. The block that holds a lane's largest value is
//! summed apart, so that the lanes that have the row's can look at it again and leave its e^0 out: the rest keeps its digits.

use super::{Row, Trip};
use crate::codegen::access::Frame;
use crate::codegen::poison::{bits, largest};
use crate::codegen::state::State;
use crate::codegen::{Slot, structure};
use crate::expr::NodeId;
use crate::lower::Look;
use crate::text::{put, putln};

/// Words that a lane loads at once to find their largest value: fewer wait for memory, more leave fewer rows in flight.
/// H100, 3.0 TB/s copied: rows of 65,536 halves reach 78% with 16 words, 75% with 8; of 57,344 f32 74% and 67%.
const BLOCK_WORDS: u32 = 16;
/// Words that a lane loads ahead of the first element that it writes.
const AHEAD_WORDS: u32 = 8;

impl Row<'_, '_> {
    /// Words that a lane's step loads.
    fn step_words(&self) -> u32 {
        let words = |input: &usize| match self.frame.raw_type(Slot::Input(*input)) {
            "vec2<u32>" => self.frame.step / 2,
            _ => self.frame.step,
        };
        self.fetched.iter().map(words).sum::<u32>().max(1)
    }

    /// Steps that a lane loads at once to find their largest value; two at least.
    fn block(&self) -> u32 {
        (BLOCK_WORDS / self.step_words()).max(2)
    }

    /// Steps that a lane loads ahead of the first that it writes.
    pub(super) fn ahead(&self) -> u32 {
        (AHEAD_WORDS / self.step_words()).max(1)
    }

    /// What a trip by blocks has in the place of steps: the lane's state and the trip itself, over whole steps and at the
    /// row's ends.
    pub(super) fn blocks_text(&self, trip: &Trip) -> String {
        let (block, Trip { index, states, .. }) = (self.block(), trip);
        let u = if self.frame.width == 4 { "U4" } else { "U" };
        let seen: Vec<String> = self.poisons(trip).into_iter().map(bits).collect();
        let mut lane: Vec<(String, String)> = seen.iter().map(|bits| (bits.clone(), u.to_owned())).collect();
        let per_state = |s: &State| {
            let of = |name: &str, ty: &str| (format!("{name}{}", s.number()), ty.to_owned());
            [of("m", "f32"), of("others", "f32"), of("sum", "f32"), of("at", "u32"), of("steps", "u32")]
        };
        lane.extend(states.iter().flat_map(per_state));
        let mut text = structure(&format!("LaneStage{index}"), &lane);
        let unseen: String = seen.iter().map(|bits| format!("    s.{bits} = {u}(0u);\n")).collect();
        let identity: String = states.iter().map(|s| identity(s.number())).collect();
        put!(
            text,
            "fn stage{index}_identity() -> LaneStage{index} {{\n    var s: LaneStage{index};\n{unseen}{identity}    \
             return s;\n}}\n"
        );
        text.push_str(&self.operands_text(trip));
        for steps in [1, block] {
            text.push_str(&self.block_text(trip, steps));
        }
        put!(
            text,
            "fn stage{index}_run(r: RowValues, begin: u32, last: i32) -> LaneStage{index} {{\n    \
             var s = stage{index}_identity();\n    var col = begin;\n    let step = LANES * WIDTH;\n    \
             for (; i32(col + {}u * step) <= last; col += {block}u * step) {{\n        \
             var held: array<Fetched, {block}>;\n        \
             for (var k = 0u; k < {block}u; k++) {{\n            held[k] = fetch(r, col + k * step);\n        }}\n        \
             var x: array<Operands{index}, {block}>;\n        \
             for (var k = 0u; k < {block}u; k++) {{\n            \
             x[k] = stage{index}_operands(r, held[k], col + k * step);\n        }}\n        \
             s = stage{index}_block{block}(s, x, col);\n    }}\n    \
             for (; i32(col) <= last; col += step) {{\n        \
             let x = array<Operands{index}, 1>(stage{index}_operands(r, fetch(r, col), col));\n        \
             s = stage{index}_block1(s, x, col);\n    }}\n    return s;\n}}\n",
            block - 1
        );
        text.push_str(&self.block_end_text(trip));
        let kept: String = states.iter().map(|s| kept(s.number())).collect();
        putln!(
            text,
            "fn stage{index}_kept(before: RowValues, s: LaneStage{index}) -> RowValues {{\n    var r = before;\n{kept}    \
             return r;\n}}"
        );
        let all = |bits: &String| match u {
            "U4" => format!("max(max(s.{bits}.x, s.{bits}.y), max(s.{bits}.z, s.{bits}.w))"),
            _ => format!("s.{bits}"),
        };
        let fields: Vec<String> =
            seen.iter().map(all).chain(states.iter().map(|s| format!("s.m{}", s.number()))).collect();
        putln!(
            text,
            "fn stage{index}_narrow(s: LaneStage{index}) -> Stage{index} {{ return Stage{index}({}); }}",
            fields.join(", ")
        );
        text
    }

    /// The operands of one step (one window or two), and what poisons see of it.
    fn operands_text(&self, trip: &Trip) -> String {
        let Trip { index, states, .. } = trip;
        let (f, u) = if self.frame.width == 4 { ("F4", "U4") } else { ("F", "U") };
        let windows: &[&str] = if self.frame.is_paired() { &["a", "b"] } else { &["a"] };
        let poisons = self.poisons(trip);
        let seen = poisons.iter().map(|k| (bits(*k), u.to_owned()));
        let x = |s: &State| windows.iter().map(|w| (format!("x{}{w}", s.number()), f.to_owned())).collect::<Vec<_>>();
        let fields: Vec<(String, String)> = seen.chain(states.iter().flat_map(x)).collect();
        let mut text = structure(&format!("Operands{index}"), &fields);
        text.push_str(&self.operands_of_window(trip, self.frame, "a", "window"));
        let step = |name: &str, window: &str, col: &str| format!("stage{index}_{name}(x, r, {window}, {col})");
        let body = if self.frame.is_paired() {
            text.push_str(&self.operands_of_window(trip, self.frame, "b", "second"));
            let a = step("window", "fetched.a", "col");
            format!("    x = {a};\n    x = {};\n", step("second", "fetched.b", "col + 4u"))
        } else {
            format!("    x = {};\n", step("window", "fetched", "col"))
        };
        let unseen: String = poisons.iter().map(|k| format!("    x.{} = {u}(0u);\n", bits(*k))).collect();
        put!(
            text,
            "fn stage{index}_operands(r: RowValues, fetched: Fetched, col: u32) -> Operands{index} {{\n    \
             var x: Operands{index};\n{unseen}{body}    return x;\n}}\n"
        );
        text
    }

    /// A function that adds a window's operands to those of a step.
    fn operands_of_window(&self, trip: &Trip, frame: &Frame<'_>, window: &str, name: &str) -> String {
        let Trip { index, states, .. } = trip;
        let poisons = self.poisons(trip);
        let looked = poisons.iter().flat_map(|&k| self.looks(trip, k)).flat_map(Look::nodes);
        let roots: Vec<NodeId> = states.iter().map(|s| s.operand).chain(looked).collect();
        let mut text = format!(
            "fn stage{index}_{name}(before: Operands{index}, r: RowValues, {}, col: u32) -> Operands{index} {{\n    \
             var x = before;\n{}",
            self.argument(frame),
            self.unpack(frame)
        );
        text.push_str(&self.element_lets(&self.element_nodes(&roots)));
        text.push_str(&frame.valid("col"));
        let (f, u) = if frame.width == 4 { ("F4", "U4") } else { ("F", "U") };
        for &k in &poisons {
            let bits = bits(k);
            let seen = largest(self.looks(trip, k).map(|look| self.look(look)), "");
            let seen = if frame.is_masked() { format!("select({u}(0u), {seen}, valid)") } else { seen };
            putln!(text, "    x.{bits} = max(x.{bits}, {seen});");
        }
        for state in states {
            let value = self.element_value(state.operand);
            // Beyond the row's ends: −∞, which counts nothing.
            let none = format!("bitcast<{f}>({u}(shape.reserved0 | 0xff800000u))");
            let value = if frame.is_masked() { format!("select({none}, {value}, valid)") } else { value };
            putln!(text, "    x.x{}{window} = {value};", state.number());
        }
        text.push_str("    return x;\n}\n");
        text
    }

    /// A block of so many steps.
    fn block_text(&self, trip: &Trip, steps: u32) -> String {
        let Trip { index, states, .. } = trip;
        let mut text = format!(
            "fn stage{index}_block{steps}(before: LaneStage{index}, operands: array<Operands{index}, {steps}>, col: u32) -> \
             LaneStage{index} {{\n    var s = before;\n    var x = operands;\n"
        );
        for bits in self.poisons(trip).into_iter().map(bits) {
            putln!(text, "    for (var k = 0u; k < {steps}u; k++) {{ s.{bits} = max(s.{bits}, x[k].{bits}); }}");
        }
        for state in states {
            text.push_str(&self.block_state(state.number(), steps));
        }
        text.push_str("    return s;\n}\n");
        text
    }

    fn block_state(&self, n: u32, steps: u32) -> String {
        let (f, w) = if self.frame.width == 4 { ("F4", "4") } else { ("F", "") };
        let is_paired = self.frame.is_paired();
        let top = |k: &str| match is_paired {
            true => format!("max(x[{k}].x{n}a, x[{k}].x{n}b)"),
            false => format!("x[{k}].x{n}a"),
        };
        let lane = |v: &str, op: [&str; 3]| match w {
            "4" => format!("{0}{0}{v}.x{1}{v}.y{2}{1}{0}{v}.z{1}{v}.w{2}{2}", op[0], op[1], op[2]),
            _ => v.to_owned(),
        };
        let mut text = format!("    var top{n} = {};\n", top("0"));
        if steps > 1 {
            putln!(text, "    for (var k = 1u; k < {steps}u; k++) {{ top{n} = max(top{n}, {}); }}", top("k"));
        }
        putln!(text, "    let larger{n} = max(s.m{n}, {});", lane(&format!("top{n}"), ["max(", ", ", ")"]));
        let term = |window: &str| format!("part{n} += math_exp_neg{w}(x[k].x{n}{window} - {f}(larger{n}));");
        let terms = if is_paired { format!("{} {}", term("a"), term("b")) } else { term("a") };
        put!(
            text,
            "    var part{n} = {f}(0.0);\n    for (var k = 0u; k < {steps}u; k++) {{ {terms} }}\n    \
             let sum{n} = {};\n",
            lane(&format!("part{n}"), ["(", " + ", ")"])
        );
        put!(
            text,
            "    let is_new{n} = larger{n} > s.m{n};\n    \
             let before{n} = (s.others{n} + s.sum{n}) * math_exp_neg(s.m{n} - larger{n});\n    \
             s.others{n} = select(s.others{n} + sum{n}, before{n}, is_new{n});\n    \
             s.sum{n} = select(s.sum{n}, sum{n}, is_new{n});\n    s.at{n} = select(s.at{n}, col, is_new{n});\n    \
             s.steps{n} = select(s.steps{n}, {steps}u, is_new{n});\n    s.m{n} = larger{n};\n"
        );
        text
    }

    /// A window at an end of the row: a block of its own, of no steps.
    fn block_end_text(&self, trip: &Trip) -> String {
        let Trip { index, states, .. } = trip;
        if !self.ends.has_ends() {
            return format!(
                "fn stage{index}_end(s: LaneStage{index}, r: RowValues, f: Window, col: u32) -> LaneStage{index} {{ \
                 return s; }}\n"
            );
        }
        let mut text = self.operands_of_window(trip, self.ends, "a", "at_end");
        let none = |s: &State| {
            let ty = if self.frame.width == 4 { ("F4", "U4") } else { ("F", "U") };
            format!("    x.x{}b = bitcast<{}>({}(shape.reserved0 | 0xff800000u));\n", s.number(), ty.0, ty.1)
        };
        let second: String = if self.frame.is_paired() { states.iter().map(none).collect() } else { String::new() };
        let steps: String = states
            .iter()
            .map(|s| format!("    t.steps{0} = select(t.steps{0}, 0u, t.m{0} > s.m{0});\n", s.number()))
            .collect();
        put!(
            text,
            "fn stage{index}_end_operands(r: RowValues, f: Window, col: u32) -> Operands{index} {{\n    \
             var x: Operands{index};\n{second}    return stage{index}_at_end(x, r, f, col);\n}}\n\
             fn stage{index}_end(s: LaneStage{index}, r: RowValues, f: Window, col: u32) -> LaneStage{index} {{\n    \
             let x = array<Operands{index}, 1>(stage{index}_end_operands(r, f, col));\n    \
             var t = stage{index}_block1(s, x, col);\n{steps}    return t;\n}}\n"
        );
        text
    }

    /// What a lane's sums are relative to the row's largest value.
    pub(super) fn refined_text(&self, trip: &Trip) -> String {
        let Trip { index, states, .. } = trip;
        let fields: Vec<(String, String)> = states
            .iter()
            .flat_map(|s| ["rest", "ties"].map(|name| (format!("{name}{}", s.number()), "f32".to_owned())))
            .collect();
        let mut text = structure(&format!("LaneStage{index}"), &fields);
        let all: Vec<String> = fields.iter().map(|(name, _)| format!("s.{name}")).collect();
        let refined: String = states.iter().map(|s| self.refined_state(index - 1, s.number())).collect();
        put!(
            text,
            "fn stage{index}_run(r: RowValues, begin: u32, last: i32) -> LaneStage{index} {{\n    \
             var s: LaneStage{index};\n{refined}    return s;\n}}\n\
             fn stage{index}_end(s: LaneStage{index}, r: RowValues, f: Window, col: u32) -> LaneStage{index} {{ \
             return s; }}\n\
             fn stage{index}_kept(r: RowValues, s: LaneStage{index}) -> RowValues {{ return r; }}\n\
             fn stage{index}_narrow(s: LaneStage{index}) -> Stage{index} {{ return Stage{index}({}); }}\n",
            all.join(", ")
        );
        text
    }

    /// `blocks` is the number of the trip by blocks.
    fn refined_state(&self, blocks: usize, n: u32) -> String {
        let (f, w) = if self.frame.width == 4 { ("F4", "4") } else { ("F", "") };
        let windows: &[&str] = if self.frame.is_paired() { &["a", "b"] } else { &["a"] };
        let look = |x: &str, indent: &str| -> String {
            let of = |window: &&str| {
                let x = format!("{x}.x{n}{window}");
                format!(
                    "{indent}ties{n} += select({f}(0.0), {f}(1.0), {x} == top{n});\n\
                     {indent}rest{n} += select(math_exp_neg{w}({x} - top{n}), {f}(0.0), {x} == top{n});\n"
                )
            };
            windows.iter().map(of).collect()
        };
        let sum = |v: &str| if w == "4" { format!("({v}.x + {v}.y) + ({v}.z + {v}.w)") } else { v.to_owned() };
        let at_end = match self.ends.has_ends() {
            true => format!(
                "        if (r.steps{n} == 0u) {{\n            \
                 let x = stage{blocks}_end_operands(r, fetch_end(r, r.at{n}), r.at{n});\n{}        }}\n",
                look("x", "            ")
            ),
            false => String::new(),
        };
        format!(
            "    s.rest{n} = (r.others{n} + r.sum{n}) * math_exp_neg(r.m{n} - r.top{n});\n    s.ties{n} = 0.0;\n    \
             if (r.own{n}) {{\n        let top{n} = {f}(r.top{n});\n        var rest{n} = {f}(0.0);\n        \
             var ties{n} = {f}(0.0);\n        \
             for (var k = 0u; k < select(r.steps{n}, 0u, r.steps{n} == 0xffffffffu); k++) {{\n            \
             let col = r.at{n} + k * LANES * WIDTH;\n            \
             let x = stage{blocks}_operands(r, fetch(r, col), col);\n{}        }}\n{at_end}        \
             s.rest{n} = r.others{n} + {};\n        s.ties{n} = {};\n    }}\n",
            look("x", "            "),
            sum(&format!("rest{n}")),
            sum(&format!("ties{n}"))
        )
    }
}

/// No block yet.
fn identity(n: u32) -> String {
    format!(
        "    s.m{n} = LOWEST;\n    s.others{n} = 0.0;\n    s.sum{n} = 0.0;\n    s.at{n} = 0u;\n    \
         s.steps{n} = 0xffffffffu;\n"
    )
}

/// Leaves the lane's state in the row.
fn kept(n: u32) -> String {
    ["m", "others", "sum", "at", "steps"].iter().map(|name| format!("    r.{name}{n} = s.{name}{n};\n")).collect()
}
