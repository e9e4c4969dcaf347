//! Reads and writes of a pass per tensor, and the bytes that they move. Pure.

use super::{Kernel, tensor_inputs};
use crate::expr::op::Kind;
use crate::expr::{Node, NodeId, Reduce};
use crate::lower::{Look, LookPlace, Over, Pass, Program};
use crate::shape::Scope;

/// A tensor of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorId {
    /// The input of that index.
    Input(usize),
    /// The output of that index.
    Output(usize),
}

/// Size of a tensor in memory; a broadcast value counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Number of values.
    pub values: u64,
    /// Bytes per value.
    pub value_bytes: u64,
}

/// Sizes that the traffic of a pass depends on beside its program and kernel.
#[derive(Clone, Copy)]
pub struct Footprints<'a> {
    /// Number of rows.
    pub rows: u64,
    /// Size of each tensor.
    pub of: &'a dyn Fn(TensorId) -> Footprint,
    /// Whether the output of that index is added to.
    pub accumulates: &'a dyn Fn(usize) -> bool,
}

/// The visits of one pass to one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The tensor.
    pub tensor: TensorId,
    /// Values that one visit covers: for an input read at labels only, one per row.
    pub footprint: Footprint,
    /// How often it is read.
    pub reads: u32,
    /// How often it is written.
    pub writes: u32,
}

impl Traffic {
    /// Bytes of all visits.
    pub fn bytes(&self) -> u64 {
        u64::from(self.reads + self.writes).saturating_mul(self.visit_bytes())
    }

    /// Bytes of all reads but the first, which a cache may serve.
    pub fn bytes_read_again(&self) -> u64 {
        u64::from(self.reads.saturating_sub(1)).saturating_mul(self.visit_bytes())
    }

    fn visit_bytes(&self) -> u64 {
        self.footprint.values.saturating_mul(self.footprint.value_bytes)
    }
}

/// The visits of a pass to its tensors, inputs first.
///
/// A streamed or split row is loaded once per stage that reads the input, and once more if an element output does; rows in
/// registers, and single elements, once. Row values are loaded once per dispatch; split rows take one dispatch per stage
/// and one for the outputs. Loads whose value is unused are not counted: a compiler drops them. An accumulated output is
/// read as well as written.
pub fn traffic(program: &Program, pass: &Pass, kernel: Kernel, footprints: Footprints<'_>) -> Vec<Traffic> {
    let Footprints { rows, of: footprint, accumulates } = footprints;
    let stages = pass.stages.len() as u32;
    let inputs = tensor_inputs(program, pass).into_iter().map(|input| {
        let whole = footprint(TensorId::Input(input));
        let is_element = program.inputs[input].scope.has_columns();
        let dense = loops(program, pass).iter().filter(|roots| visits(program, roots, input)).count() as u32;
        let reads = match kernel {
            Kernel::Row | Kernel::RowPairs | Kernel::RowScan { .. } | Kernel::RowSplit { .. }
                if is_element && dense > 0 =>
            {
                dense
            }
            Kernel::RowSplit { .. } => stages + 1,
            _ => 1,
        };
        let values = if program.has_rows() && is_element && dense == 0 { rows } else { whole.values };
        let footprint = Footprint { values, ..whole };
        Traffic { tensor: TensorId::Input(input), footprint, reads, writes: 0 }
    });
    let outputs = pass.outputs.iter().map(|&output| {
        let tensor = TensorId::Output(output);
        Traffic { tensor, footprint: footprint(tensor), reads: u32::from(accumulates(output)), writes: 1 }
    });
    inputs.chain(outputs).collect()
}

