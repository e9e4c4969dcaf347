//! The buffer of scalars. Scalar inputs of 32 bits are copied to their words, or brought there by a dispatch where nothing
//! can be copied, 16-bit ones are widened by a dispatch; the found word becomes an output. Pure.

use crate::codegen::template::{LaneReduce, Skeleton, fill_hooks};
use crate::codegen::{Slot, found, scalar_slots, scalar_values};
use crate::dispatch::{Dispatch, Note, Region};
use crate::expr::{Node, NodeId};
use crate::plan::dispatches::Builder;
use crate::plan::sizes::Known;
use crate::plan::uniform::{HALF, PLACE};
use crate::shape::DType;
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
        let words = self.group_status_word() + u64::from(problem.program.ragged.is_some());
        (words, slots.iter().enumerate().filter_map(copied).collect())
    }

    /// The word of the scalars that reports on groups of unequal length: behind all others.
    pub(crate) fn group_status_word(&self) -> u64 {
        let program = self.problem.program;
        (1 + scalar_values(program) + usize::from(program.found_inf)) as u64
    }

    /// The dispatch that says, after all gradients are stored, whether one is not finite; none where nobody asks.
    pub(crate) fn found_inf(&mut self) {
        let Some(element) = self.problem.found_inf else { return };
        let source = found(self.problem.program);
        let uniform = PLACE.fill().count("element", N::of(element));
        self.push(source, [N::of(1), N::of(1)], vec![(0, uniform.done())], Note::Found, &[]);
    }

    /// One dispatch per scalar input of 16 bits. They run before every phase, which so reads the inputs' current values.
    pub(crate) fn widen_scalars(&mut self) {
        let problem = self.problem;
        for (slot, id) in scalar_slots(problem.program).into_iter().enumerate() {
            let Node::Input(input) = *problem.program.node(id) else { continue };
            let input = input as usize;
            let Some(placed) = problem.inputs[input].filter(|placed| placed.dtype.is_packed()) else { continue };
            let scalar = Scalar { input, dtype: placed.dtype, first: placed.first, slot: slot as u64 };
            self.dispatches.push(scalar_dispatch(&problem.program.name, &scalar));
        }
    }
}

/// A scalar input as a dispatch reads it.
pub(crate) struct Scalar {
    /// Index of the input.
    pub input: usize,
    /// Of 32 bits, any type: its word is copied as it is.
    pub dtype: DType,
    /// Its element in its binding.
    pub first: u64,
    /// Its index among the scalars.
    pub slot: u64,
}

/// The dispatch that brings a scalar input to its word among the scalars, widened from 16 bits.
pub(crate) fn scalar_dispatch<N: Known>(loss: &str, scalar: &Scalar) -> Dispatch<N> {
    let Scalar { input, dtype, first, slot } = *scalar;
    let (widened, halves, title) = match dtype.is_packed() {
        true => (format!("widen_{dtype}(word, index)"), first, format!("{loss}: a scalar widened from {dtype}")),
        false => ("word".to_owned(), 2 * first, format!("{loss}: a scalar of 32 bits")),
    };
    let constants = format!("fn widen(word: u32, index: u32) -> u32 {{ return {widened}; }}\n");
    let hooks = BTreeMap::from([("constants".to_owned(), constants)]);
    let wgsl = fill_hooks(&title, Skeleton::Scalar, &[], LaneReduce::Tree, &hooks);
    let wgsl = wgsl.expect("the skeleton takes how to widen").into();
    let uniform = HALF.fill().count("element", N::of(halves)).count("slot", N::of(slot));
    let storage = vec![
        Region { slot: Slot::Input(input), writes: false, bytes: None },
        Region { slot: Slot::Scalars, writes: true, bytes: None },
    ];
    Dispatch { wgsl, grid: [N::of(1), N::of(1)], uniforms: vec![(0, uniform.done())], storage, note: Note::Widen }
}
