//! The stages of a row kernel as hooks: states of lanes, their steps, and how they are combined.

use super::{Row, Trip};
use crate::codegen::access::Frame;
use crate::codegen::by_run::{Carried, carries};
use crate::codegen::poison::{bits, largest, looking_at};
use crate::codegen::state::{
    Part, State, combine_text, end_run_text, fields, is_scalar, lane_fields, load_text, narrowed, save_text,
};
use crate::codegen::template::LaneReduce;
use crate::codegen::{Mode, structure};
use crate::expr::{Node, NodeId, Reduce};
use crate::lower::{Look, LookKind, LookPlace};
use crate::text::{put, putln};

impl Row<'_, '_> {
    pub(super) fn stage_text(&self, trip: &Trip, combine: LaneReduce) -> String {
        let Trip { index: stage, states, .. } = trip;
        let poisons = self.poisons(trip);
        let names = fields(&poisons, states, "f32", "u32");
        let mut text = structure(&format!("Stage{stage}"), &names);
        states.iter().for_each(|state| text.push_str(&state.declaration()));
        text.push_str(&match trip.part {
            Part::Blocks => self.blocks_text(trip),
            Part::Refined => self.refined_text(trip),
            _ => self.lanes_text(trip, &poisons, &names),
        });
        text.push_str(&combine_text(*stage, &poisons, states));
        if combine == LaneReduce::Subgroup {
            let shuffled: Vec<String> =
                names.iter().map(|(name, _)| format!("subgroupShuffleXor(s.{name}, step)")).collect();
            let all = shuffled.join(", ");
            putln!(
                text,
                "fn stage{stage}_exchange(s: Stage{stage}, step: u32) -> Stage{stage} {{ return Stage{stage}({all}); }}"
            );
        }
        text.push_str(&self.finish_text(trip, &poisons));
        text.push_str(&self.repeats_text(trip));
        // To `work` and back, for split rows.
        text.push_str(&save_text(*stage, &names, "work"));
        text.push_str(&load_text(*stage, &names, "work"));
        let commutes = states.iter().all(State::commutes);
        putln!(text, "const STAGE{stage}_INDEX: u32 = {stage}u;\nconst STAGE{stage}_COMMUTES: bool = {commutes};");
        putln!(text, "const STAGE{stage}_WRITES: bool = {};", self.writes_in_stage());
        text
    }

    /// The state of a lane that takes step after step, and its trip over the row.
    fn lanes_text(&self, trip: &Trip, poisons: &[usize], names: &[(String, String)]) -> String {
        let Trip { index: stage, states, .. } = trip;
        let (f, u) = if self.frame.width == 4 { ("F4", "U4") } else { ("F", "U") };
        let mut text = structure(&format!("LaneStage{stage}"), &lane_fields(poisons, states, f, u));
        let unseen = poisons.iter().map(|k| format!("    s.{} = {u}(0u);\n", bits(*k)));
        let identity: String = unseen.chain(states.iter().map(|s| s.identity(f, u))).collect();
        put!(
            text,
            "fn stage{stage}_identity() -> LaneStage{stage} {{\n    var s: LaneStage{stage};\n{identity}    return s;\n}}\n"
        );
        text.push_str(&self.steps_text(trip));
        text.push_str(&end_run_text(*stage, states, f));
        text.push_str(&self.narrow_text(*stage, states, names));
        if self.streams {
            put!(
                text,
                "fn stage{stage}_run(r: RowValues, begin: u32, last: i32) -> LaneStage{stage} {{\n    \
                 var s = stage{stage}_identity();\n    \
                 for (var run = begin; i32(run) <= last; run += RUN * LANES * WIDTH) {{\n        \
                 let stop = min(last, i32(run + (RUN - 1u) * LANES * WIDTH));\n        \
                 for (var col = run; i32(col) <= stop; col += LANES * WIDTH) {{\n            \
                 s = stage{stage}_step(s, r, fetch(r, col), col);\n        }}\n        \
                 s = stage{stage}_end_run(s);\n    }}\n    return s;\n}}\n\
                 fn stage{stage}_kept(r: RowValues, s: LaneStage{stage}) -> RowValues {{ return r; }}\n"
            );
        }
        text
    }

