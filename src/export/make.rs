//! Makes an [`Export`] of a loss: its dispatches, with formulas of the shape for their counts. Pure.

use super::traced::{Traced, sizes};
use super::{
    Condition, Export, ExportBuffer, ExportDispatch, ExportField, ExportResource, ExportTensor, ExportUniform,
};
use crate::codegen::{Mode, Slot, sum_counts};
use crate::dispatch::{Dispatch, FIRST_STORAGE, Field, Note, Planned, Uniform, Word};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::loss::Loss;
use crate::lower::OutputKind;
use crate::plan::dispatches::dispatches;
use crate::plan::loss::PreparedLoss;
use crate::plan::operator::Conditions;
use crate::plan::passes::PassChoice;
use crate::plan::problem::{Problem, most_partials, reduce_lanes};
use crate::plan::spec::PlanSpec;
use crate::schedule::{Kernel, Spread};
use crate::shape::{Count, DType, Formula, Scope};

/// Elements that 32 bits can count, with room for the strides past the last one.
const MOST_ELEMENTS: u64 = 1 << 31;

impl Export {
    /// Kernels for every WebGPU device (the limits that all of them have, no optional feature), chosen for the shapes
    /// of `spec`: contiguous tensors of `[rows, cols]`, `[rows]`, `[cols]` or one value. They serve every shape that
    /// meets the [`conditions`](Export::conditions). No device is needed.
    ///
    /// ```
    /// use wgloss::{DType, PlanSpec, export::Export, losses};
    /// let spec = PlanSpec::new()
    ///     .input("input", DType::F32, &[4096, 1000])
    ///     .input("target", DType::I32, &[4096])
    ///     .grad("input");
    /// let export = Export::new(&losses::cross_entropy(), &spec)?;
    /// assert!(export.conditions.iter().all(|condition| condition.formula.at(512, 1000) == 1));
    /// println!("{} workgroups", export.dispatches[0].grid[0]);
    /// # Ok::<(), wgloss::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Context::plan`](crate::Context::plan); [`Error::Unsupported`] for other layouts, fewer than two rows or columns,
    /// tensors larger than a binding (128 MiB), gradients in place or summed over broadcast axes, shards, a
    /// separate backward, groups of unequal length, and found_inf.
    pub fn new(loss: &Loss, spec: &PlanSpec) -> Result<Export> {
        let prepared = PreparedLoss::new(loss, spec, &Limits::WEBGPU)?;
        let fault = |message: &str| Err(Error::Unsupported { message: format!("exporting {message}") });
        if prepared.phasing.shard.is_some() || prepared.phasing.forward.is_some() {
            return fault("a shard or a separate backward");
        }
        if prepared.program.found_inf {
            return fault("found_inf");
        }
        if prepared.phasing.column_range {
            return fault("rows larger than a binding of WebGPU's default limits (128 MiB)");
        }
        if prepared.signature.outputs.iter().any(|output| matches!(output.mode, Mode::InPlace(_))) {
            return fault("a gradient in place of its input");
        }
        if prepared.program.ragged.is_some() {
            return fault("groups of unequal length, which the formulas of an export do not count; take equal groups");
        }
        if prepared.program.has_group_columns() {
            return fault(
                "values per group and column, whose kernels are made for one number of groups; sum by column alone",
            );
        }
        let (problem, mut choices) = prepared.choose(&prepared.planned_tensors()?, Conditions::default())?;
        // A host may run the kernels over fewer columns.
        choices.iter_mut().for_each(|choice| choice.variant.exact = false);
        let &[rows, cols] = &problem.geometry.domain[..] else {
            return fault("shapes other than [rows, cols]");
        };
        if problem.program.row_axis.columns(2).is_some_and(|columns| columns != (1..2)) {
            return fault("rows along the first axis; shapes are [rows, cols]");
        }
        let shape = [rows as u64, cols as u64];
        if shape.iter().any(|size| *size < 2) {
            return fault("for fewer than two rows or columns, whose kernels serve no other shape; name more");
        }
        if choices.iter().any(|choice| choice.pieces.pieces.len() > 1) {
            return fault("tensors larger than a binding of WebGPU's default limits (128 MiB); name fewer rows");
        }
        if problem.destinations.iter().any(Option::is_some) {
            return fault("a gradient that is summed over broadcast axes, or of 16 bits and one value");
        }
        let group_rows = problem.geometry.group_rows;
        let planned = dispatches(&problem, &choices, sizes(&problem, shape, group_rows)?, problem.bytes())?;
        let maker = Maker { prepared: &prepared, problem: &problem, choices: &choices, group_rows };
        Ok(maker.make(&planned, shape))
    }
}

