//! Lovász softmax: three plans one after the other. Classes are a row of the softmax, the voxels of a class a row of the sort.

use crate::cpu::{self, CpuOutput, HostTensor};
use crate::dispatch::{Mode, OutputKind, OutputSignature, Planned, Signature, Slot};
use crate::error::{Error, Result};
use crate::fused::cpu::HostOperator;
use crate::limits::Limits;
use crate::loss::{Denominator, Loss, Reduction, UPSTREAM, Unreduced};
use crate::losses::lovasz;
use crate::lower::{Upstream, Wanted};
use crate::plan::merge::{Indices, merged};
use crate::plan::operator::{Conditions, Operator, Placed, Prepared, Tensors, TuneFacts};
use crate::plan::spec::PlanSpec;
use crate::schedule::{PassSchedule, Pinned};
use crate::shape::{DType, Layout, RowAxis, Scope};
use std::sync::Arc;

/// The extra outputs, which one plan leaves for the next.
const PROBABILITIES: &str = "probabilities";
const D_PROBABILITIES: &str = "d_probabilities";

/// The operator that [`lovasz_softmax`] makes.
#[derive(Clone, Debug)]
pub struct LovaszSoftmax {
    present: bool,
    per_image: bool,
    reduction: Reduction,
}

/// Lovász softmax: a surrogate of the mean Jaccard loss (one minus the intersection over union) of the classes of a segmentation.
///
/// `L = mean over the classes c of Σₖ eₖ·(Jₖ − Jₖ₋₁)`, with `p = softmax(input)`, the errors `e = |[target = c] − p_c|` of all voxels in
/// descending order, equal ones by their place, and `Jₖ` the Jaccard loss of class `c` where the `k` largest are wrong, as in
/// [`lovasz_hinge`](crate::losses::lovasz_hinge).
///
/// Shapes: `input: [N, C, d1, …]` in f32, f16 or bf16, `target: [N, d1, …]` class indices → one loss of the batch, or with
/// `per_image(true)` one per image. Unit: none; the mean divides by the number of images. The classes that count are those of
/// which the image (the batch) has a voxel, or with `classes("all")` all.
/// Gradient: with respect to `input`. Extra outputs: `probabilities` and, beside a gradient, `d_probabilities`, of shape
/// `[N, C, d1, …]` per image, else `[C, N, d1, …]`, in f32: what one of the three plans leaves for the next.
/// Cost: a softmax, a sort and two scans of each class, and the softmax again for the gradient; a row is sorted by one
/// workgroup.
/// Errors: `Error::LabelOutOfRange` when a result with such a label is read; `Error::Param` unless `classes` is `present` or
/// `all`; `Error::Unsupported` for shards, groups, `found_inf`, a separate backward, and pinned schedules.
/// Source: Berman, Triki and Blaschko (2018), CVPR, arXiv:1705.08790, whose code counts the classes `present` in the batch, as
/// segmentation-models-pytorch does; kornia counts all, per image.
///
/// ```
/// use wgloss::{HostTensor, fused};
/// # fn main() -> wgloss::Result<()> {
/// let x = [0.0f32; 4];                                          // two voxels, two classes
/// let inputs = [("input", HostTensor::f32(&x, &[1, 2, 2])), ("target", HostTensor::i32(&[0, 1], &[1, 2]))];
/// let out = fused::cpu::forward_backward(&fused::lovasz_softmax(), &inputs, &["input"])?;
/// assert!((out.loss()? - 0.5).abs() < 1e-12);
/// # Ok(()) }
/// ```
pub fn lovasz_softmax() -> LovaszSoftmax {
    LovaszSoftmax { present: true, per_image: false, reduction: Reduction::Mean }
}

impl LovaszSoftmax {
    /// The classes that count: those `present` in the image or batch (the default), or `all`.
    ///
    /// # Errors
    /// [`Error::Param`] of another word.
    pub fn classes(self, classes: &str) -> Result<LovaszSoftmax> {
        match classes {
            "present" | "all" => Ok(LovaszSoftmax { present: classes == "present", ..self }),
            other => Err(Error::Param {
                loss: "lovasz_softmax".to_owned(),
                param: "classes".to_owned(),
                found: other.to_owned(),
                allowed: "present or all".to_owned(),
            }),
        }
    }

