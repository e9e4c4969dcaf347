//! Plans and bound plans: host checks, buffers, bind groups, and the commands of a step.

use super::context::Context;
use super::pipeline::Pipeline;
use super::resolve::{Place, Problem, Resolved, Second, Step, full_strides, is_broadcast, resolve};
use super::spec::{Bindings, GradMode, PlanSpec};
use super::tensor::Tensor;
use crate::codegen::{KernelSource, Mode, Slot, scalar_slots};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::expr::{InputDecl, Node, Scope};
use crate::geometry::{Geometry, Layout, Part};
use crate::loss::{Loss, Value, check_option};
use crate::lower::{Program, Target, UPSTREAM, lower};
use crate::op::Kind;
use crate::schedule::{bytes_moved, split_outputs};
use std::fmt::Write;
use std::sync::{Arc, Mutex};

/// Alignment of uniforms in their buffer: the largest that WebGPU lets a device ask for.
const UNIFORM_STRIDE: u64 = 256;
/// What the status word holds while no label was out of range.
const NO_BAD_ROW: u32 = u32::MAX;

/// A loss compiled for shapes: program, pipelines, workspace. Made once, bound to as many buffers as you like.
#[derive(Clone)]
pub struct Plan {
    inner: Arc<Inner>,
}

struct Inner {
    ctx: Context,
    loss: Loss,
    spec: PlanSpec,
    program: Program,
    work: Mutex<Option<wgpu::Buffer>>,
    explained: String,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("loss", &self.inner.loss.name()).finish_non_exhaustive()
    }
}

/// A tensor's part before it is bound: its layout and where it lies in its buffer.
struct Io {
    layout: Layout,
    /// First element in the buffer.
    offset: u64,
}

/// What is bound: by place in the program's inputs and outputs.
struct Io2 {
    inputs: Vec<Option<Io>>,
    outputs: Vec<Io>,
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
        let in_place: Vec<usize> =
            (0..program.outputs.len()).filter(|&o| matches!(mode_of(&program, spec, o), Mode::InPlace(_))).collect();
        let program = split_outputs(&program, self.limits(), &in_place)?;
        check_in_place(&program, &in_place)?;
        let mut plan = Inner {
            ctx: self.clone(),
            loss: loss.clone(),
            spec: spec.clone(),
            program,
            work: Mutex::new(None),
            explained: String::new(),
        };
        plan.warm()?;
        Ok(Plan { inner: Arc::new(plan) })
    }
}

fn check_input(loss: &str, known: &[crate::loss::InputSpec], input: &str, dtype: DType) -> Result<()> {
    let generic = [crate::loss::SAMPLE_WEIGHT, crate::loss::MASK, UPSTREAM];
    let kind = match known.iter().find(|i| i.name == input) {
        Some(spec) => spec.kind,
        None if generic.contains(&input) => Kind::Float,
        None => {
            let all: Vec<&str> = known.iter().map(|i| i.name.as_str()).chain(generic).collect();
            let what = format!("{loss} has no input");
            return Err(Error::Name { what, name: input.to_owned(), known: all.join(", ") });
        }
    };
    let fits = if kind == Kind::Int { !dtype.is_float() } else { dtype.is_float() };
    if fits {
        return Ok(());
    }
    let expected = if kind == Kind::Int { "i32 or u32 class indices" } else { "f32" };
    Err(Error::DType { input: input.to_owned(), expected: expected.to_owned(), found: dtype.to_string() })
}

fn missing<'a>(loss: &str, input: &str, given: impl Iterator<Item = &'a str>) -> Error {
    let what = format!("{loss} needs the input");
    Error::Name { what, name: input.to_owned(), known: given.collect::<Vec<_>>().join(", ") }
}

fn mode_of(program: &Program, spec: &PlanSpec, output: usize) -> Mode {
    match &program.outputs[output].target {
        Target::Loss if spec.accumulate_loss => Mode::Accumulate,
        Target::Grad(place) => {
            let name = &program.inputs[*place].name;
            match spec.modes.iter().find(|m| m.0 == *name).map(|m| m.1) {
                Some(GradMode::InPlace) => Mode::InPlace(*place),
                Some(GradMode::Accumulate) => Mode::Accumulate,
                _ => Mode::Write,
            }
        }
        _ => Mode::Write,
    }
}

