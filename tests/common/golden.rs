//! Golden files: reading them, their tolerances, and where wgloss departs from its source on purpose.

use super::oracle::{Array, Case, Opt, broadcast, rows_of};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Numbers of a tensor, by their type in the file.
#[derive(Clone, Debug)]
pub enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I64(Vec<i64>),
}

/// A tensor of a golden file.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Values,
}

impl Tensor {
    /// The numbers in f64.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.values {
            Values::F32(v) => v.iter().map(|x| f64::from(*x)).collect(),
            Values::F64(v) => v.clone(),
            Values::I64(v) => v.iter().map(|x| *x as f64).collect(),
        }
    }
}

/// One case of a golden file.
#[derive(Clone, Debug)]
pub struct GoldenCase {
    /// Name of the file, without its extension.
    pub file: String,
    pub name: String,
    /// Inputs in order.
    pub inputs: Vec<(String, Tensor)>,
    /// `loss` and `grad_<input>`.
    pub outputs: BTreeMap<String, Tensor>,
    /// Options but for the reduction.
    pub options: BTreeMap<String, Opt>,
    /// Empty where the file states one number.
    pub reduction: String,
    /// Largest absolute error of the library itself in f32, by output; infinite where that run overflowed.
    pub lib_f32_err: BTreeMap<String, f64>,
}

impl GoldenCase {
    pub fn input(&self, name: &str) -> Option<&Tensor> {
        self.inputs.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor)
    }

    /// Names of the inputs whose gradient is stored.
    pub fn grads(&self) -> Vec<&str> {
        self.outputs.keys().filter_map(|name| name.strip_prefix("grad_")).collect()
    }

    /// Whether an input holds numbers that a device may flush to zero.
    pub fn has_subnormals(&self) -> bool {
        self.inputs.iter().any(|(_, tensor)| match &tensor.values {
            Values::F32(v) => v.iter().any(|x| x.is_subnormal()),
            _ => false,
        })
    }

    /// The same case with subnormal inputs at zero.
    pub fn flushed(&self) -> GoldenCase {
        let mut case = self.clone();
        for (_, tensor) in &mut case.inputs {
            if let Values::F32(values) = &mut tensor.values {
                values.iter_mut().filter(|x| x.is_subnormal()).for_each(|x| *x = 0.0);
            }
        }
        case
    }

    /// The case as the oracle takes it.
    pub fn to_oracle(&self) -> Case {
        let mut case = Case { options: self.options.clone(), reduction: self.reduction.clone(), ..Case::default() };
        let declared = wgloss::losses::by_name(&self.file).map(|loss| loss.inputs()).unwrap_or_default();
        for (name, tensor) in &self.inputs {
            // Masks may be integers in a file.
            let are_numbers = declared.iter().any(|spec| spec.name == *name && spec.kind == wgloss::Kind::Float);
            match &tensor.values {
                Values::I64(_) if is_integer(name) && !are_numbers => {
                    case.integers.insert(name.clone());
                    case.arrays.insert(name.clone(), Array::new(&tensor.shape, tensor.to_f64()));
                }
                Values::I64(labels) if !are_numbers => case.labels = Some((labels.clone(), tensor.shape.clone())),
                _ => drop(case.arrays.insert(name.clone(), Array::new(&tensor.shape, tensor.to_f64()))),
            }
        }
        case
    }
}

/// Whether integers of that name are no labels of rows: lengths, a class per element.
pub fn is_integer(name: &str) -> bool {
    name.ends_with("_lengths") || name == "label"
}

/// The folder that `WGLOSS_GOLDEN` names, or the repository's.
pub fn folder() -> PathBuf {
    match std::env::var_os("WGLOSS_GOLDEN") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
    }
}

/// The golden files of a folder, by name.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("golden folder {}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry of the folder").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    files
}

/// Name of the loss that a golden file is about.
pub fn stem(path: &Path) -> String {
    path.file_stem().expect("a file name").to_string_lossy().into_owned()
}

/// The cases of a golden file.
pub fn load(path: &Path) -> Vec<GoldenCase> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let metadata = header.metadata().as_ref().expect("metadata");
    let cases: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&metadata["cases"]).expect("metadata `cases` is a JSON object");
    cases.iter().map(|(name, about)| case(&stem(path), name, about, &tensors)).collect()
}