/// No buffer is empty.
fn work_bytes(words: Formula) -> Formula {
    Formula::of(4).times(words.at_least(Formula::of(4)))
}

struct Maker<'a> {
    prepared: &'a PreparedLoss,
    problem: &'a Problem<'a>,
    choices: &'a [PassChoice],
    group_rows: u64,
}

impl Maker<'_> {
    fn make(&self, planned: &Planned<Traced>, made_for: [u64; 2]) -> Export {
        let program = self.problem.program;
        let mut kernels: Vec<String> = Vec::new();
        let mut uniforms: Vec<ExportUniform> = Vec::new();
        let dispatches: Vec<ExportDispatch> =
            planned.all().map(|dispatch| self.dispatch(dispatch, &mut kernels, &mut uniforms)).collect();
        let of_passes = self.choices.iter().map(|choice| choice.schedule.workgroup);
        let of_sums = self.choices.iter().map(|choice| self.problem.sums_workgroup(choice));
        let invocations = of_passes.chain(of_sums).max().unwrap_or(1);
        let name = |input: usize| program.inputs[input].name.clone();
        Export {
            loss: program.name.clone(),
            made_for,
            conditions: self.conditions(planned),
            workgroup_invocations: invocations.max(reduce_lanes(&self.prepared.limits)),
            kernels,
            tensors: self.tensors(),
            work_bytes: work_bytes(planned.workspace.formula.clone()),
            scalar_words: planned.scalar_words,
            scalar_inputs: planned.scalar_copies.iter().map(|(input, word)| (name(*input), *word)).collect(),
            params: program.params.clone(),
            params_bytes: 16 * program.params.len().div_ceil(4).max(1) as u64,
            uniforms,
            dispatches,
        }
    }

    fn dispatch(
        &self,
        dispatch: &Dispatch<Traced>,
        kernels: &mut Vec<String>,
        uniforms: &mut Vec<ExportUniform>,
    ) -> ExportDispatch {
        let kernel = index_of(kernels, dispatch.wgsl.to_string());
        let mut bindings: Vec<(u32, ExportResource)> = Vec::new();
        for (binding, uniform) in &dispatch.uniforms {
            let is_params = uniform.fields.iter().all(|field| matches!(field.word, Word::Param(_))) && *binding > 0;
            let resource = match is_params {
                true => ExportResource::Params,
                false => ExportResource::Uniform(index_of(uniforms, exported(uniform))),
            };
            bindings.push((*binding, resource));
        }
        let storage = (FIRST_STORAGE..).zip(&dispatch.storage).map(|(binding, region)| {
            (binding, ExportResource::Storage { buffer: self.buffer(region.slot), writes: region.writes })
        });
        bindings.extend(storage);
        bindings.sort_by_key(|binding| binding.0);
        ExportDispatch { kernel, grid: dispatch.grid.clone().map(|size| size.formula), bindings }
    }

    fn buffer(&self, slot: Slot) -> ExportBuffer {
        match slot {
            Slot::Input(input) => ExportBuffer::Tensor(input),
            Slot::Output(output) => ExportBuffer::Tensor(self.problem.program.inputs.len() + output),
            Slot::Workspace => ExportBuffer::Work,
            Slot::Scalars => ExportBuffer::Scalars,
            Slot::Kept(_) | Slot::States(_) | Slot::AllStates(_) | Slot::FoundInf => {
                unreachable!("kept gradients, shards and found_inf were refused")
            }
        }
    }

    fn scope(&self, slot: Slot) -> Scope {
        match slot {
            Slot::Input(input) => self.problem.program.inputs[input].scope,
            Slot::Output(output) => self.problem.program.outputs[output].scope,
            _ => Scope::Scalar,
        }
    }

    fn tensors(&self) -> Vec<ExportTensor> {
        let program = self.problem.program;
        let tensor = |name: String, slot: Slot, dtype: DType, is_output: bool| {
            let shape = match self.scope(slot) {
                Scope::Element => vec![Formula::Rows, Formula::Cols],
                Scope::Row => vec![Formula::Rows],
                Scope::Column => vec![Formula::Cols],
                Scope::Group => vec![Formula::Rows.div_ceil(Formula::of(self.group_rows))],
                _ => Vec::new(),
            };
            let values = shape.iter().cloned().fold(Formula::of(1), Formula::times);
            let vectors = values.times(Formula::of(dtype.size())).div_ceil(Formula::of(16));
            ExportTensor { name, is_output, dtype, shape, bytes: vectors.times(Formula::of(16)) }
        };
        let planned = self.prepared.planned_inputs();
        let inputs = program.inputs.iter().enumerate().map(|(input, decl)| {
            let dtype = planned[input].as_ref().map_or(DType::F32, |io| io.dtype);
            tensor(decl.name.clone(), Slot::Input(input), dtype, false)
        });
        let name = |kind: &OutputKind| match kind {
            OutputKind::Loss => "loss".to_owned(),
            OutputKind::Denominator => "denominator".to_owned(),
            OutputKind::Extra(name) => name.clone(),
            OutputKind::Grad(input) => format!("d_{}", program.inputs[*input].name),
            OutputKind::HessianDiagonal(input) => format!("hessian_diagonal_{}", program.inputs[*input].name),
            OutputKind::FoundInf => unreachable!("found_inf was refused"),
        };
        let outputs = program.outputs.iter().enumerate();
        let outputs =
            outputs.map(|(o, output)| tensor(name(&output.kind), Slot::Output(o), self.prepared.dtype_of(o), true));
        inputs.chain(outputs).collect()
    }

    /// The conditions that the kernels rely on.
    fn conditions(&self, planned: &Planned<Traced>) -> Vec<Condition> {
        let program = self.problem.program;
        let number = |value: u64| Formula::of(value);
        let elements = || Formula::Rows.times(Formula::Cols);
        let mut all = vec![
            Condition { formula: number(2).is_at_most(Formula::Rows), why: "one row would be addressed otherwise" },
            Condition { formula: number(2).is_at_most(Formula::Cols), why: "one column would be addressed otherwise" },
            Condition { formula: elements().is_at_most(number(MOST_ELEMENTS)), why: "elements are counted in 32 bits" },
        ];
        if let Some(count) = program.cols.exactly {
            all.push(Condition { formula: Formula::Cols.equals(number(count)), why: "the loss states its columns" });
        } else if program.cols.least > 2 {
            let formula = number(program.cols.least).is_at_most(Formula::Cols);
            all.push(Condition { formula, why: "the loss reads columns by a fixed index" });
        }
        if self.group_rows != 1 {
            let formula = Formula::Rows.remainder(number(self.group_rows)).equals(number(0));
            all.push(Condition { formula, why: "groups are whole" });
        }
        for (pass, choice) in self.choices.iter().enumerate() {
            let schedule = &choice.schedule;
            let along = if program.has_rows() { Formula::Cols } else { elements() };
            if schedule.width == 4 && choice.variant.aligned_to.is_none() {
                let formula = along.remainder(number(4)).equals(number(0));
                all.push(Condition { formula, why: "elements are loaded four at a time" });
            }
            if let Kernel::RowResident { trips } = schedule.kernel {
                let held = u64::from(schedule.lanes * schedule.width * trips);
                let early = if choice.shape.masked { 3 } else { 0 };
                let formula = Formula::Cols.plus(number(early)).is_at_most(number(held));
                all.push(Condition { formula, why: "a row is held in registers" });
            }
            if !schedule.strided {
                let Spread { each, most, .. } = choice.spread(self.problem);
                let items = if program.has_rows() { Formula::Rows } else { elements() };
                let formula = items.is_at_most(number(each * most));
                all.push(Condition { formula, why: "each workgroup takes its rows once; export for more rows" });
            }
            let [sums, ..] = sum_counts(program, pass);
            let added = planned.dispatches.iter().filter(|dispatch| dispatch.note == Note::Total(pass)).count();
            // An element-wise pass never leaves more partials than one step adds up.
            if sums > 0 && added == 1 && schedule.kernel != Kernel::Elementwise {
                let formula = Formula::Rows.is_at_most(number(most_partials(&self.prepared.limits)));
                all.push(Condition { formula, why: "sums are added in one step; export for more rows" });
            }
        }
        let mut distinct: Vec<Condition> = Vec::new();
        for condition in all {
            if condition.formula != Formula::Number(1) && !distinct.contains(&condition) {
                distinct.push(condition);
            }
        }
        distinct
    }
}

/// Index of an item in `known`, where it is added if it is new.
fn index_of<T: PartialEq>(known: &mut Vec<T>, item: T) -> usize {
    known.iter().position(|other| *other == item).unwrap_or_else(|| {
        known.push(item);
        known.len() - 1
    })
}

fn exported(uniform: &Uniform<Traced>) -> ExportUniform {
    let field = |field: &Field<Traced>| {
        let (is_float, value) = match &field.word {
            Word::Bits(bits) => (false, Formula::of(u64::from(*bits))),
            Word::Count(count) => (false, count.formula.clone()),
            Word::Float(count) => (true, count.formula.clone()),
            Word::Param(_) => unreachable!("parameters have a uniform of their own"),
        };
        ExportField { name: field.name.to_string(), offset: 4 * u64::from(field.index), is_float, value }
    };
    ExportUniform { bytes: 4 * u64::from(uniform.words), fields: uniform.fields.iter().map(field).collect() }
}

#[cfg(test)]
mod tests;
