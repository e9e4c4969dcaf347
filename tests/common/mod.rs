//! What several test files share: the oracle, the golden files, and one way to run a case on each path.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod agree;
pub mod cases;
pub mod compare;
pub mod golden;
pub mod oracle;
pub mod real;
pub mod sequence;
pub mod share;
pub mod special;

use oracle::{Array, Case, Opt};
use share::Share;
use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use wgloss::{
    Bound, Context, Element, HostTensor, Kind, Loss, Reduction, Result, RowAxis, Scope, Tensor, Value, cpu, losses,
};

/// What a path gives for a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub loss: Vec<f64>,
    pub loss_shape: Vec<usize>,
    pub grads: BTreeMap<String, Vec<f64>>,
}

/// A tensor that a submitted plan has written, in f64; an error of the step fails the test.
pub fn read(bound: &Bound, tensor: &Tensor) -> Vec<f64> {
    bound.read::<f32>(tensor).unwrap().into_iter().map(f64::from).collect()
}

/// The GPU, where there is one. Without one, tests of the GPU path are skipped, unless `WGLOSS_REQUIRE_ADAPTER` is set.
///
/// A device per thread: software drivers compile kernels in a thread of the device, and compiling is most of the time that
/// tests take. A test that ends leaves its device, with the kernels that were compiled on it, to the next one, so a test
/// that loses a device, limits its kernels or counts them opens a device of its own.
pub fn context() -> Option<&'static Context> {
    thread_local! {
        static LENT: Lent = Lent::take();
    }
    LENT.with(|lent| lent.0)
}

/// A device that belongs to one thread until that thread ends.
struct Lent(Option<&'static Context>);

/// Devices that belong to no thread at present.
static IDLE: Mutex<Vec<&'static Context>> = Mutex::new(Vec::new());

impl Lent {
    fn take() -> Lent {
        let idle = IDLE.lock().expect("no panic under this lock").pop();
        Lent(idle.or_else(|| open().map(|ctx| &*Box::leak(Box::new(ctx)))))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        IDLE.lock().expect("no panic under this lock").extend(self.0);
    }
}

/// The GPU, where there is one and the case with this label is in the share of the generic grids that is to run. The
/// label names what kernels are made of: what shares kernels is taken, or left out, together.
pub fn context_for(label: &str) -> Option<&'static Context> {
    context().filter(|_| is_in_share(label))
}

/// Whether the case with this label is in the share of the generic grids that is to run.
pub fn is_in_share(label: &str) -> bool {
    static SHARE: LazyLock<Share> = LazyLock::new(Share::from_env);
    SHARE.takes(label)
}

fn open() -> Option<Context> {
    // `WGLOSS_TEST_LIMITS=webgpu`: a device with no more than every WebGPU device has.
    let smallest = std::env::var("WGLOSS_TEST_LIMITS").is_ok_and(|limits| limits == "webgpu");
    match if smallest { Context::with_limits(wgpu::Limits::default()) } else { Context::new() } {
        Ok(ctx) => Some(ctx),
        Err(error) if std::env::var_os("WGLOSS_REQUIRE_ADAPTER").is_none() => {
            eprintln!("GPU path skipped: {error}");
            None
        }
        Err(error) => panic!("WGLOSS_REQUIRE_ADAPTER is set, but {error}"),
    }
}

/// The loss that a case is about, with its options and reduction; `None` for a name that is not known.
pub fn loss_of(name: &str, case: &Case) -> Option<Loss> {
    let mut loss = match name {
        "exp_square" => exp_square(),
        "composite" => case.num("mse_weight", 0.7) * losses::mse() + case.num("l1_weight", 0.3) * losses::l1(),
        "cross_entropy_temperature" => losses::cross_entropy().into(),
        // A file may hold cases of labels and of distributions.
        "emd_squared" | "wasserstein1" if case.labels.is_none() => losses::by_name(&format!("{name}_prob"))?,
        _ => losses::by_name(name)?,
    };
    for (option, value) in case.options.iter().filter(|_| name != "composite") {
        loss = match *value {
            Opt::Num(value) => loss.option(option, Value::Num(value)),
            Opt::Flag(value) => loss.option(option, Value::Flag(value)),
            Opt::Index(value) => loss.option(option, Value::Index(value)),
            Opt::Word(word) => loss.option(option, word),
            Opt::AxesFrom(axis) => loss.row_axis(RowAxis::From(axis)),
        };
    }
    let loss = loss.broadcast(case.broadcast);
    Some(match case.reduction.as_str() {
        "" => loss,
        "none" => loss.reduction(Reduction::None),
        "sum" => loss.reduction(Reduction::Sum),
        "mean" | "sum_over_batch_size" => loss.reduction(Reduction::Mean),
        "mean_or_zero" => loss.reduction(Reduction::MeanOrZero),
        "batchmean" => loss.reduction(Reduction::BatchMean),
        "mean_with_sample_weight" => loss.reduction(Reduction::MeanWithSampleWeight),
        "mean_over_positive" => loss.reduction(Reduction::MeanOverPositive),
        other => panic!("reduction {other}"),
    })
}

/// A loss that is not in the catalogue: (exp(target − input) − 1)².
pub fn exp_square() -> Loss {
    Loss::define("exp_square").input("input", Scope::Element).input("target", Scope::Element).expr(|b| {
        let e = (b.input("target") - b.input("input")).expm1();
        e * e
    })
}