/// Nodes computed by each loop over a row's columns: one loop per stage, one per step that thresholds take at most, one for the
/// element outputs.
fn loops(program: &Program, pass: &Pass) -> Vec<Vec<NodeId>> {
    let is_element = |id: &NodeId| program.scope(*id).has_columns();
    let operand = |id: &NodeId| program.node(*id).operands().next().expect("a reduction has an operand");
    let is_threshold = |id: &NodeId| matches!(*program.node(*id), Node::Reduce(Reduce::Threshold(_), _));
    let looked = |place: LookPlace| {
        let looks = pass.poison.iter().flat_map(move |poison| poison.at(place));
        looks.flat_map(Look::nodes).filter(|id| is_element(id)).collect::<Vec<_>>()
    };
    let mut stages: Vec<Vec<NodeId>> = Vec::new();
    for (index, stage) in pass.stages.iter().enumerate() {
        let (thresholds, reduces): (Vec<NodeId>, Vec<NodeId>) = stage.reduces.iter().partition(|id| is_threshold(id));
        let reduced: Vec<NodeId> = reduces.iter().map(operand).chain(looked(LookPlace::Stage(index))).collect();
        if !reduced.is_empty() || stage.along.is_empty() && stage.steps == 0 {
            stages.push(reduced);
        }
        let compared: Vec<NodeId> = thresholds.iter().map(operand).collect();
        stages.extend(std::iter::repeat_n(compared, stage.steps as usize));
        for trip in &stage.along {
            stages.push(trip.nodes.iter().flat_map(|id| program.node(*id).operands()).collect());
        }
    }
    let elements: Vec<NodeId> = pass.outputs.iter().map(|&o| program.outputs[o].node).collect();
    let by_column = pass.over == Over::RowsByColumn;
    let written = by_column || pass.outputs.iter().any(|&o| program.outputs[o].scope == Scope::Element);
    let summed: Vec<NodeId> = pass.totals.iter().filter(|_| by_column).map(operand).collect();
    // Without element outputs and sums of elements there is no such loop.
    let outputs = written.then(|| {
        let gates = pass.poison.iter().filter_map(|poison| poison.gate);
        let elements = elements.into_iter().chain(summed);
        elements.into_iter().chain(gates).filter(is_element).chain(looked(LookPlace::Element)).collect()
    });
    stages.into_iter().chain(outputs).collect()
}

/// Trips over a row's columns that read a sum by column, or what a scan has left.
pub fn trips_that_read(program: &Program, pass: &Pass, sum: NodeId) -> u32 {
    let is_element = |id: NodeId| program.scope(id).has_columns();
    let stop = |id: NodeId| !is_element(id) || program.is_left(id);
    loops(program, pass).iter().filter(|roots| program.below(roots, stop).contains(&sum)).count() as u32
}

/// Whether an input is read at every column below these roots, not only at labels.
fn visits(program: &Program, roots: &[NodeId], input: usize) -> bool {
    let is_input = |id: NodeId| *program.node(id) == Node::Input(input as u32);
    let is_element = |id: NodeId| program.scope(id).has_columns();
    let stop = |id: NodeId| !is_element(id) || program.is_left(id);
    program.below(roots, stop).into_iter().any(is_input)
}

