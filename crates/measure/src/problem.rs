//! Inputs for any loss of the catalogue, of any shape and element type, the same on every machine.

use crate::record::Work;
use half::{bf16, f16};
use rayon::prelude::*;
use wgloss::losses::{self, Range};
use wgloss::{
    Bindings, Bound, Context, DType, Error, HostTensor, Kind, Loss, Plan, PlanSpec, Result, Scope, Tensor, Value,
    Wanted,
};

/// Rows after which numbers repeat: a prime, so that rows that are mixed up differ. Among many more random rows there is
/// one of which the whole gradient cancels (predicted as wanted), where f32 has no digits left to judge.
const PERIOD: usize = 61;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Storage {
    F32,
    F16,
    Bf16,
}

impl Storage {
    pub const ALL: [Storage; 3] = [Storage::F32, Storage::F16, Storage::Bf16];

    pub fn dtype(self) -> DType {
        match self {
            Storage::F32 => DType::F32,
            Storage::F16 => DType::F16,
            Storage::Bf16 => DType::BF16,
        }
    }

    pub fn name(self) -> String {
        self.dtype().to_string()
    }

    /// The nearest number that it holds.
    pub fn round(self, x: f32) -> f32 {
        match self {
            Storage::F32 => x,
            Storage::F16 => f16::from_f32(x).to_f32(),
            Storage::Bf16 => bf16::from_f32(x).to_f32(),
        }
    }

    /// A tensor of numbers, rounded where they have to be.
    pub fn tensor(self, ctx: &Context, values: &[f32], shape: &[usize]) -> Result<Tensor> {
        match self {
            Storage::F32 => Tensor::from_slice(ctx, values, shape),
            Storage::F16 => {
                Tensor::from_slice(ctx, &values.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>(), shape)
            }
            Storage::Bf16 => {
                Tensor::from_slice(ctx, &values.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>(), shape)
            }
        }
    }

    /// A tensor's numbers, widened.
    pub fn read(self, tensor: &Tensor) -> Result<Vec<f32>> {
        Ok(match self {
            Storage::F32 => tensor.to_vec()?,
            Storage::F16 => wgloss::widen_f16(&tensor.to_vec()?),
            Storage::Bf16 => wgloss::widen_bf16(&tensor.to_vec()?),
        })
    }
}

enum Values {
    Numbers(Vec<f32>),
    Labels(Vec<i32>),
}

struct Input {
    name: String,
    shape: Vec<usize>,
    /// Whether its first axis is that of the rows.
    by_row: bool,
    values: Values,
}

/// A loss with the inputs that it must have; the optional ones are absent.
pub struct Problem {
    pub loss: Loss,
    pub name: String,
    /// The input that gradients are taken of.
    pub wrt: String,
    pub rows: usize,
    pub cols: usize,
    pub storage: Storage,
    inputs: Vec<Input>,
}