/// An input may be overwritten only by the last pass that reads it.
fn check_in_place(program: &Program, in_place: &[usize]) -> Result<()> {
    for &output in in_place {
        let Target::Grad(place) = program.outputs[output].target else { continue };
        if !matches!(program.outputs[output].scope, Scope::Element | Scope::Row) {
            let message = format!("an in-place gradient of `{}`, which is one value", program.inputs[place].name);
            return Err(Error::Unsupported { message });
        }
        let written = program.passes.iter().position(|p| p.outputs.contains(&output)).unwrap_or(0);
        let read_after =
            program.passes[written + 1..].iter().any(|p| crate::schedule::tensor_inputs(program, p).contains(&place));
        if read_after {
            let message = format!(
                "an in-place gradient of `{}`: with so many outputs a later pass must read it again; ask for fewer",
                program.inputs[place].name
            );
            return Err(Error::Unsupported { message });
        }
    }
    Ok(())
}

impl Inner {
    fn shape_of(&self, output: usize, geometry: &Geometry) -> Vec<usize> {
        let output = &self.program.outputs[output];
        match output.target {
            Target::Loss => geometry.shape_of(output.scope),
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
    fn geometry(&self, inputs: &[Option<Io>], outputs: &[Io]) -> Result<Geometry> {
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
                Target::Denominator => ("denominator", Scope::Total),
                Target::Grad(place) | Target::HessianDiagonal(place) => {
                    (program.inputs[place].name.as_str(), program.inputs[place].scope)
                }
            };
            parts.push(Part { name, scope, layout: &io.layout });
        }
        Geometry::new(program.row_axis, &parts)
    }

    /// Pipelines of the shapes that the plan was made for, contiguous where nothing else was said.
    fn warm(&mut self) -> Result<()> {
        let mut inputs: Vec<Option<Io>> = Vec::new();
        for decl in &self.program.inputs {
            let given = self.spec.inputs.iter().find(|(name, ..)| *name == decl.name);
            inputs.push(given.map(|(.., layout)| Io { layout: layout.clone(), offset: 0 }));
        }
        let geometry = self.geometry(&inputs, &[])?;
        for (decl, io) in self.program.inputs.iter().zip(&mut inputs) {
            // The upstream gradient is shaped as the loss; it need not be described.
            io.get_or_insert_with(|| Io { layout: Layout::contiguous(&geometry.shape_of(decl.scope)), offset: 0 });
        }
        let output = |o: usize| Io { layout: Layout::contiguous(&self.shape_of(o, &geometry)), offset: 0 };
        let outputs: Vec<Io> = (0..self.program.outputs.len()).map(output).collect();
        self.check_bytes(&inputs, &outputs)?;
        let (geometry, resolved) = self.resolve(&Io2 { inputs, outputs }, false)?;
        for step in &resolved.steps {
            self.pipeline(step)?;
        }
        self.explained = self.explain(&geometry, &resolved);
        Ok(())
    }

    fn check_bytes(&self, inputs: &[Option<Io>], outputs: &[Io]) -> Result<()> {
        let allowed = self.ctx.limits().binding_bytes;
        let names = self.program.inputs.iter().map(|i| i.name.clone());
        let inputs = names.zip(inputs).filter_map(|(name, io)| io.as_ref().map(|io| (name, io)));
        let outputs = outputs.iter().zip(&self.program.outputs);
        let outputs = outputs.map(|(io, output)| (output_name(&self.program, &output.target), io));
        for (name, io) in inputs.chain(outputs) {
            let needed = 4 * io.layout.extent();
            if needed > allowed {
                let what = format!("tensor `{name}`");
                return Err(Error::Limit { what, needed, allowed, limit: "max_storage_buffer_binding_size" });
            }
        }
        Ok(())
    }

