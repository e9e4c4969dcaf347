//! The schedules of a plan, in words and bytes. Pure.

use crate::codegen::Mode;
use crate::dispatch::{Note, Planned, output_name};
use crate::expr::Node;
use crate::lower::{Along, Over, Program};
use crate::plan::moved::column_chunks;
use crate::plan::passes::PassChoice;
use crate::plan::problem::{Placement, Problem};
use crate::schedule::{Footprint, Footprints, Kernel, PassSchedule, TensorId, Traffic, bytes_moved, traffic};
use crate::shape::{DType, Geometry, Scope, ShapeRule};
use std::fmt::Write;

/// A kernel in words.
fn kernel_name(kernel: Kernel) -> String {
    match kernel {
        Kernel::Elementwise => "element-wise".to_owned(),
        Kernel::Row => "streamed rows".to_owned(),
        Kernel::RowPairs => "streamed pairs of rows".to_owned(),
        Kernel::RowScan { .. } => "streamed rows, and trips along them".to_owned(),
        Kernel::RowResident { trips } => format!("resident rows, {trips} loads a lane"),
        Kernel::ColumnSums { across, each, splits } => {
            format!("sums by column, {across} lanes of {each} columns, {splits} ranges of rows")
        }
        Kernel::RowSplit { splits } => format!("rows split over {splits} workgroups"),
    }
}

/// A schedule in words, without the reason.
pub(crate) fn schedule_text(schedule: &PassSchedule) -> String {
    let PassSchedule { kernel, workgroup, lanes, subgroup, width, grid, .. } = schedule;
    let kernel = kernel_name(*kernel);
    let lanes = if *lanes == 1 { "1 lane a row".to_owned() } else { format!("{lanes} lanes a row") };
    let lanes = if matches!(schedule.kernel, Kernel::Elementwise) { String::new() } else { format!(", {lanes}") };
    let subgroup = if *subgroup == 0 { "no subgroups".to_owned() } else { format!("subgroups of {subgroup}") };
    let [x, y] = grid;
    format!("{kernel}; workgroup {workgroup}{lanes}, width {width}, {subgroup}, grid {x} x {y}")
}

