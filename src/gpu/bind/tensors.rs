//! The tensors of a bound plan: found by name, checked against the plan, made where none was given.

use crate::dispatch::{Dispatch, Labels, Mode, OutputKind, OutputSignature, Planned, Slot};
use crate::error::{Error, Result};
use crate::gpu::bind::Bindings;
use crate::gpu::bound::status::IndexBuffer;
use crate::gpu::plan::Plan;
use crate::gpu::tensor::Tensor;
use crate::loss::check_once;
use crate::plan::check::check_written;
use crate::plan::operator::{Placed, Tensors};
use crate::shape::DType;

impl Placed {
    pub(crate) fn of(tensor: &Tensor) -> Placed {
        let whole_bytes = tensor.whole_bytes();
        Placed { layout: tensor.layout().clone(), dtype: tensor.dtype(), offset: tensor.offset(), whole_bytes }
    }
}

/// Tensors of a plan, in the order of its signature.
pub(crate) struct BoundTensors {
    pub inputs: Vec<Option<Tensor>>,
    pub outputs: Vec<Tensor>,
    /// Whether some buffer is both read and written.
    pub pooled: bool,
    /// Accumulated outputs that overlap.
    tied: Vec<Tied>,
}

/// Two accumulated outputs that overlap, as when one tensor is bound as two inputs: what each dispatch adds stays, unless
/// one dispatch adds to both.
pub(crate) struct Tied {
    outputs: [usize; 2],
    error: Error,
}

impl BoundTensors {
    /// Buffers of the label inputs.
    pub fn labels(&self, labels: &Labels) -> Vec<IndexBuffer> {
        labels.inputs.iter().map(|label| self.index_buffer(label.input)).collect()
    }

    /// The buffer of an input of indices.
    pub fn index_buffer(&self, input: usize) -> IndexBuffer {
        let tensor = self.inputs[input].as_ref().expect("every input of the plan is bound");
        IndexBuffer { buffer: tensor.buffer().clone(), offset: tensor.offset(), dtype: tensor.dtype() }
    }

    /// An error if a dispatch writes two outputs that overlap.
    pub fn check_tied(&self, planned: &Planned) -> Result<()> {
        let writes = |dispatch: &Dispatch, output: usize| {
            dispatch.storage.iter().any(|region| region.writes && region.slot == Slot::Output(output))
        };
        let both = |tied: &&Tied| planned.all().any(|d| tied.outputs.iter().all(|output| writes(d, *output)));
        match self.tied.iter().find(both) {
            None => Ok(()),
            Some(tied) => Err(tied.error.clone()),
        }
    }

    pub fn placed(&self) -> Tensors {
        Tensors { inputs: placed(&self.inputs), outputs: self.outputs.iter().map(Placed::of).collect() }
    }
}

/// A bound tensor, by its index in the signature.
enum Bound {
    Input(usize),
    Output(usize),
}

fn placed(inputs: &[Option<Tensor>]) -> Vec<Option<Placed>> {
    inputs.iter().map(|tensor| tensor.as_ref().map(Placed::of)).collect()
}

