//! Losses over different shapes in one plan and one number.

mod prepared;

use crate::cpu::{self, HostTensor};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::loss::{Loss, UPSTREAM};
use crate::lower::{Upstream, Wanted};
use crate::plan::GradMode;
use crate::plan::operator::{Operator, Prepared};
use crate::plan::spec::PlanSpec;
use prepared::PreparedBeside;
use std::sync::Arc;

/// Losses over different shapes, added into one number by one plan: [`Loss::beside`] makes it.
#[derive(Clone, Debug)]
pub struct Beside {
    losses: Vec<Loss>,
}

impl Loss {
    /// This loss beside another of other shapes: a penalty on weights, a head of another size. One plan computes both,
    /// adds them into one number, and makes the gradients of both. (Losses over one shape add with `+`, and are one
    /// kernel.)
    ///
    /// Each loss is reduced to one number. An input of one name is one tensor for all losses that have it; its gradient
    /// is the sum over them, rounded once per loss where it is stored in 16 bits. [`Loss::rename_input`] keeps apart the
    /// inputs that are not the same. The plan's denominator is the first loss's, an extra output that of the first loss
    /// that has it. Parameters go by the loss's name: `set_param("l2_penalty.lambda", 0.1)`, with `l2_penalty#2.` for
    /// the second loss of that name.
    ///
    /// ```no_run
    /// use wgloss::{Bindings, Context, DType, PlanSpec, Tensor, losses};
    /// # fn main() -> wgloss::Result<()> {
    /// let ctx = Context::new()?;
    /// let loss = losses::cross_entropy().beside(losses::l2_penalty(1e-4));
    /// let spec = PlanSpec::new().input("input", DType::F32, &[64, 10]).input("target", DType::I32, &[64]);
    /// let spec = spec.input("w", DType::F32, &[784, 10]).grad("input").grad("w");
    /// let plan = ctx.plan(&loss, &spec)?;
    /// # let logits = Tensor::zeros(&ctx, DType::F32, &[64, 10])?;
    /// # let labels = Tensor::zeros(&ctx, DType::I32, &[64])?;
    /// # let w = Tensor::zeros(&ctx, DType::F32, &[784, 10])?;
    /// let bound = plan.bind(&Bindings::new().input("input", &logits).input("target", &labels).input("w", &w))?;
    /// bound.submit()?;
    /// println!("{}", bound.read_loss()?);
    /// # Ok(()) }
    /// ```
    pub fn beside(&self, other: impl Into<Loss>) -> Beside {
        Beside { losses: vec![self.clone(), other.into()] }
    }
}

impl Beside {
    /// These losses.
    pub(super) fn of(losses: &[Loss]) -> Beside {
        Beside { losses: losses.to_vec() }
    }

    /// One more loss, as [`Loss::beside`].
    #[must_use]
    pub fn beside(mut self, other: impl Into<Loss>) -> Beside {
        self.losses.push(other.into());
        self
    }

    /// The names of the losses.
    pub fn name(&self) -> String {
        self.losses.iter().map(Loss::name).collect::<Vec<_>>().join(" beside ")
    }

