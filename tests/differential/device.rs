//! A problem on the GPU: one bound plan, every set of data.

use super::arena::{Arena, Slot};
use super::problem::{Data, GROUPS, Input, Problem, Side, Unequal};
use super::random::Random;
use super::reference::{Key, Outcome};
use super::values::{Host, stored};
use half::{bf16, f16};
use std::collections::BTreeMap;
use wgloss::Layout;
use wgloss::UPSTREAM;
use wgloss::{
    Bindings, Bound, Context, DType, Error, GradMode, Loss, Plan, PlanSpec, Reduction, Result, Scope, Tensor, losses,
};

/// A bound plan with the buffers that it works on.
pub struct Session<'p> {
    problem: &'p Problem,
    ctx: &'p Context,
    bound: Bound,
    arena: Arena,
    inputs: Vec<Slot>,
    /// Outputs in buffers of the arena.
    outputs: Vec<(Key, Slot)>,
    /// Outputs in tensors that the plan made.
    made: Vec<(Key, DType)>,
    /// First line of each kernel.
    pub kernels: Vec<String>,
}

impl Problem {
    fn planned(&self, input: &Input) -> Layout {
        let mut shape = input.shape.clone();
        if let Some(capacity) = self.capacity {
            let whole = self.shape_of(input.scope);
            let by_batch = matches!(input.scope, Scope::Element | Scope::Row);
            if by_batch && shape.len() >= whole.len() && !whole.is_empty() && shape[0] == whole[0] {
                shape[0] = capacity;
            }
            let is_of_groups = matches!(input.scope, Scope::Group | Scope::GroupColumn);
            if is_of_groups && shape.len() == whole.len() && shape[0] == whole[0] && self.unequal.is_none() {
                // A plan for a batch of no rows has a group per index of the first axis.
                shape[0] = (shape[0] * capacity).checked_div(self.domain[0]).unwrap_or(capacity);
            }
        }
        input.home.layout(&shape)
    }

    pub fn spec(&self) -> PlanSpec {
        let mut spec = PlanSpec::new().upstream(self.upstream).pin(self.pinned);
        for input in &self.inputs {
            spec = spec.input_with(&input.name, input.dtype, self.planned(input));
            if let Some(grad) = &input.grad {
                spec = spec.grad_mode(&input.name, grad.mode);
                if let Some(dtype) = grad.dtype {
                    spec = spec.grad_dtype(&input.name, dtype);
                }
            }
            if input.hessian {
                spec = spec.hessian_diagonal(&input.name);
            }
        }
        let outputs = &self.outputs;
        if outputs.denominator {
            spec = spec.denominator();
        }
        spec = outputs.extras.iter().fold(spec, |spec, name| spec.extra(name));
        if !outputs.loss {
            spec = spec.without_loss();
        }
        if outputs.accumulate_loss {
            spec = spec.accumulate_loss();
        }
        if outputs.separate {
            spec = spec.separate_backward();
        }
        if outputs.found_inf {
            spec = spec.found_inf();
        }
        match (self.group_rows, self.unequal) {
            (_, Some(Unequal { ids: true, groups })) => spec.group_ids(GROUPS, groups as u64),
            (_, Some(Unequal { ids: false, .. })) => spec.group_offsets(GROUPS),
            (Some(rows), None) => spec.group_rows(rows),
            (None, None) => spec,
        }
    }

    pub fn grad_dtype(&self, name: &str) -> DType {
        let input = self.input(name).expect("a gradient is of an input");
        input.grad.as_ref().and_then(|grad| grad.dtype).unwrap_or(input.dtype)
    }

    fn loss_shape(&self) -> Vec<usize> {
        let scope = super::draw::loss_scope(self);
        let reduced = self.terms[0].reduction != Reduction::None || scope <= Scope::Total;
        if reduced { Vec::new() } else { self.shape_of(scope) }
    }
}

/// Inputs of the loss of 0 that stands beside a problem, without what their names begin with, and their shapes: all 0.
const BESIDE: [(&str, &[usize]); 4] = [("input", &[3, 7]), ("target", &[3, 7]), ("mask", &[3, 7]), ("scale", &[])];

