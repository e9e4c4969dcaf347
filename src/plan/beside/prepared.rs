//! Prepared losses beside each other, as one operator.

use super::not_one_number;
use crate::dispatch::{OutputKind, ParamSignature, Planned, Signature, Slot};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::loss::Loss;
use crate::plan::merge::{Indices, merged};
use crate::plan::operator::{Conditions, Placed, Prepared, Tensors, TuneFacts};
use crate::plan::spec::PlanSpec;
use crate::schedule::{PassSchedule, Pinned};
use crate::shape::{DType, Scope};
use std::sync::Arc;

/// A prepared loss, and where its tensors and parameters are among those of all.
#[derive(Clone)]
struct Part {
    prepared: Arc<dyn Prepared>,
    indices: Indices,
    /// What its parameters are called before their own names.
    prefix: String,
}

/// Prepared losses, each with tensors of its own or shared ones.
#[derive(Clone)]
pub(super) struct PreparedBeside {
    parts: Vec<Part>,
    signature: Signature,
    pinned: Pinned,
    /// Bytes between the scalars of one loss and those of the next are a multiple of this.
    alignment: u64,
}

impl PreparedBeside {
    pub fn new(
        name: String,
        parts: Vec<(Loss, Arc<dyn Prepared>)>,
        spec: &PlanSpec,
        limits: &Limits,
    ) -> Result<PreparedBeside> {
        let mut signature = Signature { name, ..Signature::default() };
        let mut joined: Vec<Part> = Vec::new();
        let mut titles: Vec<String> = Vec::new();
        for (loss, prepared) in parts {
            let own = prepared.signature();
            let whole = own.outputs.iter().find(|output| output.kind == OutputKind::Loss);
            if whole.is_some_and(|output| output.scope > Scope::Total) {
                return Err(not_one_number(&loss));
            }
            let title = loss.title();
            let before = titles.iter().filter(|known| **known == title).count();
            let prefix = if before == 0 { format!("{title}.") } else { format!("{title}#{}.", before + 1) };
            titles.push(title);
            let indices = join(&mut signature, own, &prefix)?;
            joined.push(Part { prepared, indices, prefix });
        }
        let alignment = u64::from(limits.offset_alignment);
        Ok(PreparedBeside { parts: joined, signature, pinned: spec.pinned, alignment })
    }

    /// The tensors of one loss.
    fn tensors_of(part: &Part, all: &Tensors) -> Tensors {
        let inputs = (0..part.indices.inputs.len()).map(|own| all.inputs[part.indices.input(own)].clone());
        let outputs = part.indices.outputs.iter().map(|output| all.outputs[*output].clone());
        Tensors { inputs: inputs.collect(), outputs: outputs.collect() }
    }
}

/// Adds the inputs, outputs and parameters of one loss to those of all: inputs and outputs of one name are one.
fn join(all: &mut Signature, own: &Signature, prefix: &str) -> Result<Indices> {
    let mut indices = Indices { inputs: Vec::new(), outputs: Vec::new(), first_param: all.params.len() };
    for input in &own.inputs {
        let known = all.inputs.iter().position(|known| known.name == input.name);
        if let Some(known) = known.filter(|known| all.inputs[*known] != *input) {
            let (first, second) = (&all.inputs[known], input);
            let message = format!(
                "`{}` has scope {:?}, {:?} in one loss and {:?}, {:?} in another; rename_input keeps them apart",
                input.name, first.scope, first.kind, second.scope, second.kind
            );
            return Err(Error::Expr { loss: own.name.clone(), message });
        }
        indices.inputs.push(Slot::Input(known.unwrap_or(all.inputs.len())));
        if known.is_none() {
            all.inputs.push(input.clone());
        }
    }
    for output in &own.outputs {
        let output = indices.output(output);
        let known = all.outputs.iter().position(|known| known.kind == output.kind);
        indices.outputs.push(known.unwrap_or(all.outputs.len()));
        if known.is_none() {
            all.outputs.push(output);
        }
    }
    all.params.extend(own.params.iter().map(|param| {
        let mut param: ParamSignature = param.clone();
        param.decl.name = format!("{prefix}{}", param.decl.name);
        param
    }));
    Ok(indices)
}

