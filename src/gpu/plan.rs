//! Plans: what a loss is compiled to for shapes, and the host's checks of the tensors that are bound to it.

use super::check::{check_grad_dtype, check_in_place, check_input, missing, mode_of};
use super::context::Context;
use super::explain::output_name;
use super::pipeline::Pipeline;
use super::problem::{Place, Problem, Second, Shard, Staging, Step};
use super::resolve::{Resolved, resolve};
use super::spec::PlanSpec;
use super::tensor::Tensor;
use super::tuning::Tuning;
use crate::codegen::Mode;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::expr::{InputDecl, Scope};
use crate::geometry::{Geometry, Layout, Part};
use crate::loss::Loss;
use crate::lower::{Columns, Program, Target, lower, lower_columns};
use crate::schedule::{Force, forward_and_backward, split_outputs};
use std::sync::{Arc, Mutex};

/// A loss compiled for shapes: program, pipelines, workspace. Made once, bound to as many buffers as you like.
#[derive(Clone)]
pub struct Plan {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub ctx: Context,
    pub loss: Loss,
    pub spec: PlanSpec,
    pub program: Program,
    pub staging: Staging,
    /// Shared with the plans that tuning made of this one.
    work: Arc<Mutex<Option<wgpu::Buffer>>>,
    /// What tuning chose, where the tensors allow it.
    preferred: Option<Force>,
    pub tuning: Option<Tuning>,
    explained: String,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("loss", &self.inner.loss.name()).finish_non_exhaustive()
    }
}

/// A tensor's part before it is bound: its layout, its type, and where it lies in its buffer.
pub(super) struct Io {
    pub layout: Layout,
    pub dtype: DType,
    /// First element in the buffer.
    offset: u64,
    /// Whether the buffer holds the last vector of four elements.
    whole_vectors: bool,
}

impl Io {
    /// As a tensor that wgloss makes.
    fn planned(layout: Layout, dtype: DType) -> Io {
        Io { layout, dtype, offset: 0, whole_vectors: true }
    }

    pub fn of(tensor: &Tensor) -> Io {
        let whole_vectors = tensor.has_whole_vectors();
        Io { layout: tensor.layout().clone(), dtype: tensor.dtype(), offset: tensor.offset(), whole_vectors }
    }
}

/// What is bound: by place in the program's inputs and outputs.
pub(super) struct BoundIo {
    pub inputs: Vec<Option<Io>>,
    pub outputs: Vec<Io>,
}

impl Context {
    /// Compiles a loss for shapes: lowers, schedules, makes the pipelines.
    ///
    /// # Errors
    /// Everything that [`Error`] names for shapes, element types, parameters and limits; nothing is encoded.
    pub fn plan(&self, loss: &Loss, spec: &PlanSpec) -> Result<Plan> {
        let name = loss.name();
        let known = loss.inputs();
        for (input, dtype, _) in &spec.inputs {
            check_input(&name, &known, input, *dtype)?;
        }
        for input in known.iter().filter(|i| !i.optional) {
            if !spec.inputs.iter().any(|(name, ..)| *name == input.name) {
                return Err(missing(&name, &input.name, spec.inputs.iter().map(|i| i.0.as_str())));
            }
        }
        let present =
            |input: &str| spec.inputs.iter().find(|(name, ..)| name == input).map(|(_, dtype, _)| *dtype == DType::U32);
        let program = lower(loss, &spec.wanted, &present)?;
        for (input, dtype) in &spec.grad_dtypes {
            check_grad_dtype(spec, input, *dtype)?;
        }
        let mut plan = Inner {
            ctx: self.clone(),
            loss: loss.clone(),
            spec: spec.clone(),
            program,
            staging: Staging { shard: spec.shard, part: spec.shard.is_some(), forward: None },
            work: Arc::default(),
            preferred: None,
            tuning: None,
            explained: String::new(),
        };
        plan.check_shard()?;
        if plan.staging.part || plan.has_rows_larger_than_a_binding()? {
            plan.program = lower_columns(loss, &spec.wanted, &present, Columns::Part)?;
            plan.staging.part = true;
        }
        plan.arrange_passes()?;
        plan.warm()?;
        Ok(Plan { inner: Arc::new(plan) })
    }
}