    /// Whether each image has a loss of its own, or the batch one (the default).
    #[must_use]
    pub fn per_image(self, yes: bool) -> LovaszSoftmax {
        LovaszSoftmax { per_image: yes, ..self }
    }

    /// How the losses of images become one number: their mean by default.
    #[must_use]
    pub fn reduction(self, reduction: Reduction) -> LovaszSoftmax {
        LovaszSoftmax { reduction, ..self }
    }

    /// A loss of which the gradient is the softmax over the classes, and labels are checked.
    fn softmax(&self) -> Loss {
        let definition = Loss::define("lovasz_softmax: softmax").row_axis(RowAxis::Class);
        let loss = definition.input("input", Scope::Element).label("target").expr(|b| {
            let is_label = b.graph().index(0).le(b.input("target").in_columns());
            b.input("input").logsumexp().masked(is_label)
        });
        loss.reduction(Reduction::Sum)
    }

    /// The loss of probabilities `[images, classes, d1, …]`, one row per image and class.
    fn of_probabilities(&self, classes: usize) -> Loss {
        let present = self.present;
        let definition = Loss::define("lovasz_softmax: sort").row_axis(RowAxis::From(2));
        let definition = definition.input(PROBABILITIES, Scope::Element).labels("target", Scope::Element);
        let loss = definition.unreduced(move |b| {
            let (p, classes) = (b.input(PROBABILITIES), b.graph().constant(classes as f64));
            // Numbers of rows are whole: half a row more rounds to no other class.
            let row = b.graph().row_index().to_float();
            let class = row - classes * ((row + 0.5) / classes).floor();
            let is_class = b.input("target").to_float().equals(class);
            let of_class = lovasz(is_class.select(1.0 - p, p), is_class.to_float(), |error| error);
            let counts = is_class.to_float().max();
            let value = match present {
                true => of_class.masked(counts.gt(0.0)).sum_over(Scope::Group) / counts.sum_over(Scope::Group),
                false => of_class.sum_over(Scope::Group) / classes,
            };
            Unreduced { value, denominator: Denominator::Count }
        });
        loss.reduction(self.reduction.clone())
    }

    /// A loss of which the gradient is that of the softmax, given the gradient of its probabilities.
    fn backward(&self) -> Loss {
        let definition = Loss::define("lovasz_softmax: backward").row_axis(RowAxis::Class);
        let definition = definition.input("input", Scope::Element).input(D_PROBABILITIES, Scope::Element);
        let loss = definition.expr(|b| (b.input("input").softmax() * b.input(D_PROBABILITIES).detach()).sum());
        loss.reduction(Reduction::Sum)
    }
}

/// Sizes and layouts of the three plans' tensors.
struct Shapes {
    per_image: bool,
    /// `[N, C, d1, …]`
    input: Vec<usize>,
}

impl Shapes {
    fn new(per_image: bool, input: &[usize]) -> Result<Shapes> {
        if input.len() < 2 {
            return Err(Error::Shape {
                input: "input".to_owned(),
                expected: "[N, C, d1, …]".to_owned(),
                found: input.to_vec(),
            });
        }
        Ok(Shapes { per_image, input: input.to_vec() })
    }

    fn classes(&self) -> usize {
        self.input[1]
    }

    /// Shape of the probabilities as they are stored: the voxels of a class next to each other.
    fn stored(&self) -> Vec<usize> {
        let mut shape = self.input.clone();
        if !self.per_image {
            shape.swap(0, 1);
        }
        shape
    }

    /// The stored tensor in the order of the input's axes.
    fn by_input(&self, stored: &Layout) -> Layout {
        let mut layout = stored.clone();
        if !self.per_image {
            layout.shape.swap(0, 1);
            layout.strides.swap(0, 1);
        }
        layout
    }