    fn resolve(&self, io: &Io2, pooled: bool) -> Result<(Geometry, Resolved)> {
        let program = &self.program;
        let limits = self.ctx.limits();
        let geometry = self.geometry(&io.inputs, &io.outputs)?;
        let mut strides = geometry.strides.iter();
        let alignment = u64::from(limits.offset_alignment) / 4;
        let mut place = |offset: u64| Place { strides: *strides.next().expect("a part"), first: offset % alignment };
        let inputs: Vec<Option<Place>> = io.inputs.iter().map(|io| io.as_ref().map(|io| place(io.offset))).collect();
        let finals: Vec<Place> = io.outputs.iter().map(|io| place(io.offset)).collect();
        let modes: Vec<Mode> = (0..program.outputs.len()).map(|o| mode_of(program, &self.spec, o)).collect();
        let (mut outputs, mut targets) = (Vec::new(), Vec::new());
        for (o, output) in program.outputs.iter().enumerate() {
            let inner = matches!(output.scope, Scope::Element | Scope::Row);
            if inner && is_broadcast(program, &geometry, output.scope, &finals[o]) {
                if let Mode::InPlace(input) = modes[o] {
                    let message =
                        format!("an in-place gradient of `{}`, which is broadcast", program.inputs[input].name);
                    return Err(Error::Unsupported { message });
                }
                outputs.push(Place { strides: full_strides(program, &geometry, output.scope), first: 0 });
                targets.push(Some(finals[o]));
            } else {
                outputs.push(finals[o]);
                targets.push(None);
            }
        }
        let group_rows = self.spec.group_rows.unwrap_or((geometry.rows / geometry.batch).max(1));
        if group_rows == 0 {
            let (loss, param) = (program.name.clone(), "group_rows".to_owned());
            return Err(Error::Param { loss, param, found: "0".into(), allowed: "at least 1".into() });
        }
        let problem = Problem {
            program,
            geometry: &geometry,
            inputs,
            outputs,
            targets,
            modes,
            pooled,
            group_rows,
            limits,
            force: self.spec.force,
        };
        let resolved = resolve(&problem)?;
        Ok((geometry, resolved))
    }

    fn pipeline(&self, step: &Step) -> Result<Arc<Pipeline>> {
        let (source, trailing) = match step {
            Step::Kernel { source, second, .. } => (source, matches!(second, Second::Span(_))),
            Step::BroadcastSum { source, .. } => (source, false),
        };
        self.ctx.pipelines().get(&self.ctx, source, trailing)
    }

    fn explain(&self, geometry: &Geometry, resolved: &Resolved) -> String {
        let program = &self.program;
        let mut text = format!("{} over {} rows x {} columns\n", program.name, geometry.rows, geometry.cols);
        for (pass, (schedule, what)) in resolved.schedules.iter().zip(&program.passes).enumerate() {
            let _ = writeln!(
                text,
                "pass {pass}: {:?}, {} invocations, width {}, grid {}x{}, {} stages, {} sums, {} outputs ({})",
                schedule.kernel,
                schedule.workgroup,
                schedule.width,
                schedule.grid[0],
                schedule.grid[1],
                what.stages.len(),
                what.totals.len(),
                what.outputs.len(),
                schedule.why
            );
        }
        let _ = writeln!(
            text,
            "{} dispatches, {} bytes of workspace, {} bytes must move",
            resolved.steps.len(),
            4 * resolved.work_words,
            bytes_moved(program, geometry)
        );
        text
    }