impl Inner {
    fn check_shard(&self) -> Result<()> {
        let Some(Shard { first, classes, shards }) = self.spec.shard else { return Ok(()) };
        let name = &self.program.name;
        if !self.program.has_rows() {
            let message = format!("a shard of {name}, which has no classes");
            return Err(Error::Unsupported { message });
        }
        let cols = self.geometry(&self.planned_inputs(), &[])?.cols;
        let fits = first.checked_add(cols).is_some_and(|end| end <= classes) && classes <= i32::MAX as u64;
        if fits && shards > 0 {
            return Ok(());
        }
        let found = format!("{cols} classes from {first} of {classes} in {shards} shards");
        let allowed = "columns inside the classes, at least one shard, at most 2³¹ − 1 classes".to_owned();
        Err(Error::Param { loss: name.clone(), param: "shard".to_owned(), found, allowed })
    }

    /// Then no dispatch has a whole row before it.
    fn has_rows_larger_than_a_binding(&self) -> Result<bool> {
        let BoundIo { inputs, outputs } = self.planned()?;
        let geometry = self.geometry(&inputs, &outputs)?;
        let limits = self.ctx.limits();
        let tensors = inputs.iter().flatten().chain(&outputs);
        let is_larger = |(io, strides): (&Io, &[u64; 4])| {
            let row = io.dtype.size() * ((geometry.cols - 1) * strides[3] + 1);
            row + u64::from(limits.offset_alignment) + 16 > limits.binding_bytes
        };
        Ok(self.program.has_rows() && tensors.zip(&geometry.strides).any(is_larger))
    }

    /// Passes as the device's limits and the plan's parts want them.
    fn arrange_passes(&mut self) -> Result<()> {
        let (program, limits) = (&self.program, self.ctx.limits());
        let in_place: Vec<usize> = (0..program.outputs.len())
            .filter(|&o| matches!(mode_of(program, &self.spec, o), Mode::InPlace(_)))
            .collect();
        if self.spec.shard.is_some() || self.spec.separate_backward {
            let (program, forward) = forward_and_backward(program, limits, &in_place, self.spec.shard.is_some())?;
            (self.program, self.staging.forward) = (program, Some(forward));
        } else {
            self.program = split_outputs(program, limits, &in_place)?;
        }
        check_in_place(&self.program, &in_place)
    }

    /// The inputs that the specification describes, by their places in the program.
    fn planned_inputs(&self) -> Vec<Option<Io>> {
        let planned = |decl: &InputDecl| {
            let given = self.spec.inputs.iter().find(|(name, ..)| *name == decl.name);
            given.map(|(_, dtype, layout)| Io::planned(layout.clone(), *dtype))
        };
        self.program.inputs.iter().map(planned).collect()
    }

    /// How an output is stored: a gradient as its input, or as the plan's specification says; the rest in f32.
    pub fn dtype_of(&self, output: usize) -> DType {
        let Target::Grad(place) = self.program.outputs[output].target else { return DType::F32 };
        let name = &self.program.inputs[place].name;
        let asked = self.spec.grad_dtypes.iter().rev().find(|(input, _)| input == name).map(|(_, dtype)| *dtype);
        let own = || self.spec.inputs.iter().find(|(input, ..)| input == name).map(|(_, dtype, _)| *dtype);
        asked.or_else(own).unwrap_or(DType::F32)
    }

    pub fn shape_of(&self, output: usize, geometry: &Geometry) -> Vec<usize> {
        let output = &self.program.outputs[output];
        match output.target {
            Target::Loss | Target::Extra(_) => geometry.shape_of(output.scope),
            Target::Denominator => Vec::new(),
            Target::Grad(place) | Target::HessianDiagonal(place) => {
                let name = &self.program.inputs[place].name;
                match self.spec.inputs.iter().find(|(input, ..)| input == name) {
                    Some((.., layout)) => layout.shape.clone(),
                    None => geometry.shape_of(self.program.inputs[place].scope),
                }
            }
        }
    }