/// A mean of squares of its own inputs, which go by other names, times a scalar.
fn zero() -> Loss {
    let names = ["input", "target", "weight", "mask", "sample_weight"];
    let own = names.iter().fold(losses::mse(), |loss, name| loss.rename_input(name, &format!("beside_{name}")));
    own.reduction(Reduction::Sum) * "beside_scale"
}

fn plan(ctx: &Context, problem: &Problem) -> Result<Plan> {
    let (loss, spec) = (problem.loss(), problem.spec());
    let Some(side) = problem.beside() else { return ctx.plan(&loss, &spec) };
    let input =
        |spec: PlanSpec, (name, shape): &(&str, &[usize])| spec.input(&format!("beside_{name}"), DType::F32, shape);
    let spec = BESIDE.iter().fold(spec, input).grad("beside_scale");
    match side {
        Side::Before => ctx.plan(&zero().beside(loss), &spec),
        Side::After => ctx.plan(&loss.beside(zero()), &spec),
    }
}

impl<'p> Session<'p> {
    pub fn new(ctx: &'p Context, problem: &'p Problem) -> Result<Session<'p>> {
        let plan = plan(ctx, problem)?;
        let mut arena = Arena::new();
        let place = |input: &Input| arena.place(&input.name, input.dtype, &input.shape, &input.home);
        let inputs: Vec<Slot> = problem.inputs.iter().map(place).collect();
        let (mut placed, mut made) = (Vec::new(), Vec::new());
        for input in &problem.inputs {
            let Some(grad) = &input.grad else { continue };
            let (key, dtype) = (Key::Grad(input.name.clone()), problem.grad_dtype(&input.name));
            match grad.mode {
                GradMode::InPlace => {}
                GradMode::Write if grad.home.is_plain() => made.push((key, dtype)),
                _ => placed.push((key, arena.place(&input.name, dtype, &input.shape, &grad.home))),
            }
        }
        let outputs = &problem.outputs;
        match &outputs.loss_home {
            Some(home) if outputs.loss => {
                placed.push((Key::Loss, arena.place("loss", DType::F32, &problem.loss_shape(), home)));
            }
            _ if outputs.loss => made.push((Key::Loss, DType::F32)),
            _ => {}
        }
        made.extend(outputs.denominator.then_some((Key::Denominator, DType::F32)));
        made.extend(outputs.extras.iter().map(|name| (Key::Extra(name.clone()), DType::F32)));
        let diagonals = problem.inputs.iter().filter(|input| input.hessian);
        made.extend(diagonals.map(|input| (Key::Hessian(input.name.clone()), DType::F32)));
        arena.make(ctx);
        let mut bindings = Bindings::new();
        for slot in &inputs {
            bindings = bindings.input(&slot.name, &arena.tensor(ctx, slot)?);
        }
        if problem.beside().is_some() {
            for (name, shape) in BESIDE {
                bindings = bindings.input(&format!("beside_{name}"), &Tensor::zeros(ctx, DType::F32, shape)?);
            }
        }
        for (key, slot) in &placed {
            let tensor = arena.tensor(ctx, slot)?;
            bindings = match key {
                Key::Loss => bindings.loss(&tensor),
                _ => bindings.grad(&slot.name, &tensor),
            };
        }
        let bound = plan.bind(&bindings)?;
        for input in problem.inputs.iter().zip(&inputs) {
            if input.0.grad.as_ref().is_some_and(|grad| grad.mode == GradMode::InPlace) {
                placed.push((Key::Grad(input.0.name.clone()), input.1.clone()));
            }
        }
        let kernels = plan.kernels()?.iter().map(|wgsl| wgsl.lines().next().unwrap_or("").to_owned()).collect();
        Ok(Session { problem, ctx, bound, arena, inputs, outputs: placed, made, kernels })
    }

    pub fn explain(&self) -> String {
        self.bound.explain()
    }

    /// What an output is added to.
    pub fn bases(&self, data: Data) -> BTreeMap<Key, Vec<f64>> {
        let mut random = Random::new(data.seed ^ 0xba5e);
        let mut bases = BTreeMap::new();
        for (key, slot) in &self.outputs {
            let accumulates = match key {
                Key::Loss => self.problem.outputs.accumulate_loss,
                Key::Grad(name) => {
                    let grad = self.problem.input(name).and_then(|input| input.grad.as_ref());
                    grad.is_some_and(|grad| grad.mode == GradMode::Accumulate)
                }
                _ => false,
            };
            if accumulates {
                let count = slot.layout.shape.iter().product::<usize>();
                let base = (0..count).map(|_| f64::from(stored(slot.dtype, random.between(-2.0, 2.0) as f32)));
                bases.insert(key.clone(), base.collect());
            }
        }
        bases
    }

    /// Runs it on these values.
    pub fn run(&mut self, hosts: &[Host], bases: &BTreeMap<Key, Vec<f64>>) -> Result<(Outcome, Option<String>)> {
        for (key, slot) in &self.outputs {
            match bases.get(key) {
                Some(base) => self.arena.put(slot, &Host::Numbers(base.iter().map(|x| *x as f32).collect())),
                None => self.arena.clear(slot),
            }
        }
        for (slot, host) in self.inputs.iter().zip(hosts) {
            self.arena.put(slot, host);
        }
        let upstream = self.inputs.iter().zip(hosts).find(|(slot, _)| slot.name == UPSTREAM);
        if self.problem.outputs.separate {
            // The upstream gradient comes after the loss.
            if let Some((slot, host)) = upstream {
                self.arena.put(slot, &Host::Numbers(vec![7.0; host.numbers().len()]));
            }
            self.arena.upload(self.ctx);
            self.submit(|encoder| self.bound.encode_forward(encoder))?;
            if let Some((slot, host)) = upstream {
                self.arena.put(slot, host);
                self.arena.upload_one(self.ctx, slot);
            }
            self.submit(|encoder| self.bound.encode_backward(encoder))?;
        } else {
            self.arena.upload(self.ctx);
            self.bound.submit()?;
        }
        let (status, bad_group) = match pollster::block_on(self.bound.status()) {
            Err(error @ Error::GroupOutOfRange { .. }) => (pollster::block_on(self.bound.status()), Some(error)),
            status => (status, None),
        };
        let bad_label = match status {
            Ok(()) => None,
            Err(Error::LabelOutOfRange { row, label, .. }) => Some((row, label)),
            Err(error) => return Err(error),
        };
        let written: Vec<&Slot> = self.outputs.iter().map(|(_, slot)| slot).collect();
        let (values, changed) = self.arena.download(self.ctx, &written)?;
        let mut outputs: BTreeMap<Key, Vec<f64>> =
            self.outputs.iter().map(|(key, _)| key.clone()).zip(values).collect();
        for (key, dtype) in &self.made {
            outputs.insert(key.clone(), read(self.made_tensor(key)?, *dtype)?);
        }
        Ok((Outcome { outputs, bad_label, bad_group }, changed))
    }

    /// How the GPU is wrong about whether a gradient that it stored is not finite.
    pub fn found_inf_error(&self, got: &Outcome) -> Result<Option<String>> {
        if !self.problem.outputs.found_inf {
            return Ok(None);
        }
        let found = self.bound.found_inf()?.to_vec::<f32>()?[0];
        let want = f32::from(u8::from(got.has_infinite_gradient()));
        Ok((found != want).then(|| format!("found_inf is {found}, the stored gradients want {want}")))
    }

    fn made_tensor(&self, key: &Key) -> Result<&Tensor> {
        match key {
            Key::Loss => self.bound.loss(),
            Key::Denominator => self.bound.denominator(),
            Key::Extra(name) => self.bound.extra(name),
            Key::Grad(name) => self.bound.grad(name),
            Key::Hessian(name) => self.bound.hessian_diagonal(name),
        }
    }

    fn submit(&self, record: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<()>) -> Result<()> {
        let mut encoder = self.ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        record(&mut encoder)?;
        self.ctx.queue().submit([encoder.finish()]);
        Ok(())
    }
}

fn read(tensor: &Tensor, dtype: DType) -> Result<Vec<f64>> {
    Ok(match dtype {
        DType::F16 => tensor.to_vec::<f16>()?.iter().map(|v| v.to_f64()).collect(),
        DType::BF16 => tensor.to_vec::<bf16>()?.iter().map(|v| v.to_f64()).collect(),
        _ => tensor.to_vec::<f32>()?.iter().map(|v| f64::from(*v)).collect(),
    })
}
