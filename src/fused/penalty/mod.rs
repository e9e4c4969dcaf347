//! Penalties on many tensors, as one operator.

mod dispatches;

use crate::dispatch::{Mode, OutputKind, OutputSignature, ParamSignature, Planned, Signature};
use crate::error::{Error, Result};
use crate::expr::op::Kind;
use crate::expr::{InputDecl, ParamDecl};
use crate::limits::Limits;
use crate::loss::check_once;
use crate::losses;
use crate::lower::{Upstream, Wanted};
use crate::plan::check::{check_capacity, check_grad_dtype, missing};
use crate::plan::operator::{Conditions, Operator, Placed, Prepared, Tensors, TuneFacts};
use crate::plan::spec::{GradMode, PlanSpec};
use crate::schedule::{PassSchedule, Pinned};
use crate::shape::{DType, Layout, RowAxis, Scope, ShapeRule};
use std::sync::Arc;

/// Power of the absolute values that a penalty adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    One,
    Two,
}

/// The operator that [`l1_penalty`] and [`l2_penalty`] make.
#[derive(Clone, Copy, Debug)]
pub struct Penalty {
    power: Power,
    lambda: f64,
}

/// L1 penalty of all inputs of the plan together: [`losses::l1_penalty`](crate::losses::l1_penalty) of many tensors.
///
/// `L = λ·Σₜ Σ |wₜ|` over all elements of all tensors.
///
/// Shapes: any number of f32 inputs of any names and shapes, contiguous → one number. Unit: λ times that of `w`.
/// Gradient: `λ·sign(w)` (0 at `w = 0`) of the inputs that it is asked of, written or accumulated.
/// Dispatches and errors: as [`l2_penalty`].
/// Source: Tibshirani (1996), J. R. Statist. Soc. B 58(1).
pub fn l1_penalty(lambda: f64) -> Penalty {
    Penalty { power: Power::One, lambda }
}

/// L2 penalty (weight decay) of all inputs of the plan together:
/// [`losses::l2_penalty`](crate::losses::l2_penalty) of many tensors.
///
/// `L = λ/2 · Σₜ Σ wₜ²` over all elements of all tensors.
///
/// Shapes: any number of f32 inputs of any names and shapes, contiguous → one number. Unit: λ times that of `w²`.
/// Gradient: `λ·w` of the inputs that it is asked of, written or accumulated. `lambda` may change each step
/// ([`Bound::set_param`](crate::Bound::set_param)).
/// Dispatches: a tensor with its gradient takes two bindings of a dispatch, one without takes one, and the partial sums
/// take one: of the 8 that every WebGPU device has, 3 tensors with gradients per dispatch (N tensors: ⌈N/3⌉ + 1), or 7
/// without; where a device has 16, 7 with gradients (⌈N/7⌉ + 1) or 15 without, and of more it takes no more. One
/// dispatch more adds up the partial sums. Each element is read once.
/// Errors: [`Error::Param`] unless `lambda` is finite and ≥ 0; [`Error::DType`] unless all is f32;
/// [`Error::Unsupported`] for strided tensors, gradients in place and whatever else a loss has beside the loss and its
/// gradients; [`Error::Limit`] for tensors larger than a binding; [`Error::Name`] without inputs.
/// Source: Hoerl and Kennard (1970), Technometrics 12(1).
///
/// ```no_run
/// use wgloss::{Bindings, Context, DType, GradMode, PlanSpec, Tensor, fused};
/// # fn main() -> wgloss::Result<()> {
/// let ctx = Context::new()?;
/// let shapes: [(&str, &[usize]); 2] = [("kernel", &[784, 128]), ("bias", &[128])];
/// let (mut spec, mut bindings) = (PlanSpec::new(), Bindings::new());
/// for (name, shape) in shapes {
///     let (w, d_w) = (Tensor::zeros(&ctx, DType::F32, shape)?, Tensor::zeros(&ctx, DType::F32, shape)?);
///     spec = spec.input(name, DType::F32, shape).grad_mode(name, GradMode::Accumulate);
///     bindings = bindings.input(name, &w).grad(name, &d_w);
/// }
/// let bound = ctx.plan(&fused::l2_penalty(1e-4), &spec)?.bind(&bindings)?;
/// bound.submit()?;
/// println!("{}", bound.read_loss()?);
/// # Ok(()) }
/// ```
pub fn l2_penalty(lambda: f64) -> Penalty {
    Penalty { power: Power::Two, lambda }
}

impl Penalty {
    fn name(self) -> &'static str {
        if self.power == Power::One { "l1_penalty" } else { "l2_penalty" }
    }

    /// The domain of `lambda` is that of the loss.
    fn check(self, lambda: f64) -> Result<()> {
        match self.power {
            Power::One => losses::l1_penalty(lambda).check(),
            Power::Two => losses::l2_penalty(lambda).check(),
        }
    }
}

