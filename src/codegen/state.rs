//! States of row reductions as WGSL: their fields, identity, step and combination.

use super::poison::{bits, looked_at, looking_at};
use super::{structure, threshold};
use crate::expr::op::Kind;
use crate::expr::{Node, NodeId, Reduce};
use crate::lower::{LookKind, LookPlace, Pass, Program};
use crate::text::putln;

/// Words of a stage's state: one word of bits per poison, then the fields of its reductions.
pub fn stage_words(program: &Program, pass: &Pass, stage: usize) -> u32 {
    let fields = |&id: &NodeId| State::new(program, id).fields.len() as u32;
    looked_at(pass, LookPlace::Stage(stage)).len() as u32 + pass.stages[stage].reduces.iter().map(fields).sum::<u32>()
}

/// Fields of a stage's struct: the bits of `poisons`, then the fields of its states. `f` and `u` are the types of
/// numbers and bits.
pub(super) fn fields(poisons: &[usize], states: &[State], f: &str, u: &str) -> Vec<(String, String)> {
    let all = states.iter().flat_map(|s| s.fields.iter());
    let all = all.map(|(name, kind)| (name.clone(), if *kind == Kind::Float { f } else { u }.to_owned()));
    poisons.iter().map(|k| (bits(*k), u.to_owned())).chain(all).collect()
}

/// Fields of a lane's struct: the fields of the stage, then per sum the terms of the current run, not yet added to it. In the
/// place of ties, the sum of exponentials without them.
pub(super) fn lane_fields(poisons: &[usize], states: &[State], f: &str, u: &str) -> Vec<(String, String)> {
    let runs = states.iter().flat_map(State::runs).map(|[_, run]| (run, f.to_owned()));
    let mut all: Vec<(String, String)> = fields(poisons, states, f, u).into_iter().chain(runs).collect();
    for (name, ty) in all.iter_mut().filter(|(name, _)| is_scalar(states, name)) {
        "f32".clone_into(ty);
        *name = name.replace("ties", "others");
    }
    all
}

/// Whether a lane adds up a field over the components of its vectors: registers are scarce where a row is held.
pub(super) fn is_scalar(states: &[State], name: &str) -> bool {
    let of = |state: &State| ["rest", "ties", "others"].iter().any(|field| *name == format!("{field}{}", state.id.0));
    states.iter().any(|state| state.part == Part::Rest && of(state))
}

/// A field of a lane's state, or a component of it, with the current run added to a sum.
pub(super) fn narrowed(states: &[State], name: &str, component: &str) -> String {
    for n in states.iter().filter(|state| state.part == Part::Rest).map(|state| state.id.0) {
        // In a lane that has none of the largest, all are others. Each e^0 is exactly 1.
        let (all, others) = (format!("s.rest{n}"), format!("s.others{n}"));
        let is_first = component.is_empty() || component == ".x";
        if *name == format!("rest{n}") {
            return if is_first { format!("select({all}, {others}, owns{n})") } else { "0.0".to_owned() };
        } else if *name == format!("ties{n}") {
            return if is_first { format!("select(0.0, round({all} - {others}), owns{n})") } else { "0.0".to_owned() };
        }
    }
    let sum = states.iter().flat_map(State::runs).find(|[sum, _]| sum == name);
    match sum {
        Some([_, run]) => format!("s.{name}{component} + s.{run}{component}"),
        None => format!("s.{name}{component}"),
    }
}

/// `stageN_end_run`: adds the terms of a run of steps to the sums.
pub(super) fn end_run_text(stage: usize, states: &[State], f: &str) -> String {
    let lane = format!("LaneStage{stage}");
    let sums: Vec<[String; 2]> = states.iter().flat_map(State::runs).collect();
    if sums.is_empty() {
        return format!("fn stage{stage}_end_run(s: {lane}) -> {lane} {{ return s; }}\n");
    }
    let mut text = format!("fn stage{stage}_end_run(before: {lane}) -> {lane} {{\n    var s = before;\n");
    for [sum, run] in sums {
        putln!(text, "    s.{sum} += s.{run};\n    s.{run} = {f}(0.0);");
    }
    text.push_str("    return s;\n}\n");
    text
}

