//! What an operator over sequences plans from: its tensors, its outputs, a device's limits.

use super::space::Sizes;
use crate::dispatch::{Mode, OutputKind, Region, Signature, Slot};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::plan::operator::{Placed, Tensors};
use crate::schedule::SOFTWARE_ITERATIONS;

/// A problem of an operator over sequences.
pub(super) struct Problem<'a> {
    pub name: &'static str,
    pub limits: &'a Limits,
    pub signature: &'a Signature,
    pub tensors: &'a Tensors,
    /// Whether some buffer is both read and written.
    pub pooled: bool,
    /// Sizes of the tensors, and those that the plan was made for.
    pub sizes: Sizes,
    pub capacity: Sizes,
}

/// An output that is asked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub index: usize,
    pub placed: &'a Placed,
    pub mode: Mode,
}

impl<'a> Problem<'a> {
    pub fn input(&self, index: usize) -> &'a Placed {
        self.tensors.inputs[index].as_ref().expect("every input of the operator is bound")
    }

    pub fn output(&self, kind: &OutputKind) -> Option<Wanted<'a>> {
        let index = self.signature.outputs.iter().position(|output| output.kind == *kind)?;
        Some(Wanted { index, placed: &self.tensors.outputs[index], mode: self.signature.outputs[index].mode })
    }

    pub fn grad(&self, input: usize) -> Option<Wanted<'a>> {
        self.output(&OutputKind::Grad(input))
    }

    /// First element of a tensor in a binding of all of it.
    pub fn first(&self, placed: &Placed) -> u64 {
        placed.offset % (u64::from(self.limits.offset_alignment) / placed.dtype.size())
    }

    /// The declaration's access of a tensor that kernels only read.
    pub fn access(&self) -> &'static str {
        if self.pooled { "read_write" } else { "read" }
    }

    /// All of an input, only read.
    pub fn read(&self, input: usize) -> Region {
        region(Slot::Input(input), self.pooled)
    }

    /// Invocations of a workgroup over this many items: a power of two; a vector of one core, or whole subgroups.
    /// `iterations` are those of all loops together that one invocation would take by itself.
    ///
    /// # Errors
    /// [`Error::Limit`] where a software driver would stop the loops of the largest workgroup.
    pub fn workgroup(&self, items: u64, iterations: u64) -> Result<u32> {
        let most = self.limits.invocations();
        if !self.limits.software {
            return Ok((items.clamp(32, 256) as u32).next_power_of_two().min(most));
        }
        let needed = iterations.div_ceil(SOFTWARE_ITERATIONS).next_power_of_two();
        if needed > u64::from(most) {
            let (what, limit) = (format!("a row of {}", self.name), "max_compute_invocations_per_workgroup");
            return Err(Error::Limit { what, needed, allowed: u64::from(most), limit });
        }
        Ok((needed as u32).max(8).min(most))
    }

    /// Frames per dispatch; `iterations` is the number of loop iterations of one invocation per frame.
    pub fn segment_frames(&self, iterations: u64) -> u64 {
        if self.limits.software { (SOFTWARE_ITERATIONS / (iterations + 2)).max(1) } else { u64::from(u32::MAX >> 8) }
    }

    /// Items of each workgroup of such a grid.
    pub fn rounds(&self, items: u64) -> u64 {
        items.div_ceil(self.grid(items).max(1))
    }

    /// Workgroups of a grid over this many items.
    pub fn grid(&self, items: u64) -> u64 {
        items.min(u64::from(self.limits.workgroups))
    }
}

/// All of a buffer.
pub(super) fn region(slot: Slot, writes: bool) -> Region {
    Region { slot, writes, bytes: None }
}
