//! What was chosen for a plan and why, in words and bytes. Pure.

use crate::codegen::Mode;
use crate::expr::Node;
use crate::lower::{Program, Target};
use crate::plan::problem::{Place, Problem, Step};
use crate::schedule::{Footprint, Kernel, PassSchedule, Shape, TensorId, Traffic, bytes_moved, traffic};
use crate::shape::DType;
use crate::shape::Geometry;
use crate::shape::Scope;
use std::fmt::Write;

/// What one pass does.
pub(crate) struct PassFacts {
    /// What its schedule was chosen for.
    pub shape: Shape,
    pub schedule: PassSchedule,
    pub tensors: Vec<(Traffic, DType)>,
    /// Parts that it is cut into where a tensor is larger than a binding.
    pub chunks: usize,
    /// Dispatches of the pass itself, and of the sums after it.
    pub dispatches: [usize; 2],
}

/// What a plan does.
pub(crate) struct Facts {
    pub passes: Vec<PassFacts>,
    /// Scalars, reduced outputs, and gradients that are kept in f32 until all passes are done.
    pub rest: Vec<(Traffic, DType)>,
    /// Dispatches that bring kept gradients to their places.
    pub settles: usize,
    /// Dispatches that widen scalars of 16 bits.
    pub widened: usize,
    /// What must move: inputs once, outputs once.
    pub bytes: u64,
}

/// Name of an output in messages.
pub(crate) fn output_name(program: &Program, target: &Target) -> String {
    match target {
        Target::Loss => "loss".to_owned(),
        Target::Denominator => "denominator".to_owned(),
        Target::Extra(name) => format!("extra output {name}"),
        Target::Grad(place) => format!("gradient of {}", program.inputs[*place].name),
        Target::HessianDiagonal(place) => format!("Hessian diagonal of {}", program.inputs[*place].name),
    }
}