#[derive(Clone)]
struct PreparedPenalty {
    penalty: Penalty,
    limits: Limits,
    /// Shapes of the inputs.
    planned: Vec<Layout>,
    pinned: Pinned,
    signature: Signature,
}

impl Operator for Penalty {
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>> {
        limits.check()?;
        self.check(self.lambda)?;
        check_once("input of the plan", spec.inputs.iter().map(|input| input.0.as_str()))?;
        spec.wanted.check_once()?;
        self.check_outputs(spec)?;
        let prepared = PreparedPenalty {
            penalty: *self,
            limits: limits.clone(),
            planned: spec.inputs.iter().map(|input| input.2.clone()).collect(),
            pinned: spec.pinned,
            signature: self.signature(spec)?,
        };
        prepared.plan(&prepared.planned()?, Conditions::default())?;
        Ok(Arc::new(prepared))
    }
}

impl Penalty {
    fn check_outputs(self, spec: &PlanSpec) -> Result<()> {
        let Wanted { loss: _, grads: _, hessian_diagonals, extras, denominator, upstream, found_inf, groups } =
            &spec.wanted;
        let in_place = spec.modes.iter().any(|(_, mode)| *mode == GradMode::InPlace);
        let as_of_a_loss = !hessian_diagonals.is_empty() || !extras.is_empty() || *denominator || *found_inf;
        let has_groups = spec.group_rows.is_some() || groups.is_some();
        let phases = spec.shard.is_some() || spec.separate_backward || has_groups;
        if as_of_a_loss || phases || in_place || *upstream != Upstream::One || spec.pinned != Pinned::default() {
            let message = format!(
                "gradients in place, Hessians, extras, a denominator, found_inf, an upstream, groups, shards, a separate \
                 backward or a pinned schedule of {}, which has a loss and gradients; scale `lambda` instead",
                self.name()
            );
            return Err(Error::Unsupported { message });
        }
        Ok(())
    }

    fn signature(self, spec: &PlanSpec) -> Result<Signature> {
        let known = || spec.inputs.iter().map(|input| input.0.as_str());
        if spec.inputs.is_empty() {
            let (what, known) = (format!("{} needs at least one input, of any name like", self.name()), String::new());
            return Err(Error::Name { what, name: "w".to_owned(), known });
        }
        for (name, dtype, layout) in &spec.inputs {
            check_input(name, *dtype, layout)?;
        }
        for (name, dtype) in &spec.grad_dtypes {
            check_grad_dtype(spec, name, *dtype)?;
            check_input(&format!("gradient of {name}"), *dtype, &Layout::contiguous(&[]))?;
        }
        let output = |kind: OutputKind, scope: Scope, accumulates: bool| {
            let mode = if accumulates { Mode::Accumulate } else { Mode::Write };
            OutputSignature { kind, mode, dtype: DType::F32, scope }
        };
        let loss = || output(OutputKind::Loss, Scope::Total, spec.accumulate_loss);
        let mut outputs: Vec<OutputSignature> = spec.wanted.loss.then(loss).into_iter().collect();
        for grad in &spec.wanted.grads {
            let input = known().position(|name| name == grad).ok_or_else(|| missing(self.name(), grad, known()))?;
            let accumulates = spec.modes.iter().any(|(name, mode)| name == grad && *mode == GradMode::Accumulate);
            outputs.push(output(OutputKind::Grad(input), Scope::Element, accumulates));
        }
        if outputs.is_empty() {
            let message = "no output was asked for".to_owned();
            return Err(Error::Expr { loss: self.name().to_owned(), message });
        }
        let lambda = ParamDecl { name: "lambda".to_owned(), kind: Kind::Float, value: self.lambda };
        let input = |name: &str| InputDecl {
            unsigned: false,
            classes: None,
            name: name.to_owned(),
            scope: Scope::Element,
            kind: Kind::Float,
            shape_rule: ShapeRule::Broadcast,
        };
        Ok(Signature {
            name: self.name().to_owned(),
            inputs: known().map(input).collect(),
            outputs,
            params: vec![ParamSignature { decl: lambda, indices: [0.0; 2] }],
            row_axis: RowAxis::None,
        })
    }
}

/// Tensors are contiguous, in f32.
fn check_input(name: &str, dtype: DType, layout: &Layout) -> Result<()> {
    if dtype != DType::F32 {
        let (expected, found) = ("f32".to_owned(), dtype.to_string());
        return Err(Error::DType { input: name.to_owned(), expected, found });
    }
    if *layout != Layout::contiguous(&layout.shape) && !layout.is_empty() {
        let message = format!("a penalty on the strided tensor `{name}`; make a contiguous copy");
        return Err(Error::Unsupported { message });
    }
    Ok(())
}