/// A count of bytes in groups of three digits.
pub(crate) fn grouped(bytes: u64) -> String {
    let digits = bytes.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn count(number: usize, what: &str, plural: &str) -> String {
    format!("{number} {}", if number == 1 { what } else { plural })
}

/// Values of a tensor, those of one scope; a broadcast value counts once.
fn footprint(geometry: &Geometry, scope: Scope, placement: &Placement) -> Footprint {
    let axes = geometry.axes_of(scope).into_iter().zip(placement.strides).filter(|(_, stride)| *stride != 0);
    Footprint { values: axes.map(|(size, _)| size).product(), value_bytes: placement.dtype.size() }
}

impl Problem<'_> {
    fn tensor(&self, tensor: TensorId) -> Option<Placement> {
        match tensor {
            TensorId::Input(input) => self.inputs[input],
            TensorId::Output(output) => Some(self.outputs[output]),
        }
    }

    fn scope_of(&self, tensor: TensorId) -> Scope {
        match tensor {
            TensorId::Input(input) => self.program.inputs[input].scope,
            TensorId::Output(output) => self.program.outputs[output].scope,
        }
    }

    /// Reads and writes of a pass, per tensor. Values of rows are read once per chunk of columns. A kept gradient counts as
    /// its kept buffer.
    fn traffic(&self, pass: usize, choice: &PassChoice) -> Vec<(Traffic, DType)> {
        let (kernel, known) = (choice.schedule.kernel, choice.states.known);
        let placement = |tensor| self.tensor(tensor).expect("a tensor of the pass is bound");
        let print = |tensor| footprint(&self.geometry, self.scope_of(tensor), &placement(tensor));
        let accumulates = |output: usize| self.modes[output] == Mode::Accumulate && self.destinations[output].is_none();
        let mut pass = self.program.passes[pass].clone();
        if known {
            pass.stages.clear();
        }
        let footprints = Footprints { rows: self.geometry.rows, of: &print, accumulates: &accumulates };
        let all = traffic(self.program, &pass, kernel, footprints);
        let of_chunks = |mut visits: Traffic| {
            if !self.scope_of(visits.tensor).has_columns() {
                visits.reads *= column_chunks(choice) as u32;
            }
            (visits, placement(visits.tensor).dtype)
        };
        all.into_iter().map(of_chunks).collect()
    }

    /// Bytes that must move: inputs once, outputs once.
    pub(crate) fn bytes(&self) -> u64 {
        bytes_moved(self.program, self.geometry.rows, &|tensor| self.moved(tensor))
    }

    fn moved(&self, tensor: TensorId) -> Footprint {
        match tensor {
            TensorId::Input(input) if self.geometry.is_empty() && self.program.inputs[input].scope > Scope::Total => {
                Footprint { values: 0, value_bytes: 0 }
            }
            // Offsets are one more than there are groups.
            TensorId::Input(input) if self.program.inputs[input].shape_rule == ShapeRule::Offsets => {
                Footprint { values: self.geometry.groups() + 1, value_bytes: 4 }
            }
            // An input that is not bound is not used.
            TensorId::Input(input) => self.inputs[input].map_or(Footprint { values: 0, value_bytes: 0 }, |placement| {
                footprint(&self.geometry, self.scope_of(tensor), &placement)
            }),
            TensorId::Output(output) => {
                let placement = self.destinations[output].unwrap_or(self.outputs[output]);
                footprint(&self.geometry, self.scope_of(tensor), &placement)
            }
        }
    }

    /// Traffic besides the passes: scalars, reduced outputs, and kept gradients as they are finished.
    fn traffic_besides(&self) -> Vec<(Traffic, DType)> {
        let program = self.program;
        let mut rest = Vec::new();
        if let Some((index, io)) = program.ragged.and_then(|ragged| Some((ragged.index, self.inputs[ragged.index]?))) {
            let tensor = TensorId::Input(index);
            rest.push((Traffic { tensor, footprint: self.moved(tensor), reads: 1, writes: 0 }, io.dtype));
        }
        for (index, input) in program.inputs.iter().enumerate() {
            if let (Scope::Scalar, Some(io)) = (input.scope, self.inputs[index]) {
                if program.nodes.contains(&Node::Input(index as u32)) {
                    let tensor = TensorId::Input(index);
                    rest.push((Traffic { tensor, footprint: self.moved(tensor), reads: 1, writes: 0 }, io.dtype));
                }
            }
        }
        for output in 0..program.outputs.len() {
            let in_pass = program.passes.iter().any(|pass| pass.outputs.contains(&output));
            if self.destinations[output].is_none() && in_pass {
                continue;
            }
            let tensor = TensorId::Output(output);
            if self.destinations[output].is_some() {
                let kept = self.outputs[output];
                let footprint = footprint(&self.geometry, self.scope_of(tensor), &kept);
                rest.push((Traffic { tensor, footprint, reads: 1, writes: 0 }, kept.dtype));
            }
            let reads = u32::from(self.modes[output] == Mode::Accumulate);
            let dtype = self.destinations[output].unwrap_or(self.outputs[output]).dtype;
            rest.push((Traffic { tensor, footprint: self.moved(tensor), reads, writes: 1 }, dtype));
        }
        rest
    }

    /// The whole plan, a paragraph per pass.
    pub(crate) fn explain(&self, choices: &[PassChoice], planned: &Planned, adapter: &str) -> String {
        let (program, geometry) = (self.program, &self.geometry);
        let mut text = match program.has_rows() {
            true => format!("{}: {} rows of {} columns", program.name, geometry.rows, geometry.cols),
            false => format!("{}: {} elements", program.name, geometry.cols),
        };
        let _ = writeln!(text, ", on {adapter}");
        let mut all: Vec<(Traffic, DType)> = Vec::new();
        let mut in_workspace = self.workspace_bytes_besides(planned);
        for (index, choice) in choices.iter().enumerate() {
            let is_run = !choice.pieces.pieces.is_empty();
            let tensors = is_run.then(|| self.traffic(index, choice));
            let tensors = tensors.unwrap_or_default();
            let over = match choice.over {
                Over::Rows => "",
                Over::RowsByColumn => " by column",
                Over::Groups => " over groups",
                Over::Columns => " over columns",
                Over::GroupColumns => " over groups and columns",
            };
            let _ = writeln!(text, "pass {index}{over}: {} ({})", schedule_text(&choice.schedule), choice.schedule.why);
            let _ = writeln!(text, "    {}", self.counts(index, choice, planned));
            let steps: u32 = program.passes[index].stages.iter().map(|stage| stage.steps).sum();
            if steps > 0 {
                let each = match choice.schedule.kernel {
                    Kernel::RowResident { .. } => "over held rows, which are read once",
                    _ => "over each row, all of which are counted",
                };
                let _ = writeln!(text, "    thresholds: at most {steps} trips {each}");
            }
            table(&mut text, program, &tensors);
            let own = self.workspace_bytes(index, choice);
            in_workspace += own;
            if own > 0 {
                let _ = writeln!(
                    text,
                    "    workspace: {} B of sums, states and row values, read and written",
                    grouped(own)
                );
            }
            all.extend(tensors);
        }
        let rest = self.traffic_besides();
        if !rest.is_empty() {
            let what = match noted(planned, |note| matches!(note, Note::Finish(_))) {
                0 => "besides: scalars and reduced outputs".to_owned(),
                n => {
                    let dispatches = count(n, "dispatch", "dispatches");
                    format!("besides: scalars, reduced outputs, and gradients kept in f32 until now; {dispatches}")
                }
            };
            let _ = writeln!(text, "{what}");
            table(&mut text, program, &rest);
        }
        if program.ragged.is_some() {
            let _ =
                writeln!(text, "groups of unequal length: the rows of each are found before all passes; 1 dispatch");
        }
        if self.found_inf.is_some() {
            let _ = writeln!(text, "found_inf: looked at where gradients are stored; 1 dispatch");
        }
        all.extend(rest);
        let found = if self.found_inf.is_some() { 4 } else { 0 };
        let moved = all.iter().map(|(visits, _)| visits.bytes()).sum::<u64>() + in_workspace + found;
        let again: u64 = all.iter().map(|(visits, _)| visits.bytes_read_again()).sum();
        let dispatches = planned.all().count();
        let times = moved as f64 / planned.bytes.max(1) as f64;
        let _ = writeln!(text, "must move  {:>17} B  inputs once, outputs once", grouped(planned.bytes));
        let _ = write!(text, "does move  {:>17} B  {times:.2} times that", grouped(moved));
        if in_workspace > 0 {
            let _ = write!(text, "; {} B of it in the workspace", grouped(in_workspace));
        }
        if again > 0 {
            let _ = write!(text, "; {} B of it are read again, which a cache may serve", grouped(again));
        }
        let words = grouped(4 * planned.workspace);
        let _ = writeln!(text, "\nworkspace  {words:>17} B  sums and states; {dispatches} dispatches");
        text
    }

    /// Numbers of stages, sums, chunks and dispatches of a pass.
    fn counts(&self, index: usize, choice: &PassChoice, planned: &Planned) -> String {
        let pass = &self.program.passes[index];
        let own =
            noted(planned, |note| matches!(note, Note::Pass(p) | Note::Stitch(p) | Note::States(p) if p == index));
        let sums =
            noted(planned, |note| matches!(note, Note::Group(p) | Note::Columns(p) | Note::Total(p) if p == index));
        let mut line = vec![
            count(pass.stages.len(), "row stage", "row stages"),
            count(pass.totals.len(), "sum", "sums"),
            count(choice.pieces.pieces.len(), "chunk", "chunks"),
            count(own, "dispatch", "dispatches"),
        ];
        if sums > 0 {
            line.push(format!("{} for the sums", count(sums, "dispatch", "dispatches")));
        }
        line.extend(self.along(index));
        line.join(", ")
    }

    /// Trips along rows, and how many pairs a row has.
    fn along(&self, pass: usize) -> Vec<String> {
        let of = |is: fn(Along) -> bool| self.program.passes[pass].trips_along().filter(move |trip| is(trip.along));
        let scans = of(|along| matches!(along, Along::Scans(_))).map(|trip| trip.nodes.len()).sum();
        let [pairs, sorts] = [of(|along| along == Along::Pairs).count(), of(|along| along == Along::Sort).count()];
        let each = grouped(self.geometry.cols.saturating_mul(self.geometry.cols));
        let pairs_text = format!("{} of {each} pairs per row", count(pairs, "trip", "trips"));
        let all = [(scans, count(scans, "scan", "scans")), (pairs, pairs_text), (sorts, count(sorts, "sort", "sorts"))];
        all.into_iter().filter(|(count, _)| *count > 0).map(|(_, text)| text).collect()
    }
}