impl Plan {
    pub(crate) fn tensors(&self, bindings: &Bindings) -> Result<BoundTensors> {
        let prepared = &self.inner.prepared;
        bindings.check_context(&self.inner.ctx)?;
        let given: Vec<(&str, DType, &[usize])> =
            bindings.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.dtype(), tensor.shape())).collect();
        prepared.check_inputs(&given)?;
        let bound = |name: &String| bindings.inputs.iter().find(|given| given.0 == *name).map(|given| given.1.clone());
        let inputs: Vec<Option<Tensor>> = prepared.signature().inputs.iter().map(|input| bound(&input.name)).collect();
        self.check_outputs_are_planned(bindings)?;
        let shapes = prepared.output_shapes(&placed(&inputs))?;
        let outputs = prepared.signature().outputs.iter().zip(&shapes);
        let outputs = outputs.map(|(output, shape)| self.output(bindings, &inputs, output, shape));
        let outputs = outputs.collect::<Result<Vec<Tensor>>>()?;
        let (pooled, tied) = self.check_aliases(&inputs, &outputs)?;
        Ok(BoundTensors { inputs, outputs, pooled, tied })
    }

    /// Every bound output is one of the plan's, and bound once.
    fn check_outputs_are_planned(&self, bindings: &Bindings) -> Result<()> {
        let signature = self.inner.prepared.signature();
        let named = |name: &dyn Fn(&OutputKind) -> Option<String>| -> Vec<String> {
            signature.outputs.iter().filter_map(|output| name(&output.kind)).collect()
        };
        let input = |index: usize| Some(signature.inputs[index].name.clone());
        let grads = named(&|kind| if let OutputKind::Grad(index) = kind { input(*index) } else { None });
        let diagonals = named(&|kind| if let OutputKind::HessianDiagonal(index) = kind { input(*index) } else { None });
        let extras = named(&|kind| if let OutputKind::Extra(name) = kind { Some(name.clone()) } else { None });
        let loss = named(&|kind| (*kind == OutputKind::Loss).then(|| "loss".to_owned()));
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
        planned("gradient of", &bindings.grads, &grads)?;
        planned("Hessian diagonal of", &bindings.hessian_diagonals, &diagonals)?;
        planned("extra output", &bindings.extras, &extras)?;
        let losses: Vec<(String, Tensor)> = bindings.losses.iter().map(|t| ("loss".to_owned(), t.clone())).collect();
        planned("output", &losses, &loss)?;
        let found = named(&|kind| (*kind == OutputKind::FoundInf).then(|| "found_inf".to_owned()));
        let given: Vec<(String, Tensor)> =
            bindings.found_inf.iter().map(|t| ("found_inf".to_owned(), t.clone())).collect();
        planned("output", &given, &found)
    }

    /// The tensor of an output: the one that is bound, the input itself, or a new one.
    fn output(
        &self,
        bindings: &Bindings,
        inputs: &[Option<Tensor>],
        output: &OutputSignature,
        shape: &[usize],
    ) -> Result<Tensor> {
        let signature = self.inner.prepared.signature();
        let OutputSignature { kind, mode, dtype, .. } = output;
        let name = signature.output_name(kind);
        let find = |all: &[(String, Tensor)], name: &str| all.iter().find(|given| given.0 == name).map(|g| g.1.clone());
        let given = match kind {
            OutputKind::Loss => bindings.losses.first().cloned(),
            OutputKind::Denominator => None,
            OutputKind::FoundInf => bindings.found_inf.first().cloned(),
            OutputKind::Extra(extra) => find(&bindings.extras, extra),
            OutputKind::Grad(input) => match (find(&bindings.grads, &signature.inputs[*input].name), mode) {
                (None, Mode::InPlace(_)) => inputs[*input].clone(),
                (given, _) => given,
            },
            OutputKind::HessianDiagonal(input) => find(&bindings.hessian_diagonals, &signature.inputs[*input].name),
        };
        let Some(tensor) = given else {
            if *mode == Mode::Accumulate {
                let what = "an accumulated output must be bound".to_owned();
                return Err(Error::Name { what, name, known: "none given".to_owned() });
            }
            return Tensor::zeros(&self.inner.ctx, *dtype, shape);
        };
        if tensor.dtype() != *dtype {
            let (expected, found) = (dtype.to_string(), tensor.dtype().to_string());
            return Err(Error::DType { input: name, expected, found });
        }
        let one = shape.iter().product::<usize>() == 1 && tensor.layout().len() == 1;
        if tensor.shape() != shape && !one {
            let (expected, found) = (format!("{shape:?}"), tensor.shape().to_vec());
            return Err(Error::Shape { input: name, expected, found });
        }
        check_written(&name, tensor.layout())?;
        if let Mode::InPlace(input) = mode {
            let input = inputs[*input].as_ref().expect("an input that is overwritten is bound");
            let same = input.buffer() == tensor.buffer()
                && (input.offset(), input.layout()) == (tensor.offset(), tensor.layout());
            if !same {
                let message = "an in-place gradient goes where the input is; bind the same tensor, or none";
                return Err(Error::Buffer { input: name, message: message.to_owned() });
            }
        }
        Ok(tensor)
    }

    /// No written tensor may overlap another, but for accumulated outputs. Returns whether some buffer is both read and
    /// written, and the outputs that overlap.
    fn check_aliases(&self, inputs: &[Option<Tensor>], outputs: &[Tensor]) -> Result<(bool, Vec<Tied>)> {
        let signature = self.inner.prepared.signature();
        let (mut pooled, mut tied) = (false, Vec::new());
        let named = inputs.iter().zip(&signature.inputs).enumerate();
        let read =
            named.filter_map(|(k, (tensor, input))| Some((Bound::Input(k), input.name.clone(), tensor.as_ref()?)));
        let mut earlier: Vec<(Bound, String, &Tensor)> = read.collect();
        for (index, (tensor, output)) in outputs.iter().zip(&signature.outputs).enumerate() {
            let name = signature.output_name(&output.kind);
            for (bound, first, other) in &earlier {
                let is_itself = matches!((output.mode, bound), (Mode::InPlace(over), Bound::Input(k)) if over == *k);
                let is_empty = other.layout().is_empty() || tensor.layout().is_empty();
                if is_empty || other.buffer() != tensor.buffer() || is_itself {
                    continue;
                }
                pooled = true;
                let (a, b) = (other.byte_range(), tensor.byte_range());
                if a.start >= b.end || b.start >= a.end {
                    continue;
                }
                let found = format!("{}..{} and {}..{}", a.start, a.end, b.start, b.end);
                let error = Error::Alias { first: first.clone(), second: name.clone(), found };
                match *bound {
                    Bound::Output(k) if [k, index].iter().all(|k| signature.outputs[*k].mode == Mode::Accumulate) => {
                        tied.push(Tied { outputs: [k, index], error });
                    }
                    _ => return Err(error),
                }
            }
            earlier.push((Bound::Output(index), name, tensor));
        }
        Ok((pooled, tied))
    }
}
