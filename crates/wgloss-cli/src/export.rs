//! `wgloss export`

use crate::options::{loss_names, with_options};
use crate::{Fallible, Verdict, text};
use clap::ValueEnum;
use measure::problem::Storage;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use wgloss::export::Formula;
use wgloss::export::{Export, ExportBuffer, ExportResource, ExportTensor, ExportUniform};
use wgloss::internals::expr::ParamDecl;
use wgloss::internals::lower::{UPSTREAM, Upstream, expressions};
use wgloss::loss::{InputSpec, MASK, SAMPLE_WEIGHT};
use wgloss::{DType, Kind, Loss, PlanSpec, Reduction, Scope};

/// Raised when a host that reads the old form would go wrong.
const FORMAT: &str = "wgloss manifest 1";

#[derive(clap::Args)]
pub struct Args {
    /// The loss
    #[arg(value_name = "LOSS", value_parser = loss_names())]
    loss: String,
    /// Rows that the kernels are chosen for
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..))]
    rows: u32,
    /// Columns that the kernels are chosen for: classes, where there are labels
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..))]
    cols: u32,
    /// How numbers are stored
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = Storage::F32)]
    dtype: Storage,
    /// An option of the loss, of which @NAME is a scalar input; may be repeated
    #[arg(short = 'O', long = "option", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// An optional input, sample_weight or mask, that is to be there; may be repeated
    #[arg(long = "input", value_name = "NAME")]
    inputs: Vec<String>,
    /// How the losses are put together [default: the loss's own way]
    #[arg(long, value_enum)]
    reduction: Option<Reduce>,
    /// The loss alone, without its gradient
    #[arg(long, conflicts_with = "upstream")]
    forward: bool,
    /// Multiply the gradient by a scalar, the input `upstream`
    #[arg(long)]
    upstream: bool,
    /// The folder for manifest.json and the kernels; made where it is missing, cleared of an earlier export's kernels
    #[arg(short = 'o', long = "output", value_name = "DIR")]
    output: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Reduce {
    Mean,
    /// The mean, 0 where nothing is counted
    MeanOrZero,
    Sum,
    None,
}

/// The inputs that the loss must have, and the optional ones that were named.
fn inputs(loss: &Loss, asked: &[String]) -> Fallible<Vec<InputSpec>> {
    let known = loss.inputs();
    let per_loss = if loss.rows_along() == wgloss::RowAxis::None { Scope::Element } else { Scope::Row };
    let generic = [SAMPLE_WEIGHT, MASK].map(|name| InputSpec::optional(name, per_loss));
    let all: Vec<InputSpec> = known.into_iter().chain(generic).collect();
    if let Some(name) = asked.iter().find(|name| !all.iter().any(|input| input.optional && input.name == **name)) {
        let optional: Vec<&str> = all.iter().filter(|input| input.optional).map(|input| input.name.as_str()).collect();
        return Err(format!("--input {name}: {} takes {}", loss.name(), optional.join(", ")).into());
    }
    Ok(all.into_iter().filter(|input| !input.optional || asked.contains(&input.name)).collect())
}

fn spec(args: &Args, inputs: &[InputSpec], wrt: &str) -> PlanSpec {
    let (rows, cols) = (args.rows as usize, args.cols as usize);
    let mut spec = PlanSpec::new();
    for input in inputs {
        let shape: &[usize] = match input.scope {
            Scope::Element => &[rows, cols],
            Scope::Row => &[rows],
            Scope::Column => &[cols],
            _ => &[],
        };
        let dtype = match (input.kind, input.scope) {
            (Kind::Int, _) => DType::I32,
            (_, Scope::Scalar) => DType::F32,
            _ => args.dtype.dtype(),
        };
        spec = spec.input(&input.name, dtype, shape);
    }
    if args.upstream {
        spec = spec.input(UPSTREAM, DType::F32, &[]).upstream(Upstream::Scalar);
    }
    if args.forward { spec } else { spec.grad(wrt) }
}

/// A number, `"rows"`, `"cols"`, or `[operator, a, b]`.
fn formula(formula: &Formula) -> Value {
    match formula {
        Formula::Number(value) => json!(value),
        Formula::Rows => json!("rows"),
        Formula::Cols => json!("cols"),
        Formula::Of(operator, both) => {
            json!([operator.name(), self::formula(&both[0]), self::formula(&both[1])])
        }
    }
}

const FORMULAS: &str = "A formula is a number; \"rows\" or \"cols\"; or [operator, a, b] with add, mul, div_ceil \
(a / b, rounded up), rem (remainder), min, max, equal, at_most (1 where it holds, else 0).";
const STEPS: &str = "1. Check that the formula of each condition is 1. 2. Make each buffer, of so many bytes; write \
the fields of the uniforms (the rest is 0) and the initial words. 3. For each step: write the initial words, make the \
copies, and run the dispatches in order, in one compute pass or in several. 4. If the status word then differs from \
`none`, it is the first row whose label is out of range, and what that row went into is NaN.";