    /// The stored tensor as `[images, classes, …]`; the batch is one image.
    fn by_row(&self, stored: &Layout) -> Layout {
        let mut layout = stored.clone();
        if !self.per_image {
            layout.shape.insert(0, 1);
            layout.strides.insert(0, 0);
        }
        layout
    }

    /// The labels, the same for each class, beside such a tensor.
    fn labels(&self, target: &Layout) -> Layout {
        let mut layout = target.clone();
        let axis = usize::from(self.per_image);
        layout.shape.insert(axis, self.classes());
        layout.strides.insert(axis, 0);
        if !self.per_image {
            layout.shape.insert(0, 1);
            layout.strides.insert(0, 0);
        }
        layout
    }
}

/// One of the plans, and where its tensors are among those of all.
#[derive(Clone)]
struct Step {
    prepared: Arc<dyn Prepared>,
    indices: Indices,
}

#[derive(Clone)]
struct PreparedLovasz {
    per_image: bool,
    /// Shape of the input that was planned.
    input: Vec<usize>,
    steps: Vec<Step>,
    signature: Signature,
    alignment: u64,
}

impl Operator for LovaszSoftmax {
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>> {
        check_spec(spec)?;
        let given = |name: &str| {
            spec.inputs.iter().find(|(input, ..)| input == name).cloned().ok_or_else(|| Error::Name {
                what: "lovasz_softmax needs the input".to_owned(),
                name: name.to_owned(),
                known: spec.inputs.iter().map(|input| input.0.as_str()).collect::<Vec<_>>().join(", "),
            })
        };
        let (input, target) = (given("input")?, given("target")?);
        let shapes = Shapes::new(self.per_image, &input.2.shape)?;
        let stored = Layout::contiguous(&shapes.stored());
        let wants_grad = !spec.wanted.grads.is_empty();
        let softmax = PlanSpec::new().without_loss().grad("input").grad_dtype("input", DType::F32);
        let softmax = PlanSpec { inputs: vec![input.clone(), target.clone()], ..softmax };
        let labels = (target.0.clone(), target.1, shapes.labels(&target.2));
        let rows = (PROBABILITIES.to_owned(), DType::F32, shapes.by_row(&stored));
        let upstream = spec.inputs.iter().filter(|(name, ..)| name == UPSTREAM).cloned();
        let sort = PlanSpec {
            inputs: [rows, labels].into_iter().chain(upstream).collect(),
            accumulate_loss: spec.accumulate_loss,
            wanted: Wanted { upstream: spec.wanted.upstream, loss: spec.wanted.loss, ..Wanted::default() },
            ..PlanSpec::default()
        };
        let sort = if wants_grad { sort.grad(PROBABILITIES) } else { sort };
        let mut signature = Signature { name: "lovasz_softmax".to_owned(), ..Signature::default() };
        let mut steps = vec![self.softmax().prepare(&softmax, limits)?];
        steps.push(self.of_probabilities(shapes.classes()).prepare(&sort, limits)?);
        signature.inputs = steps[0].signature().inputs.clone();
        signature.inputs.extend(steps[1].signature().inputs.iter().filter(|input| input.name == UPSTREAM).cloned());
        signature.row_axis = RowAxis::Class;
        signature.outputs =
            steps[1].signature().outputs.iter().filter(|o| o.kind == OutputKind::Loss).cloned().collect();
        if wants_grad {
            let gradient = (D_PROBABILITIES.to_owned(), DType::F32, shapes.by_input(&stored));
            let backward = PlanSpec {
                inputs: vec![input.clone(), gradient],
                modes: spec.modes.clone(),
                grad_dtypes: spec.grad_dtypes.clone(),
                ..PlanSpec::new().without_loss()
            };
            let backward =
                PlanSpec { wanted: Wanted { grads: spec.wanted.grads.clone(), ..backward.wanted.clone() }, ..backward };
            steps.push(self.backward().prepare(&backward, limits)?);
            let input = signature.input("input").expect("the softmax reads it");
            signature.outputs.extend(steps[2].signature().outputs.iter().map(|own| of_input(own, input)));
        }
        for name in [Some(PROBABILITIES), wants_grad.then_some(D_PROBABILITIES)].into_iter().flatten() {
            let kind = OutputKind::Extra(name.to_owned());
            signature.outputs.push(OutputSignature {
                kind,
                mode: Mode::Write,
                dtype: DType::F32,
                scope: Scope::Element,
            });
        }
        let steps = steps.into_iter().enumerate().map(|(step, prepared)| {
            let indices = indices(step, prepared.signature(), &signature);
            Step { prepared, indices }
        });
        let steps = steps.collect();
        let alignment = u64::from(limits.offset_alignment);
        let (per_image, input) = (self.per_image, shapes.input);
        Ok(Arc::new(PreparedLovasz { per_image, input, steps, signature, alignment }))
    }
}

