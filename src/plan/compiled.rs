//! A loss compiled for shapes, without a device: its program, and the dispatches for tensors of those shapes. Pure.

use crate::codegen::Mode;
use crate::error::{Error, Result};
use crate::expr::InputDecl;
use crate::limits::Limits;
use crate::loss::{Loss, check_once, check_read};
use crate::lower::{Columns, Program, Target, lower, lower_columns};
use crate::plan::check::{check_grad_dtype, check_in_place, check_input, check_written, missing, mode_of};
use crate::plan::explain::output_name;
use crate::plan::passes::{Resolved, resolve};
use crate::plan::problem::{Place, Problem, Shard, Staging};
use crate::plan::spec::PlanSpec;
use crate::schedule::{Force, forward_and_backward, split_outputs};
use crate::shape::DType;
use crate::shape::Scope;
use crate::shape::{Geometry, Layout, Operand};

/// A tensor's part before it is bound: its layout, its type, and where it lies in its buffer.
pub(crate) struct Io {
    pub layout: Layout,
    pub dtype: DType,
    /// First element in the buffer.
    pub offset: u64,
    /// Whether the buffer holds the last vector of four elements.
    pub whole_vectors: bool,
}

impl Io {
    /// As a tensor that wgloss makes.
    fn planned(layout: Layout, dtype: DType) -> Io {
        Io { layout, dtype, offset: 0, whole_vectors: true }
    }
}

/// Bytes of a buffer, at most, whatever a device says: what follows it in an address still fits 64 bits.
const MOST_BYTES: u64 = 1 << 60;

/// What is bound: by place in the program's inputs and outputs.
pub(crate) struct BoundIo {
    pub inputs: Vec<Option<Io>>,
    pub outputs: Vec<Io>,
}

/// A loss compiled for shapes.
#[derive(Clone)]
pub(crate) struct Compiled {
    pub loss: Loss,
    pub spec: PlanSpec,
    pub limits: Limits,
    pub program: Program,
    pub staging: Staging,
}

impl Compiled {
    pub fn new(loss: &Loss, spec: &PlanSpec, limits: &Limits) -> Result<Compiled> {
        limits.check()?;
        let name = loss.name();
        let known = loss.inputs();
        check_once("input of the plan", spec.inputs.iter().map(|i| i.0.as_str()))?;
        check_once("element type of a gradient", spec.grad_dtypes.iter().map(|g| g.0.as_str()))?;
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
        check_read(&name, &program.inputs, spec.inputs.iter().map(|i| i.0.as_str()))?;
        for (input, dtype) in &spec.grad_dtypes {
            check_grad_dtype(spec, input, *dtype)?;
        }
        let staging = Staging { shard: spec.shard, part: spec.shard.is_some(), forward: None };
        let mut compiled =
            Compiled { loss: loss.clone(), spec: spec.clone(), limits: limits.clone(), program, staging };
        compiled.check_shard()?;
        compiled.geometry(&compiled.planned_inputs(), &[])?.group_rows(&name, spec.group_rows)?;
        if compiled.staging.part || compiled.has_rows_larger_than_a_binding()? {
            compiled.program = lower_columns(loss, &spec.wanted, &present, Columns::Part)?;
            compiled.staging.part = true;
        }
        compiled.arrange_passes()?;
        Ok(compiled)
    }

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
        let limits = &self.limits;
        let tensors = inputs.iter().flatten().chain(&outputs);
        let is_larger = |(io, strides): (&Io, &[u64; 4])| {
            let row = io.dtype.size() * ((geometry.cols - 1) * strides[3] + 1);
            row + u64::from(limits.offset_alignment) + 16 > limits.binding_bytes
        };
        Ok(self.program.has_rows() && tensors.zip(&geometry.strides).any(is_larger))
    }

    /// Passes as the device's limits and the plan's parts want them.
    fn arrange_passes(&mut self) -> Result<()> {
        let Compiled { program, limits, .. } = &*self;
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
    pub fn planned_inputs(&self) -> Vec<Option<Io>> {
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

    /// Bytes of the uniform with the parameters.
    pub fn params_bytes(&self) -> u64 {
        16 * self.program.params.len().div_ceil(4).max(1) as u64
    }

    /// Geometry from the inputs' layouts, then from the outputs' as well.
    pub fn geometry(&self, inputs: &[Option<Io>], outputs: &[Io]) -> Result<Geometry> {
        let program = &self.program;
        let mut parts = Vec::new();
        for (decl, io) in program.inputs.iter().zip(inputs) {
            if let Some(io) = io {
                parts.push(Operand { name: &decl.name, scope: decl.scope, layout: &io.layout });
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
            parts.push(Operand { name, scope, layout: &io.layout });
        }
        Geometry::new(program.row_axis, &parts)
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
        for (output, io) in self.program.outputs.iter().zip(&outputs) {
            check_written(&output_name(&self.program, &output.target), &io.layout)?;
        }
        Ok(BoundIo { inputs, outputs })
    }

    /// Every tensor fits a buffer. After this, sums and products of one tensor's strides and sizes fit 64 bits.
    pub fn check_bytes(&self, inputs: &[Option<Io>], outputs: &[Io]) -> Result<()> {
        let allowed = self.limits.buffer_bytes.min(MOST_BYTES);
        let names = self.program.inputs.iter().map(|i| i.name.clone());
        let inputs = names.zip(inputs).filter_map(|(name, io)| io.as_ref().map(|io| (name, io)));
        let outputs = outputs.iter().zip(&self.program.outputs);
        let outputs = outputs.map(|(io, output)| (output_name(&self.program, &output.target), io));
        for (name, io) in inputs.chain(outputs) {
            let needed = io.layout.extent().saturating_add(io.offset).saturating_mul(io.dtype.size());
            if needed > allowed {
                let what = format!("tensor `{name}`");
                return Err(Error::Limit { what, needed, allowed, limit: "max_buffer_size" });
            }
        }
        Ok(())
    }

    /// The dispatches for these tensors.
    pub fn resolve(&self, io: &BoundIo, pooled: bool, force: Force) -> Result<(Geometry, Resolved)> {
        let program = &self.program;
        let limits = &self.limits;
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
        let group_rows = geometry.group_rows(&program.name, self.spec.group_rows)?;
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
}
