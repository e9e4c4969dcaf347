//! Registers that a lane of a resident row needs, for GPUs whose compilers spill to memory what does not fit.

use super::Shape;
use super::reads::{roots, visited_inputs};
use crate::expr::{Node, NodeId};
use crate::limits::Limits;
use crate::lower::{Pass, Program};
use crate::shape::Scope;
use std::collections::{BTreeMap, BTreeSet};

/// Most registers of a lane, however small its workgroup: more leave a SIMD of GCN one subgroup, one of RDNA fewer than
/// eight, and Mesa's compiler for RDNA 3 takes no more.
const MOST: u64 = 128;
/// Registers beside held elements and values: addresses, loads on their way, the row's state.
const FIXED: u64 = 30;
/// Registers in which NaN is looked for by bits.
const BITS: u64 = 6;

/// Registers that lanes need of a pass over rows, and those that they have.
///
/// The weights are fitted to what Mesa's compiler made of the catalogue's kernels for GCN, RDNA 2 and RDNA 3
/// (`benches/isa`): none of 700 kernels that spilled was taken for one that does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registers {
    /// Those of a lane in a workgroup of 1,024 invocations.
    available: u64,
    /// Needed however little is held.
    fixed: u64,
    /// Bits of a column as loaded, of all inputs.
    held_bits: u64,
    /// Values of a column that one trip computes and a later one uses as well, unpacked halves among them: a register for
    /// half of them, since others are computed again.
    shared: u64,
}

impl Registers {
    /// Those of a pass; `None` where schedules do not count them.
    pub fn of(program: &Program, pass: &Pass, shape: &Shape, limits: &Limits) -> Option<Registers> {
        let available = Some(u64::from(limits.lane_registers)).filter(|registers| *registers > 0)?;
        let trips = trips(program, pass);
        let is_of_row = |id: &NodeId| program.scope(*id) == Scope::Row;
        let row_values = program.within(pass, &roots(program, pass)).iter().filter(|id| is_of_row(id)).count();
        let most_live = trips.iter().map(|trip| most_live(program, trip)).max().unwrap_or(0);
        let held_bits = u64::from(shape.held_bits);
        // A packed column has 16 bits, another 32.
        let packed = (32 * visited_inputs(program, pass).len() as u64).saturating_sub(held_bits) / 16;
        let bits = if limits.carries_nan { 0 } else { BITS };
        let fixed = FIXED + bits + 2 * most_live as u64 + row_values as u64;
        Some(Registers { available, fixed, held_bits, shared: shared(program, pass, &trips) + packed })
    }

    /// Whether lanes of such a workgroup have registers for `elements` columns each.
    pub fn hold(&self, elements: u64, workgroup: u32) -> bool {
        let needed = self.fixed + (elements * self.held_bits).div_ceil(32) + elements * self.shared / 2;
        needed <= (self.available * 1024 / u64::from(workgroup.max(1))).min(MOST)
    }

    /// Lanes per row: `default`, or the next power of two up to `most` of which each holds its part; if none, as many as
    /// leave each streaming lane all registers that it can use, at most `default`.
    pub fn lanes(&self, [default, most]: [u32; 2], hold: impl Fn(u32) -> bool) -> u32 {
        let more = std::iter::successors(Some(default), |lanes| Some(2 * lanes)).take_while(|lanes| *lanes <= most);
        let streamed = ((self.available * 1024 / MOST) as u32).clamp(1, 1024);
        more.into_iter().find(|lanes| hold(*lanes)).unwrap_or(default.min(streamed))
    }
}

/// Operations on columns of each trip over the row: those of each stage, then those of outputs and sums.
fn trips(program: &Program, pass: &Pass) -> Vec<Vec<NodeId>> {
    let stages = pass.stages.iter().map(|stage| operands(program, &stage.reduces));
    let last = outputs(program, pass);
    stages.chain([last]).map(|roots| operations(program, &roots)).collect()
}

fn operands(program: &Program, nodes: &[NodeId]) -> Vec<NodeId> {
    nodes.iter().flat_map(|id| program.node(*id).operands()).collect()
}

/// Values that outputs store and sums add up.
fn outputs(program: &Program, pass: &Pass) -> Vec<NodeId> {
    let stored = pass.outputs.iter().map(|output| program.outputs[*output].node);
    operands(program, &pass.totals).into_iter().chain(stored).collect()
}

fn operations(program: &Program, roots: &[NodeId]) -> Vec<NodeId> {
    let is_operation = |id: &NodeId| program.scope(*id).has_columns() && matches!(program.node(*id), Node::Op(..));
    let below = program.below(roots, |id| !program.scope(id).has_columns());
    below.into_iter().filter(is_operation).collect()
}

/// Values of a trip that are needed at a time, at most: a value lives up to its last use.
fn most_live(program: &Program, trip: &[NodeId]) -> usize {
    let mut last_use = BTreeMap::new();
    for (index, user) in trip.iter().enumerate() {
        last_use.extend(program.node(*user).operands().map(|operand| (operand, index)));
    }
    let (mut live, mut most) = (BTreeSet::new(), 0);
    for (index, value) in trip.iter().enumerate() {
        live.retain(|value| last_use.get(value).is_some_and(|last| *last > index));
        if last_use.get(value).is_some_and(|last| *last > index) {
            live.insert(*value);
        }
        most = most.max(live.len());
    }
    most
}

