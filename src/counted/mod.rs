//! Bytes that dispatches move, counted by running their kernels on the host: what `explain` says is held to it.
//!
//! A *trip* is all turns of one loop of a kernel, in all workgroups of a dispatch: in it each word of a buffer counts once,
//! however many lanes, rows or workgroups touch it there, and once more for each other loop that touches it; a word that a
//! loop inside touches as well counts there alone (an element at a label, of a row that is read anyway). Scalars, totals and
//! status words do not count.

mod interpreter;
mod memory;
mod tests;
mod values;

use crate::dispatch::{Dispatch, FIRST_STORAGE, OutputKind, Planned, Slot};
use crate::expr::op::Kind;
use crate::plan::operator::{Placed, Prepared, Tensors};
use crate::shape::DType;
use interpreter::{Machine, parsed};
use std::collections::HashMap;

/// The result of a plan's dispatches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counted {
    /// Bytes moved in inputs, outputs and kept gradients.
    tensors: u64,
    /// Bytes moved in the workspace, and in states that leave the device.
    workspace: u64,
    /// Trips to 16-bit tensors: in each, a word at the end of a row may count for both rows.
    trips_to_halves: u64,
    /// The first number of the first output.
    loss: f32,
}

/// Values that the inputs of a plan hold.
struct Given<'g> {
    /// Labels are below it.
    classes: u32,
    /// Offsets of groups of unequal length.
    offsets: &'g [u32],
}

/// The buffers of a plan on the host.
struct Buffers {
    words: HashMap<Slot, Vec<u32>>,
}

fn words_of(placed: &Placed) -> usize {
    ((placed.layout.extent() + placed.offset) * placed.dtype.size()).div_ceil(16) as usize * 4
}