/// Number of dispatches with such a note.
fn noted(planned: &Planned, is_it: impl Fn(Note) -> bool) -> usize {
    planned.dispatches.iter().filter(|dispatch| is_it(dispatch.note)).count()
}

/// One line per tensor: name, type, reads and writes, bytes.
fn table(text: &mut String, program: &Program, tensors: &[(Traffic, DType)]) {
    let name = |tensor| match tensor {
        TensorId::Input(input) => program.inputs[input].name.clone(),
        TensorId::Output(output) => output_name(&program.inputs, &program.outputs[output].kind),
    };
    let wide = tensors.iter().map(|(visits, _)| name(visits.tensor).len()).max().unwrap_or(0);
    let trips = |number: u32, what: &str| match number {
        0 => String::new(),
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    };
    for (visits, dtype) in tensors {
        let (reads, writes) = (trips(visits.reads, "read"), trips(visits.writes, "write"));
        let (name, bytes) = (name(visits.tensor), grouped(visits.bytes()));
        let _ = writeln!(text, "    {name:<wide$}  {:<4}  {reads:<8} {writes:<8} {bytes:>17} B", dtype.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_grouped_by_thousands() {
        let texts = [0, 999, 1000, 1_048_576, u64::MAX].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,048,576", "18,446,744,073,709,551,615"]);
    }
}