pub(super) fn combine_text(stage: usize, poisons: &[usize], states: &[State]) -> String {
    let seen = poisons.iter().map(|k| bits(*k)).map(|bits| format!("    s.{bits} = max(a.{bits}, b.{bits});\n"));
    let combine: String = seen.chain(states.iter().map(State::combine)).collect();
    format!(
        "fn stage{stage}_combine(a: Stage{stage}, b: Stage{stage}) -> Stage{stage} {{\n    var s = a;\n{combine}    return s;\n}}\n"
    )
}

/// Stores a stage's state, word by word.
pub(super) fn save_text(stage: usize, names: &[(String, String)], buffer: &str) -> String {
    let mut text = format!("fn stage{stage}_save(s: Stage{stage}, first: u32) {{\n");
    for (word, (name, ty)) in names.iter().enumerate() {
        let value = if ty == "f32" { format!("bitcast<u32>(s.{name})") } else { format!("s.{name}") };
        putln!(text, "    {buffer}[first + {word}u] = {value};");
    }
    text.push_str("}\n");
    text
}

pub(super) fn load_text(stage: usize, names: &[(String, String)], buffer: &str) -> String {
    let mut text = format!("fn stage{stage}_load(first: u32) -> Stage{stage} {{\n    var s: Stage{stage};\n");
    for (word, (name, ty)) in names.iter().enumerate() {
        let value = format!("{buffer}[first + {word}u]");
        let value = if ty == "f32" { format!("bitcast<f32>({value})") } else { value };
        putln!(text, "    s.{name} = {value};");
    }
    text.push_str("    return s;\n}\n");
    text
}

/// Functions that combine states of a stage from `source` into `result`. They are named as if it were stage 0, as the
/// skeleton has it.
pub(super) fn state_text(program: &Program, pass: &Pass, stage: usize) -> String {
    let states: Vec<State> = pass.stages[stage].reduces.iter().map(|&id| State::new(program, id)).collect();
    let poisons = looked_at(pass, LookPlace::Stage(stage));
    let names = fields(&poisons, &states, "f32", "u32");
    let mut text = structure("Stage0", &names);
    text.push_str(&combine_text(0, &poisons, &states));
    text.push_str(&load_text(0, &names, "source"));
    text.push_str(&save_text(0, &names, "result"));
    text
}

/// The trips over a row by which a kernel runs a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The only one. Sums of exponentials are relative to the largest value so far.
    Whole,
    /// The first of two, of rows that are held: the largest values, and all reductions but sums of exponentials.
    Top,
    /// The second: sums of exponentials relative to the row's largest value.
    Rest,
    /// The only trip over a row that is streamed: largest values, and sums of exponentials, block by block. A lane keeps the
    /// sum of the block with its largest value apart.
    Blocks,
    /// After it, without a trip: each lane's sum relative to the row's largest value. Lanes that have it look at its block
    /// again, and leave its e^0 out.
    Refined,
    /// Behind those, one trip per step: thresholds.
    Repeated,
}

impl Part {
    /// Whether a reduction of the stage has a state in this trip.
    pub fn has(self, reduce: Reduce) -> bool {
        match reduce {
            Reduce::Threshold(_) => self == Part::Repeated,
            Reduce::ExpSumRest => self != Part::Repeated,
            _ => matches!(self, Part::Whole | Part::Top),
        }
    }
}

/// The state of one row reduction: its fields in the stage's struct, and its laws.
pub(super) struct State {
    reduce: Reduce,
    part: Part,
    id: NodeId,
    pub operand: NodeId,
    fields: Vec<(String, Kind)>,
}

impl State {
    pub fn new(program: &Program, id: NodeId) -> State {
        State::of(program, id, Part::Whole)
    }

