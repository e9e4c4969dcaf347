//! Operators over sequences on both paths: from golden cases, and from tests' own data.

use super::Outcome;
use super::golden::{GoldenCase, Values};
use super::oracle::Opt;
use std::collections::BTreeMap;
use wgloss::fused::{self, Crf, Ctc, LovaszSoftmax, OptaxCtc, Rnnt};
use wgloss::{
    Bindings, Bound, Context, CpuOutput, Element, HostTensor, Operator, PlanSpec, Reduction, Result, Tensor, Wanted,
};

/// An operator over sequences.
#[derive(Clone, Debug)]
pub enum Sequence {
    Ctc(Ctc),
    OptaxCtc(OptaxCtc),
    Rnnt(Rnnt),
    Crf(Crf),
    Lovasz(LovaszSoftmax),
}

/// An input: numbers, or indices.
#[derive(Clone, Debug)]
pub enum Data {
    Numbers(Vec<f32>),
    Indices(Vec<i32>),
}

/// An operator with its inputs, to run on both paths.
#[derive(Clone, Debug)]
pub struct OnBoth {
    pub operator: Sequence,
    pub inputs: Vec<(&'static str, Vec<usize>, Data)>,
}

impl OnBoth {
    /// The input of classes, the first.
    pub fn classes(&self) -> [&'static str; 1] {
        [self.inputs[0].0]
    }

    /// The outcome with gradients by the names that a golden file has.
    pub fn by_names_of_file(&self, outcome: Outcome, grads: &[&str]) -> Outcome {
        let grads = grads.iter().zip(outcome.grads.into_values()).map(|(name, grad)| ((*name).to_owned(), grad));
        Outcome { grads: grads.collect(), ..outcome }
    }
}

impl Sequence {
    pub fn as_operator(&self) -> &dyn Operator {
        match self {
            Sequence::Ctc(operator) => operator,
            Sequence::OptaxCtc(operator) => operator,
            Sequence::Rnnt(operator) => operator,
            Sequence::Crf(operator) => operator,
            Sequence::Lovasz(operator) => operator,
        }
    }

    pub fn on_cpu(&self, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<f64>> {
        match self {
            Sequence::Ctc(operator) => fused::cpu::run(operator, inputs, wanted),
            Sequence::OptaxCtc(operator) => fused::cpu::run(operator, inputs, wanted),
            Sequence::Rnnt(operator) => fused::cpu::run(operator, inputs, wanted),
            Sequence::Crf(operator) => fused::cpu::run(operator, inputs, wanted),
            Sequence::Lovasz(operator) => fused::cpu::run(operator, inputs, wanted),
        }
    }
}

/// The operator that a golden file is about, with the inputs of a case; `None` for a file about a loss.
pub fn of_golden(case: &GoldenCase) -> Option<OnBoth> {
    let number = |name: &str| match case.options.get(name) {
        Some(Opt::Num(number)) => *number,
        _ => 0.0,
    };
    let reduction = match case.reduction.as_str() {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        _ => Reduction::Mean,
    };
    let operator = match case.file.as_str() {
        "ctc" => {
            let zero = matches!(case.options.get("zero_infinity"), Some(Opt::Flag(true)));
            let ctc = fused::ctc().blank(number("blank") as u32).zero_infinity(zero);
            Sequence::Ctc(ctc.reduction(reduction))
        }
        "optax_ctc" => Sequence::OptaxCtc(fused::optax_ctc().blank_id(number("blank_id") as u32).reduction(reduction)),
        "rnnt" => Sequence::Rnnt(fused::rnnt().blank(number("blank") as i64).reduction(reduction)),
        "lovasz_softmax" => {
            let is = |name: &str| matches!(case.options.get(name), Some(Opt::Flag(true)));
            let all = matches!(case.options.get("classes"), Some(Opt::Word("all")));
            let operator = fused::lovasz_softmax().per_image(is("per_image"));
            Sequence::Lovasz(operator.classes(if all { "all" } else { "present" }).expect("these are its words"))
        }
        _ => return None,
    };
    // The file calls some inputs as PyTorch's other losses do.
    let renamed = |name: &str| match (case.file.as_str(), name) {
        ("rnnt", "input") => "logits",
        ("rnnt", "target") => "targets",
        ("rnnt", "input_lengths") => "logit_lengths",
        _ => &*name.to_owned().leak(),
    };
    let data = |values: &Values| match values {
        Values::I64(indices) => Data::Indices(indices.iter().map(|k| *k as i32).collect()),
        Values::F32(numbers) => Data::Numbers(numbers.clone()),
        Values::F64(numbers) => Data::Numbers(numbers.iter().map(|x| *x as f32).collect()),
    };
    let inputs = case.inputs.iter().map(|(name, tensor)| (renamed(name), tensor.shape.clone(), data(&tensor.values)));
    Some(OnBoth { operator, inputs: inputs.collect() })
}

impl OnBoth {
    /// The inputs in host memory.
    pub fn host(&self) -> Vec<(&str, HostTensor<'_>)> {
        self.inputs.iter().map(of_host).collect()
    }