/// Values of a column that a trip computes and a later one uses in what it computes itself.
fn shared(program: &Program, pass: &Pass, trips: &[Vec<NodeId>]) -> u64 {
    let (mut before, mut shared): (BTreeSet<NodeId>, BTreeSet<NodeId>) = Default::default();
    for (index, trip) in trips.iter().enumerate() {
        let new: Vec<NodeId> = trip.iter().filter(|id| !before.contains(id)).copied().collect();
        let roots =
            pass.stages.get(index).map_or_else(|| outputs(program, pass), |stage| operands(program, &stage.reduces));
        let used = operands(program, &new).into_iter().chain(roots);
        shared.extend(used.filter(|id| before.contains(id)));
        before.extend(new);
    }
    shared.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Loss;
    use crate::losses;
    use crate::lower::{Wanted, lower};
    use crate::schedule::{Kernel, PassSchedule, Pinned, schedule};

    /// Loss and gradient, of the inputs that the loss must have.
    fn program(loss: &Loss) -> Program {
        let inputs = loss.inputs();
        let is_given = |name: &str| inputs.iter().any(|input| input.name == name && !input.optional);
        let wanted = Wanted { loss: true, grads: vec![loss.differentiable().unwrap()], ..Wanted::default() };
        lower(loss, &wanted, &|name| is_given(name).then_some(false)).unwrap()
    }

    fn shape(cols: u64, held_bits: u32) -> Shape {
        Shape { width: 4, held_bits, ..Shape::of(4096, cols) }
    }

    fn chosen(loss: &Loss, shape: Shape, limits: &Limits) -> PassSchedule {
        let program = program(loss);
        schedule(&program, program.passes.last().unwrap(), shape, limits, Pinned::default()).unwrap()
    }

    #[test]
    fn values_that_two_trips_use_are_counted_once() {
        let of = |loss: &Loss| {
            let program = program(loss);
            let pass = program.passes.last().unwrap();
            shared(&program, pass, &trips(&program, pass))
        };
        // Each trip subtracts another maximum, or none.
        assert_eq!(of(&losses::cross_entropy()), 0);
        assert_eq!(of(&losses::log_cosh()), 1, "the difference, whose hyperbolic tangent is the gradient");
        assert!(of(&losses::kl_divergence()) > of(&losses::log_cosh()));
    }

    #[test]
    fn values_live_up_to_their_last_use() {
        let program = program(&losses::log_cosh());
        let all = trips(&program, &program.passes[0]);
        assert!(all.iter().all(|trip| (1..=trip.len()).contains(&most_live(&program, trip))));
        assert_eq!(most_live(&program, &[]), 0);
    }

    #[test]
    fn a_row_is_held_where_its_lanes_have_the_registers() {
        let loss = losses::cross_entropy();
        let program = program(&loss);
        let registers = Registers::of(&program, program.passes.last().unwrap(), &shape(32_000, 32), &Limits::VEGA10);
        let registers = registers.expect("AMD's are counted");
        assert!(registers.hold(32, 512) && !registers.hold(32, 1024), "{registers:?}");
        assert!(!registers.hold(1 << 20, 1), "a lane has no more than MOST");
        let streamed = chosen(&loss, shape(32_000, 32), &Limits::VEGA10);
        assert_eq!((streamed.kernel, streamed.lanes, streamed.workgroup), (Kernel::Row, 512, 512));
        assert_eq!(chosen(&loss, shape(32_000, 32), &Limits::NAVI21).kernel, Kernel::RowResident { trips: 8 });
    }

    #[test]
    fn more_lanes_hold_a_row_before_it_is_streamed() {
        let (few, more) = (Limits { lane_registers: 0, ..Limits::NAVI21 }, Limits::NAVI21);
        // Two inputs of bf16.
        let (loss, shape) = (losses::kl_divergence(), Shape { held_packed: true, ..shape(1000, 32) });
        let (default, counted) = (chosen(&loss, shape, &few), chosen(&loss, shape, &more));
        assert!(matches!(counted.kernel, Kernel::RowResident { .. }), "{counted:?}");
        assert!(counted.lanes > default.lanes, "{counted:?} after {default:?}");
    }

    #[test]
    fn registers_are_counted_for_amd_alone() {
        let counts = |limits: &Limits| limits.lane_registers > 0;
        let names = Limits::PRESETS.iter().filter(|(_, limits)| counts(limits)).map(|(name, _)| *name);
        assert_eq!(names.collect::<Vec<_>>(), ["navi21", "vega10"]);
        let held = chosen(&losses::cross_entropy(), shape(32_000, 32), &Limits::H100);
        assert_eq!((held.kernel, held.lanes), (Kernel::RowResident { trips: 8 }, 1024), "as measured there");
    }
}