    /// `stageN_step` and `stageN_end`: one step of a lane, inside the row and at its ends.
    fn steps_text(&self, trip: &Trip) -> String {
        let stage = trip.index;
        let lane = format!("LaneStage{stage}");
        let mut text = self.whole_step_text(trip, ["step", "window"]);
        if self.ends.has_ends() {
            text.push_str(&self.step_text(trip, self.ends, "end"));
        } else {
            putln!(text, "fn stage{stage}_end(s: {lane}, r: RowValues, f: Window, col: u32) -> {lane} {{ return s; }}");
        }
        text
    }

    /// A step inside the row, of one window, or of two, of which each has the second name.
    fn whole_step_text(&self, trip: &Trip, [name, window]: [&str; 2]) -> String {
        if !self.frame.is_paired() {
            return self.step_text(trip, self.frame, name);
        }
        let (stage, lane) = (trip.index, format!("LaneStage{}", trip.index));
        let call = |s: &str, half: &str, col: &str| format!("stage{stage}_{window}({s}, r, f.{half}, {col})");
        let both = call(&call("s", "a", "col"), "b", "col + 4u");
        let mut text = self.step_text(trip, self.frame, window);
        putln!(
            text,
            "fn stage{stage}_{name}(s: {lane}, r: RowValues, f: Fetched, col: u32) -> {lane} {{ return {both}; }}"
        );
        text
    }

    /// `stageN_narrow`: the components of a lane's vector combined.
    fn narrow_text(&self, stage: usize, states: &[State], names: &[(String, String)]) -> String {
        let component = |suffix: &str| {
            let all: Vec<String> = names.iter().map(|(name, _)| narrowed(states, name, suffix)).collect();
            format!("Stage{stage}({})", all.join(", "))
        };
        let narrow = if self.frame.width == 4 {
            let pair = |a: &str, b: &str| format!("stage{stage}_combine({a}, {b})");
            pair(&pair(&component(".x"), &component(".y")), &pair(&component(".z"), &component(".w")))
        } else {
            component("")
        };
        format!("fn stage{stage}_narrow(s: LaneStage{stage}) -> Stage{stage} {{ return {narrow}; }}\n")
    }

    /// `stageN_finish`: the row values that are known after the stage.
    fn finish_text(&self, trip: &Trip, poisons: &[usize]) -> String {
        let (frame, program) = (self.frame, self.frame.program);
        let &Trip { index, part, ref states, .. } = trip;
        let mut text = format!(
            "fn stage{index}_finish(before: RowValues, mine: Stage{index}, s: Stage{index}) -> RowValues {{\n    \
             var r = before;\n"
        );
        for bits in poisons.iter().map(|k| bits(*k)) {
            putln!(text, "    r.{bits} = max(r.{bits}, s.{bits});");
        }
        for state in states {
            text.push_str(&state.finish(program, frame.pass, &|id| self.nodes.contains(&id)));
        }
        if !matches!(part, Part::Top | Part::Blocks) && !self.is_before_thresholds(trip) {
            text.push_str(&self.end_stage_text(trip.stage));
        }
        text.push_str("    return r;\n}\n");
        text
    }

    /// Whether a stage goes on with its thresholds after, or in, a trip.
    fn is_before_thresholds(&self, trip: &Trip) -> bool {
        self.frame.pass.stages[trip.stage].steps > 0
    }

    /// Of thresholds, `stageN_begin`, `stageN_is_open` and `stageN_close`: before the first step, whether a step is left, and after
    /// the last one, when the row values behind the stage are known.
    fn repeats_text(&self, trip: &Trip) -> String {
        if trip.part != Part::Repeated {
            return String::new();
        }
        let index = trip.index;
        let steps: Vec<[String; 3]> = trip.states.iter().map(|state| state.steps(self.frame.pass)).collect();
        let of = |k: usize| steps.iter().map(|step| step[k].as_str()).collect::<Vec<&str>>();
        format!(
            "fn stage{index}_begin(before: RowValues) -> RowValues {{\n    var r = before;\n{}    return r;\n}}\n\
             fn stage{index}_is_open(r: RowValues) -> bool {{ return {}; }}\n\
             fn stage{index}_close(before: RowValues) -> RowValues {{\n    var r = before;\n{}{}    return r;\n}}\n",
            of(0).concat(),
            of(1).join(" || "),
            of(2).concat(),
            self.end_stage_text(trip.stage)
        )
    }