/// The name of a loss's labels.
pub fn label_of(loss: &Loss) -> String {
    let label = loss.inputs().into_iter().find(|spec| spec.kind == Kind::Int);
    label.expect("a case with labels is of a loss with labels").name
}

/// The numbers of a case in f32 (in which they are exact), its integers and its labels in i32, by name.
struct Owned<'c> {
    numbers: Vec<(&'c str, &'c [usize], Vec<f32>)>,
    integers: Vec<(&'c str, &'c [usize], Vec<i32>)>,
    labels: Option<(String, &'c [usize], Vec<i32>)>,
}

fn owned<'c>(loss: &Loss, case: &'c Case) -> Owned<'c> {
    let single = |(name, array): (&'_ String, &'_ Array)| -> Vec<f32> {
        let values: Vec<f32> = array.values.iter().map(|x| *x as f32).collect();
        let exact = values.iter().zip(&array.values).all(|(a, b)| f64::from(*a) == *b || b.is_nan());
        assert!(exact, "values of {name} are not f32");
        values
    };
    let (integers, numbers): (Vec<_>, Vec<_>) = case.arrays.iter().partition(|(name, _)| case.integers.contains(*name));
    let numbers = numbers.into_iter().map(|one| (one.0.as_str(), &one.1.shape[..], single(one))).collect();
    let whole = |values: &[f64]| values.iter().map(|x| *x as i32).collect();
    let integers = integers.into_iter().map(|(name, a)| (name.as_str(), &a.shape[..], whole(&a.values))).collect();
    let narrow = |labels: &Vec<i64>| labels.iter().map(|y| i32::try_from(*y).expect("an i32 label")).collect();
    let labels = case.labels.as_ref().map(|(labels, shape)| (label_of(loss), &shape[..], narrow(labels)));
    Owned { numbers, integers, labels }
}

/// Runs a case on the f64 CPU path.
pub fn on_cpu(loss: &Loss, case: &Case, grads: &[&str]) -> Result<Outcome> {
    let owned = owned(loss, case);
    let mut inputs: Vec<(&str, HostTensor<'_>)> =
        owned.numbers.iter().map(|(name, shape, values)| (*name, HostTensor::f32(values, shape))).collect();
    inputs.extend(owned.integers.iter().map(|(name, shape, values)| (*name, HostTensor::i32(values, shape))));
    inputs.extend(owned.labels.iter().map(|(name, shape, labels)| (name.as_str(), HostTensor::i32(labels, shape))));
    let out = cpu::forward_backward(loss, &inputs, grads)?;
    let mut found = BTreeMap::new();
    for name in grads {
        found.insert(name.to_string(), out.grad(name)?.to_vec());
    }
    Ok(Outcome { loss: out.loss_values()?.to_vec(), loss_shape: out.loss_shape().to_vec(), grads: found })
}

/// The Hessian diagonal of a case on the f64 CPU path.
pub fn hessian_on_cpu(loss: &Loss, case: &Case, wrt: &str) -> Result<Vec<f64>> {
    let owned = owned(loss, case);
    let mut inputs: Vec<(&str, HostTensor<'_>)> =
        owned.numbers.iter().map(|(name, shape, values)| (*name, HostTensor::f32(values, shape))).collect();
    inputs.extend(owned.integers.iter().map(|(name, shape, values)| (*name, HostTensor::i32(values, shape))));
    inputs.extend(owned.labels.iter().map(|(name, shape, labels)| (name.as_str(), HostTensor::i32(labels, shape))));
    cpu::hessian_diagonal(loss, &inputs, wrt)
}

/// Runs a case on the GPU.
pub fn on_gpu(ctx: &Context, loss: &Loss, case: &Case, grads: &[&str]) -> Result<Outcome> {
    on_gpu_stored::<f32>(ctx, loss, case, grads, |x| x, f64::from)
}

/// Runs a case on the GPU with its numbers, and their gradients, stored as `T`.
pub fn on_gpu_stored<T: Element>(
    ctx: &Context,
    loss: &Loss,
    case: &Case,
    grads: &[&str],
    narrow: fn(f32) -> T,
    widen: fn(T) -> f64,
) -> Result<Outcome> {
    let owned = owned(loss, case);
    let mut tensors: Vec<(&str, Tensor)> = Vec::new();
    for (name, shape, values) in &owned.numbers {
        let values: Vec<T> = values.iter().map(|x| narrow(*x)).collect();
        tensors.push((name, Tensor::from_slice(ctx, &values, shape)?));
    }
    for (name, shape, values) in &owned.integers {
        tensors.push((name, Tensor::from_slice(ctx, values, shape)?));
    }
    if let Some((name, shape, labels)) = &owned.labels {
        tensors.push((name, Tensor::from_slice(ctx, labels, shape)?));
    }
    let inputs: Vec<(&str, &Tensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let out = loss.forward_backward_of(ctx, &inputs, grads)?;
    let mut found = BTreeMap::new();
    for name in grads {
        let values = out.grad(name)?.to_vec::<T>()?;
        found.insert(name.to_string(), values.into_iter().map(widen).collect());
    }
    let loss_shape = out.loss_tensor()?.shape().to_vec();
    let loss = out.loss_values()?.into_iter().map(f64::from).collect();
    Ok(Outcome { loss, loss_shape, grads: found })
}