    /// The f64 CPU path.
    pub fn on_cpu(&self, grads: &[&str]) -> Result<Outcome> {
        let wanted = Wanted { loss: true, grads: grads.iter().map(|g| (*g).to_owned()).collect(), ..Wanted::default() };
        let out = self.operator.on_cpu(&self.host(), &wanted)?;
        let mut found = BTreeMap::new();
        for name in grads {
            found.insert((*name).to_owned(), out.grad(name)?.to_vec());
        }
        Ok(Outcome { loss: out.loss_values()?.to_vec(), loss_shape: out.loss_shape().to_vec(), grads: found })
    }

    /// The GPU path, in f32.
    pub fn on_gpu(&self, ctx: &Context, grads: &[&str]) -> Result<Outcome> {
        self.on_gpu_stored::<f32>(ctx, grads, |x| x, f64::from)
    }

    /// The inputs on the GPU, in f32.
    pub fn tensors(&self, ctx: &Context) -> Vec<(&'static str, Tensor)> {
        let tensor = |(name, shape, data): &(&'static str, Vec<usize>, Data)| match data {
            Data::Numbers(numbers) => (*name, Tensor::from_slice(ctx, numbers, shape).unwrap()),
            Data::Indices(indices) => (*name, Tensor::from_slice(ctx, indices, shape).unwrap()),
        };
        self.inputs.iter().map(tensor).collect()
    }

    /// A step on the GPU of classes, and gradients, that are stored as `T`.
    pub fn bound<T: Element>(&self, ctx: &Context, grads: &[&str], narrow: fn(f32) -> T) -> Result<Bound> {
        let mut tensors = Vec::new();
        for (name, shape, data) in &self.inputs {
            let tensor = match data {
                // Paddings and weights are f32, whatever classes are.
                Data::Numbers(numbers) if grads.contains(name) => {
                    let numbers: Vec<T> = numbers.iter().map(|x| narrow(*x)).collect();
                    Tensor::from_slice(ctx, &numbers, shape)?
                }
                Data::Numbers(numbers) => Tensor::from_slice(ctx, numbers, shape)?,
                Data::Indices(indices) => Tensor::from_slice(ctx, indices, shape)?,
            };
            tensors.push((*name, tensor));
        }
        let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        let spec = grads.iter().fold(PlanSpec::new().like(&inputs), |spec, grad| spec.grad(grad));
        let bound = ctx.plan(self.operator.as_operator(), &spec)?.bind(&Bindings::new().inputs(&inputs))?;
        bound.submit()?;
        Ok(bound)
    }

    pub fn on_gpu_stored<T: Element>(
        &self,
        ctx: &Context,
        grads: &[&str],
        narrow: fn(f32) -> T,
        widen: fn(T) -> f64,
    ) -> Result<Outcome> {
        let bound = self.bound(ctx, grads, narrow)?;
        let loss: Vec<f32> = bound.read(bound.loss()?)?;
        let mut found = BTreeMap::new();
        for name in grads {
            let values: Vec<T> = bound.read(bound.grad(name)?)?;
            found.insert((*name).to_owned(), values.into_iter().map(widen).collect());
        }
        let loss_shape = bound.loss()?.shape().to_vec();
        Ok(Outcome { loss: loss.into_iter().map(f64::from).collect(), loss_shape, grads: found })
    }
}

fn of_host<'a>(input: &'a (&'static str, Vec<usize>, Data)) -> (&'static str, HostTensor<'a>) {
    let (name, shape, data) = input;
    match data {
        Data::Numbers(numbers) => (name, HostTensor::f32(numbers, shape)),
        Data::Indices(indices) => (name, HostTensor::i32(indices, shape)),
    }
}