fn kernel_file(index: usize) -> String {
    format!("kernel{index}.wgsl")
}

fn tensor(tensor: &ExportTensor) -> Value {
    json!({
        "name": tensor.name,
        "kind": if tensor.is_output { "output" } else { "input" },
        "dtype": tensor.dtype.to_string(),
        "shape": tensor.shape.iter().map(formula).collect::<Vec<_>>(),
        "bytes": formula(&tensor.bytes),
    })
}

fn uniform(index: usize, uniform: &ExportUniform) -> Value {
    let fields = uniform.fields.iter().map(|field| {
        let ty = if field.is_float { "f32" } else { "u32" };
        json!({ "name": field.name, "offset": field.offset, "type": ty, "value": formula(&field.value) })
    });
    json!({
        "name": format!("uniform{index}"),
        "kind": "uniform",
        "bytes": uniform.bytes,
        "fields": fields.collect::<Vec<_>>(),
    })
}

fn buffers(export: &Export) -> Vec<Value> {
    let param = |(index, param): (usize, &ParamDecl)| {
        let (ty, value) = match param.kind {
            Kind::Int => ("u32", json!(param.word(param.value))),
            _ => ("f32", json!(param.value)),
        };
        json!({ "name": param.name, "offset": 4 * index, "type": ty, "value": value })
    };
    let params = export.params.iter().enumerate().map(param);
    let params = json!({
        "name": "params",
        "kind": "uniform",
        "bytes": export.params_bytes,
        "fields": params.collect::<Vec<_>>(),
    });
    let work = json!({ "name": "work", "kind": "workspace", "bytes": formula(&export.work_bytes) });
    let bytes = 4 * export.scalar_words;
    let scalars = json!({ "name": "scalars", "kind": "workspace", "bytes": bytes, "initial": [u32::MAX] });
    let tensors = export.tensors.iter().map(tensor);
    let uniforms = export.uniforms.iter().enumerate().map(|(index, each)| uniform(index, each));
    tensors.chain([work, scalars, params]).chain(uniforms).collect()
}

fn dispatches(export: &Export) -> Vec<Value> {
    let binding = |(number, resource): &(u32, ExportResource)| {
        let (buffer, ty) = match *resource {
            ExportResource::Uniform(index) => (format!("uniform{index}"), "uniform"),
            ExportResource::Params => ("params".to_owned(), "uniform"),
            ExportResource::Storage { buffer, writes } => {
                let name = match buffer {
                    ExportBuffer::Tensor(index) => export.tensors[index].name.clone(),
                    ExportBuffer::Work => "work".to_owned(),
                    ExportBuffer::Scalars => "scalars".to_owned(),
                };
                (name, if writes { "storage" } else { "read-only-storage" })
            }
        };
        json!({ "binding": number, "buffer": buffer, "type": ty })
    };
    let dispatch = |dispatch: &wgloss::export::ExportDispatch| {
        let [x, y] = &dispatch.grid;
        json!({
            "kernel": dispatch.kernel,
            "grid": [formula(x), formula(y), 1],
            "bindings": dispatch.bindings.iter().map(binding).collect::<Vec<_>>(),
        })
    };
    export.dispatches.iter().map(dispatch).collect()
}

fn manifest(export: &Export, args: &Args, expression: &Value) -> Value {
    let [rows, cols] = export.made_for;
    let conditions = export.conditions.iter().map(|condition| {
        let text = condition.formula.to_string();
        json!({ "formula": formula(&condition.formula), "text": text, "why": condition.why })
    });
    let kernels = export.kernels.iter().enumerate().map(|(index, wgsl)| {
        let title = wgsl.lines().next().unwrap_or_default().trim_start_matches("// ");
        json!({ "file": kernel_file(index), "entry_point": "main", "title": title })
    });
    let storage = |dispatch: &wgloss::export::ExportDispatch| {
        let is_storage = |binding: &&(u32, ExportResource)| matches!(binding.1, ExportResource::Storage { .. });
        dispatch.bindings.iter().filter(is_storage).count()
    };
    let copies = export.scalar_inputs.iter().map(
        |(input, word)| json!({ "from": input, "from_offset": 0, "to": "scalars", "to_offset": 4 * word, "bytes": 4 }),
    );
    json!({
        "format": FORMAT,
        "made_by": format!("wgloss {}", env!("CARGO_PKG_VERSION")),
        "loss": export.loss,
        "options": args.options,
        "expression": expression,
        "made_for": { "rows": rows, "cols": cols },
        "how_to_run": STEPS,
        "formulas": FORMULAS,
        "conditions": conditions.collect::<Vec<_>>(),
        "limits": {
            "maxComputeInvocationsPerWorkgroup": export.workgroup_invocations,
            "maxStorageBuffersPerShaderStage": export.dispatches.iter().map(storage).max(),
        },
        "kernels": kernels.collect::<Vec<_>>(),
        "buffers": buffers(export),
        "copies": copies.collect::<Vec<_>>(),
        "dispatches": dispatches(export),
        "status": { "buffer": "scalars", "offset": 0, "none": u32::MAX },
    })
}