    /// The loss on the host in f64, and its gradients in the order of `grads`.
    ///
    /// ```
    /// use wgloss::{HostTensor, losses};
    /// let loss = losses::mse().beside(losses::l2_penalty(0.5));
    /// let (x, t) = (HostTensor::f32(&[3.0, 1.0], &[2]), HostTensor::f32(&[1.0, 1.0], &[2]));
    /// let w = HostTensor::f32(&[2.0, 0.0, 0.0], &[3]);
    /// let (value, grads) = loss.on_cpu(&[("input", x), ("target", t), ("w", w)], &["w", "input"])?;
    /// assert_eq!((value, &grads[0][..], &grads[1][..]), (3.0, &[1.0, 0.0, 0.0][..], &[2.0, 0.0][..]));
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`cpu::run`](crate::cpu::run).
    pub fn on_cpu(&self, inputs: &[(&str, HostTensor<'_>)], grads: &[&str]) -> Result<(f64, Vec<Vec<f64>>)> {
        self.check_known(inputs.iter().map(|input| input.0))?;
        let mut value = 0.0;
        let mut sums: Vec<Option<Vec<f64>>> = vec![None; grads.len()];
        for loss in &self.losses {
            let own: Vec<_> = inputs.iter().filter(|(name, _)| takes(loss, name)).cloned().collect();
            let asked: Vec<usize> = (0..grads.len()).filter(|k| takes(loss, grads[*k])).collect();
            let names = asked.iter().map(|k| grads[*k].to_owned()).collect();
            let out = cpu::run::<f64>(loss, &own, &Wanted { loss: true, grads: names, ..Wanted::default() })?;
            if !out.loss_shape().is_empty() {
                return Err(not_one_number(loss));
            }
            value += out.loss()?;
            for k in asked {
                let more = out.grad(grads[k])?;
                match &mut sums[k] {
                    Some(sum) => sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more),
                    none => *none = Some(more.to_vec()),
                }
            }
        }
        let missing = |k: usize| self.unknown("has no gradient for", grads[k]);
        let sums = sums.into_iter().enumerate().map(|(k, sum)| sum.ok_or_else(|| missing(k)));
        Ok((value, sums.collect::<Result<_>>()?))
    }

    /// An error for an input that no loss takes.
    fn check_known<'n>(&self, mut names: impl Iterator<Item = &'n str>) -> Result<()> {
        match names.find(|name| *name != UPSTREAM && !self.losses.iter().any(|loss| takes(loss, name))) {
            None => Ok(()),
            Some(name) => Err(self.unknown("has no input", name)),
        }
    }

    fn unknown(&self, what: &str, name: &str) -> Error {
        let known = self.losses.iter().flat_map(Loss::inputs).map(|input| input.name).collect::<Vec<_>>().join(", ");
        Error::Name { what: format!("{} {what}", self.name()), name: name.to_owned(), known }
    }

    /// The specification of the plan of one loss: its own inputs, and what is wanted of it. Later losses add to what
    /// earlier ones wrote.
    fn spec_of(&self, index: usize, spec: &PlanSpec) -> Result<PlanSpec> {
        let (loss, before) = (&self.losses[index], &self.losses[..index]);
        let earlier = |name: &str| before.iter().any(|loss| takes(loss, name));
        let mut own = spec.clone();
        let has_upstream = spec.wanted.upstream != Upstream::One;
        own.inputs.retain(|(name, ..)| takes(loss, name) || has_upstream && name == UPSTREAM);
        own.grad_dtypes.retain(|(name, _)| takes(loss, name));
        own.modes.retain(|(name, _)| takes(loss, name));
        for (name, mode) in &mut own.modes {
            let several = self.losses.iter().filter(|loss| takes(loss, name)).count() > 1;
            if several && *mode == GradMode::InPlace {
                let message = format!("an in-place gradient of `{name}`, which several of the losses read; write it");
                return Err(Error::Unsupported { message });
            }
            if earlier(name) {
                *mode = GradMode::Accumulate;
            }
        }
        let Wanted { denominator, grads, hessian_diagonals, extras, .. } = &mut own.wanted;
        grads.retain(|name| takes(loss, name));
        if let Some(shared) = hessian_diagonals.iter().find(|name| takes(loss, name) && earlier(name)) {
            let message = format!("the Hessian diagonal of `{shared}`, which several of the losses read");
            return Err(Error::Unsupported { message });
        }
        hessian_diagonals.retain(|name| takes(loss, name));
        let has = |loss: &Loss, extra: &str| loss.extras().contains(&extra);
        extras.retain(|name| has(loss, name) && !before.iter().any(|loss| has(loss, name)));
        *denominator &= index == 0;
        own.accumulate_loss |= own.wanted.loss && index > 0;
        Ok(own)
    }

    /// An error for a name in the specification that no loss has.
    fn check_spec(&self, spec: &PlanSpec) -> Result<()> {
        self.check_known(spec.inputs.iter().map(|input| input.0.as_str()))?;
        let wanted = &spec.wanted;
        let differentiated = wanted.grads.iter().chain(&wanted.hessian_diagonals);
        for name in differentiated.chain(spec.grad_dtypes.iter().map(|(name, _)| name)) {
            if !self.losses.iter().any(|loss| takes(loss, name)) {
                return Err(self.unknown("has no gradient for", name));
            }
        }
        for extra in &wanted.extras {
            if !self.losses.iter().any(|loss| loss.extras().contains(&extra.as_str())) {
                let known = self.losses.iter().flat_map(Loss::extras).collect::<Vec<_>>().join(", ");
                let what = format!("{} has no extra output", self.name());
                return Err(Error::Name { what, name: extra.clone(), known });
            }
        }
        if wanted.groups.is_some() {
            let message = "groups of unequal length in losses beside each other; plan them apart, and add them with \
                           accumulate_loss";
            return Err(Error::Unsupported { message: message.to_owned() });
        }
        if wanted.found_inf {
            let message = "found_inf of losses beside each other; plan them apart, each with its own";
            return Err(Error::Unsupported { message: message.to_owned() });
        }
        if spec.shard.is_some() || spec.separate_backward {
            let message = "shards and a separate backward of losses beside each other; plan them apart, and add them \
                           with accumulate_loss";
            return Err(Error::Unsupported { message: message.to_owned() });
        }
        Ok(())
    }
}

/// Whether a loss takes an input of that name.
fn takes(loss: &Loss, name: &str) -> bool {
    loss.inputs().iter().any(|input| input.name == name) || loss.weights_and_masks().iter().any(|known| known == name)
}

fn not_one_number(loss: &Loss) -> Error {
    let message = "beside another loss it must be one number; give it a reduction other than None".to_owned();
    Error::Expr { loss: loss.name(), message }
}

impl Operator for Beside {
    fn prepare(&self, spec: &PlanSpec, limits: &Limits) -> Result<Arc<dyn Prepared>> {
        self.check_spec(spec)?;
        let mut parts = Vec::new();
        for (index, loss) in self.losses.iter().enumerate() {
            let own = self.spec_of(index, spec)?;
            let Wanted { loss: value, denominator, grads, hessian_diagonals, extras, .. } = &own.wanted;
            let is_wanted = *value || *denominator;
            if is_wanted || [grads, hessian_diagonals, extras].iter().any(|names| !names.is_empty()) {
                parts.push((loss.clone(), loss.prepare(&own, limits)?));
            }
        }
        Ok(Arc::new(PreparedBeside::new(self.name(), parts, spec, limits)?))
    }
}
