//! The dispatches of a penalty: tensors as the device binds them, then their partial sums. Pure.

use super::{Power, PreparedPenalty};
use crate::codegen::template::fill;
use crate::dispatch::{Dispatch, Mode, Note, OutputKind, Region, Slot, Uniform};
use crate::error::{Error, Result};
use crate::plan::operator::{Placed, Tensors};
use crate::plan::uniform::{UniformType, params_uniform};
use crate::text::{put, putln};
use std::collections::BTreeMap;
use std::sync::Arc;

const SHADER: &str = include_str!("../../../shaders/penalty.wgsl");
const TENSOR: &str = include_str!("../../../shaders/penalty_tensor.wgsl");
const SUM: &str = include_str!("../../../shaders/penalty_sum.wgsl");

/// Most storage buffers per dispatch, whatever the device binds: wgpu limits buffers of all kinds together as well.
const MOST_BUFFERS: usize = 16;
/// Most tensors per dispatch.
const MOST_TENSORS: usize = 16;
/// Fewest elements per workgroup.
const CHUNK: u64 = 4096;
/// Most workgroups per dispatch; past these, each takes more elements.
const MOST_GROUPS: u64 = 1 << 14;

/// `Penalized` of `penalty.wgsl`.
static PENALIZED: UniformType = UniformType {
    words: 4 + 4 * MOST_TENSORS as u32,
    fields: &[("chunk", 0), ("first_partial", 1), ("reserved0", 2), ("reserved1", 3), ("tensors", 4)],
};

/// `Partials` of `penalty_sum.wgsl`.
static PARTIALS: UniformType =
    UniformType { words: 4, fields: &[("count", 0), ("element", 1), ("reserved0", 2), ("reserved1", 3)] };

/// One tensor of a dispatch: the indices of the input and of its gradient among inputs and outputs.
#[derive(Clone, Copy)]
pub(super) struct Penalized {
    pub input: usize,
    pub grad: Option<usize>,
}

impl PreparedPenalty {
    /// The tensors of each dispatch: as many as the device binds, beside the partial sums.
    ///
    /// # Errors
    /// [`Error::Limit`] if the device binds too few for one tensor.
    pub(super) fn dispatched(&self) -> Result<Vec<Vec<Penalized>>> {
        let outputs = &self.signature.outputs;
        let grad = |input: usize| outputs.iter().position(|output| output.kind == OutputKind::Grad(input));
        let room = (self.limits.storage_buffers as usize).min(MOST_BUFFERS).saturating_sub(1);
        let (mut all, mut taken): (Vec<Vec<Penalized>>, usize) = (Vec::new(), room);
        for input in 0..self.planned.len() {
            let tensor = Penalized { input, grad: grad(input) };
            let needed = 1 + usize::from(tensor.grad.is_some());
            if needed > room {
                let what = "a tensor, its gradient and partial sums".to_owned();
                let (needed, allowed) = (needed as u64 + 1, u64::from(self.limits.storage_buffers));
                return Err(Error::Limit { what, needed, allowed, limit: "max_storage_buffers_per_shader_stage" });
            }
            match all.last_mut().filter(|_| taken + needed <= room) {
                Some(last) => last.push(tensor),
                None => {
                    all.push(vec![tensor]);
                    taken = 0;
                }
            }
            taken += needed;
        }
        Ok(all)
    }

    /// Invocations per workgroup: a vector of one core, or a few subgroups.
    pub(super) fn workgroup(&self) -> u32 {
        let most = self.limits.invocations();
        if self.limits.software { 8.min(most) } else { 64.min(most) }
    }

    /// First element in a binding of the whole tensor.
    fn first(&self, placed: &Placed) -> u64 {
        placed.offset % u64::from(self.limits.offset_alignment / 4)
    }