/// An error for what the operator has not.
fn check_spec(spec: &PlanSpec) -> Result<()> {
    let Wanted { loss: _, grads, hessian_diagonals, extras, denominator, upstream, found_inf, groups } = &spec.wanted;
    let known = [PROBABILITIES, D_PROBABILITIES];
    if let Some(name) = extras.iter().find(|name| !known.contains(&name.as_str())) {
        let what = "lovasz_softmax has no extra output".to_owned();
        return Err(Error::Name { what, name: name.clone(), known: known.join(", ") });
    }
    if let Some(name) = grads.iter().find(|name| *name != "input") {
        let what = "lovasz_softmax has no gradient for".to_owned();
        return Err(Error::Name { what, name: name.clone(), known: "input".to_owned() });
    }
    let of_a_loss = *denominator || *found_inf || *upstream == Upstream::PerLoss || !hessian_diagonals.is_empty();
    let grouped = spec.group_rows.is_some() || groups.is_some() || spec.shard.is_some() || spec.separate_backward;
    if of_a_loss || grouped || spec.pinned != Pinned::default() {
        let message = "a denominator, found_inf, an upstream per loss, Hessian diagonals, groups, shards, a separate backward or \
                       a pinned schedule of lovasz_softmax, which is three plans; it takes an upstream scalar";
        return Err(Error::Unsupported { message: message.to_owned() });
    }
    Ok(())
}

/// Where the tensors of a step are among those of all.
fn indices(step: usize, own: &Signature, all: &Signature) -> Indices {
    let output = |kind: &OutputKind| {
        all.outputs.iter().position(|output| output.kind == *kind).expect("every step's outputs are among all")
    };
    let extra = |name: &str| output(&OutputKind::Extra(name.to_owned()));
    let input = |name: &str| match name {
        PROBABILITIES | D_PROBABILITIES => Slot::Output(extra(name)),
        other => Slot::Input(all.input(other).expect("every step's other inputs are among all")),
    };
    let kept = |kind: &OutputKind| match (step, kind) {
        (0, _) => extra(PROBABILITIES),
        (1, OutputKind::Grad(_)) => extra(D_PROBABILITIES),
        (2, _) => all.outputs.iter().position(|output| is_grad(&output.kind)).expect("the gradient is among all"),
        (_, kind) => output(kind),
    };
    Indices {
        inputs: own.inputs.iter().map(|decl| input(&decl.name)).collect(),
        outputs: own.outputs.iter().map(|output| kept(&output.kind)).collect(),
        first_param: 0,
    }
}

/// The gradient as an output of all, of which the input has that index.
fn of_input(own: &OutputSignature, input: usize) -> OutputSignature {
    let mode = if let Mode::InPlace(_) = own.mode { Mode::InPlace(input) } else { own.mode };
    OutputSignature { kind: OutputKind::Grad(input), mode, ..own.clone() }
}

impl PreparedLovasz {
    fn shapes(&self, tensors: &[Option<Placed>]) -> Result<Shapes> {
        let index = self.signature.input("input").expect("the softmax reads it");
        let shape = tensors[index].as_ref().map_or(&self.input, |placed| &placed.layout.shape);
        Shapes::new(self.per_image, shape)
    }