    /// The states of a trip's reductions.
    pub fn all(program: &Program, reduces: &[NodeId], part: Part) -> Vec<State> {
        let has = |id: &&NodeId| matches!(*program.node(**id), Node::Reduce(reduce, _) if part.has(reduce));
        reduces.iter().filter(has).map(|&id| State::of(program, id, part)).collect()
    }

    fn of(program: &Program, id: NodeId, part: Part) -> State {
        let Node::Reduce(reduce, operand) = *program.node(id) else { unreachable!("a stage holds reductions") };
        let n = id.0;
        let fields = match reduce {
            Reduce::ExpSumRest if matches!(part, Part::Top | Part::Blocks) => vec![(format!("m{n}"), Kind::Float)],
            Reduce::ExpSumRest if matches!(part, Part::Rest | Part::Refined) => {
                vec![(format!("rest{n}"), Kind::Float), (format!("ties{n}"), Kind::Float)]
            }
            Reduce::Sum => vec![(format!("sum{n}"), Kind::Float)],
            Reduce::Max | Reduce::Min => vec![(format!("m{n}"), Kind::Float)],
            Reduce::ArgMax => vec![(format!("m{n}"), Kind::Float), (format!("at{n}"), Kind::Int)],
            Reduce::ExpSumRest => vec![(format!("m{n}"), Kind::Float), (format!("rest{n}"), Kind::Float)],
            Reduce::Threshold(of) => {
                threshold::fields(of).iter().map(|(name, kind)| (format!("{name}{n}"), *kind)).collect()
            }
            Reduce::LogSumExpShifted => unreachable!("lowering leaves log1p(ExpSumRest) of it"),
        };
        State { reduce, part, id, operand, fields }
    }

    /// Fields of the row that the first of two trips leaves for the second (the largest value, and whether the lane has it), or
    /// each step of a threshold for the next.
    pub fn row_fields(&self) -> Vec<(String, String)> {
        if let Reduce::Threshold(of) = self.reduce {
            let named = threshold::row_fields(of).iter();
            return named.map(|(name, ty)| (format!("{name}{}", self.id.0), (*ty).to_owned())).collect();
        }
        let fields: &[(&str, &str)] = match self.part {
            Part::Top => &[("top", "f32"), ("own", "bool")],
            Part::Blocks => &[
                ("top", "f32"),
                ("own", "bool"),
                ("m", "f32"),
                ("others", "f32"),
                ("sum", "f32"),
                ("at", "u32"),
                ("steps", "u32"),
            ],
            _ => &[],
        };
        let of = |(name, ty): &(&str, &str)| (format!("{name}{}", self.id.0), (*ty).to_owned());
        fields.iter().filter(|_| self.reduce == Reduce::ExpSumRest).map(of).collect()
    }

    /// The declaration of whether this lane has the largest value of the row in hand, as the second of two trips reads it
    /// where its sums become the lane's state.
    pub fn declaration(&self) -> String {
        match (self.reduce, self.part) {
            (Reduce::ExpSumRest, Part::Top) => format!("var<private> owns{}: bool;\n", self.id.0),
            _ => String::new(),
        }
    }

    /// The number of the reduction's node, by which its fields are named.
    pub fn number(&self) -> u32 {
        self.id.0
    }

    /// Of each field that is a sum of numbers: its name, and that of the field with its terms of the current run.
    fn runs(&self) -> Vec<[String; 2]> {
        let n = self.id.0;
        match self.reduce {
            Reduce::Sum => vec![[format!("sum{n}"), format!("run{n}")]],
            Reduce::Threshold(of) => {
                threshold::sums(of).iter().map(|name| [format!("{name}{n}"), format!("run_{name}{n}")]).collect()
            }
            _ => Vec::new(),
        }
    }