    /// The dispatch over these tensors, whose partial sums follow `first_partial` others, and its number of workgroups.
    pub(super) fn dispatch(
        &self,
        penalized: &[Penalized],
        tensors: &Tensors,
        pooled: bool,
        first_partial: u64,
    ) -> Result<Dispatch> {
        let of = |tensor: &Penalized| tensors.inputs[tensor.input].as_ref().expect("every input is bound");
        let lengths: Vec<u64> = penalized.iter().map(|tensor| of(tensor).layout.len() as u64).collect();
        for (tensor, length) in penalized.iter().zip(&lengths) {
            let (needed, allowed) = (length.saturating_mul(4).saturating_add(16), self.limits.binding_bytes);
            if needed > allowed.min(1 << 32) {
                let what = format!("tensor `{}`", self.signature.inputs[tensor.input].name);
                return Err(Error::Limit { what, needed, allowed, limit: "max_storage_buffer_binding_size" });
            }
        }
        // Each tensor may have one workgroup that is not full.
        let most = MOST_GROUPS.min(u64::from(self.limits.workgroups).saturating_sub(MOST_TENSORS as u64)).max(1);
        let chunk = lengths.iter().sum::<u64>().div_ceil(most).next_multiple_of(CHUNK).max(CHUNK);
        let mut uniform = PENALIZED.fill().count("chunk", chunk).count("first_partial", first_partial);
        let mut groups = 0;
        for (k, (tensor, length)) in penalized.iter().zip(&lengths).enumerate() {
            let grad = tensor.grad.map_or(0, |grad| self.first(&tensors.outputs[grad]));
            for (component, word) in [groups, *length, self.first(of(tensor)), grad].into_iter().enumerate() {
                uniform.element("tensors", k, component, word);
            }
            groups += length.div_ceil(chunk);
        }
        let region = |slot: Slot, writes: bool| Region { slot, writes, bytes: None };
        let mut storage = vec![region(Slot::Workspace, true)];
        for tensor in penalized {
            storage.push(region(Slot::Input(tensor.input), pooled));
            storage.extend(tensor.grad.map(|grad| region(Slot::Output(grad), true)));
        }
        let hooks = BTreeMap::from([
            ("constants".to_owned(), self.constants(penalized.len())),
            ("tensors".to_owned(), self.tensors_text(penalized, pooled)),
        ]);
        let title = format!("{} of {} tensors", self.penalty.name(), penalized.len());
        let wgsl = fill(&title, SHADER, &hooks).expect("the shader takes these hooks").into();
        let uniforms = vec![(0, uniform.done()), (1, params_uniform(1))];
        Ok(Dispatch { wgsl, grid: [groups, 1], uniforms, storage, note: Note::Whole })
    }

    fn constants(&self, tensors: usize) -> String {
        let [term, slope] = match self.penalty.power {
            Power::One => ["abs(w)", "sign(w)"],
            Power::Two => ["w * w", "w"],
        };
        format!(
            "const WG: u32 = {}u;\nconst TENSORS: u32 = {tensors}u;\nfn term(w: f32) -> f32 {{ return {term}; }}\n\
             fn slope(w: f32) -> f32 {{ return {slope}; }}\n",
            self.workgroup()
        )
    }

    /// Bindings of the tensors and their gradients, and the function that adds up the terms of one of them.
    fn tensors_text(&self, penalized: &[Penalized], pooled: bool) -> String {
        let access = if pooled { "read_write" } else { "read" };
        let (mut text, mut cases, mut binding) = (String::new(), String::new(), 3);
        for (k, tensor) in penalized.iter().enumerate() {
            putln!(text, "@group(0) @binding({binding}) var<storage, {access}> w{k}: array<u32>;");
            binding += 1;
            let mut sum_text =
                TENSOR.replace("sum0", &format!("sum{k}")).replace("tensors[0]", &format!("tensors[{k}]"));
            let mut store = String::new();
            if let Some(grad) = tensor.grad {
                putln!(text, "@group(0) @binding({binding}) var<storage, read_write> d{k}: array<u32>;");
                binding += 1;
                let at = format!("d{k}[d + i]");
                let old = if self.signature.outputs[grad].mode == Mode::Accumulate { &at } else { "0u" };
                putln!(store, "            {at} = added(bits, {old});");
            }
            sum_text = sum_text.replace("            d0[d + i] = added(bits, 0u);\n", &store);
            text.push_str(&sum_text.replace("w0[", &format!("w{k}[")));
            let case = if k == 0 { "default".to_owned() } else { format!("case {k}u") };
            putln!(cases, "        {case}: {{ return sum{k}(first, end, lane); }}");
        }
        let header = "fn sum(tensor: u32, first: u32, end: u32, lane: u32) -> Sum {\n    switch tensor {\n";
        put!(text, "{header}{cases}    }}\n}}\n");
        text
    }