fn case(file: &str, name: &str, about: &serde_json::Value, tensors: &SafeTensors<'_>) -> GoldenCase {
    let strings = |key: &str| -> Vec<String> {
        let list = about[key].as_array().unwrap_or_else(|| panic!("{file}/{name}: no list `{key}`"));
        list.iter().map(|s| s.as_str().expect("a string").to_owned()).collect()
    };
    let tensor = |what: &str| {
        let view = tensors.tensor(&format!("{name}/{what}")).unwrap_or_else(|e| panic!("{file}/{name}/{what}: {e}"));
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => Values::F32(numbers(data, f32::from_le_bytes)),
            Dtype::F64 => Values::F64(numbers(data, f64::from_le_bytes)),
            Dtype::I64 => Values::I64(numbers(data, i64::from_le_bytes)),
            other => panic!("{file}/{name}/{what}: element type {other:?}"),
        };
        Tensor { shape: view.shape().to_vec(), values }
    };
    let mut outputs = BTreeMap::from([("loss".to_owned(), tensor("loss"))]);
    for input in strings("grads") {
        let output = format!("grad_{input}");
        outputs.insert(output.clone(), tensor(&output));
    }
    let mut options = BTreeMap::new();
    let mut reduction = String::new();
    for (option, value) in about["options"].as_object().expect("options") {
        if option == "reduction" {
            reduction = value.as_str().expect("a reduction's name").to_owned();
            continue;
        }
        let value = match value {
            serde_json::Value::Bool(flag) => Opt::Flag(*flag),
            serde_json::Value::Number(index) if ["ignore_index", "axis"].contains(&option.as_str()) => {
                Opt::Index(index.as_i64())
            }
            serde_json::Value::Null if option == "ignore_index" => Opt::Index(None),
            serde_json::Value::Number(number) => Opt::Num(number.as_f64().expect("a number")),
            serde_json::Value::String(text) if text == "inf" => Opt::Num(f64::INFINITY),
            serde_json::Value::String(text) if text == "-inf" => Opt::Num(f64::NEG_INFINITY),
            serde_json::Value::String(text) => Opt::Word(text.clone().leak()),
            serde_json::Value::Array(axes) if option == "axis" => {
                let axes: Vec<u64> = axes.iter().map(|axis| axis.as_u64().expect("the index of an axis")).collect();
                assert!(axes.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{file}/{name}: axes {axes:?}");
                Opt::AxesFrom(axes[0] as usize)
            }
            serde_json::Value::Null if option == "axis" => Opt::AxesFrom(0),
            // Left out: the default is None here too.
            _ => continue,
        };
        options.insert(option.clone(), value);
    }
    let mut lib_f32_err = BTreeMap::new();
    for (output, error) in about["lib_f32_err"].as_object().into_iter().flatten() {
        lib_f32_err.insert(output.clone(), error[0].as_f64().unwrap_or(f64::INFINITY));
    }
    let mut inputs: Vec<(String, Tensor)> =
        strings("inputs").into_iter().map(|input| (input.clone(), tensor(&input))).collect();
    // An option of one number per class is an input here; a list of axes is none.
    for (option, value) in about["options"].as_object().into_iter().flatten() {
        let Some(list) = value.as_array().filter(|_| option != "axis") else { continue };
        let values: Vec<f32> = list.iter().map(|x| x.as_f64().expect("a list of numbers") as f32).collect();
        inputs.push((option.clone(), Tensor { shape: vec![values.len()], values: Values::F32(values) }));
    }
    GoldenCase { file: file.to_owned(), name: name.to_owned(), inputs, outputs, options, reduction, lib_f32_err }
}

fn numbers<const N: usize, T>(bytes: &[u8], of: fn([u8; N]) -> T) -> Vec<T> {
    bytes.chunks_exact(N).map(|chunk| of(chunk.try_into().expect("N bytes"))).collect()
}

/// How far off a number may be: `atol + rtol·|want|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub rtol: f64,
    pub atol: f64,
}

impl Tolerance {
    /// For an f32 implementation, as tests/golden/README.md says.
    pub fn single(case: &GoldenCase, output: &str, want: &[f64]) -> Tolerance {
        let atol = 1e-6 * largest(want) + 1e-7;
        // Where the library overflowed in f32 there is nothing to learn from it.
        let allowed = case.lib_f32_err.get(output).copied().filter(|e| e.is_finite()).map_or(0.0, |e| 4.0 * e);
        Tolerance { rtol: 1e-5, atol: atol.max(allowed) }
    }

    /// For an f64 implementation. Keras's softplus is linear above 20, hence no less.
    pub fn double(want: &[f64]) -> Tolerance {
        Tolerance { rtol: 1e-9, atol: 1e-9 * largest(want) + 1e-12 }
    }