/// A kernel in words.
fn kernel_name(kernel: Kernel) -> String {
    match kernel {
        Kernel::Elementwise => "element-wise".to_owned(),
        Kernel::Row => "streamed rows".to_owned(),
        Kernel::RowResident { trips } => format!("resident rows, {trips} loads a lane"),
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
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn count(number: usize, what: &str, plural: &str) -> String {
    format!("{number} {}", if number == 1 { what } else { plural })
}

fn footprint(geometry: &Geometry, place: &Place) -> Footprint {
    let axes = geometry.axes.iter().zip(place.strides).filter(|(_, stride)| *stride != 0);
    Footprint { values: axes.map(|(size, _)| size).product(), value_bytes: place.dtype.size() }
}

impl Problem<'_> {
    fn tensor(&self, tensor: TensorId) -> Option<Place> {
        match tensor {
            TensorId::Input(place) => self.inputs[place],
            TensorId::Output(output) => Some(self.outputs[output]),
        }
    }

    /// The visits of a pass to its tensors; `known` says that the states of its stages are there already. Outputs that
    /// are kept are written where they are kept.
    pub(crate) fn traffic(&self, pass: usize, kernel: Kernel, known: bool) -> Vec<(Traffic, DType)> {
        let place = |tensor| self.tensor(tensor).expect("a tensor of the pass is bound");
        let print = |tensor| footprint(self.geometry, &place(tensor));
        let accumulates = |output: usize| self.modes[output] == Mode::Accumulate && self.targets[output].is_none();
        let rows = self.geometry.rows;
        let mut pass = self.program.passes[pass].clone();
        if known {
            pass.stages.clear();
        }
        let all = traffic(self.program, &pass, kernel, rows, &print, &accumulates);
        all.into_iter().map(|visits| (visits, place(visits.tensor).dtype)).collect()
    }

    pub(crate) fn facts(&self, passes: Vec<PassFacts>, widened: usize, steps: &[Step]) -> Facts {
        let program = self.program;
        let target = |output: usize| self.targets[output].unwrap_or(self.outputs[output]);
        let print = |tensor| match tensor {
            // An input that is not bound is not used.
            TensorId::Input(place) => self.inputs[place]
                .map_or(Footprint { values: 0, value_bytes: 0 }, |place| footprint(self.geometry, &place)),
            TensorId::Output(output) => footprint(self.geometry, &target(output)),
        };
        let mut rest = Vec::new();
        for (place, input) in program.inputs.iter().enumerate() {
            if let (Scope::Scalar, Some(io)) = (input.scope, self.inputs[place]) {
                if program.nodes.contains(&Node::Input(place as u32)) {
                    let tensor = TensorId::Input(place);
                    rest.push((Traffic { tensor, footprint: print(tensor), reads: 1, writes: 0 }, io.dtype));
                }
            }
        }
        for output in 0..program.outputs.len() {
            let in_pass = program.passes.iter().any(|pass| pass.outputs.contains(&output));
            if self.targets[output].is_none() && in_pass {
                continue;
            }
            let tensor = TensorId::Output(output);
            if self.targets[output].is_some() {
                let kept = self.outputs[output];
                let footprint = footprint(self.geometry, &kept);
                rest.push((Traffic { tensor, footprint, reads: 1, writes: 0 }, kept.dtype));
            }
            let reads = u32::from(self.modes[output] == Mode::Accumulate);
            rest.push((Traffic { tensor, footprint: print(tensor), reads, writes: 1 }, target(output).dtype));
        }
        let settles = steps.iter().filter(|step| matches!(step, Step::Settle { .. })).count();
        Facts { passes, rest, widened, settles, bytes: bytes_moved(program, self.geometry.rows, &print) }
    }
}

impl Facts {
    /// The whole choice, a paragraph a pass.
    pub fn explain(&self, program: &Program, geometry: &Geometry, adapter: &str, work_words: u64) -> String {
        let mut text = match program.has_rows() {
            true => format!("{}: {} rows of {} columns", program.name, geometry.rows, geometry.cols),
            false => format!("{}: {} elements", program.name, geometry.cols),
        };
        let _ = writeln!(text, ", on {adapter}");
        for (place, (facts, pass)) in self.passes.iter().zip(&program.passes).enumerate() {
            let PassFacts { schedule, chunks, dispatches: [own, sums], .. } = facts;
            let _ = writeln!(text, "pass {place}: {} ({})", schedule_text(schedule), schedule.why);
            let mut line = vec![
                count(pass.stages.len(), "row stage", "row stages"),
                count(pass.totals.len(), "sum", "sums"),
                count(*chunks, "chunk", "chunks"),
                count(*own, "dispatch", "dispatches"),
            ];
            if *sums > 0 {
                line.push(format!("{} for the sums", count(*sums, "dispatch", "dispatches")));
            }
            let _ = writeln!(text, "    {}", line.join(", "));
            table(&mut text, program, &facts.tensors);
        }
        if !self.rest.is_empty() {
            let what = match self.settles {
                0 => "besides: scalars and reduced outputs".to_owned(),
                n => {
                    let dispatches = count(n, "dispatch", "dispatches");
                    format!("besides: scalars, reduced outputs, and gradients kept in f32 until now; {dispatches}")
                }
            };
            let _ = writeln!(text, "{what}");
            table(&mut text, program, &self.rest);
        }
        let all = || self.passes.iter().flat_map(|facts| &facts.tensors).chain(&self.rest).map(|(visits, _)| visits);
        let moved: u64 = all().map(Traffic::bytes).sum();
        let again: u64 = all().map(Traffic::bytes_read_again).sum();
        let besides = self.widened + self.settles;
        let dispatches = besides + self.passes.iter().map(|f| f.dispatches.iter().sum::<usize>()).sum::<usize>();
        let times = moved as f64 / self.bytes.max(1) as f64;
        let _ = writeln!(text, "must move  {:>17} B  inputs once, outputs once", grouped(self.bytes));
        let _ = write!(text, "does move  {:>17} B  {times:.2} times that", grouped(moved));
        if again > 0 {
            let _ = write!(text, "; {} B of it are read again, which a cache may serve", grouped(again));
        }
        let _ =
            writeln!(text, "\nworkspace  {:>17} B  sums and states; {dispatches} dispatches", grouped(4 * work_words));
        text
    }
}

/// One line for each tensor: name, type, trips, bytes.
fn table(text: &mut String, program: &Program, tensors: &[(Traffic, DType)]) {
    let name = |tensor| match tensor {
        TensorId::Input(place) => program.inputs[place].name.clone(),
        TensorId::Output(output) => output_name(program, &program.outputs[output].target),
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
