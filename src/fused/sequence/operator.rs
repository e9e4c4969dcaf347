//! What the operators over sequences share: specifications checked, signatures, and the plan's trait.

use super::problem::Problem;
use super::space::Sizes;
use crate::dispatch::{Mode, OutputKind, OutputSignature, Planned, Signature};
use crate::error::{Error, Result};
use crate::expr::InputDecl;
use crate::expr::op::Kind;
use crate::limits::Limits;
use crate::loss::check_once;
use crate::lower::{Upstream, Wanted};
use crate::plan::check::{check_grad_dtype, check_written, missing};
use crate::plan::operator::{Conditions, Placed, Prepared, Tensors, TuneFacts};
use crate::plan::spec::{GradMode, PlanSpec};
use crate::schedule::{PassSchedule, Pinned};
use crate::shape::{DType, Layout, RowAxis, Scope, ShapeRule};
use std::sync::Arc;

/// The numbers that an input holds, and whether it has a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// f32, f16 or bf16, with a gradient, which may take its place.
    Classes,
    /// f32, with a gradient.
    Weights,
    /// i32 or u32.
    Indices,
    /// f32 without a gradient: 1 past the end, else 0.
    Padding,
}

impl Role {
    pub fn kind(self) -> Kind {
        if self == Role::Indices { Kind::Int } else { Kind::Float }
    }

    pub fn is_differentiable(self) -> bool {
        matches!(self, Role::Classes | Role::Weights)
    }

    fn takes(self, dtype: DType) -> bool {
        match self {
            Role::Classes => dtype.is_float(),
            Role::Weights | Role::Padding => dtype == DType::F32,
            Role::Indices => !dtype.is_float(),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Role::Classes => "f32, f16 or bf16",
            Role::Weights => "f32",
            Role::Indices => "i32 or u32",
            Role::Padding => "f32 (1 past the end, else 0)",
        }
    }
}