    /// The error in units of what is allowed: ≤ 1 passes. NaN only fits NaN, an infinity only itself.
    pub fn units(self, got: f64, want: f64) -> f64 {
        if got == want || (got.is_nan() && want.is_nan()) {
            return 0.0;
        }
        let units = (got - want).abs() / (self.atol + self.rtol * want.abs());
        if units.is_finite() { units } else { f64::INFINITY }
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().filter(|x| x.is_finite()).fold(0.0, |most, x| x.abs().max(most))
}

/// What wgloss gives at such a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Promise {
    Number(f64),
    /// What the row has without the classes that the target lacks.
    OtherClasses,
    /// The gradient of a cosine with respect to a zero vector, whose norm counts as 1e-7.
    LeastNorm,
    /// Of the logistic loss of a score and a sign, the limit of an exponent that overflows.
    Linear,
}

/// A place where wgloss promises something else than its source, on purpose.
#[derive(Debug)]
pub struct Deviation {
    pub loss: String,
    pub outputs: Vec<String>,
    /// Kind of input, by its name in [`Deviation::places`].
    pub kind: String,
    pub promise: Promise,
    pub reason: String,
}

/// The deviations of a folder; none where it has no such file.
pub fn deviations(folder: &Path) -> Vec<Deviation> {
    let path = folder.join("deviations.toml");
    let path =
        if path.exists() { path } else { Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/deviations.toml") };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let table: toml::Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let list = table["deviation"].as_array().expect("a list of [[deviation]]");
    let string = |value: &toml::Value| value.as_str().expect("a string").to_owned();
    list.iter()
        .map(|one| Deviation {
            loss: string(&one["loss"]),
            outputs: one["outputs"].as_array().expect("a list of outputs").iter().map(string).collect(),
            kind: string(&one["kind"]),
            promise: match &one["promise"] {
                toml::Value::Float(promise) => Promise::Number(*promise),
                toml::Value::String(words) if words == "the other classes" => Promise::OtherClasses,
                toml::Value::String(words) if words == "linear" => Promise::Linear,
                toml::Value::String(words) if words == "the least norm" => Promise::LeastNorm,
                other => panic!("`promise` is a float (nan, inf, 0.0) or words known to golden.rs, not {other}"),
            },
            reason: string(&one["reason"]),
        })
        .collect()
}

/// Cross-entropies of logits and probabilities, of the classes that the target has.
fn without_zeros(case: &GoldenCase) -> Vec<f64> {
    let (input, target) = (case.input("input").expect("an input"), case.input("target").expect("a target"));
    let (x, t) = (input.to_f64(), target.to_f64());
    let loss = |row: &Vec<usize>| -> f64 {
        let lse = row.iter().map(|&k| x[k].exp()).sum::<f64>().ln();
        row.iter().filter(|&&k| t[k] != 0.0).map(|&k| t[k] * (lse - x[k])).sum()
    };
    rows_of(&input.shape, 1).iter().map(loss).collect()
}

/// ln(1 + exp(u)) of a large `u = −t·x`, or its derivative with respect to x.
fn linear(case: &GoldenCase, output: &str) -> Vec<f64> {
    let (input, target) = (case.input("input").expect("an input"), case.input("target").expect("a target"));
    let pairs = input.to_f64().into_iter().zip(target.to_f64());
    pairs.map(|(x, t)| if output == "loss" { -t * x } else { -t }).collect()
}

/// −x̂/1e-7 of the other vector x: the gradient of Keras's cosine loss with respect to a vector of norm 0.
fn at_least_norm(case: &GoldenCase, output: &str) -> Vec<f64> {
    let other = case.input(if output == "grad_y_true" { "y_pred" } else { "y_true" }).expect("the other vector");
    let (x, mut promised) = (other.to_f64(), vec![0.0; other.to_f64().len()]);
    for row in rows_of(&other.shape, other.shape.len() - 1) {
        let norm = row.iter().map(|&k| x[k] * x[k]).sum::<f64>().sqrt().max(1e-7);
        row.iter().for_each(|&k| promised[k] = -x[k] / norm / 1e-7);
    }
    promised
}

impl Deviation {
    /// What wgloss promises for each element of an output that is of this kind.
    pub fn promises(&self, case: &GoldenCase, output: &str) -> Vec<Option<f64>> {
        let places = self.places(case, output);
        if !places.contains(&true) {
            return vec![None; places.len()];
        }
        let promised = match self.promise {
            Promise::Number(promise) => vec![promise; places.len()],
            Promise::OtherClasses => without_zeros(case),
            Promise::Linear => linear(case, output),
            Promise::LeastNorm => at_least_norm(case, output),
        };
        places.into_iter().zip(promised).map(|(of_kind, promise)| of_kind.then_some(promise)).collect()
    }

    /// Whether each element of an output is of this kind.
    pub fn places(&self, case: &GoldenCase, output: &str) -> Vec<bool> {
        let shape = &case.outputs[output].shape;
        let count = shape.iter().product();
        let spread = |name: &str| match case.input(name) {
            Some(tensor) => broadcast(&Array::new(&tensor.shape, tensor.to_f64()), shape),
            None => panic!("kind {} needs an input `{name}`; {} has none", self.kind, case.file),
        };
        let loss = &case.outputs["loss"];
        let unreduced = case.input("input").is_some_and(|input| input.shape == *shape);
        match self.kind.as_str() {
            // The element's own loss is NaN.
            "nan_loss" if loss.shape == *shape => loss.to_f64().iter().map(|l| l.is_nan()).collect(),
            "nan_loss" => vec![false; count],
            // exp(−t·x) overflows in f64.
            "exponent_overflows" if unreduced => {
                let (x, t) = (spread("input"), spread("target"));
                (0..count).map(|k| -t[k] * x[k] > f64::MAX.ln()).collect()
            }
            "exponent_overflows" => vec![false; count],
            // Input and target are the same everywhere.
            "all_equal" => {
                let same = case.input("input").map(Tensor::to_f64) == case.input("target").map(Tensor::to_f64);
                vec![same; count]
            }
            // The logit of a target of 1 is −∞.
            "positive_at_minus_infinity" if unreduced => {
                let (x, t) = (spread("input"), spread("target"));
                (0..count).map(|k| x[k] == f64::NEG_INFINITY && t[k] == 1.0).collect()
            }
            "positive_at_minus_infinity" => vec![false; count],
            // The logit of a target of 1 is +∞, or that of 0 −∞.
            "right_at_infinity" if unreduced => {
                let (x, t) = (spread("input"), spread("target"));
                let right = |k: usize| (x[k], t[k]) == (f64::INFINITY, 1.0) || (x[k], t[k]) == (f64::NEG_INFINITY, 0.0);
                (0..count).map(right).collect()
            }
            "right_at_infinity" => vec![false; count],
            // The log-probability of a rejected answer is 0: it is certain.
            "rejected_is_certain" => spread("rejected_logps").iter().map(|x| *x == 0.0).collect(),
            // The logit, or the log-probability, of a target of 0 is −∞: in the element, or in one of the row.
            "zero_at_minus_infinity" => {
                let (input, target) = (case.input("input").expect("an input"), case.input("target").expect("a target"));
                let (x, t) = (input.to_f64(), target.to_f64());
                let zero: Vec<bool> = x.iter().zip(&t).map(|(x, t)| *x == f64::NEG_INFINITY && *t == 0.0).collect();
                if input.shape == *shape {
                    zero
                } else if input.shape[..1] == *shape {
                    rows_of(&input.shape, 1).iter().map(|row| row.iter().any(|&k| zero[k])).collect()
                } else {
                    vec![false; count]
                }
            }
            // Nothing is wrong: the loss is 0.
            "nothing_wrong" => vec![loss.to_f64() == [0.0]; count],
            // The boxes of the row do not overlap.
            "boxes_apart" => {
                let (a, b) = (spread("boxes1"), spread("boxes2"));
                let apart = |k: usize, axis: usize| {
                    let first = k / 4 * 4 + axis;
                    a[first + 2].min(b[first + 2]) <= a[first].max(b[first])
                };
                (0..count).map(|k| apart(k, 0) || apart(k, 1)).collect()
            }
            // The vector that the output is the gradient of is 0.
            "zero_vector" => {
                let vector = spread(output.strip_prefix("grad_").expect("a gradient"));
                let mut places = vec![false; count];
                for row in rows_of(shape, shape.len() - 1) {
                    let is_zero = row.iter().all(|&k| vector[k] == 0.0);
                    row.iter().for_each(|&k| places[k] = is_zero);
                }
                places
            }
            // The row is labelled `ignore_index` and holds NaN.
            "nan_in_ignored_row" => {
                let ignored = case.options.get("ignore_index");
                let Some(Values::I64(labels)) = case.input("target").map(|t| &t.values) else {
                    panic!("kind {} needs labels", self.kind)
                };
                let x = spread("input");
                let mut places = vec![false; count];
                for (row, label) in rows_of(shape, usize::from(shape.len() > 1)).iter().zip(labels) {
                    if ignored == Some(&Opt::Index(Some(*label))) && row.iter().any(|&k| x[k].is_nan()) {
                        row.iter().for_each(|&k| places[k] = true);
                    }
                }
                places
            }
            other => panic!("deviations.toml: no kind of input is called `{other}`"),
        }
    }
}