    pub fn identity(&self, f: &str, u: &str) -> String {
        let n = self.id.0;
        match self.reduce {
            Reduce::Sum => format!("    s.sum{n} = {f}(0.0);\n    s.run{n} = {f}(0.0);\n"),
            Reduce::Threshold(of) => threshold::identity(of, n, [f, u]),
            Reduce::Max => format!("    s.m{n} = bitcast<{f}>({u}(shape.reserved0 | 0xff800000u));\n"),
            Reduce::Min => format!("    s.m{n} = bitcast<{f}>({u}(shape.reserved0 | INF_BITS));\n"),
            // No column yet: any column's −∞ is better, at a lower index.
            Reduce::ArgMax => format!(
                "    s.m{n} = bitcast<{f}>({u}(shape.reserved0 | 0xff800000u));\n    s.at{n} = {u}(0xffffffffu);\n"
            ),
            _ if self.part == Part::Top => format!("    s.m{n} = {f}(LOWEST);\n"),
            _ if self.part == Part::Rest => format!("    s.rest{n} = 0.0;\n    s.others{n} = 0.0;\n"),
            // The empty state: 1 + rest, the sum of exponentials, is 0.
            _ => format!("    s.m{n} = {f}(LOWEST);\n    s.rest{n} = {f}(-1.0);\n"),
        }
    }

    /// A step of a lane over a window, of which `valid` says what lies in the row, if some may not.
    pub fn step(&self, x: &str, col: &str, [f, valid]: [&str; 2], width: u32) -> String {
        let n = self.id.0;
        let w = if width == 4 { "4" } else { "" };
        match self.reduce {
            Reduce::Sum => format!("    s.run{n} += {x};\n"),
            Reduce::Threshold(of) => threshold::step(of, n, x, if width == 4 { ["F4", "U4"] } else { ["F", "U"] }),
            Reduce::Max => format!("    s.m{n} = max(s.m{n}, {x});\n"),
            Reduce::Min => format!("    s.m{n} = min(s.m{n}, {x});\n"),
            // A tie goes to the lower index: windows at a row's ends come after those inside it.
            Reduce::ArgMax => format!(
                "    let at{n} = {col};\n    let better{n} = ({x} > s.m{n}) | (({x} == s.m{n}) & (at{n} < s.at{n}));\n    \
                 s.m{n} = select(s.m{n}, {x}, better{n});\n    s.at{n} = select(s.at{n}, at{n}, better{n});\n"
            ),
            _ if self.part == Part::Top => format!("    s.m{n} = max(s.m{n}, {x});\n"),
            // e^0 of the largest is left out, where a lane has it: the others keep their digits.
            _ if self.part == Part::Rest => {
                let e = format!("math_exp_neg{w}(x{n} - {f}(r.top{n}))");
                let e = if valid.is_empty() { e } else { format!("select({f}(0.0), {e}, {valid})") };
                let sum = |v: &str| if w == "4" { format!("({v}.x + {v}.y) + ({v}.z + {v}.w)") } else { v.to_owned() };
                let (all, others) = (sum(&format!("e{n}")), sum(&format!("others{n}")));
                format!(
                    "    let x{n} = {x};\n    let e{n} = {e};\n    s.rest{n} += {all};\n    if (r.own{n}) {{\n        \
                     let others{n} = select(e{n}, {f}(0.0), x{n} == {f}(r.top{n}));\n        \
                     s.others{n} += {others};\n    }}\n"
                )
            }
            // One exponential: of the smaller relative to the larger, whichever is new.
            _ => format!(
                "    let x{n} = {x};\n    let e{n} = math_exp_neg{w}(-abs(x{n} - s.m{n}));\n    \
                 s.rest{n} = select(s.rest{n} + e{n}, s.rest{n} * e{n} + e{n}, x{n} > s.m{n});\n    \
                 s.m{n} = max(s.m{n}, x{n});\n"
            )
            .replace("F4", f),
        }
    }

    /// Whether two states combine to the same bits in either order.
    pub fn commutes(&self) -> bool {
        self.reduce != Reduce::ExpSumRest || self.part != Part::Whole
    }

