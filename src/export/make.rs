//! A compiled loss to an [`Export`]: what the dispatches were resolved to for one shape, as formulas of any. Pure.

use super::{
    Condition, Export, ExportBuffer, ExportDispatch, ExportField, ExportResource, ExportTensor, ExportUniform,
};
use crate::codegen::{
    KernelSource, Mode, Slot, edge_outputs, group_slots, scalar_slots, state_words, sum_counts, tensors,
};
use crate::error::{Error, Result};
use crate::expr::Node;
use crate::limits::Limits;
use crate::loss::Loss;
use crate::lower::{Program, Target};
use crate::plan::check::mode_of;
use crate::plan::compiled::Compiled;
use crate::plan::passes::Resolved;
use crate::plan::problem::{ONE_STEP, Resource, Role, Step, Sums, reduce_lanes};
use crate::plan::spec::PlanSpec;
use crate::plan::uniform::{HalfUniform, MAX_TENSORS, ShapeUniform, SpanUniform};
use crate::plan::workspace::{Leaves, Memory, Span};
use crate::schedule::{Force, Kernel, PassSchedule, Spread};
use crate::shape::Scope;
use crate::shape::{Count, Formula};
use std::mem::{offset_of, size_of};

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
    /// As [`Context::plan`](crate::Context::plan); [`Error::Unsupported`] for other layouts, one row or one column,
    /// tensors larger than a binding (128 MiB), gradients in place or summed over broadcast axes, shards, and a
    /// separate backward.
    pub fn new(loss: &Loss, spec: &PlanSpec) -> Result<Export> {
        let limits = Limits::WEBGPU;
        let compiled = Compiled::new(loss, spec, &limits)?;
        let fault = |message: &str| Err(Error::Unsupported { message: format!("exporting {message}") });
        if compiled.staging.shard.is_some() || compiled.staging.forward.is_some() {
            return fault("a shard or a separate backward");
        }
        if compiled.staging.part {
            return fault("rows larger than a binding of WebGPU's default limits (128 MiB)");
        }
        let program = &compiled.program;
        if (0..program.outputs.len()).any(|o| matches!(mode_of(program, spec, o), Mode::InPlace(_))) {
            return fault("a gradient in place of its input");
        }
        let (geometry, resolved) = compiled.resolve(&compiled.planned()?, false, Force::default())?;
        let &[rows, cols] = &geometry.domain[..] else {
            return fault("shapes other than [rows, cols]");
        };
        let shape = [rows as u64, cols as u64];
        if shape.contains(&1) {
            return fault("for one row or one column, whose kernels serve no other shape; name more");
        }
        if resolved.facts.passes.iter().any(|facts| facts.chunks > 1) {
            return fault("tensors larger than a binding of WebGPU's default limits (128 MiB); name fewer rows");
        }
        if resolved.facts.settles > 0 {
            return fault("a gradient that is summed over broadcast axes, or of 16 bits and one value");
        }
        let export = Maker::new(&compiled, &resolved, shape).make();
        if !agrees(&export, &resolved, shape) {
            return fault("tensors that are not contiguous");
        }
        Ok(export)
    }
}

/// Whether the formulas give, for the shape that they were made for, the very dispatches that were resolved.
fn agrees(export: &Export, resolved: &Resolved, [rows, cols]: [u64; 2]) -> bool {
    let holds = |condition: &Condition| condition.formula.at(rows, cols) == 1;
    let same = |(step, dispatch): (&Step, &ExportDispatch)| {
        let uniform = |binding: usize| match dispatch.bindings[binding].1 {
            ExportResource::Uniform(place) => export.uniforms[place].at(rows, cols),
            _ => Vec::new(),
        };
        let same_uniforms = match step {
            Step::Kernel { shape, span, .. } => {
                uniform(0) == bytemuck::bytes_of(&**shape)
                    && span.as_ref().is_none_or(|span| uniform(1) == bytemuck::bytes_of(span))
            }
            Step::Widen { uniform: half, .. } => uniform(0) == bytemuck::bytes_of(half),
            Step::Settle { .. } | Step::States { .. } => false,
        };
        dispatch.grid.each_ref().map(|size| size.at(rows, cols)) == step.grid().map(u64::from) && same_uniforms
    };
    let steps = || resolved.scalars.iter().chain(&resolved.steps);
    export.conditions.iter().all(holds)
        && export.work_bytes.at(rows, cols) == work_bytes(Formula::of(resolved.work_words)).at(rows, cols)
        && steps().count() == export.dispatches.len()
        && steps().zip(&export.dispatches).all(same)
}