/// Ordinary numbers of that type; labels below `classes`.
fn filled(placed: &Placed, seed: u32, classes: u32) -> Vec<u32> {
    let number = |k: u32| (k.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / (1 << 24) as f32 * 2.0 - 1.0;
    let halves =
        |k: u32, of: &dyn Fn(f32) -> u16| u32::from(of(number(2 * k))) | u32::from(of(number(2 * k + 1))) << 16;
    let word = |k: u32| match placed.dtype {
        DType::F32 => number(k).to_bits(),
        DType::F16 => halves(k, &|x| half::f16::from_f32(x).to_bits()),
        DType::BF16 => halves(k, &|x| half::bf16::from_f32(x).to_bits()),
        _ => k % classes,
    };
    (0..words_of(placed) as u32).map(word).collect()
}

impl Buffers {
    fn new(prepared: &dyn Prepared, planned: &Planned, tensors: &Tensors, given: &Given<'_>) -> Buffers {
        let mut words = HashMap::new();
        for (index, placed) in tensors.inputs.iter().enumerate() {
            let Some(placed) = placed else { continue };
            let is_groups = planned.groups.as_ref().is_some_and(|groups| groups.input == index);
            let mut own = filled(placed, 77_777_777 * index as u32 + 1, given.classes);
            if is_groups {
                own[..given.offsets.len()].copy_from_slice(given.offsets);
            }
            words.insert(Slot::Input(index), own);
        }
        for (index, placed) in tensors.outputs.iter().enumerate() {
            words.insert(Slot::Output(index), vec![0; words_of(placed)]);
        }
        for (index, output) in prepared.signature().outputs.iter().enumerate() {
            if output.kind == OutputKind::FoundInf {
                let own = words[&Slot::Output(index)].clone();
                words.insert(Slot::FoundInf, own);
            }
        }
        for kept in &planned.kept {
            words.insert(Slot::Kept(kept.output), vec![0; kept.bytes.div_ceil(16) as usize * 4]);
        }
        for (index, exchange) in planned.exchanges.iter().enumerate() {
            let own = (exchange.rows * exchange.words) as usize;
            words.insert(Slot::States(index), vec![0; own.next_multiple_of(4)]);
            words.insert(Slot::AllStates(index), vec![0; own * exchange.shards as usize + 4]);
        }
        words.insert(Slot::Workspace, vec![0; planned.workspace as usize + 4]);
        let mut scalars = vec![0; planned.scalar_words as usize + 4];
        scalars[0] = u32::MAX;
        for (input, word) in &planned.scalar_copies {
            scalars[*word as usize] = words[&Slot::Input(*input)][0];
        }
        words.insert(Slot::Scalars, scalars);
        Buffers { words }
    }

    /// Runs a dispatch and adds up what it moves.
    fn run(&mut self, dispatch: &Dispatch, params: &[u32], counted: &mut Counted, is_packed: &dyn Fn(Slot) -> bool) {
        let (module, info) = parsed(&dispatch.wgsl);
        let mut bound: HashMap<u32, Vec<u32>> =
            dispatch.uniforms.iter().map(|(binding, uniform)| (*binding, uniform.words(params))).collect();
        let lengths: HashMap<Slot, usize> = self.words.iter().map(|(slot, words)| (*slot, words.len())).collect();
        let range = |slot: Slot, bytes: Option<[u64; 2]>| {
            let len = lengths[&slot];
            let [first, end] = bytes.map_or([0, len], |bytes| bytes.map(|byte| (byte / 4) as usize));
            first..end.min(len)
        };
        for (binding, region) in (FIRST_STORAGE..).zip(&dispatch.storage) {
            bound.insert(binding, self.words[&region.slot][range(region.slot, region.bytes)].to_vec());
        }
        let mut machine = Machine::new(&module, &info, bound);
        machine.run(dispatch.grid.map(|size| size as u32));
        for (trip, touched) in machine.trips() {
            let slot = dispatch.storage[(trip.binding - FIRST_STORAGE) as usize].slot;
            let bytes = 4 * touched as u64;
            match slot {
                Slot::Scalars => {}
                Slot::Workspace | Slot::States(_) | Slot::AllStates(_) => counted.workspace += bytes,
                _ => counted.tensors += bytes,
            }
            counted.trips_to_halves += u64::from(is_packed(slot));
        }
        let mut after = machine.buffers;
        for (binding, region) in (FIRST_STORAGE..).zip(&dispatch.storage).filter(|(_, region)| region.writes) {
            let range = range(region.slot, region.bytes);
            let own = after.remove(&binding).expect("what was bound is still there");
            self.words.get_mut(&region.slot).expect("a bound buffer")[range].copy_from_slice(&own);
        }
    }
}

/// Runs all dispatches of a plan.
fn counted(prepared: &dyn Prepared, planned: &Planned, given: &Given<'_>) -> Counted {
    let tensors = prepared.planned().expect("a planned problem has tensors");
    let params = prepared.signature().params.iter().map(|param| match param.decl.kind {
        Kind::Int => param.decl.value as i64 as u32,
        _ => (param.decl.value as f32).to_bits(),
    });
    let params: Vec<u32> = params.collect();
    let mut buffers = Buffers::new(prepared, planned, &tensors, given);
    let mut counted = Counted::default();
    let dtype = |slot: Slot| match slot {
        Slot::Input(input) => tensors.inputs[input].as_ref().map(|placed| placed.dtype),
        Slot::Output(output) => Some(tensors.outputs[output].dtype),
        _ => None,
    };
    let is_packed = |slot: Slot| dtype(slot).is_some_and(DType::is_packed);
    let mut done = 0;
    for dispatch in &planned.scalars {
        buffers.run(dispatch, &params, &mut counted, &is_packed);
    }
    for (phase, &end) in planned.phases.iter().enumerate() {
        for dispatch in &planned.dispatches[done..end] {
            buffers.run(dispatch, &params, &mut counted, &is_packed);
        }
        done = end;
        if phase < planned.exchanges.len() {
            let own = buffers.words[&Slot::States(phase)].clone();
            buffers.words.get_mut(&Slot::AllStates(phase)).expect("an exchange has states")[..own.len()]
                .copy_from_slice(&own);
        }
    }
    Counted { loss: f32::from_bits(buffers.words[&Slot::Output(0)][0]), ..counted }
}
