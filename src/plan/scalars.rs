//! Scalar inputs: 32-bit ones are copied to their words, 16-bit ones are widened by a dispatch. Pure.

use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::codegen::{Binding, KernelSource, Slot, scalar_slots};
use crate::dispatch::Note;
use crate::expr::{Node, NodeId};
use crate::plan::dispatches::Builder;
use crate::plan::sizes::Known;
use crate::plan::uniform::HALF;
use std::collections::BTreeMap;

impl<N: Known> Builder<'_, '_, N> {
    /// Words of the buffer of scalars, and for each scalar input that is copied: its index, and its word there.
    pub(crate) fn scalar_copies(&self) -> (u64, Vec<(usize, u64)>) {
        let problem = self.problem;
        let slots = scalar_slots(problem.program);
        let copied = |(slot, id): (usize, &NodeId)| match *problem.program.node(*id) {
            Node::Input(input) if !problem.inputs[input as usize].is_some_and(|placed| placed.dtype.is_packed()) => {
                Some((input as usize, 1 + slot as u64))
            }
            _ => None,
        };
        (1 + slots.len().max(1) as u64, slots.iter().enumerate().filter_map(copied).collect())
    }

    /// One dispatch per scalar input of 16 bits. They run before every phase, which so reads the inputs' current values.
    pub(crate) fn widen_scalars(&mut self) {
        let problem = self.problem;
        for (slot, id) in scalar_slots(problem.program).into_iter().enumerate() {
            let Node::Input(input) = *problem.program.node(id) else { continue };
            let input = input as usize;
            let Some(placed) = problem.inputs[input].filter(|placed| placed.dtype.is_packed()) else { continue };
            let dtype = placed.dtype;
            let constants =
                format!("fn widen(word: u32, index: u32) -> u32 {{ return widen_{dtype}(word, index); }}\n");
            let hooks = BTreeMap::from([("constants".to_owned(), constants)]);
            let title = format!("{}: a scalar widened from {dtype}", problem.program.name);
            let wgsl = fill_hooks(&title, Skeleton::Scalar, 0, LaneReduce::Tree, &hooks);
            let bindings = vec![
                Binding { slot: Slot::Input(input), writes: false },
                Binding { slot: Slot::Scalars, writes: true },
            ];
            let source = KernelSource { wgsl: wgsl.expect("the skeleton takes how to widen"), bindings };
            let uniform = HALF.fill().count("element", N::of(placed.first)).count("slot", N::of(slot as u64));
            self.push(source, [N::of(1), N::of(1)], vec![(0, uniform.done())], Note::Widen, &[]);
        }
    }
}