impl Problem {
    /// Errors: [`Error::OutOfMemory`] where the host has no room for the values.
    pub fn new(loss: &Loss, rows: usize, cols: usize, storage: Storage) -> Result<Problem> {
        let mut problem = Problem::shaped(loss, rows, cols, storage);
        let ignored =
            loss.options().iter().find(|option| option.name == "ignore_index").map(|option| option.default.clone());
        for (index, input) in problem.inputs.iter_mut().enumerate() {
            let count = input.shape.iter().fold(1, |count: usize, size| count.saturating_mul(*size));
            let entry = losses::entry(&problem.name);
            let range = entry.map_or(Range::Any, |entry| entry.range(loss, &input.name));
            let key = |k: usize| (k % cols.saturating_mul(PERIOD)) as u64 ^ ((index as u64 + 1) << 56);
            match &mut input.values {
                Values::Labels(labels) => {
                    make_room(labels, count, &input.name)?;
                    match range {
                        Range::Length => labels.extend((0..count).map(|k| (mixed(key(k)) % 9) as i32 + 1)),
                        Range::Binary => labels.extend((0..count).map(|k| (mixed(key(k)) >> 63) as i32)),
                        Range::LabelBetween => {
                            labels.extend((0..count).map(|row| label(row, count, cols + 1, ignored.as_ref())));
                        }
                        _ => labels.extend((0..count).map(|row| label(row, count, cols, ignored.as_ref()))),
                    }
                }
                Values::Numbers(values) => {
                    let value = |k| match (range, k % 4) {
                        (Range::Box, 0 | 1) => storage.round(number(range, mixed(key(k))) * 3.0 / 7.0),
                        (Range::Box, _) => storage.round(number(range, mixed(key(k))) * 3.0 / 7.0 + 2.0),
                        (range, _) => storage.round(number(range, mixed(key(k)))),
                    };
                    make_room(values, count, &input.name)?;
                    values.par_extend((0..count).into_par_iter().map(value));
                    if range == Range::Ascending {
                        values.sort_by(f32::total_cmp);
                    }
                }
            }
        }
        Ok(problem)
    }

    /// Shape of an input, by its name.
    pub fn shape_of(&self, name: &str) -> &[usize] {
        let input = self.inputs.iter().find(|input| input.name == name);
        &input.expect("gradients are of an input of the loss").shape
    }

    /// Inputs without values: for what looks at shapes only.
    pub fn shaped(loss: &Loss, rows: usize, cols: usize, storage: Storage) -> Problem {
        // Rows of a stated number of columns have it.
        let cols = loss.cols().ok().flatten().map_or(cols, |stated| stated as usize);
        let input = |spec: wgloss::loss::InputSpec| {
            let shape = match spec.scope {
                Scope::Element => vec![rows, cols],
                Scope::Row => vec![rows],
                Scope::Column => vec![cols],
                _ => Vec::new(),
            };
            let values = match spec.kind {
                Kind::Int => Values::Labels(Vec::new()),
                _ => Values::Numbers(Vec::new()),
            };
            Input { name: spec.name, shape, by_row: matches!(spec.scope, Scope::Element | Scope::Row), values }
        };
        let inputs = loss.inputs().into_iter().filter(|spec| !spec.optional).map(input).collect();
        let wrt = loss.differentiable().unwrap_or_default();
        Problem { loss: loss.clone(), name: loss.name(), wrt, rows, cols, storage, inputs }
    }

    pub fn host(&self) -> Vec<(&str, HostTensor<'_>)> {
        let mut host = Vec::new();
        for Input { name, shape, values, .. } in &self.inputs {
            host.push(match values {
                Values::Numbers(values) => (name.as_str(), HostTensor::f32(values, shape)),
                Values::Labels(labels) => (name.as_str(), HostTensor::i32(labels, shape)),
            });
        }
        host
    }

    pub fn wanted(&self, work: Work) -> Wanted {
        let grads = if work == Work::Forward { Vec::new() } else { vec![self.wrt.clone()] };
        Wanted { loss: true, grads, ..Wanted::default() }
    }

    pub fn spec(&self, work: Work) -> PlanSpec {
        let dtype = |input: &Input| match input.values {
            Values::Numbers(_) => self.storage.dtype(),
            Values::Labels(_) => DType::I32,
        };
        let inputs = self.inputs.iter();
        let spec = inputs.fold(PlanSpec::new(), |spec, input| spec.input(&input.name, dtype(input), &input.shape));
        if work == Work::Forward { spec } else { spec.grad(&self.wrt) }
    }

    /// Answers whether an input is present, as lowering asks; labels are signed.
    pub fn present(&self, name: &str) -> Option<bool> {
        self.inputs.iter().any(|input| input.name == name).then_some(false)
    }