    /// Geometry from the inputs' layouts, then from the outputs' as well.
    pub fn geometry(&self, inputs: &[Option<Io>], outputs: &[Io]) -> Result<Geometry> {
        let program = &self.program;
        let mut parts = Vec::new();
        for (decl, io) in program.inputs.iter().zip(inputs) {
            if let Some(io) = io {
                parts.push(Part { name: &decl.name, scope: decl.scope, layout: &io.layout });
            }
        }
        for (output, io) in program.outputs.iter().zip(outputs) {
            let (name, scope) = match output.target {
                Target::Loss => ("loss", output.scope),
                Target::Extra(ref name) => (name.as_str(), output.scope),
                Target::Denominator => ("denominator", Scope::Total),
                Target::Grad(place) | Target::HessianDiagonal(place) => {
                    (program.inputs[place].name.as_str(), program.inputs[place].scope)
                }
            };
            parts.push(Part { name, scope, layout: &io.layout });
        }
        Geometry::new(program.row_axis, &parts)
    }

    /// The same for another schedule: one that is insisted on, or what tuning found.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn scheduled(&self, insisted: Force, tuned: Option<(Force, Tuning)>) -> Result<Inner> {
        let (preferred, tuning) = tuned.unzip();
        let mut other = Inner {
            ctx: self.ctx.clone(),
            loss: self.loss.clone(),
            spec: self.spec.clone().force(insisted),
            program: self.program.clone(),
            staging: self.staging,
            work: self.work.clone(),
            preferred,
            tuning,
            explained: String::new(),
        };
        other.warm()?;
        Ok(other)
    }

    /// The tensors that the plan was made for, contiguous where nothing else was said.
    pub fn planned(&self) -> Result<BoundIo> {
        let mut inputs = self.planned_inputs();
        let geometry = self.geometry(&inputs, &[])?;
        for (decl, io) in self.program.inputs.iter().zip(&mut inputs) {
            // The upstream gradient is shaped as the loss; it need not be described.
            let layout = || Layout::contiguous(&geometry.shape_of(decl.scope));
            io.get_or_insert_with(|| Io::planned(layout(), DType::F32));
        }
        let output = |o: usize| match mode_of(&self.program, &self.spec, o) {
            // Where the input is, however that is laid out.
            Mode::InPlace(place) => {
                let input = inputs[place].as_ref().expect("every input has a layout by now");
                Io::planned(input.layout.clone(), input.dtype)
            }
            _ => Io::planned(Layout::contiguous(&self.shape_of(o, &geometry)), self.dtype_of(o)),
        };
        let outputs: Vec<Io> = (0..self.program.outputs.len()).map(output).collect();
        self.check_bytes(&inputs, &outputs)?;
        Ok(BoundIo { inputs, outputs })
    }

    /// Pipelines of the shapes that the plan was made for.
    fn warm(&mut self) -> Result<()> {
        let (geometry, resolved) = self.resolve(&self.planned()?, false)?;
        for step in &resolved.steps {
            self.pipeline(step)?;
        }
        self.explained = self.explain(&geometry, &resolved);
        Ok(())
    }

    pub fn check_bytes(&self, inputs: &[Option<Io>], outputs: &[Io]) -> Result<()> {
        let allowed = self.ctx.limits().buffer_bytes;
        let names = self.program.inputs.iter().map(|i| i.name.clone());
        let inputs = names.zip(inputs).filter_map(|(name, io)| io.as_ref().map(|io| (name, io)));
        let outputs = outputs.iter().zip(&self.program.outputs);
        let outputs = outputs.map(|(io, output)| (output_name(&self.program, &output.target), io));
        for (name, io) in inputs.chain(outputs) {
            let needed = io.dtype.size() * io.layout.extent();
            if needed > allowed {
                let what = format!("tensor `{name}`");
                return Err(Error::Limit { what, needed, allowed, limit: "max_buffer_size" });
            }
        }
        Ok(())
    }

    /// The dispatches for these tensors. Those that the tuned schedule cannot take get the default.
    pub fn resolve(&self, io: &BoundIo, pooled: bool) -> Result<(Geometry, Resolved)> {
        let tuned = self.preferred.and_then(|force| self.resolve_with(io, pooled, force).ok());
        tuned.map_or_else(|| self.resolve_with(io, pooled, self.spec.force), Ok)
    }

    fn resolve_with(&self, io: &BoundIo, pooled: bool, force: Force) -> Result<(Geometry, Resolved)> {
        let program = &self.program;
        let limits = self.ctx.limits();
        let geometry = self.geometry(&io.inputs, &io.outputs)?;
        let mut strides = geometry.strides.iter();
        let alignment = u64::from(limits.offset_alignment);
        let mut place = |io: &Io| Place {
            strides: *strides.next().expect("every tensor has strides of the geometry"),
            offset: io.offset,
            first: io.offset % (alignment / io.dtype.size()),
            dtype: io.dtype,
            whole_vectors: io.whole_vectors,
        };
        let inputs: Vec<Option<Place>> = io.inputs.iter().map(|io| io.as_ref().map(&mut place)).collect();
        let outputs: Vec<Place> = io.outputs.iter().map(place).collect();
        let modes: Vec<Mode> = (0..program.outputs.len()).map(|o| mode_of(program, &self.spec, o)).collect();
        let targets = vec![None; outputs.len()];
        let group_rows = self.spec.group_rows.unwrap_or((geometry.rows / geometry.batch).max(1));
        if group_rows == 0 {
            let (loss, param) = (program.name.clone(), "group_rows".to_owned());
            return Err(Error::Param { loss, param, found: "0".into(), allowed: "at least 1".into() });
        }
        let mut problem = Problem {
            program,
            geometry: &geometry,
            inputs,
            outputs,
            targets,
            modes,
            pooled,
            group_rows,
            limits,
            force,
            staging: self.staging,
        };
        let resolved = resolve(&mut problem)?;
        Ok((geometry, resolved))
    }

    pub fn pipeline(&self, step: &Step) -> Result<Arc<Pipeline>> {
        let trailing = matches!(step, Step::Kernel { second: Second::Span(_), .. });
        self.ctx.pipelines().get(self.ctx.device(), step.source(), trailing)
    }

    pub fn explain(&self, geometry: &Geometry, resolved: &Resolved) -> String {
        let chosen = resolved.facts.explain(&self.program, geometry, self.ctx.adapter_name(), resolved.work_words);
        self.tuning.as_ref().map_or(chosen.clone(), |tuning| format!("{chosen}{tuning}"))
    }

    /// The shared workspace, grown where needed; one's own where it holds states between submits.
    pub fn workspace(&self, words: u64) -> Result<wgpu::Buffer> {
        let bytes = 4 * words;
        if self.staging.forward.is_some() {
            return self.ctx.create_buffer("wgloss workspace", bytes, wgpu::BufferUsages::STORAGE);
        }
        let mut work = self.work.lock().expect("the workspace is only locked to be replaced, which does not panic");
        match &*work {
            Some(buffer) if buffer.size() >= bytes => Ok(buffer.clone()),
            _ => {
                let usage = wgpu::BufferUsages::STORAGE;
                let buffer = self.ctx.create_buffer("wgloss workspace", bytes, usage)?;
                Ok(work.insert(buffer).clone())
            }
        }
    }
}