impl Prepared for PreparedPenalty {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn check_inputs(&self, given: &[(&str, DType, &[usize])]) -> Result<()> {
        check_once("input", given.iter().map(|input| input.0))?;
        let names = || self.signature.inputs.iter().map(|input| input.name.as_str());
        if let Some((unknown, ..)) = given.iter().find(|input| self.signature.input(input.0).is_none()) {
            let what = "the plan was made without the input".to_owned();
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(Error::Name { what, name: (*unknown).to_owned(), known });
        }
        for (name, planned) in names().zip(&self.planned) {
            let Some((_, dtype, shape)) = given.iter().find(|input| input.0 == name) else {
                return Err(missing(self.penalty.name(), name, given.iter().map(|input| input.0)));
            };
            check_capacity(name, (DType::F32, &planned.shape), (*dtype, shape))?;
        }
        Ok(())
    }

    fn planned(&self) -> Result<Tensors> {
        let inputs: Vec<Option<Placed>> =
            self.planned.iter().map(|layout| Some(Placed::planned(layout.clone(), DType::F32))).collect();
        let shapes = self.output_shapes(&inputs)?;
        let outputs = shapes.iter().map(|shape| Placed::planned(Layout::contiguous(shape), DType::F32)).collect();
        Ok(Tensors { inputs, outputs })
    }

    fn output_shapes(&self, inputs: &[Option<Placed>]) -> Result<Vec<Vec<usize>>> {
        let shape = |output: &OutputSignature| match output.kind {
            OutputKind::Grad(input) => inputs[input].as_ref().map(|placed| placed.layout.shape.clone()),
            _ => None,
        };
        Ok(self.signature.outputs.iter().map(|output| shape(output).unwrap_or_default()).collect())
    }

    fn plan(&self, tensors: &Tensors, conditions: Conditions) -> Result<Planned> {
        let names = self.signature.inputs.iter().map(|input| input.name.clone());
        let named = names.zip(tensors.inputs.iter().flatten());
        let outputs = self.signature.outputs.iter().map(|output| self.signature.output_name(&output.kind));
        for (name, placed) in named.chain(outputs.zip(&tensors.outputs)) {
            check_input(&name, placed.dtype, &placed.layout)?;
        }
        let (mut dispatches, mut partials, mut bytes) = (Vec::new(), 0, 4);
        for penalized in self.dispatched()? {
            let dispatch = self.dispatch(&penalized, tensors, conditions.pooled, partials)?;
            partials += dispatch.grid[0];
            // Empty tensors take no workgroup.
            dispatches.extend((dispatch.grid[0] > 0).then_some(dispatch));
            for tensor in penalized {
                let length = tensors.inputs[tensor.input].as_ref().map_or(0, |placed| placed.layout.len() as u64);
                bytes += 4 * length * (1 + u64::from(tensor.grad.is_some()));
            }
        }
        dispatches.extend(self.sum(tensors, partials));
        // The status word, which nothing sets.
        let scalar_words = 1;
        let phases = vec![dispatches.len()];
        Ok(Planned { dispatches, phases, workspace: partials, bytes, scalar_words, ..Planned::default() })
    }

    fn explain(&self, tensors: &Tensors, conditions: Conditions, adapter: &str) -> Result<String> {
        let planned = self.plan(tensors, conditions)?;
        let (name, count) = (self.penalty.name(), self.planned.len());
        let groups = planned.workspace;
        Ok(format!(
            "{name}: {count} tensors, on {adapter}\n{groups} workgroups of {}; each element is read once\nmust move {} \
             B\ndoes move {} B, partial sums too; {} dispatches\n",
            self.workgroup(),
            planned.bytes,
            // A partial sum per workgroup is written, and read.
            planned.bytes + 8 * groups,
            planned.dispatches.len()
        ))
    }

    fn param(&self, name: &str, value: f64) -> Result<Option<usize>> {
        let found = self.signature.params.iter().position(|param| param.decl.name == name);
        let param = found.ok_or_else(|| self.signature.no_param(name))?;
        self.penalty.check(value)?;
        Ok(Some(param))
    }

    fn pinned(&self) -> Pinned {
        self.pinned
    }

    fn pin(&self, pinned: Pinned) -> Arc<dyn Prepared> {
        Arc::new(PreparedPenalty { pinned, ..self.clone() })
    }

    fn schedules(&self) -> Result<Vec<PassSchedule>> {
        Ok(Vec::new())
    }

    fn candidates(&self) -> Result<Vec<Pinned>> {
        Ok(vec![self.pinned])
    }

    fn tune_facts(&self) -> Result<TuneFacts> {
        let lengths = self.planned.iter().map(|layout| layout.len() as u64);
        let tensors = self.signature.inputs.iter().map(|input| format!("{} f32", input.name));
        let kernels = self.plan(&self.planned()?, Conditions::default())?.kernels();
        Ok(TuneFacts { rows: 1, cols: lengths.sum(), tensors: tensors.collect(), alignment: Vec::new(), kernels })
    }
}