    /// The row values that are known behind a stage.
    fn end_stage_text(&self, stage: usize) -> String {
        let frame = self.frame;
        let mut text = String::new();
        let gathers = self.gathers_after(stage + 1);
        if gathers {
            text.push_str(&frame.coordinates("(r.row - shape.first_item)"));
        }
        text.push_str(&self.row_lets(stage + 1));
        if gathers && frame.variant.modes.iter().any(|mode| matches!(mode, Mode::InPlace(_))) {
            text.push_str("    storageBarrier(); // gathered before another lane stores a gradient in place\n");
        }
        text.push_str(&self.clear_text(stage + 1));
        text
    }

    /// Element values that a trip of a stage reads.
    pub(super) fn stage_roots(&self, trip: &Trip) -> Vec<NodeId> {
        let looked =
            self.poisons(trip).into_iter().flat_map(|k| self.looks(trip, k).flat_map(Look::nodes).collect::<Vec<_>>());
        trip.states.iter().map(|s| s.operand).chain(looked).collect()
    }

    /// One window of a stage, inside the row or at one of its ends.
    fn step_text(&self, trip: &Trip, frame: &Frame<'_>, name: &str) -> String {
        let &Trip { index, ref states, .. } = trip;
        let w = frame.width;
        let (f, u) = if w == 4 { ("F4", "U4") } else { ("F", "U") };
        let poisons = self.poisons(trip);
        let roots = self.stage_roots(trip);
        let mut text = format!(
            "fn stage{index}_{name}(before: LaneStage{index}, r: RowValues, {}, col: u32) -> LaneStage{index} {{\n    \
             var s = before;\n{}",
            self.argument(frame),
            self.unpack(frame)
        );
        text.push_str(&self.element_lets(&self.element_nodes(&roots)));
        for &k in &poisons {
            let bits = bits(k);
            let seen = largest(self.looks(trip, k).map(|look| self.look(look)), "");
            putln!(text, "    s.{bits} = max(s.{bits}, {seen});");
        }
        let valid = if frame.is_masked() { "valid" } else { "" };
        text.push_str(&frame.valid("col"));
        for state in states {
            let x = self.element_value(state.operand);
            text.push_str(&state.step(&x, frame.col_index(), [f, valid], w));
        }
        if frame.is_masked() {
            let is_vector = |(name, _): &(String, String)| !is_scalar(states, name);
            for (name, _) in lane_fields(&poisons, states, f, u).into_iter().filter(is_vector) {
                putln!(text, "    s.{name} = select(before.{name}, s.{name}, valid);");
            }
        }
        text.push_str("    return s;\n}\n");
        text
    }

    /// The looks of a poison at elements of this trip: not those that the row's sum of exponentials makes, where it
    /// carries NaN. That sum is looked at for the same poison.
    pub(super) fn looks<'p>(&'p self, trip: &'p Trip, poison: usize) -> impl Iterator<Item = &'p Look> + 'p {
        let (program, pass) = (self.frame.program, self.frame.pass);
        let carried = move |look: &&Look| {
            let reduces = &pass.stages[trip.stage].reduces;
            let is_sum = |id: &&NodeId| matches!(program.node(**id), Node::Reduce(Reduce::ExpSumRest, _));
            let sums = reduces.iter().filter(is_sum);
            let sums = sums.filter(|&&id| looking_at(pass, LookKind::Softmax, id).contains(&poison));
            let mut operands = sums.flat_map(|&id| program.node(id).operands());
            let is_plain = look.kind == LookKind::Value && look.row.is_none() && look.element.is_none();
            is_plain
                && self.carries_nan
                && operands.any(|operand| carries(program, Carried::nan(self.frame), operand, look.node))
        };
        let at = (!matches!(trip.part, Part::Rest | Part::Refined | Part::Repeated))
            .then(|| pass.poison[poison].at(LookPlace::Stage(trip.stage)));
        at.into_iter().flatten().filter(move |look| !carried(look))
    }

    /// The poisons that look at elements in this trip.
    pub(super) fn poisons(&self, trip: &Trip) -> Vec<usize> {
        (0..self.frame.pass.poison.len()).filter(|&k| self.looks(trip, k).next().is_some()).collect()
    }
}