    pub fn combine(&self) -> String {
        let n = self.id.0;
        match self.reduce {
            Reduce::Sum => format!("    s.sum{n} = a.sum{n} + b.sum{n};\n"),
            Reduce::Threshold(of) => threshold::combine(of, n),
            Reduce::Max => format!("    s.m{n} = max(a.m{n}, b.m{n});\n"),
            Reduce::Min => format!("    s.m{n} = min(a.m{n}, b.m{n});\n"),
            Reduce::ArgMax => format!(
                "    let better{n} = b.m{n} > a.m{n} || (b.m{n} == a.m{n} && b.at{n} < a.at{n});\n    \
                 s.m{n} = select(a.m{n}, b.m{n}, better{n});\n    s.at{n} = select(a.at{n}, b.at{n}, better{n});\n"
            ),
            _ if matches!(self.part, Part::Top | Part::Blocks) => format!("    s.m{n} = max(a.m{n}, b.m{n});\n"),
            _ if matches!(self.part, Part::Rest | Part::Refined) => {
                format!("    s.rest{n} = a.rest{n} + b.rest{n};\n    s.ties{n} = a.ties{n} + b.ties{n};\n")
            }
            _ => format!(
                "    let e{n} = math_exp_neg(-abs(a.m{n} - b.m{n}));\n    let b_wins{n} = b.m{n} > a.m{n};\n    \
                 s.m{n} = max(a.m{n}, b.m{n});\n    \
                 s.rest{n} = select(a.rest{n} + e{n} * (1.0 + b.rest{n}), b.rest{n} + e{n} * (1.0 + a.rest{n}), b_wins{n});\n"
            ),
        }
    }

    /// Of a threshold: before its first step, whether a step is left to do, and after the last one.
    pub fn steps(&self, pass: &Pass) -> [String; 3] {
        let Reduce::Threshold(of) = self.reduce else { unreachable!("thresholds alone take steps") };
        let n = self.id.0;
        let poisons = looking_at(pass, LookKind::Softmax, self.id);
        [threshold::begin(of, n), threshold::is_open(of, n), threshold::close(of, n, &poisons)]
    }

    pub fn finish(&self, program: &Program, pass: &Pass, needed: &dyn Fn(NodeId) -> bool) -> String {
        let n = self.id.0;
        match self.reduce {
            Reduce::Sum => format!("    r.n{n} = s.sum{n};\n"),
            Reduce::Threshold(of) => threshold::finish(of, n),
            Reduce::Max | Reduce::Min => format!("    r.n{n} = s.m{n};\n"),
            // A row of NaN has no better column than the first.
            Reduce::ArgMax => format!("    r.n{n} = select(s.at{n}, 0u, s.at{n} == 0xffffffffu);\n"),
            _ if matches!(self.part, Part::Top | Part::Blocks) => {
                let owns = if self.part == Part::Top { format!("    owns{n} = r.own{n};\n") } else { String::new() };
                format!("    r.top{n} = s.m{n};\n    r.own{n} = mine.m{n} == s.m{n};\n{owns}")
            }
            _ => {
                let (rest, top) = match self.part {
                    Part::Rest | Part::Refined => (format!("s.rest{n} + (s.ties{n} - 1.0)"), format!("r.top{n}")),
                    _ => (format!("s.rest{n}"), format!("s.m{n}")),
                };
                let mut text = format!("    r.n{n} = {rest};\n");
                let max = Node::Reduce(Reduce::Max, self.operand);
                if let Some(index) = program.nodes.iter().position(|node| *node == max) {
                    if needed(NodeId(index as u32)) {
                        putln!(text, "    r.n{index} = {top};");
                    }
                }
                // The softmax is not defined: all values −∞ (rest −1, or NaN from −∞ − −∞), or one is +∞.
                for poison in looking_at(pass, LookKind::Softmax, self.id) {
                    let bits = bits(poison);
                    putln!(
                        text,
                        "    r.{bits} = select(r.{bits}, NAN_BITS, r.n{n} < -0.5 || math_is_nan(r.n{n}) || \
                         bitcast<u32>({top}) == INF_BITS);"
                    );
                }
                text
            }
        }
    }
}
