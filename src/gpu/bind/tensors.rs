//! The tensors of a bound plan: found by name, checked against the plan, made where none was given.

use crate::codegen::Mode;
use crate::error::{Error, Result};
use crate::expr::InputDecl;
use crate::gpu::bind::Bindings;
use crate::gpu::plan::Plan;
use crate::gpu::tensor::Tensor;
use crate::loss::check_once;
use crate::lower::Target;
use crate::plan::check::{check_input, check_written, missing, mode_of};
use crate::plan::compiled::Io;
use crate::plan::explain::output_name;
use crate::shape::Geometry;

impl Io {
    pub(crate) fn of(tensor: &Tensor) -> Io {
        let whole_vectors = tensor.has_whole_vectors();
        Io { layout: tensor.layout().clone(), dtype: tensor.dtype(), offset: tensor.offset(), whole_vectors }
    }
}

impl Plan {
    pub(crate) fn bound_inputs(&self, bindings: &Bindings) -> Result<Vec<Option<Tensor>>> {
        let inner = &self.inner;
        let known = inner.compiled.loss.inputs();
        check_once("input", bindings.inputs.iter().map(|i| i.0.as_str()))?;
        bindings.check_context(&inner.ctx)?;
        for (name, tensor) in &bindings.inputs {
            check_input(&inner.compiled.program.name, &known, name, tensor.dtype())?;
            if !inner.compiled.program.inputs.iter().any(|i| i.name == *name) {
                let what = "the plan was made without the input".to_owned();
                let planned: Vec<&str> = inner.compiled.program.inputs.iter().map(|i| i.name.as_str()).collect();
                return Err(Error::Name { what, name: name.clone(), known: planned.join(", ") });
            }
        }
        let mut all = Vec::new();
        for decl in &inner.compiled.program.inputs {
            let given = bindings.inputs.iter().find(|(name, _)| *name == decl.name);
            let Some((_, tensor)) = given else {
                let names = bindings.inputs.iter().map(|i| i.0.as_str());
                return Err(missing(&inner.compiled.program.name, &decl.name, names));
            };
            self.check_capacity(decl, tensor)?;
            all.push(Some(tensor.clone()));
        }
        Ok(all)
    }

    /// As planned, but for fewer along the first axis.
    fn check_capacity(&self, decl: &InputDecl, tensor: &Tensor) -> Result<()> {
        let Some((_, dtype, planned)) = self.inner.compiled.spec.inputs.iter().find(|(name, ..)| *name == decl.name)
        else {
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

    /// Every tensor that is bound as an output is for one that the plan makes, and the only one for it.
    fn check_outputs_are_planned(&self, bindings: &Bindings) -> Result<()> {
        let wanted = &self.inner.compiled.spec.wanted;
        let planned = |what: &str, given: &[(String, Tensor)], planned: &[String]| {
            check_once(what, given.iter().map(|g| g.0.as_str()))?;
            match given.iter().find(|(name, _)| !planned.contains(name)) {
                None => Ok(()),
                Some((name, _)) => {
                    let (what, known) = (format!("the plan makes no {what}"), planned.join(", "));
                    Err(Error::Name { what, name: name.clone(), known })
                }
            }
        };
        planned("gradient of", &bindings.grads, &wanted.grads)?;
        planned("Hessian diagonal of", &bindings.hessian_diagonals, &wanted.hessian_diagonals)?;
        planned("extra output", &bindings.extras, &wanted.extras)?;
        let losses: Vec<(String, Tensor)> = bindings.losses.iter().map(|t| ("loss".to_owned(), t.clone())).collect();
        let loss = wanted.loss.then(|| "loss".to_owned());
        planned("output", &losses, loss.as_slice())
    }

    pub(crate) fn bound_outputs(
        &self,
        bindings: &Bindings,
        inputs: &[Option<Tensor>],
        geometry: &Geometry,
    ) -> Result<Vec<Tensor>> {
        let inner = &self.inner;
        let program = &inner.compiled.program;
        let find = |all: &[(String, Tensor)], place: usize| {
            all.iter().find(|(name, _)| *name == program.inputs[place].name).map(|(_, t)| t.clone())
        };
        self.check_outputs_are_planned(bindings)?;
        let mut outputs = Vec::new();
        for (o, output) in program.outputs.iter().enumerate() {
            let name = output_name(program, &output.target);
            let mode = mode_of(program, &inner.compiled.spec, o);
            let given = match output.target {
                Target::Loss => bindings.losses.first().cloned(),
                Target::Denominator => None,
                Target::Extra(ref name) => {
                    bindings.extras.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.clone())
                }
                Target::Grad(place) => match (find(&bindings.grads, place), mode) {
                    (None, Mode::InPlace(_)) => inputs[place].clone(),
                    (given, _) => given,
                },
                Target::HessianDiagonal(place) => find(&bindings.hessian_diagonals, place),
            };
            let shape = match output.target {
                Target::Grad(place) | Target::HessianDiagonal(place) => match &inputs[place] {
                    Some(input) => input.shape().to_vec(),
                    None => inner.compiled.shape_of(o, geometry),
                },
                _ => inner.compiled.shape_of(o, geometry),
            };
            let Some(tensor) = given else {
                if mode == Mode::Accumulate {
                    let what = "an accumulated output must be bound".to_owned();
                    return Err(Error::Name { what, name, known: "none given".to_owned() });
                }
                outputs.push(Tensor::zeros(&inner.ctx, inner.compiled.dtype_of(o), &shape)?);
                continue;
            };
            if tensor.dtype() != inner.compiled.dtype_of(o) {
                let (expected, found) = (inner.compiled.dtype_of(o).to_string(), tensor.dtype().to_string());
                return Err(Error::DType { input: name, expected, found });
            }
            let one = shape.iter().product::<usize>() == 1 && tensor.layout().len() == 1;
            if tensor.shape() != shape && !one {
                return Err(Error::Shape {
                    input: name,
                    expected: format!("{shape:?}"),
                    found: tensor.shape().to_vec(),
                });
            }
            check_written(&name, tensor.layout())?;
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
    pub(crate) fn check_aliases(&self, inputs: &[Option<Tensor>], outputs: &[Tensor]) -> Result<bool> {
        let program = &self.inner.compiled.program;
        let mut pooled = false;
        let mut earlier: Vec<(String, &Tensor, Option<usize>)> = Vec::new();
        for (place, tensor) in inputs.iter().enumerate() {
            if let Some(tensor) = tensor {
                earlier.push((program.inputs[place].name.clone(), tensor, Some(place)));
            }
        }
        for (o, tensor) in outputs.iter().enumerate() {
            let name = output_name(program, &program.outputs[o].target);
            let over = match mode_of(program, &self.inner.compiled.spec, o) {
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