/// Bytes that a program must move: inputs once, outputs once.
pub fn bytes_moved(program: &Program, rows: u64, footprint: &dyn Fn(TensorId) -> Footprint) -> u64 {
    let read = |input: usize| {
        let is_input = |id: NodeId| *program.node(id) == Node::Input(input as u32);
        let gives_groups = program.ragged.is_some_and(|ragged| ragged.index == input);
        let used = gives_groups || program.nodes.contains(&Node::Input(input as u32));
        // An input that is only gathered from counts one element per row.
        let dense = program.nodes.iter().any(|n| !matches!(n, Node::At(..)) && n.operands().any(is_input))
            || program.outputs.iter().any(|output| is_input(output.node));
        let Footprint { values, value_bytes } = footprint(TensorId::Input(input));
        match (used, dense || program.inputs[input].kind == Kind::Int) {
            (true, true) => values.saturating_mul(value_bytes),
            (true, false) => rows.saturating_mul(value_bytes),
            _ => 0,
        }
    };
    let written = |output: usize| {
        let Footprint { values, value_bytes } = footprint(TensorId::Output(output));
        values.saturating_mul(value_bytes)
    };
    let inputs = (0..program.inputs.len()).map(read);
    inputs.chain((0..program.outputs.len()).map(written)).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses;
    use crate::lower::{Wanted, lower};

    const ROWS: u64 = 100;
    const COLS: u64 = 1000;

    fn program(loss: &crate::Loss, grads: &[&str], weighted: bool) -> Program {
        let wanted = Wanted { loss: true, grads: grads.iter().map(|g| g.to_string()).collect(), ..Wanted::default() };
        let present =
            |name: &str| (["input", "target"].contains(&name) || weighted && name == "weight").then_some(false);
        lower(loss, &wanted, &present).unwrap()
    }

    /// f32 values without broadcasting.
    fn dense(program: &Program) -> impl Fn(TensorId) -> Footprint + '_ {
        |tensor| {
            let scope = match tensor {
                TensorId::Input(input) => program.inputs[input].scope,
                TensorId::Output(output) => program.outputs[output].scope,
            };
            let values = match scope {
                Scope::Element => ROWS * COLS,
                Scope::Row => ROWS,
                Scope::Column => COLS,
                _ => 1,
            };
            Footprint { values, value_bytes: 4 }
        }
    }

    /// Reads and writes of the last pass, by name.
    fn visits_of(program: &Program, kernel: Kernel) -> Vec<(String, u32, u32, u64)> {
        let last = program.passes.last().unwrap();
        let footprints = Footprints { rows: ROWS, of: &dense(program), accumulates: &|_| false };
        let all = traffic(program, last, kernel, footprints);
        let name = |tensor| match tensor {
            TensorId::Input(input) => program.inputs[input].name.clone(),
            TensorId::Output(output) => format!("{:?}", program.outputs[output].kind),
        };
        all.iter().map(|t| (name(t.tensor), t.reads, t.writes, t.bytes())).collect()
    }

    fn visit(name: &str, reads: u32, writes: u32, bytes: u64) -> (String, u32, u32, u64) {
        (name.to_owned(), reads, writes, bytes)
    }

    const TENSOR: u64 = 4 * ROWS * COLS;

    #[test]
    fn streamed_logits_are_read_twice_and_resident_ones_once() {
        let program = program(&losses::cross_entropy(), &["input"], false);
        for (kernel, reads, labels) in
            [(Kernel::Row, 2, 1), (Kernel::RowResident { trips: 8 }, 1, 1), (Kernel::RowSplit { splits: 4 }, 2, 2)]
        {
            let want = [
                visit("input", reads, 0, u64::from(reads) * TENSOR),
                visit("target", labels, 0, u64::from(labels) * 4 * ROWS),
                visit("Grad(0)", 0, 1, TENSOR),
            ];
            assert_eq!(visits_of(&program, kernel), want, "{kernel:?}");
        }
    }

    #[test]
    fn without_a_gradient_streamed_logits_are_read_once() {
        let program = program(&losses::cross_entropy(), &[], false);
        let want = [visit("input", 1, 0, TENSOR), visit("target", 1, 0, 4 * ROWS)];
        assert_eq!(visits_of(&program, Kernel::Row), want);
    }

    #[test]
    fn elements_by_themselves_are_read_and_written_once() {
        let program = program(&losses::mse(), &["input"], false);
        let want = [visit("input", 1, 0, TENSOR), visit("target", 1, 0, TENSOR), visit("Grad(0)", 0, 1, TENSOR)];
        assert_eq!(visits_of(&program, Kernel::Elementwise), want);
    }

    #[test]
    fn each_dependent_reduction_is_another_trip() {
        let variance =
            crate::Loss::define("variance").input("input", Scope::Element).row_axis(crate::RowAxis::Last).expr(|b| {
                let r = b.input("input") - b.input("input").mean();
                (r * r).mean()
            });
        let program = program(&variance, &["input"], false);
        assert_eq!(visits_of(&program, Kernel::Row)[0], visit("input", 3, 0, 3 * TENSOR));
        assert_eq!(visits_of(&program, Kernel::RowResident { trips: 8 })[0], visit("input", 1, 0, TENSOR));
    }

    #[test]
    fn a_gathered_input_moves_one_value_a_row() {
        let program = program(&losses::nll(), &[], true);
        let want = [
            visit("target", 1, 0, 4 * ROWS),
            // One of the class weights for each row.
            visit("weight", 1, 0, 4 * ROWS),
            visit("input", 1, 0, 4 * ROWS),
        ];
        assert_eq!(visits_of(&program, Kernel::Elementwise), want);
    }

    #[test]
    fn what_is_added_to_is_read_as_well() {
        let program = program(&losses::mse(), &["input"], false);
        let pass = program.passes.last().unwrap();
        let footprints = Footprints { rows: ROWS, of: &dense(&program), accumulates: &|_| true };
        let all = traffic(&program, pass, Kernel::Elementwise, footprints);
        assert_eq!((all[2].reads, all[2].writes, all[2].bytes()), (1, 1, 2 * TENSOR));
    }

    #[test]
    fn what_must_move_counts_every_tensor_once() {
        let ce = program(&losses::cross_entropy(), &["input"], false);
        assert_eq!(bytes_moved(&ce, ROWS, &dense(&ce)), 2 * TENSOR + 4 * ROWS + 4);
        let mse = program(&losses::mse(), &["input"], false);
        assert_eq!(bytes_moved(&mse, 1, &dense(&mse)), 3 * TENSOR + 4);
    }
}