    /// The shared workspace, grown where needed.
    fn workspace(&self, words: u64) -> Result<wgpu::Buffer> {
        let bytes = 4 * words;
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

fn output_name(program: &Program, target: &Target) -> String {
    match target {
        Target::Loss => "loss".to_owned(),
        Target::Denominator => "denominator".to_owned(),
        Target::Grad(place) => format!("gradient of {}", program.inputs[*place].name),
        Target::HessianDiagonal(place) => format!("Hessian diagonal of {}", program.inputs[*place].name),
    }
}

impl Plan {
    /// What was chosen and why: kernels, grids, bytes.
    pub fn explain(&self) -> &str {
        &self.inner.explained
    }

    /// Checks tensors, makes outputs that were not named, and makes the bind groups: once for each set of buffers.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::DType`], [`Error::Shape`], [`Error::Buffer`], [`Error::Alias`], [`Error::Limit`],
    /// [`Error::OutOfMemory`]. Nothing has been encoded then.
    pub fn bind(&self, bindings: &Bindings) -> Result<Bound> {
        let inner = &self.inner;
        let inputs = self.bound_inputs(bindings)?;
        let io = |t: &Tensor| Io { layout: t.layout().clone(), offset: t.offset() };
        let input_io: Vec<Option<Io>> = inputs.iter().map(|t| t.as_ref().map(&io)).collect();
        let geometry = inner.geometry(&input_io, &[])?;
        let outputs = self.bound_outputs(bindings, &inputs, &geometry)?;
        let output_io: Vec<Io> = outputs.iter().map(io).collect();
        inner.check_bytes(&input_io, &output_io)?;
        let pooled = self.check_aliases(&inputs, &outputs)?;
        let (geometry, resolved) = inner.resolve(&Io2 { inputs: input_io, outputs: output_io }, pooled)?;
        Maker { inner, inputs: &inputs, outputs: &outputs, geometry: &geometry }.make(self, resolved)
    }

    fn bound_inputs(&self, bindings: &Bindings) -> Result<Vec<Option<Tensor>>> {
        let inner = &self.inner;
        let known = inner.loss.inputs();
        for (name, tensor) in &bindings.inputs {
            check_input(&inner.program.name, &known, name, tensor.dtype())?;
            if !inner.program.inputs.iter().any(|i| i.name == *name) {
                let what = "the plan was made without the input".to_owned();
                let planned: Vec<&str> = inner.program.inputs.iter().map(|i| i.name.as_str()).collect();
                return Err(Error::Name { what, name: name.clone(), known: planned.join(", ") });
            }
        }
        let mut all = Vec::new();
        for decl in &inner.program.inputs {
            let given = bindings.inputs.iter().find(|(name, _)| *name == decl.name);
            let Some((_, tensor)) = given else {
                let names = bindings.inputs.iter().map(|i| i.0.as_str());
                return Err(missing(&inner.program.name, &decl.name, names));
            };
            self.check_capacity(decl, tensor)?;
            all.push(Some(tensor.clone()));
        }
        Ok(all)
    }

    /// As planned, but for fewer along the first axis.
    fn check_capacity(&self, decl: &InputDecl, tensor: &Tensor) -> Result<()> {
        let Some((_, dtype, planned)) = self.inner.spec.inputs.iter().find(|(name, ..)| *name == decl.name) else {
            return Ok(());
        };
        if *dtype != tensor.dtype() {
            let (expected, found) = (format!("{dtype}, as planned"), tensor.dtype().to_string());
            return Err(Error::DType { input: decl.name.clone(), expected, found });
        }
        let (shape, planned) = (tensor.shape(), &planned.shape);
        let fits = shape.len() == planned.len()
            && shape.iter().zip(planned).enumerate().all(|(axis, (a, b))| a == b || axis == 0 && a < b);
        if fits {
            return Ok(());
        }
        let expected = format!("{planned:?} as planned, or fewer along the first axis");
        Err(Error::Shape { input: decl.name.clone(), expected, found: shape.to_vec() })
    }

    fn bound_outputs(
        &self,
        bindings: &Bindings,
        inputs: &[Option<Tensor>],
        geometry: &Geometry,
    ) -> Result<Vec<Tensor>> {
        let inner = &self.inner;
        let program = &inner.program;
        let find = |all: &[(String, Tensor)], place: usize| {
            all.iter().find(|(name, _)| *name == program.inputs[place].name).map(|(_, t)| t.clone())
        };
        for (name, _) in bindings.grads.iter().chain(&bindings.hessian_diagonals) {
            let planned: Vec<String> = program.outputs.iter().map(|o| output_name(program, &o.target)).collect();
            let asked = inner.spec.wanted.grads.contains(name) || inner.spec.wanted.hessian_diagonals.contains(name);
            if !asked {
                let what = "the plan makes no gradient of".to_owned();
                return Err(Error::Name { what, name: name.clone(), known: planned.join(", ") });
            }
        }
        let mut outputs = Vec::new();
        for (o, output) in program.outputs.iter().enumerate() {
            let name = output_name(program, &output.target);
            let mode = mode_of(program, &inner.spec, o);
            let given = match output.target {
                Target::Loss => bindings.loss.clone(),
                Target::Denominator => None,
                Target::Grad(place) => match (find(&bindings.grads, place), mode) {
                    (None, Mode::InPlace(_)) => inputs[place].clone(),
                    (given, _) => given,
                },
                Target::HessianDiagonal(place) => find(&bindings.hessian_diagonals, place),
            };
            let shape = match output.target {
                Target::Grad(place) | Target::HessianDiagonal(place) => match &inputs[place] {
                    Some(input) => input.shape().to_vec(),
                    None => inner.shape_of(o, geometry),
                },
                _ => inner.shape_of(o, geometry),
            };
            let Some(tensor) = given else {
                if mode == Mode::Accumulate {
                    let what = "an accumulated output must be bound".to_owned();
                    return Err(Error::Name { what, name, known: "none given".to_owned() });
                }
                outputs.push(Tensor::zeros(&inner.ctx, DType::F32, &shape)?);
                continue;
            };
            if tensor.dtype() != DType::F32 {
                return Err(Error::DType { input: name, expected: "f32".into(), found: tensor.dtype().to_string() });
            }
            let one = shape.iter().product::<usize>() == 1 && tensor.layout().len() == 1;
            if tensor.shape() != shape && !one {
                return Err(Error::Shape {
                    input: name,
                    expected: format!("{shape:?}"),
                    found: tensor.shape().to_vec(),
                });
            }
            let repeats = tensor.shape().iter().zip(tensor.strides()).any(|(&size, &stride)| size > 1 && stride == 0);
            if repeats {
                let message = "is written, so none of its strides may be 0".to_owned();
                return Err(Error::Buffer { input: name, message });
            }
            if let Mode::InPlace(place) = mode {
                let input = inputs[place].as_ref().expect("an input that is overwritten is bound");
                let same = input.buffer() == tensor.buffer()
                    && (input.offset(), input.layout()) == (tensor.offset(), tensor.layout());
                if !same {
                    let message = "an in-place gradient goes where the input is; bind the same tensor, or none";
                    return Err(Error::Buffer { input: name, message: message.to_owned() });
                }
            }
            outputs.push(tensor);
        }
        Ok(outputs)
    }

    /// No written tensor may overlap another. Gives whether one buffer is both read and written at all.
    fn check_aliases(&self, inputs: &[Option<Tensor>], outputs: &[Tensor]) -> Result<bool> {
        let program = &self.inner.program;
        let mut pooled = false;
        let mut earlier: Vec<(String, &Tensor, Option<usize>)> = Vec::new();
        for (place, tensor) in inputs.iter().enumerate() {
            if let Some(tensor) = tensor {
                earlier.push((program.inputs[place].name.clone(), tensor, Some(place)));
            }
        }
        for (o, tensor) in outputs.iter().enumerate() {
            let name = output_name(program, &program.outputs[o].target);
            let over = match mode_of(program, &self.inner.spec, o) {
                Mode::InPlace(place) => Some(place),
                _ => None,
            };
            for (first, other, place) in &earlier {
                if other.buffer() != tensor.buffer() || (over.is_some() && *place == over) {
                    continue;
                }
                pooled = true;
                let (a, b) = (other.byte_range(), tensor.byte_range());
                if a.start < b.end && b.start < a.end {
                    let found = format!("{}..{} and {}..{}", a.start, a.end, b.start, b.end);
                    return Err(Error::Alias { first: first.clone(), second: name, found });
                }
            }
            earlier.push((name, tensor, None));
        }
        Ok(pooled)
    }
}

/// Makes what a bound plan holds.
struct Maker<'a> {
    inner: &'a Inner,
    inputs: &'a [Option<Tensor>],
    outputs: &'a [Tensor],
    geometry: &'a Geometry,
}

impl Maker<'_> {
    fn make(&self, plan: &Plan, resolved: Resolved) -> Result<Bound> {
        let Maker { inner, .. } = self;
        let ctx = &inner.ctx;
        let program = &inner.program;
        let slots = scalar_slots(program);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let scalars = ctx.create_buffer("wgloss scalars", 4 * (1 + slots.len().max(1) as u64), usage)?;
        ctx.queue().write_buffer(&scalars, 0, &NO_BAD_ROW.to_le_bytes());
        let work = inner.workspace(resolved.work_words)?;
        let mut copies = Vec::new();
        for (slot, id) in slots.iter().enumerate() {
            if let Node::Input(place) = *program.node(*id) {
                let tensor = self.inputs[place as usize].as_ref().expect("a scalar input is bound");
                if !tensor.buffer().usage().contains(wgpu::BufferUsages::COPY_SRC) {
                    let message = "a scalar needs BufferUsages::COPY_SRC".to_owned();
                    return Err(Error::Buffer { input: program.inputs[place as usize].name.clone(), message });
                }
                copies.push((tensor.buffer().clone(), tensor.offset() * 4, 4 * (1 + slot as u64)));
            }
        }
        // Gradients that are summed over broadcast axes afterwards are kept whole until then.
        let mut whole: Vec<Option<wgpu::Buffer>> = vec![None; self.outputs.len()];
        for step in &resolved.steps {
            if let Step::BroadcastSum { output, .. } = step {
                let values = match program.outputs[*output].scope {
                    Scope::Row => self.geometry.rows,
                    _ => self.geometry.elements(),
                };
                let usage = wgpu::BufferUsages::STORAGE;
                whole[*output] = Some(ctx.create_buffer("wgloss whole gradient", 4 * values, usage)?);
            }
        }
        let (uniforms, offsets) = self.uniforms(&resolved.steps)?;
        let mut steps = Vec::new();
        for (step, offset) in resolved.steps.iter().zip(offsets) {
            let pipeline = inner.pipeline(step)?;
            let (source, grid) = match step {
                Step::Kernel { source, grid, .. } | Step::BroadcastSum { source, grid, .. } => (source, *grid),
            };
            let storage = |place: usize, slot: Slot| match (step, slot) {
                (Step::BroadcastSum { output, .. }, _) if place == 0 => {
                    whole[*output].as_ref().expect("a whole gradient").as_entire_binding()
                }
                (Step::BroadcastSum { .. }, Slot::Output(output)) => self.binding(&self.outputs[output]),
                (_, Slot::Output(output)) => match &whole[output] {
                    Some(buffer) => buffer.as_entire_binding(),
                    None => self.binding(&self.outputs[output]),
                },
                (_, Slot::Input(input)) => self.binding(self.inputs[input].as_ref().expect("an input is bound")),
                (_, Slot::Work) => work.as_entire_binding(),
                (_, Slot::Scalars) => scalars.as_entire_binding(),
            };
            let uniform = |(offset, bytes): (u64, u64)| {
                wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &uniforms,
                    offset,
                    size: wgpu::BufferSize::new(bytes),
                })
            };
            let params = (0, self.params_bytes());
            let (second, trailing) = match step {
                Step::Kernel { second: Second::Span(_), .. } => (offset.second, Some(params)),
                Step::Kernel { .. } => (params, None),
                Step::BroadcastSum { .. } => (offset.first, None),
            };
            let mut entries = vec![
                wgpu::BindGroupEntry { binding: 0, resource: uniform(offset.first) },
                wgpu::BindGroupEntry { binding: 1, resource: uniform(second) },
            ];
            for (place, binding) in source.bindings.iter().enumerate() {
                let resource = storage(place, binding.slot);
                entries.push(wgpu::BindGroupEntry { binding: place as u32 + 2, resource });
            }
            if let Some(params) = trailing {
                let binding = source.bindings.len() as u32 + 2;
                entries.push(wgpu::BindGroupEntry { binding, resource: uniform(params) });
            }
            let group = self.bind_group(source, &pipeline, &entries)?;
            steps.push(BoundStep { pipeline, group, grid });
        }
        let labels = program.inputs.iter().position(|decl| decl.kind == Kind::Int);
        Ok(Bound {
            plan: plan.clone(),
            steps,
            copies,
            scalars,
            uniforms,
            params: Mutex::new(program.params.iter().map(|p| p.1).collect()),
            labels: labels.and_then(|place| self.inputs[place].clone()),
            classes: self.geometry.cols,
            outputs: self.outputs.to_vec(),
            bytes: bytes_moved(program, self.geometry),
            explained: inner.explain(self.geometry, &resolved),
        })
    }

    fn bind_group(
        &self,
        source: &KernelSource,
        pipeline: &Pipeline,
        entries: &[wgpu::BindGroupEntry<'_>],
    ) -> Result<wgpu::BindGroup> {
        let device = self.inner.ctx.device();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: source.wgsl.lines().next(),
            layout: &pipeline.layout,
            entries,
        });
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::Device { message: error.to_string() });
        }
        #[cfg(target_arch = "wasm32")]
        drop(scope.pop());
        Ok(group)
    }

    /// The tensor's bytes, from an aligned offset.
    fn binding<'t>(&self, tensor: &'t Tensor) -> wgpu::BindingResource<'t> {
        let alignment = u64::from(self.inner.ctx.limits().offset_alignment);
        let range = tensor.byte_range();
        let offset = range.start - range.start % alignment;
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: tensor.buffer(),
            offset,
            size: wgpu::BufferSize::new(range.end - offset),
        })
    }

    fn params_bytes(&self) -> u64 {
        16 * self.inner.program.params.len().div_ceil(4).max(1) as u64
    }

    /// One buffer with the parameters first, then each dispatch's uniforms.
    fn uniforms(&self, steps: &[Step]) -> Result<(wgpu::Buffer, Vec<Offsets>)> {
        let mut bytes: Vec<u8> = Vec::new();
        let mut push = |data: &[u8]| {
            let offset = bytes.len() as u64;
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(UNIFORM_STRIDE as usize), 0);
            (offset, data.len() as u64)
        };
        let mut params: Vec<f32> = self.inner.program.params.iter().map(|p| p.1 as f32).collect();
        params.resize(self.params_bytes() as usize / 4, 0.0);
        push(bytemuck::cast_slice(&params));
        let mut offsets = Vec::new();
        for step in steps {
            offsets.push(match step {
                Step::Kernel { shape, second, .. } => {
                    let first = push(bytemuck::bytes_of(&**shape));
                    let second = match second {
                        Second::Span(span) => push(bytemuck::bytes_of(span)),
                        Second::Params => first,
                    };
                    Offsets { first, second }
                }
                Step::BroadcastSum { axes, .. } => {
                    let first = push(bytemuck::bytes_of(axes));
                    Offsets { first, second: first }
                }
            });
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.inner.ctx.create_buffer("wgloss uniforms", bytes.len() as u64, usage)?;
        self.inner.ctx.queue().write_buffer(&buffer, 0, &bytes);
        Ok((buffer, offsets))
    }
}