    /// The tensors of a step.
    fn tensors_of(&self, step: usize, all: &Tensors) -> Result<Tensors> {
        let (shapes, Step { prepared, indices }) = (self.shapes(&all.inputs)?, &self.steps[step]);
        let seen = |name: &str, placed: &Placed| {
            let layout = match (step, name) {
                (1, "target") => shapes.labels(&placed.layout),
                (1, PROBABILITIES) => shapes.by_row(&placed.layout),
                (2, D_PROBABILITIES) => shapes.by_input(&placed.layout),
                _ => placed.layout.clone(),
            };
            Placed { layout, ..placed.clone() }
        };
        let inputs = indices.inputs.iter().zip(&prepared.signature().inputs).map(|(slot, decl)| match *slot {
            Slot::Input(input) => all.inputs[input].as_ref().map(|placed| seen(&decl.name, placed)),
            Slot::Output(output) => Some(seen(&decl.name, &all.outputs[output])),
            other => unreachable!("inputs of steps are inputs and outputs of all, not {other:?}"),
        });
        let outputs = indices.outputs.iter().zip(&prepared.signature().outputs).map(|(output, own)| {
            let placed = &all.outputs[*output];
            let layout = match (step, &own.kind) {
                (0, _) => shapes.by_input(&placed.layout),
                (1, OutputKind::Grad(_)) => shapes.by_row(&placed.layout),
                _ => placed.layout.clone(),
            };
            Placed { layout, ..placed.clone() }
        });
        Ok(Tensors { inputs: inputs.collect(), outputs: outputs.collect() })
    }
}

impl Prepared for PreparedLovasz {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn check_inputs(&self, given: &[(&str, DType, &[usize])]) -> Result<()> {
        let of_rows: Vec<_> = given.iter().filter(|(name, ..)| *name != UPSTREAM).copied().collect();
        self.steps[0].prepared.check_inputs(&of_rows)
    }

    fn planned(&self) -> Result<Tensors> {
        let mut inputs = self.steps[0].prepared.planned()?.inputs;
        if self.signature.inputs.len() > inputs.len() {
            let of_sort = self.steps[1].prepared.planned()?.inputs;
            inputs.extend(of_sort.into_iter().last());
        }
        let shapes = self.output_shapes(&inputs)?;
        let outputs = shapes.iter().zip(&self.signature.outputs);
        let outputs = outputs.map(|(shape, output)| Placed::planned(Layout::contiguous(shape), output.dtype)).collect();
        Ok(Tensors { inputs, outputs })
    }

    fn output_shapes(&self, inputs: &[Option<Placed>]) -> Result<Vec<Vec<usize>>> {
        let shapes = self.shapes(inputs)?;
        let is_none = self.steps[1].prepared.signature().outputs.iter().any(|o| o.scope == Scope::Group);
        let shape = |output: &OutputSignature| match &output.kind {
            OutputKind::Loss if is_none && self.per_image => vec![shapes.input[0]],
            OutputKind::Loss if is_none => vec![1],
            OutputKind::Loss => Vec::new(),
            OutputKind::Extra(_) => shapes.stored(),
            _ => shapes.input.clone(),
        };
        Ok(self.signature.outputs.iter().map(shape).collect())
    }

    fn plan(&self, tensors: &Tensors, conditions: Conditions) -> Result<Planned> {
        let planned = (0..self.steps.len()).map(|step| {
            let Step { prepared, indices } = &self.steps[step];
            Ok((prepared.plan(&self.tensors_of(step, tensors)?, conditions)?, indices))
        });
        Ok(merged(planned.collect::<Result<Vec<_>>>()?, self.alignment))
    }

    fn explain(&self, tensors: &Tensors, conditions: Conditions, adapter: &str) -> Result<String> {
        let each = (0..self.steps.len())
            .map(|step| self.steps[step].prepared.explain(&self.tensors_of(step, tensors)?, conditions, adapter));
        Ok(each.collect::<Result<Vec<String>>>()?.join("\nthen\n"))
    }

