//! Scalar inputs of 16 bits: copies are of whole words, so a dispatch widens each to its word among the scalars. Pure.

use crate::codegen::template::{Gather, Skeleton, fill_hooks};
use crate::codegen::{Binding, KernelSource, Slot, scalar_slots};
use crate::expr::Node;
use crate::plan::problem::{Problem, Step};
use crate::plan::uniform::HalfUniform;
use bytemuck::Zeroable;
use std::collections::BTreeMap;

impl Problem<'_> {
    /// One dispatch for each of them, before every part that is encoded apart: what they hold is read now.
    pub(crate) fn widened_scalars(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (slot, id) in scalar_slots(self.program).into_iter().enumerate() {
            let Node::Input(input) = *self.program.node(id) else { continue };
            let Some(place) = self.inputs[input as usize].filter(|place| place.dtype.is_packed()) else { continue };
            let (input, dtype) = (input as usize, place.dtype);
            let constants =
                format!("fn widen(word: u32, index: u32) -> u32 {{ return widen_{dtype}(word, index); }}\n");
            let hooks = BTreeMap::from([("constants".to_owned(), constants)]);
            let title = format!("{}: a scalar widened from {dtype}", self.program.name);
            let wgsl = fill_hooks(&title, Skeleton::Scalar, 0, Gather::Tree, &hooks);
            let bindings = vec![
                Binding { slot: Slot::Input(input), writes: false, tensor: None },
                Binding { slot: Slot::Scalars, writes: true, tensor: None },
            ];
            let source = KernelSource { wgsl: wgsl.expect("the skeleton takes how to widen"), bindings };
            let uniform = HalfUniform { element: place.first as u32, slot: slot as u32, ..HalfUniform::zeroed() };
            steps.push(Step::Widen { source, uniform });
        }
        steps
    }
}