/// Offset and size of a dispatch's uniforms.
struct Offsets {
    first: (u64, u64),
    second: (u64, u64),
}

struct BoundStep {
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
    grid: [u32; 2],
}

/// A plan with its buffers: records a step into any encoder of its device.
///
/// Bound plans of one [`Plan`] share a workspace, so steps run in the order in which they are recorded.
pub struct Bound {
    plan: Plan,
    steps: Vec<BoundStep>,
    /// Scalar inputs: buffer, offset there, offset in `scalars`.
    copies: Vec<(wgpu::Buffer, u64, u64)>,
    scalars: wgpu::Buffer,
    uniforms: wgpu::Buffer,
    params: Mutex<Vec<f64>>,
    labels: Option<Tensor>,
    classes: u64,
    outputs: Vec<Tensor>,
    bytes: u64,
    explained: String,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("plan", &self.plan).field("steps", &self.steps.len()).finish_non_exhaustive()
    }
}

impl Bound {
    /// Records the step: compute work only. No submit, no poll, no readback, no allocation of ours.
    ///
    /// # Errors
    /// None today; the signature leaves room for checks that must wait until now.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        for (buffer, from, to) in &self.copies {
            encoder.copy_buffer_to_buffer(buffer, *from, &self.scalars, *to, 4);
        }
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        self.encode_pass(&mut pass);
        Ok(())
    }

    fn encode_pass(&self, pass: &mut wgpu::ComputePass<'_>) {
        for step in &self.steps {
            pass.set_pipeline(&step.pipeline.pipeline);
            pass.set_bind_group(0, &step.group, &[]);
            pass.dispatch_workgroups(step.grid[0], step.grid[1], 1);
        }
    }

    /// Records and submits a step on its own.
    ///
    /// # Errors
    /// As [`Bound::encode`].
    pub fn submit(&self) -> Result<()> {
        let ctx = &self.plan.inner.ctx;
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.encode(&mut encoder)?;
        ctx.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// Sets a numeric parameter; takes effect with the next submit.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Param`] outside its domain, or where it would need another kernel (then make a
    /// new plan).
    pub fn set_param(&self, name: &str, value: f64) -> Result<()> {
        let inner = &self.plan.inner;
        let program = &inner.program;
        let Some(place) = program.params.iter().position(|p| p.0 == name) else {
            let known: Vec<&str> = program.params.iter().map(|p| p.0.as_str()).collect();
            let what = format!("{} has no parameter", program.name);
            return Err(Error::Name { what, name: name.to_owned(), known: known.join(", ") });
        };
        let mut params = self.params.lock().expect("parameters are only locked to be set, which does not panic");
        if let Some((loss, decl)) = inner.loss.param_decl(name) {
            check_option(&loss, &decl, Value::Num(value))?;
            let class = |x: f64| decl.structural.iter().position(|s| *s == x);
            if class(value) != class(params[place]) {
                let allowed = format!("a value with the same kernel as {}; make a new plan", params[place]);
                return Err(Error::Param { loss, param: name.to_owned(), found: format!("{value}"), allowed });
            }
        } else if !value.is_finite() {
            let (loss, param) = (program.name.clone(), name.to_owned());
            return Err(Error::Param { loss, param, found: format!("{value}"), allowed: "finite".to_owned() });
        }
        params[place] = value;
        inner.ctx.queue().write_buffer(&self.uniforms, 4 * place as u64, &(value as f32).to_le_bytes());
        Ok(())
    }

    /// The loss, in the shape of its reduction.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan was made without it.
    pub fn loss(&self) -> Result<&Tensor> {
        self.output(&Target::Loss)
    }

    /// What the mean divides by.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan was made without it.
    pub fn denominator(&self) -> Result<&Tensor> {
        self.output(&Target::Denominator)
    }

    /// The gradient with respect to an input.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan makes none.
    pub fn grad(&self, input: &str) -> Result<&Tensor> {
        self.output(&Target::Grad(self.place(input)?))
    }

    /// The diagonal of the Hessian with respect to an input.
    ///
    /// # Errors
    /// [`Error::Name`] if the plan makes none.
    pub fn hessian_diagonal(&self, input: &str) -> Result<&Tensor> {
        self.output(&Target::HessianDiagonal(self.place(input)?))
    }

    fn place(&self, input: &str) -> Result<usize> {
        let program = &self.plan.inner.program;
        program.input(input).ok_or_else(|| {
            let known: Vec<&str> = program.inputs.iter().map(|i| i.name.as_str()).collect();
            Error::Name { what: "the plan has no input".into(), name: input.to_owned(), known: known.join(", ") }
        })
    }

    fn output(&self, target: &Target) -> Result<&Tensor> {
        let program = &self.plan.inner.program;
        let found = program.outputs.iter().position(|o| o.target == *target);
        found.map(|o| &self.outputs[o]).ok_or_else(|| {
            let known: Vec<String> = program.outputs.iter().map(|o| output_name(program, &o.target)).collect();
            let name = output_name(program, target);
            Error::Name { what: "the plan does not make the".into(), name, known: known.join(", ") }
        })
    }

    /// Bytes that a step must move: inputs once, outputs once.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was chosen for these tensors and why.
    pub fn explain(&self) -> &str {
        &self.explained
    }

    /// Reads and clears the status word: the first row with a label out of range, since it was last read.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`], [`Error::Device`].
    pub async fn status(&self) -> Result<()> {
        let Some(labels) = &self.labels else { return Ok(()) };
        let ctx = &self.plan.inner.ctx;
        let word = ctx.read("status", &self.scalars, 0, 4).await?;
        let row: u32 = bytemuck::pod_read_unaligned(&word);
        if row == NO_BAD_ROW {
            return Ok(());
        }
        ctx.queue().write_buffer(&self.scalars, 0, &NO_BAD_ROW.to_le_bytes());
        let row = u64::from(row);
        let mut rest = row as usize;
        let mut place = labels.offset();
        for (&size, &stride) in labels.shape().iter().zip(labels.strides()).rev() {
            place += (rest % size.max(1) * stride) as u64;
            rest /= size.max(1);
        }
        let bits = ctx.read("label", labels.buffer(), 4 * place, 4).await?;
        let label = match labels.dtype() {
            DType::U32 => i64::from(bytemuck::pod_read_unaligned::<u32>(&bits)),
            _ => i64::from(bytemuck::pod_read_unaligned::<i32>(&bits)),
        };
        Err(Error::LabelOutOfRange { row, label, classes: self.classes })
    }

    /// Reads the loss back, with the status.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`], [`Error::Device`]; [`Error::Name`] if the plan was made without it.
    pub async fn read_loss_async(&self) -> Result<Vec<f32>> {
        self.status().await?;
        self.loss()?.read::<f32>(&self.plan.inner.ctx).await
    }

    /// The first value of the loss (the only one of a reduced loss). Blocks.
    ///
    /// # Errors
    /// As [`Bound::read_loss_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_loss(&self) -> Result<f32> {
        let values = pollster::block_on(self.read_loss_async())?;
        Ok(values[0])
    }

    pub(super) fn context(&self) -> &Context {
        &self.plan.inner.ctx
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