    pub fn upload(&self, ctx: &Context) -> Result<OnDevice> {
        let tensor = |input: &Input| {
            let made = match &input.values {
                Values::Numbers(values) => self.storage.tensor(ctx, values, &input.shape),
                Values::Labels(labels) => Tensor::from_slice(ctx, labels, &input.shape),
            };
            made.map(|tensor| (input.name.clone(), input.by_row, tensor))
        };
        let inputs = self.inputs.iter().map(tensor).collect::<Result<_>>()?;
        let grad = Tensor::zeros(ctx, self.storage.dtype(), self.shape_of(&self.wrt))?;
        Ok(OnDevice { inputs, grad, wrt: self.wrt.clone(), storage: self.storage })
    }
}

/// Room for `count` values of an input.
fn make_room<T>(values: &mut Vec<T>, count: usize, input: &str) -> Result<()> {
    values.try_reserve_exact(count).map_err(|_| Error::OutOfMemory {
        what: format!("the values of `{input}` on the host"),
        bytes: (count as u64).saturating_mul(size_of::<T>() as u64),
    })
}

/// The tensors of a problem, and one for its gradient.
pub struct OnDevice {
    /// Name, whether the first axis is that of the rows, values.
    inputs: Vec<(String, bool, Tensor)>,
    grad: Tensor,
    wrt: String,
    storage: Storage,
}

impl OnDevice {
    pub fn bind(&self, plan: &Plan, work: Work) -> Result<Bound> {
        self.bind_rows(plan, work, self.grad.shape()[0])
    }

    /// Binds the first rows alone: the others are neither read nor written.
    pub fn bind_rows(&self, plan: &Plan, work: Work, rows: usize) -> Result<Bound> {
        let first_rows = |tensor: &Tensor| {
            let shape = [&[rows], &tensor.shape()[1..]].concat();
            tensor.view(0, &shape, tensor.strides())
        };
        let mut bindings = Bindings::new();
        for (name, by_row, tensor) in &self.inputs {
            bindings = if *by_row { bindings.input(name, &first_rows(tensor)?) } else { bindings.input(name, tensor) };
        }
        if work == Work::ForwardBackward {
            bindings = bindings.grad(&self.wrt, &first_rows(&self.grad)?);
        }
        plan.bind(&bindings)
    }

    /// Runs once over a gradient that holds NaN, so that an element left unwritten is seen. Loss and gradient.
    pub fn run(&self, ctx: &Context, bound: &Bound, work: Work) -> Result<(f64, Option<Vec<f32>>)> {
        if work == Work::Forward {
            bound.submit()?;
            return Ok((f64::from(bound.read_loss()?), None));
        }
        let count = self.grad.shape().iter().product();
        match self.storage {
            Storage::F32 => self.grad.write(ctx, &vec![f32::NAN; count])?,
            Storage::F16 => self.grad.write(ctx, &vec![f16::NAN; count])?,
            Storage::Bf16 => self.grad.write(ctx, &vec![bf16::NAN; count])?,
        }
        bound.submit()?;
        Ok((f64::from(bound.read_loss()?), Some(self.storage.read(&self.grad)?)))
    }
}

/// A number in a range, by bits that look random.
fn number(range: Range, bits: u64) -> f32 {
    let (low, high) = range.bounds().map_or((-4.0, 4.0), |(low, high)| (low as f32, high as f32));
    match range {
        Range::Sign | Range::Binary => [low, high][(bits >> 63) as usize],
        _ => low + (high - low) * (bits >> 40) as f32 / (1 << 24) as f32,
    }
}

/// The last class in the first row, an ignored one in the second where that is allowed, then any.
fn label(row: usize, rows: usize, cols: usize, ignored: Option<&Value>) -> i32 {
    match (row, ignored) {
        (0, _) => cols as i32 - 1,
        (1, Some(Value::Index(Some(index)))) if rows > 2 => *index as i32,
        _ => (mixed(row as u64) % cols as u64) as i32,
    }
}

/// Bits that look random: the finaliser of splitmix64.
fn mixed(key: u64) -> u64 {
    let z = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