    fn param(&self, name: &str, _: f64) -> Result<Option<usize>> {
        Err(self.signature.no_param(name))
    }

    fn pinned(&self) -> Pinned {
        Pinned::default()
    }

    fn pin(&self, _: Pinned) -> Arc<dyn Prepared> {
        Arc::new(self.clone())
    }

    fn schedules(&self) -> Result<Vec<PassSchedule>> {
        let each = self.steps.iter().map(|step| step.prepared.schedules()).collect::<Result<Vec<_>>>()?;
        Ok(each.concat())
    }

    fn candidates(&self) -> Result<Vec<Pinned>> {
        let message = "tuning lovasz_softmax, which is three plans with schedules of their own".to_owned();
        Err(Error::Unsupported { message })
    }

    fn tune_facts(&self) -> Result<TuneFacts> {
        self.candidates().map(|_| unreachable!("it has no candidates"))
    }
}

impl HostOperator for LovaszSoftmax {
    fn on_host(&self, inputs: &[(&str, HostTensor<'_>)], wanted: &Wanted) -> Result<CpuOutput<f64>> {
        check_spec(&PlanSpec { wanted: wanted.clone(), ..PlanSpec::default() })?;
        let softmax = cpu::run::<f64>(&self.softmax(), inputs, &grads_of("input", false))?;
        let input = inputs.iter().find(|(name, _)| *name == "input").expect("the softmax has run");
        let target = inputs.iter().find(|(name, _)| *name == "target").expect("the softmax has run");
        let shapes = Shapes::new(self.per_image, input.1.shape())?;
        let p = reordered(&shapes, softmax.unchecked(is_grad), false);
        let rows = shapes.by_row(&Layout::contiguous(&shapes.stored())).shape;
        let labels = target.1.clone().with_layout(shapes.labels(target.1.layout()));
        let of_rows = [(PROBABILITIES, HostTensor::f64(&p, &rows)), ("target", labels)];
        let wants_grad = !wanted.grads.is_empty();
        let sort = cpu::run::<f64>(
            &self.of_probabilities(shapes.classes()),
            &of_rows,
            &Wanted { loss: true, ..grads_of(PROBABILITIES, !wants_grad) },
        )?;
        let mut outputs = Vec::new();
        if wanted.loss {
            let values = sort.unchecked(|kind| *kind == OutputKind::Loss).to_vec();
            let shape =
                if values.len() == 1 && self.reduction != Reduction::None { vec![] } else { vec![values.len()] };
            outputs.push((OutputKind::Loss, String::new(), shape, values));
        }
        if wants_grad {
            let d_p = reordered(&shapes, sort.unchecked(is_grad), true);
            let of_classes = [input.clone(), (D_PROBABILITIES, HostTensor::f64(&d_p, &shapes.input))];
            let out = cpu::run::<f64>(&self.backward(), &of_classes, &grads_of("input", false))?;
            outputs.push((OutputKind::Grad(0), "input".to_owned(), shapes.input.clone(), out.grad("input")?.to_vec()));
        }
        Ok(CpuOutput::of_operator(outputs, softmax.bad_label, None))
    }
}

fn is_grad(kind: &OutputKind) -> bool {
    matches!(kind, OutputKind::Grad(_))
}

/// The gradient of one input, unless there is none.
fn grads_of(name: &str, none: bool) -> Wanted {
    let grads = if none { Vec::new() } else { vec![name.to_owned()] };
    Wanted { grads, ..Wanted::default() }
}

/// Values in the order of the stored tensor from those in the order of the input, or, `back`, the other way.
fn reordered(shapes: &Shapes, values: &[f64], back: bool) -> Vec<f64> {
    let (n, classes) = (shapes.input[0], shapes.classes());
    if shapes.per_image {
        return values.to_vec();
    }
    let [outer, inner] = if back { [classes, n] } else { [n, classes] };
    let each = values.len() / (n * classes).max(1);
    let block = |k: usize| (k % outer * inner + k / outer) * each;
    (0..n * classes).flat_map(|k| values[block(k)..][..each].to_vec()).collect()
}