impl Prepared for PreparedBeside {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn check_inputs(&self, given: &[(&str, DType, &[usize])]) -> Result<()> {
        let known = |name: &str| self.signature.inputs.iter().any(|input| input.name == name);
        if let Some((name, ..)) = given.iter().find(|(name, ..)| !known(name)) {
            let planned: Vec<&str> = self.signature.inputs.iter().map(|input| input.name.as_str()).collect();
            let what = "the plan was made without the input".to_owned();
            return Err(Error::Name { what, name: (*name).to_owned(), known: planned.join(", ") });
        }
        for part in &self.parts {
            let own = part.prepared.signature();
            let takes = |name: &str| own.inputs.iter().any(|input| input.name == name);
            let given: Vec<_> = given.iter().filter(|(name, ..)| takes(name)).copied().collect();
            part.prepared.check_inputs(&given)?;
        }
        Ok(())
    }

    fn planned(&self) -> Result<Tensors> {
        let mut inputs: Vec<Option<Placed>> = vec![None; self.signature.inputs.len()];
        let mut outputs: Vec<Option<Placed>> = vec![None; self.signature.outputs.len()];
        for part in &self.parts {
            let own = part.prepared.planned()?;
            for (own, placed) in own.inputs.into_iter().enumerate() {
                let index = part.indices.input(own);
                inputs[index] = inputs[index].take().or(placed);
            }
            for (index, placed) in part.indices.outputs.iter().zip(own.outputs) {
                outputs[*index].get_or_insert(placed);
            }
        }
        let outputs = outputs.into_iter().map(|output| output.expect("every output is one of some loss's"));
        Ok(Tensors { inputs, outputs: outputs.collect() })
    }

    fn output_shapes(&self, inputs: &[Option<Placed>]) -> Result<Vec<Vec<usize>>> {
        let mut shapes: Vec<Vec<usize>> = vec![Vec::new(); self.signature.outputs.len()];
        for part in self.parts.iter().rev() {
            let count = part.indices.inputs.len();
            let own: Vec<Option<Placed>> = (0..count).map(|own| inputs[part.indices.input(own)].clone()).collect();
            for (index, shape) in part.indices.outputs.iter().zip(part.prepared.output_shapes(&own)?) {
                shapes[*index] = shape;
            }
        }
        Ok(shapes)
    }

    fn plan(&self, tensors: &Tensors, conditions: Conditions) -> Result<Planned> {
        let planned = self.parts.iter().map(|part| {
            let own = part.prepared.plan(&PreparedBeside::tensors_of(part, tensors), conditions)?;
            Ok((own, &part.indices))
        });
        Ok(merged(planned.collect::<Result<Vec<_>>>()?, self.alignment))
    }

    fn explain(&self, tensors: &Tensors, conditions: Conditions, adapter: &str) -> Result<String> {
        let texts = self.parts.iter().map(|part| {
            let own = PreparedBeside::tensors_of(part, tensors);
            part.prepared.explain(&own, conditions, adapter)
        });
        Ok(texts.collect::<Result<Vec<String>>>()?.join("\nbeside\n"))
    }

    fn param(&self, name: &str, value: f64) -> Result<Option<usize>> {
        let own = self.parts.iter().find_map(|part| Some((part, name.strip_prefix(&part.prefix)?)));
        let Some((part, own)) = own else { return Err(self.signature.no_param(name)) };
        Ok(part.prepared.param(own, value)?.map(|param| part.indices.first_param + param))
    }

    fn pinned(&self) -> Pinned {
        self.pinned
    }

    fn pin(&self, pinned: Pinned) -> Arc<dyn Prepared> {
        let pin = |part: &Part| Part { prepared: part.prepared.pin(pinned), ..part.clone() };
        Arc::new(PreparedBeside { parts: self.parts.iter().map(pin).collect(), pinned, ..self.clone() })
    }

    fn schedules(&self) -> Result<Vec<PassSchedule>> {
        let each = self.parts.iter().map(|part| part.prepared.schedules()).collect::<Result<Vec<_>>>()?;
        Ok(each.concat())
    }

    fn candidates(&self) -> Result<Vec<Pinned>> {
        let message = "tuning losses beside each other, which have schedules of their own; tune each".to_owned();
        Err(Error::Unsupported { message })
    }

    fn tune_facts(&self) -> Result<TuneFacts> {
        self.candidates().map(|_| unreachable!("they have no candidates"))
    }
}