/// No buffer is empty.
fn work_bytes(words: Formula) -> Formula {
    Formula::of(4).times(words.at_least(Formula::of(4)))
}

struct Maker<'a> {
    compiled: &'a Compiled,
    program: &'a Program,
    resolved: &'a Resolved,
    made_for: [u64; 2],
    group_rows: Formula,
    memory: Memory<Formula>,
    uniforms: Vec<ExportUniform>,
}

impl<'a> Maker<'a> {
    fn new(compiled: &'a Compiled, resolved: &'a Resolved, made_for: [u64; 2]) -> Maker<'a> {
        let program = &compiled.program;
        let leaves = program.passes.iter().enumerate().map(|(place, pass)| {
            let schedule = &resolved.facts.passes[place].schedule;
            let [totals, group_sums] = sum_counts(program, place);
            Leaves {
                totals,
                items: sum_items(program, schedule),
                group_sums,
                states: pass.stages.len() as u64 * slots(schedule) * u64::from(state_words(program, pass)),
                edges: edge_outputs(program, pass, &resolved.variants[place], schedule.width).len() as u64,
            }
        });
        let leaves: Vec<Leaves<Formula>> = leaves.collect();
        let group_rows = Formula::of(compiled.spec.group_rows.unwrap_or(1));
        // Whole ones, as the conditions say.
        let groups = rows(program).div_ceil(group_rows.clone());
        let memory = Memory::new(&leaves, &rows(program), group_slots(program).len() as u64, groups);
        Maker { compiled, program, resolved, made_for, group_rows, memory, uniforms: Vec::new() }
    }

    fn make(mut self) -> Export {
        let mut kernels: Vec<String> = Vec::new();
        let mut dispatches = Vec::new();
        let mut workgroup_invocations = 0;
        let mut kernel_of = |source: &KernelSource| {
            kernels.iter().position(|wgsl| *wgsl == source.wgsl).unwrap_or_else(|| {
                kernels.push(source.wgsl.clone());
                kernels.len() - 1
            })
        };
        for step in &self.resolved.scalars {
            let Step::Widen { source, uniform } = step else { unreachable!("scalars are widened") };
            let half = self.uniform(half_uniform(uniform));
            let bindings = step.resources().into_iter().map(|(number, resource)| {
                let resource = match resource {
                    Resource::Storage(storage) => {
                        let binding = &source.bindings[storage];
                        ExportResource::Storage { buffer: self.buffer(binding.slot), writes: binding.writes }
                    }
                    _ => ExportResource::Uniform(half),
                };
                (number, resource)
            });
            let (kernel, grid) = (kernel_of(source), step.grid().map(|size| Formula::of(u64::from(size))));
            dispatches.push(ExportDispatch { kernel, grid, bindings: bindings.collect() });
        }
        for place in 0..self.resolved.steps.len() {
            let Step::Kernel { source, pass, role, .. } = &self.resolved.steps[place] else {
                unreachable!("gradients that are settled and shards were refused")
            };
            let kernel = kernel_of(source);
            let schedule = &self.resolved.facts.passes[*pass].schedule;
            let reduce = reduce_lanes(&self.compiled.limits);
            workgroup_invocations = workgroup_invocations.max(schedule.workgroup).max(reduce);
            let span = if let Role::Sums(sums) = role { Some(self.span(*pass, *sums)) } else { None };
            let grid = match (role, &span) {
                (Role::Sums(_), Some(span)) => [span.workgroups(self.compiled.limits.workgroups), Formula::of(1)],
                (Role::Stitch, _) => {
                    let most = Formula::of(u64::from(self.compiled.limits.workgroups));
                    [items(self.program).div_ceil(Formula::of(u64::from(reduce))).at_most(most), Formula::of(1)]
                }
                _ => spread(schedule, &self.compiled.limits).grid(items(self.program)),
            };
            let shape = self.uniform(self.shape(*pass, *role));
            let bindings = self.resolved.steps[place].resources().into_iter().map(|(number, resource)| {
                let resource = match resource {
                    Resource::Shape => ExportResource::Uniform(shape),
                    Resource::Span => {
                        let span = span.as_ref().expect("a reduction has a span");
                        ExportResource::Uniform(self.uniform(span_uniform(span)))
                    }
                    Resource::Params => ExportResource::Params,
                    Resource::Storage(storage) => {
                        let binding = &source.bindings[storage];
                        ExportResource::Storage { buffer: self.buffer(binding.slot), writes: binding.writes }
                    }
                };
                (number, resource)
            });
            let bindings = bindings.collect();
            dispatches.push(ExportDispatch { kernel, grid, bindings });
        }
        let scalars = scalar_slots(self.program);
        let planned = self.compiled.planned_inputs();
        let is_packed = |place: u32| planned[place as usize].as_ref().is_some_and(|io| io.dtype.is_packed());
        let scalar_input = |(slot, id): (usize, &crate::expr::NodeId)| match *self.program.node(*id) {
            Node::Input(place) if !is_packed(place) => {
                Some((self.program.inputs[place as usize].name.clone(), 1 + slot as u64))
            }
            _ => None,
        };
        Export {
            loss: self.program.name.clone(),
            made_for: self.made_for,
            conditions: self.conditions(),
            workgroup_invocations,
            kernels,
            tensors: self.tensors(),
            work_bytes: work_bytes(self.memory.words.clone()),
            scalar_words: 1 + scalars.len().max(1) as u64,
            scalar_inputs: scalars.iter().enumerate().filter_map(scalar_input).collect(),
            params: self.program.params.clone(),
            params_bytes: self.compiled.params_bytes(),
            uniforms: self.uniforms,
            dispatches,
        }
    }

    /// Place of that uniform: equal ones are one.
    fn uniform(&mut self, uniform: ExportUniform) -> usize {
        self.uniforms.iter().position(|known| *known == uniform).unwrap_or_else(|| {
            self.uniforms.push(uniform);
            self.uniforms.len() - 1
        })
    }

    fn buffer(&self, slot: Slot) -> ExportBuffer {
        match slot {
            Slot::Input(place) => ExportBuffer::Tensor(place),
            Slot::Output(output) => ExportBuffer::Tensor(self.program.inputs.len() + output),
            Slot::Work => ExportBuffer::Work,
            Slot::Scalars => ExportBuffer::Scalars,
            Slot::States(_) | Slot::Gathered(_) => unreachable!("shards were refused"),
        }
    }

    /// Partial sums that the last steps of a pass add up.
    fn total_items(&self, pass: usize) -> Formula {
        match sum_counts(self.program, pass) {
            [0, _] => Formula::of(0),
            _ => sum_items(self.program, &self.resolved.facts.passes[pass].schedule),
        }
    }

    fn has_segments(&self, of: usize) -> bool {
        let is_first =
            |step: &Step| matches!(step, Step::Kernel { pass, role: Role::Sums(Sums::Segments), .. } if *pass == of);
        self.resolved.steps.iter().any(is_first)
    }

    fn span(&self, pass: usize, sums: Sums) -> Span<Formula> {
        let items = self.total_items(pass);
        match sums {
            Sums::Groups => {
                let [totals, _] = sum_counts(self.program, pass);
                let partials = Formula::of(totals).times(items);
                Span::groups(partials, rows(self.program), self.group_rows.clone(), &self.memory)
            }
            Sums::Segments => Span::segments(items, &self.memory),
            Sums::Finish => {
                let segments = self.has_segments(pass).then(|| Span::segments(items.clone(), &self.memory));
                Span::finish(items, segments.as_ref())
            }
        }
    }

    /// `ShapeUniform`, field by field.
    fn shape(&self, pass: usize, role: Role) -> ExportUniform {
        let program = self.program;
        let schedule = &self.resolved.facts.passes[pass].schedule;
        let number = |value: u64| Formula::of(value);
        let elements = Formula::Rows.times(Formula::Cols);
        let cols = if program.has_rows() { Formula::Cols } else { elements.clone() };
        let splits = if let Kernel::RowSplit { splits } = schedule.kernel { splits } else { 1 };
        let axes = match program.has_rows() {
            true => [number(1), number(1), Formula::Rows, Formula::Cols],
            false => [number(1), number(1), number(1), elements.clone()],
        };
        let mut fields = vec![
            ("rows", offset_of!(ShapeUniform, rows), rows(program)),
            ("cols", offset_of!(ShapeUniform, cols), cols.clone()),
            ("elements", offset_of!(ShapeUniform, elements), elements),
            ("batch", offset_of!(ShapeUniform, batch), Formula::Rows),
            ("group_rows", offset_of!(ShapeUniform, group_rows), self.group_rows.clone()),
            ("group_base", offset_of!(ShapeUniform, group_base), self.memory.group_base.clone()),
            ("groups", offset_of!(ShapeUniform, groups), self.memory.groups.clone()),
            ("splits", offset_of!(ShapeUniform, splits), number(u64::from(splits))),
            ("state_base", offset_of!(ShapeUniform, state_base), self.memory.state_base.clone()),
            ("edge_base", offset_of!(ShapeUniform, edge_base), self.memory.edge_base.clone()),
            ("classes", offset_of!(ShapeUniform, classes), cols),
            ("items", offset_of!(ShapeUniform, items), items(program)),
        ];
        if !matches!(role, Role::Sums(_)) {
            let [groups, _] = spread(schedule, &self.compiled.limits).grid(items(program));
            fields.push(("slots", offset_of!(ShapeUniform, slots), number(slots(schedule))));
            fields.push(("states", offset_of!(ShapeUniform, states), number(slots(schedule))));
            fields.push(("sum_groups", offset_of!(ShapeUniform, sum_groups), groups));
        }
        let mut named: Vec<(String, usize, Formula)> =
            fields.into_iter().map(|(name, offset, value)| (name.to_owned(), offset, value)).collect();
        let vector = |name: &str, offset: usize, values: [Formula; 4]| {
            let parts = values.into_iter().enumerate();
            parts.map(|(k, value)| (format!("{name}[{k}]"), offset + 4 * k, value)).collect::<Vec<_>>()
        };
        named.extend(vector("axes", offset_of!(ShapeUniform, axes), axes));
        let all = tensors(program, &program.passes[pass]);
        debug_assert!(all.len() <= MAX_TENSORS);
        for (place, slot) in all.into_iter().enumerate() {
            let offset = offset_of!(ShapeUniform, tensors) + 32 * place;
            named.extend(vector(&format!("tensors[{}]", 2 * place), offset, self.strides(slot)));
        }
        let field = |(name, offset, value): (String, usize, Formula)| {
            let is_float = offset == offset_of!(ShapeUniform, elements);
            ExportField { name, offset: offset as u64, is_float, value }
        };
        let is_there = |field: &ExportField| field.value != Formula::Number(0);
        let fields = named.into_iter().map(field).filter(is_there).collect();
        ExportUniform { bytes: size_of::<ShapeUniform>() as u64, fields }
    }

    fn scope(&self, slot: Slot) -> Scope {
        match slot {
            Slot::Input(place) => self.program.inputs[place].scope,
            Slot::Output(output) => self.program.outputs[output].scope,
            _ => Scope::Scalar,
        }
    }

    /// Strides of a contiguous tensor along the axes.
    fn strides(&self, slot: Slot) -> [Formula; 4] {
        let number = |value: u64| Formula::of(value);
        match (self.scope(slot), self.program.has_rows()) {
            (Scope::Element, true) => [number(0), number(0), Formula::Cols, number(1)],
            (Scope::Element, false) | (Scope::Column, _) => [number(0), number(0), number(0), number(1)],
            (Scope::Row, true) => [number(0), number(0), number(1), number(0)],
            _ => [number(0), number(0), number(0), number(0)],
        }
    }

    fn tensors(&self) -> Vec<ExportTensor> {
        let program = self.program;
        let tensor = |name: String, slot: Slot, dtype: crate::DType, is_output: bool| {
            let shape = match self.scope(slot) {
                Scope::Element => vec![Formula::Rows, Formula::Cols],
                Scope::Row => vec![Formula::Rows],
                Scope::Column => vec![Formula::Cols],
                _ => Vec::new(),
            };
            let values = shape.iter().cloned().fold(Formula::of(1), Formula::times);
            let vectors = values.times(Formula::of(dtype.size())).div_ceil(Formula::of(16));
            ExportTensor { name, is_output, dtype, shape, bytes: vectors.times(Formula::of(16)) }
        };
        let planned = self.compiled.planned_inputs();
        let inputs = program.inputs.iter().enumerate().map(|(place, decl)| {
            let dtype = planned[place].as_ref().map_or(crate::DType::F32, |io| io.dtype);
            tensor(decl.name.clone(), Slot::Input(place), dtype, false)
        });
        let name = |target: &Target| match target {
            Target::Loss => "loss".to_owned(),
            Target::Denominator => "denominator".to_owned(),
            Target::Extra(name) => name.clone(),
            Target::Grad(place) => format!("d_{}", program.inputs[*place].name),
            Target::HessianDiagonal(place) => format!("hessian_diagonal_{}", program.inputs[*place].name),
        };
        let outputs = program.outputs.iter().enumerate();
        let outputs =
            outputs.map(|(o, output)| tensor(name(&output.target), Slot::Output(o), self.compiled.dtype_of(o), true));
        inputs.chain(outputs).collect()
    }

    /// What the kernels rely on.
    fn conditions(&self) -> Vec<Condition> {
        let program = self.program;
        let number = |value: u64| Formula::of(value);
        let elements = || Formula::Rows.times(Formula::Cols);
        let mut all = vec![
            Condition { formula: number(2).is_at_most(Formula::Rows), why: "one row would be addressed otherwise" },
            Condition { formula: number(2).is_at_most(Formula::Cols), why: "one column would be addressed otherwise" },
            Condition { formula: elements().is_at_most(number(MOST_ELEMENTS)), why: "elements are counted in 32 bits" },
        ];
        if self.group_rows != number(1) {
            let formula = Formula::Rows.remainder(self.group_rows.clone()).equals(number(0));
            all.push(Condition { formula, why: "groups are whole" });
        }
        for (place, facts) in self.resolved.facts.passes.iter().enumerate() {
            let (schedule, variant) = (&facts.schedule, &self.resolved.variants[place]);
            let along = if program.has_rows() { Formula::Cols } else { elements() };
            if schedule.width == 4 && variant.aligned_to.is_none() {
                let formula = along.remainder(number(4)).equals(number(0));
                all.push(Condition { formula, why: "elements are loaded four at a time" });
            }
            if let Kernel::RowResident { trips } = schedule.kernel {
                let held = u64::from(schedule.lanes * schedule.width * trips);
                let early = if facts.shape.masked { 3 } else { 0 };
                let formula = Formula::Cols.plus(number(early)).is_at_most(number(held));
                all.push(Condition { formula, why: "a row is held in registers" });
            }
            if !schedule.strided {
                let spread = spread(schedule, &self.compiled.limits);
                let formula = items(program).is_at_most(number(spread.each * spread.most));
                all.push(Condition { formula, why: "each workgroup takes its rows once; export for more rows" });
            }
            // Elements by themselves never leave so many partial sums.
            if !self.has_segments(place) && schedule.kernel != Kernel::Elementwise {
                let formula = self.total_items(place).is_at_most(number(ONE_STEP));
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

/// Rows of the geometry: without rows, one.
fn rows(program: &Program) -> Formula {
    if program.has_rows() { Formula::Rows } else { Formula::of(1) }
}

/// Rows, or elements.
fn items(program: &Program) -> Formula {
    if program.has_rows() { Formula::Rows } else { Formula::Rows.times(Formula::Cols) }
}

fn spread(schedule: &PassSchedule, limits: &Limits) -> Spread {
    Spread::new(schedule.kernel, schedule.workgroup, schedule.lanes, schedule.width, limits)
}

/// States of a row that lie in `work`.
fn slots(schedule: &PassSchedule) -> u64 {
    if let Kernel::RowSplit { splits } = schedule.kernel { u64::from(splits) } else { 0 }
}

/// Partial sums that a pass leaves of each of its sums.
fn sum_items(program: &Program, schedule: &PassSchedule) -> Formula {
    match schedule.kernel {
        Kernel::Elementwise => {
            let [groups, _] = spread(schedule, &Limits::WEBGPU).grid(items(program));
            groups
        }
        _ => Formula::Rows,
    }
}

fn half_uniform(half: &HalfUniform) -> ExportUniform {
    let fields = [
        ("element", offset_of!(HalfUniform, element), half.element),
        ("slot", offset_of!(HalfUniform, slot), half.slot),
    ];
    let field = |(name, offset, value): (&str, usize, u32)| ExportField {
        name: name.to_owned(),
        offset: offset as u64,
        is_float: false,
        value: Formula::of(u64::from(value)),
    };
    let fields = fields.into_iter().filter(|(.., value)| *value != 0).map(field).collect();
    ExportUniform { bytes: size_of::<HalfUniform>() as u64, fields }
}

fn span_uniform(span: &Span<Formula>) -> ExportUniform {
    let fields = [
        ("count", offset_of!(SpanUniform, count), &span.count),
        ("length", offset_of!(SpanUniform, length), &span.length),
        ("segments", offset_of!(SpanUniform, segments), &span.segments),
        ("items_base", offset_of!(SpanUniform, items_base), &span.items_base),
        ("results_base", offset_of!(SpanUniform, results_base), &span.results_base),
    ];
    let field = |(name, offset, value): (&str, usize, &Formula)| ExportField {
        name: name.to_owned(),
        offset: offset as u64,
        is_float: false,
        value: value.clone(),
    };
    let fields = fields.into_iter().filter(|(.., value)| **value != Formula::Number(0)).map(field).collect();
    ExportUniform { bytes: size_of::<SpanUniform>() as u64, fields }
}

#[cfg(test)]
mod tests;