fn write(path: &Path, text: &str) -> Fallible<()> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Whether a file's name is one that an export gives to a kernel.
fn is_kernel_file(name: &str) -> bool {
    let number = name.strip_prefix("kernel").and_then(|rest| rest.strip_suffix(".wgsl"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Kernels that an earlier export left in a folder: named by its manifest, or named and begun as our kernels are. A file that is somebody else's, where this export would write, is an error.
fn left_by_an_export(folder: &Path, kernels: usize) -> Fallible<Vec<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let manifest = folder.join("manifest.json");
    let refused = |path: &Path| {
        Err(format!("{}: not of an export of wgloss, and would be written over; choose another folder", path.display()))
    };
    let mut named: Vec<String> = Vec::new();
    if manifest.exists() {
        let text = std::fs::read_to_string(&manifest).unwrap_or_default();
        let old: Value = serde_json::from_str(&text).unwrap_or_default();
        if !old["format"].as_str().is_some_and(|format| format.starts_with("wgloss manifest")) {
            return Ok(refused(&manifest)?);
        }
        let files = old["kernels"].as_array().into_iter().flatten().filter_map(|kernel| kernel["file"].as_str());
        named.extend(files.map(str::to_owned));
    }
    let mut left = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("{}: {error}", folder.display()))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if !is_kernel_file(&name) {
            continue;
        }
        if named.contains(&name) || begins_as_a_kernel(&entry.path()) {
            left.push(entry.path());
        } else if (0..kernels).any(|index| kernel_file(index) == name) {
            return Ok(refused(&entry.path())?);
        }
    }
    Ok(left)
}

/// Whether a file's first line is the title of a kernel: a comment that names a loss.
fn begins_as_a_kernel(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let title = text.lines().next().and_then(|line| line.strip_prefix("// ")).and_then(|line| line.split_once(':'));
    title.is_some_and(|(loss, _)| wgloss::losses::by_name(loss).is_some())
}

pub fn run(args: &Args) -> Fallible<Verdict> {
    let loss = with_options(&args.loss, &args.options)?;
    let loss = match args.reduction {
        Some(Reduce::Mean) => loss.reduction(Reduction::Mean),
        Some(Reduce::MeanOrZero) => loss.reduction(Reduction::MeanOrZero),
        Some(Reduce::Sum) => loss.reduction(Reduction::Sum),
        Some(Reduce::None) => loss.reduction(Reduction::None),
        None => loss,
    };
    if args.upstream && matches!(args.reduction, Some(Reduce::None)) {
        return Err("--upstream: a scalar multiplies the gradient of one value; name another --reduction".into());
    }
    let inputs = inputs(&loss, &args.inputs)?;
    let wrt = loss.differentiable().ok_or("the loss has no input to differentiate by")?;
    let export = Export::new(&loss, &spec(args, &inputs, &wrt))?;
    let present = |name: &str| inputs.iter().any(|input| input.name == name).then_some(false);
    let grads: &[&str] = if args.forward { &[] } else { &[&wrt] };
    let told = expressions(&loss, grads, &present)?;
    let gradients: serde_json::Map<String, Value> =
        told.grads.into_iter().map(|(input, grad)| (format!("d_{input}"), json!(grad))).collect();
    let expression = json!({ "loss": told.loss, "gradients": gradients });

    std::fs::create_dir_all(&args.output).map_err(|error| format!("{}: {error}", args.output.display()))?;
    for stale in left_by_an_export(&args.output, export.kernels.len())? {
        std::fs::remove_file(&stale).map_err(|error| format!("{}: {error}", stale.display()))?;
    }
    for (index, wgsl) in export.kernels.iter().enumerate() {
        write(&args.output.join(kernel_file(index)), wgsl)?;
    }
    let json = serde_json::to_string_pretty(&manifest(&export, args, &expression))?;
    write(&args.output.join("manifest.json"), &format!("{json}\n"))?;

    let mut out = String::new();
    let names: BTreeSet<String> = (0..export.kernels.len()).map(kernel_file).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    let _ = writeln!(out, "{}: manifest.json, {names}", args.output.display());
    let _ = writeln!(out, "for any rows and cols with");
    for condition in &export.conditions {
        let _ = writeln!(out, "    {}  ({})", condition.formula, condition.why);
    }
    text::print(&out)?;
    Ok(Verdict::Right)
}