    /// The dispatch that makes the penalty of all partial sums; none for gradients alone.
    pub(super) fn sum(&self, tensors: &Tensors, partials: u64) -> Option<Dispatch> {
        let index = self.signature.outputs.iter().position(|output| output.kind == OutputKind::Loss)?;
        let factor = if self.penalty.power == Power::One { "1.0" } else { "0.5" };
        let accumulate = self.signature.outputs[index].mode == Mode::Accumulate;
        let constants = format!(
            "const WG: u32 = {}u;\nconst FACTOR: f32 = {factor};\nconst ACCUMULATE: bool = {accumulate};\n",
            self.workgroup()
        );
        let hooks = BTreeMap::from([("constants".to_owned(), constants)]);
        let title = format!("{}: its partial sums", self.penalty.name());
        let wgsl = fill(&title, SUM, &hooks).expect("the shader takes these hooks").into();
        let element = self.first(&tensors.outputs[index]);
        let uniform: Arc<Uniform> = PARTIALS.fill().count("count", partials).count("element", element).done();
        let region = |slot: Slot| Region { slot, writes: true, bytes: None };
        let storage = vec![region(Slot::Workspace), region(Slot::Output(index))];
        let uniforms = vec![(0, uniform), (1, params_uniform(1))];
        Some(Dispatch { wgsl, grid: [1, 1], uniforms, storage, note: Note::Whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fused::{l1_penalty, l2_penalty};
    use crate::limits::Limits;
    use crate::plan::operator::{Conditions, Operator};
    use crate::plan::spec::PlanSpec;
    use crate::shape::DType;

    #[test]
    fn word_indices_are_the_shader_compilers() {
        let spec = PlanSpec::new().input("a", DType::F32, &[2, 3]).input("b", DType::F32, &[7]).grad("b");
        let prepared = l2_penalty(1.0).prepare(&spec, &Limits::WEBGPU).unwrap();
        let planned = prepared.plan(&prepared.planned().unwrap(), Conditions::default()).unwrap();
        PENALIZED.check(&planned.dispatches[0].wgsl, "Penalized");
        PARTIALS.check(&planned.dispatches[1].wgsl, "Partials");
    }

    #[test]
    fn tensors_share_dispatches_as_bindings_allow() {
        let count = |tensors: usize, grads: bool, storage_buffers: u32| {
            let mut spec = PlanSpec::new();
            for k in 0..tensors {
                let name = format!("w{k}");
                spec = spec.input(&name, DType::F32, &[4]);
                spec = if grads { spec.grad(&name) } else { spec };
            }
            let prepared = l1_penalty(1.0).prepare(&spec, &Limits { storage_buffers, ..Limits::WEBGPU }).unwrap();
            prepared.plan(&prepared.planned().unwrap(), Conditions::default()).unwrap().dispatches.len()
        };
        assert_eq!([count(50, true, 8), count(50, false, 8)], [17 + 1, 8 + 1]);
        assert_eq!([count(50, true, 64), count(50, false, 64), count(1, true, 8)], [8 + 1, 4 + 1, 1 + 1]);
    }

    #[test]
    fn shaders_are_valid_with_their_stubs() {
        for (shader, hooks) in [(SHADER, &["constants", "tensors"][..]), (SUM, &["constants"])] {
            let stub = |name: &&str| {
                let begin = shader.split(&format!("// hook begin: {name}\n")).nth(1).unwrap();
                ((*name).to_owned(), begin.split("// hook end").next().unwrap().replace("// import tensor\n", TENSOR))
            };
            let source = fill("stub", shader, &hooks.iter().map(stub).collect()).unwrap();
            let module = naga::front::wgsl::parse_str(&source).unwrap();
            let flags = naga::valid::ValidationFlags::all();
            naga::valid::Validator::new(flags, naga::valid::Capabilities::empty()).validate(&module).unwrap();
        }
    }
}