impl Plan {
    /// What was chosen for the planned shapes and why: for each pass the schedule, how often it reads and writes each
    /// tensor, and the dispatches; for the whole plan the bytes that must move, and those that do; of a tuned plan,
    /// the candidates and their medians.
    pub fn explain(&self) -> &str {
        &self.inner.explained
    }

    /// WGSL of the kernels that run for the planned shapes, each once, in the order of their first dispatch. The first
    /// line of each says what it is.
    ///
    /// # Errors
    /// None for a plan that could be made.
    pub fn kernels(&self) -> Result<Vec<String>> {
        let (_, resolved) = self.inner.resolve(&self.inner.planned()?, false)?;
        let mut kernels: Vec<String> = Vec::new();
        for step in &resolved.steps {
            let wgsl = &step.source().wgsl;
            if !kernels.contains(wgsl) {
                kernels.push(wgsl.clone());
            }
        }
        Ok(kernels)
    }

    /// What tuning found, if the plan comes from [`Plan::tune`].
    pub fn tuning(&self) -> Option<&Tuning> {
        self.inner.tuning.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::is_gathered;

    #[test]
    fn gathered_inputs_are_known() {
        let loss = crate::losses::nll();
        let wanted = crate::lower::Wanted { loss: true, ..Default::default() };
        let program = lower(&loss, &wanted, &|name| ["input", "target"].contains(&name).then_some(false)).unwrap();
        assert!(is_gathered(&program, program.input("input").unwrap()));
    }
}