/// An operator over sequences: what differs between them. GPU and CPU go by the same names, roles and shapes.
pub(super) trait Sequence: Clone + Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// Errors of its options.
    fn check(&self) -> Result<()>;

    /// Its inputs, in order.
    fn inputs(&self) -> &'static [(&'static str, Role)];

    /// Extra outputs that it has.
    fn extras(&self) -> &'static [&'static str] {
        &[]
    }

    /// Sizes of its tensors, in the order of its inputs; an error unless they go together, and with its options.
    fn sizes(&self, shapes: &[&[usize]]) -> Result<Sizes>;

    /// Shape of its loss, or of an extra output, for inputs of these shapes.
    fn output_shape(&self, kind: &OutputKind, shapes: &[&[usize]]) -> Vec<usize>;

    /// The dispatches, but for bytes.
    fn dispatches(&self, problem: &Problem<'_>) -> Result<Planned>;

    /// Its kernels and its workspace, in words.
    fn explained(&self, problem: &Problem<'_>) -> Result<String>;
}

/// Errors of an input's element type.
fn check_role(name: &str, role: Role, dtype: DType) -> Result<()> {
    if role.takes(dtype) {
        return Ok(());
    }
    let (expected, found) = (role.expected().to_owned(), dtype.to_string());
    Err(Error::DType { input: name.to_owned(), expected, found })
}

/// Indices among `given` of the operator's inputs; an error for one that is missing or unknown.
pub(super) fn in_order(operator: &impl Sequence, given: &[&str]) -> Result<Vec<usize>> {
    check_once("input", given.iter().copied())?;
    let names = || operator.inputs().iter().map(|(name, _)| *name);
    if let Some(unknown) = given.iter().find(|name| !names().any(|known| known == **name)) {
        let (what, known) = (format!("{} has no input", operator.name()), names().collect::<Vec<_>>().join(", "));
        return Err(Error::Name { what, name: (*unknown).to_owned(), known });
    }
    let index = |name: &str| {
        let found = given.iter().position(|known| *known == name);
        found.ok_or_else(|| missing(operator.name(), name, given.iter().copied()))
    };
    names().map(index).collect()
}

/// The outputs that are asked for; an error for those that the operator has not.
fn outputs(operator: &impl Sequence, spec: &PlanSpec, dtypes: &[DType]) -> Result<Vec<OutputSignature>> {
    let name = operator.name();
    let Wanted { loss, grads, hessian_diagonals, extras, denominator, upstream, found_inf, groups } = &spec.wanted;
    let as_of_a_loss = !hessian_diagonals.is_empty() || *denominator || *found_inf || *upstream != Upstream::One;
    let phases = spec.shard.is_some() || spec.separate_backward || spec.group_rows.is_some() || groups.is_some();
    if as_of_a_loss || phases || spec.pinned != Pinned::default() {
        let message = format!(
            "Hessians, a denominator, found_inf, an upstream, groups, shards, a separate backward or a pinned schedule of \
             {name}, which has a loss, gradients and {} extra outputs",
            operator.extras().len()
        );
        return Err(Error::Unsupported { message });
    }
    let loss_mode = if spec.accumulate_loss { Mode::Accumulate } else { Mode::Write };
    let output = |kind, mode, dtype, scope| OutputSignature { kind, mode, dtype, scope };
    let mut all = Vec::new();
    all.extend(loss.then(|| output(OutputKind::Loss, loss_mode, DType::F32, Scope::Row)));
    for extra in extras {
        if !operator.extras().contains(&extra.as_str()) {
            let what = format!("{name} has no extra output");
            return Err(Error::Name { what, name: extra.clone(), known: operator.extras().join(", ") });
        }
        all.push(output(OutputKind::Extra(extra.clone()), Mode::Write, DType::F32, Scope::Element));
    }
    for grad in grads {
        all.push(gradient(operator, spec, grad, dtypes)?);
    }
    if all.is_empty() {
        return Err(Error::Expr { loss: name.to_owned(), message: "no output was asked for".to_owned() });
    }
    Ok(all)
}

fn gradient(operator: &impl Sequence, spec: &PlanSpec, grad: &str, dtypes: &[DType]) -> Result<OutputSignature> {
    let differentiable = || operator.inputs().iter().filter(|(_, role)| role.is_differentiable());
    let input = operator.inputs().iter().position(|known| known.0 == grad);
    let Some(input) = input.filter(|input| operator.inputs()[*input].1.is_differentiable()) else {
        let what = format!("{} has no gradient with respect to", operator.name());
        let known = differentiable().map(|known| known.0).collect::<Vec<_>>().join(", ");
        return Err(Error::Name { what, name: grad.to_owned(), known });
    };
    let given = spec.grad_dtypes.iter().find(|known| known.0 == grad).map(|known| known.1);
    let dtype = given.unwrap_or(dtypes[input]);
    let role = operator.inputs()[input].1;
    check_role(&format!("gradient of {grad}"), role, dtype)?;
    let mode = match spec.modes.iter().find(|known| known.0 == grad).map(|known| known.1) {
        Some(GradMode::Accumulate) => Mode::Accumulate,
        Some(GradMode::InPlace) if role == Role::Classes => Mode::InPlace(input),
        Some(GradMode::InPlace) => {
            let message = format!("an in-place gradient of `{grad}`; ask for one of its own");
            return Err(Error::Unsupported { message });
        }
        _ => Mode::Write,
    };
    Ok(OutputSignature { kind: OutputKind::Grad(input), mode, dtype, scope: Scope::Element })
}

/// Checks a specification of an operator over sequences, and plans it once.
pub(super) fn prepare(operator: &impl Sequence, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>> {
    limits.check()?;
    operator.check()?;
    spec.wanted.check_once()?;
    let given: Vec<&str> = spec.inputs.iter().map(|input| input.0.as_str()).collect();
    let inputs: Vec<_> = in_order(operator, &given)?.into_iter().map(|index| &spec.inputs[index]).collect();
    for ((name, role), (_, dtype, _)) in operator.inputs().iter().zip(&inputs) {
        check_role(name, *role, *dtype)?;
    }
    for (name, dtype) in &spec.grad_dtypes {
        check_grad_dtype(spec, name, *dtype)?;
    }
    let dtypes: Vec<DType> = inputs.iter().map(|input| input.1).collect();
    let decl = |(name, role): &(&str, Role)| InputDecl {
        unsigned: false,
        classes: None,
        name: (*name).to_owned(),
        scope: Scope::Element,
        kind: role.kind(),
        shape_rule: ShapeRule::Broadcast,
    };
    let signature = Signature {
        name: operator.name().to_owned(),
        inputs: operator.inputs().iter().map(decl).collect(),
        outputs: outputs(operator, spec, &dtypes)?,
        params: Vec::new(),
        row_axis: RowAxis::Last,
    };
    let planned: Vec<Placed> =
        inputs.iter().map(|(_, dtype, layout)| Placed::planned(layout.clone(), *dtype)).collect();
    let shapes: Vec<&[usize]> = planned.iter().map(|placed| &placed.layout.shape[..]).collect();
    let capacity = operator.sizes(&shapes)?;
    let prepared =
        PreparedSequence { operator: operator.clone(), limits: limits.clone(), planned, capacity, signature };
    prepared.plan(&prepared.planned()?, Conditions::default())?;
    Ok(Arc::new(prepared))
}

#[derive(Clone)]
struct PreparedSequence<O> {
    operator: O,
    limits: Limits,
    planned: Vec<Placed>,
    /// Sizes of the planned tensors.
    capacity: Sizes,
    signature: Signature,
}

fn shapes(inputs: &[Option<Placed>]) -> Vec<&[usize]> {
    inputs.iter().flatten().map(|placed| &placed.layout.shape[..]).collect()
}

impl<O: Sequence> PreparedSequence<O> {
    fn problem<'a>(&'a self, tensors: &'a Tensors, pooled: bool) -> Result<Problem<'a>> {
        let sizes = self.operator.sizes(&shapes(&tensors.inputs))?;
        let (limits, signature, capacity) = (&self.limits, &self.signature, self.capacity);
        Ok(Problem { name: self.operator.name(), limits, signature, tensors, pooled, sizes, capacity })
    }

    /// Bytes that must move: inputs once, outputs once.
    fn bytes(&self, tensors: &Tensors) -> u64 {
        let all = tensors.inputs.iter().flatten().chain(&tensors.outputs);
        all.map(|placed| placed.layout.len() as u64 * placed.dtype.size()).sum()
    }
}

impl<O: Sequence> Prepared for PreparedSequence<O> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn check_inputs(&self, given: &[(&str, DType, &[usize])]) -> Result<()> {
        let names: Vec<&str> = given.iter().map(|input| input.0).collect();
        let order = in_order(&self.operator, &names)?;
        let mut shapes = Vec::new();
        for (index, planned) in order.into_iter().zip(&self.planned) {
            let (name, dtype, shape) = given[index];
            if dtype != planned.dtype {
                let (expected, found) = (format!("{}, as planned", planned.dtype), dtype.to_string());
                return Err(Error::DType { input: name.to_owned(), expected, found });
            }
            let capacity = &planned.layout.shape;
            if shape.len() != capacity.len() || shape.iter().zip(capacity).any(|(size, most)| size > most) {
                let expected = format!("{capacity:?} as planned, or fewer sequences, frames or labels");
                return Err(Error::Shape { input: name.to_owned(), expected, found: shape.to_vec() });
            }
            shapes.push(shape);
        }
        let Sizes { classes, .. } = self.operator.sizes(&shapes)?;
        if classes == self.capacity.classes {
            return Ok(());
        }
        let expected = format!("{} classes, as planned", self.capacity.classes);
        Err(Error::Shape { input: self.operator.inputs()[0].0.to_owned(), expected, found: shapes[0].to_vec() })
    }

    fn planned(&self) -> Result<Tensors> {
        let inputs: Vec<Option<Placed>> = self.planned.iter().cloned().map(Some).collect();
        let mut outputs = Vec::new();
        for (output, shape) in self.signature.outputs.iter().zip(self.output_shapes(&inputs)?) {
            // What is written in place lies as the input does.
            outputs.push(match output.mode {
                Mode::InPlace(input) => self.planned[input].clone(),
                _ => Placed::planned(Layout::contiguous(&shape), output.dtype),
            });
        }
        Ok(Tensors { inputs, outputs })
    }

    fn output_shapes(&self, inputs: &[Option<Placed>]) -> Result<Vec<Vec<usize>>> {
        let shapes = shapes(inputs);
        let shape = |output: &OutputSignature| match output.kind {
            OutputKind::Grad(input) => shapes[input].to_vec(),
            ref kind => self.operator.output_shape(kind, &shapes),
        };
        Ok(self.signature.outputs.iter().map(shape).collect())
    }

    fn plan(&self, tensors: &Tensors, conditions: Conditions) -> Result<Planned> {
        let in_place = tensors
            .inputs
            .iter()
            .zip(&self.signature.inputs)
            .filter_map(|(placed, input)| placed.as_ref().map(|placed| (input.name.as_str(), placed)));
        for output in &self.signature.outputs {
            if let Mode::InPlace(input) = output.mode {
                let (name, placed) = in_place.clone().nth(input).expect("every input of the operator is bound");
                check_written(name, &placed.layout)?;
            }
        }
        let planned = self.operator.dispatches(&self.problem(tensors, conditions.pooled)?)?;
        Ok(Planned { bytes: self.bytes(tensors), phases: vec![planned.dispatches.len()], ..planned })
    }

    fn explain(&self, tensors: &Tensors, conditions: Conditions, adapter: &str) -> Result<String> {
        let problem = self.problem(tensors, conditions.pooled)?;
        let Sizes { sequences, frames, labels, classes } = problem.sizes;
        let (name, explained) = (self.operator.name(), self.operator.explained(&problem)?);
        let (bytes, planned) = (self.bytes(tensors), self.plan(tensors, conditions)?);
        Ok(format!(
            "{name}: {sequences} sequences of at most {frames} frames and {labels} labels, {classes} classes, on \
             {adapter}\n{explained}\nmust move {bytes} B; workspace {} B; {} dispatches\n",
            4 * planned.workspace,
            planned.dispatches.len()
        ))
    }

    fn param(&self, name: &str, _: f64) -> Result<Option<usize>> {
        Err(self.signature().no_param(name))
    }

    fn pinned(&self) -> Pinned {
        Pinned::default()
    }

    fn pin(&self, _: Pinned) -> Arc<dyn Prepared> {
        Arc::new(self.clone())
    }

    fn schedules(&self) -> Result<Vec<PassSchedule>> {
        Ok(Vec::new())
    }

    fn candidates(&self) -> Result<Vec<Pinned>> {
        Ok(vec![Pinned::default()])
    }

    fn tune_facts(&self) -> Result<TuneFacts> {
        let Sizes { sequences, frames, classes, .. } = self.capacity;
        let named = self.signature.inputs.iter().zip(&self.planned);
        let tensors = named.map(|(input, placed)| format!("{} {}", input.name, placed.dtype)).collect();
        let kernels = self.plan(&self.planned()?, Conditions::default())?.kernels();
        Ok(TuneFacts { rows: sequences * frames, cols: classes, tensors, alignment: Vec::new(), kernels })
    }
}
